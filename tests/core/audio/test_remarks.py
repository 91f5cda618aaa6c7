"""Standard error while a sound system is called: its own remarks stay off it, and nothing else does."""

from __future__ import annotations

import os

import pytest

from voxengine.audio.backends import remarks
from voxengine.audio.backends.remarks import Remarks


def say(text: str) -> None:
    os.write(2, text.encode())


def test_remarks_are_left_out_and_the_rest_is_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    with Remarks():
        say("ALSA lib pcm.c:2722:(snd_pcm_open_noupdate) Unknown PCM rear\n")
        say(
            "A line of the application\nExpression 'ret' failed in 'pa_linux_alsa.c', line: 1736\nand another\n"
        )
        say("jack server is not running or cannot be started\nwithout an end")
        within = capfd.readouterr().err

    assert within == ""
    assert capfd.readouterr().err == "A line of the application\nand another\nwithout an end"


def test_standard_error_is_back_while_the_call_still_hangs(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remarks, "_LONGEST_S", 0.01)
    held = Remarks()

    with held:
        say("early\n")
        assert held._timer is not None
        held._timer.join(10)
        say("late\n")
        within = capfd.readouterr().err
        with Remarks():
            say("of another call\n")

    assert within == "early\nlate\n"
    assert capfd.readouterr().err == "of another call\n"


def test_process_without_standard_error_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> int:
        raise OSError("bad file descriptor")

    monkeypatch.setattr("os.dup", refuse)
    reached = []
    for _ in range(2):
        with Remarks():
            reached.append(True)

    assert reached == [True, True]
