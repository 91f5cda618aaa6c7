"""VoxEngine with its defaults: engine, history, journal and events, and the websockets client."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from voxengine import EventType, VoiceEngine, VoiceEngineConfig

PIP = ["voxengine", "voxengine-openai"]
DISTS = ["voxengine", "voxengine-openai", "websockets"]


class Session:
    """One engine."""

    transport: ClassVar[Literal["auto", "websockets", "picows"]] = "websockets"

    def __init__(self, sink: Any) -> None:
        self.sink = sink

    async def open(self, url: str) -> None:
        config = VoiceEngineConfig(
            provider="openai", api_key="bench", transport=self.transport, metadata={"url": url + "/v1"}
        )
        self.engine = VoiceEngine(config)
        self.engine.events.on(EventType.AUDIO_OUTPUT_CHUNK, lambda event: self.sink.audio(event.audio_data))
        self.engine.events.on(EventType.TEXT_OUTPUT, lambda event: self.sink.text(event.delta))
        self.engine.events.on(EventType.INTERRUPTED, lambda _: self.sink.stop())
        await self.engine.connect()

    async def send(self, pcm: bytes) -> None:
        await self.engine.send_audio(pcm)

    async def close(self) -> None:
        await self.engine.disconnect()
