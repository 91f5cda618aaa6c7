"""What every transport promises, over a loopback socket and in memory."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from tests.core.transport.ends import Kind, every_kind
from voxengine.codec import Wire
from voxengine.errors import (
    ConnectionLost,
    ErrorCode,
    LocalProtocolError,
    NotConnected,
    RemoteProtocolError,
    UsageError,
)
from voxengine.testing import leak_check, virtual
from voxengine.transport import Transport

pytestmark = every_kind


@virtual
async def test_text_and_binary_arrive_unchanged_in_both_directions(kind: Kind) -> None:
    sent: list[Wire] = ["", "hé", b"", b"\x00\xff", "x" * 125, "y" * 126, b"z" * 65535, b"w" * 65536]

    async with kind.opened() as (transport, far):
        for message in sent:
            await transport.send(message)
        at_far = [await far.recv() for _ in sent]
        for message in sent:
            await far.send(message)
        back = [await transport.recv() for _ in sent]

    assert at_far == sent
    assert back == sent


@virtual
async def test_is_a_transport(kind: Kind) -> None:
    async with kind.opened() as (transport, _):
        assert isinstance(transport, Transport)
        assert not transport.closed
        assert (transport.close_code, transport.close_reason) == (None, None)
        assert repr(transport).startswith("<")


@virtual
async def test_iteration_yields_messages_and_stops_at_our_own_close(kind: Kind) -> None:
    got: list[Wire] = []

    async with kind.opened() as (transport, far):
        await far.send("a")
        await far.send("b")
        async for message in transport:
            got.append(message)
            if len(got) == 2:
                await transport.close()

    assert got == ["a", "b"]


@virtual
async def test_what_arrived_before_the_loss_is_read_before_the_loss_is_raised(kind: Kind) -> None:
    async with kind.opened() as (transport, far):
        await far.send("first")
        await far.send("second")
        await far.close(4001, "enough")

        assert [await transport.recv(), await transport.recv()] == ["first", "second"]
        with pytest.raises(ConnectionLost):
            await transport.recv()


@pytest.mark.parametrize(
    ("close_code", "code", "recoverable"),
    [
        (1000, ErrorCode.CONNECTION_LOST, True),
        (1001, ErrorCode.CONNECTION_LOST, True),
        (1008, ErrorCode.PERMISSION, False),
        (1011, ErrorCode.UNAVAILABLE, True),
        (3000, ErrorCode.AUTHENTICATION, False),
        (4444, ErrorCode.UNKNOWN, False),
    ],
)
@virtual
async def test_close_by_the_peer_is_a_loss_with_its_code(
    kind: Kind, close_code: int, code: ErrorCode, recoverable: bool
) -> None:
    async with kind.opened() as (transport, far):
        await far.close(close_code, "because")

        with pytest.raises(ConnectionLost, match="because") as caught:
            await transport.recv()

        assert (caught.value.close_code, caught.value.code) == (close_code, code)
        assert caught.value.recoverable is recoverable
        assert caught.value.provider == "acme"
        assert transport.closed
        assert (transport.close_code, transport.close_reason) == (close_code, "because")


@virtual
async def test_connection_that_breaks_is_recoverable_1006(kind: Kind) -> None:
    async with kind.opened() as (transport, far):
        far.abort()

        with pytest.raises(ConnectionLost, match="without a close message") as caught:
            await transport.recv()

        assert (caught.value.close_code, caught.value.recoverable) == (1006, True)


@virtual
async def test_iteration_raises_a_loss_even_for_a_clean_close(kind: Kind) -> None:
    async with kind.opened() as (transport, far):
        await far.close(1000)

        with pytest.raises(ConnectionLost):
            async for _ in transport:
                pass


@virtual
async def test_after_a_loss_every_send_raises_it(kind: Kind) -> None:
    async with kind.opened() as (transport, far):
        await far.close(1011)
        with pytest.raises(ConnectionLost):
            await transport.recv()

        with pytest.raises(ConnectionLost):
            transport.send_nowait("x")
        with pytest.raises(ConnectionLost):
            await transport.send("x")


@virtual
async def test_after_our_close_every_call_says_not_connected(kind: Kind) -> None:
    async with kind.opened() as (transport, far):
        await far.send("unread")
        await transport.close(4002, "bye")

        with pytest.raises(NotConnected):
            await transport.recv()
        with pytest.raises(NotConnected):
            await transport.send("x")
        with pytest.raises(NotConnected):
            transport.send_nowait("x")
        assert (transport.close_code, transport.close_reason) == (4002, "bye")


@virtual
async def test_our_close_ends_a_pending_recv(kind: Kind) -> None:
    async with kind.opened() as (transport, _):
        reading = asyncio.ensure_future(transport.recv())
        await asyncio.sleep(0)

        await transport.close()

        with pytest.raises(NotConnected):
            await reading


@virtual
async def test_close_is_idempotent_also_at_the_same_time(kind: Kind) -> None:
    async with leak_check():
        async with kind.opened() as (transport, _):
            await asyncio.gather(*(transport.close(1000 if i else 4000) for i in range(3)))
            await transport.close()

            assert transport.close_code == 4000


@virtual
async def test_close_tells_the_peer_code_and_reason_cut_to_what_fits(kind: Kind) -> None:
    async with kind.opened() as (transport, far):
        await transport.close(4003, "é" * 100)

        with pytest.raises(Exception, match="4003") as caught:
            await far.recv()

        assert "é" * 61 in str(caught.value)
        assert "é" * 62 not in str(caught.value)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2000, 5000])
@virtual
async def test_close_code_that_may_not_be_sent_is_refused_and_nothing_closes(kind: Kind, code: int) -> None:
    async with kind.opened() as (transport, _):
        with pytest.raises(LocalProtocolError, match=str(code)):
            await transport.close(code)

        assert not transport.closed


@pytest.mark.parametrize("message", [bytearray(b"x"), memoryview(b"x"), 1, None, {}])
@virtual
async def test_only_str_and_bytes_are_messages(kind: Kind, message: Any) -> None:
    async with kind.opened() as (transport, _):
        with pytest.raises(TypeError):
            await transport.send(message)


@virtual
async def test_message_over_the_limit_is_the_peers_fault(kind: Kind) -> None:
    async with kind.opened(max_message_bytes=1000) as (transport, far):
        await far.send("x" * 1000)
        await far.send("x" * 1001)

        assert len(await transport.recv()) == 1000
        with pytest.raises(RemoteProtocolError) as caught:
            await transport.recv()

        assert (caught.value.close_code, caught.value.recoverable) == (1009, False)


@virtual
async def test_cancelled_recv_loses_nothing(kind: Kind) -> None:
    async with kind.opened() as (transport, far):
        reading = asyncio.ensure_future(transport.recv())
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)

        await far.send("kept")

        assert await transport.recv() == "kept"


@virtual
async def test_observer_sees_every_message_with_the_loops_time(kind: Kind) -> None:
    seen: list[tuple[str, Wire, float]] = []
    now = asyncio.get_running_loop().time()

    async with kind.opened(on_wire=lambda *call: seen.append(call)) as (transport, far):
        await transport.send("up")
        await far.recv()
        await far.send(b"down")
        await transport.recv()
        transport.on_wire = None
        await transport.send("unseen")

    assert seen == [("out", "up", now), ("in", b"down", now)]


@virtual
async def test_observer_that_raises_changes_nothing_and_is_reported_once_without_the_message(
    kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("private words")

    async with kind.opened(on_wire=fail) as (transport, far):
        with caplog.at_level(logging.ERROR, "voxengine.transport"):
            await transport.send("private words")
            await far.recv()
            await far.send("private words")
            got = await transport.recv()

    assert got == "private words"
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "ValueError" in caplog.text
    assert "private" not in caplog.text


@virtual
async def test_cancelled_close_leaves_nothing_behind(kind: Kind) -> None:
    async with leak_check():
        async with kind.opened() as (transport, _):
            closing = asyncio.ensure_future(transport.close())
            await asyncio.sleep(0)
            closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)
            await transport.close()

            assert transport.closed


@virtual
async def test_unread_messages_stop_the_peer_and_then_all_arrive(kind: Kind) -> None:
    n = 250  # 32 MB: more than the kernel's buffers, the library's and ours together.
    async with kind.opened() as (transport, far):

        async def speak() -> None:
            for i in range(n):
                await far.send(bytes([i]) * 2**17)

        speaking = asyncio.ensure_future(speak())
        await asyncio.sleep(5)
        assert not speaking.done()

        got = [await transport.recv() for _ in range(n)]
        await speaking

    assert [message[0] for message in got] == list(range(n))


async def test_second_reader_is_refused(kind: Kind) -> None:
    async with kind.opened() as (transport, _):
        reading = asyncio.ensure_future(transport.recv())
        await asyncio.sleep(0)

        with pytest.raises(UsageError):
            await transport.recv()

        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


@virtual
async def test_messages_are_handed_over_as_they_arrive_until_our_close(kind: Kind) -> None:
    got: list[Wire] = []
    seen: list[Wire] = []

    async with kind.opened(on_wire=lambda _, message, __: seen.append(message)) as (transport, far):
        await far.send("before")
        await asyncio.sleep(1)
        reading = asyncio.ensure_future(transport.hand_to(got.append))
        await asyncio.sleep(1)
        await far.send(b"after")
        await asyncio.sleep(1)
        await transport.close()
        await reading

    assert got == seen == ["before", b"after"]


@virtual
async def test_handing_over_ends_with_the_loss_after_what_arrived(kind: Kind) -> None:
    got: list[Wire] = []

    async with kind.opened() as (transport, far):
        reading = asyncio.ensure_future(transport.hand_to(got.append))
        await far.send("last")
        await far.close(4001, "enough")

        with pytest.raises(ConnectionLost, match="enough"):
            await reading

    assert got == ["last"]


@virtual
async def test_what_the_taker_raises_ends_the_handing_over_and_loses_no_later_message(kind: Kind) -> None:
    def refuse(message: Wire) -> None:
        raise ValueError(message)

    async with kind.opened() as (transport, far):
        reading = asyncio.ensure_future(transport.hand_to(refuse))
        await asyncio.sleep(1)
        await far.send("first")
        await far.send("second")

        with pytest.raises(ValueError, match="first"):
            await reading
        assert await transport.recv() == "second"


@virtual
async def test_cancelled_handing_over_loses_nothing(kind: Kind) -> None:
    got: list[Wire] = []

    async with kind.opened() as (transport, far):
        reading = asyncio.ensure_future(transport.hand_to(got.append))
        await asyncio.sleep(1)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await far.send("kept")

        assert await transport.recv() == "kept"
    assert got == []


async def test_taker_counts_as_the_one_reader(kind: Kind) -> None:
    async with kind.opened() as (transport, _):
        reading = asyncio.ensure_future(transport.hand_to(lambda _: None))
        await asyncio.sleep(0)

        with pytest.raises(UsageError):
            await transport.recv()
        with pytest.raises(UsageError):
            await transport.hand_to(lambda _: None)

        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


@virtual
async def test_messages_of_one_turn_of_the_loop_arrive_in_order_and_whole(kind: Kind) -> None:
    sent: list[Wire] = [f"{i}" * (i * 37) for i in range(1, 120)]

    async with kind.opened() as (transport, far):
        for message in sent:
            await transport.send(message)
        got = [await far.recv() for _ in sent]

    assert got == sent


@virtual
async def test_what_was_sent_in_the_turn_of_the_close_still_arrives(kind: Kind) -> None:
    async with kind.opened() as (transport, far):
        for message in ("a", "b", "c"):
            await transport.send(message)
        closing = asyncio.ensure_future(transport.close())

        assert [await far.recv() for _ in range(3)] == ["a", "b", "c"]
        await closing
