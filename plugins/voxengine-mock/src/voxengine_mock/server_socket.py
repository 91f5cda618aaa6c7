"""The server's end of one WebSocket: frames by the sans-I/O protocol of ``websockets``, the rest as everywhere.

It keeps the promises of :class:`voxengine.transport.Transport` and can be told to misbehave.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from websockets.exceptions import ConnectionClosed, InvalidState
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from voxengine.codec import Wire
from voxengine.errors import ConnectionLost, RemoteProtocolError, VoxEngineError
from voxengine.testing.emulator import HttpRequest
from voxengine.transport import outcomes
from voxengine.transport.base import QueuedTransport
from voxengine_mock.misbehaving import FaultPlan, Held, SessionFaults
from voxengine_mock.script import Script

if TYPE_CHECKING:
    from voxengine.testing.emulator import ReceptionLog

__all__ = ["ServerSocket", "cut"]

_CLIENT: Final = outcomes.Target("the client")
_CLOSE_S: Final = 2.0
_PING_AFTER_S: Final = 20.0
"""A client that is silent for so long is pinged, and cut after the same time again."""
_MAX_FRAGMENTS: Final = 4096
_SLOW_BUFFER_BYTES: Final = 8192
_NO_LINGER: Final = struct.pack("ii", 1, 0)

# The library logs payloads at DEBUG; only an explicit level on this very name opens it.
library_logger = logging.getLogger("voxengine_mock.websockets_library")
if library_logger.level == logging.NOTSET:
    library_logger.setLevel(logging.CRITICAL)


def cut(transport: asyncio.Transport) -> None:
    """End a connection as a crash does: at once and, over TCP, with a reset."""
    found: Any = transport.get_extra_info("socket")
    if found is not None:
        with contextlib.suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()


class ServerSocket(QueuedTransport):
    """A session of an emulator (see :class:`voxengine.testing.emulator.EmulatorSession`).

    Args:
        transport: The connection, on which the hand-shake is done.
        protocol: The library's state of it.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        protocol: ServerProtocol,
        request: HttpRequest,
        plan: FaultPlan,
        number: int,
        log: ReceptionLog | None,
    ) -> None:
        super().__init__(provider="the client", on_wire=None, close_s=_CLOSE_S)
        self.request = request
        self.number = number
        self.script: Script = plan.script
        self.faults = SessionFaults(plan, number, self)
        self.log = log
        self._socket = transport
        self._protocol = protocol
        self._held = Held()
        self._parts: list[bytes] = []
        self._is_text = False
        self._opened_at = self._heard_at = self._loop.time()
        self._bytes_per_s: float | None = None
        self._slow_until: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(_PING_AFTER_S, self._check_silence)

    @property
    def subprotocol(self) -> str | None:
        """What was agreed on."""
        return self._protocol.subprotocol

    @property
    def n_buffered_bytes(self) -> int:
        return self._socket.get_write_buffer_size()

    # -- out --------------------------------------------------------------------------------------

    async def send(self, message: Wire) -> None:
        """Send a message. What the client sent before it left is read to its end, so till then none of it is
        told that nobody listens any more.
        """
        try:
            await super().send(message)
        except (ConnectionLost, RemoteProtocolError):
            if not self._inbox:
                raise

    def _write(self, message: Wire) -> None:
        if not isinstance(message, str | bytes):
            raise TypeError(f"A message is str or bytes, not {type(message).__name__}.")
        if not self._held.takes(message):
            self._put(message)
        elif self._held.is_full:
            self.abort()

    def _put(self, message: Wire) -> None:
        # Between a close and its answer the library takes nothing more; the session's end is known already.
        with contextlib.suppress(InvalidState):
            if isinstance(message, str):
                self._protocol.send_text(message.encode())
            else:
                self._protocol.send_binary(message)
        self._flush()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._socket.write(data)
            else:  # The library's word for hanging up.
                self._socket.close()
                self._set_deadline()

    def pause_writing(self) -> None:
        """The network takes no more for now."""
        self._set_paused(True)

    def resume_writing(self) -> None:
        """The network takes more."""
        self._set_paused(False)

    # -- in ---------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take what arrived."""
        self._heard_at = self._loop.time()
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._frame(event)
        self._flush()
        if self._protocol.close_rcvd is not None or self._protocol.close_sent is not None:
            self._note_end()
            self._set_deadline()
        if self._bytes_per_s is not None and not self._socket.is_closing():
            self._socket.pause_reading()
            self._cancel_slow()
            self._slow_until = self._loop.call_later(len(data) / self._bytes_per_s, self._slow_over)

    def _frame(self, frame: Frame) -> None:
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return
        if frame.opcode is not Opcode.CONT:
            self._parts.clear()
            self._is_text = frame.opcode is Opcode.TEXT
        self._parts.append(bytes(frame.data))
        if len(self._parts) > _MAX_FRAGMENTS:
            self._protocol.fail(1009, "too many fragments")
        elif frame.fin:
            whole = b"".join(self._parts)
            self._parts.clear()
            try:
                self._deliver(whole.decode() if self._is_text else whole)
            except UnicodeDecodeError:
                self._protocol.fail(1007, "text that is not UTF-8")

    def _pause_reading(self) -> None:
        self._update_reading()

    def _resume_reading(self) -> None:
        self._update_reading()

    def _slow_over(self) -> None:
        self._slow_until = None
        self._update_reading()

    def _cancel_slow(self) -> None:
        if self._slow_until is not None:
            self._slow_until.cancel()
            self._slow_until = None

    def _update_reading(self) -> None:
        if self._socket.is_closing():
            return
        if self._reading_paused or self._slow_until is not None:
            self._socket.pause_reading()
        else:
            self._socket.resume_reading()

    # -- the end ----------------------------------------------------------------------------------

    def connection_lost(self, _: Exception | None) -> None:
        """The connection is gone."""
        self._protocol.receive_eof()
        self._note_end()
        for timer in (self._timer, self._slow_until):
            if timer is not None:
                timer.cancel()
        self._timer = self._slow_until = None
        self._parts.clear()
        self._set_gone()

    def eof_received(self) -> None:
        """The client sends no more."""
        self._protocol.receive_eof()
        self._flush()

    def _note_end(self) -> None:
        elapsed_s = self._loop.time() - self._opened_at
        received, sent = self._protocol.close_rcvd, self._protocol.close_sent
        loss: Callable[[], VoxEngineError]
        if received is None and sent is not None and sent.code in (1002, 1007, 1009):
            loss = partial(outcomes.was_violated, _CLIENT, sent.code, sent.reason, elapsed_s)
            self._end(loss, sent.code, sent.reason)
        else:
            code, reason = (1006, "") if received is None else (received.code, received.reason)
            self._end(partial(outcomes.was_closed, _CLIENT, code, reason, elapsed_s), code, reason)

    def _set_deadline(self) -> None:
        """The connection is ending: cut it when that takes too long."""
        if self._gone.done():
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(self._close_s, self._socket.abort)

    async def _shut(self, code: int, reason: str) -> None:
        if self._gone.done():
            return
        self.read_slowly(None)
        with contextlib.suppress(InvalidState, ConnectionClosed):
            self._protocol.send_close(code, reason)
        self._flush()
        try:
            async with asyncio.timeout(self._close_s):
                await asyncio.shield(self._gone)
        except TimeoutError:
            pass
        finally:
            if not self._gone.done():
                self._socket.abort()
        await asyncio.shield(self._gone)

    def _check_silence(self) -> None:
        silent_s = self._loop.time() - self._heard_at
        if self._reading_paused or self._slow_until is not None:
            silent_s = 0.0  # It may speak; we do not listen.
        if silent_s >= 2 * _PING_AFTER_S - 0.001:
            self._socket.abort()
            return
        if silent_s >= _PING_AFTER_S - 0.001:
            with contextlib.suppress(InvalidState):
                self._protocol.send_ping(b"")
            self._flush()
        self._timer = self._loop.call_later(_PING_AFTER_S, self._check_silence)

    # -- misbehaving ------------------------------------------------------------------------------

    def abort(self) -> None:
        """Cut the connection without a close message."""
        cut(self._socket)

    def read_slowly(self, bytes_per_s: float | None) -> None:
        """Take only so much from the client; None: as fast as it comes."""
        self._bytes_per_s = bytes_per_s
        if bytes_per_s is None:
            self._cancel_slow()
            self._update_reading()
            return
        found: Any = self._socket.get_extra_info("socket")
        if found is not None:  # Else the system itself takes megabytes before the client notices.
            with contextlib.suppress(OSError):
                found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SLOW_BUFFER_BYTES)

    def stall(self, *, keeps: bool) -> None:
        """Send nothing from here on; see :class:`voxengine_mock.misbehaving.Faultable`."""
        self._held.start(keeps=keeps)

    async def resume(self) -> None:
        """Send what was held back, in order, and everything after it."""
        while (message := self._held.next()) is not None:
            self._put(message)
