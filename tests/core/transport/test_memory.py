"""Every fault that the pair in memory can act out, on virtual time, and that runs repeat."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxengine.codec import Wire
from voxengine.errors import (
    AuthenticationFailed,
    ConnectionLost,
    ErrorCode,
    NotConnected,
    ProviderError,
    RateLimited,
    RemoteProtocolError,
)
from voxengine.testing import leak_check, run_virtual, virtual
from voxengine.transport import MemoryListener, Transport, faults, handshake_response, memory_pair
from voxengine.transport.faults import (
    AfterBytes,
    AfterMessages,
    AfterSeconds,
    AtTime,
    Bandwidth,
    ClosedBy,
    DelayHandshake,
    Drop,
    Garbage,
    HalfOpen,
    HangHandshake,
    Latency,
    Oversized,
    RefuseConnection,
    RejectHandshake,
    Reset,
    Stall,
    StreamFault,
    When,
)
from voxengine.transport.memory import MemoryOptions, MemoryTransport


def now() -> float:
    return asyncio.get_running_loop().time()


async def arrivals(transport: Transport) -> tuple[list[tuple[float, Wire]], ProviderError | None]:
    """Everything that arrives within an hour, with its time, and the loss if there was one."""
    got: list[tuple[float, Wire]] = []
    try:
        async with asyncio.timeout(3600):
            while True:
                message = await transport.recv()
                got.append((now(), message))
    except TimeoutError:
        return got, None
    except ProviderError as exc:
        return got, exc


# The line


@virtual
async def test_latency_delays_every_message_and_keeps_their_order() -> None:
    client, server = memory_pair(faults=[Latency(0.2, jitter_s=0.5, direction="up")])
    for i in range(50):
        client.send_nowait(f"{i}")

    got, _ = await arrivals(server)

    assert [message for _, message in got] == [f"{i}" for i in range(50)]
    times = [time for time, _ in got]
    assert times == sorted(times)
    assert 0.2 <= times[0] <= times[-1] <= 0.7


@virtual
async def test_bandwidth_spreads_messages_over_time_and_pauses_the_sender() -> None:
    client, server = memory_pair(
        faults=[Bandwidth(1000, direction="up")], options=MemoryOptions(write_limit_bytes=1000)
    )

    async def speak() -> None:
        for _ in range(10):
            await client.send(b"x" * 500)
            assert client.n_buffered_bytes <= 1500

    reading = asyncio.ensure_future(arrivals(server))
    await speak()
    sent_at = now()
    got, _ = await reading

    assert [time for time, _ in got] == pytest.approx([0.5 * i for i in range(1, 11)])
    assert sent_at > 2


@virtual
async def test_line_with_latency_holds_a_bounded_amount() -> None:
    client, server = memory_pair(faults=[Latency(60, direction="up")])
    n = 0

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(30):
            while True:
                await client.send(b"x" * 2**16)
                n += 1

    assert 2**20 <= n * 2**16 <= 2**20 + 3 * 2**16
    assert not server.closed


# Silence


@pytest.mark.parametrize("direction", ["up", "down"])
@virtual
async def test_stall_withholds_one_direction_and_looks_healthy(direction: faults.Direction) -> None:
    client, server = memory_pair(faults=[Stall(direction=direction, at=AfterMessages(1))])
    for end in (client, server):
        end.send_nowait("1")
        end.send_nowait("2")

    (up, up_loss), (down, down_loss) = await asyncio.gather(arrivals(server), arrivals(client))

    assert len(up) == (1 if direction == "up" else 2)
    assert len(down) == (1 if direction == "down" else 2)
    assert up_loss is down_loss is None
    assert not client.closed


@virtual
async def test_stall_that_ends_delivers_what_was_withheld() -> None:
    client, server = memory_pair(faults=[Stall(duration_s=7.0)])
    server.send_nowait("a")
    server.send_nowait("b")

    got, _ = await arrivals(client)

    assert got == [(7.0, "a"), (7.0, "b")]


@virtual
async def test_stall_fills_the_senders_buffer_and_then_pauses_it() -> None:
    client, _ = memory_pair(faults=[Stall(direction="up")], options=MemoryOptions(write_limit_bytes=1000))

    n = 0
    while client.send_nowait(b"x" * 100):
        n += 1

    assert n == 11
    assert client.paused


@virtual
async def test_half_open_swallows_sends_until_a_ping_goes_unanswered() -> None:
    client, server = memory_pair()
    client.send_nowait("lost")
    memory = client
    memory._pair.fault(HalfOpen())
    for _ in range(100):
        assert client.send_nowait(b"x" * 10_000)
    server.send_nowait("lost too")

    got, loss = await arrivals(client)

    assert got == []
    assert now() == pytest.approx(10.0)
    assert isinstance(loss, ConnectionLost)
    assert (loss.close_code, loss.recoverable) == (1006, True)
    assert "stopped answering: nothing arrived for 10 s" in str(loss)


@virtual
async def test_half_open_without_pings_is_never_noticed_and_close_meets_its_deadline() -> None:
    async with leak_check():
        pair = memory_pair(options=MemoryOptions(ping_interval_s=None))
        pair.fault(HalfOpen())
        _, loss = await arrivals(pair.client)
        before = now()

        await pair.client.close()

        assert loss is None
        assert now() - before == pytest.approx(2.0)


# Endings


@pytest.mark.parametrize(
    ("trigger", "n_arrived"),
    [(AfterMessages(3), 3), (AfterBytes(25), 3), (AfterMessages(0), 0), (When(lambda m: "4" in str(m)), 4)],
)
@virtual
async def test_reset_ends_both_sides_at_its_trigger(trigger: faults.Trigger, n_arrived: int) -> None:
    pair = memory_pair(faults=[Reset(at=trigger)])
    server_loss: ProviderError | None = None
    for i in range(8):
        try:
            pair.server.send_nowait(f"message {i}")
        except ConnectionLost as exc:
            server_loss = exc

    got, loss = await arrivals(pair.client)
    if server_loss is None:
        _, server_loss = await arrivals(pair.server)

    assert len(got) == n_arrived
    assert isinstance(loss, ConnectionLost)
    assert isinstance(server_loss, ConnectionLost)
    assert loss.close_code == server_loss.close_code == 1006


@pytest.mark.parametrize("trigger", [AfterSeconds(5), AtTime(15.0)])
@virtual
async def test_timed_faults_take_hold_on_the_loops_clock(trigger: faults.Trigger) -> None:
    await asyncio.sleep(10)
    client, _ = memory_pair(faults=[Reset(at=trigger)])

    _, loss = await arrivals(client)

    assert loss is not None
    assert now() == pytest.approx(15.0)


@virtual
async def test_close_by_a_side_arrives_behind_its_messages() -> None:
    pair = memory_pair(faults=[Latency(1.0)])
    pair.server.send_nowait("last words")
    pair.fault(ClosedBy(1013, "overloaded"))

    got, loss = await arrivals(pair.client)

    assert got == [(1.0, "last words")]
    assert loss is not None
    assert (loss.close_code, loss.code) == (1013, ErrorCode.UNAVAILABLE)
    with pytest.raises(NotConnected):
        pair.server.send_nowait("x")


@virtual
async def test_close_of_an_end_whose_peer_never_hears_it_breaks_the_peer_at_the_deadline() -> None:
    pair = memory_pair(faults=[Stall(direction="up")])

    await pair.client.close()
    _, loss = await arrivals(pair.server)

    assert now() == pytest.approx(2.0)
    assert loss is not None
    assert loss.close_code == 1006


@virtual
async def test_both_ends_may_close_at_the_same_time() -> None:
    async with leak_check():
        client, server = memory_pair()

        await asyncio.gather(client.close(4000), server.close(4001))

        assert now() == 0
        assert (client.close_code, server.close_code) == (4000, 4001)


# Bad data


@virtual
async def test_garbage_replaces_so_many_messages_and_repeats_with_its_seed() -> None:
    async def run(seed: int) -> list[Wire]:
        pair = memory_pair(faults=[Garbage(2, at=AfterMessages(1))], options=MemoryOptions(seed=seed))
        for _ in range(4):
            pair.server.send_nowait("good message")
        got, _ = await arrivals(pair.client)
        return [message for _, message in got]

    first, again, other = await run(1), await run(1), await run(2)

    assert first == again != other
    assert (first[0], first[3]) == ("good message", "good message")
    assert all(isinstance(message, bytes) and len(message) == 12 for message in first[1:3])


@virtual
async def test_garbage_can_be_text() -> None:
    pair = memory_pair(faults=[Garbage(as_text=True)])
    pair.server.send_nowait('{"type":"x"}')

    got, _ = await arrivals(pair.client)

    assert isinstance(got[0][1], str)
    assert len(got[0][1]) == 12
    assert got[0][1] != '{"type":"x"}'


@virtual
async def test_oversized_message_is_the_peers_violation_and_tells_it_1009() -> None:
    pair = memory_pair(faults=[Oversized(at=AfterMessages(1))])
    pair.server.send_nowait("a")
    pair.server.send_nowait("b")

    got, loss = await arrivals(pair.client)
    _, told = await arrivals(pair.server)

    assert [message for _, message in got] == ["a"]
    assert isinstance(loss, RemoteProtocolError)
    assert told is not None
    assert loss.close_code == told.close_code == 1009


@virtual
async def test_dropped_messages_are_the_only_ones_missing() -> None:
    pair = memory_pair(faults=[Drop(2, at=When(lambda message: message == "2"))])
    for i in range(6):
        pair.server.send_nowait(f"{i}")

    got, _ = await arrivals(pair.client)

    assert [message for _, message in got] == ["0", "1", "4", "5"]


@virtual
async def test_faults_on_command_count_from_when_they_are_given() -> None:
    pair = memory_pair()
    pair.server.send_nowait("0")
    await pair.client.recv()
    pair.fault(Drop(at=AfterMessages(1)))
    for i in range(1, 4):
        pair.server.send_nowait(f"{i}")

    got, _ = await arrivals(pair.client)

    assert [message for _, message in got] == ["1", "3"]


# Laws


steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 5000)),
        st.tuples(st.just("wait"), st.floats(0, 3)),
        st.tuples(
            st.just("fault"),
            st.one_of(
                st.builds(Latency, st.floats(0, 2), st.floats(0, 2)),
                st.builds(Bandwidth, st.floats(100, 1e6)),
                st.builds(Stall, st.floats(0.1, 5)),
            ),
        ),
    ),
    max_size=25,
)


@given(steps=steps)
def test_without_loss_every_message_arrives_once_in_order_and_runs_repeat(
    steps: list[tuple[str, Any]],
) -> None:
    async def run() -> tuple[int, list[tuple[float, Wire]]]:
        pair = memory_pair(options=MemoryOptions(write_limit_bytes=4000, seed=3))
        reading = asyncio.ensure_future(arrivals(pair.client))
        n = 0
        for what, value in steps:
            if what == "send":
                await pair.server.send(f"{n}".ljust(value))
                n += 1
            elif what == "wait":
                await asyncio.sleep(value)
            else:
                pair.fault(value)
        got, _ = await reading
        return n, got

    n, got = run_virtual(run())
    again = run_virtual(run())

    assert [int(message) for _, message in got] == list(range(n))
    assert again == (n, got)


@given(
    fault=st.one_of(
        st.builds(Reset, at=st.builds(AfterMessages, st.integers(1, 20))),
        st.builds(ClosedBy, at=st.builds(AfterMessages, st.integers(1, 20))),
        st.builds(Stall, at=st.builds(AfterBytes, st.integers(1, 200))),
        st.builds(HalfOpen, at=st.builds(AfterSeconds, st.floats(0, 10))),
    )
)
def test_a_loss_leaves_a_prefix(fault: StreamFault) -> None:
    async def run() -> list[Wire]:
        pair = memory_pair(faults=[Latency(0.5, jitter_s=1.0), fault])

        async def speak() -> None:
            try:
                for i in range(30):
                    await pair.server.send(f"{i}")
                    await asyncio.sleep(0.3)
            except (ConnectionLost, NotConnected):
                pass

        speaking = asyncio.ensure_future(speak())
        got, _ = await arrivals(pair.client)
        await speaking
        return [message for _, message in got]

    got = run_virtual(run())

    assert got == [f"{i}" for i in range(len(got))]


# The listener


@pytest.mark.parametrize(
    ("fault", "kind", "code", "recoverable"),
    [
        (RejectHandshake(401), AuthenticationFailed, ErrorCode.AUTHENTICATION, False),
        (RejectHandshake(403), ProviderError, ErrorCode.PERMISSION, False),
        (RejectHandshake(429, {"Retry-After": "3"}), RateLimited, ErrorCode.RATE_LIMIT, True),
        (RejectHandshake(503), ProviderError, ErrorCode.UNAVAILABLE, True),
        (RefuseConnection(), ProviderError, ErrorCode.UNAVAILABLE, True),
        (HangHandshake(), ProviderError, ErrorCode.TIMEOUT, True),
        (DelayHandshake(11), ProviderError, ErrorCode.TIMEOUT, True),
    ],
)
@virtual
async def test_connect_fault_reads_like_the_same_on_a_network(
    fault: faults.ConnectFault, kind: type[ProviderError], code: ErrorCode, recoverable: bool
) -> None:
    listener = MemoryListener()
    listener.fail_connect(fault)

    async with leak_check():
        with pytest.raises(ProviderError, match="acme") as caught:
            await listener.connect("wss://h.example/p?key=sk-secret-0", provider="acme")
        after_the_fault = await listener.connect(provider="acme")

    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.recoverable) == (code, recoverable)
    assert "sk-secret" not in str(caught.value)
    assert not after_the_fault.closed
    assert now() == pytest.approx(10.0 if code == ErrorCode.TIMEOUT else 0.0)


@virtual
async def test_rejection_carries_wait_and_body() -> None:
    listener = MemoryListener()
    listener.fail_connect(RejectHandshake(429, {"Retry-After": "3"}, b'{"code":"slow"}'))

    with pytest.raises(RateLimited) as caught:
        await listener.connect()

    response = handshake_response(caught.value)
    assert (caught.value.retry_after_s, caught.value.vendor_code) == (3.0, "slow")
    assert response is not None
    assert response.body == b'{"code":"slow"}'


@virtual
async def test_faults_at_connect_are_met_in_order_and_as_often_as_said() -> None:
    listener = MemoryListener()
    listener.fail_connect(RejectHandshake(503), n_times=2)
    listener.fail_connect(RejectHandshake(401))
    codes = []

    for _ in range(4):
        try:
            await listener.connect()
            codes.append("open")
        except ProviderError as exc:
            codes.append(exc.code)

    assert codes == ["unavailable", "unavailable", "authentication", "open"]
    assert listener.n_attempts == 4


@virtual
async def test_handler_serves_each_connection_with_the_listeners_faults() -> None:
    async def echo(end: MemoryTransport) -> None:
        async for message in end:
            await end.send(message)

    async with leak_check():
        listener = MemoryListener(echo, faults=[Latency(1.5)])
        clients = [await listener.connect(headers={"k": f"{i}"}) for i in range(3)]
        for i, client in enumerate(clients):
            await client.send(f"{i}")
        echoes = [await client.recv() for client in clients]
        assert listener.last_headers == {"k": "2"}
        assert len(listener.pairs) == 3
        await clients[0].close()
        await listener.close()

    assert echoes == ["0", "1", "2"]
    assert now() == pytest.approx(1.5, abs=0.1)
    with pytest.raises(ProviderError):
        await listener.connect()


@virtual
async def test_handlers_failure_is_raised_at_close_and_not_lost() -> None:
    async def fail(end: MemoryTransport) -> None:
        assert await end.recv() == "expected"

    listener = MemoryListener(fail)
    client = await listener.connect()
    await client.send("something else")
    with pytest.raises(ConnectionLost):
        await client.recv()

    with pytest.raises(AssertionError):
        await listener.close()


@pytest.mark.parametrize(
    "make",
    [lambda: Stall(duration_s=0), lambda: Bandwidth(0), lambda: Latency(-1), lambda: AfterMessages(-1)],
)
def test_fault_without_sense_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError):
        make()
