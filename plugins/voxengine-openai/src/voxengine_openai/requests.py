"""Requests for responses: one outstanding at a time, and one for all the tool calls of a response."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import attrs

from voxengine.errors import UsageError

__all__ = ["ActiveResponse", "Request", "RequestQueue", "ToolRounds"]

_REMEMBERED: Final = 256
_DOUBT_S: Final = 5.0
"""How long after the service's own response that of a request may take to begin."""


@attrs.define(eq=False)
class Request:
    """A ``response.create`` that is to be sent."""

    trigger: str
    """What the response answers: ``text``, ``audio``, ``tool`` or ``say``."""
    params: dict[str, Any] | None = None
    """The ``response`` of the event; None for the session's own settings."""
    item: dict[str, Any] | None = None
    """What is to be answered, where it goes into the conversation with the request: each turn gets its own answer."""
    event_id: str = ""
    is_cancelled: bool = False
    """Whether it was interrupted before its response began."""


@attrs.define(eq=False)
class ActiveResponse:
    """The response of the conversation that is being made."""

    id: str
    request: Request | None
    """Ours, or None for one that the service began by itself."""
    is_owed: bool = False
    """Whether it is known to be the service's own, to a spoken turn."""
    is_ending: bool = False
    """Whether it was cancelled, here or by the user's voice, and its end has not come."""


class RequestQueue:
    """Sends ``response.create`` never while a response of the conversation is active. Loop thread only.

    Args:
        send: Sends the event of a request and returns its ``event_id``; never waits.
    """

    def __init__(self, send: Callable[[Request], str]) -> None:
        self._send = send
        self._waiting: deque[Request] = deque()
        self._sent: Request | None = None
        self._owed_until = 0.0
        self._owed_s = 0.0
        """How long one that is owed may take to begin behind the end of the active one; 0: none waits for that."""
        self._doubted_until = 0.0
        """From when on what was sent is taken for answered, though no response of its own came; 0: there is no doubt."""
        self.active: ActiveResponse | None = None

    @property
    def is_free(self) -> bool:
        """Whether nothing is active, sent, waiting or about to begin by itself."""
        return self.active is None and self._sent is None and not self._waiting and not self._is_owed

    @property
    def _is_owed(self) -> bool:
        return self._owed_until > 0.0 and asyncio.get_running_loop().time() < self._owed_until

    def owe(self, limit_s: float) -> None:
        """Note that the service is about to begin a response by itself: what is asked for meanwhile follows it.

        Args:
            limit_s: From when on, counted from the end of the active one, it is taken for one that does not come; whoever
                asks then calls :meth:`go_on`.
        """
        self._owed_until = asyncio.get_running_loop().time() + limit_s
        self._owed_s = limit_s if self.active is not None else 0.0

    @property
    def sent(self) -> Request | None:
        """The request that was sent and has neither begun nor been refused."""
        return self._sent

    def ask(
        self, trigger: str, params: dict[str, Any] | None = None, item: dict[str, Any] | None = None
    ) -> None:
        """Ask for a response, now or when the present one has ended; ``item`` goes with it.

        That to a tool's result comes before the texts that wait: it belongs to an earlier turn.
        """
        triggers = [held.trigger for held in self._waiting]
        at = triggers.index("text") if trigger == "tool" and "text" in triggers else len(triggers)
        self._waiting.insert(at, Request(trigger, params, item))
        self.go_on()

    def go_on(self) -> None:
        """Send the next request if nothing is in its way."""
        if self._sent is not None and 0.0 < self._doubted_until < asyncio.get_running_loop().time():
            self._sent = None
        if self.active is None and self._sent is None and self._waiting and not self._is_owed:
            # Taken from the queue first: sending may find the connection lost.
            request = self._sent = self._waiting.popleft()
            self._doubted_until = 0.0
            request.event_id = self._send(request)
            request.item = None  # Asked again, it is there already.

    def started(self, response_id: str) -> ActiveResponse:
        """Note that a response of the conversation began.

        Where the service owed one, it is that: what was sent in the same moment comes behind it.
        """
        if self._is_owed:
            self.active = ActiveResponse(response_id, None, is_owed=True)
        else:
            self.active = ActiveResponse(response_id, self._sent)
            self._sent = None
        self._owed_until = self._owed_s = 0.0
        return self.active

    def ended(self, response_id: str) -> float:
        """Note that a response ended; the next request goes out.

        Returns:
            The seconds after which to call :meth:`go_on`: the service is about to begin one by itself. 0: there is no need.
        """
        wait_s = 0.0
        if self.active is not None and self.active.id == response_id:
            self.active = None
            if self._sent is not None:
                self._doubted_until = asyncio.get_running_loop().time() + _DOUBT_S
            if self._owed_s:
                wait_s, self._owed_s = self._owed_s, 0.0
                self._owed_until = asyncio.get_running_loop().time() + wait_s
        self.go_on()
        return wait_s

    def refused(self, event_id: str, *, is_race: bool) -> bool:
        """Note that the service refused a request.

        Args:
            event_id: Of the event that it refused.
            is_race: Whether another response was active. The request then waits for that one's end.

        Returns:
            Whether the event was a request of ours that has to be sent again. When no response is known to
            be active, whoever asks has to call :meth:`go_on` later.
        """
        request = self._sent
        if request is None and self.active is not None:
            request = self.active.request  # The service's own response began before ours was refused.
        if request is None or request.event_id != event_id:
            return False
        if self._sent is request:
            self._sent = None
        elif self.active is not None:
            self.active.request = None
        if is_race and not request.is_cancelled:
            self._waiting.appendleft(request)
            return True
        if not is_race:
            self.go_on()
        return False

    def drop(self) -> list[dict[str, Any]]:
        """Forget what waits; what was sent and has not begun is cancelled when it begins.

        Returns the items that waited: they were said, and stay part of the conversation.
        """
        items = [request.item for request in self._waiting if request.item is not None]
        self._waiting.clear()
        # The request of the active response too: the service may turn out to have refused it for another one.
        for request in (self._sent, self.active.request if self.active is not None else None):
            if request is not None:
                request.is_cancelled = True
        return items


@attrs.define(eq=False)
class _Round:
    open_calls: set[str] = attrs.field(factory=set)
    is_complete: bool = False
    """Whether the response has ended, so that no further call joins."""


class ToolRounds:
    """Which calls of which response wait for their results. Results go back once; one request follows them all."""

    def __init__(self) -> None:
        self._rounds: dict[str, _Round] = {}
        self._open: dict[str, str] = {}
        self._sending: set[str] = set()
        self._answered: dict[str, None] = {}

    def call(self, response_id: str, call_id: str) -> bool:
        """Note a call; False when it is known."""
        if call_id in self._open or call_id in self._answered:
            return False
        self._open[call_id] = response_id
        self._rounds.setdefault(response_id, _Round()).open_calls.add(call_id)
        return True

    def take(self, call_id: str) -> None:
        """Claim the sending of a result.

        Raises:
            UsageError: No call waits for it.
        """
        if call_id in self._open and call_id not in self._sending:
            self._sending.add(call_id)
            return
        if call_id in self._open or call_id in self._answered:
            raise UsageError(f"The call {call_id!r} has its result already. Nothing was sent.")
        raise UsageError(f"The session made no call {call_id!r}; take call_id from FUNCTION_CALL_INVOKED.")

    def give_back(self, call_id: str) -> None:
        """Take a claim back: the result was not sent."""
        self._sending.discard(call_id)

    def answered(self, call_id: str) -> bool:
        """Note that a result was sent; return whether it was the last of a complete round."""
        held = self._open.pop(call_id)
        self._sending.discard(call_id)
        self._answered[call_id] = None
        while len(self._answered) > _REMEMBERED:
            del self._answered[next(iter(self._answered))]
        round_ = self._rounds[held]
        round_.open_calls.discard(call_id)
        return self._is_over(held)

    def response_ended(self, response_id: str) -> bool:
        """Note that a response ended; return whether all of its calls have their results."""
        round_ = self._rounds.get(response_id)
        if round_ is None:
            return False
        round_.is_complete = True
        return self._is_over(response_id)

    def _is_over(self, response_id: str) -> bool:
        round_ = self._rounds[response_id]
        if round_.open_calls or not round_.is_complete:
            return False
        del self._rounds[response_id]
        return True
