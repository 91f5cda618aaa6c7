"""History items that are changed or taken out in mid-call, in the session's conversation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.plugins.openai.peer import Peer, session
from tests.plugins.openai.sdk_types import check_client, check_server
from tests.plugins.openai.test_bad_input import ERRORS, SPEECH, emulator, engine_at, of, provider_of
from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.errors import ProviderError
from voxengine.events import Event, EventType
from voxengine.history import Item, ItemKind
from voxengine.replaying import replay
from voxengine.testing import leak_check, virtual
from voxengine_openai.codec import Append, RealtimeMessage

PICTURE = "data:image/png;base64,iVBORw0KGgo="


class Keeping(Peer):
    """Confirms deletions too."""

    async def take(self, message: RealtimeMessage | Append) -> None:
        await super().take(message)
        if not isinstance(message, RealtimeMessage) or self.refuses(message) is not None:
            return
        if message.name == "conversation.item.delete":
            await self.say("conversation.item.deleted", item_id=message.fields["item_id"])


def steps(peer: Peer) -> list[tuple[str, Any, Any]]:
    """What was created, behind which item, and what was deleted."""
    found: list[tuple[str, Any, Any]] = []
    for message in peer.got:
        if isinstance(message, RealtimeMessage) and message.name == "conversation.item.create":
            item = message.fields["item"]
            found.append(("create", item["id"], message.fields.get("previous_item_id")))
        elif isinstance(message, RealtimeMessage) and message.name == "conversation.item.delete":
            found.append(("delete", message.fields["item_id"], None))
    return found


@virtual
async def test_item_that_the_session_was_given_is_replaced_in_its_place_and_then_deleted() -> None:
    async with session(peer=Keeping()) as (provider, peer, recorder):
        await provider.load_history([Item("1", "system", "Be brief."), Item("2", "user_text", "Hello")])
        edited = await provider.try_replace_item(Item("1", "system", "Be very brief."), ())
        deleted = await provider.try_delete_item(Item("1", "system", "Be very brief."), ())

        (_, first, _), (_, second, _), *changes = steps(peer)
        assert (edited, deleted) == (True, True)
        replaced = changes[0][1]
        assert changes == [("create", replaced, first), ("delete", first, None), ("delete", replaced, None)]
        assert len({first, second, replaced}) == 3
        texts = [fields["item"]["content"][0]["text"] for fields in peer.of("conversation.item.create")]
        assert texts == ["Be brief.", "Hello", "Be very brief."]
        assert not recorder.of("error_general")


@virtual
async def test_item_without_a_place_in_the_session_is_none_of_its() -> None:
    async with session(peer=Keeping()) as (provider, peer, _):
        unknown = Item("1", "system", "x")

        assert not await provider.try_delete_item(unknown, ())
        assert not await provider.try_replace_item(unknown, ["item_that_nobody_told_of"])
        assert steps(peer) == []


@virtual
async def test_text_that_waits_for_its_turn_cannot_be_taken_back() -> None:
    async with session(peer=Keeping()) as (provider, peer, _):
        await peer.begin()
        await peer.words("One moment")
        await provider.send_text("First")
        await provider.send_text("Second")
        name = await provider.send_text("Third")

        assert not await provider.try_delete_item(Item("1", "user_text", "Third"), [name])
        assert [step for step in steps(peer) if step[0] == "delete"] == []


@virtual
async def test_answer_that_is_still_made_is_left_and_a_finished_one_goes() -> None:
    answer = Item("1", "agent", "Well")
    async with session(peer=Keeping()) as (provider, peer, recorder):
        await peer.begin()
        item = {
            "id": "item_1",
            "type": "message",
            "role": "assistant",
            "content": [],
            "status": "in_progress",
        }
        await peer.say("conversation.item.added", item=item, previous_item_id=None)
        await peer.say_audio(500)
        await peer.words("Well")
        await recorder.wait("text_output")
        while_made = await provider.try_delete_item(answer, ["item_1"])
        await peer.finish()
        await recorder.wait("response_completed")

        assert (while_made, await provider.try_delete_item(answer, ["item_1"])) == (False, True)
        assert steps(peer) == [("delete", "item_1", None)]


@virtual
async def test_refused_change_is_its_callers_error_alone() -> None:
    async with session(peer=Keeping()) as (provider, peer, recorder):
        await provider.send_item(Item("1", "system", "x"))
        peer.refuses = lambda message: {
            "type": "invalid_request_error",
            "code": "invalid_value",
            "message": "",
        }

        with pytest.raises(ProviderError, match=r"conversation\.item\.delete"):
            await provider.try_delete_item(Item("1", "system", "x"), ())
        with pytest.raises(ProviderError, match=r"conversation\.item\.create"):
            await provider.try_replace_item(Item("1", "system", "y"), ())

        assert not recorder.of("error_general")
        assert [step[0] for step in steps(peer)] == ["create", "delete", "create"]


@virtual
async def test_item_whose_change_was_refused_can_still_be_changed() -> None:
    async with session(peer=Keeping()) as (provider, peer, _):
        await provider.send_item(Item("1", "system", "x"))
        refusal = {"type": "invalid_request_error", "code": "invalid_value", "message": ""}
        peer.refuses = lambda message: refusal
        with pytest.raises(ProviderError, match=r"conversation\.item\.create"):
            await provider.try_replace_item(Item("1", "system", "y"), ())
        peer.refuses = lambda message: None

        assert await provider.try_replace_item(Item("1", "system", "z"), ())
        assert await provider.try_delete_item(Item("1", "system", "z"), ())

        (_, first, _), _, (_, third, behind), *deleted = steps(peer)
        assert behind == first
        assert deleted == [("delete", first, None), ("delete", third, None)]


# -- an engine and the emulator ---------------------------------------------------------------------


class Judge:
    """A tap that lets the official types judge both ends."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.wrong: list[str] = []

    def on_wire(self, direction: str, wire: str | bytes, now: float) -> None:
        try:
            if direction == "out":
                self.sent.append(check_client(wire))
            else:
                check_server(wire)
        except AssertionError as error:
            self.wrong.append(str(error))

    def of(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.sent if event["type"] == name]


@asynccontextmanager
async def call(**options: Any) -> AsyncIterator[tuple[VoiceEngine, list[Event], Judge]]:
    judge = Judge()
    async with leak_check(), emulator().running() as url:
        engine, events = engine_at(url, taps=[judge], **options)
        await engine.connect()
        try:
            yield engine, events, judge
        finally:
            await engine.disconnect()
    assert of(events, *ERRORS) == []
    assert judge.sent
    assert judge.wrong == []


def untold(events: list[Event]) -> int:
    return sum(event.data["code"] == "history_not_told" for event in of(events, EventType.WARNING))


async def wire_items(engine: VoiceEngine, names: list[str]) -> list[dict[str, Any] | None]:
    """What the service has under these names; None where it has nothing."""
    provider = provider_of(engine)
    found: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def take(event: Event) -> None:
        payload = event.data.get("payload", {})
        if event.data.get("name") == "conversation.item.retrieved":
            found.put_nowait(payload["item"])

    engine.events.on(EventType.VENDOR_EVENT, take)
    out: list[dict[str, Any] | None] = []
    for name in names:
        if not provider._live().replies.is_there(name):
            out.append(None)
            continue
        await provider.send_event({"type": "conversation.item.retrieve", "item_id": name})
        async with asyncio.timeout(10):
            out.append(await found.get())
    return out


async def settled(engine: VoiceEngine) -> None:
    await engine._conversation.telling.wait()


async def test_history_that_is_changed_in_mid_call_is_the_one_of_the_service() -> None:
    async with call(tools=()) as (engine, events, judge):
        history = engine.history
        system = history.add_system("The user is called Ada.")
        image = history.add_image(PICTURE, "a cat")
        await engine.send_text("Hello there.")
        await engine.wait_idle(timeout_s=15)
        await engine.send_audio(SPEECH)
        await engine.end_turn()
        await engine.wait_idle(timeout_s=15)
        kinds = {item.kind: item for item in history}
        first = [event["item"]["id"] for event in judge.of("conversation.item.create")]

        history.edit(system.id, text="The user is called Grace.")
        history.edit(kinds[ItemKind.USER_TEXT].id, text="Good evening.")
        history.edit(kinds[ItemKind.USER_AUDIO].id, text="Look nothing up.", status="completed")
        history.delete(image.id)
        history.delete(kinds[ItemKind.AGENT].id)
        await settled(engine)

        last = judge.of("conversation.item.create")[len(first) :]
        texts = [event["item"]["content"][0]["text"] for event in last]
        deleted = [event["item_id"] for event in judge.of("conversation.item.delete")]
        assert texts == ["The user is called Grace.", "Good evening.", "Look nothing up."]
        assert [event["previous_item_id"] for event in last] == deleted[:3]
        assert len(deleted) == 5
        assert set(first[:3]) <= set(deleted)
        assert await wire_items(engine, deleted) == [None] * 5
        there = await wire_items(engine, [event["item"]["id"] for event in last])
        assert [item["content"][0]["text"] for item in there if item is not None] == texts
        assert untold(events) == 0


async def test_call_of_a_tool_goes_with_its_result() -> None:
    async with call() as (engine, events, judge):
        await engine.send_text("Look it up.")
        await engine.wait_idle(timeout_s=15)
        (called,) = [item for item in engine.history if item.kind is ItemKind.TOOL_CALL]

        engine.history.delete(called.id)
        await settled(engine)

        (result,) = [
            event["item"]["id"]
            for event in judge.sent
            if event.get("item", {}).get("type") == "function_call_output"
        ]
        deleted = [event["item_id"] for event in judge.of("conversation.item.delete")]
        assert deleted[0] == result
        assert len(deleted) == 2
        assert untold(events) == 0


async def test_result_of_a_tool_that_is_edited_stays_as_it_was_said() -> None:
    async with call() as (engine, events, judge):
        await engine.send_text("Look it up.")
        await engine.wait_idle(timeout_s=15)
        (result,) = [item for item in engine.history if item.kind is ItemKind.TOOL_RESULT]

        engine.history.edit(result.id, text="something else")
        await settled(engine)

        assert untold(events) == 1
        assert judge.of("conversation.item.delete") == []


async def test_recording_of_changed_items_runs_again_with_the_same_events(tmp_path: Path) -> None:
    path = tmp_path / "call.jsonl"
    async with emulator().running() as url:
        engine, events = engine_at(url)
        engine.record(path)
        async with engine:
            note = engine.history.add_system("The user is called Ada.")
            await engine.send_text("Hello there.")
            await engine.wait_idle(timeout_s=15)
            text = next(item for item in engine.history if item.kind is ItemKind.USER_TEXT)
            engine.history.edit(note.id, text="The user is called Grace.")
            engine.history.delete(text.id)
            await settled(engine)

    outcome = await asyncio.to_thread(replay, path)

    assert outcome.differences == ()
    assert untold(events) == 0


async def test_recording_of_changed_items_plays_to_an_application_that_changes_none(tmp_path: Path) -> None:
    path = tmp_path / "call.jsonl"
    async with emulator().running() as url:
        engine, _ = engine_at(url)
        engine.record(path)
        async with engine:
            await engine.send_text("Hello there.")
            await engine.wait_idle(timeout_s=15)
            engine.history.delete(engine.history.items[0].id)
            await settled(engine)

    events: list[Event] = []
    again = VoiceEngine(VoiceEngineConfig(provider="replay", metadata={"path": str(path)}))
    again.events.on("*", events.append)
    async with again:
        await again.send_text("Hello there.")
        await again.wait_idle(timeout_s=15)

    assert "replay_differs" not in [event.data["code"] for event in of(events, EventType.WARNING)]
