"""How sessions begin, break and end, in memory and over a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.plugins.mock.support import Recorder, counter, feed, session, silence, voice_saying
from voxengine.audio.format import AudioFormat, Encoding
from voxengine.config import Deadlines, TurnDetection
from voxengine.errors import (
    AuthenticationFailed,
    ConfigError,
    ConnectionLost,
    NotConnected,
    ProviderError,
    RateLimited,
    RemoteProtocolError,
)
from voxengine.testing.clock import leak_check, virtual
from voxengine.transport import memory_pair
from voxengine_mock import MockProvider, Script, SimulatedAgent


class Socket:
    """A server's connection as the agent takes it."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection

    async def send(self, message: str | bytes) -> None:
        try:
            await self._connection.send(message)
        except ConnectionClosed:
            raise NotConnected("closed") from None

    async def recv(self) -> str | bytes:
        try:
            return await self._connection.recv()
        except ConnectionClosed:
            raise NotConnected("closed") from None


@asynccontextmanager
async def served(handler: Any) -> AsyncIterator[str]:
    async with serve(handler, "127.0.0.1", 0, compression=None) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def scripted_server(*wires: str, close: tuple[int, str] | None = None) -> AsyncIterator[str]:
    """A server that answers the first message with these and then waits, or closes."""

    async def handler(connection: ServerConnection) -> None:
        await connection.recv()
        for wire in wires:
            await connection.send(wire)
        if close is not None:
            await connection.close(*close)
        await connection.wait_closed()

    async with served(handler) as url:
        yield url


READY = '{"type": "ready", "session_id": "s1", "settings": {"output_rate": 24000, "language": "en"}}'


async def connected(url: str) -> tuple[MockProvider, Recorder]:
    provider = MockProvider({"metadata": {"url": url}})
    recorder = Recorder()
    provider.on_event = recorder
    await provider.connect()
    return provider, recorder


# -- over a socket ------------------------------------------------------------------------------


async def test_the_same_conversation_over_a_socket() -> None:
    headers: list[str | None] = []

    async def handler(connection: ServerConnection) -> None:
        assert connection.request is not None
        headers.append(connection.request.headers.get("Authorization"))
        script = Script.from_mapping(
            {"hears": ["what now"], "responses": {"what now": "Now, we talk."}, "pace": 50}
        )
        await SimulatedAgent(Socket(connection), script, counter()).run()

    async with leak_check(), served(handler) as url, session({"api_key": "k1"}, url=url) as (provider, seen):
        await feed(provider, await voice_saying("what now") + silence(700), paced=False)
        done = await seen.wait("response_completed", timeout_s=20)
        await provider.disconnect()

    assert headers == ["Bearer k1"]
    assert seen.final_texts() == ["Now, we talk."]
    assert len(seen.audio()) == round(done.data["usage"]["output_audio_s"] * 24_000) * 2


async def test_a_server_that_closes_is_a_lost_connection() -> None:
    async with scripted_server(READY, close=(1011, "restart")) as url:
        provider, seen = await connected(url)
        lost = await seen.wait("connection_lost", timeout_s=10)
        with pytest.raises(ConnectionLost):
            await provider.send_text("hi")
        await provider.disconnect()

    assert isinstance(lost.data["error"], ConnectionLost)
    assert lost.data["error"].close_code == 1011
    assert not provider.is_connected


async def test_a_server_that_closes_before_it_is_ready_fails_the_connect() -> None:
    async with leak_check(), scripted_server(close=(1013, "busy")) as url:
        with pytest.raises(ConnectionLost, match="1013"):
            await connected(url)


@pytest.mark.parametrize(
    ("code", "kind", "retry_after_s"),
    [
        ("authentication", AuthenticationFailed, None),
        ("rate_limit", RateLimited, 2.5),
        ("something_new", ProviderError, None),
    ],
)
async def test_an_error_before_ready_fails_the_connect_with_its_kind(
    code: str, kind: type[ProviderError], retry_after_s: float | None
) -> None:
    message = f'{{"type": "error", "code": "{code}", "message": "No.", "recoverable": false, '
    message += f'"retry_after_s": {"null" if retry_after_s is None else retry_after_s}}}'

    async with leak_check(), scripted_server(message) as url:
        with pytest.raises(kind, match=r"mock: No\.") as caught:
            await connected(url)

    assert caught.value.vendor_code == code
    assert caught.value.retry_after_s == retry_after_s
    assert caught.value.recoverable is False


async def test_a_server_that_is_never_ready_runs_into_the_deadline() -> None:
    async with leak_check(), scripted_server() as url:
        provider = MockProvider({"metadata": {"url": url}, "deadlines": Deadlines(ready_s=0.1)})
        with pytest.raises(ProviderError, match=r"did not open the session within 0\.1 s") as caught:
            await provider.connect()

    assert caught.value.code == "timeout"
    assert caught.value.recoverable


async def test_nobody_at_the_address_is_a_provider_error() -> None:
    with pytest.raises(ProviderError) as caught:
        await connected("ws://127.0.0.1:9")

    assert caught.value.code == "unavailable"


async def test_messages_that_make_no_sense_are_reported_and_survived() -> None:
    wires = [
        READY,
        "not json",
        '{"type": "text_delta", "delta": 5}',
        '{"type": "mood", "value": "sunny"}',
        '{"type": "audio_delta", "response_id": "r", "item_id": "i", "audio": "!!"}',
        '{"type": "error", "code": "unavailable", "message": "Later.", "recoverable": true}',
        '{"type": "session_expiring", "deadline_s": 30, "reason": "age"}',
        '{"type": "rate_limits", "limits": {"requests": 3}}',
        '{"type": "tool_call", "response_id": "r", "call_id": "c", "name": "t", "arguments": "[1", "mood": 1}',
        '{"type": "usage", "usage": {"n": 1}, "cost": null}',
    ]

    async with scripted_server(*wires) as url:
        provider, seen = await connected(url)
        await seen.wait("usage_updated", timeout_s=10)
        cost = await provider.estimate_cost()
        await provider.disconnect()

    errors = [e.data["error"] for e in seen.of("error_general")]
    assert [type(error) for error in errors] == [RemoteProtocolError] * 3 + [ProviderError]
    assert errors[3].code == "unavailable"
    (vendor,) = seen.of("vendor_event")
    assert (vendor.data["name"], vendor.data["payload"]) == ("mood", {"value": "sunny"})
    (expiring,) = seen.of("session_expiring")
    assert (expiring.data["deadline_s"], expiring.data["reason"]) == (30, "age")
    assert seen.of("rate_limits")[0].data["limits"] == {"requests": 3}
    assert (seen.of("function_call_invoked")[0].data["arguments"], cost) == ({}, 0.0)
    assert seen.of("function_call_invoked")[0].data["mood"] == 1


# -- the options --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"metadata": {"respones": {}}}, "Did you mean 'responses'"),
        ({"metadata": {"pace": "slow"}}, "pace is str"),
        ({"input_format": AudioFormat(24_000, channels=2)}, "input_format is 24000 Hz stereo"),
        (
            {"output_format": AudioFormat(8_000, encoding=Encoding.G711_ULAW)},
            "g711_ulaw; mock takes PCM16 mono",
        ),
    ],
)
@virtual
async def test_a_wrong_option_is_refused_before_anything_is_opened(config: Any, message: str) -> None:
    async with leak_check():
        with pytest.raises(ConfigError, match=message):
            await MockProvider(config).connect()


@virtual
async def test_metadata_meant_for_other_providers_is_accepted() -> None:
    async with session(model="m", temperature=0.5, max_tokens=9, session={"x": 1}, voice="bruno") as (
        _,
        seen,
    ):
        assert seen.types() == ["connection_established"]


@virtual
async def test_an_agent_that_cannot_speak_as_asked_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import sys

    from voxengine_mock import espeak

    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    espeak._library.cache_clear()

    for config in ({"voice": "espeak"}, {"metadata": {"synthesizer": "espeak"}}):
        async with leak_check():
            with pytest.raises(ProviderError, match=r"voxengine-mock\[espeak\]") as caught:
                await MockProvider(config).connect()
        assert caught.value.code == "invalid_request"


@virtual
async def test_turn_detection_options_without_effect_are_warned_about() -> None:
    turns = TurnDetection("server", eagerness="low", idle_timeout_ms=5_000)

    async with session({"turn_detection": turns}) as (_, seen):
        warnings = seen.of("warning")

    assert [e.data["code"] for e in warnings] == ["option_unsupported"] * 2
    assert "eagerness" in warnings[0].data["message"]
    assert "idle_timeout_ms" in warnings[1].data["message"]


# -- breaking off -------------------------------------------------------------------------------


@virtual
async def test_cancelling_connect_anywhere_leaves_nothing() -> None:
    n_steps = 0
    is_open = False
    while not is_open:
        async with leak_check():
            provider = MockProvider({})
            work = asyncio.ensure_future(provider.connect())
            for _ in range(n_steps):
                await asyncio.sleep(0)
            is_open = work.done()
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            await provider.disconnect()
        n_steps += 1

    assert n_steps > 3


@virtual
async def test_cancelling_disconnect_still_ends_the_session() -> None:
    for n_steps in range(6):
        async with leak_check():
            provider = MockProvider({})
            await provider.connect()
            work = asyncio.ensure_future(provider.disconnect())
            for _ in range(n_steps):
                await asyncio.sleep(0)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            await provider.disconnect()

        assert not provider.is_connected


# -- the agent's side ---------------------------------------------------------------------------


@asynccontextmanager
async def agent(**script: Any) -> AsyncIterator[Any]:
    """The client's end of a connection to an agent."""
    client, server = memory_pair()
    work = asyncio.ensure_future(SimulatedAgent(server, Script.from_mapping(script), counter()).run())
    try:
        yield client
    finally:
        await client.close()
        await work


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        ("garbage", '"code": "protocol"'),
        (b"\x00\xff", '"code": "protocol"'),
        ('{"type": "ready", "session_id": "x"}', '"code": "invalid_request"'),
        ('{"type": "input_text", "text": "hi"}', '"code": "invalid_request"'),
        ('{"type": "hello", "settings": {"colour": 1}}', "no setting 'colour'"),
        ('{"type": "hello", "settings": {"input_rate": "fast"}}', "input_rate takes a whole number"),
        ('{"type": "hello", "settings": {"tools": [{}]}}', "tools takes a list"),
        ('{"type": "hello", "settings": {"turn_detection": "psychic"}}', "one of server, client, manual"),
        ('{"type": "hello", "settings": {"threshold": 2}}', "threshold takes a number from 0 to 1"),
        ('{"type": "hello", "settings": {"voice": 1}}', "voice takes a text"),
        ('{"type": "hello", "settings": {"audio": 1}}', "audio takes true or false"),
        ('{"type": "hello", "settings": {"tools": 1}}', "tools takes a list"),
        ('{"type": "hello", "settings": {"max_output_tokens": 0}}', "max_output_tokens takes"),
    ],
)
@virtual
async def test_the_agent_answers_what_is_wrong_and_can_still_be_greeted(wire: str | bytes, code: str) -> None:
    async with agent() as client:
        await client.send(wire)
        error = await client.recv()
        await client.send('{"type": "hello"}')
        ready = await client.recv()

    assert '"type": "error"' in error
    assert code in error
    assert '"type": "ready"' in ready


@virtual
async def test_a_session_is_opened_once() -> None:
    async with agent() as client:
        await client.send('{"type": "hello"}')
        await client.recv()
        await client.send('{"type": "hello"}')

        assert "open already" in await client.recv()


@virtual
async def test_an_agent_ends_with_its_connection_in_the_middle_of_an_answer() -> None:
    async with leak_check():
        client, server = memory_pair()
        work = asyncio.ensure_future(SimulatedAgent(server, Script(), counter()).run())
        await client.send('{"type": "hello"}')
        await client.send('{"type": "input_text", "text": "a long story"}')
        for _ in range(20):
            await client.recv()
        await client.close()
        await work
        await server.close()


@virtual
async def test_a_client_that_does_not_read_slows_the_agent_down() -> None:
    client, server = memory_pair()
    work = asyncio.ensure_future(SimulatedAgent(server, Script(pace=1000), counter()).run())
    await client.send('{"type": "hello"}')
    for n in range(40):
        await client.send(f'{{"type": "input_text", "text": "recite {n}"}}')
    await asyncio.sleep(600)

    # 40 stories are 100 MB of text; what waits is bounded by the transport.
    assert server.n_buffered_bytes < 2**20
    assert not work.done()
    await client.close()
    await work
    await server.close()
