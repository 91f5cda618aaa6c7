"""The clocks that say how much was played."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxengine.audio.format import AudioFormat
from voxengine.audio.playback import ExternalClock, NullClock
from voxengine.audio.switching import SwitchableClock
from voxengine.errors import UsageError
from voxengine.testing import leak_check, run_virtual, virtual

RATE = 8000
FORMAT = AudioFormat(RATE)


class Ear:
    """What a listener was told, and when."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, float]] = []
        self.played: dict[str, int] = {}
        self.then: Callable[[], object] = lambda: None

    def playback_started(self, item: str) -> None:
        self.told.append(("start", item, round(asyncio.get_running_loop().time(), 3)))

    def playback_stopped(self, item: str, played_ms: int) -> None:
        self.told.append(("stop", item, round(asyncio.get_running_loop().time(), 3)))
        self.played[item] = played_ms
        self.then()


def null() -> tuple[NullClock, Ear]:
    ear = Ear()
    return NullClock(FORMAT, ear, asyncio.get_running_loop()), ear


@virtual
async def test_plays_in_real_time_and_to_the_millisecond() -> None:
    clock, ear = null()
    clock.write("a", RATE)

    for ms in (0, 1, 250, 999):
        await asyncio.sleep(ms / 1000 - asyncio.get_running_loop().time())
        assert clock.played_ms("a") == ms
    clock.finish("a")
    await asyncio.sleep(5)

    assert clock.played_ms("a") == clock.total_played_ms() == 1000
    assert ear.told == [("start", "a", 0.0), ("stop", "a", 1.0)]
    assert clock.current is None


@virtual
async def test_pause_between_two_writes_does_not_count() -> None:
    clock, ear = null()
    clock.write("a", RATE // 10)
    await asyncio.sleep(3)
    clock.write("a", RATE // 10)
    await asyncio.sleep(0.05)

    assert clock.played_ms("a") == 150
    assert clock.current == "a"
    assert [what for what, *_ in ear.told] == ["start"]


@virtual
async def test_second_item_begins_where_the_first_ends() -> None:
    clock, ear = null()
    clock.write("a", RATE)
    clock.finish("a")
    clock.write("b", RATE)
    clock.finish("b")
    await asyncio.sleep(1.5)

    assert (clock.played_ms("a"), clock.played_ms("b")) == (1000, 500)
    assert clock.current == "b"
    await asyncio.sleep(5)
    assert [item for _, item, _ in ear.told] == ["a", "a", "b", "b"]
    assert [at for *_, at in ear.told] == pytest.approx([0, 1, 1, 2], abs=0.002)


@virtual
async def test_listener_that_asks_back_counts_nothing_twice() -> None:
    clock, ear = null()
    ear.then = lambda: clock.played_ms("b")
    for item in ("a", "b", "c"):
        clock.write(item, RATE // 10)
        clock.finish(item)
    clock.write("c", RATE)

    await asyncio.sleep(0.15)

    assert clock.total_played_ms() == 150
    assert (clock.played_ms("a"), clock.played_ms("b"), clock.played_ms("c")) == (100, 50, 0)


@virtual
async def test_item_that_waits_for_more_of_itself_does_not_catch_up() -> None:
    clock, _ = null()
    clock.write("a", RATE)
    clock.write("b", RATE)
    await asyncio.sleep(3)
    clock.write("a", RATE)
    await asyncio.sleep(0.1)

    assert (clock.played_ms("a"), clock.played_ms("b")) == (1100, 0)


@virtual
async def test_flush_is_silence_at_once_for_good() -> None:
    clock, ear = null()
    clock.write("a", RATE)
    clock.write("b", RATE)
    await asyncio.sleep(0.3)

    clock.flush()

    assert clock.current is None
    await asyncio.sleep(5)
    assert (clock.played_ms("a"), clock.played_ms("b"), clock.total_played_ms()) == (300, 0, 300)
    assert ear.told == [("start", "a", 0.0), ("stop", "a", 0.3)]
    assert ear.played == {"a": 300}


@virtual
async def test_nothing_is_left_when_it_is_closed() -> None:
    async with leak_check():
        clock, _ = null()
        clock.write("a", RATE * 60)
        clock.close()

    assert clock.played_ms("never") == 0


OPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from("abc"), st.integers(0, 2000)),
        st.tuples(st.just("finish"), st.sampled_from("abc"), st.just(0)),
        st.tuples(st.just("flush"), st.just(""), st.just(0)),
        st.tuples(st.just("sleep"), st.just(""), st.integers(0, 3000)),
    ),
    max_size=40,
)


class Model:
    """A second way to say the same: frame by frame, in a list."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.left: dict[str, int] = {}
        self.finished: set[str] = set()
        self.played: dict[str, int] = {}
        self.total = 0

    def write(self, item: str, n: int) -> None:
        if item not in self.order:
            self.order.append(item)
            self.left[item], self.played[item] = 0, 0
            self.finished.discard(item)
        self.left[item] += n
        self.settle()

    def finish(self, item: str) -> None:
        if item in self.order:
            self.finished.add(item)
        self.settle()

    def flush(self) -> None:
        self.order.clear()

    def settle(self) -> None:
        for item in list(self.order):
            if item in self.finished and not self.left[item]:
                self.order.remove(item)

    def sleep(self, n: int) -> None:
        while n and self.order:
            head = self.order[0]
            step = min(n, self.left[head])
            self.left[head] -= step
            self.played[head] += step
            self.total += step
            n -= step
            if self.left[head] or head not in self.finished:
                return
            self.order.remove(head)


@given(OPS)
def test_agrees_with_a_model_that_counts_frames(ops: list[tuple[str, str, int]]) -> None:
    async def play() -> None:
        clock, _ = null()
        model = Model()
        for what, item, n in ops:
            if what == "write":
                clock.write(item, n)
                model.write(item, n)
            elif what == "finish":
                clock.finish(item)
                model.finish(item)
            elif what == "flush":
                clock.flush()
                model.flush()
            else:
                await asyncio.sleep(n / RATE)
                model.sleep(n)
            for name, played in model.played.items():
                assert abs(clock.played_ms(name) - played * 1000 // RATE) <= 1
            assert abs(clock.total_played_ms() - model.total * 1000 // RATE) <= 1
        clock.close()

    run_virtual(play())


@virtual
async def test_external_sink_is_believed_up_to_what_it_was_given() -> None:
    ear = Ear()
    clock = ExternalClock(FORMAT, ear)
    clock.write("a", RATE)
    await asyncio.sleep(9)
    assert clock.played_ms("a") == 0

    clock.mark_played("a", 400)
    clock.mark_played("a", 300)
    assert clock.played_ms("a") == 400
    clock.mark_played("a", 99_999)

    assert clock.played_ms("a") == clock.total_played_ms() == 1000
    waiting = clock.current
    assert waiting == "a"  # It may go on; what an interruption cuts is this item.
    clock.finish("a")
    assert clock.current is None
    assert [what for what, *_ in ear.told] == ["start", "stop"]


@virtual
async def test_external_sink_that_cleared_plays_no_more() -> None:
    ear = Ear()
    clock = ExternalClock(FORMAT, ear)
    clock.write("a", RATE)
    clock.mark_played("a", 250)

    clock.cleared()
    clock.mark_played("a", 800)

    assert clock.played_ms("a") == 250
    assert ear.played == {"a": 250}


@virtual
async def test_external_sink_may_not_report_what_it_was_not_given() -> None:
    clock = ExternalClock(FORMAT, Ear())

    with pytest.raises(UsageError, match="item_id of AUDIO_OUTPUT_CHUNK"):
        clock.mark_played("nothing", 10)


@virtual
async def test_paused_null_clock_stands_still_and_goes_on_where_it_was() -> None:
    clock, ear = null()
    clock.write("a", RATE)
    clock.finish("a")
    await asyncio.sleep(0.25)

    clock.pause()
    await asyncio.sleep(3)
    clock.write("b", RATE)
    paused = (clock.played_ms("a"), clock.current, clock.open_items())
    clock.resume()
    clock.resume()
    await asyncio.sleep(0.5)

    assert paused == (250, "a", ["a", "b"])
    assert clock.played_ms("a") == 750
    await asyncio.sleep(1)
    assert ear.told == [("start", "a", 0.0), ("stop", "a", 4.0), ("start", "b", 4.0)]
    clock.close()


@virtual
async def test_flush_of_a_paused_null_clock_ends_the_pause() -> None:
    clock, ear = null()
    clock.write("a", RATE)
    await asyncio.sleep(0.1)
    clock.pause()
    await asyncio.sleep(1)

    clock.flush()
    clock.write("b", RATE)
    await asyncio.sleep(0.2)

    assert (ear.played, clock.played_ms("b")) == ({"a": 100}, 200)
    clock.close()


@virtual
async def test_external_player_is_not_paused_from_here() -> None:
    clock = ExternalClock(FORMAT, Ear())
    clock.write("a", RATE)
    clock.pause()

    clock.mark_played("a", 300)

    assert (clock.played_ms("a"), clock.open_items()) == (300, ["a"])
    clock.resume()


# -- one clock after the other ------------------------------------------------------------------------


def switchable() -> tuple[SwitchableClock, Ear]:
    ear = Ear()
    return SwitchableClock(ear, lambda listener: NullClock(FORMAT, listener, asyncio.get_running_loop())), ear


def another(clock: SwitchableClock) -> NullClock:
    return NullClock(FORMAT, clock, asyncio.get_running_loop())


@virtual
async def test_item_ends_on_the_clock_on_which_it_began() -> None:
    async with leak_check():
        clock, ear = switchable()
        clock.write("a", RATE)
        await asyncio.sleep(0.5)
        second = another(clock)
        clock.switch_to(second)
        clock.write("a", RATE)
        clock.finish("a")
        clock.write("b", RATE // 2)
        clock.finish("b")
        await asyncio.sleep(5)

        assert ear.played == {"a": 2000, "b": 500}
        assert second.total_played_ms() == 500
        assert (clock.total_played_ms(), clock.current, clock.active) == (2500, None, second)
        clock.close()


@virtual
async def test_what_earlier_clocks_played_is_remembered() -> None:
    clock, _ = switchable()
    for name in ("a", "b", "c"):
        clock.write(name, RATE)
        clock.finish(name)
        await asyncio.sleep(2)
        clock.switch_to(another(clock))

    assert [clock.played_ms(name) for name in ("a", "b", "c", "d")] == [1000, 1000, 1000, 0]
    assert clock.total_played_ms() == 3000
    clock.close()


@virtual
async def test_flush_pause_and_resume_reach_every_clock() -> None:
    clock, ear = switchable()
    clock.write("a", RATE)
    clock.switch_to(another(clock))
    clock.write("b", RATE)
    await asyncio.sleep(0.1)
    clock.pause()
    await asyncio.sleep(1)
    paused = (clock.played_ms("a"), clock.played_ms("b"), clock.open_items())
    clock.resume()
    await asyncio.sleep(0.1)

    clock.flush()

    assert paused == (100, 100, ["a", "b"])
    assert (ear.played, clock.open_items()) == ({"a": 200, "b": 200}, [])
    clock.close()


@virtual
async def test_chunks_go_straight_to_the_clock_that_is_alone() -> None:
    clock, _ = switchable()
    first = clock.active
    assert clock.write == first.write

    clock.write("a", RATE)
    clock.finish("a")
    clock.switch_to(another(clock))
    assert clock.write != clock.active.write
    await asyncio.sleep(2)

    assert clock.write == clock.active.write
    clock.close()
