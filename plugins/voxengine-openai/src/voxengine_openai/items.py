"""What the application gives, in the words of the protocol: history items, and events of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from voxengine.audio.format import AudioFormat, Encoding
from voxengine.errors import ConfigError
from voxengine.history import Item, ItemKind, render_as_text

__all__ = ["MAX_ITEM_AUDIO_BYTES", "event_parts", "short_id", "tool_output", "user_text", "wire_item"]

MAX_ITEM_AUDIO_BYTES: Final = 15 * 2**20
"""Most audio that one event carries."""

_MAX_ID: Final = 32


def short_id(name: str) -> str:
    """Return an id that the service takes: other services' ids can be longer than its 32 characters."""
    if len(name) <= _MAX_ID:
        return name
    return name[:11] + "_" + hashlib.sha256(name.encode()).hexdigest()[: _MAX_ID - 12]


def event_parts(event: object) -> tuple[str, str, dict[str, Any]]:
    """Return type, ``event_id`` (empty for none) and the other fields of an event of the protocol.

    Raises:
        ConfigError: It is none.
    """
    takes = "send_event takes an event of the protocol, a mapping with its type"
    if not isinstance(event, Mapping):
        raise ConfigError(f"{takes}, not a {type(event).__name__}. Nothing was sent.")
    fields = dict(event)
    name, event_id = fields.pop("type", None), fields.pop("event_id", None)
    if not isinstance(name, str) or not name:
        wrong = f"a type that is a {type(name).__name__}" if name else "one without a type"
        raise ConfigError(f"{takes}, not {wrong}. Nothing was sent.")
    if not isinstance(event_id, str | None):
        raise ConfigError(
            f"The event_id of {name} is a str, not a {type(event_id).__name__}. Nothing was sent."
        )
    if not all(isinstance(key, str) for key in fields):
        raise ConfigError(f"The fields of {name} have texts as names. Nothing was sent.")
    return name, event_id or "", fields


def _message(role: str, *content: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": list(content)}


def user_text(text: str) -> dict[str, Any]:
    """Return a user message."""
    return _message("user", {"type": "input_text", "text": text})


def tool_output(call_id: str, output: str) -> dict[str, Any]:
    """Return the result of a call."""
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def wire_item(item: Item, audio_format: AudioFormat) -> dict[str, Any]:
    """Return an item as ``conversation.item.create`` takes it.

    Args:
        item: Of any kind. Speech goes as audio when it has no transcript and fits, else as text.
        audio_format: The session's input format.
    """
    match item.kind:
        case ItemKind.USER_AUDIO:
            return _speech(item, audio_format)
        case ItemKind.AGENT:
            return _message("assistant", {"type": "output_text", "text": item.context_text})
        case ItemKind.SYSTEM:
            return _message("system", {"type": "input_text", "text": item.text})
        case ItemKind.TOOL_CALL:
            return {
                "type": "function_call",
                "call_id": short_id(item.call_id),
                "name": item.name,
                "arguments": item.arguments or "{}",
            }
        case ItemKind.TOOL_RESULT:
            return tool_output(short_id(item.call_id), item.text)
        case ItemKind.IMAGE:
            picture = {"type": "input_image", "image_url": item.image_url}
            words = [{"type": "input_text", "text": item.text}] if item.text else []
            return _message("user", *words, picture)
    return user_text(item.text)


def _speech(item: Item, audio_format: AudioFormat) -> dict[str, Any]:
    if item.audio is None or item.audio_format is None or item.is_transcribed:
        return user_text(render_as_text(item).text)
    data = _in_format(item.audio, item.audio_format, audio_format)
    if data is None or len(data) > MAX_ITEM_AUDIO_BYTES:
        return user_text(render_as_text(item).text)
    from pybase64 import b64encode

    return _message("user", {"type": "input_audio", "audio": b64encode(data).decode("ascii")})


def _in_format(data: bytes, source: AudioFormat, target: AudioFormat) -> bytes | None:
    if source == target:
        return data
    if target.encoding is not Encoding.PCM16 or source.encoding is not Encoding.PCM16:
        return None
    from voxengine.audio.pcm import convert

    return convert(data, source, target)
