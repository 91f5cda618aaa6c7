"""What an import costs: against the bare import of the modules that it needs from elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys

from _measure import Row, child_cpu_s, main, paired

TITLE = "Import"
ROUNDS = 15

PACKAGE = "import voxengine"
PROVIDER = "import voxengine; from voxengine_mock import MockProvider"
EVERYTHING = (
    "from voxengine import VoiceEngine, VoiceEngineConfig; from voxengine_mock import MockProvider; "
    "import voxengine.transport.websocket"
)
ENGINE = "from voxengine import VoiceEngine, VoiceEngineConfig; from voxengine_mock import MockProvider"
DEPENDENCIES = "import asyncio, attrs, pluggy, websockets.asyncio.client"
HEAVY = ("numpy", "pyaudio", "websockets.asyncio.client", "websockets.client")


def loaded(code: str) -> list[str]:
    """Return the modules that ``code`` loads in a fresh interpreter, in the order in which they come."""
    program = (
        f"import sys, json; before = set(sys.modules)\n{code}\n"
        "print(json.dumps([name for name in sys.modules if name not in before]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    modules: list[str] = json.loads(done.stdout.splitlines()[-1])
    return modules


def run() -> list[Row]:
    """Measure."""
    package, provider, engine = loaded(PACKAGE), loaded(PROVIDER), loaded(ENGINE)
    known = {"attr", "attrs", "pluggy", "asyncio", "numpy", "typing", "websockets"}
    third_party = {name.partition(".")[0] for name in package} & known
    heavy = [name for name in {*provider, *engine} if name in HEAVY]
    took, base, ratio = paired(lambda: child_cpu_s(PROVIDER), lambda: child_cpu_s(DEPENDENCIES), ROUNDS)
    all_of_it, _, whole = paired(lambda: child_cpu_s(EVERYTHING), lambda: child_cpu_s(DEPENDENCIES), ROUNDS)
    return [
        Row("`import voxengine`: loads of " + ", ".join(sorted(known)), len(third_party), "", 0),
        Row("`import voxengine`: modules", len(package), "", 8),
        Row("engine and provider: loads of numpy, PyAudio, a WebSocket client", len(heavy), "", 0),
        Row("`import voxengine` with the mock provider / bare import of the dependencies", ratio, "×", 1.4),
        Row(
            "engine, provider and transport, all loaded / the same", whole, "×", 2.6, "paid once, at connect"
        ),
        Row("the mock provider", took * 1000, "ms", note="CPU of the process"),
        Row("engine, provider and transport", all_of_it * 1000, "ms"),
        Row("the dependencies: asyncio, attrs, pluggy, the websockets client", base * 1000, "ms"),
    ]


if __name__ == "__main__":
    sys.exit(main(TITLE, run))
