"""What a configuration becomes on its way to a provider: checked, carried over, and told in neutral words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs

from voxengine.audio.format import AudioFormat
from voxengine.capabilities import Capabilities, Support
from voxengine.config import TurnDetection, VoiceEngineConfig, profile_names
from voxengine.errors import CapabilityMissing, ConfigError
from voxengine.voices import counterpart, nearest

if TYPE_CHECKING:
    from voxengine.session import Session

__all__ = [
    "NEUTRAL",
    "carried_over",
    "engine_fields_kept",
    "find_target",
    "missing_dialogue",
    "settings_of",
    "supported_detection",
]


def carried_over(old: VoiceEngineConfig, new: VoiceEngineConfig) -> VoiceEngineConfig:
    """Return the configuration to switch to, with what belongs to the conversation and not to a provider.

    Instructions and language go over where the new configuration has none, the voice's counterpart or the nearest
    to it where one is known, and what the user's voice does to an answer always. Keys, metadata, endpoint and model never do.
    """
    changes = {
        name: getattr(old, name)
        for name in ("instructions", "language")
        if new.option(name) is None and getattr(old, name) is not None
    }
    if new.option("voice") is None:
        spoken, names = old.option("voice"), (old.provider, new.provider)
        voice = counterpart(spoken, *names) or nearest(spoken, *names, new.language or old.language)
        if voice is not None:
            changes["voice"] = voice
    if new.interruption != old.interruption:
        changes["interruption"] = (
            old.interruption
        )  # The engine keeps its own, and the next session has to know.
    return attrs.evolve(new, **changes) if changes else new


_ENGINE_FIELDS: Final = (
    "fallbacks",
    "journal_s",
    "interruption",
    "playback",
    "input_device",
    "output_device",
    "device_options",
    "keep_audio_s",
    "tools",
    "tool_timeout_s",
    "deadlines",
    "reconnect",
)


def engine_fields_kept(
    old: VoiceEngineConfig, new: VoiceEngineConfig, *, formats: bool = False
) -> VoiceEngineConfig:
    """Return the configuration in force after a switch: what belongs to the engine stays.

    Args:
        formats: Keep the formats too where they were set; while no session has fixed them.
    """
    if formats:
        for name in ("input_format", "output_format"):
            if getattr(old, name) is not None:
                new = attrs.evolve(new, **{name: getattr(old, name)})
    return attrs.evolve(new, **{name: getattr(old, name) for name in _ENGINE_FIELDS})


NEUTRAL: Final = (
    "model",
    "voice",
    "language",
    "instructions",
    "temperature",
    "max_output_tokens",
    "modalities",
    "vocabulary",
)
"""Options that a provider may lack; setting one of them is then said to be without effect."""


def supported_detection(offered: Capabilities, wanted: TurnDetection) -> TurnDetection:
    """Return the turn detection in force: a kind that the provider is known not to have moves to the client."""
    rows = {"server": "server_turn_detection", "semantic": "semantic_turn_detection"}
    row = rows.get(wanted.kind)
    if row is None:
        return wanted
    cell = offered.support(row)
    if cell.support in (Support.UNSUPPORTED, Support.PLANNED):
        return attrs.evolve(wanted, kind="client", eagerness=None, idle_timeout_ms=None)
    return wanted


def settings_of(
    config: VoiceEngineConfig, session: Session, source: AudioFormat, target: AudioFormat
) -> dict[str, Any]:
    """Return what a session's ``settings`` begin with: what it was asked for and can be had, in neutral words."""
    given, honoured = session.config, type(session.provider).options
    shown = {
        name: given[name]
        for name in (
            "model",
            "voice",
            "language",
            "temperature",
            "max_output_tokens",
            "modalities",
            "tool_choice",
        )
        if name in given and (honoured is None or name in honoured)
    }
    tools = given.get("tools", ()) if session.can("session_tools") else ()
    return {
        "provider": config.provider,
        "mode": config.mode,
        **shown,
        "turn_detection": given["turn_detection"].kind,
        "transcription": given.get("transcription", "provider"),
        "interruption": config.interruption,
        "input_format": source.describe(),
        "output_format": target.describe(),
        "provider_input_format": session.input_format.describe(),
        "tools": [tool["name"] for tool in tools],
    }


def find_target(
    name: str,
    current: VoiceEngineConfig,
    given: VoiceEngineConfig | None,
    used: Mapping[str, VoiceEngineConfig],
) -> VoiceEngineConfig:
    """Return the configuration that ``switch_provider(name, given)`` means.

    Without one: the latest of that provider that the engine used (``used``, by provider), then the fallback of that
    provider, then the profile of that name, then the provider's own environment variables.

    Raises:
        ConfigError: ``given`` is for another provider.
    """
    if given is not None:
        value: object = given
        if not isinstance(value, VoiceEngineConfig):
            raise ConfigError(
                f"switch_provider got a {type(value).__name__}. Make it a configuration first: VoiceEngineConfig(**config)."
            )
        if given.provider != name:
            raise ConfigError(
                f"switch_provider({name!r}, config) got a configuration for {given.provider!r}. Name the same provider in both."
            )
        return given
    if name in used:
        return used[name]
    for fallback in current.fallbacks:
        if fallback.provider == name:
            return fallback
    if name in profile_names():
        return VoiceEngineConfig.load(profile=name)
    return VoiceEngineConfig(provider=name)


def missing_dialogue(name: str, old: str, why: str = "") -> CapabilityMissing:
    """Return the error of putting a provider without dialogue in the place of one with it; ``why`` is its own."""
    said = f"{name} says: {why}. " if why else ""
    new, present = (
        (name, old) if name != old else (f"{name}, as this configuration asks for it,", "as it is now it")
    )
    return CapabilityMissing(
        f"switch_provider: {new} cannot hold a dialogue and {present} can: it would listen or speak and never answer. "
        f"{said}Nothing was changed. Pass degrade=True to accept that.",
        capability="dialogue",
        provider=name,
    )
