"""A spoken conversation, offline: a question, a tool call, an answer that is cut short, a second answer.

The user is two recordings, sent in real time as a microphone would; the agent is the mock provider. What is
said is shown while it is said. Writes demo/answer.wav (what was heard of the agent) and
demo/transcript.jsonl.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from voxengine import Event, VoiceEngine, VoiceEngineConfig
from voxengine.audio.wav import read_wav, write_wav

DATA, OUT = Path(__file__).parent / "data", Path("demo")
WEATHER = {
    "tool": "get_weather",
    "arguments": {"city": "Lisbon"},
    "then": "It is {result.sky} in Lisbon, {result.celsius} degrees, with a light breeze from the ocean. "
    "In the evening a few clouds come up from the west, and then the night is clear.",
}
CONFIG = VoiceEngineConfig(
    provider="mock",
    input_format=16_000,  # That of the recordings; the engine converts to what the provider takes.
    metadata={
        "hears": ["What is the weather like in Lisbon today?", "Thank you. Do I need an umbrella?"],
        "responses": {"*weather*": WEATHER, "*umbrella*": "No umbrella today. Enjoy the sun!"},
        "pace": 1.5,
    },
)
BEGAN = time.monotonic()
LINES: list[dict[str, object]] = []


def get_weather(city: str) -> dict[str, object]:
    """Return the weather of a city."""
    return {"sky": "sunny", "celsius": 24}


def show(who: str, text: str, is_partial: bool = False) -> None:
    """Print a line that stays, or on a terminal one whose place the next one takes."""
    if not is_partial:
        LINES.append({"at_s": round(time.monotonic() - BEGAN, 2), "who": who, "text": text})
    if sys.stdout.isatty():
        text, end = (text[-65:], "") if is_partial else (text, "\n")
        print(f"\r\x1b[K{who:>9}  {text}", end=end, flush=True)
    elif not is_partial:
        print(f"{who:>9}  {text}", flush=True)


async def speak(engine: VoiceEngine, recording: Path) -> None:
    """Send a recording at the speed of speech, and a little of the silence that follows it."""
    chunk = engine.input_format.n_bytes(20)
    audio = read_wav(recording).data + bytes(30 * chunk)
    began = time.monotonic()
    for n, start in enumerate(range(0, len(audio), chunk), 1):
        await engine.send_audio(audio[start : start + chunk])
        await asyncio.sleep(began + n * 0.020 - time.monotonic())


async def main() -> int:
    """Hold the conversation and return the exit code."""
    engine = VoiceEngine(CONFIG)
    engine.tool(get_weather)
    on, audible = engine.events.on, asyncio.Event()
    received: dict[str, bytearray] = {}
    heard = bytearray()

    on("input_transcript", lambda e: show("you", e.text, e.is_partial))
    on("text_output", lambda e: show("agent", e.text, e.is_partial))
    on("function_call_completed", lambda e: show("tool", f"{e.name} returned {e.result}"))
    on(
        "response_cancelled",
        lambda e: show("agent", f"{e.heard_text} … (cut after {e.heard_ms / 1000:.1f} s)"),
    )
    on("audio_output_started", lambda _: audible.set())
    on("audio_output_chunk", lambda e: received.setdefault(e.item_id, bytearray()).extend(e.audio_data))

    @on("audio_output_stopped")
    def keep(event: Event) -> None:
        """Keep what was played of an item; an interruption cuts the rest."""
        heard.extend(received.pop(event.item_id)[: engine.output_format.n_bytes(event.played_ms)])

    async with asyncio.timeout(60), engine:
        await speak(engine, DATA / "question.wav")
        await audible.wait()
        await asyncio.sleep(2.8)
        await speak(engine, DATA / "interruption.wav")  # Talks over the answer, which stops.
        await engine.wait_idle()

    OUT.mkdir(exist_ok=True)
    write_wav(OUT / "answer.wav", bytes(heard), engine.output_format)
    transcript = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in LINES)
    (OUT / "transcript.jsonl").write_text(transcript, "utf-8")
    seconds = len(heard) / engine.output_format.bytes_per_s
    print(
        f"\n{OUT / 'answer.wav'}: {seconds:.1f} s of the agent. {OUT / 'transcript.jsonl'}: {len(LINES)} lines."
    )
    print(f"The last answer was audible {engine.metrics.turns[-1].first_audio_ms} ms after the question.")
    return 0 if heard else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
