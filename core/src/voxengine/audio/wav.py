"""WAV files and streams: read in any common encoding as PCM16, written as PCM16 or G.711.

Reading never seeks, so pipes work. 8 and 16 bit audio and G.711 are read without numpy; 24 and 32 bit
integers and floats load it. OSError from opening, reading and writing passes through unchanged.
"""

from __future__ import annotations

import io
import os
import struct
from types import TracebackType
from typing import BinaryIO, Final, Self

import attrs

from voxengine.audio import g711, pcm
from voxengine.audio.format import AudioFormat, Encoding
from voxengine.errors import AudioFormatError, UsageError

__all__ = ["WavFile", "WavReader", "WavWriter", "read_wav", "write_wav"]

_UNKNOWN_SIZE: Final = 0xFFFF_FFFF
_PLACEHOLDER_FROM: Final = 0x7FFF_0000
"""Programs that cannot know the length write a size from here on (espeak-ng: 0x7FFFF000)."""
_HEADER_BYTES: Final = 44
_PIECE_BYTES: Final = 1 << 16

_PCM: Final = 1
_FLOAT: Final = 3
_EXTENSIBLE: Final = 0xFFFE
_EXTENSIBLE_TAIL: Final = bytes.fromhex("000000001000800000aa00389b71")
"""What follows the two bytes of the format code in an extensible header's GUID."""

_ENCODINGS: Final = {
    (_PCM, 1): "pcm_u8",
    (_PCM, 2): "pcm_s16le",
    (_PCM, 3): "pcm_s24le",
    (_PCM, 4): "pcm_s32le",
    (_FLOAT, 4): "pcm_f32le",
    (_FLOAT, 8): "pcm_f64le",
    (6, 1): Encoding.G711_ALAW.value,
    (7, 1): Encoding.G711_ULAW.value,
}
_CODECS: Final = {
    _PCM: "PCM",
    2: "Microsoft ADPCM",
    _FLOAT: "float",
    6: "G.711 A-law",
    7: "G.711 mu-law",
    0x11: "IMA ADPCM",
    0x31: "GSM 6.10",
    0x50: "MPEG",
    0x55: "MP3",
    0xFF: "AAC",
}
#: (offset, bytes, what a file is that has them there)
_SIGNATURES: Final = (
    (0, b"OggS", "an Ogg file"),
    (0, b"fLaC", "a FLAC file"),
    (0, b"ID3", "an MP3 file"),
    (0, b"\xff\xfb", "an MP3 file"),
    (0, b"\xff\xf3", "an MP3 file"),
    (0, b"FORM", "an AIFF file"),
    (0, b".snd", "an AU file"),
    (0, b"caff", "a CAF file"),
    (0, b"RIFX", "a big-endian WAV file"),
    (0, b"\x1aE\xdf\xa3", "a WebM or Matroska file"),
    (4, b"ftyp", "an MP4 file"),
)
_CONVERT: Final = "Convert it first, for example: ffmpeg -i INPUT -c:a pcm_s16le OUTPUT.wav"

_FLIP_SIGN: Final = bytes(value ^ 0x80 for value in range(256))


@attrs.frozen
class WavFile:
    """A whole WAV file."""

    data: bytes = attrs.field(repr=False)
    """PCM16, channels interleaved, whole frames."""
    format: AudioFormat
    """The file's rate and channels; the encoding is always PCM16."""
    truncated: bool
    """The file ended before the length that it declares, or within a frame. ``data`` is what was there."""
    source_encoding: str
    """How the file holds it: pcm_u8, pcm_s16le, pcm_s24le, pcm_s32le, pcm_f32le or pcm_f64le."""


class WavReader:
    """Read a WAV file or stream from front to back.

    Integers of more than 16 bits and floats are rounded to PCM16, floats clipped to [-1, 1]. Other chunks are
    skipped. A data size of 0 with no further chunk declared, or a placeholder size, means "until the end".

    Args:
        source: A path, or a binary stream; a stream is not closed and need not seek.

    Raises:
        AudioFormatError: It is no WAV, is empty or has an encoding that cannot be read.

    ``read`` blocks as the stream does.
    """

    format: AudioFormat
    """Rate and channels; the encoding is always PCM16."""
    source_encoding: str
    """See :class:`WavFile`."""
    n_frames: int | None
    """Frames that the header declares; None when it does not know."""

    def __init__(self, source: str | os.PathLike[str] | BinaryIO) -> None:
        _check_source(source)
        if isinstance(source, (str, os.PathLike)):
            self._name = os.fspath(source)
            self._stream: BinaryIO = open(source, "rb")  # noqa: SIM115 - close() closes it
            self._owned = True
        else:
            name = getattr(source, "name", None)
            self._name = name if isinstance(name, str) else "The stream"
            self._stream = source
            self._owned = False
        self._position = 0
        self._left: int | None = None
        self._frame_bytes = 0
        self._n_given = 0
        self._ended = False
        self._dropped = False
        try:
            self._read_header()
        except BaseException:
            self.close()
            raise

    @property
    def truncated(self) -> bool:
        """Whether the sound ended early or within a frame. Known once ``read`` has met the end."""
        short = self.n_frames is not None and self._n_given < self.n_frames
        return self._ended and (short or self._dropped)

    def read(self, n_frames: int = -1) -> bytes:
        """Return the next frames as PCM16, fewer only at the end, all that are left for -1.

        Raises:
            AudioFormatError: Float samples are NaN or infinite.
        """
        if self._ended:
            return b""
        wanted = self._left if n_frames < 0 else n_frames * self._frame_bytes
        if self._left is not None and wanted is not None:
            wanted = min(wanted, self._left)
        raw = self._take(wanted)
        if self._left is not None:
            self._left -= len(raw)
        n_whole = len(raw) // self._frame_bytes
        if n_whole * self._frame_bytes != len(raw):
            self._dropped = True
            raw = raw[: n_whole * self._frame_bytes]
        self._ended = self._left == 0 or wanted is None or n_whole * self._frame_bytes < wanted
        self._n_given += n_whole
        return self._to_pcm16(raw)

    def close(self) -> None:
        """Close the file, if it was opened here. Twice is allowed."""
        if self._owned:
            self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _error(self, what: str) -> AudioFormatError:
        return AudioFormatError(f"{self._name} {what}")

    def _take(self, n_bytes: int | None) -> bytes:
        """Read ``n_bytes``, or to the end for None; fewer when the stream ends. Allocates what is there."""
        pieces: list[bytes] = []
        left = n_bytes
        while left is None or left > 0:
            piece = self._stream.read(_PIECE_BYTES if left is None else min(left, _PIECE_BYTES))
            if not piece:
                break
            pieces.append(piece)
            self._position += len(piece)
            if left is not None:
                left -= len(piece)
        return b"".join(pieces)

    def _skip(self, n_bytes: int) -> None:
        while n_bytes > 0 and (piece := self._take(min(n_bytes, _PIECE_BYTES))):
            n_bytes -= len(piece)

    def _read_header(self) -> None:
        head = self._take(12)
        if not head:
            raise self._error("is empty; a WAV file was expected.")
        if head[:4] not in (b"RIFF", b"RF64") or head[8:12] not in (b"WAVE", b""):
            raise self._error(_describe_other(head))
        (riff_size,) = struct.unpack("<I", head[4:8].ljust(4, b"\0"))
        wide_size: int | None = None
        has_format = False
        while True:
            chunk = self._take(8)
            if len(chunk) < 8:
                raise self._error("is a WAV file that ends before its sound data. Record or copy it again.")
            name, size = struct.unpack("<4sI", chunk)
            if name == b"data":
                break
            body = self._take(min(size, 40) if name in (b"fmt ", b"ds64") else 0)
            if name == b"fmt ":
                self._read_format(body)
                has_format = True
            elif name == b"ds64" and len(body) >= 16:
                (wide_size,) = struct.unpack("<Q", body[8:16])
            self._skip(size + size % 2 - len(body))
        if not has_format:
            raise self._error("is a WAV file without a format chunk before its sound data.")
        self._set_length(size, riff_size, wide_size)

    def _set_length(self, size: int, riff_size: int, wide_size: int | None) -> None:
        """Decide how many bytes of sound to expect; ``_left`` None means until the end."""
        known: int | None = size
        if size == _UNKNOWN_SIZE and wide_size:
            known = wide_size
        elif size >= _PLACEHOLDER_FROM:
            known = None
        elif size == 0:
            # A recorder that died left 0 here. A file that is really empty may have chunks behind: then the
            # outer size says so.
            more_chunks = riff_size < _PLACEHOLDER_FROM and riff_size + 8 > self._position
            known = 0 if more_chunks else None
        self._left = known
        self.n_frames = None if known is None else known // self._frame_bytes

    def _read_format(self, body: bytes) -> None:
        if len(body) < 16:
            raise self._error("is a WAV file whose format chunk is cut short.")
        code, channels, sample_rate, _, block_bytes, bits = struct.unpack("<HHIIHH", body[:16])
        if code == _EXTENSIBLE and len(body) >= 40 and body[26:40] == _EXTENSIBLE_TAIL:
            (code,) = struct.unpack("<H", body[24:26])
        try:
            self.format = AudioFormat(sample_rate=sample_rate, channels=channels)
        except AudioFormatError as error:
            raise self._error(f"is a WAV file that cannot be used: {error}") from None
        # Samples of odd sizes (12, 20 bits) fill their container from the top, so its size decides.
        width = block_bytes // channels or (bits + 7) // 8
        encoding = _ENCODINGS.get((code, width))
        if encoding is None:
            codec = _CODECS.get(code, "unknown")
            raise self._error(
                f"is a WAV file of {bits}-bit {codec} audio (format code {code}), which cannot be read. "
                f"{_CONVERT}"
            )
        self.source_encoding = encoding
        self._frame_bytes = width * channels

    def _to_pcm16(self, raw: bytes) -> bytes:
        if self.source_encoding == "pcm_s16le" or not raw:
            return raw
        if self.source_encoding in (Encoding.G711_ALAW, Encoding.G711_ULAW):
            return g711.decode(raw, Encoding(self.source_encoding))
        if self.source_encoding == "pcm_u8":
            samples = bytearray(2 * len(raw))
            samples[1::2] = raw.translate(_FLIP_SIGN)
            return bytes(samples)
        import numpy as np

        if self.source_encoding in ("pcm_f32le", "pcm_f64le"):
            floats = np.frombuffer(raw, "<f4" if self.source_encoding == "pcm_f32le" else "<f8")
            try:
                return pcm.float_to_int16(floats).tobytes()
            except AudioFormatError as error:
                raise self._error(f"cannot be used: {error}") from None
        if self.source_encoding == "pcm_s24le":
            widened = np.zeros((len(raw) // 3, 4), np.uint8)
            widened[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
            raw = widened.tobytes()
        return pcm.float_to_int16(np.frombuffer(raw, "<i4") / 2.0**31).tobytes()


def _check_source(source: object) -> None:
    is_path = isinstance(source, (str, os.PathLike))
    if not is_path and (isinstance(source, io.TextIOBase) or not hasattr(source, "read")):
        raise AudioFormatError(
            f"A WAV file is read from a path or a stream open in mode 'rb', not from {type(source).__name__}."
        )


def _describe_other(head: bytes) -> str:
    for offset, signature, kind in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return f"is {kind}, not a WAV file. {_CONVERT}"
    if head[:4] == b"RIFF":
        return f"is a RIFF file but not a WAV file. {_CONVERT}"
    return (
        "is no WAV file: it does not begin with RIFF. "
        "Raw PCM has no header; give it to send_audio with its sample_rate."
    )


def read_wav(source: str | os.PathLike[str] | BinaryIO) -> WavFile:
    """Read a whole WAV file; see :class:`WavReader` for what is accepted and raised."""
    with WavReader(source) as reader:
        data = reader.read()
        return WavFile(data, reader.format, reader.truncated, reader.source_encoding)


def _header(audio_format: AudioFormat, n_bytes: int | None) -> bytes:
    """Return the 44 bytes before the samples; None, or more than fits, is written as an unknown length."""
    if n_bytes is None or n_bytes > _UNKNOWN_SIZE - _HEADER_BYTES:
        riff_size = data_size = _UNKNOWN_SIZE
    else:
        riff_size, data_size = n_bytes + _HEADER_BYTES - 8, n_bytes
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        riff_size,
        b"WAVE",
        b"fmt ",
        16,
        {Encoding.G711_ALAW: 6, Encoding.G711_ULAW: 7}.get(audio_format.encoding, _PCM),
        audio_format.channels,
        audio_format.sample_rate,
        audio_format.bytes_per_s,
        audio_format.frame_bytes,
        8 * audio_format.width,
        b"data",
        data_size,
    )


class WavWriter:
    """Write a WAV file or stream while the sound is made.

    The header first says "length unknown", which readers take as "until the end"; ``close`` puts the real
    length in when the target can seek. After a crash the file is readable up to the last second or so.

    Args:
        target: A path, which is overwritten, or a binary stream, which is not closed.
        format: What ``write`` will get, and what the file holds.
    """

    def __init__(self, target: str | os.PathLike[str] | BinaryIO, format: AudioFormat) -> None:
        self.format = format
        self.n_frames = 0
        """Frames written so far."""
        self._owned = isinstance(target, (str, os.PathLike))
        if isinstance(target, (str, os.PathLike)):
            target = open(target, "wb")  # noqa: SIM115 - close() closes it
        self._stream: BinaryIO = target
        self._n_unflushed = 0
        self._closed = False
        try:
            self._start = self._stream.tell() if self._stream.seekable() else None
            self._stream.write(_header(format, None))
        except BaseException:
            if self._owned:
                self._stream.close()
            raise

    def write(self, data: bytes) -> None:
        """Append whole frames. A target that cannot seek gets them at once.

        Raises:
            AudioFormatError: No whole number of frames; nothing was written.
            UsageError: After ``close``.
        """
        if self._closed:
            raise UsageError("WavWriter.write after close. Open another WavWriter.")
        self.format.check_aligned(len(data), "WavWriter.write")
        self._stream.write(data)
        self.n_frames += self.format.n_frames(len(data))
        self._n_unflushed += len(data)
        if self._start is None or self._n_unflushed >= self.format.bytes_per_s:
            self._stream.flush()
            self._n_unflushed = 0

    def close(self) -> None:
        """Put the length into the header and close what was opened here. Twice is allowed."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._start is not None:
                end = self._stream.tell()
                self._stream.seek(self._start)
                self._stream.write(_header(self.format, self.n_frames * self.format.frame_bytes))
                self._stream.seek(end)
            self._stream.flush()
        finally:
            if self._owned:
                self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def write_wav(target: str | os.PathLike[str] | BinaryIO, data: bytes, format: AudioFormat) -> None:
    """Write a whole WAV file, with its length even when the target cannot seek.

    Args:
        target: A path, which is overwritten, or a binary stream, which is not closed.
        data: Whole frames.
        format: What ``data`` is.

    Raises:
        AudioFormatError: No whole number of frames; the target was not touched.
    """
    format.check_aligned(len(data), "write_wav")
    if isinstance(target, (str, os.PathLike)):
        with open(target, "wb") as stream:
            stream.write(_header(format, len(data)))
            stream.write(data)
    else:
        target.write(_header(format, len(data)))
        target.write(data)
        target.flush()
