"""What was sent and waits for the service's answer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

import attrs

__all__ = ["Replies"]

_REMEMBERED: Final = 512


@attrs.define(eq=False)
class _Wait:
    event_id: str
    future: asyncio.Future[Any]


class Replies:
    """Joins answers to events: the service names the event in errors only. Loop thread only."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._updates: deque[_Wait] = deque()
        self._items: dict[str, _Wait] = {}
        self._deletions: dict[str, _Wait] = {}
        self._there: set[str] = set()
        self._asides: dict[str, _Wait] = {}

    # -- sent -------------------------------------------------------------------------------------

    def note(self, event_id: str, name: str) -> None:
        """Remember the name of an event, for the error that it may cause."""
        self._names[event_id] = name
        while len(self._names) > _REMEMBERED:
            del self._names[next(iter(self._names))]

    def name_of(self, event_id: object) -> str:
        """Return the name of an event that was sent; empty when it is not known."""
        return self._names.get(event_id, "") if isinstance(event_id, str) else ""

    def expect_update(self, event_id: str) -> asyncio.Future[Any]:
        """Return what gets the session object that answers a ``session.update``."""
        wait = _Wait(event_id, asyncio.get_running_loop().create_future())
        self._updates.append(wait)
        return wait.future

    def expect_item(self, event_id: str, item_id: str) -> asyncio.Future[Any]:
        """Return what is done when an item was taken."""
        wait = self._items[item_id] = _Wait(event_id, asyncio.get_running_loop().create_future())
        return wait.future

    def expect_deletion(self, event_id: str, item_id: str) -> asyncio.Future[Any]:
        """Return what is done when an item is gone."""
        wait = self._deletions[item_id] = _Wait(event_id, asyncio.get_running_loop().create_future())
        return wait.future

    def expect_aside(self, event_id: str, key: str) -> asyncio.Future[Any]:
        """Return what gets the outcome of a response outside of the conversation."""
        wait = self._asides[key] = _Wait(event_id, asyncio.get_running_loop().create_future())
        return wait.future

    def forget_aside(self, key: str) -> None:
        """Nobody waits for it any more."""
        self._asides.pop(key, None)

    # -- answered ---------------------------------------------------------------------------------

    def updated(self, session: Mapping[str, Any]) -> None:
        """Take a ``session.updated``: it answers the oldest update."""
        if self._updates:
            _settle(self._updates.popleft().future, session)

    def item_taken(self, item_id: object) -> None:
        """Take the confirmation of an item."""
        if not isinstance(item_id, str):
            return
        self._there.add(item_id)
        wait = self._items.pop(item_id, None)
        if wait is not None:
            _settle(wait.future, None)

    def is_there(self, item_id: str) -> bool:
        """Return whether the service has told of an item, and not that it is gone."""
        return item_id in self._there

    def item_deleted(self, item_id: str) -> None:
        """Take the confirmation that an item is gone."""
        self._there.discard(item_id)
        wait = self._deletions.pop(item_id, None)
        if wait is not None:
            _settle(wait.future, None)

    def aside_ended(self, key: str, outcome: object) -> None:
        """Take the end of a response outside of the conversation."""
        wait = self._asides.pop(key, None)
        if wait is not None:
            _settle(wait.future, outcome)

    def refused(self, event_id: object, error: Exception) -> bool:
        """Take an error; return whether somebody waits for it, who is then told."""
        for wait in self._updates:
            if wait.event_id == event_id:
                self._updates.remove(wait)
                return _fail(wait.future, error)
        for held in (self._items, self._deletions, self._asides):
            for key, wait in held.items():
                if wait.event_id == event_id:
                    del held[key]
                    return _fail(wait.future, error)
        return False

    def end(self, error: Exception) -> None:
        """Tell everybody who waits that nothing will come."""
        waits = list(self._updates)
        self._updates.clear()
        for held in (self._items, self._deletions, self._asides):
            waits += held.values()
            held.clear()
        for wait in waits:
            _fail(wait.future, error)


def _settle(future: asyncio.Future[Any], value: object) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: asyncio.Future[Any], error: Exception) -> bool:
    if future.done():
        return False
    future.set_exception(error)
    future.exception()  # Seen: whoever was to wait for it may have been cancelled before it began to.
    return True
