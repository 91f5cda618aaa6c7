"""The one procedure by which a session takes the place of another (or of none).

Open the next while the old lives, project the history, settle open tool calls, move the input with a
replay of the open turn, move the output, close the old. When the next cannot be opened the old stays.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal

import attrs

from voxengine.adapting import NEUTRAL, missing_dialogue, settings_of, supported_detection
from voxengine.audio.format import AudioFormat
from voxengine.capabilities import Capabilities
from voxengine.config import ProviderConfig, TurnDetection, VoiceEngineConfig
from voxengine.conversation import Conversation
from voxengine.errors import ConnectionLost, ErrorCode, ProviderError, VoxEngineError
from voxengine.events import EventType
from voxengine.history import Projection
from voxengine.metrics import Metrics, SessionMetrics
from voxengine.providers.base import BaseProvider
from voxengine.providers.registry import ProviderRegistry
from voxengine.replay import Debt, cut_note, in_turn, pay, replay_from, take_turn_control
from voxengine.sender import InputSender
from voxengine.session import CLOSE_DEADLINE_S, Session, choose_format
from voxengine.taps import Taps
from voxengine.threads import in_thread

__all__ = ["Continuity", "Move"]

_TURN_WAIT_S: Final = 30.0
"""How long a switch between unlike rates waits for the end of the user's turn."""


@attrs.frozen(kw_only=True)
class Move:
    """How a conversation goes from one session to the next."""

    from_provider: str
    reason: str
    """``requested``, ``reconnect``, ``failover``, ``rollover`` or ``resume``."""
    adopt: Callable[[Session], None]
    """Called when the next session is in force."""
    degrade: bool = False
    """Accept a provider without dialogue in the place of one with it."""
    cut_reply: Literal["continue", "restart", "leave"] = "leave"
    is_announced: bool = False
    """Whether PROVIDER_SWITCHING was emitted for it."""
    limit_s: float | None = None
    """How long opening may take, beside the deadlines of the configuration."""

    @property
    def retire_reason(self) -> str:
        """What CONNECTION_CLOSED says of the session before."""
        return "rollover" if self.reason == "rollover" else "switch"


class Continuity:
    """Opens sessions and moves a conversation from one to the next. Loop thread only."""

    def __init__(
        self,
        conversation: Conversation,
        registry: ProviderRegistry,
        taps: Taps,
        metrics: Metrics,
        tool_specs: Callable[[], list[dict[str, Any]]],
        owner: Any,
    ) -> None:
        self._conversation = conversation
        self._registry = registry
        self._taps = taps
        self._metrics = metrics
        self._tool_specs = tool_specs
        self._owner = owner
        self.epoch = 0
        """Sessions that were opened so far, by this engine and by the one that it goes on for."""
        self.on_input_ready: Callable[[Session], object] | None = None
        """Told when a session becomes the input's owner."""
        self.settling: asyncio.Task[None] | None = None
        """What is left to do after the latest move."""

    # -- opening ----------------------------------------------------------------------------------

    async def open(self, config: VoiceEngineConfig, *, instead_of: Session | None, degrade: bool) -> Session:
        """Return a ready session for a configuration.

        Raises:
            ProviderError: It cannot be had; nothing is left behind.
            ConfigError: There is no such voice detector.
        """
        cls = self._registry.loaded(config.provider)
        if cls is None:
            cls = await in_thread(self._registry.get, config.provider)
        session = self._make(cls, config)
        loses_dialogue = instead_of is not None and instead_of.can("dialogue") and not session.can("dialogue")
        if instead_of is not None and loses_dialogue and not degrade:
            session.provider.attach(None)
            why = session.capabilities.dialogue.why
            raise missing_dialogue(config.provider, instead_of.name, why)
        conversation = self._conversation
        if conversation.user.journal is None:
            source = config.input_format or session.input_format
            target = config.output_format or session.output_format
        else:
            source, target = conversation.user.journal.accepts, conversation.output_format
        try:
            await conversation.user.ears.prepare(session.config["turn_detection"], source.sample_rate)
        except BaseException:
            session.provider.attach(None)
            raise
        if source.as_pcm16 != session.input_format or target != session.output_format.as_pcm16:
            await in_thread(_load_resampler)
        session.settings = settings_of(config, session, source, target)
        await session.open(config.deadlines)
        told = session.established.get("settings")
        if isinstance(told, Mapping):
            session.take_settings(told)
        if conversation.user.journal is None:
            conversation.fix_formats(source, target)
        assert conversation.clock is not None
        session.settings["playback"] = conversation.clock.name
        return session

    def _make(self, cls: type[BaseProvider], config: VoiceEngineConfig) -> Session:
        self.epoch += 1
        tools = self._tool_specs()
        values: dict[str, Any] = {"tools": tools} if tools else {}
        if config.mode == "fast":
            values["transcription"] = bool(config.fallbacks) or cls.capabilities.session_limit_s is not None
        elif config.mode == "big":
            values["transcription"] = True
        provider_config = config.for_provider(**values)
        try:
            offered = self._settle_formats(cls, provider_config)
            detection = supported_detection(offered, config.turn_detection)
        except Exception as error:
            raise ProviderError(
                f"{config.provider}: capabilities_for() failed with {type(error).__name__}. "
                "This is a fault in the provider's package.",
                provider=config.provider,
                recoverable=False,
            ) from error
        provider_config["turn_detection"] = detection
        session = Session(
            config.provider, cls, provider_config, epoch=self.epoch, owner=self._owner, taps=self._taps
        )
        self._warn_of_move(session, config.turn_detection, detection)
        self.warn_unsupported(session, [name for name in NEUTRAL if config.option(name) is not None])
        self._warn_of_vendors_interruption(session, cls)
        if cls.options is not None:
            self._warn_without_tools(session)
        return session

    def _settle_formats(self, cls: type[BaseProvider], config: ProviderConfig) -> Capabilities:
        """Tell the provider the formats that it will really be given; return what it can do.

        What was asked for if it has that; for a session that takes over, the engine's; else its own.
        """
        conversation = self._conversation
        offered = cls.capabilities_for(config)
        own: dict[str, AudioFormat] = {}
        if conversation.user.journal is not None:
            own = {
                "input_format": conversation.user.journal.accepts,
                "output_format": conversation.output_format,
            }
        for name, formats in (
            ("input_format", offered.input_formats),
            ("output_format", offered.output_formats),
        ):
            if name in config:
                config[name] = choose_format(formats, config[name])
            elif name in own and own[name] in formats:
                config[name] = own[name]
        return offered

    def warn_unsupported(self, session: Session, options: Iterable[str]) -> None:
        """Say which of the neutral options the provider declares that it has not."""
        honoured = type(session.provider).options
        for name in options:
            if honoured is not None and name in NEUTRAL and name not in honoured:
                message = f"{session.name} has no {name}; the setting is without effect."
                self._warn(session, "option_unsupported", message)

    def _warn_of_move(self, session: Session, wanted: TurnDetection, detection: TurnDetection) -> None:
        if detection is not wanted:
            self._warn(
                session,
                "turn_detection_moved",
                f"{session.name} has no {wanted.kind} turn detection; the client decides where a turn ends.",
            )

    def _warn_of_vendors_interruption(self, session: Session, cls: type[BaseProvider]) -> None:
        if cls.options is None or "interruption" in cls.options or "interruption" not in session.config:
            return
        if session.config["turn_detection"].kind in ("server", "semantic") and session.can("dialogue"):
            self._warn(
                session,
                "option_unsupported",
                f"{session.name} cannot be told interruption={session.config['interruption']!r}; it may stop an answer "
                "by itself when it hears the user. turn_detection='client' keeps that here, where it can be had.",
            )

    def _warn_without_tools(self, session: Session) -> None:
        if session.config.get("tools") and not session.can("session_tools"):
            self._warn(
                session,
                "option_unsupported",
                f"{session.name} calls no tools; they are not offered to it.",
            )

    def _warn(self, session: Session, code: str, message: str) -> None:
        self._conversation.emit(EventType.WARNING, {"code": code, "message": message}, session)

    # -- taking over ------------------------------------------------------------------------------

    async def take_over(self, old: Session | None, config: VoiceEngineConfig, move: Move) -> None:
        """Open a session for ``config`` and move the conversation to it. Nothing of the move can be cancelled.

        Args:
            old: The session in force, or the one that was lost.
            config: For the next.
            move: How.

        Raises:
            ProviderError: The next could not be opened; ``old`` stays in force.
        """
        conversation = self._conversation
        data = {"from_provider": move.from_provider, "to_provider": config.provider, "reason": move.reason}
        if not move.is_announced:
            conversation.emit(EventType.PROVIDER_SWITCHING, dict(data))
        session = await self._open_within(move.limit_s, config, old, move.degrade)
        try:
            if old is not None and old.input_format != session.input_format:
                await self._wait_for_turn_end(old)
            # Open tool calls are settled first, so that their results go over in the history.
            await conversation.activity.wait_while(
                lambda: conversation.calls.n_open > 0, config.tool_timeout_s
            )
            takes_audio = bool(session.capabilities.context_audio)
            # Without a turn of text it could not be asked to go on from the result.
            is_called = session.can("text_turn") and conversation.user.let_go_of_called(
                takes_audio=takes_audio
            )
            data |= await self._load_history(old, session, move.cut_reply)
            is_by_hand = await take_turn_control(conversation, session)
            if not session.is_ready:
                raise ConnectionLost(
                    f"{session.name} ended the session before it took over. The one before stays.",
                    provider=session.name,
                )
        except BaseException:
            await session.close()
            raise
        self._move(old, session, config, data, move, is_by_hand, is_called)

    async def _open_within(
        self, limit_s: float | None, config: VoiceEngineConfig, old: Session | None, degrade: bool
    ) -> Session:
        scope = asyncio.timeout(limit_s)
        try:
            async with scope:
                return await self.open(config, instead_of=old, degrade=degrade)
        except TimeoutError:
            if not scope.expired():
                raise
            raise ProviderError(
                f"{config.provider} did not open a session within {limit_s:g} s, which was left of "
                "reconnect.budget_s.",
                provider=config.provider,
                code=ErrorCode.TIMEOUT,
            ) from None

    def _move(
        self,
        old: Session | None,
        session: Session,
        config: VoiceEngineConfig,
        data: dict[str, Any],
        move: Move,
        is_by_hand: bool,
        is_called: bool,
    ) -> None:
        """Give input and output to a session, in one step; what is left to do goes on in ``settling``."""
        conversation = self._conversation
        user, responses = conversation.user, conversation.responses
        gap_s = 0.0
        if old is not None and old.ended_at is not None:
            gap_s = asyncio.get_running_loop().time() - old.ended_at
        start = replay_from(conversation, old, session)
        if old is not None and old.sender is not None:
            old.sender.stop()
        unclaimed = is_called or conversation.calls.is_unclaimed or responses.owes_tool
        conversation.telling.cut(session, conversation.end_responses("switch"))
        conversation.says.settle(move.cut_reply)
        session.unpaid = deque(conversation.says.in_order(list(user.unanswered_texts)))
        debt = Debt(user.turn_end, is_by_hand, unclaimed, cut_note(conversation, move.cut_reply))
        replayed = self.attach_input(session, config, start)
        assert session.sender is not None
        if is_by_hand:
            session.sender.hold_behind(start if user.turn_end is None else max(user.turn_end, start))
        conversation.output_owner = session
        move.adopt(session)
        session.sender.kick()
        values = {**data, "gap_ms": round(gap_s * 1000), "replayed_ms": replayed}
        conversation.emit(EventType.PROVIDER_SWITCHED, values, session)
        work = self._settle(old, session, debt, move)
        self.settling = conversation.activity.start(work, "switch")

    async def _settle(self, old: Session | None, session: Session, debt: Debt, move: Move) -> None:
        try:
            await self._conversation.telling.wait()
            await pay(self._conversation, session, debt)
        finally:
            session.unpaid = None
            if old is not None:
                await self.retire(old, move.retire_reason)

    def attach_input(self, session: Session, config: VoiceEngineConfig, start: int) -> int:
        """Make a session the owner of the input from a journal index on; return the replayed milliseconds."""
        conversation = self._conversation
        assert conversation.user.journal is not None
        session.sender = InputSender(
            session,
            conversation.user.journal,
            start=start,
            chunk_ms=config.chunk_ms,
            group_ms=config.group_ms,
        )
        conversation.user.owner = session
        self._metrics.sessions.append(SessionMetrics(session.name, session.epoch, session.latency_ms))
        self.detection_changed(session)
        return conversation.user.journal.ms(conversation.user.journal.end - start)

    async def prepare_detection(self, session: Session, wanted: TurnDetection) -> TurnDetection:
        """Return the turn detection that a running session can have, with its voice detector found.

        Raises:
            ConfigError: The detector is not installed or cannot be used.
        """
        journal = self._conversation.user.journal
        assert journal is not None
        detection = supported_detection(session.capabilities, wanted)
        await self._conversation.user.ears.prepare(detection, journal.format.sample_rate)
        self._warn_of_move(session, wanted, detection)
        return detection

    def detection_changed(self, session: Session) -> None:
        """Follow the turn detection of the session that owns the input."""
        journal = self._conversation.user.journal
        assert journal is not None
        journal.vendor_decides = session.config["turn_detection"].kind in ("server", "semantic")
        if self.on_input_ready is not None:
            self.on_input_ready(session)

    async def retire(self, session: Session, reason: str) -> None:
        """Close a session, keep its usage, and emit its one ending if it has had none."""
        try:
            await self.note_usage(session, CLOSE_DEADLINE_S)
        finally:
            was_ready, duration = session.is_ready, session.age_s
            await session.close()
            held = self._metrics.of(session.epoch)
            if held is not None:
                held.duration_s = duration
            conversation = self._conversation
            if was_ready:
                data = {"reason": reason, "duration_s": duration}
                conversation.emit(EventType.CONNECTION_CLOSED, data, session)
            conversation.history.release(session.epoch)

    async def note_usage(self, session: Session, limit_s: float | None = None) -> None:
        """Keep the latest usage and cost of a session, as far as it still says."""
        conversation = self._conversation
        usage, cost = conversation.usage.get(session.epoch), None
        if session.is_ready:
            try:
                async with asyncio.timeout(limit_s):
                    usage = await session.call("get_usage") or usage
                    cost = await session.call("estimate_cost")
            except TimeoutError:
                pass  # It is being closed; what is known must do.
            except Exception as error:
                conversation.report(session, error)
        held = self._metrics.of(session.epoch)
        if held is not None:
            held.usage = usage if usage is not None else held.usage
            held.cost = cost if cost is not None else held.cost

    # -- inside -----------------------------------------------------------------------------------

    async def load_first(self, session: Session) -> None:
        """Tell the first session what the application put into the history before it.

        Raises:
            ProviderError: It could not be told; the session is closed.
        """
        if not len(self._conversation.history):
            return
        try:
            told = await self._load_history(None, session, "leave")
        except BaseException:
            await session.close()
            raise
        if told["context"] != "full":
            message = f"{session.name} was told the history before connect() only in part: {told['context']}."
            self._warn(session, "history_not_told", message)

    async def _load_history(
        self, old: Session | None, session: Session, cut_reply: Literal["continue", "restart", "leave"]
    ) -> dict[str, Any]:
        """Tell the next session what was said; return what PROVIDER_SWITCHED says of it."""
        conversation = self._conversation
        user, history = conversation.user, conversation.history
        dropped = conversation.cut_reply if cut_reply == "restart" else frozenset[str]()
        told: set[str] = set()

        def projection() -> Projection:
            return history.project(session.capabilities, without={*user.unanswered_items(), *dropped})

        def note(ids: Iterable[str]) -> None:
            told.update(ids)
            agents = (history.get(held) for held in ids if held in history)
            session.told |= {item.id: item.context_text for item in agents if item.role == "agent"}

        is_resumed = await self._resume(old, session)
        if is_resumed and old is not None:
            note(old.known_items if old.ended_at is not None else [item.id for item in history])
        else:
            first = projection()
            if first.items:
                await session.call("load_history", first.items)
            note([item.id for item in first.items])
        while session.can("items"):  # What was said meanwhile.
            later = [item for item in projection().items if item.id not in told]
            if not later:
                break
            note([item.id for item in later])
            for item in later:
                await session.call("send_item", item)
        return {"context": "full" if is_resumed else projection().description, "resumed": is_resumed}

    async def _resume(self, old: Session | None, session: Session) -> bool:
        """Take the earlier session up again, where its vendor can; False: the history has to be told."""
        if old is None or old.handle is None or type(old.provider) is not type(session.provider):
            return False
        if not session.capabilities.resume:
            return False
        try:
            await session.call("resume", old.handle)
            if session.can("discard_input"):  # The open turn is sent again, whole.
                await session.call("discard_input")
        except VoxEngineError:
            return False
        return True

    async def _wait_for_turn_end(self, old: Session) -> None:
        conversation = self._conversation
        await conversation.activity.wait_while(
            lambda: old.is_ready and (in_turn(conversation, old) or self._is_answering()), _TURN_WAIT_S
        )

    def _is_answering(self) -> bool:
        """Whether the old session is at an answer: the turn was its, and the next will not be told it."""
        responses = self._conversation.responses
        return responses.current is not None or responses.awaiting > 0


def _load_resampler() -> None:
    import numpy  # noqa: F401 - loaded here, in a thread, so that the first chunk does not wait for it
