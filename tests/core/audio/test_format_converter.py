from __future__ import annotations

import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.audio.sounds import noise, pieces, tone
from voxengine.audio import g711
from voxengine.audio.format import AudioFormat, Encoding
from voxengine.audio.pcm import FormatConverter, convert, convert_channels
from voxengine.errors import AudioFormatError

FORMATS = st.builds(
    AudioFormat, sample_rate=st.sampled_from([8000, 16000, 24000, 44100]), channels=st.integers(1, 3)
)


@settings(deadline=None, max_examples=60)
@given(FORMATS, FORMATS, st.integers(0, 500), st.lists(st.integers(1, 200), min_size=1, max_size=4))
def test_a_stream_cut_anywhere_equals_the_whole(
    source: AudioFormat, target: AudioFormat, n_frames: int, sizes: list[int]
) -> None:
    data = noise(n_frames * source.channels, -15.0)
    converter = FormatConverter(source, target)

    streamed = [converter.process(piece) for piece in pieces(data, sizes, source.frame_bytes)]

    assert b"".join(streamed) + converter.flush() == convert(data, source, target)


@settings(deadline=None)
@given(FORMATS, FORMATS, st.integers(0, 1000))
def test_the_length_follows_the_rates(source: AudioFormat, target: AudioFormat, n_frames: int) -> None:
    result = convert(bytes(n_frames * source.frame_bytes), source, target)

    n_expected = -(-n_frames * target.sample_rate // source.sample_rate)
    assert len(result) == n_expected * target.frame_bytes


def test_equal_formats_return_the_same_object() -> None:
    data = noise(10, -20.0)
    converter = FormatConverter(AudioFormat(24000), AudioFormat(24000))

    assert converter.is_identity
    assert converter.process(data) is data
    assert converter.flush() == b""
    assert convert(data, AudioFormat(), AudioFormat()) is data


def test_stereo_channels_stay_apart() -> None:
    left, right = tone(48000, 300, 4800), tone(48000, 1100, 4800)
    both = np.stack([np.frombuffer(left, "<i2"), np.frombuffer(right, "<i2")], axis=1).tobytes()

    result = np.frombuffer(convert(both, AudioFormat(48000, 2), AudioFormat(24000, 2)), "<i2")

    mono = AudioFormat(48000), AudioFormat(24000)
    assert result[0::2].tobytes() == convert(left, *mono)
    assert result[1::2].tobytes() == convert(right, *mono)


def test_stereo_to_mono_averages_before_it_resamples() -> None:
    data = noise(960, -15.0)

    result = convert(data, AudioFormat(48000, 2), AudioFormat(24000))

    assert result == convert(convert_channels(data, 2, 1), AudioFormat(48000), AudioFormat(24000))


def test_mono_to_stereo_at_one_rate_repeats_each_sample() -> None:
    converter = FormatConverter(AudioFormat(24000), AudioFormat(24000, 2))

    result = converter.process(struct.pack("<2h", 5, -6))

    assert not converter.is_identity
    assert struct.unpack("<4h", result) == (5, 5, -6, -6)
    assert converter.flush() == b""


def test_unaligned_streams_get_full_blocks_from_the_first_on() -> None:
    converter = FormatConverter(AudioFormat(48000, 2), AudioFormat(24000), aligned=False)

    first = converter.process(bytes(960 * 4))

    assert len(first) == 480 * 2
    assert converter.delay_s == pytest.approx(32 / 24000)


def test_reset_forgets_the_stream() -> None:
    data = noise(300, -15.0)
    formats = AudioFormat(16000), AudioFormat(24000, 2)
    converter = FormatConverter(*formats)
    converter.process(noise(77, -6.0, seed=3))

    converter.reset()

    assert converter.process(data) + converter.flush() == convert(data, *formats)


@pytest.mark.parametrize("target", [AudioFormat(48000, 2), AudioFormat(24000)])
def test_half_a_frame_is_refused_and_names_the_call(target: AudioFormat) -> None:
    converter = FormatConverter(AudioFormat(48000, 2), target, who="send_audio")

    with pytest.raises(AudioFormatError, match="send_audio got 6 bytes"):
        converter.process(bytes(6))


@pytest.mark.parametrize("law", [Encoding.G711_ULAW, Encoding.G711_ALAW])
def test_g711_is_decoded_before_and_encoded_behind_the_filter(law: Encoding) -> None:
    wide, narrow, coded = AudioFormat(24000), AudioFormat(8000), AudioFormat(8000, 1, law)
    data = tone(24000, 440, 1200)

    encoded = convert(data, wide, coded)

    assert encoded == g711.encode(convert(data, wide, narrow), law)
    assert convert(encoded, coded, wide) == convert(g711.decode(encoded, law), narrow, wide)
    assert convert(encoded, coded, coded) is encoded


@given(st.binary(max_size=400), st.integers(0, 400))
def test_g711_of_one_law_becomes_the_other_wherever_it_is_cut(data: bytes, cut: int) -> None:
    ulaw, alaw = AudioFormat(8000, 1, "g711_ulaw"), AudioFormat(8000, 1, "g711_alaw")
    converter = FormatConverter(ulaw, alaw)

    pieces = converter.process(data[:cut]) + converter.process(data[cut:]) + converter.flush()

    assert pieces == g711.encode(g711.decode(data, Encoding.G711_ULAW), Encoding.G711_ALAW)


def test_a_session_at_the_providers_rate_never_loads_numpy() -> None:
    script = """
import io, sys
from voxengine.audio import pcm, vad, wav
from voxengine.audio import g711
from voxengine.audio.format import AudioFormat, Encoding
from voxengine.errors import AudioFormatError
data = bytes(960)
assert pcm.to_int16(bytearray(data)) == data
try:
    pcm.to_int16("text")
except AudioFormatError:
    pass
assert pcm.FormatConverter(AudioFormat(), AudioFormat()).process(data) is data
assert pcm.Resampler(24000, 24000).process(data) is data
vad.Segmenter(24000).push(data)
file = io.BytesIO()
wav.write_wav(file, data, AudioFormat())
file.seek(0)
assert wav.read_wav(file).data == data
assert "numpy" not in sys.modules
"""

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
