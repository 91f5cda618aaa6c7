"""The patterns of a script: words with stars, and regular expressions that no text can make slow.

Python's own matcher tries one way after the other and can take years for a short text, with the whole process
standing still. Here all ways are followed at once, so the time is at most the length of the text times that of
the pattern. What cannot be matched so (references to groups, looking around) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

import attrs

__all__ = ["Glob", "PatternError", "Regex"]

MAX_STEPS: Final = 300
"""Of one regular expression, its counted repetitions written out."""

_ANY_WORDS: Final = "\0"
"""Stands for what a star of another pattern may match; no pattern holds it as a letter."""


class PatternError(ValueError):
    """No pattern, or one that is not taken; the text continues a sentence that begins with the pattern."""


@attrs.frozen
class Glob:
    """Texts with anything between them; the first one begins what is matched and the last one ends it."""

    parts: tuple[str, ...]

    def matches(self, text: str) -> bool:
        """Return whether the whole text is like that."""
        first, *between, last = self.parts
        if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
            return False
        at, end = len(first), len(text) - len(last)
        for part in between:
            found = text.find(part, at, end)
            if found < 0:
                return False
            at = found + len(part)
        return True

    def covers(self, other: Glob) -> bool:
        """Return whether everything that the other one matches is matched by this one."""
        return self.matches(_ANY_WORDS.join(other.parts))

    @property
    def matches_everything(self) -> bool:
        """Whether it is nothing but stars."""
        return not any(self.parts)


class _Step(NamedTuple):
    """One instruction: read a letter, go two ways, note a place, check a place, or be done."""

    kind: str
    """``read``, ``split``, ``jump``, ``note``, ``check`` or ``done``."""
    test: _Letter | None = None
    first: int = 0
    second: int = 0
    name: str = ""
    """Of the group whose border is noted, or of the check."""


class _Letter:
    """Whether a letter is one of those that an atom of a pattern stands for."""

    __slots__ = ("_known", "_regex")

    def __init__(self, atom: str) -> None:
        self._regex = re.compile(atom, re.IGNORECASE)
        self._known: dict[str, bool] = {}

    def takes(self, letter: str) -> bool:
        known = self._known.get(letter)
        if known is None:
            if len(self._known) > 1000:
                self._known.clear()
            known = self._known[letter] = self._regex.fullmatch(letter) is not None
        return known


_Places = tuple[tuple[str, int], ...]
"""Borders of named groups, the latest last."""


class Regex:
    """A regular expression that is looked for in any case.

    Raises:
        PatternError: It is none, or holds what is not taken.
    """

    def __init__(self, source: str) -> None:
        try:
            re.compile(source, re.IGNORECASE)
        except (re.error, OverflowError, RecursionError) as error:
            raise PatternError(f"is no regular expression: {error}.") from None
        try:
            self._steps = _Parser(source).program()
        except RecursionError:
            raise PatternError("is a regular expression with too many groups in each other.") from None
        self.key: Final = re.sub(r"\\.|[^\\]", _in_small_letters, source, flags=re.DOTALL)
        """The same for two expressions that differ in case alone."""

    def search(self, text: str) -> dict[str, str] | None:
        """Return the named groups of the first place where it is found, None when it is nowhere."""
        found: _Places | None = None
        ways: list[tuple[int, _Places]] = []
        for at in range(len(text) + 1):
            seen: set[int] = set()
            now: list[tuple[int, _Places]] = []
            for step, places in ways:
                now.extend(self._follow(step, places, text, at, seen))
            if found is None:
                now.extend(self._follow(0, (), text, at, seen))
            ways = []
            for step, places in now:
                test = self._steps[step].test
                if test is None:
                    found = places  # Ways of less weight, which come behind, are given up.
                    break
                if at < len(text) and test.takes(text[at]):
                    ways.append((step + 1, places))
            if found is not None and not ways:
                break
        return None if found is None else _groups(found, text)

    def _follow(
        self, step: int, places: _Places, text: str, at: int, seen: set[int]
    ) -> Iterator[tuple[int, _Places]]:
        """Go on from a step without reading, and yield where a letter is to be read or all is done."""
        waiting = [(step, places)]
        while waiting:
            step, places = waiting.pop()
            if step in seen:
                continue
            seen.add(step)
            here = self._steps[step]
            if here.kind in ("read", "done"):
                yield step, places
            elif here.kind == "jump":
                waiting.append((here.first, places))
            elif here.kind == "split":
                waiting.append((here.second, places))
                waiting.append((here.first, places))
            elif here.kind == "note":
                waiting.append((step + 1, (*places, (here.name, at))))
            elif _holds(here.name, text, at):
                waiting.append((step + 1, places))

    @property
    def groups(self) -> dict[str, bool]:
        """The names of its groups, and whether each takes part in every match."""
        names = [step.name.removeprefix("to ") for step in self._steps if step.name.startswith("to ")]
        return {name: not self._ends_without(f"to {name}") for name in names}

    def _ends_without(self, note: str) -> bool:
        seen: set[int] = set()
        waiting = [0]
        while waiting:
            step = waiting.pop()
            here = self._steps[step]
            if here.kind == "done":
                return True
            if step in seen or (here.kind == "note" and here.name == note):
                continue
            seen.add(step)
            if here.kind == "split":
                waiting += [here.first, here.second]
            else:
                waiting.append(here.first if here.kind == "jump" else step + 1)
        return False

    @property
    def matches_everything(self) -> bool:
        """Whether it is found in every text: nothing of it has to be there."""
        seen: set[int] = set()
        waiting = [0]
        while waiting:
            step = waiting.pop()
            here = self._steps[step]
            if here.kind == "done":
                return True
            if step in seen or here.kind in ("read", "check"):
                continue
            seen.add(step)
            waiting += {"jump": [here.first], "split": [here.first, here.second]}.get(here.kind, [step + 1])
        return False


def _in_small_letters(found: re.Match[str]) -> str:
    return found[0] if found[0].startswith("\\") else found[0].lower()


def _groups(places: _Places, text: str) -> dict[str, str]:
    began: dict[str, int] = {}
    groups: dict[str, str] = {}
    for name, at in places:
        kind, _, group = name.partition(" ")
        if kind == "from":
            began[group] = at
        else:
            groups[group] = text[began[group] : at]
    return groups


def _is_word(text: str, at: int) -> bool:
    return 0 <= at < len(text) and (text[at].isalnum() or text[at] == "_")


def _holds(check: str, text: str, at: int) -> bool:
    if check in ("^", "\\A"):
        return at == 0
    if check == "$":
        return at == len(text) or (at == len(text) - 1 and text[at] == "\n")
    if check == "\\Z":
        return at == len(text)
    is_border = _is_word(text, at - 1) != _is_word(text, at)
    return is_border if check == "\\b" else not is_border and bool(text)


_CLASS: Final = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_ESCAPE: Final = re.compile(
    r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|N\{[^}]*\}|0[0-7]{0,2}|[1-3][0-7]{2}|.)", re.DOTALL
)
_TIMES: Final = re.compile(r"\*|\+|\?|\{(\d*)(,?)(\d*)\}")
_GROUP: Final = re.compile(r"\((?:\?P<(\w+)>|\?:|(?!\?))")
_KIND: Final = re.compile(r"\(\?(?:P.|.)?", re.DOTALL)
_COMMENT: Final = re.compile(r"\(\?#[^)]*\)")

_Program = list[_Step]


class _Parser:
    """Reads an expression that Python has accepted, and writes it as steps."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._at = 0
        self._n_groups = 0
        self.names: dict[str, None] = {}

    def program(self) -> _Program:
        steps = self._ways()
        self._check_size(len(steps))
        return [*steps, _Step("done")]

    def _peek(self) -> str:
        return self._source[self._at : self._at + 1]

    @staticmethod
    def _check_size(n_steps: int) -> None:
        if n_steps > MAX_STEPS:
            raise PatternError(f"is a regular expression of more than {MAX_STEPS} steps. Shorten it.")

    def _ways(self) -> _Program:
        """Read up to the end of a group: sequences with bars between them."""
        steps = self._sequence()
        while self._peek() == "|":
            self._at += 1
            other = self._sequence()
            self._check_size(len(steps) + len(other))
            steps = [
                _Step("split", first=1, second=len(steps) + 2),
                *_moved(steps, 1),
                _Step("jump", first=len(steps) + 2 + len(other)),
                *_moved(other, len(steps) + 2),
            ]
        return steps

    def _sequence(self) -> _Program:
        steps: _Program = []
        while self._peek() not in ("", "|", ")"):
            comment = _COMMENT.match(self._source, self._at)
            if comment is not None:
                self._at = comment.end()
                continue
            atom = self._repeated(self._atom())
            self._check_size(len(steps) + len(atom))
            steps += _moved(atom, len(steps))
        return steps

    def _atom(self) -> _Program:
        source, at = self._source, self._at
        if self._peek() == "(":
            return self._group()
        if self._peek() == "[":
            found = _CLASS.match(source, at)
        elif self._peek() == "\\":
            found = _ESCAPE.match(source, at)
        else:
            found = None
        text = source[at] if found is None else found[0]
        self._at = at + len(text)
        if text in ("^", "$", "\\A", "\\Z", "\\b", "\\B"):
            return [_Step("check", name=text)]
        if re.fullmatch(r"\\[1-9]", text):
            raise PatternError("refers to a group, which is not taken here.")
        return [_Step("read", _Letter(text))]

    def _group(self) -> _Program:
        found = _GROUP.match(self._source, self._at)
        if found is None:
            kind = _KIND.match(self._source, self._at)
            assert kind is not None
            raise PatternError(
                f"holds {kind[0]!r}. Of groups '(', '(?:' and '(?P<name>' are taken; there is no looking around, no "
                "reference and no flag."
            )
        self._at = found.end()
        inner = self._ways()
        self._at += 1  # The closing bracket.
        if found[1] is None:
            return inner
        return [
            _Step("note", name=f"from {found[1]}"),
            *_moved(inner, 1),
            _Step("note", name=f"to {found[1]}"),
        ]

    def _repeated(self, atom: _Program) -> _Program:
        while (found := _TIMES.match(self._source, self._at)) is not None and found[0] != "{}":
            least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(found[0], (0, 0))
            if found[0].startswith("{"):
                if not found[1] and not found[2]:
                    break
                least = int(found[1] or 0)
                most = (int(found[3]) if found[3] else None) if found[2] else least
            self._at = found.end()
            is_lazy = self._peek() == "?"
            if self._peek() == "+":
                raise PatternError("holds a repetition that gives nothing back, which is not taken here.")
            self._at += is_lazy
            atom = self._times(atom, least, most, is_lazy=is_lazy)
        return atom

    def _times(self, atom: _Program, least: int, most: int | None, *, is_lazy: bool) -> _Program:
        self._check_size((least if most is None else most) * max(1, len(atom)))
        steps: _Program = []
        for _ in range(least):
            steps += _moved(atom, len(steps))
        if most is None:
            begin = len(steps)
            end = begin + len(atom) + 2
            steps.append(_fork(begin + 1, end, is_lazy=is_lazy))
            steps += [*_moved(atom, begin + 1), _Step("jump", first=begin)]
            return steps
        n_more = most - least
        end = len(steps) + n_more * (len(atom) + 1)
        for _ in range(n_more):
            steps.append(_fork(len(steps) + 1, end, is_lazy=is_lazy))
            steps += _moved(atom, len(steps))
        return steps


def _fork(inside: int, behind: int, *, is_lazy: bool) -> _Step:
    return (
        _Step("split", first=behind, second=inside)
        if is_lazy
        else _Step("split", first=inside, second=behind)
    )


def _moved(steps: _Program, by: int) -> _Program:
    """Return steps that begin so much later."""
    return [
        step._replace(first=step.first + by, second=step.second + by)
        if step.kind in ("split", "jump")
        else step
        for step in steps
    ]
