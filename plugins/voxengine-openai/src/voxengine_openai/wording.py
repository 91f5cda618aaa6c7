"""What is wrong with a message, in OpenAI's codes and words.

Sources: logs of the live service for what is absent, unknown, outside a set, of the wrong type or too long; the
other sentences are made in the same manner.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from voxengine_openai.messages import ProtocolFault

__all__ = [
    "invalid_type",
    "invalid_value",
    "kind_of",
    "listed",
    "missing",
    "out_of_range",
    "too_long",
    "unknown",
]

_MAX_QUOTED: Final = 64
"""Longer words are no slip in a name: they may be what somebody said, and are not repeated."""
_KINDS: Final[dict[type, str]] = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    dict: "an object",
    list: "an array",
    type(None): "null",
}


def kind_of(value: Any) -> str:
    """The JSON type of a value, with its article."""
    return _KINDS.get(type(value), "another type")


def listed(words: Iterable[str], conjunction: str = "and") -> str:
    """``a``, ``a and b``, ``a, b, and c``."""
    *first, last = words
    if not first:
        return last
    return f"{', '.join(first)}{',' if len(first) > 1 else ''} {conjunction} {last}"


def missing(path: str) -> ProtocolFault:
    """A required field is absent."""
    return ProtocolFault(f"Missing required parameter: '{path}'.", "missing_required_parameter", path)


def unknown(path: str) -> ProtocolFault:
    """A field that is not in the schema."""
    shown = path if len(path) <= 4 * _MAX_QUOTED else path[: 4 * _MAX_QUOTED] + "…"
    return ProtocolFault(f"Unknown parameter: '{shown}'.", "unknown_parameter", shown)


def invalid_value(path: str, value: Any, supported: Sequence[Any]) -> ProtocolFault:
    """A value outside its set."""
    is_short = not isinstance(value, str) or len(value) <= _MAX_QUOTED
    given = f": {_quoted(value)}" if is_short else f" for '{path}'"
    words = listed(map(_quoted, supported))
    return ProtocolFault(f"Invalid value{given}. Supported values are: {words}.", "invalid_value", path)


def invalid_type(path: str, expected: str, value: Any) -> ProtocolFault:
    """A value of the wrong JSON type; ``expected`` with its article."""
    place = f"'{path}'" if path else "the event"
    reason = f"Invalid type for {place}: expected {expected}, but got {kind_of(value)} instead."
    return ProtocolFault(reason, "invalid_type", path or None)


def too_long(path: str, value: Any, limit: int) -> ProtocolFault:
    """A string, an object or an array with more than ``limit`` characters, entries or elements."""
    kind = kind_of(value)
    if isinstance(value, dict):
        code, subject = "object_above_max_properties", "too many properties"
        wanted = (
            f"{kind} with at most {limit} properties, but got {kind} with {len(value)} properties instead"
        )
    else:
        word = "string" if isinstance(value, str) else "array"
        code, subject = f"{word}_above_max_length", f"{word} too long"
        wanted = f"{kind} with maximum length {limit}, but got {kind} with length {len(value)} instead"
    return ProtocolFault(f"Invalid '{path}': {subject}. Expected {wanted}.", code, path)


def out_of_range(path: str, value: float, limit: float, *, is_above: bool) -> ProtocolFault:
    """A number beyond its limit."""
    kind = "integer" if isinstance(value, int) and isinstance(limit, int) else "decimal"
    side, sign, word = ("above maximum", "<=", "max") if is_above else ("below minimum", ">=", "min")
    code = f"{kind}_{'above' if is_above else 'below'}_{word}_value"
    wanted = f"Expected a value {sign} {limit:g}, but got {value} instead."
    reason = f"Invalid '{path}': {kind} {side} value. {wanted}"
    return ProtocolFault(reason, code, path)


def _quoted(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"'{value}'" if isinstance(value, str) else str(value)
