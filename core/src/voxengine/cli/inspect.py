"""``voxengine inspect``: a recorded conversation as a timeline and as a picture."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Final

from voxengine.cli.records import WriteFailed, check_target
from voxengine.cli.story import Story, tell
from voxengine.cli.terminal import clean, paint, wants_color
from voxengine.recording_file import read_recording

__all__ = ["run"]

_STYLES: Final = {
    "user": "cyan",
    "agent": "green",
    "tool": "magenta",
    "interrupted": "yellow",
    "warning": "yellow",
    "error": "red",
    "connection": "dim",
}


def run(arguments: argparse.Namespace) -> int:
    """Print the timeline; with ``--html`` draw it as well.

    Raises:
        ConfigError: The file is no recording, or the page cannot be written.
    """
    if arguments.html is not None:
        check_target("--html", arguments.html, [arguments.file])
    story = tell(read_recording(arguments.file))
    if arguments.json:
        print(json.dumps(story.to_json(), indent=2, ensure_ascii=False))
    else:
        _print(story)
    if arguments.html is not None:
        from voxengine.cli.inspect_html import page

        try:
            Path(arguments.html).write_text(page(story), encoding="utf-8")
        except OSError as error:
            raise WriteFailed(f"--html {arguments.html!r} cannot be written: {error.strerror}.") from None
    return 0


def _print(story: Story) -> None:
    tape, header = story.tape, story.tape.header
    color = wants_color(sys.stdout)
    sessions = [f"{name} ({tap})" for name, tap in zip(story.providers, story.taps, strict=True)]
    print(f"{tape.path.name}: {tape.duration_s:.1f} s, recorded {header.get('created_at')}", end="")
    print(f" with voxengine {header.get('voxengine')}")
    kept = [word for word, is_kept in (("audio", tape.has_audio), ("words", tape.has_transcripts)) if is_kept]
    print(
        f"Sessions: {', '.join(sessions) or 'none'}. Kept: {' and '.join(kept) or 'neither audio nor words'}."
    )
    if tape.n_missing:
        print(f"{tape.n_missing} lines were dropped because the disk was too slow.")
    if not tape.is_complete:
        print("It was not ended in order: the process crashed, or still runs.")
    print()
    for entry in story.entries:
        kind = paint(f"{entry.kind:<11}", _STYLES[entry.kind], color)
        print(f"{entry.at_s:9.3f}  {kind} {clean(entry.text)}")
    print()
    print(f"{story.summary()}.")
