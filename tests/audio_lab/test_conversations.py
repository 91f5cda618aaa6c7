"""The engine and the command line on real PortAudio streams, heard by a program that shares no code with ours.

What is asserted is content, order and counts. How long things take is for the benchmark.
"""

from __future__ import annotations

import functools
import json
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.audio_lab.card import RATE, Card, missing, running
from tests.audio_lab.happening import IS_REQUIRED, happening, on_card

BLOCK = RATE * 20 // 1000
MS = RATE // 1000
conversation = functools.partial(happening, "conversations")


@on_card
def test_spoken_question_reaches_the_provider_and_its_answer_the_ear_sample_for_sample() -> None:
    seen = conversation("conversation")

    n_sent, n_said = seen["sent"]
    n_heard, n_answer = seen["heard"]
    assert n_sent >= n_said
    assert n_heard == n_answer
    played_ms, answer_ms = seen["played_ms"]
    assert (played_ms, seen["playback"], seen["dropped"]) == (answer_ms, "device", 0)
    assert seen["order"] == ["speech_started", "speech_ended", "response_started", "audio_output_started"]


@on_card
@pytest.mark.parametrize("flush", ["soft", "hard"])
def test_voice_of_the_user_is_heard_as_silence_of_the_agent(flush: str) -> None:
    seen = conversation(flush)

    n_silent, loudest = seen["silence"]
    item_ms, event_ms = seen["item_ms"]
    assert (n_silent > RATE // 10, loudest) == (True, 0)
    assert item_ms == event_ms
    assert seen["is_part"]


@on_card
def test_after_a_soft_interruption_the_engine_reports_what_the_tap_recorded() -> None:
    seen = conversation("soft")

    assert 0 <= seen["found_frames"] - seen["heard_frames"] < MS  # It is reported in whole milliseconds.


@on_card
def test_after_a_hard_interruption_the_engine_reports_never_more_and_little_less() -> None:
    seen = conversation("hard")

    # Twice what is typical: on a loaded machine the abort itself comes late.
    assert 0 <= seen["found_frames"] - seen["heard_frames"] <= 2.4 * BLOCK + MS


@on_card
@pytest.mark.parametrize(
    ("event", "reason"), [("unplug", "stopped"), ("kill", "stopped"), ("freeze", "silent")]
)
def test_conversation_outlives_its_devices_and_gets_them_back(event: str, reason: str) -> None:
    seen = conversation(event)

    assert seen["lost"] == [["input", reason], ["output", reason]]
    assert seen["is_recoverable"] == [True, True]
    assert seen["back"] == ["device_returned", "device_returned"]
    assert (seen["is_connected"], seen["cut"]) == (True, 0)
    played_ms, answer_ms = seen["played_ms"]
    # What the device held when it was lost is not counted.
    assert answer_ms - 500 < played_ms < answer_ms
    n_heard, n_said = seen["again"]
    assert n_heard == n_said
    n_sent, n_spoken = seen["sent"]
    assert n_sent >= n_spoken


@on_card
def test_engine_whose_devices_hang_ends_and_so_does_the_program() -> None:
    assert conversation("leave_frozen") == {"heard": True, "ended": 1}


# -- the command line -------------------------------------------------------------------------------


@pytest.fixture
def card() -> Iterator[Card]:
    if missing() and not IS_REQUIRED:
        pytest.skip(missing())
    with running() as made:
        yield made


def voxengine(card: Card, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "voxengine", *arguments]
    return subprocess.run(
        command,
        env=card.environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def test_devices_of_the_card_are_listed_without_a_word_of_the_c_libraries(card: Card) -> None:
    done = voxengine(card, "devices", "--json")

    assert (done.returncode, done.stderr) == (0, "")
    assert {"vox", "tap", "default"} <= {device["name"] for device in json.loads(done.stdout)}


def test_audio_check_hears_itself_through_the_tap(card: Card, tmp_path: Path) -> None:
    done = voxengine(
        card, "audio-check", "--input-device", "tap", "--output-device", "vox", "--seconds", "2", "--trials", "3",
        "--json", str(tmp_path / "check.json"), "--picture", str(tmp_path / "check.svg"),
    )  # fmt: skip

    report = json.loads((tmp_path / "check.json").read_text("utf-8"))
    assert report["is_heard"], done.stdout
    assert report["heard_db"] == pytest.approx(-12, abs=0.5)
    assert 0 < report["hard_interrupt_ms"] < report["soft_interrupt_ms"]
    assert report["round_trip_ms"] > 0
    assert len(report["output_gaps_ms"]) > 50
    assert ET.parse(tmp_path / "check.svg").getroot().tag.endswith("svg")
    assert "round trip" in done.stdout


def test_remarks_of_alsa_stay_off_standard_error_once_a_backend_is_in_use(card: Card) -> None:
    program = """
import asyncio, ctypes
from voxengine.audio.backends.pyaudio import PyAudioBackend

alsa, handle = ctypes.CDLL("libasound.so.2"), ctypes.c_void_p()

async def main():
    alsa.snd_pcm_open(ctypes.byref(handle), b"before", 0, 0)
    backend = PyAudioBackend()
    await backend.devices()
    alsa.snd_pcm_open(ctypes.byref(handle), b"during", 0, 0)
    await backend.close()

asyncio.run(main())
"""

    done = subprocess.run(
        [sys.executable, "-c", program],
        env=card.environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (done.returncode, "before" in done.stderr, "during" in done.stderr) == (0, True, False)


@pytest.mark.parametrize("moment", ["listening", "frozen"])
def test_ctrl_c_ends_a_spoken_conversation_cleanly(card: Card, moment: str) -> None:
    # What a shell starts in the background ignores Ctrl-C, and so does what that starts.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "voxengine"]
    command += ["talk", "--provider", "mock", "--microphone"]
    with subprocess.Popen(
        command,
        env=card.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as talk:
        try:
            assert talk.stdout is not None
            for line in talk.stdout:
                if "mic" in line:
                    break
            if moment == "frozen":
                card.freeze()

            talk.send_signal(signal.SIGINT)
            out, err = talk.communicate(timeout=30)
        finally:
            talk.kill()

    assert (talk.returncode, err) == (130, "")
    assert "    ended  0 turns in " in out
