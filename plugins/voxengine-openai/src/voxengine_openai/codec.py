"""Both ends of the Realtime protocol, without I/O: text messages, one JSON object each.

Some messages are hot and have a way of their own. :class:`Append` is a fixed envelope around base64. An
:class:`AudioDelta` is read into one struct, and the base64 of a long one is cut out of the wire before, so that its
cost hardly depends on how much audio it holds; those that follow of the same item are compared with it and not parsed
at all. Of an answer's words a client reads no more than a :class:`~voxengine_openai._json.TextDelta`. They are
recognised by the start of the wire, where the service and its SDK write the type; any other order of keys gives the
same by the way of all other messages.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from voxengine.codec import NewId, Role, VendorMessage, Wire
from voxengine_openai import wording
from voxengine_openai.checking import broken_event
from voxengine_openai.dialects import BETA, GA, Dialect
from voxengine_openai.messages import (
    APPEND,
    AUDIO_DELTA,
    CLIENT_EVENTS,
    SERVER_EVENTS,
    TEXT_DELTAS,
    Append,
    AudioDelta,
    ProtocolFault,
    RealtimeMessage,
)

if TYPE_CHECKING:
    from voxengine_openai._json import TextDelta

__all__ = [
    "BETA",
    "GA",
    "Append",
    "AudioDelta",
    "Dialect",
    "Message",
    "ProtocolFault",
    "RealtimeCodec",
    "RealtimeMessage",
    "audio_size",
    "decode_audio",
]

Message = RealtimeMessage | AudioDelta | Append | VendorMessage
"""What a codec encodes."""

_BAD_AUDIO: Final = (
    "Invalid 'audio'. Expected base64-encoded audio bytes (mono PCM16 at 24kHz) but got an invalid value."
)
_ABSENT: Final = object()
_Rows = Mapping[str, tuple[tuple[str, type], ...]]
_UNFIT: Final[tuple[tuple[str, type], ...]] = (("", object),)
"""Rows that no message fits."""
_Frame = tuple[str, int, str, int, str, str, str, int, int]
"""What an item's audio deltas have in common: the text before the event's identifier, where that ends, the text from
there to the audio, where that begins, the text behind it; and response, item, output index, content index."""
_MARK: Final = "~"
"""No character of base64."""
_LONG_TEXT: Final = 5000
_LONG_BYTES: Final = 16000
"""From these lengths on it pays to cut the base64 out before the rest is parsed; measured."""
_new_delta: Final[Callable[[tuple[Any, ...]], AudioDelta]] = functools.partial(tuple.__new__, AudioDelta)


def decode_audio(delta: str) -> bytes:
    """Return the bytes of base64 text.

    Raises:
        ValueError: The text is no base64.
    """
    import pybase64

    # Checked, and five times faster than unchecked: only the checking decoder is written with SIMD.
    return pybase64.b64decode(delta, validate=True)


def audio_size(delta: str) -> int:
    """Return how many bytes base64 text holds, without decoding it."""
    return len(delta) // 4 * 3 - delta.count("=", -2)


class RealtimeCodec:
    """Both ends of the protocol (see :mod:`voxengine.codec`).

    Args:
        role: The end that this object speaks for. The CLIENT end lets pass what its tables do not forbid; the
            SERVER end checks what arrives as strictly as the service does.
        new_id: Makes identifiers; kept as ``new_id`` for whoever builds the messages.
        dialect: How the other end spells the protocol.
    """

    __slots__ = (
        "_append_start",
        "_broken",
        "_decode_append",
        "_decode_delta",
        "_decode_hot",
        "_decode_text",
        "_delta_envelope",
        "_direct",
        "_extras",
        "_frame",
        "_framed",
        "_incoming",
        "_parse",
        "_schema",
        "_starts",
        "_starts_in_bytes",
        "_text_starts",
        "_to_base64",
        "_to_json",
        "dialect",
        "new_id",
        "role",
    )

    def __init__(self, role: Role, new_id: NewId, dialect: Dialect = GA) -> None:
        # Here and not above: an import of the provider's class must not load msgspec and pybase64.
        from voxengine_openai import _json

        self.role = role
        self.new_id: NewId = new_id
        self.dialect = dialect
        self._to_json, self._to_base64, self._parse = _json.to_json, _json.to_base64, _json.parse
        is_client = role is Role.CLIENT
        self._schema = None if is_client or dialect.schema is None else dialect.schema()
        commands = CLIENT_EVENTS if self._schema is None else self._schema
        self._incoming: Container[str] = SERVER_EVENTS if is_client else commands
        self._broken = broken_event if is_client else self._broken_command
        self._extras = dialect.server_extras if is_client else dialect.client_extras
        spelling = _spelling(dialect, role)
        self._append_start = spelling.append_start
        self._delta_envelope: tuple[tuple[Any, ...], str] = ((), "")
        self._decode_delta, self._decode_append = _json.decode_delta, _json.decode_append
        self._decode_text = _json.decode_text
        self._frame: _Frame = ("\0", 0, "", 0, "", "", "", 0, 0)  # Which no message has.
        self._framed = ("", "")  # Response and item for which a frame was looked for: once, found or not.
        self._starts, self._text_starts = spelling.starts, spelling.text_starts
        self._starts_in_bytes = spelling.starts_in_bytes
        self._decode_hot = self._delta if is_client else self._append
        self._direct = spelling.direct

    # -- encoding ---------------------------------------------------------------------------------

    def encode(self, item: Message) -> Sequence[Wire]:
        """Return the messages that say ``item``, in order; none when the dialect has no such message.

        The audio of an :class:`Append` may be any buffer; the delta of an :class:`AudioDelta` is taken for
        base64 text without a look.
        """
        if type(item) is Append:
            if item.event_id is None:
                return [self.encode_audio(item.audio)]
            values = {"event_id": item.event_id, "audio": self._to_base64(item.audio)}
            return self._encode_fields(APPEND, values)
        if type(item) is AudioDelta:
            return [self._encode_delta(item)]
        if isinstance(item, RealtimeMessage):
            return self._encode_fields(item.name, item.fields)
        if isinstance(item, VendorMessage):
            payload = item.payload if isinstance(item.payload, dict) else {"payload": item.payload}
            return [self._to_json({"type": item.name, **_without_type(payload)})]
        raise TypeError(f"a codec encodes messages, not {type(item).__name__}")

    def encode_audio(self, audio: bytes) -> str:
        """Return the one message of an :class:`Append` without an identifier: what every 20 ms chunk is."""
        return f'{self._append_start}{self._to_base64(audio)}"}}'

    def _encode_fields(self, name: str, fields: Mapping[str, Any]) -> Sequence[Wire]:
        wire_name = self.dialect.wire_name(name, fields)
        if wire_name is None:
            return []
        values = self.dialect.outwards(name, _without_type(fields))
        return [self._to_json({"type": wire_name, **values})]

    def _encode_delta(self, item: AudioDelta) -> str:
        key, envelope = self._delta_envelope
        if item[:2] != key[:2] or item[3:5] != key[2:]:
            # All deltas of an item have the same envelope. Its identifier can be the client's: JSON quotes it.
            key = item[:2] + item[3:5]
            fields = dict(zip(("response_id", "item_id", "output_index", "content_index"), key, strict=True))
            envelope = self._to_json({"type": self.dialect.wire_name(AUDIO_DELTA, fields), **fields})[:-1]
            self._delta_envelope = (key, envelope)
        event_id = self._to_json(item.event_id or self.new_id("event_"))
        return f'{envelope},"event_id":{event_id},"delta":"{item.delta}"}}'

    # -- decoding ---------------------------------------------------------------------------------

    def decode(self, wire: Wire, now: float) -> Sequence[Message | ProtocolFault]:
        """Return what one received message says. Never raises.

        One message can stand for two in a dialect. What is not of the protocol is a
        :class:`~voxengine.codec.VendorMessage`.
        """
        if isinstance(wire, str):
            is_hot = wire.startswith(self._starts)
        else:
            is_hot = wire.startswith(self._starts_in_bytes)
        hot = self._decode_hot(wire) if is_hot else None
        if hot is not None:
            return [hot]
        try:
            content = self._parse(wire)
        except (ValueError, RecursionError):  # UnicodeDecodeError and msgspec's errors are ValueErrors.
            return [ProtocolFault("The message is not JSON.")]
        if type(content) is dict:
            name = content.get("type")
            for key, kind in self._direct.get(name, _UNFIT) if type(name) is str else _UNFIT:
                if type(content.get(key)) is not kind:
                    break
            else:
                return [RealtimeMessage(content.pop("type"), content)]
        if not isinstance(content, dict):
            return [wording.invalid_type("", "an object", content)]
        event_id = content.get("event_id")
        name = content.pop("type", _ABSENT)
        if not isinstance(name, str):
            fault = (
                wording.missing("type") if name is _ABSENT else wording.invalid_type("type", "a string", name)
            )
            return [attrs.evolve(fault, event_id=event_id if isinstance(event_id, str) else None)]
        return [self._build(ga_name, fields) for ga_name, fields in self.dialect.inwards(name, content)]

    def _build(self, name: str, fields: dict[str, Any]) -> Message | ProtocolFault:
        if name not in self._incoming:
            return (RealtimeMessage if name in self._extras else VendorMessage)(name, fields)
        fault = self._broken(name, fields)
        if fault is not None:
            event_id = fields.get("event_id")
            event_id = event_id if isinstance(event_id, str) else None
            return attrs.evolve(fault, name=name, event_id=event_id)
        if name == AUDIO_DELTA:
            return AudioDelta(
                **{key: fields[key] for key in AudioDelta._fields if fields.get(key) is not None}
            )
        if name == APPEND:
            return self._appended(fields["audio"], fields.get("event_id"))
        return RealtimeMessage(name, fields)

    def _broken_command(self, name: str, fields: dict[str, Any]) -> ProtocolFault | None:
        from voxengine_openai.strict import broken_command

        spell = functools.partial(self.dialect.wire_path, name)
        return broken_command(name, fields, self.dialect.unchecked, spell, self._schema)

    def audio_delta(self, wire: Wire) -> AudioDelta | None:
        """Return the audio delta that a message surely is, as :meth:`decode` would; None for any other.

        For a client's reader: it asks this first, and nothing else costs as little.
        """
        if type(wire) is not str or len(wire) <= _LONG_TEXT:
            return None
        head, id_end, middle, start, tail, response_id, item_id, output_index, content_index = self._frame
        id_at = len(head)
        if wire[:id_at] == head and wire[id_end:start] == middle:
            end = wire.find('"', start)
            event_id, delta = wire[id_at:id_end], wire[start:end]
            if wire[end:] == tail and '"' not in event_id and event_id.isprintable() and "\\" not in wire:
                return _new_delta((response_id, item_id, delta, output_index, content_index, event_id))
        return self._long_delta(wire) if wire.startswith(self._starts) else None

    def _long_delta(self, wire: str) -> AudioDelta | None:
        """An audio delta whose base64 is cut out before the rest is parsed."""
        at = wire.find('"delta":')
        start = wire.find('"', at + 8) + 1
        end = wire.find('"', start)
        delta = wire[start:end]
        if at < 0 or "\\" in delta:
            return None
        try:
            it = self._decode_delta(f"{wire[:start]}{_MARK}{wire[end:]}")
        except (ValueError, RecursionError):
            return None
        if it.delta != _MARK:
            return None
        found = _new_delta(
            (it.response_id, it.item_id, delta, it.output_index, it.content_index, it.event_id)
        )
        if self._framed != (it.response_id, it.item_id):
            self._framed = (it.response_id, it.item_id)
            self._learn_frame(wire, start, end, found)
        return found

    def _learn_frame(self, wire: str, start: int, end: int, found: AudioDelta) -> None:
        """Keep what the deltas of an item have in common: all but the audio and the event's identifier before it.

        That the two are where they seem to be is proven by a message with marks in their places. What follows need not
        be parsed then: other text there, without quotes, escapes and control characters, changes nothing else.
        """
        id_at = wire.find('"', wire.find('"event_id":') + len('"event_id":')) + 1
        id_end = id_at + len(found.event_id)
        if id_end > start or not wire[id_at:id_end] == found.event_id != _MARK:
            return
        head, middle, tail = wire[:id_at], wire[id_end:start], wire[end:]
        try:
            it = self._decode_delta(f"{head}{_MARK}{middle}{_MARK}{tail}")
        except (ValueError, RecursionError):
            return
        if it.event_id == it.delta == _MARK:
            places = found.response_id, found.item_id, found.output_index, found.content_index
            self._frame = (head, id_end, middle, start, tail, *places)

    def text_delta(self, wire: Wire) -> TextDelta | None:
        """Return the words that a message surely holds, of which :meth:`decode` gives every field; None for any other.

        For a client's reader, which asks it second.
        """
        if type(wire) is str and wire.startswith(self._text_starts):
            try:
                return self._decode_text(wire)
            except (ValueError, RecursionError):
                return None
        return None

    def _delta(self, wire: Wire) -> AudioDelta | None:
        """An audio delta by the short way; None when it has to go the long one."""
        if isinstance(wire, str) and len(wire) > _LONG_TEXT:
            return self.audio_delta(wire)
        cut = _cut(wire, '"delta":') if len(wire) > _LONG_BYTES else (None, wire)
        if cut is None:
            return None
        try:
            it = self._decode_delta(cut[1])
        except (ValueError, RecursionError):
            return None
        delta = it.delta if cut[0] is None else cut[0]
        if cut[0] is not None and it.delta != _MARK:
            return None
        return _new_delta((it.response_id, it.item_id, delta, it.output_index, it.content_index, it.event_id))

    def _append(self, wire: Wire) -> Append | ProtocolFault | None:
        """An append by the short way; None when it has to go the long one."""
        cut = _cut(wire, '"audio":')
        if cut is None:
            return None
        try:
            rest = self._decode_append(cut[1])
        except (ValueError, RecursionError):
            return None
        if rest.audio != _MARK or rest.event_id is not None:
            return None
        return self._appended(cut[0], None)

    def _appended(self, audio: str, event_id: str | None) -> Append | ProtocolFault:
        try:
            return Append(decode_audio(audio), event_id)
        except ValueError:
            return ProtocolFault(_BAD_AUDIO, "invalid_value", "audio", event_id, APPEND)


_spellings: Final[dict[tuple[int, Role], tuple[Dialect, _Spelling]]] = {}


@attrs.frozen
class _Spelling:
    """What an end knows of a dialect's messages before any came."""

    append_start: str
    """How the message of a chunk begins, up to its audio."""
    starts: tuple[str, ...]
    """How the messages begin of which there are most."""
    text_starts: tuple[str, ...]
    starts_in_bytes: tuple[bytes, ...]
    direct: _Rows
    """The plain fields of each message that has no others and is as in GA: every word is one."""


def _spelling(dialect: Dialect, role: Role) -> _Spelling:
    """How an end spells a dialect; made once for all sessions."""
    held = _spellings.get((id(dialect), role))
    if held is None:
        is_client = role is Role.CLIENT
        starts = _starts(dialect, AUDIO_DELTA if is_client else APPEND)
        made = _Spelling(
            append_start=f'{{"type":"{dialect.wire_name(APPEND, {})}","audio":"',
            starts=starts,
            text_starts=_starts(dialect, *TEXT_DELTAS) if is_client else (),
            starts_in_bytes=tuple(text.encode() for text in starts),
            direct=_direct_rows(dialect) if is_client else {},
        )
        held = _spellings[id(dialect), role] = (dialect, made)  # With the dialect: its id stays its own.
    return held[1]


def _direct_rows(dialect: Dialect) -> _Rows:
    return {
        name: tuple(fields.items())
        for name, fields in SERVER_EVENTS.items()
        if fields and name != AUDIO_DELTA and dialect.is_ga(name) and not set(".?*") & set("".join(fields))
    }


def _starts(dialect: Dialect, *names: str) -> tuple[str, ...]:
    """How messages of these names begin where they go the short way: the service and its SDK write the type first."""
    wire_names = [dialect.wire_name(name, {}) for name in names if name not in dialect.fields]
    return tuple(f'{{"type":{space}"{name}"' for name in wire_names if name for space in ("", " "))


def _cut(wire: Wire, key: str) -> tuple[str, Wire] | None:
    """Take a string without escapes out of a JSON text: the string, and the text with a mark in its place.

    The key with its quotes cannot be part of another string, where quotes are escaped. Where it is not a key
    of the outermost object, whoever reads the rest does not find the mark there and refuses it.
    """
    if isinstance(wire, str):
        at = wire.find(key)
        start = wire.find('"', at + len(key)) + 1
        end = wire.find('"', start)
        text = wire[start:end]
        return None if at < 0 or "\\" in text else (text, f"{wire[:start]}{_MARK}{wire[end:]}")
    at = wire.find(key.encode())
    start = wire.find(b'"', at + len(key)) + 1
    end = wire.find(b'"', start)
    part = wire[start:end]
    if at < 0 or not part.isascii() or b"\\" in part:
        return None
    return part.decode("ascii"), b"%b%b%b" % (wire[:start], _MARK.encode(), wire[end:])


def _without_type(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A copy without ``type``, which is the message's name and never one of its fields."""
    return {key: value for key, value in fields.items() if key != "type"}
