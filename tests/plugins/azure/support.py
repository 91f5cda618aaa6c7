"""What the tests of the Speech service share: emulators that remember what they heard, and open sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from tests.plugins.mock.support import Recorder
from voxengine.testing.conformance.subject import speech_like
from voxengine.testing.emulator import EmulatorSession
from voxengine_azure import AzureProvider
from voxengine_azure.emulator import AzureSpeechEmulator

__all__ = ["Heard", "Recorder", "Remembering", "feed", "serving", "session", "silence", "speech"]

RATE = 16_000


class Heard:
    """What one connection received."""

    def __init__(self, session: EmulatorSession) -> None:
        self.request = session.request
        self.pcm = b""
        self.messages: list[tuple[str, Mapping[str, Any]]] = []

    def audio(self, pcm: bytes, sample_rate: int) -> None:
        self.pcm += pcm

    def message(self, name: str, fields: Mapping[str, Any]) -> None:
        self.messages.append((name, fields))

    def of(self, name: str) -> list[Mapping[str, Any]]:
        return [fields for held, fields in self.messages if held == name]


class Remembering(AzureSpeechEmulator):
    """Keeps what each connection received, in the order in which they were opened."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.recognitions: list[Heard] = []
        self.syntheses: list[Heard] = []

    async def _recognise(self, session: EmulatorSession) -> None:
        self.recognitions.append(self._remembered(session))
        await super()._recognise(session)

    async def _synthesise(self, session: EmulatorSession) -> None:
        self.syntheses.append(self._remembered(session))
        await super()._synthesise(session)

    @staticmethod
    def _remembered(session: EmulatorSession) -> Heard:
        heard = Heard(session)
        held: Any = session
        held.log = heard
        return heard


@asynccontextmanager
async def serving(
    kind: type[AzureSpeechEmulator] = Remembering, **script: Any
) -> AsyncIterator[tuple[Any, str]]:
    """An emulator that answers at once, and its address."""
    emulator = kind(script={"delay_ms": 0, "pace": 100, **script})
    async with emulator.running() as url:
        yield emulator, url


@asynccontextmanager
async def session(
    url: str, config: Mapping[str, Any] | None = None, **metadata: Any
) -> AsyncIterator[tuple[Any, Recorder]]:
    """An open session, and its events; closed at the end."""
    values: dict[str, Any] = {"api_key": "sk-drive", "mode": "big", **(config or {})}
    values["metadata"] = {"service": "speech", "endpoint": url, **metadata}
    provider = AzureProvider(values)
    recorder = Recorder()
    provider.on_event = recorder
    await provider.connect()
    try:
        yield provider, recorder
    finally:
        await provider.disconnect()


def speech(ms: int = 1200) -> bytes:
    return speech_like(RATE, ms)


def silence(ms: int) -> bytes:
    return bytes(2 * (ms * RATE // 1000))


async def feed(provider: Any, pcm: bytes, chunk_ms: int = 100) -> None:
    """Send audio as fast as it is taken."""
    size = chunk_ms * RATE // 1000 * 2
    for at in range(0, len(pcm), size):
        await provider.send_audio(pcm[at : at + size])
