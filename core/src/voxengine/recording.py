"""Recording a conversation: everything that comes from outside, with its time, in one file.

That is what the application calls, accepted audio, what the provider and tools say, how much was played, and chance.
All else follows, so :func:`voxengine.replaying.replay` can run it again and compare the events, which are in the file
too. The recorder stands in front of one engine's parts; an engine that is not recorded knows nothing of it. Lines:

=============  ======================================================================================
``call``       a method of the engine (or of its history) was called: ``n``, ``method``, ``args``
``return``     it ended: ``n``, maybe ``error``
``input``      user audio was accepted: ``audio``
``one_turn``   audio that is one turn whatever its pauses begins, or ends: ``is_begin``
``session``    a provider was made: ``session`` (its number), ``provider``, what it declares
``ask``        the engine called a hook of the provider: ``n``, ``session``, ``hook``, ``args``
``reply``      the hook ended: ``n``, ``result`` or ``error``
``said``       the provider emitted an event: ``session``, ``type``, ``data``
``lost``       the provider's connection is gone, without an event
``wire``       a message of the provider's connection: ``session``, ``direction``, ``data``
``told``       a tool emitted an event: ``type``, ``data``
``tool``       a tool's call ended: ``call_id``, ``output``, ``is_error``
``played``     something began or ceased to be audible: ``what``, ``item``, ``played_ms``
``heard``      the engine asked its playback clock: ``of``, ``item``, ``value``
``filtered``   a tap changed the agent's audio: ``audio``
``chance``     a random number was drawn: ``value``
``formats``    what the application sends and gets: ``input``, ``output``
``opened``     the engine opens a session: ``config``
``step``       the engine came so far with something that shows in no event: ``what``
``event``      the engine emitted an event: ``type``, ``provider``, ``epoch``, ``data``
``gap``        lines were dropped: ``n_lines``
``end``        the recording ended in order
=============  ======================================================================================

``i`` counts the steps of the event loop (what ran without a pause) and ``l`` its turns. ``in`` is true where a line
came up within the one before: a handler that called the engine, a clock that told of a beginning.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import inspect
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import voxengine
from voxengine._config_json import all_secrets, format_to_json
from voxengine.audio.format import AudioFormat
from voxengine.audio.playback import ExternalClock
from voxengine.config import VoiceEngineConfig
from voxengine.events import EventType, LazyAudio
from voxengine.journal import Journal
from voxengine.providers.base import BaseProvider
from voxengine.recording_clock import watched_clock
from voxengine.recording_file import RecordingWriter
from voxengine.recording_pace import Pace
from voxengine.recording_provider import RecordingRegistry
from voxengine.recording_shown import is_outside, show_arguments, show_config, show_event
from voxengine.recording_values import Plain
from voxengine.scrubbing import environment_secrets, secret_values
from voxengine.threads import in_thread

if TYPE_CHECKING:
    from voxengine.keeping import Keeping

__all__ = ["CALLS", "HISTORY_CALLS", "STEPS", "Recorder", "Recording", "begin_recording", "put_before"]

CALLS: Final = (
    "connect",
    "disconnect",
    "send_text",
    "say",
    "end_turn",
    "interrupt",
    "mark_played",
    "playback_cleared",
    "configure_session",
    "switch_provider",
    "get_usage",
    "estimate_cost",
)
"""Methods of the engine that are recorded. Audio is recorded where it is accepted."""
HISTORY_CALLS: Final = ("append", "edit", "delete")
STEPS: Final[dict[str, tuple[Callable[[Any], Any], bool]]] = {
    "_close": (lambda engine: engine, False),
    "take_over": (lambda engine: engine._continuity, False),
    "_attempt": (lambda engine: engine._recovery, False),
    "_flush_input": (lambda engine: engine._turns, True),
}
"""Coroutine methods whose beginning (or end, where that is True) is noted: where they stand decides what becomes of
what comes in at the same time. Each with where it is found."""


class Recording:
    """A recording under way; made by ``engine.record``. It ends with the engine's ``disconnect``, or by :meth:`close`."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    @property
    def path(self) -> str:
        """The file."""
        return str(self._recorder.writer.path)

    @property
    def n_dropped(self) -> int:
        """Lines that were not written, because the disk was too slow or full; then it cannot be run again."""
        return self._recorder.writer.n_dropped

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""
        return self._recorder.is_closed

    def close(self) -> None:
        """End it and wait for the disk. Twice is allowed."""
        self._recorder.close()


def begin_recording(
    engine: Keeping, path: str | os.PathLike[str], *, audio: bool, transcripts: bool, wire: bool
) -> Recording:
    """Record an engine that is not connected; see ``VoiceEngine.record``."""
    plain = Plain(audio=audio, transcripts=transcripts)
    config = engine._config
    is_new = engine._kept is None
    snapshot = None if is_new and not len(engine.history) else engine.snapshot()
    header = {
        "voxengine": voxengine.__version__,
        "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "audio": audio,
        "transcripts": transcripts,
        "wire": wire and audio and transcripts,
        "config": show_config(plain, config),
        "snapshot": plain.value(_without_audio(snapshot) if snapshot and not audio else snapshot),
        "is_new": is_new,
        "taps": list(engine._taps.names),
        "filters_output": engine._taps.has("on_output"),
    }
    recorder = Recorder(engine, plain, keeps_wire=bool(header["wire"]))
    recorder.writer = RecordingWriter(
        path, header, [*all_secrets(config), *environment_secrets()], recorder.failed
    )
    recorder.install()
    return Recording(recorder)


def _without_audio(snapshot: dict[str, Any]) -> dict[str, Any]:
    items = [
        {name: value for name, value in item.items() if name not in ("audio", "audio_format")}
        for item in snapshot["history"]["items"]
    ]
    spoken = snapshot["input"]
    if spoken is not None:
        # What is given again to a session begins where somebody began to speak.
        journal = Journal(AudioFormat(**spoken["input_format"]), limit_s=0.0)
        journal.begin_at(0, base64.b64decode(spoken["audio"]["base64"]))
        spoken = {**spoken, "audio": {"base64": base64.b64encode(journal.stand_in()).decode("ascii")}}
    return {**snapshot, "history": {**snapshot["history"], "items": items}, "input": spoken}


def put_before(owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put a function in front of a method of one object; ``make`` gets the method and returns the function."""
    vars(owner)[name] = make(getattr(owner, name))


class Recorder:
    """Stands in front of the parts of an engine and writes down what passes. Loop thread only."""

    writer: RecordingWriter

    def __init__(self, engine: Keeping, plain: Plain, *, keeps_wire: bool) -> None:
        self._engine: Any = engine
        self._plain = plain
        self.keeps_wire = keeps_wire
        self.is_closed = False
        self._started_at: float | None = None
        self._n = 0
        self._busy: set[asyncio.Task[Any] | None] = set()
        """Tasks that are in a recorded call."""
        self._n_sessions = 0
        self._session_ids: dict[int, str | None] = {}
        self._pace = Pace()
        self._clock_depth = 0
        self.is_saying = False
        """Whether an event of a provider is being taken."""

    # -- writing ----------------------------------------------------------------------------------

    def write(self, kind: str, n_bytes: int = 0, /, **fields: Any) -> None:
        """Write a line with the time of now."""
        if self.is_closed:
            return
        loop = self._engine._loop
        now = 0.0
        if loop is not None:
            now = loop.time()
            if self._started_at is None:
                self._started_at = now
            now -= self._started_at
            if self._engine._thread_id in (None, threading.get_ident()):
                self._pace.note(loop)
        line = {"k": kind, "t": round(now, 6), "i": self._pace.step, "l": self._pace.turn, **fields}
        self.writer.put(line, n_bytes)

    def failed(self, error: OSError) -> None:
        """Learn, in the writer's thread, that the file cannot be written."""
        loop = self._engine._loop
        message = (
            f"The recording {self.writer.path.name!r} ended: it cannot be written ({error.strerror}). "
            "The conversation goes on without it."
        )
        data = {"code": "recording_failed", "message": message}
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._engine._emit, EventType.WARNING, data)

    def close(self) -> None:
        """End the recording."""
        if not self.is_closed:
            self.write("end")
            self.is_closed = True
            self._pace.stop()
        self.writer.close()

    # -- in front of the engine -------------------------------------------------------------------

    def install(self) -> None:
        """Stand in front of everything that is there before ``connect``."""
        engine = self._engine
        for method in CALLS:
            put_before(engine, method, functools.partial(self._called, method))
        for method in HISTORY_CALLS:
            put_before(engine.history, method, functools.partial(self._called, f"history.{method}"))
        put_before(engine.events, "post", self._posted)
        put_before(engine, "_begin", self._began)
        engine._registry = RecordingRegistry(engine._registry, self)
        runner = engine._tools
        put_before(runner, "run", self._ran)
        put_before(runner, "_on_event", self._tool_told)
        if engine._taps.has("on_output"):
            put_before(engine._taps, "filter_output", self._filtered)

    def _began(self, begin: Callable[..., Any]) -> Callable[..., Any]:
        def began() -> None:
            is_new = self._engine._conversation_ is None
            begin()
            if is_new:
                self._stand_before(self._engine)

        return began

    def _stand_before(self, engine: Any) -> None:
        conversation = engine._conversation
        put_before(conversation.user, "open_journal", self._journal_opened)
        put_before(conversation.agent, "open_clock", self._clock_opened)
        if conversation.user.journal is not None:  # The conversation goes on from a snapshot.
            self._watch_journal()
            self._watch_clock()
        for name, (find, is_after) in STEPS.items():
            put_before(find(engine), name, functools.partial(self._stepped, name, is_after=is_after))
        put_before(engine._turns, "one_turn", self._one_turn)
        put_before(engine._continuity, "open", self._opened)
        put_before(engine._recovery.failover.jitter, "random", self._drawn)

    def _called(self, method: str, call: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(call)
        is_async = inspect.iscoroutinefunction(call)

        def begin(args: Any, kwargs: Any) -> int:
            bound = signature.bind(*args, **kwargs)  # A wrong call raises here as it would there.
            self._n += 1
            values = self._given(method, bound.arguments)
            extra: dict[str, Any] = {"in": True} if self._engine.events._dispatching else {}
            if method == "connect":
                self._note_loop()
                extra["tools"] = self._engine._tool_specs()
            self.write("call", n=self._n, method=method, args=values, **extra)
            return self._n

        def end(n: int, error: BaseException | None) -> None:
            self.write("return", n=n, **self._ended_by(error))

        def is_inner() -> bool:
            engine = self._engine
            if is_async:  # What a call calls of others, in the same task, is part of it.
                return asyncio.current_task() in self._busy and not engine.events._dispatching
            # The engine itself takes an item back while nobody is told.
            is_ours = method == "history.delete" and engine._conversation_ is not None
            return is_ours and engine.history.on_change is None

        async def called_async(*args: Any, **kwargs: Any) -> Any:
            if is_inner():
                return await call(*args, **kwargs)
            n = begin(args, kwargs)
            task = asyncio.current_task()
            self._busy.add(task)
            error: BaseException | None = None
            try:
                return await call(*args, **kwargs)
            except BaseException as raised:
                error = raised
                raise
            finally:
                self._busy.discard(task)
                end(n, error)
                if method == "disconnect" and error is None:
                    await in_thread(self.close)

        def called(*args: Any, **kwargs: Any) -> Any:
            if is_inner():
                return call(*args, **kwargs)
            n = begin(args, kwargs)
            try:
                result = call(*args, **kwargs)
            except Exception as error:
                end(n, error)
                raise
            end(n, None)
            return result

        return called_async if is_async else called

    def _ended_by(self, error: BaseException | None) -> dict[str, Any]:
        """Return what the end of a call shows of an exception."""
        fields: dict[str, Any] = {} if error is None else {"error": self._plain.value(error)}
        if isinstance(error, asyncio.CancelledError):
            fields["is_cancelled"] = True
        return fields

    def _given(self, method: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a call was given in plain form; secrets in it are hidden from here on."""
        if method == "configure_session":
            self.writer.hide(secret_values({"metadata": arguments}))
        return {name: self._plain.value(value, name) for name, value in arguments.items()}

    def _note_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._started_at is None:
            self._started_at = loop.time()
        self._pace.note(loop)  # The engine knows of no loop before its first connect.

    # -- what is emitted --------------------------------------------------------------------------

    def _posted(self, post: Callable[..., Any]) -> Callable[..., Any]:
        def posted(raw: Any) -> None:
            event_type, data, _, provider, epoch = raw
            if event_type is not EventType.AUDIO_INPUT_CHUNK:
                extra = {"outside": True} if is_outside(event_type, data) else {}
                shown = self._shown(event_type, data)
                self.write("event", type=str(event_type), provider=provider, epoch=epoch, data=shown, **extra)
            post(raw)

        return posted

    def _shown(self, event_type: EventType, data: Mapping[str, Any]) -> dict[str, Any]:
        return show_event(self._plain, event_type, data)

    # -- what comes from outside --------------------------------------------------------------------

    def _journal_opened(self, open_journal: Callable[..., Any]) -> Callable[..., Any]:
        def opened(*args: Any) -> None:
            open_journal(*args)
            self._watch_journal()

        return opened

    def _watch_journal(self) -> None:
        def accept(append: Callable[..., int]) -> Callable[..., int]:
            def accepted(data: bytes, sent: int) -> int:
                index = append(data, sent)
                self.write("input", len(data), audio=self._plain.value(data))
                return index

            return accepted

        put_before(self._engine._conversation.user.journal, "append", accept)

    def _clock_opened(self, open_clock: Callable[..., Any]) -> Callable[..., Any]:
        def opened(*args: Any) -> None:
            open_clock(*args)
            self._watch_clock()

        return opened

    def _watch_clock(self) -> None:
        agent = self._engine._conversation.agent
        clock = agent.clock
        journal = self._engine._conversation.user.journal
        self.write(
            "formats", input=format_to_json(journal.format), output=format_to_json(agent.output.format)
        )
        if isinstance(clock, ExternalClock):
            return  # What it is told is recorded as calls.
        clock.__class__ = watched_clock(type(clock), self)
        for name in ("playback_started", "playback_stopped"):
            put_before(agent, name, functools.partial(self._playback, name.removeprefix("playback_")))

    def _playback(self, what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def told(item: str, played_ms: int = 0) -> None:
            extra: dict[str, Any] = {"in": True} if self._clock_depth or self.is_saying else {}
            self.write("played", what=what, item=item, played_ms=played_ms, **extra)
            call(item) if what == "started" else call(item, played_ms)

        return told

    @contextlib.contextmanager
    def in_clock(self) -> Iterator[None]:
        """Note that the clock is being called: what it tells meanwhile belongs to that."""
        self._clock_depth += 1
        try:
            yield
        finally:
            self._clock_depth -= 1

    def _drawn(self, random: Callable[[], float]) -> Callable[[], float]:
        def drawn() -> float:
            value = random()
            self.write("chance", value=value)
            return value

        return drawn

    def _opened(self, open_session: Callable[..., Any]) -> Callable[..., Any]:
        def opened(config: VoiceEngineConfig, **kwargs: Any) -> Any:
            self.writer.hide(all_secrets(config))
            self.write("opened", config=show_config(self._plain, config))
            return open_session(config, **kwargs)

        return opened

    def _stepped(self, name: str, call: Callable[..., Any], *, is_after: bool) -> Callable[..., Any]:
        async def stepped(*args: Any, **kwargs: Any) -> Any:
            if not is_after:
                self.write("step", what=name)
            result = await call(*args, **kwargs)
            if is_after:
                self.write("step", what=name)
            return result

        return stepped

    def _one_turn(self, one_turn: Callable[[], Any]) -> Callable[[], Any]:
        @contextlib.contextmanager
        def marked() -> Iterator[None]:
            self.write("one_turn", is_begin=True)
            try:
                with one_turn():
                    yield
            finally:
                self.write("one_turn", is_begin=False)

        return marked

    def _filtered(self, filter_output: Callable[..., Any]) -> Callable[..., Any]:
        def filtered(chunk: bytes) -> bytes | None:
            kept: bytes | None = filter_output(chunk)
            self.write("filtered", len(kept or b""), audio=self._plain.value(kept))
            return kept

        return filtered

    def _ran(self, run: Callable[..., Any]) -> Callable[..., Any]:
        async def ran(call_id: str, *args: Any) -> Any:
            outcome = await run(call_id, *args)
            output = self._plain.value(outcome.output, "output")
            self.write("tool", len(outcome.output), call_id=call_id, output=output, is_error=outcome.is_error)
            return outcome

        return ran

    def _tool_told(self, on_event: Callable[..., Any]) -> Callable[..., Any]:
        def told(event_type: EventType, data: dict[str, Any]) -> None:
            if event_type is not EventType.FUNCTION_CALL_INVOKED:
                self.write("told", type=str(event_type), data=self._shown(event_type, data))
            on_event(event_type, data)

        return told

    # -- in front of the provider -----------------------------------------------------------------

    def new_session(self, name: str, *, error: Exception | None = None, **fields: Any) -> int:
        """Note that a provider was made, or could not be; return its number."""
        self._n_sessions += 1
        if error is not None:
            fields["error"] = self._plain.value(error)
        self.write("session", session=self._n_sessions, provider=name, **fields)
        return self._n_sessions

    def asked(self, session: int, hook: str, args: Mapping[str, Any], *, is_quick: bool = False) -> int:
        """Note a call of the contract."""
        self._n += 1
        values = self.arguments(hook, args)
        self.write(
            "ask", n=self._n, session=session, hook=hook, args=values, **({"quick": True} if is_quick else {})
        )
        return self._n

    def arguments(self, hook: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """Return a call's arguments; audio by its length and sum, since it follows from what was accepted."""
        return show_arguments(self._plain, args)

    def replied(self, n: int, session_id: str | None, result: Any, error: BaseException | None) -> None:
        """Note how it ended."""
        fields = self._ended_by(error)
        if error is None and result is not None:
            fields["result"] = self._plain.value(result)
        self.write("reply", n=n, session_id=session_id, **fields)

    def said(
        self, session: int, provider: BaseProvider, event_type: EventType, data: Mapping[str, Any]
    ) -> None:
        """Note an event of a provider."""
        audio = data.get("audio_data")
        n_bytes = (
            len(audio) if isinstance(audio, bytes) else audio.n_bytes if isinstance(audio, LazyAudio) else 0
        )
        values = show_event(self._plain, event_type, data, keeps_audio=True)
        self.write(
            "said",
            n_bytes,
            session=session,
            type=str(event_type),
            data=values,
            session_id=provider.session_id,
        )

    def lost(self, session: int) -> None:
        """Note that a provider's connection is gone."""
        self.write("lost", session=session)

    def wire(self, session: int, direction: str, message: str | bytes) -> None:
        """Note a message of a provider's connection."""
        fields = {"data": message} if self.keeps_wire else {"n_bytes": len(message)}
        self.write("wire", len(message), session=session, direction=direction, **fields)
