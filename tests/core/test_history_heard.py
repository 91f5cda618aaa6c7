"""How much of the agent's text was heard."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxengine.history import estimate_heard_text, heard_from_marks

TEXTS = st.text(alphabet=st.one_of(st.sampled_from(" ab,.\n日本e\u0301"), st.characters()), max_size=60)


@given(text=TEXTS, played=st.integers(0, 3000), later=st.integers(0, 3000), total=st.integers(1, 2500))
def test_an_estimate_is_a_prefix_that_only_grows(text: str, played: int, later: int, total: int) -> None:
    played, later = sorted((played, later))

    heard, heard_later = estimate_heard_text(text, played, total), estimate_heard_text(text, later, total)

    assert text.startswith(heard)
    assert heard_later.startswith(heard)
    assert len(heard) * total <= len(text) * played or played >= total
    if played == 0:
        assert heard == ""
    if played >= total:
        assert heard == text


@given(words=st.lists(st.text("abc", min_size=1, max_size=6), min_size=1), played=st.integers(0, 999))
def test_an_estimate_ends_with_a_whole_word(words: list[str], played: int) -> None:
    heard = estimate_heard_text(" ".join(words), played, 1000)

    assert heard.split(" ") == words[: len(heard.split(" "))] or heard == ""


def test_an_estimate_cuts_between_ideographs() -> None:
    assert estimate_heard_text("今日は晴れです", 500, 1000) == "今日は"


MARKS = [("Hello", 0), ("world", 400), ("how", 900), ("are", 1100), ("you", 1300)]


@pytest.mark.parametrize(
    ("played_ms", "heard"),
    [
        (0, ""),
        (399, ""),
        (400, "Hello,"),
        (1099, "Hello, world!"),
        (1100, "Hello, world! how"),
        (1400, "Hello, world! how are"),
        (1600, "Hello, world! how are you?"),
    ],
)
def test_marks_tell_exactly_what_was_heard(played_ms: int, heard: str) -> None:
    assert heard_from_marks("Hello, world! how are you?", MARKS, played_ms, 1600) == heard


def test_the_last_word_does_not_count_while_its_end_is_unknown() -> None:
    assert heard_from_marks("Hello world", [("Hello", 0), ("world", 400)], 5000) == "Hello"


def test_marks_that_the_text_does_not_spell_are_passed_over() -> None:
    marks = [("It", 0), ("costs", 200), ("ten", 500), ("dollars", 800), ("now", 1200), ("end", 1500)]

    assert heard_from_marks("It costs $10 now.", marks, 900) == "It costs"
    assert heard_from_marks("It costs $10 now.", marks, 1500) == "It costs $10 now."


def test_a_mark_is_not_found_inside_another_word() -> None:
    assert heard_from_marks("banana an apple", [("an", 0), ("apple", 300)], 300) == "banana an"
    assert heard_from_marks("ants ate a cake", [("a", 0), ("cake", 300)], 300) == "ants ate a"


@given(
    words=st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=12),
    played=st.integers(0, 1500),
    later=st.integers(0, 1500),
)
def test_marks_of_every_word_give_whole_words_that_only_grow(
    words: list[str], played: int, later: int
) -> None:
    played, later = sorted((played, later))
    text, marks = " ".join(words), [(word, 100 * index) for index, word in enumerate(words)]

    heard = heard_from_marks(text, marks, played)

    assert heard == " ".join(words[: min(played // 100, len(words) - 1)])
    assert heard_from_marks(text, marks, later).startswith(heard)
