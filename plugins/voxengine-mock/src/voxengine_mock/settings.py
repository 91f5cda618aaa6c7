"""The settings of one session of the simulated agent, checked when they arrive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from voxengine.audio.format import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE
from voxengine.errors import ConfigError

__all__ = ["Settings", "Tool"]

_KINDS: Final = ("server", "client", "manual")


@attrs.frozen
class Tool:
    """A function that the agent may call."""

    name: str
    parameters: Mapping[str, Any]
    """A JSON schema."""
    is_remote: bool = False
    """The service calls it by itself, and speaks on with its result."""
    needs_approval: bool = False
    """A remote one: the client has to allow the call first."""


@attrs.frozen(kw_only=True)
class Settings:
    """What the client may choose. Unset texts are empty."""

    turn_detection: str = "server"
    """``server``: the agent listens for silence; ``client``, ``manual``: it waits for the end of the turn."""
    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_ms: int = 500
    patience_ms: int | None = None
    """With it the words count too: where they are unfinished, a turn ends after so much silence."""
    idle_timeout_ms: int | None = None
    """After so long without a word from the user the agent speaks up; for ``server`` only."""
    interrupt_response: bool = True
    """Whether the user's voice stops a response; for ``server`` only."""
    create_response: bool = True
    """Whether a spoken turn is answered without being asked to; for ``server`` only."""
    input_rate: int = 24_000
    output_rate: int = 24_000
    voice: str = ""
    speed: float = 1.0
    """Of the voice, over the script's."""
    language: str = "en-US"
    instructions: str = ""
    transcription: bool = True
    audio: bool = True
    """Whether answers are spoken; else they are text alone."""
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    max_output_tokens: int | None = None
    """Tokens after which an answer is cut: words, unless the script counts otherwise."""

    def merged(self, changes: Mapping[str, Any], *, is_open: bool = False) -> Settings:
        """Return a copy with the changes.

        Args:
            changes: As they came: nothing about them is trusted.
            is_open: Whether audio may already flow, so that the rates are fixed.

        Raises:
            ConfigError: A name is unknown, or a value has the wrong type or range.
        """
        values: dict[str, Any] = {}
        for name, value in changes.items():
            check = _CHECKS.get(name)
            if check is None:
                raise ConfigError(f"There is no setting {name!r}. The settings: {', '.join(_CHECKS)}.")
            values[name] = check(name, value)
        for name in ("input_rate", "output_rate"):
            if is_open and values.get(name, getattr(self, name)) != getattr(self, name):
                raise ConfigError(f"{name} is fixed for the session.")
        return attrs.evolve(self, **values)

    def to_dict(self) -> dict[str, Any]:
        """Return as plain JSON values what :meth:`merged` takes."""
        values = {name: getattr(self, name) for name in _CHECKS}
        values["tools"] = [tool.name for tool in self.tools]
        return values

    def tool(self, name: str) -> Tool | None:
        """Return a declared tool."""
        return next((tool for tool in self.tools if tool.name == name), None)


def _bad(name: str, takes: str) -> ConfigError:
    return ConfigError(f"The setting {name} takes {takes}.")


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _bad(name, "true or false")
    return value


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise _bad(name, "a text")
    return value


def _kind(name: str, value: object) -> str:
    if value not in _KINDS:
        raise _bad(name, f"one of {', '.join(_KINDS)}")
    return str(value)


def _int(low: int, high: int) -> Any:
    def check(name: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _bad(name, f"a whole number from {low} to {high}")
        return value

    return check


def _threshold(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise _bad(name, "a number from 0 to 1")
    return float(value)


def _max_output_tokens(name: str, value: object) -> int | None:
    return None if value is None else int(_int(1, 1_000_000)(name, value))


def _tools(name: str, value: object) -> tuple[Tool, ...]:
    if not isinstance(value, list | tuple):
        raise _bad(name, "a list of function tools")
    out = []
    for entry in value:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str) or not entry["name"]:
            raise _bad(name, "a list of objects with name and parameters")
        parameters = entry.get("parameters")
        out.append(Tool(entry["name"], parameters if isinstance(parameters, Mapping) else {}))
    return tuple(out)


_CHECKS: Final[dict[str, Any]] = {
    "turn_detection": _kind,
    "threshold": _threshold,
    "prefix_padding_ms": _int(0, 10_000),
    "silence_ms": _int(20, 10_000),
    "interrupt_response": _flag,
    "create_response": _flag,
    "input_rate": _int(MIN_SAMPLE_RATE, MAX_SAMPLE_RATE),
    "output_rate": _int(MIN_SAMPLE_RATE, MAX_SAMPLE_RATE),
    "voice": _text,
    "language": _text,
    "instructions": _text,
    "transcription": _flag,
    "audio": _flag,
    "tools": _tools,
    "tool_choice": _text,
    "max_output_tokens": _max_output_tokens,
}
