"""The service ``transcription``: what the user says as text, and nobody who answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.plugins.openai.emulating import spoken
from tests.plugins.openai.peer import Peer
from tests.plugins.openai.sdk_types import check_client
from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.capabilities import Support
from voxengine.errors import AuthenticationFailed, CapabilityMissing, ConfigError, ErrorCode, ProviderError
from voxengine.events import Event, EventType
from voxengine.history import Item
from voxengine.testing import leak_check
from voxengine_openai import CustomProvider, OpenAIProvider
from voxengine_openai.emulator import OpenAIEmulator
from voxengine_openai.prices import transcription_cost
from voxengine_openai.transcription import TranscriptionProvider

HEARS: dict[str, Any] = {"delay_ms": 0, "hears": ["take a note", "buy some milk"]}
HELLO = Item(id="item_1", kind="user_text", text="Hello")
SERVICE = {"service": "transcription"}


def of(events: list[Event], kind: EventType) -> list[Event]:
    return [event for event in events if event.type is kind]


def finals(events: list[Event]) -> list[str]:
    return [event.text for event in of(events, EventType.INPUT_TRANSCRIPT) if not event.is_partial]


def engine_at(url: str, **options: Any) -> tuple[VoiceEngine, list[Event]]:
    metadata = {"url": url, **SERVICE, **options.pop("metadata", {})}
    engine = VoiceEngine(VoiceEngineConfig(provider="openai", metadata=metadata, **options))
    events: list[Event] = []
    engine.events.on("*", events.append)
    return engine, events


class DialledTranscription(TranscriptionProvider):
    peer: Peer

    async def _dial(self, endpoint: Any, deadlines: Any) -> Any:
        self.dialled = endpoint
        return self.peer.pair.client


def planned(**asked: Any) -> Any:
    """The session that a configuration asks for, and its warnings."""
    provider = OpenAIProvider(
        {"api_key": "sk-x", "metadata": {**SERVICE, **asked.pop("metadata", {})}, **asked}
    )
    values = provider._read_options(provider.config)
    provider._model = provider._choose_model(values)[0]
    return provider._plan_session(values, provider.config["metadata"].get("session"))


# -- a session ------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["websockets", "picows"])
async def test_speech_becomes_text_and_nobody_answers(transport: str) -> None:
    pytest.importorskip(transport)
    async with leak_check(), OpenAIEmulator(script=HEARS, speed=50).running() as url:
        engine, events = engine_at(url, transport=transport)
        async with engine:
            await engine.send_audio(await spoken())
            await engine.end_turn()
            await engine.wait_idle()
            await engine.send_audio(await spoken())
            await engine.end_turn()
            await engine.wait_idle()
            kinds = [(item.kind, item.text) for item in engine.history]
            usage, cost = await engine.get_usage(), await engine.estimate_cost()

    assert finals(events) == ["take a note", "buy some milk"]
    assert kinds == [("user_audio", "take a note"), ("user_audio", "buy some milk")]
    assert of(events, EventType.RESPONSE_STARTED) == of(events, EventType.ERROR_GENERAL) == []
    told = [event.type for event in events if event.data.get("source") == "server"]
    assert told == [EventType.SPEECH_STARTED, EventType.SPEECH_ENDED] * 2
    assert usage is not None
    assert usage["n_responses"] == 0
    assert usage["transcription_tokens"] > 0
    assert cost == engine_cost(events)


def engine_cost(events: list[Event]) -> float | None:
    cost: float | None = of(events, EventType.USAGE_UPDATED)[-1].cost
    return cost


async def test_turn_ended_by_hand_is_written_down() -> None:
    async with leak_check(), OpenAIEmulator(script=HEARS, speed=50).running() as url:
        engine, events = engine_at(url, turn_detection="manual", model="gpt-4o-transcribe")
        async with engine:
            await engine.send_audio(await spoken(pause_ms=0))
            await engine.end_turn()
            await engine.wait_idle()
            settings = dict(engine.session.settings) if engine.session is not None else {}

    assert finals(events) == ["take a note"]
    assert settings["transcription_model"] == "gpt-4o-transcribe"
    assert of(events, EventType.ERROR_GENERAL) == of(events, EventType.WARNING) == []


async def test_live_model_writes_while_it_hears() -> None:
    async with leak_check(), OpenAIEmulator(script=HEARS, speed=50).running() as url:
        engine, events = engine_at(url, model="gpt-realtime-whisper", metadata={"transcription_delay": "low"})
        async with engine:
            await engine.send_audio(await spoken(pause_ms=0))
            await engine.end_turn()
            await engine.wait_idle()

    texts = of(events, EventType.INPUT_TRANSCRIPT)
    assert len(texts) > 1
    assert texts[0].is_partial
    assert finals(events) == ["take a note"]
    assert [event.code for event in of(events, EventType.WARNING)] == ["turn_detection_moved"]


async def test_probabilities_reach_the_application() -> None:
    include = {"include": ["item.input_audio_transcription.logprobs"]}
    async with OpenAIEmulator(script=HEARS, speed=50).running() as url:
        engine, events = engine_at(url, model="gpt-4o-transcribe", metadata=include)
        async with engine:
            await engine.send_audio(await spoken())
            await engine.end_turn()
            await engine.wait_idle()

    texts = of(events, EventType.INPUT_TRANSCRIPT)
    assert all(event.data["logprobs"] for event in texts)
    assert "".join(entry["token"] for entry in texts[-1].data["logprobs"]) == "take a note"


async def test_failed_transcription_is_a_warning_and_the_session_goes_on() -> None:
    faults = ["error at=transcript:1 code=unavailable"]
    async with leak_check(), OpenAIEmulator(script=HEARS, speed=50, faults=faults).running() as url:
        engine, events = engine_at(url)
        async with engine:
            for _ in range(2):
                await engine.send_audio(await spoken())
                await engine.end_turn()
                await engine.wait_idle()

    assert [event.code for event in of(events, EventType.WARNING)] == ["transcription_failed"]
    assert finals(events) == ["", "buy some milk"]
    assert of(events, EventType.ERROR_GENERAL) == []


async def test_ephemeral_key_opens_a_transcription_session() -> None:
    async with OpenAIEmulator(script=HEARS, speed=50).running() as url:
        server = OpenAIProvider(
            {"api_key": "sk-drive", "model": "whisper-1", "metadata": {"url": url, **SERVICE}}
        )
        secret = await server.create_client_secret(life_s=60)
        engine, events = engine_at(url, api_key=secret.value, model="whisper-1")
        async with engine:
            await engine.send_audio(await spoken())
            await engine.end_turn()
            await engine.wait_idle()

    assert secret.session["audio"]["input"]["transcription"]["model"] == "whisper-1"
    assert finals(events) == ["take a note"]


async def test_refused_key_and_refused_setting_are_told_as_in_a_conversation() -> None:
    async with leak_check(), OpenAIEmulator(script=HEARS).running() as url:
        with pytest.raises(AuthenticationFailed):
            await engine_at(url, api_key="sk-wrong")[0].connect()
        with pytest.raises(ProviderError) as refused:
            await engine_at(url, metadata={"transcription_delay": "low"})[0].connect()

    assert refused.value.code is ErrorCode.INVALID_REQUEST
    assert "delay" in str(refused.value)


async def test_everything_that_is_sent_fits_the_official_types() -> None:
    peer = Peer()
    peer.session = {
        "type": "transcription",
        "object": "realtime.transcription_session",
        "id": "sess_1",
        "audio": {"input": {"format": {"type": "audio/pcm", "rate": 24_000}}},
    }
    config = {
        "api_key": "sk-x",
        "model": "gpt-4o-transcribe",
        "language": "en-GB",
        "vocabulary": ("Lisbon",),
        "metadata": {**SERVICE, "noise_reduction": "near_field", "transcription_prompt": "A meeting."},
    }
    provider = DialledTranscription(config)
    provider.peer = peer
    provider.start_task(peer.serve(), name="peer")
    await provider.connect()
    await provider.configure_session({"language": "pt"})
    await provider.send_audio(bytes(9600))
    await provider.end_turn()
    await provider.discard_input()
    await provider.interrupt()
    await peer.wait("input_audio_buffer.clear")
    await provider.disconnect()

    for text in peer.texts:
        check_client(text)
    updates = [json.loads(text)["session"] for text in peer.texts if '"session.update"' in text]
    assert updates[0]["type"] == updates[1]["type"] == "transcription"
    assert updates[0]["audio"]["input"]["transcription"] == {
        "model": "gpt-4o-transcribe",
        "language": "en",
        "prompt": "A meeting. Expect these words: Lisbon.",
    }
    assert updates[1]["audio"]["input"]["transcription"] == {"language": "pt"}
    assert provider.dialled.url == "wss://api.openai.com/v1/realtime?intent=transcription"
    assert {"response.create", "response.cancel", "conversation.item.create"}.isdisjoint(peer.names())


# -- what it declares and refuses -----------------------------------------------------------------


def test_class_of_the_service_is_chosen_by_the_configuration() -> None:
    assert type(OpenAIProvider({})) is OpenAIProvider
    assert type(OpenAIProvider({"metadata": {"service": "realtime"}})) is OpenAIProvider
    assert type(OpenAIProvider({"metadata": SERVICE})) is TranscriptionProvider
    assert type(CustomProvider({"metadata": SERVICE})) is CustomProvider


def test_capabilities_say_that_nobody_answers() -> None:
    found = OpenAIProvider.capabilities_for({"metadata": SERVICE, "turn_detection": "semantic"})

    assert found.dialogue.support is Support.UNSUPPORTED
    assert found.recognition.support is Support.FULL
    assert found.text_turn.support is found.session_tools.support is Support.UNSUPPORTED
    assert found.endpointing_silence_ms == 4000
    assert found is OpenAIProvider.capabilities_for({"metadata": SERVICE, "turn_detection": "semantic"})


@pytest.mark.parametrize("provider", ["openai", "custom"])
async def test_service_that_there_is_not_is_refused(provider: str) -> None:
    metadata = {"service": "translation", "endpoint": "ws://127.0.0.1:1/v1"}

    with pytest.raises(ConfigError, match="service"):
        await VoiceEngine(VoiceEngineConfig(provider=provider, api_key="sk-x", metadata=metadata)).connect()


@pytest.mark.parametrize(
    ("call", "capability"),
    [
        (lambda provider: provider.send_text("Hello"), "text_turn"),
        (lambda provider: provider.speak("Hello"), "speak"),
        (lambda provider: provider.send_tool_result("call_1", "x"), "session_tools"),
        (lambda provider: provider.load_history([HELLO]), "context_text"),
        (lambda provider: provider.send_item(HELLO), "items"),
        (lambda provider: provider.ask_aside("Hello"), "dialogue"),
    ],
)
async def test_what_needs_an_answer_is_refused(call: Any, capability: str) -> None:
    with pytest.raises(CapabilityMissing) as refused:
        await call(OpenAIProvider({"metadata": SERVICE}))

    assert refused.value.capability == capability


def test_setting_of_a_dialogue_is_named_and_not_sent() -> None:
    plan = planned(voice="marin", instructions="Be brief.", metadata={"speed": 1.2, "create_response": False})

    assert [row[0] for row in plan.warnings] == ["voice", "instructions", "speed", "create_response"]
    assert set(plan.session) == {"type", "audio"}
    assert set(plan.session["audio"]) == {"input"}


def test_the_vendors_own_words_come_last_here_too() -> None:
    own = {"audio": {"input": {"transcription": {"prompt": "x"}}}, "include": ["y"]}

    plan = planned(metadata={"session": own})

    assert plan.session["include"] == ["y"]
    assert plan.session["audio"]["input"]["transcription"] == {"model": "gpt-transcribe", "prompt": "x"}


def test_model_that_hears_nothing_is_replaced_and_that_is_said() -> None:
    provider = OpenAIProvider({"metadata": SERVICE})

    model, sentence = provider._choose_model({"model": "gpt-4-turbo"})

    assert model == "gpt-transcribe"
    assert "gpt-4-turbo" in sentence
    assert provider._choose_model({"model": "gpt-5-transcribe"}) == ("gpt-5-transcribe", "")


def test_two_models_are_refused() -> None:
    with pytest.raises(ConfigError, match="one model"):
        planned(model="whisper-1", metadata={"transcription_model": "gpt-transcribe"})


@pytest.mark.parametrize(("model", "cost"), [("whisper-1", 0.0), ("gpt-5-transcribe", None)])
async def test_cost_is_known_as_far_as_the_model_has_a_price(model: str, cost: float | None) -> None:
    async with OpenAIEmulator(script=HEARS, speed=50).running() as url:
        engine, _ = engine_at(url, model=model)
        async with engine:
            before = await engine.estimate_cost()
            await engine.send_audio(await spoken())
            await engine.end_turn()
            await engine.wait_idle()
            usage, after = await engine.get_usage(), await engine.estimate_cost()

    assert before == cost
    assert usage is not None
    counted = {"seconds": usage["transcription_s"], "text": 0, "audio": 0, "output": 0}
    assert after == (None if cost is None else transcription_cost(model, counted))
