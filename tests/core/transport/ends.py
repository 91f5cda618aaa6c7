"""The far ends that these tests talk to: a real server on loopback, a bare socket, and memory."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal, Protocol

import attrs
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from voxengine.codec import Wire
from voxengine.transport import MemoryListener, Transport, connect_websocket, websocket
from voxengine.transport.memory import MemoryOptions, MemoryTransport


class Far(Protocol):
    """What a test may do at the other end."""

    async def send(self, message: Wire) -> None: ...

    async def recv(self) -> Wire: ...

    async def close(self, code: int = 1000, reason: str = "") -> None: ...

    def abort(self) -> None: ...


class FarServer:
    """The server's end of a real WebSocket."""

    def __init__(self, ws: ServerConnection) -> None:
        self.ws = ws

    async def send(self, message: Wire) -> None:
        await self.ws.send(message)

    async def recv(self) -> Wire:
        return await self.ws.recv()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self.ws.close(code, reason)

    def abort(self) -> None:
        self.ws.transport.abort()


class FarMemory:
    """The server's end of a pair in memory."""

    def __init__(self, end: MemoryTransport) -> None:
        self.end = end

    async def send(self, message: Wire) -> None:
        await self.end.send(message)

    async def recv(self) -> Wire:
        return await self.end.recv()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self.end.close(code, reason)

    def abort(self) -> None:
        self.end._pair._reset()


@attrs.frozen
class Kind:
    """One implementation of the seam, and how to open it towards a far end."""

    name: str
    client: Literal["websockets", "picows"] = "websockets"
    is_memory: bool = False
    is_plain: bool = False

    @asynccontextmanager
    async def opened(
        self, *, max_message_bytes: int = 2**20, write_limit_bytes: int = 2**16, **options: Any
    ) -> AsyncIterator[tuple[Transport, Far]]:
        """A connection and its far end; both are gone afterwards."""
        if self.is_memory:
            limits = MemoryOptions(max_message_bytes=max_message_bytes, write_limit_bytes=write_limit_bytes)
            listener = MemoryListener(options=limits)
            client: Transport = await listener.connect(provider="acme", **options)
            yield client, FarMemory(await listener.accept())
            await client.close()
            await listener.close()
            return
        arrived: asyncio.Queue[ServerConnection] = asyncio.Queue()

        async def keep(ws: ServerConnection) -> None:
            arrived.put_nowait(ws)
            await ws.wait_closed()

        async with serve(keep, "127.0.0.1", 0, compression=None, ping_interval=None, max_size=None) as server:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(websocket, "_HAS_CALLBACKS", not self.is_plain)
                client = await connect_websocket(
                    f"ws://127.0.0.1:{port_of(server)}/path",
                    provider="acme",
                    max_message_bytes=max_message_bytes,
                    write_limit_bytes=write_limit_bytes,
                    transport=self.client,
                    **options,
                )
            try:
                yield client, FarServer(await arrived.get())
            finally:
                await client.close()


KINDS = [
    Kind("websocket"),
    Kind("picows", client="picows"),
    Kind("plain websocket", is_plain=True),
    Kind("memory", is_memory=True),
]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


async def fill(transport: Transport) -> int:
    """Send until the transport is paused; returns the number of accepted messages."""
    n = 0
    while transport.send_nowait(b"x" * 8192):
        n += 1
        await asyncio.sleep(0)
    return n


def port_of(server: Any) -> int:
    port: int = next(iter(server.sockets)).getsockname()[1]
    return port


@asynccontextmanager
async def bare_server(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[object]], **options: Any
) -> AsyncIterator[int]:
    """A TCP server that says what ``talk`` says; yields its port. Connections end with the block."""
    writers: list[asyncio.StreamWriter] = []
    tasks: list[asyncio.Task[None]] = []

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, ConnectionClosed):
            pass
        except asyncio.CancelledError:  # Only the block's end cancels; the streams would log it otherwise.
            pass

    server = await asyncio.start_server(meet, "127.0.0.1", 0, **options)
    try:
        yield port_of(server)
    finally:
        for _ in range(5):  # A connection that was just accepted reaches ``meet`` some rounds later.
            await asyncio.sleep(0)
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()


async def read_request(reader: asyncio.StreamReader) -> dict[str, str]:
    """The headers of a hand-shake's request, names in lower case, and the request line as ``""``."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    lines = head.split("\r\n")
    pairs = (line.split(": ", 1) for line in lines[1:] if line)
    return {"": lines[0]} | {name.lower(): value for name, value in pairs}


def upgrade(request: dict[str, str]) -> bytes:
    """The answer that opens the WebSocket."""
    key = request["sec-websocket-key"].encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(key).digest()).decode()
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"X-Request-Id: r-1\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    ).encode()


def frame(first: int, payload: bytes) -> bytes:
    """A frame as a server sends it; ``first`` holds the fin bit and the opcode."""
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65536:
        return bytes((first, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first, 127)) + size.to_bytes(8, "big") + payload


@asynccontextmanager
async def saying(*chunks: bytes, hang_up: bool = False) -> AsyncIterator[int]:
    """A server that opens the WebSocket and then writes ``chunks`` raw, each on its own."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(upgrade(await read_request(reader)))
        for chunk in chunks:
            writer.write(chunk)
            await writer.drain()
            for _ in range(4):  # Let the client read, so that chunks arrive apart.
                await asyncio.sleep(0)
        if not hang_up:
            await reader.read()

    async with bare_server(talk) as port:
        yield port


@asynccontextmanager
async def answering(response: bytes) -> AsyncIterator[int]:
    """A server that answers the hand-shake with ``response`` and hangs up."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(response)
        await writer.drain()
        writer.close()

    async with bare_server(talk) as port:
        yield port
