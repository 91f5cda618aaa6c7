"""Every fault of a script, over a real socket, as the mock provider's neutral errors and events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.plugins.mock.support import Recorder, silence
from voxengine.config import Deadlines
from voxengine.errors import AuthenticationFailed, ProviderError, RateLimited, RemoteProtocolError
from voxengine.testing import leak_check
from voxengine_mock import MockProvider
from voxengine_mock.emulator import MockEmulator
from voxengine_mock.harness import Server, serve

SCRIPT = {"delay_ms": 0, "pace": 100, "default": {"say": "one two three four", "duration_ms": 2000}}


@asynccontextmanager
async def emulated(*faults: Any, **script: Any) -> AsyncIterator[Server]:
    async with leak_check(), serve(MockEmulator(script={**SCRIPT, **script}, faults=faults)) as server:
        yield server


@asynccontextmanager
async def connected(server: Server, **config: Any) -> AsyncIterator[tuple[MockProvider, Recorder]]:
    provider = MockProvider({"metadata": {"url": server.url}, **config})
    recorder = Recorder()
    provider.on_event = recorder
    try:
        await provider.connect()
        yield provider, recorder
    finally:
        await provider.disconnect()


async def refused(server: Server, **config: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        async with connected(server, **config):
            pass
    return caught.value


@pytest.mark.parametrize(
    ("fault", "kind", "code", "recoverable", "retry_after_s"),
    [
        ("401 at=handshake", AuthenticationFailed, "authentication", False, None),
        ("403 at=handshake", ProviderError, "permission", False, None),
        ("404 at=handshake", ProviderError, "not_found", False, None),
        ("429 at=handshake retry_after=2", RateLimited, "rate_limit", True, 2.0),
        ("quota", ProviderError, "quota", False, None),
        ("500", ProviderError, "unavailable", True, None),
        ("503 retry_after=7", ProviderError, "unavailable", True, 7.0),
        ("reset at=handshake", ProviderError, "unavailable", True, None),
        ("garbage at=handshake", RemoteProtocolError, "protocol", False, None),
        ("stall at=handshake", ProviderError, "timeout", True, None),
        ("stall at=ready", ProviderError, "timeout", True, None),
        ("429 at=ready retry_after=3", RateLimited, "rate_limit", True, 3.0),
        ("401 at=ready", AuthenticationFailed, "authentication", False, None),
        ("quota at=ready", ProviderError, "quota", False, None),
    ],
)
async def test_a_connect_that_fails_says_why_and_the_next_one_succeeds(
    fault: str, kind: type[ProviderError], code: str, recoverable: bool, retry_after_s: float | None
) -> None:
    async with emulated(fault) as server:
        error = await refused(server, deadlines=Deadlines(handshake_s=0.5, ready_s=0.5))
        async with connected(server) as (provider, _):
            is_connected = provider.is_connected

    assert type(error) is kind
    assert (error.code, error.recoverable, error.retry_after_s) == (code, recoverable, retry_after_s)
    assert is_connected


async def test_a_wrong_key_is_refused_and_told_to_nobody() -> None:
    async with emulated() as server:
        error = await refused(server, api_key="sk-wrong-and-long")

    assert isinstance(error, AuthenticationFailed)
    assert "sk-wrong-and-long" not in str(error)


@pytest.mark.parametrize(
    ("fault", "code", "close_code", "recoverable"),
    [
        ("close at=turn code=1011 reason=restart", "unavailable", 1011, True),
        ("close at=response:1:after_audio_ms=300 code=4001", "unknown", 4001, False),
        ("close at=ready:after_ms=1 code=1000", "connection_lost", 1000, True),
        ("reset at=response:1:after_audio_ms=300", "connection_lost", 1006, True),
        ("oversized at=response", "protocol", 1009, False),
        ("401 at=turn", "authentication", 3000, False),
        (f"401 at=turn message={'ü' * 100}", "authentication", 3000, False),
        (f"close at=turn code=4001 reason={'ü' * 61}", "unknown", 4001, False),
        ("403 at=turn", "permission", 3003, False),
        ("expire at=ready deadline=0.05", "session_expired", 1001, True),
    ],
)
async def test_a_session_that_is_ended_says_once_how(
    fault: str, code: str, close_code: int, recoverable: bool
) -> None:
    async with emulated(fault) as server, connected(server) as (provider, seen):
        await provider.send_text("hello")
        await seen.wait("connection_lost", timeout_s=20)

        assert not provider.is_connected

    (lost,) = seen.of("connection_lost")
    error = lost.data["error"]
    assert (error.code, error.close_code, error.recoverable) == (code, close_code, recoverable)
    assert bool(seen.of("session_expiring")) is fault.startswith("expire")


@pytest.mark.parametrize("kind", ["text", "binary"])
async def test_garbage_is_an_error_that_can_be_survived(kind: str) -> None:
    fault = f"garbage at=turn as={kind} n_messages=2"

    async with emulated(fault) as server, connected(server) as (provider, seen):
        await provider.send_text("hello")
        await seen.wait("response_completed", timeout_s=20)

    errors = [e.data["error"] for e in seen.of("error_general")]
    assert [(type(error), error.recoverable) for error in errors] == [(RemoteProtocolError, True)] * 2
    assert len(seen.audio()) == 2000 * 48


@pytest.mark.parametrize(
    ("fault", "code", "retry_after_s"),
    [
        ("429 at=response retry_after=4", "rate_limit", 4.0),
        ("quota at=turn", "quota", None),
        ("503 at=first_input", "unavailable", None),
        ("error at=turn code=content_filter", "content_filter", None),
    ],
)
async def test_an_error_in_the_session_leaves_it_open(
    fault: str, code: str, retry_after_s: float | None
) -> None:
    async with emulated(fault) as server, connected(server) as (provider, seen):
        await provider.send_text("one")
        error = await seen.wait("error_general", timeout_s=20)
        await provider.send_text("two")
        await seen.wait("response_completed", timeout_s=20)

    assert (error.data["error"].code, error.data["error"].retry_after_s) == (code, retry_after_s)


async def test_a_stall_holds_the_answer_back_while_pings_are_answered() -> None:
    async with (
        emulated("stall at=response:1:after_audio_ms=500 for=1") as server,
        connected(server, transport="websockets") as (provider, seen),
    ):
        await provider.send_text("hello")
        await seen.until(lambda: len(seen.audio()) >= 500 * 48, timeout_s=20)
        await asyncio.wait_for(await provider.connection._ws.ping(), 10)  # type: ignore[union-attr]
        held_back = len(seen.audio())
        await seen.wait("response_completed", timeout_s=20)

    assert held_back == 500 * 48
    assert len(seen.audio()) == 2000 * 48


async def test_a_stall_without_end_can_be_left() -> None:
    async with (
        emulated("stall at=turn") as server,
        connected(server, transport="websockets") as (provider, seen),
    ):
        await provider.send_text("hello")
        await asyncio.wait_for(await provider.connection._ws.ping(), 10)  # type: ignore[union-attr]

    assert seen.types() == ["connection_established"]


async def test_a_slow_reader_makes_the_transport_pause() -> None:
    async with (
        emulated("slow_reader at=ready bytes_per_s=1000") as server,
        connected(server, turn_detection="manual") as (provider, _),
    ):
        chunk = silence(1000)
        n_sent = 0
        async with asyncio.timeout(30):
            while provider.try_send_audio(chunk):
                n_sent += 1
                await asyncio.sleep(0)

        # What the system holds for both ends, and not the minutes of audio that a server would take.
        assert 0 < n_sent < 200
        assert provider.connection is not None
        assert provider.connection.paused


async def test_faults_count_over_the_connections_of_the_service() -> None:
    outcomes: list[str] = []

    async with emulated("503 times=2", "401 session=4") as server:
        for _ in range(5):
            try:
                async with connected(server):
                    outcomes.append("open")
            except ProviderError as error:
                outcomes.append(str(error.code))

    assert outcomes == ["unavailable", "unavailable", "open", "authentication", "open"]


async def test_a_delayed_handshake_and_ready_take_their_time() -> None:
    delays = {"handshake_ms": 120, "ready_ms": 80}
    clock = asyncio.get_running_loop().time

    async with emulated(delays=delays) as server:
        began = clock()
        async with connected(server):
            elapsed_s = clock() - began

    assert elapsed_s >= 0.2
