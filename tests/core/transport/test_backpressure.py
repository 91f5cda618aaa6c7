"""A sender that is faster than its reader waits, in order, within bounded memory, and never for ever."""

from __future__ import annotations

import asyncio

import pytest

from tests.core.transport.ends import KINDS, Kind, fill
from voxengine.codec import Wire
from voxengine.errors import ConnectionLost
from voxengine.testing import leak_check, virtual
from voxengine.transport.base import QueuedTransport

# The fallback over the library's own `send` has no `send_nowait`; the library limits its buffer.
direct_kinds = pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if not kind.is_plain], ids=lambda kind: kind.name
)


@direct_kinds
@virtual
async def test_slow_reader_pauses_the_sender_and_bounds_its_memory(kind: Kind) -> None:
    async with kind.opened(write_limit_bytes=2**15) as (transport, far):
        n_accepted = await fill(transport)
        assert transport.paused
        assert not transport.writable
        assert transport.n_buffered_bytes <= 2**15 + 8192 + 14

        waiting = asyncio.ensure_future(transport.send("last"))
        await asyncio.sleep(1)
        assert not waiting.done()

        got = [await far.recv() for _ in range(n_accepted + 1)]
        await waiting

    assert got == [b"x" * 8192] * n_accepted + ["last"]
    assert transport.on_wire is None


@direct_kinds
@virtual
async def test_waiting_senders_are_served_in_order_and_are_not_overtaken(kind: Kind) -> None:
    async with kind.opened(write_limit_bytes=2**15) as (transport, far):
        n_accepted = await fill(transport)
        senders = [asyncio.ensure_future(transport.send(f"{i}" * 9000)) for i in range(8)]
        await asyncio.sleep(0)
        senders[3].cancel()

        got = [await far.recv() for _ in range(n_accepted + 7)]
        await asyncio.gather(*senders, return_exceptions=True)

    assert [str(message)[0] for message in got[n_accepted:]] == list("0124567")


@direct_kinds
@virtual
async def test_loss_wakes_waiting_senders(kind: Kind) -> None:
    async with kind.opened(write_limit_bytes=2**15) as (transport, far):
        await fill(transport)
        senders = [asyncio.ensure_future(transport.send("x")) for _ in range(3)]
        await asyncio.sleep(0)

        far.abort()
        results = await asyncio.gather(*senders, return_exceptions=True)

    assert [type(result) for result in results] == [ConnectionLost] * 3


@direct_kinds
@virtual
async def test_close_with_a_full_buffer_returns_at_its_deadline(kind: Kind) -> None:
    loop = asyncio.get_running_loop()
    async with leak_check():
        async with kind.opened(write_limit_bytes=2**15) as (transport, _):
            await fill(transport)
            before = loop.time()

            await transport.close()

            assert loop.time() - before <= 2.01


class Gate(QueuedTransport):
    """A transport that a test pauses by hand."""

    def __init__(self) -> None:
        super().__init__(provider="acme", on_wire=None, close_s=1)
        self.written: list[Wire] = []

    @property
    def n_buffered_bytes(self) -> int:
        return 0

    def _write(self, message: Wire) -> None:
        self.written.append(message)

    def _pause_reading(self) -> None: ...

    def _resume_reading(self) -> None: ...

    async def _shut(self, code: int, reason: str) -> None: ...

    def set_paused(self, paused: bool) -> None:
        self._set_paused(paused)


@virtual
async def test_newcomer_does_not_overtake_senders_that_were_just_released() -> None:
    gate = Gate()
    gate.set_paused(True)
    waiting = [asyncio.ensure_future(gate.send(name)) for name in "ab"]
    await asyncio.sleep(0)

    gate.set_paused(False)  # The two are released and have not run yet.
    was_accepted = gate.send_nowait("too early")
    await gate.send("c")
    await asyncio.gather(*waiting)

    assert not was_accepted
    assert gate.written == ["a", "b", "c"]
    assert gate.writable


@virtual
async def test_released_sender_that_finds_the_transport_paused_again_keeps_its_place() -> None:
    gate = Gate()
    gate.set_paused(True)
    waiting = [asyncio.ensure_future(gate.send(name)) for name in "ab"]
    await asyncio.sleep(0)

    gate.set_paused(False)
    gate.set_paused(True)
    await asyncio.sleep(1)
    written_while_paused = list(gate.written)
    gate.set_paused(False)
    await asyncio.gather(*waiting)

    assert written_while_paused == []
    assert gate.written == ["a", "b"]


@virtual
async def test_cancelled_sender_has_sent_nothing_and_passes_its_turn_on() -> None:
    gate = Gate()
    gate.set_paused(True)
    first, second = (asyncio.ensure_future(gate.send(name)) for name in "ab")
    await asyncio.sleep(0)

    gate.set_paused(False)
    first.cancel()  # It was released, but has not run.
    await asyncio.gather(first, second, return_exceptions=True)

    assert gate.written == ["b"]
    assert gate.writable
