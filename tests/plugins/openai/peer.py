"""A service by hand: the server end of the codec on a pair in memory, and a provider that dials it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from tests.plugins.mock.support import Recorder
from tests.plugins.openai.sdk_types import check_client
from voxengine.codec import Role
from voxengine.errors import ConnectionLost, NotConnected
from voxengine.transport import MemoryTransport, memory_pair
from voxengine_openai import CustomProvider, OpenAIProvider, RealtimeCodec
from voxengine_openai.codec import GA, Append, AudioDelta, RealtimeMessage
from voxengine_openai.session_settings import deep_merged

__all__ = ["DialledCustom", "DialledProvider", "Peer", "Recorder", "session"]

SESSION: dict[str, Any] = {
    "type": "realtime",
    "object": "realtime.session",
    "id": "sess_1",
    "model": "gpt-realtime-2.1",
    "output_modalities": ["audio"],
    "audio": {
        "input": {"format": {"type": "audio/pcm", "rate": 24_000}, "turn_detection": {"type": "server_vad"}},
        "output": {"format": {"type": "audio/pcm", "rate": 24_000}, "voice": "alloy", "speed": 1.0},
    },
}


class Peer:
    """Answers what a service always answers, keeps what came, and says what a test wants."""

    def __init__(self, dialect: Any = GA) -> None:
        self.pair = memory_pair(provider="openai")
        self.codec = RealtimeCodec(Role.SERVER, lambda prefix: f"{prefix}{next(self._numbers)}", dialect)
        self.got: list[RealtimeMessage | Append] = []
        self.texts: list[str] = []
        self.session: dict[str, Any] = dict(SESSION)
        self.refuses: Callable[[RealtimeMessage], Mapping[str, Any] | None] = lambda message: None
        self.is_mute = False
        self.takes_items = True
        self._numbers = iter(range(10**9))
        self._changed = asyncio.Event()

    @property
    def connection(self) -> MemoryTransport:
        return self.pair.server

    async def serve(self) -> None:
        if self.is_mute:
            return
        await self.say("session.created", session=self.session)
        with contextlib.suppress(ConnectionLost, NotConnected):
            async for wire in self.connection:
                assert isinstance(wire, str)
                self.texts.append(wire)
                for message in self.codec.decode(wire, 0.0):
                    assert isinstance(message, RealtimeMessage | Append), message
                    await self.take(message)

    async def take(self, message: RealtimeMessage | Append) -> None:
        self.got.append(message)
        self._changed.set()
        if isinstance(message, Append):
            return
        error = self.refuses(message)
        if error is not None:
            await self.say("error", error={"event_id": message.fields.get("event_id"), **error})
        elif message.name == "session.update":
            self.session = deep_merged(self.session, message.fields["session"])
            await self.say("session.updated", session=self.session)
        elif message.name == "conversation.item.create" and self.takes_items:
            item = {"id": "item_s", **message.fields["item"]}
            await self.say("conversation.item.added", item=item, previous_item_id=None)
            await self.say("conversation.item.done", item=item, previous_item_id=None)

    async def say(self, name: str, /, **fields: Any) -> None:
        message = RealtimeMessage(name, {"event_id": self.codec.new_id("event_"), **fields})
        for wire in self.codec.encode(message):
            await self.connection.send(wire)

    async def say_audio(self, ms: int, *, response: str = "resp_1", item: str = "item_1") -> None:
        pcm = (b"\x10\x20" * (24 * ms))[: 48 * ms]
        delta = AudioDelta(response, item, base64.b64encode(pcm).decode())
        for wire in self.codec.encode(delta):
            await self.connection.send(wire)

    async def begin(self, response: str = "resp_1", **fields: Any) -> None:
        values = {
            "id": response,
            "status": "in_progress",
            "conversation_id": "conv_1",
            "output": [],
            **fields,
        }
        await self.say("response.created", response=values)

    async def finish(self, response: str = "resp_1", status: str = "completed", **fields: Any) -> None:
        values = {"id": response, "status": status, "conversation_id": "conv_1", "output": [], **fields}
        await self.say("response.done", response=values)

    async def words(self, text: str, *, response: str = "resp_1", item: str = "item_1") -> None:
        place = {"response_id": response, "item_id": item, "output_index": 0, "content_index": 0}
        await self.say("response.output_audio_transcript.delta", delta=text, **place)

    async def call(self, call_id: str, name: str, arguments: str, *, response: str = "resp_1") -> None:
        await self.say(
            "response.function_call_arguments.done",
            response_id=response,
            item_id=f"item_{call_id}",
            output_index=0,
            call_id=call_id,
            name=name,
            arguments=arguments,
        )

    def names(self) -> list[str]:
        """What came after the session was set up, appends left out."""
        return [message.name for message in self.got[1:] if isinstance(message, RealtimeMessage)]

    def of(self, name: str) -> list[dict[str, Any]]:
        return [m.fields for m in self.got if isinstance(m, RealtimeMessage) and m.name == name]

    @property
    def audio(self) -> bytes:
        return b"".join(message.audio for message in self.got if isinstance(message, Append))

    async def until(self, is_so: Callable[[], bool], limit_s: float = 20.0) -> None:
        async with asyncio.timeout(limit_s):
            while not is_so():
                self._changed.clear()
                await self._changed.wait()

    async def wait(self, name: str, n: int = 1) -> dict[str, Any]:
        await self.until(lambda: len(self.of(name)) >= n)
        return self.of(name)[n - 1]

    def check(self) -> None:
        """Let the official types judge everything that the provider sent."""
        for text in self.texts:
            check_client(text)


class DialledProvider(OpenAIProvider):
    peer: Peer

    async def _dial(self, endpoint: Any, deadlines: Any) -> Any:
        self.dialled = endpoint
        return self.peer.pair.client


class DialledCustom(CustomProvider):
    peer: Peer

    async def _dial(self, endpoint: Any, deadlines: Any) -> Any:
        self.dialled = endpoint
        return self.peer.pair.client


@asynccontextmanager
async def session(
    *, kind: Any = DialledProvider, is_checked: bool = True, peer: Peer | None = None, **config: Any
) -> AsyncIterator[tuple[Any, Peer, Recorder]]:
    """An open session, its peer and its events. At the end the official types judge what the provider sent."""
    peer = peer or Peer()
    provider = kind({"api_key": "sk-test-0123456789", **config})
    provider.peer = peer
    recorder = Recorder()
    provider.on_event = recorder
    serving = asyncio.create_task(peer.serve())
    try:
        await provider.connect()
        yield provider, peer, recorder
    finally:
        await provider.disconnect()
        await peer.connection.close()
        await serving
    if is_checked:
        peer.check()
