from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxengine.audio.format import AudioFormat
from voxengine.audio.wav import WavReader, read_wav
from voxengine.errors import AudioFormatError

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")
SAMPLES = [0, 256, -256, 32512, -32768, 1024]
DATA = struct.pack("<6h", *SAMPLES)
STREAMED = 0xFFFFFFFF


def chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(body) if size is None else size) + body + b"\0" * (len(body) % 2)


def fmt(code: int = PCM, *, bits: int = 16, channels: int = 1, rate: int = 24000, tail: bytes = b"") -> bytes:
    frame = channels * ((bits + 7) // 8)
    return chunk(b"fmt ", struct.pack("<HHIIHH", code, channels, rate, rate * frame, frame, bits) + tail)


def extensible(code: int, *, bits: int, valid_bits: int, channels: int = 1) -> bytes:
    tail = struct.pack("<HHIH", 22, valid_bits, 4, code) + GUID_TAIL
    return fmt(EXTENSIBLE, bits=bits, channels=channels, tail=tail)


def riff(*chunks: bytes, size: int | None = None, name: bytes = b"RIFF") -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return name + struct.pack("<I", len(body) if size is None else size) + body


class Pipe(io.RawIOBase):
    """A stream that cannot seek and hands over at most ``n_most`` bytes at a time."""

    def __init__(self, data: bytes, n_most: int = 7) -> None:
        self._source = io.BytesIO(data)
        self._n_most = n_most

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        return self._source.read(self._n_most if size < 0 else min(size, self._n_most))


def pipe(data: bytes) -> BinaryIO:
    return cast("BinaryIO", Pipe(data))


def int24(values: list[int]) -> bytes:
    return b"".join(struct.pack("<i", value)[:3] for value in values)


@pytest.mark.parametrize(
    ("header", "body", "encoding"),
    [
        (fmt(), DATA, "pcm_s16le"),
        (fmt(bits=8), bytes((value >> 8) + 128 for value in SAMPLES), "pcm_u8"),
        (fmt(bits=24), int24([value << 8 for value in SAMPLES]), "pcm_s24le"),
        (fmt(bits=32), struct.pack("<6i", *(value << 16 for value in SAMPLES)), "pcm_s32le"),
        (fmt(FLOAT, bits=32), struct.pack("<6f", *(value / 32768 for value in SAMPLES)), "pcm_f32le"),
        (fmt(FLOAT, bits=64), struct.pack("<6d", *(value / 32768 for value in SAMPLES)), "pcm_f64le"),
        (extensible(PCM, bits=16, valid_bits=16), DATA, "pcm_s16le"),
        (extensible(PCM, bits=24, valid_bits=20), int24([value << 8 for value in SAMPLES]), "pcm_s24le"),
        (
            extensible(FLOAT, bits=32, valid_bits=32),
            struct.pack("<6f", *(v / 32768 for v in SAMPLES)),
            "pcm_f32le",
        ),
        (fmt(tail=b"\0\0"), DATA, "pcm_s16le"),
    ],
    ids=["s16", "u8", "s24", "s32", "f32", "f64", "ext-s16", "ext-20-in-24", "ext-f32", "18-byte-fmt"],
)
def test_every_encoding_becomes_the_same_pcm16(header: bytes, body: bytes, encoding: str) -> None:
    got = read_wav(io.BytesIO(riff(header, chunk(b"data", body))))

    assert got.data == DATA
    assert got.format == AudioFormat(24000)
    assert got.source_encoding == encoding
    assert not got.truncated


def test_finer_samples_are_rounded_and_clipped() -> None:
    body = struct.pack("<5f", 1.5, -1.5, 0.7 / 32768, 0.3 / 32768, -0.7 / 32768)

    got = read_wav(io.BytesIO(riff(fmt(FLOAT, bits=32), chunk(b"data", body))))

    assert struct.unpack("<5h", got.data) == (32767, -32768, 1, 0, -1)


@pytest.mark.parametrize("channels", [2, 6])
def test_channels_stay_interleaved(channels: int) -> None:
    got = read_wav(io.BytesIO(riff(fmt(channels=channels, rate=44100), chunk(b"data", DATA))))

    assert got.format == AudioFormat(44100, channels)
    assert got.data == DATA


def test_other_chunks_are_skipped_with_their_padding() -> None:
    file = riff(
        chunk(b"JUNK", b"abc"),
        fmt(),
        chunk(b"fact", b"\6\0\0\0"),
        chunk(b"LIST", b"INFOx"),
        chunk(b"data", DATA),
        chunk(b"LIST", b"INFO more"),
    )

    got = read_wav(io.BytesIO(file))

    assert got.data == DATA
    assert not got.truncated


@pytest.mark.parametrize(
    ("data_size", "riff_size"),
    [
        (STREAMED, STREAMED),
        (0, 0),
        (0, 36),
        (0, STREAMED),
        (0x7FFFF000, 0x7FFFF024),
        (0x80000000, 0x80000024),
    ],
)
def test_a_streamed_file_is_read_to_its_end(data_size: int, riff_size: int) -> None:
    file = riff(fmt(), chunk(b"data", DATA, size=data_size), size=riff_size)

    got = read_wav(io.BytesIO(file))

    assert got.data == DATA
    assert not got.truncated


def test_a_really_empty_file_does_not_take_the_chunk_behind_for_sound() -> None:
    got = read_wav(io.BytesIO(riff(fmt(), chunk(b"data", b""), chunk(b"LIST", b"INFO"))))

    assert got.data == b""
    assert not got.truncated


def test_a_file_of_64_bit_sizes_is_read() -> None:
    ds64 = chunk(b"ds64", struct.pack("<QQQI", 0, len(DATA), 6, 0))
    file = riff(
        ds64, fmt(), chunk(b"data", DATA, size=STREAMED), chunk(b"LIST", b"INFO"), size=STREAMED, name=b"RF64"
    )

    got = read_wav(io.BytesIO(file))

    assert got.data == DATA


@given(st.integers(0, 23), st.sampled_from([1, 2]))
def test_a_cut_file_gives_the_whole_frames_that_are_there(n_missing: int, channels: int) -> None:
    body = DATA + DATA
    file = riff(fmt(channels=channels), chunk(b"data", body))

    got = read_wav(io.BytesIO(file[: len(file) - n_missing]))

    n_whole = (len(body) - n_missing) // (2 * channels) * 2 * channels
    assert got.data == body[:n_whole]
    assert got.truncated is (n_missing > 0)


def test_a_streamed_file_cut_within_a_frame_is_truncated() -> None:
    got = read_wav(io.BytesIO(riff(fmt(channels=2), chunk(b"data", DATA, size=STREAMED))[:-1]))

    assert got.data == DATA[:8]
    assert got.truncated


def test_a_path_is_read_and_its_file_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(riff(fmt(), chunk(b"data", DATA)))

    assert read_wav(path).data == read_wav(str(path)).data == DATA


@given(st.lists(st.integers(0, 5), min_size=1), st.sampled_from([1, 2]))
def test_a_pipe_read_in_steps_gives_what_the_whole_gives(steps: list[int], channels: int) -> None:
    file = riff(fmt(bits=24, channels=channels), chunk(b"data", int24(SAMPLES * 3)))

    with WavReader(pipe(file)) as reader:
        got = b"".join(reader.read(step) for step in steps) + reader.read()

    assert got == read_wav(io.BytesIO(file)).data
    assert not reader.truncated


def test_a_reader_returns_full_blocks_until_the_end_and_then_nothing() -> None:
    reader = WavReader(pipe(riff(fmt(), chunk(b"data", DATA))))

    sizes = [len(reader.read(4)) for _ in range(3)]

    assert sizes == [8, 4, 0]
    assert reader.n_frames == 6


def test_a_reader_of_a_stream_does_not_know_its_length_and_leaves_it_open() -> None:
    stream = io.BytesIO(riff(fmt(), chunk(b"data", DATA, size=STREAMED), size=STREAMED))

    with WavReader(stream) as reader:
        assert reader.n_frames is None

    assert not stream.closed


def test_nothing_behind_the_declared_sound_is_read_from_a_pipe() -> None:
    stream = pipe(riff(fmt(), chunk(b"data", DATA)) + b"next")

    WavReader(stream).read()

    assert stream.read() == b"next"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty; a WAV file was expected"),
        (b"hello, world, hello", "is no WAV file: it does not begin with RIFF"),
        (b"\x12\x00\x13\x00" * 100, "give it to send_audio with its sample_rate"),
        (b"OggS" + bytes(40), "is an Ogg file, not a WAV file"),
        (b"fLaC" + bytes(40), "is a FLAC file"),
        (b"ID3\x04" + bytes(40), "is an MP3 file"),
        (b"\0\0\0\x20ftypM4A ", "is an MP4 file"),
        (b"RIFX\0\0\0\0WAVE", "is a big-endian WAV file"),
        (b"RIFF\0\0\0\0AVI LIST", "is a RIFF file but not a WAV file"),
        (b"RIFF", "ends before its sound data"),
        (riff(), "ends before its sound data"),
        (riff(fmt())[:-3], "format chunk is cut short"),
        (riff(fmt()), "ends before its sound data"),
        (riff(fmt(), chunk(b"LIST", b"abcd", size=1000)), "ends before its sound data"),
        (riff(chunk(b"fmt ", b"short"), chunk(b"data", DATA)), "format chunk is cut short"),
        (riff(chunk(b"data", DATA), fmt()), "without a format chunk before its sound data"),
        (riff(fmt(7, bits=16), chunk(b"data", DATA)), "of 16-bit G.711 mu-law audio (format code 7)"),
        (riff(fmt(6, bits=16), chunk(b"data", DATA)), "G.711 A-law"),
        (riff(fmt(2, bits=4), chunk(b"data", DATA)), "Microsoft ADPCM"),
        (riff(fmt(0x11, bits=4), chunk(b"data", DATA)), "IMA ADPCM"),
        (riff(fmt(0x1234), chunk(b"data", DATA)), "unknown audio (format code 4660)"),
        (riff(fmt(bits=64), chunk(b"data", bytes(16))), "of 64-bit PCM audio"),
        (riff(fmt(FLOAT), chunk(b"data", DATA)), "of 16-bit float audio"),
        (riff(extensible(7, bits=16, valid_bits=16), chunk(b"data", DATA)), "mu-law"),
        (riff(fmt(channels=0), chunk(b"data", DATA)), "channels is 0; it is an int from 1 to 8"),
        (riff(fmt(channels=9), chunk(b"data", DATA)), "channels is 9"),
        (riff(fmt(rate=100), chunk(b"data", DATA)), "sample_rate is 100 Hz"),
        (riff(fmt(FLOAT, bits=32), chunk(b"data", struct.pack("<f", float("nan")))), "NaN or infinity"),
    ],
)
def test_a_bad_file_is_one_sentence_that_names_it(content: bytes, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.wav"
    path.write_bytes(content)

    with pytest.raises(AudioFormatError) as caught:
        read_wav(path)

    message = str(caught.value)
    assert message.startswith(os.fspath(path))
    assert sentence in message
    assert "\n" not in message


@given(st.binary(max_size=80), st.integers(0, 60), st.booleans())
def test_no_content_raises_anything_but_the_format_error(noise: bytes, at: int, replace: bool) -> None:
    good = riff(fmt(channels=2), chunk(b"LIST", b"INFO"), chunk(b"data", DATA))
    file = good[:at] + noise + good[at + len(noise) if replace else at :]

    try:
        got = read_wav(io.BytesIO(file))
    except AudioFormatError:
        return

    assert len(got.data) % got.format.frame_bytes == 0


def test_a_stream_without_a_name_is_called_the_stream() -> None:
    with pytest.raises(AudioFormatError, match=r"^The stream is empty"):
        read_wav(io.BytesIO())


@pytest.mark.parametrize("source", [io.StringIO("RIFF"), b"RIFF", None, 3])
def test_what_is_neither_path_nor_binary_stream_is_refused(source: object) -> None:
    with pytest.raises(AudioFormatError, match=f"not from {type(source).__name__}"):
        read_wav(cast("BinaryIO", source))


def test_a_missing_file_is_the_operating_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_wav(tmp_path / "none.wav")


def test_the_repr_of_a_file_holds_no_sound() -> None:
    got = read_wav(io.BytesIO(riff(fmt(), chunk(b"data", b"secret"))))

    assert "secret" not in repr(got)
