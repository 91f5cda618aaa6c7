"""Sounds that the audio tests share. Everything is PCM16 mono and the same on every run."""

from __future__ import annotations

import math
import random
from array import array


def pcm16(values: list[float]) -> bytes:
    """Round and clip values in int16 units to bytes; the tests run on little-endian machines."""
    return array("h", [max(-32768, min(32767, round(value))) for value in values]).tobytes()


def tone(sample_rate: int, hz: float, n_frames: int, level_db: float = -20.0) -> bytes:
    """Return a sine whose root mean square is ``level_db`` relative to 32768."""
    amplitude = 32768.0 * math.sqrt(2.0) * 10.0 ** (level_db / 20.0)
    step = 2.0 * math.pi * hz / sample_rate
    return pcm16([amplitude * math.sin(step * n + 0.3) for n in range(n_frames)])


def noise(n_frames: int, level_db: float, seed: int = 1) -> bytes:
    """Return white noise whose root mean square is ``level_db`` relative to 32768."""
    source = random.Random(seed)
    deviation = 32768.0 * 10.0 ** (level_db / 20.0)
    return pcm16([source.gauss(0.0, deviation) for _ in range(n_frames)])


def silence(n_frames: int) -> bytes:
    return bytes(2 * n_frames)


def spoken(sample_rate: int, n_frames: int, level_db: float = -22.0, pitch_hz: float = 130.0) -> bytes:
    """Return something like speech: harmonics of a gliding pitch, in syllables of 200 ms with 40 ms dips."""
    amplitude = 32768.0 * 10.0 ** (level_db / 20.0)
    values = []
    for n in range(n_frames):
        t = n / sample_rate
        phase = 2.0 * math.pi * (pitch_hz * t + 1.5 * math.sin(2.0 * math.pi * 0.7 * t))
        voice = sum(math.sin(k * phase) / k for k in range(1, 7))
        in_syllable = (t % 0.2) / 0.2
        envelope = 0.01 if in_syllable > 0.8 else math.sin(math.pi * in_syllable / 0.8) ** 0.5
        values.append(amplitude * 1.4 * envelope * voice)
    return pcm16(values)


def mixed(first: bytes, second: bytes) -> bytes:
    """Return the sum of two stretches of the same length."""
    pairs = zip(array("h", first), array("h", second), strict=True)
    return pcm16([float(a + b) for a, b in pairs])


def pieces(data: bytes, sizes: list[int], frame_bytes: int = 2) -> list[bytes]:
    """Cut ``data`` into pieces of the given numbers of frames, again and again, until it is used up."""
    result = []
    at = turn = 0
    while at < len(data):
        size = sizes[turn % len(sizes)] * frame_bytes
        result.append(data[at : at + size])
        at += size
        turn += 1
    return result
