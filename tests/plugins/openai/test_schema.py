"""What the server end refuses: the service's codes, its words and the path of the field."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plugins.openai.sdk_strategies import client_events
from tests.plugins.openai.sdk_types import CLEARED_BY_NULL, CLIENT_TYPES, problems
from voxengine.codec import Role
from voxengine_openai.codec import ProtocolFault, RealtimeCodec, RealtimeMessage

SERVER = RealtimeCodec(Role.SERVER, str)


def decoded(event: dict[str, Any]) -> Any:
    (found,) = SERVER.decode(json.dumps(event), 0.0)
    return found


def update(**session: Any) -> dict[str, Any]:
    return {"type": "session.update", "session": {"type": "realtime", **session}}


def create(**item: Any) -> dict[str, Any]:
    return {"type": "conversation.item.create", "item": item}


def respond(**response: Any) -> dict[str, Any]:
    return {"type": "response.create", "response": response}


def say(*content: Any, role: str = "user") -> dict[str, Any]:
    return create(type="message", role=role, content=list(content))


WORDS = [
    # (event, code, param, message)
    (
        {"type": "session.update", "session": {"modalities": ["text"]}},
        "missing_required_parameter",
        "session.type",
        "Missing required parameter: 'session.type'.",
    ),
    (
        update(input_audio_format="pcm16"),
        "unknown_parameter",
        "session.input_audio_format",
        "Unknown parameter: 'session.input_audio_format'.",
    ),
    (
        update(audio={"input": {"turn_detection": {"type": "none"}}}),
        "invalid_value",
        "session.audio.input.turn_detection.type",
        "Invalid value: 'none'. Supported values are: 'server_vad' and 'semantic_vad'.",
    ),
    (
        say({"type": "text", "text": "Hi"}),
        "invalid_value",
        "item.content[0].type",
        "Invalid value: 'text'. Supported values are: 'input_text', 'input_audio', and 'input_image'.",
    ),
    (
        update(instructions=5),
        "invalid_type",
        "session.instructions",
        "Invalid type for 'session.instructions': expected a string, but got an integer instead.",
    ),
    (
        create(type="message", role="user", id="i" * 33, content=[]),
        "string_above_max_length",
        "item.id",
        "Invalid 'item.id': string too long. Expected a string with maximum length 32, "
        "but got a string with length 33 instead.",
    ),
    (
        update(max_output_tokens=4097),
        "integer_above_max_value",
        "session.max_output_tokens",
        "Invalid 'session.max_output_tokens': integer above maximum value. "
        "Expected a value <= 4096, but got 4097 instead.",
    ),
    (
        update(audio={"output": {"speed": 0.2}}),
        "decimal_below_min_value",
        "session.audio.output.speed",
        "Invalid 'session.audio.output.speed': decimal below minimum value. "
        "Expected a value >= 0.25, but got 0.2 instead.",
    ),
    (
        update(output_modalities=["text", "audio"]),
        "invalid_value",
        "session.output_modalities",
        "Invalid modalities: ['text', 'audio']. Supported combinations are: ['text'] and ['audio'].",
    ),
]


@pytest.mark.parametrize(("event", "code", "param", "reason"), WORDS)
def test_refusal_has_the_service_s_code_and_words(
    event: dict[str, Any], code: str, param: str, reason: str
) -> None:
    found = decoded({**event, "event_id": "evt_1"})

    assert found == ProtocolFault(reason, code, param, "evt_1", event["type"])


MISTAKES = [
    ({"type": "session.update"}, "missing_required_parameter", "session"),
    ({"type": "session.update", "session": []}, "invalid_type", "session"),
    ({"type": "session.update", "session": {"type": "speech"}}, "invalid_value", "session.type"),
    ({"type": "session.update", "session": {"type": 1}}, "invalid_type", "session.type"),
    (update(temperature=0.8), "unknown_parameter", "session.temperature"),
    (update(max_output_tokens=0), "integer_below_min_value", "session.max_output_tokens"),
    (update(max_output_tokens="all"), "invalid_value", "session.max_output_tokens"),
    (update(max_output_tokens=True), "invalid_type", "session.max_output_tokens"),
    (update(max_output_tokens=1.5), "invalid_type", "session.max_output_tokens"),
    (update(output_modalities=[]), "invalid_value", "session.output_modalities"),
    (update(output_modalities=["video"]), "invalid_value", "session.output_modalities[0]"),
    (update(tools={}), "invalid_type", "session.tools"),
    (update(tools=[{"name": "f"}]), "missing_required_parameter", "session.tools[0].type"),
    (update(tools=[{"type": "function"}]), "missing_required_parameter", "session.tools[0].name"),
    (
        update(tools=[{"type": "function", "name": "f", "strict": True}]),
        "unknown_parameter",
        "session.tools[0].strict",
    ),
    (
        update(tools=[{"type": "function", "name": "f", "parameters": "{}"}]),
        "invalid_type",
        "session.tools[0].parameters",
    ),
    (update(tool_choice="always"), "invalid_value", "session.tool_choice"),
    (update(tool_choice={"type": "function"}), "missing_required_parameter", "session.tool_choice.name"),
    (update(tracing="on"), "invalid_value", "session.tracing"),
    (update(truncation={"type": "retention_ratio", "retention_ratio": 2}), "decimal_above_max_value", None),
    (update(reasoning={"effort": "huge"}), "invalid_value", "session.reasoning.effort"),
    (update(audio={"input": {"format": {"rate": 24000}}}), "missing_required_parameter", None),
    (
        update(audio={"input": {"format": {"type": "audio/pcm", "rate": 16000}}}),
        "invalid_value",
        "session.audio.input.format.rate",
    ),
    (update(audio={"output": {"voice": 5}}), "invalid_type", "session.audio.output.voice"),
    (
        update(audio={"input": {"turn_detection": {"type": "server_vad", "prefix_padding_ms": -1}}}),
        "integer_below_min_value",
        "session.audio.input.turn_detection.prefix_padding_ms",
    ),
    (
        {"type": "session.update", "session": {"type": "transcription", "instructions": "x"}},
        "unknown_parameter",
        "session.instructions",
    ),
    (
        {"type": "session.update", "session": {"type": "transcription", "audio": {"output": {}}}},
        "unknown_parameter",
        "session.audio.output",
    ),
    (create(), "missing_required_parameter", "item.type"),
    (create(type="note"), "invalid_value", "item.type"),
    (create(type="item_reference", id="item_1"), "invalid_value", "item.type"),
    (create(type="message", content=[]), "missing_required_parameter", "item.role"),
    (create(type="message", role="bot", content=[]), "invalid_value", "item.role"),
    (create(type="message", role="user"), "missing_required_parameter", "item.content"),
    (create(type="message", role="user", content="Hi"), "invalid_type", "item.content"),
    (say({"text": "Hi"}), "missing_required_parameter", "item.content[0].type"),
    (say({"type": "input_text"}), "missing_required_parameter", "item.content[0].text"),
    (say({"type": "input_text", "text": "Hi"}, 5), "invalid_type", "item.content[1]"),
    (say({"type": "output_text", "text": "Hi"}), "invalid_value", "item.content[0].type"),
    (say({"type": "output_audio"}, role="assistant"), "invalid_value", "item.content[0].type"),
    (create(type="function_call_output", output="1"), "missing_required_parameter", "item.call_id"),
    (create(type="function_call_output", call_id="c", output={}), "invalid_type", "item.output"),
    ({"type": "conversation.item.delete"}, "missing_required_parameter", "item_id"),
    (
        {"type": "conversation.item.truncate", "item_id": "i", "content_index": 0, "audio_end_ms": -1},
        "integer_below_min_value",
        "audio_end_ms",
    ),
    (
        {"type": "conversation.item.truncate", "item_id": "i", "content_index": 0, "audio_end_ms": "1"},
        "invalid_type",
        "audio_end_ms",
    ),
    ({"type": "input_audio_buffer.commit", "force": True}, "unknown_parameter", "force"),
    ({"type": "input_audio_buffer.clear", "event_id": 5}, "invalid_type", "event_id"),
    ({"type": "response.cancel", "response_id": 5}, "invalid_type", "response_id"),
    (respond(metadata={"k": "v" * 513}), "string_above_max_length", "response.metadata.k"),
    (respond(metadata={"k" * 65: "v"}), "string_above_max_length", "response.metadata key 1"),
    (respond(metadata={str(i): "" for i in range(17)}), "object_above_max_properties", "response.metadata"),
    (respond(metadata={"k": 5}), "invalid_type", "response.metadata.k"),
    (respond(input=[{"type": "item_reference"}]), "missing_required_parameter", "response.input[0].id"),
    (respond(audio={"input": {}}), "unknown_parameter", "response.audio.input"),
]


@pytest.mark.parametrize(("event", "code", "param"), MISTAKES)
def test_mistake_is_refused_where_it_is(event: dict[str, Any], code: str, param: str | None) -> None:
    found = decoded(event)

    assert isinstance(found, ProtocolFault)
    assert found.code == code
    assert param is None or found.param == param


@pytest.mark.parametrize(
    "event",
    [
        update(),
        update(instructions="", tools=[], prompt=None, tracing=None),
        update(audio={"input": {"turn_detection": None, "noise_reduction": None, "transcription": None}}),
        update(audio={"output": {"voice": {"id": "voice_1"}, "speed": 1}}),
        update(tracing={"metadata": [1, {"deep": [None]}]}, truncation="disabled", max_output_tokens="inf"),
        update(
            tools=[{"type": "mcp", "server_label": "s", "require_approval": {"never": {"tool_names": []}}}]
        ),
        update(tools=[{"type": "function", "name": "f", "parameters": {"type": "object", "x": [1]}}]),
        {"type": "session.update", "session": {"type": "transcription", "include": None}},
        {"type": "response.create"},
        respond(conversation="none", input=[{"type": "item_reference", "id": "i"}], metadata={"topic": "x"}),
        {"type": "response.cancel", "event_id": None, "response_id": None},
    ],
)
def test_what_the_service_takes_is_taken(event: dict[str, Any]) -> None:
    name = event.pop("type")

    (found,) = SERVER.decode(json.dumps({"type": name, **event}), 0.0)

    assert found == RealtimeMessage(name, event)


# --- As strict as the types, whatever the mistake ------------------------------------------------


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) within a JSON value."""
    if isinstance(value, dict):
        return [(value, key) for key in value] + [
            place for inner in value.values() for place in places(inner)
        ]
    if isinstance(value, list):
        return [(value, i) for i in range(len(value))] + [place for inner in value for place in places(inner)]
    return []


REPLACEMENTS = st.sampled_from(["", "bogus", 7, -1, 0.5, True, [], {}, ["bogus"], {"bogus": 1}])


@given(event=client_events, data=st.data())
def test_what_the_types_refuse_is_refused(event: dict[str, Any], data: st.DataObject) -> None:
    event = copy.deepcopy(event)
    targets = [place for place in places(event) if place[1] != "type" or place[0] is not event]
    holder, key = data.draw(st.sampled_from(targets)) if targets else (event, "bogus")
    deed = data.draw(st.sampled_from(["replace", "delete", "add"]))
    if deed == "delete" and isinstance(holder, dict) and key in holder:
        del holder[key]
    elif deed == "add" and isinstance(holder, dict):
        holder["bogus"] = 1
    else:
        holder[key] = data.draw(REPLACEMENTS)

    found = decoded(event)

    if problems(event, CLIENT_TYPES[event["type"]], cleared=CLEARED_BY_NULL):
        assert isinstance(found, ProtocolFault), event
        assert found.code not in {"", "invalid_json"}
        assert found.reason.endswith(".")
