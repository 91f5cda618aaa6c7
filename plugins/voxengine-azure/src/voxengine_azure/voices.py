"""Voices of the dialogue services: what a name means to Voice Live, and what an Azure name means to Azure OpenAI."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from voxengine.errors import ConfigError
from voxengine.voices import VOICE_MAP, counterpart
from voxengine_openai.voices import REALTIME_VOICES

__all__ = ["NATIVE_VOICES", "PROSODY", "is_azure_voice", "speaks_natively", "voice_live_voice"]

PROSODY: Final[Mapping[str, str]] = {
    "style": "style",
    "rate": "rate",
    "pitch": "pitch",
    "volume": "volume",
    "voice_temperature": "temperature",
    "voice_locale": "locale",
    "custom_lexicon_url": "custom_lexicon_url",
}
"""Metadata keys about how a voice speaks, and what the service calls them."""

NATIVE_VOICES: Final = (
    "aarti",
    "andrew",
    "ava",
    "denise",
    "diya",
    "elsa",
    "florian",
    "francisca",
    "meera",
    "xiaoxiao",
    "yunxi",
    "ximena",
)
"""Voices of the model ``azure-realtime`` itself."""

_AZURE_NAME: Final = re.compile(r"[a-z]{2,3}-[A-Za-z0-9-]+-\S+")
_OPENAI_NAMES: Final = frozenset(VOICE_MAP[("openai", "azure")]) | set(REALTIME_VOICES)
_NATIVE_MODEL: Final = "azure-realtime"
_OPENAI_MODEL: Final = re.compile(r"gpt-.*realtime")


def speaks_natively(model: str) -> bool:
    """Return whether a model has OpenAI's voices; the others speak with Azure's alone."""
    return _OPENAI_MODEL.match(model) is not None


def is_azure_voice(voice: object) -> bool:
    """Return whether a voice, as a session names it, is one of Azure's speech synthesis: those give word timings."""
    if isinstance(voice, Mapping):
        return str(voice.get("type", "")).startswith(("azure-standard", "azure-custom", "azure-personal"))
    return isinstance(voice, str) and _AZURE_NAME.fullmatch(voice) is not None


def voice_live_voice(
    voice: Any, model: str, manner: Mapping[str, Any], custom: str | None, personal: str | None
) -> tuple[Any, str]:
    """Return what a session is told for a voice, and a sentence when that is another one than was asked for.

    Args:
        voice: A name, or an object of the service, which goes as it is.
        model: The session's model.
        manner: How it is to speak, in the service's words.
        custom: The deployment of a custom voice.
        personal: The model of a personal voice.

    Raises:
        ConfigError: The manner is given for a voice that has none.
    """
    if not isinstance(voice, str):
        return (dict(voice) if isinstance(voice, Mapping) else voice), ""
    name, sentence = voice.strip(), ""
    if custom is not None:
        return {"type": "azure-custom", "name": name, "endpoint_id": custom, **manner}, ""
    if personal is not None:
        return {"type": "azure-personal", "name": name, "model": personal, **manner}, ""
    known = name.lower()
    if known in _OPENAI_NAMES:
        if known in REALTIME_VOICES and speaks_natively(model) and not manner:
            return {"type": "openai", "name": known}, ""
        found = counterpart(known, "openai", "azure")
        assert found is not None
        name = found
        sentence = (
            f"The voice {known!r} is one of OpenAI's and not to be had here; {found!r} speaks in its place. "
            "Name a voice of Azure to choose another."
        )
    if _AZURE_NAME.fullmatch(name):
        return {"type": "azure-standard", "name": name, **manner}, sentence
    if manner:
        raise ConfigError(
            f"{', '.join(sorted(manner))} shape a voice of Azure's, and the voice is {name!r}. Name one such as "
            "'en-US-JennyNeural'."
        )
    if model == _NATIVE_MODEL and known in NATIVE_VOICES:
        return {"type": "azure-realtime-native", "name": known}, ""
    return name, ""
