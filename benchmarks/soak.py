"""A conversation of hours in which services fail at random: memory flat, queues bounded, every turn answered.

``soak.py`` holds eight hours on the virtual clock in memory; ``soak.py --real 1800`` so many seconds of real time
over loopback sockets.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import resource
import statistics
import sys
import time
import tracemalloc
from array import array
from contextlib import AsyncExitStack
from math import pi, sin
from pathlib import Path
from typing import Any, Final

import attrs

from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.config import Deadlines, Reconnect
from voxengine.errors import VoxEngineError
from voxengine.events import Event, EventType
from voxengine.providers.registry import ProviderRegistry
from voxengine.testing import leak_check, run_virtual
from voxengine_mock import MockProvider
from voxengine_mock.emulator import MockEmulator
from voxengine_mock.harness import serve

HOURS: Final = 8
RATE: Final = 24_000
CHUNK_MS: Final = 40
JOURNAL_S: Final = 60
N_ITEMS_KEPT: Final = 60
"""An application of hours keeps no transcript for ever; what was said before is deleted."""
N_FAULTY: Final = 250
"""Sessions of each service for which a fault is drawn."""
SAMPLES: Final = 32
LOOK_EVERY: Final = 8
"""Turns."""
MOST_GROWTH_KB: Final = 4096.0
"""In the last three quarters of a run, however long."""
MOST_TASKS: Final = 40
QUESTION: Final = array(
    "h",
    (round(11_000 * sin(2 * pi * (200 * t + 300 * t * t))) for t in (n / RATE for n in range(RATE * 3 // 2))),
).tobytes()
PAUSE: Final = bytes(2 * RATE * 9 // 10)
FAULTS: Final[tuple[dict[str, Any], ...]] = (
    {"do": "reset", "at": "response:{n}"},
    {"do": "reset", "at": "response:{n}:after_audio_ms=300"},
    {"do": "close", "at": "turn:{n}", "code": 1011},
    {"do": "close", "at": "response:{n}:after_audio_ms=500", "code": 1001},
    {"do": "reset", "at": "input:after_audio_ms={ms}"},
    {"do": "close", "at": "input:after_audio_ms={ms}", "code": 1000},
    {"do": "stall", "at": "response:{n}"},
    {"do": "stall", "at": "response:{n}:after_audio_ms=300"},
    {"do": "garbage", "at": "turn:{n}", "as": "text"},
    {"do": "reset", "at": "tool_result:1"},
    {"do": "reset", "at": "tool:1"},
    {"do": "expire", "at": "turn:{n}", "deadline_s": 60},
    {"do": "expire", "at": "turn:{n}", "deadline_s": 15},
    {"do": 503, "at": "handshake"},
    {"do": 429, "at": "handshake", "retry_after_s": 2},
)  # fmt: skip


def script(seed: int) -> dict[str, Any]:
    """Return a service with one fault in each of many sessions, drawn by chance."""
    draw = random.Random(seed)
    faults = []
    for number in range(1, N_FAULTY):
        kind = draw.choice(FAULTS)
        if number == 1 and kind["at"] == "handshake":
            continue
        at = kind["at"].format(n=draw.randint(1, 6), ms=draw.randint(3, 90) * 100)
        faults.append({**kind, "at": at, "session": number})
    return {
        "delay_ms": 50,
        "pace": 4,
        "hears": ["what is the weather like"],
        "responses": {
            "*weather*": {"tool": "get_weather", "arguments": {}, "then": "It is {result}."},
            "*": "All is well here, and how are you today?",
        },
        "faults": faults,
    }


@attrs.define
class Figures:
    """What a soak counted."""

    turns: int = 0
    unanswered: int = 0
    calls: int = 0
    runs: int = 0
    refused: dict[str, int] = attrs.field(factory=dict)
    """Turns in which a call raised, by kind: the application was told."""
    events: int = 0
    sessions: int = 0
    endings: int = 0
    switched: dict[str, int] = attrs.field(factory=dict)
    most_tasks: int = 0
    most_held_s: float = 0.0
    """Unanswered audio in the journal."""
    memory_kb: list[tuple[float, float]] = attrs.field(factory=list)
    """Hour, and what Python holds."""

    @property
    def growth_kb(self) -> float:
        """What a line through the memory rises in the last three quarters: the first one fills what is bounded."""
        kept = self.memory_kb[len(self.memory_kb) // 4 :]
        if len(kept) < 3:
            return 0.0
        hours, sizes = zip(*kept, strict=True)
        line = statistics.linear_regression(hours, sizes)
        rise: float = line.slope * (hours[-1] - hours[0])
        return rise


def held_kb() -> float:
    """Return what Python holds where that is traced, else what the process does."""
    if tracemalloc.is_tracing():
        return tracemalloc.get_traced_memory()[0] / 1024
    n_pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return n_pages * resource.getpagesize() / 1024


class Soak:
    """A user who talks with an engine until the time is over."""

    def __init__(self, engine: VoiceEngine, seconds: float, seed: int) -> None:
        self.engine = engine
        self.figures = Figures()
        self._seconds = seconds
        self._draw = random.Random(seed)
        engine.events.on("*", self._count)

    def _count(self, event: Event) -> None:
        figures = self.figures
        figures.events += 1
        if event.type is EventType.PROVIDER_SWITCHED:
            figures.switched[event.reason] = figures.switched.get(event.reason, 0) + 1
        elif event.type is EventType.FUNCTION_CALL_INVOKED:
            figures.calls += 1
        elif event.type in (EventType.CONNECTION_LOST, EventType.CONNECTION_CLOSED):
            figures.endings += 1

    async def run(self) -> None:
        """Talk."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        step = self._seconds / SAMPLES
        due = step
        while (now := loop.time() - started) < self._seconds:
            if now >= due:
                due += step
                self._sample(now)
            await self._turn()
            self._forget()
        self._sample(loop.time() - started)

    def _sample(self, now: float) -> None:
        gc.collect()
        self.figures.memory_kb.append((now / 3600, held_kb()))
        if sys.stderr.isatty():
            print(f"\r{now / 60:6.0f} min, {self.figures.turns} turns", end="", file=sys.stderr)

    def _look(self) -> None:
        figures = self.figures
        figures.most_tasks = max(figures.most_tasks, len(asyncio.all_tasks()))
        held = self.engine.snapshot()["input"]["n_samples"] / RATE
        figures.most_held_s = max(figures.most_held_s, held)

    async def _turn(self) -> None:
        figures, engine = self.figures, self.engine
        figures.turns += 1
        before = sum(item.role == "agent" for item in engine.history)
        try:
            kind = self._draw.random()
            if kind < 0.6:
                await self._speak(ends=kind < 0.3)
            else:
                await engine.send_text(self._draw.choice(("How are you?", "And the weather?")))
            if kind > 0.98:
                other = "two" if engine.config.provider == "one" else "one"
                await engine.switch_provider(other)
            await engine.wait_idle(timeout_s=60)
        except VoxEngineError as error:
            kind_of = f"{type(error).__name__} {getattr(error, 'code', '')}".strip()
            figures.refused[kind_of] = figures.refused.get(kind_of, 0) + 1
            await self._begin_anew()
            return
        if sum(item.role == "agent" for item in engine.history) <= before:
            figures.unanswered += 1
        await asyncio.sleep(self._draw.uniform(1, 6))

    async def _speak(self, *, ends: bool) -> None:
        size = 2 * RATE * CHUNK_MS // 1000
        audio = QUESTION + PAUSE
        for at in range(0, len(audio), size):
            await self.engine.send_audio(audio[at : at + size])
            if at == len(QUESTION) // size * size and self.figures.turns % LOOK_EVERY == 0:
                self._look()
            await asyncio.sleep(CHUNK_MS / 1000)
        if ends:
            await self.engine.end_turn()

    async def _begin_anew(self) -> None:
        """Go on after every service was down for longer than the budget, as an application would."""
        for _ in range(20):
            try:
                await self.engine.switch_provider(self._draw.choice(("one", "two")))
                return
            except VoxEngineError:
                await asyncio.sleep(2)

    def _forget(self) -> None:
        history = self.engine.history
        while len(history.items) > N_ITEMS_KEPT:
            history.delete(history.items[0].id)  # A call goes with its result.


async def soak(seconds: float, seed: int, *, over_sockets: bool) -> Figures:
    """Hold the conversation; return what was counted."""
    registry = ProviderRegistry()
    configs = []
    async with leak_check(), AsyncExitStack() as stack:
        for number, name in enumerate(("one", "two")):
            registry.register(name, MockProvider)
            metadata: dict[str, Any] = script(seed + number)
            if over_sockets:
                server = await stack.enter_async_context(serve(MockEmulator(script=metadata)))
                metadata = {"url": server.url}
            configs.append(
                VoiceEngineConfig(
                    provider=name,
                    metadata=metadata,
                    deadlines=Deadlines(first_output_s=4, progress_s=4),
                    reconnect=Reconnect(budget_s=30),
                    journal_s=JOURNAL_S,
                )
            )
        engine = VoiceEngine(attrs.evolve(configs[0], fallbacks=[configs[1]]), registry=registry)
        user = Soak(engine, seconds, seed)

        @engine.tool
        async def get_weather() -> str:
            """Tell the weather."""
            user.figures.runs += 1
            await asyncio.sleep(0.3)
            return "sunny"

        async with engine:
            await user.run()
        user.figures.sessions = len(engine.metrics.sessions)
    return user.figures


def problems(figures: Figures) -> list[str]:
    """Return what a soak shows to be wrong."""
    found = {
        f"{figures.unanswered} turns were not answered": figures.unanswered > 0,
        f"{figures.runs} runs of a tool for {figures.calls} calls": figures.runs > figures.calls,
        f"{figures.endings} endings of {figures.sessions} sessions": figures.endings != figures.sessions,
        f"memory grew by {figures.growth_kb:.0f} KiB": figures.growth_kb > MOST_GROWTH_KB,
        f"{figures.most_tasks} tasks at once": figures.most_tasks > MOST_TASKS,
        f"{figures.most_held_s:.1f} s of audio held": figures.most_held_s > JOURNAL_S,
        "no session was replaced": not figures.switched,
    }
    return [problem for problem, holds in found.items() if holds]


def main() -> int:
    """Run from the command line; 1 when something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=float, metavar="SECONDS", help="in real time, over loopback sockets")
    parser.add_argument(
        "--hours", type=float, default=HOURS, help="on the virtual clock (default: %(default)s)"
    )
    parser.add_argument(
        "--trace", action="store_true", help="measure what Python holds, not the process: slower"
    )
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.trace:
        tracemalloc.start(1)
    started = time.monotonic()
    if arguments.real is not None:
        figures = asyncio.run(soak(arguments.real, arguments.seed, over_sockets=True))
    else:
        work = soak(arguments.hours * 3600, arguments.seed, over_sockets=False)
        figures = run_virtual(work, max_virtual_s=None, max_real_s=None, socket_grace_s=0.0)
    shown = attrs.asdict(figures) | {
        "growth_kb": round(figures.growth_kb),
        "took_s": round(time.monotonic() - started, 1),
    }
    shown["memory_kb"] = " ".join(f"{size:.0f}" for _, size in figures.memory_kb)
    print(json.dumps(shown, indent=1))
    wrong = problems(figures)
    for problem in wrong:
        print(f"wrong: {problem}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
