from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.audio.sounds import mixed, noise, pieces, silence, spoken, tone
from voxengine.audio.vad import Segmenter, SegmentEvent
from voxengine.errors import AudioFormatError, ConfigError

RATE = 8000


def ms(milliseconds: int, sample_rate: int = RATE) -> int:
    return milliseconds * sample_rate // 1000


def talk(milliseconds: int) -> bytes:
    return spoken(RATE, ms(milliseconds))


def pause(milliseconds: int) -> bytes:
    return silence(ms(milliseconds))


def indexes(events: list[SegmentEvent]) -> list[tuple[str, int]]:
    return [(event.kind, event.sample_index) for event in events]


def test_an_utterance_between_pauses_is_found_to_the_block() -> None:
    segmenter = Segmenter(RATE)

    events = segmenter.push(pause(1000) + tone(RATE, 300, ms(700)) + pause(1000))

    assert events == [
        SegmentEvent("start", ms(1000), ms(1060), ms(700)),
        SegmentEvent("end", ms(1700), ms(2200), ms(1700)),
    ]
    assert not segmenter.in_speech
    assert segmenter.n_pushed == ms(2700)


@pytest.mark.parametrize("sample_rate", [4000, 11025, 16000, 22050, 24000, 44100, 48000])
def test_every_rate_finds_speech_within_two_blocks(sample_rate: int) -> None:
    before, length = ms(600, sample_rate), ms(1400, sample_rate)
    sound = silence(before) + spoken(sample_rate, length) + silence(sample_rate)

    start, end = Segmenter(sample_rate).push(mixed(sound, noise(len(sound) // 2, -60.0)))

    assert abs(start.sample_index - before) <= ms(20, sample_rate)
    assert abs(end.sample_index - (before + length)) <= ms(60, sample_rate)


def test_short_pauses_within_speech_do_not_end_it() -> None:
    segmenter = Segmenter(RATE)

    events = segmenter.push(talk(600) + pause(400) + talk(600) + pause(440) + talk(600))

    assert [event.kind for event in events] == ["start"]
    assert segmenter.in_speech


def test_three_sentences_are_three_utterances() -> None:
    sound = b"".join(talk(1000) + pause(900) for _ in range(3))

    events = Segmenter(RATE).push(mixed(sound, noise(len(sound) // 2, -55.0)))

    starts = [event.sample_index for event in events if event.kind == "start"]
    assert [event.kind for event in events] == ["start", "end"] * 3
    assert [abs(got - ms(1900 * n)) <= ms(10) for n, got in enumerate(starts)] == [True] * 3


@pytest.mark.parametrize("quiet", [silence(RATE * 4), noise(RATE * 4, -60.0), noise(RATE * 4, -50.0)])
def test_quiet_is_never_an_utterance(quiet: bytes) -> None:
    assert Segmenter(RATE).push(quiet) == []


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_loud_is_an_utterance_from_the_first_sample_at_every_threshold(threshold: float) -> None:
    events = Segmenter(RATE, threshold=threshold).push(tone(RATE, 440, ms(100)))

    assert events == [SegmentEvent("start", 0, ms(60), 0)]


def test_a_higher_threshold_ignores_soft_speech() -> None:
    soft = spoken(RATE, ms(1000), level_db=-45.0)

    assert Segmenter(RATE, threshold=0.2).push(soft)
    assert not Segmenter(RATE, threshold=0.9).push(soft)


def test_clicks_neither_start_an_utterance_nor_prolong_one() -> None:
    click = tone(RATE, 1000, ms(10), -10.0)
    clicks = b"".join(pause(90) + click for _ in range(20))

    events = Segmenter(RATE).push(clicks + pause(500) + talk(500) + clicks)

    assert [event.kind for event in events] == ["start", "end"]
    assert events[1].sample_index <= ms(2000 + 500 + 500 + 10)


def test_a_sound_shorter_than_the_minimum_is_ignored() -> None:
    sound = tone(RATE, 300, ms(90)) + pause(800)

    assert Segmenter(RATE, min_speech_ms=100).push(sound) == []
    assert len(Segmenter(RATE, min_speech_ms=90).push(sound)) == 2


def test_padding_stops_at_the_base_and_at_the_last_utterance() -> None:
    segmenter = Segmenter(RATE, prefix_padding_ms=800, silence_ms=300)
    segmenter.reset(5000)

    events = segmenter.push(pause(100) + tone(RATE, 300, ms(200)) + pause(400) + tone(RATE, 300, ms(200)))

    assert [event.padded_index for event in events] == [5000, 5000 + ms(300), 5000 + ms(300)]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.sampled_from(["talk", "pause", "noise", "click"]), st.integers(5, 700)), max_size=6
    ),
    st.lists(st.integers(0, 1500), min_size=1, max_size=6).filter(any),
    st.integers(0, 10**9),
)
def test_cutting_the_input_changes_no_event(
    scene: list[tuple[str, int]], sizes: list[int], base_index: int
) -> None:
    makers: dict[str, Callable[[int], bytes]] = {
        "talk": lambda n: spoken(RATE, n),
        "pause": silence,
        "noise": lambda n: noise(n, -40.0),
        "click": lambda n: tone(RATE, 900, min(n, ms(10)), -8.0),
    }
    sound = b"".join(makers[kind](ms(length)) for kind, length in scene)
    whole, cut = Segmenter(RATE, silence_ms=200), Segmenter(RATE, silence_ms=200)
    whole.reset(base_index)

    expected = whole.push(sound) + whole.flush()
    got = [event for piece in pieces(sound, sizes) for event in cut.push(piece)] + cut.flush()

    assert [
        (
            event.kind,
            event.sample_index + base_index,
            event.decided_at + base_index,
            event.padded_index + base_index,
        )
        for event in got
    ] == [(event.kind, event.sample_index, event.decided_at, event.padded_index) for event in expected]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), max_size=8), st.integers(10, 400))
def test_events_alternate_and_never_run_ahead_of_the_sound(
    scene: list[tuple[int, int]], silence_ms: int
) -> None:
    segmenter = Segmenter(RATE, silence_ms=silence_ms)
    events: list[SegmentEvent] = []

    for spoken_ms, paused_ms in scene:
        for event in segmenter.push(talk(spoken_ms) + pause(paused_ms)):
            assert event.sample_index <= event.decided_at <= segmenter.n_pushed
            events.append(event)
    events += segmenter.flush()

    assert [event.kind for event in events] == ["start", "end"] * (len(events) // 2)
    for one, other in pairwise(events):
        assert one.sample_index <= other.padded_index <= other.sample_index
        assert one.decided_at <= other.decided_at


def test_flush_ends_an_open_utterance_at_its_last_sample() -> None:
    segmenter = Segmenter(RATE)
    segmenter.push(tone(RATE, 300, ms(200) + 7))

    events = segmenter.flush()

    assert events == [SegmentEvent("end", ms(200) + 7, ms(200) + 7, ms(200) + 7)]
    assert not segmenter.in_speech
    assert segmenter.flush() == []


def test_flush_in_the_pause_ends_the_utterance_where_the_speech_ended() -> None:
    segmenter = Segmenter(RATE)
    segmenter.push(tone(RATE, 300, ms(200)) + pause(300))

    assert indexes(segmenter.flush()) == [("end", ms(200))]


def test_speech_after_flush_is_counted_on_from_there() -> None:
    segmenter = Segmenter(RATE)
    segmenter.push(pause(200) + silence(3))
    segmenter.flush()

    events = segmenter.push(tone(RATE, 300, ms(100)))

    assert indexes(events) == [("start", ms(200) + 3)]


def test_reset_begins_anew_at_the_given_index() -> None:
    segmenter = Segmenter(RATE)
    segmenter.push(tone(RATE, 300, ms(200)))

    segmenter.reset(1_000_000)

    assert not segmenter.in_speech
    assert segmenter.n_pushed == 0
    assert indexes(segmenter.push(tone(RATE, 300, ms(200)))) == [("start", 1_000_000)]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"threshold": 2.0}, "threshold is 2.0"),
        ({"prefix_padding_ms": -1}, "prefix_padding_ms is -1; it is from 0"),
        ({"silence_ms": 0}, "silence_ms is 0; it is from 10"),
        ({"min_speech_ms": 60_001}, "min_speech_ms is 60001"),
    ],
)
def test_an_option_out_of_range_is_refused(options: dict[str, float], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Segmenter(RATE, **options)  # type: ignore[arg-type]


def test_an_odd_byte_is_refused_and_nothing_is_taken() -> None:
    segmenter = Segmenter(RATE)

    with pytest.raises(AudioFormatError, match=r"Segmenter\.push got 1 bytes"):
        segmenter.push(b"a")

    assert segmenter.n_pushed == 0
