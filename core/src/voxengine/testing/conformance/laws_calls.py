"""Laws of interruption, settings, tools, history and usage."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Mapping
from typing import Any, Final

from voxengine.capabilities import Support
from voxengine.events import Event, EventType
from voxengine.history import Heard, Item
from voxengine.testing.conformance.law import Law, LawBroken, LawSkipped, Skip, law
from voxengine.testing.conformance.probe import ENDINGS, OUTPUT, Live, Probe, Turn

__all__ = ["LAWS"]

LAWS: Final[list[Law]] = []

_ASKED: Final = (*OUTPUT, *ENDINGS, EventType.RESPONSE_STARTED)


def _heard(turn: Turn) -> Heard:
    """Return that 40 ms of an answer were heard."""
    ids = next((e.data for e in turn.output if e.data.get("response_id")), {})
    return Heard(str(ids.get("response_id") or ""), str(ids.get("item_id") or ""), 0, 40, 40)


# -- interruption -----------------------------------------------------------------------------------


@law("interruption", into=LAWS)
async def interrupt_before_an_answer_is_harmless(probe: Probe) -> None:
    """Interrupt with nothing under way does nothing, and the session goes on."""
    async with probe.open() as live:
        since = live.now

        await live.works("interrupt", None, when="with nothing under way")
        await live.quiet()

        live.no_errors(since, "interrupt() with nothing under way")
        if ended := live.of(*ENDINGS, since=since):
            raise LawBroken(f"interrupt() with nothing under way brought {ended[0].type.name}.")
        await live.goes_on("interrupt() with nothing under way")


@law(
    "interruption",
    into=LAWS,
    needs=("cancel", "text_turn"),
    declared=("response_boundaries",),
    essential=True,
)
async def interrupt_stops_the_answer(probe: Probe) -> None:
    """Interrupt with what was heard ends the response once, as cancelled, and no more of it comes."""
    probe.require_answers()
    for quick in probe.ways("try_interrupt"):
        await _interrupt_stops(probe, quick=quick)


async def _interrupt_stops(probe: Probe, *, quick: bool) -> None:
    async with probe.open() as live:
        turn = await live.begin_long_answer()
        if turn.of(*ENDINGS):
            _too_short(probe)
        since = live.now

        if not (quick and live.provider.try_interrupt(_heard(turn))):
            await live.works("interrupt", _heard(turn), when="in the middle of an answer")

        ending = await live.wait_for(*ENDINGS, since=since, why="interrupt() in the middle of an answer")
        at = live.events.index(ending)
        await asyncio.sleep(max(probe.settings.quiet_s, 1.0))
        status = ending.data.get("status") or "completed"
        if ending.type is EventType.RESPONSE_COMPLETED and status == "completed":
            raise LawBroken("The response ran to its end as if nobody had interrupted.")
        _check_stopped(live, ending, at)


def _too_short(probe: Probe) -> None:
    reason = "the answer to long_prompt_text ended before it could be interrupted"
    if probe.declares("cancel"):
        raise LawBroken(f"Not to be judged: {reason}. Set long_prompt_text to one with a longer answer.")
    raise LawSkipped(Skip.UNDECLARED, reason)


def _check_stopped(live: Live, ending: Event, at: int) -> None:
    of_it = ending.data.get("response_id")
    for event in live.events[at + 1 :]:
        if event.data.get("response_id") != of_it:
            continue
        if event.type in OUTPUT:
            raise LawBroken(f"{event.type.name} of the cancelled response came after its end.")
        if event.type in ENDINGS:
            raise LawBroken(f"{event.type.name} came for a response that had ended.")


@law("interruption", into=LAWS)
async def interrupt_after_an_answer_is_harmless(probe: Probe) -> None:
    """Interrupt after the end of a response brings no second ending and no error."""
    probe.require_answers()
    async with probe.open() as live:
        turn = await live.ask()
        since = live.now

        await live.works("interrupt", _heard(turn), when="after the end of an answer")
        await live.quiet()

        live.no_errors(since, "interrupt() after the end of an answer")
        ended = {event.data.get("response_id") for event in turn.of(*ENDINGS)}
        again = [e for e in live.of(*ENDINGS, since=since) if e.data.get("response_id") in ended]
        if again:
            raise LawBroken(f"interrupt() after the end of an answer brought another {again[0].type.name}.")


@law("interruption", into=LAWS, needs=("text_turn",), essential=True)
async def session_goes_on_after_an_interrupt(probe: Probe) -> None:
    """After an interruption the next turn is answered."""
    probe.require_answers()
    async with probe.open() as live:
        turn = await live.begin_long_answer()
        since = live.now
        await live.works("interrupt", _heard(turn), when="in the middle of an answer")
        if probe.has_boundaries and not turn.of(*ENDINGS):
            await live.until(lambda: bool(live.of(*ENDINGS, since=since)), probe.settings.settle_s)
        await live.quiet()

        await live.goes_on("an interruption")


@law("interruption", into=LAWS, needs=("cancel", "text_turn"), declared=("heard_text",))
async def heard_words_are_known(probe: Probe) -> None:
    """Interrupt takes what was heard, and marks of words or a heard_text tell which words that were."""
    probe.require_answers()
    parameters = inspect.signature(probe.provider_class.interrupt).parameters
    if len(parameters) < 2:
        raise LawBroken("heard_text is declared and interrupt() takes no heard.")
    async with probe.open() as live:
        turn = await live.begin_long_answer()
        await live.works("interrupt", _heard(turn), when="in the middle of an answer")
        await live.until(lambda: bool(live.of(*ENDINGS)), probe.settings.settle_s)
        await live.quiet()

        marks = [e for e in live.of(EventType.SPEECH_MARK) if e.data.get("kind") == "word"]
        if marks or any(isinstance(event.data.get("heard_text"), str) for event in live.events):
            return
        cell = probe.capabilities.heard_text
        if cell.support is Support.PARTIAL:
            raise LawSkipped(Skip.VENDOR, f"'heard_text' is partial, and not for this: {cell.why}")
        raise LawBroken(
            "heard_text is declared as full and neither a SPEECH_MARK of kind 'word' nor a heard_text came."
        )


# -- settings ---------------------------------------------------------------------------------------


@law("calls", into=LAWS, needs=("live_configuration",))
async def settings_change_in_mid_session(probe: Probe) -> None:
    """configure_session changes instructions between two turns, and the session goes on."""
    async with probe.open() as live:
        since = live.now

        await live.works(
            "configure_session", {"instructions": "Answer in one short sentence."}, when="in mid-session"
        )
        await live.quiet()

        live.no_errors(since, "configure_session() in mid-session")
        await live.goes_on("configure_session()")


@law("calls", into=LAWS, needs=("live_configuration",), declared=("vocabulary_live",))
async def vocabulary_changes_in_mid_session(probe: Probe) -> None:
    """configure_session takes a vocabulary between two turns, and the settings in force name it."""
    async with probe.open() as live:
        since = live.now

        await live.works("configure_session", {"vocabulary": ("VoxEngine",)}, when="with a vocabulary")
        await live.quiet()

        live.no_errors(since, "configure_session() with a vocabulary")
        await live.goes_on("a change of the vocabulary")
        live.check_in_force("vocabulary", "VoxEngine", since)


# -- tools ------------------------------------------------------------------------------------------


@law("calls", into=LAWS, needs=("text_turn", "session_tools"))
async def tool_is_called_by_name(probe: Probe) -> None:
    """A declared tool is called once and by its name, with a call_id and with arguments that fit its schema."""
    async with probe.open(tools=[dict(probe.settings.tool)]) as live:
        call = await live.ask_for_a_call()

        if call.data.get("name") != probe.settings.tool["name"]:
            raise LawBroken(f"The call names {call.data.get('name')!r}, not the declared tool.")
        if not call.data.get("call_id"):
            raise LawBroken("The call has no call_id.")
        await live.quiet()
        calls = [event.data.get("call_id") for event in live.of(EventType.FUNCTION_CALL_INVOKED)]
        if calls.count(call.data["call_id"]) > 1:
            raise LawBroken("FUNCTION_CALL_INVOKED came twice for one call.")
        arguments = call.data.get("arguments")
        if not isinstance(arguments, Mapping):
            raise LawBroken(f"arguments is a {type(arguments).__name__}; it is a decoded mapping.")
        lacks = set(probe.settings.tool.get("parameters", {}).get("required", ())) - set(arguments)
        if lacks:
            raise LawBroken(f"The call lacks the required argument {min(lacks)!r}.")


@law("calls", into=LAWS, needs=("text_turn", "session_tools"))
async def tool_result_lets_the_answer_go_on(probe: Probe) -> None:
    """The result of a call is answered."""
    await _answered(probe, probe.settings.tool_output, is_error=False)


@law("calls", into=LAWS, needs=("text_turn", "session_tools"))
async def failure_of_a_tool_lets_the_answer_go_on(probe: Probe) -> None:
    """A result that tells of a failure is answered as well."""
    await _answered(probe, "The weather service cannot be reached.", is_error=True)


async def _answered(probe: Probe, output: str, *, is_error: bool) -> None:
    async with probe.open(tools=[dict(probe.settings.tool)]) as live:
        call = await live.ask_for_a_call()
        call_id = call.data.get("call_id")
        since = live.now

        await live.works("send_tool_result", call_id, output, is_error, when="for an open call")

        turn = await live.answer(since, "The tool's result got no answer")
        if not turn.output:
            raise LawBroken(f"The answer held neither text nor audio. What came: {live.seen(since)}.")
        live.no_errors(since, "The tool's result")


# -- history ----------------------------------------------------------------------------------------


def _past(probe: Probe) -> list[Item]:
    items = [
        Item("item-1", "user_text", "My name is Ada.", status="completed"),
        Item("item-2", "agent", "Hello Ada.", status="completed"),
    ]
    if probe.declares("context_tools"):
        name = str(probe.settings.tool["name"])
        items += [
            Item("item-3", "tool_call", name=name, call_id="call-1", arguments='{"city": "Oslo"}'),
            Item("item-4", "tool_result", "Rain.", name=name, call_id="call-1"),
        ]
    return items


@law("calls", into=LAWS, needs=("context_text",))
async def loaded_history_asks_for_nothing(probe: Probe) -> None:
    """load_history gives an empty session earlier turns; no answer comes until the next turn."""
    async with probe.open() as live:
        since = live.now

        await live.works("load_history", _past(probe), when="right after connect()")
        await asyncio.sleep(max(probe.settings.quiet_s, 1.0))

        live.no_errors(since, "load_history()")
        if unasked := live.of(*_ASKED, since=since):
            raise LawBroken(f"load_history() was followed by {unasked[0].type.name}.")
        await live.goes_on("load_history()")


@law("calls", into=LAWS, needs=("context_text",), declared=("context_audio",))
async def loaded_speech_asks_for_nothing(probe: Probe) -> None:
    """load_history takes an earlier user turn as audio; no answer comes until the next turn, a transcript may."""
    async with probe.open() as live:
        form = probe.input_format(live.provider)
        sound = probe.speech_in(form)
        spoken = Item(
            "item-1",
            "user_audio",
            audio=sound,
            audio_format=form,
            audio_ms=round(form.duration_ms(len(sound))),
        )
        since = live.now

        await live.works("load_history", [spoken], when="with a turn as audio")
        await asyncio.sleep(max(probe.settings.quiet_s, 1.0))

        live.no_errors(since, "load_history() with a turn as audio")
        if unasked := live.of(*_ASKED, since=since):
            raise LawBroken(f"load_history() with a turn as audio was followed by {unasked[0].type.name}.")
        was_heard = bool(live.of(EventType.INPUT_TRANSCRIPT, since=since))
        await live.goes_on("load_history() with a turn as audio")
        if not was_heard:
            raise LawSkipped(
                Skip.UNJUDGED,
                "a turn as audio was taken without an error; whether the service heeds it does not show from "
                "outside, since no INPUT_TRANSCRIPT of it came",
            )


@law("calls", into=LAWS, needs=("items",))
async def item_in_mid_session_asks_for_nothing(probe: Probe) -> None:
    """send_item adds to an open session; no answer comes until the next turn."""
    async with probe.open() as live:
        if probe.answers:
            await live.ask()
        await live.quiet()
        since = live.now

        await live.works(
            "send_item", Item("item-9", "user_text", "My dog is called Rex."), when="in mid-session"
        )
        await asyncio.sleep(max(probe.settings.quiet_s, 1.0))

        live.no_errors(since, "send_item()")
        if unasked := live.of(*_ASKED, since=since):
            raise LawBroken(f"send_item() was followed by {unasked[0].type.name}.")
        await live.goes_on("send_item()")


@law("calls", into=LAWS, needs=("resume",))
async def session_is_taken_up_by_its_handle(probe: Probe) -> None:
    """Resume with the session_id of an ended session works on a new instance, and the session goes on."""
    async with probe.open() as live:
        if probe.answers:
            await live.ask()
        handle = live.provider.session_id
    if not isinstance(handle, str) or not handle:
        raise LawBroken("resume is declared and session_id is no handle.")
    async with probe.open(probe.subject.make()) as live:
        since = live.now
        await live.works("resume", handle, when="right after connect()")

        live.no_errors(since, "resume()")
        await live.goes_on("resume()")


# -- speaking ---------------------------------------------------------------------------------------


@law("calls", into=LAWS, needs=("speak",))
async def given_text_is_spoken(probe: Probe) -> None:
    """Speak says a text as the agent: output comes."""
    async with probe.open() as live:
        since = live.now

        await live.works("speak", "Welcome aboard.", True, when="in an open session")

        turn = await live.answer(since, "speak() brought nothing")
        if not turn.output:
            raise LawBroken(f"speak() brought neither text nor audio. What came: {live.seen(since)}.")


@law("calls", into=LAWS, needs=("speak",), declared=("response_boundaries",))
async def text_spoken_in_pieces_is_one_response(probe: Probe) -> None:
    """Pieces of speak up to is_last belong to one response."""
    async with probe.open() as live:
        since = live.now

        await live.works("speak", "Welcome", False, when="with more to follow")
        await live.works("speak", "aboard.", True, when="with the last piece")

        await live.answer(since, "speak() in pieces brought nothing")
        await live.quiet()
        n_starts = len(live.of(EventType.RESPONSE_STARTED, since=since))
        if n_starts != 1:
            raise LawBroken(f"Two pieces of one utterance started {n_starts} responses.")


# -- usage and cost ---------------------------------------------------------------------------------


def _bad_number(value: Any) -> bool:
    """Return whether something is no amount: usage may nest, and may hold words."""
    if isinstance(value, Mapping):
        return any(_bad_number(inner) for inner in value.values())
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return not math.isfinite(value) or value < 0


@law("calls", into=LAWS)
async def usage_is_a_mapping_or_none(probe: Probe) -> None:
    """get_usage returns a mapping of amounts or None; something, where usage is declared."""
    async with probe.open() as live:
        if probe.answers:
            await live.ask()

        usage = await live.works("get_usage", when="in an open session")
        if not usage and probe.provider_class.capabilities_for(probe.config).usage:
            # A service may count a turn in a message of its own, behind the answer.
            await live.quiet()
            usage = await live.works("get_usage", when="in an open session")

        if usage is None or (isinstance(usage, Mapping) and not usage):
            if probe.provider_class.capabilities_for(probe.config).usage:
                raise LawBroken("usage is declared and get_usage() says nothing after a turn.")
            return
        if not isinstance(usage, Mapping) or not all(isinstance(key, str) for key in usage):
            raise LawBroken(
                f"get_usage() returned a {type(usage).__name__}; it is a mapping of names or None."
            )
        if _bad_number(usage):
            raise LawBroken("get_usage() holds an amount that is negative or not finite.")


@law("calls", into=LAWS)
async def cost_is_an_amount_or_none(probe: Probe) -> None:
    """estimate_cost returns US dollars from 0 or None; an amount, where cost is declared."""
    async with probe.open() as live:
        if probe.answers:
            await live.ask()

        cost = await live.works("estimate_cost", when="in an open session")

        if cost is None:
            if probe.provider_class.capabilities_for(probe.config).cost:
                raise LawBroken("cost is declared and estimate_cost() says nothing after a turn.")
            return
        if isinstance(cost, bool) or not isinstance(cost, int | float) or _bad_number(cost):
            raise LawBroken(f"estimate_cost() returned {cost!r}; it is an amount from 0 or None.")
