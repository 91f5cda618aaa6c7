"""The real module in a synthetic room: echo goes, the user stays. Floors lie 10 dB and more below what is seen."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from tests.plugins.audio_processors.needs import needs_webrtc
from tests.plugins.audio_processors.scenes import (
    Room,
    Sound,
    area,
    at_level,
    has_espeak,
    has_silero,
    has_webrtc,
    level_db,
    pcm16,
    pink,
    reduction_db,
    room,
    scores,
    talk,
    through,
    white,
)
from voxengine.audio.format import AudioFormat
from voxengine.audio.processors import NullProcessor, load_processor
from voxengine.audio.vad import EnergyVad

SECONDS = 8


@pytest.mark.skipif("VOXENGINE_REQUIRE_PROCESSORS" not in os.environ, reason="set by the session `audio`")
def test_where_the_modules_are_required_nothing_here_is_skipped() -> None:
    assert (has_webrtc(), has_silero(), has_espeak()) == (True, True, True)


def test_the_room_gives_back_what_the_loudspeaker_played() -> None:
    scene = room(16_000, seconds=2, delay_ms=100)

    left = through(NullProcessor(AudioFormat(16_000)), scene)

    assert abs(reduction_db(scene, left, from_s=0)) < 0.01
    assert level_db(scene.echo[:1500]) < -70.0 < -50.0 < level_db(scene.echo[1600:])


@needs_webrtc
@pytest.mark.parametrize("sample_rate", [8_000, 16_000, 24_000, 48_000])
def test_echo_is_cancelled_at_the_rates_of_conversations(sample_rate: int) -> None:
    scene = room(sample_rate, seconds=SECONDS)

    left = through(load_processor("webrtc-echo", AudioFormat(sample_rate)), scene, told_ms=40)

    assert reduction_db(scene, left[: 3 * sample_rate], from_s=1) >= 15.0
    assert reduction_db(scene, left, from_s=5) >= 25.0


@needs_webrtc
@pytest.mark.parametrize(
    ("delay_ms", "told_ms", "drift_ppm"),
    [(180, 0, 0.0), (400, 0, 0.0), (40, 400, 0.0), (40, 40, 300.0), (40, 40, -300.0)],
    ids=["late, told 0", "very late, told 0", "told ten times as late", "faster clock", "slower clock"],
)
def test_a_wrong_delay_and_drifting_clocks_are_borne(delay_ms: int, told_ms: int, drift_ppm: float) -> None:
    scene = room(24_000, seconds=SECONDS, delay_ms=delay_ms, drift_ppm=drift_ppm)

    left = through(load_processor("webrtc-echo", AudioFormat(24_000)), scene, told_ms=told_ms)

    assert reduction_db(scene, left, from_s=5) >= 20.0


@needs_webrtc
def test_the_agent_is_not_taken_for_the_user_and_the_user_is_heard_beside_it() -> None:
    rate = 16_000
    scene, user = room(rate, seconds=20), talk(rate)
    start = 5 * rate
    near = np.zeros(len(scene.echo))
    near[start:] = user.sound[: len(near) - start]
    n_blocks = len(near) // (rate // 50)
    truth = np.concatenate((np.zeros(250, bool), user.truth))[:n_blocks]
    settled = slice(150, None)

    def judged(name: str, sound: Sound | None) -> tuple[float, float]:
        left = pcm16(through(load_processor(name, AudioFormat(rate)), scene, sound, told_ms=40))
        detector = EnergyVad(rate)
        levels = scores(detector, left, lambda _: detector.level_db, n_blocks)[settled]
        return float(np.mean(levels > -45.0)), area(levels, truth[settled])

    (without, _), (with_it, _) = judged("null", None), judged("webrtc", None)
    (_, mixed), (_, separate) = judged("null", near), judged("webrtc", near)

    assert without >= 0.5
    assert with_it <= 0.01
    assert separate >= 0.9
    assert separate >= mixed + 0.08


@needs_webrtc
@pytest.mark.parametrize("name", ["webrtc", "webrtc-echo", "webrtc-noise"])
def test_a_user_alone_is_as_loud_as_before(name: str) -> None:
    user = talk(16_000)
    nothing = Room(16_000, np.zeros(len(user.sound)), 3.0 * white(len(user.sound)))

    left = through(load_processor(name, AudioFormat(16_000)), nothing, user.sound)

    voiced = np.repeat(user.truth, 320)[: len(left)]
    assert abs(level_db(left[voiced]) - level_db(user.sound[: len(left)][voiced])) <= 2.0


@needs_webrtc
@pytest.mark.parametrize("name", ["webrtc", "webrtc-noise"])
def test_steady_noise_is_suppressed(name: str) -> None:
    n_samples = SECONDS * 16_000
    noise = at_level(pink(n_samples), -45.0)
    nothing = Room(16_000, np.zeros(n_samples), np.zeros(n_samples))

    left = through(load_processor(name, AudioFormat(16_000)), nothing, noise)

    assert level_db(noise[5 * 16_000 :]) - level_db(left[5 * 16_000 :]) >= 10.0


@needs_webrtc
def test_a_program_that_used_it_ends() -> None:
    program = (
        "from voxengine.audio.format import AudioFormat\n"
        "from voxengine.audio.processors import load_processor\n"
        "made = load_processor('webrtc', AudioFormat(24000))\n"
        "print(len(made.process(bytes(480), bytes(480), 40)))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "480\n", "")
