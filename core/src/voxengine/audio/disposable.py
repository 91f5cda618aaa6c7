"""Calls that may never return, made in threads that nobody has to wait for.

A driver or sound server that hangs holds the call that stops or closes its stream for ever. Such a call runs
in a daemon thread of its own: it is waited for with patience, then left to itself, and does not hold up the
interpreter's exit, as a worker of an executor would.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Disposable"]

T = TypeVar("T")


class Disposable(Generic[T]):
    """A call that has been started in a daemon thread.

    Args:
        function: The call.
        name: Of the thread.
    """

    def __init__(self, function: Callable[[], T], name: str) -> None:
        self._function = function
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._watchers: list[Callable[[], None]] = []
        self._error: BaseException | None = None
        self._result: list[T] = []
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        try:
            self._result.append(self._function())
        except BaseException as error:
            self._error = error
        with self._lock:
            self._ended.set()
            watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher()

    @property
    def is_done(self) -> bool:
        """Whether the call has returned or raised."""
        return self._ended.is_set()

    def result(self) -> T:
        """Return what the call returned, or raise what it raised. It has to be done."""
        if self._error is not None:
            raise self._error
        return self._result[0]

    def on_done(self, watcher: Callable[[], None]) -> None:
        """Call ``watcher`` from the thread when the call is done; at once if it is."""
        with self._lock:
            if not self._ended.is_set():
                self._watchers.append(watcher)
                return
        watcher()

    async def wait(self, patience_s: float) -> T:
        """Return what the call returns.

        Raises:
            TimeoutError: It did not return in time. It goes on.
        """
        loop = asyncio.get_running_loop()
        ended = loop.create_future()

        def settle() -> None:
            if not ended.done():
                ended.set_result(None)

        def tell() -> None:
            try:
                loop.call_soon_threadsafe(settle)
            except RuntimeError:
                return  # The loop is closed: nobody waits any more.

        self.on_done(tell)
        async with asyncio.timeout(patience_s):
            await ended
        return self.result()
