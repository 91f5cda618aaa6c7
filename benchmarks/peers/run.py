"""Measure clients of the Realtime protocol side by side and print a table.

    python benchmarks/peers/run.py                        this environment: VoxEngine and the plain client
    python benchmarks/peers/run.py --venvs FOLDER --all   every client, each in an environment made in FOLDER

Each round runs every client once for each workload, one directly after the other, and a ratio is taken inside its
round; the table shows medians. Times belong to the machine that made them, ratios much less. Server and client get
a processor each where there are two.

The exit status is 1 when the plain client or a client of ours gave no figure for a workload.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import hashlib
import importlib.util
import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
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
# What a client of ours may cost beside the plain one: with the websockets client, with picows
BUDGETS: dict[str, tuple[float, float]] = {
    "uplink": (0.75, 0.30),
    "live": (0.85, 0.65),
    "downlink": (0.60, 0.40),
    "barge_queued": (0.50, 0.20),
    "barge_calm": (1.2, 0.9),
    "setup": (1.5, 1.2),
    "memory": (64, 64),
}
# How many times cheaper than these clients the better one of ours has to be
LEADS = (
    ("uplink", ("pipecat_openai", "openai_sdk"), 7.0),
    ("downlink", ("livekit_openai", "openai_agents"), 2.5),
)
OUR_CLIENTS = ("voxengine_websockets", "voxengine_fast")
MARKER = "complete.txt"
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


def contents(needs: list[str]) -> str:
    """Return what an environment for these holds: the Python, the names, and the state of our sources."""
    digest = hashlib.sha256()
    for folder in ("core", "plugins/voxengine-openai") if set(needs) & set(OURS) else ():
        sources = sorted((ROOT / folder / "src").rglob("*.py"))
        for path in (ROOT / folder / "pyproject.toml", *sources):
            if path.is_file():
                digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return f"{sys.version}\n{' '.join(needs)}\n{digest.hexdigest()}\n"


def copied(source: str, to: Path) -> str:
    """Copy a distribution's sources and return what pip is to install: its folder, with the extras."""
    folder, bracket, extras = source.partition("[")
    name = Path(folder).name
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist")
    shutil.copytree(ROOT / folder, to / name, ignore=unwanted)
    return f"{to / name}{bracket}{extras}"


def interpreter(folder: Path | None, name: str, needs: list[str]) -> str:
    """Return the Python that runs an adapter, with an environment of its own where there is a folder.

    The environment is made anew when our sources changed since, or when its installation did not end.
    """
    if folder is None:
        return sys.executable
    python, marker = folder / name / "bin" / "python", folder / name / MARKER
    wanted = contents(needs)
    if not marker.exists() or marker.read_text("utf-8") != wanted:
        print(f"installing {name} …", file=sys.stderr, flush=True)
        venv.create(folder / name, with_pip=True, clear=True)
        with tempfile.TemporaryDirectory() as copies:
            # A build in the tree would leave a folder there and take what an earlier one left.
            here = [copied(OURS[item], Path(copies)) if item in OURS else item for item in needs]
            subprocess.run([python, "-m", "pip", "install", "--quiet", *here], check=True)
        marker.write_text(wanted, "utf-8")
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
    """Return the medians of a value and of its ratio to (memory: difference from) the plain client's."""
    work, key, _, _ = WORK[name]
    values = [done[work, adapter][key] for done in rounds if (work, adapter) in done]
    ratios = [
        done[work, adapter][key] - done[work, BASE][key]
        if name == "memory"
        else done[work, adapter][key] / done[work, BASE][key]
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
                cells.append(f"{found[0]:.0f} {WORK[work][3]} · {found[1]:+.0f}")
            else:
                value = f"{found[0]:,.0f}" if found[0] >= 100 else f"{found[0]:.3g}"
                cells.append(f"{value} {WORK[work][3]} · {found[1]:.2f}")
        print(f"| {WORK[work][2]} | " + " | ".join(cells) + " |")
    print()
    for adapter in names:
        told = (r["versions"] for done in rounds for (_, who), r in done.items() if who == adapter)
        versions: dict[str, str] = next(told, {})
        print(f"- `{adapter}`: " + ", ".join(f"{name} {version}" for name, version in versions.items()))


def show_budgets(rounds: Rounds, chosen: list[str]) -> None:
    """Print what was promised beside what was measured."""
    print("\n| budget | client | limit | measured | |\n|---|---|---:|---:|---|")
    for work in (name for name in chosen if name in BUDGETS):
        for adapter, limit in zip(OUR_CLIENTS, BUDGETS[work], strict=True):
            if (found := row(rounds, work, adapter)) is not None:
                told = f"{found[1]:.0f} kB" if work == "memory" else f"{found[1]:.2f}"
                allowed = f"≤ {limit} kB" if work == "memory" else f"≤ {limit:.2f}"
                verdict = "met" if found[1] <= limit else "**missed**"
                print(f"| {WORK[work][2]} | `{adapter}` | {allowed} | {told} | {verdict} |")
    for work, others, times in LEADS:
        ours = [found[1] for name in OUR_CLIENTS if (found := row(rounds, work, name)) is not None]
        for other in others if ours and work in chosen else ():
            if (theirs := row(rounds, work, other)) is not None:
                lead = theirs[1] / min(ours)
                verdict = "met" if lead >= times else "**missed**"
                print(
                    f"| {work}, beside `{other}` | better of ours | ≥ {times:g}× | {lead:.1f}× | {verdict} |"
                )


def processor() -> str:
    """Return the class of processor, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next(
        (line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine()
    )


def show_origin() -> None:
    """Print when, on what and by which command the figures were made, without a name or path of the machine."""
    options = sys.argv[1:]
    for at, option in enumerate(options):
        if option == "--venvs" and at + 1 < len(options):
            options[at + 1] = "FOLDER"
        elif option.startswith("--venvs="):
            options[at] = "--venvs=FOLDER"
    today = datetime.datetime.now(datetime.UTC).date()
    print(f"\n{today}, {os.cpu_count()} processors ({processor()}), {platform.system()}, ", end="")
    print(f"{platform.python_implementation()} {platform.python_version()}; made by")
    print(f"`{shlex.join(['python', 'benchmarks/peers/run.py', *options])}`")


def missing(rounds: Rounds, names: list[str], chosen: list[str]) -> list[str]:
    """Return which figures of the plain client and of ours there are none of."""
    works = {WORK[name][0]: None for name in chosen}
    return [
        f"{name} gave no figure for {work!r}"
        for name in names
        for work in works
        if not any((work, name) in done for done in rounds)
    ]


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
    for name in (name for name in wanted if name != BASE):
        try:
            pythons[name] = interpreter(folder, name, known[name])
        except subprocess.CalledProcessError:
            print(f"{name} could not be installed", file=sys.stderr)
    service = interpreter(folder, "service", ["websockets", "uvloop"])
    rounds = measure_rounds(pythons, service, args.work, args.rounds)
    show(rounds, list(pythons), args.work)
    show_budgets(rounds, args.work)
    show_origin()
    needed = [BASE, *(name for name in OUR_CLIENTS if name in wanted)]
    faults = missing(rounds, needed, args.work)
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
