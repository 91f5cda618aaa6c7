"""The provider fulfils the contract against the emulator, and everything that it sends fits the official types."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.plugins.openai.sdk_types import check_client
from voxengine.config import TurnDetection, VoiceEngineConfig
from voxengine.engine import VoiceEngine
from voxengine.events import Event, EventType
from voxengine.history import Item
from voxengine.providers.base import BaseProvider
from voxengine.testing import ProviderConformance
from voxengine.testing.conformance.subject import speech_like
from voxengine_openai import CustomProvider, OpenAIProvider
from voxengine_openai.emulator import OpenAIEmulator

pytestmark = pytest.mark.slow

SPEED = 20.0


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with OpenAIEmulator(speed=SPEED).running() as address:
        yield address


class TestOpenAI(ProviderConformance):
    quiet_s = 0.2

    @pytest.fixture
    async def provider(self, url: str) -> BaseProvider:
        return OpenAIProvider({"api_key": "sk-drive", "metadata": {"url": url}})


class TestTranscription(ProviderConformance):
    quiet_s = 0.2

    @pytest.fixture
    async def provider(self, url: str) -> BaseProvider:
        return OpenAIProvider({"api_key": "sk-drive", "metadata": {"url": url, "service": "transcription"}})


class TestCustomBeta(ProviderConformance):
    quiet_s = 0.2

    @pytest.fixture
    async def provider(self, url: str) -> BaseProvider:
        # The compatible service of the emulator: OpenAI's own speaks the beta protocol no more.
        metadata = {"endpoint": url.removesuffix("/v1") + "/realtime", "dialect": "beta", "model": "m1"}
        return CustomProvider({"api_key": "sk-drive", "metadata": metadata})


class Wire:
    """What an engine's provider sent and received."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def on_wire(self, direction: str, wire: str | bytes, now: float) -> None:
        if direction == "out":
            assert isinstance(wire, str)
            self.sent.append(wire)


@pytest.fixture
def wire() -> Iterator[Wire]:
    kept = Wire()
    yield kept
    assert kept.sent
    for text in kept.sent:
        check_client(text)


def engine_at(url: str, wire: Wire, **options: Any) -> tuple[VoiceEngine, list[Event]]:
    config = VoiceEngineConfig(api_key="sk-drive", metadata={"url": url}, playback="null", **options)
    engine = VoiceEngine(config, taps=[wire])
    events: list[Event] = []
    engine.events.on("*", events.append)
    return engine, events


def get_weather(city: str) -> str:
    """Return the weather of a city."""
    return f"Sunny in {city}."


async def test_everything_that_a_conversation_sends_fits_the_official_types(url: str, wire: Wire) -> None:
    engine, events = engine_at(
        url, wire, voice="nova", tools=(get_weather,), vocabulary=("Lisbon",), language="en-US"
    )
    engine.history.append(Item("", "user_text", "My name is Ada."))
    async with engine:
        await engine.send_text("Use get_weather for the city of Lisbon.")
        await engine.wait_idle()
        await engine.configure_session(instructions="Be brief.", turn_detection=TurnDetection("semantic"))
        engine.history.add_image("data:image/png;base64,iVBORw0KGgo=", "a cat")
        await engine.say("Welcome aboard.")
        await engine.wait_idle()
        await engine.send_text("Tell me a long story.")
        heard = asyncio.Event()
        engine.events.on(EventType.AUDIO_OUTPUT_CHUNK, lambda event: heard.set())
        await heard.wait()
        await engine.interrupt()
        await engine.send_text("Hello again.")
        await engine.wait_idle()
        usage, cost = await engine.get_usage(), await engine.estimate_cost()

    kinds = [event.type for event in events]
    assert EventType.FUNCTION_CALL_COMPLETED in kinds
    assert [event for event in events if event.type.startswith("error")] == []
    assert usage is not None
    assert usage["output_tokens"] > 0
    assert cost
    started = [event.data["response_id"] for event in events if event.type is EventType.RESPONSE_STARTED]
    ended = [
        event.data["response_id"]
        for event in events
        if event.type in (EventType.RESPONSE_COMPLETED, EventType.RESPONSE_CANCELLED)
    ]
    assert sorted(started) == sorted(ended)


@pytest.mark.parametrize("kind", ["server", "semantic", "client", "manual"])
async def test_speech_is_answered_under_every_turn_detection(url: str, wire: Wire, kind: str) -> None:
    engine, events = engine_at(url, wire, turn_detection=kind, group_ms=60)
    async with engine:
        await engine.send_audio(speech_like(24_000))
        await engine.end_turn()
        await engine.wait_idle()

    answers = [
        e for e in events if e.type is EventType.RESPONSE_COMPLETED and e.data["status"] == "completed"
    ]
    assert len(answers) == 1
    assert engine.history.items[0].text
    assert [event for event in events if event.type.startswith("error")] == []


async def test_users_voice_stops_the_answer_and_the_service_learns_what_was_heard(
    url: str, wire: Wire
) -> None:
    engine, events = engine_at(url, wire)
    async with engine:
        playing, stopped = asyncio.Event(), asyncio.Event()
        engine.events.on(EventType.AUDIO_OUTPUT_STARTED, lambda event: playing.set())
        engine.events.on(EventType.INTERRUPTED, lambda event: stopped.set())
        await engine.send_text("Tell me a long story.")
        await playing.wait()
        await engine.send_audio(speech_like(24_000))
        await stopped.wait()
        await engine.end_turn()
        await engine.wait_idle()

    sent = [check_client(text) for text in wire.sent]
    (cut,) = [event for event in sent if event["type"] == "conversation.item.truncate"]
    (interrupted,) = [event for event in events if event.type is EventType.INTERRUPTED]
    assert cut["audio_end_ms"] == interrupted.data["heard_ms"]
    assert "response.cancel" not in {event["type"] for event in sent}
    assert [event for event in events if event.type.startswith("error")] == []
    endings = [e.type for e in events if e.type.startswith(("response_completed", "response_cancelled"))]
    assert endings == [EventType.RESPONSE_CANCELLED, EventType.RESPONSE_COMPLETED]


async def test_ephemeral_key_opens_a_session_with_its_configuration(url: str) -> None:
    maker = OpenAIProvider({"api_key": "sk-drive", "voice": "sage", "metadata": {"url": url}})
    secret = await maker.create_client_secret(life_s=60)
    provider = OpenAIProvider({"api_key": secret.value, "mode": "provider", "metadata": {"url": url}})
    shown: list[Event] = []
    provider.on_event = shown.append
    await provider.connect()
    await provider.disconnect()

    settings = next(event.data["settings"] for event in shown if event.type is EventType.SESSION_UPDATED)
    assert settings["voice"] == "sage"


async def test_aside_is_answered_beside_the_conversation(url: str) -> None:
    provider = OpenAIProvider({"api_key": "sk-drive", "metadata": {"url": url}})
    events: list[Event] = []
    provider.on_event = events.append
    await provider.connect()
    try:
        aside = await provider.ask_aside("Classify.", items=[Item("1", "user_text", "Hello there.")])
    finally:
        await provider.disconnect()

    assert aside.status == "completed"
    assert aside.text
    assert not [event for event in events if event.type is EventType.RESPONSE_STARTED]
