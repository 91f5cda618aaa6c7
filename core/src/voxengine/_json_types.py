"""Python's types in JSON: a type hint as a schema, a JSON value as what the hint names, and back.

Inside :mod:`voxengine.tools`. Standard library and attrs only.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import datetime
import enum
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, NoReturn, Union

import attrs

from voxengine.errors import ConfigError

__all__ = [
    "Hint",
    "Mismatch",
    "Parameter",
    "check_keys",
    "compile_hint",
    "decode_fields",
    "make_parameter",
    "object_schema",
    "to_plain",
]


class Mismatch(Exception):
    """A JSON value does not fit a hint; the message is a sentence for the agent.

    When the value at ``where`` as a whole is of the wrong kind, ``takes`` says what is taken instead.
    """

    def __init__(self, message: str, where: str = "", takes: str = "") -> None:
        super().__init__(message)
        self.where = where
        self.takes = takes


Decode = Callable[[Any, str], Any]
"""Takes a JSON value and where it stands; returns the Python value or raises Mismatch."""


@attrs.frozen
class Hint:
    """A type hint, compiled."""

    schema: dict[str, Any]
    decode: Decode


@attrs.frozen
class Parameter:
    """One argument of a function, or one field of a class."""

    name: str
    """As it is called in JSON."""
    hint: Hint
    is_required: bool
    schema: dict[str, Any]
    """The hint's schema with description and default."""


# -- a value that does not fit ----------------------------------------------------------------------

_JSON_NAMES: Final = {
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def _json_name(value: object) -> str:
    return _JSON_NAMES.get(type(value), f"a {type(value).__name__}")


def _refuse(value: object, where: str, takes: str) -> NoReturn:
    raise Mismatch(f"{where} is {_json_name(value)}; it takes {takes}.", where, takes)


# -- hints ------------------------------------------------------------------------------------------


def _any(value: Any, where: str) -> Any:
    return value


def _none(value: Any, where: str) -> None:
    if value is not None:
        _refuse(value, where, "null")


def _str(value: Any, where: str) -> str:
    return value if isinstance(value, str) else _refuse(value, where, "a string")


def _bool(value: Any, where: str) -> bool:
    return value if isinstance(value, bool) else _refuse(value, where, "a boolean")


def _int(value: Any, where: str) -> int:
    if isinstance(value, float) and value.is_integer():  # JSON schema: 3.0 is an integer.
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        _refuse(value, where, "an integer")
    return value


def _float(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(value, where, "a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Mismatch(f"{where} is out of range.")
    return number


_SIMPLE: Final[dict[Any, tuple[dict[str, Any], Decode]]] = {
    Any: ({}, _any),
    object: ({}, _any),
    None: ({"type": "null"}, _none),
    type(None): ({"type": "null"}, _none),
    str: ({"type": "string"}, _str),
    bool: ({"type": "boolean"}, _bool),
    int: ({"type": "integer"}, _int),
    float: ({"type": "number"}, _float),
}
_TIMES: Final[dict[Any, tuple[str, str]]] = {
    datetime.datetime: ("date-time", "a date and time in ISO 8601"),
    datetime.date: ("date", "a date in ISO 8601 (YYYY-MM-DD)"),
    datetime.time: ("time", "a time in ISO 8601 (HH:MM:SS)"),
}
_SEQUENCES: Final[dict[Any, Callable[[list[Any]], Any]]] = {
    list: list,
    collections.abc.Sequence: list,
    collections.abc.Iterable: list,
    collections.abc.Collection: list,
    set: set,
    collections.abc.Set: set,
    frozenset: frozenset,
}
_MAPPINGS: Final = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_TAKES: Final = (
    "str, int, float, bool, None, Literal, Enum, datetime, date, time, list, tuple, set, dict[str, …], "
    "unions, TypedDict, dataclasses, attrs classes, Any, and Annotated with a description"
)


def compile_hint(hint: Any, where: str, inside: tuple[type, ...] = ()) -> Hint:
    """Return schema and decoder of a type hint.

    Args:
        hint: Resolved: no string in it.
        where: Opens the sentence of an error.
        inside: Classes whose fields are being compiled.

    Raises:
        ConfigError: The hint is none that JSON can carry.
    """
    if isinstance(hint, typing.NewType):
        return compile_hint(hint.__supertype__, where, inside)
    if type(hint).__name__ == "TypeAliasType":  # `type X = …`, Python 3.12
        return compile_hint(hint.__value__, where, inside)
    try:
        simple = _SIMPLE.get(hint)
    except TypeError:  # Unhashable, as in Annotated[int, []].
        simple = None
    if simple is not None:
        return Hint(dict(simple[0]), simple[1])
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        inner = compile_hint(args[0], where, inside)
        text = next((extra for extra in args[1:] if isinstance(extra, str)), None)
        return inner if text is None else Hint({**inner.schema, "description": text}, inner.decode)
    if origin in (Union, types.UnionType):
        return _union([compile_hint(arg, where, inside) for arg in args])
    if origin is Literal:
        return _choice([(_literal_json(arg, where), arg) for arg in args])
    kind = origin or hint
    if not isinstance(kind, type):
        raise ConfigError(f"{where} is annotated {hint!r}, which cannot come from JSON. Use {_TAKES}.")
    if issubclass(kind, enum.Enum):
        return _choice([(_enum_json(member), member) for member in kind])
    if kind in _TIMES:
        return _time(kind)
    if kind is tuple:
        return _tuple(args, where, inside)
    if kind in _SEQUENCES:
        return _sequence(compile_hint(args[0] if args else Any, where, inside), _SEQUENCES[kind])
    if kind in _MAPPINGS:
        if args and args[0] not in (str, Any):
            raise ConfigError(f"{where} is annotated {hint!r}; the keys of a JSON object are str.")
        return _mapping(compile_hint(args[1] if args else Any, where, inside))
    if typing.is_typeddict(kind) or dataclasses.is_dataclass(kind) or attrs.has(kind):
        if kind in inside:
            raise ConfigError(
                f"{where} is annotated {kind.__name__}, which contains itself; a tool's types do not."
            )
        return _structure(kind, where, (*inside, kind))
    raise ConfigError(f"{where} is annotated {_type_name(hint)}, which cannot come from JSON. Use {_TAKES}.")


def _type_name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else repr(hint)


def _union(members: list[Hint]) -> Hint:
    def decode(value: Any, where: str) -> Any:
        takes = []
        inner: Mismatch | None = None
        for member in members:
            try:
                return member.decode(value, where)
            except Mismatch as problem:
                if problem.takes and problem.where == where:
                    takes.append(problem.takes)
                else:  # The right kind with something wrong in it: that is what the agent meant.
                    inner = inner or problem
        if inner is not None:
            raise inner
        _refuse(value, where, " or ".join(dict.fromkeys(takes)))

    return Hint({"anyOf": [member.schema for member in members]}, decode)


def _literal_json(value: Any, where: str) -> Any:
    if isinstance(value, enum.Enum):
        return _enum_json(value)
    if value is None or isinstance(value, str | int | bool):
        return value
    raise ConfigError(f"{where} has a Literal of {type(value).__name__}, which JSON does not have.")


def _enum_json(member: enum.Enum) -> Any:
    """Return the member's value where JSON has the values of all members, else its name."""
    values = [other.value for other in type(member)]
    return (
        member.value if all(isinstance(value, str | int | float | None) for value in values) else member.name
    )


def _choice(members: list[tuple[Any, Any]]) -> Hint:
    schema: dict[str, Any] = {"enum": [json for json, _ in members]}
    kinds = {type(json) for json, _ in members}
    if len(kinds) == 1 and (kind := next(iter(kinds))) in _SIMPLE:
        schema["type"] = _SIMPLE[kind][0]["type"]
    takes = "one of " + ", ".join(repr(json) for json, _ in members)

    def decode(value: Any, where: str) -> Any:
        for json, member in members:
            # True == 1 in Python, not in JSON.
            if value == json and isinstance(value, bool) == isinstance(json, bool):
                return member
        if type(value) in kinds:
            raise Mismatch(f"{where} is none of its values; it takes {takes}.", where, takes)
        _refuse(value, where, takes)

    return Hint(schema, decode)


def _time(kind: Any) -> Hint:
    name, takes = _TIMES[kind]

    def decode(value: Any, where: str) -> Any:
        if not isinstance(value, str):
            _refuse(value, where, takes)
        try:
            return kind.fromisoformat(value)
        except ValueError:
            raise Mismatch(f"{where} cannot be read; it takes {takes}.") from None

    return Hint({"type": "string", "format": name}, decode)


def _sequence(member: Hint, build: Callable[[list[Any]], Any]) -> Hint:
    schema: dict[str, Any] = {"type": "array", "items": member.schema}
    is_set = build in (set, frozenset)
    if is_set:
        schema["uniqueItems"] = True

    def decode(value: Any, where: str) -> Any:
        if not isinstance(value, list):
            _refuse(value, where, "an array")
        found = [member.decode(inner, f"{where}[{index}]") for index, inner in enumerate(value)]
        try:
            return build(found)
        except TypeError:
            raise Mismatch(f"{where} holds values that cannot be members of a set.") from None

    return Hint(schema, decode)


def _tuple(args: tuple[Any, ...], where: str, inside: tuple[type, ...]) -> Hint:
    if not args or (len(args) == 2 and args[1] is Ellipsis):
        return _sequence(compile_hint(args[0] if args else Any, where, inside), tuple)
    members = [compile_hint(arg, where, inside) for arg in args]
    n = len(members)
    schema = {
        "type": "array",
        "prefixItems": [member.schema for member in members],
        "minItems": n,
        "maxItems": n,
    }

    def decode(value: Any, where: str) -> Any:
        if not isinstance(value, list):
            _refuse(value, where, f"an array of {n}")
        if len(value) != n:
            raise Mismatch(f"{where} has {len(value)} values; it takes {n}.")
        pairs = enumerate(zip(members, value, strict=True))
        return tuple(member.decode(inner, f"{where}[{index}]") for index, (member, inner) in pairs)

    return Hint(schema, decode)


def _mapping(member: Hint) -> Hint:
    def decode(value: Any, where: str) -> Any:
        if not isinstance(value, dict):
            _refuse(value, where, "an object")
        return {key: member.decode(inner, f"{where}.{key}") for key, inner in value.items()}

    return Hint({"type": "object", "additionalProperties": member.schema}, decode)


def _structure(kind: type, where: str, inside: tuple[type, ...]) -> Hint:
    fields = _fields(kind, where, inside)

    def decode(value: Any, where: str) -> Any:
        if not isinstance(value, dict):
            _refuse(value, where, "an object")
        values = decode_fields(fields, value, where)
        try:
            return kind(**values)
        except Exception as error:  # The class's own checks refuse what the agent gave.
            raise Mismatch(f"{where} was refused: {error}") from None

    return Hint(object_schema(fields), decode)


def object_schema(fields: tuple[Parameter, ...]) -> dict[str, Any]:
    """Return the schema of an object with these members and no other."""
    return {
        "type": "object",
        "properties": {field.name: field.schema for field in fields},
        "required": [field.name for field in fields if field.is_required],
        "additionalProperties": False,
    }


def decode_fields(fields: tuple[Parameter, ...], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return keyword arguments. ``where`` is empty for a function's own arguments.

    Raises:
        Mismatch: A key is unknown or missing, or a value does not fit.
    """
    known = {field.name: field for field in fields}
    check_keys(values, list(known), [field.name for field in fields if field.is_required], where)
    return {
        key: known[key].hint.decode(value, f"{where}.{key}" if where else f"Argument {key}")
        for key, value in values.items()
    }


def check_keys(values: Mapping[str, Any], known: list[str], required: list[str], where: str) -> None:
    """Raise Mismatch for the first key that is unknown or missing."""
    place, word = (f"{where} has", "key") if where else ("There is", "argument")
    for key in values:
        if key not in known:
            takes = f"The {word}s are: {', '.join(known)}" if known else f"It takes no {word}s"
            raise Mismatch(f"{place} no {word} {key!r}. {takes}.")
    for key in required:
        if key not in values:
            raise Mismatch(
                f"{where} misses the key {key!r}." if where else f"The argument {key!r} is missing."
            )


def _fields(kind: type, where: str, inside: tuple[type, ...]) -> tuple[Parameter, ...]:
    where = f"{where} is annotated {kind.__name__}, whose field"
    try:
        hints = typing.get_type_hints(kind, include_extras=True)
    except Exception as error:
        raise ConfigError(f"{where}s cannot be resolved: {error}.") from None
    found: list[tuple[str, str, bool, Any]] = []  # name, JSON name, is required, default
    if typing.is_typeddict(kind):
        for name, hint in hints.items():
            required = name in kind.__required_keys__  # type: ignore[attr-defined]
            # Under `from __future__ import annotations` the class cannot see these wrappers itself.
            while typing.get_origin(hint) in _WRAPPERS:
                required = _WRAPPERS[typing.get_origin(hint)](required)
                hint = typing.get_args(hint)[0]
            hints[name] = hint
            found.append((name, name, required, inspect.Parameter.empty))
    elif dataclasses.is_dataclass(kind):
        for field in dataclasses.fields(kind):
            default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
            required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            if field.init:
                found.append((field.name, field.name, required, default))
    else:
        for attribute in attrs.fields(kind):
            default, required = attribute.default, attribute.default is attrs.NOTHING
            if required or isinstance(default, attrs.Factory):  # type: ignore[arg-type]
                default = inspect.Parameter.empty
            if attribute.init:
                found.append((attribute.name, attribute.alias or attribute.name, required, default))
    fields = []
    for name, json_name, required, default in found:
        if name not in hints:
            raise ConfigError(f"{where} {name} has no type annotation.")
        hint = compile_hint(hints[name], f"{where} {name}", inside)
        fields.append(make_parameter(json_name, hint, required, default, ""))
    return tuple(fields)


_WRAPPERS: Final[dict[Any, Callable[[bool], bool]]] = {
    typing.Required: lambda _: True,
    typing.NotRequired: lambda _: False,
}
if hasattr(typing, "ReadOnly"):  # Python 3.13
    _WRAPPERS[typing.ReadOnly] = bool


def make_parameter(name: str, hint: Hint, required: bool, default: Any, description: str) -> Parameter:
    """Return a parameter; a description in the hint itself wins. No default: ``inspect.Parameter.empty``."""
    schema = dict(hint.schema)
    if description:
        schema.setdefault("description", description)
    if default is not inspect.Parameter.empty:
        with contextlib.suppress(TypeError):  # One that JSON does not have is the function's own affair.
            schema["default"] = to_plain(default)
    return Parameter(name, hint, required, schema)


# -- the way back -----------------------------------------------------------------------------------


def to_plain(value: Any) -> Any:
    """Return a value as JSON's own types: enums by value, dataclasses and attrs objects by field, dates in
    ISO 8601, sets sorted.

    Raises:
        TypeError: JSON has no such value; the message names its type.
    """
    if isinstance(value, enum.Enum):
        return _enum_json(value)
    if value is None or isinstance(value, bool):
        return value
    for kind in (str, int):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"the number {value}, which JSON does not have")
        return float(value)
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {_key(key): to_plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(inner) for inner in value]
    if isinstance(value, set | frozenset):
        return sorted(
            (to_plain(inner) for inner in value), key=lambda inner: (type(inner).__name__, repr(inner))
        )
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if attrs.has(type(value)):
        return {field.name: to_plain(getattr(value, field.name)) for field in attrs.fields(type(value))}
    raise TypeError(f"a {type(value).__name__}, which JSON does not have")


def _key(key: Any) -> str:
    plain = to_plain(key)
    if isinstance(plain, str):
        return plain
    if isinstance(plain, int) and not isinstance(plain, bool):
        return str(plain)
    raise TypeError(f"a mapping with a key of type {type(key).__name__}, which JSON does not have")
