"""The emulator's refusals: in the service's words, with its codes and paths, and the session stays open."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.plugins.mock.emulators import ask, upgrade
from tests.plugins.mock.support import silence
from tests.plugins.openai.emulating import TOOL, Wire, emulating, wired

NOT_BASE64 = {"type": "input_audio_buffer.append", "audio": "%%%"}
ODD = {"type": "input_audio_buffer.append", "audio": base64.b64encode(b"abc").decode()}
PNG = "data:image/png;base64,iVBORw0KGgo="


def update(**session: Any) -> dict[str, Any]:
    return {"type": "session.update", "session": {"type": "realtime", **session}}


def item(**fields: Any) -> dict[str, Any]:
    return {"type": "conversation.item.create", "item": fields}


def message(role: str, *content: dict[str, Any]) -> dict[str, Any]:
    return item(type="message", role=role, content=list(content))


def detection(**fields: Any) -> dict[str, Any]:
    return update(audio={"input": {"turn_detection": {"type": "server_vad", **fields}}})


TEXT = {"type": "input_text", "text": "hello"}
REFUSED: list[tuple[Any, str, str | None]] = [
    ("{", "invalid_json", None),
    ("[]", "invalid_type", None),
    ({"event_id": "e"}, "missing_required_parameter", "type"),
    ({"type": "session.renew"}, "invalid_value", "type"),
    ({"type": "session.update", "session": {}}, "missing_required_parameter", "session.type"),
    (update(input_audio_format="pcm16"), "unknown_parameter", "session.input_audio_format"),
    (update(temperature=0.5), "unknown_parameter", "session.temperature"),
    (update(instructions=5), "invalid_type", "session.instructions"),
    (update(output_modalities=["audio", "text"]), "invalid_value", "session.output_modalities"),
    (update(audio={"output": {"voice": "fable"}}), "invalid_value", "session.audio.output.voice"),
    (update(tool_choice={"type": "function", "name": "x"}), "invalid_value", "session.tool_choice"),
    (
        {"type": "session.update", "session": {"type": "transcription"}},
        "invalid_value",
        "session.type",
    ),
    (
        detection(idle_timeout_ms=10),
        "integer_below_min_value",
        "session.audio.input.turn_detection.idle_timeout_ms",
    ),
    (
        update(audio={"input": {"transcription": {"model": "gpt-realtime-whisper", "delay": "low"}}}),
        "invalid_value",
        "session.audio.input.transcription.delay",
    ),
    (NOT_BASE64, "invalid_value", "audio"),
    (ODD, "invalid_value", "audio"),
    ({"type": "input_audio_buffer.commit"}, "input_audio_buffer_commit_empty", None),
    ({"type": "output_audio_buffer.clear"}, "invalid_value", "type"),
    ({"type": "response.cancel"}, "response_cancel_not_active", None),
    ({"type": "response.cancel", "response_id": "resp_x"}, "response_cancel_not_active", None),
    ({"type": "conversation.item.delete", "item_id": "x"}, "item_delete_invalid_item_id", "item_id"),
    ({"type": "conversation.item.retrieve", "item_id": "x"}, "item_retrieve_invalid_item_id", "item_id"),
    (
        {"type": "conversation.item.truncate", "item_id": "x", "content_index": 0, "audio_end_ms": 1},
        "item_truncate_invalid_item_id",
        "item_id",
    ),
    (
        {**message("user", TEXT), "previous_item_id": "x"},
        "item_create_invalid_previous_item_id",
        "previous_item_id",
    ),
    (
        item(type="function_call_output", call_id="call_x", output=""),
        "invalid_tool_call_id",
        "item.call_id",
    ),
    (
        item(type="mcp_approval_response", id="m", approval_request_id="x", approve=True),
        "invalid_value",
        "item.approval_request_id",
    ),
    (
        item(id="x" * 33, type="message", role="user", content=[TEXT]),
        "string_above_max_length",
        "item.id",
    ),
    (
        message("user", {"type": "input_image", "image_url": "https://host.example/a.png"}),
        "invalid_value",
        "item.content[0].image_url",
    ),
    (
        message("user", {"type": "input_image", "image_url": "data:image/gif;base64,R0lGODlh"}),
        "invalid_value",
        "item.content[0].image_url",
    ),
    (
        message("user", {"type": "input_audio", "audio": "%%"}),
        "invalid_value",
        "item.content[0].audio",
    ),
    (
        {"type": "response.create", "response": {"tool_choice": {"type": "function", "name": "x"}}},
        "invalid_value",
        "response.tool_choice",
    ),
    (
        {"type": "response.create", "response": {"input": [{"type": "item_reference", "id": "x"}]}},
        "invalid_value",
        "response.input[0].id",
    ),
    (
        {"type": "response.create", "response": {"metadata": {"k": "v" * 513}}},
        "string_above_max_length",
        "response.metadata.k",
    ),
]


@pytest.mark.parametrize(("given", "code", "param"), REFUSED)
async def test_what_is_wrong_is_answered_with_an_error_and_nothing_else(
    given: Any, code: str, param: str | None
) -> None:
    async with emulating() as server, wired(server) as wire:
        if isinstance(given, dict):
            given = json.dumps({"event_id": "evt_mine", **given})
        await wire.socket.send(given)
        error = await wire.error()
        await wire.send("input_audio_buffer.clear")
        after = await wire.next()

    assert (error["code"], error["param"]) == (code, param), error["message"]
    assert error["type"] == "invalid_request_error"
    assert error["event_id"] == (
        json.loads(given).get("event_id") if given[0] == "{" and len(given) > 1 else None
    )
    assert after["type"] == "input_audio_buffer.cleared"


async def test_a_refused_update_changes_nothing() -> None:
    async with emulating() as server, wired(server) as wire:
        await wire.send("session.update", session={"type": "realtime", "instructions": "A."})
        before = (await wire.last("session.updated"))["session"]
        await wire.socket.send(json.dumps(update(instructions="B.", audio={"output": {"voice": "onyx"}})))
        await wire.error()
        await wire.send("session.update", session={"type": "realtime"})
        after = (await wire.last("session.updated"))["session"]

    assert after == before


async def test_the_voice_is_fixed_once_it_was_heard() -> None:
    async with emulating() as server, wired(server) as wire:
        await wire.send(
            "session.update", session={"type": "realtime", "audio": {"output": {"voice": "marin"}}}
        )
        changed = await wire.last("session.updated")
        await wire.ask("Hello")
        await wire.send("session.update", session={"type": "realtime", "audio": {"output": {"voice": "ash"}}})
        error = await wire.error()
        await wire.send(
            "session.update", session={"type": "realtime", "audio": {"output": {"voice": "marin"}}}
        )
        same = await wire.next()

    assert changed["session"]["audio"]["output"]["voice"] == "marin"
    assert error["code"] == "cannot_update_voice"
    assert same["type"] == "session.updated"


async def test_a_second_response_names_the_first() -> None:
    async with emulating(speed=5) as server, wired(server) as wire:
        await wire.write("Tell me a long story")
        await wire.send("response.create")
        created = await wire.last("response.created")
        await wire.send("response.create", event_id="evt_2")
        error = (await wire.last("error"))["error"]

    assert error["code"] == "conversation_already_has_active_response"
    assert created["response"]["id"] in error["message"]
    assert error["event_id"] == "evt_2"


async def test_only_spoken_answers_can_be_truncated() -> None:
    async with emulating() as server, wired(server) as wire:
        mine = await wire.write("Hello")
        await wire.send("response.create", response={"output_modalities": ["text"]})
        written = (await wire.last("response.done"))["response"]["output"][0]
        await wire.next()
        codes = []
        for item_id, index in ((mine["id"], 0), (written["id"], 0), (written["id"], 1)):
            where = {"item_id": item_id, "content_index": index, "audio_end_ms": 0}
            await wire.send("conversation.item.truncate", **where)
            codes.append((await wire.error())["param"])

    assert codes == ["item_id", "content_index", "content_index"]


async def test_an_unknown_model_opens_and_fails_with_each_response() -> None:
    async with emulating() as server, wired(server, "/v1/realtime?model=gpt-4o") as wire:
        events = await wire.ask("Hello")

    response = events[-2]["response"]
    assert [event["type"] for event in events] == ["response.created", "response.done", "rate_limits.updated"]
    assert response["status_details"]["error"]["code"] == "model_not_found"


REFUSED_AT_START: list[tuple[str, dict[str, str], str]] = [
    ("/v1/realtime", {}, "missing_model"),
    ("/v1/realtime?model=gpt-realtime", {"OpenAI-Beta": "realtime=v1"}, "beta_api_shape_disabled"),
]


@pytest.mark.parametrize(("path", "headers", "code"), REFUSED_AT_START)
async def test_a_session_that_is_not_to_be_is_told_why_and_closed(
    path: str, headers: dict[str, str], code: str
) -> None:
    key = {"Authorization": "Bearer sk-drive"}
    async with emulating() as server, wired(server, path, headers={**key, **headers}, created=False) as wire:
        error = await wire.error()
        with pytest.raises(ConnectionClosed) as closed:
            await wire.next()

    assert error["code"] == code
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4000, f"invalid_request_error.{code}")


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer sk-no"}, {"api-key": "sk-drive"}])
async def test_a_wrong_key_is_refused_at_the_hand_shake(headers: dict[str, str]) -> None:
    async with emulating() as server:
        with pytest.raises(InvalidStatus) as refused:
            async with wired(server, headers=headers):
                pass

    error = json.loads(refused.value.response.body)["error"]
    assert refused.value.response.status_code == 401
    assert (error["code"], error["type"], error["param"]) == (
        "invalid_api_key",
        "invalid_request_error",
        None,
    )


async def test_other_refusals_of_the_hand_shake_have_the_service_s_codes() -> None:
    faults = ["429 at=handshake retry_after=2", "quota", "503", "403"]
    async with emulating(faults=faults) as server:
        answers = [await ask(server, upgrade("/v1/realtime?model=gpt-realtime")) for _ in faults]

    assert [(status, json.loads(body)["error"]["code"]) for status, _, body in answers] == [
        (429, "rate_limit_exceeded"),
        (429, "insufficient_quota"),
        (503, "server_error"),
        (403, "permission_denied"),
    ]
    assert answers[0][1]["retry-after"] == "2"


async def test_an_error_of_the_script_takes_the_place_of_the_answer() -> None:
    async with emulating(faults=["error at=turn:1 code=rate_limit retry_after=3"]) as server:
        async with wired(server) as wire:
            await wire.write("Hello")
            await wire.send("response.create")
            error = await wire.error()
            answer = await wire.ask("Hello again")

    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert error["message"].endswith("Please try again in 3s.")
    assert answer[-2]["response"]["status"] == "completed"


async def test_a_refused_manual_turn_is_not_answered_either() -> None:
    async with emulating(faults=["error at=turn:1 code=unavailable"]) as server, wired(server) as wire:
        await wire.send(
            "session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": None}}}
        )
        await wire.last("session.updated")
        await wire.append(silence(200))
        await wire.send("input_audio_buffer.commit")
        error = (await wire.last("error"))["error"]
        await wire.send("response.create")
        answer = await wire.ask("Hello")

    assert error["code"] == "server_error"
    assert answer[0]["type"] == "response.created"
    assert len([e for e in wire.seen if e["type"] == "response.created"]) == 1


async def test_a_response_may_fail_in_the_middle() -> None:
    faults = ["error at=response:1:after_audio_ms=300 code=unavailable"]
    async with emulating(faults=faults) as server, wired(server) as wire:
        response = (await wire.ask("Hello you"))[-2]["response"]

    assert response["status"] == "failed"
    assert response["status_details"]["error"]["code"] == "server_error"
    assert response["output"][0]["status"] == "incomplete"


async def test_enormous_audio_is_refused_and_the_session_goes_on() -> None:
    async with emulating() as server, wired(server) as wire:
        await wire.append(bytes(15 * 2**20 + 2), chunk=2**24)
        error = await wire.error()
        answer = await wire.ask("Hello")

    assert (error["code"], error["param"]) == ("string_above_max_length", "audio")
    assert answer[-2]["response"]["status"] == "completed"


async def refused_items(wire: Wire, role: str, content: list[dict[str, Any]]) -> str:
    await wire.send("conversation.item.create", item={"type": "message", "role": role, "content": content})
    return str((await wire.error())["code"])


async def test_a_role_has_its_kinds_of_content() -> None:
    async with emulating() as server, wired(server) as wire:
        codes = [
            await refused_items(wire, "assistant", [{"type": "output_audio", "transcript": "x"}]),
            await refused_items(wire, "system", [{"type": "input_image", "image_url": PNG}]),
        ]

    assert codes == ["invalid_value", "invalid_value"]


async def test_a_declared_tool_can_be_chosen_for_one_response() -> None:
    async with emulating() as server, wired(server) as wire:
        events = await wire.ask("Hi", tools=[TOOL], tool_choice={"type": "function", "name": "get_weather"})

    assert events[-2]["response"]["output"][0]["name"] == "get_weather"


async def test_the_refusal_of_an_image_names_each_format_that_is_taken() -> None:
    def image(kind: str) -> dict[str, Any]:
        part = {"type": "input_image", "image_url": f"data:image/{kind};base64,AAAA"}
        return {"type": "message", "role": "user", "content": [part]}

    async with emulating() as server, wired(server) as wire:
        await wire.send("conversation.item.create", item=image("gif"))
        refused = await wire.error()
        for kind in ("png", "jpeg", "webp"):
            await wire.send("conversation.item.create", item=image(kind))
            await wire.last("conversation.item.done")

    assert refused["message"].endswith("of a PNG, JPEG or WebP image.")
