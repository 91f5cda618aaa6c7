"""Events, calls and configurations as the lines of a recording show them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, Final

from voxengine._config_json import config_to_json
from voxengine.config import VoiceEngineConfig
from voxengine.errors import AudioDeviceError
from voxengine.events import EventType, LazyAudio
from voxengine.recording_values import Plain

__all__ = ["OUTSIDE", "is_outside", "show_arguments", "show_config", "show_event"]

OUTSIDE: Final = frozenset(
    {EventType.AUDIO_INPUT_STARTED, EventType.AUDIO_INPUT_STOPPED, EventType.AUDIO_INPUT_DROPPED}
)
"""Events about devices, which a replay has none of."""
_OUTSIDE_WARNINGS: Final = ("no_loudspeaker", "device_returned")


def is_outside(event_type: EventType, data: Mapping[str, Any]) -> bool:
    """Return whether an event is about a microphone or a loudspeaker."""
    if event_type is EventType.WARNING:
        return data.get("code") in _OUTSIDE_WARNINGS
    return event_type in OUTSIDE or isinstance(data.get("error"), AudioDeviceError)


def show_config(plain: Plain, config: VoiceEngineConfig) -> dict[str, Any]:
    """Return a configuration in plain form; without words, what metadata says stays out too."""

    def bare(value: dict[str, Any]) -> dict[str, Any]:
        out = {name: held for name, held in value.items() if name != "metadata"}
        if "fallbacks" in out:
            out["fallbacks"] = [bare(held) for held in out["fallbacks"]]
        return out

    value = config_to_json(config)
    shown: dict[str, Any] = plain.value(value if plain.transcripts else bare(value))
    return shown


def show_event(
    plain: Plain, event_type: EventType, data: Mapping[str, Any], *, keeps_audio: bool = False
) -> dict[str, Any]:
    """Return an event's data in plain form; the audio of one that was emitted by its length and sum."""
    out: dict[str, Any] = {}
    for name, value in data.items():
        if name == "audio_data" and not keeps_audio:
            out[name] = _sum(plain, value)
        elif name == "value" and event_type is EventType.SPEECH_MARK and data.get("kind") != "word":
            out[name] = str(value)
        else:
            is_said = (
                event_type is EventType.FUNCTION_CALL_FAILED and name == "error" and not plain.transcripts
            )
            out[name] = plain.value(value, name, is_said=is_said)
    return out


def show_arguments(plain: Plain, args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call of the contract in plain form; audio by its length and sum."""
    return {
        name: _sum(plain, value) if name == "audio_data" else plain.value(value, name)
        for name, value in args.items()
    }


def _sum(plain: Plain, audio: Any) -> dict[str, Any]:
    try:
        pcm = audio.pcm() if isinstance(audio, LazyAudio) else bytes(audio)
    except Exception:
        return {"n_bytes": 0}
    return {"n_bytes": len(pcm), "crc": zlib.crc32(pcm)} if plain.audio else {"n_bytes": len(pcm)}
