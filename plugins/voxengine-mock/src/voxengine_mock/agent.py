"""The simulated agent in the mock's own protocol: the server's side of a conversation, over any transport."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from voxengine.codec import NewId, Role, VendorMessage
from voxengine.errors import ConfigError, ErrorCode
from voxengine_mock import codec, happenings
from voxengine_mock.behaviour import Behaviour
from voxengine_mock.codec import MockCodec, ProtocolFault
from voxengine_mock.happenings import Happening
from voxengine_mock.misbehaving import CLOSED, SessionFaults, Stream
from voxengine_mock.script import Script
from voxengine_mock.settings import Settings

if TYPE_CHECKING:
    from voxengine.testing.emulator import ReceptionLog

__all__ = ["SimulatedAgent", "Stream"]


class SimulatedAgent:
    """One session of the agent.

    Args:
        transport: An open connection; the agent closes it only when the script's faults say so.
        script: What it hears and says.
        new_id: Makes the session's identifiers.
        faults: What goes wrong; None: nothing.
        log: Gets what arrives.
    """

    def __init__(
        self,
        transport: Stream,
        script: Script,
        new_id: NewId,
        *,
        faults: SessionFaults | None = None,
        log: ReceptionLog | None = None,
    ) -> None:
        self._transport = transport
        self._codec = MockCodec(Role.SERVER, new_id)
        self._new_id = new_id
        self._log = log
        self._is_open = False
        self._behaviour = Behaviour(script, new_id, self._tell, faults=faults)

    async def run(self) -> None:
        """Serve the session until the other side ends it. Leaves no task behind, also when cancelled."""
        async with self._behaviour.active():
            with contextlib.suppress(*CLOSED):
                await self._read()

    # -- reading --------------------------------------------------------------------------------

    async def _read(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            wire = await self._transport.recv()
            for message in self._codec.decode(wire, clock()):
                if self._log is not None:
                    self._note(self._log, message)
                if isinstance(message, codec.Bye):
                    return
                await self._take(message)

    def _note(self, log: ReceptionLog, message: codec.Message | VendorMessage | ProtocolFault) -> None:
        if isinstance(message, codec.InputAudio):
            log.audio(message.audio, self._behaviour.settings.input_rate)
        elif isinstance(message, ProtocolFault):
            log.message("invalid", {"reason": message.reason})
        elif isinstance(message, VendorMessage):
            log.message(message.name, {"payload": message.payload})
        else:
            fields = {name: getattr(message, name) for name in codec.field_names(type(message))}
            log.message(codec.name_of(message), fields)

    async def _take(self, message: codec.Message | VendorMessage | ProtocolFault) -> None:
        if isinstance(message, ProtocolFault):
            await self._fail(ErrorCode.PROTOCOL, message.reason)
        elif isinstance(message, VendorMessage):
            await self._fail(ErrorCode.INVALID_REQUEST, "The session has no message of that type.")
        elif isinstance(message, codec.Hello):
            await self._open(message)
        elif not self._is_open:
            await self._fail(ErrorCode.INVALID_REQUEST, "The first message of a session is hello.")
        else:
            await _HANDLERS[type(message)](self, message)

    async def _open(self, message: codec.Hello) -> None:
        if self._is_open:
            await self._fail(ErrorCode.INVALID_REQUEST, "The session is open already.")
            return
        settings = await self._merged(Settings(), message.settings)
        if settings is None or not await self._behaviour.opening():
            return
        self._is_open = True
        self._behaviour.configure(settings)
        await self._send(
            codec.Ready(session_id=self._new_id("sess_"), settings=self._behaviour.in_force(settings))
        )
        await self._behaviour.check_voice()
        await self._behaviour.opened()

    async def _configure(self, message: codec.Configure) -> None:
        before = self._behaviour.settings
        settings = await self._merged(before, message.settings, is_open=True)
        if settings is None or not await self._behaviour.configured():
            return
        self._behaviour.configure(settings)
        await self._send(codec.SettingsChanged(settings=self._behaviour.in_force(settings)))
        if settings.voice != before.voice:
            await self._behaviour.check_voice()

    async def _merged(
        self, before: Settings, changes: dict[str, Any], *, is_open: bool = False
    ) -> Settings | None:
        try:
            settings = before.merged(changes, is_open=is_open)
            await self._behaviour.check_synthesizer(settings)
        except ConfigError as error:
            await self._fail(ErrorCode.INVALID_REQUEST, str(error))
            return None
        return settings

    async def _input_audio(self, message: codec.InputAudio) -> None:
        await self._behaviour.hear(message.audio)

    async def _end_turn(self, message: codec.EndTurn) -> None:
        await self._behaviour.end_turn(respond=message.respond)

    async def _discard(self, _: codec.Discard) -> None:
        self._behaviour.discard()

    async def _input_text(self, message: codec.InputText) -> None:
        await self._behaviour.read(message.text)

    async def _cancel(self, message: codec.Cancel) -> None:
        await self._behaviour.cancel(message.item_id, message.played_ms, message.response_id)

    async def _tool_result(self, message: codec.ToolResult) -> None:
        if not await self._behaviour.tool_result(message.call_id, message.output, is_error=message.is_error):
            await self._fail(ErrorCode.INVALID_REQUEST, "There is no open tool call of that id.")

    async def _add_items(self, message: codec.AddItems) -> None:
        for item in message.items:
            text = item.get("text")
            if item.get("kind") in ("user_text", "user_audio") and isinstance(text, str) and text:
                self._behaviour.recall(text)
            elif item.get("kind") == "agent":
                self._behaviour.recall(None)
                self._behaviour.recall_answer(str(text or ""))
            elif item.get("kind") == "tool_result":
                self._behaviour.recall_result(str(text or ""))

    async def _speak(self, message: codec.Speak) -> None:
        await self._behaviour.speak(message.text, is_last=message.is_last)

    # -- telling --------------------------------------------------------------------------------

    async def _tell(self, happening: Happening) -> None:
        message = _say(happening)
        if message is not None:
            await self._send(message)

    async def _fail(self, code: ErrorCode, message: str) -> None:
        await self._send(codec.Error(code=code.value, message=message, recoverable=self._is_open))

    async def _send(self, message: codec.Message) -> None:
        for wire in self._codec.encode(message):
            await self._transport.send(wire)


def _say(happening: Happening) -> codec.Message | None:
    """Return what a happening is in the mock's protocol, None when it has no message for it."""
    match happening:
        case happenings.Sounded(response_id=response_id, item_id=item_id, pcm=pcm):
            audio = base64.b64encode(pcm).decode("ascii")
            return codec.AudioDelta(response_id=response_id, item_id=item_id, audio=audio)
        case happenings.Said():
            return _same(codec.TextDelta, happening)
        case happenings.WordSpoken():
            return _same(codec.WordMark, happening)
        case happenings.SaidAll():
            return _same(codec.TextDone, happening)
        case happenings.SpeechStarted():
            return _same(codec.SpeechStarted, happening)
        case happenings.SpeechEnded():
            return _same(codec.SpeechEnded, happening)
        case happenings.Heard(words=words):
            return _same(codec.Transcript, happening, words=[dict(word) for word in words])
        case happenings.ResponseStarted():
            return _same(codec.ResponseStarted, happening)
        case happenings.ResponseEnded(status="cancelled"):
            return _same(codec.ResponseCancelled, happening, reason="interrupted")
        case happenings.ResponseEnded(status=status, usage=usage):
            status = "incomplete" if status == "failed" else status
            return _same(codec.ResponseDone, happening, status=status, usage=dict(usage))
        case happenings.Called(arguments=arguments):
            return _same(codec.ToolCall, happening, arguments=json.dumps(arguments))
        case happenings.Truncated():
            return _same(codec.Truncated, happening)
        case happenings.Used(usage=usage):
            return _same(codec.Usage, happening, usage=dict(usage))
        case happenings.Warned():
            return _same(codec.Warn, happening)
        case happenings.Failed(code=code):
            return _same(codec.Error, happening, code=code.value)
        case happenings.Expiring():
            return _same(codec.SessionExpiring, happening)
        case happenings.TurnEnded() | happenings.WentIdle():
            return None


def _same(cls: type[codec.Message], happening: Happening, **changes: Any) -> codec.Message:
    """Make the message that has the happening's fields, as far as it knows them."""
    names = codec.field_names(cls)
    found = {name: getattr(happening, name) for name in names if hasattr(happening, name)}
    return cls(**{**found, **{name: value for name, value in changes.items() if name in names}})


_HANDLERS: Final[dict[type, Callable[[SimulatedAgent, Any], Any]]] = {
    codec.Configure: SimulatedAgent._configure,
    codec.InputAudio: SimulatedAgent._input_audio,
    codec.EndTurn: SimulatedAgent._end_turn,
    codec.Discard: SimulatedAgent._discard,
    codec.InputText: SimulatedAgent._input_text,
    codec.Cancel: SimulatedAgent._cancel,
    codec.ToolResult: SimulatedAgent._tool_result,
    codec.AddItems: SimulatedAgent._add_items,
    codec.Speak: SimulatedAgent._speak,
}
