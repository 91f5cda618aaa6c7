"""What a law works with: sessions of the provider, their events, and words for what went wrong."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import attrs

from voxengine.audio.format import AudioFormat
from voxengine.capabilities import HOOK_CAPABILITIES, Capabilities, Support
from voxengine.config import TurnDetection
from voxengine.errors import CapabilityMissing
from voxengine.events import Event, EventType
from voxengine.providers.base import BaseProvider, effective_capabilities
from voxengine.providers.contract import bind
from voxengine.testing.conformance.law import LawBroken, LawSkipped, Skip
from voxengine.testing.conformance.proxy import FaultProxy, closed_port_url
from voxengine.testing.conformance.subject import Settings, Subject, sound_in, speech_like

__all__ = ["ENDINGS", "ERRORS", "OUTPUT", "Live", "Probe", "Turn", "tell"]

OUTPUT: Final = (EventType.TEXT_OUTPUT, EventType.AUDIO_OUTPUT_STARTED, EventType.AUDIO_OUTPUT_CHUNK)
"""Events that carry the agent's answer."""
ENDINGS: Final = (EventType.RESPONSE_COMPLETED, EventType.RESPONSE_CANCELLED)
ERRORS: Final = (EventType.ERROR_GENERAL, EventType.ERROR_AUDIO, EventType.ERROR_NETWORK)
LOSSES: Final = (EventType.CONNECTION_LOST, EventType.CONNECTION_CLOSED, EventType.CONNECTION_FAILED)
DEFAULT_FORMAT: Final = AudioFormat(24_000)
_NO_KEY: Final = "sk-conformance-no-such-key"
_MADE_FROM: Final = {
    "refused": "an address or a key",
    "unreachable": "an address",
    "stalled": "a ws:// address",
    "lossy": "a ws:// address",
}
_SIGNS: Final = (*OUTPUT, *ENDINGS, EventType.RESPONSE_STARTED, EventType.FUNCTION_CALL_INVOKED)


def tell(error: BaseException) -> str:
    """Return an exception in words, without a full stop."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300].rstrip('.')}" if text else type(error).__name__


@attrs.frozen
class Turn:
    """The events of one answer."""

    events: tuple[Event, ...]

    def of(self, *types: EventType) -> list[Event]:
        """Return the events of these types."""
        return [event for event in self.events if event.type in types]

    @property
    def output(self) -> list[Event]:
        """Return the events that carry the answer."""
        return self.of(*OUTPUT)


class Live:
    """One instance, its calls with deadlines, and its events as they come."""

    def __init__(self, probe: Probe, provider: BaseProvider) -> None:
        self.probe = probe
        self.provider = provider
        self.events: list[Event] = []
        self._changed = asyncio.Event()
        provider.on_event = self._take

    @property
    def now(self) -> int:
        """A place in the list of events: its present end."""
        return len(self.events)

    def _take(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    def of(self, *types: EventType, since: int = 0) -> list[Event]:
        """Return the events of these types."""
        return [event for event in self.events[since:] if event.type in types]

    def seen(self, since: int = 0) -> str:
        """Return for messages which types of event came, in order and each run once."""
        names: list[str] = []
        for event in self.events[since:]:
            if not names or names[-1] != event.type.name:
                names.append(event.type.name)
        return ", ".join(names[:12]) + (", …" if len(names) > 12 else "") or "nothing"

    # -- calls --------------------------------------------------------------------------------------

    async def call(self, hook: str, *args: Any, limit_s: float | None = None) -> Any:
        """Call a hook; LawBroken when it takes too long. What it raises comes through."""
        limit = self.probe.settings.call_s if limit_s is None else limit_s
        timer = asyncio.timeout(limit)
        try:
            async with timer:
                return await bind(self.provider, hook)(*args)
        except TimeoutError:
            if timer.expired():
                raise LawBroken(f"{hook}() did not return within {limit:g} s.") from None
            raise

    async def works(self, hook: str, *args: Any, when: str) -> Any:
        """Call a hook that must not raise. ``when`` goes into the sentence.

        Raises:
            LawBroken: It did.
            LawSkipped: It raised CapabilityMissing, and a restriction was declared.
        """
        try:
            return await self.call(hook, *args)
        except CapabilityMissing as error:
            self.probe.pass_over_partial(error)
            raise LawBroken(f"{hook}() {when} raised {tell(error)}") from error
        except LawBroken:
            raise
        except Exception as error:
            raise LawBroken(f"{hook}() {when} raised {tell(error)}") from error

    async def disconnect(self, limit_s: float | None = None) -> None:
        """Disconnect; LawBroken when it takes longer than the engine waits, or than ``limit_s``."""
        await self.call("disconnect", limit_s=self.probe.settings.close_s if limit_s is None else limit_s)

    # -- waiting ------------------------------------------------------------------------------------

    async def until(self, is_so: Callable[[], bool], limit_s: float) -> bool:
        """Wait until the events make it so; False when they do not in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while not is_so():
                    self._changed.clear()
                    await self._changed.wait()
        return is_so()

    async def wait_for(self, *types: EventType, since: int, why: str) -> Event:
        """Return the next event of these types; LawBroken when none comes."""
        limit = self.probe.settings.answer_s
        if not await self.until(lambda: bool(self.of(*types, since=since)), limit):
            names = " or ".join(item.name for item in types)
            raise LawBroken(f"{why}: no {names} within {limit:g} s. What came: {self.seen(since)}.")
        return self.of(*types, since=since)[0]

    async def quiet(self) -> None:
        """Watch for a while for what must not come."""
        await asyncio.sleep(self.probe.settings.quiet_s)

    # -- conversation -------------------------------------------------------------------------------

    async def ask(self, text: str | None = None) -> Turn:
        """Take a turn, as text where the provider takes that, else as speech, and return its answer."""
        since = self.now
        if self.probe.can("text_turn"):
            await self.works("send_text", text or self.probe.settings.prompt_text, when="in an open session")
        else:
            await self.say()
        return await self.answer(since)

    async def ask_for_a_call(self) -> Event:
        """Ask for something that the declared tool is needed for, and return the call."""
        since = self.now
        await self.works("send_text", self.probe.settings.tool_prompt_text, when="in an open session")
        call = await self.wait_for(
            EventType.FUNCTION_CALL_INVOKED, since=since, why="A turn with tool_prompt_text brought no call"
        )
        if self.probe.has_boundaries:
            await self.until(lambda: bool(self.of(*ENDINGS, since=since)), self.probe.settings.settle_s)
        return call

    async def begin_long_answer(self) -> Turn:
        """Ask for something long and return when its first output has come."""
        since = self.now
        await self.works("send_text", self.probe.settings.long_prompt_text, when="in an open session")
        await self.wait_for(*OUTPUT, since=since, why="A turn with long_prompt_text")
        return Turn(tuple(self.events[since:]))

    async def answer(self, since: int, why: str = "The turn got no answer") -> Turn:
        """Return the answer that came and comes after a place among the events.

        It is complete at the ending of its response, or without one after a time without output: the laws
        about endings judge those.
        """
        await self.wait_for(*_SIGNS, since=since, why=why)
        settings = self.probe.settings

        def is_over() -> bool:
            return bool(self.of(*ENDINGS, since=since))

        gap_s = settings.settle_s if self.probe.has_boundaries else min(0.6, settings.settle_s)
        async with asyncio.timeout(settings.law_s):
            while not is_over():
                held = self.now
                if not await self.until(partial(self._has_grown, held), gap_s):
                    break
        return Turn(tuple(self.events[since:]))

    def _has_grown(self, n_events: int) -> bool:
        return self.now > n_events

    async def say(self, *, ends: bool = True, quick: bool = False) -> None:
        """Send speech, and the end of the turn: silence under the vendor's detection, else ``end_turn``."""
        form = self.probe.input_format(self.provider)
        sound = self.probe.speech_in(form)
        await self.send(sound, form, quick=quick)
        if not ends:
            return
        if self.probe.declares("server_turn_detection") and not self.probe.is_manual(self.provider):
            silence_ms = self.probe.capabilities.endpointing_silence_ms or self.probe.settings.silence_ms
            await self.send(sound_in(bytes(48 * (silence_ms + 300)), DEFAULT_FORMAT, form), form)
        else:
            await self.works("end_turn", True, when="after speech")

    async def send(self, sound: bytes, form: AudioFormat, *, quick: bool = False) -> None:
        """Send audio as the engine does: in chunks, and no faster than the provider declares.

        ``quick``: by ``try_send_audio``, and by ``send_audio`` what that does not take.
        """
        capabilities = self.probe.capabilities
        chunk_ms = max(capabilities.preferred_chunk_ms or 20, capabilities.min_chunk_ms or 0)
        size = form.n_bytes(chunk_ms)
        speed: float | None = capabilities.replay_speed
        if speed is None and not self.probe.declares("replay"):
            speed = 1.0
        loop = asyncio.get_running_loop()
        began = loop.time()
        for at in range(0, len(sound), size):
            chunk = sound[at : at + size]
            if not (quick and self.provider.try_send_audio(chunk)):
                await self.works("send_audio", chunk, when=f"with {chunk_ms} ms of {form.describe()}")
            if speed is not None:
                due = began + form.duration_ms(at + size) / 1000 / speed
                await asyncio.sleep(max(0.0, due - loop.time()))

    def check_in_force(self, name: str, sign: str, since: int = 0) -> None:
        """LawSkipped unless the settings that are in force are told, and hold a word for an option."""
        for event in self.of(EventType.CONNECTION_ESTABLISHED, EventType.SESSION_UPDATED, since=since):
            settings = event.data.get("settings")
            if isinstance(settings, Mapping) and sign in str(settings.get(name)):
                return
        raise LawSkipped(
            Skip.UNJUDGED,
            f"{name!r} was taken without an error; whether the service heeds it does not show from outside, since "
            "no CONNECTION_ESTABLISHED or SESSION_UPDATED names it among the settings in force",
        )

    def no_errors(self, since: int, what: str) -> None:
        """LawBroken when an ERROR event or the loss of the session came."""
        found = self.of(*ERRORS, *LOSSES, since=since)
        if found:
            error = found[0].data.get("error")
            shown = f" ({tell(error)})" if isinstance(error, BaseException) else ""
            raise LawBroken(f"{what} was followed by {found[0].type.name}{shown}.")

    async def goes_on(self, what: str) -> None:
        """LawBroken unless the session still answers, or is open where the provider answers nothing."""
        since = self.now
        if self.probe.answers:
            try:
                await self.ask()
            except LawBroken as broken:
                raise LawBroken(f"After {what} the session does not go on: {broken}") from broken
        elif not self.provider.is_connected:
            raise LawBroken(f"After {what} the provider is not connected any more.")
        self.no_errors(since, f"The turn after {what}")


class Probe:
    """Everything a law needs to know and do.

    Args:
        subject: Who is judged.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.settings: Settings = subject.settings
        self._stack = contextlib.AsyncExitStack()
        self._strikes: list[Callable[[], None]] = []
        self._lasting_strikes: list[Callable[[], None]] = []
        self._sample: BaseProvider | None = None
        self.is_key_a_guess = False
        """Whether the refused peer was made without knowing that there is a key to be wrong."""
        self.provider_class: type[BaseProvider]
        self.capabilities: Capabilities
        self.config: dict[str, Any]
        sample = subject.make()
        self._sample = sample
        self.provider_class = type(sample)
        self.config = dict(sample.config) if isinstance(sample.config, dict) else {}
        self.capabilities = effective_capabilities(self.provider_class, self.config)

    # -- capabilities -----------------------------------------------------------------------------

    def can(self, row: str) -> bool:
        """Return whether a capability is not ruled out."""
        return self.capabilities.support(row).support not in (Support.UNSUPPORTED, Support.PLANNED)

    def declares(self, row: str) -> bool:
        """Return whether a capability is partial or full."""
        return bool(self.capabilities.support(row))

    def ways(self, quick_hook: str) -> tuple[bool, ...]:
        """Return False for the hook that waits, and True besides for a class with its own that does not."""
        own = getattr(self.provider_class, quick_hook, None)
        return (False,) if own in (None, getattr(BaseProvider, quick_hook)) else (False, True)

    @property
    def has_boundaries(self) -> bool:
        """Whether the provider says itself where a response starts and ends."""
        return self.declares("response_boundaries")

    @property
    def answers(self) -> bool:
        """Whether a turn can be put to the provider and gets an answer."""
        if self.can("text_turn") and (self.can("dialogue") or self.can("synthesis")):
            return True
        hears = self.declares("server_turn_detection") or self.declares("client_turn_detection")
        return self.can("dialogue") and hears

    def require(self, needs: Iterable[str], declared: Iterable[str]) -> None:
        """LawSkipped unless the capabilities allow the law."""
        for row in (*needs, *declared):
            self.lacking(row)
        for row in declared:
            if not self.declares(row):
                raise LawSkipped(
                    Skip.UNDECLARED, f"nothing is promised: the capability {row!r} is not declared (unknown)"
                )

    def lacking(self, row: str) -> None:
        """LawSkipped when a capability is unsupported or planned."""
        cell = self.capabilities.support(row)
        declared = self.provider_class.capabilities_for(self.config).support(row).support
        if declared is Support.UNKNOWN and cell.support is Support.UNSUPPORTED:
            hook = next(hook for hook, gate in HOOK_CAPABILITIES.items() if gate == row)
            raise LawSkipped(
                Skip.UNDECLARED,
                f"nothing is promised: {row!r} is not declared and {hook}() is not implemented",
            )
        why = f": {cell.why}" if cell.why else ""
        if cell.support is Support.UNSUPPORTED:
            raise LawSkipped(Skip.VENDOR, f"the vendor cannot: {row!r} is unsupported{why}")
        if cell.support is Support.PLANNED:
            raise LawSkipped(Skip.PLANNED, f"the package does not do it yet: {row!r} is planned{why}")

    def require_answers(self) -> None:
        """LawSkipped when the provider answers nothing that can be said to it."""
        if self.answers:
            return
        for row in ("dialogue", "text_turn"):
            self.lacking(row)
        raise LawSkipped(Skip.UNDECLARED, "no way of taking a turn is declared")

    def pass_over_partial(self, error: CapabilityMissing) -> None:
        """LawSkipped when the capability that is missing was declared with a restriction."""
        cell = self.capabilities.support(error.capability)
        if cell.support is Support.PARTIAL:
            raise LawSkipped(
                Skip.VENDOR, f"{error.capability!r} is partial, and not for this: {cell.why}"
            ) from error

    # -- sessions ---------------------------------------------------------------------------------

    def make(self, **changes: Any) -> BaseProvider:
        """Return an unconnected instance."""
        if self._sample is not None and not changes:
            sample, self._sample = self._sample, None
            return sample
        return self.subject.make(**changes)

    def live(self, provider: BaseProvider | None = None, **changes: Any) -> Live:
        """Return an unconnected instance whose events are watched."""
        return Live(self, self.make(**changes) if provider is None else provider)

    @contextlib.asynccontextmanager
    async def open(self, provider: BaseProvider | None = None, **changes: Any) -> AsyncIterator[Live]:
        """Yield a connected instance and disconnect it at the end, whatever happens."""
        live = self.live(provider, **changes)
        try:
            try:
                await live.call("connect", limit_s=self.settings.connect_s)
            except CapabilityMissing as error:
                self.pass_over_partial(error)
                raise
            yield live
        finally:
            with contextlib.suppress(Exception):  # Laws of their own judge disconnect().
                await live.disconnect()

    async def peer(self, kind: str, **changes: Any) -> BaseProvider:
        """Return an instance with a bad peer: ``refused``, ``unreachable``, ``stalled`` or ``lossy``.

        Args:
            changes: Further options, where the kit makes it.

        Raises:
            LawSkipped: The run has none and none can be made.
        """
        factory: Callable[[], BaseProvider] | None = getattr(self.subject, kind)
        made = factory() if factory is not None else await self._made_up_peer(kind, changes)
        if made is None:
            raise LawSkipped(
                Skip.UNEQUIPPED,
                f"the run has no such peer: give {kind}_provider, or {_MADE_FROM[kind]} from which the kit makes one",
            )
        return made

    async def _made_up_peer(self, kind: str, changes: dict[str, Any]) -> BaseProvider | None:
        # A class may say with which options it simulates bad peers, so that it is judged in full anywhere. Where
        # there is a service, only options that reach it do anything: a key and an address.
        simulated: Mapping[str, Mapping[str, Any]] = getattr(self.provider_class, "conformance_peers", {})
        options = dict(simulated.get(kind, {}))
        own = options.pop("metadata", {})
        metadata = {**(self.config.get("metadata") or {}), **own}
        address = None if self.subject.is_in_memory else self._address()
        if kind in simulated and (address is None or "api_key" in options or {"url", "endpoint"} & set(own)):
            return self.subject.make(**{**changes, **options, "metadata": metadata})
        if self.subject.is_in_memory:
            return None
        if kind == "refused":
            return self._with_wrong_key(changes)
        if address is None:
            return None
        name, url = address
        if kind == "unreachable":
            return self.subject.make(**{**changes, "metadata": {**metadata, name: closed_port_url(url)}})
        if not url.startswith("ws://"):
            return None
        proxy = await self._stack.enter_async_context(FaultProxy(url))
        self._strikes.append(proxy.stall if kind == "stalled" else proxy.cut)
        if kind == "lossy":
            self._lasting_strikes.append(proxy.cut_off)
        return self.subject.make(**{**changes, "metadata": {**metadata, name: proxy.url}})

    def _address(self) -> tuple[str, str] | None:
        """Return which option names the service's address, and the address."""
        metadata = self.config.get("metadata") or {}
        for name in ("url", "endpoint"):
            if isinstance(metadata.get(name), str):
                return name, metadata[name]
        return None

    def _with_wrong_key(self, changes: dict[str, Any]) -> BaseProvider:
        key = self.config.get("api_key")
        # A provider may find its key in the environment, and another may need none at all.
        known = key if isinstance(key, str) else ""
        self.is_key_a_guess = not known
        wrong = f"not-{known[::-1]}" if known else _NO_KEY
        return self.subject.make(**{**changes, "api_key": wrong})

    def strike(self) -> None:
        """Let the fault of a peer that the kit made take hold; others act by themselves."""
        for strike in self._strikes:
            strike()

    def strike_for_good(self) -> bool:
        """Let the loss last, so that dialling again does not help; False when the kit did not make the peer."""
        for strike in self._lasting_strikes:
            strike()
        return bool(self._lasting_strikes)

    async def close(self) -> None:
        """Let go of the peers that the kit made."""
        await self._stack.aclose()

    # -- sounds -------------------------------------------------------------------------------------

    def input_format(self, provider: BaseProvider) -> AudioFormat:
        """Return the format in which an instance takes audio."""
        config = provider.config if isinstance(provider.config, dict) else {}
        asked = config.get("input_format")
        offered: Sequence[AudioFormat] = self.capabilities.input_formats
        if isinstance(asked, AudioFormat) and (not offered or asked in offered):
            return asked
        return offered[0] if offered else DEFAULT_FORMAT

    def speech_in(self, form: AudioFormat) -> bytes:
        """Return speech in a format."""
        settings = self.settings
        if settings.speech is not None:
            return sound_in(settings.speech, settings.speech_format, form)
        if form == AudioFormat(form.sample_rate):
            return speech_like(form.sample_rate)
        return sound_in(speech_like(form.sample_rate), AudioFormat(form.sample_rate), form)

    @staticmethod
    def is_manual(provider: BaseProvider) -> bool:
        """Return whether the application ends the turns of an instance."""
        config = provider.config if isinstance(provider.config, dict) else {}
        turns = config.get("turn_detection")
        return isinstance(turns, TurnDetection) and turns.kind in ("client", "manual")
