"""What a dialogue service of Azure refuses, before the session and at the hand-shake."""

from __future__ import annotations

from typing import Any

import pytest

from voxengine.config import Reconnect, VoiceEngineConfig
from voxengine.engine import VoiceEngine
from voxengine.errors import AuthenticationFailed, ConfigError, ProviderError
from voxengine.testing import leak_check
from voxengine_azure.emulator import AzureVoiceLiveEmulator


def engine_at(url: str, **metadata: Any) -> VoiceEngine:
    return VoiceEngine(
        VoiceEngineConfig(
            provider="azure",
            api_key="sk-drive",
            metadata={"endpoint": url, **metadata},
            playback="null",
            reconnect=Reconnect(budget_s=0),
        )
    )


@pytest.mark.parametrize(
    ("fault", "kind", "code", "vendor_code"),
    [
        ("401 at=ready", AuthenticationFailed, "authentication", "invalid_api_key"),
        ("403 at=ready", ProviderError, "permission", "permission_denied"),
        ("close at=ready code=3000", AuthenticationFailed, "authentication", "3000"),
    ],
)
async def test_refusal_before_the_client_was_heard_is_the_one_of_the_service(
    fault: str, kind: type, code: str, vendor_code: str
) -> None:
    async with leak_check(), AzureVoiceLiveEmulator(faults=[fault]).running() as url:
        engine = engine_at(url)

        with pytest.raises(ProviderError) as caught:
            await engine.connect()
        await engine.disconnect()

    assert (type(caught.value), caught.value.code, caught.value.vendor_code) == (kind, code, vendor_code)


@pytest.mark.parametrize(
    "headers", [{"X-Trace id": "1"}, {"X-Trace": "1\r\nHost: x"}, {"X-Trace": []}, "X-Trace"]
)
async def test_header_that_is_none_is_a_configuration_error(headers: Any) -> None:
    async with leak_check(), AzureVoiceLiveEmulator().running() as url:
        engine = engine_at(url, headers=headers)

        with pytest.raises(ConfigError, match="header"):
            await engine.connect()
        await engine.disconnect()
