"""Ctrl-C at moments at which Python's own answer would leave something half made."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Iterator

import pytest

from voxengine.cli.running import CtrlC, check_ctrl_c, run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


@pytest.fixture(autouse=True)
def pythons_own_handler() -> Iterator[None]:
    """Each test begins with the handler of a new process, and must leave it in force."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    after = signal.signal(signal.SIGINT, before)
    assert after is signal.default_int_handler


def press_ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def test_ctrl_c_while_the_loop_is_made_ends_before_anything_began() -> None:
    calls: list[str] = []

    def make_loop() -> asyncio.AbstractEventLoop:
        press_ctrl_c()
        calls.append("loop made")
        return asyncio.SelectorEventLoop()

    async def main() -> None:
        calls.append("main called")

    with pytest.raises(KeyboardInterrupt):
        run(main, loop_factory=make_loop)

    assert calls == ["loop made"]


def test_ctrl_c_before_the_loop_makes_none() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    def make_loop() -> asyncio.AbstractEventLoop:
        loops.append(asyncio.SelectorEventLoop())
        return loops[0]

    with CtrlC():
        press_ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            run(lambda: asyncio.sleep(0), loop_factory=make_loop)

    assert loops == []


def test_ctrl_c_cancels_what_runs_and_lets_it_end_well() -> None:
    steps: list[str] = []

    async def main() -> None:
        press_ctrl_c()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            steps.append("cancelled")
            await asyncio.sleep(0)
            steps.append("tidied up")
            raise

    with pytest.raises(KeyboardInterrupt):
        run(main)

    assert steps == ["cancelled", "tidied up"]


def test_second_ctrl_c_does_not_wait() -> None:
    steps: list[str] = []

    async def main() -> None:
        press_ctrl_c()
        steps.append("first")
        press_ctrl_c()
        steps.append("second")

    with pytest.raises(KeyboardInterrupt):
        run(main)

    assert steps == ["first"]


def test_result_that_came_with_ctrl_c_does_not_hide_it() -> None:
    async def main() -> str:
        press_ctrl_c()
        return "done"

    with pytest.raises(KeyboardInterrupt):
        run(main)


def test_failure_says_more_than_the_ctrl_c_it_came_with() -> None:
    async def main() -> None:
        press_ctrl_c()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run(main)


def test_cancellation_without_ctrl_c_is_no_ctrl_c() -> None:
    async def main() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        run(main)


def test_result_is_returned_and_the_handler_of_before_is_back() -> None:
    async def main() -> object:
        return signal.getsignal(signal.SIGINT)

    within = run(main)

    assert within is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_noted_ctrl_c_raises_at_the_next_check() -> None:
    with CtrlC():
        check_ctrl_c()
        press_ctrl_c()

        with pytest.raises(KeyboardInterrupt):
            check_ctrl_c()


def test_ignored_ctrl_c_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    async def main() -> str:
        press_ctrl_c()
        return "done"

    try:
        assert run(main) == "done"
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_other_threads_run_without_a_handler() -> None:
    results: list[str] = []

    async def main() -> str:
        return "done"

    thread = threading.Thread(target=lambda: results.append(run(main)))
    thread.start()
    thread.join(30)

    assert results == ["done"]


def test_after_the_last_command_the_process_ends_without_a_word() -> None:
    with CtrlC(is_last=True):
        pass

    after = signal.signal(signal.SIGINT, signal.default_int_handler)

    assert after is signal.SIG_DFL
