"""Sessions that are lost over real sockets, in real time; the matrix on the virtual clock is the whole of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from tests.core.continuity.matrix import Watched, tone
from tests.core.engine.fakes import Seen, registry, silence, speak
from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.events import EventType
from voxengine.testing import leak_check
from voxengine_mock.emulator import MockEmulator
from voxengine_mock.harness import serve

SCRIPT = {"delay_ms": 50, "pace": 100, "hears": ["what is the weather"], "default": "You said: {text}"}


@asynccontextmanager
async def call(
    *faults: str, budget_s: float = 10, has_fallback: bool = True
) -> AsyncIterator[tuple[VoiceEngine, Seen, dict[str, Any], AsyncExitStack]]:
    """An engine that speaks with one emulator, with another one to fall back to; closing the stack stops the first."""
    async with leak_check(), serve(MockEmulator(script=SCRIPT)) as second:
        first = AsyncExitStack()
        server = await first.enter_async_context(serve(MockEmulator(script=SCRIPT, faults=faults)))
        kinds: dict[str, Any] = {name: type("Watched", (Watched,), {"made": []}) for name in ("one", "two")}
        fallbacks = [VoiceEngineConfig(provider="two", metadata={"url": second.url})] if has_fallback else []
        config = VoiceEngineConfig(
            provider="one",
            metadata={"url": server.url},
            fallbacks=fallbacks,
            reconnect={"budget_s": budget_s},
        )
        engine = VoiceEngine(config, registry=registry(**kinds))
        async with engine:
            yield engine, Seen(engine), kinds, first
        await first.aclose()


async def test_emulator_that_is_stopped_in_mid_sentence_leaves_the_whole_question_to_the_other() -> None:
    question = tone(1000, 1)
    async with call() as (engine, seen, kinds, first):
        speaking = asyncio.create_task(speak(engine, question + silence(900), paced=True))
        heard = asyncio.Event()
        engine.events.once(EventType.SPEECH_STARTED, lambda _: heard.set())
        await heard.wait()
        await first.aclose()
        await speaking
        await engine.wait_idle(timeout_s=20)

        assert engine.config.provider == "two"
        assert bytes(kinds["two"].made[0].audio).count(question) == 1
        assert [(item.role, item.text) for item in engine.history] == [
            ("user", "what is the weather"),
            ("agent", "You said: what is the weather"),
        ]
        assert seen.one(EventType.PROVIDER_SWITCHED).reason == "failover"
    assert {len(endings) for endings in seen.session_endings().values()} == {1}


@pytest.mark.parametrize(
    "fault",
    ["reset at=input:after_audio_ms=400", "close at=input:after_audio_ms=400 code=1011", "reset at=response"],
)
async def test_lost_connection_is_made_again_and_the_question_is_answered(fault: str) -> None:
    question = tone(1000, 1)
    async with call(fault, has_fallback=False) as (engine, seen, kinds, _):
        await speak(engine, question + silence(900), paced=True)
        await engine.wait_idle(timeout_s=20)

        assert seen.one(EventType.PROVIDER_SWITCHED).reason == "reconnect"
        assert bytes(kinds["one"].made[-1].audio).count(question) == 1
        assert engine.history.items[-1].text == "You said: what is the weather"
    assert {len(endings) for endings in seen.session_endings().values()} == {1}
