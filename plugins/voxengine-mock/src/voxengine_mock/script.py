"""What the simulated agent hears and says: read from a mapping or a TOML file, checked as a whole.

The format is described in the package's README. A :class:`Script` never changes; :class:`ScriptRun` is
one session's way through it.
"""

from __future__ import annotations

import difflib
import json
import random
import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from voxengine.errors import ConfigError

__all__ = ["SCRIPT_KEYS", "Answer", "Call", "Rule", "Script", "ScriptRun", "fill", "plain"]

_NOT_WORD: Final = re.compile(r"[^\w\s]|_")
_NOT_WORD_BUT_STAR: Final = re.compile(r"[^\w\s*]|_")
_APOSTROPHE: Final = re.compile(r"['’`]")
_PLACE: Final = re.compile(r"\{([A-Za-z_]\w*(?:\.\w+)*)\}")


def plain(text: str) -> str:
    """Return the words of a text as patterns compare them: no case, no punctuation, single spaces."""
    return " ".join(_NOT_WORD.sub(" ", _APOSTROPHE.sub("", text)).casefold().split())


def fill(template: str, names: Mapping[str, Any]) -> str:
    """Replace ``{name}`` and ``{name.key}``. A name that is not known stays as it is written."""

    def value(match: re.Match[str]) -> str:
        first, *rest = match[1].split(".")
        if first not in names:
            return match[0]
        found = names[first]
        if rest and isinstance(found, str):
            try:
                found = json.loads(found)
            except ValueError:
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


@attrs.frozen
class Rule:
    """A pattern and its answers, which are given in turn."""

    pattern: str
    exact: str | None = None
    regex: re.Pattern[str] | None = None
    is_wildcard: bool = False
    answers: tuple[Answer, ...] = ()

    def match(self, text: str) -> dict[str, str] | None:
        """Return the pattern's named groups when it matches, else None."""
        if self.exact is not None:
            return {} if plain(text) == self.exact else None
        assert self.regex is not None
        found = self.regex.fullmatch(plain(text)) if self.is_wildcard else self.regex.search(text)
        return None if found is None else {k: v or "" for k, v in found.groupdict().items()}


@attrs.frozen(kw_only=True)
class Script:
    """Everything that the agent hears, says and costs."""

    rules: tuple[Rule, ...] = ()
    default: tuple[Answer, ...] = (Answer(say="You said: {text}"),)
    hears: tuple[str, ...] = ()
    """Words of the user's spoken utterances, in turn."""
    hears_default: str = "hello there"
    """Words of every further spoken utterance."""
    delay_ms: float = 200.0
    """From the end of a request to the first output."""
    jitter_ms: float = 0.0
    """Up to so much is added to each delay, by the seed."""
    seed: int = 0
    pace: float = 5.0
    """Output is sent at so many times real time."""
    words_per_minute: float = 170.0
    voice: str | None = None
    synthesizer: str = "tones"
    price_per_minute_usd: float = 0.0
    """For each minute of audio, heard or spoken."""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], *, ignore: Collection[str] = ()) -> Script:
        """Read a script from ``metadata``.

        Args:
            values: Keys of the format, and ``script``: the path of a TOML file. Other keys given here win
                over the file's; its patterns follow those given here.
            ignore: Keys that mean something to somebody else.

        Raises:
            ConfigError: A key, type, range or pattern is wrong, or the file cannot be read.
        """
        values = {key: value for key, value in values.items() if key not in ignore or key in _KEYS}
        path = values.pop("script", None)
        own = _Source("metadata", None).read(values, extra=("script", *ignore))
        if path is None:
            return cls(**own)
        if not isinstance(path, str | Path):
            raise ConfigError(f"metadata: script is {type(path).__name__}; it takes the path of a TOML file.")
        file = _read_file(Path(path))
        return cls(**{**file, **own, "rules": own.get("rules", ()) + file.get("rules", ())})

    @classmethod
    def from_file(cls, path: str | Path) -> Script:
        """Read a script from a TOML file. Raises ConfigError as ``from_mapping`` does, with the line."""
        return cls(**_read_file(Path(path)))


class ScriptRun:
    """One session's way through a script: what comes next, and the random numbers. Not thread-safe."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self._random: random.Random | None = None  # Made when it is needed: its state is 2.5 kB a session.
        self._n_heard = 0
        self._n_given: dict[int, int] = {}
        # Stable, so exact patterns come first and the rest stay in the order in which they are written.
        self._rules = sorted(enumerate(script.rules), key=lambda entry: entry[1].exact is None)

    def hear(self) -> str:
        """Return the words of the next spoken utterance."""
        n = self._n_heard
        self._n_heard += 1
        return self.script.hears[n] if n < len(self.script.hears) else self.script.hears_default

    def find(self, text: str) -> tuple[Answer, dict[str, str]] | None:
        """Return the scripted answer to a text and the pattern's groups, None when no pattern matches."""
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
        script = self.script
        delay_ms = script.delay_ms if answer.delay_ms is None else answer.delay_ms
        if script.jitter_ms:
            if self._random is None:
                self._random = random.Random(script.seed)
            delay_ms += self._random.uniform(0.0, script.jitter_ms)
        return delay_ms / 1000.0

    def _next(self, key: int, answers: tuple[Answer, ...]) -> Answer:
        n = self._n_given.get(key, 0)
        self._n_given[key] = n + 1
        return answers[n % len(answers)]


# -- reading ------------------------------------------------------------------------------------

_Path = tuple[str | int, ...]


def _show(path: _Path) -> str:
    out = ""
    for part in path:
        if isinstance(part, int):
            out += f"[{part}]"
        else:
            key = part if re.fullmatch(r"[\w-]+", part, re.ASCII) else json.dumps(part, ensure_ascii=False)
            out += f".{key}" if out else key
    return out


@attrs.frozen
class _Source:
    """Where values come from: says so, with the line where it can, in every error."""

    name: str
    text: str | None

    def error(self, path: _Path, problem: str) -> ConfigError:
        line = _line_of(self.text, path) if self.text is not None else None
        where = self.name if line is None else f"{self.name}, line {line}"
        return ConfigError(f"{where}: {_show(path)} {problem}")

    def read(self, values: Mapping[str, Any], extra: Collection[str] = ()) -> dict[str, Any]:
        """Return the attributes of :class:`Script` that the values give."""
        self.check_keys((), values, (*_KEYS, *extra))
        return {
            "rules" if key == "responses" else key: _KEYS[key](self, (key,), value)
            for key, value in values.items()
        }

    def check_keys(self, path: _Path, values: Mapping[Any, Any], known: Collection[str]) -> None:
        for key in values:
            if key not in known:
                close = difflib.get_close_matches(str(key), known, 1)
                hint = f" Did you mean {close[0]!r}?" if close else ""
                raise self.error(
                    (*path, str(key)), f"is not a key of a script.{hint} The keys here: {', '.join(known)}."
                )

    def kind(self, path: _Path, value: object, takes: str) -> ConfigError:
        return self.error(path, f"is {type(value).__name__}; it takes {takes}.")

    def string(self, path: _Path, value: object) -> str:
        if not isinstance(value, str):
            raise self.kind(path, value, "a text")
        return value

    def words(self, path: _Path, value: object) -> str:
        text = self.string(path, value)
        if not text.strip():
            raise self.error(path, "is empty; an utterance has words.")
        return text

    def strings(self, path: _Path, value: object) -> tuple[str, ...]:
        if not isinstance(value, list | tuple):
            raise self.kind(path, value, "a list of texts")
        return tuple(self.words((*path, n), item) for n, item in enumerate(value))

    def responses(self, path: _Path, value: object) -> tuple[Rule, ...]:
        if not isinstance(value, Mapping):
            raise self.kind(path, value, "a table of patterns and answers")
        return tuple(self.rule((*path, str(pattern)), pattern, answer) for pattern, answer in value.items())

    def rule(self, path: _Path, pattern: object, value: object) -> Rule:
        if not isinstance(pattern, str):
            raise self.kind(path, pattern, "a text as its pattern")
        answers = self.answers(path, value)
        if pattern.startswith("re:"):
            try:
                return Rule(pattern, regex=re.compile(pattern[3:], re.IGNORECASE), answers=answers)
            except re.error as error:
                raise self.error(path, f"is no regular expression: {error}.") from None
        if "*" in pattern:
            cleaned = _NOT_WORD_BUT_STAR.sub(" ", _APOSTROPHE.sub("", pattern)).casefold()
            parts = [re.escape(" ".join(part.split())) for part in cleaned.split("*")]
            # A star stands for any words, also none, so the spaces beside it may be missing.
            body = ".*".join(parts)
            return Rule(pattern, regex=re.compile(body, re.DOTALL), is_wildcard=True, answers=answers)
        exact = plain(pattern)
        if not exact:
            raise self.error(path, "is a pattern without words, which matches nothing. Use '*' to match all.")
        return Rule(pattern, exact=exact, answers=answers)

    def answers(self, path: _Path, value: object) -> tuple[Answer, ...]:
        if not isinstance(value, list | tuple):
            return (self.answer(path, value),)
        if not value:
            raise self.error(path, "is an empty list; it takes at least one answer.")
        return tuple(self.answer((*path, n), item) for n, item in enumerate(value))

    def answer(self, path: _Path, value: object) -> Answer:
        if isinstance(value, str):
            return Answer(say=value)
        if not isinstance(value, Mapping):
            raise self.kind(path, value, "a text, a table or a list of them")
        self.check_keys(path, value, _ANSWER_KEYS)
        calls: tuple[Call, ...] = ()
        if "tool" in value:
            if "calls" in value:
                raise self.error((*path, "calls"), "stands beside tool; give one of the two.")
            calls = (self.call(path, {k: value[k] for k in ("tool", "arguments") if k in value}),)
        elif "arguments" in value:
            raise self.error((*path, "arguments"), "has no tool beside it.")
        elif "calls" in value:
            calls = self.calls((*path, "calls"), value["calls"])
        if "then" in value and not calls:
            raise self.error((*path, "then"), "has no tool beside it whose result it could follow.")
        if not calls and "say" not in value:
            raise self.error(path, "says nothing and calls nothing; it takes say, tool or calls.")
        return Answer(
            say=self.string((*path, "say"), value.get("say", "")),
            calls=calls,
            then=self.answer((*path, "then"), value["then"]) if "then" in value else None,
            delay_ms=_milliseconds(self, (*path, "delay_ms"), value["delay_ms"])
            if "delay_ms" in value
            else None,
        )

    def calls(self, path: _Path, value: object) -> tuple[Call, ...]:
        if not isinstance(value, list | tuple) or not value:
            raise self.kind(path, value, "a list of tables with tool and arguments")
        return tuple(self.call((*path, n), item) for n, item in enumerate(value))

    def call(self, path: _Path, value: object) -> Call:
        if not isinstance(value, Mapping):
            raise self.kind(path, value, "a table with tool and arguments")
        self.check_keys(path, value, ("tool", "arguments"))
        arguments = value.get("arguments", {})
        if not isinstance(arguments, Mapping):
            raise self.kind((*path, "arguments"), arguments, "a table")
        try:
            copied = json.loads(json.dumps(arguments))
        except (TypeError, ValueError):
            raise self.error((*path, "arguments"), "holds a value that JSON cannot carry.") from None
        return Call(tool=self.words((*path, "tool"), value.get("tool", "")), arguments=copied)


_Read = Callable[[_Source, _Path, Any], Any]


def _number(low: float, high: float, unit: str) -> _Read:
    def read(source: _Source, path: _Path, value: object) -> float:
        takes = f"a number from {low:g} to {high:g} ({unit})"
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise source.kind(path, value, takes)
        if not low <= value <= high:
            raise source.error(path, f"is {value:g}; it takes {takes}.")
        return float(value)

    return read


def _whole(source: _Source, path: _Path, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise source.kind(path, value, "a whole number")
    return value


def _one_of(*words: str) -> _Read:
    def read(source: _Source, path: _Path, value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise source.error(path, f"takes one of {', '.join(map(repr, words))}.")
        return value

    return read


_milliseconds: Final = _number(0, 600_000, "ms")
_ANSWER_KEYS: Final = ("say", "tool", "arguments", "calls", "then", "delay_ms")
_KEYS: Final[dict[str, _Read]] = {
    "responses": _Source.responses,
    "default": _Source.answers,
    "hears": _Source.strings,
    "hears_default": _Source.words,
    "delay_ms": _milliseconds,
    "jitter_ms": _milliseconds,
    "seed": _whole,
    "pace": _number(0.1, 1000, "times real time"),
    "words_per_minute": _number(40, 600, "words per minute"),
    "voice": _Source.words,
    "synthesizer": _one_of("tones", "espeak"),
    "price_per_minute_usd": _number(0, 1000, "US dollars"),
}
SCRIPT_KEYS: Final = tuple(_KEYS)
"""The keys at the top of a script."""


def _read_file(path: Path) -> dict[str, Any]:
    name = path.name
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The script {name!r} cannot be read ({type(error).__name__}). "
            "metadata['script'] takes the path of a TOML file in UTF-8."
        ) from None
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name} is not valid TOML: {error}.") from None
    return _Source(name, text).read(content)


_HEADER: Final = re.compile(r"\s*\[\[?(?P<keys>[^\]]+)\]\]?")
_KEY_TEXT: Final = r"""(?:"(?:\\.|[^"\\])*"|'[^']*'|[\w-]+)"""
_ENTRY: Final = re.compile(rf"\s*(?P<keys>{_KEY_TEXT}(?:\s*\.\s*{_KEY_TEXT})*)\s*=")
_KEY: Final = re.compile(f"({_KEY_TEXT})")


def _line_of(text: str, path: _Path) -> int | None:
    """Return the line on which the longest known part of a key's path stands, None when none does."""
    wanted = [part for part in path if isinstance(part, str)]
    table: list[str] = []
    best: tuple[int, int] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        entry = None if header else _ENTRY.match(line)
        if header:
            found = table = _keys(header["keys"])
        elif entry:
            found = [*table, *_keys(entry["keys"])]
        else:
            continue
        if found and found == wanted[: len(found)] and (best is None or len(found) > best[0]):
            best = len(found), number
    return None if best is None else best[1]


def _keys(text: str) -> list[str]:
    keys = []
    for match in _KEY.finditer(text):
        key = match[1]
        if key[0] == '"':
            try:
                key = str(tomllib.loads(f"k = {key}")["k"])
            except tomllib.TOMLDecodeError:
                key = key[1:-1]
        elif key[0] == "'":
            key = key[1:-1]
        keys.append(key)
    return keys
