"""What can go wrong between two ends, as values. :mod:`voxengine.transport.memory` acts them out.

Every fault in a stream has a direction (``up`` from client to server, ``down`` back, or ``both``) and a
trigger ``at`` that says when it takes hold:

- :data:`NOW` (the default): at once;
- :class:`AfterMessages`, :class:`AfterBytes`: when that much was delivered in the fault's direction since it
  was given; a fault that is about one message then concerns the next one;
- :class:`AfterSeconds`, :class:`AtTime`: by the loop's clock;
- :class:`When`: at the first message that the predicate accepts, before that message is delivered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import attrs

from voxengine.codec import Wire

__all__ = [
    "NOW",
    "AfterBytes",
    "AfterMessages",
    "AfterSeconds",
    "AtTime",
    "Bandwidth",
    "ClosedBy",
    "ConnectFault",
    "DelayHandshake",
    "Direction",
    "Drop",
    "Garbage",
    "HalfOpen",
    "HangHandshake",
    "Latency",
    "Oversized",
    "RefuseConnection",
    "RejectHandshake",
    "Reset",
    "Stall",
    "StreamFault",
    "Trigger",
    "When",
]

Direction: TypeAlias = Literal["up", "down", "both"]

_Check: TypeAlias = Callable[[Any, Any, Any], Any]
_not_negative: _Check = attrs.validators.ge(0)
_positive: _Check = attrs.validators.gt(0)


@attrs.frozen
class AfterMessages:
    n: int = attrs.field(validator=_not_negative)


@attrs.frozen
class AfterBytes:
    n: int = attrs.field(validator=_not_negative)
    """Payload bytes; the message that reaches the number is still delivered."""


@attrs.frozen
class AfterSeconds:
    s: float = attrs.field(validator=_not_negative)


@attrs.frozen
class AtTime:
    now: float
    """An absolute ``loop.time()``."""


@attrs.frozen
class When:
    predicate: Callable[[Wire], bool]


Trigger: TypeAlias = AfterMessages | AfterBytes | AfterSeconds | AtTime | When

NOW = AfterMessages(0)


@attrs.frozen(kw_only=True)
class _Fault:
    direction: Direction = "down"
    at: Trigger = NOW


@attrs.frozen
class Latency(_Fault):
    """Each message takes ``latency_s`` and up to ``jitter_s`` more (seeded). Order is kept."""

    latency_s: float = attrs.field(validator=_not_negative)
    jitter_s: float = attrs.field(default=0.0, validator=_not_negative)


@attrs.frozen
class Bandwidth(_Fault):
    """A slow line or a slow reader: the sender's buffer fills, it is paused, and ``send`` waits."""

    bytes_per_s: float = attrs.field(validator=_positive)


@attrs.frozen
class Stall(_Fault):
    """Messages stop arriving while the connection looks healthy: pings are answered.

    The sender's buffer fills and then pauses it. With ``duration_s`` everything withheld arrives afterwards,
    in order.
    """

    duration_s: float | None = attrs.field(default=None, validator=attrs.validators.optional(_positive))


@attrs.frozen
class HalfOpen(_Fault):
    """The far end is gone and nobody says so: sends vanish, nothing arrives, and after the ping interval and
    timeout the near end (both ends, when they ping) finds out. The direction only says what ``at`` counts.
    """


@attrs.frozen
class Reset(_Fault):
    """Both ends lose the connection at once with 1006; what was under way is gone."""


@attrs.frozen
class ClosedBy(_Fault):
    """One side closes cleanly. What that side had sent arrives first."""

    code: int = 1000
    reason: str = ""
    side: Literal["client", "server"] = "server"


@attrs.frozen
class Garbage(_Fault):
    """The next messages become random bytes of the same length (seeded), or random letters as text."""

    n_messages: int = attrs.field(default=1, validator=_positive)
    as_text: bool = False


@attrs.frozen
class Oversized(_Fault):
    """The next message exceeds the receiver's limit: the receiver refuses it and closes with 1009."""


@attrs.frozen
class Drop(_Fault):
    """The next messages are lost without a trace. No network does this under TCP; a broken service does."""

    n_messages: int = attrs.field(default=1, validator=_positive)


StreamFault: TypeAlias = (
    Latency | Bandwidth | Stall | HalfOpen | Reset | ClosedBy | Garbage | Oversized | Drop
)


@attrs.frozen
class RefuseConnection:
    """Nobody listens."""

    why: str = "Connection refused"


@attrs.frozen
class RejectHandshake:
    """The hand-shake is answered with an HTTP status instead."""

    status: int
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    body: bytes = attrs.field(default=b"", repr=False)


@attrs.frozen
class HangHandshake:
    """The connection is accepted and then nothing comes."""


@attrs.frozen
class DelayHandshake:
    """The hand-shake succeeds after ``delay_s``, unless the caller's deadline comes first."""

    delay_s: float = attrs.field(validator=_not_negative)


ConnectFault: TypeAlias = RefuseConnection | RejectHandshake | HangHandshake | DelayHandshake
