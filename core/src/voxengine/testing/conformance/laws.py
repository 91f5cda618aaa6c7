"""Every law, in the order of a report."""

from __future__ import annotations

from typing import Final

from voxengine.testing.conformance import (
    laws_audio,
    laws_calls,
    laws_errors,
    laws_life,
    laws_responses,
    laws_tidiness,
)
from voxengine.testing.conformance.law import GROUPS, Law

__all__ = ["LAWS"]

_ALL: Final = (
    *laws_life.LAWS,
    *laws_responses.LAWS,
    *laws_audio.LAWS,
    *laws_calls.LAWS,
    *laws_errors.LAWS,
    *laws_tidiness.LAWS,
)
LAWS: Final[tuple[Law, ...]] = tuple(sorted(_ALL, key=lambda item: list(GROUPS).index(item.group)))
"""The laws of the contract. Names are stable: reports and test selections rely on them."""
