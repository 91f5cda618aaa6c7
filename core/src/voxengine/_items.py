"""History items, what was heard of them, and how a list of them goes into a provider.

Everything public here is exported by :mod:`voxengine.history`.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, Literal

import attrs

from voxengine.audio.format import AudioFormat
from voxengine.capabilities import Capabilities, Support
from voxengine.errors import UsageError

__all__ = [
    "Heard",
    "Item",
    "ItemKind",
    "Projection",
    "ProjectionLimits",
    "Status",
    "changed",
    "estimate_heard_text",
    "heard_from_marks",
    "item_from_json",
    "item_to_json",
    "pair_calls",
    "project_items",
    "render_as_text",
    "with_text",
]

Status = Literal["in_progress", "completed", "incomplete"]
_STATUSES: Final = ("in_progress", "completed", "incomplete")


class ItemKind(StrEnum):
    """What an item of a conversation is."""

    USER_TEXT = "user_text"
    USER_AUDIO = "user_audio"
    AGENT = "agent"
    TOOL_CALL = "tool_call"
    TOOL_RESULT = "tool_result"
    SYSTEM = "system"
    IMAGE = "image"


_ROLES: Final[dict[ItemKind, Literal["user", "agent", "tool", "system"]]] = {
    ItemKind.USER_TEXT: "user",
    ItemKind.USER_AUDIO: "user",
    ItemKind.AGENT: "agent",
    ItemKind.TOOL_CALL: "tool",
    ItemKind.TOOL_RESULT: "tool",
    ItemKind.SYSTEM: "system",
    ItemKind.IMAGE: "user",
}


def _is(kind: type, *, optional: bool = False) -> Callable[[Any, attrs.Attribute[Any], Any], None]:
    def check(_: Any, field: attrs.Attribute[Any], value: Any) -> None:
        if value is None and optional:
            return
        # A bool is an int to isinstance; a duration of True milliseconds is a mistake.
        wrong_int = kind is int and (isinstance(value, bool) or (isinstance(value, int) and value < 0))
        if not isinstance(value, kind) or wrong_int:
            takes = "an int from 0" if kind is int else f"a {kind.__name__}"
            raise UsageError(
                f"Item.{field.name} got a {type(value).__name__}; "
                f"it takes {takes}{' or None' if optional else ''}."
            )

    return check


def _text(default: Any = "", *, optional: bool = False, shown: bool = False) -> Any:
    return attrs.field(default=default, validator=_is(str, optional=optional), repr=shown)


def _to_kind(value: object) -> ItemKind:
    try:
        return ItemKind(str(value))
    except ValueError:
        raise UsageError(f"Item.kind got {value!r}; it is one of {', '.join(ItemKind)}.") from None


def _to_bytes(value: object) -> object:
    return bytes(value) if isinstance(value, bytearray | memoryview) else value


def _check_status(_: Any, __: attrs.Attribute[Any], value: Any) -> None:
    if value not in _STATUSES:
        raise UsageError(f"Item.status got {value!r}; it is one of {', '.join(_STATUSES)}.")


@attrs.frozen
class Item:
    """One thing that was said, shown, called or told in a conversation.

    ``repr`` holds no text and no audio.

    Raises:
        UsageError: A value has the wrong type, or a field that the kind needs is missing.
        AudioFormatError: The audio is no whole number of frames.
    """

    id: str = attrs.field(validator=_is(str))
    """Ours; survives a provider. An empty one is replaced when the item is appended."""
    kind: ItemKind = attrs.field(converter=_to_kind)
    text: str = _text()
    """User text, transcript of user audio, all that the agent wrote, system text, a tool's output, or what
    an image shows."""
    heard_text: str | None = _text(None, optional=True)
    """For the agent: the part that was heard; None: all of it."""
    heard_is_estimated: bool = attrs.field(default=False, validator=_is(bool))
    """Whether ``heard_text`` follows from the played proportion and not from the vendor's alignment."""
    heard_ms: int | None = attrs.field(default=None, validator=_is(int, optional=True))
    """For the agent: how much of the item was played; None: all of it, or unknown."""
    audio: bytes | None = attrs.field(
        default=None, converter=_to_bytes, validator=_is(bytes, optional=True), repr=False
    )
    """User audio in ``audio_format``, None once it was let go."""
    audio_format: AudioFormat | None = attrs.field(default=None, validator=_is(AudioFormat, optional=True))
    audio_ms: int = attrs.field(default=0, validator=_is(int))
    """Duration, also when the audio is gone. Follows from ``audio`` where that is given."""
    name: str = _text(shown=True)
    """A tool call's or result's tool."""
    call_id: str = _text(shown=True)
    """Joins a tool call and its result."""
    arguments: str = _text()
    """A tool call's arguments, as JSON text."""
    is_error: bool = attrs.field(default=False, validator=_is(bool))
    """Whether a tool's result tells of a failure."""
    image_url: str = _text()
    """A data URI."""
    status: Status = attrs.field(default="completed", validator=_check_status)
    """``in_progress``: still growing; for user audio: the transcript may change."""
    response_id: str = _text(shown=True)
    """For the agent and its tool calls: the response that the item belongs to."""
    provider: str = _text(shown=True)
    """Name of the provider in whose session the item came up."""

    def __attrs_post_init__(self) -> None:
        needs = {
            ItemKind.TOOL_CALL: ("call_id", "name"),
            ItemKind.TOOL_RESULT: ("call_id",),
            ItemKind.IMAGE: ("image_url",),
        }
        for field in needs.get(self.kind, ()):
            if not getattr(self, field):
                raise UsageError(f"An item of kind {self.kind} needs {field}.")
        if self.audio is None:
            return
        if self.kind is not ItemKind.USER_AUDIO or self.audio_format is None:
            raise UsageError("Audio belongs to an item of kind user_audio and needs audio_format.")
        self.audio_format.check_aligned(len(self.audio), "Item.audio")
        object.__setattr__(self, "audio_ms", round(self.audio_format.duration_ms(len(self.audio))))

    @property
    def role(self) -> Literal["user", "agent", "tool", "system"]:
        """Whose item it is: ``user``, ``agent``, ``tool`` (calls and results) or ``system``."""
        return _ROLES[self.kind]

    @property
    def context_text(self) -> str:
        """What a model should be told was said: the heard part where one is known, else the text."""
        return self.text if self.heard_text is None else self.heard_text

    @property
    def is_transcribed(self) -> bool:
        """For user audio: whether a final transcript with words in it is there."""
        return self.status == "completed" and bool(self.text.strip())


_FIELDS: Final[tuple[attrs.Attribute[Any], ...]] = tuple(attrs.fields(Item))
_SLOTS: Final = tuple(
    (slot.__get__, slot.__set__) for slot in (Item.__dict__[field.name] for field in _FIELDS)
)
_set_text: Final = Item.__dict__["text"].__set__


_SETTERS: Final = {field.name: (field, Item.__dict__[field.name].__set__) for field in _FIELDS}


def with_text(item: Item, text: str) -> Item:
    """Return the item with another text, a str, without checking again what is known to fit."""
    new = Item.__new__(Item)
    for get, set_ in _SLOTS:
        set_(new, get(item))
    _set_text(new, text)
    return new


def changed(item: Item, **changes: Any) -> Item:
    """Return the item with other values; only those are checked. Not for ``kind`` and the audio itself.

    Several times as fast as ``attrs.evolve``, and it runs between an interruption and its event.
    """
    new = with_text(item, item.text)
    for name, value in changes.items():
        field, set_ = _SETTERS[name]
        if field.validator is not None:
            field.validator(new, field, value)
        set_(new, value)
    return new


@attrs.frozen
class Heard:
    """What the user heard of a response."""

    response_id: str
    item_id: str
    """The item that was playing: the vendor's id in a provider's hands, ours in the application's."""
    content_index: int
    """Part of the item that was playing."""
    item_played_ms: int
    """Played of this item."""
    session_played_ms: int
    """Played of the agent's audio since the session began."""


# -- what was heard ---------------------------------------------------------------------------------


def _is_ideograph(char: str) -> bool:
    # Chinese and Japanese put no spaces between words: there a character counts as one.
    code = ord(char)
    return 0x3000 <= code <= 0x9FFF or 0xF900 <= code <= 0xFAFF or 0xFF00 <= code <= 0xFFEF or code >= 0x20000


def _is_word_end(text: str, end: int) -> bool:
    if end in (0, len(text)):
        return True
    before, after = text[end - 1], text[end]
    if before.isspace() or unicodedata.category(after).startswith("M"):
        return False
    return after.isspace() or _is_ideograph(before) or _is_ideograph(after)


def estimate_heard_text(text: str, played_ms: float, total_ms: float) -> str:
    """Return the part of ``text`` that fits the played part of its audio, cut back to a whole word.

    A prefix of ``text`` that never claims more than the proportion played; empty at 0 and when the
    duration is unknown (0), all of it from ``total_ms`` on.
    """
    if total_ms <= 0 or played_ms <= 0:
        return ""
    if played_ms >= total_ms:
        return text
    end = min(len(text), int(len(text) * played_ms / total_ms))
    while not _is_word_end(text, end):
        end -= 1
    return text[:end]


def heard_from_marks(
    text: str, marks: Iterable[tuple[str, float]], played_ms: float, total_ms: float | None = None
) -> str:
    """Return the prefix of ``text`` that was played, from the vendor's word alignment.

    Args:
        text: What the agent wrote.
        marks: ``(word, at_ms)``: where each word starts, in milliseconds from the item's start.
        played_ms: How much of the item was played.
        total_ms: Duration of the item; None when unknown, then the last word never counts as heard.

    A word was heard when the next one had begun. Marks whose word is not in the text are passed over.
    """
    if played_ms <= 0:
        return ""
    if total_ms is not None and 0 < total_ms <= played_ms:
        return text
    ordered = sorted(marks, key=lambda mark: mark[1])
    end = position = 0
    for (word, _), (_, next_ms) in itertools.pairwise(ordered):
        if next_ms > played_ms:
            break
        found = _find_word(text, word, position)
        if found >= 0:
            end = position = found + len(word)
    # Punctuation right behind a word takes no time.
    while end and end < len(text) and not text[end].isspace() and not text[end].isalnum():
        end += 1
    return text[:end]


def _find_word(text: str, word: str, start: int) -> int:
    found = text.find(word, start) if word else -1
    while found >= 0 and (_is_inside_word(text, found) or _is_inside_word(text, found + len(word))):
        found = text.find(word, found + 1)
    return found


def _is_inside_word(text: str, at: int) -> bool:
    if at in (0, len(text)):
        return False
    before, after = text[at - 1], text[at]
    return before.isalnum() and after.isalnum() and not _is_ideograph(before) and not _is_ideograph(after)


# -- the way into a provider ------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class ProjectionLimits:
    """What a projection may hold, beside the limits of the capabilities; the smaller one counts."""

    max_items: int | None = None
    max_chars: int | None = None
    """Characters of text, arguments and tool output together."""
    takes_images: bool = True
    """False: images become a line of text."""


@attrs.frozen
class Projection:
    """What goes into a provider, and what does not."""

    items: tuple[Item, ...]
    """Oldest first, with the ids that they have in the history. ``text`` is what was heard. An item of kind
    ``user_audio`` has audio; tool calls and results come in pairs."""
    left_out: tuple[str, ...] = ()
    """What the provider is not told, in words; empty when nothing."""

    @property
    def is_full(self) -> bool:
        """Whether nothing was left out."""
        return not self.left_out

    @property
    def description(self) -> str:
        """``full``, or ``partial: `` and what was left out."""
        return "full" if self.is_full else f"partial: {'; '.join(self.left_out)}"


def pair_calls(items: Iterable[Item]) -> dict[str, str]:
    """Return which item id answers which: call to result and result to call.

    A result belongs to the last call before it that has its ``call_id`` and no result yet.
    """
    open_calls: dict[str, str] = {}
    pairs: dict[str, str] = {}
    for item in items:
        if item.kind is ItemKind.TOOL_CALL:
            open_calls[item.call_id] = item.id
        elif item.kind is ItemKind.TOOL_RESULT and item.call_id in open_calls:
            call = open_calls.pop(item.call_id)
            pairs[call], pairs[item.id] = item.id, call
    return pairs


def render_as_text(item: Item, *, is_open: bool = False, name: str = "") -> Item:
    """Return the item as one of text: the fixed rendering for what a provider does not take as it is.

    =====================================  =========================================================
    item                                   becomes
    =====================================  =========================================================
    tool call                              system: ``Tool call: NAME(ARGUMENTS)``
    tool call without a result             system: ``Tool call: NAME(ARGUMENTS). No result yet.``
    tool result                            system: ``Tool result of NAME: OUTPUT``
    tool result that tells of a failure    system: ``Tool NAME failed: OUTPUT``
    user audio with a transcript           user text: the transcript
    user audio without one                 user text: ``[user spoke for 3.2 s; no transcript]``
    image                                  user text: ``[image: TEXT]`` or ``[image]``
    =====================================  =========================================================

    Text stays as it is; of the agent's, what was heard. ``name`` names the tool of a result that does not.
    """
    name = item.name or name
    match item.kind:
        case ItemKind.TOOL_CALL:
            text = f"Tool call: {name}({item.arguments})" + (". No result yet." if is_open else "")
            return Item(item.id, ItemKind.SYSTEM, text, response_id=item.response_id, provider=item.provider)
        case ItemKind.TOOL_RESULT:
            said = f"Tool {name} failed" if item.is_error else f"Tool result of {name}"
            return Item(item.id, ItemKind.SYSTEM, f"{said}: {item.text}", provider=item.provider)
        case ItemKind.USER_AUDIO:
            gap = f"[user spoke for {item.audio_ms / 1000:.1f} s; no transcript]"
            return Item(
                item.id,
                ItemKind.USER_TEXT,
                item.text if item.text.strip() else gap,
                audio_ms=item.audio_ms,
                status=_settled(item),
                provider=item.provider,
            )
        case ItemKind.IMAGE:
            text = f"[image: {item.text}]" if item.text else "[image]"
            return Item(item.id, ItemKind.USER_TEXT, text, provider=item.provider)
    return attrs.evolve(
        item, text=item.context_text, heard_text=None, heard_is_estimated=False, status=_settled(item)
    )


def _settled(item: Item) -> Status:
    return "incomplete" if item.status == "in_progress" else item.status


def _is_empty(item: Item) -> bool:
    if item.kind is ItemKind.USER_AUDIO:
        return not item.audio_ms and not item.text.strip()
    return (
        item.kind in (ItemKind.USER_TEXT, ItemKind.AGENT, ItemKind.SYSTEM) and not item.context_text.strip()
    )


def project_items(
    items: Iterable[Item],
    capabilities: Capabilities,
    limits: ProjectionLimits | None = None,
    without: Collection[str] = (),
) -> Projection:
    """Return what of ``items`` goes into a provider; see :meth:`voxengine.history.History.project`."""
    limits = limits or ProjectionLimits()
    items = list(items)
    hidden = set(without)
    if hidden:
        pairs = pair_calls(items)
        hidden |= {pairs[item_id] for item_id in without if item_id in pairs}
    found = [item for item in items if item.id not in hidden and not _is_empty(item)]
    if not capabilities.context_text:
        if not found:
            return Projection(())
        who = (
            "this version of the provider's package hands over"
            if capabilities.context_text.support is Support.PLANNED
            else "the service takes"
        )
        return Projection((), (f"{_n(len(found), 'item')}, {who} no earlier turns",))
    pairs = pair_calls(found)
    ready, lossy, n_orphans = _render(found, pairs, capabilities, limits)
    kept, n_older, n_long = _select(ready, pairs, capabilities, limits)
    lost = [lossy[item.id] for item in kept if item.id in lossy]
    gaps = sum(item.audio_ms for item in lost)
    n_images = sum(item.kind is ItemKind.IMAGE for item in lost)
    left_out = [
        f"{_n(n_older, 'older item')} beyond the limit" if n_older else "",
        f"{_n(n_long, 'item')} longer than the limit" if n_long else "",
        f"{_n(n_orphans, 'tool result')} without a call" if n_orphans else "",
        f"{gaps / 1000:.1f} s of speech without a transcript" if gaps else "",
        _n(n_images, "image") if n_images else "",
    ]
    return Projection(tuple(kept), tuple(words for words in left_out if words))


def _n(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


_Ready = list[tuple[Item, Item]]
"""Pairs of an item and what becomes of it."""


def _render(
    items: Sequence[Item], pairs: dict[str, str], capabilities: Capabilities, limits: ProjectionLimits
) -> tuple[_Ready, dict[str, Item], int]:
    """Return what becomes of each item, those that lose content by it, and how many results are orphans."""
    ready: _Ready = []
    lossy: dict[str, Item] = {}
    n_orphans = 0
    names = {item.id: item.name for item in items}
    for item in items:
        shown = item
        match item.kind:
            case ItemKind.TOOL_CALL:
                if item.id not in pairs or not capabilities.context_tools:
                    shown = render_as_text(item, is_open=item.id not in pairs)
            case ItemKind.TOOL_RESULT:
                if item.id not in pairs:
                    n_orphans += 1
                    continue
                if not capabilities.context_tools:
                    shown = render_as_text(item, name=names[pairs[item.id]])
            case ItemKind.USER_AUDIO:
                if item.audio and not item.is_transcribed and capabilities.context_audio:
                    shown = attrs.evolve(item, status=_settled(item))
                else:
                    shown = render_as_text(item)
                    if not item.text.strip():
                        lossy[item.id] = item
            case ItemKind.IMAGE:
                if not limits.takes_images:
                    lossy[item.id] = item
                    shown = render_as_text(item)
            case _:
                shown = render_as_text(item)
        ready.append((item, shown))
    return ready, lossy, n_orphans


def _n_chars(item: Item) -> int:
    if item.kind is ItemKind.TOOL_CALL:
        return len(item.name) + len(item.arguments)
    return 0 if item.kind is ItemKind.USER_AUDIO else len(item.context_text)


def _select(
    ready: _Ready, pairs: dict[str, str], capabilities: Capabilities, limits: ProjectionLimits
) -> tuple[list[Item], int, int]:
    """Return what fits, how many older items do not, and how many are longer than the whole limit."""
    max_items = _least(limits.max_items, capabilities.max_history_items)
    max_chars = _least(limits.max_chars, capabilities.max_history_chars)
    shown = {item.id: new for item, new in ready}
    units: dict[bool, list[list[Item]]] = {True: [], False: []}
    for item, new in reversed(ready):
        is_call = item.kind is ItemKind.TOOL_CALL
        if is_call and item.id in pairs:
            continue  # Comes with its result, which is newer.
        unit = [new] if item.id not in pairs else [shown[pairs[item.id]], new]
        units[item.kind is ItemKind.SYSTEM].append(unit)
    chosen: set[str] = set()
    n_items = n_chars = n_older = n_long = 0
    for is_system in (True, False):
        is_full = False
        for unit in units[is_system]:
            items, chars = len(unit), sum(map(_n_chars, unit))
            if items > max_items or chars > max_chars:
                n_long += items
                continue
            # What is older than the first item that does not fit stays out: no hole in what was said.
            is_full = is_full or n_items + items > max_items or n_chars + chars > max_chars
            if is_full:
                n_older += items
                continue
            n_items, n_chars = n_items + items, n_chars + chars
            chosen.update(item.id for item in unit)
    return [new for _, new in ready if new.id in chosen], n_older, n_long


def _least(*bounds: int | None) -> float:
    return min((bound for bound in bounds if bound is not None), default=float("inf"))


# -- as JSON ----------------------------------------------------------------------------------------


def item_to_json(item: Item, include_audio: bool) -> dict[str, Any]:
    """Return an item as plain JSON values, audio in base64; defaults are left out."""
    out: dict[str, Any] = {}
    for field in _FIELDS:
        value = getattr(item, field.name)
        if value == field.default or (field.name in ("audio", "audio_format") and not include_audio):
            continue
        if isinstance(value, bytes):
            value = base64.b64encode(value).decode("ascii")
        elif isinstance(value, AudioFormat):
            value = {
                "sample_rate": value.sample_rate,
                "channels": value.channels,
                "encoding": str(value.encoding),
            }
        out[field.name] = str(value) if isinstance(value, ItemKind) else value
    return out


def item_from_json(fields: object) -> Item:
    """Return the item that :func:`item_to_json` described.

    Raises:
        UsageError, AudioFormatError: The value describes none.
    """
    if not isinstance(fields, Mapping):
        raise UsageError("It is no mapping.")
    known = [field.name for field in _FIELDS]
    for name in fields:
        if name not in known:
            raise UsageError(f"It has an unknown field {name!r}.")
    for name in ("id", "kind"):
        if name not in fields:
            raise UsageError(f"It has no {name}.")
    values = dict(fields)
    if isinstance(values.get("audio"), str):
        try:
            values["audio"] = base64.b64decode(values["audio"], validate=True)
        except (binascii.Error, ValueError):
            raise UsageError("Its audio is no base64 text.") from None
    if isinstance(values.get("audio_format"), Mapping):
        try:
            values["audio_format"] = AudioFormat(**values["audio_format"])
        except TypeError:
            raise UsageError("Its audio_format has unknown fields.") from None
    return Item(**values)
