"""The kit as a third party uses it: one fixture, in memory, on virtual time."""

from __future__ import annotations

import pytest

from voxengine.providers.base import BaseProvider
from voxengine.testing import FakeProvider, ProviderConformance


class TestFake(ProviderConformance):
    clock = "virtual"

    @pytest.fixture
    def provider(self) -> BaseProvider:
        return FakeProvider({})
