"""Conversations with a vendor's provider over a socket are tapped on the wire and run again without one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.core.recording.talks import broken, clock, perform, types, utterance
from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.events import EventType
from voxengine.replaying import Replay, replay
from voxengine.testing import run_virtual
from voxengine_mock.harness import serve
from voxengine_openai.emulator import OpenAIEmulator

KEY = "sk-a-key-of-the-vendor"
SCRIPT: dict[str, Any] = {
    "responses": {
        "Do both": {
            "calls": [{"tool": "clock", "arguments": {}}, {"tool": "broken", "arguments": {}}],
            "then": "Done.",
        },
        "Hello": "Hi there!",
        "*story*": "Once upon a time there was an engine that forgot nobody.",
    },
    "hears": ["What time is it?", "Tell me a story", "Hello there"],
}


async def hold(path: Path, steps: list[Any], faults: list[str], **options: Any) -> list[Any]:
    """Hold a conversation with the emulator and record it; return the events."""
    async with serve(OpenAIEmulator(script=SCRIPT, speed=20, key=KEY, faults=faults)) as server:
        engine = VoiceEngine(
            VoiceEngineConfig(
                provider="openai", api_key=KEY, metadata={"url": server.url}, tools=(clock, broken), **options
            )
        )
        seen: list[Any] = []
        engine.events.on("*", seen.append)
        engine.record(path)
        async with engine:
            for step in steps:
                if step[0] == "talk_over":
                    await talk_over(engine)
                elif step[0] == "switch":
                    await engine.switch_provider("mock", VoiceEngineConfig(provider="mock", metadata=SCRIPT))
                else:
                    await perform(engine, [step])
    return seen


async def talk_over(engine: VoiceEngine) -> None:
    """Ask by voice for a story, and speak as soon as it begins."""
    is_audible = asyncio.Event()
    engine.events.once(EventType.AUDIO_OUTPUT_STARTED, lambda _: is_audible.set())
    await engine.send_text("Tell me a story")
    await is_audible.wait()
    for _ in range(20):
        await asyncio.sleep(0.02)
    pcm = await utterance("What time is it?", engine.input_format.sample_rate)
    for at in range(0, len(pcm), 960):
        await engine.send_audio(pcm[at : at + 960])
        await asyncio.sleep(0.02)


def again(
    path: Path, steps: list[Any], *, faults: list[str] | None = None, **options: Any
) -> tuple[Replay, Any]:
    seen = run_virtual(hold(path, steps, faults or [], **options), max_real_s=60)
    return replay(path), seen


@pytest.mark.parametrize("turns", ["server", "client"])
def test_conversation_with_everything_runs_again(tmp_path: Path, turns: str) -> None:
    outcome, seen = again(
        tmp_path / "talk.jsonl",
        [
            ("send_text", "Hello"),
            ("rest", None),
            ("speak", "What time is it?"),
            ("rest", None),
            ("talk_over", None),
            ("rest", None),
            ("send_text", "Do both"),
            ("rest", None),
            ("configure", "Speak slowly."),
            ("send_text", "Tell me a story"),
            ("wait", 0.4),
            ("interrupt", None),
            ("get_usage", None),
            ("switch", "mock"),
            ("send_text", "Hello"),
            ("rest", None),
        ],
        turn_detection=turns,
    )

    assert outcome.differences == ()
    assert [event["type"] for event in outcome.events] == types(seen)
    assert {
        EventType.INTERRUPTED,
        EventType.INPUT_TRANSCRIPT,
        EventType.FUNCTION_CALL_INVOKED,
        EventType.SESSION_UPDATED,
        EventType.PROVIDER_SWITCHED,
    } <= set(types(seen))
    assert types(seen).count(EventType.FUNCTION_CALL_INVOKED) == 2
    wires = {line["session"] for line in outcome.tape.of("wire")}
    assert wires == {1, 2}
    assert KEY not in (tmp_path / "talk.jsonl").read_text("utf-8")


@pytest.mark.parametrize(
    "fault",
    ["reset at=turn:2", "close at=turn:2 code=1011", "close at=response:2:after_audio_ms=300 code=1011"],
)
def test_lost_connection_and_recovery_run_again(tmp_path: Path, fault: str) -> None:
    outcome, seen = again(
        tmp_path / "talk.jsonl",
        [("send_text", "Hello"), ("rest", None), ("speak", "What time is it?"), ("rest", None)],
        faults=[fault],
    )

    assert EventType.CONNECTION_LOST in types(seen)
    assert EventType.PROVIDER_SWITCHED in types(seen)
    assert outcome.differences == ()
    assert [event["type"] for event in outcome.events] == types(seen)
