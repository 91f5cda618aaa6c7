"""A session is left before its vendor ends it, when nobody notices."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.core.continuity.test_reconnect import failing, lose
from tests.core.engine.fakes import calling, caps, kind, silence, speak, speech
from voxengine import VoiceEngineConfig
from voxengine.errors import ErrorCode, ProviderError, RateLimited
from voxengine.events import EventType
from voxengine.testing import leak_check, virtual

LIMITED = caps(session_limit_s=300.0)


def now() -> float:
    return asyncio.get_running_loop().time()


def switched(call: Any) -> list[tuple[str, int]]:
    return [(event.reason, round(event.timestamp)) for event in call.seen.of(EventType.PROVIDER_SWITCHED)]


@virtual
async def test_idle_session_is_replaced_a_minute_before_its_limit_again_and_again() -> None:
    async with leak_check():
        async with calling(kind(capabilities=LIMITED)) as call:
            await call.engine.send_text("Hello")
            call.provider().answers("Hi.")
            await asyncio.sleep(1000)

            assert switched(call) == [
                ("rollover", 240),
                ("rollover", 480),
                ("rollover", 720),
                ("rollover", 960),
            ]
            assert [item.text for item in call.provider().of("load_history")[0]] == ["Hello", "Hi."]
            assert {event.gap_ms for event in call.seen.of(EventType.PROVIDER_SWITCHED)} == {0}
    endings = call.seen.session_endings()
    assert endings == {epoch: ["connection_closed"] for epoch in range(1, 6)}
    reasons = [event.reason for event in call.seen.of(EventType.CONNECTION_CLOSED)]
    assert reasons == ["rollover"] * 4 + ["disconnect"]


@virtual
async def test_end_that_is_announced_before_the_session_is_in_force_is_kept_in_mind() -> None:
    async def connect(provider: Any, *_: Any) -> None:
        if len(cls.made) == 1:
            provider.emit_event(EventType.SESSION_EXPIRING, {"deadline_s": 30.0})

    cls = kind(behaviour={"connect": connect})
    async with calling(cls) as call:
        await asyncio.sleep(29)

        assert switched(call) == [("rollover", 15)]
        assert call.seen.of(EventType.CONNECTION_LOST) == []


@virtual
async def test_answer_is_waited_for() -> None:
    async with calling(kind(capabilities=LIMITED), deadlines={"progress_s": 100}) as call:
        await asyncio.sleep(230)
        await call.engine.send_text("Tell me")
        call.provider().starts()
        call.provider().writes("Once")
        await asyncio.sleep(30)
        assert switched(call) == []
        call.provider().completes()
        await asyncio.sleep(1)

        assert switched(call) == [("rollover", 260)]


@virtual
async def test_user_who_speaks_is_waited_for_until_a_pause() -> None:
    async with calling(kind(capabilities=LIMITED)) as call:
        await asyncio.sleep(230)
        call.provider().hears(0)
        await speak(call.engine, speech(30_000), paced=True)
        assert switched(call) == []
        await speak(call.engine, silence(500), paced=True)

        assert switched(call) == [("rollover", 260)]


@virtual
async def test_ten_seconds_before_the_end_nothing_is_waited_for_and_no_sample_is_lost() -> None:
    async with calling(kind(capabilities=LIMITED), journal_s=100) as call:
        await asyncio.sleep(238)
        call.provider().hears(0)
        await speak(call.engine, speech(60_000), paced=True)

        assert switched(call) == [("rollover", 290)]
        assert bytes(call.provider().audio) == speech(60_000)
        assert len(call.seen.of(EventType.SPEECH_STARTED)) == 1


@pytest.mark.parametrize("left_s", [20.0, None])
@virtual
async def test_vendor_that_announces_the_end_is_left_in_time(left_s: float | None) -> None:
    async with calling() as call:
        call.provider().emit_event(EventType.SESSION_EXPIRING, {"deadline_s": left_s, "reason": "limit"})
        await asyncio.sleep(left_s or 10.0)

        (event,) = call.seen.of(EventType.PROVIDER_SWITCHED)
        assert event.reason == "rollover"
        assert event.timestamp <= (left_s or 10.0) / 2 + 0.2


@virtual
async def test_failed_rollover_is_tried_again_while_the_session_lives() -> None:
    refused = ProviderError("no", code=ErrorCode.UNAVAILABLE)
    one = kind(behaviour={"connect": failing(refused, refused)}, capabilities=LIMITED)
    async with calling(one) as call:
        await asyncio.sleep(250)

        assert switched(call) == [("rollover", 244)]
        assert len(call.seen.of(EventType.ERROR_NETWORK)) == 2
        assert call.seen.of(EventType.CONNECTION_LOST) == []


@virtual
async def test_session_that_ends_while_the_next_is_opened_is_replaced_by_it() -> None:
    async def slowly() -> None:
        await asyncio.sleep(3)

    one = kind(behaviour={"connect": failing(then=slowly)}, capabilities=LIMITED)
    async with calling(one, reconnect={"budget_s": 20}) as call:
        await asyncio.sleep(241)
        lose(call.kinds["one"].made[0])
        assert call.seen.one(EventType.CONNECTION_LOST).will_reconnect
        await speak(call.engine, speech(200), paced=True)
        await asyncio.sleep(10)

        event = call.seen.one(EventType.PROVIDER_SWITCHED)
        assert (event.reason, event.gap_ms) == ("rollover", 2000)
        assert bytes(call.provider().audio) == speech(200)
        assert len(call.kinds["one"].made) == 2


@virtual
async def test_service_that_allows_one_session_at_a_time_is_closed_first() -> None:
    async with leak_check():
        one = kind(behaviour={"connect": failing(RateLimited("one at a time"))}, capabilities=LIMITED)
        async with calling(one, reconnect={"budget_s": 20}) as call:
            await call.engine.send_text("Hello")
            call.provider().answers("Hi.")
            await asyncio.sleep(250)

            event = call.seen.one(EventType.PROVIDER_SWITCHED)
            assert event.reason == "reconnect"
            closed = call.seen.one(EventType.CONNECTION_CLOSED)
            assert closed.reason == "rollover"
            assert closed.timestamp <= event.timestamp
            assert call.engine.is_connected
    assert {len(ends) for ends in call.seen.session_endings().values()} == {1}


@virtual
async def test_switch_within_a_service_that_allows_one_session_closes_that_first_at_a_pause() -> None:
    async with leak_check():
        one = kind(behaviour={"connect": failing(RateLimited("one at a time"))})
        async with calling(one, reconnect={"budget_s": 20}) as call:
            first = call.provider()
            await call.engine.send_text("Hello")
            first.starts()
            first.sounds(100)
            changed = VoiceEngineConfig(provider="one", voice="other")
            switching = asyncio.create_task(call.engine.switch_provider("one", changed))
            await asyncio.sleep(5)
            assert not switching.done()
            assert call.engine.is_connected
            first.writes("Hi.")
            first.completes()
            await speak(call.engine, speech(200))
            await switching

            assert call.engine.is_connected
            assert call.engine.config.voice == "other"
            assert call.seen.one(EventType.PROVIDER_SWITCHED).reason == "requested"
            assert call.seen.one(EventType.CONNECTION_CLOSED).reason == "switch"
            assert bytes(call.provider().audio) == speech(200)
    assert {len(ends) for ends in call.seen.session_endings().values()} == {1}


@virtual
async def test_switch_that_fails_after_making_room_goes_back_to_the_session_before() -> None:
    limited, broken = RateLimited("one at a time"), ProviderError("no", code=ErrorCode.UNAVAILABLE)
    async with leak_check():
        one = kind(behaviour={"connect": failing(limited, broken)})
        async with calling(one, voice="mine", reconnect={"budget_s": 20}) as call:
            with pytest.raises(ProviderError, match="no"):
                await call.engine.switch_provider("one", VoiceEngineConfig(provider="one", voice="other"))
            await asyncio.sleep(5)

            assert call.engine.is_connected
            assert call.engine.config.voice == "mine"


@virtual
async def test_service_that_says_when_to_come_again_keeps_the_session_in_force() -> None:
    one = kind(behaviour={"connect": failing(RateLimited("slow down", retry_after_s=7))})
    async with calling(one) as call:
        with pytest.raises(RateLimited):
            await call.engine.switch_provider("one", VoiceEngineConfig(provider="one"))

        assert call.engine.is_connected
        assert len(call.kinds["one"].made[0].of("disconnect")) == 0
