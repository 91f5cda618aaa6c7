"""A provider written as the provider guide writes one, over a socket: no decorator, no super(), no optional hook."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any, ClassVar

import pytest
import websockets
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from voxengine import BaseProvider, EventType
from voxengine.testing import LAWS, Outcome, ProviderConformance, Result, Settings, Subject, run_law

KEY = "key-of-the-guide"


class GuideProvider(BaseProvider):
    """Speaks to the service below."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.endpoint = config["metadata"]["endpoint"]
        self.api_key = config["api_key"]

    async def connect(self) -> None:
        headers = {"Api-Key": self.api_key}
        self.connection = await websockets.connect(self.endpoint, additional_headers=headers)
        await self.connection.send(json.dumps({"type": "session"}))
        self.start_task(self._handle_responses())
        self.emit_event(EventType.CONNECTION_ESTABLISHED, {"provider": "guide"})

    async def disconnect(self) -> None:
        if self.connection is None:
            return
        try:
            async with asyncio.timeout(2):
                await self.connection.close()
        except TimeoutError:  # A service that reads nothing keeps the library from saying goodbye.
            self.connection.transport.abort()

    async def send_audio(self, audio_data: bytes) -> None:
        await self.connection.send(json.dumps({"type": "audio", "audio": audio_data.hex()}))

    async def send_text(self, text: str) -> None:
        await self.connection.send(json.dumps({"type": "text", "text": text}))

    async def interrupt(self) -> None:  # type: ignore[override]
        await self.connection.send(json.dumps({"type": "interrupt"}))

    async def configure_session(self, config: dict[str, Any]) -> None:
        await self.connection.send(json.dumps({"type": "session", **config}))

    async def _handle_responses(self) -> None:
        async for raw in self.connection:
            message = json.loads(raw)
            if message["type"] == "transcription":
                data = {"text": message["text"], "is_partial": message.get("partial", False)}
                self.emit_event(EventType.TEXT_OUTPUT, data)
            elif message["type"] == "audio":
                audio = {"audio_data": bytes.fromhex(message["audio"]), "sample_rate": 24000}
                self.emit_event(EventType.AUDIO_OUTPUT_CHUNK, audio)


async def answer(socket: ServerConnection, n_words: int) -> None:
    words = ["word"] * n_words
    for n in range(1, n_words + 1):
        message = {"type": "transcription", "text": " ".join(words[:n]), "partial": n < n_words}
        await socket.send(json.dumps(message))
        await socket.send(json.dumps({"type": "audio", "audio": "0010" * 480}))
        await asyncio.sleep(0.02)


async def serve(socket: ServerConnection) -> None:
    """Answer each text, at length when asked for something long, until interrupted."""
    answering: asyncio.Task[None] | None = None
    try:
        async for raw in socket:
            message = json.loads(raw)
            if message["type"] in ("text", "interrupt") and answering is not None:
                answering.cancel()
            if message["type"] == "text":
                n_words = 100 if "long" in message["text"] else 3
                answering = asyncio.get_running_loop().create_task(answer(socket, n_words))
    finally:
        if answering is not None:
            answering.cancel()


def check_key(socket: ServerConnection, request: Request) -> Response | None:
    if request.headers.get("Api-Key") == KEY:
        return None
    return socket.respond(HTTPStatus.UNAUTHORIZED, "wrong key\n")


class PlainGuideProvider(GuideProvider):
    """Closes as the guide does, without a limit of its own: the library's pings end it."""

    async def disconnect(self) -> None:
        if self.connection is not None:
            await self.connection.close()


class EverlastingGuideProvider(GuideProvider):
    """Waits for a goodbye that never comes."""

    async def disconnect(self) -> None:
        if self.connection is not None:
            await self.connection.send(json.dumps({"type": "goodbye"}))
            await self.connection.close()


async def judged(kind: type[GuideProvider], settings: Settings) -> Result:
    async with websockets.serve(serve, "127.0.0.1", 0, process_request=check_key) as server:
        url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        config = {"api_key": KEY, "metadata": {"endpoint": url}}
        subject = Subject.of(kind(config), settings=settings)
        (law,) = (law for law in LAWS if law.name == "stalled_session_can_be_closed")
        return await run_law(law, subject)


@pytest.mark.slow
async def test_close_that_the_librarys_pings_end_is_in_time() -> None:
    result = await judged(PlainGuideProvider, Settings(quiet_s=0.1))

    assert (result.outcome, result.reason) == (Outcome.PASSED, "")


async def test_close_that_does_not_end_is_not() -> None:
    result = await judged(EverlastingGuideProvider, Settings(quiet_s=0.1, stalled_close_s=1.0))

    assert result.outcome is Outcome.FAILED
    assert "did not return within 1 s" in result.reason


class TestGuide(ProviderConformance):
    quiet_s: ClassVar[float] = 0.1
    silence_ms: ClassVar[int] = 100

    @pytest.fixture
    async def endpoint(self) -> AsyncIterator[str]:
        async with websockets.serve(serve, "127.0.0.1", 0, process_request=check_key) as server:
            yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"

    @pytest.fixture
    def provider(self, endpoint: str) -> BaseProvider:
        return GuideProvider({"api_key": KEY, "metadata": {"endpoint": endpoint}})
