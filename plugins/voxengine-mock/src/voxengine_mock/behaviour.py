"""What the simulated agent does, whatever protocol it speaks: hears, decides, answers, calls and is cut.

An emulator calls the methods with what its client asked for, and says what comes of it in its vendor's
messages: each :data:`~voxengine_mock.happenings.Happening` is handed to ``tell``. Time is the loop's and
random numbers are the script's, so under a virtual clock a session repeats exactly. Responses are given one
at a time and further requests wait, but for those that are asked for beside them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs

from voxengine.codec import NewId
from voxengine.notes import NOTES
from voxengine_mock.answering import Answering, Ask
from voxengine_mock.happenings import (
    Failed,
    Happening,
    Heard,
    SpeechStarted,
    TurnEnded,
    Used,
    Warned,
    WentIdle,
)
from voxengine_mock.hearing import Hearing, Sound
from voxengine_mock.misbehaving import CLOSED, SessionFaults
from voxengine_mock.points import Account, Points, Tell
from voxengine_mock.replies import choose, go_on
from voxengine_mock.script import Answer, Script, ScriptRun
from voxengine_mock.settings import Settings
from voxengine_mock.speaking import Response, resolve_voice, uses_espeak

__all__ = ["Ask", "Behaviour", "Tell"]

_NOTHING_HEARD: Final = Answer(say="I did not hear anything.")
_STILL_THERE: Final = Answer(say="Are you still there?")


class Behaviour:
    """One session of the agent. Its methods are called from one task, within :meth:`active`.

    Args:
        script: What it hears and says.
        new_id: Makes the session's identifiers.
        tell: Gets what it brings about, in order.
        faults: What goes wrong; None: nothing.
    """

    def __init__(
        self, script: Script, new_id: NewId, tell: Tell, *, faults: SessionFaults | None = None
    ) -> None:
        self._script = script
        self._run = ScriptRun(script)
        self._new_id = new_id
        self._tell = tell
        self._settings = Settings()
        self._hearing = Hearing(self._settings, self._run.hear, new_id)
        self._points = Points(faults)
        self._account = Account(script)
        self._answering = Answering(
            self._run, new_id, tell, self._points, self._account, self._spawn, self._response_over
        )
        self._user_said: deque[str] = deque(maxlen=8)
        self._heard = ""
        self._result: str | None = None
        self._unanswered: deque[str] = deque(maxlen=64)
        self._late: asyncio.Task[None] | None = None
        self._giving: dict[asyncio.Task[Any] | None, str] = {}
        """Which utterance's final text a task is about to give."""
        self._idle_from: tuple[int, asyncio.Task[None]] | None = None
        """From where in the input audio nobody spoke, and what waits where no audio comes either."""
        self._beside: set[asyncio.Task[None]] = set()
        self._tasks: asyncio.TaskGroup | None = None

    # -- life -----------------------------------------------------------------------------------

    @asynccontextmanager
    async def active(self) -> AsyncIterator[None]:
        """Work within the block. Nothing is left running after it."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                if self._points.faults is not None:
                    self._points.faults.bind(self._tell_fault, self._spawn)
                try:
                    yield
                finally:
                    self._answering.close()
                    for task in tuple(self._beside):
                        task.cancel()
        finally:
            self._tasks = None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        async def run() -> None:
            # Nobody listens any more when it is closed; the reader learns the same.
            with contextlib.suppress(*CLOSED):
                await work

        assert self._tasks is not None
        task = self._tasks.create_task(run())
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)
        task.add_done_callback(lambda _: work.close())  # Cancelled before its first step it was not begun.
        return task

    async def opening(self) -> bool:
        """Wait as the script wants before the session is open; return False when it shall not open."""
        await asyncio.sleep(self._run.wait_s(self._script.delays.ready_ms))
        return await self._points.reach("ready")

    async def opened(self) -> None:
        """The client knows that the session is open."""
        if self._points.faults is not None:
            await self._points.faults.reach("ready", is_after=True)

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._settings

    def configure(self, settings: Settings) -> None:
        """Work by these settings from here on; the response under way keeps its own."""
        self._settings = settings
        self._hearing.configure(settings)
        if settings.idle_timeout_ms is None:
            self._stop_idling()

    async def configured(self) -> bool:
        """The client asked for other settings; return False when it shall not be told of them."""
        return await self._points.reach("configure")

    # -- the user -------------------------------------------------------------------------------

    @property
    def audio_ms(self) -> int:
        """How much input audio was heard since the session began."""
        return self._hearing.audio_ms

    @property
    def in_speech(self) -> bool:
        """Whether the user is speaking."""
        return self._hearing.in_speech

    async def hear(self, pcm: bytes) -> None:
        """Take input audio, PCM16 mono at the session's input rate."""
        await self._points.reach_once("first_input")
        for sound in self._hearing.push(pcm):
            await self._sound(sound)
        await self._points.reach_audio("input", 1, self._hearing.audio_ms)
        timeout_ms = self._settings.idle_timeout_ms
        if self._idle_from is not None and timeout_ms is not None:
            from_ms = self._idle_from[0]
            if self._hearing.audio_ms >= from_ms + timeout_ms:
                await self._go_idle(from_ms, from_ms + timeout_ms)

    async def _sound(self, sound: Sound, *, may_answer: bool = True) -> bool:
        """Tell what was heard and do what follows; return False when an answer to it is not to be."""
        if isinstance(sound, Heard) and not sound.is_partial:
            await self._tell_final(sound)
            return True
        await self._tell(sound)
        if isinstance(sound, SpeechStarted):
            self._stop_idling()
            if self._settings.interrupt_response:
                self.cut(None, reason="speech")
        if isinstance(sound, TurnEnded):
            if sound.text:
                self._note(sound.text)
            goes_on = await self.turn_complete()
            settings = self._settings
            if goes_on and may_answer and settings.turn_detection == "server" and settings.create_response:
                await self.respond("audio")
            return goes_on
        return True

    async def _tell_final(self, heard: Heard) -> None:
        """Tell the final text of an utterance, as late as the script wants; texts keep their order."""
        given = self._hearing.final_delay_ms
        delay_s = self._run.wait_s(self._script.delays.transcript_ms if given is None else given)
        before = self._late if self._late is not None and not self._late.done() else None
        if not delay_s and before is None:
            await self._give(heard)
            return

        async def later() -> None:
            await asyncio.sleep(delay_s)
            if before is not None:
                await asyncio.wait([before])
            await self._give(heard)

        self._late = self._spawn(later())

    async def _give(self, heard: Heard) -> None:
        task = asyncio.current_task()
        self._giving[task] = heard.item_id
        try:
            goes_on = await self._points.reach("transcript")
        finally:
            del self._giving[task]
        if goes_on:
            await self._tell(heard)

    async def _tell_fault(self, happening: Happening) -> None:
        """Tell what the script lets go wrong, with the utterance or the response that it goes wrong with."""
        item_id = self._giving.get(asyncio.current_task())
        if isinstance(happening, Failed) and item_id:
            await self._tell(attrs.evolve(happening, item_id=item_id))
        else:
            await self._answering.tell_fault(happening)

    async def end_turn(self, *, respond: bool = True) -> None:
        """Close the user's spoken turn; answer it when asked to."""
        had_audio = self._hearing.has_audio
        for sound in self._hearing.end_turn():
            await self._sound(sound)
        if not respond:
            return
        if self._unanswered:
            await self.respond("audio")
        elif self._settings.turn_detection != "server" or (had_audio and not self._user_said):
            # Somebody waits for an answer, so silence gets one too. Under server detection the speech was
            # answered when it ended, and the end of the audio asks for nothing more.
            await self._answering.request("audio", _NOTHING_HEARD, {}, self._settings)

    async def commit(self) -> bool:
        """Close the user's spoken turn, also one without speech; an answer has to be asked for.

        Returns:
            Whether it shall be answered when it is.
        """
        return all([await self._sound(sound, may_answer=False) for sound in self._hearing.commit()])

    def discard(self) -> None:
        """Forget the audio of the open turn."""
        self._hearing.discard()

    def recognise(self) -> str:
        """Return what the user says in audio that comes by another way than :meth:`hear`."""
        return " ".join(self._run.hear().text.split())

    async def read(self, text: str, *, respond: bool = True) -> None:
        """Take a complete user turn as text; answer it when asked to."""
        await self.first_input()
        self._note(text)
        if await self.turn_complete() and respond:
            await self.respond("text")

    async def first_input(self) -> None:
        """Something arrived that is no audio."""
        await self._points.reach_once("first_input")

    async def turn_complete(self) -> bool:
        """The user's turn is complete; return False when it shall not be answered."""
        return await self._points.reach("turn")

    def recall(self, text: str | None) -> None:
        """Take a turn of the past: what the user said, or None for one of the agent's."""
        if text is None:
            self._unanswered.clear()
        else:
            self._note(text)

    def recall_answer(self, text: str) -> None:
        """Take what the user heard of an answer of the past."""
        self._heard = text

    def recall_result(self, output: str) -> None:
        """Take the result of a tool that was called in the past."""
        self._result = output

    def _note(self, text: str) -> None:
        if text not in NOTES:
            self._user_said.append(text)
        self._unanswered.append(text)
        self._account.read(text)

    async def tool_result(
        self, call_id: str, output: str, *, is_error: bool = False, respond: bool = True
    ) -> bool:
        """Take the result of a call; False when there is no open call of that id.

        Args:
            respond: Go on when every result is there. Without it, ask with :attr:`Ask.after_call`.
        """
        found = self._answering.take_result(call_id, output, is_error=is_error)
        if found is None:
            return False
        goes_on = await self._points.reach("tool_result")
        if found.is_complete and goes_on and respond:
            await self._follow_up(call_id, Ask())
        return True

    # -- the user's silence ---------------------------------------------------------------------

    async def _response_over(self, response: Response) -> None:
        await self._tell(Used(usage=self.usage(), cost=self.cost()))
        timeout_ms = self._settings.idle_timeout_ms
        if timeout_ms is None or response.is_beside or self._settings.turn_detection != "server":
            return
        self._stop_idling()
        if not self._hearing.has_speech:
            from_ms = self._hearing.audio_ms + response.sent_ms
            waiting = self._spawn(self._idle_without_audio(response.sent_ms + timeout_ms))
            self._idle_from = (from_ms, waiting)

    async def _idle_without_audio(self, wait_ms: int) -> None:
        await asyncio.sleep(wait_ms / 1000)
        if self._idle_from is not None:
            await self._go_idle(min(self._idle_from[0], self._hearing.audio_ms), self._hearing.audio_ms)

    def _stop_idling(self) -> None:
        if self._idle_from is not None:
            waiting, self._idle_from = self._idle_from[1], None
            if waiting is not asyncio.current_task() and self._tasks is not None:
                waiting.cancel()

    async def _go_idle(self, from_ms: int, to_ms: int) -> None:
        self._stop_idling()
        await self._tell(WentIdle(item_id=self._new_id("item_"), from_ms=from_ms, to_ms=to_ms))
        await self._answering.request("idle", _STILL_THERE, {}, self._settings)

    # -- the agent ------------------------------------------------------------------------------

    @property
    def response(self) -> Response | None:
        """The response under way or next in turn; one that was asked to stop does not count."""
        return self._answering.current

    async def respond(self, trigger: str, ask: Ask | None = None) -> None:
        """Answer what the user said last, whatever else waits; without anything, the empty text."""
        ask = ask or Ask()
        if not ask.is_beside:
            self._stop_idling()
        if ask.after_call and await self._follow_up(ask.after_call, ask):
            return
        # One answer covers what came before it.
        if ask.text is None:
            text = self._unanswered[-1] if self._unanswered else ""
            earlier = tuple(self._user_said)[:-1] if text not in NOTES else tuple(self._user_said)
        else:
            text, earlier = ask.text, tuple(ask.earlier)
        if not ask.is_beside:
            self._unanswered.clear()
        settings = ask.settings or self._settings
        note = text if text in NOTES else ""
        if note:
            text, earlier = (earlier[-1], earlier[:-1]) if earlier else ("", ())
        answer, groups = choose(text, self._run, settings, earlier)
        names: dict[str, Any] = {**self._names(settings), **groups, "text": text}
        if note:
            answer, names = go_on(note, answer, names, self._heard, self._result)
        await self._answering.request(trigger, answer, names, settings, ask=ask)

    async def _follow_up(self, call_id: str, ask: Ask) -> bool:
        """Say what comes after the results of a call and of those made with it; False when that was said."""
        found = self._answering.round_of(call_id)
        if found is None:
            return False
        found.is_over = found.is_complete
        if ask.after_call and not ask.is_beside:
            self._unanswered.clear()
        answer, names = found.follow_up()
        n_words = sum(len(output.split()) for output, _ in found.results.values())
        self._account.n_input_tokens += self._script.usage.per_word * n_words
        settings = ask.settings or self._settings
        await self._answering.request("tool", answer, names, settings, ask=ask)
        return True

    async def say_nothing_heard(self, ask: Ask) -> None:
        """Answer a turn in which nothing was said."""
        await self._answering.request("audio", _NOTHING_HEARD, {}, ask.settings or self._settings, ask=ask)

    async def say(self, text: str, ask: Ask) -> None:
        """Answer with a text as it is, whatever the script has."""
        await self._answering.request(
            "request", Answer(say=text), {}, ask.settings or self._settings, ask=ask
        )

    async def speak(self, text: str, *, is_last: bool = True) -> None:
        """Say a text as it is; more of the same utterance follows unless ``is_last``."""
        await self._answering.speak(text, self._settings, is_last=is_last)

    async def cancel(self, item_id: str = "", played_ms: int | None = None, response_id: str = "") -> None:
        """Stop a response (empty: the one under way), and cut an item at what was played of it (empty: its own)."""
        await self._answering.cancel(item_id, played_ms, response_id)

    def cut(self, played_ms: int | None, *, response_id: str = "", reason: str = "client") -> bool:
        """Ask a response to stop; it ends itself between two messages, so none is sent by half.

        Args:
            response_id: Empty: the one under way that is not beside others, else the next in turn.

        Returns:
            Whether there is one.
        """
        return self._answering.cut(played_ms, response_id=response_id, reason=reason)

    def _names(self, settings: Settings) -> dict[str, Any]:
        return {
            "instructions": settings.instructions,
            "language": settings.language,
            "voice": resolve_voice(settings, self._script).name,
        }

    def usage(self) -> dict[str, Any]:
        """Return what the session used so far."""
        return self._account.usage(self._hearing.audio_ms)

    def cost(self) -> float:
        """Return the price of the session so far, in US dollars."""
        return self._account.cost(self._hearing.audio_ms)

    # -- voices ---------------------------------------------------------------------------------

    async def check_synthesizer(self, settings: Settings) -> None:
        """Raise ConfigError when these settings ask for real speech and there is none here."""
        if uses_espeak(settings, self._script):
            from voxengine_mock import espeak

            await asyncio.get_running_loop().run_in_executor(None, espeak.require)

    def in_force(self, settings: Settings) -> dict[str, Any]:
        """Return settings as plain JSON values, with the voice that speaks in place of the one asked for."""
        return {**settings.to_dict(), "voice": self._speaks(settings)}

    def _speaks(self, settings: Settings) -> str:
        return settings.voice if settings.voice == "espeak" else resolve_voice(settings, self._script).name

    async def check_voice(self) -> None:
        """Warn when the voice asked for is none of ours."""
        voice, speaks = self._settings.voice, self._speaks(self._settings)
        if voice and speaks != voice:
            await self._tell(Warned("voice_unknown", f"There is no voice {voice!r}; {speaks!r} speaks."))
