"""What the simulated agent brings about, in neutral words: each emulator says it in its vendor's messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import attrs

from voxengine.errors import ErrorCode

__all__ = [
    "Called",
    "Expiring",
    "Failed",
    "Happening",
    "Heard",
    "ResponseEnded",
    "ResponseStarted",
    "Said",
    "SaidAll",
    "Sounded",
    "SpeechEnded",
    "SpeechStarted",
    "Truncated",
    "TurnEnded",
    "Used",
    "Warned",
    "WentIdle",
    "WordSpoken",
]


@attrs.frozen(kw_only=True)
class SpeechStarted:
    """The user began to speak; ``at_ms`` counts the session's input audio."""

    item_id: str
    at_ms: int
    padded_ms: int = 0
    """The same less the prefix padding."""


@attrs.frozen(kw_only=True)
class SpeechEnded:
    """The user stopped speaking, at ``at_ms``; the silence that proves it came after."""

    item_id: str
    at_ms: int
    decided_ms: int = 0
    """Where that silence had been heard."""


@attrs.frozen(kw_only=True)
class Heard:
    """What the user said so far (``text``), and what is new in it."""

    item_id: str
    text: str = attrs.field(repr=False)
    delta: str = attrs.field(repr=False)
    is_partial: bool
    words: tuple[Mapping[str, Any], ...] = attrs.field(default=(), repr=False)
    """With a final text: ``word``, ``at_ms`` and ``end_ms`` of each, counted like ``SpeechStarted.at_ms``."""


@attrs.frozen(kw_only=True)
class TurnEnded:
    """The user's spoken turn is complete. Without speech its text is empty."""

    item_id: str
    text: str = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class WentIdle:
    """The user said nothing for the idle timeout, from ``from_ms`` to ``to_ms`` of the input audio."""

    item_id: str
    from_ms: int
    to_ms: int


@attrs.frozen(kw_only=True)
class ResponseStarted:
    """The agent's turn. It ends with exactly one :class:`ResponseEnded`."""

    response_id: str
    item_id: str
    trigger: str
    """``text``, ``audio``, ``tool``, ``say``, ``idle`` or the emulator's own word."""
    tag: Any = attrs.field(default=None, repr=False)
    """What came with the request."""


@attrs.frozen(kw_only=True)
class Said:
    """The next words of a response, before their sound."""

    response_id: str
    item_id: str
    delta: str = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class WordSpoken:
    """A word begins at ``at_ms`` of the item's audio."""

    response_id: str
    item_id: str
    word: str = attrs.field(repr=False)
    at_ms: int
    end_ms: int


@attrs.frozen(kw_only=True)
class Sounded:
    """The next audio of a response: PCM16 mono at the session's output rate."""

    response_id: str
    item_id: str
    pcm: bytes = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class SaidAll:
    """All words of an item of a response, after its last audio."""

    response_id: str
    item_id: str
    text: str = attrs.field(repr=False)
    is_whole: bool = True
    """Whether nothing was cut off."""


@attrs.frozen(kw_only=True)
class Called:
    """The agent calls a function: of the client, or with ``result`` one that the service ran itself."""

    response_id: str
    call_id: str
    name: str
    arguments: Mapping[str, Any] = attrs.field(repr=False)
    result: str | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True)
class ResponseEnded:
    """A response is over."""

    response_id: str
    item_id: str
    status: str
    """``completed``, ``incomplete``, ``cancelled`` or ``failed``."""
    usage: Mapping[str, Any] = attrs.field(factory=dict)
    heard_ms: int | None = None
    """How much of it the user heard, when it was cancelled and the client said so."""
    heard_text: str | None = attrs.field(default=None, repr=False)
    reason: str = ""
    """Why it was cancelled: ``client`` or ``speech``."""


@attrs.frozen(kw_only=True)
class Truncated:
    """An item whose response had already ended was cut at what was heard."""

    item_id: str
    heard_ms: int
    heard_text: str = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class Used:
    """What the session used so far, and its price in US dollars."""

    usage: Mapping[str, Any]
    cost: float


@attrs.frozen
class Warned:
    """Something the client should know that stops nothing."""

    code: str
    message: str


@attrs.frozen
class Failed:
    """Something failed, by the client's fault or by the script's."""

    code: ErrorCode
    message: str
    recoverable: bool = True
    retry_after_s: float | None = None
    response_id: str = ""
    """The response that fails with it: one that would have begun, or the one under way."""
    item_id: str = ""
    """What the user said, when it is the text of it that fails."""


@attrs.frozen(kw_only=True)
class Expiring:
    """The session ends in ``deadline_s`` seconds."""

    deadline_s: float
    reason: str


Happening: TypeAlias = (
    SpeechStarted
    | SpeechEnded
    | Heard
    | TurnEnded
    | WentIdle
    | ResponseStarted
    | Said
    | WordSpoken
    | Sounded
    | SaidAll
    | Called
    | ResponseEnded
    | Truncated
    | Used
    | Warned
    | Failed
    | Expiring
)
