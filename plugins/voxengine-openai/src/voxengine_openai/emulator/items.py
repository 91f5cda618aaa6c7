"""The conversation: items in order, with the audio behind them."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from voxengine_mock.script import Tokens
from voxengine_openai.emulator.errors import Refused

__all__ = ["Conversation", "Item"]

_AUDIO_KEPT_BYTES: Final = 64 * 2**20
"""So much audio of a session can be retrieved; the oldest goes first."""
_ITEMS_KEPT: Final = 20_000
_IMAGE_TOKENS: Final = {"low": 85, "high": 765, "auto": 765}


@attrs.define(eq=False)
class Item:
    """One item as it stands."""

    fields: dict[str, Any] = attrs.field(repr=False)
    """As on the wire, without its audio."""
    audio: bytes = attrs.field(default=b"", repr=False)
    """In the format in which it travelled; empty also when it was too long ago."""
    audio_ms: int = 0
    text: str = attrs.field(default="", repr=False)
    """What the user said or wrote in it."""

    @property
    def item_id(self) -> str:
        return str(self.fields["id"])

    @property
    def kind(self) -> str:
        return str(self.fields["type"])

    @property
    def role(self) -> str:
        return str(self.fields.get("role", ""))

    def shown(self) -> dict[str, Any]:
        """Return it for an event. The lists in it are its own."""
        out = dict(self.fields)
        if "content" in out:
            out["content"] = [dict(part) for part in out["content"]]
        return out

    def with_audio(self) -> dict[str, Any]:
        """Return it with its audio in base64."""
        out = self.shown()
        for part in out.get("content", ()):
            if part["type"] in ("input_audio", "output_audio") and self.audio:
                part["audio"] = base64.b64encode(self.audio).decode("ascii")
                break
        return out

    def tokens(self, rates: Tokens) -> dict[str, int]:
        """Return how many tokens it has as input, by modality."""
        words = 0
        n_image = 0
        for part in self.fields.get("content", ()):
            if part["type"] == "input_image":
                n_image += _IMAGE_TOKENS[part.get("detail") or "auto"]
            elif not part["type"].endswith("audio"):
                words += len((part.get("text") or "").split())
        if self.role == "assistant" and self.audio_ms:
            words += sum(len((p.get("transcript") or "").split()) for p in self.fields["content"])
        for key in ("name", "arguments", "output"):
            words += len(str(self.fields.get(key) or "").split())
        per_s = rates.output_audio_per_s if self.role == "assistant" else rates.input_audio_per_s
        return {
            "text": round(words * rates.per_word),
            "audio": round(self.audio_ms * per_s / 1000),
            "image": n_image,
        }


class Conversation:
    """The items of one session, in order."""

    def __init__(self, conversation_id: str) -> None:
        self.conversation_id = conversation_id
        self._items: list[Item] = []
        self._by_id: dict[str, Item] = {}
        self._n_audio_bytes = 0

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def __reversed__(self) -> Iterator[Item]:
        return reversed(self._items)

    def find(self, item_id: str) -> Item | None:
        """Return an item, None when there is none of that id."""
        return self._by_id.get(item_id)

    def previous_of(self, item: Item) -> str | None:
        """Return the id of the item before one."""
        at = self._items.index(item)
        return self._items[at - 1].item_id if at else None

    @property
    def last_id(self) -> str | None:
        """The id of the last item."""
        return self._items[-1].item_id if self._items else None

    def check_room(self) -> None:
        """Raise Refused when a client may add no more."""
        if len(self._items) >= _ITEMS_KEPT:
            raise Refused("The conversation has too many items.", "conversation_too_long")

    def append(self, item: Item) -> None:
        """Put an item at the end."""
        self.insert(item, None)

    def insert(self, item: Item, previous_id: str | None) -> None:
        """Put an item after another: ``root`` is the front and None the end.

        Raises:
            Refused: There is no such other item, or one of the same id.
        """
        if item.item_id in self._by_id:
            raise Refused(
                f"Error adding item: an item with id '{item.item_id}' already exists.",
                "item_create_duplicate_item_id",
                "item.id",
            )
        if previous_id is None:
            at = len(self._items)
        elif previous_id == "root":
            at = 0
        else:
            found = self._by_id.get(previous_id)
            if found is None:
                raise Refused(
                    f"Error adding item: the previous item with id '{previous_id}' does not exist.",
                    "item_create_invalid_previous_item_id",
                    "previous_item_id",
                )
            at = self._items.index(found) + 1
        self._items.insert(at, item)
        self._by_id[item.item_id] = item
        self._n_audio_bytes += len(item.audio)
        self._forget_audio()

    def extend_audio(self, item: Item, audio: bytes) -> None:
        """Add audio to an item that is being spoken."""
        item.audio += audio
        if item.item_id in self._by_id:
            self._n_audio_bytes += len(audio)
            self._forget_audio()

    def set_audio(self, item: Item, audio: bytes) -> None:
        """Replace an item's audio."""
        if item.item_id in self._by_id:
            self._n_audio_bytes += len(audio) - len(item.audio)
        item.audio = audio

    def _forget_audio(self) -> None:
        for item in self._items:
            if self._n_audio_bytes <= _AUDIO_KEPT_BYTES:
                return
            self._n_audio_bytes -= len(item.audio)
            item.audio = b""

    def get(self, item_id: str, doing: str) -> Item:
        """Return an item. Raises Refused when there is none of that id.

        Args:
            doing: ``delete``, ``retrieve`` or ``truncate``.
        """
        found = self._by_id.get(item_id)
        if found is None:
            raise Refused(
                f"Error {_DOING[doing]} item: the item with id '{item_id}' does not exist.",
                f"item_{doing}_invalid_item_id",
                "item_id",
            )
        return found

    def delete(self, item_id: str) -> None:
        """Remove an item. Raises Refused when there is none of that id."""
        found = self.get(item_id, "delete")
        self._items.remove(found)
        del self._by_id[item_id]
        self._n_audio_bytes -= len(found.audio)

    def truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> None:
        """Cut an answer at what was played of it, and forget its words.

        Raises:
            Refused: There is no such item, it has no such audio, or less of it.
        """
        item = self.get(item_id, "truncate")
        content = item.fields.get("content", ())
        if item.role != "assistant":
            raise Refused("Only model output audio messages can be truncated.", "invalid_value", "item_id")
        if not 0 <= content_index < len(content) or content[content_index]["type"] != "output_audio":
            raise Refused(
                f"Content index {content_index} of the item is no audio.", "invalid_value", "content_index"
            )
        if audio_end_ms > item.audio_ms:
            raise Refused(
                f"Audio content of {item.audio_ms}ms is already shorter than {audio_end_ms}ms",
                "invalid_value",
                "audio_end_ms",
            )
        if item.audio_ms:
            n_bytes = len(item.audio) * audio_end_ms // item.audio_ms // 2 * 2
            self.set_audio(item, item.audio[:n_bytes])
        item.audio_ms = audio_end_ms
        content[content_index]["transcript"] = ""

    def user_texts(self) -> list[str]:
        """Return what the user said and wrote, oldest first."""
        return [item.text for item in self._items if item.role == "user" and item.text]


_DOING: Final[Mapping[str, str]] = {
    "delete": "deleting",
    "retrieve": "retrieving",
    "truncate": "truncating",
}
