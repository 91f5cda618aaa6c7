"""A running session of each service takes a new voice, whichever way the old one was given."""

from __future__ import annotations

from typing import Any

import pytest

from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine_azure.emulator import AzureSpeechEmulator, AzureVoiceLiveEmulator

OLD, NEW, NEWEST = "en-US-JennyNeural", "en-US-AriaNeural", "en-US-GuyNeural"


@pytest.mark.parametrize(
    ("kind", "service"), [(AzureVoiceLiveEmulator, "voice-live"), (AzureSpeechEmulator, "speech")]
)
@pytest.mark.parametrize("is_flat", [True, False], ids=["in-metadata", "as-a-field"])
async def test_newest_voice_speaks_and_the_next_session_keeps_it(
    kind: Any, service: str, is_flat: bool
) -> None:
    flat, field = ({"voice": OLD}, None) if is_flat else ({}, OLD)
    async with kind(script={"delay_ms": 0}, speed=50).running() as url:
        metadata = {"endpoint": url, "service": service, **flat}
        config = VoiceEngineConfig(provider="azure", api_key="sk-drive", voice=field, metadata=metadata)
        async with VoiceEngine(config) as engine:
            spoken = []
            for asked in ({"voice": NEW}, {"metadata": {"voice": NEWEST}}):
                await engine.configure_session(asked)
                assert engine.session is not None
                spoken.append(engine.session.settings["voice"])
            kept = engine.config

    assert spoken == [NEW, NEWEST]
    assert kept.option("voice") == NEWEST
    assert (kept.metadata["endpoint"], kept.metadata["service"]) == (url, service)
