"""Laws of responses and of what their events carry."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from voxengine.audio.format import AudioFormat
from voxengine.events import Event, EventType
from voxengine.testing.conformance.law import Law, LawBroken, LawSkipped, Skip, law
from voxengine.testing.conformance.probe import ENDINGS, OUTPUT, Live, Probe

__all__ = ["LAWS"]

LAWS: Final[list[Law]] = []

_BOUNDARIES: Final = ("response_boundaries",)
_TYPES: Final[Mapping[EventType, Mapping[str, tuple[type, ...]]]] = {
    EventType.TEXT_OUTPUT: {"text": (str,), "delta": (str,), "is_partial": (bool,), "response_id": (str,)},
    EventType.INPUT_TRANSCRIPT: {"text": (str,), "delta": (str,), "is_partial": (bool,), "item_id": (str,)},
    EventType.AUDIO_OUTPUT_CHUNK: {
        "audio_data": (bytes,), "sample_rate": (int,), "channels": (int,), "response_id": (str,),
        "item_id": (str,),
    },
    EventType.RESPONSE_STARTED: {"response_id": (str,), "trigger": (str,)},
    EventType.RESPONSE_COMPLETED: {"response_id": (str,), "status": (str,), "usage": (Mapping,)},
    EventType.RESPONSE_CANCELLED: {"response_id": (str,), "reason": (str,), "heard_ms": (int,)},
    EventType.FUNCTION_CALL_INVOKED: {"name": (str,), "call_id": (str,), "arguments": (Mapping,)},
    EventType.SPEECH_MARK: {"kind": (str,), "value": (str,), "at_ms": (int,)},
    EventType.SPEECH_STARTED: {"at_ms": (int,), "source": (str,)},
    EventType.SPEECH_ENDED: {"at_ms": (int,), "source": (str,)},
    EventType.USAGE_UPDATED: {"usage": (Mapping,), "cost": (int, float)},
    EventType.SESSION_UPDATED: {"settings": (Mapping,)},
    EventType.WARNING: {"code": (str,), "message": (str,)},
}  # fmt: skip
_NEEDED: Final = {
    EventType.TEXT_OUTPUT: "text",
    EventType.INPUT_TRANSCRIPT: "text",
    EventType.AUDIO_OUTPUT_CHUNK: "audio_data",
}


@contextlib.asynccontextmanager
async def _every_turn(probe: Probe) -> AsyncIterator[list[Event]]:
    """Yield the events of a session with a turn of each kind: a text, speech, the result of a call, a given text.

    Raises:
        LawBroken: The first of them gets no answer, or no response starts. That the others get one is judged
            elsewhere, so they are passed over here.
    """
    probe.require_answers()
    tool: dict[str, Any] = {"tools": [dict(probe.settings.tool)]} if probe.can("session_tools") else {}
    async with probe.open(**tool) as live:
        await live.ask()
        if not live.of(EventType.RESPONSE_STARTED):
            raise LawBroken("response_boundaries is declared and no RESPONSE_STARTED came.")
        for turn in (_spoken_turn, _called_turn, _given_turn):
            with contextlib.suppress(LawBroken, LawSkipped):
                await turn(live)
        await live.until(lambda: _n_open(live) <= 0, probe.settings.settle_s)
        await live.quiet()
        yield live.events


def _n_open(live: Live) -> int:
    return len(live.of(EventType.RESPONSE_STARTED)) - len(live.of(*ENDINGS))


async def _spoken_turn(live: Live) -> None:
    probe = live.probe
    hears = probe.declares("server_turn_detection") or probe.declares("client_turn_detection")
    if probe.can("text_turn") and probe.can("dialogue") and hears:  # Else it was the first.
        since = live.now
        await live.say()
        await live.answer(since)


async def _called_turn(live: Live) -> None:
    if live.probe.can("text_turn") and live.probe.can("session_tools"):
        call = await live.ask_for_a_call()
        since = live.now
        await live.works(
            "send_tool_result",
            call.data.get("call_id"),
            live.probe.settings.tool_output,
            False,
            when="for an open call",
        )
        await live.answer(since)


async def _given_turn(live: Live) -> None:
    if live.probe.can("speak"):
        since = live.now
        await live.works("speak", "Welcome aboard.", True, when="in an open session")
        await live.answer(since)


@law("responses", into=LAWS, essential=True)
async def turn_is_answered(probe: Probe) -> None:
    """A turn gets an answer that holds text or audio."""
    probe.require_answers()
    async with probe.open() as live:
        turn = await live.ask()

        if not turn.output:
            raise LawBroken(f"The answer held neither text nor audio. What came: {live.seen()}.")


@law("responses", into=LAWS, declared=("synthesis",), essential=True)
async def answer_is_spoken(probe: Probe) -> None:
    """Where speech is declared, an answer holds audio."""
    probe.require_answers()
    modalities = probe.config.get("modalities")
    if modalities is not None and "audio" not in modalities:
        raise LawSkipped(Skip.UNDECLARED, "the configuration asks for text alone")
    async with probe.open() as live:
        turn = await live.ask()

        if not turn.of(EventType.AUDIO_OUTPUT_CHUNK):
            raise LawBroken(f"synthesis is declared and the answer held no audio. What came: {live.seen()}.")


@law("responses", into=LAWS)
async def event_fields_have_their_types(probe: Probe) -> None:
    """Fields of events have the types of the table of events, and the ones without which an event says nothing."""
    async with probe.open() as live:
        if probe.answers:
            await live.ask()
        for event in live.events:
            _check_fields(event)


def _check_fields(event: Event) -> None:
    for name, kinds in _TYPES.get(event.type, {}).items():
        value: Any = event.data.get(name)
        if value is None:
            if _NEEDED.get(event.type) == name:
                raise LawBroken(f"{event.type.name} has no {name!r}.")
            continue
        is_bool = isinstance(value, bool) and bool not in kinds
        if is_bool or not isinstance(value, kinds):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise LawBroken(f"{event.type.name}.{name} is a {type(value).__name__}; it is a {wanted}.")


@law("responses", into=LAWS)
async def output_audio_is_whole_frames(probe: Probe) -> None:
    """Audio comes as whole frames of PCM16 in a declared format, and no chunk is empty."""
    probe.require_answers()
    async with probe.open() as live:
        turn = await live.ask()
        chunks = turn.of(EventType.AUDIO_OUTPUT_CHUNK)
        if not chunks:
            raise LawSkipped(Skip.UNDECLARED, "the answer held no audio")
        declared = probe.capabilities.output_formats
        for event in chunks:
            form = AudioFormat(event.data.get("sample_rate") or 24_000, event.data.get("channels") or 1)
            n_bytes = len(event.data["audio_data"])
            if n_bytes == 0 or n_bytes % form.frame_bytes:
                raise LawBroken(
                    f"A chunk of {n_bytes} bytes is no whole number of frames ({form.describe()})."
                )
            if declared and form not in {AudioFormat(item.sample_rate, item.channels) for item in declared}:
                raise LawBroken(f"A chunk is {form.describe()}, which output_formats does not name.")


@law("responses", into=LAWS, declared=_BOUNDARIES, essential=True)
async def response_starts_before_its_output(probe: Probe) -> None:
    """RESPONSE_STARTED comes once, before any output of the response."""
    async with _every_turn(probe) as events:
        started: list[object] = []
        for event in events:
            response_id = event.data.get("response_id")
            if event.type is EventType.RESPONSE_STARTED:
                if response_id in started:
                    raise LawBroken("RESPONSE_STARTED came twice for one response.")
                started.append(response_id)
            elif event.type in (*OUTPUT, *ENDINGS) and (
                not started or (response_id and response_id not in started)
            ):
                raise LawBroken(f"{event.type.name} came before RESPONSE_STARTED.")


@law("responses", into=LAWS, declared=_BOUNDARIES, essential=True)
async def response_ends_exactly_once(probe: Probe) -> None:
    """Each response that started ends with exactly one RESPONSE_COMPLETED or RESPONSE_CANCELLED."""
    async with _every_turn(probe) as events:
        started = [event for event in events if event.type is EventType.RESPONSE_STARTED]
        ended = [event for event in events if event.type in ENDINGS]
        for start in started:
            of_it = start.data.get("response_id")
            n_ends = sum(event.data.get("response_id") == of_it for event in ended)
            if n_ends != 1:
                trigger = start.data.get("trigger")
                which = f"A response (trigger {trigger!r})" if trigger else "A response"
                raise LawBroken(f"{which} ended {n_ends} times.")
        known = {event.data.get("response_id") for event in started}
        stray = [event for event in ended if event.data.get("response_id") not in known]
        if stray and started:
            raise LawBroken(f"{stray[0].type.name} names a response that never started.")


@law("responses", into=LAWS, declared=_BOUNDARIES)
async def no_output_after_the_end(probe: Probe) -> None:
    """After a response has ended, no output of it comes."""
    async with _every_turn(probe) as events:
        ended: set[object] = set()
        for event in events:
            if event.type in ENDINGS:
                ended.add(event.data.get("response_id"))
            elif event.type in OUTPUT and event.data.get("response_id") in ended:
                raise LawBroken(f"{event.type.name} came after the end of its response.")


@law("responses", into=LAWS, declared=_BOUNDARIES)
async def output_names_its_response(probe: Probe) -> None:
    """Every output event carries the response_id of a response that started."""
    async with _every_turn(probe) as events:
        started = {
            event.data.get("response_id") for event in events if event.type is EventType.RESPONSE_STARTED
        }
        for event in events:
            if event.type not in OUTPUT:
                continue
            response_id = event.data.get("response_id")
            if not response_id:
                raise LawBroken(f"{event.type.name} has no response_id.")
            if started and response_id not in started:
                raise LawBroken(f"{event.type.name} names a response that did not start.")


@law("responses", into=LAWS, declared=_BOUNDARIES)
async def responses_have_ids_of_their_own(probe: Probe) -> None:
    """Two answers of one session have different ids."""
    probe.require_answers()
    async with probe.open() as live:
        first = await live.ask()
        second = await live.ask()

        ids = [
            {event.data["response_id"] for event in turn.events if event.data.get("response_id")}
            for turn in (first, second)
        ]
        if ids[0] & ids[1]:
            raise LawBroken("Two answers have the same response_id.")


@law("responses", into=LAWS)
async def text_deltas_add_up(probe: Probe) -> None:
    """``text`` is the whole text so far: each delta continues it, and the final text is all of them."""
    probe.require_answers()
    async with probe.open() as live:
        turn = await live.ask()
        texts: dict[object, str] = {}
        summed: set[object] = set()
        n_parts = 0
        for event in turn.of(EventType.TEXT_OUTPUT):
            data, item = event.data, (event.data.get("response_id"), event.data.get("item_id"))
            if data.get("delta"):
                n_parts += 1
                if data.get("text") != texts.get(item, "") + data["delta"]:
                    raise LawBroken(
                        "text is not the text before and the delta: it holds the whole text so far."
                    )
                texts[item] = data["text"]
                summed.add(item)
            elif data.get("is_partial") is False and item in summed and data.get("text") != texts[item]:
                raise LawBroken("The final text differs from what the deltas add up to.")
            elif item in texts and not str(data.get("text")).startswith(texts[item]):
                raise LawBroken(
                    "text does not begin with the text before of the same item: it holds the whole text so far."
                )
            elif data.get("is_partial") is not False:
                n_parts += item in texts
                texts[item] = str(data.get("text"))
        if not n_parts:
            raise LawSkipped(Skip.UNDECLARED, "the answer came in one part")


@law("responses", into=LAWS)
async def text_of_an_answer_ends_with_a_final_one(probe: Probe) -> None:
    """Text that comes in parts ends with one TEXT_OUTPUT whose is_partial is False, and nothing of it follows."""
    probe.require_answers()
    async with probe.open() as live:
        turn = await live.ask()
        if turn.of(EventType.RESPONSE_CANCELLED):
            raise LawSkipped(Skip.UNDECLARED, "the answer was cut short")
        is_open: dict[object, bool] = {}
        for event in turn.of(EventType.TEXT_OUTPUT):
            item = (event.data.get("response_id"), event.data.get("item_id"))
            # Without an item_id it may be another item.
            if is_open.get(item) is False and item[1] is not None:
                raise LawBroken("More text came after the one that was final.")
            is_open[item] = event.data.get("is_partial") is True
        if not is_open:
            raise LawSkipped(Skip.UNDECLARED, "the answer held no text")
        if any(is_open.values()):
            raise LawBroken("The last text of an answer is partial: who waits for all of it waits for ever.")


@law("responses", into=LAWS, declared=("word_timings",))
async def word_timings_come_with_the_answer(probe: Probe) -> None:
    """An answer with audio brings SPEECH_MARK events whose positions never go back."""
    probe.require_answers()
    async with probe.open() as live:
        turn = await live.ask()
        marks = [event for event in turn.of(EventType.SPEECH_MARK) if event.data.get("kind") == "word"]
        if not marks:
            raise LawBroken("word_timings is declared and no SPEECH_MARK of kind 'word' came.")
        last: dict[object, float] = {}
        for event in marks:
            item, at_ms = event.data.get("item_id"), event.data.get("at_ms")
            if not isinstance(at_ms, int) or at_ms < last.get(item, -math.inf):
                raise LawBroken(f"A SPEECH_MARK is at {at_ms!r} ms, behind the one before it.")
            last[item] = at_ms
