"""Azure for VoxEngine: the provider ``azure`` and an emulator of its Speech service.

The names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from voxengine_azure.provider import AzureProvider
    from voxengine_azure.speech.codec import SpeechCodec
    from voxengine_azure.speech.ssml import Delivery

__all__ = ["AzureProvider", "Delivery", "SpeechCodec"]

_HOMES = {
    "AzureProvider": "voxengine_azure.provider",
    "Delivery": "voxengine_azure.speech.ssml",
    "SpeechCodec": "voxengine_azure.speech.codec",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'voxengine_azure' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
