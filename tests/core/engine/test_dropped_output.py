"""What an external player dropped, and a tool that would wait for itself."""

from __future__ import annotations

import asyncio
from typing import Any

from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.errors import UsageError
from voxengine.events import Event
from voxengine.testing import virtual

WORDS = "one two three four five six seven eight nine ten"


@virtual
async def test_answer_that_an_external_player_dropped_is_cut_at_what_it_played() -> None:
    config = VoiceEngineConfig(provider="mock", playback="external", metadata={"responses": {"go": WORDS}})
    async with VoiceEngine(config) as engine:
        chunks: list[Event] = []
        engine.events.on("audio_output_chunk", chunks.append)
        completed = asyncio.Event()
        engine.events.on("response_completed", lambda _: completed.set())
        await engine.send_text("go")
        await completed.wait()
        engine.mark_played(chunks[0].data["item_id"], 1000)

        engine.playback_cleared()
        await engine.wait_idle(timeout_s=10)

        answer = list(engine.history)[-1]
        assert (answer.status, answer.heard_ms, answer.heard_text) == ("incomplete", 1000, "one two three")


@virtual
async def test_tool_that_awaits_a_switch_is_told_at_once() -> None:
    answers: dict[str, Any] = {"go": {"tool": "move", "then": "It said {result}"}}
    engine = VoiceEngine(VoiceEngineConfig(provider="mock", metadata={"responses": answers}))
    errors: list[object] = []
    engine.events.on("function_call_failed", lambda event: errors.append(event.data["error"]))

    @engine.tool
    async def move() -> str:
        """Move to another provider."""
        await engine.switch_provider("mock")
        return "done"

    async with engine:
        await engine.send_text("go")
        await engine.wait_idle(timeout_s=20)
        epoch = engine.session.epoch if engine.session is not None else 0

    assert [type(error) for error in errors] == [UsageError]
    assert epoch == 1


@virtual
async def test_tool_may_start_a_switch_that_follows_its_result() -> None:
    answers: dict[str, Any] = {"go": {"tool": "move", "then": "It said {result}"}}
    engine = VoiceEngine(VoiceEngineConfig(provider="mock", metadata={"responses": answers}))
    switches: list[asyncio.Task[None]] = []

    @engine.tool
    async def move() -> str:
        """Move to another provider."""
        switches.append(asyncio.create_task(engine.switch_provider("mock")))
        return "done"

    async with engine:
        await engine.send_text("go")
        await engine.wait_idle(timeout_s=20)
        await switches[0]

        assert engine.session is not None
        assert engine.session.epoch == 2
