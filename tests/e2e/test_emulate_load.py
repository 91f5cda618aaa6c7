"""Many clients: at once, one after the other, well-behaved and not. Nothing is left and nobody waits."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import tracemalloc
from pathlib import Path

import pytest

from tests.plugins.mock.emulators import ask, raw, until_left, upgrade
from tests.plugins.mock.support import Recorder
from voxengine.testing import leak_check
from voxengine_mock import MockProvider
from voxengine_mock.emulator import MockEmulator
from voxengine_mock.harness import Server, serve

HEALTH = b"GET /health HTTP/1.1\r\n\r\n"
N_DESCRIPTORS = Path("/proc/self/fd")


def n_descriptors() -> int:
    return len(os.listdir(N_DESCRIPTORS)) if N_DESCRIPTORS.is_dir() else 0


async def talk(server: Server, n: int) -> str:
    provider = MockProvider({"metadata": {"url": server.url}, "modalities": ("text",)})
    recorder = Recorder()
    provider.on_event = recorder
    await provider.connect()
    try:
        await provider.send_text(f"I am number {n}")
        await recorder.wait("response_completed", timeout_s=60)
    finally:
        await provider.disconnect()
    return recorder.final_texts()[0]


async def test_two_hundred_sessions_at_once_each_get_their_own_answer() -> None:
    before = n_descriptors()

    async with leak_check(), serve(MockEmulator(speed=1000)) as server:
        answers = await asyncio.gather(*(talk(server, n) for n in range(200)))
        await until_left(server)

    assert answers == [f"You said: I am number {n}" for n in range(200)]
    assert n_descriptors() <= before


@pytest.mark.slow
async def test_five_hundred_open_sockets_and_one_that_talks() -> None:
    before = n_descriptors()

    async with leak_check(), serve(MockEmulator(speed=1000)) as server:
        async with asyncio.TaskGroup() as group:
            done, opened = asyncio.Event(), asyncio.Semaphore(0)

            async def idle() -> None:
                async with raw(server) as (reader, writer):
                    writer.write(upgrade("/"))
                    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
                    opened.release()
                    await done.wait()

            for _ in range(500):
                group.create_task(idle())
            for _ in range(500):
                await opened.acquire()
            answer = await talk(server, 1)
            n_open = server.n_open
            done.set()
        await until_left(server)

    assert answer == "You said: I am number 1"
    assert n_open >= 500
    assert n_descriptors() <= before


async def mistreat(server: Server, rng: random.Random) -> None:
    """One of the things that clients do wrong."""
    async with raw(server) as (reader, writer):
        match rng.randrange(6):
            case 0:
                writer.write(rng.randbytes(rng.randrange(1, 300)))
            case 1:
                writer.write(upgrade("/")[: rng.randrange(1, 100)])
            case 2:
                writer.write(upgrade("/") + rng.randbytes(40))
            case 3:
                writer.write(upgrade("/"))
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"\x81\x8f\0\0\0\0" + b'{"type":"hell"}')
            case 4:
                writer.write(HEALTH)
                await reader.read()
            case _:
                pass
        if rng.random() < 0.5:
            writer.transport.abort()


@pytest.mark.slow
async def test_thousands_of_connections_that_come_and_go_leave_no_memory_and_no_descriptor() -> None:
    rng = random.Random(5)

    async with leak_check(), serve(MockEmulator(speed=1000)) as server:
        for _ in range(300):  # Caches fill.
            await mistreat(server, rng)
        await until_left(server)
        gc.collect()
        descriptors = n_descriptors()
        tracemalloc.start()
        for _ in range(2_000):
            await mistreat(server, rng)
        await until_left(server)
        gc.collect()
        n_bytes, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        status, _, _ = await ask(server, HEALTH)

        assert status == 200
        assert n_descriptors() <= descriptors + 2
        assert server.n_connections >= 2_300

    assert n_bytes < 400_000
