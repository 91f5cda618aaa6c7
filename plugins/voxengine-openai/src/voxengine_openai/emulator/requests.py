"""What a client puts into the conversation, and what it wants answered."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from voxengine_mock.behaviour import Ask
from voxengine_openai.emulator import config
from voxengine_openai.emulator.config import Profile
from voxengine_openai.emulator.errors import Refused
from voxengine_openai.emulator.items import Item
from voxengine_openai.emulator.mcp import McpCall
from voxengine_openai.emulator.responses import Request

if TYPE_CHECKING:
    from voxengine_openai.emulator.session import RealtimeSession

__all__ = ["Requests"]

_IMAGES: Final = ("data:image/png;base64,", "data:image/jpeg;base64,", "data:image/webp;base64,")
_SAY: Final = re.compile(r"<<<\n(.*)\n>>>\s*\Z", re.DOTALL)
"""Instructions of a response that order it to say a text: a model would, and so does the agent."""


class Requests:
    """Items and responses that a client asks for, in one session."""

    def __init__(self, session: RealtimeSession, profile: Profile) -> None:
        self._session = session
        self._profile = profile
        self._has_new_text = False
        """Whether the user wrote something since the last answer was asked for."""
        self._is_swallowed = False
        self._approved: list[McpCall] = []

    def swallow(self) -> None:
        """Give no answer to the turn that was just completed: an error took its place."""
        self._is_swallowed = True

    # -- items ----------------------------------------------------------------------------------

    async def create_item(self, fields: Mapping[str, Any]) -> None:
        """Put an item into the conversation. Raises Refused."""
        session = self._session
        session.conversation.check_room()
        item = self._item(fields["item"], "item")
        session.conversation.insert(item, fields.get("previous_item_id"))
        await session.behaviour.first_input()
        previous_id = session.conversation.previous_of(item)
        await session.announce(item, previous_id)
        if item.kind == "function_call_output":
            call_id, output = item.fields["call_id"], item.fields["output"]
            session.behaviour.recall_result(output)
            await session.behaviour.tool_result(call_id, output, respond=False)
        elif item.kind == "mcp_approval_response":
            await self._approve(item)
        elif item.role == "user":
            self._has_new_text = True
            if item.text:
                session.behaviour.recall(item.text)
        elif item.role == "assistant":
            session.behaviour.recall_answer(item.text)

    def _item(self, given: Mapping[str, Any], param: str) -> Item:
        item_id = given.get("id") or self._session.outlet.new_id("item_")
        kind = given["type"]
        if kind == "message":
            return self._message(item_id, given, param)
        fields = {key: value for key, value in given.items() if key != "object" and value is not None}
        if kind in ("function_call", "function_call_output"):
            fields["status"] = "completed"
        if kind == "function_call" and not fields.get("call_id"):
            fields["call_id"] = self._session.outlet.new_id("call_")
        if kind == "function_call_output" and param == "item":
            self._check_call(fields["call_id"])
        if kind == "mcp_approval_response" and param == "item":
            self._check_approval(fields["approval_request_id"])
        return Item({**fields, "id": item_id})

    def _check_call(self, call_id: str) -> None:
        for item in self._session.conversation:
            if item.kind == "function_call" and item.fields["call_id"] == call_id:
                return
        raise Refused(
            f"Tool call ID '{call_id}' not found in conversation.", "invalid_tool_call_id", "item.call_id"
        )

    def _check_approval(self, approval_id: str) -> None:
        found = self._session.conversation.find(approval_id)
        if found is None or found.kind != "mcp_approval_request":
            raise Refused(
                f"No approval request with id '{approval_id}' in the conversation.",
                "invalid_value",
                "item.approval_request_id",
            )

    def _message(self, item_id: str, given: Mapping[str, Any], param: str) -> Item:
        role = given["role"]
        fields = {"id": item_id, "type": "message", "status": "completed", "role": role}
        item = Item({**fields, "content": []})
        texts: list[str] = []
        for n, part in enumerate(given["content"]):
            place = f"{param}.content[{n}]"
            kind = part["type"]
            shown = {key: value for key, value in part.items() if key != "audio" and value is not None}
            if kind == "input_audio":
                shown["transcript"] = self._hear_part(item, part, place)
                texts.append(shown["transcript"] or "")
            elif kind == "input_image":
                _check_image(part, f"{place}.image_url")
            else:
                texts.append(part["text"])
            item.fields["content"].append({**shown, "type": kind})
        item.text = " ".join(text for text in texts if text)
        return item

    def _hear_part(self, item: Item, part: Mapping[str, Any], place: str) -> str | None:
        """Take audio that comes as an item, and return what is said in it."""
        audio_format = self._session.session["audio"]["input"]["format"]
        kind = audio_format["type"]
        try:
            audio = base64.b64decode(part.get("audio") or "", validate=True)
        except (binascii.Error, ValueError):
            audio = b"\0"
        if (kind == "audio/pcm" and len(audio) % 2) or not audio:
            raise Refused(
                f"Invalid '{place}.audio'. Expected base64-encoded audio bytes but got an invalid value.",
                "invalid_value",
                f"{place}.audio",
            )
        pcm = config.to_pcm(audio_format, audio)
        item.audio += audio
        item.audio_ms += len(pcm) * 500 // config.format_rate(audio_format)
        if part.get("transcript"):
            return str(part["transcript"])
        return self._session.behaviour.recognise() if any(pcm) else None

    async def _approve(self, item: Item) -> None:
        call = self._session.servers.answered(item.fields["approval_request_id"])
        if call is None:
            return
        if item.fields["approve"]:
            output = f"{call.name} is done."
            self._approved.append(
                McpCall(call.server_label, call.name, call.arguments, call.call_id, output, call.approval_id)
            )
            await self._session.behaviour.tool_result(call.call_id, output, respond=False)
        else:
            reason = item.fields.get("reason") or "it was not allowed"
            await self._session.behaviour.tool_result(call.call_id, reason, is_error=True, respond=False)

    # -- responses ------------------------------------------------------------------------------

    def read(self, response: Mapping[str, Any]) -> Request:
        """Check what is asked for. Raises Refused."""
        session = self._session
        is_default = response.get("conversation") != "none"
        active = session.behaviour.response
        if is_default and active is not None:
            raise Refused(
                "Conversation already has an active response in progress: "
                f"{active.response_id}. Wait until the response is finished before creating a new one.",
                "conversation_already_has_active_response",
            )
        tools = response.get("tools")
        choice = response.get("tool_choice")
        declared = session.session["tools"] if tools is None else tools
        config.check_tool_choice(choice, declared, "response.tool_choice")
        said = (response.get("audio") or {}).get("output") or {}
        if said.get("voice") is not None:
            path = "response.audio.output.voice"
            voice = config.checked_voice(said["voice"], self._profile, path, session.session["model"])
            now = session.session["audio"]["output"]["voice"]
            if session.has_spoken and is_default and voice != now:
                raise Refused(
                    "Cannot update a conversation's voice if assistant audio is present.",
                    "cannot_update_voice",
                    "response.audio.output.voice",
                )
        settings = config.overridden(
            session.behaviour.settings, response, self._profile, session.remote_tools
        )
        given = response.get("input")
        items = None if given is None else [self._input(item, n) for n, item in enumerate(given)]
        approved: Sequence[McpCall] = ()
        if is_default:
            approved, self._approved = self._approved, []
        return Request(response, items, settings, approved)

    def _input(self, given: Mapping[str, Any], n: int) -> Item:
        if given["type"] != "item_reference":
            return self._item(given, f"response.input[{n}]")
        found = self._session.conversation.find(given["id"])
        if found is None:
            raise Refused(
                f"Error creating response: the item with id '{given['id']}' does not exist.",
                "invalid_value",
                f"response.input[{n}].id",
            )
        return found

    async def respond(self, request: Request) -> None:
        """Answer a request as soon as it may be."""
        behaviour = self._session.behaviour
        response = request.response
        if request.is_default:
            has_new_text, self._has_new_text = self._has_new_text, False
            is_swallowed, self._is_swallowed = self._is_swallowed, False
            if is_swallowed or (has_new_text and not await behaviour.turn_complete()):
                return
        items = self._session.conversation if request.input is None else request.input
        call_id, last = _last_asked(items, self._session.servers.call_ids)
        earlier = [item.text for item in items if item.role == "user" and item.text]
        text = last.text if last is not None else ""
        is_beside = not request.is_default
        instructions = response.get("instructions")
        if instructions and (not earlier or (is_beside and request.input is None)):
            text = instructions
        # A choice that this very request forces is a call, whatever results wait for words.
        is_forced = response.get("tool_choice") not in (None, "auto", "none")
        ask = Ask(
            text=text,
            earlier=earlier[:-1],
            after_call="" if is_forced else call_id,
            settings=request.settings,
            is_beside=is_beside,
            tag=request,
        )
        is_silent = last is not None and not text and last.audio_ms > 0
        ordered = _SAY.search(instructions or "")
        if ordered is not None and not is_forced:
            await behaviour.say(ordered[1], ask)
        elif is_silent and not ask.after_call and not is_forced:
            await behaviour.say_nothing_heard(ask)
        else:
            await behaviour.respond("request", ask)


def _last_asked(items: Iterable[Item], call_ids: Mapping[str, str]) -> tuple[str, Item | None]:
    """Return the call whose result came last, if nobody spoke after it, and what the user said last.

    Args:
        call_ids: Of calls that had to be allowed, by the id of the request for it.
    """
    call_id = ""
    for item in reversed(list(items)):
        if item.kind == "function_call_output" and not call_id:
            call_id = item.fields["call_id"]
        if item.kind == "mcp_approval_response" and not call_id:
            call_id = call_ids.get(item.fields["approval_request_id"], "")
        if item.role == "user":
            return call_id, item
    return call_id, None


def _check_image(part: Mapping[str, Any], param: str) -> None:
    url = part.get("image_url")
    if not isinstance(url, str) or not url.startswith(_IMAGES):
        raise Refused(
            f"Invalid '{param}'. Expected a base64-encoded data URL of a PNG, JPEG or WebP image.",
            "invalid_value",
            param,
        )
