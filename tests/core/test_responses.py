"""Where a response begins and ends: said by the provider, or inferred."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxengine.responses import GAP_S, Response, ResponseTracker
from voxengine.testing import run_virtual, virtual


def tracker() -> tuple[ResponseTracker, list[Response]]:
    ended: list[Response] = []
    numbers = iter(range(1, 10_000))
    return (
        ResponseTracker(asyncio.get_running_loop(), lambda prefix: f"{prefix}_{next(numbers)}", ended.append),
        ended,
    )


def output(held: ResponseTracker, vendor_id: str | None = None, *, given: bool = False) -> Response | None:
    return held.for_output(vendor_id, 1, has_boundaries=given)[0]


@virtual
async def test_first_output_opens_and_a_gap_closes() -> None:
    held, ended = tracker()
    first = output(held)
    for _ in range(5):
        await asyncio.sleep(GAP_S * 0.9)
        assert output(held) is first

    await asyncio.sleep(GAP_S * 0.99)
    assert ended == []
    await asyncio.sleep(GAP_S * 0.02)

    assert ended == [first]
    assert output(held) is not first
    held.close()


@virtual
async def test_input_closes_at_once() -> None:
    held, ended = tracker()
    first = output(held)

    held.input("text", is_request=True)

    assert ended == [first]
    second = output(held)
    assert second is not None
    assert second.trigger == "text"
    held.close()


@virtual
async def test_given_response_has_no_gap() -> None:
    held, ended = tracker()
    first = held.start("r1", 1, None)

    await asyncio.sleep(GAP_S * 10)

    assert output(held, "r1", given=True) is first
    assert ended == []


@virtual
async def test_output_after_the_end_is_refused_when_it_is_named() -> None:
    held, _ = tracker()
    held.finish(held.start("r1", 1, None))

    assert output(held, "r1", given=True) is None


@pytest.mark.parametrize("vendor_id", ["r1", None])
@virtual
async def test_cut_response_is_refused_until_its_end_with_or_without_a_name(vendor_id: str | None) -> None:
    held, _ = tracker()
    first = held.start(vendor_id, 1, None)
    assert held.refuse(has_boundaries=True) is first
    await asyncio.sleep(GAP_S * 4)

    assert output(held, vendor_id, given=True) is None
    assert held.find(vendor_id, 1) is first
    held.told_end(first)
    held.input("text", is_request=True)
    assert output(held, None, given=True) is not None


@virtual
async def test_without_boundaries_everything_is_refused_until_input() -> None:
    held, _ = tracker()
    output(held)
    held.refuse(has_boundaries=False)

    assert output(held) is None
    held.input("audio", is_request=False)
    assert output(held) is not None
    held.close()


@virtual
async def test_without_boundaries_everything_is_refused_until_a_gap() -> None:
    held, _ = tracker()
    output(held)
    held.refuse(has_boundaries=False)
    for _ in range(3):
        await asyncio.sleep(GAP_S * 0.9)
        assert output(held) is None

    await asyncio.sleep(GAP_S)

    assert output(held) is not None
    held.close()


@virtual
async def test_answer_to_a_request_that_was_cut_is_born_refused() -> None:
    held, _ = tracker()
    held.input("text", is_request=True)

    assert held.refuse(has_boundaries=True) is None

    late = held.start("r1", 1, None)
    assert late.is_refused
    held.finish(late)
    assert output(held, None, given=True) is None
    held.input("text", is_request=True)
    assert not held.start("r2", 1, None).is_refused


@virtual
async def test_late_start_of_what_was_interrupted_does_not_take_what_is_asked_for_behind_it() -> None:
    held, _ = tracker()
    held.input("text", is_request=True)
    held.refuse(has_boundaries=True)
    held.input("say", is_request=True, words="Hello")

    late = held.start("r1", 1, None)
    was_late = held.give_back(late)
    held.finish(late)
    wanted = held.start("r2", 1, None)

    assert was_late
    assert (wanted.trigger, wanted.words) == ("say", "Hello")
    assert held.awaiting == 0


@pytest.mark.parametrize("why", ["nothing was interrupted", "long ago", "answered since", "came by itself"])
@virtual
async def test_response_that_a_vendor_cancels_otherwise_is_over(why: str) -> None:
    held, _ = tracker()
    if why != "nothing was interrupted":
        held.input("text", is_request=True)
        held.refuse(has_boundaries=True)
    if why == "long ago":
        await asyncio.sleep(6)
    held.input("text", is_request=True)
    if why in ("answered since", "came by itself"):
        first = held.start("r1", 1, None)
        first.has_output = why == "answered since"
        held.finish(first)
    if why == "answered since":
        held.input("text", is_request=True)

    response = held.start("r2", 1, None)

    assert not held.give_back(response)
    assert held.awaiting == 0


@virtual
async def test_ids_of_two_sessions_do_not_collide() -> None:
    held, _ = tracker()
    first = held.start("r1", 1, None)
    held.finish(first)

    second = held.start("r1", 2, None)

    assert first.id == "r1"
    assert second.id != "r1"
    assert held.find("r1", 1) is first
    assert held.find("r1", 2) is second


@virtual
async def test_our_own_ids_avoid_the_vendors() -> None:
    held, _ = tracker()
    theirs = held.start("resp_1", 1, None)
    held.finish(theirs)

    ours = output(held)

    assert ours is not None
    assert ours.id == "resp_2"
    assert held.find("resp_2", 1) is None
    held.close()


@virtual
async def test_requests_are_answered_in_their_order() -> None:
    held, _ = tracker()
    held.input("text", is_request=True)
    held.input("say", is_request=True)
    assert held.awaiting == 2

    triggers = [held.start(f"r{n}", 1, None).trigger for n in range(3)]

    assert triggers == ["text", "say", "server"]
    assert held.awaiting == 0


@virtual
async def test_parallel_calls_have_one_answer() -> None:
    held, _ = tracker()
    held.input("tool", is_request=True)
    held.input("tool", is_request=True)

    assert held.awaiting == 1


@virtual
async def test_words_of_a_vendor_that_we_do_not_know_do_not_replace_ours() -> None:
    held, _ = tracker()
    held.input("text", is_request=True)

    assert held.start("r1", 1, "client_request").trigger == "text"
    assert held.start("r2", 1, "audio").trigger == "audio"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["start", "output", "input", "refuse", "end", "wait"]),
            st.sampled_from([None, "a", "b"]),
        ),
        max_size=60,
    )
)
def test_at_most_one_is_open_and_each_ends_once_by_inference(ops: list[tuple[str, str | None]]) -> None:
    async def play() -> None:
        held, ended = tracker()
        for what, vendor_id in ops:
            if what == "start":
                held.start(vendor_id, 1, None)
            elif what == "output":
                response = output(held, vendor_id)
                assert response is None or not response.is_ended
            elif what == "input":
                held.input("text", is_request=bool(vendor_id))
            elif what == "refuse":
                held.refuse(has_boundaries=bool(vendor_id))
                assert held.current is None
            elif what == "end" and (found := held.find(vendor_id, 1)) is not None:
                held.finish(found)
            elif what == "wait":
                await asyncio.sleep(GAP_S if vendor_id else GAP_S / 3)
            assert held.current is None or not held.current.is_ended
        assert len(ended) == len({response.id for response in ended})
        assert all(response.is_inferred for response in ended)
        held.close()

    run_virtual(play())
