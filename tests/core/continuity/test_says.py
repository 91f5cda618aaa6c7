"""What the agent was told to say is said once, whatever becomes of the session that was asked for it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.continuity.test_reconnect import BUDGET, lose
from tests.core.engine.fakes import calling, caps, kind, turns
from voxengine.capabilities import FULL, UNSUPPORTED
from voxengine.errors import ConnectionLost, ProviderError
from voxengine.events import EventType
from voxengine.says import rest_of
from voxengine.testing import virtual

WORDS = "This call is recorded."


@pytest.mark.parametrize("moment", ["asked", "begun"])
@virtual
async def test_words_that_a_lost_session_did_not_say_are_said_by_the_next(moment: str) -> None:
    async with calling(reconnect=BUDGET) as call:
        await call.engine.say(WORDS)
        if moment == "begun":
            call.provider().starts("r1")
        lose(call.provider())
        await turns()
        said = call.provider().of("speak")
        call.provider().answers(WORDS)
        await call.engine.wait_idle(timeout_s=5)

        assert said == [WORDS]
        assert call.seen.of(EventType.RESPONSE_STARTED)[-1].trigger == "say"
        assert [item.text for item in call.engine.history] == [WORDS]


@pytest.mark.parametrize(
    ("policy", "follows"), [("continue", ["is recorded."]), ("restart", [WORDS]), ("leave", [])]
)
@virtual
async def test_words_that_were_cut_half_way_are_gone_on_with(policy: str, follows: list[str]) -> None:
    async with calling(reconnect={**BUDGET, "cut_reply": policy}) as call:
        await call.engine.say(WORDS)
        call.provider().starts("r1")
        call.provider().writes("This call ")
        call.provider().sounds(600)
        lose(call.provider())
        await turns()

        assert call.provider().of("speak") == follows
        assert call.provider().of("send_text") == []


@virtual
async def test_words_that_were_written_and_not_heard_are_said_whole() -> None:
    async with calling(reconnect=BUDGET) as call:
        await call.engine.say(WORDS)
        call.provider().starts("r1")
        call.provider().writes("This call ")
        lose(call.provider())
        await turns()

        assert call.provider().of("speak") == [WORDS]
        assert [item.context_text for item in call.engine.history] == [""]


@pytest.mark.parametrize("end", ["completes", "cancels", "interrupt"])
@virtual
async def test_words_that_are_done_with_are_not_said_again(end: str) -> None:
    async with calling(reconnect=BUDGET) as call:
        await call.engine.say(WORDS)
        if end == "interrupt":
            await call.engine.interrupt()
        else:
            call.provider().starts("r1")
            call.provider().writes("This call ")
            call.provider().sounds(600)
            data = {"response_id": "r1"}
            kinds = {"completes": EventType.RESPONSE_COMPLETED, "cancels": EventType.RESPONSE_CANCELLED}
            call.provider().emit_event(kinds[end], data)
        lose(call.provider())
        await turns()

        assert call.engine.is_connected
        assert call.provider().of("speak") == []


@virtual
async def test_texts_and_words_keep_their_order() -> None:
    async with calling(reconnect=BUDGET) as call:
        await call.engine.say("First.")
        await call.engine.send_text("Second?")
        await call.engine.say("Third.")
        lose(call.provider())
        await turns()

        asked = [held for held in call.provider().calls if held[0] in ("speak", "send_text")]
        assert [text for _, text in asked] == ["First.", "Second?", "Third."]


async def a_while(*_: Any) -> None:
    await asyncio.sleep(0.2)


@virtual
async def test_words_asked_for_while_older_ones_are_paid_come_behind_them() -> None:
    async with calling(kind(behaviour={"speak": a_while}), reconnect=BUDGET) as call:
        await call.engine.say("First.")
        await call.engine.say("Second.")
        lose(call.provider())
        await turns()
        await call.engine.say("Third.")
        await asyncio.sleep(1)
        asked = call.provider().of("speak")
        call.provider().answers("First.")
        lose(call.provider())
        await asyncio.sleep(1)

        assert asked == ["First.", "Second.", "Third."]
        assert call.provider().of("speak") == ["Second.", "Third."]


@virtual
async def test_text_that_cannot_be_paid_keeps_nothing_else_from_it() -> None:
    async def refuses(_: Any, text: str) -> None:
        if refused and text == "One?":
            raise ProviderError("no", recoverable=False)

    refused: list[str] = []
    async with calling(kind(behaviour={"send_text": refuses}), reconnect=BUDGET) as call:
        await call.engine.send_text("One?")
        await call.engine.say("Two.")
        await call.engine.send_text("Three?")
        refused.append("One?")
        lose(call.provider())
        await turns()

        assert call.provider().of("speak") == ["Two."]
        assert call.provider().of("send_text") == ["One?", "Three?"]
        assert len(call.seen.of(EventType.ERROR_GENERAL)) == 1


@virtual
async def test_interruption_while_debts_are_paid_drops_what_waits() -> None:
    async with calling(kind(behaviour={"speak": a_while}), reconnect=BUDGET) as call:
        await call.engine.say("First.")
        await call.engine.say("Second.")
        await call.engine.send_text("Third?")
        lose(call.provider())
        await turns()
        call.engine.interrupt()
        await asyncio.sleep(1)
        await call.engine.wait_idle(timeout_s=5)

        assert call.provider().of("speak") == ["First."]
        assert call.provider().of("send_text") == []


@pytest.mark.parametrize("reason", ["switch", "rollover"])
@virtual
async def test_words_asked_for_while_the_next_session_opens_are_said_by_it(reason: str) -> None:
    planned = [None, a_while]

    async def connect(*_: Any) -> None:
        what = planned.pop(0) if planned else None
        if what is not None:
            await what()

    one = kind(behaviour={"connect": connect})
    async with calling(one, others={"two": kind(behaviour={"connect": a_while})}) as call:
        if reason == "rollover":
            call.provider().emit_event(EventType.SESSION_EXPIRING, {"deadline_s": 3.0})
            moving = None
        else:
            moving = asyncio.create_task(call.engine.switch_provider("two"))
        await asyncio.sleep(0.1)
        await call.engine.say(WORDS)
        await asyncio.sleep(12)
        if moving is not None:
            await moving

        assert len(call.seen.of(EventType.PROVIDER_SWITCHED)) == 1
        assert call.provider("two" if reason == "switch" else "one").of("speak") == [WORDS]


@virtual
async def test_next_session_that_cannot_speak_a_text_is_told_of() -> None:
    mute = kind(capabilities=caps(speak=UNSUPPORTED))
    async with calling(others={"two": mute}) as call:
        await call.engine.say(WORDS)
        await call.engine.switch_provider("two")
        await call.engine.wait_idle(timeout_s=5)

        (warning,) = [held for held in call.seen.of(EventType.WARNING) if held.data["code"] == "not_said"]
        assert WORDS not in warning.data["message"]


@virtual
async def test_words_that_were_refused_are_the_callers_again() -> None:
    one = kind(behaviour={"speak": OSError("no")}, capabilities=caps(speak=FULL))
    async with calling(one, reconnect=BUDGET) as call:
        with pytest.raises(ProviderError):
            await call.engine.say(WORDS)
        await call.engine.wait_idle(timeout_s=5)
        one.behaviour.clear()
        lose(call.provider())
        await turns()

        assert call.provider().of("speak") == []


@virtual
async def test_words_outlive_a_session_that_nothing_replaces() -> None:
    async with calling(others={"two": kind()}, reconnect={"budget_s": 0}) as call:
        await call.engine.say(WORDS)
        lose(call.provider())
        with pytest.raises(ConnectionLost):
            await call.engine.say("More.")
        await call.engine.switch_provider("two")

        assert call.provider("two").of("speak") == [WORDS]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), st.integers(0, 30))
def test_between_what_was_given_and_its_rest_lies_no_word(text: str, n_given: int) -> None:
    shown = " ".join(text[:n_given].split())

    rest = rest_of(text, text[:n_given])

    whole = " ".join(text.split())
    assert whole.endswith(rest)
    assert not set(whole[len(shown) : len(whole) - len(rest)]) - set(" ,.;:!?…")


def test_what_was_said_in_other_words_is_said_whole() -> None:
    assert rest_of("Good morning, Ada.", "Hello Ada") == "Good morning, Ada."


@pytest.mark.parametrize("policy", ["continue", "restart"])
@virtual
async def test_snapshot_of_words_that_go_on_owes_what_is_not_heard_of_both_halves(policy: str) -> None:
    async with calling(reconnect={**BUDGET, "cut_reply": policy}) as call:
        await call.engine.say(WORDS)
        call.provider().starts("r1")
        call.provider().writes("This call ")
        call.provider().sounds(600)
        lose(call.provider())
        await turns()

        (owed,) = call.engine.snapshot()["says"]

        assert (owed["text"], owed["rest"]) == (WORDS, WORDS)  # Nothing has been played yet.
