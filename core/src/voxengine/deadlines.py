"""Silence of a service as a fault: an answer that was asked for and does not come, or stops coming."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from voxengine.config import Deadlines
from voxengine.conversation import Conversation
from voxengine.errors import ErrorCode, ProviderError
from voxengine.session import Session

__all__ = ["Watchdog"]

_LOOKS: Final = 4
"""How often it looks within a deadline; what comes in between costs nothing."""
_ROUNDING_S: Final = 1e-6


class Watchdog:
    """Ends a session that owes an answer and is silent for too long. Loop thread only.

    It watches only while an answer was asked for by name (a text, the end of a turn, a tool's result) or has
    begun; that somebody spoke proves nothing. Tools that run, a user who speaks and sessions without dialogue
    suspend it.

    Args:
        conversation: Says what is asked for and what came.
        session: Returns the session in force.
        deadlines: Returns the deadlines in force.
    """

    def __init__(
        self,
        conversation: Conversation,
        session: Callable[[], Session | None],
        deadlines: Callable[[], Deadlines],
    ) -> None:
        self._conversation = conversation
        self._session = session
        self._deadlines = deadlines
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._mark: object = None
        self._since = 0.0
        conversation.responses.on_request = self.arm

    def arm(self) -> None:
        """Begin to watch; an answer is owed."""
        self._since = self._loop.time()
        self._mark = self._progress()
        if self._timer is not None:
            self._timer.cancel()
        self._schedule()

    def cancel(self) -> None:
        """Watch nothing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        deadlines = self._deadlines()
        step_s = min(deadlines.first_output_s, deadlines.progress_s) / _LOOKS
        self._timer = self._loop.call_later(step_s, self._look)

    def _look(self) -> None:
        self._timer = None
        session, now = self._session(), self._loop.time()
        awaited = self._awaited()
        if session is None or not session.is_ready or not session.can("dialogue") or awaited is None:
            return
        what, limit_s, name = awaited
        mark = self._progress()
        if mark != self._mark or self._is_suspended():
            self._mark, self._since = mark, now
        elif now - self._since >= limit_s - _ROUNDING_S:
            session.lose(
                ProviderError(
                    f"{session.name} was silent: {what} did not come within {limit_s:g} s. "
                    f"deadlines.{name} sets the limit.",
                    provider=session.name,
                    code=ErrorCode.TIMEOUT,
                )
            )
            return
        self._schedule()

    def _awaited(self) -> tuple[str, float, str] | None:
        responses, deadlines = self._conversation.responses, self._deadlines()
        current = responses.current
        if current is not None and not current.is_inferred and current.has_output:
            return "more of the answer, or its end,", deadlines.progress_s, "progress_s"
        if current is not None and not current.is_inferred:
            return "the first output of the answer", deadlines.first_output_s, "first_output_s"
        if responses.asked_at is not None:
            return "the answer that was asked for", deadlines.first_output_s, "first_output_s"
        return None

    def _is_suspended(self) -> bool:
        conversation = self._conversation
        return conversation.calls.n_open > 0 or conversation.user.speaks_on

    def _progress(self) -> object:
        """Return something that changes whenever something comes or is asked for."""
        responses, session = self._conversation.responses, self._session()
        lane = session.lane if session is not None else None
        heard = (lane.item.id, lane.item.received_ms, len(lane.item.text)) if lane is not None else None
        return responses.n_inputs, responses.current, responses.last_output, heard
