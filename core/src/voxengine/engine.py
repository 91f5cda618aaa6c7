"""The engine: what an application holds for the length of a conversation."""

from __future__ import annotations

import asyncio
import concurrent.futures
from asyncio import _get_running_loop
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, overload

from voxengine.adapting import carried_over, engine_fields_kept, find_target
from voxengine.audio.format import AudioFormat
from voxengine.audio.playback import ExternalClock
from voxengine.barge_in import Interruption
from voxengine.config import VoiceEngineConfig, live_options
from voxengine.continuity import Move
from voxengine.errors import (
    ConfigError,
    ErrorCode,
    JournalFull,
    NotConnected,
    ProviderError,
    UsageError,
    VoxEngineError,
)
from voxengine.events import EventType
from voxengine.inputs import check_ms, check_room, check_seconds, check_text, compare_format, encoded, to_pcm
from voxengine.keeping import Keeping
from voxengine.lifecycle import CONNECTED, EngineState
from voxengine.listening import Levels, Listening
from voxengine.providers.registry import ProviderRegistry, default_registry
from voxengine.session import Session
from voxengine.threads import call_on, in_thread
from voxengine.turns import check_end

if TYPE_CHECKING:
    from voxengine.audio.backends.base import StreamBackend

__all__ = ["Interruption", "VoiceEngine"]

F = TypeVar("F", bound=Callable[..., Any])

_PIECE_MS: Final = 200
"""Recorded audio that is accepted at a time."""


class VoiceEngine(Keeping):
    """One conversation through whichever provider is configured.

    Everything happens on the event loop in which :meth:`connect` is called; from another thread use
    :meth:`call_threadsafe`.

    Args:
        config: The configuration.
        taps: Filters and observers, called in this order; see :mod:`voxengine.hookspecs`.
        registry: Where providers are looked up; the process-wide one by default.
        audio: Opens microphone and loudspeaker; None: PyAudio, once ``start_listening`` needs it. One that is
            given is not closed with the engine.

    Raises:
        ConfigError: The configuration is no VoiceEngineConfig, or a tap or tool is wrong.
    """

    def __init__(
        self,
        config: VoiceEngineConfig,
        *,
        taps: Sequence[object] = (),
        registry: ProviderRegistry = default_registry,
        audio: StreamBackend | None = None,
    ) -> None:
        super().__init__(config, taps, registry)
        self._audio = audio

    # -- life -------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Open the session and return when it takes input.

        When the provider cannot be had (its error is recoverable, or the quota is spent), the first of ``fallbacks``
        that can is taken. A wrong key or a provider that is not installed is a mistake, and raised.

        Raises:
            ConfigError: ``tool_choice`` names a tool that there is not.
            ProviderError: No session could be opened. The error is that of the first provider, with those of fallbacks
                in its notes. ``connect`` or ``switch_provider`` may be called again.
            UsageError: The engine is connected, or was disconnected.
        """
        await self._connect(is_alone=False)

    async def disconnect(self) -> None:
        """Close the session and everything that belongs to the engine. A second call does nothing.

        A cancelled call goes on in the background. What had not been played is silenced, and the history
        keeps what was heard.
        """
        self._check_thread("disconnect")
        if self._conversation_ is None:
            self._state = EngineState.CLOSED
            return
        if self._closing is None:
            session = self._session if self._state is EngineState.CONNECTED else None
            self._state = EngineState.CLOSED
            self._stop_watching()
            work = self._close(self._opening, session)
            self._closing = asyncio.get_running_loop().create_task(work, name="voxengine disconnect")
        if not self._closing.done():
            await asyncio.shield(self._closing)
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
        Then this waits while the service is slow. What comes while a recorded turn is being sent waits for its end.

        Args:
            audio_data: Whole frames in ``input_format`` as bytes, or, unless that is G.711, an array (int16,
                or float from -1 to 1) of shape (n_frames,) or (n_frames, channels). Copied where it could change.
            sample_rate: Compared with ``input_format`` when given.
            channels: Likewise.

        Raises:
            AudioFormatError: The data does not fit the format. Nothing was accepted.
            JournalFull: ``journal_s`` seconds of unanswered audio are held. Nothing was accepted. A turn that
                fills them is ended, unless turns end by hand.
            NotConnected, ProviderError: There is no session. Nothing was accepted.
        """
        # Each call and each object that is touched here is paid for by every chunk of every session.
        if self._state is CONNECTED and _get_running_loop() is self._loop:
            session = self._session
            assert session is not None
        else:
            session = self._takes_input("send_audio")
        user_turns = self._turns_
        assert user_turns is not None
        if user_turns.taker is not None:
            await user_turns.wait_for_input()
            session = self._takes_input("send_audio")
        sender = session.sender
        assert sender is not None
        journal = sender.journal
        if type(audio_data) is bytes and journal.accepts is journal.format:
            data = audio_data
        else:
            data = to_pcm(audio_data, journal.accepts)
        if len(data) % journal.frame_bytes:
            journal.format.check_aligned(len(data), "send_audio")
        if sample_rate is not None or channels is not None:
            compare_format(journal.format, sample_rate, channels)
        if not data:
            return
        if self._filters_input:
            kept = self._taps.filter_input(data)
            if kept is None:
                return
            if len(kept) % journal.frame_bytes:
                journal.format.check_aligned(len(kept), "a tap's on_input")
            data = kept
        try:
            journal.append(data, sender.cursor)
        except JournalFull:
            user_turns.cut_short()
            raise
        if self.events.may_want_input and self.events.wants(EventType.AUDIO_INPUT_CHUNK):
            values = {"audio_data": data, "sample_rate": journal.format.sample_rate}
            self._conversation.emit(EventType.AUDIO_INPUT_CHUNK, values, session)
        is_sent = sender.offer(data)
        if user_turns.watcher is not None:
            user_turns.watcher.push(data)
        if not is_sent and sender.is_behind:
            await sender.wait_for_room()

    async def send_text(self, text: str) -> None:
        """Send a complete user turn as text and ask for an answer.

        A service that speaks and holds no dialogue says the text: it is the agent's, as with :meth:`say`.

        Raises:
            UsageError: ``text`` is no str or empty.
            CapabilityMissing, NotConnected, ProviderError: It could not be sent.
        """
        session = self._takes_input("send_text")
        check_text("send_text", text)
        session.capabilities.require("text_turn", provider=session.name, doing="send_text")
        if not session.can("dialogue") and session.can("speak"):
            await self.say(text)
            return
        if not self._is_recovering():  # What the session is being told comes before.
            await self._conversation.telling.wait()
            session = self._takes_input("send_text")
        user = self._conversation.user
        item_id = user.text_turn(text)
        if self._is_recovering():
            return  # The next session is given it.
        if session.unpaid is not None:
            session.unpaid.append(item_id)
            return
        try:
            await self._conversation.telling.text(session, item_id, text)
        except VoxEngineError:
            if self._is_recovering() or session is not self._session:
                return  # A session that takes over, or has meanwhile, is given the turn.
            user.take_back(item_id)
            raise

    async def say(self, text: str) -> None:
        """Speak this text as the agent.

        A session that takes over says what the one before did not, the rest of it where that came half way.

        Raises:
            CapabilityMissing: The provider cannot speak a given text.
        """
        session = await self._ready_again("say")
        check_text("say", text)
        session.capabilities.require("speak", provider=session.name, doing="say")
        conversation = self._conversation
        say = conversation.says.ask(text, next(reversed(conversation.user.unanswered_texts), None))
        if session.unpaid is not None:
            session.unpaid.append(say)
            return
        conversation.says.request(say)
        try:
            await session.call("speak", text, True)
        except VoxEngineError:
            if self._is_recovering() or session is not self._session:
                return  # A session that takes over, or has meanwhile, says it.
            conversation.says.take_back(say)
            raise

    async def end_turn(self, respond: bool = True) -> None:
        """Say that the user has finished speaking, for now.

        Everything accepted is sent first. With turn detection by the client or by hand the provider is
        told; a vendor that finds the end itself gets the silence that it waits for.

        Args:
            respond: Ask for an answer. A vendor that finds the end itself always gives one.

        Raises:
            CapabilityMissing, NotConnected, ProviderError: It is to give none, or it could not be told.
        """
        check_end(self._takes_input("end_turn"), respond, "end_turn")
        await self._turns.end(respond)

    async def send_recorded_audio(
        self,
        audio_data: Any,
        respond: bool = True,
        *,
        sample_rate: int | None = None,
        channels: int | None = None,
    ) -> None:
        """Send one whole turn that was recorded before, as with a push-to-talk button, and end it.

        Pauses in it do not end the turn where the client decides. It goes out as fast as the service takes it.

        Args:
            audio_data: As for :meth:`send_audio`, of any length that ``journal_s`` allows.
            respond: As for :meth:`end_turn`.
            sample_rate: As for :meth:`send_audio`.
            channels: Likewise.

        Raises:
            AudioFormatError, JournalFull, NotConnected, ProviderError: As for :meth:`send_audio`. What was
                accepted before a loss stays accepted.
            UsageError: There is no audio.
        """
        check_end(self._takes_input("send_recorded_audio"), respond, "send_recorded_audio")
        journal = self._conversation.user.journal
        assert journal is not None
        data = to_pcm(audio_data, journal.accepts, "send_recorded_audio")
        journal.format.check_aligned(len(data), "send_recorded_audio")
        if sample_rate is not None or channels is not None:
            compare_format(journal.format, sample_rate, channels, "send_recorded_audio")
        size = journal.format.n_bytes(_PIECE_MS)
        async with self._turns.whole_turn():
            silence = self._turns.own_silence()
            check_room(journal, len(data), len(silence))
            data += silence
            for at in range(0, len(data), size):
                await self.send_audio(encoded(data[at : at + size], journal.accepts))
            await self.end_turn(respond)

    # -- microphone and loudspeaker ---------------------------------------------------------------

    async def start_listening(self) -> None:
        """Open the microphone and send what it hears; with ``playback="auto"`` the agent is heard as well.

        A device that is lost later is an ERROR_AUDIO; the conversation goes on, and the device is used again when it
        is back. A second call does nothing.

        Raises:
            AudioDeviceError: There is no microphone, PyAudio is not installed, or a device that the
                configuration names cannot be used.
            ConfigError: There is no audio processor of a name in ``device_options``.
            NotConnected, ProviderError: There is no session.
        """
        self._takes_input("start_listening")
        if self._listening is None:
            self._listening = Listening(
                self._conversation,
                lambda: self._config,
                lambda: self._session,
                self.send_audio,
                self.end_turn,
                self._audio,
            )
        await self._listening.start()

    async def stop_listening(self, respond: bool = True) -> None:
        """Close the microphone, send the rest of what it heard and end the turn that is open, if any.

        The loudspeaker stays open until the answer was given and played. Without a microphone this does nothing.

        Args:
            respond: Ask for an answer. Without, a vendor that finds the end of a turn itself is left to wait for it.
        """
        self._check_thread("stop_listening")
        if self._listening is not None:
            await self._listening.stop(respond=respond)

    @property
    def is_listening(self) -> bool:
        """Whether the microphone is open."""
        return self._listening is not None and self._listening.is_listening

    @property
    def levels(self) -> Levels:
        """How loud microphone and loudspeaker are now: for meters."""
        return self._listening.levels if self._listening is not None else Levels()

    async def wait_played(self, *, timeout_s: float = 60.0) -> bool:
        """Wait until what was received of the agent has been played, out of the device: to hang up after the last word.

        Unlike :meth:`wait_idle` it may be called by a tool. Returns False when ``timeout_s`` are over before.
        """
        self._takes_input("wait_played")
        check_seconds("wait_played: timeout_s", timeout_s)
        conversation = self._conversation
        is_over = await conversation.activity.wait_while(lambda: conversation.agent.is_audible, timeout_s)
        if is_over and self._listening is not None:
            await self._listening.wait_played()
        return is_over

    # -- the agent's turn -------------------------------------------------------------------------

    def interrupt(self) -> Interruption:
        """Silence the agent now and tell the provider what was heard.

        The output is silent when this returns; ``.heard`` of the result says what the user heard, None when
        nothing was playing. Awaiting the result waits until the provider was told.
        """
        self._takes_input("interrupt")
        return self._conversation.interrupt("requested")

    def mark_played(self, item_id: str, played_ms: int) -> None:
        """Report how much of an item an external player has played; with ``playback="external"``.

        Raises:
            UsageError: The engine plays by another clock, or no audio of the item was handed out.
        """
        check_ms("mark_played: played_ms", played_ms)
        self._external("mark_played").mark_played(item_id, played_ms)

    def playback_cleared(self) -> None:
        """Report that an external player dropped what it had not played: an answer ends there, as by ``interrupt``."""
        self._external("playback_cleared")
        self._conversation.playback_cleared()

    def _external(self, method: str) -> ExternalClock:
        self._takes_input(method)
        clock = self._conversation.clock
        if not isinstance(clock, ExternalClock):
            raise UsageError(f"{method} is for playback='external'; this engine plays by another clock.")
        return clock

    # -- settings ---------------------------------------------------------------------------------

    async def configure_session(self, config: Mapping[str, Any] | None = None, **options: Any) -> None:
        """Change options of the running session; the others keep their values, those of ``metadata`` too.

        Takes the neutral options by name (``instructions="…"``) or as a mapping. They stay in force for
        sessions that take over later, where they do not belong to one provider alone. This returns when the
        provider was told; ``session.settings`` shows what was asked for until the service's own word on it comes,
        with SESSION_UPDATED.

        Raises:
            ConfigError: An option has no such name, type or range. Nothing was changed.
            CapabilityMissing, NotConnected, ProviderError: The provider could not take it.
        """
        given: object = config
        if given is not None and not isinstance(given, Mapping):
            raise ConfigError(
                f"configure_session takes options by name or a mapping, not a {type(given).__name__}."
            )
        asked = live_options({**(config or {}), **options})
        async with self._undisturbed("configure_session") as session:
            await self._configure(session, asked)

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
            self._check_thread("tool")
            if self._state not in (EngineState.NEW, EngineState.CLOSED):
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
            config: Its configuration; None: the one that it had in this conversation, else the one in
                ``fallbacks``, else the profile of that name, else the provider's own environment variables.
            degrade: Accept a provider without dialogue in the place of one with it.

        Raises:
            ProviderError: The next session could not be opened.
            ConfigError: ``config`` is for another provider.
            UsageError: A tool waits for it, whose own result the switch would wait for.
        """
        self._check_thread("switch_provider")
        if self._conversation_ is not None and not await self._conversation_.calls.own_is_settled():
            raise UsageError(
                "switch_provider() waits for the results of open tool calls, and a tool that waits for it is one. "
                "Start it with asyncio.create_task(...) and return a result."
            )
        if self._state is EngineState.NEW:
            await self._connect_to(provider, config)
            return
        self._check_switchable()
        await self._recovery.pause()
        try:
            await self._switch_to(provider, config, degrade)
        finally:
            self._recovery.go_on()

    async def _switch_to(self, provider: str, config: VoiceEngineConfig | None, degrade: bool) -> None:
        assert self._lock is not None
        async with self._lock:
            chosen = await in_thread(find_target, provider, self._config, config, self._used)
            target = carried_over(self._config, chosen)
            self._check_switchable()

            def adopt(session: Session) -> None:
                self._adopt(session)
                self._config = engine_fields_kept(self._config, target)
                self._recovery.chosen(chosen)
                self._used[provider] = chosen

            move = Move(
                from_provider=self._config.provider,
                reason="requested",
                adopt=adopt,
                degrade=degrade,
                cut_reply=self._config.reconnect.cut_reply,
            )
            is_repair = self._state is not EngineState.CONNECTED
            with self._telling_failure(provider, "switch_provider"):
                await self._opened(self._take_over(self._session, target, move), "switch_provider")
            if is_repair and self._session is not None:
                self._tell_established(self._session)
            if self._continuity.settling is not None:
                await asyncio.wait([self._continuity.settling])

    async def _connect_to(self, provider: str, config: VoiceEngineConfig | None) -> None:
        """Connect for the first time, to another provider than the configured one."""
        before = self._config
        chosen = await in_thread(find_target, provider, before, config, self._used)
        self._config = engine_fields_kept(before, carried_over(before, chosen), formats=True)
        try:
            await self._connect(is_alone=True)
        except BaseException:
            self._config = before
            raise
        self._used[provider] = chosen

    # -- what is known ----------------------------------------------------------------------------

    @property
    def config(self) -> VoiceEngineConfig:
        """The configuration in force."""
        return self._config

    @property
    def is_connected(self) -> bool:
        """Whether a session takes input."""
        return self._state is EngineState.CONNECTED

    @property
    def session(self) -> Session | None:
        """The session in force: name, epoch, capabilities, ``settings``; None before connect."""
        return self._session

    @property
    def input_format(self) -> AudioFormat:
        """What ``send_audio`` takes; known after the first connect, then fixed."""
        journal = self._connected_once("input_format").user.journal
        assert journal is not None
        return journal.accepts

    @property
    def output_format(self) -> AudioFormat:
        """What AUDIO_OUTPUT_CHUNK carries; known after the first connect, then fixed."""
        return self._connected_once("output_format").output_format

    async def get_usage(self) -> Mapping[str, Any] | None:
        """Return what the session used so far; after its end the last known; None when the service does not say."""
        held = await self._refresh_usage("get_usage")
        return held.usage if held is not None else None

    async def estimate_cost(self) -> float | None:
        """Return the price of the session so far in US dollars; None when unknown."""
        held = await self._refresh_usage("estimate_cost")
        return held.cost if held is not None else None

    async def wait_idle(self, *, timeout_s: float = 60.0, settle_s: float = 0.5) -> None:
        """Wait until nothing is asked for, made, played, spoken or called, for ``settle_s`` on end.

        Raises:
            ProviderError: That did not come about within ``timeout_s`` (code ``timeout``), or the session was lost.
        """
        self._takes_input("wait_idle")
        check_seconds("wait_idle: timeout_s", timeout_s)
        check_seconds("wait_idle: settle_s", settle_s)
        conversation = self._conversation

        def is_busy() -> bool:
            return self._is_recovering() or (self.is_connected and not conversation.is_idle)

        conversation.activity.touch()  # What was sent a moment ago may not have been heard yet.
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
        call = getattr(self, method, None) if isinstance(method, str) else method
        if not callable(call):
            raise UsageError(f"call_threadsafe() got {method!r}, which is no method of the engine.")

        return call_on(loop, call, *args, **kwargs)
