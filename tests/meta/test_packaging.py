"""What is packaged, pinned and promised about installing, read from the files and from the installation."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from scripts.export_constraints import WEBSOCKETS_MAJORS, WITNESSES, group_inputs, requirement_name

ROOT = Path(__file__).resolve().parents[2]
NOXFILE = ROOT / "noxfile.py"
KINDS = {"added", "changed", "deprecated", "removed", "fixed", "security"}
FOLDERS = {
    "voxengine": "core",
    "voxengine-audio-processors": "plugins/voxengine-audio-processors",
    "voxengine-azure": "plugins/voxengine-azure",
    "voxengine-mock": "plugins/voxengine-mock",
    "voxengine-openai": "plugins/voxengine-openai",
}

# Set by the sessions of noxfile.py, which install wheels; an editable environment proves less.
from_wheels = pytest.mark.skipif(
    "VOXENGINE_TEST_INSTALLED" not in os.environ, reason="needs the wheels: python3 noxfile.py -s tests"
)
each_distribution = pytest.mark.parametrize("name", FOLDERS)


@functools.cache
def toml(path: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / path).read_text("utf-8"))


def project(name: str) -> dict[str, Any]:
    table: dict[str, Any] = toml(f"{FOLDERS[name]}/pyproject.toml")["project"]
    return table


def package(name: str) -> str:
    return name.replace("-", "_")


def project_files() -> Iterator[Path]:
    """Every file that belongs to the project: by git where there is one, else by looking."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
        files = [ROOT / os.fsdecode(name) for name in listed.split(b"\0") if name]
    else:
        passed_over = re.compile(
            r"\.(git|nox|venv|\w+_cache|hypothesis|coverage.*)|dist|build|demo|__pycache__|.*\.egg-info"
        )
        files = [
            path
            for path in ROOT.rglob("*")
            if not any(passed_over.fullmatch(part) for part in path.relative_to(ROOT).parts)
        ]
    yield from (path for path in files if path.is_file())


def test_every_distribution_of_the_tree_is_examined_here() -> None:
    found = {str(path.parent.relative_to(ROOT)) for path in ROOT.glob("*/**/pyproject.toml")}
    found = {folder for folder in found if not folder.startswith((".", "dist", "build", "tests"))}

    assert found == set(FOLDERS.values())


# --- Versions and dependencies ---------------------------------------------------------------------


@each_distribution
def test_version_is_static_and_the_installed_one(name: str) -> None:
    version = project(name)["version"]

    assert "dynamic" not in project(name)
    assert importlib.metadata.version(name) == version


def test_core_reports_the_version_of_its_distribution() -> None:
    assert importlib.import_module("voxengine").__version__ == project("voxengine")["version"]


def test_versions_share_the_minor_that_plugins_pin() -> None:
    major, minor, _ = project("voxengine")["version"].split(".")

    for name in set(FOLDERS) - {"voxengine"}:
        assert project(name)["version"].split(".")[:2] == [major, minor]
        assert f"voxengine>={major}.{minor},<{major}.{int(minor) + 1}" in project(name)["dependencies"]


def test_installed_core_requires_four_distributions() -> None:
    requires = [Requirement(text) for text in importlib.metadata.requires("voxengine") or []]
    always = {item.name for item in requires if item.marker is None or "extra" not in str(item.marker)}

    assert always == {"attrs", "numpy", "pluggy", "websockets"}


def test_installed_mock_requires_the_core_alone() -> None:
    requires = [Requirement(text) for text in importlib.metadata.requires("voxengine-mock") or []]
    always = {item.name for item in requires if item.marker is None or "extra" not in str(item.marker)}

    assert always == {"voxengine"}


def test_installed_audio_processors_require_the_core_alone() -> None:
    requires = [Requirement(text) for text in importlib.metadata.requires("voxengine-audio-processors") or []]
    always = {item.name for item in requires if item.marker is None or "extra" not in str(item.marker)}

    assert always == {"voxengine"}


def test_installed_openai_requires_the_core_and_two_small_distributions() -> None:
    requires = [Requirement(text) for text in importlib.metadata.requires("voxengine-openai") or []]
    always = {item.name for item in requires if item.marker is None or "extra" not in str(item.marker)}

    assert always == {"voxengine", "msgspec", "pybase64"}


# --- What the wheels hold --------------------------------------------------------------------------


@from_wheels
@each_distribution
def test_package_under_test_is_the_installed_wheel(name: str) -> None:
    module = importlib.import_module(package(name))

    assert module.__file__ is not None
    assert "site-packages" in Path(module.__file__).parts


@from_wheels
@each_distribution
def test_wheel_holds_every_source_file_and_the_licence(name: str) -> None:
    folder = ROOT / FOLDERS[name] / "src"
    wanted = {
        path.relative_to(folder).as_posix()
        for path in (folder / package(name)).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    files = {str(file) for file in importlib.metadata.files(name) or []}
    held = {file for file in files if file.startswith(package(name) + "/") and not file.endswith(".pyc")}

    assert held == wanted
    assert f"{package(name)}/py.typed" in held
    assert any(file.endswith(".dist-info/licenses/LICENSE") for file in files)


@each_distribution
def test_licence_of_each_distribution_is_the_project_s(name: str) -> None:
    assert (ROOT / FOLDERS[name] / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_mock_is_found_through_its_entry_point() -> None:
    (found,) = importlib.metadata.entry_points(group="voxengine.providers", name="mock")

    assert found.value == "voxengine_mock:MockProvider"
    assert found.dist is not None
    assert found.dist.name == "voxengine-mock"
    assert isinstance(found.load(), type)


def test_command_is_installed_with_the_core() -> None:
    (found,) = importlib.metadata.entry_points(group="console_scripts", name="voxengine")

    assert found.value == "voxengine.cli:main"
    assert callable(found.load())


# --- What the project's files name -----------------------------------------------------------------


def test_no_file_names_an_index_host_or_a_machine_path() -> None:
    hosts = r"pypi\.org|pythonhosted\.|piwheels\.|deb\.debian\.|npmjs\.|crates\.io|ghcr\.io|docker\.io"
    paths = r"(?<![\w.~}])/(?:root|work|home|Users)/"
    pattern = re.compile(f"{hosts}|{paths}".encode())

    found = {
        f"{path.relative_to(ROOT)}: {match[0].decode()}"
        for path in project_files()
        if (match := pattern.search(path.read_bytes()))
    }

    assert found == set()


def test_no_lock_file_belongs_to_the_project() -> None:
    names = {path.name for path in project_files()}

    assert not {name for name in names if name == "uv.lock" or name.startswith("pylock")}


# --- Pins -----------------------------------------------------------------------------------------


def pin_blocks(file: str) -> list[tuple[set[str], Requirement, list[str]]]:
    """Groups, requirement and hashes of each pin of a constraints file."""
    blocks = re.split(r"(?m)^# for: ", (ROOT / file).read_text("utf-8"))[1:]
    found = []
    for block in blocks:
        groups, _, body = block.partition("\n")
        requirement, *hashes = re.split(r"\s*\\\n\s*", body.strip())
        found.append((set(groups.split()), Requirement(requirement), hashes))
    return found


@pytest.mark.parametrize("file", ["constraints.txt", "constraints-matrix.txt", "constraints-witnesses.txt"])
def test_every_pin_is_exact_and_hashed_and_no_address_is_named(file: str) -> None:
    text = (ROOT / file).read_text("utf-8")
    blocks = pin_blocks(file)

    for _, requirement, hashes in blocks:
        assert re.fullmatch(r"==[\w.]+", str(requirement.specifier)), requirement
        assert hashes, requirement
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", item) for item in hashes), requirement
    pinned_lines = re.findall(r"(?m)^[A-Za-z0-9].*==", text)
    assert len(blocks) == len(pinned_lines) > 0
    assert "://" not in text


@pytest.mark.parametrize("group", sorted(group_inputs()))
def test_pins_of_a_group_meet_what_the_group_asks_for(group: str) -> None:
    pinned: dict[str, list[str]] = {}
    file = "constraints-witnesses.txt" if group == WITNESSES else "constraints.txt"
    for groups, requirement, _ in pin_blocks(file):
        if group in groups:
            version = str(requirement.specifier).removeprefix("==")
            pinned.setdefault(requirement_name(requirement.name), []).append(version)

    for wanted in map(Requirement, group_inputs()[group]):
        versions = pinned.get(requirement_name(wanted.name), [])
        assert versions, f"{wanted} has no pin. Try: python3 noxfile.py -s constraints"
        assert all(wanted.specifier.contains(version) for version in versions), f"{wanted}: {versions}"


def test_matrix_covers_every_supported_websockets_and_python() -> None:
    (supported,) = (text for text in project("voxengine")["dependencies"] if text.startswith("websockets"))
    allowed = Requirement(supported).specifier
    majors = {str(major) for major in range(10, 40) if allowed.contains(f"{major}.0")}
    pythons = {
        text.rpartition(" ")[2]
        for text in project("voxengine")["classifiers"]
        if re.search(r":: 3\.\d+$", text)
    }
    constants = noxfile_constants()

    pinned = {next(iter(groups)): pin for groups, pin, _ in pin_blocks("constraints-matrix.txt")}

    assert set(constants["WEBSOCKETS_MAJORS"]) == set(WEBSOCKETS_MAJORS) == majors
    assert set(constants["PYTHONS"]) == pythons
    assert set(pinned) == {f"websockets-{major}" for major in majors}
    for group, pin in pinned.items():
        assert str(pin.specifier).startswith("==" + group.removeprefix("websockets-") + ".")


@pytest.mark.skipif("VOXENGINE_TEST_WEBSOCKETS" not in os.environ, reason="set by the matrix session")
def test_matrix_runs_against_the_version_that_it_names() -> None:
    major = importlib.metadata.version("websockets").split(".")[0]

    assert major == os.environ["VOXENGINE_TEST_WEBSOCKETS"]


# --- Changelog and tools ---------------------------------------------------------------------------


@each_distribution
def test_changelog_fragments_are_of_declared_kinds(name: str) -> None:
    folder = ROOT / FOLDERS[name]
    tool = toml(f"{FOLDERS[name]}/pyproject.toml")["tool"]["towncrier"]
    fragments = [path.name for path in (folder / tool["directory"]).iterdir() if path.name != "README.md"]

    kinds = {kind["directory"] for kind in tool["type"]}

    assert kinds == KINDS
    assert (folder / tool["filename"]).is_file()
    for fragment in fragments:
        assert re.fullmatch(r"\+[a-z0-9-]+\.(\w+)\.md", fragment), fragment
        assert fragment.split(".")[-2] in kinds, fragment


@each_distribution
def test_tools_know_every_distribution(name: str) -> None:
    tool = toml("pyproject.toml")["tool"]

    assert f"{FOLDERS[name]}/src" in tool["mypy"]["mypy_path"]
    assert package(name) in tool["ruff"]["lint"]["isort"]["known-first-party"]
    assert package(name) in tool["coverage"]["run"]["source_pkgs"]
    assert tool["uv"]["sources"][name] == {"workspace": True}


# --- The noxfile starts itself ---------------------------------------------------------------------


def noxfile_constants() -> dict[str, Any]:
    tree = ast.parse(NOXFILE.read_text("utf-8"))
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return found


def old_pythons() -> list[str]:
    """Interpreters of this machine that are too old for the project, and that start."""
    candidates = [found for minor in range(6, 11) if (found := shutil.which(f"python3.{minor}"))]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    candidates += [str(path) for path in sorted(pyenv.glob("3.[6-9].*/bin/python3"))]
    candidates += [str(path) for path in sorted(pyenv.glob("3.10.*/bin/python3"))]
    starts = []
    for candidate in candidates:
        probe = subprocess.run([candidate, "-c", ""], capture_output=True, check=False)
        if probe.returncode == 0:
            starts.append(candidate)
    return starts


def assert_one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr


def test_old_python_is_told_in_one_line() -> None:
    faked = (
        "import sys, runpy; sys.version_info = (3, 9, 2, 'final', 0); "
        f"runpy.run_path({str(NOXFILE)!r}, run_name='__main__')"
    )

    done = subprocess.run([sys.executable, "-c", faked], capture_output=True, text=True, check=False)

    assert_one_line(done, "3.11", "3.9")


def test_really_old_pythons_are_told_in_one_line() -> None:
    interpreters = old_pythons()
    if not interpreters:
        pytest.skip("no Python from 3.6 to 3.10 here; the faked version covers the line")

    for interpreter in interpreters:
        done = subprocess.run(
            [interpreter, str(NOXFILE), "-s", "demo"], capture_output=True, text=True, check=False
        )

        assert_one_line(done, "3.11", interpreter)


def test_noxfile_has_no_syntax_that_an_old_python_refuses() -> None:
    source = NOXFILE.read_text("utf-8")

    tree = ast.parse(source, feature_version=(3, 7))

    futures = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    assert futures == []


def test_inline_script_metadata_names_what_the_bootstrap_group_names() -> None:
    lines = NOXFILE.read_text("utf-8").split("# /// script\n")[1].split("# ///\n")[0].splitlines()

    metadata = tomllib.loads("\n".join(line.removeprefix("# ") for line in lines))

    assert metadata["dependencies"] == toml("pyproject.toml")["dependency-groups"]["bootstrap"]
    assert metadata["requires-python"] == project("voxengine")["requires-python"]


FAKE_PIP = '''
import json, os, pathlib, sys
arguments = sys.argv[1:]
target = pathlib.Path(arguments[arguments.index("--target") + 1])
with open(os.environ["PIP_CALLS"], "a") as calls:
    calls.write(json.dumps({"arguments": arguments, "user": os.environ.get("PIP_USER")}) + "\\n")
(target / "bin").mkdir(parents=True)
if "PIP_BREAKS" in os.environ:
    sys.exit("no network")
(target / "nox.py").write_text("""
class options: pass
class Session: pass
def session(function=None, **ignored): return function or (lambda wrapped: wrapped)
def parametrize(*ignored): return lambda wrapped: wrapped
def main(): print("nox started")
""")
uv = target / "bin" / "uv"
uv.write_text("#!/bin/sh")
uv.chmod(0o755)
'''


class Checkout:
    """A folder with the noxfile and its pins, started by a Python that has no packages but a fake pip."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "a check out"
        self.folder.mkdir()
        for name in ("noxfile.py", "constraints.txt"):
            shutil.copy(ROOT / name, self.folder)
        self.modules = folder / "modules"
        self._calls = folder / "calls"

    def give_pip(self) -> None:
        (self.modules / "pip").mkdir(parents=True)
        (self.modules / "pip" / "__init__.py").touch()
        (self.modules / "pip" / "__main__.py").write_text(FAKE_PIP, "utf-8")

    def start(self, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": str(self.folder),
            "PYTHONPATH": str(self.modules),
            "PIP_CALLS": str(self._calls),
        }
        return subprocess.run(
            [sys.executable, "-S", "-s", str(self.folder / "noxfile.py"), "-s", "demo"],
            env=environment | variables,
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._calls.read_text("utf-8").splitlines()]

    def bootstrap_folders(self) -> list[Path]:
        return sorted((self.folder / ".nox").glob("bootstrap-*"))


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


posix = pytest.mark.skipif(os.name == "nt", reason="the fake uv is a shell script")


def test_python_without_pip_is_told_in_one_line(checkout: Checkout) -> None:
    done = checkout.start()

    assert_one_line(done, "pip", "python3-pip", "ensurepip")
    assert not (checkout.folder / ".nox").exists()


@posix
def test_first_start_installs_hashed_pins_once(checkout: Checkout) -> None:
    checkout.give_pip()

    first, second = checkout.start(PIP_USER="1"), checkout.start(PIP_USER="1")

    assert first.stdout.endswith("nox started\n"), first.stderr
    assert second.stdout == "nox started\n", second.stderr
    (call,) = checkout.calls()
    assert {"install", "--require-hashes", "--no-user", "--target"} <= set(call["arguments"])
    assert call["user"] is None
    version = "bootstrap-{}.{}".format(*sys.version_info[:2])
    assert [folder.name for folder in checkout.bootstrap_folders()] == [version]


@posix
def test_half_made_bootstrap_is_made_again(checkout: Checkout) -> None:
    checkout.give_pip()
    checkout.start()
    (folder,) = checkout.bootstrap_folders()
    (folder / "complete").unlink()
    (folder / "nox.py").unlink()

    again = checkout.start()

    assert again.stdout.endswith("nox started\n"), again.stderr
    assert len(checkout.calls()) == 2


@posix
def test_bootstrap_of_other_pins_is_made_again(checkout: Checkout) -> None:
    checkout.give_pip()
    checkout.start()
    pins = checkout.folder / "constraints.txt"
    pins.write_text(re.sub(r"(?m)^nox==\S+", "nox==9999.1", pins.read_text("utf-8")), "utf-8")

    again = checkout.start()

    assert again.stdout.endswith("nox started\n"), again.stderr
    assert len(checkout.calls()) == 2


@posix
def test_failing_pip_leaves_no_bootstrap_folder(checkout: Checkout) -> None:
    checkout.give_pip()

    broken = checkout.start(PIP_BREAKS="1")

    assert broken.returncode == 1
    assert broken.stderr.splitlines()[-1].startswith("noxfile.py: pip could not fetch")
    assert checkout.bootstrap_folders() == []
