"""Where the dialogue services are found, with which credentials, and what is said about wrong ones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.plugins.mock.support import Recorder
from voxengine.errors import AuthenticationFailed, ConfigError, ProviderError, RateLimited
from voxengine_azure import AzureProvider
from voxengine_azure.dialogue_access import API_VERSION, azure_openai_access, voice_live_access
from voxengine_azure.emulator import AzureOpenAIEmulator, AzureSpeechEmulator, AzureVoiceLiveEmulator
from voxengine_mock.harness import Server, serve

VARIABLES = (
    "AZURE_VOICELIVE_ENDPOINT",
    "AZURE_VOICELIVE_API_KEY",
    "AZURE_OPENAI_ENDPOINT",
    "AZURE_OPENAI_API_KEY",
)
RESOURCE = "https://x.services.ai.azure.com"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serve(AzureVoiceLiveEmulator(script={"delay_ms": 0}, speed=100)) as running:
        yield running


def address(url: str) -> tuple[str, dict[str, str]]:
    parts = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    return f"{parts.scheme}://{parts.netloc}{parts.path}", query


def test_voice_live_is_at_its_path_with_version_and_model() -> None:
    access = voice_live_access({"api_key": "k", "metadata": {"endpoint": RESOURCE}}, "gpt-4o")

    assert address(access.endpoint.url) == (
        "wss://x.services.ai.azure.com/voice-live/realtime",
        {"api-version": API_VERSION, "model": "gpt-4o"},
    )
    assert access.replaced_path == ""


def test_agent_takes_the_place_of_the_model() -> None:
    metadata = {"endpoint": RESOURCE, "agent_name": "a", "agent_project": "p", "api_version": "2025-10-01"}

    access = voice_live_access({"api_key": "k", "metadata": metadata}, "gpt-4o")

    assert address(access.endpoint.url)[1] == {
        "api-version": "2025-10-01",
        "agent-name": "a",
        "agent-project-name": "p",
    }


@pytest.mark.parametrize(
    ("endpoint", "replaced"),
    [
        ("wss://speech.azure.com/realtime", "/realtime"),
        (f"{RESOURCE}/voice-live/realtime", ""),
        (f"{RESOURCE}/", ""),
        (f"{RESOURCE}/gateway/voice-live/realtime", ""),
    ],
)
def test_foreign_path_is_replaced(endpoint: str, replaced: str) -> None:
    access = voice_live_access({"api_key": "k", "metadata": {"endpoint": endpoint}}, "m")

    assert access.replaced_path == replaced
    assert urlsplit(access.endpoint.url).path.endswith("/voice-live/realtime")


@pytest.mark.parametrize(
    ("preview", "expected"),
    [
        ("", ("wss://x.openai.azure.com/openai/v1/realtime", {"model": "talk"})),
        (
            "2025-04-01-preview",
            (
                "wss://x.openai.azure.com/openai/realtime",
                {"api-version": "2025-04-01-preview", "deployment": "talk"},
            ),
        ),
    ],
)
@pytest.mark.parametrize(
    "path", ["", "/openai/v1", "/openai/realtime?api-version=2024-10-01-preview&deployment=old"]
)
def test_azure_openai_is_at_the_path_of_its_protocol(preview: str, expected: Any, path: str) -> None:
    config = {"api_key": "k", "metadata": {"endpoint": f"https://x.openai.azure.com{path}"}}

    access = azure_openai_access(config, "talk", preview=preview)

    assert address(access.endpoint.url) == expected
    assert access.replaced_path == ""


@pytest.mark.parametrize(
    "endpoint",
    ["ftp://x.azure.com", "http://x.azure.com", "x.azure.com", "wss://", "https://x:notaport/", 17],
)
def test_wrong_endpoint_is_a_configuration_error(endpoint: object) -> None:
    with pytest.raises(ConfigError, match="endpoint"):
        voice_live_access({"api_key": "k", "metadata": {"endpoint": endpoint}}, "m")


@pytest.mark.parametrize(
    "endpoint", ["https://user:secret-word@x.azure.com", "https://x.azure.com?api-key=secret-word"]
)
def test_secret_in_the_endpoint_is_refused_without_repeating_it(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="api_key") as caught:
        voice_live_access({"api_key": "k", "metadata": {"endpoint": endpoint}}, "m")

    assert "secret-word" not in str(caught.value)


@pytest.mark.parametrize(
    ("service", "variable"),
    [("voice-live", "AZURE_VOICELIVE_ENDPOINT"), ("openai", "AZURE_OPENAI_ENDPOINT")],
)
async def test_missing_endpoint_names_option_and_variable(service: str, variable: str) -> None:
    metadata = {"service": service, "region": "eastus", "deployment": "talk"}
    provider = AzureProvider({"api_key": "k", "metadata": metadata})

    with pytest.raises(ProviderError, match=variable) as caught:
        await provider.connect()

    assert "metadata['endpoint']" in str(caught.value)


@pytest.mark.parametrize(
    "more", [{"token": ""}, {"token": 3}, {"token_provider": "no function"}, {"agent_name": "a"}]
)
def test_wrong_credential_or_agent_is_a_configuration_error(more: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        voice_live_access({"api_key": "k", "metadata": {"endpoint": RESOURCE, **more}}, "m")


def test_missing_key_names_option_and_variable() -> None:
    with pytest.raises(AuthenticationFailed, match="AZURE_VOICELIVE_API_KEY"):
        voice_live_access({"metadata": {"endpoint": RESOURCE}}, "m")


def test_credentials_show_no_secret() -> None:
    access = voice_live_access({"api_key": "secret-word", "metadata": {"endpoint": RESOURCE}}, "m")

    assert "secret-word" not in repr(access)


async def test_address_of_another_service_says_how_to_choose_it() -> None:
    async with AzureSpeechEmulator().running() as url:
        with pytest.raises(ProviderError, match=r"'voice-live'; metadata\['service'\]") as caught:
            await AzureProvider({"metadata": {"endpoint": url}}).connect()

    assert caught.value.code == "not_found"


# --- Tokens --------------------------------------------------------------------------------------


def provider_at(server: Server, **metadata: Any) -> tuple[AzureProvider, Recorder]:
    provider = AzureProvider({"metadata": {"endpoint": f"ws://{server.address}", **metadata}})
    recorder = Recorder()
    provider.on_event = recorder
    return provider, recorder


@pytest.mark.parametrize("is_async", [True, False])
async def test_expired_token_is_renewed_once(server: Server, is_async: bool) -> None:
    asked: list[str] = []

    def renew() -> str:
        asked.append("again")
        return "sk-drive"

    async def renew_async() -> str:
        return renew()

    provider, _ = provider_at(server, token="expired", token_provider=renew_async if is_async else renew)
    await provider.connect()
    await provider.disconnect()

    assert asked == ["again"]


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"token": "expired-token-0123"}, r"give metadata\['token_provider'\]"),
        (
            {"token": "expired", "token_provider": lambda: "expired-token-0123"},
            "token_provider.*refused too",
        ),
        ({"token_provider": lambda: "expired-token-0123"}, "token_provider.*refused"),
    ],
)
@pytest.mark.parametrize(
    "kind", [AzureVoiceLiveEmulator, AzureOpenAIEmulator], ids=["voice-live", "azure-openai"]
)
async def test_refused_token_names_the_function_that_renews_it_and_no_key(
    kind: type[AzureVoiceLiveEmulator] | type[AzureOpenAIEmulator], metadata: dict[str, Any], words: str
) -> None:
    more = {} if kind is AzureVoiceLiveEmulator else {"deployment": "talk"}
    async with serve(kind(script={"delay_ms": 0})) as server:
        provider, _ = provider_at(server, **metadata, **more)
        with pytest.raises(AuthenticationFailed, match=words) as caught:
            await provider.connect()

    assert "expired-token-0123" not in str(caught.value)
    assert "API key" not in str(caught.value)
    assert caught.value.vendor_code == "401"


@pytest.mark.parametrize("answer", [None, "", 17, ValueError("secret-word")])
async def test_useless_token_provider_is_an_authentication_error(server: Server, answer: object) -> None:
    def renew() -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    provider, _ = provider_at(server, token_provider=renew)

    with pytest.raises(AuthenticationFailed, match="token_provider") as caught:
        await provider.connect()

    assert "secret-word" not in str(caught.value)


async def test_replaced_path_is_said_once(server: Server) -> None:
    provider, events = provider_at(server)
    provider = AzureProvider({"metadata": {"endpoint": f"ws://{server.address}/realtime"}})
    provider.on_event = events
    await provider.connect()
    await provider.disconnect()

    codes = [event.data["code"] for event in events.of("warning")]
    assert codes == ["endpoint_path_replaced"]


async def test_throttling_says_when_to_come_back() -> None:
    emulator = AzureVoiceLiveEmulator(faults=["429 at=handshake retry_after=3"])
    async with serve(emulator) as server:
        provider, _ = provider_at(server)
        with pytest.raises(RateLimited) as caught:
            await provider.connect()

    assert caught.value.retry_after_s == 3


async def test_unknown_voice_is_refused_with_the_next_step(server: Server) -> None:
    provider = AzureProvider({"voice": "nobody", "metadata": {"endpoint": f"ws://{server.address}"}})

    with pytest.raises(ProviderError, match=r"session\.voice"):
        await provider.connect()


async def test_avatar_warning_and_own_events_pass_through(server: Server) -> None:
    provider, events = provider_at(
        server,
        avatar={"character": "lisa", "customized": False},
        transcription_model="whisper-1",
        session={"input_audio_transcription": {"model": "whisper-1", "phrase_list": ["Lisbon"]}},
    )
    await provider.connect()
    try:
        await provider.send_event({"type": "session.avatar.connect", "client_sdp": "djA="})
        await events.until(
            lambda: any(e.data["name"] == "session.avatar.connecting" for e in events.of("vendor_event"))
        )
        await events.wait("warning")
    finally:
        await provider.disconnect()

    (servers,) = [e.data["payload"] for e in events.of("vendor_event") if e.data["name"] == "session.avatar"]
    assert servers["avatar"]["ice_servers"]
    assert [event.data["code"] for event in events.of("warning")] == ["phrase_list_ignored"]
