"""The shape of a vendor codec: one file, two ends, no I/O.

A codec turns neutral values of its own into messages and back. It has no socket, clock or randomness
and logs no payload: time is the ``now`` that it is given, identifiers come from the factory that it is
given. The provider drives the CLIENT end, an emulator the SERVER end, a recorder stores the wire, and a
test joins the two ends in memory. Because both ends are written against the vendor's definition, each
is the other's first witness and the vendor's own SDK the second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Protocol

import attrs

__all__ = ["Codec", "NewId", "Role", "VendorMessage", "Wire"]

Wire = str | bytes
"""One message as it travels."""

NewId = Callable[[str], str]
"""Returns a fresh identifier that starts with the given prefix."""


class Role(StrEnum):
    """Which end of the protocol a codec speaks for."""

    CLIENT = "client"
    SERVER = "server"


@attrs.frozen
class VendorMessage:
    """A message that the codec does not know. Never dropped: it becomes a VENDOR_EVENT."""

    name: str
    payload: Any = attrs.field(repr=False)


class Codec(Protocol):
    """What every vendor codec offers. ``encode`` and ``decode`` never raise for what the other end sends."""

    def __init__(self, role: Role, new_id: NewId) -> None: ...

    def encode(self, item: Any) -> Sequence[Wire]:
        """Return the messages that say ``item``, in order."""

    def decode(self, wire: Wire, now: float) -> Sequence[Any]:
        """Return what one received message says; a :class:`VendorMessage` when it is unknown."""
