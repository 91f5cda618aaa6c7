"""A provider of your own: a class with six methods, here for a service that repeats what it is told."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import websockets

from voxengine import BaseProvider, EventType, VoiceEngine, VoiceEngineConfig, register_provider


class EchoProvider(BaseProvider):
    """Talks to the service below. Everything else is the engine's work."""

    async def connect(self) -> None:
        self.connection = await websockets.connect(self.config["metadata"]["url"])
        self.start_task(self.read())

    async def disconnect(self) -> None:
        if self.connection is not None:
            await self.connection.close()

    async def send_audio(self, audio_data: bytes) -> None:
        await self.connection.send(audio_data)

    async def send_text(self, text: str) -> None:
        await self.connection.send(json.dumps({"type": "text", "text": text}))

    async def interrupt(self, heard: Any = None) -> None:
        await self.connection.send(json.dumps({"type": "stop"}))

    async def configure_session(self, config: dict[str, Any]) -> None:
        await self.connection.send(json.dumps({"type": "configure", **config}))

    async def read(self) -> None:
        """Turn the service's messages into events."""
        async for message in self.connection:
            self.emit_event(EventType.TEXT_OUTPUT, {"text": json.loads(message)["text"], "is_partial": False})


async def service(socket: Any) -> None:
    """The service: answers each text."""
    async for message in socket:
        text = json.loads(message).get("text")
        await socket.send(json.dumps({"text": f"I heard: {text}"}))


async def main() -> None:
    """Start the service on this machine and talk to it."""
    register_provider("echo", EchoProvider)
    async with websockets.serve(service, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        config = VoiceEngineConfig(provider="echo", metadata={"url": f"ws://127.0.0.1:{port}"})
        async with VoiceEngine(config) as engine:
            engine.events.on("text_output", lambda event: print("echo:", event.text))
            await engine.send_text("Is anybody there?")
            await engine.wait_idle()


asyncio.run(main())
