"""The WebSocket transport, over the ``websockets`` asyncio client (15, 16 and 17).

The library does the hand-shake, the closing hand-shake, control frames, fragments and every violation of the
protocol. Two things are done here because they are the cost of every 20 ms chunk: a whole message going out
is framed and written without a coroutine (:mod:`voxengine.transport.framed`), and a whole message coming in
is cut out of the received data without the library's parser. Both hang on the asyncio protocol callbacks of
a ``ClientConnection`` subclass, which ``create_connection=`` is documented for. Should a release of the
library not have those callbacks, :class:`_PlainTransport` does the same work through ``send`` and ``recv``
alone, at their cost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State

from voxengine.codec import Wire
from voxengine.transport import outcomes
from voxengine.transport.framed import MAX_FRAGMENTS, WebSocketTransport
from voxengine.transport.handshake import Dial, connect_error

__all__ = ["LibraryTransport", "open_websocket"]

_CALLBACKS = ("connection_made", "connection_lost", "data_received", "pause_writing", "resume_writing")
_HAS_CALLBACKS = all(
    callable(getattr(ClientConnection, name, None)) for name in (*_CALLBACKS, "process_event")
)

# The library logs whole headers and payloads at DEBUG, keys and speech among them. It gets a logger that
# only an explicit level on this very name can open.
_library_logger = logging.getLogger("voxengine.transport.websockets_library")
if _library_logger.level == logging.NOTSET:
    _library_logger.setLevel(logging.WARNING)


async def open_websocket(dial: Dial, deadline: float) -> WebSocketTransport:
    """Open it by ``deadline`` on the loop's clock; errors are those of ``connect_websocket``."""
    options: dict[str, Any] = {
        "additional_headers": dial.headers,
        "user_agent_header": dial.user_agent,
        "subprotocols": list(dial.subprotocols) or None,
        "compression": None,
        "open_timeout": None,
        "close_timeout": dial.close_s,
        "max_size": dial.max_message_bytes,
        "write_limit": (dial.write_limit_bytes, dial.write_limit_bytes // 4),
        "logger": _library_logger,
        "proxy": dial.proxy,
        "ping_interval": None,
    }
    if dial.ssl is not None:
        options["ssl"] = dial.ssl
    kind = LibraryTransport if _HAS_CALLBACKS else _PlainTransport
    transport = kind(dial.target, on_wire=dial.on_wire, close_s=dial.close_s, limits=dial.limits)
    options |= transport._connection_options(dial.max_message_bytes)
    try:
        async with asyncio.timeout_at(deadline):
            ws = await connect(dial.url, **options)
    except _Rejected as exc:
        response = exc.response
        fields = response.headers.raw_items()
        raise outcomes.rejected(
            dial.target, response.status_code, fields, bytes(response.body or b"")
        ) from None
    except Exception as exc:
        # The chain is cut: the library's exceptions quote URLs with their queries.
        raise connect_error(exc, dial.target, dial.host, dial.handshake_s) from None
    transport._made(ws)
    return transport


class _GuardedConnection(ClientConnection):
    """Refuses redirects: the library would follow them with every custom header still on."""

    async def handshake(self, *args: Any, **kwargs: Any) -> None:
        try:
            await super().handshake(*args, **kwargs)
        except InvalidStatus as exc:
            raise _Rejected(exc.response) from None


class _Rejected(Exception):
    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


class _CuttingConnection(_GuardedConnection):
    """Cuts whole messages out of the received data; everything else takes the library's way.

    The library's parser is only ever given whole frames, so it always stands at a frame boundary and the
    two cannot disagree about where a frame starts.
    """

    def __init__(self, protocol: Any, *, owner: LibraryTransport, max_bytes: int, **kwargs: Any) -> None:
        super().__init__(protocol, **kwargs)
        self._owner = owner
        self._max_bytes = max_bytes
        self._head: bytearray | None = bytearray()  # The HTTP answer while it is incomplete.
        self._cutting = False
        self._rest = bytearray()  # The start of an incomplete frame, of which _need bytes are needed.
        self._need = 0
        self._parts: list[bytes] = []  # The fragments of a message.
        self._in_fragments = False
        self._is_text = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._owner._socket = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._owner._connection_lost(self.protocol.close_exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._owner._set_paused(True)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._owner._writing_resumed()

    def data_received(self, data: bytes) -> None:
        self._owner._heard_at = self.loop.time()
        if not self._cutting:
            self._before_frames(data)
            return
        start = 0
        while self._rest:  # Complete the frame that the last data ended in, without copying what follows it.
            end = start + self._need - len(self._rest)
            self._rest += data[start:end]
            start = end
            if len(self._rest) < self._need:
                return
            frame = bytes(self._rest)
            self._rest.clear()
            self._rest += frame[self._cut(frame, 0) :]  # Not empty when only its length was known now.
        if self._is_handed_over():
            if start < len(data):
                super().data_received(data[start:])
            return
        self._rest += data[self._cut(data, start) :]

    def _is_handed_over(self) -> bool:
        return not self._cutting

    def _before_frames(self, data: bytes) -> None:
        head = self._head
        if head is None:  # The answer was no 101, or the frames are over: all is the library's.
            super().data_received(data)
            return
        head += data
        end = head.find(b"\r\n\r\n")
        if end < 0:
            super().data_received(data)
            return
        split = len(data) - (len(head) - (end + 4))
        self._head = None
        super().data_received(data[:split])
        self._cutting = self.protocol.state is State.OPEN
        if split < len(data):
            self.data_received(data[split:])

    def _cut(self, data: bytes, start: int) -> int:
        """Handle the whole frames from ``start`` and return where the first incomplete one starts."""
        size = len(data)
        deliver = self._owner._deliver
        while size - start >= 2:
            length = data[start + 1]
            body = start + 2
            if length >= 126:
                body = start + (4 if length == 126 else 10)
                if length <= 127 and body > size:
                    self._need = body - start
                    return start
                is_masked = length > 127
                length = self._max_bytes + 1 if is_masked else int.from_bytes(data[start + 2 : body], "big")
            if length > self._max_bytes:  # Too big, or masked: the library refuses either in its own words.
                self._hand_over(data[start:])
                return size
            end = body + length
            if end > size:
                self._need = end - start
                return start
            first = data[start]
            if first == 0x81 and not self._in_fragments:
                try:
                    deliver(str(data[body:end], "utf-8"))
                except UnicodeDecodeError:
                    self._refuse(1007, "text that is not UTF-8")
                    return size
            elif first == 0x82 and not self._in_fragments:
                deliver(data[body:end])
            else:
                self._owner._release()  # Nothing may follow the library's answer to a close.
                super().data_received(data[start:end])
                if self.protocol.state is not State.OPEN:
                    self._hand_over(data[end:])
                    return size
            start = end
        self._need = 2
        return start

    def _hand_over(self, data: bytes) -> None:
        """Leave all further data to the library: the connection is ending."""
        self._cutting = False
        if data:
            super().data_received(data)
        self._owner._closing()

    def _refuse(self, close_code: int, why: str) -> None:
        self.protocol.fail(close_code, why)
        self._owner._flush()
        self._hand_over(b"")

    def process_event(self, event: Any) -> None:
        """Collect the fragments of a message; the hand-shake and control frames go on to the library."""
        if not isinstance(event, Frame) or event.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            super().process_event(event)
            return
        if event.opcode is not Opcode.CONT:
            self._parts.clear()
            self._is_text = event.opcode is Opcode.TEXT
        self._parts.append(bytes(event.data))
        self._in_fragments = not event.fin
        if len(self._parts) > MAX_FRAGMENTS:
            self._refuse(1009, "too many fragments")
        elif event.fin:
            whole = b"".join(self._parts)
            self._parts.clear()
            try:
                self._owner._deliver(str(whole, "utf-8") if self._is_text else whole)
            except UnicodeDecodeError:
                self._refuse(1007, "text that is not UTF-8")


class LibraryTransport(WebSocketTransport):
    """A WebSocket that the ``websockets`` client opens, reads the rare frames of, and closes."""

    __slots__ = ("_ws",)

    _ws: ClientConnection

    @property
    def subprotocol(self) -> str | None:
        return self._ws.subprotocol

    @property
    def response_headers(self) -> Mapping[str, str]:
        response = self._ws.response
        return {} if response is None else {k.lower(): v for k, v in response.headers.raw_items()}

    def _connection_options(self, max_bytes: int) -> dict[str, Any]:
        return {"create_connection": partial(_CuttingConnection, owner=self, max_bytes=max_bytes)}

    def _made(self, ws: ClientConnection) -> None:
        self._ws = ws
        self._opened()

    def _flush(self) -> None:
        for data in self._ws.protocol.data_to_send():
            if data:
                self._socket.write(data)

    def _send_ping(self) -> None:
        self._ws.protocol.send_ping(b"")
        self._flush()

    async def _send_close(self, code: int, reason: str) -> None:
        await self._ws.close(code, reason)

    def _connection_lost(self, closed: ConnectionClosed) -> None:
        sent, received = closed.sent, closed.rcvd
        is_ours = sent is not None and (received is None or not closed.rcvd_then_sent)
        is_violation = is_ours and sent is not None and sent.code in (1002, 1007, 1009)
        self._connection_ended(
            (sent.code, sent.reason) if is_violation and sent is not None else None,
            (received.code, received.reason) if received is not None else None,
        )


class _PlainTransport(LibraryTransport):
    """The same through the library's ``send`` and ``recv`` alone: no ``send_nowait``, two tasks each."""

    _pump: asyncio.Task[None]

    def _connection_options(self, max_bytes: int) -> dict[str, Any]:
        return {
            "create_connection": _GuardedConnection,
            "ping_interval": self._ping_interval_s,
            "ping_timeout": self._ping_timeout_s,
        }

    def _made(self, ws: ClientConnection) -> None:
        self._ws = ws
        self._socket = ws.transport
        self._opened_at = self._loop.time()
        self._may_read = asyncio.Event()
        self._may_read.set()
        self.writable = False  # send_nowait never accepts.
        self._pump = self._loop.create_task(self._read(), name=f"{self.provider} transport")

    def _refresh(self) -> None:
        super()._refresh()
        self.writable = False

    async def send(self, message: Wire) -> None:
        self._raise_if_ended()
        if not isinstance(message, str | bytes):
            raise TypeError(f"A message is str or bytes, not {type(message).__name__}.")
        try:
            await self._ws.send(message)
        except ConnectionClosed:
            await asyncio.shield(self._gone)
            self._raise_if_ended()
        if self.on_wire is not None:
            self._observe("out", message)

    async def _read(self) -> None:
        try:
            while True:
                await self._may_read.wait()
                self._deliver(await self._ws.recv())
        except ConnectionClosed as exc:
            self._connection_lost(exc)
        finally:
            self._set_gone()

    def _pause_reading(self) -> None:
        self._may_read.clear()

    def _resume_reading(self) -> None:
        self._may_read.set()
