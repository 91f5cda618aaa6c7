"""What every WebSocket here shares: frames going out, the keep-alive, and the deadlines of the end.

A message leaves at once; those that follow it within half a millisecond leave together when the turn of the
event loop is over. A write costs a system call and, with TLS, a record of its own, which is more than
everything else that happens to a 20 ms chunk.

The keep-alive is our own. That of ``websockets`` waits behind a full write buffer, so it never sees a peer
that stopped reading, and it sends pings while data is arriving.
"""

from __future__ import annotations

import asyncio
import os
from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from struct import Struct
from typing import Final

from voxengine.codec import Wire
from voxengine.errors import ProviderError
from voxengine.transport import WireObserver, outcomes
from voxengine.transport.base import QueuedTransport

__all__ = ["MAX_FRAGMENTS", "MAX_MESSAGE_BYTES", "WRITE_LIMIT_BYTES", "WebSocketTransport"]

MAX_MESSAGE_BYTES: Final = 16 * 2**20
"""Largest message accepted from the service, unless told otherwise."""

WRITE_LIMIT_BYTES: Final = 64 * 2**10
"""Bytes that may wait to leave before the transport is paused: about one second of base64 audio at 24 kHz.
More would let an interruption queue behind stale audio, less would pause on every scheduling hiccup."""

MAX_FRAGMENTS: Final = 4096
"""Fragments of one message; a peer that sends more is taken for hostile."""

_BURST_S: Final = 0.0005
"""A message that comes sooner after another waits for the end of the loop's turn."""
_HELD_BYTES: Final = 16 * 2**10
"""Bytes that may wait for it."""
_KEY_POOL_BYTES: Final = 1024
_keys: Final[list[bytes]] = []
_SHORT_HEAD: Final = Struct("!BB").pack
_HEAD: Final = Struct("!BBH").pack
_LONG_HEAD: Final = Struct("!BBQ").pack


def _masked(data: bytes, key: bytes) -> bytes:
    """XOR with a repeated key of four bytes, for platforms without the compiled function."""
    size = len(data)
    keys = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(keys, "little")).to_bytes(size, "little")


def _new_key() -> bytes:
    """Return what masks a message: unpredictable as the protocol asks, but one system call for 256 messages."""
    pool = os.urandom(_KEY_POOL_BYTES)
    _keys.extend(pool[at : at + 4] for at in range(4, _KEY_POOL_BYTES, 4))
    return pool[:4]


apply_mask: Callable[[bytes, bytes], bytes]
try:
    from websockets.speedups import apply_mask
except ImportError:
    apply_mask = _masked


class WebSocketTransport(QueuedTransport):
    """A :class:`~voxengine.transport.Transport` over one WebSocket. Made by :func:`connect_websocket`.

    A subclass does the hand-shake and reads; it calls ``_opened``, ``_closing`` and ``_connection_ended``.
    """

    __slots__ = (
        "_heard_at",
        "_held",
        "_is_closing",
        "_n_held",
        "_opened_at",
        "_ping_interval_s",
        "_ping_timeout_s",
        "_socket",
        "_target",
        "_timer",
        "_written_at",
    )

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
        self._held: list[bytes] = []
        self._n_held = 0
        self._written_at = -1.0
        self._timer: asyncio.TimerHandle | None = None  # The keep-alive while open, the deadline afterwards.

    @property
    @abstractmethod
    def subprotocol(self) -> str | None:
        """The subprotocol that the service chose, None when it chose none."""

    @property
    @abstractmethod
    def response_headers(self) -> Mapping[str, str]:
        """The headers of the hand-shake's answer, names in lower case; a request id is often among them."""

    @property
    def n_buffered_bytes(self) -> int:
        return self._socket.get_write_buffer_size() + self._n_held

    # Sending

    def _write(self, message: Wire) -> None:
        if isinstance(message, str):
            payload, first = message.encode(), 0x81
        elif isinstance(message, bytes):
            payload, first = message, 0x82
        else:
            raise TypeError(f"A message is str or bytes, not {type(message).__name__}.")
        try:
            key = _keys.pop()
        except IndexError:
            key = _new_key()
        size = len(payload)
        if size < 126:
            head = _SHORT_HEAD(first, 128 | size)
        elif size < 65536:
            head = _HEAD(first, 254, size)
        else:
            head = _LONG_HEAD(first, 255, size)
        held, now = self._held, self._loop.time()
        if not held:
            # A socket that did not take all is no system call anyway, and knows when to pause us.
            if now - self._written_at > _BURST_S or self._socket.get_write_buffer_size():
                self._written_at = now
                self._socket.write(b"".join((head, key, apply_mask(payload, key))))
                return
            self._loop.call_soon(self._release)
        held += (head, key, apply_mask(payload, key))
        self._n_held += size + 8
        if self._n_held > _HELD_BYTES:
            self._release()

    def _release(self) -> None:
        """Write what waited for the end of the loop's turn."""
        held, self._held, self._n_held = self._held, [], 0
        if held and not self._gone.done():
            self._written_at = self._loop.time()
            self._socket.write(b"".join(held))

    def _writing_resumed(self) -> None:
        if not self._is_closing:
            self._set_paused(False)

    # Receiving

    def _pause_reading(self) -> None:
        self._socket.pause_reading()

    def _resume_reading(self) -> None:
        if not self._gone.done():
            self._socket.resume_reading()

    # The keep-alive

    def _opened(self) -> None:
        self._opened_at = self._heard_at = self._loop.time()
        if self._ping_interval_s is not None and not self._is_closing and not self._gone.done():
            self._timer = self._loop.call_later(self._ping_interval_s, self._check_silence)

    @abstractmethod
    def _send_ping(self) -> None:
        """Ask the peer for a sign of life."""

    def _check_silence(self) -> None:
        assert self._ping_interval_s is not None
        now = self._loop.time()
        due = (now if self._reading_paused else self._heard_at) + self._ping_interval_s
        if now < due - 1e-6:
            self._timer = self._loop.call_at(due, self._check_silence)
            return
        self._send_ping()
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
        self._held, self._n_held = [], 0
        self._set_paused(True)
        self._cancel_timer()
        self._timer = self._loop.call_later(self._close_s, self._socket.abort)

    def _connection_ended(self, violation: tuple[int, str] | None, received: tuple[int, str] | None) -> None:
        """The connection is gone.

        Args:
            violation: Code and reason with which we refused what the peer sent.
            received: Code and reason that the peer closed with.
        """
        self._cancel_timer()
        elapsed_s = self._loop.time() - self._opened_at
        if violation is not None:
            loss: Callable[[], ProviderError] = partial(
                outcomes.was_violated, self._target, *violation, elapsed_s
            )
            self._end(loss, *violation)
        else:
            code, reason = (1006, "") if received is None else received
            self._end(partial(outcomes.was_closed, self._target, code, reason, elapsed_s), code, reason)
        self._held, self._n_held = [], 0
        self._set_gone()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @abstractmethod
    async def _send_close(self, code: int, reason: str) -> None:
        """Announce our close; may return before the peer has answered."""

    async def _shut(self, code: int, reason: str) -> None:
        self._cancel_timer()
        self._release()
        try:
            async with asyncio.timeout(self._close_s):
                await self._send_close(code, reason)
                await asyncio.shield(self._gone)
        except TimeoutError:
            pass
        finally:
            if not self._gone.done():
                self._abort()
        await asyncio.shield(self._gone)

    def _abort(self) -> None:
        self._socket.abort()
