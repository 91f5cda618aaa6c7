"""A line that notices the loss of its device, stands in for it and finds it again."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from tests.core.audio.devices_for_tests import Ear, HandBackend, HandStream
from voxengine.audio.backends.array import ArrayBackend
from voxengine.audio.backends.base import Feed, Stream
from voxengine.audio.devices import DeviceLost, DeviceReturned
from voxengine.audio.format import AudioFormat
from voxengine.audio.watchdog import DeviceLine, loss_threshold_s
from voxengine.errors import AudioDeviceError, UsageError
from voxengine.testing import leak_check, virtual

FORMAT = AudioFormat(8000)


class Recorder:
    """A feed that counts."""

    def __init__(self) -> None:
        self.n_pulled = 0
        self.n_ends = 0

    def pull(self, n_frames: int) -> bytes:
        self.n_pulled += 1
        return bytes(2 * n_frames)

    def push(self, block: bytes) -> None:
        self.n_pulled += 1

    def is_ready(self) -> bool:
        return True

    def end(self) -> None:
        self.n_ends += 1


def line(backend: HandBackend, ear: Ear, feed: Recorder, device: str | None = None) -> DeviceLine:
    def attach(_: Stream) -> Feed:
        return feed

    return DeviceLine("output", backend, device, FORMAT, block_ms=20, attach=attach, report=ear.report)


async def until_back(ear: Ear) -> None:
    n_before = len(ear.outcomes)
    async with asyncio.timeout(60):
        await ear.told_more(n_before)


@virtual
async def test_a_stream_that_stops_is_lost_at_once() -> None:
    backend, ear, feed = HandBackend(), Ear(), Recorder()
    watched = line(backend, ear, feed)
    await watched.open()
    await backend.last.run(10)

    backend.last.is_running = False
    await asyncio.sleep(0.051)

    (lost,) = ear.outcomes
    assert isinstance(lost, DeviceLost)
    assert (lost.direction, lost.device, lost.reason) == ("output", "card", "stopped")
    await watched.close()


@virtual
async def test_a_stream_that_hangs_is_lost_after_five_blocks_but_a_quarter_of_a_second_at_least() -> None:
    backend, ear, feed = HandBackend(), Ear(), Recorder()
    watched = line(backend, ear, feed)
    await watched.open()
    await backend.last.run(10)
    hung = backend.last
    at = asyncio.get_running_loop().time() - 0.02

    await asyncio.sleep(0.2)
    before = len(ear.outcomes)
    await asyncio.sleep(0.1)

    (lost,) = ear.outcomes
    assert isinstance(lost, DeviceLost)
    assert (before, lost.reason) == (0, "silent")
    assert 1.0 <= (lost.at - at) / loss_threshold_s(hung) <= 1.2
    assert hung.is_closed
    await watched.close()


@pytest.mark.parametrize(("rate", "block_frames", "limit_s"), [(8000, 160, 0.25), (8000, 800, 0.5)])
def test_the_threshold_grows_with_the_block(rate: int, block_frames: int, limit_s: float) -> None:
    stream = HandStream("output", "card", AudioFormat(rate))
    stream.block_frames = block_frames

    assert loss_threshold_s(stream) == limit_s


@virtual
async def test_a_process_that_was_held_up_as_a_whole_has_lost_nothing() -> None:
    backend, ear, feed = HandBackend(), Ear(), Recorder()
    watched = line(backend, ear, feed)
    await watched.open()
    await backend.last.run(10)

    # Only the clock went on, and the loop has its turn before the device's thread: it looks at 0.25 s.
    await asyncio.sleep(0.03)
    backend.last.stats.last_block_at -= 2.0
    await asyncio.sleep(0.035)
    await backend.last.run(20)

    assert ear.outcomes == []
    await watched.close()


@virtual
async def test_a_device_may_take_a_second_to_begin() -> None:
    backend, ear, feed = HandBackend(), Ear(), Recorder()
    watched = line(backend, ear, feed)
    await watched.open()

    await asyncio.sleep(0.9)
    before = len(ear.outcomes)
    await asyncio.sleep(0.3)

    assert (before, len(ear.outcomes)) == (0, 1)
    await watched.close()


@virtual
async def test_the_clock_stands_in_and_the_lost_stream_is_never_heard_again() -> None:
    backend, ear, feed = HandBackend(), Ear(), Recorder()
    watched = line(backend, ear, feed)
    await watched.open()
    await backend.last.run(5)
    old = backend.last
    backend.there.clear()
    old.is_running = False
    await asyncio.sleep(0.06)
    at_loss = feed.n_pulled

    await asyncio.sleep(1.0)
    old.block()

    assert 45 <= feed.n_pulled - at_loss <= 51
    assert watched.is_lost
    assert (watched.stream is not None and watched.stream.device.name) == "null"
    await watched.close()


@virtual
async def test_it_is_tried_again_by_name_then_as_the_default_ever_more_seldom() -> None:
    backend, ear, feed = HandBackend(), Ear(), Recorder()
    watched = line(backend, ear, feed)
    await watched.open()
    await backend.last.run(5)
    backend.there.clear()
    backend.last.is_running = False
    await asyncio.sleep(30.0)

    names = [name for name, _ in backend.asked[1:]]
    times = [at for name, at in backend.asked[1:] if name == "card"]
    gaps = [round(b - a, 2) for a, b in pairwise(times)]

    assert names[:4] == ["card", None, "card", None]
    assert gaps[:7] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0]
    assert backend.n_refreshed == len(times)
    await watched.close()


@virtual
async def test_a_device_that_returns_is_used_again_and_can_be_lost_again() -> None:
    backend, ear, feed = HandBackend(), Ear(), Recorder()
    watched = line(backend, ear, feed)
    await watched.open()
    for _ in range(2):
        await backend.last.run(120)
        backend.last.is_running = False
        await asyncio.sleep(0.06)
        await until_back(ear)

    kinds = [type(outcome) for outcome in ear.outcomes]
    back = ear.outcomes[-1]
    assert kinds == [DeviceLost, DeviceReturned] * 2
    assert isinstance(back, DeviceReturned)
    assert (back.is_same, back.n_attempts, 200 <= back.lost_ms <= 300) == (True, 1, True)
    assert watched.stream is backend.last
    await watched.close()


@virtual
async def test_a_device_that_opens_and_falls_silent_again_is_tried_ever_more_seldom() -> None:
    backend, ear, feed = HandBackend(), Ear(), Recorder()
    watched = line(backend, ear, feed)
    await watched.open()
    for _ in range(6):
        await backend.last.run(2)
        backend.last.is_running = False
        await asyncio.sleep(0.06)
        await until_back(ear)

    pauses = [outcome.lost_ms for outcome in ear.outcomes if isinstance(outcome, DeviceReturned)]
    assert [round(pause / 250) for pause in pauses] == [1, 2, 4, 8, 16, 20]
    await watched.close()


@virtual
async def test_the_default_is_taken_where_the_device_stays_away() -> None:
    backend, ear, feed = HandBackend(usb=FORMAT), Ear(), Recorder()
    watched = line(backend, ear, feed, "usb")
    await watched.open()
    await backend.last.run(5)
    backend.there = {"built-in": AudioFormat(48000)}
    backend.last.is_running = False
    await asyncio.sleep(0.06)

    await until_back(ear)

    back = ear.outcomes[-1]
    assert isinstance(back, DeviceReturned)
    assert (back.device, back.is_same, watched.device) == ("built-in", False, "built-in")
    await watched.close()


@virtual
async def test_a_device_that_opens_but_does_not_start_is_not_taken() -> None:
    backend, ear, feed = HandBackend(), Ear(), Recorder()
    watched = line(backend, ear, feed)
    await watched.open()
    await backend.last.run(5)
    n_refused = 0

    def refuse() -> None:
        nonlocal n_refused
        n_refused += 1
        if n_refused == 1:
            raise AudioDeviceError("Not now.")

    def prepare(stream: HandStream) -> None:
        stream.on_start = refuse

    backend.prepare = prepare
    backend.last.is_running = False
    await asyncio.sleep(0.4)
    first, in_between = backend.last, watched.is_lost
    await until_back(ear)

    assert in_between
    assert first.is_closed
    assert watched.stream is backend.last is not first
    await watched.close()


@virtual
async def test_the_stand_in_has_ceased_before_the_device_begins() -> None:
    backend, ear, feed = HandBackend(), Ear(), Recorder()
    watched = line(backend, ear, feed)
    await watched.open()
    await backend.last.run(5)
    at_start: list[int] = []

    def prepare(stream: HandStream) -> None:
        stream.start_s = 0.5
        stream.on_start = lambda: at_start.append(feed.n_pulled)

    backend.prepare = prepare
    backend.last.is_running = False
    async with asyncio.timeout(10):
        await ear.told_more(1)

    assert at_start == [feed.n_pulled]
    await watched.close()


@virtual
async def test_close_ends_attempts_and_what_they_open_too_late() -> None:
    async with leak_check():
        backend, ear, feed = HandBackend(), Ear(), Recorder()
        watched = line(backend, ear, feed)
        await watched.open()
        await backend.last.run(5)
        backend.gate = asyncio.Event()
        backend.last.is_running = False
        await asyncio.sleep(0.5)

        await watched.close()
        backend.gate.set()
        await asyncio.sleep(0.1)

        assert [stream.is_closed for stream in backend.streams] == [True, True]


@virtual
async def test_a_line_opens_once() -> None:
    backend, ear, feed = HandBackend(), Ear(), Recorder()
    watched = line(backend, ear, feed)
    await watched.open()

    with pytest.raises(UsageError, match="opened before"):
        await watched.open()

    await watched.close()
    with pytest.raises(UsageError, match="opened before"):
        await watched.open()


@virtual
async def test_streams_that_the_loop_paces_need_no_watching() -> None:
    ear, feed = Ear(), Recorder()
    watched = DeviceLine(
        "output", ArrayBackend(), None, FORMAT, block_ms=20, attach=lambda _: feed, report=ear.report
    )
    await watched.open()

    await asyncio.sleep(10)

    assert (feed.n_pulled, ear.outcomes) == (501, [])
    await watched.close()
