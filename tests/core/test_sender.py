"""Every accepted sample reaches the session once, in order, without a hole."""

from __future__ import annotations

import array
import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.engine.fakes import silence, speech
from voxengine.audio.format import AudioFormat
from voxengine.audio.pcm import convert
from voxengine.capabilities import Capabilities
from voxengine.errors import NotConnected, VoxEngineError
from voxengine.journal import Journal
from voxengine.sender import InputSender
from voxengine.testing import leak_check, run_virtual, virtual

RATE = 8000


class Service:
    """Stands in for a session and its provider."""

    name = "service"

    def __init__(self, rate: int = RATE, min_chunk_ms: int | None = None) -> None:
        self.input_format = AudioFormat(rate)
        self.capabilities = Capabilities(min_chunk_ms=min_chunk_ms)
        self.provider: Any = self
        self.is_ready = True
        self.taken: list[bytes] = []
        self.n_inside = 0
        self.delay_s = 0.0
        self.refuses = False
        self.fails = 0
        self.reports: list[Exception] = []

    @property
    def audio(self) -> bytes:
        return b"".join(self.taken)

    def audio_call(self) -> Any:
        return self.send_audio

    def try_send_audio(self, data: bytes) -> bool:
        assert self.n_inside == 0, "two at a time"
        if self.refuses or self.delay_s:
            return False
        if self.fails:
            raise OSError("broken")
        self.taken.append(data)
        return True

    async def send_audio(self, data: bytes) -> None:
        assert self.n_inside == 0, "two at a time"
        self.n_inside += 1
        try:
            await asyncio.sleep(self.delay_s)
            if self.fails:
                self.fails -= 1
                raise OSError("broken")
            self.taken.append(data)
        finally:
            self.n_inside -= 1

    def failed(self, hook: str, error: Exception) -> VoxEngineError:
        return VoxEngineError(f"{hook}: {error}")

    def report(self, failure: Exception) -> None:
        self.reports.append(failure)


def sender_for(
    service: Service, *, rate: int = RATE, chunk_ms: int = 20, group_ms: int = 20
) -> tuple[InputSender, Journal]:
    journal = Journal(AudioFormat(rate), 3600)
    held: Any = service
    return InputSender(held, journal, start=0, chunk_ms=chunk_ms, group_ms=group_ms), journal


def give(sender: InputSender, journal: Journal, data: bytes) -> None:
    journal.append(data, sender.cursor)
    sender.kick()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("give"), st.integers(1, 900)),
        st.tuples(st.just("wait"), st.integers(0, 100)),
        st.tuples(st.just("slow"), st.integers(0, 50)),
        st.tuples(st.just("refuse"), st.integers(0, 1)),
        st.tuples(st.just("fail"), st.integers(1, 3)),
        st.tuples(st.just("flush"), st.integers(0, 1)),
        st.tuples(st.just("silence"), st.integers(20, 200)),
    ),
    max_size=30,
)


async def _play(
    steps: list[tuple[str, int]], rate: int, chunk_ms: int, group_ms: int, least: int | None
) -> tuple[Service, InputSender, bytes]:
    service = Service(rate, least)
    sender, journal = sender_for(service, chunk_ms=chunk_ms, group_ms=group_ms)
    given_frames, waits = 0, []
    for what, n in steps:
        if what == "give":
            give(sender, journal, speech(n / 8, RATE, given_frames))
            given_frames = journal.end
        elif what == "wait":
            await asyncio.sleep(n / 1000)
        elif what == "slow":
            service.delay_s = n / 1000
        elif what == "refuse":
            service.refuses = bool(n)
        elif what == "fail":
            service.fails = n
        else:
            work = sender.flush() if what == "flush" else sender.inject_silence(n)
            waits.append(asyncio.create_task(work))
            if what == "flush" and n:
                await asyncio.sleep(0.001)
                waits[-1].cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    service.fails = 0
    await sender.flush()
    assert sender.cursor == journal.end
    await sender.close()
    return service, sender, speech(given_frames / 8, RATE)


def _without(silent: list[tuple[int, int]], audio: bytes) -> bytes:
    """The audio less the injected silence, which must be silent."""
    out, at = b"", 0
    for first, n in silent:
        assert not any(audio[2 * first : 2 * (first + n)])
        out += audio[2 * at : 2 * first]
        at = first + n
    return out + audio[2 * at :]


@given(STEPS, st.sampled_from([10, 20, 60]), st.sampled_from([20, 100]), st.sampled_from([None, 50]))
def test_every_sample_arrives_once_in_order(
    steps: list[tuple[str, int]], chunk_ms: int, group_ms: int, least: int | None
) -> None:
    service, sender, expected = run_virtual(_play(steps, RATE, chunk_ms, group_ms, least))

    assert _without(sender._injections, service.audio) == expected
    assert sender.injected_frames == (len(service.audio) - len(expected)) // 2


@given(STEPS, st.sampled_from([12_000, 24_000]))
def test_resampled_audio_keeps_its_duration_up_to_a_sample_a_flush(
    steps: list[tuple[str, int]], rate: int
) -> None:
    service, sender, expected = run_virtual(_play(steps, rate, 20, 20, None))

    n_flushes = 1 + sum(what in ("flush", "silence") for what, _ in steps)
    n_frames = len(service.audio) // 2 - sender.injected_frames
    assert abs(n_frames - len(expected) // 2 * rate / RATE) <= n_flushes


@virtual
async def test_resampled_stream_is_that_of_one_conversion() -> None:
    service = Service(24_000)
    sender, journal = sender_for(service)
    data = speech(500, RATE)

    for at in range(0, len(data), 74):
        give(sender, journal, data[at : at + 74])
        await asyncio.sleep(0)
    await sender.flush()

    whole = convert(data, AudioFormat(RATE), AudioFormat(24_000))
    assert service.audio == whole
    await sender.close()


@virtual
async def test_chunk_goes_at_once_while_the_service_takes_it() -> None:
    service = Service()
    sender, journal = sender_for(service)

    give(sender, journal, speech(20, RATE))

    assert service.audio == speech(20, RATE)
    assert len(asyncio.all_tasks()) == 1


@virtual
async def test_group_waits_and_goes_as_one() -> None:
    service = Service()
    sender, journal = sender_for(service, group_ms=100)
    data = speech(250, RATE)

    for at in range(0, len(data), 320):
        give(sender, journal, data[at : at + 320])

    assert [len(piece) // 16 for piece in service.taken] == [100, 100]
    await sender.flush()
    assert service.audio == data


@virtual
async def test_backlog_makes_the_caller_wait_and_no_longer_than_needed() -> None:
    service = Service()
    service.delay_s = 0.1  # Five times slower than real time.
    sender, journal = sender_for(service)
    give(sender, journal, speech(600, RATE))
    await asyncio.sleep(0)

    assert sender.is_behind
    await sender.wait_for_room()

    assert asyncio.get_running_loop().time() == pytest.approx(0.5, abs=0.11)
    assert journal.end - sender.cursor <= RATE // 2
    await sender.close()


@virtual
async def test_closing_frees_whoever_waits() -> None:
    service = Service()
    service.delay_s = 1e9
    async with leak_check():
        sender, journal = sender_for(service)
        give(sender, journal, speech(2000, RATE))
        waiters = [asyncio.create_task(work) for work in (sender.wait_for_room(), sender.flush())]
        await asyncio.sleep(1)

        await sender.close()

        await asyncio.gather(*waiters)
        assert sender.cursor == 0


@virtual
async def test_failure_is_said_once_and_the_audio_is_tried_again() -> None:
    service = Service()
    service.refuses, service.fails = True, 2
    sender, journal = sender_for(service)

    for n in range(5):
        give(sender, journal, speech(20, RATE, n * 160))
        await asyncio.sleep(0.1)

    assert len(service.reports) == 1
    assert service.audio == speech(100, RATE)


@virtual
async def test_whoever_flushes_is_told_of_the_failure_instead() -> None:
    service = Service()
    service.refuses, service.fails = True, 1
    sender, journal = sender_for(service, group_ms=200)
    give(sender, journal, speech(100, RATE))

    with pytest.raises(VoxEngineError, match="broken"):
        await sender.flush()

    assert service.reports == []
    await sender.flush()
    assert service.audio == speech(100, RATE)


@virtual
async def test_exception_of_the_quick_way_is_no_exception_of_the_caller() -> None:
    service = Service()
    service.fails = 1
    sender, journal = sender_for(service)

    give(sender, journal, speech(20, RATE))
    await asyncio.sleep(0.1)
    give(sender, journal, speech(20, RATE, 160))
    await asyncio.sleep(0.1)

    assert service.audio == speech(40, RATE)
    assert len(service.reports) == 1


@virtual
async def test_user_audio_waits_behind_injected_silence() -> None:
    service = Service()
    service.delay_s = 0.01
    sender, journal = sender_for(service)
    give(sender, journal, speech(100, RATE))

    injecting = asyncio.create_task(sender.inject_silence(200))
    await asyncio.sleep(0.08)
    give(sender, journal, speech(100, RATE, 800))
    await injecting
    await sender.flush()

    assert service.audio == speech(100, RATE) + silence(200, RATE) + speech(100, RATE, 800)
    assert sender.injected_frames == 1600
    assert [sender.index_at(ms) * 1000 // RATE for ms in (50, 100, 200, 300, 350)] == [50, 100, 100, 100, 150]


@virtual
async def test_position_is_never_ahead_of_what_was_sent() -> None:
    service = Service()
    sender, journal = sender_for(service)
    give(sender, journal, speech(100, RATE))

    assert sender.index_at(10**9) == 800
    assert sender.index_at(-5) == 0


@virtual
async def test_cancellation_inside_the_provider_is_a_failure_and_not_the_end() -> None:
    service = Service()
    service.refuses = True
    sender, journal = sender_for(service)

    async def cancelled(data: bytes) -> None:
        raise asyncio.CancelledError

    sender._send = cancelled
    give(sender, journal, speech(20, RATE))
    await asyncio.sleep(0.1)
    sender._send = service.send_audio
    give(sender, journal, speech(20, RATE, 160))
    await asyncio.sleep(0.1)

    assert service.audio == speech(40, RATE)
    assert len(service.reports) == 1


@virtual
async def test_flush_of_a_session_that_is_over_says_so() -> None:
    service = Service()
    service.is_ready = False
    sender, journal = sender_for(service)
    give(sender, journal, speech(20, RATE))

    with pytest.raises(NotConnected, match="the audio is kept"):
        await sender.flush()


def test_test_signal_has_no_two_equal_neighbours() -> None:
    samples = array.array("h", speech(1000, RATE))

    assert all(a != b for a, b in itertools.pairwise(samples))
