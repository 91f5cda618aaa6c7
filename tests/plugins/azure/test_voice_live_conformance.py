"""Voice Live fulfils the contract against its emulator, and everything that travels fits the official models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.plugins.azure.voicelive_types import check_client, check_server
from voxengine.config import TurnDetection, VoiceEngineConfig
from voxengine.engine import VoiceEngine
from voxengine.events import Event, EventType
from voxengine.history import Item
from voxengine.providers.base import BaseProvider, overrides
from voxengine.testing import ProviderConformance
from voxengine.testing.conformance.subject import speech_like
from voxengine_azure import AzureProvider
from voxengine_azure.emulator import AzureVoiceLiveEmulator

pytestmark = pytest.mark.slow

SPEED = 20.0


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with AzureVoiceLiveEmulator(speed=SPEED).running() as address:
        yield address


class TestVoiceLive(ProviderConformance):
    quiet_s = 0.2

    @pytest.fixture
    async def provider(self, url: str) -> BaseProvider:
        return AzureProvider(
            {"api_key": "sk-drive", "voice": "en-US-JennyNeural", "metadata": {"endpoint": url}}
        )


class Wire:
    """What an engine's provider sent and received, judged as it passes."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.received: list[dict[str, Any]] = []
        self.wrong: list[str] = []

    def on_wire(self, direction: str, wire: str | bytes, now: float) -> None:
        check, kept = (check_client, self.sent) if direction == "out" else (check_server, self.received)
        try:
            kept.append(check(wire))
        except AssertionError as error:
            self.wrong.append(str(error))

    def of(self, name: str) -> list[dict[str, Any]]:
        return [event for event in (*self.sent, *self.received) if event["type"] == name]


@pytest.fixture
def wire() -> Iterator[Wire]:
    kept = Wire()
    yield kept
    assert kept.sent
    assert kept.received
    assert kept.wrong == []


def engine_at(url: str, wire: Wire, **options: Any) -> tuple[VoiceEngine, list[Event]]:
    metadata = {"endpoint": url, **options.pop("metadata", {})}
    config = VoiceEngineConfig(
        provider="azure", api_key="sk-drive", metadata=metadata, playback="null", **options
    )
    engine = VoiceEngine(config, taps=[wire])
    events: list[Event] = []
    engine.events.on("*", events.append)
    return engine, events


def get_weather(city: str) -> str:
    """Return the weather of a city."""
    return f"Sunny in {city}."


async def test_everything_that_a_conversation_says_fits_the_official_models(url: str, wire: Wire) -> None:
    metadata = {
        "noise_reduction": "azure_deep_noise_suppression",
        "echo_cancellation": True,
        "animation": "viseme_id",
        "style": "cheerful",
        "rate": "+10%",
    }
    options: dict[str, Any] = {
        "voice": "en-US-JennyNeural",
        "vocabulary": ("Lisbon",),
        "language": "en-US",
        "temperature": 0.4,
        "tools": (get_weather,),
    }
    engine, events = engine_at(url, wire, metadata=metadata, **options)
    engine.history.append(Item("", "user_text", "My name is Ada."))
    engine.history.append(Item("", "agent", "Hello Ada."))
    async with engine:
        await engine.send_text("Use get_weather for the city of Lisbon.")
        await engine.wait_idle()
        await engine.configure_session(
            instructions="Be brief.", turn_detection=TurnDetection("semantic", silence_ms=400)
        )
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
    assert EventType.RESPONSE_CANCELLED in kinds
    assert [event for event in events if event.type.startswith("error")] == []
    assert usage is not None
    assert usage["output_tokens"] > 0
    assert cost is None
    (said,) = [
        event
        for event in events
        if event.type is EventType.RESPONSE_STARTED and event.data["trigger"] == "say"
    ]
    spoken = [
        event.data["text"]
        for event in events
        if event.type is EventType.TEXT_OUTPUT and event.data["response_id"] == said.data["response_id"]
    ]
    assert spoken[-1] == "Welcome aboard."


async def test_history_that_is_changed_in_mid_call_is_changed_at_the_service(url: str, wire: Wire) -> None:
    engine, events = engine_at(url, wire)
    async with engine:
        note = engine.history.add_system("The user is called Ada.")
        await engine.send_text("Hello.")
        await engine.wait_idle()
        text = next(item for item in engine.history if item.kind == "user_text")
        engine.history.edit(note.id, text="The user is called Grace.")
        engine.history.delete(text.id)
        await engine._conversation.telling.wait()

    ids = [event["item"]["id"] for event in wire.of("conversation.item.create")]
    gone = [event["item_id"] for event in wire.of("conversation.item.deleted")]
    assert wire.of("conversation.item.create")[2]["previous_item_id"] == ids[0]
    assert gone == ids[:2]
    assert [event for event in events if event.type.startswith("error")] == []
    assert "history_not_told" not in [e.data["code"] for e in events if e.type is EventType.WARNING]


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
    final = [e for e in events if e.type is EventType.INPUT_TRANSCRIPT and not e.data["is_partial"]]
    assert len(answers) == 1
    assert engine.history.items[0].text == final[0].data["text"]
    assert [word["word"] for word in final[0].data["words"]] == final[0].data["text"].split()
    assert [event for event in events if event.type.startswith("error")] == []


async def test_interruption_reports_what_the_word_times_say(url: str, wire: Wire) -> None:
    engine, events = engine_at(url, wire, voice="en-US-JennyNeural")
    async with engine:
        marks: list[Event] = []
        enough = asyncio.Event()

        def count(event: Event) -> None:
            if event.data["kind"] == "word":
                marks.append(event)
            if len(marks) == 12:
                enough.set()

        engine.events.on(EventType.SPEECH_MARK, count)
        await engine.send_text("Tell me a long story.")
        await enough.wait()
        await engine.interrupt()
        await engine.wait_idle()

    (cancelled,) = [event for event in events if event.type is EventType.RESPONSE_CANCELLED]
    words = [mark.data["value"] for mark in marks if mark.data["at_ms"] <= cancelled.data["heard_ms"]]
    heard = (cancelled.data["heard_text"] or "").split()
    assert heard == words[: len(heard)]
    assert wire.of("response.cancel")


@pytest.mark.parametrize("turns", ["server", TurnDetection("semantic", silence_ms=300)])
async def test_end_of_turn_waits_as_long_as_the_words_may_take(url: str, wire: Wire, turns: Any) -> None:
    engine, events = engine_at(
        url, wire, model="gpt-4o", turn_detection=turns, metadata={"end_of_utterance": True}
    )
    async with engine:
        await engine.send_audio(speech_like(24_000))
        await engine.end_turn()
        await engine.wait_idle()

    assert [event for event in events if event.type is EventType.RESPONSE_COMPLETED]
    (update,) = [event for event in wire.of("session.update") if event["session"].get("turn_detection")]
    assert (
        update["session"]["turn_detection"]["end_of_utterance_detection"]["model"] == "semantic_detection_v1"
    )


@pytest.mark.parametrize("method", [name for name in dir(BaseProvider) if name.startswith("try_")])
def test_short_way_of_a_service_is_passed_on(method: str) -> None:
    assert overrides(AzureProvider, method)
