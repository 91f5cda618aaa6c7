"""Running something on a card of its own, where a card can run."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.audio_lab.card import missing, running
from tests.meta.tree import ROOT

__all__ = ["IS_REQUIRED", "happening", "on_card"]

IS_REQUIRED = "VOXENGINE_REQUIRE_CARD" in os.environ
"""Whether a missing card is a failure."""
on_card = pytest.mark.skipif(bool(missing()) and not IS_REQUIRED, reason=missing() or "there is a card")


@functools.cache
def happening(module: str, name: str) -> dict[str, Any]:
    """Let something happen on a card of its own, in a process of its own, and return what was seen."""
    with running() as card:
        done = subprocess.run(
            [sys.executable, "-m", f"tests.audio_lab.{module}", name],
            cwd=ROOT,
            env=card.environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(done.stdout)
    return result
