"""Ask in text, read the answer. The shortest conversation there is."""

from __future__ import annotations

import asyncio

from voxengine import VoiceEngine, VoiceEngineConfig

config = VoiceEngineConfig(
    provider="mock",  # Or "openai", "azure", ...: nothing below changes.
    metadata={"responses": {"Hello": "Hi there! How can I help?"}},
)


async def main() -> None:
    """Say hello and print what comes back."""
    async with VoiceEngine(config) as engine:
        answers = engine.events.stream("text_output")
        await engine.send_text("Hello")
        async for event in answers:
            if not event.is_partial:
                print("agent:", event.text)
                break


asyncio.run(main())
