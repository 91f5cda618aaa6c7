"""One seam to the wire, and what stands behind it.

A provider's connection is a :class:`Transport`. Three things make one:

- :func:`connect_websocket`: a WebSocket over TCP and TLS (the ``websockets`` client, or picows);
- :func:`memory_pair`: two ends in memory, on the loop's clock, with every fault that a network has;
- :class:`MemoryListener`: the same behind a ``connect`` that can be refused, delayed or left hanging.

Importing this package loads none of them, so it costs no import of the websockets client.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

from voxengine.codec import Wire

if TYPE_CHECKING:
    from voxengine.transport.connect import connect_websocket
    from voxengine.transport.framed import WebSocketTransport
    from voxengine.transport.handshake import check_headers
    from voxengine.transport.memory import MemoryListener, MemoryPair, MemoryTransport, memory_pair
    from voxengine.transport.outcomes import HandshakeResponse, close_outcome, handshake_response

__all__ = [
    "HandshakeResponse",
    "MemoryListener",
    "MemoryPair",
    "MemoryTransport",
    "Transport",
    "WebSocketTransport",
    "Wire",
    "WireObserver",
    "check_headers",
    "close_outcome",
    "connect_websocket",
    "handshake_response",
    "memory_pair",
]

WireObserver: TypeAlias = Callable[[Literal["in", "out"], Wire, float], object]
"""Called with the direction, the message and ``loop.time()``; the result is ignored."""

_HOMES = {
    "HandshakeResponse": "outcomes",
    "MemoryListener": "memory",
    "MemoryPair": "memory",
    "MemoryTransport": "memory",
    "WebSocketTransport": "framed",
    "check_headers": "handshake",
    "close_outcome": "outcomes",
    "connect_websocket": "connect",
    "handshake_response": "outcomes",
    "memory_pair": "memory",
}


@runtime_checkable
class Transport(Protocol):
    """An open, ordered, two-way stream of messages: ``str`` for a text message, ``bytes`` for a binary one.

    It is used from its event loop's thread only.

    How it ends:

    - The peer or the network ends it: ``recv`` first hands out what had arrived, then raises
      :class:`~voxengine.errors.ConnectionLost`, also for a clean close; ``error.close_code`` (1000 for a
      normal close, 1006 for none at all), ``error.code`` and ``error.recoverable`` tell the endings apart.
    - The peer breaks the protocol or exceeds the message limit: the same, with
      :class:`~voxengine.errors.RemoteProtocolError`.
    - We call :meth:`close`: from then on every call raises :class:`~voxengine.errors.NotConnected`, and
      iteration just stops. What had arrived unread is discarded.
    """

    on_wire: WireObserver | None
    """Sees every message: ``in`` when it has arrived whole, ``out`` when it was accepted. May be replaced
    at any time. An exception in it is logged once, without the message, and changes nothing."""

    @property
    def closed(self) -> bool:
        """True once either side or the network has ended it, and from the call of :meth:`close`."""
        ...

    @property
    def close_code(self) -> int | None:
        """The WebSocket close code it ended with (ours after our own close), None while open."""
        ...

    @property
    def close_reason(self) -> str | None:
        """The text that came with the close code, None while open."""
        ...

    @property
    def paused(self) -> bool:
        """True while more than the write limit waits to leave, so that ``send`` would wait."""
        ...

    @property
    def writable(self) -> bool:
        """True when :meth:`send_nowait` would accept a message now."""
        ...

    @property
    def n_buffered_bytes(self) -> int:
        """Bytes accepted that have not left yet; at most the write limit and one message."""
        ...

    def send_nowait(self, message: Wire) -> bool:
        """Accept a message if that needs no waiting.

        Returns:
            True when it was accepted. False, and nothing happened, while the transport is paused or other
            senders wait; then await :meth:`send`.

        Raises:
            ConnectionLost, NotConnected: It has ended.
            TypeError: The message is neither ``str`` nor ``bytes``.
        """
        ...

    async def send(self, message: Wire) -> None:
        """Accept a message, waiting first while the transport is paused.

        Waiting senders are served in order. The wait comes before the message is accepted, so a cancelled
        ``send`` has sent nothing.

        Raises:
            ConnectionLost, NotConnected: It has ended.
        """
        ...

    async def recv(self) -> Wire:
        """The next message. One reader at a time; a cancelled ``recv`` loses nothing.

        Raises:
            ConnectionLost, RemoteProtocolError: It has ended and everything was read.
            NotConnected: :meth:`close` was called.
        """
        ...

    async def hand_to(self, take: Callable[[Wire], object]) -> None:
        """Call ``take`` with every message until we close it; a loss raises as in :meth:`recv`.

        For a reader that never waits: ``take`` is called in the moment in which a message has arrived, without
        the switch of tasks that ``recv`` costs, and so outside of any task. One reader at a time. What ``take``
        raises ends the call and is raised; that message counts as read. A cancelled ``hand_to`` loses nothing.
        """
        ...

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """End it, and return when nothing of it is left.

        Idempotent, never raises for a peer that does not answer: past a deadline (2 s by default) the
        connection is cut. A reason is cut to the 123 bytes that the protocol allows.

        Raises:
            LocalProtocolError: ``code`` is none that may be sent, such as 1006.
        """
        ...

    def __aiter__(self) -> AsyncIterator[Wire]:
        """Messages until we close it; a loss raises as in :meth:`recv`."""
        ...


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
