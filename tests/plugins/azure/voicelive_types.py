"""The official SDK's models as a judge of what travels, stricter than the SDK itself.

The SDK validates nothing that it receives and little of what it sends. Here every nested value is compared with
the annotation of its field, required fields have to be there, and a key that no model has is a failure.

    check_client(text)     what a client sent
    check_server(text)     what a server sent
"""

from __future__ import annotations

import datetime
import enum
import functools
import json
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

from azure.ai.voicelive import _types, _unions, models
from azure.ai.voicelive.models import _models

__all__ = ["CLIENT_EVENTS", "SERVER_EVENTS", "check_client", "check_server", "fields_of", "problems"]

Model: Any = vars(_models)["_Model"]

# The service names new ones of these before the SDK does.
OPEN_NAMES = ("voice", "model", "name", "include")

# The client may clear these with null, although no type has null: it is how the service documents it.
NULL_CLEARS = ("turn_detection", "input_audio_transcription", "input_audio_noise_reduction")

# The SDK's model of the user's audio demands the audio, which the service does not echo.
NOT_ECHOED = ("audio: missing",)


@functools.cache
def fields_of(cls: Any) -> dict[str, tuple[Any, bool]]:
    """Annotation and "is required" of each field of a model, under its name on the wire."""
    # In the annotations ``_models`` is the package, private classes included.
    package = types.SimpleNamespace(**{**vars(_models), **vars(models)})
    names = {
        **vars(typing),
        **vars(_models),
        **vars(models),
        "_models": package,
        "_types": _types,
        "_unions": _unions,
    }
    hints = typing.get_type_hints(cls, globalns={**names, "datetime": datetime})
    found = {}
    for parent in reversed(cls.__mro__):
        for name, field in vars(parent).items():
            if hasattr(field, "_rest_name_input"):
                hint = hints[name]
                is_optional = type(None) in get_args(hint)
                found[field._rest_name_input or name] = (hint, not is_optional)
    return found


def _concrete(cls: Any, value: Any, seen: tuple[str, ...] = ()) -> Any:
    """Follow the discriminators from a base to the model that a value is of."""
    mapping = vars(cls).get("__mapping__")
    if not mapping or not isinstance(value, dict):
        return cls
    if cls is models.MessageContentPart and value.get("type") == "input_image":
        # The base names this kind among the known ones; the SDK registers its model elsewhere.
        return models.RequestImageContentPart
    for name, field in vars(cls).items():
        key = getattr(field, "_rest_name_input", None) or name
        if getattr(field, "_is_discriminator", False) and key not in seen:
            below = mapping.get(value.get(key))
            return cls if below is None else _concrete(below, value, (*seen, key))
    return cls


def _members(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        return [member for part in get_args(annotation) for member in _members(part)]
    return [annotation]


def problems(value: Any, annotation: Any, path: str = "") -> list[str]:
    """What is wrong with a JSON value, by path; empty when nothing is."""
    members = _members(annotation)
    last = path.rpartition(".")[2].partition("[")[0]
    if value is None and (type(None) in members or last in NULL_CLEARS):
        return []
    kinds = [member for member in members if isinstance(member, type) and issubclass(member, enum.Enum)]
    if isinstance(value, str) and kinds and last not in OPEN_NAMES:
        known = {word.value for kind in kinds for word in kind}
        return [] if value in known else [f"{path}: {value!r} is none of {sorted(known)}"]
    found = [list(_one(value, member, path)) for member in members if member is not type(None)]
    return min(found, key=len)


def _one(value: Any, annotation: Any, path: str) -> Iterator[str]:
    place, origin, arguments = path or "the event", get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return
    if origin is Literal:
        if value not in [getattr(word, "value", word) for word in arguments]:
            yield f"{place}: {value!r} is not {arguments}"
    elif isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        if not isinstance(value, str):
            yield f"{place}: no string"
    elif isinstance(annotation, type) and issubclass(annotation, Model):
        yield from _object(value, annotation, path)
    elif origin is list:
        if not isinstance(value, list):
            yield f"{place}: no list"
        else:
            for n, item in enumerate(value):
                yield from problems(item, arguments[0], f"{path}[{n}]")
    elif origin is dict:
        if not isinstance(value, dict):
            yield f"{place}: no object"
        else:
            for key, item in value.items():
                yield from problems(item, arguments[1], f"{path}.{key}")
    elif annotation is datetime.datetime or annotation is bytes:
        wanted = int if annotation is datetime.datetime else str
        if not isinstance(value, wanted):
            yield f"{place}: no {wanted.__name__}"
    else:
        wanted_types = (int, float) if annotation is float else annotation
        if not isinstance(value, wanted_types) or (isinstance(value, bool) and annotation is not bool):
            yield f"{place}: {type(value).__name__} is no {annotation}"


def _object(value: Any, base: Any, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path or 'the event'}: {type(value).__name__} is no object"
        return
    cls = _concrete(base, value)
    if vars(cls).get("__mapping__") and not _is_plain(cls):
        yield f"{path or 'the event'}: no kind of {cls.__name__} is called {value.get('type')!r}"
        return
    prefix = f"{path}." if path else ""
    fields = fields_of(cls)
    for name, (_, is_required) in fields.items():
        if is_required and name not in value:
            yield f"{prefix}{name}: missing"
    for name, item in value.items():
        if name not in fields:
            yield f"{prefix}{name}: unknown to {cls.__name__}"
        else:
            yield from problems(item, fields[name][0], f"{prefix}{name}")


def _is_plain(cls: Any) -> bool:
    """Whether a base is also a kind of its own."""
    return cls.__name__ in ("MessageItem", "RequestSession", "Response", "ResponseSession")


def _by_name(base: Any) -> dict[str, Any]:
    return {str(getattr(name, "value", name)): cls for name, cls in base.__mapping__.items()}


CLIENT_EVENTS = _by_name(models.ClientEvent)
SERVER_EVENTS = _by_name(models.ServerEvent)


def check_client(text: str | bytes) -> dict[str, Any]:
    """Judge one message of a client and return it parsed."""
    return _check(text, CLIENT_EVENTS)


def check_server(text: str | bytes) -> dict[str, Any]:
    """Judge one message of a server and return it parsed."""
    return _check(text, SERVER_EVENTS)


def _check(text: str | bytes, kinds: dict[str, Any]) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(text)
    cls = kinds.get(event["type"])
    assert cls is not None, f"{event['type']} is no event of this end"
    found = [each for each in _object(event, cls, "") if not each.endswith(NOT_ECHOED)]
    assert not found, f"{event['type']} is not what the SDK's models say:\n  " + "\n  ".join(found)
    return event
