"""Reads a script and checks all of it: keys, types, ranges, times that cannot be, patterns that never match."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from voxengine.errors import ConfigError
from voxengine_mock.faults import Fault, read_fault
from voxengine_mock.patterns import Glob, PatternError, Regex
from voxengine_mock.reading import Read, Source, milliseconds, number, one_of, read_toml, whole
from voxengine_mock.script import (
    SCRIPT_KEYS,
    Answer,
    Call,
    Delays,
    Rule,
    Tokens,
    Utterance,
    n_words,
    plain,
)
from voxengine_mock.script_places import check_places
from voxengine_mock.toml_lines import KeyPath

__all__ = ["read_file", "read_mapping"]

_NOT_WORD_BUT_STAR: Final = re.compile(r"[^\w\s*]|_")
_APOSTROPHE: Final = re.compile(r"['’`]")
_FASTEST_WORD_MS: Final = 20
_SLOWEST_WORD_MS: Final = 10_000
_MAX_SPEECH_MS: Final = 600_000


def read_file(path: str | Path) -> dict[str, Any]:
    """Return the attributes of a Script that a TOML file gives. Raises ConfigError."""
    source, content = read_toml(path)
    return _read(source, content)


def read_mapping(name: str, values: Mapping[str, Any], extra: Collection[str] = ()) -> dict[str, Any]:
    """Return the attributes of a Script that a mapping gives; ``name`` says in errors where it is from."""
    return _read(Source(name), values, extra)


def _read(source: Source, values: Mapping[str, Any], extra: Collection[str] = ()) -> dict[str, Any]:
    source.check_keys((), values, (*SCRIPT_KEYS, *extra))
    return {
        "rules" if key == "responses" else key: _KEYS[key](source, (key,), value)
        for key, value in values.items()
    }


# -- patterns -----------------------------------------------------------------------------------


def _responses(source: Source, path: KeyPath, value: object) -> tuple[Rule, ...]:
    if not isinstance(value, Mapping):
        raise source.kind(path, value, "a table of patterns and answers")
    rules: list[Rule] = []
    same: dict[object, Rule] = {}
    for pattern, answers in value.items():
        here = (*path, str(pattern))
        rule = _rule(source, here, pattern, answers)
        meaning = (rule.exact, rule.glob, rule.regex and rule.regex.key)
        if meaning in same:
            why = "is the same pattern, since case and punctuation do not count. Give the answers as a list there."
            raise _never(source, here, same[meaning], why)
        same[meaning] = rule
        rules.append(rule)
        # Exact patterns come first, wherever they stand.
        for earlier in rules[:-1] if rule.exact is None else ():
            why = "" if earlier.exact is not None else _shadow(rule, earlier)
            if why:
                raise _never(source, here, earlier, why)
    return tuple(rules)


def _never(source: Source, path: KeyPath, earlier: Rule, why: str) -> ConfigError:
    shown, line = json.dumps(earlier.pattern, ensure_ascii=False), source.line((*path[:-1], earlier.pattern))
    return source.error(path, f"never matches: {shown}{line} {why}")


def _shadow(rule: Rule, earlier: Rule) -> str:
    """Say why a rule never comes to its turn behind an earlier one; empty when it may. Neither is exact."""
    sieve = earlier.glob or earlier.regex
    assert sieve is not None
    if sieve.matches_everything:
        return "before it matches everything. Put that one last."
    if earlier.glob is not None and rule.glob is not None and earlier.glob.covers(rule.glob):
        return "before it matches all that this one does. Put that one behind it."
    return ""


def _rule(source: Source, path: KeyPath, pattern: object, value: object) -> Rule:
    if not isinstance(pattern, str):
        raise source.kind(path, pattern, "a text as its pattern")
    answers = _answers(source, path, value)
    regex = _regex(source, path, pattern) if pattern.startswith("re:") else None
    check_places(source, path, value, {} if regex is None else regex.groups)
    if regex is not None:
        return Rule(pattern, regex=regex, answers=answers)
    if "*" in pattern:
        cleaned = _NOT_WORD_BUT_STAR.sub(" ", _APOSTROPHE.sub("", pattern)).casefold()
        # A star stands for any words, also none, so the spaces beside it may be missing.
        parts = (" ".join(part.split()) for part in re.split(r"(?:\*\s*)+", cleaned))
        return Rule(pattern, glob=Glob(tuple(parts)), answers=answers)
    exact = plain(pattern)
    if not exact:
        raise source.error(path, "is a pattern without words, which matches nothing. Use '*' to match all.")
    return Rule(pattern, exact=exact, answers=answers)


def _regex(source: Source, path: KeyPath, pattern: str) -> Regex:
    if not pattern[3:].strip():
        raise source.error(path, "is an empty regular expression. Use '*' to match all.")
    try:
        return Regex(pattern[3:])
    except PatternError as error:
        raise source.error(path, str(error)) from None


# -- answers ------------------------------------------------------------------------------------


def _answers(source: Source, path: KeyPath, value: object) -> tuple[Answer, ...]:
    if not isinstance(value, list | tuple):
        return (_answer(source, path, value),)
    if not value:
        raise source.error(path, "is an empty list; it takes at least one answer.")
    return tuple(_answer(source, (*path, n), item) for n, item in enumerate(value))


def _default(source: Source, path: KeyPath, value: object) -> tuple[Answer, ...]:
    answers = _answers(source, path, value)
    check_places(source, path, value, {})
    return answers


_ANSWER_KEYS: Final = (
    "say",
    "tool",
    "arguments",
    "calls",
    "then",
    "delay_ms",
    "duration_ms",
    "at_ms",
    "usage",
)


def _answer(source: Source, path: KeyPath, value: object, depth: int = 0) -> Answer:
    if isinstance(value, str):
        return Answer(say=source.words(path, value))
    if not isinstance(value, Mapping):
        raise source.kind(path, value, "a text, a table or a list of them")
    if depth > 20:
        raise source.error(path, "follows more than 20 other answers.")
    source.check_keys(path, value, _ANSWER_KEYS)
    calls: tuple[Call, ...] = ()
    if "tool" in value:
        if "calls" in value:
            raise source.error((*path, "calls"), "stands beside tool; give one of the two.")
        calls = (_call(source, path, {k: value[k] for k in ("tool", "arguments") if k in value}),)
    elif "arguments" in value:
        raise source.error((*path, "arguments"), "has no tool beside it.")
    elif "calls" in value:
        calls = _calls(source, (*path, "calls"), value["calls"])
    if "then" in value and not calls:
        raise source.error((*path, "then"), "has no tool beside it whose result it could follow.")
    if not calls and "say" not in value:
        raise source.error(path, "says nothing and calls nothing; it takes say, tool or calls.")
    # Beside a call there may be no words; an answer of nothing at all leaves everybody waiting.
    say = source.string((*path, "say"), value["say"]) if "say" in value else ""
    if not calls and not say.strip():
        raise source.error((*path, "say"), "is empty; it takes a text.")
    found: dict[str, Any] = {}
    if "delay_ms" in value:
        found["delay_ms"] = milliseconds(source, (*path, "delay_ms"), value["delay_ms"])
    if "duration_ms" in value:
        found["duration_ms"] = _duration(source, (*path, "duration_ms"), value["duration_ms"], say)
    if "at_ms" in value:
        end_ms = found.get("duration_ms", _MAX_SPEECH_MS)
        found["at_ms"] = _at(source, (*path, "at_ms"), value["at_ms"], say, end_ms)
    if "usage" in value:
        found["usage"] = _usage_of_answer(source, (*path, "usage"), value["usage"])
    if "then" in value:
        found["then"] = _answer(source, (*path, "then"), value["then"], depth + 1)
    return Answer(say=say, calls=calls, **found)


def _duration(source: Source, path: KeyPath, value: object, say: str) -> float:
    duration_ms: float = number(1, _MAX_SPEECH_MS, "ms")(source, path, value)
    least = _FASTEST_WORD_MS * len(say.split())
    if not least:
        raise source.error(path, "has no say beside it that could last so long.")
    most = _SLOWEST_WORD_MS * len(say.split())
    if not least <= duration_ms <= most:
        raise source.error(
            path, f"is {duration_ms:g}, which {len(say.split())} words cannot take: {least} to {most} ms."
        )
    return duration_ms


def _at(source: Source, path: KeyPath, value: object, say: str, end_ms: float) -> tuple[float, ...]:
    if re.search(r"\{[A-Za-z_]", say):
        raise source.error(path, "times the words of a text with places, whose number is not known.")
    found: list[float] = []
    for here, item in source.items(path, value, "a list with the time of each word"):
        at_ms: float = milliseconds(source, here, item)
        if found and at_ms < found[-1] + _FASTEST_WORD_MS:
            raise source.error(
                here, f"is {at_ms:g}, not {_FASTEST_WORD_MS} ms after {found[-1]:g}. Times only go up."
            )
        if at_ms + _FASTEST_WORD_MS > end_ms:
            raise source.error(here, f"is {at_ms:g}, when the {end_ms:g} ms of the answer are over.")
        found.append(at_ms)
    if len(found) != len(say.split()):
        raise source.error(path, f"has {len(found)} times for {len(say.split())} words.")
    return tuple(found)


def _usage_of_answer(source: Source, path: KeyPath, value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise source.kind(path, value, "a table of numbers")
    return {str(key): number(0, 1e12, "a count")(source, (*path, str(key)), n) for key, n in value.items()}


def _calls(source: Source, path: KeyPath, value: object) -> tuple[Call, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise source.kind(path, value, "a list of tables with tool and arguments")
    return tuple(_call(source, (*path, n), item) for n, item in enumerate(value))


def _call(source: Source, path: KeyPath, value: object) -> Call:
    if not isinstance(value, Mapping):
        raise source.kind(path, value, "a table with tool and arguments")
    source.check_keys(path, value, ("tool", "arguments"))
    arguments = value.get("arguments", {})
    if not isinstance(arguments, Mapping):
        raise source.kind((*path, "arguments"), arguments, "a table")
    try:
        copied = json.loads(json.dumps(arguments, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        raise source.error(
            _uncarried((*path, "arguments"), arguments), "holds a value that JSON cannot carry."
        ) from None
    return Call(tool=source.words((*path, "tool"), value.get("tool", "")), arguments=copied)


def _uncarried(path: KeyPath, value: object) -> KeyPath:
    """Return where the first value stands that JSON cannot carry."""
    inner: list[tuple[str | int, object]] = []
    if isinstance(value, Mapping):
        inner = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list | tuple):
        inner = list(enumerate(value))
    for key, item in inner:
        try:
            json.dumps(item, allow_nan=False)
        except RecursionError:
            return path
        except (TypeError, ValueError):
            return _uncarried((*path, key), item)
    return path


# -- what is heard ------------------------------------------------------------------------------

_UTTERANCE_KEYS: Final = ("text", "partials", "words", "word_ms", "delay_ms")


def _hears(source: Source, path: KeyPath, value: object) -> tuple[Utterance, ...]:
    takes = "a list of texts or tables"
    return tuple(_utterance(source, here, item) for here, item in source.items(path, value, takes))


def _utterance(source: Source, path: KeyPath, value: object) -> Utterance:
    if isinstance(value, str):
        return Utterance(_spoken(source, path, value))
    if not isinstance(value, Mapping):
        raise source.kind(path, value, "a text or a table with text")
    source.check_keys(path, value, _UTTERANCE_KEYS, "an utterance")
    if "text" not in value:
        raise source.error(path, "has no text.")
    found: dict[str, Any] = {"text": _spoken(source, (*path, "text"), value["text"])}
    if "partials" in value:
        items = source.items((*path, "partials"), value["partials"], "a list of texts")
        found["partials"] = tuple(source.words(here, item) for here, item in items)
    if "words" in value:
        found["words"] = _word_times(source, (*path, "words"), value["words"], found["text"])
    if "word_ms" in value:
        found["word_ms"] = number(_FASTEST_WORD_MS, 10_000, "ms")(
            source, (*path, "word_ms"), value["word_ms"]
        )
    if "delay_ms" in value:
        found["delay_ms"] = milliseconds(source, (*path, "delay_ms"), value["delay_ms"])
    return Utterance(**found)


def _spoken(source: Source, path: KeyPath, value: object) -> str:
    text = source.words(path, value)
    if n_words(text) < 2:
        raise source.error(path, "has fewer than two words; a recognised utterance has two or more.")
    return text


def _word_times(
    source: Source, path: KeyPath, value: object, text: str
) -> tuple[tuple[str, float, float], ...]:
    found: list[tuple[str, float, float]] = []
    for here, item in source.items(path, value, "a list of tables with word, at_ms and end_ms"):
        table = source.table(here, item, ("word", "at_ms", "end_ms"), "a word")
        for key in ("word", "at_ms", "end_ms"):
            if key not in table:
                raise source.error(here, f"has no {key}.")
        at_ms = milliseconds(source, (*here, "at_ms"), table["at_ms"])
        end_ms = milliseconds(source, (*here, "end_ms"), table["end_ms"])
        if found and at_ms < found[-1][2]:
            raise source.error((*here, "at_ms"), f"is {at_ms:g}, before the word before it ends.")
        if end_ms <= at_ms:
            raise source.error((*here, "end_ms"), f"is {end_ms:g}; the word begins at {at_ms:g}.")
        found.append((source.words((*here, "word"), table["word"]), at_ms, end_ms))
    if len(found) != len(text.split()):
        raise source.error(path, f"has {len(found)} words and the text {len(text.split())}.")
    return tuple(found)


# -- the rest -----------------------------------------------------------------------------------

_DELAYS: Final = ("handshake_ms", "ready_ms", "transcript_ms", "audio_ms", "tool_ms")
_TOKENS: Final = ("per_word", "input_audio_per_s", "output_audio_per_s")


def _delays(source: Source, path: KeyPath, value: object) -> Delays:
    table = source.table(path, value, _DELAYS, "the delays")
    return Delays(**{key: milliseconds(source, (*path, key), ms) for key, ms in table.items()})


def _tokens(source: Source, path: KeyPath, value: object) -> Tokens:
    table = source.table(path, value, _TOKENS, "the usage")
    return Tokens(**{key: number(0, 10_000, "tokens")(source, (*path, key), n) for key, n in table.items()})


def _faults(source: Source, path: KeyPath, value: object) -> tuple[Fault, ...]:
    items = source.items(path, value, "a list of tables with do and at")
    return tuple(read_fault(source, here, item) for here, item in items)


_KEYS: Final[dict[str, Read]] = {
    "responses": _responses,
    "default": _default,
    "hears": _hears,
    "hears_default": _utterance,
    "delay_ms": milliseconds,
    "jitter_ms": milliseconds,
    "delays": _delays,
    "seed": whole(),
    "pace": number(0.1, 1000, "times real time"),
    "words_per_minute": number(40, 600, "words per minute"),
    "voice": Source.words,
    "synthesizer": one_of("tones", "espeak"),
    "price_per_minute_usd": number(0, 1000, "US dollars"),
    "usage": _tokens,
    "faults": _faults,
}
