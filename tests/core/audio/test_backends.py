"""Null, array, file and pipe: one contract, in real time, without a pace, on a virtual clock."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.audio.devices_for_tests import Ear
from tests.core.audio.sounds import noise
from voxengine.audio.backends.array import ArrayBackend, ArraySource
from voxengine.audio.backends.base import Pacing, StreamBackend
from voxengine.audio.backends.file import FileBackend
from voxengine.audio.backends.paced import NullBackend
from voxengine.audio.backends.pipe import PipeBackend
from voxengine.audio.capture import Microphone
from voxengine.audio.devices import DeviceLost, choose_device
from voxengine.audio.format import AudioFormat
from voxengine.audio.player import DevicePlaybackClock
from voxengine.audio.wav import read_wav, write_wav
from voxengine.errors import AudioDeviceError, AudioFormatError, ConfigError
from voxengine.testing import leak_check, virtual

FORMAT = AudioFormat(8000)
FADE_BYTES = 80
PACINGS: list[Pacing] = ["real", "fast"]
both_pacings = pytest.mark.parametrize("pacing", PACINGS)
SAID = noise(8000 * 2 + 37, -20.0)


async def heard(backend: StreamBackend, audio_format: AudioFormat = FORMAT) -> bytes:
    microphone = Microphone(backend, audio_format)
    await microphone.open()
    got = bytearray()
    while data := await microphone.read():
        got += data
    await microphone.aclose()
    return bytes(got)


async def play(backend: StreamBackend, data: bytes) -> Ear:
    ear = Ear()
    clock = DevicePlaybackClock(FORMAT, ear, backend, report=ear.report)
    await clock.open()
    for start in range(0, len(data), 3000):
        part = data[start : start + 3000]
        clock.write("answer", len(part) // 2, part)
    clock.finish("answer")
    await clock.wait_played()
    await clock.aclose()
    return ear


@both_pacings
def test_an_array_is_heard_and_played_sample_for_sample(pacing: Pacing) -> None:
    @virtual
    async def run() -> None:
        async with leak_check():
            backend = ArrayBackend(FORMAT, pacing=pacing)
            backend.feed(SAID[:5000])
            backend.feed(memoryview(SAID[5000:]))
            backend.end()

            assert await heard(backend) == SAID
            ear = await play(backend, SAID)

            assert SAID[FADE_BYTES:] in bytes(backend.played)
            assert (ear.played, backend.output_format) == ({"answer": 2004}, FORMAT)

    run()


@both_pacings
def test_a_file_is_heard_and_written_sample_for_sample(pacing: Pacing, tmp_path: Path) -> None:
    @virtual
    async def run() -> None:
        write_wav(tmp_path / "in.wav", SAID, FORMAT)
        backend = FileBackend(tmp_path / "in.wav", tmp_path / "out.wav", pacing=pacing)

        assert await heard(backend) == SAID
        await play(backend, SAID)

        assert SAID[FADE_BYTES:] in read_wav(tmp_path / "out.wav").data

    run()


@both_pacings
async def test_a_pipe_is_heard_and_written_sample_for_sample(pacing: Pacing) -> None:
    said, out = SAID[:8000], io.BytesIO()
    backend = PipeBackend(io.BytesIO(said + b"\x01"), out, input_format=FORMAT, pacing=pacing)

    assert await heard(backend) == said
    ear = await play(backend, said)

    assert said[FADE_BYTES:] in out.getvalue()
    assert ear.played == {"answer": 500}


@virtual
async def test_the_null_device_keeps_time_and_hears_silence() -> None:
    async with leak_check():
        microphone = Microphone(NullBackend(), FORMAT)
        await microphone.open()
        await play(NullBackend(), SAID)
        at = asyncio.get_running_loop().time()

        assert set(await microphone.read()) == {0}
        assert at == pytest.approx(2.0, abs=0.1)
        await microphone.aclose()


@virtual
async def test_without_a_pace_no_time_passes_and_no_silence_is_written(tmp_path: Path) -> None:
    await play(FileBackend(output=tmp_path / "out.wav", pacing="fast"), SAID)

    assert asyncio.get_running_loop().time() == 0.0
    n_written = read_wav(tmp_path / "out.wav").data
    assert len(SAID) <= len(n_written) <= len(SAID) + 4 * 320


@virtual
async def test_in_real_time_the_silence_between_two_answers_is_written() -> None:
    backend = ArrayBackend()
    ear = Ear()
    clock = DevicePlaybackClock(FORMAT, ear, backend)
    await clock.open()
    await asyncio.sleep(1.0)
    clock.write("late", 800, noise(800, -20.0))
    clock.finish("late")
    await clock.wait_played()

    first = next(n for n, value in enumerate(bytes(backend.played)) if value) // 2

    assert first == pytest.approx(8000, abs=400)
    await clock.aclose()


@virtual
async def test_a_loop_that_was_held_up_makes_up_for_it_within_two_seconds() -> None:
    backend = ArrayBackend()
    stream = await backend.open("output", None, FORMAT, 20)
    n_pulled = 0

    class Count:
        def pull(self, n_frames: int) -> bytes:
            nonlocal n_pulled
            n_pulled += 1
            return bytes(2 * n_frames)

        def push(self, block: bytes) -> None:
            """Not for outputs."""

        def is_ready(self) -> bool:
            return True

        def end(self) -> None:
            """Nothing."""

    loop = asyncio.get_running_loop()
    await stream.start(Count())
    await asyncio.sleep(1.0)
    before = n_pulled
    loop._virtual_now += 10.0  # type: ignore[attr-defined]
    await asyncio.sleep(0.02)

    assert before == pytest.approx(50, abs=1)
    assert n_pulled - before == pytest.approx(101, abs=2)
    await stream.close()


@virtual
async def test_fed_later_is_heard_later() -> None:
    backend = ArrayBackend(FORMAT)
    microphone = Microphone(backend, FORMAT)
    await microphone.open()
    asyncio.get_running_loop().call_later(5.0, backend.feed, SAID[:640])

    got = await microphone.read()

    assert got == SAID[:320]
    assert asyncio.get_running_loop().time() == 5.0
    await microphone.aclose()


def test_what_is_no_audio_cannot_be_fed() -> None:
    backend = ArrayBackend(AudioFormat(8000, 2))

    with pytest.raises(AudioFormatError, match=r"ArrayBackend\.feed got 2 bytes"):
        backend.feed(b"ab")
    with pytest.raises(AudioFormatError, match=r"ArrayBackend\.feed got str"):
        backend.feed("ab")


@virtual
async def test_a_direction_that_was_not_given_and_a_file_that_is_not_there_are_errors(tmp_path: Path) -> None:
    with pytest.raises(AudioDeviceError, match="The file backend was given no output"):
        await FileBackend(tmp_path / "in.wav").open("output", None, FORMAT, 20)
    with pytest.raises(AudioDeviceError, match="input of the file backend cannot be opened"):
        await FileBackend(tmp_path / "in.wav").open("input", None, FORMAT, 20)
    (tmp_path / "in.wav").write_bytes(b"ID3")
    with pytest.raises(AudioFormatError, match="MP3"):
        await FileBackend(tmp_path / "in.wav").open("input", None, FORMAT, 20)


@virtual
async def test_input_that_cannot_be_read_leaves_the_output_as_it_was(tmp_path: Path) -> None:
    kept = tmp_path / "kept.wav"
    write_wav(kept, SAID, FORMAT)
    before = kept.read_bytes()

    with pytest.raises(ConfigError, match=r"the same file, 'kept\.wav'"):
        FileBackend(kept, tmp_path / "." / "kept.wav")
    with pytest.raises(AudioDeviceError, match="cannot be opened"):
        await FileBackend(tmp_path / "missing.wav", kept).open("output", None, FORMAT, 20)

    assert kept.read_bytes() == before


@given(st.lists(st.integers(1, 50), max_size=20), st.lists(st.integers(1, 60), max_size=40))
def test_array_source_gives_what_it_was_fed_however_it_is_cut(fed: list[int], read: list[int]) -> None:
    source, whole, got = ArraySource(FORMAT), b"", b""
    for number, n_frames in enumerate(fed):
        piece = bytes([number, 1]) * n_frames
        source.feed(piece)
        whole += piece
    for n_frames in read:
        block = source.read(n_frames)
        assert block is None or len(block) == 2 * n_frames
        got += block or b""
    source.end()
    while rest := source.read(7):
        got += rest

    assert got == whole


def test_block_of_a_long_feed_costs_no_copy_of_the_rest() -> None:
    source = ArraySource(FORMAT)
    source.feed(bytes(2 * 8000 * 60))
    source.read(160)

    tracemalloc.start()
    for _ in range(3):
        source.read(160)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert most < 8000 * 60 / 10


@virtual
async def test_each_backend_lists_its_one_device() -> None:
    for backend in (NullBackend(), ArrayBackend(), PipeBackend(io.BytesIO(), io.BytesIO())):
        devices = await backend.devices()
        assert [device.name for device in devices] == [backend.name]
        assert choose_device(devices, None, "input") is choose_device(devices, None, "output")
        await backend.refresh()
        await backend.close()


class Full(io.BytesIO):
    """A disk that takes some and then no more."""

    def write(self, data: object) -> int:
        raise OSError(28, "No space left on device")


async def test_an_output_that_fails_is_lost_and_the_clock_goes_on() -> None:
    ear = await play(PipeBackend(output=Full()), SAID[:9600])

    (lost,) = ear.outcomes
    assert isinstance(lost, DeviceLost)
    assert (lost.direction, lost.reason) == ("output", "failed")
    assert ear.played == {"answer": 600}


class Stuck(io.BytesIO):
    """A pipe whose reader stops reading after ten blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.n_blocks = 0
        self.is_stuck = threading.Event()
        self.go_on = threading.Event()

    def write(self, data: Any) -> int:
        self.n_blocks += 1
        if self.n_blocks > 10:
            self.is_stuck.set()
            self.go_on.wait(20)
        return super().write(data)


@both_pacings
async def test_a_reader_that_stops_stops_playback_and_what_it_did_not_take_was_not_heard(
    pacing: Pacing,
) -> None:
    out = Stuck()
    clock = DevicePlaybackClock(FORMAT, Ear(), PipeBackend(output=out, pacing=pacing))
    await clock.open()
    clock.write("long", 8000 * 30, noise(8000, -20.0) * 30)
    clock.finish("long")
    await asyncio.to_thread(out.is_stuck.wait, 20)
    await asyncio.sleep(0.5)
    before = clock.played_frames("long")

    clock.flush()
    heard = clock.played_frames("long")
    out.go_on.set()
    await clock.aclose()

    assert before <= (10 + 1 + 10) * 160
    assert 0 < heard <= 11 * 160
    assert out.n_blocks == 11


def test_no_module_of_audio_loads_numpy_or_pyaudio_before_they_are_used() -> None:
    program = (
        "import sys, voxengine.audio.capture, voxengine.audio.player, voxengine.audio.g711\n"
        "from voxengine.audio.backends import array, file, pipe, pyaudio\n"
        "print(sorted({'numpy', 'pyaudio'} & set(sys.modules)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.strip() == "[]"
