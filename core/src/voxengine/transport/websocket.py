"""The WebSocket transport, over the ``websockets`` asyncio client (15, 16 and 17).

The library does the hand-shake, the closing hand-shake, control frames, fragments and every violation of the
protocol. Two things are done here because they are the cost of every 20 ms chunk: a whole message going out
is framed and written without a coroutine, and a whole message coming in is cut out of the received data
without the library's parser. Both hang on the asyncio protocol callbacks of a ``ClientConnection`` subclass,
which ``create_connection=`` is documented for. Should a release of the library not have those callbacks,
:class:`_PlainTransport` does the same work through ``send`` and ``recv`` alone, at their cost.

Also our own: the keep-alive. The library's waits behind a full write buffer, so it never sees a peer that
stopped reading, and it sends pings while data is arriving.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl as ssl_module
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, cast

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from voxengine.codec import Wire
from voxengine.errors import ProviderError
from voxengine.transport import WireObserver, outcomes
from voxengine.transport.base import QueuedTransport
from voxengine.transport.handshake import (
    GuardedConnection,
    check_headers,
    checked_url,
    connect_error,
    default_tls,
    default_user_agent,
)

apply_mask: Callable[[bytes, bytes], bytes] | None
try:
    from websockets.speedups import apply_mask
except ImportError:  # No compiled part on this platform: messages go out through the library's protocol.
    apply_mask = None

__all__ = ["MAX_MESSAGE_BYTES", "WRITE_LIMIT_BYTES", "WebSocketTransport", "connect_websocket"]

MAX_MESSAGE_BYTES = 16 * 2**20
"""Largest message accepted from the service, unless told otherwise."""

WRITE_LIMIT_BYTES = 64 * 2**10
"""Bytes that may wait to leave before the transport is paused: about one second of base64 audio at 24 kHz.
More would let an interruption queue behind stale audio, less would pause on every scheduling hiccup."""

_MAX_FRAGMENTS = 4096
_MASK_POOL_BYTES = 1024

_CALLBACKS = ("connection_made", "connection_lost", "data_received", "pause_writing", "resume_writing")
_HAS_CALLBACKS = all(
    callable(getattr(ClientConnection, name, None)) for name in (*_CALLBACKS, "process_event")
)

# The library logs whole headers and payloads at DEBUG, keys and speech among them. It gets a logger that
# only an explicit level on this very name can open.
_library_logger = logging.getLogger("voxengine.transport.websockets_library")
if _library_logger.level == logging.NOTSET:
    _library_logger.setLevel(logging.WARNING)


async def connect_websocket(
    url: str,
    *,
    provider: str,
    headers: Mapping[str, str] | None = None,
    subprotocols: Sequence[str] = (),
    ssl: ssl_module.SSLContext | None = None,
    handshake_s: float = 10.0,
    ping_interval_s: float | None = 5.0,
    ping_timeout_s: float = 5.0,
    close_s: float = 2.0,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    write_limit_bytes: int = WRITE_LIMIT_BYTES,
    on_wire: WireObserver | None = None,
    user_agent: str | None = None,
    proxy: str | Literal["auto"] | None = "auto",
    allow_plain: bool = False,
) -> WebSocketTransport:
    """Open a WebSocket and return it ready to use.

    Args:
        url: ``wss://…``, or ``ws://…`` to a loopback host (anywhere with ``allow_plain``).
        provider: The provider's name, for errors.
        headers: Sent with the hand-shake and never logged.
        ssl: None takes one default context, made once per process off the loop's thread.
        handshake_s: Deadline for everything up to the open connection: name look-up, TCP, TLS, HTTP.
        ping_interval_s: Silence after which a ping is sent; None for none. Any arriving data counts as life.
        ping_timeout_s: Silence after that ping which ends the connection. While our own reader is so slow
            that the network is not read, nothing is concluded.
        close_s: Deadline of ``close`` and of a peer that announced a close but does not hang up.
        max_message_bytes: A larger message ends the connection with RemoteProtocolError.
        write_limit_bytes: High-water mark of the write buffer; writing resumes at a quarter of it.
        user_agent: None for ``voxengine/VERSION``.
        proxy: ``"auto"`` takes the system's proxy settings (``HTTPS_PROXY``, ``NO_PROXY``, …) except for
            loopback hosts, where an emulator must not be looked for behind a company's proxy. None for
            none, or the proxy's URL. TLS goes through the proxy unbroken.

    Raises:
        ConfigError: The URL, a header or the proxy setting cannot be used. Nothing was opened.
        AuthenticationFailed, RateLimited, ProviderError: The service refused or could not be reached;
            ``code``, ``recoverable`` and ``retry_after_s`` say what to do, and
            :func:`~voxengine.transport.handshake_response` returns its answer if it gave one.
        RemoteProtocolError: What answered is no WebSocket service.

    Compression is off: it triples the cost of audio. Redirects are refused, to any origin, since custom key
    headers would travel along. A cancelled call leaves neither a task nor a socket.
    """
    host, is_loopback = checked_url(url, allow_plain)
    check_headers(headers)
    target = outcomes.Target(provider, url, headers)
    options: dict[str, Any] = {
        "additional_headers": dict(headers or {}),
        "user_agent_header": user_agent or default_user_agent(),
        "subprotocols": list(subprotocols) or None,
        "compression": None,
        "open_timeout": None,
        "close_timeout": close_s,
        "max_size": max_message_bytes,
        "write_limit": (write_limit_bytes, write_limit_bytes // 4),
        "logger": _library_logger,
        "proxy": (None if is_loopback else True) if proxy == "auto" else proxy,
        "ping_interval": None,
    }
    limits = (ping_interval_s, ping_timeout_s)
    kind = WebSocketTransport if _HAS_CALLBACKS else _PlainTransport
    transport = kind(target, on_wire=on_wire, close_s=close_s, limits=limits)
    options |= transport._connection_options(max_message_bytes)
    try:
        async with asyncio.timeout(handshake_s):
            if url[:4].lower() == "wss:":
                options["ssl"] = ssl or await default_tls()
            ws = await connect(url, **options)
    except Exception as exc:
        # The chain is cut: the library's exceptions quote URLs with their queries.
        raise connect_error(exc, target, host, handshake_s) from None
    transport._opened(ws)
    return transport


class _FastConnection(GuardedConnection):
    """Cuts whole messages out of the received data; everything else takes the library's way.

    The library's parser is only ever given whole frames, so it always stands at a frame boundary and the
    two cannot disagree about where a frame starts.
    """

    def __init__(self, protocol: Any, *, owner: WebSocketTransport, max_bytes: int, **kwargs: Any) -> None:
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
        if len(self._parts) > _MAX_FRAGMENTS:
            self._refuse(1009, "too many fragments")
        elif event.fin:
            whole = b"".join(self._parts)
            self._parts.clear()
            try:
                self._owner._deliver(str(whole, "utf-8") if self._is_text else whole)
            except UnicodeDecodeError:
                self._refuse(1007, "text that is not UTF-8")


class WebSocketTransport(QueuedTransport):
    """A :class:`~voxengine.transport.Transport` over one WebSocket. Made by :func:`connect_websocket`."""

    _ws: ClientConnection
    _socket: asyncio.Transport

    def __init__(
        self,
        target: outcomes.Target,
        *,
        on_wire: WireObserver | None,
        close_s: float,
        limits: tuple[float | None, float],
    ) -> None:
        super().__init__(provider=target.provider, on_wire=on_wire, close_s=close_s)
        self._target = target
        self._ping_interval_s, self._ping_timeout_s = limits
        self._opened_at = self._heard_at = self._loop.time()
        self._is_closing = False
        self._keys = b""
        self._key_at = 0
        self._timer: asyncio.TimerHandle | None = None  # The keep-alive while open, the deadline afterwards.

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that the service chose, None when it chose none."""
        return self._ws.subprotocol

    @property
    def response_headers(self) -> Mapping[str, str]:
        """The headers of the hand-shake's answer, names in lower case; a request id is often among them."""
        response = self._ws.response
        return {} if response is None else {k.lower(): v for k, v in response.headers.raw_items()}

    @property
    def n_buffered_bytes(self) -> int:
        return self._socket.get_write_buffer_size()

    def _connection_options(self, max_bytes: int) -> dict[str, Any]:
        return {"create_connection": partial(_FastConnection, owner=self, max_bytes=max_bytes)}

    def _opened(self, ws: ClientConnection) -> None:
        self._ws = ws
        self._opened_at = self._heard_at = self._loop.time()
        if self._ping_interval_s is not None and not self._is_closing and not self._gone.done():
            self._timer = self._loop.call_later(self._ping_interval_s, self._check_silence)

    def _write(self, message: Wire) -> None:
        if isinstance(message, str):
            payload, first = message.encode(), 0x81
        elif isinstance(message, bytes):
            payload, first = message, 0x82
        else:
            raise TypeError(f"A message is str or bytes, not {type(message).__name__}.")
        if apply_mask is None:
            (self._ws.protocol.send_text if first == 0x81 else self._ws.protocol.send_binary)(payload)
            self._flush()
            return
        at = self._key_at
        if at == len(self._keys):  # Unpredictable as the protocol asks, but one system call for 256 messages.
            self._keys = os.urandom(_MASK_POOL_BYTES)
            at = 0
        self._key_at = at + 4
        key = self._keys[at : at + 4]
        size = len(payload)
        if size < 126:
            head = bytes((first, 128 | size))
        elif size < 65536:
            head = bytes((first, 254, size >> 8, size & 255))
        else:
            head = bytes((first, 255)) + size.to_bytes(8, "big")
        self._socket.write(b"".join((head, key, apply_mask(payload, key))))

    def _flush(self) -> None:
        for data in self._ws.protocol.data_to_send():
            if data:
                self._socket.write(data)

    def _writing_resumed(self) -> None:
        if not self._is_closing:
            self._set_paused(False)

    def _pause_reading(self) -> None:
        self._socket.pause_reading()

    def _resume_reading(self) -> None:
        if not self._gone.done():
            self._socket.resume_reading()

    # The keep-alive

    def _check_silence(self) -> None:
        assert self._ping_interval_s is not None
        now = self._loop.time()
        due = (now if self._reading_paused else self._heard_at) + self._ping_interval_s
        if now < due - 1e-6:
            self._timer = self._loop.call_at(due, self._check_silence)
            return
        self._ws.protocol.send_ping(b"")
        self._flush()
        self._timer = self._loop.call_later(self._ping_timeout_s, self._check_answer, now)

    def _check_answer(self, pinged_at: float) -> None:
        if self._heard_at >= pinged_at:  # Also when reading has paused since: only arriving data does that.
            self._check_silence()
            return
        now = self._loop.time()
        loss = partial(outcomes.stopped_answering, self._target, now - self._heard_at, now - self._opened_at)
        self._end(loss, 1006, "")
        self._socket.abort()

    # The end

    def _closing(self) -> None:
        """A close was received or a violation found: nothing more is sent, and the hang-up has a deadline."""
        if self._is_closing or self._gone.done():
            return
        self._is_closing = True
        self._set_paused(True)
        self._cancel_timer()
        self._timer = self._loop.call_later(self._close_s, self._socket.abort)

    def _connection_lost(self, closed: ConnectionClosed) -> None:
        self._cancel_timer()
        elapsed_s = self._loop.time() - self._opened_at
        sent, received = closed.sent, closed.rcvd
        is_ours = sent is not None and (received is None or not closed.rcvd_then_sent)
        if is_ours and sent is not None and sent.code in (1002, 1007, 1009):
            loss: Callable[[], ProviderError] = partial(
                outcomes.was_violated, self._target, sent.code, sent.reason, elapsed_s
            )
            self._end(loss, sent.code, sent.reason)
        else:
            code, reason = (1006, "") if received is None else (received.code, received.reason)
            self._end(partial(outcomes.was_closed, self._target, code, reason, elapsed_s), code, reason)
        self._set_gone()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _shut(self, code: int, reason: str) -> None:
        self._cancel_timer()
        try:
            async with asyncio.timeout(self._close_s):
                await self._ws.close(code, reason)
                await asyncio.shield(self._gone)
        except TimeoutError:
            pass
        finally:
            if not self._gone.done():
                self._abort()
        await asyncio.shield(self._gone)

    def _abort(self) -> None:
        self._socket.abort()


class _PlainTransport(WebSocketTransport):
    """The same through the library's ``send`` and ``recv`` alone: no ``send_nowait``, two tasks each."""

    _pump: asyncio.Task[None]

    def _connection_options(self, max_bytes: int) -> dict[str, Any]:
        return {
            "create_connection": GuardedConnection,
            "ping_interval": self._ping_interval_s,
            "ping_timeout": self._ping_timeout_s,
        }

    def _opened(self, ws: ClientConnection) -> None:
        self._ws = ws
        self._socket = ws.transport
        self._opened_at = self._loop.time()
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._blocked = True  # send_nowait never accepts.
        self._pump = self._loop.create_task(self._read(), name=f"{self.provider} transport")

    def _refresh(self) -> None:
        super()._refresh()
        self._blocked = True

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
