"""The tables of the reference say what the code says."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.meta.test_exports import public_modules
from tests.meta.tree import CORE, DOCS, PLUGINS, headings, modules, parsed, table_rows
from voxengine.audio.options import DeviceOptions
from voxengine.bus import EventBus
from voxengine.capabilities import HOOK_CAPABILITIES, ROWS, Capabilities, Support
from voxengine.config import Deadlines, Reconnect, TurnDetection, VoiceEngineConfig
from voxengine.engine import VoiceEngine
from voxengine.errors import ErrorCode, ProviderError, VoxEngineError
from voxengine.events import EventType, event_class
from voxengine.hookspecs import OPTIONAL_HOOKS, REQUIRED_HOOKS
from voxengine.keeping import Keeping
from voxengine.providers.base import BaseProvider
from voxengine.providers.registry import default_registry

REFERENCE = DOCS / "reference"


def section(page: str, heading: str) -> str:
    """The text under a heading, down to the next of any level."""
    text = (REFERENCE / page).read_text("utf-8")
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, f"{page} has no heading {heading!r}"
    return found[1]


def rows(page: str, heading: str, tmp: Path) -> list[list[str]]:
    """The table under a heading, without its first row."""
    file = tmp / "section.md"
    file.write_text(section(page, heading), "utf-8")
    return [[cell.replace("`", "") for cell in row] for row in table_rows(file)[1:]]


def as_shown(value: object) -> str:
    if isinstance(value, TurnDetection):
        return f'"{value.kind}"'
    if isinstance(value, Deadlines | Reconnect | DeviceOptions):
        return f"{type(value).__name__}()"
    if isinstance(value, Mapping):
        return repr(dict(value))
    return f'"{value}"' if isinstance(value, str) else repr(value)


# --- Configuration ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heading", "cls"),
    [
        ("Fields", VoiceEngineConfig),
        ("TurnDetection", TurnDetection),
        ("DeviceOptions", DeviceOptions),
        ("Deadlines", Deadlines),
        ("Reconnect", Reconnect),
    ],
)
def test_every_field_is_listed_with_its_default(heading: str, cls: type[Any], tmp_path: Path) -> None:
    shown = [(row[0], row[1]) for row in rows("configuration.md", heading, tmp_path)]

    assert shown == [(field.name, as_shown(getattr(cls(), field.name))) for field in attrs.fields(cls)]


@pytest.mark.parametrize(
    ("heading", "cls"),
    [
        ("Fields", VoiceEngineConfig),
        ("TurnDetection", TurnDetection),
        ("DeviceOptions", DeviceOptions),
        ("Deadlines", Deadlines),
        ("Reconnect", Reconnect),
    ],
)
def test_every_word_that_is_listed_is_taken(heading: str, cls: type[Any], tmp_path: Path) -> None:
    for name, _, takes, _ in rows("configuration.md", heading, tmp_path):
        bounds = re.fullmatch(r"(?:int|number), ([\d.]+) to ([\d.]+)", takes)
        words = re.findall(r"[a-z]+", takes) if re.fullmatch(r"[a-z]+(?:, [a-z]+)+", takes) else []
        values: list[Any] = [float(bound) for bound in bounds.groups()] if bounds else list(words)
        whole = takes.startswith("int")
        for value in values:
            assert getattr(cls(**{name: int(value) if whole else value}), name) == value
        for value in (values[0] - 1, values[-1] + 1) if bounds else ():
            with pytest.raises(VoxEngineError):
                cls(**{name: int(value) if whole else value})


def test_flat_keys_are_the_ones_that_work(tmp_path: Path) -> None:
    values = {"model": "m", "voice": "v", "temperature": 0.5, "max_output_tokens": 9}

    shown = {row[0]: row[1] for row in rows("configuration.md", "One option, several spellings", tmp_path)}

    assert set(shown) == set(values)
    for field, key in shown.items():
        assert VoiceEngineConfig(metadata={key: values[field]}).option(field) == values[field]


# --- Events ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("event_type", list(EventType))
def test_event_is_described_with_its_fields(event_type: EventType, tmp_path: Path) -> None:
    cls = event_class(event_type)

    shown = [row[0] for row in rows("events.md", event_type.name, tmp_path)]

    assert shown == list(cls.__annotations__)
    assert f"`{cls.__name__}`" in section("events.md", event_type.name)


def test_no_event_is_described_that_is_gone() -> None:
    shown = [heading for heading in headings(REFERENCE / "events.md") if heading.isupper()]

    assert shown == [event_type.name for event_type in EventType]


def test_calls_of_the_bus_are_the_ones_there_are(tmp_path: Path) -> None:
    for row in rows("events.md", "Listening", tmp_path):
        name, _, arguments = row[0].partition("(")

        assert hasattr(EventBus(lambda: 0.0), name)
        if arguments:
            assert row[0] == call(name, getattr(EventBus, name))


# --- Capabilities ----------------------------------------------------------------------------------


def test_capability_tables_are_complete(tmp_path: Path) -> None:
    facts = [field.name for field in attrs.fields(Capabilities) if field.name not in ROWS]

    assert [row[0] for row in rows("capabilities.md", "Words", tmp_path)] == list(Support)
    assert [row[0] for row in rows("capabilities.md", "Rows", tmp_path)] == list(ROWS)
    assert [row[:2] for row in rows("capabilities.md", "Facts", tmp_path)] == [
        [name, as_shown(getattr(Capabilities(), name))] for name in facts
    ]
    assert dict(rows("capabilities.md", "Rows that gate a hook", tmp_path)) == HOOK_CAPABILITIES


# --- Errors ----------------------------------------------------------------------------------------


def all_errors() -> dict[str, type[VoxEngineError]]:
    return {
        name: value
        for module in public_modules()
        for name, value in vars(importlib.import_module(module)).items()
        if inspect.isclass(value) and issubclass(value, VoxEngineError)
    }


def test_every_error_is_listed_and_drawn(tmp_path: Path) -> None:
    shown = [row[0] for row in rows("errors.md", "Classes", tmp_path)]
    drawn = re.findall(r"\w+", section("errors.md", "Errors").partition("```text")[2].partition("```")[0])

    assert set(shown) == set(drawn) == set(all_errors())
    assert len(shown) == len(drawn) == len(all_errors())


def test_tree_is_drawn_as_the_classes_inherit() -> None:
    tree = section("errors.md", "Errors").partition("```text\n")[2].partition("```")[0]
    path: list[str] = []
    for line in tree.splitlines():
        name = re.sub(r"\W", "", line)
        depth = re.search(r"\w", line)
        assert depth is not None
        path = [*path[: depth.start() // 4], name]
        if len(path) > 1:
            assert all_errors()[name].__bases__[0] is all_errors()[path[-2]]


def test_every_code_is_listed_with_whether_a_retry_may_help(tmp_path: Path) -> None:
    shown = {row[0]: row[1] for row in rows("errors.md", "Codes", tmp_path)}

    assert shown == {
        code.value: "yes" if ProviderError("x", code=code).recoverable else "no" for code in ErrorCode
    }


def test_attributes_of_a_provider_error_are_listed(tmp_path: Path) -> None:
    shown = [row[0] for row in rows("errors.md", "Attributes of ProviderError", tmp_path)]

    assert shown == list(vars(ProviderError("x")))


def test_every_warning_of_the_core_is_listed(tmp_path: Path) -> None:
    shown = {row[0] for row in rows("errors.md", "Codes of WARNING events", tmp_path)}

    assert shown == {code for path in modules(CORE).values() for code in warning_codes(path)}


def test_every_warning_of_a_provider_is_listed_with_what_to_do(tmp_path: Path) -> None:
    shown = rows("errors.md", "Codes of WARNING events of the providers", tmp_path)
    of_the_core = {row[0] for row in rows("errors.md", "Codes of WARNING events", tmp_path)}

    assert {row[0] for row in shown} == provider_warning_codes() - of_the_core
    assert all(row[2] for row in shown)


def provider_warning_codes() -> set[str]:
    """The codes in ``warn("…", …)``, ``warnings.append((…, "…", …))`` and ``emit(EventType.WARNING, {"code": "…"})``."""
    found: set[str] = set()
    for path in (path for source in PLUGINS for path in modules(source).values()):
        for node in ast.walk(parsed(path)):
            match node:
                case ast.Call(func=ast.Attribute(attr="warn"), args=[ast.Constant(value=code), *_]):
                    found.add(str(code))
                case ast.Call(
                    func=ast.Attribute(attr="append", value=ast.Attribute(attr="warnings")),
                    args=[ast.Tuple(elts=[_, ast.Constant(value=code), _])],
                ):
                    found.add(str(code))
                case ast.Call(
                    args=[ast.Attribute(attr="WARNING"), ast.Dict(values=[ast.Constant(value=code), *_])]
                ):
                    found.add(str(code))
    return found


def warning_codes(path: Path) -> set[str]:
    """The codes of the warnings that a module emits: ``{"code": "…", "message": …}`` and ``_warn(…, "…", …)``."""
    found = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Dict):
            held = {ast.unparse(key): value for key, value in zip(node.keys, node.values, strict=True) if key}
            code = held.get("'code'")
            if isinstance(code, ast.Constant) and "'message'" in held:
                found.add(str(code.value))
        elif (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "_warn"
        ):
            found |= {
                str(argument.value)
                for argument in node.args[:2]
                if isinstance(argument, ast.Constant) and re.fullmatch(r"[a-z_]+", str(argument.value))
            }
    return found


# --- Engine and provider ---------------------------------------------------------------------------

# Public for the session that reports to the engine, and not for an application.
FOR_SESSIONS = {"session_event", "session_lost"}


def call(name: str, method: Any) -> str:
    """A call as the page shows it: names and defaults without annotations."""
    parts = []
    seen_star = False
    # Of a bound class method there is no first argument to pass over.
    for parameter in list(inspect.signature(getattr(method, "__func__", method)).parameters.values())[1:]:
        if parameter.kind is parameter.VAR_POSITIONAL:
            seen_star = True
            parts.append(f"*{parameter.name}")
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            parts.append(f"**{parameter.name}")
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not seen_star:
            seen_star = True
            parts.append("*")
        given = "default_registry" if parameter.default is default_registry else repr(parameter.default)
        default = "" if parameter.default is parameter.empty else f"={given}"
        parts.append(parameter.name + default)
    return f"{name}({', '.join(parts)})"


def test_every_member_of_the_engine_is_described_with_its_arguments() -> None:
    engine = VoiceEngine(VoiceEngineConfig(provider="mock"))
    members = {
        name for name in (*vars(Keeping), *vars(VoiceEngine), *vars(engine)) if not name.startswith("_")
    } - FOR_SESSIONS
    expected = {
        call(name, getattr(VoiceEngine, name)) if callable(getattr(VoiceEngine, name, None)) else name
        for name in members
    }

    shown = {
        heading for heading in headings(REFERENCE / "engine.md") if re.fullmatch(r"[a-z_]+(\(.*\))?", heading)
    }

    assert shown == expected


@pytest.mark.parametrize("page", sorted(REFERENCE.glob("*.md")), ids=lambda page: page.name)
def test_nothing_is_described_twice(page: Path) -> None:
    assert [heading for heading, n in Counter(headings(page)).items() if n > 1] == []


def test_members_of_a_provider_are_listed(tmp_path: Path) -> None:
    hooks = {*REQUIRED_HOOKS, *OPTIONAL_HOOKS}
    members = {name for name in vars(BaseProvider) if not name.startswith("_")} - hooks - {"attach"}

    shown = {
        row[0].partition("(")[0]: row[0] for row in rows("hooks.md", "What BaseProvider gives", tmp_path)
    }

    assert set(shown) == members
    for name, text in shown.items():
        value = inspect.getattr_static(BaseProvider, name)
        if inspect.isfunction(value):
            assert text == call(name, value)
