"""Speech in, a Python function called, speech out: OpenAI Realtime, offline against its emulator."""

from __future__ import annotations

import asyncio
from pathlib import Path

from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.audio.wav import read_wav, write_wav
from voxengine_openai.emulator import OpenAIEmulator


def get_weather(city: str) -> str:
    """Return the weather of a city."""
    return f"It is sunny in {city}."


async def main() -> None:
    """Ask by voice; show what was said, called and paid."""
    question, answer = read_wav(Path(__file__).parent / "data" / "question.wav"), bytearray()
    async with OpenAIEmulator(script={"hears": ["Call get_weather for Lisbon."]}).running() as url:
        config = VoiceEngineConfig(tools=[get_weather], input_format=question.format, metadata={"url": url})
        async with VoiceEngine(config) as engine:  # Without the url: the service, with OPENAI_API_KEY.
            engine.events.on("audio_output_chunk", lambda event: answer.extend(event.audio_data))
            await engine.send_audio(question.data)
            await engine.end_turn()
            await engine.wait_idle()
            print(*(f"{item.kind}: {item.text or item.arguments}" for item in engine.history), sep="\n")
            print("used:", await engine.get_usage(), "dollars:", await engine.estimate_cost())
            write_wav("answer.wav", bytes(answer), engine.output_format)


asyncio.run(main())
