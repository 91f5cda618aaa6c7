"""Tool calls and requests: results go back once, and one response is asked for at a time."""

from __future__ import annotations

from typing import Any
from unittest.mock import ANY

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.plugins.openai.peer import session
from voxengine.errors import UsageError
from voxengine.testing import virtual
from voxengine_openai.requests import Request, RequestQueue, ToolRounds

ACTIVE = {
    "type": "invalid_request_error",
    "code": "conversation_already_has_active_response",
    "message": "Conversation already has an active response in progress: resp_x.",
}


@virtual
async def test_call_is_told_with_decoded_arguments() -> None:
    async with session() as (_, peer, recorder):
        await peer.begin()
        await peer.call("call_1", "look", '{"city": "Oslo"}')
        event = await recorder.wait("function_call_invoked")

        assert event.data["name"] == "look"
        assert event.data["call_id"] == "call_1"
        assert event.data["arguments"] == {"city": "Oslo"}
        assert event.data["response_id"] == "resp_1"


@pytest.mark.parametrize(
    ("text", "told"), [("", {}), ("[1]", "[1]"), ('{"city": ', '{"city": '), ("[" * 100_000, "[" * 100_000)]
)
@virtual
async def test_arguments_that_are_no_object_go_on_for_the_runner_to_refuse(text: str, told: Any) -> None:
    async with session() as (_, peer, recorder):
        await peer.begin()
        await peer.call("call_1", "look", text)
        event = await recorder.wait("function_call_invoked")

        assert event.data["arguments"] == told


@virtual
async def test_parallel_calls_are_answered_by_one_response_after_all_results() -> None:
    async with session() as (provider, peer, recorder):
        await peer.begin()
        await peer.call("call_1", "look", "{}")
        await peer.call("call_2", "look", "{}")
        await recorder.wait("function_call_invoked", 2)
        await provider.send_tool_result("call_2", "second")
        await peer.finish()
        await recorder.wait("response_completed")
        assert not peer.of("response.create")

        await provider.send_tool_result("call_1", "it broke", True)
        await peer.wait("response.create")

        items = [fields["item"] for fields in peer.of("conversation.item.create")]
        assert items == [
            {"id": ANY, "type": "function_call_output", "call_id": "call_2", "output": "second"},
            {
                "id": ANY,
                "type": "function_call_output",
                "call_id": "call_1",
                "output": "The tool failed: it broke",
            },
        ]
        assert peer.names()[-1] == "response.create"
        assert len(peer.of("response.create")) == 1


@virtual
async def test_results_before_the_end_of_the_response_wait_for_it() -> None:
    async with session() as (provider, peer, recorder):
        await peer.begin()
        await peer.call("call_1", "look", "{}")
        await recorder.wait("function_call_invoked")
        await provider.send_tool_result("call_1", "done")
        await peer.wait("conversation.item.create")
        assert not peer.of("response.create")

        await peer.finish()
        await peer.wait("response.create")
        await peer.begin("resp_2")
        started = await recorder.wait("response_started", 2)

        assert started.data["trigger"] == "tool"


@virtual
async def test_result_goes_back_exactly_once_and_only_for_a_call() -> None:
    async with session() as (provider, peer, recorder):
        await peer.begin()
        await peer.call("call_1", "look", "{}")
        await recorder.wait("function_call_invoked")
        await provider.send_tool_result("call_1", "done")

        with pytest.raises(UsageError, match="already"):
            await provider.send_tool_result("call_1", "again")
        with pytest.raises(UsageError, match="no call"):
            await provider.send_tool_result("call_x", "what")
        await peer.finish()
        await peer.wait("response.create")

        assert len(peer.of("conversation.item.create")) == 1


@virtual
async def test_call_told_three_times_is_one_call() -> None:
    item = {"id": "item_c", "type": "function_call", "name": "look", "call_id": "call_1", "arguments": "{}"}
    async with session() as (_, peer, recorder):
        await peer.begin()
        await peer.call("call_1", "look", "{}")
        await peer.say("response.output_item.done", response_id="resp_1", output_index=0, item=item)
        await peer.finish(output=[item])
        await recorder.wait("response_completed")

        assert len(recorder.of("function_call_invoked")) == 1


@virtual
async def test_call_that_only_its_item_tells_of_is_taken() -> None:
    item = {
        "id": "item_c",
        "type": "function_call",
        "name": "look",
        "call_id": "call_1",
        "arguments": '{"a":1}',
    }
    async with session() as (_, peer, recorder):
        await peer.begin()
        await peer.say("response.output_item.done", response_id="resp_1", output_index=0, item=item)
        event = await recorder.wait("function_call_invoked")

        assert event.data["arguments"] == {"a": 1}


@virtual
async def test_request_waits_while_a_response_is_active() -> None:
    async with session() as (provider, peer, recorder):
        await peer.begin()
        await recorder.wait("response_started")
        await provider.send_text("One")
        await provider.send_text("Two")
        assert not peer.of("response.create")

        await peer.finish()
        await peer.wait("response.create")
        assert (
            len(peer.of("conversation.item.create")) == 1
        )  # The answer to it shall not answer the next too.
        await peer.begin("resp_2")
        await peer.finish("resp_2")
        await peer.wait("response.create", 2)

        assert len(peer.of("response.create")) == 2
        texts = [message["item"]["content"][0]["text"] for message in peer.of("conversation.item.create")]
        assert texts == ["One", "Two"]


@virtual
async def test_answer_to_a_result_comes_before_texts_that_wait_and_behind_words_that_do() -> None:
    async with session() as (provider, peer, recorder):
        await peer.begin()
        await peer.call("call_1", "look", "{}")
        await recorder.wait("function_call_invoked")
        await provider.speak("One moment.")
        await provider.send_text("And then?")
        await provider.send_tool_result("call_1", "done")
        for n in range(1, 4):
            await peer.finish(f"resp_{n}")
            await peer.wait("response.create", n)
            await peer.begin(f"resp_{n + 1}")
        await recorder.wait("response_started", 4)

        assert [event.data["trigger"] for event in recorder.of("response_started")[1:]] == [
            "say",
            "tool",
            "text",
        ]


@virtual
async def test_request_that_crossed_a_response_of_the_service_is_sent_again() -> None:
    async with session() as (provider, peer, recorder):
        refused: list[str] = []

        def refuse_once(message: Any) -> Any:
            if message.name != "response.create" or refused:
                return None
            refused.append(message.name)
            return ACTIVE

        peer.refuses = refuse_once
        # The service's own response begins while ours is on its way.
        await provider.send_text("Hello")
        await peer.begin("resp_vad")
        await peer.wait("response.create")
        await peer.finish("resp_vad")
        await peer.wait("response.create", 2)

        assert not recorder.of("error_general")


@virtual
async def test_refused_request_without_a_known_response_is_tried_again_soon() -> None:
    async with session() as (provider, peer, recorder):
        answers = [ACTIVE, ACTIVE, None]
        peer.refuses = lambda message: answers.pop(0) if message.name == "response.create" else None
        await provider.send_text("Hello")
        await peer.wait("response.create", 3)

        assert not recorder.of("error_general")


@virtual
async def test_request_refused_for_another_reason_is_an_error_and_the_next_one_goes_on() -> None:
    async with session() as (provider, peer, recorder):
        answers = [{"type": "invalid_request_error", "code": "invalid_value", "message": "No."}, None]
        peer.refuses = lambda message: answers.pop(0) if message.name == "response.create" else None
        await provider.send_text("Hello")
        event = await recorder.wait("error_general")
        await provider.send_text("Hello again")
        await peer.wait("response.create", 2)

        assert event.data["event"] == "response.create"
        assert event.data["event_id"] == peer.of("response.create")[0]["event_id"]


# -- laws -----------------------------------------------------------------------------------------


class QueueOfRequests(RuleBasedStateMachine):
    """Against a service that has room for one response: every request is answered, and none is refused."""

    def __init__(self) -> None:
        super().__init__()
        self.outstanding: list[Request] = []
        self.n_asked = self.n_answered = self.n_sent = self.n_responses = 0
        self.active: str | None = None
        self.queue = RequestQueue(self._send)

    def _send(self, request: Request) -> str:
        self.n_sent += 1
        self.outstanding.append(request)
        return f"evt_{self.n_sent}"

    def _begin(self) -> str:
        self.n_responses += 1
        self.active = f"resp_{self.n_responses}"
        return self.active

    @rule()
    def ask(self) -> None:
        self.n_asked += 1
        self.queue.ask("text")

    @precondition(lambda self: self.outstanding and self.active is None)
    @rule()
    def the_service_begins_it(self) -> None:
        self.outstanding.pop()
        self.n_answered += 1
        assert self.queue.started(self._begin()).request is not None

    @precondition(lambda self: self.outstanding and self.active is None)
    @rule()
    def the_service_begins_its_own_and_refuses_ours(self) -> None:
        refused = self.outstanding.pop()
        self.queue.started(self._begin())
        assert self.queue.refused(refused.event_id, is_race=True)

    @precondition(lambda self: not self.outstanding and self.active is None)
    @rule()
    def the_service_begins_its_own(self) -> None:
        assert self.queue.started(self._begin()).request is None

    @precondition(lambda self: self.active is not None)
    @rule()
    def it_ends(self) -> None:
        ended, self.active = self.active, None
        assert ended is not None
        self.queue.ended(ended)

    @invariant()
    def one_at_a_time(self) -> None:
        assert len(self.outstanding) <= 1
        assert not (self.outstanding and self.active)

    def teardown(self) -> None:
        while self.active is not None or self.outstanding:
            if self.active is not None:
                self.it_ends()
            else:
                self.the_service_begins_it()
        assert self.n_answered == self.n_asked
        assert self.queue.is_free


TestQueueOfRequests = QueueOfRequests.TestCase
TestQueueOfRequests.settings = settings(max_examples=60, stateful_step_count=30)


class RoundsOfCalls(RuleBasedStateMachine):
    """One request follows all the results of a response, whenever they come."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds = ToolRounds()
        self.open: dict[str, int] = {}
        self.n_ended = self.n_calls = self._calls_before = 0
        self.asked: list[int] = []

    def _is_over(self, response: int) -> bool:
        return response < self.n_ended and response not in self.open.values()

    @rule()
    def call(self) -> None:
        self.n_calls += 1
        self.open[f"call_{self.n_calls}"] = self.n_ended

        assert self.rounds.call(f"resp_{self.n_ended}", f"call_{self.n_calls}")
        assert not self.rounds.call(f"resp_{self.n_ended}", f"call_{self.n_calls}")

    @precondition(lambda self: self.open)
    @rule(newest=st.booleans())
    def answer(self, newest: bool) -> None:
        call_id = list(self.open)[-1 if newest else 0]
        response = self.open.pop(call_id)

        self.rounds.take(call_id)
        is_asked = self.rounds.answered(call_id)

        assert is_asked is self._is_over(response)
        self.asked += [response] * is_asked

    @rule()
    def response_ends(self) -> None:
        had_calls = self.n_calls > self._calls_before
        self.n_ended += 1
        is_asked = self.rounds.response_ended(f"resp_{self.n_ended - 1}")

        assert is_asked is (had_calls and self._is_over(self.n_ended - 1))
        self.asked += [self.n_ended - 1] * is_asked
        self._calls_before = self.n_calls

    @invariant()
    def asked_once(self) -> None:
        assert len(self.asked) == len(set(self.asked))


TestRoundsOfCalls = RoundsOfCalls.TestCase
TestRoundsOfCalls.settings = settings(max_examples=60, stateful_step_count=20)
