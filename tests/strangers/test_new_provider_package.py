"""The package that ``voxengine new-provider`` writes, unchanged: it installs, is found, proven and talks."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.strangers.conftest import MakeEnvironment
from tests.strangers.environment import (
    Done,
    Environment,
    build_wheel,
    clean_variables,
    run,
    unavailable,
)

pytestmark = pytest.mark.slow

KEY = "sk-drive"
PROFILE = """\
[profiles.local]
provider = "acme-voice"
api_key_env = "ACME_VOICE_API_KEY"
metadata = {{ url = "{url}" }}
"""


@pytest.fixture(scope="module")
def environment(make_environment: MakeEnvironment) -> Environment:
    """Our wheels, and what tests need."""
    return make_environment(needs=("voxengine[testing]", "voxengine-mock"))


@pytest.fixture(scope="module")
def package(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as the installed command wrote it, installed as a wheel."""
    folder = tmp_path_factory.mktemp("generated")
    done = environment.command("new-provider", "acme-voice", "--name", "Acme Voice", cwd=folder)
    assert done.returncode == 0, done.stderr
    package = folder / "voxengine-acme-voice"
    environment.install(build_wheel(package, folder))
    return package


@contextlib.contextmanager
def emulated(environment: Environment, *arguments: str) -> Iterator[str]:
    """Run ``voxengine emulate`` beside the block and yield the URL that it printed; it has to end cleanly."""
    command = [str(environment.python.parent / "voxengine"), "emulate", "acme-voice", *arguments]
    with subprocess.Popen(
        command, env=clean_variables(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.communicate(timeout=10)[1]
            yield json.loads(line)["url"]
        finally:
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (0, "")


@attrs.frozen
class Proofs:
    """How the package's own tests and ``voxengine check`` ended, and the report of the latter."""

    suite: Done
    check: Done
    report: dict[str, Any]


@pytest.fixture(scope="module")
def proofs(environment: Environment, package: Path, tmp_path_factory: pytest.TempPathFactory) -> Proofs:
    """Both at once: they spend their time waiting for speech and for silence."""
    folder = tmp_path_factory.mktemp("proofs")
    report, profile = folder / "report.json", folder / "voxengine.toml"
    with emulated(environment) as url, ThreadPoolExecutor() as pool:
        profile.write_text(PROFILE.format(url=url), "utf-8")
        arguments: list[str | Path] = ["check", "acme-voice", "--profile", "local", "--json", report]
        check = pool.submit(environment.command, *arguments, cwd=folder, ACME_VOICE_API_KEY=KEY)
        suite = pool.submit(environment.run, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=package)
        done = suite.result(), check.result()
    return Proofs(*done, json.loads(report.read_text("utf-8")) if report.exists() else {})


def talk(environment: Environment, url: str, *arguments: str, key: str = KEY) -> Done:
    command = ["talk", "--provider", "acme-voice", "--url", url, *arguments]
    return environment.command(*command, ACME_VOICE_API_KEY=key)


def test_package_is_discovered(environment: Environment, package: Path) -> None:
    done = environment.command("providers", "acme-voice", "--json")

    (found,) = json.loads(done.stdout)["providers"]
    assert (found["distribution"], found["version"], found["error"]) == (
        "voxengine-acme-voice",
        "0.1.0",
        None,
    )
    assert found["services"][0]["capabilities"]["session_tools"]["support"] == "full"


def test_package_passes_its_own_tests(proofs: Proofs) -> None:
    assert proofs.suite.returncode == 0, proofs.suite.stdout + proofs.suite.stderr
    assert "failed" not in proofs.suite.stdout


def test_package_passes_the_check_against_its_own_emulator(proofs: Proofs) -> None:
    assert proofs.check.returncode == 0, proofs.check.stdout + proofs.check.stderr
    assert proofs.report["grade"] == "A", proofs.check.stdout


def test_package_talks_with_its_own_emulator(environment: Environment, package: Path, tmp_path: Path) -> None:
    answer = tmp_path / "answer.wav"

    with emulated(environment) as url:
        done = talk(environment, url, "--text", "Hello", "--output", str(answer))

    assert done.returncode == 0, done.stderr
    assert "agent" in done.stdout
    assert answer.stat().st_size > 44


def test_wrong_and_missing_keys_are_told_apart(environment: Environment, package: Path) -> None:
    with emulated(environment, "--key", "the-right-one") as url:
        wrong = talk(environment, url, "--text", "Hello", key="the-wrong-one")
        missing = talk(environment, url, "--text", "Hello", key="")

    assert (wrong.returncode, missing.returncode) == (1, 1)
    assert "the-wrong-one" not in wrong.stdout + wrong.stderr
    assert "acme-voice" in wrong.stderr
    assert missing.stderr == (
        "voxengine: acme-voice needs a key. Set api_key or the environment variable ACME_VOICE_API_KEY.\n"
    )


def test_faults_of_the_emulator_arrive_as_errors_with_their_meaning(
    environment: Environment, package: Path
) -> None:
    with emulated(environment, "--fault", "429 at=handshake retry_after=7") as url:
        done = talk(environment, url, "--text", "Hello")

    assert done.returncode == 1
    assert "acme-voice" in done.stderr
    assert "429" in done.stderr


@pytest.mark.parametrize("arguments", [["check", "."], ["format", "--check", "."]])
def test_package_is_clean_for_ruff(package: Path, arguments: list[str]) -> None:
    if importlib.util.find_spec("ruff") is None:
        unavailable("ruff is not installed")

    done = run([sys.executable, "-m", "ruff", *arguments, "--no-cache"], cwd=package)

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["z", "acme-voice-cloud-europe-west1a"])
def test_package_of_any_name_is_clean_for_ruff(environment: Environment, tmp_path: Path, name: str) -> None:
    if importlib.util.find_spec("ruff") is None:
        unavailable("ruff is not installed")
    folder = tmp_path / "package"
    assert environment.command("new-provider", name, "--directory", folder).returncode == 0

    checks = [
        run([sys.executable, "-m", "ruff", *arguments, "--no-cache"], cwd=folder)
        for arguments in (["check", "."], ["format", "--check", "."])
    ]

    assert [done.returncode for done in checks] == [0, 0], checks


def test_package_is_clean_for_mypy(environment: Environment, package: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("mypy") is None:
        unavailable("mypy is not installed")

    done = run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--python-executable",
            str(environment.python),
            "--cache-dir",
            str(tmp_path / "cache"),
        ],
        cwd=package,
    )

    assert done.returncode == 0, done.stdout
