"""What echo cancelling and a neural detector cost and do, for those of them that are installed.

In a synthetic room, with eSpeak NG's voice where that is installed: pip install 'voxengine-mock[espeak]'.
"""

# ruff: noqa: E402 - the room is a tool of the tests, which are found from the root alone.

from __future__ import annotations

import functools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
from _measure import Row, main

from tests.plugins.audio_processors.scenes import (
    Room,
    Sound,
    Talk,
    area,
    at_level,
    clicks,
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
from voxengine.audio.detectors import load_detector
from voxengine.audio.format import AudioFormat
from voxengine.audio.processors import EchoReference, ProcessorChain, load_processor
from voxengine.audio.vad import EnergyVad, VoiceDetector
from voxengine_audio_processors import SileroDetector

TITLE = "Echo, noise and voice: the processors that are installed"
RATE = 24_000
FORMAT = AudioFormat(RATE)
SECONDS = 15
ROUNDS = 5


def _chain_us(name: str, audio_format: AudioFormat) -> float:
    """Return CPU microseconds of 10 ms through a chain with its reference."""
    reference = EchoReference(audio_format)
    chain = ProcessorChain([load_processor(name, audio_format)], audio_format, reference)
    rate = audio_format.sample_rate
    blocks = [pcm16(at_level(pink(rate // 50, seed), -30.0)) for seed in range(50)]
    times = []
    for _ in range(ROUNDS + 1):
        started = time.process_time_ns()
        for block in blocks:
            reference.push(block)
            chain.process(block)
        times.append((time.process_time_ns() - started) / len(blocks) / 2e3)
    if chain.failed:
        raise RuntimeError(chain.failed[0])
    return statistics.median(times[1:])


def _detector_us(detector: VoiceDetector, rate: int) -> float:
    """Return CPU microseconds of 20 ms."""
    data = talk(rate).in_noise(pink, 10.0)[: 2 * rate * 4]
    times = []
    for _ in range(ROUNDS + 1):
        started = time.process_time_ns()
        detector.push(data)
        times.append((time.process_time_ns() - started) / (len(data) / 2 / rate * 50) / 1e3)
    return statistics.median(times[1:])


def _echo(name: str, *, told_ms: int = 40, **scene: float) -> tuple[float, float]:
    """Return the reduction from the 1st to the 3rd second, and after 10."""
    made = room(
        RATE, seconds=SECONDS, delay_ms=int(scene.get("delay_ms", 40)), drift_ppm=scene.get("ppm", 0.0)
    )
    left = through(load_processor(name, FORMAT), made, told_ms=told_ms)
    return reduction_db(made, left[: 3 * RATE], from_s=1), reduction_db(made, left, from_s=10)


def _interrupting(name: str, make: Callable[[], VoiceDetector]) -> tuple[float, float]:
    """Return how much of the agent's echo is taken for speech, and how much of a user who speaks beside it."""
    scene, user = room(RATE, seconds=20), talk(RATE)
    n_block, start = RATE // 50, 5 * RATE
    near = np.zeros(len(scene.echo))
    near[start:] = user.sound[: len(near) - start]
    n_blocks = len(near) // n_block
    truth = np.concatenate((np.zeros(start // n_block, bool), user.truth))[:n_blocks]

    def flags(sound: Sound | None) -> Sound:
        left = pcm16(through(load_processor(name, FORMAT), scene, sound, told_ms=40))
        return scores(make(), left, float, n_blocks)[150:]

    return float(np.mean(flags(None))), float(np.mean(flags(near)[truth[150:]]))


def _noise_db(name: str) -> float:
    noise = at_level(pink(8 * RATE), -45.0)
    left = through(
        load_processor(name, FORMAT), Room(RATE, np.zeros(len(noise)), np.zeros(len(noise))), noise
    )
    return level_db(noise[5 * RATE :]) - level_db(left[5 * RATE :])


def _webrtc() -> list[Row]:
    rows = []
    nothing = _chain_us("null", FORMAT)
    for name in ("webrtc-echo", "webrtc-noise", "webrtc", "webrtc-gain"):
        us = _chain_us(name, FORMAT)
        note = f"{us:.0f} us, {us / 100:.1f} % of a core; {us / nothing:.0f} times a chain of nothing"
        rows.append(Row(f"{name}: cost of 10 ms over 10 ms", us / 1e4, "", None, note))
    for rate in (16_000, 48_000):
        us = _chain_us("webrtc", AudioFormat(rate))
        rows.append(Row(f"webrtc at {rate // 1000} kHz, 10 ms", us, "us"))
    for name in ("webrtc-echo", "webrtc"):
        for label, told, scene in (
            ("delay 40 ms, told", 40, {}),
            ("delay 180 ms, told 0", 0, {"delay_ms": 180}),
            ("clocks 300 ppm apart", 40, {"ppm": 300.0}),
        ):
            soon, settled = _echo(name, told_ms=told, **scene)
            rows.append(
                Row(f"{name}: echo reduced, {label}", settled, "dB", None, f"{soon:.0f} dB in seconds 1 to 3")
            )
    names = ("webrtc-noise", "webrtc-gain")
    return rows + [Row(f"{name}: pink noise at -45 dB reduced", _noise_db(name), "dB") for name in names]


def _area(talked: Talk, sound: bytes, detector: VoiceDetector, score: Callable[[bool], float]) -> float:
    # The first two seconds are for the energy detector's floor to be found.
    found = scores(detector, sound, score, len(talked.truth))
    return area(found[100:], talked.truth[100:])


def _above_floor(vad: EnergyVad, flag: bool) -> float:
    return vad.level_db - vad.floor_db


def _probability(vad: SileroDetector, flag: bool) -> float:
    return vad.probability


def _silero() -> list[Row]:
    energy_us, silero_us = (_detector_us(load_detector(name, RATE), RATE) for name in ("energy", "silero"))
    note = f"{silero_us:.0f} us, {silero_us / 200:.1f} % of a core; {silero_us / energy_us:.1f} times energy"
    rows = [Row("silero: cost of 20 ms over 20 ms", silero_us / 2e4, "", None, note)]
    talked = talk(RATE)
    for label, make, snr_db in (
        ("pink noise 10 dB below", pink, 10.0),
        ("white noise 10 dB below", white, 10.0),
        ("key clicks 10 dB below", functools.partial(clicks, sample_rate=RATE), 10.0),
        ("pink noise as loud", pink, 0.0),
    ):
        sound, energy, silero = talked.in_noise(make, snr_db), EnergyVad(RATE), SileroDetector(RATE)
        by_level = _area(talked, sound, energy, functools.partial(_above_floor, energy))
        by_sound = _area(talked, sound, silero, functools.partial(_probability, silero))
        rows.append(Row(f"silero: area, {label}", by_sound, "", None, f"energy: {by_level:.3f}"))
    return rows


def run() -> list[Row]:
    """Measure."""
    us = _chain_us("null", FORMAT)
    rows = [
        Row("chain of nothing, 10 ms", us, "us", None, "" if has_webrtc() else "livekit is not installed")
    ]
    detectors = ["energy", *(["silero"] if has_silero() else [])]
    if has_webrtc():
        rows += _webrtc()
        for name in ("null", "webrtc-echo", "webrtc"):
            for detector in detectors:
                alarms, hits = _interrupting(name, functools.partial(load_detector, detector, RATE))
                label = f"{name}, {detector}: of the agent's echo taken for speech"
                note = "" if name == "null" else f"of a user beside it: {100 * hits:.0f} %"
                rows.append(Row(label, 100 * alarms, "%", None, note))
    return rows + (_silero() if has_silero() else [])


if __name__ == "__main__":
    sys.exit(main(TITLE, run))
