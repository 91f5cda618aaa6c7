"""``leak_check`` names what a block leaves behind."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from voxengine.testing import LeakError, leak_check, virtual


@asynccontextmanager
async def one_leak(pattern: str) -> AsyncIterator[None]:
    with pytest.raises(LeakError, match=pattern):
        async with leak_check():
            yield


@virtual
async def test_nothing_left_is_no_error() -> None:
    kept = asyncio.create_task(asyncio.sleep(100))

    async with leak_check():
        await asyncio.sleep(1)
        await asyncio.to_thread(int)
        server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        server.close()

    assert not kept.done()


@virtual
async def test_task_is_named() -> None:
    async with one_leak(r"task left over \(.*sleep.*\)"):
        task = asyncio.create_task(asyncio.sleep(100), name="left over")

    task.cancel()


@virtual
async def test_task_that_is_about_to_end_may_end() -> None:
    async with leak_check():
        task = asyncio.create_task(asyncio.sleep(0.5))

    assert task.done()


@virtual
async def test_thread_is_named() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="left-over")

    async with one_leak("thread left-over"):
        thread.start()

    stop.set()
    thread.join()


@virtual
async def test_listening_socket_is_found() -> None:
    async with one_leak("socket"):
        server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)

    server.close()


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="the system does not list what is open")
@virtual
async def test_socket_that_the_loop_knows_nothing_of_is_found() -> None:
    async with one_leak("not the event loop's"):
        server = socket.create_server(("127.0.0.1", 0))

    server.close()


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="the system does not list what is open")
@virtual
async def test_socket_that_took_the_number_of_a_closed_one_is_found() -> None:
    before = socket.create_server(("127.0.0.1", 0))
    number = before.fileno()

    async with one_leak(f"socket {number} "):
        before.close()
        after = socket.create_server(("127.0.0.1", 0))
        assert after.fileno() == number

    after.close()


@virtual
async def test_socket_that_was_open_before_or_is_closed_again_is_no_leak() -> None:
    with socket.create_server(("127.0.0.1", 0)):
        async with leak_check():
            socket.create_server(("127.0.0.1", 0)).close()


@pytest.mark.parametrize("is_paused", [False, True])
@virtual
async def test_open_transport_is_found_even_when_it_does_not_read(is_paused: bool) -> None:
    near, far = socket.socketpair()

    async with one_leak("_SelectorSocketTransport"):
        _, writer = await asyncio.open_connection(sock=near)
        if is_paused:
            writer.transport.pause_reading()  # type: ignore[attr-defined]

    writer.transport.abort()
    await asyncio.sleep(0)
    far.close()


@virtual
async def test_error_of_the_block_is_not_hidden() -> None:
    with pytest.raises(KeyError):
        async with leak_check():
            task = asyncio.create_task(asyncio.sleep(100))
            raise KeyError

    task.cancel()


async def test_works_on_a_real_clock() -> None:
    with pytest.raises(LeakError, match="forgotten"):
        async with leak_check(settle_s=0.01):
            task = asyncio.create_task(asyncio.Event().wait(), name="forgotten")

    task.cancel()
