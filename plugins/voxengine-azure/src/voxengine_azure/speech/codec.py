"""Both ends of the Universal Speech Protocol, without I/O.

A text message is header lines, an empty line and a body; a binary one is the length of its header in two
bytes, the header, and the payload. What a message is for stands in its header ``Path``.

Sources: the official SDKs for Python (1.53.0) and JavaScript (1.52.0), watched against a server on loopback
in 2026-11, and the documentation of the Speech service.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import attrs

from voxengine.codec import NewId, Role, VendorMessage, Wire

__all__ = [
    "AUDIO",
    "CLIENT_PATHS",
    "SERVER_PATHS",
    "TICKS_PER_MS",
    "AudioFrame",
    "Message",
    "ProtocolFault",
    "SpeechCodec",
    "SpeechMessage",
    "ticks",
    "to_ms",
]

TICKS_PER_MS: Final = 10_000
"""Offsets and durations count units of 100 ns."""
AUDIO: Final = "audio"
"""The path of :class:`AudioFrame`."""

_JSON: Final = "application/json"
_TEXT_PATHS: Final = {"ssml": "application/ssml+xml", "text.piece": "text/plain", "text.end": "text/plain"}
"""Paths whose body is text, and their content type."""

CLIENT_PATHS: Final = frozenset(
    {
        "speech.config",
        "speech.context",
        "speech.event",
        "agent.config",
        "telemetry",
        "synthesis.context",
        "synthesis.control",
        *_TEXT_PATHS,
    }
)
"""What a client sends besides audio."""

_TICKS: Final = {"Offset": int, "Duration": int}
SERVER_PATHS: Final[Mapping[str, Mapping[str, type]]] = {
    "turn.start": {},
    "turn.end": {},
    "speech.startdetected": {"Offset": int},
    "speech.enddetected": {"Offset": int},
    "speech.hypothesis": {"Text": str, **_TICKS},
    "speech.fragment": {"Text": str, **_TICKS},
    "speech.phrase": {"RecognitionStatus": str},
    "response": {},
    "audio.metadata": {"Metadata": list},
}
"""What a server sends besides audio, each with the fields that the client end insists on."""

_SPELLED: Final = {
    "speech.startdetected": "speech.startDetected",
    "speech.enddetected": "speech.endDetected",
}
"""Paths with capitals. They are compared without case and written as the service writes them."""
_MAX_HEADERS: Final = 100
_BREAK: Final = re.compile(r"[\r\n]+")


def ticks(ms: float) -> int:
    """Return milliseconds in units of 100 ns."""
    return round(ms * TICKS_PER_MS)


def to_ms(value: object) -> int:
    """Return units of 100 ns in whole milliseconds; 0 for what is no number from 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e18:
        return 0
    return int(value) // TICKS_PER_MS


@attrs.frozen
class SpeechMessage:
    """Any message but audio."""

    path: str
    """In lower case."""
    body: Any = attrs.field(factory=dict, repr=False)
    """A JSON value; text for ``ssml``, ``text.piece`` and ``text.end``. Unknown fields are kept."""
    request_id: str = ""
    """Names the turn; empty where the message belongs to none."""
    timestamp: str = ""
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """Further headers, under the names with which they came."""


class AudioFrame(NamedTuple):
    """Audio of a turn. From a client, one without data is the end of the stream."""

    data: bytes
    request_id: str
    stream_id: str = ""
    content_type: str = ""
    timestamp: str = ""

    def __repr__(self) -> str:
        return f"AudioFrame({len(self.data)} bytes, request_id={self.request_id!r})"


@attrs.frozen
class ProtocolFault:
    """What ``decode`` returns for a message that breaks the protocol. Holds no content of it."""

    reason: str


Message = SpeechMessage | AudioFrame | VendorMessage
"""What a codec encodes."""


class SpeechCodec:
    """Both ends of the protocol (see :mod:`voxengine.codec`).

    Args:
        role: The end that this object speaks for: it encodes that end's messages and decodes the other's.
        new_id: Makes identifiers; kept as ``new_id`` for whoever builds the messages.
    """

    def __init__(self, role: Role, new_id: NewId) -> None:
        self.role = role
        self.new_id: NewId = new_id

    def encode(self, item: Message) -> Sequence[Wire]:
        """Return the messages that say ``item``, in order."""
        if isinstance(item, AudioFrame):  # The hot message.
            return [_audio_wire(item)]
        if isinstance(item, VendorMessage):
            payload = item.payload if isinstance(item.payload, Mapping) else {"body": item.payload}
            headers = payload.get("headers", {})
            lines = [("Path", item.name), *headers.items()]
            return [_head(lines) + "\r\n" + _body_text(payload.get("body", ""))]
        content_type = _TEXT_PATHS.get(item.path, _JSON)
        lines = [("Path", _SPELLED.get(item.path, item.path))]
        lines += [("X-RequestId", item.request_id)] if item.request_id else []
        lines += [("X-Timestamp", item.timestamp)] if item.timestamp else []
        lines += [("Content-Type", content_type), *item.headers.items()]
        return [_head(lines) + "\r\n" + _body_text(item.body)]

    def decode(self, wire: Wire, now: float) -> Sequence[Message | ProtocolFault]:
        """Return what one received message says. Never raises."""
        if isinstance(wire, bytes):
            return [self._binary(wire)]
        head, found, body = wire.partition("\r\n\r\n")
        if not found and head.endswith("\r\n"):
            found = "\r\n"  # A message without a body, and without the line before it.
        headers = _parse_head(head)
        if headers is None or not found:
            return [ProtocolFault("a text message has no header")]
        return [self._message(headers, body)]

    def _binary(self, wire: bytes) -> Message | ProtocolFault:
        if len(wire) < 2:
            return ProtocolFault("a binary message is shorter than the length of its header")
        (n_bytes,) = struct.unpack_from(">H", wire)
        if len(wire) < 2 + n_bytes:
            return ProtocolFault("a binary message is shorter than its header says")
        headers = _parse_head(wire[2 : 2 + n_bytes].decode("latin-1"))
        if headers is None:
            return ProtocolFault("a binary message has no header that can be read")
        data = wire[2 + n_bytes :]
        if _take(dict(headers), "path").lower() == AUDIO:
            return AudioFrame(
                data,
                _take(headers, "x-requestid"),
                _take(headers, "x-streamid"),
                _take(headers, "content-type"),
                _take(headers, "x-timestamp"),
            )
        return self._message(headers, data.decode("utf-8", "replace"))

    def _message(self, headers: dict[str, str], body: str) -> Message | ProtocolFault:
        path = _take(headers, "path")
        known = path.lower()
        if not path:
            return ProtocolFault("a message has no Path")
        if known not in (SERVER_PATHS if self.role is Role.CLIENT else CLIENT_PATHS):
            return VendorMessage(path, {"headers": headers, "body": _read_json(body, body)})
        content: Any = body
        if known not in _TEXT_PATHS:
            content = _read_json(body, None) if body.strip() else {}
            if content is None:
                return ProtocolFault(f"{known} is not JSON")
            problem = _problem(known, content) if self.role is Role.CLIENT else ""
            if problem:
                return ProtocolFault(problem)
        _take(headers, "content-type")
        return SpeechMessage(
            known, content, _take(headers, "x-requestid"), _take(headers, "x-timestamp"), headers
        )


def _audio_wire(frame: AudioFrame) -> bytes:
    head = f"Path: audio\r\nX-RequestId: {frame.request_id}\r\n"
    if frame.timestamp:
        head += f"X-Timestamp: {frame.timestamp}\r\n"
    if frame.stream_id:
        head += f"X-StreamId: {frame.stream_id}\r\n"
    if frame.content_type:
        head += f"Content-Type: {frame.content_type}\r\n"
    return struct.pack(">H", len(head)) + head.encode("latin-1", "replace") + frame.data


def _head(lines: Sequence[tuple[str, str]]) -> str:
    # A line break in a value would begin another header.
    return "".join(f"{name}: {_BREAK.sub(' ', value)}\r\n" for name, value in lines)


def _body_text(body: Any) -> str:
    # The JavaScript client cuts a body at an empty line.
    return body.replace("\r\n", "\n") if isinstance(body, str) else json.dumps(body, separators=(",", ":"))


def _parse_head(text: str) -> dict[str, str] | None:
    headers: dict[str, str] = {}
    for line in text.split("\r\n"):
        if not line:
            continue
        name, colon, value = line.partition(":")
        if not colon or not name.strip() or len(headers) >= _MAX_HEADERS:
            return None
        headers[name.strip()] = value.strip()
    return headers or None


def _take(headers: dict[str, str], name: str) -> str:
    """Remove a header and return its value, whatever the case of its name."""
    for held in headers:
        if held.lower() == name:
            return headers.pop(held)
    return ""


def _read_json(text: str, otherwise: Any) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return otherwise


def _problem(path: str, content: Any) -> str:
    """Say what is wrong with a server's message; empty when nothing is."""
    if not isinstance(content, dict):
        return f"{path} is not an object"
    for name, kind in SERVER_PATHS[path].items():
        value = content.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            return f"{path} has no {name} of the right type"
    for name in _TICKS:
        value = content.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            return f"{path} has a {name} that is no count"
    return ""
