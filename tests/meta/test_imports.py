"""Imports point downward: read from the source, with every import that there is, deferred ones too."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.meta.test_exports import public_modules
from tests.meta.tree import CORE, PLUGINS, Import, imports, modules

# Lowest first. A module imports from its own row and from lower ones.
ROWS: tuple[tuple[str, ...], ...] = (
    ("errors", "scrubbing", "_checks", "audio.format", "audio.disposable"),
    (
        "events", "capabilities", "config", "audio.pcm", "audio.wav", "audio.vad", "audio.g711", "audio.rings",
        "audio.buffers", "audio.levels", "audio.devices", "audio.options", "_config_json",
    ),
    (
        "history", "_items", "notes", "codec", "tools", "voices", "_json_types", "_signature", "metrics", "activity", "threads",
        "recording_values", "recording_file",
    ),
    (
        "hookspecs", "providers.base", "providers.contract", "providers.entry_points", "providers.registry",
        "taps", "bus",
    ),
    (
        "transport.*", "audio.playback", "audio.processors", "audio.backends.*", "audio.watchdog",
        "audio.capture", "audio.detectors", "audio.player", "audio.switching",
    ),
    (
        "agent_turns",
        "journal", "lanes", "session", "sender", "responses", "conversation", "calls", "inputs", "output", "turns",
        "user_turns", "agent_turns", "barge_in", "ears", "telling", "says",
    ),
    (
        "engine", "continuity", "lifecycle", "adapting", "replay", "reconnect", "failover", "rollover", "deadlines",
        "listening", "keeping", "snapshot", "recording", "recording_clock",
        "recording_pace", "recording_provider", "recording_shown", "replay_provider",
    ),
    ("cli.*", "testing.*", "replaying", "replaying_parts", "replaying_score", "__main__"),
)  # fmt: skip

# module -> {imported module: why}. Each entry must be needed, or the test fails.
EXCEPTIONS: dict[str, dict[str, str]] = {}

# What only one place may import, so that a machine without it can use the rest.
GUARDED = {
    "pyaudio": "audio.backends.pyaudio",
    "rich": "cli.terminal",
    "picows": "transport.fast",
    "pytest": "testing",
}
HEAVY = {
    "numpy": ("audio.pcm", "audio.wav", "audio.vad"),
    "websockets": ("transport.websocket", "transport.framed"),
}


def relative(name: str) -> str:
    return name.removeprefix("voxengine").lstrip(".")


def row_of(name: str) -> int | None:
    for number, row in enumerate(ROWS):
        for pattern in row:
            package = pattern.removesuffix(".*")
            if name == pattern or (
                pattern.endswith(".*") and (name == package or name.startswith(package + "."))
            ):
                return number
    return None


def own_module(item: Import) -> str | None:
    """The module of the core that an import reads from; None for others and for a package's ``__init__``."""
    for name in (item.full, item.module):
        if name in modules() and name.partition(".")[0] == "voxengine":
            path = modules()[name]
            return None if path.name == "__init__.py" and row_of(relative(name)) is None else relative(name)
    return None


SOURCES = {relative(name): path for name, path in modules().items() if path.name != "__init__.py"}


@pytest.mark.parametrize("name", SOURCES)
def test_module_has_a_row(name: str) -> None:
    assert row_of(name) is not None, f"{name} is in no row of ROWS. Put it into the lowest that fits."


def test_rows_name_no_module_that_is_gone() -> None:
    gone = [
        pattern
        for row in ROWS
        for pattern in row
        if not any(
            row_of(name) is not None and re.fullmatch(pattern.replace(".*", r"(\..*)?"), name)
            for name in SOURCES
        )
    ]

    assert gone == []


@pytest.mark.parametrize("name", SOURCES)
def test_imports_point_downward(name: str) -> None:
    upward = {}
    for item in imports(SOURCES[name], f"voxengine.{name}".rpartition(".")[0]):
        target = own_module(item)
        if target is None:
            continue
        row, target_row = row_of(name), row_of(target)
        assert row is not None
        if target_row is None or target_row > row:
            upward[target] = f"line {item.line}: {name} (row {row}) imports {target} (row {target_row})"

    assert sorted(upward) == sorted(EXCEPTIONS.get(name, {})), "\n".join(upward.values())


def test_no_circle_of_imports_that_run_at_once() -> None:
    needs = {
        name: {
            target
            for item in imports(path, f"voxengine.{name}".rpartition(".")[0])
            if not item.is_deferred and not item.is_for_types and (target := own_module(item)) in SOURCES
        }
        for name, path in SOURCES.items()
    }
    while free := [name for name, wanted in needs.items() if not wanted & set(needs)]:
        for name in free:
            del needs[name]

    assert needs == {}


@pytest.mark.parametrize("distribution", GUARDED)
def test_optional_distribution_is_imported_in_one_place(distribution: str) -> None:
    users = [
        relative(name)
        for name, path in modules().items()
        if any(item.module.partition(".")[0] == distribution for item in imports(path, name))
    ]
    place = GUARDED[distribution]

    assert [user for user in users if user != place and not user.startswith(place + ".")] == []


@pytest.mark.parametrize("distribution", HEAVY)
def test_heavy_distribution_is_imported_at_once_by_leaf_modules_only(distribution: str) -> None:
    users = {
        relative(name)
        for name, path in modules().items()
        for item in imports(path, name)
        if item.module.partition(".")[0] == distribution and not item.is_deferred and not item.is_for_types
    }

    assert users <= set(HEAVY[distribution])


# --- Plug-ins ----------------------------------------------------------------------------------------

PLUGIN_SOURCES = {
    f"{folder.parent.name}/{name}": path for folder in PLUGINS for name, path in modules(folder).items()
}


def undocumented(path: Path, package: str) -> list[str]:
    """Imports from the core that the page of public modules does not list."""
    public = public_modules()
    return [
        f"line {item.line}: {item.full}"
        for item in imports(path, package)
        if item.module.partition(".")[0] == "voxengine"
        and item.name not in public.get(item.module, [])
        and item.full not in public
    ]


@pytest.mark.parametrize("source", PLUGIN_SOURCES)
def test_plugin_imports_only_documented_names_of_the_core(source: str) -> None:
    assert undocumented(PLUGIN_SOURCES[source], source.partition("/")[2].rpartition(".")[0]) == []


@pytest.mark.parametrize("source", PLUGIN_SOURCES)
def test_plugin_imports_nothing_that_it_does_not_declare(source: str) -> None:
    folder = source.partition("/")[0]
    declared = {"voxengine", folder.replace("-", "_")} | OPTIONAL.get(folder, set())
    foreign = {
        item.module.partition(".")[0]
        for item in imports(PLUGIN_SOURCES[source], source.partition("/")[2].rpartition(".")[0])
    }

    assert {name for name in foreign if name not in sys.stdlib_module_names} <= declared | SHARED


# What a plug-in gets with the core, and what it may use when its extra is installed.
SHARED = {"attrs", "numpy", "websockets", "__future__"}
OPTIONAL = {
    # The dialects of another plug-in's protocol and their schema; the mock is its extra [emulator].
    "voxengine-azure": {"msgspec", "voxengine_mock", "voxengine_openai"},
    "voxengine-mock": {"espeakng_loader", "trustme"},
    # msgspec and pybase64 are its own dependencies, the mock is its extra [emulator].
    "voxengine-openai": {"msgspec", "pybase64", "voxengine_mock"},
}


# --- The checks themselves --------------------------------------------------------------------------


def test_upward_arrow_is_seen_wherever_it_stands(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from voxengine.engine import VoiceEngine\n"
        "def f():\n    import voxengine.session\n"
        "from voxengine import cli\n"
        "from .bus import EventBus\n"
    )

    found = {own_module(item): (item.is_deferred, item.is_for_types) for item in imports(source, "voxengine")}

    assert found == {
        None: (False, False),
        "engine": (False, True),
        "session": (True, False),
        "cli": (False, False),
        "bus": (False, False),
    }
    assert CORE.is_dir()


@pytest.mark.parametrize(
    ("line", "is_public"),
    [
        ("from voxengine import BaseProvider", True),
        ("import voxengine.errors", True),
        ("from voxengine import errors", True),
        ("from voxengine.history import Item", True),
        ("from voxengine._items import Item", False),
        ("from voxengine.session import Session", False),
        ("from voxengine import session", False),
        ("from voxengine.config import _MASK", False),
    ],
)
def test_undocumented_import_of_a_plugin_is_seen(line: str, is_public: bool, tmp_path: Path) -> None:
    source = tmp_path / "plugin.py"
    source.write_text(line)

    assert (undocumented(source, "acme") == []) is is_public
