"""Virtual time: hours pass in milliseconds, and the same program gives the same order of events.

A program whose only clock is ``loop.time()`` (the engine's rule) cannot tell :class:`VirtualTimeLoop` from a
real loop, except that it never waits. Under it, ``asyncio.sleep(3600)`` returns at once and ``loop.time()``
is 3600 later.

When the clock moves. It starts at 0 and stands still while anything is ready to run. Otherwise the loop jumps
to the next timer, but first waits, in real time, for what is not a timer:

- a job given to an executor (``run_in_executor``, ``to_thread``, a name look-up), as long as it is awaited;
- a socket operation in progress: ``sock_connect`` (so also the connecting part of ``create_connection``),
  ``sock_recv*``, ``sock_sendall`` and the like, but not ``sock_accept``;
- ``shutdown_default_executor``, and any block inside :meth:`VirtualTimeLoop.hold`.

An open transport does not hold the clock, whether it waits for data or for a peer that does not read, and
nor does a listening socket: they may wait for ever, and the deadlines that end that are timers. While there
are any, or threads that are not executor workers, each jump is preceded by a poll of at most
``socket_grace_s`` real seconds (default 1 ms), so that loopback traffic and ``call_soon_threadsafe`` come
first. Between two ends on one loop, 0 is enough. A peer in another process or a thread that needs longer than
that can be overtaken by the clock: put the wait for it inside ``hold``.

When nothing is ready, no timer is set and nothing of the above is pending, :class:`VirtualDeadlock` names the
tasks that would wait for ever.
"""

from __future__ import annotations

import asyncio
import functools
import math
import os
import selectors
import stat
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final, ParamSpec, TypeVar, TypeVarTuple, overload

__all__ = [
    "LeakError",
    "VirtualDeadlock",
    "VirtualTimeExceeded",
    "VirtualTimeLoop",
    "leak_check",
    "run_virtual",
    "virtual",
]

T = TypeVar("T")
P = ParamSpec("P")
Ts = TypeVarTuple("Ts")

_CLEANUP_REAL_S = 5.0
_Events = list[tuple[selectors.SelectorKey, int]]


class VirtualDeadlock(RuntimeError):
    """Nothing can ever run again; the message names the pending tasks and where they wait."""


class VirtualTimeExceeded(RuntimeError):
    """The run passed its limit of virtual or real time; the message says which and what was pending."""


class LeakError(AssertionError):
    """A block left something behind; the message names it."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time. The module's docstring says when its clock moves.

    Args:
        max_virtual_s: ``time()`` past which the loop raises VirtualTimeExceeded; None for no limit.
        max_real_s: Real seconds after which it does; None for no limit.
        socket_grace_s: Longest real poll before a jump while sockets or foreign threads are about.
    """

    def __init__(
        self,
        *,
        max_virtual_s: float | None = None,
        max_real_s: float | None = 30.0,
        socket_grace_s: float = 0.001,
    ) -> None:
        self._virtual_now = 0.0
        self._n_pending = 0
        self._max_virtual_s = max_virtual_s
        self._real_deadline = None if max_real_s is None else time.monotonic() + max_real_s
        self._grace_s = socket_grace_s
        self._threads_before = frozenset(threading.enumerate())
        super().__init__(_VirtualSelector(self))
        # What the loop itself listens to is no traffic: the pipe that wakes it from other threads.
        self._n_own_fds = len(self._virtual_selector.get_map())

    _virtual_selector: _VirtualSelector

    def time(self) -> float:
        return self._virtual_now

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep the clock still inside the block, to wait for something that the loop cannot see."""
        self._n_pending += 1
        try:
            yield
        finally:
            self._n_pending -= 1

    def n_open_fds(self) -> int:
        """File descriptors that the loop listens to, besides its own."""
        return len(self._virtual_selector.get_map()) - self._n_own_fds

    # What holds the clock

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self._n_pending += 1
        future.add_done_callback(self._pending_done)
        return future

    def _pending_done(self, _: object) -> None:
        self._n_pending -= 1

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        with self.hold():
            await super().shutdown_default_executor(*args, **kwargs)

    async def sock_recv(self, *args: Any) -> bytes:
        with self.hold():
            return await super().sock_recv(*args)

    async def sock_recv_into(self, *args: Any) -> int:
        with self.hold():
            return await super().sock_recv_into(*args)

    async def sock_recvfrom(self, *args: Any) -> Any:
        with self.hold():
            return await super().sock_recvfrom(*args)

    async def sock_recvfrom_into(self, *args: Any) -> Any:
        with self.hold():
            return await super().sock_recvfrom_into(*args)

    async def sock_sendall(self, *args: Any) -> None:
        with self.hold():
            await super().sock_sendall(*args)

    async def sock_sendto(self, *args: Any) -> int:
        with self.hold():
            return await super().sock_sendto(*args)

    async def sock_connect(self, *args: Any) -> None:
        with self.hold():
            await super().sock_connect(*args)

    # What the selector asks

    def _is_pending(self) -> bool:
        return self._n_pending > 0

    def _foreign_threads(self) -> list[threading.Thread]:
        workers = _executor_threads(self)
        return [
            t
            for t in threading.enumerate()
            if t not in self._threads_before and t not in workers and t is not threading.current_thread()
        ]

    def _advance(self, by_s: float) -> None:
        self._virtual_now += by_s
        # A timer is due before ``now + resolution``. After some months a nanosecond is less than the
        # distance between two floats, and a timer set for exactly now would never be.
        self._clock_resolution = max(1e-9, 2 * math.ulp(self._virtual_now))
        limit = self._max_virtual_s
        if limit is not None and self._virtual_now > limit:
            self._max_virtual_s = None
            raise VirtualTimeExceeded(f"Virtual time passed {limit:g} s. Pending: {_describe_tasks(self)}")

    def _check_real_time(self) -> None:
        if self._real_deadline is not None and time.monotonic() > self._real_deadline:
            self._real_deadline = time.monotonic() + _CLEANUP_REAL_S
            what = "an executor job or a socket operation holds the clock" if self._is_pending() else "busy"
            raise VirtualTimeExceeded(
                f"The limit of real time passed at virtual {self._virtual_now:g} s ({what}). "
                f"Pending: {_describe_tasks(self)}"
            )


class _VirtualSelector(selectors.BaseSelector):
    """A real selector whose waiting for a timer is a jump of the loop's clock."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self._loop = loop
        self._real = selectors.DefaultSelector()
        loop._virtual_selector = self

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.get_key(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        found: Mapping[Any, selectors.SelectorKey] | None = self._real.get_map()
        return {} if found is None else found

    def close(self) -> None:
        self._real.close()

    def select(self, timeout: float | None = None) -> _Events:
        loop = self._loop
        loop._check_real_time()
        if timeout is not None and timeout <= 0:
            return self._real.select(0)
        while loop._is_pending():
            if events := self._real.select(0.05):
                return events
            loop._check_real_time()
        threads = loop._foreign_threads()
        grace_s = loop._grace_s if threads or loop.n_open_fds() > 0 else 0.0
        if events := self._real.select(grace_s):
            return events
        if timeout is not None:
            loop._advance(timeout)
            return []
        while threads := loop._foreign_threads():
            if events := self._real.select(0.05):
                return events
            loop._check_real_time()
        if loop.n_open_fds() > 0 and (events := self._real.select(max(loop._grace_s, 0.1))):
            return events
        raise VirtualDeadlock(
            f"Nothing is ready at virtual {loop.time():g} s, no timer is set and nothing is pending outside. "
            f"Waiting for ever: {_describe_tasks(loop)}"
        )


def run_virtual(
    main: Coroutine[Any, Any, T],
    *,
    max_virtual_s: float | None = None,
    max_real_s: float | None = 30.0,
    socket_grace_s: float = 0.001,
) -> T:
    """Run a coroutine on a fresh :class:`VirtualTimeLoop`, like ``asyncio.run``, and return its result.

    Afterwards remaining tasks are cancelled, asynchronous generators and the executor closed.

    Raises:
        VirtualDeadlock, VirtualTimeExceeded: See the classes.
    """

    def make_loop() -> VirtualTimeLoop:
        return VirtualTimeLoop(
            max_virtual_s=max_virtual_s, max_real_s=max_real_s, socket_grace_s=socket_grace_s
        )

    with asyncio.Runner(loop_factory=make_loop) as runner:
        return runner.run(main)


@overload
def virtual(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]: ...


@overload
def virtual(
    *,
    max_virtual_s: float | None = None,
    max_real_s: float | None = 30.0,
    socket_grace_s: float = 0.001,
) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, T]]: ...


def virtual(test: Any = None, **limits: Any) -> Any:
    """Make a plain function of a coroutine function; it runs in :func:`run_virtual`.

    For tests::

        @virtual
        async def test_an_hour_passes(some_fixture): ...

    The signature stays, so fixtures, parameters and hypothesis work, and pytest-asyncio in any mode sees an
    ordinary test. Fixtures must be ordinary too: an asynchronous one would live on another loop.
    """
    if test is None:
        return functools.partial(virtual, **limits)

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> Any:
        return run_virtual(test(*args, **kwargs), **limits)

    return run


@asynccontextmanager
async def leak_check(*, settle_s: float = 1.0) -> AsyncIterator[None]:
    """Fail when the block leaves a task, a thread or an open socket that was not there before.

    What is ending may end: the check waits up to ``settle_s`` (of the loop's time) for it. The worker
    threads of the loop's default executor are not counted; they stay until the loop closes. Where the system
    lists what a process has open (Linux, macOS) sockets that the loop knows nothing of are found too. A block
    that raises is not checked, so its own error is the one that is seen.

    Raises:
        LeakError: Naming what is left.
    """
    loop = asyncio.get_running_loop()
    tasks_before = asyncio.all_tasks(loop)
    threads_before = frozenset(threading.enumerate())
    sockets_before = _open_sockets(loop)
    yield

    def left_behind() -> list[str]:
        found = [_describe_task(task) for task in asyncio.all_tasks(loop) - tasks_before]
        threads = set(threading.enumerate()) - threads_before - _executor_threads(loop)
        found += [f"thread {thread.name}" for thread in threads]
        return found + [
            f"socket {key[0]} ({what})"
            for key, what in _open_sockets(loop).items()
            if sockets_before.get(key) in (None, _FOREIGN) and what != sockets_before.get(key)
        ]

    deadline = loop.time() + settle_s
    n_rounds = 0
    while left := left_behind():
        if loop.time() >= deadline:
            raise LeakError("The block left behind: " + "; ".join(sorted(left)))
        await asyncio.sleep(0 if n_rounds < 10 else settle_s / 50)
        n_rounds += 1


_FOREIGN: Final = "not the event loop's"
_Descriptor = tuple[int, int]
"""A number of the process and one of the system's: the first is given again as soon as it is free."""


def _open_sockets(loop: asyncio.AbstractEventLoop) -> dict[_Descriptor, str]:
    """The process's sockets, what the loop listens to and its transports. Best effort on foreign loops."""
    found = dict.fromkeys(_process_sockets(), _FOREIGN)
    selector = getattr(loop, "_selector", None)
    if isinstance(selector, selectors.BaseSelector):
        for key in list((selector.get_map() or {}).values()):
            found[_descriptor(key.fd)] = "listened to"
    for fd, transport in list(getattr(loop, "_transports", {}).items()):
        if not transport.is_closing():
            found[_descriptor(fd)] = type(transport).__name__
    return found


def _descriptor(fd: int) -> _Descriptor:
    try:
        return fd, os.fstat(fd).st_ino
    except OSError:
        return fd, 0


def _process_sockets() -> Iterator[_Descriptor]:
    for folder in ("/proc/self/fd", "/dev/fd"):
        with suppress(OSError):
            names = os.listdir(folder)
            break
    else:
        return
    for name in names:
        with suppress(OSError, ValueError):  # The one that read the list is closed by now.
            held = os.fstat(int(name))
            if stat.S_ISSOCK(held.st_mode):
                yield int(name), held.st_ino


def _executor_threads(loop: asyncio.AbstractEventLoop) -> set[threading.Thread]:
    executor = getattr(loop, "_default_executor", None)
    return set(getattr(executor, "_threads", ()))


def _describe_tasks(loop: asyncio.AbstractEventLoop) -> str:
    return "; ".join(sorted(_describe_task(task) for task in asyncio.all_tasks(loop))) or "no task"


def _describe_task(task: asyncio.Task[Any]) -> str:
    """The task's name, its function, and the innermost function and line where it waits; no values."""
    coroutine: Any = task.get_coro()
    what = getattr(coroutine, "__qualname__", type(coroutine).__name__)
    deepest: Awaitable[Any] | None = coroutine
    where = ""
    while deepest is not None:
        frame = getattr(deepest, "cr_frame", None)
        if frame is None:
            break
        inner = getattr(deepest, "__qualname__", what)
        where = f", in {inner} at {frame.f_code.co_filename.rsplit('/', 1)[-1]}:{frame.f_lineno}"
        deepest = getattr(deepest, "cr_await", None)
    return f"task {task.get_name()} ({what}{where})"
