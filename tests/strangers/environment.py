"""Wheels made from folders, and environments that hold wheels, what these depend on, and nothing else.

Nothing here needs a network: a wheel is built with the setuptools of the running environment, and the
dependencies of an environment are those of the running one, seen through links.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
STRANGERS = ROOT / "tests" / "strangers"
OURS = {"voxengine": ROOT / "core", "voxengine-mock": ROOT / "plugins" / "voxengine-mock"}

BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
LEFTOVERS = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist", ".*_cache")
# Variables of the running process that would let its environment show through.
SHOWING_THROUGH = ("PYTHON", "VIRTUAL_ENV", "VOXENGINE_", "COVERAGE_", "PYTEST_", "UV_SYSTEM_", "COV_CORE_")


def unavailable(reason: str) -> None:
    """Skip the test, but never where all of it has to be proven."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def has_setuptools() -> bool:
    try:
        return int(importlib.metadata.version("setuptools").partition(".")[0]) >= 77
    except importlib.metadata.PackageNotFoundError:
        return False


def build_wheel(folder: Path, out: Path) -> Path:
    """Build the wheel of a distribution from a copy of its folder, as its pyproject.toml says."""
    if not has_setuptools():
        unavailable("wheels are built with setuptools 77 or newer, which is not installed here")
    copy, made = out / f"{folder.name}-source", out / f"{folder.name}-wheel"
    shutil.copytree(folder, copy, ignore=LEFTOVERS)
    made.mkdir()
    checked([sys.executable, "-c", BUILD, str(made)], cwd=copy)
    (wheel,) = made.glob("*.whl")
    return wheel


def our_wheels(out: Path) -> list[Path]:
    """The wheels under test: those that the session installed, else wheels of the working tree."""
    if "VOXENGINE_TEST_INSTALLED" not in os.environ:
        return [build_wheel(folder, out) for folder in OURS.values()]
    wheels = []
    for name, folder in OURS.items():
        version = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]["version"]
        (wheel,) = (ROOT / "dist").glob(f"{name.replace('-', '_')}-{version}-*.whl")
        wheels.append(wheel)
    return wheels


class Environment:
    """A virtual environment of its own.

    Args:
        folder: Where it is made; it may not exist yet.
        needs: Requirements (``name[extra]``) of the running environment that are to be had here as well, with
            theirs. A distribution of ours among them stands for its dependencies; it comes as a wheel.
        wheels: What is installed, without dependencies.
    """

    def __init__(self, folder: Path, *, needs: Iterable[str], wheels: Iterable[Path]) -> None:
        self.folder = folder
        self._uv = shutil.which(os.environ.get("UV") or "uv")
        self._make()
        self.python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
        where = "import sysconfig; print(sysconfig.get_path('purelib'))"
        self.packages = Path(checked([str(self.python), "-c", where]).stdout.strip())
        for name in closure(needs):
            if name not in OURS:
                self._link(importlib.metadata.distribution(name))
        self.install(*wheels)

    def _make(self) -> None:
        if self._uv:
            checked(
                [self._uv, "venv", "-q", "--offline", "--no-config", "-p", sys.executable, str(self.folder)]
            )
        elif importlib.util.find_spec("venv") and importlib.util.find_spec("pip"):
            checked([sys.executable, "-m", "venv", "--without-pip", str(self.folder)])
        else:
            unavailable("neither uv nor venv with pip is here to make an environment")

    def _link(self, distribution: importlib.metadata.Distribution) -> None:
        """Show the files of an installed distribution here, each top-level name as one link."""
        tops = {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}
        for top in tops:
            source, target = Path(str(distribution.locate_file(top))), self.packages / top
            if source.exists() and not target.exists():
                target.symlink_to(source.resolve())

    def install(self, *wheels: Path) -> None:
        """Install wheels with an installer, without their dependencies and without an index."""
        files = [str(wheel) for wheel in wheels]
        options = ["-q", "--no-deps", "--no-index"]
        if self._uv:
            target = ["--offline", "--no-config", "-p", str(self.python)]
            checked([self._uv, "pip", "install", *options, *target, *files])
        else:
            pip = [sys.executable, "-m", "pip", "--python", str(self.python), "install"]
            checked([*pip, *options, "--disable-pip-version-check", *files])

    def uninstall(self, *names: str) -> None:
        """Remove distributions again."""
        if self._uv:
            checked([self._uv, "pip", "uninstall", "-q", "--no-config", "-p", str(self.python), *names])
        else:
            pip = [sys.executable, "-m", "pip", "--python", str(self.python), "uninstall", "-q", "-y"]
            checked([*pip, *names])

    def run(self, *arguments: str | Path, cwd: Path | None = None, **variables: str) -> Done:
        """Run the environment's Python and return how it ended."""
        return run([str(self.python), *map(str, arguments)], cwd=cwd or self.folder, **variables)

    def command(self, *arguments: str | Path, cwd: Path | None = None, **variables: str) -> Done:
        """Run the installed command ``voxengine`` and return how it ended."""
        command = str(self.python.parent / "voxengine")
        return run([command, *map(str, arguments)], cwd=cwd or self.folder, **variables)


Done = subprocess.CompletedProcess[str]


def clean_variables(**variables: str) -> dict[str, str]:
    """The variables of a process that knows nothing of the running environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(SHOWING_THROUGH)}
    return kept | {"NO_COLOR": "1", "COLUMNS": "200", "PYTHONUTF8": "1"} | variables


def run(command: list[str], *, cwd: Path | None = None, **variables: str) -> Done:
    environment = clean_variables(**variables)
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=110
    )


def checked(command: list[str], *, cwd: Path | None = None) -> Done:
    done = run(command, cwd=cwd)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def closure(requirements: Iterable[str]) -> Iterator[str]:
    """The names of the distributions that the requirements stand for, with all that they require."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [Requirement(text) for text in requirements]
    names: set[str] = set()
    while waiting:
        wanted = waiting.pop()
        name, extras = wanted.name.lower().replace("_", "-"), frozenset(wanted.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        if name not in names:
            names.add(name)
            yield name
        for text in importlib.metadata.requires(name) or ():
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in {"", *extras}):
                waiting.append(needed)
