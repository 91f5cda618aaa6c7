"""Acts out a script's faults, over any connection: the same in memory and on a socket."""

from __future__ import annotations

import asyncio
import random
import string
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

import attrs

from voxengine.codec import Wire
from voxengine.errors import ConnectionLost, ErrorCode, NotConnected, RemoteProtocolError
from voxengine.transport.faults import Bandwidth, Reset
from voxengine.transport.memory import MemoryPair
from voxengine_mock.faults import MAX_REASON_BYTES, Fault
from voxengine_mock.happenings import Expiring, Failed, Happening
from voxengine_mock.script import Script

__all__ = [
    "CLOSED",
    "FaultPlan",
    "Faultable",
    "Held",
    "MemoryEnd",
    "Refusal",
    "SessionFaults",
    "Stream",
    "refusal",
]

CLOSED: Final = (ConnectionLost, NotConnected, RemoteProtocolError)
"""What a stream raises when its connection is over."""

_HELD_BACK_BYTES: Final = 16 * 2**20
_STATUS: Final = {
    401: (ErrorCode.AUTHENTICATION, "The key is not known."),
    402: (ErrorCode.QUOTA, "The account has no quota left."),
    403: (ErrorCode.PERMISSION, "The key may not do this."),
    404: (ErrorCode.NOT_FOUND, "There is no such thing here."),
    408: (ErrorCode.TIMEOUT, "The request took too long."),
    429: (ErrorCode.RATE_LIMIT, "Too many requests."),
}
_CLOSE_AFTER: Final = {401: 3000, 403: 3003}
"""The registered codes Unauthorized and Forbidden: such a session is over."""


class Stream(Protocol):
    """What the agent needs of a connection. Its end is one of ``CLOSED``."""

    async def send(self, message: Wire, /) -> None: ...

    async def recv(self) -> Wire: ...


class Faultable(Stream, Protocol):
    """What faults need of a connection besides."""

    async def close(self, code: int = 1000, reason: str = "") -> None: ...

    def abort(self) -> None:
        """Cut it, without a close message."""

    def read_slowly(self, bytes_per_s: float | None) -> None:
        """Take only so much from the client; None: as fast as it comes."""

    def stall(self, *, keeps: bool) -> None:
        """Send nothing from here on; what is sent is held back for ``resume`` when ``keeps``, else lost.
        Reading goes on, so the client's end is noticed.
        """

    async def resume(self) -> None:
        """Send what was held back, in order, and everything after it."""


class Held:
    """What a stalled connection holds back: at most 16 MiB."""

    def __init__(self) -> None:
        self._is_on = False
        self._keeps = False
        self._messages: deque[Wire] = deque()
        self._n_bytes = 0

    def start(self, *, keeps: bool) -> None:
        """Hold messages back from here on, or lose them."""
        self._is_on, self._keeps = True, keeps

    def takes(self, message: Wire) -> bool:
        """Whether a message is not to be sent now."""
        if self._is_on and self._keeps:
            self._messages.append(message)
            self._n_bytes += len(message)
        return self._is_on

    @property
    def is_full(self) -> bool:
        """Whether more is held back than may be: the connection is to be cut."""
        return self._n_bytes > _HELD_BACK_BYTES

    def next(self) -> Wire | None:
        """Return the next message that was held back; None ends the stall."""
        if self._messages:
            message = self._messages.popleft()
            self._n_bytes -= len(message)
            return message
        self._is_on = False
        return None


class MemoryEnd:
    """The server's end of a pair in memory, as a :class:`Faultable`."""

    def __init__(self, pair: MemoryPair) -> None:
        self._pair = pair
        self._held = Held()
        self.recv = pair.server.recv
        self.close = pair.server.close

    async def send(self, message: Wire, /) -> None:
        if not self._held.takes(message):
            await self._pair.server.send(message)
        elif self._held.is_full:
            self.abort()

    def abort(self) -> None:
        self._pair.fault(Reset())

    def read_slowly(self, bytes_per_s: float | None) -> None:
        self._pair.fault(Bandwidth(bytes_per_s or 1e12, direction="up"))

    def stall(self, *, keeps: bool) -> None:
        self._held.start(keeps=keeps)

    async def resume(self) -> None:
        while (message := self._held.next()) is not None:
            await self._pair.server.send(message)


@attrs.frozen
class Refusal:
    """How the request for a connection is refused, in neutral words; each vendor has its own body for it."""

    status: int
    code: ErrorCode
    message: str
    retry_after_s: float | None = None


def refusal(fault: Fault) -> Refusal:
    """Return what an ``http`` or ``quota`` fault says at the hand-shake."""
    code, message = _error(fault)
    return Refusal(fault.status or 429, code, message, fault.retry_after_s)


def _error(fault: Fault) -> tuple[ErrorCode, str]:
    if fault.do == "error":
        code, message = fault.code, "The script says so."
    elif fault.do == "quota":
        code, message = _STATUS[402]
    elif fault.status in _STATUS:
        code, message = _STATUS[fault.status]
    elif fault.status >= 500:
        code, message = ErrorCode.UNAVAILABLE, "The service is not available."
    else:
        code, message = ErrorCode.INVALID_REQUEST, "The request is not accepted."
    return code, fault.message or message


@attrs.define
class _Counts:
    """How many sessions a service had, and how often each of its faults has happened."""

    n_times: list[int]
    n_sessions: int = 0


_in_memory: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[Fault, ...], _Counts]] = (
    WeakKeyDictionary()
)


class FaultPlan:
    """The faults of one service: how often each has happened, over all its sessions."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self._counts = _Counts([0] * len(script.faults))

    @classmethod
    def in_memory(cls, script: Script) -> FaultPlan:
        """Return the plan of a session in memory. Those with one list of faults on one event loop count together;
        everything else is each one's own.
        """
        plan = cls(script)
        shared = _in_memory.setdefault(asyncio.get_running_loop(), {})
        if script.faults not in shared and len(shared) >= 100:
            shared.pop(next(iter(shared)))
        plan._counts = shared.setdefault(script.faults, plan._counts)
        return plan

    @property
    def n_sessions(self) -> int:
        """How many connections were asked for."""
        return self._counts.n_sessions

    def next_session(self) -> int:
        """Count a request for a connection, and return its number."""
        self._counts.n_sessions += 1
        return self._counts.n_sessions

    def at_handshake(self, number: int) -> Fault | None:
        """Return what goes wrong with the hand-shake of a connection."""
        for index, fault in enumerate(self.script.faults):
            if fault.at.name == "handshake" and self.take(index, number):
                return fault
        return None

    def take(self, index: int, number: int) -> bool:
        """Whether a fault happens now in the session of that number; if so it is counted."""
        fault = self.script.faults[index]
        if fault.session not in (None, number):
            return False
        n_times = self._counts.n_times
        if fault.times is not None and n_times[index] >= fault.times:
            return False
        n_times[index] += 1
        return True


class SessionFaults:
    """The faults of one session. The agent says which points it reaches.

    Args:
        stream: The session's connection, as the agent uses it.
    """

    def __init__(self, plan: FaultPlan, number: int, stream: Faultable) -> None:
        self._plan = plan
        self._number = number
        self._stream = stream
        self._faults = [(n, f) for n, f in enumerate(plan.script.faults) if f.at.name != "handshake"]
        self._fired: set[tuple[int, int]] = set()
        self._random = random.Random(plan.script.seed * 1_000_003 + number)
        self._tell: Callable[[Happening], Awaitable[None]] | None = None
        self._spawn: Callable[[Coroutine[Any, Any, None]], object] | None = None

    def bind(
        self,
        tell: Callable[[Happening], Awaitable[None]],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        """Say how a happening is told to the client, and how work runs beside the session."""
        self._tell = tell
        self._spawn = spawn

    async def reach(self, name: str, n: int = 1, *, is_after: bool = False) -> bool:
        """Do what goes wrong at a point, and return whether what was about to happen shall happen.

        Args:
            n: Which of the points of that name this is.
            is_after: The point ``ready`` is reached twice: before the session is open, and after.
        """
        goes_on = True
        for index, fault in self._faults:
            at = fault.at
            if at.name != name or at.after_audio_ms is not None or at.n not in (None, n):
                continue
            if name == "ready" and is_after is not (fault.do in ("expire", "slow_reader")):
                continue
            goes_on = await self._happen(index, fault) and goes_on
        return goes_on

    async def reach_audio(self, name: str, n: int, audio_ms: int) -> bool:
        """The same for a point within audio: so much of it has passed."""
        goes_on = True
        for index, fault in self._faults:
            at = fault.at
            if at.name != name or at.after_audio_ms is None or at.n not in (None, n):
                continue
            if audio_ms >= at.after_audio_ms and (index, n) not in self._fired:
                self._fired.add((index, n))
                goes_on = await self._happen(index, fault) and goes_on
        return goes_on

    async def _happen(self, index: int, fault: Fault) -> bool:
        if not self._plan.take(index, self._number):
            return True
        if not fault.at.after_ms:
            return await self._act(fault)
        assert self._spawn is not None
        self._spawn(self._later(fault))
        return True

    async def _later(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at.after_ms / 1000)
        await self._act(fault)

    async def _act(self, fault: Fault) -> bool:
        stream = self._stream
        match fault.do:
            case "close":
                await stream.close(fault.close_code, fault.reason)
                return False
            case "reset":
                stream.abort()
                return False
            case "stall":
                stream.stall(keeps=fault.for_s is not None)
                self._after(fault.for_s, stream.resume)
            case "slow_reader":
                stream.read_slowly(fault.bytes_per_s)
                self._after(fault.for_s, self._read_freely)
            case "garbage":
                for _ in range(fault.n_messages):
                    await stream.send(self._garbage(fault))
            case "oversized":
                await stream.send("x" * fault.n_bytes)
            case "expire":
                await self._say(Expiring(deadline_s=fault.deadline_s, reason=fault.reason))
                self._after(fault.deadline_s, partial(stream.close, fault.close_code, fault.reason))
            case _:
                return await self._fail(fault)
        return True

    async def _fail(self, fault: Fault) -> bool:
        code, message = _error(fault)
        recoverable = fault.recoverable
        if recoverable is None:
            recoverable = code not in _NOT_RECOVERABLE
        await self._say(Failed(code, message, recoverable, fault.retry_after_s))
        if fault.status in _CLOSE_AFTER:
            # A message may be longer than the reason of a close can be, and end in the middle of a character there.
            reason = message.encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="ignore")
            await self._stream.close(_CLOSE_AFTER[fault.status], reason)
        return False

    async def _say(self, happening: Happening) -> None:
        assert self._tell is not None
        await self._tell(happening)

    async def _read_freely(self) -> None:
        self._stream.read_slowly(None)

    def _after(self, delay_s: float | None, action: Callable[[], Awaitable[None]]) -> None:
        async def later(delay_s: float) -> None:
            await asyncio.sleep(delay_s)
            await action()

        if delay_s is not None:
            assert self._spawn is not None
            self._spawn(later(delay_s))

    def _garbage(self, fault: Fault) -> Wire:
        if fault.as_binary:
            return self._random.randbytes(48)
        return "".join(self._random.choices(string.ascii_letters, k=48))


_NOT_RECOVERABLE: Final = (
    ErrorCode.AUTHENTICATION,
    ErrorCode.PERMISSION,
    ErrorCode.QUOTA,
    ErrorCode.NOT_FOUND,
    ErrorCode.INVALID_REQUEST,
)
