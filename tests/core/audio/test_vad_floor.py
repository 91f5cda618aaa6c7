"""How well speech is told from noise: the least that the energy detector must do, on sound made here.

The figure is the area under the curve of hits over false alarms, 0.5 for guessing: the chance that a block
of speech scores higher than a block of pause.
"""

from __future__ import annotations

import math
import random
from array import array
from bisect import bisect_left, bisect_right

import pytest

from tests.core.audio.sounds import pcm16, silence, spoken
from voxengine.audio.vad import EnergyVad

RATE = 16_000
BLOCK = 320
SPEECH_S, PAUSE_S, N_UTTERANCES = 1.4, 1.0, 6


def talk() -> tuple[bytes, list[bool]]:
    """Utterances of several voices with pauses between, and which 20 ms blocks are speech."""
    parts, truth = [silence(int(RATE * 2))], [False] * 100
    for n in range(N_UTTERANCES):
        parts.append(spoken(RATE, int(RATE * SPEECH_S), -36.0 + 3.0 * (n % 3), 95.0 + 30.0 * n))
        parts.append(silence(int(RATE * PAUSE_S)))
        truth += [True] * int(SPEECH_S * 50) + [False] * int(PAUSE_S * 50)
    return b"".join(parts), truth


def white(n_frames: int) -> list[float]:
    source = random.Random(1)
    return [source.gauss(0.0, 1.0) for _ in range(n_frames)]


def pink(n_frames: int) -> list[float]:
    """White noise through Kellet's filter: 3 dB less for each octave."""
    states = [0.0] * 3
    poles = (0.99765, 0.0990460), (0.96300, 0.2965164), (0.57000, 1.0526913)
    values = []
    for x in white(n_frames):
        states = [a * s + b * x for s, (a, b) in zip(states, poles, strict=True)]
        values.append(sum(states) + 0.1848 * x)
    return values


def clicks(n_frames: int) -> list[float]:
    """Keys: bursts of 6 ms, four to seven a second, on a faint hiss."""
    source = random.Random(2)
    values = [0.01 * x for x in white(n_frames)]
    at = 0
    while (at := at + int(RATE * source.uniform(0.14, 0.25))) < n_frames - 200:
        for n in range(96):
            values[at + n] += source.gauss(0.0, 4.0) * math.exp(-n / 25.0)
    return values


def power(values: list[float]) -> float:
    return sum(value * value for value in values) / len(values)


def noisy(speech: bytes, noise: list[float], snr_db: float, truth: list[bool]) -> bytes:
    """Add noise so far below the speech, both measured where there is speech."""
    clean = [float(value) for value in array("h", speech)]
    voiced = [value for n, value in enumerate(clean) if truth[n // BLOCK]]
    gain = math.sqrt(power(voiced) / power(noise) / 10.0 ** (snr_db / 10.0))
    return pcm16([value + gain * other for value, other in zip(clean, noise, strict=True)])


def area(scores: list[float], truth: list[bool]) -> float:
    pauses = sorted(score for score, is_speech in zip(scores, truth, strict=True) if not is_speech)
    wins = [
        (bisect_left(pauses, score) + bisect_right(pauses, score)) / 2
        for score, is_speech in zip(scores, truth, strict=True)
        if is_speech
    ]
    return sum(wins) / len(wins) / len(pauses)


SPEECH, TRUTH = talk()


@pytest.mark.parametrize(
    ("make", "snr_db", "at_least"),
    [(pink, 10.0, 0.865), (white, 10.0, 0.894), (clicks, 10.0, 0.905), (pink, 0.0, 0.680)],
    ids=["pink 10 dB", "white 10 dB", "key clicks 10 dB", "pink 0 dB"],
)
def test_speech_is_told_from_noise_at_least_this_well(make: object, snr_db: float, at_least: float) -> None:
    assert callable(make)
    sound = noisy(SPEECH, make(len(SPEECH) // 2), snr_db, TRUTH)
    vad = EnergyVad(RATE, frame_ms=20)
    scores = []
    for start in range(0, len(sound), 2 * BLOCK):
        vad.push(sound[start : start + 2 * BLOCK])
        scores.append(vad.level_db - vad.floor_db)

    # The first two seconds are for the floor to be found.
    assert area(scores[100:], TRUTH[100:]) >= at_least


@pytest.mark.parametrize("make", [pink, white], ids=["pink", "white"])
def test_pauses_of_steady_noise_raise_few_alarms(make: object) -> None:
    assert callable(make)
    sound = noisy(SPEECH, make(len(SPEECH) // 2), 10.0, TRUTH)
    flags = EnergyVad(RATE, frame_ms=20).push(sound)

    pauses = [flag for flag, is_speech in list(zip(flags, TRUTH, strict=True))[100:] if not is_speech]
    assert sum(pauses) / len(pauses) <= 0.1
