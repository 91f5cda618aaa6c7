"""One provider instance in use: bound calls, its input, its one ending."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

from voxengine.audio.format import AudioFormat
from voxengine.capabilities import Capabilities, Support
from voxengine.config import Deadlines, ProviderConfig
from voxengine.errors import (
    AudioError,
    ConnectionLost,
    ErrorCode,
    NotConnected,
    ProviderError,
    RemoteProtocolError,
    VoxEngineError,
)
from voxengine.events import EventType
from voxengine.inputs import event_problem
from voxengine.providers.base import BaseProvider, effective_capabilities
from voxengine.providers.contract import CONTRACT, bind
from voxengine.scrubbing import (
    MASK,
    bare_urls,
    cleaned_error,
    secret_values,
    shows_secret,
    without_secrets,
)
from voxengine.taps import SessionManager, Taps

if TYPE_CHECKING:
    from voxengine.lanes import Lane
    from voxengine.says import Say
    from voxengine.sender import InputSender

__all__ = [
    "CALL_DEADLINE_S",
    "CLOSE_DEADLINE_S",
    "DEFAULT_FORMAT",
    "Session",
    "SessionOwner",
    "SessionState",
    "choose_format",
    "error_event",
]

CALL_DEADLINE_S: Final = 30.0
"""For a call of the contract other than ``connect`` and ``send_audio``."""
CLOSE_DEADLINE_S: Final = 5.0
"""For ``disconnect``; after that the provider is abandoned and a WARNING says so."""
DEFAULT_FORMAT: Final = AudioFormat(24_000)
"""Assumed for a provider that declares no format."""

_LET_GO_S: Final = 1.0
"""How long a cancelled call of the contract may take to end."""
_OUTPUT: Final = frozenset(
    {
        EventType.RESPONSE_STARTED,
        EventType.TEXT_OUTPUT,
        EventType.AUDIO_OUTPUT_CHUNK,
        EventType.SPEECH_MARK,
        EventType.FUNCTION_CALL_INVOKED,
        EventType.RESPONSE_COMPLETED,
        EventType.RESPONSE_CANCELLED,
    }
)
_ABANDONED: Final = "{} did not disconnect in time and was abandoned; a socket of it may stay open."
_EARLY_LIMIT: Final = 1000
"""Output events that are kept of a provider that speaks before it is ready."""


class SessionState(StrEnum):
    """Where a session is in its life."""

    NEW = "new"
    OPENING = "opening"
    READY = "ready"
    CLOSING = "closing"
    ENDED = "ended"


READY: Final = SessionState.READY  # Asked for with every chunk.


class SessionOwner(Protocol):
    """Who a session reports to. Called on the loop."""

    def session_event(self, session: Session, event_type: EventType, data: dict[str, Any]) -> None:
        """Take an event of the provider."""

    def session_lost(self, session: Session, error: ProviderError) -> None:
        """Learn, once, that the session ended without being asked to."""


class Session:
    """A provider instance with its epoch.

    Args:
        name: The provider's name in the configuration.
        cls: Its class, checked.
        config: What the instance is built with.
        epoch: Number of the session within its engine, from 1.
        owner: Told about events and loss.
        taps: The engine's taps; with any, calls go through a pluggy manager.
    """

    def __init__(
        self,
        name: str,
        cls: type[BaseProvider],
        config: ProviderConfig,
        *,
        epoch: int,
        owner: SessionOwner,
        taps: Taps,
    ) -> None:
        self.name = name
        self.epoch = epoch
        self.config = config
        self.state = SessionState.NEW
        self.settings: dict[str, Any] = {}
        """What is in force, in neutral words, with what the mode decided: what the service says, else what it was
        asked for."""
        self._told: dict[str, Any] = {}
        self.established: dict[str, Any] = {}
        """What the provider said in its own CONNECTION_ESTABLISHED."""
        self.manager: SessionManager | None = None
        """pluggy's manager with the provider and the taps; only made when there are taps."""
        self.opened_at: float | None = None
        """Loop time at which the session was ready."""
        self.ended_at: float | None = None
        """Loop time at which it was lost."""
        self.ends_at: float | None = None
        """Loop time at which the vendor ends it, where it said so before the session was in force."""
        self.latency_ms = 0
        self.sender: InputSender | None = None
        self.has_boundaries = False
        """Whether the provider says itself where a response starts and ends."""
        self.is_proven = False
        """Whether it gave a whole answer: one that never did is no success of a reconnect."""
        self.known_items: frozenset[str] = frozenset()
        """History items that it was told or that came up in it, when it was lost."""
        self.unpaid: deque[str | Say] | None = None
        """While it is given what a session before it left open: the texts that wait their turn, by item, and what is
        to be said. None: it goes out at once."""
        self.told: dict[str, str] = {}
        """Answers before its time, by item: the words that it was told were heard."""
        self.lane: Lane | None = None
        """The short way for output of the item that is being received."""
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._early: list[tuple[EventType, dict[str, Any]]] = []
        self._loss_while_opening: ProviderError | None = None
        self._ending: asyncio.Task[bool] | None = None
        self._reported: set[EventType] = set()
        self.capabilities: Capabilities = self._guarded(lambda: effective_capabilities(cls, config))
        self.provider: BaseProvider = self._guarded(lambda: cls(config))
        self.has_boundaries = bool(self.capabilities.response_boundaries)
        self._calls: dict[str, Callable[..., Awaitable[Any]]] = {}
        if taps:
            self.manager = SessionManager()
            self.manager.add_provider(name, self.provider)
            taps.register_with(self.manager)
        self.provider.attach(self, taps.observe_wire if taps.has("on_wire") else None)

    # -- what is known ----------------------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        """Whether the session takes input."""
        return self.state is READY

    @property
    def session_id(self) -> str | None:
        """The vendor's name for the session."""
        return self.provider.session_id

    @property
    def handle(self) -> str | None:
        """By what the vendor takes the session up again: the latest ``resume_handle`` that it told, else its id."""
        told = self.settings.get("resume_handle") or self.established.get("resume_handle")
        return str(told) if told else self.session_id

    @property
    def input_format(self) -> AudioFormat:
        """What the provider's ``send_audio`` is given: what was asked for if it takes that, else its first."""
        return choose_format(self.capabilities.input_formats, self.config.get("input_format"))

    @property
    def output_format(self) -> AudioFormat:
        """What the provider's chunks are taken for when they say nothing themselves."""
        return choose_format(self.capabilities.output_formats, self.config.get("output_format"))

    def can(self, row: str) -> bool:
        """Return whether a capability is partial, full or, for a row without a hook, not declared."""
        return self.capabilities.support(row).support not in (Support.UNSUPPORTED, Support.PLANNED)

    # -- life -------------------------------------------------------------------------------------

    async def open(self, deadlines: Deadlines) -> None:
        """Connect the provider.

        Raises:
            ProviderError: It failed or took too long; the instance has been let go of.
        """
        self.state = SessionState.OPENING
        started = self._loop.time()
        limit_s = deadlines.handshake_s + deadlines.ready_s
        try:
            await self._within(limit_s, "connect")
        except _Late as error:
            await self.close()
            what = f"connect() was not done after {limit_s:g} s (hand-shake and session ready)"
            raise self.translate(error, what) from None
        except BaseException as error:
            await self.close()
            if isinstance(error, Exception):
                failure = self.translate(error, "connect() failed")
                raise failure from self.cause_of(failure, error)
            raise
        if not self.is_opening:  # Lost while it was opening.
            await self.close()
            raise self._loss_while_opening or ConnectionLost(
                f"{self.name} closed the connection before the session was ready.", provider=self.name
            )
        self.state = SessionState.READY
        self.opened_at = self._loop.time()
        self.latency_ms = round((self.opened_at - started) * 1000)

    @property
    def is_opening(self) -> bool:
        """Whether ``connect`` is under way."""
        return self.state is SessionState.OPENING

    def take_early_output(self) -> None:
        """Deliver what the provider said before it was ready; for a session that takes over from none."""
        early, self._early = self._early, []
        for event_type, data in early:
            self._deliver(event_type, data)

    @property
    def age_s(self) -> float:
        """Seconds since the session was ready; 0.0 before."""
        return 0.0 if self.opened_at is None else self._loop.time() - self.opened_at

    async def close(self) -> bool:
        """Disconnect the provider, once; False when it did not let go within the deadline.

        Goes on to its end when the caller is cancelled; a second call waits for the first one's end.
        """
        if self._ending is None:
            if self.state is not SessionState.ENDED:
                self.state = SessionState.CLOSING
            self._ending = self._loop.create_task(self._disconnect(), name=f"{self.name} disconnect")
        try:
            return await asyncio.shield(self._ending)
        except asyncio.CancelledError:
            await asyncio.wait([self._ending], timeout=CLOSE_DEADLINE_S)
            raise

    async def _disconnect(self) -> bool:
        done = True
        try:
            if self.sender is not None:
                await self.sender.close()
            await self._within(CLOSE_DEADLINE_S, "disconnect")
        except _Late:
            done = False
            self._warn("disconnect_timeout", _ABANDONED.format(self.name))
        except Exception as error:
            failure = self.translate(error, "disconnect() failed")
            self._warn("disconnect_failed", f"{failure} The session is over all the same.")
        finally:
            self.state = SessionState.ENDED
            self.provider.attach(None)
        return done

    def _warn(self, code: str, message: str) -> None:
        self._owner.session_event(self, EventType.WARNING, {"code": code, "message": message})

    async def _within(self, limit_s: float, hook: str) -> None:
        """Call a hook; past the limit, or when cancelled, the call is cancelled and left to itself."""
        work = asyncio.ensure_future(self._bound(hook)())
        try:
            done, _ = await asyncio.wait([work], timeout=limit_s)
            if not done:
                raise _Late
            work.result()
        except asyncio.CancelledError:
            if work.done() and work.cancelled():
                current = asyncio.current_task()
                if current is None or not current.cancelling():
                    raise RuntimeError("it was cancelled inside the provider") from None
            raise
        finally:
            if not work.done():
                work.add_done_callback(_look_at)
                work.cancel()
                await asyncio.wait([work], timeout=_LET_GO_S)
            else:
                _look_at(work)  # It may have failed in the moment in which the caller was cancelled.

    # -- settings ---------------------------------------------------------------------------------

    @property
    def is_heard(self) -> bool:
        """Whether its answers are sound and not text alone, as far as is known."""
        modalities = self.config.get("modalities")
        return "audio" in modalities if modalities else bool(self.capabilities.output_formats)

    def take_settings(self, told: Mapping[str, Any]) -> None:
        """Note what the service says is in force."""
        self.settings.update(told)
        self._told.update(told)

    async def configure(self, values: Mapping[str, Any]) -> None:
        """Change options by ``configure_session``; see :meth:`call` for what it raises.

        What the service said meanwhile counts; its silence means that it took what it was asked for.
        """
        self._told.clear()
        await self.call("configure_session", values)
        self.config.update(values)
        shown = {name: value for name, value in values.items() if name in self.settings}
        if "turn_detection" in values:
            shown["turn_detection"] = values["turn_detection"].kind
        self.settings.update(shown | self._told)

    # -- calls ------------------------------------------------------------------------------------

    async def call(self, hook: str, *args: Any) -> Any:
        """Call a hook of the contract with all of its arguments.

        Raises:
            NotConnected: The session is not ready.
            CapabilityMissing: The provider cannot do it.
            ProviderError: It failed; the original is the cause.
        """
        if not self.is_ready:
            raise NotConnected(f"{hook}() needs an open session; this one of {self.name} is {self.state}.")
        try:
            async with asyncio.timeout(CALL_DEADLINE_S):
                return await self._bound(hook)(*args)
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is None or current.cancelling():
                raise
            raise self.failed(hook, RuntimeError("it was cancelled inside the provider")) from None
        except Exception as error:
            failure = self.failed(hook, error)
            raise failure from self.cause_of(failure, error)

    def failed(self, hook: str, error: Exception) -> VoxEngineError:
        """Return what a call's exception means, and end the session when it means loss."""
        failure = self.translate(error, f"{hook}() failed")
        if isinstance(failure, ConnectionLost):
            self.lose(failure)
        return failure

    def report(self, failure: VoxEngineError) -> None:
        """Emit a failure that no caller waits for; the loss of the session is reported by :meth:`lose` alone."""
        if isinstance(failure, ConnectionLost) or not self.is_ready:
            return
        recoverable = isinstance(failure, ProviderError) and failure.recoverable
        data = {"error": failure, "recoverable": recoverable}
        self._owner.session_event(self, error_event(failure), data)

    def lose(self, error: ProviderError) -> None:
        """Report, once, that the session ended without being asked to."""
        if self.state is SessionState.OPENING:
            self.state, self._loss_while_opening = SessionState.CLOSING, error
            return
        if self.state is not SessionState.READY:
            return
        self.state, self.ended_at = SessionState.ENDED, self._loop.time()
        self._owner.session_lost(self, error)

    def _bound(self, hook: str) -> Callable[..., Awaitable[Any]]:
        call = self._calls.get(hook)
        if call is None:
            if self.manager is not None:
                through = getattr(self.manager.hook, hook)
                names = CONTRACT[hook]

                def call(*args: Any) -> Awaitable[Any]:
                    result: Awaitable[Any] = through(**dict(zip(names, args, strict=True)))
                    return result
            else:
                call = bind(self.provider, hook)
            self._calls[hook] = call
        return call

    def audio_call(self) -> Callable[[bytes], Awaitable[None]]:
        """Return the provider's ``send_audio``, bound directly: chunks do not go through pluggy."""
        return bind(self.provider, "send_audio")

    # -- the provider's side ----------------------------------------------------------------------

    def provider_event(self, event_type: EventType, data: Mapping[str, Any]) -> None:
        """Take an event that the provider emitted."""
        lane = self.lane
        if lane is not None and type(data) is dict:
            try:
                if lane.take(event_type, data):
                    return
            except Exception as error:
                self._pass_over(event_type, f"it could not be taken ({type(error).__name__})")
                return
        values = data if isinstance(data, dict) else dict(data)
        if event_type in _OUTPUT:
            if self.state is not SessionState.OPENING:
                self._deliver(event_type, values)
            elif len(self._early) < _EARLY_LIMIT:
                self._early.append((event_type, values))
        elif event_type is EventType.CONNECTION_ESTABLISHED:
            self.established = values
        elif event_type in (EventType.CONNECTION_LOST, EventType.CONNECTION_FAILED):
            self.lose(self._loss(values.get("error")))
        elif event_type is EventType.CONNECTION_CLOSED:
            self.lose(self._loss(None))
        elif event_type is EventType.CONNECTION_STARTING:
            return
        else:
            self._deliver(event_type, values)

    def _deliver(self, event_type: EventType, data: dict[str, Any]) -> None:
        """Pass an event on; what cannot be understood is the provider's fault and does not stop its reader."""
        problem = event_problem(event_type, data)
        if not problem:
            if "error" in data or "message" in data:
                self._scrub_event(data)
            try:
                self._owner.session_event(self, event_type, data)
                return
            except Exception as error:
                problem = f"it could not be taken ({type(error).__name__})"
        self._pass_over(event_type, problem)

    def _pass_over(self, event_type: EventType, problem: str) -> None:
        """Say once that events of a type cannot be taken, and why."""
        if event_type in self._reported:
            return
        self._reported.add(event_type)
        fault = RemoteProtocolError(
            f"{self.name} emitted {event_type.name} that was passed over: {problem}. "
            "Later ones like it are passed over silently. This is a fault in the provider's package.",
            provider=self.name,
        )
        data = {"error": fault, "recoverable": True}
        self._owner.session_event(self, EventType.ERROR_GENERAL, data)

    def _scrub_event(self, data: dict[str, Any]) -> None:
        error, message = data.get("error"), data.get("message")
        if isinstance(error, BaseException):
            data["error"] = self._scrubbed(error)
        elif error is not None:
            data["error"] = without_secrets(error, secret_values(self.config))
        if isinstance(message, str):
            data["message"] = self.scrub(message)

    def provider_lost(self) -> None:
        """Learn that the provider set ``is_connected`` to False."""
        self.lose(self._loss(None))

    def _loss(self, error: object) -> ProviderError:
        if isinstance(error, ProviderError):
            clean = self._scrubbed(error)
            return clean if isinstance(clean, ProviderError) else error
        detail = f": {self.scrub(str(error))}" if error else ""
        return ConnectionLost(
            f"{self.name} ended the session {self.age_s:.0f} s after it was ready{detail}. The history is kept: "
            "switch_provider continues the conversation.",
            provider=self.name,
        )

    # -- errors -----------------------------------------------------------------------------------

    def translate(self, error: Exception, what: str) -> VoxEngineError:
        """Return an exception of a provider in words of this package; secrets are masked."""
        if isinstance(error, VoxEngineError):
            clean = self._scrubbed(error)
            return clean if isinstance(clean, VoxEngineError) else error
        text = self.scrub(str(error))
        where = f"{self.name}: {what}: {type(error).__name__}{f': {text}' if text else ''}."
        if isinstance(error, TimeoutError):
            return ProviderError(
                f"{self.name}: {what}. Nothing came from the service; trying again can help.",
                provider=self.name,
                code=ErrorCode.TIMEOUT,
            )
        if type(error).__module__.partition(".")[0] == "websockets":
            return self._websocket_error(error)
        if isinstance(error, ConnectionError | EOFError):
            return ConnectionLost(where, provider=self.name)
        if isinstance(error, OSError):
            return ProviderError(where, provider=self.name, code=ErrorCode.UNAVAILABLE)
        return ProviderError(
            f"{where} This is a fault in the provider's package or its configuration.",
            provider=self.name,
            recoverable=False,
        )

    def _websocket_error(self, error: Exception) -> VoxEngineError:
        """Return what an exception of the websockets package means, for providers that use it by themselves."""
        from websockets.exceptions import ConnectionClosed, InvalidStatus

        from voxengine.transport import handshake, outcomes

        target = outcomes.Target(self.name)
        if isinstance(error, ConnectionClosed):
            close_code, reason = (error.rcvd.code, error.rcvd.reason) if error.rcvd else (1006, "")
            return outcomes.was_closed(target, close_code, self.scrub(reason), self.age_s)
        if isinstance(error, InvalidStatus):
            response = error.response
            return outcomes.rejected(
                target, response.status_code, response.headers.raw_items(), bytes(response.body or b"")
            )
        mapped = handshake.connect_error(error, target, "the endpoint", 0.0)
        if isinstance(mapped, VoxEngineError):
            return mapped
        return ProviderError(
            f"{self.name}: {type(error).__name__}: {self.scrub(str(error))}.", provider=self.name
        )

    def _guarded(self, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except KeyError as error:
            raise ProviderError(
                f"{self.name} misses {self.scrub(str(error))} in its configuration. "
                "Give it as an option of VoiceEngineConfig or in metadata.",
                provider=self.name,
                code=ErrorCode.INVALID_REQUEST,
            ) from None
        except Exception as error:
            failure = self.translate(error, "the provider could not be made")
            raise failure from self.cause_of(failure, error)

    def cause_of(self, failure: VoxEngineError, error: BaseException) -> BaseException | None:
        """Return what a failure is raised from: the provider's exception, unless its text shows a secret."""
        cause = error.__cause__ if failure is error else error
        return None if cause is None or shows_secret(cause, self._masked) else cause

    def scrub(self, text: str) -> str:
        """Return a text without the session's secrets and without user and query of any URL."""
        return self._masked(text)[:500]

    def _masked(self, text: str) -> str:
        for secret in secret_values(self.config):
            text = text.replace(secret, MASK)
        return bare_urls(text)

    def _scrubbed(self, error: BaseException) -> BaseException:
        """Return an exception of which nothing shows a secret: the same one where it can be changed."""
        clean = cleaned_error(error, self._masked)
        if isinstance(clean, ProviderError) and not clean.provider:
            clean.provider = self.name
        return clean


class _Late(TimeoutError):
    """Our deadline passed; a provider's own TimeoutError is another one."""


def _look_at(work: asyncio.Future[Any]) -> None:
    """See the exception of an abandoned call, so that the loop does not report it."""
    if not work.cancelled():
        work.exception()


def error_event(error: BaseException) -> EventType:
    """Return the type of event that an error belongs to."""
    if isinstance(error, AudioError):
        return EventType.ERROR_AUDIO
    if isinstance(error, ProviderError) and error.code in _NETWORK_CODES:
        return EventType.ERROR_NETWORK
    return EventType.ERROR_GENERAL


_NETWORK_CODES: Final = (ErrorCode.CONNECTION_LOST, ErrorCode.UNAVAILABLE, ErrorCode.TIMEOUT)


def choose_format(offered: tuple[AudioFormat, ...], wanted: object) -> AudioFormat:
    """Return the format of a session: what was asked for if the provider has it, else the one that is nearest.

    That is its first of the same rate, else its first. A provider that declares nothing takes PCM16 mono.
    """
    if not isinstance(wanted, AudioFormat):
        return offered[0] if offered else DEFAULT_FORMAT
    if not offered:
        return wanted if wanted == AudioFormat(wanted.sample_rate) else DEFAULT_FORMAT
    same_rate = (each for each in offered if each.sample_rate == wanted.sample_rate)
    return wanted if wanted in offered else next(same_rate, offered[0])
