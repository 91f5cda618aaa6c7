"""OpenAI's own Python SDK, synchronous, in a thread of its own against the emulator."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from openai import OpenAI
from openai.resources.realtime.realtime import RealtimeConnection

from tests.plugins.openai.emulating import LIMIT_S, TEXT, TOOL, emulating, names, spoken, text_of
from tests.plugins.openai.sdk_types import check_server
from voxengine.testing import leak_check
from voxengine_mock.harness import Server

# The SDK's synchronous client connects without a block, which newer versions of websockets advise against.
pytestmark = pytest.mark.filterwarnings(r"ignore:connect\(\) must be used:DeprecationWarning")


def until(connection: RealtimeConnection, name: str) -> list[Any]:
    found: list[Any] = []
    while not found or found[-1].type != name:
        data = connection.recv_bytes()
        check_server(data)
        found.append(connection.parse_event(data))
    return found


async def in_thread(server: Server, talk: Callable[[RealtimeConnection], Any], **options: Any) -> Any:
    """Hold a conversation with the synchronous client, while the emulator runs on this loop."""

    def run() -> Any:
        with OpenAI(api_key="sk-drive", base_url=f"{server.http_url}/v1", max_retries=0) as client:
            with client.realtime.connect(**(options or {"model": "gpt-realtime"})) as connection:
                until(connection, "session.created")
                return talk(connection)

    # The emulator leaves the block of a test that takes too long, and that ends the thread.
    return await asyncio.wait_for(asyncio.to_thread(run), LIMIT_S)


def write(connection: RealtimeConnection, text: str) -> None:
    item: Any = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    connection.conversation.item.create(item=item)
    until(connection, "conversation.item.done")


async def test_text_a_call_and_its_result() -> None:
    def talk(connection: RealtimeConnection) -> tuple[list[Any], list[Any]]:
        session: Any = {**TEXT, "tools": [TOOL]}
        connection.session.update(session=session)
        until(connection, "session.updated")
        write(connection, "What does get_weather say about Paris?")
        connection.response.create()
        calling = until(connection, "rate_limits.updated")
        call = calling[-2].response.output[0]
        assert json.loads(call.arguments) == {"city": "Paris"}
        item: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
        connection.conversation.item.create(item=item)
        until(connection, "conversation.item.done")
        connection.response.create()
        return calling, until(connection, "rate_limits.updated")

    async with emulating() as server:
        calling, events = await in_thread(server, talk)

    assert calling[-2].response.output[0].name == "get_weather"
    assert text_of(events) == "Get weather says: sunny"


async def test_a_spoken_turn_and_a_cancel() -> None:
    speech = await spoken()

    def talk(connection: RealtimeConnection) -> tuple[list[Any], Any]:
        for at in range(0, len(speech), 4800):
            audio = base64.b64encode(speech[at : at + 4800]).decode()
            connection.input_audio_buffer.append(audio=audio)
        begun = until(connection, "response.output_audio.delta")
        connection.response.cancel()
        return begun, until(connection, "response.done")[-1].response

    async with emulating({"hears": ["tell me a long story"]}, speed=5) as server:
        begun, response = await in_thread(server, talk)

    assert names(begun)[:3] == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
    ]
    assert (response.status, response.status_details.reason) == ("cancelled", "client_cancelled")


async def test_a_manual_turn_an_error_and_items() -> None:
    speech = await spoken()

    def talk(connection: RealtimeConnection) -> dict[str, Any]:
        session: Any = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
        connection.session.update(session=session)
        until(connection, "session.updated")
        connection.input_audio_buffer.commit()
        refused = until(connection, "error")[-1]
        connection.input_audio_buffer.append(audio=base64.b64encode(speech).decode())
        connection.input_audio_buffer.commit()
        added = until(connection, "conversation.item.done")[-1]
        connection.conversation.item.retrieve(item_id=added.item.id)
        found = until(connection, "conversation.item.retrieved")[-1]
        connection.conversation.item.delete(item_id=added.item.id)
        deleted = until(connection, "conversation.item.deleted")[-1]
        connection.input_audio_buffer.clear()
        until(connection, "input_audio_buffer.cleared")
        return {"refused": refused, "found": found, "deleted": deleted}

    async with emulating() as server:
        seen = await in_thread(server, talk)

    assert seen["refused"].error.code == "input_audio_buffer_commit_empty"
    assert base64.b64decode(seen["found"].item.content[0].audio) == speech
    assert seen["deleted"].item_id == seen["found"].item.id


async def test_a_transcription_session() -> None:
    speech = await spoken()

    def talk(connection: RealtimeConnection) -> Any:
        heard = {"input": {"transcription": {"model": "gpt-transcribe"}}}
        session: Any = {"type": "transcription", "audio": heard}
        connection.session.update(session=session)
        until(connection, "session.updated")
        connection.input_audio_buffer.append(audio=base64.b64encode(speech).decode())
        return until(connection, "conversation.item.input_audio_transcription.completed")[-1]

    async with emulating({"hears": ["to whom it may"]}) as server:
        completed = await in_thread(server, talk, extra_query={"intent": "transcription"})

    assert completed.transcript == "to whom it may"
    assert completed.usage.type == "tokens"


async def test_a_client_secret_is_made() -> None:
    def make(server: Server) -> Any:
        with OpenAI(api_key="sk-drive", base_url=f"{server.http_url}/v1", max_retries=0) as client:
            session: Any = {"type": "realtime", "output_modalities": ["text"]}
            return client.realtime.client_secrets.create(session=session)

    async with leak_check(), emulating() as server:
        secret = await asyncio.wait_for(asyncio.to_thread(make, server), LIMIT_S)

    assert secret.value.startswith("ek_")
    assert secret.session.output_modalities == ["text"]
