"""What recognition and synthesis need of the session that they belong to."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from voxengine.errors import ProviderError
from voxengine.events import EventType
from voxengine.transport import Transport
from voxengine_azure.speech.codec import SpeechMessage

__all__ = ["Host", "config_message", "ended", "new_hex_id", "timestamp"]


class Host(Protocol):
    """The session. Its methods are those of a provider, but for ``dial`` and ``lost``."""

    def emit_event(self, event: EventType, data: Mapping[str, Any]) -> None:
        """Tell what happened."""

    def warn(self, code: str, message: str) -> None:
        """Emit a WARNING."""

    def start_task(self, work: Coroutine[Any, Any, Any], *, name: str | None = None) -> asyncio.Task[Any]:
        """Run work beside the session, until it ends."""

    async def dial(self, url: str) -> Transport:
        """Open a connection of the session. Raises ProviderError."""

    def lost(self, error: ProviderError) -> None:
        """Report, once, that the session cannot go on."""

    def tell_usage(self) -> None:
        """Emit what the session used so far."""


async def ended(task: asyncio.Task[Any] | None) -> None:
    """Cancel a task and return when it has ended."""
    if task is not None and not task.done():
        task.cancel()
        await asyncio.wait([task])


def new_hex_id(_: str = "") -> str:
    """Return an identifier as the protocol wants it: 32 hexadecimal digits."""
    return uuid.uuid4().hex


def timestamp() -> str:
    """Return the present time as the protocol writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def config_message(version: str, request_id: str, audio: Mapping[str, Any] | None = None) -> SpeechMessage:
    """Return the message that opens a connection: who we are, and where audio comes from."""
    context: dict[str, Any] = {
        "system": {"name": "VoxEngine", "version": version, "build": "python", "lang": "Python"},
        "os": {"platform": "Python", "name": "VoxEngine", "version": version},
    }
    if audio is not None:
        context["audio"] = {"source": dict(audio)}
    return SpeechMessage("speech.config", {"context": context}, request_id, timestamp())
