"""Write the constraints files: every package the sessions install, pinned and hashed.

    python3 noxfile.py -s constraints               keeps each pin that still fits
    python3 noxfile.py -s constraints -- --upgrade  takes the newest of everything

constraints.txt serves nearly all of them. A file holds one version of a package: constraints-matrix.txt
has several of websockets, and constraints-witnesses.txt what foreign clients want, who must not hold the
others back. The hashes are those of every file of a release, for all platforms. No address is written: whoever
installs decides where the files come from.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = "3.11"  # The lowest supported one; the resolution is universal from there upwards.
WEBSOCKETS_MAJORS = ("15", "16", "17")
WITNESSES = "witnesses"
"""The group of the foreign clients, resolved apart from the others."""
DEVICE_EXTRAS = frozenset({"audio", "webrtc", "silero", "ten"})
"""Extras that need a compiler or are heavy: only the session `audio` installs them."""
HEADER = """\
# Made by `python3 noxfile.py -s constraints`; do not edit.
# `for:` names the sessions' groups that need the pin below it; noxfile.py reads it.
# Nobody who uses the distributions needs this file: it makes our own runs repeatable.
"""


def group_inputs() -> dict[str, list[str]]:
    """The requirements of each group, read from the pyproject files (first-party names left out)."""
    tables = [tomllib.loads(path.read_text("utf-8")) for path in distribution_files()]
    own = {table["project"]["name"] for table in tables}
    runtime: list[str] = []
    extras: list[str] = []
    device: list[str] = []
    for table in tables:
        project = table["project"]
        runtime += project["dependencies"]
        for extra, requirements in project.get("optional-dependencies", {}).items():
            (device if extra in DEVICE_EXTRAS else extras).extend(requirements)
    runtime = [item for item in runtime if requirement_name(item) not in own]
    extras = [item for item in extras if requirement_name(item) not in own]
    device = [item for item in device if requirement_name(item) not in own]
    groups: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))[
        "dependency-groups"
    ]
    tests = runtime + extras + groups["tests"]
    return {
        "bootstrap": groups["bootstrap"],
        "build": groups["build"],
        "runtime": runtime,
        "tests": tests,
        "audio": tests + device,
        "coverage": tests + groups["coverage"],
        "types": tests + groups["types"],
        "lint": groups["lint"],
        "dev": tests + groups["coverage"] + groups["types"] + groups["lint"],
        WITNESSES: runtime + extras + groups[WITNESSES],
    }


def distribution_files() -> list[Path]:
    return [ROOT / "core" / "pyproject.toml", *sorted(ROOT.glob("plugins/*/pyproject.toml"))]


def requirement_name(requirement: str) -> str:
    """The normalised name at the start of a requirement, for example ``pytest-asyncio``."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    if found is None:
        raise ValueError(f"{requirement!r} does not start with a package name")
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def resolve(uv: str, requirements: list[str], *, pinned: str = "", known: str = "", hashes: bool) -> str:
    """Resolve for every platform and every Python from `PYTHON` on.

    Args:
        uv: The uv program.
        requirements: What is asked for.
        pinned: Pins that the answer must keep.
        known: A former answer, kept wherever it still fits.
        hashes: Whether to add the hashes.

    Returns:
        The text of a requirements file without comments or addresses.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, output, limits = (Path(folder) / name for name in ("wanted.in", "output.txt", "limits.txt"))
        source.write_text("\n".join(requirements) + "\n", "utf-8")
        limits.write_text(pinned, "utf-8")
        output.write_text(known, "utf-8")
        command = [uv, "pip", "compile", "--quiet", "--no-config", "--universal"]
        command += ["--python-version", PYTHON, "--no-annotate", "--no-header", "--no-emit-index-url"]
        command += ["--constraints", str(limits), "--output-file", str(output), str(source)]
        if hashes:
            command.append("--generate-hashes")
        # A developer's extra folders hold rebuilt or partial files, whose hashes nobody else has.
        extra = ("UV_FIND_LINKS", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_NO_INDEX", "UV_CONSTRAINT")
        environment = {name: value for name, value in os.environ.items() if name not in extra}
        subprocess.run(command, check=True, env=environment)
        return output.read_text("utf-8")


def blocks(text: str) -> dict[str, str]:
    """Split a requirements file into ``{"name==version ; marker": block with its hashes}``."""
    found: dict[str, str] = {}
    for block in re.split(r"\n(?=[A-Za-z0-9])", text.strip()):
        if block:
            found[block.split("\\\n")[0].strip()] = block.rstrip() + "\n"
    return found


def without_comments(path: Path) -> str:
    if not path.exists():
        return ""
    lines = path.read_text("utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if not line.lstrip().startswith("#"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--upgrade", action="store_true", help="take the newest version of everything")
    upgrade = parser.parse_args().upgrade
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        print("export_constraints.py needs uv. Try: python3 noxfile.py -s constraints", file=sys.stderr)
        return 2

    inputs = group_inputs()
    witnesses = inputs.pop(WITNESSES)
    target = ROOT / "constraints.txt"
    known = "" if upgrade else without_comments(target)
    everything = sorted({item for requirements in inputs.values() for item in requirements})
    full = blocks(resolve(uv, everything, known=known, hashes=True))
    pins = "\n".join(full) + "\n"
    members = {
        group: {requirement_name(line) for line in blocks(resolve(uv, wanted, pinned=pins, hashes=False))}
        for group, wanted in inputs.items()
    }
    parts = []
    for pin, block in full.items():
        users = [group for group, names in members.items() if requirement_name(pin) in names]
        parts.append(f"\n# for: {' '.join(users)}\n{block}")
    write(target, parts)

    parts = []
    for major in WEBSOCKETS_MAJORS:
        wanted = [f"websockets>={major},<{int(major) + 1}"]
        for block in blocks(resolve(uv, wanted, hashes=True)).values():
            parts.append(f"\n# for: websockets-{major}\n{block}")
    write(ROOT / "constraints-matrix.txt", parts)

    found = blocks(resolve(uv, witnesses, known=pins, hashes=True))
    write(ROOT / "constraints-witnesses.txt", [f"\n# for: {WITNESSES}\n{block}" for block in found.values()])
    return 0


def write(path: Path, parts: list[str]) -> None:
    text = HEADER + "".join(parts)
    if "://" in text:
        raise SystemExit(f"{path.name} would name an address; nothing was written")
    path.write_text(text, "utf-8")
    print(f"{path.name}: {len(parts)} pins, {len(text) // 1024} kB")


if __name__ == "__main__":
    sys.exit(main())
