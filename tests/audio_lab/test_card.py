"""Real PortAudio streams on the virtual card, heard by a program that shares no code with ours.

What is asserted is content, order and counts. How long things take is for the benchmark.
"""

from __future__ import annotations

import functools

import pytest

from tests.audio_lab.card import RATE, missing
from tests.audio_lab.happening import IS_REQUIRED, happening, on_card
from tests.audio_lab.sound import found_frames, hiss, place

BLOCK = RATE * 20 // 1000
scenario = functools.partial(happening, "scenarios")


@pytest.mark.skipif(not IS_REQUIRED, reason="only where a virtual card is required")
def test_the_card_is_there_where_it_is_required() -> None:
    assert missing() == ""


@on_card
def test_two_answers_are_heard_sample_for_sample() -> None:
    seen = scenario("sentence")

    assert seen["found"] == [2 * RATE, RATE]
    assert seen["played_ms"] == [2000, 1000]
    assert seen["events"] == [["first", "second"], [["first", 2000], ["second", 1000]]]
    assert seen["outcomes"] == 0


@on_card
def test_what_is_said_into_the_microphone_is_read_sample_for_sample() -> None:
    assert scenario("microphone") == {"found": 2 * RATE, "dropped": 0}


@on_card
@pytest.mark.parametrize("flush", ["soft", "hard"])
def test_an_interruption_is_heard_as_silence_and_the_next_answer_in_full(flush: str) -> None:
    seen = scenario(flush)

    n_silent, loudest = seen["silence"]
    assert seen["is_silent"]
    assert (n_silent > RATE // 10, loudest) == (True, 0)
    assert seen["after"] == RATE // 2
    assert seen["stopped"] == {"cut": seen["heard_ms"], "after": 500}


@on_card
def test_after_a_soft_flush_heard_is_what_the_tap_recorded_to_the_sample() -> None:
    seen = scenario("soft")

    assert seen["heard_frames"] == seen["found_frames"]


@on_card
def test_after_a_hard_flush_heard_is_never_more_than_the_tap_recorded_and_little_less() -> None:
    seen = scenario("hard")

    # Twice what is typical: on a loaded machine the abort itself comes late.
    assert 0 <= seen["found_frames"] - seen["heard_frames"] <= 2.4 * BLOCK


@on_card
@pytest.mark.parametrize(
    ("event", "reason"), [("unplug", "stopped"), ("kill", "stopped"), ("freeze", "silent")]
)
def test_a_lost_device_is_told_played_on_by_the_clock_and_used_again(event: str, reason: str) -> None:
    seen = scenario(event)

    assert seen["lost"] == [["input", reason], ["output", reason]]
    assert seen["back"] == [["input", True], ["output", True]]
    # What the device held when it was lost is not counted.
    assert 1500 < seen["played_ms"] < 2000
    assert seen["again"] == RATE
    assert seen["n_read"] > RATE


@on_card
def test_a_program_whose_devices_hang_ends() -> None:
    seen = scenario("leave_frozen")

    assert seen["is_tainted"]
    assert 0 < seen["stopped"]["long"] <= 2000


@on_card
def test_opening_interrupting_and_closing_in_quick_succession_does_no_harm() -> None:
    seen = scenario("churn")

    before, after = seen["switch"]
    assert (seen["n_lost"], seen["is_tainted"], after) == (0, False, before)


@on_card
def test_devices_are_found_by_index_and_by_part_of_a_name_at_the_wanted_format() -> None:
    seen = scenario("negotiated")

    assert seen["names"] == ["vox", "vox"]
    assert seen["formats"] == ["8000 Hz mono", "16000 Hz stereo"]
    assert seen["blocks"] == [80, 320]
    before, during, after = seen["switch"]
    assert during < before == after


@on_card
def test_a_device_that_is_not_there_is_an_error_that_lists_what_is() -> None:
    seen = scenario("refused")

    assert seen["reason"] == "not_found"
    assert "'vox'" in seen["text"]


# --- The measure itself ------------------------------------------------------------------------------


def test_a_sound_is_found_to_its_last_untouched_sample() -> None:
    sound = hiss(4000, 1)
    recording = bytes(2000) + sound[:3000] + bytes(500)

    assert place(recording, sound) == 1000
    assert found_frames(recording, sound) == 1500
    assert found_frames(bytes(200) + sound[:3000] + bytes(700) + sound[3000:], sound) == 4000
    assert found_frames(bytes(200) + sound[:3000] + sound[3010:], sound) == 1500
    assert found_frames(recording, hiss(4000, 2)) == 0
