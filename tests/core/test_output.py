"""The agent's audio in one format, whole frames, nothing lost between chunks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.core.engine.fakes import speech
from voxengine.audio.format import AudioFormat
from voxengine.events import LazyAudio
from voxengine.output import OutputFormatter

OURS = AudioFormat(24_000)


def pcm(audio: bytes | LazyAudio) -> bytes:
    return audio if isinstance(audio, bytes) else audio.pcm()


@given(st.lists(st.integers(0, 99), max_size=30))
def test_chunks_cut_anywhere_are_put_together(sizes: list[int]) -> None:
    whole = speech(100)[: sum(sizes)]
    formatter, out, at = OutputFormatter(OURS), b"", 0

    for size in sizes:
        audio = pcm(formatter.take("item", whole[at : at + size], OURS))
        assert len(audio) % 2 == 0
        out, at = out + audio, at + size
    out += formatter.finish("item")

    assert out == whole[: len(whole) // 2 * 2]


@given(st.lists(st.integers(1, 400), min_size=1, max_size=20), st.sampled_from([8000, 16_000, 44_100]))
def test_other_rates_keep_their_duration(sizes: list[int], rate: int) -> None:
    source, formatter, out = AudioFormat(rate), OutputFormatter(OURS), b""

    for n in sizes:
        out += pcm(formatter.take("item", bytes(2 * n), source))
    out += formatter.finish("item")

    assert abs(len(out) // 2 - sum(sizes) * 24_000 / rate) <= 1


def test_audio_that_fits_passes_undecoded() -> None:
    decoded: list[str] = []

    def decode(text: str) -> bytes:
        decoded.append(text)
        return bytes(4)

    lazy = LazyAudio("AAAA", decode, 4)

    assert OutputFormatter(OURS).take("item", lazy, OURS) is lazy
    assert decoded == []


def test_items_do_not_mix() -> None:
    formatter = OutputFormatter(OURS)

    assert formatter.take("a", b"\x01", OURS) == b""
    assert formatter.take("b", b"\x02\x03", OURS) == b"\x02\x03"
    assert formatter.take("a", b"\x04", OURS) == b"\x01\x04"
    assert formatter.take("c", b"\x05", OURS) == b""
    assert formatter.finish("c") == b""


def test_change_of_rate_within_an_item_loses_nothing() -> None:
    formatter = OutputFormatter(OURS)

    out = pcm(formatter.take("a", bytes(1600), AudioFormat(8000)))
    out += pcm(formatter.take("a", bytes(1600), AudioFormat(16_000)))
    out += formatter.finish("a")

    assert abs(len(out) // 2 - (800 * 3 + 800 * 1.5)) <= 2


def test_stereo_becomes_mono() -> None:
    formatter = OutputFormatter(OURS)
    left_and_right = bytes.fromhex("0100 0300 0500 0700")

    assert pcm(formatter.take("a", left_and_right, AudioFormat(24_000, 2))) == bytes.fromhex("0200 0600")
