"""Functions of the user's own that the command line names, as tools of the agent."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from voxengine.cli.terminal import prints_to_stderr
from voxengine.errors import ConfigError

__all__ = ["load_function"]


def load_function(text: str) -> Callable[..., Any]:
    """Return the function that ``FILE.py:NAME`` or ``MODULE:NAME`` stands for; its module is run.

    Modules are looked for in the working directory, too.

    Raises:
        ConfigError: There is no such thing, it cannot be imported, or it cannot be called.
    """
    where, separator, name = text.rpartition(":")
    if not separator or not where or not name:
        raise ConfigError(f"--tool takes FILE.py:FUNCTION or MODULE:FUNCTION; it got {text!r}.")
    with prints_to_stderr():
        module = _load(where)
    function = module
    for part in name.split("."):
        function = getattr(function, part, None)  # type: ignore[assignment]
    if function is None:
        raise ConfigError(f"--tool {text}: {where} has no function {name!r}.")
    if not callable(function):
        raise ConfigError(f"--tool {text}: that is a {type(function).__name__}, which cannot be called.")
    return function


def _load(where: str) -> ModuleType:
    path = Path(where)
    is_file = path.suffix == ".py"
    if is_file and not path.is_file():
        raise ConfigError(f"--tool: there is no file {where}.")
    folder = str((path.parent if is_file else Path()).resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return _load_file(path.resolve()) if is_file else importlib.import_module(where)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{where}.".startswith(f"{error.name}."):
            raise ConfigError(f"--tool: there is no module {where!r}.") from None
        raise ConfigError(f"--tool: {where} cannot be imported: {type(error).__name__}: {error}") from None


def _load_file(path: Path) -> ModuleType:
    name = f"voxengine_tool_{path.stem}"  # Of its own: a file may be called like a module that exists.
    known = sys.modules.get(name)
    if known is not None and known.__file__ == str(path):
        return known
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
