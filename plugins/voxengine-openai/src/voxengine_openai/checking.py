"""Compares what a server sends with the table of what the provider reads.

It asks for no more than that, because compatible endpoints leave things out.
"""

from __future__ import annotations

import functools
from typing import Any, Final

from voxengine_openai import wording
from voxengine_openai.messages import SERVER_EVENTS, ProtocolFault

__all__ = ["broken_event"]

_Step = tuple[str, bool]
_Row = tuple[tuple[_Step, ...], type]
_TYPES: Final[dict[type, str]] = {str: "a string", int: "an integer", dict: "an object", list: "an array"}


@functools.cache
def _rows(name: str) -> tuple[_Row, ...]:
    """The table's rows of one event, each path as its keys and whether each may be absent."""
    return tuple(
        (tuple((key.removesuffix("?"), key.endswith("?")) for key in path.split(".")), kind)
        for path, kind in SERVER_EVENTS[name].items()
    )


def broken_event(name: str, fields: dict[str, Any]) -> ProtocolFault | None:
    """Return what a server's message lacks; whole numbers written as decimals become integers in place."""
    for steps, kind in _rows(name):
        if type(fields.get(steps[0][0])) is kind and len(steps) == 1:
            continue
        fault = _broken_row(fields, steps, kind, "")
        if fault is not None:
            return fault
    return None


def _broken_row(holder: Any, steps: tuple[_Step, ...], kind: type, path: str) -> ProtocolFault | None:
    (key, is_optional), *rest = steps
    if key == "*":
        found = (
            _broken_value(element, holder, i, tuple(rest), kind, f"{path}[{i}]")
            for i, element in enumerate(holder if isinstance(holder, list) else ())
        )
        return next((fault for fault in found if fault is not None), None)
    if not isinstance(holder, dict):
        return None  # The row of the holder itself said so.
    where = f"{path}.{key}" if path else key
    value = holder.get(key)
    if value is None and (is_optional or key in holder):
        return None if is_optional else wording.invalid_type(where, _TYPES[kind], None)
    if key not in holder:
        return wording.missing(where)
    return _broken_value(value, holder, key, tuple(rest), kind, where)


def _broken_value(
    value: Any, holder: Any, key: Any, rest: tuple[_Step, ...], kind: type, path: str
) -> ProtocolFault | None:
    if rest:
        return _broken_row(value, rest, kind, path)
    if type(value) is float and kind is int and value.is_integer():
        holder[key] = int(value)
        return None
    return None if type(value) is kind else wording.invalid_type(path, _TYPES[kind], value)
