"""Silence of a service is a fault where an answer is owed, and nowhere else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.core.continuity.matrix import tone
from tests.core.engine.fakes import RECOGNISER, calling, kind, silence, speak, speech
from voxengine.errors import ErrorCode
from voxengine.events import EventType
from voxengine.testing import virtual

SHORT = {"first_output_s": 4, "progress_s": 2}


def lost(call: Any) -> list[Any]:
    events: list[Any] = call.seen.of(EventType.CONNECTION_LOST)
    return events


@virtual
async def test_text_that_nobody_answers_ends_the_session_and_says_what_did_not_come() -> None:
    async with calling(deadlines=SHORT) as call:
        await call.engine.send_text("Hello?")
        await asyncio.sleep(3.9)
        assert lost(call) == []
        await asyncio.sleep(0.2)

        (event,) = lost(call)
        assert event.error.code == ErrorCode.TIMEOUT
        assert event.error.recoverable
        assert "did not come within 4 s" in str(event.error)
        assert "first_output_s" in str(event.error)


@virtual
async def test_end_of_a_turn_arms_the_deadline() -> None:
    async with calling(deadlines=SHORT, turn_detection="manual") as call:
        await speak(call.engine, speech(200))
        await asyncio.sleep(10)
        assert lost(call) == []
        await call.engine.end_turn()
        await asyncio.sleep(5)

        assert len(lost(call)) == 1


@virtual
async def test_end_of_a_turn_that_the_vendor_heard_arms_it_too() -> None:
    async with calling(deadlines=SHORT) as call:
        await speak(call.engine, speech(200), paced=True)
        call.provider().hears(0, 200)
        await call.engine.end_turn()
        await asyncio.sleep(5)

        assert len(lost(call)) == 1


@virtual
async def test_end_of_a_turn_that_the_vendor_never_heard_arms_it_too() -> None:
    async with calling(deadlines=SHORT) as call:
        await speak(call.engine, tone(600, 1), paced=True)
        await call.engine.end_turn()
        await asyncio.sleep(5)

        assert "the answer that was asked for" in str(lost(call)[0].error)


@virtual
async def test_end_of_a_turn_without_speech_arms_nothing() -> None:
    async with calling(deadlines=SHORT) as call:
        await speak(call.engine, silence(600), paced=True)
        await call.engine.end_turn()
        await asyncio.sleep(60)

        assert lost(call) == []


@virtual
async def test_a_voice_alone_arms_nothing() -> None:
    async with calling(deadlines=SHORT) as call:
        await speak(call.engine, speech(400), paced=True)
        call.provider().hears(0, 400)
        await asyncio.sleep(60)

        assert lost(call) == []


@virtual
async def test_answer_that_begins_and_says_nothing_is_a_fault() -> None:
    async with calling(deadlines=SHORT) as call:
        call.provider().starts()
        await asyncio.sleep(5)

        assert "the first output of the answer" in str(lost(call)[0].error)


@virtual
async def test_answer_that_stops_in_the_middle_is_a_fault() -> None:
    async with calling(deadlines=SHORT) as call:
        await call.engine.send_text("Tell me")
        one = call.provider()
        one.starts()
        for n in range(20):
            one.sounds(500)
            one.writes(f"word {n}")
            await asyncio.sleep(1)
        assert lost(call) == []
        await asyncio.sleep(3)

        assert "progress_s" in str(lost(call)[0].error)


@virtual
async def test_whole_answer_disarms_it() -> None:
    async with calling(deadlines=SHORT) as call:
        await call.engine.send_text("Hello")
        call.provider().answers("Hi.", ms=9000)
        await asyncio.sleep(60)

        assert lost(call) == []


@virtual
async def test_interruption_disarms_it() -> None:
    async with calling(deadlines=SHORT) as call:
        await call.engine.send_text("Hello")
        call.engine.interrupt()
        await asyncio.sleep(60)

        assert lost(call) == []


@virtual
async def test_tool_that_runs_suspends_it_and_its_result_arms_it() -> None:
    async def slow() -> str:
        await asyncio.sleep(20)
        return "done"

    async with calling(deadlines=SHORT, tools=[slow]) as call:
        await call.engine.send_text("Do it")
        call.provider().starts()
        call.provider().asks_for("slow")
        call.provider().completes()
        await asyncio.sleep(23)
        assert lost(call) == []
        await asyncio.sleep(2)

        assert len(lost(call)) == 1


@virtual
async def test_user_who_speaks_suspends_it() -> None:
    async with calling(deadlines=SHORT) as call:
        await call.engine.send_text("Hello")
        call.provider().hears(0)
        await asyncio.sleep(30)

        assert lost(call) == []


@virtual
async def test_recogniser_owes_no_answer() -> None:
    async with calling(kind(capabilities=RECOGNISER), deadlines=SHORT) as call:
        await call.engine.send_text("Hello")
        await asyncio.sleep(30)

        assert lost(call) == []


@virtual
async def test_two_requests_with_one_answer_are_no_fault() -> None:
    async with calling(deadlines=SHORT) as call:
        await call.engine.send_text("One")
        await call.engine.send_text("Two")
        call.provider().answers("Both.")
        await asyncio.sleep(30)

        assert lost(call) == []


@pytest.mark.parametrize("n_stalls", [1, 50])
@virtual
async def test_silent_session_is_replaced_and_a_silent_service_is_given_up(n_stalls: int) -> None:
    async with calling(deadlines=SHORT, reconnect={"budget_s": 10}) as call:
        await call.engine.send_text("Hello?")
        for _ in range(60):
            await asyncio.sleep(1)
            if len(call.kinds["one"].made) > n_stalls:
                call.provider().answers("Here.")
                break

        assert call.engine.is_connected == (n_stalls == 1)
        assert call.provider().of("send_text") == ["Hello?"]
        assert len(call.kinds["one"].made) < 6
        assert {len(ends) for ends in call.seen.session_endings().values()} == {1}
