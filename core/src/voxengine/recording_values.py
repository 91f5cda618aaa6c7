"""Values of a conversation as JSON, and back: what a recording is made of.

Bytes stay bytes until the line is written (in a thread). What has no plain form becomes a mapping with one key that
begins with ``$``.
"""

from __future__ import annotations

import base64
import builtins
import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final

import attrs

from voxengine import errors
from voxengine._config_json import config_from_json, config_to_json, format_to_json
from voxengine._items import item_from_json, item_to_json
from voxengine.audio.format import AudioFormat
from voxengine.capabilities import ROWS, Capabilities, Capability
from voxengine.config import Deadlines, Reconnect, TurnDetection, VoiceEngineConfig
from voxengine.errors import ConfigError, ErrorCode, VoxEngineError
from voxengine.events import LazyAudio
from voxengine.history import Heard, Item
from voxengine.scrubbing import bare_urls

__all__ = [
    "WORDS",
    "Plain",
    "blanked",
    "capabilities_from_json",
    "capabilities_to_json",
    "from_plain",
    "json_default",
]

WORDS: Final = frozenset(
    {
        "arguments",
        "delta",
        "heard_text",
        "image_url",
        "instructions",
        "output",
        "payload",
        "result",
        "text",
        "texts",
        "unanswered_texts",
        "value",
        "vocabulary",
        "words",
    }
)
"""Names of fields that hold what was said or written."""
_LETTER: Final = re.compile(r"\w")
_ATTRS: Final[dict[str, type]] = {
    "heard": Heard,
    "turn_detection": TurnDetection,
    "deadlines": Deadlines,
    "reconnect": Reconnect,
}
_TAGS: Final = {kind: tag for tag, kind in _ATTRS.items()}


def blanked(text: str) -> str:
    """Return a text of the same shape that says nothing: each letter and digit is an ``x``."""
    return _LETTER.sub("x", text)


class Plain:
    """Turns values into JSON values.

    Args:
        audio: Keep audio; else its length alone.
        transcripts: Keep words; else their shape alone.
    """

    def __init__(self, *, audio: bool, transcripts: bool) -> None:
        self.audio = audio
        self.transcripts = transcripts

    def value(self, value: Any, name: str = "", *, is_said: bool = False) -> Any:
        """Return a value in plain form; what is mutable is copied.

        Args:
            value: Anything.
            name: The field that it is, which says whether it is made of words.
            is_said: It belongs to something that is.
        """
        if value is None or isinstance(value, bool | int | float):
            return value
        is_said = is_said or (not self.transcripts and name in WORDS)
        if isinstance(value, str):
            return blanked(value) if is_said else str(value)
        if isinstance(value, LazyAudio):
            try:
                value = value.pcm()
            except (
                Exception
            ):  # What cannot be decoded is the provider's fault, and found by whoever plays it.
                return {"$other": "LazyAudio"}
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value) if self.audio else {"$silence": len(value)}
        if isinstance(value, Mapping):
            return {str(key): self.value(held, str(key), is_said=is_said) for key, held in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(held, is_said=is_said) for held in value]
        return self._object(value, is_said)

    def _object(self, value: Any, is_said: bool) -> Any:
        if isinstance(value, Enum):
            return self.value(value.value)
        if isinstance(value, BaseException):
            return {"$error": self._error(value, is_said)}
        if isinstance(value, AudioFormat):
            return {"$format": format_to_json(value)}
        if isinstance(value, Item):
            return {"$item": self.value(self._item(value))}
        if isinstance(value, VoiceEngineConfig):
            return {"$config": self.value({**config_to_json(value), "metadata": {}})}
        tag = _TAGS.get(type(value))
        if tag is not None:
            return {f"${tag}": attrs.asdict(value)}
        return {"$other": type(value).__name__}

    def _item(self, item: Item) -> dict[str, Any]:
        return item_to_json(item, self.audio)

    def _error(self, error: BaseException, is_said: bool) -> dict[str, Any]:
        text = bare_urls(str(error))[:1000]
        fields = {
            name: held for name, held in vars(error).items() if isinstance(held, str | int | float | None)
        }
        out = {
            "type": type(error).__name__,
            "module": type(error).__module__,
            "message": blanked(text) if is_said else text,
            "fields": {name: str(held) if isinstance(held, str) else held for name, held in fields.items()},
        }
        received = getattr(error, "rcvd", None)  # A closed connection of the websockets package.
        if received is not None:
            out["close"] = [received.code, received.reason]
        return out


def json_default(value: Any) -> Any:
    """Return what :mod:`json` writes for bytes."""
    if isinstance(value, bytes):
        return {"$b64": base64.b64encode(value).decode("ascii")}
    raise TypeError(f"{type(value).__name__} is no JSON")


def from_plain(value: Any) -> Any:
    """Return the value that :class:`Plain` described; lists and dicts stay what they are."""
    if isinstance(value, list):
        return [from_plain(held) for held in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        (name,) = value
        make = _MAKERS.get(name)
        if make is not None:
            return make(value[name])
    return {name: from_plain(held) for name, held in value.items()}


def _attrs_maker(kind: type) -> Callable[[Any], Any]:
    return lambda fields: kind(**fields)


def _make_error(value: dict[str, Any]) -> BaseException:
    name, message = str(value.get("type")), str(value.get("message"))
    cls = getattr(errors, name, None)
    if isinstance(cls, type) and issubclass(cls, VoxEngineError):
        error: BaseException = cls.__new__(cls, message)
        error.args = (message,)
        error.__dict__.update(value.get("fields", {}))
        if "code" in error.__dict__:
            error.__dict__["code"] = ErrorCode(error.__dict__["code"])
        return error
    if str(value.get("module")).partition(".")[0] == "websockets" and "close" in value:
        from websockets.exceptions import ConnectionClosedError
        from websockets.frames import Close

        return ConnectionClosedError(Close(*value["close"]), None)
    known = getattr(builtins, name, None)
    if isinstance(known, type) and issubclass(known, Exception):
        try:
            return known(message)
        except TypeError:  # UnicodeError and friends want more than a sentence.
            return RuntimeError(message)
    made: type[Exception] = type(name, (Exception,), {})
    return made(message)


_MAKERS: Final[dict[str, Callable[[Any], Any]]] = {
    "$b64": base64.b64decode,
    "$silence": bytes,
    "$error": _make_error,
    "$format": lambda fields: AudioFormat(**fields),
    "$item": lambda fields: item_from_json(from_plain(fields)),
    "$config": config_from_json,
    "$other": lambda name: f"<{name}>",
    **{f"${tag}": _attrs_maker(kind) for tag, kind in _ATTRS.items()},
}


def capabilities_to_json(capabilities: Capabilities) -> dict[str, Any]:
    """Return what is declared, as JSON values."""
    out: dict[str, Any] = {}
    for field in attrs.fields(Capabilities):
        value = getattr(capabilities, field.name)
        if value == field.default:
            continue
        if isinstance(value, Capability):
            value = [str(value.support), value.why]
        elif isinstance(value, tuple):
            value = [format_to_json(held) if isinstance(held, AudioFormat) else held for held in value]
        out[field.name] = value
    return out


def capabilities_from_json(value: Mapping[str, Any]) -> Capabilities:
    """Return the capabilities that :func:`capabilities_to_json` described.

    Raises:
        ConfigError: The value describes none.
    """
    fields: dict[str, Any] = {}
    try:
        for name, held in value.items():
            if name in ROWS:
                held = Capability(*held)
            elif name in ("input_formats", "output_formats"):
                held = tuple(AudioFormat(**one) for one in held)
            fields[name] = held
        return Capabilities(**fields)
    except (TypeError, ValueError):
        raise ConfigError(
            "The recording describes a provider that this voxengine does not understand."
        ) from None
