"""Python's types as JSON schemas, and JSON values as what the types name."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import sys
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NewType, NotRequired, Optional, Required, TypedDict, Union

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxengine.tools import Tool, ToolError, tool_from_function


class Unit(enum.Enum):
    CELSIUS = "c"
    FAHRENHEIT = "f"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Thing(enum.Enum):
    FIRST = b"1"
    SECOND = b"2"


class Place(TypedDict):
    city: str
    zone: NotRequired[str]


class Loose(TypedDict, total=False):
    city: Required[str]
    zone: str


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0
    tags: list[str] = dataclasses.field(default_factory=list)
    norm: float = dataclasses.field(init=False, default=0.0)


@attrs.frozen
class Order:
    item: Annotated[str, "what to order"]
    count: int = attrs.field(default=1)
    _note: str = ""
    extras: list[str] = attrs.field(factory=list)
    total: int = attrs.field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        if self.count < 1:
            raise ValueError("count is below 1")


@dataclasses.dataclass
class Tree:
    children: list[Tree]


UserId = NewType("UserId", int)


def schema_of(hint: Any) -> dict[str, Any]:
    return one_argument(hint).parameters["properties"]["value"]  # type: ignore[no-any-return]


def one_argument(hint: Any) -> Tool:
    def take(value: Any) -> None:
        """Take it."""

    take.__annotations__ = {"value": hint}
    return tool_from_function(take)


def decode(hint: Any, value: object) -> Any:
    return one_argument(hint).decode_arguments(json.dumps({"value": value}))["value"]


POINT_SCHEMA = {
    "type": "object",
    "properties": {
        "x": {"type": "number"},
        "y": {"type": "number", "default": 0.0},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["x"],
    "additionalProperties": False,
}
TYPES: list[tuple[Any, dict[str, Any], object, object]] = [
    (int, {"type": "integer"}, 3, 3),
    (int, {"type": "integer"}, 3.0, 3),
    (float, {"type": "number"}, 3, 3.0),
    (str, {"type": "string"}, "x", "x"),
    (bool, {"type": "boolean"}, True, True),
    (None, {"type": "null"}, None, None),
    (Any, {}, [1, {"a": None}], [1, {"a": None}]),
    (UserId, {"type": "integer"}, 7, 7),
    (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}, None, None),
    (Optional[str], {"anyOf": [{"type": "string"}, {"type": "null"}]}, "x", "x"),  # noqa: UP045
    (Union[int, str], {"anyOf": [{"type": "integer"}, {"type": "string"}]}, "x", "x"),  # noqa: UP007
    (bool | int, {"anyOf": [{"type": "boolean"}, {"type": "integer"}]}, 1, 1),
    (Literal["a", "b"], {"enum": ["a", "b"], "type": "string"}, "b", "b"),
    (Literal["a", 1, None], {"enum": ["a", 1, None]}, None, None),
    (Literal[Unit.CELSIUS], {"enum": ["c"], "type": "string"}, "c", Unit.CELSIUS),
    (Unit, {"enum": ["c", "f"], "type": "string"}, "f", Unit.FAHRENHEIT),
    (Level, {"enum": [1, 2], "type": "integer"}, 2, Level.HIGH),
    (Thing, {"enum": ["FIRST", "SECOND"], "type": "string"}, "SECOND", Thing.SECOND),
    (list, {"type": "array", "items": {}}, [1, "x"], [1, "x"]),
    (list[int], {"type": "array", "items": {"type": "integer"}}, [1, 2], [1, 2]),
    (Sequence[int], {"type": "array", "items": {"type": "integer"}}, [1], [1]),
    (typing.List[int], {"type": "array", "items": {"type": "integer"}}, [1], [1]),  # noqa: UP006
    (set[str], {"type": "array", "items": {"type": "string"}, "uniqueItems": True}, ["a", "a"], {"a"}),
    (
        frozenset[int],
        {"type": "array", "items": {"type": "integer"}, "uniqueItems": True},
        [1],
        frozenset({1}),
    ),
    (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}, [1, 2], (1, 2)),
    (
        tuple[int, str],
        {
            "type": "array",
            "prefixItems": [{"type": "integer"}, {"type": "string"}],
            "minItems": 2,
            "maxItems": 2,
        },
        [1, "x"],
        (1, "x"),
    ),
    (dict, {"type": "object", "additionalProperties": {}}, {"a": 1}, {"a": 1}),
    (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}, {"a": 1}, {"a": 1}),
    (
        Mapping[str, Unit],
        {"type": "object", "additionalProperties": {"enum": ["c", "f"], "type": "string"}},
        {"a": "c"},
        {"a": Unit.CELSIUS},
    ),
    (Annotated[int, "how many"], {"type": "integer", "description": "how many"}, 1, 1),
    (Annotated[int, 5, "how many"], {"type": "integer", "description": "how many"}, 1, 1),
    (Annotated[int, []], {"type": "integer"}, 1, 1),
    (Point, POINT_SCHEMA, {"x": 1, "tags": ["a"]}, Point(1.0, 0.0, ["a"])),
    (list[Point], {"type": "array", "items": POINT_SCHEMA}, [{"x": 1}], [Point(1.0)]),
    (
        Place,
        {
            "type": "object",
            "properties": {"city": {"type": "string"}, "zone": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
        {"city": "Oslo"},
        {"city": "Oslo"},
    ),
    (
        Loose,
        {
            "type": "object",
            "properties": {"city": {"type": "string"}, "zone": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
        {"city": "Oslo", "zone": "x"},
        {"city": "Oslo", "zone": "x"},
    ),
    (
        Order,
        {
            "type": "object",
            "properties": {
                "item": {"type": "string", "description": "what to order"},
                "count": {"type": "integer", "default": 1},
                "note": {"type": "string", "default": ""},
                "extras": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["item"],
            "additionalProperties": False,
        },
        {"item": "tea", "count": 2, "note": "hot"},
        Order("tea", 2, "hot"),
    ),
    (
        datetime.datetime,
        {"type": "string", "format": "date-time"},
        "2024-05-06T07:08:09+00:00",
        datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.UTC),
    ),
    (datetime.date, {"type": "string", "format": "date"}, "2024-05-06", datetime.date(2024, 5, 6)),
    (datetime.time, {"type": "string", "format": "time"}, "07:08:09", datetime.time(7, 8, 9)),
]


@pytest.mark.parametrize(("hint", "schema", "given_value", "taken"), TYPES)
def test_a_type_has_its_schema_and_its_values(
    hint: Any, schema: dict[str, Any], given_value: object, taken: object
) -> None:
    assert schema_of(hint) == schema
    found = decode(hint, given_value)
    assert found == taken
    assert type(found) is type(taken)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="`type X = ...` came with Python 3.12")
def test_a_type_alias_is_what_it_names() -> None:
    alias = typing.TypeAliasType("Number", int | float)  # type: ignore[attr-defined,unused-ignore]

    assert schema_of(alias) == {"anyOf": [{"type": "integer"}, {"type": "number"}]}


@pytest.mark.parametrize(
    ("hint", "value", "sentence"),
    [
        (int, True, "Argument value is a boolean; it takes an integer."),
        (int, 3.5, "Argument value is a number; it takes an integer."),
        (int, "3", "Argument value is a string; it takes an integer."),
        (float, True, "Argument value is a boolean; it takes a number."),
        (float, 10**400, "Argument value is out of range."),
        (str, None, "Argument value is null; it takes a string."),
        (bool, 1, "Argument value is an integer; it takes a boolean."),
        (None, 1, "Argument value is an integer; it takes null."),
        (int | None, "x", "Argument value is a string; it takes an integer or null."),
        (Literal["a", "b"], "c", "Argument value is none of its values; it takes one of 'a', 'b'."),
        (Literal[1], True, "Argument value is a boolean; it takes one of 1."),
        (Unit, 5, "Argument value is an integer; it takes one of 'c', 'f'."),
        (list[int], {}, "Argument value is an object; it takes an array."),
        (list[int], [1, "x"], "Argument value[1] is a string; it takes an integer."),
        (set[Any], [[]], "Argument value holds values that cannot be members of a set."),
        (tuple[int, str], [1], "Argument value has 1 values; it takes 2."),
        (tuple[int, str], "x", "Argument value is a string; it takes an array of 2."),
        (dict[str, int], {"a": "x"}, "Argument value.a is a string; it takes an integer."),
        (dict[str, int], [], "Argument value is an array; it takes an object."),
        (Point, {}, "Argument value misses the key 'x'."),
        (Point, {"x": 1, "z": 2}, "Argument value has no key 'z'. The keys are: x, y, tags."),
        (Point, [], "Argument value is an array; it takes an object."),
        (Point | None, {"x": "1"}, "Argument value.x is a string; it takes a number."),
        (Order, {"item": "tea", "count": 0}, "Argument value was refused: count is below 1"),
        (datetime.date, "tomorrow", "cannot be read; it takes a date in ISO 8601"),
        (datetime.date, 5, "Argument value is an integer; it takes a date in ISO 8601"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_in_words(hint: Any, value: object, sentence: str) -> None:
    with pytest.raises(ToolError) as caught:
        decode(hint, value)

    assert sentence in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(value=JSON, hint=st.sampled_from([case[0] for case in TYPES]))
def test_any_json_is_taken_or_refused_in_words(value: object, hint: Any) -> None:
    tool = one_argument(hint)

    from_mapping = taken_or_refused(tool, {"value": value})
    from_text = taken_or_refused(tool, json.dumps({"value": value}))

    assert from_mapping == from_text
    if isinstance(from_text, str):
        assert from_text.startswith("Argument value")
    else:
        assert hint not in (int, bool) or type(from_text["value"]) is hint


def taken_or_refused(tool: Tool, arguments: str | dict[str, Any]) -> dict[str, Any] | str:
    try:
        return tool.decode_arguments(arguments)
    except ToolError as error:
        return str(error)
