"""A session of the simulated agent in memory, with the faults that a hand-shake over a network can have."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from voxengine.errors import ProviderError, RemoteProtocolError
from voxengine.transport import Transport, WireObserver, memory_pair
from voxengine.transport.outcomes import Target, refused_tcp, rejected, timed_out
from voxengine_mock.agent import SimulatedAgent
from voxengine_mock.faults import Fault
from voxengine_mock.ids import id_factory
from voxengine_mock.misbehaving import FaultPlan, MemoryEnd, SessionFaults, refusal
from voxengine_mock.refusals import refusal_body
from voxengine_mock.script import Script, ScriptRun

__all__ = ["open_session"]


async def open_session(
    script: Script, handshake_s: float, on_wire: WireObserver | None
) -> tuple[Transport, Coroutine[Any, Any, None]]:
    """Return the client's end of a session, and what serves the other one until it ends.

    Raises:
        ProviderError: The script lets the hand-shake fail; the errors are those of a socket.
    """
    plan = FaultPlan.in_memory(script)
    number = plan.next_session()
    await _shake_hands(plan, number, handshake_s)
    pair = memory_pair(provider="mock", on_wire=on_wire)

    async def serve() -> None:
        end = MemoryEnd(pair)
        faults = SessionFaults(plan, number, end) if script.faults else None
        try:
            await SimulatedAgent(end, script, id_factory(script.seed), faults=faults).run()
        finally:
            await pair.server.close()

    return pair.client, serve()


async def _shake_hands(plan: FaultPlan, number: int, handshake_s: float) -> None:
    target = Target("mock")
    try:
        async with asyncio.timeout(handshake_s):
            await asyncio.sleep(ScriptRun(plan.script).wait_s(plan.script.delays.handshake_ms))
            fault = plan.at_handshake(number)
            if fault is None:
                return
            await asyncio.sleep(fault.at.after_ms / 1000)
            if fault.do != "stall":
                raise _failure(fault, target)
            if fault.for_s is None:
                await asyncio.get_running_loop().create_future()
            await asyncio.sleep(fault.for_s or 0.0)
    except TimeoutError:
        raise timed_out(target, handshake_s) from None


def _failure(fault: Fault, target: Target) -> ProviderError:
    if fault.do in ("http", "quota"):
        why = refusal(fault)
        headers = [] if why.retry_after_s is None else [("Retry-After", f"{why.retry_after_s:g}")]
        return rejected(target, why.status, headers, refusal_body(why.code.value, why.message))
    if fault.do == "reset":
        return refused_tcp(target, "the connection was cut during the hand-shake")
    return RemoteProtocolError(
        "mock gave no WebSocket hand-shake in memory. Check that the endpoint is a WebSocket service.",
        provider="mock",
    )
