"""What the simulated agent does, whatever protocol it speaks: hears, decides, answers, calls and is cut.

An emulator calls the methods with what its client asked for, and says what comes of it in its vendor's
messages: each :data:`~voxengine_mock.happenings.Happening` is handed to ``tell``. Time is the loop's and
random numbers are the script's, so under a virtual clock a session repeats exactly. Responses are given one
at a time; further requests wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from voxengine.codec import NewId
from voxengine.errors import ErrorCode
from voxengine_mock.happenings import (
    Called,
    Failed,
    Happening,
    Heard,
    ResponseEnded,
    ResponseStarted,
    Said,
    SaidAll,
    Sounded,
    SpeechStarted,
    Truncated,
    TurnEnded,
    Used,
    Warned,
    WordSpoken,
)
from voxengine_mock.hearing import Hearing, Sound
from voxengine_mock.misbehaving import CLOSED, SessionFaults
from voxengine_mock.replies import ToolRound, arguments_for, choose
from voxengine_mock.script import Answer, Script, ScriptRun, fill
from voxengine_mock.settings import Settings
from voxengine_mock.speaking import Cut, Response, Spoken, make_speech, resolve_voice, uses_espeak

__all__ = ["Behaviour", "Tell"]

Tell = Callable[[Happening], Awaitable[None]]
"""Says one happening to the client. Raises one of ``CLOSED`` when there is no client any more."""

_SPOKEN_KEPT: Final = 64
"""So many spoken items can still be cut at what was heard."""
_WAITING_KEPT: Final = 1000
"""So many requests wait for an answer, and so many calls for a result."""
_SAID_CHARS: Final = 20_000
"""The longest answer: about twenty minutes."""
_NOTHING_HEARD: Final = "I did not hear anything."


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
        self._faults = faults
        self._settings = Settings()
        self._hearing = Hearing(self._settings, self._run.hear, new_id)
        self._waiting: deque[Response] = deque()
        self._response: Response | None = None
        self._saying: Response | None = None
        self._spoken: OrderedDict[str, Spoken] = OrderedDict()
        self._rounds: OrderedDict[str, ToolRound] = OrderedDict()
        self._user_said: deque[str] = deque(maxlen=8)
        self._unanswered: deque[str] = deque(maxlen=64)
        self._n_output_ms = 0
        self._n_input_tokens = 0.0
        self._n_output_tokens = 0.0
        self._n: dict[str, int] = {}
        self._late: asyncio.Task[None] | None = None
        self._beside: set[asyncio.Task[None]] = set()
        self._tasks: asyncio.TaskGroup | None = None

    # -- life -----------------------------------------------------------------------------------

    @asynccontextmanager
    async def active(self) -> AsyncIterator[None]:
        """Work within the block. Nothing is left running after it."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                if self._faults is not None:
                    self._faults.bind(self._tell, self._spawn)
                try:
                    yield
                finally:
                    self._waiting.clear()
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
        return await self._reach("ready")

    async def opened(self) -> None:
        """The client knows that the session is open."""
        if self._faults is not None:
            await self._faults.reach("ready", is_after=True)

    async def _reach(self, point: str) -> bool:
        """Count a point of the conversation; return False when what follows it shall not happen."""
        if self._faults is None:
            return True
        n = self._n[point] = self._n.get(point, 0) + 1
        return await self._faults.reach(point, n)

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._settings

    def configure(self, settings: Settings) -> None:
        """Work by these settings from here on."""
        self._settings = settings
        self._hearing.configure(settings)

    async def configured(self) -> bool:
        """The client asked for other settings; return False when it shall not be told of them."""
        return await self._reach("configure")

    # -- the user -------------------------------------------------------------------------------

    async def hear(self, pcm: bytes) -> None:
        """Take input audio, PCM16 mono at the session's input rate."""
        if self._faults is not None:
            await self._first_input()
        for sound in self._hearing.push(pcm):
            await self._sound(sound)
        if self._faults is not None:
            await self._faults.reach_audio("input", 1, self._hearing.audio_ms)

    async def _first_input(self) -> None:
        if "first_input" not in self._n:
            await self._reach("first_input")

    async def _sound(self, sound: Sound) -> None:
        if isinstance(sound, Heard) and not sound.is_partial:
            await self._tell_final(sound)
            return
        await self._tell(sound)
        if isinstance(sound, SpeechStarted) and self._settings.interrupt_response:
            self.cut(None)
        if isinstance(sound, TurnEnded):
            self._note(sound.text)
            goes_on = await self._reach("turn")
            if goes_on and self._settings.turn_detection == "server" and self._settings.create_response:
                await self.respond("audio")

    async def _tell_final(self, heard: Heard) -> None:
        """Tell the final text of an utterance, as late as the script wants; texts keep their order."""
        given = self._hearing.final_delay_ms
        delay_s = self._run.wait_s(self._script.delays.transcript_ms if given is None else given)
        before = self._late if self._late is not None and not self._late.done() else None
        if not delay_s and before is None:
            await self._tell(heard)
            return

        async def later() -> None:
            await asyncio.sleep(delay_s)
            if before is not None:
                await asyncio.wait([before])
            await self._tell(heard)

        self._late = self._spawn(later())

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
            await self._request("audio", Answer(say=_NOTHING_HEARD), {})

    def discard(self) -> None:
        """Forget the audio of the open turn."""
        self._hearing.discard()

    async def read(self, text: str, *, respond: bool = True) -> None:
        """Take a complete user turn as text; answer it when asked to."""
        if self._faults is not None:
            await self._first_input()
        self._note(text)
        if await self._reach("turn") and respond:
            await self.respond("text")

    def recall(self, text: str | None) -> None:
        """Take a turn of the past: what the user said, or None for one of the agent's."""
        if text is None:
            self._unanswered.clear()
        else:
            self._note(text)

    def _note(self, text: str) -> None:
        self._user_said.append(text)
        self._unanswered.append(text)
        self._n_input_tokens += self._script.usage.per_word * len(text.split())

    async def tool_result(self, call_id: str, output: str, *, is_error: bool = False) -> bool:
        """Take the result of a call; False when there is no open call of that id."""
        found = self._rounds.pop(call_id, None)
        if found is None:
            return False
        found.results[call_id] = (output, is_error)
        goes_on = await self._reach("tool_result")
        if found.is_complete and goes_on:
            answer, names = found.follow_up()
            n_words = sum(len(output.split()) for output, _ in found.results.values())
            self._n_input_tokens += self._script.usage.per_word * n_words
            await self._request("tool", answer, names)
        return True

    # -- the agent ------------------------------------------------------------------------------

    async def respond(self, trigger: str) -> None:
        """Answer what the user said last, whatever else waits; without anything, the empty text."""
        # One answer covers what came before it.
        text = self._unanswered[-1] if self._unanswered else ""
        self._unanswered.clear()
        earlier = tuple(self._user_said)[:-1]
        answer, groups = choose(text, self._run, self._settings, earlier)
        await self._request(trigger, answer, {**self._names(), **groups, "text": text})

    async def speak(self, text: str, *, is_last: bool = True) -> None:
        """Say a text as it is; more of the same utterance follows unless ``is_last``."""
        if self._saying is None:
            self._saying = await self._request("say", Answer(), {}, is_open=True)
        if self._saying is None:
            return
        room = _SAID_CHARS - self._saying.n_chars
        if len(text) > room:
            await self._refuse(ErrorCode.INVALID_REQUEST, f"A text to say has at most {_SAID_CHARS} letters.")
        self._saying.add(text[: max(0, room)], is_last=is_last)
        if is_last:
            self._saying = None

    async def cancel(self, item_id: str = "", played_ms: int | None = None) -> None:
        """Stop the response under way, and cut an item at what was played of it (empty: that response's)."""
        active = self._response
        item_id = item_id or (active.item_id if active is not None else "")
        if active is not None and not active.is_over:
            self.cut(played_ms if item_id == active.item_id else None)
            if item_id == active.item_id:
                return
        spoken = self._spoken.get(item_id)
        if spoken is not None and played_ms is not None:
            heard_ms, heard_text = spoken.heard(played_ms)
            await self._tell(Truncated(item_id=item_id, heard_ms=heard_ms, heard_text=heard_text))

    def cut(self, played_ms: int | None) -> bool:
        """Ask the response under way to stop; it ends itself between two messages, so none is sent by half.

        Returns:
            Whether there is one.
        """
        active = self._response
        if active is None or active.is_over:
            return False
        active.cut(played_ms)
        return True

    def _names(self) -> dict[str, Any]:
        settings = self._settings
        return {
            "instructions": settings.instructions,
            "language": settings.language,
            "voice": resolve_voice(settings, self._script).name,
        }

    async def _request(
        self, trigger: str, answer: Answer, names: Mapping[str, Any], *, is_open: bool = False
    ) -> Response | None:
        if len(self._waiting) >= _WAITING_KEPT:
            await self._refuse(ErrorCode.RATE_LIMIT, "Too many requests wait for an answer.")
            return None
        response = Response(self._new_id("resp_"), self._new_id("item_"), trigger, answer, dict(names))
        response.delay_s = self._run.delay_s(answer)
        if not is_open:
            response.add(fill(answer.say, names)[:_SAID_CHARS], is_last=True)
        self._waiting.append(response)
        self._start_next()
        return response

    async def _refuse(self, code: ErrorCode, message: str) -> None:
        await self._tell(Failed(code, message))

    def _start_next(self) -> None:
        if self._response is None and self._waiting and self._tasks is not None:
            self._response = self._waiting.popleft()
            self._response.task = self._spawn(self._perform(self._response))

    # -- answering ------------------------------------------------------------------------------

    async def _perform(self, response: Response) -> None:
        ids = {"response_id": response.response_id, "item_id": response.item_id}
        if await self._reach("response"):
            await self._tell(ResponseStarted(**ids, trigger=response.trigger))
            heard: tuple[int | None, str | None] = (None, None)
            try:
                await response.pause(response.delay_s)
                status = await self._say(response)
                await self._call(response)
            except Cut as cut:
                status = cut.status
                if response.played_ms is not None:
                    heard = response.spoken.heard(response.played_ms)
            response.is_over = True
            usage = self._usage_of(response)
            await self._tell(
                ResponseEnded(**ids, status=status, usage=usage, heard_ms=heard[0], heard_text=heard[1])
            )
            await self._tell(Used(usage=self.usage(), cost=self.cost()))
        self._response = None
        self._start_next()

    async def _say(self, response: Response) -> str:
        self._spoken[response.item_id] = response.spoken
        if len(self._spoken) > _SPOKEN_KEPT:
            self._spoken.popitem(last=False)
        status = "completed"
        limit = self._settings.max_output_tokens
        while (text := await response.next_piece()) is not None:
            words = list(re.finditer(r"\S+", text))
            is_whole = limit is None or response.n_tokens + len(words) <= limit
            if limit is not None and not is_whole:
                kept = max(0, limit - response.n_tokens)
                text = text[: words[kept - 1].end()] if kept else ""
                words, status = words[:kept], "incomplete"
            response.n_tokens += len(words)
            if text:
                await self._say_piece(response, text, is_whole=is_whole)
        if response.spoken.text:
            await self._tell(
                SaidAll(response_id=response.response_id, item_id=response.item_id, text=response.spoken.text)
            )
        return status

    async def _say_piece(self, response: Response, text: str, *, is_whole: bool) -> None:
        settings, clock, answer = self._settings, asyncio.get_running_loop().time, response.answer
        timing: dict[str, Any] = {}
        if is_whole and answer.say:
            timing = {"duration_ms": answer.duration_ms, "at_ms": answer.at_ms}
        speech = await make_speech(text, settings, self._script, **timing)
        spoken = response.spoken
        ids: dict[str, Any] = {"response_id": response.response_id, "item_id": response.item_id}
        base_ms = spoken.sent_ms
        wait_s = self._run.wait_s(self._script.delays.audio_ms) if settings.audio and not base_ms else 0.0
        began = clock() + wait_s
        for piece in spoken.schedule(speech, base_ms):
            response.check()
            for unit in piece.units:
                spoken.text += text[unit.start : unit.end]
                await self._tell(Said(**ids, delta=text[unit.start : unit.end]))
                if settings.audio:
                    at_ms, end_ms = base_ms + unit.at_ms, base_ms + unit.end_ms
                    await self._tell(WordSpoken(**ids, word=unit.word, at_ms=at_ms, end_ms=end_ms))
            if wait_s:
                await response.pause(wait_s)
                wait_s = 0.0
            if settings.audio:
                pcm = await speech.pcm(piece.from_ms, piece.to_ms)
                await self._tell(Sounded(**ids, pcm=pcm))
                spoken.sent_ms = base_ms + piece.to_ms
                self._n_output_ms += piece.to_ms - piece.from_ms
            if self._faults is not None:
                sent_ms = base_ms + piece.to_ms
                if not await self._faults.reach_audio("response", self._n["response"], sent_ms):
                    raise Cut("failed")
            await response.pause(began + piece.to_ms / 1000 / self._script.pace - clock())

    async def _call(self, response: Response) -> None:
        response.check()
        calls = [call for call in response.answer.calls if self._settings.tool(call.tool) is not None]
        for call in response.answer.calls:
            if call not in calls:
                problem = f"The script calls {call.tool!r}, which the session does not declare."
                await self._tell(Warned("tool_undeclared", problem))
        if not calls:
            return
        if self._script.delays.tool_ms:
            await response.pause(self._run.wait_s(self._script.delays.tool_ms))
        # Every call is known before the first is sent: its result may come at once.
        made = [(self._new_id("call_"), call) for call in calls]
        call_ids = tuple(call_id for call_id, _ in made)
        found = ToolRound(call_ids, tuple(call.tool for call in calls), response.answer.then, response.names)
        for call_id in call_ids:
            self._rounds[call_id] = found
        while len(self._rounds) > _WAITING_KEPT:
            self._rounds.popitem(last=False)
        for call_id, call in made:
            if not await self._reach("tool"):
                raise Cut("failed")
            await self._tell(
                Called(
                    response_id=response.response_id,
                    call_id=call_id,
                    name=call.tool,
                    arguments=arguments_for(call, response.names),
                )
            )

    # -- accounts -------------------------------------------------------------------------------

    def _usage_of(self, response: Response) -> dict[str, Any]:
        """Count what a response used: what its answer says, or what it was."""
        tokens = self._script.usage
        sent_s = response.spoken.sent_ms / 1000
        n_tokens = tokens.per_word * response.n_tokens + tokens.output_audio_per_s * sent_s
        counted = {"output_audio_s": sent_s, "output_tokens": _number(n_tokens)}
        given = response.answer.usage
        if given is not None:
            self._n_input_tokens += given.get("input_tokens", 0)
            n_tokens = given.get("output_tokens", n_tokens)
            counted = {**counted, **{key: _number(value) for key, value in given.items()}}
        self._n_output_tokens += n_tokens
        return counted

    def usage(self) -> dict[str, Any]:
        """Return what the session used so far."""
        heard_s = self._hearing.audio_ms / 1000
        n_input = self._n_input_tokens + self._script.usage.input_audio_per_s * heard_s
        return {
            "input_audio_s": round(heard_s, 3),
            "output_audio_s": round(self._n_output_ms / 1000, 3),
            "input_tokens": _number(n_input),
            "output_tokens": _number(self._n_output_tokens),
        }

    def cost(self) -> float:
        """Return the price of the session so far, in US dollars."""
        minutes = (self._hearing.audio_ms + self._n_output_ms) / 60_000
        return round(minutes * self._script.price_per_minute_usd, 9)

    # -- voices ---------------------------------------------------------------------------------

    async def check_synthesizer(self, settings: Settings) -> None:
        """Raise ConfigError when these settings ask for real speech and there is none here."""
        if uses_espeak(settings, self._script):
            from voxengine_mock import espeak

            await asyncio.get_running_loop().run_in_executor(None, espeak.require)

    async def check_voice(self) -> None:
        """Warn when the voice asked for is none of ours."""
        voice = self._settings.voice
        speaks = resolve_voice(self._settings, self._script).name
        if voice and voice != "espeak" and speaks != voice:
            await self._tell(Warned("voice_unknown", f"There is no voice {voice!r}; {speaks!r} speaks."))


def _number(value: float) -> int | float:
    """Return a whole number as such."""
    return int(value) if value == int(value) else round(value, 3)
