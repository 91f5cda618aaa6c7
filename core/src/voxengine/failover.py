"""Which configuration is tried next after a loss, and from when on."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Sequence
from typing import Final

import attrs

from voxengine.config import VoiceEngineConfig
from voxengine.errors import ProviderError, VoxEngineError

__all__ = ["Candidate", "Failover"]

_FIRST_S: Final = 0.5
"""Longest wait after the first failure; doubled by each that follows."""
_LONGEST_S: Final = 8.0
_OPEN_AFTER: Final = 4
"""Failures in a row after which a provider is left alone for a while, if there is another."""
_COOL_DOWN_S: Final = 30.0
_MOST_DOUBLINGS: Final = 4


@attrs.define(eq=False)
class Candidate:
    """A configuration with its circuit breaker: after failures it is left alone, then probed by one attempt."""

    config: VoiceEngineConfig
    n_failures: int = 0
    """In a row."""
    next_at: float = 0.0
    """Loop time from which on it may be tried."""
    wanted_at: float = 0.0
    """The same without the circuit breaker: for when there is nothing better to try. Infinite: it cannot help."""

    @property
    def is_left_alone(self) -> bool:
        """Whether its circuit breaker is open."""
        return self.next_at > self.wanted_at or math.isinf(self.wanted_at)

    def worked(self) -> None:
        """Note that it serves again."""
        self.n_failures, self.next_at, self.wanted_at = 0, 0.0, 0.0

    def asked_to_wait(self, error: VoxEngineError, now: float) -> None:
        """Note how long the service wants to be left alone, without counting a failure."""
        self.next_at = self.wanted_at = now + (_retry_after_s(error) or 0.0)

    def failed(self, error: VoxEngineError, now: float, jitter: float, *, is_alone: bool) -> None:
        """Note a failed attempt.

        Args:
            error: Why.
            now: The loop's time.
            jitter: From 0 to 1: where within the upper half of the wait.
            is_alone: There is no other candidate. Then what cannot help is not tried again, and the wait is
                never longer than the back-off.
        """
        self.n_failures += 1
        doublings = min(self.n_failures - 1, _MOST_DOUBLINGS)
        wait_s = min(_FIRST_S * 2**doublings, _LONGEST_S) * (0.5 + 0.5 * jitter)
        asked_s = _retry_after_s(error) or 0.0
        self.wanted_at = now + max(wait_s, asked_s)
        if not (isinstance(error, ProviderError) and error.recoverable):
            self.wanted_at = math.inf
            wait_s = math.inf if is_alone else _COOL_DOWN_S * 2**doublings
        elif self.n_failures >= _OPEN_AFTER and not is_alone:
            wait_s = max(wait_s, _COOL_DOWN_S * 2 ** min(self.n_failures - _OPEN_AFTER, _MOST_DOUBLINGS))
        self.next_at = now + max(wait_s, asked_s)


class Failover:
    """The candidates of one engine: the configuration in force, and its fallbacks in their order."""

    def __init__(self, first: VoiceEngineConfig, fallbacks: Sequence[VoiceEngineConfig]) -> None:
        self._first = Candidate(first)
        self._others = [Candidate(config) for config in fallbacks]
        self.current = self._first
        """The one in force, or in force when its session was lost."""

    @functools.cached_property
    def jitter(self) -> random.Random:
        """Spreads the attempts of many engines that lost their service at once.

        Made for the first attempt: its state is 2.5 kB, and costs as much as the rest of an engine.
        """
        return random.Random()

    def requested(self, config: VoiceEngineConfig) -> None:
        """Note that the application chose a configuration itself."""
        known = next((held for held in self.candidates if _is_same_service(held.config, config)), None)
        self.current = known or Candidate(config)
        self.current.config, self.current.next_at = config, 0.0

    @property
    def candidates(self) -> list[Candidate]:
        """Those that can be tried, the preferred one first."""
        return list(dict.fromkeys([self.current, self._first, *self._others]))

    def failed(self, candidate: Candidate, error: VoxEngineError, now: float) -> None:
        """Note a failed attempt, or a session that ended before it was of any use."""
        is_alone = len(self.candidates) == 1
        candidate.failed(error, now, self.jitter.random(), is_alone=is_alone)

    def next(self, now: float) -> tuple[Candidate, float]:
        """Return what to try next and at what time; in the order of preference where several may be tried.

        When every circuit breaker is open it is the network that is away, and the breakers do not count.
        """
        if all(held.is_left_alone for held in self.candidates):
            candidate = min(self.candidates, key=lambda held: max(min(held.wanted_at, held.next_at), now))
            return candidate, max(min(candidate.wanted_at, candidate.next_at), now)
        candidate = min(self.candidates, key=lambda held: max(held.next_at, now))
        return candidate, max(candidate.next_at, now)


def _is_same_service(one: VoiceEngineConfig, other: VoiceEngineConfig) -> bool:
    return one.provider == other.provider and one.metadata == other.metadata


def _retry_after_s(error: VoxEngineError) -> float | None:
    return error.retry_after_s if isinstance(error, ProviderError) else None
