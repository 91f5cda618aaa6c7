"""PCM16 conversion: int16 from what callers hold, channels, and a streaming resampler.

Bytes are always signed 16-bit little-endian, channels interleaved. Importing this module does not load numpy;
only a conversion that changes samples does. Nothing here is thread-safe: one stream, one converter.

The resampler is a polyphase FIR filter whose coefficients are multiples of 2**-24. A product with an int16
sample and every partial sum then fit a float64 exactly, so the order in which BLAS adds cannot change a bit:
output does not depend on how the input was cut, on the processor or on the thread count.
"""

from __future__ import annotations

import math
import sys
from array import array
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import attrs

from voxengine.audio import g711
from voxengine.audio.format import AudioFormat, Encoding
from voxengine.errors import AudioFormatError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "FormatConverter",
    "Resampler",
    "convert",
    "convert_channels",
    "float_to_int16",
    "int16_to_float",
    "mix_to_mono",
    "to_int16",
]

_SAMPLE_BYTES: Final = 2
_MAX_CHANNELS: Final = 8

_HALF_WIDTH: Final = 32
"""The filter reaches this many samples of the lower rate to each side: its group delay."""
_KAISER_BETA: Final = 9.2
"""Stop band at -90 dB. With the half width above, the pass band ends at 0.41 of the lower rate."""
_COEFFICIENT_STEP: Final = 2.0**-24
_TILE_OUTPUTS: Final = 16
_MAX_TILED_PHASES: Final = 160
"""Up to here one matrix product makes all phases at once; beyond, its zeros cost more than gathering rows."""
_SLICE_SAMPLES: Final = 2048
"""Input taken at a time. Larger work arrays are mapped afresh on every call, and page faults cost more."""
_GATHER_VALUES: Final = 8192


def to_int16(data: object, who: str = "send_audio") -> bytes:
    """Return PCM16 bytes for what a caller may hold.

    Args:
        data: ``bytes`` (returned as they are), ``bytearray``, a ``memoryview`` of bytes or of int16, an
            ``array.array('h')``, or a numpy array of int16 or of floats from -1 to 1. Arrays have shape
            (n_frames,) or (n_frames, channels). Floats are rounded to steps of 1/32768 and clipped.
        who: The call to name in an error.

    Raises:
        AudioFormatError: Another type, dtype or shape, or a float that is NaN or infinite.

    Everything but ``bytes`` is copied; the caller may reuse it. Whole frames are the caller's check.
    """
    if isinstance(data, bytes):
        return data
    if isinstance(data, bytearray):
        return bytes(data)
    if isinstance(data, (memoryview, array)):
        return _from_buffer(memoryview(data), who)
    # An array cannot exist unless numpy is loaded, so a wrong type never pays for loading it.
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(data, numpy.ndarray):
        return _from_array(data, who)
    raise AudioFormatError(
        f"{who} got {type(data).__name__}; "
        "it takes PCM16 bytes, or a numpy array of int16 or of floats in [-1, 1]."
    )


def _from_buffer(view: memoryview[Any], who: str) -> bytes:
    if view.format in ("B", "b", "c"):
        return view.tobytes()
    if view.format in ("h", "=h", "@h", "<h"):
        if sys.byteorder == "little" or view.format == "<h":
            return view.tobytes()
        samples = array("h", view.tobytes())
        samples.byteswap()
        return samples.tobytes()
    raise AudioFormatError(
        f"{who} got a buffer of items {view.format!r}; it takes bytes or 16-bit items ('h'). "
        "Pass floats as a numpy array."
    )


def _from_array(data: NDArray[Any], who: str) -> bytes:
    if data.ndim not in (1, 2) or (data.ndim == 2 and not 1 <= data.shape[1] <= _MAX_CHANNELS):
        raise AudioFormatError(
            f"{who} got an array of shape {data.shape}; it takes (n_frames,) or (n_frames, channels) "
            f"with 1 to {_MAX_CHANNELS} channels."
        )
    if data.dtype.kind == "f":
        try:
            return float_to_int16(data).tobytes()
        except AudioFormatError as error:
            raise AudioFormatError(f"{who}: {error}") from None
    if data.dtype.kind != "i" or data.dtype.itemsize != _SAMPLE_BYTES:
        raise AudioFormatError(
            f"{who} got an array of {data.dtype.name}; it takes int16, or floats in [-1, 1]."
        )
    return data.astype("<i2").tobytes()


def float_to_int16(samples: NDArray[Any]) -> NDArray[np.int16]:
    """Return little-endian int16 samples for floats from -1 to 1, any shape.

    1/32768 is one step; values are rounded to the nearest even step and clipped to -32768..32767.

    Raises:
        AudioFormatError: A value is NaN or infinite.
    """
    import numpy as np

    if not np.isfinite(samples).all():
        raise AudioFormatError("The float samples hold NaN or infinity. Nothing was accepted.")
    scaled = np.clip(samples.astype(np.float64), -1.0, 1.0) * 32768.0
    return _round_to_int16(scaled)


def int16_to_float(data: bytes) -> NDArray[np.float32]:
    """Return a fresh float32 array of shape (n_samples,) from -1 up to, not including, 1.

    The inverse of :func:`float_to_int16`, exactly.

    Raises:
        AudioFormatError: An odd number of bytes.
    """
    import numpy as np

    _check_samples(data, 1, "int16_to_float")
    return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768.0)


def _round_to_int16(values: NDArray[np.float64]) -> NDArray[np.int16]:
    """Round half to even and clip. ``values`` is overwritten."""
    import numpy as np

    np.rint(values, out=values)
    np.maximum(values, -32768.0, out=values)
    np.minimum(values, 32767.0, out=values)
    return values.astype("<i2")


def _check_samples(data: bytes, channels: int, who: str) -> None:
    AudioFormat(channels=channels).check_aligned(len(data), who)


def mix_to_mono(data: bytes, channels: int) -> bytes:
    """Return the mean of the channels, rounded half to even.

    Raises:
        AudioFormatError: No whole number of frames, or ``channels`` is not from 1 to 8.
    """
    return convert_channels(data, channels, 1)


def convert_channels(data: bytes, from_channels: int, to_channels: int) -> bytes:
    """Return PCM16 with another number of channels.

    Equal numbers return ``data`` itself. Otherwise the channels are averaged to one, which is then repeated.

    Raises:
        AudioFormatError: No whole number of frames, or a number of channels that is not from 1 to 8.
    """
    AudioFormat(channels=to_channels)
    _check_samples(data, from_channels, "convert_channels")
    if from_channels == to_channels:
        return data
    import numpy as np

    samples = np.frombuffer(data, "<i2")
    if from_channels > 1:
        # A sum of eight int16 values is exact in float64, and so is every half that rint then decides.
        sums = samples.reshape(-1, from_channels).sum(axis=1, dtype=np.float64)
        samples = _round_to_int16(sums / from_channels)
    return samples.repeat(to_channels).tobytes()


@attrs.frozen(eq=False)
class _Bank:
    """The designed filter for one ratio. Arrays are read-only and shared by every resampler of that ratio."""

    up: int
    down: int
    reach: int
    """Half the filter's length, in steps of the common grid (``up`` steps per input sample)."""
    n_taps: int
    """Coefficients per phase."""
    phases: NDArray[np.float32]
    """Shape (up, n_taps), oldest input sample first."""
    tile: NDArray[np.float64] | None
    """Shape (window, tile_outputs): all phases of a run of outputs as one matrix; None for many phases."""
    tile_outputs: int

    @property
    def history(self) -> int:
        """Input samples to keep: the filter's memory, and the run-up to a tile's first phase."""
        return self.n_taps - 1 + self.down

    def outputs(self, samples: NDArray[np.float64], position: int, n_outputs: int) -> NDArray[np.float64]:
        """Filter. ``samples`` starts ``history`` before the sample that ``position`` 0 stands on.

        Args:
            samples: Ends with at least ``spare`` zeros beyond the last sample used.
            position: Grid step of the first output's newest coefficient, not negative.
            n_outputs: Number of outputs, 1 or more.
        """
        if self.tile is None:
            return self._gathered(samples, position, n_outputs)
        return self._tiled(self.tile, samples, position, n_outputs)

    @property
    def spare(self) -> int:
        """Zeros that a tile may read beyond the last sample it needs."""
        return 0 if self.tile is None else self.tile.shape[0] + self.tile_outputs * self.down // self.up

    def _tiled(
        self, tile: NDArray[np.float64], samples: NDArray[np.float64], position: int, n_outputs: int
    ) -> NDArray[np.float64]:
        import numpy as np

        # A tile begins on phase 0: compute the few outputs since the last phase 0 once more, and drop them.
        n_before = (position % self.up) * pow(self.down, -1, self.up) % self.up
        first = (position - n_before * self.down) // self.up + self.down
        step = self.tile_outputs * self.down // self.up
        n_tiles = -(-(n_before + n_outputs) // self.tile_outputs)
        stride = samples.strides[0]
        windows = np.lib.stride_tricks.as_strided(
            samples[first:], (n_tiles, tile.shape[0]), (step * stride, stride), writeable=False
        )
        product = np.ascontiguousarray(windows) @ tile
        return product.reshape(-1)[n_before : n_before + n_outputs]

    def _gathered(self, samples: NDArray[np.float64], position: int, n_outputs: int) -> NDArray[np.float64]:
        import numpy as np

        grid = position + self.down * np.arange(n_outputs, dtype=np.int64)
        newest, phase = np.divmod(grid, self.up)
        newest += self.down
        windows = np.lib.stride_tricks.sliding_window_view(samples, self.n_taps)
        result = np.empty(n_outputs)
        rows = max(1, _GATHER_VALUES // self.n_taps)
        for start in range(0, n_outputs, rows):
            part = slice(start, start + rows)
            weights = self.phases[phase[part]].astype(np.float64)
            result[part] = np.einsum("ij,ij->i", windows[newest[part]], weights)
        return result


@lru_cache(maxsize=8)
def _design(up: int, down: int) -> _Bank:
    """Design the Kaiser-windowed sinc for ``up / down`` in lowest terms."""
    import numpy as np

    wide = max(up, down)
    reach = _HALF_WIDTH * wide
    # Kaiser's formulas: attenuation from beta, width of the transition from attenuation and length. The
    # transition ends at half the lower rate, so the cut-off lies half a transition below it.
    attenuation_db = _KAISER_BETA / 0.1102 + 8.7
    transition = (attenuation_db - 7.95) / (14.36 * 2 * _HALF_WIDTH)
    cutoff = (1.0 - transition) / wide
    grid = np.arange(-reach, reach, dtype=np.float64)
    impulse = np.sinc(cutoff * grid) * np.i0(_KAISER_BETA * np.sqrt(1.0 - (grid / reach) ** 2))
    impulse[0] = 0.0  # its mirror image at +reach is left out: the filter stays symmetric
    n_taps = -(-2 * reach // up)
    padded = np.zeros(n_taps * up)
    padded[: impulse.size] = impulse
    by_phase = padded.reshape(n_taps, up).T[:, ::-1]
    # Each phase passes a constant unchanged; else silence with an offset would hum at the phase rate.
    by_phase = by_phase / by_phase.sum(axis=1, keepdims=True)
    by_phase = np.rint(by_phase / _COEFFICIENT_STEP) * _COEFFICIENT_STEP
    phases = np.ascontiguousarray(by_phase, dtype=np.float32)
    phases.flags.writeable = False
    tile_outputs = up * max(1, _TILE_OUTPUTS // up)
    tile = _tile(by_phase, up, down, tile_outputs) if up <= _MAX_TILED_PHASES else None
    return _Bank(up, down, reach, n_taps, phases, tile, tile_outputs)


def _tile(by_phase: NDArray[np.float64], up: int, down: int, n_outputs: int) -> NDArray[np.float64]:
    import numpy as np

    n_taps = by_phase.shape[1]
    tile = np.zeros(((n_outputs - 1) * down // up + n_taps, n_outputs))
    for column in range(n_outputs):
        start, phase = divmod(column * down, up)
        tile[start : start + n_taps, column] = by_phase[phase]
    tile.flags.writeable = False
    return tile


class Resampler:
    """Streaming rate conversion of one channel of PCM16.

    With ``n`` input samples taken so far and ``d = delay_s * from_rate`` (32 samples of the lower rate):

    * ``aligned=True``: output sample ``m`` belongs to the time ``m / to_rate`` of the input. ``process`` has
      returned ``max(0, ceil((n - d) * to_rate / from_rate))`` samples: only the filter's group delay is
      outstanding, which ``flush`` returns. The total after ``flush`` is ``ceil(n * to_rate / from_rate)``.
    * ``aligned=False``: ``process`` has returned ``ceil(n * to_rate / from_rate)`` samples, so that full
      blocks give full blocks from the first on; the sound comes ``delay_s`` later, and ``flush`` adds those
      samples. The total after ``flush`` is ``ceil((n + d) * to_rate / from_rate)``.

    The sound leaves at the same moment in both; they differ in whether the first ``delay_s`` are returned as
    silence or not at all. Take False where blocks are regrouped in real time, since a first block that is
    short then waits for the next. How the input is cut changes no bit of the output. Equal rates pass bytes
    through.

    Args:
        from_rate: Input samples per second.
        to_rate: Output samples per second.
        aligned: See above.

    Raises:
        AudioFormatError: A rate is out of range.

    The constructor loads numpy and designs the filter, about 1 ms once per ratio; coprime rates (44099 to
    24000) have as many phases as the target rate and take half a second and several megabytes.
    """

    def __init__(self, from_rate: int, to_rate: int, *, aligned: bool = True) -> None:
        self.from_rate = AudioFormat(sample_rate=from_rate).sample_rate
        self.to_rate = AudioFormat(sample_rate=to_rate).sample_rate
        self.aligned = aligned
        common = math.gcd(from_rate, to_rate)
        self._bank = None if from_rate == to_rate else _design(to_rate // common, from_rate // common)
        self.reset()

    @property
    def delay_s(self) -> float:
        """Group delay of the filter, in seconds; 0 for equal rates."""
        return 0.0 if self._bank is None else _HALF_WIDTH / min(self.from_rate, self.to_rate)

    def reset(self) -> None:
        """Forget the stream: the next sample is the first."""
        self._history: NDArray[np.float64] | None = None
        # Grid step of the next output's newest coefficient, counted from the next input sample.
        self._position = self._bank.reach if self._bank is not None and self.aligned else 0

    def process(self, data: bytes) -> bytes:
        """Take input and return the output that it completes, possibly none.

        Raises:
            AudioFormatError: An odd number of bytes; nothing was taken.
        """
        _check_samples(data, 1, "Resampler.process")
        if self._bank is None or not data:
            return data
        import numpy as np

        samples = np.frombuffer(data, "<i2")
        if samples.size <= _SLICE_SAMPLES:
            return self._feed(self._bank, samples)
        starts = range(0, samples.size, _SLICE_SAMPLES)
        return b"".join(self._feed(self._bank, samples[at : at + _SLICE_SAMPLES]) for at in starts)

    def flush(self) -> bytes:
        """Return what the filter still holds, and forget the stream. Empty when nothing was taken."""
        bank, history = self._bank, self._history
        if bank is None or history is None:
            return b""
        import numpy as np

        n_outputs = max(0, -(-(bank.reach - self._position) // bank.down))
        tail = self._feed(bank, np.zeros(-(-bank.reach // bank.up), np.int16))
        self.reset()
        return tail[: n_outputs * _SAMPLE_BYTES]

    def _feed(self, bank: _Bank, new: NDArray[np.int16]) -> bytes:
        import numpy as np

        keep = bank.history
        work = np.zeros(keep + new.size + bank.spare)
        if self._history is not None:
            work[:keep] = self._history
        work[keep : keep + new.size] = new
        self._history = work[new.size : new.size + keep].copy()
        end = new.size * bank.up
        position = self._position
        n_outputs = max(0, -(-(end - position) // bank.down))
        self._position = position + n_outputs * bank.down - end
        if not n_outputs:
            return b""
        return _round_to_int16(bank.outputs(work, position, n_outputs)).tobytes()


class FormatConverter:
    """Streaming conversion of channels, rate and encoding.

    Different numbers of channels go through one: averaged, resampled, repeated. Equal numbers are resampled
    channel by channel. ``aligned`` and the exact lengths, in frames, are those of :class:`Resampler`.

    Args:
        from_format: What ``process`` takes.
        to_format: What it returns.
        aligned: See :class:`Resampler`.
        who: The call to name in an error.

    G.711 is decoded first and encoded last. Equal formats pass bit for bit.
    """

    def __init__(
        self,
        from_format: AudioFormat,
        to_format: AudioFormat,
        *,
        aligned: bool = True,
        who: str = "FormatConverter.process",
    ) -> None:
        self.from_format = from_format
        self.to_format = to_format
        self.is_identity = from_format == to_format
        """Whether input is returned as it is; numpy is then never loaded."""
        self._who = who
        self._decodes = from_format.encoding is not Encoding.PCM16
        self._encodes = to_format.encoding is not Encoding.PCM16
        self._keeps_samples = from_format.as_pcm16 == to_format.as_pcm16
        self._lanes = from_format.channels if from_format.channels == to_format.channels else 1
        rates = from_format.sample_rate, to_format.sample_rate
        n_resamplers = 0 if rates[0] == rates[1] else self._lanes
        self._resamplers = [Resampler(*rates, aligned=aligned) for _ in range(n_resamplers)]

    @property
    def delay_s(self) -> float:
        """Group delay, in seconds; 0 when the rates are equal."""
        return self._resamplers[0].delay_s if self._resamplers else 0.0

    def process(self, data: bytes) -> bytes:
        """Take whole frames and return those that they complete. The identity returns ``data`` itself.

        Raises:
            AudioFormatError: No whole number of frames; nothing was taken.
        """
        self.from_format.check_aligned(len(data), self._who)
        if self.is_identity or not data:
            return data
        if self._decodes:
            data = g711.decode(data, self.from_format.encoding)
        return self._encoded(data if self._keeps_samples else self._converted(data))

    def flush(self) -> bytes:
        """Return what the filter still holds, and forget the stream."""
        return self._encoded(self._widen([each.flush() for each in self._resamplers]))

    def reset(self) -> None:
        """Forget the stream: the next frame is the first."""
        for each in self._resamplers:
            each.reset()

    def _encoded(self, data: bytes) -> bytes:
        return g711.encode(data, self.to_format.encoding) if self._encodes and data else data

    def _converted(self, data: bytes) -> bytes:
        if self._lanes == 1:
            data = convert_channels(data, self.from_format.channels, 1)
        lanes = _split(data, self._lanes)
        if self._resamplers:
            lanes = [each.process(lane) for each, lane in zip(self._resamplers, lanes, strict=True)]
        return self._widen(lanes)

    def _widen(self, lanes: list[bytes]) -> bytes:
        if len(lanes) > 1:
            return _join(lanes)
        return convert_channels(lanes[0], 1, self.to_format.channels) if lanes else b""


def _split(data: bytes, channels: int) -> list[bytes]:
    if channels == 1:
        return [data]
    import numpy as np

    frames = np.frombuffer(data, "<i2").reshape(-1, channels)
    return [frames[:, channel].tobytes() for channel in range(channels)]


def _join(lanes: list[bytes]) -> bytes:
    import numpy as np

    return np.stack([np.frombuffer(lane, "<i2") for lane in lanes], axis=1).tobytes()


def convert(data: bytes, from_format: AudioFormat, to_format: AudioFormat) -> bytes:
    """Convert a whole recording; equal formats return ``data`` itself.

    The result starts with the input and has ``ceil(n_frames * to_rate / from_rate)`` frames.

    Raises:
        AudioFormatError: No whole number of frames.
    """
    given: object = data
    if not isinstance(given, bytes | bytearray | memoryview):
        raise AudioFormatError(
            f"convert takes bytes, not a {type(given).__name__}; to_int16 makes them of an array."
        )
    for audio_format in (from_format, to_format):
        named: object = audio_format
        if not isinstance(named, AudioFormat):
            raise AudioFormatError(f"convert takes two AudioFormat values, not a {type(named).__name__}.")
    converter = FormatConverter(from_format, to_format, who="convert")
    if converter.is_identity:
        return converter.process(data)
    return converter.process(data) + converter.flush()
