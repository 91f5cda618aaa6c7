"""What the clients stream: a WAV file without a length, as samples."""

from __future__ import annotations

import struct
from typing import Final

from voxengine.audio.format import Encoding
from voxengine.audio.g711 import decode

__all__ = ["WavStream"]

_PCM: Final = 1
_LAWS: Final = {6: Encoding.G711_ALAW, 7: Encoding.G711_ULAW}
_MAX_HEADER: Final = 4096


class WavStream:
    """Turns one stream into PCM16 mono. Without a header it is taken for 16 kHz."""

    def __init__(self) -> None:
        self.sample_rate = 16_000
        self._kind = _PCM
        self._n_channels = 1
        self._head: bytes | None = b""
        """What came of the header; None when it is complete."""
        self._carry = b""

    def push(self, data: bytes) -> bytes | None:
        """Return the samples that are complete; None when the stream's format is not understood."""
        if self._head is not None:
            self._head += data
            if self._head[:4] != b"RIFF"[: len(self._head)]:
                data, self._head = self._head, None
            else:
                at = self._head.find(b"data")
                if at < 0 or len(self._head) < at + 8:
                    return b"" if len(self._head) < _MAX_HEADER else None
                if not self._read_format(self._head[:at]):
                    return None
                data, self._head = self._head[at + 8 :], None
        data = self._carry + data
        n_frame = self._n_channels * (2 if self._kind == _PCM else 1)
        n_whole = len(data) - len(data) % n_frame
        self._carry, data = data[n_whole:], data[:n_whole]
        if self._kind in _LAWS:
            data = decode(data, _LAWS[self._kind])
        if self._n_channels > 1:
            samples = memoryview(data).cast("h")[:: self._n_channels]
            data = samples.tobytes()
        return data

    def _read_format(self, head: bytes) -> bool:
        at = head.find(b"fmt ")
        if at < 0 or len(head) < at + 24:
            return False
        kind, n_channels, rate, _, _, n_bits = struct.unpack_from("<HHIIHH", head, at + 8)
        self._kind, self._n_channels, self.sample_rate = kind, n_channels, rate
        is_pcm = kind == _PCM and n_bits == 16
        return 1 <= n_channels <= 8 and (is_pcm or (kind in _LAWS and n_bits == 8))
