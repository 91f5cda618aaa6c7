"""Who decides where the user's turn ends, and how the provider learns of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Final, Literal

from voxengine.audio.format import AudioFormat
from voxengine.config import TurnDetection
from voxengine.conversation import Conversation
from voxengine.errors import CapabilityMissing, VoxEngineError
from voxengine.events import EventType
from voxengine.journal import first_channel
from voxengine.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from voxengine.audio.vad import SegmentEvent

__all__ = ["InputWatcher", "TurnTaker", "check_end", "endpointing_silence_ms"]

_SILENCE_MARGIN_MS: Final = 300
"""Silence beyond what the vendor waits for, so that it surely decides."""
_ENDPOINTING_MS: Final = {"server": 600, "semantic": 2500}
"""Silence after which a vendor that declares nothing is taken to end a turn."""


class TurnTaker:
    """Ends the user's turns: by the client's ear, by hand, or with the silence that a vendor waits for."""

    __slots__ = (
        "__dict__",  # For a recorder, which puts itself before a method.
        "_conversation",
        "_is_cutting",
        "_is_one_turn",
        "_taking",
        "is_recovering",
        "taker",
        "watcher",
    )

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self.watcher: InputWatcher | None = None
        """What listens to accepted audio here; None where the vendor alone does."""
        self._is_cutting = self._is_one_turn = False
        self._taking: asyncio.Lock | None = None
        self.taker: asyncio.Task[Any] | None = None
        """Who is sending a whole turn. What others send follows it."""
        self.is_recovering: Callable[[], bool] = lambda: False
        """Whether the session was lost and another one is being opened."""

    def listen_alone(self, session: Session) -> None:
        """Find the ends of turns here while no session does, for one that was lost."""
        conversation = self._conversation
        journal = conversation.user.journal
        assert journal is not None
        journal.vendor_decides = False
        conversation.user.close_utterance()
        detection: TurnDetection = session.config["turn_detection"]
        if detection.kind in ("client", "manual"):
            return  # Whoever decided so far goes on.
        user = conversation.user
        base = max(user.turn_end or 0, user.open_turn_start()) if not user.is_speaking else user.speech_start
        base = max(base or 0, journal.start)
        self.watcher = InputWatcher(conversation, journal.format, base, detection, "client", lambda: None)
        self.watcher.push(journal.read(base, journal.end - base))

    def attach(self, session: Session) -> None:
        """Listen for a session that has become the input's owner, if it needs the client's ear."""
        conversation = self._conversation
        journal = conversation.user.journal
        assert journal is not None
        self.watcher = None
        user = conversation.user
        detection: TurnDetection = session.config["turn_detection"]
        is_client = detection.kind == "client"
        if is_client or not session.has_boundaries:
            # An utterance that another session heard the start of is listened to from there.
            base = max(user.speech_start or 0, journal.start) if user.is_speaking else journal.end
            self.watcher = InputWatcher(
                conversation,
                journal.format,
                base,
                detection,
                "client" if is_client else "inferred",
                lambda: self._heard_end(session),
            )
            self.watcher.push(journal.read(base, journal.end - base))

    @contextlib.asynccontextmanager
    async def whole_turn(self) -> AsyncIterator[None]:
        """Have the input to oneself within the block, after whoever else has it; all of it is one turn."""
        self._taking = self._taking or asyncio.Lock()
        async with self._taking:
            self.taker = asyncio.current_task()
            try:
                with self.one_turn():
                    yield
            finally:
                self.taker = None

    async def wait_for_input(self) -> None:
        """Wait until nobody else is sending a whole turn."""
        while self.taker is not None and self.taker is not asyncio.current_task():
            assert self._taking is not None
            async with self._taking:
                pass

    @contextlib.contextmanager
    def one_turn(self) -> Iterator[None]:
        """Let no pause end the turn within the block: all of it is one."""
        watcher = self.watcher
        before = watcher is not None and watcher.ends_turns
        if watcher is not None:
            watcher.ends_turns = False
        self._is_one_turn = True
        try:
            yield
        finally:
            self._is_one_turn = False
            if watcher is not None:
                watcher.ends_turns = before

    def vendor_speaks_up(self, session: Session) -> None:
        """Note that the vendor reports speech by itself: an ear that only infers is not needed."""
        if session.config["turn_detection"].kind != "client":
            self.watcher = None

    def cut_short(self) -> None:
        """End a turn that fills the journal: no pause in it could be heard any more, and its answer makes room."""
        conversation = self._conversation
        user, session = conversation.user, conversation.user.owner
        if self._is_cutting or user.waits_for_answer or self.is_recovering():
            return
        assert user.journal is not None
        if user.journal.held_s < user.journal.limit_s / 2:
            return  # The call was too much at once, not the turn.
        if session is None or not session.is_ready or session.config["turn_detection"].kind == "manual":
            return
        self._is_cutting = True
        message = (
            "The user's turn fills what may wait for an answer (journal_s), and is ended here. "
            "What is said until it is answered is refused."
        )
        conversation.emit(EventType.WARNING, {"code": "turn_cut_short", "message": message}, session)
        conversation.activity.start(self._cut(), "end of turn")

    async def _cut(self) -> None:
        try:
            await self.end(True)
        except Exception as error:
            self._conversation.report(self._conversation.user.owner, error)
        finally:
            self._is_cutting = False

    def own_silence(self) -> bytes:
        """Return the silence that ends a recorded turn for a vendor who finds the ends of turns; else nothing.

        It is accepted like the turn itself, so that a session that takes over hears the same end.
        """
        user = self._conversation.user
        session, journal = user.owner, user.journal
        if (
            session is None
            or journal is None
            or session.config["turn_detection"].kind in ("client", "manual")
        ):
            return b""
        return bytes(
            journal.format.n_bytes(endpointing_silence_ms(session))
        )  # PCM16, as the journal holds it.

    async def end(self, respond: bool) -> None:
        """End the user's turn with everything that was accepted, in whichever session has the input by then."""
        user = self._conversation.user
        if respond:
            await self._conversation.barge.turn_ended()
        if self.watcher is not None:
            self.watcher.flush()
        has_turn = user.has_open_turn
        if self._keeps_end(respond):
            return
        try:
            session = await self._flush_input()
        except VoxEngineError:
            if self._keeps_end(respond):
                return
            raise
        assert session.sender is not None
        detection: TurnDetection = session.config["turn_detection"]
        has_ear = self.watcher is not None and self.watcher.ends_turns
        if detection.kind == "client" and has_ear and user.waits_for_answer and user.is_heard_out:
            return  # The client's ear noticed the end before, and an answer was asked for.
        if detection.kind in ("client", "manual") and session.can("client_turn_detection"):
            await self._end_by_hand(session, respond)
            return
        if has_turn and respond:
            self._conversation.responses.expect()
        if has_turn and user.turn_end is None:
            user.turn_ended(session.sender.cursor)
        if self._is_one_turn:
            return  # The silence that the vendor waits for was accepted with it.
        try:
            await session.sender.inject_silence(endpointing_silence_ms(session))
        except VoxEngineError:
            if not self._keeps_end(respond) and session is user.owner:
                raise

    def _keeps_end(self, respond: bool) -> bool:
        """Note the end of a turn for the session to come; False when there is one."""
        user = self._conversation.user
        if not self.is_recovering() or user.journal is None:
            return False
        if self.watcher is not None:
            self.watcher.flush()
        if respond:
            if user.owner is not None and user.owner.config["turn_detection"].kind == "manual":
                user.committed(user.journal.end)
            user.turn_ended(user.journal.end)
            user.close_utterance()
        else:
            user.turn_end = None  # It is heard with what follows.
        return True

    async def _flush_input(self) -> Session:
        """Send what was accepted; return the session that took it."""
        user = self._conversation.user
        while True:
            session = user.owner
            assert session is not None
            assert session.sender is not None
            await session.sender.flush()
            if session is user.owner:
                return session

    async def _end_by_hand(self, session: Session, respond: bool) -> None:
        conversation = self._conversation
        assert session.sender is not None
        if session.config["turn_detection"].kind == "manual":
            conversation.user.committed(session.sender.cursor)
        if respond:
            conversation.user.turn_ended(session.sender.cursor)
            if session.can("dialogue"):  # A recogniser owes the words, and no response.
                conversation.responses.input("audio", is_request=True, covers=session.sender.cursor)
        try:
            await session.call("end_turn", respond)
        except VoxEngineError:
            if self.is_recovering():
                return  # The next session is told the end of the turn.
            if session is not conversation.user.owner and conversation.user.owner is not None:
                return  # Another session has taken over, and the turn with it.
            if respond:
                conversation.responses.request_failed()
                conversation.user.turn_end = None
            raise

    def _heard_end(self, session: Session) -> None:
        if session.is_ready and session.can("client_turn_detection"):
            self._conversation.activity.start(self._end_heard(session), "end of turn")

    async def _end_heard(self, session: Session) -> None:
        try:
            owner = self._conversation.user.owner
            session = await self._flush_input()
            if session is owner:  # Else the turn's end has gone over with the turn.
                await self._end_by_hand(session, True)
        except Exception as error:
            if self.is_recovering():
                return  # The turn's end is known, and the next session is told it.
            self._conversation.report(session, error)


def check_end(session: Session, respond: bool, method: str) -> None:
    """Raise CapabilityMissing where a turn that ends without an answer is asked of a vendor that answers each."""
    detection: TurnDetection = session.config["turn_detection"]
    if respond or not session.can("dialogue") or detection.kind in ("client", "manual"):
        return
    raise CapabilityMissing(
        f"{method}(respond=False): {session.name} finds the end of a turn itself and answers it. Nothing was "
        "done. Set turn_detection to 'client' or 'manual'.",
        capability="client_turn_detection",
        provider=session.name,
    )


def endpointing_silence_ms(session: Session) -> int:
    """Return how much silence makes a session's vendor end the turn for sure."""
    detection: TurnDetection = session.config["turn_detection"]
    silence_ms = (
        detection.silence_ms
        or session.capabilities.endpointing_silence_ms
        or _ENDPOINTING_MS.get(detection.kind, _ENDPOINTING_MS["server"])
    )
    return silence_ms + _SILENCE_MARGIN_MS


class InputWatcher:
    """Runs the segmenter over the input and tells the conversation.

    Args:
        conversation: Told where speech starts and ends.
        audio_format: The engine's input format.
        base: Journal index of the first sample that will be pushed.
        detection: Detector, threshold and silence.
        source: ``client`` when the end of speech ends the turn, ``inferred`` when it is only noted.
        on_turn_end: Called when the user's turn is over; for ``client``.
    """

    def __init__(
        self,
        conversation: Conversation,
        audio_format: AudioFormat,
        base: int,
        detection: TurnDetection,
        source: Literal["client", "inferred"],
        on_turn_end: Callable[[], object],
    ) -> None:
        self._segmenter = conversation.user.ears.segmenter(detection, audio_format.sample_rate)
        self._segmenter.reset(base)
        self._channels = audio_format.channels
        self._conversation = conversation
        self._source = source
        self._on_turn_end = on_turn_end
        self.ends_turns = source == "client"
        """Whether the end of speech ends the turn."""

    def push(self, data: bytes) -> None:
        """Listen to accepted audio."""
        self._tell(self._segmenter.push(first_channel(data, self._channels)))

    def flush(self) -> None:
        """Close an open utterance without ending the turn: whoever flushes ends it."""
        for event in self._segmenter.flush():
            if event.kind == "end":
                self._conversation.user.speech_ended(event.sample_index, "inferred")

    def _tell(self, events: list[SegmentEvent]) -> None:
        for event in events:
            if event.kind == "start":
                if self._conversation.user.speech_started(event.padded_index, self._source):
                    self._conversation.barge.spoke()
            elif self.ends_turns and not self._conversation.barge.utterance_ended():
                self._conversation.user.dismissed(event.sample_index)
            else:
                source = self._source if self.ends_turns else "inferred"
                self._conversation.user.speech_ended(event.sample_index, source)
                if self.ends_turns:
                    self._on_turn_end()
