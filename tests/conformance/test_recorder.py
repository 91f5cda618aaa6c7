"""The sample recorder tells a whole signal from one with holes, repeats or changes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.providers.registry import ProviderRegistry
from voxengine.testing import FakeProvider, SampleError, SampleRecorder, SampleRun, virtual

N_SAMPLES = 4_000
CUTS = st.lists(st.integers(1, N_SAMPLES - 1), max_size=12, unique=True).map(sorted)


def pieces(signal: bytes, cuts: list[int]) -> list[bytes]:
    bounds = [0, *cuts, len(signal) // 2]
    return [signal[2 * start : 2 * end] for start, end in pairwise(bounds)]


@given(CUTS)
def test_signal_cut_anywhere_is_whole(cuts: list[int]) -> None:
    recorder = SampleRecorder()

    for piece in pieces(recorder.signal(N_SAMPLES), cuts):
        recorder.record(piece)

    recorder.check()
    assert recorder.runs == [SampleRun(0, N_SAMPLES)]


@given(st.integers(0, N_SAMPLES - 1), st.integers(1, N_SAMPLES))
def test_hole_is_found_with_its_indices(start: int, length: int) -> None:
    end = min(start + length, N_SAMPLES)
    recorder = SampleRecorder()
    signal = recorder.signal(N_SAMPLES)

    recorder.record(signal[: 2 * start])
    recorder.record(signal[2 * end :])

    if N_SAMPLES - end >= 4 or end == N_SAMPLES:
        assert recorder.problems() == [f"samples {start} to {end - 1} are missing"]
    else:  # Fewer samples than make a place recognisable.
        assert recorder.problems()


@given(st.integers(0, N_SAMPLES - 8), st.integers(4, 400))
def test_repeat_is_found_with_its_indices(start: int, length: int) -> None:
    end = min(start + length, N_SAMPLES)
    recorder = SampleRecorder()
    signal = recorder.signal(N_SAMPLES)

    recorder.record(signal[: 2 * end])
    recorder.record(signal[2 * start :])

    assert recorder.problems() == [f"samples {start} to {end - 1} came again"]


def test_exchanged_chunks_are_found() -> None:
    recorder = SampleRecorder()
    first, second = pieces(recorder.signal(N_SAMPLES), [N_SAMPLES // 2])

    recorder.record(second)
    recorder.record(first)

    assert recorder.problems() == ["samples 0 to 1999 are missing", "samples 0 to 1999 came again"]


def test_changed_samples_are_found() -> None:
    recorder = SampleRecorder()
    signal = recorder.signal(N_SAMPLES)

    recorder.record(signal[:2000] + b"\x01\x00" * 10 + signal[2020:])

    assert recorder.problems() == [
        "10 samples before index 1000 are not of the signal",
        "samples 1000 to 1009 are missing",
    ]


def test_half_a_sample_is_refused() -> None:
    recorder = SampleRecorder()

    with pytest.raises(SampleError, match="3 bytes"):
        recorder.record(b"abc")


def test_error_names_the_first_faults_and_counts_the_rest() -> None:
    recorder = SampleRecorder()
    signal = recorder.signal(N_SAMPLES)
    for at in range(0, 2000, 200):
        recorder.record(signal[2 * at : 2 * at + 200])

    with pytest.raises(SampleError, match=r"samples 100 to 199 are missing; .*; and 7 more\."):
        recorder.check()


@virtual
async def test_watched_provider_gets_every_sample_of_an_engine_once() -> None:
    recorder = SampleRecorder()
    registry = ProviderRegistry()
    registry.register("fake", recorder.watch(FakeProvider))

    async with VoiceEngine(VoiceEngineConfig(provider="fake"), registry=registry) as engine:
        for _ in range(50):
            await engine.send_audio(recorder.signal(480))
        await engine.end_turn()

    recorder.check()
    assert recorder.n_recorded == recorder.n_made == 24_000


def test_silence_between_samples_is_counted_apart() -> None:
    recorder = SampleRecorder()
    signal = recorder.signal(N_SAMPLES)

    recorder.record(signal[:2000] + bytes(20) + signal[2000:])

    recorder.check()
    assert recorder.n_silent == 10
