"""What handing audio over costs, against the least that could be done in the same run."""

from __future__ import annotations

import asyncio
import functools
import queue
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

from _measure import Row, main

from voxengine.audio.buffers import CaptureQueue
from voxengine.audio.format import AudioFormat
from voxengine.audio.levels import LevelMeter
from voxengine.audio.pcm import Resampler
from voxengine.audio.rings import PlaybackRing
from voxengine.audio.vad import EnergyVad

TITLE = "Audio: handing over, waking up, converting"
FORMAT = AudioFormat(24_000)
BLOCK_FRAMES = 480
BLOCK = bytes(2 * BLOCK_FRAMES)
ROUNDS = 9


class TwoCopies:
    """The least that moves chunks to blocks: one raw copy in, one out as the ``bytes`` that a callback returns."""

    def __init__(self, size: int) -> None:
        self.memory = memoryview(bytearray(size))
        self.at = 0

    def write(self, chunk: bytes) -> None:
        """Copy in."""
        self.memory[:] = chunk
        self.at = 0

    def pull(self, n_frames: int) -> bytes:
        """Copy out."""
        at = self.at
        self.at = end = at + 2 * n_frames
        return bytes(self.memory[at:end])


def _per_block(write: Callable[[bytes], object], pull: Callable[[int], bytes], chunk_ms: int) -> float:
    """Return CPU nanoseconds of one block with its share of the write."""
    chunk = bytes(FORMAT.n_bytes(chunk_ms))
    per_chunk, n_chunks = chunk_ms // 20, 60_000 // chunk_ms
    started = time.process_time_ns()
    for _ in range(n_chunks):
        write(chunk)
        for _ in range(per_chunk):
            pull(BLOCK_FRAMES)
    return (time.process_time_ns() - started) / n_chunks / per_chunk


def _playback(chunk_ms: int) -> tuple[float, float]:
    ours, limits = [], []
    for _ in range(ROUNDS):
        ring = PlaybackRing(FORMAT, limit_s=3600)
        track = ring.track("item")
        ring.write(track, bytes(FORMAT.n_bytes(100)))
        ring.pull(BLOCK_FRAMES)
        ours.append(_per_block(functools.partial(ring.write, track), ring.pull, chunk_ms))
        least = TwoCopies(FORMAT.n_bytes(chunk_ms))
        limits.append(_per_block(least.write, least.pull, chunk_ms))
    ratio = statistics.median(a / b for a, b in zip(ours, limits, strict=True))
    return statistics.median(ours), ratio


def _capture() -> tuple[float, float]:
    """Compare with a callback that appends and a loop that pops, a burst of 5 blocks at a time."""
    n_bursts = 10_000

    def ours() -> float:
        held = CaptureQueue(BLOCK_FRAMES, 25 * BLOCK_FRAMES, lambda: None)
        push, drain = held.push, held.drain
        started = time.process_time_ns()
        for _ in range(n_bursts):
            for _ in range(5):
                push(BLOCK)
            drain()
        return (time.process_time_ns() - started) / n_bursts / 5

    def least() -> float:
        held: deque[bytes] = deque()

        def push(block: bytes) -> None:
            held.append(block)

        def drain() -> list[bytes]:
            return [held.popleft() for _ in range(len(held))]

        started = time.process_time_ns()
        for _ in range(n_bursts):
            for _ in range(5):
                push(BLOCK)
            drain()
        return (time.process_time_ns() - started) / n_bursts / 5

    pairs = [(ours(), least()) for _ in range(ROUNDS)]
    return statistics.median(a for a, _ in pairs), statistics.median(a / b for a, b in pairs)


_N_WAKES = 200


def _produce(put: Callable[[float], object]) -> None:
    for _ in range(_N_WAKES):
        time.sleep(0.005)
        put(time.perf_counter())


def _thread_wake_us() -> float:
    """Return p50 of waking a thread that waits on a SimpleQueue."""
    taken: list[float] = []
    plain: queue.SimpleQueue[float] = queue.SimpleQueue()

    def consume() -> None:
        for _ in range(_N_WAKES):
            put_at = plain.get()
            taken.append(time.perf_counter() - put_at)

    threads = [threading.Thread(target=consume), threading.Thread(target=_produce, args=(plain.put,))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statistics.median(taken) * 1e6


async def _loop_wake_us(*, has_reader: bool) -> float:
    """Return p50 of waking the loop, or a task that waits there, as the microphone's reader does."""
    loop = asyncio.get_running_loop()
    times: deque[float] = deque()
    taken: list[float] = []
    done, arrived = loop.create_future(), asyncio.Event()

    def look() -> None:
        now = time.perf_counter()
        taken.extend(now - times.popleft() for _ in held.drain())
        if len(taken) == _N_WAKES and not done.done():
            done.set_result(None)

    async def read() -> None:
        while not done.done():
            arrived.clear()
            look()
            await arrived.wait()

    def wake() -> None:
        loop.call_soon_threadsafe(arrived.set if has_reader else look)

    held = CaptureQueue(BLOCK_FRAMES, 100 * BLOCK_FRAMES, wake)

    def put(at: float) -> None:
        times.append(at)
        held.push(BLOCK)

    reader = asyncio.create_task(read()) if has_reader else None
    thread = threading.Thread(target=_produce, args=(put,))
    thread.start()
    await done
    thread.join()
    if reader is not None:
        reader.cancel()
    return statistics.median(taken) * 1e6


def _wake_us() -> tuple[float, float, float]:
    """Return p50 of waking the loop, a task on it, and a thread, in microseconds."""
    to_loop = asyncio.run(_loop_wake_us(has_reader=False))
    to_reader = asyncio.run(_loop_wake_us(has_reader=True))
    return to_loop, to_reader, _thread_wake_us()


def _withheld(from_rate: int, to_rate: int) -> float:
    """Return the samples that are missing after a second of full blocks."""
    resampler = Resampler(from_rate, to_rate, aligned=False)
    given = sum(len(resampler.process(bytes(2 * (from_rate // 50)))) // 2 for _ in range(50))
    return to_rate - given


def _per_20_ms_us(call: Callable[[bytes], object]) -> float:
    call(BLOCK)
    started = time.process_time_ns()
    for _ in range(500):
        call(BLOCK)
    return (time.process_time_ns() - started) / 500 / 1e3


def run() -> list[Row]:
    """Measure."""
    rows = []
    for chunk_ms, limit in ((200, 1.3), (100, None), (20, None)):  # 1.0 on a quiet machine.
        ns, ratio = _playback(chunk_ms)
        note = f"{ns:.0f} ns a block of 20 ms, its share of the write included"
        rows.append(
            Row(f"playback hand-over, chunks of {chunk_ms} ms, over two raw copies", ratio, "", limit, note)
        )
    ns, ratio = _capture()
    rows.append(Row("capture hand-over over append and popleft", ratio, "", 1.5, f"{ns:.0f} ns a block"))
    waked = [_wake_us() for _ in range(3)]
    # Not gated: how fast a thread wakes depends on what else runs. With a real-time priority it is 1.4 to 2.
    for who, column in (("the loop", 0), ("the microphone's reader", 1)):
        ratio = statistics.median(each[column] / each[2] for each in waked)
        wake_us = statistics.median(each[column] for each in waked)
        note = f"p50 {wake_us:.0f} us, {wake_us / 200:.1f} % of a block"
        rows.append(Row(f"wake-up of {who} over that of a thread", ratio, "", None, note))
    pairs = [(8000, 24000), (16000, 24000), (24000, 8000), (24000, 48000), (44100, 24000)]
    withheld = max(_withheld(*pair) for pair in pairs)
    rows.append(Row("samples that the resampler withholds", withheld, "", 0, "beyond its filter's delay"))
    resampler = Resampler(24_000, 48_000, aligned=False)
    rows.append(Row("resampling 20 ms, 24 to 48 kHz", _per_20_ms_us(resampler.process), "us"))
    rows.append(Row("energy detector, 20 ms at 24 kHz", _per_20_ms_us(EnergyVad(24_000).push), "us"))
    rows.append(Row("level meter, 20 ms at 24 kHz", _per_20_ms_us(LevelMeter(FORMAT).push), "us"))
    return rows


if __name__ == "__main__":
    sys.exit(main(TITLE, run))
