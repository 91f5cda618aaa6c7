"""Counts what a session used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from voxengine_openai.prices import response_cost, transcription_cost

__all__ = ["UsageMeter", "flaw_in"]

_MODALITIES: Final = ("text", "audio", "image")
_MOST: Final = 10**9
"""No session counts as much, neither tokens nor seconds; arithmetic with what is beyond need not work."""
_SUMS: Final = frozenset({"input_tokens", "output_tokens", "total_tokens", "seconds"})


def count(value: object) -> int:
    """Return a number of tokens as the service gave it; 0 for what is none."""
    return value if isinstance(value, int) and _is_count(value) else 0


def _is_count(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _MOST


def _details(usage: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = usage.get(name)
    return found if isinstance(found, Mapping) else {}


def flaw_in(usage: object) -> str:
    """Return which part of a ``usage`` cannot be counted, in a few words; empty when there is no such part.

    None is no usage, and nothing is wrong with that.
    """
    if usage is None:
        return ""
    if not isinstance(usage, Mapping):
        return "usage is no object"
    wrong = _wrong_part(usage, "usage")
    if wrong:
        return f"{wrong} is wrong"
    return "" if any(usage.get(name) is not None for name in _SUMS) else "usage has no count"


def _wrong_part(usage: Mapping[str, Any], path: str) -> str:
    """Return the path of the first value that is neither absent nor of its kind; empty: none is."""
    for name, value in usage.items():
        if value is None:
            continue
        if name.endswith("_details"):
            below = _wrong_part(value, f"{path}.{name}") if isinstance(value, Mapping) else f"{path}.{name}"
            if below:
                return below
        elif name == "seconds" or name.endswith("_tokens"):
            is_fit = _is_count(value) and (name == "seconds" or isinstance(value, int))
            if not is_fit:
                return f"{path}.{name}"
    return ""


class UsageMeter:
    """The tokens of one session, by direction and modality, and their price."""

    def __init__(self) -> None:
        self._n_responses = 0
        self._totals = {"total_tokens": 0, "input_tokens": 0, "output_tokens": 0}
        self._by: dict[str, dict[str, int]] = {
            "input": dict.fromkeys(_MODALITIES, 0),
            "cached": dict.fromkeys(_MODALITIES, 0),
            "output": dict.fromkeys(_MODALITIES[:2], 0),
        }
        self._heard: dict[str, dict[str, float]] = {}

    def add_response(self, usage: Mapping[str, Any]) -> None:
        """Count the ``usage`` of a ``response.done``."""
        self._n_responses += 1
        for name in self._totals:
            self._totals[name] += count(usage.get(name))
        given = _details(usage, "input_token_details")
        cached = _details(given, "cached_tokens_details")
        made = _details(usage, "output_token_details")
        n_cached = 0
        for modality in _MODALITIES:
            self._by["input"][modality] += count(given.get(f"{modality}_tokens"))
            n = count(cached.get(f"{modality}_tokens"))
            self._by["cached"][modality] += n
            n_cached += n
        # Without details the cached part counts as the cheapest reading of it: text.
        self._by["cached"]["text"] += max(count(given.get("cached_tokens")) - n_cached, 0)
        for modality in _MODALITIES[:2]:
            self._by["output"][modality] += count(made.get(f"{modality}_tokens"))

    def add_transcription(self, usage: Mapping[str, Any], model: str) -> None:
        """Count the ``usage`` of a completed transcription."""
        held = self._heard.setdefault(model, {"seconds": 0.0, "text": 0, "audio": 0, "output": 0})
        seconds = usage.get("seconds")
        if isinstance(seconds, int | float) and _is_count(seconds):
            held["seconds"] += seconds
        details = _details(usage, "input_token_details")
        text, audio = count(details.get("text_tokens")), count(details.get("audio_tokens"))
        held["text"] += text
        held["audio"] += audio if text + audio else count(usage.get("input_tokens"))
        held["output"] += count(usage.get("output_tokens"))

    def to_dict(self) -> dict[str, Any]:
        """Return everything that was counted, in plain values. Cached tokens are a part of the input."""
        out: dict[str, Any] = {"n_responses": self._n_responses, **self._totals}
        for name, held in self._by.items():
            out |= {f"{name}_{modality}_tokens": n for modality, n in held.items()}
        if self._heard:
            counts = self._heard.values()
            out["transcription_s"] = sum(held["seconds"] for held in counts)
            out["transcription_tokens"] = sum(
                held["text"] + held["audio"] + held["output"] for held in counts
            )
        return out

    def cost(self, model: str | None) -> float | None:
        """Return the price of everything in US dollars; None when a part of it has no known price.

        Args:
            model: The one that answers; None in a session without answers.
        """
        total = 0.0 if model is None else response_cost(model, self._by)
        for name, held in self._heard.items():
            part = transcription_cost(name, held)
            total = None if total is None or part is None else total + part
        return total
