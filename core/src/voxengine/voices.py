"""The voice map: which voice takes over when a conversation moves to another provider.

A name means nothing to another vendor, so a voice never crosses as it is. Where two vendors are in the table, the
counterpart speaks; else the voice that is most like it by language, gender and style; where nothing is known of one
of the two, the new provider's own default does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

__all__ = ["VOICE_MAP", "VOICE_TRAITS", "Traits", "counterpart", "nearest"]

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


@attrs.frozen
class Traits:
    """How a voice sounds, as far as that helps to find one like it."""

    gender: str
    """``f``, ``m`` or ``n``."""
    style: str
    """``calm``, ``warm``, ``bright``, ``deep`` or ``lively``."""
    language: str = "*"
    """BCP 47 tag; ``*``: any language."""


VOICE_TRAITS: Final[Mapping[str, Mapping[str, Traits]]] = {
    "openai": {
        "alloy": Traits("n", "calm"),
        "ash": Traits("m", "calm"),
        "ballad": Traits("m", "warm"),
        "cedar": Traits("m", "warm"),
        "coral": Traits("f", "bright"),
        "echo": Traits("m", "bright"),
        "fable": Traits("m", "lively"),
        "marin": Traits("f", "warm"),
        "nova": Traits("f", "lively"),
        "onyx": Traits("m", "deep"),
        "sage": Traits("f", "calm"),
        "shimmer": Traits("f", "bright"),
        "verse": Traits("m", "lively"),
    },
    "azure": {
        "en-US-JennyNeural": Traits("f", "warm", "en-US"),
        "en-US-AriaNeural": Traits("f", "lively", "en-US"),
        "en-US-AvaNeural": Traits("f", "bright", "en-US"),
        "en-US-SaraNeural": Traits("f", "calm", "en-US"),
        "en-US-GuyNeural": Traits("m", "bright", "en-US"),
        "en-US-DavisNeural": Traits("m", "deep", "en-US"),
        "en-US-AndrewNeural": Traits("m", "warm", "en-US"),
        "en-US-BrianNeural": Traits("m", "lively", "en-US"),
        "en-US-JasonNeural": Traits("m", "calm", "en-US"),
        "en-GB-SoniaNeural": Traits("f", "calm", "en-GB"),
        "en-GB-RyanNeural": Traits("m", "lively", "en-GB"),
        "de-DE-KatjaNeural": Traits("f", "calm", "de-DE"),
        "de-DE-ConradNeural": Traits("m", "calm", "de-DE"),
        "es-ES-ElviraNeural": Traits("f", "calm", "es-ES"),
        "es-ES-AlvaroNeural": Traits("m", "calm", "es-ES"),
        "fr-FR-DeniseNeural": Traits("f", "calm", "fr-FR"),
        "fr-FR-HenriNeural": Traits("m", "calm", "fr-FR"),
        "it-IT-ElsaNeural": Traits("f", "calm", "it-IT"),
        "it-IT-DiegoNeural": Traits("m", "calm", "it-IT"),
        "ja-JP-NanamiNeural": Traits("f", "calm", "ja-JP"),
        "ja-JP-KeitaNeural": Traits("m", "calm", "ja-JP"),
        "pt-BR-FranciscaNeural": Traits("f", "calm", "pt-BR"),
        "pt-BR-AntonioNeural": Traits("m", "calm", "pt-BR"),
        "zh-CN-XiaoxiaoNeural": Traits("f", "calm", "zh-CN"),
        "zh-CN-YunxiNeural": Traits("m", "calm", "zh-CN"),
    },
    "mock": {
        "aria": Traits("f", "bright"),
        "bruno": Traits("m", "deep"),
        "celia": Traits("f", "warm"),
        "dante": Traits("m", "lively"),
    },
}
"""By provider. Our description of the names, for voices that the table above does not pair."""


def nearest(voice: str | None, source: str, target: str, language: str | None = None) -> str | None:
    """Return the voice of a provider that is most like one of another's; None when either is not described.

    Args:
        voice: Its name at ``source``.
        source: The provider that has it, by name.
        target: The provider that is to speak.
        language: What is spoken, as a BCP 47 tag; None: what the voice was made for.

    The language counts first, then the gender, then the style.
    """
    if not isinstance(voice, str):
        return None
    known = {name.lower(): traits for name, traits in VOICE_TRAITS.get(source, {}).items()}
    wanted = known.get(voice.strip().lower())
    offered = VOICE_TRAITS.get(target, {})
    if wanted is None or not offered:
        return None
    spoken = (language or ("en-US" if wanted.language == "*" else wanted.language)).lower()

    def likeness(name: str) -> tuple[int, bool, bool]:
        traits = offered[name]
        own = traits.language.lower()
        is_near = own.partition("-")[0] == spoken.partition("-")[0]
        fits = 3 if own == spoken else 2 if own == "*" else 1 if is_near else 0
        return fits, traits.gender == wanted.gender, traits.style == wanted.style

    best = max(offered, key=likeness)
    return best if likeness(best)[0] else None
