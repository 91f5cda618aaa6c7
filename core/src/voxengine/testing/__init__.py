"""What tests of VoxEngine, of providers and of applications share. Each name loads when first used.

``pytest`` is imported by :class:`ProviderConformance` alone, when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from voxengine.testing.clock import (
        LeakError,
        VirtualDeadlock,
        VirtualTimeExceeded,
        VirtualTimeLoop,
        leak_check,
        run_virtual,
        virtual,
    )
    from voxengine.testing.conformance import (
        LAWS,
        FaultProxy,
        Law,
        LawBroken,
        LawSkipped,
        Outcome,
        ProviderConformance,
        Report,
        Result,
        Settings,
        Skip,
        Subject,
        run_law,
        run_laws,
    )
    from voxengine.testing.emulator import (
        DEFAULT_KEY,
        Emulator,
        EmulatorSession,
        HttpRequest,
        HttpResponse,
        HttpRoute,
        ReceptionLog,
        find_emulator,
    )
    from voxengine.testing.fakes import FakeProvider, scripted_provider
    from voxengine.testing.recorder import SampleError, SampleRecorder, SampleRun
    from voxengine.transport.memory import MemoryListener, MemoryPair, memory_pair

__all__ = [
    "DEFAULT_KEY",
    "LAWS",
    "Emulator",
    "EmulatorSession",
    "FakeProvider",
    "FaultProxy",
    "HttpRequest",
    "HttpResponse",
    "HttpRoute",
    "Law",
    "LawBroken",
    "LawSkipped",
    "LeakError",
    "MemoryListener",
    "MemoryPair",
    "Outcome",
    "ProviderConformance",
    "ReceptionLog",
    "Report",
    "Result",
    "SampleError",
    "SampleRecorder",
    "SampleRun",
    "Settings",
    "Skip",
    "Subject",
    "VirtualDeadlock",
    "VirtualTimeExceeded",
    "VirtualTimeLoop",
    "find_emulator",
    "leak_check",
    "memory_pair",
    "run_law",
    "run_laws",
    "run_virtual",
    "scripted_provider",
    "virtual",
]

_MODULES = {
    "voxengine.testing.clock": (
        "LeakError",
        "VirtualDeadlock",
        "VirtualTimeExceeded",
        "VirtualTimeLoop",
        "leak_check",
        "run_virtual",
        "virtual",
    ),
    "voxengine.testing.conformance": (
        "LAWS",
        "FaultProxy",
        "Law",
        "LawBroken",
        "LawSkipped",
        "Outcome",
        "ProviderConformance",
        "Report",
        "Result",
        "Settings",
        "Skip",
        "Subject",
        "run_law",
        "run_laws",
    ),
    "voxengine.testing.emulator": (
        "DEFAULT_KEY",
        "Emulator",
        "EmulatorSession",
        "HttpRequest",
        "HttpResponse",
        "HttpRoute",
        "ReceptionLog",
        "find_emulator",
    ),
    "voxengine.testing.fakes": ("FakeProvider", "scripted_provider"),
    "voxengine.testing.recorder": ("SampleError", "SampleRecorder", "SampleRun"),
    "voxengine.transport.memory": ("MemoryListener", "MemoryPair", "memory_pair"),
}

_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
