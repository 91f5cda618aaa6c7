from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.audio.sounds import noise, pcm16, silence, tone
from voxengine.audio.format import AudioFormat
from voxengine.audio.levels import Gain, LevelMeter
from voxengine.errors import AudioFormatError, ConfigError

FORMAT = AudioFormat(8000)


def test_a_sine_shows_its_level_and_its_peak_three_decibels_above() -> None:
    meter = LevelMeter(FORMAT)

    meter.push(tone(8000, 500, 800, -20.0))

    assert meter.rms_db == pytest.approx(-20.0, abs=0.1)
    assert meter.peak_db == pytest.approx(-17.0, abs=0.1)


def test_a_peak_is_held_then_falls() -> None:
    meter = LevelMeter(FORMAT)
    meter.push(tone(8000, 500, 800, -20.0))

    for _ in range(5):
        meter.push(silence(800))
    held = meter.peak_db
    for _ in range(10):
        meter.push(silence(800))

    assert held == pytest.approx(-17.0, abs=0.1)
    assert meter.peak_db == pytest.approx(-37.0, abs=0.2)
    assert meter.rms_db == -100.0


def test_samples_at_full_scale_are_counted() -> None:
    meter = LevelMeter(FORMAT)

    meter.push(pcm16([32767, -32768, 100, 32767]))
    meter.push(b"")

    assert (meter.n_clipped, meter.peak_db) == (3, 0.0)


def test_half_a_frame_is_refused() -> None:
    with pytest.raises(AudioFormatError, match=r"LevelMeter\.push got 3 bytes"):
        LevelMeter(FORMAT).push(b"abc")


@given(st.floats(-30, 30).filter(lambda db: abs(db) > 0.01))
def test_gain_moves_the_level_by_that_much(gain_db: float) -> None:
    before, after = LevelMeter(FORMAT), LevelMeter(FORMAT)
    data = noise(400, -45.0)

    before.push(data)
    after.push(Gain(gain_db).process(data))

    assert after.rms_db - before.rms_db == pytest.approx(gain_db, abs=0.3)


def test_no_gain_returns_the_same_object() -> None:
    data = noise(10, -20.0)

    assert Gain(0.0).process(data) is data


def test_what_does_not_fit_is_clipped_and_counted() -> None:
    gain = Gain(20.0)

    assert gain.process(pcm16([4000, -4000, 100])) == pcm16([32767, -32768, 1000])
    assert gain.n_clipped == 2


@pytest.mark.parametrize("gain_db", [-60.1, 60.1, float("nan")])
def test_a_gain_out_of_range_is_refused(gain_db: float) -> None:
    with pytest.raises(ConfigError, match="from -60 to 60"):
        Gain(gain_db)
