"""The emulator's sessions: how settings merge, what keys open them, how they end, and the dialects."""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.plugins.mock.emulators import ask, upgrade
from tests.plugins.openai.emulating import (
    LIMIT_S,
    TEXT,
    TOOL,
    Wire,
    emulating,
    names,
    spoken,
    text_of,
    wired,
)
from voxengine.audio import g711
from voxengine.audio.format import Encoding
from voxengine.errors import ConfigError
from voxengine.testing import leak_check
from voxengine.testing.emulator import HttpRequest, find_emulator
from voxengine_openai.emulator import OpenAIEmulator
from voxengine_openai.emulator.config import OPENAI, Profile, initial, merged
from voxengine_openai.emulator.secrets import ClientSecrets

KEYS = {
    "type",
    "object",
    "id",
    "model",
    "output_modalities",
    "instructions",
    "tools",
    "tool_choice",
    "max_output_tokens",
    "tracing",
    "truncation",
    "prompt",
    "expires_at",
    "audio",
    "include",
}


def merge(session: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return merged(session, changes, OPENAI, has_spoken=False)


def new_session() -> dict[str, Any]:
    return initial("realtime", "sess_1", "gpt-realtime", 0)


def test_a_session_has_the_keys_of_the_service() -> None:
    assert set(new_session()) == KEYS


def test_an_absent_field_keeps_its_value_at_every_level() -> None:
    session = merge(new_session(), instructions="Be brief.", audio={"input": {"turn_detection": None}})
    session = merge(session, audio={"input": {"noise_reduction": {"type": "near_field"}}})
    session = merge(
        session, audio={"input": {"noise_reduction": {"strength": 0.5}}, "output": {"speed": 1.2}}
    )

    heard, said = session["audio"]["input"], session["audio"]["output"]
    assert session["instructions"] == "Be brief."
    assert heard["turn_detection"] is None
    assert heard["noise_reduction"] == {"type": "near_field", "strength": 0.5}
    assert (said["speed"], said["voice"]) == (1.2, "alloy")


def test_null_brings_a_default_back_and_an_empty_value_stays() -> None:
    session = merge(new_session(), instructions="", tools=[TOOL], max_output_tokens=5)
    cleared = merge(session, tools=None, max_output_tokens=None, audio={"input": {"format": None}})

    assert session["instructions"] == ""
    assert (cleared["tools"], cleared["max_output_tokens"]) == ([], "inf")
    assert cleared["audio"] == new_session()["audio"]


def test_another_kind_of_turn_detection_leaves_nothing_of_the_one_before() -> None:
    semantic = merge(
        new_session(), audio={"input": {"turn_detection": {"type": "semantic_vad", "eagerness": "low"}}}
    )
    back = merge(semantic, audio={"input": {"turn_detection": {"type": "server_vad", "threshold": 0.8}}})

    assert semantic["audio"]["input"]["turn_detection"] == {
        "type": "semantic_vad",
        "eagerness": "low",
        "create_response": True,
        "interrupt_response": True,
    }
    assert back["audio"]["input"]["turn_detection"]["threshold"] == 0.8
    assert back["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 500


detections = st.fixed_dictionaries(
    {"type": st.just("server_vad")},
    optional={
        "threshold": st.floats(0, 1),
        "prefix_padding_ms": st.integers(0, 5000),
        "silence_duration_ms": st.integers(0, 5000),
        "create_response": st.booleans(),
    },
)
updates = st.fixed_dictionaries(
    {},
    optional={
        "instructions": st.text(max_size=5) | st.none(),
        "max_output_tokens": st.integers(1, 4096) | st.none(),
        "audio": st.fixed_dictionaries(
            {},
            optional={
                "input": st.fixed_dictionaries(
                    {}, optional={"turn_detection": st.none() | detections, "noise_reduction": st.none()}
                ),
                "output": st.fixed_dictionaries(
                    {}, optional={"voice": st.sampled_from(["ash", "echo"]), "speed": st.floats(0.25, 1.5)}
                ),
            },
        ),
    },
)


@given(updates)
def test_an_update_given_twice_is_an_update_given_once(changes: dict[str, Any]) -> None:
    before = new_session()

    once = merge(before, **changes)

    assert before == new_session()
    assert merge(once, **changes) == once


@given(updates, updates)
def test_the_later_update_wins(first: dict[str, Any], second: dict[str, Any]) -> None:
    session = merge(merge(new_session(), **first), **second)

    for key in ("instructions", "max_output_tokens"):
        if second.get(key) is not None:
            assert session[key] == second[key]
    assert set(session) == KEYS


async def test_g711_goes_in_and_out() -> None:
    script = {"hears": ["good morning all"]}
    async with emulating(script) as server, wired(server) as wire:
        law = {"type": "audio/pcmu"}
        audio = {"input": {"format": law}, "output": {"format": {"type": "audio/pcma"}}}
        await wire.send("session.update", session={"type": "realtime", "audio": audio})
        await wire.last("session.updated")
        pcm = await spoken(rate=8000)
        await wire.append(g711.encode(pcm, Encoding.G711_ULAW), chunk=800)
        events = await wire.until("rate_limits.updated")
        item_id = events[-2]["response"]["output"][0]["id"]
        where = {"item_id": item_id, "content_index": 0}
        await wire.send("conversation.item.truncate", **where, audio_end_ms=10**6)
        error = await wire.error()

    n_bytes = sum(
        len(event["delta"]) // 4 * 3 - event["delta"].count("=")
        for event in events
        if event["type"] == "response.output_audio.delta"
    )
    assert text_of(events) == "You said: good morning all"
    assert f"of {n_bytes // 8}ms" in error["message"]


# -- keys ---------------------------------------------------------------------------------------


async def test_a_browser_brings_its_key_in_a_subprotocol() -> None:
    async with emulating() as server:
        offered: Any = ["realtime", "openai-insecure-api-key.sk-drive", "openai-organization.org"]
        async with wired(server, headers={}, subprotocols=offered) as wire:
            chosen = wire.socket.subprotocol

    assert chosen == "realtime"


def secret_request(key: str = "sk-drive", **body: Any) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST /v1/realtime/client_secrets HTTP/1.1\r\nAuthorization: Bearer {key}\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


async def test_a_client_secret_brings_its_session() -> None:
    session = {"type": "realtime", "model": "gpt-realtime-mini", **TEXT, "tools": [TOOL]}
    async with emulating() as server:
        _, _, body = await ask(server, secret_request(session=session))
        secret = json.loads(body)
        headers = {"Authorization": f"Bearer {secret['value']}"}
        async with wired(server, "/v1/realtime", headers=headers) as wire:
            created = wire.seen[0]["session"]

    same = ("model", "output_modalities", "tools", "audio")
    assert {key: created[key] for key in same} == {key: secret["session"][key] for key in same}
    assert created["model"] == "gpt-realtime-mini"


async def test_a_client_secret_for_transcription() -> None:
    session = {"type": "transcription", "audio": {"input": {"transcription": {"model": "whisper-1"}}}}
    async with emulating() as server:
        _, _, body = await ask(server, secret_request(session=session))
        headers = {"Authorization": f"Bearer {json.loads(body)['value']}"}
        async with wired(server, "/v1/realtime", headers=headers) as wire:
            created = wire.seen[0]["session"]

    assert created["object"] == "realtime.transcription_session"


async def test_a_client_secret_makes_no_other_and_ends() -> None:
    now = [1000.0]
    async with emulating() as server:
        assert isinstance(server.emulator, OpenAIEmulator)
        server.emulator.secrets = ClientSecrets(lambda: now[0])
        _, _, body = await ask(server, secret_request(expires_after={"seconds": 10}))
        value = json.loads(body)["value"]
        key = f"Authorization: Bearer {value}\r\n"
        path = "/v1/realtime?model=gpt-realtime"
        statuses = [(await ask(server, secret_request(key=value)))[0]]
        async with wired(server, path, headers={"Authorization": f"Bearer {value}"}) as wire:
            now[0] = 1010.0
            statuses.append((await ask(server, upgrade(path, key)))[0])
            events = await wire.ask("Hello")

    assert json.loads(body)["expires_at"] == 1010
    assert statuses == [401, 401]
    assert events[-2]["response"]["status"] == "completed"


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"expires_after": {"seconds": 9}}, "invalid_value", "expires_after.seconds"),
        ({"expires_after": {"anchor": "now", "seconds": 60}}, "invalid_value", "expires_after.anchor"),
        ({"sesion": {}}, "unknown_parameter", "sesion"),
        ({"session": {"type": "realtime", "voice": "ash"}}, "unknown_parameter", "session.voice"),
        (
            {"session": {"type": "realtime", "audio": {"output": {"voice": "nova"}}}},
            "invalid_value",
            "session.audio.output.voice",
        ),
    ],
)
async def test_a_wrong_request_for_a_client_secret(body: dict[str, Any], code: str, param: str) -> None:
    async with emulating() as server:
        status, _, answer = await ask(server, secret_request(**body))

    error = json.loads(answer)["error"]
    assert (status, error["code"], error["param"]) == (400, code, param)


# -- the end ------------------------------------------------------------------------------------


async def until_closed(wire: Wire) -> tuple[list[dict[str, Any]], int, str]:
    n_before = len(wire.seen)
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            await wire.next()
    assert closed.value.rcvd is not None
    return wire.seen[n_before:], closed.value.rcvd.code, closed.value.rcvd.reason


async def test_a_session_expires_with_an_error_and_a_close() -> None:
    async with leak_check(), emulating(session_limit_s=0.05) as server, wired(server) as wire:
        events, code, reason = await until_closed(wire)

    assert [event["error"]["code"] for event in events] == ["session_expired"]
    assert (code, reason) == (1001, events[0]["error"]["message"])


async def test_the_script_can_shorten_a_session() -> None:
    async with emulating(faults=["expire at=ready deadline=0.05"]) as server, wired(server) as wire:
        events, code, _ = await until_closed(wire)

    assert [event["error"]["code"] for event in events] == ["session_expired"]
    assert code == 1001


@pytest.mark.parametrize(
    ("fault", "code"),
    [("close at=response:1 code=1011 reason=restart", 1011), ("close at=turn:1 code=1013", 1013)],
)
async def test_faults_of_the_script_close_the_session(fault: str, code: int) -> None:
    async with emulating(faults=[fault]) as server, wired(server) as wire:
        await wire.write("Hello")
        await wire.send("response.create")
        _, closed_with, _ = await until_closed(wire)

    assert closed_with == code


async def test_a_session_that_never_opens_says_nothing() -> None:
    async with emulating(faults=["stall at=ready"]) as server:
        async with wired(server, created=False) as wire:
            await wire.send("session.update", session={"type": "realtime"})
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(wire.next(), 0.1)


async def test_a_client_that_leaves_leaves_nothing() -> None:
    async with leak_check(), emulating(speed=5) as server:
        async with wired(server) as wire:
            await wire.write("Tell me a long story")
            await wire.send("response.create")
            await wire.until("response.output_audio.delta")
        async with asyncio.timeout(LIMIT_S):
            await server.until_open(0)

        assert server.n_open == 0


# -- dialects and other services ----------------------------------------------------------------


async def test_the_compatible_path_takes_any_model_and_key_by_other_ways() -> None:
    async with emulating() as server:
        for path, headers in (
            ("/realtime?model=my-own", {"api-key": "sk-drive"}),
            ("/realtime?api_key=sk-drive", {}),
        ):
            async with wired(server, path, headers=headers) as wire:
                events = await wire.ask("Hello")
            assert events[-2]["response"]["status"] == "completed"


BETA_AUDIO = [
    "response.created",
    "response.output_item.added",
    "conversation.item.created",
    "response.content_part.added",
    "response.audio_transcript.delta",
    "response.audio.delta",
]


async def test_the_beta_dialect_is_spoken_where_it_is_asked_for() -> None:
    headers = {"Authorization": "Bearer sk-drive", "OpenAI-Beta": "realtime=v1"}
    async with emulating() as server:
        async with wired(server, "/realtime?model=m", headers=headers, is_judged=False) as wire:
            created = wire.seen[0]["session"]
            await wire.send("session.update", session={"voice": "sage", "modalities": ["text", "audio"]})
            updated = (await wire.last("session.updated"))["session"]
            content = [{"type": "input_text", "text": "Hello"}]
            item = {"type": "message", "role": "user", "content": content}
            await wire.send("conversation.item.create", item=item)
            await wire.last("conversation.item.created")
            await wire.send("response.create")
            events = await wire.until("response.done")

    assert (created["voice"], created["input_audio_format"]) == ("alloy", "pcm16")
    assert updated["voice"] == "sage"
    assert names(events)[: len(BETA_AUDIO)] == BETA_AUDIO
    assert events[-1]["response"]["output"][0]["content"][0]["type"] == "audio"


async def test_an_error_names_the_field_as_the_dialect_does() -> None:
    headers = {"Authorization": "Bearer sk-drive", "OpenAI-Beta": "realtime=v1"}
    async with emulating() as server:
        async with wired(server, "/realtime?model=m", headers=headers, is_judged=False) as wire:
            await wire.send(
                "conversation.item.create", item={"type": "message", "role": "user", "content": []}
            )
            await wire.last("conversation.item.created")
            await wire.send("response.create")
            await wire.last("response.done")
            await wire.send("session.update", session={"voice": "echo"})
            error = (await wire.last("error"))["error"]

    assert (error["code"], error["param"]) == ("cannot_update_voice", "session.voice")


class OtherEmulator(OpenAIEmulator):
    """As another package makes one: its own path, key and rules."""

    name = "other"
    url_path = "/openai/v1"
    paths = ("/openai/v1/realtime",)

    def profile_of(self, request: HttpRequest) -> Profile:
        return Profile()

    def given_key(self, request: HttpRequest) -> str | None:
        return request.headers.get("api-key")


async def test_another_service_is_a_subclass() -> None:
    async with emulating(emulator=OtherEmulator) as server:
        path = "/openai/v1/realtime?model=my-deployment"
        async with wired(server, path, headers={"api-key": "sk-drive"}) as wire:
            events = await wire.ask("Hello")
        with pytest.raises(InvalidStatus):
            async with wired(server, path):
                pass

    assert events[-2]["response"]["status"] == "completed"


# -- the harness --------------------------------------------------------------------------------


async def test_tls_with_an_authority_of_its_own() -> None:
    async with emulating(tls=True) as server:
        context = await asyncio.to_thread(ssl.create_default_context, cafile=server.ca_file)
        url = f"wss://{server.address}/v1/realtime?model=gpt-realtime"
        key = {"Authorization": "Bearer sk-drive"}
        async with (
            asyncio.timeout(LIMIT_S),
            connect(url, additional_headers=key, ssl=context, proxy=None) as ws,
        ):
            first = json.loads(await ws.recv())

    assert first["type"] == "session.created"


async def test_health_answers_without_a_key() -> None:
    async with emulating() as server:
        status, _, body = await ask(server, b"GET /health HTTP/1.1\r\n\r\n")

    assert (status, json.loads(body)) == (200, {"emulator": "openai", "status": "ready"})


def test_the_emulator_is_found_by_its_name() -> None:
    assert find_emulator("openai") is OpenAIEmulator


def test_without_the_mock_the_way_to_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib
    import importlib.util

    import voxengine_openai.emulator as package

    with monkeypatch.context() as patched:
        patched.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(ConfigError) as missing:
            importlib.reload(package)

    assert str(missing.value).endswith('Try: pip install "voxengine-openai[emulator]"')
    assert "\n" not in str(missing.value)
