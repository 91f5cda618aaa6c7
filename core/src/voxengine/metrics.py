"""How long the parts of a conversation took."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Final

import attrs

__all__ = ["Metrics", "SessionMetrics", "TurnMetrics"]

_TURNS_KEPT: Final = 1000


@attrs.define
class TurnMetrics:
    """One user turn and its answer. Times are on the loop's clock, latencies in whole milliseconds."""

    trigger: str
    """``text`` or ``audio``."""
    ended_at: float
    """When the user's turn was over (or, for speech, known to be)."""
    provider: str
    first_text_ms: int | None = None
    """From the end of the user's turn to the first text of the answer."""
    first_audio_ms: int | None = None
    """From the end of the user's turn to the first audio of the answer."""
    complete_ms: int | None = None
    """From the end of the user's turn until the answer was received in full."""
    interrupted: bool = False


@attrs.define
class SessionMetrics:
    """One session."""

    provider: str
    epoch: int
    connect_ms: int
    duration_s: float = 0.0
    usage: Mapping[str, Any] | None = None
    cost: float | None = None


@attrs.define
class Metrics:
    """What an engine measured so far; the latest thousand turns are kept."""

    turns: deque[TurnMetrics] = attrs.field(factory=lambda: deque(maxlen=_TURNS_KEPT))
    sessions: list[SessionMetrics] = attrs.field(factory=list)
    interruptions: int = 0
    resumptions: int = 0
    """How often an answer that the user's voice had paused went on."""
    dropped_outputs: int = 0
    """Outputs of responses that were cut, or of sessions that no longer own the output."""
    tapped: Mapping[str, int] = attrs.field(factory=dict)
    """Chunks and events that each tap discarded."""

    def of(self, epoch: int) -> SessionMetrics | None:
        """Return what was measured of a session; None for one that was never in force."""
        return next((held for held in reversed(self.sessions) if held.epoch == epoch), None)

    def turn_ended(self, trigger: str, now: float, provider: str) -> None:
        """Note the end of a user turn."""
        self.turns.append(TurnMetrics(trigger, now, provider))

    def output(self, kind: str, now: float) -> None:
        """Note an output: the first ``text`` and ``audio`` count, and the last ``complete``."""
        if not self.turns:
            return
        turn = self.turns[-1]
        name = {"text": "first_text_ms", "audio": "first_audio_ms", "complete": "complete_ms"}[kind]
        if getattr(turn, name) is None or kind == "complete":
            setattr(turn, name, round((now - turn.ended_at) * 1000))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "turns": [attrs.asdict(turn) for turn in self.turns],
            "sessions": [attrs.asdict(session) for session in self.sessions],
            "interruptions": self.interruptions,
            "resumptions": self.resumptions,
            "dropped_outputs": self.dropped_outputs,
            "tapped": dict(self.tapped),
        }
