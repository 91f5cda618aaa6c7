"""A turn that a tool was called for is not asked again when the session is lost: the result is used instead."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.core.continuity.matrix import tone
from tests.core.continuity.test_reconnect import BUDGET, lose
from tests.core.engine.fakes import Call, calling, caps, kind, silence, speak, turns
from voxengine.capabilities import FULL, UNSUPPORTED
from voxengine.events import EventType
from voxengine.notes import USE_RESULT
from voxengine.testing import virtual

MOMENTS = ("while it runs", "behind its result", "before its answer's first word")


class Tool:
    """A tool that takes a second and counts its runs."""

    def __init__(self) -> None:
        self.n_runs = 0

    async def look_up(self, word: str) -> str:
        """Look a word up."""
        self.n_runs += 1
        await asyncio.sleep(1)
        return "a bird"


async def call_and_lose(call: Call, moment: str) -> None:
    """Let the provider call the tool, and lose it at a moment of that."""
    one = call.provider()
    one.starts("r1")
    one.asks_for("look_up", "c1", "r1", word="robin")
    one.completes("r1")
    if moment != "while it runs":
        await asyncio.sleep(1.5)
        assert one.of("send_tool_result")
    if moment == "before its answer's first word":
        one.starts("r2")
    lose(one)
    await asyncio.sleep(3)


def kinds_of(call: Call) -> list[str]:
    return [str(item.kind) for item in call.engine.history]


async def ask_aloud(call: Call, *, transcript: str | None) -> bytes:
    question = tone(600, 1)
    await speak(call.engine, question + silence(700), paced=True)
    call.provider().hears(0, 600)
    if transcript is not None:
        data = {"text": transcript, "is_partial": False}
        call.provider().emit_event(EventType.INPUT_TRANSCRIPT, data)
    await turns()
    return question


@pytest.mark.parametrize("moment", MOMENTS)
@virtual
async def test_written_turn_is_not_asked_again(moment: str) -> None:
    tool = Tool()
    async with calling(reconnect=BUDGET, tools=[tool.look_up]) as call:
        await call.engine.send_text("What is a robin?")
        await call_and_lose(call, moment)
        told = [str(item.kind) for item in call.provider().of("load_history")[0]]
        call.provider().answers("A bird.")
        await call.engine.wait_idle(timeout_s=5)

        assert told == ["user_text", "tool_call", "tool_result"]
        assert call.provider().of("send_text") == [USE_RESULT]
        assert tool.n_runs == 1
        assert kinds_of(call) == ["user_text", "tool_call", "tool_result", "agent"]


@pytest.mark.parametrize("moment", MOMENTS)
@virtual
async def test_spoken_turn_is_not_asked_again(moment: str) -> None:
    tool = Tool()
    async with calling(reconnect=BUDGET, tools=[tool.look_up]) as call:
        question = await ask_aloud(call, transcript="What is a robin?")
        await call_and_lose(call, moment)
        told = [(str(item.kind), item.text) for item in call.provider().of("load_history")[0]]
        heard = bytes(call.provider().audio)
        call.provider().answers("A bird.")
        await call.engine.wait_idle(timeout_s=5)

        assert told[0] == ("user_text", "What is a robin?")
        assert [kind for kind, _ in told[1:]] == ["tool_call", "tool_result"]
        assert call.provider().of("send_text") == [USE_RESULT]
        assert question not in heard
        assert tool.n_runs == 1
        assert kinds_of(call) == ["user_audio", "tool_call", "tool_result", "agent"]


@pytest.mark.parametrize("policy", ["continue", "restart"])
@virtual
async def test_answer_with_the_result_that_is_given_again_asks_for_no_second_call(policy: str) -> None:
    tool = Tool()
    async with calling(reconnect={**BUDGET, "cut_reply": policy}, tools=[tool.look_up]) as call:
        await call.engine.send_text("What is a robin?")
        one = call.provider()
        one.starts("r1")
        one.asks_for("look_up", "c1", "r1", word="robin")
        one.completes("r1")
        await asyncio.sleep(1.5)
        one.starts("r2")
        one.writes("A bird", "r2", "i2")
        lose(one)
        await turns()

        assert call.provider().of("send_text") == [USE_RESULT]
        told = [str(item.kind) for item in call.provider().of("load_history")[0]]
        assert told == ["user_text", "tool_call", "tool_result"]


@virtual
async def test_spoken_turn_without_words_goes_over_as_sound_where_the_next_session_takes_that() -> None:
    tool = Tool()
    one = kind(capabilities=caps(context_audio=FULL))
    async with calling(one, reconnect=BUDGET, tools=[tool.look_up]) as call:
        question = await ask_aloud(call, transcript=None)
        await call_and_lose(call, "behind its result")

        told = call.provider().of("load_history")[0]
        assert [str(item.kind) for item in told] == ["user_audio", "tool_call", "tool_result"]
        assert question in told[0].audio
        assert call.provider().of("send_text") == [USE_RESULT]


@pytest.mark.parametrize(
    "changes", [{"context_audio": UNSUPPORTED}, {"context_audio": FULL, "text_turn": UNSUPPORTED}]
)
@virtual
async def test_spoken_turn_that_could_not_be_told_otherwise_is_heard_again(changes: dict[str, Any]) -> None:
    one = kind(capabilities=caps(**changes))
    async with calling(one, reconnect=BUDGET, tools=[Tool().look_up]) as call:
        question = await ask_aloud(call, transcript=None)
        await call_and_lose(call, "behind its result")

        assert bytes(call.provider().audio).count(question) == 1
        assert call.provider().of("send_text") == []


@virtual
async def test_turn_behind_the_one_that_was_called_for_is_asked() -> None:
    tool = Tool()
    async with calling(reconnect=BUDGET, tools=[tool.look_up], turn_detection="manual") as call:
        first, second = tone(500, 1), tone(500, 2)
        await speak(call.engine, first)
        await call.engine.end_turn()
        data = {"text": "What is a robin?", "is_partial": False}
        call.provider().emit_event(EventType.INPUT_TRANSCRIPT, data)
        one = call.provider()
        one.starts("r1")
        one.asks_for("look_up", "c1", "r1", word="robin")
        one.completes("r1")
        await speak(call.engine, second)
        await call.engine.end_turn()
        await asyncio.sleep(1.5)
        lose(one)
        await asyncio.sleep(1)

        assert second in bytes(call.provider().audio)
        assert call.provider().of("end_turn") == [True]
        assert tool.n_runs == 1


@virtual
async def test_answer_behind_that_of_the_result_lets_go_of_nothing_that_is_being_said() -> None:
    async with calling(reconnect=BUDGET, tools=[Tool().look_up], turn_detection="manual") as call:
        first, second = tone(500, 1), tone(500, 2)
        one = call.provider()
        await call.engine.send_text("What is a robin?")
        one.starts("r1", trigger="text")
        one.asks_for("look_up", "c1", "r1", word="robin")
        one.completes("r1")
        await speak(call.engine, first)
        await call.engine.end_turn()
        await asyncio.sleep(1.5)
        one.starts("r2", trigger="tool")
        one.writes("A bird.", "r2", "i2")
        one.completes("r2")
        await speak(call.engine, second[: len(second) // 2], paced=True)
        one.starts("r3", trigger="audio")
        one.writes("Yes.", "r3", "i3")
        lose(one)
        await asyncio.sleep(1)
        await speak(call.engine, second[len(second) // 2 :])
        await call.engine.end_turn()

        heard = bytes(call.provider().audio)
        assert second in heard
        assert first not in heard


@virtual
async def test_snapshot_owes_the_text_behind_the_one_that_was_called_for() -> None:
    async with calling(tools=[Tool().look_up]) as call:
        await call.engine.send_text("What is a robin?")
        await call.engine.send_text("And a wren?")
        call.provider().starts("r1", trigger="text")
        call.provider().asks_for("look_up", "c1", "r1", word="robin")
        call.provider().completes("r1")
        await asyncio.sleep(1.5)
        snapshot = call.engine.snapshot()

        assert list(snapshot["turn"]["unanswered_texts"].values()) == ["And a wren?"]
        assert snapshot["owes_tool_answer"]


@virtual
async def test_user_who_ended_the_turn_before_the_loss_is_not_taken_to_speak_on() -> None:
    async with calling(reconnect=BUDGET) as call:
        await speak(call.engine, tone(600, 1))
        call.provider().hears(0)
        await call.engine.end_turn()
        lose(call.provider())
        await turns()
        call.provider().answers("Yes.")
        await call.engine.wait_idle(timeout_s=5)

        starts, ends = call.seen.of(EventType.SPEECH_STARTED), call.seen.of(EventType.SPEECH_ENDED)
        assert (len(starts), len(ends)) == (1, 1)
        assert call.engine.history.items[-1].text == "Yes."


@virtual
async def test_turn_that_is_ended_in_the_gap_is_over() -> None:
    async with calling(reconnect=BUDGET) as call:
        await speak(call.engine, tone(600, 1))
        call.provider().hears(0)
        lose(call.provider())
        await call.engine.end_turn()
        await turns()
        call.provider().answers("Yes.")
        await call.engine.wait_idle(timeout_s=5)

        assert len(call.seen.of(EventType.SPEECH_ENDED)) == 1
