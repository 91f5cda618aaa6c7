"""Ctrl-C: noted at any moment, acted upon only where nothing is half made.

Python's own answer to SIGINT is an exception at whatever instruction comes next: within an import, a destructor
or the making of an event loop it is swallowed, or leaves something behind that complains at the end. Here the
first SIGINT is only noted. It cancels the main task of a loop that runs, and ends everything else at the next
:func:`check_ctrl_c`. A second one raises KeyboardInterrupt where it is.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

if TYPE_CHECKING:
    import asyncio

__all__ = ["CtrlC", "check_ctrl_c", "run"]

T = TypeVar("T")


class CtrlC:
    """Notes SIGINT within a ``with`` block.

    Nothing is changed within another such block, outside of the main thread, or where SIGINT is ignored or
    somebody else's.

    Args:
        is_last: The process ends after the block. Then SIGINT ends it at once from there on, without a traceback
            from the interpreter's own end; else the handler of before is back.
    """

    def __init__(self, *, is_last: bool = False) -> None:
        self.is_noted = False
        """Whether a SIGINT came."""
        self.cancel: Callable[[], object] | None = None
        """Called by the first SIGINT, in the handler: it may only wake something."""
        self._is_last = is_last
        self._is_installed = False

    def __enter__(self) -> Self:
        if not _ACTIVE and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            try:
                signal.signal(signal.SIGINT, self._on_signal)
            except ValueError:
                return self  # Not the main thread.
            self._is_installed = True
            _ACTIVE.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_installed:
            _ACTIVE.remove(self)
            after = signal.SIG_DFL if self._is_last else signal.default_int_handler
            signal.signal(signal.SIGINT, after)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self.is_noted:
            raise KeyboardInterrupt
        self.is_noted = True
        if self.cancel is not None:
            self.cancel()


_ACTIVE: Final[list[CtrlC]] = []
"""The block in force, if any."""


def check_ctrl_c() -> None:
    """Raise KeyboardInterrupt when Ctrl-C was pressed since the command began."""
    if any(ctrl_c.is_noted for ctrl_c in _ACTIVE):
        raise KeyboardInterrupt


def run(
    main: Callable[[], Coroutine[Any, Any, T]],
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> T:
    """Return what a coroutine function returns, run on an event loop of its own, like ``asyncio.run``.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed. ``main`` was cancelled, or never called.
    """
    import asyncio

    async def body() -> T:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        ctrl_c.cancel = lambda: loop.call_soon_threadsafe(task.cancel)
        try:
            check_ctrl_c()
            return await main()
        finally:
            ctrl_c.cancel = None

    with CtrlC() as own:
        ctrl_c = _ACTIVE[-1] if _ACTIVE else own
        check_ctrl_c()
        try:
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                result = runner.run(body())
        except asyncio.CancelledError:
            check_ctrl_c()
            raise
        check_ctrl_c()
        return result
