"""Voice Live's dialect and schema, compared with the official SDK's models."""

from __future__ import annotations

import json
from typing import Any

import pytest
from azure.ai.voicelive import models

from tests.plugins.azure.voicelive_types import (
    CLIENT_EVENTS,
    SERVER_EVENTS,
    check_client,
    check_server,
    fields_of,
)
from voxengine.codec import Role
from voxengine_azure.voice_live.dialect import CLIENT_EXTRAS, SERVER_EXTRAS, VOICE_LIVE
from voxengine_azure.voice_live.schema import EVENTS, VOICE_KINDS
from voxengine_openai.codec import AudioDelta, ProtocolFault, RealtimeCodec, RealtimeMessage
from voxengine_openai.messages import CLIENT_EVENTS as GA_CLIENT_EVENTS
from voxengine_openai.messages import SERVER_EVENTS as GA_SERVER_EVENTS

CLIENT, SERVER = (RealtimeCodec(role, str, VOICE_LIVE) for role in Role)

EVERYTHING: dict[str, Any] = {
    "model": "gpt-4o",
    "modalities": ["text", "audio", "animation", "avatar"],
    "voice": {"type": "azure-standard", "name": "en-US-AvaNeural", "rate": "1.2", "style": "cheerful"},
    "instructions": "Be brief.",
    "input_audio_format": "pcm16",
    "input_audio_sampling_rate": 16_000,
    "output_audio_format": "pcm16_16000hz",
    "turn_detection": {
        "type": "azure_semantic_vad_multilingual",
        "threshold": 0.5,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 500,
        "speech_duration_ms": 80,
        "remove_filler_words": True,
        "languages": ["en", "de"],
        "auto_truncate": True,
        "create_response": True,
        "interrupt_response": True,
        "end_of_utterance_detection": {
            "model": "semantic_detection_v1",
            "threshold_level": "low",
            "timeout_ms": 900,
        },
    },
    "input_audio_transcription": {
        "model": "azure-speech",
        "language": "en-US",
        "custom_speech": {"en-US": "0000"},
        "phrase_list": ["Lisbon"],
    },
    "input_audio_noise_reduction": {"type": "azure_deep_noise_suppression"},
    "input_audio_echo_cancellation": {
        "type": "server_echo_cancellation",
        "reference_source": "client",
        "channels": 2,
    },
    "output_audio_timestamp_types": ["word"],
    "animation": {"model_name": "default", "outputs": ["viseme_id", "blendshapes"]},
    "avatar": {
        "character": "lisa",
        "style": "casual-sitting",
        "customized": False,
        "output_protocol": "webrtc",
    },
    "tools": [
        {"type": "function", "name": "look", "description": "Looks.", "parameters": {"type": "object"}},
        {
            "type": "mcp",
            "server_label": "docs",
            "server_url": "https://docs.example",
            "require_approval": "never",
        },
    ],
    "tool_choice": {"type": "function", "name": "look"},
    "parallel_tool_calls": True,
    "temperature": 0.7,
    "max_response_output_tokens": "inf",
    "reasoning_effort": "low",
    "interim_response": {"type": "static_interim_response", "texts": ["Hm."], "triggers": ["latency"]},
    "include": ["item.input_audio_transcription.phrases"],
    "metadata": {"call": "17"},
}


def wire_names(names: Any) -> set[str]:
    """What the dialect calls events of GA; those that it does not say are left out."""
    return {wire for name in names if (wire := VOICE_LIVE.wire_name(name, {})) is not None}


def test_tables_name_every_event_of_the_sdk() -> None:
    assert wire_names(GA_CLIENT_EVENTS) | CLIENT_EXTRAS == set(CLIENT_EVENTS)
    assert set(SERVER_EVENTS) - wire_names(GA_SERVER_EVENTS) == SERVER_EXTRAS


def test_schema_knows_every_event_and_voice_of_the_sdk() -> None:
    assert wire_names(EVENTS) == set(CLIENT_EVENTS)
    assert {"openai", "azure-realtime-native", *models.AzureVoice.__mapping__} == set(VOICE_KINDS)


@pytest.mark.parametrize("name", sorted(CLIENT_EXTRAS))
def test_extra_events_have_the_fields_of_the_sdk(name: str) -> None:
    own = {field for field in EVENTS[name].__struct_fields__ if field != "event_id"}

    assert own == set(fields_of(CLIENT_EVENTS[name])) - {"type", "event_id"}


def test_session_with_every_field_of_the_sdk_goes_both_ways() -> None:
    assert set(EVERYTHING) == set(fields_of(models.RequestSession))
    wire = json.dumps({"type": "session.update", "session": EVERYTHING})
    check_client(wire)

    (message,) = SERVER.decode(wire, 0.0)

    assert isinstance(message, RealtimeMessage), message
    assert message.fields["session"]["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 16_000}
    assert message.fields["session"]["audio"]["output"]["format"] == {"type": "audio/pcm", "rate": 16_000}
    assert message.fields["session"]["output_modalities"] == ["audio", "animation", "avatar"]
    (back,) = CLIENT.encode(message)
    assert json.loads(back)["session"] == EVERYTHING


def test_request_with_every_field_of_the_sdk_goes_both_ways() -> None:
    message = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}
    said = {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "Hello"}]}
    response = {
        "commit": True,
        "cancel_previous": False,
        "append_input_items": [message],
        "input_items": [message, said],
        "modalities": ["text"],
        "instructions": "Be brief.",
        "voice": {"type": "openai", "name": "alloy"},
        "output_audio_format": "g711_ulaw",
        "tools": EVERYTHING["tools"],
        "tool_choice": "auto",
        "temperature": 0.7,
        "max_output_tokens": 100,
        "pre_generated_assistant_message": said,
        "reasoning_effort": "low",
        "metadata": {"a": "b"},
        "interim_response": EVERYTHING["interim_response"],
        "invoke_input": {"x": 1},
    }
    assert set(response) == set(fields_of(models.ResponseCreateParams))
    wire = json.dumps({"type": "response.create", "response": response, "additional_instructions": "Now."})
    check_client(wire)

    (read,) = SERVER.decode(wire, 0.0)

    assert isinstance(read, RealtimeMessage), read
    assert read.fields["response"]["input"][1]["content"] == [{"type": "output_text", "text": "Hello"}]
    (back,) = CLIENT.encode(read)
    assert json.loads(back)["response"] == response


@pytest.mark.parametrize(
    ("ga", "wire"),
    [
        ({"type": "audio/pcm", "rate": 24_000}, ("pcm16", 24_000)),
        ({"type": "audio/pcm", "rate": 8_000}, ("pcm16", 8_000)),
        ({"type": "audio/pcmu"}, ("g711_ulaw", None)),
        ({"type": "audio/pcma"}, ("g711_alaw", None)),
    ],
)
def test_input_format_is_a_name_and_a_rate(ga: dict[str, Any], wire: tuple[str, int | None]) -> None:
    message = RealtimeMessage(
        "session.update", {"session": {"type": "realtime", "audio": {"input": {"format": ga}}}}
    )

    (text,) = CLIENT.encode(message)

    session = check_client(text)["session"]
    assert (session["input_audio_format"], session.get("input_audio_sampling_rate")) == wire
    assert SERVER.decode(text, 0.0) == [message]


@pytest.mark.parametrize("name", ["pcm16_16000hz", "pcm16-16000hz"])
def test_older_name_of_an_output_format_is_understood(name: str) -> None:
    wire = json.dumps({"type": "session.updated", "session": {"output_audio_format": name}})

    (message,) = CLIENT.decode(wire, 0.0)

    assert isinstance(message, RealtimeMessage)
    assert message.fields["session"]["audio"]["output"]["format"] == {"type": "audio/pcm", "rate": 16_000}


def test_audio_takes_the_short_way() -> None:
    delta = AudioDelta("resp_1", "item_1", "AAAA", 0, 0, "event_1")

    (wire,) = SERVER.encode(delta)

    assert check_server(wire)["type"] == "response.audio.delta"
    assert CLIENT.decode(wire, 0.0) == [delta]


def test_one_announcement_of_an_item_stands_for_both_of_ga() -> None:
    item = {"id": "i", "type": "message", "role": "user", "status": "completed", "content": []}
    wire = json.dumps({"type": "conversation.item.created", "item": item})

    names = [getattr(message, "name", "") for message in CLIENT.decode(wire, 0.0)]

    assert names == ["conversation.item.added", "conversation.item.done"]


@pytest.mark.parametrize("name", ["rate_limits.updated", "input_audio_buffer.timeout_triggered"])
def test_what_the_service_never_says_is_not_sent(name: str) -> None:
    assert SERVER.encode(RealtimeMessage(name, {})) == []


@pytest.mark.parametrize(
    ("event", "code", "param"),
    [
        ({"type": "input_audio.turn.start"}, "missing_required_parameter", "turn_id"),
        (
            {"type": "session.update", "session": {"temperature": 2}},
            "decimal_above_max_value",
            "session.temperature",
        ),
        ({"type": "session.update", "session": {"speed": 1}}, "unknown_parameter", "session.speed"),
        (
            {"type": "session.update", "session": {"voice": {"type": "azure-custom", "name": "x"}}},
            "missing_required_parameter",
            "session.voice.endpoint_id",
        ),
        (
            {"type": "session.update", "session": {"turn_detection": {"type": "semantic_vad"}}},
            "invalid_value",
            "session.turn_detection.type",
        ),
    ],
)
def test_wrong_message_names_its_field_as_the_client_spells_it(event: Any, code: str, param: str) -> None:
    (fault,) = SERVER.decode(json.dumps(event), 0.0)

    assert isinstance(fault, ProtocolFault)
    assert (fault.code, fault.param) == (code, param)
