"""A change of the history in mid-call, and the session that is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tests.core.engine.fakes import Puppet, calling, kind, turns
from voxengine.errors import ConnectionLost, ErrorCode, ProviderError
from voxengine.events import EventType
from voxengine.history import Item, ItemKind
from voxengine.testing import virtual


async def named(one: Puppet, text: str) -> str:
    return f"text-{len(one.of('send_text'))}"


class Teller(Puppet):
    """Names the items of texts, and can be told of every change."""

    is_told = True
    fault: Exception | None = None

    async def try_delete_item(self, item: Item, vendor_ids: Sequence[str]) -> bool:
        return self._change("delete", item, vendor_ids)

    async def try_replace_item(self, item: Item, vendor_ids: Sequence[str]) -> bool:
        return self._change("replace", item, vendor_ids)

    def _change(self, change: str, item: Item, vendor_ids: Sequence[str]) -> bool:
        self.calls.append((change, (item.kind, item.text, tuple(vendor_ids))))
        if self.fault is not None:
            raise self.fault
        return self.is_told

    @property
    def changes(self) -> list[Any]:
        return [(name, *args) for name, args in self.calls if name in ("delete", "replace")]


@virtual
async def test_change_reaches_the_session_with_every_name_that_it_has_for_the_item() -> None:
    async with calling(kind(Teller, behaviour={"send_text": named})) as call:
        history = call.engine.history
        await call.engine.send_text("Hello")
        call.provider().answers("Good day.", "r1", "i1")
        text, answer = history.items
        history.bind("i1-again", answer.id, 1)

        history.edit(text.id, text="Hullo")
        history.delete(answer.id)
        await turns()

        assert call.provider().changes == [
            ("replace", ItemKind.USER_TEXT, "Hullo", ("text-1",)),
            ("delete", ItemKind.AGENT, "Good day.", ("i1", "i1-again")),
        ]
        assert call.seen.codes() == []
        assert history.resolve("i1", 1) is None


@virtual
async def test_call_and_result_are_taken_out_result_first() -> None:
    async with calling(kind(Teller)) as call:
        history = call.engine.history
        history.append(Item("", ItemKind.TOOL_CALL, name="look", call_id="c1"))
        history.append(Item("", ItemKind.TOOL_RESULT, "rain", call_id="c1"))

        history.delete(history.items[0].id)
        await turns()

        assert [kind for _, kind, *_ in call.provider().changes] == ["tool_result", "tool_call"]


@virtual
async def test_change_follows_the_item_that_is_still_on_its_way() -> None:
    gate = asyncio.Event()

    class Slow(Teller):
        async def send_item(self, item: Item) -> None:
            await gate.wait()
            await super().send_item(item)

    async with calling(kind(Slow)) as call:
        item = call.engine.history.add_system("Be brief.")
        call.engine.history.edit(item.id, text="Be very brief.")
        call.engine.history.delete(item.id)
        await turns()
        before = list(call.provider().changes)

        gate.set()
        await turns()

        assert before == []
        assert [name for name, _ in call.provider().calls][-3:] == ["send_item", "replace", "delete"]


@pytest.mark.parametrize("change", ["edit", "delete"])
@virtual
async def test_change_that_the_provider_cannot_pass_on_is_a_warning(change: str) -> None:
    async with calling(kind(Teller)) as call:
        call.provider().is_told = False
        item = call.engine.history.add_system("Be brief.")

        call.engine.history.edit(item.id, text="x") if change == "edit" else call.engine.history.delete(
            item.id
        )
        await turns()

        assert call.seen.codes() == ["history_not_told"]
        assert change in call.seen.one(EventType.WARNING).message


@virtual
async def test_change_that_the_service_refuses_is_an_error_event() -> None:
    async with calling(kind(Teller)) as call:
        call.provider().fault = ProviderError("no", code=ErrorCode.INVALID_REQUEST)
        item = call.engine.history.add_system("Be brief.")

        call.engine.history.delete(item.id)
        await turns()

        assert str(call.seen.one(EventType.ERROR_GENERAL).error) == "no"
        assert call.engine.is_connected


@virtual
async def test_change_that_meets_the_end_of_the_session_is_the_loss() -> None:
    async with calling(kind(Teller)) as call:
        call.provider().fault = ConnectionLost("gone")
        item = call.engine.history.add_system("Be brief.")

        call.engine.history.delete(item.id)
        await turns()

        assert len(call.seen.of(EventType.CONNECTION_LOST)) == 1
        assert call.seen.of(EventType.ERROR_GENERAL) == []
