"""What the agent does for an emulator beyond the mock's own protocol: requests of their own, silence, limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import attrs

from tests.plugins.mock.support import counter, silence, voice_saying
from voxengine.testing import virtual
from voxengine_mock.behaviour import Ask, Behaviour
from voxengine_mock.happenings import (
    Called,
    Happening,
    Heard,
    ResponseEnded,
    ResponseStarted,
    Said,
    SaidAll,
    Sounded,
    SpeechEnded,
    SpeechStarted,
    TurnEnded,
    WentIdle,
)
from voxengine_mock.script import Script
from voxengine_mock.settings import Settings, Tool

H = TypeVar("H")


class Agent:
    """A behaviour and what it brought about."""

    def __init__(self, script: dict[str, Any]) -> None:
        self.told: list[Happening] = []
        self._changed = asyncio.Event()
        self.behaviour = Behaviour(Script.from_mapping(script), counter(), self._tell)

    async def _tell(self, happening: Happening) -> None:
        self.told.append(happening)
        self._changed.set()

    def of(self, kind: type[H]) -> list[H]:
        return [happening for happening in self.told if isinstance(happening, kind)]

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(120):
            while not is_so():
                self._changed.clear()
                await self._changed.wait()

    async def until_ended(self, n: int = 1) -> ResponseEnded:
        await self.until(lambda: len(self.of(ResponseEnded)) >= n)
        return self.of(ResponseEnded)[n - 1]


@asynccontextmanager
async def agent(settings: Settings | None = None, **script: Any) -> AsyncIterator[Agent]:
    made = Agent(script)
    made.behaviour.configure(settings or Settings())
    async with made.behaviour.active():
        yield made


@virtual
async def test_a_request_has_settings_of_its_own() -> None:
    async with agent(default="One two three four.") as a:
        capped = attrs.evolve(Settings(), audio=False, max_output_tokens=2)
        await a.behaviour.respond("request", Ask(text="Hello", settings=capped, tag="mine"))
        ended = await a.until_ended()

    assert a.of(ResponseStarted)[0].tag == "mine"
    assert (ended.status, a.of(SaidAll)[0].text, a.of(SaidAll)[0].is_whole) == (
        "incomplete",
        "One two",
        False,
    )
    assert not a.of(Sounded)


@virtual
async def test_tokens_of_audio_count_towards_the_cap() -> None:
    usage = {"per_word": 1, "output_audio_per_s": 20}
    async with agent(Settings(max_output_tokens=15), usage=usage) as a:
        await a.behaviour.respond("request", Ask(text="Tell me a long story"))
        ended = await a.until_ended()

    n_ms = sum(len(sounded.pcm) for sounded in a.of(Sounded)) // 48
    n_words = len("".join(said.delta for said in a.of(Said)).split())
    assert ended.status == "incomplete"
    assert n_words + n_ms / 50 == 15


@virtual
async def test_responses_beside_one_another_end_by_themselves() -> None:
    script: dict[str, Any] = {"responses": {"*short*": "Yes."}, "pace": 1}
    async with agent(**script) as a:
        await a.behaviour.respond("request", Ask(text="Tell me a long story"))
        story = a.behaviour.response
        await a.behaviour.respond("request", Ask(text="In short?", is_beside=True))
        first = await a.until_ended()
        was_cut = a.behaviour.cut(None, response_id=story.response_id if story else "")
        second = await a.until_ended(2)

    assert story is not None
    assert was_cut
    assert (first.status, second.status) == ("completed", "cancelled")
    assert second.response_id == story.response_id


@virtual
async def test_a_response_that_was_asked_to_stop_is_in_nobodys_way() -> None:
    async with agent(pace=1) as a:
        await a.behaviour.respond("request", Ask(text="Tell me a long story"))
        await a.until(lambda: bool(a.of(Sounded)))
        a.behaviour.cut(None)
        free = a.behaviour.response
        await a.behaviour.respond("request", Ask(text="Hello"))
        ended = await a.until_ended(2)

    assert free is None
    assert a.of(ResponseEnded)[0].reason == "client"
    assert ended.status == "completed"


@virtual
async def test_results_wait_until_they_are_asked_about() -> None:
    tool = Tool("look", {})
    answer = {"responses": {"*": {"tool": "look", "then": "It is {result}."}}}
    async with agent(Settings(tools=(tool,)), **answer) as a:
        await a.behaviour.respond("request", Ask(text="Go"))
        await a.until_ended()
        (called,) = a.of(Called)
        taken = await a.behaviour.tool_result(called.call_id, "fine", respond=False)
        again = await a.behaviour.tool_result(called.call_id, "bad", respond=False)
        n_before = len(a.of(ResponseStarted))
        await a.behaviour.respond("request", Ask(after_call=called.call_id))
        await a.until_ended(2)

    assert (taken, again, n_before) == (True, False, 1)
    assert a.of(SaidAll)[-1].text == "It is fine."


@virtual
async def test_a_remote_tool_is_run_and_told_about_in_one_response() -> None:
    tool = Tool("look", {}, is_remote=True)
    async with agent(Settings(tools=(tool,))) as a:
        await a.behaviour.respond("request", Ask(text="Please look"))
        await a.until_ended()

    assert a.of(Called)[0].result == "look is done."
    assert a.of(SaidAll)[0].text == "Look says: look is done."
    assert len(a.of(ResponseStarted)) == 1


@virtual
async def test_a_commit_is_a_turn_even_without_speech_and_asks_for_nothing() -> None:
    async with agent(Settings(turn_detection="manual"), hears=["good morning all"]) as a:
        await a.behaviour.hear(silence(200))
        await a.behaviour.commit()
        await a.behaviour.hear(await voice_saying("good morning"))
        await a.behaviour.commit()

    assert [turn.text for turn in a.of(TurnEnded)] == ["", "good morning all"]
    assert not a.of(ResponseStarted)


@virtual
async def test_the_agent_speaks_up_after_so_much_silent_audio() -> None:
    async with agent(Settings(idle_timeout_ms=5000)) as a:
        await a.behaviour.respond("request", Ask(text="Hello"))
        await a.until_ended()
        said_ms = sum(len(sounded.pcm) for sounded in a.of(Sounded)) // 48
        await a.behaviour.hear(silence(said_ms + 4990))
        n_before = len(a.of(WentIdle))
        await a.behaviour.hear(silence(10))
        await a.until_ended(2)

    (idle,) = a.of(WentIdle)
    assert n_before == 0
    assert (idle.from_ms, idle.to_ms) == (said_ms, said_ms + 5000)


@virtual
async def test_the_agent_speaks_up_after_so_long_when_no_audio_comes() -> None:
    async with agent(Settings(idle_timeout_ms=5000)) as a:
        await a.behaviour.respond("request", Ask(text="Hello"))
        await a.until_ended()
        await a.until(lambda: bool(a.of(WentIdle)))
        await a.until_ended(2)

    assert a.of(WentIdle)[0].to_ms == 0
    assert a.of(SaidAll)[-1].text == "Are you still there?"


@virtual
async def test_a_voice_ends_the_waiting_for_one() -> None:
    settings = Settings(idle_timeout_ms=5000, create_response=False)
    async with agent(settings) as a:
        await a.behaviour.respond("request", Ask(text="Hello"))
        await a.until_ended()
        await a.behaviour.hear(await voice_saying("I am here"))
        await a.behaviour.hear(silence(30_000))
        await asyncio.sleep(60)

    assert not a.of(WentIdle)
    assert len(a.of(TurnEnded)) == 1


@virtual
async def test_patience_is_for_unfinished_words_alone() -> None:
    settings = Settings(silence_ms=500, patience_ms=2000, create_response=False)
    speech = await voice_saying("I would like")
    async with agent(settings, hears=["I would like to", "That is all."]) as a:
        await a.behaviour.hear((speech + silence(3000)) * 2)

    first, second = (ended.decided_ms - ended.at_ms for ended in a.of(SpeechEnded))
    assert (first, second) == (2000, 500)
    assert [heard.text for heard in a.of(Heard) if not heard.is_partial] == [
        "I would like to",
        "That is all.",
    ]


@virtual
async def test_the_time_of_the_audio_goes_on_when_its_rate_changes() -> None:
    async with agent(Settings(turn_detection="server", create_response=False)) as a:
        await a.behaviour.hear(silence(1000))
        a.behaviour.configure(attrs.evolve(a.behaviour.settings, input_rate=8000))
        await a.behaviour.hear(silence(1000, 8000) + await voice_saying("good morning", 8000))

    (started,) = a.of(SpeechStarted)
    assert 2000 <= started.at_ms <= 2100
    assert started.padded_ms == started.at_ms - 300
