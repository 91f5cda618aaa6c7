"""Two ends of a connection in memory, with every fault a network has, on the loop's clock.

Nothing here reads a real clock or a global random source: under
:class:`voxengine.testing.clock.VirtualTimeLoop` and with one seed, a run repeats exactly.

The model of one direction: a message is accepted into the sender's buffer (bounded by the write limit, past
which the sender is paused), leaves it at the line's bandwidth, travels for the latency, and lands in the
receiver's inbox. A receiver that does not read stops the line, so the pressure reaches the sender.
"""

from __future__ import annotations

import asyncio
import random
import string
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Literal

import attrs

from voxengine.codec import Wire
from voxengine.errors import ConnectionLost, NotConnected
from voxengine.transport import WireObserver, outcomes
from voxengine.transport.base import QueuedTransport
from voxengine.transport.faults import (
    AfterBytes,
    AfterMessages,
    AfterSeconds,
    AtTime,
    Bandwidth,
    ClosedBy,
    ConnectFault,
    DelayHandshake,
    Drop,
    Garbage,
    HalfOpen,
    HangHandshake,
    Latency,
    Oversized,
    RefuseConnection,
    RejectHandshake,
    Reset,
    Stall,
    StreamFault,
    When,
)

__all__ = ["MemoryListener", "MemoryOptions", "MemoryPair", "MemoryTransport", "memory_pair"]

_WINDOW_BYTES = 2**20
"""What may travel unacknowledged, as TCP's window would have it; it bounds memory on a line with latency."""


@attrs.frozen(kw_only=True)
class MemoryOptions:
    """Limits of both ends; the defaults are those of the WebSocket transport."""

    write_limit_bytes: int = 64 * 2**10
    max_message_bytes: int = 16 * 2**20
    ping_interval_s: float | None = 5.0
    ping_timeout_s: float = 5.0
    close_s: float = 2.0
    seed: int = 0


def memory_pair(
    *,
    faults: Iterable[StreamFault] = (),
    provider: str = "memory",
    on_wire: WireObserver | None = None,
    options: MemoryOptions | None = None,
) -> MemoryPair:
    """An open connection. Unpacks into ``client, server``; keep the pair to inject faults later.

    Args:
        on_wire: Observes the client's end.
    """
    pair = MemoryPair(outcomes.Target(provider), options or MemoryOptions(), on_wire)
    for fault in faults:
        pair.fault(fault)
    return pair


class MemoryPair:
    """A client end, a server end and what lies between them."""

    def __init__(
        self, target: outcomes.Target, options: MemoryOptions, on_wire: WireObserver | None = None
    ) -> None:
        self._options = options
        self._loop = asyncio.get_running_loop()
        self.client = MemoryTransport(self, target, "client", on_wire)
        self.server = MemoryTransport(self, outcomes.Target("the client"), "server", None)
        rng = random.Random(options.seed)
        self._up = _Line(self, self.client, self.server, random.Random(rng.random()))
        self._down = _Line(self, self.server, self.client, random.Random(rng.random()))
        self.client._line, self.server._line = self._up, self._down
        self._waiting: list[_Armed] = []
        self._timers: set[asyncio.TimerHandle] = set()
        self._is_half_open = False

    def __iter__(self) -> Iterator[MemoryTransport]:
        return iter((self.client, self.server))

    def fault(self, fault: StreamFault) -> None:
        """Arm a fault; it takes hold when its trigger says. May be called at any time."""
        at = fault.at
        if isinstance(at, AfterSeconds):
            self._later(at.s, partial(self._apply, fault))
        elif isinstance(at, AtTime):
            self._later(max(0.0, at.now - self._loop.time()), partial(self._apply, fault))
        elif at in (AfterMessages(0), AfterBytes(0)):
            self._apply(fault)
        else:
            self._waiting.append(_Armed(fault))

    def _lines(self, fault: StreamFault) -> tuple[_Line, ...]:
        return {"up": (self._up,), "down": (self._down,), "both": (self._up, self._down)}[fault.direction]

    def _before(self, line: _Line, message: Wire) -> None:
        for armed in list(self._waiting):
            at = armed.fault.at
            if isinstance(at, When) and line in self._lines(armed.fault) and at.predicate(message):
                self._waiting.remove(armed)
                self._apply(armed.fault)

    def _after(self, line: _Line, n_bytes: int) -> None:
        for armed in list(self._waiting):
            if line not in self._lines(armed.fault):
                continue
            armed.n_messages += 1
            armed.n_bytes += n_bytes
            at = armed.fault.at
            if (isinstance(at, AfterMessages) and armed.n_messages >= at.n) or (
                isinstance(at, AfterBytes) and armed.n_bytes >= at.n
            ):
                self._waiting.remove(armed)
                self._apply(armed.fault)

    def _apply(self, fault: StreamFault) -> None:
        match fault:
            case Reset():
                self._reset()
            case ClosedBy():
                end = self.server if fault.side == "server" else self.client
                end._close_now(fault.code, fault.reason)
            case HalfOpen():
                self._half_open()
            case _:
                for line in self._lines(fault):
                    line.apply(fault)

    def _reset(self) -> None:
        for end in self:
            end._lose(1006, "")
        self._discard()

    def _half_open(self) -> None:
        self._is_half_open = True
        options = self._options
        self._discard(keep_timers=True)
        if options.ping_interval_s is not None:
            silent_s = options.ping_interval_s + options.ping_timeout_s
            for end in self:
                self._later(silent_s, partial(end._found_dead, silent_s))

    def _discard(self, *, keep_timers: bool = False) -> None:
        """Nothing travels any more; messages on the way are gone and no timer is left."""
        for line in (self._up, self._down):
            line.discard()
        if not keep_timers:
            for timer in self._timers:
                timer.cancel()
            self._timers.clear()
            self._waiting.clear()

    def _later(self, delay_s: float, action: Callable[[], None]) -> None:
        def fire() -> None:
            self._timers.discard(handle)
            action()

        handle = self._loop.call_later(delay_s, fire)
        self._timers.add(handle)

    def _settled(self) -> None:
        """An end is gone. When both are, so is what lies between them."""
        if all(end._gone.done() for end in self):
            self._discard()


class _Armed:
    """A fault that waits for its trigger, with what was delivered since it was given."""

    __slots__ = ("fault", "n_bytes", "n_messages")

    def __init__(self, fault: StreamFault) -> None:
        self.fault = fault
        self.n_messages = 0
        self.n_bytes = 0


class _Close:
    """The close message, which travels behind the data."""

    __slots__ = ("code", "reason")

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason

    def __len__(self) -> int:
        return 2 + len(self.reason)


class _Line:
    """One direction. See the module's docstring for the model."""

    def __init__(
        self, pair: MemoryPair, sender: MemoryTransport, receiver: MemoryTransport, rng: random.Random
    ) -> None:
        self._pair = pair
        self._sender = sender
        self._receiver = receiver
        self._rng = rng
        self._loop = pair._loop
        self._buffer: deque[Wire | _Close] = deque()  # Accepted, not yet on the line.
        self.n_buffered = 0
        self._flight: deque[tuple[float, Wire | _Close]] = deque()  # On the line, with the time of arrival.
        self._n_flight = 0
        self._wake: asyncio.Handle | None = None
        self._wake_at = 0.0
        self._latency = Latency(0.0)
        self._bytes_per_s: float | None = None
        self._line_free_at = 0.0
        self._is_stalled = False
        self._is_held = False  # The receiver's inbox is full.
        self._is_oversized = False
        self._n_to_drop = 0
        self._garbage: Garbage | None = None
        self._n_garbage = 0

    def apply(self, fault: StreamFault) -> None:
        match fault:
            case Latency():
                self._latency = fault
            case Bandwidth():
                self._bytes_per_s = fault.bytes_per_s
            case Stall():
                self._is_stalled = True
                if fault.duration_s is not None:
                    self._pair._later(fault.duration_s, self._unstall)
            case Garbage():
                self._garbage, self._n_garbage = fault, fault.n_messages
            case Oversized():
                self._is_oversized = True
            case Drop():
                self._n_to_drop += fault.n_messages

    def accept(self, message: Wire | _Close) -> None:
        if self._pair._is_half_open:
            return
        self._buffer.append(message)
        self.n_buffered += len(message)
        self._update_paused()
        self._schedule(self._loop.time())

    def hold(self, is_held: bool) -> None:
        self._is_held = is_held
        if not is_held:
            self._schedule(self._loop.time())

    def discard(self) -> None:
        self._buffer.clear()
        self._flight.clear()
        self.n_buffered = self._n_flight = 0
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        self._update_paused()

    def _unstall(self) -> None:
        self._is_stalled = False
        self._schedule(self._loop.time())

    def _update_paused(self) -> None:
        limit = self._pair._options.write_limit_bytes
        if self.n_buffered > limit and not self._sender.paused:
            self._sender._set_paused(True)
        elif self._sender.paused and self.n_buffered <= limit // 4:
            self._sender._set_paused(False)

    def _schedule(self, when: float) -> None:
        if self._wake is not None:
            if self._wake_at <= when:
                return
            self._wake.cancel()
        self._wake_at = when
        if when <= self._loop.time():
            self._wake = self._loop.call_soon(self._run)
        else:
            self._wake = self._loop.call_at(when, self._run)

    def _run(self) -> None:
        """Move what may move now, and come back when the next thing is due."""
        self._wake = None
        now = self._loop.time()
        self._load(now)
        while self._flight and self._can_arrive() and self._flight[0][0] <= now + 1e-9:
            _, message = self._flight.popleft()
            self._n_flight -= len(message)
            self._arrive(message)
        self._load(now)
        due = [self._line_free_at] if self._buffer and self._can_load() else []
        if self._flight and self._can_arrive():
            due.append(self._flight[0][0])
        if due:
            self._schedule(min(due))

    def _can_arrive(self) -> bool:
        return not self._is_stalled and not self._is_held

    def _can_load(self) -> bool:
        # While nothing may arrive, nothing leaves the sender's buffer: that is what limits memory.
        return self._can_arrive() and self._n_flight < _WINDOW_BYTES

    def _load(self, now: float) -> None:
        while self._buffer and self._can_load() and self._line_free_at <= now + 1e-9:
            message = self._buffer.popleft()
            self.n_buffered -= len(message)
            busy_s = 0.0 if self._bytes_per_s is None else len(message) / self._bytes_per_s
            self._line_free_at = max(now, self._line_free_at) + busy_s
            delay_s = self._latency.latency_s + self._rng.random() * self._latency.jitter_s
            # A message with little jitter waits behind the one before it: only the first of the line is due.
            self._flight.append((self._line_free_at + delay_s, message))
            self._n_flight += len(message)
            self._update_paused()

    def _arrive(self, message: Wire | _Close) -> None:
        if isinstance(message, _Close):
            self._receiver._peer_closed(message.code, message.reason)
            return
        self._pair._before(self, message)
        if self._sender.closed and self._receiver.closed:
            return
        if self._is_stalled or self._pair._is_half_open:  # The predicate of a stall chose this message.
            if self._is_stalled:
                self._flight.appendleft((0.0, message))
                self._n_flight += len(message)
            return
        if self._n_to_drop:
            self._n_to_drop -= 1
        elif self._is_oversized or _n_bytes(message) > self._pair._options.max_message_bytes:
            self._is_oversized = False
            self._receiver._refuse_size()
        else:
            self._receiver._deliver(self._garbled(message))
        self._pair._after(self, _n_bytes(message))

    def _garbled(self, message: Wire) -> Wire:
        garbage = self._garbage
        if garbage is None or not self._n_garbage:
            return message
        self._n_garbage -= 1
        if garbage.as_text:
            return "".join(self._rng.choices(string.ascii_letters, k=len(message)))
        return self._rng.randbytes(len(message))


def _n_bytes(message: Wire) -> int:
    return len(message) if isinstance(message, bytes) or message.isascii() else len(message.encode())


class MemoryTransport(QueuedTransport):
    """One end of a :class:`MemoryPair`; a :class:`~voxengine.transport.Transport`."""

    _line: _Line

    def __init__(
        self,
        pair: MemoryPair,
        target: outcomes.Target,
        side: Literal["client", "server"],
        on_wire: WireObserver | None,
    ) -> None:
        super().__init__(provider=target.provider, on_wire=on_wire, close_s=pair._options.close_s)
        self._pair = pair
        self._target = target
        self._side = side
        self._opened_at = self._loop.time()

    @property
    def peer(self) -> MemoryTransport:
        """The other end."""
        return self._pair.server if self._side == "client" else self._pair.client

    @property
    def n_buffered_bytes(self) -> int:
        return self._line.n_buffered

    def _write(self, message: Wire) -> None:
        if not isinstance(message, str | bytes):
            raise TypeError(f"A message is str or bytes, not {type(message).__name__}.")
        self._line.accept(message)

    def _pause_reading(self) -> None:
        self.peer._line.hold(True)

    def _resume_reading(self) -> None:
        self.peer._line.hold(False)

    async def _shut(self, code: int, reason: str) -> None:
        if self._gone.done():
            return
        self._line.accept(_Close(code, reason))
        try:
            async with asyncio.timeout(self._close_s):
                await asyncio.shield(self._gone)
        except TimeoutError:
            pass
        finally:
            self._cut()

    def _close_now(self, code: int, reason: str) -> None:
        """What ``close`` does, for a fault: nobody waits."""
        if self.closed:
            return
        self._closed_here = True
        self._close_code, self._close_reason = code, reason
        self._wake_all()
        self._line.accept(_Close(code, reason))
        self._pair._later(self._close_s, self._cut)

    def _cut(self) -> None:
        """This end is gone; an end that was not told sees the connection break, unless nothing gets there."""
        if not self._gone.done():
            self._set_gone()
            if not self._pair._is_half_open:
                self.peer._lose(1006, "")
        self._pair._settled()

    def _peer_closed(self, code: int, reason: str) -> None:
        self._lose(code, reason)
        self.peer._set_gone()
        self._pair._settled()

    def _lose(self, code: int, reason: str) -> None:
        elapsed_s = self._loop.time() - self._opened_at
        self._end(partial(outcomes.was_closed, self._target, code, reason, elapsed_s), code, reason)
        self._set_gone()

    def _found_dead(self, silent_s: float) -> None:
        elapsed_s = self._loop.time() - self._opened_at
        self._end(partial(outcomes.stopped_answering, self._target, silent_s, elapsed_s), 1006, "")
        self._set_gone()
        self._pair._settled()

    def _refuse_size(self) -> None:
        elapsed_s = self._loop.time() - self._opened_at
        why = f"a message over {self._pair._options.max_message_bytes} bytes"
        self._end(partial(outcomes.was_violated, self._target, 1009, why, elapsed_s), 1009, why)
        self._set_gone()
        self.peer._lose(1009, "message too big")
        self._pair._settled()


class MemoryListener:
    """A service in memory: ``connect`` to it as to a URL, with faults at the hand-shake and in the stream.

    Args:
        handler: Serves one connection each, in a task of its own; the connection is closed when it returns.
            Without one, take connections with :meth:`accept`.
        faults: Armed on every connection.
    """

    def __init__(
        self,
        handler: Callable[[MemoryTransport], Awaitable[object]] | None = None,
        *,
        faults: Iterable[StreamFault] = (),
        options: MemoryOptions | None = None,
        n_backlog: int = 128,
    ) -> None:
        self.faults = list(faults)
        self.n_attempts = 0
        self.last_headers: Mapping[str, str] = {}
        """The headers of the latest attempt, for a handler that checks a key."""
        self._handler = handler
        self._options = options or MemoryOptions()
        self._connect_faults: deque[tuple[ConnectFault, int | None]] = deque()
        self._accepted: asyncio.Queue[MemoryTransport] = asyncio.Queue(n_backlog)
        self._tasks: set[asyncio.Task[None]] = set()
        self._pairs: list[MemoryPair] = []
        self._failures: list[Exception] = []
        self._is_closed = False

    def fail_connect(self, fault: ConnectFault, *, n_times: int | None = 1) -> None:
        """Meet the next ``n_times`` attempts with a fault (None: all of them), after those given before."""
        self._connect_faults.append((fault, n_times))

    async def connect(
        self,
        url: str = "wss://memory.invalid/",
        *,
        provider: str = "memory",
        headers: Mapping[str, str] | None = None,
        handshake_s: float = 10.0,
        on_wire: WireObserver | None = None,
    ) -> MemoryTransport:
        """Like :func:`~voxengine.transport.connect_websocket`, with the same errors."""
        target = outcomes.Target(provider, url, headers)
        self.n_attempts += 1
        self.last_headers = dict(headers or {})
        try:
            async with asyncio.timeout(handshake_s):
                await self._meet(self._next_fault(), target)
        except TimeoutError:
            raise outcomes.timed_out(target, handshake_s) from None
        if self._is_closed or self._accepted.full():
            raise outcomes.refused_tcp(target, "Connection refused")
        pair = MemoryPair(target, self._options, on_wire)
        self._pairs = [p for p in self._pairs if not all(end.closed for end in p)]
        self._pairs.append(pair)
        for fault in self.faults:
            pair.fault(fault)
        if self._handler is None:
            self._accepted.put_nowait(pair.server)
        else:
            task = asyncio.get_running_loop().create_task(self._serve(pair.server), name="memory listener")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return pair.client

    async def accept(self) -> MemoryTransport:
        """The server's end of the next connection, in order."""
        return await self._accepted.get()

    @property
    def pairs(self) -> tuple[MemoryPair, ...]:
        """The connections that are open, for injecting faults."""
        return tuple(p for p in self._pairs if not all(end.closed for end in p))

    async def close(self) -> None:
        """Refuse new connections, end the handlers and cut what is open. Idempotent.

        Raises:
            Exception: The first that a handler raised, other than the loss of its connection.
        """
        self._is_closed = True
        for task in tuple(self._tasks):
            task.cancel()
        for pair in self._pairs:
            pair._reset()
        self._pairs.clear()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._failures:
            raise self._failures.pop(0)

    async def _serve(self, transport: MemoryTransport) -> None:
        assert self._handler is not None
        try:
            await self._handler(transport)
        except (ConnectionLost, NotConnected):
            pass
        except Exception as exc:
            self._failures.append(exc)
        finally:
            await transport.close()

    def _next_fault(self) -> ConnectFault | None:
        if not self._connect_faults:
            return None
        fault, n_left = self._connect_faults.popleft()
        if n_left is None or n_left > 1:
            self._connect_faults.appendleft((fault, None if n_left is None else n_left - 1))
        return fault

    @staticmethod
    async def _meet(fault: ConnectFault | None, target: outcomes.Target) -> None:
        match fault:
            case RefuseConnection():
                raise outcomes.refused_tcp(target, fault.why)
            case RejectHandshake():
                raise outcomes.rejected(target, fault.status, fault.headers.items(), fault.body)
            case HangHandshake():
                await asyncio.get_running_loop().create_future()
            case DelayHandshake():
                await asyncio.sleep(fault.delay_s)
            case _:
                await asyncio.sleep(0)
