"""The voice map: which voice takes over when a conversation moves to another provider.

A name means nothing to another vendor, so a voice never crosses as it is. Where two vendors are in the table, the
counterpart speaks; where they are not, the new provider's own default does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["VOICE_MAP", "counterpart"]

VOICE_MAP: Final[Mapping[tuple[str, str], Mapping[str, str]]] = {
    ("openai", "azure"): {
        "alloy": "en-US-JennyNeural",
        "nova": "en-US-AriaNeural",
        "echo": "en-US-GuyNeural",
        # The first three are those of the provider guide. The others are our choice, by gender and manner.
        "ash": "en-US-JasonNeural",
        "ballad": "en-US-TonyNeural",
        "cedar": "en-US-AndrewNeural",
        "coral": "en-US-JaneNeural",
        "fable": "en-GB-RyanNeural",
        "marin": "en-US-AvaNeural",
        "onyx": "en-US-DavisNeural",
        "sage": "en-US-SaraNeural",
        "shimmer": "en-US-NancyNeural",
        "verse": "en-US-BrianNeural",
    },
}
"""By pair of providers: names of the first and their counterparts of the second. Each pair holds for both ways."""


def counterpart(voice: str | None, source: str, target: str) -> str | None:
    """Return the voice of a provider that stands for one of another's; None when the table has none.

    Args:
        voice: Its name at ``source``.
        source: The provider that has it, by name.
        target: The provider that is to speak.
    """
    if not isinstance(voice, str):
        return None
    table = VOICE_MAP.get((source, target))
    if table is not None:
        return table.get(voice.strip().lower())
    table = VOICE_MAP.get((target, source), {})
    return next((name for name, other in table.items() if other.lower() == voice.strip().lower()), None)
