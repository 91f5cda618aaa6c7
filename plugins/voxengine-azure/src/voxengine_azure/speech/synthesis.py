"""Streaming synthesis: one socket, one text after the other, stopped at once when it is interrupted."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from voxengine.codec import Role, VendorMessage
from voxengine.errors import ConnectionLost, NotConnected, ProviderError, RemoteProtocolError
from voxengine.events import EventType
from voxengine.history import Heard
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
from voxengine_azure.speech.saying import Saying
from voxengine_azure.speech.settings import SpeechSettings
from voxengine_azure.speech.ssml import build_ssml

__all__ = ["Synthesis"]

_REDIAL_S: Final = (0.0, 0.2, 0.6)
"""Waits before the attempts to have a text said; after the last the session is lost."""


class _Stopped(Exception):
    """What was being said was interrupted."""


class Synthesis:
    """The speaking half of a session. Loop thread only.

    Args:
        host: The session.
        url: Returns the address for settings.
        settings: Of the session.
        version: Of this package, for the service.
        first_s: How long the first message of an answer may take.
        progress_s: How long each further one may take.
    """

    def __init__(
        self,
        host: Host,
        url: Callable[[SpeechSettings], str],
        settings: SpeechSettings,
        *,
        version: str,
        first_s: float,
        progress_s: float,
    ) -> None:
        self._host = host
        self._url = url
        self.settings = settings
        """May be replaced at any time; what is asked for next goes by it."""
        self._version = version
        self._first_s = first_s
        self._progress_s = progress_s
        self._codec = SpeechCodec(Role.CLIENT, new_hex_id)
        self.connection: Transport | None = None
        self._configured: Transport | None = None
        self._waiting: deque[Saying] = deque()
        self._open: Saying | None = None
        """More text of it is to come."""
        self._current: Saying | None = None
        self._changed = asyncio.Event()
        self._is_over = False
        self._task: asyncio.Task[None] | None = None
        self._carry = b""
        """Bytes of a sample whose rest has not come."""
        self.n_characters = 0
        self.audio_s = 0.0

    # -- life -----------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the connection. Raises ProviderError."""
        self.connection = await self._host.dial(self._url(self.settings))

    def start(self) -> None:
        """Begin to say what is asked for."""
        self._task = self._host.start_task(self._run(), name="azure speech synthesis")

    async def close(self) -> None:
        """Let go of the connection. A second call does nothing."""
        self._is_over = True
        self._waiting.clear()
        await ended(self._task)  # First, so that it opens no other connection meanwhile.
        if self.connection is not None:
            await self.connection.close()

    # -- what the session is asked for ----------------------------------------------------------

    def speak(self, text: str, *, is_last: bool, trigger: str) -> None:
        """Say a text after what is being said; more of the same follows unless ``is_last``."""
        saying = self._open
        if saying is None:
            saying = self._open = Saying(new_hex_id(), new_hex_id(), trigger)
            self._waiting.append(saying)
        saying.add(text, is_last=is_last)
        if is_last:
            self._open = None
        self._changed.set()

    def interrupt(self, heard: Heard | None) -> None:
        """Stop what is being said, and say nothing of what waits."""
        current, waiting = self._current, tuple(self._waiting)
        self._waiting.clear()
        self._open = None
        if current is not None and not current.is_over:
            is_this = heard is not None and heard.item_id in ("", current.item_id)
            played_ms = heard.item_played_ms if heard is not None and is_this else None
            self._cancelled(current, played_ms)
            self._leave()
        for saying in waiting:
            self._host.emit_event(EventType.RESPONSE_STARTED, self._started(saying))
            self._cancelled(saying, 0)
        self._changed.set()

    def _leave(self) -> None:
        # Closing is how the vendor's own client stops: no audio can come after it, and another connection is
        # opened while nobody waits for it.
        connection, self.connection = self.connection, None
        if connection is not None:
            self._host.start_task(connection.close(), name="azure speech stop")

    # -- saying ---------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            if not self._waiting:
                self._changed.clear()
                if self.connection is None:
                    await self._warm_up()
                    if self._waiting:
                        continue
                await self._changed.wait()
                continue
            saying = self._current = self._waiting.popleft()
            self._host.emit_event(EventType.RESPONSE_STARTED, self._started(saying))
            try:
                failure = await self._say(saying)
            except _Stopped:
                failure = None
            except ProviderError as error:
                if not self._is_over:
                    self._completed(saying, "failed")
                    self._host.lost(error)
                return
            if failure is not None:
                self._failed(saying, failure)
            self._current = None

    async def _warm_up(self) -> None:
        try:
            await self.open()
        except ProviderError:
            self.connection = None  # Whoever speaks next tries again, and is told.

    async def _say(self, saying: Saying) -> ProviderError | None:
        """Say one text to its end.

        Returns:
            Why it could not be said, when the session can go on all the same.

        Raises:
            ProviderError: The session cannot go on.
            _Stopped: It was interrupted.
        """
        while not saying.is_over:
            segment = saying.next_segment()
            if segment.strip():
                failure = await self._say_segment(saying, segment)
                if failure is not None:
                    return failure
            elif saying.is_finished:
                self._completed(saying, "completed")
                return None
            elif not segment:
                self._changed.clear()
                await self._changed.wait()
        raise _Stopped

    async def _say_segment(self, saying: Saying, segment: str) -> ProviderError | None:
        """Have a text said; again when the connection broke before any of it was heard."""
        before_ms = saying.sent_ms
        last: ProviderError | None = None
        for wait_s in _REDIAL_S:
            await asyncio.sleep(wait_s)
            try:
                connection = await self._connected()
                if saying.is_over:
                    raise _Stopped
                return await self._turn(connection, saying, segment)
            except ProviderError as error:
                self.connection = None
                if saying.is_over or self._is_over:
                    raise _Stopped from None
                if saying.sent_ms > before_ms:
                    return _cut_short(error)
                if not (outcomes.can_redial(error) or outcomes.is_unreachable(error)):
                    return error
                last = error
        assert last is not None
        raise last

    async def _connected(self) -> Transport:
        if self.connection is None or self.connection.closed:
            self.connection = None
            await self.open()
        assert self.connection is not None
        return self.connection

    async def _turn(self, connection: Transport, saying: Saying, segment: str) -> ProviderError | None:
        """Ask for a text and tell what comes of it; return an error for which the session is not to blame."""
        request_id, base_ms = new_hex_id(), saying.sent_ms
        self._carry = b""
        settings = self.settings
        messages = [
            SpeechMessage("synthesis.context", settings.synthesis(), request_id, timestamp()),
            SpeechMessage("ssml", build_ssml(segment, settings.delivery), request_id, timestamp()),
        ]
        if self._configured is not connection:
            messages.insert(0, config_message(self._version, request_id))
            self._configured = connection
        try:
            for message in messages:
                for wire in self._codec.encode(message):
                    await connection.send(wire)
            return await self._listen(connection, saying, request_id, len(segment), base_ms)
        except NotConnected:
            raise _Stopped from None  # We closed it: for an interruption, or at the end of the session.
        except (ConnectionLost, RemoteProtocolError) as error:
            meant = outcomes.of_synthesis(error, connection.close_reason or "", settings.delivery.speaks)
            if meant is error:
                raise
            self.connection = None
            return meant

    async def _listen(
        self, connection: Transport, saying: Saying, request_id: str, n_characters: int, base_ms: int
    ) -> ProviderError | None:
        """Tell what comes of a text, to its end; return an error when it stays out."""
        clock = asyncio.get_running_loop().time
        n_messages, n_bytes, limit_s = 0, 0, self._first_s
        while True:
            try:
                async with asyncio.timeout(limit_s):
                    wire = await connection.recv()
            except TimeoutError:
                self._leave()
                what = "the rest of an answer" if n_messages else "an answer to a text"
                return outcomes.of_silence(what, limit_s)
            n_messages += 1
            limit_s = self._progress_s
            if saying.is_over:
                raise _Stopped
            for message in self._codec.decode(wire, clock()):
                if isinstance(message, AudioFrame):
                    if message.request_id.lower() == request_id:
                        if not n_bytes and message.data:
                            # Only now: a text that is refused, or asked for again, is not one more.
                            self.n_characters += n_characters
                            saying.n_characters += n_characters
                        n_bytes += len(message.data)
                        self._tell_text(saying)
                        self._audio(saying, message.data)
                        saying.sent_ms = base_ms + int(self.settings.output_format.duration_ms(n_bytes))
                elif self._is_end(message, saying, request_id, base_ms):
                    return None

    def _is_end(
        self, message: Message | ProtocolFault, saying: Saying, request_id: str, base_ms: int
    ) -> bool:
        """Tell what a message says, and return whether it ends the turn."""
        if isinstance(message, ProtocolFault):
            error = outcomes.of_fault(message.reason)
            self._host.emit_event(EventType.ERROR_GENERAL, {"error": error, "recoverable": True})
        elif isinstance(message, VendorMessage):
            data = {"name": message.name, "payload": message.payload}
            self._host.emit_event(EventType.VENDOR_EVENT, data)
        elif isinstance(message, SpeechMessage) and message.request_id.lower() == request_id:
            if message.path == "audio.metadata":
                for entry in message.body["Metadata"]:
                    self._mark(saying, entry, base_ms)
            return message.path == "turn.end"
        return False

    # -- telling --------------------------------------------------------------------------------

    def _ids(self, saying: Saying) -> dict[str, Any]:
        return {"response_id": saying.response_id, "item_id": saying.item_id}

    def _started(self, saying: Saying) -> dict[str, Any]:
        return {"response_id": saying.response_id, "trigger": saying.trigger}

    def _tell_text(self, saying: Saying) -> None:
        """Tell the text that is being said, when audio of it is there: a refused one was never said."""
        delta = saying.said[saying.n_told :]
        if delta:
            saying.n_told = len(saying.said)
            text = {"text": saying.said, "delta": delta, "is_partial": True}
            self._host.emit_event(EventType.TEXT_OUTPUT, {**text, **self._ids(saying)})

    def _audio(self, saying: Saying, data: bytes) -> None:
        form = self.settings.output_format
        data = self._carry + data
        n_whole = len(data) - len(data) % form.frame_bytes
        self._carry = data[n_whole:]
        if not n_whole:
            return
        self.audio_s += n_whole / form.bytes_per_s
        chunk = {"audio_data": data[:n_whole], "sample_rate": form.sample_rate, "channels": form.channels}
        self._host.emit_event(EventType.AUDIO_OUTPUT_CHUNK, {**chunk, **self._ids(saying)})

    def _mark(self, saying: Saying, entry: object, base_ms: int) -> None:
        """Tell one entry of ``audio.metadata``."""
        if not isinstance(entry, Mapping) or not isinstance(entry.get("Data"), Mapping):
            return
        kind, data = entry.get("Type"), entry["Data"]
        at_ms = base_ms + to_ms(data.get("Offset"))
        mark: dict[str, Any] = {"at_ms": at_ms, **self._ids(saying)}
        text = data.get("text")
        if kind in ("WordBoundary", "SentenceBoundary") and isinstance(text, Mapping):
            word, boundary = str(text.get("Text") or ""), text.get("BoundaryType")
            mark |= {"value": word, "end_ms": at_ms + to_ms(data.get("Duration"))}
            mark["kind"] = "sentence" if kind == "SentenceBoundary" else "word"
            if boundary == "PunctuationBoundary":
                mark["kind"] = "punctuation"
            if mark["kind"] == "word":
                saying.word(word, mark["end_ms"])
        elif kind == "Viseme":
            mark |= {"kind": "viseme", "value": str(data.get("VisemeId"))}
            if data.get("AnimationChunk"):
                mark["animation"] = data["AnimationChunk"]
        elif kind == "Bookmark":
            mark |= {"kind": "bookmark", "value": str(data.get("Bookmark"))}
        else:
            if kind != "SessionEnd":
                payload = {"Type": kind, "Data": dict(data)}
                self._host.emit_event(EventType.VENDOR_EVENT, {"name": "audio.metadata", "payload": payload})
            return
        self._host.emit_event(EventType.SPEECH_MARK, mark)

    def _completed(self, saying: Saying, status: str) -> None:
        saying.is_over = True
        if saying.n_told and status == "completed":
            text = {"text": saying.said[: saying.n_told], "delta": "", "is_partial": False}
            self._host.emit_event(EventType.TEXT_OUTPUT, {**text, **self._ids(saying)})
        usage = {"characters": saying.n_characters, "output_audio_s": round(saying.sent_ms / 1000, 3)}
        self._host.emit_event(
            EventType.RESPONSE_COMPLETED, {**self._ids(saying), "status": status, "usage": usage}
        )
        self._host.tell_usage()

    def _cancelled(self, saying: Saying, played_ms: int | None) -> None:
        saying.is_over = True
        heard = (None, None) if played_ms is None else saying.heard(played_ms)
        data = {"reason": "interrupted", "heard_ms": heard[0], "heard_text": heard[1]}
        data["heard_is_estimated"] = None if played_ms is None else False
        self._host.emit_event(EventType.RESPONSE_CANCELLED, {**self._ids(saying), **data})
        self._host.tell_usage()

    def _failed(self, saying: Saying, error: ProviderError) -> None:
        self._host.emit_event(EventType.ERROR_GENERAL, {"error": error, "recoverable": error.recoverable})
        self._completed(saying, "incomplete" if saying.sent_ms else "failed")


def _cut_short(error: ProviderError) -> ProviderError:
    """Return the error for a connection that broke in the middle of a text: the next one gets another."""
    return ProviderError(
        f"azure speech was cut off while it spoke; what was received plays. Cause: {type(error).__name__} "
        f"({error.close_code}). The next text is said over a new connection.",
        provider="azure",
        code=error.code,
        recoverable=True,
        close_code=error.close_code,
    )
