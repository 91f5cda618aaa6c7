"""The emulators of Azure's services. They need ``voxengine-mock``: ``pip install "voxengine-azure[emulator]"``."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from voxengine.errors import ConfigError

if importlib.util.find_spec("voxengine_mock") is None:
    raise ConfigError(
        'The emulators need the package voxengine-mock. Try: pip install "voxengine-azure[emulator]"'
    )

if TYPE_CHECKING:
    from voxengine_azure.emulator.azure_openai import AzureOpenAIEmulator
    from voxengine_azure.emulator.speech import AzureSpeechEmulator
    from voxengine_azure.emulator.voice_live import AzureVoiceLiveEmulator

__all__ = ["AzureOpenAIEmulator", "AzureSpeechEmulator", "AzureVoiceLiveEmulator"]

_HOMES = {
    "AzureOpenAIEmulator": "voxengine_azure.emulator.azure_openai",
    "AzureSpeechEmulator": "voxengine_azure.emulator.speech",
    "AzureVoiceLiveEmulator": "voxengine_azure.emulator.voice_live",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'voxengine_azure.emulator' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value
