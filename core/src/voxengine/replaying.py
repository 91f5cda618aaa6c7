"""Running a recorded conversation again: the same engine, everything from outside out of the recording.

The clock is virtual and moves from one line of the recording to the next, so hours pass in seconds, and the events
are the same but for their times. Where they are not, the engine has changed, or the recording is not whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from voxengine import replaying_parts as parts
from voxengine.audio.playback import ExternalClock
from voxengine.errors import ProviderNotFound, UsageError
from voxengine.events import EventType
from voxengine.inputs import encoded
from voxengine.recording import STEPS, put_before
from voxengine.recording_file import Tape, read_recording
from voxengine.recording_shown import OUTSIDE, show_arguments, show_event
from voxengine.recording_values import Plain, from_plain
from voxengine.replaying_parts import DrivenRegistry, Replay, ReplayLoop, TapeClock
from voxengine.replaying_score import Score, is_compared
from voxengine.threads import is_in_loop

__all__ = ["Replay", "ReplayLoop", "Replayer", "replay"]

_LATE_S: Final = 1.0
"""How much later than recorded something may come before it counts as missing."""
_END_S: Final = 15.0
_APART_S: Final = 0.001
"""Between two lines so far apart everything came to rest."""
_APART_TURNS: Final = 6
_MOST_DIFFERENCES: Final = 20


def replay(recording: str | os.PathLike[str] | Tape) -> Replay:
    """Run a recording again, on an event loop of its own; in a coroutine, ``await asyncio.to_thread(replay, …)``.

    Raises:
        ConfigError: The file is no recording, or lines of it were dropped, so that it cannot be run again.
        UsageError: An event loop runs in this thread.
    """
    if is_in_loop():
        raise UsageError("replay() runs a loop: in a coroutine, await asyncio.to_thread(replay, path).")
    replayer = Replayer(recording if isinstance(recording, Tape) else read_recording(recording))
    with asyncio.Runner(loop_factory=ReplayLoop) as runner:
        return runner.run(replayer.run())


class Replayer:
    """Runs one recording.

    Raises:
        ConfigError: The recording has gaps, or lines of it are damaged.
    """

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.plain = Plain(audio=tape.has_audio, transcripts=tape.has_transcripts)
        self.is_over = False
        self._score = Score(tape)
        self._position = 0
        self._n_outputs = 0
        self._waiter: tuple[int, asyncio.Future[bool]] | None = None
        self._is_out_of_step = False
        self._latest: Mapping[str, Any] = {"t": 0.0}
        """The line that was applied last."""
        self._turn = 0
        """The turn of the recorded loop that has been reached."""
        self._differences: list[str] = []
        self._events: list[dict[str, Any]] = []
        self._known: dict[tuple[str, str | None], Any] = {}
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._early: dict[int, dict[str, Any]] = {}
        self._tools: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._calls: dict[int, asyncio.Task[Any]] = {}
        self._progress: asyncio.Future[None] | None = None
        self._one_turn = contextlib.ExitStack()
        self._registry = DrivenRegistry(self)
        self._engine: Any = None

    # -- the run ----------------------------------------------------------------------------------

    async def run(self) -> Replay:
        """Run the recording; on a :class:`ReplayLoop`."""
        engine = self._engine = parts.make_engine(self.tape, self._registry)
        self._install(engine)
        try:
            await self._go_through()
            end = self._score.time(-1)
            await self._wait_for(self._score.n_all, end + _END_S, "at the end")
            n_events = len(self._events)
        finally:
            await self._shut(engine)
        if not self._score.was_ended:
            del self._events[n_events:]  # The recording ends in the middle, and so does what is compared.
        self._differences += parts.first_difference(self._score, self._events)
        return Replay(self.tape, tuple(self._events), tuple(self._differences[:_MOST_DIFFERENCES]))

    async def _go_through(self) -> None:
        while self._position < len(self._score.inputs):
            index = self._score.inputs[self._position]
            at = self._score.time(index)
            await self._wait_for(self._score.n_before[index], at + _LATE_S, f"before {at:.3f} s")
            if at - asyncio.get_running_loop().time() > _APART_S:
                await asyncio.sleep(1e-7)  # What came out meanwhile has its consequences before time passes.
            if self._is_next(index):
                self._put_in(index)
                await self._settle()

    def _is_next(self, index: int) -> bool:
        """Whether a line is still the next one; it may have come up within something else meanwhile."""
        return self._position < len(self._score.inputs) and self._score.inputs[self._position] == index

    def _put_in(self, index: int) -> None:
        """Apply the next line at its time."""
        loop = asyncio.get_running_loop()
        if isinstance(loop, ReplayLoop):
            loop.jump(self._score.time(index))
        self._apply(self._take_next())

    def _take_next(self) -> Mapping[str, Any]:
        """Go on to the next line, and return it."""
        index = self._score.inputs[self._position]
        self._position += 1
        line = self._latest = self._score.lines[index]
        self._turn = line["l"]
        self._hurry()
        if self._progress is not None and not self._progress.done():
            self._progress.set_result(None)
        return line

    def _hurry(self) -> None:
        """Have the line that follows applied before what this one causes, where it came before that."""
        if self._position < len(self._score.inputs):
            index = self._score.inputs[self._position]
            if self._score.lines[index]["l"] == self._turn + 1 and self._score.is_early(index):
                asyncio.get_running_loop().call_soon(self._put_in_early, index)

    def _put_in_early(self, index: int) -> None:
        if self._is_next(index) and self._n_outputs >= self._score.n_before[index]:
            self._put_in(index)

    async def _settle(self) -> None:
        """Let follow what followed before the next line."""
        while self._position < len(self._score.inputs):
            following = self._score.lines[self._score.inputs[self._position]]
            is_apart = following["t"] - self._latest["t"] > _APART_S
            if is_apart or following["l"] - self._turn > _APART_TURNS:
                await asyncio.sleep(1e-7)
                return
            if following["l"] <= self._turn:
                return
            await asyncio.sleep(0)
            self._turn += 1

    async def _wait_for(self, n_outputs: int, limit: float, when: str) -> None:
        """Let time pass until so much came out of the engine as the recording has by then."""
        if self._n_outputs >= n_outputs or self._is_out_of_step:
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        self._waiter = (n_outputs, future)
        # Awaited by itself, so that the next line is applied in the turn of the loop that follows.
        timer = loop.call_at(limit, parts.give_up, future)
        try:
            is_there = await future
        finally:
            timer.cancel()
            self._waiter = None
        if not is_there:
            self._is_out_of_step = True
            missing = n_outputs - self._n_outputs
            self.differs(f"{missing} of the events and calls that the recording has {when} did not come.")

    async def _shut(self, engine: Any) -> None:
        ending = [task for n, task in self._calls.items() if n in self._score.returns]
        if ending:
            await asyncio.wait(ending, timeout=_END_S)
        self.is_over = True
        if self._progress is not None and not self._progress.done():
            self._progress.set_result(None)
        for waiting in (*self._pending.values(), *self._tools.values(), *self._calls.values()):
            waiting.cancel()
        await engine.disconnect()
        if self._calls:
            await asyncio.wait(self._calls.values(), timeout=_END_S)

    # -- the engine -------------------------------------------------------------------------------

    def _install(self, engine: Any) -> None:
        parts.add_tools(engine, next((line["tools"] for line in self.tape.of("call") if "tools" in line), []))
        put_before(engine.events, "post", self._posted)
        engine.events.on("*", self._dispatched, priority=-1_000_000)
        put_before(engine, "_begin", self._began)
        put_before(engine._tools, "run", lambda _: self._run_tool)
        put_before(engine._tools, "close", lambda _: self._close_tools)

    def _began(self, begin: Callable[..., Any]) -> Callable[..., Any]:
        def began() -> None:
            is_new = self._engine._conversation_ is None
            begin()
            if not is_new:
                return
            conversation = self._engine._conversation
            for name, (find, is_after) in STEPS.items():
                put_before(
                    find(self._engine), name, functools.partial(self._stepped, name, is_after=is_after)
                )
            put_before(conversation.agent, "open_clock", self._clock_opened)
            if conversation.clock is not None:
                self._put_clock()
            put_before(self._engine._recovery.failover.jitter, "random", lambda _: self._score.draw)
            if self.tape.header.get("filters_output"):
                conversation.agent.is_filtered = True
                put_before(self._engine._taps, "filter_output", lambda _: self._score.filtered)

        return began

    def _stepped(self, name: str, call: Callable[..., Any], *, is_after: bool) -> Callable[..., Any]:
        async def stepped(*args: Any, **kwargs: Any) -> Any:
            if not is_after:
                await self._hold(name)
            result = await call(*args, **kwargs)
            if is_after:
                await self._hold(name)
            return result

        return stepped

    async def _hold(self, name: str) -> None:
        """Wait where the engine is ahead of the recording."""
        waiting = self._score.steps.get(name)
        if not waiting or self.is_over:
            return
        index = waiting.popleft()
        while (
            self._position < len(self._score.inputs)
            and self._score.inputs[self._position] < index
            and not self.is_over
        ):
            await self._next_input()
        self.came_out()

    def _clock_opened(self, open_clock: Callable[..., Any]) -> Callable[..., Any]:
        def opened(*args: Any) -> None:
            open_clock(*args)
            self._put_clock()

        return opened

    def _put_clock(self) -> None:
        agent = self._engine._conversation.agent
        if not isinstance(agent.clock, ExternalClock):
            agent.clock = TapeClock(self)

    # -- what comes out ---------------------------------------------------------------------------

    def _posted(self, post: Callable[..., Any]) -> Callable[..., Any]:
        def posted(raw: Any) -> None:
            event_type, data, at, provider, epoch = raw
            if event_type is not EventType.AUDIO_INPUT_CHUNK and event_type not in OUTSIDE:
                line = {
                    "t": at,
                    "type": str(event_type),
                    "provider": provider,
                    "epoch": epoch,
                    "data": show_event(self.plain, event_type, data),
                }
                if is_compared(line):
                    self._events.append(line)
                    self.came_out()
            post(raw)

        return posted

    def came_out(self) -> None:
        """Note an event, a call of the provider or a new one."""
        self._n_outputs += 1
        if self._waiter is not None and self._n_outputs >= self._waiter[0] and not self._waiter[1].done():
            self._waiter[1].set_result(True)

    def _dispatched(self, _: object) -> None:
        """Call the engine from within an event's delivery where a handler did so."""
        self._apply_inner(lambda line: line["k"] == "call" and bool(line.get("in")))

    def differs(self, sentence: str) -> None:
        """Note what is not as recorded."""
        self._differences.append(sentence)

    # -- what goes in -----------------------------------------------------------------------------

    def _apply_inner(self, is_meant: Callable[[Mapping[str, Any]], bool]) -> None:
        """Apply the next lines where they came up within what the engine does at this moment."""
        while self._position < len(self._score.inputs):
            index = self._score.inputs[self._position]
            line = self._score.lines[index]
            if not is_meant(line) or self._n_outputs < self._score.n_before[index]:
                return
            self._apply(self._take_next())

    def _apply(self, line: Mapping[str, Any]) -> None:
        try:
            self._put(line)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self.differs(f"The line {line['k']!r} at {line['t']:.3f} s is damaged ({type(error).__name__}).")

    def _put(self, line: Mapping[str, Any]) -> None:
        kind = line["k"]
        if kind == "call":
            self._call(line)
        elif kind == "return" or line.get("n") in self._score.cancelling:
            task = self._calls.get(self._score.cancelling.get(line["n"], line["n"]))
            if task is not None:
                task.cancel()
        elif kind == "input":
            self._accept(from_plain(line["audio"]))
        elif kind == "reply":
            self._reply(line)
        elif kind == "said":
            self._say(line)
        elif kind == "lost":
            provider = self._registry.made.get(line["session"])
            if provider is not None:
                provider.lose()
        elif kind == "told":
            self._engine._tools._on_event(EventType(line["type"]), from_plain(line["data"]))
        elif kind == "one_turn":
            self._mark_turn(is_begin=line["is_begin"])
        elif kind == "tool":
            self._tool(line["call_id"]).set_result(dict(line))
        elif self._engine._conversation_ is not None:
            agent = self._engine._conversation.agent
            if line["what"] == "started":
                agent.playback_started(line["item"])
            else:
                agent.playback_stopped(line["item"], line["played_ms"])

    def _mark_turn(self, *, is_begin: bool) -> None:
        """Begin or end a stretch of audio in which no pause ends the turn."""
        if is_begin:
            self._one_turn.enter_context(self._engine._turns.one_turn())
        else:
            self._one_turn.close()

    def _call(self, line: Mapping[str, Any]) -> None:
        """Call the engine in a task, as the application did, or here within an event's delivery."""
        call, is_async = self._bound(line)
        if is_async or not line.get("in"):
            work = self._run_calls(line["n"], call, is_async=is_async)
            task = self._calls[line["n"]] = parts.start_now(work)
            if self._score.was_cancelled_at_once(line):
                task.cancel()
        else:
            self._call_now(line["n"], call)

    def _bound(self, line: Mapping[str, Any]) -> tuple[Callable[[], Any], bool]:
        owner, _, name = line["method"].rpartition(".")
        method = getattr(self._engine.history if owner else self._engine, name)
        values = {name: from_plain(value) for name, value in line["args"].items()}
        if name == "switch_provider":
            values["config"] = self._score.target(line) or values.get("config")
        bound = inspect.signature(method).bind_partial()
        bound.arguments.update(values)
        return functools.partial(method, *bound.args, **bound.kwargs), inspect.iscoroutinefunction(method)

    async def _run_calls(self, n: int, call: Callable[[], Any], *, is_async: bool) -> None:
        """Make a call, and those that followed at once: nothing else may come between them."""
        while True:
            if is_async:
                # The application was told of a failure; what the engine says of it is an event.
                with contextlib.suppress(Exception):
                    await call()
                self.came_out()
            else:
                self._call_now(n, call)
            following = self._following_call(n)
            if following is None:
                return
            self._take_next()
            n = following["n"]
            call, is_async = self._bound(following)

    def _following_call(self, n: int) -> Mapping[str, Any] | None:
        """Return the call that the application made next without waiting; audio before it is accepted."""
        if n not in self._score.returns:
            return None
        returned_at = self._score.returns[n]
        while self._position < len(self._score.inputs):
            index = self._score.inputs[self._position]
            line = self._score.lines[index]
            is_at_once = line["i"] == self._score.lines[returned_at]["i"] and returned_at < index
            if (
                not is_at_once
                or line["k"] not in ("call", "input")
                or self._n_outputs < self._score.n_before[index]
            ):
                return None
            if line["k"] == "call":
                return line
            self._apply(self._take_next())
        return None

    def _call_now(self, n: int, call: Callable[[], Any]) -> None:
        try:
            call()
        except Exception as error:
            self._check_failure(n, error)
        self.came_out()

    def _check_failure(self, n: int, error: Exception) -> None:
        if n not in self._score.returns or "error" not in self._score.lines[self._score.returns[n]]:
            self.differs(f"A call that had worked raised {type(error).__name__}.")

    def _accept(self, audio: bytes) -> None:
        journal = self._engine._conversation.user.journal
        work = self._engine.send_audio(encoded(audio, journal.accepts))
        try:
            work.send(None)
        except StopIteration:
            return
        except Exception as error:
            self.differs(f"Audio that had been accepted was refused with {type(error).__name__}.")
            return
        work.close()  # It is accepted; only its caller would wait for a slow service.

    def _say(self, line: Mapping[str, Any]) -> None:
        provider = self._registry.made.get(line["session"])
        if provider is None:
            self.differs(f"The provider of session {line['session']} was not made.")
            return
        if "session_id" in line:
            provider.session_id = line["session_id"]
        provider.say(EventType(line["type"]), from_plain(line["data"]))

    # -- the provider's and the tools' side ---------------------------------------------------------

    async def asked(self, session: int, hook: str, args: Mapping[str, Any]) -> Any:
        """Take a call of the contract and return, or raise, what the recording has."""
        index = self._take_ask(session, hook, args)
        if index is None:
            return await self._unknown(session, hook)
        ask = self._score.lines[index]
        reply_at = self._score.replies.get(ask["n"])
        if reply_at is None:
            return await asyncio.get_running_loop().create_future()
        reply = self._score.lines[reply_at]
        if reply["i"] == ask["i"] and self._is_within(index, reply_at):
            while self._score.inputs[self._position] < reply_at:  # What it said before it returned.
                self._apply(self._take_next())
            if self._score.inputs[self._position] == reply_at:
                self._take_next()
            return self._outcome(session, reply)
        held = self._early.pop(ask["n"], None)
        if held is None:
            future = self._pending[ask["n"]] = asyncio.get_running_loop().create_future()
            held = await future
        return self._outcome(session, held)

    async def _unknown(self, session: int, hook: str) -> None:
        """Wait for what ended the session before it was called there, if that is what the recording has."""
        while self._position < len(self._score.inputs) and not self.is_over:
            await self._next_input()
        if not self.is_over:
            self.differs(f"The engine called {hook}() of session {session}, which the recording has not.")

    async def _next_input(self) -> None:
        if self._progress is None or self._progress.done():
            self._progress = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._progress)

    def _is_within(self, ask_at: int, reply_at: int) -> bool:
        """Whether the next line lies between a call and its return."""
        if self._position >= len(self._score.inputs):
            return False
        return ask_at < self._score.inputs[self._position] <= reply_at

    def asked_quickly(self, session: int, hook: str, args: Mapping[str, Any]) -> bool:
        """Take a call that may not wait; False where it was made the long way."""
        waiting = self._score.asks.get((session, hook))
        if self.is_over or not waiting or not self._score.lines[waiting[0]].get("quick"):
            return False
        self._take_ask(session, hook, args)
        return True

    def _take_ask(self, session: int, hook: str, args: Mapping[str, Any]) -> int | None:
        waiting = self._score.asks.get((session, hook))
        if self.is_over or not waiting:
            return None
        self.came_out()
        shown, first = show_arguments(self.plain, args), waiting[0]
        for index in waiting:
            # Calls of one moment by different tasks have no order, but audio has.
            if index != first and (
                hook == "send_audio" or self._score.time(index) != self._score.time(first)
            ):
                break
            if parts.is_same_json(shown, self._score.lines[index]["args"]):
                waiting.remove(index)
                return index
        self.differs(f"{hook}() at {self._score.time(first):.3f} s was called with other arguments.")
        return waiting.popleft()

    def _reply(self, line: Mapping[str, Any]) -> None:
        future = self._pending.pop(line["n"], None)
        if future is None:
            self._early[line["n"]] = dict(line)
        elif not future.done():
            future.set_result(dict(line))

    def _outcome(self, session: int, reply: Mapping[str, Any]) -> Any:
        provider = self._registry.made.get(session)
        if provider is not None and "session_id" in reply:
            provider.session_id = reply["session_id"]
        if "error" in reply:
            error = from_plain(reply["error"])
            raise error if isinstance(error, BaseException) else RuntimeError("unknown")
        return from_plain(reply.get("result"))

    def _tool(self, call_id: str) -> asyncio.Future[dict[str, Any]]:
        if call_id not in self._tools:
            self._tools[call_id] = asyncio.get_running_loop().create_future()
        return self._tools[call_id]

    async def _run_tool(self, call_id: str, name: str, arguments: Any = None) -> Any:
        from voxengine.tools import ToolOutcome

        line = await asyncio.shield(self._tool(call_id))
        return ToolOutcome(call_id, line["output"], line["is_error"])

    async def _close_tools(self) -> None:
        waiting = [future for future in self._tools.values() if not future.done()]
        if waiting and not self.is_over:
            await asyncio.wait(waiting)

    # -- playback and sessions ------------------------------------------------------------------------

    def heard(self, of: str, item: str | None, default: Any) -> Any:
        """Return what the playback clock answered at this point."""
        key = (of, item)
        waiting = self._score.answers.get(key)
        start = self._score.inputs[self._position - 1] if self._position else -1
        while waiting and waiting[0] < start:
            self._known[key] = self._score.lines[waiting.popleft()]["value"]
        if waiting and self._is_told_first(waiting[0]):
            self.played_meanwhile()
        end = (
            self._score.inputs[self._position]
            if self._position < len(self._score.inputs)
            else len(self._score.lines)
        )
        if waiting and waiting[0] < end:
            self._known[key] = self._score.lines[waiting.popleft()]["value"]
        elif waiting and key not in self._known:
            return self._score.lines[waiting[0]]["value"]
        return self._known.get(key, default)

    def _is_told_first(self, answer_at: int) -> bool:
        """Whether the clock told of a beginning or an end while it found the answer."""
        if self._position >= len(self._score.inputs):
            return False
        index = self._score.inputs[self._position]
        line = self._score.lines[index]
        return index < answer_at and line["k"] == "played" and bool(line.get("in"))

    def played_meanwhile(self, item: str | None = None) -> None:
        """Tell of beginnings and ends that the clock told of while it was being called."""
        self._apply_inner(
            lambda line: (
                line["k"] == "played"
                and (bool(line.get("in")) or (item == line["item"] and line["what"] == "started"))
            )
        )

    def next_session(self, name: str) -> Mapping[str, Any]:
        """Return the line of the provider that is to be made next.

        Raises:
            ProviderNotFound: The recording has none.
        """
        line = self.following_session(name)
        if line is None:
            raise ProviderNotFound(f"The recording has no further session of {name!r}.", provider=name)
        return line

    def following_session(self, name: str) -> Mapping[str, Any] | None:
        """Return the line of the provider that is to be made next; None when the recording has none."""
        for line in self.tape.of("session"):
            if line["session"] not in self._registry.taken and line["provider"] == name:
                return line
        return None
