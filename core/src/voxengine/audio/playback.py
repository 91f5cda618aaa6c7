"""The clock that says how much of the agent's audio was played; exactly one is active.

Truncation and the history believe this clock and nothing else. :class:`NullClock` plays to nobody in
real time; :class:`ExternalClock` believes what a telephony bridge or a browser reports.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import attrs

from voxengine.audio.format import AudioFormat
from voxengine.errors import UsageError
from voxengine.events import LazyAudio

__all__ = ["ExternalClock", "ItemKey", "NullClock", "PlaybackClock", "PlaybackListener"]

_REMEMBERED_ITEMS: Final = 256
"""Items whose played time is remembered after they ended."""

ItemKey = str
"""Names what is played: the history item of an answer."""


class PlaybackListener(Protocol):
    """Told when an item becomes audible and when it stops being so. Called on the loop."""

    def playback_started(self, item: ItemKey) -> None:
        """The first sample of the item is being played."""

    def playback_stopped(self, item: ItemKey, played_ms: int) -> None:
        """The item was played to its end, or cut."""


class PlaybackClock(Protocol):
    """What every clock offers. Loop thread only."""

    @property
    def name(self) -> str:
        """As in ``session.settings["playback"]``."""

    def write(self, item: ItemKey, n_frames: int, audio: bytes | LazyAudio | None = None) -> None:
        """Queue audio of an item behind what is queued; a clock that only counts needs no ``audio``."""

    def finish(self, item: ItemKey) -> None:
        """Say that no more audio of the item follows."""

    def flush(self) -> None:
        """Silence everything at once; what was not played never will be. Ends a pause."""

    def pause(self) -> None:
        """Fall silent and keep what waits, where that is possible; time does not count meanwhile."""

    def resume(self) -> None:
        """Go on after a pause; nothing happens without one."""

    def open_items(self) -> list[ItemKey]:
        """Return the items that have not ended, in the order in which they are played."""

    def played_ms(self, item: ItemKey) -> int:
        """How much of the item was played, rounded down; 0 for an unknown one."""

    def total_played_ms(self) -> int:
        """How much was played in all."""

    @property
    def current(self) -> ItemKey | None:
        """The item that is being played or waits to be; None when nothing does."""

    def close(self) -> None:
        """Stop, leaving no timer behind."""


@attrs.define
class _Track:
    item: ItemKey
    written: int = 0
    played: int = 0
    is_finished: bool = False
    is_started: bool = False
    is_ended: bool = False


class _Tracks:
    """Items in the order in which they are played."""

    def __init__(self, audio_format: AudioFormat, listener: PlaybackListener) -> None:
        self.rate = audio_format.sample_rate
        self.listener = listener
        self.by_item: dict[ItemKey, _Track] = {}
        self.queue: list[_Track] = []
        self.total = 0
        self.notes: deque[Callable[[], None]] = deque()

    def get(self, item: ItemKey) -> _Track:
        track = self.by_item.get(item)
        if track is None or track.is_ended:
            track = _Track(item)
            self.by_item[item] = track
            self.queue.append(track)
            while len(self.by_item) > _REMEMBERED_ITEMS:
                oldest = next(iter(self.by_item.values()))
                if not oldest.is_ended:
                    break
                del self.by_item[oldest.item]
        return track

    def start(self, track: _Track) -> None:
        if not track.is_started:
            track.is_started = True
            self.notes.append(functools.partial(self.listener.playback_started, track.item))

    def play(self, track: _Track, n_frames: int) -> None:
        if n_frames > 0:
            self.start(track)
        track.played += n_frames
        self.total += n_frames

    def end(self, track: _Track) -> None:
        if track.is_ended:
            return
        track.is_ended = True
        if track in self.queue:
            self.queue.remove(track)
        if track.is_started:
            played_ms = self.ms(track.played)
            self.notes.append(functools.partial(self.listener.playback_stopped, track.item, played_ms))

    def notify(self) -> None:
        """Tell the listener what happened; last in every call, since a listener may call the clock again."""
        while self.notes:
            self.notes.popleft()()

    def ms(self, n_frames: int) -> int:
        return n_frames * 1000 // self.rate

    def pending(self) -> int:
        return sum(track.written - track.played for track in self.queue)

    def open_items(self) -> list[ItemKey]:
        return [track.item for track in self.queue]


class NullClock:
    """Plays to nobody, in real time by the loop's clock. Silence between two writes does not count.

    Args:
        audio_format: What is written.
        listener: Told about starts and stops.
        loop: Its time is the clock; one timer is pending while something plays.
    """

    name = "null"

    def __init__(
        self, audio_format: AudioFormat, listener: PlaybackListener, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._tracks = _Tracks(audio_format, listener)
        self._loop = loop
        self._at = 0.0
        """Loop time up to which what was played is accounted for; meaningful while something plays."""
        self._timer: asyncio.TimerHandle | None = None
        self._dry_at = 0.0
        """Loop time before which the head of the queue has something to play, while the timer is set."""
        self._is_paused = False

    def write(self, item: ItemKey, n_frames: int, audio: bytes | LazyAudio | None = None) -> None:
        """Queue audio of an item behind what is queued."""
        if self._timer is not None and self._loop.time() < self._dry_at:
            track = self._tracks.by_item.get(item)
            if track is not None and not track.is_ended:
                track.written += n_frames  # Nothing changes now. The timer comes early and is set again.
                return
        self._account()
        if not self._tracks.pending():
            self._at = self._loop.time()
        self._tracks.get(item).written += n_frames
        self._settle()

    def finish(self, item: ItemKey) -> None:
        """Say that no more audio of the item follows."""
        self._account()
        track = self._tracks.by_item.get(item)
        if track is not None:
            track.is_finished = True
            if track.played >= track.written:
                self._tracks.end(track)
        self._settle()

    def flush(self) -> None:
        """Silence everything at once."""
        self._account()
        self._is_paused = False
        for track in list(self._tracks.queue):
            track.written = track.played
            self._tracks.end(track)
        self._settle()

    def pause(self) -> None:
        """Stand still."""
        self._account()
        self._is_paused = True
        self._settle()

    def resume(self) -> None:
        """Go on."""
        if self._is_paused:
            self._is_paused = False
            self._at = self._loop.time()
            self._settle()

    def open_items(self) -> list[ItemKey]:
        """Return the items that have not ended."""
        self._advance()
        return self._tracks.open_items()

    def played_ms(self, item: ItemKey) -> int:
        """How much of the item was played, rounded down."""
        self._advance()
        track = self._tracks.by_item.get(item)
        return self._tracks.ms(track.played) if track is not None else 0

    def total_played_ms(self) -> int:
        """How much was played in all."""
        self._advance()
        return self._tracks.ms(self._tracks.total)

    @property
    def current(self) -> ItemKey | None:
        """The item that is being played or waits to be."""
        self._advance()
        return next((track.item for track in self._tracks.queue if track.written), None)

    def close(self) -> None:
        """Stop, leaving no timer behind."""
        self.flush()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _advance(self) -> None:
        queue = self._tracks.queue
        if not queue and self._timer is None and not self._tracks.notes:
            return  # Asked several times over while an answer is cut.
        head = queue[0] if queue else None
        self._account()
        is_playing_on = head is not None and queue and queue[0] is head and head.played < head.written
        if not is_playing_on or self._timer is None or self._tracks.notes:
            self._settle()

    def _account(self) -> None:
        """Count what was played until now. Time in which nothing could play is not made up for."""
        now = self._loop.time()
        due = int((now - self._at) * self._tracks.rate + 1e-6)
        if due <= 0 or self._is_paused:
            return
        for track in list(self._tracks.queue):
            n_frames = min(due, track.written - track.played)
            self._tracks.play(track, n_frames)
            due -= n_frames
            self._at += n_frames / self._tracks.rate
            if track.played < track.written:
                break
            if not track.is_finished:
                break  # It waits for more of itself; what is behind it waits too.
            self._tracks.end(track)
        if due or not self._tracks.pending():
            self._at = now

    def _settle(self) -> None:
        """Set the timer, then tell the listener, which may call again."""
        head = self._tracks.queue[0] if self._tracks.queue else None
        left = head.written - head.played if head is not None and not self._is_paused else 0
        when = self._at + (left + 1) / self._tracks.rate
        if self._timer is not None and (left <= 0 or abs(when - self._timer.when()) > 1e-6):
            self._timer.cancel()
            self._timer = None
        if head is not None and left > 0:
            self._tracks.start(head)
            if self._timer is None:
                self._timer = self._loop.call_at(when, self._tick)
            self._dry_at = self._at + left / self._tracks.rate
        self._tracks.notify()

    def _tick(self) -> None:
        self._timer = None
        self._advance()


class ExternalClock:
    """Believes what is reported through :meth:`mark_played` and :meth:`cleared`."""

    name = "external"

    def __init__(self, audio_format: AudioFormat, listener: PlaybackListener) -> None:
        self._tracks = _Tracks(audio_format, listener)

    def write(self, item: ItemKey, n_frames: int, audio: bytes | LazyAudio | None = None) -> None:
        """Note that audio of an item was handed to the sink."""
        self._tracks.get(item).written += n_frames

    def finish(self, item: ItemKey) -> None:
        """Say that no more audio of the item follows."""
        track = self._tracks.by_item.get(item)
        if track is not None:
            track.is_finished = True
            if track.played >= track.written:
                self._tracks.end(track)
        self._tracks.notify()

    def flush(self) -> None:
        """Forget what was not reported as played."""
        for track in list(self._tracks.queue):
            track.written = track.played
            self._tracks.end(track)
        self._tracks.notify()

    def pause(self) -> None:
        """The sink plays on: it is elsewhere."""

    def resume(self) -> None:
        """It never stopped."""

    def open_items(self) -> list[ItemKey]:
        """Return the items that have not ended."""
        return self._tracks.open_items()

    def mark_played(self, item: ItemKey, played_ms: int) -> None:
        """Take the sink's report; more than was written is cut to that, less than before is ignored.

        Raises:
            UsageError: No audio of that item was handed out.
        """
        track = self._tracks.by_item.get(item)
        if track is None:
            raise UsageError(
                f"mark_played: no audio of an item {item!r} was handed out. Use the item_id of AUDIO_OUTPUT_CHUNK."
            )
        if track.is_ended:
            return
        played = min(-(-played_ms * self._tracks.rate // 1000), track.written)
        self._tracks.play(track, max(played - track.played, 0))
        if track.is_finished and track.played >= track.written:
            self._tracks.end(track)
        self._tracks.notify()

    def cleared(self) -> None:
        """Take the sink's report that it dropped what it had."""
        self.flush()

    def played_ms(self, item: ItemKey) -> int:
        """How much of the item was reported as played."""
        track = self._tracks.by_item.get(item)
        return self._tracks.ms(track.played) if track is not None else 0

    def total_played_ms(self) -> int:
        """How much was reported as played in all."""
        return self._tracks.ms(self._tracks.total)

    @property
    def current(self) -> ItemKey | None:
        """The item that is being played or waits to be, or for more of itself."""
        return next((track.item for track in self._tracks.queue if track.written), None)

    def close(self) -> None:
        """Nothing to stop."""
        self.flush()
