"""Stop the agent in mid-sentence, and go on from what was heard."""

from __future__ import annotations

import asyncio

from voxengine import VoiceEngine, VoiceEngineConfig

config = VoiceEngineConfig(
    provider="mock",
    metadata={
        "responses": {
            "*story*": "Once upon a time there was a lighthouse, and in it lived a cat, and then ..."
        }
    },
)


async def main() -> None:
    """Ask for a story and interrupt it after a second."""
    async with VoiceEngine(config) as engine:
        playing = engine.events.stream("audio_output_started")
        await engine.send_text("Tell me a story")
        await anext(playing)
        await asyncio.sleep(1)

        interruption = engine.interrupt()  # A plain function: the agent is silent when it returns.
        assert interruption.heard is not None
        story = engine.history.get(interruption.heard.item_id)
        print(f"heard {interruption.heard.item_played_ms} ms: {story.heard_text!r}")
        print(f"of {story.text!r}")

        await engine.send_text("Thank you, that is enough")  # The history holds only what was heard.
        await engine.wait_idle()


asyncio.run(main())
