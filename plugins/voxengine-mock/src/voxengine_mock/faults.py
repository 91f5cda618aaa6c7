"""What a script's faults are: what goes wrong, at which point of the conversation, and how often.

Values only; :mod:`voxengine_mock.misbehaving` acts them out.
"""

from __future__ import annotations

import difflib
import json
import re
import shlex
import tomllib
from collections.abc import Mapping
from typing import Any, Final

import attrs

from voxengine.errors import ConfigError, ErrorCode
from voxengine_mock.reading import Read, Source, number, one_of, whole
from voxengine_mock.toml_lines import KeyPath

__all__ = ["MAX_REASON_BYTES", "POINTS", "Fault", "Point", "fault_from_text", "read_fault"]

POINTS: Final[dict[str, str]] = {
    "handshake": "the request for a connection arrived",
    "ready": "the session would be reported as open",
    "first_input": "the first audio or text arrived",
    "input": "audio arrived",
    "turn": "the user's turn is complete",
    "transcript": "the final text of what the user said would be given",
    "response": "a response would begin",
    "tool": "a tool would be called",
    "tool_result": "the result of a call arrived",
    "configure": "the client changed the settings",
}
"""The points by name, and what is the case there."""

_COUNTED: Final = ("turn", "transcript", "response", "tool", "tool_result", "configure")
_WITH_AUDIO: Final = ("input", "response")
_MAX_MS: Final = 86_400_000
MAX_REASON_BYTES: Final = 123
"""What a WebSocket's close message can carry beside its code."""


@attrs.frozen
class Point:
    """A moment of the conversation, as in ``response:2:after_audio_ms=300``."""

    name: str
    n: int | None = 1
    """Which of them, from 1; None: each."""
    after_ms: int = 0
    """So much later, by the clock."""
    after_audio_ms: int | None = None
    """When so much audio of the response was sent, or of the input was received."""


@attrs.frozen(kw_only=True)
class Fault:
    """One thing that goes wrong. Fields that its kind does not take have their defaults."""

    at: Point
    do: str
    """``http``, ``quota``, ``error``, ``close``, ``stall``, ``reset``, ``garbage``, ``oversized``,
    ``slow_reader`` or ``expire``."""
    status: int = 0
    """For ``http``."""
    code: ErrorCode = ErrorCode.UNKNOWN
    close_code: int = 1011
    reason: str = ""
    message: str = ""
    recoverable: bool | None = None
    retry_after_s: float | None = None
    for_s: float | None = None
    """None: for ever."""
    n_messages: int = 1
    as_binary: bool = False
    n_bytes: int = 17 * 2**20
    bytes_per_s: float = 8_000.0
    deadline_s: float = 10.0
    times: int | None = 1
    """How often in the life of the service; None: always."""
    session: int | None = None
    """On which connection, counted from 1 with the refused ones; None: on any."""


def _close_code(source: Source, path: KeyPath, value: object) -> int:
    code: int = whole()(source, path, value)
    if not ((1000 <= code <= 1014 and code not in (1004, 1005, 1006)) or 3000 <= code <= 4999):
        raise source.error(
            path, f"is {code}, which may not be sent. Use 1000 to 1014 but for 1004 to 1006, or 3000 to 4999."
        )
    return code


def _reason(source: Source, path: KeyPath, value: object) -> str:
    text = source.string(path, value)
    try:
        n_bytes = len(text.encode())
    except UnicodeEncodeError:
        raise source.error(
            path, "holds half of a surrogate pair, which no close message can carry."
        ) from None
    if n_bytes > MAX_REASON_BYTES:
        raise source.error(path, f"has {n_bytes} bytes in UTF-8; a close message holds {MAX_REASON_BYTES}.")
    return text


_seconds: Final = number(0.001, 86_400, "s")
_READ: Final[dict[str, tuple[str, Read]]] = {
    "retry_after_s": ("retry_after_s", number(0, 86_400, "s")),
    "message": ("message", Source.words),
    "recoverable": ("recoverable", Source.flag),
    "reason": ("reason", _reason),
    "for_s": ("for_s", _seconds),
    "n_messages": ("n_messages", whole(1, 1000)),
    "as": ("as_binary", one_of("text", "binary")),
    "n_bytes": ("n_bytes", whole(1, 64 * 2**20)),
    "bytes_per_s": ("bytes_per_s", number(1, 1e9, "bytes per second")),
    "deadline_s": ("deadline_s", _seconds),
    "times": ("times", whole(1, 1_000_000)),
    "session": ("session", whole(1, 1_000_000)),
}
_KEYS_OF: Final[dict[str, tuple[str, ...]]] = {
    "http": ("retry_after_s", "message"),
    "quota": ("message",),
    "error": ("code", "message", "recoverable", "retry_after_s"),
    "close": ("code", "reason"),
    "stall": ("for_s",),
    "reset": (),
    "garbage": ("n_messages", "as"),
    "oversized": ("n_bytes",),
    "slow_reader": ("bytes_per_s", "for_s"),
    "expire": ("deadline_s", "code", "reason"),
}
_COMMON: Final = ("do", "at", "times", "session")
_KINDS: Final = ("a status from 400 to 599", *map(repr, list(_KEYS_OF)[1:]))
_AT_HANDSHAKE: Final = ("http", "quota", "stall", "reset", "garbage")


def read_fault(source: Source, path: KeyPath, value: object) -> Fault:
    """Read one fault from a table. Raises ConfigError."""
    if not isinstance(value, Mapping):
        raise source.kind(path, value, "a table with do and at")
    if "do" not in value:
        raise source.error(path, f"has no do; it takes {', '.join(_KINDS)}.")
    do, status = _kind(source, (*path, "do"), value["do"])
    keys = (*_COMMON, *_KEYS_OF[do])
    source.check_keys(path, value, keys, f"the fault {value['do']!r}")
    found: dict[str, Any] = {"do": do, "status": status}
    if "at" in value:
        found["at"] = _point(source, (*path, "at"), value["at"])
    elif do in ("http", "quota"):
        found["at"] = Point("handshake")
    else:
        raise source.error(path, f"has no at; it takes one of {', '.join(POINTS)}.")
    if found["at"].name == "handshake" and do not in _AT_HANDSHAKE:
        raise source.error(
            (*path, "at"), f"is 'handshake', where there is no session yet for {do!r}. Use 'ready' or later."
        )
    if value.get("times") == "always":
        found["times"] = None
    for key in keys:
        if key == "code" and key in value:
            name, read = ("code", _error_code) if do == "error" else ("close_code", _close_code)
            found[name] = read(source, (*path, key), value[key])
        elif key in _READ and key in value and _READ[key][0] not in found:
            name, reader = _READ[key]
            found[name] = reader(source, (*path, key), value[key])
    if "as_binary" in found:
        found["as_binary"] = found["as_binary"] == "binary"
    if do == "expire":
        found.setdefault("close_code", 1001)
        found.setdefault("reason", "session limit")
    return Fault(**found)


def _kind(source: Source, path: KeyPath, value: object) -> tuple[str, int]:
    text = str(value)
    if isinstance(value, str | int) and not isinstance(value, bool):
        if re.fullmatch(r"[45]\d\d", text):
            return "http", int(text)
        if text in _KEYS_OF and text != "http":
            return text, 0
    close = difflib.get_close_matches(text, _KEYS_OF, 1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise source.error(path, f"is {text!r}; it takes {', '.join(_KINDS)}.{hint}")


def _error_code(source: Source, path: KeyPath, value: object) -> ErrorCode:
    return ErrorCode(one_of(*(code.value for code in ErrorCode))(source, path, value))


def _point(source: Source, path: KeyPath, value: object) -> Point:
    name, *rest = source.words(path, value).split(":")
    if name not in POINTS:
        close = difflib.get_close_matches(name, POINTS, 1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise source.error(path, f"names no point {name!r}.{hint} The points: {', '.join(POINTS)}.")
    found: dict[str, Any] = {}
    if rest and "=" not in rest[0]:
        found["n"] = _which(source, path, name, rest.pop(0))
    for part in rest:
        key, _, text = part.partition("=")
        if key not in ("after_ms", "after_audio_ms") or key in found:
            raise source.error(path, f"has {part!r}; a point takes after_ms=N or after_audio_ms=N, once.")
        if key == "after_audio_ms" and name not in _WITH_AUDIO:
            raise source.error(path, f"has after_audio_ms, which {' and '.join(_WITH_AUDIO)} take alone.")
        if not text.isdecimal() or int(text) > _MAX_MS:
            raise source.error(path, f"has {part!r}; {key} takes whole milliseconds up to {_MAX_MS}.")
        found[key] = int(text)
    if name == "input" and "after_audio_ms" not in found:
        raise source.error(
            path, "needs how much audio, as in 'input:after_audio_ms=500'. Or use first_input."
        )
    return Point(name, **found)


def _which(source: Source, path: KeyPath, name: str, text: str) -> int | None:
    if name not in _COUNTED:
        raise source.error(path, f"counts {name!r}, which comes once. Counted are {', '.join(_COUNTED)}.")
    if text == "*":
        return None
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise source.error(path, f"has {text!r}; the count begins at 1, and * means each.")
    return int(text)


_COMMAND_LINE: Final = Source("--fault")


def fault_from_text(text: str) -> Fault:
    """Read a fault from one line: ``429 at=handshake retry_after=2``, or a JSON object.

    In the first form a key may leave out its unit.

    Raises:
        ConfigError: It is neither, or a key or value is wrong.
    """
    if text.lstrip().startswith("{"):
        try:
            return read_fault(_COMMAND_LINE, (), json.loads(text))
        except (ValueError, RecursionError):
            raise ConfigError("--fault: the text begins like a JSON object and is none.") from None
    try:
        first, *rest = shlex.split(text)
    except ValueError:
        raise ConfigError(
            '--fault takes what goes wrong and where, as in "429 at=handshake retry_after=2", or JSON.'
        ) from None
    table: dict[str, Any] = {"do": first}
    known = {*_READ, *_COMMON, "code"}
    for part in rest:
        key, separator, value = part.partition("=")
        if not separator:
            raise ConfigError(f"--fault: {part!r} is not KEY=VALUE.")
        for full in (key, f"{key}_s"):
            if full in known:
                key = full
                break
        table[key] = _plain_value(value)
    return read_fault(_COMMAND_LINE, (), table)


def _plain_value(text: str) -> Any:
    """Return a number or a truth value; anything else is a text."""
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text
    return value if isinstance(value, int | float | bool) else text
