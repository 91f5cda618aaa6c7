"""What the client listens with: the voice detector that the turn detection names, for everybody in an engine who listens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from voxengine.config import TurnDetection
from voxengine.threads import in_thread

if TYPE_CHECKING:
    from voxengine.audio.vad import Segmenter, VoiceDetector

__all__ = ["Ears"]

_THRESHOLD: Final = 0.5


class Ears:
    """Makes detectors and segmenters. Those of packages are found and tried in a thread before they are needed."""

    def __init__(self) -> None:
        self._makers: dict[str, Callable[[int, float], VoiceDetector]] = {}

    async def prepare(self, detection: TurnDetection, sample_rate: int) -> None:
        """Find the detector and make one, so that the next is made at once.

        Raises:
            ConfigError: It is not installed or cannot be used.
        """
        name = detection.detector
        if name is None or name in self._makers:
            return
        make = await in_thread(_find, name)
        await in_thread(make, sample_rate, _threshold(detection))
        self._makers[name] = make

    def detector(self, detection: TurnDetection, sample_rate: int) -> VoiceDetector:
        """Make the detector that a turn detection names."""
        name = detection.detector or "energy"
        make = self._makers.get(name)
        if make is None:
            make = self._makers[name] = _find(name)
        return make(sample_rate, _threshold(detection))

    def segmenter(self, detection: TurnDetection, sample_rate: int, **changes: int) -> Segmenter:
        """Make what cuts audio into utterances as a turn detection says.

        Args:
            detection: Detector, threshold, padding and silence.
            sample_rate: Of the audio, in hertz.
            changes: Arguments of the segmenter that differ.
        """
        from voxengine.audio.vad import Segmenter

        given: dict[str, Any] = {
            "prefix_padding_ms": detection.prefix_padding_ms,
            "silence_ms": detection.silence_ms,
            **changes,
        }
        options = {name: value for name, value in given.items() if value is not None}
        return Segmenter(sample_rate, detector=self.detector(detection, sample_rate), **options)


def _threshold(detection: TurnDetection) -> float:
    return _THRESHOLD if detection.threshold is None else detection.threshold


def _find(name: str) -> Callable[[int, float], VoiceDetector]:
    from voxengine.audio.detectors import find_detector

    return find_detector(name)
