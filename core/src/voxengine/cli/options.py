"""From the options of ``talk`` to a configuration."""

from __future__ import annotations

import argparse
import re
import tomllib
from collections.abc import Mapping
from typing import Any, Final

import attrs

from voxengine.cli.functions import load_function
from voxengine.cli.terminal import prints_to_stderr
from voxengine.config import VoiceEngineConfig, config_path, profile_names, thawed
from voxengine.errors import ConfigError, LocalProtocolError, ProviderNotFound
from voxengine.providers.registry import available_providers, default_registry

__all__ = ["build_config", "parse_metadata"]

_OPTIONS: Final = ("mode", "model", "voice", "language", "instructions")
_BARE_WORD: Final = re.compile(r"[^\s\"'\[{].*", re.DOTALL)


def build_config(arguments: argparse.Namespace) -> VoiceEngineConfig:
    """Return the configuration that the options ask for, over that of the profile.

    Raises:
        ConfigError: The options are wrong together, or the file, the profile or a value is.
        ProviderNotFound: The provider is not there or cannot be used.
    """
    base = _base(arguments)
    changes: dict[str, Any] = {
        name: getattr(arguments, name) for name in _OPTIONS if getattr(arguments, name) is not None
    }
    metadata: dict[str, Any] = thawed(base.metadata)
    for name in changes:
        metadata.pop(name, None)  # The flat key of the profile says the same as the option that wins.
    for text in arguments.metadata:
        _merge(metadata, parse_metadata(text))
    if arguments.url is not None:
        metadata["url"] = arguments.url
    if arguments.fast:
        changes["playback"] = "external"
    if getattr(arguments, "fallback", None):
        changes["fallbacks"] = (
            *base.fallbacks,
            *(_fallback(text, arguments.config) for text in arguments.fallback),
        )
    if arguments.tool:
        changes["tools"] = (*base.tools, *map(load_function, arguments.tool))
    config = attrs.evolve(base, metadata=metadata, **changes)
    with prints_to_stderr():
        for name in (config.provider, *(fallback.provider for fallback in config.fallbacks)):
            try:
                default_registry.get(name)
            except (
                LocalProtocolError
            ) as error:  # No conversation was held: it is of no more use than one not there.
                raise ProviderNotFound(str(error), provider=name) from error
    return config


def _fallback(text: str, path: str | None) -> VoiceEngineConfig:
    name, separator, url = (part.strip() for part in text.partition("="))
    if not name or (separator and not url):
        raise ConfigError(
            f"--fallback takes a profile, a provider or PROVIDER=URL, for example mock=ws://127.0.0.1:9000; it got {text!r}."
        )
    if url:
        return VoiceEngineConfig(provider=name, metadata={"url": url})
    if name in profile_names(path):
        return VoiceEngineConfig.load(profile=name, path=path)
    return VoiceEngineConfig(provider=name)


def _base(arguments: argparse.Namespace) -> VoiceEngineConfig:
    named = arguments.profile is not None or arguments.config is not None
    if named or (arguments.provider is None and config_path().is_file()):
        loaded = VoiceEngineConfig.load(profile=arguments.profile, path=arguments.config)
        # Keys, metadata and voices of one provider never reach another.
        if arguments.provider not in (None, loaded.provider):
            raise ConfigError(
                f"The profile is for the provider {loaded.provider!r} and --provider names "
                f"{arguments.provider!r}. Give one of the two."
            )
        return loaded
    if arguments.provider is None:
        names = ", ".join(info.name for info in available_providers()) or "none"
        raise ConfigError(f"With whom? Give --provider NAME (installed: {names}) or --profile NAME.")
    return VoiceEngineConfig(provider=arguments.provider)


def parse_metadata(text: str) -> dict[str, Any]:
    """Read ``key=value`` as TOML; a value that is a bare word is a text.

    Raises:
        ConfigError: It is neither.
    """
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--metadata takes KEY=VALUE, for example seed=7; it got {key.strip()!r}.")
    try:
        found = tomllib.loads(f"{key}={value}")
    except tomllib.TOMLDecodeError:
        if not _BARE_WORD.fullmatch(value.strip()):
            raise ConfigError(
                f"The value of --metadata {key.strip()}=… is no valid TOML. A text goes in quotes, a list in "
                "[…], a table in {…}; quote all of it for the shell."
            ) from None
        return {key.strip(): value.strip()}
    if len(found) != 1:
        raise ConfigError(f"--metadata {key.strip()}=… holds several keys. Repeat the option for each.")
    return found


def _merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    for key, value in new.items():
        held = into.get(key)
        if isinstance(held, dict) and isinstance(value, dict):
            _merge(held, value)
        else:
            into[key] = value
