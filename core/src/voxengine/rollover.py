"""Leaving a session before its vendor ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from voxengine.conversation import Conversation
from voxengine.errors import ErrorCode, ProviderError, VoxEngineError
from voxengine.session import Session

__all__ = ["Rollover", "refuses_a_second"]

_WINDOW_S: Final = 60.0
"""From so long before the end on, a good moment is looked for; at most half of what is left."""
_FORCED_S: Final = 10.0
"""So long before the end no better moment is waited for; at most a third of what is left."""
_SILENCE_S: Final = 0.3
"""A pause of the user in which a session may change."""
_LOOK_S: Final = 0.1
_RETRY_S: Final = 2.0
_SUDDEN_S: Final = 10.0
"""What is taken to be left when a vendor says that the session ends and not when."""


class Rollover:
    """Watches the session in force and has it replaced in time. Loop thread only.

    Args:
        conversation: Says when nobody would notice.
        is_in_force: Whether a session is still the one in force.
        replace: Opens the next one and moves to it. Raises VoxEngineError.
        reopen: The same for a vendor that refuses a second session: closes first.
    """

    def __init__(
        self,
        conversation: Conversation,
        is_in_force: Callable[[Session], bool],
        replace: Callable[[Session], Awaitable[None]],
        reopen: Callable[[Session], Awaitable[None]],
    ) -> None:
        self._conversation = conversation
        self._is_in_force = is_in_force
        self._replace = replace
        self._reopen = reopen
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._deadline = 0.0

    def watch(self, session: Session) -> None:
        """Watch a session that has come into force."""
        self.cancel()
        limits_s = [session.capabilities.session_limit_s]
        if session.ends_at is not None:
            limits_s.append(max(session.ends_at - self._loop.time(), 0.0))
        known = [limit_s for limit_s in limits_s if limit_s is not None]
        if known:
            self._arm(session, min(known))

    def expiring(self, session: Session, left_s: object) -> None:
        """Note that the vendor will end a session in so many seconds."""
        if isinstance(left_s, bool) or not isinstance(left_s, int | float):
            left_s = _SUDDEN_S
        if not self._is_in_force(session):
            # It may come into force, and is watched from then on.
            session.ends_at = self._loop.time() + left_s
            return
        if self._task is not None and not self._task.done():
            self._deadline = min(self._deadline, self._loop.time() + left_s)
            return
        self.cancel()
        self._arm(session, max(float(left_s), 0.0))

    async def wait_for_moment(self, limit_s: float) -> None:
        """Wait until no answer is on its way and the user says nothing, or so many seconds."""
        until = self._loop.time() + limit_s
        while self._loop.time() < until and not self._is_good_moment():  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)

    def cancel(self) -> None:
        """Watch nothing. A move that is under way goes on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, session: Session, left_s: float) -> None:
        self._deadline = self._loop.time() + left_s
        at = self._deadline - min(_WINDOW_S, left_s / 2)
        self._timer = self._loop.call_at(at, self._begin, session, min(_FORCED_S, left_s / 3))

    def _begin(self, session: Session, forced_s: float) -> None:
        self._timer = None
        self._task = self._conversation.activity.start(self._roll(session, forced_s), "rollover")

    async def _roll(self, session: Session, forced_s: float) -> None:
        while self._is_in_force(session):
            # Silence is no event to wait for.
            while self._loop.time() < self._deadline - forced_s and not self._is_good_moment():  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_S)
            if not self._is_in_force(session):
                return
            try:
                await self._replace(session)
                return
            except VoxEngineError as error:
                self._conversation.report(session, error)
                if refuses_a_second(error):
                    await self._reopen(session)
                    return
            await asyncio.sleep(_RETRY_S)

    def _is_good_moment(self) -> bool:
        """Whether no answer is on its way and the user says nothing."""
        conversation = self._conversation
        user, responses = conversation.user, conversation.responses
        if responses.current is not None or responses.awaiting or conversation.calls.n_open:
            return False
        if user.waits_for_answer:
            return False
        journal = user.journal
        if not user.is_speaking or journal is None:
            return True
        return journal.is_quiet(journal.end - int(_SILENCE_S * journal.format.sample_rate), journal.end)


def refuses_a_second(error: VoxEngineError) -> bool:
    """Return whether an error may say that the service allows one session at a time."""
    return isinstance(error, ProviderError) and error.code is ErrorCode.RATE_LIMIT
