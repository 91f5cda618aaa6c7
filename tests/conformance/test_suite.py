"""The class of tests, run by pytest as a third party runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAD = """
from __future__ import annotations
import pytest
from voxengine.testing import FakeProvider, ProviderConformance
"""
WRONG = """
class Deaf(FakeProvider):
    async def interrupt(self, heard=None):
        raise RuntimeError("no")

class TestDeaf(ProviderConformance):
    clock = "virtual"
    @pytest.fixture
    def provider(self):
        return Deaf({})
"""
REAL = """
class TestReal(ProviderConformance):
    quiet_s = 0.05
    test_turn_is_answered = None
    @pytest.fixture
    def provider(self):
        return FakeProvider({})
"""
FACTORY = """
made = []
class TestFactory(ProviderConformance):
    clock = "virtual"
    @pytest.fixture
    def provider_factory(self):
        def make(**changes):
            made.append(changes)
            return FakeProvider({"metadata": {"from": "factory"}, **changes})
        return make

def test_factory_was_used():
    assert {} in made and any("turn_detection" in changes for changes in made)
"""
FORGOTTEN = """
class TestForgotten(ProviderConformance):
    clock = "virtual"
"""
PEERS = """
class Peerless(FakeProvider):
    conformance_peers = {}

class TestPeers(ProviderConformance):
    clock = "virtual"
    @pytest.fixture
    def provider(self):
        return Peerless({})
    @pytest.fixture
    def stalled_provider(self):
        return Peerless({"metadata": {"fault": "stall"}})
    @pytest.fixture
    def lossy_provider(self):
        return lambda: Peerless({"metadata": {"fault": "drop"}})
"""


def run(folder: Path, text: str, *arguments: str) -> tuple[int, str]:
    (folder / "test_it.py").write_text(HEAD + text, encoding="utf-8")
    options = ["-p", "no:cacheprovider", "-q", "-rfs", "-o", "asyncio_default_fixture_loop_scope=function"]
    command = [sys.executable, "-m", "pytest", *options, *arguments, "test_it.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=110)
    return done.returncode, done.stdout + done.stderr


def test_broken_law_is_a_failed_test_that_reads_well(tmp_path: Path) -> None:
    code, out = run(tmp_path, WRONG)

    assert code == 1
    assert "test_it.py::TestDeaf::test_interrupt_stops_the_answer" in out
    assert "interrupt() in the middle of an answer raised RuntimeError: no." in out
    assert "During handling" not in out


def test_coroutines_run_in_the_strict_mode_of_pytest_asyncio(tmp_path: Path) -> None:
    code, out = run(tmp_path, REAL, "-o", "asyncio_mode=strict", "-k", "life or connect or answer")

    assert code == 0, out
    assert "test_turn_is_answered" not in out


def test_factory_can_stand_in_for_the_instance(tmp_path: Path) -> None:
    code, out = run(tmp_path, FACTORY, "-W", "error")

    assert code == 0, out


def test_fixtures_of_bad_peers_are_used(tmp_path: Path) -> None:
    code, out = run(tmp_path, PEERS, "-k", "slow_service or stalled or lost_session or refused_cred")

    assert code == 0, out
    assert "3 passed, 1 skipped" in out
    assert "give refused_provider" in out


def test_missing_fixture_is_named(tmp_path: Path) -> None:
    code, out = run(tmp_path, FORGOTTEN, "-k", "turn_is_answered")

    assert code != 0
    assert "Give the fixture `provider`" in out


@pytest.mark.parametrize("name", ["run_laws, Subject, FakeProvider, SampleRecorder, LAWS", "virtual"])
def test_kit_without_its_class_of_tests_loads_no_pytest(name: str) -> None:
    program = f"import sys\nfrom voxengine.testing import {name}\nassert 'pytest' not in sys.modules"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
