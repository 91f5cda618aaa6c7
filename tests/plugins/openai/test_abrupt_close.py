"""A connection that is cut in mid-byte, on both transports: one ending, and nothing that asyncio complains of later."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import socket
import struct
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest
from websockets.asyncio.server import ServerConnection, serve

from tests.plugins.openai.test_bad_input import ENDINGS, ERRORS, SPEECH, emulator, engine_at, of
from voxengine.errors import AuthenticationFailed, ConnectionLost, ProviderError, VoxEngineError
from voxengine.events import EventType
from voxengine.testing import leak_check
from voxengine_openai import OpenAIProvider

CUTS = (0, 60, 300, 1_000, 1_400, 2_000, 3_000, 5_000, 8_000, 20_000, 60_000)
"""Bytes from the service: within the hand-shake, the first messages, the tool call, the audio of the answer."""
LINGER = struct.pack("ii", 1, 0)


@asynccontextmanager
async def cutting(url: str, after: int, how: Literal["reset", "end"]) -> AsyncIterator[str]:
    """A way to the emulator that lets so many bytes through to the client and then breaks, each time."""
    address, _, path = url.removeprefix("ws://").partition("/")
    host, _, port = address.partition(":")
    tasks: set[asyncio.Task[Any]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: float) -> None:
        while most > 0 and (data := await reader.read(65536)):
            writer.write(data[: int(min(most, len(data)))])
            await writer.drain()
            most -= len(data)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        there, back = await asyncio.open_connection(host, int(port))
        ways = [
            asyncio.create_task(carry(reader, back, float("inf"))),
            asyncio.create_task(carry(there, writer, after)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            if how == "reset":
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
                writer.transport.abort()
            for end in (writer, back):
                end.close()
                with contextlib.suppress(OSError):
                    await end.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/{path}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


@pytest.mark.parametrize("how", ["reset", "end"])
@pytest.mark.parametrize("transport", ["websockets", "picows"])
async def test_connection_that_is_cut_anywhere_is_one_ending_and_leaves_nothing(
    transport: str, how: Literal["reset", "end"]
) -> None:
    pytest.importorskip(transport)
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    found: list[tuple[int, list[Any], list[Any]]] = []

    async with leak_check(), emulator().running() as url:
        for after in CUTS:
            async with cutting(url, after, how) as way:
                engine, events = engine_at(way, transport=transport)
                with pytest.raises(VoxEngineError):
                    await engine.connect()
                    await engine.send_audio(SPEECH)
                    await engine.end_turn()
                    await engine.wait_idle(timeout_s=15)
                await engine.disconnect()
            found.append((after, of(events, *ENDINGS), of(events, *ERRORS)))
            del engine
            gc.collect()

    gc.collect()
    assert [after for after, endings, _ in found if len(endings) != 1] == []
    assert all(isinstance(endings[0].data["error"], ProviderError) for _, endings, _ in found)
    assert [after for after, _, errors in found if errors] == []
    assert complaints == []


REFUSALS = (
    (3000, "x.invalid_api_key", AuthenticationFailed, "authentication", "invalid_api_key"),
    (3003, "x.permission_denied", ConnectionLost, "permission", "permission_denied"),
    (4000, "invalid_request_error.session_expired", ConnectionLost, "session_expired", "session_expired"),
    (4003, "x.insufficient_quota", ConnectionLost, "quota", "insufficient_quota"),
    (1013, "", ConnectionLost, "unavailable", None),
)


@pytest.mark.parametrize("is_at_once", [True, False])
@pytest.mark.parametrize("transport", ["websockets", "picows"])
async def test_connection_closed_before_the_session_means_the_same_however_early_it_comes(
    transport: str, is_at_once: bool
) -> None:
    pytest.importorskip(transport)
    wanted: list[tuple[Any, ...]] = []
    found: list[tuple[Any, ...]] = []
    says = [(0, "")]

    async def refuse(socket: ServerConnection) -> None:
        if not is_at_once:
            await socket.recv()  # The settings, so that the client has nothing left to send.
        await socket.close(*says[0])

    async with leak_check(), serve(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        for close_code, reason, kind, code, vendor_code in REFUSALS:
            says[0] = (close_code, reason)
            engine, events = engine_at(f"ws://127.0.0.1:{port}/v1", transport=transport)
            with pytest.raises(ProviderError) as caught:
                await engine.connect()
            await engine.disconnect()
            error = caught.value
            wanted.append((kind, code, vendor_code, close_code, [kind]))
            failed = [type(event.data["error"]) for event in of(events, EventType.CONNECTION_FAILED)]
            found.append((type(error), error.code, error.vendor_code, error.close_code, failed))
            assert f"recoverable={error.recoverable}" in str(error)

    assert found == wanted


@pytest.mark.parametrize(
    ("fault", "kind", "code", "vendor_code"),
    [
        ("401 at=ready", AuthenticationFailed, "authentication", "invalid_api_key"),
        ("403 at=ready", ProviderError, "permission", "permission_denied"),
        ("close at=ready code=3000", AuthenticationFailed, "authentication", "3000"),
    ],
)
async def test_refusal_that_the_emulator_gives_at_once_is_the_one_of_the_service(
    fault: str, kind: type, code: str, vendor_code: str
) -> None:
    async with leak_check(), emulator(faults=[fault]).running() as url:
        engine, _ = engine_at(url)

        with pytest.raises(ProviderError) as caught:
            await engine.connect()
        await engine.disconnect()

    assert (type(caught.value), caught.value.code, caught.value.vendor_code) == (kind, code, vendor_code)


@types.coroutine
def cancelled_at(work: Coroutine[Any, Any, None], n: int) -> Generator[Any, Any, None]:
    """Do the work; at its n-th await the task that does it is cancelled."""
    step: Callable[[], Any] = lambda: work.send(None)  # noqa: E731
    while True:
        try:
            awaited = step()
        except StopIteration:
            return
        n -= 1
        if n == 0:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        try:
            yield awaited
        except BaseException as why:
            step = functools.partial(work.throw, why)
        else:
            step = functools.partial(work.send, None)


@pytest.mark.parametrize("transport", ["websockets", "picows"])
async def test_connect_that_is_cancelled_at_any_await_leaves_no_complaint(transport: str) -> None:
    pytest.importorskip(transport)
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    n, is_open = 0, False

    async with leak_check(), emulator().running() as url:
        while not is_open:
            n += 1
            provider = OpenAIProvider({"transport": transport, "metadata": {"url": url}})

            async def connect(provider: OpenAIProvider = provider, n: int = n) -> None:
                await cancelled_at(provider.connect(), n)

            connecting = asyncio.create_task(connect())
            await asyncio.wait([connecting])
            is_open = not connecting.cancelled()
            await provider.disconnect()
            del connect, connecting, provider
            gc.collect()

    assert n > 3
    assert complaints == []
