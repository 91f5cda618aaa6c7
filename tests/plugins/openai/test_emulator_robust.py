"""Whatever a client says that the protocol allows, the session answers by the protocol and stays open."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.plugins.openai.emulating import emulating, wired
from tests.plugins.openai.sdk_strategies import client_events


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(client_events, min_size=1, max_size=8))
def test_any_conversation_of_valid_events_leaves_the_session_open(events: list[dict[str, Any]]) -> None:
    async def talk() -> list[dict[str, Any]]:
        async with emulating(speed=1000) as server, wired(server) as wire:
            for event in events:
                await wire.socket.send(json.dumps(event))
            await wire.send("conversation.item.delete", item_id="the last", event_id="evt_the_last")
            while (wire.seen[-1].get("error") or {}).get("event_id") != "evt_the_last":
                await wire.next()
            return wire.seen

    seen = asyncio.run(talk())

    assert seen[0]["type"] == "session.created"
    assert len({event["event_id"] for event in seen}) == len(seen)
