"""The codec of OpenAI Realtime: laws that hold for every event that the official SDK's types allow."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plugins.openai.sdk_strategies import (
    client_event,
    client_events,
    server_event,
    server_events,
)
from tests.plugins.openai.sdk_types import CLIENT_TYPES, SERVER_TYPES, check_client, check_server
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
from voxengine_openai.messages import APPEND, AUDIO_DELTA

CLIENT, SERVER = (RealtimeCodec(role, lambda prefix: prefix + "1") for role in Role)
ENDS = [RealtimeCodec(role, str, dialect) for role in Role for dialect in (GA, BETA)]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def message(event: dict[str, Any]) -> RealtimeMessage:
    fields = dict(event)
    return RealtimeMessage(fields.pop("type"), fields)


def decoded(end: RealtimeCodec, event: Any) -> Any:
    (found,) = end.decode(json.dumps(event), 0.0)
    return found


def encoded(end: RealtimeCodec, item: Any) -> Any:
    (wire,) = end.encode(item)
    return json.loads(wire)


# --- Everything of the protocol gets through -----------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(CLIENT_TYPES) - {APPEND}))
@settings(max_examples=25)
@given(data=st.data())
def test_every_event_of_a_client_passes_both_ends_unchanged(name: str, data: st.DataObject) -> None:
    event = data.draw(client_event(name))

    (wire,) = CLIENT.encode(message(event))
    (found,) = SERVER.decode(wire, 0.0)

    assert check_client(wire) == event
    assert found == message(event)


@pytest.mark.parametrize("name", sorted(set(SERVER_TYPES) - {AUDIO_DELTA}))
@settings(max_examples=25)
@given(data=st.data())
def test_every_event_of_a_server_passes_both_ends_unchanged(name: str, data: st.DataObject) -> None:
    event = data.draw(server_event(name))

    (wire,) = SERVER.encode(message(event))
    (found,) = CLIENT.decode(wire, 0.0)

    assert check_server(wire) == event
    assert found == message(event)


@given(audio=st.binary(max_size=2000), event_id=st.none() | st.text("abc_1"))
def test_appended_audio_passes_both_ends_unchanged(audio: bytes, event_id: str | None) -> None:
    (wire,) = CLIENT.encode(Append(audio, event_id))

    assert check_client(wire).get("event_id") == event_id
    assert SERVER.decode(wire, 0.0) == [Append(audio, event_id)]


@given(event=server_event(AUDIO_DELTA))
def test_audio_of_an_answer_passes_both_ends_unchanged(event: dict[str, Any]) -> None:
    delta = AudioDelta(**{**message(event).fields, "event_id": event["event_id"] or "event_9"})

    (wire,) = SERVER.encode(delta)

    assert check_server(wire) == {"type": AUDIO_DELTA, **delta._asdict()}
    assert CLIENT.decode(wire, 0.0) == [delta]


def test_audio_without_an_identifier_gets_one() -> None:
    (wire,) = SERVER.encode(AudioDelta("resp_1", "item_1", "AAAA"))

    assert check_server(wire)["event_id"] == "event_1"


@given(event=server_events.filter(lambda event: event["type"] != AUDIO_DELTA), extra=JSON)
def test_unknown_fields_of_a_server_survive_at_every_depth(event: dict[str, Any], extra: Any) -> None:
    event = add_everywhere(event, extra)

    found = decoded(CLIENT, event)

    assert found == message(event)
    assert encoded(SERVER, found) == event


def add_everywhere(value: Any, extra: Any) -> Any:
    """The same with an unknown key in every object."""
    if isinstance(value, dict):
        return {**{key: add_everywhere(inner, extra) for key, inner in value.items()}, "x_new": extra}
    return [add_everywhere(inner, extra) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("end", [CLIENT, SERVER])
@given(name=st.text().filter(lambda name: name not in {*CLIENT_TYPES, *SERVER_TYPES}), payload=JSON)
def test_message_outside_the_protocol_is_passed_on(end: RealtimeCodec, name: str, payload: Any) -> None:
    fields = {"payload": payload, "event_id": "e"}

    found = decoded(end, {"type": name, **fields})

    assert found == VendorMessage(name, fields)
    assert encoded(end, found) == {"type": name, **fields}


@pytest.mark.parametrize("name", sorted(CLIENT_TYPES))
def test_event_of_the_other_direction_is_outside_the_protocol(name: str) -> None:
    found = decoded(CLIENT, {"type": name})

    assert found == VendorMessage(name, {})


# --- Whatever comes ------------------------------------------------------------------------------

KINDS = RealtimeMessage | AudioDelta | Append | VendorMessage | ProtocolFault


@given(wire=st.binary() | st.text() | JSON.map(json.dumps))
def test_garbage_never_raises(wire: str | bytes) -> None:
    found = [item for end in ENDS for item in end.decode(wire, 0.0)]

    assert len(found) >= len(ENDS)
    assert all(isinstance(item, KINDS) for item in found)


@given(name=st.sampled_from([*CLIENT_TYPES, *SERVER_TYPES]), fields=st.dictionaries(st.text(), JSON))
def test_known_name_with_garbage_never_raises(name: str, fields: dict[str, Any]) -> None:
    event = {**fields, "type": name, "session": fields, "response": fields, "item": fields, "error": fields}

    found = [item for end in ENDS for item in end.decode(json.dumps(event), 0.0)]

    assert all(isinstance(item, KINDS) for item in found)


@given(event=client_events | server_events, cut=st.integers(0, 400), noise=st.text(max_size=5))
def test_damaged_message_never_raises(event: dict[str, Any], cut: int, noise: str) -> None:
    text = json.dumps(event, separators=(",", ":"))
    wire = text[:cut] + noise + text[cut + 1 :]

    found = [
        item
        for end in ENDS
        for form in (wire, wire.encode("utf-8", "replace"))
        for item in end.decode(form, 0.0)
    ]

    assert all(isinstance(item, KINDS) for item in found)


@pytest.mark.parametrize("end", [CLIENT, SERVER])
@pytest.mark.parametrize(
    ("wire", "code", "param"),
    [
        ("", "invalid_json", None),
        ("{", "invalid_json", None),
        (b"\xff\xfe", "invalid_json", None),
        ("[" * 100_000, "invalid_json", None),
        ('{"type":NaN}', "invalid_json", None),
        ("[]", "invalid_type", None),
        ('"text"', "invalid_type", None),
        ("{}", "missing_required_parameter", "type"),
        ('{"type":5}', "invalid_type", "type"),
        ('{"type":null}', "invalid_type", "type"),
    ],
)
def test_broken_message_is_a_fault_with_its_code(
    end: RealtimeCodec, wire: str | bytes, code: str, param: str | None
) -> None:
    (found,) = end.decode(wire, 0.0)

    assert isinstance(found, ProtocolFault)
    assert (found.code, found.param) == (code, param)


# --- What the client end insists on --------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "code", "param"),
    [
        ({"type": "response.created"}, "missing_required_parameter", "response"),
        ({"type": "response.done", "response": {}}, "missing_required_parameter", "response.id"),
        ({"type": "response.done", "response": []}, "invalid_type", "response"),
        ({"type": "response.done", "response": {"id": None}}, "invalid_type", "response.id"),
        (
            {"type": "response.done", "response": {"id": "r", "output": [{}, 5]}},
            "invalid_type",
            "response.output[1]",
        ),
        (
            {"type": "response.done", "response": {"id": "r", "metadata": 3}},
            "invalid_type",
            "response.metadata",
        ),
        ({"type": "error", "error": "no"}, "invalid_type", "error"),
        ({"type": "rate_limits.updated", "rate_limits": [None]}, "invalid_type", "rate_limits[0]"),
        (
            {"type": "conversation.item.added", "item": {"type": "message", "content": {}}},
            "invalid_type",
            "item.content",
        ),
        (
            {"type": "input_audio_buffer.speech_started", "item_id": "i", "audio_start_ms": True},
            "invalid_type",
            "audio_start_ms",
        ),
        (
            {"type": AUDIO_DELTA, "response_id": "r", "item_id": "i"},
            "missing_required_parameter",
            "delta",
        ),
        (
            {"type": AUDIO_DELTA, "response_id": "r", "item_id": "i", "delta": 5},
            "invalid_type",
            "delta",
        ),
    ],
)
def test_server_s_message_without_what_the_provider_reads_is_a_fault(
    event: dict[str, Any], code: str, param: str
) -> None:
    found = decoded(CLIENT, {**event, "event_id": "event_7"})

    assert isinstance(found, ProtocolFault)
    assert (found.code, found.param, found.event_id, found.name) == (code, param, "event_7", event["type"])


def test_compatible_endpoint_may_leave_identifiers_and_indices_out() -> None:
    delta = {"type": AUDIO_DELTA, "response_id": "r", "item_id": "i", "delta": "AAAA", "content_index": None}

    found = [
        decoded(CLIENT, {"type": "response.created", "response": {"id": "r", "output": None}}),
        decoded(CLIENT, delta),
    ]

    assert found == [
        RealtimeMessage("response.created", {"response": {"id": "r", "output": None}}),
        AudioDelta("r", "i", "AAAA"),
    ]


def test_whole_number_written_as_a_decimal_is_an_integer() -> None:
    event = {"type": "input_audio_buffer.speech_started", "item_id": "i", "audio_start_ms": 1500.0}

    found = decoded(CLIENT, event)

    assert type(found.fields["audio_start_ms"]) is int


# --- Encoding ------------------------------------------------------------------------------------


def test_type_comes_first_and_cannot_be_overwritten_by_a_field() -> None:
    (wire,) = CLIENT.encode(RealtimeMessage("response.cancel", {"type": "other", "event_id": "e"}))

    assert wire == '{"type":"response.cancel","event_id":"e"}'


def test_half_a_surrogate_pair_is_replaced_and_two_halves_are_joined() -> None:
    item = {"content": [{"type": "input_text", "text": 'half "\ud83d", two \ud83d\ude00'}]}

    (wire,) = CLIENT.encode(RealtimeMessage("conversation.item.create", {"item": item}))

    assert str(wire).encode()
    assert json.loads(wire)["item"]["content"][0]["text"] == 'half "\ufffd", two \U0001f600'


def test_encoding_leaves_the_message_as_it_is() -> None:
    fields = {"session": {"type": "realtime", "audio": {"output": {"voice": "marin"}}}}
    client = RealtimeCodec(Role.CLIENT, str, BETA)

    client.encode(RealtimeMessage("session.update", fields))

    assert fields == {"session": {"type": "realtime", "audio": {"output": {"voice": "marin"}}}}


def test_what_is_no_message_is_the_caller_s_mistake() -> None:
    with pytest.raises(TypeError, match="not dict"):
        CLIENT.encode({"type": "response.create"})  # type: ignore[arg-type]


# --- Nothing that was said is shown --------------------------------------------------------------


@pytest.mark.parametrize(
    "item",
    [
        RealtimeMessage("session.update", {"session": {"instructions": "secret"}}),
        RealtimeMessage("response.output_text.done", {"text": "secret"}),
        AudioDelta("resp_1", "item_1", "secret"),
        Append(b"secret", "event_1"),
        VendorMessage("x.new", {"text": "secret"}),
        ProtocolFault("secret", "invalid_value", "item.role"),
    ],
)
def test_repr_shows_no_content(item: object) -> None:
    assert "secret" not in repr(item)


def test_fault_does_not_repeat_a_long_word() -> None:
    said = "what somebody said in confidence " * 3

    found = decoded(SERVER, {"type": "session.update", "session": {"type": said}})

    assert found.code == "invalid_value"
    assert said not in found.reason


def test_dialect_of_another_package_needs_nothing_but_a_table() -> None:
    dialect = Dialect("acme", server_extras=frozenset({"warning"}))
    client = RealtimeCodec(Role.CLIENT, str, dialect)

    found = decoded(client, {"type": "warning", "warning": {"message": "slow"}})

    assert found == RealtimeMessage("warning", {"warning": {"message": "slow"}})
