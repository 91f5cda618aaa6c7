"""What stands between the microphone's thread and the event loop, and a buffer of fixed memory.

:meth:`CaptureQueue.push` runs in the device's callback. It waits for nothing, logs nothing and touches
neither numpy nor asyncio.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from voxengine.errors import UsageError

__all__ = ["CaptureQueue", "RingBuffer"]


class CaptureQueue:
    """Blocks from the device's thread to the loop. The oldest is dropped where the loop does not keep up.

    Args:
        block_frames: Frames in each block.
        limit_frames: What may wait; rounded up to whole blocks.
        wake: Called from the device's thread when a block arrives and the last wake-up was answered by a
            ``drain``: one call for any burst. It must not block or raise.

    ``push`` belongs to one thread and ``drain`` to another.
    """

    push: Callable[[bytes], None]
    """Take a block, which is kept and not copied. Runs in the device's callback."""
    drain: Callable[[], list[bytes]]
    """Return what waits, oldest first."""

    def __init__(self, block_frames: int, limit_frames: int, wake: Callable[[], None]) -> None:
        self.block_frames = block_frames
        self.limit_blocks = max(1, -(-limit_frames // block_frames))
        self._n_dropped = 0
        blocks: deque[bytes] = deque(maxlen=self.limit_blocks)
        append, popleft = blocks.append, blocks.popleft
        n_pushed = n_drained = 0
        is_armed = True

        # Functions over local variables instead of methods: a fifth less for each block.
        def push(block: bytes) -> None:
            nonlocal n_pushed, is_armed
            append(block)  # At its limit the deque lets the oldest go by itself.
            n_pushed += 1
            if is_armed:
                is_armed = False
                wake()

        def drain() -> list[bytes]:
            nonlocal n_drained, is_armed
            # Armed before the queue is emptied: a block that comes in between wakes once too often, never
            # too seldom.
            is_armed = True
            # Nobody else takes blocks out, and where the producer drops the oldest the number stays.
            taken = [popleft() for _ in range(len(blocks))]
            n_drained += len(taken)
            return taken

        def n_dropped() -> int:
            pushed = n_pushed  # Counted after it was queued, hence read before the queue is measured.
            return pushed - n_drained - len(blocks)

        self.push, self.drain = push, drain
        self._count_dropped = n_dropped
        self._blocks = blocks

    @property
    def has_room(self) -> bool:
        """Whether a block fits without another being dropped."""
        return len(self._blocks) < self.limit_blocks

    @property
    def dropped_frames(self) -> int:
        """Frames that were dropped so far. For the draining thread; never too many, and exact at rest."""
        self._n_dropped = max(self._n_dropped, self._count_dropped())
        return self._n_dropped * self.block_frames


class RingBuffer:
    """A fixed number of bytes, first in first out: for pre-roll and for users who may not allocate.

    Args:
        capacity: In bytes.
        overwrite: What a full buffer does: False refuses what does not fit, True lets the oldest go. Both
            count it in ``dropped``.

    With ``overwrite=False`` one thread may write while another reads; otherwise one thread owns it.

    Raises:
        UsageError: ``capacity`` is not positive.
    """

    def __init__(self, capacity: int, *, overwrite: bool = False) -> None:
        if capacity < 1:
            raise UsageError(f"RingBuffer: capacity is {capacity!r}; it is a number of bytes from 1.")
        self.capacity = capacity
        self.overwrite = overwrite
        self.dropped = 0
        """Bytes that were refused or overwritten."""
        self._memory = memoryview(bytearray(capacity))
        self._n_written = 0
        self._n_read = 0

    def __len__(self) -> int:
        return self._n_written - self._n_read

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Copy bytes in and return how many were taken."""
        view = memoryview(data)
        size = len(view)
        room = self.capacity - (self._n_written - self._n_read)
        if size > room:
            self.dropped += size - room
            if not self.overwrite:
                size = room
                view = view[:size]
            else:
                self._n_read += min(size - room, len(self))
                if size > self.capacity:
                    # Only its end stays: leave the place of what is skipped behind.
                    skipped = size - self.capacity
                    self._n_written += skipped
                    self._n_read = self._n_written
                    view = view[skipped:]
        at = self._n_written % self.capacity
        first = min(len(view), self.capacity - at)
        self._memory[at : at + first] = view[:first]
        if first < len(view):
            self._memory[: len(view) - first] = view[first:]
        self._n_written += len(view)
        return size

    def read(self, n_bytes: int = -1) -> bytes:
        """Take bytes out, fewer when there are fewer; all for -1."""
        data = self.peek(n_bytes)
        self._n_read += len(data)
        return data

    def peek(self, n_bytes: int = -1) -> bytes:
        """Return the oldest bytes without taking them out."""
        held = len(self)
        size = held if n_bytes < 0 else min(n_bytes, held)
        at = self._n_read % self.capacity
        first = min(size, self.capacity - at)
        head = bytes(self._memory[at : at + first])
        return head if first == size else head + bytes(self._memory[: size - first])

    def clear(self) -> None:
        """Let everything go. The reader's."""
        self._n_read = self._n_written
