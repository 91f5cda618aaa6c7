"""Measure clients of the Realtime protocol side by side and print a table.

    python benchmarks/peers/run.py                        this environment: VoxEngine and the plain client
    python benchmarks/peers/run.py --venvs FOLDER --all   every client, each in an environment made in FOLDER

Each round runs every client once for each workload, one directly after the other, and a ratio is taken inside its
round; the table shows medians. Times belong to the machine that made them, ratios much less. Server and client get
a processor each where there are two.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BASE = "raw_websockets"
OURS = {"voxengine": "core", "voxengine[fast]": "core[fast]", "voxengine-openai": "plugins/voxengine-openai"}
# name: workload with its options, the measured value, what it is called, its unit
WORK: dict[str, tuple[str, str, str, str]] = {
    "uplink": ("uplink", "cpu_us", "uplink, CPU per 20 ms chunk", "µs"),
    "live": ("live n=50 seconds=4", "cpu_us", "uplink in real time, 50 sessions, CPU per chunk", "µs"),
    "downlink": ("downlink", "cpu_ms", "downlink, CPU per minute of audio", "ms"),
    "paced": ("downlink seconds=40 pace=0.01", "cpu_ms", "downlink at ten times real time", "ms"),
    "barge_queued": ("barge trials=8 deltas=300 calm=0.0", "p50_us", "barge-in behind 30 s of queued audio", "µs"),
    "barge_calm": ("barge", "p50_us", "barge-in, calm", "µs"),
    "setup": ("idle", "setup_ms", "session set-up", "ms"),
    "memory": ("idle", "memory_kb", "idle session", "kB"),
}  # fmt: skip
Result = dict[str, Any]


def adapters() -> dict[str, list[str]]:
    """Return what each adapter needs to be installed."""
    found = {}
    for path in sorted((HERE / "adapters").glob("*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PIP":
                found[path.stem] = ast.literal_eval(node.value)
    return {BASE: found.pop(BASE), **found}


def has_own_environment(names: list[str]) -> bool:
    """Return whether this environment can run these adapters of ours."""
    needed = {"voxengine_openai"} | ({"picows"} if "voxengine_fast" in names else set())
    return all(importlib.util.find_spec(module) is not None for module in needed)


def interpreter(folder: Path | None, name: str, needs: list[str]) -> str:
    """Return the Python that runs an adapter, with an environment of its own where there is a folder."""
    if folder is None:
        return sys.executable
    python = folder / name / "bin" / "python"
    if not python.exists():
        print(f"installing {name} …", file=sys.stderr, flush=True)
        venv.create(folder / name, with_pip=True)
        here = [str(ROOT / OURS[item]) if item in OURS else item for item in needs]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *here], check=True)
    return str(python)


def pinned(cpu: int) -> dict[str, Any]:
    """Return options for a process that keeps to one processor, where there are several."""
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        return {}
    chosen = {sorted(os.sched_getaffinity(0))[cpu]}
    return {"preexec_fn": lambda: os.sched_setaffinity(0, chosen)}


class Service:
    """The loopback service, in a process of its own."""

    def __init__(self, python: str) -> None:
        self.process = subprocess.Popen(
            [python, str(HERE / "service.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **pinned(0),
        )
        assert self.process.stdout is not None
        self.ports = json.loads(self.process.stdout.readline())

    def measure(self, python: str, adapter: str, work: str, *, timeout_s: float = 180.0) -> Result | None:
        """Run one client through one workload; None when it failed."""
        name, *options = work.split()
        command = [python, "-B", str(HERE / "client.py"), adapter, name, str(self.ports["port"])]
        command += [str(self.ports["control"]), *options]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=timeout_s, check=False, **pinned(1)
            )
        except subprocess.TimeoutExpired:
            print(f"{adapter} did not end {work!r}", file=sys.stderr)
            return None
        for line in done.stdout.splitlines():
            if line.startswith("RESULT "):
                result: Result = json.loads(line[7:])
                return result
        print(f"{adapter} failed at {work!r}: {done.stderr[-500:]}", file=sys.stderr)
        return None

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)


Rounds = list[dict[tuple[str, str], Result]]


def measure_rounds(pythons: dict[str, str], service_python: str, chosen: list[str], n_rounds: int) -> Rounds:
    """Run everything ``n_rounds`` times."""
    rounds: Rounds = []
    works = {WORK[name][0]: None for name in chosen}
    service = Service(service_python)
    try:
        service.measure(pythons[BASE], BASE, "downlink seconds=10")  # The service's first run is slow.
        for number in range(n_rounds):
            results: dict[tuple[str, str], Result] = {}
            for work in works:
                for adapter, python in pythons.items():
                    result = service.measure(python, adapter, work)
                    if result is not None:
                        results[work, adapter] = result
            rounds.append(results)
            print(f"round {number + 1} of {n_rounds} is done", file=sys.stderr, flush=True)
    finally:
        service.close()
    return rounds


def row(rounds: Rounds, name: str, adapter: str) -> tuple[float, float] | None:
    """Return the median of a value and of its ratio to the plain client in the same round."""
    work, key, _, _ = WORK[name]
    values = [done[work, adapter][key] for done in rounds if (work, adapter) in done]
    ratios = [
        done[work, adapter][key] / done[work, BASE][key]
        for done in rounds
        if (work, adapter) in done and done.get((work, BASE), {}).get(key)
    ]
    return (statistics.median(values), statistics.median(ratios)) if values and ratios else None


def show(rounds: Rounds, names: list[str], chosen: list[str]) -> None:
    """Print the table, with every client's versions."""
    print("| workload | " + " | ".join(names) + " |\n|---|" + "---:|" * len(names))
    for work in chosen:
        cells = []
        for adapter in names:
            found = row(rounds, work, adapter)
            if found is None:
                cells.append("–")
            elif work == "memory":
                cells.append(f"{found[0]:.0f} {WORK[work][3]}")
            else:
                cells.append(f"{found[0]:,.3g} {WORK[work][3]} · {found[1]:.2f}")
        print(f"| {WORK[work][2]} | " + " | ".join(cells) + " |")
    print()
    for adapter in names:
        told = (r["versions"] for done in rounds for (_, who), r in done.items() if who == adapter)
        versions: dict[str, str] = next(told, {})
        print(f"- {adapter}: " + ", ".join(f"{name} {version}" for name, version in versions.items()))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--venvs", type=Path, help="folder of one environment per client, made where missing")
    parser.add_argument("--all", action="store_true", help="every client; needs --venvs and a package index")
    parser.add_argument("--only", nargs="*", default=[], help="these clients; the plain one always runs")
    parser.add_argument("--work", nargs="*", default=list(WORK), choices=list(WORK), metavar="WORK")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    known = adapters()
    wanted = args.only or (list(known) if args.all else ["voxengine_websockets", "voxengine_fast"])
    if args.venvs is None and not has_own_environment(wanted):
        parser.error("this environment lacks voxengine-openai or picows: name the clients, or give --venvs")
    folder = args.venvs.resolve() if args.venvs is not None else None
    pythons = {BASE: interpreter(folder, BASE, known[BASE])}
    for name in wanted:
        try:
            pythons[name] = interpreter(folder, name, known[name])
        except subprocess.CalledProcessError:
            print(f"{name} could not be installed", file=sys.stderr)
    service = interpreter(folder, "service", ["websockets", "uvloop"])
    rounds = measure_rounds(pythons, service, args.work, args.rounds)
    show(rounds, list(pythons), args.work)
    return 0 if all(len(done) for done in rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
