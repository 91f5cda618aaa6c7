"""The inside of an engine: its state, its sessions and who may call it when."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import attrs

from voxengine.adapting import carried_over, engine_fields_kept
from voxengine.bus import EventBus
from voxengine.config import VoiceEngineConfig, reconfigured
from voxengine.continuity import Continuity, Move
from voxengine.conversation import Conversation
from voxengine.deadlines import Watchdog
from voxengine.errors import (
    ConfigError,
    ConnectionLost,
    ErrorCode,
    NotConnected,
    ProviderError,
    UsageError,
    VoxEngineError,
    WrongThread,
)
from voxengine.events import EventType
from voxengine.failover import Failover
from voxengine.history import History
from voxengine.inputs import check_tool_choice
from voxengine.listening import Listening
from voxengine.metrics import Metrics, SessionMetrics
from voxengine.providers.registry import ProviderRegistry
from voxengine.reconnect import Recovery, after_loss
from voxengine.rollover import Rollover, refuses_a_second
from voxengine.session import Session
from voxengine.taps import Taps
from voxengine.threads import is_in_loop
from voxengine.turns import TurnTaker

if TYPE_CHECKING:
    from voxengine.tools import ToolRunner

__all__ = ["EngineState", "Lifecycle"]

_MOMENT_S: Final = 30.0
"""How long a switch that has to close the present session first waits for a pause."""


def _is_away(error: ProviderError) -> bool:
    """Whether a provider cannot be had now. The rest, such as a wrong key, is a mistake that has to be seen."""
    return error.recoverable or error.code is ErrorCode.QUOTA


def _is_passed_over(_: ProviderError) -> bool:
    """Whether the next fallback is tried: behind a fallback always, whatever kept it."""
    return True


class EngineState(StrEnum):
    """Where an engine is in its life, in the words of its errors."""

    NEW = "not connected"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    LOST = "lost"
    CLOSED = "disconnected"


CONNECTED: Final = EngineState.CONNECTED  # Asked for with every chunk.


class Lifecycle:
    """What :class:`~voxengine.engine.VoiceEngine` is built on. Loop thread only, once it is connected."""

    def __init__(self, config: VoiceEngineConfig, taps: Sequence[object], registry: ProviderRegistry) -> None:
        given: object = config
        if not isinstance(given, VoiceEngineConfig):
            what = "a plain mapping" if isinstance(given, Mapping) else f"a {type(given).__name__}"
            raise ConfigError(
                f"VoiceEngine got {what}. Make it a configuration first: VoiceEngine(VoiceEngineConfig(**config))."
            )
        self._config = config
        self._used = {config.provider: config}
        """By provider, the latest configuration that was made for it: to go back to."""
        self._registry = registry
        self._state = EngineState.NEW
        self._thread_id: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: Session | None = None
        self._conversation_: Conversation | None = None
        self._continuity_: Continuity | None = None
        self._turns_: TurnTaker | None = None
        self._lock: asyncio.Lock | None = None
        self._recovery_: Recovery | None = None
        self._rollover_: Rollover | None = None
        self._watchdog: Watchdog | None = None
        self._listening: Listening | None = None
        self._failure: ProviderError | None = None
        self._opening: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._counter = itertools.count(1)
        self.events = EventBus(self._now)
        """Where the application listens."""
        self.events.guard = self._check_part
        self.history = History(new_id=self._new_id, keep_audio_s=config.keep_audio_s)
        """What was said; see :class:`voxengine.history.History`."""
        self.history.guard = self._check_part
        self.metrics = Metrics()
        """Latencies and counts."""
        self._taps = Taps(taps, self._tap_raised, self._tap_slow)
        self.metrics.tapped = self._taps.discarded
        self._filters_input = self._taps.has("on_input")
        if self._taps.has("on_event"):
            self.events.tap = self._taps.filter_event
        self._tools_: ToolRunner | None = None
        for tool in config.tools:
            self._tools.register(tool)

    # -- opening and closing ----------------------------------------------------------------------

    async def _connect(self, *, is_alone: bool) -> None:
        """Open the first session; with the configuration in force alone, or with its fallbacks after it."""
        check_tool_choice(self._config.tool_choice, self._tool_names())
        self._begin()
        before = self._config
        try:
            await self._opened(self._open_first(is_alone), "connect")
        except BaseException:
            session, self._session = self._session, None
            self._config = before
            if not self._is_closed():
                self._state = EngineState.NEW
            if session is not None:  # Cancelled in the moment in which it was ready.
                await self._continuity.retire(session, "cancelled")
            raise

    async def _open_first(self, is_alone: bool) -> None:
        first, failover = self._config, self._recovery.failover
        if failover.current.config is not first:
            failover.requested(first)
        failures: list[ProviderError] = []
        candidates = [failover.current] if is_alone else failover.candidates
        for attempt, candidate in enumerate(candidates, start=1):
            target = first
            if candidate is not failover.current:
                target = engine_fields_kept(first, carried_over(first, candidate.config), formats=True)
            name = target.provider
            self._conversation.emit(EventType.CONNECTION_STARTING, {"attempt": attempt}, provider=name)
            try:
                goes_on = _is_away if attempt == 1 else _is_passed_over
                with self._telling_failure(name, "connect", goes_on if attempt < len(candidates) else None):
                    await self._first_session(target)
            except ProviderError as error:
                failures.append(error)
                if attempt == 1 and not _is_away(error):
                    break
                failover.failed(candidate, error, self._now())
            else:
                failover.current = candidate
                return
        for held in failures[1:]:
            failures[0].add_note(f"{held.provider} of the fallbacks could not be had either: {held}")
        raise failures[0]

    @contextlib.contextmanager
    def _telling_failure(
        self, name: str, method: str, goes_on: Callable[[ProviderError], bool] | None = None
    ) -> Iterator[None]:
        """Emit what keeps the block from opening a session, and raise it.

        Args:
            name: Whose session.
            method: Which call opens it.
            goes_on: Says of an error whether another attempt follows; None: none does.
        """
        try:
            yield
        except (Exception, asyncio.CancelledError) as error:
            failure: BaseException = error
            if isinstance(error, asyncio.CancelledError):
                failure = NotConnected(f"{name}: {method}() was cancelled before the session was ready.")
            will_retry = goes_on is not None and isinstance(error, ProviderError) and goes_on(error)
            data = {"error": failure, "will_retry": will_retry}
            self._conversation.emit(EventType.CONNECTION_FAILED, data, provider=name)
            raise

    async def _first_session(self, config: VoiceEngineConfig) -> None:
        """Open a session and put it in force."""
        conversation = self._conversation
        session = await self._continuity.open(config, instead_of=None, degrade=True)
        await self._continuity.load_first(session)
        assert conversation.user.journal is not None
        self._continuity.attach_input(session, config, conversation.user.journal.end)
        conversation.output_owner = session
        self._config = config
        self._adopt(session)
        self._tell_established(session)
        session.take_early_output()

    def _tell_established(self, session: Session) -> None:
        data = {**session.established, "session_id": session.session_id, "latency_ms": session.latency_ms}
        self._conversation.emit(EventType.CONNECTION_ESTABLISHED, data, session)

    async def _opened(self, work: Coroutine[Any, Any, None], method: str) -> None:
        """Open a session in a task that ``disconnect`` can end; a cancelled caller waits for its end too."""
        task = self._opening = self._conversation.activity.start(work, method)
        try:
            await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if self._is_closed() and current is not None and not current.cancelling():
                raise NotConnected(f"{method}(): the engine was disconnected meanwhile.") from None
            raise
        finally:
            self._opening = None

    def _adopt(self, session: Session) -> None:
        self._session, self._state, self._failure = session, EngineState.CONNECTED, None
        self._rollover.watch(session)

    def _begin(self) -> None:
        self._check_thread("connect")
        if self._state is not EngineState.NEW:
            hint = {
                EngineState.CONNECTED: "It can be used.",
                EngineState.CONNECTING: "Wait for that to end.",
                EngineState.LOST: "switch_provider continues the conversation.",
                EngineState.RECONNECTING: "It goes on by itself.",
            }.get(self._state, "Make a new VoiceEngine(config).")
            raise UsageError(f"connect(): this engine is {self._state} already. {hint}")
        loop = asyncio.get_running_loop()
        if self._conversation_ is None:
            self._loop, self._thread_id = loop, threading.get_ident()
            self._lock = asyncio.Lock()
            self._conversation_ = Conversation(
                self._config,
                self.events,
                self._taps,
                self.history,
                self.metrics,
                lambda: self._tools,
                self._new_id,
            )
            self._continuity_ = Continuity(
                self._conversation_, self._registry, self._taps, self.metrics, self._tool_specs, self
            )
            self._turns_ = TurnTaker(self._conversation_)
            self._turns_.is_recovering = self._is_recovering
            self._continuity_.on_input_ready = self._turns_.attach
            self._recovery_ = Recovery(
                self,
                self._conversation_,
                self._continuity_,
                self._lock,
                Failover(self._config, self._config.fallbacks),
            )
            self._rollover_ = Rollover(
                self._conversation_, self._is_in_force, self._replace_session, self._reopen_session
            )
            self._watchdog = Watchdog(
                self._conversation_, lambda: self._session, lambda: self._config.deadlines
            )
        self._state = EngineState.CONNECTING

    async def _close(self, opening: asyncio.Task[None] | None, session: Session | None) -> None:
        if opening is not None:
            opening.cancel()
            await asyncio.wait([opening])
        conversation = self._conversation
        conversation.hang_up()
        if self._listening is not None:
            self._listening.silence()
        await self._recovery.pause()
        if session is not None:
            await self._continuity.retire(session, "disconnect")
        if self._tools_ is not None:
            await self._tools_.close()
        await conversation.close()
        if self._listening is not None:
            await self._listening.close()

    def _check_switchable(self) -> None:
        if self._state not in (EngineState.CONNECTED, EngineState.RECONNECTING, EngineState.LOST):
            raise NotConnected(f"switch_provider(): this engine is {self._state}.")

    def _stop_watching(self) -> None:
        """End everything that would open another session by itself."""
        if self._opening is not None:
            self._opening.cancel()
        self._recovery.cancel()
        self._rollover.cancel()
        if self._watchdog is not None:
            self._watchdog.cancel()

    # -- sessions report here ---------------------------------------------------------------------

    def session_event(self, session: Session, event_type: EventType, data: dict[str, Any]) -> None:
        """Take an event of a provider; for the session only."""
        if event_type is EventType.SPEECH_STARTED and session is self._session:
            self._turns.vendor_speaks_up(session)
        elif event_type is EventType.SESSION_EXPIRING:
            self._rollover.expiring(session, data.get("deadline_s"))
        self._conversation.session_event(session, event_type, data)

    def session_lost(self, session: Session, error: ProviderError) -> None:
        """Learn that a session ended by itself; for the session only."""
        conversation = self._conversation
        if session.sender is None:
            return  # It never was in force: whoever opened it is told.
        is_in_force, goes_on = self._is_in_force(session), False
        if is_in_force:
            session.known_items = frozenset(item.id for item in self.history)
            conversation.end_responses("lost")
            self._rollover.cancel()
            self._turns.listen_alone(session)
            goes_on = self._recovery.begin(session, error)
            self._state, self._failure = EngineState.RECONNECTING if goes_on else EngineState.LOST, error
        data = {"error": error, "will_reconnect": goes_on}
        conversation.emit(EventType.CONNECTION_LOST, data, session)
        if is_in_force:
            conversation.activity.start(self._continuity.retire(session, "lost"), "retire")
        if goes_on and self._is_recovering():
            self._recovery.start()

    # -- a session takes the place of another by itself --------------------------------------------

    def lost_session(self) -> Session | None:
        """Return the session that is to be replaced, None when none is; for the recovery only."""
        return self._session if self._is_recovering() else None

    def in_force(self) -> VoiceEngineConfig:
        """Return the configuration in force; for the recovery only."""
        return self._config

    def recovered(self, session: Session, config: VoiceEngineConfig) -> None:
        """Go on with a session; for the recovery only."""
        self._adopt(session)
        self._config = engine_fields_kept(self._config, config)

    def given_up(self, error: VoxEngineError) -> None:
        """Learn that no session could be had; for the recovery only."""
        self._state = EngineState.LOST
        if isinstance(error, ProviderError):
            self._failure = error

    async def _replace_session(self, session: Session) -> None:
        """Leave a session that is about to end for a fresh one of the same configuration."""
        assert self._lock is not None
        async with self._lock:
            if not self._is_in_force(session):
                return
            move = Move(
                from_provider=self._config.provider,
                reason="rollover",
                adopt=self._adopt,
                cut_reply=self._config.reconnect.cut_reply,
            )
            await self._continuity.take_over(session, self._config, move)

    async def _reopen_session(self, session: Session) -> None:
        """The same for a service that allows one session at a time: close it, then open."""
        assert self._lock is not None
        async with self._lock:
            if not self._is_in_force(session) or session.sender is None:
                return
            await self._make_room(session, "rollover")
        self._recovery.start()

    async def _take_over(self, old: Session | None, target: VoiceEngineConfig, move: Move) -> None:
        """Move to a session of the target; where its service allows one at a time, the present one is closed first."""
        try:
            await self._continuity.take_over(old, target, move)
        except ProviderError as error:
            # One that says when to come again counts requests, not sessions.
            is_limit = refuses_a_second(error) and error.retry_after_s is None
            if old is None or not is_limit or target.provider != self._config.provider:
                raise
            await self._rollover.wait_for_moment(_MOMENT_S)
            if self._is_in_force(old):
                await self._make_room(old, "switch")
            await self._continuity.take_over(old, target, attrs.evolve(move, is_announced=True))

    async def _make_room(self, session: Session, reason: str) -> None:
        """Close the session in force, for a service that allows one at a time. From then on it is recovered from."""
        assert session.sender is not None
        session.known_items = frozenset(item.id for item in self.history)
        session.ended_at = self._now()
        session.sender.stop()
        self._conversation.end_responses(reason)
        self._turns.listen_alone(session)
        self._state = EngineState.RECONNECTING
        self._failure = ConnectionLost(
            f"{session.name}: the session was closed to make room for the next one.",
            provider=session.name,
        )
        self._recovery.begin_afresh(self._failure)
        self._rollover.cancel()
        await self._continuity.retire(session, reason)

    # -- inside -----------------------------------------------------------------------------------

    @property
    def _conversation(self) -> Conversation:
        assert self._conversation_ is not None
        return self._conversation_

    @property
    def _tools(self) -> ToolRunner:
        if self._tools_ is None:
            from voxengine.tools import ToolRunner

            self._tools_ = ToolRunner(timeout_s=self._config.tool_timeout_s, on_event=self._tool_event)
        return self._tools_

    def _tool_names(self) -> tuple[str, ...]:
        return () if self._tools_ is None else self._tools_.names

    def _tool_specs(self) -> list[dict[str, Any]]:
        return [] if self._tools_ is None else self._tools_.specs()

    @property
    def _turns(self) -> TurnTaker:
        assert self._turns_ is not None
        return self._turns_

    @property
    def _continuity(self) -> Continuity:
        assert self._continuity_ is not None
        return self._continuity_

    @property
    def _recovery(self) -> Recovery:
        assert self._recovery_ is not None
        return self._recovery_

    @property
    def _rollover(self) -> Rollover:
        assert self._rollover_ is not None
        return self._rollover_

    def _is_recovering(self) -> bool:
        return self._state is EngineState.RECONNECTING

    def _is_in_force(self, session: Session) -> bool:
        return session is self._session and self._state is EngineState.CONNECTED

    def _takes_input(self, method: str) -> Session:
        """Return the session in force, or the one that is being replaced: input is kept for the next."""
        if not self._is_recovering():
            return self._ready(method)
        self._check_thread(method)
        assert self._session is not None
        return self._session

    async def _ready_again(self, method: str) -> Session:
        """Return the session in force, after waiting for one that is being opened in the place of a lost one."""
        self._takes_input(method)
        await self._recovery.wait()
        return self._ready(method)

    async def _configure(self, session: Session, asked: Mapping[str, Any]) -> None:
        """Change options of a session, and the configuration in force with them."""
        session.capabilities.require("live_configuration", provider=session.name, doing="configure_session")
        changed, values = reconfigured(self._config, asked)
        check_tool_choice(changed.tool_choice, self._tool_names())
        if "turn_detection" in values:
            values["turn_detection"] = await self._continuity.prepare_detection(
                session, values["turn_detection"]
            )
        await session.configure(values)
        self._continuity.warn_unsupported(session, asked)
        if session is self._session:
            self._config, _ = reconfigured(self._config, asked)
            if "turn_detection" in values:
                self._continuity.detection_changed(session)

    @contextlib.asynccontextmanager
    async def _undisturbed(self, method: str) -> AsyncIterator[Session]:
        """Give the session in force, whose place no other takes within the block.

        Whoever moves the conversation is waited for, but for a tool for whose result the move waits.
        """
        self._takes_input(method)
        if self._conversation.calls.is_own_open:
            yield await self._ready_again(method)
            return
        assert self._lock is not None
        while True:
            await self._ready_again(method)
            await self._lock.acquire()
            if not self._is_recovering():
                break
            self._lock.release()
        try:
            yield self._ready(method)
        finally:
            self._lock.release()

    def _is_closed(self) -> bool:
        return self._state is EngineState.CLOSED

    def _ready(self, method: str) -> Session:
        loop = self._loop
        if (
            self._state is not CONNECTED
            or threading.get_ident() != self._thread_id
            or loop is None
            or not loop.is_running()
        ):
            self._not_ready(method)
        assert self._session is not None
        return self._session

    def _not_ready(self, method: str) -> None:
        self._check_thread(method)
        if self._state is EngineState.CONNECTED:
            return
        if self._state is EngineState.LOST and self._failure is not None:
            n_unanswered = self._conversation.user.n_unanswered
            raise after_loss(method, self._config.provider, self._failure, n_unanswered)
        then = {
            EngineState.CLOSED: "Make a new VoiceEngine(config).",
            EngineState.RECONNECTING: "It goes on by itself; try again then.",
        }.get(self._state, "await engine.connect() first.")
        raise NotConnected(f"{method}(): this engine is {self._state}. {then}")

    def _connected_once(self, what: str) -> Conversation:
        conversation = self._conversation_
        if conversation is None or conversation.user.journal is None:
            raise NotConnected(f"{what} is known after connect().")
        return conversation

    async def _refresh_usage(self, method: str) -> SessionMetrics | None:
        self._check_thread(method)
        self._connected_once(method)
        session = self._session
        if session is None:
            return None
        if session.is_ready:
            await self._continuity.note_usage(session)
        return self.metrics.of(session.epoch)

    def _check_thread(self, method: str) -> None:
        loop = self._loop
        if loop is None:
            return
        if threading.get_ident() != self._thread_id:
            raise WrongThread(
                f"{method}() was called from another thread than the engine's. Use "
                f"engine.call_threadsafe({method!r}, ...), which returns a future."
            )
        # Without any loop running, a call between two of run_until_complete is in order.
        is_other = not loop.is_running() and (loop.is_closed() or is_in_loop())
        if is_other and self._state is not EngineState.CLOSED:
            raise UsageError(
                f"{method}(): this engine belongs to another event loop. Make a new VoiceEngine(config)."
            )

    def _check_part(self, method: str) -> None:
        """The same for what belongs to the engine, such as ``events.on``, as long as there is a loop to call it on."""
        if self._loop is None or threading.get_ident() == self._thread_id or self._loop.is_closed():
            return
        raise WrongThread(
            f"engine.{method}() was called from another thread than the engine's. Use "
            f"engine.call_threadsafe(engine.{method}, ...), which returns a future."
        )

    def _now(self) -> float:
        return self._loop.time() if self._loop is not None else 0.0

    def _new_id(self, prefix: str) -> str:
        return f"{prefix.rstrip('_')}_{next(self._counter)}"

    def _tool_event(self, event_type: EventType, data: Mapping[str, Any]) -> None:
        if self._conversation_ is not None:
            self._conversation_.calls.runner_event(event_type, data)

    def _tap_raised(self, name: str, error: BaseException) -> None:
        self._emit(EventType.ERROR_GENERAL, {"error": error, "recoverable": True, "tap": name})

    def _tap_slow(self, name: str, took_s: float) -> None:
        message = (
            f"The tap {name} held the loop for {took_s * 1000:.0f} ms; audio stutters. "
            "Start a task for slow work, or hand it to a thread."
        )
        self._emit(EventType.WARNING, {"code": "slow_handler", "message": message, "tap": name})

    def _emit(self, event_type: EventType, data: dict[str, Any]) -> None:
        if self._conversation_ is not None:
            self._conversation_.emit(event_type, data)
        else:
            self.events.emit(event_type, data)
