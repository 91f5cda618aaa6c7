"""How the next session is given what waits: at the vendor's pace, turn by turn, live audio behind it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.continuity.test_reconnect import BUDGET, BY_HAND, failing, lose
from tests.core.engine.fakes import RATE, calling, caps, kind, silence, speak, speech, turns
from voxengine import VoiceEngineConfig
from voxengine.capabilities import UNSUPPORTED
from voxengine.errors import ErrorCode, ProviderError
from voxengine.events import EventType
from voxengine.journal import Journal
from voxengine.testing import run_virtual, virtual


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("speed", [2.0, 4.0])
@virtual
async def test_audio_of_the_past_goes_no_faster_than_the_vendor_wants(speed: float) -> None:
    one = kind(capabilities=caps(replay_speed=speed))
    async with calling(one, reconnect=BUDGET) as call:
        await speak(call.engine, speech(4000))
        call.provider().hears(0)
        lose(call.provider())
        await asyncio.sleep(1)
        assert len(call.provider().audio) / 2 / RATE == pytest.approx(speed, abs=0.1)
        await asyncio.sleep(4 / speed)

        assert bytes(call.provider().audio) == speech(4000)


@virtual
async def test_nobody_waits_for_the_past_to_be_sent() -> None:
    one = kind(capabilities=caps(replay_speed=1.5))
    async with calling(one, reconnect=BUDGET) as call:
        await speak(call.engine, speech(4000))
        call.provider().hears(0)
        lose(call.provider())
        await turns()
        before = now()
        await speak(call.engine, speech(1000, first=4 * RATE), paced=True)

        assert now() - before == pytest.approx(1)
        await asyncio.sleep(10)
        assert bytes(call.provider().audio) == speech(5000)


@virtual
async def test_vendor_that_cannot_catch_up_is_spared_the_silence_and_gets_all_of_the_speech() -> None:
    one = kind(capabilities=caps(replay_speed=1.0))
    pause = silence(5000)
    async with calling(one, reconnect=BUDGET) as call:
        await speak(call.engine, speech(1000) + pause + speech(1000, first=RATE))
        call.provider().hears(0)
        lose(call.provider())
        await asyncio.sleep(5)

        session = call.engine.session
        heard = bytes(call.provider().audio)
        assert session is not None
        assert session.sender is not None
        assert heard.startswith(speech(1000))
        assert heard.endswith(speech(1000, first=RATE))
        assert session.sender.left_out_frames > 3 * RATE
        assert len(heard) // 2 + session.sender.left_out_frames == 7 * RATE


@given(st.integers(1, 40), st.integers(0, 40), st.integers(0, 30), st.sampled_from([None, 3.0]))
def test_end_of_the_turn_is_told_between_the_turn_and_what_follows(
    n_turn: int, n_gap: int, n_next: int, speed: float | None
) -> None:
    async def play() -> None:
        refused = ProviderError("no", code=ErrorCode.UNAVAILABLE)
        one = kind(
            behaviour={"connect": failing(refused)},
            capabilities=BY_HAND.evolve(replay_speed=speed),
        )
        first, second = speech(n_turn * 20), speech(n_next * 20, first=n_turn * RATE // 50)
        async with calling(one, reconnect=BUDGET, turn_detection="manual") as call:
            await speak(call.engine, first)
            lose(call.provider())
            await call.engine.end_turn()
            await speak(call.engine, silence(n_gap * 20) + second)
            await asyncio.sleep(20)

            provider = call.provider()
            hooks = [hook for hook, _ in provider.calls]
            n_before = sum(
                len(args) for hook, args in provider.calls[: hooks.index("end_turn")] if hook == "send_audio"
            )
            assert bytes(provider.audio) == first + silence(n_gap * 20) + second
            assert n_before == len(first)
            assert provider.of("end_turn") == [True]

    run_virtual(play())


@virtual
async def test_vendor_that_takes_no_orders_hears_the_silence_in_which_a_turn_ends() -> None:
    deaf_to_orders = caps(client_turn_detection=UNSUPPORTED, endpointing_silence_ms=400)
    async with calling(kind(capabilities=deaf_to_orders), reconnect=BUDGET) as call:
        await speak(call.engine, speech(400), paced=True)
        call.provider().hears(0, 400)
        lose(call.provider())
        await asyncio.sleep(2)

        heard = bytes(call.provider().audio)
        assert heard.startswith(speech(400))
        assert not any(heard[len(speech(400)) :])
        assert len(heard) >= len(speech(400)) + len(silence(400))


@virtual
async def test_answer_to_the_first_of_two_turns_leaves_the_second_to_be_answered() -> None:
    async with calling(reconnect=BUDGET, turn_detection="manual") as call:
        await speak(call.engine, speech(400), paced=True)
        await call.engine.end_turn()
        await speak(call.engine, speech(400, first=9600), paced=True)
        await call.engine.end_turn()
        call.provider().answers("First.")
        lose(call.provider())
        await turns(60)

        assert bytes(call.provider().audio) == speech(400, first=9600)
        assert call.provider().of("end_turn") == [True]


@virtual
async def test_silence_of_the_gap_is_not_sent() -> None:
    refused = ProviderError("no", code=ErrorCode.UNAVAILABLE)
    one = kind(behaviour={"connect": failing(refused, refused, refused)})
    async with calling(one, reconnect=BUDGET) as call:
        lose(call.provider())
        await speak(call.engine, silence(5000), paced=True)
        await speak(call.engine, speech(100), paced=True)

        heard = bytes(call.provider().audio)
        assert heard.endswith(speech(100))
        gap_ms = call.seen.one(EventType.PROVIDER_SWITCHED).gap_ms
        assert len(heard) <= len(silence(5100 - gap_ms + 320))


@virtual
async def test_unlike_provider_gets_the_open_turn_and_its_end_by_the_clients_ear() -> None:
    refused = ProviderError("no", code=ErrorCode.UNAVAILABLE)
    one = kind(behaviour={"connect": failing(then=refused)})
    two = kind(capabilities=caps(server_turn_detection=UNSUPPORTED))
    fallback = VoiceEngineConfig(provider="two")
    async with calling(one, others={"two": two}, reconnect=BUDGET, fallbacks=[fallback]) as call:
        await speak(call.engine, speech(400), paced=True)
        call.provider().hears(0)
        lose(call.provider())
        await speak(call.engine, speech(200, first=9600) + silence(700), paced=True)

        provider: Any = call.provider("two")
        assert bytes(provider.audio).startswith(speech(600))
        assert provider.of("end_turn") == [True]
        assert len(call.seen.of(EventType.SPEECH_ENDED)) == 1


@given(st.integers(0, 60), st.integers(1, 30))
def test_first_sound_is_found_with_what_comes_before_it(n_quiet: int, n_loud: int) -> None:
    from tests.core.engine.fakes import at_rate

    journal = Journal(at_rate(RATE).input_formats[0], 60)
    journal.append(silence(n_quiet * 20) + speech(n_loud * 20), 0)

    at = journal.first_sound(0)

    loud_at = n_quiet * RATE // 50
    assert max(loud_at - RATE // 2, 0) <= at <= loud_at
