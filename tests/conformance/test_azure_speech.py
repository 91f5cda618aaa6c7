"""The Speech service of Azure fulfils the contract, against its emulator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from voxengine.providers.base import BaseProvider
from voxengine.testing import ProviderConformance
from voxengine_azure import AzureProvider
from voxengine_azure.emulator import AzureSpeechEmulator

LONG = "This text is spoken for several seconds, so that there is time enough to stop it in the middle. " * 4


def speech(url: str) -> BaseProvider:
    return AzureProvider({"api_key": "sk-drive", "metadata": {"service": "speech", "endpoint": url}})


class TestAzureSpeech(ProviderConformance):
    long_prompt_text = LONG
    quiet_s = 0.2
    settle_s = 5.0

    @pytest_asyncio.fixture
    async def url(self) -> AsyncIterator[str]:
        async with AzureSpeechEmulator(script={"delay_ms": 0}).running() as url:
            yield url

    @pytest.fixture
    def provider(self, url: str) -> BaseProvider:
        return speech(url)

    @pytest_asyncio.fixture
    async def broken_url(self) -> AsyncIterator[str]:
        # A connection that breaks once is replaced without a word, so this one breaks each time.
        fault: dict[str, Any] = {"do": "reset", "at": "response:*", "times": 100}
        async with AzureSpeechEmulator(script={"delay_ms": 0, "faults": [fault]}).running() as url:
            yield url

    @pytest.fixture
    def lossy_provider(self, broken_url: str) -> BaseProvider:
        return speech(broken_url)
