"""Compares what a client sends with the schema, in OpenAI's codes and words: the strictness of the service."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from msgspec import inspect

from voxengine_openai import wording
from voxengine_openai.messages import ProtocolFault
from voxengine_openai.schema import EVENTS, ITEMS, ROLES, ItemOrReference

__all__ = ["broken_command"]

_MODALITIES: Final = (["text"], ["audio"])
_OBJECT: Final[tuple[tuple[type, ...], str]] = ((dict,), "an object")
_JSON: Final[dict[type, tuple[tuple[type, ...], str]]] = {
    inspect.StrType: ((str,), "a string"),
    inspect.BoolType: ((bool,), "a boolean"),
    inspect.IntType: ((int,), "an integer"),
    inspect.FloatType: ((int, float), "a decimal"),
    inspect.NoneType: ((type(None),), "null"),
    inspect.ListType: ((list,), "an array"),
}
"""The JSON types that each kind takes, and their name. Every other kind is an object."""
_ONE_MODALITY: Final = frozenset({"session.output_modalities", "response.output_modalities"})


@functools.cache
def _type_of(cls: type) -> inspect.Type:
    return inspect.type_info(cls)


def broken_command(
    name: str,
    fields: Mapping[str, Any],
    unchecked: frozenset[str] = frozenset(),
    spell: Callable[[str], str] = str,
    events: Mapping[str, type] | None = None,
) -> ProtocolFault | None:
    """Return the first thing that the service would refuse in a client's message.

    Args:
        name: A name of :data:`~voxengine_openai.messages.CLIENT_EVENTS`, or of ``events``.
        fields: Everything but ``type``.
        unchecked: Paths that are taken as they come.
        spell: What the sender calls a path.
        events: The structs of the events, None: OpenAI's.
    """
    kind = _type_of((EVENTS if events is None else events)[name])
    one_modality = _ONE_MODALITY if events is None else frozenset[str]()
    return next(_Walk(unchecked, spell, one_modality).objects(dict(fields), kind, ""), None)


class _Walk:
    """One comparison of a value with the schema. Each method yields faults, the most telling first."""

    def __init__(
        self, unchecked: frozenset[str], spell: Callable[[str], str], one_modality: frozenset[str]
    ) -> None:
        self._unchecked = unchecked
        self._spell = spell
        self._one_modality = one_modality

    def value(self, value: Any, kind: inspect.Type, path: str) -> Iterator[ProtocolFault]:
        """Compare a value with any kind of type."""
        members = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
        if any(isinstance(member, inspect.AnyType) for member in members):
            return
        fitting = [member for member in members if _is_of_kind(value, member)]
        place = self._spell(path)
        literals = [member for member in fitting if isinstance(member, inspect.LiteralType)]
        if not fitting:
            names = dict.fromkeys(_name_of(member) for member in members)
            names.pop("null", None)
            expected = wording.listed(names, "or")
            yield wording.invalid_type(place, f"one of {expected}" if len(names) > 1 else expected, value)
        elif isinstance(value, dict):
            yield from self._object(value, fitting, path)
        elif isinstance(value, list):
            yield from self._list(value, fitting[0], path)
        elif isinstance(value, str) and len(fitting) == len(literals):
            supported = [word for member in literals for word in member.values]
            if value not in supported:
                yield wording.invalid_value(place, value, supported)
        elif literals and not isinstance(value, str):
            if value not in literals[0].values:
                yield wording.invalid_value(place, value, literals[0].values)
        else:
            yield from _limits(value, fitting[0], place)

    def _list(self, values: list[Any], kind: Any, path: str) -> Iterator[ProtocolFault]:
        for number, element in enumerate(values):
            yield from self.value(element, kind.item_type, f"{path}[{number}]")
        if path in self._one_modality and values not in _MODALITIES:
            place = self._spell(path)
            reason = f"Invalid modalities: {values}. Supported combinations are: ['text'] and ['audio']."
            yield ProtocolFault(reason, "invalid_value", place)

    def _object(self, value: dict[str, Any], kinds: list[Any], path: str) -> Iterator[ProtocolFault]:
        first = kinds[0]
        if isinstance(first, inspect.CustomType):
            kinds = yield from self._item_types(value, first.cls, path)
        elif isinstance(first, inspect.DictType):
            yield from self._mapping(value, first, path)
            return
        elif first.tag is not None:
            kinds = yield from self._tagged(value, {kind.tag: kind for kind in kinds}, first.tag_field, path)
        for kind in kinds:
            yield from self.objects(value, kind, path)

    def objects(self, value: dict[str, Any], kind: Any, path: str) -> Iterator[ProtocolFault]:
        """Compare an object with a struct: what is missing, what is unknown, then each field."""
        prefix = f"{path}." if path else ""
        fields = {field.encode_name: field for field in kind.fields}
        for name, field in fields.items():
            if field.required and name not in value and prefix + name not in self._unchecked:
                yield wording.missing(self._spell(prefix + name))
        names = [name for name in value if prefix + name not in self._unchecked and name != kind.tag_field]
        for name in names:
            if name not in fields:
                yield wording.unknown(self._spell(prefix + name))
        for name in names:
            if name in fields:
                yield from self.value(value[name], fields[name].type, prefix + name)

    def _mapping(self, value: dict[str, Any], kind: Any, path: str) -> Iterator[ProtocolFault]:
        if kind.max_length is not None and len(value) > kind.max_length:
            yield wording.too_long(self._spell(path), value, kind.max_length)
        for number, (key, element) in enumerate(value.items()):
            longest = getattr(kind.key_type, "max_length", None)
            if longest is not None and len(key) > longest:
                yield wording.too_long(f"{self._spell(path)} key {number + 1}", key, longest)
                continue
            yield from self.value(element, kind.value_type, f"{path}.{key}")

    def _tagged(self, value: dict[str, Any], kinds: Mapping[str, Any], field: str, path: str) -> Any:
        """A generator of faults that returns the types which the object's tag names."""
        place = self._spell(f"{path}.{field}")
        if field not in value:
            yield wording.missing(place)
        elif not isinstance(value[field], str):
            yield wording.invalid_type(place, "a string", value[field])
        elif value[field] not in kinds:
            yield wording.invalid_value(place, value[field], list(kinds))
        else:
            return [kinds[value[field]]]
        return []

    def _item_types(self, value: dict[str, Any], cls: type, path: str) -> Any:
        others = {name: _type_of(kind) for name, kind in ITEMS.items()}
        if cls is not ItemOrReference:
            del others["item_reference"]
        by_type = {"message": None, **others}
        kinds = yield from self._tagged(value, by_type, "type", path)
        if kinds == [None]:
            roles = {name: _type_of(kind) for name, kind in ROLES.items()}
            kinds = yield from self._tagged(value, roles, "role", path)
        return kinds


def _is_of_kind(value: Any, kind: inspect.Type) -> bool:
    """Whether the JSON type fits, whatever the value."""
    if isinstance(kind, inspect.LiteralType):
        return type(value) in {type(word) for word in kind.values}
    return type(value) in _JSON.get(type(kind), _OBJECT)[0]


def _name_of(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.LiteralType):
        return wording.kind_of(kind.values[0])
    return _JSON.get(type(kind), _OBJECT)[1]


def _limits(value: Any, kind: Any, place: str) -> Iterator[ProtocolFault]:
    longest = getattr(kind, "max_length", None)
    if longest is not None and len(value) > longest:
        yield wording.too_long(place, value, longest)
    highest, lowest = getattr(kind, "le", None), getattr(kind, "ge", None)
    if highest is not None and value > highest:
        yield wording.out_of_range(place, value, highest, is_above=True)
    if lowest is not None and value < lowest:
        yield wording.out_of_range(place, value, lowest, is_above=False)
