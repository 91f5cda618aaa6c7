"""What a test needs that not every environment has."""

from __future__ import annotations

import pytest

from tests.plugins.audio_processors.scenes import has_silero, has_webrtc

needs_webrtc = pytest.mark.skipif(
    not has_webrtc(), reason="needs livekit: pip install 'voxengine-audio-processors[webrtc]'"
)
needs_silero = pytest.mark.skipif(
    not has_silero(), reason="needs onnxruntime and the model of silero-vad: see the plug-in's README"
)
