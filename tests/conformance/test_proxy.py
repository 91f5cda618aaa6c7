"""The proxy carries what it is given, and breaks what it is told to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from voxengine.errors import ConfigError
from voxengine.testing import FaultProxy, leak_check


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1000):
        writer.write(data)
    writer.close()


@pytest.fixture
async def service() -> AsyncIterator[str]:
    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/path?x=1"


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(url.split(":")[2].split("/", maxsplit=1)[0]))


async def test_bytes_pass_both_ways_and_the_path_stays(service: str) -> None:
    async with FaultProxy(service) as proxy:
        reader, writer = await connect(proxy.url)
        writer.write(b"hello")

        assert await reader.readexactly(5) == b"hello"

    assert proxy_tail(service) == "/path?x=1"
    writer.close()


def proxy_tail(url: str) -> str:
    return "/" + url.split("/", 3)[3]


async def test_stalled_proxy_holds_the_writer_back(service: str) -> None:
    async with FaultProxy(service) as proxy:
        _, writer = await connect(proxy.url)
        proxy.stall()
        writer.write(bytes(32 * 2**20))
        draining = asyncio.ensure_future(writer.drain())

        done, _ = await asyncio.wait([draining], timeout=0.2)

        assert not done
        draining.cancel()
        writer.transport.abort()


async def test_cut_breaks_the_connection(service: str) -> None:
    async with FaultProxy(service) as proxy:
        reader, writer = await connect(proxy.url)
        writer.write(b"hello")
        await reader.readexactly(5)

        proxy.cut()

        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()


async def test_cut_lets_the_next_connection_pass_and_cut_off_does_not(service: str) -> None:
    async with FaultProxy(service) as proxy:
        proxy.cut()
        reader, writer = await connect(proxy.url)
        writer.write(b"hello")
        passed = await reader.readexactly(5)
        writer.close()

        proxy.cut_off()
        late, late_writer = await connect(proxy.url)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await late.readexactly(1)
        late_writer.close()

    assert passed == b"hello"


async def test_end_of_the_proxy_leaves_nothing(service: str) -> None:
    async with leak_check():
        async with FaultProxy(service) as proxy:
            _, writer = await connect(proxy.url)
            writer.write(b"hello")
        writer.close()


@pytest.mark.parametrize("url", ["wss://example.invalid/", "example.invalid", "ws://"])
def test_address_that_cannot_be_carried_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="ws://"):
        FaultProxy(url)


@pytest.mark.parametrize("cancels_its_tasks", [False, True])
@pytest.mark.parametrize("n_steps", range(10))
def test_proxy_that_is_cancelled_at_any_step_of_a_connection_says_nothing(
    n_steps: int, cancels_its_tasks: bool
) -> None:
    problems: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: problems.append(str(context)))
        async with FaultProxy(f"ws://127.0.0.1:{deaf.getsockname()[1]}") as proxy:
            with socket.create_connection(("127.0.0.1", int(proxy.url.rpartition(":")[2])), 5):
                for _ in range(n_steps):
                    await asyncio.sleep(0)
                for task in asyncio.all_tasks() if cancels_its_tasks else ():
                    if "FaultProxy" in str(task.get_coro()):
                        task.cancel()
                await asyncio.sleep(0)
                raise asyncio.CancelledError

    with socket.create_server(("127.0.0.1", 0)) as deaf, pytest.raises(asyncio.CancelledError):
        asyncio.run(main())

    assert problems == []


async def test_connection_that_comes_with_the_end_of_the_proxy_is_cut(service: str) -> None:
    async with leak_check():
        async with FaultProxy(service) as proxy:
            late = socket.create_connection(("127.0.0.1", int(proxy.url.split(":")[2].split("/")[0])), 5)
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        late.close()
