"""Laws of the class and of the life of a session."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import Any, Final

from voxengine.capabilities import HOOK_CAPABILITIES, Capabilities
from voxengine.config import TurnDetection
from voxengine.errors import CapabilityMissing, LocalProtocolError, ProviderError
from voxengine.events import EventType
from voxengine.providers.base import overrides
from voxengine.providers.contract import check_provider
from voxengine.testing.conformance.law import Law, LawBroken, LawSkipped, Skip, law
from voxengine.testing.conformance.probe import LOSSES, OUTPUT, Probe, tell

__all__ = ["LAWS"]

LAWS: Final[list[Law]] = []

_BEFORE_ESTABLISHED: Final = frozenset(
    {
        EventType.CONNECTION_STARTING,
        EventType.CONNECTION_ESTABLISHED,
        EventType.SESSION_UPDATED,
        EventType.RATE_LIMITS,
        EventType.WARNING,
        EventType.VENDOR_EVENT,
    }
)


# -- the class --------------------------------------------------------------------------------------


@law("class", into=LAWS, essential=True)
async def class_fulfils_the_contract(probe: Probe) -> None:
    """The class extends BaseProvider and every method has the contract's signature."""
    try:
        check_provider(probe.provider_class)
    except LocalProtocolError as error:
        raise LawBroken(str(error)) from error


@law("class", into=LAWS)
async def declared_hooks_are_implemented(probe: Probe) -> None:
    """A capability that is declared as partial or full has its method in the class."""
    declared = probe.provider_class.capabilities_for(probe.config)
    for hook, row in HOOK_CAPABILITIES.items():
        if declared.support(row) and not overrides(probe.provider_class, hook):
            raise LawBroken(
                f"{row!r} is declared as {declared.support(row).support} and {hook}() is not implemented. "
                f"Implement it, or declare {row!r} as planned."
            )


@law("class", into=LAWS)
async def declared_values_make_sense(probe: Probe) -> None:
    """Declared numbers are in range and agree with each other, and voices and formats are named once."""
    declared = probe.capabilities
    for name in ("min_chunk_ms", "preferred_chunk_ms", "replay_speed", "session_limit_s"):
        value = getattr(declared, name)
        if value is not None and not (0 < value < math.inf):
            raise LawBroken(f"{name} is {value!r}; it is a number above 0 or None.")
    for name in ("max_history_items", "max_history_chars", "endpointing_silence_ms", "cost_per_minute_usd"):
        value = getattr(declared, name)
        if value is not None and not (0 <= value < math.inf):
            raise LawBroken(f"{name} is {value!r}; it is a number from 0 or None.")
    if (declared.min_chunk_ms or 0) > (declared.preferred_chunk_ms or math.inf):
        raise LawBroken("preferred_chunk_ms is less than min_chunk_ms.")
    _check_named_once(declared)


def _check_named_once(declared: Capabilities) -> None:
    for name in ("voices", "input_formats", "output_formats"):
        values = getattr(declared, name)
        if len(set(values)) != len(values):
            raise LawBroken(f"{name} names one of them twice.")
    if any(not voice.strip() for voice in declared.voices):
        raise LawBroken("voices holds an empty name.")


@law("class", into=LAWS)
async def declared_options_are_accepted(probe: Probe) -> None:
    """A session opens with a declared voice, vocabulary or semantic turn detection, without an error."""
    options: dict[str, Any] = {}
    if probe.declares("multiple_voices") and probe.capabilities.voices:
        options["voice"] = probe.capabilities.voices[-1]
    if probe.declares("vocabulary_at_connect"):
        options["vocabulary"] = ("VoxEngine",)
    if probe.declares("semantic_turn_detection"):
        options["turn_detection"] = TurnDetection("semantic")
    if not options:
        raise LawSkipped(Skip.UNDECLARED, "nothing is promised: no voices, vocabulary or semantic detection")
    try:
        async with probe.open(**options) as live:
            await live.quiet()
            live.no_errors(0, f"Connecting with {', '.join(options)}")
    except ProviderError as error:
        raise LawBroken(f"connect() with {', '.join(options)} raised {tell(error)}") from error


@law("class", into=LAWS)
async def missing_capability_is_named(probe: Probe) -> None:
    """The method behind an unsupported or planned capability raises CapabilityMissing that names it."""
    missing = [
        (hook, row)
        for hook, row in HOOK_CAPABILITIES.items()
        if not probe.can(row) and hook not in ("get_usage", "estimate_cost")
    ]
    if not missing:
        raise LawSkipped(Skip.VENDOR, "nothing is missing: every optional method works")
    arguments: dict[str, tuple[object, ...]] = {
        "end_turn": (True,),
        "send_tool_result": ("call-1", "{}", False),
        "load_history": ((),),
        "send_item": (None,),
        "speak": ("Hello.", True),
        "resume": ("session-1",),
    }
    async with probe.open() as live:
        for hook, row in missing:
            try:
                await live.call(hook, *arguments.get(hook, ()))
            except CapabilityMissing as error:
                if error.capability != row:
                    raise LawBroken(
                        f"{hook}() raised CapabilityMissing for {error.capability!r}; its capability is {row!r}."
                    ) from error
            except Exception as error:
                raise LawBroken(
                    f"{hook}() raised {tell(error)}; as {row!r} is missing it raises CapabilityMissing."
                ) from error
            else:
                raise LawBroken(
                    f"{hook}() returned although {row!r} is missing. Raise CapabilityMissing, or declare it."
                )


# -- life -------------------------------------------------------------------------------------------


@law("life", into=LAWS, essential=True)
async def new_instance_is_not_connected(probe: Probe) -> None:
    """A new instance is not connected, has emitted nothing and has started no task."""
    tasks = asyncio.all_tasks()

    live = probe.live(probe.subject.make())
    await asyncio.sleep(0)

    if live.provider.is_connected:
        raise LawBroken("is_connected is True before connect().")
    if live.events:
        raise LawBroken(f"Before connect() came {live.seen()}.")
    if asyncio.all_tasks() - tasks:
        raise LawBroken("Making an instance started a task.")


@law("life", into=LAWS, essential=True)
async def connect_makes_it_connected(probe: Probe) -> None:
    """When connect returns, is_connected is True, and stays so."""
    async with probe.open() as live:
        if not live.provider.is_connected:
            raise LawBroken(f"is_connected is False after connect(). What came: {live.seen()}.")
        await live.quiet()
        if not live.provider.is_connected:
            raise LawBroken(f"is_connected went False by itself. What came: {live.seen()}.")


@law("life", into=LAWS)
async def established_comes_first_and_once(probe: Probe) -> None:
    """CONNECTION_ESTABLISHED comes at most once, before connect returns and before the conversation."""
    async with probe.open() as live:
        n_at_return = live.now
        if probe.answers:
            await live.ask()
        found = [n for n, event in enumerate(live.events) if event.type is EventType.CONNECTION_ESTABLISHED]
        if len(found) > 1:
            raise LawBroken(f"CONNECTION_ESTABLISHED came {len(found)} times.")
        if found and found[0] >= n_at_return:
            raise LawBroken("CONNECTION_ESTABLISHED came after connect() had returned; its fields are lost.")
        first = found[0] if found else n_at_return
        for event in live.events[:first]:
            if event.type not in _BEFORE_ESTABLISHED:
                raise LawBroken(f"{event.type.name} came before CONNECTION_ESTABLISHED.")


@law("life", into=LAWS, essential=True)
async def disconnect_makes_it_unconnected(probe: Probe) -> None:
    """When disconnect returns, is_connected is False."""
    async with probe.open() as live:
        await live.disconnect()

        if live.provider.is_connected:
            raise LawBroken("is_connected is True after disconnect().")


@law("life", into=LAWS)
async def disconnect_is_idempotent(probe: Probe) -> None:
    """A second and a third disconnect do nothing."""
    async with probe.open() as live:
        await live.disconnect()
        n_events = live.now
        for which in ("second", "third"):
            try:
                await live.disconnect()
            except LawBroken:
                raise
            except Exception as error:
                raise LawBroken(f"The {which} disconnect() raised {tell(error)}") from error
        if live.now > n_events:
            raise LawBroken(f"The second disconnect() emitted {live.seen(n_events)}.")


@law("life", into=LAWS)
async def disconnect_before_connect_is_harmless(probe: Probe) -> None:
    """Disconnect on an instance that was never connected does nothing: the engine calls it after a failed connect."""
    live = probe.live()

    try:
        await live.disconnect()
    except LawBroken:
        raise
    except Exception as error:
        raise LawBroken(
            f"disconnect() before connect() raised {tell(error)}. Return at once when there is no connection."
        ) from error


@law("life", into=LAWS)
async def session_can_be_closed_in_mid_answer(probe: Probe) -> None:
    """Disconnect returns in time while an answer is being given."""
    probe.require(("text_turn",), ())
    probe.require_answers()
    async with probe.open() as live:
        await live.begin_long_answer()

        try:
            await live.disconnect()
        except LawBroken:
            raise
        except Exception as error:
            raise LawBroken(f"disconnect() in the middle of an answer raised {tell(error)}") from error


@law("life", into=LAWS, essential=True)
async def no_event_after_disconnect(probe: Probe) -> None:
    """After disconnect has returned, no event comes, although an answer was under way."""
    async with probe.open() as live:
        if probe.can("text_turn") and probe.answers:
            await live.begin_long_answer()
        with contextlib.suppress(Exception):  # Another law is about that.
            await live.disconnect()
        n_events = live.now

        await live.quiet()

        if live.now > n_events:
            raise LawBroken(f"After disconnect() had returned came {live.seen(n_events)}.")


@law("life", into=LAWS)
async def own_disconnect_is_no_loss(probe: Probe) -> None:
    """A session that we end is not reported as lost, and at most one ending is emitted."""
    async with probe.open() as live:
        await live.disconnect()

        endings = live.of(*LOSSES)
        wrong = [event for event in endings if event.type is not EventType.CONNECTION_CLOSED]
        if wrong:
            raise LawBroken(f"disconnect() made the provider emit {wrong[0].type.name}.")
        if len(endings) > 1:
            raise LawBroken(f"disconnect() made the provider emit {len(endings)} endings.")


@law("life", into=LAWS)
async def sessions_are_independent(probe: Probe) -> None:
    """Two instances at once: what one is told and says does not reach the other, and ending one leaves the other."""
    probe.require_answers()
    async with probe.open() as first:
        second = probe.live(probe.subject.make())
        try:
            try:
                await second.call("connect", limit_s=probe.settings.connect_s)
            except ProviderError as error:
                raise LawSkipped(
                    Skip.VENDOR, f"the service refuses a second session: {tell(error)}"
                ) from error
            since = first.now
            await second.ask()
            heard = first.of(*OUTPUT, since=since)
            if heard:
                raise LawBroken(f"A turn of one session brought {heard[0].type.name} to the other.")
        finally:
            await second.disconnect()
        await first.goes_on("the end of another session")
