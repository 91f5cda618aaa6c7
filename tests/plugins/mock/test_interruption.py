from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.plugins.mock.support import Recorder, feed, session, silence, tool, voice_saying
from voxengine.events import Event
from voxengine.history import Heard
from voxengine.testing.clock import leak_check, virtual

LONG = "one, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve."
ENDINGS = ("response_completed", "response_cancelled")


def heard(event: Event, played_ms: int) -> Heard:
    return Heard(
        response_id=event.data["response_id"],
        item_id=event.data["item_id"],
        content_index=0,
        item_played_ms=played_ms,
        session_played_ms=played_ms,
    )


def words_before(seen: Recorder, played_ms: int) -> int:
    """How many words had begun."""
    return sum(e.data["at_ms"] < played_ms for e in seen.of("speech_mark"))


@virtual
async def test_an_interrupted_answer_ends_once_and_says_no_more() -> None:
    async with session(default=LONG) as (provider, seen):
        await provider.send_text("count")
        await seen.wait("audio_output_chunk", 5)
        await provider.interrupt()
        cancelled = await seen.wait("response_cancelled")
        await asyncio.sleep(60)

    assert cancelled.data["reason"] == "interrupted"
    assert cancelled.data["heard_ms"] is None
    assert seen.types()[-2:] == ["response_cancelled", "usage_updated"]
    assert len(seen.of(*ENDINGS)) == 1
    assert all(e.data["is_partial"] for e in seen.of("text_output"))


@virtual
async def test_an_interrupted_answer_is_cut_at_the_last_word_that_was_heard() -> None:
    async with session(default=LONG) as (provider, seen):
        await provider.send_text("count")
        chunk = await seen.wait("audio_output_chunk", 25)
        await provider.interrupt(heard(chunk, 1_500))
        cancelled = await seen.wait("response_cancelled")

    text = cancelled.data["heard_text"]
    assert cancelled.data["heard_ms"] == 1_500
    assert cancelled.data["heard_is_estimated"] is False
    assert LONG.startswith(text)
    assert words_before(seen, 1_500) - 1 <= len(text.split()) <= words_before(seen, 1_500)
    assert len(text.split()) >= 2


@pytest.mark.parametrize(("played_ms", "expected_ms"), [(0, 0), (10**6, 500)])
@virtual
async def test_no_more_is_heard_than_was_sent(played_ms: int, expected_ms: int) -> None:
    async with session(default=LONG) as (provider, seen):
        await provider.send_text("count")
        chunk = await seen.wait("audio_output_chunk", 5)
        await provider.interrupt(heard(chunk, played_ms))
        cancelled = await seen.wait("response_cancelled")

    assert cancelled.data["heard_ms"] == expected_ms


@virtual
async def test_interrupting_while_it_still_thinks_cancels_the_answer() -> None:
    async with session(delay_ms=5_000) as (provider, seen):
        await provider.send_text("slow one")
        await provider.interrupt()
        await seen.wait("response_cancelled")
        await asyncio.sleep(20)

    assert seen.of("text_output", "audio_output_chunk") == []
    assert len(seen.of("response_started")) == 1


@virtual
async def test_interrupting_when_nothing_is_said_does_nothing() -> None:
    async with session() as (provider, seen):
        await provider.interrupt()
        await asyncio.sleep(1)
        assert seen.types() == ["connection_established"]
        await provider.send_text("hello again")
        await seen.wait("response_completed")

    assert seen.final_texts() == ["You said: hello again"]


@virtual
async def test_an_answer_that_was_sent_but_is_still_playing_can_be_cut() -> None:
    async with session(default=LONG) as (provider, seen):
        await provider.send_text("count")
        await seen.wait("response_completed")
        await provider.interrupt(heard(seen.of("audio_output_chunk")[0], 900))
        cut = await seen.wait("vendor_event")

    payload: dict[str, Any] = cut.data["payload"]
    assert cut.data["name"] == "truncated"
    assert payload["heard_ms"] == 900
    assert LONG.startswith(payload["heard_text"])
    assert payload["heard_text"]
    assert len(seen.of(*ENDINGS)) == 1


@virtual
async def test_a_late_cut_of_one_answer_stops_the_next_one_too() -> None:
    async with session(default=LONG) as (provider, seen):
        await provider.send_text("a")
        await seen.wait("response_completed")
        await provider.send_text("b")
        await seen.wait("audio_output_chunk", len(seen.of("audio_output_chunk")) + 3)
        await provider.interrupt(heard(seen.of("audio_output_chunk")[0], 900))
        await seen.wait("response_cancelled")
        await seen.wait("vendor_event")

    assert [e.type for e in seen.of(*ENDINGS)] == ["response_completed", "response_cancelled"]
    assert seen.of("response_cancelled")[0].data["heard_ms"] is None


@virtual
async def test_the_next_answer_follows_an_interrupted_one() -> None:
    async with session(default=[LONG, "Short."]) as (provider, seen):
        await provider.send_text("a")
        await provider.send_text("b")
        await seen.wait("audio_output_chunk", 3)
        await provider.interrupt()
        await seen.wait("response_completed")

    assert seen.final_texts() == ["Short."]


@virtual
async def test_the_users_voice_stops_the_answer() -> None:
    async with session(default=[LONG, "Yes?"], hears=["wait a moment"], pace=1) as (provider, seen):
        await provider.send_text("count")
        await seen.wait("audio_output_chunk", 3)
        await feed(provider, await voice_saying("wait a moment") + silence(600))
        await seen.wait("response_completed")

    order = [str(e.type) for e in seen.of("speech_started", *ENDINGS)]
    assert order == ["speech_started", "response_cancelled", "response_completed"]
    assert seen.final_texts() == ["Yes?"]


@virtual
async def test_barge_in_then_tells_what_was_heard_when_the_client_says_so() -> None:
    async with session(default=LONG, pace=1) as (provider, seen):
        await provider.send_text("count")
        chunk = await seen.wait("audio_output_chunk", 20)
        await feed(provider, await voice_saying("stop"), paced=False)
        await seen.wait("response_cancelled")
        await provider.interrupt(heard(chunk, 1_200))
        cut = await seen.wait("vendor_event")

    assert cut.data["payload"]["heard_ms"] == 1_200
    assert len(cut.data["payload"]["heard_text"].split()) >= 2


@virtual
async def test_the_users_voice_stops_nothing_when_told_so_or_under_manual_control() -> None:
    for config in ({"interruption": "off"}, {"turn_detection": "manual"}):
        async with session(config, default=LONG, pace=1) as (provider, seen):
            await provider.send_text("count")
            await seen.wait("audio_output_chunk", 3)
            await feed(provider, await voice_saying("wait a moment"))
            await seen.wait("response_completed")

        assert seen.final_texts() == [LONG]


@virtual
async def test_interrupted_speech_drops_the_rest_of_its_text() -> None:
    async with session() as (provider, seen):
        await provider.speak("First part, ", is_last=False)
        await seen.wait("audio_output_chunk", 3)
        await provider.interrupt()
        await seen.wait("response_cancelled")
        await provider.speak("second part.", is_last=True)
        await asyncio.sleep(10)
        assert len(seen.of("response_started")) == 1
        await provider.speak("Something new.")
        await seen.wait("response_completed")

    assert seen.final_texts() == ["Something new."]


@virtual
async def test_interrupting_speech_that_waits_for_more_text_ends_it() -> None:
    async with session() as (provider, seen):
        await provider.speak("Well", is_last=False)
        await asyncio.sleep(30)
        await provider.interrupt()
        await seen.wait("response_cancelled")

    assert len(seen.of(*ENDINGS)) == 1


@virtual
async def test_an_answer_that_is_interrupted_calls_no_tool() -> None:
    responses = {"go": {"say": LONG, "tool": "act"}}
    async with session({"tools": [tool("act")]}, responses=responses) as (provider, seen):
        await provider.send_text("go")
        await seen.wait("audio_output_chunk", 3)
        await provider.interrupt()
        await seen.wait("response_cancelled")
        await asyncio.sleep(10)

    assert seen.of("function_call_invoked") == []


@pytest.mark.parametrize("n_chunks", range(0, 30, 3))
@virtual
async def test_wherever_it_is_interrupted_it_ends_exactly_once(n_chunks: int) -> None:
    async with leak_check(), session(default="one two three four") as (provider, seen):
        await provider.send_text("count")
        await seen.until(lambda: len(seen.of("audio_output_chunk")) >= n_chunks or bool(seen.of(*ENDINGS)))
        await provider.interrupt()
        await provider.interrupt()
        await asyncio.sleep(5)

    assert len(seen.of("response_started")) == len(seen.of(*ENDINGS)) == 1
