"""What the emulator shows of a session, judged by the official SDK's types; what it takes, by their requests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import assume, given
from openai.types.realtime.realtime_session_create_request import RealtimeSessionCreateRequest
from openai.types.realtime.realtime_transcription_session_create_request import (
    RealtimeTranscriptionSessionCreateRequest,
)

from tests.plugins.mock.emulators import ask
from tests.plugins.openai.emulating import TOOL, emulating, wired
from tests.plugins.openai.sdk_strategies import client_event
from tests.plugins.openai.sdk_types import (
    SERVER_TYPES,
    check_client,
    check_secret,
    check_session,
    fields_of,
    is_object,
    members,
    problems,
)
from voxengine_openai.emulator.config import OPENAI, initial, merged, shown
from voxengine_openai.emulator.errors import Refused

LOGPROBS = "item.input_audio_transcription.logprobs"
SERVER_VAD: dict[str, Any] = {
    "type": "server_vad",
    "threshold": 0.6,
    "prefix_padding_ms": 200,
    "silence_duration_ms": 400,
    "idle_timeout_ms": 6000,
    "create_response": False,
    "interrupt_response": False,
}
SEMANTIC_VAD: dict[str, Any] = {
    "type": "semantic_vad",
    "eagerness": "low",
    "create_response": False,
    "interrupt_response": False,
}
HEARD: dict[str, Any] = {
    "format": {"type": "audio/pcm", "rate": 24000},
    "noise_reduction": {"type": "near_field", "strength": 0.4},
    "transcription": {
        "model": "gpt-4o-transcribe",
        "language": "en",
        "languages": ["en"],
        "prompt": "Names of towns.",
        "keywords": ["Lisbon"],
    },
    "turn_detection": SERVER_VAD,
}
EVERYTHING: dict[str, Any] = {
    "type": "realtime",
    "model": "gpt-realtime-2.1",
    "audio": {
        "input": HEARD,
        "output": {"format": {"type": "audio/pcmu"}, "speed": 1.2, "voice": {"id": "voice_1"}},
    },
    "include": [LOGPROBS],
    "instructions": "Be brief.",
    "max_output_tokens": 100,
    "output_modalities": ["text"],
    "parallel_tool_calls": True,
    "prompt": {"id": "pmpt_1", "version": "2", "variables": {"a": "b"}},
    "reasoning": {"effort": "low"},
    "tool_choice": {"type": "function", "name": TOOL["name"]},
    "tools": [TOOL],
    "tracing": {"workflow_name": "w", "group_id": "g", "metadata": {"a": 1}},
    "truncation": {
        "type": "retention_ratio",
        "retention_ratio": 0.5,
        "token_limits": {"post_instructions": 500},
    },
}
"""Every key that a client can set, but for one in DELAYED."""
TRANSCRIPTION: dict[str, Any] = {"type": "transcription", "audio": {"input": HEARD}, "include": [LOGPROBS]}
BY_WORDS: dict[str, Any] = {
    "type": "transcription",
    "audio": {"input": {"turn_detection": SEMANTIC_VAD, "transcription": {"model": "whisper-1"}}},
}
WITHOUT: dict[str, Any] = {"type": "transcription", "audio": {"input": {"turn_detection": None}}}
DELAYED: dict[str, Any] = {
    "type": "transcription",
    "audio": {
        "input": {
            "turn_detection": None,
            "transcription": {"model": "gpt-realtime-whisper", "delay": "low"},
        }
    },
}
"""What goes with no turn detection, and so not with the others."""
SESSIONS = [
    EVERYTHING,
    TRANSCRIPTION,
    BY_WORDS,
    WITHOUT,
    DELAYED,
    {"type": "realtime"},
    {"type": "transcription"},
]


def untried(value: Mapping[str, Any], cls: Any, path: str) -> list[str]:
    """The fields of a type, and of the objects in it, that a value has not."""
    found = []
    for name, (annotation, _) in fields_of(cls).items():
        inner = [kind for kind in members(annotation) if is_object(kind)]
        if name not in value:
            found.append(f"{path}.{name}")
        elif len(inner) == 1 and isinstance(value[name], Mapping):
            found += untried(value[name], inner[0], f"{path}.{name}")
    return found


@pytest.mark.parametrize(
    ("session", "cls"),
    [
        (EVERYTHING, RealtimeSessionCreateRequest),
        (TRANSCRIPTION, RealtimeTranscriptionSessionCreateRequest),
    ],
)
def test_no_key_that_a_client_can_set_is_missing_below(session: dict[str, Any], cls: Any) -> None:
    assert untried(session, cls, "session") == ["session.audio.input.transcription.delay"]


@pytest.mark.parametrize("session", SESSIONS)
async def test_an_update_of_any_session_is_answered_as_the_types_say(session: dict[str, Any]) -> None:
    event = {"type": "session.update", "session": session}
    path = "/v1/realtime" + (
        "?intent=transcription" if session["type"] == "transcription" else "?model=gpt-realtime"
    )
    check_client(json.dumps(event))

    async with emulating() as server, wired(server, path) as wire:
        await wire.send("session.update", session=session)
        updated = await wire.last("session.updated")

    heard = updated["session"]["audio"]["input"]
    asked = session.get("audio", {}).get("input", {}).get("turn_detection", SERVER_VAD)
    assert updated["session"]["type"] == session["type"]
    assert (heard["turn_detection"] or {}).get("type") == (asked or {}).get("type")


@pytest.mark.parametrize("session", SESSIONS)
async def test_a_session_has_three_fields_that_the_type_of_its_event_lacks_and_no_more(
    session: dict[str, Any],
) -> None:
    kind = session["type"]
    path = "/v1/realtime" + ("?intent=transcription" if kind == "transcription" else "?model=gpt-realtime")

    async with emulating() as server, wired(server, path) as wire:
        await wire.send("session.update", session=session)
        updated = await wire.last("session.updated")

    (created, *_) = wire.seen
    for event in (created, updated):
        found = {problem.partition(":")[0] for problem in problems(event, SERVER_TYPES[event["type"]])}
        assert found == {"session.id", "session.object", "session.expires_at"}


@pytest.mark.parametrize("session", SESSIONS)
async def test_a_client_secret_shows_its_session_as_the_types_say(session: dict[str, Any]) -> None:
    body = json.dumps({"session": session}).encode()
    head = "POST /v1/realtime/client_secrets HTTP/1.1\r\nAuthorization: Bearer sk-drive\r\n"

    async with emulating() as server:
        status, _, answer = await ask(server, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        secret = check_secret(answer)
        headers = {"Authorization": f"Bearer {secret['value']}"}
        async with wired(server, "/v1/realtime", headers=headers) as wire:
            (created,) = wire.seen

    assert status == 200
    assert created["session"]["audio"] == secret["session"]["audio"]
    assert ("expires_at" in secret["session"]) is (session["type"] == "realtime")


@given(client_event("session.update"))
def test_whatever_an_update_leaves_is_shown_as_the_types_say(event: dict[str, Any]) -> None:
    changes = event["session"]
    session = initial(changes["type"], "sess_1", "gpt-realtime", 0)
    try:
        after = merged(session, changes, OPENAI, has_spoken=False)
    except Refused:
        assume(False)
        raise

    check_session(shown(after))


def test_what_is_not_shown_stays_in_force() -> None:
    session = initial("transcription", "sess_1", "", 0)

    after = merged(session, TRANSCRIPTION, OPENAI, has_spoken=False)

    assert after["audio"]["input"]["turn_detection"] == SERVER_VAD
    assert set(shown(after)["audio"]["input"]["turn_detection"]) == {
        "type",
        "threshold",
        "prefix_padding_ms",
        "silence_duration_ms",
    }
