"""Audio from and to memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from voxengine.audio.backends.base import Pacing
from voxengine.audio.backends.paced import NullSink, PacedBackend
from voxengine.audio.format import AudioFormat
from voxengine.audio.pcm import to_int16

__all__ = ["ArrayBackend", "ArraySource"]


class ArraySource:
    """What :meth:`ArrayBackend.feed` was given and what was not read yet."""

    def __init__(self, audio_format: AudioFormat) -> None:
        self.format = audio_format
        self._lock = threading.Lock()
        self._pieces: deque[bytes] = deque()
        self._n_held = 0
        self._n_read = 0
        """Bytes of the first piece that were read."""
        self._is_ended = False
        self._wake: Callable[[], None] = lambda: None

    def feed(self, data: Any) -> None:
        """Append audio; see :func:`~voxengine.audio.pcm.to_int16` for what it may be.

        Raises:
            AudioFormatError: It is something else, or no whole number of frames.
        """
        piece = to_int16(data, "ArrayBackend.feed")
        self.format.check_aligned(len(piece), "ArrayBackend.feed")
        if piece:
            with self._lock:
                self._pieces.append(piece)
                self._n_held += len(piece)
            self._wake()

    def end(self) -> None:
        """Say that no more follows."""
        self._is_ended = True
        self._wake()

    def read(self, n_frames: int) -> bytes | None:
        """Return the next frames; a short block only at the end, else None."""
        size = n_frames * self.format.frame_bytes
        out = bytearray()
        with self._lock:
            if self._n_held < size and not self._is_ended:
                return None
            while self._pieces and len(out) < size:
                piece = self._pieces[0]
                stop = min(self._n_read + size - len(out), len(piece))
                out += piece[self._n_read : stop]
                self._n_read = stop
                if stop == len(piece):
                    self._pieces.popleft()
                    self._n_read = 0
            self._n_held -= len(out)
        return bytes(out)

    def connect(self, wake: Callable[[], None]) -> None:
        """Remember whom to tell of new audio."""
        self._wake = wake

    def close(self) -> None:
        """Keep what was not read: a stream that is opened later goes on with it."""
        self._wake = lambda: None


class _Recording(NullSink):
    """Appends to the backend's ``played``."""

    def __init__(self, played: bytearray) -> None:
        self._played = played

    def write(self, block: bytes) -> None:
        self._played += block


class ArrayBackend(PacedBackend):
    """A microphone that is fed by the program and a loudspeaker that remembers what it played.

    Args:
        input_format: What :meth:`feed` takes.
        pacing: See :data:`~voxengine.audio.backends.base.Pacing`.
    """

    def __init__(self, input_format: AudioFormat | None = None, *, pacing: Pacing = "real") -> None:
        self._source = ArraySource(input_format or AudioFormat())
        self.played = bytearray()
        """Everything that was played, with its silences, in ``output_format``."""
        self.output_format: AudioFormat | None = None
        """What the output was opened with; None before."""
        super().__init__("array", lambda _: (self._source, self._source.format), self._sink, pacing)

    def feed(self, data: Any) -> None:
        """Append what the microphone is to hear; from the loop or another thread."""
        self._source.feed(data)

    def end(self) -> None:
        """Say that the microphone hears nothing more: its stream ends."""
        self._source.end()

    def _sink(self, audio_format: AudioFormat) -> _Recording:
        self.output_format = audio_format
        return _Recording(self.played)
