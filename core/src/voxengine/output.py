"""The agent's audio on its way out: one format, whole frames, nothing lost between two chunks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from voxengine.audio.format import AudioFormat, Encoding
from voxengine.events import LazyAudio

if TYPE_CHECKING:
    from voxengine.audio.pcm import FormatConverter

__all__ = ["OutputFormatter"]


class OutputFormatter:
    """Brings audio of any provider to the engine's output format, item by item.

    Audio that needs no conversion passes as it is, still encoded where it was.
    """

    def __init__(self, audio_format: AudioFormat) -> None:
        self.format = audio_format
        self.frame_bytes = audio_format.frame_bytes
        self._converters: dict[str, tuple[AudioFormat, FormatConverter]] = {}
        self.odd: dict[str, bytes] = {}
        """By item, the part of a frame that waits for its other part."""

    def take(self, item_id: str, audio: bytes | LazyAudio, source: AudioFormat) -> bytes | LazyAudio:
        """Return the audio of a chunk in the output format; what is no whole frame waits for the next chunk."""
        n_bytes = audio.n_bytes if isinstance(audio, LazyAudio) else len(audio)
        if source is self.format and n_bytes % self.frame_bytes == 0 and not self.odd:
            return audio
        odd = self.odd.pop(item_id, b"")
        if not odd and n_bytes % source.frame_bytes == 0 and source == self.format:
            return audio
        data = odd + (audio.pcm() if isinstance(audio, LazyAudio) else bytes(audio))
        left = len(data) % source.frame_bytes
        if left:
            self.odd[item_id] = data[-left:]
            data = data[:-left]
        if source == self.format:
            return data
        held = self._converters.get(item_id)
        if held is None or held[0] != source:
            from voxengine.audio.pcm import FormatConverter

            head = held[1].flush() if held is not None else b""
            held = (source, FormatConverter(source, self.format))
            self._converters[item_id] = held
            return head + held[1].process(data)
        return held[1].process(data)

    def filtered(self, audio: bytes | LazyAudio, taps: Callable[[bytes], bytes | None]) -> bytes | None:
        """Return what the taps leave of audio in the output format; they are shown PCM16 whatever that is."""
        data = audio if isinstance(audio, bytes) else audio.pcm()
        if self.format.encoding is Encoding.PCM16:
            return taps(data)
        from voxengine.audio import g711

        kept = taps(g711.decode(data, self.format.encoding))
        return g711.encode(kept, self.format.encoding) if kept else kept

    def finish(self, item_id: str) -> bytes:
        """Return the tail of an item and forget it."""
        self.odd.pop(item_id, None)
        held = self._converters.pop(item_id, None)
        return held[1].flush() if held is not None else b""
