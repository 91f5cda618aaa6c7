"""What the tests of the harness share: raw clients, and an emulator with a bit of everything."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from voxengine.errors import ConnectionLost, RemoteProtocolError
from voxengine.testing.emulator import (
    Emulator,
    EmulatorSession,
    HttpRequest,
    HttpResponse,
    HttpRoute,
    SessionHandler,
)
from voxengine_mock.harness import Server, serve

UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
)
BEARER = "Authorization: Bearer sk-drive\r\n"


def upgrade(path: str = "/echo", more: str = BEARER) -> bytes:
    return UPGRADE.format(path=path, more=more).encode()


class EchoEmulator(Emulator):
    """Says everything back; ``boom`` is a bug of it."""

    name: ClassVar[str] = "echo"
    url_path: ClassVar[str] = "/echo"
    subprotocols: ClassVar[tuple[str, ...]] = ("realtime", "v1.acme")
    alpn: ClassVar[tuple[str, ...]] = ("x-shout", "http/1.1")
    default_script: ClassVar[Mapping[str, Any]] = {"pace": 7, "responses": {"hi": "from the default"}}

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.ended: list[tuple[int, str | None, int | None]] = []

    def websocket_routes(self) -> Mapping[str, SessionHandler]:
        return {"/echo": self._echo, "/v1/*": self._echo}

    def http_routes(self) -> Mapping[tuple[str, str], HttpRoute]:
        return {
            ("POST", "/v1/client_secrets"): HttpRoute(self._secret),
            ("GET", "/open"): HttpRoute(self._open, needs_key=False),
            ("GET", "/broken"): HttpRoute(self._broken, needs_key=False),
        }

    def make_protocol(self, alpn: str) -> asyncio.Protocol:
        return Shout()

    async def _secret(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse.of_json({"got": request.json(), "n": len(request.body)}, x_request_id="r-1")

    async def _open(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse.of_json({"query": dict(request.query)})

    async def _broken(self, _: HttpRequest) -> HttpResponse:
        raise RuntimeError("a bug in the emulator")

    async def _echo(self, session: EmulatorSession) -> None:
        try:
            while True:
                message = await session.recv()
                if message == "boom":
                    raise RuntimeError("a bug in the emulator")
                if message == "bye":
                    return
                await session.send(message)
        except (ConnectionLost, RemoteProtocolError) as error:
            self.ended.append((session.number, session.subprotocol, error.close_code))
            raise


class Shout(asyncio.Protocol):
    """A protocol that is not HTTP: says what it gets in capitals."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data.upper())


@asynccontextmanager
async def echoing(**options: Any) -> AsyncIterator[tuple[Server, EchoEmulator]]:
    keys = ("key", "script", "speed", "faults")
    emulator = EchoEmulator(**{key: options.pop(key) for key in keys if key in options})
    async with serve(emulator, **options) as server:
        yield server, emulator


@asynccontextmanager
async def raw(
    server: Server, **options: Any
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection on which anything can be said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, **options)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def ask(server: Server, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send a request and return status, headers and body of the answer."""
    async with raw(server) as (reader, writer):
        writer.write(request)
        async with asyncio.timeout(20):
            answer = await reader.read()
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
    return int(first.split()[1]), headers, body


async def until_left(server: Server, n_open: int = 0) -> None:
    """Wait until only so many connections are open."""
    async with asyncio.timeout(20):
        await server.until_open(n_open)
