"""Which lines of a recording came about in one step of the event loop, and which in one turn of it.

Two lines of the same time may be one step, or follow each other at once, or lie several turns apart; what the engine
does in between depends on it, and a replay keeps to it.
"""

from __future__ import annotations

import asyncio
import sys
from types import FrameType
from typing import Final

__all__ = ["Pace"]

_QUIET_TURNS: Final = 8
"""Turns of the event loop that are counted after a line, though nothing is written in them."""
_RUN_CODE: Final = asyncio.Handle._run.__code__
"""The frame that runs one step; its caller is the frame of one turn."""


class Pace:
    """Counts steps (what ran without a pause) and turns of an event loop. Loop thread only."""

    def __init__(self) -> None:
        self.step = 0
        self.turn = 0
        self._step_frame: FrameType | None = None
        self._turn_frame: FrameType | None = None
        self._n_ticks = 0
        self._is_ticking = False
        self._is_stopped = False

    def note(self, loop: asyncio.AbstractEventLoop) -> None:
        """Count up to now, and for a few turns more; call it within the step that is meant."""
        self._count(sys._getframe(1))
        self._n_ticks = _QUIET_TURNS
        if not self._is_ticking and not self._is_stopped:
            self._is_ticking = True
            loop.call_soon(self._tick, loop)

    def stop(self) -> None:
        """Count no further, and keep no frame alive."""
        self._is_stopped = True
        self._step_frame = self._turn_frame = None

    def _count(self, frame: FrameType | None) -> None:
        while frame is not None and frame.f_code is not _RUN_CODE:
            frame = frame.f_back
        if (
            frame is None
        ):  # Before the loop runs, or on one that is not asyncio's own: each line counts by itself.
            self.step += 1
            self.turn += 1
            return
        # Frames are kept, so that a later one is never taken for an earlier one that lay at the same address.
        if frame is not self._step_frame:
            self.step += 1
            self._step_frame = frame
        if frame.f_back is not self._turn_frame:
            self.turn += 1
            self._turn_frame = frame.f_back

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        """Count a turn in which nothing is written."""
        self._n_ticks -= 1
        if self._is_stopped:
            return
        self._count(sys._getframe(0))
        if self._n_ticks > 0:
            loop.call_soon(self._tick, loop)
        else:
            self._is_ticking = False
            self._step_frame = self._turn_frame = None
