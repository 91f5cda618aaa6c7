"""A configuration as plain JSON values, without its secrets and its functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from voxengine.audio.format import AudioFormat
from voxengine.audio.options import DeviceOptions
from voxengine.config import Deadlines, Reconnect, TurnDetection, VoiceEngineConfig
from voxengine.errors import ConfigError
from voxengine.scrubbing import secret_values, without_secrets

__all__ = ["all_secrets", "config_from_json", "config_to_json", "format_to_json"]

_LEFT_OUT: Final = ("api_key", "tools")


def format_to_json(audio_format: AudioFormat) -> dict[str, Any]:
    """Return an audio format as the arguments of its class."""
    return {
        "sample_rate": audio_format.sample_rate,
        "channels": audio_format.channels,
        "encoding": str(audio_format.encoding),
    }


def all_secrets(config: VoiceEngineConfig) -> list[str]:
    """Return the secrets of a configuration and of its fallbacks, longest first."""
    found = set(secret_values({"api_key": config.api_key, "metadata": config.metadata}))
    for fallback in config.fallbacks:
        found.update(all_secrets(fallback))
    return sorted(found, key=len, reverse=True)


def config_to_json(config: VoiceEngineConfig, secrets: Sequence[str] | None = None) -> dict[str, Any]:
    """Return what was set; keys, what metadata calls a secret, and functions are left out.

    Args:
        config: The configuration.
        secrets: Texts that are masked wherever they appear; None: those of the configuration.
    """
    hidden = all_secrets(config) if secrets is None else secrets
    out: dict[str, Any] = {}
    for field in attrs.fields(VoiceEngineConfig):
        value = getattr(config, field.name)
        if field.name in _LEFT_OUT or (field.name != "provider" and value == _default(field)):
            continue
        if isinstance(value, AudioFormat):
            value = format_to_json(value)
        elif isinstance(value, TurnDetection | Deadlines | Reconnect | DeviceOptions):
            value = {name: held for name, held in attrs.asdict(value).items() if held is not None}
        elif field.name == "fallbacks":
            value = [config_to_json(fallback, hidden) for fallback in value]
        out[field.name] = without_secrets(value, hidden) if field.name != "fallbacks" else value
    return out


def config_from_json(value: object) -> VoiceEngineConfig:
    """Return the configuration that :func:`config_to_json` described.

    Raises:
        ConfigError: The value describes none.
    """
    if not isinstance(value, Mapping):
        raise ConfigError("A stored configuration is a mapping.")
    known = [field.name for field in attrs.fields(VoiceEngineConfig) if field.name not in _LEFT_OUT]
    for name in value:
        if name not in known:
            raise ConfigError(f"A stored configuration has an unknown option {name!r}.")
    values = dict(value)
    fallbacks = values.pop("fallbacks", ())
    if not isinstance(fallbacks, list | tuple):
        raise ConfigError("A stored configuration holds no list of fallbacks.")
    return VoiceEngineConfig(**values, fallbacks=tuple(config_from_json(held) for held in fallbacks))


def _default(field: attrs.Attribute[Any]) -> Any:
    default: Any = field.default
    return default.factory() if isinstance(default, attrs.Factory) else default  # type: ignore[arg-type]
