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

_QUIET_S: Final = 2.0
"""From when on the journal looks whether all that it holds is quiet, a second at a time."""
_INDEX_S: Final = 10.0
"""From when on it looks for utterances. A turn that is answered before costs nothing."""
_LOOK_S: Final = 1.0
_KEEP_BEFORE_S: Final = 1.0
"""Non-speech that is kept before an utterance."""
_ONSET_S: Final = 0.3
"""How far back an utterance can have begun that is still too short to be known as one."""
_QUIET_HIGH_BYTES: Final = b"\x00\xff"
"""The upper byte of a sample below 256, about -42 dBFS."""
_QUIET_WINDOW_S: Final = 0.1
_QUIET_PART: Final = 0.04
"""Part of a window that may be louder and yet no speech: speech at the ear's threshold is so for 10 ms in 100,
clicks for less."""
_MEASURED_RATE: Final = 6_000
"""Samples per second that are enough to tell how loud it is."""
_VENDOR_SILENCE_S: Final = 10.0


class Journal:
    """User audio by sample index. One writer (the engine) and one reader (the session's sender).

    Args:
        audio_format: What the engine takes; G.711 is decoded before it comes here. Index units are its frames.
        limit_s: Seconds that may be held.
    """

    __slots__ = (
        "__dict__",  # For a recorder, which puts itself before a method.
        "_chunks",
        "_heard_from",
        "_least_room",
        "_limit",
        "_room",
        "_scanned",
        "_segmenter",
        "_step",
        "_utterances",
        "accepts",
        "end",
        "format",
        "frame_bytes",
        "limit_s",
        "start",
        "vendor_decides",
    )

    def __init__(self, audio_format: AudioFormat, limit_s: float) -> None:
        self.accepts = audio_format
        """What the engine takes."""
        self.format = audio_format.as_pcm16
        """What is held."""
        self.limit_s = limit_s
        self.frame_bytes = self.format.frame_bytes
        self._limit = int(limit_s * audio_format.sample_rate)
        self._room = self._least_room = min(self._limit, int(_QUIET_S * audio_format.sample_rate))
        """Frames that may be held before the journal looks again."""
        self._step = max(1, audio_format.sample_rate // _MEASURED_RATE)
        self._chunks: deque[tuple[int, bytes]] = deque()
        self.start = 0
        """Index of the first frame that is held."""
        self.end = 0
        """Index after the last accepted frame."""
        self._scanned = 0
        self._utterances: deque[tuple[int, int | None]] = deque()
        """Start and end of each that is held; the end of an open one is None."""
        self._segmenter: Segmenter | None = None
        self._heard_from = 0
        """Index at which the segmenter began to listen."""
        self.vendor_decides = False
        """Whether the vendor finds the turns: then an utterance that it left unanswered for
        ``_VENDOR_SILENCE_S`` was none (a cough, a door) and may go with the silence around it."""

    @property
    def held_s(self) -> float:
        """Seconds that are held."""
        return (self.end - self.start) / self.format.sample_rate

    def find_utterance(self) -> int | None:
        """Return where the earliest unanswered utterance began, None when all that is held is no speech."""
        self._scan()
        return self._utterances[0][0] if self._utterances else None

    def utterances(self) -> list[tuple[int, int | None]]:
        """Return start and end of each utterance that is held, oldest first; the end of an open one is None."""
        self._scan()
        return list(self._utterances)

    def first_sound(self, index: int) -> int:
        """Return from where to hear what is not silence at or behind ``index``; the end, if all is quiet."""
        rate = self.format.sample_rate
        window = int(_QUIET_WINDOW_S * rate)
        index = at = max(index, self.start)
        while at < self.end:
            if not self._is_quiet(first_channel(self.read(at, window), self.format.channels)):
                return max(at - int(_ONSET_S * rate), index)
            at += window
        return self.end

    def stand_in(self) -> bytes:
        """Return what may stand for the audio: as long, loud from where its first sound is, and nothing else of it."""
        first = self.first_sound(self.start)
        if first not in (self.start, self.end):
            first += int(_ONSET_S * self.format.sample_rate)
        n_quiet = first - self.start
        loud = b"\x00\x40" * self.format.channels
        return bytes(n_quiet * self.frame_bytes) + loud * (self.end - self.start - n_quiet)

    def is_quiet(self, start: int, end: int) -> bool:
        """Return whether nobody speaks between two indices."""
        return self._is_quiet(first_channel(self.read(start, max(end - start, 0)), self.format.channels))

    def find_onset(self, index: int) -> int:
        """Return from where to hear what may be an utterance that begins before ``index``: that, if all is quiet."""
        first = max(index - int(_ONSET_S * self.format.sample_rate), self.start)
        recent = self.read(first, index - first)
        return index if self._is_quiet(first_channel(recent, self.format.channels)) else first

    def ms(self, index: int) -> int:
        """Position of an index in milliseconds."""
        return index * 1000 // self.format.sample_rate

    def begin_at(self, index: int, data: bytes) -> None:
        """Go on where another journal was: with its audio that waits for an answer. Only before anything is accepted."""
        self.start = self._scanned = index
        self.end = index + len(data) // self.frame_bytes
        if data:
            self._chunks.append((index, data))

    def append(self, data: bytes, sent: int) -> int:
        """Accept whole frames and return the index of the first.

        Args:
            data: Kept, not copied.
            sent: Index up to which the session has taken the audio; only sent audio is let go.

        Raises:
            JournalFull: There is no room; nothing of ``data`` was accepted.
        """
        n_frames = len(data) // self.frame_bytes
        index = self.end
        if index + n_frames - self.start > self._room:
            self._make_room(n_frames, sent)
        if n_frames:
            self._chunks.append((index, data))
            self.end = index + n_frames
        return index

    def _make_room(self, n_frames: int, sent: int) -> None:
        self._let_go_of_silence(sent, until=self._limit - n_frames)
        if self.end - self.start + n_frames > self._limit:
            self._release_before_speech(sent, 0)
        held = self.end - self.start
        if held + n_frames > self._limit:
            raise JournalFull(
                f"send_audio got {n_frames / self.format.sample_rate:.2f} s, {self.held_s:.1f} s of unanswered audio "
                f"are held, and the limit is journal_s={self.limit_s:g}. Nothing of this call was accepted. Send less at "
                "once, wait for an answer, call end_turn(), or raise journal_s.",
                held_s=self.held_s,
            )
        self._room = min(held + n_frames + int(_LOOK_S * self.format.sample_rate), self._limit)

    def read(self, index: int, max_frames: int) -> bytes:
        """Return up to ``max_frames`` from ``index`` on, b"" at the end. Audio before ``start`` is gone."""
        if self._chunks:
            at, data = self._chunks[-1]
            if (
                at == index >= self.start and at + max_frames >= self.end
            ):  # The newest chunk, as it nearly always is.
                return data
        index = max(index, self.start)
        stop = min(self.end, index + max_frames)
        if stop <= index:
            return b""
        size = self.frame_bytes
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
        index = min(index, self.end)
        size = self.frame_bytes
        while self._chunks and self._chunks[0][0] + len(self._chunks[0][1]) // size <= index:
            self._chunks.popleft()
        self.start = max(self.start, index)
        self._room = self._least_room
        if self.start > self._scanned:
            self._segmenter = None  # It would count on from where it stopped listening.
            self._utterances.clear()
        while self._utterances and self._utterances[0][0] < self.start:
            _, end = self._utterances.popleft()
            if end is None or end > self.start:
                self._utterances.appendleft((self.start, end))
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

    def _let_go_of_silence(self, sent: int, until: int) -> None:
        """Let go of sent non-speech. Where somebody speaks that takes work, and is put off while there is room."""
        rate = self.format.sample_rate
        if self._segmenter is None and self.end - self.start < min(_INDEX_S * rate, self._limit / 3, until):
            first = max(self._scanned, self.start)
            if not self._is_quiet(first_channel(self.read(first, self.end - first), self.format.channels)):
                return
            self._scanned = self.end
        else:
            self._scan()
        self._release_before_speech(sent, int(min(_KEEP_BEFORE_S, self.limit_s / 2) * rate))

    def _release_before_speech(self, sent: int, keep: int) -> None:
        anchor = self._utterances[0][0] if self._utterances else self._scanned
        self.release(max(self.start, min(anchor - keep, sent)))

    def _scan(self) -> None:
        """Look for speech in what has not been looked at."""
        first = max(self._scanned, self.start)
        mono, n_frames = self._whole_steps(first)
        if not n_frames:
            self._scanned = first
            return
        if self._segmenter is None:
            if self._is_quiet(mono):
                self._scanned = first + n_frames
                return
            from voxengine.audio.vad import Segmenter

            self._segmenter = Segmenter(self.format.sample_rate // self._step)
            # A little before, so that it can tell of the onset.
            first = self._heard_from = max(first - int(_ONSET_S * self.format.sample_rate), self.start)
            mono, n_frames = self._whole_steps(first)
        self._scanned = first + n_frames
        base, step = self._heard_from, self._step
        for event in self._segmenter.push(array.array("h", mono)[::step].tobytes()):
            if event.kind == "start":
                self._utterances.append((max(base + event.padded_index * step, self.start), None))
            elif self._utterances and self._utterances[-1][1] is None:
                self._utterances[-1] = (self._utterances[-1][0], base + event.sample_index * step)
        if self._segmenter.in_speech:
            return
        last = self._utterances[-1][1] if self._utterances else None
        if self.vendor_decides and self._scanned - (last or 0) > _VENDOR_SILENCE_S * self.format.sample_rate:
            self._utterances.clear()
        if not self._utterances and self._is_quiet(mono):
            self._segmenter = None  # Start afresh at the next sound.

    def _whole_steps(self, first: int) -> tuple[bytes, int]:
        """Return the first channel from an index on, and its length: a multiple of the step, of two bytes each."""
        n_frames = (self.end - first) // self._step * self._step
        data = self.read(first, n_frames)[: n_frames * self.frame_bytes] if n_frames > 0 else b""
        return first_channel(data, self.format.channels), max(n_frames, 0)

    def _is_quiet(self, mono: bytes) -> bool:
        """Return whether nobody speaks, from how many samples of each window are loud: cheap and sure to miss none."""
        high = mono[1 :: 2 * self._step] if sys.byteorder == "little" else mono[:: 2 * self._step]
        n = max(int(_QUIET_WINDOW_S * self.format.sample_rate) // self._step, 1)
        for at in range(0, len(high), n):
            window = high[at : at + n]
            if len(window.translate(None, _QUIET_HIGH_BYTES)) > _QUIET_PART * n:
                return False
        return True


def first_channel(data: bytes, channels: int) -> bytes:
    """Return the first channel of interleaved PCM16."""
    if channels == 1:
        return data
    samples = array.array("h", data)
    return samples[::channels].tobytes()
