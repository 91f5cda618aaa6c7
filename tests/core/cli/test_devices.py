"""``voxengine devices`` and ``voxengine audio-check``, and ``talk`` with a microphone; without a sound card."""

from __future__ import annotations

import asyncio
import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from tests.core.cli.conftest import Command
from voxengine.audio.backends.array import ArrayBackend
from voxengine.audio.devices import DeviceInfo
from voxengine.audio.format import AudioFormat
from voxengine.audio.pcm import convert
from voxengine.audio.wav import read_wav
from voxengine.cli.audio_check import Check, measure
from voxengine.cli.audio_picture import draw
from voxengine.cli.microphone import meter_text
from voxengine.errors import AudioDeviceError
from voxengine.listening import Levels
from voxengine.testing import run_virtual, virtual

FORMAT = AudioFormat(24_000)


class Card(ArrayBackend):
    """A card with two devices."""

    found = (
        DeviceInfo(0, "Built-in\x1b[31m", "ALSA", 2, 0, 44_100, is_default_input=True),
        DeviceInfo(7, "USB Headset", "Core Audio", 1, 2, 48_000, is_default_output=True),
    )

    async def devices(self) -> list[DeviceInfo]:
        return list(self.found)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    made = Card(FORMAT)
    for name in ("devices", "talk", "audio_check", "microphone"):
        monkeypatch.setattr(f"voxengine.cli.{name}.make_backend", lambda: made)
    monkeypatch.setattr("voxengine.cli.audio_check.run_loop", lambda work: run_virtual(work()))
    return made


# -- devices ----------------------------------------------------------------------------------------


def test_devices_are_a_table_with_the_default_ones_marked(voxengine: Command, card: Card) -> None:
    code, out, _ = voxengine("devices")

    head, first, second, *_ = out.splitlines()
    assert code == 0
    assert head.split() == ["name", "in", "out", "rate", "system"]
    assert first.split() == ["0", "Built-in[31m", "2*", "-", "44100", "ALSA"]
    assert second.split() == ["7", "USB", "Headset", "1", "2*", "48000", "Core", "Audio"]
    assert "\x1b" not in out


def test_devices_as_json_say_everything(voxengine: Command, card: Card) -> None:
    code, out, _ = voxengine("devices", "--json")

    assert code == 0
    assert [each["index"] for each in json.loads(out)] == [0, 7]
    assert json.loads(out)[1]["max_output_channels"] == 2


def test_machine_without_devices_is_told_what_it_can_do(
    voxengine: Command, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card, "found", ())

    assert voxengine("devices")[:2] == (
        1,
        "No sound device. Plug one in, or talk with files: voxengine talk --input question.wav\n",
    )
    assert voxengine("devices", "--json")[:2] == (1, "[]\n")


@pytest.mark.parametrize(
    "command", [("devices",), ("audio-check",), ("talk", "--provider", "mock", "--microphone")]
)
def test_missing_pyaudio_is_one_sentence_with_what_to_type(
    voxengine: Command, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setitem(sys.modules, "pyaudio", None)

    code, _, err = voxengine(*command)

    assert code == 1
    assert err.startswith("voxengine: PyAudio cannot be imported")
    assert err.count("\n") == 1
    for words in (
        "pip install 'voxengine[audio]'",
        "apt-get install portaudio19-dev",
        "brew install portaudio",
    ):
        assert words in err


# -- audio-check ------------------------------------------------------------------------------------


class Room(ArrayBackend):
    """Its microphone hears its loudspeaker, 60 ms later."""

    n_frames = 0

    async def open(self, direction: Any, *rest: Any) -> Any:
        stream = await super().open(direction, *rest)
        if direction == "output":
            self._task = asyncio.get_running_loop().create_task(self._carry())
            close = stream.close

            async def stop() -> None:
                self._task.cancel()
                await close()

            stream.close = stop  # type: ignore[method-assign]
        return stream

    async def _carry(self) -> None:
        self.feed(bytes(FORMAT.n_bytes(60)))
        while True:
            new = bytes(self.played[self.n_frames :])
            self.n_frames += len(new)
            self.feed(new)
            await asyncio.sleep(0.005)


@virtual
async def test_check_measures_the_way_from_the_loudspeaker_to_the_microphone() -> None:
    backend = Room(FORMAT)

    check = await measure(backend, None, None, block_ms=20, duration_s=1, n_trials=3)

    assert check.is_heard
    assert check.round_trip_ms is not None
    assert check.soft_interrupt_ms is not None
    assert check.hard_interrupt_ms is not None
    assert 59 <= check.round_trip_ms <= 110
    assert 59 <= check.soft_interrupt_ms <= 150
    assert (check.output_xruns, check.input_xruns, check.n_clipped, check.remarks) == (0, 0, 0, [])
    assert check.output_jitter_p99_ms == pytest.approx(0, abs=0.01)
    assert (round(check.room_db), round(check.heard_db)) == (-100, -12)
    assert check.output_device == check.input_device == "array"


@virtual
async def test_check_says_when_the_microphone_hears_nothing() -> None:
    check = await measure(ArrayBackend(FORMAT), None, None, block_ms=20, duration_s=1, n_trials=3)

    assert not check.is_heard
    assert (check.round_trip_ms, check.soft_interrupt_ms, check.hard_interrupt_ms) == (None, None, None)
    (remark,) = check.remarks
    assert "did not hear the loudspeaker" in remark


def test_check_reports_as_text_json_and_picture(voxengine: Command, card: Card, tmp_path: Path) -> None:
    code, out, err = voxengine(
        "audio-check",
        "--seconds",
        "1",
        "--trials",
        "1",
        "--json",
        tmp_path / "a.json",
        "--picture",
        tmp_path / "a.svg",
    )

    report = json.loads((tmp_path / "a.json").read_text("utf-8"))
    assert (code, err) == (1, "")  # An array hears no loudspeaker.
    assert " round trip  unknown\n" in out
    assert "     remark  The microphone did not hear" in out
    assert (report["is_heard"], report["output_device"]) == (False, "array")
    assert ET.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")


def test_check_writes_json_alone_to_standard_output(voxengine: Command, card: Card) -> None:
    code, out, _ = voxengine("audio-check", "--seconds", "1", "--trials", "1", "--json", "-")

    assert code == 1
    assert json.loads(out)["block_ms"] == 20


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--block-ms", "3"), "from 5 to 100"),
        (("--trials", "many"), "from 1 to 100"),
        (("--json", "nowhere/a.json"), "there is no directory"),
        (("--json", "a.json", "--picture", "a.json"), "is named for something else"),
        (("--json", "-", "--picture", "-"), "cannot both go to standard output"),
    ],
)
def test_check_refuses_wrong_use_before_it_listens(
    voxengine: Command, card: Card, options: tuple[str, ...], why: str
) -> None:
    code, out, err = voxengine("audio-check", *options)

    assert (code, out) == (2, "")
    assert why in err


def test_picture_shows_what_is_known_and_escapes_names() -> None:
    check = Check(
        output_device="<a & b>", round_trip_ms=60.0, levels_db=[-90.0, -12.0] * 900, output_gaps_ms=[20.0]
    )

    root = ET.fromstring(draw(check))

    texts = [each.text for each in root.iter() if each.text and each.text.strip()]
    assert "<a & b> and " in texts
    assert {"60.0 ms", "unknown"} <= set(texts)
    (line,) = [each.get("points", "") for each in root.iter() if each.tag.endswith("polyline")]
    assert len(line.split()) <= 600


# -- talk -------------------------------------------------------------------------------------------


@pytest.fixture
def speaking(card: Card, question: Path) -> Card:
    recorded = read_wav(question)
    card.feed(convert(recorded.data, recorded.format, FORMAT) + bytes(FORMAT.n_bytes(3000)))
    card.end()
    return card


def test_spoken_conversation_through_the_devices(voxengine: Command, speaking: Card, tmp_path: Path) -> None:
    transcript, answer = tmp_path / "talk.jsonl", tmp_path / "answer.wav"

    code, out, err = voxengine(
        "talk", "--provider", "mock", "--microphone", "--metadata", 'default="It is sunny today."',
        "--transcript", transcript, "--output", answer,
    )  # fmt: skip

    said = [json.loads(line)["role"] for line in transcript.read_text("utf-8").splitlines()]
    assert (code, err) == (0, "")
    assert "      mic  array, 24000 Hz\n" in out
    assert said == ["user", "agent"]
    heard = read_wav(answer).data
    assert heard[480:] in bytes(speaking.played)


def test_what_is_written_goes_without_the_microphone(
    voxengine: Command, card: Card, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "lines.txt").write_text("Hello\n")

    with open(tmp_path / "lines.txt", encoding="utf-8") as lines:
        monkeypatch.setattr("sys.stdin", lines)
        code, out, _ = voxengine("talk", "--provider", "mock", "--fast")

    assert code == 0
    assert "mic" not in out
    assert card.played == b""


def test_microphone_goes_with_nothing_else_to_say(voxengine: Command, card: Card) -> None:
    code, _, err = voxengine("talk", "--provider", "mock", "--microphone", "--text", "Hello")

    assert code == 2
    assert "--microphone goes without" in err


def test_device_that_is_not_there_ends_the_call(
    voxengine: Command, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> Any:
        raise AudioDeviceError("No input device is called 'nobody'.", reason="not_found")

    monkeypatch.setattr(card, "open", refuse)

    code, _, err = voxengine("talk", "--provider", "mock", "--microphone", "--input-device", "nobody")

    assert (code, err) == (1, "voxengine: No input device is called 'nobody'.\n")


@pytest.mark.parametrize(
    ("option", "name", "reason"),
    [
        ("--processor", "keen", "No audio processor is called 'keen'. Installed: null"),
        ("--detector", "keen", "No voice detector is called 'keen'. Installed: energy"),
        ("--processor", "", "DeviceOptions.processors got ('',) (tuple); it takes a sequence of names."),
        ("--detector", "", "TurnDetection.detector got '' (str); it takes a str that is not empty or None."),
    ],
)
def test_processor_or_detector_that_there_is_none_of_is_one_sentence(
    option: str, name: str, reason: str, voxengine: Command, card: Card
) -> None:
    code, _, err = voxengine("talk", "--provider", "mock", "--microphone", option, name)

    assert code != 0
    assert err.startswith(f"voxengine: {reason}")
    assert err.count("\n") == 1


def test_spoken_conversation_with_a_processor_and_a_detector(voxengine: Command, speaking: Card) -> None:
    options = ("--processor", "null", "--detector", "energy")
    code, out, err = voxengine("talk", "--provider", "mock", "--microphone", *options)

    assert (code, err) == (0, "")
    assert "    agent  " in out


def test_meters_show_both_sides() -> None:
    assert meter_text(Levels(-30.0, -100.0)) == f"you {'|' * 10}{'.' * 10}   agent {'.' * 20}"
    assert meter_text(Levels(0.0, -60.0)).startswith("you " + "|" * 20)
