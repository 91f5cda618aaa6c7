"""The tables of the codec against the official SDK's types: a new version of the SDK shows here first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import pytest
from msgspec import inspect
from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent

from tests.plugins.openai.sdk_types import (
    CLIENT_TYPES,
    OBFUSCATED,
    SERVER_TYPES,
    bare,
    check_client,
    check_conversation,
    check_server,
    event_name,
    fields_of,
    is_object,
    members,
)
from voxengine_openai.messages import CLIENT_EVENTS, SERVER_EVENTS, AudioDelta
from voxengine_openai.schema import EVENTS, ITEMS, ROLES, Item, ItemOrReference

# --- Names ---------------------------------------------------------------------------------------


def test_names_of_the_client_s_events_are_the_union_s() -> None:
    assert CLIENT_EVENTS == {event_name(cls) for cls in members(RealtimeClientEvent)} == set(CLIENT_TYPES)


def test_names_of_the_server_s_events_are_the_union_s() -> None:
    assert set(SERVER_EVENTS) == {event_name(cls) for cls in members(RealtimeServerEvent)}


def test_schema_has_every_event_of_a_client() -> None:
    assert set(EVENTS) == CLIENT_EVENTS


def test_audio_delta_has_the_fields_of_its_event() -> None:
    assert {*AudioDelta._fields, "type"} == set(fields_of(SERVER_TYPES["response.output_audio.delta"]))


# --- What the client end insists on --------------------------------------------------------------


def annotations_at(annotation: Any, path: list[str]) -> Iterator[tuple[Any, bool]]:
    """Each annotation that a path can lead to, with "is required where it stands"."""
    head, *rest = path
    for kind in members(annotation):
        if head == "*" and get_origin(kind) is list:
            inner, is_required = get_args(kind)[0], True
        elif is_object(kind) and head in fields_of(kind):
            inner, is_required = fields_of(kind)[head]
        else:
            continue
        if rest:
            yield from annotations_at(inner, rest)
        else:
            yield inner, is_required


def json_types(annotation: Any) -> set[type]:
    found = set()
    for kind in members(annotation):
        if get_origin(kind) is Literal:
            found |= {type(word) for word in get_args(kind)}
        else:
            found.add(dict if is_object(kind) else get_origin(kind) or kind)
    return found - {type(None)}


ROWS = [(name, path) for name, rows in SERVER_EVENTS.items() for path in rows]
# The types are those of a request; what travels has these as well.
_EFFECTIVE = {"session.id?": str, "session.expires_at?": int}
# The types let these be absent; nothing can be done with an answer or an item that has none.
_WANTED_ANYWAY = {"response.id", "item.id"}


@pytest.mark.parametrize(("name", "path"), ROWS)
def test_client_insists_on_no_more_than_the_types_promise(name: str, path: str) -> None:
    kind = SERVER_EVENTS[name][path]
    if path in _EFFECTIVE:
        assert kind is _EFFECTIVE[path]
        return

    found = list(annotations_at(SERVER_TYPES[name], path.replace("?", "").split(".")))

    assert found
    assert set.union(*(json_types(annotation) for annotation, _ in found)) == {kind}
    if not path.endswith("?") and path not in _WANTED_ANYWAY:
        assert all(is_required for _, is_required in found)


# --- What the server end takes -------------------------------------------------------------------


def same(kind: inspect.Type, annotation: Any, path: str) -> None:
    """Assert that a type of the schema and one of the SDK take the same values, but for limits and nulls."""
    ours = [member for member in flat(kind) if not isinstance(member, inspect.NoneType)]
    theirs = [member for member in members(annotation) if member is not type(None)]
    objects = [member for member in theirs if is_object(member)]
    structs = [member for member in ours if isinstance(member, inspect.StructType)]
    assert (
        literals(ours)
        == {word for member in theirs if get_origin(member) is Literal for word in get_args(member)}
        or str in theirs
    ), path
    assert len(structs) == len(objects), path
    for cls in objects:
        same_object(struct_for(cls, structs), cls, path)
    lists = [member for member in ours if isinstance(member, inspect.ListType)]
    for member in theirs:
        if isinstance(bare(member), type) or get_origin(member) is Literal:
            continue
        if get_origin(member) is dict:
            (mapping,) = [one for one in ours if isinstance(one, inspect.DictType)]
            same(mapping.value_type, get_args(member)[1], f"{path}.*")
        else:
            same(lists[0].item_type, get_args(member)[0], f"{path}[]")


def flat(kind: inspect.Type) -> list[inspect.Type]:
    if isinstance(kind, inspect.UnionType):
        return [part for member in kind.types for part in flat(member)]
    if isinstance(kind, inspect.CustomType):
        items = {**ITEMS, **ROLES}
        if kind.cls is Item:
            del items["item_reference"]
        assert kind.cls in (Item, ItemOrReference)
        return [inspect.type_info(cls) for cls in items.values()]
    return [kind]


def literals(kinds: list[inspect.Type]) -> set[Any]:
    return {word for kind in kinds if isinstance(kind, inspect.LiteralType) for word in kind.values}


def tags(cls: Any) -> dict[str, Any]:
    """The fields that tell the objects of a union apart."""
    fields = {name: annotation for name, (annotation, _) in fields_of(cls).items()}
    return {
        name: get_args(members(fields[name])[0])[0]
        for name in ("type", "role")
        if name in fields and get_origin(members(fields[name])[0]) is Literal
    }


def struct_for(cls: Any, structs: list[inspect.StructType]) -> inspect.StructType:
    if len(structs) == 1:
        return structs[0]
    wanted = tags(cls)
    (found,) = [
        struct
        for struct in structs
        if struct.tag == wanted.get("type")
        and all(
            word == wanted["role"]
            for field in struct.fields
            if field.name == "role"
            for word in literals([field.type])
        )
    ]
    return found


# The SDK writes the content of a message flat, the schema one struct per kind of part.
_PARTS = "content"
# "object" in the SDK; the service wants a JSON schema.
_LOOSE = "parameters"


def same_object(struct: inspect.StructType, cls: Any, path: str) -> None:
    ours = {field.name: field for field in struct.fields}
    theirs = {name: kind for name, kind in fields_of(cls).items() if name != struct.tag_field}
    assert set(ours) == set(theirs), path
    for name, field in ours.items():
        annotation, is_required = theirs[name]
        inner = f"{path}.{name}"
        assert field.required or not is_required, inner
        if name == _PARTS:
            same_parts(field.type, annotation, inner)
        elif name != _LOOSE and not isinstance(field.type, inspect.AnyType):
            same(field.type, annotation, inner)


def same_parts(kind: Any, annotation: Any, path: str) -> None:
    (flat_part,) = members(get_args(bare(annotation))[0])
    types = set(get_args(members(fields_of(flat_part)["type"][0])[0]))
    structs = [struct for struct in flat(kind.item_type) if isinstance(struct, inspect.StructType)]
    names = {field.name for struct in structs for field in struct.fields} | {"type"}
    # A client makes no audio of the assistant's.
    assert {struct.tag for struct in structs} == types - {"output_audio"}, path
    assert names == set(fields_of(flat_part)) - (
        {"audio", "transcript"} if "output_audio" in types else set()
    )


@pytest.mark.parametrize("name", sorted(CLIENT_TYPES))
def test_schema_has_the_fields_and_values_of_the_types(name: str) -> None:
    struct = inspect.type_info(EVENTS[name])

    assert isinstance(struct, inspect.StructType)
    same_object(struct, CLIENT_TYPES[name], name)


# --- The judge itself ----------------------------------------------------------------------------

UPDATE: dict[str, Any] = {"type": "session.update", "session": {"type": "realtime", "audio": {"input": {}}}}
ITEM: dict[str, Any] = {
    "type": "conversation.item.create",
    "item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
}


def changed(event: dict[str, Any], path: str, value: Any) -> str:
    copied = json.loads(json.dumps(event))
    *way, last = path.split(".")
    holder = copied
    for key in way:
        holder = holder[int(key) if key.isdigit() else key]
    if value is None:
        del holder[last]
    else:
        holder[last] = value
    return json.dumps(copied)


@pytest.mark.parametrize(
    ("event", "path", "value"),
    [
        (UPDATE, "session.type", None),
        (UPDATE, "session.temperature", 0.8),
        (UPDATE, "session.audio.input.vad", {}),
        (UPDATE, "session.audio.input.turn_detection", {"type": "server_vad", "treshold": 0.5}),
        (UPDATE, "session.tools", [{"type": "function", "name": "f", "strict": True}]),
        (UPDATE, "session.instructions", 5),
        (UPDATE, "session.output_modalities", ["video"]),
        (ITEM, "item.role", None),
        (ITEM, "item.content.0.text", 5),
        (ITEM, "item.content.0.type", "text"),
        (ITEM, "item.content.0.bold", True),
        (ITEM, "previous", "item_1"),
    ],
)
def test_judge_refuses_a_client_s_mistake_at_any_depth(event: dict[str, Any], path: str, value: Any) -> None:
    check_client(json.dumps(event))

    with pytest.raises(AssertionError, match=path.rpartition(".")[2]):
        check_client(changed(event, path, value))


DONE: dict[str, Any] = {
    "type": "response.done",
    "event_id": "event_1",
    "response": {"id": "resp_1", "output": [], "usage": {"output_token_details": {"text_tokens": 1}}},
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("event_id", None),
        ("response.usage.output_token_details.video_tokens", 1),
        ("response.usage.output_token_details.text_tokens", "1"),
        ("response.status", "done"),
        ("response.voice", "alloy"),
        ("response.output", [{"type": "message", "role": "assistant", "content": [{"type": "text"}]}]),
        ("obfuscation", "x"),
    ],
)
def test_judge_refuses_a_server_s_mistake_at_any_depth(path: str, value: Any) -> None:
    check_server(json.dumps(DONE))

    with pytest.raises(AssertionError, match="response.done"):
        check_server(changed(DONE, path, value))


def test_judge_lets_pass_what_the_live_service_adds() -> None:
    delta = dict.fromkeys(("response_id", "item_id", "delta", "event_id", "obfuscation"), "x")
    session = {
        "type": "realtime",
        "id": "sess_1",
        "object": "realtime.session",
        "expires_at": 1,
        "tracing": None,
    }
    transcription = {"type": "transcription", "id": "sess_1", "object": "realtime.transcription_session"}
    events = [
        {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, **delta},
        {"type": "session.created", "event_id": "e", "session": session},
        {"type": "session.updated", "event_id": "e", "session": transcription},
    ]

    found = check_conversation(("server", json.dumps(event)) for event in events)

    assert found == events
    assert "response.output_text.delta" in OBFUSCATED


@pytest.mark.parametrize("check", [check_client, check_server])
def test_judge_refuses_what_is_no_event(check: Any) -> None:
    for text in ("[]", "{}", '{"type":"x.new"}', '{"type":"error","event_id":NaN}'):
        with pytest.raises(AssertionError):
            check(text)
