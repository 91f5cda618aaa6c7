"""Foreign clients of the protocols that we emulate; they live in an environment of their own."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest

SESSION = "python3 noxfile.py -s witnesses"


def witness(module: str) -> Any:
    """Import a foreign client, or skip the tests that need it; in the session that is for them they fail."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        absent(f"there is no {module} ({error})")


def absent(what: str) -> None:
    """Skip for a reason; fail where nothing may be absent."""
    reason = f"{what}: {SESSION}"
    if os.environ.get("VOXENGINE_TEST_WITNESSES"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason, allow_module_level=True)
