from __future__ import annotations

import sys
import warnings
from array import array
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.audio.sounds import pieces
from voxengine.audio.format import Encoding
from voxengine.audio.g711 import decode, encode
from voxengine.errors import AudioFormatError

LAWS = [Encoding.G711_ULAW, Encoding.G711_ALAW]
EVERY_SAMPLE = array("h", range(-32768, 32768)).tobytes()
EVERY_CODE = bytes(range(256))

# ITU-T G.711 (11/88), tables 1a and 2a: the positive decision values of the segments' ends, for 13 and 14
# bits, and the code of the first step above each, as transmitted.
ALAW_SEGMENTS = {0: 0xD5, 32: 0xC5, 64: 0xF5, 128: 0xE5, 256: 0x95, 512: 0x85, 1024: 0xB5, 2048: 0xA5}
ULAW_SEGMENTS = {31: 0xEF, 95: 0xDF, 223: 0xCF, 479: 0xBF, 991: 0xAF, 2015: 0x9F, 4063: 0x8F}


def samples(data: bytes) -> list[int]:
    return list(array("h", data))


def codes(values: list[int], law: Encoding) -> list[int]:
    return list(encode(array("h", values).tobytes(), law))


def test_a_law_segments_begin_where_the_standard_says() -> None:
    assert codes([8 * end for end in ALAW_SEGMENTS], Encoding.G711_ALAW) == list(ALAW_SEGMENTS.values())


def test_mu_law_segments_begin_where_the_standard_says() -> None:
    assert codes([4 * end for end in ULAW_SEGMENTS], Encoding.G711_ULAW) == list(ULAW_SEGMENTS.values())


def test_extremes_and_silence() -> None:
    assert codes([0, 32767, -32768], Encoding.G711_ULAW) == [0xFF, 0x80, 0x00]
    assert codes([0, 32767, -32768], Encoding.G711_ALAW) == [0xD5, 0xAA, 0x2A]
    assert samples(decode(b"\xff\x7f\x80\x00", Encoding.G711_ULAW)) == [0, 0, 32124, -32124]
    assert samples(decode(b"\xd5\x55\xaa\x2a", Encoding.G711_ALAW)) == [8, -8, 32256, -32256]


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="audioop left the standard library in 3.13")
@pytest.mark.parametrize("law", LAWS)
def test_every_sample_and_code_is_as_in_audioop(law: Encoding) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import audioop
    is_ulaw = law is Encoding.G711_ULAW
    reference_encode = audioop.lin2ulaw if is_ulaw else audioop.lin2alaw
    reference_decode = audioop.ulaw2lin if is_ulaw else audioop.alaw2lin

    assert encode(EVERY_SAMPLE, law) == reference_encode(EVERY_SAMPLE, 2)
    assert decode(EVERY_CODE, law) == reference_decode(EVERY_CODE, 2)


@pytest.mark.parametrize("law", LAWS)
def test_decoding_and_encoding_again_keeps_every_code(law: Encoding) -> None:
    again = encode(decode(EVERY_CODE, law), law)

    # mu-law has two codes for zero; both are encoded as the positive one.
    expected = EVERY_CODE.replace(b"\x7f", b"\xff") if law is Encoding.G711_ULAW else EVERY_CODE
    assert again == expected


@pytest.mark.parametrize("law", LAWS)
def test_decoded_values_are_symmetric_and_rise(law: Encoding) -> None:
    values = sorted(samples(decode(EVERY_CODE, law)))

    assert values == [-value for value in reversed(values)]
    assert len(set(values)) >= 255


@pytest.mark.parametrize("law", LAWS)
def test_error_of_a_round_trip_is_within_half_a_step(law: Encoding) -> None:
    there = samples(EVERY_SAMPLE)
    back = samples(decode(encode(EVERY_SAMPLE, law), law))
    steps = sorted(set(samples(decode(EVERY_CODE, law))))

    gaps = dict(zip(steps[1:], [b - a for a, b in pairwise(steps)], strict=True))
    largest = max(steps)
    for before, after in zip(there, back, strict=True):
        if abs(before) <= largest:
            assert abs(before - after) <= max(gaps.get(after, 8), gaps.get(-after, 8), 8)


@given(st.binary(max_size=400), st.lists(st.integers(1, 50), min_size=1, max_size=4), st.sampled_from(LAWS))
def test_cutting_the_input_changes_nothing(data: bytes, sizes: list[int], law: Encoding) -> None:
    pcm = decode(data, law)

    assert b"".join(decode(piece, law) for piece in pieces(data, sizes, frame_bytes=1)) == pcm
    assert b"".join(encode(piece, law) for piece in pieces(pcm, sizes)) == encode(pcm, law)


def test_another_encoding_and_an_odd_byte_are_refused() -> None:
    with pytest.raises(AudioFormatError, match="for g711_ulaw and g711_alaw"):
        encode(b"", Encoding.PCM16)
    with pytest.raises(AudioFormatError, match="for g711_ulaw and g711_alaw"):
        decode(b"", Encoding.PCM16)
    with pytest.raises(AudioFormatError, match=r"g711\.encode got 3 bytes"):
        encode(b"abc", Encoding.G711_ULAW)
