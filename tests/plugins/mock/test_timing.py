"""How long things take and what they are said to cost, by the script."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plugins.mock.support import feed, session, silence, voice_saying
from voxengine.testing.clock import virtual
from voxengine_mock.voice import VOICES, ToneSpeech, plan


@given(
    st.lists(st.sampled_from(["a", "word", "sentence.", "12345", "—", "x" * 60]), min_size=1, max_size=12),
    st.integers(0, 9_000),
)
def test_a_text_with_a_duration_ends_within_it_and_its_words_follow_each_other(
    words: list[str], more_ms: int
) -> None:
    text, duration_ms = " ".join(words), 20 * len(words) + more_ms

    units = plan(text, duration_ms=duration_ms)

    assert "".join(text[unit.start : unit.end] for unit in units) == text
    assert all(unit.at_ms <= unit.end_ms for unit in units)
    assert all(a.end_ms <= b.at_ms for a, b in itertools.pairwise(units))
    assert units[-1].end_ms <= duration_ms


@pytest.mark.parametrize("rate", [8_000, 24_000, 44_100])
async def test_speech_lasts_to_the_sample_as_long_as_it_is_told_to(rate: int) -> None:
    speech = ToneSpeech("Three short words.", VOICES["aria"], rate, duration_ms=2345)

    pcm = await speech.pcm(0, speech.duration_ms)

    assert speech.duration_ms == 2345
    assert len(pcm) == 2345 * rate // 1000 * 2


async def test_words_begin_when_they_are_told_to_and_silence_is_before_them() -> None:
    speech = ToneSpeech("one two", VOICES["aria"], 24_000, at_ms=(500, 2000))

    pcm = await speech.pcm(0, speech.duration_ms)

    assert [unit.at_ms for unit in speech.units] == [500, 2000]
    assert not any(pcm[: 490 * 48])
    assert any(pcm[500 * 48 : 700 * 48])
    assert not any(pcm[1500 * 48 : 1990 * 48])


@virtual
async def test_an_answer_takes_its_duration_and_its_marks_have_its_times() -> None:
    responses = {"hi": {"say": "one two three", "at_ms": [0, 1000, 1500], "duration_ms": 4000}}

    async with session(responses=responses, pace=1, delay_ms=0) as (provider, seen):
        await provider.send_text("hi")
        await seen.wait("response_completed")

    assert [e.data["at_ms"] for e in seen.of("speech_mark")] == [0, 1000, 1500]
    assert len(seen.audio()) == 4 * 48_000


@virtual
async def test_delays_come_where_the_script_wants_them() -> None:
    clock = asyncio.get_running_loop().time
    delays = {"handshake_ms": 100, "ready_ms": 300, "transcript_ms": 700, "audio_ms": 5000}
    began = clock()
    times: dict[str, float] = {}

    async with session(delays=delays, delay_ms=0, hears=["now then"], pace=1000) as (provider, seen):
        opened = clock() - began

        def note(event: Any) -> None:
            seen(event)
            times.setdefault(str(event.type), clock())

        provider.on_event = note
        await feed(provider, await voice_saying("hello") + silence(600), paced=False)
        await seen.wait("response_completed")

    assert opened == pytest.approx(0.4)
    final = next(e for e in seen.of("input_transcript") if not e.data["is_partial"])
    assert final.timestamp - times["speech_ended"] == pytest.approx(0.7, abs=0.01)
    assert times["audio_output_chunk"] - times["text_output"] == pytest.approx(5.0, abs=0.01)


@virtual
async def test_jitter_is_added_to_each_delay_that_is_set_and_repeats_with_the_seed() -> None:
    async def opening(seed: int) -> float:
        clock = asyncio.get_running_loop().time
        began = clock()
        async with session(delays={"ready_ms": 100}, jitter_ms=50, seed=seed):
            return clock() - began

    first, again, other = await opening(1), await opening(1), await opening(2)

    assert first == pytest.approx(again)
    assert first != pytest.approx(other)
    assert 0.1 <= first <= 0.15


@virtual
async def test_a_late_transcript_stays_before_the_one_of_the_next_turn() -> None:
    hears = [{"text": "first turn", "delay_ms": 20_000}, {"text": "second turn", "delay_ms": 0}]

    async with session(hears=hears, default="Yes.") as (provider, seen):
        for _ in range(2):
            await feed(provider, await voice_saying("hello") + silence(600))
        await seen.until(
            lambda: len([e for e in seen.of("input_transcript") if not e.data["is_partial"]]) == 2
        )

    finals = [e.data["text"] for e in seen.of("input_transcript") if not e.data["is_partial"]]
    assert finals == ["first turn", "second turn"]


@virtual
async def test_an_utterance_has_scripted_partials_and_word_times() -> None:
    words = [
        {"word": "recognise", "at_ms": 0, "end_ms": 400},
        {"word": "speech", "at_ms": 450, "end_ms": 900},
    ]
    hears = [
        {"text": "recognise speech", "partials": ["wreck a nice", "recognise"], "words": words, "word_ms": 50}
    ]

    async with session(hears=hears) as (provider, seen):
        await feed(provider, await voice_saying("some long words here") + silence(600))
        await seen.wait("response_completed")

    texts = [(e.data["text"], e.data["delta"]) for e in seen.of("input_transcript")]
    started = seen.of("speech_started")[0].data["at_ms"]
    final = seen.of("input_transcript")[-1].data
    assert texts == [
        ("wreck a nice", "wreck a nice"),
        ("recognise", "recognise"),
        ("recognise speech", " speech"),
    ]
    assert [(w["word"], w["at_ms"] - started, w["end_ms"] - started) for w in final["words"]] == [
        ("recognise", 0, 400),
        ("speech", 450, 900),
    ]
    assert seen.of("input_transcript")[0].data["words"] is None


@virtual
async def test_words_without_given_times_share_the_speech() -> None:
    async with session(hears=["three equal words"]) as (provider, seen):
        await feed(provider, silence(1000) + await voice_saying("some long words here") + silence(600))
        await seen.wait("response_completed")

    words = seen.of("input_transcript")[-1].data["words"]
    assert words[0]["at_ms"] == seen.of("speech_started")[0].data["at_ms"] > 0
    assert words[-1]["end_ms"] == seen.of("speech_ended")[0].data["at_ms"]
    assert [w["word"] for w in words] == ["three", "equal", "words"]


@virtual
async def test_usage_is_counted_by_the_scripts_rates_or_given_by_the_answer() -> None:
    usage = {"per_word": 2, "output_audio_per_s": 20}
    responses = {
        "hi": {"say": "one two", "duration_ms": 500},
        "ho": {"say": "x", "duration_ms": 1000, "usage": {"output_tokens": 90, "cached_tokens": 7}},
    }

    async with session(responses=responses, usage=usage) as (provider, seen):
        for n, text in enumerate(("hi", "ho"), 1):
            await provider.send_text(text)
            await seen.wait("usage_updated", n)

    first, second = (e.data["usage"] for e in seen.of("response_completed"))
    total = seen.of("usage_updated")[-1].data["usage"]
    assert first == {"output_audio_s": 0.5, "output_tokens": 14}
    assert second == {"output_audio_s": 1.0, "output_tokens": 90, "cached_tokens": 7}
    assert (total["input_tokens"], total["output_tokens"]) == (4, 104)


@virtual
async def test_more_text_to_say_than_twenty_minutes_hold_is_cut_and_told() -> None:
    async with session({"modalities": ("text",)}, pace=1000) as (provider, seen):
        await provider.speak("word " * 5_000)
        await provider.send_text("hi")
        await seen.wait("response_completed", 2)

    (error,) = seen.of("error_general")
    assert error.data["error"].code == "invalid_request"
    assert len(seen.final_texts()[0]) == 20_000


@virtual
async def test_requests_beyond_a_thousand_are_refused_and_the_session_goes_on() -> None:
    async with session({"modalities": ("text",)}, pace=1000, delay_ms=0) as (provider, seen):
        for n in range(1003):
            await provider.send_text(f"request {n}")
        await seen.wait("response_completed", 1001)

    errors = seen.of("error_general")
    assert {e.data["error"].code for e in errors} == {"rate_limit"}
    assert len(errors) + len(seen.of("response_completed")) == 1003
