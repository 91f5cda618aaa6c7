"""The README names every option of the dialogue services."""

from __future__ import annotations

from pathlib import Path

from voxengine_azure.azure_openai import AzureOpenAIProvider
from voxengine_azure.voice_live.options import CONNECTION_KEYS, VENDOR
from voxengine_azure.voice_live.provider import VoiceLiveProvider

README = (Path(__file__).parents[3] / "plugins" / "voxengine-azure" / "README.md").read_text("utf-8")


def test_every_key_of_metadata_is_described() -> None:
    assert [key for key in sorted({*VENDOR, *CONNECTION_KEYS}) if f"`{key}`" not in README] == []


def test_every_option_that_is_honoured_is_named() -> None:
    options = (VoiceLiveProvider.options or frozenset()) | (AzureOpenAIProvider.options or frozenset())

    assert [name for name in sorted(options) if f"`{name}`" not in README] == []
