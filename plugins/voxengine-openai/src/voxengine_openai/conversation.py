"""The items of a session's conversation: what it is given beside the turns, and what is changed in it later."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from voxengine.history import Item, ItemKind
from voxengine_openai.items import wire_item
from voxengine_openai.link import RealtimeLink, new_id
from voxengine_openai.session_settings import FORMATS

__all__ = ["RealtimeConversation"]


class RealtimeConversation(RealtimeLink):
    """What a provider of the protocol does with single items."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self._input_format = FORMATS[0]
        self._told: dict[str, str] = {}
        """What the service calls the items that it was given, by our ids."""

    async def load_history(self, items: Sequence[Item]) -> None:
        """Give the session earlier turns.

        Raises:
            ProviderError: The service refused one of them; those before it are in.
        """
        asked = [(item, *await self._create_item(item)) for item in items]
        for item, name, wait in asked:
            await self._wait(wait, "an item of the history")
            self._told[item.id] = name

    async def send_item(self, item: Item) -> None:
        name, wait = await self._create_item(item)
        await self._wait(wait, "an item")
        self._told[item.id] = name

    async def try_delete_item(self, item: Item, vendor_ids: Sequence[str]) -> bool:
        names = self._names_of(item, vendor_ids)
        if not names:
            return False
        for name in names:
            await self._delete(name)
        self._told.pop(item.id, None)
        return True

    async def try_replace_item(self, item: Item, vendor_ids: Sequence[str]) -> bool:
        names = self._names_of(item, vendor_ids)
        # Two items of one call must not be there at the same time.
        if not names or item.kind in (ItemKind.TOOL_CALL, ItemKind.TOOL_RESULT):
            return False
        # The new one first: refused, it leaves what was there.
        new_name, wait = await self._create_item(item, after=names[-1])
        await self._wait(wait, "an item of the history")
        self._told[item.id] = new_name
        for name in names:
            await self._delete(name)
        return True

    async def _create_item(self, item: Item, *, after: str | None = None) -> tuple[str, asyncio.Future[Any]]:
        """Ask for an item; return its name, which holds once the service has answered, and the answer."""
        state = self._live()
        wire = wire_item(item, self._input_format)
        item_id = wire["id"] = new_id("item_")
        event_id = new_id("evt_")
        wait = state.replies.expect_item(event_id, item_id)
        place = {} if after is None else {"previous_item_id": after}
        await self._send("conversation.item.create", event_id, item=wire, **place)
        return item_id, wait

    async def _delete(self, name: str) -> None:
        state = self._live()
        event_id = new_id("evt_")
        wait = state.replies.expect_deletion(event_id, name)
        await self._send("conversation.item.delete", event_id, item_id=name)
        await self._wait(wait, "the deletion of an item")
        state.output.items.pop(name, None)  # There is nothing left of it to truncate.

    def _names_of(self, item: Item, vendor_ids: Sequence[str]) -> list[str]:
        """Return what the service calls an item that is there and at rest; nothing while it cannot be changed."""
        state = self._live()
        told = self._told.get(item.id)
        if told is not None:
            names = [told]
        elif item.kind is ItemKind.TOOL_RESULT:
            names = [name for name in [state.results.get(item.call_id)] if name]
        elif item.kind is ItemKind.TOOL_CALL:
            # One without a result is still needed: the result would refer to nothing.
            is_over = item.call_id in state.results and item.call_id in state.calls
            names = [state.calls[item.call_id]] if is_over else []
        else:
            names = list(vendor_ids)
        active = state.queue.active
        for name in names:
            made = state.output.items.get(name)
            is_growing = made is not None and active is not None and made.response_id == active.id
            if is_growing or not state.replies.is_there(name):
                return []
        return names
