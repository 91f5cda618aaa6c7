"""Laws of cancellation and of what a session leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import types
from collections.abc import AsyncIterator, Coroutine, Generator
from typing import Any, Final

from voxengine.providers.contract import bind
from voxengine.testing.clock import LeakError, leak_check
from voxengine.testing.conformance.law import Law, LawBroken, law
from voxengine.testing.conformance.probe import Live, Probe, tell

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


@law("tidiness", into=LAWS, needs=("text_turn",))
async def send_text_can_be_cancelled_at_every_await(probe: Probe) -> None:
    """send_text that is cancelled at any await leaves a session that goes on."""
    probe.require_answers()
    for at in range(1, probe.settings.n_cancellations + 1):
        async with probe.open(probe.subject.make()) as live:
            was_cut = await _cancelled(live, "send_text", probe.settings.prompt_text, at=at)
            if not was_cut:
                return
            await live.quiet()
            await live.goes_on(f"send_text() was cancelled at its await {at}")
