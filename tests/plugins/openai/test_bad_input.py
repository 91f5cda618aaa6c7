"""What a user, a tool or the service does wrong: one clear error, nothing left behind, nothing accepted lost."""

from __future__ import annotations

import asyncio
import gc
import math
from array import array
from collections.abc import Callable
from typing import Any

import pytest

from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.config import Deadlines, Reconnect
from voxengine.errors import (
    AudioFormatError,
    ConfigError,
    ErrorCode,
    JournalFull,
    ProviderError,
    UsageError,
    VoxEngineError,
)
from voxengine.events import Event, EventType
from voxengine.history import Item
from voxengine.testing import leak_check, virtual
from voxengine_openai import OpenAIProvider
from voxengine_openai.emulator import OpenAIEmulator

RATE = 24_000
SECOND = 2 * RATE
SPEECH = array("h", (int(9000 * math.sin(n / 17)) for n in range(RATE))).tobytes()
SCRIPT: dict[str, Any] = {
    "delay_ms": 0,
    "hears": ["Look it up."],
    "responses": {
        "*look it up*": {"tool": "look_up", "arguments": {"what": "x"}, "then": "It says {result}."}
    },
}
LIMITS = Deadlines(handshake_s=2, ready_s=2, first_output_s=3, progress_s=3)
ENDINGS = (EventType.CONNECTION_LOST, EventType.CONNECTION_FAILED, EventType.CONNECTION_CLOSED)
ERRORS = (EventType.ERROR_GENERAL, EventType.ERROR_AUDIO, EventType.ERROR_NETWORK)


def look_up(what: str) -> str:
    """Look something up."""
    return "nothing"


def engine_at(url: str, **options: Any) -> tuple[VoiceEngine, list[Event]]:
    """An engine for the emulator that takes a loss as final, and everything that it tells."""
    defaults: dict[str, Any] = {
        "tools": (look_up,),
        "metadata": {"url": url},
        "deadlines": LIMITS,
        "reconnect": Reconnect(budget_s=0),
    }
    taps = options.pop("taps", ())
    engine = VoiceEngine(VoiceEngineConfig(provider="openai", **{**defaults, **options}), taps=taps)
    events: list[Event] = []
    engine.events.on("*", events.append)
    return engine, events


def of(events: list[Event], *kinds: EventType) -> list[Event]:
    return [event for event in events if event.type in kinds]


def emulator(**options: Any) -> OpenAIEmulator:
    return OpenAIEmulator(script=SCRIPT, speed=20, **options)


def provider_of(engine: VoiceEngine) -> OpenAIProvider:
    assert engine.session is not None
    found = engine.session.provider
    assert isinstance(found, OpenAIProvider)
    return found


# -- what the application gives -------------------------------------------------------------------


@virtual
async def test_audio_that_cannot_be_taken_is_refused_whole_and_the_rest_is_heard() -> None:
    async with leak_check(), emulator().running() as url:
        engine, events = engine_at(url)
        async with engine:
            await engine.send_audio(SPEECH[: SECOND // 2])
            wrong: list[tuple[type[Exception], dict[str, Any]]] = [
                (AudioFormatError, {"audio_data": SPEECH[:-1]}),
                (AudioFormatError, {"audio_data": SPEECH, "sample_rate": 44_100}),
                (AudioFormatError, {"audio_data": SPEECH, "channels": 2}),
                (AudioFormatError, {"audio_data": "speech"}),
                (JournalFull, {"audio_data": bytes(600 * SECOND)}),
            ]
            for kind, arguments in wrong:
                with pytest.raises(kind):
                    await engine.send_audio(**arguments)
            await engine.send_audio(b"")
            await engine.send_audio(SPEECH[SECOND // 2 :])
            await engine.end_turn()
            await engine.wait_idle()

            item = engine.history.items[0]

    assert (item.kind, item.text) == ("user_audio", "Look it up.")
    assert 1000 <= item.audio_ms < 2500
    assert of(events, *ERRORS) == []


@virtual
@pytest.mark.parametrize("text", [None, 7, b"Hello", ["Hello"], "", " \n", "half a pair: \ud800"])
@pytest.mark.parametrize("method", ["send_text", "say"])
async def test_text_that_is_none_is_refused_and_nothing_is_sent(method: str, text: Any) -> None:
    async with leak_check(), emulator().running() as url:
        engine, events = engine_at(url)
        async with engine:
            with pytest.raises(UsageError, match=method):
                await getattr(engine, method)(text)
            await engine.wait_idle()

            assert len(engine.history) == 0
    assert of(events, EventType.RESPONSE_STARTED, *ERRORS) == []


def cyclic() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


@virtual
@pytest.mark.parametrize("session", [object(), cyclic(), {"tools": 1j}, {(1, 2): 3}])
async def test_event_that_is_no_json_is_refused_and_the_session_goes_on(session: Any) -> None:
    async with leak_check(), emulator().running() as url:
        engine, events = engine_at(url)
        async with engine:
            with pytest.raises(ConfigError, match=r"session\.update"):
                await provider_of(engine).send_event({"type": "session.update", "session": session})
            await engine.send_text("Hello")
            await engine.wait_idle()

    assert len(of(events, EventType.RESPONSE_COMPLETED)) == 1
    assert of(events, *ERRORS) == []


@virtual
@pytest.mark.parametrize(
    "metadata",
    [
        {"session": {"prompt": object()}},
        {"session": {"audio": 7}},
        {"session": {"audio": {"input": None}}},
        {"mcp_servers": ["docs"]},
        {"headers": {"x-trace": object()}},
        {"include": 7},
    ],
)
async def test_option_that_cannot_be_sent_is_named_before_anything_is_asked(metadata: dict[str, Any]) -> None:
    async with leak_check(), emulator().running() as url:
        engine, events = engine_at(url, metadata={"url": url, **metadata})
        with pytest.raises(ConfigError):
            await engine.connect()

        assert len(of(events, *ENDINGS)) == 1
        assert not engine.is_connected
        await engine.disconnect()


@virtual
@pytest.mark.parametrize(
    "event",
    [
        {"type": "conversation.item.delete", "item_id": "item_nobody"},
        {"type": "conversation.item.retrieve", "item_id": "item_nobody"},
        {"type": "conversation.item.create", "previous_item_id": "item_nobody", "item": {"type": "message"}},
        {"type": "response.create", "response": {"input": [{"type": "item_reference", "id": "item_nobody"}]}},
        {"type": "event.of.nobody"},
    ],
)
async def test_unknown_id_or_event_is_one_error_that_names_its_cause(event: dict[str, Any]) -> None:
    async with leak_check(), emulator().running() as url:
        engine, events = engine_at(url)
        async with engine:
            event_id = await provider_of(engine).send_event(event)
            await engine.send_text("Hello")
            await engine.wait_idle()

    (error,) = of(events, *ERRORS)
    assert (error.data["event_id"], error.data["event"]) == (event_id, event["type"])
    assert error.data["error"].code == ErrorCode.INVALID_REQUEST
    assert len(of(events, EventType.RESPONSE_COMPLETED)) == 1


@virtual
async def test_unknown_ids_of_the_programs_own_are_refused_here() -> None:
    async with leak_check(), emulator().running() as url:
        engine, events = engine_at(url, playback="external")
        async with engine:
            refused: list[Callable[[], object]] = [
                lambda: engine.mark_played("item_nobody", 10),
                lambda: engine.history.delete("item_nobody"),
                lambda: engine.history.edit("item_nobody", text="x"),
            ]
            for call in refused:
                with pytest.raises(UsageError, match="item_nobody"):
                    call()
            with pytest.raises(UsageError, match="call_nobody"):
                await provider_of(engine).send_tool_result("call_nobody", "x")
            with pytest.raises(UsageError, match="items"):
                await provider_of(engine).ask_aside("Hello", items=["item_nobody"])  # type: ignore[list-item]
            with pytest.raises(UsageError, match="conversation is 'none'"):
                await provider_of(engine).ask_aside("Hello", conversation="auto")

    assert of(events, *ERRORS) == []


@virtual
async def test_refused_image_is_one_error_and_the_conversation_goes_on() -> None:
    async with leak_check(), emulator().running() as url:
        engine, events = engine_at(url)
        async with engine:
            engine.history.append(Item("", "image", "a cat", image_url="https://example.com/cat.png"))
            await engine.wait_idle()
            await engine.send_text("Hello")
            await engine.wait_idle()

    (error,) = of(events, *ERRORS)
    assert "image_url" in str(error.data["error"])
    assert len(of(events, EventType.RESPONSE_COMPLETED)) == 1


# -- what a tool does -----------------------------------------------------------------------------


def raising(what: str) -> str:
    """Raise."""
    raise LookupError("no such book")


def unserialisable(what: str) -> object:
    """Return what JSON does not have."""
    return object()


async def hanging(what: str) -> str:
    """Take for ever."""
    await asyncio.Event().wait()
    return ""


@virtual
@pytest.mark.parametrize(
    ("tool", "told"),
    [
        (raising, "no such book"),
        (unserialisable, "JSON"),
        (hanging, "did not return within 0.1 s"),
    ],
)
async def test_tool_that_fails_is_one_event_and_the_agent_is_told(tool: Any, told: str) -> None:
    answer = {"tool": tool.__name__, "arguments": {"what": "x"}, "then": "It says {result}."}
    script = {**SCRIPT, "responses": {"*look it up*": answer}}
    async with leak_check(), OpenAIEmulator(script=script, speed=20).running() as url:
        engine, events = engine_at(url, tools=(tool,), tool_timeout_s=0.1)
        async with engine:
            await engine.send_text("Look it up.")
            await engine.wait_idle()
            said = engine.history.items[-1].text

    (failed,) = of(events, EventType.FUNCTION_CALL_FAILED)
    assert told in str(failed.error)
    assert of(events, EventType.FUNCTION_CALL_COMPLETED, *ERRORS) == []
    assert said.startswith("It says The tool failed: ")


@virtual
async def test_call_with_wrong_arguments_does_not_reach_the_tool() -> None:
    called: list[str] = []

    def guarded(what: int) -> str:
        """Take a number."""
        called.append("")
        return ""

    answer = {"tool": "guarded", "arguments": {"what": "seven"}, "then": "It says {result}."}
    script = {**SCRIPT, "responses": {"*look it up*": answer}}
    async with leak_check(), OpenAIEmulator(script=script, speed=20).running() as url:
        engine, events = engine_at(url, tools=(guarded,))
        async with engine:
            await engine.send_text("Look it up.")
            await engine.wait_idle()

    (failed,) = of(events, EventType.FUNCTION_CALL_FAILED)
    assert "what" in str(failed.error)
    assert called == []


# -- what the service does ------------------------------------------------------------------------

POINTS = [
    "ready",
    "configure:1",
    "first_input",
    "input:after_audio_ms=500",
    "turn:1",
    "response:1",
    "tool:1",
    "tool_result:1",
    "response:2",
    "response:2:after_audio_ms=100",
    "turn:2",
    "configure:2",
]
"""Every point of an exchange: its opening, a spoken turn with a tool, its answer, a written turn, settings."""


async def converse(engine: VoiceEngine) -> list[VoxEngineError]:
    """Speak, write and change the settings; return what was raised."""
    try:
        await engine.connect()
        await engine.send_audio(SPEECH)
        await engine.end_turn()
        await engine.wait_idle(timeout_s=15)
        await engine.configure_session(instructions="Be brief.")
        await engine.send_text("Hello")
        await engine.wait_idle(timeout_s=15)
    except VoxEngineError as error:
        return [error]
    return []


@virtual
@pytest.mark.parametrize(
    "fault",
    [
        "reset at=handshake",
        *(f"{do} at={point}" for point in POINTS for do in ("close code=1011", "reset", "oversized")),
    ],
)
async def test_service_that_breaks_off_at_any_point_is_one_ending(fault: str) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with leak_check(), emulator(faults=[fault]).running() as url:
        engine, events = engine_at(url)
        raised = await converse(engine)
        await engine.disconnect()
        kept = [item for item in engine.history if item.status == "completed"]

    gc.collect()
    assert [type(error) for error in raised] != []
    (ending,) = of(events, *ENDINGS)
    assert isinstance(ending.data["error"], ProviderError)
    assert of(events, *ERRORS) == []
    started, over = (
        of(events, EventType.RESPONSE_STARTED),
        (
            EventType.RESPONSE_COMPLETED,
            EventType.RESPONSE_CANCELLED,
        ),
    )
    assert len(of(events, *over)) == len(started)
    n_done = len(of(events, EventType.FUNCTION_CALL_COMPLETED))
    assert sum(item.kind == "tool_result" for item in kept) == n_done
    assert complaints == []


@virtual
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("kind", ["text", "binary"])
async def test_malformed_message_at_any_point_is_one_error(kind: str, point: str) -> None:
    async with leak_check(), emulator(faults=[f"garbage at={point} as={kind}"]).running() as url:
        engine, events = engine_at(url)
        raised = await converse(engine)
        await engine.disconnect()

    errors = [*(event.data["error"] for event in of(events, *ERRORS)), *raised]
    assert [error.code for error in errors] == [ErrorCode.PROTOCOL]
    assert len(of(events, *ENDINGS)) == 1
    if not raised:
        assert [item.kind for item in engine.history][:4] == [
            "user_audio",
            "tool_call",
            "tool_result",
            "agent",
        ]
        assert len(of(events, EventType.RESPONSE_COMPLETED)) == 3


@virtual
@pytest.mark.parametrize("point", ["configure:2", "response:1", "response:2:after_audio_ms=100", "tool:1"])
async def test_refusal_in_the_words_of_the_service_is_one_error(point: str) -> None:
    fault = f"error at={point} code=invalid_request"
    async with leak_check(), emulator(faults=[fault]).running() as url:
        engine, events = engine_at(url)
        raised = await converse(engine)
        await engine.disconnect()

    errors = [*(event.data["error"] for event in of(events, *ERRORS)), *raised]
    assert [error.code for error in errors] == [ErrorCode.INVALID_REQUEST]


@virtual
@pytest.mark.parametrize("point", ["ready", "configure:1", "tool:1", "tool_result:1", "response:2", "turn:2"])
async def test_service_that_falls_silent_is_noticed_in_time(point: str) -> None:
    async with leak_check(), emulator(faults=[f"stall at={point}"]).running() as url:
        engine, events = engine_at(url)
        began = asyncio.get_running_loop().time()
        raised = await converse(engine)
        took_s = asyncio.get_running_loop().time() - began
        await engine.disconnect()

    assert len(raised) == 1
    (ending,) = of(events, *ENDINGS)
    assert ending.data["error"].code == ErrorCode.TIMEOUT
    assert took_s < 14


@virtual
async def test_what_a_lost_session_had_been_told_is_answered_by_the_next() -> None:
    async with leak_check(), emulator(faults=["reset at=input:after_audio_ms=500"]).running() as url:
        engine, events = engine_at(url)
        lost = asyncio.Event()
        engine.events.on(EventType.CONNECTION_LOST, lambda _: lost.set())
        await engine.connect()
        await engine.send_audio(SPEECH)
        await lost.wait()

        again = VoiceEngineConfig(provider="openai", metadata={"url": url}, tools=(look_up,))
        await engine.switch_provider("openai", again)
        await engine.end_turn()
        await engine.wait_idle()
        said = [item.text for item in engine.history if item.kind in ("user_audio", "agent")]
        heard = engine.history.items[0].audio_ms
        await engine.disconnect()

    assert said == ["Look it up.", "It says nothing."]
    assert heard >= 1000
    assert len(of(events, EventType.CONNECTION_LOST)) == 1


# -- say ------------------------------------------------------------------------------------------


@virtual
@pytest.mark.parametrize(
    "text", ["Welcome aboard.", "Call look_up {now}.", "One.\nTwo >>> three <<<\nfour.", "<<<\nfive\n>>>"]
)
async def test_text_to_say_is_said_word_for_word(text: str) -> None:
    async with leak_check(), emulator().running() as url:
        engine, events = engine_at(url)
        async with engine:
            await engine.send_text("Hello")
            await engine.wait_idle()
            await engine.say(text)
            await engine.wait_idle()
            said = engine.history.items[-1].text

    assert said.split() == text.split()
    assert of(events, EventType.FUNCTION_CALL_INVOKED, *ERRORS) == []
