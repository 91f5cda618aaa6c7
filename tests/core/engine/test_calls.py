"""Tool calls from the agent to the function and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.core.engine.fakes import Call, Document, Seen, kind, registry, turns
from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.errors import ConfigError, UsageError
from voxengine.events import EventType
from voxengine.history import ItemKind
from voxengine.testing import leak_check, virtual


@asynccontextmanager
async def with_tools(*functions: Callable[..., Any], cls: Any = None, **config: Any) -> AsyncIterator[Call]:
    kinds = {"one": cls or kind(), "two": kind()}
    engine = VoiceEngine(VoiceEngineConfig(provider="one", **config), registry=registry(**kinds))
    for function in functions:
        engine.tool(function)
    call = Call(engine, Seen(engine), kinds)
    await engine.connect()
    try:
        yield call
    finally:
        await engine.disconnect()


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def wait(seconds: float) -> str:
    """Wait for a while."""
    await asyncio.sleep(seconds)
    return f"waited {seconds:g}"


def fail() -> None:
    """Fail."""
    raise ValueError("no such luck")


def results(call: Call, name: str = "one") -> list[Any]:
    held: list[Any] = call.provider(name).of("send_tool_result")
    return held


@virtual
async def test_call_runs_and_its_result_goes_back_once() -> None:
    async with with_tools(add) as call:
        one = call.provider()
        assert [tool["name"] for tool in one.config["tools"]] == ["add"]
        one.starts()
        one.asks_for("add", a=2, b=3)
        await asyncio.sleep(0.1)

        assert results(call) == [("c1", "5", False)]
        invoked = call.seen.one(EventType.FUNCTION_CALL_INVOKED)
        completed = call.seen.one(EventType.FUNCTION_CALL_COMPLETED)
        assert (invoked.name, invoked.call_id, invoked.arguments) == ("add", "c1", {"a": 2, "b": 3})
        assert (completed.name, completed.call_id, completed.result) == ("add", "c1", 5)
        assert [item.kind for item in call.engine.history] == [ItemKind.TOOL_CALL, ItemKind.TOOL_RESULT]
        one.completes()
        one.answers("Five.", "r2", "i2")
        assert [event.trigger for event in call.seen.of(EventType.RESPONSE_STARTED)] == ["server", "tool"]
        await call.engine.wait_idle(timeout_s=1)


@virtual
async def test_calls_run_side_by_side_and_have_one_answer() -> None:
    async with with_tools(wait) as call:
        one = call.provider()
        one.starts()
        for n in range(3):
            one.asks_for("wait", f"c{n}", seconds=1)
        one.completes()
        await asyncio.sleep(1.01)

        assert sorted(results(call)) == [(f"c{n}", "waited 1", False) for n in range(3)]
        one.answers("Done.", "r2", "i2")
        await call.engine.wait_idle(timeout_s=1)


@virtual
async def test_call_that_is_told_twice_runs_once() -> None:
    runs: list[int] = []

    def count() -> int:
        """Count."""
        runs.append(1)
        return len(runs)

    async with with_tools(count) as call:
        call.provider().starts()
        call.provider().asks_for("count")
        call.provider().asks_for("count")
        await asyncio.sleep(0.1)
        call.provider().asks_for("count")
        await asyncio.sleep(0.1)

        assert (len(runs), results(call)) == (1, [("c1", "1", False)])
        assert len(call.seen.of(EventType.FUNCTION_CALL_INVOKED)) == 1


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("fail", {}, "no such luck"),
        ("nowhere", {}, "There is no tool 'nowhere'"),
        ("add", {"a": 1}, "b"),
        ("wait", {"seconds": 60.0}, "did not return within 2 s"),
    ],
)
@virtual
async def test_failure_is_the_agents_to_know(name: str, arguments: dict[str, Any], says: str) -> None:
    async with with_tools(fail, add, wait, tool_timeout_s=2) as call:
        call.provider().starts()
        call.provider().asks_for(name, **arguments)
        await asyncio.sleep(3)

        ((call_id, output, is_error),) = results(call)
        assert (call_id, is_error) == ("c1", True)
        assert says in output
        assert call.seen.one(EventType.FUNCTION_CALL_FAILED).call_id == "c1"
        assert call.seen.of(EventType.ERROR_GENERAL) == []


@virtual
async def test_result_goes_back_even_after_an_interrupt() -> None:
    async with with_tools(wait) as call:
        call.provider().starts()
        call.provider().asks_for("wait", seconds=1)
        await turns()
        call.engine.interrupt()
        await asyncio.sleep(2)

        assert results(call) == [("c1", "waited 1", False)]


@virtual
async def test_sessions_that_count_their_calls_anew_do_not_collide() -> None:
    async with with_tools(add) as call:
        call.provider().starts()
        call.provider().asks_for("add", a=1, b=1)
        await asyncio.sleep(0.1)
        call.provider().writes("Two.")
        call.provider().completes()
        await call.engine.switch_provider("two")
        call.provider("two").starts()
        call.provider("two").asks_for("add", a=2, b=2)
        await asyncio.sleep(0.1)

        assert results(call, "two") == [("c1", "4", False)]
        ids = [event.call_id for event in call.seen.of(EventType.FUNCTION_CALL_INVOKED)]
        assert ids[0] == "c1"
        assert len(set(ids)) == 2
        assert [event.call_id for event in call.seen.of(EventType.FUNCTION_CALL_COMPLETED)] == ids
        assert [item.call_id for item in call.engine.history if item.kind == "tool_result"] == ids


async def gathered(switch: Awaitable[None]) -> None:
    await asyncio.gather(switch)


async def timed(switch: Awaitable[None]) -> None:
    await asyncio.wait_for(switch, 60)


async def as_task(switch: Awaitable[None]) -> None:
    await asyncio.ensure_future(switch)


async def plainly(switch: Awaitable[None]) -> None:
    await switch


@pytest.mark.parametrize("waits", [plainly, gathered, timed, as_task], ids=lambda how: how.__name__)
@virtual
async def test_tool_that_waits_for_a_switch_is_told_and_the_turn_is_answered(waits: Any) -> None:
    async def move() -> str:
        """Move to the other provider."""
        await waits(call.engine.switch_provider("two"))
        return "moved"

    async with with_tools(move, add) as call:
        call.provider().starts()
        call.provider().asks_for("move")
        call.provider().asks_for("add", "c2", a=1, b=1)
        await asyncio.sleep(5)

        first, second = sorted(results(call), key=lambda given: given[0])
        assert "a tool that waits for it is one" in first[1]
        assert first[2]
        assert second == ("c2", "2", False)
        assert call.engine.session is not None
        assert call.engine.session.name == "one"


@pytest.mark.slow
async def test_tool_in_a_thread_that_waits_for_a_switch_is_told() -> None:
    def move() -> str:
        """Move to the other provider."""
        call.engine.call_threadsafe("switch_provider", "two").result(60)
        return "moved"

    async with with_tools(move) as call:
        call.provider().starts()
        failed = call.engine.events.stream(EventType.FUNCTION_CALL_FAILED)
        call.provider().asks_for("move")

        event = await asyncio.wait_for(anext(failed), 30)
        assert "a tool that waits for it is one" in str(event.error)


@virtual
async def test_tool_may_start_a_switch_and_return() -> None:
    started: list[asyncio.Task[None]] = []

    async def move() -> str:
        """Move to the other provider."""
        started.append(asyncio.create_task(call.engine.switch_provider("two")))
        await asyncio.sleep(1)
        return "moving"

    async with with_tools(move) as call:
        call.provider().starts()
        call.provider().asks_for("move")
        await asyncio.sleep(0.1)
        await asyncio.wait(started)

        assert started[0].exception() is None
        assert results(call) == [("c1", "moving", False)]
        assert call.engine.session is not None
        assert call.engine.session.name == "two"


@virtual
async def test_choice_of_a_tool_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="tool_choice is 'nosuch'.*There are no tools"):
        async with with_tools(tool_choice="nosuch"):
            pass
    async with with_tools(add, tool_choice="add") as call:
        with pytest.raises(ConfigError, match="The tools are: add"):
            await call.engine.configure_session(tool_choice="nosuch")

        assert call.engine.config.tool_choice == "add"
        assert call.provider().of("configure_session") == []


@virtual
async def test_call_of_a_guide_provider_opens_a_response() -> None:
    async with with_tools(add, cls=kind(Document)) as call:
        one = call.provider()
        data = {"name": "add", "call_id": "c1", "arguments": '{"a": 1, "b": 2}'}
        one.emit_event(EventType.FUNCTION_CALL_INVOKED, data)
        await asyncio.sleep(2)

        invoked = call.seen.one(EventType.FUNCTION_CALL_INVOKED)
        assert invoked.arguments == {"a": 1, "b": 2}
        assert invoked.data["response_id"] == call.seen.one(EventType.RESPONSE_STARTED).response_id
        # It has nowhere to send the result, and that is said.
        assert len(call.seen.of(EventType.ERROR_GENERAL)) == 1
        assert call.seen.one(EventType.FUNCTION_CALL_COMPLETED).result == 3
        await call.engine.wait_idle(timeout_s=2)


@pytest.mark.parametrize("data", [{"name": "add"}, {"call_id": "c1"}, {"name": None, "call_id": None}])
@virtual
async def test_call_that_cannot_be_answered_is_passed_over_with_a_warning(data: dict[str, Any]) -> None:
    async with with_tools(add) as call:
        call.provider().emit_event(EventType.FUNCTION_CALL_INVOKED, data)

        assert call.seen.codes() == ["function_call_without_id"]


@virtual
async def test_result_that_cannot_be_sent_is_an_error_event() -> None:
    async with with_tools(add, cls=kind(behaviour={"send_tool_result": RuntimeError("no")})) as call:
        call.provider().starts()
        call.provider().asks_for("add", a=1, b=1)
        call.provider().completes()
        await asyncio.sleep(0.1)

        assert len(call.seen.of(EventType.ERROR_GENERAL)) == 1
        await call.engine.wait_idle(timeout_s=2)


@virtual
async def test_running_tool_ends_with_the_engine() -> None:
    async with leak_check():
        async with with_tools(wait) as call:
            call.provider().starts()
            call.provider().asks_for("wait", seconds=1000)
            await turns()
    assert results(call) == []


@virtual
async def test_tools_are_registered_before_the_session() -> None:
    async with with_tools(add) as call:
        with pytest.raises(UsageError, match="before connect"):
            call.engine.tool(fail)
    with pytest.raises(ConfigError, match="already is a tool named 'add'"):
        VoiceEngine(VoiceEngineConfig(tools=(add,))).tool(name="add")(fail)
