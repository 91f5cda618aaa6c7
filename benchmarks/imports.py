"""What an import costs: against the bare import of the modules that it needs from elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys

from _measure import Row, child_cpu_s, main, paired

TITLE = "Import"
ROUNDS = 15

PACKAGE = "import voxengine"
APPLICATION = "from voxengine import VoiceEngine, VoiceEngineConfig; from voxengine_mock import MockProvider"
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
    rows: list[Row] = []
    package, application = loaded(PACKAGE), loaded(APPLICATION)
    ours = [name for name in application if name.partition(".")[0].startswith("voxengine")]
    others = [name for name in application if name not in ours and not name.startswith("_")]
    bare = "\n".join(
        f"try:\n import {name}\nexcept ImportError:\n pass" for name in others if "." not in name
    )
    took, base, ratio = paired(lambda: child_cpu_s(APPLICATION), lambda: child_cpu_s(bare), ROUNDS)
    third_party = {name.partition(".")[0] for name in package} & {
        "attr",
        "attrs",
        "pluggy",
        "asyncio",
        "numpy",
        "websockets",
    }
    rows.append(
        Row("`import voxengine` loads of attrs, pluggy, asyncio, numpy, websockets", len(third_party), "", 0)
    )
    rows.append(Row("modules that `import voxengine` loads", len(package), "", 8))
    heavy = [name for name in application if name in HEAVY]
    rows.append(Row("numpy, PyAudio or a WebSocket client loaded by engine and provider", len(heavy), "", 0))
    rows.append(Row("engine and mock provider / bare import of what they need", ratio, "×", 1.4))
    rows.append(Row("engine and mock provider, CPU of the process", took * 1000, "ms"))
    rows.append(Row("bare import of what they need, CPU of the process", base * 1000, "ms"))
    return rows


if __name__ == "__main__":
    sys.exit(main(TITLE, run))
