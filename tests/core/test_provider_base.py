"""BaseProvider: a class of the provider guide works without knowing anything about sessions."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.core.providers_for_tests import Plain, Sink, remade
from voxengine.capabilities import (
    FULL,
    HOOK_CAPABILITIES,
    PLANNED,
    UNSUPPORTED,
    Capabilities,
    Support,
    partial,
)
from voxengine.errors import CapabilityMissing, UsageError
from voxengine.events import Event, EventType, LazyAudio, make_event
from voxengine.hookspecs import OPTIONAL_HOOKS
from voxengine.providers.base import BaseProvider, effective_capabilities, overrides
from voxengine.testing import virtual


async def attached(cls: type[BaseProvider] = Plain) -> tuple[Any, Sink]:
    """Return a connected provider and what listens to it."""
    provider, sink = cls({}), Sink()
    provider.attach(sink)
    await provider.connect()
    return provider, sink


# --- A provider on its own -------------------------------------------------------------------------


def test_complete_subclass_works_when_built_with_an_empty_mapping() -> None:
    provider = Plain({})

    assert (provider.config, provider.connection, provider.session_id) == ({}, None, None)
    assert not provider.is_connected
    assert provider.on_event is None
    assert provider.wire_observer is None


async def test_subclass_whose_constructor_calls_no_super_works() -> None:
    class Acme(Plain):
        def __init__(self, config: dict[str, Any]) -> None:
            self.endpoint = config.get("endpoint")

    provider = Acme({"endpoint": "x"})
    await provider.connect()
    await provider.send_text("hello")

    assert provider.is_connected
    assert provider.config is None


def test_incomplete_subclass_cannot_be_built() -> None:
    incomplete: Any = type("Acme", (BaseProvider,), {})

    with pytest.raises(TypeError, match="abstract"):
        incomplete({})


async def test_listener_of_the_user_gets_every_event() -> None:
    provider = Plain({})
    heard: list[Event] = []
    provider.on_event = heard.append

    await provider.connect()
    await provider.send_text("Test")

    assert [(event.type, event.text) for event in heard] == [(EventType.TEXT_OUTPUT, "Test")]
    assert (heard[0].provider, heard[0].session_epoch) == ("Plain", 0)


def test_events_before_connect_carry_the_time_zero() -> None:
    provider = Plain({})
    heard: list[Event] = []
    provider.on_event = heard.append

    provider.emit_event("warning", {"code": "early"})

    assert heard == [make_event("warning", {"code": "early"}, provider="Plain")]


@virtual
async def test_events_carry_the_time_of_the_loop() -> None:
    provider, _ = await attached()
    heard: list[Event] = []
    provider.on_event = heard.append

    await asyncio.sleep(3)
    provider.warn("late", "It is late.")

    assert heard[0].timestamp == asyncio.get_running_loop().time()
    assert (heard[0].code, heard[0].message) == ("late", "It is late.")


async def test_nobody_listening_is_no_error() -> None:
    provider = Plain({})

    await provider.connect()
    await provider.send_text("into the void")
    await provider.disconnect()

    assert not provider.is_connected


# --- is_connected ----------------------------------------------------------------------------------


async def test_connected_from_the_return_of_connect_until_disconnect() -> None:
    states: list[bool] = []

    class Acme(Plain):
        async def connect(self) -> None:
            states.append(self.is_connected)

        async def disconnect(self) -> None:
            states.append(self.is_connected)

    provider, sink = await attached(Acme)
    states.append(provider.is_connected)
    await provider.disconnect()

    assert [*states, provider.is_connected] == [False, True, True, False]
    assert sink.losses == 0


async def test_failed_connect_leaves_it_unconnected() -> None:
    async def fail(self: Any) -> None:
        raise OSError("no route")

    provider = remade("Acme", connect=fail)({})

    with pytest.raises(OSError, match="no route"):
        await provider.connect()
    assert not provider.is_connected


async def test_failed_disconnect_ends_it_all_the_same() -> None:
    async def fail(self: Any) -> None:
        raise OSError("gone")

    provider, _ = await attached(remade("Acme", disconnect=fail))

    with pytest.raises(OSError, match="gone"):
        await provider.disconnect()
    assert not provider.is_connected


async def test_only_the_outermost_of_nested_connects_counts() -> None:
    states: list[bool] = []

    class Child(Plain):
        async def connect(self) -> None:
            await super().connect()
            states.append(self.is_connected)

        async def disconnect(self) -> None:
            await super().disconnect()
            states.append(self.is_connected)

    provider, _ = await attached(Child)
    states.append(provider.is_connected)
    await provider.disconnect()

    assert [*states, provider.is_connected] == [False, True, True, False]


async def test_inherited_connect_counts_as_well() -> None:
    provider, _ = await attached(remade("Child"))

    assert provider.is_connected


class Dialling:
    """A mix-in that is no provider."""

    async def connect(self) -> None: ...

    async def disconnect(self) -> None: ...


def passing_on(method: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., Coroutine[Any, Any, None]]:
    @functools.wraps(method)
    def call(*args: Any) -> Coroutine[Any, Any, None]:
        return method(*args)

    return call


@pytest.mark.parametrize(
    "cls",
    [
        type("Mixed", (Dialling, Plain), {}),
        type("Decorated", (Plain,), {"connect": passing_on(Dialling.connect)}),
        type("Grandchild", (type("Mixed", (Dialling, Plain), {}),), {}),
    ],
)
async def test_connect_from_a_mixin_or_a_decorator_counts(cls: type[BaseProvider]) -> None:
    provider, _ = await attached(cls)
    states = [provider.is_connected]

    await provider.disconnect()

    assert [*states, provider.is_connected] == [True, False]


async def test_setting_it_false_reports_a_loss_once() -> None:
    provider, sink = await attached()

    provider.is_connected = False
    provider.is_connected = False

    assert sink.losses == 1
    assert not provider.is_connected


async def test_setting_it_false_during_disconnect_is_no_loss() -> None:
    async def closing(self: Any) -> None:
        self.is_connected = False

    provider, sink = await attached(remade("Acme", disconnect=closing))

    await provider.disconnect()

    assert sink.losses == 0


async def test_connect_that_cleans_up_and_tries_again_still_reports_a_later_loss() -> None:
    async def stubborn(self: Any) -> None:
        await self.disconnect()

    provider, sink = await attached(remade("Acme", connect=stubborn))
    was_connected = provider.is_connected

    provider.is_connected = False

    assert was_connected
    assert sink.losses == 1


async def test_emitting_connection_lost_ends_it() -> None:
    provider, sink = await attached()

    provider.emit_event(EventType.CONNECTION_LOST, {"error": OSError("gone")})

    assert not provider.is_connected
    assert [event_type for event_type, _ in sink.events] == [EventType.CONNECTION_LOST]
    assert sink.losses == 0


# --- emit_event ------------------------------------------------------------------------------------


async def test_event_is_given_by_type_by_word_or_finished() -> None:
    provider, sink = await attached()
    finished = make_event(
        "text_output", {"text": "c", "more": 1}, timestamp=9.0, provider="x", session_epoch=4
    )

    provider.emit_event(EventType.TEXT_OUTPUT, {"text": "a"})
    provider.emit_event("text_output", {"text": "b"})
    provider.emit_event(finished)
    provider.emit_event("speech_started")

    assert sink.events == [
        (EventType.TEXT_OUTPUT, {"text": "a"}),
        (EventType.TEXT_OUTPUT, {"text": "b"}),
        (EventType.TEXT_OUTPUT, {"text": "c", "more": 1}),
        (EventType.SPEECH_STARTED, {}),
    ]


async def test_unknown_type_is_refused_where_it_is_emitted() -> None:
    provider, sink = await attached()

    with pytest.raises(UsageError, match="'sunrise'"):
        provider.emit_event("sunrise", {})
    assert sink.events == []


async def test_data_is_copied() -> None:
    provider, sink = await attached()
    data = {"text": "before"}

    provider.emit_event("text_output", data)
    data["text"] = "after"

    assert sink.events[0][1]["text"] == "before"


async def test_finished_event_keeps_its_audio_encoded() -> None:
    provider, sink = await attached()
    decoded: list[bytes] = []

    def decode(encoded: bytes) -> bytes:
        decoded.append(encoded)
        return encoded

    audio = LazyAudio(b"x", decode)

    provider.emit_event(make_event("audio_output_chunk", {"audio_data": audio}))

    assert decoded == []
    assert sink.events[0][1]["audio_data"] is audio


async def test_event_from_another_thread_arrives_on_the_loop() -> None:
    provider, _ = await attached()
    arrived: asyncio.Future[tuple[str, int]] = asyncio.get_running_loop().create_future()
    provider.on_event = lambda event: arrived.set_result((event.text, threading.get_ident()))

    await asyncio.to_thread(provider.emit_event, "text_output", {"text": "from afar"})

    assert await arrived == ("from afar", threading.get_ident())


async def test_loss_noticed_in_another_thread_arrives_on_the_loop() -> None:
    provider, sink = await attached()
    reported: list[int] = []
    sink.provider_lost = lambda: reported.append(threading.get_ident())  # type: ignore[method-assign]

    await asyncio.to_thread(setattr, provider, "is_connected", False)
    await asyncio.sleep(0)

    assert reported == [threading.get_ident()]


def test_event_after_the_loop_has_closed_is_dropped_silently() -> None:
    provider, sink = asyncio.run(attached())
    thread = threading.Thread(target=provider.emit_event, args=("warning", {"code": "late"}))

    thread.start()
    thread.join()

    assert sink.events == []


async def test_detached_provider_reports_nothing() -> None:
    provider, sink = await attached()

    provider.attach(None)
    provider.emit_event("warning", {"code": "late"})
    provider.is_connected = False

    assert sink.events == []
    assert sink.losses == 0


# --- Tasks -----------------------------------------------------------------------------------------


async def test_task_is_cancelled_and_awaited_by_disconnect() -> None:
    ended: list[str] = []
    started = asyncio.Event()

    async def read() -> None:
        try:
            started.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("reader")

    provider, sink = await attached()
    task = provider.start_task(read(), name="reader")
    await started.wait()
    await provider.disconnect()

    assert ended == ["reader"]
    assert task.cancelled()
    assert task.get_name() == "reader"
    assert sink.events == []


async def test_task_of_a_failed_connect_is_ended() -> None:
    tasks: list[asyncio.Task[None]] = []

    async def fail(self: Any) -> None:
        tasks.append(self.start_task(asyncio.Event().wait()))
        raise OSError("no route")

    provider = remade("Acme", connect=fail)({})

    with pytest.raises(OSError, match="no route"):
        await provider.connect()
    assert tasks[0].cancelled()


async def test_failing_task_becomes_an_error_event() -> None:
    error = ValueError("bad message")

    async def read() -> None:
        raise error

    provider, sink = await attached()
    task = provider.start_task(read())
    await asyncio.wait([task])
    await asyncio.sleep(0)

    assert sink.events == [(EventType.ERROR_GENERAL, {"error": error, "recoverable": False})]


async def test_task_that_ends_by_itself_is_no_event() -> None:
    provider, sink = await attached()

    await provider.start_task(asyncio.sleep(0))
    await provider.disconnect()

    assert sink.events == []


async def test_task_may_disconnect_the_provider_that_it_belongs_to() -> None:
    provider, sink = await attached()

    await provider.start_task(provider.disconnect())

    assert not provider.is_connected
    assert sink.losses == 0


@virtual
async def test_task_that_refuses_to_end_does_not_hold_disconnect_for_ever() -> None:
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    provider, _ = await attached()
    task = provider.start_task(stubborn())
    await asyncio.sleep(0)
    await provider.disconnect()
    still_running = not task.done()
    release.set()
    await task

    assert still_running
    assert not provider.is_connected


# --- Optional hooks and capabilities ---------------------------------------------------------------

CALLS: dict[str, tuple[Any, ...]] = {
    "end_turn": (True,),
    "discard_input": (),
    "send_tool_result": ("call-1", "{}", False),
    "load_history": ([],),
    "send_item": (None,),
    "speak": ("Hello", True),
    "resume": ("handle",),
}


def test_every_optional_hook_without_an_answer_of_its_own_is_tried() -> None:
    assert {*CALLS, "get_usage", "estimate_cost"} == set(OPTIONAL_HOOKS)


@pytest.mark.parametrize("hook", CALLS)
async def test_hook_that_was_not_implemented_names_its_capability(hook: str) -> None:
    with pytest.raises(CapabilityMissing, match=rf"Plain does not implement {hook}\(\)") as caught:
        await getattr(Plain({}), hook)(*CALLS[hook])

    assert caught.value.capability == HOOK_CAPABILITIES[hook]


async def test_usage_and_cost_are_unknown_and_no_error() -> None:
    assert await Plain({}).get_usage() is None
    assert await Plain({}).estimate_cost() is None
    assert not Plain({}).try_send_audio(b"\0\0")


@pytest.mark.parametrize("hook", OPTIONAL_HOOKS)
def test_unknown_cell_of_a_hook_follows_from_the_class(hook: str) -> None:
    async def method(self: Any, *args: object) -> None: ...

    row = HOOK_CAPABILITIES[hook]
    with_hook, without = remade("With", **{hook: method}), Plain

    assert overrides(with_hook, hook)
    assert not overrides(without, hook)
    assert effective_capabilities(with_hook, {}).support(row) == FULL
    assert effective_capabilities(without, {}).support(row) == UNSUPPORTED


@pytest.mark.parametrize("cell", [PLANNED, UNSUPPORTED, FULL, partial("at night")])
def test_declared_cell_wins_over_the_class(cell: Any) -> None:
    declared = remade("Acme", capabilities=Capabilities(speak=cell, dialogue=cell))

    effective = effective_capabilities(declared, {})

    assert (effective.speak, effective.dialogue) == (cell, cell)


def test_unknown_dialogue_counts_as_dialogue_and_other_rows_stay_unknown() -> None:
    effective = effective_capabilities(Plain, {})

    assert effective.dialogue == FULL
    assert effective.cancel.support is Support.UNKNOWN


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, "class"),
        ({"metadata": {}}, "class"),
        ({"metadata": None}, "class"),
        ({"metadata": {"service": "tts"}}, "tts"),
        ({"metadata": {"service": "unheard of"}}, "class"),
        ({"metadata": {"service": ["tts"]}}, "class"),
    ],
)
def test_service_of_the_metadata_chooses_the_capabilities(config: dict[str, Any], expected: str) -> None:
    cls = remade(
        "Acme", capabilities=Capabilities(voices=("class",)), services={"tts": Capabilities(voices=("tts",))}
    )

    assert cls.capabilities_for(config).voices == (expected,)


# --- Helpers for a read loop of one's own ----------------------------------------------------------


async def test_receive_message_reads_from_the_connection() -> None:
    class Connection:
        async def recv(self) -> str:
            return "message"

    provider = Plain({})
    provider.connection = Connection()

    assert await provider.receive_message() == "message"


async def test_receive_message_without_a_connection_says_what_to_set() -> None:
    with pytest.raises(UsageError, match=r"Plain has no connection.*connect\(\)"):
        await Plain({}).receive_message()


@pytest.mark.parametrize(
    ("raw", "name", "payload"),
    [
        ('{"type": "hello", "n": 1}', "hello", {"type": "hello", "n": 1}),
        ({"type": "hello"}, "hello", {"type": "hello"}),
        ('{"type": 3}', "message", {"type": 3}),
        ("[1, 2]", "message", [1, 2]),
        ("not json", "message", "not json"),
        (b"\x00\x01", "message", b"\x00\x01"),
    ],
)
def test_message_is_translated_without_losing_any_of_it(raw: Any, name: str, payload: Any) -> None:
    event = Plain({}).translate_event(raw)

    assert (event.type, event.name, event.payload) == (EventType.VENDOR_EVENT, name, payload)


async def test_translated_event_can_be_emitted_as_the_guide_shows() -> None:
    provider, sink = await attached()
    event = provider.translate_event('{"type": "hello"}')

    provider.emit_event(event.type, event.data)

    assert sink.events == [(EventType.VENDOR_EVENT, {"name": "hello", "payload": {"type": "hello"}})]


def test_wire_observer_is_handed_over_with_the_sink() -> None:
    provider = Plain({})
    observer = lambda direction, wire, now: None  # noqa: E731

    provider.attach(Sink(), observer)

    assert provider.wire_observer is observer
