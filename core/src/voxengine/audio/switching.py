"""The clock of ``playback="auto"``: another clock takes over while the conversation goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from voxengine.audio.playback import ItemKey, PlaybackClock, PlaybackListener
from voxengine.events import LazyAudio

__all__ = ["SwitchableClock"]

_REMEMBERED_ITEMS: Final = 256


class _Write(Protocol):
    def __call__(self, item: ItemKey, n_frames: int, audio: bytes | LazyAudio | None = None) -> None: ...


class SwitchableClock:
    """Passes everything to the clock in force, and remembers what was played by those before it.

    An item that began on one clock ends there, so that what was heard of it is one stretch from its start. The
    items behind it are played by the clock that took over.

    Args:
        listener: Told about starts and stops, whichever clock plays.
        make: Makes the first clock, given its listener.

    Fulfils ``PlaybackClock``. Loop thread only.
    """

    write: _Write
    """Queue audio. Bound straight to the clock in force wherever one alone plays: it is called for every chunk."""

    def __init__(self, listener: PlaybackListener, make: Callable[[PlaybackListener], PlaybackClock]) -> None:
        self._listener = listener
        self._leaving: list[PlaybackClock] = []
        self._ended: dict[ItemKey, int] = {}
        self._left_ms = 0
        """What was played in all by clocks that are gone."""
        self._clock = make(self)
        self.write = self._clock.write

    @property
    def name(self) -> str:
        """Name of the clock in force."""
        return self._clock.name

    @property
    def active(self) -> PlaybackClock:
        """The clock in force."""
        return self._clock

    def switch_to(self, clock: PlaybackClock) -> None:
        """Put another clock in force, made with this one as its listener.

        The clock before is closed once the items that it has begun have ended.
        """
        self._leaving.append(self._clock)
        self._clock = clock
        self.write = self._write_where_it_began
        self._let_go()

    def _write_where_it_began(
        self, item: ItemKey, n_frames: int, audio: bytes | LazyAudio | None = None
    ) -> None:
        self._playing(item).write(item, n_frames, audio)

    def _playing(self, item: ItemKey) -> PlaybackClock:
        return next((clock for clock in self._leaving if item in clock.open_items()), self._clock)

    def _let_go(self) -> None:
        """Close the clocks that have nothing left to play."""
        for clock in list(self._leaving):
            if clock.open_items() or clock not in self._leaving:  # Asking may have ended the last of them.
                continue
            self._leaving.remove(clock)
            self._left_ms += clock.total_played_ms()
            clock.close()
        if not self._leaving:
            self.write = self._clock.write

    # -- the contract -------------------------------------------------------------------------------

    def finish(self, item: ItemKey) -> None:
        """Say that no more audio of the item follows."""
        self._playing(item).finish(item)
        self._let_go()

    def flush(self) -> None:
        """Silence everything at once."""
        for clock in (*self._leaving, self._clock):
            clock.flush()
        self._let_go()

    def pause(self) -> None:
        """Fall silent and keep what waits."""
        for clock in (*self._leaving, self._clock):
            clock.pause()

    def resume(self) -> None:
        """Go on."""
        for clock in (*self._leaving, self._clock):
            clock.resume()

    def open_items(self) -> list[ItemKey]:
        """Return the items that have not ended."""
        return [item for clock in (*self._leaving, self._clock) for item in clock.open_items()]

    def played_ms(self, item: ItemKey) -> int:
        """How much of the item was played."""
        for clock in (self._clock, *self._leaving):
            played = clock.played_ms(item)
            if played:
                return played
        return self._ended.get(item, 0)

    def total_played_ms(self) -> int:
        """How much was played in all."""
        return self._left_ms + sum(clock.total_played_ms() for clock in (*self._leaving, self._clock))

    @property
    def current(self) -> ItemKey | None:
        """The item that is being played or waits to be."""
        for clock in (*self._leaving, self._clock):
            current = clock.current
            if current is not None:
                return current
        return None

    def close(self) -> None:
        """Stop."""
        for clock in (*self._leaving, self._clock):
            clock.close()

    # -- the clocks report here -----------------------------------------------------------------------

    def playback_started(self, item: ItemKey) -> None:
        """Pass it on."""
        self._listener.playback_started(item)

    def playback_stopped(self, item: ItemKey, played_ms: int) -> None:
        """Remember and pass it on."""
        self._ended.pop(item, None)
        self._ended[item] = played_ms
        while len(self._ended) > _REMEMBERED_ITEMS:
            del self._ended[next(iter(self._ended))]
        self._listener.playback_stopped(item, played_ms)
        if self._leaving:
            self._let_go()
