"""The connection of a session: what is sent, what is read, how it ends."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from voxengine.codec import Role, VendorMessage
from voxengine.config import Deadlines
from voxengine.errors import (
    ConfigError,
    ConnectionLost,
    ErrorCode,
    NotConnected,
    ProviderError,
    RemoteProtocolError,
)
from voxengine.events import EventType
from voxengine.providers.base import BaseProvider
from voxengine_openai.codec import GA, AudioDelta, Dialect, ProtocolFault, RealtimeCodec, RealtimeMessage
from voxengine_openai.faults import ending_error, not_ready
from voxengine_openai.requests import Request
from voxengine_openai.translate import SessionState, Translator

if TYPE_CHECKING:
    from voxengine.transport import Transport

__all__ = ["SESSION_LIMIT_S", "RealtimeLink", "new_id"]

SESSION_LIMIT_S: Final = 3600.0
"""Longest life of a session at OpenAI."""
_EXPIRY_NOTICE_S: Final = 60.0
_MARGIN_S: Final = 0.01
"""A timer may come a little early by the clock."""
_RETRY_S: Final = 0.25
_PROCESS: Final = os.urandom(8).hex()
_numbers: Final = itertools.count(1)


def new_id(prefix: str) -> str:
    """Return a fresh identifier."""
    return f"{prefix}{_PROCESS}{next(_numbers):08x}"  # Ids of items have at most 32 characters.


class RealtimeLink(BaseProvider):
    """What a provider of the protocol has below its contract."""

    name: ClassVar[str] = "openai"
    """What errors call the provider."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.connection: Transport | None = None
        self._codec = RealtimeCodec(Role.CLIENT, new_id, self._dialect())
        self._state: SessionState | None = None
        self._translator: Translator | None = None
        self._created: asyncio.Future[None] | None = None
        """Done when the service opened the session; while connect waits for that."""
        self._is_opening = False
        self._timers: list[asyncio.TimerHandle] = []
        self._secrets: tuple[str, Mapping[str, str]] = ("", {})

    def _dialect(self) -> Dialect:
        return GA

    # -- sending ----------------------------------------------------------------------------------

    def _live(self) -> SessionState:
        if self._state is None or self.connection is None:
            raise NotConnected(f"{self.name} has no session yet. Call connect() first.")
        return self._state

    def _open_connection(self) -> Transport:
        if self.connection is None:
            raise NotConnected(f"{self.name} has no session yet. Call connect() first.")
        return self.connection

    def _wire(self, name: str, event_id: str, fields: Mapping[str, Any]) -> tuple[str, Sequence[str | bytes]]:
        event_id = event_id or new_id("evt_")
        try:
            wires = self._codec.encode(RealtimeMessage(name, {"event_id": event_id, **fields}))
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(
                f"{name} holds what JSON does not have ({type(error).__name__}). Nothing was sent; use texts, numbers, "
                "true, false, None, lists and mappings with texts as keys."
            ) from None
        self._live().replies.note(event_id, name)
        return event_id, wires

    async def _send(self, name: str, event_id: str = "", /, **fields: Any) -> str:
        connection = self._open_connection()
        event_id, wires = self._wire(name, event_id, fields)
        await self._send_wires(connection, wires)
        return event_id

    async def _send_wires(self, connection: Transport, wires: Iterable[str | bytes]) -> None:
        try:
            for wire in wires:
                await connection.send(wire)
        except ConnectionLost as error:
            raise self._told_apart(error) from None

    def _send_soon(self, name: str, **fields: Any) -> str:
        """Send from where nothing may wait; while the service is slow, a task carries it."""
        connection = self._open_connection()
        event_id, wires = self._wire(name, "", fields)
        for wire in wires:
            try:
                if not connection.send_nowait(wire):
                    self.start_task(self._send_late(connection, wire), name=f"{self.name} sender")
            except (ConnectionLost, NotConnected):
                break  # The reader tells of the loss.
        return event_id

    @staticmethod
    async def _send_late(connection: Transport, wire: str | bytes) -> None:
        try:
            await connection.send(wire)
        except (ConnectionLost, NotConnected):
            return  # The reader tells of the loss.

    def _request(self, request: Request) -> str:
        if request.item is not None:
            self._send_soon("conversation.item.create", item=request.item)
        fields = {} if request.params is None else {"response": request.params}
        return self._send_soon("response.create", **fields)

    async def _update(self, session: Mapping[str, Any]) -> asyncio.Future[Any]:
        event_id = new_id("evt_")
        wait = self._live().replies.expect_update(event_id)
        try:
            await self._send("session.update", event_id, session=session)
        except (ConnectionLost, RemoteProtocolError):
            if not self._is_opening:
                raise
            # The service was done with us before it heard a word. The reader, which has what it said until
            # then, tells both futures why.
        return wait

    async def _wait(self, answer: asyncio.Future[Any], what: str, limit_s: float | None = None) -> Any:
        limit = limit_s or (self.config.get("deadlines") or Deadlines()).ready_s
        try:
            async with asyncio.timeout(limit):
                return await answer
        except TimeoutError:
            raise ProviderError(
                f"{self.name} did not confirm {what} within {limit:g} s. It may have been taken all the same.",
                provider=self.name,
                code=ErrorCode.TIMEOUT,
            ) from None

    # -- receiving --------------------------------------------------------------------------------

    async def _open(self, session: Mapping[str, Any], deadlines: Deadlines) -> None:
        """Bring a connection to an open session with these settings.

        Raises:
            ProviderError: The service refused or did not answer in time.
        """
        assert self.connection is not None
        created = self._created = asyncio.get_running_loop().create_future()
        self._is_opening = True
        self.start_task(self._read(self.connection), name=f"{self.name} reader")
        try:
            async with asyncio.timeout(deadlines.ready_s):
                # Sent before the service's first word, which saves a round trip.
                answer = await self._update(session)
                await created
                await answer
        except TimeoutError:
            has_spoken = created.done() and not created.cancelled()
            spoke = "did not take the settings" if has_spoken else "opened the connection and never spoke"
            raise ProviderError(
                f"{self.name} {spoke}: no session within {deadlines.ready_s:g} s. Trying again can help; "
                "deadlines.ready_s sets the limit.",
                provider=self.name,
                code=ErrorCode.TIMEOUT,
            ) from None
        finally:
            self._is_opening = False
            created.cancel()

    async def _read(self, connection: Transport) -> None:
        translator = self._translator
        assert translator is not None
        codec, clock = self._codec, asyncio.get_running_loop().time
        audio_delta, text_delta, decode = codec.audio_delta, codec.text_delta, codec.decode
        audio, text = translator.audio, translator.text

        def take(wire: str | bytes) -> None:
            delta = audio_delta(wire)
            if delta is not None:
                audio(delta)
                return
            words = text_delta(wire)
            if words is not None:
                text(words)
                return
            for message in decode(wire, clock()):
                if type(message) is AudioDelta:
                    audio(message)
                else:
                    self._handle(message, translator)

        try:
            await connection.hand_to(take)
        except (ConnectionLost, RemoteProtocolError) as error:
            self._connection_ended(error)

    def _handle(self, message: Any, translator: Translator) -> None:
        """Take one message; what is wrong inside it must not end the reader."""
        if isinstance(message, RealtimeMessage):
            try:
                translator.message(message)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                translator.fault(f"{message.name} with a wrong content ({type(error).__name__})")
        elif isinstance(message, VendorMessage):
            self.emit_event(EventType.VENDOR_EVENT, {"name": message.name, "payload": message.payload})
        elif isinstance(message, ProtocolFault):
            where = f" at {message.param!r}" if message.param else ""
            what = f"{message.name or 'a message'} that cannot be read ({message.code}{where})"
            if not self.opening_failed(RemoteProtocolError(f"{self.name} sent {what}.", provider=self.name)):
                translator.fault(what)

    def _connection_ended(self, error: ConnectionLost | RemoteProtocolError) -> None:
        error = self._told_apart(error)
        self._stop_timers()
        if not self.opening_failed(not_ready(error)):
            self._stop_waiting(error)
            self.emit_event(EventType.CONNECTION_LOST, {"error": error, "will_reconnect": False})

    def _told_apart(
        self, error: ConnectionLost | RemoteProtocolError
    ) -> ConnectionLost | RemoteProtocolError:
        """Return what ended the connection, with what the service said of it; the same for reader and senders."""
        reason = self._open_connection().close_reason or ""
        return ending_error(error, reason, is_expired=self._live().is_expired)

    def _stop_waiting(self, error: Exception) -> None:
        """Tell everybody who waits for an answer that none will come."""
        if self._created is not None and not self._created.done():
            self._created.set_exception(error)
            self._created.exception()  # Seen: connect may still be sending.
        if self._state is not None:
            self._state.replies.end(error)

    def _stop_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    # -- what the translator tells --------------------------------------------------------------------

    def session_created(self, session: Mapping[str, Any]) -> None:
        """Take the service's first word."""
        session_id = session.get("id")
        self.session_id = session_id if isinstance(session_id, str) else None
        model = session.get("model")
        if isinstance(model, str) and model and self._state is not None:
            self._state.model = model
        expires_at = session.get("expires_at")
        if isinstance(expires_at, int | float):
            self._arm_expiry(expires_at - time.time())
        if self._created is not None and not self._created.done():
            self._created.set_result(None)

    def _arm_expiry(self, left_s: float) -> None:
        # The machine's clock may be wrong: no session lives longer than the limit, and none is born dead.
        if not 0 < left_s <= SESSION_LIMIT_S * 2:
            left_s = SESSION_LIMIT_S
        notice_s = min(_EXPIRY_NOTICE_S, left_s / 10)
        data = {"deadline_s": notice_s, "reason": "session_limit"}
        loop = asyncio.get_running_loop()
        timer = loop.call_later(left_s - notice_s, self.emit_event, EventType.SESSION_EXPIRING, data)
        self._timers.append(timer)

    def opening_failed(self, error: ProviderError) -> bool:
        """Take an error that ends ``connect``; False when the session is open."""
        if self._is_opening:
            self._stop_waiting(error)
        return self._is_opening

    def cancel_response(self, response_id: str) -> None:
        """Stop a response that was interrupted before it began."""
        active = self._live().queue.active
        if active is not None and active.id == response_id and not active.is_ending:
            active.is_ending = True
            self._send_soon("response.cancel", response_id=response_id)

    def retry_request(self, after_s: float = _RETRY_S) -> None:
        """Ask again soon for a response that the service had no room for."""
        now = asyncio.get_running_loop().time()
        self._timers = [timer for timer in self._timers if timer.when() > now and not timer.cancelled()]
        self._timers.append(
            asyncio.get_running_loop().call_later(after_s + _MARGIN_S, self._live().queue.go_on)
        )

    def _hide(self, url: str, headers: Mapping[str, str]) -> None:
        """Keep what the session is opened with out of texts; most sessions come to their end without one."""
        self._secrets = (url, headers)

    def scrub(self, text: str) -> str:
        """Return a text of the service without our secrets."""
        from voxengine.transport import outcomes

        return outcomes.Target(self.name, *self._secrets).scrub(text)
