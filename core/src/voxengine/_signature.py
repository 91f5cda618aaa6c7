"""What a function's signature and docstring say about a tool.

Inside :mod:`voxengine.tools`.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final

from voxengine._json_types import Parameter, compile_hint, make_parameter
from voxengine.errors import ConfigError

__all__ = ["first_paragraph", "parameter_descriptions", "read_signature"]


def read_signature(function: Callable[..., Any], name: str) -> tuple[Parameter, ...]:
    """Return the parameters that the agent fills in; those that a partial has filled are not among them.

    Raises:
        ConfigError: The first parameter that cannot be one of a tool, and why.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        raise ConfigError(
            f"Tool {name} has no readable signature. Wrap it in a def with annotations."
        ) from None
    filled: Mapping[str, Any] = function.keywords if isinstance(function, functools.partial) else {}
    asked = {key: value for key, value in signature.parameters.items() if key not in filled}
    for parameter in asked.values():
        _check_parameter(parameter, name)
    hints = _function_hints(function, list(asked), name)
    descriptions = parameter_descriptions(_doc(function))
    found = []
    for key, parameter in asked.items():
        if key not in hints:  # A __signature__ that the annotations do not bear out.
            raise ConfigError(f"Tool {name}: parameter {key} has no type annotation.")
        hint = compile_hint(hints[key], f"Tool {name}: parameter {key}")
        required = parameter.default is inspect.Parameter.empty
        found.append(make_parameter(key, hint, required, parameter.default, descriptions.get(key, "")))
    return tuple(found)


def _check_parameter(parameter: inspect.Parameter, name: str) -> None:
    key = parameter.name
    if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
        stars = "*" if parameter.kind is inspect.Parameter.VAR_POSITIONAL else "**"
        raise ConfigError(
            f"Tool {name}: parameter {stars}{key} has no schema. Name the arguments one by one."
        )
    if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
        raise ConfigError(
            f"Tool {name}: parameter {key} is positional-only; arguments come by name. Remove the /."
        )
    if parameter.annotation is inspect.Parameter.empty:
        hint = (
            "Pass the bound method, instance.method."
            if key == "self"
            else f"Write {key}: str, or what it is."
        )
        raise ConfigError(f"Tool {name}: parameter {key} has no type annotation. {hint}")


def _function_hints(function: Callable[..., Any], asked: list[str], name: str) -> dict[str, Any]:
    plain = inspect.unwrap(_plain_function(function))
    annotations = {key: value for key, value in inspect.get_annotations(plain).items() if key in asked}
    code = getattr(plain, "__code__", None)
    closure = dict(zip(code.co_freevars, plain.__closure__ or (), strict=False)) if code else {}
    known = {}
    for variable, cell in closure.items():
        try:
            known[variable] = cell.cell_contents
        except ValueError:  # Not assigned yet.
            continue
    # Return annotations are left alone: they may name what only a type checker imports.
    holder = types.SimpleNamespace(__annotations__=annotations)
    try:
        return typing.get_type_hints(holder, getattr(plain, "__globals__", {}), known, include_extras=True)
    except NameError as error:
        raise ConfigError(
            f"Tool {name}: an annotation cannot be resolved: {error}. Define the type at module level, "
            "not inside a function or under TYPE_CHECKING."
        ) from None
    except (SyntaxError, TypeError, AttributeError) as error:
        raise ConfigError(f"Tool {name}: an annotation cannot be resolved: {error}.") from None


def _plain_function(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):
        function = type(function).__call__
    return getattr(function, "__func__", function)


def _doc(function: Callable[..., Any]) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):
        function = type(function).__call__ if type(function).__call__.__doc__ else type(function)
    return inspect.getdoc(function) or ""


def first_paragraph(function: Callable[..., Any]) -> str:
    """Return the first paragraph of the docstring in one line, empty when there is none."""
    lines = _doc(function).split("\n\n")[0].splitlines()
    if lines and (_GOOGLE.match(lines[0]) or _SPHINX.match(lines[0]) or _NUMPY.match(lines[0])):
        return ""  # It starts with its parameters.
    return " ".join(" ".join(lines).split())


_GOOGLE: Final = re.compile(r"(?:Args|Arguments|Parameters|Params):\s*$")
_NUMPY: Final = re.compile(r"(?:Other )?Parameters\s*$")
_SPHINX: Final = re.compile(
    r":(?:param|parameter|arg|argument|key|keyword)\s+(?:[^:]*\s)?\*{0,2}(\w+)\s*:\s*(.*)$"
)
_ENTRY: Final = re.compile(r"\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")
_NUMPY_ENTRY: Final = re.compile(r"\*{0,2}(\w+(?:\s*,\s*\w+)*)\s*(?::.*)?$")


def parameter_descriptions(doc: str) -> dict[str, str]:
    """Return what a docstring says about parameters, in Google's, NumPy's or Sphinx's way."""
    found: dict[str, list[str]] = {}
    lines = doc.splitlines()
    style, margin, entry, names = "", -1, -1, list[str]()
    for number, line in enumerate(lines):
        text, indent = line.strip(), len(line) - len(line.lstrip())
        following = lines[number + 1].strip() if number + 1 < len(lines) else ""
        sphinx = _SPHINX.match(text)
        if sphinx:
            style, margin, entry, names = "sphinx", indent, indent, [sphinx[1]]
            found[sphinx[1]] = [sphinx[2]]
        elif _NUMPY.match(text) and following.startswith("---"):
            style, margin, entry, names = "numpy", indent, indent, []
        elif style == "numpy" and text and set(text) == {"-"}:
            if lines[number - 1].strip() not in ("Parameters", "Other Parameters"):
                style = ""  # The title of another section was taken for a parameter.
                for name in names:
                    found.pop(name, None)
        elif _GOOGLE.match(text):
            style, margin, entry, names = "google", indent, -1, []
        elif text and style in ("google", "sphinx") and indent <= margin:
            style = ""
        elif text and style == "google" and entry in (-1, indent):
            match = _ENTRY.match(text)
            entry, names = indent, [match[1]] if match else []
            found.update({name: [match[2]] for name in names if match})
        elif text and style == "numpy" and indent == entry:
            match = _NUMPY_ENTRY.match(text)
            names = [name.strip() for name in match[1].split(",")] if match else []
            found.update({name: [] for name in names})
        elif text and style:
            for name in names:
                found[name].append(text)
    return {name: " ".join(" ".join(words).split()) for name, words in found.items() if any(words)}
