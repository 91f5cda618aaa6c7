"""Laws of errors, loss and secrets, and of the provider in the engine's hands."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from voxengine.audio.format import AudioFormat
from voxengine.config import VoiceEngineConfig
from voxengine.engine import VoiceEngine
from voxengine.errors import ErrorCode, NotConnected, ProviderError, VoxEngineError
from voxengine.events import Event, EventType
from voxengine.providers.base import BaseProvider
from voxengine.providers.registry import ProviderRegistry
from voxengine.testing.conformance.law import Law, LawBroken, LawSkipped, Skip, law
from voxengine.testing.conformance.probe import ENDINGS, ERRORS, LOSSES, OUTPUT, Live, Probe, tell
from voxengine.testing.conformance.subject import secrets_in_environment, secrets_of, sound_in

__all__ = ["LAWS"]

LAWS: Final[list[Law]] = []

_NAME: Final = "subject"
_REFUSALS: Final = (ErrorCode.AUTHENTICATION, ErrorCode.PERMISSION)
_SENTINEL: Final = "sk-conformance-0c1d5e7f"


def engine_for(provider: BaseProvider) -> VoiceEngine:
    """Return an engine whose one session is this instance."""
    kind: Any = type(provider)

    class Given(kind):  # type: ignore[misc]
        def __new__(cls, config: dict[str, Any]) -> Any:
            return provider  # No instance of this class, so that nothing is initialised again.

    registry = ProviderRegistry()
    registry.register(_NAME, Given)
    given = provider.config if isinstance(provider.config, Mapping) else {}
    names = ("input_format", "output_format", "turn_detection", "mode")
    options = {name: given[name] for name in names if given.get(name) is not None}
    # No second session: the instance is used up, and a loss has to be seen.
    config = VoiceEngineConfig(provider=_NAME, playback="null", reconnect={"budget_s": 0}, **options)
    return VoiceEngine(config, registry=registry)


@law("responses", into=LAWS, needs=("text_turn",), essential=True)
async def engine_sees_one_response_for_a_turn(probe: Probe) -> None:
    """In an engine, a turn gives one RESPONSE_STARTED, then output, then one ending, given or inferred."""
    probe.require_answers()
    engine = engine_for(probe.make())
    events: list[Event] = []
    engine.events.on("*", events.append)
    try:
        await engine.connect()
        await engine.send_text(probe.settings.prompt_text)
        await engine.wait_idle(timeout_s=probe.settings.answer_s, settle_s=probe.settings.quiet_s + 0.6)
    finally:
        await engine.disconnect()
    kinds = [e.type for e in events if e.type in (EventType.RESPONSE_STARTED, *OUTPUT, *ENDINGS)]
    n_starts = kinds.count(EventType.RESPONSE_STARTED)
    n_ends = sum(kinds.count(kind) for kind in ENDINGS)
    if n_starts != 1 or n_ends != 1 or len(kinds) < 3:
        what = ", ".join(kind.name for kind in dict.fromkeys(kinds)) or "nothing"
        raise LawBroken(
            f"A turn gave {n_starts} starts and {n_ends} endings of a response; there came {what}."
        )
    if kinds[0] is not EventType.RESPONSE_STARTED or kinds[-1] not in ENDINGS:
        raise LawBroken(f"The response goes from {kinds[0].name} to {kinds[-1].name}.")


async def _connect_failure(probe: Probe, kind: str) -> ProviderError:
    """Return what an engine makes of a connect that cannot succeed."""
    provider = await probe.peer(kind)
    engine = engine_for(provider)
    try:
        await engine.connect()
        # A service may refuse with its first answer.
        await engine.send_text(probe.settings.prompt_text)
        await engine.wait_idle(timeout_s=probe.settings.answer_s)
    except ProviderError as error:
        if provider.is_connected:
            raise LawBroken("is_connected is True after connect() has failed.") from error
        return error
    except VoxEngineError as error:
        raise LawBroken(f"connect() raised {tell(error)}; it is a ProviderError.") from error
    finally:
        await engine.disconnect()
    if kind == "refused" and probe.is_key_a_guess:
        raise LawSkipped(
            Skip.UNEQUIPPED,
            "no api_key was given, and a session opens with any: give refused_provider, or the key",
        )
    raise LawBroken(f"connect() succeeded although the service is {kind}.")


@law("errors", into=LAWS)
async def refused_credentials_are_named(probe: Probe) -> None:
    """Refused credentials make connect raise an error of code authentication or permission, not to be retried."""
    error = await _connect_failure(probe, "refused")

    if error.code not in _REFUSALS:
        raise LawBroken(f"Refused credentials gave the code {str(error.code)!r}: {tell(error)}")
    if error.recoverable:
        raise LawBroken("Refused credentials are called recoverable; trying again cannot help.")


@law("errors", into=LAWS)
async def unreachable_service_is_named(probe: Probe) -> None:
    """A service that cannot be reached makes connect raise an error that is worth retrying."""
    error = await _connect_failure(probe, "unreachable")

    if error.code not in (ErrorCode.UNAVAILABLE, ErrorCode.TIMEOUT, ErrorCode.CONNECTION_LOST):
        raise LawBroken(f"A service that cannot be reached gave the code {str(error.code)!r}: {tell(error)}")
    if not error.recoverable:
        raise LawBroken("A service that cannot be reached is called not recoverable.")


_N_TURNS: Final = 3
"""After a cut. The first makes a session end; one that did not notice learns it from the next."""
_TURN_S: Final = 8.0
"""For the answer to one of them, or for the loss to be told; less when an answer is given less."""


@law("errors", into=LAWS, essential=True)
async def lost_session_ends_exactly_once(probe: Probe) -> None:
    """When the service cuts the connection, the loss is reported once, at the latest by the next call. A session
    may dial again by itself: then it loses no turn, and the loss is reported when dialling does not help.
    """
    provider = await probe.peer("lossy")
    engine = engine_for(provider)
    events: list[Event] = []
    engine.events.on("*", events.append)
    own: list[Event] = []
    provider.on_event = own.append
    when = ""
    try:
        await engine.connect()
        probe.strike()
        if await _outlives(probe, engine, events) and probe.strike_for_good():
            when = " for good, after a cut that the session had outlived,"
            await _outlives(probe, engine, events)
        await asyncio.sleep(probe.settings.quiet_s)
        n_told = sum(event.type is EventType.CONNECTION_LOST for event in own)
    finally:
        await engine.disconnect()
    losses = [event for event in events if event.type is EventType.CONNECTION_LOST]
    if not losses:
        raise LawBroken(f"The service cut the connection{when} and nobody was told.")
    if n_told > 1:
        raise LawBroken(f"One loss of the session was reported {n_told} times.")
    if provider.is_connected:
        raise LawBroken("is_connected is True after the loss of the session.")
    for event in (losses[0], *own):  # The engine mends for its user what a provider told it wrongly.
        if event.type is EventType.CONNECTION_LOST:
            _check_error(event)


async def _outlives(probe: Probe, engine: VoiceEngine, events: list[Event]) -> bool:
    """Put turns after a cut; return whether they were answered, and no loss was told.

    Raises:
        LawBroken: One was lost without a word, and the next was answered.
    """
    # What speaks and what listens may have connections of their own.
    turns = [_text_turn] if probe.can("text_turn") else [_spoken_turn]
    if probe.can("text_turn") and not probe.can("dialogue") and _ends_turns(probe):
        turns.append(_spoken_turn)
    for put in turns:
        for n in range(_N_TURNS):
            is_answered = await put(probe, engine, events)
            if any(event.type is EventType.CONNECTION_LOST for event in events):
                return False
            if is_answered and n:
                raise LawBroken("After a cut of the connection a turn was lost, and nobody was told.")
            if is_answered:
                break
        else:
            return False
    return True


def _ends_turns(probe: Probe) -> bool:
    return probe.declares("recognition") and probe.declares("server_turn_detection")


async def _text_turn(probe: Probe, engine: VoiceEngine, events: list[Event]) -> bool:
    since = len(events)
    with contextlib.suppress(ProviderError, NotConnected):
        await engine.send_text(probe.settings.prompt_text)

        def is_there(kinds: set[EventType]) -> bool:
            return EventType.RESPONSE_COMPLETED in kinds and not kinds.isdisjoint(OUTPUT)

        return await _comes(probe, events, since, is_there)
    return False


async def _spoken_turn(probe: Probe, engine: VoiceEngine, events: list[Event]) -> bool:
    since = len(events)
    with contextlib.suppress(ProviderError, NotConnected):
        form = engine.input_format
        silence_ms = probe.capabilities.endpointing_silence_ms or probe.settings.silence_ms
        chunk_ms = 100
        quiet = sound_in(bytes(48 * (silence_ms + 300)), AudioFormat(24_000), form)
        sound = probe.speech_in(form) + quiet
        size = form.n_bytes(chunk_ms)
        for at in range(0, len(sound), size):
            await engine.send_audio(sound[at : at + size])
            await asyncio.sleep(chunk_ms / 1000)
            if any(event.type is EventType.CONNECTION_LOST for event in events):
                return False

        def is_there(kinds: set[EventType]) -> bool:
            heard = any(
                event.type is EventType.INPUT_TRANSCRIPT and not event.data.get("is_partial")
                for event in events[since:]
            )
            return heard or not kinds.isdisjoint(OUTPUT)

        return await _comes(probe, events, since, is_there)
    return False


async def _comes(
    probe: Probe, events: list[Event], since: int, is_there: Callable[[set[EventType]], bool]
) -> bool:
    """Wait for something, or for a loss; return whether it came."""
    loop = asyncio.get_running_loop()
    end = loop.time() + min(_TURN_S, probe.settings.answer_s)
    while True:
        kinds = {event.type for event in events[since:]}
        if is_there(kinds):
            return True
        if loop.time() >= end or any(event.type is EventType.CONNECTION_LOST for event in events):
            return False
        await asyncio.sleep(0.05)


@law("errors", into=LAWS)
async def error_events_hold_errors(probe: Probe) -> None:
    """The ``error`` of an event is an exception, its code one of the closed list, ``recoverable`` a bool."""
    async with probe.open(tools=[dict(probe.settings.tool)]) as live:
        if probe.answers:
            await live.ask()
        # Something that no service accepts: a result for a call that it never made.
        with contextlib.suppress(Exception):  # What it raises is not an event.
            await live.call("send_tool_result", "call-that-never-was", "{}", False)
        await live.quiet()

        for event in live.of(*ERRORS, EventType.CONNECTION_LOST):
            _check_error(event)


def _check_error(event: Event) -> None:
    error, recoverable = event.data.get("error"), event.data.get("recoverable")
    if not isinstance(error, BaseException):
        raise LawBroken(f"{event.type.name}.error is a {type(error).__name__}; it is an exception.")
    if isinstance(error, ProviderError) and error.code not in tuple(ErrorCode):
        raise LawBroken(f"{event.type.name} has the code {error.code!r}, which is not of the closed list.")
    if recoverable is not None and not isinstance(recoverable, bool):
        raise LawBroken(f"{event.type.name}.recoverable is a {type(recoverable).__name__}; it is a bool.")


@law("errors", into=LAWS, essential=True)
async def secrets_are_shown_nowhere(probe: Probe) -> None:
    """No credential is in a representation, an event, an error or a log record, nor when a peer is a bad one."""
    own = [*probe.subject.secrets, *secrets_of(probe.config)]
    # Without a key one is made up; one that is found in the environment is then tried besides.
    tries: list[dict[str, Any]] = [{}] if own else [{"api_key": _SENTINEL}]
    if not own and secrets_in_environment():
        tries.append({})
    shown = _Shown([*own, *secrets_in_environment(), _SENTINEL])
    with _log_records() as records:
        for changes in tries:
            await _converse(probe.live(probe.subject.make(**changes)), shown)
        for kind in ("refused", "unreachable", "lossy"):
            with contextlib.suppress(LawSkipped):
                provider = await probe.peer(kind, **tries[0])
                await _converse(probe.live(provider), shown, kind)
        for record in records:
            shown.add(f"a log record of {record.name}", record.getMessage())
    shown.check()


class _Shown:
    """What could be seen, by where."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self.secrets = set(secrets)
        self._found: list[tuple[str, str]] = []

    def add(self, where: str, *texts: str) -> None:
        self._found += [(where, text) for text in texts]

    def add_error(self, where: str, error: BaseException) -> None:
        """Take an error and those that it came from, with everything that they carry."""
        seen: set[int] = set()
        at: BaseException | None = error
        while at is not None and id(at) not in seen:
            seen.add(id(at))
            self.add(where, repr(at), str(at), repr(at.args), repr(vars(at)))
            at = at.__cause__ or at.__context__

    def check(self) -> None:
        """LawBroken when a secret is in it."""
        for where, text in self._found:
            if any(secret in text for secret in self.secrets):
                raise LawBroken(f"A credential is in {where}.")


async def _converse(live: Live, shown: _Shown, kind: str = "") -> None:
    """Do what makes a provider speak of itself, right and wrong, and note it; nothing is raised."""
    provider, probe = live.provider, live.probe
    given = provider.config if isinstance(provider.config, Mapping) else {}
    shown.secrets.update(secrets_of(given))
    when = f" when the service is {kind}" if kind else ""

    async def attempt(hook: str, *arguments: Any, limit_s: float | None = None) -> bool:
        try:
            await live.call(hook, *arguments, limit_s=limit_s)
        except Exception as error:
            shown.add_error(f"the error of {hook}(){when}", error)
            return False
        return True

    try:
        if await attempt("connect", limit_s=probe.settings.connect_s):
            await _provoke(live, kind, attempt)
    finally:
        await attempt("disconnect", limit_s=probe.settings.close_s)
    # The engine's configuration hides its secrets by itself; one that a user wrote as a dict does not.
    if isinstance(provider.config, Mapping):
        provider.config = dict(provider.config)
    shown.add("repr() of the provider", repr(provider), str(provider))
    for event in live.events:
        _add_event(shown, event, when)


async def _provoke(live: Live, kind: str, attempt: Callable[..., Awaitable[bool]]) -> None:
    probe = live.probe
    if kind == "lossy":
        probe.strike()
        for _ in range(2):
            # The first call may make it end; one that did not notice learns it from the next.
            if probe.can("text_turn"):
                await attempt("send_text", probe.settings.prompt_text)
            else:
                await attempt("send_audio", bytes(960))
            await live.until(lambda: bool(live.of(*LOSSES)), min(1.0, probe.settings.settle_s))
        return
    if probe.answers:
        with contextlib.suppress(LawBroken, LawSkipped):
            await live.ask()
    if not kind:
        await attempt("send_audio", bytes(probe.input_format(live.provider).frame_bytes + 1))
        await attempt("send_tool_result", "call-that-never-was", "{}", False)


def _add_event(shown: _Shown, event: Event, when: str) -> None:
    where = f"a {event.type.name} event{when}"
    shown.add(where, repr(event))
    for value in event.data.values():
        if isinstance(value, BaseException):
            shown.add_error(where, value)
        elif not isinstance(value, bytes):
            shown.add(where, repr(value), str(value))


@contextlib.contextmanager
def _log_records() -> Iterator[list[logging.LogRecord]]:
    """Collect what is logged at any level, but for what a transport library logs when it is debugged."""
    records: list[logging.LogRecord] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            library = record.name.partition(".")[0]
            if record.levelno > logging.DEBUG or library not in ("websockets", "asyncio", "aiohttp", "httpx"):
                records.append(record)

    root, keeper = logging.getLogger(), Keeper(logging.DEBUG)
    level = root.level
    root.addHandler(keeper)
    root.setLevel(logging.DEBUG)
    try:
        yield records
    finally:
        root.removeHandler(keeper)
        root.setLevel(level)
