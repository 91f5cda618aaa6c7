"""Sound that can be found again, and finding it."""

from __future__ import annotations

import random
from array import array

__all__ = ["FADE_FRAMES", "found_frames", "hiss", "loudest", "place"]

FADE_FRAMES = 120
"""Frames at the start of an item that are faded in: 5 ms at 24 kHz."""
_KEY_FRAMES = 24


def hiss(n_frames: int, seed: int) -> bytes:
    """Noise: no stretch of it is like another, so each sample has one place."""
    source = random.Random(seed)
    return array("h", [source.randint(-6000, 6000) for _ in range(n_frames)]).tobytes()


def place(recording: bytes, sound: bytes) -> int:
    """The frame of the recording in which the sound begins; -1 when it is not there."""
    at = recording.find(sound[2 * FADE_FRAMES : 2 * (FADE_FRAMES + _KEY_FRAMES)])
    return at // 2 - FADE_FRAMES if at >= 0 and at % 2 == 0 else -1


def found_frames(recording: bytes, sound: bytes) -> int:
    """How many frames of the sound, from its start, were recorded in order without one missing or changed.

    A busy machine starves a stream for a moment: that gap is passed over, as long as the sound goes on behind it
    where it stopped.
    """
    start = place(recording, sound)
    if start < 0:
        return 0
    at, n_frames = 2 * (start + FADE_FRAMES), FADE_FRAMES
    while 2 * n_frames < len(sound):
        if recording[at : at + 2] == sound[2 * n_frames : 2 * n_frames + 2]:
            n_frames += 1
            at += 2
            continue
        key = sound[2 * n_frames : 2 * (n_frames + _KEY_FRAMES)]
        found = recording.find(key, at)
        if found < 0 or found % 2 or len(key) < 2 * _KEY_FRAMES:
            break
        at = found
    return n_frames


def loudest(recording: bytes) -> int:
    """The largest sample."""
    return max(map(abs, array("h", recording)), default=0)
