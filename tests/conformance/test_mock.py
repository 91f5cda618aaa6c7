"""The mock provider fulfils the contract, in memory and with the bad peers that its script simulates."""

from __future__ import annotations

from typing import Any

import pytest

from voxengine.providers.base import BaseProvider
from voxengine.testing import ProviderConformance
from voxengine_mock import MockProvider


def mock(**fault: Any) -> BaseProvider:
    return MockProvider({"metadata": {"seed": 7, "faults": [fault] if fault else []}})


class TestMock(ProviderConformance):
    clock = "virtual"

    @pytest.fixture
    def provider(self) -> BaseProvider:
        return mock()

    @pytest.fixture
    def refused_provider(self) -> BaseProvider:
        return mock(do=401, at="handshake")

    @pytest.fixture
    def unreachable_provider(self) -> BaseProvider:
        return mock(do=503, at="handshake")

    @pytest.fixture
    def stalled_provider(self) -> BaseProvider:
        return mock(do="slow_reader", at="first_input", bytes_per_s=1)

    @pytest.fixture
    def lossy_provider(self) -> BaseProvider:
        return mock(do="reset", at="turn")
