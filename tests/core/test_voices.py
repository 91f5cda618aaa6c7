"""Which voice of another provider takes over: by the table, else by language, gender and style."""

from __future__ import annotations

import pytest

from voxengine import VoiceEngineConfig
from voxengine.adapting import carried_over
from voxengine.voices import VOICE_MAP, VOICE_TRAITS, counterpart, nearest


@pytest.mark.parametrize(("source", "target"), VOICE_MAP)
def test_table_pairs_voices_that_are_described(source: str, target: str) -> None:
    assert set(VOICE_MAP[source, target]) <= set(VOICE_TRAITS[source])


@pytest.mark.parametrize(
    ("voice", "source", "target", "language", "expected"),
    [
        ("bruno", "mock", "openai", None, "onyx"),
        ("Bruno ", "mock", "openai", None, "onyx"),
        ("bruno", "mock", "azure", None, "en-US-DavisNeural"),
        ("bruno", "mock", "azure", "de-DE", "de-DE-ConradNeural"),
        ("aria", "mock", "azure", "de-AT", "de-DE-KatjaNeural"),
        ("en-US-AriaNeural", "azure", "mock", None, "aria"),
        ("de-DE-ConradNeural", "azure", "mock", None, "bruno"),
        ("bruno", "mock", "azure", "tlh", None),
        ("nobody", "mock", "openai", None, None),
        ("bruno", "mock", "acme", None, None),
        (None, "mock", "openai", None, None),
    ],
)
def test_nearest_voice(
    voice: str | None, source: str, target: str, language: str | None, expected: str | None
) -> None:
    assert nearest(voice, source, target, language) == expected


def test_every_described_voice_finds_one_of_its_gender_in_its_language() -> None:
    for name, traits in VOICE_TRAITS["azure"].items():
        found = nearest(name, "azure", "openai")
        assert found is not None
        assert VOICE_TRAITS["openai"][found].gender == traits.gender


def test_table_wins_over_likeness_and_a_voice_of_its_own_over_both() -> None:
    old = VoiceEngineConfig(provider="openai", voice="alloy")

    assert carried_over(old, VoiceEngineConfig(provider="azure")).voice == counterpart(
        "alloy", "openai", "azure"
    )
    assert carried_over(old, VoiceEngineConfig(provider="azure", voice="en-GB-RyanNeural")).voice == (
        "en-GB-RyanNeural"
    )
    assert carried_over(old, VoiceEngineConfig(provider="mock")).voice in VOICE_TRAITS["mock"]
    assert carried_over(old, VoiceEngineConfig(provider="acme")).voice is None
