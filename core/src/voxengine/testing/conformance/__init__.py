"""The laws of the provider contract, as code that pytest and ``voxengine check`` run alike.

A :class:`Law` is a coroutine with a name and a sentence; :data:`LAWS` holds them all. A :class:`Subject` is
the provider that is judged, with what the laws say to it. :func:`run_law` and :func:`run_laws` judge;
:class:`ProviderConformance` is the same as a class of tests and the only name here that imports pytest.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from voxengine.testing.conformance.law import Law, LawBroken, LawSkipped, Outcome, Result, Skip
    from voxengine.testing.conformance.laws import LAWS
    from voxengine.testing.conformance.proxy import FaultProxy
    from voxengine.testing.conformance.run import Report, run_law, run_laws
    from voxengine.testing.conformance.subject import Settings, Subject
    from voxengine.testing.conformance.suite import ProviderConformance

__all__ = [
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
]

_MODULES = {
    "law": ("Law", "LawBroken", "LawSkipped", "Outcome", "Result", "Skip"),
    "laws": ("LAWS",),
    "proxy": ("FaultProxy",),
    "run": ("Report", "run_law", "run_laws"),
    "subject": ("Settings", "Subject"),
    "suite": ("ProviderConformance",),
}
_HOMES = {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
