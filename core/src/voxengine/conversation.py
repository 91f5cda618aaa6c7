"""What outlives a session: history, turns, the output and its owner, the accepted input.

Two sessions may live at once while one takes over from the other: one owns the input, one the output.
Audio and text of a session that does not own the output are dropped; usage, errors and warnings pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs

from voxengine.activity import Activity
from voxengine.audio.format import AudioFormat
from voxengine.audio.playback import ExternalClock, NullClock, PlaybackClock
from voxengine.bus import EventBus
from voxengine.calls import ToolCalls
from voxengine.config import VoiceEngineConfig
from voxengine.errors import ProviderError
from voxengine.events import EventType, LazyAudio
from voxengine.history import Change, Heard, History, Item, heard_from_marks
from voxengine.metrics import Metrics
from voxengine.output import OutputFormatter
from voxengine.responses import Response, ResponseTracker
from voxengine.session import Session, error_event
from voxengine.taps import Taps
from voxengine.user_turns import UserTurns, extend_text

if TYPE_CHECKING:
    from voxengine.tools import ToolRunner

__all__ = ["Conversation", "Interruption"]

_CHARS_PER_S: Final = 18.0
"""How fast speech gets through text; text that runs further ahead of its audio was not heard."""
_OUTPUT_EVENTS: Final = frozenset(
    {
        EventType.TEXT_OUTPUT,
        EventType.AUDIO_OUTPUT_CHUNK,
        EventType.RESPONSE_STARTED,
        EventType.RESPONSE_COMPLETED,
        EventType.RESPONSE_CANCELLED,
        EventType.FUNCTION_CALL_INVOKED,
        EventType.SPEECH_MARK,
    }
)
_OURS: Final = frozenset(
    {
        EventType.AUDIO_OUTPUT_STARTED,
        EventType.AUDIO_OUTPUT_STOPPED,
        EventType.INTERRUPTED,
        EventType.TURN_CHANGED,
        EventType.FUNCTION_CALL_COMPLETED,
        EventType.FUNCTION_CALL_FAILED,
        EventType.PROVIDER_SWITCHING,
        EventType.PROVIDER_SWITCHED,
    }
)
"""Said by the engine alone; a provider's own are not passed on, so that each comes exactly once."""


class Interruption:
    """What :meth:`VoiceEngine.interrupt` returns: the output is silent already.

    ``heard`` says what the user heard, None when nothing was playing. Awaiting it waits until the
    provider was told; that is not needed, and a failure is an ERROR event, never an exception here.
    """

    def __init__(self, heard: Heard | None, task: asyncio.Task[None] | None) -> None:
        self.heard = heard
        self._task = task

    def __await__(self) -> Any:
        return self._wait().__await__()

    async def _wait(self) -> Heard | None:
        if self._task is not None:
            await asyncio.wait([self._task])
        return self.heard


@attrs.define(eq=False)
class _AgentItem:
    """An item of the agent while it can still be heard."""

    id: str
    vendor_id: str | None
    response: Response
    text: str = ""
    received_ms: float = 0.0
    marks: list[tuple[str, int]] = attrs.field(factory=list)
    is_final: bool = False


class Conversation:
    """The one state machine between sessions and application. Loop thread only."""

    def __init__(
        self,
        config: VoiceEngineConfig,
        bus: EventBus,
        taps: Taps,
        history: History,
        metrics: Metrics,
        tools: Callable[[], ToolRunner],
        new_id: Callable[[str], str],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._config = config
        self._bus = bus
        self._taps = taps
        self.history = history
        history.on_change = self.history_changed
        self.metrics = metrics
        self.activity = Activity()
        self.responses = ResponseTracker(self._loop, new_id, self._ended_by_inference)
        self.clock: PlaybackClock | None = None
        self._output_owner: Session | None = None
        self.user = UserTurns(history, self.responses, metrics, self.emit, self._floor, self._loop.time)
        self.calls = ToolCalls(
            tools, history, self.responses, self.emit, self.activity.start, self.report, self.activity.touch
        )
        self.usage: dict[int, Mapping[str, Any]] = {}
        """Latest usage by session epoch."""
        self._role = ""
        self._output: OutputFormatter | None = None
        self._items: dict[str, _AgentItem] = {}
        self._handlers: dict[EventType, Callable[[Session, dict[str, Any]], None]] = {
            EventType.TEXT_OUTPUT: self._text_output,
            EventType.AUDIO_OUTPUT_CHUNK: self._audio_output,
            EventType.RESPONSE_STARTED: self._response_started,
            EventType.RESPONSE_COMPLETED: self._response_completed,
            EventType.RESPONSE_CANCELLED: self._response_cancelled,
            EventType.SPEECH_STARTED: self._speech_started,
            EventType.SPEECH_ENDED: self._speech_ended,
            EventType.INPUT_TRANSCRIPT: self.user.transcript,
            EventType.FUNCTION_CALL_INVOKED: self._function_call,
            EventType.SPEECH_MARK: self._speech_mark,
            EventType.USAGE_UPDATED: self._usage_updated,
            EventType.SESSION_UPDATED: self._session_updated,
            EventType.EMOTION: self._emotion,
        }

    # -- set-up -----------------------------------------------------------------------------------

    def fix_formats(self, input_format: AudioFormat, output_format: AudioFormat) -> None:
        """Fix the engine's formats at the first successful connect."""
        self.user.open_journal(input_format, self._config.journal_s)
        self._output = OutputFormatter(output_format)
        if self._config.playback == "external":
            self.clock = ExternalClock(output_format, self)
        else:
            self.clock = NullClock(output_format, self, self._loop)

    @property
    def output_owner(self) -> Session | None:
        """The session whose audio and text are delivered."""
        return self._output_owner

    @output_owner.setter
    def output_owner(self, session: Session) -> None:
        self._output_owner = self.calls.owner = session

    @property
    def output_format(self) -> AudioFormat:
        """What AUDIO_OUTPUT_CHUNK carries."""
        assert self._output is not None
        return self._output.format

    def emit(self, event_type: EventType, data: dict[str, Any], session: Session | None = None) -> None:
        """Deliver an event under the name and epoch of a session (the output's owner by default)."""
        session = session or self.output_owner
        if session is None:
            self._bus.emit(event_type, data)
        else:
            self._bus.emit(event_type, data, provider=session.name, session_epoch=session.epoch)
        self.activity.touch()

    # -- what a session says ----------------------------------------------------------------------

    def session_event(self, session: Session, event_type: EventType, data: dict[str, Any]) -> None:
        """Take an event of a provider."""
        if event_type in _OURS:
            return
        if event_type in _OUTPUT_EVENTS and session is not self.output_owner:
            self.metrics.dropped_outputs += 1
            return
        handler = self._handlers.get(event_type)
        if handler is not None:
            handler(session, data)
        else:
            self.emit(event_type, data, session)

    def _response_started(self, session: Session, data: dict[str, Any]) -> None:
        session.has_boundaries = True
        vendor_id = data.get("response_id")
        current = self.responses.current
        if current is not None and current.is_inferred:
            self._ended_by_inference(current)
            self.responses.finish(current)
        response = self.responses.start(vendor_id, session.epoch, data.get("trigger"))
        if response.is_refused:
            # It answers a request that was interrupted before anything came.
            self.responses.finish(response)
            self.activity.start(self._tell_interrupt(session, None), "interrupt")
            return
        self._announce(response, session, data)

    def _announce(self, response: Response, session: Session, data: dict[str, Any]) -> None:
        self.emit(
            EventType.RESPONSE_STARTED,
            {**data, "response_id": response.id, "trigger": response.trigger},
            session,
        )

    def _for_output(self, session: Session, data: dict[str, Any], kind: str) -> Response | None:
        """Return the response that an output belongs to; None when it is refused."""
        response, is_new = self.responses.for_output(
            data.get("response_id"), session.epoch, has_boundaries=session.has_boundaries
        )
        if response is None:
            self.metrics.dropped_outputs += 1
            return None
        if is_new:
            self._announce(response, session, {})
        if not response.has_output:
            response.has_output = True
            self.user.answered(session, response.trigger)
            self._floor("agent", session)
        self.metrics.output(kind, self._loop.time())
        return response

    def _text_output(self, session: Session, data: dict[str, Any]) -> None:
        if not session.can("dialogue"):
            self.user.recognised(session, data)
            return
        response = self._for_output(session, data, "text")
        if response is None:
            return
        item = self._agent_item(session, response, data.get("item_id"), data.get("text"))
        text, delta = extend_text(item.text, data)
        item.text = text
        is_partial = bool(data.get("is_partial", False))
        item.is_final = not is_partial
        self.history.set_agent_text(item.id, text)
        data.update(text=text, delta=delta, is_partial=is_partial, response_id=response.id, item_id=item.id)
        self.emit(EventType.TEXT_OUTPUT, data, session)

    def _audio_output(self, session: Session, data: dict[str, Any]) -> None:
        assert self._output is not None
        assert self.clock is not None
        response = self._for_output(session, data, "audio")
        if response is None:
            return
        item = self._agent_item(session, response, data.get("item_id"), None)
        rate = data.get("sample_rate") or session.output_format.sample_rate
        source = AudioFormat(rate, data.get("channels") or 1)
        audio = self._output.take(item.id, data.get("audio_data", b""), source)
        self._deliver_audio(session, item, audio, data)

    def _deliver_audio(
        self, session: Session, item: _AgentItem, audio: bytes | LazyAudio, data: dict[str, Any]
    ) -> None:
        assert self._output is not None
        assert self.clock is not None
        if self._taps.has("on_output"):
            kept = self._taps.filter_output(audio if isinstance(audio, bytes) else audio.pcm())
            if kept is None:
                return
            audio = kept
        n_bytes = len(audio) if isinstance(audio, bytes) else audio.n_bytes
        if not n_bytes:
            return
        audio_format = self._output.format
        item.received_ms += audio_format.duration_ms(n_bytes)
        self.clock.write(item.id, audio_format.n_frames(n_bytes))
        data.update(
            audio_data=audio,
            sample_rate=audio_format.sample_rate,
            channels=audio_format.channels,
            response_id=item.response.id,
            item_id=item.id,
        )
        self.emit(EventType.AUDIO_OUTPUT_CHUNK, data, session)

    def _response_completed(self, session: Session, data: dict[str, Any]) -> None:
        response = self.responses.find(data.get("response_id"), session.epoch)
        if response is None or response.is_ended or response.is_refused:
            return
        self._finish(response, session, {**data, "status": data.get("status") or "completed"})

    def _ended_by_inference(self, response: Response) -> None:
        if self.output_owner is not None:
            self._finish(response, self.output_owner, {"status": "inferred", "usage": None})

    def _finish(self, response: Response, session: Session, data: dict[str, Any]) -> None:
        self.responses.finish(response)
        self._finish_items(response, session, "completed" if data["status"] != "incomplete" else "incomplete")
        self.metrics.output("complete", self._loop.time())
        self.emit(EventType.RESPONSE_COMPLETED, {**data, "response_id": response.id}, session)

    def _response_cancelled(self, session: Session, data: dict[str, Any]) -> None:
        response = self.responses.find(data.get("response_id"), session.epoch)
        if response is None or response.is_ended or response.is_refused:
            return
        # The vendor stopped by itself: what was received still plays.
        self.responses.finish(response)
        items = self._finish_items(response, session, "incomplete")
        played = sum(self.clock.played_ms(item.id) for item in items) if self.clock is not None else 0
        values = {"heard_ms": played, "heard_text": None, "heard_is_estimated": True}
        self.emit(
            EventType.RESPONSE_CANCELLED,
            {**values, "reason": "vendor", **data, "response_id": response.id},
            session,
        )

    def _finish_items(self, response: Response, session: Session, status: Any) -> list[_AgentItem]:
        assert self._output is not None
        assert self.clock is not None
        items = [item for item in self._items.values() if item.response is response]
        for item in items:
            tail = self._output.finish(item.id)
            if tail:
                self._deliver_audio(session, item, tail, {})
            self.history.finish_agent(item.id, status)
            self.clock.finish(item.id)
        return items

    def _agent_item(
        self, session: Session, response: Response, vendor_id: str | None, text: str | None
    ) -> _AgentItem:
        item_id = response.item_ids.get(vendor_id)
        held = self._items.get(item_id) if item_id is not None else None
        is_anonymous = response.is_inferred and vendor_id is None
        if held is not None and is_anonymous and held.is_final and text and not text.startswith(held.text):
            held = None  # A provider without ids that wrote a finished text writes the next one.
        if held is None:
            new_id = self.history.start_agent(response.id, provider=session.name).id
            if vendor_id is not None:
                self.history.bind(vendor_id, new_id, session.epoch)
            held = _AgentItem(new_id, vendor_id, response)
            response.item_ids[vendor_id] = new_id
            self._items[new_id] = held
        return held

    def _speech_mark(self, session: Session, data: dict[str, Any]) -> None:
        response = self.responses.find(data.get("response_id"), session.epoch)
        if response is None or response.is_refused:
            return
        item_id = response.item_ids.get(data.get("item_id"))
        item = self._items.get(item_id) if item_id is not None else None
        if item is not None:
            data.update(item_id=item.id, response_id=response.id)
            if data.get("kind") == "word" and isinstance(data.get("at_ms"), int):
                item.marks.append((str(data.get("value", "")), data["at_ms"]))
        self.emit(EventType.SPEECH_MARK, data, session)

    def _usage_updated(self, session: Session, data: dict[str, Any]) -> None:
        if isinstance(data.get("usage"), Mapping):
            self.usage[session.epoch] = data["usage"]
        self.emit(EventType.USAGE_UPDATED, data, session)

    def _session_updated(self, session: Session, data: dict[str, Any]) -> None:
        if isinstance(data.get("settings"), Mapping):
            session.settings.update(data["settings"])
        self.emit(EventType.SESSION_UPDATED, {**data, "settings": dict(session.settings)}, session)

    def _emotion(self, session: Session, data: dict[str, Any]) -> None:
        vendor_id = data.get("item_id")
        if vendor_id is not None:
            data["item_id"] = self.history.resolve(vendor_id, session.epoch) or vendor_id
        self.emit(EventType.EMOTION, data, session)

    # -- the user's side --------------------------------------------------------------------------

    def _speech_started(self, session: Session, data: dict[str, Any]) -> None:
        if self.user.vendor_speech(session, EventType.SPEECH_STARTED, data):
            self.barge_in()

    def _speech_ended(self, session: Session, data: dict[str, Any]) -> None:
        self.user.vendor_speech(session, EventType.SPEECH_ENDED, data)

    def barge_in(self) -> None:
        """Interrupt a playing answer because the user speaks, if the configuration says so."""
        if self._config.interruption == "immediate" and self.is_audible:
            self.interrupt("barge_in")

    def _floor(self, role: str, session: Session | None) -> None:
        if role != self._role:
            before, self._role = self._role, role
            self.emit(EventType.TURN_CHANGED, {"from_role": before, "to_role": role}, session)

    def _function_call(self, session: Session, data: dict[str, Any]) -> None:
        if not data.get("call_id") or not data.get("name"):
            message = f"{session.name} called a tool without a name or a call_id; the call was passed over."
            self.emit(EventType.WARNING, {"code": "function_call_without_id", "message": message}, session)
            return
        if self.calls.is_known(str(data["call_id"])):
            return
        response = self.responses.find(data.get("response_id"), session.epoch)
        if response is not None and response.is_refused:
            self.metrics.dropped_outputs += 1
            return
        if response is not None and not response.has_output:
            response.has_output = True
            self.user.answered(session, response.trigger)
        self.calls.invoke(session, response, data)

    def history_changed(self, kind: Change, item: Item) -> None:
        """Tell the session of an item that the application added; other changes reach the next session."""
        session = self.output_owner
        if session is None or not session.is_ready:
            return
        if kind == "append" and session.can("items"):
            self.activity.start(self._send_item(session, item), "item")
            return
        message = (
            f"The running session of {session.name} cannot be told that a history item was changed ({kind}); "
            "a session that takes over will know."
        )
        self.emit(EventType.WARNING, {"code": "history_not_told", "message": message}, session)

    async def _send_item(self, session: Session, item: Item) -> None:
        try:
            await session.call("send_item", item)
        except Exception as error:
            self.report(session, error)

    # -- interruption -----------------------------------------------------------------------------

    @property
    def is_audible(self) -> bool:
        """Whether an answer is being made, is playing or waits to be played."""
        return self.responses.current is not None or (
            self.clock is not None and self.clock.current is not None
        )

    def interrupt(self, reason: str) -> Interruption:
        """Silence the output now, settle what was heard, and tell the provider in a task."""
        session = self.output_owner
        pending = self.responses.awaiting > 0
        if session is None or self.clock is None or not (self.is_audible or pending):
            return Interruption(None, None)
        playing = self.clock.current
        # What waits behind the playing item was not heard at all.
        queued = [item for item in self._items.values() if self._is_unheard(item)]
        self.clock.flush()
        response = self.responses.refuse(has_boundaries=session.has_boundaries)
        heard_texts = {item.id: self._cut(item, response) for item in queued}
        current = self._items.get(playing) if playing is not None else None
        ours, theirs = self._heard(current, session)
        heard_ms = ours.item_played_ms if ours is not None else 0
        name = response.id if response is not None else current.response.id if current is not None else ""
        if name:
            self.metrics.interruptions += 1
            if self.metrics.turns:
                self.metrics.turns[-1].interrupted = True
            self.emit(
                EventType.INTERRUPTED, {"response_id": name, "heard_ms": heard_ms, "reason": reason}, session
            )
        if response is not None:
            text, is_estimated = _join(heard_texts, response)
            total_ms = sum(self.clock.played_ms(item_id) for item_id in response.item_ids.values())
            self.emit(
                EventType.RESPONSE_CANCELLED,
                {
                    "response_id": response.id,
                    "reason": "interrupted",
                    "heard_ms": total_ms,
                    "heard_text": text,
                    "heard_is_estimated": is_estimated,
                },
                session,
            )
        task = self.activity.start(self._tell_interrupt(session, theirs), "interrupt")
        return Interruption(ours, task)

    def _is_unheard(self, item: _AgentItem) -> bool:
        assert self.clock is not None
        open_item = item.response is self.responses.current
        return open_item or self.clock.played_ms(item.id) < int(item.received_ms)

    def _cut(self, item: _AgentItem, response: Response | None) -> tuple[str, bool]:
        """Cut an item in the history at what was heard; return the heard text and whether it is estimated."""
        assert self._output is not None
        assert self.clock is not None
        self._output.finish(item.id)
        played = self.clock.played_ms(item.id)
        if item.received_ms == 0 and item.response is not response:
            return item.text, False
        received = round(item.received_ms)
        # Text runs ahead of the audio of an open response, so its audio so far says little of its length.
        spoken_ms = round(len(item.text) / _CHARS_PER_S * 1000) if item.response is response else 0
        text = heard_from_marks(item.text, item.marks, played) if item.marks else None
        cut = self.history.truncate_agent(item.id, played, text, max(received, spoken_ms))
        return cut.heard_text or "", cut.heard_is_estimated

    def _heard(self, item: _AgentItem | None, session: Session) -> tuple[Heard | None, Heard | None]:
        """Return what was heard in our ids and in the provider's."""
        assert self.clock is not None
        if item is None:
            return None, None
        played, total = self.clock.played_ms(item.id), self.clock.total_played_ms()
        ours = Heard(item.response.id, item.id, 0, played, total)
        if item.response.epoch != session.epoch:
            return ours, None
        theirs = Heard(
            item.response.vendor_id or item.response.id, item.vendor_id or item.id, 0, played, total
        )
        return ours, theirs

    async def _tell_interrupt(self, session: Session, heard: Heard | None) -> None:
        try:
            if session.is_ready and session.can("cancel"):
                await session.call("interrupt", heard)
        except Exception as error:
            self.report(session, error)

    # -- playback listener ------------------------------------------------------------------------

    def playback_started(self, item: str) -> None:
        """The first sample of an item is being played."""
        held = self._items.get(item)
        if held is not None:
            self.emit(EventType.AUDIO_OUTPUT_STARTED, {"response_id": held.response.id, "item_id": item})

    def playback_stopped(self, item: str, played_ms: int) -> None:
        """An item was played to its end, or cut."""
        held = self._items.get(item)
        if held is None:
            return
        data = {"response_id": held.response.id, "item_id": item, "played_ms": played_ms}
        self.emit(EventType.AUDIO_OUTPUT_STOPPED, data)
        self._forget_played()

    def _forget_played(self) -> None:
        done = [
            item.id for item in self._items.values() if item.response.is_ended and not self._is_unheard(item)
        ]
        for item_id in done[:-1]:
            del self._items[item_id]

    # -- errors, idleness, endings ------------------------------------------------------------------

    def report(self, session: Session | None, error: Exception) -> None:
        """Emit an error that no caller waits for."""
        if session is not None and not session.is_ready and isinstance(error, ProviderError):
            return  # The loss of the session has been reported.
        recoverable = isinstance(error, ProviderError) and error.recoverable
        self.emit(error_event(error), {"error": error, "recoverable": recoverable}, session)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is asked for, made, played, spoken or called."""
        return (
            not self.responses.awaiting
            and self.user.turn_end is None
            and not self.user.is_speaking
            and not self.calls.n_open
            and not self.is_audible
        )

    @property
    def why_busy(self) -> str:
        """What keeps the conversation from being idle, in words."""
        reasons = {
            "an answer was asked for and did not come": self.responses.awaiting > 0,
            "the user's turn is not answered": self.user.turn_end is not None,
            "the user is speaking": self.user.is_speaking,
            "a tool is running": self.calls.n_open > 0,
            "an answer is not complete": self.responses.current is not None,
            "an answer is playing": self.clock is not None and self.clock.current is not None,
        }
        return ", ".join(reason for reason, holds in reasons.items() if holds) or "events kept coming"

    def end_response(self, reason: str) -> None:
        """End what is open because its session ends: one ending for each response."""
        response = self.responses.current
        session = self.output_owner
        if response is None or session is None or self.clock is None:
            return
        self.responses.finish(response)
        items = self._finish_items(response, session, "incomplete")
        played = sum(self.clock.played_ms(item.id) for item in items)
        data = {"response_id": response.id, "reason": reason, "heard_ms": played}
        self.emit(
            EventType.RESPONSE_CANCELLED, {**data, "heard_text": None, "heard_is_estimated": True}, session
        )

    async def close(self) -> None:
        """Stop every task and timer."""
        self.responses.close()
        if self.clock is not None:
            self.clock.close()
        await self.activity.close()


def _join(heard: Mapping[str, tuple[str, bool]], response: Response) -> tuple[str, bool]:
    parts = [heard[item_id] for item_id in response.item_ids.values() if item_id in heard]
    return " ".join(text for text, _ in parts if text), any(is_estimated for _, is_estimated in parts)
