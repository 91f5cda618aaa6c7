"""The agent's ear: finds utterances in the user's audio and gives them their scripted words.

No I/O and no clock: it runs on the time of the audio, so the same samples give the same messages however
they were cut.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from voxengine.audio.vad import Segmenter
from voxengine.codec import NewId
from voxengine_mock.codec import Message, SpeechEnded, SpeechStarted, Transcript
from voxengine_mock.settings import Settings

__all__ = ["Hearing", "TurnEnded"]

_WORD_MS: Final = 300
"""A partial transcript grows by one word in this time."""


@attrs.frozen
class TurnEnded:
    """The user's spoken turn is over; ``text`` is what was said."""

    item_id: str
    text: str = attrs.field(repr=False)


_DETECTION: Final = ("input_rate", "threshold", "prefix_padding_ms", "silence_ms")
Sound = Message | TurnEnded


class Hearing:
    """Listens to one session's input.

    Args:
        settings: The session's; see :meth:`configure`.
        next_words: Returns what the next utterance says.
        new_id: Makes item identifiers.
    """

    def __init__(self, settings: Settings, next_words: Callable[[], str], new_id: NewId) -> None:
        self._next_words = next_words
        self._new_id = new_id
        self._n_samples = 0
        self._forget_turn()
        self._settings = settings
        self._segmenter = self._listen()

    def configure(self, settings: Settings) -> None:
        """Listen by these settings from here on. An open turn stays open."""
        before, self._settings = self._settings, settings
        if any(getattr(settings, name) != getattr(before, name) for name in _DETECTION):
            self._segmenter = self._listen()

    def _listen(self) -> Segmenter:
        settings = self._settings
        segmenter = Segmenter(
            settings.input_rate,
            threshold=settings.threshold,
            prefix_padding_ms=settings.prefix_padding_ms,
            silence_ms=settings.silence_ms,
        )
        segmenter.reset(self._n_samples)
        return segmenter

    @property
    def audio_ms(self) -> int:
        """How much audio was heard since the session began."""
        return self._ms(self._n_samples)

    @property
    def has_speech(self) -> bool:
        """Whether the open turn holds speech."""
        return bool(self._item_id)

    def push(self, pcm: bytes) -> list[Sound]:
        """Take PCM16 mono and return what it brings about, in order."""
        self._n_samples += len(pcm) // 2
        self.has_audio = True
        out: list[Sound] = []
        is_server = self._settings.turn_detection == "server"
        for event in self._segmenter.push(pcm):
            at_ms = self._ms(event.sample_index)
            if event.kind == "start":
                if self._begin(at_ms) and is_server:
                    out.append(SpeechStarted(at_ms=at_ms, item_id=self._item_id))
                continue
            out.extend(self._partials(self._ms(event.decided_at)))
            if is_server:
                out.append(SpeechEnded(at_ms=at_ms, item_id=self._item_id))
                out.extend(self._close())
        if self._segmenter.in_speech:
            out.extend(self._partials(self.audio_ms))
        return out

    def end_turn(self) -> list[Sound]:
        """Close the open turn here. Without speech in it there is nothing to say about it."""
        ends = self._segmenter.flush()
        out: list[Sound] = []
        if ends and self._settings.turn_detection == "server":
            out.append(SpeechEnded(at_ms=self._ms(ends[0].sample_index), item_id=self._item_id))
        if self._item_id:
            out.extend(self._close())
        self.has_audio = False
        return out

    def discard(self) -> None:
        """Forget the open turn."""
        self._forget_turn()
        self._segmenter.reset(self._n_samples)

    def _ms(self, n_samples: int) -> int:
        return n_samples * 1000 // self._settings.input_rate

    def _forget_turn(self) -> None:
        self.has_audio = False
        """Whether audio arrived since the last turn ended."""
        self._item_id = ""
        self._words: list[str] = []
        self._n_shown = 0
        self._began_ms = 0

    def _begin(self, at_ms: int) -> bool:
        # Under manual control a turn may hold several utterances; its words were chosen at the first.
        if self._item_id:
            return False
        self._item_id = self._new_id("item_")
        self._words = self._next_words().split()
        self._began_ms = at_ms
        return True

    def _partials(self, until_ms: int) -> list[Sound]:
        """Return one partial transcript for each word that is due, but for the last word."""
        out: list[Sound] = []
        due = min(len(self._words) - 1, 1 + (until_ms - self._began_ms) // _WORD_MS)
        while self._settings.transcription and self._n_shown < due:
            self._n_shown += 1
            text = " ".join(self._words[: self._n_shown])
            delta = (" " if self._n_shown > 1 else "") + self._words[self._n_shown - 1]
            out.append(Transcript(item_id=self._item_id, text=text, delta=delta, is_partial=True))
        return out

    def _close(self) -> list[Sound]:
        text = " ".join(self._words)
        out: list[Sound] = []
        if self._settings.transcription:
            delta = text[len(" ".join(self._words[: self._n_shown])) :]
            out.append(Transcript(item_id=self._item_id, text=text, delta=delta, is_partial=False))
        out.append(TurnEnded(self._item_id, text))
        self._forget_turn()
        return out
