"""What a provider says of its failure, in whatever place, shows no secret of its configuration."""

from __future__ import annotations

import asyncio
import gc
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.errors import ConnectionLost, ProviderError, VoxEngineError
from voxengine.events import Event, EventType
from voxengine.providers.registry import ProviderRegistry
from voxengine.testing import FakeProvider, virtual

KEY = "sk-0123456789abcdef"


class Talkative(ProviderError):
    """Makes its own text."""

    def __str__(self) -> str:
        return f"refused {KEY}"


def chained(error: Exception) -> Exception:
    error.__cause__ = OSError(f"Authorization: Bearer {KEY}")
    return error


def noted(error: Exception) -> Exception:
    error.add_note(f"the key was {KEY}")
    return error


FAILURES: dict[str, Callable[[], Exception]] = {
    "cause of ours": lambda: chained(ProviderError("refused", code="authentication")),
    "cause of a loss": lambda: chained(ConnectionLost("gone")),
    "cause of another": lambda: chained(RuntimeError("refused")),
    "group": lambda: ExceptionGroup("both", [ValueError(KEY)]),
    "note": lambda: noted(ValueError("refused")),
    "note of ours": lambda: noted(ProviderError("refused")),
    "far behind": lambda: ValueError("x" * 490 + KEY),
    "far behind in ours": lambda: ProviderError("x" * 600 + KEY),
    "text of its own": lambda: Talkative("refused"),
}


def engine_with(**methods: Any) -> tuple[VoiceEngine, list[Event]]:
    providers = ProviderRegistry()
    providers.register("broken", type("Broken", (FakeProvider,), methods))
    config = VoiceEngineConfig(provider="broken", api_key=KEY, reconnect={"budget_s": 0})
    engine = VoiceEngine(config, registry=providers)
    seen: list[Event] = []
    engine.events.on("*", seen.append)
    return engine, seen


def printed(error: object) -> str:
    return "".join(traceback.format_exception(error)) if isinstance(error, BaseException) else repr(error)


@pytest.mark.parametrize("make", FAILURES.values(), ids=FAILURES)
@virtual
async def test_traceback_of_a_refused_connection_shows_no_key(make: Callable[[], Exception]) -> None:
    async def connect(self: FakeProvider) -> None:
        raise make()

    engine, seen = engine_with(connect=connect)

    with pytest.raises(VoxEngineError) as caught:
        await engine.connect()

    assert KEY not in printed(caught.value)
    assert [KEY in printed(event.data["error"]) for event in seen if "error" in event.data] == [False]
    await engine.disconnect()


@pytest.mark.parametrize("make", [*FAILURES.values(), lambda: f"bad {KEY}"], ids=[*FAILURES, "str"])
@virtual
async def test_error_that_a_provider_emits_shows_no_key(make: Callable[[], object]) -> None:
    async def send_text(self: FakeProvider, text: str) -> None:
        self.emit_event(EventType.ERROR_GENERAL, {"error": make()})

    engine, seen = engine_with(send_text=send_text)
    async with engine:
        await engine.send_text("hello")

    assert [KEY in printed(event.data["error"]) for event in seen if "error" in event.data] == [False]


@virtual
async def test_refusal_keeps_its_kind_and_code_where_its_text_is_replaced() -> None:
    class Refused(ConnectionLost):
        def __str__(self) -> str:
            return f"refused {KEY}"

    async def connect(self: FakeProvider) -> None:
        raise Refused("x", close_code=4001)

    engine, _ = engine_with(connect=connect)

    with pytest.raises(ConnectionLost, match="refused …") as caught:
        await engine.connect()

    assert (caught.value.close_code, caught.value.provider) == (4001, "broken")
    await engine.disconnect()


@pytest.mark.parametrize("n_steps", range(14))
@virtual
async def test_failure_of_a_cancelled_connect_is_not_reported_by_the_loop(n_steps: int) -> None:
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))

    async def connect(self: FakeProvider) -> None:
        await asyncio.sleep(0)
        raise OSError(f"Authorization: Bearer {KEY}")

    engine, _ = engine_with(connect=connect)
    opening = asyncio.create_task(engine.connect())
    for _ in range(n_steps):
        await asyncio.sleep(0)
    opening.cancel()
    await asyncio.wait([opening])
    await engine.disconnect()
    if not opening.cancelled():
        assert isinstance(opening.exception(), ProviderError)
    del opening, engine
    gc.collect()

    assert reports == []
