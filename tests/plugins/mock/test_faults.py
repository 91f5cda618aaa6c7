"""The faults of a script: how they are read, and what they do to a session in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.plugins.mock.support import Recorder, feed, session, silence, tool, voice_saying
from voxengine.config import Deadlines
from voxengine.errors import (
    AuthenticationFailed,
    ConfigError,
    ProviderError,
    RateLimited,
    RemoteProtocolError,
)
from voxengine.testing.clock import leak_check, run_virtual, virtual
from voxengine_mock import MockProvider, Script
from voxengine_mock.faults import Fault, Point, fault_from_text

READ: list[tuple[str, Fault]] = [
    (
        "429 at=handshake retry_after=2",
        Fault(at=Point("handshake"), do="http", status=429, retry_after_s=2.0),
    ),
    ("503", Fault(at=Point("handshake"), do="http", status=503)),
    ("quota times=always", Fault(at=Point("handshake"), do="quota", times=None)),
    (
        "close at=response:2:after_audio_ms=300 code=4001 reason='too bad'",
        Fault(at=Point("response", 2, after_audio_ms=300), do="close", close_code=4001, reason="too bad"),
    ),
    ("stall at=turn:* for=1.5", Fault(at=Point("turn", None), do="stall", for_s=1.5)),
    ("reset at=ready:after_ms=250 session=3", Fault(at=Point("ready", after_ms=250), do="reset", session=3)),
    (
        '{"do": "garbage", "at": "tool:1", "as": "binary", "n_messages": 2, "times": 4}',
        Fault(at=Point("tool"), do="garbage", as_binary=True, n_messages=2, times=4),
    ),
    (
        "expire at=ready deadline=30",
        Fault(at=Point("ready"), do="expire", deadline_s=30.0, close_code=1001, reason="session limit"),
    ),
]


@pytest.mark.parametrize(("text", "fault"), READ)
def test_a_line_says_a_fault(text: str, fault: Fault) -> None:
    assert fault_from_text(text) == fault


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"takes what goes wrong and where, as in"),
        ("429 at", r"--fault: 'at' is not KEY=VALUE"),
        ("429 when=handshake", r"--fault: when is not a key of the fault '429'"),
        ("close at='ready", r"takes what goes wrong and where"),
        ("{nonsense", r"begins like a JSON object and is none"),
        ('{"at": "ready"}', r"--fault: has no do; it takes"),
        ("429 retry_after=soon", r"--fault: retry_after_s is str"),
        (f"close at=turn reason={'x' * 124}", r"--fault: reason has 124 bytes in UTF-8; .* holds 123"),
        (f"close at=turn reason={'é' * 62}", r"--fault: reason has 124 bytes in UTF-8; .* holds 123"),
        (f"expire at=ready reason={'x' * 124}", r"--fault: reason has 124 bytes"),
        (r'{"do": "close", "at": "turn", "reason": "\ud800"}', r"--fault: reason holds half of a surrogate"),
    ],
)
def test_a_line_that_says_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Script().with_faults([text])


async def failed(*faults: Any, **config: Any) -> ProviderError:
    """Return what connecting raised."""
    async with leak_check():
        with pytest.raises(ProviderError) as caught:
            await MockProvider({"metadata": {"faults": list(faults)}, **config}).connect()
    return caught.value


HANDSHAKES: list[tuple[dict[str, Any], type[ProviderError], str, float | None]] = [
    ({"do": 401}, AuthenticationFailed, "authentication", None),
    ({"do": 403}, ProviderError, "permission", None),
    ({"do": 404}, ProviderError, "not_found", None),
    ({"do": 429, "retry_after_s": 2.5}, RateLimited, "rate_limit", 2.5),
    ({"do": "quota"}, ProviderError, "quota", None),
    ({"do": 503, "retry_after_s": 1}, ProviderError, "unavailable", 1.0),
    ({"do": "reset", "at": "handshake"}, ProviderError, "unavailable", None),
    ({"do": "garbage", "at": "handshake"}, RemoteProtocolError, "protocol", None),
    ({"do": "stall", "at": "handshake"}, ProviderError, "timeout", None),
]


@pytest.mark.parametrize(("fault", "kind", "code", "retry_after_s"), HANDSHAKES)
@virtual
async def test_a_handshake_fails_in_memory_as_on_a_socket(
    fault: dict[str, Any], kind: type[ProviderError], code: str, retry_after_s: float | None
) -> None:
    error = await failed(fault)

    assert type(error) is kind
    assert (error.code, error.retry_after_s) == (code, retry_after_s)


@virtual
async def test_a_fault_happens_as_often_as_it_is_told_to_over_all_sessions() -> None:
    faults = [{"do": 503, "times": 2}, {"do": 401, "session": 4}]
    outcomes = []
    for _ in range(5):
        try:
            async with session(faults=faults):
                outcomes.append("open")
        except ProviderError as error:
            outcomes.append(str(error.code))

    assert outcomes == ["unavailable", "unavailable", "open", "authentication", "open"]


@virtual
async def test_sessions_with_the_same_faults_have_each_a_delay_of_its_own() -> None:
    clock = asyncio.get_running_loop().time
    took: list[float] = []
    for handshake_ms in (3000, 0, 1000):
        began = clock()
        async with session(delays={"handshake_ms": handshake_ms}):
            took.append(clock() - began)

    assert took == pytest.approx([3.0, 0.0, 1.0])


async def noises(*seeds: int) -> list[str]:
    """What sessions with these seeds, one after the other, get that is no message."""
    wires: list[Any] = []
    for seed in seeds:
        faults = [{"do": "garbage", "at": "turn", "times": "always"}]
        provider = MockProvider({"metadata": {"faults": faults, "seed": seed}})
        provider.attach(None, lambda direction, wire, now: wires.append(wire))
        await provider.connect()
        await provider.send_text("hello")
        await asyncio.sleep(1)
        await provider.disconnect()
    return [wire for wire in wires if not wire.startswith("{")]


def test_sessions_with_the_same_faults_have_each_a_seed_of_its_own() -> None:
    changed = run_virtual(noises(1, 2))
    same = run_virtual(noises(1, 1))
    other = run_virtual(noises(2, 2))

    assert changed == [same[0], other[1]]
    assert same[1] != other[1]


@virtual
async def test_a_fault_without_end_happens_each_time() -> None:
    faults = [{"do": 503, "times": "always"}]

    codes = [(await failed(*faults)).code for _ in range(3)]

    assert codes == ["unavailable"] * 3


@virtual
async def test_a_delayed_handshake_still_succeeds() -> None:
    clock = asyncio.get_running_loop().time
    began = clock()

    async with session(faults=[{"do": "stall", "at": "handshake", "for_s": 3}]):
        assert clock() - began == pytest.approx(3.0)


@virtual
async def test_a_session_that_is_never_ready_runs_into_the_deadline() -> None:
    error = await failed({"do": "stall", "at": "ready"}, deadlines=Deadlines(ready_s=2))

    assert error.code == "timeout"


@virtual
async def test_an_error_in_place_of_ready_fails_the_connect() -> None:
    error = await failed({"do": "quota", "at": "ready"})

    assert (error.code, error.recoverable) == ("quota", False)


SAY = {"default": {"say": "one two three four", "duration_ms": 2000}}


async def talk_until(*faults: Any, ending: str, n: int = 1, texts: tuple[str, ...] = ("hello",)) -> Recorder:
    async with leak_check(), session(faults=list(faults), **SAY) as (provider, seen):
        for text in texts:
            await provider.send_text(text)
        await seen.wait(ending, n)
    return seen


@pytest.mark.parametrize(
    ("fault", "code", "close_code"),
    [
        ({"do": "close", "at": "turn", "code": 1011, "reason": "boom"}, "unavailable", 1011),
        ({"do": "close", "at": "response:1:after_audio_ms=300"}, "unavailable", 1011),
        ({"do": "reset", "at": "first_input"}, "connection_lost", 1006),
        ({"do": "oversized", "at": "response"}, "protocol", 1009),
        ({"do": 401, "at": "turn"}, "authentication", 3000),
        ({"do": 403, "at": "turn"}, "permission", 3003),
        ({"do": "close", "at": "ready:after_ms=900", "code": 4000}, "unknown", 4000),
    ],
)
@virtual
async def test_a_session_ends_once_and_says_why(fault: dict[str, Any], code: str, close_code: int) -> None:
    seen = await talk_until(fault, ending="connection_lost")

    (lost,) = seen.of("connection_lost")
    assert (lost.data["error"].code, lost.data["error"].close_code) == (code, close_code)


@virtual
async def test_a_close_in_mid_answer_comes_after_so_much_audio() -> None:
    seen = await talk_until({"do": "close", "at": "response:2:after_audio_ms=500"}, ending="connection_lost",
                            texts=("one", "two"))  # fmt: skip

    assert len(seen.audio()) == (2000 + 500) * 48
    assert len(seen.of("response_completed")) == 1


@virtual
async def test_a_stall_with_an_end_delivers_everything_late_and_in_order() -> None:
    seen = await talk_until(
        {"do": "stall", "at": "response:1:after_audio_ms=300", "for_s": 30}, ending="usage_updated"
    )
    undisturbed = await talk_until(ending="usage_updated")

    assert seen.audio() == undisturbed.audio()
    assert seen.types() == undisturbed.types()
    assert seen.events[-1].timestamp - seen.events[0].timestamp > 30


@virtual
async def test_a_stall_without_end_sends_nothing_more_and_the_session_can_be_left() -> None:
    async with (
        leak_check(),
        session(faults=[{"do": "stall", "at": "response:1:after_audio_ms=300"}], **SAY) as (
            provider,
            seen,
        ),
    ):
        await provider.send_text("hello")
        await asyncio.sleep(60)

    assert len(seen.audio()) == 300 * 48
    assert seen.of("response_completed", "connection_lost") == []


@virtual
async def test_garbage_is_reported_and_survived() -> None:
    fault = {"do": "garbage", "at": "turn", "n_messages": 3, "as": "binary"}

    seen = await talk_until(fault, ending="response_completed")

    errors = [e.data["error"] for e in seen.of("error_general")]
    assert [(type(error), error.recoverable) for error in errors] == [(RemoteProtocolError, True)] * 3


@virtual
async def test_an_error_in_place_of_an_answer_leaves_the_session_open() -> None:
    fault = {"do": 429, "at": "response:1", "retry_after_s": 4}

    seen = await talk_until(fault, ending="response_completed", texts=("one", "two"))

    (error,) = seen.of("error_general")
    assert isinstance(error.data["error"], RateLimited)
    assert error.data["error"].retry_after_s == 4
    assert error.data["recoverable"] is True
    assert len(seen.of("response_started")) == 1


@virtual
async def test_an_error_in_mid_answer_ends_it_early() -> None:
    fault = {"do": "error", "at": "response:1:after_audio_ms=500", "code": "content_filter", "message": "No."}

    seen = await talk_until(fault, ending="response_completed")

    assert seen.of("error_general")[0].data["error"].code == "content_filter"
    assert seen.of("response_completed")[0].data["status"] == "incomplete"
    assert len(seen.audio()) == 500 * 48


@virtual
async def test_a_session_limit_is_announced_and_kept() -> None:
    seen = await talk_until({"do": "expire", "at": "ready", "deadline_s": 20}, ending="connection_lost")

    (expiring,), (lost,) = seen.of("session_expiring"), seen.of("connection_lost")
    assert expiring.data["deadline_s"] == 20
    assert lost.timestamp - expiring.timestamp == pytest.approx(20, abs=0.01)
    assert lost.data["error"].code == "session_expired"
    assert lost.data["error"].recoverable


@virtual
async def test_a_slow_reader_holds_the_sender_back_and_then_no_more() -> None:
    fault = {"do": "slow_reader", "at": "ready", "bytes_per_s": 64_000, "for_s": 60}
    clock = asyncio.get_running_loop().time

    async with session({"turn_detection": "manual"}, faults=[fault]) as (provider, _):
        began = clock()
        for _ in range(60):
            await provider.send_audio(silence(1000))
        held_back_s = clock() - began
        await asyncio.sleep(60)
        began = clock()
        await provider.send_audio(silence(1000))

        assert held_back_s > 10
        assert clock() - began < 1


@virtual
async def test_points_within_input_and_around_tools_are_reached() -> None:
    faults = [
        {"do": "error", "at": "input:after_audio_ms=1000", "code": "unknown", "message": "heard a second"},
        {"do": "error", "at": "tool:2", "code": "unavailable", "message": "no second call"},
        {"do": "error", "at": "tool_result:1", "code": "unavailable", "message": "result lost"},
        {"do": "error", "at": "configure", "code": "invalid_request", "message": "not now"},
    ]
    responses = {"look": {"calls": [{"tool": "t"}], "then": "done"}}

    async with session({"tools": [tool("t")]}, faults=faults, responses=responses) as (provider, seen):
        await feed(provider, silence(990))
        assert seen.of("error_general") == []
        await feed(provider, silence(20))
        await provider.send_text("look")
        call = await seen.wait("function_call_invoked")
        await provider.send_tool_result(call.data["call_id"], "x")
        await provider.send_text("look")
        await seen.wait("error_general", 3)
        await provider.configure_session({"voice": "bruno"})
        await seen.wait("error_general", 4)

    messages = [str(e.data["error"]) for e in seen.of("error_general")]
    assert messages == [f"mock: {f['message']}" for f in (faults[0], faults[2], faults[1], faults[3])]
    assert seen.of("session_updated") == []
    assert len(seen.of("function_call_invoked")) == 1


@virtual
async def test_the_first_of_something_is_meant_when_none_is_named_and_a_star_means_each() -> None:
    first = await talk_until({"do": 503, "at": "turn", "times": "always"}, ending="response_completed",
                             texts=("one", "two", "three"), n=2)  # fmt: skip
    each = await talk_until({"do": 503, "at": "turn:*", "times": "always"}, ending="error_general",
                            texts=("one", "two", "three"), n=3)  # fmt: skip

    assert len(first.of("error_general")) == 1
    assert each.of("response_started") == []


@virtual
async def test_spoken_turns_count_like_written_ones() -> None:
    async with session(faults=[{"do": 503, "at": "turn:2"}], **SAY) as (provider, seen):
        await provider.send_text("one")
        await seen.wait("response_completed")
        await feed(provider, await voice_saying("hello") + silence(600))
        error = await seen.wait("error_general")

    assert error.data["error"].code == "unavailable"


@virtual
async def test_a_session_full_of_faults_and_jitter_repeats_to_the_last_event() -> None:
    faults = [
        {"do": "garbage", "at": "turn:1", "n_messages": 2},
        {"do": "stall", "at": "response:1:after_audio_ms=300", "for_s": 1},
        {"do": 429, "at": "response:2"},
        {"do": "expire", "at": "ready", "deadline_s": 9},
    ]

    async def once(seed: int) -> list[tuple[float, str]]:
        began = asyncio.get_running_loop().time()
        # A fault happens once in a service; times far above make both sessions equal.
        lasting = [{**fault, "times": 1000} for fault in faults]
        async with session(faults=lasting, jitter_ms=80, seed=seed, **SAY) as (provider, seen):
            for text in ("one", "two", "three"):
                await provider.send_text(text)
            await seen.wait("connection_lost")
        return [(round(e.timestamp - began, 6), str(e.type)) for e in seen.events]

    first, again, other = await once(3), await once(3), await once(4)

    assert first == again
    assert first != other
