"""The two hot messages: the short way gives what the long way gives, whatever the wire looks like."""

from __future__ import annotations

import base64
import json
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plugins.openai.sdk_strategies import BASE64
from voxengine.codec import Role
from voxengine_openai import codec as codec_module
from voxengine_openai._json import TextDelta
from voxengine_openai.codec import (
    Append,
    AudioDelta,
    Dialect,
    ProtocolFault,
    RealtimeCodec,
    RealtimeMessage,
    audio_size,
    decode_audio,
)
from voxengine_openai.dialects import Field
from voxengine_openai.messages import APPEND, AUDIO_DELTA, TEXT_DELTAS

CLIENT, SERVER = (RealtimeCodec(role, str) for role in Role)
# The same ends without the short way: a rule for the hot messages, even an idle one, turns it off.
LONG = Dialect("long", fields={name: (Field("nothing", "a", "b"),) for name in (APPEND, AUDIO_DELTA)})
LONG_CLIENT, LONG_SERVER = (RealtimeCodec(role, str, LONG) for role in Role)

DELTA: dict[str, Any] = {
    "type": AUDIO_DELTA,
    "event_id": "event_1",
    "response_id": "resp_1",
    "item_id": "item_1",
    "output_index": 0,
    "content_index": 0,
    "delta": "AAAA",
}


def decoded(end: RealtimeCodec, wire: str) -> list[Any]:
    """What the end makes of a text, as text and as bytes, each with long audio and with short."""
    found: list[Any] = []
    for form in (wire, wire.encode()):
        for length in (0, 10**6):
            with (
                patch.object(codec_module, "_LONG_TEXT", length),
                patch.object(codec_module, "_LONG_BYTES", length),
            ):
                items, hot = end.decode(form, 0.0), end.audio_delta(form)
                assert hot is None or [hot] == list(items)
                found += items
    return found


def spellings(event: dict[str, Any]) -> list[str]:
    """One event as different writers put it on the wire."""
    compact = json.dumps(event, separators=(",", ":"))
    return [
        compact,
        json.dumps(event),
        json.dumps(event, indent=2),
        json.dumps(dict(reversed(event.items()))),
        compact.replace("/", "\\/"),
        compact.replace("+", "\\u002B"),
        compact.replace('":', '" :'),
        " " + compact,
    ]


@given(delta=BASE64, item_id=st.text(max_size=8), index=st.integers(0, 3))
def test_every_spelling_of_an_audio_delta_means_the_same(delta: str, item_id: str, index: int) -> None:
    event = {**DELTA, "delta": delta, "item_id": item_id, "output_index": index}
    wires = spellings(event)

    found = [item for wire in wires for item in decoded(CLIENT, wire)]

    assert found == [AudioDelta("resp_1", item_id, delta, index, 0, "event_1")] * 4 * len(wires)


@given(audio=st.binary(max_size=200), event_id=st.none() | st.text("ab", max_size=3))
def test_every_spelling_of_an_append_means_the_same(audio: bytes, event_id: str | None) -> None:
    event = {"type": APPEND, "audio": base64.b64encode(audio).decode("ascii")}
    event |= {} if event_id is None else {"event_id": event_id}
    wires = spellings(event)

    found = [item for wire in wires for item in decoded(SERVER, wire)]

    assert found == [Append(audio, event_id)] * 4 * len(wires)


VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=6) | BASE64
NESTED = (
    VALUES | st.dictionaries(st.sampled_from(["delta", "audio", "x"]), VALUES) | st.lists(VALUES, max_size=2)
)


@given(
    fields=st.dictionaries(
        st.sampled_from(
            ["delta", "audio", "item_id", "response_id", "event_id", "output_index", "x", '"delta']
        ),
        NESTED,
    ),
    is_delta=st.booleans(),
)
def test_short_way_agrees_with_the_long_one_about_any_fields(fields: dict[str, Any], is_delta: bool) -> None:
    base = {**DELTA, **fields} if is_delta else {"type": APPEND, **fields}
    short, long = (CLIENT, LONG_CLIENT) if is_delta else (SERVER, LONG_SERVER)
    wire = json.dumps(base, separators=(",", ":"))

    found = decoded(short, wire)

    assert found == list(long.decode(wire, 0.0)) * 4


@pytest.mark.parametrize(
    "wire",
    [
        # The first "delta" is not the message's own.
        '{"type":"response.output_audio.delta","x":{"delta":"BBBB"},"response_id":"r","item_id":"i","delta":""}',
        '{"type":"response.output_audio.delta","response_id":"\\"delta\\":\\"B\\"","item_id":"i","delta":"AAAA"}',
        '{"type":"response.output_audio.delta","delta":"BBBB","response_id":"r","item_id":"i","delta":"AAAA"}',
        '{"type":"response.output_audio.delta","response_id":"r","item_id":"i","delta" : ""}',
        '{"type":"response.output_audio.delta","response_id":"r","item_id":"i"}',
        '{"type":"response.output_audio.delta","response_id":"r","item_id":"i","delta":"AAAA',
        '{"type":"response.output_audio.delta"',
        '{"type":"response.output_audio.delta","delta":"AAAA"}',
        '{"type":"response.output_audio.delta","response_id":"r","item_id":"i","delta":"äöü"}',
    ],
)
def test_odd_audio_deltas_mean_the_same_by_both_ways(wire: str) -> None:
    found = decoded(CLIENT, wire)

    assert found == list(LONG_CLIENT.decode(wire, 0.0)) * 4


def test_usual_wire_goes_the_short_way() -> None:
    wires: list[str | bytes] = [
        json.dumps(DELTA),
        json.dumps(DELTA, separators=(",", ":")),
        json.dumps(DELTA).encode(),
        json.dumps({**DELTA, "delta": "A" * 20_000}),
        json.dumps({**DELTA, "delta": "A" * 20_000}).encode(),
    ]
    (append,) = CLIENT.encode(Append(b"\0\0"))

    with patch.object(codec_module.RealtimeCodec, "_build", side_effect=AssertionError("the long way")):
        found = [CLIENT.decode(wire, 0.0) for wire in wires]
        found.append(SERVER.decode(append, 0.0))

    assert len(found) == 6


def test_second_delta_of_an_item_is_not_parsed() -> None:
    end = RealtimeCodec(Role.CLIENT, str)
    wires = [json.dumps({**DELTA, "event_id": f"event_{n}", "delta": "AAAA" * 2000}) for n in (1, 2)]
    end.audio_delta(wires[0])

    with patch.object(end, "_decode_delta", side_effect=AssertionError("it was parsed")):
        found = end.audio_delta(wires[1])

    assert found == AudioDelta("resp_1", "item_1", "AAAA" * 2000, 0, 0, "event_2")


EVENT_IDS = st.sampled_from(["e1", "e2", "é3", 'e"', "e\\", "e\n", "~", "", "a longer one"])


@given(
    st.lists(
        st.fixed_dictionaries(
            {"item_id": st.sampled_from(["i1", "i2", "e1"]), "event_id": EVENT_IDS, "delta": BASE64},
            optional={"output_index": st.integers(0, 2), "x": NESTED},
        ),
        max_size=6,
    ),
    st.integers(0, 7),
)
def test_deltas_mean_the_same_whatever_came_before_them(events: list[dict[str, Any]], spelling: int) -> None:
    end = RealtimeCodec(Role.CLIENT, str)
    wires = [spellings({**DELTA, **event})[spelling] for event in events]

    with patch.object(codec_module, "_LONG_TEXT", 0):
        found = [item for wire in wires for item in end.decode(wire, 0.0)]

    assert found == [item for wire in wires for item in LONG_CLIENT.decode(wire, 0.0)]


@pytest.mark.parametrize(
    "event",
    [
        DELTA,
        {"type": AUDIO_DELTA, "event_id": "e1", "delta": "AAAA", "response_id": "r", "item_id": "i"},
        {"type": AUDIO_DELTA, "x": {"event_id": "event_1"}, **DELTA},
    ],
    ids=["usual", "audio in the middle", "another identifier first"],
)
def test_delta_that_differs_anywhere_is_what_it_is_alone(event: dict[str, Any]) -> None:
    wire, end = json.dumps(event), RealtimeCodec(Role.CLIENT, str)
    others = [
        wire[:at] + change + wire[at + 1 :]
        for at in range(len(wire))
        for change in ("", '"', "\\", "\n", "~", "x", "é", "}", '","a":"')
    ]

    with patch.object(codec_module, "_LONG_TEXT", 0):
        behind_it = [(end.audio_delta(wire), end.audio_delta(other))[1] for other in others]
        alone = [RealtimeCodec(Role.CLIENT, str).audio_delta(other) for other in others]

    assert behind_it == alone


@given(
    name=st.sampled_from(TEXT_DELTAS),
    fields=st.dictionaries(
        st.sampled_from(["delta", "item_id", "response_id", "event_id", "content_index", "x"]), NESTED
    ),
)
def test_words_are_those_of_the_whole_message(name: str, fields: dict[str, Any]) -> None:
    event = {"type": name, "response_id": "r", "item_id": "i", "delta": " word", **fields}
    wires = spellings(event)

    found = [(CLIENT.text_delta(wire), *CLIENT.decode(wire, 0.0)) for wire in wires]

    for words, message in found:
        if words is not None:
            assert isinstance(message, RealtimeMessage)
            assert words == TextDelta(
                **{key: message.fields.get(key, 0) for key in TextDelta.__struct_fields__}
            )


@pytest.mark.parametrize("name", TEXT_DELTAS)
def test_usual_words_go_the_short_way(name: str) -> None:
    event = {"type": name, "response_id": "r", "item_id": "i", "content_index": 1, "delta": "wörd"}

    found = [CLIENT.text_delta(wire) for wire in spellings(event)[:3]]

    assert found == [TextDelta("r", "i", "wörd", 1), TextDelta("r", "i", "wörd", 1), None]


@pytest.mark.parametrize("audio", ["@@@@", "AAA", "A", "AA=A", "äöüß", "AAAA\n", "~"])
def test_audio_that_is_no_base64_is_refused_in_the_service_s_words(audio: str) -> None:
    wires = [f'{{"type":"{APPEND}","audio":"{audio}"}}', json.dumps({"audio": audio, "type": APPEND})]

    found = [fault for wire in wires for fault in SERVER.decode(wire, 0.0)]

    for fault in found:
        assert isinstance(fault, ProtocolFault)
        assert (fault.code, fault.param) == ("invalid_value", "audio")
        assert fault.reason.startswith("Invalid 'audio'. Expected base64-encoded audio bytes")


def test_append_with_a_field_too_many_is_refused() -> None:
    (fault,) = SERVER.decode(json.dumps({"type": APPEND, "audio": "AAAA", "rate": 8000}), 0.0)

    assert isinstance(fault, ProtocolFault)
    assert (fault.code, fault.param) == ("unknown_parameter", "rate")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_can_be_appended(kind: Any) -> None:
    (wire,) = CLIENT.encode(Append(kind(b"\x01\x02")))

    assert wire == '{"type":"input_audio_buffer.append","audio":"AQI="}'


def test_envelope_follows_the_item_of_each_delta() -> None:
    deltas = [
        AudioDelta("r1", "i1", "AAAA", 0, 0, "e1"),
        AudioDelta("r1", "i1", "AAAA", 1, 0, "e2"),
        AudioDelta("r1", "i1", "AAAA", 1, 2, "e3"),
        AudioDelta("r1", 'i"2\\', "AAAA", 1, 2, 'e"4'),
        AudioDelta("r2", 'i"2\\', "AAAA", 1, 2, "e5"),
        AudioDelta("r1", "i1", "AAAA", 0, 0, "e6"),
    ]

    found = [item for delta in deltas for wire in SERVER.encode(delta) for item in CLIENT.decode(wire, 0.0)]

    assert found == deltas


@given(audio=st.binary(max_size=100))
def test_size_of_audio_is_known_without_decoding(audio: bytes) -> None:
    text = base64.b64encode(audio).decode("ascii")

    assert audio_size(text) == len(audio)
    assert decode_audio(text) == audio


@pytest.mark.parametrize("text", ["@@@@", "AAA", "ä"])
def test_decoding_what_is_no_base64_raises(text: str) -> None:
    with pytest.raises(ValueError):
        decode_audio(text)
