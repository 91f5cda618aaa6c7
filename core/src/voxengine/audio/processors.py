"""What is done to the microphone's audio before anybody hears it: processors, the reference, the guard.

A processor (echo canceller, noise suppressor, gain control) sees frames of 10 ms of the microphone and of
what the loudspeaker was given. It runs behind the capture queue in a thread of its own, never in a callback.
Packages offer processors through the entry-point group ``voxengine.audio_processors``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol, runtime_checkable

from voxengine.audio.format import AudioFormat
from voxengine.audio.pcm import FormatConverter
from voxengine.errors import ConfigError
from voxengine.providers.entry_points import make_offered

__all__ = [
    "GROUP",
    "AudioProcessor",
    "EchoReference",
    "HalfDuplexGuard",
    "NullProcessor",
    "ProcessorChain",
    "load_processor",
]

GROUP: Final = "voxengine.audio_processors"
FRAME_MS: Final = 10
_REFERENCE_MS: Final = 500


@runtime_checkable
class AudioProcessor(Protocol):
    """Changes the microphone's audio. One object for one stream, called from one thread."""

    def process(self, microphone: bytes, reference: bytes, delay_ms: int) -> bytes:
        """Return the frame to go on with, of the same length.

        Args:
            microphone: 10 ms of PCM16 in the format given to the factory.
            reference: 10 ms of what the loudspeaker was given, in the same format; silence where it was
                given none.
            delay_ms: From the reference being given to it coming back in the microphone, as far as the
                devices say; 0 when they do not.
        """


class NullProcessor:
    """Changes nothing."""

    def __init__(self, audio_format: AudioFormat) -> None:
        self.format = audio_format

    def process(self, microphone: bytes, reference: bytes, delay_ms: int) -> bytes:
        """Return what the microphone heard."""
        return microphone


def load_processor(name: str, audio_format: AudioFormat) -> AudioProcessor:
    """Make a processor: ``null``, or one that an installed package offers under this name.

    Blocks while the package is imported: not for the loop.

    Raises:
        ConfigError: There is none, or it cannot be made.
    """
    if name == "null":
        return NullProcessor(audio_format)
    processor = make_offered(GROUP, name, "audio processor", ("null",), audio_format)
    if not isinstance(processor, AudioProcessor):
        raise ConfigError(f"The audio processor {name!r} has no process(microphone, reference, delay_ms).")
    return processor


class EchoReference:
    """What the loudspeaker is given, for those who look for it in the microphone.

    ``push`` belongs to the loudspeaker's thread, ``take`` to the one that processes. Half a second is kept.
    """

    def __init__(self, audio_format: AudioFormat) -> None:
        self._wanted = audio_format
        self._blocks: deque[tuple[AudioFormat, bytes]] = deque(maxlen=_REFERENCE_MS // FRAME_MS)
        self._converter: FormatConverter | None = None
        self._held = b""
        self._is_cut = False
        self._limit = audio_format.n_bytes(_REFERENCE_MS)
        self.output_format = audio_format
        """What is pushed; set before the loudspeaker starts."""
        self.delay_ms: Callable[[], int] = lambda: 0

    def push(self, block: bytes) -> None:
        """Take a block. Runs in the device's callback."""
        self._blocks.append((self.output_format, block))

    def restart(self) -> None:
        """Forget what was pushed: the loudspeaker threw it away, and fills up anew. From any thread.

        What is given next is heard as late after its push as what was given first; with blocks in front of it that
        nobody will hear, it would be taken later than it is heard, and no canceller finds such an echo.
        """
        self._blocks.clear()
        self._is_cut = True

    def take(self, n_bytes: int) -> bytes:
        """Return that much in the microphone's format, the oldest first, filled up with silence."""
        if self._is_cut:
            self._is_cut, self._held = False, b""
        while True:
            try:
                source, block = self._blocks.popleft()
            except IndexError:
                break
            if self._converter is None or self._converter.from_format != source:
                self._converter = FormatConverter(source, self._wanted, aligned=False)
            self._held += self._converter.process(block)
        if len(self._held) > self._limit:
            self._held = self._held[-self._limit :]
        taken, self._held = self._held[:n_bytes], self._held[n_bytes:]
        return taken.ljust(n_bytes, b"\0")


class ProcessorChain:
    """Processors one after the other, on frames of 10 ms, whatever the blocks are.

    Args:
        processors: In this order; each sees what the one before it made.
        audio_format: Of the audio; PCM16.
        reference: What the loudspeaker was given; None: silence.

    A processor that raises, or returns another length, is left out from then on and named in ``failed``.
    """

    def __init__(
        self,
        processors: Sequence[AudioProcessor],
        audio_format: AudioFormat,
        reference: EchoReference | None = None,
    ) -> None:
        self._processors = list(processors)
        self._reference = reference
        self._frame = audio_format.n_bytes(FRAME_MS)
        self._rest = b""
        self.failed: list[str] = []
        """Names of the classes that failed, and how."""

    def process(self, data: bytes) -> bytes:
        """Take audio of any length and return the whole frames that it completes, processed."""
        data = self._rest + data
        whole = len(data) // self._frame * self._frame
        self._rest = data[whole:]
        return b"".join(self._through(data[at : at + self._frame]) for at in range(0, whole, self._frame))

    def flush(self) -> bytes:
        """Return what is less than a frame, as it is."""
        rest, self._rest = self._rest, b""
        return rest

    def _through(self, frame: bytes) -> bytes:
        reference, delay_ms = bytes(len(frame)), 0
        if self._reference is not None:
            reference, delay_ms = self._reference.take(len(frame)), self._reference.delay_ms()
        for processor in list(self._processors):
            name = type(processor).__name__
            try:
                made = processor.process(frame, reference, delay_ms)
            except Exception as error:
                self.failed.append(f"{name} raised {type(error).__name__}")
                self._processors.remove(processor)
                continue
            if len(made) != len(frame):
                self.failed.append(f"{name} returned {len(made)} bytes for {len(frame)}")
                self._processors.remove(processor)
                continue
            frame = made
        return frame


class HalfDuplexGuard:
    """Silences the microphone while the agent is audible, and a little longer: for loudspeakers without echo
    cancelling. There is no barge-in by voice then.

    Args:
        audio_format: Of the microphone's audio.
        is_audible: Whether the agent can be heard now.
        hold_ms: How long the room goes on sounding.
    """

    def __init__(self, audio_format: AudioFormat, is_audible: Callable[[], bool], hold_ms: int = 250) -> None:
        self._is_audible = is_audible
        self._frame_bytes = audio_format.frame_bytes
        self._hold = audio_format.n_bytes(hold_ms) // audio_format.frame_bytes
        self._left = 0
        self.n_silenced = 0
        """Frames that were replaced by silence so far."""

    def process(self, data: bytes) -> bytes:
        """Return the data, or as much silence."""
        n_frames = len(data) // self._frame_bytes
        if self._is_audible():
            self._left = self._hold
        elif self._left <= 0:
            return data
        else:
            self._left -= n_frames
        self.n_silenced += n_frames
        return bytes(len(data))
