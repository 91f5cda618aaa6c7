"""``voxengine talk``: one conversation, from the microphone, from a file, from texts or line by line."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs

from voxengine.cli import microphone, running
from voxengine.cli.devices import make_backend
from voxengine.cli.options import build_config
from voxengine.cli.records import STDOUT, AnswerRecorder, TranscriptFile, check_target
from voxengine.cli.report import USER, Report, summarize
from voxengine.cli.sources import WavSource, in_daemon_thread, lines_of_stdin
from voxengine.cli.terminal import Screen, make_screen
from voxengine.config import VoiceEngineConfig
from voxengine.engine import VoiceEngine
from voxengine.errors import ConfigError, ErrorCode, JournalFull, ProviderError, VoxEngineError
from voxengine.events import Event, EventType

if TYPE_CHECKING:
    from voxengine.audio.format import AudioFormat
    from voxengine.audio.pcm import FormatConverter

__all__ = ["run"]

CHUNK_MS: Final = 20
QUIET_S: Final = 30.0
"""How long nothing at all may come while an answer is awaited."""
NO_ANSWER_S: Final = 10.0
"""How long to wait for a first sign when nothing is known to be awaited."""
RETRY_S: Final = 0.05

run_loop: Callable[[Callable[[], Coroutine[Any, Any, None]]], None] = running.run

_SHOWN: Final = frozenset(EventType) - {
    EventType.AUDIO_INPUT_CHUNK,
    EventType.SPEECH_MARK,
    EventType.VENDOR_EVENT,
}


def run(arguments: argparse.Namespace) -> int:
    """Hold the conversation; return 0, or raise what ended it."""
    logging.getLogger("voxengine").addHandler(logging.NullHandler())  # What it logs comes as events too.
    _check_files(arguments)
    if not all(text.strip() for text in arguments.text):
        raise ConfigError(
            "--text is empty. Give the user's words, or leave it out and write them line by line."
        )
    if any("\ud800" <= letter <= "\udfff" for text in arguments.text for letter in text):
        raise ConfigError("--text holds bytes that are no UTF-8. Give the user's words in UTF-8.")
    config = build_config(arguments)
    uses_microphone, why_not = microphone.is_wanted(arguments)
    is_chat = arguments.input is None and not arguments.text and not uses_microphone
    at_once = arguments.fast or (is_chat and sys.stdin.isatty())
    if at_once:
        config = attrs.evolve(config, playback="external")
    if uses_microphone:
        config = microphone.with_devices(config, arguments)
    screen = make_screen(sys.stderr if arguments.output == STDOUT else sys.stdout)
    if why_not:
        screen.line("", why_not, "dim")
    transcript = TranscriptFile(arguments.transcript)
    try:
        talk = _Talk(
            arguments, config, screen, transcript, plays_at_once=at_once, uses_microphone=uses_microphone
        )
        run_loop(talk.run)
    finally:
        screen.close()
        transcript.close()
    return 0


def _check_files(arguments: argparse.Namespace) -> None:
    output, transcript, source = arguments.output, arguments.transcript, arguments.input
    if output == STDOUT:
        if sys.stdout.isatty():
            raise ConfigError("--output - writes a WAV to standard output, which is a terminal. Pipe it on.")
    elif output is not None:
        check_target("--output", output, [source])
    if transcript is not None:
        check_target("--transcript", transcript, [source, output])
    if arguments.record is not None:
        check_target("--record", arguments.record, [source, output, transcript])


class _Talk:
    def __init__(
        self,
        arguments: argparse.Namespace,
        config: VoiceEngineConfig,
        screen: Screen,
        transcript: TranscriptFile,
        *,
        plays_at_once: bool,
        uses_microphone: bool,
    ) -> None:
        self._uses_microphone = uses_microphone
        self._arguments = arguments
        self._provider = config.provider
        self._screen = screen
        self._transcript = transcript
        self._engine = VoiceEngine(config, audio=make_backend() if uses_microphone else None)
        if arguments.record is not None:
            self._engine.record(arguments.record)
        self._spoken_s = 0.0
        self._plays_at_once = plays_at_once
        self._queue: asyncio.Queue[Callable[[], object]] = asyncio.Queue()

    async def run(self) -> None:
        """Talk, and show what happens in a task beside it; the first failure of the two ends both."""
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._report = Report(
            self._engine, self._screen, self._transcript, self._started, plays_at_once=self._plays_at_once
        )
        for event_type in _SHOWN:
            self._engine.events.on(event_type, self._enqueue)
        self._shower = asyncio.create_task(self._show())
        talking = asyncio.create_task(self._talk())
        self._shower.add_done_callback(lambda _: talking.cancel())
        try:
            await talking
        except asyncio.CancelledError:
            if self._shower.done() and not self._shower.cancelled():
                self._shower.result()  # Raises what ended it: a pipe that was closed, a full disk.
            raise
        finally:
            if not self._shower.cancel() and not self._shower.cancelled():
                self._shower.exception()  # Taken note of: ``talking`` ended with an error of its own.

    def _enqueue(self, event: Event) -> None:
        self._queue.put_nowait(partial(self._report.handle, event))

    async def _show(self) -> None:
        while True:
            show = await self._queue.get()
            show()
            self._queue.task_done()

    async def _shown(self) -> None:
        """Wait until everything that happened so far was shown."""
        joined = asyncio.create_task(self._queue.join())
        await asyncio.wait([joined, self._shower], return_when=asyncio.FIRST_COMPLETED)
        joined.cancel()

    # -- the conversation -------------------------------------------------------------------------

    async def _talk(self) -> None:
        source = None
        if self._arguments.input is not None:
            source = await WavSource.open(self._arguments.input)
        try:
            await self._connect()
            ending = "ended"
            try:
                await self._say_everything(source)
                ending = "done"
            except VoxEngineError as error:
                await self._shown()
                # What ended the session says more than the call that found it ended.
                failure = self._report.failure
                raise (failure or error) from None
            finally:
                await self._end(ending)
        finally:
            if source is not None:
                source.close()

    async def _connect(self) -> None:
        engine = self._engine
        self._screen.partial("with", f"{self._provider} …")
        try:
            await engine.connect()
            # Not before: a call that cannot begin leaves what an earlier one wrote.
            self._transcript.open()
            self._report.recorder = AnswerRecorder(self._arguments.output, engine.output_format)
        except BaseException:
            await engine.disconnect()
            raise
        finally:
            self._screen.partial("with", "")
        session = engine.session
        assert session is not None
        name = f"{session.name} ({session.session_id})" if session.session_id else session.name
        self._screen.line("with", f"{name}, connected in {session.latency_ms} ms", "dim")

    async def _say_everything(self, source: WavSource | None) -> None:
        if source is not None:
            await self._send_file(source)
        for text in self._arguments.text:
            await self._send_text(text, show=True)
        if self._uses_microphone:
            await self._listen()
        elif source is None and not self._arguments.text:
            await self._chat()

    async def _listen(self) -> None:
        report = self._report

        async def send(text: str) -> None:
            report.begin_turn()
            self._queue.put_nowait(partial(report.text_turn, self._loop.time(), text, show=False))
            await self._engine.send_text(text)

        await microphone.talk(
            self._engine, self._screen, is_over=lambda: report.failure is not None, send_text=send
        )
        await self._shown()
        if report.failure is not None:
            raise report.failure

    async def _chat(self) -> None:
        is_terminal = sys.stdin.isatty()
        if is_terminal:
            self._screen.line("", "Write, and end with an empty line.", "dim")
            self._screen.prompt(*USER)
        async for line in lines_of_stdin():
            if line.strip():
                await self._send_text(line.strip(), show=not is_terminal)
            elif is_terminal:
                return
            if is_terminal:
                self._screen.prompt(*USER)
        if is_terminal:
            self._screen.blank()

    async def _send_text(self, text: str, *, show: bool) -> None:
        engine, session = self._engine, self._engine.session
        self._report.begin_turn()
        note = partial(self._report.text_turn, self._loop.time(), text, show=show)
        self._queue.put_nowait(note)
        if session is not None and not session.can("text_turn") and session.can("speak"):
            await engine.say(text)
        else:
            await engine.send_text(text)
        await self._settle("the text")

    async def _send_file(self, source: WavSource) -> None:
        engine = self._engine
        self._report.begin_turn()
        converter = await in_daemon_thread(_make_converter, source.format, engine.input_format)
        self._screen.line("input", _describe(source, engine.input_format), "dim")
        n_frames = source.format.sample_rate * CHUNK_MS // 1000
        began, n_sent = self._loop.time(), 0
        while data := await source.read(n_frames):
            n_sent += source.format.n_frames(len(data))
            if not self._arguments.fast:
                # Deadlines from one beginning: what one chunk is late, the next is not.
                await asyncio.sleep(began + n_sent / source.format.sample_rate - self._loop.time())
            await self._send_audio(converter.process(data))
            if self._report.failure is not None:
                break
        await self._send_audio(converter.flush())
        self._spoken_s += n_sent / source.format.sample_rate
        if source.truncated:
            self._screen.line("warning", f"{source.name} ended early: it declares more sound.", "yellow")
        if not n_sent:
            raise ConfigError(f"{source.name} holds no sound.")
        await engine.end_turn()
        await self._settle(source.name)

    async def _send_audio(self, data: bytes) -> None:
        deadline = self._loop.time() + QUIET_S
        while data:
            try:
                await self._engine.send_audio(data)
            except JournalFull:
                if not self._arguments.fast or self._loop.time() > deadline:
                    raise
                await asyncio.sleep(RETRY_S)  # Faster than it is answered: go on when there is room.
            else:
                return

    async def _settle(self, what: str) -> None:
        """Wait until the answer is complete and played.

        Raises:
            ProviderError: Nothing came, or what came was an error that cannot be recovered from.
        """
        report, session = self._report, self._engine.session
        # A recogniser owes no answer: what it heard last may be all there is.
        answers = session is None or session.can("dialogue")
        await self._come_to_rest(answers)
        if self._is_settled(answers):
            return
        try:
            async with asyncio.timeout(NO_ANSWER_S):
                await (report.answer if report.trouble is not None else report.sign).wait()
        except TimeoutError:
            raise report.trouble or ProviderError(
                f"{self._provider}: no answer and no transcript came to {what} within {NO_ANSWER_S:g} s. "
                "Does it hold speech?",
                provider=self._provider,
                code=ErrorCode.TIMEOUT,
            ) from None
        await self._come_to_rest(answers)
        self._is_settled(answers)

    async def _come_to_rest(self, answers: bool) -> None:
        """Wait until nothing is asked for or played, or nothing has come for too long.

        Raises:
            ProviderError: The latter, while an answer is owed.
        """
        report, quiet_s = self._report, QUIET_S if answers else NO_ANSWER_S
        report.busy_until = max(report.busy_until, self._loop.time())
        left_s = quiet_s
        while left_s > 0:
            try:
                await self._engine.wait_idle(timeout_s=left_s)
                break
            except ProviderError as error:
                if error.code is not ErrorCode.TIMEOUT:
                    raise
            await self._shown()
            left_s = report.busy_until + quiet_s - self._loop.time()
        else:
            if answers or not report.sign.is_set():
                missing = (
                    "the answer came to no end"
                    if report.answer.is_set()
                    else "an answer was asked for and did not come"
                )
                raise report.trouble or ProviderError(
                    f"{self._provider}: {missing}; nothing has come for {quiet_s:g} s.",
                    provider=self._provider,
                    code=ErrorCode.TIMEOUT,
                )
        await self._shown()

    def _is_settled(self, answers: bool) -> bool:
        """Return whether there is an answer, or all that a recogniser has to say.

        Raises:
            VoxEngineError: What came instead, or what cut it short.
        """
        report = self._report
        if report.failure is not None:
            raise report.failure
        if report.is_answered or (report.sign.is_set() and not answers):
            return True
        if report.trouble is None:
            return report.sign.is_set()
        # A message that nobody could read may have been anything: the answer may still come.
        was_unread = isinstance(report.trouble, ProviderError) and report.trouble.code is ErrorCode.PROTOCOL
        if report.answer.is_set() or not was_unread:
            raise report.trouble
        return False

    # -- the end ----------------------------------------------------------------------------------

    async def _end(self, ending: str) -> None:
        engine, recorder = self._engine, self._report.recorder
        elapsed_s = self._loop.time() - self._started
        await engine.disconnect()  # Asks for the usage, too.
        await self._shown()
        self._report.finish(self._loop.time())
        if recorder is not None:
            recorder.close()
        last = engine.metrics.sessions[-1] if engine.metrics.sessions else None
        summarize(
            self._screen,
            engine.metrics,
            ending=ending,
            n_turns=self._report.n_turns,
            elapsed_s=elapsed_s,
            spoken_s=self._spoken_s,
            recorder=recorder,
            usage=last.usage if last is not None else None,
            cost=last.cost if last is not None else None,
            files=self._files(),
        )

    def _files(self) -> list[str]:
        output, recorder = self._arguments.output, self._report.recorder
        files = []
        if output not in (None, STDOUT) and recorder is not None:
            files.append(f"{output} ({recorder.kept_s:.1f} s of answers)")
        if self._arguments.transcript is not None:
            n_lines = self._transcript.n_lines
            files.append(f"{self._arguments.transcript} ({n_lines} line{'s' * (n_lines != 1)})")
        if self._arguments.record is not None:
            files.append(str(self._arguments.record))
        return files


def _make_converter(source: AudioFormat, target: AudioFormat) -> FormatConverter:
    from voxengine.audio.pcm import FormatConverter

    converter = FormatConverter(source, target)
    converter.process(b"\0" * source.frame_bytes)  # Loads numpy where it is needed, away from the loop.
    converter.reset()
    return converter


def _describe(source: WavSource, target: AudioFormat) -> str:
    length = "" if source.duration_s is None else f"{source.duration_s:.1f} s, "
    converted = "" if source.format == target else f", converted to {target.describe()}"
    return f"{source.name}: {length}{source.format.describe()}{converted}"
