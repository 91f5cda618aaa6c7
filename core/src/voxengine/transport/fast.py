"""The WebSocket transport over picows, for ``voxengine[fast]``.

picows reads: its parser is compiled, and so are the TCP and TLS transports of ``aiofastnet`` below it. What
goes out is framed as in :mod:`voxengine.transport.framed`, so that messages of one turn leave together.

Of its two interfaces the listener is used. The one modelled on ``websockets`` costs a coroutine for each
message and has no way to send without waiting. The connection is dialled here and not by ``ws_connect``,
which leaves the socket open when it is cancelled, drops what comes of a refusal's body after its head, and
does not tell of data before the end of a frame, so that a large message would look like a dead peer.

The library's asyncio protocol, ``WSProtocol``, is therefore made directly; see ``_protocol``.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import io
from collections.abc import Callable, Mapping
from typing import Any, Final, cast
from urllib.parse import unquote, urlsplit

import aiofastnet
from picows import WSAutoPingStrategy, WSError, WSFrame, WSHandshakeError, WSListener, WSMsgType, WSTransport
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # Not in its stubs.

from voxengine.transport import outcomes
from voxengine.transport.framed import MAX_FRAGMENTS, WebSocketTransport
from voxengine.transport.handshake import Dial, connect_error, not_websocket

__all__ = ["PicowsTransport", "open_websocket"]

_READ_BYTES: Final = 16 * 2**10
"""Of the parser's buffer at first; it grows with what the service sends."""
_TLS_BYTES: Final = 2 * (16 * 2**10 + 64)
"""Of each of the two buffers of a TLS connection: two records."""
_HEAD_BYTES: Final = 16 * 2**10

_TEXT: Final = WSMsgType.TEXT
_BINARY: Final = WSMsgType.BINARY
_CONTINUATION: Final = WSMsgType.CONTINUATION
_CLOSE: Final = WSMsgType.CLOSE
_PONG: Final = WSMsgType.PONG


async def open_websocket(dial: Dial, deadline: float) -> WebSocketTransport:
    """Open it by ``deadline`` on the loop's clock; errors are those of ``connect_websocket``."""
    transport = PicowsTransport(
        dial.target,
        on_wire=dial.on_wire,
        close_s=dial.close_s,
        limits=dial.limits,
        limit=dial.max_message_bytes,
    )
    opening: _Opening | None = None
    try:
        parts = urlsplit(dial.url)
        if parts.fragment:
            raise ValueError("a fragment")
        opening = _Opening(transport, dial)
        async with asyncio.timeout_at(deadline):
            tls: dict[str, Any] = {"ssl_incoming_bio_size": _TLS_BYTES, "ssl_outgoing_bio_size": _TLS_BYTES}
            await aiofastnet.create_connection(
                asyncio.get_running_loop(),
                lambda: cast(asyncio.Protocol, opening),
                parts.hostname,
                parts.port or (443 if dial.ssl is not None else 80),
                ssl=dial.ssl,
                **(tls if dial.ssl is not None else {}),
            )
            await opening.done
            await opening.ws.wait_until_handshake_complete()
            _check_answer(opening.ws.transport, dial)
    except BaseException as exc:
        if opening is not None:
            await opening.abandon()
        if not isinstance(exc, Exception):
            raise
        raise _error(exc, dial) from None
    transport._opened()
    return transport


def _check_answer(ws: WSTransport, dial: Dial) -> None:
    """Refuse what was not asked for."""
    headers = ws.response.headers
    if "Sec-WebSocket-Extensions" in headers:
        raise WSHandshakeError("an extension that was not offered")
    if headers.get("Sec-WebSocket-Protocol", "") not in ("", *dial.subprotocols):
        raise WSHandshakeError("a subprotocol that was not offered")


def _error(exc: Exception, dial: Dial) -> Exception:
    if isinstance(exc, _Refused):
        return outcomes.rejected(dial.target, exc.status, exc.headers, exc.body)
    if isinstance(exc, WSError | http.client.HTTPException):
        return not_websocket(dial.target, type(exc).__name__)
    return connect_error(exc, dial.target, dial.host, dial.handshake_s)


class _Refused(Exception):
    """The hand-shake was answered with another status than 101."""

    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        super().__init__(status)
        self.status, self.headers, self.body = status, headers, body


class _Opening(asyncio.Protocol):
    """Reads up to the end of the HTTP answer, then leaves the connection to picows."""

    def __init__(self, owner: PicowsTransport, dial: Dial) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ws = _protocol(owner, dial)
        self._owner = owner
        self._limits = (dial.write_limit_bytes, dial.write_limit_bytes // 4)
        self._socket: asyncio.Transport | None = None
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast(asyncio.Transport, transport)
        self._socket.set_write_buffer_limits(self._limits[0], self._limits[1])
        self._owner._socket = self._socket
        self.ws.connection_made(transport)  # Sends the request.

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self.done.done():
            self._look(is_over=False)

    def eof_received(self) -> None:
        if not self.done.done():
            self._look(is_over=True)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self._fail(exc or EOFError())
        self.ws.connection_lost(exc)

    def _fail(self, exc: Exception) -> None:
        self.done.set_exception(exc)
        self.done.exception()  # Seen: whoever dials may have been cancelled before it waits for this.

    def _look(self, *, is_over: bool) -> None:
        try:
            self._judge(is_over)
        except Exception as exc:
            self._fail(exc)

    def _judge(self, is_over: bool) -> None:
        """Go on when the answer is whole; raise what it means when it opens no WebSocket."""
        if not self._data.startswith(b"HTTP/"[: len(self._data)]):
            raise http.client.BadStatusLine("")
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            if is_over or len(self._data) > _HEAD_BYTES:
                raise EOFError if is_over else http.client.LineTooLong("head")
            return
        if self._data[8:13] != b" 101 ":
            is_enough = is_over or len(self._data) - end > outcomes.MAX_BODY_BYTES + 4
            self._refuse(is_enough)
            return
        assert self._socket is not None
        self._socket.set_protocol(cast(asyncio.Protocol, self.ws))
        self.done.set_result(None)
        rest = memoryview(self._data)
        while rest:
            space = self.ws.get_buffer(-1)
            n = min(len(space), len(rest))
            space[:n] = rest[:n]
            self.ws.buffer_updated(n)
            rest = rest[n:]
        self._data = b""

    def _refuse(self, is_enough: bool) -> None:
        """Raise the refusal once its body is there, or as much of it as will come or is kept."""
        answer = http.client.HTTPResponse(_Replay(self._data))  # type: ignore[arg-type]
        answer.begin()
        if answer.length is None and not answer.chunked and not is_enough:
            return  # The body ends with the connection.
        try:
            body = answer.read()
        except http.client.IncompleteRead as exc:
            if not is_enough:
                return
            body = exc.partial
        except (ValueError, http.client.HTTPException):
            if not is_enough:
                return  # Cut inside the size of a part.
            body = b""
        raise _Refused(answer.status, answer.getheaders(), body)

    async def abandon(self) -> None:
        """Leave no socket behind."""
        if self._socket is None:
            return
        self._socket.abort()
        await asyncio.shield(self._owner._gone)
        try:
            await self.ws.wait_until_handshake_complete()
        except Exception:
            return


class _Replay:
    """A socket that says what was received."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


class _Silent:
    """A logger that says nothing: the library's messages hold headers and payloads."""

    def isEnabledFor(self, level: int) -> bool:
        return False

    def debug(self, *_: object) -> None: ...

    info = warning = error = exception = log = debug


_silent = _Silent()


_buffer_updated: Final = WSProtocol.buffer_updated


class _Protocol(WSProtocol):  # type: ignore[misc]  # Compiled, without annotations.
    """The library's protocol, which also tells when data arrived and when it refused some."""

    owner: PicowsTransport
    now: Callable[[], float]

    def buffer_updated(self, nbytes: int) -> None:
        self.owner._heard_at = self.now()
        _buffer_updated(self, nbytes)
        if self.transport.is_close_frame_sent:
            self.owner._closing()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # The library keeps what it refused in a future, which complains when nobody looks. It is done by now.
        with contextlib.suppress(Exception):
            self.transport.wait_disconnected().send(None)
        self.owner._connection_lost()


def _protocol(owner: PicowsTransport, dial: Dial) -> _Protocol:
    parts = urlsplit(dial.url)
    headers = {"User-Agent": dial.user_agent}
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(user).decode()}"
    if dial.subprotocols:
        headers["Sec-WebSocket-Protocol"] = ", ".join(dial.subprotocols)
    lower = {name.lower() for name in dial.headers}
    headers = {name: value for name, value in headers.items() if name.lower() not in lower}
    resource = parts.path or "/"
    resource += f"?{parts.query}" if parts.query else ""
    made = _Protocol(
        parts.netloc.rpartition("@")[2],
        resource,
        True,  # A client.
        lambda: _Listener(owner),
        _silent,
        True,  # Disconnect when the listener raises.
        None,  # The deadline of the hand-shake is ours, and so is the keep-alive.
        False,
        1.0,
        1.0,
        WSAutoPingStrategy.PING_WHEN_IDLE,
        True,  # Answer pings.
        dial.max_message_bytes,
        headers | dict(dial.headers),
        _READ_BYTES,
    )
    made.owner, made.now = owner, owner._loop.time
    return made


class _Listener(WSListener):
    """What picows calls. Whole messages take the short way; fragments and control frames the other."""

    def __init__(self, owner: PicowsTransport) -> None:
        self._owner = owner
        self._deliver = owner._deliver
        self.is_plain = True
        """Neither inside the fragments of a message nor past the end."""
        self._parts: list[bytes] | None = None
        self._n_bytes = 0
        self._is_text = False

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._owner._ws, self._owner._listener = transport, self

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if not self.is_plain or not frame.fin or frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._take_rare(kind, frame)
        elif kind is _TEXT:
            try:
                text = frame.get_payload_as_utf8_text()
            except UnicodeDecodeError:
                self._owner._refuse(1007, "text that is not UTF-8")
                return
            owner = self._owner
            if owner._taker is None or owner.on_wire is not None:
                self._deliver(text)
                return
            try:  # As _deliver does it, without one more call for each message.
                owner._taker(text)
            except Exception as exc:
                owner._taker_failed(exc)
        elif kind is _BINARY:
            self._deliver(frame.get_payload_as_bytes())
        else:
            self._take_rare(kind, frame)

    def _take_rare(self, kind: WSMsgType, frame: WSFrame) -> None:
        owner = self._owner
        if owner._is_closing or (owner._closed_here and kind is not _CLOSE):
            return
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._owner._refuse(1002, "reserved bits are set")
        elif kind is _CLOSE:
            self._owner._peer_closes(frame.get_payload_as_bytes())
        elif kind is not _PONG:
            self._take_fragment(kind, frame)

    def _take_fragment(self, kind: WSMsgType, frame: WSFrame) -> None:
        if (kind is _CONTINUATION) != (self._parts is not None):
            self._owner._refuse(1002, "fragments out of order")
            return
        if self._parts is None:
            self._parts, self._n_bytes, self._is_text, self.is_plain = [], 0, kind is _TEXT, False
        self._parts.append(frame.get_payload_as_bytes())
        self._n_bytes += frame.payload_size
        if self._n_bytes > self._owner._limit:
            self._owner._refuse(1009, "the message is too big")
        elif len(self._parts) > MAX_FRAGMENTS:
            self._owner._refuse(1009, "too many fragments")
        elif frame.fin:
            whole, self._parts, self.is_plain = b"".join(self._parts), None, True
            try:
                self._deliver(str(whole, "utf-8") if self._is_text else whole)
            except UnicodeDecodeError:
                self._owner._refuse(1007, "text that is not UTF-8")

    def pause_writing(self) -> None:
        self._owner._set_paused(True)

    def resume_writing(self) -> None:
        self._owner._writing_resumed()


class PicowsTransport(WebSocketTransport):
    """A WebSocket that picows reads."""

    __slots__ = ("_limit", "_listener", "_received", "_violation", "_ws")

    _ws: WSTransport
    _listener: _Listener

    def __init__(self, *args: Any, limit: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limit = limit
        self._violation: tuple[int, str] | None = None
        self._received: tuple[int, str] | None = None

    @property
    def subprotocol(self) -> str | None:
        return self._ws.response.headers.get("Sec-WebSocket-Protocol") or None

    @property
    def response_headers(self) -> Mapping[str, str]:
        return {name.lower(): value for name, value in self._ws.response.headers.items()}

    def _send_ping(self) -> None:
        self._ws.send_ping()

    async def _send_close(self, code: int, reason: str) -> None:
        self._answer_close(code, reason)

    def _peer_closes(self, payload: bytes) -> None:
        self._received = (
            (1005, "") if len(payload) < 2 else (int.from_bytes(payload[:2]), payload[2:].decode())
        )
        self._release()
        self._answer_close(1000 if self._received[0] == 1005 else self._received[0])
        self._closing()

    def _answer_close(self, code: int, reason: str = "") -> None:
        if not self._ws.is_close_frame_sent:
            self._ws.send_close(code, reason.encode())  # type: ignore[arg-type]  # It takes any code.

    def _refuse(self, close_code: int, why: str) -> None:
        """End the connection for what the peer sent."""
        self._violation = (close_code, why)
        self._answer_close(close_code, why)
        self._closing()

    def _closing(self) -> None:
        self._listener.is_plain = False
        super()._closing()

    async def _shut(self, code: int, reason: str) -> None:
        self._listener.is_plain = False
        await super()._shut(code, reason)

    def _connection_lost(self) -> None:
        sent = None
        ws = getattr(self, "_ws", None)
        if ws is not None and ws.close_handshake is not None and self._received is None:
            sent = ws.close_handshake.sent
        if sent is not None and self._violation is None and not self._closed_here:
            self._violation = (int(sent.code), sent.reason)  # picows itself refused.
        self._connection_ended(self._violation, self._received)
