"""The yardstick: websockets, json and base64, and nothing else."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

from websockets.asyncio.client import connect

PIP = ["websockets"]
DISTS = ["websockets"]


class Session:
    """One connection."""

    def __init__(self, sink: Any) -> None:
        self.sink = sink
        self.item = ""

    async def open(self, url: str) -> None:
        self.ws = await connect(url + "/v1/realtime?model=gpt-realtime", compression=None, max_size=None)
        self.ready = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self.read())
        await self.ws.send(json.dumps({"type": "session.update", "session": {"type": "realtime"}}))
        await self.ready

    async def read(self) -> None:
        async for message in self.ws:
            event = json.loads(message)
            kind = event["type"]
            if kind == "response.output_audio.delta":
                self.item = event["item_id"]
                self.sink.audio(base64.b64decode(event["delta"]))
            elif kind == "response.output_audio_transcript.delta":
                self.sink.text(event["delta"])
            elif kind == "input_audio_buffer.speech_started" and self.item:
                self.sink.stop()
                cut = {"item_id": self.item, "content_index": 0, "audio_end_ms": 100}
                await self.ws.send(json.dumps({"type": "conversation.item.truncate", **cut}))
                self.item = ""
            elif kind == "response.done":
                self.item = ""
            elif kind == "session.updated":
                self.ready.set_result(None)

    async def send(self, pcm: bytes) -> None:
        audio = base64.b64encode(pcm).decode()
        await self.ws.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))

    async def close(self) -> None:
        await self.ws.close()
