"""What the agent said so far: items, their text and audio, and what was heard of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import attrs

from voxengine.history import Heard, estimate_heard_text

__all__ = ["Output", "OutputItem", "OutputResponse"]

_REMEMBERED: Final = 64
_CHARS_PER_S: Final = 18
"""How fast speech gets through text."""


@attrs.define(eq=False)
class OutputItem:
    """One item of the agent."""

    id: str
    response_id: str
    parts: dict[int, str] = attrs.field(factory=dict)
    """Text by content index."""
    audio_index: int = 0
    """Content index of its audio."""
    n_audio_bytes: int = 0
    """PCM16 or G.711 received, in the session's output format."""
    cut_ms: int | None = None
    """Where it was truncated last."""
    tool_name: str = ""
    """For a tool call: what ``response.output_item.added`` called it."""

    @property
    def text(self) -> str:
        """All of its text so far."""
        parts = self.parts
        if len(parts) == 1:  # Asked for with every word.
            (text,) = parts.values()
            return text
        return "".join(parts[index] for index in sorted(parts))


@attrs.define(eq=False)
class OutputResponse:
    """One response, while it is remembered."""

    id: str
    is_aside: bool = False
    """Whether it is outside of the conversation."""
    aside_key: str = ""
    is_refused: bool = False
    """Whether it was interrupted: what still comes of it is dropped."""
    is_ended: bool = False
    heard_ms: int | None = None
    heard_text: str | None = None


class Output:
    """The responses and items of a session, the latest ones."""

    def __init__(self, bytes_per_s: int) -> None:
        self.bytes_per_s = bytes_per_s
        self.responses: dict[str, OutputResponse] = {}
        self.items: dict[str, OutputItem] = {}
        self.has_audio = False
        """Whether the session produced audio; its voice is fixed from then on."""

    def open(self, response_id: str) -> OutputResponse:
        """Remember a response from its beginning."""
        response = self.responses[response_id] = OutputResponse(response_id)
        _trim(self.responses)
        return response

    def item(self, item_id: str, response_id: str) -> OutputItem:
        """Return an item, a new one where it begins."""
        held = self.items.get(item_id)
        if held is None:
            held = self.items[item_id] = OutputItem(item_id, response_id)
            _trim(self.items)
        return held

    def received_ms(self, item: OutputItem) -> int:
        """Return how much audio of an item came, rounded down."""
        return item.n_audio_bytes * 1000 // self.bytes_per_s

    def interrupt(self, heard: Heard | None, active_id: str | None) -> list[tuple[OutputItem, int]]:
        """Refuse the rest of the active response, and return which items to truncate at which millisecond.

        What came after the item that was playing was not heard at all.
        """
        active = self.responses.get(active_id or "")
        if active is not None:
            active.is_refused = True
        playing = self.items.get(heard.item_id) if heard is not None else None
        if heard is None or playing is None:
            self._note_heard(active, [], 0)
            return []
        order = list(self.items.values())
        after = order[order.index(playing) + 1 :]
        played = min(max(heard.item_played_ms, 0), self.received_ms(playing))
        cuts = [(playing, played), *((item, 0) for item in after)]
        self._note_heard(active, order[: order.index(playing)], played, playing)
        return [(item, ms) for item, ms in cuts if self._is_cut(item, ms, active_id)]

    def _is_cut(self, item: OutputItem, at_ms: int, active_id: str | None) -> bool:
        """Return whether a truncation changes anything, and note it."""
        received = self.received_ms(item)
        if not received or (item.cut_ms is not None and item.cut_ms <= at_ms):
            return False
        if at_ms >= received and item.response_id != active_id:
            return False  # All of it was heard, and no more of it is on its way.
        item.cut_ms = at_ms
        return True

    def _note_heard(
        self,
        active: OutputResponse | None,
        before: Iterable[OutputItem],
        played_ms: int,
        playing: OutputItem | None = None,
    ) -> None:
        if active is None or active.heard_ms is not None:
            return
        whole = [item for item in before if item.response_id == active.id]
        text = " ".join(item.text for item in whole if item.text)
        active.heard_ms = sum(self.received_ms(item) for item in whole)
        if playing is not None and playing.response_id == active.id:
            # Text runs ahead of the audio, so the audio so far says little of how long the text is.
            spoken_ms = len(playing.text) * 1000 // _CHARS_PER_S
            part = estimate_heard_text(playing.text, played_ms, max(self.received_ms(playing), spoken_ms))
            text = f"{text} {part}" if text and part else text or part
            active.heard_ms += played_ms
        active.heard_text = text


def _trim(held: dict[str, OutputItem] | dict[str, OutputResponse]) -> None:
    while len(held) > _REMEMBERED:
        del held[next(iter(held))]
