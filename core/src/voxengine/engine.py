"""The engine: what an application holds for the length of a conversation."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

import attrs

from voxengine.audio.format import AudioFormat
from voxengine.audio.playback import ExternalClock
from voxengine.bus import EventBus
from voxengine.config import VoiceEngineConfig, live_options
from voxengine.continuity import Continuity, carried_over, engine_fields_kept, find_target, refuse_planned
from voxengine.conversation import Conversation, Interruption
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
from voxengine.history import History
from voxengine.inputs import check_ms, check_text, compare_format, to_pcm
from voxengine.metrics import Metrics
from voxengine.providers.registry import ProviderRegistry, default_registry
from voxengine.session import Session
from voxengine.taps import Taps
from voxengine.threads import call_on, in_thread
from voxengine.turns import TurnTaker

if TYPE_CHECKING:
    from voxengine.tools import ToolRunner

__all__ = ["Interruption", "VoiceEngine"]

F = TypeVar("F", bound=Callable[..., Any])


class _State(StrEnum):
    NEW = "not connected"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    LOST = "lost"
    CLOSED = "disconnected"


class VoiceEngine:
    """One conversation through whichever provider is configured.

    Everything happens on the event loop in which :meth:`connect` is called; from another thread use
    :meth:`call_threadsafe`.

    Args:
        config: The configuration.
        taps: Filters and observers, called in this order; see :mod:`voxengine.hookspecs`.
        registry: Where providers are looked up; the process-wide one by default.

    Raises:
        ConfigError: The configuration is no VoiceEngineConfig, or a tap or tool is wrong.
    """

    def __init__(
        self,
        config: VoiceEngineConfig,
        *,
        taps: Sequence[object] = (),
        registry: ProviderRegistry = default_registry,
    ) -> None:
        given: object = config
        if not isinstance(given, VoiceEngineConfig):
            what = "a plain mapping" if isinstance(given, Mapping) else f"a {type(given).__name__}"
            raise ConfigError(
                f"VoiceEngine got {what}. Make it a configuration first: VoiceEngine(VoiceEngineConfig(**config))."
            )
        self._config = config
        self._registry = registry
        self._state = _State.NEW
        self._thread_id: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: Session | None = None
        self._conversation_: Conversation | None = None
        self._continuity_: Continuity | None = None
        self._turns_: TurnTaker | None = None
        self._lock: asyncio.Lock | None = None
        self._failure: ProviderError | None = None
        self._counter = itertools.count(1)
        self.events = EventBus(self._now)
        """Where the application listens."""
        self.history = History(new_id=self._new_id, keep_audio_s=config.keep_audio_s)
        """What was said; see :class:`voxengine.history.History`."""
        self.metrics = Metrics()
        """Latencies and counts."""
        self._taps = Taps(taps, self._tap_raised)
        self.metrics.tapped = self._taps.discarded
        if self._taps.has("on_event"):
            self.events.tap = self._taps.filter_event
        self._tools_: ToolRunner | None = None
        for tool in config.tools:
            self._tools.register(tool)

    # -- life -------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Open the session and return when it takes input.

        Raises:
            ProviderError: There is no such provider, or its session could not be opened. ``connect`` or
                ``switch_provider`` may be called again.
            UsageError: The engine is connected, or was disconnected.
        """
        self._begin()
        conversation, continuity = self._conversation, self._continuity
        try:
            refuse_planned(self._config)
            data = {"attempt": 1}
            conversation.emit(EventType.CONNECTION_STARTING, data)
            session = await continuity.open(self._config, instead_of=None, degrade=True)
        except BaseException as error:
            self._state = _State.NEW
            if isinstance(error, Exception):
                self._connect_failed(error)
            raise
        self._adopt(session)

    def _begin(self) -> None:
        if self._thread_id is not None:
            self._check_thread("connect")
        if self._state is not _State.NEW:
            hint = "It can be used." if self._state is _State.CONNECTED else "Make a new VoiceEngine(config)."
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
            self._continuity_.on_input_ready = self._turns_.attach
        elif loop is not self._loop:
            raise UsageError(
                "connect(): this engine belongs to another event loop. Make a new VoiceEngine(config)."
            )
        self._state = _State.CONNECTING

    def _connect_failed(self, error: Exception) -> None:
        data = {"error": error, "will_retry": False, "provider_name": self._config.provider}
        self._conversation.emit(EventType.CONNECTION_FAILED, data)

    def _adopt(self, session: Session) -> None:
        """Put the first session in force."""
        conversation, continuity = self._conversation, self._continuity
        assert conversation.user.journal is not None
        continuity.attach_input(session, self._config, conversation.user.journal.end)
        conversation.output_owner = session
        self._session = session
        self._state = _State.CONNECTED
        data = {**session.established, "session_id": session.session_id, "latency_ms": session.latency_ms}
        conversation.emit(EventType.CONNECTION_ESTABLISHED, data, session)

    async def disconnect(self) -> None:
        """Close the session and everything that belongs to the engine. A second call does nothing."""
        if self._state is _State.CLOSED:
            return
        if self._thread_id is None:
            self._state = _State.CLOSED
            return
        self._check_thread("disconnect")
        was_connected = self._state is _State.CONNECTED
        self._state = _State.CLOSED
        conversation = self._conversation
        try:
            if was_connected and self._session is not None:
                conversation.end_response("disconnect")
                await self._continuity.retire(self._session, "disconnect")
        finally:
            if self._tools_ is not None:
                await self._tools_.close()
            await conversation.close()
            await self.events.close()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.disconnect()

    # -- the user's turn --------------------------------------------------------------------------

    async def send_audio(
        self, audio_data: Any, *, sample_rate: int | None = None, channels: int | None = None
    ) -> None:
        """Send user audio.

        The audio is accepted before the first wait: whatever happens afterwards, it is sent once, in order.
        Then this waits while the service is slow.

        Args:
            audio_data: Whole frames of PCM16 in ``input_format`` as bytes, or an array (int16, or float
                from -1 to 1) of shape (n_frames,) or (n_frames, channels). Copied where it could change.
            sample_rate: Compared with ``input_format`` when given.
            channels: Likewise.

        Raises:
            AudioFormatError: The data does not fit the format. Nothing was accepted.
            JournalFull: ``journal_s`` seconds of unanswered audio are held. Nothing was accepted.
            NotConnected, ProviderError: There is no session. Nothing was accepted.
        """
        session = self._ready("send_audio")
        journal = self._conversation.user.journal
        assert journal is not None
        data = audio_data if type(audio_data) is bytes else to_pcm(audio_data, journal.format)
        if len(data) % journal.format.frame_bytes:
            journal.format.check_aligned(len(data), "send_audio")
        if sample_rate is not None or channels is not None:
            compare_format(journal.format, sample_rate, channels)
        if not data:
            return
        if self._taps.has("on_input"):
            kept = self._taps.filter_input(data)
            if kept is None:
                return
            if len(kept) % journal.format.frame_bytes:
                journal.format.check_aligned(len(kept), "a tap's on_input")
            data = kept
        sender = session.sender
        assert sender is not None
        journal.append(data, sender.cursor)
        if self.events.wants(EventType.AUDIO_INPUT_CHUNK):
            values = {"audio_data": data, "sample_rate": journal.format.sample_rate}
            self._conversation.emit(EventType.AUDIO_INPUT_CHUNK, values, session)
        sender.kick()
        self._turns.push(data)
        if sender.is_behind:
            await sender.wait_for_room()

    async def send_text(self, text: str) -> None:
        """Send a complete user turn as text and ask for an answer.

        Raises:
            UsageError: ``text`` is no str or empty.
            CapabilityMissing, NotConnected, ProviderError: It could not be sent.
        """
        session = self._ready("send_text")
        check_text("send_text", text)
        session.capabilities.require("text_turn", provider=session.name, doing="send_text")
        self._conversation.user.text_turn(text)
        try:
            await session.call("send_text", text)
        except VoxEngineError:
            self._conversation.responses.request_failed()
            raise

    async def say(self, text: str) -> None:
        """Speak this text as the agent.

        Raises:
            CapabilityMissing: The provider cannot speak a given text.
        """
        session = self._ready("say")
        check_text("say", text)
        session.capabilities.require("speak", provider=session.name, doing="say")
        self._conversation.responses.input("say", is_request=True)
        try:
            await session.call("speak", text, True)
        except VoxEngineError:
            self._conversation.responses.request_failed()
            raise

    async def end_turn(self, respond: bool = True) -> None:
        """Say that the user has finished speaking, for now.

        Everything accepted is sent first. With turn detection by the client or by hand the provider is
        told; a vendor that finds the end itself gets the silence that it waits for.

        Args:
            respond: Ask for an answer. Only turn detection by the client or by hand can do without.
        """
        session = self._ready("end_turn")
        await self._turns.end(session, respond)

    # -- the agent's turn -------------------------------------------------------------------------

    def interrupt(self) -> Interruption:
        """Silence the agent now and tell the provider what was heard.

        The output is silent when this returns; ``.heard`` of the result says what the user heard, None when
        nothing was playing. Awaiting the result waits until the provider was told.
        """
        self._ready("interrupt")
        return self._conversation.interrupt("requested")

    def mark_played(self, item_id: str, played_ms: int) -> None:
        """Report how much of an item an external player has played; with ``playback="external"``.

        Raises:
            UsageError: The engine plays by another clock, or no audio of the item was handed out.
        """
        check_ms("mark_played: played_ms", played_ms)
        self._external("mark_played").mark_played(item_id, played_ms)

    def playback_cleared(self) -> None:
        """Report that an external player dropped what it had not played."""
        self._external("playback_cleared").cleared()

    def _external(self, method: str) -> ExternalClock:
        self._ready(method)
        clock = self._conversation.clock
        if not isinstance(clock, ExternalClock):
            raise UsageError(f"{method} is for playback='external'; this engine plays by another clock.")
        return clock

    # -- settings ---------------------------------------------------------------------------------

    async def configure_session(self, config: Mapping[str, Any] | None = None, **options: Any) -> None:
        """Change options of the running session; the others keep their values.

        Takes the neutral options by name (``instructions="…"``) or as a mapping. They stay in force for
        sessions that take over later, where they do not belong to one provider alone.

        Raises:
            ConfigError: An option has no such name, type or range. Nothing was changed.
            CapabilityMissing, NotConnected, ProviderError: The provider could not take it.
        """
        session = self._ready("configure_session")
        asked = live_options({**({} if config is None else config), **options})
        session.capabilities.require("live_configuration", provider=session.name, doing="configure_session")
        changed = attrs.evolve(self._config, **asked)
        values = {name: value for name, value in changed.for_provider().items() if name in asked}
        await session.call("configure_session", values)
        session.config.update(values)
        self._config = changed

    @overload
    def tool(self, function: F) -> F: ...

    @overload
    def tool(self, *, name: str | None = None, description: str | None = None) -> Callable[[F], F]: ...

    def tool(
        self, function: F | None = None, *, name: str | None = None, description: str | None = None
    ) -> F | Callable[[F], F]:
        """Let the agent call a typed function; its schema comes from type hints and docstring.

        Use as a decorator. Tools are offered to the sessions that are opened afterwards.

        Raises:
            ConfigError: The function cannot be described, or the name is taken.
        """

        def register(function: F) -> F:
            if self._state not in (_State.NEW, _State.CLOSED):
                raise UsageError(
                    "tool(): the session is open and has been told its tools. Register tools before connect(); "
                    "they also reach a session that takes over."
                )
            from voxengine.tools import tool_from_function

            self._tools.register(tool_from_function(function, name=name, description=description))
            return function

        return register if function is None else register(function)

    # -- the provider -----------------------------------------------------------------------------

    async def switch_provider(
        self, provider: str, config: VoiceEngineConfig | None = None, *, degrade: bool = False
    ) -> None:
        """Continue the conversation with another provider.

        The history goes over, and what the user is saying is heard by the next one. When the next session
        cannot be opened the present one stays. Also legal after a failed ``connect`` and after a loss.

        Args:
            provider: Its name.
            config: Its configuration; None: the one in ``fallbacks``, else the profile of that name, else
                the provider's own environment variables.
            degrade: Accept a provider without dialogue in the place of one with it.

        Raises:
            ProviderError: The next session could not be opened.
            ConfigError: ``config`` is for another provider.
        """
        if self._state is _State.NEW:
            target = await in_thread(find_target, provider, self._config, config)
            self._config = carried_over(self._config, target)
            await self.connect()
            return
        self._check_thread("switch_provider")
        if self._state not in (_State.CONNECTED, _State.LOST):
            raise NotConnected(f"switch_provider(): this engine is {self._state}.")
        assert self._lock is not None
        async with self._lock:
            target = carried_over(self._config, await in_thread(find_target, provider, self._config, config))
            refuse_planned(target)
            old, old_name = self._session, self._config.provider
            session = await self._continuity.take_over(old, old_name, target, "requested", degrade=degrade)
            if self._is_closed():
                await self._continuity.retire(session, "disconnect")
                raise NotConnected("switch_provider(): the engine was disconnected meanwhile.")
            self._config = engine_fields_kept(self._config, target)
            self._session, self._state, self._failure = session, _State.CONNECTED, None

    # -- what is known ----------------------------------------------------------------------------

    @property
    def config(self) -> VoiceEngineConfig:
        """The configuration in force."""
        return self._config

    @property
    def is_connected(self) -> bool:
        """Whether a session takes input."""
        return self._state is _State.CONNECTED

    @property
    def session(self) -> Session | None:
        """The session in force: name, epoch, capabilities, ``settings``; None before connect."""
        return self._session

    @property
    def input_format(self) -> AudioFormat:
        """What ``send_audio`` takes; known after the first connect, then fixed."""
        journal = self._connected_once("input_format").user.journal
        assert journal is not None
        return journal.format

    @property
    def output_format(self) -> AudioFormat:
        """What AUDIO_OUTPUT_CHUNK carries; known after the first connect, then fixed."""
        return self._connected_once("output_format").output_format

    async def get_usage(self) -> Mapping[str, Any] | None:
        """Return what the session used so far; after its end the last known; None when the service does not say."""
        await self._refresh_usage("get_usage")
        return self.metrics.sessions[-1].usage

    async def estimate_cost(self) -> float | None:
        """Return the price of the session so far in US dollars; None when unknown."""
        await self._refresh_usage("estimate_cost")
        return self.metrics.sessions[-1].cost

    async def _refresh_usage(self, method: str) -> None:
        self._check_thread(method)
        self._connected_once(method)
        if self._session is not None and self._session.is_ready:
            await self._continuity.note_usage(self._session)

    async def wait_idle(self, *, timeout_s: float = 60.0, settle_s: float = 0.5) -> None:
        """Wait until nothing is asked for, made, played, spoken or called, for ``settle_s`` on end.

        Raises:
            ProviderError: That did not come about within ``timeout_s`` (code ``timeout``), or the session was lost.
        """
        self._ready("wait_idle")
        conversation = self._conversation

        def is_busy() -> bool:
            return self.is_connected and not conversation.is_idle

        came_to_rest = await conversation.activity.wait_while(is_busy, timeout_s, settle_s)
        self._ready("wait_idle")
        if not came_to_rest:
            name = self._config.provider
            raise ProviderError(
                f"{name}: the conversation did not come to rest within {timeout_s:g} s ({conversation.why_busy}).",
                provider=name,
                code=ErrorCode.TIMEOUT,
            )

    def call_threadsafe(
        self, method: str | Callable[..., Any], *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[Any]:
        """Call a method of the engine from another thread; the result comes through the future.

        Args:
            method: A method's name, or the bound method.
        """
        loop = self._loop
        if loop is None or loop.is_closed():
            raise NotConnected("call_threadsafe(): the engine has no running loop; connect() first.")
        call = getattr(self, method) if isinstance(method, str) else method

        return call_on(loop, call, *args, **kwargs)

    # -- sessions report here ---------------------------------------------------------------------

    def session_event(self, session: Session, event_type: EventType, data: dict[str, Any]) -> None:
        """Take an event of a provider; for the session only."""
        if event_type is EventType.SPEECH_STARTED and session is self._session:
            self._turns.vendor_speaks_up(session)
        self._conversation.session_event(session, event_type, data)

    def session_lost(self, session: Session, error: ProviderError) -> None:
        """Learn that a session ended by itself; for the session only."""
        conversation = self._conversation
        if session is self._session and self._state is _State.CONNECTED:
            conversation.end_response("lost")
            self._state, self._failure = _State.LOST, error
        data = {"error": error, "will_reconnect": False}
        conversation.emit(EventType.CONNECTION_LOST, data, session)
        conversation.activity.start(self._continuity.retire(session, "lost"), "retire")

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

    def _is_closed(self) -> bool:
        return self._state is _State.CLOSED

    def _ready(self, method: str) -> Session:
        if self._state is not _State.CONNECTED or threading.get_ident() != self._thread_id:
            self._not_ready(method)
        assert self._session is not None
        return self._session

    def _not_ready(self, method: str) -> None:
        if self._thread_id is not None:
            self._check_thread(method)
        if self._state is _State.LOST and self._failure is not None:
            raise ConnectionLost(
                f"{method}(): the session with {self._config.provider} was lost ({self._failure}). "
                "Nothing was sent; switch_provider continues the conversation.",
                provider=self._config.provider,
                close_code=self._failure.close_code,
            )
        then = (
            "Make a new VoiceEngine(config)."
            if self._state is _State.CLOSED
            else "await engine.connect() first."
        )
        raise NotConnected(f"{method}(): this engine is {self._state}. {then}")

    def _connected_once(self, what: str) -> Conversation:
        conversation = self._conversation_
        if conversation is None or conversation.user.journal is None:
            raise NotConnected(f"{what} is known after connect().")
        return conversation

    def _check_thread(self, method: str) -> None:
        if threading.get_ident() != self._thread_id and self._thread_id is not None:
            raise WrongThread(
                f"{method}() was called from another thread than the engine's. Use "
                f"engine.call_threadsafe({method!r}, ...), which returns a future."
            )

    def _now(self) -> float:
        return self._loop.time() if self._loop is not None else 0.0

    def _new_id(self, prefix: str) -> str:
        return f"{prefix.rstrip('_')}_{next(self._counter)}"

    def _tool_event(self, event_type: EventType, data: Mapping[str, Any]) -> None:
        if self._conversation_ is not None:
            self._conversation_.calls.runner_event(event_type, data)

    def _tap_raised(self, name: str, error: BaseException) -> None:
        data = {"error": error, "recoverable": True, "tap": name}
        if self._conversation_ is not None:
            self._conversation_.emit(EventType.ERROR_GENERAL, data)
        else:
            self.events.emit(EventType.ERROR_GENERAL, data)
