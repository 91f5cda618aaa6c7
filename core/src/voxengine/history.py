"""What was said in a conversation, kept by the core and handed to whichever provider comes next.

Text is kept without bound unless ``max_items`` says otherwise; user audio is bounded (see
:class:`History`). Everything here belongs to the loop's thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final, Literal

import attrs

from voxengine._checks import check_unicode
from voxengine._items import (
    Heard,
    Item,
    ItemKind,
    Projection,
    ProjectionLimits,
    Status,
    changed,
    estimate_heard_text,
    heard_from_marks,
    item_from_json,
    item_to_json,
    pair_calls,
    project_items,
    render_as_text,
    with_text,
)
from voxengine.audio.format import AudioFormat
from voxengine.capabilities import Capabilities
from voxengine.codec import NewId
from voxengine.errors import AudioFormatError, ConfigError, UsageError

__all__ = [
    "Change",
    "Heard",
    "History",
    "Item",
    "ItemKind",
    "Projection",
    "ProjectionLimits",
    "Status",
    "estimate_heard_text",
    "heard_from_marks",
    "render_as_text",
]

Change = Literal["append", "edit", "delete"]

EXPORT_VERSION: Final = 1
"""Version of what :meth:`History.export` returns."""

_FIELDS: Final[tuple[attrs.Attribute[Any], ...]] = tuple(attrs.fields(Item))
_FIXED: Final = ("id", "kind", "call_id")


def _random_id(prefix: str) -> str:
    return prefix + os.urandom(16).hex()


class History:
    """The items of one conversation, oldest first.

    Two groups of methods change it. ``append``, ``add_system``, ``add_image``, ``edit`` and ``delete`` are
    the application's, legal at any time, and call ``on_change``; the others record what happened in a
    session and do not. Every change returns the item as it is now; items are immutable.

    User audio is kept so that a later provider can hear what has no transcript. With ``keep_audio_s`` the
    newest that many seconds are kept. With None, audio goes as soon as its turn is answered and its
    transcript final; what remains is bounded by ``max_audio_s``, oldest out first. An item loses all of its
    audio or none; its duration stays.

    Args:
        new_id: Makes ids; called with ``"item_"``. None: random ones.
        max_items: Most items; beyond it the oldest are forgotten (system items last) and counted in
            ``n_forgotten``. None: no bound.
        keep_audio_s: See above.
        max_audio_s: See above; counts only while ``keep_audio_s`` is None.
    """

    def __init__(
        self,
        *,
        new_id: NewId | None = None,
        max_items: int | None = None,
        keep_audio_s: float | None = None,
        max_audio_s: float = 60.0,
    ) -> None:
        if max_items is not None and max_items < 1:
            raise ConfigError(f"max_items is {max_items}; it is an int from 1, or None for no bound.")
        self.on_change: Callable[[Change, Item], object] | None = None
        """Called after a change by the application, with the new item (the old one for ``delete``)."""
        self.guard: Callable[[str], object] = lambda _: None
        """Called with ``"history.append"`` (``edit``, ``delete``) before any change; what it raises prevents it."""
        self.n_forgotten = 0
        """Items that ``max_items`` pushed out."""
        self._new_id = new_id or _random_id
        self._max_items = max_items
        self._keep_audio_s = keep_audio_s
        self._max_audio_ms = (max_audio_s if keep_audio_s is None else keep_audio_s) * 1000
        self._stored: dict[str, Item] = {}
        self._draft: tuple[str, str] | None = None
        """Item and text that it is to have: an agent's text grows by dozens of words before anybody looks."""
        self._with_audio: dict[str, None] = {}
        self._ours: dict[int, dict[str, str]] = {}
        self._theirs: dict[int, dict[str, str]] = {}

    # -- reading --------------------------------------------------------------------------------

    @property
    def items(self) -> tuple[Item, ...]:
        """All items, oldest first."""
        return tuple(self._items.values())

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._stored

    def __repr__(self) -> str:
        return f"<History of {len(self._items)} items>"

    def get(self, item_id: str) -> Item:
        """Return an item.

        Raises:
            UsageError: There is no such item.
        """
        item = self._items.get(item_id)
        if item is None:
            raise UsageError(
                f"The history has no item {item_id!r}: it was deleted, or the id is a vendor's. "
                "Take ids from history.items, or turn a vendor's into ours with history.resolve()."
            )
        return item

    def open_calls(self) -> tuple[Item, ...]:
        """Return the tool calls that have no result, oldest first."""
        pairs = pair_calls(self._items.values())
        return tuple(
            item for item in self._items.values() if item.kind is ItemKind.TOOL_CALL and item.id not in pairs
        )

    @property
    def audio_ms(self) -> int:
        """Milliseconds of user audio that are kept."""
        return sum(self._items[item_id].audio_ms for item_id in self._with_audio)

    # -- by the application ---------------------------------------------------------------------

    def append(self, item: Item) -> Item:
        """Add an item at the end and tell ``on_change``. An empty id is replaced by a new one.

        Raises:
            UsageError: The id is taken, or a tool result has no open call, or a text is no Unicode.
        """
        check_unicode("history.append", *attrs.astuple(item, recurse=False))
        return self._changed("append", self._add(item))

    def add_system(self, text: str) -> Item:
        """Add an instruction to the agent and tell ``on_change``."""
        return self.append(Item("", ItemKind.SYSTEM, text))

    def add_image(self, image_url: str, text: str = "") -> Item:
        """Add an image by the user and tell ``on_change``.

        Args:
            image_url: A data URI.
            text: What it shows, for providers that take no images.
        """
        return self.append(Item("", ItemKind.IMAGE, text, image_url=image_url))

    def edit(self, item_id: str, **changes: Any) -> Item:
        """Change fields of an item and tell ``on_change``. ``id``, ``kind`` and ``call_id`` are fixed.

        What was heard of an interrupted answer goes with a new text, unless a new ``heard_text`` is given too.

        Raises:
            UsageError: There is no such item or field, or a value does not fit.
        """
        item = self.get(item_id)
        known = [field.name for field in _FIELDS if field.name not in _FIXED]
        for name in changes:
            if name not in known:
                raise UsageError(f"edit() cannot change {name!r}. It changes: {', '.join(known)}.")
        check_unicode("history.edit", *changes.values())
        if "text" in changes and item.heard_text is not None:
            changes = {"heard_text": None, "heard_is_estimated": False, **changes}  # Of words that are gone.
        return self._changed("edit", self._put(attrs.evolve(item, **changes)))

    def delete(self, item_id: str) -> None:
        """Remove an item and tell ``on_change``. A tool call and its result go together, the result first.

        Raises:
            UsageError: There is no such item.
        """
        self.guard("history.delete")
        for item in self._remove(self.get(item_id)):
            try:
                self._changed("delete", item)  # Who is told may still ask what a vendor calls it.
            finally:
                self._forget_names(item.id)

    # -- what the user did ----------------------------------------------------------------------

    def add_user_text(self, text: str, *, provider: str = "") -> Item:
        """Record a user turn given as text."""
        return self._add(Item("", ItemKind.USER_TEXT, text, provider=provider))

    def add_user_audio(
        self,
        audio: bytes | None = None,
        audio_format: AudioFormat | None = None,
        transcript: str = "",
        *,
        audio_ms: int = 0,
        status: Status = "completed",
        provider: str = "",
    ) -> Item:
        """Record a user turn that was spoken.

        Args:
            audio: Whole frames in ``audio_format``; None when only the words (or the duration) are known.
            audio_format: What the bytes of ``audio`` mean.
            transcript: Its words so far.
            audio_ms: Duration where ``audio`` is not given.
            status: ``in_progress`` while the user speaks or the transcript may change.
            provider: In whose session.

        Raises:
            AudioFormatError: The audio is no whole number of frames. Nothing was recorded.
        """
        return self._add(
            Item(
                "",
                ItemKind.USER_AUDIO,
                transcript,
                audio=audio,
                audio_format=audio_format,
                audio_ms=audio_ms,
                status=status,
                provider=provider,
            )
        )

    def set_user_audio(self, item_id: str, audio: bytes, audio_format: AudioFormat) -> Item:
        """Give a spoken item its audio, in place of what it has."""
        item = self._of(item_id, ItemKind.USER_AUDIO)
        return self._put(attrs.evolve(item, audio=audio, audio_format=audio_format))

    def set_transcript(self, item_id: str, text: str, final: bool) -> Item:
        """Set the words of a spoken item, all of them so far.

        A final transcript never changes back: a later one that is not final is passed over.
        """
        item = self._of(item_id, ItemKind.USER_AUDIO)
        if not final and item.is_transcribed:
            return item
        return self._put(attrs.evolve(item, text=text, status="completed" if final else "in_progress"))

    # -- what the agent did ---------------------------------------------------------------------

    def start_agent(self, response_id: str = "", *, provider: str = "") -> Item:
        """Record that the agent begins an item of a response; its text follows."""
        return self._add(
            Item("", ItemKind.AGENT, status="in_progress", response_id=response_id, provider=provider)
        )

    def append_agent_text(self, item_id: str, delta: str) -> Item:
        """Add to the text of an agent's item."""
        item = self._of(item_id, ItemKind.AGENT)
        return self._put_agent(item, text=item.text + delta)

    def set_agent_text(self, item_id: str, text: str) -> Item:
        """Set the text of an agent's item, all of it so far."""
        return self._put_agent(self._of(item_id, ItemKind.AGENT), text=text)

    def draft_agent_text(self, item_id: str, text: str) -> None:
        """Set the text of an agent's item that has some already; the cheap way, for an answer under way."""
        if self._draft is not None and self._draft[0] != item_id:
            self._settle()
        self._draft = (item_id, text)

    def finish_agent(
        self, item_id: str, status: Status = "completed", *, audio_ms: int | None = None
    ) -> Item:
        """Record that the agent's item has been received.

        Args:
            item_id: The item.
            status: ``completed``, or ``incomplete`` when it ended early; what was cut stays ``incomplete``.
            audio_ms: Duration of its speech.
        """
        item = self._of(item_id, ItemKind.AGENT)
        return self._put_agent(
            item,
            status="incomplete" if item.heard_text is not None else status,
            audio_ms=item.audio_ms if audio_ms is None else audio_ms,
        )

    def truncate_agent(
        self, item_id: str, heard_ms: int, heard_text: str | None = None, total_ms: int | None = None
    ) -> Item:
        """Record that the agent was cut: only a part of its item was heard.

        Args:
            item_id: The item.
            heard_ms: How much of it was played.
            heard_text: The words heard, where an alignment tells; None: estimated from the proportion played.
            total_ms: Duration of the speech received; None: the item's ``audio_ms``. While it is unknown (0)
                an estimate claims nothing.
        """
        item = self._of(item_id, ItemKind.AGENT)
        total = item.audio_ms if total_ms is None else total_ms
        known = heard_text is not None
        if heard_text is None:
            heard_text = estimate_heard_text(item.text, heard_ms, total)
        return self._put_agent(
            item,
            heard_text=heard_text,
            heard_is_estimated=not known,
            heard_ms=heard_ms,
            audio_ms=total,
            status="incomplete",
        )

    def add_tool_call(
        self, call_id: str, name: str, arguments: str = "", *, response_id: str = "", provider: str = ""
    ) -> Item:
        """Record that the agent calls a tool; told again while the call is open, it stays one item.

        Args:
            call_id: Joins the call and its result.
            name: The tool.
            arguments: JSON text.
            response_id: The response that calls.
            provider: In whose session.
        """
        for item in self.open_calls():
            if item.call_id == call_id:
                return self._put(attrs.evolve(item, name=name, arguments=arguments or item.arguments))
        return self._add(
            Item(
                "",
                ItemKind.TOOL_CALL,
                name=name,
                call_id=call_id,
                arguments=arguments,
                response_id=response_id,
                provider=provider,
            )
        )

    def add_tool_result(
        self, call_id: str, output: str, *, is_error: bool = False, provider: str = ""
    ) -> Item:
        """Record what a tool returned, as text.

        Raises:
            UsageError: There is no open call of that id.
        """
        return self._add(
            Item("", ItemKind.TOOL_RESULT, output, call_id=call_id, is_error=is_error, provider=provider)
        )

    # -- a vendor's ids -------------------------------------------------------------------------

    def bind(self, vendor_id: str, item_id: str, epoch: int) -> None:
        """Note what the vendor of a session calls an item. An item may have several such names."""
        self.get(item_id)
        self._ours.setdefault(epoch, {})[vendor_id] = item_id
        self._theirs.setdefault(epoch, {})[item_id] = vendor_id

    def resolve(self, vendor_id: str, epoch: int) -> str | None:
        """Return our id of what a session's vendor calls ``vendor_id``, None when unknown or gone."""
        return self._ours.get(epoch, {}).get(vendor_id)

    def vendor_id(self, item_id: str, epoch: int) -> str | None:
        """Return what a session's vendor calls our item, the latest name; None when unknown."""
        return self._theirs.get(epoch, {}).get(item_id)

    def vendor_ids(self, item_id: str, epoch: int) -> tuple[str, ...]:
        """Return everything that a session's vendor calls our item, the oldest name first."""
        return tuple(name for name, known in self._ours.get(epoch, {}).items() if known == item_id)

    def release(self, epoch: int) -> None:
        """Forget the names of a session that ended."""
        self._ours.pop(epoch, None)
        self._theirs.pop(epoch, None)

    # -- the way out ----------------------------------------------------------------------------

    def project(
        self,
        capabilities: Capabilities,
        limits: ProjectionLimits | None = None,
        *,
        without: Collection[str] = (),
    ) -> Projection:
        """Return what goes into a provider that starts, oldest first: the one way in.

        Args:
            capabilities: The provider's. A cell that is unknown counts as missing.
            limits: Beside those of the capabilities.
            without: Ids of items that reach the provider another way; not counted as left out.

        Text goes where ``context_text`` allows, else nothing does. Of the agent's text, what was heard.
        User audio goes as its transcript; without a final one as audio where ``context_audio`` allows. Tool
        calls and results go as they are where ``context_tools`` allows, never one without the other; a call
        without a result goes as text. What cannot go as it is takes the form of :func:`render_as_text`.
        Empty items are passed over. Within the limits system items come first, then the newest; an item
        longer than the limit is skipped, and nothing goes that is older than the first one that does not fit.
        """
        given: object = capabilities
        if not isinstance(given, Capabilities):
            raise UsageError(
                f"history.project takes the provider's Capabilities, not a {type(given).__name__}."
            )
        return project_items(self._items.values(), capabilities, limits, without)

    def export(self, *, include_audio: bool = True) -> dict[str, Any]:
        """Return the items as plain JSON values (audio in base64) that :meth:`load` takes.

        Without audio the durations stay. Vendors' ids are not part of it.
        """
        items = [item_to_json(item, include_audio) for item in self._items.values()]
        return {"kind": "voxengine.history", "version": EXPORT_VERSION, "items": items}

    @classmethod
    def load(
        cls,
        value: object,
        *,
        new_id: NewId | None = None,
        max_items: int | None = None,
        keep_audio_s: float | None = None,
        max_audio_s: float = 60.0,
    ) -> History:
        """Return the history that :meth:`export` described; the bounds given here apply to it.

        Raises:
            ConfigError: The value is none, is of another version, or an item of it is wrong.
        """
        if not isinstance(value, Mapping) or value.get("kind") != "voxengine.history":
            raise ConfigError("This is no exported history. Pass what History.export() returned.")
        if value.get("version") != EXPORT_VERSION:
            raise ConfigError(
                f"The exported history has version {value.get('version')!r}; this voxengine reads "
                f"version {EXPORT_VERSION}. Export it again, or install the voxengine that wrote it."
            )
        items = value.get("items")
        if not isinstance(items, list):
            raise ConfigError("The exported history has no list of items.")
        history = cls(new_id=new_id, max_items=max_items, keep_audio_s=keep_audio_s, max_audio_s=max_audio_s)
        for number, fields in enumerate(items):
            try:
                item = item_from_json(fields)
                if not item.id or item.id in history._items:
                    raise UsageError("Its id is empty or not the only one of its kind.")
                history._store(item)
            except (UsageError, AudioFormatError) as error:
                raise ConfigError(f"Item {number} of the exported history is wrong: {error}") from None
        history._let_audio_go(answered=True)
        return history

    # -- inside ---------------------------------------------------------------------------------

    @property
    def _items(self) -> dict[str, Item]:
        if self._draft is not None:
            self._settle()
        return self._stored

    def _settle(self) -> None:
        (item_id, text), self._draft = self._draft or ("", ""), None
        item = self._stored.get(item_id)
        if item is not None:
            self._stored[item_id] = with_text(item, text)

    def _changed(self, kind: Change, item: Item) -> Item:
        if self.on_change is not None:
            self.on_change(kind, item)
        return item

    def _of(self, item_id: str, kind: ItemKind) -> Item:
        item = self.get(item_id)
        if item.kind is not kind:
            raise UsageError(f"Item {item_id!r} is a {item.kind}; this call is for items of kind {kind}.")
        return item

    def _add(self, item: Item) -> Item:
        self.guard("history.append")
        given: object = item
        if not isinstance(given, Item):
            raise UsageError(
                f'history.append takes an Item, not a {type(given).__name__}. Make one: Item("", ItemKind.SYSTEM, text).'
            )
        if item.id in self._items:
            raise UsageError(
                f"The history already has an item {item.id!r}. Leave the id empty for a new one, "
                "or use edit() to change the item."
            )
        if item.kind is ItemKind.TOOL_RESULT and all(
            call.call_id != item.call_id for call in self.open_calls()
        ):
            raise UsageError(
                f"There is no open tool call {item.call_id!r} for this result: it has one already, or the "
                "call was never recorded. history.open_calls() lists the open ones."
            )
        if not item.id:
            item_id = self._new_id("item_")
            while item_id in self._items:  # A loaded history may hold ids of the same factory.
                item_id = self._new_id("item_")
            item = changed(item, id=item_id)
        self._store(item)
        if item.audio:
            self._let_audio_go()
        elif item.kind is ItemKind.AGENT and _is_answer(item):
            self._let_audio_go(answered=True)
        return self._items.get(item.id, item)

    def _store(self, item: Item) -> None:
        self._items[item.id] = item
        if item.audio:
            self._with_audio[item.id] = None
        while self._max_items is not None and len(self._items) > self._max_items:
            older = [old for old in self._items.values() if old is not item] or [item]
            oldest = next((old for old in older if old.kind is not ItemKind.SYSTEM), older[0])
            for gone in self._remove(oldest):
                self.n_forgotten += 1
                self._forget_names(gone.id)

    def _put(self, item: Item) -> Item:
        self.guard("history.edit")
        self._items[item.id] = item
        self._with_audio.pop(item.id, None)
        if item.audio:
            self._with_audio[item.id] = None
            self._let_audio_go(answered=True)
        return self._items[item.id]

    def _put_agent(self, item: Item, **changes: Any) -> Item:
        self.guard("history.edit")
        now = changed(item, **changes)
        self._items[item.id] = now
        if _is_answer(now) and not _is_answer(item):
            self._let_audio_go(answered=True)
        return now

    def _remove(self, item: Item) -> list[Item]:
        partner = pair_calls(self._items.values()).get(item.id)
        gone = [item] if partner is None else [item, self._items[partner]]
        gone.sort(key=lambda one: one.kind is not ItemKind.TOOL_RESULT)
        for one in gone:
            del self._items[one.id]
            self._with_audio.pop(one.id, None)
        return gone

    def _forget_names(self, item_id: str) -> None:
        for epoch, theirs in self._theirs.items():
            if theirs.pop(item_id, None) is not None:
                ours = self._ours[epoch]
                self._ours[epoch] = {name: known for name, known in ours.items() if known != item_id}

    def _let_audio_go(self, *, answered: bool = False) -> None:
        """Drop audio that need not be kept; ``answered``: some turn may have been answered since."""
        if not self._with_audio:
            return
        if answered and self._keep_audio_s is None:
            is_answered = False
            for item in reversed(list(self._items.values())):
                is_answered = is_answered or (item.kind is ItemKind.AGENT and _is_answer(item))
                if is_answered and item.audio and item.is_transcribed:
                    self._drop_audio(item)
        kept = [self._items[item_id] for item_id in self._items if item_id in self._with_audio]
        total = 0
        for item in reversed(kept):
            if item.audio_ms <= self._max_audio_ms:  # One that can never fit pushes out no other.
                total += item.audio_ms
            if item.audio_ms > self._max_audio_ms or total > self._max_audio_ms:
                self._drop_audio(item)

    def _drop_audio(self, item: Item) -> None:
        self._items[item.id] = attrs.evolve(item, audio=None, audio_format=None)
        self._with_audio.pop(item.id, None)


def _is_answer(item: Item) -> bool:
    """Whether an agent's item counts as an answer: its first words or sound, or its end."""
    return bool(item.text or item.heard_ms) or item.status == "completed"
