"""What outlives a session: history, turns, the output and its owner, the accepted input.

Two sessions may live at once while one takes over from the other: one owns the input, one the output.
Audio and text of a session that does not own the output are dropped; usage, errors and warnings pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from voxengine.activity import Activity
from voxengine.agent_turns import AgentItem, AgentTurns
from voxengine.audio.format import AudioFormat
from voxengine.audio.playback import PlaybackClock
from voxengine.barge_in import BargeIn, Interruption
from voxengine.bus import EventBus
from voxengine.calls import ToolCalls
from voxengine.config import VoiceEngineConfig
from voxengine.errors import ProviderError
from voxengine.events import EventType
from voxengine.history import Heard, History
from voxengine.lanes import LaneMaker
from voxengine.metrics import Metrics
from voxengine.responses import Response, ResponseTracker
from voxengine.says import Says
from voxengine.session import Session, error_event
from voxengine.taps import Taps
from voxengine.telling import Telling
from voxengine.user_turns import UserTurns

if TYPE_CHECKING:
    from voxengine.tools import ToolRunner

__all__ = ["Conversation"]

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


class Conversation:
    """The one state machine between sessions and application. Loop thread only."""

    _has_hung_up = False
    """Whether the engine ends, and nothing more is said."""

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
        self.history = history
        self.metrics = metrics
        self.activity = Activity()
        self.telling = Telling(history, self.activity, self.emit, self.report)
        history.on_change = lambda kind, item: self.telling.changed(self.output_owner, kind, item)
        self.responses = ResponseTracker(self._loop, new_id, self._ended_by_inference)
        self.says = Says(history, self.responses)
        self.agent = AgentTurns(history, self.responses, taps, self.emit)
        self._lanes = LaneMaker(bus, self.agent, self.responses, history, metrics, self.activity, self._loop)
        self._output_owner: Session | None = None
        self.user = UserTurns(history, self.responses, metrics, self.emit, self._floor, self._loop.time)
        self.barge = BargeIn(
            config.interruption,
            self.user,
            self.agent,
            self.responses,
            metrics,
            lambda: self.is_audible,
            lambda: self.interrupt("barge_in"),
            self._give_way,
        )
        self.calls = ToolCalls(tools, history, self.responses, self.emit, self.activity, self.report, new_id)
        self.usage: dict[int, Mapping[str, Any]] = {}
        """Latest usage by session epoch."""
        self._role = ""
        self._cut_reply: tuple[frozenset[str], int] = (frozenset(), -1)
        self._handlers: dict[EventType, Callable[[Session, dict[str, Any]], None]] = {
            EventType.TEXT_OUTPUT: self._text_output,
            EventType.AUDIO_OUTPUT_CHUNK: self._audio_output,
            EventType.RESPONSE_STARTED: self._response_started,
            EventType.RESPONSE_COMPLETED: self._response_completed,
            EventType.RESPONSE_CANCELLED: self._response_cancelled,
            EventType.SPEECH_STARTED: self._speech_started,
            EventType.SPEECH_ENDED: self._speech_ended,
            EventType.INPUT_TRANSCRIPT: self._transcript,
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
        self.agent.open_clock(output_format, self._config.playback, self._loop)

    @property
    def clock(self) -> PlaybackClock | None:
        """Says how much was played; made at the first connect."""
        return self.agent.clock

    @property
    def output_owner(self) -> Session | None:
        """The session whose audio and text are delivered."""
        return self._output_owner

    @output_owner.setter
    def output_owner(self, session: Session) -> None:
        if self._output_owner is not None:
            self._output_owner.lane = None
        self._output_owner = self.calls.owner = session
        self.responses.new_owner()

    @property
    def output_format(self) -> AudioFormat:
        """What AUDIO_OUTPUT_CHUNK carries."""
        return self.agent.output.format

    def emit(
        self,
        event_type: EventType,
        data: dict[str, Any],
        session: Session | None = None,
        *,
        provider: str = "",
    ) -> None:
        """Deliver an event under the name and epoch of a session (the output's owner by default).

        Args:
            event_type: Its type.
            data: Its fields.
            session: Whose it is.
            provider: The name where there is no session yet.
        """
        session = session or (self._output_owner if not provider else None)
        now = self._loop.time()
        if session is None:
            self._bus.emit(event_type, data, provider=provider, timestamp=now)
        else:
            self._bus.emit(
                event_type, data, provider=session.name, session_epoch=session.epoch, timestamp=now
            )
        self.activity.touch(now)

    # -- what a session says ----------------------------------------------------------------------

    def session_event(self, session: Session, event_type: EventType, data: dict[str, Any]) -> None:
        """Take an event of a provider."""
        if event_type in _OUTPUT_EVENTS and (session is not self._output_owner or self._has_hung_up):
            self.metrics.dropped_outputs += 1
            return
        handler = self._handlers.get(event_type)
        if handler is not None:
            handler(session, data)
            return
        if event_type in _OURS:
            return
        if event_type is EventType.ERROR_GENERAL and session is self.output_owner:
            self._refused()
        self.emit(event_type, data, session)

    def _refused(self) -> None:
        """Note that the service refused what was asked, or what was said: no answer to that will come by itself."""
        if self.responses.current is not None:
            return
        request = self.responses.request_failed()
        if request is None or request.trigger == "audio":
            self.user.not_answered()

    def _response_started(self, session: Session, data: dict[str, Any]) -> None:
        session.has_boundaries = True
        self.barge.answered(data.get("trigger"))
        vendor_id = data.get("response_id")
        current = self.responses.current
        if current is not None and current.is_inferred:
            self._ended_by_inference(current)
        elif current is not None and current.vendor_id == vendor_id:
            if vendor_id is not None:
                return  # Said twice.
            self._finish(current, session, {"status": "incomplete"})
        response = self.responses.start(vendor_id, session.epoch, data.get("trigger"))
        if response.is_refused:
            # It answers a request that was interrupted before anything came.
            self.responses.finish(response)
            self.activity.start(self._tell_interrupt(session, None, None), "interrupt")
            return
        if response.covers is None:
            response.covers = self.user.turn_end
        self._announce(response, session, data)

    def _announce(self, response: Response, session: Session, data: dict[str, Any]) -> None:
        self.emit(
            EventType.RESPONSE_STARTED,
            {**data, "response_id": response.id, "trigger": response.trigger},
            session,
        )

    def _for_output(self, session: Session, data: dict[str, Any], kind: str = "") -> Response | None:
        """Return the response that an output belongs to; None when it is refused.

        Args:
            kind: ``text`` or ``audio``; a tool call is neither and answers nothing yet.
        """
        response, is_new = self.responses.for_output(
            data.get("response_id"), session.epoch, has_boundaries=session.has_boundaries
        )
        if response is None:
            self.metrics.dropped_outputs += 1
            return None
        if is_new:
            self._announce(response, session, {})
        response.has_output = True
        if kind and not response.is_answer:
            response.is_answer = True
            self.user.answered(session, response.answers, response.covers, response.text_id)
            self._floor("agent", session)
        if kind and response.trigger != "say":
            self.metrics.output(kind, self._loop.time())
        return response

    def _text_output(self, session: Session, data: dict[str, Any]) -> None:
        if not (session.can("dialogue") or self._is_spoken(session, data)):
            self.user.recognised(session, data)
            return
        response = self._for_output(session, data, "text")
        if response is not None:
            item = self.agent.item(session, response, data.get("item_id"), data.get("text"))
            self.agent.take_text(session, item, data)
            self._lanes.open(session, response, item)

    def _is_spoken(self, session: Session, data: dict[str, Any]) -> bool:
        """Whether a text without dialogue is what is being synthesised, and not what was recognised."""
        vendor_id = data.get("response_id")
        return vendor_id is not None and self.responses.find(vendor_id, session.epoch) is not None

    def _audio_output(self, session: Session, data: dict[str, Any]) -> None:
        response = self._for_output(session, data, "audio")
        if response is not None:
            item = self.agent.item(session, response, data.get("item_id"), None)
            self.agent.take_audio(session, item, data)
            self._lanes.open(session, response, item)

    def _response_completed(self, session: Session, data: dict[str, Any]) -> None:
        response = self._told_end(session, data)
        if response is not None:
            self._finish(response, session, {**data, "status": data.get("status") or "completed"})

    def _told_end(
        self, session: Session, data: dict[str, Any], *, is_cancelled: bool = False
    ) -> Response | None:
        """Return the response that the provider ends; None when it has ended for us."""
        response = self.responses.find(data.get("response_id"), session.epoch)
        if response is None:
            return None
        self.responses.told_end(response)
        if response.is_ended or response.is_refused:
            return None
        if not response.has_output and not (is_cancelled and self.responses.give_back(response)):
            self.user.not_answered()
        return response

    def _ended_by_inference(self, response: Response) -> None:
        if self.output_owner is not None:
            self._finish(response, self.output_owner, {"status": "inferred", "usage": None})

    def _finish(self, response: Response, session: Session, data: dict[str, Any]) -> None:
        self.responses.finish(response)
        self.says.given(response.words)
        is_whole = data["status"] in ("completed", "inferred")
        session.is_proven = session.is_proven or (is_whole and response.is_answer)
        self.agent.finish(response, session, "completed" if is_whole else "incomplete")
        if is_whole and response.is_answer:
            self.user.answer_is_whole(session, response.trigger)
        if response.trigger != "say":
            self.metrics.output("complete", self._loop.time())
        self.emit(EventType.RESPONSE_COMPLETED, {**data, "response_id": response.id}, session)

    def _response_cancelled(self, session: Session, data: dict[str, Any]) -> None:
        response = self._told_end(session, data, is_cancelled=True)
        if response is not None:
            self.says.given(response.words)
            # The vendor stopped by itself: what was received still plays.
            self._end(response, session, {"reason": "vendor", **data})

    def _end(
        self, response: Response, session: Session, data: dict[str, Any], *, is_torn: bool = False
    ) -> None:
        """End a response early; what was received of it still plays.

        Args:
            is_torn: Its session is over: of its words, those count whose sound was received.
        """
        self.responses.finish(response)
        played = self.agent.finish(response, session, "incomplete", is_torn=is_torn)
        values = {"heard_ms": played, "heard_text": None, "heard_is_estimated": False}
        self.emit(EventType.RESPONSE_CANCELLED, {**values, **data, "response_id": response.id}, session)

    def _speech_mark(self, session: Session, data: dict[str, Any]) -> None:
        response = self.responses.find(data.get("response_id"), session.epoch)
        if response is None or response.is_refused:
            return
        data["response_id"] = response.id
        item = self.agent.find(response, data.get("item_id"))
        if item is not None:
            data["item_id"] = item.id
            if data.get("kind") == "word" and isinstance(data.get("at_ms"), int):
                item.marks.append((str(data.get("value", "")), data["at_ms"]))
        self.emit(EventType.SPEECH_MARK, data, session)

    def _usage_updated(self, session: Session, data: dict[str, Any]) -> None:
        if isinstance(data.get("usage"), Mapping):
            self.usage[session.epoch] = data["usage"]
        self.emit(EventType.USAGE_UPDATED, data, session)

    def _session_updated(self, session: Session, data: dict[str, Any]) -> None:
        if isinstance(data.get("settings"), Mapping):
            session.take_settings(data["settings"])
        self.emit(EventType.SESSION_UPDATED, {**data, "settings": dict(session.settings)}, session)

    def _emotion(self, session: Session, data: dict[str, Any]) -> None:
        vendor_id = data.get("item_id")
        if vendor_id is not None:
            data["item_id"] = self.history.resolve(vendor_id, session.epoch) or vendor_id
        self.emit(EventType.EMOTION, data, session)

    # -- the user's side --------------------------------------------------------------------------

    def _speech_started(self, session: Session, data: dict[str, Any]) -> None:
        current = self.responses.current
        if current is not None and not current.is_inferred and self.user.would_start(session):
            self.barge.spoke()  # Silence first: filing what begins takes as long again.
        if self.user.vendor_speech(session, EventType.SPEECH_STARTED, data):
            self.barge.spoke()

    def _speech_ended(self, session: Session, data: dict[str, Any]) -> None:
        self.user.vendor_speech(session, EventType.SPEECH_ENDED, data)

    def _transcript(self, session: Session, data: dict[str, Any]) -> None:
        if session is self.user.owner:
            self.barge.words(str(data.get("text") or data.get("delta") or ""))
        self.user.transcript(session, data)

    def _floor(self, role: str, session: Session | None) -> None:
        if role != self._role:
            before, self._role = self._role, role
            self.emit(EventType.TURN_CHANGED, {"from_role": before, "to_role": role}, session)

    def _function_call(self, session: Session, data: dict[str, Any]) -> None:
        if not data.get("call_id") or not data.get("name"):
            message = f"{session.name} called a tool without a name or a call_id; the call was passed over."
            self.emit(EventType.WARNING, {"code": "function_call_without_id", "message": message}, session)
            return
        if self.calls.is_known(session, str(data["call_id"])):
            return
        response = self._for_output(session, data)
        if response is not None:
            self.user.called(response.answers, response.covers, response.text_id)
            self.calls.invoke(session, response, data)

    # -- interruption -----------------------------------------------------------------------------

    @property
    def is_audible(self) -> bool:
        """Whether an answer is being made, is playing or waits to be played."""
        return self.responses.current is not None or self.agent.is_audible

    def interrupt(self, reason: str) -> Interruption:
        """Silence the output now, settle what was heard, and tell the provider in a task."""
        session = self.output_owner
        pending = self.responses.awaiting > 0 or (session is not None and bool(session.unpaid))
        self.says.clear()
        if session is None or self.clock is None or not (self.is_audible or pending):
            return Interruption(None, None)
        playing = self.agent.playing()
        response = self.responses.refuse(has_boundaries=session.has_boundaries)
        ours, theirs = self._cut_output(session, playing, response, reason)
        if self._tells_at_once(session, theirs):
            return Interruption(ours, None)
        ended = response if session.has_boundaries else None
        task = self.activity.start(self._tell_interrupt(session, theirs, ended), "interrupt")
        return Interruption(ours, task)

    def _cut_output(
        self, session: Session, playing: AgentItem | None, response: Response | None, reason: str
    ) -> tuple[Heard | None, Heard | None]:
        """Silence what is heard, say so, and file what was heard of it; return that in our ids and the provider's."""
        queued = self.agent.silence(response)
        self.barge.silenced()
        if reason == "requested":
            self.user.waive(session)
        elif reason == "answered":  # The provider is not told to cut, but what was heard.
            session.told |= {item.id: item.text for item in queued}
        ours, theirs = self.agent.heard(playing, session)
        heard_ms = ours.item_played_ms if ours is not None else 0
        name = response.id if response is not None else playing.response.id if playing is not None else ""
        if name:
            self.metrics.interruptions += 1
            if self.metrics.turns:
                self.metrics.turns[-1].interrupted = True
            why = "barge_in" if reason == "answered" else reason
            self.emit(
                EventType.INTERRUPTED, {"response_id": name, "heard_ms": heard_ms, "reason": why}, session
            )
        heard_texts = self.agent.settle(queued, response)  # After the event: a player waits for that.
        self.telling.cut(session, heard_texts)
        if response is not None:
            self._cut_short(response, session, heard_texts, "interrupted")
        return ours, theirs

    def _give_way(self) -> None:
        """Silence what is playing for another answer, which the service gives by itself: it has cut its own."""
        session, response = self.output_owner, self.responses.current
        if response is not None:
            response.is_refused = True
            self.responses.finish(response)
            self.says.given(response.words)
        if session is not None:
            self._cut_output(session, self.agent.playing(), response, "answered")

    def playback_cleared(self) -> None:
        """Cut what an external player dropped at what it had played."""
        if self.clock is None or not self.agent.is_audible:
            return
        current = self.responses.current
        opened = set(current.item_ids.values()) if current is not None else set[str]()
        if (current is None and not self.responses.awaiting) or opened & set(self.clock.open_items()):
            self.interrupt("requested")
        else:  # The answer that comes next has no sound yet and is not meant.
            cut = self.agent.settle(self.agent.silence(None), None)
            self.barge.silenced()
            if self.output_owner is not None:
                self.telling.cut(self.output_owner, cut)

    def _tells_at_once(self, session: Session, heard: Heard | None) -> bool:
        if not (session.is_ready and session.can("cancel")):
            return False
        try:
            return session.provider.try_interrupt(heard)
        except Exception as error:
            self.report(session, session.failed("interrupt", error))
            return True

    def _cut_short(
        self, response: Response, session: Session, heard: Mapping[str, tuple[str, bool]], reason: str
    ) -> None:
        """Say what was heard of a response that was silenced."""
        parts = [heard[item_id] for item_id in response.item_ids.values() if item_id in heard]
        data = {
            "response_id": response.id,
            "reason": reason,
            "heard_ms": self.agent.played_ms(response),
            "heard_text": " ".join(text for text, _ in parts if text),
            "heard_is_estimated": any(is_estimated for _, is_estimated in parts),
        }
        self.emit(EventType.RESPONSE_CANCELLED, data, session)

    async def _tell_interrupt(self, session: Session, heard: Heard | None, response: Response | None) -> None:
        if heard is None and response is not None and self.responses.is_over_there(response):
            return  # It ended by itself meanwhile: what the provider makes now is not meant.
        try:
            if session.is_ready and session.can("cancel"):
                await session.call("interrupt", heard)
        except Exception as error:
            self.report(session, error)

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
            and not self.user.waits_for_answer
            and not self.user.is_speaking
            and not self.calls.n_open
            and not self.is_audible
            and not self._is_sending
        )

    @property
    def _is_sending(self) -> bool:
        """Whether the session in force has not been given all that was accepted, and that is owed."""
        owner = self.user.owner
        if owner is None or not owner.is_ready:
            return False
        return bool(owner.unpaid) or (owner.sender is not None and owner.sender.is_behind)

    @property
    def why_busy(self) -> str:
        """What keeps the conversation from being idle, in words."""
        reasons = {
            "an answer was asked for and did not come": self.responses.awaiting > 0,
            "the user's turn is not answered": self.user.waits_for_answer,
            "the user is speaking": self.user.is_speaking,
            "what was said is still being sent": self._is_sending,
            "a tool is running": self.calls.n_open > 0,
            "an answer is not complete": self.responses.current is not None,
            "an answer is playing": self.agent.is_audible,
        }
        return ", ".join(reason for reason, holds in reasons.items() if holds) or "events kept coming"

    def end_responses(self, reason: str) -> list[str]:
        """End what is open because its session ends: one ending for each response. What was received plays.

        Returns:
            The items of what was open: of their words, those count whose sound was received.
        """
        session, items = self.output_owner, list[str]()
        self._cut_reply = (self.cut_reply, self.responses.n_inputs)
        if session is not None and self.clock is not None:
            for response in self.responses.open_of(session.epoch):
                items += response.item_ids.values()
                if response.is_answer and response.trigger != "say":
                    self._cut_reply = (frozenset(response.item_ids.values()), self.responses.n_inputs)
                self._end(response, session, {"reason": reason}, is_torn=True)
                self.says.torn(response)
                if response.trigger == "tool" and not response.is_answer:
                    self.calls.unclaim()
        return items

    @property
    def cut_reply(self) -> frozenset[str]:
        """Items of an answer that ended with its session, as long as nothing was said or asked since."""
        items, n_inputs = self._cut_reply
        return items if n_inputs == self.responses.n_inputs or self.responses.owes_note else frozenset()

    @property
    def role(self) -> str:
        """Who has the floor: ``user``, ``agent``, or nobody yet."""
        return self._role

    def restore(self, cut_reply: Iterable[str], role: str) -> None:
        """Go on where another engine was: an answer was cut, and somebody had the floor."""
        self._cut_reply, self._role = (frozenset(cut_reply), self.responses.n_inputs), role

    def hang_up(self) -> None:
        """Silence the output because the engine ends; the history keeps what was heard."""
        session, self._has_hung_up = self.output_owner, True
        self.says.clear()
        if session is None or self.clock is None:
            return
        session.lane = None
        opened = self.responses.open_of(session.epoch)
        current = self.responses.current
        heard = self.agent.settle(self.agent.silence(current), current)
        self.barge.silenced()
        for response in opened:
            self.responses.finish(response)
            self._cut_short(response, session, heard, "disconnect")

    async def close(self) -> None:
        """Stop every task and timer."""
        self.responses.close()
        self.barge.close()
        if self.clock is not None:
            self.clock.close()
        await self.activity.close()
