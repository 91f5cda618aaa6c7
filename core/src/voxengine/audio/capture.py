"""The microphone: a device's blocks, brought to the loop in the format that is wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import attrs

from voxengine.audio.backends.base import Feed, Stream, StreamBackend
from voxengine.audio.buffers import CaptureQueue
from voxengine.audio.devices import DeviceOutcome, InputDropped
from voxengine.audio.format import AudioFormat
from voxengine.audio.levels import Gain, LevelMeter
from voxengine.audio.pcm import FormatConverter
from voxengine.audio.processors import AudioProcessor, EchoReference, ProcessorChain
from voxengine.audio.watchdog import DeviceLine
from voxengine.errors import UsageError

__all__ = ["Microphone"]


@attrs.define(eq=False)
class _QueueFeed:
    """A queue as a stream sees it."""

    push: Callable[[bytes], None]
    _is_ready: Callable[[], bool]
    _end: Callable[[], None]

    def pull(self, n_frames: int) -> bytes:
        """An input is asked for nothing."""
        raise UsageError("An input stream takes no audio.")

    def is_ready(self) -> bool:
        return self._is_ready()

    def end(self) -> None:
        self._end()


class Microphone:
    """Audio of an input device, for one reader.

    Args:
        backend: Opens the device, and another one when that is lost.
        audio_format: What ``read`` returns; PCM16. The device is opened at it, else converted.
        device: Its name or index; None for the system's default.
        block_ms: Length of the device's blocks.
        gain_db: How much louder it is made.
        limit_ms: What may wait for ``read``; beyond, the oldest is dropped and reported. Files, pipes and
            arrays wait instead.
        on_loss: What is read while the device is lost: ``silence`` in real time, so that a service's turn
            detection goes on, or nothing (``pause``).
        processors: Applied after conversion and gain, in a thread.
        reference: What the loudspeaker is given, for the processors.
        report: Told of losses, returns and dropped audio, on the loop.

    Loop thread only.
    """

    def __init__(
        self,
        backend: StreamBackend,
        audio_format: AudioFormat,
        *,
        device: str | int | None = None,
        block_ms: int = 20,
        gain_db: float = 0.0,
        limit_ms: int = 500,
        on_loss: Literal["silence", "pause"] = "silence",
        processors: Sequence[AudioProcessor] = (),
        reference: EchoReference | None = None,
        report: Callable[[DeviceOutcome], None] = lambda outcome: None,
    ) -> None:
        self.format = audio_format
        self.meter = LevelMeter(audio_format)
        """How loud what was read last is."""
        self._limit_ms = limit_ms
        self._on_loss = on_loss
        self._report = report
        self._gain = Gain(gain_db)
        self._chain = ProcessorChain(processors, audio_format, reference) if processors else None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="voxengine audio") if processors else None
        self._loop = asyncio.get_running_loop()
        self._line = DeviceLine(
            "input", backend, device, audio_format, block_ms=block_ms, attach=self._attach, report=report
        )
        self._queue: CaptureQueue | None = None
        self._device_format = audio_format
        self._converter: FormatConverter | None = None
        self._earlier: list[bytes] = []
        """Converted audio of a device that took another format than the present one."""
        self._arrived = asyncio.Event()
        self._n_dropped = 0
        self._n_reported = 0
        self._is_ended = False
        self._is_reading = False

    # -- the device ---------------------------------------------------------------------------------

    async def open(self) -> None:
        """Begin to record.

        Raises:
            AudioDeviceError: The device cannot be opened.
        """
        await self._line.open()

    @property
    def device(self) -> str:
        """The device's name, also while it is lost; empty before ``open``."""
        return self._line.device

    @property
    def is_lost(self) -> bool:
        """Whether the device is lost."""
        return self._line.is_lost

    @property
    def device_format(self) -> AudioFormat:
        """What the device gives."""
        return self._device_format

    @property
    def stream(self) -> Stream | None:
        """The stream in force, with its ``stats``."""
        return self._line.stream

    @property
    def dropped_frames(self) -> int:
        """Frames of the device that were dropped so far, since nobody read them in time."""
        return self._n_dropped + (self._queue.dropped_frames if self._queue is not None else 0)

    @property
    def failed_processors(self) -> list[str]:
        """Processors that were left out because they failed."""
        return list(self._chain.failed) if self._chain is not None else []

    def _attach(self, stream: Stream) -> Feed:
        """Let a stream record: the device's, or what stands in for it."""
        if self._line.is_lost and self._on_loss == "pause":
            return _QueueFeed(lambda block: None, lambda: True, self._line.ended)
        queue = self._queue
        if queue is None or stream.format != self._device_format or queue.block_frames != stream.block_frames:
            if queue is not None:
                self._earlier.append(self._converted(queue.drain()))
                self._n_dropped += queue.dropped_frames
                self._earlier.append(self._converter.flush() if self._converter is not None else b"")
            limit = self._limit_ms * stream.format.sample_rate // 1000
            self._queue = queue = CaptureQueue(stream.block_frames, limit, self._wake)
            self._device_format = stream.format
            self._converter = None
            if stream.format != self.format:
                # Not aligned: full blocks then give full blocks, from the first one on.
                self._converter = FormatConverter(stream.format, self.format, aligned=False)
        held = queue

        return _QueueFeed(held.push, lambda: held.has_room, self._stream_ended)

    def _stream_ended(self) -> None:
        stream = self._line.stream
        if stream is not None and stream.error is not None:
            self._line.ended()
            if self._on_loss == "silence":
                return
        self._is_ended = True
        self._arrived.set()

    def _wake(self) -> None:
        """A block arrived. From the device's thread."""
        try:
            self._loop.call_soon_threadsafe(self._arrived.set)
        except RuntimeError:
            return  # The loop is closed: nobody reads any more.

    # -- the reader ---------------------------------------------------------------------------------

    async def read(self) -> bytes:
        """Wait for audio and return all that is there, in ``format``; ``b""`` at the end of a file or pipe,
        and after ``close``.

        Raises:
            UsageError: Another ``read`` is waiting.
        """
        if self._is_reading:
            raise UsageError("Microphone.read: another read is waiting. One reader at a time.")
        self._is_reading = True
        try:
            while True:
                self._arrived.clear()
                data = self._taken()
                if data and self._chain is not None:
                    data = await self._processed(data)
                if data:
                    self.meter.push(data)
                    return data
                if self._is_ended:
                    return self._rest()
                await self._arrived.wait()
        finally:
            self._is_reading = False

    def _taken(self) -> bytes:
        parts, self._earlier = self._earlier, []
        if self._queue is not None:
            parts.append(self._converted(self._queue.drain()))
            self._tell_dropped()
        stream = self._line.stream
        if stream is not None:
            stream.wake()
        return b"".join(parts)

    def _converted(self, blocks: list[bytes]) -> bytes:
        data = blocks[0] if len(blocks) == 1 else b"".join(blocks)
        if self._converter is not None and data:
            data = self._converter.process(data)
        return self._gain.process(data)

    async def _processed(self, data: bytes) -> bytes:
        assert self._chain is not None
        return await self._loop.run_in_executor(self._executor, self._chain.process, data)

    def _rest(self) -> bytes:
        """Return, once, what the filters still hold."""
        converter, self._converter = self._converter, None
        rest = self._gain.process(converter.flush()) if converter is not None else b""
        if self._chain is not None:
            rest = self._chain.process(rest) + self._chain.flush()
        return rest

    def _tell_dropped(self) -> None:
        n_new = self.dropped_frames - self._n_reported
        if n_new > 0:
            self._n_reported += n_new
            n_ms = n_new * 1000 // self._device_format.sample_rate
            self._report(InputDropped(n_ms * self.format.sample_rate // 1000, n_ms, self._loop.time()))

    # -- the end ------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop recording and let go of the device in the background. What waits can still be read."""
        self._line.close_soon()
        self._finish()

    async def aclose(self) -> None:
        """Stop recording, and wait until the device is closed or has been given up."""
        self._finish()
        await self._line.close()

    def _finish(self) -> None:
        self._is_ended = True
        self._arrived.set()
        if self._executor is not None:
            self._executor.shutdown(wait=False)
            self._executor = None
