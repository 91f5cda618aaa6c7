"""The beta's spelling of the protocol, both ways, and what a dialect's table can say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plugins.openai.sdk_strategies import client_event, client_events, server_event, server_events
from voxengine.codec import Role, VendorMessage
from voxengine_openai.codec import (
    BETA,
    GA,
    Append,
    AudioDelta,
    Dialect,
    ProtocolFault,
    RealtimeCodec,
    RealtimeMessage,
)
from voxengine_openai.dialects import EventName, Field
from voxengine_openai.messages import AUDIO_DELTA

CLIENT, SERVER = (RealtimeCodec(role, str, BETA) for role in Role)


def encoded(end: RealtimeCodec, name: str, fields: dict[str, Any]) -> Any:
    (wire,) = end.encode(RealtimeMessage(name, fields))
    return json.loads(wire)


def decoded(end: RealtimeCodec, event: dict[str, Any]) -> list[Any]:
    return list(end.decode(json.dumps(event), 0.0))


# --- The beta's shape ----------------------------------------------------------------------------

GA_SESSION = {
    "type": "realtime",
    "model": "gpt-realtime",
    "instructions": "Be brief.",
    "output_modalities": ["audio"],
    "max_output_tokens": 100,
    "tools": [{"type": "function", "name": "f"}],
    "audio": {
        "input": {
            "format": {"type": "audio/pcm", "rate": 24000},
            "turn_detection": {"type": "server_vad", "threshold": 0.5},
            "transcription": {"model": "whisper-1"},
            "noise_reduction": None,
        },
        "output": {"format": {"type": "audio/pcmu"}, "voice": "alloy", "speed": 1.0},
    },
}
BETA_SESSION = {
    "model": "gpt-realtime",
    "instructions": "Be brief.",
    "modalities": ["text", "audio"],
    "max_response_output_tokens": 100,
    "tools": [{"type": "function", "name": "f"}],
    "input_audio_format": "pcm16",
    "turn_detection": {"type": "server_vad", "threshold": 0.5},
    "input_audio_transcription": {"model": "whisper-1"},
    "input_audio_noise_reduction": None,
    "output_audio_format": "g711_ulaw",
    "voice": "alloy",
    "speed": 1.0,
}


@pytest.mark.parametrize("name", ["session.update", "session.created", "session.updated"])
def test_session_is_flat_in_the_beta(name: str) -> None:
    sender, receiver = (CLIENT, SERVER) if name == "session.update" else (SERVER, CLIENT)

    wire = encoded(sender, name, {"session": GA_SESSION})

    assert wire == {"type": name, "session": BETA_SESSION}
    assert decoded(receiver, wire) == [RealtimeMessage(name, {"session": GA_SESSION})]


@pytest.mark.parametrize("name", ["session.update", "session.created", "session.updated"])
def test_transcription_session_has_events_of_its_own(name: str) -> None:
    sender, receiver = (CLIENT, SERVER) if name == "session.update" else (SERVER, CLIENT)
    session = {"type": "transcription", "audio": {"input": {"transcription": {"model": "whisper-1"}}}}

    wire = encoded(sender, name, {"session": session})

    assert wire == {
        "type": f"transcription_{name}",
        "session": {"input_audio_transcription": {"model": "whisper-1"}},
    }
    assert decoded(receiver, wire) == [RealtimeMessage(name, {"session": session})]


def test_response_is_asked_for_and_reported_in_the_beta_s_words() -> None:
    asked = {
        "output_modalities": ["text"],
        "max_output_tokens": 50,
        "audio": {"output": {"voice": "ash"}},
        "input": [
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]},
            {"type": "item_reference", "id": "item_1"},
        ],
    }
    reported = {
        "id": "resp_1",
        "output_modalities": ["audio"],
        "max_output_tokens": "inf",
        "audio": {"output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "ash"}},
        "output": [
            {"id": "i", "type": "message", "role": "assistant", "content": [{"type": "output_audio"}]},
            {"id": "j", "type": "function_call", "name": "f", "arguments": "{}", "call_id": "c"},
        ],
    }

    create = encoded(CLIENT, "response.create", {"response": asked})
    done = encoded(SERVER, "response.done", {"response": reported})

    assert create["response"] == {
        "modalities": ["text"],
        "max_response_output_tokens": 50,
        "voice": "ash",
        "input": [
            {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "Hi"}]},
            {"type": "item_reference", "id": "item_1"},
        ],
    }
    assert {key: value for key, value in done["response"].items() if key != "output"} == {
        "id": "resp_1",
        "modalities": ["text", "audio"],
        "max_output_tokens": "inf",
        "output_audio_format": "pcm16",
        "voice": "ash",
    }
    assert done["response"]["output"][0]["content"] == [{"type": "audio"}]
    assert decoded(SERVER, create) == [RealtimeMessage("response.create", {"response": asked})]
    assert decoded(CLIENT, done) == [RealtimeMessage("response.done", {"response": reported})]


@pytest.mark.parametrize(
    ("name", "wire_name"),
    [
        ("response.output_text.delta", "response.text.delta"),
        ("response.output_text.done", "response.text.done"),
        ("response.output_audio.done", "response.audio.done"),
        ("response.output_audio_transcript.delta", "response.audio_transcript.delta"),
        ("response.output_audio_transcript.done", "response.audio_transcript.done"),
    ],
)
def test_output_events_have_shorter_names_in_the_beta(name: str, wire_name: str) -> None:
    fields = {"response_id": "r", "item_id": "i", "delta": "a", "text": "a", "transcript": "a"}

    wire = encoded(SERVER, name, fields)

    assert wire["type"] == wire_name
    assert decoded(CLIENT, wire) == [RealtimeMessage(name, fields)]


def test_audio_travels_under_the_beta_s_name_by_the_short_way() -> None:
    delta = AudioDelta("resp_1", "item_1", "AAAA", 1, 0, "event_1")

    (wire,) = SERVER.encode(delta)
    (append,) = CLIENT.encode(Append(b"\0\1"))

    assert str(wire).startswith('{"type":"response.audio.delta",')
    assert CLIENT.decode(wire, 0.0) == [delta]
    assert SERVER.decode(append, 0.0) == [Append(b"\0\1")]


def test_finished_item_that_is_announced_once_is_added_and_done() -> None:
    item = {"id": "i", "type": "message", "role": "user", "status": "completed", "content": []}

    found = decoded(CLIENT, {"type": "conversation.item.created", "item": item, "previous_item_id": None})

    fields = {"item": item, "previous_item_id": None}
    assert found == [
        RealtimeMessage("conversation.item.added", fields),
        RealtimeMessage("conversation.item.done", fields),
    ]
    assert found[0].fields is not found[1].fields


def test_item_in_progress_is_only_added() -> None:
    item = {"id": "i", "type": "message", "role": "assistant", "status": "in_progress", "content": []}

    found = decoded(CLIENT, {"type": "conversation.item.created", "item": item})

    assert found == [RealtimeMessage("conversation.item.added", {"item": item})]


def test_beta_server_announces_an_item_once() -> None:
    item = {
        "id": "i",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "Hi"}],
    }

    added = SERVER.encode(RealtimeMessage("conversation.item.added", {"item": item}))
    done = SERVER.encode(RealtimeMessage("conversation.item.done", {"item": item}))

    assert [json.loads(wire)["type"] for wire in added] == ["conversation.item.created"]
    assert json.loads(added[0])["item"]["content"] == [{"type": "text", "text": "Hi"}]
    assert done == []


def test_beta_server_knows_the_temperature() -> None:
    (found,) = decoded(SERVER, {"type": "session.update", "session": {"temperature": 0.8}})

    assert found == RealtimeMessage("session.update", {"session": {"type": "realtime", "temperature": 0.8}})


@pytest.mark.parametrize(
    ("event", "code", "param"),
    [
        (
            {"type": "session.update", "session": {"turn_detection": {"type": "none"}}},
            "invalid_value",
            "session.turn_detection.type",
        ),
        ({"type": "session.update", "session": {"voice": 5}}, "invalid_type", "session.voice"),
        (
            {"type": "session.update", "session": {"input_audio_format": "mp3"}},
            "invalid_type",
            "session.input_audio_format",
        ),
        (
            {"type": "session.update", "session": {"max_response_output_tokens": 0}},
            "integer_below_min_value",
            "session.max_response_output_tokens",
        ),
        (
            {"type": "response.create", "response": {"modalities": ["video"]}},
            "invalid_value",
            "response.modalities[0]",
        ),
        ({"type": "session.update", "session": {"pitch": 1}}, "unknown_parameter", "session.pitch"),
    ],
)
def test_fault_names_the_field_as_the_sender_calls_it(event: dict[str, Any], code: str, param: str) -> None:
    (found,) = decoded(SERVER, event)

    assert isinstance(found, ProtocolFault)
    assert (found.code, found.param) == (code, param)
    assert code == "invalid_value" or f"'{param}'" in found.reason


def test_beta_names_are_unknown_to_ga_and_kept() -> None:
    client = RealtimeCodec(Role.CLIENT, str, GA)

    found = decoded(client, {"type": "response.audio.delta", "delta": "AAAA"})

    assert found == [VendorMessage("response.audio.delta", {"delta": "AAAA"})]


def test_endpoint_that_mixes_the_dialects_is_understood() -> None:
    delta = {"type": AUDIO_DELTA, "response_id": "r", "item_id": "i", "delta": "AAAA"}

    found = decoded(CLIENT, delta) + decoded(CLIENT, {**delta, "type": "response.audio.delta"})

    assert found == [AudioDelta("r", "i", "AAAA")] * 2


# --- Laws ----------------------------------------------------------------------------------------


def normal(value: Any) -> Any:
    """Without what the beta cannot say: no rate is 24 kHz, and an empty object is no object."""
    if isinstance(value, list):
        return [normal(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    value = {key: normal(inner) for key, inner in value.items()}
    if value.get("type") == "audio/pcm":
        value["rate"] = 24000
    return {
        key: inner
        for key, inner in value.items()
        if not (key in {"audio", "input", "output"} and inner == {})
    }


# Two GA events that the beta folds into one; the others come back as they went.
FOLDED = {"conversation.item.added", "conversation.item.created", "conversation.item.done"}


@given(event=client_events)
def test_client_s_event_comes_back_from_the_beta(event: dict[str, Any]) -> None:
    name = event.pop("type")
    if name == "input_audio_buffer.append":
        return

    wire = encoded(CLIENT, name, event)

    (found,) = decoded(SERVER, wire)
    assert not isinstance(found, ProtocolFault), found.reason
    assert (found.name, normal(found.fields)) == (name, normal(event))


@given(event=server_events.filter(lambda event: event["type"] not in {*FOLDED, AUDIO_DELTA}))
def test_server_s_event_comes_back_from_the_beta(event: dict[str, Any]) -> None:
    name = event.pop("type")

    wire = encoded(SERVER, name, event)

    (found,) = decoded(CLIENT, wire)
    assert (found.name, normal(found.fields)) == (name, normal(event))


@given(event=st.one_of(client_event("session.update"), server_event("response.done")))
def test_ga_writes_everything_as_it_is(event: dict[str, Any]) -> None:
    name = event.pop("type")

    assert GA.wire_name(name, event) == name
    assert GA.outwards(name, event) is event
    assert GA.inwards(name, event) == [(name, event)]


# --- What a table can say ------------------------------------------------------------------------

VOICE_LIVE_LIKE = Dialect(
    "like-voice-live",
    events=(EventName("rate_limits.updated", "rate_limits.updated", is_sent=False),),
    fields={
        "session.update": (
            Field("session", "type", None, implied="realtime"),
            Field(
                "session",
                "audio.input.format.type",
                "input_audio_format",
                (("audio/pcm", "pcm16"), ("audio/pcmu", "g711_ulaw")),
            ),
            Field("session", "audio.input.format.rate", "input_audio_sampling_rate"),
            Field("session", "audio.input.turn_detection", "turn_detection"),
            Field("session", "reasoning.effort", "reasoning_effort"),
        )
    },
    client_extras=frozenset({"input_audio.turn.start"}),
    unchecked=frozenset(
        {"session.audio.input.turn_detection", "session.audio.input.format", "session.avatar"}
    ),
)
FLAT = {
    "input_audio_format": "pcm16",
    "input_audio_sampling_rate": 16000,
    "turn_detection": {"type": "azure_semantic_vad", "remove_filler_words": True},
    "reasoning_effort": "low",
    "avatar": {"character": "lisa"},
}
NESTED = {
    "type": "realtime",
    "audio": {
        "input": {
            "format": {"type": "audio/pcm", "rate": 16000},
            "turn_detection": {"type": "azure_semantic_vad", "remove_filler_words": True},
        }
    },
    "reasoning": {"effort": "low"},
    "avatar": {"character": "lisa"},
}


def test_one_field_can_be_two_in_a_dialect_and_extensions_pass_unchecked() -> None:
    client, server = (RealtimeCodec(role, str, VOICE_LIVE_LIKE) for role in Role)

    wire = encoded(client, "session.update", {"session": NESTED})

    assert wire["session"] == FLAT
    assert decoded(server, wire) == [RealtimeMessage("session.update", {"session": NESTED})]


def test_dialect_can_add_events_and_leave_others_out() -> None:
    server = RealtimeCodec(Role.SERVER, str, VOICE_LIVE_LIKE)

    found = decoded(server, {"type": "input_audio.turn.start", "turn_id": "t"})
    sent = server.encode(RealtimeMessage("rate_limits.updated", {"rate_limits": []}))

    assert found == [RealtimeMessage("input_audio.turn.start", {"turn_id": "t"})]
    assert sent == []


def test_value_in_the_way_of_a_path_is_not_lost() -> None:
    (found,) = decoded(SERVER, {"type": "session.update", "session": {"audio": None, "voice": "ash"}})

    assert isinstance(found, ProtocolFault)
    assert (found.code, found.param) == ("unknown_parameter", "session.voice")
