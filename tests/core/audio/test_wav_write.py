from __future__ import annotations

import io
import struct
import wave
from pathlib import Path
from typing import BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.audio.sounds import pieces
from voxengine.audio.format import AudioFormat, Encoding
from voxengine.audio.g711 import decode
from voxengine.audio.wav import WavWriter, read_wav, write_wav
from voxengine.errors import AudioFormatError, UsageError

FORMATS = st.builds(AudioFormat, sample_rate=st.integers(4000, 192000), channels=st.integers(1, 8))


class Sink(io.RawIOBase):
    """A stream that cannot seek, as a pipe."""

    def __init__(self) -> None:
        self.written = b""

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        self.written += bytes(cast("bytes", data))
        return len(cast("bytes", data))


def sizes(file: bytes) -> tuple[int, int]:
    """Return the RIFF and the data size of a file with our header."""
    return struct.unpack("<I", file[4:8])[0], struct.unpack("<I", file[40:44])[0]


@given(FORMATS, st.binary(max_size=200))
def test_what_was_written_is_read_back(audio_format: AudioFormat, content: bytes) -> None:
    data = content[: len(content) // audio_format.frame_bytes * audio_format.frame_bytes]
    file = io.BytesIO()

    write_wav(file, data, audio_format)
    got = read_wav(io.BytesIO(file.getvalue()))

    assert (got.data, got.format, got.truncated) == (data, audio_format, False)


@given(st.binary(max_size=200), st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any))
def test_writing_in_pieces_gives_the_same_file(content: bytes, steps: list[int]) -> None:
    data = content[: len(content) // 4 * 4]
    whole, streamed = io.BytesIO(), io.BytesIO()

    write_wav(whole, data, AudioFormat(48000, 2))
    with WavWriter(streamed, AudioFormat(48000, 2)) as writer:
        for piece in pieces(data, steps, 4):
            writer.write(piece)

    assert streamed.getvalue() == whole.getvalue()
    assert writer.n_frames == len(data) // 4


def test_the_standard_library_reads_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"

    write_wav(path, b"\1\2\3\4\5\6\7\x08", AudioFormat(16000, 2))

    with wave.open(str(path), "rb") as file:
        assert file.getparams()[:4] == (2, 2, 16000, 2)
        assert file.readframes(9) == b"\1\2\3\4\5\6\7\x08"


def test_a_pipe_gets_an_unknown_length_and_every_write_at_once() -> None:
    sink = Sink()

    with WavWriter(cast("BinaryIO", io.BufferedWriter(sink)), AudioFormat()) as writer:
        writer.write(b"\1\2")
        seen_before_close = sink.written
        writer.write(b"\3\4")

    assert seen_before_close.endswith(b"\1\2")
    assert sizes(sink.written) == (0xFFFFFFFF, 0xFFFFFFFF)
    assert read_wav(io.BytesIO(sink.written)).data == b"\1\2\3\4"


def test_a_pipe_gets_the_length_when_it_is_known() -> None:
    sink = Sink()

    write_wav(cast("BinaryIO", sink), b"\1\2\3\4", AudioFormat())

    assert sizes(sink.written) == (40, 4)


def test_a_file_abandoned_in_the_middle_is_readable_up_to_the_last_second(tmp_path: Path) -> None:
    path = tmp_path / "crash.wav"
    writer = WavWriter(path, AudioFormat(8000))

    for _ in range(25):
        writer.write(bytes(1600))

    got = read_wav(path)
    assert len(got.data) >= 2 * 16000
    assert not got.truncated
    writer.close()


def test_an_exception_within_the_block_still_gives_a_finished_file(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"

    with pytest.raises(ZeroDivisionError):
        with WavWriter(path, AudioFormat()) as writer:
            writer.write(b"\1\2")
            raise ZeroDivisionError

    assert sizes(path.read_bytes()) == (38, 2)


def test_a_stream_is_continued_where_it_stands_and_left_open() -> None:
    stream = io.BytesIO()
    stream.write(b"before")

    with WavWriter(stream, AudioFormat()) as writer:
        writer.write(b"\1\2")
    stream.write(b"after")

    file = stream.getvalue()
    assert file[:6] == b"before"
    assert sizes(file[6:]) == (38, 2)
    assert file.endswith(b"\1\2after")


def test_half_a_frame_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"precious")

    with pytest.raises(AudioFormatError, match="write_wav got 3 bytes"):
        write_wav(path, b"abc", AudioFormat())

    assert path.read_bytes() == b"precious"


def test_a_writer_refuses_half_a_frame_and_goes_on() -> None:
    stream = io.BytesIO()
    writer = WavWriter(stream, AudioFormat())

    with pytest.raises(AudioFormatError, match=r"WavWriter.write got 1 bytes"):
        writer.write(b"a")
    writer.write(b"bc")
    writer.close()

    assert read_wav(io.BytesIO(stream.getvalue())).data == b"bc"


@pytest.mark.parametrize("law", [Encoding.G711_ULAW, Encoding.G711_ALAW])
@pytest.mark.parametrize("streamed", [True, False])
def test_g711_is_written_as_it_is_and_read_as_its_samples(
    tmp_path: Path, law: Encoding, streamed: bool
) -> None:
    path, narrow = tmp_path / "a.wav", AudioFormat(8000, 1, law)
    data = bytes(range(256))

    if streamed:
        with WavWriter(path, narrow) as writer:
            writer.write(data)
    else:
        write_wav(path, data, narrow)

    read = read_wav(path)
    assert path.read_bytes().endswith(data)
    assert (read.data, read.format) == (decode(data, law), AudioFormat(8000))
    assert (read.source_encoding, read.truncated) == (law.value, False)


def test_close_may_come_twice_but_write_not_after_it(tmp_path: Path) -> None:
    writer = WavWriter(tmp_path / "a.wav", AudioFormat())
    writer.close()

    writer.close()

    with pytest.raises(UsageError, match="after close"):
        writer.write(b"")


def test_a_target_that_fails_at_the_header_leaves_no_open_file() -> None:
    class Full(Sink):
        def write(self, data: object, /) -> int:
            raise OSError("No space left")

    with pytest.raises(OSError, match="No space left"):
        WavWriter(cast("BinaryIO", Full()), AudioFormat())
