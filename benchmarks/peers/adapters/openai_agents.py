"""The OpenAI Agents SDK: a realtime session with its own handling of interruptions."""

from __future__ import annotations

import asyncio
from typing import Any

from agents.realtime import RealtimeAgent, RealtimeRunner

PIP = ["openai-agents"]
DISTS = ["openai-agents", "openai", "websockets", "pydantic"]


class Session:
    """One session of the runner."""

    def __init__(self, sink: Any) -> None:
        self.sink = sink

    async def open(self, url: str) -> None:
        model = {
            "url": url + "/v1/realtime?model=gpt-realtime",
            "api_key": "bench",
            "initial_model_settings": {"model_name": "gpt-realtime", "tracing": None},
        }
        self.session = await RealtimeRunner(RealtimeAgent(name="bench", instructions="hi")).run(
            model_config=model
        )
        self.ready = asyncio.get_running_loop().create_future()
        await self.session.enter()
        self.task = asyncio.create_task(self.read())
        await self.ready

    async def read(self) -> None:
        async for event in self.session:
            if event.type == "audio":
                self.sink.audio(event.audio.data)
            elif event.type == "audio_interrupted":
                self.sink.stop()
            elif event.type == "raw_model_event":
                data = event.data
                if data.type == "transcript_delta":
                    self.sink.text(data.delta)
                elif (
                    data.type == "raw_server_event"
                    and data.data["type"] == "session.updated"
                    and not self.ready.done()
                ):
                    self.ready.set_result(None)

    async def send(self, pcm: bytes) -> None:
        await self.session.send_audio(pcm)

    async def close(self) -> None:
        await self.session.close()
