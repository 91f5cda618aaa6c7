"""The realtime session of OpenAI's Agents SDK holds a conversation with the emulator, and notices nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.plugins.mock.support import silence, voice_saying
from tests.witnesses.conftest import witness
from voxengine_mock.harness import Server, serve
from voxengine_openai.emulator import OpenAIEmulator

agents: Any = witness("agents")
realtime: Any = witness("agents.realtime")

LIMIT_S = 20.0
"""For one step. It is reached only when somebody owes an event."""
SCRIPT: dict[str, Any] = {
    "delay_ms": 0,
    "hears": ["What is the weather in Lisbon?", "Wait a moment."],
    "responses": {
        "*weather*": {
            "tool": "get_weather",
            "arguments": {"city": "Lisbon"},
            "then": "It is {result.sky} in {result.city}.",
        },
        "*moment*": "Of course.",
    },
}
SETTINGS: dict[str, Any] = {
    "model_name": "gpt-realtime",
    "voice": "marin",
    "turn_detection": {"type": "server_vad", "interrupt_response": True},
    "input_audio_transcription": {"model": "gpt-4o-mini-transcribe"},
}


class Conversation:
    """A session of the SDK, what it told so far, and what it made the emulator see."""

    def __init__(self, session: Any, log: Path) -> None:
        self.session = session
        self.events: list[Any] = []
        self._log = log
        self._reading = asyncio.create_task(self._read())
        self._changed = asyncio.Event()

    async def _read(self) -> None:
        async for event in self.session:
            self.events.append(event)
            self._changed.set()

    async def close(self) -> None:
        await self._reading

    async def say(self, text: str) -> None:
        """Speak, and be silent for long enough."""
        for chunk in (await voice_saying(text), silence(800)):
            for start in range(0, len(chunk), 4800):
                await self.session.send_audio(chunk[start : start + 4800])

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    def of(self, kind: str) -> list[Any]:
        return [event for event in self.events if event.type == kind]

    def texts(self, role: str) -> list[str]:
        """Texts and transcripts of the history, as the SDK has it."""
        return [
            str(getattr(part, "transcript", None) or getattr(part, "text", None) or "")
            for item in self.session._history
            if getattr(item, "role", None) == role
            for part in item.content
        ]

    def received(self, name: str) -> list[dict[str, Any]]:
        """Messages of the client, as the emulator read them."""
        lines = [json.loads(line) for line in self._log.read_text("utf-8").splitlines()]
        return [line for line in lines if line["event"] == "message" and line["name"] == name]


@asynccontextmanager
async def conversing(server: Server, log: Path, tools: list[Any]) -> AsyncIterator[Conversation]:
    """A session of the SDK against the emulator."""
    agent = realtime.RealtimeAgent(name="Guide", instructions="You are brief.", tools=tools)
    runner = realtime.RealtimeRunner(
        starting_agent=agent, config={"model_settings": SETTINGS, "tracing_disabled": True}
    )
    where = {"url": f"{server.url}/realtime?model=gpt-realtime", "api_key": "sk-drive"}
    session = await runner.run(model_config=where)
    async with session:
        conversation = Conversation(session, log)
        yield conversation
    await conversation.close()


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A function in the SDK's own wrapping."""
    monkeypatch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")
    agents.set_tracing_disabled(True)

    def get_weather(city: str) -> dict[str, str]:
        """Say how the weather is."""
        return {"city": city, "sky": "sunny"}

    return [agents.function_tool(get_weather)]


async def test_it_holds_a_whole_conversation(tools: list[Any], tmp_path: Path) -> None:
    log = tmp_path / "received.jsonl"
    async with serve(OpenAIEmulator(script=SCRIPT, speed=5), log=str(log)) as server:
        async with conversing(server, log, tools) as talk:
            await talk.say("what is the weather in Lisbon")
            await talk.until(lambda: bool(talk.of("audio_end")))

            assert talk.texts("user") == ["What is the weather in Lisbon?"]
            (call,) = talk.of("tool_end")
            assert (call.tool.name, json.loads(call.arguments)) == ("get_weather", {"city": "Lisbon"})
            assert talk.texts("assistant") == ["It is sunny in Lisbon."]
            sound = b"".join(event.audio.data for event in talk.of("audio"))
            assert max(memoryview(sound).cast("h")) > 3000

            n_before = len(talk.of("audio"))
            await talk.session.send_message("Tell me a long story.")
            await talk.until(lambda: len(talk.of("audio")) > n_before + 3)
            await talk.say("wait a moment")
            await talk.until(
                lambda: len(talk.of("audio_end")) > 1 and "Of course." in talk.texts("assistant")
            )

            assert talk.of("audio_interrupted")
            assert talk.of("error") == []
        assert len(talk.received("conversation.item.truncate")) == 1
        assert talk.texts("user") == [
            "What is the weather in Lisbon?",
            "Tell me a long story.",
            "Wait a moment.",
        ]
