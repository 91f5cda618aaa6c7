"""Dialects of the Realtime protocol as tables: other names for events, and other shapes for their fields.

Above the codec everything speaks GA. A dialect says how a family of endpoints writes the same things:

    Dialect(
        "acme",
        events=(EventName("response.output_text.delta", "response.text.delta"),),
        fields={"session.update": (Field("session", "audio.output.voice", "voice"),)},
    )

The tables are all that there is; a package for another service makes its own without changing this one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import attrs

__all__ = [
    "BETA",
    "BETA_FORMATS",
    "CONTENT_TYPES",
    "GA",
    "ITEM_EVENTS",
    "Dialect",
    "EventName",
    "Field",
]

_ABSENT: Final = object()


class EventName(NamedTuple):
    """One event and what the dialect calls it. An event without a row has the same name in both.

    The first row of an event that fits is the one that is sent. Of what arrives, each row with that name
    makes one GA event, in the order of the table: so one event of a dialect can stand for two of GA.
    """

    ga: str
    wire: str
    marked_by: tuple[str, Any] | None = None
    """Path and value: it is sent under this name only with this value, and who receives it puts it there."""
    unless: tuple[str, Any] | None = None
    """Path and value: not made of an arriving event with this value."""
    is_sent: bool = True
    """False: encoding it gives nothing, because the dialect says it otherwise or not at all."""


class Field(NamedTuple):
    """A field that the dialect keeps elsewhere or writes differently."""

    at: str
    """Path of the object in the event that both shapes share. ``*`` stands for every element of a list."""
    ga: str
    """Path of the field below ``at`` in GA."""
    wire: str | None
    """Its path below ``at`` in the dialect; None: the dialect does not say it, see ``implied``."""
    values: tuple[tuple[Any, Any], ...] = ()
    """Pairs (GA, dialect); the first that fits wins, both ways. Other values stay as they are."""
    implied: Any = None
    """With ``wire=None``: what it means that the dialect does not say it."""

    def outwards(self, root: Any) -> None:
        """Turn GA into the dialect, in place."""
        for holder in _reach(root, self.at):
            value = _take(holder, self.ga)
            if value is not _ABSENT and self.wire is not None:
                _put(holder, self.wire, _first(self.values, value, 0))

    def inwards(self, root: Any) -> None:
        """Turn the dialect into GA, in place."""
        for holder in _reach(root, self.at):
            if self.wire is None:
                if _look(holder, self.ga) is _ABSENT:
                    _put(holder, self.ga, copy.deepcopy(self.implied))
                continue
            value = _take(holder, self.wire)
            if value is not _ABSENT and not _put(holder, self.ga, _first(self.values, value, 1)):
                _put(holder, self.wire, value)

    def renames(self) -> tuple[str, str] | None:
        """The full paths in GA and in the dialect, when they differ and hold for a single object."""
        if self.wire is None or self.wire == self.ga or "*" in self.at:
            return None
        return f"{self.at}.{self.ga}", f"{self.at}.{self.wire}"


@attrs.frozen
class Dialect:
    """How one family of endpoints spells the protocol."""

    name: str
    events: tuple[EventName, ...] = ()
    fields: Mapping[str, Sequence[Field]] = attrs.field(factory=dict, repr=False)
    """By GA name of the event."""
    client_extras: frozenset[str] = attrs.field(default=frozenset(), repr=False)
    """Events of a client that only this dialect has. They are messages like the others, unchecked."""
    server_extras: frozenset[str] = attrs.field(default=frozenset(), repr=False)
    """Events of a server that only this dialect has."""
    unchecked: frozenset[str] = attrs.field(default=frozenset(), repr=False)
    """Paths (in GA, from the event) that the server end takes as they come: what the dialect has beyond GA."""
    schema: Callable[[], Mapping[str, type]] | None = attrs.field(default=None, repr=False, eq=False)
    """Returns the structs of a client's events (GA shape) when they differ from :mod:`~voxengine_openai.schema`.
    Called by the server end alone, so that nobody else loads the module of the schema."""

    _by_ga: Mapping[str, Sequence[EventName]] = attrs.field(init=False, repr=False, eq=False)
    _by_wire: Mapping[str, Sequence[EventName]] = attrs.field(init=False, repr=False, eq=False)

    @_by_ga.default
    def _index_by_ga(self) -> Mapping[str, Sequence[EventName]]:
        return {row.ga: tuple(each for each in self.events if each.ga == row.ga) for row in self.events}

    @_by_wire.default
    def _index_by_wire(self) -> Mapping[str, Sequence[EventName]]:
        return {row.wire: tuple(each for each in self.events if each.wire == row.wire) for row in self.events}

    def is_ga(self, wire_name: str) -> bool:
        """Whether an event of this name is what GA calls so, with the fields that it has in GA."""
        return wire_name not in self._by_wire and wire_name not in self.fields

    def wire_name(self, name: str, fields: Mapping[str, Any]) -> str | None:
        """What a GA event with these fields is called on the wire; None: it is not sent."""
        rows = self._by_ga.get(name)
        if rows is None:
            return name
        for row in rows:
            if row.marked_by is None or _look(fields, row.marked_by[0]) == row.marked_by[1]:
                return row.wire if row.is_sent else None
        return None

    def outwards(self, name: str, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields of a GA event as the dialect writes them; ``fields`` stays as it is."""
        rules = self.fields.get(name)
        if not rules:
            return fields
        changed = copy.deepcopy(fields)
        for rule in rules:
            rule.outwards(changed)
        return changed

    def inwards(self, wire_name: str, fields: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        """The GA events that one event of the dialect stands for. Takes ``fields`` over."""
        rows = self._by_wire.get(wire_name)
        if rows is None:
            return [(wire_name, self._to_ga(wire_name, fields))]
        found = []
        for number, row in enumerate(rows):
            if row.unless is not None and _look(fields, row.unless[0]) == row.unless[1]:
                continue
            own = fields if number == len(rows) - 1 else copy.deepcopy(fields)
            if row.marked_by is not None and isinstance(_look(own, _parent(row.marked_by[0])), dict):
                _put(own, *row.marked_by)
            found.append((row.ga, self._to_ga(row.ga, own)))
        return found

    def wire_path(self, name: str, path: str) -> str:
        """What the dialect calls a field of a GA event; both paths start at the event."""
        for rule in self.fields.get(name, ()):
            pair = rule.renames()
            if pair is not None and (path == pair[0] or path.startswith((pair[0] + ".", pair[0] + "["))):
                return pair[1] + path[len(pair[0]) :]
        return path

    def _to_ga(self, name: str, fields: dict[str, Any]) -> dict[str, Any]:
        # The other way round than outwards: a row may write into what a later one made.
        for rule in reversed(self.fields.get(name, ())):
            rule.inwards(fields)
        return fields


# --- Paths ---------------------------------------------------------------------------------------


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def _look(root: Any, path: str) -> Any:
    """The value at a dotted path, or ``_ABSENT``. The empty path is the root."""
    for key in filter(None, path.split(".")):
        if not isinstance(root, Mapping) or key not in root:
            return _ABSENT
        root = root[key]
    return root


def _reach(root: Any, path: str) -> Iterator[dict[str, Any]]:
    """Every object at a path, in which ``*`` stands for the elements of a list."""
    head, _, rest = path.partition(".")
    if not head:
        if isinstance(root, dict):
            yield root
    elif head == "*":
        for element in root if isinstance(root, list) else ():
            yield from _reach(element, rest)
    elif isinstance(root, dict) and head in root:
        yield from _reach(root[head], rest)


def _take(holder: dict[str, Any], path: str) -> Any:
    """Remove and return the value at a path; objects that become empty by it go too."""
    head, _, rest = path.partition(".")
    if head not in holder:
        return _ABSENT
    if not rest:
        return holder.pop(head)
    inner = holder[head]
    if not isinstance(inner, dict):
        return _ABSENT
    value = _take(inner, rest)
    if value is not _ABSENT and not inner:
        del holder[head]
    return value


def _put(holder: dict[str, Any], path: str, value: Any) -> bool:
    """Set the value at a path, making the objects on the way; False when something else stands there."""
    *way, last = path.split(".")
    for key in way:
        inner = holder.setdefault(key, {})
        if not isinstance(inner, dict):
            return False
        holder = inner
    holder[last] = value
    return True


def _first(pairs: tuple[tuple[Any, Any], ...], value: Any, side: int) -> Any:
    for pair in pairs:
        if pair[side] == value and type(pair[side]) is type(value):
            return copy.deepcopy(pair[1 - side])
    return value


# --- The dialects --------------------------------------------------------------------------------

GA: Final = Dialect("ga")
"""The protocol of the live service since 2025-08."""

BETA_FORMATS: Final[tuple[tuple[Any, Any], ...]] = (
    ({"type": "audio/pcm", "rate": 24000}, "pcm16"),
    ({"type": "audio/pcm"}, "pcm16"),
    ({"type": "audio/pcmu"}, "g711_ulaw"),
    ({"type": "audio/pcma"}, "g711_alaw"),
)
"""Audio formats of GA and their names in the beta."""

_MODALITIES: Final[tuple[tuple[Any, Any], ...]] = (
    (["audio"], ["text", "audio"]),
    (["audio"], ["audio", "text"]),
)
CONTENT_TYPES: Final = (("output_text", "text"), ("output_audio", "audio"))
"""Types of the agent's content in GA and in the beta."""
_BETA_SESSION: Final = (
    Field("session", "type", None, implied="realtime"),
    Field("session", "output_modalities", "modalities", _MODALITIES),
    Field("session", "audio.input.format", "input_audio_format", BETA_FORMATS),
    Field("session", "audio.input.turn_detection", "turn_detection"),
    Field("session", "audio.input.transcription", "input_audio_transcription"),
    Field("session", "audio.input.noise_reduction", "input_audio_noise_reduction"),
    Field("session", "audio.output.format", "output_audio_format", BETA_FORMATS),
    Field("session", "audio.output.voice", "voice"),
    Field("session", "audio.output.speed", "speed"),
    Field("session", "max_output_tokens", "max_response_output_tokens"),
)
_BETA_RESPONSE: Final = (
    Field("response", "output_modalities", "modalities", _MODALITIES),
    Field("response", "audio.output.format", "output_audio_format", BETA_FORMATS),
    Field("response", "audio.output.voice", "voice"),
)
_BETA_ITEM: Final = (Field("item.content.*", "type", "type", CONTENT_TYPES),)

ITEM_EVENTS: Final = (
    "conversation.item.create",
    "conversation.item.added",
    "conversation.item.done",
    "conversation.item.retrieved",
    "response.output_item.added",
    "response.output_item.done",
)
"""Events that hold an item."""

BETA: Final = Dialect(
    "beta",
    events=(
        EventName(
            "session.update", "transcription_session.update", marked_by=("session.type", "transcription")
        ),
        EventName("session.update", "session.update"),
        EventName(
            "session.created", "transcription_session.created", marked_by=("session.type", "transcription")
        ),
        EventName("session.created", "session.created"),
        EventName(
            "session.updated", "transcription_session.updated", marked_by=("session.type", "transcription")
        ),
        EventName("session.updated", "session.updated"),
        EventName("conversation.item.added", "conversation.item.created"),
        # The beta announces an item once. One that is not in progress is done by then.
        EventName(
            "conversation.item.done",
            "conversation.item.created",
            unless=("item.status", "in_progress"),
            is_sent=False,
        ),
        EventName("response.output_text.delta", "response.text.delta"),
        EventName("response.output_text.done", "response.text.done"),
        EventName("response.output_audio.delta", "response.audio.delta"),
        EventName("response.output_audio.done", "response.audio.done"),
        EventName("response.output_audio_transcript.delta", "response.audio_transcript.delta"),
        EventName("response.output_audio_transcript.done", "response.audio_transcript.done"),
    ),
    fields={
        "session.update": _BETA_SESSION,
        "session.created": _BETA_SESSION,
        "session.updated": _BETA_SESSION,
        "response.create": (
            *_BETA_RESPONSE,
            Field("response", "max_output_tokens", "max_response_output_tokens"),
            Field("response.input.*.content.*", "type", "type", CONTENT_TYPES),
        ),
        # Here, unlike in the request, the beta says max_output_tokens too.
        "response.created": (
            *_BETA_RESPONSE,
            Field("response.output.*.content.*", "type", "type", CONTENT_TYPES),
        ),
        "response.done": (
            *_BETA_RESPONSE,
            Field("response.output.*.content.*", "type", "type", CONTENT_TYPES),
        ),
        **dict.fromkeys(ITEM_EVENTS, _BETA_ITEM),
    },
    unchecked=frozenset({"session.temperature", "response.temperature"}),
)
"""OpenAI's protocol until 2026-05; compatible endpoints and Azure's preview still speak it."""
