"""Both ends of the Universal Speech Protocol: what one writes the other reads, and nothing makes it fail."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxengine.codec import Role, VendorMessage
from voxengine_azure.speech.codec import (
    CLIENT_PATHS,
    SERVER_PATHS,
    AudioFrame,
    ProtocolFault,
    SpeechCodec,
    SpeechMessage,
    ticks,
    to_ms,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
TOKEN = st.text("abcdefABCDEF0123456789-", max_size=32)
TEXT_PATHS = {"ssml", "text.piece", "text.end"}
FIELDS: dict[str, Any] = {
    "Offset": st.integers(0, 2**50),
    "Duration": st.integers(0, 2**50),
    "Text": st.text(max_size=20),
    "RecognitionStatus": st.sampled_from(["Success", "NoMatch"]),
    "Metadata": st.lists(JSON, max_size=2),
}


@st.composite
def messages(draw: st.DrawFn, role: Role) -> SpeechMessage:
    """Messages that a role sends."""
    path = draw(st.sampled_from(sorted(CLIENT_PATHS if role is Role.CLIENT else SERVER_PATHS)))
    if path in TEXT_PATHS:
        body: Any = draw(st.text(st.characters(exclude_characters="\r"), max_size=50))
    else:
        body = draw(st.dictionaries(st.text("xyz", min_size=1, max_size=4), JSON, max_size=3))
        for name in SERVER_PATHS.get(path, ()):
            body[name] = draw(FIELDS[name])
    headers = draw(st.dictionaries(st.from_regex(r"X-Own[a-z]{0,5}", fullmatch=True), TOKEN, max_size=2))
    return SpeechMessage(path, body, draw(TOKEN), draw(TOKEN), headers)


FRAMES = st.builds(AudioFrame, st.binary(max_size=300), TOKEN, TOKEN, TOKEN, TOKEN)


def codec(role: Role) -> SpeechCodec:
    return SpeechCodec(role, lambda prefix: prefix)


def other(role: Role) -> Role:
    return Role.SERVER if role is Role.CLIENT else Role.CLIENT


@pytest.mark.parametrize("role", list(Role))
def test_what_one_end_writes_the_other_reads(role: Role) -> None:
    @given(st.one_of(messages(role), FRAMES))
    def check(item: Any) -> None:
        (wire,) = codec(role).encode(item)

        assert list(codec(other(role)).decode(wire, 0.0)) == [item]

    check()


@given(st.sampled_from(list(Role)), st.binary(max_size=200) | st.text(max_size=200))
def test_nothing_that_arrives_makes_the_codec_fail(role: Role, wire: bytes | str) -> None:
    found = codec(role).decode(wire, 0.0)

    assert len(found) == 1


@pytest.mark.parametrize("path", sorted(SERVER_PATHS))
def test_fields_of_a_wrong_type_are_a_fault_without_their_content(path: str) -> None:
    @given(st.dictionaries(st.sampled_from([*FIELDS, "other"]), st.just(["secret words"]) | JSON))
    def check(body: dict[str, Any]) -> None:
        (wire,) = codec(Role.SERVER).encode(SpeechMessage(path, body, "1"))
        (found,) = codec(Role.CLIENT).decode(wire, 0.0)

        if isinstance(found, ProtocolFault):
            assert "secret words" not in found.reason
        else:
            assert isinstance(found, SpeechMessage)
            assert all(name in body for name in SERVER_PATHS[path])

    check()


def test_binary_frame_is_laid_out_as_the_service_wants_it() -> None:
    (wire,) = codec(Role.CLIENT).encode(AudioFrame(b"\1\2\3", "abc", "1", "audio/x-wav"))

    assert isinstance(wire, bytes)
    n_head = int.from_bytes(wire[:2], "big")
    assert wire[2 : 2 + n_head] == (
        b"Path: audio\r\nX-RequestId: abc\r\nX-StreamId: 1\r\nContent-Type: audio/x-wav\r\n"
    )
    assert wire[2 + n_head :] == b"\1\2\3"


@pytest.mark.parametrize(
    "wire",
    [
        'Path: speech.startDetected\r\nX-RequestId: AB\r\nContent-Type: application/json\r\n\r\n{"Offset":7}',
        'x-requestid:AB\r\npath:SPEECH.STARTDETECTED\r\n\r\n{"Offset":7}',
    ],
)
def test_case_and_blanks_of_headers_do_not_matter(wire: str) -> None:
    assert codec(Role.CLIENT).decode(wire, 0.0) == [
        SpeechMessage("speech.startdetected", {"Offset": 7}, "AB")
    ]


def test_service_spells_its_paths_with_capitals() -> None:
    (wire,) = codec(Role.SERVER).encode(SpeechMessage("speech.enddetected", {"Offset": 1}, "1"))

    assert wire.startswith("Path: speech.endDetected\r\n")  # type: ignore[arg-type]


def test_unknown_path_is_kept_whole() -> None:
    wire = 'Path: Speech.Keyword\r\nX-RequestId: 1\r\n\r\n{"a":1}'

    assert codec(Role.CLIENT).decode(wire, 0.0) == [
        VendorMessage("Speech.Keyword", {"headers": {"X-RequestId": "1"}, "body": {"a": 1}})
    ]


def test_turn_that_ends_without_a_body_is_understood() -> None:
    wire = "Path: turn.end\r\nX-RequestId: 1\r\n\r\n"

    assert codec(Role.CLIENT).decode(wire, 0.0) == [SpeechMessage("turn.end", {}, "1")]


def test_line_break_in_a_value_begins_no_header() -> None:
    (wire,) = codec(Role.CLIENT).encode(SpeechMessage("ssml", "x", "1\r\nPath: telemetry"))
    (found,) = codec(Role.SERVER).decode(wire, 0.0)

    assert isinstance(found, SpeechMessage)
    assert found.path == "ssml"


def test_body_holds_no_empty_line_of_a_header() -> None:
    (wire,) = codec(Role.CLIENT).encode(SpeechMessage("ssml", "one\r\n\r\ntwo", "1"))

    assert isinstance(wire, str)
    assert wire.count("\r\n\r\n") == 1


def test_what_was_said_is_in_no_representation() -> None:
    shown = repr([SpeechMessage("ssml", "my words", "1"), AudioFrame(b"my words", "1")])

    assert "my words" not in shown


@given(st.integers(0, 10**9))
def test_times_survive_the_service_s_unit(ms: int) -> None:
    assert to_ms(ticks(ms)) == ms


@pytest.mark.parametrize("value", [None, "5", True, -1, float("nan"), float("inf"), [3]])
def test_what_is_no_time_is_zero(value: object) -> None:
    assert to_ms(value) == 0
