"""``voxengine replay``: a recorded conversation runs again, and every event is compared."""

from __future__ import annotations

import argparse
import json
import time

from voxengine.cli import running
from voxengine.cli.terminal import clean
from voxengine.recording_file import read_recording
from voxengine.replaying import Replayer, ReplayLoop

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Run a recording again; 0 when every event is the same but for its time, else 1.

    Raises:
        ConfigError: The file is no recording, or cannot be run again.
    """
    tape = read_recording(arguments.file)
    replayer = Replayer(tape)
    started = time.perf_counter()
    outcome = running.run(replayer.run, loop_factory=ReplayLoop)
    took_s = time.perf_counter() - started
    if arguments.json:
        value = {
            "file": tape.path.name,
            "is_same": outcome.is_same,
            "n_events": len(outcome.events),
            "duration_s": tape.duration_s,
            "differences": list(outcome.differences),
        }
        print(json.dumps(value, indent=2))
        return 0 if outcome.is_same else 1
    print(
        f"{tape.path.name}: {tape.duration_s:.1f} s ran again in {took_s:.1f} s, {len(outcome.events)} events."
    )
    if tape.is_torn or not tape.is_complete:
        print("The recording was not ended in order; what is there was run.")
    if outcome.is_same:
        print("Every event is the same but for its time.")
        return 0
    print(f"{len(outcome.differences)} differences:")
    for sentence in outcome.differences:
        print(f"  {clean(sentence)}")
    return 1
