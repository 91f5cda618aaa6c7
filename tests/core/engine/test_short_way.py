"""What follows the first output of an answer takes a short way to the application: nothing else may differ."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.engine.fakes import RATE, Call, calling, caps, kind, speak, speech
from voxengine.capabilities import UNSUPPORTED
from voxengine.errors import ProviderError
from voxengine.events import EventType, LazyAudio
from voxengine.history import Heard
from voxengine.lanes import Lane, LaneMaker
from voxengine.testing import run_virtual, virtual

Step = tuple[Any, ...]

ids = st.sampled_from(["r1", "r2"])
items = st.sampled_from(["i1", "i2"])
steps = st.one_of(
    st.tuples(st.just("start"), ids),
    st.tuples(st.just("audio"), ids, items, st.integers(0, 5), st.booleans()),
    st.tuples(st.just("audio"), ids, items, st.integers(0, 5), st.booleans()),
    st.tuples(st.just("audio at"), ids, items, st.sampled_from([8000, RATE])),
    st.tuples(st.just("word"), ids, items, st.sampled_from(["so ", "on ", ""])),
    st.tuples(st.just("word"), ids, items, st.sampled_from(["so ", "on ", ""])),
    st.tuples(st.just("text"), ids, items, st.sampled_from(["so", "so on"]), st.booleans()),
    st.tuples(st.just("complete"), ids),
    st.tuples(st.just("speech")),
    st.tuples(st.just("interrupt")),
    st.tuples(st.just("ask")),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.03, 0.7])),
    st.tuples(st.just("delete")),
)


def say(provider: Any, name: str, *args: Any) -> None:
    if name == "start":
        provider.starts(args[0])
    elif name == "audio":
        response_id, item_id, n_bytes, is_lazy = args
        data = bytes(range(n_bytes * 50 + n_bytes % 2))
        audio = LazyAudio(data, bytes, len(data)) if is_lazy else data
        provider.sounds(0, response_id, item_id, audio_data=audio)
    elif name == "audio at":
        provider.sounds(20, args[0], args[1], sample_rate=args[2])
    elif name == "word":
        words = {"response_id": args[0], "item_id": args[1], "delta": args[2], "is_partial": True}
        provider.emit_event(EventType.TEXT_OUTPUT, words)
    elif name == "text":
        provider.writes(args[2], args[0], args[1], is_partial=args[3])
    elif name == "complete":
        provider.completes(args[0])
    elif name == "speech":
        provider.hears(100, 200)


async def play(script: list[Step]) -> list[Any]:
    async with calling() as call:
        for name, *args in script:
            if name == "interrupt":
                call.engine.interrupt()
            elif name == "ask":
                await call.engine.send_text("And?")
            elif name == "wait":
                await asyncio.sleep(args[0])
            elif name == "delete":
                for item in list(call.engine.history)[-1:]:
                    call.engine.history.delete(item.id)
            else:
                say(call.provider(), name, *args)
        await asyncio.sleep(1)
        return observed(call)


def observed(call: Call) -> list[Any]:
    """All that an application can see."""
    events = [(event.type, event.timestamp, dict(event.data)) for event in call.seen.events]
    heard = call.provider().of("interrupt")
    return [events, call.engine.history.items, call.engine.metrics.to_dict(), heard]


@given(st.lists(steps, max_size=30))
@settings(max_examples=150, deadline=None)
def test_short_way_shows_what_the_long_way_shows(script: list[Step]) -> None:
    script = [("start", "r1"), *script]
    short = run_virtual(play(script))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LaneMaker, "open", lambda *_: None)
        long = run_virtual(play(script))

    assert short == long


@virtual
async def test_most_of_an_answer_takes_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[bool] = []
    take = Lane.take

    def noted(lane: Lane, event_type: EventType, data: dict[str, Any]) -> bool:
        taken.append(take(lane, event_type, data))
        return taken[-1]

    monkeypatch.setattr(Lane, "take", noted)
    async with calling() as call:
        await call.engine.send_text("Go on.")
        provider = call.provider()
        provider.starts()
        for i in range(50):
            if i % 2 == 0:
                say(provider, "word", "r1", "i1", "word ")
            say(provider, "audio", "r1", "i1", 2, True)

    assert sum(taken) >= 72  # Of 75: the first word and the first sound are measured.


@virtual
async def test_fault_on_the_short_way_is_the_providers_and_does_not_stop_its_reader() -> None:
    def fail(_: bytes) -> bytes:
        raise RuntimeError("no such encoding")

    async with calling() as call:
        provider = call.provider()
        provider.starts()
        provider.sounds(20)
        provider.sounds(0, audio_data=LazyAudio(b"", fail))
        provider.sounds(20)

        assert len(call.seen.of(EventType.AUDIO_OUTPUT_CHUNK)) == 2
        assert len(call.seen.of(EventType.ERROR_GENERAL)) == 1


# Telling the provider at once


def quick(answer: Callable[[Any, Heard | None], bool]) -> Any:
    def try_interrupt(self: Any, heard: Heard | None) -> bool:
        self.calls.append(("try_interrupt", heard))
        return answer(self, heard)

    return kind(try_interrupt=try_interrupt)


@virtual
async def test_provider_that_can_is_told_before_its_next_message_is_read() -> None:
    async with calling(quick(lambda *_: True)) as call:
        provider = call.provider()
        provider.starts("r1")
        provider.sounds(5000, "r1")
        await asyncio.sleep(1)

        provider.hears(1000)
        n_told = len(provider.of("try_interrupt"))
        provider.starts("r2")
        await asyncio.sleep(1)

        assert n_told == 1
        assert provider.of("try_interrupt")[0].item_played_ms == 1000
        assert provider.of("interrupt") == []


@virtual
async def test_provider_that_cannot_now_is_told_by_the_hook() -> None:
    async with calling(quick(lambda *_: False)) as call:
        call.provider().starts()
        call.provider().sounds(500)
        await call.engine.interrupt()

        assert len(call.provider().of("interrupt")) == 1


@virtual
async def test_failure_to_tell_at_once_is_an_event_and_no_exception() -> None:
    def fail(*_: object) -> bool:
        raise OSError("gone")

    async with calling(quick(fail)) as call:
        call.provider().starts()
        call.provider().sounds(500)
        heard = await call.engine.interrupt()

        assert heard is not None
        assert call.provider().of("interrupt") == []
        (event,) = call.seen.of(EventType.ERROR_NETWORK)
        assert isinstance(event.error, ProviderError)


@virtual
async def test_provider_without_cancel_is_not_told() -> None:

    one = quick(lambda *_: True)
    one.capabilities = caps(cancel=UNSUPPORTED)
    async with calling(one) as call:
        call.provider().starts()
        call.provider().sounds(500)
        await call.engine.interrupt()

        assert call.provider().of("try_interrupt") == []


@virtual
async def test_answer_is_silent_before_the_users_turn_is_filed() -> None:
    async with calling() as call:
        await speak(call.engine, speech(100))
        call.provider().starts()
        call.provider().sounds(5000)
        await asyncio.sleep(1)
        call.provider().hears(1000)

        types = call.seen.types()
        assert types.index("interrupted") < types.index("speech_started")
