"""Counts tokens as the service does: all of the conversation is input again, and what was input before is cached."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from voxengine_mock.script import Tokens
from voxengine_openai.emulator.items import Item
from voxengine_openai.models import is_reasoning

__all__ = ["NO_USAGE", "Counted", "Meter", "Room"]

_KINDS: Final = ("text", "audio", "image")
_TOKENS_PER_MINUTE: Final = 40_000
_REQUESTS_PER_MINUTE: Final = 5_000


# OpenAI's guide "Managing conversations", read 2026-09: with 4,096 for the output, 28,224 are left for the input.
_CONTEXT: Final = (32_320, 4_096)
_LARGE_CONTEXT: Final = (128_000, 32_000)
"""Tokens of input and output together, and most of them for the output."""


@attrs.frozen(kw_only=True)
class Room:
    """How much of a conversation a model takes, and what becomes of the rest."""

    n_tokens: int
    """Instructions and tools included."""
    n_tokens_of_items: int | None = None
    """Without them, where the session has a limit of its own."""
    kept: float = 1.0
    """When there is too much, items go until so much of the limit is used."""
    may_drop: bool = True

    @classmethod
    def of(cls, session: Mapping[str, Any], max_output_tokens: int | str) -> Room:
        """Return what a session has for the input of a response."""
        context, most = _LARGE_CONTEXT if is_reasoning(str(session.get("model"))) else _CONTEXT
        n_tokens = context - (most if max_output_tokens == "inf" else min(most, int(max_output_tokens)))
        truncation = session.get("truncation")
        if not isinstance(truncation, Mapping):
            return cls(n_tokens=n_tokens, may_drop=truncation != "disabled")
        limits = truncation.get("token_limits") or {}
        return cls(
            n_tokens=n_tokens,
            n_tokens_of_items=limits.get("post_instructions"),
            kept=truncation["retention_ratio"],
        )

    def most(self, n_head: int) -> int:
        """Return how many tokens the items may have beside instructions and tools of so many."""
        left = max(0, self.n_tokens - n_head)
        return left if self.n_tokens_of_items is None else min(left, self.n_tokens_of_items)


@attrs.define
class Counted:
    """The input of one response, by modality, and how much of it is cached."""

    total: dict[str, int]
    cached: dict[str, int]
    is_over: bool = False
    """Whether it is more than the model takes."""


class Meter:
    """The tokens of one session.

    Args:
        rates: How the script counts.
    """

    def __init__(self, rates: Tokens) -> None:
        self._rates = rates
        self._cached: set[str] = set()
        self._dropped: set[str] = set()
        """Items that the model does not see any more; what was dropped stays so."""
        self._used: dict[str, tuple[float, float]] = {"requests": (0.0, 0.0), "tokens": (0.0, 0.0)}

    def count_input(
        self,
        instructions: str,
        tools: Iterable[Any],
        items: Iterable[Item],
        room: Room,
        *,
        is_default: bool,
    ) -> Counted:
        """Count what a response reads: the latest items that there is room for.

        Only the default conversation is cached.
        """
        total = dict.fromkeys(_KINDS, 0)
        cached = dict.fromkeys(_KINDS, 0)
        head = f"{instructions} {json.dumps(list(tools))}"
        n_words = len(instructions.split()) + sum(len(json.dumps(tool).split()) for tool in tools)
        n_head = round(n_words * self._rates.per_word)
        body = [(item.item_id, item.tokens(self._rates)) for item in items]
        if is_default:
            body = [part for part in body if part[0] not in self._dropped]
        kept, is_over = _fitting(body, room, room.most(n_head))
        if is_default and len(kept) < len(body):
            self._dropped.update(key for key, _ in body[: len(body) - len(kept)])
        parts = [(head, {"text": n_head}), *kept]
        for key, tokens in parts:
            for kind, n in tokens.items():
                total[kind] += n
                if key in self._cached:
                    cached[kind] += n
        if is_default:
            self._cached.update(key for key, _ in parts)
        return Counted(total, cached, is_over)

    def usage(self, counted: Counted, output: Iterable[Item], given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the usage of a response; where the script gives totals, they win."""
        made = {"text": 0, "audio": 0}
        for item in output:
            tokens = item.tokens(self._rates)
            made = {kind: n + tokens[kind] for kind, n in made.items()}
        total = dict(counted.total)
        if "input_tokens" in given:
            total["text"] = max(0, int(given["input_tokens"]) - total["audio"] - total["image"])
            made["text"] = max(0, int(given.get("output_tokens", 0)) - made["audio"])
        cached = {kind: min(n, total[kind]) for kind, n in counted.cached.items()}
        n_input, n_output = sum(total.values()), sum(made.values())
        return {
            "total_tokens": n_input + n_output,
            "input_tokens": n_input,
            "output_tokens": n_output,
            "input_token_details": {
                **_details(total),
                "cached_tokens": sum(cached.values()),
                "cached_tokens_details": _details(cached),
            },
            "output_token_details": _details(made),
        }

    def transcription(self, model: str, text: str, audio_ms: int) -> dict[str, Any]:
        """Return the usage of a transcription: by duration for the oldest model, else by token."""
        if model.startswith("whisper"):
            return {"type": "duration", "seconds": round(audio_ms / 1000, 3)}
        n_audio = round(audio_ms * self._rates.input_audio_per_s / 1000)
        n_text = round(len(text.split()) * self._rates.per_word)
        return {
            "type": "tokens",
            "total_tokens": n_audio + n_text,
            "input_tokens": n_audio,
            "input_token_details": {"text_tokens": 0, "audio_tokens": n_audio},
            "output_tokens": n_text,
        }

    def rate_limits(self, n_tokens: int, now: float) -> list[dict[str, Any]]:
        """Return what is left of the limits after a response; they refill within a minute."""
        out = []
        for name, limit, n in (
            ("requests", _REQUESTS_PER_MINUTE, 1),
            ("tokens", _TOKENS_PER_MINUTE, n_tokens),
        ):
            used, at = self._used[name]
            used = min(float(limit), max(0.0, used - (now - at) * limit / 60) + n)
            self._used[name] = (used, now)
            left = {
                "limit": limit,
                "remaining": int(limit - used),
                "reset_seconds": round(used * 60 / limit, 3),
            }
            out.append({"name": name, **left})
        return out


_Part = tuple[str, dict[str, int]]


def _fitting(body: list[_Part], room: Room, most: int) -> tuple[list[_Part], bool]:
    """Return the last items that fit, at least one, and whether even so there are too many tokens."""
    sizes = [sum(tokens.values()) for _, tokens in body]
    total, start = sum(sizes), 0
    if total > most and room.may_drop:
        while start < len(body) - 1 and total > most * room.kept:
            total -= sizes[start]
            start += 1
    return body[start:], total > most


def _details(tokens: Mapping[str, int]) -> dict[str, int]:
    return {f"{kind}_tokens": n for kind, n in tokens.items()}


NO_USAGE: Final[Mapping[str, Any]] = {
    "total_tokens": 0,
    "input_tokens": 0,
    "output_tokens": 0,
    "input_token_details": {
        **_details(dict.fromkeys(_KINDS, 0)),
        "cached_tokens": 0,
        "cached_tokens_details": _details(dict.fromkeys(_KINDS, 0)),
    },
    "output_token_details": {"text_tokens": 0, "audio_tokens": 0},
}
"""Of a response that failed."""
