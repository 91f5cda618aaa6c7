"""What a law is, and what judging by one gives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import attrs

if TYPE_CHECKING:
    from voxengine.testing.conformance.probe import Probe

__all__ = ["GROUPS", "Law", "LawBroken", "LawSkipped", "Outcome", "Result", "Skip", "law"]

GROUPS: Final = {
    "class": "The class and what it declares",
    "life": "Life cycle",
    "responses": "Responses and events",
    "audio": "Audio input",
    "interruption": "Interruption",
    "calls": "Settings, tools, history and usage",
    "errors": "Errors, loss and secrets",
    "tidiness": "Cancellation and what is left behind",
}
"""Groups of laws and their titles, in the order of a report."""


class Outcome(StrEnum):
    """What came of a law."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


class Skip(StrEnum):
    """Why a law was not applied."""

    VENDOR = "vendor"
    """The vendor cannot do what the law is about."""
    PLANNED = "planned"
    """The vendor can and the package cannot yet."""
    UNDECLARED = "undeclared"
    """Nothing was declared, so nothing is promised."""
    UNEQUIPPED = "unequipped"
    """The run offered no peer that the law needs, such as one that stalls."""
    UNJUDGED = "unjudged"
    """It was declared and taken without an error, and whether it does anything does not show from outside."""


class LawBroken(AssertionError):
    """The provider breaks the law; the message says what was seen and what was expected."""

    def __init__(self, message: str) -> None:
        super().__init__(message if message.endswith((".", ".)")) else f"{message}.")


class LawSkipped(Exception):
    """The law does not apply."""

    def __init__(self, kind: Skip, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


@attrs.frozen
class Law:
    """One thing that every provider does.

    ``needs`` names capabilities without which it does not apply; ``declared`` names those that must be
    partial or full in so many words.
    """

    name: str
    sentence: str
    group: str
    check: Callable[[Probe], Awaitable[None]] = attrs.field(repr=False)
    needs: tuple[str, ...] = ()
    declared: tuple[str, ...] = ()
    is_essential: bool = False
    """Whether an application cannot be written against a provider that breaks it."""

    @property
    def title(self) -> str:
        """The name as words."""
        return self.name.replace("_", " ")


@attrs.frozen
class Result:
    """A law and what came of it."""

    law: Law
    outcome: Outcome
    reason: str = ""
    """What was seen, or why it does not apply; empty when it passed."""
    skip: Skip | None = None
    duration_s: float = 0.0
    """On the clock of the run: virtual seconds on a virtual clock."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "law": self.law.name,
            "group": self.law.group,
            "sentence": self.law.sentence,
            "essential": self.law.is_essential,
            "outcome": self.outcome.value,
            "skip": None if self.skip is None else self.skip.value,
            "reason": self.reason,
            "duration_s": round(self.duration_s, 3),
        }


_Check = Callable[["Probe"], Awaitable[None]]


def law(
    group: str,
    *,
    into: list[Law],
    needs: tuple[str, ...] = (),
    declared: tuple[str, ...] = (),
    essential: bool = False,
) -> Callable[[_Check], _Check]:
    """Make a law of a coroutine function: its name is the law's, its docstring the sentence."""

    def make(check: _Check) -> _Check:
        sentence = " ".join((check.__doc__ or "").replace("``", "").split())
        into.append(Law(check.__name__, sentence, group, check, needs, declared, essential))  # type: ignore[attr-defined,unused-ignore]
        return check

    return make
