"""The fakes do what an application's test writes down."""

from __future__ import annotations

import pytest

from voxengine import CapabilityMissing, EventType, ProviderError, VoiceEngine, VoiceEngineConfig
from voxengine.capabilities import UNSUPPORTED, Capabilities
from voxengine.events import Event
from voxengine.providers.base import BaseProvider
from voxengine.providers.registry import ProviderRegistry
from voxengine.testing import FakeProvider, scripted_provider, virtual


def engine_with(cls: type[BaseProvider], **options: object) -> VoiceEngine:
    registry = ProviderRegistry()
    registry.register("fake", cls)
    return VoiceEngine(VoiceEngineConfig(provider="fake", **options), registry=registry)  # type: ignore[arg-type]


@virtual
async def test_fake_answers_and_keeps_what_it_was_told() -> None:
    engine = engine_with(FakeProvider)
    finals: list[Event] = []
    engine.events.on(EventType.TEXT_OUTPUT, finals.append, filter=lambda event: not event.is_partial)

    async with engine:
        await engine.send_text("Hello")
        await engine.wait_idle()
        assert engine.session is not None
        provider = engine.session.provider

    assert [event.text for event in finals] == [FakeProvider.reply]
    assert isinstance(provider, FakeProvider)
    assert provider.texts == ["Hello"]


@virtual
async def test_fake_calls_a_tool_that_a_text_names() -> None:
    asked: list[str] = []

    def get_weather(city: str) -> str:
        """Return the weather of a city."""
        asked.append(city)
        return "sun"

    engine = engine_with(FakeProvider, tools=(get_weather,))

    async with engine:
        await engine.send_text("Please get weather for Oslo")
        await engine.wait_idle()
        assert engine.session is not None
        provider = engine.session.provider

    assert asked == ["something"]
    assert isinstance(provider, FakeProvider)
    assert [(output, is_error) for _, output, is_error in provider.tool_results] == [("sun", False)]


@virtual
async def test_script_plays_its_turns_in_order() -> None:
    cls = scripted_provider(
        [("text_output", {"text": "one", "is_partial": False})],
        [1.0, ("text_output", {"text": "two", "is_partial": False})],
        on_connect=[("warning", {"code": "slow", "message": "It is slow."})],
    )
    engine = engine_with(cls)
    told: list[tuple[str, str]] = []
    engine.events.on("text_output", lambda event: told.append(("text", event.text)))
    engine.events.on("warning", lambda event: told.append(("warning", event.code)))

    async with engine:
        for turn in ("first", "second", "third"):
            await engine.send_text(turn)
            await engine.wait_idle(timeout_s=30) if turn != "third" else None

    assert told == [("warning", "slow"), ("text", "one"), ("text", "two")]


@virtual
async def test_script_raises_from_the_call_and_keeps_the_calls() -> None:
    cls = scripted_provider([ProviderError("Too many.", code="rate_limit")])
    engine = engine_with(cls)

    async with engine:
        with pytest.raises(ProviderError, match="Too many") as caught:
            await engine.send_text("Hello")
        assert engine.session is not None
        provider = engine.session.provider

    assert caught.value.code == "rate_limit"
    assert provider.calls[0] == ("send_text", "Hello")  # type: ignore[attr-defined]


@virtual
async def test_script_refuses_what_it_declares_as_missing() -> None:
    cls = scripted_provider(capabilities=Capabilities(speak=UNSUPPORTED))
    provider = cls({})
    await provider.connect()

    with pytest.raises(CapabilityMissing) as caught:
        await provider.speak("Hello")

    assert caught.value.capability == "speak"
