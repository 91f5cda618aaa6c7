"""The ring between loop and loudspeaker: order, account, flush, prebuffer and fades."""

from __future__ import annotations

import sys
import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.core.audio.sounds import tone
from voxengine.audio import rings
from voxengine.audio.format import AudioFormat, Encoding
from voxengine.audio.rings import PlaybackRing, RingTrack
from voxengine.errors import AudioFormatError

RATE = 8000
FORMAT = AudioFormat(RATE)
PREBUFFER = 320
"""Frames in the ring's 40 ms."""


def samples(data: bytes) -> list[int]:
    return list(array("h", data))


def ramp(n_frames: int, first: int = 1) -> bytes:
    return array("h", range(first, first + n_frames)).tobytes()


def plain(limit_s: float = 60.0) -> PlaybackRing:
    """A ring without fades and without prebuffer."""
    return PlaybackRing(FORMAT, prebuffer_ms=0, fade_ms=0, limit_s=limit_s)


def in_thread(call: Callable[[], object]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


class Ring(RuleBasedStateMachine):
    """The ring against a list of frames. Every frame has a value of its own; silence is 0."""

    ring: PlaybackRing

    @initialize(prebuffer_ms=st.sampled_from([0, 40]))
    def begin(self, prebuffer_ms: int) -> None:
        self.ring = PlaybackRing(FORMAT, prebuffer_ms=prebuffer_ms, fade_ms=0, limit_s=0.5)
        self.prebuffer = prebuffer_ms * RATE // 1000
        self.tracks: list[RingTrack] = []
        self.queue: list[tuple[RingTrack, int]] = []
        self.handed: dict[str, int] = {}
        self.n_refused = 0
        self.value = 0
        self.is_paused = False

    @rule()
    def pause(self) -> None:
        in_thread(self.ring.pause)
        self.is_paused = True

    @rule()
    def resume(self) -> None:
        in_thread(self.ring.resume)
        self.is_paused = False

    @rule()
    def begin_item(self) -> None:
        track = self.ring.track(f"item {len(self.tracks)}")
        self.tracks.append(track)
        self.handed[track.item] = 0

    @precondition(lambda self: self.tracks)
    @rule(pick=st.integers(0, 9), n_frames=st.integers(0, 700))
    def write(self, pick: int, n_frames: int) -> None:
        track = self.tracks[-1 - pick % min(3, len(self.tracks))]
        values = [(self.value + n) % 30_000 + 1 for n in range(n_frames)]
        self.value += n_frames
        fits = len(self.queue) + n_frames <= RATE // 2
        is_taken = self.ring.write(track, array("h", values).tobytes())
        assert is_taken is (track.generation == self.ring.generation and fits)
        if is_taken:
            self.queue += [(track, value) for value in values]
        else:
            self.n_refused += n_frames

    @precondition(lambda self: self.tracks)
    @rule(pick=st.integers(0, 9))
    def finish(self, pick: int) -> None:
        self.ring.finish(self.tracks[-1 - pick % min(3, len(self.tracks))])

    @rule(n_frames=st.sampled_from([1, 7, 80, 160, 400]), times=st.integers(1, 6))
    def pull(self, n_frames: int, times: int) -> None:
        for _ in range(times):
            block = samples(self.ring.pull(n_frames))
            assert len(block) == n_frames
            heard = [value for value in block if value]
            if self.is_paused:
                assert heard == []
                continue
            due, self.queue = self.queue[: len(heard)], self.queue[len(heard) :]
            assert heard == [value for _, value in due]
            for track, _ in due:
                self.handed[track.item] += 1
            if len(heard) < n_frames and self.queue:
                head = self.queue[0][0]
                assert not head.is_finished
                assert len(self.queue) < self.prebuffer

    @rule()
    def flush_from_another_thread(self) -> None:
        in_thread(self.ring.flush)
        self.queue.clear()
        self.is_paused = False

    @rule(n_unplayed=st.integers(0, 500))
    def cut(self, n_unplayed: int) -> None:
        before = {track.item: track.played for track in self.tracks}
        taken = self.ring.cut(lambda: n_unplayed, lambda: True)
        self.queue.clear()
        self.is_paused = False
        lost = sum(before[track.item] - track.played for track in self.tracks)
        assert taken == lost <= n_unplayed

    @invariant()
    def accounts_agree(self) -> None:
        if hasattr(self, "queue"):
            assert self.ring.queued_bytes == 2 * len(self.queue)
            assert self.ring.n_refused == self.n_refused
            for track in self.tracks:
                assert track.handed == self.handed[track.item]
                assert 0 <= track.played <= track.handed <= track.written


def test_pause_fades_out_and_goes_on_with_the_next_sample_fading_in() -> None:
    ring = PlaybackRing(FORMAT, prebuffer_ms=0)
    track = ring.track("a")
    sound = tone(RATE, 400, RATE)
    ring.write(track, sound)
    before = ring.pull(160) + ring.pull(160)

    ring.pause()
    paused = ring.pull(160) + ring.pull(160)
    n_handed = track.handed
    is_ready = ring.has_audio
    ring.resume()
    after = ring.pull(160) + ring.pull(160)

    assert before[80:] == sound[80:640]
    assert paused[:80] != bytes(80)
    assert paused[80:] == bytes(560)
    assert (n_handed, is_ready, ring.n_underruns) == (320, False, 0)
    assert abs(samples(after)[1]) < 100 < max(map(abs, samples(sound[640:700])))
    assert after[80:] == sound[720:1280]


TestRing = Ring.TestCase
TestRing.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_chunks_of_any_size_come_out_in_order_and_are_counted_per_item() -> None:
    ring = plain()
    first, second = ring.track("first"), ring.track("second")
    for start, n_frames in ((1, 3), (4, 400), (404, 1)):
        ring.write(first, ramp(n_frames, start))
    ring.finish(first)
    ring.write(second, ramp(200, 5000))

    heard = samples(ring.pull(160) + ring.pull(160) + ring.pull(160))

    assert heard == [*range(1, 405), *range(5000, 5076)]
    assert (first.handed, second.handed) == (404, 76)


def test_nothing_is_heard_after_a_flush_and_what_comes_late_is_refused() -> None:
    ring = plain()
    track = ring.track("cut")
    ring.write(track, ramp(4000))
    ring.pull(160)

    ring.flush()
    is_taken = ring.write(track, ramp(10))

    assert set(ring.pull(160) + ring.pull(160)) == {0}
    assert not is_taken
    assert (track.handed, ring.n_refused, ring.queued_bytes) == (160, 10, 0)


def test_the_next_answer_plays_right_after_a_flush() -> None:
    ring = plain()
    ring.write(ring.track("cut"), ramp(4000))
    ring.pull(160)
    ring.flush()
    ring.write(ring.track("next"), ramp(160, 9000))

    assert samples(ring.pull(160)) == list(range(9000, 9160))


def test_a_cut_takes_back_what_the_device_held_and_never_more_than_was_handed_over() -> None:
    ring = plain()
    first, second = ring.track("first"), ring.track("second")
    ring.write(first, ramp(200))
    ring.finish(first)
    ring.write(second, ramp(1000))
    ring.pull(160)
    ring.pull(160)

    taken = ring.cut(lambda: 200, lambda: True)

    assert (taken, second.played, first.played) == (200, 0, 120)
    assert ring.cut(lambda: 5000, lambda: True) == 120
    assert first.played == 0


def test_silence_behind_the_last_item_is_what_is_taken_back_first() -> None:
    ring = plain()
    track = ring.track("over")
    ring.write(track, ramp(160))
    ring.finish(track)
    for _ in range(3):
        ring.pull(160)

    taken = ring.cut(lambda: 400, lambda: True)

    assert (taken, track.played) == (80, 80)


@pytest.mark.parametrize(("is_thrown_away", "fades"), [(True, False), (False, True)])
def test_only_what_is_played_on_fades_out(is_thrown_away: bool, fades: bool) -> None:
    ring = PlaybackRing(FORMAT, prebuffer_ms=0)
    ring.write(ring.track("cut"), tone(RATE, 440, 1000))
    ring.pull(160)

    ring.cut(lambda: 0, lambda: is_thrown_away)
    after = ring.pull(160)

    assert (set(after) != {0}) is fades


def test_a_device_that_cannot_throw_away_plays_on_and_nothing_is_taken_back() -> None:
    ring = plain()
    track = ring.track("soft")
    ring.write(track, ramp(1000))
    ring.pull(160)

    assert ring.cut(lambda: 160, lambda: False) == 0
    assert track.played == 160


def test_an_item_waits_for_its_prebuffer() -> None:
    ring = PlaybackRing(FORMAT, fade_ms=0)
    track = ring.track("slow")
    ring.write(track, ramp(PREBUFFER - 1))
    before = ring.pull(80)
    ring.write(track, ramp(1, PREBUFFER))

    after = ring.pull(80)

    assert set(before) == {0}
    assert samples(after) == list(range(1, 81))


def test_a_finished_item_does_not_wait_and_no_item_waits_for_ever() -> None:
    short, stalled = PlaybackRing(FORMAT, fade_ms=0), PlaybackRing(FORMAT, fade_ms=0)
    finished, open_ended = short.track("short"), stalled.track("stalled")
    short.write(finished, ramp(10))
    short.finish(finished)
    stalled.write(open_ended, ramp(10))

    blocks = [stalled.pull(80) for _ in range(9)]

    assert samples(short.pull(20)) == [*range(1, 11), *[0] * 10]
    assert all(set(block) == {0} for block in blocks[:8])
    assert samples(blocks[8])[:10] == list(range(1, 11))


def test_what_ran_dry_waits_again_and_is_counted_when_it_goes_on() -> None:
    ring = PlaybackRing(FORMAT, fade_ms=0)
    track = ring.track("stutter")
    ring.write(track, ramp(PREBUFFER))
    ring.pull(PREBUFFER)
    ring.pull(80)
    at_the_gap = ring.n_underruns
    ring.write(track, ramp(80))
    waiting = ring.pull(80)
    ring.write(track, ramp(PREBUFFER))

    ring.pull(80)

    assert (at_the_gap, set(waiting), ring.n_underruns) == (0, {0}, 1)
    assert track.handed == PREBUFFER + 80


def test_the_end_of_a_finished_item_is_no_underrun() -> None:
    ring = plain()
    track = ring.track("whole")
    ring.write(track, ramp(100))
    ring.finish(track)
    ring.pull(160)
    ring.write(ring.track("next"), ramp(160))

    ring.pull(160)

    assert ring.n_underruns == 0


@contextmanager
def largest_step(ring: PlaybackRing, steps: list[int]) -> Iterator[list[bytes]]:
    """Collect blocks, then append the largest step between two neighbours."""
    blocks: list[bytes] = []
    yield blocks
    values = samples(b"".join(blocks))
    steps.append(max(abs(b - a) for a, b in pairwise(values)))


@pytest.mark.parametrize("end", ["flush", "dry"])
@pytest.mark.parametrize("n_played", [160, 163, 200, 231])
def test_start_and_end_of_a_sound_have_no_click(end: str, n_played: int) -> None:
    ring = PlaybackRing(FORMAT, prebuffer_ms=0)
    loud = tone(RATE, 200, 800, -6.0)[2 * 10 :]
    inside = max(abs(b - a) for a, b in pairwise(samples(loud)))
    track = ring.track("loud")
    ring.write(track, loud if end == "flush" else loud[: 2 * n_played])
    steps: list[int] = []

    with largest_step(ring, steps) as blocks:
        blocks.append(bytes(2))
        blocks.append(ring.pull(n_played))
        if end == "flush":
            ring.flush()
        blocks += [ring.pull(160), ring.pull(160)]

    assert steps[0] <= inside * 1.05
    assert track.handed == n_played
    assert set(blocks[-1]) == {0}


def test_beyond_the_fade_every_sample_is_untouched() -> None:
    ring = PlaybackRing(FORMAT, prebuffer_ms=0)
    loud = tone(RATE, 440, 800)
    track = ring.track("loud")
    ring.write(track, loud)
    ring.finish(track)

    heard = b"".join(ring.pull(160) for _ in range(5))

    assert heard[2 * 40 :] == loud[2 * 40 :]
    assert samples(heard)[:40] != samples(loud)[:40]


def test_stereo_fades_keep_the_channels_apart() -> None:
    ring = PlaybackRing(AudioFormat(RATE, 2), prebuffer_ms=0)
    left_only = array("h", [value for _ in range(400) for value in (8000, 0)]).tobytes()
    ring.write(ring.track("left"), left_only)

    heard = samples(ring.pull(200) + ring.pull(300))

    assert max(heard[0::2]) == 8000
    assert set(heard[1::2]) == {0}


def test_blocks_shorter_than_a_fade_still_end_in_silence() -> None:
    ring = PlaybackRing(FORMAT, prebuffer_ms=0)
    ring.write(ring.track("tiny"), tone(RATE, 440, 15))

    heard = b"".join(ring.pull(5) for _ in range(20))

    assert set(heard[-20:]) == {0}


def test_what_waits_is_bounded_by_seconds() -> None:
    ring = PlaybackRing(FORMAT, limit_s=1.0)
    track = ring.track("long")

    taken = [ring.write(track, bytes(2 * 3000)) for _ in range(4)]

    assert taken == [True, True, False, False]
    assert (ring.queued_ms, ring.n_refused) == (750.0, 6000)


def test_the_unplayed_rest_can_be_taken_out() -> None:
    ring = plain()
    first, second = ring.track("first"), ring.track("second")
    ring.write(first, ramp(100))
    ring.write(second, ramp(50, 500))
    ring.pull(30)

    rest = ring.unplayed()

    assert rest == [(first, ramp(70, 31)), (second, ramp(50, 500))]
    assert (ring.queued_bytes, set(ring.pull(10))) == (0, {0})


def test_wrong_formats_are_refused() -> None:
    with pytest.raises(AudioFormatError, match="takes PCM16"):
        PlaybackRing(AudioFormat(8000, 1, Encoding.G711_ULAW))
    ring = plain()
    with pytest.raises(AudioFormatError, match=r"PlaybackRing\.write got 3 bytes"):
        ring.write(ring.track("odd"), b"abc")


def test_an_answer_that_begins_while_a_block_is_cut_loses_no_frame() -> None:
    following: list[RingTrack] = []

    def interrupt() -> None:
        if not following:
            following.append(ring.track("none"))
            ring.flush()
            following[0] = ring.track("next")
            ring.write(following[0], ramp(500, 5000))

    ring = PlaybackRing(FORMAT, prebuffer_ms=0, fade_ms=0, wake=interrupt)
    cut = ring.track("cut")
    ring.write(cut, ramp(100))

    heard = [value for _ in range(5) for value in samples(ring.pull(160)) if value]

    assert heard == [*range(1, 101), *range(5000, 5500)]
    assert (cut.handed, following[0].handed) == (100, 500)


def test_a_flush_waits_for_the_block_that_is_being_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rings, "_CUT_PATIENCE_S", 20.0)
    at_flush: list[int] = []
    threads: list[threading.Thread] = []

    def flush() -> None:
        ring.flush()
        at_flush.append(track.handed)

    def in_the_middle_of_a_block() -> None:
        if not threads:
            threads.append(threading.Thread(target=flush))
            threads[0].start()
            while ring.generation == 0:
                threads[0].join(0.001)

    ring = PlaybackRing(FORMAT, prebuffer_ms=0, fade_ms=0, wake=in_the_middle_of_a_block)
    track = ring.track("cut")
    ring.write(track, ramp(1000))

    heard = [value for value in samples(ring.pull(160)) if value]
    threads[0].join()

    assert at_flush == [track.handed] == [len(heard)] == [160]


def test_the_next_item_waits_for_its_own_prebuffer() -> None:
    ring = PlaybackRing(FORMAT, fade_ms=0)
    first, second = ring.track("first"), ring.track("second")
    ring.write(first, ramp(PREBUFFER))
    ring.finish(first)
    ring.write(second, ramp(PREBUFFER - 1, 5000))

    heard = samples(ring.pull(PREBUFFER + 80))
    ring.write(second, ramp(1, 5000 + PREBUFFER - 1))
    then = samples(ring.pull(80))

    assert heard == [*range(1, PREBUFFER + 1), *[0] * 80]
    assert then == list(range(5000, 5080))
    assert ring.n_underruns == 0


def test_flushes_of_a_third_thread_leave_an_exact_account() -> None:
    ring = plain(limit_s=1000)
    tracks: list[RingTrack] = []
    heard = [0]
    is_done = threading.Event()
    at_flush: list[tuple[RingTrack, int]] = []

    def consume() -> None:
        while not is_done.is_set():
            heard[0] += sum(1 for value in samples(ring.pull(160)) if value)

    def interrupt() -> None:
        while not is_done.is_set():
            ring.flush()
            at_flush.extend(
                (track, track.handed) for track in tracks[-3:] if track.generation < ring.generation
            )

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=consume), threading.Thread(target=interrupt)]
    try:
        for thread in threads:
            thread.start()
        for _ in range(400):
            track = ring.track("item")
            tracks.append(track)
            for _ in range(5):
                ring.write(track, ramp(333))
    finally:
        is_done.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(before)

    assert sum(track.handed for track in tracks) == heard[0]
    assert all(track.handed <= track.written for track in tracks)
    assert at_flush
    # Known when the flush returned, and final.
    wrong = [(track.handed, then) for track, then in at_flush if track.handed != then]
    assert len(wrong) <= len(at_flush) // 100
