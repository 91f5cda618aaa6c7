"""The agent's answers: boundaries, ids, interruption, what was heard."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.core.engine.fakes import (
    FULLY,
    RECOGNISER,
    Document,
    Puppet,
    Seen,
    calling,
    caps,
    kind,
    silence,
    speak,
    speech,
    turns,
)
from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.capabilities import UNSUPPORTED
from voxengine.errors import UsageError
from voxengine.events import EventType
from voxengine.testing import virtual

OUTPUTS = (
    EventType.RESPONSE_STARTED,
    EventType.TEXT_OUTPUT,
    EventType.AUDIO_OUTPUT_CHUNK,
    EventType.AUDIO_OUTPUT_STARTED,
    EventType.AUDIO_OUTPUT_STOPPED,
    EventType.RESPONSE_COMPLETED,
    EventType.RESPONSE_CANCELLED,
    EventType.INTERRUPTED,
    EventType.SPEECH_MARK,
    EventType.FUNCTION_CALL_INVOKED,
)


@virtual
async def test_every_output_carries_the_response_it_belongs_to() -> None:
    async with calling() as call:
        one = call.provider()
        one.starts("r1")
        one.writes("He", "r1", "i1", text_kind="speech")
        one.emit_event(EventType.TEXT_OUTPUT, {"delta": "llo", "is_partial": True, "item_id": "i1"})
        one.sounds(100, "r1", "i1")
        one.emit_event(EventType.SPEECH_MARK, {"kind": "word", "value": "Hello", "at_ms": 0, "item_id": "i1"})
        one.asks_for("nothing", "c1", "r1")
        one.completes("r1")
        await asyncio.sleep(1)

        outputs = call.seen.of(*OUTPUTS)
        assert {event.data["response_id"] for event in outputs} == {"r1"}
        texts = call.seen.of(EventType.TEXT_OUTPUT)
        assert [(t.text, t.delta) for t in texts] == [("He", "He"), ("Hello", "llo")]
        assert texts[0].data["text_kind"] == "speech"
        assert len({event.item_id for event in (*texts, *call.seen.of(EventType.AUDIO_OUTPUT_CHUNK))}) == 1
        assert call.seen.endings() == {"r1": 1}


@virtual
async def test_provider_of_the_guide_gets_boundaries_from_the_engine() -> None:
    async with calling(kind(Document)) as call:
        one = call.provider()
        await call.engine.send_text("Hi")
        one.writes("Hello")
        one.sounds(200)
        await asyncio.sleep(0.45)
        one.sounds(200)
        await asyncio.sleep(0.6)
        one.writes("One more thing")
        await call.engine.send_text("Yes?")
        one.writes("Never mind")
        await asyncio.sleep(1)

        starts = call.seen.of(EventType.RESPONSE_STARTED)
        assert [event.trigger for event in starts] == ["text", "server", "text"]
        assert set(call.seen.endings().values()) == {1}
        assert {event.status for event in call.seen.of(EventType.RESPONSE_COMPLETED)} == {"inferred"}


@virtual
async def test_chunk_of_the_user_ends_no_inferred_response() -> None:
    async with calling(kind(Document)) as call:
        call.provider().writes("Hello")
        await speak(call.engine, silence(200))

        assert call.seen.of(EventType.RESPONSE_COMPLETED) == []
        await speak(call.engine, speech(200))
        assert len(call.seen.of(EventType.RESPONSE_COMPLETED)) == 1


@virtual
async def test_late_output_of_a_cut_response_is_refused_until_its_end() -> None:
    async with calling() as call:
        one = call.provider()
        one.starts("r1")
        one.sounds(1000)
        await asyncio.sleep(0.3)
        call.engine.interrupt()
        await asyncio.sleep(5)

        one.sounds(500)
        one.writes("late")
        one.asks_for("late")
        one.completes("r1")
        one.answers("next", "r2", "i2")

        assert [event.text for event in call.seen.of(EventType.TEXT_OUTPUT)] == ["next"]
        assert len(call.seen.audio()) == len(silence(1000))
        assert call.seen.endings() == {"r1": 1, "r2": 1}
        assert call.engine.metrics.dropped_outputs == 3
        assert call.seen.of(EventType.FUNCTION_CALL_INVOKED) == []


@virtual
async def test_late_output_without_ids_is_refused_until_the_end_too() -> None:
    async with calling() as call:
        one = call.provider()
        one.starts(None)
        one.sounds(1000, None, None)
        call.engine.interrupt()

        one.sounds(500, None, None)
        one.completes(None)
        one.starts(None)
        one.sounds(100, None, None)
        one.completes(None)

        assert len(call.seen.audio()) == len(silence(1100))
        assert set(call.seen.endings().values()) == {1}
        assert len(call.seen.endings()) == 2


@pytest.mark.parametrize("by", ["input", "gap"])
@virtual
async def test_guide_provider_is_refused_until_input_or_a_gap(by: str) -> None:
    async with calling(kind(Document)) as call:
        one = call.provider()
        one.sounds(1000)
        call.engine.interrupt()
        for _ in range(3):
            await asyncio.sleep(0.3)
            one.sounds(100)
        assert len(call.seen.audio()) == len(silence(1000))
        assert one.interrupts == 1

        if by == "input":
            await call.engine.send_text("And now?")
        else:
            await asyncio.sleep(0.6)
        one.sounds(100)

        assert len(call.seen.audio()) == len(silence(1100))


@virtual
async def test_interruption_of_an_answer_that_ends_by_itself_does_not_hit_the_next() -> None:
    async with calling() as call:
        one = call.provider()
        one.starts("r1")
        one.emit_event(EventType.SPEECH_STARTED, {"at_ms": 0})
        one.emit_event(EventType.RESPONSE_CANCELLED, {"response_id": "r1", "reason": "interrupted"})
        one.starts("r2")
        await turns()
        assert one.of("interrupt") == []

        one.emit_event(EventType.SPEECH_ENDED, {"at_ms": 400})
        one.emit_event(EventType.SPEECH_STARTED, {"at_ms": 500})
        await turns()

        assert one.of("interrupt") == [None]


@virtual
async def test_interrupt_is_silence_before_it_returns() -> None:
    async with calling() as call:
        one = call.provider()
        one.starts()
        one.writes("One two three four five six seven eight", is_partial=False)
        one.sounds(2000)
        await asyncio.sleep(0.75)

        interruption = call.engine.interrupt()

        assert interruption.heard is not None
        assert interruption.heard.item_played_ms == 750
        assert interruption.heard.session_played_ms == 750
        assert interruption.heard.response_id == "r1"
        stopped = call.seen.one(EventType.AUDIO_OUTPUT_STOPPED)
        assert stopped.played_ms == 750
        assert one.of("interrupt") == []
        assert await interruption == interruption.heard
        (told,) = one.of("interrupt")
        assert (told.response_id, told.item_id, told.item_played_ms) == ("r1", "i1", 750)
        await asyncio.sleep(5)
        assert len(call.seen.of(EventType.AUDIO_OUTPUT_STOPPED)) == 1
        cancelled = call.seen.one(EventType.RESPONSE_CANCELLED)
        assert (cancelled.reason, cancelled.heard_ms, cancelled.heard_is_estimated) == (
            "interrupted",
            750,
            True,
        )
        assert "One".startswith(cancelled.heard_text[:3])
        assert cancelled.heard_text != "One two three four five six seven eight"
        assert call.seen.one(EventType.INTERRUPTED).heard_ms == 750


@virtual
async def test_marks_say_exactly_which_words_were_heard() -> None:
    async with calling() as call:
        one = call.provider()
        one.starts()
        one.writes("One two three four", is_partial=False)
        for n, word in enumerate(("One", "two", "three", "four")):
            data = {"kind": "word", "value": word, "at_ms": n * 400, "response_id": "r1", "item_id": "i1"}
            one.emit_event(EventType.SPEECH_MARK, data)
        one.sounds(1600)
        one.completes()
        await asyncio.sleep(1)

        call.engine.interrupt()

        (item,) = call.engine.history
        assert (item.heard_text, item.heard_is_estimated, item.heard_ms) == ("One two", False, 1000)
        assert item.status == "incomplete"


@virtual
async def test_interrupt_after_the_answer_is_complete_cuts_what_still_plays() -> None:
    async with calling() as call:
        call.provider().answers("A long answer it is", ms=2000)
        await asyncio.sleep(1)

        heard = call.engine.interrupt().heard

        assert heard is not None
        assert heard.item_played_ms == 1000
        assert call.seen.endings() == {"r1": 1}
        assert call.seen.of(EventType.RESPONSE_CANCELLED) == []
        assert call.engine.history.items[0].heard_ms == 1000


@virtual
async def test_interrupt_when_nothing_is_under_way_does_nothing() -> None:
    async with calling() as call:
        call.provider().answers("Done.", ms=100)
        await asyncio.sleep(1)

        interruption = call.engine.interrupt()

        assert interruption.heard is None
        assert await interruption is None
        assert call.provider().of("interrupt") == []
        assert call.seen.of(EventType.INTERRUPTED) == []


@virtual
async def test_two_queued_items_are_cut_each_at_what_was_heard_of_it() -> None:
    async with calling() as call:
        one = call.provider()
        one.answers("First answer here", "r1", "i1", ms=1000)
        one.answers("Second answer here", "r2", "i2", ms=1000)
        one.answers("Third answer here", "r3", "i3", ms=1000)
        await asyncio.sleep(1.5)

        heard = call.engine.interrupt().heard

        first, second, third = call.engine.history
        assert heard is not None
        assert (heard.item_id, heard.item_played_ms, heard.session_played_ms) == (second.id, 500, 1500)
        assert first.heard_text is None
        assert (second.heard_ms, third.heard_ms) == (500, 0)
        assert third.heard_text == ""
        again = [(item.heard_ms, item.heard_text) for item in call.engine.history]
        one.answers("Fourth", "r4", "i4", ms=1000)
        await asyncio.sleep(0.1)
        call.engine.interrupt()
        assert [(item.heard_ms, item.heard_text) for item in call.engine.history][:3] == again


@virtual
async def test_answer_to_an_interrupted_request_is_refused_and_the_next_is_not() -> None:
    async with calling() as call:
        one = call.provider()
        await call.engine.send_text("Tell me a story")
        interruption = call.engine.interrupt()
        one.starts("r1")
        one.writes("Once upon", "r1")
        one.completes("r1")
        await turns()

        assert interruption.heard is None
        assert len(one.of("interrupt")) == 2  # The request, and the answer that came all the same.
        assert call.seen.of(*OUTPUTS) == []
        await call.engine.wait_idle(timeout_s=5)
        await call.engine.send_text("Rather not")
        one.answers("Fine.", "r2", "i2")
        assert [event.text for event in call.seen.of(EventType.TEXT_OUTPUT)] == ["Fine."]


@pytest.mark.parametrize("error", [RuntimeError("no"), OSError("net"), TimeoutError()])
@virtual
async def test_failed_interrupt_is_an_event_and_no_exception(error: Exception) -> None:
    async with calling(kind(behaviour={"interrupt": error})) as call:
        call.provider().starts()
        call.provider().sounds(1000)

        heard = await call.engine.interrupt()

        assert heard is not None
        errors = [event for event in call.seen.events if event.type.startswith("error_")]
        assert len(errors) == 1
        assert call.engine.is_connected


@virtual
async def test_provider_without_cancel_is_silenced_and_not_asked() -> None:
    cls = kind(capabilities=caps(cancel=UNSUPPORTED))
    async with calling(cls) as call:
        call.provider().starts()
        call.provider().sounds(1000)
        await call.engine.interrupt()

        assert call.provider().of("interrupt") == []
        assert len(call.seen.of(EventType.AUDIO_OUTPUT_STOPPED)) == 1


@pytest.mark.parametrize("who", ["server", "client", "inferred"])
@virtual
async def test_barge_in_cuts_at_what_was_heard(who: str) -> None:
    cls: Any = kind(capabilities=caps(response_boundaries=UNSUPPORTED)) if who == "inferred" else kind()
    async with calling(cls, turn_detection="client" if who == "client" else "server") as call:
        one = call.provider()
        if who != "inferred":
            one.starts("r1")
        one.sounds(3000)
        await asyncio.sleep(1)
        if who == "server":
            await speak(call.engine, speech(200))
            one.hears(0)
        else:
            await speak(call.engine, speech(200))
        await turns()

        assert call.seen.of(EventType.SPEECH_STARTED)[0].source == who
        interrupted = call.seen.one(EventType.INTERRUPTED)
        assert (interrupted.heard_ms, interrupted.data["reason"]) == (1000, "barge_in")
        assert one.of("interrupt")[0].item_played_ms == 1000
        assert set(call.seen.endings().values()) == {1}


@virtual
async def test_barge_in_can_be_switched_off() -> None:
    async with calling(interruption="off") as call:
        one = call.provider()
        one.starts()
        one.sounds(3000)
        one.completes()
        await speak(call.engine, speech(200))
        one.hears(0, 200)
        await asyncio.sleep(4)

        assert call.seen.of(EventType.INTERRUPTED) == []
        assert call.seen.one(EventType.AUDIO_OUTPUT_STOPPED).played_ms == 3000


@virtual
async def test_vendor_that_stops_by_itself_leaves_what_came_to_play() -> None:
    async with calling() as call:
        one = call.provider()
        one.starts()
        one.sounds(1000)
        one.emit_event(EventType.RESPONSE_CANCELLED, {"response_id": "r1", "reason": "content_filter"})
        await asyncio.sleep(2)

        assert call.seen.one(EventType.RESPONSE_CANCELLED).reason == "content_filter"
        assert call.seen.one(EventType.AUDIO_OUTPUT_STOPPED).played_ms == 1000
        assert call.engine.history.items[0].status == "incomplete"


@virtual
async def test_response_announced_twice_is_one_and_one_that_never_ended_ends() -> None:
    async with calling() as call:
        one = call.provider()
        one.starts("r1")
        one.starts("r1")
        one.completes("r1")
        one.completes("r1")
        one.starts("r2")
        one.starts("r3")
    assert call.seen.endings() == {"r1": 1, "r2": 1, "r3": 1}


@virtual
async def test_failed_response_is_no_whole_item() -> None:
    async with calling() as call:
        one = call.provider()
        one.starts()
        one.writes("I am sor")
        one.completes(status="failed")

        assert call.seen.one(EventType.RESPONSE_COMPLETED).status == "failed"
        assert call.engine.history.items[0].status == "incomplete"


@virtual
async def test_disconnect_files_what_was_heard_and_ends_every_response() -> None:
    async with calling() as call:
        one = call.provider()
        one.starts()
        one.writes("One two three four five six seven eight nine ten")
        one.sounds(3000)
        await asyncio.sleep(0.5)
    assert call.seen.one(EventType.RESPONSE_CANCELLED).reason == "disconnect"
    assert call.seen.one(EventType.RESPONSE_CANCELLED).heard_ms == 500
    (item,) = call.engine.history
    assert item.heard_ms == 500
    assert item.heard_text is not None
    assert len(item.heard_text) < len(item.text)
    types = call.seen.types()
    assert types.index("audio_output_stopped") < types.index("connection_closed")


@virtual
async def test_loss_ends_the_response_and_what_came_still_plays() -> None:
    async with calling() as call:
        one = call.provider()
        one.starts()
        one.sounds(1000)
        one.is_connected = False
        await asyncio.sleep(2)

        assert call.seen.one(EventType.RESPONSE_CANCELLED).reason == "lost"
        assert call.seen.one(EventType.AUDIO_OUTPUT_STOPPED).played_ms == 1000


@virtual
async def test_words_of_a_recogniser_are_the_users() -> None:
    async with calling(kind(capabilities=RECOGNISER)) as call:
        one = call.provider()
        one.emit_event(EventType.TEXT_OUTPUT, {"text": "hello", "is_partial": True})
        one.emit_event(EventType.TEXT_OUTPUT, {"text": "hello there", "is_partial": False, "confidence": 0.9})
        one.emit_event(EventType.TEXT_OUTPUT, {"text": "again", "is_partial": False})

        assert [(item.role, item.text) for item in call.engine.history] == [
            ("user", "hello there"),
            ("user", "again"),
        ]
        assert [event.text for event in call.seen.of(EventType.TEXT_OUTPUT)] == [
            "hello",
            "hello there",
            "again",
        ]
        assert call.seen.of(EventType.TEXT_OUTPUT)[1].data["confidence"] == 0.9
        assert call.seen.of(EventType.RESPONSE_STARTED) == []


@virtual
async def test_text_of_a_synthesis_is_the_agents_beside_what_is_recognised() -> None:
    async with calling(kind(capabilities=RECOGNISER)) as call:
        one = call.provider()
        one.answers("Good morning.", ms=100)
        one.emit_event(EventType.TEXT_OUTPUT, {"text": "hello", "is_partial": False})
        one.emit_event(
            EventType.TEXT_OUTPUT, {"text": "of its own", "is_partial": False, "response_id": "unknown"}
        )

        assert [(item.role, item.text) for item in call.engine.history] == [
            ("agent", "Good morning."),
            ("user", "hello"),
            ("user", "of its own"),
        ]


@virtual
async def test_text_for_a_service_without_dialogue_is_said_and_is_no_turn_of_the_user() -> None:
    async with calling(kind(capabilities=RECOGNISER)) as call:
        one = call.provider()
        await call.engine.send_text("Good morning.")
        one.starts(trigger="say")
        one.writes("Good morning.", is_partial=False)
        one.completes()

        assert (one.of("speak"), one.of("send_text")) == (["Good morning."], [])
        assert [(item.role, item.text) for item in call.engine.history] == [("agent", "Good morning.")]


@virtual
async def test_external_sink_is_the_clock() -> None:
    async with calling(playback="external") as call:
        one = call.provider()
        one.starts()
        one.writes("One two three four")
        one.sounds(1000)
        chunk = call.seen.one(EventType.AUDIO_OUTPUT_CHUNK)
        await asyncio.sleep(9)
        call.engine.mark_played(chunk.item_id, 250)

        heard = call.engine.interrupt().heard

        assert call.engine.session is not None
        assert call.engine.session.settings["playback"] == "external"
        assert heard is not None
        assert heard.item_played_ms == 250
        call.engine.playback_cleared()
        with pytest.raises(UsageError, match="item_id of AUDIO_OUTPUT_CHUNK"):
            call.engine.mark_played("nothing", 1)
        for wrong in (-1, True, 1.5, None):
            with pytest.raises(UsageError, match="played_ms"):
                call.engine.mark_played(chunk.item_id, wrong)  # type: ignore[arg-type]


@virtual
async def test_external_reports_are_for_the_external_clock_alone() -> None:
    async with calling() as call:
        with pytest.raises(UsageError, match="playback='external'"):
            call.engine.mark_played("x", 1)
        with pytest.raises(UsageError, match="playback='external'"):
            call.engine.playback_cleared()


@virtual
async def test_handler_may_interrupt_in_the_middle_of_delivery() -> None:
    async with calling() as call:
        call.engine.events.on(EventType.AUDIO_OUTPUT_CHUNK, lambda event: call.engine.interrupt())
        one = call.provider()
        one.starts()
        one.sounds(1000)
        one.sounds(1000)
        one.completes()
        await asyncio.sleep(3)

        assert len(call.seen.audio()) == len(silence(1000))
        assert call.seen.endings() == {"r1": 1}


@virtual
async def test_item_that_the_application_deleted_stays_away_and_disturbs_nothing() -> None:
    async with calling() as call:
        one = call.provider()
        one.starts()
        one.writes("Secret", is_partial=True)
        call.engine.history.delete(call.engine.history.items[0].id)
        one.writes("Secret plan", is_partial=False)
        one.sounds(1000)
        call.engine.interrupt()
        one.completes()

        assert len(call.engine.history) == 0
        assert call.seen.of(EventType.ERROR_GENERAL) == []


@virtual
async def test_long_text_conversation_holds_no_items_of_the_past() -> None:
    async with calling() as call:
        for n in range(200):
            await call.engine.send_text("More")
            call.provider().answers("More", f"r{n}", f"i{n}")

        held = call.engine._conversation.agent._items
        assert len(held) <= 2


@virtual
async def test_floor_passes_from_one_to_the_other() -> None:
    async with calling() as call:
        await call.engine.send_text("Hi")
        call.provider().answers("Hello.", "r1", "i1")
        await call.engine.send_text("Bye")

        changes = [(e.from_role, e.to_role) for e in call.seen.of(EventType.TURN_CHANGED)]
        assert changes == [("", "user"), ("user", "agent"), ("agent", "user")]


@virtual
async def test_engine_events_that_a_provider_emits_are_not_passed_on() -> None:
    async with calling() as call:
        for event_type in (EventType.INTERRUPTED, EventType.TURN_CHANGED, EventType.PROVIDER_SWITCHED):
            call.provider().emit_event(event_type, {})

        assert call.seen.of(EventType.INTERRUPTED, EventType.TURN_CHANGED, EventType.PROVIDER_SWITCHED) == []


def test_fakes_are_as_they_say() -> None:
    engine = VoiceEngine(VoiceEngineConfig(provider="one"))

    assert Seen(engine).events == []
    assert FULLY.response_boundaries
    assert issubclass(kind(), Puppet)


@virtual
async def test_what_was_heard_stays_so_at_later_interruptions() -> None:
    async with calling() as call:
        one = call.provider()
        one.starts()
        one.writes("One two three four five six seven eight nine ten eleven twelve thirteen fourteen")
        one.sounds(1000)
        await asyncio.sleep(0.9)
        call.engine.interrupt()
        (cut,) = call.engine.history
        one.completes()
        one.starts("r2")
        one.sounds(1000, "r2", "i2")
        await asyncio.sleep(0.1)
        call.engine.interrupt()

        assert call.engine.history.get(cut.id) == cut
