from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.audio.sounds import mixed, noise, pcm16, pieces, silence, spoken, tone
from voxengine.audio.vad import EnergyVad, threshold_to_db
from voxengine.errors import AudioFormatError, ConfigError

RATES = [4000, 8000, 11025, 16000, 22050, 24000, 44100, 48000, 96000]


@pytest.mark.parametrize("sample_rate", RATES)
@pytest.mark.parametrize("level_db", [-60.0, -40.0, -20.0, -4.0])
def test_the_level_is_the_root_mean_square(sample_rate: int, level_db: float) -> None:
    vad = EnergyVad(sample_rate)

    vad.push(tone(sample_rate, 500, sample_rate // 50, level_db))

    assert vad.level_db == pytest.approx(level_db, abs=0.2)


def test_a_constant_offset_has_no_level() -> None:
    vad = EnergyVad(24000)

    assert vad.push(pcm16([9000.0] * 480)) == [False, False]
    assert vad.level_db == -100.0


@pytest.mark.parametrize("sample_rate", RATES)
def test_loud_is_speech_from_the_first_block_and_quiet_is_not(sample_rate: int) -> None:
    n = sample_rate // 20
    loud, quiet, nothing = EnergyVad(sample_rate), EnergyVad(sample_rate), EnergyVad(sample_rate)

    assert all(loud.push(tone(sample_rate, 440, n)))
    assert not any(quiet.push(noise(n, -60.0)))
    assert not any(nothing.push(silence(n)))


def test_a_loud_tone_stays_speech_however_long_it_lasts() -> None:
    assert all(EnergyVad(8000).push(tone(8000, 440, 8000 * 10)))


def test_steady_noise_stops_being_speech_once_it_is_known() -> None:
    flags = EnergyVad(16000).push(noise(16000 * 3, -38.0))

    assert all(flags[:140])
    assert not any(flags[161:])


def test_speech_is_found_above_steady_noise() -> None:
    background = noise(16000 * 5, -42.0)
    talk = silence(16000 * 3) + spoken(16000, 16000 * 2)

    flags = EnergyVad(16000).push(mixed(background, talk))

    assert sum(flags[165:300]) <= 1
    assert sum(flags[300:]) >= 120


def test_three_decibels_less_still_are_speech_after_speech() -> None:
    vad = EnergyVad(8000)
    softer = tone(8000, 500, 80, -47.0)

    flags = vad.push(softer + tone(8000, 500, 80, -44.0) + softer + tone(8000, 500, 80, -49.0) + softer)

    assert flags == [False, True, True, False, False]


def test_the_floor_falls_at_once_when_the_noise_ends() -> None:
    vad = EnergyVad(16000)
    vad.push(noise(16000 * 3, -38.0))

    vad.push(noise(1600, -70.0) + noise(1600, -42.0, seed=2))

    assert vad.is_speech


@settings(deadline=None)
@given(st.integers(0, 3000), st.lists(st.integers(0, 400), min_size=1, max_size=6).filter(any))
def test_cutting_the_input_changes_nothing(n_frames: int, sizes: list[int]) -> None:
    data = mixed(noise(n_frames, -50.0), spoken(8000, n_frames))
    whole, cut = EnergyVad(8000), EnergyVad(8000)

    flags = [flag for piece in pieces(data, sizes) for flag in cut.push(piece)]

    assert flags == whole.push(data)
    assert (cut.level_db, cut.floor_db) == (whole.level_db, whole.floor_db)


def test_reset_forgets_noise_and_half_blocks() -> None:
    vad = EnergyVad(16000)
    vad.push(noise(16000 * 2 + 77, -38.0))

    vad.reset()

    assert vad.push(noise(160, -38.0)) == [True]


def test_a_tone_at_a_quarter_of_a_skipped_rate_is_heard() -> None:
    assert all(EnergyVad(44100).push(tone(44100, 44100 / 4, 4410)))


@pytest.mark.parametrize(("threshold", "level_db"), [(0.0, -60.0), (0.5, -45.0), (1.0, -30.0)])
def test_the_threshold_maps_onto_a_level(threshold: float, level_db: float) -> None:
    assert threshold_to_db(threshold) == level_db


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan])
def test_a_threshold_out_of_range_is_refused(threshold: float) -> None:
    with pytest.raises(ConfigError, match="from 0 to 1"):
        threshold_to_db(threshold)


def test_values_out_of_range_are_refused() -> None:
    with pytest.raises(AudioFormatError, match="sample_rate is 100 Hz"):
        EnergyVad(100)
    with pytest.raises(ConfigError, match="frame_ms is 0"):
        EnergyVad(24000, frame_ms=0)
    with pytest.raises(ConfigError, match=r"threshold_db is 3\.0"):
        EnergyVad(24000, threshold_db=3.0)


def test_an_odd_byte_is_refused_and_nothing_is_taken() -> None:
    vad = EnergyVad(8000)

    with pytest.raises(AudioFormatError, match=r"EnergyVad\.push got 159 bytes"):
        vad.push(bytes(159))

    assert vad.push(bytes(158)) == []
