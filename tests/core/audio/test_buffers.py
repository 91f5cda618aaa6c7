from __future__ import annotations

import threading
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from voxengine.audio.buffers import CaptureQueue, RingBuffer
from voxengine.errors import UsageError


class Buffer(RuleBasedStateMachine):
    """A ring of fixed memory against a list of bytes."""

    @initialize(capacity=st.integers(1, 40), overwrite=st.booleans())
    def begin(self, capacity: int, overwrite: bool) -> None:
        self.ring = RingBuffer(capacity, overwrite=overwrite)
        self.model: deque[int] = deque(maxlen=capacity)
        self.dropped = 0

    @rule(data=st.binary(max_size=100))
    def write(self, data: bytes) -> None:
        room = self.ring.capacity - len(self.model)
        self.dropped += max(0, len(data) - room)
        kept = data if self.ring.overwrite else data[:room]
        assert self.ring.write(data) == len(kept)
        self.model.extend(kept)

    @rule(n_bytes=st.integers(-1, 60), is_peek=st.booleans())
    def read(self, n_bytes: int, is_peek: bool) -> None:
        size = len(self.model) if n_bytes < 0 else min(n_bytes, len(self.model))
        expected = bytes(list(self.model)[:size])
        got = self.ring.peek(n_bytes) if is_peek else self.ring.read(n_bytes)
        assert got == expected
        if not is_peek:
            for _ in range(size):
                self.model.popleft()

    @rule()
    def clear(self) -> None:
        self.ring.clear()
        self.model.clear()

    @invariant()
    def accounts_agree(self) -> None:
        if hasattr(self, "model"):
            assert (len(self.ring), self.ring.dropped) == (len(self.model), self.dropped)


TestBuffer = Buffer.TestCase
TestBuffer.settings = settings(max_examples=60, deadline=None)


def test_a_buffer_without_room_for_anything_is_refused() -> None:
    with pytest.raises(UsageError, match="capacity is 0"):
        RingBuffer(0)


@given(st.lists(st.one_of(st.integers(1, 40), st.none()), max_size=60))
@settings(deadline=None)
def test_every_block_is_drained_or_counted(steps: list[int | None]) -> None:
    wakes: list[int] = []
    queue = CaptureQueue(10, 50, lambda: wakes.append(1))
    pushed: list[bytes] = []
    drained: list[bytes] = []
    n_dropped = 0
    waiting: deque[bytes] = deque()

    for step in [*steps, None]:
        if step is None:
            drained += queue.drain()
            waiting.clear()
            assert queue.dropped_frames == 10 * n_dropped
        for _ in range(step or 0):
            block = len(pushed).to_bytes(20, "little")
            pushed.append(block)
            queue.push(block)
            waiting.append(block)
            if len(waiting) > 5:
                waiting.popleft()
                n_dropped += 1

    assert len(drained) + n_dropped == len(pushed)
    assert drained == sorted(drained)
    assert pushed[-1:] == drained[-1:]
    assert len(wakes) <= steps.count(None) + 1


def test_one_wake_up_for_a_burst_and_another_after_it_was_drained() -> None:
    wakes: list[int] = []
    queue = CaptureQueue(10, 500, lambda: wakes.append(1))

    for _ in range(5):
        queue.push(b"x")
    burst = len(wakes)
    queue.drain()
    queue.push(b"y")

    assert (burst, len(wakes)) == (1, 2)


def test_no_block_is_left_asleep_between_two_threads() -> None:
    woken = threading.Semaphore(0)
    queue = CaptureQueue(1, 10**9, woken.release)
    n_blocks = 20_000
    got: list[bytes] = []

    def produce() -> None:
        for n in range(n_blocks):
            queue.push(n.to_bytes(4, "little"))

    producer = threading.Thread(target=produce)
    producer.start()
    while len(got) < n_blocks:
        assert woken.acquire(timeout=20)
        got += queue.drain()
    producer.join()

    assert got == [n.to_bytes(4, "little") for n in range(n_blocks)]
    assert queue.dropped_frames == 0
