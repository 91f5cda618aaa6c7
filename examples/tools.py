"""Functions that the agent may call: type hints and a docstring make the schema."""

from __future__ import annotations

import asyncio

from voxengine import VoiceEngine, VoiceEngineConfig

BOOKING = {
    "tool": "book_table",
    "arguments": {"guests": 4, "time": "19:30"},
    "then": "Done: table {result.table} at {result.time}.",
}
engine = VoiceEngine(VoiceEngineConfig(provider="mock", metadata={"responses": {"*table*": BOOKING}}))


@engine.tool
async def book_table(guests: int, time: str = "20:00") -> dict[str, object]:
    """Book a table in the restaurant.

    Args:
        guests: How many people come.
        time: When, as HH:MM.
    """
    return {"table": 7, "time": time, "guests": guests}


async def main() -> None:
    """Ask for a table and show the call."""
    on = engine.events.on
    on("function_call_invoked", lambda event: print("call:  ", event.name, dict(event.arguments)))
    on("function_call_completed", lambda event: print("result:", event.result))
    on("text_output", lambda event: event.is_partial or print("agent: ", event.text))
    async with engine:
        await engine.send_text("We need a table for four tonight")
        await engine.wait_idle()


asyncio.run(main())
