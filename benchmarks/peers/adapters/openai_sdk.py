"""The official SDK: a connection of AsyncOpenAI and its typed events."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from openai import AsyncOpenAI

PIP = ["openai[realtime]"]
DISTS = ["openai", "websockets", "pydantic"]
clients: dict[str, AsyncOpenAI] = {}


class Session:
    """One connection; the HTTP client is shared, as its authors advise."""

    def __init__(self, sink: Any) -> None:
        self.sink = sink
        self.item = ""

    async def open(self, url: str) -> None:
        if url not in clients:
            clients[url] = AsyncOpenAI(api_key="bench", websocket_base_url=url + "/v1")
        self.connection = await clients[url].realtime.connect(model="gpt-realtime").enter()
        self.ready = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self.read())
        await self.connection.session.update(session={"type": "realtime"})
        await self.ready

    async def read(self) -> None:
        async for event in self.connection:
            if event.type == "response.output_audio.delta":
                self.item = event.item_id
                self.sink.audio(base64.b64decode(event.delta))
            elif event.type == "response.output_audio_transcript.delta":
                self.sink.text(event.delta)
            elif event.type == "input_audio_buffer.speech_started" and self.item:
                self.sink.stop()
                item = self.connection.conversation.item
                await item.truncate(item_id=self.item, content_index=0, audio_end_ms=100)
                self.item = ""
            elif event.type == "response.done":
                self.item = ""
            elif event.type == "session.updated":
                self.ready.set_result(None)

    async def send(self, pcm: bytes) -> None:
        await self.connection.input_audio_buffer.append(audio=base64.b64encode(pcm).decode())

    async def close(self) -> None:
        await self.connection.close()
