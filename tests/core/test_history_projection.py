"""The one way into a provider: what is told, in which form, and what is left out."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxengine.audio.format import AudioFormat
from voxengine.capabilities import FULL, PLANNED, UNKNOWN, UNSUPPORTED, Capabilities, partial
from voxengine.history import History, Item, ItemKind, ProjectionLimits, Status

FORMAT = AudioFormat(8_000)
EVERYTHING = Capabilities(context_text=FULL, context_audio=FULL, context_tools=FULL)
TEXT_ONLY = Capabilities(context_text=FULL)
WORDS = st.text("ab .", max_size=8)


@st.composite
def histories(draw: st.DrawFn) -> History:
    """A history as calls make it, with every kind of item in every state."""
    numbers = iter(range(1000))
    history = History(
        new_id=lambda prefix: f"{prefix}{next(numbers)}",
        keep_audio_s=draw(st.one_of(st.none(), st.integers(0, 2))),
    )
    statuses: st.SearchStrategy[Status] = st.sampled_from(["in_progress", "completed", "incomplete"])
    for _ in range(draw(st.integers(0, 12))):
        match draw(st.sampled_from(list(ItemKind))):
            case ItemKind.USER_TEXT:
                history.add_user_text(draw(WORDS))
            case ItemKind.SYSTEM:
                history.add_system(draw(WORDS))
            case ItemKind.IMAGE:
                history.add_image("data:,x", draw(WORDS))
            case ItemKind.USER_AUDIO:
                audio = bytes(160 * draw(st.integers(0, 100))) if draw(st.booleans()) else None
                history.add_user_audio(
                    audio,
                    FORMAT,
                    draw(WORDS),
                    audio_ms=draw(st.integers(0, 9000)),
                    status=draw(statuses),
                )
            case ItemKind.AGENT:
                item = history.start_agent("resp")
                history.set_agent_text(item.id, draw(WORDS))
                if draw(st.booleans()):
                    history.truncate_agent(item.id, draw(st.integers(0, 1000)), total_ms=1000)
                elif draw(st.booleans()):
                    history.finish_agent(item.id, draw(statuses))
            case ItemKind.TOOL_CALL:
                history.add_tool_call(draw(st.sampled_from("xyz")), "clock", draw(WORDS))
            case ItemKind.TOOL_RESULT:
                calls = history.open_calls()
                if calls:
                    call = draw(st.sampled_from(calls))
                    history.add_tool_result(call.call_id, draw(WORDS), is_error=draw(st.booleans()))
    return history


CELLS = st.sampled_from([UNKNOWN, UNSUPPORTED, PLANNED, FULL, partial("somewhat")])
MAYBE = st.one_of(st.none(), st.integers(0, 12))
CAPABILITIES = st.builds(
    Capabilities,
    context_text=st.one_of(st.just(FULL), CELLS),
    context_audio=CELLS,
    context_tools=CELLS,
    max_history_items=MAYBE,
    max_history_chars=st.one_of(st.none(), st.integers(0, 80)),
)
LIMITS = st.builds(ProjectionLimits, max_items=MAYBE, max_chars=MAYBE, takes_images=st.booleans())


def reload(items: tuple[Item, ...]) -> History:
    """A history that holds exactly these items."""
    history = History(keep_audio_s=10_000)
    for item in items:
        history.append(item)
    return history


def chars(item: Item) -> int:
    if item.kind is ItemKind.TOOL_CALL:
        return len(item.name) + len(item.arguments)
    return 0 if item.kind is ItemKind.USER_AUDIO else len(item.context_text)


# -- laws


@given(history=histories(), capabilities=CAPABILITIES, limits=LIMITS)
def test_a_projection_is_an_ordered_part_of_the_history(
    history: History, capabilities: Capabilities, limits: ProjectionLimits
) -> None:
    ids = [item.id for item in history]

    projected = [item.id for item in history.project(capabilities, limits).items]

    assert projected == [item_id for item_id in ids if item_id in projected]
    assert len(projected) == len(set(projected))


@given(history=histories(), capabilities=CAPABILITIES, limits=LIMITS)
def test_a_projection_obeys_the_smaller_of_two_limits(
    history: History, capabilities: Capabilities, limits: ProjectionLimits
) -> None:
    items = history.project(capabilities, limits).items

    for bound in (capabilities.max_history_items, limits.max_items):
        assert bound is None or len(items) <= bound
    for bound in (capabilities.max_history_chars, limits.max_chars):
        assert bound is None or sum(map(chars, items)) <= bound


@given(history=histories(), capabilities=CAPABILITIES, limits=LIMITS)
def test_a_projection_holds_only_what_the_capabilities_take(
    history: History, capabilities: Capabilities, limits: ProjectionLimits
) -> None:
    items = history.project(capabilities, limits).items

    assert not items or capabilities.context_text
    assert all(item.status != "in_progress" and item.heard_text is None for item in items)
    for item in items:
        if item.kind is ItemKind.USER_AUDIO:
            assert capabilities.context_audio
            assert item.audio
        elif item.role == "tool":
            assert capabilities.context_tools
        elif item.kind is ItemKind.IMAGE:
            assert limits.takes_images
        else:
            assert item.text.strip()


@given(history=histories(), capabilities=CAPABILITIES, limits=LIMITS)
def test_tool_calls_and_results_come_in_pairs(
    history: History, capabilities: Capabilities, limits: ProjectionLimits
) -> None:
    open_calls: list[str] = []

    for item in history.project(capabilities, limits).items:
        if item.kind is ItemKind.TOOL_CALL:
            open_calls.append(item.call_id)
        elif item.kind is ItemKind.TOOL_RESULT:
            open_calls.remove(item.call_id)

    assert open_calls == []


@given(history=histories(), capabilities=CAPABILITIES, limits=LIMITS)
def test_a_projection_of_a_projection_is_itself(
    history: History, capabilities: Capabilities, limits: ProjectionLimits
) -> None:
    items = history.project(capabilities, limits).items

    assert reload(items).project(capabilities, limits).items == items


@given(history=histories())
def test_full_capabilities_without_limits_tell_everything_that_was_said(history: History) -> None:
    def is_empty(item: Item) -> bool:
        if item.role == "tool" or item.kind is ItemKind.IMAGE:
            return False
        return not item.context_text.strip() and not item.audio_ms

    spoken = [item for item in history if item.kind is not ItemKind.AGENT or item.context_text.strip()]

    projection = history.project(EVERYTHING)

    assert [item.id for item in projection.items] == [item.id for item in spoken if not is_empty(item)]
    told = {item.id: item for item in projection.items}
    open_calls = history.open_calls()
    for item in history:
        if item.id in told and item.context_text.strip() and item not in open_calls:
            assert told[item.id].role == item.role
            assert told[item.id].context_text == item.context_text


@given(history=histories(), capabilities=CAPABILITIES, limits=LIMITS)
def test_the_description_says_whether_all_was_told(
    history: History, capabilities: Capabilities, limits: ProjectionLimits
) -> None:
    projection = history.project(capabilities, limits)

    if projection.is_full:
        assert projection.description == "full"
        assert len(projection.items) == len(history.project(EVERYTHING).items)
    else:
        assert projection.description.startswith("partial: ")
        assert all(words in projection.description for words in projection.left_out)


@given(history=histories(), include_audio=st.booleans())
def test_export_then_load_then_export_changes_nothing(history: History, include_audio: bool) -> None:
    value = history.export(include_audio=include_audio)

    loaded = History.load(value, keep_audio_s=10_000)

    assert loaded.export(include_audio=include_audio) == value
    if include_audio:
        assert loaded.items == history.items


# -- forms


def conversation() -> History:
    numbers = iter(range(1, 100))
    history = History(new_id=lambda prefix: f"{prefix}{next(numbers)}")
    history.add_system("Be brief.")
    history.add_user_audio(bytes(51_200), FORMAT)
    history.add_tool_call("call_1", "clock", '{"zone": "UTC"}')
    history.add_tool_result("call_1", "noon")
    answer = history.start_agent()
    history.set_agent_text(answer.id, "It is noon, and I could go on")
    history.truncate_agent(answer.id, 400, "It is noon,")
    return history


def test_everything_goes_as_it_is_where_it_is_taken() -> None:
    history = conversation()

    projection = history.project(EVERYTHING)

    assert projection.description == "full"
    assert [item.kind for item in projection.items] == [item.kind for item in history]
    assert projection.items[1].audio == bytes(51_200)
    assert projection.items[-1].text == "It is noon,"


def test_a_provider_of_text_gets_the_fixed_rendering() -> None:
    projection = conversation().project(TEXT_ONLY)

    assert [(item.kind, item.text) for item in projection.items] == [
        (ItemKind.SYSTEM, "Be brief."),
        (ItemKind.USER_TEXT, "[user spoke for 3.2 s; no transcript]"),
        (ItemKind.SYSTEM, 'Tool call: clock({"zone": "UTC"})'),
        (ItemKind.SYSTEM, "Tool result of clock: noon"),
        (ItemKind.AGENT, "It is noon,"),
    ]
    assert projection.description == "partial: 3.2 s of speech without a transcript"


def test_a_provider_that_takes_no_turns_gets_none_and_the_count_is_told() -> None:
    history = conversation()
    history.add_user_text("and now?")
    history.add_user_text("")
    history.add_user_text("well?")

    projection = history.project(Capabilities(context_text=UNSUPPORTED, context_audio=FULL))

    assert projection.items == ()
    assert projection.description == "partial: 7 items, the service takes no earlier turns"
    assert not projection.is_full


def test_a_planned_capability_is_not_blamed_on_the_service() -> None:
    projection = conversation().project(Capabilities(context_text=PLANNED))

    assert "this version of the provider's package" in projection.description


def test_nothing_to_tell_is_full_whatever_the_provider_takes() -> None:
    assert History().project(Capabilities()).is_full


def test_a_call_without_a_result_is_told_as_text_even_to_providers_with_tools() -> None:
    history = History()
    history.add_tool_call("call_1", "clock", "{}")

    (item,) = history.project(EVERYTHING).items

    assert item.kind is ItemKind.SYSTEM
    assert item.text == "Tool call: clock({}). No result yet."


def test_a_failed_tool_is_told_as_failed() -> None:
    history = History()
    history.add_tool_call("call_1", "clock", "{}")
    history.add_tool_result("call_1", "no clock here", is_error=True)

    assert history.project(TEXT_ONLY).items[1].text == "Tool clock failed: no clock here"


def test_a_result_whose_call_is_gone_is_left_out_and_told() -> None:
    value = conversation().export()
    value["items"] = [item for item in value["items"] if item["kind"] != "tool_call"]

    projection = History.load(value).project(EVERYTHING)

    assert all(item.role != "tool" for item in projection.items)
    assert projection.description == "partial: 1 tool result without a call"


def test_a_transcript_is_preferred_to_audio_once_it_is_final() -> None:
    history = History()
    final = history.add_user_audio(bytes(1600), FORMAT, "hello")
    growing = history.add_user_audio(bytes(1600), FORMAT, "hel", status="in_progress")

    items = {item.id: item for item in history.project(EVERYTHING).items}

    assert items[final.id].kind is ItemKind.USER_TEXT
    assert items[final.id].audio is None
    assert items[growing.id].kind is ItemKind.USER_AUDIO


def test_a_growing_transcript_is_better_than_a_gap() -> None:
    history = History()
    history.add_user_audio(bytes(1600), FORMAT, "hel", status="in_progress")

    projection = history.project(TEXT_ONLY)

    assert projection.items[0].text == "hel"
    assert projection.is_full


def test_an_image_is_described_where_images_are_not_taken() -> None:
    history = History()
    history.add_image("data:,x", "a cat")
    history.add_image("data:,x")

    projection = history.project(TEXT_ONLY, ProjectionLimits(takes_images=False))

    assert [item.text for item in projection.items] == ["[image: a cat]", "[image]"]
    assert projection.description == "partial: 2 images"


def test_an_agents_words_that_nobody_heard_are_not_told() -> None:
    history = History()
    answer = history.start_agent()
    history.set_agent_text(answer.id, "unheard")
    history.truncate_agent(answer.id, 0, total_ms=1000)

    assert history.project(EVERYTHING).items == ()


# -- limits


@pytest.mark.parametrize(
    ("capabilities", "limits"),
    [
        (attrs.evolve(TEXT_ONLY, max_history_items=3), None),
        (TEXT_ONLY, ProjectionLimits(max_items=3)),
        (attrs.evolve(TEXT_ONLY, max_history_items=9), ProjectionLimits(max_items=3)),
        (TEXT_ONLY, ProjectionLimits(max_chars=6)),
    ],
)
def test_system_items_and_the_newest_are_kept(
    capabilities: Capabilities, limits: ProjectionLimits | None
) -> None:
    history = History()
    history.add_system("s1")
    for text in ("a1", "b1", "c1", "d1"):
        history.add_user_text(text)

    projection = history.project(capabilities, limits)

    assert [item.text for item in projection.items] == ["s1", "c1", "d1"]
    assert projection.description == "partial: 2 older items beyond the limit"


def test_nothing_older_than_the_first_that_does_not_fit_is_told() -> None:
    history = History()
    for text in ("x", "long one", "abcd"):
        history.add_user_text(text)

    projection = history.project(TEXT_ONLY, ProjectionLimits(max_chars=8))

    assert [item.text for item in projection.items] == ["abcd"]


def test_an_item_longer_than_the_limit_does_not_hide_the_older_ones() -> None:
    history = History()
    history.add_user_text("abcd")
    history.add_user_text("much longer than it may be")

    projection = history.project(TEXT_ONLY, ProjectionLimits(max_chars=8))

    assert [item.text for item in projection.items] == ["abcd"]
    assert projection.description == "partial: 1 item longer than the limit"


def test_a_tool_pair_that_does_not_fit_goes_as_a_whole() -> None:
    history = History()
    history.add_tool_call("call_1", "clock", "{}")
    history.add_tool_result("call_1", "noon")
    history.add_user_text("thanks")

    projection = history.project(EVERYTHING, ProjectionLimits(max_items=2))

    assert [item.text for item in projection.items] == ["thanks"]
    assert projection.description == "partial: 2 older items beyond the limit"


def test_items_that_go_another_way_are_neither_told_nor_missed() -> None:
    history = conversation()
    spoken, call = history.items[1:3]

    projection = history.project(EVERYTHING, without=[spoken.id, call.id])

    assert [item.kind for item in projection.items] == [ItemKind.SYSTEM, ItemKind.AGENT]
    assert projection.is_full
