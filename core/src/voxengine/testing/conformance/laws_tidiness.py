"""Laws of cancellation and of what a session leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from typing import Any, Final

from voxengine.audio.format import AudioFormat
from voxengine.capabilities import HOOK_CAPABILITIES
from voxengine.config import TurnDetection
from voxengine.history import Item
from voxengine.providers.contract import bind
from voxengine.testing.clock import LeakError, leak_check
from voxengine.testing.conformance.law import Law, LawBroken, law
from voxengine.testing.conformance.laws_audio import require_input
from voxengine.testing.conformance.probe import Live, Probe, tell
from voxengine.testing.conformance.subject import sound_in

__all__ = ["LAWS"]

LAWS: Final[list[Law]] = []


class _Cut:
    """Runs a coroutine and has its task cancelled at its n-th await, counted from 1."""

    def __init__(self, work: Coroutine[Any, Any, Any], at: int) -> None:
        self._work = work
        self._at = at
        self.is_reached = False

    @types.coroutine
    def run(self) -> Generator[Any, Any, Any]:
        n_awaits = 0
        step: Any = self._work.send
        value: Any = None
        while True:
            n_awaits += 1
            if n_awaits == self._at:
                # Asked for while the task runs, it takes hold at the await that comes now.
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            try:
                waits_for = step(value)
            except StopIteration as done:
                if n_awaits == self._at:  # There was no such await: the cancellation is taken back.
                    task = asyncio.current_task()
                    assert task is not None
                    task.uncancel()
                    yield from _swallow_cancellation()
                return done.value
            self.is_reached = self.is_reached or n_awaits == self._at
            try:
                value = yield waits_for
            except BaseException as error:
                step, value = self._work.throw, error
            else:
                step = self._work.send


@types.coroutine
def _swallow_cancellation() -> Generator[Any, Any, None]:
    """Let a cancellation that came too late take hold where nothing is lost by it."""
    with contextlib.suppress(asyncio.CancelledError):
        yield


async def _cancelled(live: Live, hook: str, *args: Any, at: int) -> bool:
    """Cancel a call at its n-th await; return whether there was one.

    Raises:
        LawBroken: The call returned as if nothing had happened, or did not end.
    """
    cut = _Cut(bind(live.provider, hook)(*args), at)
    task = asyncio.ensure_future(_as_coroutine(cut))
    limit = live.probe.settings.call_s
    done, _ = await asyncio.wait([task], timeout=limit)
    if not done:
        task.cancel()
        raise LawBroken(f"{hook}() cancelled at its await {at} did not end within {limit:g} s.")
    if task.cancelled():
        return True
    error = task.exception()
    if error is not None and not cut.is_reached:
        raise error
    if error is not None:
        raise LawBroken(f"{hook}() cancelled at its await {at} raised {tell(error)} and no CancelledError.")
    if cut.is_reached:
        raise LawBroken(f"{hook}() swallowed a cancellation at its await {at} and returned.")
    return False


async def _as_coroutine(cut: _Cut) -> Any:
    return await cut.run()


@contextlib.asynccontextmanager
async def _leaves_nothing(when: str) -> AsyncIterator[None]:
    try:
        async with leak_check():
            yield
    except LeakError as leak:
        raise LawBroken(f"{when} something is left. {leak}") from leak


async def _let_go(live: Live) -> None:
    """Disconnect as the engine does after a failure: what it raises is reported elsewhere."""
    try:
        await live.disconnect()
    except LawBroken:
        raise
    except Exception:
        return


@law("tidiness", into=LAWS, essential=True)
async def nothing_is_left_behind(probe: Probe) -> None:
    """After disconnect no task, no thread and no socket of the session is left, also in mid-answer."""
    async with _leaves_nothing("After disconnect()"):
        async with probe.open() as live:
            if probe.can("text_turn") and probe.answers:
                await live.begin_long_answer()


@law("tidiness", into=LAWS)
async def failed_connect_leaves_nothing(probe: Probe) -> None:
    """After a connect that failed, and the disconnect after it, nothing is left."""
    provider = await probe.peer("unreachable")
    async with _leaves_nothing("After a connect() that failed"):
        live = probe.live(provider)
        with contextlib.suppress(Exception):
            await live.call("connect", limit_s=probe.settings.connect_s)
        await _let_go(live)


@law("tidiness", into=LAWS)
async def connect_can_be_cancelled_at_every_await(probe: Probe) -> None:
    """Connect that is cancelled at any await ends with CancelledError; a disconnect later nothing is left."""
    for at in range(1, probe.settings.n_cancellations + 1):
        async with _leaves_nothing(f"After connect() was cancelled at its await {at}, and disconnect(),"):
            live = probe.live(probe.subject.make())
            try:
                was_cut = await _cancelled(live, "connect", at=at)
                if was_cut and live.provider.is_connected:
                    raise LawBroken(f"is_connected is True after connect() was cancelled at its await {at}.")
            finally:
                await _let_go(live)
        if not was_cut:
            return


@law("tidiness", into=LAWS)
async def disconnect_can_be_cancelled_at_every_await(probe: Probe) -> None:
    """Disconnect that is cancelled at any await can be called again, and then nothing is left."""
    for at in range(1, probe.settings.n_cancellations + 1):
        async with _leaves_nothing(f"After disconnect() was cancelled at its await {at} and called again"):
            live = probe.live(probe.subject.make())
            await live.call("connect", limit_s=probe.settings.connect_s)
            try:
                was_cut = await _cancelled(live, "disconnect", at=at)
            finally:
                await _let_go(live)
            if live.provider.is_connected:
                raise LawBroken(f"is_connected is True after disconnect() was cancelled at its await {at}.")
        if not was_cut:
            return


_Prepare = Callable[[Live], Awaitable[tuple[Any, ...]]]
"""Brings a session to where a call makes sense, and returns the call's arguments."""


async def _at_every_await(
    probe: Probe, hook: str, prepare: _Prepare, *, again: bool = False, **options: Any
) -> None:
    """LawBroken unless a call can be cancelled at each of its awaits and the session goes on after it.

    Args:
        again: Make the call once more after it was cancelled.
        options: Of the sessions.
    """
    for at in range(1, probe.settings.n_cancellations + 1):
        async with probe.open(None if options else probe.subject.make(), **options) as live:
            arguments = await prepare(live)
            was_cut = await _cancelled(live, hook, *arguments, at=at)
            if not was_cut:
                return
            if again:
                await live.works(hook, *arguments, when=f"after it was cancelled at its await {at}")
            await live.quiet()
            await live.goes_on(f"{hook}() was cancelled at its await {at}")


def _with(*arguments: Any) -> _Prepare:
    async def prepare(_: Live) -> tuple[Any, ...]:
        return arguments

    return prepare


@law("tidiness", into=LAWS, needs=("text_turn",))
async def send_text_can_be_cancelled_at_every_await(probe: Probe) -> None:
    """send_text that is cancelled at any await leaves a session that goes on."""
    probe.require_answers()
    await _at_every_await(probe, "send_text", _with(probe.settings.prompt_text))


@law("tidiness", into=LAWS)
async def send_audio_can_be_cancelled_at_every_await(probe: Probe) -> None:
    """send_audio that is cancelled at any await ends with CancelledError, and the session goes on."""
    require_input(probe)

    async def prepare(live: Live) -> tuple[Any, ...]:
        form = probe.input_format(live.provider)
        return (sound_in(bytes(48 * 100), AudioFormat(24_000), form),)

    await _at_every_await(probe, "send_audio", prepare)


@law("tidiness", into=LAWS)
async def interrupt_can_be_cancelled_at_every_await(probe: Probe) -> None:
    """Interrupt that is cancelled at any await can be called again, and the session goes on."""

    async def prepare(live: Live) -> tuple[Any, ...]:
        if probe.can("text_turn") and probe.answers:
            await live.begin_long_answer()
        return (None,)

    await _at_every_await(probe, "interrupt", prepare, again=True)


@law("tidiness", into=LAWS, needs=("live_configuration",))
async def configure_session_can_be_cancelled_at_every_await(probe: Probe) -> None:
    """configure_session that is cancelled at any await ends with CancelledError, and the session goes on."""
    await _at_every_await(
        probe, "configure_session", _with({"instructions": "Answer in one short sentence."})
    )


@law("tidiness", into=LAWS, needs=("client_turn_detection",))
async def end_turn_can_be_cancelled_at_every_await(probe: Probe) -> None:
    """end_turn that is cancelled at any await ends with CancelledError, and the session goes on."""

    async def prepare(live: Live) -> tuple[Any, ...]:
        await live.say(ends=False)
        return (False,)

    await _at_every_await(probe, "end_turn", prepare, turn_detection=TurnDetection("manual"))


@law("tidiness", into=LAWS, needs=("text_turn", "session_tools"))
async def send_tool_result_can_be_cancelled_at_every_await(probe: Probe) -> None:
    """send_tool_result that is cancelled at any await ends with CancelledError, and the session goes on."""

    async def prepare(live: Live) -> tuple[Any, ...]:
        call = await live.ask_for_a_call()
        return call.data.get("call_id"), probe.settings.tool_output, False

    await _at_every_await(probe, "send_tool_result", prepare, tools=[dict(probe.settings.tool)])


@law("tidiness", into=LAWS)
async def other_calls_can_be_cancelled_at_every_await(probe: Probe) -> None:
    """What is left of the calls, cancelled at any await, ends with CancelledError, and the session goes on."""
    past = Item("item-1", "user_text", "My name is Ada.", status="completed")
    arguments: dict[str, tuple[Any, ...]] = {
        "discard_input": (),
        "load_history": ([past],),
        "send_item": (past,),
        "speak": ("Welcome aboard.", True),
        "get_usage": (),
        "estimate_cost": (),
    }
    for hook, given in arguments.items():
        if probe.can(HOOK_CAPABILITIES[hook]):
            await _at_every_await(probe, hook, _with(*given))
