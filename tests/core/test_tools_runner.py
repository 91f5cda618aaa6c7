"""Carrying out calls: once each, in time, with one ending."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from voxengine import tools
from voxengine.errors import ConfigError, UsageError
from voxengine.events import EventType
from voxengine.testing.clock import leak_check, virtual
from voxengine.tools import Tool, ToolError, ToolOutcome, ToolRunner, tool_from_function

INVOKED = EventType.FUNCTION_CALL_INVOKED
COMPLETED = EventType.FUNCTION_CALL_COMPLETED
FAILED = EventType.FUNCTION_CALL_FAILED


class Heard:
    """Keeps what a runner tells."""

    def __init__(self) -> None:
        self.events: list[tuple[EventType, dict[str, Any]]] = []

    def __call__(self, event_type: EventType, data: dict[str, Any]) -> None:
        self.events.append((event_type, data))

    @property
    def types(self) -> list[EventType]:
        return [event_type for event_type, _ in self.events]


class Blocked:
    """A sync tool that returns when it is let go, and its thread's end."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.release = threading.Event()
        self.threads: list[threading.Thread] = []

    def __call__(self) -> str:
        self.threads.append(threading.current_thread())
        self.started.set()
        self.release.wait(10)
        return "late"


@pytest.fixture
def blocked() -> Iterator[Blocked]:
    tool = Blocked()
    yield tool
    tool.release.set()
    for thread in tool.threads:
        thread.join(10)


async def add(a: int, b: int = 1) -> int:
    """Add."""
    return a + b


def join(words: list[str]) -> str:
    """Join."""
    return " ".join(words)


async def test_an_async_tool_is_awaited_and_its_result_told() -> None:
    heard = Heard()
    runner = ToolRunner([add], on_event=heard)

    outcome = await runner.run("call_1", "add", '{"a": 2}')

    assert outcome == ToolOutcome("call_1", "3", False)
    assert heard.events == [
        (INVOKED, {"name": "add", "call_id": "call_1", "arguments": {"a": 2}}),
        (COMPLETED, {"name": "add", "call_id": "call_1", "result": 3}),
    ]


async def test_a_sync_tool_runs_in_a_daemon_thread_with_the_callers_context() -> None:
    caller = contextvars.ContextVar("caller", default="nobody")
    seen: list[tuple[str, bool, bool]] = []

    def look() -> None:
        thread = threading.current_thread()
        seen.append((caller.get(), thread.daemon, thread is threading.main_thread()))
        caller.set("the tool")

    caller.set("the test")
    outcome = await ToolRunner([look]).run("call_1", "look")

    assert outcome.output == "null"
    assert seen == [("the test", True, False)]
    assert caller.get() == "the test"


async def test_a_mapping_of_arguments_is_taken_too() -> None:
    assert (await ToolRunner([join]).run("c", "join", {"words": ["a", "b"]})).output == "a b"


async def test_an_object_with_an_async_call_and_a_plain_function_around_a_coroutine_are_awaited() -> None:
    class Adder:
        async def __call__(self, a: int) -> int:
            return a + 1

    def around(a: int) -> Any:
        return add(a)

    runner = ToolRunner([Adder(), around, tool_from_function(functools.partial(Adder()), name="partial")])

    outputs = [(await runner.run(name, name, {"a": 1})).output for name in runner.names]

    assert outputs == ["2", "2", "2"]


# -- at most once


async def test_a_repeated_call_id_gets_the_first_outcome_and_runs_nothing() -> None:
    heard, count = Heard(), [0]

    def once() -> int:
        count[0] += 1
        return count[0]

    runner = ToolRunner([once], on_event=heard)
    first = await runner.run("call_1", "once")

    second = await runner.run("call_1", "once", '{"other": "arguments"}')

    assert (first, second) == (ToolOutcome("call_1", "1"), ToolOutcome("call_1", "1"))
    assert count == [1]
    assert heard.types == [INVOKED, COMPLETED]


async def test_a_repeated_call_id_waits_for_the_call_under_way() -> None:
    heard, release, n_runs = Heard(), asyncio.Event(), [0]

    async def once() -> str:
        n_runs[0] += 1
        await release.wait()
        return "done"

    runner = ToolRunner([once], on_event=heard)
    calls = [asyncio.ensure_future(runner.run("call_1", "once")) for _ in range(3)]
    await asyncio.sleep(0)
    assert runner.n_running == 1

    release.set()

    assert {(await call).output for call in calls} == {"done"}
    assert n_runs == [1]
    assert heard.types == [INVOKED, COMPLETED]


async def test_a_failed_call_is_not_tried_again() -> None:
    count = [0]

    def broken() -> None:
        count[0] += 1
        raise OSError("no")

    runner = ToolRunner([broken])

    outcomes = [await runner.run("call_1", "broken") for _ in range(2)]

    assert outcomes[0] == outcomes[1]
    assert count == [1]


async def test_old_outputs_are_forgotten_before_old_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "_KEPT_OUTPUT_BYTES", 10)
    monkeypatch.setattr(tools, "_KEPT_IDS", 3)
    runs: list[str] = []

    async def note(word: str) -> str:
        runs.append(word)
        return word * 6

    runner = ToolRunner([note])
    for word in "abcd":
        await runner.run(word, "note", {"word": word})

    assert (await runner.run("d", "note", {"word": "d"})).output == "dddddd"
    assert await runner.run("b", "note", {"word": "b"}) == ToolOutcome(
        "b", "This call was answered before.", True
    )
    assert runs == ["a", "b", "c", "d"]


# -- what goes wrong


async def test_an_exception_is_told_to_the_agent_by_type_and_message_and_nothing_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard = Heard()

    async def broken() -> None:
        raise LookupError("no such city")

    with caplog.at_level(logging.DEBUG):
        outcome = await ToolRunner([broken], on_event=heard).run("call_1", "broken")

    assert outcome == ToolOutcome("call_1", "LookupError: no such city", True)
    assert heard.types == [INVOKED, FAILED]
    assert isinstance(heard.events[1][1]["error"], LookupError)
    assert caplog.records == [], "neither the failure nor a word of it reaches the logs"


@pytest.mark.parametrize(
    ("error", "output"),
    [
        (ValueError(), "ValueError"),
        (StopIteration("end"), "StopIteration: end"),
        (SystemExit("bye"), "SystemExit: bye"),
        (TimeoutError("its own"), "TimeoutError: its own"),
        (ToolError("Ask for a city."), "Ask for a city."),
        (ValueError("x" * 5000), "ValueError: " + "x" * 1988),
        (ValueError("\ud800"), "ValueError: ?"),
    ],
)
async def test_any_exception_of_a_sync_tool_becomes_an_outcome(error: BaseException, output: str) -> None:
    def broken() -> None:
        raise error

    outcome = await ToolRunner([broken]).run("call_1", "broken")

    assert outcome == ToolOutcome("call_1", output, True)


async def test_an_exception_that_cannot_be_printed_is_named() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    async def broken() -> None:
        raise Mute

    assert (await ToolRunner([broken]).run("c", "broken")).output == "Mute"


async def test_a_tool_that_cancels_itself_fails() -> None:
    heard = Heard()

    async def stop() -> None:
        raise asyncio.CancelledError

    outcome = await ToolRunner([stop], on_event=heard).run("c", "stop")

    assert outcome == ToolOutcome("c", "The call of stop was cancelled.", True)
    assert heard.types == [INVOKED, FAILED]


@pytest.mark.parametrize(
    ("given", "output"),
    [
        ([add, join], "There is no tool 'sing'. The tools are: add, join."),
        ([], "There is no tool 'sing'. There are no tools."),
    ],
)
async def test_an_unknown_tool_is_refused_with_the_known_ones(given: list[Any], output: str) -> None:
    heard = Heard()

    outcome = await ToolRunner(given, on_event=heard).run("call_1", "sing", "{}")

    assert outcome == ToolOutcome("call_1", output, True)
    assert heard.types == [INVOKED, FAILED]


@pytest.mark.parametrize(
    ("arguments", "shown", "sentence"),
    [
        ("{", {}, "not valid JSON"),
        ('{"a": "x"}', {"a": "x"}, "Argument a is a string; it takes an integer."),
        ("{}", {}, "The argument 'a' is missing."),
    ],
)
async def test_wrong_arguments_run_nothing(arguments: str, shown: object, sentence: str) -> None:
    heard = Heard()

    outcome = await ToolRunner([add], on_event=heard).run("call_1", "add", arguments)

    assert outcome.is_error
    assert sentence in outcome.output
    assert heard.types == [INVOKED, FAILED]
    assert heard.events[0][1]["arguments"] == shown


async def test_a_result_that_cannot_be_text_is_a_failure() -> None:
    heard = Heard()

    def make() -> object:
        return object()

    outcome = await ToolRunner([make], on_event=heard).run("call_1", "make")

    assert outcome.is_error
    assert "it holds a object" in outcome.output
    assert heard.types == [INVOKED, FAILED]


async def test_a_call_without_an_id_is_refused() -> None:
    with pytest.raises(UsageError, match="needs a call_id"):
        await ToolRunner([add]).run("", "add", "{}")


async def test_a_callback_that_raises_is_the_callers_and_nothing_runs_twice() -> None:
    n_runs = [0]

    async def once() -> None:
        n_runs[0] += 1

    def raise_at_the_end(event_type: EventType, data: dict[str, Any]) -> None:
        if event_type is COMPLETED:
            raise RuntimeError("handler")

    runner = ToolRunner([once], on_event=raise_at_the_end)

    with pytest.raises(RuntimeError, match="handler"):
        await runner.run("call_1", "once")
    assert await runner.run("call_1", "once") == ToolOutcome(
        "call_1", "The call could not be carried out.", True
    )
    assert n_runs == [1]


def test_two_tools_of_one_name_are_refused_and_the_same_one_is_not() -> None:
    runner = ToolRunner([add])

    assert runner.register(add).function is add
    assert runner.names == ("add",)
    with pytest.raises(ConfigError, match="already is a tool named 'add'"):
        runner.register(tool_from_function(join, name="add"))
    with pytest.raises(ConfigError, match="already is a tool named 'add'"):
        runner.register(tool_from_function(add, description="Another."))


def test_specs_are_what_providers_send() -> None:
    runner = ToolRunner([add, tool_from_function(join)])

    assert [spec["name"] for spec in runner.specs()] == ["add", "join"]
    assert set(runner.specs()[0]) == {"type", "name", "description", "parameters"}


# -- deadlines, on virtual time


@virtual
async def test_an_async_tool_is_cancelled_at_its_deadline() -> None:
    heard, ended = Heard(), list[float]()
    loop = asyncio.get_running_loop()

    async def slow() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(loop.time())

    runner = ToolRunner([slow], timeout_s=30, on_event=heard)
    outcome = await runner.run("call_1", "slow")

    assert outcome == ToolOutcome("call_1", "slow did not return within 30 s.", True)
    assert ended == [30]
    assert heard.types == [INVOKED, FAILED]
    assert runner.n_abandoned == 0


@virtual
async def test_a_tools_own_deadline_wins() -> None:
    async def slow() -> str:
        await asyncio.sleep(40)
        return "done"

    runner = ToolRunner([tool_from_function(slow, timeout_s=50)], timeout_s=1)

    assert (await runner.run("call_1", "slow")).output == "done"


@virtual
async def test_a_result_after_the_deadline_does_not_count() -> None:
    heard = Heard()

    async def stubborn() -> str:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return "too late"
        return "never"

    outcome = await ToolRunner([stubborn], timeout_s=5, on_event=heard).run("call_1", "stubborn")

    assert outcome.output == "stubborn did not return within 5 s."
    assert heard.types == [INVOKED, FAILED]


@virtual
async def test_a_tool_that_refuses_to_end_is_abandoned_and_counted_and_close_ends_it() -> None:
    refusals = iter([True, False])

    async def deaf() -> None:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if not next(refusals):
                    raise

    async with leak_check():
        runner = ToolRunner([deaf], timeout_s=5)

        outcome = await runner.run("call_1", "deaf")

        assert outcome.is_error
        assert runner.n_abandoned == 1
        await runner.close()


@virtual
async def test_a_coroutine_from_a_plain_function_has_what_is_left_of_the_deadline() -> None:
    async def forever() -> None:
        await asyncio.sleep(3600)

    def around() -> Any:
        return forever()

    outcome = await ToolRunner([around], timeout_s=5).run("call_1", "around")

    assert outcome.output == "around did not return within 5 s."
    assert asyncio.get_running_loop().time() == 5


@virtual(socket_grace_s=0)
async def test_virtual_time_stands_still_while_a_sync_tool_runs() -> None:
    loop = asyncio.get_running_loop()

    async def now() -> float:
        return loop.time()

    def look() -> list[float]:
        # Between two of these the loop is idle with a timer set.
        return [asyncio.run_coroutine_threadsafe(now(), loop).result(10) for _ in range(50)]

    timer = loop.create_task(asyncio.sleep(0.5))
    outcome = await ToolRunner([look], timeout_s=1).run("call_1", "look")

    assert outcome.output == str([0.0] * 50)
    await timer
    assert loop.time() == 0.5


async def test_a_sync_tool_past_its_deadline_is_abandoned_and_its_result_dropped(blocked: Blocked) -> None:
    heard = Heard()
    runner = ToolRunner([tool_from_function(blocked, name="blocked")], timeout_s=0.01, on_event=heard)

    outcome = await runner.run("call_1", "blocked")

    assert outcome == ToolOutcome("call_1", "blocked did not return within 0.01 s.", True)
    assert runner.n_abandoned == 1
    blocked.release.set()
    await asyncio.to_thread(blocked.threads[0].join)
    await asyncio.sleep(0)
    assert heard.types == [INVOKED, FAILED]
    assert await runner.run("call_1", "blocked") == outcome


def test_a_thread_that_ends_after_its_loop_harms_nothing(blocked: Blocked) -> None:
    runner = ToolRunner([tool_from_function(blocked, name="blocked")], timeout_s=0.01)
    asyncio.run(runner.run("call_1", "blocked"))

    blocked.release.set()
    blocked.threads[0].join(10)

    # An exception in the thread would be a PytestUnhandledThreadExceptionWarning, and so an error.
    assert not blocked.threads[0].is_alive()


# -- cancellation and the end


async def test_cancelling_the_only_caller_cancels_the_tool() -> None:
    heard, started, ended = Heard(), asyncio.Event(), list[str]()

    async def slow() -> None:
        try:
            started.set()
            await asyncio.Event().wait()
        finally:
            ended.append("slow")

    runner = ToolRunner([slow], on_event=heard)
    call = asyncio.ensure_future(runner.run("call_1", "slow"))
    await started.wait()

    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    assert ended == ["slow"]
    assert runner.n_running == 0
    assert heard.types == [INVOKED, FAILED]
    assert (await runner.run("call_1", "slow")).output == "The call of slow was cancelled."


async def test_cancelling_one_of_two_callers_leaves_the_call_to_the_other() -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def slow() -> str:
        started.set()
        await release.wait()
        return "done"

    runner = ToolRunner([slow])
    calls = [asyncio.ensure_future(runner.run("call_1", "slow")) for _ in range(2)]
    await started.wait()

    calls[0].cancel()
    await asyncio.wait({calls[0]})
    release.set()

    assert calls[0].cancelled()
    assert (await calls[1]).output == "done"


async def test_close_ends_every_call_with_an_outcome_and_leaves_no_task(blocked: Blocked) -> None:
    heard, started = Heard(), asyncio.Event()

    async def slow() -> None:
        started.set()
        await asyncio.Event().wait()

    tasks_before = asyncio.all_tasks()
    runner = ToolRunner([slow, tool_from_function(blocked, name="blocked")], on_event=heard)
    calls = [asyncio.ensure_future(runner.run(name, name)) for name in ("slow", "blocked")]
    await started.wait()
    await asyncio.to_thread(blocked.started.wait)

    await runner.close()
    outcomes = [await call for call in calls]
    await runner.close()

    assert [outcome.output for outcome in outcomes] == [
        "The call of slow was cancelled.",
        "The call of blocked was cancelled.",
    ]
    assert sorted(heard.types) == sorted([INVOKED, INVOKED, FAILED, FAILED])
    assert runner.n_abandoned == 1
    assert asyncio.all_tasks() == tasks_before


async def test_close_before_a_calls_first_step_ends_it_without_running() -> None:
    heard, ran = Heard(), list[int]()

    async def note() -> None:
        ran.append(1)

    runner = ToolRunner([note], on_event=heard)
    call = asyncio.ensure_future(runner.run("call_1", "note"))
    await asyncio.sleep(0)

    await runner.close()

    assert await call == ToolOutcome("call_1", "The call was cancelled.", True)
    assert ran == []
    assert heard.events == []


async def test_a_closed_runner_answers_what_it_knows_and_refuses_the_rest() -> None:
    runner = ToolRunner([add])
    known = await runner.run("call_1", "add", {"a": 1})
    await runner.close()

    assert await runner.run("call_1", "add") == known
    with pytest.raises(UsageError, match="runner is closed"):
        await runner.run("call_2", "add", {"a": 1})


async def test_many_calls_run_side_by_side_and_each_ends_once() -> None:
    heard = Heard()
    runner = ToolRunner([add, join], on_event=heard)

    outcomes = await asyncio.gather(
        *(runner.run(f"a{n}", "add", {"a": n, "b": 0}) for n in range(20)),
        *(runner.run(f"j{n}", "join", {"words": [str(n)]}) for n in range(20)),
    )

    assert [outcome.output for outcome in outcomes] == [str(n) for n in range(20)] * 2
    endings = [data["call_id"] for event_type, data in heard.events if event_type is not INVOKED]
    assert sorted(endings) == sorted(outcome.call_id for outcome in outcomes)


def test_a_tool_made_by_hand_runs_too() -> None:
    tool = Tool("echo", "", {"type": "object"}, lambda **values: values)

    assert asyncio.run(ToolRunner([tool]).run("c", "echo", '{"a": 1}')).output == '{"a": 1}'
