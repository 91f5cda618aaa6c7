"""Echo cancelling, noise suppression, gain control and a neural voice detector for VoxEngine.

The modules that do the work are installed with the extras ``webrtc`` and ``silero``, and imported when a processor
or detector is made.
"""

from __future__ import annotations

from voxengine_audio_processors.silero import SileroDetector
from voxengine_audio_processors.webrtc import WebRtcProcessor

__all__ = ["SileroDetector", "WebRtcProcessor"]
