"""Accepted audio by index: kept until it may go, refused only at the limit."""

from __future__ import annotations

import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.engine.fakes import silence, speech
from voxengine.audio.format import AudioFormat
from voxengine.errors import JournalFull
from voxengine.journal import Journal

RATE = 8000
FORMAT = AudioFormat(RATE)
STEREO = AudioFormat(RATE, 2)


def filled(*parts: bytes, limit_s: float = 60.0, sent: bool = True, decides: bool = False) -> Journal:
    """A journal that was given these parts in chunks of 20 ms."""
    journal = Journal(FORMAT, limit_s)
    journal.vendor_decides = decides
    add(journal, *parts, sent=sent)
    return journal


def add(journal: Journal, *parts: bytes, sent: bool = True) -> None:
    for part in parts:
        for at in range(0, len(part), 320):
            journal.append(part[at : at + 320], journal.end if sent else 0)


@given(
    st.lists(st.integers(0, 50), max_size=20),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 200)), max_size=20),
    st.lists(st.integers(0, 500), max_size=5),
    st.sampled_from([FORMAT, STEREO]),
)
def test_reads_are_slices_of_what_was_appended(
    sizes: list[int], reads: list[tuple[int, int]], releases: list[int], audio_format: AudioFormat
) -> None:
    journal, whole = Journal(audio_format, 60), b""
    size = audio_format.frame_bytes
    for n in sizes:
        data = bytes(i % 251 for i in range(len(whole), len(whole) + n * size))
        assert journal.append(data, journal.end) == len(whole) // size
        whole += data
    released = 0
    for index in releases:
        journal.release(index)
        released = max(released, min(index, journal.end))

    assert (journal.start, journal.end) == (released, len(whole) // size)
    for index, n in reads:
        first = max(index, released)
        last = max(min(journal.end, first + n), first)
        assert journal.read(index, n) == whole[first * size : last * size]


def test_limit_refuses_and_accepts_nothing_of_the_call() -> None:
    journal = filled(speech(59_990, RATE))

    with pytest.raises(JournalFull, match="Nothing of this call was accepted") as caught:
        journal.append(speech(20, RATE), journal.end)

    assert journal.held_s == pytest.approx(59.99)
    assert caught.value.held_s == pytest.approx(59.99)
    journal.append(speech(10, RATE), journal.end)


@pytest.mark.parametrize("limit_s", [1.0, 1.5, 60.0])
def test_silence_never_fills_the_journal(limit_s: float) -> None:
    journal = filled(silence(130_000, RATE), limit_s=limit_s)

    assert journal.held_s <= max(2.1, limit_s)


@pytest.mark.parametrize("limit_s", [1.0, 1.5])
def test_short_limit_holds_for_speech(limit_s: float) -> None:
    with pytest.raises(JournalFull):
        filled(speech(1600, RATE), limit_s=limit_s)


def test_what_was_not_sent_is_never_let_go() -> None:
    with pytest.raises(JournalFull):
        filled(silence(61_000, RATE), sent=False)


def test_second_before_speech_is_kept_with_it() -> None:
    journal = filled(silence(20_000, RATE), speech(5000, RATE), silence(5000, RATE))

    assert journal.find_utterance() is not None
    assert 18 * RATE <= journal.start <= 19 * RATE
    assert journal.end == 30 * RATE


def test_finished_speech_stays_until_it_is_answered() -> None:
    journal = filled(silence(3000, RATE), speech(1000, RATE), silence(40_000, RATE))

    assert journal.start <= 2 * RATE
    journal.release(4 * RATE)
    assert journal.find_utterance() is None


def test_vendor_that_decides_may_ignore_a_cough() -> None:
    journal = filled(silence(3000, RATE), speech(200, RATE), silence(120_000, RATE), decides=True)

    assert journal.find_utterance() is None
    assert journal.held_s < 3


def test_second_utterance_survives_the_answer_to_the_first() -> None:
    journal = filled(speech(500, RATE), silence(1000, RATE), speech(500, RATE), silence(1000, RATE))
    first = journal.find_utterance()

    journal.release(int(0.8 * RATE))

    second = journal.find_utterance()
    assert first == 0
    assert second is not None
    assert RATE <= second <= int(1.5 * RATE)


def test_release_past_what_was_listened_to_keeps_the_index_true() -> None:
    journal = filled(speech(500, RATE))
    journal.find_utterance()  # The ear is now inside an utterance ...
    add(journal, speech(500, RATE), silence(500, RATE))
    journal.release(int(1.4 * RATE))  # ... whose rest is let go of unheard.
    add(journal, silence(900, RATE))

    assert journal.find_utterance() is None
    add(journal, speech(400, RATE))
    start = journal.find_utterance()
    assert start is not None
    assert 2.0 * RATE <= start <= 2.4 * RATE


@pytest.mark.parametrize(("last", "is_found"), [(speech(40, RATE), True), (silence(40, RATE), False)])
def test_sound_too_short_for_an_utterance_may_be_its_onset(last: bytes, is_found: bool) -> None:
    journal = filled(silence(500, RATE), last)

    assert journal.find_utterance() is None
    assert (journal.find_onset(journal.end) < journal.end) == is_found
    assert journal.find_onset(journal.end) >= journal.end - int(0.3 * RATE)


def tone(ms: int, level: int) -> bytes:
    """A quiet voice, at half of full scale divided by 2**15 / level."""
    return array.array("h", (level if i % 32 < 16 else -level for i in range(ms * RATE // 1000))).tobytes()


def clicks(ms: int) -> bytes:
    """Background noise with five loud samples in each 20 ms: a broken cable."""
    chunk = array.array("h", [22_000, -20_000, 18_000, -22_000, 5_000] + [16, -16] * 77).tobytes()
    return chunk[:320] * (ms // 20)


def test_clicks_are_no_speech() -> None:
    journal = filled(clicks(130_000))

    assert journal.held_s <= 2.1
    assert journal.find_utterance() is None


@pytest.mark.parametrize("ms", [60, 200, 1000])
@pytest.mark.parametrize("offset_ms", [0, 70, 140])
def test_quiet_words_are_kept_until_they_are_answered(ms: int, offset_ms: int) -> None:
    journal = filled(silence(3000 + offset_ms, RATE), tone(ms, 300), silence(40_000, RATE))

    start = journal.find_utterance()
    assert start is not None
    assert abs(start - (3000 + offset_ms - 300) * RATE // 1000) <= 20 * RATE // 1000
    assert journal.start <= start


@pytest.mark.parametrize("rate", [8000, 16_000, 24_000, 44_100, 48_000])
def test_utterances_are_where_the_ear_hears_them_at_every_rate(rate: int) -> None:
    journal = Journal(AudioFormat(rate), 60)
    for part in (
        silence(1510, rate),
        speech(430, rate),
        silence(700, rate),
        speech(900, rate),
        silence(900, rate),
    ):
        journal.append(part, journal.end)

    first = journal.find_utterance()
    journal.release(int(2.2 * rate))
    second = journal.find_utterance()

    assert first is not None
    assert second is not None
    assert abs(first / rate - 1.21) <= 0.02
    assert abs(second / rate - 2.34) <= 0.02


def test_turn_that_is_answered_soon_is_never_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxengine.audio.vad.Segmenter.push", None)  # It would raise.

    journal = filled(*[speech(9000, RATE)])
    journal.release(journal.end)
    add(journal, speech(9000, RATE))

    assert journal.held_s == pytest.approx(9)


def test_long_speech_is_indexed_before_the_limit() -> None:
    journal = filled(silence(1000, RATE), speech(25_000, RATE), silence(20_000, RATE), speech(10_000, RATE))

    assert journal.find_utterance() is not None
    assert journal.start == 0
    assert journal.held_s == pytest.approx(56)
