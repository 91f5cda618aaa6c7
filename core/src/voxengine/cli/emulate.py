"""``voxengine emulate``: an emulator in a process of its own, until a signal ends it."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from voxengine.cli import running
from voxengine.cli.terminal import prints_to_stderr
from voxengine.errors import ConfigError
from voxengine.testing.emulator import Emulator, find_emulator, load_harness

__all__ = ["run"]

_SIGNALS = ("SIGINT", "SIGTERM")


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM and return 0. Raises ConfigError for what is wrong before that."""
    if not arguments.key.strip():
        raise ConfigError("An empty --key would refuse every client. Give one, or leave --key out.")
    with prints_to_stderr():
        found = find_emulator(arguments.emulator)
    emulator = found(
        key=arguments.key, script=arguments.script, speed=arguments.speed, faults=arguments.fault
    )
    options = {
        "host": arguments.host,
        "port": arguments.port,
        "allow_remote": arguments.allow_remote,
        "tls": arguments.tls or arguments.tls_ca is not None,
        "tls_ca": arguments.tls_ca,
        "log": arguments.log,
    }
    running.run(partial(_serve, emulator, options))
    return 0


async def _serve(emulator: Emulator, options: dict[str, Any]) -> None:
    stop = asyncio.Event()
    with _stopped_by_signals(stop):
        async with load_harness().serve(emulator, **options) as server:
            line = {
                "name": emulator.name,
                "url": server.url,
                "http_url": server.http_url,
                "pid": os.getpid(),
            }
            if server.ca_file is not None:
                line["ca_file"] = str(server.ca_file)
            print(json.dumps(line), flush=True)
            await stop.wait()


@contextmanager
def _stopped_by_signals(stop: asyncio.Event) -> Iterator[None]:
    """Within the block a signal sets the event, and a second Ctrl-C does not wait for the end of the sessions.

    The handlers of before are back after it.
    """
    loop = asyncio.get_running_loop()
    came: set[int] = set()

    def on_signal(number: int, _frame: object) -> None:
        if number == signal.SIGINT and number in came:
            raise KeyboardInterrupt
        came.add(number)
        loop.call_soon_threadsafe(stop.set)

    found = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    before = {number: signal.signal(number, on_signal) for number in found}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
