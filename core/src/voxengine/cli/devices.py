"""``voxengine devices``: which microphones and loudspeakers there are."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import attrs

from voxengine.audio.backends.base import StreamBackend
from voxengine.audio.devices import DeviceInfo
from voxengine.cli import running
from voxengine.cli.terminal import clean, paint, wants_color, width_of

__all__ = ["make_backend", "run"]

_HEADS: Final = ("", "name", "in", "out", "rate", "system")

run_loop: Callable[[Callable[[], Coroutine[Any, Any, list[DeviceInfo]]]], list[DeviceInfo]] = running.run


def make_backend() -> StreamBackend:
    """Return the system's devices.

    Raises:
        AudioDeviceError: PyAudio is not installed.
    """
    from voxengine.audio.backends.pyaudio import PyAudioBackend

    return PyAudioBackend()


def run(arguments: argparse.Namespace) -> int:
    """Print the devices; 1 when there are none."""
    backend = make_backend()

    async def read() -> list[DeviceInfo]:
        try:
            return await backend.devices()
        finally:
            await backend.close()

    found = run_loop(read)
    if arguments.json:
        print(json.dumps([attrs.asdict(device) for device in found], indent=2))
    elif found:
        _print_table(found)
    else:
        print("No sound device. Plug one in, or talk with files: voxengine talk --input question.wav")
    return 0 if found else 1


def _print_table(devices: Sequence[DeviceInfo]) -> None:
    color = wants_color(sys.stdout)
    rows = [_HEADS, *(_row(device) for device in devices)]
    widths = [max(width_of(row[column]) for row in rows) for column in range(len(_HEADS))]
    for number, row in enumerate(rows):
        cells = [
            text + " " * (width - width_of(text)) if column in (1, 5) else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        print(paint("  ".join(cells).rstrip(), "" if number else "dim", color))
    if any(device.is_default("input") or device.is_default("output") for device in devices):
        print("\n* used when none is named. Name one by its index, its name or a part of it.")


def _row(device: DeviceInfo) -> tuple[str, ...]:
    return (
        str(device.index),
        clean(device.name),
        _channels(device.max_input_channels, device.is_default_input),
        _channels(device.max_output_channels, device.is_default_output),
        str(device.default_sample_rate),
        clean(device.host_api),
    )


def _channels(n: int, is_default: bool) -> str:
    return f"{n or '-'}{'*' if is_default else ' '}"
