"""The device as the clock of playback: what it was handed is what was played.

:class:`DevicePlaybackClock` keeps the agent's audio as it came, converts it a little ahead of the device, and
counts what the device takes. An interruption is one increment, and what was heard is known when it returns.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Literal

import attrs

from voxengine.audio.backends.base import Feed, Stream, StreamBackend
from voxengine.audio.devices import DeviceOutcome
from voxengine.audio.format import AudioFormat
from voxengine.audio.levels import Gain, LevelMeter
from voxengine.audio.pcm import FormatConverter
from voxengine.audio.playback import ItemKey, PlaybackListener
from voxengine.audio.processors import EchoReference
from voxengine.audio.rings import PlaybackRing, RingTrack
from voxengine.audio.watchdog import DeviceLine
from voxengine.events import LazyAudio

__all__ = ["DevicePlaybackClock", "FlushMode"]

FlushMode = Literal["hard", "soft"]
"""``hard``: the device throws away what it holds, where it can. ``soft``: that is still played."""

_AHEAD_MS: Final = 2000
"""Audio that is decoded and converted ahead of the device: what a blocked loop survives."""
_PIECE_MS: Final = 200
"""Chunks of the ring are no longer: it wakes the loop at the end of each, to be filled up."""
_REMEMBERED_ITEMS: Final = 256
_METER_MS: Final = 20


@attrs.define(eq=False)
class _Item:
    """An item on its way to the device. Counts are frames of the source."""

    id: ItemKey
    written: int = 0
    fed: int = 0
    """Handed to the ring."""
    carried: int = 0
    """Played through rings of earlier devices."""
    pending: deque[bytes | LazyAudio] = attrs.field(factory=deque)
    at: int = 0
    """Bytes of the first pending piece that are fed already."""
    track: RingTrack | None = None
    converter: FormatConverter | None = None
    is_finished: bool = False
    is_fed: bool = False
    """The ring has all of it and knows so."""
    is_started: bool = False
    is_ended: bool = False
    final: int = 0
    """What was played of it, once it has ended."""


@attrs.define(eq=False)
class _RingFeed:
    """A ring as a stream sees it."""

    pull: Callable[[int], bytes]
    _ring: PlaybackRing
    _line: DeviceLine

    def push(self, block: bytes) -> None:
        """An output brings nothing."""

    def is_ready(self) -> bool:
        return self._ring.has_audio

    def end(self) -> None:
        self._line.ended()


class DevicePlaybackClock:
    """Plays through a device, and believes what the device took. Fulfils ``PlaybackClock``.

    Args:
        audio_format: What is written; PCM16 or G.711.
        listener: Told about starts and stops, on the loop.
        backend: Opens the device, and another one when that is lost.
        device: Its name or index; None for the system's default.
        block_ms: Length of the device's blocks.
        prebuffer_ms: What has to be there before an item starts.
        gain_db: How much louder it is played.
        flush: What an interruption does to the sound that the device holds.
        reference: Is given every block that the device is given, for echo cancelling.
        limit_s: What may wait to be played; more is refused and counted.
        report: Told when the device is lost and when one is back, on the loop. Meanwhile the clock paces
            itself and what it plays counts as played.

    Audio that is written before :meth:`open` waits. Loop thread only.
    """

    name = "device"

    def __init__(
        self,
        audio_format: AudioFormat,
        listener: PlaybackListener,
        backend: StreamBackend,
        *,
        device: str | int | None = None,
        block_ms: int = 20,
        prebuffer_ms: int = 40,
        gain_db: float = 0.0,
        flush: FlushMode = "hard",
        reference: EchoReference | None = None,
        limit_s: float = 600.0,
        report: Callable[[DeviceOutcome], None] = lambda outcome: None,
    ) -> None:
        self.format = audio_format
        self.n_refused = 0
        """Frames that were refused, since ``limit_s`` were waiting."""
        self._listener = listener
        self._prebuffer_ms = prebuffer_ms
        self._gain = Gain(gain_db)
        self._flush_mode: FlushMode = flush
        self._reference = reference
        self._limit = int(limit_s * audio_format.sample_rate)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        wanted = audio_format.as_pcm16
        self._line = DeviceLine(
            "output", backend, device, wanted, block_ms=block_ms, attach=self._attach, report=report
        )
        self._ring: PlaybackRing | None = None
        self._stream: Stream | None = None
        self._is_woken = False
        self._items: dict[ItemKey, _Item] = {}
        self._queue: deque[_Item] = deque()
        self._ended_total = 0
        self._notes: deque[Callable[[], None]] = deque()
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_paused = False

    # -- the device ---------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the device and begin to play what waits.

        Raises:
            AudioDeviceError: It cannot be opened. The clock may be closed, not opened again.
        """
        await self._line.open()
        self._advance()

    @property
    def device(self) -> str:
        """The device's name, also while it is lost; empty before ``open``."""
        return self._line.device

    @property
    def is_lost(self) -> bool:
        """Whether the clock stands in for a lost device."""
        return self._line.is_lost

    @property
    def device_format(self) -> AudioFormat | None:
        """What the device is given; None before ``open``."""
        return self._ring.format if self._ring is not None else None

    @property
    def n_underruns(self) -> int:
        """How often an item ran dry and then went on."""
        return self._ring.n_underruns if self._ring is not None else 0

    @property
    def stream(self) -> Stream | None:
        """The stream in force, with its ``stats``."""
        return self._line.stream

    def level_db(self) -> float:
        """Return how loud it is now, in dB relative to full scale; -100 for silence."""
        ring = self._ring
        recent = ring.recent(ring.format.sample_rate * _METER_MS // 1000) if ring is not None else b""
        if ring is None or not recent:
            return -100.0
        meter = LevelMeter(ring.format)
        meter.push(recent)
        return meter.rms_db

    def _attach(self, stream: Stream) -> Feed:
        """Let a stream play: the device's, or what stands in for it."""
        before, self._stream = self._stream, stream
        ring = self._ring
        if ring is not None and before is not None and self._line.is_lost and before.is_watched:
            # What the lost device held was not heard, or nobody can tell.
            ring.take_back(before.n_unplayed(before.stats.last_block_at))
        if ring is None or ring.format != stream.format:
            made = PlaybackRing(stream.format, prebuffer_ms=self._prebuffer_ms, wake=self._wake)
            if ring is not None:
                made.n_underruns = ring.n_underruns
                self._move(ring, made)
            if self._is_paused:
                made.pause()
            self._ring = ring = made
        if self._reference is None:
            return _RingFeed(ring.pull, ring, self._line)
        self._reference.output_format = ring.format
        self._reference.restart()
        return _RingFeed(functools.partial(_pull_and_tell, ring.pull, self._reference.push), ring, self._line)

    def _move(self, old: PlaybackRing, new: PlaybackRing) -> None:
        """Go on with what waits in the ring of a device that took another format."""
        left = old.unplayed()
        for item in self._queue:
            if item.track is None:
                continue
            before = item.track
            waiting = b"".join(data for track, data in left if track is before)
            if item.converter is not None:
                waiting += item.converter.flush()
                item.converter = None
            item.carried = self._played(item)
            item.track = new.track(item.id)
            again = FormatConverter(old.format, new.format)
            rest = again.process(waiting) + again.flush()
            size = new.format.n_bytes(_PIECE_MS)
            for at in range(0, len(rest), size):
                new.write(item.track, rest[at : at + size])
            if item.is_fed:
                new.finish(item.track)

    # -- the contract -------------------------------------------------------------------------------

    def write(self, item: ItemKey, n_frames: int, audio: bytes | LazyAudio | None = None) -> None:
        """Queue audio of an item behind what is queued.

        Args:
            item: Names it. After its end the same name begins another item.
            n_frames: Length.
            audio: Of that length in ``format``, decoded only when its turn is near; None: silence, which counts.

        An item waits until the one before it is finished.
        """
        held = self._items.get(item)
        if held is None or held.is_ended:
            held = _Item(item)
            self._items.pop(item, None)
            self._items[item] = held
            self._queue.append(held)
            self._idle.clear()
            self._forget()
        waiting = sum(each.written for each in self._queue) - sum(map(self._played, self._queue))
        if waiting + n_frames > self._limit:
            self.n_refused += n_frames
            return
        held.written += n_frames
        held.pending.append(self.format.silence(n_frames) if audio is None else audio)
        self._advance()

    def finish(self, item: ItemKey) -> None:
        """Say that no more audio of the item follows."""
        held = self._items.get(item)
        if held is not None:
            held.is_finished = True
        self._advance()

    def flush(self) -> None:
        """Silence everything at once. What was played is known when this returns, and never too much.

        With ``flush="hard"`` it may be less than :meth:`played_ms` said before, by what the device held.
        """
        ring, stream = self._ring, self._line.stream
        was_paused, self._is_paused = self._is_paused, False
        if ring is not None and (self._queue or was_paused):
            if self._flush_mode == "hard" and stream is not None:
                emptied = self._reference.restart if self._reference is not None else None
                ring.cut(stream.n_unplayed, functools.partial(stream.discard, emptied))
            else:
                ring.flush()
        self._note_starts()
        while self._queue:
            self._end(self._queue[0])
        self._notify()

    def pause(self) -> None:
        """Fall silent as after a soft flush, and keep what waits; what the device holds is still played."""
        self._is_paused = True
        if self._ring is not None:
            self._ring.pause()

    def resume(self) -> None:
        """Go on with the next frame."""
        if not self._is_paused:
            return
        self._is_paused = False
        if self._ring is not None:
            self._ring.resume()
        stream = self._line.stream
        if stream is not None:
            stream.wake()

    def open_items(self) -> list[ItemKey]:
        """Return the items that have not ended."""
        self._advance()
        return [item.id for item in self._queue]

    def played_ms(self, item: ItemKey) -> int:
        """How much of the item the device was handed, rounded down; 0 for an unknown one."""
        return self.played_frames(item) * 1000 // self.format.sample_rate

    def played_frames(self, item: ItemKey) -> int:
        """The same in frames of ``format``."""
        held = self._items.get(item)
        return self._played(held) if held is not None else 0

    def total_played_ms(self) -> int:
        """How much was played in all."""
        total = self._ended_total + sum(map(self._played, self._queue))
        return total * 1000 // self.format.sample_rate

    @property
    def current(self) -> ItemKey | None:
        """The item that is being played or waits to be; None when nothing does."""
        self._advance()
        return next((item.id for item in self._queue if item.written), None)

    def close(self) -> None:
        """Silence everything and let go of the device in the background."""
        self.flush()
        self._line.close_soon()

    async def aclose(self) -> None:
        """Silence everything, and wait until the device is closed or has been given up."""
        self.flush()
        await self._line.close()

    async def wait_played(self) -> None:
        """Wait until everything was handed over and the device has played it."""
        await self._idle.wait()
        stream = self._line.stream
        if stream is not None:
            await asyncio.sleep(stream.n_unplayed() / stream.format.sample_rate)

    # -- between loop and ring ----------------------------------------------------------------------

    def _wake(self) -> None:
        """Something changed in the ring. From its consumer's thread."""
        if self._is_woken:
            return
        self._is_woken = True
        try:
            if threading.get_ident() == self._thread:
                self._loop.call_soon(self._woken)
            else:
                self._loop.call_soon_threadsafe(self._woken)
        except RuntimeError:
            return  # The loop is closed: nobody listens any more.

    def _woken(self) -> None:
        self._is_woken = False
        self._advance()

    def _advance(self) -> None:
        """Feed the ring, note what it played, then tell the listener, who may call again."""
        self._feed_ring()
        self._note_starts()
        while self._queue and self._is_through(self._queue[0]):
            self._end(self._queue[0])
        self._notify()

    def _feed_ring(self) -> None:
        ring, stream = self._ring, self._line.stream
        if ring is None:
            return
        has_fed = False
        for item in self._queue:
            if item.is_fed:
                continue
            while item.pending and ring.queued_ms < _AHEAD_MS:
                self._feed_piece(ring, item)
                has_fed = True
            if item.pending or not item.is_finished:
                break  # What is behind it waits for more of it.
            self._feed_end(ring, item)
            has_fed = True
        if has_fed and stream is not None:
            stream.wake()

    def _feed_piece(self, ring: PlaybackRing, item: _Item) -> None:
        piece = item.pending[0]
        data = piece if isinstance(piece, bytes) else piece.pcm()
        end = item.at + self.format.n_bytes(_PIECE_MS)
        part = data if item.at == 0 and end >= len(data) else data[item.at : end]
        if end >= len(data):
            item.pending.popleft()
            item.at = 0
        else:
            item.at = end
        item.fed += self.format.n_frames(len(part))
        if ring.format != self.format:
            if item.converter is None:
                item.converter = FormatConverter(self.format, ring.format)
            part = item.converter.process(part)
        if item.track is None:
            item.track = ring.track(item.id)
        ring.write(item.track, self._gain.process(part))

    def _feed_end(self, ring: PlaybackRing, item: _Item) -> None:
        item.is_fed = True
        if item.track is not None:
            if item.converter is not None:
                ring.write(item.track, self._gain.process(item.converter.flush()))
            ring.finish(item.track)

    def _played(self, item: _Item) -> int:
        """Return the frames of the source that were played of an item."""
        if item.is_ended:
            return item.final
        if item.track is None or self._ring is None:
            return item.carried
        played = item.track.played * self.format.sample_rate // self._ring.format.sample_rate
        # The filter's last frame is rounded up; and what was fed is all that can have been heard.
        return min(item.carried + played, item.fed)

    def _is_through(self, item: _Item) -> bool:
        return item.is_fed and (item.track is None or item.track.handed >= item.track.written)

    def _note_starts(self) -> None:
        for item in self._queue:
            if item.track is None or not item.track.handed:
                break
            if not item.is_started:
                item.is_started = True
                self._notes.append(functools.partial(self._listener.playback_started, item.id))

    def _end(self, item: _Item) -> None:
        item.final = self._played(item)
        item.is_ended = True
        item.pending.clear()
        item.converter = None
        self._queue.remove(item)
        self._ended_total += item.final
        if item.is_started:
            played_ms = item.final * 1000 // self.format.sample_rate
            self._notes.append(functools.partial(self._listener.playback_stopped, item.id, played_ms))
        if not self._queue:
            self._idle.set()

    def _notify(self) -> None:
        while self._notes:
            self._notes.popleft()()

    def _forget(self) -> None:
        while len(self._items) > _REMEMBERED_ITEMS:
            oldest = next(iter(self._items.values()))
            if not oldest.is_ended:
                break
            del self._items[oldest.id]


def _pull_and_tell(pull: Callable[[int], bytes], tell: Callable[[bytes], None], n_frames: int) -> bytes:
    block = pull(n_frames)
    tell(block)
    return block
