"""The voices of Realtime sessions, and what becomes of names that only other services of OpenAI have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["NEAREST", "REALTIME_VOICES", "realtime_voice"]

REALTIME_VOICES: Final = (
    "alloy",
    "ash",
    "ballad",
    "coral",
    "echo",
    "sage",
    "shimmer",
    "verse",
    "marin",
    "cedar",
)
"""Built-in voices of the Realtime service (``openai`` 3.54.0, ``RealtimeAudioConfigOutput``)."""

NEAREST: Final[Mapping[str, str]] = {"fable": "ballad", "onyx": "ash", "nova": "coral"}
"""Voices of the speech endpoint that Realtime refuses, and the one that comes nearest. Our choice, by ear
and description: ``fable`` is expressive and British, ``onyx`` deep, ``nova`` bright."""

_CUSTOM_PREFIX: Final = "voice_"


def realtime_voice(voice: Any) -> tuple[Any, str]:
    """Return what a session is told for a voice, and a sentence when that is another one than was asked for.

    A name that is not known goes through: the service knows its newest voices better. ``voice_…`` is the
    id of a custom voice; a mapping is sent as it is.
    """
    if not isinstance(voice, str):
        return (dict(voice) if isinstance(voice, Mapping) else voice), ""
    name = voice.strip()
    if name.startswith(_CUSTOM_PREFIX):
        return {"id": name}, ""
    known = name.lower()
    if known in NEAREST:
        nearest = NEAREST[known]
        return nearest, (
            f"The voice {known!r} exists only for text to speech; Realtime sessions refuse it. {nearest!r} speaks "
            f"in its place. The Realtime voices: {', '.join(REALTIME_VOICES)}."
        )
    return (known if known in REALTIME_VOICES else name), ""
