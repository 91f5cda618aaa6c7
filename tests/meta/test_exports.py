"""What the packages export: it is there, in order, loaded when it is used, and documented."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import voxengine
from tests.meta.tree import CORE, DOCS, PLUGINS, modules, parsed

PUBLIC_PAGE = DOCS / "reference" / "modules.md"
EXPORTING = [
    name
    for folder in (CORE, *PLUGINS)
    for name, path in modules(folder).items()
    if any(
        isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        for node in parsed(path).body
    )
]


def public_modules() -> dict[str, list[str]]:
    """The modules that the page lists as public, with the names listed for each."""
    sections = re.split(r"^## `([\w.]+)`$", PUBLIC_PAGE.read_text("utf-8"), flags=re.MULTILINE)[1:]
    return {
        module: re.findall(r"`([\w.]+)`", text)
        for module, text in zip(sections[::2], sections[1::2], strict=True)
    }


def place(name: str) -> tuple[int, str]:
    """Constants first, then classes, then functions, as the linter sorts them."""
    bare = name.lstrip("_")
    kind = 0 if bare.isupper() and len(bare) > 1 else 1 if bare[:1].isupper() else 2
    return kind, name


@pytest.mark.parametrize("name", EXPORTING)
def test_every_exported_name_is_there_once_and_in_order(name: str) -> None:
    module = importlib.import_module(name)
    exported: list[str] = module.__all__

    assert [word for word in exported if not hasattr(module, word)] == []
    assert exported == sorted(set(exported), key=place)


@pytest.mark.parametrize("name", EXPORTING)
def test_private_names_are_not_exported(name: str) -> None:
    exported = importlib.import_module(name).__all__

    assert [word for word in exported if word.startswith("_") and word != "__version__"] == []


def test_every_module_of_the_core_says_what_it_exports() -> None:
    silent = {
        name
        for name, path in modules().items()
        if name not in EXPORTING and path.stat().st_size > 200 and not name.endswith("__main__")
    }

    assert silent == set()


def test_lazy_table_names_every_export_and_where_it_lives() -> None:
    for name in voxengine.__all__:
        if name == "__version__":
            continue
        home = importlib.import_module(voxengine._HOME[name])

        assert getattr(voxengine, name) is getattr(home, name)
        assert name in home.__all__
    assert set(voxengine._HOME) == set(voxengine.__all__) - {"__version__"}


def test_type_checkers_see_the_same_names() -> None:
    seen = {
        alias.name
        for node in ast.walk(parsed(Path(str(voxengine.__file__))))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("voxengine.")
        for alias in node.names
    }

    assert seen == set(voxengine.__all__) - {"__version__"}


def test_each_name_can_be_imported_first() -> None:
    program = "; ".join(
        [
            "import sys",
            *(
                f"import voxengine; from voxengine import {name}; "
                "[sys.modules.pop(m) for m in list(sys.modules) if m.split('.')[0] == 'voxengine']"
                for name in voxengine.__all__
            ),
        ]
    )

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )

    assert done.returncode == 0, done.stderr


def test_dir_shows_the_exports_before_they_are_loaded() -> None:
    program = "import voxengine; print(sorted(set(voxengine.__all__) - set(dir(voxengine))))"

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "module",
    [
        "voxengine",
        "voxengine.transport",
        "voxengine.testing",
        "voxengine_audio_processors",
        "voxengine_azure",
        "voxengine_mock",
        "voxengine_openai",
    ],
)
def test_unknown_name_is_an_attribute_error(module: str) -> None:
    with pytest.raises(AttributeError, match="'Voice'"):
        _ = importlib.import_module(module).Voice


@pytest.mark.parametrize("module", public_modules())
def test_page_of_public_modules_lists_what_each_exports(module: str) -> None:
    exported = importlib.import_module(module).__all__

    assert public_modules()[module] == exported, "write: " + ", ".join(f"`{name}`" for name in exported)


def test_every_export_of_the_package_comes_from_a_public_module() -> None:
    homes = set(voxengine._HOME.values())

    assert homes <= set(public_modules())
    assert list(public_modules()) == sorted(public_modules())
