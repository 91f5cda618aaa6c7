"""The blocks of the provider guide that name OpenAI or Azure, with those providers and their emulators."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest

from tests.meta.user_document import GUIDE, read_blocks, run
from voxengine import (
    EventType,
    ProviderError,
    VoiceEngine,
    VoiceEngineConfig,
    get_provider,
    unregister_provider,
)
from voxengine.capabilities import Support
from voxengine_azure import AzureProvider
from voxengine_azure.emulator import AzureSpeechEmulator, AzureVoiceLiveEmulator
from voxengine_openai import OpenAIProvider
from voxengine_openai.emulator import OpenAIEmulator

BLOCKS = {block.digest: block for block in read_blocks(GUIDE.read_text("utf-8"))}
CHUNK = bytes(960)  # 20 ms at 24000 Hz.
SCRIPT: dict[str, Any] = {"delay_ms": 0}
NAMES: dict[str, Any] = {"VoiceEngineConfig": VoiceEngineConfig}


@pytest.fixture(autouse=True)
async def _emulators(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Both vendors on this machine, where the environment says that they are; the keys are those of the guide."""
    for name in ("OPENAI_API_KEY", "AZURE_VOICELIVE_API_KEY", "AZURE_SPEECH_KEY", "AZURE_SPEECH_REGION"):
        monkeypatch.delenv(name, raising=False)
    async with (
        OpenAIEmulator(key="sk-...", script=SCRIPT, speed=50).running() as openai,
        AzureVoiceLiveEmulator(key="azure-key", script=SCRIPT, speed=50).running() as azure,
    ):
        monkeypatch.setenv("OPENAI_BASE_URL", openai)
        monkeypatch.setenv("AZURE_VOICELIVE_ENDPOINT", azure)
        yield


async def answer(engine: VoiceEngine, text: str) -> str:
    await engine.send_text(text)
    await engine.wait_idle(timeout_s=20)
    return engine.history.items[-1].text


def warned(engine: VoiceEngine, code: str) -> int:
    found = [event for event in engine.events.history if event.type is EventType.WARNING]
    return [event.data["code"] for event in found].count(code)


async def test_default_provider() -> None:
    config = (await run(BLOCKS["db1bacdcab91"], dict(NAMES)))["config"]

    async with VoiceEngine(config) as engine:
        assert await answer(engine, "Hello") == "You said: Hello"
        assert engine.session is not None
        assert (engine.session.name, engine.session.settings["mode"]) == ("openai", "fast")


async def test_migration_is_one_changed_configuration() -> None:
    namespace = await run(BLOCKS["1128d45d7c32"], dict(NAMES))

    for name, voice in (("old_config", None), ("new_config", "en-US-JennyNeural")):
        async with VoiceEngine(namespace[name]) as engine:
            assert await answer(engine, "The same code") == "You said: The same code"
            assert engine.session is not None
            assert voice in (None, engine.session.settings["voice"])


@pytest.mark.parametrize("voice", ["alloy", "nova", "echo"])
async def test_voice_of_the_mapping_speaks_after_the_move(voice: str) -> None:
    namespace = await run(BLOCKS["1128d45d7c32"], dict(NAMES))
    target = VoiceEngineConfig(provider="azure", api_key="azure-key", metadata={"region": "eastus"})

    async with VoiceEngine(attrs.evolve(namespace["old_config"], voice=voice)) as engine:
        await engine.switch_provider("azure", target)

        assert engine.session is not None
        assert engine.session.settings["voice"] == namespace["voice_mapping"][voice]


async def test_region_alone_recognises_and_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_VOICELIVE_ENDPOINT")
    config = (await run(BLOCKS["1128d45d7c32"], dict(NAMES)))["new_config"]
    kind = AzureProvider.capabilities_for(config.for_provider())
    assert (kind.dialogue.support, kind.synthesis.support) == (Support.UNSUPPORTED, Support.FULL)

    async with AzureSpeechEmulator(key="azure-key", script=SCRIPT, speed=50).running() as url:
        here = attrs.evolve(
            config, metadata={**config.metadata, "service": "speech", "endpoint": f"{url}/realtime"}
        )
        async with VoiceEngine(here) as engine:
            assert await answer(engine, "Spoken as it is.") == "Spoken as it is."
            assert engine.history.items[-1].role == "agent"
            assert warned(engine, "endpoint_path_replaced") == 1


async def test_registered_provider_takes_the_address_of_the_guide(monkeypatch: pytest.MonkeyPatch) -> None:
    mine: Any = types.ModuleType("my_providers")
    mine.AzureProvider, mine.GoogleProvider = AzureProvider, OpenAIProvider
    monkeypatch.setitem(sys.modules, "my_providers", mine)
    try:
        config = (await run(BLOCKS["e22073ce88bf"], dict(NAMES)))["config"]
        assert get_provider("azure") is AzureProvider
        async with AzureVoiceLiveEmulator(key="your-azure-key", script=SCRIPT, speed=50).running() as url:
            # The host is the emulator's, the path the guide's.
            endpoint = config.metadata["endpoint"].replace("wss://speech.azure.com", url)
            here = attrs.evolve(config, metadata={**config.metadata, "endpoint": endpoint})
            async with VoiceEngine(here) as engine:
                assert await answer(engine, "Hello") == "You said: Hello"
                assert warned(engine, "endpoint_path_replaced") == 1
    finally:
        for name in ("azure", "google"):
            unregister_provider(name)


async def test_switch_in_mid_call_keeps_the_conversation() -> None:
    configs = await run(BLOCKS["1128d45d7c32"], dict(NAMES))
    prelude = {
        "VoiceEngine": VoiceEngine,
        "config": configs["old_config"],
        "new_config": configs["new_config"],
    }
    block = BLOCKS["6a2bd099f002"]

    namespace = await run(block, prelude, only=[0, 1])
    engine = namespace["engine"]
    await answer(engine, "My name is Ada")
    await run(block, namespace, only=[2])
    await answer(engine, "What did I say?")
    switched = [event for event in engine.events.history if event.type is EventType.PROVIDER_SWITCHED]
    await engine.disconnect()

    assert [item.text for item in engine.history.items][:3] == [
        "My name is Ada",
        "You said: My name is Ada",
        "What did I say?",
    ]
    assert [(event.from_provider, event.to_provider, event.context) for event in switched] == [
        ("openai", "azure", "full")
    ]


@pytest.mark.parametrize("name", ["old_config", "new_config"])
async def test_same_code_sends_text_and_audio(name: str) -> None:
    config = (await run(BLOCKS["1128d45d7c32"], dict(NAMES)))[name]

    async with VoiceEngine(config) as engine:
        # Said of Azure too: what the guide calls bad is for OpenAI alone.
        prelude = {"engine": engine, "audio_data": CHUNK, "provider": "azure"}
        await run(BLOCKS["31ffcea2a0fc"], prelude)
        await engine.wait_idle(timeout_s=20)

        assert "You said: Hello" in [item.text for item in engine.history.items]
        errors = [event for event in engine.events.history if event.type is EventType.ERROR_GENERAL]
        assert errors == []


async def test_rate_limit_of_one_vendor_leads_to_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    faults = ["429 at=handshake retry_after=30"]
    async with OpenAIEmulator(key="sk-...", script=SCRIPT, speed=50, faults=faults).running() as busy:
        monkeypatch.setenv("OPENAI_BASE_URL", busy)
        monkeypatch.setenv("AZURE_VOICELIVE_API_KEY", "azure-key")
        engine = VoiceEngine(VoiceEngineConfig(provider="openai", api_key="sk-..."))

        await run(BLOCKS["2608fb8282fb"], {"ProviderError": ProviderError, "engine": engine})
        reply = await answer(engine, "Hello")
        assert engine.session is not None
        name = engine.session.name
        await engine.disconnect()

    assert (name, reply) == ("azure", "You said: Hello")


async def test_metadata_of_openai_is_taken() -> None:
    metadata = (await run(BLOCKS["5f8bb3be8a50"], {}, only=[0]))["metadata"]

    async with VoiceEngine(VoiceEngineConfig(api_key="sk-...", metadata=metadata)) as engine:
        # The guide's model holds no spoken session: one that does takes its place, and that is said.
        assert (warned(engine, "model_mapped"), warned(engine, "option_unsupported")) == (1, 1)
        assert engine.session is not None
        assert engine.session.settings["max_output_tokens"] == metadata["max_tokens"]
        assert await answer(engine, "Hello") == "You said: Hello"


async def test_central_configuration_of_openai(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_KEY", "sk-...")
    monkeypatch.setenv("AZURE_KEY", "azure-key")
    namespace = await run(BLOCKS["17bce1c5848f"], {"os": os})

    config = VoiceEngineConfig(provider=namespace["provider"], **namespace["config"])
    async with VoiceEngine(config) as engine:
        assert await answer(engine, "Hello") == "You said: Hello"
