"""Events made from the official SDK's types, for laws that hold for every one of them."""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

from hypothesis import strategies as st

from tests.plugins.openai.sdk_types import CLIENT_TYPES, SERVER_TYPES, SESSIONS, fields_of, is_object, members

__all__ = ["BASE64", "client_event", "client_events", "server_event", "server_events"]

_WORDS = st.text('abcdefghijklmnopqrstuvwxyzäß漢🙂"\\/ \n', max_size=12)
_NUMBERS = st.floats(0, 1, allow_nan=False) | st.integers(0, 1)
_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | _WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_WORDS, inner, max_size=2),
    max_leaves=4,
)
BASE64 = st.binary(max_size=64).map(lambda data: base64.b64encode(data).decode("ascii"))

# Where the service wants more than the types say: fields and values as it takes them.
_TEXT_PART = st.fixed_dictionaries({"type": st.just("input_text"), "text": _WORDS})
_AUDIO_PART = st.fixed_dictionaries(
    {"type": st.just("input_audio"), "audio": BASE64}, optional={"transcript": _WORDS}
)
_IMAGE_PART = st.fixed_dictionaries(
    {"type": st.just("input_image"), "image_url": st.just("data:image/png;base64,AAAA")},
    optional={"detail": st.sampled_from(["auto", "low", "high"])},
)
_MODALITIES = st.sampled_from([["text"], ["audio"]])
_SHOWN: st.SearchStrategy[Any] = st.deferred(lambda: _later(SESSIONS))
_BY_FIELD: dict[tuple[str, str], st.SearchStrategy[Any]] = {
    ("RealtimeConversationItemSystemMessageParam", "content"): st.lists(_TEXT_PART, max_size=2),
    ("RealtimeConversationItemUserMessageParam", "content"): st.lists(
        _TEXT_PART | _AUDIO_PART | _IMAGE_PART, max_size=2
    ),
    ("RealtimeConversationItemAssistantMessageParam", "content"): st.lists(
        st.fixed_dictionaries({"type": st.just("output_text"), "text": _WORDS}), max_size=2
    ),
    ("RealtimeAudioConfigOutputParam", "speed"): st.floats(0.25, 1.5),
    ("RealtimeFunctionToolParam", "parameters"): st.dictionaries(_WORDS, _ANYTHING, max_size=2),
    ("RealtimeSessionCreateRequestParam", "output_modalities"): _MODALITIES,
    ("RealtimeResponseCreateParamsWithReferencesParam", "output_modalities"): _MODALITIES,
    ("RealtimeSessionCreateRequestParam", "max_output_tokens"): st.integers(1, 4096) | st.just("inf"),
    ("RealtimeResponseCreateParamsWithReferencesParam", "max_output_tokens"): st.integers(1, 4096)
    | st.just("inf"),
    ("InputAudioBufferAppendEventParam", "audio"): BASE64,
    ("ResponseAudioDeltaEvent", "delta"): BASE64,
    # The SDK types these as requests; what travels is the effective session.
    ("SessionCreatedEvent", "session"): _SHOWN,
    ("SessionUpdatedEvent", "session"): _SHOWN,
}
# The types let these be absent; the service does not, and no answer can do without an identifier.
_REQUIRED: dict[str, frozenset[str]] = {
    "AudioPCM": frozenset({"type"}),
    "AudioPCMU": frozenset({"type"}),
    "AudioPCMA": frozenset({"type"}),
    "RealtimeFunctionToolParam": frozenset({"type", "name"}),
    "RealtimeResponse": frozenset({"id"}),
    "RealtimeConversationItemSystemMessage": frozenset({"id"}),
    "RealtimeConversationItemUserMessage": frozenset({"id"}),
    "RealtimeConversationItemAssistantMessage": frozenset({"id"}),
    "RealtimeConversationItemFunctionCall": frozenset({"id"}),
    "RealtimeConversationItemFunctionCallOutput": frozenset({"id"}),
    "RealtimeMcpListTools": frozenset({"id"}),
}


@functools.cache
def _values(annotation: Any) -> st.SearchStrategy[Any]:
    kinds = members(annotation)
    return st.one_of([_values_of_one(kind) for kind in kinds])


def _values_of_one(kind: Any) -> st.SearchStrategy[Any]:
    origin, arguments = get_origin(kind), get_args(kind)
    plain: dict[Any, st.SearchStrategy[Any]] = {
        str: _WORDS,
        int: st.integers(0, 90_000),
        float: _NUMBERS,
        bool: st.booleans(),
        type(None): st.none(),
        object: _ANYTHING,
        Any: _ANYTHING,
    }
    if kind in plain:
        return plain[kind]
    if origin is Literal:
        return st.sampled_from(arguments)
    if is_object(kind):
        return _objects(kind)
    if origin is dict:
        return st.dictionaries(_WORDS, _values(arguments[1]), max_size=2)
    return st.lists(_values(arguments[0]), max_size=2)


def _later(annotation: Any) -> st.SearchStrategy[Any]:
    return st.deferred(lambda: _values(annotation))


def _objects(cls: Any) -> st.SearchStrategy[dict[str, Any]]:
    insisted = _REQUIRED.get(cls.__name__, frozenset())
    required: dict[str, st.SearchStrategy[Any]] = {}
    optional: dict[str, st.SearchStrategy[Any]] = {}
    for name, (annotation, is_required) in fields_of(cls).items():
        values = _BY_FIELD.get((cls.__name__, name))
        if values is None:
            values = _later(annotation)
        if name in insisted:
            required[name] = values.filter(lambda value: value is not None)
        else:
            (required if is_required else optional)[name] = values
    return st.fixed_dictionaries(required, optional=optional)


def client_event(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Events of one name that a client may send and the service takes."""
    return _objects(CLIENT_TYPES[name])


def server_event(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Events of one name that a server sends."""
    return _objects(SERVER_TYPES[name])


def _one_of(names: dict[str, Any], make: Callable[[str], st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    return st.sampled_from(sorted(names)).flatmap(make)


client_events = _one_of(CLIENT_TYPES, client_event)
"""Any event of a client."""
server_events = _one_of(SERVER_TYPES, server_event)
"""Any event of a server."""
