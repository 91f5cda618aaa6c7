"""The engine with the real mock provider, end to end on the virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.core.engine.fakes import RATE, Seen, silence, speak, speech
from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.errors import JournalFull
from voxengine.events import EventType
from voxengine.testing import leak_check, virtual
from voxengine_mock.voice import VOICES, ToneSpeech

SCRIPT: dict[str, Any] = {
    "responses": {
        "What time is it?": "It is five minutes past noon.",
        "Hello": "Hi there! How can I help?",
        "*story*": "Once upon a time there was an engine that listened to everyone and forgot nobody at all.",
    },
    "hears": ["What time is it?", "Tell me a story"],
}


@asynccontextmanager
async def talking(**config: Any) -> AsyncIterator[tuple[VoiceEngine, Seen]]:
    async with leak_check():
        engine = VoiceEngine(VoiceEngineConfig(provider="mock", metadata=SCRIPT, **config))
        seen = Seen(engine)
        async with engine:
            yield engine, seen


async def question(text: str = "What time is it?", rate: int = RATE) -> bytes:
    spoken = ToneSpeech(text, VOICES["bruno"], rate)
    return silence(200, rate) + await spoken.pcm(0, spoken.duration_ms) + silence(800, rate)


@pytest.mark.parametrize("turn_detection", ["server", "client", "manual"])
@virtual
async def test_spoken_question_gets_a_spoken_answer_and_transcripts(turn_detection: Any) -> None:
    async with talking(turn_detection=turn_detection) as (engine, seen):
        await speak(engine, await question(), paced=True)
        if turn_detection == "manual":
            await engine.end_turn()
        await engine.wait_idle()

        transcript = seen.of(EventType.INPUT_TRANSCRIPT)[-1]
        assert (transcript.text, transcript.is_partial) == ("What time is it?", False)
        answer = seen.of(EventType.TEXT_OUTPUT)[-1]
        assert (answer.text, answer.is_partial) == ("It is five minutes past noon.", False)
        assert len(seen.audio()) > RATE * 2
        assert seen.one(EventType.AUDIO_OUTPUT_STOPPED).played_ms == len(seen.audio()) * 1000 // 2 // RATE
        assert [(item.role, item.text) for item in engine.history] == [
            ("user", "What time is it?"),
            ("agent", "It is five minutes past noon."),
        ]
        assert seen.of(EventType.ERROR_GENERAL, EventType.WARNING) == []
        assert seen.endings() == {seen.one(EventType.RESPONSE_STARTED).response_id: 1}
        assert await engine.estimate_cost() == 0.0


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
@virtual
async def test_question_at_another_rate_is_understood_too(rate: int) -> None:
    async with talking(input_format=rate, output_format=rate) as (engine, seen):
        await speak(engine, await question(rate=rate), rate=rate, paced=True)
        await engine.wait_idle()

        assert seen.of(EventType.TEXT_OUTPUT)[-1].text == "It is five minutes past noon."
        assert engine.output_format.sample_rate == rate
        assert len(seen.audio()) > rate * 2


@virtual
async def test_user_cuts_in_and_the_history_holds_what_was_heard() -> None:
    async with talking() as (engine, seen):
        await engine.send_text("Tell me a story")
        await asyncio.sleep(1.5)
        await speak(engine, await question(), paced=True)
        await engine.wait_idle()

        interrupted = seen.one(EventType.INTERRUPTED)
        story = next(item for item in engine.history if item.role == "agent")
        assert 500 < interrupted.heard_ms < 3000
        assert story.heard_text is not None
        assert story.text.startswith(story.heard_text)
        assert 0 < len(story.heard_text) < len(story.text)
        assert not story.heard_is_estimated
        assert seen.of(EventType.TEXT_OUTPUT)[-1].text == "It is five minutes past noon."
        assert set(seen.endings().values()) == {1}


@virtual
async def test_question_in_mid_sentence_survives_a_switch() -> None:
    fallback = VoiceEngineConfig(provider="mock", metadata={**SCRIPT, "seed": 7})
    async with talking(fallbacks=(fallback,)) as (engine, seen):
        await engine.send_text("Hello")
        await engine.wait_idle()
        spoken = await question()
        half = len(spoken) // 3 // 960 * 960
        await speak(engine, spoken[:half], paced=True)
        await engine.switch_provider("mock")
        await speak(engine, spoken[half:], paced=True)
        await engine.wait_idle()

        assert [item.text for item in engine.history] == [
            "Hello",
            "Hi there! How can I help?",
            "What time is it?",
            "It is five minutes past noon.",
        ]
        switched = seen.one(EventType.PROVIDER_SWITCHED)
        assert (switched.context, switched.replayed_ms > 0) == ("full", True)
        assert len(seen.of(EventType.SPEECH_STARTED)) == len(seen.of(EventType.SPEECH_ENDED)) == 1
    assert seen.session_endings() == {1: ["connection_closed"], 2: ["connection_closed"]}


@virtual
async def test_same_conversation_gives_the_same_events() -> None:
    async def converse() -> list[tuple[str, float]]:
        async with talking() as (engine, seen):
            began = asyncio.get_running_loop().time()
            await engine.send_text("Hello")
            await engine.wait_idle()
            await speak(engine, await question(), paced=True)
            await engine.wait_idle()
            return [(str(event.type), round(event.timestamp - began, 3)) for event in seen.events]

    assert await converse() == await converse()


@pytest.mark.parametrize("n_before", [0, 1, 2])
@virtual
async def test_rest_is_not_reported_before_what_was_just_said_is_answered(n_before: int) -> None:
    async with talking() as (engine, _):
        for _ in range(n_before):
            await engine.send_text("Hello")
            await engine.wait_idle()

        await engine.send_audio(await question())
        await engine.wait_idle()

        assert [item.text for item in engine.history][-2:] == [
            "What time is it?",
            "It is five minutes past noon.",
        ]


@pytest.mark.parametrize("turn_detection", ["server", "client"])
@virtual
async def test_turn_that_fills_the_journal_is_ended_and_the_conversation_goes_on(turn_detection: Any) -> None:
    async with talking(turn_detection=turn_detection, journal_s=3) as (engine, seen):
        n_refused = 0
        for _ in range(20 * 50):  # A noise without a pause, in real time.
            try:
                await speak(engine, speech(20), paced=True)
            except JournalFull:
                n_refused += 1
                await asyncio.sleep(0.02)
        await speak(engine, silence(1500), paced=True)
        await engine.wait_idle()

        assert "turn_cut_short" in seen.codes()
        assert 0 < n_refused < 500
        assert len(seen.of(EventType.RESPONSE_COMPLETED, EventType.RESPONSE_CANCELLED)) > 2
        await speak(engine, await question(), paced=True)
        await engine.wait_idle()
        assert engine.history.items[-1].role == "agent"


@virtual
async def test_call_that_is_too_much_at_once_leaves_the_turn_as_it_was() -> None:
    async with talking(journal_s=3) as (engine, seen):
        first, second = (await question())[:24_000], (await question())[24_000:]
        await speak(engine, first, paced=True)
        with pytest.raises(JournalFull, match="Nothing of this call was accepted"):
            await engine.send_audio(speech(4000))
        await speak(engine, second, paced=True)
        await engine.wait_idle()

        assert seen.codes() == []
        assert [item.text for item in engine.history] == [
            "What time is it?",
            "It is five minutes past noon.",
        ]


@virtual
async def test_turn_that_fills_the_journal_is_the_applications_where_turns_end_by_hand() -> None:
    async with talking(turn_detection="manual", journal_s=3) as (engine, seen):
        with pytest.raises(JournalFull, match="0.02 s"):
            for _ in range(200):
                await engine.send_audio(speech(20))
        await asyncio.sleep(5)

        assert seen.codes() == []
        assert seen.of(EventType.RESPONSE_STARTED) == []


@pytest.mark.parametrize("turn_detection", ["server", "client"])
@virtual
async def test_spoken_turn_that_is_answered_by_an_error_is_over(turn_detection: Any) -> None:
    faults = [{"do": 503, "at": "response:1"}]
    config = VoiceEngineConfig(
        provider="mock", metadata={**SCRIPT, "faults": faults}, turn_detection=turn_detection
    )
    async with VoiceEngine(config) as engine:
        seen = Seen(engine)
        await speak(engine, await question(), paced=True)
        await engine.wait_idle(timeout_s=5)

        assert len(seen.of(EventType.ERROR_GENERAL)) == 1
        await speak(engine, await question(), paced=True)
        await engine.wait_idle(timeout_s=60)
        assert engine.history.items[-1].role == "agent"
