"""Providers written as a user writes them, for the tests of the contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from voxengine.events import EventType
from voxengine.providers.base import BaseProvider


class Plain(BaseProvider):
    """Complete, and as short as the provider guide writes one: no super() call in connect or disconnect."""

    async def connect(self) -> None:
        self.session_id = "s-1"

    async def disconnect(self) -> None:
        self.session_id = None

    async def send_audio(self, audio_data: bytes) -> None:
        self.emit_event(EventType.VENDOR_EVENT, {"name": "audio", "payload": audio_data})

    async def send_text(self, text: str) -> None:
        self.emit_event(EventType.TEXT_OUTPUT, {"text": text})

    async def interrupt(self) -> None:  # type: ignore[override]  # `heard` may be left out
        self.emit_event(EventType.VENDOR_EVENT, {"name": "interrupt"})

    async def configure_session(self, config: dict[str, Any]) -> None:
        self.emit_event(EventType.SESSION_UPDATED, {"settings": config})


class Sink:
    """Stands in for a session: keeps what a provider reports."""

    def __init__(self) -> None:
        self.events: list[tuple[EventType, Mapping[str, Any]]] = []
        self.losses = 0

    def provider_event(self, event_type: EventType, data: Mapping[str, Any]) -> None:
        self.events.append((event_type, data))

    def provider_lost(self) -> None:
        self.losses += 1


def remade(name: str, base: type[BaseProvider] = Plain, /, **members: Any) -> Any:
    """Return a subclass of ``base`` with other members."""
    return type(name, (base,), members)
