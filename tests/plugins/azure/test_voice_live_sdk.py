"""The official SDK ``azure-ai-voicelive`` drives the emulator: connect, dialogue, tools, interruption, refusals."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from azure.ai.voicelive.aio import ConnectionError as SdkConnectionError
from azure.ai.voicelive.aio import connect
from azure.ai.voicelive.models import (
    Animation,
    AudioInputTranscriptionOptions,
    AzureCustomVoice,
    AzureSemanticVad,
    AzureStandardVoice,
    FunctionCallOutputItem,
    FunctionTool,
    InputTextContentPart,
    OpenAIVoice,
    RequestSession,
    ServerVad,
    UserMessageItem,
)
from azure.core.credentials import AccessToken, AzureKeyCredential

from tests.plugins.azure.voicelive_types import check_server
from tests.plugins.mock.support import silence, voice_saying
from voxengine_azure.emulator import AzureVoiceLiveEmulator
from voxengine_mock.harness import Server, serve

LIMIT_S = 20.0
TOOL = FunctionTool(
    name="get_weather",
    description="Says what the weather is.",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


class Talk:
    """A session of the SDK. Each event is judged by the SDK's own models before it is looked at."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.seen: list[dict[str, Any]] = []

    async def next(self) -> Any:
        event = await self.connection.recv()
        self.seen.append(check_server(json.dumps(event.as_dict())))
        return event

    async def until(self, name: str) -> list[Any]:
        found: list[Any] = []
        while not found or found[-1].type != name:
            found.append(await self.next())
        return found

    async def last(self, name: str) -> Any:
        return (await self.until(name))[-1]

    async def write(self, text: str) -> None:
        await self.connection.conversation.item.create(
            item=UserMessageItem(content=[InputTextContentPart(text=text)])
        )
        await self.last("conversation.item.created")

    async def ask(self, text: str) -> list[Any]:
        await self.write(text)
        await self.connection.response.create()
        return await self.until("response.done")

    async def append(self, pcm: bytes, chunk: int = 4800) -> None:
        for at in range(0, len(pcm), chunk):
            audio = base64.b64encode(pcm[at : at + chunk]).decode()
            await self.connection.input_audio_buffer.append(audio=audio)


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Server]:
    script = {"delay_ms": 0, **options.pop("script", {})}
    emulator = AzureVoiceLiveEmulator(script=script, speed=options.pop("speed", 500), **options)
    async with serve(emulator) as server:
        yield server


@asynccontextmanager
async def talking(server: Server, credential: Any = None, **options: Any) -> AsyncIterator[Talk]:
    options = {"model": "gpt-realtime", **options}
    async with asyncio.timeout(LIMIT_S):
        async with connect(
            endpoint=server.http_url,
            credential=credential or AzureKeyCredential("sk-drive"),
            **options,
        ) as connection:
            talk = Talk(connection)
            first = await talk.next()
            assert first.type == "session.created"
            yield talk


def short(events: list[Any]) -> list[str]:
    """The names in order, runs of deltas as one."""
    out: list[str] = []
    for event in events:
        name = str(getattr(event.type, "value", event.type))
        if name.endswith(".delta") and out and out[-1].endswith(".delta"):
            continue
        out.append(name)
    return out


async def spoken() -> bytes:
    return await voice_saying("how are you today", 24_000) + silence(700, 24_000)


async def test_session_is_created_and_takes_settings() -> None:
    async with serving() as server, talking(server) as talk:
        await talk.connection.session.update(
            session=RequestSession(
                instructions="Be brief.",
                voice=AzureStandardVoice(name="en-US-AvaNeural", rate="1.2"),
                turn_detection=AzureSemanticVad(languages=["en"], remove_filler_words=True),
                temperature=0.3,
                max_response_output_tokens="inf",
            )
        )
        updated = await talk.last("session.updated")

    session = updated.session
    assert session.voice["name"] == "en-US-AvaNeural"
    assert session.turn_detection["type"] == "azure_semantic_vad"
    assert session.turn_detection["languages"] == ["en"]
    assert session.temperature == 0.3
    assert session.model == "gpt-realtime"


async def test_written_turn_is_answered_in_the_order_of_the_service() -> None:
    async with serving() as server, talking(server) as talk:
        events = await talk.ask("Hello there.")

    assert short(events) == [
        "response.created",
        "response.output_item.added",
        "conversation.item.created",
        "response.content_part.added",
        "response.audio_transcript.delta",
        "response.audio.done",
        "response.audio_transcript.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.done",
    ]
    done = events[-1].response
    assert done.status == "completed"
    assert done.usage.total_tokens == done.usage.input_tokens + done.usage.output_tokens


async def test_spoken_turn_is_transcribed_before_its_answer() -> None:
    async with serving() as server, talking(server, model="gpt-4o") as talk:
        await talk.connection.session.update(
            session=RequestSession(
                input_audio_transcription=AudioInputTranscriptionOptions(model="azure-speech"),
                turn_detection=ServerVad(silence_duration_ms=500),
                include=["item.input_audio_transcription.phrases"],
            )
        )
        await talk.last("session.updated")
        await talk.append(await spoken())
        events = await talk.until("response.done")

    names = [name for name in short(events) if "transcription.delta" not in name]
    assert names[:6] == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.created",
        "conversation.item.input_audio_transcription.completed",
        "response.created",
    ]
    (heard,) = [event for event in events if str(event.type).endswith("transcription.completed")]
    words = [word.text for phrase in heard.phrases for word in phrase.words]
    assert words == heard.transcript.split()


async def test_word_times_and_visemes_come_only_when_asked_for() -> None:
    async with serving() as server, talking(server) as talk:
        plain = await talk.ask("Hello there.")
        await talk.connection.session.update(
            session=RequestSession(
                output_audio_timestamp_types=["word"], animation=Animation(outputs=["viseme_id"])
            )
        )
        await talk.last("session.updated")
        timed = await talk.ask("Hello there.")

    assert not [event for event in plain if "timestamp" in event.type or "animation" in event.type]
    words = [event for event in timed if event.type == "response.audio_timestamp.delta"]
    visemes = [event for event in timed if event.type == "response.animation_viseme.delta"]
    transcript = next(e for e in timed if e.type == "response.audio_transcript.done").transcript
    assert [word.text for word in words] == transcript.split()
    assert [word.audio_offset_ms for word in words] == sorted(word.audio_offset_ms for word in words)
    assert all(0 <= viseme.viseme_id <= 21 for viseme in visemes)
    assert len(visemes) == len(words)


async def test_function_is_called_and_its_result_is_answered() -> None:
    async with serving() as server, talking(server) as talk:
        await talk.connection.session.update(session=RequestSession(tools=[TOOL], tool_choice="auto"))
        await talk.last("session.updated")
        events = await talk.ask("Use get_weather for the city of Lisbon.")
        call = next(e for e in events if e.type == "response.function_call_arguments.done")
        await talk.connection.conversation.item.create(
            item=FunctionCallOutputItem(call_id=call.call_id, output='{"sky": "clear"}')
        )
        await talk.last("conversation.item.created")
        await talk.connection.response.create()
        answer = await talk.until("response.done")

    assert call.name == "get_weather"
    assert "city" in json.loads(call.arguments)
    assert answer[-1].response.status == "completed"


async def test_voice_interrupts_the_answer() -> None:
    async with serving(speed=5) as server, talking(server) as talk:
        await talk.write("Tell me a long story.")
        await talk.connection.response.create()
        await talk.last("response.audio.delta")
        await talk.append(await voice_saying("stop it please", 24_000))
        events = await talk.until("response.done")

    assert any(event.type == "input_audio_buffer.speech_started" for event in events)
    details = events[-1].response.status_details
    assert (events[-1].response.status, details["reason"]) == ("cancelled", "turn_detected")


async def test_answer_is_cancelled_and_truncated() -> None:
    async with serving(speed=5) as server, talking(server) as talk:
        await talk.write("Tell me a long story.")
        await talk.connection.response.create()
        delta = await talk.last("response.audio.delta")
        await talk.connection.response.cancel()
        events = await talk.until("response.done")
        await talk.connection.conversation.item.truncate(
            item_id=delta.item_id, content_index=0, audio_end_ms=10
        )
        truncated = await talk.last("conversation.item.truncated")

    assert events[-1].response.status_details["reason"] == "client_cancelled"
    assert (truncated.item_id, truncated.audio_end_ms) == (delta.item_id, 10)


async def test_new_request_cancels_the_answer_under_way() -> None:
    async with serving(speed=5) as server, talking(server) as talk:
        await talk.write("Tell me a long story.")
        await talk.connection.response.create()
        await talk.last("response.audio.delta")
        await talk.connection.response.create()
        first = await talk.last("response.done")
        await talk.last("response.created")

    assert first.response.status == "cancelled"


async def test_given_text_is_spoken() -> None:
    message = {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": "Welcome aboard."}],
    }
    async with serving() as server, talking(server) as talk:
        await talk.connection.send(
            {"type": "response.create", "response": {"pre_generated_assistant_message": message}}
        )
        events = await talk.until("response.done")

    assert (
        next(e for e in events if e.type == "response.audio_transcript.done").transcript == "Welcome aboard."
    )


async def test_avatar_gets_servers_and_an_answer_to_its_offer() -> None:
    async with serving() as server, talking(server) as talk:
        avatar = {"character": "lisa", "style": "casual-sitting", "customized": False}
        await talk.connection.send({"type": "session.update", "session": {"avatar": avatar}})
        updated = await talk.last("session.updated")
        await talk.connection.send({"type": "session.avatar.connect", "client_sdp": "djA="})
        connecting = await talk.last("session.avatar.connecting")

    assert updated.session.avatar.ice_servers[0].urls
    assert base64.b64decode(connecting.server_sdp).startswith(b"v=0")


@pytest.mark.parametrize(
    ("session", "param"),
    [
        (RequestSession(voice="nobody"), "session.voice"),
        (RequestSession(voice=AzureStandardVoice(name="Jenny")), "session.voice"),
        (RequestSession({"voice": {"type": "azure-custom", "name": "x"}}), "session.voice.endpoint_id"),
        (RequestSession({"turn_detection": {"type": "semantic_vad"}}), "session.turn_detection.type"),
        (RequestSession({"input_audio_format": "mp3"}), "session.input_audio_format"),
        (RequestSession({"speed": 2}), "session.speed"),
    ],
)
async def test_wrong_setting_is_refused_and_the_session_goes_on(session: Any, param: str) -> None:
    async with serving() as server, talking(server) as talk:
        await talk.connection.session.update(session=session)
        error = await talk.last("error")
        events = await talk.ask("Hello there.")

    assert error.error.type == "invalid_request_error"
    assert error.error.param.startswith(param)
    assert events[-1].response.status == "completed"


async def test_custom_voice_is_taken() -> None:
    voice = AzureCustomVoice(name="Contoso", endpoint_id="0000")
    async with serving() as server, talking(server) as talk:
        await talk.connection.session.update(session=RequestSession(voice=voice))
        updated = await talk.last("session.updated")

    assert updated.session.voice["endpoint_id"] == "0000"


async def test_hint_that_has_no_effect_gives_a_warning() -> None:
    options = AudioInputTranscriptionOptions(model="whisper-1", phrase_list=["Lisbon"])
    async with serving() as server, talking(server) as talk:
        await talk.connection.session.update(session=RequestSession(input_audio_transcription=options))
        warning = await talk.last("warning")

    assert warning.warning.code == "phrase_list_ignored"


async def test_warning_is_not_said_again_at_an_update_of_something_else() -> None:
    options = AudioInputTranscriptionOptions(model="whisper-1", phrase_list=["Lisbon"])
    wanted = RequestSession(
        input_audio_transcription=options,
        output_audio_timestamp_types=["word"],
        voice=OpenAIVoice(name="alloy"),
    )
    async with serving() as server, talking(server) as talk:
        await talk.connection.session.update(session=wanted)
        first = await talk.until("session.updated")
        # What was said of the first update comes before anything is said of the next ones.
        await talk.connection.session.update(session=RequestSession(instructions="Be brief."))
        first += await talk.until("session.updated")
        await talk.connection.session.update(session=RequestSession(instructions="Be longer."))
        later = await talk.until("session.updated")

    codes = [event.warning.code for event in first if event.type == "warning"]
    assert codes == ["timestamps_unavailable", "phrase_list_ignored"]
    assert [event.type for event in later] == ["session.updated"]


async def test_blend_shapes_come_without_a_gap_when_asked_for() -> None:
    async with serving() as server, talking(server) as talk:
        await talk.connection.session.update(
            session=RequestSession(animation=Animation(outputs=["blendshapes"]))
        )
        await talk.last("session.updated")
        events = await talk.ask("Hello there.")

    shapes = [event for event in events if event.type == "response.animation_blendshapes.delta"]
    starts = [event.frame_index for event in shapes]
    assert starts == [sum(len(event.frames) for event in shapes[:n]) for n in range(len(shapes))]
    assert shapes
    assert {len(frame) for event in shapes for frame in event.frames} == {55}
    assert [event.type for event in events].count("response.animation_blendshapes.done") == 1


async def test_wrong_key_is_refused() -> None:
    async with serving() as server:
        with pytest.raises(SdkConnectionError, match="401"):
            async with talking(server, AzureKeyCredential("wrong")):
                raise AssertionError("a session opened")


async def test_token_opens_a_session() -> None:
    class Credential:
        async def get_token(self, *scopes: str, **_: Any) -> AccessToken:
            assert scopes == ("https://ai.azure.com/.default",)
            return AccessToken("sk-drive", 2**33)

        async def close(self) -> None:
            return

        async def __aenter__(self) -> Credential:
            return self

        async def __aexit__(self, *_: object) -> None:
            return

    async with serving() as server, talking(server, Credential()) as talk:
        events = await talk.ask("Hello there.")

    assert events[-1].response.status == "completed"


async def test_agent_needs_no_model() -> None:
    async with serving() as server:
        async with talking(server, model=None, agent_name="helper", project_name="desk") as talk:
            events = await talk.ask("Hello there.")

    assert events[-1].response.status == "completed"
