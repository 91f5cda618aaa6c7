"""Real speech from the eSpeak NG library, for those who installed it (``voxengine-mock[espeak]``).

The library is found in the ``espeakng-loader`` wheel, else on the system (``libespeak-ng1`` on Debian).
It is not part of this package and has its own licence (GPL-3.0-or-later).
"""

from __future__ import annotations

import asyncio
import ctypes
import ctypes.util
import functools
import threading
from collections.abc import Sequence
from typing import Any, Final

from voxengine.audio.format import AudioFormat
from voxengine.audio.pcm import convert
from voxengine.errors import ConfigError
from voxengine_mock.voice import Unit, Voice

__all__ = ["EspeakSpeech", "require"]

_SYNCHRONOUS: Final = 2
_DONT_EXIT: Final = 0x8000
_UTF8: Final = 1
_POSITION_CHARACTER: Final = 1
_PARAMETER_RATE: Final = 1
_PARAMETER_PITCH: Final = 3
_EVENT_END_OF_LIST: Final = 0
_EVENT_WORD: Final = 1


class _Event(ctypes.Structure):
    # espeak-ng/speak_lib.h, espeak_EVENT, API revision 12.
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class _Library:
    """The loaded library. It keeps global state, so one text at a time passes through it."""

    def __init__(self, path: str, data: str | None) -> None:
        self._lib = ctypes.CDLL(path)
        self._pcm = bytearray()
        self._words: list[tuple[int, int]] = []
        self._callback = _Callback(self._take)
        self._lock = threading.Lock()
        encoded = None if data is None else data.encode()
        self.rate = int(self._lib.espeak_Initialize(_SYNCHRONOUS, 0, encoded, _DONT_EXIT))
        if self.rate <= 0:
            raise OSError("espeak_Initialize failed")
        self._lib.espeak_SetSynthCallback(self._callback)

    def _take(self, wav: Any, n: int, events: Any) -> int:
        if wav and n > 0:
            self._pcm += ctypes.string_at(wav, n * 2)
        at = 0
        while events[at].type != _EVENT_END_OF_LIST:
            if events[at].type == _EVENT_WORD:
                self._words.append((events[at].text_position - 1, events[at].audio_position))
            at += 1
        return 0

    def speak(
        self, text: str, language: str, pitch: int, words_per_minute: float
    ) -> tuple[bytes, list[tuple[int, int]]]:
        """Return PCM16 at ``rate`` and (character, millisecond) of each word. Blocks; takes any thread."""
        with self._lock:
            self._pcm.clear()
            self._words.clear()
            if self._lib.espeak_SetVoiceByName(language.lower().encode()) != 0:
                self._lib.espeak_SetVoiceByName(b"en")
            self._lib.espeak_SetParameter(_PARAMETER_RATE, round(words_per_minute), 0)
            self._lib.espeak_SetParameter(_PARAMETER_PITCH, pitch, 0)
            data = text.replace("\0", " ").encode("utf-8", "replace")
            size = ctypes.c_size_t(len(data) + 1)
            self._lib.espeak_Synth(data, size, 0, _POSITION_CHARACTER, 0, _UTF8, None, None)
            return bytes(self._pcm), list(self._words)


@functools.cache
def _library() -> _Library:
    candidates: list[tuple[str, str | None]] = []
    try:
        import espeakng_loader  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        pass
    else:
        candidates.append((espeakng_loader.get_library_path(), espeakng_loader.get_data_path()))
    system = ctypes.util.find_library("espeak-ng")
    if system is not None:
        candidates.append((system, None))
    for path, data in candidates:
        try:
            return _Library(path, data)
        except (OSError, AttributeError):
            continue
    raise ConfigError(
        "The synthesizer 'espeak' needs the eSpeak NG library, which is not here. "
        "Try: pip install 'voxengine-mock[espeak]' (or install libespeak-ng1), "
        "or leave the option out for the built-in voice."
    )


def require() -> None:
    """Load the library. Raises ConfigError that says what to install when it is not there."""
    _library()


class EspeakSpeech:
    """A text as eSpeak NG speaks it (see :class:`voxengine_mock.voice.Speech`). Made by :meth:`make`."""

    def __init__(self, text: str, pcm: bytes, words: Sequence[tuple[int, int]], rate: int) -> None:
        self.text = text
        self._pcm = pcm
        self._rate = rate
        self.duration_ms = len(pcm) // 2 * 1000 // rate
        self.units = _units(text, words, self.duration_ms)

    @classmethod
    async def make(
        cls, text: str, voice: Voice, rate: int, *, language: str, words_per_minute: float
    ) -> EspeakSpeech:
        """Synthesise the whole text in the executor."""

        def work() -> tuple[bytes, list[tuple[int, int]]]:
            library = _library()
            pitch = max(0, min(99, round(voice.pitch_hz / 3.2)))
            pcm, words = library.speak(text, language, pitch, words_per_minute)
            return convert(pcm, AudioFormat(library.rate), AudioFormat(rate)), words

        pcm, words = await asyncio.get_running_loop().run_in_executor(None, work)
        return cls(text, pcm, words, rate)

    async def pcm(self, from_ms: int, to_ms: int) -> bytes:
        to_ms = min(to_ms, self.duration_ms)
        return self._pcm[from_ms * self._rate // 1000 * 2 : to_ms * self._rate // 1000 * 2]


def _units(text: str, words: Sequence[tuple[int, int]], duration_ms: int) -> tuple[Unit, ...]:
    """Return units that cover the text, with times that never go back."""
    marks: list[tuple[int, int]] = []
    for at, at_ms in words:
        if 0 <= at < len(text) and (not marks or at > marks[-1][0]):
            marks.append((at, max(at_ms, marks[-1][1] if marks else 0)))
    marks = marks or [(0, 0)] if text else []
    units = []
    for n, (at, at_ms) in enumerate(marks):
        start = 0 if n == 0 else at
        end, end_ms = marks[n + 1] if n + 1 < len(marks) else (len(text), duration_ms)
        word = text[start:end].strip()
        units.append(Unit(start, end, word, min(at_ms, duration_ms), min(end_ms, duration_ms)))
    return tuple(units)
