"""How much an installed core weighs: four distributions, at most 3 MB without numpy."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path

from _measure import Row, main

TITLE = "Weight of the installed core"


def closure(name: str) -> set[str]:
    """Return the distributions that an unadorned install of ``name`` brings, without itself."""
    found: set[str] = set()
    queue = [name]
    while queue:
        for requirement in importlib.metadata.requires(queue.pop()) or []:
            if "extra ==" in requirement.replace("'", '"'):
                continue
            marker = requirement.partition(";")[2]
            if "python_version" in marker and "<" in marker:
                continue  # Back-ports for older interpreters than ours.
            other = re.split(r"[\s<>=!~;\[(]", requirement.strip())[0].lower()
            if other not in found:
                found.add(other)
                queue.append(other)
    return found


def n_bytes(name: str) -> int:
    """Return the bytes of a distribution's files as its wheel brought them (without bytecode)."""
    files = importlib.metadata.files(name) or []
    paths = [Path(str(file.locate())) for file in files if "__pycache__" not in file.parts]
    return sum(path.stat().st_size for path in paths if path.is_file())


def run() -> list[Row]:
    """Measure."""
    others = closure("voxengine")
    sizes = {name: n_bytes(name) / 1e6 for name in sorted(others | {"voxengine"})}
    light = sum(size for name, size in sizes.items() if name != "numpy")
    rows = [Row(f"size of {name}", size, "MB") for name, size in sizes.items()]
    return [
        Row("distributions that voxengine brings", len(others), "", 4, ", ".join(sorted(others))),
        Row("size without numpy", light, "MB", 3.0),
        *rows,
    ]


if __name__ == "__main__":
    sys.exit(main(TITLE, run))
