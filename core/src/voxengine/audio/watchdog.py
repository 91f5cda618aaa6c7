"""One direction of audio that stays alive: the device while it works, the clock while it does not.

A device that is lost raises nothing. Its callbacks cease, and when the sound server hangs it even claims to
be running; so a line compares the time of the last block with the clock. What is lost is replaced at once by
a stream that the clock paces, and tried again, by name and then as the system's default.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, Literal

from voxengine.audio.backends.base import Feed, Stream, StreamBackend
from voxengine.audio.backends.paced import NullBackend
from voxengine.audio.devices import DeviceLost, DeviceOutcome, DeviceReturned, Direction
from voxengine.audio.format import AudioFormat
from voxengine.errors import AudioDeviceError, UsageError

__all__ = ["DeviceLine", "loss_threshold_s"]

_LOST_BLOCKS: Final = 5
_LOST_S: Final = 0.25
_FIRST_BLOCK_S: Final = 1.0
"""A device that has just been opened may take this long to begin."""
_LOOK_S: Final = 0.05
"""How often a stream is asked whether it is active."""
_CONFIRM: Final = 0.1
"""Part of the threshold that is waited for once more: while a process was held up as a whole, its clock ran
on and the device's thread had no turn yet."""
_FIRST_RETRY_S: Final = 0.25
_LAST_RETRY_S: Final = 5.0
_SETTLED_S: Final = 2.0
"""A device that has worked for so long is back. One that opens and falls silent again is tried ever more seldom."""


def loss_threshold_s(stream: Stream) -> float:
    """Return how long a running stream may be silent: five blocks, but not less than a quarter of a second."""
    return max(_LOST_BLOCKS * stream.block_frames / stream.format.sample_rate, _LOST_S)


class DeviceLine:
    """Opens a device, watches it, and keeps its feed supplied whatever happens to it.

    Args:
        direction: Of the audio.
        backend: Opens streams.
        device: Which device; None for the system's default.
        wanted: The format to come nearest to.
        block_ms: Length of a block.
        attach: Called on the loop with each stream before it starts, the first as well as those that stand
            in or come back; returns the feed for it.
        report: Told of each loss and each return, on the loop. The session goes on in both cases.

    Loop thread only.
    """

    def __init__(
        self,
        direction: Direction,
        backend: StreamBackend,
        device: str | int | None,
        wanted: AudioFormat,
        *,
        block_ms: int,
        attach: Callable[[Stream], Feed],
        report: Callable[[DeviceOutcome], None],
    ) -> None:
        self.direction: Direction = direction
        self._backend = backend
        self._wanted_device = device
        self._wanted = wanted
        self._block_ms = block_ms
        self._attach = attach
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._stream: Stream | None = None
        self._is_lost = False
        self._is_closed = False
        self._opened_at = 0.0
        self._suspected = False
        self._retry_s = _FIRST_RETRY_S
        self._timer: asyncio.TimerHandle | None = None
        self._retrying: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def stream(self) -> Stream | None:
        """The stream in force, which stands in while the device is lost; None before ``open``."""
        return self._stream

    @property
    def is_lost(self) -> bool:
        """Whether something stands in for the device."""
        return self._is_lost

    @property
    def device(self) -> str:
        """Name of the device, also while it is lost."""
        return self._name

    _name = ""

    async def open(self) -> None:
        """Open and start the device.

        Raises:
            AudioDeviceError: It cannot be opened.
            UsageError: It is open, or was closed.
        """
        if self._stream is not None or self._is_closed:
            raise UsageError(f"The {self.direction} line was opened before; make another one.")
        stream = await self._backend.open(self.direction, self._wanted_device, self._wanted, self._block_ms)
        try:
            await self._use(stream)
        except BaseException:
            self._dispose(stream)
            raise
        if self._was_closed():
            self._let_go()

    def _was_closed(self) -> bool:
        return self._is_closed

    async def _use(self, stream: Stream) -> None:
        """Put a stream in force."""
        self._stream = stream
        feed = self._attach(stream)
        self._opened_at = self._loop.time()
        await stream.start(feed)
        if self._stream is not stream:
            return
        if not self._is_lost:
            self._name = stream.device.name
        if stream.is_watched:
            self._look_after(_LOOK_S)

    async def close(self) -> None:
        """End the stream and every attempt; waits for the device with patience, but never for ever."""
        self._let_go()
        if self._retrying is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._retrying
        while self._ending:
            await asyncio.wait(set(self._ending))

    def close_soon(self) -> None:
        """The same without waiting: what ends the stream goes on in the background."""
        self._let_go()

    def _let_go(self) -> None:
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._retrying is not None:
            self._retrying.cancel()
        if self._stream is not None:
            self._dispose(self._stream)
            self._stream = None

    def _dispose(self, stream: Stream) -> None:
        stream.detach()
        task = self._loop.create_task(stream.close(), name="voxengine device close")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    # -- watching -----------------------------------------------------------------------------------

    def _look_after(self, delay_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(delay_s, self._look)

    def _look(self) -> None:
        self._timer = None
        stream = self._stream
        if stream is None or self._is_lost or not stream.is_watched:
            return
        if not stream.is_active():
            self._lose(stream, "stopped", self._silent_s(stream))
            return
        next_s = self._next_look_s(stream)
        if next_s is not None:
            self._look_after(next_s)

    def ended(self) -> None:
        """Learn from the feed that the stream ended by itself. One that failed is lost for good."""
        stream = self._stream
        if stream is not None and stream.error is not None and not self._is_lost:
            self._lose(stream, "failed", 0.0)

    def _silent_s(self, stream: Stream) -> float:
        return self._loop.time() - max(stream.stats.last_block_at, self._opened_at)

    def _next_look_s(self, stream: Stream) -> float | None:
        """Return when to look again, or take the stream for lost when a block is overdue and stays so."""
        limit_s = loss_threshold_s(stream)
        if not stream.stats.n_blocks:
            limit_s = max(limit_s, _FIRST_BLOCK_S)
        silent_s = self._silent_s(stream)
        if silent_s < limit_s:
            self._suspected = False
            return min(_LOOK_S, limit_s - silent_s + 0.001)
        if not self._suspected:
            self._suspected = True
            return _CONFIRM * limit_s
        self._suspected = False
        self._lose(stream, "silent", silent_s)
        return None

    def _lose(self, stream: Stream, reason: Literal["stopped", "silent", "failed"], silent_s: float) -> None:
        self._is_lost = True
        lost_at = self._loop.time()
        if stream.stats.last_block_at - self._opened_at >= _SETTLED_S:
            self._retry_s = _FIRST_RETRY_S
        self._stream = None
        self._dispose(stream)
        self._report(DeviceLost(self.direction, self._name, reason, int(silent_s * 1000), lost_at))
        if not self._is_closed:
            self._retrying = self._loop.create_task(
                self._restore(stream, lost_at, retry=reason != "failed"),
                name=f"voxengine {self.direction} retry",
            )

    # -- coming back --------------------------------------------------------------------------------

    async def _restore(self, lost: Stream, lost_at: float, *, retry: bool) -> None:
        stand_in = await NullBackend().open(self.direction, None, lost.format, self._block_ms)
        await self._use(stand_in)
        if not retry:
            return
        n_attempts = 0
        while True:
            await asyncio.sleep(self._retry_s)
            self._retry_s = min(2 * self._retry_s, _LAST_RETRY_S)
            n_attempts += 1
            found = await self._attempt()
            if found is None:
                continue
            stand_in.detach()
            self._is_lost = False
            name = self._name
            try:
                await self._use(found)
            except AudioDeviceError:
                self._is_lost = True
                self._dispose(found)
                await self._use(stand_in)
                continue
            self._dispose(stand_in)
            now = self._loop.time()
            self._report(
                DeviceReturned(
                    self.direction,
                    found.device.name,
                    found.device.name == name,
                    found.format,
                    int((now - lost_at) * 1000),
                    n_attempts,
                    now,
                )
            )
            return

    async def _attempt(self) -> Stream | None:
        """Return an opened stream: of the device that was lost, else of the system's default."""
        with contextlib.suppress(AudioDeviceError):
            await self._backend.refresh()
        for device in (self._name, None):
            opening = self._loop.create_task(
                self._backend.open(self.direction, device, self._wanted, self._block_ms)
            )
            try:
                return await asyncio.shield(opening)
            except AudioDeviceError:
                continue
            except asyncio.CancelledError:
                opening.add_done_callback(self._dispose_opened)
                raise
        return None

    def _dispose_opened(self, opening: asyncio.Task[Stream]) -> None:
        """Close what was opened for a line that was closed meanwhile."""
        if not opening.cancelled() and opening.exception() is None:
            self._dispose(opening.result())
