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
