"""Audio from and to WAV files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from voxengine.audio.backends.base import Pacing
from voxengine.audio.backends.paced import NullSink, PacedBackend
from voxengine.audio.format import AudioFormat
from voxengine.audio.wav import WavReader, WavWriter
from voxengine.errors import ConfigError

__all__ = ["FileBackend"]


class _FileSource:
    """Reads the blocks of a WAV file; an odd end of it is dropped by the reader."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._reader = WavReader(path)
        self.format = self._reader.format

    def read(self, n_frames: int) -> bytes | None:
        return self._reader.read(n_frames)

    def connect(self, wake: Callable[[], None]) -> None:
        """A file is always there."""

    def close(self) -> None:
        self._reader.close()


class _FileSink(NullSink):
    """Writes a WAV file that can be read up to the last second while it grows."""

    def __init__(self, path: str | os.PathLike[str], audio_format: AudioFormat) -> None:
        self._writer = WavWriter(path, audio_format)

    def write(self, block: bytes) -> None:
        self._writer.write(block)

    async def close(self) -> None:
        self._writer.close()


class FileBackend(PacedBackend):
    """A WAV file as the microphone, another as the loudspeaker.

    Args:
        input: The file to read; None: no microphone.
        output: The file to write, which is overwritten when a stream is opened; None: no loudspeaker.
        pacing: In real time the written file has the conversation's silences; without a pace, sound alone.

    Opening the input raises AudioFormatError where the file is no WAV.

    Raises:
        ConfigError: Both are the same file.
    """

    def __init__(
        self,
        input: str | os.PathLike[str] | None = None,
        output: str | os.PathLike[str] | None = None,
        *,
        pacing: Pacing = "real",
    ) -> None:
        def source(_: AudioFormat) -> tuple[_FileSource, AudioFormat]:
            assert input is not None
            opened = _FileSource(input)
            return opened, opened.format

        def sink(audio_format: AudioFormat) -> _FileSink:
            assert output is not None
            if input is not None:
                _FileSource(input).close()  # One that cannot be read is told before anything is overwritten.
            return _FileSink(output, audio_format)

        if input is not None and output is not None and Path(input).resolve() == Path(output).resolve():
            raise ConfigError(f"FileBackend: input and output are the same file, {Path(input).name!r}.")

        super().__init__(
            "file", source if input is not None else None, sink if output is not None else None, pacing
        )
