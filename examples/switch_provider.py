"""Move a conversation to another provider: it knows what was said before."""

from __future__ import annotations

import asyncio

from voxengine import VoiceEngine, VoiceEngineConfig, get_provider, register_provider

register_provider("second", get_provider("mock"))  # Stands for another vendor, so that this runs offline.

first = VoiceEngineConfig(provider="mock", metadata={"default": "Nice to meet you, {text}!"})
second = VoiceEngineConfig(provider="second", voice="bruno")


async def main() -> None:
    """Tell the first who I am, and ask the second."""
    async with VoiceEngine(first) as engine:
        on = engine.events.on
        on("text_output", lambda event: event.is_partial or print(f"{event.provider}: {event.text}"))
        on(
            "provider_switched",
            lambda event: print(f"-- now with {event.to_provider}; context: {event.context}"),
        )
        await engine.send_text("Ada")
        await engine.wait_idle()

        await engine.switch_provider("second", second)
        await engine.send_text("What did I say?")
        await engine.wait_idle()


asyncio.run(main())
