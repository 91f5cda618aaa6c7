"""OpenAI's own Python SDK, asynchronous, against the emulator: every scenario over a loopback socket."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from openai import AuthenticationError

from tests.plugins.mock.support import silence, voice_saying
from tests.plugins.openai.emulating import (
    LIMIT_S,
    TEXT,
    TOOL,
    audio_of,
    client_of,
    emulating,
    names,
    sdk,
    short,
    spoken,
    text_of,
)
from voxengine.testing import leak_check

TEXT_ANSWER = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
    "rate_limits.updated",
]
AUDIO_ANSWER = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "response.output_audio_transcript.delta",
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
    "rate_limits.updated",
]
CLOSING = [
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
    "rate_limits.updated",
]
CALL = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
    "rate_limits.updated",
]


async def test_a_text_answer() -> None:
    async with leak_check(), emulating({"responses": {"Hello": "Hi there!"}}) as server:
        async with sdk(server) as talk:
            await talk.connection.session.update(session=TEXT)
            updated = await talk.last("session.updated")
            events = await talk.ask("Hello")

    done = events[-2].response
    assert updated.session.output_modalities == ["text"]
    assert names(events) == TEXT_ANSWER
    assert text_of(events) == "Hi there!"
    assert (done.status, done.output[0].content[0].text) == ("completed", "Hi there!")


async def test_an_audio_answer() -> None:
    async with emulating({"responses": {"Hello": "Hi there!"}}) as server, sdk(server) as talk:
        events = await talk.ask("Hello")

    done = events[-2].response
    n_ms = len(audio_of(events)) // 48
    assert short(events) == AUDIO_ANSWER
    assert text_of(events) == "Hi there!"
    assert n_ms > 400
    assert done.usage.output_token_details.audio_tokens == round(n_ms / 50)
    assert done.usage.total_tokens == done.usage.input_tokens + done.usage.output_tokens


async def test_a_spoken_turn_with_its_transcript() -> None:
    script = {"hears": ["what is the time"], "responses": {"*time*": "Noon."}}
    async with emulating(script) as server, sdk(server) as talk:
        transcription = {"model": "gpt-4o-transcribe"}
        session = {"type": "realtime", "audio": {"input": {"transcription": transcription}}}
        await talk.connection.session.update(session=session)
        await talk.last("session.updated")
        await talk.append(await spoken())
        events = await talk.until("rate_limits.updated")

    order = names(events)
    user = next(e for e in events if e.type == "conversation.item.added").item
    completed = next(e for e in events if e.type.endswith("transcription.completed"))
    deltas = [e.delta for e in events if e.type.endswith("input_audio_transcription.delta")]
    assert order[:5] == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ]
    assert {e.item_id for e in events[:3]} == {user.id} == {completed.item_id}
    assert (user.content[0].type, user.content[0].transcript) == ("input_audio", None)
    assert "".join(deltas) == completed.transcript == "what is the time"
    assert text_of(events) == "Noon."


async def test_a_manual_commit_waits_for_the_request() -> None:
    async with emulating({"hears": ["good morning all"]}) as server, sdk(server) as talk:
        off = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
        await talk.connection.session.update(session=off)
        await talk.last("session.updated")
        await talk.append(await voice_saying("good morning"))
        await talk.connection.input_audio_buffer.commit()
        committed = await talk.until("conversation.item.done")
        await talk.connection.response.create()
        events = await talk.until("response.done")

    assert names(committed) == [
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ]
    assert text_of(events) == "You said: good morning all"


async def test_the_buffer_is_cleared_and_too_little_is_no_item() -> None:
    async with emulating() as server, sdk(server) as talk:
        await talk.connection.input_audio_buffer.append(audio=base64.b64encode(silence(99)).decode())
        await talk.connection.input_audio_buffer.commit(event_id="evt_short")
        short_one = await talk.next()
        await talk.connection.input_audio_buffer.clear()
        cleared = await talk.next()

    assert short_one.error.code == "input_audio_buffer_commit_empty"
    assert "99.00ms" in short_one.error.message
    assert short_one.error.event_id == "evt_short"
    assert cleared.type == "input_audio_buffer.cleared"


async def test_a_function_is_called_and_its_result_is_told() -> None:
    script = {
        "responses": {
            "*weather*": {"tool": "get_weather", "arguments": {"city": "Oslo"}, "then": "It is {result.sky}."}
        }
    }
    async with emulating(script) as server, sdk(server) as talk:
        await talk.connection.session.update(session={**TEXT, "tools": [TOOL]})
        await talk.last("session.updated")
        calling = await talk.ask("How is the weather?")
        call = calling[-2].response.output[0]
        output = {"type": "function_call_output", "call_id": call.call_id, "output": '{"sky": "blue"}'}
        await talk.connection.conversation.item.create(item=output)
        added = await talk.until("conversation.item.done")
        await talk.connection.response.create()
        events = await talk.until("response.done")

    done = next(e for e in calling if e.type == "response.function_call_arguments.done")
    deltas = [e.delta for e in calling if e.type == "response.function_call_arguments.delta"]
    assert names(calling) == CALL
    assert (call.type, call.name, json.loads(call.arguments)) == (
        "function_call",
        "get_weather",
        {"city": "Oslo"},
    )
    assert "".join(deltas) == done.arguments == call.arguments
    assert (done.name, done.call_id) == ("get_weather", call.call_id)
    assert names(added) == ["conversation.item.added", "conversation.item.done"]
    assert text_of(events) == "It is blue."


async def test_calls_at_the_same_time_after_some_words() -> None:
    calls = [{"tool": "get_weather", "arguments": {"city": city}} for city in ("Rome", "Bonn")]
    script = {
        "responses": {"*": {"say": "One moment.", "calls": calls, "then": "{result_1} and {result_2}."}}
    }
    async with emulating(script) as server, sdk(server) as talk:
        await talk.connection.session.update(session={**TEXT, "tools": [TOOL]})
        await talk.last("session.updated")
        calling = await talk.ask("Compare them")
        message, *made = calling[-2].response.output
        for call, result in zip(made, ("sun", "rain"), strict=True):
            item = {"type": "function_call_output", "call_id": call.call_id, "output": result}
            await talk.connection.conversation.item.create(item=item)
            await talk.last("conversation.item.done")
        await talk.connection.response.create()
        events = await talk.until("response.done")

    assert message.content[0].text == "One moment."
    assert [json.loads(call.arguments)["city"] for call in made] == ["Rome", "Bonn"]
    assert [e.output_index for e in calling if e.type == "response.output_item.added"] == [0, 1, 2]
    assert text_of(events) == "sun and rain."


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "get_weather"}])
async def test_a_forced_choice_always_is_a_call(choice: Any) -> None:
    async with emulating() as server, sdk(server) as talk:
        await talk.write("Good morning")
        await talk.connection.response.create(response={"tools": [TOOL], "tool_choice": choice})
        events = await talk.until("response.done")

    (item,) = events[-1].response.output
    assert (item.type, item.name, events[-1].response.status) == ("function_call", "get_weather", "completed")


async def test_a_text_that_names_a_declared_tool_calls_it() -> None:
    async with emulating() as server, sdk(server) as talk:
        await talk.connection.session.update(session={"type": "realtime", "tools": [TOOL]})
        await talk.last("session.updated")
        events = await talk.ask("Use get_weather for Lisbon.")

    (call,) = events[-2].response.output
    assert json.loads(call.arguments) == {"city": "Lisbon"}


async def test_a_response_is_cancelled() -> None:
    async with emulating(speed=5) as server, sdk(server) as talk:
        await talk.write("Tell me a long story")
        await talk.connection.response.create()
        begun = await talk.until("response.output_audio.delta")
        await talk.connection.response.cancel()
        closing = await talk.until("rate_limits.updated")
        await talk.connection.response.cancel(event_id="evt_late")
        late = await talk.next()

    done = closing[-2].response
    tail = [e for e in closing if not e.type.endswith(".delta")]
    assert names(tail) == CLOSING
    assert (done.status, done.output[0].status) == ("cancelled", "incomplete")
    assert done.status_details.to_dict() == {"type": "cancelled", "reason": "client_cancelled"}
    assert done.output[0].content[0].transcript == text_of([*begun, *closing])
    assert (late.error.code, late.error.event_id) == ("response_cancel_not_active", "evt_late")


async def test_barge_in_and_truncation() -> None:
    script = {"hears": ["tell me a long story", "please stop now"]}
    async with emulating(script, speed=5) as server, sdk(server) as talk:
        await talk.append(await spoken())
        begun = await talk.until("response.output_audio.delta")
        await talk.append(await spoken())
        started = await talk.until("input_audio_buffer.speech_started")
        closing = await talk.until("rate_limits.updated")
        item_id = begun[-1].item_id
        n_ms = len(audio_of([*begun, *started, *closing])) // 48
        where = {"item_id": item_id, "content_index": 0}
        await talk.connection.conversation.item.truncate(**where, audio_end_ms=n_ms + 60)
        refused = await talk.last("error")
        await talk.connection.conversation.item.truncate(**where, audio_end_ms=40)
        truncated = await talk.last("conversation.item.truncated")
        await talk.connection.conversation.item.retrieve(item_id=item_id)
        kept = (await talk.last("conversation.item.retrieved")).item

    done = next(e for e in closing if e.type == "response.done").response
    assert done.status_details.to_dict() == {"type": "cancelled", "reason": "turn_detected"}
    assert refused.error.message == f"Audio content of {n_ms}ms is already shorter than {n_ms + 60}ms"
    assert (truncated.item_id, truncated.audio_end_ms) == (item_id, 40)
    assert len(base64.b64decode(kept.content[0].audio)) == 40 * 48
    assert not kept.content[0].transcript


async def test_responses_out_of_band_beside_the_one_of_the_conversation() -> None:
    script = {"responses": {"*colour*": "Blue.", "*animal*": "A cat."}}
    async with emulating(script, speed=5) as server, sdk(server) as talk:
        await talk.write("Tell me a long story")
        await talk.connection.response.create()
        await talk.until("response.output_audio.delta")
        for topic in ("colour", "animal"):
            text = {"type": "input_text", "text": f"Name a {topic}"}
            await talk.connection.response.create(
                response={
                    "conversation": "none",
                    "metadata": {"topic": topic},
                    "output_modalities": ["text"],
                    "input": [{"type": "message", "role": "user", "content": [text]}],
                }
            )
        events: list[Any] = []
        while len([e for e in events if e.type == "response.done"]) < 2:
            events.append(await talk.next())
        await talk.connection.response.create(event_id="evt_second")
        busy = await talk.last("error")
        await talk.connection.response.cancel()
        last = await talk.last("response.done")

    done = {e.response.metadata["topic"]: e.response for e in events if e.type == "response.done"}
    beside = {response.id for response in done.values()}
    assert {topic: r.output[0].content[0].text for topic, r in done.items()} == {
        "colour": "Blue.",
        "animal": "A cat.",
    }
    assert {r.conversation_id for r in done.values()} == {None}
    assert not [e for e in events if e.type.startswith("conversation.")]
    assert busy.error.code == "conversation_already_has_active_response"
    assert last.response.id not in beside


async def test_the_token_cap() -> None:
    async with emulating() as server, sdk(server) as talk:
        words = await talk.ask("Tell me a long story", output_modalities=["text"], max_output_tokens=5)
        speech = await talk.ask("Tell me a long story", max_output_tokens=40)

    for events, limit in ((words, 5), (speech, 40)):
        done = events[-2].response
        assert done.status == "incomplete"
        assert done.status_details.to_dict() == {"type": "incomplete", "reason": "max_output_tokens"}
        assert done.output[0].status == "incomplete"
        assert (done.usage.output_tokens, done.max_output_tokens) == (limit, limit)
    assert text_of(words) == "Once there was a lighthouse"


async def test_a_response_that_fails() -> None:
    faults = ["429 at=response:1 retry_after=2", "error at=response:2 code=content_filter"]
    async with emulating(faults=faults) as server, sdk(server) as talk:
        limited = (await talk.ask("Hello"))[-2].response
        filtered = (await talk.ask("Hello again"))[-2].response
        fine = (await talk.ask("And now"))[-2].response

    assert (limited.status, limited.output) == ("failed", [])
    assert limited.status_details.error.code == "rate_limit_exceeded"
    assert limited.usage.total_tokens == 0
    assert (filtered.status, filtered.status_details.reason) == ("incomplete", "content_filter")
    assert fine.status == "completed"


async def test_the_idle_timeout_runs_on_the_audio() -> None:
    vad = {"type": "server_vad", "idle_timeout_ms": 5000}
    async with emulating() as server, sdk(server) as talk:
        await talk.connection.session.update(
            session={"type": "realtime", "audio": {"input": {"turn_detection": vad}}}
        )
        await talk.last("session.updated")
        answer = await talk.ask("Hello")
        said_ms = len(audio_of(answer)) // 48
        await talk.append(silence(said_ms + 5000))
        idle = await talk.until("conversation.item.done")
        events = await talk.until("response.done")

    assert names(idle) == [
        "input_audio_buffer.timeout_triggered",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ]
    assert (idle[0].audio_start_ms, idle[0].audio_end_ms) == (said_ms, said_ms + 5000)
    assert text_of(events) == "Are you still there?"


async def test_a_transcription_session() -> None:
    script = {"hears": ["one two three"]}
    async with emulating(script) as server, sdk(server, extra_query={"intent": "transcription"}) as talk:
        await talk.connection.session.update(
            session={"type": "transcription", "audio": {"input": {"transcription": {"model": "whisper-1"}}}}
        )
        updated = await talk.last("session.updated")
        await talk.append(await spoken())
        events = await talk.until("conversation.item.input_audio_transcription.completed")
        await talk.connection.response.create()
        refused = await talk.next()

    assert talk.raw[1]["session"]["object"] == "realtime.transcription_session"
    assert updated.session.type == "transcription"
    assert events[-1].transcript == "one two three"
    assert events[-1].usage.type == "duration"
    assert refused.type == "error"


async def test_a_client_secret_opens_sessions_with_its_configuration() -> None:
    async with asyncio.timeout(LIMIT_S), emulating() as server, client_of(server) as client:
        config: Any = {"type": "realtime", "model": "gpt-realtime", "instructions": "Be brief."}
        secret: Any = await client.realtime.client_secrets.create(
            expires_after={"anchor": "created_at", "seconds": 60}, session=config
        )
        async with client_of(server, api_key=secret.value) as guest:
            async with guest.realtime.connect(model="gpt-realtime") as connection:
                created: Any = await connection.recv()

    assert secret.value.startswith("ek_")
    assert secret.session.instructions == created.session.instructions == "Be brief."


async def test_a_wrong_key_is_refused_by_socket_and_by_request() -> None:
    async with asyncio.timeout(LIMIT_S), emulating() as server, client_of(server, api_key="sk-no") as client:
        with pytest.raises(Exception, match="401"):
            async with client.realtime.connect(model="gpt-realtime"):
                pass
        with pytest.raises(AuthenticationError) as refused:
            await client.realtime.client_secrets.create()

    assert refused.value.code == "invalid_api_key"


async def test_items_are_put_in_order_deleted_and_retrieved() -> None:
    async with emulating() as server, sdk(server) as talk:
        item = talk.connection.conversation.item

        async def put(item_id: str, **where: Any) -> Any:
            text = {"type": "input_text", "text": item_id}
            message = {"id": item_id, "type": "message", "role": "user", "content": [text]}
            await item.create(item=message, **where)
            event = await talk.next()
            if event.type == "conversation.item.added":
                await talk.next()
            return event

        first = await put("a")
        front = await put("b", previous_item_id="root")
        after = await put("c", previous_item_id="b")
        unknown = await put("d", previous_item_id="nobody")
        await item.delete(item_id="c")
        deleted = await talk.next()
        await item.retrieve(item_id="c")
        gone = await talk.next()
        await item.retrieve(item_id="a")
        found = await talk.next()

    assert [event.previous_item_id for event in (first, front, after)] == [None, None, "b"]
    assert unknown.error.param == "previous_item_id"
    assert (deleted.type, deleted.item_id) == ("conversation.item.deleted", "c")
    assert gone.error.code == "item_retrieve_invalid_item_id"
    assert found.item.content[0].text == "a"


async def test_an_image_is_counted_as_input() -> None:
    pixel = "data:image/png;base64,iVBORw0KGgo="
    async with emulating() as server, sdk(server) as talk:
        content = [
            {"type": "input_text", "text": "What is that?"},
            {"type": "input_image", "image_url": pixel, "detail": "low"},
        ]
        item = {"type": "message", "role": "user", "content": content}
        await talk.connection.conversation.item.create(item=item)
        await talk.last("conversation.item.done")
        await talk.connection.response.create()
        done = (await talk.last("response.done")).response

    assert done.usage.input_token_details.image_tokens == 85


async def test_what_was_read_before_is_cached() -> None:
    async with emulating() as server, sdk(server) as talk:
        first = (await talk.ask("Hello"))[-2].response.usage
        second = (await talk.ask("Hello again"))[-2].response.usage

    cached = second.input_token_details.cached_tokens_details
    assert first.input_token_details.cached_tokens == 0
    assert second.input_token_details.cached_tokens == cached.text_tokens + cached.audio_tokens
    assert first.input_tokens <= second.input_token_details.cached_tokens < second.input_tokens
    assert second.input_token_details.audio_tokens == first.output_token_details.audio_tokens


async def test_mcp_tools_are_listed_called_and_approved() -> None:
    server_tool = {
        "type": "mcp",
        "server_label": "docs",
        "server_url": "https://docs.example/mcp",
        "allowed_tools": ["search_docs"],
    }
    broken = {"type": "mcp", "server_label": "gone", "server_url": "https://gone.invalid/mcp"}
    async with emulating() as server, sdk(server) as talk:
        await talk.connection.session.update(session={**TEXT, "tools": [server_tool, broken]})
        listing = await talk.until("mcp_list_tools.failed")
        await talk.last("conversation.item.done")
        asking = await talk.ask("Call search docs for audio")
        request = asking[-2].response.output[0]
        answer = {
            "type": "mcp_approval_response",
            "id": "allowed",
            "approval_request_id": request.id,
            "approve": True,
        }
        await talk.connection.conversation.item.create(item=answer)
        await talk.last("conversation.item.done")
        await talk.connection.response.create()
        events = await talk.until("response.done")

    assert names(listing)[1:6] == [
        "conversation.item.added",
        "mcp_list_tools.in_progress",
        "mcp_list_tools.completed",
        "conversation.item.done",
        "conversation.item.added",
    ]
    assert (request.type, request.name, request.server_label) == (
        "mcp_approval_request",
        "search_docs",
        "docs",
    )
    call, message = events[-1].response.output
    assert (call.type, call.approval_request_id) == ("mcp_call", request.id)
    assert names(events)[3:7] == [
        "response.mcp_call_arguments.delta",
        "response.mcp_call_arguments.done",
        "response.mcp_call.in_progress",
        "response.mcp_call.completed",
    ]
    assert call.output in message.content[0].text


async def test_an_mcp_tool_that_needs_no_approval_answers_in_one_response() -> None:
    tool = {"type": "mcp", "server_label": "docs", "server_url": "https://docs.example/mcp"}
    async with emulating() as server, sdk(server) as talk:
        session = {**TEXT, "tools": [{**tool, "require_approval": "never"}]}
        await talk.connection.session.update(session=session)
        await talk.last("conversation.item.done")
        events = await talk.ask("Please lookup the manual")

    call, message = events[-2].response.output
    assert (call.type, call.name, call.output) == ("mcp_call", "lookup", "lookup is done.")
    assert message.content[0].text == "Lookup says: lookup is done."
