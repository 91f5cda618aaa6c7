"""The device as the clock of playback."""

from __future__ import annotations

import asyncio
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.audio.devices_for_tests import Ear, HandBackend
from tests.core.audio.sounds import tone
from voxengine.audio.backends.array import ArrayBackend
from voxengine.audio.devices import DeviceLost, DeviceReturned
from voxengine.audio.format import AudioFormat
from voxengine.audio.pcm import convert
from voxengine.audio.playback import PlaybackClock
from voxengine.audio.player import DevicePlaybackClock
from voxengine.audio.processors import EchoReference
from voxengine.errors import AudioDeviceError
from voxengine.events import LazyAudio
from voxengine.testing import leak_check, virtual

RATE = 8000
FORMAT = AudioFormat(RATE)
BLOCK = 160
FADE = 40


def ramp(n_frames: int, first: int = 1) -> bytes:
    return array("h", range(first, first + n_frames)).tobytes()


async def opened(backend: HandBackend | ArrayBackend, **options: object) -> tuple[DevicePlaybackClock, Ear]:
    ear = Ear()
    clock = DevicePlaybackClock(FORMAT, ear, backend, report=ear.report, **options)  # type: ignore[arg-type]
    await clock.open()
    return clock, ear


@virtual
async def test_it_is_a_playback_clock_and_plays_what_it_is_given() -> None:
    backend = ArrayBackend()
    async with leak_check():
        clock, ear = await opened(backend)
        as_promised: PlaybackClock = clock
        data = ramp(RATE)
        clock.write("a", RATE // 2, data[:RATE])
        clock.write("a", RATE // 2, data[RATE:])
        clock.finish("a")
        assert as_promised.current == "a"

        await clock.wait_played()

        assert data[2 * FADE :] in bytes(backend.played)
        assert (clock.played_ms("a"), clock.total_played_ms(), clock.current) == (1000, 1000, None)
        assert (ear.told, ear.played) == ([("start", "a"), ("stop", "a")], {"a": 1000})
        await clock.aclose()


@virtual
async def test_ten_minutes_are_decoded_only_as_they_are_played() -> None:
    backend = HandBackend()
    clock, ear = await opened(backend, limit_s=600.0)
    n_decoded = 0

    def decoded(n_frames: int) -> bytes:
        nonlocal n_decoded
        n_decoded += 1
        return bytes(2 * n_frames)

    for _ in range(600):
        clock.write("long", RATE, LazyAudio(RATE, decoded, 2 * RATE))
    clock.finish("long")
    at_first = n_decoded
    await backend.last.run(100)
    later = n_decoded
    await backend.last.run(600 * 50)

    assert at_first <= 3
    assert later <= at_first + 3
    assert ear.played == {"long": 600_000}


@virtual
async def test_a_soft_flush_is_silent_at_once_and_exact() -> None:
    backend = HandBackend()
    clock, ear = await opened(backend, flush="soft")
    clock.write("cut", RATE, ramp(RATE))
    await backend.last.run(7)

    clock.flush()

    assert (clock.played_frames("cut"), clock.current) == (7 * BLOCK, None)
    assert ear.told[-1] == ("stop", "cut")
    backend.last.block()
    assert set(backend.last.block()) == {0}
    assert (clock.played_ms("cut"), backend.last.n_discards) == (140, 0)


@virtual
async def test_a_hard_flush_counts_less_by_what_the_device_held() -> None:
    backend = HandBackend()
    clock, ear = await opened(backend)
    clock.write("cut", RATE, ramp(RATE))
    await backend.last.run(7)
    before = clock.played_ms("cut")

    clock.flush()

    assert (before, clock.played_ms("cut"), clock.total_played_ms()) == (140, 100, 100)
    assert (backend.last.n_discards, ear.played) == (1, {"cut": 100})


@virtual
async def test_where_nothing_plays_there_is_nothing_to_throw_away() -> None:
    backend = HandBackend()
    clock, ear = await opened(backend)
    clock.write("whole", BLOCK, ramp(BLOCK))
    clock.finish("whole")
    await backend.last.run(2)

    clock.flush()

    assert (backend.last.n_discards, ear.played) == (0, {"whole": 20})


@virtual
async def test_a_device_that_cannot_throw_away_is_flushed_softly() -> None:
    backend = HandBackend()
    clock, _ = await opened(backend)
    backend.last.can_discard = False
    clock.write("cut", RATE, ramp(RATE))
    await backend.last.run(7)

    clock.flush()

    assert clock.played_ms("cut") == 140


@virtual
async def test_what_waits_behind_the_playing_item_was_not_heard() -> None:
    backend = HandBackend()
    clock, ear = await opened(backend)
    clock.write("first", RATE, ramp(RATE))
    clock.write("second", RATE, ramp(RATE))
    clock.finish("first")
    await backend.last.run(5)

    clock.flush()
    clock.write("second", 2 * BLOCK, ramp(2 * BLOCK))
    clock.finish("second")
    await backend.last.run(4)

    assert ear.told == [("start", "first"), ("stop", "first"), ("start", "second"), ("stop", "second")]
    assert ear.played["second"] == 40


@virtual
async def test_a_second_item_waits_until_the_first_is_finished() -> None:
    backend = HandBackend()
    clock, ear = await opened(backend)
    clock.write("first", 4 * BLOCK, ramp(4 * BLOCK))
    clock.write("second", BLOCK, ramp(BLOCK, 9000))
    clock.finish("second")
    await backend.last.run(8)
    waiting = clock.current
    clock.write("first", BLOCK, ramp(BLOCK, 5000))
    clock.finish("first")

    await backend.last.run(4)

    assert waiting == "first"
    heard = array("h", bytes(backend.last.played)).tolist()
    assert heard.index(5100) < heard.index(9000 + BLOCK - 1)
    assert ear.played == {"first": 100, "second": 20}


@virtual
async def test_audio_written_before_the_device_is_open_waits_for_it() -> None:
    backend, ear = HandBackend(), Ear()
    clock = DevicePlaybackClock(FORMAT, ear, backend)
    clock.write("early", 2 * BLOCK, ramp(2 * BLOCK))
    clock.finish("early")
    held = clock.current

    await clock.open()
    await backend.last.run(3)

    assert (held, ear.played) == ("early", {"early": 40})


@virtual
async def test_an_item_without_audio_ends_without_a_word() -> None:
    clock, ear = await opened(HandBackend())

    clock.write("empty", 0, b"")
    clock.finish("empty")
    clock.finish("unknown")
    clock.flush()

    assert (ear.told, clock.current, clock.played_ms("empty"), clock.played_ms("unknown")) == ([], None, 0, 0)


@virtual
async def test_frames_without_audio_are_silence_that_counts() -> None:
    backend = HandBackend()
    clock, ear = await opened(backend)

    clock.write("quiet", RATE // 10)
    clock.finish("quiet")
    await backend.last.run(6)

    assert ear.played == {"quiet": 100}


@virtual
async def test_more_than_may_wait_is_refused_and_counted() -> None:
    clock, _ = await opened(HandBackend(), limit_s=1.0)

    clock.write("flood", RATE, ramp(RATE))
    clock.write("flood", 1, ramp(1))

    assert clock.n_refused == 1


@given(
    st.lists(st.integers(1, 3000), min_size=1, max_size=8),
    st.sampled_from([AudioFormat(48000, 2), AudioFormat(11025), AudioFormat(4000)]),
)
@virtual
async def test_a_device_at_another_rate_plays_the_converted_sound_to_its_last_frame(
    sizes: list[int], device_format: AudioFormat
) -> None:
    backend = HandBackend(card=device_format)
    clock, ear = await opened(backend)
    data = tone(RATE, 440, sum(sizes))
    at = 0
    for size in sizes:
        clock.write("a", size, data[2 * at : 2 * (at + size)])
        at += size
    clock.finish("a")

    await backend.last.run(2 + sum(sizes) // BLOCK + 2)

    expected = convert(data, FORMAT, device_format)
    faded = (device_format.sample_rate * 5 // 1000 + 1) * device_format.frame_bytes
    heard = bytes(backend.last.played)
    assert heard[faded : len(expected)] == expected[faded:]
    assert ear.played == {"a": sum(sizes) * 1000 // RATE}
    assert clock.played_frames("a") == sum(sizes)


@virtual
async def test_the_reference_is_given_what_the_device_is_given() -> None:
    backend = HandBackend()
    reference = EchoReference(FORMAT)
    clock, _ = await opened(backend, reference=reference)
    clock.write("a", 4 * BLOCK, ramp(4 * BLOCK))
    clock.finish("a")

    await backend.last.run(4)

    assert reference.take(2 * 4 * BLOCK) == bytes(backend.last.played)


@virtual
async def test_the_reference_of_a_hard_flush_begins_with_what_is_given_afterwards() -> None:
    backend = HandBackend()
    reference = EchoReference(FORMAT)
    clock, _ = await opened(backend, reference=reference, flush="hard")
    clock.write("a", 8 * BLOCK, ramp(8 * BLOCK))
    clock.finish("a")
    await backend.last.run(4)
    before = len(backend.last.played)

    clock.flush()
    clock.write("b", 4 * BLOCK, ramp(4 * BLOCK))
    clock.finish("b")
    await backend.last.run(4)

    assert backend.last.n_discards == 1
    assert reference.take(2 * 4 * BLOCK) == bytes(backend.last.played[before:])


@virtual
async def test_gain_and_level() -> None:
    backend = HandBackend()
    clock, _ = await opened(backend, gain_db=-6.0206)
    clock.write("a", RATE, tone(RATE, 400, RATE, -20.0))
    silent = clock.level_db()

    await backend.last.run(5)

    assert silent == -100.0
    assert clock.level_db() == pytest.approx(-26.0, abs=0.2)


@virtual
async def test_a_lost_device_goes_on_by_the_clock_and_what_it_held_was_not_heard() -> None:
    backend = HandBackend()
    clock, ear = await opened(backend)
    clock.write("long", RATE, ramp(RATE))
    clock.finish("long")
    await backend.last.run(10)
    backend.there.clear()
    device = backend.last
    device.is_running = False

    await clock.wait_played()

    assert isinstance(ear.outcomes[0], DeviceLost)
    assert (clock.is_lost, clock.device, device.is_closed) == (True, "card", True)
    assert ear.played == {"long": 1000 - 40}
    await clock.aclose()


@pytest.mark.parametrize("before", [FORMAT, AudioFormat(4000), AudioFormat(24000, 2)])
def test_a_device_that_comes_back_in_another_format_plays_the_rest(before: AudioFormat) -> None:
    @virtual
    async def run() -> None:
        backend = HandBackend(card=before)
        clock, ear = await opened(backend)
        data = tone(RATE, 300, 3 * RATE)
        clock.write("long", RATE, data[: 2 * RATE])
        clock.write("long", 2 * RATE, data[2 * RATE :])
        clock.finish("long")
        await backend.last.run(10)
        backend.there = {"other": AudioFormat(16000)}
        backend.last.is_running = False

        await asyncio.sleep(0.31)
        at_return = clock.played_frames("long")
        await backend.last.run(160)

        back = ear.outcomes[1]
        assert isinstance(back, DeviceReturned)
        assert (back.device, back.is_same, back.audio_format) == ("other", False, AudioFormat(16000))
        assert not clock.is_lost
        # What the lost device held is not played again. Behind the end there is a fade-out of 5 ms.
        n_rest = 2 * (3 * RATE - at_return) - 640
        heard = bytes(backend.last.played).strip(b"\0")
        assert len(heard) // 2 == pytest.approx(n_rest + 80, abs=40)
        # All but the two blocks that the lost device held.
        assert ear.played["long"] == pytest.approx(3000 - 40, abs=1)

    run()


@virtual
async def test_a_device_that_cannot_be_opened_says_so_and_leaves_nothing_behind() -> None:
    async with leak_check():
        backend, ear = HandBackend(), Ear()
        clock = DevicePlaybackClock(FORMAT, ear, backend, device="absent")

        with pytest.raises(AudioDeviceError, match="not there"):
            await clock.open()

        clock.close()


@virtual
async def test_close_silences_and_lets_go_of_the_device() -> None:
    async with leak_check():
        backend = HandBackend()
        clock, ear = await opened(backend)
        clock.write("a", RATE, ramp(RATE))
        await backend.last.run(3)

        clock.close()
        clock.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

        assert backend.last.is_closed
        assert ear.told == [("start", "a"), ("stop", "a")]


@virtual
async def test_a_name_that_is_used_again_is_another_item() -> None:
    backend = HandBackend()
    clock, ear = await opened(backend)
    for _ in range(2):
        clock.write("again", 2 * BLOCK, ramp(2 * BLOCK))
        clock.finish("again")
        await backend.last.run(4)

    assert ear.told == [("start", "again"), ("stop", "again")] * 2
    assert (clock.played_ms("again"), clock.total_played_ms()) == (40, 80)


@virtual
async def test_pause_keeps_what_waits_and_counts_nothing_meanwhile() -> None:
    backend = ArrayBackend()
    clock, ear = await opened(backend)
    data = tone(RATE, 400, RATE)
    clock.write("a", RATE, data)
    clock.finish("a")
    await asyncio.sleep(0.4)

    clock.pause()
    await asyncio.sleep(0.1)
    before = clock.played_frames("a")
    await asyncio.sleep(1)
    during, is_there = clock.played_frames("a"), clock.current
    clock.resume()
    await clock.wait_played()

    assert (before, is_there) == (during, "a")
    assert ear.played == {"a": 1000}
    assert data[2 * FADE : 2 * before] in bytes(backend.played)
    assert data[2 * (before + FADE) :] in bytes(backend.played)
    await clock.aclose()


@virtual
async def test_pause_holds_for_a_device_that_comes_back_in_another_format() -> None:
    backend = HandBackend()
    clock, ear = await opened(backend)
    clock.write("a", RATE, tone(RATE, 400, RATE))
    await backend.last.run(5)
    clock.pause()
    backend.there = {"card": AudioFormat(16000)}
    backend.last.is_running = False
    await ear.told_more(1)

    await backend.last.run(10)
    paused = clock.played_ms("a")
    clock.resume()
    await backend.last.run(10)

    assert paused <= 100
    assert clock.played_ms("a") > paused + 150
    await clock.aclose()


@virtual
async def test_flush_ends_a_pause() -> None:
    backend = ArrayBackend()
    clock, ear = await opened(backend)
    clock.write("a", RATE, tone(RATE, 400, RATE))
    await asyncio.sleep(0.2)
    clock.pause()
    await asyncio.sleep(0.5)

    clock.flush()
    clock.write("b", RATE // 4, tone(RATE, 500, RATE // 4))
    clock.finish("b")
    await clock.wait_played()

    assert ear.played["b"] == 250
    assert clock.open_items() == []
    await clock.aclose()


@pytest.mark.parametrize("law", ["g711_ulaw", "g711_alaw"])
@virtual
async def test_g711_is_played_as_what_it_means(law: str) -> None:
    backend, ear, coded = ArrayBackend(), Ear(), AudioFormat(RATE, 1, law)
    clock = DevicePlaybackClock(coded, ear, backend)
    await clock.open()
    sound = convert(tone(RATE, 400, RATE), FORMAT, coded)

    clock.write("a", RATE, sound)
    clock.finish("a")
    await clock.wait_played()
    clock.write("quiet", RATE // 10)
    clock.finish("quiet")
    await clock.wait_played()

    assert (backend.output_format, ear.played) == (FORMAT, {"a": 1000, "quiet": 100})
    assert convert(sound, coded, FORMAT)[2 * FADE :] in bytes(backend.played)
    assert max(array("h", bytes(backend.played[-RATE // 5 :]))) <= 8
    await clock.aclose()
