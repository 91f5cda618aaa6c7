"""The mock provider of VoxEngine: a simulated voice agent, offline and deterministic, and its emulators.

The names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from voxengine_mock.agent import SimulatedAgent
    from voxengine_mock.behaviour import Behaviour
    from voxengine_mock.codec import MockCodec
    from voxengine_mock.emulator import MockEmulator
    from voxengine_mock.provider import MockProvider
    from voxengine_mock.script import Script

__all__ = ["Behaviour", "MockCodec", "MockEmulator", "MockProvider", "Script", "SimulatedAgent"]

_HOMES = {
    "Behaviour": "voxengine_mock.behaviour",
    "MockCodec": "voxengine_mock.codec",
    "MockEmulator": "voxengine_mock.emulator",
    "MockProvider": "voxengine_mock.provider",
    "Script": "voxengine_mock.script",
    "SimulatedAgent": "voxengine_mock.agent",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'voxengine_mock' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
