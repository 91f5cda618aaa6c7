"""What a configuration asks for: typed fields and flat metadata keys in one mapping, checked.

A value stands under one name whichever way it was given; an option that was not given is absent. None is a
value of some vendor options: it switches them off.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, Final

from voxengine.config import TurnDetection
from voxengine.errors import ConfigError

__all__ = [
    "CONNECTION_KEYS",
    "NEUTRAL",
    "VENDOR",
    "asked_options",
    "metadata_of",
    "service_of",
    "unknown_keys",
]

NEUTRAL: Final = (
    "mode",
    "model",
    "voice",
    "language",
    "instructions",
    "temperature",
    "max_output_tokens",
    "modalities",
    "vocabulary",
    "turn_detection",
    "tool_choice",
    "tools",
    "input_format",
    "output_format",
    "transcription",
    "interruption",
)
"""Options of the core's configuration that shape a session."""

_FLAT: Final = {
    "model": "model",
    "voice": "voice",
    "language": "language",
    "instructions": "instructions",
    "temperature": "temperature",
    "max_output_tokens": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "modalities": "modalities",
    "vocabulary": "vocabulary",
}
"""Metadata keys that say the same as a typed field."""

CONNECTION_KEYS: Final = (
    "url",
    "endpoint",
    "region",
    "organization",
    "project",
    "safety_identifier",
    "headers",
    "ca_file",
    "auth_type",
    "auth_name",
    "dialect",
    "service",
    "session",
)
"""Metadata keys that say where to connect and how, and ``session``."""


def _bad(name: str, value: object, takes: str) -> ConfigError:
    return ConfigError(f"metadata[{name!r}] is {type(value).__name__}; it takes {takes}.")


def _number(low: float, high: float) -> Callable[[str, Any], Any]:
    def check(name: str, value: Any) -> Any:
        takes = f"a number from {low:g} to {high:g}"
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _bad(name, value, takes)
        if not low <= value <= high:
            raise ConfigError(f"metadata[{name!r}] is {value:g}; it takes {takes}.")
        return value

    return check


def _text(name: str, value: Any) -> Any:
    if not isinstance(value, str) or not value.strip():
        raise _bad(name, value, "a text")
    return value


def _flag(name: str, value: Any) -> Any:
    if not isinstance(value, bool):
        raise _bad(name, value, "true or false")
    return value


def _text_or_table(key: str) -> Callable[[str, Any], Any]:
    """Read a table, or a text that stands for the table with this one key; None switches it off."""

    def check(name: str, value: Any) -> Any:
        if isinstance(value, str) and value.strip():
            return {key: value}
        if value is None or isinstance(value, Mapping):
            return None if value is None else dict(value)
        raise _bad(name, value, f"a text ({key}), a table or None")

    return check


def _noise_reduction(name: str, value: Any) -> Any:
    return None if value in ("off", False) else _text_or_table("type")(name, value)


def _truncation(name: str, value: Any) -> Any:
    if value in ("auto", "disabled") or isinstance(value, Mapping):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"type": "retention_ratio", "retention_ratio": _number(0, 1)(name, value)}
    raise _bad(name, value, "'auto', 'disabled', a ratio from 0 to 1 or a table")


def _tracing(name: str, value: Any) -> Any:
    if value in (None, False):
        return None
    if value in (True, "auto"):
        return "auto"
    if isinstance(value, Mapping):
        return dict(value)
    raise _bad(name, value, "'auto', a table or None")


def _transcription(name: str, value: Any) -> Any:
    if isinstance(value, bool | Mapping):
        return value
    raise _bad(name, value, "true, false or a table")


def _list(name: str, value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise _bad(name, value, "a list")
    return list(value)


def _tables(name: str, value: Any) -> Any:
    if not isinstance(value, list | tuple) or not all(isinstance(item, Mapping) for item in value):
        raise ConfigError(f"metadata[{name!r}] takes a list of tables.")
    return list(value)


VENDOR: Final[Mapping[str, Callable[[str, Any], Any]]] = {
    "speed": _number(0.25, 1.5),
    "noise_reduction": _noise_reduction,
    "truncation": _truncation,
    "transcription": _transcription,
    "transcription_model": _text,
    "transcription_prompt": _text,
    "transcription_delay": _text,
    "prompt": _text_or_table("id"),
    "tracing": _tracing,
    "reasoning": _text_or_table("effort"),
    "parallel_tool_calls": _flag,
    "include": _list,
    "create_response": _flag,
    "interrupt_response": _flag,
    "mcp_servers": _tables,
}
"""Metadata keys of this vendor that shape a session, each with its check."""


def metadata_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the metadata of a configuration.

    Raises:
        ConfigError: It is no mapping.
    """
    metadata = config.get("metadata") or {}
    if not isinstance(metadata, Mapping):
        raise ConfigError(f"metadata is {type(metadata).__name__}; it takes a mapping.")
    session = metadata.get("session")
    if session is not None and not isinstance(session, Mapping):
        raise _bad("session", session, "a table in the vendor's own words")
    return metadata


def service_of(config: Mapping[str, Any]) -> object:
    """Return what ``metadata["service"]`` names, None when it names nothing. Never raises."""
    metadata = config.get("metadata")
    return metadata.get("service") if isinstance(metadata, Mapping) else None


def asked_options(
    config: Mapping[str, Any], vendor: Mapping[str, Callable[[str, Any], Any]] = VENDOR
) -> dict[str, Any]:
    """Return the options that a configuration gives, by name.

    Args:
        config: The provider's configuration.
        vendor: Metadata keys of the vendor that shape a session, each with its check.

    Raises:
        ConfigError: A value is wrong, or one option has two values.
    """
    out = {name: config[name] for name in NEUTRAL if config.get(name) is not None}
    for key, value in metadata_of(config).items():
        if key in _FLAT:
            _take_flat(out, key, value)
        elif key in vendor:
            out[key] = vendor[key](key, value)
    if "turn_detection" in out:
        out["turn_detection"] = _detection(out["turn_detection"])
    _check_modalities(out)
    if out.get("interruption", "immediate") != "immediate":
        # Only the service hears the user in time to spare the answer.
        if out.get("interrupt_response"):
            raise ConfigError(
                f"metadata['interrupt_response'] and interruption={out['interruption']!r} say different things. Keep one."
            )
        out["interrupt_response"] = False
    return out


def _take_flat(out: dict[str, Any], key: str, value: Any) -> None:
    if value is None:
        return
    name = _FLAT[key]
    held = out.get(name)
    if isinstance(held, tuple) and isinstance(value, list):
        value = tuple(value)
    if held is not None and held != value:
        raise ConfigError(
            f"{name} has two values, one of them in metadata[{key!r}]. Keep one of the two; "
            "metadata['session'] is for what must reach the vendor as it is."
        )
    out[name] = value


def _detection(value: Any) -> TurnDetection:
    if isinstance(value, TurnDetection):
        return value
    if isinstance(value, Mapping):
        return TurnDetection(**value)
    return TurnDetection(value)


def _check_modalities(out: Mapping[str, Any]) -> None:
    given = out.get("modalities")
    if given is None:
        return
    is_list = isinstance(given, list | tuple) and bool(given)
    if not is_list or not all(word in ("audio", "text") for word in given):
        raise ConfigError("modalities takes 'audio', 'text' or both.")


def unknown_keys(
    metadata: Mapping[str, Any],
    more: tuple[str, ...] = (),
    vendor: Mapping[str, Callable[[str, Any], Any]] = VENDOR,
) -> list[str]:
    """Return a sentence for each metadata key that means nothing here."""
    known = (*_FLAT, *vendor, *CONNECTION_KEYS, *more)
    out = []
    for key in metadata:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            out.append(f"metadata[{key!r}] is no option of this provider and without effect.{hint}")
    return out
