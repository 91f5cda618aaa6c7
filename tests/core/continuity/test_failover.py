"""Which configuration is tried next, and when: the circuit breaker by itself."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from voxengine import VoiceEngineConfig
from voxengine.errors import ErrorCode, ProviderError, RateLimited
from voxengine.failover import Failover

AWAY = ProviderError("away", code=ErrorCode.UNAVAILABLE)
REFUSED = ProviderError("refused", code=ErrorCode.QUOTA)


def config(provider: str) -> VoiceEngineConfig:
    return VoiceEngineConfig(provider=provider)


def names(failover: Failover) -> list[str]:
    return [candidate.config.provider for candidate in failover.candidates]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_pauses_of_the_only_candidate_grow_up_to_a_bound(jitters: list[float]) -> None:
    candidate = Failover(config("one"), ()).current
    pauses = []
    for jitter in jitters:
        candidate.failed(AWAY, 100.0, jitter, is_alone=True)
        pauses.append(candidate.next_at - 100.0)

    for n, pause in enumerate(pauses):
        longest = min(0.5 * 2**n, 8.0)
        assert longest / 2 <= pause <= longest


def test_other_candidates_come_first_while_one_is_left_alone() -> None:
    failover = Failover(config("one"), [config("two"), config("three")])

    failover.failed(failover.current, AWAY, 10.0)
    candidate, at = failover.next(10.0)

    assert (candidate.config.provider, at) == ("two", 10.0)


def test_candidate_that_fails_often_is_left_alone_and_probed_again() -> None:
    failover = Failover(config("one"), [config("two")])
    first = failover.current
    for _ in range(4):
        failover.failed(first, AWAY, 0.0)

    assert first.next_at == 30.0
    failover.failed(first, AWAY, 30.0)
    assert first.next_at == 90.0
    first.worked()
    assert failover.next(91.0) == (first, 91.0)


def test_breakers_do_not_count_while_all_of_them_are_open() -> None:
    failover = Failover(config("one"), [config("two"), config("three")])
    now = 0.0
    for _ in range(40):
        candidate, at = failover.next(now)
        assert at - now <= 8.0
        now = at
        failover.failed(candidate, AWAY, now)
    refused = failover.candidates[1]
    failover.failed(refused, REFUSED, now)

    tried = {failover.next(now)[0] for _ in range(1)}

    assert refused not in tried


def test_what_cannot_help_is_never_repeated_where_there_is_nothing_else() -> None:
    failover = Failover(config("one"), ())
    failover.failed(failover.current, REFUSED, 5.0)

    assert failover.next(5.0)[1] == math.inf


def test_refused_candidate_is_probed_after_a_while_where_there_is_another() -> None:
    failover = Failover(config("one"), [config("two")])
    failover.failed(failover.current, REFUSED, 0.0)

    assert failover.current.next_at == 30.0


def test_wish_of_the_service_is_the_least_pause() -> None:
    failover = Failover(config("one"), ())
    failover.failed(failover.current, RateLimited("wait", retry_after_s=12), 1.0)

    assert failover.next(1.0)[1] == 13.0


def test_choice_of_the_application_comes_first_and_keeps_the_others() -> None:
    fallbacks = (config("two"), config("three"))
    failover = Failover(config("one"), fallbacks)

    failover.requested(config("other"))
    assert names(failover) == ["other", "one", "two", "three"]
    failover.requested(fallbacks[1])
    assert names(failover) == ["three", "one", "two"]
