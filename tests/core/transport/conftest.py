"""Where a session tests a version of websockets, picows is not installed: its cases are left to the others.

Anywhere else a missing picows is an error of the environment, and the tests say so.
"""

from __future__ import annotations

import os

import pytest

IS_WITHOUT_PICOWS = "VOXENGINE_TEST_WEBSOCKETS" in os.environ

collect_ignore = ["test_fast.py"] if IS_WITHOUT_PICOWS else []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not IS_WITHOUT_PICOWS:
        return
    left_out = [item for item in items if "[picows" in item.name or "-picows" in item.name]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]
