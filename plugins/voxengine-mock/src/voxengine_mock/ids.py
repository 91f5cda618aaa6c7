"""Identifiers that repeat under a seed and a virtual clock, and are otherwise unlike any other's."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Callable
from weakref import WeakKeyDictionary

__all__ = ["id_factory"]

_n_sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, int] = WeakKeyDictionary()


def id_factory(seed: int) -> Callable[[str], str]:
    """Return a ``new_id`` for one session; call it on the session's loop.

    The ids follow from the seed, the loop's time now and the number of sessions that the loop has had. So
    a program repeats its ids on a fresh virtual loop, and two sessions of one program never share one.
    """
    loop = asyncio.get_running_loop()
    number = _n_sessions[loop] = _n_sessions.get(loop, 0) + 1
    salt = hashlib.blake2s(f"{seed}/{loop.time()!r}/{number}".encode(), digest_size=5).hexdigest()
    counter = itertools.count(1)
    return lambda prefix: f"{prefix}{salt}{next(counter):04d}"
