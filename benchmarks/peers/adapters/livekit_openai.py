"""The realtime model of LiveKit's OpenAI plug-in, without a room.

It groups five chunks into one message. Interrupt and truncate are called here, as its AgentSession would.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

import aiohttp
from livekit import rtc
from livekit.plugins.openai.realtime import RealtimeModel

PIP = ["livekit-agents", "livekit-plugins-openai"]
DISTS = ["livekit-agents", "livekit-plugins-openai", "livekit", "aiohttp"]
logging.getLogger("livekit").setLevel(logging.ERROR)
shared: dict[str, aiohttp.ClientSession] = {}


class Session:
    """One session of the model."""

    def __init__(self, sink: Any) -> None:
        self.sink = sink
        self.item = ""
        self.tasks: set[asyncio.Task[None]] = set()

    async def open(self, url: str) -> None:
        if not shared:
            shared["http"] = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        base = url.replace("ws", "http", 1) + "/v1"
        self.model = RealtimeModel(api_key="bench", base_url=base, http_session=shared["http"])
        self.session = self.model.session()
        self.ready = asyncio.get_running_loop().create_future()
        self.session.on("generation_created", lambda generation: self.spawn(self.play(generation)))
        self.session.on("input_speech_started", self.interrupt)
        self.session.on("openai_server_event_received", self.look)
        await self.ready

    def look(self, event: dict[str, Any]) -> None:
        if event["type"] == "session.updated" and not self.ready.done():
            self.ready.set_result(None)
            self.session.off("openai_server_event_received", self.look)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def play(self, generation: Any) -> None:
        async for message in generation.message_stream:
            self.item = message.message_id
            self.spawn(self.tell(message))
            async for frame in message.audio_stream:
                self.sink.audio(frame.data.tobytes())
            self.item = ""

    async def tell(self, message: Any) -> None:
        async for text in message.text_stream:
            self.sink.text(text)

    def interrupt(self, _: object) -> None:
        if self.item:
            self.sink.stop()
            self.session.interrupt()
            self.session.truncate(message_id=self.item, modalities=["audio"], audio_end_ms=100)

    async def send(self, pcm: bytes) -> None:
        self.session.push_audio(rtc.AudioFrame(pcm, 24000, 1, len(pcm) // 2))

    async def close(self) -> None:
        await self.session.aclose()
