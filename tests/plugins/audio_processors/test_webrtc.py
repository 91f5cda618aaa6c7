"""What the processor makes of the module, with a module that notes its calls."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from voxengine.audio.format import AudioFormat
from voxengine.audio.processors import GROUP, EchoReference, ProcessorChain, load_processor
from voxengine.errors import ConfigError
from voxengine.providers.entry_points import find_entry_points
from voxengine_audio_processors import WebRtcProcessor

FORMAT = AudioFormat(16_000)
FRAME = 320
NAMES = ("webrtc", "webrtc-echo", "webrtc-gain", "webrtc-noise")


class Frame:
    """As livekit's: samples over memory of its own."""

    def __init__(self, sample_rate: int, n_channels: int, n_samples: int) -> None:
        self.shape = sample_rate, n_channels, n_samples
        self.memory = bytearray(2 * n_channels * n_samples)
        self.data = memoryview(self.memory).cast("h")

    @classmethod
    def create(cls, sample_rate: int, num_channels: int, samples_per_channel: int) -> Frame:
        return cls(sample_rate, num_channels, samples_per_channel)


class Module:
    """As livekit's, but it takes the loudspeaker's frame away byte by byte."""

    made: Module

    def __init__(self, **switches: bool) -> None:
        self.switches = switches
        self.calls: list[Any] = []
        self.far: bytes | None = None
        type(self).made = self

    def process_reverse_stream(self, frame: Frame) -> None:
        self.calls.append("far")
        self.far = bytes(frame.memory)

    def set_stream_delay_ms(self, delay_ms: int) -> None:
        if not 0 <= delay_ms <= 500:
            raise RuntimeError("Failed to set stream delay")
        self.calls.append(delay_ms)

    def process_stream(self, frame: Frame) -> None:
        self.calls.append("near")
        if self.far is None:
            return
        frame.memory[:] = bytes((a - b) % 256 for a, b in zip(frame.memory, self.far, strict=True))


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> type[Module]:
    fake: Any = ModuleType("livekit.rtc")
    fake.AudioProcessingModule, fake.AudioFrame = Module, Frame
    monkeypatch.setitem(sys.modules, "livekit.rtc", fake)
    return Module


def test_every_name_of_the_readme_is_offered() -> None:
    found, _ = find_entry_points(GROUP)

    assert {entry.name for entry in found if entry.value.startswith("voxengine_audio_processors")} == set(
        NAMES
    )


@pytest.mark.parametrize(
    ("name", "switched_on"),
    [
        ("webrtc", {"echo_cancellation", "noise_suppression", "high_pass_filter"}),
        ("webrtc-echo", {"echo_cancellation", "high_pass_filter"}),
        ("webrtc-noise", {"noise_suppression", "high_pass_filter"}),
        (
            "webrtc-gain",
            {"echo_cancellation", "noise_suppression", "high_pass_filter", "auto_gain_control"},
        ),
    ],
)
def test_a_name_switches_on_what_it_says(name: str, switched_on: set[str], module: type[Module]) -> None:
    processor = load_processor(name, FORMAT)

    assert isinstance(processor, WebRtcProcessor)
    assert {key for key, value in module.made.switches.items() if value} == switched_on


def test_a_frame_goes_through_and_comes_back_changed(module: type[Module]) -> None:
    processor = WebRtcProcessor(FORMAT)
    first = processor.process(bytes([7]) * FRAME, bytes([5]) * FRAME, 0)
    second = processor.process(bytes([9]) * FRAME, bytes([5]) * FRAME, 0)

    assert (first, second) == (bytes([2]) * FRAME, bytes([4]) * FRAME)
    assert module.made.calls == ["far", 0, "near", "far", "near"]


def test_the_delay_is_told_when_it_changes_and_within_what_the_module_takes(module: type[Module]) -> None:
    processor = WebRtcProcessor(FORMAT)

    for delay_ms in (60, 60, 70, -5, 900):
        processor.process(bytes(FRAME), bytes(FRAME), delay_ms)

    assert [call for call in module.made.calls if isinstance(call, int)] == [60, 70, 0, 500]


def test_without_echo_cancelling_the_loudspeaker_is_not_heard(module: type[Module]) -> None:
    processor = load_processor("webrtc-noise", FORMAT)

    assert processor.process(bytes([7]) * FRAME, bytes([5]) * FRAME, 40) == bytes([7]) * FRAME
    assert module.made.calls == ["near"]


def test_frames_have_the_length_and_the_channels_of_the_format(module: type[Module]) -> None:
    wide = AudioFormat(48_000, channels=2)
    processor = WebRtcProcessor(wide, echo=False)
    chain = ProcessorChain([processor], wide, EchoReference(wide))
    data = bytes(range(192)) * 10 * 3

    assert chain.process(data) == data
    assert chain.failed == []


def test_nothing_to_do_is_refused(module: type[Module]) -> None:
    with pytest.raises(ConfigError, match="nothing to do"):
        WebRtcProcessor(FORMAT, echo=False, noise=False, high_pass=False)


@pytest.mark.parametrize("name", NAMES)
def test_without_livekit_the_extra_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "livekit.rtc", None)

    with pytest.raises(
        ConfigError, match=r"^The WebRTC .* is not installed\. .*audio-processors\[webrtc\]'$"
    ):
        load_processor(name, FORMAT)


def test_a_livekit_that_does_not_load_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> SimpleNamespace:
        raise ImportError("failed to load liblivekit_ffi.so", name="google.protobuf")

    monkeypatch.setattr("importlib.import_module", broken)

    with pytest.raises(ConfigError, match=r"cannot be loaded: failed to load liblivekit_ffi\.so"):
        WebRtcProcessor(FORMAT)
