"""Tasks that an engine owns, and waiting for it to come to rest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

__all__ = ["Activity"]

_END_S: Final = 12.0
"""How long a cancelled task may take to end; a session that is being closed takes its deadlines."""
_ROUNDING_S: Final = 1e-6


class Activity:
    """The tasks of one engine, and when something last happened in it. Loop thread only."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._next: asyncio.Future[None] | None = None
        self.last = self._loop.time()
        """When something last happened, by the loop's clock."""

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run work that the engine owns; it is cancelled and awaited at the end."""
        task = self._loop.create_task(work, name=f"voxengine {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def touch(self, now: float | None = None) -> None:
        """Note that something happened, just now or at that loop time."""
        self.last = self._loop.time() if now is None else now
        if self._next is not None and not self._next.done():
            self._next.set_result(None)

    async def wait_while(self, is_busy: Callable[[], bool], timeout_s: float, settle_s: float = 0.0) -> bool:
        """Wait until ``is_busy`` was false, and nothing happened, for ``settle_s``; False when the time is over."""
        deadline = self._loop.time() + timeout_s
        while True:
            now = self._loop.time()
            busy = is_busy()
            # A loop takes a timer for due that is nearer than its resolution, so that no time passes.
            if not busy and now >= self.last + settle_s - _ROUNDING_S:
                return True
            if now >= deadline - _ROUNDING_S:
                return False
            until = deadline if busy else min(deadline, self.last + settle_s)
            if self._next is None or self._next.done():
                self._next = self._loop.create_future()
            await asyncio.wait([self._next], timeout=until - now)

    async def close(self) -> None:
        """Cancel every task and wait for its end."""
        current = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not current]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_END_S)
