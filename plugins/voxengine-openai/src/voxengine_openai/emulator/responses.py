"""Says what the agent does in one response, in the order of the service's events."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from voxengine.errors import ErrorCode
from voxengine_mock.happenings import Called, Failed, ResponseEnded
from voxengine_mock.settings import Settings
from voxengine_openai.emulator import config
from voxengine_openai.emulator.errors import Refused, error_of
from voxengine_openai.emulator.items import Conversation, Item
from voxengine_openai.emulator.mcp import McpCall
from voxengine_openai.emulator.outlet import Outlet
from voxengine_openai.emulator.usage import NO_USAGE, Counted, Meter, Room

__all__ = ["Request", "ResponseWriter"]

_ARGUMENT_CHARS: Final = 24
# The documentation says that there is an error, and not which; the code is that of OpenAI's other interfaces.
_TOO_LONG: Final = "context_length_exceeded"
_TOO_LONG_TEXT: Final = "The conversation has more tokens than the model takes, and truncation is disabled."
_REASONS: Final = {"speech": "turn_detected", "client": "client_cancelled"}


@attrs.frozen
class Request:
    """What was asked for with ``response.create``; a turn asks for nothing of its own."""

    response: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    """As it came."""
    input: Sequence[Item] | None = attrs.field(default=None, repr=False)
    """What it reads; None: the conversation."""
    settings: Settings | None = None
    """What holds for it; None: the session's."""
    approved: Sequence[McpCall] = ()
    """Calls of MCP tools that the client has allowed, made at its begin."""

    @property
    def is_default(self) -> bool:
        """Whether it belongs to the conversation."""
        return self.response.get("conversation") != "none"


class ResponseWriter:
    """One response from ``response.created`` to ``response.done``.

    Args:
        session: The session object in force when it began.
    """

    def __init__(
        self,
        response_id: str,
        request: Request,
        session: Mapping[str, Any],
        conversation: Conversation,
        outlet: Outlet,
        meter: Meter,
    ) -> None:
        self.response_id = response_id
        self.request = request
        self._conversation = conversation
        self._outlet = outlet
        self._meter = meter
        asked = request.response
        said = {**session["audio"]["output"], **((asked.get("audio") or {}).get("output") or {})}
        voice = said["voice"]
        self._format: Mapping[str, Any] = said["format"]
        self._modalities = asked.get("output_modalities") or session["output_modalities"]
        limit = asked.get("max_output_tokens")
        self._head = {
            "object": "realtime.response",
            "id": response_id,
            "conversation_id": conversation.conversation_id if request.is_default else None,
            "output_modalities": self._modalities,
            "max_output_tokens": session["max_output_tokens"] if limit is None else limit,
            "audio": {
                "output": {
                    "format": dict(self._format),
                    "voice": voice["id"] if isinstance(voice, Mapping) and "id" in voice else voice,
                }
            },
            "metadata": asked.get("metadata"),
        }
        self.items: list[Item] = []
        """The output, in order."""
        self._previous: dict[str, str | None] = {}
        self._open: Item | None = None
        """The message that is being said."""
        self._input = self._count(session, asked)
        self._failure: Failed | None = None

    def _count(self, session: Mapping[str, Any], asked: Mapping[str, Any]) -> Counted:
        instructions = asked.get("instructions")
        tools = asked.get("tools")
        return self._meter.count_input(
            session["instructions"] if instructions is None else instructions,
            session["tools"] if tools is None else tools,
            self._conversation if self.request.input is None else self.request.input,
            Room.of(session, self._head["max_output_tokens"]),
            is_default=self.request.is_default and self.request.input is None,
        )

    @property
    def is_over(self) -> bool:
        """Whether it is to fail, since the conversation does not fit into the model."""
        return self._input.is_over

    @property
    def has_audio(self) -> bool:
        """Whether the answer is spoken."""
        return "audio" in self._modalities

    def _where(self, item: Item) -> dict[str, Any]:
        return {
            "response_id": self.response_id,
            "item_id": item.item_id,
            "output_index": self.items.index(item),
        }

    async def start(self) -> None:
        """Say that it begins."""
        await self._outlet.emit("response.created", response=self._response("in_progress"))
        for call in self.request.approved:
            await self.write_mcp_call(call)

    def fail(self, failed: Failed) -> None:
        """Note with what it is going to fail."""
        self._failure = failed

    # -- items ----------------------------------------------------------------------------------

    async def _add(self, item: Item) -> None:
        self.items.append(item)
        where = {"response_id": self.response_id, "output_index": len(self.items) - 1}
        if self.request.is_default:
            self._previous[item.item_id] = self._conversation.last_id
            self._conversation.append(item)
        await self._outlet.emit("response.output_item.added", **where, item=item.shown())
        if self.request.is_default:
            previous_id = self._previous[item.item_id]
            await self._outlet.emit(
                "conversation.item.added", previous_item_id=previous_id, item=item.shown()
            )

    async def _finish(self, item: Item) -> None:
        if self.request.is_default:
            await self._outlet.emit(
                "conversation.item.done",
                previous_item_id=self._previous[item.item_id],
                item=item.shown(),
            )
        where = {"response_id": self.response_id, "output_index": self.items.index(item)}
        await self._outlet.emit("response.output_item.done", **where, item=item.shown())

    async def _message(self, item_id: str) -> Item:
        """Return the message that is being said; open it when it is not yet."""
        if self._open is not None:
            return self._open
        fields = {"id": item_id, "type": "message", "status": "in_progress", "role": "assistant"}
        item = self._open = Item({**fields, "content": []})
        await self._add(item)
        part = {"type": "audio", "transcript": ""} if self.has_audio else {"type": "text", "text": ""}
        kind, key = ("output_audio", "transcript") if self.has_audio else ("output_text", "text")
        item.fields["content"] = [{"type": kind, key: ""}]
        await self._outlet.emit(
            "response.content_part.added", **self._where(item), content_index=0, part=part
        )
        return item

    async def say(self, item_id: str, delta: str) -> None:
        """Say the next words."""
        item = await self._message(item_id)
        key = "transcript" if self.has_audio else "text"
        part = item.fields["content"][0]
        part[key] += delta
        name = "response.output_audio_transcript.delta" if self.has_audio else "response.output_text.delta"
        await self._outlet.emit(name, **self._where(item), content_index=0, delta=delta)

    async def sound(self, item_id: str, pcm: bytes, duration_ms: int) -> None:
        """Send the next audio."""
        item = await self._message(item_id)
        audio = config.from_pcm(self._format, pcm)
        self._conversation.extend_audio(item, audio)
        item.audio_ms += duration_ms
        await self._outlet.audio(self.response_id, item.item_id, audio, self.items.index(item))

    async def close_message(self, *, is_whole: bool) -> None:
        """End the message that is being said."""
        item, self._open = self._open, None
        if item is None:
            return
        item.fields["status"] = "completed" if is_whole else "incomplete"
        where = {**self._where(item), "content_index": 0}
        content = item.fields["content"][0]
        if self.has_audio:
            transcript = content["transcript"]
            await self._outlet.emit("response.output_audio.done", **where)
            await self._outlet.emit("response.output_audio_transcript.done", **where, transcript=transcript)
            part = {"type": "audio", "transcript": transcript}
        else:
            await self._outlet.emit("response.output_text.done", **where, text=content["text"])
            part = {"type": "text", "text": content["text"]}
        await self._outlet.emit("response.content_part.done", **where, part=part)
        await self._finish(item)

    async def call(self, called: Called) -> None:
        """Call a function of the client."""
        arguments = json.dumps(called.arguments)
        fields = {
            "id": self._outlet.new_id("item_"),
            "type": "function_call",
            "status": "in_progress",
            "name": called.name,
            "call_id": called.call_id,
            "arguments": "",
        }
        item = Item(fields)
        await self._add(item)
        where = {**self._where(item), "call_id": called.call_id}
        for delta in _pieces(arguments):
            await self._outlet.emit("response.function_call_arguments.delta", **where, delta=delta)
        item.fields |= {"status": "completed", "arguments": arguments}
        await self._outlet.emit(
            "response.function_call_arguments.done", **where, name=called.name, arguments=arguments
        )
        await self._finish(item)

    async def ask_approval(self, call: McpCall) -> None:
        """Ask whether an MCP tool may be called."""
        item = Item(
            {
                "id": call.approval_id,
                "type": "mcp_approval_request",
                "server_label": call.server_label,
                "name": call.name,
                "arguments": call.arguments,
            }
        )
        await self._add(item)
        await self._finish(item)

    async def write_mcp_call(self, call: McpCall) -> None:
        """Call an MCP tool, which the service does by itself."""
        item = Item(
            {
                "id": self._outlet.new_id("mcp_"),
                "type": "mcp_call",
                "server_label": call.server_label,
                "name": call.name,
                "arguments": "",
                "approval_request_id": call.approval_id or None,
            }
        )
        await self._add(item)
        where = self._where(item)
        for delta in _pieces(call.arguments):
            await self._outlet.emit("response.mcp_call_arguments.delta", **where, delta=delta)
        await self._outlet.emit("response.mcp_call_arguments.done", **where, arguments=call.arguments)
        short = {"item_id": item.item_id, "output_index": where["output_index"]}
        await self._outlet.emit("response.mcp_call.in_progress", **short)
        item.fields |= {"arguments": call.arguments, "output": call.output, "error": None}
        await self._outlet.emit("response.mcp_call.completed", **short)
        await self._finish(item)

    # -- the end --------------------------------------------------------------------------------

    async def end(self, ended: ResponseEnded, now: float) -> None:
        """Say how it ended, and what it used."""
        status, details = ended.status, None
        if status == "cancelled":
            details = {"type": status, "reason": _REASONS.get(ended.reason, "client_cancelled")}
        elif status == "incomplete":
            details = {"type": status, "reason": "max_output_tokens"}
        elif status == "failed":
            status, details = self._failed()
        if self.is_over:
            status, details = self._failed()
            await self._done(status, details, dict(NO_USAGE), now)
            return
        await self.close_message(is_whole=status == "completed")
        usage = self._meter.usage(self._input, self.items, ended.usage)
        await self._done(status, details, usage, now)

    async def end_failed(self, failed: Failed, now: float) -> None:
        """Begin and fail at once."""
        self._failure = failed
        await self.start()
        status, details = self._failed()
        await self._done(status, details, dict(NO_USAGE), now)

    def _failed(self) -> tuple[str, dict[str, Any]]:
        if self.is_over:
            error: dict[str, Any] = {
                "type": "invalid_request_error",
                "code": _TOO_LONG,
                "message": _TOO_LONG_TEXT,
            }
            return "failed", {"type": "failed", "error": error}
        failure = self._failure
        if failure is not None and failure.code is ErrorCode.CONTENT_FILTER:
            return "incomplete", {"type": "incomplete", "reason": "content_filter"}
        why = (
            error_of(failure)
            if failure
            else Refused("The model failed.", "server_error", kind="server_error")
        )
        error = {"type": why.kind, "code": why.code, "message": why.message}
        return "failed", {"type": "failed", "error": error}

    async def _done(self, status: str, details: Any, usage: dict[str, Any], now: float) -> None:
        await self._outlet.emit("response.done", response=self._response(status, details, usage))
        limits = self._meter.rate_limits(usage["total_tokens"], now)
        await self._outlet.emit("rate_limits.updated", rate_limits=limits)

    def _response(self, status: str, details: Any = None, usage: Any = None) -> dict[str, Any]:
        return {
            **self._head,
            "status": status,
            "status_details": details,
            "output": [item.shown() for item in self.items],
            "usage": usage,
        }


def _pieces(text: str) -> list[str]:
    return [text[at : at + _ARGUMENT_CHARS] for at in range(0, len(text), _ARGUMENT_CHARS)]
