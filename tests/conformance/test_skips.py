"""What is not judged says why: the vendor, the package, the declaration or the run."""

from __future__ import annotations

import attrs
import pytest

from tests.conformance.wrong_providers import subject_of
from voxengine.capabilities import PLANNED, UNKNOWN, UNSUPPORTED, Capability, Support, partial
from voxengine.errors import CapabilityMissing
from voxengine.testing import LAWS, FakeProvider, Outcome, Result, Skip, run_laws


def judge(cls: type[FakeProvider], law: str) -> Result:
    laws = [item for item in LAWS if item.name == law]
    return run_laws(subject_of(cls), laws=laws, clock="virtual").results[0]


def with_cell(row: str, cell: Capability) -> type[FakeProvider]:
    return type("Changed", (FakeProvider,), {"capabilities": FakeProvider.capabilities.evolve(**{row: cell})})


@pytest.mark.parametrize(
    ("cell", "skip", "words"),
    [
        (UNSUPPORTED, Skip.VENDOR, "the vendor cannot: 'cancel' is unsupported"),
        (PLANNED, Skip.PLANNED, "the package does not do it yet: 'cancel' is planned"),
        (Capability(Support.PLANNED, "with 0.3"), Skip.PLANNED, "is planned: with 0.3"),
    ],
)
def test_missing_capability_is_a_reason(cell: Capability, skip: Skip, words: str) -> None:
    result = judge(with_cell("cancel", cell), "interrupt_stops_the_answer")

    assert (result.outcome, result.skip) == (Outcome.SKIPPED, skip)
    assert words in result.reason


def test_undeclared_boundaries_promise_nothing() -> None:
    result = judge(with_cell("response_boundaries", UNKNOWN), "response_ends_exactly_once")

    assert (result.outcome, result.skip) == (Outcome.SKIPPED, Skip.UNDECLARED)


def test_law_without_its_peer_says_which_fixture_to_give() -> None:
    cls = type("Peerless", (FakeProvider,), {"conformance_peers": {}})

    result = judge(cls, "send_audio_waits_for_a_slow_service")

    assert (result.outcome, result.skip) == (Outcome.SKIPPED, Skip.UNEQUIPPED)
    assert "stalled_provider" in result.reason


def test_partial_capability_may_refuse_what_its_restriction_names() -> None:
    class Restricted(FakeProvider):
        capabilities = FakeProvider.capabilities.evolve(discard_input=partial("never after speech"))

        async def discard_input(self) -> None:
            raise CapabilityMissing("Not now.", capability="discard_input")

    result = judge(Restricted, "discarded_input_is_forgotten")

    assert (result.outcome, result.skip) == (Outcome.SKIPPED, Skip.VENDOR)
    assert "never after speech" in result.reason


def test_full_capability_may_not() -> None:
    class Boasting(FakeProvider):
        async def discard_input(self) -> None:
            raise CapabilityMissing("Not now.", capability="discard_input")

    result = judge(Boasting, "discarded_input_is_forgotten")

    assert result.outcome is Outcome.FAILED


def test_key_of_the_subject_is_masked_in_reasons() -> None:
    class Quoting(FakeProvider):
        async def interrupt(self, heard: object = None) -> None:
            raise RuntimeError(f"refused {self.config['api_key']}")

    subject = subject_of(Quoting, api_key="sk-conformance-secret")
    laws = [item for item in LAWS if item.name == "interrupt_before_an_answer_is_harmless"]

    report = run_laws(attrs.evolve(subject, secrets=("sk-conformance-secret",)), laws=laws, clock="virtual")

    assert "RuntimeError: refused …" in report.results[0].reason
