"""A recorder that is killed: what is left in the file, seen from outside of the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from voxengine.recording_file import read_recording
from voxengine.replaying import replay

ENDLESS = """
import asyncio, sys
from voxengine import VoiceEngine, VoiceEngineConfig

async def main():
    engine = VoiceEngine(VoiceEngineConfig(provider="mock"))
    engine.record(sys.argv[1])
    async with engine:
        started = asyncio.get_running_loop().time()
        await engine.send_text("Hello")
        while True:
            await engine.send_audio(bytes(960))
            print(asyncio.get_running_loop().time() - started, flush=True)
            await asyncio.sleep(0.02)

asyncio.run(main())
"""
LIVED_S = 2.5


@pytest.mark.skipif(sys.platform == "win32", reason="kill is what ends it")
def test_killed_process_leaves_all_but_the_last_second(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(path)], stdout=subprocess.PIPE, text=True
    ) as talking:
        assert talking.stdout is not None
        lived_s = next(s for s in map(float, talking.stdout) if s > LIVED_S)
        talking.kill()
        # What it still said before it was gone.
        lived_s = max([lived_s, *map(float, talking.stdout.read().split())])

    tape = read_recording(path)

    assert not tape.is_complete
    inputs = tape.of("input")
    n_sent = round(lived_s / 0.02)
    assert lived_s - inputs[-1]["t"] < 1.0
    assert 0 < len(inputs) <= n_sent + 2
    assert replay(path).differences == ()
