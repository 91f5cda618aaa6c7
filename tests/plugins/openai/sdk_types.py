"""The official SDK's types as a judge of what travels, stricter than the SDK itself.

The SDK's models let unknown keys pass and check some lists only when they are read. Here every nested
value is compared with its annotation, and a key that no type has is a failure wherever it stands.

    check_client(text)     what a client sent
    check_server(text)     what a server sent
    check_conversation(pairs)     all of it: ("client" | "server", text)
    check_secret(text)     the answer to a request for a client secret
    check_session(session)     a session object as a server shows it

Each returns the parsed event, or raises an AssertionError that lists what is wrong by path.
"""

from __future__ import annotations

import collections.abc
import functools
import json
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, Required, TypeAlias, Union, get_args, get_origin

import pydantic
import typing_extensions
from openai.types.realtime import ClientSecretCreateResponse, RealtimeClientEvent, RealtimeServerEvent
from openai.types.realtime.realtime_client_event_param import RealtimeClientEventParam
from openai.types.realtime.realtime_session_create_response import RealtimeSessionCreateResponse
from openai.types.realtime.realtime_transcription_session_create_response import (
    RealtimeTranscriptionSessionCreateResponse,
)
from openai.types.realtime.response_create_event_with_references_param import (
    ResponseCreateEventWithReferencesParam,
)

__all__ = [
    "CLIENT_TYPES",
    "OBFUSCATED",
    "SERVER_TYPES",
    "SESSIONS",
    "bare",
    "check_client",
    "check_conversation",
    "check_secret",
    "check_server",
    "check_session",
    "event_name",
    "fields_of",
    "is_object",
    "members",
    "problems",
]

_UNIONS = (Union, types.UnionType)
_LISTS = (list, Iterable, collections.abc.Iterable, collections.abc.Sequence)

# What the documentation lets a client clear with null although the type of the request has no null.
CLEARED_BY_NULL = frozenset(
    {
        "session.audio.input.noise_reduction",
        "session.audio.input.transcription",
    }
)

# On the wire of the live service and in no type: noise against guessing text from the size of messages.
OBFUSCATED = frozenset(
    {
        "conversation.item.input_audio_transcription.delta",
        "response.function_call_arguments.delta",
        "response.output_audio_transcript.delta",
        "response.output_text.delta",
    }
)


# --- Reading annotations -------------------------------------------------------------------------


def bare(annotation: Any) -> Any:
    """Take off what says nothing about the value: Annotated, Required, NotRequired, type aliases."""
    while True:
        origin = get_origin(annotation)
        if origin in (Annotated, Required, typing.NotRequired) or origin in (
            typing_extensions.Required,
            typing_extensions.NotRequired,
        ):
            annotation = get_args(annotation)[0]
        elif hasattr(annotation, "__value__"):
            annotation = annotation.__value__
        else:
            return annotation


def members(annotation: Any) -> list[Any]:
    """The alternatives of a union, flat; anything else is its only one."""
    annotation = bare(annotation)
    if get_origin(annotation) in _UNIONS:
        return [member for part in get_args(annotation) for member in members(part)]
    return [annotation]


def is_object(annotation: Any) -> bool:
    return typing_extensions.is_typeddict(annotation) or (
        isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel)
    )


@functools.cache
def fields_of(cls: Any) -> dict[str, tuple[Any, bool]]:
    """Annotation and "is required" of each field of a model or TypedDict, under its name on the wire."""
    if typing_extensions.is_typeddict(cls):
        hints = typing_extensions.get_type_hints(cls, include_extras=True)
        # Not __required_keys__: under the future import it has not seen the Required in the annotations.
        return {name: (hint, _is_required(hint, total=cls.__total__)) for name, hint in hints.items()}
    return {
        field.alias or name: (field.annotation, field.is_required())
        for name, field in cls.model_fields.items()
    }


def _is_required(hint: Any, *, total: bool) -> bool:
    origin = get_origin(hint)
    if origin in (Required, typing_extensions.Required):
        return True
    return total and origin not in (typing.NotRequired, typing_extensions.NotRequired)


def event_name(cls: Any) -> str:
    (name,) = get_args(bare(fields_of(cls)["type"][0]))
    return str(name)


# --- Comparing a value with its annotation -------------------------------------------------------

_PLAIN: dict[Any, Any] = {str: str, int: int, bool: bool, float: (int, float), type(None): type(None)}


def problems(value: Any, annotation: Any, path: str = "", cleared: frozenset[str] = frozenset()) -> list[str]:
    """What is wrong with a JSON value, by path; empty when nothing is."""
    if value is None and path in cleared:
        return []
    found = [_problems_of_one(value, member, path, cleared) for member in _candidates(value, annotation)]
    return min(found, key=len) if found else [f"{path or 'the event'}: no type takes this value"]


def _candidates(value: Any, annotation: Any) -> Iterator[Any]:
    """The members of a union that a value can mean: objects are told apart by their literal fields."""
    alternatives = members(annotation)
    if isinstance(value, dict):
        meant = [member for member in alternatives if is_object(member) and _literals_fit(value, member)]
        alternatives = meant or alternatives
    yield from alternatives


def _literals_fit(value: dict[str, Any], cls: Any) -> bool:
    for name, (annotation, is_required) in fields_of(cls).items():
        kinds = members(annotation)
        if is_required and all(get_origin(kind) is Literal for kind in kinds):
            allowed = [word for kind in kinds for word in get_args(kind)]
            if value.get(name) not in allowed:
                return False
    return True


def _problems_of_one(value: Any, annotation: Any, path: str, cleared: frozenset[str]) -> list[str]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    place = path or "the event"
    if annotation in (object, Any):
        return []
    if origin is Literal:
        fits = any(type(value) is type(word) and value == word for word in arguments)
        return [] if fits else [f"{place}: not one of {arguments}"]
    if annotation in _PLAIN:
        fits = isinstance(value, _PLAIN[annotation]) and (annotation is bool or not isinstance(value, bool))
        return [] if fits else [f"{place}: {type(value).__name__} is no {annotation.__name__}"]
    if is_object(annotation):
        return _problems_of_object(value, annotation, path, cleared)
    if origin in _LISTS:
        if not isinstance(value, list):
            return [f"{place}: {type(value).__name__} is no list"]
        nested = [problems(item, arguments[0], f"{path}[{i}]", cleared) for i, item in enumerate(value)]
        return [problem for one in nested for problem in one]
    if origin is dict or origin is collections.abc.Mapping:
        if not isinstance(value, dict):
            return [f"{place}: {type(value).__name__} is no object"]
        nested = [problems(item, arguments[1], f"{path}.{key}", cleared) for key, item in value.items()]
        return [problem for one in nested for problem in one]
    raise NotImplementedError(f"{place}: an annotation that this judge does not know: {annotation}")


def _problems_of_object(value: Any, cls: Any, path: str, cleared: frozenset[str]) -> list[str]:
    if not isinstance(value, dict):
        return [f"{path or 'the event'}: {type(value).__name__} is no object"]
    fields = fields_of(cls)
    prefix = f"{path}." if path else ""
    found = [f"{prefix}{name}: missing" for name, (_, must) in fields.items() if must and name not in value]
    for name, item in value.items():
        if name not in fields:
            found.append(f"{prefix}{name}: unknown to {cls.__name__}")
        else:
            found += problems(item, fields[name][0], f"{prefix}{name}", cleared)
    return found


# --- The events ----------------------------------------------------------------------------------

CLIENT_TYPES: dict[str, Any] = {
    **{event_name(cls): cls for cls in members(RealtimeClientEventParam)},
    # The same event with references to items in its input.
    "response.create": ResponseCreateEventWithReferencesParam,
}
"""The type of each event of a client."""

SERVER_TYPES: dict[str, Any] = {event_name(cls): cls for cls in members(RealtimeServerEvent)}
"""The type of each event of a server."""

SESSIONS: TypeAlias = RealtimeSessionCreateResponse | RealtimeTranscriptionSessionCreateResponse
"""A session as a server shows it."""


def check_session(session: Any, where: str = "session") -> None:
    """Judge a session object as a server shows it."""
    found = problems(session, SESSIONS, "session")
    assert not found, _report(where, found)


def check_secret(text: str | bytes) -> dict[str, Any]:
    """Judge the answer to a request for a client secret and return it parsed."""
    answer = json.loads(text, parse_constant=_refuse_constant)
    found = problems(answer, ClientSecretCreateResponse)
    assert not found, _report("the client secret", found)
    pydantic.TypeAdapter(ClientSecretCreateResponse).validate_json(text, strict=True)
    assert isinstance(answer, dict)
    return answer


def check_client(text: str | bytes) -> dict[str, Any]:
    """Judge one message of a client and return it parsed."""
    event = _parse(text)
    cls = CLIENT_TYPES.get(event["type"])
    assert cls is not None, f"{event['type']} is no event of a client"
    _judge(event, cls, CLEARED_BY_NULL)
    _validate(_without_references(event), "client")
    return event


def check_server(text: str | bytes) -> dict[str, Any]:
    """Judge one message of a server and return it parsed."""
    event = _parse(text)
    cls = SERVER_TYPES.get(event["type"])
    assert cls is not None, f"{event['type']} is no event of a server"
    judged = dict(event)
    if event["type"] in OBFUSCATED:
        assert isinstance(judged.pop("obfuscation", ""), str), "obfuscation: no string"
    if event["type"] in {"session.created", "session.updated"}:
        # The SDK types these as requests; what travels is the effective session.
        session = judged.pop("session", None)
        assert isinstance(session, dict), "session: missing"
        check_session(session, event["type"])
        judged["session"] = {"type": session["type"]}
    _judge(judged, cls)
    _validate(event, "server")
    return event


def check_conversation(messages: Iterable[tuple[str, str | bytes]]) -> list[dict[str, Any]]:
    """Judge every message of a conversation, each as ("client" or "server", its text)."""
    checks = {"client": check_client, "server": check_server}
    return [checks[end](text) for end, text in messages]


def _parse(text: str | bytes) -> dict[str, Any]:
    event = json.loads(text, parse_constant=_refuse_constant)
    assert isinstance(event, dict), "not a JSON object"
    assert isinstance(event.get("type"), str), "type: missing"
    return event


def _refuse_constant(word: str) -> Any:
    raise AssertionError(f"{word} is no JSON")


def _without_references(event: dict[str, Any]) -> dict[str, Any]:
    """Without what pydantic's union of client events does not have, and the union of requests does."""
    response = event.get("response")
    if event["type"] != "response.create" or not isinstance(response, dict) or "input" not in response:
        return event
    items = [item for item in response["input"] if item["type"] != "item_reference"]
    return {**event, "response": {**response, "input": items}}


def _judge(event: dict[str, Any], cls: Any, cleared: frozenset[str] = frozenset()) -> None:
    found = problems(event, cls, cleared=cleared)
    assert not found, _report(event["type"], found)


def _report(name: str, found: list[str]) -> str:
    return f"{name} is not what the SDK's types say:\n  " + "\n  ".join(found)


@functools.cache
def _adapter(end: str) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(RealtimeClientEvent if end == "client" else RealtimeServerEvent)


def _validate(event: dict[str, Any], end: str) -> None:
    """Ask pydantic too, so that a gap in this judge cannot hide."""
    _adapter(end).validate_json(json.dumps(event), strict=True)
