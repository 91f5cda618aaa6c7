"""Continuous recognition: one socket, any number of turns of the protocol, every sample kept until its words are final.

A turn ends when the user's turn is closed, or when the service ends it by itself; the connection may break or
be closed for idleness at any time. What was sent since the last final phrase is then sent again, in a new turn.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import attrs

from voxengine.audio.format import AudioFormat
from voxengine.codec import Role, VendorMessage, Wire
from voxengine.errors import ConnectionLost, NotConnected, ProviderError, RemoteProtocolError
from voxengine.events import EventType
from voxengine.transport import Transport
from voxengine_azure.speech import outcomes
from voxengine_azure.speech.codec import (
    AudioFrame,
    Message,
    ProtocolFault,
    SpeechCodec,
    SpeechMessage,
    to_ms,
)
from voxengine_azure.speech.host import Host, config_message, ended, new_hex_id, timestamp
from voxengine_azure.speech.kept import KeptAudio
from voxengine_azure.speech.settings import SpeechSettings, riff_header
from voxengine_azure.speech.utterances import Utterances

__all__ = ["Recognition"]

_WAV: Final = "audio/x-wav"
_REDIAL_S: Final = (0.0, 0.2, 0.6)
"""Waits before the attempts to replace a connection; after the last the session is lost."""
_LASTING_S: Final = 30.0
"""A connection that gave a phrase, or lasted so long, was worth replacing: attempts count anew."""
_AT_ONCE_MS: Final = 5000
"""So much of audio that is sent again goes out unpaced, and the rest at twice its own speed."""
_CATCH_UP: Final = 2.0


@attrs.define
class _Turn:
    """One turn of the protocol."""

    request_id: str
    stream_id: str
    base: int
    """Frame of the session's input at which the turn's audio begins."""
    is_closing: bool = False
    """The end of its audio was sent."""


@attrs.frozen
class _Waiting:
    """What is to be sent before new audio."""

    wire: Wire
    from_ms: float
    """Where it begins in audio that is sent again; 0 for what is no audio."""


class Recognition:
    """The recognising half of a session. Loop thread only.

    Args:
        host: The session.
        url: Returns the address for settings.
        settings: Of the session.
        version: Of this package, for the service.
        end_s: How long the service may take to end a turn that was closed.
    """

    def __init__(
        self,
        host: Host,
        url: Callable[[SpeechSettings], str],
        settings: SpeechSettings,
        *,
        version: str,
        end_s: float,
    ) -> None:
        self._host = host
        self._url = url
        self._settings = settings
        self._version = version
        self._end_s = end_s
        self._codec = SpeechCodec(Role.CLIENT, new_hex_id)
        self._form: AudioFormat = settings.input_format
        self._kept = KeptAudio(self._form)
        self._utterances = Utterances(host.emit_event, settings.language)
        self.connection: Transport | None = None
        self._turn: _Turn | None = None
        self._n_turns = 0
        self._waiting: deque[_Waiting] = deque()
        self._resend_began = 0.0
        self._sending = asyncio.Lock()
        self._flushing = asyncio.Lock()
        self._is_wanted = asyncio.Event()
        self._changed = asyncio.Event()
        self._n_failures = 0
        self._is_replacing = False
        """We closed the connection in order to open another one."""
        self._is_over = False
        self._configured: Transport | None = None
        """The connection that was told who we are."""
        self._deadline: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    # -- life -----------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the connection. Raises ProviderError."""
        self.connection = await self._host.dial(self._url(self._settings))

    def start(self) -> None:
        """Begin to listen to the service."""
        assert self.connection is not None
        work = self._run(self.connection)
        self._task = self._host.start_task(work, name="azure speech recognition")

    async def close(self) -> None:
        """Let go of the connection. A second call does nothing."""
        self._end()
        await ended(self._task)  # First, so that it opens no other connection meanwhile.
        if self.connection is not None:
            await self.connection.close()

    # -- what the session is asked for ----------------------------------------------------------

    async def send_audio(self, pcm: bytes) -> None:
        """Send audio, waiting while the service is slow. Raises AudioFormatError, ConnectionLost."""
        self._form.check_aligned(len(pcm), "send_audio")
        if not pcm:
            return
        async with self._sending:
            while True:
                connection, turn = await self._open_turn()
                try:
                    await connection.send(self._audio(turn, pcm))
                except (ConnectionLost, NotConnected):
                    continue  # It is being replaced; then this chunk goes out after what came before it.
                self._note(pcm)
                return

    @property
    def audio_s(self) -> float:
        """How much audio was sent, in seconds; what was sent twice counts once."""
        return self._kept.end / self._form.sample_rate

    def try_send(self, pcm: bytes) -> bool:
        """Send audio at once when that takes no waiting."""
        self._form.check_aligned(len(pcm), "send_audio")
        connection, turn = self.connection, self._turn
        if (
            not pcm
            or connection is None
            or turn is None
            or turn.is_closing
            or self._waiting
            or self._sending.locked()
            or not connection.writable
            or not connection.send_nowait(self._audio(turn, pcm))
        ):
            return False
        self._note(pcm)
        return True

    async def end_turn(self) -> None:
        """Close the user's turn: its words become final now."""
        async with self._sending:
            if self._turn is None or self._turn.is_closing:
                return
            while True:
                connection, turn = await self._open_turn()
                try:
                    await connection.send(self._audio(turn, b""))
                except (ConnectionLost, NotConnected):
                    continue  # What was not final is sent again over another one; its end goes after it.
                self._closing(turn)
                return

    def _closing(self, turn: _Turn) -> None:
        turn.is_closing = True
        self._deadline = asyncio.get_running_loop().call_later(self._end_s, self._end_is_late)

    async def discard(self) -> None:
        """Forget the audio of the open turn and what was understood of it."""
        async with self._sending:
            if self._turn is None:
                return
            self._kept.clear()
            self._utterances.drop(self._kept.end_ms)
            self._turn = None
            # The service offers no other way of taking audio back than leaving.
            await self._replace()

    async def configure(self, settings: SpeechSettings) -> None:
        """Recognise by other settings. Audio whose words are not final is recognised again by them."""
        before, self._settings = self._settings, settings
        self._utterances.language = settings.language
        if (settings.context(), settings.query()) == (before.context(), before.query()):
            return
        async with self._sending:
            await self._replace()

    async def _replace(self) -> None:
        """Close the connection; another one follows when audio does, or at once when there is some to send."""
        self._waiting.clear()
        if self.connection is not None and not self._is_over:
            self._is_replacing = True
            await self.connection.close()

    # -- sending --------------------------------------------------------------------------------

    def _audio(self, turn: _Turn, pcm: bytes) -> Wire:
        (wire,) = self._codec.encode(AudioFrame(pcm, turn.request_id, turn.stream_id, "", timestamp()))
        return wire

    def _note(self, pcm: bytes) -> None:
        self._kept.add(pcm, is_speech=self._utterances.is_open)

    async def _open_turn(self) -> tuple[Transport, _Turn]:
        """Return the connection and its turn when new audio may go out on it."""
        while True:
            if self._is_over:
                raise NotConnected("azure speech has no session any more.")
            connection = self.connection
            is_closing = self._turn is not None and self._turn.is_closing
            if connection is None or connection.closed or is_closing:
                if not is_closing:
                    self._is_wanted.set()
                self._changed.clear()
                await self._changed.wait()
                continue
            turn = self._turn or self._begin_turn()
            if not self._waiting and not self._flushing.locked():
                return connection, turn
            await self._flush()

    def _begin_turn(self) -> _Turn:
        """Open a turn whose audio begins with what is kept."""
        self._n_turns += 1
        turn = self._turn = _Turn(new_hex_id(), str(self._n_turns), self._kept.start)
        form = self._form
        opening: list[Message] = []
        if self._configured is not self.connection:
            self._configured = self.connection
            source = {
                "type": "Stream",
                "samplerate": str(form.sample_rate),
                "bitspersample": str(8 * form.width),
            }
            source |= {"channelcount": str(form.channels)}
            opening.append(config_message(self._version, turn.request_id, source))
        opening.append(
            SpeechMessage("speech.context", self._settings.context(), turn.request_id, timestamp())
        )
        opening.append(AudioFrame(riff_header(form), turn.request_id, turn.stream_id, _WAV, timestamp()))
        self._waiting.extend(_Waiting(wire, 0.0) for item in opening for wire in self._codec.encode(item))
        n_bytes = 0
        for pcm in self._kept:
            self._waiting.append(_Waiting(self._audio(turn, pcm), form.duration_ms(n_bytes)))
            n_bytes += len(pcm)
        self._resend_began = asyncio.get_running_loop().time()
        return turn

    async def _flush(self) -> None:
        """Send what waits. What a broken connection takes along is sent again by its successor."""
        loop = asyncio.get_running_loop()
        async with self._flushing:
            while self._waiting and self.connection is not None:
                item = self._waiting[0]
                ahead_ms = item.from_ms - _AT_ONCE_MS
                wait_s = self._resend_began + ahead_ms / 1000 / _CATCH_UP - loop.time()
                if ahead_ms > 0 and wait_s > 0:
                    await asyncio.sleep(wait_s)
                    continue  # It may have been replaced meanwhile.
                try:
                    await self.connection.send(item.wire)
                except (ConnectionLost, NotConnected):
                    return
                if self._waiting and self._waiting[0] is item:
                    self._waiting.popleft()

    # -- the connection -------------------------------------------------------------------------

    async def _run(self, connection: Transport) -> None:
        """Listen, and replace the connection when it ends; until the session does."""
        while True:
            began = asyncio.get_running_loop().time()
            error = await self._read(connection)
            if asyncio.get_running_loop().time() - began > _LASTING_S:
                self._n_failures = 0
            self.connection = None
            self._cancel_deadline()
            if self._is_over:
                return
            replacement = await self._recover(error)
            if replacement is None:
                return
            connection = replacement

    async def _read(self, connection: Transport) -> ProviderError | None:
        clock = asyncio.get_running_loop().time
        try:
            async for wire in connection:
                for message in self._codec.decode(wire, clock()):
                    self._handle(message)
        except (ConnectionLost, RemoteProtocolError) as error:
            return error
        return None

    async def _recover(self, error: ProviderError | None) -> Transport | None:
        """Return another connection, on which what is not final is sent again; None when there is none."""
        is_ours, self._is_replacing = self._is_replacing, False
        if not is_ours and error is not None and not outcomes.can_redial(error):
            self._give_up(error)
            return None
        if self._turn is None or not len(self._kept):
            # Services close what is idle. It is opened again when somebody speaks.
            await self._is_wanted.wait()
        while not self._is_over:
            if self._n_failures >= len(_REDIAL_S):
                self._give_up(error or outcomes.of_silence("anything", self._end_s))
                return None
            wait_s = _REDIAL_S[self._n_failures]
            self._n_failures += 1
            await asyncio.sleep(wait_s)
            try:
                connection = await self._host.dial(self._url(self._settings))
            except ProviderError as refusal:
                if refusal.recoverable:
                    error = refusal
                    continue
                self._give_up(refusal)
                return None
            self.connection = connection  # So that whoever ends the session closes it.
            self._adopt()
            return connection
        return None

    def _adopt(self) -> None:
        """Go on with another connection."""
        self._is_wanted.clear()
        before, self._turn = self._turn, None
        self._waiting.clear()
        if before is not None and len(self._kept):
            turn = self._begin_turn()
            if before.is_closing:
                self._waiting.append(_Waiting(self._audio(turn, b""), 0.0))
                self._closing(turn)
            self._host.start_task(self._flush(), name="azure speech resend")
        self._changed.set()

    def _give_up(self, error: ProviderError) -> None:
        self._end()
        self._host.lost(error)

    def _end(self) -> None:
        self._is_over = True
        self._cancel_deadline()
        self._is_wanted.set()
        self._changed.set()

    def _end_is_late(self) -> None:
        self._give_up(outcomes.of_silence("the end of a turn", self._end_s))

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    # -- what the service says ------------------------------------------------------------------

    def _handle(self, message: Message | ProtocolFault) -> None:
        if isinstance(message, ProtocolFault):
            error = outcomes.of_fault(message.reason)
            self._host.emit_event(EventType.ERROR_GENERAL, {"error": error, "recoverable": True})
        elif isinstance(message, VendorMessage):
            data = {"name": message.name, "payload": message.payload}
            self._host.emit_event(EventType.VENDOR_EVENT, data)
        elif isinstance(message, SpeechMessage):
            turn = self._turn
            # Of a turn that is over nothing counts: its audio is recognised again.
            if turn is not None and message.request_id.lower() == turn.request_id:
                self._of_turn(turn, message)

    def _of_turn(self, turn: _Turn, message: SpeechMessage) -> None:
        base_ms = self._kept.ms(turn.base)
        body = message.body
        at_ms = base_ms + to_ms(body.get("Offset"))
        match message.path:
            case "speech.hypothesis" | "speech.fragment":
                self._utterances.partial(at_ms, body)
            case "speech.startdetected":
                self._utterances.begin(at_ms)
            case "speech.enddetected":
                self._utterances.stop(at_ms)
            case "speech.phrase":
                self._phrase(at_ms, base_ms, body)
            case "turn.end":
                self._turn_ended(turn)

    def _phrase(self, at_ms: int, base_ms: int, body: dict[str, Any]) -> None:
        end_ms = at_ms + to_ms(body.get("Duration"))
        status = body["RecognitionStatus"]
        self._n_failures = 0
        if status in ("Success", "NoMatch", "InitialSilenceTimeout", "BabbleTimeout"):
            self._kept.release(end_ms)
            self._utterances.final(at_ms, end_ms, base_ms, body, is_heard=status == "Success")
            self._host.tell_usage()
        elif status != "EndOfDictation":
            error = outcomes.of_status(status)
            self._utterances.drop(end_ms)
            self._host.emit_event(EventType.ERROR_GENERAL, {"error": error, "recoverable": error.recoverable})

    def _turn_ended(self, turn: _Turn) -> None:
        self._cancel_deadline()
        self._turn = None
        self._waiting.clear()
        if turn.is_closing:
            self._kept.clear()
            self._utterances.drop(self._kept.end_ms)
        elif self._utterances.is_open:
            # The service ended it in the middle of an utterance, which is therefore heard once more.
            self._begin_turn()
            self._host.start_task(self._flush(), name="azure speech resend")
        self._changed.set()
