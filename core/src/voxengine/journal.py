"""Accepted user audio that has not been answered yet, under one sample index.

What ``send_audio`` accepted is here until its turn is answered (or a recogniser's final transcript
covers it), so that a session which takes over can be given it again. Non-speech that lies more than a
second before the open utterance is let go; ``limit_s`` bounds what remains, and only there ``append``
refuses.
"""

from __future__ import annotations

import array
import sys
from collections import deque
from typing import TYPE_CHECKING, Final

from voxengine.audio.format import AudioFormat
from voxengine.errors import JournalFull

if TYPE_CHECKING:
    from voxengine.audio.vad import Segmenter

__all__ = ["Journal", "first_channel"]

_INDEX_S: Final = 2.0
"""The journal looks for speech only when it holds more than this, so that a short turn costs nothing."""
_KEEP_BEFORE_S: Final = 1.0
"""Non-speech that is kept before an utterance."""
_ONSET_S: Final = 0.3
"""How far back an utterance can have begun that is still too short to be known as one."""
_QUIET_PEAK: Final = 200
"""A block whose sampled peak stays below this (about -44 dBFS) is no speech; saves the segmenter the work."""
_STRIDE: Final = 4
_VENDOR_SILENCE_S: Final = 10.0


class Journal:
    """User audio by sample index. One writer (the engine) and one reader (the session's sender).

    Args:
        audio_format: PCM16; index units are frames of this format.
        limit_s: Seconds that may be held.
    """

    def __init__(self, audio_format: AudioFormat, limit_s: float) -> None:
        self.format = audio_format
        self.limit_s = limit_s
        self._chunks: deque[tuple[int, bytes]] = deque()
        self._start = 0
        self._end = 0
        self._scanned = 0
        self._utterances: deque[tuple[int, int | None]] = deque()
        """Start and end of each that is held; the end of an open one is None."""
        self._segmenter: Segmenter | None = None
        self.vendor_decides = False
        """Whether the vendor finds the turns: then an utterance that it left unanswered for
        ``_VENDOR_SILENCE_S`` was none (a cough, a door) and may go with the silence around it."""

    @property
    def start(self) -> int:
        """Index of the first frame that is held."""
        return self._start

    @property
    def end(self) -> int:
        """Index after the last accepted frame."""
        return self._end

    @property
    def held_s(self) -> float:
        """Seconds that are held."""
        return (self._end - self._start) / self.format.sample_rate

    def find_utterance(self) -> int | None:
        """Return where the earliest unanswered utterance began, None when all that is held is no speech."""
        self._scan()
        return self._utterances[0][0] if self._utterances else None

    def find_onset(self, index: int) -> int:
        """Return from where to hear what may be an utterance that begins before ``index``: that, if all is quiet."""
        first = max(index - int(_ONSET_S * self.format.sample_rate), self._start)
        recent = self.read(first, index - first)
        return index if _is_quiet(first_channel(recent, self.format.channels)) else first

    def ms(self, index: int) -> int:
        """Position of an index in milliseconds."""
        return index * 1000 // self.format.sample_rate

    def append(self, data: bytes, sent: int) -> int:
        """Accept whole frames and return the index of the first.

        Args:
            data: Kept, not copied.
            sent: Index up to which the session has taken the audio; only sent audio is let go.

        Raises:
            JournalFull: There is no room; nothing of ``data`` was accepted.
        """
        n_frames = len(data) // self.format.frame_bytes
        limit = int(self.limit_s * self.format.sample_rate)
        if self._end - self._start + n_frames > min(limit, _INDEX_S * self.format.sample_rate):
            self._let_go_of_silence(sent)
            if self._end - self._start + n_frames > limit:
                raise JournalFull(
                    f"send_audio: {self.held_s:.1f} s of unanswered audio are held and the limit is journal_s="
                    f"{self.limit_s:g}. Nothing of this call was accepted. Wait for an answer, call end_turn(), or "
                    "raise journal_s.",
                    held_s=self.held_s,
                )
        index = self._end
        if n_frames:
            self._chunks.append((index, data))
            self._end += n_frames
        return index

    def read(self, index: int, max_frames: int) -> bytes:
        """Return up to ``max_frames`` from ``index`` on, b"" at the end. Audio before ``start`` is gone."""
        index = max(index, self._start)
        stop = min(self._end, index + max_frames)
        if stop <= index:
            return b""
        size = self.format.frame_bytes
        parts: list[bytes] = []
        for at, data in self._from(index):
            if at >= stop:
                break
            first = max(index - at, 0) * size
            last = (stop - at) * size
            if first == 0 and last >= len(data):
                parts.append(data)
            else:
                parts.append(data[first:last])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def release(self, index: int) -> None:
        """Let go of everything before ``index``; what has been let go stays so."""
        index = min(index, self._end)
        size = self.format.frame_bytes
        while self._chunks and self._chunks[0][0] + len(self._chunks[0][1]) // size <= index:
            self._chunks.popleft()
        self._start = max(self._start, index)
        if self._start > self._scanned:
            self._segmenter = None  # It would count on from where it stopped listening.
            self._utterances.clear()
        while self._utterances and self._utterances[0][0] < self._start:
            _, end = self._utterances.popleft()
            if end is None or end > self._start:
                self._utterances.appendleft((self._start, end))
                break

    def _from(self, index: int) -> list[tuple[int, bytes]]:
        # The reader is nearly always at the tail, so look from there.
        found: list[tuple[int, bytes]] = []
        for at, data in reversed(self._chunks):
            found.append((at, data))
            if at <= index:
                break
        found.reverse()
        return found

    def _let_go_of_silence(self, sent: int) -> None:
        self._scan()
        keep = int(min(_KEEP_BEFORE_S, self.limit_s / 2) * self.format.sample_rate)
        anchor = self._utterances[0][0] if self._utterances else self._scanned
        self.release(max(self._start, min(anchor - keep, sent)))

    def _scan(self) -> None:
        """Look for speech in what has not been looked at."""
        self._scanned = max(self._scanned, self._start)
        data = self.read(self._scanned, self._end - self._scanned)
        if not data:
            return
        mono = first_channel(data, self.format.channels)
        base, self._scanned = self._scanned, self._end
        if self._segmenter is None:
            if _is_quiet(mono):
                return
            from voxengine.audio.vad import Segmenter

            self._segmenter = Segmenter(self.format.sample_rate)
            self._segmenter.reset(base)
        for event in self._segmenter.push(mono):
            if event.kind == "start":
                self._utterances.append((max(event.padded_index, self._start), None))
            elif self._utterances and self._utterances[-1][1] is None:
                self._utterances[-1] = (self._utterances[-1][0], event.sample_index)
        if self._segmenter.in_speech:
            return
        last = self._utterances[-1][1] if self._utterances else None
        if self.vendor_decides and self._scanned - (last or 0) > _VENDOR_SILENCE_S * self.format.sample_rate:
            self._utterances.clear()
        if not self._utterances and _is_quiet(mono):
            self._segmenter = None  # Start afresh at the next sound.


def first_channel(data: bytes, channels: int) -> bytes:
    """Return the first channel of interleaved PCM16."""
    if channels == 1:
        return data
    samples = array.array("h", data)
    return samples[::channels].tobytes()


def _is_quiet(mono: bytes) -> bool:
    samples = array.array("h", mono)
    if sys.byteorder == "big":
        samples.byteswap()
    some = samples[::_STRIDE]
    return not some or (max(some) < _QUIET_PEAK and min(some) > -_QUIET_PEAK)
