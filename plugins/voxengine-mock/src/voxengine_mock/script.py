"""What the simulated agent hears, says and does wrong: a value, and one session's way through it.

The format is described in the documentation ("Script of the simulated agent"); it is read and checked by
:mod:`voxengine_mock.script_reading`. A :class:`Script` never changes.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from voxengine.errors import ConfigError
from voxengine_mock.faults import Fault, fault_from_text
from voxengine_mock.patterns import Glob, Regex

__all__ = [
    "SCRIPT_KEYS",
    "Answer",
    "Call",
    "Delays",
    "Rule",
    "Script",
    "ScriptRun",
    "Tokens",
    "Utterance",
    "fill",
    "n_words",
    "places",
    "plain",
]

SCRIPT_KEYS: Final = (
    "responses",
    "default",
    "hears",
    "hears_default",
    "delay_ms",
    "jitter_ms",
    "delays",
    "seed",
    "pace",
    "words_per_minute",
    "voice",
    "synthesizer",
    "price_per_minute_usd",
    "usage",
    "faults",
)
"""The keys at the top of a script."""

_NOT_WORD: Final = re.compile(r"[^\w\s]|_")
_APOSTROPHE: Final = re.compile(r"['’`]")
_PLACE: Final = re.compile(r"\{([A-Za-z_]\w*(?:\.\w+)*)\}")
_LETTER_AS_WORD: Final = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\ud7ff\uf900-\ufaff]")
_MATCHED_CHARS: Final = 4000
"""Patterns see so much of a text: what a client sends may be long, and the time grows with it."""


def plain(text: str) -> str:
    """Return the words of a text as patterns compare them: no case, no punctuation, single spaces."""
    return " ".join(_NOT_WORD.sub(" ", _APOSTROPHE.sub("", text)).casefold().split())


def n_words(text: str) -> int:
    """Count words; in scripts that put no spaces between them each letter counts as one."""
    words = plain(text).split()
    return sum(max(1, len(_LETTER_AS_WORD.findall(word))) for word in words)


def places(template: str) -> list[str]:
    """Return the places of a text, as they stand between the braces."""
    return _PLACE.findall(template)


def fill(template: str, names: Mapping[str, Any]) -> str:
    """Replace ``{name}`` and ``{name.key}``. A name that is not known stays as it is written.

    A script is checked for those; what a result holds shows only when it is there.
    """

    def value(match: re.Match[str]) -> str:
        first, *rest = match[1].split(".")
        if first not in names:
            return match[0]
        found = names[first]
        if rest and isinstance(found, str):
            try:
                found = json.loads(found)
            except (ValueError, RecursionError):
                return match[0]
        for key in rest:
            if not isinstance(found, Mapping) or key not in found:
                return match[0]
            found = found[key]
        return found if isinstance(found, str) else json.dumps(found)

    return _PLACE.sub(value, template)


@attrs.frozen
class Call:
    """One call of a function of the application."""

    tool: str
    arguments: Mapping[str, Any]
    """Texts in it may hold places."""


@attrs.frozen
class Answer:
    """One answer: words, calls, or both."""

    say: str = ""
    """Before the calls."""
    calls: tuple[Call, ...] = ()
    """Made at the same time."""
    then: Answer | None = None
    """What follows when every call has its result."""
    delay_ms: float | None = None
    """Before the first output; None: the script's."""
    duration_ms: float | None = None
    """How long saying it takes; None: what the speed of the voice makes of it."""
    at_ms: tuple[float, ...] = ()
    """When each word begins; empty: as the voice speaks."""
    usage: Mapping[str, Any] | None = None
    """What is reported as its usage in place of what was counted."""


@attrs.frozen
class Utterance:
    """What the user says in one spoken turn."""

    text: str = attrs.field(repr=False)
    partials: tuple[str, ...] | None = attrs.field(default=None, repr=False)
    """Texts before the final one; None: the words one by one."""
    words: tuple[tuple[str, float, float], ...] = attrs.field(default=(), repr=False)
    """Each word, its begin and its end in ms from the start of the speech; empty: evenly."""
    word_ms: float = 300.0
    """A partial text is due every so much audio."""
    delay_ms: float | None = None
    """From the end of the speech to the final text; None: the script's."""


@attrs.frozen
class Rule:
    """A pattern and its answers, which are given in turn."""

    pattern: str
    exact: str | None = None
    glob: Glob | None = None
    regex: Regex | None = None
    answers: tuple[Answer, ...] = ()

    def match(self, text: str) -> dict[str, str] | None:
        """Return the pattern's named groups when it matches, else None."""
        if self.exact is not None:
            return {} if plain(text) == self.exact else None
        if self.glob is not None:
            return {} if self.glob.matches(plain(text)) else None
        assert self.regex is not None
        return self.regex.search(text)


@attrs.frozen(kw_only=True)
class Delays:
    """Waits besides the one before an answer, in milliseconds."""

    handshake_ms: float = 0.0
    """Before the request for a connection is answered."""
    ready_ms: float = 0.0
    """Before the session is reported as open."""
    transcript_ms: float = 0.0
    """Between the end of an utterance and its final text."""
    audio_ms: float = 0.0
    """Between the first words of an answer and their sound."""
    tool_ms: float = 0.0
    """Before calls are made."""


@attrs.frozen(kw_only=True)
class Tokens:
    """How usage is counted."""

    per_word: float = 1.0
    input_audio_per_s: float = 0.0
    output_audio_per_s: float = 0.0


@attrs.frozen(kw_only=True)
class Script:
    """Everything that the agent hears, says, costs and does wrong."""

    rules: tuple[Rule, ...] = ()
    default: tuple[Answer, ...] = (Answer(say="You said: {text}"),)
    hears: tuple[Utterance, ...] = ()
    """The user's spoken turns, one after the other."""
    hears_default: Utterance = Utterance("hello there")
    """Every further spoken turn."""
    delay_ms: float = 200.0
    """From the end of a request to the first output."""
    jitter_ms: float = 0.0
    """Up to so much is added to each delay, by the seed."""
    delays: Delays = Delays()
    seed: int = 0
    pace: float = 5.0
    """Output is sent at so many times real time."""
    words_per_minute: float = 170.0
    voice: str | None = None
    synthesizer: str = "tones"
    price_per_minute_usd: float = 0.0
    """For each minute of audio, heard or spoken."""
    usage: Tokens = Tokens()
    faults: tuple[Fault, ...] = ()

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], *, ignore: Collection[str] = ()) -> Script:
        """Read a script from ``metadata``.

        Args:
            values: Keys of the format, and ``script``: the path of a TOML file. Other keys given here win
                over the file's; its patterns and faults follow those given here.
            ignore: Keys that mean something to somebody else.

        Raises:
            ConfigError: A key, type, range or pattern is wrong, or the file cannot be read.
        """
        from voxengine_mock.script_reading import read_file, read_mapping

        values = {key: value for key, value in values.items() if key not in ignore or key in SCRIPT_KEYS}
        path = values.pop("script", None)
        own = read_mapping("metadata", values, extra=("script", *ignore))
        if path is None:
            return cls(**own)
        if not isinstance(path, str | Path):
            raise ConfigError(f"metadata: script is {type(path).__name__}; it takes the path of a TOML file.")
        file = read_file(path)
        both = {key: own.get(key, ()) + file.get(key, ()) for key in ("rules", "faults")}
        return cls(**{**file, **own, **both})

    @classmethod
    def from_file(cls, path: str | Path) -> Script:
        """Read a script from a TOML file. Raises ConfigError as ``from_mapping`` does, with the line."""
        from voxengine_mock.script_reading import read_file

        return cls(**read_file(path))

    def with_faults(self, faults: Iterable[str | Mapping[str, Any]]) -> Script:
        """Return a copy with more faults, each a line as ``--fault`` takes it or a table as in a file.

        Raises:
            ConfigError: One of them is wrong.
        """
        from voxengine_mock.script_reading import read_mapping

        more: tuple[Fault, ...] = ()
        for fault in faults:
            if isinstance(fault, str):
                more += (fault_from_text(fault),)
            else:
                more += read_mapping("fault", {"faults": [fault]})["faults"]
        return attrs.evolve(self, faults=(*self.faults, *more))


class ScriptRun:
    """One session's way through a script: what comes next, and the random numbers. Not thread-safe."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self._random: random.Random | None = None  # Made when it is needed: its state is 2.5 kB a session.
        self._n_heard = 0
        self._n_given: dict[int, int] = {}
        # Stable, so exact patterns come first and the rest stay in the order in which they are written.
        self._rules = sorted(enumerate(script.rules), key=lambda entry: entry[1].exact is None)

    def hear(self) -> Utterance:
        """Return the user's next spoken turn."""
        n = self._n_heard
        self._n_heard += 1
        return self.script.hears[n] if n < len(self.script.hears) else self.script.hears_default

    def find(self, text: str) -> tuple[Answer, dict[str, str]] | None:
        """Return the scripted answer to a text and the pattern's groups, None when no pattern matches."""
        text = text[:_MATCHED_CHARS]
        for number, rule in self._rules:
            groups = rule.match(text)
            if groups is not None:
                return self._next(number, rule.answers), groups
        return None

    def default(self) -> Answer:
        """Return the next default answer."""
        return self._next(-1, self.script.default)

    def delay_s(self, answer: Answer) -> float:
        """Return the delay before an answer, with its jitter."""
        return self.jittered_s(self.script.delay_ms if answer.delay_ms is None else answer.delay_ms)

    def jittered_s(self, delay_ms: float) -> float:
        """Return a delay in seconds, with the script's jitter."""
        script = self.script
        if script.jitter_ms:
            if self._random is None:
                self._random = random.Random(script.seed)
            delay_ms += self._random.uniform(0.0, script.jitter_ms)
        return delay_ms / 1000.0

    def wait_s(self, delay_ms: float) -> float:
        """Return one of the script's ``delays`` in seconds; one that is not set has no jitter either."""
        return self.jittered_s(delay_ms) if delay_ms else 0.0

    def _next(self, key: int, answers: tuple[Answer, ...]) -> Answer:
        n = self._n_given.get(key, 0)
        self._n_given[key] = n + 1
        return answers[n % len(answers)]
