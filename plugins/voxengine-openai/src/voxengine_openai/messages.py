"""The events of OpenAI's Realtime protocol (GA): their names, their classes, what the client counts on.

Source: the ``openai`` package 3.54.0, ``openai.types.realtime``; a test compares the tables with it.
This module needs neither msgspec nor pybase64, so that whoever only names messages stays light.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import attrs

__all__ = [
    "APPEND",
    "AUDIO_DELTA",
    "CLIENT_EVENTS",
    "SERVER_EVENTS",
    "TEXT_DELTAS",
    "Append",
    "AudioDelta",
    "ProtocolFault",
    "RealtimeMessage",
]

APPEND: Final = "input_audio_buffer.append"
"""The name of :class:`Append`."""
AUDIO_DELTA: Final = "response.output_audio.delta"
"""The name of :class:`AudioDelta`."""
TEXT_DELTAS: Final = ("response.output_audio_transcript.delta", "response.output_text.delta")
"""What carries an answer's words, as they come."""

CLIENT_EVENTS: Final = frozenset(
    {
        "conversation.item.create",
        "conversation.item.delete",
        "conversation.item.retrieve",
        "conversation.item.truncate",
        "input_audio_buffer.append",
        "input_audio_buffer.clear",
        "input_audio_buffer.commit",
        "output_audio_buffer.clear",
        "response.cancel",
        "response.create",
        "session.update",
    }
)
"""What a client sends."""

# What the client end insists on, by path: a field is there and has this JSON type. "?" at the end: it
# may be absent or null; "*" stands for every element of a list.
_ITEM_ID: Final = {"item_id": str}
_PART: Final = {"response_id": str, "item_id": str}
_ITEM: Final = {
    "item": dict,
    "item.type": str,
    "item.id?": str,
    "item.role?": str,
    "item.status?": str,
    "item.content?": list,
    "item.content?.*": dict,
}
_PLACED_ITEM: Final = {**_ITEM, "previous_item_id?": str}
_OUTPUT_ITEM: Final = {"response_id": str, "output_index?": int, **_ITEM, "item.id": str}
_RESPONSE: Final = {
    "response": dict,
    "response.id": str,
    "response.status?": str,
    "response.status_details?": dict,
    "response.output?": list,
    "response.output?.*": dict,
    "response.metadata?": dict,
    "response.conversation_id?": str,
}

SERVER_EVENTS: Final[Mapping[str, Mapping[str, type]]] = {
    "conversation.created": {"conversation": dict},
    "conversation.item.added": _PLACED_ITEM,
    "conversation.item.created": _PLACED_ITEM,
    "conversation.item.deleted": _ITEM_ID,
    "conversation.item.done": _PLACED_ITEM,
    "conversation.item.input_audio_transcription.completed": {
        "item_id": str,
        "transcript": str,
        "content_index?": int,
    },
    "conversation.item.input_audio_transcription.delta": {**_ITEM_ID, "delta?": str, "content_index?": int},
    "conversation.item.input_audio_transcription.failed": {
        "item_id": str,
        "error": dict,
        "error.code?": str,
        "error.message?": str,
    },
    "conversation.item.input_audio_transcription.segment": {"item_id": str, "text": str},
    "conversation.item.retrieved": _ITEM,
    "conversation.item.truncated": {"item_id": str, "audio_end_ms": int, "content_index?": int},
    "error": {
        "error": dict,
        "error.message?": str,
        "error.type?": str,
        "error.code?": str,
        "error.param?": str,
        "error.event_id?": str,
    },
    "input_audio_buffer.cleared": {},
    "input_audio_buffer.committed": {"item_id": str, "previous_item_id?": str},
    "input_audio_buffer.dtmf_event_received": {"event": str},
    "input_audio_buffer.speech_started": {"audio_start_ms": int, "item_id": str},
    "input_audio_buffer.speech_stopped": {"audio_end_ms": int, "item_id": str},
    "input_audio_buffer.timeout_triggered": {"item_id": str, "audio_start_ms?": int, "audio_end_ms?": int},
    "mcp_list_tools.completed": _ITEM_ID,
    "mcp_list_tools.failed": _ITEM_ID,
    "mcp_list_tools.in_progress": _ITEM_ID,
    "output_audio_buffer.cleared": {"response_id": str},
    "output_audio_buffer.started": {"response_id": str},
    "output_audio_buffer.stopped": {"response_id": str},
    "rate_limits.updated": {"rate_limits": list, "rate_limits.*": dict},
    "response.content_part.added": {**_PART, "part": dict, "part.type?": str},
    "response.content_part.done": {**_PART, "part": dict, "part.type?": str},
    "response.created": _RESPONSE,
    "response.done": _RESPONSE,
    "response.function_call_arguments.delta": {**_PART, "call_id": str, "delta": str},
    "response.function_call_arguments.done": {**_PART, "call_id": str, "arguments": str, "name?": str},
    "response.mcp_call.completed": _ITEM_ID,
    "response.mcp_call.failed": _ITEM_ID,
    "response.mcp_call.in_progress": _ITEM_ID,
    "response.mcp_call_arguments.delta": {**_PART, "delta": str},
    "response.mcp_call_arguments.done": {**_PART, "arguments": str},
    "response.output_audio.delta": {**_PART, "delta": str, "output_index?": int, "content_index?": int},
    "response.output_audio.done": _PART,
    "response.output_audio_transcript.delta": {**_PART, "delta": str},
    "response.output_audio_transcript.done": {**_PART, "transcript": str},
    "response.output_item.added": _OUTPUT_ITEM,
    "response.output_item.done": _OUTPUT_ITEM,
    "response.output_text.delta": {**_PART, "delta": str},
    "response.output_text.done": {**_PART, "text": str},
    "session.created": {"session": dict, "session.id?": str, "session.expires_at?": int},
    "session.updated": {"session": dict, "session.id?": str, "session.expires_at?": int},
}
"""What a server sends, each with what the client end insists on, by path.

It asks for less than the service promises (``event_id`` and the indices may be absent), because compatible
endpoints leave those out; and what it lets pass has the right type wherever the provider looks.
"""


@attrs.frozen
class RealtimeMessage:
    """Any event but the two that carry audio."""

    name: str
    """The GA name, whatever the dialect calls it on the wire."""
    fields: dict[str, Any] = attrs.field(factory=dict, repr=False)
    """Everything but ``type``, as in the GA protocol. Unknown fields are kept."""


# Tuples, because they are made for every chunk and nothing immutable is made faster.


class AudioDelta(NamedTuple):
    """``response.output_audio.delta``: a piece of an answer's audio."""

    response_id: str
    item_id: str
    delta: str
    """Base64 text; neither decoded nor checked yet."""
    output_index: int = 0
    content_index: int = 0
    event_id: str = ""

    def __repr__(self) -> str:
        return f"AudioDelta(response_id={self.response_id!r}, item_id={self.item_id!r}, delta=…)"


class Append(NamedTuple):
    """``input_audio_buffer.append``: user audio in the session's input format."""

    audio: bytes
    event_id: str | None = None

    def __repr__(self) -> str:
        return f"Append({len(self.audio)} bytes)"


@attrs.frozen
class ProtocolFault:
    """What ``decode`` returns for a broken message.

    It holds nothing that was said. ``reason`` may name a key or a short word that has no place there.
    """

    reason: str = attrs.field(repr=False)
    """What is wrong, in OpenAI's words."""
    code: str = "invalid_json"
    """OpenAI's code, for example ``missing_required_parameter``."""
    param: str | None = None
    """Path of the field, as the sender calls it."""
    event_id: str | None = None
    """The broken message's own, where it could be read."""
    name: str = ""
    """The broken message's GA name, where it could be read."""
