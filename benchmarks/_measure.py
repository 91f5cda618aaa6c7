"""What the benchmarks share: rows of a table, gates, and timing of whole processes and of calls."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import attrs


@attrs.frozen
class Row:
    """One figure of the table.

    A gated figure is a count or a ratio of two figures of the same run, never a time: a time belongs to
    a machine.
    """

    name: str
    value: float
    unit: str
    limit: float | None = None
    """The gate: ``value`` may not exceed it. None: shown only."""
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the gate holds."""
        return self.limit is None or self.value <= self.limit


def child_cpu_s(code: str, *, env: dict[str, str] | None = None, argv: Sequence[str] = ()) -> float:
    """Return the CPU seconds of one fresh interpreter that runs ``code`` (or ``argv`` of it)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, *(argv or ("-c", code))]
    done = subprocess.run(
        command, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command[1:3]} failed: {done.stderr[-800:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


def paired(
    first: Callable[[], float], second: Callable[[], float], rounds: int
) -> tuple[float, float, float]:
    """Run two measurements in turn; return the median of each and the median of their ratios by round."""
    first(), second()  # Warm-up: bytecode and file caches.
    pairs = [(first(), second()) for _ in range(rounds)]
    ratio = statistics.median(a / b for a, b in pairs)
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs), ratio


def per_call_ns(call: Callable[[], Any], *, n_calls: int) -> float:
    """Return the CPU nanoseconds of one call, over a loop of ``n_calls``."""
    started = time.process_time_ns()
    for _ in range(n_calls):
        call()
    return (time.process_time_ns() - started) / n_calls


def show(title: str, rows: Sequence[Row]) -> None:
    """Print the rows as a Markdown table."""
    print(f"\n### {title}\n\n| figure | value | gate | |\n|---|---:|---:|---|")
    for row in rows:
        value = f"{row.value:,.0f}" if abs(row.value) >= 100 else f"{row.value:.3g}"
        gate = "" if row.limit is None else f"≤ {row.limit:g}{'' if row.passed else ' **FAILED**'}"
        print(f"| {row.name} | {value} {row.unit} | {gate} | {row.note} |")


def main(title: str, run: Callable[[], list[Row]]) -> int:
    """Run one benchmark from the command line: the table, or JSON with ``--json``; 1 when a gate fails."""
    rows = run()
    if "--json" in sys.argv[1:]:
        print(json.dumps({"title": title, "rows": [attrs.asdict(row) for row in rows]}))
    else:
        show(title, rows)
    return 0 if all(row.passed for row in rows) else 1
