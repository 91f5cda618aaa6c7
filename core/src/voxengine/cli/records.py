"""What stays of a conversation: the answers as a WAV, and what was said and done as JSON lines."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, Final

from voxengine.audio.format import AudioFormat
from voxengine.audio.wav import WavWriter
from voxengine.errors import ConfigError, VoxEngineError

__all__ = ["AnswerRecorder", "TranscriptFile", "WriteFailed", "check_target"]

STDOUT: Final = "-"


class WriteFailed(VoxEngineError):
    """A file of the conversation could not be written to its end."""


@contextlib.contextmanager
def _named(option: str, path: str | None) -> Iterator[None]:
    """Say which file an OSError is about. A reader that went away is no failure of ours and passes."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise WriteFailed(f"{option} {path!r} cannot be written: {error.strerror}.") from None


def check_target(option: str, path: str, others: list[str | None]) -> None:
    """Find out, before anything is opened, what stands against writing a file.

    Raises:
        ConfigError: It is a directory, its folder is missing, it may not be written, or it is one of the
            other files of the call.
    """
    target = Path(path)
    if target.is_dir():
        raise ConfigError(f"{option} {path!r} is a directory. Name a file in it.")
    if not target.absolute().parent.is_dir():
        raise ConfigError(f"{option} {path!r}: there is no directory {str(target.parent)!r}. Make it first.")
    if not os.access(target if target.exists() else target.absolute().parent, os.W_OK):
        raise ConfigError(f"{option} {path!r} may not be written here.")
    for other in others:
        if other is not None and other != STDOUT and target.absolute() == Path(other).absolute():
            raise ConfigError(f"{option} {path!r} is named for something else in this call too.")
        with contextlib.suppress(OSError):
            if other is not None and target.is_file() and target.samefile(other):
                raise ConfigError(f"{option} {path!r} is the same file as {other!r}.")


class AnswerRecorder:
    """Writes the answers one after the other, each when it has been played.

    What an interruption cut was not heard and is not written.

    Args:
        path: A file, ``-`` for standard output, None to count only.
        audio_format: What the chunks are.
    """

    def __init__(self, path: str | None, audio_format: AudioFormat) -> None:
        self.format = audio_format
        self.received_s = 0.0
        self.kept_s = 0.0
        self._items: dict[str, bytearray] = {}
        self._path = path
        self._stream: BinaryIO | None = None
        self._writer: WavWriter | None = None
        if path is not None:
            try:
                self._stream = sys.stdout.buffer if path == STDOUT else open(path, "wb")  # noqa: SIM115
            except OSError as error:
                raise ConfigError(f"--output {path!r} cannot be written: {error.strerror}.") from None
            with _named("--output", path):
                self._writer = WavWriter(self._stream, audio_format)

    def take(self, item_id: str, audio: bytes) -> int:
        """Keep a chunk until its item has been played; return how long the item is by now, in ms."""
        held = self._items.setdefault(item_id, bytearray())
        held += audio
        self.received_s += self.format.duration_ms(len(audio)) / 1000
        return -(-self.format.n_frames(len(held)) * 1000 // self.format.sample_rate)

    def stopped(self, item_id: str, played_ms: int) -> None:
        """Write what was played of an item: all of it, or what was heard before it was cut."""
        held = bytes(self._items.pop(item_id, b""))
        # The position is told in whole milliseconds.
        if self.format.duration_ms(len(held)) - played_ms >= 1:
            held = held[: self.format.n_bytes(played_ms)]
        self.kept_s += self.format.duration_ms(len(held)) / 1000
        if self._writer is not None and held:
            with _named("--output", self._path):
                self._writer.write(held)

    def close(self) -> None:
        """Finish the file. Twice is allowed."""
        if self._writer is None or self._stream is None:
            return
        writer, self._writer = self._writer, None
        try:
            with _named("--output", self._path):
                writer.close()
        finally:
            if self._path != STDOUT:
                with contextlib.suppress(OSError):  # What could not be written was told.
                    self._stream.close()


class TranscriptFile:
    """One JSON object per line, on the disk as soon as it is known.

    Args:
        path: Emptied by :meth:`open` or the first line, not before; None to count only.
    """

    def __init__(self, path: str | None) -> None:
        self.n_lines = 0
        self._path = path
        self._stream: IO[str] | None = None

    def open(self) -> None:
        """Begin the file. Twice is allowed.

        Raises:
            ConfigError: It cannot be written.
        """
        if self._path is None or self._stream is not None:
            return
        try:
            self._stream = open(  # noqa: SIM115
                self._path, "w", encoding="utf-8", errors="replace", newline="\n"
            )
        except OSError as error:
            raise ConfigError(f"--transcript {self._path!r} cannot be written: {error.strerror}.") from None

    def add(self, at_s: float, kind: str, **fields: Any) -> None:
        """Write a line; fields that are None are left out."""
        self.n_lines += 1
        self.open()
        if self._stream is None:
            return
        values = {name: value for name, value in fields.items() if value is not None}
        line = {"at_s": round(at_s, 3), "kind": kind, **values}
        with _named("--transcript", self._path):
            self._stream.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Close the file. Twice is allowed."""
        if self._stream is not None:
            with contextlib.suppress(OSError):  # Each line was flushed, and told when it could not be.
                self._stream.close()
