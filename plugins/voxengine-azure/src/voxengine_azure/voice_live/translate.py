"""What only Voice Live says, as events of VoxEngine: word times, visemes, warnings, words of the user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from voxengine.events import EventType
from voxengine_openai.translate import Handlers, Translator

__all__ = ["VoiceLiveTranslator"]

_Fields = Mapping[str, Any]


class VoiceLiveTranslator(Translator):
    """The translator with the handlers of this service; what has no neutral form stays a VENDOR_EVENT."""

    def words_of(self, fields: _Fields) -> list[Mapping[str, Any]]:
        out: list[Mapping[str, Any]] = []
        for phrase in _tables(fields.get("phrases")):
            for word in _tables(phrase.get("words")):
                at_ms, length_ms = word.get("offset_milliseconds"), word.get("duration_milliseconds")
                if isinstance(at_ms, int) and isinstance(length_ms, int):
                    out.append(
                        {"word": str(word.get("text", "")), "at_ms": at_ms, "end_ms": at_ms + length_ms}
                    )
        return out

    def _word(self, fields: _Fields) -> None:
        mark: dict[str, Any] = {"kind": "word", "value": str(fields.get("text", ""))}
        at_ms, length_ms = fields.get("audio_offset_ms"), fields.get("audio_duration_ms")
        if isinstance(at_ms, int) and isinstance(length_ms, int):
            mark["end_ms"] = at_ms + length_ms
        self._mark(fields, mark)

    def _viseme(self, fields: _Fields) -> None:
        self._mark(fields, {"kind": "viseme", "value": str(fields.get("viseme_id"))})

    def _mark(self, fields: _Fields, mark: dict[str, Any]) -> None:
        place = self._open_item(fields)
        at_ms = fields.get("audio_offset_ms")
        if place is None or not isinstance(at_ms, int):
            return
        response, item = place
        self._emit(
            EventType.SPEECH_MARK, {**mark, "at_ms": at_ms, "response_id": response.id, "item_id": item.id}
        )

    def _updated(self, fields: _Fields) -> None:
        self._session_updated(fields)
        session = fields.get("session")
        if isinstance(session, Mapping) and session.get("avatar"):
            # Its servers are what the application needs to let the avatar's picture in.
            payload = {"avatar": session["avatar"]}
            self._emit(EventType.VENDOR_EVENT, {"name": "session.avatar", "payload": payload})

    def _warning(self, fields: _Fields) -> None:
        warning = fields.get("warning")
        held = warning if isinstance(warning, Mapping) else {}
        data = {"code": str(held.get("code") or "service_warning"), "message": str(held.get("message") or "")}
        if held.get("param") is not None:
            data["param"] = str(held["param"])
        data["message"] = self._host.scrub(data["message"])
        self._emit(EventType.WARNING, data)

    handlers: ClassVar[Handlers] = {
        **Translator.handlers,
        "response.audio_timestamp.delta": _word,
        "response.animation_viseme.delta": _viseme,
        "session.updated": _updated,
        "warning": _warning,
    }


def _tables(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []
