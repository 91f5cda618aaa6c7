"""``voxengine audio-check``: what this machine's microphone and loudspeaker really do."""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import attrs

from voxengine.audio.backends.base import Stream, StreamBackend
from voxengine.audio.devices import DeviceOutcome
from voxengine.audio.format import AudioFormat
from voxengine.audio.levels import LevelMeter
from voxengine.audio.player import DevicePlaybackClock, FlushMode
from voxengine.cli import running
from voxengine.cli.devices import make_backend
from voxengine.cli.records import check_target
from voxengine.errors import AudioDeviceError, ConfigError

__all__ = ["Check", "measure", "run"]

_PATIENCE_S: Final = 2.0
_MARGIN_DB: Final = 12.0
"""The test sound has to be that much louder in the microphone than the room."""
_SOUND_S: Final = 1.5
_PAUSE_S: Final = 0.4
_LEVEL_DB: Final = -12.0
_GRID_SKIP: Final = 10
"""Blocks at the start whose times tell about opening the device, not about its pace."""

run_loop: Callable[[Callable[[], Coroutine[Any, Any, Check]]], Check] = running.run


@attrs.define
class Check:
    """What was measured. Times in milliseconds, levels in dB relative to full scale; None: it could not be."""

    output_device: str = ""
    output_format: str = ""
    input_device: str = ""
    input_format: str = ""
    block_ms: int = 20
    duration_s: float = 0.0
    output_jitter_p99_ms: float | None = None
    input_jitter_p99_ms: float | None = None
    output_xruns: int = 0
    input_xruns: int = 0
    room_db: float = -100.0
    heard_db: float = -100.0
    n_clipped: int = 0
    is_heard: bool = False
    """Whether the microphone heard the loudspeaker; the times below follow from that."""
    round_trip_ms: float | None = None
    soft_interrupt_ms: float | None = None
    hard_interrupt_ms: float | None = None
    output_gaps_ms: list[float] = attrs.field(factory=list)
    """Time between two blocks, for the picture."""
    levels_db: list[float] = attrs.field(factory=list)
    """Of the microphone's blocks."""
    remarks: list[str] = attrs.field(factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {name: _rounded(value) for name, value in attrs.asdict(self).items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return round(value, 2) if isinstance(value, float) else value


def run(arguments: argparse.Namespace) -> int:
    """Measure and report; 1 when the devices cannot hold a conversation."""
    if arguments.json == arguments.picture == "-":
        raise ConfigError("--json and --picture cannot both go to standard output. Give one of them a file.")
    for option, path in (("--json", arguments.json), ("--picture", arguments.picture)):
        if path is not None and path != "-":
            check_target(option, path, [arguments.json] if option == "--picture" else [])
    backend = make_backend()
    if arguments.json != "-":
        print("Listening to the room, then playing noise for a few seconds ...", flush=True)

    async def work() -> Check:
        try:
            return await measure(
                backend,
                _device(arguments.input_device),
                _device(arguments.output_device),
                block_ms=arguments.block_ms,
                duration_s=arguments.seconds,
                n_trials=arguments.trials,
            )
        finally:
            await backend.close()

    check = run_loop(work)
    if arguments.json == "-":
        print(json.dumps(check.to_json(), indent=2))
    else:
        print(_text(check))
        if arguments.json is not None:
            Path(arguments.json).write_text(json.dumps(check.to_json(), indent=2) + "\n", "utf-8")
    if arguments.picture is not None:
        from voxengine.cli.audio_picture import draw

        picture = draw(check)
        if arguments.picture == "-":
            sys.stdout.write(picture)
        else:
            Path(arguments.picture).write_text(picture, "utf-8")
    return 0 if check.is_heard and not check.remarks else 1


def _device(text: str | None) -> str | int | None:
    return int(text) if text is not None and text.isdigit() else text


# -- measuring --------------------------------------------------------------------------------------


class _Ears:
    """Takes the microphone's blocks and notes level and time of each."""

    def __init__(self, audio_format: AudioFormat, now: Callable[[], float]) -> None:
        self._meter = LevelMeter(audio_format)
        self._now = now
        self.at: list[float] = []
        self.db: list[float] = []

    def push(self, block: bytes) -> None:
        """Take a block. Runs in the device's callback."""
        self._meter.push(block)
        self.db.append(self._meter.rms_db)
        self.at.append(self._now())

    def pull(self, n_frames: int) -> bytes:
        """An input is asked for nothing."""
        raise AssertionError("an input stream takes no audio")

    def is_ready(self) -> bool:
        """Always."""
        return True

    def end(self) -> None:
        """Devices do not end."""

    @property
    def n_clipped(self) -> int:
        """Samples at full scale so far."""
        return self._meter.n_clipped

    def first(self, after: float, over_db: float, *, loud: bool) -> float | None:
        """Return when the first block after a moment came that is louder, or not, than a level."""
        for at, level in zip(list(self.at), list(self.db), strict=False):
            if at > after and (level > over_db) is loud:
                return at
        return None


class _Listener:
    """Keeps nothing but losses."""

    def __init__(self) -> None:
        self.outcomes: list[DeviceOutcome] = []

    def playback_started(self, item: str) -> None:
        """Not needed."""

    def playback_stopped(self, item: str, played_ms: int) -> None:
        """Not needed."""


async def measure(
    backend: StreamBackend,
    input_device: str | int | None,
    output_device: str | int | None,
    *,
    block_ms: int,
    duration_s: float,
    n_trials: int,
) -> Check:
    """Play and listen.

    Args:
        backend: Opens the devices.
        input_device: Its name or index; None for the default.
        output_device: Likewise.
        block_ms: Length of the devices' blocks.
        duration_s: How long to look at the pace of the callbacks.
        n_trials: How often to interrupt, softly and hard.

    Raises:
        AudioDeviceError: A device cannot be opened.
    """
    loop = asyncio.get_running_loop()
    wanted, check, listener = (
        AudioFormat(24_000),
        Check(block_ms=block_ms, duration_s=duration_s),
        _Listener(),
    )
    listening = await backend.open("input", input_device, wanted, block_ms)
    ears = _Ears(listening.format, loop.time)
    players: list[DevicePlaybackClock] = []
    try:
        await listening.start(ears)
        check.input_device, check.input_format = listening.device.name, listening.format.describe()
        for mode in ("soft", "hard"):
            player = DevicePlaybackClock(
                wanted,
                listener,
                backend,
                device=output_device,
                block_ms=block_ms,
                flush=mode,
                report=listener.outcomes.append,
            )
            players.append(player)
            await player.open()
            if mode == "soft":
                await _pace(check, player, ears, duration_s)
            await _interrupts(check, player, ears, mode, n_trials)
            await player.aclose()
        _conclude(check, listening, ears, listener)
    finally:
        for player in players:
            await player.aclose()
        await listening.close()
    return check


async def _pace(check: Check, player: DevicePlaybackClock, ears: _Ears, duration_s: float) -> None:
    """Look at the callbacks while nothing is played, and listen to the room."""
    stream = player.stream
    assert stream is not None
    assert player.device_format is not None
    check.output_device, check.output_format = player.device, player.device_format.describe()
    at = [stream.stats.last_block_at]
    deadline = asyncio.get_running_loop().time() + duration_s
    while asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(check.block_ms / 8000)
        if stream.stats.last_block_at != at[-1]:
            at.append(stream.stats.last_block_at)
    check.output_gaps_ms = _gaps(at)
    check.output_jitter_p99_ms = _jitter(check.output_gaps_ms, check.block_ms)
    check.input_jitter_p99_ms = _jitter(_gaps(ears.at), check.block_ms)
    quiet = sorted(ears.db[len(ears.db) // 4 :])
    check.room_db = quiet[len(quiet) * 9 // 10] if quiet else -100.0
    check.output_xruns = stream.stats.n_xruns


def _gaps(at: list[float]) -> list[float]:
    return [(b - a) * 1000 for a, b in zip(at[_GRID_SKIP:], at[_GRID_SKIP + 1 :], strict=False)]


def _jitter(gaps: list[float], block_ms: int) -> float | None:
    """Return the 99th percentile of how far blocks are from their grid."""
    off = sorted(abs(gap - block_ms) for gap in gaps)
    return off[min(len(off) - 1, len(off) * 99 // 100)] if off else None


async def _interrupts(
    check: Check, player: DevicePlaybackClock, ears: _Ears, mode: FlushMode, n_trials: int
) -> None:
    """Play and interrupt, and note when the microphone heard the beginning and the end."""
    loop, sound = asyncio.get_running_loop(), _noise(int(_SOUND_S * player.format.sample_rate))
    trips: list[float] = []
    ends: list[float] = []
    over_db = check.room_db + _MARGIN_DB
    for n in range(n_trials):
        name = f"{mode} {n}"
        player.write(name, len(sound) // 2, sound)
        began = await _until(lambda name=name: _started(player, name))  # type: ignore[misc]
        heard = began and await _until(
            lambda began=began: ears.first(began, over_db, loud=True)  # type: ignore[misc]
        )
        if began is None or heard is None:
            player.flush()
            break
        trips.append((heard - began) * 1000)
        # Not always at the same place within a block.
        await asyncio.sleep(0.3 + 0.0037 * (n % 7))
        recent = sorted(ears.db[-10:])
        check.heard_db = max(check.heard_db, recent[len(recent) // 2])
        at = loop.time()
        player.flush()
        silent = await _until(lambda at=at: ears.first(at, over_db, loud=False))  # type: ignore[misc]
        if silent is None:
            break
        ends.append((silent - at) * 1000)
        await asyncio.sleep(_PAUSE_S)
    if len(ends) == n_trials:
        check.is_heard = True
        if mode == "soft":
            check.round_trip_ms, check.soft_interrupt_ms = statistics.median(trips), statistics.median(ends)
        else:
            check.hard_interrupt_ms = statistics.median(ends)
    elif mode == "hard":
        check.is_heard = False


def _started(player: DevicePlaybackClock, name: str) -> float | None:
    stream = player.stream
    return stream.stats.last_block_at if stream is not None and player.played_frames(name) else None


async def _until(find: Callable[[], float | None]) -> float | None:
    """Wait for what happens in a device's thread, which tells nobody; None when it does not come about."""
    deadline = asyncio.get_running_loop().time() + _PATIENCE_S
    while asyncio.get_running_loop().time() < deadline:
        found = find()
        if found is not None:
            return found
        await asyncio.sleep(0.001)
    return None


def _noise(n_frames: int) -> bytes:
    import random
    from array import array

    source, peak = random.Random(1), int(32768 * 10 ** (_LEVEL_DB / 20) * 3**0.5)
    return array("h", [source.randint(-peak, peak) for _ in range(n_frames)]).tobytes()


def _conclude(check: Check, listening: Stream, ears: _Ears, listener: _Listener) -> None:
    check.input_xruns = listening.stats.n_xruns
    check.levels_db = list(ears.db)
    check.n_clipped = ears.n_clipped
    if listener.outcomes:
        raise AudioDeviceError(
            f"The device {check.output_device!r} was lost while it was being checked. Check again.",
            device=check.output_device,
        )
    if not check.is_heard:
        check.remarks.append(
            "The microphone did not hear the loudspeaker: with headphones that is as it should be. Without, turn it "
            "up, or choose another device: voxengine devices"
        )
    if check.n_clipped:
        check.remarks.append("The microphone is overdriven: turn it down.")
    if check.output_xruns or check.input_xruns:
        check.remarks.append(
            "Blocks came too late: close what computes beside, or take longer blocks: --block-ms 40"
        )


# -- reporting --------------------------------------------------------------------------------------


def _text(check: Check) -> str:
    def ms(value: float | None) -> str:
        return "unknown" if value is None else f"{value:.1f} ms"

    rows = [
        ("loudspeaker", f"{check.output_device}, {check.output_format}, blocks of {check.block_ms} ms"),
        ("microphone", f"{check.input_device}, {check.input_format}"),
        (
            "jitter",
            f"loudspeaker {ms(check.output_jitter_p99_ms)}, microphone {ms(check.input_jitter_p99_ms)} (p99)",
        ),
        (
            "xruns",
            f"loudspeaker {check.output_xruns}, microphone {check.input_xruns} in {check.duration_s:g} s",
        ),
        ("level", f"room {check.room_db:.0f} dB, test sound {_db(check)}, {check.n_clipped} samples clipped"),
        ("round trip", ms(check.round_trip_ms)),
        (
            "interrupt",
            f"soft {ms(check.soft_interrupt_ms)}, hard {ms(check.hard_interrupt_ms)}, until it is silent",
        ),
        *(("remark", remark) for remark in check.remarks),
    ]
    return "\n".join(f"{label:>11}  {text}" for label, text in rows)


def _db(check: Check) -> str:
    return f"{check.heard_db:.0f} dB" if check.is_heard else "not heard"
