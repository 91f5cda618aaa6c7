"""The reception log: what an emulator received, as JSON lines, with the audio beside it, sample for sample.

One file for all sessions. Each session that sends audio has a WAV file of its own with every sample in order.
In the lines audio stands as runs: stretches of digital silence (only zeros, for 20 ms or more), which is what
is injected where nobody speaks, are kept apart from sound, each with its place and a digest of its samples.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TextIO

from voxengine.audio.format import AudioFormat
from voxengine.audio.wav import WavWriter
from voxengine.errors import ConfigError, VoxEngineError
from voxengine.testing.emulator import HttpRequest

__all__ = ["ReceptionFile", "Runs", "SessionLog"]

SILENCE_MS: Final = 20
"""Zeros for at least so long are silence; fewer belong to the sound around them."""
MAX_BYTES: Final = 2**30
"""Lines and audio together; what comes after is not written, and the log says so."""
_MAX_LINE: Final = 2**18
_MAX_OPEN_WAVS: Final = 64
_SECRET_FIELDS: Final = ("authorization", "api-key", "api_key", "key", "token", "cookie")

_logger = logging.getLogger("voxengine_mock.harness")


class ReceptionFile:
    """The log of one server.

    Args:
        path: Written anew. WAV files go beside it, as ``NAME-SESSION.wav``.

    Raises:
        ConfigError: The file cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._stream: TextIO | None = self.path.open("w", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"The log {str(path)!r} cannot be written: {error.strerror}.") from None
        self._n_bytes = 0
        self._began = time.monotonic()
        self.n_wavs = 0

    def session(self, number: int, request: HttpRequest) -> SessionLog:
        """Begin the log of a session."""
        self.write({"session": number, "event": "opened", "path": request.path})
        return SessionLog(self, number)

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append a line; the time since the server began comes first."""
        line = json.dumps(
            {"at_s": round(time.monotonic() - self._began, 4), **entry}, ensure_ascii=False, default=str
        )
        if len(line) > _MAX_LINE:
            kept = {name: entry[name] for name in ("session", "event", "name") if name in entry}
            line = json.dumps({**kept, "n_chars": len(line), "is_cut": True})
        if self.room(len(line) + 1):
            self._guarded(lambda stream: stream.write(line + "\n"))

    def room(self, n_bytes: int) -> bool:
        """Whether so much may still be written; counts it."""
        if self._stream is None:
            return False
        self._n_bytes += n_bytes
        if self._n_bytes > MAX_BYTES:
            self._guarded(lambda stream: stream.write('{"event": "log_full"}\n'))
            self.close()
            return False
        return True

    def _guarded(self, work: Callable[[TextIO], object]) -> None:
        if self._stream is None:
            return
        try:
            work(self._stream)
        except OSError as error:
            self.fail(error)

    def fail(self, error: OSError) -> None:
        """Write nothing more: a full disk must not end the sessions."""
        _logger.error("The reception log cannot be written any more: %s.", error.strerror)
        stream, self._stream = self._stream, None
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()

    def flush(self) -> None:
        """Hand what was written to the system."""
        self._guarded(lambda stream: stream.flush())

    def close(self) -> None:
        """End the log."""
        self._guarded(lambda stream: stream.close())
        self._stream = None


class SessionLog:
    """A session's part of the log (see :class:`voxengine.testing.emulator.ReceptionLog`)."""

    def __init__(self, file: ReceptionFile, number: int) -> None:
        self._file = file
        self._number = number
        self._runs: Runs | None = None
        self._rate = 0
        self._wav: WavWriter | None = None
        self._wav_names: list[str] = []
        self._all = hashlib.sha256()
        self._n_samples = 0
        self._n_silence = 0

    def message(self, name: str, fields: Mapping[str, Any]) -> None:
        """Write one decoded message, without what looks like a secret."""
        self._end_run()
        shown = {key: "***" if key.lower() in _SECRET_FIELDS else value for key, value in fields.items()}
        self._file.write({"session": self._number, "event": "message", "name": name, "fields": shown})

    def audio(self, pcm: bytes, sample_rate: int) -> None:
        """Write input audio, PCM16 mono."""
        if sample_rate != self._rate:
            self._end_audio()
            self._rate = sample_rate
            self._runs = Runs(sample_rate * SILENCE_MS // 1000, self._n_samples)
            self._open_wav()
        assert self._runs is not None
        self._all.update(pcm)
        self._n_samples += len(pcm) // 2
        for run in self._runs.push(pcm):
            self._run(run)
        if self._wav is not None and self._file.room(len(pcm)):
            try:
                self._wav.write(pcm)
            except OSError as error:
                self._wav = None
                self._file.fail(error)

    def closed(self, code: int | None, reason: str | None) -> None:
        """Write how the session ended and what it received in all."""
        self._end_audio()
        entry: dict[str, Any] = {
            "session": self._number,
            "event": "closed",
            "code": code,
            "reason": reason or "",
            "n_samples": self._n_samples,
            "n_silence_samples": self._n_silence,
            "sha256": self._all.hexdigest(),
            "wav": self._wav_names,
        }
        self._file.write(entry)
        self._file.flush()

    def _open_wav(self) -> None:
        if self._file.n_wavs >= _MAX_OPEN_WAVS:
            return  # The lines still have the digests.
        part = f"-{len(self._wav_names) + 1}" if self._wav_names else ""
        path = self._file.path.with_name(f"{self._file.path.stem}-{self._number}{part}.wav")
        try:
            self._wav = WavWriter(path, AudioFormat(self._rate))
        except (OSError, VoxEngineError) as error:
            _logger.error("The audio of a session cannot be kept: %s.", error)
            return
        self._file.n_wavs += 1
        self._wav_names.append(path.name)

    def _end_audio(self) -> None:
        self._end_run()
        if self._wav is not None:
            wav, self._wav = self._wav, None
            self._file.n_wavs -= 1
            try:
                wav.close()
            except OSError as error:
                self._file.fail(error)

    def _end_run(self) -> None:
        if self._runs is not None:
            for run in self._runs.end():
                self._run(run)

    def _run(self, run: dict[str, Any]) -> None:
        if run["kind"] == "silence":
            self._n_silence += run["n_samples"]
        entry = {"session": self._number, "event": "audio", **run, "sample_rate": self._rate}
        self._file.write(entry)


class Runs:
    """Cuts audio into runs of sound and of digital silence. How it was cut before makes no difference.

    Args:
        n_least: Zeros in a row that count as silence.
        at: The index of the first sample.
    """

    def __init__(self, n_least: int, at: int = 0) -> None:
        self._n_least = max(1, n_least)
        self._from = at
        self._n = 0
        self._is_silence = False
        self._n_zeros = 0
        """Zeros at the end of a sound that may be the begin of a silence."""
        self._digest = hashlib.sha256()

    def push(self, pcm: bytes) -> Iterator[dict[str, Any]]:
        """Take PCM16 and return the runs that ended in it."""
        import numpy as np

        samples = np.frombuffer(pcm, "<i2")
        loud = np.flatnonzero(samples)
        at = 0
        if len(loud):
            # The borders between stretches that hold a loud sample next to each other and the zeros between.
            breaks = np.flatnonzero(np.diff(loud) > 1)
            starts = [int(loud[0]), *(int(n) for n in loud[breaks + 1])]
            ends = [*(int(n) + 1 for n in loud[breaks]), int(loud[-1]) + 1]
            for start, end in zip(starts, ends, strict=True):
                yield from self._zeros(start - at)
                yield from self._sound(pcm[2 * start : 2 * end])
                at = end
        yield from self._zeros(len(samples) - at)

    def end(self) -> Iterator[dict[str, Any]]:
        """Close the open run and return it."""
        if not self._is_silence:
            self._add_zeros(self._n_zeros)
            self._n_zeros = 0
        yield from self._close()

    def _zeros(self, n: int) -> Iterator[dict[str, Any]]:
        if not n:
            return
        if self._is_silence:
            self._add_zeros(n)
            return
        self._n_zeros += n
        if self._n_zeros >= self._n_least:
            yield from self._close()
            self._is_silence = True
            self._add_zeros(self._n_zeros)
            self._n_zeros = 0

    def _sound(self, pcm: bytes) -> Iterator[dict[str, Any]]:
        if self._is_silence:
            yield from self._close()
        self._add_zeros(self._n_zeros)
        self._n_zeros = 0
        self._digest.update(pcm)
        self._n += len(pcm) // 2

    def _add_zeros(self, n: int) -> None:
        self._digest.update(bytes(2 * n))
        self._n += n

    def _close(self) -> Iterator[dict[str, Any]]:
        if self._n:
            yield {
                "kind": "silence" if self._is_silence else "sound",
                "from_sample": self._from,
                "n_samples": self._n,
                "sha256": self._digest.hexdigest(),
            }
        self._from += self._n
        self._n = 0
        self._is_silence = False
        self._digest = hashlib.sha256()
