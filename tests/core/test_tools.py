"""From a function to a tool: schema, arguments, result."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
import inspect
import json
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxengine.errors import ConfigError
from voxengine.tools import MAX_OUTPUT_BYTES, Tool, ToolError, encode_output, tool_from_function


class Unit(enum.Enum):
    CELSIUS = "c"
    FAHRENHEIT = "f"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Thing(enum.Enum):
    FIRST = b"1"
    SECOND = b"2"


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0


@attrs.frozen
class Order:
    item: str
    count: int = 1
    _note: str = ""


@dataclasses.dataclass
class Tree:
    children: list[Tree]


POINT_SCHEMA = {
    "type": "object",
    "properties": {"x": {"type": "number"}, "y": {"type": "number", "default": 0.0}},
    "required": ["x"],
    "additionalProperties": False,
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


# -- functions


def weather(
    city: str, unit: Unit = Unit.CELSIUS, days: Annotated[int, "how far ahead"] = 1, at: Point | None = None
) -> str:
    """Tell the weather,
    for once.

    It is never right.

    Args:
        city (str): The city,
            as people call it.
        unit: Of the temperature.
        days: This is overruled.
        at: Where: exactly.

    Returns:
        str: The weather.
    """
    return city


def test_a_function_becomes_a_tool() -> None:
    tool = tool_from_function(weather)

    assert tool.spec == {
        "type": "function",
        "name": "weather",
        "description": "Tell the weather, for once.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "The city, as people call it."},
                "unit": {
                    "enum": ["c", "f"],
                    "type": "string",
                    "description": "Of the temperature.",
                    "default": "c",
                },
                "days": {"type": "integer", "description": "how far ahead", "default": 1},
                "at": {
                    "anyOf": [POINT_SCHEMA, {"type": "null"}],
                    "description": "Where: exactly.",
                    "default": None,
                },
            },
            "required": ["city"],
            "additionalProperties": False,
        },
    }
    assert json.loads(json.dumps(tool.spec)) == tool.spec


def test_a_spec_is_a_copy() -> None:
    tool = tool_from_function(weather)

    tool.spec["parameters"]["properties"].clear()

    assert tool.spec["parameters"]["properties"]


def test_name_and_description_can_be_given() -> None:
    tool = tool_from_function(weather, name="get-weather", description="Other words.", timeout_s=5)

    assert (tool.name, tool.description, tool.timeout_s) == ("get-weather", "Other words.", 5)


NUMPY_DOC = """Do it.

    Parameters
    ----------
    a : int
        The first,
        and longest.
    b, c : str, optional
        Two of a kind.

    Returns
    -------
    a
        Not this one.
    """
SPHINX_DOC = """Do it.

    :param a: The first,
        and longest.
    :param str b: Two of a kind.
    :keyword c: Two of a kind.
    :returns: Not this one.
    """
GOOGLE_DOC = """Do it.

    Arguments:
      a: The first,
         and longest.
      b (str, optional): Two of a kind.
      c: Two of a kind.

    Raises:
      a: Not this one.
    """


@pytest.mark.parametrize("doc", [NUMPY_DOC, SPHINX_DOC, GOOGLE_DOC])
def test_three_ways_of_describing_parameters_are_read(doc: str) -> None:
    def do(a: int, b: str = "", c: str = "") -> None: ...

    do.__doc__ = doc

    tool = tool_from_function(do)

    assert tool.description == "Do it."
    said = {name: schema.get("description") for name, schema in tool.parameters["properties"].items()}
    assert said == {"a": "The first, and longest.", "b": "Two of a kind.", "c": "Two of a kind."}


def test_a_docstring_that_starts_with_its_parameters_describes_nothing_else() -> None:
    def do(a: int) -> None:
        """Args:
        a: The first.
        """

    assert tool_from_function(do).description == ""


def test_a_default_that_json_does_not_have_stays_the_functions_own() -> None:
    def do(when: Any = object()) -> None: ...  # noqa: B008

    tool = tool_from_function(do)

    assert tool.parameters["properties"] == {"when": {}}
    assert tool.decode_arguments("{}") == {}


class Shop:
    """A shop."""

    def order(self, item: str) -> str:
        """Order it."""
        return item

    async def __call__(self, item: str) -> str:
        return item


def test_a_bound_method_an_object_and_a_partial_become_tools() -> None:
    def search(database: object, query: str, limit: int = 3) -> str:
        """Search."""
        return query

    method = tool_from_function(Shop().order)
    instance = tool_from_function(Shop())
    filled = tool_from_function(functools.partial(search, database=object(), limit=5))
    positional = tool_from_function(functools.partial(search, object()))

    assert (method.name, list(method.parameters["properties"])) == ("order", ["item"])
    assert (instance.name, instance.description, instance.is_async) == ("Shop", "A shop.", True)
    assert (filled.name, list(filled.parameters["properties"])) == ("search", ["query"])
    assert list(positional.parameters["properties"]) == ["query", "limit"]


def test_a_decorated_function_keeps_its_signature() -> None:
    @functools.wraps(weather)
    def wrapper(*args: Any, **kwargs: Any) -> str:
        return weather(*args, **kwargs)

    assert tool_from_function(wrapper).parameters == tool_from_function(weather).parameters


def test_a_type_from_the_enclosing_function_is_found_when_the_function_uses_it() -> None:
    @dataclasses.dataclass
    class Local:
        x: int

    def do(a: Local, b: Local | None = None) -> Any:
        return Local(later), a

    tool = tool_from_function(do)
    later = 1

    assert tool.decode_arguments({"a": {"x": later}}) == {"a": Local(1)}


def test_coroutine_functions_are_known() -> None:
    async def wait(seconds: float) -> None: ...

    assert tool_from_function(wait).is_async
    assert tool_from_function(functools.partial(wait)).is_async
    assert not tool_from_function(weather).is_async


def test_a_return_annotation_that_cannot_be_resolved_does_not_matter() -> None:
    def do(a: int) -> Missing: ...  # type: ignore[name-defined] # noqa: F821

    assert list(tool_from_function(do).parameters["properties"]) == ["a"]


def _unannotated(a, b: int):  # type: ignore[no-untyped-def]
    return a


def _positional(a: int, /) -> None: ...


def _stars(*things: int) -> None: ...


def _names(**things: int) -> None: ...


def _bytes(a: bytes) -> None: ...


def _keys(a: dict[int, str]) -> None: ...


def _tree(a: Tree) -> None: ...


T = typing.TypeVar("T")


def _variable(a: T) -> T:
    return a


def _no_signature(a: int) -> None: ...


_no_signature.__signature__ = 5  # type: ignore[attr-defined]


def _unresolved(a: Missing) -> None: ...  # type: ignore[name-defined] # noqa: F821


def _syntax(a: "1 +") -> None: ...  # type: ignore[valid-type] # noqa: F722


def _literal(a: Literal[b"x"]) -> None: ...


def _other_signature(a: int) -> None: ...


_other_signature.__signature__ = inspect.signature(lambda b: None).replace(  # type: ignore[attr-defined]
    parameters=[inspect.Parameter("b", inspect.Parameter.KEYWORD_ONLY, annotation=int)]
)


@dataclasses.dataclass
class Unresolved:
    what: Missing  # type: ignore[name-defined] # noqa: F821


Untyped = attrs.make_class("Untyped", {"what": attrs.field()})


def _unresolved_field(a: Unresolved) -> None: ...


def _untyped_field(a: Untyped) -> None: ...  # type: ignore[valid-type]


def _yields(a: int) -> Any:
    yield a


async def _async_yields(a: int) -> Any:
    yield a


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (_unannotated, "Tool _unannotated: parameter a has no type annotation."),
        (Shop.order, "Tool order: parameter self has no type annotation. Pass the bound method"),
        (_positional, "Tool _positional: parameter a is positional-only"),
        (_stars, "Tool _stars: parameter *things has no schema"),
        (_names, "Tool _names: parameter **things has no schema"),
        (_bytes, "Tool _bytes: parameter a is annotated bytes, which cannot come from JSON"),
        (_keys, "Tool _keys: parameter a is annotated dict[int, str]; the keys of a JSON object are str"),
        (_tree, "which contains itself"),
        (_variable, "which cannot come from JSON"),
        (_unresolved, "Tool _unresolved: an annotation cannot be resolved: name 'Missing' is not defined"),
        (_syntax, "Tool _syntax: an annotation cannot be resolved"),
        (_literal, "has a Literal of bytes"),
        (_unresolved_field, "parameter a is annotated Unresolved, whose fields cannot be resolved: name"),
        (_untyped_field, "parameter a is annotated Untyped, whose field what has no type annotation"),
        (_other_signature, "Tool _other_signature: parameter b has no type annotation"),
        (_no_signature, "Tool _no_signature has no readable signature"),
        (_yields, "Tool _yields yields"),
        (_async_yields, "Tool _async_yields yields"),
        (lambda: None, "A lambda has neither a name"),
        (Shop, "Shop is a class"),
        (5, "A tool is a function; this is a int"),
        (dict.get, "Tool get"),
    ],
)
def test_a_function_that_cannot_be_a_tool_is_refused_in_words(
    function: Callable[..., Any], sentence: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        tool_from_function(function)

    assert sentence in str(caught.value)


@pytest.mark.parametrize("name", ["", "two words", "a" * 65, "naïve", "a.b", "a\n"])
def test_a_name_that_services_refuse_is_refused_here(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be named"):
        tool_from_function(weather, name=name)


# -- arguments as a whole


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("{", "not valid JSON"),
        ('{"city": NaN}', "not valid JSON: NaN"),
        ('{"city": ' + "9" * 5000 + "}", "not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[1]", "not a JSON object"),
        ("{}", "The argument 'city' is missing."),
        (
            '{"city": "Oslo", "town": 1}',
            "There is no argument 'town'. The arguments are: city, unit, days, at.",
        ),
    ],
)
def test_arguments_that_cannot_be_read_are_refused_in_words(arguments: str, sentence: str) -> None:
    with pytest.raises(ToolError) as caught:
        tool_from_function(weather).decode_arguments(arguments)

    assert sentence in str(caught.value)


def test_arguments_may_be_a_mapping_or_nothing() -> None:
    def now() -> str: ...  # type: ignore[empty-body]

    assert tool_from_function(weather).decode_arguments({"city": "Oslo", "unit": "f"}) == {
        "city": "Oslo",
        "unit": Unit.FAHRENHEIT,
    }
    assert tool_from_function(now).decode_arguments("") == {}
    assert tool_from_function(now).decode_arguments(None) == {}
    with pytest.raises(ToolError, match="It takes no arguments"):
        tool_from_function(now).decode_arguments('{"zone": 1}')


# -- tools by hand


def make_tool(**changes: Any) -> Tool:
    values: dict[str, Any] = {
        "name": "look_up",
        "description": "Look it up.",
        "parameters": {
            "type": "object",
            "properties": {"word": {"type": "string"}},
            "required": ["word"],
            "additionalProperties": False,
        },
        "function": weather,
    }
    return Tool(**{**values, **changes})


def test_a_tool_with_its_own_schema_checks_the_names_of_arguments() -> None:
    tool = make_tool()

    assert tool.decode_arguments('{"word": 5}') == {"word": 5}
    with pytest.raises(ToolError, match="'word' is missing"):
        tool.decode_arguments("{}")
    with pytest.raises(ToolError, match="no argument 'other'"):
        tool.decode_arguments('{"word": "x", "other": 1}')


def test_an_open_schema_takes_other_arguments() -> None:
    tool = make_tool(parameters={"type": "object"})

    assert tool.decode_arguments('{"other": 1}') == {"other": 1}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": "two words"}, "cannot be named 'two words'"),
        ({"name": 5}, "cannot be named 5"),
        ({"description": None}, "look_up: description is a NoneType"),
        ({"parameters": {}}, "look_up: parameters is no JSON schema of an object"),
        ({"parameters": None}, "look_up: parameters is no JSON schema"),
        ({"function": "weather"}, "look_up: function is a str"),
        ({"timeout_s": 0}, "look_up: timeout_s is 0"),
        ({"timeout_s": True}, "look_up: timeout_s is True"),
        ({"timeout_s": float("nan")}, "look_up: timeout_s is nan"),
    ],
)
def test_a_wrong_tool_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        make_tool(**changes)


# -- results


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ("as it is", "as it is"),
        ("", ""),
        (None, "null"),
        (True, "true"),
        (3.5, "3.5"),
        ({"a": (1, "é")}, '{"a": [1, "é"]}'),
        ({1: "a", Unit.CELSIUS: "b"}, '{"1": "a", "c": "b"}'),
        (Unit.CELSIUS, "c"),
        ([Level.HIGH, Thing.FIRST], '[2, "FIRST"]'),
        (Point(1, 2), '{"x": 1, "y": 2}'),
        (Order("tea"), '{"item": "tea", "count": 1, "_note": ""}'),
        ({"b", "a"}, '["a", "b"]'),
        ([datetime.date(2024, 5, 6)], '["2024-05-06"]'),
        (datetime.datetime(2024, 5, 6, 7), "2024-05-06T07:00:00"),
    ],
)
def test_a_result_becomes_text(result: object, text: str) -> None:
    assert encode_output(result) == text


def _endless() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        (object(), "it holds a object"),
        ([b"x"], "it holds a bytes"),
        (float("nan"), "the number nan"),
        ({(1, 2): 3}, "a key of type tuple"),
        ({True: 3}, "a key of type bool"),
        (_endless(), "nested without end"),
        ("\ud800", "no valid text"),
        ({"n": 10**5000}, "a number in it is too long"),
        (Point, "it holds a type"),
        ("x" * (MAX_OUTPUT_BYTES + 1), "too long: 100001 bytes"),
        ("é" * (MAX_OUTPUT_BYTES // 2 + 1), "too long: 100002 bytes"),
    ],
)
def test_a_result_that_cannot_be_text_is_refused_in_words(result: object, sentence: str) -> None:
    with pytest.raises(ToolError, match=sentence):
        encode_output(result)


def test_a_result_of_exactly_the_limit_is_taken() -> None:
    assert len(encode_output("x" * MAX_OUTPUT_BYTES)) == MAX_OUTPUT_BYTES


@given(value=JSON)
def test_what_is_encoded_reads_back(value: object) -> None:
    text = encode_output(value)

    assert (text if isinstance(value, str) else json.loads(text)) == value
