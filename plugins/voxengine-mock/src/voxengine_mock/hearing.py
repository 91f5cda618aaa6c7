"""The agent's ear: finds utterances in the user's audio and gives them their scripted words.

No I/O and no clock: it runs on the time of the audio, so the same samples give the same messages however
they were cut.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from voxengine.audio.vad import Segmenter
from voxengine.codec import NewId
from voxengine_mock.happenings import Heard, SpeechEnded, SpeechStarted, TurnEnded
from voxengine_mock.script import Utterance
from voxengine_mock.settings import Settings

__all__ = ["Hearing", "Sound"]

_DETECTION: Final = ("input_rate", "threshold", "prefix_padding_ms", "silence_ms", "patience_ms")
_UNFINISHED: Final = re.compile(
    r"(?:,|\.\.\.|\u2026|[-\u2013\u2014:]|\b(?:a|an|and|because|but|er|for|from|if|of|or|so|that|the|then|to|uh|um|with))$",
    re.IGNORECASE,
)
"""How words end that go on: with a pause in the punctuation, or with a word that wants another."""
Sound = SpeechStarted | SpeechEnded | Heard | TurnEnded


class Hearing:
    """Listens to one session's input.

    Args:
        settings: The session's; see :meth:`configure`.
        next_utterance: Returns what the user says next.
        new_id: Makes item identifiers.
    """

    def __init__(self, settings: Settings, next_utterance: Callable[[], Utterance], new_id: NewId) -> None:
        self._next_utterance = next_utterance
        self._new_id = new_id
        self._n_samples = 0
        self.final_delay_ms: float | None = None
        """How late the final text of the turn that ended last comes; None: by the script's delay."""
        self._coming: Utterance | None = None
        """What the user will say next, where that decides about the pause."""
        self._forget_turn()
        self._settings = settings
        self._segmenter = self._listen()

    def configure(self, settings: Settings) -> None:
        """Listen by these settings from here on. An open turn stays open."""
        before, self._settings = self._settings, settings
        if settings.input_rate != before.input_rate:
            self._n_samples = self._n_samples * settings.input_rate // before.input_rate
        if any(getattr(settings, name) != getattr(before, name) for name in _DETECTION):
            self._segmenter = self._listen()

    def _listen(self) -> Segmenter:
        settings = self._settings
        self._silence_ms = self._wanted_silence_ms()
        segmenter = Segmenter(
            settings.input_rate,
            threshold=settings.threshold,
            prefix_padding_ms=settings.prefix_padding_ms,
            silence_ms=self._silence_ms,
        )
        segmenter.reset(self._n_samples)
        return segmenter

    def _wanted_silence_ms(self) -> int:
        """Return the pause that ends the utterance that is open or comes next."""
        patience_ms = self._settings.patience_ms
        if patience_ms is None:
            return self._settings.silence_ms
        if self._item_id:
            text = self._utterance.text
        else:
            self._coming = self._coming or self._next_utterance()
            text = self._coming.text
        return patience_ms if _UNFINISHED.search(text.strip()) else self._settings.silence_ms

    @property
    def audio_ms(self) -> int:
        """How much audio was heard since the session began."""
        return self._ms(self._n_samples)

    @property
    def has_speech(self) -> bool:
        """Whether the open turn holds speech."""
        return bool(self._item_id)

    @property
    def in_speech(self) -> bool:
        """Whether the user is speaking."""
        return self._segmenter.in_speech

    def push(self, pcm: bytes) -> list[Sound]:
        """Take PCM16 mono and return what it brings about, in order."""
        self._n_samples += len(pcm) // 2
        self.has_audio = True
        out: list[Sound] = []
        while pcm:
            pcm = self._push(pcm, out)
        if self._segmenter.in_speech:
            out.extend(self._partials(self.audio_ms))
        return out

    def _push(self, pcm: bytes, out: list[Sound]) -> bytes:
        """Take audio and return the part of it that is to be heard again, with another pause."""
        is_server = self._settings.turn_detection == "server"
        for event in self._segmenter.push(pcm):
            at_ms = self._ms(event.sample_index)
            if event.kind == "start":
                if self._begin(at_ms) and is_server:
                    padded_ms = self._ms(event.padded_index)
                    out.append(SpeechStarted(at_ms=at_ms, padded_ms=padded_ms, item_id=self._item_id))
                continue
            self._ended_ms = at_ms
            out.extend(self._partials(self._ms(event.decided_at)))
            if not is_server:
                continue
            decided_ms = self._ms(event.decided_at)
            out.append(SpeechEnded(at_ms=at_ms, decided_ms=decided_ms, item_id=self._item_id))
            out.extend(self._close())
            if self._wanted_silence_ms() != self._silence_ms:
                self._segmenter = self._listen()
                self._segmenter.reset(event.decided_at)
                n_left = self._n_samples - event.decided_at
                return pcm[len(pcm) - 2 * n_left :] if n_left else b""
        return b""

    def end_turn(self) -> list[Sound]:
        """Close the open turn here. Without speech in it there is nothing to say about it."""
        ends = self._segmenter.flush()
        out: list[Sound] = []
        if ends:
            self._ended_ms = self._ms(ends[0].sample_index)
            if self._settings.turn_detection == "server":
                at_ms, decided_ms = self._ended_ms, self.audio_ms
                out.append(SpeechEnded(at_ms=at_ms, decided_ms=decided_ms, item_id=self._item_id))
        if self._item_id:
            out.extend(self._close())
        self.has_audio = False
        return out

    def commit(self) -> list[Sound]:
        """The same, but a turn without speech is one too: its text is empty."""
        out = self.end_turn()
        if not any(isinstance(sound, TurnEnded) for sound in out):
            out.append(TurnEnded(item_id=self._new_id("item_"), text=""))
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
        self._utterance = Utterance("")
        self._partial_texts: tuple[str, ...] = ()
        self._n_shown = 0
        self._shown = ""
        self._began_ms = self._ended_ms = 0

    def _begin(self, at_ms: int) -> bool:
        # Under manual control a turn may hold several utterances; its words were chosen at the first.
        if self._item_id:
            return False
        self._item_id = self._new_id("item_")
        utterance = self._utterance = self._coming or self._next_utterance()
        self._coming = None
        words = utterance.text.split()
        self._partial_texts = (
            tuple(" ".join(words[:n]) for n in range(1, len(words)))
            if utterance.partials is None
            else utterance.partials
        )
        self._began_ms = self._ended_ms = at_ms
        return True

    def _partials(self, until_ms: int) -> list[Sound]:
        """Return the partial texts that are due."""
        out: list[Sound] = []
        due = 1 + int((until_ms - self._began_ms) // self._utterance.word_ms)
        while self._settings.transcription and self._n_shown < min(due, len(self._partial_texts)):
            out.append(self._heard(self._partial_texts[self._n_shown], is_partial=True))
            self._n_shown += 1
        return out

    def _heard(self, text: str, *, is_partial: bool) -> Heard:
        # A text that takes back what was shown is new as a whole.
        delta = text[len(self._shown) :] if text.startswith(self._shown) else text
        self._shown = text
        words = () if is_partial else self._word_times()
        return Heard(item_id=self._item_id, text=text, delta=delta, is_partial=is_partial, words=words)

    def _word_times(self) -> tuple[dict[str, Any], ...]:
        times = self._utterance.words
        if not times:
            words = self._utterance.text.split()
            each = max(0, self._ended_ms - self._began_ms) / len(words)
            times = tuple((word, n * each, (n + 1) * each) for n, word in enumerate(words))
        return tuple(
            {"word": word, "at_ms": self._began_ms + round(at), "end_ms": self._began_ms + round(end)}
            for word, at, end in times
        )

    def _close(self) -> list[Sound]:
        text = " ".join(self._utterance.text.split())
        out: list[Sound] = []
        if self._settings.transcription:
            out.append(self._heard(text, is_partial=False))
        out.append(TurnEnded(item_id=self._item_id, text=text))
        self.final_delay_ms = self._utterance.delay_ms
        self._forget_turn()
        return out
