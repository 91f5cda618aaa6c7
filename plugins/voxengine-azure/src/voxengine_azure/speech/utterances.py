"""The user's utterances as the service tells them, as events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from voxengine.events import EventType
from voxengine_azure.speech.codec import to_ms
from voxengine_azure.speech.host import new_hex_id

__all__ = ["Utterances"]


class Utterances:
    """Makes speech and transcript events of hypotheses and phrases. Times are those of the session's input.

    Args:
        emit: Gets the events.
        language: What is spoken where the service does not say.
    """

    def __init__(self, emit: Callable[[EventType, Mapping[str, Any]], None], language: str) -> None:
        self._emit = emit
        self.language = language
        self._item_id = ""
        self._shown = ""
        self._is_stopped = False

    @property
    def is_open(self) -> bool:
        """Whether the user speaks, or spoke and the words are not final."""
        return bool(self._item_id)

    def begin(self, at_ms: int) -> None:
        """The user began to speak; nothing new while an utterance is open."""
        if self._item_id:
            return
        self._item_id, self._shown, self._is_stopped = new_hex_id(), "", False
        self._emit(EventType.SPEECH_STARTED, {"at_ms": at_ms, "source": "server", "item_id": self._item_id})

    def stop(self, at_ms: int) -> None:
        """The user stopped speaking."""
        if self._item_id and not self._is_stopped:
            self._is_stopped = True
            self._emit(EventType.SPEECH_ENDED, {"at_ms": at_ms, "source": "server", "item_id": self._item_id})

    def partial(self, at_ms: int, body: Mapping[str, Any]) -> None:
        """Tell what was understood so far."""
        self.begin(at_ms)
        self._tell(body["Text"], body, is_partial=True)

    def final(
        self, at_ms: int, end_ms: int, base_ms: int, body: Mapping[str, Any], *, is_heard: bool
    ) -> None:
        """Tell what was said, and close the utterance.

        Args:
            base_ms: Where the turn begins, from which the times of words count.
            is_heard: False when there were no words.
        """
        if not self._item_id and not is_heard:
            return
        self.begin(at_ms)
        self.stop(end_ms)
        best = _best(body) if is_heard else {}
        text = body.get("DisplayText") or best.get("Display") or "" if is_heard else ""
        more: dict[str, Any] = {"words": _words(best, base_ms)}
        for key, name in (("Confidence", "confidence"), ("Lexical", "lexical")):
            if key in best:
                more[name] = best[key]
        if best:
            more["n_best"] = body["NBest"]
        self._tell(str(text), body, is_partial=False, more=more)
        self._item_id = ""

    def drop(self, end_ms: int) -> None:
        """Close an open utterance of which no words will come."""
        if self._item_id:
            self.stop(end_ms)
            self._tell("", {}, is_partial=False)
            self._item_id = ""

    def _tell(
        self, text: str, body: Mapping[str, Any], *, is_partial: bool, more: Mapping[str, Any] | None = None
    ) -> None:
        # A text that takes back what was shown is new as a whole.
        delta = text[len(self._shown) :] if text.startswith(self._shown) else text
        self._shown = text
        data: dict[str, Any] = {
            "text": text,
            "delta": delta,
            "is_partial": is_partial,
            "item_id": self._item_id,
            "language": _language(body) or self.language,
            **(more or {}),
        }
        if isinstance(body.get("SpeakerId"), str):
            data["speaker_id"] = body["SpeakerId"]
        self._emit(EventType.INPUT_TRANSCRIPT, data)


def _language(body: Mapping[str, Any]) -> str:
    found = body.get("PrimaryLanguage")
    name = found.get("Language") if isinstance(found, Mapping) else None
    return name if isinstance(name, str) else ""


def _best(body: Mapping[str, Any]) -> Mapping[str, Any]:
    found = body.get("NBest")
    if isinstance(found, list) and found and isinstance(found[0], Mapping):
        return found[0]
    return {}


def _words(best: Mapping[str, Any], base_ms: int) -> list[dict[str, Any]] | None:
    """Return each word with its times in the session's input; None when the service gave none."""
    found = best.get("Words")
    if not isinstance(found, list):
        return None
    words = []
    for entry in found:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("Word"), str):
            continue
        at_ms = base_ms + to_ms(entry.get("Offset"))
        word = {"word": entry["Word"], "at_ms": at_ms, "end_ms": at_ms + to_ms(entry.get("Duration"))}
        if "Confidence" in entry:
            word["confidence"] = entry["Confidence"]
        words.append(word)
    return words
