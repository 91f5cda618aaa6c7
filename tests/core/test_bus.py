"""Delivery of events: one order, isolated handlers, bounded queues, and nothing lost unseen."""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxengine.bus import AUDIO_EVENTS, HISTORY_LIMIT, PENDING_LIMIT, EventBus
from voxengine.errors import UsageError
from voxengine.events import Event, EventType
from voxengine.testing import virtual

TEXT, AUDIO, WARNING = EventType.TEXT_OUTPUT, EventType.AUDIO_OUTPUT_CHUNK, EventType.WARNING


def bus(**limits: Any) -> EventBus:
    return EventBus(lambda: 0.0, **{"slow_handler_s": 60.0, **limits})


def say(target: EventBus, *texts: str) -> None:
    for text in texts:
        target.emit(TEXT, {"text": text})


def play(target: EventBus, *chunks: bytes) -> None:
    for chunk in chunks:
        target.emit(AUDIO, {"audio_data": chunk})


def content(event: Event) -> Any:
    return event.data.get("text") or event.data.get("audio_data") or event.type


async def settle() -> None:
    """Let coroutine handlers run until they wait for something else."""
    for _ in range(20):
        await asyncio.sleep(0)


# --- Who hears what --------------------------------------------------------------------------------


def test_handler_hears_its_type_and_no_other() -> None:
    events = bus()
    heard: list[Any] = []
    events.on(TEXT, heard.append)

    say(events, "a")
    events.emit(WARNING, {"code": "x"})

    assert [content(event) for event in heard] == ["a"]


@pytest.mark.parametrize("kind", [TEXT, "text_output"])
def test_type_is_given_as_member_or_as_word(kind: EventType | str) -> None:
    events = bus()
    heard: list[Any] = []
    events.on(kind, heard.append)

    say(events, "a")

    assert len(heard) == 1


def test_star_hears_all() -> None:
    events = bus()
    heard: list[Any] = []
    events.on("*", heard.append)

    for event_type in EventType:
        events.emit(event_type, {})

    assert [event.type for event in heard] == list(EventType)


def test_event_carries_the_header_that_it_was_emitted_with() -> None:
    events = EventBus(lambda: 7.0)
    heard: list[Any] = []
    events.on(TEXT, heard.append)

    events.emit(TEXT, {"text": "a"}, provider="acme", session_epoch=3)
    events.emit(TEXT, {}, timestamp=1.5)

    assert (heard[0].timestamp, heard[0].provider, heard[0].session_epoch) == (7.0, "acme", 3)
    assert heard[1].timestamp == 1.5


def test_decorator_registers_and_leaves_the_function_alone() -> None:
    events = bus()
    heard: list[Any] = []

    @events.on(TEXT, priority=1)
    def handler(event: Event) -> None:
        heard.append(content(event))

    @events.once(TEXT)
    def first(event: Event) -> None:
        heard.append("once")

    say(events, "a", "b")

    assert heard == ["a", "once", "b"]
    assert handler.__name__ == "handler"


def test_same_event_object_goes_to_all() -> None:
    events = bus()
    heard: list[Any] = []
    events.on(TEXT, heard.append)
    events.on("*", heard.append)

    say(events, "a")

    assert heard[0] is heard[1]


@pytest.mark.parametrize("wrong", ["sunrise", "TEXT_OUTPUT", "", "**"])
def test_unknown_type_is_refused_at_registration(wrong: str) -> None:
    with pytest.raises(UsageError, match="VENDOR_EVENT"):
        bus().on(wrong, print)
    with pytest.raises(UsageError, match="VENDOR_EVENT"):
        bus().stream(wrong)


@pytest.mark.parametrize(
    "wrong",
    [{"priority": None}, {"priority": "high"}, {"priority": float("nan")}, {"priority": True}, {"filter": 5}],
    ids=str,
)
@pytest.mark.parametrize("is_decorator", [False, True])
def test_option_of_a_wrong_type_is_refused_and_nothing_is_registered(
    wrong: dict[str, Any], is_decorator: bool
) -> None:
    target, heard = bus(), []
    target.on(TEXT, lambda event: heard.append(content(event)))

    with pytest.raises(UsageError, match=next(iter(wrong))):
        target.on(TEXT, *([] if is_decorator else [heard.append]), **wrong)

    target.on(TEXT, lambda _: heard.append("later"), priority=-1)
    say(target, "hi")
    assert heard == ["hi", "later"]


@pytest.mark.parametrize("limit", [0, -1, "x", True, 2.5])
def test_limit_of_a_stream_is_a_number_from_one(limit: Any) -> None:
    with pytest.raises(UsageError, match="limit is"):
        bus().stream(TEXT, limit=limit)


def test_handler_that_is_no_function_is_refused() -> None:
    with pytest.raises(UsageError, match="not a str"):
        bus().on(TEXT, "print")  # type: ignore[call-overload]


# --- Order -----------------------------------------------------------------------------------------


@given(st.lists(st.integers(-2, 2), min_size=1, max_size=8))
def test_higher_priority_first_and_equal_ones_in_order_of_registration(priorities: list[int]) -> None:
    events = bus()
    heard: list[Any] = []

    def note(number: int, _: Event) -> None:
        heard.append(number)

    for number, priority in enumerate(priorities):
        events.on(TEXT, functools.partial(note, number), priority=priority)

    say(events, "a")

    assert heard == sorted(range(len(priorities)), key=lambda number: -priorities[number])


def test_emit_during_a_dispatch_queues_behind_it() -> None:
    events = bus()
    order: list[Any] = []

    def first(event: Event) -> None:
        order.append(f"first {content(event)}")
        if content(event) == "a":
            say(events, "b")
            order.append("emitted b")

    events.on(TEXT, first)
    events.on(TEXT, lambda event: order.append(f"second {content(event)}"))

    say(events, "a")

    assert order == ["first a", "emitted b", "second a", "first b", "second b"]


def test_handler_added_or_removed_during_a_dispatch() -> None:
    events = bus()
    heard: list[Any] = []
    late = functools.partial(heard.append)
    removed = events.on(TEXT, lambda event: heard.append("removed"), priority=-1)

    def change(event: Event) -> None:
        events.on(TEXT, late)
        removed.cancel()

    events.on(TEXT, change)
    say(events, "a")

    assert heard == []
    say(events, "b")
    assert [content(event) for event in heard] == ["b"]


@pytest.mark.parametrize("n_answers", [1, 3])
def test_handlers_that_answer_themselves_for_ever_are_stopped(n_answers: int) -> None:
    events = bus()
    errors: list[Any] = []

    def answer(event: Event) -> None:
        for _ in range(n_answers):
            events.emit(WARNING, {})

    events.on(WARNING, answer)
    events.on(EventType.ERROR_GENERAL, errors.append)

    events.emit(WARNING, {})

    assert events.counts[WARNING] == PENDING_LIMIT + 1
    assert len(errors) == 1
    assert "answers its own event" in str(errors[0].error)
    say(events, "a")
    assert events.counts[TEXT] == 1


# --- Filters, once, off ----------------------------------------------------------------------------


def test_filter_chooses_the_events() -> None:
    events = bus()
    heard: list[Any] = []
    events.on(TEXT, lambda event: heard.append(content(event)), filter=lambda event: not event.is_partial)

    events.emit(TEXT, {"text": "a", "is_partial": True})
    events.emit(TEXT, {"text": "b", "is_partial": False})

    assert heard == ["b"]


def test_filter_that_raises_is_isolated() -> None:
    events = bus()
    heard: list[Any] = []
    events.on(TEXT, heard.append, filter=lambda event: bool(1 / 0))
    events.on(TEXT, lambda event: heard.append("other"))

    say(events, "a")

    assert heard == ["other"]
    assert events.counts[EventType.ERROR_GENERAL] == 1


def test_once_waits_for_the_first_matching_event() -> None:
    events = bus()
    heard: list[Any] = []
    subscription = events.once(
        TEXT, lambda event: heard.append(content(event)), filter=lambda e: content(e) != "a"
    )

    say(events, "a", "b", "c")

    assert heard == ["b"]
    assert not subscription.is_active


def test_once_is_over_before_its_handler_causes_the_next() -> None:
    events = bus()
    heard: list[Any] = []

    def handler(event: Event) -> None:
        heard.append(content(event))
        say(events, "b")

    events.once(TEXT, handler)
    say(events, "a")

    assert heard == ["a"]


class Listener:
    def __init__(self) -> None:
        self.heard: list[Event] = []

    def take(self, event: Event) -> None:
        self.heard.append(event)


@pytest.mark.parametrize("way", ["handler", "subscription", "cancel", "method"])
def test_off_by_subscription_by_handler_and_by_bound_method(way: str) -> None:
    events, listener = bus(), Listener()
    handler = listener.take if way == "method" else functools.partial(listener.heard.append)
    subscription = events.on(TEXT, handler)

    say(events, "a")
    if way == "cancel":
        subscription.cancel()
    else:
        # A bound method is a new object each time it is named.
        events.off({"handler": handler, "subscription": subscription, "method": listener.take}[way])
    say(events, "b")

    assert [content(event) for event in listener.heard] == ["a"]
    assert not subscription.is_active


def test_off_ends_every_registration_of_the_handler_and_ignores_unknown_ones() -> None:
    events = bus()
    heard: list[Any] = []
    handler = functools.partial(heard.append)
    events.on(TEXT, handler)
    events.on("*", handler)

    events.off(handler)
    events.off(handler)
    events.off(print)
    say(events, "a")

    assert heard == []


def test_wants_says_whether_anybody_listens() -> None:
    events = bus()

    nobody = events.wants(TEXT)
    subscription = events.on(TEXT, print)
    somebody = events.wants(TEXT), events.wants(AUDIO)
    subscription.cancel()
    after = events.wants(TEXT)
    stream = events.stream(AUDIO)

    assert (nobody, somebody, after) == (False, (True, False), False)
    assert events.wants(AUDIO)
    assert not events.wants(TEXT)
    del stream


# --- History, counts, tap --------------------------------------------------------------------------


def test_history_is_bounded_and_holds_no_audio() -> None:
    events = bus(history_limit=3)

    play(events, b"1", b"2")
    say(events, *"abcde")
    play(events, b"3")

    assert [content(event) for event in events.history] == ["c", "d", "e"]
    assert events.counts == {AUDIO: 3, TEXT: 5}
    assert HISTORY_LIMIT > 0


def test_history_is_a_copy() -> None:
    events = bus()
    say(events, "a")

    events.history.clear()

    assert len(events.history) == 1


def test_tap_changes_and_discards_before_any_delivery() -> None:
    events = bus()
    heard: list[Any] = []
    events.on("*", heard.append)
    events.tap = lambda event: event.replace(text="seen") if event.type is TEXT else None

    say(events, "a")
    events.emit(WARNING, {})

    assert [content(event) for event in heard] == ["seen"]
    assert [content(event) for event in events.history] == ["seen"]
    assert events.counts == {TEXT: 1, WARNING: 1}


# --- Isolation -------------------------------------------------------------------------------------


def test_raising_handler_is_reported_once_and_stays_subscribed(caplog: pytest.LogCaptureFixture) -> None:
    events = bus()
    heard: list[Any] = []
    errors: list[Any] = []
    error = ValueError("what the user said")

    def broken(event: Event) -> None:
        heard.append(content(event))
        raise error

    events.on(TEXT, broken)
    events.on(TEXT, lambda event: heard.append("next"))
    events.on(EventType.ERROR_GENERAL, errors.append)
    say(events, "a", "b")

    assert heard == ["a", "next", "b", "next"]
    assert [(event.error, event.recoverable) for event in errors] == [(error, True)]
    assert "broken" in errors[0].data["handler"]
    assert "ValueError" in caplog.text
    assert "what the user said" not in caplog.text


def test_handler_of_errors_that_raises_ends_in_no_loop(caplog: pytest.LogCaptureFixture) -> None:
    events = bus()
    events.on("*", lambda event: 1 / 0)

    say(events, "a", "b")

    assert events.counts[EventType.ERROR_GENERAL] == 1
    assert len(caplog.records) == 1


def test_exception_that_ends_the_program_is_not_swallowed() -> None:
    events = bus()
    heard: list[Any] = []

    def stop(event: Event) -> None:
        raise KeyboardInterrupt

    subscription = events.on(TEXT, stop)

    with pytest.raises(KeyboardInterrupt):
        say(events, "a")
    subscription.cancel()
    events.on(TEXT, heard.append)
    say(events, "b")
    assert len(heard) == 1


def test_slow_handler_is_reported_once_with_what_to_do() -> None:
    # Every handler takes longer than no time at all.
    events = bus(slow_handler_s=0.0)
    events.on(TEXT, lambda event: None)

    say(events, "a", "b")
    warnings = [event for event in events.history if event.type is WARNING]

    assert [event.code for event in warnings] == ["slow_handler"]
    assert "hand the work to a thread" in warnings[0].message


def test_quick_handler_is_not_reported() -> None:
    events = bus()
    events.on(TEXT, lambda event: None)

    say(events, "a")

    assert WARNING not in events.counts


# --- Coroutine handlers ----------------------------------------------------------------------------


class Slow:
    """A coroutine handler that waits until it is let go."""

    def __init__(self) -> None:
        self.started: list[Any] = []
        self.done: list[Any] = []
        self.gate = asyncio.Event()

    async def __call__(self, event: Event) -> None:
        self.started.append(content(event))
        await self.gate.wait()
        self.done.append(content(event))


async def test_emit_does_not_wait_for_a_coroutine_handler() -> None:
    events, slow = bus(), Slow()
    events.on(TEXT, slow)

    say(events, "a", "b")

    assert slow.started == []
    await settle()
    assert slow.started == ["a"]


async def test_coroutine_handler_gets_its_events_one_after_the_other_in_order() -> None:
    events, slow = bus(), Slow()
    events.on(TEXT, slow)
    say(events, "a", "b", "c")
    await settle()
    started = list(slow.started)

    slow.gate.set()
    await settle()
    say(events, "d")
    await settle()

    assert started == ["a"]
    assert slow.done == ["a", "b", "c", "d"]


async def test_slow_coroutine_handler_holds_up_no_other() -> None:
    events, slow = bus(), Slow()
    heard: list[Any] = []

    async def quick(event: Event) -> None:
        heard.append(content(event))

    events.on(TEXT, slow)
    events.on(TEXT, quick)
    say(events, "a", "b")
    await settle()

    assert heard == ["a", "b"]
    assert slow.started == ["a"]


async def test_raising_coroutine_handler_is_reported_once_and_goes_on() -> None:
    events = bus()
    heard: list[Any] = []

    async def broken(event: Event) -> None:
        heard.append(content(event))
        raise ValueError("x")

    events.on(TEXT, broken)
    say(events, "a", "b")
    await settle()

    assert heard == ["a", "b"]
    assert events.counts[EventType.ERROR_GENERAL] == 1


async def test_full_queue_drops_the_oldest_audio_and_counts_it() -> None:
    events, slow = bus(queue_limit=3), Slow()
    subscription = events.on("*", slow)
    play(events, b"0")
    await settle()  # The first is in the handler's hands.

    play(events, b"1", b"2")
    say(events, "a")
    play(events, b"3")
    say(events, "b")
    slow.gate.set()
    await settle()

    assert slow.done == [b"0", "a", b"3", "b"]
    assert subscription.dropped == 2
    assert subscription.is_active


async def test_audio_that_finds_only_control_events_is_dropped_itself() -> None:
    events, slow = bus(queue_limit=2), Slow()
    subscription = events.on("*", slow)
    say(events, "0")
    await settle()

    say(events, "a", "b")
    play(events, b"1")
    slow.gate.set()
    await settle()

    assert slow.done == ["0", "a", "b"]
    assert subscription.dropped == 1


async def test_control_event_over_the_limit_ends_the_subscription_with_an_error() -> None:
    events, slow = bus(queue_limit=2), Slow()
    errors: list[Any] = []
    events.on(EventType.ERROR_GENERAL, errors.append)
    subscription = events.on(TEXT, slow)
    say(events, "0")
    await settle()

    say(events, "a", "b", "c", "d")
    slow.gate.set()
    await settle()

    assert not subscription.is_active
    assert len(errors) == 1
    assert "2 events behind" in str(errors[0].error)
    assert slow.done == ["0", "a", "b"]


async def test_events_that_were_queued_before_off_are_still_delivered() -> None:
    events, slow = bus(), Slow()
    subscription = events.on(TEXT, slow)
    say(events, "a", "b")

    subscription.cancel()
    say(events, "c")
    slow.gate.set()
    await settle()

    assert slow.done == ["a", "b"]


@given(st.lists(st.booleans(), max_size=20), st.integers(1, 4))
def test_whatever_arrives_control_events_are_delivered_in_order_or_the_subscription_ends(
    kinds: list[bool], limit: int
) -> None:
    async def run() -> tuple[list[Any], list[Any], int, bool]:
        events, slow = bus(queue_limit=limit), Slow()
        subscription = events.on("*", slow, filter=lambda event: event.type in (TEXT, AUDIO))
        given_events: list[Any] = []
        for number, is_text in enumerate(kinds):
            if not subscription.is_active:
                break
            given_events.append(f"t{number}" if is_text else b"%d" % number)
            say(events, f"t{number}") if is_text else play(events, b"%d" % number)
        slow.gate.set()
        await asyncio.sleep(0)
        await events.close()
        return given_events, slow.done, subscription.dropped, subscription.is_active

    emitted, done, n_dropped, is_active = asyncio.run(run())

    refused = [] if is_active else emitted[-1:]
    expected_texts = [item for item in emitted if isinstance(item, str) and item not in refused]
    assert [item for item in done if isinstance(item, str)] == expected_texts
    assert [item for item in emitted if item in done] == done
    assert len(done) + n_dropped + len(refused) == len(emitted)


# --- close -----------------------------------------------------------------------------------------


async def test_close_lets_coroutine_handlers_finish() -> None:
    events = bus()
    heard: list[Any] = []

    async def handler(event: Event) -> None:
        await asyncio.sleep(0)
        heard.append(content(event))

    events.on(TEXT, handler)
    say(events, "a", "b")
    await events.close()

    assert heard == ["a", "b"]


@virtual
async def test_close_stops_a_handler_that_does_not_finish() -> None:
    events, slow = bus(), Slow()
    events.on(TEXT, slow)
    say(events, "a")

    await events.close(drain_s=1.0)

    assert slow.started == ["a"]
    assert slow.done == []
    assert len(asyncio.all_tasks()) == 1


async def test_close_may_be_called_from_a_coroutine_handler() -> None:
    events, closed = bus(), asyncio.Event()

    async def handler(event: Event) -> None:
        await events.close()
        closed.set()

    events.on(TEXT, handler)
    say(events, "a")

    await closed.wait()


# --- Streams ---------------------------------------------------------------------------------------


async def test_stream_gives_its_types_in_order_from_now_on_and_ends_with_the_engine() -> None:
    events = bus()
    say(events, "before")
    stream = events.stream(TEXT, "warning")
    say(events, "a")
    play(events, b"1")
    events.emit(WARNING, {})
    await events.close()

    assert [content(event) async for event in stream] == ["a", WARNING]


@pytest.mark.parametrize("types", [(), ("*",)])
async def test_stream_without_types_or_with_a_star_gives_all(types: tuple[str, ...]) -> None:
    events = bus()
    stream = events.stream(*types)
    say(events, "a")
    play(events, b"1")
    await events.close()

    assert [content(event) async for event in stream] == ["a", b"1"]


async def test_waiting_consumer_is_woken() -> None:
    events = bus()
    stream = events.stream(TEXT)
    waiting = asyncio.create_task(anext(stream))
    await settle()

    say(events, "a")

    assert content(await waiting) == "a"


async def test_cancelled_wait_loses_no_event() -> None:
    events = bus()
    stream = events.stream(TEXT)
    waiting = asyncio.create_task(anext(stream))
    await settle()
    waiting.cancel()
    await asyncio.wait([waiting])

    say(events, "a")

    assert content(await anext(stream)) == "a"


async def test_stream_drops_the_oldest_audio_and_counts_it() -> None:
    events = bus()
    stream = events.stream(limit=2)

    play(events, b"1", b"2", b"3")
    await events.close()

    assert [content(event) async for event in stream] == [b"2", b"3"]
    assert stream.dropped == 1


async def test_overrun_stream_gives_what_it_held_and_then_says_so() -> None:
    events = bus()
    stream = events.stream(TEXT, limit=2)
    heard = []

    say(events, "a", "b", "c", "d")
    with pytest.raises(UsageError, match="2 events behind and has ended"):
        while True:
            heard.append(content(await anext(stream)))

    assert heard == ["a", "b"]
    assert not events.wants(TEXT)


async def test_streams_are_independent() -> None:
    events = bus()
    one, two = events.stream(TEXT, limit=1), events.stream(TEXT)

    say(events, "a", "b")
    await events.close()

    assert [content(event) async for event in two] == ["a", "b"]
    assert content(await anext(one)) == "a"


async def test_closed_stream_ends_and_forgets() -> None:
    events = bus()

    async with events.stream(TEXT) as stream:
        say(events, "a")

    say(events, "b")
    assert [event async for event in stream] == []
    assert not events.wants(TEXT)


async def test_stream_that_nobody_holds_costs_nothing() -> None:
    import gc

    events = bus()
    events.stream(TEXT)
    gc.collect()

    assert not events.wants(TEXT)


async def test_stream_opened_after_the_end_is_empty() -> None:
    events = bus()
    await events.close()

    assert [event async for event in events.stream()] == []


def test_only_events_that_carry_audio_may_be_dropped() -> None:
    assert {EventType.AUDIO_INPUT_CHUNK, EventType.AUDIO_OUTPUT_CHUNK} == AUDIO_EVENTS


async def test_functions_methods_and_partials_may_be_coroutine_functions() -> None:
    heard: list[Any] = []

    async def function(event: Event) -> None:
        heard.append("function")

    class WithMethod:
        async def take(self, event: Event) -> None:
            heard.append("method")

    events, holder = bus(), WithMethod()
    for handler in (function, holder.take, functools.partial(function)):
        events.on(TEXT, handler)
    say(events, "a")
    await settle()

    assert heard == ["function", "method", "function"]


def test_logger_of_the_package_is_the_only_one_used(caplog: pytest.LogCaptureFixture) -> None:
    events = bus()
    events.on(TEXT, lambda event: 1 / 0)

    with caplog.at_level(logging.DEBUG):
        say(events, "a")

    assert {record.name for record in caplog.records} == {"voxengine"}
