"""The user's side of a conversation: what was said, what of it waits for an answer, and where it is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from voxengine.audio.format import AudioFormat
from voxengine.events import EventType
from voxengine.history import History
from voxengine.journal import Journal
from voxengine.metrics import Metrics
from voxengine.responses import ResponseTracker
from voxengine.session import Session

__all__ = ["Emit", "UserTurns", "extend_text"]


class Emit(Protocol):
    """How an event is delivered, under the name of a session (the output's owner by default)."""

    def __call__(
        self, event_type: EventType, data: dict[str, Any], session: Session | None = None
    ) -> None: ...


class UserTurns:
    """Speech, transcripts and text of the user. Loop thread only.

    Args:
        history: Where the turns are filed.
        responses: Told about input, since the next output belongs to it.
        metrics: Told about ends of turns.
        emit: Delivers events.
        floor: Told who has the floor.
    """

    def __init__(
        self,
        history: History,
        responses: ResponseTracker,
        metrics: Metrics,
        emit: Emit,
        floor: Callable[[str, Session | None], None],
        now: Callable[[], float],
    ) -> None:
        self._history = history
        self._responses = responses
        self._metrics = metrics
        self._emit = emit
        self._floor = floor
        self._now = now
        self.owner: Session | None = None
        """The session that owns the input."""
        self.journal: Journal | None = None
        """Accepted audio; made at the first connect."""
        self.is_speaking = False
        self.turn_end: int | None = None
        """Journal index at which the unanswered spoken turn ended; None when none waits for an answer."""
        self.unanswered_texts: dict[str, str] = {}
        """Text turns that no output has answered yet, by history item, oldest first."""
        self._speech_start: int | None = None
        self._item: str | None = None
        self._texts: dict[str, str] = {}

    def open_journal(self, audio_format: AudioFormat, limit_s: float) -> None:
        """Begin to keep accepted audio, in the engine's input format."""
        self.journal = Journal(audio_format, limit_s)

    # -- speech -----------------------------------------------------------------------------------

    def vendor_speech(self, session: Session, event_type: EventType, data: dict[str, Any]) -> bool:
        """Take SPEECH_STARTED or SPEECH_ENDED of a provider; False when it does not own the input."""
        if session is not self.owner or session.sender is None:
            return False
        at_ms = data.get("at_ms")
        index = session.sender.index_at(at_ms) if isinstance(at_ms, int) else session.sender.cursor
        source = data.get("source") or "server"
        if event_type is EventType.SPEECH_STARTED:
            return self.speech_started(index, source, data)
        self.speech_ended(index, source, data)
        return True

    def speech_started(self, index: int, source: str, data: Mapping[str, Any] | None = None) -> bool:
        """Note that the user began to speak at a journal index; False when that is known.

        A session that takes over hears the open utterance again: it has one start all the same.
        """
        assert self.journal is not None
        if self.is_speaking:
            return False
        self.is_speaking = True
        self._speech_start = index
        self._responses.input("audio", is_request=False)
        self._ensure_item()
        self._floor("user", self.owner)
        at_ms = self.journal.ms(index)
        self._emit(EventType.SPEECH_STARTED, {**(data or {}), "at_ms": at_ms, "source": source}, self.owner)
        return True

    def speech_ended(self, index: int, source: str, data: Mapping[str, Any] | None = None) -> None:
        """Note that the user stopped speaking; unless that is only inferred, the turn is over."""
        assert self.journal is not None
        self.is_speaking = False
        if source != "inferred":
            self.turn_ended(index)
        at_ms = self.journal.ms(index)
        self._emit(EventType.SPEECH_ENDED, {**(data or {}), "at_ms": at_ms, "source": source}, self.owner)

    def turn_ended(self, index: int) -> None:
        """Note that a spoken turn is complete up to a journal index and waits for its answer."""
        self.turn_end = index
        self._responses.input("audio", is_request=False)
        self._metrics.turn_ended("audio", self._now(), self._owner_name)

    def text_turn(self, text: str) -> None:
        """Note a user turn as text."""
        item = self._history.add_user_text(text, provider=self._owner_name)
        self.unanswered_texts[item.id] = text
        self._responses.input("text", is_request=True)
        self._floor("user", self.owner)
        self._metrics.turn_ended("text", self._now(), self._owner_name)

    # -- what waits for an answer -----------------------------------------------------------------

    @property
    def has_open_turn(self) -> bool:
        """Whether the user said something aloud that no answer has come for."""
        if self.is_speaking or self.turn_end is not None:
            return True
        return self.journal is not None and self.journal.find_utterance() is not None

    def unanswered_items(self) -> list[str]:
        """Return the history items that a session which takes over gets as turns and not as history."""
        return [*self.unanswered_texts, *([self._item] if self._item is not None else [])]

    def open_turn_start(self) -> int:
        """Return the journal index from which a session that takes over must hear the user."""
        journal, owner = self.journal, self.owner
        assert journal is not None
        cursor = owner.sender.cursor if owner is not None and owner.sender is not None else journal.end
        if owner is not None and owner.config["turn_detection"].kind in ("client", "manual"):
            return journal.start
        start = self._speech_start if self.is_speaking or self.turn_end is not None else None
        if start is None:
            start = journal.find_utterance()
        return max(min(cursor if start is None else start, cursor), journal.start)

    def answered(self, session: Session, trigger: str) -> None:
        """Note the first output that is kept of a response: what it answers need not be sent again."""
        if trigger == "text":
            self.unanswered_texts.clear()
        elif trigger in ("audio", "server", "inferred"):
            self._release(session)

    def _release(self, session: Session) -> None:
        journal = self.journal
        if journal is None or session.sender is None:
            return
        index = session.sender.cursor if self.turn_end is None else self.turn_end
        if self.is_speaking and self._speech_start is not None:
            index = min(index, self._speech_start)
        item_id, self._item = self._item, None
        if item_id is not None:
            first = max(self._speech_start or 0, journal.start)
            audio = journal.read(first, max(index - first, 0))
            if audio:
                self._history.set_user_audio(item_id, audio, journal.format)
        journal.release(index)
        self.turn_end = None
        if not self.is_speaking:
            self._speech_start = None

    # -- words ------------------------------------------------------------------------------------

    def transcript(self, session: Session, data: dict[str, Any]) -> None:
        """Take INPUT_TRANSCRIPT of a provider."""
        vendor_id = data.get("item_id")
        item_id = self._history.resolve(vendor_id, session.epoch) if vendor_id is not None else None
        if item_id is None:
            item_id = self._ensure_item()
            if vendor_id is not None:
                self._history.bind(vendor_id, item_id, session.epoch)
        values = self._words(item_id, data)
        self._emit(EventType.INPUT_TRANSCRIPT, values, session)
        if not values["is_partial"] and not session.can("dialogue"):
            self._covered(session)

    def recognised(self, session: Session, data: dict[str, Any]) -> None:
        """File TEXT_OUTPUT of a recogniser as the user's words; it is delivered as written."""
        item_id = self._ensure_item()
        values = self._words(item_id, data)
        given = {"delta": values["delta"], "is_partial": values["is_partial"], **data, "item_id": item_id}
        self._emit(EventType.TEXT_OUTPUT, given, session)
        if not values["is_partial"]:
            self._covered(session)

    def _words(self, item_id: str, data: Mapping[str, Any]) -> dict[str, Any]:
        text, delta = extend_text(self._texts.get(item_id, ""), data)
        is_partial = bool(data.get("is_partial", False))
        if is_partial:
            self._texts[item_id] = text
        else:
            self._texts.pop(item_id, None)
        self._history.set_transcript(item_id, text, final=not is_partial)
        return {**data, "text": text, "delta": delta, "is_partial": is_partial, "item_id": item_id}

    def _covered(self, session: Session) -> None:
        """A recogniser's final words cover the audio so far; the next words are a new item."""
        self._item = None
        self._release(session)
        self._floor("user", session)

    def _ensure_item(self) -> str:
        if self._item is None:
            item = self._history.add_user_audio(status="in_progress", provider=self._owner_name)
            self._item = item.id
        return self._item

    @property
    def _owner_name(self) -> str:
        return self.owner.name if self.owner is not None else ""


def extend_text(before: str, data: Mapping[str, Any]) -> tuple[str, str]:
    """Return the text so far and what is new of it, from what a provider gave of the two."""
    text, delta = data.get("text"), data.get("delta")
    if text is None:
        return before + (delta or ""), delta or ""
    if delta is None:
        delta = text[len(before) :] if text.startswith(before) else text
    return text, delta
