"""The virtual clock: it moves when nothing else can, and only then."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxengine.testing import VirtualDeadlock, VirtualTimeExceeded, VirtualTimeLoop, run_virtual, virtual


def now() -> float:
    return asyncio.get_running_loop().time()


@virtual(max_real_s=20)
async def test_a_year_of_sleeping_takes_no_real_time() -> None:
    assert now() == 0

    await asyncio.sleep(365 * 86_400)

    assert now() == pytest.approx(365 * 86_400)


@given(delays=st.lists(st.floats(0, 1000), max_size=20))
def test_sleepers_wake_in_the_order_and_at_the_time_of_their_timers(delays: list[float]) -> None:
    async def run() -> list[tuple[float, int]]:
        woken: list[tuple[float, int]] = []

        async def sleeper(i: int, delay: float) -> None:
            await asyncio.sleep(delay)
            woken.append((now(), i))

        async with asyncio.TaskGroup() as group:
            for i, delay in enumerate(delays):
                group.create_task(sleeper(i, delay))
        return woken

    woken = run_virtual(run())
    again = run_virtual(run())

    assert again == woken
    assert [time for time, _ in woken] == pytest.approx(sorted(delays), abs=1e-6)
    assert sorted(i for _, i in woken) == list(range(len(delays)))


@virtual
async def test_time_stands_still_while_something_is_ready() -> None:
    asyncio.get_running_loop().call_later(0.001, lambda: None)

    for _ in range(1000):
        await asyncio.sleep(0)

    assert now() == 0


@virtual
async def test_timeouts_fire_on_virtual_time() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1800):
            await asyncio.Event().wait()

    assert now() == pytest.approx(1800)


@virtual
async def test_executor_job_holds_the_clock_until_it_is_done() -> None:
    may_finish = threading.Event()
    woken_at: list[float] = []

    async def sleeper() -> None:
        await asyncio.sleep(3600)
        woken_at.append(now())

    sleeping = asyncio.ensure_future(sleeper())
    threading.Timer(0.05, may_finish.set).start()
    await asyncio.to_thread(may_finish.wait)

    assert now() == 0
    assert not woken_at
    await sleeping
    assert woken_at == [3600]


@virtual
async def test_hold_keeps_the_clock_still_for_what_the_loop_cannot_see() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    done = asyncio.Event()
    thread = threading.Timer(0.05, lambda: loop.call_soon_threadsafe(done.set))

    with loop.hold():
        thread.start()
        async with asyncio.timeout(0.001):
            await done.wait()

    assert now() == 0
    thread.join()


@virtual
async def test_another_thread_wakes_the_loop() -> None:
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    thread = threading.Timer(0.05, lambda: loop.call_soon_threadsafe(done.set_result, "woken"))
    thread.start()

    result = await done  # No timer is set, so this is no deadlock only because of the thread.

    assert result == "woken"
    assert now() == 0
    thread.join()


@virtual
async def test_loopback_traffic_comes_before_the_next_timer() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    size = 5_000_000

    async with asyncio.timeout(1e-6):
        for _ in range(3):
            writer.write(b"x" * size)
            await reader.readexactly(size)

    assert now() == 0
    writer.close()
    server.close()
    await asyncio.sleep(0.1)


@virtual
async def test_open_idle_connection_does_not_hold_the_clock() -> None:
    gone = asyncio.Event()

    async def idle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        gone.set()

    server = await asyncio.start_server(idle, "127.0.0.1", 0)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())

    await asyncio.sleep(3600)

    assert now() == 3600
    writer.close()
    await gone.wait()
    server.close()
    await asyncio.sleep(0.1)


async def wait_for_ever() -> None:
    await asyncio.get_running_loop().create_future()


def test_deadlock_is_reported_with_the_tasks_that_wait() -> None:
    async def main() -> None:
        waiting = asyncio.create_task(wait_for_ever(), name="the forgotten one")
        await asyncio.sleep(5)
        await waiting

    with pytest.raises(VirtualDeadlock) as caught:
        run_virtual(main())

    assert "at virtual 5 s" in str(caught.value)
    assert "task the forgotten one (wait_for_ever, in wait_for_ever at test_virtual_time.py:" in str(
        caught.value
    )
    assert "main" in str(caught.value)


def test_deadlock_is_reported_beside_an_open_socket_too() -> None:
    async def main() -> None:
        server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        async with server:
            await wait_for_ever()

    with pytest.raises(VirtualDeadlock, match="wait_for_ever"):
        run_virtual(main())


def test_tasks_are_cancelled_after_a_deadlock() -> None:
    ended: list[str] = []

    async def main() -> None:
        try:
            await wait_for_ever()
        finally:
            ended.append("cleaned up")

    with pytest.raises(VirtualDeadlock):
        run_virtual(main())

    assert ended == ["cleaned up"]


def test_limit_of_virtual_time_ends_a_run_that_would_not() -> None:
    async def main() -> None:
        for _ in itertools.count():
            await asyncio.sleep(1)

    with pytest.raises(VirtualTimeExceeded, match=r"passed 100 s.*main"):
        run_virtual(main(), max_virtual_s=100)


@pytest.mark.parametrize("hold", [False, True])
def test_limit_of_real_time_ends_a_run_that_is_busy_or_held(hold: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        if hold:
            with loop.hold():
                await wait_for_ever()
        for _ in itertools.count():
            await asyncio.sleep(0)

    with pytest.raises(VirtualTimeExceeded, match="holds the clock" if hold else "busy"):
        run_virtual(main(), max_real_s=0.05)


def test_result_and_error_of_the_coroutine_come_out() -> None:
    async def give() -> int:
        return 7

    async def fail() -> None:
        raise KeyError("x")

    assert run_virtual(give()) == 7
    with pytest.raises(KeyError):
        run_virtual(fail())


def test_each_run_starts_at_zero_and_leaves_no_thread() -> None:
    before = threading.active_count()

    async def main() -> float:
        start = now()
        await asyncio.to_thread(time.monotonic)
        await asyncio.sleep(1)
        return start

    assert [run_virtual(main()) for _ in range(3)] == [0, 0, 0]
    assert threading.active_count() == before


def test_decorated_function_is_plain_and_keeps_its_signature() -> None:
    @virtual
    async def some_test(tmp_path: str, *, n: int = 2) -> int:
        """What it shows."""
        return n

    assert not inspect.iscoroutinefunction(some_test)
    assert list(inspect.signature(some_test).parameters) == ["tmp_path", "n"]
    assert (some_test.__name__, some_test.__doc__) == ("some_test", "What it shows.")
    assert some_test("x", n=3) == 3


@pytest.fixture
def number() -> int:
    return 41


@pytest.mark.parametrize("step", [1])
@virtual
async def test_fixtures_and_parameters_reach_a_virtual_test(number: int, step: int) -> None:
    assert number + step == 42


@given(x=st.integers())
@virtual
async def test_hypothesis_drives_a_virtual_test(x: int) -> None:
    await asyncio.sleep(abs(x) % 100)

    assert now() == abs(x) % 100


class TestMethods:
    @virtual
    async def test_methods_work_too(self) -> None:
        await asyncio.sleep(1)

        assert now() == 1


async def test_real_loop_of_other_tests_is_untouched() -> None:
    assert not isinstance(asyncio.get_running_loop(), VirtualTimeLoop)


def test_importing_the_kit_imports_no_pytest() -> None:
    code = (
        "import sys, voxengine.testing as t; t.virtual; t.leak_check; "
        "assert not {'pytest', 'numpy', 'websockets', 'hypothesis'} & set(sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
