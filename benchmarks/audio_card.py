"""What real PortAudio streams do on the virtual sound card: jitter, interruptions, heard, losses.

Where no virtual card can run this says so and measures nothing. Figures are ratios within the run; on a loaded
machine they get worse together, and single ones may pass their bars.
"""

# ruff: noqa: E402 - the card is a tool of the tests, which are found from the root alone.

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from _measure import Row, main

from tests.audio_lab.card import RATE, Card, missing, running
from tests.audio_lab.sound import found_frames, hiss
from voxengine.audio.backends.base import Stream
from voxengine.audio.backends.pyaudio import PyAudioBackend
from voxengine.audio.devices import DeviceLost, DeviceOutcome
from voxengine.audio.format import AudioFormat
from voxengine.audio.player import DevicePlaybackClock, FlushMode
from voxengine.audio.watchdog import loss_threshold_s

TITLE = "Audio on the virtual sound card"
FORMAT = AudioFormat(RATE)
BLOCK_MS = 20
TRIALS = 25
LOUD = 500


class Feed:
    """Gives silence or takes blocks, and notes when."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self.blocks: list[bytes] = []

    def pull(self, n_frames: int) -> bytes:
        """Note the time."""
        self.at.append(time.monotonic())
        return bytes(2 * n_frames)

    def push(self, block: bytes) -> None:
        """Note block and time."""
        self.at.append(time.monotonic())
        self.blocks.append(block)

    def is_ready(self) -> bool:
        """Always."""
        return True

    def end(self) -> None:
        """Devices do not end."""

    def first(self, after: float, *, loud: bool) -> float:
        """Return when the first loud, or silent, block after a moment arrived; 0 when none did."""
        for at, block in zip(list(self.at), list(self.blocks), strict=False):
            if at > after and (max(map(abs, array("h", block))) > LOUD) is loud:
                return at
        return 0.0


class Listener:
    """Keeps outcomes."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[float, DeviceOutcome]] = []

    def playback_started(self, item: str) -> None:
        """Not needed."""

    def playback_stopped(self, item: str, played_ms: int) -> None:
        """Not needed."""

    def report(self, outcome: DeviceOutcome) -> None:
        """Note the time."""
        self.outcomes.append((time.monotonic(), outcome))


def percentile(values: list[float], part: float) -> float:
    """Return the value below which that part lies."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


async def until(holds: Callable[[], object]) -> None:
    """Poll: what is waited for happens in another thread."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def jitter() -> dict[str, float]:
    """Distance of callbacks from their grid over ten seconds."""
    backend, feed = PyAudioBackend(), Feed()
    stream = await backend.open("output", None, FORMAT, BLOCK_MS)
    await stream.start(feed)
    await asyncio.sleep(10)
    await stream.close()
    await backend.close()
    gaps = [(b - a) * 1000 for a, b in zip(feed.at[20:], feed.at[21:], strict=False)]
    return {
        "p99_ms": percentile([abs(gap - BLOCK_MS) for gap in gaps], 0.99),
        "n_xruns": stream.stats.n_xruns,
    }


async def interruptions(card: Card, flush: FlushMode) -> dict[str, Any]:
    """Start and interrupt again and again, heard through a second stream and by an independent program."""
    backend, tap, ear = PyAudioBackend(), Feed(), Listener()
    listening = await backend.open("input", "tap", FORMAT, 10)
    await listening.start(tap)
    player = DevicePlaybackClock(FORMAT, ear, backend, flush=flush)
    await player.open()
    trip, silent, errors = [], [], []
    for n in range(TRIALS):
        recorder = card.tap() if n < 6 else None
        name, sound = f"item {n}", hiss(RATE * 3, n)
        tap.at.clear()
        tap.blocks.clear()
        player.write(name, RATE * 3, sound)
        await until(lambda name=name: player.played_frames(name))  # type: ignore[misc]
        stream = player.stream
        assert stream is not None
        began = stream.stats.last_block_at
        await until(lambda began=began: tap.first(began, loud=True))  # type: ignore[misc]
        trip.append((tap.first(began, loud=True) - began) * 1000)
        await asyncio.sleep(0.2 + 0.0037 * n)
        at = time.monotonic()
        player.flush()
        await until(lambda at=at: tap.first(at, loud=False))  # type: ignore[misc]
        silent.append((tap.first(at, loud=False) - at) * 1000)
        if recorder is not None:
            await asyncio.sleep(0.3)
            found = found_frames(await asyncio.to_thread(recorder.stop), sound)
            errors.append((found - player.played_frames(name)) / RATE * 1000)
    await player.aclose()
    await listening.close()
    await backend.close()
    return {"trip_ms": statistics.median(trip), "silent_ms": silent, "short_by_ms": errors}


async def starved(switch_interval_s: float | None) -> dict[str, int]:
    """Let three threads compute in Python while a stream runs for six seconds."""
    backend, feed, is_done = PyAudioBackend(switch_interval_s=switch_interval_s), Feed(), threading.Event()

    def spin() -> None:
        n = 0
        while not is_done.is_set():
            n += 1

    stream = await backend.open("output", None, FORMAT, BLOCK_MS)
    threads = [threading.Thread(target=spin) for _ in range(3)]
    await stream.start(feed)
    for thread in threads:
        thread.start()
    ended = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(6.0, ended.set_result, None)
    await ended
    is_done.set()
    for thread in threads:
        thread.join()
    await stream.close()
    await backend.close()
    return {"n_xruns": stream.stats.n_xruns, "n_blocks": stream.stats.n_blocks}


async def noticing(card: Card, lose: Callable[[Card], None]) -> dict[str, float]:
    """Time from the last block to the report of the loss, and whether closing comes back."""
    ear = Listener()
    player = DevicePlaybackClock(FORMAT, ear, PyAudioBackend(), report=ear.report)
    await player.open()
    await until(lambda: player.stream is not None and player.stream.stats.n_blocks > 20)
    stream: Stream | None = player.stream
    assert stream is not None
    lose(card)
    await until(lambda: any(isinstance(outcome, DeviceLost) for _, outcome in ear.outcomes))
    noticed_s = ear.outcomes[0][0] - stream.stats.last_block_at
    limit_s = loss_threshold_s(stream)
    await player.aclose()
    return {"ratio": noticed_s / limit_s, "ms": noticed_s * 1000}


MEASURES: dict[str, Callable[[Card], Any]] = {
    "jitter": lambda card: jitter(),
    "soft": lambda card: interruptions(card, "soft"),
    "hard": lambda card: interruptions(card, "hard"),
    "starved": lambda card: starved(0.0005),
    "starved_default": lambda card: starved(None),
    "unplug": lambda card: noticing(card, Card.unplug),
    "kill": lambda card: noticing(card, Card.kill),
    "freeze": lambda card: noticing(card, Card.freeze),
}


def measured(name: str) -> dict[str, Any]:
    """Measure one thing in a process and on a card of its own."""
    with running() as card:
        command = [sys.executable, str(Path(__file__)), name]
        done = subprocess.run(
            command, env=card.environ, capture_output=True, text=True, check=False, timeout=120
        )
    if done.returncode != 0:
        raise RuntimeError(f"{name} failed: {done.stderr[-1500:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def run() -> list[Row]:
    """Measure, where there is a card."""
    if reason := missing():
        return [Row("virtual sound card", 0, "", None, reason)]
    seen = {name: measured(name) for name in MEASURES}
    soft, hard = (statistics.median(seen[mode]["silent_ms"]) for mode in ("soft", "hard"))
    limit_ms = BLOCK_MS / 2 + seen["soft"]["trip_ms"]
    soft_errors = [abs(each) for each in seen["soft"]["short_by_ms"]]
    hard_errors = seen["hard"]["short_by_ms"]
    xruns, default_xruns = seen["starved"]["n_xruns"], seen["starved_default"]["n_xruns"]
    p99 = seen["jitter"]["p99_ms"]
    rows = [
        Row("p99 jitter of the callback over the block", p99 / BLOCK_MS, "", None, f"{p99:.2f} ms of 20"),
        Row("round trip, loudspeaker to tap", seen["soft"]["trip_ms"], "ms", None, "p50"),
        Row("soft interruption over half a block and the round trip", soft / limit_ms, "", 1.3, f"p50 {soft:.0f} ms"),
        Row("hard interruption over a soft one", hard / soft, "", 0.25, f"p50 {hard:.0f} ms"),
        Row("heard, soft: error", max(soft_errors), "ms", 0, f"worst of {len(soft_errors)}"),
        Row("heard, hard: too little, over a block", max(hard_errors) / BLOCK_MS, "", 1.2, "worst; the machine's load tells"),
        Row("heard, hard: too much", max(0.0, -min(hard_errors)), "ms", 0, f"worst of {len(hard_errors)}"),
        Row("underruns beside 3 computing threads over the same at 5 ms", xruns / max(1, default_xruns), "", None,
            f"{xruns} of {default_xruns}"),
    ]  # fmt: skip
    for name in ("unplug", "kill", "freeze"):
        note = f"{seen[name]['ms']:.0f} ms"
        rows.append(Row(f"loss noticed over its threshold: {name}", seen[name]["ratio"], "", 1.2, note))
    return rows


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in MEASURES:
        print(json.dumps(asyncio.run(MEASURES[sys.argv[1]](Card.attach()))))
        sys.exit(0)
    sys.exit(main(TITLE, run))
