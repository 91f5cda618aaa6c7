"""Checks the places in the texts of answers: each names something that there is when the text is said."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, Final

from voxengine_mock.reading import Source
from voxengine_mock.script import places
from voxengine_mock.toml_lines import KeyPath

__all__ = ["check_places"]

_ALWAYS: Final = ("text", "instructions", "language", "voice")
_RESULT: Final = re.compile(r"result(?:_\d+)?")

Groups = Mapping[str, bool]
"""Named groups of the pattern, and whether each takes part in every match."""


def check_places(source: Source, path: KeyPath, answers: object, groups: Groups) -> None:
    """Refuse a place that would be spoken as it is written. The answers were read without an error before."""
    if isinstance(answers, list | tuple):
        for n, answer in enumerate(answers):
            _check_answer(source, (*path, n), answer, groups, 0)
    else:
        _check_answer(source, path, answers, groups, 0)


def _check_answer(source: Source, path: KeyPath, answer: Any, groups: Groups, n_results: int) -> None:
    """Check an answer and those that follow its results; so many results there are before it."""
    if isinstance(answer, str):
        _check_texts(source, path, answer, groups, n_results)
        return
    _check_texts(source, (*path, "say"), answer.get("say", ""), groups, n_results)
    calls = [(path, answer)] if "tool" in answer else []
    calls += [((*path, "calls", n), call) for n, call in enumerate(answer.get("calls", ()))]
    for here, call in calls:
        _check_texts(source, (*here, "arguments"), call.get("arguments", {}), groups, n_results)
    if "then" in answer:
        _check_answer(source, (*path, "then"), answer["then"], groups, max(n_results, len(calls)))


def _check_texts(source: Source, path: KeyPath, value: object, groups: Groups, n_results: int) -> None:
    """Check a text, or all those within arguments."""
    if isinstance(value, str):
        for place in places(value):
            problem = _problem(place, groups, n_results)
            if problem:
                raise source.error(path, f"holds the place {{{place}}}, {problem}")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _check_texts(source, (*path, str(key)), item, groups, n_results)
    elif isinstance(value, list | tuple):
        for n, item in enumerate(value):
            _check_texts(source, (*path, n), item, groups, n_results)


def _problem(place: str, groups: Groups, n_results: int) -> str:
    """Say why nothing would stand in a place; empty when something does."""
    name, _, key = place.partition(".")
    results = ["result", *(f"result_{n}" for n in range(1, n_results + 1))] if n_results else []
    if name in results:
        return ""
    if name in _ALWAYS or name in groups:
        if key:
            return "and only the result of a call has keys."
        if name in _ALWAYS or groups[name]:
            return ""
        return "a group that is not in every match. Write a pattern, with answers of its own, for each case."
    if _RESULT.fullmatch(name):
        if not n_results:
            return "and no tool is called before. A result can be told in 'then', beside the call."
        return f"and the calls before it are {n_results}; they count from 1."
    known = [*_ALWAYS, *groups, *results]
    close = difflib.get_close_matches(name, known, 1)
    hint = f" Did you mean {{{close[0]}}}?" if close else ""
    shown = ", ".join(f"{{{each}}}" for each in known)
    return f"which stands for nothing.{hint} The places here: {shown}."
