from __future__ import annotations

from typing import Any

import pytest

from voxengine_mock.replies import arguments_for, choose
from voxengine_mock.script import Call, Script, ScriptRun
from voxengine_mock.settings import Settings


def invented(schema: Any, text: str = "use act in Porto, 3 times") -> Any:
    settings = Settings().merged({"tools": [{"name": "act", "parameters": schema}]})
    answer, _ = choose(text, ScriptRun(Script()), settings, ())
    return dict(answer.calls[0].arguments)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, "Porto"),
        ({"type": "integer"}, 3),
        ({"type": "number"}, 3),
        ({"type": "boolean"}, True),
        ({"type": "array", "items": {}}, []),
        ({"type": "null"}, None),
        ({"type": ["null", "boolean"]}, True),
        ({"const": "fixed"}, "fixed"),
        ({"type": "string", "default": "given"}, "given"),
        ({"enum": ["one", "two"]}, "one"),
        ({"type": "string", "examples": ["like this"]}, "like this"),
        ({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}, {"n": 3}),
        ({}, "use act in Porto, 3 times"),
        ("nonsense", "use act in Porto, 3 times"),
    ],
)
def test_arguments_are_made_to_fit_the_schema(schema: Any, value: Any) -> None:
    found = invented({"type": "object", "properties": {"x": schema}, "required": ["x"]})

    assert found == {"x": value}


def test_only_required_arguments_are_made() -> None:
    assert invented(
        {"properties": {"a": {"type": "string"}, "b": {"type": "string"}}, "required": ["b"]}
    ) == {"b": "Porto"}


@pytest.mark.parametrize("schema", [{}, {"properties": 5}, {"properties": {"a": {}}, "required": "a"}])
def test_a_schema_that_requires_nothing_gives_no_arguments(schema: Any) -> None:
    assert invented(schema) == {}


def test_numbers_without_one_in_the_text_take_the_smallest_allowed() -> None:
    schema = {"properties": {"n": {"type": "integer", "minimum": 7}}, "required": ["n"]}

    assert invented(schema, "just act") == {"n": 7}


def test_places_are_filled_at_any_depth_of_the_arguments() -> None:
    call = Call("act", {"a": ["{x}", {"b": "{x}!"}], "n": 5, "y": "{unknown}"})

    assert arguments_for(call, {"x": "X"}) == {"a": ["X", {"b": "X!"}], "n": 5, "y": "{unknown}"}


def test_a_scripted_answer_comes_before_a_named_tool() -> None:
    settings = Settings().merged({"tools": [{"name": "act"}]})
    run = ScriptRun(Script.from_mapping({"responses": {"*act*": "No."}}))

    answer, _ = choose("please act", run, settings, ())

    assert (answer.say, answer.calls) == ("No.", ())


@pytest.mark.parametrize("text", ["recite the alphabet", "Tell me a LONG story!", "read out a long poem"])
def test_a_request_for_something_long_gets_it(text: str) -> None:
    answer, _ = choose(text, ScriptRun(Script()), Settings(), ())

    assert len(answer.say.split()) > 90
