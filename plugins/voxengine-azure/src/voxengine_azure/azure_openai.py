"""Azure OpenAI behind the contract: OpenAI's provider at a resource, with deployments in place of models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import attrs

from voxengine.capabilities import UNKNOWN, Capabilities
from voxengine.errors import ConfigError, ErrorCode, ProviderError
from voxengine.voices import counterpart
from voxengine_azure.dialogue import AzureDialogue
from voxengine_azure.dialogue_access import Access, azure_openai_access
from voxengine_azure.voice_live.options import CONNECTION_KEYS
from voxengine_openai.codec import BETA, GA, Dialect
from voxengine_openai.provider import OpenAIProvider
from voxengine_openai.session_settings import SessionPlan, Traits

__all__ = ["AZURE_OPENAI_CAPABILITIES", "AzureOpenAIProvider"]

AZURE_OPENAI_CAPABILITIES: Final = OpenAIProvider.capabilities.evolve(cost=UNKNOWN, cost_per_minute_usd=None)
"""What the service can do. Its prices depend on the deployment, whose name says nothing of its model."""

_TRANSCRIPTION_MODEL: Final = "whisper-1"


class AzureOpenAIProvider(AzureDialogue):
    """A session of a deployment: the GA protocol, or with ``metadata["api_version"]`` the preview's."""

    service: ClassVar[str] = "openai"
    capabilities: ClassVar[Capabilities] = AZURE_OPENAI_CAPABILITIES
    options: ClassVar[frozenset[str] | None] = (OpenAIProvider.options or frozenset()) | {"temperature"}
    traits: ClassVar[Traits] = Traits(
        name="azure openai", transcription_model=_TRANSCRIPTION_MODEL, has_prices=False
    )

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        if self._codec.dialect is BETA:
            self._traits = attrs.evolve(self._traits, has_temperature=True)

    def _preview(self) -> str:
        version = str((self.config.get("metadata") or {}).get("api_version") or "")
        return "" if version in ("", "v1") else version

    def _dialect(self) -> Dialect:
        return BETA if self._preview() else GA

    def _choose_model(self, asked: Mapping[str, Any]) -> tuple[str, str]:
        deployment = (self.config.get("metadata") or {}).get("deployment")
        model = asked.get("model")
        if deployment is not None and model is not None and deployment != model:
            raise ConfigError(
                "model and metadata['deployment'] differ; at Azure OpenAI both name the deployment. Keep one."
            )
        name = deployment or model
        if not isinstance(name, str) or not name.strip():
            raise ProviderError(
                "azure openai needs metadata['deployment'] (or model): the name of a Realtime deployment of the "
                "resource.",
                provider="azure",
                code=ErrorCode.INVALID_REQUEST,
            )
        return name.strip(), ""

    def _find(self, model: str) -> Access:
        return azure_openai_access(self.config, model, preview=self._preview())

    def _plan_session(self, asked: Mapping[str, Any], own: Mapping[str, Any] | None) -> SessionPlan:
        voice = asked.get("voice")
        known = counterpart(voice, "azure", "openai") if isinstance(voice, str) else None
        if known is None:
            return super()._plan_session(asked, own)
        plan = super()._plan_session({**asked, "voice": known}, own)
        spoken = plan.session["audio"]["output"].get("voice")
        sentence = (
            f"The voice {voice!r} is one of Azure's speech synthesis, which a deployment does not have; {spoken!r} "
            "speaks in its place."
        )
        told = tuple(row for row in plan.warnings if row[1] != "voice_mapped")
        return attrs.evolve(plan, warnings=(*told, ("voice", "voice_mapped", sentence)))

    def _more_options(self) -> tuple[str, ...]:
        return CONNECTION_KEYS
