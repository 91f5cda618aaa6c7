"""The emulator of Voice Live: ``voxengine emulate azure-voice-live``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from voxengine.testing.emulator import HttpRequest
from voxengine_azure.emulator.dialogue import AzureDialogueEmulator
from voxengine_azure.emulator.voice_live_session import VoiceLiveSession
from voxengine_azure.voice_live.dialect import VOICE_LIVE
from voxengine_azure.voices import NATIVE_VOICES
from voxengine_openai.emulator.config import INSTRUCTIONS, OPENAI, PCM, Profile
from voxengine_openai.emulator.errors import Refused
from voxengine_openai.emulator.session import RealtimeSession
from voxengine_openai.voices import REALTIME_VOICES

__all__ = ["AzureVoiceLiveEmulator"]

_VERSION: Final = re.compile(r"\d{4}-\d{2}-\d{2}(-preview)?|v1")
_NAME: Final = re.compile(r"[a-z]{2,3}-[A-Za-z]{2,4}(-[A-Za-z]+)?-\w+(:\w+)?")
_VAD: Final[dict[str, Any]] = {
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 500,
    "create_response": True,
    "interrupt_response": True,
}
_SEMANTIC: Final[dict[str, Any]] = {**_VAD, "speech_duration_ms": 80, "remove_filler_words": False}
_SERVER: Final[dict[str, Any]] = {"type": "server_vad", **_VAD}
_DEFAULTS: Final[dict[str, Any]] = {
    "output_modalities": ["audio"],
    "instructions": INSTRUCTIONS,
    "tools": [],
    "tool_choice": "auto",
    "temperature": 0.7,
    "max_output_tokens": "inf",
    "audio": {
        "input": {"format": PCM, "transcription": None, "noise_reduction": None, "turn_detection": _SERVER},
        "output": {
            "format": PCM,
            "voice": {"type": "azure-standard", "name": "en-US-Ava:DragonHDLatestNeural"},
            "speed": 1.0,
        },
    },
}
_KINDS: Final[dict[str, Mapping[str, Any]]] = {
    "server_vad": _SERVER,
    **{
        name: {"type": name, **_SEMANTIC}
        for name in ("azure_semantic_vad", "azure_semantic_vad_en", "azure_semantic_vad_multilingual")
    },
    **{name: OPENAI.kinds[name] for name in ("audio/pcm", "audio/pcmu", "audio/pcma")},
}
_WHOLE: Final = OPENAI.whole | {
    "voice",
    "transcription",
    "noise_reduction",
    "input_audio_echo_cancellation",
    "end_of_utterance_detection",
    "animation",
    "avatar",
    "interim_response",
}


def _check_voice(voice: Any, model: str, param: str) -> None:
    """Refuse a voice that the service surely has not: other names of Azure's form it is trusted to have."""
    kind = voice.get("type") if isinstance(voice, dict) else "openai"
    name = str(voice.get("name", "") if isinstance(voice, dict) else voice)
    known = {
        "openai": name in REALTIME_VOICES or (isinstance(voice, str) and _NAME.fullmatch(name) is not None),
        "azure-standard": _NAME.fullmatch(name) is not None,
        "azure-realtime-native": model == "azure-realtime" and name in NATIVE_VOICES,
    }
    if not known.get(str(kind), True):
        raise Refused(f"The voice {name[:64]!r} is not supported.", "invalid_value", param)


_PROFILE: Final = Profile(
    dialect=VOICE_LIVE,
    is_strict=False,
    defaults=_DEFAULTS,
    kinds=_KINDS,
    whole=_WHOLE,
    check_voice=_check_voice,
)


class AzureVoiceLiveEmulator(AzureDialogueEmulator):
    """Voice Live at ``/voice-live/realtime``, in any version of its API. Any model and any agent is there."""

    name: ClassVar[str] = "azure-voice-live"
    url_path: ClassVar[str] = ""
    paths: ClassVar[tuple[str, ...]] = ("/voice-live/realtime",)
    session_class: ClassVar[type[RealtimeSession]] = VoiceLiveSession

    def profile_of(self, request: HttpRequest) -> Profile:
        version = request.query.get("api-version", "")
        if not _VERSION.fullmatch(version):
            raise Refused(
                "The query parameter api-version is missing or wrong.", "invalid_api_version", "api-version"
            )
        return _PROFILE

    def kind_of(self, request: HttpRequest) -> str:
        return "realtime"

    def model_of(self, request: HttpRequest) -> str:
        model = request.query.get("model") or (request.query.get("agent-name") and "gpt-4o")
        if not model:
            raise Refused("You must provide a model or an agent.", "missing_model", "model")
        return model
