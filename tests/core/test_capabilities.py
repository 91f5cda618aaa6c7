"""The capability table: five words, and what may be asked of them."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from voxengine.audio.format import AudioFormat
from voxengine.capabilities import (
    FULL,
    HOOK_CAPABILITIES,
    PLANNED,
    ROWS,
    UNKNOWN,
    UNSUPPORTED,
    Capabilities,
    Capability,
    Support,
    partial,
)
from voxengine.errors import CapabilityMissing, ConfigError
from voxengine.hookspecs import OPTIONAL_HOOKS

# What a reader of the provider guide compares, and what the engine asks before it acts.
PROMISED_ROWS = {
    "streaming", "server_turn_detection", "multiple_voices", "session_tools", "emotion",
    "vocabulary_at_connect", "vocabulary_live", "dialogue", "recognition", "synthesis", "text_turn",
    "semantic_turn_detection", "client_turn_detection", "cancel", "heard_text", "resume",
    "context_text", "context_audio", "context_tools", "replay", "response_boundaries", "word_timings",
}  # fmt: skip
PROMISED_FACTS = {
    "voices", "input_formats", "output_formats", "min_chunk_ms", "preferred_chunk_ms",
    "max_history_items", "max_history_chars", "replay_speed", "session_limit_s", "cost_per_minute_usd",
}  # fmt: skip


def made(values: dict[str, Any]) -> Capabilities:
    return Capabilities(**values)


def test_every_promised_row_and_fact_is_there() -> None:
    facts = {field.name for field in attrs.fields(Capabilities)} - set(ROWS)

    assert set(ROWS) >= PROMISED_ROWS
    assert facts >= PROMISED_FACTS


@pytest.mark.parametrize("row", ROWS)
def test_nothing_declared_means_unknown(row: str) -> None:
    assert Capabilities().support(row).support is Support.UNKNOWN


@pytest.mark.parametrize("row", ROWS)
def test_row_is_set_by_a_word_or_by_a_cell(row: str) -> None:
    assert made({row: Support.FULL}).support(row) == FULL
    assert made({row: partial("at night")}).support(row).why == "at night"


@pytest.mark.parametrize("value", ["full", True, None, 1, ("full",)])
def test_row_refuses_what_is_no_capability(value: object) -> None:
    with pytest.raises(ConfigError, match="is a Capability or a Support"):
        Capabilities(cancel=value)


@pytest.mark.parametrize(
    ("cell", "usable"),
    [(UNKNOWN, False), (UNSUPPORTED, False), (PLANNED, False), (partial("slowly"), True), (FULL, True)],
)
def test_only_partial_and_full_are_true(cell: Capability, usable: bool) -> None:
    assert bool(cell) is usable


def test_partial_without_a_reason_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"partial\('...'\)"):
        Capability(Support.PARTIAL)
    with pytest.raises(ConfigError):
        partial("")


def test_cell_reads_as_its_word_and_its_reason() -> None:
    assert str(FULL) == "full"
    assert str(partial("only in English")) == "partial: only in English"


def test_unknown_row_lists_the_rows() -> None:
    with pytest.raises(ConfigError, match=r"'telepathy'.*streaming.*cost"):
        Capabilities().support("telepathy")
    with pytest.raises(ConfigError, match="'min_chunk_ms'"):
        Capabilities().support("min_chunk_ms")


@pytest.mark.parametrize("cell", [UNKNOWN, partial("x"), FULL])
def test_requiring_what_may_work_passes(cell: Capability) -> None:
    Capabilities(cancel=cell).require("cancel", provider="acme", doing="interrupt()")


def test_requiring_what_the_vendor_cannot_says_so() -> None:
    with pytest.raises(CapabilityMissing) as caught:
        Capabilities(cancel=UNSUPPORTED).require("cancel", provider="acme", doing="interrupt()")

    assert str(caught.value).startswith("interrupt() needs the capability 'cancel', which 'acme' has not")
    assert "the service cannot" in str(caught.value)
    assert (caught.value.capability, caught.value.provider, caught.value.planned) == ("cancel", "acme", False)


def test_requiring_what_we_have_not_built_reads_differently() -> None:
    cell = Capability(Support.PLANNED, "the vendor offers it since May")

    with pytest.raises(
        CapabilityMissing, match=r"does not do that yet \(the vendor offers it since May\)"
    ) as caught:
        Capabilities(resume=cell).require("resume", provider="acme", doing="resume()")

    assert caught.value.planned


def test_capabilities_are_immutable_and_evolve_makes_a_copy() -> None:
    held = Capabilities(cancel=FULL)

    changed = held.evolve(cancel=UNSUPPORTED, voices=["ada"])

    assert (held.cancel, changed.cancel, changed.voices) == (FULL, UNSUPPORTED, ("ada",))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        held.cancel = UNSUPPORTED  # type: ignore[misc]


def test_lists_become_tuples_so_that_classes_can_share_them() -> None:
    held = Capabilities(voices=["ada", "bob"], input_formats=[AudioFormat(16_000)])

    assert held.voices == ("ada", "bob")
    assert held.input_formats == (AudioFormat(16_000),)


def test_dictionary_has_every_row_and_fact_as_json() -> None:
    held = Capabilities(
        cancel=partial("after a word"), voices=("ada",), input_formats=(AudioFormat(8_000),), replay_speed=4.0
    )

    out = json.loads(json.dumps(held.to_dict()))

    assert list(out)[: len(ROWS)] == list(ROWS)
    assert set(out) == {field.name for field in attrs.fields(Capabilities)}
    assert out["cancel"] == "partial: after a word"
    assert out["voices"] == ["ada"]
    assert out["input_formats"] == ["8000 Hz mono"]
    assert out["replay_speed"] == 4.0


def test_every_optional_hook_is_gated_by_a_row_of_its_own() -> None:
    assert set(HOOK_CAPABILITIES) == set(OPTIONAL_HOOKS)
    assert set(HOOK_CAPABILITIES.values()) <= set(ROWS)
    assert len(set(HOOK_CAPABILITIES.values())) == len(HOOK_CAPABILITIES)
