"""Patterns match as Python's do, and no text makes them slow."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxengine_mock.patterns import Glob, PatternError, Regex

ATOMS = st.sampled_from(
    [
        "a",
        "b",
        "B",
        ".",
        r"\w",
        "[ab]",
        "[^a]",
        "[]a]",
        r"\d",
        r"\.",
        "^",
        "$",
        r"\b",
        r"\A",
        r"\Z",
        " ",
        r"\x61",
    ]
)
TIMES = st.sampled_from(["*", "+", "?", "*?", "+?", "??", "{2}", "{1,2}", "{,2}", "{2,}", "{0,1}?"])
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: (
        st.tuples(inner, inner).map("".join)
        | st.tuples(inner, inner).map(lambda two: f"(?:{two[0]}|{two[1]})")
        | st.tuples(inner, TIMES).map(lambda two: f"(?:{two[0]}){two[1]}")
        | inner.map(lambda one: f"({one})")
    ),
    max_leaves=8,
)
TEXTS = st.text("aAb1. \n", max_size=8)


@given(EXPRESSIONS, TEXTS)
def test_regular_expression_is_found_where_python_finds_it(source: str, text: str) -> None:
    found = Regex(source).search(text)

    assert (found is None) == (re.search(source, text, re.IGNORECASE) is None)


@given(EXPRESSIONS, st.lists(TEXTS))
def test_expression_that_matches_everything_is_found_in_everything(source: str, texts: list[str]) -> None:
    regex = Regex(source)

    assert not regex.matches_everything or all(regex.search(text) is not None for text in texts)


@pytest.mark.parametrize(
    ("source", "text", "groups"),
    [
        (r"name is (?P<name>\w+)", "Hi, MY NAME IS Ada.", {"name": "Ada"}),
        (r"(?P<first>a+)(?P<rest>a*)", "xaaa", {"first": "aaa", "rest": ""}),
        (r"(?P<first>a+?)(?P<rest>a*)", "xaaa", {"first": "a", "rest": "aa"}),
        (r"(?P<way>ab|a)(?P<rest>.*)", "abc", {"way": "ab", "rest": "c"}),
        (
            r"from (?P<a>.+) to (?P<b>[^ ]+)( please)?$",
            "from Rome to Oslo please",
            {"a": "Rome", "b": "Oslo"},
        ),
        (r"x(?P<later>y)?", "x", {"later": ""}),
        (r"(?P<n>\d{2,3})", "12345", {"n": "123"}),
    ],
)
def test_groups_hold_what_python_puts_into_them(source: str, text: str, groups: dict[str, str]) -> None:
    python = re.search(source, text, re.IGNORECASE)
    assert python is not None

    found = Regex(source).search(text)

    assert found is not None
    assert {name: found.get(name, "") for name in groups} == groups
    assert {name: value or "" for name, value in python.groupdict().items()} == groups


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("(a+)+$", "a" * 4000 + "!"),
        ("^(a|aa)*$", "a" * 4000 + "!"),
        (r"(\w+\s*)*x$", "word " * 800),
        (".*a.*a.*a.*a.*b", "a" * 4000),
        ("(?:a?){25}a{25}b", "a" * 4000),
    ],
)
def test_expression_that_takes_python_years_says_no_at_once(source: str, text: str) -> None:
    # Without an end to the work this test would never return.
    assert Regex(source).search(text) is None


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("(", "is no regular expression"),
        ("(?=a)", "holds '(?='"),
        ("(?<!a)b", "holds '(?<'"),
        ("(?i)a", "holds '(?i'"),
        (r"(a)\1", "refers to a group"),
        (r"(?P<x>a)(?P=x)", "holds '(?P='"),
        ("a*+b", "gives nothing back"),
        ("(?:a{20}){20}", "more than 300 steps"),
        ("a{100000}", "more than 300 steps"),
    ],
)
def test_what_is_not_taken_is_said(source: str, words: str) -> None:
    with pytest.raises(PatternError, match=re.escape(words)):
        Regex(source)


PARTS = st.lists(st.text("ab ", max_size=2), min_size=2, max_size=4).map(tuple)


@given(PARTS, st.text("ab ", max_size=8))
def test_stars_stand_for_anything(parts: tuple[str, ...], text: str) -> None:
    wanted = re.fullmatch(".*".join(map(re.escape, parts)), text, re.DOTALL)

    assert Glob(parts).matches(text) == (wanted is not None)


@given(PARTS, PARTS, st.lists(st.text("ab ", max_size=6), max_size=8))
def test_covering_pattern_matches_all_that_the_other_does(
    parts: tuple[str, ...], others: tuple[str, ...], texts: list[str]
) -> None:
    wide, narrow = Glob(parts), Glob(others)
    filled = [text.join(others) for text in texts]

    if wide.covers(narrow):
        assert all(wide.matches(text) for text in [*texts, *filled] if narrow.matches(text))
    else:
        # A letter that no pattern holds tells them apart.
        assert narrow.matches("z".join(others))
        assert not wide.matches("z".join(others))
