"""Voice detectors by name: the built-in one, and those of installed packages.

Packages offer them through the entry-point group ``voxengine.voice_detectors``, as callables that take the
sample rate in hertz and a threshold from 0 (catches a whisper) to 1 (only what is speech for sure), and return a
:class:`~voxengine.audio.vad.VoiceDetector`.
"""

from __future__ import annotations

from typing import Final

from voxengine.audio.vad import EnergyVad, VoiceDetector, threshold_to_db
from voxengine.errors import ConfigError
from voxengine.providers.entry_points import make_offered

__all__ = ["GROUP", "load_detector"]

GROUP: Final = "voxengine.voice_detectors"


def load_detector(name: str, sample_rate: int, threshold: float = 0.5) -> VoiceDetector:
    """Make a detector: ``energy``, or one that an installed package offers under this name.

    Any but ``energy`` blocks while its package is imported and its model read: not for the loop.

    Raises:
        AudioFormatError: The rate is out of range.
        ConfigError: There is none, or it cannot be made; or the threshold is not from 0 to 1.
    """
    threshold_db = threshold_to_db(threshold)
    if name == "energy":
        return EnergyVad(sample_rate, threshold_db=threshold_db)
    detector = make_offered(GROUP, name, "voice detector", ("energy",), sample_rate, threshold)
    if not isinstance(detector, VoiceDetector) or detector.frame_samples < 1:
        raise ConfigError(
            f"The voice detector {name!r} is none: it needs frame_samples (1 or more), push, drop_partial and reset."
        )
    return detector
