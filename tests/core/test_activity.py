"""Tasks that an engine owns, and waiting for rest."""

from __future__ import annotations

import asyncio

import pytest

from voxengine.activity import Activity
from voxengine.testing import leak_check, virtual


@virtual
async def test_rest_is_when_nothing_was_busy_nor_happened_for_so_long() -> None:
    activity, loop = Activity(), asyncio.get_running_loop()
    for at in (1.0, 1.3, 1.7):
        loop.call_at(at, activity.touch)

    assert await activity.wait_while(lambda: loop.time() < 1.5, 60, settle_s=0.5)

    assert loop.time() == pytest.approx(2.2)


@virtual
async def test_waiting_ends_when_its_time_is_over() -> None:
    activity, loop = Activity(), asyncio.get_running_loop()

    assert not await activity.wait_while(lambda: True, 3)

    assert loop.time() == pytest.approx(3)


@pytest.mark.parametrize("is_busy", [False, True])
@virtual(max_real_s=2.0)
async def test_rest_of_a_pause_that_the_loop_takes_for_over_is_over(is_busy: bool) -> None:
    async def keep_the_loop_turning() -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)

    activity, turning = Activity(), asyncio.create_task(keep_the_loop_turning())
    activity.touch(asyncio.get_running_loop().time() - 0.5 + 1e-10)

    came_to_rest = await activity.wait_while(lambda: is_busy, 1e-10 if is_busy else 60, settle_s=0.5)

    turning.cancel()
    assert came_to_rest is not is_busy


@virtual
async def test_two_may_wait_for_the_same() -> None:
    activity, loop = Activity(), asyncio.get_running_loop()
    busy = [True]
    waiting = [asyncio.create_task(activity.wait_while(lambda: bool(busy), limit)) for limit in (5, 50)]
    await asyncio.sleep(1)
    busy.clear()
    activity.touch()

    assert await asyncio.gather(*waiting) == [True, True]
    assert loop.time() == pytest.approx(1)


@virtual
async def test_closing_cancels_every_task_but_the_one_that_closes() -> None:
    async with leak_check():
        activity = Activity()
        others = [activity.start(asyncio.sleep(1000), "sleeper") for _ in range(3)]
        await asyncio.sleep(0)

        await activity.start(activity.close(), "closer")

        assert all(task.cancelled() for task in others)
