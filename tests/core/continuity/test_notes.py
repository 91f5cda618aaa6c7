"""What an agent that takes over is told to go on with comes in its place, and answers nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.core.continuity.test_reconnect import BUDGET, lose
from tests.core.engine.fakes import calling, turns
from voxengine.events import EventType
from voxengine.notes import CONTINUE, USE_RESULT
from voxengine.testing import virtual


def look_up(word: str) -> str:
    """Look a word up."""
    return f"{word}: a bird"


def begin(provider: Any, response_id: str, trigger: str | None = None) -> None:
    """Begin an answer and let it be heard."""
    provider.starts(response_id, **({} if trigger is None else {"trigger": trigger}))
    provider.writes("This ", response_id, f"item of {response_id}")
    provider.sounds(600, response_id, f"item of {response_id}")


def asked(provider: Any) -> list[tuple[str, str]]:
    return [held for held in provider.calls if held[0] in ("send_text", "speak")]


@pytest.mark.parametrize("trigger", ["text", "server", None])
@virtual
async def test_text_behind_an_answer_that_goes_on_is_owed_until_its_own_begins(trigger: str | None) -> None:
    async with calling(reconnect=BUDGET) as call:
        await call.engine.send_text("One?")
        begin(call.provider(), "r1", "text")
        lose(call.provider())
        await turns()
        await call.engine.send_text("Two?")
        begin(call.provider(), "r2", trigger)
        gone_on = call.provider()
        lose(call.provider())
        await asyncio.sleep(2)

        assert gone_on.of("send_text") == [CONTINUE, "Two?"]
        assert call.provider().of("send_text") == ["Two?"]


@pytest.mark.parametrize(
    ("moment", "follows"),
    [("asked", [CONTINUE]), ("begun", [CONTINUE]), ("heard", [CONTINUE]), ("whole", [])],
)
@virtual
async def test_what_did_not_go_on_is_asked_for_again(moment: str, follows: list[str]) -> None:
    async with calling(reconnect=BUDGET) as call:
        await call.engine.send_text("One?")
        begin(call.provider(), "r1", "text")
        lose(call.provider())
        await turns()
        if moment == "begun":
            call.provider().starts("r2", trigger="text")
        elif moment != "asked":
            begin(call.provider(), "r2", "text")
        if moment == "whole":
            call.provider().completes("r2")
        lose(call.provider())
        await asyncio.sleep(2)

        assert call.kinds["one"].made[1].of("send_text") == [CONTINUE]
        assert len(call.kinds["one"].made) == 3
        assert call.provider().of("send_text") == follows


@virtual
async def test_answer_that_goes_on_is_not_the_users_text() -> None:
    async with calling(reconnect=BUDGET) as call:
        await call.engine.send_text("One?")
        begin(call.provider(), "r1", "text")
        lose(call.provider())
        await turns()
        begin(call.provider(), "r2", "text")

        assert [held.trigger for held in call.seen.of(EventType.RESPONSE_STARTED)] == ["text", "server"]


@virtual
async def test_answer_to_a_tool_s_result_leaves_a_later_text_owed() -> None:
    async with calling(reconnect=BUDGET, tools=[look_up]) as call:
        await call.engine.send_text("What is a robin?")
        call.provider().starts("r1", trigger="text")
        call.provider().asks_for("look_up", "c1", "r1", word="robin")
        call.provider().completes("r1")
        await asyncio.sleep(1)
        await call.engine.send_text("And a wren?")
        begin(call.provider(), "r2", "tool")
        lose(call.provider())
        await turns()

        assert call.provider().of("send_text") == ["And a wren?"]


@virtual
async def test_texts_that_each_call_a_tool_are_not_asked_again() -> None:
    async with calling(reconnect=BUDGET, tools=[look_up]) as call:
        await call.engine.send_text("What is a robin?")
        await call.engine.send_text("What is a wren?")
        for n, word in (1, "robin"), (2, "wren"):
            call.provider().starts(f"r{n}", trigger="text")
            call.provider().asks_for("look_up", f"c{n}", f"r{n}", word=word)
            call.provider().completes(f"r{n}")
            await asyncio.sleep(1)
        lose(call.provider())
        await turns()

        assert call.provider().of("send_text") == [USE_RESULT]


@virtual
async def test_calls_of_one_answer_leave_a_later_text_owed() -> None:
    async with calling(reconnect=BUDGET, tools=[look_up]) as call:
        await call.engine.send_text("What are a robin and a wren?")
        await call.engine.send_text("And then?")
        call.provider().starts("r1", trigger="text")
        call.provider().asks_for("look_up", "c1", "r1", word="robin")
        call.provider().asks_for("look_up", "c2", "r1", word="wren")
        call.provider().completes("r1")
        await asyncio.sleep(1)
        lose(call.provider())
        await turns()

        assert call.provider().of("send_text") == ["And then?"]


@virtual
async def test_text_that_is_answered_before_an_earlier_tool_s_result_is_not_asked_again() -> None:
    async with calling(reconnect=BUDGET, tools=[look_up]) as call:
        await call.engine.send_text("What is a robin?")
        call.provider().starts("r1", trigger="text")
        call.provider().asks_for("look_up", "c1", "r1", word="robin")
        call.provider().completes("r1")
        await asyncio.sleep(1)
        await call.engine.send_text("And a wren?")
        begin(call.provider(), "r2", "text")
        call.provider().completes("r2")
        lose(call.provider())
        await turns()

        assert call.provider().of("send_text") == [USE_RESULT]


@virtual
async def test_cut_answer_goes_on_before_words_that_were_asked_for_behind_it() -> None:
    async with calling(reconnect=BUDGET) as call:
        await call.engine.send_text("One?")
        begin(call.provider(), "r1", "text")
        await call.engine.say("Goodbye.")
        lose(call.provider())
        await turns()

        assert asked(call.provider()) == [("send_text", CONTINUE), ("speak", "Goodbye.")]


@virtual
async def test_tool_s_result_is_used_before_words_that_were_asked_for_behind_it() -> None:
    async with calling(reconnect=BUDGET, tools=[look_up]) as call:
        await call.engine.send_text("What is a robin?")
        call.provider().starts("r1", trigger="text")
        call.provider().asks_for("look_up", "c1", "r1", word="robin")
        call.provider().completes("r1")
        await asyncio.sleep(1)
        await call.engine.say("Goodbye.")
        lose(call.provider())
        await turns()

        assert asked(call.provider()) == [("send_text", USE_RESULT), ("speak", "Goodbye.")]
