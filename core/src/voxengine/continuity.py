"""The one procedure by which a session takes the place of another (or of none).

Open the next while the old lives, project the history, settle open tool calls, move the input with a
replay of the open turn, move the output, close the old. When the next cannot be opened the old stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final

import attrs

from voxengine.audio.format import AudioFormat
from voxengine.capabilities import Support
from voxengine.config import ProviderConfig, TurnDetection, VoiceEngineConfig, profile_names
from voxengine.conversation import Conversation
from voxengine.errors import CapabilityMissing, ConfigError, ConnectionLost, ProviderError
from voxengine.events import EventType
from voxengine.history import Projection
from voxengine.metrics import Metrics, SessionMetrics
from voxengine.providers.base import BaseProvider
from voxengine.providers.registry import ProviderRegistry
from voxengine.sender import InputSender
from voxengine.session import CLOSE_DEADLINE_S, Session, choose_format, missing_dialogue
from voxengine.taps import Taps
from voxengine.threads import in_thread
from voxengine.turns import endpointing_silence_ms

__all__ = [
    "Continuity",
    "carried_over",
    "engine_fields_kept",
    "find_target",
    "refuse_planned",
    "supported_detection",
]

_TURN_WAIT_S: Final = 30.0
"""How long a switch between unlike rates waits for the end of the user's turn."""


def refuse_planned(config: VoiceEngineConfig) -> None:
    """Refuse settings whose behaviour is not built.

    Raises:
        CapabilityMissing: With ``planned`` true, naming the setting.
    """
    default = VoiceEngineConfig()
    asked = {
        "interruption='confirm'": config.interruption == "confirm",
        "input_device": config.input_device is not None,
        "output_device": config.output_device is not None,
        "transport='picows'": config.transport == "picows",
        "deadlines.first_output_s": config.deadlines.first_output_s != default.deadlines.first_output_s,
        "deadlines.progress_s": config.deadlines.progress_s != default.deadlines.progress_s,
        "reconnect.budget_s": config.reconnect.budget_s != default.reconnect.budget_s,
    }
    for name in ("input_format", "output_format"):
        wanted = getattr(config, name)
        asked[f"{name} in G.711"] = isinstance(wanted, AudioFormat) and wanted.encoding != "pcm16"
    for name, is_asked in asked.items():
        if is_asked:
            raise CapabilityMissing(
                f"VoiceEngineConfig sets {name}, which this version of voxengine does not do yet. Leave it out.",
                capability=name,
                provider=config.provider,
                planned=True,
            )


def carried_over(old: VoiceEngineConfig, new: VoiceEngineConfig) -> VoiceEngineConfig:
    """Return the configuration to switch to, with what belongs to the conversation and not to a provider.

    Instructions and language go over where the new configuration has none. Keys, metadata, endpoint,
    model and voice never do.
    """
    changes = {
        name: getattr(old, name)
        for name in ("instructions", "language")
        if new.option(name) is None and getattr(old, name) is not None
    }
    return attrs.evolve(new, **changes) if changes else new


_ENGINE_FIELDS: Final = (
    "fallbacks",
    "journal_s",
    "interruption",
    "playback",
    "keep_audio_s",
    "tools",
    "tool_timeout_s",
)


def engine_fields_kept(
    old: VoiceEngineConfig, new: VoiceEngineConfig, *, formats: bool = False
) -> VoiceEngineConfig:
    """Return the configuration in force after a switch: what belongs to the engine stays.

    Args:
        formats: Keep the formats too where they were set; while no session has fixed them.
    """
    if formats:
        for name in ("input_format", "output_format"):
            if getattr(old, name) is not None:
                new = attrs.evolve(new, **{name: getattr(old, name)})
    return attrs.evolve(new, **{name: getattr(old, name) for name in _ENGINE_FIELDS})


_NEUTRAL: Final = (
    "model",
    "voice",
    "language",
    "instructions",
    "temperature",
    "max_output_tokens",
    "modalities",
    "vocabulary",
)
"""Options that a provider may lack; setting one of them is then said to be without effect."""


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
        self._epoch = 0
        self.on_input_ready: Callable[[Session], object] | None = None
        """Told when a session becomes the input's owner."""
        self.settling: asyncio.Task[None] | None = None
        """What is left to do after the latest move."""

    # -- opening ----------------------------------------------------------------------------------

    async def open(self, config: VoiceEngineConfig, *, instead_of: Session | None, degrade: bool) -> Session:
        """Return a ready session for a configuration.

        Raises:
            ProviderError: It cannot be had; nothing is left behind.
        """
        cls = self._registry.loaded(config.provider)
        if cls is None:
            cls = await in_thread(self._registry.get, config.provider)
        session = self._make(cls, config)
        loses_dialogue = instead_of is not None and instead_of.can("dialogue") and not session.can("dialogue")
        if instead_of is not None and loses_dialogue and not degrade:
            session.provider.attach(None)
            raise missing_dialogue(config.provider, instead_of.name)
        conversation = self._conversation
        if conversation.user.journal is None:
            source = config.input_format or session.input_format
            target = config.output_format or session.output_format
        else:
            source, target = conversation.user.journal.format, conversation.output_format
        if source != session.input_format or target != session.output_format:
            await in_thread(_load_resampler)
        session.settings = _settings(config, session, source, target)
        await session.open(config.deadlines)
        if conversation.user.journal is None:
            conversation.fix_formats(source, target)
        assert conversation.clock is not None
        session.settings["playback"] = conversation.clock.name
        return session

    def _make(self, cls: type[BaseProvider], config: VoiceEngineConfig) -> Session:
        self._epoch += 1
        tools = self._tool_specs()
        values: dict[str, Any] = {"tools": tools} if tools else {}
        if config.mode == "fast":
            values["transcription"] = bool(config.fallbacks) or cls.capabilities.session_limit_s is not None
        elif config.mode == "big":
            values["transcription"] = True
        provider_config = config.for_provider(**values)
        try:
            self._settle_formats(cls, provider_config)
            detection = supported_detection(cls, provider_config, config.turn_detection)
        except Exception as error:
            raise ProviderError(
                f"{config.provider}: capabilities_for() failed with {type(error).__name__}. "
                "This is a fault in the provider's package.",
                provider=config.provider,
                recoverable=False,
            ) from error
        provider_config["turn_detection"] = detection
        session = Session(
            config.provider, cls, provider_config, epoch=self._epoch, owner=self._owner, taps=self._taps
        )
        if detection is not config.turn_detection:
            self._warn(
                session,
                "turn_detection_moved",
                f"{config.provider} has no {config.turn_detection.kind} turn detection; the client decides where a turn ends.",
            )
        self.warn_unsupported(session, [name for name in _NEUTRAL if config.option(name) is not None])
        if cls.options is not None:
            self._warn_without_tools(session)
        if config.fallbacks and self._epoch == 1:
            self._warn(
                session,
                "failover_planned",
                "fallbacks serve switch_provider(name); moving to them by itself is not built yet.",
            )
        return session

    def _settle_formats(self, cls: type[BaseProvider], config: ProviderConfig) -> None:
        """Tell the provider the formats that it will really be given.

        What was asked for if it has that; for a session that takes over, the engine's; else its own.
        """
        conversation = self._conversation
        offered = cls.capabilities_for(config)
        own: dict[str, AudioFormat] = {}
        if conversation.user.journal is not None:
            own = {
                "input_format": conversation.user.journal.format,
                "output_format": conversation.output_format,
            }
        for name, formats in (
            ("input_format", offered.input_formats),
            ("output_format", offered.output_formats),
        ):
            if name in config:
                config[name] = choose_format(formats, config[name])
            elif own.get(name) in formats:
                config[name] = own[name]

    def warn_unsupported(self, session: Session, options: Iterable[str]) -> None:
        """Say which of the neutral options the provider declares that it has not."""
        honoured = type(session.provider).options
        for name in options:
            if honoured is not None and name in _NEUTRAL and name not in honoured:
                message = f"{session.name} has no {name}; the setting is without effect."
                self._warn(session, "option_unsupported", message)

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

    async def take_over(
        self,
        old: Session | None,
        config: VoiceEngineConfig,
        names: tuple[str, str],
        *,
        degrade: bool,
        adopt: Callable[[Session], None],
    ) -> None:
        """Open a session for ``config`` and move the conversation to it. Nothing of the move can be cancelled.

        Args:
            old: The session in force, or the one that was lost.
            config: For the next.
            names: The provider before, and the reason.
            degrade: Accept a provider without dialogue in the place of one with it.
            adopt: Called when the next session is in force.

        Raises:
            ProviderError: The next could not be opened; ``old`` stays in force.
        """
        conversation = self._conversation
        data = {"from_provider": names[0], "to_provider": config.provider, "reason": names[1]}
        conversation.emit(EventType.PROVIDER_SWITCHING, dict(data))
        session = await self.open(config, instead_of=old, degrade=degrade)
        try:
            if old is not None and old.input_format != session.input_format:
                await self._wait_for_turn_end(old)
            # Open tool calls are settled first, so that their results go over in the history.
            await conversation.activity.wait_while(
                lambda: conversation.calls.n_open > 0, config.tool_timeout_s
            )
            projection = await self._load_history(session)
            if not session.is_ready:
                raise ConnectionLost(
                    f"{session.name} ended the session before it took over. The one before stays.",
                    provider=session.name,
                )
        except BaseException:
            await session.close()
            raise
        self._move(old, session, config, {**data, "context": projection.description}, adopt)

    def _move(
        self,
        old: Session | None,
        session: Session,
        config: VoiceEngineConfig,
        data: dict[str, Any],
        adopt: Callable[[Session], None],
    ) -> None:
        """Give input and output to a session, in one step; what is left to do goes on in ``settling``."""
        conversation = self._conversation
        gap_s = 0.0
        if old is not None and old.ended_at is not None:
            gap_s = asyncio.get_running_loop().time() - old.ended_at
        start = self._replay_from(old, session)
        if old is not None and old.sender is not None:
            old.sender.stop()
        conversation.end_responses("switch")
        needs_end = conversation.user.turn_end is not None
        replayed = self.attach_input(session, config, start)
        conversation.output_owner = session
        adopt(session)
        assert session.sender is not None
        session.sender.kick()
        values = {**data, "gap_ms": round(gap_s * 1000), "replayed_ms": replayed}
        conversation.emit(EventType.PROVIDER_SWITCHED, values, session)
        self.settling = conversation.activity.start(self._settle(old, session, needs_end), "switch")

    async def _settle(self, old: Session | None, session: Session, needs_end: bool) -> None:
        try:
            await self._repeat_requests(session, needs_end)
        finally:
            if old is not None:
                await self.retire(old, "switch")

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

    async def _load_history(self, session: Session) -> Projection:
        conversation = self._conversation
        user, history = conversation.user, conversation.history
        projection = history.project(session.capabilities, without=user.unanswered_items())
        if projection.items:
            await session.call("load_history", projection.items)
        told = {item.id for item in projection.items}
        while session.can("items"):  # What was said meanwhile.
            projection = history.project(session.capabilities, without=user.unanswered_items())
            later = [item for item in projection.items if item.id not in told]
            if not later:
                break
            told.update(item.id for item in later)
            for item in later:
                await session.call("send_item", item)
        return projection

    async def _wait_for_turn_end(self, old: Session) -> None:
        await self._conversation.activity.wait_while(
            lambda: old.is_ready and (self._in_turn(old) or self._is_answering()), _TURN_WAIT_S
        )

    def _is_answering(self) -> bool:
        """Whether the old session is at an answer: the turn was its, and the next will not be told it."""
        responses = self._conversation.responses
        return responses.current is not None or responses.awaiting > 0

    def _in_turn(self, old: Session) -> bool:
        user = self._conversation.user
        if old.config["turn_detection"].kind == "manual":
            return user.has_open_turn
        return user.is_speaking or user.turn_end is not None

    def _replay_from(self, old: Session | None, session: Session) -> int:
        """Return the journal index from which the next session hears the user."""
        user = self._conversation.user
        assert user.journal is not None
        if old is None or old.sender is None or old.input_format == session.input_format:
            return user.open_turn_start()
        if not old.is_ready or self._in_turn(old):
            return user.open_turn_start()  # The turn did not end in time, or cannot end any more.
        return max(old.sender.cursor, user.journal.start)

    async def _repeat_requests(self, session: Session, needs_end: bool) -> None:
        """Ask again for what no output has answered: text turns, or a spoken turn that had ended."""
        conversation = self._conversation
        texts = list(conversation.user.unanswered_texts.values())
        try:
            for text in texts:
                conversation.responses.input("text", is_request=True)
                await session.call("send_text", text)
            if needs_end and not texts:
                await self._end_turn_again(session)
        except Exception as error:
            conversation.responses.request_failed()
            conversation.report(session, error)

    async def _end_turn_again(self, session: Session) -> None:
        assert session.sender is not None
        kind = session.config["turn_detection"].kind
        if kind not in ("client", "manual") or not session.can("client_turn_detection"):
            # The silence in which the turn ended may not have been the user's, or not have come yet.
            await session.sender.inject_silence(endpointing_silence_ms(session))
            return
        await session.sender.flush()
        self._conversation.responses.input("audio", is_request=True)
        await session.call("end_turn", True)


def _load_resampler() -> None:
    import numpy  # noqa: F401 - loaded here, in a thread, so that the first chunk does not wait for it


def supported_detection(
    cls: type[BaseProvider], config: ProviderConfig, wanted: TurnDetection
) -> TurnDetection:
    """Return the turn detection in force: a kind that the provider is known not to have moves to the client."""
    rows = {"server": "server_turn_detection", "semantic": "semantic_turn_detection"}
    row = rows.get(wanted.kind)
    if row is None:
        return wanted
    cell = cls.capabilities_for(config).support(row)
    if cell.support in (Support.UNSUPPORTED, Support.PLANNED):
        return attrs.evolve(wanted, kind="client", eagerness=None, idle_timeout_ms=None)
    return wanted


def _settings(
    config: VoiceEngineConfig, session: Session, source: AudioFormat, target: AudioFormat
) -> dict[str, Any]:
    given = session.config
    shown = {
        name: given[name]
        for name in (
            "model",
            "voice",
            "language",
            "temperature",
            "max_output_tokens",
            "modalities",
            "tool_choice",
        )
        if name in given
    }
    return {
        "provider": config.provider,
        "mode": config.mode,
        **shown,
        "turn_detection": given["turn_detection"].kind,
        "transcription": given.get("transcription", "provider"),
        "interruption": config.interruption,
        "input_format": source.describe(),
        "output_format": target.describe(),
        "provider_input_format": session.input_format.describe(),
        "tools": [tool["name"] for tool in given.get("tools", ())],
    }


def find_target(
    name: str,
    current: VoiceEngineConfig,
    given: VoiceEngineConfig | None,
) -> VoiceEngineConfig:
    """Return the configuration that ``switch_provider(name, given)`` means.

    Without one: the fallback of that provider, then the profile of that name, then the provider's own
    environment variables.

    Raises:
        ConfigError: ``given`` is for another provider.
    """
    if given is not None:
        value: object = given
        if not isinstance(value, VoiceEngineConfig):
            raise ConfigError(
                f"switch_provider got a {type(value).__name__}. Make it a configuration first: VoiceEngineConfig(**config)."
            )
        if given.provider != name:
            raise ConfigError(
                f"switch_provider({name!r}, config) got a configuration for {given.provider!r}. Name the same provider in both."
            )
        return given
    for fallback in current.fallbacks:
        if fallback.provider == name:
            return fallback
    if name in profile_names():
        return VoiceEngineConfig.load(profile=name)
    return VoiceEngineConfig(provider=name)
