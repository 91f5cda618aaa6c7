"""A thousand mock sessions talking in one process on the virtual clock, and the memory of each."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import tracemalloc

from _measure import Row, main

from voxengine import EventType, VoiceEngine, VoiceEngineConfig
from voxengine.testing import run_virtual
from voxengine_mock import MockProvider

TITLE = "A thousand sessions"
N_SESSIONS = 1000
CONFIG = VoiceEngineConfig(provider="mock", mode="fast", metadata={"responses": {"Hello": "Hi there."}})


async def bare(n: int) -> float:
    """Return the bytes of one connected provider without an engine."""
    held = []
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(n):
        provider = MockProvider(CONFIG.for_provider())
        await provider.connect()
        held.append(provider)
    gc.collect()
    used = (tracemalloc.get_traced_memory()[0] - before) / n
    for provider in held:
        await provider.disconnect()
    return used


async def idle(n: int) -> float:
    """Return the bytes of one connected engine."""
    held = []
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(n):
        engine = VoiceEngine(CONFIG)
        await engine.connect()
        held.append(engine)
    gc.collect()
    used = (tracemalloc.get_traced_memory()[0] - before) / n
    for engine in held:
        await engine.disconnect()
    return used


async def talk(engine: VoiceEngine) -> int:
    """Hold a turn of speech and one of text; return the bytes of answered audio."""
    heard = 0

    def count(event: object) -> None:
        nonlocal heard
        heard += len(event.audio_data)  # type: ignore[attr-defined]

    engine.events.on(EventType.AUDIO_OUTPUT_CHUNK, count)
    loud, still = (b"\x00\x20\x00\xe0" * 240), bytes(960)
    async with engine:
        for chunk in [loud] * 25 + [still] * 35:
            await engine.send_audio(chunk)
            await asyncio.sleep(0.02)
        await engine.wait_idle()
        await engine.send_text("Hello")
        await engine.wait_idle()
    return heard


async def crowd() -> tuple[int, float]:
    """Return how many of the sessions were answered twice, and the virtual seconds that it took."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    heard = await asyncio.gather(*(talk(VoiceEngine(CONFIG)) for _ in range(N_SESSIONS)))
    return sum(1 for n_bytes in heard if n_bytes > 0), loop.time() - started


def run() -> list[Row]:
    """Measure."""
    run_virtual(idle(2))  # Warm-up: imports and caches.
    tracemalloc.start()
    base = run_virtual(bare(100))
    used = run_virtual(idle(100))
    tracemalloc.stop()
    cpu = time.process_time()
    n_answered, virtual_s = run_virtual(crowd(), max_real_s=300)
    cpu = time.process_time() - cpu
    return [
        Row("sessions without their answers", N_SESSIONS - n_answered, "", 0),
        Row("memory beyond the bare provider, idle", (used - base) / 1000, "kB", 64.0),
        Row("memory of a bare connected provider", base / 1000, "kB"),
        Row("CPU / conversation time of all sessions", cpu / (virtual_s * N_SESSIONS), "×", 0.05),
        Row(
            "CPU of one conversation",
            cpu / N_SESSIONS * 1000,
            "ms",
            note=f"{virtual_s:.1f} virtual seconds each",
        ),
    ]


if __name__ == "__main__":
    sys.exit(main(TITLE, run))
