"""The mock's own protocol: JSON text messages, one object each, named by its ``type``.

One class per message. The client sends commands (:data:`COMMANDS`), the server sends events
(:data:`EVENTS`). Audio travels as base64 and stays so in :class:`AudioDelta` until somebody asks for it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from voxengine.codec import NewId, Role, VendorMessage, Wire

__all__ = [
    "COMMANDS",
    "EVENTS",
    "AddItems",
    "AudioDelta",
    "Bye",
    "Cancel",
    "Configure",
    "Discard",
    "EndTurn",
    "Error",
    "Hello",
    "InputAudio",
    "InputText",
    "Message",
    "MockCodec",
    "ProtocolFault",
    "RateLimits",
    "Ready",
    "ResponseCancelled",
    "ResponseDone",
    "ResponseStarted",
    "SessionExpiring",
    "SettingsChanged",
    "Speak",
    "SpeechEnded",
    "SpeechStarted",
    "TextDelta",
    "TextDone",
    "ToolCall",
    "ToolResult",
    "Transcript",
    "Truncated",
    "Usage",
    "Warn",
    "WordMark",
    "field_names",
    "name_of",
]

_BASE64: Final = re.compile(r"[A-Za-z0-9+/]*={0,2}", re.ASCII)


def _field(kinds: tuple[type, ...], takes: str, **options: Any) -> Any:
    def check(_: object, field: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            # The value stays out of the sentence: it can be what somebody said.
            raise TypeError(f"{field.name} is {type(value).__name__}, it takes {takes}")

    return attrs.field(validator=check, **options)


def _text(**options: Any) -> Any:
    return _field((str,), "a string", **options)


def _flag(**options: Any) -> Any:
    return _field((bool,), "true or false", **options)


def _ms(**options: Any) -> Any:
    return _field((int,), "whole milliseconds", **options)


def _ms_or_none(**options: Any) -> Any:
    return _field((int, type(None)), "whole milliseconds or null", **options)


def _number_or_none(**options: Any) -> Any:
    return _field((int, float, type(None)), "a number or null", **options)


def _object(**options: Any) -> Any:
    return _field((dict,), "an object", **options)


def _objects(**options: Any) -> Any:
    def check(_: object, field: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise TypeError(f"{field.name} takes a list of objects")

    return attrs.field(validator=check, **options)


@attrs.frozen(kw_only=True)
class Message:
    """Base of every message."""

    extra: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    """Fields that this version does not know. They survive both directions."""


# -- commands: client to server -----------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Hello(Message):
    """The first message: opens the session with these settings. Answered by :class:`Ready`."""

    settings: dict[str, Any] = _object(factory=dict)


@attrs.frozen(kw_only=True)
class Configure(Message):
    """Changes the named settings. Answered by :class:`SettingsChanged`."""

    settings: dict[str, Any] = _object(factory=dict)


@attrs.frozen(kw_only=True)
class InputAudio(Message):
    """User audio, PCM16 mono in the session's input rate, whole samples."""

    audio: bytes = _field((bytes,), "bytes", repr=False)


@attrs.frozen(kw_only=True)
class EndTurn(Message):
    """Closes the user's turn."""

    respond: bool = _flag(default=True)


@attrs.frozen(kw_only=True)
class Discard(Message):
    """Forgets the audio of the open turn."""


@attrs.frozen(kw_only=True)
class InputText(Message):
    """A complete user turn as text; asks for an answer."""

    text: str = _text(repr=False)
    item_id: str = _text(default="")


@attrs.frozen(kw_only=True)
class Cancel(Message):
    """Stops a response and cuts an item at what was played of it."""

    response_id: str = _text(default="")
    """The response to stop, where it is not over; empty: the one under way."""
    item_id: str = _text(default="")
    """The item to cut; empty: the one being spoken."""
    played_ms: int | None = _ms_or_none(default=None)


@attrs.frozen(kw_only=True)
class ToolResult(Message):
    """The result of one tool call."""

    call_id: str = _text()
    output: str = _text(repr=False)
    is_error: bool = _flag(default=False)


@attrs.frozen(kw_only=True)
class AddItems(Message):
    """Earlier turns, oldest first. Each is an object with ``id``, ``kind`` and ``text``; tools also have
    ``name``, ``call_id`` and ``arguments``.
    """

    items: list[dict[str, Any]] = _objects(factory=list, repr=False)


@attrs.frozen(kw_only=True)
class Speak(Message):
    """Text to say as the agent; more of the same utterance follows unless ``is_last``."""

    text: str = _text(repr=False)
    is_last: bool = _flag(default=True)


@attrs.frozen(kw_only=True)
class Bye(Message):
    """The client is about to close."""


# -- events: server to client -------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Ready(Message):
    """The session is open, with these settings in force."""

    session_id: str = _text()
    settings: dict[str, Any] = _object(factory=dict)


@attrs.frozen(kw_only=True)
class SettingsChanged(Message):
    """The settings in force."""

    settings: dict[str, Any] = _object(factory=dict)


@attrs.frozen(kw_only=True)
class SpeechStarted(Message):
    """The user began to speak; ``at_ms`` counts the session's input audio."""

    at_ms: int = _ms()
    item_id: str = _text()


@attrs.frozen(kw_only=True)
class SpeechEnded(Message):
    """The user stopped speaking; ``at_ms`` is where the speech ended, before the silence that proves it."""

    at_ms: int = _ms()
    item_id: str = _text()


@attrs.frozen(kw_only=True)
class Transcript(Message):
    """What the user said: ``text`` is all of it so far, ``delta`` what is new."""

    item_id: str = _text()
    text: str = _text(repr=False)
    delta: str = _text(default="", repr=False)
    is_partial: bool = _flag(default=False)
    words: list[dict[str, Any]] = _objects(factory=list, repr=False)
    """With a final text: ``word``, ``at_ms`` and ``end_ms`` of each, in the session's input audio."""


@attrs.frozen(kw_only=True)
class ResponseStarted(Message):
    """A response begins. It ends with exactly one ResponseDone or ResponseCancelled."""

    response_id: str = _text()
    trigger: str = _text()
    """``text``, ``audio``, ``tool`` or ``say``."""


@attrs.frozen(kw_only=True)
class TextDelta(Message):
    """The next piece of what is being said, sent before its audio."""

    response_id: str = _text()
    item_id: str = _text()
    delta: str = _text(repr=False)


@attrs.frozen(kw_only=True)
class TextDone(Message):
    """All of what was said, after its last audio."""

    response_id: str = _text()
    item_id: str = _text()
    text: str = _text(repr=False)


@attrs.frozen(kw_only=True)
class WordMark(Message):
    """A word begins at ``at_ms`` of the item's audio."""

    response_id: str = _text()
    item_id: str = _text()
    word: str = _text(repr=False)
    at_ms: int = _ms()


@attrs.frozen(kw_only=True)
class AudioDelta(Message):
    """Audio of an item, PCM16 mono in the session's output rate, as base64 text."""

    response_id: str = _text()
    item_id: str = _text()
    audio: str = attrs.field(repr=False)

    @audio.validator
    def _check_audio(self, _: attrs.Attribute[Any], value: object) -> None:
        # The bytes are decoded later, so what could fail then is refused now.
        if not isinstance(value, str) or len(value) % 4 or not _BASE64.fullmatch(value):
            raise TypeError("audio takes base64 text")
        if (len(value) // 4 * 3 - value.count("=")) % 2:
            raise TypeError("audio takes whole 16-bit samples")

    @classmethod
    def of(cls, response_id: str, item_id: str, pcm: bytes) -> AudioDelta:
        """Make the message for PCM16 bytes."""
        return cls(response_id=response_id, item_id=item_id, audio=base64.b64encode(pcm).decode("ascii"))


@attrs.frozen(kw_only=True)
class ToolCall(Message):
    """The agent calls a function of the client. Its response ends; the result asks for the next one."""

    response_id: str = _text()
    call_id: str = _text()
    name: str = _text()
    arguments: str = _text(default="{}", repr=False)
    """A JSON object as text."""


@attrs.frozen(kw_only=True)
class ResponseDone(Message):
    """The response is complete."""

    response_id: str = _text()
    status: str = _text(default="completed")
    """``completed`` or ``incomplete``."""
    usage: dict[str, Any] = _object(factory=dict)


@attrs.frozen(kw_only=True)
class ResponseCancelled(Message):
    """The response was cut short; what was heard is known when the client said how much it played."""

    response_id: str = _text()
    item_id: str = _text(default="")
    reason: str = _text(default="interrupted")
    heard_ms: int | None = _ms_or_none(default=None)
    heard_text: str | None = _field((str, type(None)), "a string or null", default=None, repr=False)


@attrs.frozen(kw_only=True)
class Truncated(Message):
    """An item whose response had already ended was cut at what was heard."""

    item_id: str = _text()
    heard_ms: int = _ms()
    heard_text: str = _text(repr=False)


@attrs.frozen(kw_only=True)
class Usage(Message):
    """What the session used so far, and its price in US dollars."""

    usage: dict[str, Any] = _object(factory=dict)
    cost: float | None = _number_or_none(default=None)


@attrs.frozen(kw_only=True)
class RateLimits(Message):
    """What the service still allows."""

    limits: dict[str, Any] = _object(factory=dict)


@attrs.frozen(kw_only=True)
class SessionExpiring(Message):
    """The server will end the session."""

    deadline_s: float = _field((int, float), "seconds")
    reason: str = _text(default="")


@attrs.frozen(kw_only=True)
class Warn(Message):
    """Something the client should know that stops nothing."""

    code: str = _text()
    message: str = _text()


@attrs.frozen(kw_only=True)
class Error(Message):
    """Something failed. ``code`` is one of :class:`voxengine.errors.ErrorCode`."""

    code: str = _text()
    message: str = _text()
    recoverable: bool = _flag(default=True)
    retry_after_s: float | None = _number_or_none(default=None)


@attrs.frozen
class ProtocolFault:
    """What ``decode`` returns for a message that breaks the protocol. Holds no content of it."""

    reason: str


_TYPES: Final[dict[str, type[Message]]] = {
    "hello": Hello,
    "configure": Configure,
    "input_audio": InputAudio,
    "end_turn": EndTurn,
    "discard": Discard,
    "input_text": InputText,
    "cancel": Cancel,
    "tool_result": ToolResult,
    "add_items": AddItems,
    "speak": Speak,
    "bye": Bye,
    "ready": Ready,
    "settings_changed": SettingsChanged,
    "speech_started": SpeechStarted,
    "speech_ended": SpeechEnded,
    "transcript": Transcript,
    "response_started": ResponseStarted,
    "text_delta": TextDelta,
    "text_done": TextDone,
    "word_mark": WordMark,
    "audio_delta": AudioDelta,
    "tool_call": ToolCall,
    "response_done": ResponseDone,
    "response_cancelled": ResponseCancelled,
    "truncated": Truncated,
    "usage": Usage,
    "rate_limits": RateLimits,
    "session_expiring": SessionExpiring,
    "warning": Warn,
    "error": Error,
}
_COMMAND_NAMES: Final = tuple(_TYPES)[: tuple(_TYPES).index("ready")]

COMMANDS: Final[dict[str, type[Message]]] = {name: _TYPES[name] for name in _COMMAND_NAMES}
"""What the client sends, by ``type``."""
EVENTS: Final[dict[str, type[Message]]] = {name: cls for name, cls in _TYPES.items() if name not in COMMANDS}
"""What the server sends, by ``type``."""

_NAMES: Final = {cls: name for name, cls in _TYPES.items()}
_FIELDS: Final = {
    cls: tuple(field.name for field in attrs.fields(cls) if field.name != "extra") for cls in _NAMES
}
_REQUIRED: Final = {
    cls: tuple(field.name for field in attrs.fields(cls) if field.default is attrs.NOTHING) for cls in _NAMES
}


def field_names(cls: type[Message]) -> tuple[str, ...]:
    """Return the names of a message's own fields, without ``extra``."""
    return _FIELDS[cls]


def name_of(message: Message) -> str:
    """Return the ``type`` under which a message travels."""
    return _NAMES[type(message)]


class MockCodec:
    """Both ends of the protocol (see :mod:`voxengine.codec`).

    Args:
        role: The end that this object speaks for: it encodes that end's messages and decodes the other's.
        new_id: Makes identifiers; kept as ``new_id`` for whoever builds the messages.
    """

    def __init__(self, role: Role, new_id: NewId) -> None:
        self.role = role
        self.new_id: Callable[[str], str] = new_id
        self._incoming = EVENTS if role is Role.CLIENT else COMMANDS

    def encode(self, item: Message | VendorMessage) -> Sequence[Wire]:
        """Return the messages that say ``item``, in order."""
        if isinstance(item, VendorMessage):
            payload = item.payload if isinstance(item.payload, dict) else {"payload": item.payload}
            return [json.dumps({**payload, "type": item.name})]
        if type(item) is InputAudio and not item.extra:  # The hot message: no dictionary, no JSON encoder.
            return [f'{{"type": "input_audio", "audio": "{base64.b64encode(item.audio).decode("ascii")}"}}']
        cls = type(item)
        values: dict[str, Any] = {**item.extra, "type": _NAMES[cls]}
        for name in _FIELDS[cls]:
            values[name] = getattr(item, name)
        if isinstance(item, InputAudio):
            values["audio"] = base64.b64encode(item.audio).decode("ascii")
        return [json.dumps(values)]

    def decode(self, wire: Wire, now: float) -> Sequence[Message | VendorMessage | ProtocolFault]:
        """Return what one received message says. Never raises."""
        try:
            content = json.loads(wire)
        except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError.
            return [ProtocolFault("a message is not JSON")]
        if not isinstance(content, dict):
            return [ProtocolFault("a message is not a JSON object")]
        name = content.pop("type", None)
        if not isinstance(name, str):
            return [ProtocolFault("a message has no type")]
        cls = self._incoming.get(name)
        if cls is None:
            return [VendorMessage(name, content)]
        return [_build(cls, name, content)]


def _build(cls: type[Message], name: str, content: dict[str, Any]) -> Message | ProtocolFault:
    for field in _REQUIRED[cls]:
        if field not in content:
            return ProtocolFault(f"{name} has no {field}")
    known = {field: content.pop(field) for field in _FIELDS[cls] if field in content}
    try:
        if cls is InputAudio:
            known["audio"] = _pcm(known["audio"])
        return cls(extra=content, **known)
    except TypeError as error:
        return ProtocolFault(f"{name}: {error}")


def _pcm(text: object) -> bytes:
    if not isinstance(text, str):
        raise TypeError("audio takes base64 text")
    try:
        pcm = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise TypeError("audio takes base64 text") from None
    if len(pcm) % 2:
        raise TypeError("audio takes whole 16-bit samples")
    return pcm
