"""Where each key of a TOML text stands: the standard library's reader gives values without positions.

The scanner expects text that ``tomllib`` has accepted, so it checks nothing; it only has to know where
strings, comments and brackets end.
"""

from __future__ import annotations

import bisect
import re
import tomllib
from collections.abc import Mapping
from typing import Final

__all__ = ["KeyPath", "key_lines", "line_of"]

KeyPath = tuple[str | int, ...]
"""Keys and positions in lists, from the top of the document."""

_SPACE: Final = re.compile(r"(?:[ \t]|#[^\n]*)*")
_SPACE_AND_LINES: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_STRING: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}(?!")' r"|'''.*?'{3,5}(?!')" r'|"(?:\\.|[^"\\\n])*"' r"|'[^'\n]*'",
    re.DOTALL,
)
_PLAIN_VALUE: Final = re.compile(r"[^,\]}#\n]*")


def key_lines(text: str) -> Mapping[KeyPath, int]:
    """Return the line, counted from 1, on which each key, table and list element begins."""
    scanner = _Scanner(text)
    scanner.document()
    return scanner.lines


def line_of(lines: Mapping[KeyPath, int], path: KeyPath) -> int | None:
    """Return the line of a path, or of the longest part of it that the text has; None when it has none."""
    for n in range(len(path), 0, -1):
        if path[:n] in lines:
            return lines[path[:n]]
    return None


class _Scanner:
    def __init__(self, text: str) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._text = text
        self._at = 0
        self._line_ends = [n for n, char in enumerate(text) if char == "\n"]
        self._n_tables: dict[KeyPath, int] = {}
        """How many ``[[tables]]`` of a name there are so far."""

    def document(self) -> None:
        table: KeyPath = ()
        while self._skip(_SPACE_AND_LINES):
            if self._peek() == "[":
                table = self._header()
            else:
                self._entry(table)

    def _skip(self, what: re.Pattern[str]) -> bool:
        """Pass over what matches; return whether anything follows."""
        found = what.match(self._text, self._at)
        if found is not None:
            self._at = found.end()
        return self._at < len(self._text)

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _note(self, path: KeyPath, at: int) -> None:
        self.lines.setdefault(path, bisect.bisect_left(self._line_ends, at) + 1)

    def _header(self) -> KeyPath:
        start = self._at
        is_list = self._text.startswith("[[", self._at)
        self._at += 2 if is_list else 1
        keys = self._keys()
        self._skip(_SPACE)
        self._at += 2 if is_list else 1
        path: KeyPath = ()
        for key in keys[:-1]:
            path = (*path, key)
            self._note(path, start)
            if path in self._n_tables:
                path = (*path, self._n_tables[path] - 1)
        path = (*path, keys[-1])
        self._note(path, start)
        if is_list:
            n = self._n_tables[path] = self._n_tables.get(path, 0) + 1
            path = (*path, n - 1)
            self._note(path, start)
        return path

    def _keys(self) -> list[str]:
        keys = []
        while True:
            self._skip(_SPACE)
            bare = _BARE_KEY.match(self._text, self._at)
            found = bare or _STRING.match(self._text, self._at)
            assert found is not None
            self._at = found.end()
            key = found[0]
            keys.append(key if bare else str(tomllib.loads(f"k = {key}")["k"]))
            self._skip(_SPACE)
            if self._peek() != ".":
                return keys
            self._at += 1

    def _entry(self, table: KeyPath) -> None:
        start = self._at
        path = table
        for key in self._keys():
            path = (*path, key)
            self._note(path, start)
        self._skip(_SPACE)
        self._at += 1  # The equals sign.
        self._skip(_SPACE)
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        first = self._peek()
        if first == "[":
            self._list(path)
        elif first == "{":
            self._inline_table(path)
        elif first in ('"', "'"):
            self._skip(_STRING)
        else:
            self._skip(_PLAIN_VALUE)

    def _list(self, path: KeyPath) -> None:
        self._at += 1
        n = 0
        while self._skip(_SPACE_AND_LINES) and self._peek() != "]":
            if self._peek() == ",":
                self._at += 1
                continue
            self._note((*path, n), self._at)
            self._value((*path, n))
            n += 1
        self._at += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._at += 1
        while self._skip(_SPACE_AND_LINES) and self._peek() != "}":
            if self._peek() == ",":
                self._at += 1
                continue
            self._entry(path)
        self._at += 1
