"""What the service garbles inside a message: audio that is none, counts that are none. And events of our own."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plugins.openai.peer import session
from voxengine.audio.format import AudioFormat
from voxengine.errors import ConfigError, RemoteProtocolError
from voxengine.testing import virtual
from voxengine_openai.usage import UsageMeter, flaw_in

PLACE: dict[str, Any] = {
    "response_id": "resp_1",
    "item_id": "item_1",
    "output_index": 0,
    "content_index": 0,
}
GOOD = base64.b64encode(bytes(960)).decode()


@pytest.mark.parametrize("delta", ["!!!", "A", GOOD[:-1], GOOD + "AA", "AAA!" * 8, "ÄÖÜß" * 8, "AAAA AAA"])
@virtual
async def test_audio_that_is_no_base64_is_one_error_and_the_answer_goes_on(delta: str) -> None:
    async with session() as (_, peer, recorder):
        await peer.begin()
        for each in (delta, GOOD, delta):
            await peer.say("response.output_audio.delta", delta=each, **PLACE)
        await peer.finish()
        await recorder.wait("response_completed")
        audio = b"".join(event.data["audio_data"] for event in recorder.of("audio_output_chunk"))
        errors = [event.data for event in recorder.of("error_general")]

        assert [type(error["error"]) for error in errors] == [RemoteProtocolError]
        assert errors[0]["recoverable"] is True
        assert "no base64" in str(errors[0]["error"])
        assert not any(audio)
        assert not recorder.of("connection_lost")


@virtual
async def test_garbled_audio_is_silent_in_g711_too() -> None:
    async with session(output_format=AudioFormat(8000, 1, "g711_ulaw")) as (_, peer, recorder):
        await peer.begin()
        await peer.say("response.output_audio.delta", delta="AAA!" * 40, **PLACE)
        event = await recorder.wait("audio_output_chunk")

        assert event.data["audio_data"] == bytes(240)


COUNTS = [
    "12",
    5,
    [],
    True,
    {},
    {"total_tokens": "12"},
    {"total_tokens": -1},
    {"total_tokens": True},
    {"total_tokens": 1.5},
    {"total_tokens": 10**30},
    {"input_token_details": {"text_tokens": 1}},
    {"total_tokens": 1, "input_token_details": 5},
    {"total_tokens": 1, "input_token_details": {"cached_tokens_details": {"audio_tokens": -2}}},
    {"seconds": "1"},
]


@pytest.mark.parametrize("usage", COUNTS)
@virtual
async def test_a_count_that_cannot_be_read_is_one_error_and_the_answer_ends(usage: Any) -> None:
    async with session() as (provider, peer, recorder):
        for name in ("resp_1", "resp_2"):
            await peer.begin(name)
            await peer.finish(name, usage=usage)
        await recorder.wait("response_completed", 2)
        used = await provider.get_usage()
        errors = [event.data for event in recorder.of("error_general")]

        assert [type(error["error"]) for error in errors] == [RemoteProtocolError]
        assert errors[0]["recoverable"] is True
        assert "usage" in str(errors[0]["error"])
        assert all(isinstance(n, int) and 0 <= n <= 2 for n in used.values())
        assert await provider.estimate_cost() is not None


@pytest.mark.parametrize("usage", COUNTS)
@virtual
async def test_a_transcript_arrives_whatever_its_count_is(usage: Any) -> None:
    async with session() as (_, peer, recorder):
        fields = {"item_id": "item_u", "content_index": 0, "transcript": "Hello.", "usage": usage}
        await peer.say("conversation.item.input_audio_transcription.completed", **fields)
        heard = await recorder.wait("input_transcript")

        assert heard.data["text"] == "Hello."
        assert [type(event.data["error"]) for event in recorder.of("error_general")] == [RemoteProtocolError]


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {"total_tokens": 3},
        {"input_tokens": 0, "output_tokens": None, "input_token_details": None},
        {"type": "duration", "seconds": 1.5},
        {"total_tokens": 3, "input_token_details": {"image_tokens": 1}, "video": "new"},
    ],
)
def test_a_count_with_parts_left_out_is_a_count(usage: Any) -> None:
    assert flaw_in(usage) == ""


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                [
                    "total_tokens",
                    "input_tokens",
                    "input_token_details",
                    "cached_tokens_details",
                    "text_tokens",
                ]
            ),
            inner,
        )
    ),
    max_leaves=8,
)


@given(anything)
def test_no_usage_is_too_strange_to_be_counted(usage: Any) -> None:
    meter = UsageMeter()

    flaw = flaw_in(usage)
    if isinstance(usage, dict):
        meter.add_response(usage)
        meter.add_transcription(usage, "whisper-1")

    assert isinstance(flaw, str)
    assert all(n >= 0 for n in meter.to_dict().values())
    assert meter.cost("gpt-realtime") is not None


# -- events of the application --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ("x", "not a str"),
        (b"{}", "not a bytes"),
        (None, "not a NoneType"),
        (["type"], "not a list"),
        (7, "not a int"),
        ({}, "without a type"),
        ({"type": ""}, "without a type"),
        ({"type": 5}, "a type that is a int"),
        ({"type": "x", "event_id": 5}, "event_id"),
        ({"type": "x", 5: 5}, "texts as names"),
        ({"type": "x", "y": object()}, "JSON"),
        ({"type": "response.create", "response": {"conversation": "none", "input": object()}}, "JSON"),
    ],
)
@virtual
async def test_what_is_no_event_of_the_protocol_is_refused_and_not_sent(event: Any, words: str) -> None:
    async with session() as (provider, peer, recorder):
        with pytest.raises(ConfigError, match=words):
            await provider.send_event(event)
        await peer.begin(conversation_id=None)
        await recorder.wait("response_started")

        assert peer.names() == []


@virtual
async def test_an_event_s_own_id_is_kept() -> None:
    async with session() as (provider, peer, _):
        event = {"type": "conversation.item.delete", "item_id": "item_7", "event_id": "mine"}
        event_id = await provider.send_event(event)
        sent = await peer.wait("conversation.item.delete")

        assert event_id == sent["event_id"] == "mine"
        assert event["type"] == "conversation.item.delete"
