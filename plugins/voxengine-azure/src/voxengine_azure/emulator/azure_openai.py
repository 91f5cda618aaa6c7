"""The emulator of Azure OpenAI: ``voxengine emulate azure-openai``."""

from __future__ import annotations

from typing import ClassVar, Final

from voxengine.testing.emulator import HttpRequest
from voxengine_azure.emulator.dialogue import AzureDialogueEmulator
from voxengine_openai.dialects import BETA
from voxengine_openai.emulator.config import OPENAI, Profile
from voxengine_openai.emulator.errors import Refused

__all__ = ["AzureOpenAIEmulator"]

_GA: Final = Profile(voices=OPENAI.voices)
_PREVIEW: Final = Profile(voices=OPENAI.voices, dialect=BETA, is_strict=False)
_PREVIEW_PATH: Final = "/openai/realtime"


class AzureOpenAIEmulator(AzureDialogueEmulator):
    """The GA protocol at ``/openai/v1/realtime``, and the preview's at ``/openai/realtime``. Any deployment is there."""

    name: ClassVar[str] = "azure-openai"
    url_path: ClassVar[str] = "/openai/v1"
    paths: ClassVar[tuple[str, ...]] = ("/openai/v1/realtime", _PREVIEW_PATH)

    def profile_of(self, request: HttpRequest) -> Profile:
        if request.path != _PREVIEW_PATH:
            return _GA
        if not request.query.get("api-version"):
            raise Refused("The query parameter api-version is missing.", "missing_api_version", "api-version")
        return _PREVIEW

    def model_of(self, request: HttpRequest) -> str:
        # The official client of the older kind names the deployment also where the GA protocol says model.
        found = request.query.get("model") or request.query.get("deployment")
        if not found:
            raise Refused("You must name a deployment.", "DeploymentNotFound", "model")
        return found
