"""Azure OpenAI: the official ``openai`` SDK and our provider against the emulator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from openai import APIStatusError, AsyncAzureOpenAI, AsyncOpenAI
from websockets.exceptions import InvalidStatus

from tests.plugins.mock.support import Recorder, silence, voice_saying
from tests.plugins.openai.emulating import Sdk
from tests.plugins.openai.sdk_types import check_client, check_server
from voxengine.errors import AuthenticationFailed, ConfigError, ProviderError
from voxengine.providers.base import BaseProvider
from voxengine.testing import ProviderConformance
from voxengine_azure import AzureProvider
from voxengine_azure.emulator import AzureOpenAIEmulator
from voxengine_mock.harness import Server, serve

LIMIT_S = 20.0


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serve(AzureOpenAIEmulator(script={"delay_ms": 0}, speed=100)) as running:
        yield running


@pytest.mark.slow
class TestAzureOpenAI(ProviderConformance):
    quiet_s = 0.2

    @pytest.fixture
    async def provider(self, server: Server) -> BaseProvider:
        metadata = {"endpoint": f"ws://{server.address}", "deployment": "talk", "service": "openai"}
        return AzureProvider({"api_key": "sk-drive", "metadata": metadata})


@pytest.mark.slow
class TestAzureOpenAIPreview(ProviderConformance):
    quiet_s = 0.2

    @pytest.fixture
    async def provider(self, server: Server) -> BaseProvider:
        metadata = {
            "endpoint": f"ws://{server.address}",
            "deployment": "talk",
            "api_version": "2025-04-01-preview",
        }
        return AzureProvider({"api_key": "sk-drive", "metadata": metadata})


# --- The official SDK ----------------------------------------------------------------------------


def azure_client(server: Server, **options: Any) -> AsyncAzureOpenAI:
    return AsyncAzureOpenAI(
        **{"api_key": "sk-drive", **options},
        azure_endpoint=server.http_url,
        api_version="2025-08-28",
        websocket_base_url=f"ws://{server.address}/openai/v1",
    )


@asynccontextmanager
async def talking(client: AsyncOpenAI) -> AsyncIterator[Sdk]:
    async with asyncio.timeout(LIMIT_S), client, client.realtime.connect(model="talk") as connection:
        talk = Sdk(connection)
        first = await talk.next()
        assert first.type == "session.created"
        yield talk


@pytest.mark.parametrize("kind", ["azure", "v1"])
async def test_official_client_holds_a_dialogue(server: Server, kind: str) -> None:
    client: AsyncOpenAI = azure_client(server)
    if kind == "v1":
        client = AsyncOpenAI(api_key="sk-drive", base_url=f"{server.http_url}/openai/v1")
    tool = {
        "type": "function",
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }
    async with talking(client) as talk:
        await talk.connection.session.update(session={"type": "realtime", "tools": [tool]})
        await talk.last("session.updated")
        called = await talk.ask("Use get_weather for the city of Lisbon.")
        call = next(e for e in called if e.type == "response.function_call_arguments.done")
        output = {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny."}
        await talk.connection.conversation.item.create(item=output)
        await talk.connection.response.create()
        answer = await talk.last("response.done")

    assert call.name == "get_weather"
    assert answer.response.status == "completed"


async def test_official_client_is_interrupted_by_the_user() -> None:
    async with serve(AzureOpenAIEmulator(script={"delay_ms": 0}, speed=5)) as server:
        async with talking(azure_client(server)) as talk:
            await talk.write("Tell me a long story.")
            await talk.connection.response.create()
            await talk.last("response.output_audio.delta")
            await talk.append(await voice_saying("stop it please", 24_000) + silence(100, 24_000))
            done = await talk.last("response.done")

    assert done.response.status == "cancelled"
    assert done.response.status_details.reason == "turn_detected"


async def test_official_client_with_a_token_and_with_a_wrong_key(server: Server) -> None:
    async def token() -> str:
        return "sk-drive"

    async with talking(azure_client(server, api_key=None, azure_ad_token_provider=token)) as talk:
        done = (await talk.ask("Hello."))[-2]
    with pytest.raises((InvalidStatus, APIStatusError)) as refused:
        async with talking(azure_client(server, api_key="wrong")):
            raise AssertionError("a session opened")

    assert done.response.status == "completed"
    assert "401" in str(refused.value)


# --- Our provider --------------------------------------------------------------------------------


@asynccontextmanager
async def connected(server: Server, **config: Any) -> AsyncIterator[tuple[AzureProvider, Recorder]]:
    metadata = {"endpoint": f"ws://{server.address}", "deployment": "talk", **config.pop("metadata", {})}
    provider = AzureProvider({"api_key": "sk-drive", **config, "metadata": metadata})
    recorder = Recorder()
    provider.on_event = recorder

    def judge(direction: str, wire: str | bytes, now: float) -> None:
        (check_client if direction == "out" else check_server)(wire)

    is_ga = "api_version" not in metadata
    provider.attach(None, judge if is_ga else None)
    await provider.connect()
    try:
        yield provider, recorder
    finally:
        await provider.disconnect()


async def test_messages_fit_the_official_types(server: Server) -> None:
    async with connected(server, voice="cedar", vocabulary=["Lisbon"]) as (provider, events):
        await provider.send_text("Hello.")
        done = await events.wait("response_completed")
        usage, cost = await provider.get_usage(), await provider.estimate_cost()

    assert done.data["status"] == "completed"
    assert usage is not None
    assert cost is None
    assert "cost" not in events.of("usage_updated")[-1].data


async def test_preview_speaks_the_older_shape(server: Server) -> None:
    metadata = {"api_version": "2025-04-01-preview"}
    async with connected(server, temperature=0.7, metadata=metadata) as (provider, events):
        await provider.send_text("Hello.")
        done = await events.wait("response_completed")

    assert done.data["status"] == "completed"
    assert events.of("warning") == []


async def test_voice_of_azure_speech_becomes_its_counterpart(server: Server) -> None:
    async with connected(server, voice="en-US-GuyNeural") as (_, events):
        settings = events.of("session_updated")[-1].data["settings"]
        codes = [event.data["code"] for event in events.of("warning")]

    assert settings["voice"] == "echo"
    assert codes == ["voice_mapped"]


async def test_wrong_key_is_refused(server: Server) -> None:
    with pytest.raises(AuthenticationFailed, match="azure") as caught:
        async with connected(server, api_key="wrong-key-0123456789"):
            raise AssertionError("a session opened")

    assert "wrong-key-0123456789" not in str(caught.value)


async def test_deployment_has_to_be_named() -> None:
    provider = AzureProvider(
        {"api_key": "k", "metadata": {"endpoint": "https://x.openai.azure.com", "service": "openai"}}
    )
    with pytest.raises(ProviderError, match=r"metadata\['deployment'\]"):
        await provider.connect()


async def test_deployment_and_model_must_not_differ() -> None:
    metadata = {"endpoint": "https://x.openai.azure.com", "deployment": "a"}
    provider = AzureProvider({"api_key": "k", "model": "b", "metadata": metadata})
    with pytest.raises(ConfigError, match="differ"):
        await provider.connect()
