"""Every hook has a heading with its arguments, a test, and an implementation in the mock provider."""

from __future__ import annotations

import ast
import functools
import inspect

import pytest

from tests.meta.tree import DOCS, ROOT, headings, parsed
from voxengine.capabilities import HOOK_CAPABILITIES, Support
from voxengine.hookspecs import OPTIONAL_HOOKS, REQUIRED_HOOKS, TAP_HOOKS, ProviderSpec, TapSpec
from voxengine.providers.base import overrides
from voxengine_mock import MockProvider

PROVIDER_HOOKS = (*REQUIRED_HOOKS, *OPTIONAL_HOOKS)
# What the template of all providers leaves out, each with its reason.
NOT_IN_THE_MOCK = {"resume": "an ended session of the simulated agent is forgotten"}
# Tables of all names, which prove nothing about a single hook.
TABLES = {"test_hookspecs.py"}


@functools.cache
def used_in_tests() -> dict[str, set[str]]:
    """For each name that a test calls or defines as a method, the files in which it does."""
    found: dict[str, set[str]] = {}
    for folder in ("tests/core", "tests/plugins", "tests/e2e", "tests/conformance"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.name in TABLES:
                continue
            for node in ast.walk(parsed(path)):
                name = None
                if isinstance(node, ast.Attribute):
                    name = node.attr
                elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    name = node.name
                elif isinstance(node, ast.keyword):
                    name = node.arg
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    name = node.value
                if name is not None:
                    found.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    return found


def signature(hook: str) -> str:
    spec = ProviderSpec if hook in PROVIDER_HOOKS else TapSpec
    names = list(inspect.signature(getattr(spec, hook)).parameters)[1:]
    return f"{hook}({', '.join(names)})"


@pytest.mark.parametrize("hook", [*PROVIDER_HOOKS, *TAP_HOOKS])
def test_hook_has_a_heading_with_its_arguments(hook: str) -> None:
    assert signature(hook) in headings(DOCS / "reference" / "hooks.md")


def test_page_has_no_heading_of_a_hook_that_is_gone() -> None:
    shown = [heading for heading in headings(DOCS / "reference" / "hooks.md") if heading.endswith(")")]

    assert shown == [signature(hook) for hook in (*PROVIDER_HOOKS, *TAP_HOOKS)]


@pytest.mark.parametrize("hook", OPTIONAL_HOOKS)
def test_page_says_which_capability_gates_the_hook(hook: str) -> None:
    text = (DOCS / "reference" / "hooks.md").read_text("utf-8")
    section = text.partition(f"### `{signature(hook)}`")[2].partition("\n#")[0]

    assert f"`{HOOK_CAPABILITIES[hook]}`" in section


@pytest.mark.parametrize("hook", [*PROVIDER_HOOKS, *TAP_HOOKS])
def test_hook_is_used_in_a_test(hook: str) -> None:
    assert used_in_tests().get(hook), f"no test calls or implements {hook}"


@pytest.mark.parametrize("hook", PROVIDER_HOOKS)
def test_mock_implements_the_hook_or_declares_that_it_does_not(hook: str) -> None:
    implemented = overrides(MockProvider, hook)

    assert implemented is (hook not in NOT_IN_THE_MOCK)
    if not implemented:
        cell = MockProvider.capabilities.support(HOOK_CAPABILITIES[hook])
        assert cell.support is Support.UNSUPPORTED
