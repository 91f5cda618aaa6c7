from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxengine_mock.toml_lines import key_lines, line_of

PLACES: list[tuple[str, dict[tuple[str | int, ...], int]]] = [
    ("a = 1\n\n# b = 2\nc = 3\n", {("a",): 1, ("c",): 4}),
    ('s = """\nx = 1\n"""\nb = 2', {("s",): 1, ("b",): 4}),
    ("s = '''\n[t]\n'''\nb = 2", {("s",): 1, ("b",): 4}),
    ('s = """a\\"""\n"""\nb = 2', {("s",): 1, ("b",): 3}),
    ('s = "# no comment" # x = 1\nb = ""', {("s",): 1, ("b",): 2}),
    ('"re:[a]=" = 1\n\'b "c"\' = 2\n"\\u00e9" = 3', {("re:[a]=",): 1, ('b "c"',): 2, ("é",): 3}),
    ("a.b . c = 1\na.d = 2", {("a",): 1, ("a", "b"): 1, ("a", "b", "c"): 1, ("a", "d"): 2}),
    (
        "l = [ # one\n 1,\n\n [2, 3],\n {a = 4},\n]\nb = 2",
        {("l",): 1, ("l", 0): 2, ("l", 1): 4, ("l", 1, 1): 4, ("l", 2): 5, ("l", 2, "a"): 5, ("b",): 7},
    ),
    ("t = {a = [1, {b = 2}], c = '}'}\nd = 1", {("t", "a", 1, "b"): 1, ("t", "c"): 1, ("d",): 2}),
    ("[a.b]\nc = 1\n[ a . d ]\ne = 1979-05-27 07:32:00", {("a", "b", "c"): 2, ("a", "d", "e"): 4}),
    (
        "[[f]]\nx = 1\n[[f]]\n[f.g]\nx = 2\n[[f.h]]\ny = 3",
        {
            ("f", 0): 1,
            ("f", 0, "x"): 2,
            ("f", 1): 3,
            ("f", 1, "g"): 4,
            ("f", 1, "g", "x"): 5,
            ("f", 1, "h", 0): 6,
            ("f", 1, "h", 0, "y"): 7,
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), PLACES)
def test_each_key_stands_where_it_is_written(text: str, expected: dict[tuple[str | int, ...], int]) -> None:
    tomllib.loads(text)

    lines = key_lines(text)

    assert {path: lines.get(path) for path in expected} == expected


def test_a_path_that_is_not_there_stands_where_its_longest_part_does() -> None:
    lines = key_lines("[a]\nb = 1\n")

    assert [line_of(lines, path) for path in [("a", "b", "c"), ("a", "x"), ("y",), ()]] == [2, 1, None, None]


def paths_of(value: Any, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)  # type: ignore[assignment]
    else:
        return set()
    return {found for key, item in inner for found in ({(*path, key)} | paths_of(item, (*path, key)))}


def toml_of(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml_of(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[\n" + "".join(f"  {toml_of(item)}, # ]\n" for item in value) + "]"
    return json.dumps(value)


texts = st.text(st.sampled_from("ab'\"#[]{}=,.\\ \né"), max_size=6)
values = st.recursive(
    st.integers() | st.booleans() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(texts, values, max_size=5))
def test_every_path_of_any_document_is_found_and_lines_go_up(content: dict[str, Any]) -> None:
    text = "".join(f"# x = 1\n{json.dumps(key)} = {toml_of(value)}\n" for key, value in content.items())
    read = tomllib.loads(text)

    lines = key_lines(text)

    assert set(lines) == paths_of(read)
    top = [lines[key,] for key in content]
    assert top == sorted(set(top))
    assert all(text.split("\n")[lines[key,] - 1].startswith(json.dumps(key)) for key in content)
