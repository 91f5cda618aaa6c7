"""Audio formats: what a stretch of bytes means."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import attrs

from voxengine.errors import AudioFormatError

__all__ = ["MAX_SAMPLE_RATE", "MIN_SAMPLE_RATE", "AudioFormat", "Encoding"]

MIN_SAMPLE_RATE: Final = 4_000
MAX_SAMPLE_RATE: Final = 192_000


class Encoding(StrEnum):
    """How one sample is written."""

    PCM16 = "pcm16"
    """Signed 16-bit little-endian."""
    G711_ULAW = "g711_ulaw"
    """Eight-bit mu-law, ITU-T G.711."""
    G711_ALAW = "g711_alaw"
    """Eight-bit A-law, ITU-T G.711."""

    @property
    def width(self) -> int:
        """Bytes per sample."""
        return 2 if self is Encoding.PCM16 else 1

    @property
    def silence(self) -> int:
        """The byte that, repeated, is silence."""
        return {Encoding.G711_ULAW: 0xFF, Encoding.G711_ALAW: 0xD5}.get(self, 0)


def _check_rate(_: object, __: object, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise AudioFormatError(f"sample_rate is {value!r}; it is an int in hertz, for example 24000.")
    if not MIN_SAMPLE_RATE <= value <= MAX_SAMPLE_RATE:
        raise AudioFormatError(
            f"sample_rate is {value} Hz; it is from {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE}."
        )


def _check_channels(_: object, __: object, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 8:
        raise AudioFormatError(f"channels is {value!r}; it is an int from 1 to 8.")


def _to_encoding(value: object) -> Encoding:
    try:
        return Encoding(str(value))
    except ValueError:
        known = ", ".join(Encoding)
        raise AudioFormatError(f"encoding is {value!r}; it is one of {known}.") from None


@attrs.frozen
class AudioFormat:
    """Sample rate, channels and encoding of a stretch of audio.

    Raises:
        AudioFormatError: A value is out of range.
    """

    sample_rate: int = attrs.field(default=24_000, validator=_check_rate)
    """Frames per second, in hertz."""
    channels: int = attrs.field(default=1, validator=_check_channels)
    """Interleaved channels per frame."""
    encoding: Encoding = attrs.field(default=Encoding.PCM16, converter=_to_encoding)
    """How one sample is written."""

    @property
    def width(self) -> int:
        """Bytes per sample."""
        return self.encoding.width

    @property
    def frame_bytes(self) -> int:
        """Bytes per frame, all channels."""
        return self.encoding.width * self.channels

    @property
    def bytes_per_s(self) -> int:
        """Bytes per second."""
        return self.frame_bytes * self.sample_rate

    def n_frames(self, n_bytes: int) -> int:
        """Whole frames in ``n_bytes``."""
        return n_bytes // self.frame_bytes

    def n_bytes(self, ms: float) -> int:
        """Bytes of the whole frames in ``ms`` milliseconds, rounded down."""
        return int(ms * self.sample_rate / 1000) * self.frame_bytes

    def duration_ms(self, n_bytes: int) -> float:
        """Milliseconds that ``n_bytes`` last."""
        return self.n_frames(n_bytes) * 1000 / self.sample_rate

    def silence(self, n_frames: int) -> bytes:
        """Return that many frames of silence."""
        return bytes([self.encoding.silence]) * (n_frames * self.frame_bytes)

    @property
    def as_pcm16(self) -> AudioFormat:
        """The same rate and channels in PCM16: what G.711 is decoded to."""
        return attrs.evolve(self, encoding=Encoding.PCM16) if self.encoding is not Encoding.PCM16 else self

    def describe(self) -> str:
        """For messages: ``24000 Hz mono`` or ``8000 Hz mono g711_ulaw``."""
        channels = {1: "mono", 2: "stereo"}.get(self.channels, f"{self.channels} channels")
        tail = "" if self.encoding is Encoding.PCM16 else f" {self.encoding.value}"
        return f"{self.sample_rate} Hz {channels}{tail}"

    def check_aligned(self, n_bytes: int, who: str) -> None:
        """Raise AudioFormatError unless ``n_bytes`` is a whole number of frames. ``who`` opens the sentence."""
        if n_bytes % self.frame_bytes:
            raise AudioFormatError(
                f"{who} got {n_bytes} bytes, which is no whole number of {self.frame_bytes}-byte "
                f"frames ({self.describe()}). Nothing was accepted; pass whole frames."
            )
