from __future__ import annotations

import importlib.metadata

import pytest

from tests.core.audio.sounds import noise, silence, spoken
from voxengine.audio.detectors import GROUP, load_detector
from voxengine.audio.vad import EnergyVad, Segmenter, threshold_to_db
from voxengine.errors import ConfigError

RATE = 16_000


class Deaf:
    """Hears nothing, in frames of 32 ms."""

    def __init__(self, sample_rate: int, threshold: float) -> None:
        self.frame_samples = sample_rate * 32 // 1000
        self.threshold = threshold
        self.n_resets = 0
        self.rest = b""

    def push(self, data: bytes) -> list[bool]:
        data = self.rest + data
        n_frames = len(data) // (2 * self.frame_samples)
        self.rest = data[n_frames * 2 * self.frame_samples :]
        return [self.judge() for _ in range(n_frames)]

    def judge(self) -> bool:
        return False

    def drop_partial(self) -> None:
        self.rest = b""

    def reset(self) -> None:
        self.n_resets += 1
        self.rest = b""


class Scripted(Deaf):
    """Hears speech in the frames that it was told."""

    def __init__(self, speech: set[int]) -> None:
        super().__init__(RATE, 0.5)
        self.speech = speech
        self.n_frames = 0

    def judge(self) -> bool:
        self.n_frames += 1
        return self.n_frames - 1 in self.speech


def unwilling(sample_rate: int, threshold: float) -> Deaf:
    raise ConfigError("It needs a model. Try: pip install a-model")


def offer(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    entries = [
        importlib.metadata.EntryPoint(name, f"tests.core.audio.test_detectors:{value}", GROUP)
        for name, value in values.items()
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries if group == GROUP else [])


def test_energy_is_always_there_at_the_level_of_the_threshold() -> None:
    detector = load_detector("energy", RATE, 0.8)

    assert isinstance(detector, EnergyVad)
    assert detector.threshold_db == threshold_to_db(0.8)


def test_a_package_s_detector_is_made_for_the_rate_and_the_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, deaf="Deaf")

    detector = load_detector("deaf", 24_000, 0.3)

    assert (type(detector).__name__, detector.frame_samples) == ("Deaf", 768)
    assert getattr(detector, "threshold", None) == 0.3


def test_an_unknown_detector_is_told_which_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, deaf="Deaf")

    with pytest.raises(ConfigError, match=r"No voice detector is called 'keen'\. Installed: energy, deaf\."):
        load_detector("keen", RATE)


def test_the_reason_of_a_package_reaches_the_caller_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, unwilling="unwilling")

    with pytest.raises(ConfigError, match=r"^It needs a model\. Try: pip install a-model$"):
        load_detector("unwilling", RATE)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("nowhere", r"'odd' \(tests\.core\.audio\.test_detectors:nowhere\) cannot be used: AttributeError"),
        ("silence", r"'odd' .* cannot be used: TypeError"),
        ("max", r"'odd' is none: it needs frame_samples"),
    ],
)
def test_what_is_no_detector_is_refused_by_name(
    value: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.core.audio.test_detectors.max", max, raising=False)
    offer(monkeypatch, odd=value)

    with pytest.raises(ConfigError, match=reason):
        load_detector("odd", RATE)


def test_two_packages_with_one_name_are_both_named(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [importlib.metadata.EntryPoint("twin", f"package_{n}:make", GROUP) for n in (1, 2)]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries)

    with pytest.raises(ConfigError, match=r"'twin': package_1:make and package_2:make\. Uninstall one\."):
        load_detector("twin", RATE)


@pytest.mark.parametrize("name", ["energy", "deaf"])
def test_a_threshold_out_of_range_is_refused_for_every_detector(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, deaf="Deaf")

    with pytest.raises(ConfigError, match="threshold is 1.5"):
        load_detector(name, RATE, 1.5)


# --- The segmenter asks it --------------------------------------------------------------------------


def test_a_segmenter_hears_what_its_detector_hears() -> None:
    segmenter = Segmenter(RATE, detector=Deaf(RATE, 0.5))

    assert segmenter.push(spoken(RATE, RATE) + silence(RATE)) == []
    assert [each.kind for each in Segmenter(RATE).push(spoken(RATE, RATE) + silence(RATE))] == [
        "start",
        "end",
    ]


def test_utterances_lie_on_the_frames_of_the_detector() -> None:
    segmenter = Segmenter(RATE, silence_ms=320, prefix_padding_ms=100, detector=Scripted(set(range(20, 40))))

    events = segmenter.push(noise(RATE * 4, -40.0))

    assert [(each.kind, each.sample_index) for each in events] == [("start", 20 * 512), ("end", 40 * 512)]
    assert events[0].padded_index == 20 * 512 - 1600
    assert [each.decided_at for each in events] == [22 * 512, 50 * 512]


def test_a_pause_of_one_frame_does_not_end_an_utterance() -> None:
    frames = set(range(10, 40)) - {15, 20, 21, 30}
    segmenter = Segmenter(RATE, silence_ms=160, detector=Scripted(frames))

    events = segmenter.push(noise(RATE * 4, -40.0))

    assert [each.sample_index for each in events] == [10 * 512, 40 * 512]


def test_a_reset_and_a_flush_reach_the_detector() -> None:
    detector = Deaf(RATE, 0.5)
    segmenter = Segmenter(RATE, detector=detector)
    segmenter.push(silence(700))
    before = detector.n_resets

    segmenter.flush()
    left = detector.rest
    segmenter.reset()

    assert left == b""
    assert detector.n_resets == before + 1
