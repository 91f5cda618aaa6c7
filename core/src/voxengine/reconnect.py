"""What happens after a loss: attempts with growing pauses, within a budget, at whichever provider can be had."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol

from voxengine.adapting import carried_over
from voxengine.config import VoiceEngineConfig
from voxengine.continuity import Continuity, Move
from voxengine.conversation import Conversation
from voxengine.errors import ConnectionLost, ErrorCode, NotConnected, ProviderError, VoxEngineError
from voxengine.events import EventType
from voxengine.failover import Candidate, Failover
from voxengine.session import Session

__all__ = ["Recovery", "RecoveryHost", "after_loss"]

_SETTLED_S: Final = 5.0
"""A session that lived so long counts as a success, even if nobody spoke in it."""


def after_loss(method: str, provider: str, failure: ProviderError, n_unanswered: int) -> ConnectionLost:
    """Return the error of a call that comes when the session was lost and nothing replaces it.

    Args:
        method: What was called.
        provider: Whose session.
        failure: What ended it.
        n_unanswered: How many samples of the user's audio are kept for an answer.
    """
    so_far = "" if method == "wait_idle" else "Nothing was sent; "
    # A call that times out is another thing than a session lost by a timeout.
    code = ErrorCode.CONNECTION_LOST if failure.code is ErrorCode.TIMEOUT else failure.code
    lost = ConnectionLost(
        f"{method}(): the session with {provider} was lost ({failure}). {so_far}switch_provider continues the "
        "conversation.",
        provider=provider,
        code=code,
        recoverable=failure.recoverable,
        retry_after_s=failure.retry_after_s,
        vendor_code=failure.vendor_code,
        close_code=failure.close_code,
    )
    lost.n_unanswered = n_unanswered
    return lost


class RecoveryHost(Protocol):
    """The engine, as its recovery sees it."""

    def lost_session(self) -> Session | None:
        """Return the session that is to be replaced; None when that is no longer wanted."""

    def in_force(self) -> VoiceEngineConfig:
        """Return the configuration in force."""

    def recovered(self, session: Session, config: VoiceEngineConfig) -> None:
        """Take a session that goes on."""

    def given_up(self, error: VoxEngineError) -> None:
        """Learn that no session could be had."""


class Recovery:
    """Finds a session to go on with. Loop thread only.

    Args:
        host: The engine.
        conversation: Goes on.
        continuity: Opens and moves.
        lock: Held while a session takes over; a switch that the application asks for holds it as well.
        failover: What can be tried.
    """

    def __init__(
        self,
        host: RecoveryHost,
        conversation: Conversation,
        continuity: Continuity,
        lock: asyncio.Lock,
        failover: Failover,
    ) -> None:
        self._host = host
        self._conversation = conversation
        self._continuity = continuity
        self._lock = lock
        self.failover = failover
        self._loop = asyncio.get_running_loop()
        self._deadline: float | None = None
        self._error: VoxEngineError = NotConnected("No session was lost.")
        self._n_attempts = 0
        self._announced: Candidate | None = None
        self._task: asyncio.Task[None] | None = None

    # -- from outside -----------------------------------------------------------------------------

    def begin(self, session: Session, error: ProviderError) -> bool:
        """Take note of a loss; return whether there is anything to try. :meth:`start` then tries it."""
        budget_s = self._host.in_force().reconnect.budget_s
        now = self._loop.time()
        # A service that takes the session and then does nothing with it is no success, however long that took.
        deadlines = self._host.in_force().deadlines
        waited_s = max(deadlines.first_output_s, deadlines.progress_s)
        served_s = session.age_s - (waited_s if error.code is ErrorCode.TIMEOUT else 0.0)
        has_lasted = served_s > _SETTLED_S
        was_useful = session.is_proven or has_lasted or self._deadline is None
        current = self.failover.current
        if was_useful:
            current.worked()
        if was_useful and error.recoverable:
            current.asked_to_wait(error, now)
        else:
            self.failover.failed(current, error, now)
        if was_useful:
            self._deadline = now + budget_s
        self._prepare(error)
        return budget_s > 0 and self._goes_on()

    def begin_afresh(self, error: VoxEngineError) -> None:
        """The same for a session that was closed to make room for the next one."""
        self.failover.current.worked()
        self._deadline = self._loop.time() + max(self._host.in_force().reconnect.budget_s, 1.0)
        self._prepare(error)

    def start(self) -> None:
        """Begin to try."""
        self._task = self._conversation.activity.start(self._run(), "reconnect")

    def chosen(self, config: VoiceEngineConfig) -> None:
        """Note that the application switched to a configuration itself."""
        self.failover.requested(config)
        self._deadline = None

    async def pause(self) -> None:
        """Stop trying, because the application wants something else."""
        self.cancel()
        if self._task is not None:
            await asyncio.wait([self._task])

    def go_on(self) -> None:
        """Try again after :meth:`pause`, if that is still wanted."""
        if self._host.lost_session() is not None:
            self.start()

    def cancel(self) -> None:
        """Stop trying, for good or for now."""
        if self._task is not None:
            self._task.cancel()

    async def wait(self) -> None:
        """Wait until there is a session again or no hope for one."""
        while self._host.lost_session() is not None:
            await self._conversation.activity.wait_while(
                lambda: self._host.lost_session() is not None, timeout_s=60
            )

    # -- inside -----------------------------------------------------------------------------------

    def _prepare(self, error: VoxEngineError) -> None:
        self._error, self._n_attempts, self._announced = error, 0, None

    def _goes_on(self) -> bool:
        assert self._deadline is not None
        return self.failover.next(self._loop.time())[1] <= self._deadline

    async def _run(self) -> None:
        while self._goes_on():
            candidate, at = self.failover.next(self._loop.time())
            await asyncio.sleep(max(at - self._loop.time(), 0.0))
            async with self._lock:
                session = self._host.lost_session()
                if session is None:
                    return
                error = await self._attempt(session, candidate)
            if error is None:
                return
            self._error = error
            if self._goes_on():
                self._tell_failure(candidate, error, will_retry=True)
        if self._host.lost_session() is not None:
            self._host.given_up(self._error)
            self._tell_failure(self.failover.current, self._error, will_retry=False)

    def _tell_failure(self, candidate: Candidate, error: VoxEngineError, *, will_retry: bool) -> None:
        data = {"error": error, "will_retry": will_retry}
        is_same = candidate is self.failover.current
        name = self._host.in_force().provider if is_same else candidate.config.provider
        self._emit(EventType.CONNECTION_FAILED, data, name)

    def _emit(self, event_type: EventType, data: dict[str, Any], provider: str) -> None:
        self._conversation.emit(event_type, data, provider=provider)

    async def _attempt(self, session: Session, candidate: Candidate) -> VoxEngineError | None:
        """Try one candidate; return what went wrong."""
        config = self._host.in_force()
        is_same = candidate is self.failover.current
        before = config.provider
        reason = "reconnect" if is_same else "failover"
        to_provider = before if is_same else candidate.config.provider
        if self._announced is not candidate:
            self._announced = candidate
            data = {"from_provider": before, "to_provider": to_provider, "reason": reason}
            self._conversation.emit(EventType.PROVIDER_SWITCHING, data)
        self._n_attempts += 1
        self._emit(EventType.CONNECTION_STARTING, {"attempt": self._n_attempts}, to_provider)
        assert self._deadline is not None
        try:
            target = config if is_same else carried_over(config, candidate.config)
            move = Move(
                from_provider=before,
                reason=reason,
                adopt=lambda opened: self._took_over(opened, candidate, target),
                cut_reply=config.reconnect.cut_reply,
                is_announced=True,
                limit_s=max(self._deadline - self._loop.time(), 0.05),
            )
            await self._continuity.take_over(session, target, move)
        except VoxEngineError as error:
            self.failover.failed(candidate, error, self._loop.time())
            return error
        return None

    def _took_over(self, session: Session, candidate: Candidate, config: VoiceEngineConfig) -> None:
        self.failover.current = candidate
        self._host.recovered(session, config)
        data = {**session.established, "session_id": session.session_id, "latency_ms": session.latency_ms}
        self._conversation.emit(EventType.CONNECTION_ESTABLISHED, data, session)
