"""A device that tests drive by hand, and a listener that remembers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from voxengine.audio.backends.base import Feed, StreamStats
from voxengine.audio.devices import DeviceInfo, DeviceOutcome, Direction
from voxengine.audio.format import AudioFormat
from voxengine.errors import AudioDeviceError

BLOCK_MS = 20


class HandStream:
    """A device's stream: it asks for a block when the test says so."""

    is_watched = True

    def __init__(
        self, direction: Direction, name: str, audio_format: AudioFormat, held_blocks: int = 2
    ) -> None:
        channels = audio_format.channels
        self.direction: Direction = direction
        self.device = DeviceInfo(0, name, "test", channels, channels, audio_format.sample_rate, True, True)
        self.format = audio_format
        self.block_frames = audio_format.sample_rate * BLOCK_MS // 1000
        self.stats = StreamStats()
        self.error: Exception | None = None
        self.feed: Feed | None = None
        self.is_running = False
        self.is_closed = False
        self.can_discard = True
        self.n_discards = 0
        self.held_blocks = held_blocks
        self.start_s = 0.0
        self.played = bytearray()
        self.on_start: Callable[[], None] = lambda: None

    async def start(self, feed: Feed) -> None:
        self.on_start()
        await asyncio.sleep(self.start_s)
        self.feed = feed
        self.is_running = True

    def is_active(self) -> bool:
        return self.is_running

    def is_ended(self) -> bool:
        return False

    def n_unplayed(self, at: float | None = None) -> int:
        return self.held_blocks * self.block_frames

    def discard(self, emptied: Callable[[], object] | None = None) -> bool:
        self.n_discards += self.can_discard
        if self.can_discard and emptied is not None:
            emptied()
        return self.can_discard

    def wake(self) -> None:
        """A device needs no telling."""

    def detach(self) -> None:
        self.feed = None

    async def close(self) -> None:
        self.detach()
        self.is_running = False
        self.is_closed = True

    # -- by the test ------------------------------------------------------------------------------

    def block(self, recorded: bytes | None = None) -> bytes:
        """Exchange one block, as the device's callback would."""
        self.stats.last_block_at = asyncio.get_running_loop().time()
        self.stats.n_blocks += 1
        played = bytes(self.block_frames * self.format.frame_bytes)
        if self.feed is not None and recorded is not None:
            self.feed.push(recorded)
        elif self.feed is not None:
            played = self.feed.pull(self.block_frames)
            self.played += played
        return played

    async def run(self, n_blocks: int, recorded: bytes | None = None) -> None:
        """Exchange blocks in the pace of the loop's clock."""
        for _ in range(n_blocks):
            self.block(recorded)
            await asyncio.sleep(BLOCK_MS / 1000)


class HandBackend:
    """Opens :class:`HandStream`; ``there`` says which devices exist and in which format."""

    name = "hand"

    def __init__(self, **there: AudioFormat) -> None:
        self.there: dict[str, AudioFormat] = there or {"card": AudioFormat(8000)}
        self.streams: list[HandStream] = []
        self.asked: list[tuple[str | int | None, float]] = []
        self.n_refreshed = 0
        self.prepare: Callable[[HandStream], None] = lambda stream: None
        self.gate: asyncio.Event | None = None

    async def devices(self) -> list[DeviceInfo]:
        return [HandStream("output", name, each).device for name, each in self.there.items()]

    async def open(
        self, direction: Direction, device: str | int | None, wanted: AudioFormat, block_ms: int
    ) -> HandStream:
        self.asked.append((device, round(asyncio.get_running_loop().time(), 3)))
        if self.gate is not None:
            await self.gate.wait()
        name = next(iter(self.there), None) if device is None else device
        if name not in self.there:
            raise AudioDeviceError("It is not there.", reason="not_found", device=device)
        stream = HandStream(direction, str(name), self.there[str(name)])
        self.prepare(stream)
        self.streams.append(stream)
        return stream

    async def refresh(self) -> None:
        self.n_refreshed += 1

    async def close(self) -> None:
        """Nothing is held."""

    @property
    def last(self) -> HandStream:
        return self.streams[-1]


class Ear:
    """What the listener of a clock and the owner of a device were told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.played: dict[str, int] = {}
        self.outcomes: list[DeviceOutcome] = []
        self._changed = asyncio.Event()

    def playback_started(self, item: str) -> None:
        self.told.append(("start", item))

    def playback_stopped(self, item: str, played_ms: int) -> None:
        self.told.append(("stop", item))
        self.played[item] = played_ms

    def report(self, outcome: DeviceOutcome) -> None:
        self.outcomes.append(outcome)
        self._changed.set()

    async def told_more(self, n_outcomes: int) -> None:
        """Wait for more than that many outcomes."""
        while len(self.outcomes) <= n_outcomes:
            self._changed.clear()
            await self._changed.wait()
