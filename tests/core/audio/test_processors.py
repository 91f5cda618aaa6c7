from __future__ import annotations

import importlib.metadata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.audio.sounds import noise, pieces, tone
from voxengine.audio.format import AudioFormat
from voxengine.audio.pcm import FormatConverter
from voxengine.audio.processors import (
    GROUP,
    EchoReference,
    HalfDuplexGuard,
    NullProcessor,
    ProcessorChain,
    load_processor,
)
from voxengine.errors import ConfigError

FORMAT = AudioFormat(8000)
FRAME = 160


class Subtract:
    """Takes the reference away, as a perfect canceller would where the echo is the reference."""

    def __init__(self) -> None:
        self.delays: list[int] = []

    def process(self, microphone: bytes, reference: bytes, delay_ms: int) -> bytes:
        self.delays.append(delay_ms)
        return bytes((a - b) % 256 for a, b in zip(microphone, reference, strict=True))


class Raises:
    def process(self, microphone: bytes, reference: bytes, delay_ms: int) -> bytes:
        raise RuntimeError("no model")


class Shortens:
    def process(self, microphone: bytes, reference: bytes, delay_ms: int) -> bytes:
        return microphone[:-2]


@given(st.integers(0, 900), st.lists(st.integers(0, 300), min_size=1, max_size=5).filter(any))
def test_a_chain_of_nothing_changes_nothing_however_it_is_cut(n_frames: int, sizes: list[int]) -> None:
    data = noise(n_frames, -20.0)
    chain = ProcessorChain([NullProcessor(FORMAT)], FORMAT)

    got = b"".join(chain.process(piece) for piece in pieces(data, sizes)) + chain.flush()

    assert got == data


def test_processors_see_what_the_loudspeaker_was_given_in_step() -> None:
    reference, subtract = EchoReference(FORMAT), Subtract()
    reference.delay_ms = lambda: 60
    chain = ProcessorChain([subtract], FORMAT, reference)
    played = noise(400, -20.0)
    for block in pieces(played, [200]):
        reference.push(block)

    left = chain.process(played)

    assert left == bytes(800)
    assert subtract.delays == [60] * 5


def test_the_reference_is_converted_to_the_microphone_s_rate() -> None:
    device = AudioFormat(48000, 2)
    reference = EchoReference(FORMAT)
    reference.output_format = device
    played = tone(48000, 300, 2 * 4800)
    for block in pieces(played, [960], frame_bytes=4):
        reference.push(block)

    assert reference.take(2 * 800) == FormatConverter(device, FORMAT, aligned=False).process(played)
    assert reference.take(100) == bytes(100)


def test_only_half_a_second_of_reference_waits() -> None:
    reference = EchoReference(FORMAT)
    played = noise(8000, -20.0)
    for block in pieces(played, [160]):
        reference.push(block)

    assert reference.take(2 * 4000) == played[-2 * 4000 :]
    assert reference.take(2) == bytes(2)


def test_reference_of_what_the_loudspeaker_threw_away_is_not_given() -> None:
    reference = EchoReference(FORMAT)
    played = noise(800, -20.0)
    for block in pieces(played, [160]):
        reference.push(block)
    taken = reference.take(2 * 80)

    reference.restart()
    reference.push(played[-320:])

    assert taken == played[: 2 * 80]
    assert reference.take(2 * 320) == played[-320:] + bytes(320)


def test_a_processor_that_fails_is_left_out_and_named() -> None:
    chain = ProcessorChain([Raises(), Shortens(), NullProcessor(FORMAT)], FORMAT)
    data = noise(240, -20.0)

    assert chain.process(data) == data
    assert chain.failed == ["Raises raised RuntimeError", "Shortens returned 158 bytes for 160"]


def test_the_null_processor_is_always_there_and_others_are_found_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = importlib.metadata.EntryPoint("subtle", "tests.core.audio.test_processors:NullProcessor", GROUP)
    broken = importlib.metadata.EntryPoint("broken", "tests.core.audio.nowhere:Nothing", GROUP)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry, broken])

    assert isinstance(load_processor("null", FORMAT), NullProcessor)
    assert type(load_processor("subtle", FORMAT)).__name__ == "NullProcessor"
    with pytest.raises(ConfigError, match=r"'broken' \(tests\.core\.audio\.nowhere:Nothing\) cannot be used"):
        load_processor("broken", FORMAT)
    with pytest.raises(ConfigError, match=r"called 'aec'\. Installed: null, broken, subtle\."):
        load_processor("aec", FORMAT)


def test_the_guard_silences_while_the_agent_is_audible_and_a_little_longer() -> None:
    audible = [False]
    guard = HalfDuplexGuard(FORMAT, lambda: audible[0], hold_ms=100)
    block = noise(400, -20.0)
    got = [guard.process(block)]
    audible[0] = True
    got.append(guard.process(block))
    audible[0] = False
    got += [guard.process(block) for _ in range(3)]

    assert [each == block for each in got] == [True, False, False, False, True]
    assert {len(each) for each in got} == {800}
    assert guard.n_silenced == 3 * 400
