"""What a chunk costs on its way up and down: calls, which can be counted, and CPU beside the plain client.

No machine shakes the count of calls. The ratios are taken between processes that run one directly after the other,
and their limits leave room for a machine that does other work; the table in `docs/explanation/performance.md` is made
by `benchmarks/peers/run.py` with the same clients.
"""

from __future__ import annotations

import asyncio
import importlib.util
import statistics
import sys
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from _measure import Row, main

PEERS = Path(__file__).resolve().parent / "peers"
TITLE = "The hot path"
ROUNDS = 3
N_CHUNKS = 1000
N_DELTAS = 400


def loaded(name: str) -> ModuleType:
    """Return a module of `benchmarks/peers`."""
    folder = PEERS / "adapters" if (PEERS / "adapters" / f"{name}.py").exists() else PEERS
    spec = importlib.util.spec_from_file_location(f"peers_{name}", folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Counter:
    """Counts the calls of Python and C functions while it is open."""

    def __init__(self) -> None:
        self.n = 0

    def _see(self, frame: FrameType, event: str, _: object) -> None:
        self.n += event in ("call", "c_call")

    def __enter__(self) -> Counter:
        sys.setprofile(self._see)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)


async def count(
    client: ModuleType, adapter: ModuleType, ports: dict[str, int], calls: Counter
) -> tuple[float, float]:
    """Return the calls for one chunk up and for one piece of audio down, with its half of a word."""
    control = client.Control()
    await control.open(ports["control"])
    bench = client.Bench(adapter, f"ws://127.0.0.1:{ports['port']}", control)
    (session,), sink = await bench.warm(1), bench.sinks[-1]
    await control.set(expect=N_CHUNKS * client.FRAME_BYTES)
    before = calls.n
    for i in range(N_CHUNKS):
        await session.send(client.SILENCE)
        if i % 50 == 49:
            await asyncio.sleep(0)
    up = (calls.n - before) / N_CHUNKS
    await control.get("uplink")
    await control.set(turn=4800, deltas=N_DELTAS)
    sink.is_full.clear()
    sink.wanted = sink.n_bytes + N_DELTAS * 4800
    before = calls.n
    for _ in range(5):
        await session.send(client.SILENCE)
    await asyncio.wait_for(sink.is_full.wait(), 60)
    down = (calls.n - before) / N_DELTAS
    await session.close()
    control.writer.close()
    return up, down


def ratios(service: Any, base: str, adapter: str, work: str, key: str) -> float:
    """Return the median ratio of a figure to the plain client's, in pairs."""
    found = []
    for _ in range(ROUNDS):
        ours, plain = (service.measure(sys.executable, name, work) for name in (adapter, base))
        if ours is not None and plain is not None:
            found.append(ours[key] / plain[key])
    return statistics.median(found) if len(found) == ROUNDS else float("inf")


def run() -> list[Row]:
    """Measure."""
    peers, client = loaded("run"), loaded("client")
    sys.path.insert(0, str(PEERS / "adapters"))
    limits = {"voxengine_websockets": (34.0, 86.0, 0.7, 0.75)}
    if importlib.util.find_spec("picows") is not None:
        limits["voxengine_fast"] = (34.0, 83.0, 0.7, 0.75)
    rows: list[Row] = []
    service = peers.Service(sys.executable)
    try:
        service.measure(sys.executable, peers.BASE, "downlink seconds=10")  # The service's first run is slow.
        for name, (up_calls, down_calls, up, down) in limits.items():
            who = name.removeprefix("voxengine_")
            with Counter() as counter:
                calls = asyncio.run(count(client, loaded(name), service.ports, counter))
            rows += [
                Row(f"{who}: calls for a 20 ms chunk up", calls[0], "", up_calls),
                Row(f"{who}: calls for 100 ms of audio down and half a word", calls[1], "", down_calls),
                Row(
                    f"{who}: uplink, CPU / plain client",
                    ratios(service, peers.BASE, name, "uplink frames=3000", "cpu_us"),
                    "×",
                    up,
                ),
                Row(
                    f"{who}: downlink, CPU / plain client",
                    ratios(service, peers.BASE, name, "downlink", "cpu_ms"),
                    "×",
                    down,
                ),
            ]
    finally:
        service.close()
    return rows


if __name__ == "__main__":
    sys.exit(main(TITLE, run))
