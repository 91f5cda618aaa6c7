"""What the service says, as events of VoxEngine."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

import attrs

from voxengine.audio import g711
from voxengine.audio.format import AudioFormat, Encoding
from voxengine.errors import ErrorCode, ProviderError, RemoteProtocolError
from voxengine.events import EventType, LazyAudio
from voxengine_openai.asides import ASIDE_KEY, AsideCollector
from voxengine_openai.codec import audio_size
from voxengine_openai.faults import RACES, service_error
from voxengine_openai.messages import AudioDelta, RealtimeMessage
from voxengine_openai.output import Output, OutputItem, OutputResponse
from voxengine_openai.replies import Replies
from voxengine_openai.requests import RequestQueue, ToolRounds
from voxengine_openai.usage import UsageMeter, flaw_in

if TYPE_CHECKING:
    from voxengine_openai._json import TextDelta

__all__ = ["Handlers", "Host", "SessionState", "Translator"]

_Fields = Mapping[str, Any]
Handlers = Mapping[str, Callable[[Any, _Fields], None]]
"""By the names of messages, methods of a translator."""

# Names of this module: Python 3.11 looks a member of an enum up four times as slowly.
_AUDIO: Final = EventType.AUDIO_OUTPUT_CHUNK
_TEXT: Final = EventType.TEXT_OUTPUT


class Host(Protocol):
    """The provider, as the translator sees it. Called on the loop, in the order of the messages."""

    def emit_now(self, event_type: EventType, data: dict[str, Any]) -> None:
        """Deliver an event; ``data`` is given away."""

    def session_created(self, session: _Fields) -> None:
        """The service opened the session."""

    def session_updated(self, session: _Fields) -> None:
        """The session's settings are these now."""

    def opening_failed(self, error: ProviderError) -> bool:
        """Take an error that ends ``connect``; False when the session is open."""

    def cancel_response(self, response_id: str) -> None:
        """Stop a response."""

    def input_committed(self) -> bool:
        """The service closed the user's turn; return whether it was asked to."""

    def retry_request(self, after_s: float = ...) -> None:
        """A request crossed a response of which nothing is known here, or waits for one: try it again soon."""

    def scrub(self, text: str) -> str:
        """Return a text of the service without our secrets."""


@attrs.define(kw_only=True, eq=False)
class SessionState:
    """What both directions of a session know. Loop thread only."""

    name: str
    """The provider's name, for errors."""
    queue: RequestQueue
    output_format: AudioFormat
    model: str = ""
    transcription_model: str = ""
    has_prices: bool = True
    """Whether the price table is that of the service."""
    vendor_interrupts: bool = False
    """Whether the user's voice makes the service stop a response."""
    is_expired: bool = False
    """Whether the service said that the session's time is over."""
    is_dialogue: bool = True
    """Whether there is a model that answers."""
    calls: dict[str, str] = attrs.field(factory=dict)
    """What the service calls the items of its calls, by the ids of the calls."""
    results: dict[str, str] = attrs.field(factory=dict)
    """What it calls the items of our results, by the same."""
    raw_asides: int = 0
    """Responses outside of the conversation that the application asked for with an event of its own."""
    replies: Replies = attrs.field(factory=Replies)
    rounds: ToolRounds = attrs.field(factory=ToolRounds)
    meter: UsageMeter = attrs.field(factory=UsageMeter)
    output: Output = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.output = Output(self.output_format.bytes_per_s)

    @property
    def cost(self) -> float | None:
        """The price so far in US dollars; None when it is unknown."""
        return self.meter.cost(self.model if self.is_dialogue else None) if self.has_prices else None


def _text(fields: _Fields, name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def _table(fields: _Fields, name: str) -> Mapping[str, Any]:
    value = fields.get(name)
    return value if isinstance(value, Mapping) else {}


def _index(fields: _Fields) -> int:
    value = fields.get("content_index")
    return value if isinstance(value, int) else 0


def _taken(name: str) -> Callable[[Any, _Fields], None]:
    def take(translator: Translator, fields: _Fields) -> None:
        translator._item_taken(name, fields)

    return take


class Translator:
    """Turns messages into events, and answers to requests into what waits for them."""

    def __init__(self, host: Host, state: SessionState) -> None:
        # Here and not above: an import of the provider's class must not load pybase64.
        from voxengine_openai._json import from_base64

        self._host = host
        self._state = state
        self._from_base64 = from_base64
        self._output = state.output
        self._emit = host.emit_now
        self._asides: dict[str, AsideCollector] = {}
        self._user_texts: dict[str, str] = {}
        self._is_garbled = False
        self._is_miscounted = False
        self._decode = self._to_pcm
        self._rate = state.output_format.sample_rate
        self._widen = 1 if state.output_format.encoding is Encoding.PCM16 else 2

    # -- what a variant of the service changes ------------------------------------------------------

    def words_of(self, fields: _Fields) -> list[Mapping[str, Any]]:
        """Return the words of a finished transcript with their times, where the service gives them."""
        return []

    # -- messages -----------------------------------------------------------------------------------

    def message(self, message: RealtimeMessage) -> None:
        """Take any message but audio. What has no neutral form becomes a VENDOR_EVENT."""
        handler = self.handlers.get(message.name)
        if handler is not None:
            handler(self, message.fields)
        else:
            self._pass_on(message.name, message.fields)

    def _pass_on(self, name: str, fields: _Fields) -> None:
        self._emit(EventType.VENDOR_EVENT, {"name": name, "payload": fields})

    # -- audio ------------------------------------------------------------------------------------

    def audio(self, message: AudioDelta) -> None:
        """Take a piece of the agent's audio; it stays encoded until somebody asks for it."""
        response = self._output.responses.get(message.response_id) or self._response(message.response_id)
        delta = message.delta
        if not delta or response.is_refused or response.is_ended:
            return
        if response.is_aside:
            self._asides[response.id].audio(self._to_pcm(delta))
            return
        output = self._output
        item = output.items.get(message.item_id) or output.item(message.item_id, response.id)
        if len(delta) & 3:  # Surely no base64, and perhaps too short for anybody to decode it.
            self._garbled()
        n_bytes = audio_size(delta)
        item.n_audio_bytes += n_bytes
        item.audio_index = message.content_index
        output.has_audio = True
        self._emit(
            _AUDIO,
            {
                "audio_data": LazyAudio(delta, self._decode, n_bytes * self._widen),
                "sample_rate": self._rate,
                "channels": 1,
                "response_id": response.id,
                "item_id": item.id,
            },
        )

    def _to_pcm(self, encoded: str) -> bytes:
        """Decode audio; silence of the same length stands for what cannot be decoded."""
        try:
            data = self._from_base64(encoded)
        except ValueError:
            self._garbled()
            return bytes(audio_size(encoded) * self._widen)
        if self._widen == 1:
            return data
        return g711.decode(data, self._state.output_format.encoding)

    def _garbled(self) -> None:
        if not self._is_garbled:
            self._is_garbled = True
            self.fault("audio that is no base64; silence stands for it, and it is reported once")

    def _usage_of(self, fields: _Fields) -> _Fields:
        """Return the ``usage`` in a message, empty for none."""
        flaw = flaw_in(fields.get("usage"))
        if flaw and not self._is_miscounted:
            self._is_miscounted = True
            self.fault(
                f"a count that cannot be read ({flaw}); it is left out of the usage, and it is reported once"
            )
        return _table(fields, "usage")

    def fault(self, what: str) -> None:
        """Report, without ending anything, that the service sent something that cannot be understood."""
        error = RemoteProtocolError(
            f"{self._state.name} sent {what}. The session goes on.",
            provider=self._state.name,
            recoverable=True,
        )
        self._emit(EventType.ERROR_GENERAL, {"error": error, "recoverable": True})

    # -- the session ------------------------------------------------------------------------------

    def _session_created(self, fields: _Fields) -> None:
        self._host.session_created(_table(fields, "session"))

    def _session_updated(self, fields: _Fields) -> None:
        session = _table(fields, "session")
        self._host.session_updated(session)
        self._state.replies.updated(session)

    def _rate_limits(self, fields: _Fields) -> None:
        self._emit(EventType.RATE_LIMITS, {"limits": fields.get("rate_limits")})

    # -- the user's side --------------------------------------------------------------------------

    def _item_taken(self, name: str, fields: _Fields) -> None:
        self._state.replies.item_taken(_table(fields, "item").get("id"))
        self._pass_on(name, fields)

    def _item_deleted(self, fields: _Fields) -> None:
        self._state.replies.item_deleted(_text(fields, "item_id"))
        self._pass_on("conversation.item.deleted", fields)

    def _user_delta(self, fields: _Fields) -> None:
        item_id, delta = _text(fields, "item_id"), _text(fields, "delta")
        text = self._user_texts.get(item_id, "") + delta
        self._user_texts[item_id] = text
        data = {"text": text, "delta": delta, "is_partial": True, "item_id": item_id}
        if fields.get("logprobs"):
            data["logprobs"] = fields["logprobs"]
        self._emit(EventType.INPUT_TRANSCRIPT, data)

    def _user_done(self, fields: _Fields) -> None:
        item_id, text = _text(fields, "item_id"), _text(fields, "transcript")
        before = self._user_texts.pop(item_id, "")
        usage = self._usage_of(fields)
        if usage:
            self._state.meter.add_transcription(usage, self._state.transcription_model)
            self._usage_updated()
        data: dict[str, Any] = {
            "text": text,
            "delta": text[len(before) :] if text.startswith(before) else "",
            "is_partial": False,
            "item_id": item_id,
        }
        languages = fields.get("languages")
        if isinstance(languages, list) and languages and isinstance(languages[0], Mapping):
            data["language"] = languages[0].get("code")
        if fields.get("logprobs"):
            data["logprobs"] = fields["logprobs"]
        words = self.words_of(fields)
        if words:
            data["words"] = words
        self._emit(EventType.INPUT_TRANSCRIPT, data)

    def _user_failed(self, fields: _Fields) -> None:
        self._user_texts.pop(_text(fields, "item_id"), None)
        error = service_error(
            _table(fields, "error"),
            provider=self._state.name,
            doing="to transcribe the user's speech",
            scrub=self._host.scrub,
        )
        item_id = fields.get("item_id")
        self._emit(
            EventType.WARNING, {"code": "transcription_failed", "message": str(error), "item_id": item_id}
        )

    def _committed(self, fields: _Fields) -> None:
        if self._host.input_committed() and "item_id" in fields:  # Nothing else has named the item so far.
            data = {"text": "", "delta": "", "is_partial": True, "item_id": fields["item_id"]}
            self._emit(EventType.INPUT_TRANSCRIPT, data)
        self._pass_on("input_audio_buffer.committed", fields)

    def _speech_started(self, fields: _Fields) -> None:
        active = self._state.queue.active
        if active is not None and self._state.vendor_interrupts:
            active.is_ending = True
        data = {"at_ms": fields.get("audio_start_ms"), "source": "server", "item_id": fields.get("item_id")}
        self._emit(EventType.SPEECH_STARTED, data)

    def _speech_stopped(self, fields: _Fields) -> None:
        data = {"at_ms": fields.get("audio_end_ms"), "source": "server", "item_id": fields.get("item_id")}
        self._emit(EventType.SPEECH_ENDED, data)

    # -- responses --------------------------------------------------------------------------------

    def _response(self, response_id: str) -> OutputResponse:
        """Return a response; one that was not announced begins here."""
        held = self._output.responses.get(response_id)
        if held is None:
            held = self._output.open(response_id)
            self._started(held)
        return held

    def _response_created(self, fields: _Fields) -> None:
        response = _table(fields, "response")
        response_id = _text(response, "id")
        if response_id in self._output.responses:
            return
        held = self._output.open(response_id)
        key = _text(_table(response, "metadata"), ASIDE_KEY)
        is_raw = not key and self._state.raw_asides > 0 and response.get("conversation_id", "") is None
        if key or is_raw:
            self._state.raw_asides -= is_raw
            held.is_aside, held.aside_key = True, key
            self._asides[response_id] = AsideCollector(response_id, key)
            self._pass_on("response.created", fields)
        else:
            self._started(held)

    def _started(self, response: OutputResponse) -> None:
        active = self._state.queue.started(response.id)
        data: dict[str, Any] = {"response_id": response.id}
        if active.is_owed:
            data["trigger"] = "audio"
        if active.request is not None:
            data["trigger"] = active.request.trigger
            if active.request.is_cancelled:
                response.is_refused = True
                self._host.cancel_response(response.id)
        self._emit(EventType.RESPONSE_STARTED, data)

    def _response_done(self, fields: _Fields) -> None:
        wire = _table(fields, "response")
        response = self._response(_text(wire, "id"))
        if response.is_ended:
            return
        usage = self._usage_of(wire)
        if usage:
            self._state.meter.add_response(usage)
            self._usage_updated()
        collector = self._asides.pop(response.id, None)
        if collector is not None:
            response.is_ended = True
            self._pass_on("response.done", fields)
            self._state.replies.aside_ended(collector.key, collector.finish(wire))
            return
        for item in wire.get("output") or ():
            if isinstance(item, Mapping):
                self._call_of(response, item)
        response.is_ended = True
        self._end(response, wire, usage)
        if self._state.rounds.response_ended(response.id):
            self._state.queue.ask("tool")
        wait_s = self._state.queue.ended(response.id)
        if wait_s:
            self._host.retry_request(wait_s)

    def _end(self, response: OutputResponse, wire: _Fields, usage: _Fields) -> None:
        status, details = _text(wire, "status") or "completed", _table(wire, "status_details")
        reason = _text(details, "reason")
        data: dict[str, Any] = {"response_id": response.id, "status": status, "usage": usage or None}
        if status == "cancelled":
            data |= {
                "reason": reason or "cancelled",
                "heard_ms": response.heard_ms,
                "heard_text": response.heard_text,
                "heard_is_estimated": None if response.heard_text is None else True,
            }
            known = {name: value for name, value in data.items() if value is not None}
            self._emit(EventType.RESPONSE_CANCELLED, known)
            return
        error: _Fields = {}
        if status == "failed":
            error = _table(details, "error") or {"type": "server_error"}
        elif reason == "content_filter":
            error = {"code": "content_filter", "message": "the answer was stopped"}
        if error:
            failure = service_error(
                error, provider=self._state.name, doing="a response", scrub=self._host.scrub
            )
            event = {"error": failure, "recoverable": failure.recoverable, "response_id": response.id}
            self._emit(EventType.ERROR_GENERAL, event)
        if reason:
            data["reason"] = reason
        self._emit(EventType.RESPONSE_COMPLETED, data)

    def _usage_updated(self) -> None:
        data: dict[str, Any] = {"usage": self._state.meter.to_dict()}
        cost = self._state.cost
        if cost is not None:
            data["cost"] = cost
        self._emit(EventType.USAGE_UPDATED, data)

    # -- text -------------------------------------------------------------------------------------

    def _open_item(self, fields: _Fields) -> tuple[OutputResponse, OutputItem] | None:
        """Return where an output belongs; None when nobody is to hear of it."""
        response = self._response(_text(fields, "response_id"))
        if response.is_refused or response.is_ended or response.is_aside:
            return None
        return response, self._output.item(_text(fields, "item_id"), response.id)

    def text(self, message: TextDelta) -> None:
        """Take some of the agent's words."""
        output, delta, index = self._output, message.delta, message.content_index
        response, item = output.responses.get(message.response_id), output.items.get(message.item_id)
        if response is None or item is None or response.is_refused or response.is_ended or response.is_aside:
            ids = {"response_id": message.response_id, "item_id": message.item_id}
            self._text_delta({**ids, "delta": delta, "content_index": index})
            return
        # The short way for what is known; it comes with every word.
        parts = item.parts
        parts[index] = parts.get(index, "") + delta
        if delta:
            self._say(item, delta, is_partial=True)

    def _text_delta(self, fields: _Fields) -> None:
        delta, index = _text(fields, "delta"), _index(fields)
        place = self._open_item(fields)
        if place is None:
            self._aside_text(fields, index, delta=delta)
            return
        item = place[1]
        item.parts[index] = item.parts.get(index, "") + delta
        if delta:
            self._say(item, delta, is_partial=True)

    def _text_done(self, fields: _Fields) -> None:
        index = _index(fields)
        text = _text(fields, "text") or _text(fields, "transcript")
        place = self._open_item(fields)
        if place is None:
            self._aside_text(fields, index, text=text)
            return
        item = place[1]
        before = item.parts.get(index, "")
        item.parts[index] = text
        self._say(item, text[len(before) :] if text.startswith(before) else "", is_partial=False)

    def _say(self, item: OutputItem, delta: str, *, is_partial: bool) -> None:
        self._emit(
            _TEXT,
            {
                "text": item.text,
                "delta": delta,
                "is_partial": is_partial,
                "response_id": item.response_id,
                "item_id": item.id,
            },
        )

    def _aside_text(self, fields: _Fields, index: int, *, delta: str = "", text: str = "") -> None:
        collector = self._asides.get(_text(fields, "response_id"))
        if collector is not None:
            item_id = _text(fields, "item_id")
            collector.text(item_id, index, text or collector.text_of(item_id, index) + delta)

    # -- tools ------------------------------------------------------------------------------------

    def _output_item_added(self, fields: _Fields) -> None:
        item = _table(fields, "item")
        if item.get("type") == "function_call" and isinstance(item.get("name"), str):
            response_id = _text(fields, "response_id")
            self._output.item(_text(item, "id"), response_id).tool_name = item["name"]
        self._pass_on("response.output_item.added", fields)

    def _output_item_done(self, fields: _Fields) -> None:
        self._call_of(self._response(_text(fields, "response_id")), _table(fields, "item"))
        self._pass_on("response.output_item.done", fields)

    def _arguments_done(self, fields: _Fields) -> None:
        item = self._output.items.get(_text(fields, "item_id"))
        name = _text(fields, "name") or (item.tool_name if item is not None else "")
        if name:  # Else the finished item names it.
            self._call(self._response(_text(fields, "response_id")), {**fields, "name": name})

    def _call_of(self, response: OutputResponse, item: _Fields) -> None:
        """Take a finished item; some endpoints tell of a call in no other way."""
        if item.get("type") == "function_call" and item.get("status", "completed") == "completed":
            self._call(response, {**item, "item_id": item.get("id")})

    def _call(self, response: OutputResponse, fields: _Fields) -> None:
        call_id, name = _text(fields, "call_id"), _text(fields, "name")
        if response.is_refused or response.is_aside or response.is_ended or not call_id or not name:
            return
        if not self._state.rounds.call(response.id, call_id):
            return
        self._state.calls[call_id] = _text(fields, "item_id")
        arguments = _text(fields, "arguments")
        data = {
            "name": name,
            "call_id": call_id,
            "arguments": _arguments(arguments),
            "response_id": response.id,
            "item_id": fields.get("item_id"),
        }
        self._emit(EventType.FUNCTION_CALL_INVOKED, data)

    # -- errors -----------------------------------------------------------------------------------

    def _error(self, fields: _Fields) -> None:
        wire = _table(fields, "error")
        state = self._state
        event_id, code = wire.get("event_id"), wire.get("code")
        name = state.replies.name_of(event_id)
        if code in RACES:
            is_again = isinstance(event_id, str) and state.queue.refused(event_id, is_race=True)
            if is_again and state.queue.active is None:
                self._host.retry_request()
            self._pass_on("error", fields)
            return
        if code == "session_expired":
            state.is_expired = True  # The close that follows is the one ending of the session.
            self._emit(EventType.SESSION_EXPIRING, {"deadline_s": 0.0, "reason": "session_expired"})
            return
        error = service_error(
            wire, provider=state.name, doing=name or "what it was sent", scrub=self._host.scrub
        )
        if state.replies.refused(event_id, error) or self._host.opening_failed(error):
            return
        if name == "conversation.item.truncate":
            # Everything that counts has happened: the output is silent, and the history knows what was heard.
            self._emit(EventType.WARNING, {"code": "truncation_refused", "message": str(error)})
            return
        if isinstance(event_id, str):
            state.queue.refused(event_id, is_race=False)
        data = {
            "error": error,
            "recoverable": error.recoverable or error.code is ErrorCode.INVALID_REQUEST,
            "event_id": event_id,
            "event": name,
            "param": wire.get("param"),
        }
        self._emit(EventType.ERROR_GENERAL, {key: value for key, value in data.items() if value is not None})

    # -- what is done with which message: one table for all sessions ----------------------------------

    handlers: ClassVar[Handlers] = {
        "session.created": _session_created,
        "session.updated": _session_updated,
        "conversation.item.added": _taken("conversation.item.added"),
        "conversation.item.created": _taken("conversation.item.created"),
        "conversation.item.done": _taken("conversation.item.done"),
        "conversation.item.deleted": _item_deleted,
        "conversation.item.input_audio_transcription.delta": _user_delta,
        "conversation.item.input_audio_transcription.completed": _user_done,
        "conversation.item.input_audio_transcription.failed": _user_failed,
        "input_audio_buffer.committed": _committed,
        "input_audio_buffer.speech_started": _speech_started,
        "input_audio_buffer.speech_stopped": _speech_stopped,
        "response.created": _response_created,
        "response.done": _response_done,
        "response.output_item.added": _output_item_added,
        "response.output_item.done": _output_item_done,
        "response.output_text.delta": _text_delta,
        "response.output_audio_transcript.delta": _text_delta,
        "response.output_text.done": _text_done,
        "response.output_audio_transcript.done": _text_done,
        "response.function_call_arguments.done": _arguments_done,
        "rate_limits.updated": _rate_limits,
        "error": _error,
    }
    """A variant of the service has more of them, or others."""


def _arguments(text: str) -> Mapping[str, Any] | str:
    """Return decoded arguments; what is no JSON object goes on as it is, for the tool's runner to refuse."""
    if not text.strip():
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict) else text
