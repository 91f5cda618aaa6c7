"""Reads checked values out of a mapping or a TOML file; every error says where the value stands."""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from voxengine.errors import ConfigError
from voxengine_mock.toml_lines import KeyPath, key_lines, line_of

__all__ = ["Read", "Source", "milliseconds", "number", "one_of", "read_toml", "whole"]

_BARE: Final = re.compile(r"[\w-]+", re.ASCII)


def _show(path: KeyPath) -> str:
    out = ""
    for part in path:
        if isinstance(part, int):
            out += f"[{part}]"
        else:
            key = part if _BARE.fullmatch(part) else json.dumps(part, ensure_ascii=False)
            out += f".{key}" if out else key
    return out


@attrs.frozen
class Source:
    """Where values come from: says so, with the line where there is one, in every error."""

    name: str
    lines: Mapping[KeyPath, int] | None = attrs.field(default=None, repr=False)

    def error(self, path: KeyPath, problem: str) -> ConfigError:
        """Make the error for the value at a path; ``problem`` continues a sentence that begins with it."""
        line = None if self.lines is None else line_of(self.lines, path)
        where = self.name if line is None else f"{self.name}, line {line}"
        return ConfigError(f"{where}: {_show(path)} {problem}" if path else f"{where}: {problem}")

    def kind(self, path: KeyPath, value: object, takes: str) -> ConfigError:
        """Make the error for a value of the wrong type."""
        return self.error(path, f"is {type(value).__name__}; it takes {takes}.")

    def line(self, path: KeyPath) -> str:
        """Say on which line something else stands, for the middle of a sentence; empty without lines."""
        line = None if self.lines is None else line_of(self.lines, path)
        return "" if line is None else f" (line {line})"

    def check_keys(
        self, path: KeyPath, values: Mapping[Any, Any], known: Collection[str], of: str = "a script"
    ) -> None:
        """Refuse a key that is not known."""
        for key in values:
            if key not in known:
                close = difflib.get_close_matches(str(key), known, 1)
                hint = f" Did you mean {close[0]!r}?" if close else ""
                raise self.error(
                    (*path, str(key)), f"is not a key of {of}.{hint} The keys here: {', '.join(known)}."
                )

    def table(self, path: KeyPath, value: object, known: Collection[str], of: str) -> Mapping[str, Any]:
        """Return a table that has known keys only."""
        if not isinstance(value, Mapping):
            raise self.kind(path, value, f"a table with {', '.join(known)}")
        self.check_keys(path, value, known, of)
        return value

    def string(self, path: KeyPath, value: object) -> str:
        """Return a text."""
        if not isinstance(value, str):
            raise self.kind(path, value, "a text")
        return value

    def words(self, path: KeyPath, value: object) -> str:
        """Return a text that is not blank."""
        text = self.string(path, value)
        if not text.strip():
            raise self.error(path, "is empty; it takes a text.")
        return text

    def flag(self, path: KeyPath, value: object) -> bool:
        """Return true or false."""
        if not isinstance(value, bool):
            raise self.kind(path, value, "true or false")
        return value

    def items(self, path: KeyPath, value: object, takes: str) -> list[tuple[KeyPath, Any]]:
        """Return the elements of a list with their paths."""
        if not isinstance(value, list | tuple):
            raise self.kind(path, value, takes)
        return [((*path, n), item) for n, item in enumerate(value)]


Read = Callable[[Source, KeyPath, Any], Any]


def number(low: float, high: float, unit: str) -> Read:
    """Return a reader of numbers within a range."""
    takes = f"a number from {low:g} to {high:g} ({unit})"

    def read(source: Source, path: KeyPath, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise source.kind(path, value, takes)
        if not low <= value <= high or math.isnan(value):
            raise source.error(path, f"is {value:g}; it takes {takes}.")
        return float(value)

    return read


def whole(low: int | None = None, high: int | None = None) -> Read:
    """Return a reader of whole numbers."""
    takes = "a whole number" if low is None else f"a whole number from {low} to {high}"

    def read(source: Source, path: KeyPath, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise source.kind(path, value, takes)
        if low is not None and high is not None and not low <= value <= high:
            raise source.error(path, f"is {value}; it takes {takes}.")
        return value

    return read


def one_of(*words: str) -> Read:
    """Return a reader of one of some words."""

    def read(source: Source, path: KeyPath, value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise source.error(path, f"takes one of {', '.join(map(repr, words))}.")
        return value

    return read


milliseconds: Final = number(0, 600_000, "ms")


def read_toml(path: str | Path) -> tuple[Source, dict[str, Any]]:
    """Return a file's content and where it comes from, as it was given. Raises ConfigError when it is no TOML."""
    name, raw = str(path), b""
    try:
        raw = Path(path).read_bytes()
        text = raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{name}, line {line}: a byte is not UTF-8. A script is a TOML file in UTF-8; save it as that."
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"The script {name!r} cannot be read ({type(error).__name__}). "
            "A script is a TOML file in UTF-8; give its path."
        ) from None
    try:
        content = tomllib.loads(text)
        return Source(name, key_lines(text)), content
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name} is not valid TOML: {error}.") from None
    except RecursionError:
        raise ConfigError(f"{name} is nested too deeply.") from None
