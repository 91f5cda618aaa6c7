"""What the history records, keeps, forgets and gives out."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxengine.audio.format import AudioFormat
from voxengine.errors import AudioFormatError, ConfigError, UsageError
from voxengine.history import (
    History,
    Item,
    ItemKind,
)

FORMAT = AudioFormat(8_000)
SECOND = bytes(16_000)


def make_history(**options: Any) -> History:
    numbers = itertools.count(1)
    return History(new_id=lambda prefix: f"{prefix}{next(numbers)}", **options)


def test_ids_come_from_the_injected_factory() -> None:
    history = make_history()

    item = history.add_user_text("hello")

    assert item.id == "item_1"
    assert history.get("item_1") is item
    assert "item_1" in history
    assert [one.id for one in history] == ["item_1"]


def test_a_factory_that_repeats_an_id_is_asked_again() -> None:
    ids = iter(["item_1", "item_1", "item_2"])
    history = History(new_id=lambda prefix: next(ids))
    history.add_user_text("a")

    assert history.add_user_text("b").id == "item_2"


def test_a_conversation_is_recorded_in_order() -> None:
    history = make_history()

    history.add_system("be brief")
    question = history.add_user_audio(SECOND, FORMAT)
    history.set_transcript(question.id, "what", final=False)
    history.set_transcript(question.id, "what time is it", final=True)
    answer = history.start_agent("resp_1", provider="mock")
    history.append_agent_text(answer.id, "It is ")
    history.append_agent_text(answer.id, "noon.")
    history.finish_agent(answer.id, audio_ms=900)

    said = [(item.role, item.text, item.status) for item in history]
    assert said == [
        ("system", "be brief", "completed"),
        ("user", "what time is it", "completed"),
        ("agent", "It is noon.", "completed"),
    ]
    assert history.get(answer.id).response_id == "resp_1"
    assert history.get(answer.id).provider == "mock"


def test_an_agents_text_can_be_set_as_a_whole() -> None:
    history = make_history()
    answer = history.start_agent()
    history.append_agent_text(answer.id, "It iz")

    history.set_agent_text(answer.id, "It is noon.")

    assert history.get(answer.id).text == "It is noon."


def test_a_final_transcript_does_not_change_back() -> None:
    history = make_history()
    item = history.add_user_audio(transcript="good morning")

    history.set_transcript(item.id, "good", final=False)

    assert history.get(item.id).text == "good morning"
    assert history.get(item.id).status == "completed"


def test_truncation_without_alignment_is_estimated_and_marked_so() -> None:
    history = make_history()
    answer = history.start_agent()
    history.set_agent_text(answer.id, "one two three four")

    cut = history.truncate_agent(answer.id, heard_ms=500, total_ms=1000)

    assert cut.context_text == "one two"
    assert cut.text == "one two three four"
    assert cut.heard_is_estimated
    assert cut.heard_ms == 500
    assert cut.status == "incomplete"


def test_truncation_with_alignment_is_exact() -> None:
    history = make_history()
    answer = history.start_agent()
    history.set_agent_text(answer.id, "one two three four")

    cut = history.truncate_agent(answer.id, 500, "one two three")

    assert cut.context_text == "one two three"
    assert not cut.heard_is_estimated


def test_truncation_takes_the_duration_that_the_item_has() -> None:
    history = make_history()
    answer = history.start_agent()
    history.set_agent_text(answer.id, "one two three four")
    history.finish_agent(answer.id, audio_ms=1000)

    assert history.truncate_agent(answer.id, 1000).context_text == "one two three four"


def test_truncation_of_unknown_duration_claims_nothing() -> None:
    history = make_history()
    answer = history.start_agent()
    history.set_agent_text(answer.id, "one two")

    assert history.truncate_agent(answer.id, 300).context_text == ""


def test_what_was_cut_stays_incomplete_when_the_response_ends() -> None:
    history = make_history()
    answer = history.start_agent()
    history.truncate_agent(answer.id, 100, "one")

    history.finish_agent(answer.id)

    assert history.get(answer.id).status == "incomplete"
    assert history.get(answer.id).heard_text == "one"


def test_a_tool_call_told_twice_is_one_item() -> None:
    history = make_history()

    first = history.add_tool_call("call_1", "clock", "")
    second = history.add_tool_call("call_1", "clock", '{"zone": "UTC"}')

    assert first.id == second.id
    assert len(history) == 1
    assert history.get(first.id).arguments == '{"zone": "UTC"}'


def test_open_calls_are_those_without_a_result() -> None:
    history = make_history()
    history.add_tool_call("call_1", "clock")
    history.add_tool_call("call_2", "clock")

    history.add_tool_result("call_1", "noon")

    assert [call.call_id for call in history.open_calls()] == ["call_2"]


def test_a_call_id_may_come_back_after_its_result() -> None:
    history = make_history()
    for output in ("noon", "one"):
        history.add_tool_call("call_1", "clock")
        history.add_tool_result("call_1", output)

    assert [item.text for item in history if item.role == "tool"] == ["", "noon", "", "one"]


@pytest.mark.parametrize("answered_before", [False, True])
def test_a_result_without_an_open_call_is_refused(answered_before: bool) -> None:
    history = make_history()
    if answered_before:
        history.add_tool_call("call_1", "clock")
        history.add_tool_result("call_1", "noon")
    n_before = len(history)

    with pytest.raises(UsageError, match="open tool call 'call_1'"):
        history.add_tool_result("call_1", "noon")

    assert len(history) == n_before


# -- by the application


def test_changes_by_the_application_are_told_and_recorded_ones_are_not() -> None:
    history = make_history()
    told: list[tuple[str, str, str]] = []
    history.on_change = lambda kind, item: told.append((kind, item.id, item.text))

    history.add_user_text("recorded")
    history.start_agent()
    history.append(Item("mine", ItemKind.USER_TEXT, "appended"))
    history.add_system("rule")
    history.add_image("data:image/png;base64,AA==", "a cat")
    history.edit("mine", text="edited")
    history.delete("mine")

    assert told == [
        ("append", "mine", "appended"),
        ("append", "item_3", "rule"),
        ("append", "item_4", "a cat"),
        ("edit", "mine", "edited"),
        ("delete", "mine", "edited"),
    ]


def test_an_appended_item_without_id_gets_one() -> None:
    history = make_history()

    item = history.append(Item("", ItemKind.USER_TEXT, "hello"))

    assert item.id == "item_1"


def test_deleting_a_tool_call_deletes_its_result_first() -> None:
    history = make_history()
    call = history.add_tool_call("call_1", "clock")
    history.add_tool_result("call_1", "noon")
    told: list[ItemKind] = []
    history.on_change = lambda kind, item: told.append(item.kind)

    history.delete(call.id)

    assert told == [ItemKind.TOOL_RESULT, ItemKind.TOOL_CALL]
    assert len(history) == 0


def test_an_id_that_is_taken_is_refused() -> None:
    history = make_history()
    history.append(Item("mine", ItemKind.USER_TEXT))

    with pytest.raises(UsageError, match="already has an item 'mine'"):
        history.append(Item("mine", ItemKind.SYSTEM))


def test_half_a_character_is_refused_and_changes_nothing() -> None:
    history = make_history()
    item = history.add_user_text("hello")

    calls: list[Callable[[], object]] = [
        lambda: history.add_system("\ud800"),
        lambda: history.add_image("data:image/png;base64,AAAA", "\udc00"),
        lambda: history.edit(item.id, text="\ud83d"),
    ]
    for call in calls:
        with pytest.raises(UsageError, match="half a surrogate pair"):
            call()

    assert list(history) == [item]


def test_new_text_takes_the_place_of_what_was_heard() -> None:
    history = make_history()
    item = history.start_agent()
    history.set_agent_text(item.id, "one two three four")
    history.truncate_agent(item.id, 500, total_ms=1000)

    edited = history.edit(item.id, text="[redacted]")
    given = history.edit(item.id, text="five six", heard_text="five")

    assert (edited.heard_text, edited.context_text) == (None, "[redacted]")
    assert given.context_text == "five"


@pytest.mark.parametrize("name", ["id", "kind", "call_id", "colour"])
def test_edit_refuses_what_it_cannot_change(name: str) -> None:
    history = make_history()
    item = history.add_user_text("hello")

    with pytest.raises(UsageError, match=f"cannot change '{name}'"):
        history.edit(item.id, **{name: "x"})


@pytest.mark.parametrize(
    "call",
    [
        lambda history: history.get("nope"),
        lambda history: history.edit("nope", text="x"),
        lambda history: history.delete("nope"),
        lambda history: history.set_transcript("nope", "x", True),
        lambda history: history.append_agent_text("nope", "x"),
        lambda history: history.set_agent_text("nope", "x"),
        lambda history: history.finish_agent("nope"),
        lambda history: history.truncate_agent("nope", 1),
        lambda history: history.set_user_audio("nope", b"", FORMAT),
        lambda history: history.bind("vendor", "nope", 1),
    ],
)
def test_an_unknown_id_is_refused_with_what_to_do(call: Callable[[History], object]) -> None:
    with pytest.raises(UsageError, match=r"no item 'nope'.*history\.items.*resolve"):
        call(make_history())


def test_a_call_for_another_kind_of_item_is_refused() -> None:
    history = make_history()
    item = history.add_user_text("hello")

    with pytest.raises(UsageError, match="is a user_text; this call is for items of kind agent"):
        history.append_agent_text(item.id, "x")


# -- items


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"kind": "poem"}, "one of user_text"),
        ({"kind": "user_text", "text": 5}, "Item.text got a int"),
        ({"kind": "user_text", "heard_ms": -1}, "an int from 0"),
        ({"kind": "user_text", "audio_ms": True}, "an int from 0"),
        ({"kind": "user_text", "status": "done"}, "in_progress"),
        ({"kind": "tool_call", "name": "clock"}, "needs call_id"),
        ({"kind": "tool_call", "call_id": "c"}, "needs name"),
        ({"kind": "tool_result"}, "needs call_id"),
        ({"kind": "image"}, "needs image_url"),
        ({"kind": "user_audio", "audio": b"\0\0"}, "needs audio_format"),
        ({"kind": "agent", "audio": b"\0\0", "audio_format": FORMAT}, "user_audio"),
    ],
)
def test_a_wrong_item_is_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        Item("x", **fields)


def test_audio_of_half_a_frame_is_refused_and_not_recorded() -> None:
    history = make_history()

    with pytest.raises(AudioFormatError, match="3 bytes"):
        history.add_user_audio(b"abc", FORMAT)

    assert len(history) == 0


def test_repr_shows_neither_text_nor_audio() -> None:
    item = Item(
        "x",
        ItemKind.USER_AUDIO,
        "my secret",
        heard_text="my secret",
        audio=b"secret",
        audio_format=FORMAT,
        arguments="my secret",
    )
    history = make_history()
    history.append(item)

    assert "secret" not in repr(item) + repr(history)


# -- audio


def test_audio_of_a_transcribed_turn_goes_when_it_is_answered() -> None:
    history = make_history()
    item = history.add_user_audio(SECOND, FORMAT, "hello")
    answer = history.start_agent()
    assert history.get(item.id).audio is not None

    history.append_agent_text(answer.id, "Hi")

    assert history.get(item.id).audio is None
    assert history.get(item.id).audio_ms == 1000


def test_a_transcript_that_comes_after_the_answer_lets_the_audio_go() -> None:
    history = make_history()
    item = history.add_user_audio(SECOND, FORMAT, status="in_progress")
    answer = history.start_agent()
    history.finish_agent(answer.id)
    assert history.get(item.id).audio is not None

    history.set_transcript(item.id, "hello", final=True)

    assert history.get(item.id).audio is None


def test_the_next_turn_keeps_its_audio_while_the_one_before_is_answered() -> None:
    history = make_history()
    history.add_user_audio(SECOND, FORMAT, "hello")
    answer = history.start_agent()
    following = history.add_user_audio(SECOND, FORMAT, "wait")

    history.append_agent_text(answer.id, "Hi")

    assert history.get(following.id).audio is not None


def test_a_response_without_output_answers_nothing() -> None:
    history = make_history()
    item = history.add_user_audio(SECOND, FORMAT, "hello")

    answer = history.start_agent()
    history.truncate_agent(answer.id, 0)

    assert history.get(item.id).audio is not None


def test_audio_that_comes_late_is_attached() -> None:
    history = make_history()
    item = history.add_user_audio(status="in_progress")

    history.set_user_audio(item.id, SECOND, FORMAT)

    assert history.get(item.id).audio_ms == 1000
    assert history.audio_ms == 1000


def test_zero_seconds_keep_no_audio() -> None:
    history = make_history(keep_audio_s=0)

    item = history.add_user_audio(SECOND, FORMAT)

    assert item.audio is None
    assert item.audio_ms == 1000


def test_kept_seconds_outlive_the_answer() -> None:
    history = make_history(keep_audio_s=10)
    item = history.add_user_audio(SECOND, FORMAT, "hello")

    answer = history.start_agent()
    history.set_agent_text(answer.id, "Hi")

    assert history.get(item.id).audio == SECOND


@given(
    lengths=st.lists(st.integers(1, 40), max_size=12),
    keep_s=st.one_of(st.none(), st.integers(0, 10)),
)
def test_audio_is_bounded_newest_kept_and_durations_stay(lengths: list[int], keep_s: int | None) -> None:
    history = make_history(keep_audio_s=keep_s, max_audio_s=8)
    for tenths in lengths:
        history.add_user_audio(bytes(1600 * tenths), FORMAT)

    bound_ms = (8 if keep_s is None else keep_s) * 1000
    assert history.audio_ms <= bound_ms
    assert [item.audio_ms for item in history] == [tenths * 100 for tenths in lengths]
    fitting = [item for item in history if item.audio_ms <= bound_ms]
    kept = [item.audio is not None for item in fitting]
    assert kept == sorted(kept), "no newer item lost its audio while an older one of fitting length kept its"
    assert all(item.audio is None for item in history if item.audio_ms > bound_ms)


# -- bounds


def test_text_is_not_bounded_by_default() -> None:
    history = make_history()
    for number in range(2000):
        history.add_user_text(str(number))

    assert [item.text for item in history] == [str(number) for number in range(2000)]


def test_max_items_forgets_the_oldest_keeps_system_items_and_counts() -> None:
    history = make_history(max_items=3)
    history.add_system("rule")
    for text in "abcd":
        history.add_user_text(text)

    assert [item.text for item in history] == ["rule", "c", "d"]
    assert history.n_forgotten == 2


def test_a_new_item_is_never_the_one_forgotten() -> None:
    history = make_history(max_items=1)
    history.add_system("rule")

    history.add_user_text("hello")

    assert [item.text for item in history] == ["hello"]


def test_max_items_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_items is 0"):
        make_history(max_items=0)


# -- vendors' ids


def test_a_vendors_ids_are_known_per_session() -> None:
    history = make_history()
    first, second = history.add_user_text("a"), history.add_user_text("b")

    history.bind("v_1", first.id, epoch=1)
    history.bind("v_1", second.id, epoch=2)

    assert history.resolve("v_1", 1) == first.id
    assert history.resolve("v_1", 2) == second.id
    assert history.vendor_id(first.id, 1) == "v_1"
    assert history.vendor_id(first.id, 2) is None
    assert history.resolve("v_2", 1) is None


def test_a_released_session_and_a_deleted_item_leave_no_ids() -> None:
    history = make_history()
    first, second = history.add_user_text("a"), history.add_user_text("b")
    history.bind("v_1", first.id, 1)
    history.bind("v_2", second.id, 1)
    history.bind("v_1", second.id, 2)

    history.delete(first.id)
    history.release(2)

    assert history.resolve("v_1", 1) is None
    assert history.resolve("v_2", 1) == second.id
    assert history.resolve("v_1", 2) is None


# -- export


def test_an_export_is_plain_json_and_leaves_out_audio_on_request() -> None:
    history = make_history()
    history.add_user_audio(SECOND, FORMAT)

    with_audio, without = history.export(), history.export(include_audio=False)

    assert json.loads(json.dumps(with_audio)) == with_audio
    assert History.load(with_audio).items == history.items
    (item,) = History.load(without).items
    assert item.audio is None
    assert item.audio_ms == 1000


def test_new_ids_after_a_load_do_not_meet_loaded_ones() -> None:
    history = make_history()
    history.add_user_text("a")
    numbers = itertools.count(1)

    loaded = History.load(history.export(), new_id=lambda prefix: f"{prefix}{next(numbers)}")

    assert loaded.add_user_text("b").id == "item_2"


def test_a_load_applies_its_own_bounds() -> None:
    history = make_history(keep_audio_s=60)
    history.add_user_audio(SECOND, FORMAT, "hello")
    answer = history.start_agent()
    history.set_agent_text(answer.id, "Hi")

    loaded = History.load(history.export())

    assert loaded.audio_ms == 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"kind": "something"}, "no exported history"),
        ({"version": 2}, "has version 2; this voxengine reads version 1"),
        ({"version": None}, "has version None"),
        ({"items": None}, "no list of items"),
        ({"items": ["x"]}, "Item 0 .* no mapping"),
        ({"items": [{"id": "a"}]}, "Item 0 .* no kind"),
        ({"items": [{"id": "", "kind": "system"}]}, "id is empty"),
        ({"items": [{"id": "a", "kind": "system"}] * 2}, "Item 1 .* not the only one"),
        ({"items": [{"id": "a", "kind": "system", "mood": 1}]}, "unknown field 'mood'"),
        ({"items": [{"id": "a", "kind": "user_audio", "audio": "?"}]}, "no base64"),
        ({"items": [{"id": "a", "kind": "user_audio", "audio_format": {"hz": 1}}]}, "unknown fields"),
        ({"items": [{"id": "a", "kind": "user_audio", "audio_format": {"sample_rate": 1}}]}, "1 Hz"),
        ({"items": [{"id": "a", "kind": "user_text", "text": None}]}, "Item.text"),
    ],
)
def test_a_wrong_export_is_refused(change: dict[str, Any], sentence: str) -> None:
    value = {**make_history().export(), **change}

    with pytest.raises(ConfigError, match=sentence):
        History.load(value)


def test_what_is_no_mapping_is_refused() -> None:
    with pytest.raises(ConfigError, match="no exported history"):
        History.load([])


def test_importing_the_history_loads_no_numpy_and_no_asyncio() -> None:
    code = "import sys, voxengine.history; print({'numpy', 'asyncio', 'websockets'} & set(sys.modules))"

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "set()"
