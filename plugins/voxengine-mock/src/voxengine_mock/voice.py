"""A synthetic voice: tones in the shape of speech, pleasant and clearly artificial.

A text is cut into units (about a word each) whose times follow from its letters; then each phrase is
rendered from harmonics under moving formants. Times are known before anything is rendered, so word
timings are exact. Rendering loads numpy and takes about a hundredth of the audio's duration; it runs in
the loop's executor, phrase by phrase, and what was rendered is kept in a bounded cache.
"""

from __future__ import annotations

import asyncio
import functools
import math
import re
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["DEFAULT_VOICE", "VOICES", "Speech", "ToneSpeech", "Unit", "Voice"]

_UNIT: Final = re.compile(r"\S{1,24}\s*")
_VOWELS: Final = re.compile(r"[aeiouyàáâäåæèéêëìíîïòóôöøùúûü]+")
_DIGIT_MS: Final = 230
_LETTER_MS: Final = 68
_OTHER_SCRIPT_MS: Final = 150
_SHORTEST_MS: Final = 130
_GAP_MS: Final = 40
_COMMA_MS: Final = 150
_STOP_MS: Final = 280
_TAIL_MS: Final = 60
_STANDARD_WPM: Final = 170.0
"""The speed at which the durations above hold."""
_PHRASE_MS: Final = 2000
_CACHE_BYTES: Final = 8 * 2**20


@attrs.frozen
class Unit:
    """A stretch of the text, about a word, and when it is spoken."""

    start: int
    """Its first character."""
    end: int
    """The character after it, spaces included; the next unit begins there."""
    word: str = attrs.field(repr=False)
    """Its letters, without the spaces."""
    at_ms: int
    """When it begins, from the start of the speech."""
    end_ms: int
    """When it has been spoken, before the pause that follows."""


class Speech(Protocol):
    """A text as it will be spoken."""

    text: str
    units: tuple[Unit, ...]
    duration_ms: int

    async def pcm(self, from_ms: int, to_ms: int) -> bytes:
        """Return PCM16 mono between two times. Adjoining stretches join without a gap; go forward only."""


@attrs.frozen
class Voice:
    """What makes one voice differ from another."""

    name: str
    pitch_hz: float
    formant_scale: float = 1.0
    """Shorter throats have higher formants."""
    tilt: float = 1.3
    """How fast harmonics fall off: higher is softer."""
    breath: float = 0.02
    vibrato: float = 0.006
    octave: float = 0.0
    """How much of a soft tone one octave up is mixed in."""


VOICES: Final[dict[str, Voice]] = {
    voice.name: voice
    for voice in (
        Voice("aria", 208.0, formant_scale=1.12, tilt=1.45, octave=0.12),
        Voice("bruno", 112.0, formant_scale=0.94, tilt=1.35, breath=0.012),
        Voice("celia", 172.0, formant_scale=1.05, tilt=1.6, breath=0.03, vibrato=0.009),
        Voice("dante", 138.0, formant_scale=0.98, tilt=1.4, octave=0.18),
    )
}
DEFAULT_VOICE: Final = "aria"


# -- planning: text to times, without numpy -----------------------------------------------------


def _spoken_ms(word: str) -> int:
    total = 0
    for char in word:
        if char.isdigit():
            total += _DIGIT_MS
        elif char.isalpha():
            total += _LETTER_MS if ord(char) < 0x250 else _OTHER_SCRIPT_MS
    return max(_SHORTEST_MS, total) if total else 0


def _pause_ms(unit: str) -> int:
    body = unit.rstrip().rstrip("\"')]}»”’")
    if body.endswith((".", "!", "?", "…", "。", "！", "？")) or "\n" in unit:
        return _STOP_MS
    if body.endswith((",", ";", ":", "–", "—", "、", "，")):
        return _COMMA_MS
    return _GAP_MS


def plan(
    text: str,
    words_per_minute: float = _STANDARD_WPM,
    *,
    duration_ms: float | None = None,
    at_ms: Sequence[float] = (),
) -> tuple[Unit, ...]:
    """Cut a text into units with their times. Their stretches cover the text without a gap.

    Args:
        duration_ms: How long all of it takes, in place of the speed.
        at_ms: When each word begins, in place of the speed.
    """
    matches = list(_UNIT.finditer(text))
    scale = _STANDARD_WPM / words_per_minute
    spans = [(_spoken_ms(match[0]), _pause_ms(match[0])) for match in matches]
    if at_ms:
        times = _at_given_times([match[0] for match in matches], spans, at_ms, duration_ms, scale)
    else:
        total = sum(spoken + pause for spoken, pause in spans)
        if duration_ms is not None and total:
            scale = max(0.0, duration_ms - _tail_ms(duration_ms)) / total
        times = []
        now = 0.0
        for spoken, pause in spans:
            if duration_ms is None:
                end = now + round(spoken * scale)
                times.append((now, end))
                now = end + round(pause * scale)
            else:
                times.append((now, now + spoken * scale))
                now += (spoken + pause) * scale
    return tuple(
        Unit(0 if n == 0 else match.start(), match.end(), match[0].rstrip(), int(begin), int(end))
        for n, (match, (begin, end)) in enumerate(zip(matches, times, strict=True))
    )


def _tail_ms(duration_ms: float) -> float:
    return min(_TAIL_MS, duration_ms / 10)


def _at_given_times(
    units: Sequence[str],
    spans: Sequence[tuple[int, int]],
    at_ms: Sequence[float],
    duration_ms: float | None,
    scale: float,
) -> list[tuple[float, float]]:
    """Return the times of units whose words begin when they are told to; long words have several units."""
    words: list[list[int]] = []
    for n in range(len(units)):
        if n and not units[n - 1][-1].isspace():
            words[-1].append(n)
        else:
            words.append([n])
    times: list[tuple[float, float]] = []
    for n, word in enumerate(words):
        begin = at_ms[n]
        end = begin + scale * max(1, sum(spans[unit][0] for unit in word))
        limit = at_ms[n + 1] if n + 1 < len(words) else duration_ms
        each = ((end if limit is None else min(end, limit)) - begin) / len(word)
        times += [(begin + k * each, begin + (k + 1) * each) for k in range(len(word))]
    return times


@attrs.frozen
class _Syllable:
    at_ms: float
    ms: float
    vowel: str
    semitones: float
    hiss: bool


def _syllables(unit: Unit, semitones: float) -> list[_Syllable]:
    """Return the syllables of a unit: one for each group of vowels, or for each digit or foreign letter."""
    letters = [char for char in unit.word.casefold() if char.isalnum()]
    word = "".join(letters)
    singles = [char for char in letters if char.isdigit() or ord(char) >= 0x250]
    if singles:
        vowels = ["aeiou"[ord(char) % 5] for char in letters]
    else:
        vowels = [match[0][0] for match in _VOWELS.finditer(word)]
        if len(vowels) > 1 and word.endswith("e") and not word.endswith("le"):
            vowels.pop()  # A silent e.
    vowels = vowels or ["e"]
    each = (unit.end_ms - unit.at_ms) / len(vowels)
    hiss = word[:1] in "sfhcxzt"
    seed = zlib.crc32(word.encode(errors="replace"))
    return [
        _Syllable(
            unit.at_ms + n * each,
            each,
            vowel,
            semitones + (1.5 if n == 0 else -0.5) + (seed >> (2 * n) & 3) * 0.5,
            hiss and n == 0,
        )
        for n, vowel in enumerate(vowels)
    ]


def _melody(units: Sequence[Unit]) -> list[float]:
    """Return each unit's pitch in semitones: falling through a sentence, rising at a question's end."""
    out: list[float] = []
    first = 0
    for n, unit in enumerate(units):
        tail = unit.word.rstrip("\"')]}»”’")
        if not tail.endswith((".", "!", "?", "…")) and n + 1 < len(units):
            continue
        count = n + 1 - first
        line = [2.5 - 4.5 * k / max(1, count - 1) for k in range(count)]
        if tail.endswith("?"):
            line[-1] = 4.5
        out.extend(line)
        first = n + 1
    return out


# -- rendering ----------------------------------------------------------------------------------

_FORMANTS_HZ: Final[dict[str, tuple[float, float, float]]] = {
    "a": (760.0, 1350.0, 2550.0),
    "e": (530.0, 1850.0, 2600.0),
    "i": (320.0, 2250.0, 2950.0),
    "o": (500.0, 950.0, 2500.0),
    "u": (340.0, 800.0, 2350.0),
}
_VOWEL_OF: Final = {
    **dict.fromkeys("aàáâäåæ", "a"),
    **dict.fromkeys("eèéêë", "e"),
    **dict.fromkeys("iìíîïy", "i"),
    **dict.fromkeys("oòóôöø", "o"),
    **dict.fromkeys("uùúûü", "u"),
}
_WIDTHS_HZ: Final = (110.0, 140.0, 200.0)
_GAINS: Final = (1.0, 0.6, 0.3)
_RMS: Final = 0.2
_CEILING: Final = 0.5
"""No sample exceeds half of full scale: -6 dBFS."""
_ATTACK_MS: Final = 22.0
_RELEASE_MS: Final = 50.0


def _harmonics(voice: Voice, vowel: str, hz: float, n: int, top_hz: float) -> list[float]:
    """Return the amplitude of each harmonic; together they have the same power for every vowel."""
    formants = _FORMANTS_HZ[_VOWEL_OF.get(vowel, "e")]
    out = []
    for k in range(1, n + 1):
        f = k * hz
        shape = 0.04 + sum(
            gain / (1.0 + ((f - centre * voice.formant_scale) / width) ** 2)
            for centre, width, gain in zip(formants, _WIDTHS_HZ, _GAINS, strict=True)
        )
        fade = min(1.0, max(0.0, (top_hz - f) / (0.15 * top_hz)))
        out.append(fade * shape / k ** (voice.tilt - 1.0))
    power = math.sqrt(sum(a * a for a in out) / 2.0)
    return [a * _RMS / power for a in out]


def _render(voice: Voice, units: Sequence[Unit], pitches: Sequence[float], rate: int, until_ms: int) -> bytes:
    """Render units and the pauses after them, up to ``until_ms``. Starts and ends at silence."""
    import numpy as np

    out = np.zeros(until_ms * rate // 1000)
    for unit, semitones in zip(units, pitches, strict=True):
        if unit.end_ms > unit.at_ms:
            at = unit.at_ms * rate // 1000
            wave = _render_unit(voice, unit, semitones, rate)[: len(out) - at]
            out[at : at + len(wave)] += wave
    return np.rint(32767.0 * _CEILING * np.tanh(out / _CEILING)).astype("<i2").tobytes()


def _render_unit(voice: Voice, unit: Unit, semitones: float, rate: int) -> NDArray[np.float64]:
    import numpy as np

    syllables = _syllables(unit, semitones)
    n = unit.end_ms * rate // 1000 - unit.at_ms * rate // 1000
    t = np.asarray(np.arange(n) * (1000.0 / rate) + unit.at_ms, dtype=np.float64)  # Milliseconds.
    centres = [s.at_ms + s.ms / 2 for s in syllables]
    pitch = np.interp(t, centres, [s.semitones for s in syllables])
    vibrato = voice.vibrato * np.sin(2 * np.pi * 5.2 * t / 1000.0)
    hz = voice.pitch_hz * 2.0 ** (pitch / 12.0) * (1.0 + vibrato)
    phase = 2 * np.pi * np.cumsum(hz) / rate
    top_hz = min(3800.0, 0.42 * rate)
    n_harmonics = max(2, int(top_hz / float(hz.min(initial=voice.pitch_hz))))
    knots = [time for s in syllables for time in (s.at_ms + 0.3 * s.ms, s.at_ms + 0.7 * s.ms)]
    weights = [_harmonics(voice, s.vowel, voice.pitch_hz, n_harmonics, top_hz) for s in syllables]
    wave = np.zeros(n)
    for k in range(n_harmonics):
        amplitude = np.interp(t, knots, [w[k] for w in weights for _ in range(2)])
        # Quadratic phases keep the harmonics from peaking together.
        wave += amplitude * np.sin((k + 1) * phase + 0.37 * k * k)
    if voice.octave:
        wave += voice.octave * _RMS * np.sin(2 * phase)
    wave = wave * _envelope(syllables, t, unit)
    if syllables[0].hiss:
        wave += voice.breath * _hiss(unit.word, rate, n)
    return wave


def _envelope(syllables: Sequence[_Syllable], t: NDArray[np.float64], unit: Unit) -> NDArray[np.float64]:
    """Return the loudness: soft ends, a dip between two syllables."""
    import numpy as np

    attack = np.clip((t - unit.at_ms) / _ATTACK_MS, 0.0, 1.0)
    release = np.clip((unit.end_ms - t) / _RELEASE_MS, 0.0, 1.0)
    out: NDArray[np.float64] = np.sin(attack * np.pi / 2) ** 2 * np.sin(release * np.pi / 2) ** 2
    for syllable in syllables[1:]:
        away = np.clip(np.abs(t - syllable.at_ms) / 38.0, 0.0, 1.0)
        out *= 0.35 + 0.65 * np.sin(away * np.pi / 2) ** 2
    return out


def _hiss(word: str, rate: int, n: int) -> NDArray[np.float64]:
    """Return a short breath at the start of a word, the same for the same word."""
    import numpy as np

    length = min(n, 70 * rate // 1000)
    noise = np.random.default_rng(zlib.crc32(word.encode(errors="replace"))).uniform(-1.0, 1.0, length)
    smooth = np.convolve(noise, np.hanning(9) / 4.0, mode="same")
    out = np.zeros(n)
    out[:length] = smooth * np.sin(np.linspace(0.0, np.pi, length)) ** 2
    return out


# -- speech -------------------------------------------------------------------------------------


class _Cache:
    """Rendered phrases by what they were rendered from; the least recently used leave first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held: OrderedDict[Any, bytes] = OrderedDict()
        self.n_bytes = 0

    def get(self, key: Any) -> bytes | None:
        found = self._held.get(key)
        if found is not None:
            self._held.move_to_end(key)
        return found

    def put(self, key: Any, pcm: bytes) -> None:
        if key not in self._held and len(pcm) <= self._max_bytes:
            self._held[key] = pcm
            self.n_bytes += len(pcm)
        while self.n_bytes > self._max_bytes:
            self.n_bytes -= len(self._held.popitem(last=False)[1])


_cache: Final = _Cache(_CACHE_BYTES)


@attrs.frozen
class _Phrase:
    first: int
    last: int
    at_ms: int
    end_ms: int


class ToneSpeech:
    """A :class:`Speech` in a synthetic voice. Holds one rendered phrase at a time."""

    def __init__(
        self,
        text: str,
        voice: Voice,
        rate: int,
        words_per_minute: float = _STANDARD_WPM,
        *,
        duration_ms: float | None = None,
        at_ms: Sequence[float] = (),
    ) -> None:
        self.text = text
        self.units = plan(text, words_per_minute, duration_ms=duration_ms, at_ms=at_ms)
        self.duration_ms = self.units[-1].end_ms + _TAIL_MS if self.units else 0
        if duration_ms is not None and self.units:
            self.duration_ms = int(duration_ms)
        self._voice = voice
        self._rate = rate
        self._pitches = _melody(self.units)
        self._phrases = self._cut()
        self._held = b""
        self._held_from = self._held_to = 0  # Samples.

    def _cut(self) -> list[_Phrase]:
        phrases: list[_Phrase] = []
        first = 0
        for n, unit in enumerate(self.units):
            is_last = n + 1 == len(self.units)
            until_ms = self.duration_ms if is_last else self.units[n + 1].at_ms
            is_long = until_ms - self.units[first].at_ms >= _PHRASE_MS
            if is_last or is_long or unit.end_ms + _GAP_MS * 2 < until_ms:
                phrases.append(_Phrase(first, n + 1, self.units[first].at_ms if phrases else 0, until_ms))
                first = n + 1
        return phrases

    async def pcm(self, from_ms: int, to_ms: int) -> bytes:
        start = from_ms * self._rate // 1000
        end = min(to_ms, self.duration_ms) * self._rate // 1000
        while self._held_to < end:
            phrase = next(p for p in self._phrases if p.end_ms * self._rate // 1000 > self._held_to)
            kept = self._held[(start - self._held_from) * 2 :]
            self._held = kept + await self._phrase(phrase)
            self._held_from, self._held_to = start, phrase.end_ms * self._rate // 1000
        return self._held[(start - self._held_from) * 2 : (end - self._held_from) * 2]

    async def _phrase(self, phrase: _Phrase) -> bytes:
        units = self.units[phrase.first : phrase.last]
        pitches = tuple(self._pitches[phrase.first : phrase.last])
        # Times are taken from the phrase's own start, so that the same words anywhere share an entry.
        moved = tuple(
            attrs.evolve(u, start=0, end=0, at_ms=u.at_ms - phrase.at_ms, end_ms=u.end_ms - phrase.at_ms)
            for u in units
        )
        n_samples = phrase.end_ms * self._rate // 1000 - phrase.at_ms * self._rate // 1000
        key = (self._voice, self._rate, moved, pitches, n_samples)
        pcm = _cache.get(key)
        if pcm is None:
            work = functools.partial(
                _render, self._voice, moved, pitches, self._rate, phrase.end_ms - phrase.at_ms
            )
            pcm = await asyncio.get_running_loop().run_in_executor(None, work)
            # Rates that are no multiple of 1000 round differently at the phrase's own start.
            pcm = pcm[: n_samples * 2].ljust(n_samples * 2, b"\0")
            _cache.put(key, pcm)
        return pcm
