"""What an application and a provider hand to the engine, checked at the door."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, Final

from voxengine._checks import check_unicode
from voxengine.audio.format import AudioFormat, Encoding
from voxengine.errors import AudioFormatError, ConfigError, JournalFull, UsageError
from voxengine.events import EventType, LazyAudio
from voxengine.journal import Journal

__all__ = [
    "check_ms",
    "check_room",
    "check_seconds",
    "check_text",
    "check_tool_choice",
    "compare_format",
    "encoded",
    "event_problem",
    "to_pcm",
]

_CHOICES: Final = ("auto", "none", "required")
_TEXT: Final = (str, type(None))
_NUMBER: Final = (int, type(None))
_IDS: Final[Mapping[str, tuple[type, ...]]] = {"response_id": _TEXT, "item_id": _TEXT}
_WORDS: Final[Mapping[str, tuple[type, ...]]] = {**_IDS, "text": _TEXT, "delta": _TEXT}
_TAKES: Final[Mapping[EventType, Mapping[str, tuple[type, ...]]]] = {
    EventType.TEXT_OUTPUT: _WORDS,
    EventType.INPUT_TRANSCRIPT: _WORDS,
    EventType.AUDIO_OUTPUT_CHUNK: {
        "audio_data": (bytes, LazyAudio, bytearray, memoryview),
        "sample_rate": _NUMBER,
        "channels": _NUMBER,
        **_IDS,
    },
    EventType.RESPONSE_STARTED: {**_IDS, "trigger": _TEXT},
    EventType.RESPONSE_COMPLETED: {**_IDS, "status": _TEXT},
    EventType.RESPONSE_CANCELLED: _IDS,
    EventType.SPEECH_STARTED: {"at_ms": (int, float, type(None)), **_IDS},
    EventType.SPEECH_ENDED: {"at_ms": (int, float, type(None)), **_IDS},
    EventType.SPEECH_MARK: _IDS,
    EventType.EMOTION: _IDS,
    EventType.FUNCTION_CALL_INVOKED: {
        "name": _TEXT,
        "call_id": _TEXT,
        "arguments": (str, Mapping, type(None)),
        **_IDS,
    },
}
"""What the engine itself reads of a provider's events. Everything else passes as it is."""
_ABSENT: Final = object()
_NEEDED: Final = {EventType.AUDIO_OUTPUT_CHUNK: "audio_data"}


def event_problem(event_type: EventType, data: Mapping[str, Any]) -> str:
    """Return why the engine cannot use what a provider emitted, an empty text when it can."""
    takes = _TAKES.get(event_type)
    if takes is None:
        return ""
    for name, kinds in takes.items():
        value = data.get(name, _ABSENT)
        if type(value) in kinds:
            continue
        if value is _ABSENT:
            if _NEEDED.get(event_type) == name:
                return f"{name} is not there"
        elif not isinstance(value, kinds):
            return f"{name} is a {type(value).__name__}"
    return ""


def to_pcm(audio_data: Any, audio_format: AudioFormat, method: str = "send_audio") -> bytes:
    """Return user audio, given as bytes-like or as an array, as PCM16 bytes of its own. G.711 is decoded.

    Raises:
        AudioFormatError: It is neither, or an array with other channels than the format.
    """
    if audio_format.encoding is not Encoding.PCM16:
        return _decoded(audio_data, audio_format, method)
    from voxengine.audio.pcm import to_int16

    shape = getattr(audio_data, "shape", None)
    if shape is not None and len(shape) == 2 and shape[1] != audio_format.channels:
        raise AudioFormatError(
            f"{method} got an array of {shape[1]} channels; this session takes {audio_format.describe()}. "
            "Nothing was accepted; use voxengine.audio.pcm.convert."
        )
    return to_int16(audio_data, method)


def _decoded(audio_data: Any, audio_format: AudioFormat, method: str) -> bytes:
    from voxengine.audio import g711

    if not isinstance(audio_data, bytes | bytearray | memoryview):
        raise AudioFormatError(
            f"{method} got {type(audio_data).__name__}; this session takes {audio_format.describe()} as bytes. "
            "Nothing was accepted."
        )
    data = bytes(audio_data)
    audio_format.check_aligned(len(data), method)
    return g711.decode(data, audio_format.encoding)


def encoded(data: bytes, audio_format: AudioFormat) -> bytes:
    """Return PCM16 as the engine takes it."""
    if audio_format.encoding is Encoding.PCM16:
        return data
    from voxengine.audio import g711

    return g711.encode(data, audio_format.encoding)


def check_room(journal: Journal, n_bytes: int, n_silence: int = 0) -> None:
    """Raise JournalFull when a recording, with the silence behind it, is longer than what may wait for an answer.

    One that is empty is a UsageError.
    """
    if not n_bytes:
        raise UsageError("send_recorded_audio got no audio. Nothing was sent.")
    duration_s = journal.format.duration_ms(n_bytes) / 1000
    if duration_s + journal.format.duration_ms(n_silence) / 1000 > journal.limit_s:
        raise JournalFull(
            f"send_recorded_audio: the recording lasts {duration_s:.1f} s and the limit is journal_s={journal.limit_s:g}. "
            "Nothing was accepted. Raise journal_s, or send it in turns.",
            held_s=journal.held_s,
        )


def compare_format(
    audio_format: AudioFormat, sample_rate: int | None, channels: int | None, method: str = "send_audio"
) -> None:
    """Raise AudioFormatError when what the caller says of the audio is not the session's format."""
    told = AudioFormat(
        audio_format.sample_rate if sample_rate is None else sample_rate,
        audio_format.channels if channels is None else channels,
    )
    if told != audio_format:
        raise AudioFormatError(
            f"{method} got {told.describe()}; this session takes {audio_format.describe()}. Nothing was accepted. "
            "Pass config.input_format or use voxengine.audio.pcm.convert."
        )


def check_text(method: str, text: object) -> None:
    """Raise UsageError unless the text is a str with something in it."""
    if not isinstance(text, str):
        raise UsageError(f"{method} takes a str, not a {type(text).__name__}.")
    if not text.strip():
        raise UsageError(f"{method} got an empty text. Nothing was sent.")
    check_unicode(method, text)


def check_ms(what: str, value: object) -> None:
    """Raise UsageError unless the value is a whole number of milliseconds from 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UsageError(f"{what} is {value!r}; it is an int from 0, in milliseconds.")


def check_seconds(what: str, value: object) -> None:
    """Raise UsageError unless the value is a finite number of seconds from 0."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0:  # type: ignore[operator,arg-type]
        raise UsageError(f"{what} is {value!r}; it is a number from 0, in seconds.")


def check_tool_choice(choice: str, names: Collection[str]) -> None:
    """Raise ConfigError when what the agent is to call is no tool of the application."""
    if choice not in _CHOICES and choice not in names:
        known = f"The tools are: {', '.join(names)}." if names else "There are no tools."
        raise ConfigError(
            f"tool_choice is {choice!r}, which is neither a tool nor one of {', '.join(_CHOICES)}. {known}"
        )
