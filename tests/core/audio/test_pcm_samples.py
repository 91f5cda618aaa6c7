from __future__ import annotations

import struct
from array import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxengine.audio.pcm import (
    convert_channels,
    float_to_int16,
    int16_to_float,
    mix_to_mono,
    to_int16,
)
from voxengine.errors import AudioFormatError

SAMPLES = [0, 1, -1, 32767, -32768, 1234]
DATA = struct.pack("<6h", *SAMPLES)


def test_bytes_come_back_as_the_same_object() -> None:
    assert to_int16(DATA) is DATA


@pytest.mark.parametrize(
    "given_data",
    [
        bytearray(DATA),
        memoryview(DATA),
        memoryview(DATA + DATA)[: len(DATA)],
        array("h", SAMPLES),
        memoryview(array("h", SAMPLES)),
        np.array(SAMPLES, np.int16),
        np.array(SAMPLES, ">i2"),
        np.array(SAMPLES, np.int16).reshape(3, 2),
        np.asfortranarray(np.array(SAMPLES, np.int16).reshape(2, 3)),
        np.array(SAMPLES, np.float32) / 32768,
        np.array(SAMPLES, np.float64) / 32768,
        np.repeat(np.array(SAMPLES, np.int16), 2)[::2],
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_accepted_form_gives_the_same_bytes(given_data: object) -> None:
    result = to_int16(given_data)

    assert type(result) is bytes
    assert result == DATA


def test_the_result_does_not_follow_later_changes_of_the_callers_buffer() -> None:
    buffer = bytearray(DATA)

    result = to_int16(buffer)
    buffer[0] = 99

    assert result == DATA


def test_floats_beyond_full_scale_are_clipped() -> None:
    result = to_int16(np.array([1.0, 1.5, -1.0, -7.0]))

    assert struct.unpack("<4h", result) == (32767, 32767, -32768, -32768)


@pytest.mark.parametrize(
    ("wrong", "fact"),
    [
        ("hello", "got str"),
        (None, "got NoneType"),
        ([1, 2, 3], "got list"),
        (np.array([1, 2], np.int32), "int32"),
        (np.array([1, 2], np.uint16), "uint16"),
        (np.array([True]), "bool"),
        (np.array([1j]), "complex128"),
        (np.array(0, np.int16), "shape ()"),
        (np.zeros((2, 480), np.int16), "shape (2, 480)"),
        (np.zeros((2, 2, 2), np.int16), "shape (2, 2, 2)"),
        (np.array([0.0, np.nan]), "NaN or infinity"),
        (np.array([np.inf]), "NaN or infinity"),
        (memoryview(array("f", [0.5])), "items 'f'"),
        (array("i", [1]), "items 'i'"),
    ],
)
def test_what_is_refused_names_the_call_and_what_it_got(wrong: object, fact: str) -> None:
    with pytest.raises(AudioFormatError) as caught:
        to_int16(wrong, who="push_audio")

    assert str(caught.value).startswith("push_audio")
    assert fact in str(caught.value)


@given(st.lists(st.integers(-32768, 32767)))
def test_int16_to_float_and_back_is_the_identity(values: list[int]) -> None:
    data = struct.pack(f"<{len(values)}h", *values)

    assert float_to_int16(int16_to_float(data)).tobytes() == data


def test_floats_of_pcm_lie_within_one() -> None:
    floats = int16_to_float(DATA)

    assert floats.dtype == np.float32
    assert floats.min() == -1.0
    assert 0.9999 < floats.max() < 1.0


def test_float_to_int16_leaves_its_argument_alone() -> None:
    samples = np.array([0.25, 2.0])

    float_to_int16(samples)

    assert samples.tolist() == [0.25, 2.0]


def test_an_odd_byte_is_refused_before_anything_is_converted() -> None:
    with pytest.raises(AudioFormatError, match="int16_to_float got 3 bytes"):
        int16_to_float(b"abc")


def test_mono_is_the_mean_of_the_channels_rounded_half_to_even() -> None:
    frames = struct.pack("<8h", 1, 2, 3, 4, -32768, -32768, 32767, -32767)

    result = mix_to_mono(frames, 2)

    assert struct.unpack("<4h", result) == (2, 4, -32768, 0)


@given(st.lists(st.integers(-32768, 32767), max_size=20), st.integers(1, 8), st.integers(1, 8))
def test_a_repeated_channel_survives_every_conversion(values: list[int], n_from: int, n_to: int) -> None:
    mono = struct.pack(f"<{len(values)}h", *values)

    there = convert_channels(convert_channels(mono, 1, n_from), n_from, n_to)

    assert len(there) == len(mono) * n_to
    assert convert_channels(there, n_to, 1) == mono


def test_equal_channels_return_the_same_object() -> None:
    assert convert_channels(DATA, 2, 2) is DATA


@pytest.mark.parametrize(("n_from", "n_to"), [(0, 1), (1, 0), (9, 1), (1, 9)])
def test_impossible_numbers_of_channels_are_refused(n_from: int, n_to: int) -> None:
    with pytest.raises(AudioFormatError, match="from 1 to 8"):
        convert_channels(DATA, n_from, n_to)


def test_half_a_frame_is_refused() -> None:
    with pytest.raises(AudioFormatError, match="no whole number of 8-byte frames"):
        mix_to_mono(DATA, 4)
