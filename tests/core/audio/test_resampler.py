from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.core.audio.sounds import noise, pieces
from voxengine.audio.pcm import Resampler, _design
from voxengine.errors import AudioFormatError

MAIN_PAIRS = [
    (8000, 24000),
    (16000, 24000),
    (24000, 8000),
    (24000, 16000),
    (24000, 48000),
    (48000, 24000),
    (44100, 24000),
    (24000, 44100),
    (22050, 16000),
    (16000, 22050),
]
ODD_PAIRS = [(11025, 8000), (8000, 8001), (4000, 192000), (192000, 4000), (12345, 4321), (24000, 24000)]
PAIRS = st.sampled_from(MAIN_PAIRS + ODD_PAIRS)


def sine(sample_rate: int, hz: float, seconds: float = 0.5) -> bytes:
    """A sine at 0.9 of full scale."""
    t = np.arange(int(sample_rate * seconds)) / sample_rate
    return np.rint(0.9 * 32767 * np.sin(2 * np.pi * hz * t + 0.3)).astype("<i2").tobytes()


def resampled(data: bytes, from_rate: int, to_rate: int, *, aligned: bool = True) -> NDArray[np.float64]:
    resampler = Resampler(from_rate, to_rate, aligned=aligned)
    whole = resampler.process(data) + resampler.flush()
    return np.frombuffer(whole, "<i2").astype(np.float64)


def fitted(samples: NDArray[np.float64], sample_rate: int, hz: float) -> tuple[NDArray[np.float64], float]:
    """Return the best sine of that frequency away from the ends, and the signal to noise ratio in dB."""
    t = np.arange(samples.size) / sample_rate
    basis = np.stack([np.sin(2 * np.pi * hz * t), np.cos(2 * np.pi * hz * t)], axis=1)
    inner = slice(samples.size // 8, -samples.size // 8)
    weights = np.linalg.lstsq(basis[inner], samples[inner], rcond=None)[0]
    rest = samples[inner] - basis[inner] @ weights
    return weights, float(10 * np.log10(np.mean(samples[inner] ** 2) / np.mean(rest**2)))


@settings(deadline=None, max_examples=60)
@given(PAIRS, st.booleans(), st.integers(0, 900), st.lists(st.integers(1, 300), min_size=1, max_size=6))
def test_cutting_the_input_changes_no_bit(
    rates: tuple[int, int], aligned: bool, n_frames: int, sizes: list[int]
) -> None:
    data = noise(n_frames, -12.0)
    whole, cut = Resampler(*rates, aligned=aligned), Resampler(*rates, aligned=aligned)

    expected = whole.process(data) + whole.flush()
    got = b"".join(cut.process(piece) for piece in pieces(data, sizes)) + cut.flush()

    assert got == expected


@pytest.mark.parametrize("rates", [(24000, 48000), (48000, 24000), (22050, 16000)])
def test_a_long_input_equals_its_blocks(rates: tuple[int, int]) -> None:
    data = noise(7001, -12.0)
    whole, cut = Resampler(*rates), Resampler(*rates)

    expected = whole.process(data) + whole.flush()
    got = b"".join(cut.process(piece) for piece in pieces(data, [960])) + cut.flush()

    assert got == expected


@settings(deadline=None, max_examples=80)
@given(PAIRS, st.integers(1, 2000), st.integers(0, 300))
def test_aligned_lengths_are_as_documented(rates: tuple[int, int], n_first: int, n_second: int) -> None:
    from_rate, to_rate = rates
    n = n_first + n_second
    resampler = Resampler(*rates)

    given_back = resampler.process(bytes(2 * n_first)) + resampler.process(bytes(2 * n_second))
    total = given_back + resampler.flush()

    lower = min(rates)
    outstanding = 0 if from_rate == to_rate else 32
    due = -(-(n * to_rate * lower - outstanding * from_rate * to_rate) // (from_rate * lower))
    assert len(given_back) // 2 == max(0, due)
    assert len(total) // 2 == math.ceil(n * to_rate / from_rate)


@settings(deadline=None, max_examples=80)
@given(PAIRS, st.integers(1, 2000), st.integers(0, 300))
def test_unaligned_withholds_nothing_and_flush_adds_the_delay(
    rates: tuple[int, int], n_first: int, n_second: int
) -> None:
    from_rate, to_rate = rates
    resampler = Resampler(*rates, aligned=False)

    for n_new, n_so_far in ((n_first, n_first), (n_second, n_first + n_second)):
        before = math.ceil((n_so_far - n_new) * to_rate / from_rate)
        n_given = len(resampler.process(bytes(2 * n_new))) // 2
        assert before + n_given == math.ceil(n_so_far * to_rate / from_rate)
    n_tail = len(resampler.flush()) // 2

    assert abs(n_tail - resampler.delay_s * to_rate) <= 1


@pytest.mark.parametrize(("from_rate", "to_rate"), MAIN_PAIRS)
def test_full_blocks_give_full_blocks_when_unaligned(from_rate: int, to_rate: int) -> None:
    resampler = Resampler(from_rate, to_rate, aligned=False)

    sizes = {len(resampler.process(bytes(2 * (from_rate // 50)))) for _ in range(50)}

    assert sizes == {2 * (to_rate // 50)}


@pytest.mark.parametrize(("from_rate", "to_rate"), MAIN_PAIRS)
@pytest.mark.parametrize("of_lower_rate", [0.02, 0.2, 0.4])
def test_a_sine_keeps_its_level_phase_and_purity(from_rate: int, to_rate: int, of_lower_rate: float) -> None:
    hz = of_lower_rate * min(from_rate, to_rate)

    weights, snr_db = fitted(resampled(sine(from_rate, hz), from_rate, to_rate), to_rate, hz)

    amplitude = float(np.hypot(*weights)) / (0.9 * 32767)
    assert snr_db >= 85
    assert abs(20 * math.log10(amplitude)) <= 0.01
    assert math.atan2(weights[1], weights[0]) == pytest.approx(0.3, abs=1e-3)


@pytest.mark.parametrize(("from_rate", "to_rate"), [pair for pair in MAIN_PAIRS if pair[0] > pair[1]])
@pytest.mark.parametrize("of_lower_rate", [0.51, 0.55, 0.62])
def test_what_the_lower_rate_cannot_hold_is_removed(
    from_rate: int, to_rate: int, of_lower_rate: float
) -> None:
    if (hz := of_lower_rate * to_rate) >= from_rate / 2:
        hz = (from_rate + to_rate) / 4

    result = resampled(sine(from_rate, hz), from_rate, to_rate)

    inner = result[result.size // 8 : -result.size // 8]
    alias_db = 20 * math.log10(max(1e-6, float(inner.std())) / (0.9 * 32767 / math.sqrt(2)))
    assert alias_db <= -85


@pytest.mark.parametrize(("from_rate", "to_rate"), MAIN_PAIRS)
@pytest.mark.parametrize("level", [-32768, -1, 0, 5, 32767])
def test_a_constant_stays_that_constant(from_rate: int, to_rate: int, level: int) -> None:
    data = np.full(from_rate // 10, level, "<i2").tobytes()

    result = resampled(data, from_rate, to_rate)

    edge = to_rate // 50
    assert set(result[edge:-edge]) == {float(level)}


@pytest.mark.parametrize(("up", "down"), [(2, 1), (1, 3), (80, 147), (441, 320)])
def test_sums_are_exact_so_that_the_order_of_adding_cannot_matter(up: int, down: int) -> None:
    bank = _design(up, down)

    in_steps = bank.phases.astype(np.float64) * 2.0**24

    assert np.array_equal(in_steps, np.rint(in_steps))
    assert np.abs(in_steps).sum(axis=1).max() * 32768 < 2.0**53
    assert np.abs(in_steps.sum(axis=1) - 2.0**24).max() <= bank.n_taps / 2
    assert bank.tile is None or set(np.unique(bank.tile)) == {0.0, *np.unique(bank.phases)}


def test_unaligned_is_the_aligned_sound_later() -> None:
    data = sine(48000, 1000)

    aligned = resampled(data, 48000, 24000)
    delayed = resampled(data, 48000, 24000, aligned=False)

    assert np.array_equal(delayed[32:], aligned)


def test_the_last_samples_come_out_of_flush() -> None:
    data = bytes(2 * 1000) + sine(16000, 1000, seconds=0.001)
    resampler = Resampler(16000, 24000)

    resampler.process(data)
    tail = np.frombuffer(resampler.flush(), "<i2")

    assert np.abs(tail[-24:]).max() > 20000


def test_overshoot_saturates_instead_of_wrapping() -> None:
    square = np.tile(np.repeat(np.array([32767, -32768], "<i2"), 40), 50)

    result = resampled(square.tobytes(), 16000, 48000).reshape(-1, 120)

    assert np.all(result[0::2, 5:-5] > 25000)
    assert np.all(result[1::2, 5:-5] < -25000)
    assert (result.min(), result.max()) == (-32768, 32767)


@pytest.mark.parametrize("end", ["flush", "reset"])
def test_a_stream_after_the_end_knows_nothing_of_the_one_before(end: str) -> None:
    data = noise(500, -12.0)
    fresh, used = Resampler(44100, 24000), Resampler(44100, 24000)
    used.process(noise(333, -6.0, seed=2))

    getattr(used, end)()

    assert used.process(data) + used.flush() == fresh.process(data) + fresh.flush()


@pytest.mark.parametrize("aligned", [True, False])
def test_nothing_in_is_nothing_out(aligned: bool) -> None:
    resampler = Resampler(16000, 24000, aligned=aligned)

    assert resampler.process(b"") + resampler.flush() == b""


def test_equal_rates_return_the_same_object_without_delay() -> None:
    data = noise(10, -20.0)
    resampler = Resampler(24000, 24000)

    assert resampler.process(data) is data
    assert resampler.flush() == b""
    assert resampler.delay_s == 0.0


@pytest.mark.parametrize(
    ("rates", "delay_ms"), [((8000, 24000), 4.0), ((24000, 16000), 2.0), ((48000, 24000), 4 / 3)]
)
def test_the_delay_is_32_samples_of_the_lower_rate(rates: tuple[int, int], delay_ms: float) -> None:
    assert Resampler(*rates).delay_s * 1000 == pytest.approx(delay_ms)


@pytest.mark.parametrize("rates", [(24000, 16000), (24000, 24000)])
def test_an_odd_byte_is_refused_and_nothing_is_taken(rates: tuple[int, int]) -> None:
    resampler = Resampler(*rates)

    with pytest.raises(AudioFormatError, match=r"Resampler\.process got 3 bytes"):
        resampler.process(b"abc")

    assert resampler.flush() == b""


@pytest.mark.parametrize("rates", [(24000, 0), (3999, 24000), (24000, 192001)])
def test_a_rate_out_of_range_is_refused(rates: tuple[int, int]) -> None:
    with pytest.raises(AudioFormatError, match="from 4000 to 192000"):
        Resampler(*rates)
