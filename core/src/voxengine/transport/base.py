"""What every transport shares: the inbox, the order of waiting senders, the observer, the single ending."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Literal, Self

from voxengine.errors import LocalProtocolError, NotConnected, UsageError, VoxEngineError
from voxengine.transport import Wire, WireObserver

__all__ = ["QueuedTransport", "checked_close"]

logger = logging.getLogger("voxengine.transport")

INBOX_LIMIT = 4 * 2**20
"""Bytes (characters of text) that may wait unread before the network is no longer read. It holds about a
minute of base64 audio, so that an interruption behind a burst is found by a reader that keeps up."""


class QueuedTransport(ABC):
    """Base of the transports here. A subclass moves bytes; this class keeps the promises of ``Transport``.

    A subclass implements ``_write``, ``_pause_reading``, ``_resume_reading``, ``_shut`` and
    ``n_buffered_bytes``, and calls ``_deliver``, ``_set_paused`` and ``_end``.
    """

    __slots__ = (
        "_close_code",
        "_close_reason",
        "_close_s",
        "_closed_here",
        "_gone",
        "_inbox",
        "_inbox_size",
        "_loop",
        "_loss",
        "_observer_failed",
        "_paused",
        "_reader",
        "_reading_paused",
        "_senders",
        "_taker",
        "on_wire",
        "provider",
        "writable",
    )

    def __init__(self, *, provider: str, on_wire: WireObserver | None, close_s: float) -> None:
        self.on_wire = on_wire
        self.provider = provider
        self._loop = asyncio.get_running_loop()
        self._close_s = close_s
        self._inbox: deque[Wire] = deque()
        self._inbox_size = 0
        self._reading_paused = False
        self._reader: asyncio.Future[None] | None = None
        self._taker: Callable[[Wire], object] | None = None
        self._senders: deque[_Turn] = deque()
        self._paused = False
        self.writable = True
        """False while paused, while senders wait, and once it has ended: the one test on the hot path."""
        self._loss: Callable[[], VoxEngineError] | None = None
        self._closed_here = False
        self._close_code: int | None = None
        self._close_reason: str | None = None
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._observer_failed = False

    # What it is

    @property
    def closed(self) -> bool:
        return self._closed_here or self._loss is not None

    @property
    def close_code(self) -> int | None:
        return self._close_code

    @property
    def close_reason(self) -> str | None:
        return self._close_reason

    @property
    def paused(self) -> bool:
        return self._paused

    @property
    @abstractmethod
    def n_buffered_bytes(self) -> int:
        """Bytes accepted and not yet handed to the network."""

    def __repr__(self) -> str:
        state = f"closed {self._close_code}" if self.closed else "paused" if self._paused else "open"
        return f"<{type(self).__name__} {self.provider} {state}>"

    # Sending

    def send_nowait(self, message: Wire) -> bool:
        if not self.writable:
            self._raise_if_ended()
            return False
        self._write(message)
        if self.on_wire is not None:
            self._observe("out", message)
        return True

    async def send(self, message: Wire) -> None:
        if self.send_nowait(message):
            return
        turn = _Turn()
        self._senders.append(turn)
        try:
            while not self.closed and (self._paused or self._senders[0] is not turn):
                turn.future = self._loop.create_future()
                await turn.future
            self._raise_if_ended()
            self._write(message)
        finally:
            self._senders.remove(turn)
            self._refresh()
        if self.on_wire is not None:
            self._observe("out", message)

    def _set_paused(self, paused: bool) -> None:
        self._paused = paused
        self._refresh()

    def _refresh(self) -> None:
        """Set the hot path's flag and give the next waiting sender its turn."""
        self.writable = not (self._paused or self.closed or self._senders)
        for turn in self._senders:
            if self._paused and not self.closed:
                return
            if turn.future is not None and not turn.future.done():
                turn.future.set_result(None)
            if not self.closed:
                return

    # Receiving

    async def recv(self) -> Wire:
        while not self._inbox:
            self._raise_if_ended()
            if self._reader is not None:
                raise UsageError("Another task is already waiting in recv. A transport has one reader.")
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        return self._take()

    def _take(self) -> Wire:
        message = self._inbox.popleft()
        self._inbox_size -= len(message)
        if self._reading_paused and self._inbox_size <= INBOX_LIMIT // 4:
            self._reading_paused = False
            self._resume_reading()
        return message

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Wire:
        if self._inbox:
            return self._take()
        try:
            return await self.recv()
        except NotConnected:
            raise StopAsyncIteration from None

    async def hand_to(self, take: Callable[[Wire], object]) -> None:
        if self._reader is not None:
            raise UsageError("Another task is already waiting in recv. A transport has one reader.")
        try:
            while self._inbox:
                take(self._take())
            self._taker = take
            while not self._closed_here:
                self._raise_if_ended()
                self._reader = self._loop.create_future()
                await self._reader
        finally:
            self._reader = self._taker = None

    def _deliver(self, message: Wire) -> None:
        """Put an arrived message into the inbox. After our own close it is dropped."""
        if self._closed_here:
            return
        if self._taker is not None:
            if self.on_wire is not None:
                self._observe("in", message)
            try:
                self._taker(message)
            except Exception as exc:
                self._taker_failed(exc)
            return
        self._inbox.append(message)
        self._inbox_size += len(message)
        if self._inbox_size > INBOX_LIMIT and not self._reading_paused:
            self._reading_paused = True
            self._pause_reading()
        reader = self._reader
        if reader is not None and not reader.done():
            reader.set_result(None)
        if self.on_wire is not None:
            self._observe("in", message)

    def _taker_failed(self, exc: Exception) -> None:
        self._taker = None
        if self._reader is not None and not self._reader.done():
            self._reader.set_exception(exc)

    def _observe(self, direction: Literal["in", "out"], message: Wire) -> None:
        observer = self.on_wire
        if observer is None:
            return
        try:
            observer(direction, message, self._loop.time())
        except Exception as exc:
            if not self._observer_failed:
                self._observer_failed = True
                # The type alone: the text of an observer's exception may quote the message.
                logger.error("on_wire of %s raised %s; reported once.", self.provider, type(exc).__name__)

    # Ending

    async def close(self, code: int = 1000, reason: str = "") -> None:
        code, reason = checked_close(self.provider, code, reason)
        if self._closed_here:
            await asyncio.shield(self._gone)
            return
        self._closed_here = True
        if self._loss is None:
            self._close_code, self._close_reason = code, reason
        self._inbox.clear()
        self._inbox_size = 0
        if self._reading_paused:
            self._reading_paused = False
            self._resume_reading()
        self._wake_all()
        await self._shut(code, reason)

    def _end(self, loss: Callable[[], VoxEngineError], close_code: int, reason: str) -> None:
        """Record how it ended, once. ``loss`` makes a fresh error for each caller."""
        if self._loss is not None or self._closed_here:
            return
        self._loss = loss
        self._close_code, self._close_reason = close_code, reason
        self._wake_all()

    def _wake_all(self) -> None:
        self._refresh()
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _set_gone(self) -> None:
        """Nothing of it is left: whoever waits in ``close`` may return."""
        if not self._gone.done():
            self._gone.set_result(None)

    def _raise_if_ended(self) -> None:
        if self._closed_here:
            raise NotConnected(f"The connection to {self.provider} was closed on this side.")
        if self._loss is not None:
            raise self._loss()

    # What a subclass does

    @abstractmethod
    def _write(self, message: Wire) -> None:
        """Take a message; called only while nothing holds it back."""

    @abstractmethod
    def _pause_reading(self) -> None:
        """Take no more from the peer for now."""

    @abstractmethod
    def _resume_reading(self) -> None:
        """Take from the peer again."""

    @abstractmethod
    async def _shut(self, code: int, reason: str) -> None:
        """Close with the peer, and let go of everything."""


class _Turn:
    """The place of one waiting sender."""

    __slots__ = ("future",)

    def __init__(self) -> None:
        self.future: asyncio.Future[None] | None = None


def checked_close(provider: str, code: int, reason: str) -> tuple[int, str]:
    """A close code that may be sent and a reason that fits, or LocalProtocolError."""
    if not ((1000 <= code <= 1014 and code not in (1004, 1005, 1006)) or 3000 <= code <= 4999):
        raise LocalProtocolError(
            f"Close code {code} may not be sent. Use 1000, or 3000 to 4999 for a meaning of your own.",
            provider=provider,
        )
    return code, reason.encode()[:123].decode(errors="ignore")
