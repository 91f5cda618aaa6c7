"""Work that would hold the loop, done in a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["call_on", "in_thread", "is_in_loop"]

T = TypeVar("T")


def is_in_loop() -> bool:
    """Return whether an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def in_thread(function: Callable[..., T], *args: object) -> T:
    """Return ``function(*args)``, run in a thread that ends with it. A cancelled caller does not wait for it."""
    executor = ThreadPoolExecutor(1, thread_name_prefix="voxengine")
    try:
        return await asyncio.get_running_loop().run_in_executor(executor, function, *args)
    finally:
        executor.shutdown(wait=False)


def call_on(
    loop: asyncio.AbstractEventLoop, call: Callable[..., Any], *args: Any, **kwargs: Any
) -> concurrent.futures.Future[Any]:
    """Call a function, or await a coroutine function, on a loop that runs in another thread."""

    async def run() -> Any:
        result = call(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    return asyncio.run_coroutine_threadsafe(run(), loop)
