"""G.711 by table: the mu-law and A-law of telephony to PCM16 and back.

Decoding loads nothing. Encoding loads numpy and builds a table of 64 kB for each law when it is first used.
Both ways agree bit for bit with the reference code of Sun Microsystems, which telephone stacks and the
``audioop`` module of older Pythons use. Nothing here holds state: any cut of the input gives the same output.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal

from voxengine.audio.format import AudioFormat, Encoding
from voxengine.errors import AudioFormatError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["decode", "encode"]

_Law = Literal[Encoding.G711_ULAW, Encoding.G711_ALAW]
_SEGMENTS: Final = 8
_ULAW_BIAS: Final = 33
"""Added to the 14-bit magnitude, so that segment ends are powers of two."""
_ULAW_CLIP: Final = 8159
_ALAW_TOGGLE: Final = 0x55
"""A-law inverts every second bit, so that silence has transitions on the line."""


def decode(data: bytes, encoding: Encoding) -> bytes:
    """Return PCM16 for G.711, two bytes for each.

    Raises:
        AudioFormatError: ``encoding`` is not one of the two laws.
    """
    low, high = _decoding(_law(encoding, "decode"))
    result = bytearray(2 * len(data))
    result[0::2] = data.translate(low)
    result[1::2] = data.translate(high)
    return bytes(result)


def encode(data: bytes, encoding: Encoding) -> bytes:
    """Return G.711 for PCM16, one byte for each sample.

    Raises:
        AudioFormatError: ``encoding`` is not one of the two laws, or an odd number of bytes.
    """
    law = _law(encoding, "encode")
    AudioFormat().check_aligned(len(data), "g711.encode")
    import numpy as np

    return _encoding(law).take(np.frombuffer(data, "<u2")).tobytes()


def _law(encoding: Encoding, who: str) -> _Law:
    if encoding is Encoding.G711_ULAW or encoding is Encoding.G711_ALAW:
        return encoding
    raise AudioFormatError(f"g711.{who} got {encoding!r}; it is for g711_ulaw and g711_alaw.")


@lru_cache
def _decoding(law: _Law) -> tuple[bytes, bytes]:
    """Return the low and the high byte of the sample for each code."""
    decoded = _from_ulaw if law is Encoding.G711_ULAW else _from_alaw
    samples = [decoded(code) & 0xFFFF for code in range(256)]
    return bytes(value & 0xFF for value in samples), bytes(value >> 8 for value in samples)


def _from_ulaw(code: int) -> int:
    code = ~code & 0xFF
    segment, step = code >> 4 & 7, code & 0xF
    magnitude = ((2 * step + _ULAW_BIAS) << segment) - _ULAW_BIAS
    return -4 * magnitude if code & 0x80 else 4 * magnitude


def _from_alaw(code: int) -> int:
    code ^= _ALAW_TOGGLE
    segment, step = code >> 4 & 7, code & 0xF
    magnitude = (2 * step + 1) << 3 if segment == 0 else (2 * step + 33) << (segment + 2)
    return magnitude if code & 0x80 else -magnitude


@lru_cache
def _encoding(law: _Law) -> NDArray[np.uint8]:
    """Return the code for each sample, indexed by the sample's 16 bits without sign."""
    import numpy as np

    samples = np.arange(65536, dtype=np.int64).astype(np.int16).astype(np.int64)
    table = _to_ulaw(samples) if law is Encoding.G711_ULAW else _to_alaw(samples)
    table.flags.writeable = False
    return table


def _to_ulaw(samples: NDArray[np.int64]) -> NDArray[np.uint8]:
    import numpy as np

    values = samples >> 2
    magnitude = np.minimum(np.abs(values), _ULAW_CLIP) + _ULAW_BIAS
    segment = _segment(magnitude, 0x3F)
    code = np.where(segment < _SEGMENTS, segment << 4 | (magnitude >> segment + 1) & 0xF, 0x7F)
    return (code ^ np.where(values < 0, 0x7F, 0xFF)).astype(np.uint8)


def _to_alaw(samples: NDArray[np.int64]) -> NDArray[np.uint8]:
    import numpy as np

    values = samples >> 3
    magnitude = np.where(values < 0, ~values, values)
    segment = _segment(magnitude, 0x1F)
    step = (magnitude >> np.maximum(segment, 1)) & 0xF
    mask = np.where(values < 0, _ALAW_TOGGLE, _ALAW_TOGGLE | 0x80)
    return ((segment << 4 | step) ^ mask).astype(np.uint8)


def _segment(magnitude: NDArray[np.int64], first_end: int) -> NDArray[np.int64]:
    """Return which of the segments, each twice as long as the one before, a magnitude lies in."""
    import numpy as np

    ends = np.array([((first_end + 1) << segment) - 1 for segment in range(_SEGMENTS)])
    return np.searchsorted(ends, magnitude)
