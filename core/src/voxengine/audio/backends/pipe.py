"""Raw PCM16 from and to pipes, such as the standard streams: each in a thread, since pipes block."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import BinaryIO, Final

from voxengine.audio.backends.base import Pacing
from voxengine.audio.backends.paced import PacedBackend
from voxengine.audio.disposable import Disposable
from voxengine.audio.format import AudioFormat

__all__ = ["PipeBackend"]

_HELD_INPUT: Final = 50
"""Pieces that are read ahead of the loop; beyond, the pipe waits."""
_HELD_OUTPUT: Final = 10
"""Blocks that the reader of the output may be late; beyond, playback waits."""
_PATIENCE_S: Final = 1.0
"""How long closing waits for the last blocks to go out."""


class _PipeSource:
    """Reads a pipe in a daemon thread, which ends with the pipe or when it is closed."""

    def __init__(self, stream: BinaryIO, audio_format: AudioFormat) -> None:
        self._stream = stream
        self._frame_bytes = audio_format.frame_bytes
        self._blocks: deque[bytes] = deque()
        self._rest = b""
        self._room = threading.Semaphore(_HELD_INPUT)
        self._is_closed = False
        self._is_ended = False
        self._error: OSError | None = None
        self._wake: Callable[[], None] = lambda: None
        self._block_bytes = audio_format.n_bytes(20)

    def connect(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        threading.Thread(target=self._run, name="voxengine pipe in", daemon=True).start()

    def _run(self) -> None:
        # Of a buffered stream, read1 returns what is there; read would wait for a full block.
        read = getattr(self._stream, "read1", self._stream.read)
        try:
            while not self._is_closed and (piece := read(self._block_bytes)):
                self._room.acquire()
                self._blocks.append(piece)
                self._wake()
        except (OSError, ValueError) as error:  # ValueError: the stream was closed under our hands.
            self._error = error if isinstance(error, OSError) else None
        self._is_ended = True
        self._wake()

    def read(self, n_frames: int) -> bytes | None:
        size = n_frames * self._frame_bytes
        is_ended = self._is_ended
        while len(self._rest) < size and self._blocks:
            self._rest += self._blocks.popleft()
            self._room.release()
        if len(self._rest) < size and not is_ended:
            return None
        if not self._rest and self._error is not None:
            raise self._error
        whole = min(size, len(self._rest) // self._frame_bytes * self._frame_bytes)
        block, self._rest = self._rest[:whole], self._rest[whole:]
        return block

    def close(self) -> None:
        self._is_closed = True
        self._room.release()


class _PipeSink:
    """Writes a pipe in a daemon thread. A reader that does not keep up stops the stream, not the loop."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._blocks: deque[bytes] = deque()
        self._waiting = threading.Semaphore(0)
        self._ended = threading.Event()
        self._is_closed = False
        self._error: OSError | None = None
        self._wake: Callable[[], None] = lambda: None

    def connect(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        threading.Thread(target=self._run, name="voxengine pipe out", daemon=True).start()

    def _run(self) -> None:
        try:
            while True:
                self._waiting.acquire()
                try:
                    block = self._blocks.popleft()
                except IndexError:
                    if self._is_closed:
                        break
                    continue  # It was discarded.
                self._stream.write(block)
                self._stream.flush()
                self._wake()
        except (OSError, ValueError) as error:
            self._error = error if isinstance(error, OSError) else BrokenPipeError("the pipe was closed")
            self._wake()
        self._ended.set()

    def write(self, block: bytes) -> None:
        if self._error is not None:
            raise self._error
        self._blocks.append(block)
        self._waiting.release()

    def has_room(self) -> bool:
        return self._error is not None or len(self._blocks) < _HELD_OUTPUT

    def n_waiting(self) -> int:
        return sum(map(len, list(self._blocks)))

    def discard(self) -> None:
        self._blocks.clear()

    async def close(self) -> None:
        self._is_closed = True
        self._waiting.release()
        with contextlib.suppress(TimeoutError):
            await Disposable(self._ended.wait, "voxengine pipe end").wait(_PATIENCE_S)
        if self._error is not None:
            raise self._error


class PipeBackend(PacedBackend):
    """Raw PCM16 through binary streams, for example ``sys.stdin.buffer`` and ``sys.stdout.buffer``.

    Args:
        input: Read to its end; None: no microphone. A part of a frame at the end is dropped.
        output: Written and flushed block by block; None: no loudspeaker. Not closed.
        input_format: What the input holds.
        pacing: ``real`` paces the input too, where it comes faster.

    A reader of the output that stops reading stops playback within ten blocks. What it did not take by the
    time of an interruption is dropped and does not count as played.
    """

    def __init__(
        self,
        input: BinaryIO | None = None,
        output: BinaryIO | None = None,
        *,
        input_format: AudioFormat | None = None,
        pacing: Pacing = "real",
    ) -> None:
        audio_format = input_format or AudioFormat()

        def source(_: AudioFormat) -> tuple[_PipeSource, AudioFormat]:
            assert input is not None
            return _PipeSource(input, audio_format), audio_format

        def sink(_: AudioFormat) -> _PipeSink:
            assert output is not None
            return _PipeSink(output)

        super().__init__(
            "pipe", source if input is not None else None, sink if output is not None else None, pacing
        )
