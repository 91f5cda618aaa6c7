"""A conversation that goes on in another process: through a pipe, with nothing shared."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

from tests.core.recording.talks import utterance
from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.testing import run_virtual

SCRIPT: dict[str, Any] = {
    "responses": {"What time is it?": "It is five past noon."},
    "hears": ["What time is it?"],
}
SECOND = """
import asyncio, json, sys
from voxengine import VoiceEngine
from voxengine.testing import run_virtual

runs = []

async def weather() -> str:
    "Say what the weather is."
    runs.append("weather")
    return "sunny"

async def main():
    value = json.load(sys.stdin)
    engine = VoiceEngine.resume(value["snapshot"])
    engine.tool(weather)
    seen = []
    engine.events.on("*", lambda event: seen.append(event))
    rest = bytes.fromhex(value["rest"])
    async with engine:
        for at in range(0, len(rest), 960):
            await engine.send_audio(rest[at : at + 960])
            await asyncio.sleep(0.02)
        await engine.wait_idle()
        items = [(item.role, item.context_text) for item in engine.history]
    words = [event.text for event in seen if event.type == "input_transcript" and not event.is_partial]
    print(json.dumps({"items": items, "words": words, "runs": runs}))

run_virtual(main())
"""


async def first() -> dict[str, Any]:
    """The beginning of a conversation: a tool was called, and the user is in the middle of a sentence."""
    runs: list[str] = []

    async def weather() -> str:
        """Say what the weather is."""
        runs.append("weather")
        return "sunny"

    config = VoiceEngineConfig(provider="mock", tools=(weather,), metadata=SCRIPT)
    question = await utterance("What time is it?", silence_ms=900)
    half = len(question) // 4 * 2
    engine = VoiceEngine(config)
    await engine.connect()
    await engine.send_text("call weather please")
    await engine.wait_idle()
    for at in range(0, half, 960):
        await engine.send_audio(question[at : min(at + 960, half)])
        await asyncio.sleep(0.02)
    snapshot = engine.snapshot()
    await engine.disconnect()
    assert runs == ["weather"]
    return {"snapshot": snapshot, "rest": question[half:].hex()}


def test_second_process_hears_the_whole_question_and_runs_no_tool_again() -> None:
    begun = run_virtual(first())

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SECOND],
        input=json.dumps(begun),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["words"] == ["What time is it?"]
    assert outcome["runs"] == []
    assert [role for role, _ in outcome["items"]] == ["user", "tool", "tool", "agent", "user", "agent"]
    assert outcome["items"][-1][1] == "It is five past noon."
