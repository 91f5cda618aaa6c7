"""Events: one frozen class per type, with the fields that applications are promised."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxengine import events
from voxengine.errors import UsageError
from voxengine.events import Event, EventType, LazyAudio, event_class, event_fields, make_event, raw_data

# The table that applications are written against, on purpose written out a second time.
TABLE: Mapping[str, str] = {
    "connection_starting": "attempt",
    "connection_established": "session_id latency_ms",
    "connection_failed": "error will_retry",
    "connection_lost": "error will_reconnect",
    "connection_closed": "reason duration_s",
    "session_updated": "settings",
    "session_expiring": "deadline_s reason",
    "provider_switching": "from_provider to_provider reason",
    "provider_switched": "from_provider to_provider reason gap_ms replayed_ms context",
    "audio_input_started": "device sample_rate",
    "audio_input_stopped": "device sample_rate",
    "audio_input_chunk": "audio_data sample_rate",
    "audio_input_dropped": "n_samples reason",
    "speech_started": "at_ms source",
    "speech_ended": "at_ms source",
    "input_transcript": "text delta is_partial item_id words language",
    "response_started": "response_id trigger",
    "response_completed": "response_id status usage",
    "response_cancelled": "response_id reason heard_ms heard_text heard_is_estimated",
    "text_output": "text delta is_partial response_id item_id",
    "audio_output_started": "response_id item_id",
    "audio_output_chunk": "audio_data sample_rate channels response_id item_id",
    "audio_output_stopped": "response_id item_id played_ms",
    "interrupted": "response_id heard_ms",
    "turn_changed": "from_role to_role",
    "function_call_invoked": "name call_id arguments",
    "function_call_completed": "name call_id result",
    "function_call_failed": "name call_id error",
    "speech_mark": "kind value at_ms",
    "emotion": "label score item_id",
    "usage_updated": "usage cost",
    "rate_limits": "limits",
    "warning": "code message",
    "vendor_event": "name payload",
    "error_general": "error recoverable",
    "error_audio": "error recoverable",
    "error_network": "error recoverable",
}
OUTPUTS = ["response_started", "response_completed", "response_cancelled", "text_output"] + [
    f"audio_output_{what}" for what in ("started", "chunk", "stopped")
]
each_type = pytest.mark.parametrize("event_type", list(EventType))
keys = st.text(min_size=1, max_size=8)
values = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.binary(max_size=8)


def test_list_of_types_is_the_promised_one() -> None:
    assert {str(event_type) for event_type in EventType} == set(TABLE)


@each_type
def test_type_has_a_class_of_its_own_with_the_promised_fields(event_type: EventType) -> None:
    cls = event_class(event_type)

    assert cls.type is event_type
    assert cls.fields == set(TABLE[event_type].split()) == event_fields(event_type)
    assert cls.__name__ in events.__all__
    assert cls.__doc__
    assert len({event_class(other) for other in EventType}) == len(EventType)


@pytest.mark.parametrize("event_type", OUTPUTS)
def test_every_output_event_names_its_response(event_type: str) -> None:
    assert "response_id" in event_fields(event_type)


@each_type
def test_type_compares_equal_to_its_string_and_is_found_by_it(event_type: EventType) -> None:
    assert event_type == event_type.value == event_type.name.lower()
    assert event_class(event_type.value) is event_class(event_type)


@each_type
def test_fields_are_attributes_and_none_when_not_emitted(event_type: EventType) -> None:
    given_fields = {name: f"value of {name}" for name in event_fields(event_type)}

    full, empty = make_event(event_type, given_fields), make_event(event_type)

    for name, value in given_fields.items():
        assert getattr(full, name) == value
        assert getattr(empty, name) is None


@each_type
def test_event_is_immutable(event_type: EventType) -> None:
    event = make_event(event_type, {"extra": 1}, timestamp=2.0)

    for name in ("timestamp", "provider", "data", "invented", *event_fields(event_type)):
        with pytest.raises(AttributeError, match="immutable"):
            setattr(event, name, 1)
    with pytest.raises(AttributeError, match="immutable"):
        del event.timestamp
    with pytest.raises(TypeError):
        event.data["extra"] = 2  # type: ignore[index]
    assert event.timestamp == 2.0


def test_unknown_type_is_refused_with_the_way_out() -> None:
    for call in (event_class, event_fields, make_event):
        with pytest.raises(UsageError, match="VENDOR_EVENT"):
            call("sunrise")


def test_unknown_attribute_names_the_fields() -> None:
    with pytest.raises(AttributeError, match=r"TextOutput has no field 'speed'.*delta, is_partial"):
        _ = make_event(EventType.TEXT_OUTPUT, {"speed": 3}).speed


def test_keys_that_are_no_fields_stay_in_data() -> None:
    event = make_event(EventType.TEXT_OUTPUT, {"text": "a", "vendor_score": 0.5})

    assert dict(event.data) == {"text": "a", "vendor_score": 0.5}


def test_header_names_win_as_attributes_and_data_keeps_the_emitted_value() -> None:
    emitted = {"provider": "azure", "timestamp": "yesterday", "type": "x", "data": 1, "session_epoch": 99}

    event = make_event("warning", emitted, timestamp=4.0, provider="acme", session_epoch=3)

    assert (event.provider, event.timestamp, event.session_epoch) == ("acme", 4.0, 3)
    assert event.type is EventType.WARNING
    assert dict(event.data) == emitted


def test_later_change_of_the_callers_mapping_does_not_reach_the_event() -> None:
    emitted = {"text": "before"}
    event = make_event(EventType.TEXT_OUTPUT, emitted)

    emitted["text"] = "after"

    assert event.text == "before"


@given(
    st.sampled_from(list(EventType)),
    st.dictionaries(keys, values, max_size=4),
    st.floats(0, 1e6),
    keys,
    st.integers(0, 9),
)
def test_pickle_keeps_everything(
    event_type: EventType, data: dict[str, Any], now: float, provider: str, epoch: int
) -> None:
    event = make_event(event_type, data, timestamp=now, provider=provider, session_epoch=epoch)

    copy = pickle.loads(pickle.dumps(event))  # noqa: S301 - our own object

    assert copy == event
    assert type(copy) is type(event)


def test_replace_changes_data_and_header_and_leaves_the_original() -> None:
    event = make_event("text_output", {"text": "a", "extra": 1}, timestamp=1.0, provider="p", session_epoch=2)

    changed = event.replace(text="b", timestamp=5.0)

    assert (changed.text, changed.timestamp, changed.provider, changed.session_epoch) == ("b", 5.0, "p", 2)
    assert changed.data["extra"] == 1
    assert (event.text, event.timestamp) == ("a", 1.0)


@pytest.mark.parametrize(
    "changes", [{"text": "b"}, {"timestamp": 9.0}, {"provider": "q"}, {"session_epoch": 5}]
)
def test_events_that_differ_anywhere_are_not_equal(changes: dict[str, Any]) -> None:
    event = make_event("text_output", {"text": "a"}, timestamp=1.0, provider="p", session_epoch=2)

    assert event == event.replace()
    assert event != event.replace(**changes)
    assert event != make_event(
        "input_transcript", {"text": "a"}, timestamp=1.0, provider="p", session_epoch=2
    )


@each_type
def test_repr_shows_neither_text_nor_audio_nor_errors(event_type: EventType) -> None:
    event = make_event(event_type, dict.fromkeys(event_fields(event_type), "WHAT-WAS-SAID"), provider="acme")

    shown = f"{event!r} {event}"

    assert "WHAT-WAS-SAID" not in shown
    assert type(event).__name__ in shown
    assert "'acme'" in shown


def lazy(calls: list[bytes], *, n_bytes: int | None = None) -> LazyAudio:
    def decode(encoded: bytes) -> bytes:
        calls.append(encoded)
        return encoded * 2

    return LazyAudio(b"ab", decode, n_bytes)


def test_audio_is_not_decoded_until_somebody_asks() -> None:
    calls: list[bytes] = []

    event = make_event("audio_output_chunk", {"audio_data": lazy(calls), "sample_rate": 8000})
    repr(event)
    sorted(event.data)
    held = event.replace(timestamp=3.0)

    assert calls == []
    assert event.sample_rate == held.sample_rate == 8000


def test_audio_is_decoded_once_however_often_it_is_read() -> None:
    calls: list[bytes] = []
    event = make_event("audio_output_chunk", {"audio_data": lazy(calls)})
    copy = event.replace(provider="other")

    first, second, third = event.audio_data, event.data["audio_data"], copy.audio_data

    assert first == b"abab"
    assert first is second is third
    assert calls == [b"ab"]


def test_length_of_audio_is_known_without_decoding_where_the_vendor_says_it() -> None:
    calls: list[bytes] = []
    told, untold = lazy(calls, n_bytes=4), lazy(calls)

    assert told.n_bytes == 4
    assert calls == []
    assert untold.n_bytes == 4
    assert calls == [b"ab"]


def test_raw_data_gives_the_audio_still_encoded() -> None:
    audio = lazy([])
    event = make_event("audio_output_chunk", {"audio_data": audio})

    assert raw_data(event.data)["audio_data"] is audio


def test_pickling_decodes_audio() -> None:
    event = make_event("audio_output_chunk", {"audio_data": lazy([])})

    copy = pickle.loads(pickle.dumps(event))  # noqa: S301 - our own object

    assert copy.audio_data == b"abab"


def test_payload_hides_itself() -> None:
    assert "ab" not in repr(lazy([])).removeprefix("LazyAudio")


def test_events_can_be_keys() -> None:
    one, two = make_event("warning"), make_event("warning")

    assert len({one, two, one}) == 2


def test_base_class_is_the_type_of_all() -> None:
    assert all(issubclass(event_class(event_type), Event) for event_type in EventType)
