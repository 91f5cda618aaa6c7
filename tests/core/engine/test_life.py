"""Connecting and disconnecting, in every order, cancelled anywhere."""

from __future__ import annotations

import asyncio
import inspect
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.core.engine.fakes import (
    Call,
    Document,
    Puppet,
    Seen,
    calling,
    caps,
    hang,
    kind,
    registry,
    silence,
    turns,
)
from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.capabilities import UNSUPPORTED
from voxengine.config import Deadlines
from voxengine.errors import (
    ConfigError,
    ConnectionLost,
    ErrorCode,
    LocalProtocolError,
    NotConnected,
    ProviderError,
    ProviderNotFound,
    RateLimited,
    UsageError,
    WrongThread,
)
from voxengine.events import Event, EventType
from voxengine.history import Item, ItemKind
from voxengine.providers.registry import ProviderRegistry
from voxengine.testing import leak_check, run_virtual, virtual

METHODS: dict[str, tuple[Any, ...]] = {
    "send_audio": (silence(20),),
    "send_text": ("hello",),
    "say": ("hello",),
    "end_turn": (),
    "interrupt": (),
    "configure_session": (),
    "mark_played": ("item", 1),
    "playback_cleared": (),
    "get_usage": (),
    "estimate_cost": (),
    "wait_idle": (),
}


def engine_of(cls: Any, **config: Any) -> VoiceEngine:
    return VoiceEngine(VoiceEngineConfig(provider="one", **config), registry=registry(one=cls))


async def called(engine: VoiceEngine, method: str) -> Any:
    result = getattr(engine, method)(*METHODS[method])
    return await result if asyncio.iscoroutine(result) else result


@virtual
async def test_connect_says_so_once_and_knows_the_session() -> None:
    class Chatty(Puppet):
        async def connect(self) -> None:
            await asyncio.sleep(0.25)
            self.session_id = "s-9"
            self.emit_event(EventType.CONNECTION_ESTABLISHED, {"region": "north"})

    engine = engine_of(kind(Chatty))
    seen = Seen(engine)

    await engine.connect()

    established = seen.one(EventType.CONNECTION_ESTABLISHED)
    assert (established.session_id, established.latency_ms) == ("s-9", 250)
    assert (established.provider, established.session_epoch) == ("one", 1)
    assert established.data["region"] == "north"
    assert engine.is_connected
    assert engine.session is not None
    assert engine.session.session_id == "s-9"
    assert seen.one(EventType.CONNECTION_STARTING).attempt == 1
    await engine.disconnect()


@virtual
async def test_what_the_history_holds_before_connect_is_told_to_the_first_session() -> None:
    cls = kind()
    engine = engine_of(cls)
    seen = Seen(engine)
    engine.history.add_system("Be brief.")
    engine.history.append(Item("past", ItemKind.USER_TEXT, "My name is Ada."))

    async with engine:
        await engine.send_text("What is my name?")

    (told,) = cls.made[0].of("load_history")
    assert [item.text for item in told] == ["Be brief.", "My name is Ada."]
    assert cls.made[0].calls[1][0] == "load_history"
    assert seen.codes() == []


@virtual
async def test_history_before_connect_that_cannot_be_told_is_said() -> None:
    engine = engine_of(kind(capabilities=caps(context_text=UNSUPPORTED)))
    seen = Seen(engine)
    engine.history.add_system("Be brief.")

    async with engine:
        assert engine.is_connected

    assert seen.codes() == ["history_not_told"]


@virtual
async def test_history_before_connect_that_is_refused_fails_the_connect() -> None:
    cls = kind(
        behaviour={"load_history": ProviderError("no", code=ErrorCode.INVALID_REQUEST, recoverable=False)}
    )
    engine = engine_of(cls)
    engine.history.add_system("Be brief.")

    async with leak_check():
        with pytest.raises(ProviderError, match="no"):
            await engine.connect()

    assert cls.made[0].of("disconnect") == [()]
    cls.behaviour.clear()
    await engine.connect()
    await engine.disconnect()


@virtual
async def test_disconnect_says_so_once_and_a_second_one_does_nothing() -> None:
    async with calling() as call:
        await asyncio.sleep(3)
        await call.engine.disconnect()
        await call.engine.disconnect()

    closed = call.seen.one(EventType.CONNECTION_CLOSED)
    assert closed.reason == "disconnect"
    assert closed.duration_s == pytest.approx(3)
    assert call.provider().of("disconnect") == [()]
    assert not call.engine.is_connected


@virtual
async def test_connecting_twice_and_after_disconnect_is_refused() -> None:
    async with calling() as call:
        with pytest.raises(UsageError, match="connected already"):
            await call.engine.connect()

    with pytest.raises(UsageError, match="disconnected already. Make a new"):
        await call.engine.connect()


@virtual
async def test_connecting_while_connecting_is_refused() -> None:
    engine = engine_of(kind(behaviour={"connect": hang}))
    first = asyncio.create_task(engine.connect())
    await turns()

    with pytest.raises(UsageError, match="connecting already"):
        await engine.connect()

    first.cancel()
    await asyncio.wait([first])


@pytest.mark.parametrize("method", METHODS)
@virtual
async def test_method_before_connect_says_what_to_do(method: str) -> None:
    with pytest.raises(NotConnected, match=r"connect\(\)"):
        await called(engine_of(kind()), method)


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"get_usage", "estimate_cost"}))
@virtual
async def test_method_after_disconnect_says_that_it_is_over(method: str) -> None:
    async with calling() as call:
        pass

    with pytest.raises(NotConnected, match="disconnected. Make a new"):
        await called(call.engine, method)


@pytest.mark.parametrize("method", [*METHODS, "connect", "disconnect", "switch_provider", "tool"])
@virtual
async def test_method_from_another_thread_is_refused_and_names_the_way(method: str) -> None:
    raised: list[BaseException] = []
    args = METHODS.get(method, ("one",) if method == "switch_provider" else ())

    def elsewhere() -> None:
        try:
            result = getattr(call.engine, method)(*args)
            if method == "tool":
                result(test_connect_says_so_once_and_knows_the_session)
            elif asyncio.iscoroutine(result):
                result.send(None)
        except BaseException as error:
            raised.append(error)

    async with calling() as call:
        await asyncio.to_thread(elsewhere)

    (error,) = raised
    assert isinstance(error, WrongThread)
    assert f"call_threadsafe('{method}'" in str(error)


PARTS: dict[str, Callable[[VoiceEngine], object]] = {
    "history.append": lambda engine: engine.history.append(Item("", ItemKind.SYSTEM, "Be brief.")),
    "history.edit": lambda engine: engine.history.edit(engine.history.items[0].id, text="Be long."),
    "history.delete": lambda engine: engine.history.delete(engine.history.items[0].id),
    "events.on": lambda engine: engine.events.on(EventType.WARNING, print),
    "events.once": lambda engine: engine.events.once("*")(print),
    "events.off": lambda engine: engine.events.off(print),
    "events.stream": lambda engine: engine.events.stream(),
}


@pytest.mark.parametrize("method", PARTS)
@virtual
async def test_part_of_the_engine_from_another_thread_is_refused_and_unchanged(method: str) -> None:
    async with calling() as call:
        call.engine.history.add_system("Be kind.")
        before = call.engine.history.items

        with pytest.raises(WrongThread, match=re.escape(f"call_threadsafe(engine.{method}, ")):
            await asyncio.to_thread(PARTS[method], call.engine)

        assert call.engine.history.items == before


@virtual
async def test_cancelling_a_subscription_from_another_thread_is_refused_and_it_stays() -> None:
    async with calling() as call:
        texts: list[Any] = []
        subscription = call.engine.events.on(EventType.TEXT_OUTPUT, lambda event: texts.append(event.text))

        with pytest.raises(WrongThread):
            await asyncio.to_thread(subscription.cancel)

        call.provider().answers("Yes.")
        assert "Yes." in texts


def test_parts_of_the_engine_are_free_before_there_is_a_loop_and_after_it() -> None:
    engine = engine_of(kind())
    used: list[str] = []

    def use_all_elsewhere() -> None:
        engine.history.add_system("Be kind.")
        for method, use in PARTS.items():
            use(engine)
            used.append(method)

    def use_from_another_thread() -> None:
        thread = threading.Thread(target=use_all_elsewhere)
        thread.start()
        thread.join(30)

    async def talk() -> None:
        async with engine:
            await engine.send_text("Hello")

    use_from_another_thread()
    run_virtual(talk())
    use_from_another_thread()

    assert used == [*PARTS, *PARTS]


@pytest.mark.parametrize("method", [*METHODS, "connect", "disconnect", "switch_provider"])
def test_engine_of_a_loop_that_is_over_says_so_in_the_next(method: str) -> None:
    engine = engine_of(kind())
    args = METHODS.get(method, ("one",) if method == "switch_provider" else ())

    async def use() -> None:
        result = getattr(engine, method)(*args)
        if inspect.isawaitable(result):
            await result

    run_virtual(engine.connect())

    with pytest.raises(UsageError, match=r"another event loop\. Make a new VoiceEngine"):
        run_virtual(use())


@pytest.mark.parametrize("wrong", ["x", None, float("nan"), float("inf"), -1, True], ids=repr)
@pytest.mark.parametrize(
    ("method", "name"), [("wait_idle", "timeout_s"), ("wait_idle", "settle_s"), ("wait_played", "timeout_s")]
)
@virtual
async def test_wait_takes_a_number_of_seconds(method: str, name: str, wrong: Any) -> None:
    async with calling() as call:
        with pytest.raises(UsageError, match=f"{method}: {name} is "):
            await getattr(call.engine, method)(**{name: wrong})


@virtual
async def test_call_threadsafe_refuses_what_is_no_method() -> None:
    async with calling() as call:
        for wrong in ("nosuch", "history", 5):
            with pytest.raises(UsageError, match="no method of the engine"):
                call.engine.call_threadsafe(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("taps", [None, 5, "tap"])
def test_taps_are_a_list(taps: Any) -> None:
    with pytest.raises(ConfigError, match="it is a list of taps"):
        VoiceEngine(VoiceEngineConfig(provider="one"), taps=taps)


@virtual
async def test_call_threadsafe_reaches_the_parts_of_the_engine() -> None:
    async with calling() as call:
        engine = call.engine

        def elsewhere() -> Item:
            item: Item = engine.call_threadsafe(engine.history.add_system, "Be kind.").result(5)
            return item

        added = await asyncio.to_thread(elsewhere)

        assert engine.history.items == (added,)


@virtual
async def test_call_threadsafe_carries_out_the_call_on_the_loop() -> None:
    def elsewhere() -> None:
        call.engine.call_threadsafe("send_text", "from afar").result(5)
        heard.append(call.engine.call_threadsafe(call.engine.interrupt).result(5))

    heard: list[Any] = []
    async with calling() as call:
        await asyncio.to_thread(elsewhere)

        assert call.provider().of("send_text") == ["from afar"]
    assert heard == [None]


@virtual
async def test_call_threadsafe_needs_a_loop_and_passes_errors_on() -> None:
    with pytest.raises(NotConnected):
        engine_of(kind()).call_threadsafe("send_text", "x")
    async with calling() as call:
        await call.engine.disconnect()

        future = call.engine.call_threadsafe("send_text", "x")
        with pytest.raises(NotConnected):
            await asyncio.wrap_future(future)


def test_plain_mapping_is_refused_with_the_line_that_helps() -> None:
    with pytest.raises(ConfigError, match=r"VoiceEngine\(VoiceEngineConfig\(\*\*config\)\)"):
        VoiceEngine({"provider": "mock"})  # type: ignore[arg-type]


@virtual
async def test_unknown_provider_is_named_and_connect_may_be_tried_again() -> None:
    known = ProviderRegistry()
    engine = VoiceEngine(VoiceEngineConfig(provider="acmee"), registry=known)
    seen = Seen(engine)

    with pytest.raises(ProviderNotFound, match="acmee"):
        await engine.connect()

    assert isinstance(seen.one(EventType.CONNECTION_FAILED).error, ProviderNotFound)
    assert seen.one(EventType.CONNECTION_FAILED).will_retry is False
    known.register("acmee", kind())
    await engine.connect()
    assert engine.is_connected
    await engine.disconnect()


@virtual
async def test_provider_that_cannot_be_loaded_is_an_error_of_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    known = ProviderRegistry()

    def broken(name: str) -> Any:
        raise LocalProtocolError(f"{name} is a module", provider=name)

    monkeypatch.setattr(known, "get", broken)
    engine = VoiceEngine(VoiceEngineConfig(provider="bad"), registry=known)

    with pytest.raises(LocalProtocolError):
        await engine.connect()

    assert not engine.is_connected


async def _refuses(*_: Any) -> None:
    raise ProviderError("not today")


@pytest.mark.parametrize("behaviour", [{"connect": _refuses}, {"connect": hang}], ids=["refused", "too late"])
@virtual
async def test_failed_attempt_is_two_events_with_the_name_of_the_provider(behaviour: dict[str, Any]) -> None:
    engine = engine_of(kind(behaviour=behaviour))
    seen = Seen(engine)

    with pytest.raises(ProviderError) as caught:
        await engine.connect()

    starting, failed = seen.of(EventType.CONNECTION_STARTING, EventType.CONNECTION_FAILED)
    assert (starting.provider, failed.provider) == ("one", "one")
    assert failed.data == {"error": caught.value, "will_retry": False}


@pytest.mark.parametrize("how", ["cancelled", "disconnected"])
@virtual
async def test_abandoned_attempt_ends_with_an_event(how: str) -> None:
    engine = engine_of(kind(behaviour={"connect": hang}))
    seen = Seen(engine)
    connecting = asyncio.create_task(engine.connect())
    await turns()

    if how == "cancelled":
        connecting.cancel()
    else:
        await engine.disconnect()
    await asyncio.gather(connecting, return_exceptions=True)

    assert attempts(seen) == ["starting", "failed"]
    failed: Event = seen.one(EventType.CONNECTION_FAILED)
    assert failed.provider == "one"
    assert isinstance(failed.error, NotConnected)
    assert "cancelled" in str(failed.error)


@virtual
async def test_connect_that_hangs_ends_at_its_deadline_and_is_cleaned_up() -> None:
    cls = kind(behaviour={"connect": hang})
    engine = engine_of(cls, deadlines=Deadlines(handshake_s=2, ready_s=3))
    loop = asyncio.get_running_loop()

    async with leak_check():
        with pytest.raises(ProviderError, match="5 s") as caught:
            await engine.connect()

    assert caught.value.code == ErrorCode.TIMEOUT
    assert caught.value.recoverable
    assert loop.time() == pytest.approx(5, abs=0.5)
    assert cls.made[0].of("disconnect") == [()]


async def _deaf(*_: Any) -> None:
    """Hangs and swallows its cancellation."""
    while True:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            if asyncio.get_running_loop().time() > 900:
                raise


@pytest.mark.parametrize("hook", ["connect", "disconnect"])
@virtual
async def test_provider_that_ignores_cancellation_is_abandoned(hook: str) -> None:
    engine = engine_of(kind(behaviour={hook: _deaf}))
    seen = Seen(engine)

    if hook == "connect":
        with pytest.raises(ProviderError):
            await engine.connect()
    else:
        await engine.connect()
    await engine.disconnect()

    assert asyncio.get_running_loop().time() < 40
    if hook == "disconnect":
        assert seen.codes() == ["disconnect_timeout"]
        assert len(seen.of(EventType.CONNECTION_CLOSED)) == 1
    await asyncio.sleep(1000)


@virtual
async def test_disconnect_that_hangs_is_given_up_and_reported() -> None:
    cls = kind(behaviour={"disconnect": hang, "get_usage": hang})
    async with leak_check():
        async with calling(cls) as call:
            started = asyncio.get_running_loop().time()

    assert asyncio.get_running_loop().time() - started < 15
    assert call.seen.codes() == ["disconnect_timeout"]
    assert call.seen.session_endings() == {1: ["connection_closed"]}


@virtual
async def test_disconnect_during_connect_ends_both() -> None:
    cls = kind(behaviour={"connect": hang})
    engine = engine_of(cls)
    async with leak_check():
        connecting = asyncio.create_task(engine.connect())
        await turns()

        await engine.disconnect()

        with pytest.raises(NotConnected, match="disconnected meanwhile"):
            await connecting
    assert not engine.is_connected
    assert cls.made[0].of("disconnect") == [()]
    assert asyncio.get_running_loop().time() < 1


@virtual
async def test_cancelled_disconnect_goes_on_in_the_background() -> None:
    async def slow(*_: Any) -> None:
        await asyncio.sleep(1)

    async with leak_check(settle_s=3):
        async with calling(kind(behaviour={"disconnect": slow})) as call:
            closing = asyncio.create_task(call.engine.disconnect())
            await asyncio.sleep(0.5)
            closing.cancel()
            await asyncio.wait([closing])

            await call.engine.disconnect()

            assert call.seen.session_endings() == {1: ["connection_closed"]}


class Slow(Puppet):
    """Awaits several things in connect and disconnect, as a real one does."""

    async def connect(self) -> None:
        await asyncio.sleep(0.1)
        self.start_task(hang(), name="reader")
        await asyncio.sleep(0)
        await asyncio.sleep(0.1)
        await super().connect()

    async def disconnect(self) -> None:
        await asyncio.sleep(0.1)
        await super().disconnect()


def attempts(seen: Seen) -> list[str]:
    """What began and ended attempts to connect, in order."""
    types = (EventType.CONNECTION_STARTING, EventType.CONNECTION_ESTABLISHED, EventType.CONNECTION_FAILED)
    return [str(event.type).removeprefix("connection_") for event in seen.of(*types)]


async def _cancelled_after(n_steps: int, engine: VoiceEngine) -> bool:
    """Cancel connect after so many steps of the loop; whether it was still under way."""
    task = asyncio.create_task(engine.connect())
    for _ in range(n_steps):
        await asyncio.sleep(0.02)
        if task.done():
            await task
            return False
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    return True


@virtual
async def test_connect_can_be_cancelled_at_every_step_of_the_loop_and_tried_again() -> None:
    n_cancelled, steps = 0, 0
    while True:
        cls = kind(Slow)
        engine = engine_of(cls)
        seen = Seen(engine)
        async with leak_check():
            was_cancelled = await _cancelled_after(steps, engine)
            if was_cancelled:
                assert not engine.is_connected
                assert attempts(seen) in ([], ["starting", "failed"])
                await engine.connect()
            assert engine.is_connected
            await engine.disconnect()
        assert all(made.of("disconnect") == [()] for made in cls.made)
        n_cancelled, steps = n_cancelled + was_cancelled, steps + 1
        if not was_cancelled:
            break
    assert n_cancelled >= 9


async def _cancelled_at_step(n_steps: int, engine: VoiceEngine) -> bool:
    task = asyncio.create_task(engine.connect())
    for _ in range(n_steps):
        await asyncio.sleep(0)
        if task.done():
            break
    if task.done() and not task.cancelled():
        await task
        return False
    task.cancel()
    await asyncio.wait([task])
    return True


@virtual
async def test_connect_without_waiting_can_be_cancelled_at_every_step_too() -> None:
    for n_steps in range(40):
        cls = kind()
        engine = engine_of(cls)
        async with leak_check():
            seen = Seen(engine)
            was_cancelled = await _cancelled_at_step(n_steps, engine)
            if was_cancelled:
                assert not engine.is_connected
                # At the last step the session was ready, and is closed again.
                assert attempts(seen) in ([], ["starting", "failed"], ["starting", "established"])
                n_open = len(seen.of(EventType.CONNECTION_ESTABLISHED))
                assert len(seen.of(EventType.CONNECTION_CLOSED)) == n_open
                await engine.connect()
            assert engine.is_connected
            await engine.disconnect()
        assert all(made.of("disconnect") == [()] for made in cls.made)
        if not was_cancelled:
            assert n_steps > 2
            return
    pytest.fail("connect() never came to its end")


@virtual
async def test_first_connect_that_was_cancelled_leaves_one_ending_per_session() -> None:
    engine = engine_of(kind(Slow))
    seen = Seen(engine)
    await _cancelled_after(3, engine)

    await engine.connect()
    await engine.disconnect()

    assert seen.session_endings() == {2: ["connection_closed"]}
    assert len(seen.of(EventType.CONNECTION_ESTABLISHED)) == 1


@virtual
async def test_two_engines_share_a_loop_and_nothing_else() -> None:
    async with calling() as one, calling() as two:
        await one.engine.send_text("for one")
        two.provider().answers("from two")

        assert one.provider().of("send_text") == ["for one"]
        assert two.provider().of("send_text") == []
        assert [item.text for item in one.engine.history] == ["for one"]
        assert [item.text for item in two.engine.history] == ["from two"]


@virtual
async def test_loss_is_told_once_and_each_call_says_so() -> None:
    async with leak_check():
        async with calling() as call:
            call.provider().emit_event(
                EventType.CONNECTION_LOST, {"error": ConnectionLost("gone", close_code=1006)}
            )
            call.provider().is_connected = False

            lost = call.seen.one(EventType.CONNECTION_LOST)
            assert lost.will_reconnect is False
            assert not call.engine.is_connected
            with pytest.raises(ConnectionLost, match="switch_provider continues") as caught:
                await call.engine.send_text("x")
            assert caught.value.close_code == 1006
            with pytest.raises(UsageError, match="switch_provider continues"):
                await call.engine.connect()
            await turns()
            assert call.provider().of("disconnect") == [()]
    assert call.seen.session_endings() == {1: ["connection_lost"]}


@virtual
async def test_call_after_a_loss_says_of_it_what_the_loss_said() -> None:
    loss = RateLimited("recoverable=True", retry_after_s=7.0, vendor_code="its.word", close_code=4029)
    final = ConnectionLost("recoverable=False", code=ErrorCode.AUTHENTICATION, vendor_code="3000")
    late = ConnectionLost(
        "recoverable=True", code=ErrorCode.TIMEOUT
    )  # That of the call would be another thing.

    for error, code in ((loss, "rate_limit"), (final, "authentication"), (late, "connection_lost")):
        async with calling() as call:
            call.provider().emit_event(EventType.CONNECTION_LOST, {"error": error})

            with pytest.raises(ConnectionLost, match=f"recoverable={error.recoverable}") as caught:
                await call.engine.wait_idle()

            told = caught.value
            assert (told.code, told.recoverable) == (code, error.recoverable)
            assert "Nothing was sent" not in str(told)
            assert (told.vendor_code, told.close_code) == (error.vendor_code, error.close_code)
            assert told.retry_after_s == error.retry_after_s


@virtual
async def test_loss_while_connecting_is_the_error_of_connect() -> None:
    class Refused(Puppet):
        async def connect(self) -> None:
            self.emit_event(EventType.CONNECTION_LOST, {"error": ConnectionLost("not you", close_code=4001)})

    engine = engine_of(kind(Refused))
    seen = Seen(engine)

    with pytest.raises(ConnectionLost, match="not you"):
        await engine.connect()

    assert seen.session_endings() == {}
    assert len(seen.of(EventType.CONNECTION_FAILED)) == 1


@virtual
async def test_what_the_provider_says_before_it_is_ready_is_delivered_afterwards() -> None:
    class Greeter(Puppet):
        async def connect(self) -> None:
            self.answers("Welcome.")

    async with calling(kind(Greeter)) as call:
        types = call.seen.types()
        assert types.index("connection_established") < types.index("text_output")
        assert call.seen.one(EventType.TEXT_OUTPUT).text == "Welcome."


@virtual
async def test_tool_may_hang_up() -> None:
    async with leak_check():
        async with calling(taps=()) as call:
            await call.engine.disconnect()
        engine = engine_of(cls := kind())

        @engine.tool
        async def hang_up() -> str:
            await engine.disconnect()
            return "bye"

        await engine.connect()
        cls.made[0].starts()
        cls.made[0].asks_for("hang_up")
        await asyncio.sleep(0.1)

        assert not engine.is_connected
        assert cls.made[0].of("disconnect") == [()]


@virtual
async def test_coroutine_handler_may_disconnect() -> None:
    async with calling() as call:
        done: list[str] = []

        @call.engine.events.on(EventType.TEXT_OUTPUT)
        async def leave(event: object) -> None:
            await call.engine.disconnect()
            done.append("left")

        call.provider().answers("Bye.")
        await asyncio.sleep(0.01)

        assert done == ["left"]


@virtual
async def test_engine_of_the_guide_connects_with_a_provider_of_the_guide() -> None:
    async with calling(kind(Document)) as call:
        await call.engine.send_text("Hello")
        call.provider().writes("Hi")

        assert call.provider().texts == ["Hello"]
        assert isinstance(call, Call)
        assert threading.active_count() >= 1
        assert call.seen.one(EventType.TEXT_OUTPUT).text == "Hi"
