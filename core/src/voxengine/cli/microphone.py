"""The spoken side of ``talk``: is there a microphone, its meters, and what is written meanwhile."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import attrs

from voxengine.cli import running
from voxengine.cli.devices import make_backend
from voxengine.cli.sources import lines_of_stdin
from voxengine.cli.terminal import Screen
from voxengine.config import VoiceEngineConfig
from voxengine.errors import AudioDeviceError, ConfigError

if TYPE_CHECKING:
    from voxengine.engine import VoiceEngine
    from voxengine.listening import Levels

__all__ = ["is_wanted", "meter_text", "talk", "with_devices"]

_METER_S: Final = 0.1
_CELLS: Final = 20
_FLOOR_DB: Final = -60.0


def is_wanted(arguments: argparse.Namespace) -> tuple[bool, str]:
    """Return whether the conversation goes through the microphone: asked for, or there and nothing else was asked for.

    Returns:
        That, and why it does not where the user might have spoken.

    Raises:
        ConfigError: It is asked for together with something else to say.
    """
    has_words = arguments.input is not None or bool(arguments.text) or arguments.fast
    if arguments.microphone and has_words:
        raise ConfigError("--microphone goes without --input, --text and --fast. Give one of them.")
    if arguments.microphone is not None or has_words:
        return bool(arguments.microphone), ""
    if not sys.stdin.isatty():
        return False, ""
    absent = _why_absent(arguments.input_device)
    return not absent, absent


def _why_absent(name: str | None) -> str:
    if name is not None:
        return ""  # One that is named and missing is an error, not a reason to write.
    if importlib.util.find_spec("pyaudio") is None:
        return 'PyAudio is not installed: pip install "voxengine[audio]" to speak.'

    async def look() -> list[Any]:
        backend = make_backend()
        try:
            return [device for device in await backend.devices() if device.channels("input")]
        finally:
            await backend.close()

    try:
        return "" if running.run(look) else "There is no microphone."
    except AudioDeviceError as error:
        return str(error)


def with_devices(config: VoiceEngineConfig, arguments: argparse.Namespace) -> VoiceEngineConfig:
    """Return the configuration with the devices, and what listens to them, that the options name.

    Raises:
        ConfigError: A name is empty.
    """
    changes: dict[str, Any] = {}
    for name in ("input_device", "output_device"):
        text = getattr(arguments, name)
        if text is not None:
            changes[name] = int(text) if text.isdigit() else text
    options: dict[str, Any] = {}
    if arguments.half_duplex:
        options["half_duplex"] = True
    if arguments.processor:
        options["processors"] = arguments.processor
    changes["device_options"] = attrs.evolve(config.device_options, **options)
    if arguments.detector is not None:
        changes["turn_detection"] = attrs.evolve(
            config.turn_detection, kind="client", detector=arguments.detector
        )
    return attrs.evolve(config, **changes)


async def talk(
    engine: VoiceEngine,
    screen: Screen,
    *,
    is_over: Callable[[], bool],
    send_text: Callable[[str], Awaitable[None]],
) -> None:
    """Talk through the microphone until a line that is empty, the end of the microphone, or ``is_over``.

    Args:
        engine: Connected.
        screen: For the meters.
        is_over: Whether the conversation has failed.
        send_text: Takes lines that are written meanwhile.
    """
    await engine.start_listening()
    reading: asyncio.Task[None] | None = None
    if sys.stdin.isatty():
        screen.line("", "Speak, or write a line; an empty one ends.", "dim")
        reading = asyncio.create_task(_read_lines(send_text))
    else:
        screen.line("", "Speak; Ctrl-C ends.", "dim")
    try:
        while engine.is_listening and not is_over() and not (reading is not None and reading.done()):
            screen.meter(meter_text(engine.levels))
            await asyncio.sleep(_METER_S)
        if reading is not None and reading.done():
            reading.result()
    finally:
        screen.meter("")
        if reading is not None:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await reading


async def _read_lines(send_text: Callable[[str], Awaitable[None]]) -> None:
    async for line in lines_of_stdin():
        if not line.strip():
            return
        await send_text(line.strip())


def meter_text(levels: Levels) -> str:
    """Return both levels as bars."""
    return f"you {_bar(levels.microphone_db)}   agent {_bar(levels.loudspeaker_db)}"


def _bar(level_db: float) -> str:
    n_on = round(max(0.0, min(1.0, 1.0 - level_db / _FLOOR_DB)) * _CELLS)
    return "|" * n_on + "." * (_CELLS - n_on)
