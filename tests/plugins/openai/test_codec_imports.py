"""What naming things loads: start-up stays light until a session opens."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"msgspec", "pybase64", "numpy", "websockets", "picows", "voxengine_mock"}


def loaded(program: str) -> set[str]:
    """The packages that a fresh interpreter loads for a program."""
    code = f"{program}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_bare_import_loads_no_module_of_its_own() -> None:
    names = loaded("import voxengine_openai")

    assert {name for name in names if name.startswith("voxengine")} == {"voxengine_openai"}


@pytest.mark.parametrize(
    "program",
    [
        "from voxengine_openai import RealtimeCodec, Dialect",
        "from voxengine_openai.codec import AudioDelta, Append, RealtimeMessage, ProtocolFault",
        "from voxengine_openai import OpenAIProvider, CustomProvider",
    ],
)
def test_naming_the_classes_loads_neither_json_nor_base64_libraries(program: str) -> None:
    assert not {name.partition(".")[0] for name in loaded(program)} & HEAVY


def test_client_end_does_without_the_schema_of_the_server_end() -> None:
    names = loaded(
        "from voxengine.codec import Role\n"
        "from voxengine_openai import RealtimeCodec\n"
        "RealtimeCodec(Role.CLIENT, str)"
    )

    assert "msgspec" in names
    assert not {"voxengine_openai.schema", "voxengine_openai.strict"} & names
