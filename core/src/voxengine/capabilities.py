"""What a provider can do, said in one table that programs and people read alike."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final

import attrs

from voxengine.audio.format import AudioFormat
from voxengine.errors import CapabilityMissing, ConfigError

__all__ = [
    "FULL",
    "HOOK_CAPABILITIES",
    "PLANNED",
    "ROWS",
    "UNKNOWN",
    "UNSUPPORTED",
    "Capabilities",
    "Capability",
    "Support",
    "partial",
]


class Support(StrEnum):
    """How far a capability goes."""

    UNKNOWN = "unknown"
    """Nothing was declared."""
    UNSUPPORTED = "unsupported"
    """The vendor cannot."""
    PLANNED = "planned"
    """The vendor can; this package cannot yet."""
    PARTIAL = "partial"
    """With a restriction that ``why`` names."""
    FULL = "full"


@attrs.frozen(cache_hash=True)  # A table of them is a key wherever something follows from it.
class Capability:
    """One cell of the table. Truthy when it can be used (partial or full)."""

    support: Support = attrs.field(converter=Support)
    why: str = ""
    """The restriction of a partial one; optional for the others."""

    def __attrs_post_init__(self) -> None:
        if self.support is Support.PARTIAL and not self.why:
            raise ConfigError("A partial capability says why: use partial('...').")

    def __bool__(self) -> bool:
        return self.support in (Support.PARTIAL, Support.FULL)

    def __str__(self) -> str:
        return f"{self.support}: {self.why}" if self.why else str(self.support)


UNKNOWN: Final = Capability(Support.UNKNOWN)
UNSUPPORTED: Final = Capability(Support.UNSUPPORTED)
PLANNED: Final = Capability(Support.PLANNED)
FULL: Final = Capability(Support.FULL)


def partial(why: str) -> Capability:
    """Return a partial capability; ``why`` names the restriction."""
    return Capability(Support.PARTIAL, why)


def _to_capability(value: object) -> Capability:
    if isinstance(value, Capability):
        return value
    if isinstance(value, Support):
        return Capability(value)
    raise ConfigError(f"A capability is a Capability or a Support, not {value!r}.")


def _to_names(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


def _to_formats(values: Iterable[AudioFormat]) -> tuple[AudioFormat, ...]:
    return tuple(values)


def _names(value: Iterable[str]) -> tuple[str, ...]:
    return tuple(value)


def _formats(value: Iterable[AudioFormat]) -> tuple[AudioFormat, ...]:
    return tuple(value)


@attrs.frozen(kw_only=True, cache_hash=True)
class Capabilities:
    """What a provider (or one of its services) can do.

    Unknown counts as full for a hook that the class implements and as unsupported for one that it
    does not; unknown dialogue counts as dialogue.
    """

    streaming: Capability = attrs.field(default=UNKNOWN, converter=_to_capability)
    """Audio both ways while it is being made."""
    dialogue: Capability = attrs.field(default=UNKNOWN, converter=_to_capability)
    """Answers by itself: hears (or reads) and speaks (or writes)."""
    recognition: Capability = attrs.field(default=UNKNOWN, converter=_to_capability)
    """Turns speech into text."""
    synthesis: Capability = attrs.field(default=UNKNOWN, converter=_to_capability)
    """Turns text into speech."""
    text_turn: Capability = attrs.field(default=UNKNOWN, converter=_to_capability)
    """Takes a user turn as text (``send_text``)."""
    speak: Capability = attrs.field(default=UNKNOWN, converter=_to_capability)
    """Speaks a given text as the agent (``speak``)."""
    server_turn_detection: Capability = attrs.field(default=UNKNOWN, converter=_to_capability)
    """Finds the end of the user's turn from silence, at the vendor."""
    semantic_turn_detection: Capability = attrs.field(default=UNKNOWN, converter=_to_capability)
    """Finds the end of the user's turn from meaning, at the vendor."""
    client_turn_detection: Capability = attrs.field(default=UNKNOWN, converter=_to_capability)
    """Lets the client decide where a turn ends (``end_turn``)."""
    discard_input: Capability = attrs.field(default=UNKNOWN, converter=_to_capability)
    """Can drop input that was sent and not yet answered."""
    session_tools: Capability = attrs.field(default=UNKNOWN, converter=_to_capability)
    """Calls functions of the application."""
    live_configuration: Capability = attrs.field(default=UNKNOWN, converter=_to_capability)
    """Takes ``configure_session`` in the middle of a session."""
    cancel: Capability = attrs.field(default=UNKNOWN, converter=_to_capability)
    """Stops a response on request (``interrupt``)."""
    heard_text: Capability = attrs.field(default=UNKNOWN, converter=_to_capability)
    """Knows which words belong to which played millisecond."""
    resume: Capability = attrs.field(default=UNKNOWN, converter=_to_capability)
    """Continues an ended session by its handle."""
    items: Capability = attrs.field(default=UNKNOWN, converter=_to_capability)
    """Takes single history items in mid-session (``send_item``)."""
    context_text: Capability = attrs.field(default=UNKNOWN, converter=_to_capability)
    """Takes earlier turns as text when a session starts (``load_history``)."""
    context_audio: Capability = attrs.field(default=UNKNOWN, converter=_to_capability)
    """Takes earlier user turns as audio when a session starts."""
    context_tools: Capability = attrs.field(default=UNKNOWN, converter=_to_capability)
    """Takes earlier tool calls and results when a session starts."""
    replay: Capability = attrs.field(default=UNKNOWN, converter=_to_capability)
    """Takes audio faster than real time; ``replay_speed`` says how much faster."""
    response_boundaries: Capability = attrs.field(default=UNKNOWN, converter=_to_capability)
    """Says where a response starts and ends."""
    multiple_voices: Capability = attrs.field(default=UNKNOWN, converter=_to_capability)
    vocabulary_at_connect: Capability = attrs.field(default=UNKNOWN, converter=_to_capability)
    """Takes a custom vocabulary when a session starts."""
    vocabulary_live: Capability = attrs.field(default=UNKNOWN, converter=_to_capability)
    """Takes a custom vocabulary in the middle of a session."""
    word_timings: Capability = attrs.field(default=UNKNOWN, converter=_to_capability)
    emotion: Capability = attrs.field(default=UNKNOWN, converter=_to_capability)
    """Recognises emotion in the user's speech."""
    usage: Capability = attrs.field(default=UNKNOWN, converter=_to_capability)
    """Reports what a session used (``get_usage``)."""
    cost: Capability = attrs.field(default=UNKNOWN, converter=_to_capability)
    """Can price what a session used (``estimate_cost``)."""

    voices: tuple[str, ...] = attrs.field(default=(), converter=_to_names)
    """Names of voices; empty when unknown or open."""
    input_formats: tuple[AudioFormat, ...] = attrs.field(default=(), converter=_to_formats)
    """Accepted input formats, the preferred one first; empty: 24000 Hz mono PCM16 is assumed."""
    output_formats: tuple[AudioFormat, ...] = attrs.field(default=(), converter=_to_formats)
    """Output formats, the preferred one first; empty: as each chunk says, else 24000 Hz mono PCM16."""
    min_chunk_ms: int | None = None
    """Shortest audio message that the vendor takes."""
    preferred_chunk_ms: int | None = None
    """Audio message length that the vendor asks for."""
    max_history_items: int | None = None
    """Most items that ``load_history`` takes."""
    max_history_chars: int | None = None
    """Most characters of text that ``load_history`` takes."""
    replay_speed: float | None = None
    """Times real time at which ``send_audio`` may be fed; None: as fast as the transport takes it."""
    endpointing_silence_ms: int | None = None
    """Silence after which the vendor's own turn detection ends a turn."""
    session_limit_s: float | None = None
    """Longest life of a session."""
    cost_per_minute_usd: float | None = None
    """Rough price of a minute of conversation; None when unknown, 0.0 when free."""

    def support(self, row: str) -> Capability:
        """Return the cell of a row by its name.

        Raises:
            ConfigError: There is no such row.
        """
        if row not in ROWS:
            raise ConfigError(f"No capability named {row!r}. The rows: {', '.join(ROWS)}.")
        value = getattr(self, row)
        assert isinstance(value, Capability)
        return value

    def require(self, row: str, *, provider: str, doing: str) -> None:
        """Raise CapabilityMissing when the row is unsupported or planned. ``doing`` opens the sentence."""
        cell = self.support(row)
        if cell.support in (Support.UNSUPPORTED, Support.PLANNED):
            planned = cell.support is Support.PLANNED
            reason = (
                "this version of the provider's package does not do that yet"
                if planned
                else "the service cannot"
            )
            raise CapabilityMissing(
                f"{doing} needs the capability {row!r}, which {provider!r} has not: {reason}"
                f"{f' ({cell.why})' if cell.why else ''}. `voxengine providers` shows who has it.",
                capability=row,
                provider=provider,
                planned=planned,
            )

    def evolve(self, **changes: Any) -> Capabilities:
        """Return a copy with some cells changed."""
        return attrs.evolve(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, rows first."""
        out: dict[str, Any] = {row: str(self.support(row)) for row in ROWS}
        for field in attrs.fields(Capabilities):
            if field.name in out:
                continue
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                value = [v.describe() if isinstance(v, AudioFormat) else v for v in value]
            out[field.name] = value
        return out


ROWS: Final[tuple[str, ...]] = tuple(
    field.name for field in attrs.fields(Capabilities) if field.default is UNKNOWN
)
"""Names of the rows of the table, in the order in which they are shown."""

HOOK_CAPABILITIES: Final[dict[str, str]] = {
    "end_turn": "client_turn_detection",
    "discard_input": "discard_input",
    "send_tool_result": "session_tools",
    "load_history": "context_text",
    "send_item": "items",
    "speak": "speak",
    "resume": "resume",
    "get_usage": "usage",
    "estimate_cost": "cost",
}
"""The capability that gates each optional hook."""
