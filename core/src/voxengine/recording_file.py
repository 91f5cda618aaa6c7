"""The file of a recording: JSON lines, written by a thread, read whole.

The first line is the header: a version, what was asked for, what is kept. Every other line has ``k``, its kind, and
``t``, its time in seconds since the recording began.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final

import attrs

from voxengine._checks import file_path
from voxengine.errors import ConfigError
from voxengine.recording_values import json_default
from voxengine.scrubbing import MASK

__all__ = ["RECORDING_VERSION", "RecordingWriter", "Tape", "read_recording"]

RECORDING_VERSION: Final = 1
"""Version of the file."""
HEADER_KEY: Final = "voxengine_recording"

_WRITE_EVERY_S: Final = 0.25
_MOST_PENDING_BYTES: Final = 64_000_000
"""What may wait for a slow disk; beyond it lines are dropped and counted."""
_LINE_BYTES: Final = 300
_NAMED_SECRET: Final = re.compile(
    r'("[\w-]*(?:api[-_]?key|authorization|client_secret|access_token|password)[\w-]*"\s*:\s*)(?:"[^"]*"|\{[^{}]*\})',
    re.IGNORECASE,
)


class RecordingWriter:
    """Writes lines in a thread of its own. :meth:`put` never waits and may be called from any thread.

    Args:
        path: Replaced if it is there; only its owner may read it.
        header: The first line.
        secrets: Texts that become ``…`` wherever they appear.
        failed: Called in the thread, once, when the file can no longer be written.

    Raises:
        ConfigError: The file cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        header: dict[str, Any],
        secrets: Sequence[str],
        failed: Callable[[OSError], object],
    ) -> None:
        self.path = file_path(path, "a recording")
        self.n_dropped = 0
        """Lines that were not written because the disk was too slow, or full."""
        self._secrets: tuple[str, ...] = ()
        self.hide(secrets)
        self._failed = failed
        self._pending: deque[tuple[dict[str, Any], int]] = deque()
        self._put_bytes = self._done_bytes = 0
        self._gap = 0
        self._is_broken = self._is_closed = False
        self._stop = threading.Event()
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            self._file: IO[str] = open(descriptor, "w", encoding="utf-8", newline="\n")  # noqa: SIM115
            self._file.write(self._text({HEADER_KEY: RECORDING_VERSION, **header}))
            self._file.flush()
        except OSError as error:
            raise ConfigError(
                f"The recording {self.path.name!r} cannot be written: {error.strerror}."
            ) from None
        self._thread = threading.Thread(target=self._run, name="voxengine recording", daemon=True)
        self._thread.start()

    def hide(self, secrets: Sequence[str]) -> None:
        """Let more texts become ``…`` in every line that is not written yet."""
        forms = {form for secret in secrets for form in _forms(secret)}
        self._secrets = tuple(sorted(forms.union(self._secrets), key=len, reverse=True))

    def put(self, line: dict[str, Any], n_bytes: int = 0) -> None:
        """Take a line; the values in it must not change any more.

        Args:
            line: JSON values and bytes.
            n_bytes: About how long its bytes and texts are.
        """
        if self._is_closed or self._is_broken:
            self.n_dropped += 1
            return
        n_bytes += _LINE_BYTES
        if self._put_bytes - self._done_bytes + n_bytes > _MOST_PENDING_BYTES:
            self.n_dropped += 1
            self._gap += 1
            return
        if self._gap:
            gap, self._gap = self._gap, 0
            self._pending.append(({"k": "gap", "t": line.get("t", 0.0), "n_lines": gap}, 0))
        self._put_bytes += n_bytes
        self._pending.append((line, n_bytes))

    def close(self) -> None:
        """Write what waits and close the file. Waits for the disk; twice is allowed."""
        self._is_closed = True
        self._stop.set()
        self._thread.join()

    # -- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._stop.wait(_WRITE_EVERY_S)
            try:
                self._write()
            except OSError as error:
                self._is_broken = True
                self.n_dropped += len(self._pending)
                self._pending.clear()
                self._failed(error)
                break
        try:
            self._file.close()
        except OSError:  # It was told.
            return

    def _write(self) -> None:
        while self._pending:
            line, n_bytes = self._pending[0]
            self._file.write(self._text(line))
            self._pending.popleft()
            self._done_bytes += n_bytes
        self._file.flush()

    def _text(self, line: dict[str, Any]) -> str:
        if line.get("k") == "wire" and isinstance(line.get("data"), str):
            line = {**line, "data": _NAMED_SECRET.sub(rf'\1"{MASK}"', line["data"])}
        text = json.dumps(line, ensure_ascii=False, separators=(",", ":"), default=json_default)
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, MASK)
        return text + "\n"


def _forms(secret: str) -> Iterator[str]:
    """A text as it is, within JSON, and within JSON within JSON."""
    yield secret
    once = json.dumps(secret, ensure_ascii=False)[1:-1]
    yield once
    yield json.dumps(once, ensure_ascii=False)[1:-1]


@attrs.frozen
class Tape:
    """A recording, read."""

    path: Path
    header: dict[str, Any] = attrs.field(repr=False)
    lines: tuple[dict[str, Any], ...] = attrs.field(repr=False)
    """In the order in which things happened."""
    is_torn: bool = False
    """The last line was cut: the process that wrote it crashed."""

    @property
    def has_audio(self) -> bool:
        """Whether audio was kept."""
        return bool(self.header.get("audio"))

    @property
    def has_transcripts(self) -> bool:
        """Whether words were kept."""
        return bool(self.header.get("transcripts"))

    @property
    def is_complete(self) -> bool:
        """Whether the recording was ended in order, with the conversation or by hand, and no line was dropped."""
        return self.n_missing == 0 and bool(self.lines) and self.lines[-1]["k"] == "end"

    @property
    def n_missing(self) -> int:
        """Lines that were dropped while the conversation went on."""
        return sum(int(line.get("n_lines", 0)) for line in self.lines if line["k"] == "gap")

    @property
    def duration_s(self) -> float:
        """Until the last line."""
        return float(self.lines[-1]["t"]) if self.lines else 0.0

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        """Return the lines of some kinds."""
        return [line for line in self.lines if line["k"] in kinds]


def read_recording(path: str | os.PathLike[str]) -> Tape:
    """Read a recording. A last line that was cut by a crash is passed over.

    Raises:
        ConfigError: There is no such file, it is none, of another version, or damaged.
    """
    file = file_path(path, "a recording")
    try:
        whole, _, cut = file.read_bytes().rpartition(b"\n")
        rows = whole.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise ConfigError(f"{file.name!r} is no recording: it is no text.") from None
    except OSError as error:
        raise ConfigError(f"The recording {file.name!r} cannot be read: {error.strerror}.") from None
    header = _header(file, rows[0])
    lines: list[dict[str, Any]] = []
    for number, row in enumerate(rows[1:], 2):
        try:
            line = json.loads(row)
            if not isinstance(line["k"], str) or not isinstance(line["t"], int | float):
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ConfigError(f"Line {number} of the recording {file.name!r} is damaged.") from None
        lines.append(line)
    return Tape(file, header, tuple(lines), is_torn=bool(cut))


def _header(file: Path, row: str) -> dict[str, Any]:
    try:
        header = json.loads(row)
    except ValueError:
        header = None
    if not isinstance(header, dict) or HEADER_KEY not in header:
        raise ConfigError(f"{file.name!r} is no recording. Write one with engine.record(path).")
    if header[HEADER_KEY] != RECORDING_VERSION:
        raise ConfigError(
            f"The recording {file.name!r} has version {header[HEADER_KEY]!r}; this voxengine reads version "
            f"{RECORDING_VERSION}. Use the voxengine that wrote it."
        )
    return header
