"""Echo cancelling, noise suppression and gain control by WebRTC's audio processing module.

The module comes in the package ``livekit``, a client of a service that is not used here: nothing connects.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any, Final

from voxengine.audio.format import AudioFormat
from voxengine.errors import ConfigError

__all__ = ["WebRtcProcessor", "echo_only", "full", "full_with_gain", "noise_only"]

_FRAME_MS: Final = 10
_MAX_DELAY_MS: Final = 500
"""livekit refuses more (1.2.1, tried)."""


class WebRtcProcessor:
    """Takes out of the microphone's audio what the loudspeaker was given, and steady noise.

    Args:
        audio_format: Of the microphone's audio and of the reference.
        echo: Cancel echo.
        noise: Suppress noise.
        high_pass: Take away rumble below speech.
        gain: Bring speech to a usual level.

    Raises:
        ConfigError: The package ``livekit`` is not installed or cannot be loaded, or nothing is to be done.

    The first one of a process takes a third of a second. It does not survive a fork of the process.
    """

    def __init__(
        self,
        audio_format: AudioFormat,
        *,
        echo: bool = True,
        noise: bool = True,
        high_pass: bool = True,
        gain: bool = False,
    ) -> None:
        if not (echo or noise or high_pass or gain):
            raise ConfigError("WebRtcProcessor has nothing to do. Set echo, noise, high_pass or gain.")
        rtc = _module()
        self.format = audio_format
        self._hears_reference = echo
        self._delay_ms = -1
        self._module = rtc.AudioProcessingModule(
            echo_cancellation=echo,
            noise_suppression=noise,
            high_pass_filter=high_pass,
            auto_gain_control=gain,
        )
        n_frames = audio_format.n_bytes(_FRAME_MS) // audio_format.frame_bytes
        shape = (audio_format.sample_rate, audio_format.channels, n_frames)
        # Made once and filled anew: the module changes a frame in place, and takes no hold of it.
        self._microphone, self._reference = rtc.AudioFrame.create(*shape), rtc.AudioFrame.create(*shape)
        self._near, self._far = self._microphone.data.cast("B"), self._reference.data.cast("B")

    def process(self, microphone: bytes, reference: bytes, delay_ms: int) -> bytes:
        """Return the frame to go on with, of the same length (see :class:`~voxengine.audio.processors.AudioProcessor`).

        ``delay_ms`` helps the canceller to begin; it finds the delay by itself, up to about half a second.
        """
        if self._hears_reference:
            self._far[:] = reference
            self._module.process_reverse_stream(self._reference)
            delay_ms = max(0, min(delay_ms, _MAX_DELAY_MS))
            if delay_ms != self._delay_ms:
                self._module.set_stream_delay_ms(delay_ms)
                self._delay_ms = delay_ms
        self._near[:] = microphone
        self._module.process_stream(self._microphone)
        return bytes(self._near)


def _module() -> Any:
    try:
        return importlib.import_module("livekit.rtc")
    except ImportError as error:
        if error.name in ("livekit", "livekit.rtc"):
            reason = "is not installed"
        else:
            reason = f"cannot be loaded: {error}"
        raise ConfigError(
            f"The WebRTC processors need the package livekit, which {reason}. "
            "Try: pip install 'voxengine-audio-processors[webrtc]'"
        ) from error


full: Final = functools.partial(WebRtcProcessor)
"""``webrtc``: echo, noise and rumble."""
full_with_gain: Final = functools.partial(WebRtcProcessor, gain=True)
"""``webrtc-gain``: the same, and gain control."""
echo_only: Final = functools.partial(WebRtcProcessor, noise=False)
"""``webrtc-echo``: echo and rumble, for services that suppress noise themselves."""
noise_only: Final = functools.partial(WebRtcProcessor, echo=False)
"""``webrtc-noise``: noise and rumble, for headsets."""
