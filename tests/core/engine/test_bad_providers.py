"""Providers, handlers and taps that break, lie, block or babble: the engine says so and stays whole."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK
from websockets.frames import Close

from tests.core.engine.fakes import (
    Call,
    Document,
    Puppet,
    Seen,
    calling,
    kind,
    registry,
    silence,
    speak,
    speech,
    turns,
)
from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.capabilities import Capabilities
from voxengine.errors import (
    ConfigError,
    ConnectionLost,
    ErrorCode,
    LocalProtocolError,
    ProviderError,
    VoxEngineError,
)
from voxengine.events import EventType, LazyAudio, event_class
from voxengine.taps import SLOW_TAP_S
from voxengine.testing import leak_check, run_virtual, virtual

CLOSED = ConnectionClosedError(Close(1011, "keepalive timeout"), None)
BREAKAGES = [
    (RuntimeError("broken"), ErrorCode.UNKNOWN, False),
    (KeyError("missing"), ErrorCode.UNKNOWN, False),
    (OSError("no route"), ErrorCode.UNAVAILABLE, False),
    (TimeoutError(), ErrorCode.TIMEOUT, False),
    (ConnectionResetError("reset"), ErrorCode.CONNECTION_LOST, True),
    (CLOSED, None, True),
    (ConnectionClosedOK(Close(1000, ""), Close(1000, ""), True), None, True),
    (ProviderError("theirs", code=ErrorCode.QUOTA), ErrorCode.QUOTA, False),
]
CALLS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "send_text": ("send_text", ("hello",)),
    "say": ("speak", ("hello",)),
    "end_turn": ("end_turn", ()),
    "configure_session": ("configure_session", ()),
}


@pytest.mark.parametrize(("error", "code", "is_loss"), BREAKAGES, ids=lambda held: type(held).__name__)
@pytest.mark.parametrize("method", CALLS)
@virtual
async def test_exception_of_a_call_becomes_a_provider_error(
    method: str, error: Exception, code: ErrorCode | None, is_loss: bool
) -> None:
    hook, args = CALLS[method]
    async with leak_check():
        async with calling(kind(behaviour={hook: error}), turn_detection="manual") as call:
            with pytest.raises(ProviderError) as caught:
                await getattr(call.engine, method)(*args)

            raised = caught.value
            assert raised.provider == "one"
            assert code is None or raised.code == code
            assert raised is error or raised.__cause__ is error
            assert call.engine.is_connected == (not is_loss)
            assert len(call.seen.of(EventType.CONNECTION_LOST)) == is_loss
    assert call.seen.session_endings() == {1: ["connection_lost" if is_loss else "connection_closed"]}


@pytest.mark.parametrize(("error", "code", "is_loss"), BREAKAGES, ids=lambda held: type(held).__name__)
@virtual
async def test_exception_of_connect_becomes_a_provider_error(
    error: Exception, code: ErrorCode | None, is_loss: bool
) -> None:
    cls = kind(behaviour={"connect": error})
    engine = VoiceEngine(VoiceEngineConfig(provider="one"), registry=registry(one=cls))
    seen = Seen(engine)
    async with leak_check():
        with pytest.raises(ProviderError) as caught:
            await engine.connect()

    assert caught.value.provider == "one"
    assert code is None or caught.value.code == code
    assert "10 s" not in str(caught.value)  # No deadline of ours passed.
    assert seen.session_endings() == {}
    assert cls.made[0].of("disconnect") == [()]


@pytest.mark.parametrize(("error", "code", "is_loss"), BREAKAGES, ids=lambda held: type(held).__name__)
@virtual
async def test_exception_of_send_audio_is_an_event_said_once(
    error: Exception, code: ErrorCode | None, is_loss: bool
) -> None:
    async with calling(kind(behaviour={"send_audio": error})) as call:
        for _ in range(5):
            if call.engine.is_connected:
                await speak(call.engine, speech(20), paced=True)

        errors = [event for event in call.seen.events if event.type.startswith("error_")]
        assert len(errors) == (not is_loss)
        assert len(call.seen.of(EventType.CONNECTION_LOST)) == is_loss


@pytest.mark.parametrize("hook", ["get_usage", "estimate_cost"])
@virtual
async def test_exception_of_accounting_is_an_event_and_the_last_known_stays(hook: str) -> None:
    async with calling(kind(behaviour={hook: RuntimeError("no")})) as call:
        call.provider().emit_event(EventType.USAGE_UPDATED, {"usage": {"tokens": 3}})

        assert await call.engine.get_usage() == {"tokens": 3}
        assert await call.engine.estimate_cost() is None
        assert len(call.seen.of(EventType.ERROR_GENERAL)) == 2


@virtual
async def test_exception_of_disconnect_is_a_warning() -> None:
    async with calling(kind(behaviour={"disconnect": RuntimeError("no")})) as call:
        pass

    assert call.seen.codes() == ["disconnect_failed"]
    assert call.seen.session_endings() == {1: ["connection_closed"]}


class NeedsRegion(Puppet):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        if config:
            self.region = config["metadata"]["region"]


class Explodes(Puppet):
    def __init__(self, config: dict[str, Any]) -> None:
        if config:
            raise ZeroDivisionError
        super().__init__(config)


class Unsure(Puppet):
    @classmethod
    def capabilities_for(cls, config: Any) -> Capabilities:
        if config.get("mode"):
            raise RuntimeError("hm")
        return cls.capabilities


@pytest.mark.parametrize(
    ("cls", "says"),
    [(NeedsRegion, "misses 'region'"), (Explodes, "could not be made"), (Unsure, "capabilities_for")],
)
@virtual
async def test_provider_that_cannot_be_made_is_a_provider_error(cls: Any, says: str) -> None:
    engine = VoiceEngine(VoiceEngineConfig(provider="one"), registry=registry(one=kind(cls)))

    with pytest.raises(ProviderError, match=says):
        await engine.connect()

    assert not engine.is_connected


@pytest.mark.parametrize("cls", [int, Puppet({}), lambda: None, asyncio, type("Half", (), {})])
def test_what_is_no_provider_is_refused_with_a_sentence(cls: Any) -> None:
    with pytest.raises(LocalProtocolError):
        registry(one=cls)


# -- babble -------------------------------------------------------------------------------------------

NONSENSE: list[tuple[EventType, dict[str, Any]]] = [
    (EventType.TEXT_OUTPUT, {"text": 5}),
    (EventType.TEXT_OUTPUT, {"text": "x", "delta": b"x"}),
    (EventType.TEXT_OUTPUT, {"text": "x", "item_id": []}),
    (EventType.TEXT_OUTPUT, {"text": "x", "response_id": 7}),
    (EventType.AUDIO_OUTPUT_CHUNK, {}),
    (EventType.AUDIO_OUTPUT_CHUNK, {"audio_data": None}),
    (EventType.AUDIO_OUTPUT_CHUNK, {"audio_data": "AAAA"}),
    (EventType.AUDIO_OUTPUT_CHUNK, {"audio_data": b"xx", "sample_rate": "fast"}),
    (EventType.AUDIO_OUTPUT_CHUNK, {"audio_data": b"xx", "sample_rate": 3}),
    (EventType.AUDIO_OUTPUT_CHUNK, {"audio_data": b"xx", "channels": -1}),
    (EventType.INPUT_TRANSCRIPT, {"text": ["x"]}),
    (EventType.SPEECH_STARTED, {"at_ms": "soon"}),
    (EventType.SPEECH_ENDED, {"at_ms": float("nan")}),
    (EventType.FUNCTION_CALL_INVOKED, {"name": "x", "call_id": "c", "arguments": 5}),
    (EventType.RESPONSE_STARTED, {"response_id": {}}),
    (EventType.RESPONSE_COMPLETED, {"response_id": ()}),
]


@pytest.mark.parametrize(("event_type", "data"), NONSENSE, ids=lambda held: str(held)[:40])
@virtual
async def test_nonsense_is_reported_once_and_does_not_stop_the_provider(
    event_type: EventType, data: dict[str, Any]
) -> None:
    async with calling() as call:
        one = call.provider()
        one.emit_event(event_type, data)
        one.emit_event(event_type, data)
        one.answers("All the same.", "r9", "i9")

        errors = call.seen.of(EventType.ERROR_GENERAL)
        assert len(errors) == 1
        assert event_type.name in str(errors[0].error)
        assert call.seen.of(EventType.TEXT_OUTPUT)[-1].text == "All the same."


HARMLESS: list[tuple[EventType, dict[str, Any]]] = [
    (EventType.TEXT_OUTPUT, {"text": None}),
    (EventType.TEXT_OUTPUT, {}),
    (EventType.AUDIO_OUTPUT_CHUNK, {"audio_data": b""}),
    (EventType.AUDIO_OUTPUT_CHUNK, {"audio_data": bytearray(4)}),
    (EventType.RESPONSE_COMPLETED, {"response_id": "unknown"}),
    (EventType.RESPONSE_CANCELLED, {}),
    (EventType.SPEECH_MARK, {"response_id": "unknown", "at_ms": "x"}),
    (EventType.SPEECH_ENDED, {"at_ms": 10**12}),
    (EventType.SPEECH_STARTED, {"at_ms": -5}),
    (EventType.EMOTION, {"item_id": "unknown", "label": "joy"}),
    (EventType.USAGE_UPDATED, {"usage": 5}),
    (EventType.SESSION_UPDATED, {"settings": None}),
    (EventType.SESSION_EXPIRING, {}),
    (EventType.VENDOR_EVENT, {"name": 5, "payload": object()}),
    (EventType.ERROR_GENERAL, {}),
    (EventType.WARNING, {"message": 5}),
]


@pytest.mark.parametrize(("event_type", "data"), HARMLESS, ids=lambda held: str(held)[:40])
@virtual
async def test_odd_but_harmless_events_are_taken(event_type: EventType, data: dict[str, Any]) -> None:
    async with calling() as call:
        await speak(call.engine, speech(100), paced=True)
        call.provider().emit_event(event_type, data)
        call.provider().answers("Yes.", "r9", "i9")

        reported = [event for event in call.seen.of(EventType.ERROR_GENERAL) if event.error is not None]
        assert reported == []
        assert call.engine.is_connected


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.text(max_size=3),
    st.binary(max_size=5),
    st.just([]),
    st.just({}),
)
SAID = st.sampled_from([held for held in EventType if not held.startswith("connection_")])


@given(
    st.lists(
        st.tuples(SAID, st.dictionaries(st.sampled_from(["response_id", "item_id", "text"]), VALUES), VALUES)
    )
)
def test_no_event_whatsoever_raises_into_the_provider(
    babble: list[tuple[EventType, dict[str, Any], Any]],
) -> None:
    async def play() -> None:
        async with calling() as call:
            await call.engine.send_text("Hello")
            for event_type, data, value in babble:
                fields = event_class(event_type).fields
                call.provider().emit_event(event_type, {**dict.fromkeys(fields, value), **data})
            call.engine.interrupt()
            await asyncio.sleep(0.6)
            assert all(count == 1 for count in call.seen.endings().values() if count)

    run_virtual(play())


@virtual
async def test_audio_that_cannot_be_decoded_is_an_error_event() -> None:
    def decode(_: Any) -> bytes:
        raise ValueError("not base64")

    async with calling() as call:
        call.provider().starts()
        call.provider().sounds(0, audio_data=LazyAudio("?", decode))

        assert "could not be taken" in str(call.seen.one(EventType.ERROR_GENERAL).error)


@virtual
async def test_events_after_disconnect_go_nowhere() -> None:
    async with calling() as call:
        pass
    n_before = len(call.seen.events)

    call.provider().answers("Hello?")
    call.provider().is_connected = False

    assert len(call.seen.events) == n_before


@virtual
async def test_events_from_another_thread_arrive_on_the_loop() -> None:
    threads: list[int] = []
    async with calling() as call:
        call.engine.events.on(EventType.TEXT_OUTPUT, lambda event: threads.append(threading.get_ident()))
        await asyncio.to_thread(call.provider().answers, "From afar.")
        await turns()

        assert threads == [threading.get_ident()]


@virtual
async def test_task_of_a_provider_that_dies_is_an_error_event() -> None:
    async def die() -> None:
        raise RuntimeError("reader died")

    async with calling() as call:
        call.provider().start_task(die())
        await turns()

        assert "reader died" in str(call.seen.one(EventType.ERROR_GENERAL).error)


@virtual
async def test_cancellation_inside_the_provider_is_its_fault_and_not_the_callers() -> None:
    async with calling(kind(behaviour={"send_text": asyncio.CancelledError()})) as call:
        with pytest.raises(ProviderError, match="cancelled inside"):
            await call.engine.send_text("hello")

        assert call.engine.is_connected


def hold_the_loop() -> None:
    """Be busy for longer than a handler or tap may."""
    end = time.perf_counter() + SLOW_TAP_S * 1.2
    while time.perf_counter() < end:
        pass


# -- handlers and taps ----------------------------------------------------------------------------------


@virtual
async def test_handler_that_raises_or_blocks_harms_nobody_and_is_reported() -> None:
    async with calling() as call:
        texts: list[str] = []

        def raising(event: object) -> None:
            raise RuntimeError("handler")

        call.engine.events.on(EventType.TEXT_OUTPUT, raising, priority=2)
        call.engine.events.on(EventType.TEXT_OUTPUT, lambda event: hold_the_loop(), priority=1)
        call.engine.events.on(EventType.TEXT_OUTPUT, lambda event: texts.append(event.text))
        call.provider().starts()
        call.provider().writes("one")
        call.provider().writes("two")

        assert texts == ["one", "two"]
        assert len(call.seen.of(EventType.ERROR_GENERAL)) == 1
        assert call.seen.codes() == ["slow_handler"]


class Breaking:
    def on_input(self, chunk: bytes) -> bytes | None:
        raise RuntimeError("in")

    def on_output(self, chunk: bytes) -> bytes | None:
        raise RuntimeError("out")

    def on_event(self, event: Any) -> Any:
        if event.type == EventType.TEXT_OUTPUT:
            raise RuntimeError("event")
        return event


@virtual
async def test_tap_that_raises_means_pass_and_is_reported_once() -> None:
    async with calling(taps=[Breaking()]) as call:
        for _ in range(3):
            await speak(call.engine, speech(20), paced=True)
        call.provider().answers("Yes.", ms=100)
        call.provider().answers("Yes.", "r2", "i2", ms=100)

        assert bytes(call.provider().audio) == speech(20) * 3
        assert len(call.seen.audio()) == len(silence(200))
        assert len(call.seen.of(EventType.TEXT_OUTPUT)) == 2
        assert sorted(event.data["tap"] for event in call.seen.of(EventType.ERROR_GENERAL)) == [
            "Breaking.on_event",
            "Breaking.on_input",
            "Breaking.on_output",
        ]


@virtual
async def test_tap_that_blocks_is_reported_once() -> None:
    class Blocking:
        def on_input(self, chunk: bytes) -> bytes:
            hold_the_loop()
            return chunk

    async with calling(taps=[Blocking()]) as call:
        for _ in range(3):
            await speak(call.engine, speech(20), paced=True)

        assert call.seen.codes() == ["slow_handler"]
        assert "Blocking.on_input" in call.seen.one(EventType.WARNING).message


def test_coroutine_tap_is_refused() -> None:
    class Later:
        async def on_input(self, chunk: bytes) -> bytes:
            return chunk

    with pytest.raises(ConfigError, match="not a plain function"):
        VoiceEngine(VoiceEngineConfig(provider="one"), taps=[Later()])


# -- secrets --------------------------------------------------------------------------------------------

KEY, TOKEN, QUERY = "sk-very-secret-1", "tok-very-secret-2", "very-secret-3"
URL = f"wss://user:very-secret-4@host.example/path?sig={QUERY}"
SECRETS = (KEY, TOKEN, QUERY, "very-secret-4")


class Leaky(Puppet):
    """Puts what it was given into every error."""

    async def _do(self, hook: str, *args: Any) -> Any:
        self.calls.append((hook, args))
        if hook in self.behaviour or (hook != "connect" and "all" in self.behaviour):
            kind_of: Any = self.behaviour.get(hook) or self.behaviour["all"]
            raise type(kind_of)(f"{self.config['api_key']} {self.config['metadata']} failed at {URL}")


async def _provoke(call: Call) -> list[str]:
    said: list[str] = []
    for method, args in (
        ("send_text", ("x",)),
        ("say", ("x",)),
        ("configure_session", ()),
        ("switch_provider", ("two",)),
        ("end_turn", ()),
    ):
        try:
            await getattr(call.engine, method)(*args)
        except VoxEngineError as error:
            said.append(f"{error} {error!r}")
    return said


@pytest.mark.parametrize("error", [RuntimeError(), OSError(), ConnectionResetError(), ProviderError("")])
@virtual
async def test_no_secret_reaches_an_event_an_error_or_the_log(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    leaky = kind(Leaky, behaviour={"all": error})
    refusing = kind(Leaky, behaviour={"connect": error})
    options: dict[str, Any] = {"api_key": KEY, "metadata": {"auth_token": TOKEN, "url": URL}}
    fallback = VoiceEngineConfig(provider="two", **options)

    async with calling(leaky, others={"two": refusing}, fallbacks=(fallback,), **options) as call:
        one = call.provider()
        one.starts()
        one.sounds(100)
        call.engine.interrupt()
        one.emit_event(EventType.ERROR_GENERAL, {"error": Exception(f"{KEY} at {URL}"), "recoverable": True})
        one.warn("odd", f"{TOKEN} at {URL}")
        said = await _provoke(call)
        await asyncio.sleep(1)
        if call.engine.is_connected:
            await speak(call.engine, speech(100), paced=True)
        one.emit_event(EventType.CONNECTION_LOST, {"error": ConnectionLost(f"{KEY} at {URL}")})
        said += await _provoke(call)
        said += [repr(call.engine.config), repr(call.engine.session and call.engine.session.config)]

    shown = said + [f"{event!r} {dict(event.data)} {event.data.get('error')}" for event in call.seen.events]
    shown += [record.getMessage() for record in caplog.records]
    assert len(said) >= 7
    assert [text for text in shown if any(secret in text for secret in SECRETS)] == []


@virtual
async def test_error_of_the_first_connect_hides_the_secrets_too() -> None:
    leaky = kind(Leaky, behaviour={"connect": RuntimeError()})
    engine = VoiceEngine(
        VoiceEngineConfig(provider="one", api_key=KEY, metadata={"token": TOKEN}),
        registry=registry(one=leaky),
    )
    seen = Seen(engine)

    with pytest.raises(ProviderError) as caught:
        await engine.connect()

    shown = f"{caught.value} {seen.one(EventType.CONNECTION_FAILED).data}"
    assert "failed at wss://…@host.example/path" in shown
    assert [secret for secret in SECRETS if secret in shown] == []


@virtual
async def test_guide_provider_whose_every_method_raises_can_be_left() -> None:
    class Hopeless(Document):
        async def send_audio(self, audio_data: bytes) -> None:
            raise RuntimeError("no")

        async def send_text(self, text: str) -> None:
            raise RuntimeError("no")

        async def interrupt(self) -> None:  # type: ignore[override]
            raise RuntimeError("no")

        async def disconnect(self) -> None:
            raise RuntimeError("no")

    async with leak_check():
        async with calling(kind(Hopeless), others={"two": kind()}) as call:
            await speak(call.engine, speech(100), paced=True)
            with pytest.raises(ProviderError):
                await call.engine.send_text("x")
            await call.engine.switch_provider("two")
            await call.engine.send_text("x")

            assert call.provider("two").of("send_text") == ["x"]
            assert bytes(call.provider("two").audio) == speech(100)
