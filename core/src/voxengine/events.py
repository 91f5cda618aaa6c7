"""What VoxEngine tells the application: one type and one frozen class per event.

Every event has ``type``, ``timestamp`` (monotonic seconds of the engine's loop), ``provider``,
``session_epoch``, ``data`` (a read-only mapping that keeps every key that was emitted), and its
fields as attributes. The four header names win as attributes; a field that was not emitted is None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, ClassVar, Final, NoReturn

from voxengine.errors import UsageError

__all__ = [
    "AudioInputChunk",
    "AudioInputDropped",
    "AudioInputStarted",
    "AudioInputStopped",
    "AudioOutputChunk",
    "AudioOutputStarted",
    "AudioOutputStopped",
    "ConnectionClosed",
    "ConnectionEstablished",
    "ConnectionFailed",
    "ConnectionLostEvent",
    "ConnectionStarting",
    "Emotion",
    "ErrorAudio",
    "ErrorGeneral",
    "ErrorNetwork",
    "Event",
    "EventType",
    "FunctionCallCompleted",
    "FunctionCallFailed",
    "FunctionCallInvoked",
    "InputTranscript",
    "Interrupted",
    "LazyAudio",
    "ProviderSwitched",
    "ProviderSwitching",
    "RateLimits",
    "ResponseCancelled",
    "ResponseCompleted",
    "ResponseStarted",
    "SessionExpiring",
    "SessionUpdated",
    "SpeechEnded",
    "SpeechMark",
    "SpeechStarted",
    "TextOutput",
    "TurnChanged",
    "UsageUpdated",
    "VendorEvent",
    "WarningEvent",
    "event_class",
    "event_fields",
    "make_event",
    "raw_data",
]


class EventType(StrEnum):
    """The closed list of event types; each compares equal to its string."""

    CONNECTION_STARTING = "connection_starting"
    CONNECTION_ESTABLISHED = "connection_established"
    CONNECTION_FAILED = "connection_failed"
    CONNECTION_LOST = "connection_lost"
    CONNECTION_CLOSED = "connection_closed"
    SESSION_UPDATED = "session_updated"
    SESSION_EXPIRING = "session_expiring"
    PROVIDER_SWITCHING = "provider_switching"
    PROVIDER_SWITCHED = "provider_switched"
    AUDIO_INPUT_STARTED = "audio_input_started"
    AUDIO_INPUT_STOPPED = "audio_input_stopped"
    AUDIO_INPUT_CHUNK = "audio_input_chunk"
    AUDIO_INPUT_DROPPED = "audio_input_dropped"
    SPEECH_STARTED = "speech_started"
    SPEECH_ENDED = "speech_ended"
    INPUT_TRANSCRIPT = "input_transcript"
    RESPONSE_STARTED = "response_started"
    RESPONSE_COMPLETED = "response_completed"
    RESPONSE_CANCELLED = "response_cancelled"
    TEXT_OUTPUT = "text_output"
    AUDIO_OUTPUT_STARTED = "audio_output_started"
    AUDIO_OUTPUT_CHUNK = "audio_output_chunk"
    AUDIO_OUTPUT_STOPPED = "audio_output_stopped"
    INTERRUPTED = "interrupted"
    TURN_CHANGED = "turn_changed"
    FUNCTION_CALL_INVOKED = "function_call_invoked"
    FUNCTION_CALL_COMPLETED = "function_call_completed"
    FUNCTION_CALL_FAILED = "function_call_failed"
    SPEECH_MARK = "speech_mark"
    EMOTION = "emotion"
    USAGE_UPDATED = "usage_updated"
    RATE_LIMITS = "rate_limits"
    WARNING = "warning"
    VENDOR_EVENT = "vendor_event"
    ERROR_GENERAL = "error_general"
    ERROR_AUDIO = "error_audio"
    ERROR_NETWORK = "error_network"


_EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})


class LazyAudio:
    """Audio that is still in the vendor's encoding and is decoded once, when somebody asks.

    Args:
        encoded: What ``decode`` takes; owned by this object from now on.
        decode: Turns it into PCM16 bytes. Called at most once, on the engine's thread.
        n_bytes: Length of the decoded bytes where it is known beforehand.
    """

    __slots__ = ("_decode", "_encoded", "_pcm", "known_bytes")

    def __init__(self, encoded: Any, decode: Callable[[Any], bytes], n_bytes: int | None = None) -> None:
        self._encoded = encoded
        self._decode: Callable[[Any], bytes] | None = decode
        self._pcm = b""
        self.known_bytes = n_bytes or 0
        """Length of the PCM16 bytes where it is known without decoding, else 0."""

    @property
    def n_bytes(self) -> int:
        """Length of the PCM16 bytes; decodes only when it was not known beforehand."""
        return self.known_bytes or len(self.pcm())

    def pcm(self) -> bytes:
        """Return the PCM16 bytes, the same object each time."""
        if self._decode is not None:
            self._pcm = self._decode(self._encoded)
            self._decode = self._encoded = None
            self.known_bytes = len(self._pcm)
        return self._pcm

    def __repr__(self) -> str:
        return "LazyAudio(…)"


class _AudioData(Mapping[str, Any]):
    """The data of an audio event whose ``audio_data`` is decoded on first access."""

    __slots__ = ("_fields",)

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    def __getitem__(self, key: str) -> Any:
        value = self._fields[key]
        return value.pcm() if isinstance(value, LazyAudio) else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


RawEvent = tuple[EventType, dict[str, Any], float, str, int]
"""An event as it is held: type, data, timestamp, provider and epoch of the session."""


class Event:
    """Base of every event. Immutable; made by :func:`make_event`.

    ``data`` may hold what the user said or heard, so ``repr`` names its keys and not its values.
    """

    __slots__ = ("_raw",)

    type: ClassVar[EventType]
    fields: ClassVar[frozenset[str]] = frozenset()

    _raw: RawEvent

    def __init__(
        self,
        data: Mapping[str, Any] = _EMPTY,
        *,
        timestamp: float = 0.0,
        provider: str = "",
        session_epoch: int = 0,
    ) -> None:
        _set_raw(self, (type(self).type, dict(data), timestamp, provider, session_epoch))

    @property
    def timestamp(self) -> float:
        """Monotonic seconds (the loop's clock)."""
        return self._raw[2]

    @property
    def provider(self) -> str:
        """The provider's name; outside an engine the class name."""
        return self._raw[3]

    @property
    def session_epoch(self) -> int:
        """Number of the session within its engine, from 1; 0 outside an engine."""
        return self._raw[4]

    @property
    def data(self) -> Mapping[str, Any]:
        """Everything that was emitted, read-only."""
        held = self._raw[1]
        return _AudioData(held) if type(held.get("audio_data")) is LazyAudio else MappingProxyType(held)

    def __getattr__(self, name: str) -> Any:
        # Only reached for names that are no slot: the event's own fields.
        raise AttributeError(
            f"{type(self).__name__} has no field {name!r}. Its fields: {', '.join(sorted(type(self).fields))}; "
            "other emitted keys are in .data."
        )

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def replace(self, **changes: Any) -> Event:
        """Return a copy in which the named data keys or header fields are changed."""
        header: dict[str, Any] = {
            name: changes.pop(name, getattr(self, name))
            for name in ("timestamp", "provider", "session_epoch")
        }
        return type(self)({**raw_data(self.data), **changes}, **header)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Event):
            return NotImplemented
        return (
            type(self) is type(other)
            and self.timestamp == other.timestamp
            and self.provider == other.provider
            and self.session_epoch == other.session_epoch
            and dict(self.data) == dict(other.data)
        )

    __hash__ = object.__hash__

    def __reduce__(self) -> tuple[Any, ...]:
        return (
            _rebuild,
            (str(self.type), dict(self.data), self.timestamp, self.provider, self.session_epoch),
        )

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} t={self.timestamp:.3f} provider={self.provider!r} "
            f"epoch={self.session_epoch} keys={sorted(self.data)}>"
        )


# The slot's own setter: it passes by the class's refusing __setattr__ and costs less than object.__setattr__.
_set_raw = Event.__dict__["_raw"].__set__

_CLASSES: Final[dict[str, type[Event]]] = {}
_HEADER: Final = frozenset({"timestamp", "provider", "session_epoch", "type", "data"})


def raw_data(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the data with audio still encoded where it is."""
    return data._fields if isinstance(data, _AudioData) else data


def _field(name: str) -> property:
    """An event's own field: a property costs a fraction of what ``__getattr__`` does."""

    def get(event: Event) -> Any:
        value = event._raw[1].get(name)
        return value.pcm() if type(value) is LazyAudio else value

    return property(get)


def _event(event_type: EventType) -> Callable[[type[Event]], type[Event]]:
    def register(cls: type[Event]) -> type[Event]:
        names = frozenset(cls.__annotations__) if "__annotations__" in vars(cls) else frozenset()
        cls.type = event_type
        cls.fields = names
        for name in names - _HEADER:
            setattr(cls, name, _field(name))
        _CLASSES[event_type] = cls
        return cls

    return register


@_event(EventType.CONNECTION_STARTING)
class ConnectionStarting(Event):
    """A session is about to be opened."""

    __slots__ = ()

    attempt: int | None
    """Number of the attempt, from 1."""


@_event(EventType.CONNECTION_ESTABLISHED)
class ConnectionEstablished(Event):
    """The session is ready; emitted when ``connect`` returns, and after each loss that was repaired."""

    __slots__ = ()

    session_id: str | None
    """The vendor's name for the session."""
    latency_ms: int | None
    """From the start of the attempt."""


@_event(EventType.CONNECTION_FAILED)
class ConnectionFailed(Event):
    """The session could not be opened."""

    __slots__ = ()

    error: Exception | None
    """What ``connect`` raises; NotConnected when it was cancelled."""
    will_retry: bool | None
    """Whether another attempt follows."""


@_event(EventType.CONNECTION_LOST)
class ConnectionLostEvent(Event):
    """The session ended without being asked to."""

    __slots__ = ()

    error: Exception | None
    """Why, with its close code."""
    will_reconnect: bool | None
    """Whether the engine opens another one."""


@_event(EventType.CONNECTION_CLOSED)
class ConnectionClosed(Event):
    """The session was closed by us."""

    __slots__ = ()

    reason: str | None
    """``disconnect``, ``switch`` or the provider's word."""
    duration_s: float | None
    """How long the session lived."""


@_event(EventType.SESSION_UPDATED)
class SessionUpdated(Event):
    """The session's settings changed."""

    __slots__ = ()

    settings: Mapping[str, Any] | None
    """The settings in force."""


@_event(EventType.SESSION_EXPIRING)
class SessionExpiring(Event):
    """The vendor will end the session."""

    __slots__ = ()

    deadline_s: float | None
    """Seconds that are left."""
    reason: str | None
    """The vendor's reason."""


@_event(EventType.PROVIDER_SWITCHING)
class ProviderSwitching(Event):
    """Another session is being opened to take over."""

    __slots__ = ()

    from_provider: str | None
    """The provider in force, or an empty string."""
    to_provider: str | None
    """The provider to come."""
    reason: str | None
    """``requested``, ``reconnect``, ``failover``, ``rollover``, or ``resume`` for the first session of a resumed engine."""


@_event(EventType.PROVIDER_SWITCHED)
class ProviderSwitched(Event):
    """Another session has taken over."""

    __slots__ = ()

    from_provider: str | None
    """The provider before."""
    to_provider: str | None
    """The provider in force."""
    reason: str | None
    """As in PROVIDER_SWITCHING."""
    gap_ms: int | None
    """For how long no session took input."""
    replayed_ms: int | None
    """Audio of the open turn that was sent again."""
    context: str | None
    """``full``, or ``partial: `` and what was left out."""


@_event(EventType.AUDIO_INPUT_STARTED)
class AudioInputStarted(Event):
    """A microphone is being read."""

    __slots__ = ()

    device: str | None
    """The device's name."""
    sample_rate: int | None
    """Hertz."""


@_event(EventType.AUDIO_INPUT_STOPPED)
class AudioInputStopped(Event):
    """The microphone is no longer read."""

    __slots__ = ()

    device: str | None
    """The device's name."""
    sample_rate: int | None
    """Hertz."""


@_event(EventType.AUDIO_INPUT_CHUNK)
class AudioInputChunk(Event):
    """A chunk of the user's audio; made only while somebody subscribes."""

    __slots__ = ()

    audio_data: bytes | None
    """PCM16 in the input format."""
    sample_rate: int | None
    """Hertz."""


@_event(EventType.AUDIO_INPUT_DROPPED)
class AudioInputDropped(Event):
    """Audio was discarded before it was accepted."""

    __slots__ = ()

    n_samples: int | None
    """How much."""
    reason: str | None
    """Who discarded it and why."""


@_event(EventType.SPEECH_STARTED)
class SpeechStarted(Event):
    """The user began to speak."""

    __slots__ = ()

    at_ms: int | None
    """Position in the input, by the engine's sample index."""
    source: str | None
    """``server``, ``client`` or ``inferred``."""


@_event(EventType.SPEECH_ENDED)
class SpeechEnded(Event):
    """The user stopped speaking."""

    __slots__ = ()

    at_ms: int | None
    """Position in the input, by the engine's sample index."""
    source: str | None
    """``server``, ``client`` or ``inferred``."""


@_event(EventType.INPUT_TRANSCRIPT)
class InputTranscript(Event):
    """What the user said."""

    __slots__ = ()

    text: str | None
    """The whole text so far."""
    delta: str | None
    """What is new."""
    is_partial: bool | None
    """Whether it can still change."""
    item_id: str | None
    """The history item."""
    words: list[Any] | None
    """Word timings where the vendor has them."""
    language: str | None
    """The recognised language."""


@_event(EventType.RESPONSE_STARTED)
class ResponseStarted(Event):
    """The agent begins an answer."""

    __slots__ = ()

    response_id: str | None
    """Names the answer in every event that belongs to it."""
    trigger: str | None
    """What asked for it: ``text``, ``audio``, ``tool``, ``say``, ``server`` or ``inferred``."""


@_event(EventType.RESPONSE_COMPLETED)
class ResponseCompleted(Event):
    """The answer has been received in full."""

    __slots__ = ()

    response_id: str | None
    """The answer."""
    status: str | None
    """``completed``, ``incomplete``, ``failed`` or ``inferred``."""
    usage: Mapping[str, Any] | None
    """What it cost, where the vendor says so."""


@_event(EventType.RESPONSE_CANCELLED)
class ResponseCancelled(Event):
    """The answer was cut short."""

    __slots__ = ()

    response_id: str | None
    """The answer."""
    reason: str | None
    """``interrupted``, ``switch``, ``lost`` or the vendor's word."""
    heard_ms: int | None
    """How much of it was played."""
    heard_text: str | None
    """How much of its text was heard; None where what was received plays on, and ``history`` tells it afterwards."""
    heard_is_estimated: bool | None
    """Whether ``heard_text`` is estimated from the played proportion."""


@_event(EventType.TEXT_OUTPUT)
class TextOutput(Event):
    """What the agent says, as text."""

    __slots__ = ()

    text: str | None
    """The whole text so far."""
    delta: str | None
    """What is new."""
    is_partial: bool | None
    """Whether more follows."""
    response_id: str | None
    """The answer."""
    item_id: str | None
    """The history item."""


@_event(EventType.AUDIO_OUTPUT_STARTED)
class AudioOutputStarted(Event):
    """The answer begins to be audible."""

    __slots__ = ()

    response_id: str | None
    """The answer."""
    item_id: str | None
    """The history item."""


@_event(EventType.AUDIO_OUTPUT_CHUNK)
class AudioOutputChunk(Event):
    """Audio of the answer."""

    __slots__ = ()

    audio_data: bytes | None
    """PCM16 in the output format."""
    sample_rate: int | None
    """Hertz."""
    channels: int | None
    """Interleaved channels."""
    response_id: str | None
    """The answer."""
    item_id: str | None
    """The history item."""


@_event(EventType.AUDIO_OUTPUT_STOPPED)
class AudioOutputStopped(Event):
    """The answer is no longer audible: played to its end, or cut."""

    __slots__ = ()

    response_id: str | None
    """The answer."""
    item_id: str | None
    """The history item."""
    played_ms: int | None
    """How much was played."""


@_event(EventType.INTERRUPTED)
class Interrupted(Event):
    """The output was silenced."""

    __slots__ = ()

    response_id: str | None
    """The answer that was cut."""
    heard_ms: int | None
    """How much of it was played."""


@_event(EventType.TURN_CHANGED)
class TurnChanged(Event):
    """The floor passed from one speaker to the other."""

    __slots__ = ()

    from_role: str | None
    """``user``, ``agent`` or an empty string."""
    to_role: str | None
    """``user`` or ``agent``."""


@_event(EventType.FUNCTION_CALL_INVOKED)
class FunctionCallInvoked(Event):
    """The agent calls a tool."""

    __slots__ = ()

    name: str | None
    """The tool."""
    call_id: str | None
    """Names the call."""
    arguments: Mapping[str, Any] | None
    """The arguments, decoded."""


@_event(EventType.FUNCTION_CALL_COMPLETED)
class FunctionCallCompleted(Event):
    """A tool call returned."""

    __slots__ = ()

    name: str | None
    """The tool."""
    call_id: str | None
    """Names the call."""
    result: Any | None
    """What the function returned."""


@_event(EventType.FUNCTION_CALL_FAILED)
class FunctionCallFailed(Event):
    """A tool call failed; the agent was told."""

    __slots__ = ()

    name: str | None
    """The tool."""
    call_id: str | None
    """Names the call."""
    error: Exception | None
    """Why."""


@_event(EventType.SPEECH_MARK)
class SpeechMark(Event):
    """A position within the agent's speech."""

    __slots__ = ()

    kind: str | None
    """``word`` or ``viseme``."""
    value: str | None
    """The word or the viseme."""
    at_ms: int | None
    """Position within the item."""


@_event(EventType.EMOTION)
class Emotion(Event):
    """An emotion that the vendor recognised."""

    __slots__ = ()

    label: str | None
    """The vendor's label."""
    score: float | None
    """From 0 to 1."""
    item_id: str | None
    """The history item."""


@_event(EventType.USAGE_UPDATED)
class UsageUpdated(Event):
    """What the session used so far."""

    __slots__ = ()

    usage: Mapping[str, Any] | None
    """By kind."""
    cost: float | None
    """In US dollars, None when unknown."""


@_event(EventType.RATE_LIMITS)
class RateLimits(Event):
    """What the vendor still allows."""

    __slots__ = ()

    limits: Any | None
    """As the vendor says it."""


@_event(EventType.WARNING)
class WarningEvent(Event):
    """Something the application should know that stops nothing."""

    __slots__ = ()

    code: str | None
    """A stable word."""
    message: str | None
    """A sentence."""


@_event(EventType.VENDOR_EVENT)
class VendorEvent(Event):
    """A message that has no neutral form."""

    __slots__ = ()

    name: str | None
    """The vendor's name for it."""
    payload: Any | None
    """Its content, unchanged."""


@_event(EventType.ERROR_GENERAL)
class ErrorGeneral(Event):
    """Something failed."""

    __slots__ = ()

    error: Exception | None
    """What."""
    recoverable: bool | None
    """Whether trying again can help."""


@_event(EventType.ERROR_AUDIO)
class ErrorAudio(Event):
    """Something about audio failed."""

    __slots__ = ()

    error: Exception | None
    """What."""
    recoverable: bool | None
    """Whether trying again can help."""


@_event(EventType.ERROR_NETWORK)
class ErrorNetwork(Event):
    """Something about the network failed."""

    __slots__ = ()

    error: Exception | None
    """What."""
    recoverable: bool | None
    """Whether trying again can help."""


def event_class(event_type: EventType | str) -> type[Event]:
    """Return the class of an event type.

    Raises:
        UsageError: There is no such type; the list is closed.
    """
    found = _CLASSES.get(event_type)
    if found is not None:  # A member, or a str that equals one: they hash alike.
        return found
    try:
        return _CLASSES[EventType(event_type)]
    except ValueError:
        raise UsageError(
            f"No event type {event_type!r}. Use a member of EventType; what has no neutral form is a "
            "VENDOR_EVENT with a name and a payload."
        ) from None


def event_fields(event_type: EventType | str) -> frozenset[str]:
    """Return the names of the documented fields of an event type."""
    return event_class(event_type).fields


def make_event(
    event_type: EventType | str,
    data: Mapping[str, Any] = _EMPTY,
    *,
    timestamp: float = 0.0,
    provider: str = "",
    session_epoch: int = 0,
) -> Event:
    """Make the event of that type. ``data`` is copied one level deep.

    Raises:
        UsageError: There is no such type.
    """
    return event_class(event_type)(data, timestamp=timestamp, provider=provider, session_epoch=session_epoch)


def own_event(raw: RawEvent) -> Event:
    """Make the event of that content. Its data is not copied: nobody else may change it."""
    event = _new_event(_CLASSES[raw[0]])
    _set_raw(event, raw)
    return event


_new_event: Final[Callable[[type[Event]], Event]] = Event.__new__


def _rebuild(event_type: str, data: Mapping[str, Any], timestamp: float, provider: str, epoch: int) -> Event:
    return make_event(event_type, data, timestamp=timestamp, provider=provider, session_epoch=epoch)
