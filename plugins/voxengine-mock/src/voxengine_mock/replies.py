"""How the agent chooses an answer when the script has none, and what it makes of tools."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from voxengine.notes import CONTINUE, USE_RESULT
from voxengine_mock.script import Answer, Call, ScriptRun, fill, plain
from voxengine_mock.settings import Settings, Tool

__all__ = ["STORY", "ToolRound", "arguments_for", "choose", "go_on"]

_ASKS_LONG: Final = re.compile(r"\blong (?:story|tale|poem|text|speech|answer)\b|\brecite\b")
_ASKS_BACK: Final = re.compile(r"\bwhat (?:did|have) i (?:just )?(?:say|said)\b")
_AFTER_PREPOSITION: Final = re.compile(r"\b(?:in|for|at|of|to|about)\s+([^?.!,;]+)", re.IGNORECASE)

STORY: Final = (
    "Once there was a lighthouse at the edge of a quiet sea, and in it lived a keeper who counted the waves. "
    "Every evening she climbed the stairs, lit the lamp, and wrote one number into a small blue book. "
    "One night the fog came in so thick that the light could not find the water. "
    "So she rang the bell, slowly, once for every wave, and far away a ship began to answer. "
    "They rang to each other until morning, the bell and the ship, and neither of them ever missed a beat. "
    "When the sun rose and the fog was gone, the keeper saw a hundred small boats behind the ship, all safe. "
    "She closed the blue book, smiled, and wrote no number that day, because nobody counts what is "
    "already home."
)
"""What a request for something long gets: more than half a minute of speech."""


def choose(
    text: str, run: ScriptRun, settings: Settings, earlier: Sequence[str]
) -> tuple[Answer, dict[str, str]]:
    """Return the answer to a user turn and the groups of the pattern that matched.

    A forced tool choice comes first, then the script, a declared tool that the text names, a request for
    something long or for what was said before, and the script's default.

    Args:
        earlier: What the user said before, oldest first.
    """
    forced = _forced(settings, text)
    if forced is not None:
        return _calling(forced, text), {}
    found = run.find(text)
    if found is not None:
        return found
    words = plain(text)
    named = [tool for tool in settings.tools if _names(words, tool)]
    if named and settings.tool_choice != "none":
        return _calling(named[0], text), {}
    if _ASKS_LONG.search(words):
        return Answer(say=STORY), {}
    if _ASKS_BACK.search(words) and earlier:
        return Answer(say="You said: {earlier}"), {"earlier": earlier[-1]}
    return run.default(), {}


def go_on(
    note: str, answer: Answer, names: Mapping[str, Any], heard: str, result: str | None
) -> tuple[Answer, dict[str, Any]]:
    """Return what a note asks for of the answer to the user's last turn, and what its places stand for.

    Args:
        note: One of :data:`voxengine.notes.NOTES`.
        heard: What the user heard of the agent last.
        result: The latest result of a tool; None: there is none.
    """
    names = {**names, "result": result or "", "result_1": result or ""}
    if answer.calls:  # Called before: not again, even where the result came as text and is not known as one.
        answer = answer.then or Answer(say="{result}")
    elif note == USE_RESULT and result is not None:
        return Answer(say="{result}"), names
    if note != CONTINUE:
        return answer, names
    words, known = fill(answer.say, names).split(), heard.split()
    if known and words[: len(known)] == known and len(words) > len(known):
        rest = " ".join(words[len(known) :])
        answer = attrs.evolve(answer, say=rest, duration_ms=None, at_ms=())
    return answer, names


def _names(words: str, tool: Tool) -> bool:
    return f" {plain(tool.name)} " in f" {words} "


def _forced(settings: Settings, text: str) -> Tool | None:
    if settings.tool_choice == "required" and settings.tools:
        words = plain(text)
        return next((tool for tool in settings.tools if _names(words, tool)), settings.tools[0])
    return settings.tool(settings.tool_choice)


def _calling(tool: Tool, text: str) -> Answer:
    call = Call(tool.name, _invented(tool.parameters, text))
    return Answer(calls=(call,), then=Answer(say=f"{plain(tool.name)} says: {{result}}".capitalize()))


def _invented(schema: Mapping[str, Any], text: str) -> dict[str, Any]:
    """Return arguments that fit a schema: every required one, from the text where that is possible."""
    properties = schema.get("properties")
    required = schema.get("required")
    if not isinstance(properties, Mapping):
        return {}
    names = required if isinstance(required, list) else []
    return {name: _value(properties.get(name), text) for name in names if isinstance(name, str)}


def _value(schema: object, text: str) -> Any:
    if not isinstance(schema, Mapping):
        return text
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("enum", "examples"):
        options = schema.get(key)
        if isinstance(options, list) and options:
            return options[0]
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((word for word in kind if word != "null"), "null")
    if kind == "object":
        return _invented(schema, text)
    if kind in ("integer", "number"):
        number = re.search(r"-?\d+", text)
        return int(number[0]) if number else schema.get("minimum", 1)
    if kind == "string":
        place = _AFTER_PREPOSITION.search(text)
        return place[1].strip() if place else text
    return {"boolean": True, "array": [], "null": None}.get(str(kind), text)


def arguments_for(call: Call, names: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call's arguments with the places in their texts filled."""
    filled = _filled(dict(call.arguments), names)
    assert isinstance(filled, dict)
    return filled


def _filled(value: Any, names: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        return fill(value, names)
    if isinstance(value, Mapping):
        return {key: _filled(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, names) for inner in value]
    return value


@attrs.define
class ToolRound:
    """The calls that one response made, until each has its result."""

    call_ids: tuple[str, ...]
    tools: tuple[str, ...]
    then: Answer | None
    names: Mapping[str, Any] = attrs.field(repr=False)
    results: dict[str, tuple[str, bool]] = attrs.field(factory=dict, repr=False)

    is_over: bool = False
    """Whether what comes after it was begun."""

    @property
    def is_complete(self) -> bool:
        """Whether every call has its result."""
        return len(self.results) == len(self.call_ids)

    def follow_up(self) -> tuple[Answer, dict[str, Any]]:
        """Return what comes after the results that are there, and what its places stand for."""
        names: dict[str, Any] = dict(self.names)
        names["result"] = ""
        for n, call_id in reversed(tuple(enumerate(self.call_ids, 1))):
            if call_id in self.results:
                names["result"] = names[f"result_{n}"] = self.results[call_id][0]
        for call_id, tool in zip(self.call_ids, self.tools, strict=True):
            output, is_error = self.results.get(call_id, ("", False))
            if is_error:
                failed = Answer(say="{failed} did not work: {error}")
                return failed, {**names, "failed": tool, "error": output}
        return self.then or Answer(say="{result}"), names
