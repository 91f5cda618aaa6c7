"""Where the conversation is, for the script's faults; and what it used so far."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from voxengine_mock.happenings import Happening
from voxengine_mock.misbehaving import SessionFaults
from voxengine_mock.script import Script

__all__ = ["Account", "Points", "Tell", "plain_number"]

Tell: TypeAlias = Callable[[Happening], Awaitable[None]]
"""Says one happening to the client. Raises one of ``CLOSED`` when there is no client any more."""


class Points:
    """Counts the points of a conversation, and lets go wrong there what the script wants.

    Args:
        faults: None: nothing goes wrong.
    """

    def __init__(self, faults: SessionFaults | None) -> None:
        self.faults = faults
        self._n: dict[str, int] = {}

    async def reach(self, name: str) -> bool:
        """Count a point; return False when what follows it shall not happen."""
        n = self.count(name)
        return self.faults is None or await self.faults.reach(name, n)

    async def reach_once(self, name: str) -> None:
        """Reach a point unless it was reached before."""
        if self.faults is not None and name not in self._n:
            await self.reach(name)

    async def reach_audio(self, name: str, n: int, audio_ms: int) -> bool:
        """The same for a point within audio: so much of it has passed."""
        return self.faults is None or await self.faults.reach_audio(name, n, audio_ms)

    def count(self, name: str) -> int:
        """Count a point and return which it is."""
        n = self._n[name] = self._n.get(name, 0) + 1
        return n


class Account:
    """What a session used, as its script counts."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.n_input_tokens = 0.0
        """Besides those of audio."""
        self.n_output_tokens = 0.0
        self.n_output_ms = 0

    def read(self, text: str) -> None:
        """Count words that came as text or were recognised."""
        self.n_input_tokens += self._script.usage.per_word * len(text.split())

    def usage(self, heard_ms: int) -> dict[str, Any]:
        """Return it, when so much audio was heard."""
        heard_s = heard_ms / 1000
        n_input = self.n_input_tokens + self._script.usage.input_audio_per_s * heard_s
        return {
            "input_audio_s": round(heard_s, 3),
            "output_audio_s": round(self.n_output_ms / 1000, 3),
            "input_tokens": plain_number(n_input),
            "output_tokens": plain_number(self.n_output_tokens),
        }

    def cost(self, heard_ms: int) -> float:
        """Return its price in US dollars."""
        minutes = (heard_ms + self.n_output_ms) / 60_000
        return round(minutes * self._script.price_per_minute_usd, 9)


def plain_number(value: float) -> int | float:
    """Return a whole number as such."""
    return int(value) if value == int(value) else round(value, 3)
