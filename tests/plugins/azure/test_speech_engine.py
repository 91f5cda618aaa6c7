"""The Speech service in an engine: a user is heard, the agent speaks what it is told, nobody answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.plugins.azure.support import RATE, serving, silence, speech
from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.events import Event, EventType


@asynccontextmanager
async def engine_on(url: str, **options: Any) -> AsyncIterator[tuple[VoiceEngine, list[Event]]]:
    metadata = {"service": "speech", "endpoint": url}
    config = VoiceEngineConfig(
        provider="azure", api_key="sk-drive", metadata=metadata, playback="null", **options
    )
    events: list[Event] = []
    engine = VoiceEngine(config)
    engine.events.on("*", events.append)
    async with engine:
        yield engine, events


async def say(engine: VoiceEngine, pcm: bytes) -> None:
    for at in range(0, len(pcm), 640):
        await engine.send_audio(pcm[at : at + 640])


async def test_words_of_the_user_are_in_the_history_and_release_the_audio() -> None:
    async with (
        serving(hears=["call VoxEngine now", "and then stop"]) as (_, url),
        engine_on(url) as (engine, _),
    ):
        assert engine.input_format.sample_rate == RATE
        told: asyncio.Queue[str] = asyncio.Queue()

        def tell(event: Event) -> None:
            if not event.data["is_partial"]:
                told.put_nowait(event.data["text"])

        engine.events.on(EventType.INPUT_TRANSCRIPT, tell)
        for _ in range(2):
            await say(engine, speech() + silence(1000))
            await told.get()
        said = [(item.kind.value, item.text) for item in engine.history]

    assert said == [("user_audio", "Call VoxEngine now."), ("user_audio", "And then stop.")]


async def test_end_turn_of_the_engine_closes_an_utterance() -> None:
    async with serving(hears=["call VoxEngine now"]) as (_, url), engine_on(url) as (engine, events):
        await say(engine, speech())
        await engine.end_turn()
        await engine.wait_idle(timeout_s=20)

    final = [e for e in events if e.type is EventType.INPUT_TRANSCRIPT and not e.is_partial]
    assert [event.text for event in final] == ["Call VoxEngine now."]


async def test_what_is_spoken_is_the_agents_and_what_is_heard_the_users() -> None:
    async with serving(hears=["call VoxEngine now"]) as (_, url), engine_on(url) as (engine, events):
        await engine.send_text("What can I do?")
        await engine.wait_idle(timeout_s=20)
        await say(engine, speech())
        await engine.end_turn()
        await engine.wait_idle(timeout_s=20)
        said = [(item.role, item.text) for item in engine.history]

    texts = [(e.text, e.is_partial) for e in events if e.type is EventType.TEXT_OUTPUT]
    assert said == [("agent", "What can I do?"), ("user", "Call VoxEngine now.")]
    assert texts == [("What can I do?", True), ("What can I do?", False)]


async def test_text_that_was_refused_was_never_said() -> None:
    async with serving() as (_, url), engine_on(url, voice="nobody") as (engine, events):
        await engine.say("Hello.")
        await engine.wait_idle(timeout_s=20)

    assert [e for e in events if e.type is EventType.TEXT_OUTPUT] == []
    assert "Hello." not in [item.text for item in engine.history]


async def test_engine_speaks_and_is_interrupted() -> None:
    async with serving(pace=5) as (_, url), engine_on(url) as (engine, events):
        await engine.say("On and on and on, and so it goes, until somebody says that it is enough. " * 3)
        async for _ in engine.events.stream(EventType.AUDIO_OUTPUT_CHUNK):
            break
        interruption = engine.interrupt()
        await interruption
        await engine.say("Enough.")
        await engine.wait_idle(timeout_s=20)

    ends = [e.type for e in events if e.type in (EventType.RESPONSE_CANCELLED, EventType.RESPONSE_COMPLETED)]
    assert ends == [EventType.RESPONSE_CANCELLED, EventType.RESPONSE_COMPLETED]


async def test_options_without_a_meaning_here_are_named() -> None:
    options = {"instructions": "Be brief.", "temperature": 0.5}
    async with serving() as (_, url), engine_on(url, **options) as (_, events):
        pass

    named = {e.message for e in events if e.type is EventType.WARNING and e.code == "option_unsupported"}
    assert {"instructions" in text or "temperature" in text for text in named} == {True}
    assert len(named) == 2
