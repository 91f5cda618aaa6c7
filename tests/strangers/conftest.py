"""Wheels and environments, each made once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.strangers.environment import Environment, our_wheels

MakeEnvironment = Callable[..., Environment]


@pytest.fixture(scope="session")
def ours(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The wheels of our distributions."""
    return our_wheels(tmp_path_factory.mktemp("our-wheels"))


@pytest.fixture(scope="session")
def make_environment(ours: list[Path], tmp_path_factory: pytest.TempPathFactory) -> MakeEnvironment:
    """Makes an empty environment with our wheels, their dependencies and the wheels that it is given."""

    def make(*wheels: Path, needs: Iterable[str] = ("voxengine", "voxengine-mock")) -> Environment:
        folder = tmp_path_factory.mktemp("environment") / "venv"
        return Environment(folder, needs=needs, wheels=[*ours, *wheels])

    return make
