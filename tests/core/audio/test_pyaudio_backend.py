"""The PyAudio backend against a PortAudio that tests can make refuse, hang and fall silent."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from voxengine.audio.backends import pyaudio as module
from voxengine.audio.backends.pyaudio import PyAudioBackend, PyAudioStream
from voxengine.audio.format import AudioFormat
from voxengine.errors import AudioDeviceError

FORMAT = AudioFormat(24000)
TIMES = {"current_time": 10.0, "output_buffer_dac_time": 10.03, "input_buffer_adc_time": 9.9}


class Raw:
    """PyAudio's stream."""

    def __init__(self, audio: FakePortAudio, options: dict[str, Any]) -> None:
        self.audio = audio
        self.options = options
        self.calls: list[str] = []
        self._stream = self
        audio.raws.append(self)

    def start_stream(self) -> None:
        self.audio.gate("start")
        self.calls.append("start")

    def is_active(self) -> bool:
        return self.calls[-1:] in (["start"], ["restart"])

    def close(self) -> None:
        self.audio.gate("close")
        self.calls.append("close")


class FakePortAudio:
    """The module, its instance and its C module in one."""

    paInt16 = 8

    def __init__(self) -> None:
        self.rates: set[tuple[int, int]] = {(24000, 1)}
        self.raws: list[Raw] = []
        self.n_initialised = 0
        self.n_terminated = 0
        self.holds: dict[str, threading.Event] = {}
        self.refuses: dict[str, OSError] = {}
        self.aborted = threading.Event()
        self.pa = types.SimpleNamespace(abort_stream=self.abort_stream, start_stream=self.restart)
        self.devices = [("card", 2, 2), ("default", 2, 2)]

    def gate(self, what: str) -> None:
        if what in self.refuses:
            raise self.refuses[what]
        if what in self.holds:
            self.holds[what].wait(30)

    def PyAudio(self) -> FakePortAudio:
        self.n_initialised += 1
        os.write(2, b"ALSA lib: noise\n")
        return self

    def terminate(self) -> None:
        self.n_terminated += 1

    def open(self, **options: Any) -> Raw:
        self.gate("open")
        if (options["rate"], options["channels"]) not in self.rates:
            raise OSError(-9997, "Invalid sample rate")
        return Raw(self, options)

    def abort_stream(self, raw: Raw) -> None:
        self.gate("abort")
        raw.calls.append("abort")

    def restart(self, raw: Raw) -> None:
        self.aborted.set()
        self.gate("restart")
        raw.calls.append("restart")

    def get_host_api_count(self) -> int:
        return 1

    def get_host_api_info_by_index(self, index: int) -> dict[str, Any]:
        return {"name": "ALSA"}

    def get_device_count(self) -> int:
        return len(self.devices)

    def get_device_info_by_index(self, index: int) -> dict[str, Any]:
        name, n_in, n_out = self.devices[index]
        return {
            "name": name, "hostApi": 0, "maxInputChannels": n_in, "maxOutputChannels": n_out,
            "defaultSampleRate": 44100.0,
        }  # fmt: skip

    def get_default_input_device_info(self) -> dict[str, Any]:
        raise OSError("No Default Input Device Available")

    def get_default_output_device_info(self) -> dict[str, Any]:
        return {"index": 1}


class Feed:
    """Gives ones, takes everything."""

    def __init__(self) -> None:
        self.pushed: list[bytes] = []
        self.pull: Callable[[int], bytes] = lambda n_frames: b"\x01" * (2 * n_frames)

    def push(self, block: bytes) -> None:
        self.pushed.append(block)

    def is_ready(self) -> bool:
        return True

    def end(self) -> None:
        """Devices do not end."""


@pytest.fixture
def audio(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePortAudio]:
    fake = FakePortAudio()
    monkeypatch.setitem(sys.modules, "pyaudio", fake)
    for name in ("_OPEN_PATIENCE_S", "_CLOSE_PATIENCE_S", "_CALLS_PATIENCE_S"):
        monkeypatch.setattr(module, name, 0.05)
    yield fake
    for hold in fake.holds.values():
        hold.set()


async def opened(
    direction: Any = "output", backend: PyAudioBackend | None = None
) -> tuple[PyAudioStream, Feed]:
    stream = await (backend or PyAudioBackend()).open(direction, None, FORMAT, 20)
    feed = Feed()
    await stream.start(feed)
    return stream, feed


async def test_without_pyaudio_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyaudio", None)

    with pytest.raises(AudioDeviceError, match=r"pip install 'voxengine\[audio\]'") as caught:
        PyAudioBackend()

    assert caught.value.reason == "not_installed"


async def test_callback_always_returns_a_full_block_and_never_raises(audio: FakePortAudio) -> None:
    stream, feed = await opened()

    def broken(n_frames: int) -> bytes:
        raise RuntimeError("in the callback")

    good = stream.callback(None, 480, TIMES, 0)
    feed.pull = broken
    raised = stream.callback(None, 480, TIMES, 4)
    feed.pull = lambda n_frames: b"short"
    short = stream.callback(None, 480, TIMES, 16)
    no_times = stream.callback(None, 480, {}, 0)
    stream.detach()
    detached = stream.callback(None, 480, TIMES, 0)

    assert good == (b"\x01" * 960, 0)
    assert raised == short == no_times == detached == (bytes(960), 0)
    assert (stream.stats.n_blocks, stream.stats.n_errors, stream.stats.n_xruns) == (5, 2, 1)
    await stream.close()


async def test_recording_callback_hands_over_blocks_and_never_raises(audio: FakePortAudio) -> None:
    stream, feed = await opened("input")

    results = [stream.callback(b"ab", 1, TIMES, 2)]
    feed.push = None  # type: ignore[assignment]
    results.append(stream.callback(b"cd", 1, TIMES, 0))
    stream.detach()
    results.append(stream.callback(b"ef", 1, TIMES, 0))

    assert results == [(None, 0)] * 3
    assert feed.pushed == [b"ab"]
    assert (stream.stats.n_xruns, stream.stats.n_errors) == (1, 1)
    await stream.close()


async def test_the_vendor_s_rate_is_asked_for_first_then_what_the_device_takes(audio: FakePortAudio) -> None:
    backend = PyAudioBackend()
    first = await backend.open("output", None, FORMAT, 20)
    audio.rates = {(48000, 2)}
    second = await backend.open("input", "card", FORMAT, 10)

    assert (first.format, first.block_frames, first.device.name) == (FORMAT, 480, "default")
    assert (second.format, second.block_frames) == (AudioFormat(48000, 2), 480)
    assert audio.raws[0].options["output_device_index"] == 1
    assert audio.raws[1].options["input_device_index"] == 0
    assert all(raw.options["start"] is False for raw in audio.raws)
    await backend.close()


@pytest.mark.parametrize(
    ("error", "reason", "words"),
    [
        (
            OSError(-9985, "Device unavailable"),
            "unavailable",
            r"cannot be used: Device unavailable \(-9985\)",
        ),
        (OSError(-9997, "Invalid sample rate"), "unsupported", "takes 24000 Hz mono in no form that we know"),
    ],
)
async def test_a_device_that_refuses_is_an_error_that_says_why(
    audio: FakePortAudio, error: OSError, reason: str, words: str
) -> None:
    audio.refuses["open"] = error

    with pytest.raises(AudioDeviceError, match=words) as caught:
        await PyAudioBackend().open("output", None, FORMAT, 20)

    assert caught.value.reason == reason


async def test_a_device_that_will_not_start_is_an_error(audio: FakePortAudio) -> None:
    stream = await PyAudioBackend().open("output", None, FORMAT, 20)
    audio.refuses["start"] = OSError(-9999, "Unanticipated host error")

    with pytest.raises(AudioDeviceError, match="Unanticipated host error"):
        await stream.start(Feed())

    await stream.close()


async def test_an_open_that_hangs_is_given_up_and_what_comes_late_is_closed(audio: FakePortAudio) -> None:
    backend = PyAudioBackend(switch_interval_s=None)
    audio.holds["open"] = threading.Event()

    with pytest.raises(AudioDeviceError, match="did not answer within") as hung:
        await backend.open("output", None, FORMAT, 20)
    with pytest.raises(AudioDeviceError, match="an earlier call") as stuck:
        await backend.open("output", None, FORMAT, 20)
    audio.holds.pop("open").set()
    async with asyncio.timeout(10):
        while not (audio.raws and audio.raws[0].calls == ["close"]):  # noqa: ASYNC110 - another thread closes it.
            await asyncio.sleep(0.005)

    assert (hung.value.reason, stuck.value.reason) == ("timeout", "stuck")
    assert not backend.is_tainted
    again = await backend.open("output", None, FORMAT, 20)
    await again.close()


async def test_a_close_that_hangs_is_given_up_and_portaudio_is_never_shut_down(audio: FakePortAudio) -> None:
    backend = PyAudioBackend(switch_interval_s=None)
    stream, _ = await opened(backend=backend)
    audio.holds["close"] = threading.Event()

    await stream.close()
    await stream.close()
    await backend.refresh()
    await backend.close()

    assert backend.is_tainted
    assert audio.n_terminated == 0
    assert not stream.is_active()


async def test_portaudio_is_initialised_anew_only_when_no_stream_lives(audio: FakePortAudio) -> None:
    backend = PyAudioBackend()
    stream, _ = await opened(backend=backend)
    await backend.refresh()
    while_open = (audio.n_initialised, audio.n_terminated)
    await stream.close()
    audio.devices.append(("new", 1, 1))

    await backend.refresh()

    assert while_open == (1, 0)
    assert [device.name for device in await backend.devices()] == ["card", "default", "new"]
    assert (audio.n_initialised, audio.n_terminated) == (2, 1)
    await backend.close()


async def test_a_hard_flush_aborts_and_starts_in_a_thread(audio: FakePortAudio) -> None:
    stream, _ = await opened()
    audio.holds["abort"] = threading.Event()

    first, second = stream.discard(), stream.discard()
    audio.holds.pop("abort").set()
    going = stream._discarding
    assert going is not None
    await going.wait(10)

    assert (first, second) == (True, False)
    assert audio.raws[0].calls == ["start", "abort", "restart"]
    assert stream.is_active()
    await stream.close()


async def test_a_stream_that_is_about_to_go_on_after_a_hard_flush_is_not_taken_for_lost(
    audio: FakePortAudio,
) -> None:
    stream, _ = await opened()
    audio.holds["restart"] = threading.Event()
    stream.discard()
    await asyncio.to_thread(audio.aborted.wait, 10)

    in_between = (audio.raws[0].is_active(), stream.is_active())
    audio.holds.pop("restart").set()

    assert in_between == (False, True)
    await stream.close()


async def test_a_stream_is_not_closed_while_a_hard_flush_is_under_way(audio: FakePortAudio) -> None:
    stream, _ = await opened()
    audio.holds["abort"] = threading.Event()
    stream.discard()

    closing = stream.begin_close()
    with pytest.raises(TimeoutError):
        await closing.wait(0.05)
    in_between = list(audio.raws[0].calls)
    audio.holds.pop("abort").set()
    await closing.wait(10)

    assert in_between == ["start"]
    assert audio.raws[0].calls == ["start", "abort", "restart", "close"]


async def test_after_a_hard_flush_that_failed_or_took_too_long_flushes_are_soft(audio: FakePortAudio) -> None:
    stream, _ = await opened()
    audio.refuses["abort"] = OSError(-9999, "Unanticipated host error")
    assert stream.discard()
    going = stream._discarding
    assert going is not None
    with pytest.raises(OSError, match="Unanticipated"):
        await going.wait(10)
    audio.refuses.clear()

    assert not stream.discard()
    await stream.close()
    assert not stream.discard()


async def test_a_library_without_abort_is_flushed_softly(audio: FakePortAudio) -> None:
    stream, _ = await opened()
    del audio.pa.abort_stream

    assert not stream.discard()
    await stream.close()


async def test_what_the_device_holds_is_its_delay_and_the_last_block(
    audio: FakePortAudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, _ = await opened()
    before = stream.n_unplayed()
    stream.callback(None, 480, TIMES, 0)
    at = stream.stats.last_block_at

    assert before == 0
    assert stream.n_unplayed(at) == pytest.approx(480 + 720, abs=2)
    assert stream.n_unplayed(at + 0.01) == pytest.approx(480 + 480, abs=2)
    assert stream.n_unplayed(at + 60) == 0
    await stream.close()


async def test_the_switch_interval_is_lowered_while_streams_are_open(audio: FakePortAudio) -> None:
    before = sys.getswitchinterval()
    backend = PyAudioBackend(switch_interval_s=0.001)
    first, _ = await opened(backend=backend)
    second, _ = await opened("input", backend)
    during = sys.getswitchinterval()
    await first.close()
    still = sys.getswitchinterval()

    await second.close()

    assert [during, still] == pytest.approx([0.001, 0.001])
    assert sys.getswitchinterval() == before


async def test_a_switch_interval_that_somebody_else_has_set_stays(audio: FakePortAudio) -> None:
    before = sys.getswitchinterval()
    stream, _ = await opened(backend=PyAudioBackend(switch_interval_s=0.001))
    try:
        sys.setswitchinterval(0.02)

        await stream.close()

        assert sys.getswitchinterval() == pytest.approx(0.02)
    finally:
        sys.setswitchinterval(before)


async def test_noise_of_the_c_libraries_does_not_reach_standard_error(
    audio: FakePortAudio, capfd: pytest.CaptureFixture[str]
) -> None:
    await PyAudioBackend().devices()
    os.write(2, b"ours\n")

    assert capfd.readouterr().err == "ours\n"


async def test_a_machine_without_a_default_device_lists_the_others(audio: FakePortAudio) -> None:
    devices = await PyAudioBackend().devices()

    assert [device.is_default_input for device in devices] == [False, False]
    assert [device.is_default_output for device in devices] == [False, True]
