"""Prices from the dated table ``prices.toml``."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

from voxengine_openai.models import base_name

__all__ = ["is_priced", "price_table", "response_cost", "transcription_cost"]

_MILLION: Final = 1_000_000
_AUDIO_TOKENS_PER_MINUTE: Final = 600
"""A token of user audio is 100 ms."""


@functools.cache
def price_table() -> Mapping[str, Any]:
    """Return the table: ``as_of``, ``source``, ``models`` and ``transcription``."""
    import tomllib
    from importlib.resources import files

    return tomllib.loads(files("voxengine_openai").joinpath("prices.toml").read_text(encoding="utf-8"))


def _entry(kind: str, model: str) -> Mapping[str, Any] | None:
    table = price_table()[kind]
    found = table.get(model) or table.get(base_name(model))
    return found if isinstance(found, Mapping) else None


def is_priced(model: str) -> bool:
    """Return whether the price of a model's responses is known."""
    return _entry("models", model) is not None


def response_cost(model: str, usage: Mapping[str, Mapping[str, int]]) -> float | None:
    """Return what tokens cost in US dollars, None for a model without a price.

    Args:
        model: Name of the model.
        usage: ``input``, ``cached`` (a part of ``input``) and ``output``, each by modality.
    """
    entry = _entry("models", model)
    if entry is None:
        return None
    total = 0.0
    for modality, prices in entry.items():
        n_input = usage["input"].get(modality, 0)
        n_cached = min(usage["cached"].get(modality, 0), n_input)
        total += (n_input - n_cached) * prices[0] + n_cached * prices[1]
        if len(prices) > 2:
            total += usage["output"].get(modality, 0) * prices[2]
    return total / _MILLION


def transcription_cost(model: str, usage: Mapping[str, float]) -> float | None:
    """Return what a transcription costs in US dollars, None for a model without a price.

    Args:
        model: Name of the transcription model.
        usage: ``seconds``, or ``text``, ``audio`` and ``output`` tokens.
    """
    entry = _entry("transcription", model)
    if entry is None:
        return None
    if "minute" in entry:
        minutes = usage.get("seconds", 0) / 60 or usage.get("audio", 0) / _AUDIO_TOKENS_PER_MINUTE
        return float(minutes * entry["minute"])
    text, audio, output = entry["tokens"]
    counts = (usage.get("text", 0) * text, usage.get("audio", 0) * audio, usage.get("output", 0) * output)
    return float(sum(counts) / _MILLION)
