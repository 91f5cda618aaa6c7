"""What stands between the event loop and the loudspeaker's thread: tagged chunks, and an account of them.

:meth:`PlaybackRing.pull` runs in the device's callback. It waits for nothing, logs nothing and touches
neither numpy nor asyncio. There is one producer and one consumer; each counter has one writer, and data is
stored before the counter that publishes it. The interpreter's lock orders these stores; an interpreter
without it was not tried.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable
from typing import Final

import attrs

from voxengine.audio.format import AudioFormat, Encoding
from voxengine.errors import AudioFormatError

__all__ = ["PlaybackRing", "RingTrack"]

_NEVER: Final = -1
_CUT_PATIENCE_S: Final = 0.002
"""How long a flush waits for a block that is being cut in this moment: it takes microseconds."""
_RUNS: Final = 256
"""Stretches of one item, or of silence, that are remembered for taking back."""


@attrs.define(eq=False)
class RingTrack:
    """What was written and handed over of one item, in frames. Made by :meth:`PlaybackRing.track`."""

    item: str
    generation: int
    """Fixed when the item begins: what is written after a flush is refused."""
    written: int = 0
    handed: int = 0
    """Written by the consumer alone."""
    taken_back: int = 0
    """Handed over, and then thrown away by the device before it was audible."""
    is_finished: bool = False
    """No more of it will be written."""

    @property
    def played(self) -> int:
        """Frames that became audible, or are about to."""
        return self.handed - self.taken_back


class PlaybackRing:
    """A queue of chunks that a device takes in blocks of its own size, with an account of every frame.

    What is handed over, block by block, is the chunks in order, and silence where there is nothing to play.
    The start of a sound is faded in. Where sound ends (queue dry, flush) a mirror image of its last
    milliseconds is faded out behind it, so that no sample of it is altered or counted twice. Silence and
    fade-out count for no item.

    An item starts once ``prebuffer_ms`` of it are there, or it is finished, or it has waited twice that long;
    so does one that ran dry.

    Args:
        audio_format: Of chunks and blocks; PCM16.
        prebuffer_ms: See above.
        fade_ms: Length of the fades.
        limit_s: What may be queued; more is refused.
        wake: Called from the consumer's thread after a start, an end and each chunk. It must not block or
            raise.

    ``write``, ``track`` and ``finish`` belong to one thread, ``pull`` to another; :meth:`flush`,
    :meth:`cut`, :meth:`pause` and :meth:`resume` may come from any.
    """

    __slots__ = (
        "_at", "_chunks", "_consumed", "_data", "_dry", "_end", "_falling", "_flowing", "_flushed_at",
        "_flushing", "_frame", "_is_paused", "_is_playing", "_is_pulling", "_limit", "_live", "_n_faded", "_no_fade",
        "_prebuffer",
        "_rising", "_run_from", "_runs", "_silent", "_tail", "_track", "_waited", "_wake", "_written",
        "format", "generation", "n_refused", "n_underruns",
    )  # fmt: skip

    def __init__(
        self,
        audio_format: AudioFormat,
        *,
        prebuffer_ms: int = 40,
        fade_ms: int = 5,
        limit_s: float = 60.0,
        wake: Callable[[], None] | None = None,
    ) -> None:
        if audio_format.encoding is not Encoding.PCM16:
            raise AudioFormatError(f"A playback ring takes PCM16, not {audio_format.describe()}.")
        self.format = audio_format
        self._frame = audio_format.frame_bytes
        self._prebuffer = audio_format.n_bytes(prebuffer_ms)
        self._limit = audio_format.n_bytes(limit_s * 1000)
        self._rising = _rising(audio_format.sample_rate * fade_ms // 1000, audio_format.channels)
        self._falling = self._rising[::-1]
        self._wake = wake
        self._chunks: deque[tuple[RingTrack, bytes]] = deque()
        self._flushing = threading.Lock()
        self.generation = 0
        """Raised by each flush. A track of an older generation is not played."""
        self._is_paused = False
        self._flowing = 0
        """The generation that may go the short way: the present one, none while paused."""
        self.n_refused = 0
        """Frames that were refused: of an older generation, or no room."""
        self.n_underruns = 0
        """How often an item ran dry and then went on."""
        self._written = 0
        self._flushed_at = 0
        # The consumer's, in bytes:
        self._consumed = 0
        self._track = RingTrack("", _NEVER)
        self._data = b""
        self._at = 0
        self._end = 0
        """End of the head chunk, or 0 while a block needs more than a slice of it."""
        self._live = _NEVER
        """The generation that is being played."""
        self._is_playing = False
        self._n_faded = 0
        self._waited = 0
        self._tail = b""
        self._dry: RingTrack | None = None
        self._no_fade = _NEVER
        """The generation that begins without the fade-out of the one before it."""
        self._runs: deque[tuple[RingTrack | None, int]] = deque(maxlen=_RUNS)
        self._run_from = 0
        self._silent = 0
        self._is_pulling = False

    # -- the producer -----------------------------------------------------------------------------

    def track(self, item: str) -> RingTrack:
        """Begin an item in the present generation."""
        return RingTrack(item, self.generation)

    def write(self, track: RingTrack, data: bytes) -> bool:
        """Queue a chunk; False, and counted, when its generation was flushed or there is no room.

        Args:
            track: The item.
            data: Whole frames; kept, not copied.

        Raises:
            AudioFormatError: No whole number of frames.
        """
        size = len(data)
        n_frames, rest = divmod(size, self._frame)
        if rest:
            self.format.check_aligned(size, "PlaybackRing.write")
        written = self._written + size
        # The plain difference first: it is never less than what waits, and costs half of looking closely.
        has_room = (
            written - self._consumed - self._at <= self._limit or self.queued_bytes + size <= self._limit
        )
        if track.generation != self.generation or not has_room:
            self.n_refused += n_frames
            return False
        if size:
            track.written += n_frames
            self._written = written
            self._chunks.append((track, data))
        return True

    def finish(self, track: RingTrack) -> None:
        """Say that no more of an item follows: it need not wait for its prebuffer."""
        track.is_finished = True

    # -- anyone -----------------------------------------------------------------------------------

    @property
    def queued_bytes(self) -> int:
        """What waits to be handed over. From a thread that is not the consumer, off by at most a block."""
        return self._written - max(self._consumed + self._at, self._flushed_at)

    @property
    def queued_ms(self) -> float:
        """The same in milliseconds."""
        return self.format.duration_ms(self.queued_bytes)

    @property
    def has_audio(self) -> bool:
        """Whether the next block holds more than silence."""
        generation = self.generation
        if self._tail or self._is_playing:
            return True
        if self._live == generation and self._at < len(self._data):
            return self._may_start(self._track)
        head = next((track for track, _ in list(self._chunks) if track.generation == generation), None)
        return head is not None and self._may_start(head)

    def flush(self) -> None:
        """Silence what is playing and drop what is queued: one increment, however much that is.

        When this returns the counters are final: a block that was being cut has been counted. (Should that
        block take more than 2 ms, because its thread is not let run, it is counted afterwards.)
        """
        with self._flushing:
            self._flushed_at = self._written
            self.generation += 1
            self._is_paused, self._flowing = False, self.generation
            deadline = time.perf_counter() + _CUT_PATIENCE_S
            while self._is_pulling:
                if time.perf_counter() > deadline:
                    break
                time.sleep(0)

    def pause(self) -> None:
        """Fall silent from the next block on, and keep what waits. A flush ends the pause as well."""
        with self._flushing:
            self._is_paused, self._flowing = True, _NEVER - 1

    def resume(self) -> None:
        """Go on where the sound stopped, fading in. The pause is no underrun."""
        with self._flushing:
            self._is_paused, self._flowing = False, self.generation

    def cut(self, n_unplayed: Callable[[], int], discard: Callable[[], bool]) -> int:
        """Flush, and take back what the device is made to throw away.

        Args:
            n_unplayed: Returns how many of the frames last handed over are not audible yet.
            discard: Makes the device throw them away; False when it cannot: then they will be heard.

        Returns:
            Frames of items that were taken back; silence among what is thrown away is none.
        """
        self.flush()
        # First what was handed over, then how much of it is unplayed: a block handed over in between then
        # makes too much unplayed, never too little.
        runs = self._handed_runs()
        n_frames = n_unplayed()
        # What would fade out is thrown away, so the fade would come alone, behind a gap.
        self._no_fade = self.generation
        if not discard():
            self._no_fade = _NEVER
            return 0
        return self._take_back(runs, n_frames)

    def take_back(self, n_frames: int) -> int:
        """Count frames that were handed over last as not played: their device is gone.

        Only while nobody pulls. Returns the frames of items among them.
        """
        return self._take_back(self._handed_runs(), n_frames)

    def unplayed(self) -> list[tuple[RingTrack, bytes]]:
        """Take what waits, in order, out of a ring that nobody pulls from any more."""
        left = [(self._track, self._data[self._at :])] if self._live == self.generation else []
        left += [(track, data) for track, data in self._chunks if track.generation == self.generation]
        self._chunks.clear()
        self._data = b""
        self._at = self._end = 0
        self._consumed = self._written
        return [(track, data) for track, data in left if data]

    def recent(self, n_frames: int) -> bytes:
        """Return at most that many of the frames that are being played, none in silence: for a meter."""
        data, at = self._data, self._at
        return data[max(0, at - n_frames * self._frame) : at] if self._is_playing else b""

    def _handed_runs(self) -> list[tuple[RingTrack | None, int]]:
        # The present stretch first: should it be closed in this moment it is counted twice, never not at all.
        track = self._track
        present = (track, track.handed - self._run_from) if self._is_playing else (None, self._silent)
        return [*self._runs, present]

    @staticmethod
    def _take_back(runs: list[tuple[RingTrack | None, int]], n_frames: int) -> int:
        taken = 0
        for track, length in reversed(runs):
            if n_frames <= 0:
                break
            part = min(length, n_frames)
            n_frames -= part
            if track is not None:
                part = min(part, track.played)
                track.taken_back += part
                taken += part
        return taken

    # -- the consumer -----------------------------------------------------------------------------

    def pull(self, n_frames: int) -> bytes:
        """Return exactly ``n_frames`` frames. Runs in the device's callback: never blocks, never raises."""
        self._is_pulling = True
        at = self._at
        end = at + n_frames * self._frame
        if end <= self._end and self._live == self._flowing:
            self._at = end
            self._track.handed += n_frames
            self._is_pulling = False
            return self._data[at:end]
        try:
            return self._next_chunk(n_frames) or self._assembled(n_frames * self._frame)
        finally:
            self._is_pulling = False

    def _next_chunk(self, n_frames: int) -> bytes:
        """Return a block from the start of the next chunk of the same item, when the head just ended there."""
        size = n_frames * self._frame
        if self._end and self._at == self._end and self._chunks:
            track, data = self._chunks[0]
            if track is self._track and self._live == track.generation == self._flowing:
                end = len(data)
                if end >= size:
                    self._chunks.popleft()
                    self._consumed += self._end
                    self._data = data
                    self._at = size
                    self._end = end
                    track.handed += n_frames
                    if self._wake is not None:
                        self._wake()
                    return data[:size]
        return b""

    def _assembled(self, size: int) -> bytes:
        """Return a block that is more than a slice of the head chunk."""
        generation = self.generation
        out = bytearray()
        if self._live != generation:
            self._stop()
            if self._no_fade == generation:
                self._tail = b""
            self._drop_head()
            self._live = generation
            self._dry = None
        elif self._is_paused:
            self._stop()
        self._put_tail(out, size)
        while len(out) < size:
            if self._at >= len(self._data) and not self._advance(generation):
                self._run_dry()
                self._put_tail(out, size)
                self._put_silence(out, size)
            elif not self._is_playing and not self._start():
                self._waited += size - len(out)
                self._put_silence(out, size)
            else:
                self._put_audio(out, size)
        # While it fades in, each block needs more than a slice.
        fading = self._n_faded < len(self._rising)
        self._end = 0 if fading or not self._is_playing or self._tail else len(self._data)
        return bytes(out)

    def _advance(self, generation: int) -> bool:
        """Make the next chunk of the generation the head; False when there is none."""
        while self._chunks:
            track, data = self._chunks[0]
            if track.generation > generation:
                return False  # Flushed in this moment: the next block begins it.
            self._chunks.popleft()
            if track.generation < generation:
                self._consumed += len(data)
                continue
            self._drop_head()
            if self._is_playing and track is not self._track:
                self._close_run()
                self._track, self._data = track, data
                self._run_from = track.handed
                self._waited = 0
                if not self._may_start(track):
                    self._is_playing = False
            else:
                self._track, self._data = track, data
            self._tell()
            return True
        return False

    def _tell(self) -> None:
        if self._wake is not None:
            self._wake()

    def _drop_head(self) -> None:
        size = len(self._data)
        self._data = b""
        self._at = 0
        self._consumed += size

    def _may_start(self, track: RingTrack) -> bool:
        return not self._is_paused and (
            track.is_finished or self._waited >= 2 * self._prebuffer or self.queued_bytes >= self._prebuffer
        )

    def _start(self) -> bool:
        track = self._track
        if not self._may_start(track):
            return False
        if self._dry is track:
            self.n_underruns += 1
        self._dry = None
        if self._silent:
            self._runs.append((None, self._silent))
            self._silent = 0
        self._is_playing = True
        self._run_from = track.handed
        self._n_faded = 0
        self._waited = 0
        self._tell()
        return True

    def _run_dry(self) -> None:
        if self._is_playing:
            self._dry = self._track
            self._stop()
            self._tell()

    def _stop(self) -> None:
        """Let the sound fade behind its last frame."""
        if not self._is_playing:
            return
        self._close_run()
        self._is_playing = False
        self._waited = 0
        heard = self._data[max(0, self._at - 2 * len(self._falling)) : self._at]
        self._tail = _mirrored(heard, self._falling, self.format.channels)

    def _close_run(self) -> None:
        self._runs.append((self._track, self._track.handed - self._run_from))

    def _put_tail(self, out: bytearray, size: int) -> None:
        if self._tail:
            part = self._tail[: size - len(out)]
            self._tail = self._tail[len(part) :]
            out += part
            self._silent += len(part) // self._frame

    def _put_silence(self, out: bytearray, size: int) -> None:
        missing = size - len(out)
        out += bytes(missing)
        self._silent += missing // self._frame

    def _put_audio(self, out: bytearray, size: int) -> None:
        piece = self._data[self._at : self._at + size - len(out)]
        self._at += len(piece)
        self._track.handed += len(piece) // self._frame
        if self._n_faded < len(self._rising):
            gains = self._rising[self._n_faded : self._n_faded + len(piece) // 2]
            self._n_faded += len(gains)
            piece = _scaled(piece[: 2 * len(gains)], gains) + piece[2 * len(gains) :]
        out += piece


def _rising(n_frames: int, channels: int) -> list[float]:
    """Gains of a raised cosine from nearly 0 to nearly 1, one for each sample of the frames."""
    steps = [0.5 - 0.5 * math.cos(math.pi * (n + 0.5) / n_frames) for n in range(n_frames)]
    return [gain for gain in steps for _ in range(channels)]


def _samples(data: bytes) -> array[int]:
    samples = array("h", data)
    if sys.byteorder == "big":
        samples.byteswap()
    return samples


def _scaled(data: bytes, gains: list[float]) -> bytes:
    scaled = array("h", [int(x * gain) for x, gain in zip(_samples(data), gains, strict=True)])
    if sys.byteorder == "big":
        scaled.byteswap()
    return scaled.tobytes()


def _mirrored(data: bytes, gains: list[float], channels: int) -> bytes:
    """Return frames in reverse order with the last of ``gains``; nothing for what is as good as silent."""
    samples = _samples(data)
    if not samples or max(map(abs, samples)) < 8:
        return b""
    frames = zip(*(samples[channel::channels] for channel in range(channels)), strict=True)
    backwards = array("h", [x for frame in reversed(list(frames)) for x in frame])
    if sys.byteorder == "big":
        backwards.byteswap()
    if len(samples) < len(gains):  # Blocks shorter than the fade: as much of it as can be made, in full.
        n_steps = len(gains) // channels
        n_frames = len(samples) // channels
        gains = [gains[n * n_steps // n_frames * channels] for n in range(n_frames) for _ in range(channels)]
    return _scaled(backwards.tobytes(), gains)
