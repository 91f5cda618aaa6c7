"""Judging: one law, all of them, and the grade that follows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from enum import StrEnum
from functools import partial
from typing import Any, Final, Literal, Protocol

import attrs

from voxengine.testing.clock import VirtualDeadlock, VirtualTimeExceeded, VirtualTimeLoop
from voxengine.testing.conformance.law import Law, LawBroken, LawSkipped, Outcome, Result, Skip
from voxengine.testing.conformance.laws import LAWS
from voxengine.testing.conformance.probe import Probe, tell
from voxengine.testing.conformance.subject import Subject

__all__ = ["Clock", "Grade", "LoopRunner", "Report", "judge", "run_law", "run_laws"]

Clock = Literal["virtual", "real"]
_MAX_REAL_S: Final = 120.0
"""For one law on virtual time."""


class LoopRunner(Protocol):
    """Runs a coroutine function on an event loop of its own."""

    def __call__(
        self,
        main: Callable[[], Coroutine[Any, Any, Result]],
        /,
        *,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None,
    ) -> Result:
        """Return its result; the loop is closed by then."""


def _run(
    main: Callable[[], Coroutine[Any, Any, Result]],
    /,
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None,
) -> Result:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main())


class Grade(StrEnum):
    """What a run shows, in one letter."""

    A = "A"
    B = "B"
    C = "C"
    D = "D"

    @property
    def meaning(self) -> str:
        """A sentence for the reader of a report."""
        return _MEANINGS[self]


_MEANINGS: Final = {
    Grade.A: "Complete: every law passed that the vendor makes possible.",
    Grade.B: "Sound: no law is broken; some could not be judged, for want of a declaration, of code, of a peer or of a sign.",
    Grade.C: "Usable with care: a law is broken, none of the essential ones.",
    Grade.D: "Unsound: an essential law is broken; an application cannot rely on this provider.",
}

_OPEN: Final = {
    Skip.UNDECLARED: "for want of a declaration",
    Skip.PLANNED: "for want of code",
    Skip.UNEQUIPPED: "for want of a peer",
    Skip.UNJUDGED: "whose effect shows in no event, which is no fault of the package",
}


@attrs.frozen
class Report:
    """What a run gave."""

    name: str
    results: tuple[Result, ...]
    details: dict[str, Any] = attrs.field(factory=dict)
    """What was judged: class, distribution, version, service, clock."""

    @property
    def failed(self) -> tuple[Result, ...]:
        """The laws that are broken."""
        return tuple(result for result in self.results if result.outcome is Outcome.FAILED)

    def count(self, outcome: Outcome) -> int:
        """Return how many laws came out so."""
        return sum(result.outcome is outcome for result in self.results)

    @property
    def grade(self) -> Grade:
        """The grade; see :class:`Grade`."""
        if any(result.law.is_essential for result in self.failed):
            return Grade.D
        if self.failed:
            return Grade.C
        # What the vendor cannot do is not held against the package.
        open_questions = any(result.skip not in (None, Skip.VENDOR) for result in self.results)
        return Grade.B if open_questions else Grade.A

    @property
    def meaning(self) -> str:
        """The grade in a sentence; where laws could not be judged it says how many, and for want of what."""
        if self.grade is not Grade.B:
            return self.grade.meaning
        kinds = [result.skip for result in self.results]
        reasons = [f"{kinds.count(kind)} {why}" for kind, why in _OPEN.items() if kind in kinds]
        return f"Sound: no law is broken. Not judged: {', '.join(reasons)}."

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "provider": self.name,
            **self.details,
            "grade": self.grade.value,
            "meaning": self.meaning,
            "counts": {outcome.value: self.count(outcome) for outcome in Outcome},
            "laws": [result.to_dict() for result in self.results],
        }


async def judge(law: Law, subject: Subject) -> None:
    """Apply a law on the running loop.

    Raises:
        LawBroken: The provider breaks it.
        LawSkipped: It does not apply.
        Exception: What a provider raised where nothing may be raised.
    """
    probe = Probe(subject)
    timer = asyncio.timeout(subject.settings.law_s)
    try:
        async with timer:
            probe.require(law.needs, law.declared)
            await law.check(probe)
    except TimeoutError:
        if timer.expired():
            limit = subject.settings.law_s
            raise LawBroken(f"It could not be judged within {limit:g} s.") from None
        raise
    finally:
        await probe.close()


async def run_law(law: Law, subject: Subject) -> Result:
    """Apply a law on the running loop and return what came of it. Only cancellation is raised."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    outcome, reason, skip = Outcome.PASSED, "", None
    try:
        await judge(law, subject)
    except LawSkipped as skipped:
        outcome, reason, skip = Outcome.SKIPPED, str(skipped), skipped.kind
    except LawBroken as broken:
        outcome, reason = Outcome.FAILED, str(broken)
    except Exception as error:
        outcome, reason = Outcome.FAILED, str(LawBroken(f"The provider raised {tell(error)}"))
    return Result(law, outcome, masked(reason, subject), skip, loop.time() - began)


def run_laws(
    subject: Subject,
    *,
    laws: Iterable[Law] = LAWS,
    clock: Clock = "real",
    on_result: Callable[[Result], object] | None = None,
    runner: LoopRunner = _run,
) -> Report:
    """Apply laws, each on an event loop of its own, and return the report. Call it outside of any loop.

    Args:
        subject: Who is judged. Its ``make`` gives fresh instances.
        laws: Which.
        clock: ``virtual`` for a provider that lives in memory: hours pass in no time; ``real`` for one that
            talks to a socket.
        on_result: Told about each result as it comes.
        runner: Runs each law on its loop; by default as ``asyncio.run`` does.
    """
    results: list[Result] = []
    subject = attrs.evolve(subject, is_in_memory=clock == "virtual")
    for law in laws:
        result = _on_a_loop(law, subject, clock, runner)
        results.append(result)
        if on_result is not None:
            on_result(result)
    return Report(subject.name, tuple(results), {"clock": clock})


def _on_a_loop(law: Law, subject: Subject, clock: Clock, runner: LoopRunner) -> Result:
    loop_factory = partial(VirtualTimeLoop, max_real_s=_MAX_REAL_S) if clock == "virtual" else None
    try:
        return runner(partial(run_law, law, subject), loop_factory=loop_factory)
    except (VirtualDeadlock, VirtualTimeExceeded) as stuck:
        reason = f"Nothing could go on. {stuck}"
        return Result(law, Outcome.FAILED, masked(reason, subject))


def masked(text: str, subject: Subject) -> str:
    """Return a text without the subject's key: reports are shown around."""
    for secret in subject.secrets:
        text = text.replace(secret, "…")
    return text
