"""Audio that was sent and whose words are not final: what another turn has to hear again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from voxengine.audio.format import AudioFormat

__all__ = ["KeptAudio"]

_QUIET_MS: Final = 10_000
"""While nobody is known to speak so much is kept: the service reports speech with a delay."""
_SPEECH_MS: Final = 90_000
"""The service ends a phrase after 30 s at the latest."""


class KeptAudio:
    """A stretch of the session's input, counted in frames from its beginning. Its end is the input's end."""

    def __init__(self, form: AudioFormat) -> None:
        self._form = form
        self._chunks: deque[bytes] = deque()
        self._n_bytes = 0
        self.end = 0
        """Frames of input so far."""

    def __len__(self) -> int:
        """Bytes that are kept."""
        return self._n_bytes

    def __iter__(self) -> Iterator[bytes]:
        return iter(tuple(self._chunks))

    @property
    def start(self) -> int:
        """The first frame that is kept."""
        return self.end - self._form.n_frames(self._n_bytes)

    @property
    def end_ms(self) -> int:
        """Input so far."""
        return self.ms(self.end)

    def ms(self, frame: int) -> int:
        """Return where a frame is, in milliseconds."""
        return frame * 1000 // self._form.sample_rate

    def add(self, data: bytes, *, is_speech: bool) -> None:
        """Append whole frames, and let go of what no turn will need."""
        self._chunks.append(data)
        self._n_bytes += len(data)
        self.end += self._form.n_frames(len(data))
        limit = self._form.n_bytes(_SPEECH_MS if is_speech else _QUIET_MS)
        while self._n_bytes - len(self._chunks[0]) >= limit:
            self._n_bytes -= len(self._chunks.popleft())

    def release(self, until_ms: int) -> None:
        """Let go of everything before a position."""
        n_bytes = (until_ms * self._form.sample_rate // 1000 - self.start) * self._form.frame_bytes
        while self._chunks and n_bytes > 0:
            first = self._chunks.popleft()
            self._n_bytes -= len(first)
            if n_bytes < len(first):
                self._chunks.appendleft(first[n_bytes:])
                self._n_bytes += len(first) - n_bytes
            n_bytes -= len(first)

    def clear(self) -> None:
        """Let go of everything."""
        self._chunks.clear()
        self._n_bytes = 0
