"""Runs the fenced code blocks of a Markdown file, in order, the way a reader would.

===========  =========================================================================================
info string  what happens
===========  =========================================================================================
python       runs; the blocks of a file share one namespace, may await at the top and see virtual time
python file=NAME   is written to that file, for a command after it
console      lines after ``$`` are commands; other lines are their output, where ``…`` stands for anything
bash         every line is a command
toml         is parsed; profiles are loaded, scripts of the mock are read; with file=NAME also written
json         is parsed
text         is left alone; ``text output`` is what the block before it printed
===========  =========================================================================================

A block in any other language is an error, and so is a command that is not one of ``voxengine``,
``python3 FILE``, ``python3 noxfile.py -s SESSION`` (checked, not run), ``pip install`` (checked, not run) and
``export NAME=VALUE``.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
from packaging.requirements import InvalidRequirement, Requirement

from tests.meta.tree import ROOT
from voxengine.config import VoiceEngineConfig
from voxengine.testing import VirtualTimeLoop, run_virtual
from voxengine_mock.script import SCRIPT_KEYS, Script


class DocsError(AssertionError):
    """A block that does not do what the page says; the message names the line."""


@attrs.frozen
class Fence:
    """A fenced block."""

    language: str
    options: tuple[str, ...]
    text: str = attrs.field(repr=False)
    line: int

    def option(self, name: str) -> str | None:
        """The value of ``name=value`` in the info string."""
        return next((o.partition("=")[2] for o in self.options if o.startswith(f"{name}=")), None)


def fences(text: str) -> list[Fence]:
    """Every fenced block, also one that is never closed (up to the end)."""
    found: list[Fence] = []
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        opening = re.fullmatch(r"( *)(`{3,}|~{3,})\s*([^`]*)", line)
        if not opening:
            continue
        indent, mark, info = opening.groups()
        body = [
            inner.removeprefix(indent)
            for _, inner in itertools.takewhile(lambda pair: pair[1].strip() != mark, lines)  # noqa: B023
        ]
        language, *options = info.split() or [""]
        found.append(Fence(language, tuple(options), "\n".join(body) + "\n", number))
    return found


def workspace() -> dict[str, set[str]]:
    """The distributions of the workspace and their extras."""
    found = {}
    for path in (ROOT / "core/pyproject.toml", *sorted(ROOT.glob("plugins/*/pyproject.toml"))):
        project = tomllib.loads(path.read_text("utf-8"))["project"]
        found[project["name"]] = set(project.get("optional-dependencies", {}))
    return found


def nox_sessions() -> set[str]:
    """The sessions that the noxfile defines."""
    found = set()
    for node in ast.parse((ROOT / "noxfile.py").read_text("utf-8")).body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for decorator in node.decorator_list:
            if ast.unparse(decorator).startswith("nox.session"):
                named = re.search(r"name='([^']*)'", ast.unparse(decorator))
                found.add(named[1] if named else node.name)
    return found


class Page:
    """One Markdown file while its blocks run. Use as a context manager.

    Args:
        name: For messages.
        folder: An empty folder: the working directory of every block.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.printed = ""
        self.n_run = 0
        self._namespace: dict[str, Any] = {"__name__": "__main__"}
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("VOXENGINE_")},
            "NO_COLOR": "1", "COLUMNS": "100", "no_proxy": "127.0.0.1", "PYTHONWARNINGS": "error",
        }  # fmt: skip
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Page:
        self._runner = self._stack.enter_context(
            asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(max_real_s=None))
        )
        self._stack.enter_context(contextlib.chdir(self.folder))
        self._stack.enter_context(_instead_of_asyncio_run())
        self._stack.enter_context(_on_path(self.folder))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def run(self, fence: Fence) -> None:
        """Run one block; DocsError says what is wrong with it."""
        runs = {
            "python": self._python, "console": self._console, "bash": self._bash, "toml": self._toml,
            "json": self._json, "text": self._text,
        }  # fmt: skip
        if fence.language not in runs:
            raise self._error(fence, f"the language {fence.language!r} is none of {', '.join(runs)}")
        runs[fence.language](fence)
        self.n_run += 1

    def _error(self, fence: Fence, problem: str) -> DocsError:
        return DocsError(f"{self.name}, line {fence.line}: {problem}")

    # -- languages --------------------------------------------------------------------------------

    def _python(self, fence: Fence) -> None:
        name = fence.option("file")
        if name is not None:
            self._write(name, fence.text)
            compile(fence.text, name, "exec")
            return
        out = io.StringIO()
        place = f"{self.name}, block at line {fence.line}"
        try:
            code = compile(fence.text, place, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
            with contextlib.redirect_stdout(out):
                if code.co_flags & inspect.CO_COROUTINE:
                    self._runner.run(self._evaluate(code))
                else:
                    exec(code, self._namespace)  # noqa: S102 - the page's own text
        except Exception as error:
            raise self._error(fence, f"the block raised {type(error).__name__}: {error}") from error
        self.printed = out.getvalue()

    async def _evaluate(self, code: Any) -> None:
        await eval(code, self._namespace)  # noqa: S307 - the page's own text

    def _console(self, fence: Fence) -> None:
        shown: list[tuple[str, list[str]]] = []
        for line in fence.text.splitlines():
            if line.startswith("$ "):
                shown.append((line[2:], []))
            elif shown:
                shown[-1][1].append(line)
            elif line.strip():
                raise self._error(fence, "a console block begins with a command after '$ '")
        for command, expected in shown:
            printed = self._command(fence, command)
            if any(line.strip() for line in expected):
                self._compare(fence, "\n".join(expected), printed)

    def _bash(self, fence: Fence) -> None:
        for line in fence.text.splitlines():
            if line.strip():
                self._command(fence, line)

    def _toml(self, fence: Fence) -> None:
        try:
            content = tomllib.loads(fence.text)
        except tomllib.TOMLDecodeError as error:
            raise self._error(fence, f"no valid TOML: {error}") from None
        name = fence.option("file")
        path = self._write(name or f"block-{fence.line}.toml", fence.text)
        if "profiles" in content:
            for profile in content["profiles"]:
                VoiceEngineConfig.load(profile=profile, path=path)
        elif set(content) & set(SCRIPT_KEYS):
            Script.from_mapping({"script": str(path)})
        elif "project" not in content:
            raise self._error(fence, "the TOML is neither profiles nor a script nor part of a pyproject.toml")

    def _json(self, fence: Fence) -> None:
        json.loads(fence.text)

    def _text(self, fence: Fence) -> None:
        if "output" in fence.options:
            self._compare(fence, fence.text, self.printed)

    # -- commands ---------------------------------------------------------------------------------

    def _command(self, fence: Fence, line: str) -> str:
        words = shlex.split(line, comments=True)
        match words:
            case []:
                return ""
            case ["voxengine", *arguments]:
                return self._start(fence, line, [sys.executable, "-m", "voxengine", *arguments])
            case ["export", assignment] if "=" in assignment:
                name, _, value = assignment.partition("=")
                self._environment[name] = value
            case ["pip" | "python3", *rest] if rest[-1:] and self._is_install(words):
                self._check_install(fence, rest)
            case ["python3", "noxfile.py", "-s", session, *_]:
                if session not in nox_sessions():
                    raise self._error(fence, f"the noxfile has no session {session!r}")
            case ["python3", "noxfile.py", "-l"]:
                pass
            case ["python3", file, *arguments] if (self.folder / file).is_file():
                return self._start(fence, line, [sys.executable, file, *arguments])
            case _:
                raise self._error(fence, f"the command is not one that a page may show: {line!r}")
        return ""

    @staticmethod
    def _is_install(words: list[str]) -> bool:
        return words[:2] == ["pip", "install"] or words[:4] == ["python3", "-m", "pip", "install"]

    def _check_install(self, fence: Fence, words: list[str]) -> None:
        known = workspace()
        for word in words[words.index("install") + 1 :]:
            if word.startswith("-"):
                continue
            try:
                wanted = Requirement(word)
            except InvalidRequirement:
                raise self._error(fence, f"pip cannot install {word!r}") from None
            if wanted.name not in known or wanted.extras - known[wanted.name]:
                raise self._error(fence, f"the workspace has no {word!r}; it has {known}")

    def _start(self, fence: Fence, line: str, command: list[str]) -> str:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )
        wanted = int(fence.option("exit") or 0)
        if done.returncode != wanted:
            output = done.stdout + done.stderr
            raise self._error(fence, f"{line!r} ended with {done.returncode}, not {wanted}:\n{output}")
        return done.stdout + done.stderr

    # -- helpers ----------------------------------------------------------------------------------

    def _write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return path

    def _compare(self, fence: Fence, expected: str, printed: str) -> None:
        if not _matches(_lines(expected), _lines(printed)):
            raise self._error(fence, f"the page shows\n{expected}\nand this was printed\n{printed}")


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip("\n").splitlines()]


def _matches(expected: list[str], printed: list[str]) -> bool:
    """Whether the printed lines are the expected ones; a line of only ``…`` stands for any number of lines."""
    ends = {0}  # How many printed lines the expected ones so far may have used.
    for line in expected:
        if line.strip() == "…":
            ends = set(range(min(ends, default=len(printed) + 1), len(printed) + 1))
            continue
        pattern = re.compile(".*".join(map(re.escape, line.split("…"))))
        ends = {end + 1 for end in ends if end < len(printed) and pattern.fullmatch(printed[end])}
    return len(printed) in ends


@contextlib.contextmanager
def _instead_of_asyncio_run() -> Iterator[None]:
    held = asyncio.run
    asyncio.run = run_virtual  # type: ignore[assignment]
    try:
        yield
    finally:
        asyncio.run = held


@contextlib.contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    """Let the blocks import what they wrote, and forget it afterwards."""
    known = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - known:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
                del sys.modules[name]
