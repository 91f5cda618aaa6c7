"""What an import loads: gated sets, so that start-up stays light without anybody watching."""

from __future__ import annotations

import functools
import json
import subprocess
import sys

import pytest

HEAVY = {"numpy", "pyaudio", "websockets", "rich"}
PARTS = {"attr", "attrs", "pluggy", "asyncio", "typing", "inspect", "json", "logging", "dataclasses"}
USUAL = "from voxengine import VoiceEngine, VoiceEngineConfig"
PROVIDER = "from voxengine import BaseProvider, EventType, register_provider"
CONVERSATION = """
import asyncio
from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.testing import run_virtual
async def main():
    # Without audio: the voice of the mock is made with numpy.
    async with VoiceEngine(VoiceEngineConfig(provider="mock", modalities=("text",))) as engine:
        await engine.send_text("Hello")
        await engine.send_audio(bytes(960))
        await engine.wait_idle()
run_virtual(main())
"""


@functools.cache
def loaded(program: str) -> frozenset[str]:
    """The modules that a fresh interpreter loads for a program, beyond those that it starts with."""
    code = (
        "import io, sys\n"
        "before, out = set(sys.modules), sys.stdout\n"
        "sys.stdout = sys.stderr = io.StringIO()\n"
        f"exec({program!r})\n"
        "found = sorted(set(sys.modules) - before)\n"
        "import json\n"
        "out.write(json.dumps(found))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return frozenset(json.loads(done.stdout))


def cli(*arguments: str) -> str:
    return f"from voxengine.cli import main\nassert main({list(arguments)!r}) == 0"


def packages(program: str) -> set[str]:
    """The distributions' packages among what was loaded."""
    tops = {name.partition(".")[0] for name in loaded(program)}
    return {name for name in tops if name not in sys.stdlib_module_names}


def test_bare_import_loads_nothing_of_its_own_and_nothing_of_others() -> None:
    names = loaded("import voxengine")

    assert {name for name in names if name.startswith("voxengine")} == {"voxengine"}
    assert not (PARTS | HEAVY) & names
    assert packages("import voxengine") == {"voxengine"}


@pytest.mark.parametrize("program", [USUAL, PROVIDER])
def test_usual_import_loads_neither_numpy_nor_the_client(program: str) -> None:
    assert packages(program) == {"voxengine", "attr", "attrs", "pluggy"}


def test_engine_needs_no_transport_tools_or_files_until_they_are_used() -> None:
    assert not {
        "voxengine.transport.websocket", "voxengine.audio.pcm", "voxengine.audio.wav", "voxengine.cli",
        "voxengine.testing", "voxengine_mock", "http.client",
    } & loaded(USUAL)  # fmt: skip


def test_names_are_loaded_by_the_module_that_holds_them_alone() -> None:
    names = loaded("from voxengine import ProviderError")

    assert {name for name in names if name.startswith("voxengine")} == {"voxengine", "voxengine.errors"}
    assert not {"attr", "pluggy", "asyncio"} & names


@pytest.mark.parametrize(
    "arguments", [("--help",), ("--version",), ("talk", "--help"), ("providers", "--help")]
)
def test_help_loads_neither_attrs_nor_pluggy_nor_asyncio(arguments: tuple[str, ...]) -> None:
    names = loaded(cli(*arguments))

    assert not {"attr", "attrs", "pluggy", "asyncio"} & names
    assert not HEAVY & names


def test_list_of_providers_loads_neither_numpy_nor_the_client() -> None:
    assert not {"numpy", "websockets", "pyaudio"} & loaded(cli("providers", "--json"))


def test_conversation_with_the_mock_at_its_own_rate_loads_neither_numpy_nor_the_client() -> None:
    assert not {"numpy", "websockets", "pyaudio"} & loaded(CONVERSATION)


def test_session_at_another_rate_loads_numpy() -> None:
    program = CONVERSATION.replace('provider="mock"', 'provider="mock", input_format=44100')

    assert "numpy" in loaded(program)
