"""Keeps what the C libraries of sound systems write to standard error off it, and nothing else."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import threading
from typing import IO, Final

__all__ = ["Remarks"]

_LONGEST_S: Final = 0.5
"""How long standard error is looked through; a call that takes longer may never return."""
_PATIENCE_S: Final = 2.0
_REMARK: Final = re.compile(
    rb"ALSA lib|Expression '|jack server |JackShm|Cannot connect to server |connect\(2\) call to |attempt to connect to server"
)
"""How they begin: about absent devices, and servers that do not run."""

_turn = threading.Lock()
"""The file descriptor belongs to the process: one at a time."""


class Remarks:
    """Holds back what is written to the file descriptor within a block, and passes on all but the remarks at its end.

    The block may hang: after half a second standard error is as it was, whatever the block does.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._saved = -1
        self._file: IO[bytes] | None = None
        self._timer: threading.Timer | None = None

    def __enter__(self) -> None:
        if not _turn.acquire(timeout=_PATIENCE_S):
            return
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()
        try:
            self._file = tempfile.TemporaryFile()
        except OSError:  # There is no place for what is held back.
            _turn.release()
            return
        try:
            self._saved = os.dup(2)
            os.dup2(self._file.fileno(), 2)
        except OSError:  # There is no standard error.
            self._end()
            return
        self._timer = threading.Timer(_LONGEST_S, self._end)
        self._timer.daemon = True
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
        self._end()

    def _end(self) -> None:
        with self._lock:
            file, self._file = self._file, None
            if file is None:
                return
            with contextlib.suppress(OSError, ValueError, AttributeError):
                sys.stderr.flush()
            if self._saved >= 0:
                os.dup2(self._saved, 2)
                os.close(self._saved)
            with file, contextlib.suppress(OSError):
                file.seek(0)
                others = [line for line in file if not _REMARK.match(line)]
                if others:
                    os.write(2, b"".join(others))
            _turn.release()
