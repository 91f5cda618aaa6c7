"""Voice detectors by name: the built-in one, and those of installed packages.

Packages offer them through the entry-point group ``voxengine.voice_detectors``, as callables that take the
sample rate in hertz and a threshold from 0 (catches a whisper) to 1 (only what is speech for sure), and return a
:class:`~voxengine.audio.vad.VoiceDetector`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from voxengine.audio.vad import EnergyVad, VoiceDetector, threshold_to_db
from voxengine.errors import ConfigError
from voxengine.providers.entry_points import find_offered

__all__ = ["GROUP", "find_detector", "load_detector"]

GROUP: Final = "voxengine.voice_detectors"


def load_detector(name: str, sample_rate: int, threshold: float = 0.5) -> VoiceDetector:
    """Make a detector: ``energy``, or one that an installed package offers under this name.

    Any but ``energy`` blocks while its package is imported and its model read: not for the loop.

    Raises:
        AudioFormatError: The rate is out of range.
        ConfigError: There is none, or it cannot be made; or the threshold is not from 0 to 1.
    """
    threshold_to_db(threshold)  # Out of range: said before anything is imported.
    return find_detector(name)(sample_rate, threshold)


def find_detector(name: str) -> Callable[[int, float], VoiceDetector]:
    """Return what makes the detectors of a name, from sample rate and threshold; see :func:`load_detector`.

    Blocks while the package is imported. The first detector that is made may block as well, later ones do not.

    Raises:
        ConfigError: There is none of this name, or its package cannot be imported.
    """
    if name == "energy":
        return _make_energy
    offered = find_offered(GROUP, name, "voice detector", ("energy",))

    def make(sample_rate: int, threshold: float) -> VoiceDetector:
        threshold_to_db(threshold)
        detector = offered(sample_rate, threshold)
        if not isinstance(detector, VoiceDetector) or detector.frame_samples < 1:
            raise ConfigError(
                f"The voice detector {name!r} is none: it needs frame_samples (1 or more), push, drop_partial and reset."
            )
        return detector

    return make


def _make_energy(sample_rate: int, threshold: float) -> VoiceDetector:
    return EnergyVad(sample_rate, threshold_db=threshold_to_db(threshold))
