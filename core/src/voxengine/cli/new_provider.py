"""``voxengine new-provider``: a complete package for a provider, ready to be tested and filled in."""

from __future__ import annotations

import argparse
import importlib.resources
import keyword
import re
import shutil
import tempfile
from pathlib import Path
from string import Template
from typing import Final

import attrs

import voxengine
from voxengine.errors import ConfigError
from voxengine.providers.registry import FIRST_PARTY

__all__ = ["Names", "render", "run"]

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_TITLE: Final = re.compile(r"\w(?:[\w .&+'()-]*[\w.+')])?")
_LONGEST: Final = 30

_NEXT: Final = """\
$folder holds a provider for $title that works against its own emulator. Try:

    pip install -e "$folder[test]"
    pytest $folder
    voxengine emulate $name --port 8765

and in another terminal, while the emulator runs:

    export ${env}_API_KEY=sk-drive
    voxengine talk --provider $name --url ws://127.0.0.1:8765/v1/session --text "Hello"
    voxengine check $name --url ws://127.0.0.1:8765/v1/session

Then write the service's own messages into src/$package/codec.py, say in provider.py what it
can do, and choose a licence.\
"""

FILES: Final = {
    # path in the package: template; PACKAGE stands for the module's name
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "CHANGELOG.md": "CHANGELOG.md",
    ".gitignore": "gitignore",
    ".github/workflows/tests.yml": "tests.yml",
    "src/PACKAGE/__init__.py": "init.py",
    "src/PACKAGE/codec.py": "codec.py",
    "src/PACKAGE/provider.py": "provider.py",
    "src/PACKAGE/emulator.py": "emulator.py",
    "src/PACKAGE/py.typed": "",
    "tests/test_codec.py": "test_codec.py",
    "tests/test_conformance.py": "test_conformance.py",
    "tests/test_provider.py": "test_provider.py",
}


@attrs.frozen
class Names:
    """What the templates are filled with."""

    name: str
    """The provider's, as in ``provider="acme-voice"``."""
    title: str
    """The service's, as people write it."""

    @classmethod
    def of(cls, name: str, title: str | None = None) -> Names:
        """Check both names.

        Raises:
            ConfigError: One of them cannot be used; the message says what can.
        """
        if not _NAME.fullmatch(name) or len(name) > _LONGEST:
            raise ConfigError(
                f"{name!r} is no name for a provider. It takes lower-case letters, digits and single hyphens, "
                f"a letter first, at most {_LONGEST}: for example 'acme' or 'acme-voice'."
            )
        if keyword.iskeyword(name) or keyword.issoftkeyword(name):
            raise ConfigError(
                f"{name!r} is a word of Python's own. Choose another name, for example '{name}-voice'."
            )
        if name in FIRST_PARTY:
            raise ConfigError(
                f"{name!r} is the name of a provider in {FIRST_PARTY[name]}, and two of one name cannot be "
                f"used. Choose another, for example 'my-{name}'."
            )
        if title is None:
            title = " ".join(part.capitalize() for part in name.split("-"))
        if not _TITLE.fullmatch(title) or len(title) > _LONGEST:
            raise ConfigError(
                f"--name {title!r} cannot be used. It takes letters, digits, spaces and . & + - ' ( ), at most "
                f"{_LONGEST}: for example 'Acme Voice'."
            )
        return cls(name, title)

    @property
    def package(self) -> str:
        """The module's name."""
        return "voxengine_" + self.name.replace("-", "_")

    @property
    def distribution(self) -> str:
        """The distribution's name, and by default the folder's."""
        return f"voxengine-{self.name}"

    def values(self) -> dict[str, str]:
        """Return the value of each placeholder."""
        return {
            "name": self.name,
            "title": self.title,
            "package": self.package,
            "distribution": self.distribution,
            "class_name": "".join(part.capitalize() for part in self.name.split("-")),
            "env": self.name.replace("-", "_").upper(),
            "version": ".".join(voxengine.__version__.split(".")[:2]),
        }


def render(names: Names) -> dict[str, str]:
    """Return the text of every file of the package, by its path."""
    folder = importlib.resources.files("voxengine.cli").joinpath("templates")
    values = names.values()
    rendered = {}
    for path, template in FILES.items():
        text = folder.joinpath(f"{template}.template").read_text("utf-8") if template else ""
        # substitute() raises for a placeholder that has no value, so no half-filled file can be written.
        rendered[path.replace("PACKAGE", names.package)] = Template(text).substitute(values)
    return rendered


def run(arguments: argparse.Namespace) -> int:
    """Write the package, or nothing.

    Raises:
        ConfigError: A name or the folder cannot be used.
    """
    names = Names.of(arguments.provider, arguments.name)
    folder = Path(arguments.directory or names.distribution)
    _write(folder, render(names))
    print(Template(_NEXT).substitute(names.values(), folder=folder))
    return 0


def _write(folder: Path, files: dict[str, str]) -> None:
    """Write the files beside their place and move them there when complete."""
    if folder.exists() or folder.is_symlink():
        raise ConfigError(f"{str(folder)!r} exists already. Give --directory with one that does not.")
    parent = folder.parent
    if not parent.is_dir():
        raise ConfigError(f"There is no folder {str(parent)!r} to put {folder.name!r} into. Make it first.")
    scratch = None
    try:
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=parent))
        made = scratch / "package"
        for path, text in files.items():
            target = made / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, "utf-8", newline="\n")
        made.rename(folder)
    except OSError as error:
        raise ConfigError(f"{str(folder)!r} cannot be written: {error.strerror}.") from None
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
