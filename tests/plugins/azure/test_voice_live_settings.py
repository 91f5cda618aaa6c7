"""Options become the session that Voice Live is asked for, and what it cannot have is said."""

from __future__ import annotations

from typing import Any

import pytest

from tests.plugins.azure.voicelive_types import check_client
from voxengine.audio.format import AudioFormat, Encoding
from voxengine.capabilities import Support
from voxengine.codec import Role
from voxengine.config import TurnDetection
from voxengine.errors import ConfigError
from voxengine_azure import AzureProvider
from voxengine_azure.voice_live.dialect import VOICE_LIVE
from voxengine_azure.voice_live.plan import plan_voice_live
from voxengine_azure.voice_live.provider import VoiceLiveProvider
from voxengine_openai.codec import RealtimeCodec, RealtimeMessage
from voxengine_openai.session_settings import SessionPlan

CODEC = RealtimeCodec(Role.CLIENT, str, VOICE_LIVE)
EOU = {"model": "semantic_detection_v1"}


def plan(*, model: str = "gpt-4o", **config: Any) -> SessionPlan:
    own = config.get("metadata", {}).get("session")
    asked = VoiceLiveProvider(config)._read_options(config)
    return plan_voice_live(asked, own, VoiceLiveProvider.traits, model)


def sent(**config: Any) -> dict[str, Any]:
    """The session as it travels, judged by the official models."""
    (text,) = CODEC.encode(RealtimeMessage("session.update", {"session": plan(**config).session}))
    session: dict[str, Any] = check_client(text)["session"]
    return session


def test_nothing_asked_for_leaves_everything_but_the_formats_to_the_service() -> None:
    assert sent() == {
        "input_audio_format": "pcm16",
        "input_audio_sampling_rate": 24_000,
        "output_audio_format": "pcm16",
    }


@pytest.mark.parametrize(
    ("given", "key", "value"),
    [
        ({"instructions": "Be brief."}, "instructions", "Be brief."),
        ({"temperature": 0.4}, "temperature", 0.4),
        ({"max_output_tokens": 200}, "max_response_output_tokens", 200),
        ({"modalities": ("text",)}, "modalities", ["text"]),
        ({"modalities": ("audio",)}, "modalities", ["text", "audio"]),
        ({"tool_choice": "look"}, "tool_choice", {"type": "function", "name": "look"}),
        ({"input_format": AudioFormat(16_000)}, "input_audio_sampling_rate", 16_000),
        ({"output_format": AudioFormat(8_000)}, "output_audio_format", "pcm16_8000hz"),
        (
            {"input_format": AudioFormat(8_000, 1, Encoding.G711_ALAW)},
            "input_audio_format",
            "g711_alaw",
        ),
        ({"turn_detection": "manual"}, "turn_detection", None),
        ({"turn_detection": "client"}, "turn_detection", None),
        (
            {"turn_detection": TurnDetection(threshold=0.6, prefix_padding_ms=200, silence_ms=400)},
            "turn_detection",
            {
                "type": "server_vad",
                "threshold": 0.6,
                "prefix_padding_ms": 200,
                "silence_duration_ms": 400,
            },
        ),
        ({"turn_detection": "semantic"}, "turn_detection", {"type": "azure_semantic_vad"}),
        (
            {
                "turn_detection": TurnDetection("semantic", silence_ms=400),
                "metadata": {
                    "semantic_vad": "azure_semantic_vad_multilingual",
                    "languages": ["en", "de"],
                    "remove_filler_words": True,
                    "speech_duration_ms": 120,
                    "auto_truncate": True,
                    "end_of_utterance": True,
                },
            },
            "turn_detection",
            {
                "type": "azure_semantic_vad_multilingual",
                "silence_duration_ms": 400,
                "languages": ["en", "de"],
                "remove_filler_words": True,
                "speech_duration_ms": 120,
                "auto_truncate": True,
                "end_of_utterance_detection": EOU,
            },
        ),
        (
            {"metadata": {"end_of_utterance": {**EOU, "timeout_ms": 800}}},
            "turn_detection",
            {"type": "server_vad", "end_of_utterance_detection": {**EOU, "timeout_ms": 800}},
        ),
        (
            {"metadata": {"noise_reduction": "azure_deep_noise_suppression"}},
            "input_audio_noise_reduction",
            {"type": "azure_deep_noise_suppression"},
        ),
        (
            {"metadata": {"echo_cancellation": True}},
            "input_audio_echo_cancellation",
            {"type": "server_echo_cancellation"},
        ),
        (
            {"metadata": {"echo_cancellation": {"reference_source": "client", "channels": 2}}},
            "input_audio_echo_cancellation",
            {"type": "server_echo_cancellation", "reference_source": "client", "channels": 2},
        ),
        (
            {"mode": "big", "language": "en-US", "vocabulary": ("Lisbon",)},
            "input_audio_transcription",
            {"model": "azure-speech", "language": "en-US", "phrase_list": ["Lisbon"]},
        ),
        (
            {"mode": "big", "language": "en_US,de"},
            "input_audio_transcription",
            {"model": "azure-speech", "language": "en-US,de"},
        ),
        (
            {"mode": "big", "language": "de-DE", "metadata": {"custom_model": "0000"}},
            "input_audio_transcription",
            {"model": "azure-speech", "language": "de-DE", "custom_speech": {"de-DE": "0000"}},
        ),
        (
            {"metadata": {"transcription_model": "whisper-1"}},
            "input_audio_transcription",
            {"model": "whisper-1"},
        ),
        ({"mode": "big"}, "output_audio_timestamp_types", ["word"]),
        ({"mode": "big"}, "include", ["item.input_audio_transcription.phrases"]),
        ({"metadata": {"animation": "viseme_id"}}, "animation", {"outputs": ["viseme_id"]}),
        ({"metadata": {"animation": ["viseme_id"]}}, "modalities", ["text", "audio", "animation"]),
        (
            {"metadata": {"avatar": {"character": "lisa", "customized": False}}},
            "modalities",
            ["text", "audio", "avatar"],
        ),
        ({"metadata": {"reasoning": "low"}}, "reasoning_effort", "low"),
        ({"metadata": {"session": {"voice": "alloy"}}, "voice": "en-US-AvaNeural"}, "voice", "alloy"),
        (
            {"metadata": {"session": {"turn_detection": None}}, "turn_detection": "server"},
            "turn_detection",
            None,
        ),
    ],
)
def test_option_has_its_place(given: dict[str, Any], key: str, value: Any) -> None:
    assert sent(**given)[key] == value


@pytest.mark.parametrize(
    ("model", "given", "voice"),
    [
        ("gpt-realtime", {"voice": "alloy"}, {"type": "openai", "name": "alloy"}),
        ("gpt-realtime", {"voice": "nova"}, {"type": "azure-standard", "name": "en-US-AriaNeural"}),
        ("gpt-4o", {"voice": "alloy"}, {"type": "azure-standard", "name": "en-US-JennyNeural"}),
        ("gpt-4o", {"voice": "echo"}, {"type": "azure-standard", "name": "en-US-GuyNeural"}),
        (
            "gpt-4o",
            {"metadata": {"voice": "en-US-JennyNeural"}},
            {"type": "azure-standard", "name": "en-US-JennyNeural"},
        ),
        (
            "gpt-realtime",
            {"voice": "en-US-Ava:DragonHDLatestNeural", "metadata": {"voice_temperature": 0.8}},
            {"type": "azure-standard", "name": "en-US-Ava:DragonHDLatestNeural", "temperature": 0.8},
        ),
        (
            "gpt-4o",
            {"voice": "en-US-AvaNeural", "metadata": {"style": "cheerful", "rate": "+10%"}},
            {"type": "azure-standard", "name": "en-US-AvaNeural", "style": "cheerful", "rate": "+10%"},
        ),
        (
            "gpt-4o",
            {"voice": "Contoso", "metadata": {"custom_voice": "0000"}},
            {"type": "azure-custom", "name": "Contoso", "endpoint_id": "0000"},
        ),
        (
            "gpt-4o",
            {"voice": "speaker-1", "metadata": {"personal_voice": "DragonLatestNeural"}},
            {"type": "azure-personal", "name": "speaker-1", "model": "DragonLatestNeural"},
        ),
        ("azure-realtime", {"voice": "ava"}, {"type": "azure-realtime-native", "name": "ava"}),
        (
            "gpt-4o",
            {"metadata": {"voice": {"type": "avatar-voice-sync", "model": "DragonLatestNeural"}}},
            {"type": "avatar-voice-sync", "model": "DragonLatestNeural"},
        ),
        ("gpt-4o", {"voice": "a-voice-of-next-year"}, "a-voice-of-next-year"),
    ],
)
def test_voice_becomes_an_object_of_its_kind(model: str, given: dict[str, Any], voice: Any) -> None:
    assert sent(model=model, **given)["voice"] == voice


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"model": "gpt-4o", "voice": "alloy"}, "voice_mapped"),
        ({"turn_detection": TurnDetection("semantic", eagerness="high")}, "option_unsupported"),
        ({"turn_detection": TurnDetection(idle_timeout_ms=5000)}, "option_unsupported"),
        ({"model": "gpt-realtime", "metadata": {"end_of_utterance": True}}, "option_unsupported"),
        ({"metadata": {"remove_filler_words": True}}, "option_unsupported"),
        ({"metadata": {"style": "cheerful"}}, "option_unsupported"),
        ({"mode": "fast", "model": "gpt-realtime", "vocabulary": ("Lisbon",)}, "option_unsupported"),
        ({"vocabulary": ("Lisbon",), "metadata": {"transcription_model": "whisper-1"}}, "option_unsupported"),
    ],
)
def test_what_cannot_be_had_is_said(given: dict[str, Any], code: str) -> None:
    assert [row[1] for row in plan(**given).warnings] == [code]


@pytest.mark.parametrize(
    "given",
    [
        {"metadata": {"animation": "waving"}},
        {"metadata": {"echo_cancellation": 3}},
        {"metadata": {"semantic_vad": "server_vad"}},
        {"metadata": {"voice_temperature": 2}},
        {"metadata": {"speech_duration_ms": -1}},
        {"metadata": {"avatar": "lisa"}},
        {"metadata": {"style": ""}},
        {"voice": "ava", "metadata": {"style": "cheerful"}},
        {"input_format": AudioFormat(44_100)},
        {"language": "xx!!"},
    ],
)
def test_wrong_value_is_a_configuration_error(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        plan(**given)


@pytest.mark.parametrize(
    ("config", "support"),
    [
        ({}, Support.PARTIAL),
        ({"voice": "en-US-JennyNeural"}, Support.PARTIAL),
        ({"voice": "alloy"}, Support.UNSUPPORTED),
        ({"mode": "fast"}, Support.UNSUPPORTED),
    ],
)
def test_word_times_are_declared_where_they_come(config: dict[str, Any], support: Support) -> None:
    metadata = {"endpoint": "https://x.services.ai.azure.com"}

    capabilities = AzureProvider.capabilities_for({**config, "metadata": metadata})

    assert capabilities.word_timings.support is support
