"""What the user says: a WAV file or stream, or lines of text. Reading never blocks the loop."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import io
import os
import stat
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

from voxengine.audio.format import AudioFormat
from voxengine.audio.wav import WavReader
from voxengine.errors import ConfigError

__all__ = ["STDIN", "WavSource", "in_daemon_thread", "lines_of_stdin"]

STDIN: Final = "-"
_DEVICE_WORDS: Final = frozenset({"mic", "microphone", "default", "device"})
_LINE_BYTES: Final = 1 << 16

T = TypeVar("T")


async def in_daemon_thread(function: Callable[..., T], *args: Any) -> T:
    """Return ``function(*args)``, run in a thread that holds nobody up.

    Unlike a thread of an executor it may wait for a terminal or a pipe for ever: neither the end of the
    caller nor the interpreter's end waits for it.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)  # type: ignore[arg-type]

    def work() -> None:
        value, caught = None, None
        try:
            value = function(*args)
        except Exception as error:
            caught = error
        with contextlib.suppress(RuntimeError):  # The loop was closed meanwhile.
            loop.call_soon_threadsafe(settle, value, caught)

    # A loop of virtual time cannot see a plain thread; the loops of the standard library have no hold().
    hold: Callable[[], contextlib.AbstractContextManager[Any]] = getattr(loop, "hold", contextlib.nullcontext)
    with hold():
        threading.Thread(target=work, name="voxengine cli", daemon=True).start()
        return await future


class WavSource:
    """The user's speech from a WAV file or from standard input; see :meth:`open`."""

    def __init__(self, name: str, stream: BinaryIO, reader: WavReader) -> None:
        self.name = name
        """For messages: the file's name or "standard input"."""
        self._stream = stream
        self._reader = reader
        self._may_block = not stat.S_ISREG(os.fstat(stream.fileno()).st_mode)

    @classmethod
    async def open(cls, path: str) -> WavSource:
        """Open a WAV and read its header.

        Raises:
            ConfigError: There is none, or it cannot be read.
            AudioFormatError: It is no WAV, or one of an encoding that is not read.
        """
        if path == STDIN and sys.stdin.isatty():
            raise ConfigError("--input - reads a WAV from standard input, which is a terminal. Pipe one in.")
        return await in_daemon_thread(cls._open, path)

    @classmethod
    def _open(cls, path: str) -> WavSource:
        try:
            if path == STDIN:
                stream: Any = io.FileIO(sys.stdin.fileno(), closefd=False)
                stream.name = name = "standard input"
            else:
                stream, name = open(path, "rb"), Path(path).name  # noqa: SIM115 - close() closes it
        except OSError as error:
            hint = ""
            if path in _DEVICE_WORDS and isinstance(error, FileNotFoundError):
                hint = " For the microphone leave --input out, or give --microphone."
            reason = error.strerror or type(error).__name__
            raise ConfigError(f"The input {path!r} cannot be read: {reason}.{hint}") from None
        try:
            return cls(name, stream, WavReader(stream))
        except OSError as error:
            stream.close()
            raise ConfigError(f"The input {path!r} cannot be read: {error.strerror}.") from None
        except BaseException:
            stream.close()
            raise

    @property
    def format(self) -> AudioFormat:
        """Rate and channels; always PCM16."""
        return self._reader.format

    @property
    def duration_s(self) -> float | None:
        """How long it says that it is; None when it does not know."""
        frames = self._reader.n_frames
        return None if frames is None else frames / self.format.sample_rate

    @property
    def truncated(self) -> bool:
        """Whether it ended before the length that it declares; known at the end."""
        return self._reader.truncated

    async def read(self, n_frames: int) -> bytes:
        """Return the next frames, fewer or none only at the end."""
        if self._may_block:
            return await in_daemon_thread(self._reader.read, n_frames)
        return self._reader.read(n_frames)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


async def lines_of_stdin() -> AsyncIterator[str]:
    """Yield the lines of standard input, without their ends, as they come."""
    # Not sys.stdin: a thread that waits within it holds a lock which the interpreter needs to end.
    descriptor = sys.stdin.fileno()
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    text = ""
    while True:
        data = await in_daemon_thread(os.read, descriptor, _LINE_BYTES)
        text += decoder.decode(data, final=not data)
        *lines, text = text.split("\n")
        for line in lines:
            yield line.rstrip("\r")
        if not data:
            break
    if text:
        yield text
