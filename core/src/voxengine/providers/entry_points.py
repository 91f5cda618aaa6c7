"""The entry points of what is installed, also when a distribution among it cannot be read.

The standard library gives all or nothing: one malformed file of one distribution, and no entry point of any is
found.
"""

from __future__ import annotations

import functools
import importlib.metadata
import re
from collections.abc import Callable
from typing import Any

import attrs

from voxengine.errors import ConfigError

__all__ = ["Unreadable", "find_entry_points", "find_offered", "identity", "make_offered"]


@attrs.frozen
class Unreadable:
    """A distribution whose entry points cannot be read."""

    distribution: str
    version: str
    reason: str

    def __str__(self) -> str:
        origin = f"{self.distribution} {self.version}".strip()
        return (
            f"What the distribution {origin} offers is not known: {self.reason}. Reinstall or uninstall it."
        )


def find_entry_points(
    group: str,
) -> tuple[tuple[importlib.metadata.EntryPoint, ...], tuple[Unreadable, ...]]:
    """Return the entry points of a group, and the distributions that may have some and cannot be read."""
    try:
        return tuple(importlib.metadata.entry_points(group=group)), ()
    except Exception:  # Whatever a file can make the parser raise; it does not say which file.
        return _one_by_one(group)


def make_offered(group: str, name: str, what: str, built_in: tuple[str, ...], *arguments: object) -> object:
    """Call what installed packages offer under a name in a group, and return what it makes.

    The first four arguments are those of :func:`find_offered`, the others are for the call.

    Raises:
        ConfigError: There is none, two packages offer it, or it cannot be made. One that it raises itself
            goes through as it is.
    """
    return find_offered(group, name, what, built_in)(*arguments)


def find_offered(group: str, name: str, what: str, built_in: tuple[str, ...]) -> Callable[..., object]:
    """Return what installed packages offer under a name in a group.

    Args:
        group: Of the entry points.
        name: The one that is wanted.
        what: A noun for messages.
        built_in: Names that need no package, for the message that there is no such name.

    Returns:
        Something to call. It raises ConfigError when what is offered fails; a ConfigError goes through as it is.

    Raises:
        ConfigError: There is none, two packages offer it, or it cannot be imported.
    """
    found, unreadable = find_entry_points(group)
    wanted = {entry.value: entry for entry in found if entry.name == name}
    if not wanted:
        names = ", ".join([*built_in, *sorted({entry.name for entry in found})])
        notes = "".join(f" {each}" for each in unreadable)
        raise ConfigError(f"No {what} is called {name!r}. Installed: {names}.{notes}")
    if len(wanted) > 1:
        raise ConfigError(
            f"Two packages offer the {what} {name!r}: {' and '.join(sorted(wanted))}. Uninstall one."
        )
    ((value, entry),) = wanted.items()

    def tried(call: Callable[..., Any], *arguments: object) -> Any:
        try:
            return call(*arguments)
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(
                f"The {what} {name!r} ({value}) cannot be used: {type(error).__name__}: {error}"
            ) from error

    return functools.partial(tried, tried(entry.load))


def _one_by_one(
    group: str,
) -> tuple[tuple[importlib.metadata.EntryPoint, ...], tuple[Unreadable, ...]]:
    found: list[importlib.metadata.EntryPoint] = []
    unreadable: list[Unreadable] = []
    seen: set[str] = set()
    for distribution in importlib.metadata.distributions():
        name, version = identity(distribution)
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in seen:
            continue  # The first on the path is the one that is imported.
        seen.add(key)
        try:
            found += [entry for entry in distribution.entry_points if entry.group == group]
        except Exception as error:
            unreadable.append(Unreadable(name, version, _reason(error)))
    return tuple(found), tuple(unreadable)


def identity(distribution: importlib.metadata.Distribution) -> tuple[str, str]:
    """Return name and version, from the folder's name where the metadata cannot be read."""
    try:
        metadata: Any = distribution.metadata
        name, version = metadata["Name"], metadata["Version"]
        if isinstance(name, str) and name:
            return name, str(version or "")
    except Exception:  # As above: the file is somebody else's.
        pass
    stem = str(getattr(getattr(distribution, "_path", None), "name", ""))
    name, _, version = re.sub(r"\.(dist|egg)-info$", "", stem).partition("-")
    return name or "unknown distribution", version


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "its entry_points.txt is not UTF-8"
    if isinstance(error, OSError):
        return f"its entry_points.txt cannot be read: {error.strerror}"
    return f"its entry_points.txt is malformed ({type(error).__name__})"
