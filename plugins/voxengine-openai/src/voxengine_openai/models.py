"""What is known about model names; everything else goes to the service as it is."""

from __future__ import annotations

import re
from typing import Final

__all__ = [
    "DEFAULT_MODEL",
    "DEFAULT_TRANSCRIPTION_MODEL",
    "MAX_OUTPUT_TOKENS",
    "base_name",
    "history_chars",
    "is_live_transcriber",
    "is_reasoning",
    "realtime_model",
]

DEFAULT_MODEL: Final = "gpt-realtime-2.1"
"""gpt-realtime and gpt-realtime-mini are announced to end on 2027-01-20."""
DEFAULT_TRANSCRIPTION_MODEL: Final = "gpt-transcribe"
"""whisper-1 and the gpt-4o transcription models are announced to end on 2027-02-26."""
MAX_OUTPUT_TOKENS: Final = 4096
"""Largest number that ``max_output_tokens`` takes; beyond it there is only ``inf``."""

_TEXT_ONLY: Final = re.compile(
    r"(?:gpt-3\.5-turbo(?:-16k|-instruct)?"
    r"|gpt-4(?:-32k|-turbo|-turbo-preview|-vision-preview)?"
    r"|gpt-4o|gpt-4o-mini|chatgpt-4o-latest"
    r"|gpt-4\.1(?:-mini|-nano)?|gpt-4\.5-preview"
    r"|gpt-5(?:\.\d+)?(?:-mini|-nano|-pro|-chat-latest|-codex)?"
    r"|o[134](?:-mini|-pro|-preview)?)"
)
_DATED: Final = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{4})$")


def base_name(model: str) -> str:
    """Return a model's name without the date of its snapshot."""
    return _DATED.sub("", model)


def realtime_model(model: str | None) -> tuple[str, str]:
    """Return the model to ask for, and a sentence when that is another one than the configuration names."""
    if not model:
        return DEFAULT_MODEL, ""
    if not _TEXT_ONLY.fullmatch(base_name(model)):
        return model, ""
    return DEFAULT_MODEL, (
        f"The model {model!r} takes and gives text only and cannot hold a Realtime session; {DEFAULT_MODEL!r} is used "
        "in its place. Set model to a Realtime model to choose another."
    )


def is_reasoning(model: str) -> bool:
    """Return whether a model takes ``reasoning`` and ``parallel_tool_calls``."""
    return base_name(model).startswith("gpt-realtime-2")


def is_live_transcriber(model: str) -> bool:
    """Return whether a model writes while it hears; it finds no turns then."""
    return base_name(model) == "gpt-realtime-whisper"


def history_chars(model: str) -> int:
    """Return how many characters of earlier turns surely fit beside a conversation.

    The context holds 32,000 tokens, of the newer family 128,000; text takes about four characters to a
    token in English and fewer elsewhere, so half of the context at three is a safe measure.
    """
    return 192_000 if is_reasoning(model) else 48_000
