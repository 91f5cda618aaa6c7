"""How long no service hears the user while a conversation goes from one to the other, over loopback sockets.

The gap of a switch lies between the last audio that the service before was given and the first that the next one
was, while the user speaks in chunks of 20 ms: so 20 ms are no gap at all. What was said meanwhile follows from the
journal. That of a loss is what PROVIDER_SWITCHED says. The gate is a time, since that is what is promised; it leaves
room for a machine that is ten times as slow.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from array import array
from contextlib import AsyncExitStack
from math import pi, sin
from typing import Any, Final

import attrs
from _measure import Row, main

from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.audio.format import AudioFormat
from voxengine.events import EventType
from voxengine.providers.base import BaseProvider
from voxengine.providers.registry import ProviderRegistry
from voxengine.testing.emulator import Emulator
from voxengine_azure import AzureProvider
from voxengine_azure.emulator import AzureOpenAIEmulator, AzureVoiceLiveEmulator
from voxengine_mock import MockProvider
from voxengine_mock.emulator import MockEmulator
from voxengine_mock.harness import serve
from voxengine_openai.emulator import OpenAIEmulator
from voxengine_openai.provider import OpenAIProvider

TITLE: Final = "From one service to another"
N_SWITCHES: Final = 12
"""Of each pair, to and fro."""
N_LOSSES: Final = 5
LIMIT_MS: Final = 150.0
RATE: Final = 24_000
CHUNK_S: Final = 0.02
FORMAT: Final = AudioFormat(RATE)
SPEECH: Final = array("h", (round(9000 * sin(2 * pi * 330 * n / RATE)) for n in range(RATE // 50))).tobytes()
PAIRS: Final = (
    ("mock", "mock"),
    ("openai", "openai"),
    ("openai", "azure-openai"),
    ("openai", "azure-voice-live"),
)
EMULATORS: Final[dict[str, type[Emulator]]] = {
    "mock": MockEmulator,
    "openai": OpenAIEmulator,
    "azure-openai": AzureOpenAIEmulator,
    "azure-voice-live": AzureVoiceLiveEmulator,
}
CLASSES: Final[dict[str, type[BaseProvider]]] = {
    "mock": MockProvider,
    "openai": OpenAIProvider,
    "azure": AzureProvider,
}


@attrs.define
class Heard:
    """When which session was given audio."""

    session: object = None
    last_at: float = 0.0
    gaps_ms: list[float] = attrs.field(factory=list)

    def take(self, session: object) -> None:
        """Note audio."""
        now = time.perf_counter()
        if self.session is not None and session is not self.session:
            self.gaps_ms.append((now - self.last_at) * 1000)
        self.session, self.last_at = session, now


def watched(cls: type[BaseProvider], heard: Heard) -> type[BaseProvider]:
    """Return a provider that notes when it is given audio."""

    def try_send_audio(self: Any, audio_data: bytes) -> bool:
        taken: bool = cls.try_send_audio(self, audio_data)
        if taken:
            heard.take(self)
        return taken

    async def send_audio(self: Any, audio_data: bytes) -> None:
        await cls.send_audio(self, audio_data)
        heard.take(self)

    return type(cls.__name__, (cls,), {"try_send_audio": try_send_audio, "send_audio": send_audio})


def config_of(service: str, provider: str, url: str, **options: Any) -> VoiceEngineConfig:
    """Return how a client speaks with an emulator."""
    metadata: dict[str, Any] = {"endpoint" if service.startswith("azure") else "url": url}
    if service == "azure-openai":
        metadata["deployment"] = "talk"
    return VoiceEngineConfig(
        provider=provider,
        api_key=None if service == "mock" else "sk-drive",
        metadata=metadata,
        input_format=FORMAT,
        **options,
    )


async def talk(engine: VoiceEngine, stop: asyncio.Event) -> None:
    """Speak without a pause, in real time."""
    due = time.perf_counter()
    while not stop.is_set():
        await engine.send_audio(SPEECH)
        due += CHUNK_S
        await asyncio.sleep(max(due - time.perf_counter(), 0))


async def switches(first: str, second: str) -> tuple[list[float], list[float]]:
    """Return, in milliseconds, the gaps of switches to and fro, and how long each call took."""
    heard, registry, names = Heard(), ProviderRegistry(), ("one", "two")
    took: list[float] = []
    async with AsyncExitStack() as stack:
        configs = []
        for name, service in zip(names, (first, second), strict=True):
            server = await stack.enter_async_context(serve(EMULATORS[service](script={"delay_ms": 0})))
            registry.register(name, watched(CLASSES[service.partition("-")[0]], heard))
            configs.append(config_of(service, name, server.url))
        engine = await stack.enter_async_context(VoiceEngine(configs[0], registry=registry))
        stop = asyncio.Event()
        speaking = asyncio.create_task(talk(engine, stop))
        for number in range(N_SWITCHES):
            await asyncio.sleep(0.2)
            target = 1 - number % 2
            began = time.perf_counter()
            await engine.switch_provider(names[target], configs[target])
            took.append((time.perf_counter() - began) * 1000)
        stop.set()
        await speaking
    return heard.gaps_ms, took


async def loss(service: str) -> float:
    """Return the gap, in milliseconds, when a connection breaks while the user speaks and is made again."""
    faults = [{"do": "reset", "at": "input:after_audio_ms=300"}]
    gap = asyncio.get_running_loop().create_future()
    async with serve(EMULATORS[service](script={"delay_ms": 0}, faults=faults)) as server:
        registry = ProviderRegistry()
        registry.register("one", CLASSES[service.partition("-")[0]])
        engine = VoiceEngine(config_of(service, "one", server.url), registry=registry)
        engine.events.once(EventType.PROVIDER_SWITCHED, lambda event: gap.set_result(event.gap_ms))
        async with engine:
            stop = asyncio.Event()
            speaking = asyncio.create_task(talk(engine, stop))
            gap_ms: float = await asyncio.wait_for(gap, 20)
            stop.set()
            await speaking
    return gap_ms


def run() -> list[Row]:
    """Measure every pair."""
    rows = []
    for first, second in PAIRS:
        gaps, took = asyncio.run(switches(first, second))
        assert len(gaps) == N_SWITCHES
        note = f"longest of {len(gaps)}: {max(gaps):.0f} ms; the call took {statistics.median(took):.0f} ms"
        rows.append(Row(f"switch {first} ↔ {second}, gap", statistics.median(gaps), "ms", LIMIT_MS, note))
    for service in ("mock", "openai"):
        lost = [asyncio.run(loss(service)) for _ in range(N_LOSSES)]
        note = f"longest of {len(lost)}: {max(lost):.0f} ms; the hand-shake is in it"
        rows.append(Row(f"loss and reconnect, {service}, gap", statistics.median(lost), "ms", None, note))
    return rows


if __name__ == "__main__":
    sys.exit(main(TITLE, run))
