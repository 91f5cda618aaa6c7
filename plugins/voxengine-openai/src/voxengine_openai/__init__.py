"""OpenAI Realtime for VoxEngine: the provider, compatible endpoints (``custom``) and an emulator.

The names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from voxengine_openai.codec import RealtimeCodec
    from voxengine_openai.custom import CustomProvider
    from voxengine_openai.dialects import Dialect
    from voxengine_openai.provider import OpenAIProvider

__all__ = ["CustomProvider", "Dialect", "OpenAIProvider", "RealtimeCodec"]

_HOMES = {
    "CustomProvider": "voxengine_openai.custom",
    "Dialect": "voxengine_openai.dialects",
    "OpenAIProvider": "voxengine_openai.provider",
    "RealtimeCodec": "voxengine_openai.codec",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'voxengine_openai' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
