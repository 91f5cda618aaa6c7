"""The user's side of a conversation: what was said, what of it waits for an answer, and where it is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from voxengine.audio.format import AudioFormat
from voxengine.ears import Ears
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
        self.ears = Ears()
        """What the client listens to the user with."""
        self.is_speaking = False
        self.turn_end: int | None = None
        """Journal index at which the unanswered spoken turn ended; None when none waits for an answer."""
        self.unanswered_texts: dict[str, str] = {}
        """Text turns that no output has answered yet, by history item, oldest first."""
        self._waiting_from: int | None = None
        """Journal index at which the earliest spoken turn that waits for an answer began."""
        self._covered_to: int | None = None
        """Journal index that a recogniser's latest final words cover."""
        self._speech_start: int | None = None
        self._item: str | None = None
        self._earlier: list[str] = []
        """Items of the same unanswered turn before ``_item``."""
        self._untold: str | None = None
        """The latest answered item whose words have not come; some services transcribe behind the answer."""
        self._gave_up = False
        self._called_to: int | None = None
        """Journal index up to which the agent has called a tool for what was said."""
        self._called_texts: set[str] = set()
        self._texts: dict[str, str] = {}

    def open_journal(self, audio_format: AudioFormat, limit_s: float) -> None:
        """Begin to keep accepted audio, in the engine's input format."""
        self.journal = Journal(audio_format, limit_s)

    # -- speech -----------------------------------------------------------------------------------

    def would_start(self, session: Session) -> bool:
        """Return whether SPEECH_STARTED of a provider is news: it owns the input and nobody spoke."""
        return session is self.owner and session.sender is not None and not self.is_speaking

    def vendor_speech(self, session: Session, event_type: EventType, data: dict[str, Any]) -> bool:
        """Take SPEECH_STARTED or SPEECH_ENDED of a provider; False when it does not own the input."""
        if session is not self.owner or session.sender is None:
            return False
        at_ms = data.get("at_ms")
        index = session.sender.index_at(int(at_ms)) if at_ms is not None else session.sender.cursor
        source = data.get("source") or "server"
        vendor_id = data.get("item_id")
        if event_type is EventType.SPEECH_STARTED:
            if vendor_id is not None:
                data["item_id"] = self._item_for(session, vendor_id, is_new=True)
            return self.speech_started(index, source, data)
        if vendor_id is not None:
            data["item_id"] = self._history.resolve(vendor_id, session.epoch) or vendor_id
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
        if self.owner is not None and self._covered_to is not None and index <= self._covered_to:
            # A recogniser's final words came before its end was noticed here: nothing waits any more.
            self.turn_end = self._covered_to
            self._release(self.owner)
        elif source != "inferred":
            self.turn_ended(index)
        at_ms = self.journal.ms(index)
        self._emit(EventType.SPEECH_ENDED, {**(data or {}), "at_ms": at_ms, "source": source}, self.owner)

    def dismissed(self, index: int) -> None:
        """Note that what was heard up to a journal index was no speech: no turn, and nothing to answer."""
        item_id = self._item
        if item_id is not None and item_id in self._history and not self._history.get(item_id).is_transcribed:
            self._item = None
            self._delete(item_id)
        self.speech_ended(index, "inferred")
        if self.turn_end is None:
            self._speech_start = None
        self._floor("agent", self.owner)

    def turn_ended(self, index: int) -> None:
        """Note that a spoken turn is complete up to a journal index and waits for its answer."""
        is_known = self.turn_end is not None  # By the client, say, and now the vendor heard the end too.
        if not is_known and self._waiting_from is None:
            start, journal = self._speech_start, self.journal
            if start is None and journal is not None:
                start = journal.find_utterance()  # Nobody has said yet where it began.
            self._waiting_from = start
        self.turn_end, self._gave_up = index, False
        self._responses.input("audio", is_request=False)
        if not is_known:
            self._metrics.turn_ended("audio", self._now(), self._owner_name)

    def committed(self, index: int) -> None:
        """Note a turn that is ended by hand: nobody listens for its end, and its words may come behind its answer.

        Args:
            index: Journal index up to which the user was heard.
        """
        journal = self.journal
        if journal is not None and journal.end > journal.start:
            self._ensure_item()
        if self.is_speaking:  # As a session before had heard.
            self.speech_ended(index, "inferred")

    def text_turn(self, text: str) -> str:
        """Note a user turn as text; return its history item."""
        self._owe_spoken_answer()
        item = self._history.add_user_text(text, provider=self._owner_name)
        self.unanswered_texts[item.id] = text
        # What waits behind the debts of a session before is asked for when its turn comes.
        is_request = self.owner is None or self.owner.unpaid is None
        self._responses.input("text", is_request=is_request, text_id=item.id)
        self._floor("user", self.owner)
        self._metrics.turn_ended("text", self._now(), self._owner_name)
        return item.id

    def _owe_spoken_answer(self) -> None:
        """Let the next response be the one that the vendor gives by itself, to the spoken turn that waits for it."""
        owner, current = self.owner, self._responses.current
        if owner is None or not self.waits_for_answer or not owner.can("dialogue"):
            return
        finds_ends = owner.config["turn_detection"].kind not in ("client", "manual")
        if finds_ends and (current is None or current.trigger != "audio"):
            self._responses.owe("audio")

    def take_back(self, item_id: str) -> None:
        """Forget a text turn that did not reach the provider: its caller was told so."""
        self.unanswered_texts.pop(item_id, None)
        self._responses.request_failed()
        self._delete(item_id)

    def _delete(self, item_id: str) -> None:
        """Delete an item that no session knows."""
        listener, self._history.on_change = self._history.on_change, None
        try:
            if item_id in self._history:
                self._history.delete(item_id)
        finally:
            self._history.on_change = listener

    @property
    def speech_start(self) -> int | None:
        """Journal index at which the open or unanswered utterance began, as far as known."""
        return self._speech_start

    # -- what waits for an answer -----------------------------------------------------------------

    @property
    def has_open_turn(self) -> bool:
        """Whether the user said something aloud that no answer has come for."""
        if self.is_speaking or self.turn_end is not None:
            return True
        return self.journal is not None and self.journal.find_utterance() is not None

    def unanswered_items(self) -> list[str]:
        """Return the history items that a session which takes over gets as turns and not as history."""
        spoken = [*self._earlier, *([self._item] if self._item is not None else [])]
        return [*self.unanswered_texts, *spoken]

    @property
    def waits_for_answer(self) -> bool:
        """Whether a spoken turn is over and its answer may still come."""
        return self.turn_end is not None and not self._gave_up

    def open_turn_start(self) -> int:
        """Return the journal index from which a session that takes over must hear the user."""
        journal, owner = self.journal, self.owner
        assert journal is not None
        if owner is None:
            return journal.start  # Kept from an engine of before: nobody here has heard any of it.
        cursor = owner.sender.cursor if owner.sender is not None else journal.end
        if owner.config["turn_detection"].kind in ("client", "manual"):
            return journal.start
        start = self._speech_start if self.is_speaking or self.turn_end is not None else None
        if start is not None and self._waiting_from is not None:
            start = min(start, self._waiting_from)
        if start is None:
            start = journal.find_utterance()
        if start is None:
            start = journal.find_onset(cursor)
        return max(min(start, cursor), journal.start)

    def to_json(self) -> dict[str, Any]:
        """Return what :meth:`restore` takes: where the open turn stands, in journal indices and history items."""
        return {
            "is_speaking": self.is_speaking,
            "speech_start": self._speech_start,
            "waiting_from": self._waiting_from,
            "turn_end": self.turn_end,
            "gave_up": self._gave_up,
            "item": self._item,
            "earlier": list(self._earlier),
            "texts": {item_id: text for item_id, text in self._texts.items() if item_id == self._item},
            "unanswered_texts": dict(self.unanswered_texts),
        }

    def restore(self, value: Mapping[str, Any]) -> None:
        """Go on where another engine was; its journal and history are here already."""
        self.is_speaking = value["is_speaking"]
        self._speech_start, self._waiting_from = value["speech_start"], value["waiting_from"]
        self.turn_end, self._gave_up = value["turn_end"], value["gave_up"]
        self._item, self._earlier = value["item"], list(value["earlier"])
        self._texts, self.unanswered_texts = dict(value["texts"]), dict(value["unanswered_texts"])

    @property
    def n_unanswered(self) -> int:
        """How many samples of the user's audio are kept for an answer that has not come."""
        if self.journal is None:
            return 0
        return self.journal.end - self.journal.first_sound(self.open_turn_start())

    def answered(
        self, session: Session, trigger: str, covers: int | None = None, text_id: str | None = None
    ) -> None:
        """Note the first words or sound that are kept of a response: what it answers need not be sent again.

        Args:
            session: Whose response it is.
            trigger: What asked for it.
            covers: Journal index up to which it answers what was said; None: all that is complete.
            text_id: The text that it answers; None: not known.
        """
        if trigger == "tool" and self._responses.awaiting:  # What was asked later has an answer of its own.
            for item_id in self._called_texts:
                self.unanswered_texts.pop(item_id, None)
        elif trigger in ("text", "tool"):
            for item_id in self._texts_of(text_id):
                del self.unanswered_texts[item_id]
        self._called_texts &= self.unanswered_texts.keys()
        finds_ends = self.journal is not None and self.journal.vendor_decides
        if self.turn_end is None and (covers is not None or not finds_ends):
            return  # What came since the turn that it answers is none of it.
        if trigger in ("audio", "server", "inferred") or (trigger == "tool" and self.turn_end is not None):
            self._release(session, covers)

    def _texts_of(self, text_id: str | None) -> list[str]:
        """Return the texts that a response to one answers: those before it, which come to nothing else, as well.

        One that a tool was called for is answered by the result.
        """
        if not self._responses.awaiting:
            return list(self.unanswered_texts)
        waiting = [
            held for held in self.unanswered_texts if held == text_id or held not in self._called_texts
        ]
        if text_id is None:
            return waiting[:1]
        return waiting[: waiting.index(text_id) + 1] if text_id in waiting else []

    @property
    def speaks_on(self) -> bool:
        """Whether the user is speaking, and nobody has said that this turn is over."""
        if not self.is_speaking or self.turn_end is None:
            return self.is_speaking
        return self._speech_start is not None and self.turn_end < self._speech_start

    @property
    def is_heard_out(self) -> bool:
        """Whether everything that was said aloud belongs to a turn whose end is known."""
        end, start = self.turn_end, self._speech_start
        return not self.is_speaking and end is not None and (start is None or start < end)

    def close_utterance(self) -> None:
        """End the open utterance where its turn is known to be over and no session will say so any more."""
        if self.is_speaking and not self.speaks_on:
            assert self.turn_end is not None
            self.speech_ended(self.turn_end, "inferred")

    def called(self, trigger: str, covers: int | None, text_id: str | None = None) -> None:
        """Note that the agent calls a tool for what was said: asked again, it would call it again.

        Args:
            trigger: What asked for the response that calls.
            covers: Journal index up to which that one answers what was said; None: all that is complete.
            text_id: The text that it answers; None: not known.
        """
        if trigger == "text" or (trigger == "tool" and not self._responses.awaiting):
            self._called_texts.update(self._texts_of(text_id))
        if trigger in ("audio", "server", "inferred", "tool") and self.turn_end is not None:
            self._called_to = self.turn_end if covers is None else min(covers, self.turn_end)

    @property
    def called_texts(self) -> frozenset[str]:
        """Text turns without an answer that the agent has called a tool for."""
        return frozenset(self._called_texts & self.unanswered_texts.keys())

    @property
    def is_called(self) -> bool:
        """Whether the agent has called a tool for everything that was said aloud and waits for an answer."""
        called_to, end = self._called_to, self.turn_end
        return called_to is not None and end is not None and called_to >= end

    def let_go_of_called(self, *, takes_audio: bool) -> bool:
        """Leave to the history the turns that a tool was called for; return whether there were any.

        The answer is owed on the tool's result then. A spoken turn that has no transcript goes only where the next
        session takes audio in its history: else that has to hear it again.

        Args:
            takes_audio: Whether it does.
        """
        texts = [
            item_id for item_id in self._called_texts if self.unanswered_texts.pop(item_id, None) is not None
        ]
        called_to, self._called_to = self._called_to, None
        self._called_texts.clear()
        if called_to is None or self.turn_end is None or self.owner is None:
            return bool(texts)
        is_all = called_to >= self.turn_end
        spoken = self._item if is_all or not self._earlier else self._earlier[0]
        is_known = spoken is not None and spoken in self._history
        if spoken is None or not is_known or not (takes_audio or self._history.get(spoken).is_transcribed):
            return bool(texts)
        self._release(self.owner, called_to)
        return True

    def answer_is_whole(self, session: Session, trigger: str) -> None:
        """Note the end of an answer. One to speech whose end was never told tells it, where all is quiet."""
        journal = self.journal
        if trigger != "audio" or not self.is_speaking or self.turn_end is not None or journal is None:
            return
        if session is not self.owner or not journal.vendor_decides:
            return
        if journal.is_quiet(journal.end - journal.format.sample_rate // 2, journal.end):
            self.speech_ended(journal.end, "inferred")
            self._release(session)

    def not_answered(self) -> None:
        """Note a response that ended without anything: no other will come by itself."""
        self._gave_up = True

    def waive(self, session: Session) -> None:
        """Note that the application wants no answer to what was said so far."""
        self.unanswered_texts.clear()
        if self.turn_end is not None:
            self._release(session)

    def _release(self, session: Session, covers: int | None = None) -> None:
        journal = self.journal
        if journal is None or session.sender is None:
            return
        if self.turn_end is not None and covers is not None and covers < self.turn_end:
            self._release_earlier(min(covers, session.sender.cursor))
            return
        index = session.sender.cursor if self.turn_end is None else self.turn_end
        if self.is_speaking and self._speech_start is not None:
            index = min(index, self._speech_start)
        index = min(index, session.sender.cursor)  # What was not sent stays, whatever was answered.
        item_id = self._item
        if self.is_speaking and self._earlier:
            item_id = self._earlier.pop()  # The open utterance has an item of its own.
        else:
            self._item = None
        self._earlier.clear()
        if item_id is not None and item_id in self._history:
            first = max(self._speech_start or 0, journal.start)
            audio = journal.read(first, max(index - first, 0))
            if audio:
                self._history.set_user_audio(item_id, audio, journal.format)
            self._untold = None if self._history.get(item_id).is_transcribed else item_id
        journal.release(index)
        self.turn_end = self._waiting_from = None
        if not self.is_speaking:
            self._speech_start = None

    def _release_earlier(self, index: int) -> None:
        """Let go of turns that were answered while a later one, that has ended too, still waits."""
        assert self.journal is not None
        if self._earlier:
            del self._earlier[0]
        self.journal.release(index)
        self._waiting_from = self.journal.start

    # -- words ------------------------------------------------------------------------------------

    def transcript(self, session: Session, data: dict[str, Any]) -> None:
        """Take INPUT_TRANSCRIPT of a provider. One that may change and has no words yet only names its item."""
        item_id = self._item_for(session, data.get("item_id"))
        if item_id is None:
            return
        values = self._words(item_id, data)
        if values["is_partial"] and not values["text"]:
            return
        self._emit(EventType.INPUT_TRANSCRIPT, values, session)
        if not values["is_partial"] and not session.can("dialogue"):
            self._covered(session)

    def recognised(self, session: Session, data: dict[str, Any]) -> None:
        """File TEXT_OUTPUT of a recogniser as the user's words; it is delivered as written."""
        item_id = self._item_for(session, data.get("item_id"))
        if item_id is None:
            return
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
            self._untold = None if self._untold == item_id else self._untold
        if item_id in self._history:
            self._history.set_transcript(item_id, text, final=not is_partial)
        return {**data, "text": text, "delta": delta, "is_partial": is_partial, "item_id": item_id}

    def _covered(self, session: Session) -> None:
        """A recogniser's final words cover the audio so far; the next words are a new item."""
        self._earlier.clear()
        self._item = None
        if session.sender is not None:
            self._covered_to = session.sender.given
        self._release(session)
        self._floor("user", session)

    def _item_for(self, session: Session, vendor_id: str | None, *, is_new: bool = False) -> str | None:
        """Return the item that a provider's words belong to; None when they are another session's affair now.

        Args:
            session: Whose words they are.
            vendor_id: Its name for the item, if it gave one.
            is_new: An utterance begins, so that the words are none of an earlier one.
        """
        history, epoch = self._history, session.epoch
        known = history.resolve(vendor_id, epoch) if vendor_id is not None else None
        if session is not self.owner:
            # What it heard of the open turn is heard again by the session that owns the input.
            return known if known != self._item else None
        if known is not None:
            return known
        item_id = self._untold if self._item is None and not is_new else self._item
        if item_id is None or item_id not in history:
            item_id = self._ensure_item()
        elif vendor_id is not None and item_id == self._item:
            # A session that takes over hears the turns that wait again, in their order.
            nameless = [held for held in (*self._earlier, item_id) if history.vendor_id(held, epoch) is None]
            item_id = nameless[0] if nameless else self._next_item()
        elif vendor_id is not None and history.vendor_id(item_id, epoch) is not None:
            item_id = self._ensure_item()
        if vendor_id is not None:
            history.bind(vendor_id, item_id, epoch)
        return item_id

    def _next_item(self) -> str:
        assert self._item is not None
        self._earlier.append(self._item)
        self._item = None
        return self._ensure_item()

    def _ensure_item(self) -> str:
        if self._item is None or self._item not in self._history:
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
