"""Checks of options: of type and range, in the same words for all of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from voxengine.errors import ConfigError, UsageError

__all__ = ["Check", "bad", "check_unicode", "file_path", "hidden", "kind_of", "number", "one_of", "text"]

_MASK: Final = "…"

Check = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def hidden(value: object) -> object:
    """Return what may be shown of a value that can hold a secret: its shape, never its content."""
    if isinstance(value, Mapping):
        return {key: hidden(inner) for key, inner in value.items()}
    return None if value is None else _MASK


def bad(owner: object, name: str, value: object, takes: str) -> ConfigError:
    is_number = isinstance(value, int | float)
    is_hidden = name in ("api_key", "metadata") or (name.startswith("metadata") and not is_number)
    shown = _MASK if is_hidden else repr(value)
    if len(shown) > 80:
        shown = shown[:77] + "..."
    return ConfigError(
        f"{type(owner).__name__}.{name} got {shown} ({type(value).__name__}); it takes {takes}."
    )


def check_unicode(method: str, *values: object) -> None:
    """Raise UsageError when a text among the values cannot be written as UTF-8."""
    try:
        for value in values:
            if isinstance(value, str):
                value.encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"{method} got half a surrogate pair, which no text holds. Nothing was sent."
        ) from None


def file_path(path: object, what: str) -> Path:
    """Return a path that an application gave.

    Args:
        path: What it gave.
        what: What the file is, for the error.

    Raises:
        ConfigError: It is no path.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str) or not os.fspath(path):
        raise ConfigError(f"The path of {what} is a str or a Path, not {path!r}.")
    return Path(path)


def number(low: float, high: float, unit: str, *, whole: bool = False, optional: bool = False) -> Check:
    kind = "an int" if whole else "a number"
    takes = f"{kind} from {low:g} to {high:g} ({unit})" + (" or None" if optional else "")

    def check(owner: Any, field: attrs.Attribute[Any], value: Any) -> None:
        if value is None and optional:
            return
        fits = isinstance(value, int) if whole else isinstance(value, int | float)
        if isinstance(value, bool) or not fits or not low <= value <= high:
            raise bad(owner, field.name, value, takes)

    return check


def text(*, optional: bool = True, empty: bool = False) -> Check:
    takes = "a str" + ("" if empty else " that is not empty") + (" or None" if optional else "")

    def check(owner: Any, field: attrs.Attribute[Any], value: Any) -> None:
        if value is None and optional:
            return
        if not isinstance(value, str) or not (empty or value.strip()):
            raise bad(owner, field.name, value, takes)

    return check


def one_of(*words: str, optional: bool = False) -> Check:
    takes = "one of " + ", ".join(repr(word) for word in words) + (" or None" if optional else "")

    def check(owner: Any, field: attrs.Attribute[Any], value: Any) -> None:
        if value is None and optional:
            return
        if not isinstance(value, str) or value not in words:
            raise bad(owner, field.name, value, takes)

    return check


def kind_of(kind: type, takes: str) -> Check:
    def check(owner: Any, field: attrs.Attribute[Any], value: Any) -> None:
        if not isinstance(value, kind):
            raise bad(owner, field.name, value, takes)

    return check
