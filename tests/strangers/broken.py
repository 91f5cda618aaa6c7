"""Packages that are wrong, each in one way. Written out when a test needs them."""

from __future__ import annotations

from pathlib import Path

PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{distribution}"
version = "1.0"

[project.entry-points."voxengine.providers"]
{provider} = "{module}:Provider"
"""

COMPLETE = """\
from voxengine import BaseProvider


class Provider(BaseProvider):
    async def connect(self): ...
    async def disconnect(self): ...
    async def send_audio(self, audio_data): ...
    async def send_text(self, text): ...
    async def interrupt(self): ...
    async def configure_session(self, config): ...
"""

WRONG_SIGNATURE = COMPLETE.replace("send_audio(self, audio_data)", "send_audio(self, audio_data, gain)")
NEWER_API = COMPLETE.replace("    async def connect", "    provider_api = 2\n\n    async def connect")

PACKAGES = {
    # distribution: (provider's name, source of its module)
    "voice-without-wheels": ("wheelless", "import a_module_that_nobody_has\n"),
    "twin-of-east": ("twin", COMPLETE),
    "twin-of-west": ("twin", COMPLETE),
    "gain-voice": ("gain", WRONG_SIGNATURE),
    "voice-of-tomorrow": ("tomorrow", NEWER_API),
    "voice-that-exits": ("exits", "raise SystemExit('I end the process')\n"),
}


def write_package(folder: Path, distribution: str) -> Path:
    """Write one of the packages and return its folder."""
    provider, source = PACKAGES[distribution]
    module = distribution.replace("-", "_")
    package = folder / distribution
    package.mkdir()
    text = PYPROJECT.format(distribution=distribution, provider=provider, module=module)
    (package / "pyproject.toml").write_text(text, "utf-8")
    (package / f"{module}.py").write_text(source, "utf-8")
    return package
