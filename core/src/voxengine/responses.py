"""Where a response begins and ends, said by the provider or inferred."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

import attrs

__all__ = ["GAP_S", "Response", "ResponseTracker"]

GAP_S: Final = 0.5
"""Without boundaries of the provider's own, this long without output ends a response."""

_REMEMBERED: Final = 64
"""Ended and refused responses that are remembered, so that late output of theirs is known."""
_LATE_S: Final = 5.0
"""How long after an interruption a response can begin that was asked for before it."""
_TRIGGERS: Final = ("text", "audio", "tool", "say", "server")


@attrs.frozen
class Request:
    """A response that was asked for and has not begun."""

    trigger: str
    covers: int | None = None
    """Journal index up to which the user's speech was asked to be answered by it; None: not known."""
    words: object = attrs.field(default=None, repr=False)
    """What is to be said word for word, for :mod:`voxengine.says`; None: it is an answer."""
    is_note: bool = False
    """Whether the engine told the provider to go on: a text to the provider, and no turn of the user."""
    text_id: str | None = None
    """The history item of the user's text that is to be answered."""


@attrs.define(eq=False)
class Response:
    """One answer of the agent."""

    id: str
    """Unique within the engine."""
    vendor_id: str | None
    """The provider's name for it; None when it gave none."""
    epoch: int
    trigger: str
    generation: int
    """Playback generation, fixed when the response starts."""
    is_inferred: bool
    covers: int | None = None
    """Journal index up to which the user's speech was asked to be answered by it; None: not known."""
    request: Request | None = None
    """What it was asked for by; None: it came by itself."""
    item_ids: dict[str | None, str] = attrs.field(factory=dict)
    """History item by the provider's item id."""
    has_output: bool = False
    is_answer: bool = False
    """Whether words or sound of it were kept."""
    is_refused: bool = False
    is_ended: bool = False

    @property
    def words(self) -> object:
        """What it was asked to say word for word; None: it is an answer."""
        return None if self.request is None else self.request.words

    @property
    def answers(self) -> str:
        """Its trigger; "" where it goes on from what was cut, and answers nothing that waits."""
        return "" if self.request is not None and self.request.is_note else self.trigger

    @property
    def text_id(self) -> str | None:
        """The history item of the user's text that it was asked to answer; None: it is not known."""
        return None if self.request is None else self.request.text_id


class ResponseTracker:
    """The responses of an engine. At most one per session is open; ended ones are remembered for a while.

    Args:
        loop: For the timer of inferred ends.
        new_id: Makes ids for responses that the provider does not name.
        ended: Called when the end of a response was inferred.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, new_id: Callable[[str], str], ended: Callable[[Response], None]
    ) -> None:
        self._loop = loop
        self._new_id = new_id
        self._ended = ended
        self._known: dict[tuple[int, str], Response] = {}
        self._ids: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.last_output = 0.0
        """Loop time of the latest output that came the long way."""
        self._refuse_new = False
        self._cut: Response | None = None
        """A refused response whose end the provider has not told yet: its output may come without an id."""
        self._requests: deque[Request] = deque()
        self._n_cut = 0
        """Requests that were interrupted before a response to them began, as far as none of them began since."""
        self._cut_at = 0.0
        self.current: Response | None = None
        """The open response of the session that owns the output."""
        self.trigger = "server"
        """What the next response will be an answer to, when nothing was asked for."""
        self.generation = 0
        self.n_inputs = 0
        """Inputs and interruptions so far."""
        self.on_request: Callable[[], object] | None = None
        """Told when an answer is asked for or begins."""
        self.asked_at: float | None = None
        """When an answer was asked for last; None since one has begun."""
        self.touched_at = 0.0
        """When there was input, or a response began."""

    # -- input ------------------------------------------------------------------------------------

    def input(
        self,
        trigger: str,
        *,
        is_request: bool,
        covers: int | None = None,
        words: object = None,
        is_note: bool = False,
        text_id: str | None = None,
    ) -> None:
        """Note user input (a turn or a speech start, never a chunk): the next output belongs to it.

        Args:
            trigger: What it is.
            is_request: A response was asked for, or is about to be.
            covers: Journal index up to which that one answers what was said.
            words: What is to be said word for word.
            is_note: The provider was told to go on.
            text_id: History item of the user's text.
        """
        self.trigger = trigger
        self._refuse_new = False
        self.n_inputs += 1
        self.touched_at = self._loop.time()
        # Calls made at the same time have one answer.
        if is_request and not (trigger == "tool" and self._is_asked("tool")):
            self._requests.append(Request(trigger, covers, words, is_note, text_id))
        if is_request:
            self.asked_at = self.touched_at
            if self.on_request is not None:
                self.on_request()
        if self.current is not None and self.current.is_inferred:
            self._end_inferred(self.current)

    def owe(self, trigger: str) -> None:
        """Note that a response comes before those that are asked for from now on, though none was asked for by name."""
        if not self._is_asked(trigger):
            self._requests.append(Request(trigger))

    def expect(self) -> None:
        """Note that a response is due though none was asked for by name: the vendor knows that the turn is over."""
        self.asked_at = self._loop.time()
        if self.on_request is not None:
            self.on_request()

    def request_failed(self) -> Request | None:
        """Take back the latest request, which came to nothing, and return it; None: there is none."""
        request = self._requests.pop() if self._requests else None
        if not self._requests:
            self.asked_at = None
        return request

    @property
    def awaiting(self) -> int:
        """Explicit requests for a response that none has started for yet."""
        return len(self._requests)

    @property
    def owes_tool(self) -> bool:
        """Whether the answer to a tool's result was asked for and has not begun to be heard."""
        current = self.current
        if current is not None and current.trigger == "tool" and not current.is_answer:
            return True
        return self._is_asked("tool")

    @property
    def owes_note(self) -> bool:
        """Whether the agent was asked to go on from what was cut, and nothing of that was kept."""
        current = self.current
        if current is not None and current.request is not None and current.request.is_note:
            return current.trigger == "server" and not current.is_answer
        return any(request.is_note and request.trigger == "server" for request in self._requests)

    def new_owner(self) -> None:
        """Forget what concerns the session that had the output: another one has it now."""
        self._requests.clear()
        self._refuse_new = False
        self._n_cut = 0
        self._cut = self.asked_at = None

    # -- boundaries given by the provider -----------------------------------------------------------

    def start(self, vendor_id: str | None, epoch: int, trigger: str | None) -> Response:
        """Open a response that the provider announced. It may be born refused (see ``is_refused``)."""
        response = self._open(vendor_id, epoch, trigger, is_inferred=False)
        response.is_refused = self._refuse_new
        self._cut = response if response.is_refused else None
        return response

    def find(self, vendor_id: str | None, epoch: int) -> Response | None:
        """Return the response that the provider means, open or remembered; the current one for None."""
        if vendor_id is None:
            current = self.current or self._cut
            return current if current is not None and current.epoch == epoch else None
        return self._known.get((epoch, vendor_id))

    def is_over_there(self, response: Response) -> bool:
        """Whether the provider itself has ended a response that was refused; only where it tells boundaries."""
        return self._cut is not response

    def told_end(self, response: Response) -> None:
        """Note that the provider itself ended a response."""
        if self._cut is response:
            self._cut = None

    def give_back(self, response: Response) -> bool:
        """Ask again for what a response was taken to answer, if it was to a request that had been interrupted.

        It began behind the interruption, when something else had been asked for, and the provider cancelled it before it
        said anything.
        """
        if response.request is None or not self._n_cut or self._loop.time() - self._cut_at > _LATE_S:
            return False
        self._n_cut -= 1
        self._requests.appendleft(response.request)
        response.request = None
        return True

    def open_of(self, epoch: int) -> list[Response]:
        """Return the responses of a session that have not ended, oldest first."""
        return [held for held in self._known.values() if held.epoch == epoch and not held.is_ended]

    def finish(self, response: Response) -> None:
        """Note the end of a response."""
        response.is_ended = True
        if response.has_output and not response.is_refused:
            self._n_cut = 0
        if self.current is response:
            self.current = None
            self._stop_timer()

    # -- output -----------------------------------------------------------------------------------

    def for_output(
        self, vendor_id: str | None, epoch: int, *, has_boundaries: bool
    ) -> tuple[Response | None, bool]:
        """Return the response that an output belongs to (None: refused) and whether it was opened just now."""
        now = self._loop.time()
        gap, self.last_output = now - self.last_output, now
        response = self.find(vendor_id, epoch)
        if response is not None and (response.is_refused or response.is_ended):
            if not response.is_inferred or response.is_refused:
                return None, False
            response = None
        if response is None:
            if self._refuse_new:
                if has_boundaries or gap < GAP_S:
                    return None, False
                self._refuse_new = False
            response = self._open(vendor_id, epoch, None, is_inferred=True)
            self._arm(response)
            return response, True
        if response.is_inferred and self._timer is None:
            self._arm(response)
        return response, False

    # -- interruption -----------------------------------------------------------------------------

    def refuse(self, *, has_boundaries: bool) -> Response | None:
        """Refuse the rest of the open response, and what a request still pending will bring.

        Without boundaries of the provider's own, everything is refused until the next input or a gap.
        Returns the response that was open, if any.
        """
        self.generation += 1
        response = self.current
        if response is not None:
            response.is_refused = True
            self.finish(response)
            self._cut = response if has_boundaries and not response.is_inferred else None
        if not has_boundaries or self.awaiting:
            self._refuse_new = True
            self.last_output = self._loop.time()
        if self._requests:
            self._n_cut, self._cut_at = len(self._requests), self._loop.time()
        self._requests.clear()
        self.asked_at = None
        self.n_inputs += 1
        return response

    def close(self) -> None:
        """Leave no timer behind."""
        self._stop_timer()

    # -- inside -----------------------------------------------------------------------------------

    def _is_asked(self, trigger: str) -> bool:
        return any(request.trigger == trigger for request in self._requests)

    def _take_request(self, trigger: str | None) -> Request | None:
        """Return what a response was asked for by, and take it from the requests; None: it comes by itself."""
        for at, request in enumerate(self._requests):
            if trigger == ("text" if request.is_note else request.trigger):
                del self._requests[at]
                return request
        if trigger == "audio":  # The vendor's own; what was asked for comes behind it.
            return None
        return self._requests.popleft() if self._requests else None

    def _open(self, vendor_id: str | None, epoch: int, trigger: str | None, *, is_inferred: bool) -> Response:
        response_id = vendor_id
        while response_id is None or response_id in self._ids:
            response_id = self._new_id("resp")
        request = self._take_request(trigger)
        ours = request or Request("audio" if trigger == "audio" else self.trigger)
        is_told = trigger in _TRIGGERS and not ours.is_note
        self.asked_at, self.touched_at = None, self._loop.time()
        response = Response(
            response_id,
            vendor_id,
            epoch,
            trigger if is_told and trigger is not None else ours.trigger,
            self.generation,
            is_inferred,
            ours.covers,
            request,
        )
        self._ids.add(response_id)
        key = (epoch, vendor_id if vendor_id is not None else f"\0{response_id}")
        replaced = self._known.pop(key, None)
        if replaced is not None:
            self._known[(epoch, f"\0{replaced.id}")] = replaced
        self._known[key] = response
        while len(self._known) > _REMEMBERED:
            oldest = next(iter(self._known))
            self._ids.discard(self._known.pop(oldest).id)
        self.current = response
        self.trigger = "server"
        if self.on_request is not None and not is_inferred:
            self.on_request()
        return response

    def _arm(self, response: Response) -> None:
        self._stop_timer()
        self._timer = self._loop.call_at(self.last_output + GAP_S, self._check_gap, response)

    def _check_gap(self, response: Response) -> None:
        self._timer = None
        if response.is_ended:
            return
        if self._loop.time() - self.last_output >= GAP_S - 1e-6:
            self._end_inferred(response)
        else:
            self._arm(response)

    def _end_inferred(self, response: Response) -> None:
        self.finish(response)
        self._ended(response)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
