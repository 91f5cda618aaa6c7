"""Conversations to record: what an application does, as data, against the mock on virtual time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, TypeAlias

from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.errors import VoxEngineError
from voxengine.events import EventType
from voxengine.providers.registry import ProviderRegistry
from voxengine.recording import Recording
from voxengine.replaying import Replay, replay
from voxengine.testing import run_virtual
from voxengine_mock import MockProvider
from voxengine_mock.voice import VOICES, ToneSpeech

Step: TypeAlias = tuple[str, Any]

RATE = 24_000
SCRIPT: dict[str, Any] = {
    "responses": {
        "Hello": "Hi there! How can I help you today?",
        "*story*": "Once upon a time there was an engine that listened to everyone and forgot nobody at all.",
    },
    "hears": ["What time is it?", "Tell me a story", "Hello there"],
}
KEY = "sk-a-key-that-nobody-may-see"


async def clock(city: str = "Lisbon") -> str:
    """Tell the time in a city."""
    await asyncio.sleep(0.3)
    return f"five past noon in {city}"


async def broken() -> str:
    """Fail."""
    raise ValueError("the sky is falling")


class Unlike(MockProvider):
    """The mock under another name, for switches."""


def registry() -> ProviderRegistry:
    """A registry with two providers."""
    made = ProviderRegistry()
    made.register("mock", MockProvider)
    made.register("other", Unlike)
    return made


def config(**options: Any) -> VoiceEngineConfig:
    """The configuration of a conversation; ``faults`` go into the mock's script."""
    faults = options.pop("faults", [])
    metadata = {**SCRIPT, **({"faults": faults} if faults else {}), **options.pop("metadata", {})}
    values = {"provider": "mock", "api_key": KEY, "tools": (clock, broken), "metadata": metadata, **options}
    return VoiceEngineConfig(**values)


async def utterance(text: str = "What time is it?", rate: int = RATE, silence_ms: int = 800) -> bytes:
    """Speech of the mock's own voice, with silence behind it."""
    spoken = ToneSpeech(text, VOICES["bruno"], rate)
    return await spoken.pcm(0, spoken.duration_ms) + bytes(rate * silence_ms // 1000 * 2)


async def perform(engine: VoiceEngine, steps: list[Step]) -> None:
    """Do one step after the other; what cannot be done is passed over, as a patient application would."""
    for name, value in steps:
        try:
            await _do(engine, name, value)
        except VoxEngineError:
            await asyncio.sleep(0.1)


async def _do(engine: VoiceEngine, name: str, value: Any) -> None:
    if name == "speak":
        rate = engine.input_format.sample_rate
        pcm = await utterance(value, rate)
        step = rate // 50 * 2
        for at in range(0, len(pcm), step):
            await engine.send_audio(pcm[at : at + step])
            await asyncio.sleep(0.02)
    elif name == "recorded":
        await engine.send_recorded_audio(
            await utterance(value, engine.input_format.sample_rate, silence_ms=700)
        )
    elif name == "noise":
        await engine.send_audio(b"\x10\x20" * int(RATE * value))
    elif name == "wait":
        await asyncio.sleep(value)
    elif name == "rest":
        await engine.wait_idle(timeout_s=20)
    elif name == "append":
        engine.history.add_system(value)
    elif name == "interrupt":
        engine.interrupt()
    elif name == "interrupt_within":
        engine.events.once(value, lambda _: engine.interrupt())
    elif name == "play":
        for item in engine.history:
            if item.role == "agent":
                engine.mark_played(item.id, value)
    elif name == "switch":
        await engine.switch_provider(value, config(provider=value, api_key="sk-another-secret-key"))
    elif name == "configure":
        await engine.configure_session(instructions=value)
    else:
        await getattr(engine, name)(*(() if value is None else (value,)))


async def hold(
    path: Path, steps: list[Step], *, options: dict[str, Any] | None = None, **settings: Any
) -> tuple[Recording, list[Any]]:
    """Hold a conversation and record it; return the recording and the events."""
    engine = VoiceEngine(config(**settings), registry=registry())
    seen: list[Any] = []
    engine.events.on("*", seen.append)
    recording = engine.record(path, **(options or {}))
    try:
        await engine.connect()
        await perform(engine, steps)
    except VoxEngineError:
        await asyncio.sleep(0.1)
    finally:
        await engine.disconnect()
    return recording, seen


def held(path: Path, steps: list[Step], **settings: Any) -> list[Any]:
    """The same on virtual time; the events."""
    _, seen = run_virtual(hold(path, steps, **settings), socket_grace_s=0.0, max_real_s=100)
    return seen


def again(path: Path, steps: list[Step], **settings: Any) -> tuple[Replay, list[Any]]:
    """Hold a conversation, record it and run it again."""
    seen = held(path, steps, **settings)
    return replay(path), seen


def types(events: list[Any]) -> list[EventType]:
    """Their types."""
    return [event.type for event in events]
