"""Rules of style that a reader depends on and that no linter here checks."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.meta.test_packaging import project_files
from tests.meta.tree import ROOT, modules, parsed

MAX_MODULE_LINES = 600
MAX_FUNCTION_LINES = 60

# Longer ones, each with its reason.
LONG_MODULES = {
    "core/src/voxengine/events.py": "one class per event, in the order of the table",
}

SOURCES = {
    str(path.relative_to(ROOT)): path
    for folder in (ROOT / "core/src", *sorted(ROOT.glob("plugins/*/src")))
    for path in modules(folder).values()
}
PYTHON = {str(path.relative_to(ROOT)): path for path in project_files() if path.suffix == ".py"}
THIS = "tests/meta/test_house_style.py"
GUIDE = "tests/data/provider-system.md"
TEXTS = {
    str(path.relative_to(ROOT)): path
    for path in project_files()
    if path.suffix in {".py", ".md", ".toml", ".txt", ".sh", ".yml", ".cfg", ".svg", ""}
    and str(path.relative_to(ROOT)) not in {THIS, GUIDE}
}

# Said of work that is not done. Spelled so that this file does not find itself.
UNFINISHED = re.compile(
    r"\b(TO" r"DO|FIX" r"ME|XXX|HACK)\b|coming\s+soon|not\s+implemented\s+yet", re.IGNORECASE
)
MACHINE_PATHS = re.compile(r"(?<![\w.])/(?:home|root|Users|work|mnt)/\w")
OUTSIDE = re.compile(r"\.\./shared|\bissue #\d|\bdesign\.md|house-style\.md", re.IGNORECASE)


def code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring and decorators."""
    assert node.end_lineno is not None
    n_lines = node.end_lineno - node.lineno + 1
    first = node.body[0]
    if ast.get_docstring(node) is not None:
        assert first.end_lineno is not None
        n_lines -= first.end_lineno - first.lineno + 1
    return n_lines


@pytest.mark.parametrize("name", SOURCES)
def test_module_is_short_enough_to_be_read(name: str) -> None:
    n_lines = len(SOURCES[name].read_text("utf-8").splitlines())

    assert (n_lines > MAX_MODULE_LINES) is (name in LONG_MODULES), f"{name} has {n_lines} lines"


@pytest.mark.parametrize("name", PYTHON)
def test_functions_are_short_enough_to_be_read(name: str) -> None:
    long = {
        node.name: code_lines(node)
        for node in ast.walk(parsed(PYTHON[name]))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and code_lines(node) > MAX_FUNCTION_LINES
    }

    assert long == {}


@pytest.mark.parametrize("name", [name for name in SOURCES if SOURCES[name].stat().st_size])
def test_module_says_what_it_is(name: str) -> None:
    text = ast.get_docstring(parsed(SOURCES[name]))

    assert text or name.endswith("__main__.py")


@pytest.mark.parametrize("name", SOURCES)
def test_nothing_is_left_to_be_written(name: str) -> None:
    raised = [
        node.lineno
        for node in ast.walk(parsed(SOURCES[name]))
        if isinstance(node, ast.Name) and node.id == "NotImplementedError"
    ]

    assert raised == []


@pytest.mark.parametrize("name", TEXTS)
def test_no_text_announces_work_that_is_not_done(name: str) -> None:
    text = read(TEXTS[name])

    assert [match[0] for match in UNFINISHED.finditer(text)] == []


@pytest.mark.parametrize("name", TEXTS)
def test_no_text_names_a_place_on_one_machine_or_outside_the_project(name: str) -> None:
    text = read(TEXTS[name])

    assert [match[0] for pattern in (MACHINE_PATHS, OUTSIDE) for match in pattern.finditer(text)] == []


@pytest.mark.parametrize("name", [name for name in PYTHON if name.startswith("tests/")])
def test_tests_wait_for_events_and_not_for_time(name: str) -> None:
    sleeps = [
        node.lineno
        for node in ast.walk(parsed(PYTHON[name]))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "time.sleep"
    ]

    assert len(sleeps) <= BLOCKING.get(name, 0), f"{name}: lines {sleeps}"


# Tests of what blocks: file -> how many calls of time.sleep.
BLOCKING: dict[str, int] = {"tests/audio_lab/card.py": 1}


def read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        return ""


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("# TO" "DO: later", True), ("com" "ing soon", True), ("a todolist", False),
        ("see /ro" "ot/x", True), ("https://host/work/x", False), ("https://host/home/x", False),
    ],
)  # fmt: skip
def test_patterns_find_what_they_should(text: str, is_found: bool) -> None:
    assert bool(UNFINISHED.search(text) or MACHINE_PATHS.search(text)) is is_found
