"""The same protocol at any compatible endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import attrs

from voxengine.capabilities import UNKNOWN, Capabilities
from voxengine.errors import ConfigError
from voxengine_openai.codec import BETA, GA, Dialect
from voxengine_openai.endpoint import Endpoint, custom_endpoint
from voxengine_openai.provider import OpenAIProvider
from voxengine_openai.session_settings import Traits

__all__ = ["CustomProvider"]

_DIALECTS = {"ga": GA, "beta": BETA}


class CustomProvider(OpenAIProvider):
    """A service that speaks OpenAI's Realtime protocol, at ``metadata["endpoint"]``.

    ``auth_type`` is ``bearer``, ``api-key``, ``query`` or ``none``; ``dialect`` is ``ga`` or ``beta``. Models
    and voices are sent as they are named, and nothing is known of prices and limits.
    """

    capabilities: ClassVar[Capabilities] = OpenAIProvider.capabilities.evolve(
        cost=UNKNOWN,
        voices=(),
        session_limit_s=None,
        cost_per_minute_usd=None,
    )
    services: ClassVar[Mapping[str, Capabilities]] = {}
    options: ClassVar[frozenset[str] | None] = (OpenAIProvider.options or frozenset()) | {"temperature"}
    name: ClassVar[str] = "custom"
    traits: ClassVar[Traits] = Traits(
        name="custom", transcription_model="whisper-1", maps_voices=False, has_prices=False
    )
    trusts_interruption: ClassVar[bool] = False

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        if self._codec.dialect is BETA:
            self._traits = attrs.evolve(self._traits, has_temperature=True)

    @classmethod
    def capabilities_for(cls, config: Mapping[str, Any]) -> Capabilities:
        return super().capabilities_for(config).evolve(cost=UNKNOWN)

    def _dialect(self) -> Dialect:
        metadata = self.config.get("metadata") or {}
        name = str(metadata.get("dialect", "ga"))
        if name not in _DIALECTS:
            raise ConfigError("metadata['dialect'] takes 'ga' or 'beta'.")
        return _DIALECTS[name]

    def _choose_model(self, asked: Mapping[str, Any]) -> tuple[str, str]:
        return str(asked.get("model") or ""), ""

    def _endpoint(self, model: str, *, is_default_model: bool) -> Endpoint:
        return custom_endpoint(self.config, model, is_beta=self._codec.dialect is BETA)
