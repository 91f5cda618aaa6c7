"""Voice activity by energy, and the segmentation into utterances by this or another detector, without numpy.

Levels are the root mean square of a block in dB relative to 32768, its constant offset removed: a sine of
full scale is at -3 dB. Everything runs on a fixed grid of blocks counted from the first sample, so results
depend on the samples alone, never on how they were cut. Not thread-safe: one stream, one object.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections import deque
from operator import mul
from typing import Final, Literal, Protocol, runtime_checkable

import attrs

from voxengine.audio.format import AudioFormat
from voxengine.errors import ConfigError

__all__ = ["EnergyVad", "SegmentEvent", "Segmenter", "VoiceDetector", "threshold_to_db"]

SILENCE_DB: Final = -100.0
"""The level reported for a block without any variation."""
LOUD_DB: Final = -30.0
"""From here up a block is speech whatever the noise."""

_MARGIN_DB: Final = 9.0
_HYSTERESIS_DB: Final = 3.0
_FULL_SCALE_POWER: Final = 32768.0**2
_FLOOR_PART_MS: Final = 200
_FLOOR_PARTS: Final = 8
_SAMPLED_RATE: Final = 24_000
_MAX_GAP_MS: Final = 30
_RESUME_MS: Final = 20


def threshold_to_db(threshold: float) -> float:
    """Map a detection threshold from 0 to 1 onto a level: -60 dB at 0, -45 at 0.5, -30 at 1.

    Close speech is at -35 to -15 dB and a quiet room with an open microphone at -70 to -50.

    Raises:
        ConfigError: The threshold is not from 0 to 1.
    """
    if not 0.0 <= threshold <= 1.0:
        raise ConfigError(f"threshold is {threshold!r}; it is from 0 to 1.")
    return -60.0 + 30.0 * threshold


@runtime_checkable
class VoiceDetector(Protocol):
    """Tells speech from the rest of a stream of PCM16 mono, frame by frame. One object for one stream, called
    from one thread: on the loop, so that a frame may take a small part of its own length.
    """

    @property
    def frame_samples(self) -> int:
        """Samples per frame, always the same: 10 to 60 ms."""

    def push(self, data: bytes) -> list[bool]:
        """Take audio of any length and return, for each frame that it completes, whether it is speech."""

    def drop_partial(self) -> None:
        """Drop the samples of the unfinished frame: the next sample begins one."""

    def reset(self) -> None:
        """Forget the stream."""


class EnergyVad:
    """Tell loud from quiet, block by block, against a noise floor that is tracked.

    A block is speech when its level reaches ``threshold_db`` and also lies 9 dB above the floor or at -30 dB
    or more; after speech 3 dB less is enough. The floor is the smallest level of the last 1.4 to 1.6 s, and
    -100 dB until that much was heard, so the first block is judged by ``threshold_db`` alone. Steady noise
    below -30 dB thus stops being speech after 1.6 s; steady noise above never does.

    Args:
        sample_rate: In hertz. Above 24 kHz every second, third ... sample is measured.
        threshold_db: Level below which nothing is speech.
        frame_ms: Length of a block.

    Raises:
        AudioFormatError: The rate is out of range.
        ConfigError: ``frame_ms`` is not from 1 to 200, or ``threshold_db`` not from -100 to 0.

    Costs about 20 us of pure Python per 20 ms at 24 kHz.
    """

    def __init__(self, sample_rate: int, *, threshold_db: float = -45.0, frame_ms: int = 10) -> None:
        if not 1 <= frame_ms <= _FLOOR_PART_MS:
            raise ConfigError(f"frame_ms is {frame_ms!r}; it is from 1 to {_FLOOR_PART_MS}.")
        if not SILENCE_DB <= threshold_db <= 0.0:
            raise ConfigError(f"threshold_db is {threshold_db!r}; it is from {SILENCE_DB:g} to 0.")
        self._format = AudioFormat(sample_rate=sample_rate)
        self.threshold_db = threshold_db
        self.frame_samples = sample_rate * frame_ms // 1000
        """Samples per block."""
        self._frame_bytes = self.frame_samples * self._format.frame_bytes
        self._stride = max(1, sample_rate // _SAMPLED_RATE)
        self._part_frames = _FLOOR_PART_MS // frame_ms
        self._mins: deque[float] = deque(maxlen=_FLOOR_PARTS - 1)
        self.reset()

    def reset(self) -> None:
        """Forget the stream and the noise floor."""
        self._rest = b""
        self._mins.extend([SILENCE_DB] * (_FLOOR_PARTS - 1))
        self._part_min = 0.0
        self._n_in_part = 0
        self.floor_db = SILENCE_DB
        """The tracked noise floor."""
        self.level_db = SILENCE_DB
        """Level of the last whole block."""
        self.is_speech = False
        """Whether the last whole block is speech."""

    def push(self, data: bytes) -> list[bool]:
        """Take PCM16 mono of any length and return, for each block that it completes, whether it is speech.

        Raises:
            AudioFormatError: An odd number of bytes; nothing was taken.
        """
        self._format.check_aligned(len(data), "EnergyVad.push")
        if self._rest:
            data = self._rest + data
        size = self._frame_bytes
        n_whole = len(data) // size * size
        self._rest = data[n_whole:]
        return [self._judge(data[at : at + size]) for at in range(0, n_whole, size)]

    def drop_partial(self) -> None:
        """Drop the samples of the unfinished block: the next sample begins a block. The floor stays."""
        self._rest = b""

    def _judge(self, block: bytes) -> bool:
        level = self.level_db = _level_db(block, self._stride)
        needed = max(self.threshold_db, min(self.floor_db + _MARGIN_DB, LOUD_DB))
        if self.is_speech:
            needed -= _HYSTERESIS_DB
        self.is_speech = level >= needed
        self._track(level)
        return self.is_speech

    def _track(self, level: float) -> None:
        self._part_min = min(self._part_min, level)
        self._n_in_part += 1
        self.floor_db = min(self.floor_db, level)
        if self._n_in_part == self._part_frames:
            self.floor_db = min(*self._mins, self._part_min)
            self._mins.append(self._part_min)
            self._part_min = 0.0
            self._n_in_part = 0


def _level_db(block: bytes, stride: int) -> float:
    samples = array("h", block)
    if sys.byteorder == "big":
        samples.byteswap()
    values = samples[::stride].tolist() if stride > 1 else samples.tolist()
    n = len(values)
    # Integers throughout: the variance is exact, so no platform rounds it otherwise.
    variance = n * sum(map(mul, values, values)) - sum(values) ** 2
    if not variance:
        return SILENCE_DB
    return max(SILENCE_DB, 10.0 * math.log10(variance / (n * n * _FULL_SCALE_POWER)))


@attrs.frozen
class SegmentEvent:
    """An utterance began or ended. Indexes count samples from the base given to :meth:`Segmenter.reset`."""

    kind: Literal["start", "end"]
    sample_index: int
    """First sample of the utterance, or the first after it; on the grid of the detector's blocks, 10 ms for energy."""
    decided_at: int
    """Samples that had to be heard for the decision."""
    padded_index: int
    """Of a start: ``sample_index`` less the prefix padding, not before the base or the last utterance's end.
    Of an end: ``sample_index``."""


class Segmenter:
    """Cut a stream of PCM16 mono into utterances.

    An utterance starts once ``min_speech_ms`` of speech were heard with no gap over 30 ms, and ends once
    ``silence_ms`` without speech followed; a lone block of 10 ms does not prolong one. Digital silence and
    noise below -63 dB are silence and sound above -30 dB is speech, from the first sample on and whatever the
    threshold. With another detector than energy, that one says what speech is, and its frames are the blocks.

    Args:
        sample_rate: In hertz.
        threshold: From 0 (catches a whisper) to 1 (close and loud only); see :func:`threshold_to_db`. Without
            effect when a detector is given.
        prefix_padding_ms: How far ``padded_index`` lies before the start.
        silence_ms: Pause that ends an utterance.
        min_speech_ms: Shorter sounds are ignored.
        detector: Made for this rate and used by nobody else; None: an :class:`EnergyVad`.

    Raises:
        AudioFormatError: The rate is out of range.
        ConfigError: Another value is.
    """

    def __init__(
        self,
        sample_rate: int,
        *,
        threshold: float = 0.5,
        prefix_padding_ms: int = 300,
        silence_ms: int = 500,
        min_speech_ms: int = 60,
        detector: VoiceDetector | None = None,
    ) -> None:
        threshold_db = threshold_to_db(threshold)
        self._vad: VoiceDetector = detector or EnergyVad(sample_rate, threshold_db=threshold_db)
        limits = (
            ("prefix_padding_ms", prefix_padding_ms, 0),
            ("silence_ms", silence_ms, 10),
            ("min_speech_ms", min_speech_ms, 10),
        )
        for name, value, least in limits:
            if not least <= value <= 60_000:
                raise ConfigError(f"{name} is {value!r}; it is from {least} to 60000.")
        self.sample_rate = sample_rate
        self._format = AudioFormat(sample_rate=sample_rate)
        self._frame = self._vad.frame_samples
        self._prefix = prefix_padding_ms * sample_rate // 1000
        self._n_end = self._n_blocks(silence_ms)
        self._n_start = self._n_blocks(min_speech_ms)
        self._n_gap = self._n_blocks(_MAX_GAP_MS)
        self._n_resume = min(self._n_blocks(_RESUME_MS), self._n_start)
        self.reset()

    def _n_blocks(self, ms: int) -> int:
        return -(-ms * self.sample_rate // (1000 * self._frame))

    @property
    def in_speech(self) -> bool:
        """Whether an utterance is open: a start was returned, its end not yet."""
        return self._in_speech

    @property
    def n_pushed(self) -> int:
        """Samples taken since construction or the last ``reset``."""
        return self._n_pushed

    def reset(self, base_index: int = 0) -> None:
        """Forget everything; the next sample has the index ``base_index``."""
        self._vad.reset()
        self._base = base_index
        self._n_pushed = 0
        self._earliest = base_index
        self._settle(base_index)

    def _settle(self, at: int) -> None:
        """Be outside an utterance, with block boundaries counted from ``at``."""
        self._at = at
        self._in_speech = False
        self._onset: int | None = None
        self._n_speech = 0
        self._n_silent = 0
        self._n_run = 0
        self._speech_end = at

    def push(self, data: bytes) -> list[SegmentEvent]:
        """Take PCM16 mono of any length and return what it decides, in order.

        Raises:
            AudioFormatError: An odd number of bytes; nothing was taken.
        """
        self._format.check_aligned(len(data), "Segmenter.push")
        flags = self._vad.push(data)
        self._n_pushed += len(data) // 2
        events: list[SegmentEvent] = []
        for is_speech in flags:
            self._at += self._frame
            event = self._continue(is_speech) if self._in_speech else self._wait(is_speech)
            if event is not None:
                events.append(event)
        return events

    def flush(self) -> list[SegmentEvent]:
        """End an open utterance, at its last sample or where its speech ended. What the detector knows is kept.

        A sound still shorter than ``min_speech_ms`` is dropped. Blocks are counted anew from the next sample.
        """
        now = self._base + self._n_pushed
        events = [self._end(now if not self._n_silent else self._speech_end, now)] if self._in_speech else []
        self._vad.drop_partial()
        self._settle(now)
        return events

    def _wait(self, is_speech: bool) -> SegmentEvent | None:
        if is_speech:
            if self._onset is None:
                self._onset = self._at - self._frame
            self._n_speech += 1
            self._n_silent = 0
        elif self._onset is not None:
            self._n_silent += 1
            if self._n_silent > self._n_gap:
                self._onset = None
                self._n_speech = 0
        if self._onset is None or self._n_speech < self._n_start:
            return None
        self._in_speech = True
        self._n_silent = 0
        self._n_run = self._n_resume
        self._speech_end = self._at
        padded = max(self._earliest, self._onset - self._prefix)
        return SegmentEvent("start", self._onset, self._at, padded)

    def _continue(self, is_speech: bool) -> SegmentEvent | None:
        self._n_run = self._n_run + 1 if is_speech else 0
        if self._n_run >= self._n_resume:
            self._n_silent = 0
            self._speech_end = self._at
            return None
        # Speech of a single block counts as silence until a second one confirms it: a key click.
        self._n_silent += 1
        if self._n_silent < self._n_end:
            return None
        event = self._end(self._speech_end, self._at)
        self._settle(self._at)
        return event

    def _end(self, sample_index: int, decided_at: int) -> SegmentEvent:
        self._earliest = sample_index
        return SegmentEvent("end", sample_index, decided_at, sample_index)
