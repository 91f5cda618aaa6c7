"""A WAV file in, a WAV file out: python speak_file.py [QUESTION.wav [ANSWER.wav]]"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.audio.wav import read_wav, write_wav

QUESTION = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "data" / "question.wav"
ANSWER = sys.argv[2] if len(sys.argv) > 2 else "answer.wav"


async def main() -> None:
    """Send the question as fast as it is taken, and write the answer when it is complete."""
    question = read_wav(QUESTION)
    config = VoiceEngineConfig(
        provider="mock",
        input_format=question.format,  # The engine converts it to what the provider takes.
        metadata={"hears": ["What is the weather like?"], "default": "It is sunny, and it will stay so."},
    )
    async with VoiceEngine(config) as engine:
        audio = bytearray()
        engine.events.on("audio_output_chunk", lambda event: audio.extend(event.audio_data))
        engine.events.on("input_transcript", lambda event: event.is_partial or print("you:  ", event.text))
        engine.events.on("text_output", lambda event: event.is_partial or print("agent:", event.text))
        await engine.send_audio(question.data)
        await engine.end_turn()
        await engine.wait_idle()
        write_wav(ANSWER, bytes(audio), engine.output_format)
        print(f"wrote {ANSWER}: {engine.output_format.duration_ms(len(audio)) / 1000:.1f} s")


asyncio.run(main())
