"""``voxengine new-provider``: which names it takes, what it writes, and that it writes all or nothing."""

from __future__ import annotations

import ast
import importlib.resources
import keyword
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from string import Template

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.meta.test_imports import undocumented
from voxengine.cli.new_provider import FILES, Names, render
from voxengine.errors import ConfigError
from voxengine.providers.registry import FIRST_PARTY

Command = Callable[..., tuple[int, str, str]]

TAKEN = {*FIRST_PARTY, *keyword.kwlist, *keyword.softkwlist}
good_names = st.from_regex(r"[a-z][a-z0-9]{0,9}(-[a-z0-9]{1,9}){0,2}", fullmatch=True).filter(
    lambda name: len(name) <= 30 and name not in TAKEN
)
good_titles = st.text("Acme Ünïcode 12.&+-'()", min_size=1, max_size=30).filter(
    lambda title: title[0].isalnum() and title[-1].isalnum()
)


def written(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# --- What is written ---------------------------------------------------------------------------------


def test_package_is_written_into_a_folder_of_its_name(voxengine: Command, tmp_path: Path) -> None:
    code, out, err = voxengine("new-provider", "acme")

    assert (code, err) == (0, "")
    assert written(tmp_path / "voxengine-acme") == {
        path.replace("PACKAGE", "voxengine_acme") for path in FILES
    }
    assert "voxengine check acme" in out
    assert "ACME_API_KEY=" in out


def test_directory_and_title_can_be_given(voxengine: Command, tmp_path: Path) -> None:
    code, _, _ = voxengine("new-provider", "acme", "--directory", tmp_path / "here", "--name", "Acme Voice")

    assert code == 0
    project = tomllib.loads((tmp_path / "here" / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["description"] == "Acme Voice for VoxEngine."
    assert project["name"] == "voxengine-acme"


def test_entry_points_name_what_the_modules_define(tmp_path: Path) -> None:
    files = render(Names.of("acme-voice"))
    project = tomllib.loads(files["pyproject.toml"])["project"]

    for group, cls in (("voxengine.providers", "Provider"), ("voxengine.emulators", "Emulator")):
        ((name, target),) = project["entry-points"][group].items()
        module, _, attribute = target.partition(":")
        assert name == "acme-voice"
        assert attribute == f"AcmeVoice{cls}"
        path = f"src/{module.replace('.', '/')}"
        source = files.get(f"{path}.py") or files[f"{path}/__init__.py"]
        defined = {
            alias.name
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        defined |= {node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)}
        assert attribute in defined


@given(good_names, good_titles)
def test_every_good_name_gives_python_and_toml(name: str, title: str) -> None:
    files = render(Names.of(name, title))

    for path, text in files.items():
        assert "PACKAGE" not in path
        if path.endswith(".py"):
            ast.parse(text, path)
            assert max(map(len, text.splitlines()), default=0) <= 140
    project = tomllib.loads(files["pyproject.toml"])["project"]
    assert project["description"] == f"{title} for VoxEngine."


def test_every_template_is_used_and_every_placeholder_has_a_value() -> None:
    folder = importlib.resources.files("voxengine.cli").joinpath("templates")
    templates = {item.name: item for item in folder.iterdir() if item.name.endswith(".template")}

    used = {f"{template}.template" for template in FILES.values() if template}

    assert set(templates) == used
    wanted = {
        name for item in templates.values() for name in Template(item.read_text("utf-8")).get_identifiers()
    }
    assert wanted == set(Names.of("acme").values())


def test_code_imports_only_documented_names_of_the_core(tmp_path: Path) -> None:
    names = Names.of("acme")
    for path, text in render(names).items():
        file = tmp_path / Path(path).name
        file.write_text(text, "utf-8")

        if path.endswith(".py"):
            assert undocumented(file, names.package) == [], path


def test_workflow_keeps_its_own_dollar_signs() -> None:
    assert "python-version: ${{ matrix.python }}" in render(Names.of("acme"))[".github/workflows/tests.yml"]


# --- What is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Acme",
        "1acme",
        "acme_voice",
        "acme--voice",
        "-acme",
        "acme-",
        "a c",
        "../acme",
        "äcme",
        "acme\n",
        "a" * 31,
    ],
)
def test_name_that_is_none_is_refused_with_what_is_one(voxengine: Command, tmp_path: Path, name: str) -> None:
    code, out, err = voxengine("new-provider", "--", name)

    assert (code, out) == (2, "")
    assert err == (
        f"voxengine: {name!r} is no name for a provider. It takes lower-case letters, digits and single hyphens, "
        "a letter first, at most 30: for example 'acme' or 'acme-voice'.\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["class", "import", "match"])
def test_word_of_python_is_refused(voxengine: Command, tmp_path: Path, name: str) -> None:
    code, _, err = voxengine("new-provider", name)

    assert code == 2
    assert (
        err
        == f"voxengine: {name!r} is a word of Python's own. Choose another name, for example '{name}-voice'.\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", FIRST_PARTY)
def test_name_of_a_first_party_provider_is_refused(voxengine: Command, tmp_path: Path, name: str) -> None:
    code, _, err = voxengine("new-provider", name)

    assert code == 2
    assert f"{name!r} is the name of a provider in {FIRST_PARTY[name]}" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "title", ['A "quoted" one', "back\\slash", "two\nlines", "", " Acme", "$title", "x" * 31]
)
def test_title_that_could_break_a_file_is_refused(title: str) -> None:
    with pytest.raises(ConfigError, match="--name"):
        Names.of("acme", title)


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_exists_is_left_alone(voxengine: Command, tmp_path: Path, kind: str) -> None:
    place = tmp_path / "voxengine-acme"
    if kind == "folder":
        place.mkdir()
    elif kind == "file":
        place.write_text("mine")
    else:
        place.symlink_to(tmp_path / "nowhere")

    code, _, err = voxengine("new-provider", "acme")

    assert code == 2
    assert err == "voxengine: 'voxengine-acme' exists already. Give --directory with one that does not.\n"
    assert [path.name for path in tmp_path.iterdir()] == ["voxengine-acme"]
    assert not place.is_dir() or not list(place.iterdir())


def test_missing_parent_is_named(voxengine: Command, tmp_path: Path) -> None:
    code, _, err = voxengine("new-provider", "acme", "--directory", "absent/acme")

    assert code == 2
    assert err == "voxengine: There is no folder 'absent' to put 'acme' into. Make it first.\n"
    assert list(tmp_path.iterdir()) == []


def test_failure_in_the_middle_leaves_nothing(
    voxengine: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text = Path.write_text

    def full(self: Path, data: str, *args: str, **options: str) -> int:
        if self.name == "emulator.py":
            raise OSError(28, os.strerror(28))
        return write_text(self, data, *args, **options)

    monkeypatch.setattr(Path, "write_text", full)

    code, _, err = voxengine("new-provider", "acme")

    assert code == 2
    assert err == "voxengine: 'voxengine-acme' cannot be written: No space left on device.\n"
    assert list(tmp_path.iterdir()) == []
