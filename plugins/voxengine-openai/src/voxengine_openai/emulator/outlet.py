"""Sends the events of one session."""

from __future__ import annotations

import base64
from typing import Any

from voxengine.codec import NewId, VendorMessage
from voxengine_mock.misbehaving import Stream
from voxengine_openai.codec import RealtimeCodec
from voxengine_openai.emulator.errors import Refused
from voxengine_openai.messages import AudioDelta, RealtimeMessage

__all__ = ["Outlet"]


class Outlet:
    """Where events go: each gets an identifier of its own.

    Args:
        stream: The session's connection.
        codec: The server's end.
    """

    def __init__(self, stream: Stream, codec: RealtimeCodec, new_id: NewId) -> None:
        self._stream = stream
        self._codec = codec
        self.new_id = new_id

    async def emit(self, name: str, /, **fields: Any) -> None:
        """Send an event, by its GA name and fields."""
        await self._send(RealtimeMessage(name, {"event_id": self.new_id("event_"), **fields}))

    async def emit_vendor(self, name: str, /, **fields: Any) -> None:
        """Send an event that GA does not have."""
        await self._send(VendorMessage(name, {"event_id": self.new_id("event_"), **fields}))

    async def audio(self, response_id: str, item_id: str, audio: bytes, output_index: int) -> None:
        """Send a piece of an answer's audio, as it travels."""
        delta = base64.b64encode(audio).decode("ascii")
        await self._send(AudioDelta(response_id, item_id, delta, output_index, 0, self.new_id("event_")))

    async def refuse(self, why: Refused, event_id: str | None = None) -> None:
        """Say what was wrong; ``event_id`` is that of the client's event."""
        await self.emit("error", error=why.to_dict(event_id))

    async def _send(self, message: RealtimeMessage | AudioDelta | VendorMessage) -> None:
        for wire in self._codec.encode(message):
            await self._stream.send(wire)
