from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plugins.mock.support import counter
from voxengine.codec import Role, VendorMessage
from voxengine_mock import codec
from voxengine_mock.codec import COMMANDS, EVENTS, AudioDelta, InputAudio, Message, MockCodec, ProtocolFault

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(st.text(max_size=6), json_values, max_size=3)
pcm = st.binary(max_size=40).map(lambda data: data[: len(data) // 2 * 2])
by_annotation: dict[str, st.SearchStrategy[Any]] = {
    "str": st.text(max_size=12),
    "bool": st.booleans(),
    "int": st.integers(0, 10**9),
    "int | None": st.none() | st.integers(0, 10**9),
    "str | None": st.none() | st.text(max_size=12),
    "float": st.floats(0, 1e9),
    "float | None": st.none() | st.floats(0, 1e9),
    "dict[str, Any]": objects,
    "list[dict[str, Any]]": st.lists(objects, max_size=3),
    "bytes": pcm,
}


@st.composite
def messages(draw: st.DrawFn, table: dict[str, type[Message]]) -> Message:
    cls = draw(st.sampled_from(sorted(table.values(), key=lambda c: c.__name__)))
    known = set(codec.field_names(cls)) | {"type"}
    values = {
        field.name: draw(by_annotation[str(field.type)])
        for field in attrs.fields(cls)
        if field.name != "extra" and not (cls is AudioDelta and field.name == "audio")
    }
    if cls is AudioDelta:
        values["audio"] = AudioDelta.of("", "", draw(pcm)).audio
    names = st.text(max_size=6).filter(lambda name: name not in known)
    return cls(**values, extra=draw(st.dictionaries(names, json_values, max_size=2)))


def ends() -> tuple[MockCodec, MockCodec]:
    return MockCodec(Role.CLIENT, counter()), MockCodec(Role.SERVER, counter())


@given(messages(COMMANDS))
def test_server_decodes_what_the_client_encoded(message: Message) -> None:
    client, server = ends()

    decoded = [item for wire in client.encode(message) for item in server.decode(wire, 0.0)]

    assert decoded == [message]


@given(messages(EVENTS))
def test_client_decodes_what_the_server_encoded(message: Message) -> None:
    client, server = ends()

    decoded = [item for wire in server.encode(message) for item in client.decode(wire, 0.0)]

    assert decoded == [message]


@given(st.text() | st.binary())
def test_decoding_anything_gives_values_and_never_raises(wire: str | bytes) -> None:
    for end in ends():
        assert all(isinstance(item, ProtocolFault | VendorMessage) for item in end.decode(wire, 0.0))


@given(st.sampled_from(sorted({**COMMANDS, **EVENTS})), objects)
def test_wrong_fields_become_a_fault_that_names_the_message(name: str, fields: dict[str, Any]) -> None:
    for end in ends():
        (item,) = end.decode(json.dumps({**fields, "type": name}), 0.0)

        assert isinstance(item, Message | VendorMessage | ProtocolFault)
        if isinstance(item, ProtocolFault):
            assert item.reason.startswith(name)


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        ("{", "a message is not JSON"),
        (b"\xff\x00", "a message is not JSON"),
        ("[" * 100_000, "a message is not JSON"),
        ("[1]", "a message is not a JSON object"),
        ('{"text": "hi"}', "a message has no type"),
        ('{"type": "input_text"}', "input_text has no text"),
        ('{"type": "input_text", "text": 5}', "input_text: text is int, it takes a string"),
        ('{"type": "end_turn", "respond": 1}', "end_turn: respond is int, it takes true or false"),
        (
            '{"type": "cancel", "played_ms": true}',
            "cancel: played_ms is bool, it takes whole milliseconds or null",
        ),
        ('{"type": "input_audio", "audio": "####"}', "input_audio: audio takes base64 text"),
        ('{"type": "input_audio", "audio": "AAAA"}', "input_audio: audio takes whole 16-bit samples"),
        ('{"type": "add_items", "items": [1]}', "add_items: items takes a list of objects"),
    ],
)
def test_each_broken_command_says_what_is_wrong(wire: str | bytes, reason: str) -> None:
    _, server = ends()

    assert server.decode(wire, 0.0) == [ProtocolFault(reason)]


@pytest.mark.parametrize("audio", ["AAA", "A===", "A A=", "AAAA", 5])
def test_audio_that_could_not_be_decoded_later_is_refused_on_arrival(audio: object) -> None:
    client, _ = ends()
    wire = json.dumps({"type": "audio_delta", "response_id": "r", "item_id": "i", "audio": audio})

    (item,) = client.decode(wire, 0.0)

    assert isinstance(item, ProtocolFault)


def test_a_message_of_an_unknown_type_is_kept_whole() -> None:
    client, server = ends()

    (item,) = client.decode('{"type": "mood", "value": [1, 2]}', 0.0)

    assert item == VendorMessage("mood", {"value": [1, 2]})
    assert isinstance(item, VendorMessage)
    assert json.loads(server.encode(item)[0]) == {"type": "mood", "value": [1, 2]}


def test_unknown_fields_survive() -> None:
    _, server = ends()

    (item,) = server.decode('{"type": "input_text", "text": "hi", "tone": "warm"}', 0.0)

    assert item == codec.InputText(text="hi", extra={"tone": "warm"})


def test_repr_shows_neither_words_nor_audio() -> None:
    shown = repr([codec.InputText(text="secret"), InputAudio(audio=b"secret"), codec.Speak(text="secret")])

    assert "secret" not in shown
