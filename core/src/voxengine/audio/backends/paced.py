"""Streams that the event loop drives: null, arrays, files and pipes, in real time or as fast as they go.

On a virtual clock they take no time at all, and an hour of audio is exchanged exactly as in real time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from voxengine.audio.backends.base import BlockSink, BlockSource, Feed, Pacing, StreamStats
from voxengine.audio.devices import DeviceInfo, Direction
from voxengine.audio.format import AudioFormat
from voxengine.errors import AudioDeviceError

__all__ = ["NullBackend", "NullSink", "PacedBackend", "PacedInput", "PacedOutput", "SilentSource"]

_CATCH_UP_S: Final = 2.0
"""A loop that was held up makes up for this much; what is beyond is left out."""
_FAST_BLOCKS: Final = 8
"""Blocks in one turn of the loop when there is no pace, so that others get theirs."""


class _Paced:
    """Blocks at absolute times, or as fast as both sides keep up.

    Where one of the sides is not ready no time passes: blocks go on from the moment in which it is.
    """

    is_watched = False

    def __init__(
        self,
        direction: Direction,
        device: DeviceInfo,
        audio_format: AudioFormat,
        block_ms: int,
        pacing: Pacing,
    ) -> None:
        self.direction: Direction = direction
        self.device = device
        self.format = audio_format
        self.block_frames = audio_format.sample_rate * block_ms // 1000
        self.stats = StreamStats()
        self.error: Exception | None = None
        self._block_s = self.block_frames / audio_format.sample_rate
        self._pacing = pacing
        self._loop = asyncio.get_running_loop()
        self._feed: Feed | None = None
        self._timer: asyncio.Handle | None = None
        self._due = 0.0
        self._is_parked = False
        self._is_ended = False

    async def start(self, feed: Feed) -> None:
        """Begin: the first block is due now."""
        self._feed = feed
        self._due = self._loop.time()
        self._schedule()

    def is_active(self) -> bool:
        """Whether blocks are exchanged, or would be if both sides were ready."""
        return self._feed is not None and not self._is_ended

    def is_ended(self) -> bool:
        """Whether the source is exhausted, or source or sink failed."""
        return self._is_ended

    def n_unplayed(self, at: float | None = None) -> int:
        """Nothing."""
        return 0

    def discard(self, emptied: Callable[[], object] | None = None) -> bool:
        """There is nothing to throw away."""
        return True

    def wake(self) -> None:
        """Go on, if the stream waits."""
        if self._is_parked and self.is_active():
            self._is_parked = False
            self._due = max(self._due, self._loop.time())
            self._schedule()

    def wake_from_anywhere(self) -> None:
        """The same from another thread."""
        try:
            self._loop.call_soon_threadsafe(self.wake)
        except RuntimeError:
            return  # The loop is closed: nobody waits for more.

    def detach(self) -> None:
        """Stop calling the feed, and stop."""
        self._feed = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._pacing == "fast":
            self._timer = self._loop.call_soon(self._tick)
        else:
            self._timer = self._loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._loop.time()
        self._due = max(self._due, now - _CATCH_UP_S)
        n_left = _FAST_BLOCKS if self._pacing == "fast" else int(_CATCH_UP_S / self._block_s) + 1
        while self.is_active() and n_left > 0 and (self._pacing == "fast" or self._due <= now + 1e-9):
            if not self._exchanged():
                self._is_parked = not self._is_ended
                return
            self.stats.n_blocks += 1
            self.stats.last_block_at = now
            self._due += self._block_s
            n_left -= 1
        if self.is_active():
            self._schedule()

    def _exchanged(self) -> bool:
        assert self._feed is not None
        try:
            return self._exchange(self._feed)
        except OSError as error:
            self._fail(error)
        except Exception as error:
            # A device's callback gives silence and goes on; here that would hide a fault for ever.
            self.stats.n_errors += 1
            self._fail(error)
        return False

    def _fail(self, error: Exception) -> None:
        self.error = error
        self._is_ended = True
        if self._feed is not None:
            self._feed.end()

    def _exchange(self, feed: Feed) -> bool:
        """Move one block; False when one of the sides is not ready, or at the end."""
        raise AssertionError(f"{type(self).__name__} moves no blocks")


class PacedInput(_Paced):
    """An input stream that reads a source. What is read is never dropped: it waits for room."""

    def __init__(
        self,
        device: DeviceInfo,
        audio_format: AudioFormat,
        block_ms: int,
        source: BlockSource,
        pacing: Pacing = "real",
    ) -> None:
        super().__init__("input", device, audio_format, block_ms, pacing)
        self._source = source
        source.connect(self.wake_from_anywhere)

    def _exchange(self, feed: Feed) -> bool:
        if not feed.is_ready():
            return False
        block = self._source.read(self.block_frames)
        if block is None:
            return False
        if not block:
            self._is_ended = True
            feed.end()
            return False
        feed.push(block)
        return True

    async def close(self) -> None:
        """Stop, and close the source."""
        self.detach()
        self._source.close()


class PacedOutput(_Paced):
    """An output stream that writes to a sink. Without a pace it writes sound only, no silence."""

    def __init__(
        self,
        device: DeviceInfo,
        audio_format: AudioFormat,
        block_ms: int,
        sink: BlockSink,
        pacing: Pacing = "real",
    ) -> None:
        super().__init__("output", device, audio_format, block_ms, pacing)
        self._sink = sink
        sink.connect(self.wake_from_anywhere)

    def _exchange(self, feed: Feed) -> bool:
        if not self._sink.has_room() or (self._pacing == "fast" and not feed.is_ready()):
            return False
        self._sink.write(feed.pull(self.block_frames))
        return True

    async def close(self) -> None:
        """Stop, and close the sink."""
        self.detach()
        try:
            await self._sink.close()
        except OSError as error:
            self.error = error

    def n_unplayed(self, at: float | None = None) -> int:
        """What waits in the sink."""
        return self._sink.n_waiting() // self.format.frame_bytes

    def discard(self, emptied: Callable[[], object] | None = None) -> bool:
        """Throw away what waits in the sink."""
        self._sink.discard()
        if emptied is not None:
            emptied()
        return True


class NullSink:
    """Takes everything at once and keeps nothing."""

    def write(self, block: bytes) -> None:
        """Let it go."""

    def has_room(self) -> bool:
        """Always."""
        return True

    def n_waiting(self) -> int:
        """Nothing."""
        return 0

    def discard(self) -> None:
        """Nothing waits."""

    def connect(self, wake: Callable[[], None]) -> None:
        """There is always room: nobody is called."""

    async def close(self) -> None:
        """Nothing to close."""


class SilentSource:
    """Silence without end."""

    def __init__(self, audio_format: AudioFormat) -> None:
        self._frame_bytes = audio_format.frame_bytes

    def read(self, n_frames: int) -> bytes | None:
        """Return that much silence."""
        return bytes(n_frames * self._frame_bytes)

    def connect(self, wake: Callable[[], None]) -> None:
        """There is always more: nobody is called."""

    def close(self) -> None:
        """Nothing to close."""


class PacedBackend:
    """A backend of one device, whose streams the loop drives.

    Args:
        name: Of the backend and of its device.
        make_source: Returns a source and its format, given the wanted one; None: there is no input.
        make_sink: Returns a sink for a format; None: there is no output.
        pacing: See :data:`~voxengine.audio.backends.base.Pacing`.
    """

    def __init__(
        self,
        name: str,
        make_source: Callable[[AudioFormat], tuple[BlockSource, AudioFormat]] | None,
        make_sink: Callable[[AudioFormat], BlockSink] | None,
        pacing: Pacing = "real",
    ) -> None:
        self.name = name
        self._make_source = make_source
        self._make_sink = make_sink
        self._pacing = pacing

    async def devices(self) -> list[DeviceInfo]:
        """Return the one device."""
        return [self._device(AudioFormat())]

    def _device(self, audio_format: AudioFormat) -> DeviceInfo:
        has_input, has_output = self._make_source is not None, self._make_sink is not None
        n_channels = audio_format.channels
        return DeviceInfo(
            index=0,
            name=self.name,
            host_api="none",
            max_input_channels=n_channels if has_input else 0,
            max_output_channels=n_channels if has_output else 0,
            default_sample_rate=audio_format.sample_rate,
            is_default_input=has_input,
            is_default_output=has_output,
        )

    async def open(
        self, direction: Direction, device: str | int | None, wanted: AudioFormat, block_ms: int
    ) -> PacedInput | PacedOutput:
        """Open a stream; whatever ``device`` says, it is the one that there is.

        Raises:
            AudioDeviceError: There is none in this direction, or it cannot be opened.
        """
        try:
            if direction == "input" and self._make_source is not None:
                source, audio_format = self._make_source(wanted)
                info = self._device(audio_format)
                return PacedInput(info, audio_format, block_ms, source, self._pacing)
            if direction == "output" and self._make_sink is not None:
                sink = self._make_sink(wanted)
                return PacedOutput(self._device(wanted), wanted, block_ms, sink, self._pacing)
        except OSError as error:
            raise AudioDeviceError(
                f"The {direction} of the {self.name} backend cannot be opened: {error}.", device=device
            ) from error
        raise AudioDeviceError(
            f"The {self.name} backend was given no {direction}.", reason="not_found", device=device
        )

    async def refresh(self) -> None:
        """Nothing to look for."""

    async def close(self) -> None:
        """Streams are closed by those who opened them."""


class NullBackend(PacedBackend):
    """Silence in, nothing out, by the loop's clock: for servers, for tests, and while a device is lost."""

    def __init__(self, pacing: Pacing = "real") -> None:
        super().__init__("null", lambda wanted: (SilentSource(wanted), wanted), lambda _: NullSink(), pacing)
