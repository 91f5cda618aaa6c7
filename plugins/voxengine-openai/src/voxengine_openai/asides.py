"""Responses outside of the conversation: asked beside it, answered to the caller alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from voxengine.audio.format import AudioFormat
from voxengine.errors import UsageError
from voxengine.history import Item
from voxengine_openai.items import wire_item

__all__ = ["ASIDE_KEY", "Aside", "AsideCollector", "aside_input", "aside_params"]

ASIDE_KEY: Final = "voxengine_aside"
"""Key of a response's metadata by which its events are told from those of the conversation."""


@attrs.frozen(kw_only=True)
class Aside:
    """What came of a response outside of the conversation. ``repr`` holds none of its content."""

    response_id: str
    status: str
    """``completed``, ``incomplete``, ``cancelled`` or ``failed``."""
    text: str = attrs.field(repr=False)
    """What it wrote, or the words of what it said."""
    audio: bytes = attrs.field(repr=False)
    """What it said, PCM16 in the session's output rate; empty for a written one."""
    calls: tuple[Mapping[str, Any], ...] = attrs.field(repr=False)
    """Tool calls: ``name``, ``call_id`` and ``arguments`` (JSON text). Nothing runs them."""
    response: Mapping[str, Any] = attrs.field(repr=False)
    """The response object of the service."""


def aside_params(key: str, params: Mapping[str, Any], instructions: str | None) -> dict[str, Any]:
    """Return the ``response`` of the request for one; ``key`` is how its events are told.

    Raises:
        UsageError: It would be a part of the conversation.
    """
    if params.get("conversation", "none") != "none":
        raise UsageError(
            "ask_aside: conversation is 'none', since what is asked aside is no part of the conversation. "
            "Nothing was sent; send_text asks within it."
        )
    out = {"conversation": "none", **params, "metadata": {**(params.get("metadata") or {}), ASIDE_KEY: key}}
    return out if instructions is None else {**out, "instructions": instructions}


def aside_input(items: Sequence[Item], audio_format: AudioFormat) -> list[dict[str, Any]]:
    """Return what the model is shown. Raises UsageError for what is no item."""
    if not all(isinstance(item, Item) for item in items):
        raise UsageError(
            "ask_aside: items takes items of a history (voxengine.history.Item). Nothing was sent."
        )
    return [wire_item(item, audio_format) for item in items]


class AsideCollector:
    """Gathers one of them from its events."""

    def __init__(self, response_id: str, key: str) -> None:
        self.response_id = response_id
        self.key = key
        self._texts: dict[tuple[str, int], str] = {}
        self._audio: list[bytes] = []

    def text(self, item_id: str, index: int, text: str) -> None:
        """Set the text of a part, all of it so far."""
        self._texts[(item_id, index)] = text

    def text_of(self, item_id: str, index: int) -> str:
        """Return the text of a part so far."""
        return self._texts.get((item_id, index), "")

    def audio(self, pcm: bytes) -> None:
        """Add audio."""
        self._audio.append(pcm)

    def finish(self, response: Mapping[str, Any]) -> Aside:
        """Return what came of it."""
        output = response.get("output")
        items = [item for item in output if isinstance(item, Mapping)] if isinstance(output, list) else []
        status = response.get("status")
        return Aside(
            response_id=self.response_id,
            status=status if isinstance(status, str) else "completed",
            text="".join(self._texts.values()),
            audio=b"".join(self._audio),
            calls=tuple(
                {name: item.get(name, "") for name in ("name", "call_id", "arguments")}
                for item in items
                if item.get("type") == "function_call"
            ),
            response=response,
        )
