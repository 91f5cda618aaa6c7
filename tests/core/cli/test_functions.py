"""Functions that the command line names: how they are found, offered and called."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.core.cli.conftest import Command
from voxengine.cli.functions import load_function
from voxengine.errors import ConfigError

WEATHER = '''
from __future__ import annotations

print("imported")


def get_weather(city: str) -> dict[str, str]:
    """Say how the weather is."""
    return {"sky": "sunny", "where": city}


def broken() -> None:
    """Do nothing well."""
    raise RuntimeError("no roof")


NUMBER = 7
'''
ANSWER = 'responses={"*weather*" = {tool = "get_weather", arguments = {city = "Oslo"}, then = "It is {result.sky}."}}'


@pytest.fixture(autouse=True)
def weather(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The user's file, in the working directory; what it leaves in the interpreter is taken away."""
    known = set(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "weather.py").write_text(WEATHER, "utf-8")
    yield
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def test_function_of_a_file_is_called_and_the_call_is_shown(voxengine: Command, tmp_path: Path) -> None:
    arguments = ("--provider", "mock", "--text", "And the weather?", "--metadata", ANSWER, "--fast")

    code, out, err = voxengine(
        "talk", *arguments, "--tool", "weather.py:get_weather", "--transcript", "talk.jsonl"
    )

    lines = [json.loads(line) for line in (tmp_path / "talk.jsonl").read_text("utf-8").splitlines()]
    assert (code, err) == (0, "imported\n")
    assert "     tool  get_weather(city=Oslo)\n" in out
    assert '           get_weather → {"sky": "sunny", "where": "Oslo"}\n' in out
    assert "    agent  It is sunny.\n" in out
    assert [line["kind"] for line in lines] == ["user", "tool_call", "tool_result", "agent"]
    assert lines[1]["response_id"] is not None


def test_tool_that_fails_is_shown_as_failed(voxengine: Command) -> None:
    answer = 'responses={"*roof*" = {tool = "broken", then = "It is broken."}}'

    code, out, _ = voxengine(
        "talk", "--provider", "mock", "--text", "The roof?", "--metadata", answer, "--tool", "weather:broken"
    )

    assert code == 0
    assert "           broken failed: " in out


def test_answer_without_anything_in_it_is_shown_as_such(voxengine: Command) -> None:
    code, out, _ = voxengine(
        "talk", "--provider", "mock", "--text", "And the weather?", "--metadata", ANSWER, "--fast"
    )

    assert code == 0
    assert "    agent  (said nothing)\n" in out


def test_file_is_run_once_and_may_be_called_like_a_module_that_exists(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text(WEATHER, "utf-8")

    one, two = load_function("json.py:get_weather"), load_function("json.py:broken")

    assert one.__module__ == two.__module__
    assert sys.modules[one.__module__].__dict__["broken"] is two
    assert json is sys.modules["json"]


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("weather", "takes FILE.py:FUNCTION or MODULE:FUNCTION"),
        (":get_weather", "takes FILE.py:FUNCTION or MODULE:FUNCTION"),
        ("weather.py:get_time", "weather.py has no function 'get_time'"),
        ("weather.py:NUMBER", "that is a int, which cannot be called"),
        ("absent.py:get_time", "there is no file absent.py"),
        ("absent.inner:get_time", "there is no module 'absent.inner'"),
        ("wrong.py:get_time", "wrong.py cannot be imported: ModuleNotFoundError: No module named 'absent'"),
    ],
)
def test_function_that_cannot_be_had_is_one_sentence(named: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text("import absent\n", "utf-8")

    with pytest.raises(ConfigError) as caught:
        load_function(named)

    assert words in str(caught.value)


def test_function_that_is_no_tool_is_wrong_use(voxengine: Command) -> None:
    code, _, err = voxengine("talk", "--provider", "mock", "--text", "Hello", "--tool", "json:dumps")

    assert code == 2
    assert err.startswith("voxengine: Tool dumps: ")
