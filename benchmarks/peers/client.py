"""Run one client through one workload in this process and print what it cost as one line of JSON.

    client.py ADAPTER WORKLOAD PORT CONTROL [name=value …]

An adapter is a file with a class ``Session``: made with a sink, ``await open(url)`` until audio may be sent,
``await send(pcm)`` with 20 ms of PCM16 mono at 24 kHz, ``await close()``. It tells the sink of the decoded audio,
of the words, and of the moment in which playback has to stop.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from importlib import metadata
from pathlib import Path
from typing import Any

now = time.monotonic_ns
MAGIC = b"VXBM"
FRAME_BYTES = 960
SILENCE = b"\x10\x00\xf0\xff" * (FRAME_BYTES // 4)


def memory_kb() -> int:
    """Return the resident memory of this process (Linux)."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


class Sink:
    """What an application gives to a client."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.times: list[int] = []
        self.stops: list[int] = []
        self.n_bytes = self.wanted = 0
        self.is_full = asyncio.Event()

    def audio(self, pcm: bytes) -> None:
        """Take decoded audio."""
        self.times.append(now())
        self.heads.append(bytes(pcm[:12]))
        self.n_bytes += len(pcm)
        if self.n_bytes >= self.wanted:
            self.is_full.set()

    def text(self, text: str) -> None:
        """Take words."""

    def stop(self) -> None:
        """Stop playing."""
        self.stops.append(now())

    def latencies(self) -> list[int]:
        """Return how long each stamped piece took to come here, in nanoseconds."""
        pairs = zip(self.times, self.heads, strict=True)
        return [at - int.from_bytes(head[4:], "little") for at, head in pairs if head[:4] == MAGIC]


class Control:
    """The service's second port."""

    async def open(self, port: int) -> None:
        """Connect."""
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port, limit=2**26)

    async def get(self, key: str) -> Any:
        """Wait for a report."""
        while True:
            report = json.loads(await asyncio.wait_for(self.reader.readline(), 60))
            if key in report:
                return report[key]

    async def set(self, **mode: Any) -> float:
        """Choose what the service does; return its CPU seconds so far."""
        self.writer.write(json.dumps({"set": mode}).encode() + b"\n")
        cpu_s: float = await self.get("cpu_s")
        return cpu_s


def frame() -> bytes:
    """Return 20 ms of audio, silent but for the time."""
    return MAGIC + now().to_bytes(8, "little") + SILENCE[12:]


def quantiles(values_ns: list[int]) -> dict[str, float]:
    """Return median and 99th percentile in microseconds."""
    ordered = sorted(values_ns) or [0]
    return {
        "p50_us": ordered[len(ordered) // 2] / 1e3,
        "p99_us": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] / 1e3,
    }


class Bench:
    """One adapter before the service."""

    def __init__(self, adapter: Any, url: str, control: Control) -> None:
        self.adapter, self.url, self.control = adapter, url, control
        self.sessions: list[Any] = []
        self.sinks: list[Sink] = []

    async def open(self) -> None:
        """Open one more session."""
        sink = Sink()
        session = self.adapter.Session(sink)
        await session.open(self.url)
        self.sessions.append(session)
        self.sinks.append(sink)

    async def fleet(self, n: int) -> list[Any]:
        """Open ``n`` sessions of a service that only listens."""
        await self.control.set()
        for _ in range(n):
            await self.open()
        await asyncio.sleep(0.2)
        return self.sessions[-n:]

    async def warm(self, n: int) -> list[Any]:
        """Open ``n`` sessions that have sent a little."""
        sessions = await self.fleet(n)
        for session in sessions:
            for _ in range(10):
                await session.send(frame())
        await asyncio.sleep(0.2)
        return sessions

    async def uplink(self, n: int = 1, frames: int = 4000) -> dict[str, float]:
        """Push chunks as fast as the client takes them."""
        sessions = await self.warm(n)
        per = frames // n
        await self.control.set(expect=per * n * FRAME_BYTES)

        async def push(session: Any) -> None:
            for i in range(per):
                await session.send(frame())
                if i % 50 == 49:
                    await asyncio.sleep(0)

        cpu = time.process_time()
        await asyncio.gather(*map(push, sessions))
        await self.control.get("uplink")
        return {"cpu_us": (time.process_time() - cpu) / (per * n) * 1e6}

    async def live(self, n: int = 50, seconds: int = 4) -> dict[str, float]:
        """Push chunks in real time, spread over the 20 ms."""
        sessions = await self.warm(n)
        n_groups = min(n, 4)
        await self.control.set(expect=seconds * 50 * n * FRAME_BYTES, stamps=True)
        loop = asyncio.get_running_loop()

        async def tick(n_ticks: int, sends: list[Callable[[bytes], Awaitable[object]]]) -> None:
            started = loop.time() + 0.02
            for i in range(n_ticks):
                for group in range(n_groups):
                    await asyncio.sleep(max(started + i * 0.02 + group * 0.02 / n_groups - loop.time(), 0))
                    for send in sends[group::n_groups]:
                        await send(frame())

        cpu = time.process_time()
        await tick(seconds * 50, [session.send for session in sessions])
        report = await self.control.get("uplink")
        cpu = time.process_time() - cpu
        return {"cpu_us": cpu / (n * seconds * 50) * 1e6, **quantiles(report["latencies_ns"])}

    async def downlink(self, seconds: int = 60, pace: float = 0.0) -> dict[str, float]:
        """Receive an answer of a minute, at once or at ten times real time."""
        (session,), sink, cpu = await self.fleet(1), self.sinks[-1], 0.0
        for deltas in (5, seconds * 10):  # The first answer warms up.
            sink.times.clear()
            sink.heads.clear()
            sink.is_full.clear()
            sink.wanted = sink.n_bytes + deltas * 4800
            await self.control.set(turn=4800, deltas=deltas, pace=pace)
            cpu = time.process_time()
            for _ in range(5):
                await session.send(SILENCE)
            await asyncio.wait_for(sink.is_full.wait(), 60)
            cpu = time.process_time() - cpu
            await asyncio.sleep(0.1)
        return {"cpu_ms": cpu * 1e3 / (seconds / 60), **quantiles(sink.latencies())}

    async def barge(self, trials: int = 15, deltas: int = 15, calm: float = 0.02) -> dict[str, float]:
        """Be interrupted, at rest or with an answer still in the queue."""
        (session,), sink = await self.fleet(1), self.sinks[-1]
        stops: list[int] = []
        told: list[int] = []
        await self.control.set(turn=4800, deltas=deltas, barge=True, calm=calm)
        for trial in range(trials + 2):
            for _ in range(5):
                await session.send(SILENCE)
            facts = await self.control.get("barge")
            stop = next((at for at in sink.stops if at >= facts["speech_at"]), 0)
            wire = [at for at in (facts["truncated_at"], facts["cancelled_at"]) if at]
            if trial >= 2 and stop and wire:
                stops.append(stop - facts["speech_at"])
                told.append(min(wire) - facts["speech_at"])
        wire_us = quantiles(told)["p50_us"]
        return {**quantiles(stops), "wire_p50_us": wire_us, "n_lost": trials - len(stops)}

    async def idle(self, n: int = 50) -> dict[str, float]:
        """Open sessions and let them be."""
        await self.fleet(2)
        gc.collect()
        before, took = memory_kb(), []
        for _ in range(n):
            started = time.perf_counter()
            await self.open()
            took.append(time.perf_counter() - started)
        await asyncio.sleep(0.5)
        gc.collect()
        return {"memory_kb": (memory_kb() - before) / n, "setup_ms": statistics.median(took) * 1e3}


async def main() -> None:
    """Measure."""
    name, workload, port, control_port = sys.argv[1:5]
    sys.path.insert(0, str(Path(__file__).parent / "adapters"))
    adapter = importlib.import_module(name)
    options = {k: float(v) if "." in v else int(v) for k, v in (item.split("=") for item in sys.argv[5:])}
    control = Control()
    await control.open(int(control_port))
    bench = Bench(adapter, f"ws://127.0.0.1:{port}", control)
    result = await getattr(bench, workload)(**options)
    installed = {d.name.lower() for d in metadata.distributions() if d.name}
    told = [
        *adapter.DISTS,
        *(name for name in ("websockets",) if name in installed and name not in adapter.DISTS),
    ]
    versions = {distribution: metadata.version(distribution) for distribution in told}
    print("RESULT " + json.dumps({**result, "versions": versions}), flush=True)
    await asyncio.wait([asyncio.ensure_future(session.close()) for session in bench.sessions], timeout=5)
    os._exit(0)  # Some clients leave threads that do not end.


if __name__ == "__main__":
    asyncio.run(main())
