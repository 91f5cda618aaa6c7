"""One Realtime session as the service holds it: takes the client's events, and tells what the agent does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

import attrs

from voxengine.codec import NewId, Role, VendorMessage
from voxengine.errors import ConfigError, ErrorCode
from voxengine_mock import happenings
from voxengine_mock.behaviour import Behaviour
from voxengine_mock.happenings import Failed, Happening, Heard
from voxengine_mock.misbehaving import CLOSED
from voxengine_mock.settings import Settings, Tool
from voxengine_openai import wording
from voxengine_openai.codec import Append, Message, ProtocolFault, RealtimeCodec, RealtimeMessage
from voxengine_openai.emulator import config
from voxengine_openai.emulator.buffer import InputBuffer
from voxengine_openai.emulator.config import Profile
from voxengine_openai.emulator.errors import Refused, error_of
from voxengine_openai.emulator.items import Conversation, Item
from voxengine_openai.emulator.mcp import McpServers, is_reachable, listed
from voxengine_openai.emulator.outlet import Outlet
from voxengine_openai.emulator.requests import Requests
from voxengine_openai.emulator.responses import Request, ResponseWriter
from voxengine_openai.emulator.transcripts import Transcripts
from voxengine_openai.emulator.usage import Meter
from voxengine_openai.messages import CLIENT_EVENTS

if TYPE_CHECKING:
    from voxengine.testing.emulator import EmulatorSession

__all__ = ["RealtimeSession"]

_APPEND_BYTES: Final = 15 * 2**20
_PREFIX_KEPT_MS: Final = 10_000
"""Without speech so much is kept for the prefix padding of an utterance, the largest there is."""
_EXPIRED: Final = "Your session hit the maximum duration of 60 minutes."
_BAD_AUDIO: Final = (
    "Invalid 'audio'. Expected base64-encoded audio bytes (mono PCM16 at 24kHz) but got an invalid value."
)
_logger = logging.getLogger("voxengine_openai.emulator")


class RealtimeSession:
    """One session.

    Args:
        connection: What the harness gives.
        new_id: Makes the session's identifiers.
        profile: What the service has of its own.
        kind: ``realtime`` or ``transcription``.
        model: What the client asked for.
        start: The configuration that a client secret was made with.
        limit_s: How long the session may take.
    """

    def __init__(
        self,
        connection: EmulatorSession,
        new_id: NewId,
        *,
        profile: Profile = config.OPENAI,
        kind: str = "realtime",
        model: str = "gpt-realtime",
        start: Mapping[str, Any] | None = None,
        limit_s: float = 3600.0,
    ) -> None:
        self._connection = connection
        self._log = connection.log
        self._profile = profile
        self._codec = RealtimeCodec(Role.SERVER, new_id, profile.dialect)
        self._has_model = kind == "transcription" or profile.models(model)
        self.outlet = Outlet(connection, self._codec, new_id)
        self.servers = McpServers()
        self.conversation = Conversation(new_id("conv_"))
        self.meter = Meter(connection.script.usage)
        self.behaviour = Behaviour(connection.script, new_id, self.tell, faults=connection.faults)
        self.has_spoken = False
        """Whether any audio of an answer was sent."""
        self._limit_s = limit_s
        self._expiry: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[Any] | None = None
        self._event_id: str | None = None
        """Of the client's event whose effect a fault of the script takes the place of."""
        self._buffer = InputBuffer()
        self._transcripts = self.transcripts_class(self.outlet, self.meter)
        self._requests = Requests(self, profile)
        self._writers: dict[str, ResponseWriter] = {}
        self._turn_began_ms: float | None = None
        self._turn_ended_ms: float | None = None
        expires_at = int(time.time() + limit_s)
        self.session = config.initial(kind, new_id("sess_"), model, expires_at, profile)
        if start:
            self.session = config.merged(self.session, start, profile, has_spoken=False)
        self._use(self.session)

    # -- life -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the session until the other side ends it. Leaves no task behind, also when cancelled."""
        try:
            async with self.behaviour.active():
                with contextlib.suppress(*CLOSED):
                    if await self._open():
                        await self._read()
        finally:
            if self._expiry is not None:
                self._expiry.cancel()
            if self._ending is not None:
                self._ending.cancel()
                await asyncio.gather(self._ending, return_exceptions=True)

    async def _open(self) -> bool:
        self._expire_in(self._limit_s)
        if not await self.behaviour.opening():
            return True
        try:
            await self.behaviour.check_synthesizer(self.behaviour.settings)
        except ConfigError as error:
            await self.outlet.refuse(Refused(str(error), "server_error", kind="server_error"))
            await self._connection.close(1011, "no synthesizer")
            return False
        await self.behaviour.opened()
        await self.outlet.emit("session.created", session=config.shown(self.session, self._profile))
        await self._list_tools(self.session.get("tools"))
        return True

    def _expire_in(self, delay_s: float) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = asyncio.get_running_loop().call_later(delay_s, self._expire)

    def _expire(self) -> None:
        async def end() -> None:
            with contextlib.suppress(*CLOSED):
                await self.outlet.refuse(Refused(_EXPIRED, "session_expired"))
                await self._connection.close(1001, _EXPIRED)

        self._ending = asyncio.get_running_loop().create_task(end())

    async def _read(self) -> None:
        clock = asyncio.get_running_loop().time
        self._reader = asyncio.current_task()
        while True:
            wire = await self._connection.recv()
            for message in self._codec.decode(wire, clock()):
                await self._take(message)

    async def _take(self, message: Message | ProtocolFault) -> None:
        event_id: str | None = None
        name = getattr(message, "name", "")
        try:
            if isinstance(message, ProtocolFault):
                event_id = message.event_id
                self._note("invalid", {"reason": message.reason, "code": message.code})
                raise Refused.of(message)
            if isinstance(message, Append):
                event_id = message.event_id
                await self._append(message.audio)
                return
            assert isinstance(message, RealtimeMessage | VendorMessage)
            event_id = _event_id(message)
            self._event_id = event_id if name in _REPLACED else None
            await self._dispatch(message)
        except Refused as why:
            if why.param is not None and not isinstance(message, ProtocolFault):
                why.param = self._profile.dialect.wire_path(name, why.param)
            await self.outlet.refuse(why, event_id)
        finally:
            self._event_id = None

    async def _dispatch(self, message: RealtimeMessage | VendorMessage) -> None:
        if isinstance(message, VendorMessage):
            self._note(message.name, {"payload": message.payload})
            raise Refused.of(wording.invalid_value("type", message.name, sorted(CLIENT_EVENTS)))
        self._note(message.name, message.fields)
        handler = self.handlers.get(message.name)
        if handler is None:
            raise Refused(f"'{message.name}' is not supported over WebSocket.", "invalid_value", "type")
        if self.session["type"] == "transcription" and message.name in _FOR_ANSWERS:
            text = f"'{message.name}' is not supported in a transcription session."
            raise Refused(text, "invalid_value", "type")
        await handler(self, message.fields)

    def _note(self, name: str, fields: Mapping[str, Any]) -> None:
        if self._log is not None:
            self._log.message(name, _loggable(fields))

    # -- the session ----------------------------------------------------------------------------

    def _use(self, session: dict[str, Any]) -> None:
        self.session = session
        settings = self.settings_of(session)
        if not self._has_model:
            settings = attrs.evolve(settings, create_response=False)  # The session itself says that it fails.
        self.behaviour.configure(settings)
        self._buffer.use(session["audio"]["input"]["format"], self.behaviour.audio_ms)
        self._transcripts.configure(session["audio"]["input"]["transcription"], session.get("include"))

    def settings_of(self, session: Mapping[str, Any]) -> Settings:
        """Return the settings by which the agent works under a session object."""
        return config.neutral(session, self._profile, self.remote_tools)

    def remote_tools(self, server: Mapping[str, Any]) -> tuple[Tool, ...]:
        """Return the tools of an MCP server."""
        return self.servers.tools(server)

    async def _update(self, fields: Mapping[str, Any]) -> None:
        changes = fields["session"]
        session = config.merged(self.session, changes, self._profile, has_spoken=self.has_spoken)
        if not await self.behaviour.configured():
            return
        self._use(session)
        await self.outlet.emit("session.updated", session=config.shown(self.session, self._profile))
        await self._list_tools(session.get("tools"))

    async def _list_tools(self, tools: Any) -> None:
        for server in tools or ():
            label = server.get("server_label")
            if server.get("type") != "mcp" or label in self.servers.listed:
                continue
            self.servers.listed.add(label)
            fields = {"id": self.outlet.new_id("mcpl_"), "type": "mcp_list_tools", "server_label": label}
            item = Item({**fields, "tools": []})
            previous_id = self.conversation.last_id
            self.conversation.append(item)
            emit, where = self.outlet.emit, {"previous_item_id": previous_id}
            await emit("conversation.item.added", **where, item=item.shown())
            await emit("mcp_list_tools.in_progress", item_id=item.item_id)
            works = is_reachable(server)
            if works:
                item.fields["tools"] = listed(server)
            await emit(f"mcp_list_tools.{'completed' if works else 'failed'}", item_id=item.item_id)
            await emit("conversation.item.done", **where, item=item.shown())

    # -- input audio ----------------------------------------------------------------------------

    async def _append(self, audio: bytes) -> None:
        audio_format = self.session["audio"]["input"]["format"]
        if len(audio) > _APPEND_BYTES:
            text = "Invalid 'audio': string too long. An event takes at most 15 MiB of audio."
            raise Refused(text, "string_above_max_length", "audio")
        if audio_format["type"] == "audio/pcm" and len(audio) % 2:
            raise Refused(_BAD_AUDIO, "invalid_value", "audio")
        pcm = config.to_pcm(audio_format, audio)
        if self._log is not None:
            self._log.audio(pcm, self.behaviour.settings.input_rate)
        self._buffer.append(audio)
        await self.behaviour.hear(pcm)
        detects = self.session["audio"]["input"]["turn_detection"] is not None
        if detects and self._turn_began_ms is None and not self.behaviour.in_speech:
            self._buffer.keep(_PREFIX_KEPT_MS)

    async def _commit(self, _: Mapping[str, Any]) -> None:
        self._buffer.check_least()
        if not await self.behaviour.commit():
            self._requests.swallow()

    async def _clear(self, _: Mapping[str, Any]) -> None:
        self._buffer.clear()
        self._turn_began_ms = None
        self.behaviour.discard()
        await self.outlet.emit("input_audio_buffer.cleared")

    async def _turn_ended(self, item_id: str, text: str) -> None:
        """Make an item of what was said. The text of it comes after it."""
        audio, audio_ms = self._buffer.take(self._turn_began_ms, self._turn_ended_ms)
        self._turn_began_ms = self._turn_ended_ms = None
        content = [{"type": "input_audio", "transcript": None}]
        fields = {"id": item_id, "type": "message", "status": "completed", "role": "user"}
        item = Item({**fields, "content": content}, audio=audio, audio_ms=audio_ms, text=text)
        previous_id = self.conversation.last_id
        self.conversation.append(item)
        await self.outlet.emit("input_audio_buffer.committed", previous_item_id=previous_id, item_id=item_id)
        await self.announce(item, previous_id)
        await self._transcripts.committed(item)
        detection = self.session["audio"]["input"]["turn_detection"]
        if not self._has_model and detection is not None and detection["create_response"]:
            await self.fail_response(Request())

    async def announce(self, item: Item, previous_id: str | None) -> None:
        """Say that an item was added and is complete."""
        await self.outlet.emit("conversation.item.added", previous_item_id=previous_id, item=item.shown())
        await self.outlet.emit("conversation.item.done", previous_item_id=previous_id, item=item.shown())

    # -- items and responses --------------------------------------------------------------------

    async def _create_item(self, fields: Mapping[str, Any]) -> None:
        await self._requests.create_item(fields)

    async def _delete_item(self, fields: Mapping[str, Any]) -> None:
        self.conversation.delete(fields["item_id"])
        await self.outlet.emit("conversation.item.deleted", item_id=fields["item_id"])

    async def _retrieve_item(self, fields: Mapping[str, Any]) -> None:
        item = self.conversation.get(fields["item_id"], "retrieve")
        await self.outlet.emit("conversation.item.retrieved", item=item.with_audio())

    async def _truncate_item(self, fields: Mapping[str, Any]) -> None:
        where = {key: fields[key] for key in ("item_id", "content_index", "audio_end_ms")}
        self.conversation.truncate(**where)
        await self.outlet.emit("conversation.item.truncated", **where)

    async def _create_response(self, fields: Mapping[str, Any]) -> None:
        response = fields.get("response") or {}
        await self._list_tools(response.get("tools"))
        request = self._requests.read(response)
        if self._has_model:
            await self._requests.respond(request)
        else:
            await self.fail_response(request)

    async def _cancel_response(self, fields: Mapping[str, Any]) -> None:
        if not self.behaviour.cut(None, response_id=fields.get("response_id") or ""):
            raise Refused("Cancellation failed: no active response found", "response_cancel_not_active")

    async def fail_response(self, request: Request) -> None:
        """Answer that there is no such model."""
        message = f"The model `{self.session['model']}` does not exist or you do not have access to it."
        writer = self._writer(self.outlet.new_id("resp_"), request)
        await writer.end_failed(Failed(ErrorCode.NOT_FOUND, message), self._now())

    def _writer(self, response_id: str, request: Request | None) -> ResponseWriter:
        return self.writer_class(
            response_id, request or Request(), self.session, self.conversation, self.outlet, self.meter
        )

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    # -- telling --------------------------------------------------------------------------------

    async def tell(self, happening: Happening) -> None:
        """Say what the agent brings about."""
        match happening:
            case happenings.SpeechStarted(item_id=item_id, padded_ms=padded_ms):
                self._turn_began_ms = padded_ms
                await self.outlet.emit(
                    "input_audio_buffer.speech_started", audio_start_ms=padded_ms, item_id=item_id
                )
            case happenings.SpeechEnded(item_id=item_id, decided_ms=decided_ms):
                self._turn_ended_ms = decided_ms
                await self.outlet.emit(
                    "input_audio_buffer.speech_stopped", audio_end_ms=decided_ms, item_id=item_id
                )
            case Heard():
                await self._transcripts.heard(happening)
            case happenings.TurnEnded(item_id=item_id, text=text):
                await self._turn_ended(item_id, text)
            case happenings.WentIdle():
                await self._went_idle(happening)
            case Failed():
                await self._failed(happening)
            case happenings.Expiring(deadline_s=deadline_s):
                self.session["expires_at"] = int(time.time() + deadline_s)
                self._expire_in(deadline_s)
            case happenings.Warned(message=message):
                _logger.warning("%s", message)
            case _:
                await self._answer(happening)

    async def _answer(self, happening: Happening) -> None:
        """Tell what belongs to a response."""
        if isinstance(happening, happenings.ResponseStarted):
            writer = self._writer(happening.response_id, happening.tag)
            self._writers[happening.response_id] = writer
            await writer.start()
            if writer.is_over:
                self.behaviour.cut(None, response_id=happening.response_id)
            return
        found = self._writers.get(getattr(happening, "response_id", ""))
        if found is None or (found.is_over and not isinstance(happening, happenings.ResponseEnded)):
            return
        match happening:
            case happenings.Said(item_id=item_id, delta=delta):
                await found.say(item_id, delta)
            case happenings.Sounded(item_id=item_id, pcm=pcm):
                self.has_spoken = True
                rate = (found.request.settings or self.behaviour.settings).output_rate
                await found.sound(item_id, pcm, len(pcm) * 500 // rate)
            case happenings.SaidAll(is_whole=is_whole):
                await found.close_message(is_whole=is_whole)
            case happenings.Called():
                await self._called(found, happening)
            case happenings.ResponseEnded():
                del self._writers[happening.response_id]
                await found.end(happening, self._now())

    async def _called(self, writer: ResponseWriter, called: happenings.Called) -> None:
        settings = writer.request.settings or self.behaviour.settings
        tool = settings.tool(called.name)
        if tool is None or not tool.is_remote:
            await writer.call(called)
            return
        call = self.servers.call_of(called, tool)
        if called.result is None:
            await writer.ask_approval(self.servers.wait(call, self.outlet.new_id("mcpr_")))
        else:
            await writer.write_mcp_call(call)

    async def _failed(self, failed: Failed) -> None:
        writer = self._writers.get(failed.response_id)
        if writer is not None:
            writer.fail(failed)
        elif failed.item_id:
            await self._transcripts.failed(failed)
        elif failed.response_id:
            await self._writer(failed.response_id, None).end_failed(failed, self._now())
        else:
            is_reading = asyncio.current_task() is self._reader
            await self.outlet.refuse(error_of(failed), self._event_id if is_reading else None)

    async def _went_idle(self, idle: happenings.WentIdle) -> None:
        await self.outlet.emit(
            "input_audio_buffer.timeout_triggered",
            audio_start_ms=idle.from_ms,
            audio_end_ms=idle.to_ms,
            item_id=idle.item_id,
        )
        self._turn_began_ms, self._turn_ended_ms = idle.from_ms, idle.to_ms
        await self._turn_ended(idle.item_id, "")

    writer_class: ClassVar[type[ResponseWriter]] = ResponseWriter
    transcripts_class: ClassVar[type[Transcripts]] = Transcripts
    handlers: ClassVar[Mapping[str, Callable[[Any, Mapping[str, Any]], Awaitable[None]]]] = {
        "session.update": _update,
        "input_audio_buffer.commit": _commit,
        "input_audio_buffer.clear": _clear,
        "conversation.item.create": _create_item,
        "conversation.item.delete": _delete_item,
        "conversation.item.retrieve": _retrieve_item,
        "conversation.item.truncate": _truncate_item,
        "response.create": _create_response,
        "response.cancel": _cancel_response,
    }
    """What is done for each event. A service with more of them has a table of its own."""


_REPLACED: Final = frozenset({"session.update", "response.create"})
_FOR_ANSWERS: Final = frozenset(
    {"conversation.item.create", "conversation.item.truncate", "response.create", "response.cancel"}
)


def _event_id(message: RealtimeMessage | VendorMessage) -> str | None:
    fields = message.fields if isinstance(message, RealtimeMessage) else message.payload
    found = fields.get("event_id") if isinstance(fields, Mapping) else None
    return found if isinstance(found, str) else None


def _loggable(value: Any) -> Any:
    """Return what may be logged of a message: without audio and keys."""
    if isinstance(value, Mapping):
        return {
            key: _HIDDEN[key] if isinstance(inner, str) and key in _HIDDEN else _loggable(inner)
            for key, inner in value.items()
        }
    return [_loggable(inner) for inner in value] if isinstance(value, list) else value


_HIDDEN: Final = {"audio": "", "authorization": "***", "image_url": "data:"}
