"""Taps see and change what flows: here a meter on the input, and a name taken out of every event."""

from __future__ import annotations

import asyncio
from array import array
from pathlib import Path

from voxengine import Event, VoiceEngine, VoiceEngineConfig, hookimpl
from voxengine.audio.wav import read_wav
from voxengine.events import make_event


class Tap:
    """Measures the loudest sample of the user and hides a name from whoever listens to the events."""

    peak = 0

    @hookimpl
    def on_input(self, chunk: bytes) -> bytes:
        """Look at a chunk and pass it on as it is; None would discard it."""
        self.peak = max(self.peak, *map(abs, array("h", chunk)))
        return chunk

    @hookimpl
    def on_event(self, event: Event) -> Event:
        """Replace the name where there is a text."""
        text = (event.text or "").replace("Lisbon", "[city]")
        return make_event(event.type, {**event.data, "text": text}) if event.text else event


async def main() -> None:
    """Send a question through the tap."""
    tap, question = Tap(), read_wav(Path(__file__).parent / "data" / "question.wav")
    metadata = {"hears": ["How is the weather in Lisbon?"]}
    config = VoiceEngineConfig(provider="mock", input_format=question.format, metadata=metadata)
    async with VoiceEngine(config, taps=[tap]) as engine:
        engine.events.on("text_output", lambda event: event.is_partial or print("agent:", event.text))
        await engine.send_audio(question.data)
        await engine.end_turn()
        await engine.wait_idle()
    print(f"loudest sample: {tap.peak / 32768:.0%}")


asyncio.run(main())
