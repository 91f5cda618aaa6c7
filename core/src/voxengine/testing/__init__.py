"""What tests of VoxEngine, of providers and of applications share. Each name loads when first used.

``pytest`` is imported by none of the names listed here.
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

__all__ = [
    "LeakError",
    "VirtualDeadlock",
    "VirtualTimeExceeded",
    "VirtualTimeLoop",
    "leak_check",
    "run_virtual",
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
