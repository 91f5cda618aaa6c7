"""The source tree as the meta-tests see it: its modules, their imports, the documentation's headings."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import attrs

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
CORE = ROOT / "core" / "src"
PLUGINS = sorted(ROOT.glob("plugins/*/src"))


@attrs.frozen
class Import:
    """One imported name, or module when ``name`` is empty."""

    module: str
    name: str
    line: int
    is_deferred: bool
    """Inside a function: it runs when that is called."""
    is_for_types: bool
    """Under TYPE_CHECKING: it never runs."""

    @property
    def full(self) -> str:
        return f"{self.module}.{self.name}" if self.name else self.module


@functools.cache
def modules(folder: Path = CORE) -> dict[str, Path]:
    """Every module below a source folder, by its dotted name."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        if any(part.endswith(".egg-info") for part in parts):
            continue
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def imports(path: Path, package: str = "") -> Iterator[Import]:
    """Every import of a file, wherever it stands. ``package`` resolves relative ones."""

    def visit(node: ast.AST, deferred: bool, for_types: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, "", node.lineno, deferred, for_types)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                base = package.split(".")[: len(package.split(".")) - node.level + 1]
                module = ".".join([*base, *([module] if module else [])])
            for alias in node.names:
                yield Import(module, alias.name, node.lineno, deferred, for_types)
        inside = deferred or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for statement in node.body:
                yield from visit(statement, inside, True)
            for statement in node.orelse:
                yield from visit(statement, inside, for_types)
            return
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside, for_types)

    yield from visit(parsed(path), False, False)


def headings(path: Path) -> list[str]:
    """The headings of a Markdown file, without their marks and without code quotes."""
    outside_blocks = re.sub(r"^(`{3,}).*?^\1$", "", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [
        line.lstrip("#").strip().replace("`", "")
        for line in re.findall(r"^#+ .*$", outside_blocks, re.MULTILINE)
    ]


def table_rows(path: Path) -> list[list[str]]:
    """The body rows of every Markdown table of a file, cell by cell, without code quotes."""
    rows = []
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("|") and not re.fullmatch(r"[|:\- ]+", line):
            cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
            rows.append([cell.strip().replace("\\|", "|") for cell in cells])
    return rows
