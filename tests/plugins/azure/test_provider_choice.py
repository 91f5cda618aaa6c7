"""One provider, three services: which one a configuration means, and moving between vendors in mid-call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.errors import CapabilityMissing, ConfigError
from voxengine.events import Event, EventType
from voxengine.voices import VOICE_MAP, counterpart
from voxengine_azure import AzureProvider
from voxengine_azure.emulator import AzureOpenAIEmulator, AzureSpeechEmulator, AzureVoiceLiveEmulator
from voxengine_openai.emulator import OpenAIEmulator

ENDPOINTS = ("AZURE_VOICELIVE_ENDPOINT", "AZURE_OPENAI_ENDPOINT")


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*ENDPOINTS, "AZURE_SPEECH_REGION", "SPEECH_REGION"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("metadata", "service"),
    [
        ({"region": "eastus", "voice": "en-US-JennyNeural"}, "speech"),
        ({}, "speech"),
        ({"endpoint": "wss://speech.azure.com/realtime", "region": "westus2"}, "voice-live"),
        ({"endpoint": "https://x.services.ai.azure.com"}, "voice-live"),
        ({"endpoint": "https://x.openai.azure.com", "deployment": "talk"}, "openai"),
        ({"endpoint": "https://x.openai.azure.com"}, "openai"),
        ({"endpoint": "https://x.services.ai.azure.com/openai/v1"}, "openai"),
        ({"deployment": "talk"}, "openai"),
        ({"endpoint": "https://x.services.ai.azure.com", "service": "speech"}, "speech"),
    ],
)
def test_service_is_chosen(metadata: dict[str, Any], service: str) -> None:
    assert AzureProvider({"metadata": metadata}).service == service


def test_endpoint_of_the_environment_means_voice_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_VOICELIVE_ENDPOINT", "https://x.services.ai.azure.com")

    provider = AzureProvider({"metadata": {"region": "eastus", "voice": "en-US-JennyNeural"}})

    assert provider.service == "voice-live"
    assert AzureProvider.capabilities_for(provider.config).dialogue


async def test_unknown_service_names_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match="voice-live, openai, speech"):
        await AzureProvider({"metadata": {"service": "telepathy"}}).connect()


async def test_events_of_a_dialogue_are_not_for_the_speech_service() -> None:
    provider = AzureProvider({"metadata": {"region": "eastus"}})

    with pytest.raises(CapabilityMissing, match="service"):
        await provider.send_event({"type": "session.avatar.connect", "client_sdp": "x"})


# --- The voice map -------------------------------------------------------------------------------


def test_map_begins_with_the_rows_of_the_provider_guide() -> None:
    table = VOICE_MAP[("openai", "azure")]

    assert list(table.items())[:3] == [
        ("alloy", "en-US-JennyNeural"),
        ("nova", "en-US-AriaNeural"),
        ("echo", "en-US-GuyNeural"),
    ]


def test_counterparts_lead_back() -> None:
    for voice in VOICE_MAP[("openai", "azure")]:
        other = counterpart(voice, "openai", "azure")

        assert counterpart(other, "azure", "openai") == voice


@pytest.mark.parametrize(
    "case", [("alloy", "openai", "mock"), ("nobody", "openai", "azure"), (None, "openai", "azure")]
)
def test_unknown_voice_has_no_counterpart(case: tuple[str | None, str, str]) -> None:
    assert counterpart(*case) is None


# --- Moving --------------------------------------------------------------------------------------


@pytest.fixture
async def urls() -> AsyncIterator[dict[str, str]]:
    script: dict[str, Any] = {"delay_ms": 0}
    async with (
        OpenAIEmulator(script=script, speed=50).running() as openai,
        AzureVoiceLiveEmulator(script=script, speed=50).running() as voice_live,
        AzureOpenAIEmulator(script=script, speed=50).running() as azure_openai,
        AzureSpeechEmulator(script=script, speed=50).running() as speech,
    ):
        yield {"openai": openai, "voice-live": voice_live, "azure-openai": azure_openai, "speech": speech}


def config_of(service: str, urls: dict[str, str], **options: Any) -> VoiceEngineConfig:
    if service == "openai":
        metadata: dict[str, Any] = {"url": urls["openai"]}
        return VoiceEngineConfig(provider="openai", api_key="sk-drive", metadata=metadata, **options)
    metadata = {"endpoint": urls[service]}
    if service == "azure-openai":
        metadata["deployment"] = "talk"
    return VoiceEngineConfig(provider="azure", api_key="sk-drive", metadata=metadata, **options)


@pytest.mark.parametrize("azure", ["voice-live", "azure-openai"])
@pytest.mark.parametrize("is_forth", [True, False])
async def test_conversation_moves_between_openai_and_azure(
    urls: dict[str, str], azure: str, is_forth: bool
) -> None:
    names = ("openai", azure) if is_forth else (azure, "openai")
    voice = "alloy" if is_forth else "en-US-JennyNeural"
    engine = VoiceEngine(config_of(names[0], urls, voice=voice, playback="null"))
    switched: list[Event] = []
    engine.events.on(EventType.PROVIDER_SWITCHED, switched.append)
    errors: list[Event] = []
    engine.events.on(EventType.ERROR_GENERAL, errors.append)
    async with engine:
        await engine.send_text("My name is Ada.")
        await engine.wait_idle()
        target = config_of(names[1], urls)
        await engine.switch_provider(target.provider, target)
        await engine.send_text("Hello again.")
        await engine.wait_idle()
        assert engine.session is not None
        spoken = engine.session.settings["voice"]

    kinds = [str(item.kind) for item in engine.history.items]
    assert kinds == ["user_text", "agent", "user_text", "agent"]
    assert switched[0].data["context"] == "full"
    assert errors == []
    assert spoken == {"openai": "alloy", "voice-live": "en-US-JennyNeural", "azure-openai": "alloy"}[names[1]]


async def test_region_alone_is_no_dialogue_and_says_what_to_set(urls: dict[str, str]) -> None:
    region_only = VoiceEngineConfig(
        provider="azure",
        api_key="azure-key",
        metadata={"region": "eastus", "voice": "en-US-JennyNeural"},
    )
    engine = VoiceEngine(config_of("openai", urls, playback="null"))
    async with engine:
        with pytest.raises(CapabilityMissing) as caught:
            await engine.switch_provider("azure", region_only)
        await engine.send_text("Hello.")
        await engine.wait_idle()

    assert caught.value.capability == "dialogue"
    assert "metadata['endpoint']" in str(caught.value)
    assert "AZURE_VOICELIVE_ENDPOINT" in str(caught.value)
    assert engine.history.items[-1].text


async def test_move_to_a_service_of_the_same_provider_says_which_of_the_two_cannot(
    urls: dict[str, str],
) -> None:
    metadata = {"endpoint": urls["speech"], "service": "speech"}
    speech = VoiceEngineConfig(provider="azure", api_key="sk-drive", metadata=metadata)
    async with VoiceEngine(config_of("voice-live", urls, playback="null")) as engine:
        with pytest.raises(CapabilityMissing, match="azure, as this configuration asks for it,") as caught:
            await engine.switch_provider("azure", speech)

    assert "azure can:" not in str(caught.value)
    assert "metadata['service'] is 'speech'" in str(caught.value)


async def test_configuration_of_the_migration_guide_works_with_an_endpoint(
    urls: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_VOICELIVE_ENDPOINT", urls["voice-live"])
    new_config = VoiceEngineConfig(
        provider="azure", api_key="sk-drive", metadata={"region": "eastus", "voice": "en-US-JennyNeural"}
    )
    engine = VoiceEngine(config_of("openai", urls, playback="null"))
    warnings: list[Event] = []
    engine.events.on(EventType.WARNING, warnings.append)
    async with engine:
        await engine.send_text("My name is Ada.")
        await engine.wait_idle()
        await engine.switch_provider("azure", new_config)
        await engine.send_text("Hello again.")
        await engine.wait_idle()
        assert engine.session is not None
        voice = engine.session.settings["voice"]

    assert voice == "en-US-JennyNeural"
    assert [event.data["code"] for event in warnings] == []


async def test_options_of_a_dialogue_are_said_to_be_without_effect_in_the_speech_service(
    urls: dict[str, str],
) -> None:
    metadata = {"endpoint": urls["speech"], "service": "speech"}
    config = VoiceEngineConfig(
        provider="azure", api_key="sk-drive", metadata=metadata, instructions="Be brief.", playback="null"
    )
    engine = VoiceEngine(config)
    warnings: list[Event] = []
    engine.events.on(EventType.WARNING, warnings.append)
    async with engine:
        pass

    assert any(
        event.data["code"] == "option_unsupported" and "instructions" in event.data["message"]
        for event in warnings
    )
