"""The README names what there is."""

from __future__ import annotations

from pathlib import Path

from voxengine_openai import CustomProvider, OpenAIProvider
from voxengine_openai.options import CONNECTION_KEYS, VENDOR
from voxengine_openai.voices import NEAREST

ROOT = Path(__file__).parents[3]
README = (ROOT / "plugins" / "voxengine-openai" / "README.md").read_text("utf-8")


def test_every_key_of_metadata_is_described() -> None:
    assert [key for key in sorted({*VENDOR, *CONNECTION_KEYS}) if f"`{key}`" not in README] == []


def test_every_option_that_is_honoured_is_named() -> None:
    options = (OpenAIProvider.options or frozenset()) | (CustomProvider.options or frozenset())

    assert [name for name in sorted(options) if f"`{name}`" not in README] == []


def test_every_voice_that_is_replaced_is_named_with_its_neighbour() -> None:
    assert [name for pair in NEAREST.items() for name in pair if f"`{name}`" not in README] == []


def test_example_of_a_whole_conversation_is_short() -> None:
    example = (ROOT / "examples" / "openai_conversation.py").read_text("utf-8")

    assert len([line for line in example.splitlines() if line.strip()]) < 25
