"""One accepted connection: reads the HTTP request, then answers it or becomes a WebSocket.

It is small on purpose: one request for each connection, a body only with ``Content-Length``, and a deadline
and a bound for everything that a client can send.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from voxengine.testing.emulator import HttpRequest, HttpResponse
from voxengine_mock.server_socket import ServerSocket, cut, library_logger

__all__ = ["Front", "House"]

MAX_HEAD_BYTES: Final = 16 * 2**10
MAX_HEADERS: Final = 100
MAX_BODY_BYTES: Final = 2**20
_MAX_EARLY_BYTES: Final = 64 * 2**10
"""What a client may send before its request is answered."""
_WRITE_LIMIT_BYTES: Final = 64 * 2**10
_HANG_UP_S: Final = 2.0

_REQUEST_LINE: Final = re.compile(rb"([A-Z]{1,20}) ([!-~]{1,8000}) HTTP/(\d)\.(\d)")
_HEADER_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}")


class House(Protocol):
    """What the connections of one server share."""

    handshake_s: float
    max_message_bytes: int
    subprotocols: tuple[str, ...]

    def arrived(self, front: Front) -> HttpResponse | None:
        """Count a connection; return an answer to refuse it with."""

    def refused(self, status: int, request: HttpRequest | None) -> None:
        """Note that a request was refused; None when it could not be read."""

    def left(self, front: Front) -> None:
        """A connection is gone."""

    def other_protocol(self, alpn: str) -> asyncio.Protocol:
        """Return what serves a connection that is not HTTP/1.1."""

    async def meet(self, front: Front, request: HttpRequest) -> None:
        """Serve a request; called in a task of the connection's own."""

    def start_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a connection's task."""


class _BadRequest(Exception):
    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Front(asyncio.Protocol):
    """A connection from its first byte to its last."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._head = b""
        self._request: HttpRequest | None = None
        self._n_body = 0
        self._take: Callable[[bytes], None] = self._take_head
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._other: asyncio.Protocol | None = None
        self._is_left = False
        self.socket: ServerSocket | None = None

    transport: asyncio.Transport

    # -- the network's calls ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(_WRITE_LIMIT_BYTES, _WRITE_LIMIT_BYTES // 4)
        refusal = self._house.arrived(self)
        if refusal is not None:
            self.respond(refusal)
            return
        tls = transport.get_extra_info("ssl_object")
        alpn = None if tls is None else tls.selected_alpn_protocol()
        if alpn not in (None, "http/1.1"):
            self._other = self._house.other_protocol(alpn)
            self._other.connection_made(transport)
            return
        self._timer = self._loop.call_later(self._house.handshake_s, self._too_slow)

    def data_received(self, data: bytes) -> None:
        if self._other is not None:
            self._other.data_received(data)
        else:
            self._take(data)

    def eof_received(self) -> bool | None:
        if self._other is not None:
            return self._other.eof_received()
        if self.socket is not None:
            self.socket.eof_received()
        return False

    def pause_writing(self) -> None:
        if self._other is not None:
            self._other.pause_writing()
        elif self.socket is not None:
            self.socket.pause_writing()

    def resume_writing(self) -> None:
        if self._other is not None:
            self._other.resume_writing()
        elif self.socket is not None:
            self.socket.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timer()
        self._buffer.clear()
        if self._other is not None:
            self._other.connection_lost(exc)
        elif self.socket is not None:
            self.socket.connection_lost(exc)
        elif self._task is not None:
            self._task.cancel()
        self._house.left(self)

    # -- the request ------------------------------------------------------------------------------

    def _take_head(self, data: bytes) -> None:
        searched = max(0, len(self._buffer) - 3)
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n", searched)
        try:
            if not 65 <= self._buffer[0] <= 90:
                raise _BadRequest(400, "This is no HTTP request.")
            if end < 0 and len(self._buffer) <= MAX_HEAD_BYTES:
                return
            if end < 0 or end > MAX_HEAD_BYTES:
                raise _BadRequest(431, "The head of the request is too long.")
            self._head = bytes(self._buffer[: end + 4])
            request = _parse(self._head)
            self._n_body = _body_length(request)
        except _BadRequest as error:
            self._refuse(error)
            return
        self._request = request
        rest = bytes(self._buffer[end + 4 :])
        self._buffer.clear()
        if self._n_body and request.headers.get("expect", "").lower() == "100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._take = self._take_body
        self._take_body(rest)

    def _take_body(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) < self._n_body:
            return
        assert self._request is not None
        request = HttpRequest(
            method=self._request.method,
            target=self._request.target,
            headers=self._request.headers,
            body=bytes(self._buffer[: self._n_body]),
        )
        del self._buffer[: self._n_body]
        self._cancel_timer()
        self._take = self._take_early
        self._task = self._house.start_task(self._house.meet(self, request))
        self._take_early(b"")

    def _take_early(self, data: bytes) -> None:
        # Read on, so that a client that leaves is noticed; but keep little.
        self._buffer += data
        if len(self._buffer) > _MAX_EARLY_BYTES:
            self.transport.abort()

    def _take_nothing(self, data: bytes) -> None:
        """Drop what comes after the answer."""

    def _refuse(self, error: _BadRequest) -> None:
        self._house.refused(error.status, self._request)
        self.respond(HttpResponse(status=error.status, body=f"{error}\n".encode()))

    def _too_slow(self) -> None:
        self._refuse(_BadRequest(408, "The request did not arrive in time."))

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- the answer -------------------------------------------------------------------------------

    def respond(self, response: HttpResponse) -> None:
        """Answer the request and hang up."""
        try:
            phrase = HTTPStatus(response.status).phrase
        except ValueError:
            phrase = "Status"
        headers = {**response.headers, "Content-Length": str(len(response.body)), "Connection": "close"}
        head = f"HTTP/1.1 {response.status} {phrase}\r\n"
        head += "".join(f"{name}: {_one_line(value)}\r\n" for name, value in headers.items())
        is_head = self._request is not None and self._request.method == "HEAD"
        self.write_and_close(head.encode() + b"\r\n" + (b"" if is_head else response.body))

    def write_and_close(self, data: bytes) -> None:
        """Write anything and hang up, with a deadline."""
        self._take = self._take_nothing
        self._buffer.clear()
        self._cancel_timer()
        if self.transport.is_closing():
            return
        self.transport.write(data)
        if self.transport.can_write_eof():
            # The client closes when it has read the answer. Closing first would reset a connection on which
            # it is still sending, and take the answer with it.
            self.transport.write_eof()
        else:
            self.transport.close()
        self._timer = self._loop.call_later(_HANG_UP_S, self.transport.abort)

    def cut(self) -> None:
        """Hang up without an answer."""
        cut(self.transport)

    def upgrade(self) -> ServerProtocol | None:
        """Do the WebSocket hand-shake; None when the request is no valid one and was refused."""
        wanted = [Subprotocol(name) for name in self._house.subprotocols]
        protocol = ServerProtocol(
            select_subprotocol=lambda _, offered: next((name for name in wanted if name in offered), None),
            max_size=self._house.max_message_bytes,
            logger=library_logger,
        )
        protocol.receive_data(self._head)
        status = 0
        for event in protocol.events_received():
            if isinstance(event, Request):
                response = protocol.accept(event)
                protocol.send_response(response)
                status = response.status_code
        data = b"".join(protocol.data_to_send())
        if status == 0:  # The library could not read what was read here.
            self._refuse(_BadRequest(400, "This is no valid hand-shake."))
            return None
        if status != 101:
            self._house.refused(status, self._request)
            self.write_and_close(data)
            return None
        self.transport.write(data)
        return protocol

    def become(self, socket: ServerSocket) -> None:
        """Hand all further data to the WebSocket."""
        self.socket = socket
        self._take = socket.data_received
        early = bytes(self._buffer)
        self._buffer.clear()
        if early:
            socket.data_received(early)


def _one_line(text: str) -> str:
    return re.sub(r"[\r\n\0]", " ", text)


def _parse(head: bytes) -> HttpRequest:
    first, *lines = head[:-4].split(b"\r\n")
    line = _REQUEST_LINE.fullmatch(first)
    if line is None:
        raise _BadRequest(400, "The first line is no HTTP request.")
    if line[3] != b"1":
        raise _BadRequest(505, "Only HTTP/1.1 is spoken here.")
    if len(lines) > MAX_HEADERS:
        raise _BadRequest(431, "The request has too many headers.")
    headers: dict[str, str] = {}
    for text in lines:
        raw_name, colon, raw_value = text.partition(b":")
        if not colon or not _HEADER_NAME.fullmatch(raw_name) or any(c in raw_value for c in b"\r\n\0"):
            raise _BadRequest(400, "A header is malformed.")
        name, value = raw_name.decode("ascii").lower(), raw_value.strip(b" \t").decode("latin-1")
        if name in headers and name in ("content-length", "host", "authorization"):
            raise _BadRequest(400, f"The header {name} comes twice.")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    target = line[2].decode()
    try:
        urlsplit(target)
    except ValueError:
        raise _BadRequest(400, "The target of the request is no address.") from None
    return HttpRequest(method=line[1].decode(), target=target, headers=headers)


def _body_length(request: HttpRequest) -> int:
    if "transfer-encoding" in request.headers:
        raise _BadRequest(411, "A body needs Content-Length here.")
    text = request.headers.get("content-length", "0")
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise _BadRequest(400, "Content-Length is no number.")
    if int(text) > MAX_BODY_BYTES:
        raise _BadRequest(413, f"A body has at most {MAX_BODY_BYTES} bytes.")
    return int(text)
