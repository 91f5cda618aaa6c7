"""The lines of a recording, and where each kind of them stands: what a replay goes by."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from voxengine._config_json import config_from_json
from voxengine.config import VoiceEngineConfig
from voxengine.errors import ConfigError
from voxengine.recording_file import Tape
from voxengine.recording_values import from_plain

__all__ = ["Score", "is_compared"]

_INPUTS: Final = frozenset({"call", "input", "reply", "said", "lost", "told", "tool", "played", "one_turn"})
_OUTPUTS: Final = frozenset({"event", "ask", "session", "return", "step"})


def is_compared(line: Mapping[str, Any]) -> bool:
    """Return whether an event follows from what is recorded: not what a device, a handler or a tap caused."""
    if line.get("outside"):
        return False
    data = line["data"]
    return not (
        "handler" in data or "tap" in data or data.get("code") in ("slow_handler", "recording_failed")
    )


def _check_types(line: Mapping[str, Any], names: tuple[str, ...], kind: type) -> None:
    for name in names:
        if not isinstance(line[name], kind):
            raise TypeError(f"{name} is no {kind.__name__}")


class Score:
    """A recording's lines in their order, of which some go into the engine and some came out of it.

    Raises:
        ConfigError: Lines were dropped, or are not what they should be.
    """

    def __init__(self, tape: Tape) -> None:
        if tape.n_missing:
            raise ConfigError(
                f"{tape.path.name!r} cannot be run again: {tape.n_missing} lines were dropped because the disk was too "
                "slow. `voxengine inspect` shows what is there."
            )
        self.tape = tape
        self.lines = tape.lines
        self.inputs: list[int] = []
        """Where the lines are that go into the engine."""
        self.n_before: list[int] = []
        """How many outputs come before each line."""
        self.n_all = 0
        """Outputs."""
        self.expected: list[Mapping[str, Any]] = []
        """Events that have to be the same."""
        self.asks: dict[tuple[int, str], deque[int]] = {}
        self.replies: dict[int, int] = {}
        self.returns: dict[int, int] = {}
        self.cancelling: dict[int, int] = {}
        """The call whose cancelling ended a call of the provider, by number."""
        self._cancelled: list[Mapping[str, Any]] = []
        self.answers: dict[tuple[str, str | None], deque[int]] = {}
        """What the playback clock answered."""
        self.steps: dict[str, deque[int]] = {}
        self._chances: deque[float] = deque()
        self._filtered: deque[Any] = deque()
        for index, line in enumerate(self.lines):
            try:
                self._add(index, line)
            except (KeyError, TypeError, ValueError, AttributeError):
                raise ConfigError(
                    f"Line {index + 2} of the recording {tape.path.name!r} is damaged."
                ) from None

    def _add(self, index: int, line: Mapping[str, Any]) -> None:
        kind = line["k"]
        if kind in _INPUTS or (kind == "return" and line.get("is_cancelled")):
            self.inputs.append(index)
        self.n_before.append(self.n_all)
        self.n_all += self._is_output(line)
        _check_types(line, ("i", "l"), int)
        if kind == "event":
            _check_types(line, ("type", "provider"), str)
            _check_types(line, ("epoch",), int)
            _check_types(line, ("data",), dict)
            if is_compared(line):
                self.expected.append(line)
        elif kind == "session":
            _check_types(line, ("session",), int)
            _check_types(line, ("provider",), str)
        elif kind == "ask":
            self.asks.setdefault((line["session"], line["hook"]), deque()).append(index)
        elif kind == "reply":
            self.replies[line["n"]] = index
            if line.get("is_cancelled"):
                self._cancelled.append(line)
        elif kind == "return":
            self.returns[line["n"]] = index
            if line.get("is_cancelled"):
                self.cancelling |= {
                    held["n"]: line["n"] for held in self._cancelled if held["t"] == line["t"]
                }
                self._cancelled.clear()
        elif kind == "call" and line["method"] == "disconnect":
            self._cancelled.clear()  # That ends what is open by itself.
        elif kind == "heard":
            self.answers.setdefault((line["of"], line["item"]), deque()).append(index)
        elif kind == "step":
            self.steps.setdefault(line["what"], deque()).append(index)
        elif kind == "chance":
            self._chances.append(float(line["value"]))
        elif kind == "filtered":
            self._filtered.append(line["audio"])

    @staticmethod
    def _is_output(line: Mapping[str, Any]) -> bool:
        if line["k"] not in _OUTPUTS or line.get("is_cancelled"):
            return False
        return line["k"] != "event" or is_compared(line)

    def time(self, index: int) -> float:
        """Return when a line was written, in seconds since the beginning."""
        return float(self.lines[index]["t"]) if self.lines else 0.0

    def draw(self) -> float:
        """Return the next random number."""
        return self._chances.popleft() if self._chances else 0.5

    def filtered(self, chunk: bytes) -> bytes | None:
        """Return what taps made of the next piece of the agent's audio."""
        kept: bytes | None = from_plain(self._filtered.popleft()) if self._filtered else chunk
        return kept

    @property
    def was_ended(self) -> bool:
        """Whether the conversation ended within the recording."""
        ends = {line["n"] for line in self.tape.of("call") if line["method"] == "disconnect"}
        return any(n in self.returns for n in ends)

    def was_cancelled_at_once(self, call: Mapping[str, Any]) -> bool:
        """Whether a call was cancelled before anything came of it."""
        returned_at = self.returns.get(call["n"])
        if returned_at is None or not self.lines[returned_at].get("is_cancelled"):
            return False
        return self.lines[returned_at - 1] is call and self.time(returned_at) == call["t"]

    def is_early(self, index: int) -> bool:
        """Whether something that a line did not cause came out after it, in the same turn of the loop."""
        line = self.lines[index]
        for later in self.lines[index + 1 : index + 100]:
            if later["l"] != line["l"]:
                return False
            if later["i"] != line["i"] and self._is_output(later):
                return True
        return False

    def target(self, call: Mapping[str, Any]) -> VoiceEngineConfig | None:
        """Return the configuration that a switch resolved to: profiles and environment are not what they were."""
        for later in self.lines[self.lines.index(call) :]:
            if later["k"] == "return" and later["n"] == call["n"]:
                break
            if later["k"] == "opened":
                return config_from_json(later["config"])
        return None
