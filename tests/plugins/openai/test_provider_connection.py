"""Where a session is opened, with which credentials, and ephemeral keys."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.plugins.openai.peer import DialledCustom, session
from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.errors import (
    AuthenticationFailed,
    ConfigError,
    ProviderError,
    RateLimited,
    RemoteProtocolError,
)
from voxengine.testing import leak_check, virtual
from voxengine_openai import CustomProvider, OpenAIProvider
from voxengine_openai.client_secrets import ClientSecret, create_client_secret
from voxengine_openai.endpoint import Endpoint, custom_endpoint, http_url, openai_endpoint

KEY = "sk-test-0123456789"
VARIABLES = (
    "OPENAI_API_KEY",
    "OPENAI_ORG_ID",
    "OPENAI_PROJECT_ID",
    "OPENAI_BASE_URL",
    "VOXENGINE_CUSTOM_API_KEY",
)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def openai(*, model: str = "gpt-realtime", api_key: str | None = KEY, **metadata: Any) -> Endpoint:
    config = {"api_key": api_key, "metadata": metadata}
    return openai_endpoint(config, model, is_default_model=False)


def custom(*, model: str = "m1", api_key: str | None = KEY, **metadata: Any) -> Endpoint:
    metadata = {"endpoint": "wss://host.example/realtime", **metadata}
    return custom_endpoint({"api_key": api_key, "metadata": metadata}, model, is_beta=False)


@pytest.mark.parametrize(
    ("metadata", "url"),
    [
        ({}, "wss://api.openai.com/v1/realtime?model=gpt-realtime"),
        ({"region": "eu"}, "wss://eu.api.openai.com/v1/realtime?model=gpt-realtime"),
        ({"url": "ws://127.0.0.1:8080/v1"}, "ws://127.0.0.1:8080/v1/realtime?model=gpt-realtime"),
        ({"url": "ws://127.0.0.1:8080"}, "ws://127.0.0.1:8080/v1/realtime?model=gpt-realtime"),
        ({"url": "http://localhost:8080/v1/"}, "ws://localhost:8080/v1/realtime?model=gpt-realtime"),
        ({"url": "https://proxy.example/x"}, "wss://proxy.example/x/realtime?model=gpt-realtime"),
        ({"url": "wss://h.example/v1/realtime?model=other"}, "wss://h.example/v1/realtime?model=other"),
        ({"url": "wss://h.example/v1/realtime?call_id=rtc_1"}, "wss://h.example/v1/realtime?call_id=rtc_1"),
    ],
)
def test_address_is_the_services_or_the_one_given(metadata: dict[str, Any], url: str) -> None:
    assert openai(**metadata).url == url


@pytest.mark.parametrize("url", ["nonsense", "ftp://host/v1", "ws://", "ws://host:port/v1", 7])
def test_address_that_is_none_is_refused(url: Any) -> None:
    with pytest.raises(ConfigError, match="url"):
        openai(url=url)


def test_region_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="region"):
        openai(region="mars")


def test_headers_carry_who_asks() -> None:
    made = openai(organization="org-1", project="proj-1", safety_identifier="user-9", headers={"X-Trace": 7})

    assert made.headers == {
        "Authorization": f"Bearer {KEY}",
        "OpenAI-Organization": "org-1",
        "OpenAI-Project": "proj-1",
        "OpenAI-Safety-Identifier": "user-9",
        "X-Trace": "7",
    }
    assert KEY not in repr(made)


def test_key_comes_from_the_configuration_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-environment\n")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-env")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://gateway.example/v1")

    assert openai().headers["Authorization"] == f"Bearer {KEY}"
    assert openai(api_key=None).headers["Authorization"] == "Bearer sk-from-environment"
    assert openai(organization="org-own").headers["OpenAI-Organization"] == "org-own"
    assert openai().url.startswith("wss://gateway.example/v1/realtime")


def test_missing_key_says_what_to_set() -> None:
    with pytest.raises(AuthenticationFailed, match="OPENAI_API_KEY"):
        openai(api_key=None)
    with pytest.raises(AuthenticationFailed, match="VOXENGINE_CUSTOM_API_KEY"):
        custom(api_key=None)


def test_emulator_on_this_machine_needs_no_key() -> None:
    assert openai(api_key=None, url="ws://127.0.0.1:1/v1").headers["Authorization"] == "Bearer sk-drive"


def test_ephemeral_key_brings_its_own_model() -> None:
    config = {"api_key": "ek_123", "metadata": {}}

    assert "model=" not in openai_endpoint(config, "gpt-realtime", is_default_model=True).url
    assert "model=gpt-realtime" in openai_endpoint(config, "gpt-realtime", is_default_model=False).url


@pytest.mark.parametrize(
    "address", ["ws://host.example/v1", "http://host.example/v1", "ws://127.0.0.1.host.example/v1"]
)
async def test_plain_connection_to_another_machine_is_refused(address: str) -> None:
    for provider in (
        OpenAIProvider({"api_key": KEY, "metadata": {"url": address}}),
        CustomProvider({"api_key": KEY, "metadata": {"endpoint": address}}),
    ):
        with pytest.raises(ConfigError, match="without TLS") as caught:
            await provider.connect()
        assert KEY not in str(caught.value)
        await provider.disconnect()


async def test_authority_file_that_is_none_is_named() -> None:
    provider = OpenAIProvider({"api_key": KEY, "metadata": {"ca_file": "no-such-file.pem"}})

    with pytest.raises(ConfigError, match="ca_file"):
        await provider.connect()


# -- compatible endpoints -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metadata", "headers", "query"),
    [
        ({}, {"Authorization": f"Bearer {KEY}"}, {"model": ["m1"]}),
        ({"auth_type": "api-key"}, {"api-key": KEY}, {"model": ["m1"]}),
        ({"auth_type": "api-key", "auth_name": "X-Key"}, {"X-Key": KEY}, {"model": ["m1"]}),
        ({"auth_type": "query", "auth_name": "token"}, {}, {"model": ["m1"], "token": [KEY]}),
        ({"auth_type": "none"}, {}, {"model": ["m1"]}),
    ],
)
def test_custom_endpoint_takes_the_key_its_way(
    metadata: dict[str, Any], headers: dict[str, str], query: dict[str, list[str]]
) -> None:
    made = custom(**metadata)

    assert made.headers == headers
    assert parse_qs(urlsplit(made.url).query) == query
    assert made.url.startswith("wss://host.example/realtime?")


@pytest.mark.parametrize(
    ("metadata", "match"),
    [
        ({"endpoint": None}, "endpoint"),
        ({"auth_type": "basic"}, "auth_type"),
        ({"auth_name": ""}, "auth_name"),
        ({"headers": "x"}, "headers"),
    ],
)
def test_custom_endpoint_that_is_wrong_is_refused(metadata: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        custom(**metadata)


@virtual
async def test_kind_of_authentication_is_no_secret() -> None:
    metadata = {"endpoint": "wss://host.example/realtime", "auth_type": ["bearer"]}
    with pytest.raises(ConfigError, match="takes 'bearer', 'api-key', 'query' or 'none'"):
        await VoiceEngine(VoiceEngineConfig(provider="custom", api_key=KEY, metadata=metadata)).connect()


def test_unknown_dialect_is_refused() -> None:
    with pytest.raises(ConfigError, match="dialect"):
        CustomProvider({"metadata": {"dialect": "old"}})


@virtual
async def test_custom_endpoint_of_the_users_document_holds_a_conversation() -> None:
    metadata = {"endpoint": "wss://your-api.com/realtime", "auth_type": "bearer", "model": "custom-voice-v1"}

    async with session(kind=DialledCustom, mode="provider", metadata=metadata) as (provider, peer, recorder):
        await provider.send_text("Hello")
        await peer.wait("response.create")

        assert provider.dialled.url == "wss://your-api.com/realtime?model=custom-voice-v1"
        assert not recorder.of("warning")
        assert not provider.capabilities_for(provider.config).cost


@virtual
async def test_error_of_a_custom_endpoint_hides_the_key_of_its_address() -> None:
    metadata = {"endpoint": "ws://127.0.0.1:9/v1", "auth_type": "query"}

    async with session(kind=DialledCustom, api_key=KEY, metadata=metadata) as (_, peer, recorder):
        await peer.say(
            "error", error={"type": "x", "code": f"bad_{KEY}", "message": f"{KEY} is wrong", "param": KEY}
        )
        event = await recorder.wait("error_general")

        assert KEY not in f"{event.data['error']!s} {vars(event.data['error'])}"


# -- ephemeral keys -------------------------------------------------------------------------------


@asynccontextmanager
async def http(status: int, body: Any, headers: str = "") -> AsyncIterator[tuple[str, list[bytes]]]:
    """A web server with one answer."""
    asked: list[bytes] = []
    text = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        asked.append(head + await reader.readexactly(length))
        lines = f"HTTP/1.1 {status} X\r\nContent-Length: {len(text)}\r\n{headers}Connection: close\r\n\r\n"
        writer.write(lines.encode() + text)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", asked


def provider_at(url: str, **config: Any) -> OpenAIProvider:
    return OpenAIProvider({"api_key": KEY, **config, "metadata": {"url": url, **config.get("metadata", {})}})


async def test_ephemeral_key_starts_with_the_configuration() -> None:
    answer: Mapping[str, Any] = {
        "value": "ek_abc",
        "expires_at": 1_800_000_000,
        "session": {"type": "realtime"},
    }
    async with leak_check(), http(200, answer) as (url, asked):
        secret = await provider_at(url, voice="sage", model="gpt-realtime-mini").create_client_secret(
            life_s=60
        )

    head, _, body = asked[0].partition(b"\r\n\r\n")
    content = json.loads(body)
    assert secret == ClientSecret(value="ek_abc", expires_at=1_800_000_000, session={"type": "realtime"})
    assert "ek_abc" not in repr(secret)
    assert head.startswith(b"POST /v1/realtime/client_secrets HTTP/1.1")
    assert f"Authorization: Bearer {KEY}".encode() in head
    assert content["expires_after"] == {"anchor": "created_at", "seconds": 60}
    assert content["session"]["model"] == "gpt-realtime-mini"
    assert content["session"]["audio"]["output"]["voice"] == "sage"


@pytest.mark.parametrize(
    ("status", "body", "headers", "kind", "code"),
    [
        (
            401,
            {"error": {"code": "invalid_api_key", "message": KEY}},
            "",
            AuthenticationFailed,
            "authentication",
        ),
        (403, {"error": {"code": "denied"}}, "", ProviderError, "permission"),
        (404, {}, "", ProviderError, "not_found"),
        (429, {}, "Retry-After: 7\r\n", RateLimited, "rate_limit"),
        (429, {"error": {"code": "insufficient_quota"}}, "", ProviderError, "quota"),
        (302, {}, "Location: http://127.0.0.1:9/\r\n", ProviderError, "invalid_request"),
        (500, {}, "", ProviderError, "unavailable"),
        (200, {"value": 7}, "", RemoteProtocolError, "protocol"),
        (200, b"no json", "", RemoteProtocolError, "protocol"),
    ],
)
async def test_refused_ephemeral_key_has_its_place_in_the_tree(
    status: int, body: Any, headers: str, kind: type, code: str
) -> None:
    async with leak_check(), http(status, body, headers) as (url, asked):
        with pytest.raises(kind) as caught:
            await provider_at(url).create_client_secret()

    assert isinstance(caught.value, ProviderError)
    assert caught.value.code == code
    assert KEY not in str(caught.value)
    assert len(asked) == 1
    if "Retry-After" in headers:
        assert caught.value.retry_after_s == 7


@pytest.mark.parametrize("headers", [{"a b": "c"}, {"a": "b\r\nc: d"}])
async def test_header_that_is_none_is_refused_before_anything_is_asked(headers: dict[str, str]) -> None:
    async with http(200, {}) as (url, asked):
        provider = provider_at(url, metadata={"headers": headers})
        with pytest.raises(ConfigError, match="'a'"):
            await provider.create_client_secret()
        with pytest.raises(ConfigError, match="'a'"):
            await provider.connect()

    assert asked == []


async def test_ephemeral_key_from_nobody_is_worth_a_retry() -> None:
    async with http(200, {}) as (url, _):
        pass

    with pytest.raises(ProviderError) as caught:
        await provider_at(url).create_client_secret()

    assert (caught.value.code, caught.value.recoverable) == ("unavailable", True)


async def test_ephemeral_key_from_what_is_no_web_server_is_a_protocol_error() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 mail ready\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        with pytest.raises(ProviderError) as caught:
            await provider_at(url).create_client_secret()

    assert caught.value.code in ("protocol", "unavailable")


async def test_ephemeral_key_is_waited_for_no_longer_than_said() -> None:
    asked = asyncio.Event()
    release = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await release.wait()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        base = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        endpoint = Endpoint(url=base, headers={"Authorization": f"Bearer {KEY}"}, base=base)
        with pytest.raises(ProviderError) as caught:
            await create_client_secret(endpoint, {}, deadline_s=0.2)
        release.set()
        await asked.wait()

    assert caught.value.code == "timeout"


@pytest.mark.parametrize("life_s", [9, 7201, True, 60.0])
async def test_life_of_an_ephemeral_key_has_its_range(life_s: Any) -> None:
    with pytest.raises(ConfigError, match="life_s"):
        await provider_at("ws://127.0.0.1:9/v1").create_client_secret(life_s=life_s)


async def test_ephemeral_key_is_not_asked_for_at_what_only_looks_like_this_machine() -> None:
    endpoint = Endpoint(
        url="", headers={"Authorization": f"Bearer {KEY}"}, base="ws://127.0.0.1.host.example/v1"
    )

    with pytest.raises(ConfigError, match="without TLS"):
        await create_client_secret(endpoint, {}, life_s=60, deadline_s=1, provider="openai")


async def test_ephemeral_key_is_not_asked_for_without_encryption() -> None:
    with pytest.raises(ConfigError, match="without TLS"):
        await provider_at("ws://host.example/v1").create_client_secret()


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("wss://api.openai.com/v1", "https://api.openai.com/v1/x"),
        ("ws://127.0.0.1:1", "http://127.0.0.1:1/v1/x"),
        ("ws://127.0.0.1:1/v1/realtime?model=m", "http://127.0.0.1:1/v1/x"),
    ],
)
def test_requests_go_beside_the_sessions(base: str, url: str) -> None:
    assert http_url(base, "/x") == url
