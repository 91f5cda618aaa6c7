"""What the service's ends of recognition and synthesis share: reading, sending, and keys without case."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from voxengine.codec import Role, VendorMessage
from voxengine.testing.emulator import EmulatorSession
from voxengine_azure.speech.codec import AudioFrame, Message, ProtocolFault, SpeechCodec, SpeechMessage
from voxengine_mock.behaviour import Behaviour
from voxengine_mock.happenings import Happening
from voxengine_mock.misbehaving import CLOSED

__all__ = ["ServiceEnd", "find", "is_true"]


class ServiceEnd(ABC):
    """One connection of the service, with the simulated agent behind it.

    Args:
        session: The connection.
        new_id: Gives 32 hexadecimal digits.
    """

    def __init__(self, session: EmulatorSession, new_id: Callable[[str], str]) -> None:
        self.session = session
        self.new_id = new_id
        self.behaviour = Behaviour(session.script, new_id, self.tell, faults=session.faults)
        self._codec = SpeechCodec(Role.SERVER, new_id)

    async def run(self) -> None:
        """Serve the connection until the client ends it."""
        clock = asyncio.get_running_loop().time
        async with self.behaviour.active():
            with contextlib.suppress(*CLOSED):
                if not await self.behaviour.opening():
                    return
                await self.behaviour.opened()
                while True:
                    wire = await self.session.recv()
                    for message in self._codec.decode(wire, clock()):
                        await self._read(message)

    async def _read(self, message: Message | ProtocolFault) -> None:
        log = self.session.log
        if isinstance(message, ProtocolFault):
            if log is not None:
                log.message("invalid", {"reason": message.reason})
            await self.session.close(1002, message.reason)
        elif isinstance(message, VendorMessage):
            if log is not None:
                log.message(message.name, {})
        elif isinstance(message, AudioFrame):
            await self.take_audio(message)
        else:
            if log is not None:
                body = message.body if isinstance(message.body, Mapping) else {"text": message.body}
                log.message(message.path, body)
            await self.take(message)

    @abstractmethod
    async def take(self, message: SpeechMessage) -> None:
        """Do what a message asks for."""

    @abstractmethod
    async def take_audio(self, frame: AudioFrame) -> None:
        """Take audio of a turn."""

    @abstractmethod
    async def tell(self, happening: Happening) -> None:
        """Say what the agent brings about."""

    async def say(self, path: str, body: Mapping[str, Any], request_id: str) -> None:
        """Send a message of a turn."""
        await self.send(SpeechMessage(path, dict(body), request_id))

    async def send(self, message: Message) -> None:
        """Send a message."""
        for wire in self._codec.encode(message):
            await self.session.send(wire)


def find(body: object, *keys: str) -> Any:
    """Return what is below these keys, whatever their case; None when there is nothing."""
    for key in keys:
        if not isinstance(body, Mapping):
            return None
        wanted = key.lower()
        body = next((value for name, value in body.items() if str(name).lower() == wanted), None)
    return body


def is_true(value: object) -> bool:
    """Return whether a flag is set: one of the official clients writes it as a text."""
    return value is True or (isinstance(value, str) and value.lower() == "true")
