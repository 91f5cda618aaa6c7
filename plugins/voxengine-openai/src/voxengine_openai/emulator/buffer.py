"""The input audio buffer: what was appended and is not yet an item."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from voxengine_openai.emulator.config import PCM, format_rate
from voxengine_openai.emulator.errors import Refused

__all__ = ["InputBuffer"]

LEAST_MS: Final = 100
_MAX_BYTES: Final = 64 * 2**20


class InputBuffer:
    """Audio as it arrived. Positions are milliseconds of the session's input, from its first byte."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._from_ms = 0.0
        self._per_ms = 48
        self.use(PCM, 0)

    def use(self, audio_format: Mapping[str, Any], at_ms: int) -> None:
        """Take audio of this format from here on; what is there is forgotten when it is of another."""
        width = 2 if audio_format["type"] == "audio/pcm" else 1
        per_ms = format_rate(audio_format) * width // 1000
        if per_ms != self._per_ms:
            self._per_ms = per_ms
            self._bytes.clear()
            self._from_ms = at_ms

    @property
    def duration_ms(self) -> float:
        """How much there is."""
        return len(self._bytes) / self._per_ms

    def append(self, audio: bytes) -> None:
        """Add audio. Raises Refused when there is too much of it."""
        if len(self._bytes) + len(audio) > _MAX_BYTES:
            raise Refused("The input audio buffer is full. Commit or clear it.", "input_audio_buffer_full")
        self._bytes += audio

    def clear(self) -> None:
        """Forget it."""
        self._drop(len(self._bytes))

    def keep(self, ms: int) -> None:
        """Forget all but the last so many milliseconds, now and then: audio without speech is discarded."""
        if self.duration_ms > 2 * ms:
            self._drop(len(self._bytes) - ms * self._per_ms)

    def check_least(self) -> None:
        """Raise Refused when there is too little for an item."""
        if self.duration_ms < LEAST_MS:
            raise Refused(
                "Error committing input audio buffer: buffer too small. Expected at least "
                f"{LEAST_MS}ms of audio, but buffer only has {self.duration_ms:.2f}ms of audio.",
                "input_audio_buffer_commit_empty",
            )

    def take(self, from_ms: float | None = None, to_ms: float | None = None) -> tuple[bytes, int]:
        """Remove all audio up to a position, and return what lies between the two, with its duration in ms."""
        end = self._at(to_ms) if to_ms is not None else len(self._bytes)
        start = min(end, self._at(from_ms)) if from_ms is not None else 0
        audio = bytes(self._bytes[start:end])
        self._drop(end)
        return audio, round(len(audio) / self._per_ms)

    def _at(self, position_ms: float) -> int:
        n_bytes = round((position_ms - self._from_ms) * self._per_ms) // 2 * 2
        return max(0, min(n_bytes, len(self._bytes)))

    def _drop(self, n_bytes: int) -> None:
        if n_bytes > 0:
            del self._bytes[:n_bytes]
            self._from_ms += n_bytes / self._per_ms
