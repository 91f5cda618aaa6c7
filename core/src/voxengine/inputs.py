"""What an application hands to the engine, checked at the door."""

from __future__ import annotations

from typing import Any

from voxengine.audio.format import AudioFormat
from voxengine.errors import AudioFormatError, UsageError

__all__ = ["check_ms", "check_text", "compare_format", "to_pcm"]


def to_pcm(audio_data: Any, audio_format: AudioFormat) -> bytes:
    """Return user audio, given as bytes-like or as an array, as PCM16 bytes of its own.

    Raises:
        AudioFormatError: It is neither, or an array with other channels than the format.
    """
    from voxengine.audio.pcm import to_int16

    shape = getattr(audio_data, "shape", None)
    if shape is not None and len(shape) == 2 and shape[1] != audio_format.channels:
        raise AudioFormatError(
            f"send_audio got an array of {shape[1]} channels; this session takes {audio_format.describe()}. "
            "Nothing was accepted; use voxengine.audio.pcm.convert."
        )
    return to_int16(audio_data, "send_audio")


def compare_format(audio_format: AudioFormat, sample_rate: int | None, channels: int | None) -> None:
    """Raise AudioFormatError when what the caller says of the audio is not the session's format."""
    told = AudioFormat(
        audio_format.sample_rate if sample_rate is None else sample_rate,
        audio_format.channels if channels is None else channels,
    )
    if told != audio_format:
        raise AudioFormatError(
            f"send_audio got {told.describe()}; this session takes {audio_format.describe()}. Nothing was accepted. "
            "Pass config.input_format or use voxengine.audio.pcm.convert."
        )


def check_text(method: str, text: object) -> None:
    """Raise UsageError unless the text is a str with something in it."""
    if not isinstance(text, str):
        raise UsageError(f"{method} takes a str, not a {type(text).__name__}.")
    if not text.strip():
        raise UsageError(f"{method} got an empty text. Nothing was sent.")


def check_ms(what: str, value: object) -> None:
    """Raise UsageError unless the value is a whole number of milliseconds from 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UsageError(f"{what} is {value!r}; it is an int from 0, in milliseconds.")
