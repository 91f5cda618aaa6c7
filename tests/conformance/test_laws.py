"""Each law is broken by a provider that is wrong in just that, and by no provider that is right."""

from __future__ import annotations

import functools

import pytest

from tests.conformance.wrong_providers import WRONG, Gifted, Wrong, subject_of
from voxengine.testing import LAWS, FakeProvider, Law, Outcome, Report, Result, Skip, run_laws
from voxengine.testing.conformance.law import GROUPS
from voxengine.testing.conformance.run import Grade

BEYOND_THE_FAKE = {
    "speech_is_answered_under_semantic_detection",
    "emotion_is_told",
    "heard_words_are_known",
    "vocabulary_changes_in_mid_session",
    "loaded_speech_asks_for_nothing",
}
BY_NAME = {law.name: law for law in LAWS}


def name_of(wrong: Wrong) -> str:
    return wrong.cls.__name__


@pytest.mark.parametrize("wrong", WRONG, ids=name_of)
def test_wrong_provider_breaks_its_law(wrong: Wrong) -> None:
    report = run_laws(subject_of(wrong.cls), laws=[BY_NAME[wrong.law]], clock="virtual")

    (result,) = report.results
    if wrong.is_unjudged:
        assert (result.outcome, result.skip) == (Outcome.SKIPPED, Skip.UNJUDGED)
        assert report.grade is Grade.B
    else:
        assert (result.law.name, result.outcome) == (wrong.law, Outcome.FAILED)
        assert result.reason.endswith((".", ".)"))


@pytest.mark.slow
@pytest.mark.parametrize("wrong", WRONG, ids=name_of)
def test_wrong_provider_breaks_no_other_law(wrong: Wrong) -> None:
    report = run_laws(subject_of(wrong.cls), clock="virtual")

    broken = set() if wrong.is_unjudged else {wrong.law}
    assert {result.law.name for result in report.failed} == {*broken, *wrong.also}


@functools.cache
def judged(law: Law) -> Result:
    return run_laws(subject_of(FakeProvider), laws=[law], clock="virtual").results[0]


@pytest.mark.parametrize("law", LAWS, ids=[law.name for law in LAWS])
def test_right_provider_breaks_no_law(law: Law) -> None:
    result = judged(law)

    assert result.outcome is not Outcome.FAILED, result.reason


def test_every_law_is_exercised_by_the_right_provider_or_has_nothing_to_judge() -> None:
    skipped = {law.name for law in LAWS if judged(law).outcome is Outcome.SKIPPED}

    assert skipped == {"missing_capability_is_named", *BEYOND_THE_FAKE}


def test_provider_with_every_gift_is_judged_in_full() -> None:
    report = run_laws(subject_of(Gifted), clock="virtual")

    assert {result.law.name: result.reason for result in report.failed} == {}
    assert {r.law.name for r in report.results if r.outcome is Outcome.SKIPPED} == {
        "missing_capability_is_named"
    }
    assert report.grade is Grade.A


def test_every_law_has_a_wrong_provider() -> None:
    assert {wrong.law for wrong in WRONG if not wrong.is_unjudged} == set(BY_NAME)


def test_laws_have_names_sentences_and_groups_of_their_own() -> None:
    sentences = {law.sentence for law in LAWS}

    assert len(BY_NAME) == len(sentences) == len(LAWS)
    assert all(sentence.endswith(".") for sentence in sentences)
    assert list(dict.fromkeys(law.group for law in LAWS)) == list(GROUPS)


@pytest.mark.parametrize(
    ("outcomes", "grade"),
    [
        ([(Outcome.PASSED, None, True)], Grade.A),
        ([(Outcome.SKIPPED, Skip.VENDOR, True)], Grade.A),
        ([(Outcome.SKIPPED, Skip.PLANNED, False)], Grade.B),
        ([(Outcome.SKIPPED, Skip.UNEQUIPPED, True)], Grade.B),
        ([(Outcome.SKIPPED, Skip.UNJUDGED, False)], Grade.B),
        ([(Outcome.FAILED, None, False), (Outcome.PASSED, None, True)], Grade.C),
        ([(Outcome.FAILED, None, False), (Outcome.FAILED, None, True)], Grade.D),
    ],
)
def test_grade_follows_from_the_worst_result(
    outcomes: list[tuple[Outcome, Skip | None, bool]], grade: Grade
) -> None:
    essential = next(law for law in LAWS if law.is_essential)
    other = next(law for law in LAWS if not law.is_essential)

    report = Report(
        "acme",
        tuple(
            Result(essential if is_one else other, outcome, "", skip) for outcome, skip, is_one in outcomes
        ),
    )

    assert report.grade is grade


def test_open_questions_are_counted_by_their_reason_beside_the_grade() -> None:
    kinds = [Skip.UNJUDGED, Skip.VENDOR, Skip.UNEQUIPPED, Skip.UNEQUIPPED]

    report = Report("acme", tuple(Result(LAWS[0], Outcome.SKIPPED, "", kind) for kind in kinds))

    assert report.meaning == (
        "Sound: no law is broken. Not judged: 2 for want of a peer, 1 whose effect shows in no event, which is no "
        "fault of the package."
    )
    assert report.to_dict()["meaning"] == report.meaning
