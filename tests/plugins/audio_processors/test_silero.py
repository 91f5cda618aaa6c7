"""What the detector makes of the model, with a model that is as sure of speech as the frame is loud."""

from __future__ import annotations

import importlib.metadata
import itertools
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.core.audio.sounds import noise, pieces, silence, tone
from voxengine.audio.detectors import load_detector
from voxengine.audio.vad import Segmenter
from voxengine.errors import AudioFormatError, ConfigError
from voxengine_audio_processors import SileroDetector
from voxengine_audio_processors.silero import MODEL_VARIABLE, find_model

INPUTS = ("input", "state", "sr")


class Session:
    """As onnxruntime's. The probability is the peak of the frame, the state counts the frames."""

    inputs: tuple[str, ...] = INPUTS
    feeds: list[Mapping[str, Any]]

    def __init__(self, path: str, options: object, providers: list[str]) -> None:
        if Path(path).read_bytes() != b"model":
            raise RuntimeError("INVALID_PROTOBUF")
        type(self).feeds = []

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name) for name in self.inputs]

    def run(self, output_names: None, feed: Mapping[str, Any]) -> list[Any]:
        self.feeds.append(feed)
        frame = feed["input"][0]
        peak = np.abs(frame[len(frame) // 9 :]).max()  # A ninth is context.
        return [np.array([[peak]], dtype=np.float32), feed["state"] + 1]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    runtime: Any = ModuleType("onnxruntime")
    runtime.SessionOptions, runtime.InferenceSession = SimpleNamespace, Session
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    monkeypatch.setattr(Session, "inputs", INPUTS)
    path = tmp_path / "model.onnx"
    path.write_bytes(b"model")
    monkeypatch.setenv(MODEL_VARIABLE, str(path))
    return path


@pytest.mark.parametrize(
    ("sample_rate", "frame_samples", "heard", "heard_rate"),
    [
        (8_000, 256, 288, 8_000),
        (11_025, 352, 288, 8_000),
        (16_000, 512, 576, 16_000),
        (24_000, 768, 576, 16_000),
        (44_100, 1411, 576, 16_000),
        (48_000, 1536, 576, 16_000),
    ],
)
def test_the_model_hears_its_own_rate_whatever_the_audio_has(
    sample_rate: int, frame_samples: int, heard: int, heard_rate: int, model: Path
) -> None:
    detector = load_detector("silero", sample_rate)

    flags = detector.push(tone(sample_rate, 440.0, frame_samples * 5 + 7))

    assert (detector.frame_samples, len(flags)) == (frame_samples, 5)
    assert {feed["input"].shape for feed in Session.feeds} == {(1, heard)}
    assert {int(feed["sr"]) for feed in Session.feeds} == {heard_rate}
    assert all(feed["input"].dtype == np.float32 for feed in Session.feeds)


@pytest.mark.parametrize("sample_rate", [8_000, 16_000, 24_000, 48_000])
def test_each_frame_begins_with_the_end_of_the_one_before(sample_rate: int, model: Path) -> None:
    SileroDetector(sample_rate).push(noise(sample_rate // 4, -20.0))

    heard = [feed["input"][0] for feed in Session.feeds]
    n_context = len(heard[0]) // 9
    assert len(heard) == 7
    assert not heard[0][:n_context].any()
    for earlier, later in itertools.pairwise(heard):
        assert np.array_equal(earlier[-n_context:], later[:n_context])


def test_the_state_is_handed_on_and_forgotten_by_a_reset(model: Path) -> None:
    detector = SileroDetector(16_000)
    detector.push(noise(512 * 3 + 100, -20.0))
    detector.reset()
    detector.push(silence(512))

    assert [float(feed["state"].flat[0]) for feed in Session.feeds] == [0.0, 1.0, 2.0, 0.0]
    assert detector.probability == 0.0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.sampled_from([8_000, 24_000, 44_100]),
    st.lists(st.integers(0, 3000), min_size=1, max_size=5).filter(any),
)
def test_how_the_audio_is_cut_changes_nothing(model: Path, sample_rate: int, sizes: list[int]) -> None:
    data = noise(3_000, -6.0) + silence(2_000) + noise(3_000, -3.0, seed=2)
    whole, cut = SileroDetector(sample_rate), SileroDetector(sample_rate)

    expected = whole.push(data)
    got = [flag for piece in pieces(data, sizes) for flag in cut.push(piece)]

    assert got == expected
    assert cut.probability == whole.probability


@pytest.mark.parametrize(
    ("threshold", "needed"), [(0.0, 0.1), (0.25, 0.3), (0.5, 0.5), (0.75, 0.7), (1.0, 0.9)]
)
def test_a_threshold_is_a_probability_with_room_below_it_for_going_on(
    threshold: float, needed: float, model: Path
) -> None:
    detector = SileroDetector(16_000, threshold)

    def frame(peak: float) -> bytes:
        return round(peak * 32768).to_bytes(2, "little", signed=True) * 512

    peaks = [needed - 0.05, needed + 0.05, max(needed - 0.1, 0.0), max(needed - 0.2, 0.0), needed - 0.05]
    flags = [detector.push(frame(peak))[0] for peak in peaks]

    # From 0.1 on 0.15 less is below nothing: whoever asks for everything gets it.
    assert flags == [False, True, True, threshold == 0.0, threshold == 0.0]


def test_a_part_of_a_frame_can_be_dropped(model: Path) -> None:
    detector = SileroDetector(16_000)
    loud = (30_000).to_bytes(2, "little") * 300
    detector.push(loud)
    detector.drop_partial()

    assert detector.push(silence(511)) == []
    assert detector.push(silence(1)) == [False]


def test_odd_bytes_are_refused_and_leave_nothing_behind(model: Path) -> None:
    detector = SileroDetector(16_000)

    with pytest.raises(AudioFormatError, match=r"SileroDetector\.push got 3 bytes"):
        detector.push(b"\1\2\3")
    assert detector.push(silence(512)) == [False]


def test_a_segmenter_with_it_finds_an_utterance(model: Path) -> None:
    segmenter = Segmenter(24_000, silence_ms=200, detector=load_detector("silero", 24_000))

    events = segmenter.push(silence(24_000) + tone(24_000, 300.0, 24_000, -4.0) + silence(24_000))

    assert [each.kind for each in events] == ["start", "end"]
    assert abs(events[0].sample_index - 24_000) <= 768
    assert abs(events[1].sample_index - 48_000) <= 2 * 768


# --- What can be missing ----------------------------------------------------------------------------


def test_a_model_is_read_once_for_any_number_of_detectors(model: Path) -> None:
    SileroDetector(16_000)
    model.write_bytes(b"something else")

    assert SileroDetector(16_000).push(silence(512)) == [False]


def test_without_onnxruntime_the_extra_is_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    with pytest.raises(
        ConfigError, match=r"^The detector 'silero' needs onnxruntime, .*processors\[silero\]"
    ):
        load_detector("silero", 16_000)


def test_a_path_without_a_file_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(MODEL_VARIABLE, str(tmp_path / "gone.onnx"))

    with pytest.raises(ConfigError, match=rf"{MODEL_VARIABLE} names .*gone\.onnx', where no file is\."):
        find_model()


def test_a_file_that_is_no_model_is_told(model: Path) -> None:
    model.write_bytes(b"text")

    with pytest.raises(ConfigError, match=r"model\.onnx' cannot be read: RuntimeError: INVALID_PROTOBUF"):
        SileroDetector(16_000)


def test_another_model_is_told_apart_by_its_inputs(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "inputs", ("input", "h", "c", "sr"))

    with pytest.raises(
        ConfigError, match=r"is another model: it takes c, h, input, sr, not input, sr, state"
    ):
        SileroDetector(16_000)


class Located(PurePosixPath):
    """A file of a distribution, which knows where it is."""

    folder: Path

    def locate(self) -> Path:
        return self.folder / self


def test_the_model_of_the_installed_package_is_found_without_importing_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(MODEL_VARIABLE, raising=False)
    monkeypatch.setattr(Located, "folder", tmp_path, raising=False)
    names = ["silero_vad/__init__.py", "silero_vad/data/silero_vad.jit", "silero_vad/data/silero_vad.onnx"]
    files = [Located(name) for name in names]
    monkeypatch.setattr(importlib.metadata, "files", lambda name: files if name == "silero-vad" else None)

    with pytest.raises(ConfigError, match=r"has no file silero_vad/data/silero_vad\.onnx"):
        find_model()
    path = tmp_path / "silero_vad" / "data" / "silero_vad.onnx"
    path.parent.mkdir(parents=True)
    path.touch()

    assert find_model() == path


def test_without_the_package_both_ways_to_get_the_model_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.delenv(MODEL_VARIABLE, raising=False)
    monkeypatch.setattr(importlib.metadata, "files", missing)

    with pytest.raises(ConfigError, match=rf"pip install --no-deps silero-vad .*{MODEL_VARIABLE}"):
        find_model()
