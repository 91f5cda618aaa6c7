"""What a configuration asks of Voice Live beyond the neutral options: flat metadata keys, each with its check."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from voxengine.errors import ConfigError
from voxengine_azure.speech.ssml import LANGUAGE
from voxengine_azure.voices import PROSODY
from voxengine_openai.options import VENDOR as OPENAI_VENDOR

__all__ = ["CONNECTION_KEYS", "VAD_KINDS", "VENDOR", "check_language"]

_Check = Callable[[str, Any], Any]

CONNECTION_KEYS: Final = (
    "token",
    "token_provider",
    "api_version",
    "deployment",
    "agent_name",
    "agent_project",
    "agent_version",
    "conversation_id",
    "agent_identity",
)
"""Metadata keys about the connection that only Azure has."""

VAD_KINDS: Final = ("azure_semantic_vad", "azure_semantic_vad_en", "azure_semantic_vad_multilingual")
"""Kinds of semantic turn detection."""

_ANIMATIONS: Final = ("viseme_id", "blendshapes")


def check_language(value: Any) -> None:
    """Raise ConfigError for what is no language, nor several with commas between them."""
    tags = value.replace("_", "-").split(",") if isinstance(value, str) else [value]
    if value is not None and not all(
        isinstance(tag, str) and LANGUAGE.fullmatch(tag.strip()) for tag in tags
    ):
        raise ConfigError(f"language is {value!r}; azure takes a language, such as 'en-US'.")


def _bad(name: str, takes: str) -> ConfigError:
    return ConfigError(f"metadata[{name!r}] takes {takes}.")


def _table(name: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise _bad(name, "a table in the service's own words")
    return dict(value)


def _echo(name: str, value: Any) -> Any:
    if isinstance(value, bool):
        return {"type": "server_echo_cancellation"} if value else None
    return {"type": "server_echo_cancellation", **_table(name, value)}


def _animation(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    outputs = [value] if isinstance(value, str) else value
    if (
        not isinstance(outputs, list | tuple)
        or not outputs
        or not all(word in _ANIMATIONS for word in outputs)
    ):
        raise _bad(name, "'viseme_id', 'blendshapes', a list of both or a table")
    return {"outputs": list(outputs)}


def _end_of_utterance(name: str, value: Any) -> Any:
    if isinstance(value, bool):
        return {"model": "semantic_detection_v1"} if value else None
    if isinstance(value, str) and value.strip():
        return {"model": value}
    return _table(name, value)


def _vad_kind(name: str, value: Any) -> Any:
    if value not in VAD_KINDS:
        raise _bad(name, f"one of {', '.join(VAD_KINDS)}")
    return value


def _milliseconds(name: str, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _bad(name, "a whole number of milliseconds")
    return value


def _ratio(name: str, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise _bad(name, "a number from 0 to 1")
    return value


_flag, _text, _list = (
    OPENAI_VENDOR["create_response"],
    OPENAI_VENDOR["transcription_model"],
    OPENAI_VENDOR["include"],
)

VENDOR: Final[Mapping[str, _Check]] = {
    **{
        name: OPENAI_VENDOR[name]
        for name in (
            "noise_reduction",
            "transcription",
            "transcription_model",
            "transcription_prompt",
            "reasoning",
            "parallel_tool_calls",
            "include",
            "create_response",
            "interrupt_response",
            "mcp_servers",
        )
    },
    **{name: _ratio if name == "voice_temperature" else _text for name in PROSODY},
    "custom_voice": _text,
    "personal_voice": _text,
    "custom_model": _text,
    "custom_speech": _table,
    "echo_cancellation": _echo,
    "timestamps": _flag,
    "animation": _animation,
    "avatar": _table,
    "semantic_vad": _vad_kind,
    "end_of_utterance": _end_of_utterance,
    "remove_filler_words": _flag,
    "speech_duration_ms": _milliseconds,
    "languages": _list,
    "auto_truncate": _flag,
    "interim_response": _table,
}
"""Metadata keys that shape a session, each with its check."""
