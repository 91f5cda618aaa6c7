"""Tool calls of the agent: run once, answered once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from voxengine.activity import Activity
from voxengine.errors import VoxEngineError
from voxengine.events import EventType
from voxengine.history import History
from voxengine.responses import Response, ResponseTracker
from voxengine.session import Session
from voxengine.user_turns import Emit

if TYPE_CHECKING:
    from voxengine.tools import ToolRunner

__all__ = ["ToolCalls"]

_OWN_CALL: Final[ContextVar[tuple[object, str]]] = ContextVar("voxengine_tool_call", default=(None, ""))
"""Whose call the running code is part of, and its id."""
_OWN_CALL_S: Final = 2.0
"""How long what a tool started may wait for that tool to return."""


class ToolCalls:
    """Runs the tools that providers call and returns the results. Loop thread only.

    Args:
        runner: Gives what runs a function at most once per call id; asked when a call comes.
        history: Where calls and results are filed.
        responses: Told that a result asks for the next response.
        emit: Delivers events.
        activity: Starts tasks that the engine owns, and is told when a call has been settled.
        report: Emits an error that no caller waits for.
        new_id: Makes ids for calls whose own is another session's already.
    """

    def __init__(
        self,
        runner: Callable[[], ToolRunner],
        history: History,
        responses: ResponseTracker,
        emit: Emit,
        activity: Activity,
        report: Callable[[Session | None, Exception], None],
        new_id: Callable[[str], str],
    ) -> None:
        self._runner = runner
        self._history = history
        self._responses = responses
        self._emit = emit
        self._activity = activity
        self._report = report
        self._new_id = new_id
        self._seen: set[tuple[int, str]] = set()
        self._used: set[str] = set()
        self.owner: Session | None = None
        """The session whose calls are answered."""
        self._open: set[str] = set()
        self._unclaimed_at = -1

    def is_known(self, session: Session, call_id: str) -> bool:
        """Return whether the session made the call before."""
        return (session.epoch, call_id) in self._seen

    @property
    def n_open(self) -> int:
        """Calls whose result has not been handed over."""
        return len(self._open)

    async def own_is_settled(self) -> bool:
        """Wait a moment for the call within which this runs; return whether it was settled, or there is none."""
        owner, own = _OWN_CALL.get()
        if owner is not self or own not in self._open:
            return True
        return await self._activity.wait_while(lambda: own in self._open, _OWN_CALL_S)

    @property
    def is_own_open(self) -> bool:
        """Whether this runs within a call of a tool that has no result yet."""
        owner, own = _OWN_CALL.get()
        return owner is self and own in self._open

    @property
    def is_unclaimed(self) -> bool:
        """Whether a result came when its session was gone, and nothing was said or asked since."""
        return self._unclaimed_at == self._responses.n_inputs

    def unclaim(self) -> None:
        """Note that a result was given and its answer did not begin before the session ended."""
        self._unclaimed_at = self._responses.n_inputs

    def restore(self, used: Iterable[str], *, is_unclaimed: bool) -> None:
        """Go on where another engine was: these call ids are taken, and maybe a result was not made use of."""
        self._used.update(used)
        if is_unclaimed:
            self._unclaimed_at = self._responses.n_inputs

    def invoke(self, session: Session, response: Response | None, data: dict[str, Any]) -> None:
        """Take a FUNCTION_CALL_INVOKED of a provider."""
        theirs, name = str(data["call_id"]), str(data["name"])
        self._seen.add((session.epoch, theirs))
        call_id = theirs
        while call_id in self._used:  # Services count their calls anew in each session.
            call_id = self._new_id("call")
        self._used.add(call_id)
        arguments = data.get("arguments") or {}
        text = arguments if isinstance(arguments, str) else json.dumps(dict(arguments), default=str)
        data["arguments"] = _decoded(arguments)
        response_id = response.id if response is not None else ""
        self._history.add_tool_call(call_id, name, text, response_id=response_id, provider=session.name)
        data["call_id"] = call_id
        if response is not None:
            data["response_id"] = response.id
        self._emit(EventType.FUNCTION_CALL_INVOKED, data, session)
        self._open.add(call_id)
        self._activity.start(self._run(session, call_id, theirs, name, arguments), f"tool {name}")

    async def _run(self, session: Session, call_id: str, theirs: str, name: str, arguments: Any) -> None:
        _OWN_CALL.set(
            (self, call_id)
        )  # In the context of this task, which the tool's task or thread inherits.
        try:
            outcome = await self._runner().run(call_id, name, arguments)
            if any(call.call_id == call_id for call in self._history.open_calls()):
                self._history.add_tool_result(call_id, outcome.output, is_error=outcome.is_error)
            if self.owner is not session or not session.is_ready:
                self._unclaimed_at = self._responses.n_inputs
                return  # The session that asked is gone; the result goes over in the history.
            self._responses.input("tool", is_request=True)
            try:
                await session.call("send_tool_result", theirs, outcome.output, outcome.is_error)
            except VoxEngineError:
                self._responses.request_failed()
                raise
        except Exception as error:
            self._report(session, error)
        finally:
            self._open.discard(call_id)
            self._activity.touch()

    def runner_event(self, event_type: EventType, data: Mapping[str, Any]) -> None:
        """Take an event of the runner; the provider's own invocation event was passed on already."""
        if event_type is not EventType.FUNCTION_CALL_INVOKED:
            self._emit(event_type, dict(data))


def _decoded(arguments: str | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(arguments, str):
        try:
            value = json.loads(arguments)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}
    return arguments
