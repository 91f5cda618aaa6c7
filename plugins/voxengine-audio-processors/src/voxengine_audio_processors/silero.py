"""A neural voice detector: the model Silero VAD, run by onnxruntime.

The model is a file of the package ``silero-vad`` (MIT). That package wants PyTorch as soon as it is imported, so it is
not: only its file is read. Nothing is ever downloaded.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from voxengine.audio.format import AudioFormat
from voxengine.audio.pcm import Resampler, int16_to_float
from voxengine.errors import ConfigError

__all__ = ["MODEL_VARIABLE", "SileroDetector", "find_model"]

MODEL_VARIABLE: Final = "VOXENGINE_SILERO_MODEL"
"""Environment variable with the path of a model file, when it is not that of the installed package."""

_FILE: Final = "silero_vad/data/silero_vad.onnx"
_FRAME_MS: Final = 32
_CONTEXT_MS: Final = 4
_HYSTERESIS: Final = 0.15
_INSTALL: Final = (
    "Try: pip install 'voxengine-audio-processors[silero]' and pip install --no-deps silero-vad "
    f"(without PyTorch, which is not used), or name a file in {MODEL_VARIABLE}."
)
_Floats = NDArray[np.float32]


class _Model(Protocol):
    """A session of onnxruntime."""

    def run(self, output_names: None, input_feed: Mapping[str, Any]) -> list[Any]:
        """Return the probability of speech, shape (1, 1), and the next state, shape (2, 1, 128)."""


class SileroDetector:
    """Tells speech from noise by what it sounds like, not by how loud it is (see
    :class:`~voxengine.audio.vad.VoiceDetector`).

    A frame is speech when its probability reaches the threshold, and from then on while it is at most 0.15
    below it. The model hears 16 kHz, or 8 kHz when the audio has less than 16; other rates are converted.

    Args:
        sample_rate: Of the audio, in hertz.
        threshold: 0 to 1, for probabilities of 0.1 to 0.9.

    Raises:
        AudioFormatError: The rate is out of range.
        ConfigError: onnxruntime or the model is missing or cannot be used, or the threshold is out of range.

    The first one of a process takes up to a second, later ones share its model. Frames are 32 ms long and cost
    about a tenth of a millisecond.
    """

    def __init__(self, sample_rate: int, threshold: float = 0.5) -> None:
        if not 0.0 <= threshold <= 1.0:
            raise ConfigError(f"threshold is {threshold!r}; it is from 0 to 1.")
        self._format = AudioFormat(sample_rate=sample_rate)
        self._needed = 0.1 + 0.8 * threshold
        self._model = _load(find_model())
        self.frame_samples = sample_rate * _FRAME_MS // 1000
        """Samples per frame: 32 ms."""
        self._frame_bytes = 2 * self.frame_samples
        self._rate = 16_000 if sample_rate >= 16_000 else 8_000
        self._rate_input = np.array(self._rate, dtype=np.int64)
        self._resampler = Resampler(sample_rate, self._rate, aligned=False)
        self._n_heard = self._rate * (_FRAME_MS + _CONTEXT_MS) // 1000
        self.reset()

    def reset(self) -> None:
        """Forget the stream."""
        self._rest = b""
        self._state: _Floats = np.zeros((2, 1, 128), dtype=np.float32)
        self._heard: _Floats = np.zeros(self._n_heard, dtype=np.float32)
        self._resampler.reset()
        self.probability = 0.0
        """That the last whole frame is speech, by the model."""
        self.is_speech = False
        """Whether the last whole frame is."""

    def push(self, data: bytes) -> list[bool]:
        """Take PCM16 mono of any length and return, for each frame that it completes, whether it is speech.

        Raises:
            AudioFormatError: An odd number of bytes; nothing was taken.
        """
        self._format.check_aligned(len(data), "SileroDetector.push")
        data = self._rest + data
        size = self._frame_bytes
        n_whole = len(data) // size * size
        self._rest = data[n_whole:]
        return [self._judge(data[at : at + size]) for at in range(0, n_whole, size)]

    def drop_partial(self) -> None:
        """Drop the samples of the unfinished frame: the next sample begins one."""
        self._rest = b""

    def _judge(self, frame: bytes) -> bool:
        samples = int16_to_float(self._resampler.process(frame))
        # What the model hears ends with the frame, whatever a rate like 44100 Hz made of its length.
        self._heard = np.concatenate((self._heard, samples))[-self._n_heard :]
        feed = {"input": self._heard[np.newaxis], "state": self._state, "sr": self._rate_input}
        probability, self._state = self._model.run(None, feed)
        self.probability = float(probability[0, 0])
        self.is_speech = self.probability >= self._needed - (_HYSTERESIS if self.is_speech else 0.0)
        return self.is_speech


def find_model() -> Path:
    """Return the model file: the one of ``VOXENGINE_SILERO_MODEL``, else that of the package ``silero-vad``.

    Raises:
        ConfigError: There is neither.
    """
    named = os.environ.get(MODEL_VARIABLE)
    if named:
        path = Path(named)
        if not path.is_file():
            raise ConfigError(f"{MODEL_VARIABLE} names {named!r}, where no file is.")
        return path
    try:
        files = importlib.metadata.files("silero-vad") or []
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError(
            f"The detector 'silero' needs its model, which is not installed. {_INSTALL}"
        ) from None
    for file in files:
        if file.as_posix() == _FILE and (path := Path(str(file.locate()))).is_file():
            return path
    raise ConfigError(f"The installed silero-vad has no file {_FILE}. {_INSTALL}")


@functools.lru_cache(maxsize=2)
def _load(path: Path) -> _Model:
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError as error:
        reason = "is not installed" if error.name == "onnxruntime" else f"cannot be loaded: {error}"
        raise ConfigError(f"The detector 'silero' needs onnxruntime, which {reason}. {_INSTALL}") from error
    options = runtime.SessionOptions()
    # One thread: more would cost more than they gain on a frame, and would spin.
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    options.log_severity_level = 3  # Errors: it otherwise writes remarks on the model to stderr.
    try:
        model = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        inputs = {each.name for each in model.get_inputs()}
    except Exception as error:
        raise ConfigError(
            f"The model file {str(path)!r} cannot be read: {type(error).__name__}: {error}"
        ) from error
    if inputs != {"input", "state", "sr"}:
        raise ConfigError(
            f"{str(path)!r} is another model: it takes {', '.join(sorted(inputs))}, not input, sr, state. "
            "Silero VAD 5 and 6 have the right one, silero_vad.onnx."
        )
    loaded: _Model = model
    return loaded
