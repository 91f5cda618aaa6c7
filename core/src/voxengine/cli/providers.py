"""``voxengine providers``: who is installed, and what each can do."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, Final, TextIO

import attrs

from voxengine.capabilities import ROWS, Capabilities, Support
from voxengine.cli.running import check_ctrl_c
from voxengine.cli.terminal import clean, paint, prints_to_stderr, tail_of, wants_color, width_of
from voxengine.errors import ProviderError, ProviderNotFound
from voxengine.providers.base import BaseProvider, effective_capabilities
from voxengine.providers.registry import ProviderInfo, default_registry

__all__ = ["run"]

_MARKS: Final = {
    Support.FULL: ("●", "yes", "green"),
    Support.PARTIAL: ("◐", "partial", "yellow"),
    Support.PLANNED: ("○", "planned", "cyan"),
    Support.UNSUPPORTED: ("–", "no", "dim"),
    Support.UNKNOWN: ("?", "unknown", "dim"),
}
_ASCII: Final = str.maketrans({"●": "+", "◐": "~", "○": "o", "–": "-", "─": "-", "✗": "x", "…": "."})
_SCALARS: Final = tuple(field.name for field in attrs.fields(Capabilities) if field.name not in ROWS)
_CELL_WIDTH: Final = 22
_MIN_CELL_WIDTH: Final = len("◐ partial [99]")
_GAP: Final = "  "
_MOST_TABLES: Final = 3
"""With more tables than this, one line per provider says more."""
_PIPE_WIDTH: Final = 100


@attrs.frozen
class Column:
    """A provider, or one of its services."""

    title: str
    info: ProviderInfo
    capabilities: Capabilities


@attrs.frozen
class Cell:
    """A text and its style."""

    text: str
    style: str = ""


def run(arguments: argparse.Namespace) -> int:
    """Print the table, or with ``--json`` everything.

    Raises:
        ProviderNotFound: A name was given that nobody has.
    """
    services: dict[ProviderInfo, dict[str, Capabilities]] = {}
    broken: dict[ProviderInfo, str] = {}
    with prints_to_stderr():
        infos = _infos(arguments.names)
        for info in infos:
            try:
                services[info] = _services(info)
            except Exception as error:
                # A provider's own code says what it can; what it raises must not reach the others.
                why = f"Its capabilities cannot be read: {type(error).__name__}: {error}"
                broken[info] = info.error or why
    check_ctrl_c()
    if arguments.json:
        print(json.dumps(_json(infos, services, broken), indent=2))
        return 0
    columns = [
        Column(f"{info.name}/{service}" if service else info.name, info, capabilities)
        for info, held in services.items()
        for service, capabilities in held.items()
    ]
    _Printer(sys.stdout).print(columns, list(broken.items()), is_detailed=bool(arguments.names))
    return 0


def _infos(names: Sequence[str]) -> list[ProviderInfo]:
    if not names:
        return default_registry.infos(load=True)
    for name in names:
        try:
            default_registry.get(name)
        except ProviderNotFound:
            if name not in {info.name for info in default_registry.infos()}:
                raise
        except ProviderError:
            pass  # Installed and broken: listed with its reason.
    return [info for info in default_registry.infos() if info.name in names]


def _services(info: ProviderInfo) -> dict[str, Capabilities]:
    """Return the capabilities by service, by the empty name for a provider that has no services."""
    cls: type[BaseProvider] | None = info.cls
    if cls is None:
        raise ProviderNotFound(info.error, provider=info.name)
    if not cls.services:
        return {"": effective_capabilities(cls, {"api_key": None, "metadata": {}})}
    return {
        service: effective_capabilities(cls, {"api_key": None, "metadata": {"service": service}})
        for service in cls.services
    }


# -- JSON -----------------------------------------------------------------------------------------


def _json(
    infos: Sequence[ProviderInfo],
    services: dict[ProviderInfo, dict[str, Capabilities]],
    errors: dict[ProviderInfo, str],
) -> dict[str, Any]:
    return {
        "rows": list(ROWS),
        "providers": [
            {
                "name": info.name,
                "distribution": info.distribution or None,
                "version": info.version or None,
                "target": info.target or None,
                "error": errors.get(info),
                "services": [
                    {"service": service or None, "capabilities": _capabilities_json(capabilities)}
                    for service, capabilities in services.get(info, {}).items()
                ],
            }
            for info in infos
        ],
    }


def _capabilities_json(capabilities: Capabilities) -> dict[str, Any]:
    values = capabilities.to_dict()
    for row in ROWS:
        cell = capabilities.support(row)
        values[row] = {"support": str(cell.support), "why": cell.why or None}
    return values


# -- the table ------------------------------------------------------------------------------------


class _Printer:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._color = wants_color(stream)
        self._width = max(shutil.get_terminal_size((_PIPE_WIDTH, 24)).columns, 40)
        self._is_ascii = not _can_encode(stream, "●◐○–…")
        self._notes: list[str] = []

    def print(
        self, columns: Sequence[Column], broken: Sequence[tuple[ProviderInfo, str]], *, is_detailed: bool
    ) -> None:
        if not columns and not broken:
            self._line("No provider is installed. Try: pip install voxengine-mock")
            return
        if columns:
            tables = list(self._split(columns))
            if len(tables) > _MOST_TABLES and not is_detailed:
                self._matrix(columns)
            else:
                for number, table in enumerate(tables):
                    if number:
                        self._line("")
                    self._table(table)
            self._legend()
        for info, reason in broken:
            self._line("")
            head = f"✗ {info.name} ({info.origin}) cannot be used"
            self._line(paint(clean(head), "red", self._color))
            self._wrapped(reason, indent="  ")

    def _split(self, columns: Sequence[Column]) -> Iterator[list[Column]]:
        """Group columns into tables that fit, as wide as they need."""
        room = self._width - self._label_width()
        table: list[Column] = []
        used = 0
        for column in columns:
            width = self._column_width(column) + len(_GAP)
            if table and used + width > room:
                yield table
                table, used = [], 0
            table.append(column)
            used += width
        yield table

    def _label_width(self) -> int:
        return max(len(name) for name in (*ROWS, *_SCALARS))

    def _column_width(self, column: Column) -> int:
        texts = [
            *self._heads(column),
            *(_scalar(column.capabilities, name, _CELL_WIDTH) for name in _SCALARS),
        ]
        return min(max(_MIN_CELL_WIDTH, *(width_of(text) for text in texts)), _CELL_WIDTH)

    def _heads(self, column: Column) -> list[str]:
        info = column.info
        distribution = info.distribution or "registered"
        return [clean(column.title), clean(distribution), clean(info.version)]

    def _table(self, columns: Sequence[Column]) -> None:
        widths = [self._column_width(column) for column in columns]
        heads = [self._heads(column) for column in columns]
        for number, style in enumerate(("bold", "dim", "dim")):
            self._row("", [Cell(head[number], style) for head in heads], widths)
        rule = "─" * min(self._label_width() + sum(widths) + len(_GAP) * len(widths), self._width)
        self._line(paint(rule, "dim", self._color))
        for row in ROWS:
            self._row(row, [self._cell(column, row) for column in columns], widths)
        self._line("")
        # A single column has the whole line for its lists.
        limit = self._width - self._label_width() - len(_GAP) if len(columns) == 1 else _CELL_WIDTH
        for name in _SCALARS:
            cells = [Cell(_scalar(column.capabilities, name, limit)) for column in columns]
            if any(cell.text for cell in cells):
                self._row(name, cells, [limit] if len(columns) == 1 else widths)

    def _row(self, label: str, cells: Sequence[Cell], widths: Sequence[int]) -> None:
        parts = [label.replace("_", " ").ljust(self._label_width())]
        for cell, width in zip(cells, widths, strict=True):
            text = _head_of(cell.text, width)
            parts.append(paint(text, cell.style, self._color) + " " * (width - width_of(text)))
        self._line(_GAP.join(parts).rstrip())

    def _cell(self, column: Column, row: str) -> Cell:
        capability = column.capabilities.support(row)
        symbol, word, style = _MARKS[capability.support]
        note = ""
        if capability.why:
            text = f"{column.title}, {row.replace('_', ' ')}: {capability.why}"
            if text not in self._notes:
                self._notes.append(text)
            note = f" [{self._notes.index(text) + 1}]"
        return Cell(f"{symbol} {word}{note}", style)

    def _matrix(self, columns: Sequence[Column]) -> None:
        """Print one line per service, its capabilities as one symbol each."""
        names = max(width_of(clean(column.title)) for column in columns)
        step = 3 if names + 3 * len(ROWS) <= self._width else 2
        names = min(names, max(self._width - step * len(ROWS), 12))
        numbers = range(1, len(ROWS) + 1)
        for digits in ([number // 10 or " " for number in numbers], [number % 10 for number in numbers]):
            head = " " * names + "".join(f"{digit:>{step}}" for digit in digits)
            self._line(paint(head, "dim", self._color))
        for column in columns:
            title = tail_of(clean(column.title), names)
            line = title + " " * (names - width_of(title))
            for row in ROWS:
                symbol, _, style = _MARKS[column.capabilities.support(row).support]
                line += " " * (step - 1) + paint(symbol, style, self._color)
            self._line(line)
        self._line("")
        # Spaces that do not break keep a number with its words.
        names_of_rows = (row.replace("_", "\xa0") for row in ROWS)
        self._wrapped(
            ", ".join(f"{number}\xa0{row}" for number, row in enumerate(names_of_rows, 1)), indent=""
        )
        self._wrapped(
            "`voxengine providers NAME` adds its distribution, its limits and its notes.", indent=""
        )

    def _legend(self) -> None:
        self._line("")
        for number, note in enumerate(self._notes, 1):
            self._wrapped(f"[{number}] {note}", indent="    ", first="")
        legend = [f"{symbol} {word}" for symbol, word, _ in _MARKS.values()]
        self._line(paint(_GAP.join(legend), "dim", self._color))

    def _wrapped(self, text: str, *, indent: str, first: str | None = None) -> None:
        wrapped = textwrap.wrap(
            clean(text),
            width=self._width,
            initial_indent=indent if first is None else first,
            subsequent_indent=indent,
            break_on_hyphens=False,
        )
        for line in wrapped:
            self._line(line.replace("\xa0", " "))

    def _line(self, text: str) -> None:
        if self._is_ascii:
            text = text.translate(_ASCII).encode("ascii", "replace").decode("ascii")
        self._stream.write(text + "\n")


def _can_encode(stream: TextIO, text: str) -> bool:
    try:
        text.encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _head_of(text: str, width: int) -> str:
    if width_of(text) <= width:
        return text
    kept = text
    while kept and width_of(kept) > width - 1:
        kept = kept[:-1]
    return kept + "…"


def _scalar(capabilities: Capabilities, name: str, limit: int) -> str:
    """Return a value that is no row, short; empty when it is not known."""
    value = getattr(capabilities, name)
    if isinstance(value, tuple):
        words = [item if isinstance(item, str) else item.describe() for item in value]
        if len(words) < 2:
            return clean("".join(words))
        shown: list[str] = []
        for word in words:
            rest = f" +{len(words) - len(shown) - 1}" if len(shown) + 1 < len(words) else ""
            if shown and len(", ".join([*shown, word]) + rest) > limit:
                break
            shown.append(word)
        left = len(words) - len(shown)
        return clean(", ".join(shown) + (f" +{left}" if left else ""))
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
