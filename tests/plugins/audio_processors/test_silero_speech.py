"""The real model on speech in noise, beside the energy detector."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from tests.core.engine.fakes import calling, silence, speak
from tests.plugins.audio_processors.needs import needs_silero
from tests.plugins.audio_processors.scenes import (
    Sound,
    area,
    at_level,
    clicks,
    has_espeak,
    pcm16,
    pink,
    scores,
    sentence,
    talk,
    white,
)
from voxengine.audio.vad import EnergyVad
from voxengine.events import EventType
from voxengine.testing import virtual
from voxengine_audio_processors import SileroDetector

pytestmark = [
    needs_silero,
    pytest.mark.skipif(not has_espeak(), reason="needs speech: pip install 'voxengine-mock[espeak]'"),
]
SETTLED = slice(100, None)


def keys(n_samples: int) -> Sound:
    return clicks(n_samples, 24_000)


@pytest.mark.parametrize(
    ("make", "snr_db"),
    [(pink, 10.0), (white, 10.0), (keys, 10.0), (pink, 0.0)],
    ids=["pink 10 dB", "white 10 dB", "key clicks 10 dB", "pink 0 dB"],
)
def test_speech_is_told_from_noise_better_than_by_energy(make: Callable[[int], Sound], snr_db: float) -> None:
    spoken = talk(24_000)
    sound, n_blocks, truth = spoken.in_noise(make, snr_db), len(spoken.truth), spoken.truth[SETTLED]
    neural, energy = SileroDetector(24_000), EnergyVad(24_000)

    by_sound = area(scores(neural, sound, lambda _: neural.probability, n_blocks)[SETTLED], truth)
    by_level = area(
        scores(energy, sound, lambda _: energy.level_db - energy.floor_db, n_blocks)[SETTLED], truth
    )

    assert by_sound >= 0.97
    assert by_sound >= by_level + 0.03


@pytest.mark.parametrize("sample_rate", [8_000, 16_000, 44_100, 48_000])
def test_it_hears_as_well_at_other_rates(sample_rate: int) -> None:
    spoken = talk(sample_rate)
    detector = SileroDetector(sample_rate)

    heard = scores(detector, spoken.in_noise(pink, 10.0), lambda _: detector.probability, len(spoken.truth))

    assert area(heard[SETTLED], spoken.truth[SETTLED]) >= 0.97


def test_loud_noise_alone_is_no_speech() -> None:
    detector = SileroDetector(16_000)
    noise = white(16_000 * 5) * 32768 * 10 ** (-20 / 20)

    flags = detector.push(np.clip(noise, -32768, 32767).astype("<i2").tobytes())

    assert np.mean(flags) <= 0.02


def test_the_model_s_package_is_not_imported_and_nothing_is_written() -> None:
    program = (
        "import sys\n"
        "from voxengine.audio.detectors import load_detector\n"
        "print(load_detector('silero', 24000).push(bytes(2 * 768)), 'silero_vad' in sys.modules)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "[False] False\n", "")


@pytest.mark.parametrize(("detector", "is_fooled"), [("energy", True), ("silero", False)])
@virtual
async def test_in_a_conversation_the_named_detector_hears_turns_and_no_noise(
    detector: str, is_fooled: bool
) -> None:
    rattle = pcm16(at_level(white(24_000), -22.0))
    detection = {"kind": "client", "detector": detector, "silence_ms": 800}
    async with calling(turn_detection=detection) as call:
        await speak(call.engine, silence(1000) + rattle + silence(2000), paced=True)
        n_before = len(call.seen.of(EventType.SPEECH_STARTED))
        await speak(call.engine, pcm16(sentence(0, 24_000)) + silence(2000), paced=True)
        n_turns = len(call.seen.of(EventType.SPEECH_STARTED)) - n_before

        assert (n_before, n_turns) == (int(is_fooled), 1)
        assert call.provider().of("end_turn") == [True] * (n_before + n_turns)
