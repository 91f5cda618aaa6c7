"""The first session, when the configured provider cannot be had and there are fallbacks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.core.engine.fakes import Seen, hang, kind, registry, turns
from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.errors import (
    AuthenticationFailed,
    ConnectionLost,
    ErrorCode,
    NotConnected,
    ProviderError,
    ProviderNotFound,
)
from voxengine.events import EventType
from voxengine.testing import leak_check, virtual

AWAY = ProviderError("away", code=ErrorCode.UNAVAILABLE, provider="one")
SPENT = ProviderError("spent", code=ErrorCode.QUOTA, provider="two")
WRONG_KEY = AuthenticationFailed("bad key", provider="one")


def engine_of(*names: str, **kinds: Any) -> VoiceEngine:
    """An engine whose provider is the first name, and whose fallbacks are the others."""
    first, *others = names
    fallbacks = [VoiceEngineConfig(provider=name, voice=f"voice of {name}") for name in others]
    config = VoiceEngineConfig(provider=first, instructions="Be kind.", fallbacks=fallbacks)
    return VoiceEngine(config, registry=registry(**kinds))


def failing(error: Exception) -> Any:
    return kind(behaviour={"connect": error})


@virtual
async def test_first_fallback_that_can_be_had_takes_the_call() -> None:
    async with leak_check():
        engine = engine_of(
            "one", "two", "three", one=failing(AWAY), two=failing(SPENT), three=(three := kind())
        )
        seen = Seen(engine)

        await engine.connect()

        assert [event.provider for event in seen.of(EventType.CONNECTION_STARTING)] == ["one", "two", "three"]
        assert [event.attempt for event in seen.of(EventType.CONNECTION_STARTING)] == [1, 2, 3]
        failed = seen.of(EventType.CONNECTION_FAILED)
        assert [(event.error, event.will_retry) for event in failed] == [(AWAY, True), (SPENT, True)]
        assert seen.one(EventType.CONNECTION_ESTABLISHED).provider == "three"
        assert engine.config.provider == "three"
        assert len(engine.config.fallbacks) == 2
        given = three.made[0].config
        assert (given["voice"], given["instructions"]) == ("voice of three", "Be kind.")
        await engine.disconnect()


@virtual
async def test_loss_after_that_goes_back_to_the_provider_that_was_asked_for_first() -> None:
    planned: list[Any] = [AWAY, None]

    async def connect(*_: Any) -> None:
        error = planned.pop(0)
        if error is not None:
            raise error

    one, two = kind(behaviour={"connect": connect}), kind()
    engine = engine_of("one", "two", one=one, two=two)
    await engine.connect()

    two.made[0].emit_event(
        EventType.CONNECTION_LOST, {"error": ProviderError("spent", code=ErrorCode.QUOTA, provider="two")}
    )
    await asyncio.sleep(1)

    assert engine.config.provider == "one"
    assert len(two.made) == 1
    await engine.disconnect()


@virtual
async def test_when_none_can_be_had_the_error_is_the_first_ones_and_names_the_others() -> None:
    engine = engine_of("one", "two", one=failing(AWAY), two=failing(SPENT))
    seen = Seen(engine)

    with pytest.raises(ProviderError) as raised:
        await engine.connect()

    assert raised.value is AWAY
    assert raised.value.__notes__ == ["two of the fallbacks could not be had either: spent"]
    assert [event.will_retry for event in seen.of(EventType.CONNECTION_FAILED)] == [True, False]
    assert engine.config.provider == "one"
    await engine.disconnect()


@virtual
async def test_provider_that_is_not_installed_is_said_and_not_passed_over() -> None:
    engine = engine_of("nobody", "two", two=(two := kind()))

    with pytest.raises(ProviderNotFound):
        await engine.connect()

    assert two.made == []
    await engine.disconnect()


@virtual
async def test_wrong_key_is_said_and_not_passed_over() -> None:
    engine = engine_of("one", "two", one=failing(WRONG_KEY), two=(two := kind()))
    seen = Seen(engine)

    with pytest.raises(AuthenticationFailed):
        await engine.connect()

    assert two.made == []
    assert seen.one(EventType.CONNECTION_FAILED).will_retry is False
    await engine.disconnect()


@virtual
async def test_fallback_with_a_mistake_is_passed_over() -> None:
    engine = engine_of(
        "one", "two", "nobody", "three", one=failing(AWAY), two=failing(WRONG_KEY), three=kind()
    )
    seen = Seen(engine)

    await engine.connect()

    assert engine.config.provider == "three"
    assert [event.will_retry for event in seen.of(EventType.CONNECTION_FAILED)] == [True, True, True]
    await engine.disconnect()


@virtual
async def test_connect_that_failed_everywhere_may_be_called_again() -> None:
    planned: list[Any] = [AWAY, None]

    async def connect(*_: Any) -> None:
        error = planned.pop(0)
        if error is not None:
            raise error

    engine = engine_of("one", "two", one=kind(behaviour={"connect": connect}), two=failing(SPENT))
    with pytest.raises(ProviderError):
        await engine.connect()

    await engine.connect()

    assert engine.config.provider == "one"
    await engine.disconnect()


@virtual
async def test_switch_as_the_first_connect_means_the_provider_that_it_names() -> None:
    away = ConnectionLost("away", provider="two")
    engine = engine_of("one", "two", "three", one=failing(AWAY), two=failing(away), three=(three := kind()))

    with pytest.raises(ConnectionLost):
        await engine.switch_provider("two")

    assert three.made == []
    assert engine.config.provider == "one"
    await engine.disconnect()


@virtual
async def test_disconnect_while_a_fallback_is_being_tried_ends_it() -> None:
    async with leak_check():
        two = kind(behaviour={"connect": hang})
        engine = engine_of("one", "two", "three", one=failing(AWAY), two=two, three=(three := kind()))
        connecting = asyncio.create_task(engine.connect())
        await turns()

        await engine.disconnect()

        with pytest.raises(NotConnected):
            await connecting
        assert len(two.made) == 1
        assert three.made == []
