"""The agent's side of a conversation: what can still be heard, and how much of it was."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import attrs

from voxengine.audio.format import AudioFormat
from voxengine.audio.playback import ExternalClock, NullClock, PlaybackClock
from voxengine.audio.switching import SwitchableClock
from voxengine.events import EventType, LazyAudio
from voxengine.history import Heard, History, Status, heard_from_marks
from voxengine.output import OutputFormatter
from voxengine.responses import Response, ResponseTracker
from voxengine.session import Session
from voxengine.taps import Taps
from voxengine.user_turns import Emit, extend_text

__all__ = ["AgentItem", "AgentTurns"]

_CHARS_PER_S: Final = 18.0
"""How fast speech gets through text; text that runs further ahead of its audio was not heard."""


@attrs.define(eq=False)
class AgentItem:
    """An item of the agent while it can still be heard."""

    id: str
    vendor_id: str | None
    response: Response
    text: str = ""
    received_ms: float = 0.0
    source: AudioFormat | None = None
    """What audio of it is in when its chunks do not say so."""
    marks: list[tuple[str, int]] = attrs.field(factory=list)
    is_final: bool = False
    spoken_ms: int = 0
    """How long all of its text takes, where more text than audio was received."""


class AgentTurns:
    """The agent's items, their audio and what was played of it. Loop thread only.

    Args:
        history: Where the items are filed. The application may delete one at any time.
        responses: Says which response is open.
        taps: The filters of the output.
        emit: Delivers events.
    """

    def __init__(self, history: History, responses: ResponseTracker, taps: Taps, emit: Emit) -> None:
        self._history = history
        self._responses = responses
        self._taps = taps
        self._emit = emit
        self._output: OutputFormatter | None = None
        self._items: dict[str, AgentItem] = {}
        self.clock: PlaybackClock | None = None
        self.is_filtered = taps.has("on_output")
        """Whether a tap sees the audio before anybody else."""

    def open_clock(self, audio_format: AudioFormat, playback: str, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to play, in the engine's output format."""
        self._output = OutputFormatter(audio_format)
        if playback == "external":
            self.clock = ExternalClock(audio_format, self)
        elif playback == "auto":
            self.clock = SwitchableClock(self, lambda listener: NullClock(audio_format, listener, loop))
        else:
            self.clock = NullClock(audio_format, self, loop)

    @property
    def output(self) -> OutputFormatter:
        """Brings audio to the engine's output format; there from the first connect on."""
        assert self._output is not None
        return self._output

    @property
    def is_audible(self) -> bool:
        """Whether something is playing or waits to be played."""
        return self.clock is not None and self.clock.current is not None

    # -- what is said -----------------------------------------------------------------------------

    def item(
        self, session: Session, response: Response, vendor_id: str | None, text: str | None
    ) -> AgentItem:
        """Return the item that an output belongs to, a new one where it begins."""
        item_id = response.item_ids.get(vendor_id)
        held = self._items.get(item_id) if item_id is not None else None
        is_anonymous = response.is_inferred and vendor_id is None
        if held is not None and is_anonymous and held.is_final and text and not text.startswith(held.text):
            held = None  # A provider without ids that wrote a finished text writes the next one.
        if held is None:
            new_id = self._history.start_agent(response.id, provider=session.name).id
            if vendor_id is not None:
                self._history.bind(vendor_id, new_id, session.epoch)
            held = AgentItem(new_id, vendor_id, response)
            response.item_ids[vendor_id] = new_id
            self._items[new_id] = held
        return held

    def find(self, response: Response, vendor_id: str | None) -> AgentItem | None:
        """Return an item by the provider's name for it."""
        item_id = response.item_ids.get(vendor_id)
        return self._items.get(item_id) if item_id is not None else None

    def take_text(self, session: Session, item: AgentItem, data: dict[str, Any]) -> None:
        """Take TEXT_OUTPUT."""
        item.text, delta = extend_text(item.text, data)
        is_partial = bool(data.get("is_partial", False))
        item.is_final = not is_partial
        if item.id in self._history:
            self._history.set_agent_text(item.id, item.text)
        data.update(
            text=item.text, delta=delta, is_partial=is_partial, response_id=item.response.id, item_id=item.id
        )
        self._emit(EventType.TEXT_OUTPUT, data, session)

    def take_audio(self, session: Session, item: AgentItem, data: dict[str, Any]) -> None:
        """Take AUDIO_OUTPUT_CHUNK."""
        if "sample_rate" in data or "channels" in data:
            rate = data.get("sample_rate") or session.output_format.sample_rate
            source = AudioFormat(rate, data.get("channels") or 1)
        else:
            source = item.source or self._own_source(session, item)
        audio = data["audio_data"]
        if type(audio) is not LazyAudio and type(audio) is not bytes:
            audio = audio if isinstance(audio, bytes | LazyAudio) else bytes(audio)
        self._deliver(session, item, self.output.take(item.id, audio, source), data)

    def _own_source(self, session: Session, item: AgentItem) -> AudioFormat:
        source = AudioFormat(session.output_format.sample_rate, 1)
        item.source = self.output.format if source == self.output.format else source
        return item.source

    def _deliver(
        self, session: Session, item: AgentItem, audio: bytes | LazyAudio, data: dict[str, Any]
    ) -> None:
        assert self.clock is not None
        if self.is_filtered:
            kept = self.output.filtered(audio, self._taps.filter_output)
            if kept is None:
                return
            audio = kept
        n_bytes = len(audio) if isinstance(audio, bytes) else audio.n_bytes
        if not n_bytes:
            return
        output = self.output
        audio_format = output.format
        n_frames = n_bytes // output.frame_bytes
        item.received_ms += n_frames * 1000 / audio_format.sample_rate
        self.clock.write(item.id, n_frames, audio)
        data["audio_data"] = audio
        data["sample_rate"] = audio_format.sample_rate
        data["channels"] = audio_format.channels
        data["response_id"] = item.response.id
        data["item_id"] = item.id
        self._emit(EventType.AUDIO_OUTPUT_CHUNK, data, session)

    def finish(self, response: Response, session: Session, status: Status, *, is_torn: bool = False) -> int:
        """Note that a response was received in full; what has not been played still plays.

        Args:
            response: Ended.
            session: Whose it is.
            status: How it ended.
            is_torn: Its text may run ahead of the audio that was received; that part nobody will hear.

        Returns:
            How much of it was played so far, in milliseconds.
        """
        assert self.clock is not None
        played = 0
        for item in [item for item in self._items.values() if item.response is response]:
            tail = self.output.finish(item.id)
            if tail:
                self._deliver(session, item, tail, {})
            if is_torn and (item.received_ms > 0 or session.is_heard):
                self._tear(item)
            if item.id in self._history:
                self._history.finish_agent(item.id, status)
            self.clock.finish(item.id)
            played += self.clock.played_ms(item.id)
        self._forget()
        return played

    # -- what was heard ---------------------------------------------------------------------------

    def silence(self, response: Response | None) -> list[AgentItem]:
        """Silence the output; return what could still be heard, for :meth:`settle`.

        Args:
            response: The response that was open.
        """
        assert self.clock is not None
        # What waits behind the playing item was not heard at all.
        queued = [
            item for item in list(self._items.values()) if item.response is response or self._is_unheard(item)
        ]
        self.clock.flush()
        return queued

    def settle(self, queued: list[AgentItem], response: Response | None) -> dict[str, tuple[str, bool]]:
        """File what was heard of the items that were silenced.

        Returns:
            By item: the text that was heard, and whether that is estimated.
        """
        heard = {item.id: self._cut(item, response) for item in queued}
        for item in queued:
            self._items.pop(item.id, None)
        return heard

    def audible(self, response: Response | None) -> list[Response]:
        """Return the responses that can still be heard, oldest first.

        Args:
            response: The response that is open.
        """
        items = list(self._items.values())
        heard = (item.response for item in items if item.response is response or self._is_unheard(item))
        return list(dict.fromkeys(heard))

    def _is_unheard(self, item: AgentItem) -> bool:
        assert self.clock is not None
        return self.clock.played_ms(item.id) < int(item.received_ms)

    def _tear(self, item: AgentItem) -> None:
        """Cut an item in the history at the end of the audio that was received of it."""
        if item.id not in self._history:
            return
        received = round(item.received_ms)
        item.spoken_ms = max(received, round(len(item.text) / _CHARS_PER_S * 1000))
        text = heard_from_marks(item.text, item.marks, received) if item.marks else None
        self._history.truncate_agent(item.id, received, text, item.spoken_ms)

    def _cut(self, item: AgentItem, response: Response | None) -> tuple[str, bool]:
        """Cut an item in the history at what was heard; return the heard text and whether it is estimated."""
        self.output.finish(item.id)
        measured = self._measure(item, response)
        if measured is None:
            return item.text, False
        cut = self._history.truncate_agent(item.id, *measured)
        return cut.heard_text or "", cut.heard_is_estimated

    def _measure(self, item: AgentItem, response: Response | None) -> tuple[int, str | None, int] | None:
        """Return how much was played of an item, its words where they are known, and how long all of it takes.

        None when there is nothing to cut.
        """
        assert self.clock is not None
        played = self.clock.played_ms(item.id)
        if item.id not in self._history or (item.received_ms == 0 and item.response is not response):
            return None
        received = round(item.received_ms)
        # Text runs ahead of the audio of an open response, so its audio so far says little of its length.
        spoken_ms = round(len(item.text) / _CHARS_PER_S * 1000) if item.response is response else 0
        text = heard_from_marks(item.text, item.marks, played) if item.marks else None
        return played, text, max(received, spoken_ms, item.spoken_ms)

    def cut_in(self, copy: History, response: Response | None) -> list[str]:
        """Cut what can still be heard in a copy of the history, as :meth:`silence` would in the history itself.

        Returns:
            The items of answers that were cut; what the application had the agent say is none.
        """
        cut: list[str] = []
        for item in list(self._items.values()):
            if item.response is not response and not self._is_unheard(item):
                continue
            measured = self._measure(item, response)
            if measured is not None and item.id in copy:
                copy.truncate_agent(item.id, *measured)
                if item.response.trigger != "say":
                    cut.append(item.id)
        return cut

    def playing(self) -> AgentItem | None:
        """Return the item that is playing or will play next."""
        current = self.clock.current if self.clock is not None else None
        return self._items.get(current) if current is not None else None

    def heard(self, item: AgentItem | None, session: Session) -> tuple[Heard | None, Heard | None]:
        """Return what was heard of an item in our ids, and in the provider's what it has to know.

        Where the item is that of a session before, the next that waits behind it is the provider's.
        """
        if item is None:
            return None, None
        assert self.clock is not None
        played, total = self.clock.played_ms(item.id), self.clock.total_played_ms()
        ours = Heard(item.response.id, item.id, 0, played, total)
        own = item if item.response.epoch == session.epoch else self._next_of(session)
        if own is None:
            return ours, None
        played = self.clock.played_ms(own.id)
        theirs = Heard(own.response.vendor_id or own.response.id, own.vendor_id or own.id, 0, played, total)
        return ours, theirs

    def _next_of(self, session: Session) -> AgentItem | None:
        own = (item for item in list(self._items.values()) if item.response.epoch == session.epoch)
        return next((item for item in own if self._is_unheard(item)), None)

    def played_ms(self, response: Response) -> int:
        """Return how much of a response was played."""
        assert self.clock is not None
        return sum(self.clock.played_ms(item_id) for item_id in response.item_ids.values())

    # -- the clock reports here -------------------------------------------------------------------

    def playback_started(self, item: str) -> None:
        """The first sample of an item is being played."""
        held = self._items.get(item)
        if held is not None:
            self._emit(EventType.AUDIO_OUTPUT_STARTED, {"response_id": held.response.id, "item_id": item})

    def playback_stopped(self, item: str, played_ms: int) -> None:
        """An item was played to its end, or cut."""
        held = self._items.get(item)
        if held is None:
            return
        data = {"response_id": held.response.id, "item_id": item, "played_ms": played_ms}
        self._emit(EventType.AUDIO_OUTPUT_STOPPED, data)
        self._forget()

    def _forget(self) -> None:
        # Asking how much was played can end an item, and come back here.
        done = [
            item.id
            for item in list(self._items.values())
            if item.response.is_ended and not self._is_unheard(item)
        ]
        for item_id in done[:-1]:
            self._items.pop(item_id, None)
