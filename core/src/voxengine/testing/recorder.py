"""Proof that audio arrived: every sample once, in order, without a hole."""

from __future__ import annotations

import random
from typing import Any, TypeVar

import attrs

from voxengine.providers.base import BaseProvider

__all__ = ["SampleError", "SampleRecorder", "SampleRun"]

_WINDOW = 4
"""Samples by which a place in the signal is recognised: 64 bits of noise occur once."""

P = TypeVar("P", bound=BaseProvider)


class SampleError(AssertionError):
    """Audio was lost, repeated, reordered or changed; the message says where."""


@attrs.frozen
class SampleRun:
    """Samples that arrived in a row. ``start`` is None for what is nowhere in the signal."""

    start: int | None
    n_samples: int

    @property
    def end(self) -> int | None:
        """Index behind the last sample."""
        return None if self.start is None else self.start + self.n_samples


class SampleRecorder:
    """Makes a signal in which every place is recognisable, and checks what became of it.

    Send what :meth:`signal` returns, give what arrives to :meth:`record` (or let :meth:`watch` do that),
    and call :meth:`check`. The signal is noise, PCM16 mono; resampled or converted audio cannot be recognised.
    """

    def __init__(self) -> None:
        self._source = b""
        self._noise = random.Random(0)
        self._position = 0
        self.runs: list[SampleRun] = []
        """What arrived, in order; neighbours that belong together are one run."""
        self.n_silent = 0
        """Samples of digital silence between those of the signal: the engine puts some behind an utterance."""

    @property
    def n_made(self) -> int:
        """Samples that :meth:`signal` returned."""
        return len(self._source) // 2

    @property
    def n_recorded(self) -> int:
        """Samples that arrived, repeated ones counted each time, silence not."""
        return sum(run.n_samples for run in self.runs)

    def signal(self, n_samples: int) -> bytes:
        """Return the next samples of the signal. It is loud: detectors of loudness take it for speech."""
        made = self._noise.randbytes(2 * n_samples)
        self._source += made
        return made

    def record(self, audio_data: bytes) -> None:
        """Note samples that arrived.

        Raises:
            SampleError: Not a whole number of samples.
        """
        if len(audio_data) % 2:
            raise SampleError(f"{len(audio_data)} bytes arrived, which is no whole number of samples.")
        at = 0
        while at < len(audio_data):
            rest = audio_data[at:]
            if not self._source.startswith(rest[: 2 * _WINDOW], self._position):
                found = self._find(rest)
                if found is None:
                    at += 2 * self._pass_over(rest)
                    continue
                self._position = found
            n_bytes = self._n_equal(rest)
            self._note(self._position // 2, n_bytes // 2)
            self._position += n_bytes
            at += n_bytes

    def watch(self, cls: type[P]) -> type[P]:
        """Return a subclass of a provider that records what its ``send_audio`` is given and takes."""
        recorder = self
        base: Any = cls

        class Watched(base):  # type: ignore[misc]
            async def send_audio(self, audio_data: bytes) -> None:
                await super().send_audio(audio_data)
                recorder.record(audio_data)

            def try_send_audio(self, audio_data: bytes) -> bool:
                taken: bool = super().try_send_audio(audio_data)
                if taken:
                    recorder.record(audio_data)
                return taken

        Watched.__name__ = Watched.__qualname__ = cls.__name__
        return Watched

    def problems(self, *, start: int = 0, end: int | None = None) -> list[str]:
        """Return a sentence for each fault in what arrived of the samples from ``start`` up to ``end``."""
        found: list[str] = []
        expected = start
        for run in self.runs:
            if run.start is None or run.end is None:
                found.append(f"{run.n_samples} samples before index {expected} are not of the signal")
                continue
            if run.start > expected:
                found.append(f"samples {expected} to {run.start - 1} are missing")
            elif run.start < expected:
                found.append(f"samples {run.start} to {min(run.end, expected) - 1} came again")
            expected = max(expected, run.end)
        last = self.n_made if end is None else end
        if expected < last:
            found.append(f"samples {expected} to {last - 1} are missing")
        return found

    def check(self, *, start: int = 0, end: int | None = None) -> None:
        """Raise SampleError unless the samples from ``start`` up to ``end`` (all that were made) arrived once,
        in order, without a hole.
        """
        found = self.problems(start=start, end=end)
        if found:
            more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
            raise SampleError("; ".join(found[:3]) + more + ".")

    # -- inside ---------------------------------------------------------------------------------------

    def _find(self, data: bytes) -> int | None:
        """Return the place of the data in the signal; the one ahead is looked for first."""
        window = data[: 2 * _WINDOW]
        if len(window) < 2 * _WINDOW:  # Too short to be told from others.
            return None
        for begin in (self._position, 0):
            found = self._source.find(window, begin)
            while found >= 0 and found % 2:
                found = self._source.find(window, found + 1)
            if found >= 0:
                return found
        return None

    def _pass_over(self, data: bytes) -> int:
        """Note what is not of the signal, silence apart from the rest; return how many samples."""
        n_silent = (len(data) - len(data.lstrip(b"\x00"))) // 2
        if n_silent:
            self.n_silent += n_silent
            return n_silent
        self._note(None, 1)
        return 1

    def _n_equal(self, data: bytes) -> int:
        """Return how many bytes go on as the signal does at the position."""
        source = self._source[self._position : self._position + len(data)]
        if data == source:
            return len(data)
        low, high = 0, min(len(source), len(data)) // 2
        while low < high:  # The longest equal beginning.
            middle = (low + high + 1) // 2
            if data[: 2 * middle] == source[: 2 * middle]:
                low = middle
            else:
                high = middle - 1
        return 2 * low

    def _note(self, start: int | None, n_samples: int) -> None:
        last = self.runs[-1] if self.runs else None
        if last is not None and last.end == start:
            self.runs[-1] = SampleRun(last.start, last.n_samples + n_samples)
        else:
            self.runs.append(SampleRun(start, n_samples))
