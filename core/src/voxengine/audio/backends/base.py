"""The contract of an audio backend.

A stream asks for blocks, or brings them, at its own pace from the moment of ``start``. An output's callback
is given a number of frames and returns exactly these; an input's is given a block. A device calls from its
own thread, everything else from the event loop. A callback that raises gives silence and is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import attrs

from voxengine.audio.devices import DeviceInfo, Direction
from voxengine.audio.format import AudioFormat

__all__ = [
    "BlockSink",
    "BlockSource",
    "Feed",
    "Pacing",
    "Stream",
    "StreamBackend",
    "StreamStats",
]

Pacing = Literal["real", "fast"]
"""``real``: by the loop's clock, which may be a virtual one. ``fast``: as fast as the other side keeps up."""


class Feed(Protocol):
    """The engine's end of a stream: a ring or a queue."""

    def pull(self, n_frames: int) -> bytes:
        """Return exactly ``n_frames`` frames to be played."""

    def push(self, block: bytes) -> None:
        """Take a block that was recorded."""

    def is_ready(self) -> bool:
        """Whether there is something to play, or room for what is recorded. A device does not ask."""

    def end(self) -> None:
        """Learn that the stream ended by itself: the source is exhausted, or ``error`` says what failed."""


@attrs.define
class StreamStats:
    """Counters of one stream. Written by its thread alone."""

    n_blocks: int = 0
    n_xruns: int = 0
    """How often the device ran dry or over, as far as it says."""
    n_errors: int = 0
    """How often the callback raised."""
    last_block_at: float = 0.0
    """Monotonic seconds of the last block; 0 before the first."""


class Stream(Protocol):
    """One direction of one device. Loop thread only, but for the callback."""

    direction: Direction
    device: DeviceInfo
    format: AudioFormat
    """What the callback is asked for, or brings: as near to what was wanted as the device takes."""
    block_frames: int
    stats: StreamStats
    is_watched: bool
    """Whether a lack of blocks means that it is lost. False where it waits for the other side."""

    error: Exception | None
    """Why it ended, where it knows."""

    async def start(self, feed: Feed) -> None:
        """Begin. The feed is called until ``detach`` or ``close``.

        Raises:
            AudioDeviceError: It cannot be started.
        """

    def is_active(self) -> bool:
        """Whether it runs, as far as it knows. Never blocks."""

    def is_ended(self) -> bool:
        """Whether an input has given all that it had, or an output cannot take more, for good."""

    def n_unplayed(self, at: float | None = None) -> int:
        """Estimate the frames that were handed over and are not audible, at least as many as are not.

        Args:
            at: When, in monotonic seconds, not before the last block; None for now.
        """

    def discard(self, emptied: Callable[[], object] | None = None) -> bool:
        """Make the device throw away what it holds; False when it cannot. Never blocks.

        Args:
            emptied: Called, in whatever thread, when it is thrown away and nothing else was pulled.

        Nothing is waited for: what is still audible when it takes effect is counted by :meth:`n_unplayed`
        as if it were not.
        """

    def wake(self) -> None:
        """Say that the feed may be ready again. A device needs no telling."""

    def detach(self) -> None:
        """Never call the feed again; an output goes on with silence. Never blocks."""

    async def close(self) -> None:
        """End it and wait for that with patience; twice is allowed. The feed is not called again."""


class StreamBackend(Protocol):
    """Opens streams."""

    name: str

    async def devices(self) -> list[DeviceInfo]:
        """Return what there is.

        Raises:
            AudioDeviceError: The system does not say.
        """

    async def open(
        self, direction: Direction, device: str | int | None, wanted: AudioFormat, block_ms: int
    ) -> Stream:
        """Open a stream that has not begun.

        Args:
            direction: ``input`` or ``output``.
            device: See :func:`~voxengine.audio.devices.choose_device`.
            wanted: The format to come nearest to.
            block_ms: Length of a block.

        Raises:
            AudioDeviceError: No such device, or it cannot be opened.
        """

    async def refresh(self) -> None:
        """Look for devices anew, where that is possible now."""

    async def close(self) -> None:
        """Let go of the system. Streams that are still open are closed with patience."""


class BlockSource(Protocol):
    """Where a paced input stream takes its blocks from."""

    def read(self, n_frames: int) -> bytes | None:
        """Return the next frames, fewer only at the end, ``b""`` after it, None when none are there yet."""

    def connect(self, wake: Callable[[], None]) -> None:
        """Remember what to call, from any thread, when ``read`` would no longer return None."""

    def close(self) -> None:
        """Let go of what is read."""


class BlockSink(Protocol):
    """What a paced output stream gives its blocks to."""

    def write(self, block: bytes) -> None:
        """Take a block.

        Raises:
            OSError: It cannot be written; the stream ends.
        """

    def has_room(self) -> bool:
        """Whether ``write`` takes another block now."""

    def n_waiting(self) -> int:
        """Bytes that were taken and are not gone yet."""

    def discard(self) -> None:
        """Let go of what waits, where that is possible."""

    def connect(self, wake: Callable[[], None]) -> None:
        """Remember what to call, from any thread, when there is room again."""

    async def close(self) -> None:
        """Let go of what is written, with patience for what waits.

        Raises:
            OSError: What waited could not be written.
        """
