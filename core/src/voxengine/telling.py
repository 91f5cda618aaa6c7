"""What a running session is told of the history: items that the application adds, and what nobody heard after all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from voxengine.activity import Activity
from voxengine.events import EventType
from voxengine.history import Change, History, Item, ItemKind
from voxengine.notes import heard_of
from voxengine.providers.base import overrides
from voxengine.session import CALL_DEADLINE_S, Session

__all__ = ["Telling"]


class Telling:
    """Tells the session in force, one item after the other. Loop thread only.

    Args:
        history: Says what was heard.
        activity: Owns the task.
        emit: Delivers events.
        report: Takes an error that no caller waits for.
    """

    def __init__(
        self,
        history: History,
        activity: Activity,
        emit: Callable[[EventType, dict[str, Any], Session], None],
        report: Callable[[Session, Exception], None],
    ) -> None:
        self._history = history
        self._activity = activity
        self._emit = emit
        self._report = report
        self._last: asyncio.Task[Any] | None = None

    def changed(self, session: Session | None, kind: Change, item: Item) -> None:
        """Take a change that the application made; what cannot be told now reaches the next session."""
        if session is None or not session.is_ready:
            return
        if kind == "append":
            self._tell(session, item, "that a history item was added")
            return
        what = f"that a history item was changed ({kind})"
        method = "try_delete_item" if kind == "delete" else "try_replace_item"
        if not session.can("items") or not overrides(type(session.provider), method):
            self._cannot(session, what)
            return
        work = self._revise(session, method, item, what, self._last)
        self._last = self._activity.start(work, "item")

    async def text(self, session: Session, item_id: str, text: str) -> None:
        """Send a user turn as text, and note what the service calls it; see :meth:`Session.call` for what it raises."""
        vendor_id = await session.call("send_text", text)
        if isinstance(vendor_id, str) and item_id in self._history:
            self._history.bind(vendor_id, item_id, session.epoch)

    def cut(self, session: Session, items: Iterable[str]) -> None:
        """Put right what a session was told of answers before its time that were cut since.

        Args:
            session: In force.
            items: What was cut just now.
        """
        if not session.is_ready:
            return
        for item_id in items:
            told = session.told.get(item_id)
            item = self._history.get(item_id) if item_id in self._history else None
            if told is None or item is None or item.context_text == told:
                continue
            session.told[item_id] = item.context_text
            note = Item(f"{item_id}_heard", ItemKind.SYSTEM, heard_of(told, item.context_text))
            self._tell(session, note, "what was heard of an answer before its time")

    async def wait(self) -> None:
        """Wait until the session was given everything up to now, so that what follows comes after it."""
        if self._last is not None and not self._last.done():
            await asyncio.wait([self._last])

    def _tell(self, session: Session, item: Item, what: str) -> None:
        if not session.can("items"):
            self._cannot(session, what)
            return
        self._last = self._activity.start(self._send(session, item, self._last), "item")

    async def _send(self, session: Session, item: Item, before: asyncio.Task[Any] | None) -> None:
        if before is not None and not before.done():
            await asyncio.wait([before])
        try:
            await session.call("send_item", item)
        except Exception as error:
            self._report(session, error)

    def _revise(
        self, session: Session, method: str, item: Item, what: str, before: asyncio.Task[Any] | None
    ) -> Coroutine[Any, Any, None]:
        names = self._history.vendor_ids(item.id, session.epoch)  # Now: those of a deleted item go.

        async def revise() -> None:
            if before is not None and not before.done():
                await asyncio.wait([before])
            if not session.is_ready:
                return
            try:
                async with asyncio.timeout(CALL_DEADLINE_S):
                    is_told = await getattr(session.provider, method)(item, names)
            except Exception as error:
                self._report(session, session.failed(method, error))
                return
            if not is_told:
                self._cannot(session, what)
            elif item.id in session.told:
                session.told[item.id] = item.context_text

        return revise()

    def _cannot(self, session: Session, what: str) -> None:
        message = f"The running session of {session.name} cannot be told {what}; a session that takes over will know."
        self._emit(EventType.WARNING, {"code": "history_not_told", "message": message}, session)
