"""The simulated agent: the server's side of a conversation, over any transport.

It reads commands, listens, answers by its script and speaks at a natural pace. Time is the loop's and
random numbers are the script's, so under a virtual clock a session repeats exactly. Responses are given one
at a time; further requests wait.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from voxengine.codec import NewId, Role, VendorMessage, Wire
from voxengine.errors import ConfigError, ConnectionLost, ErrorCode, NotConnected, RemoteProtocolError
from voxengine_mock import codec
from voxengine_mock.codec import MockCodec, ProtocolFault
from voxengine_mock.hearing import Hearing, TurnEnded
from voxengine_mock.replies import ToolRound, arguments_for, choose
from voxengine_mock.script import Answer, Script, ScriptRun, fill
from voxengine_mock.settings import Settings
from voxengine_mock.speaking import Cut, Response, Spoken, make_speech, resolve_voice, uses_espeak

__all__ = ["SimulatedAgent", "Stream"]

_SPOKEN_KEPT: Final = 64
"""So many spoken items can still be cut at what was heard."""
_NOTHING_HEARD: Final = "I did not hear anything."
_CLOSED: Final = (ConnectionLost, NotConnected, RemoteProtocolError)


class Stream(Protocol):
    """What the agent needs of a transport. Its end is a ConnectionLost or NotConnected."""

    async def send(self, message: Wire, /) -> None: ...

    async def recv(self) -> Wire: ...


class SimulatedAgent:
    """One session of the agent.

    Args:
        transport: An open connection; the agent never closes it.
        script: What it hears and says.
        new_id: Makes the session's identifiers.
    """

    def __init__(self, transport: Stream, script: Script, new_id: NewId) -> None:
        self._transport = transport
        self._script = script
        self._run = ScriptRun(script)
        self._codec = MockCodec(Role.SERVER, new_id)
        self._new_id = new_id
        self._settings: Settings | None = None
        self._hearing = Hearing(Settings(), self._run.hear, new_id)
        self._waiting: deque[Response] = deque()
        self._response: Response | None = None
        self._saying: Response | None = None
        self._spoken: OrderedDict[str, Spoken] = OrderedDict()
        self._rounds: dict[str, ToolRound] = {}
        self._user_said: deque[str] = deque(maxlen=8)
        self._unanswered: list[str] = []
        self._n_output_ms = 0
        self._n_input_tokens = 0
        self._n_output_tokens = 0
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Serve the session until the other side ends it. Leaves no task behind, also when cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            try:
                await self._read()
            except _CLOSED:
                pass
            finally:
                self._waiting.clear()
                if self._response is not None and self._response.task is not None:
                    self._response.task.cancel()

    # -- reading --------------------------------------------------------------------------------

    async def _read(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            wire = await self._transport.recv()
            for message in self._codec.decode(wire, clock()):
                if isinstance(message, codec.Bye):
                    return
                await self._take(message)

    async def _take(self, message: codec.Message | VendorMessage | ProtocolFault) -> None:
        if isinstance(message, ProtocolFault):
            await self._fail(ErrorCode.PROTOCOL, message.reason)
        elif isinstance(message, VendorMessage):
            await self._fail(ErrorCode.INVALID_REQUEST, "The session has no message of that type.")
        elif isinstance(message, codec.Hello):
            await self._open(message)
        elif self._settings is None:
            await self._fail(ErrorCode.INVALID_REQUEST, "The first message of a session is hello.")
        else:
            await _HANDLERS[type(message)](self, message)

    async def _open(self, message: codec.Hello) -> None:
        if self._settings is not None:
            await self._fail(ErrorCode.INVALID_REQUEST, "The session is open already.")
            return
        try:
            settings = Settings().merged(message.settings)
            await self._check_synthesizer(settings)
        except ConfigError as error:
            await self._fail(ErrorCode.INVALID_REQUEST, str(error))
            return
        self._settings = settings
        self._hearing.configure(settings)
        await self._send(codec.Ready(session_id=self._new_id("sess_"), settings=settings.to_dict()))
        await self._check_voice()

    async def _configure(self, message: codec.Configure) -> None:
        before = self._now
        try:
            settings = before.merged(message.settings, is_open=True)
            await self._check_synthesizer(settings)
        except ConfigError as error:
            await self._fail(ErrorCode.INVALID_REQUEST, str(error))
            return
        self._settings = settings
        self._hearing.configure(settings)
        await self._send(codec.SettingsChanged(settings=settings.to_dict()))
        if settings.voice != before.voice:
            await self._check_voice()

    async def _input_audio(self, message: codec.InputAudio) -> None:
        for sound in self._hearing.push(message.audio):
            await self._sound(sound)

    async def _sound(self, sound: codec.Message | TurnEnded) -> None:
        if isinstance(sound, TurnEnded):
            self._note_user(sound.text)
            if self._now.turn_detection == "server":
                self._answer("audio", self._take_unanswered())
            return
        await self._send(sound)
        if isinstance(sound, codec.SpeechStarted) and self._now.interrupt_response:
            self._cut(self._response)

    async def _end_turn(self, message: codec.EndTurn) -> None:
        had_audio = self._hearing.has_audio
        for sound in self._hearing.end_turn():
            await self._sound(sound)
        if not message.respond:
            return
        if self._unanswered:
            self._answer("audio", self._take_unanswered())
        elif self._now.turn_detection != "server" or (had_audio and not self._user_said):
            # Somebody waits for an answer, so silence gets one too. Under server detection the speech was
            # answered when it ended, and the end of the audio asks for nothing more.
            self._request("audio", Answer(say=_NOTHING_HEARD), {})

    async def _discard(self, _: codec.Discard) -> None:
        self._hearing.discard()

    async def _input_text(self, message: codec.InputText) -> None:
        self._note_user(message.text)
        self._answer("text", self._take_unanswered())

    async def _cancel(self, message: codec.Cancel) -> None:
        active = self._response
        item_id = message.item_id or (active.item_id if active is not None else "")
        if active is not None and not active.is_over:
            self._cut(active, message.played_ms if item_id == active.item_id else None)
            if item_id == active.item_id:
                return
        spoken = self._spoken.get(item_id)
        if spoken is not None and message.played_ms is not None:
            heard_ms, heard_text = spoken.heard(message.played_ms)
            await self._send(codec.Truncated(item_id=item_id, heard_ms=heard_ms, heard_text=heard_text))

    async def _tool_result(self, message: codec.ToolResult) -> None:
        found = self._rounds.pop(message.call_id, None)
        if found is None:
            await self._fail(ErrorCode.INVALID_REQUEST, "There is no open tool call of that id.")
            return
        found.results[message.call_id] = (message.output, message.is_error)
        if found.is_complete:
            answer, names = found.follow_up()
            self._n_input_tokens += sum(len(output.split()) for output, _ in found.results.values())
            self._request("tool", answer, names)

    async def _add_items(self, message: codec.AddItems) -> None:
        for item in message.items:
            text = item.get("text")
            if item.get("kind") in ("user_text", "user_audio") and isinstance(text, str) and text:
                self._note_user(text)
            elif item.get("kind") == "agent":
                self._unanswered.clear()

    async def _speak(self, message: codec.Speak) -> None:
        if self._saying is None:
            self._saying = self._request("say", Answer(), {}, is_open=True)
        self._saying.add(message.text, is_last=message.is_last)
        if message.is_last:
            self._saying = None

    # -- deciding -------------------------------------------------------------------------------

    @property
    def _now(self) -> Settings:
        assert self._settings is not None
        return self._settings

    def _note_user(self, text: str) -> None:
        self._user_said.append(text)
        self._unanswered.append(text)
        self._n_input_tokens += len(text.split())

    def _take_unanswered(self) -> str:
        """Return the last thing that waits for an answer; one answer covers what came before it."""
        text = self._unanswered[-1]
        self._unanswered.clear()
        return text

    def _answer(self, trigger: str, text: str) -> None:
        answer, groups = choose(text, self._run, self._now, tuple(self._user_said)[:-1])
        self._request(trigger, answer, {**self._names(), **groups, "text": text})

    def _names(self) -> dict[str, Any]:
        settings = self._now
        return {
            "instructions": settings.instructions,
            "language": settings.language,
            "voice": resolve_voice(settings, self._script).name,
        }

    def _request(
        self, trigger: str, answer: Answer, names: Mapping[str, Any], *, is_open: bool = False
    ) -> Response:
        response = Response(self._new_id("resp_"), self._new_id("item_"), trigger, answer, dict(names))
        response.delay_s = self._run.delay_s(answer)
        if not is_open:
            response.add(fill(answer.say, names), is_last=True)
        self._waiting.append(response)
        self._start_next()
        return response

    def _start_next(self) -> None:
        if self._response is None and self._waiting and self._tasks is not None:
            self._response = self._waiting.popleft()
            self._response.task = self._tasks.create_task(self._perform(self._response))

    def _cut(self, response: Response | None, played_ms: int | None = None) -> None:
        """Ask a response to stop; it ends itself between two messages, so none is sent by half."""
        if response is not None and not response.is_over:
            response.cut(played_ms)

    # -- answering ------------------------------------------------------------------------------

    async def _perform(self, response: Response) -> None:
        try:
            response_id = response.response_id
            await self._send(codec.ResponseStarted(response_id=response_id, trigger=response.trigger))
            try:
                await response.pause(response.delay_s)
                status = await self._say(response)
                await self._call(response)
                response.is_over = True
            except Cut:
                response.is_over = True
                await self._send(self._cancelled(response))
            else:
                usage = {"output_audio_s": response.spoken.sent_ms / 1000, "output_tokens": response.n_tokens}
                done = codec.ResponseDone(response_id=response_id, status=status, usage=usage)
                await self._send(done)
            await self._send(codec.Usage(usage=self._usage(), cost=self._cost()))
        except _CLOSED:
            return  # Nobody listens any more; the reader learns the same.
        self._response = None
        self._start_next()

    def _cancelled(self, response: Response) -> codec.ResponseCancelled:
        heard_ms: int | None = None
        heard_text: str | None = None
        if response.played_ms is not None:
            heard_ms, heard_text = response.spoken.heard(response.played_ms)
        return codec.ResponseCancelled(
            response_id=response.response_id,
            item_id=response.item_id,
            reason="interrupted",
            heard_ms=heard_ms,
            heard_text=heard_text,
        )

    async def _say(self, response: Response) -> str:
        self._spoken[response.item_id] = response.spoken
        if len(self._spoken) > _SPOKEN_KEPT:
            self._spoken.popitem(last=False)
        status = "completed"
        limit = self._now.max_output_tokens
        while (text := await response.next_piece()) is not None:
            words = list(re.finditer(r"\S+", text))
            if limit is not None and response.n_tokens + len(words) > limit:
                kept = max(0, limit - response.n_tokens)
                text = text[: words[kept - 1].end()] if kept else ""
                words, status = words[:kept], "incomplete"
            response.n_tokens += len(words)
            self._n_output_tokens += len(words)
            if text:
                await self._say_piece(response, text)
        if response.spoken.text:
            await self._send(
                codec.TextDone(
                    response_id=response.response_id, item_id=response.item_id, text=response.spoken.text
                )
            )
        return status

    async def _say_piece(self, response: Response, text: str) -> None:
        settings, clock = self._now, asyncio.get_running_loop().time
        speech = await make_speech(text, settings, self._script)
        spoken = response.spoken
        ids: dict[str, Any] = {"response_id": response.response_id, "item_id": response.item_id}
        base_ms, began = spoken.sent_ms, clock()
        for piece in spoken.schedule(speech, base_ms):
            response.check()
            for unit in piece.units:
                spoken.text += text[unit.start : unit.end]
                await self._send(codec.TextDelta(**ids, delta=text[unit.start : unit.end]))
                if settings.audio:
                    await self._send(codec.WordMark(**ids, word=unit.word, at_ms=base_ms + unit.at_ms))
            if settings.audio:
                pcm = await speech.pcm(piece.from_ms, piece.to_ms)
                await self._send(codec.AudioDelta.of(response.response_id, response.item_id, pcm))
                spoken.sent_ms = base_ms + piece.to_ms
                self._n_output_ms += piece.to_ms - piece.from_ms
            await response.pause(began + piece.to_ms / 1000 / self._script.pace - clock())

    async def _call(self, response: Response) -> None:
        response.check()
        calls = [call for call in response.answer.calls if self._now.tool(call.tool) is not None]
        for call in response.answer.calls:
            if call not in calls:
                problem = f"The script calls {call.tool!r}, which the session does not declare."
                await self._warn("tool_undeclared", problem)
        if not calls:
            return
        # Every call is known before the first is sent: its result may come at once.
        made = [(self._new_id("call_"), call) for call in calls]
        then = response.answer.then
        call_ids = tuple(call_id for call_id, _ in made)
        found = ToolRound(call_ids, tuple(call.tool for call in calls), then, response.names)
        for call_id in call_ids:
            self._rounds[call_id] = found
        for call_id, call in made:
            await self._send(
                codec.ToolCall(
                    response_id=response.response_id,
                    call_id=call_id,
                    name=call.tool,
                    arguments=json.dumps(arguments_for(call, response.names)),
                )
            )

    # -- telling --------------------------------------------------------------------------------

    def _usage(self) -> dict[str, Any]:
        return {
            "input_audio_s": round(self._hearing.audio_ms / 1000, 3),
            "output_audio_s": round(self._n_output_ms / 1000, 3),
            "input_tokens": self._n_input_tokens,
            "output_tokens": self._n_output_tokens,
        }

    def _cost(self) -> float:
        minutes = (self._hearing.audio_ms + self._n_output_ms) / 60_000
        return round(minutes * self._script.price_per_minute_usd, 9)

    async def _check_synthesizer(self, settings: Settings) -> None:
        if uses_espeak(settings, self._script):
            from voxengine_mock import espeak

            await asyncio.get_running_loop().run_in_executor(None, espeak.require)

    async def _check_voice(self) -> None:
        voice = self._now.voice
        if voice and voice != "espeak" and resolve_voice(self._now, self._script).name != voice:
            speaks = resolve_voice(self._now, self._script).name
            await self._warn("voice_unknown", f"There is no voice {voice!r}; {speaks!r} speaks.")

    async def _warn(self, code: str, message: str) -> None:
        await self._send(codec.Warn(code=code, message=message))

    async def _fail(self, code: ErrorCode, message: str) -> None:
        is_open = self._settings is not None
        await self._send(codec.Error(code=code.value, message=message, recoverable=is_open))

    async def _send(self, message: codec.Message) -> None:
        for wire in self._codec.encode(message):
            await self._transport.send(wire)


_HANDLERS: Final[dict[type, Callable[[SimulatedAgent, Any], Any]]] = {
    codec.Configure: SimulatedAgent._configure,
    codec.InputAudio: SimulatedAgent._input_audio,
    codec.EndTurn: SimulatedAgent._end_turn,
    codec.Discard: SimulatedAgent._discard,
    codec.InputText: SimulatedAgent._input_text,
    codec.Cancel: SimulatedAgent._cancel,
    codec.ToolResult: SimulatedAgent._tool_result,
    codec.AddItems: SimulatedAgent._add_items,
    codec.Speak: SimulatedAgent._speak,
}
