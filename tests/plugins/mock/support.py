"""What the tests of the mock share: an open provider that records its events, and sounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from voxengine.events import Event, EventType
from voxengine_mock import MockProvider
from voxengine_mock.voice import VOICES, ToneSpeech


class Recorder:
    """The events of one provider, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._changed = asyncio.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    def of(self, *types: str) -> list[Event]:
        return [event for event in self.events if event.type in types]

    def types(self) -> list[str]:
        return [str(event.type) for event in self.events]

    async def wait(self, event_type: str, n: int = 1, timeout_s: float = 120.0) -> Event:
        """Return the n-th event of a type, waiting for it."""
        await self.until(lambda: len(self.of(event_type)) >= n, timeout_s)
        return self.of(event_type)[n - 1]

    async def until(self, is_so: Callable[[], bool], timeout_s: float = 120.0) -> None:
        """Wait for events that make it so."""
        async with asyncio.timeout(timeout_s):
            while not is_so():
                self._changed.clear()
                await self._changed.wait()

    def audio(self) -> bytes:
        return b"".join(event.data["audio_data"] for event in self.of(EventType.AUDIO_OUTPUT_CHUNK))

    def final_texts(self) -> list[str]:
        return [e.data["text"] for e in self.of(EventType.TEXT_OUTPUT) if not e.data["is_partial"]]


@asynccontextmanager
async def session(
    config: dict[str, Any] | None = None, **metadata: Any
) -> AsyncIterator[tuple[Any, Recorder]]:
    """An open mock session, and its events; closed at the end."""
    values = dict(config or {})
    values["metadata"] = {**values.get("metadata", {}), **metadata}
    provider = MockProvider(values)
    recorder = Recorder()
    provider.on_event = recorder
    await provider.connect()
    try:
        yield provider, recorder
    finally:
        await provider.disconnect()


async def voice_saying(text: str, rate: int = 24_000) -> bytes:
    speech = ToneSpeech(text, VOICES["bruno"], rate)
    return await speech.pcm(0, speech.duration_ms)


def silence(ms: int, rate: int = 24_000) -> bytes:
    return bytes(ms * rate // 1000 * 2)


async def feed(
    provider: Any, pcm: bytes, *, chunk_ms: int = 20, rate: int = 24_000, paced: bool = True
) -> None:
    """Send audio as a microphone would, or as fast as it is taken."""
    size = chunk_ms * rate // 1000 * 2
    for at in range(0, len(pcm), size):
        await provider.send_audio(pcm[at : at + size])
        if paced:
            await asyncio.sleep(chunk_ms / 1000)


def tool(name: str, **properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "name": name, "description": "", "parameters": schema}


def counter() -> Callable[[str], str]:
    numbers = iter(range(1, 1_000_000))
    return lambda prefix: f"{prefix}{next(numbers)}"
