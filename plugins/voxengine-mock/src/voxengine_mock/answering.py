"""How the agent answers: one response after the other, and beside them those that wait for nobody."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from voxengine.codec import NewId
from voxengine.errors import ErrorCode
from voxengine_mock.happenings import (
    Called,
    Failed,
    Happening,
    ResponseEnded,
    ResponseStarted,
    Said,
    SaidAll,
    Sounded,
    Truncated,
    Warned,
    WordSpoken,
)
from voxengine_mock.points import Account, Points, Tell, plain_number
from voxengine_mock.replies import ToolRound, arguments_for
from voxengine_mock.script import Answer, Call, ScriptRun, fill
from voxengine_mock.settings import Settings
from voxengine_mock.speaking import Cut, Response, Spoken, make_speech
from voxengine_mock.voice import Speech

__all__ = ["Answering", "Ask"]

_SPOKEN_KEPT: Final = 64
"""So many spoken items can still be cut at what was heard."""
_WAITING_KEPT: Final = 1000
"""So many requests wait for an answer, and so many calls for a result."""
_BESIDE_KEPT: Final = 64
"""So many responses are given at the same time."""
_SAID_CHARS: Final = 20_000
"""The longest answer: about twenty minutes."""


@attrs.frozen(kw_only=True)
class Ask:
    """What one response is asked for, where that differs from the session's own way."""

    text: str | None = attrs.field(default=None, repr=False)
    """What it answers; None: what the user said last that has no answer yet."""
    earlier: Sequence[str] = attrs.field(default=(), repr=False)
    """What the user said before ``text``, oldest first."""
    after_call: str = ""
    """It follows the result of this call."""
    settings: Settings | None = None
    """What holds for it; None: the session's."""
    is_beside: bool = False
    """It is given at once, beside others, and neither they nor the user's voice stop it."""
    tag: Any = attrs.field(default=None, repr=False)
    """Comes back with :class:`~voxengine_mock.happenings.ResponseStarted`."""


class Answering:
    """The responses of one session.

    Args:
        spawn: Runs work beside the session and ends it with that.
        ended: Called when a response is over, before the next one begins.
    """

    def __init__(
        self,
        run: ScriptRun,
        new_id: NewId,
        tell: Tell,
        points: Points,
        account: Account,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        ended: Callable[[Response], Coroutine[Any, Any, None]],
    ) -> None:
        self._run = run
        self._script = run.script
        self._new_id = new_id
        self._tell = tell
        self._points = points
        self._account = account
        self._spawn = spawn
        self._ended = ended
        self._waiting: deque[Response] = deque()
        self._current: Response | None = None
        self._beside: dict[str, Response] = {}
        self._saying: Response | None = None
        self._failing: dict[asyncio.Task[Any] | None, str] = {}
        """By the task that gives the response: what goes wrong later goes wrong in another one."""
        self._is_open = True
        self._spoken: OrderedDict[str, Spoken] = OrderedDict()
        self._rounds: OrderedDict[str, ToolRound] = OrderedDict()

    def close(self) -> None:
        """Begin nothing more."""
        self._is_open = False
        self._waiting.clear()

    # -- requests -------------------------------------------------------------------------------

    @property
    def current(self) -> Response | None:
        """The response under way or next in turn; one that was asked to stop does not count."""
        if self._current is not None and not (self._current.is_over or self._current.is_cut):
            return self._current
        return self._waiting[0] if self._waiting else None

    async def request(
        self,
        trigger: str,
        answer: Answer,
        names: Mapping[str, Any],
        settings: Settings,
        *,
        ask: Ask | None = None,
        is_open: bool = False,
    ) -> Response | None:
        """Give an answer when its turn comes; with ``is_open`` its words follow. None: it was refused."""
        ask = ask or Ask()
        if len(self._waiting) >= _WAITING_KEPT or (ask.is_beside and len(self._beside) >= _BESIDE_KEPT):
            await self._tell(Failed(ErrorCode.RATE_LIMIT, "Too many requests wait for an answer."))
            return None
        response = Response(
            self._new_id("resp_"),
            self._new_id("item_"),
            trigger,
            answer,
            dict(names),
            settings,
            is_beside=ask.is_beside,
            tag=ask.tag,
        )
        response.delay_s = self._run.delay_s(answer)
        if not is_open:
            response.add(fill(answer.say, names)[:_SAID_CHARS], is_last=True)
        if ask.is_beside and self._is_open:
            self._beside[response.response_id] = response
            response.task = self._spawn(self._perform(response))
        else:
            self._waiting.append(response)
            self._start_next()
        return response

    def _start_next(self) -> None:
        if self._current is None and self._waiting and self._is_open:
            self._current = self._waiting.popleft()
            self._current.task = self._spawn(self._perform(self._current))

    async def speak(self, text: str, settings: Settings, *, is_last: bool) -> None:
        """Say a text as it is; more of the same utterance follows unless ``is_last``."""
        if self._saying is None:
            self._saying = await self.request("say", Answer(), {}, settings, is_open=True)
        if self._saying is None:
            return
        room = _SAID_CHARS - self._saying.n_chars
        if len(text) > room:
            problem = f"A text to say has at most {_SAID_CHARS} letters."
            await self._tell(Failed(ErrorCode.INVALID_REQUEST, problem))
        self._saying.add(text[: max(0, room)], is_last=is_last)
        if is_last:
            self._saying = None

    async def cancel(self, item_id: str, played_ms: int | None, response_id: str = "") -> None:
        """Stop a response (empty: the one under way), and cut an item at what was played of it (empty: its own)."""
        active = self._current
        if response_id and (active is None or active.response_id != response_id):
            self.cut(None, response_id=response_id)
            active = None  # What came after the one that is meant goes on.
        item_id = item_id or (active.item_id if active is not None else "")
        if active is not None and not active.is_over:
            self.cut(played_ms if item_id == active.item_id else None)
            if item_id == active.item_id:
                return
        spoken = self._spoken.get(item_id)
        if spoken is not None and played_ms is not None:
            heard_ms, heard_text = spoken.heard(played_ms)
            await self._tell(Truncated(item_id=item_id, heard_ms=heard_ms, heard_text=heard_text))

    def cut(self, played_ms: int | None, *, response_id: str = "", reason: str = "client") -> bool:
        """Ask a response to stop; it ends itself between two messages, so none is sent by half.

        Args:
            response_id: Empty: the one under way that is not beside others, else the next in turn.

        Returns:
            Whether there is one.
        """
        found: Response | None
        if response_id:
            known = (*self._beside.values(), *((self._current,) if self._current else ()), *self._waiting)
            found = next((each for each in known if each.response_id == response_id), None)
        else:
            found = self.current or self._current
        if found is None or found.is_over:
            return False
        found.cut(played_ms, reason)
        return True

    # -- calls ----------------------------------------------------------------------------------

    def round_of(self, call_id: str) -> ToolRound | None:
        """Return the calls that were made together with this one, unless what follows them was begun."""
        found = self._rounds.get(call_id)
        return None if found is None or found.is_over else found

    def take_result(self, call_id: str, output: str, *, is_error: bool) -> ToolRound | None:
        """Keep a call's result; None when there is no open call of that id."""
        found = self.round_of(call_id)
        if found is None or call_id in found.results:
            return None
        found.results[call_id] = (output, is_error)
        return found

    # -- answering ------------------------------------------------------------------------------

    async def tell_fault(self, happening: Happening) -> None:
        """Tell what the script lets go wrong, with the response that it goes wrong with."""
        response_id = self._failing.get(asyncio.current_task())
        if isinstance(happening, Failed) and response_id:
            happening = attrs.evolve(happening, response_id=response_id)
        await self._tell(happening)

    async def _perform(self, response: Response) -> None:
        response.number = self._points.count("response")
        ids = {"response_id": response.response_id}
        if await self._goes_on(response, None):
            item_id = response.item_id
            await self._tell(
                ResponseStarted(**ids, item_id=item_id, trigger=response.trigger, tag=response.tag)
            )
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
                ResponseEnded(
                    **ids,
                    item_id=response.item_id,
                    status=status,
                    usage=usage,
                    heard_ms=heard[0],
                    heard_text=heard[1],
                    reason=response.reason if status == "cancelled" else "",
                )
            )
            await self._ended(response)
        response.is_over = True
        if response.is_beside:
            self._beside.pop(response.response_id, None)
            return
        self._current = None
        self._start_next()

    async def _goes_on(self, response: Response, sent_ms: int | None) -> bool:
        """Reach the begin of a response, or a point of its audio; what fails there fails with it."""
        faults = self._points.faults
        if faults is None:
            return True
        with self._failing_with(response):
            if sent_ms is None:
                return await faults.reach("response", response.number)
            return await faults.reach_audio("response", response.number, sent_ms)

    @contextlib.contextmanager
    def _failing_with(self, response: Response) -> Iterator[None]:
        """What goes wrong within the block goes wrong with this response."""
        task = asyncio.current_task()
        self._failing[task] = response.response_id
        try:
            yield
        finally:
            del self._failing[task]

    async def _say(self, response: Response) -> str:
        self._spoken[response.item_id] = response.spoken
        if len(self._spoken) > _SPOKEN_KEPT:
            self._spoken.popitem(last=False)
        status = "completed"
        while (text := await response.next_piece()) is not None:
            if text and status == "completed" and not await self._say_piece(response, text):
                status = "incomplete"
        if response.spoken.text:
            await self._tell(
                SaidAll(
                    response_id=response.response_id,
                    item_id=response.item_id,
                    text=response.spoken.text,
                    is_whole=status == "completed",
                )
            )
        return status

    async def _prepare(self, response: Response, text: str) -> tuple[str, Speech, int | None, bool]:
        """Return what may be said of a text, as speech, until when, and whether that is all of it."""
        settings, tokens = response.settings, self._script.usage
        answer = response.answer
        timing: dict[str, Any] = {}
        if answer.say and response.spoken.text == "" and not response.n_tokens:
            timing = {"duration_ms": answer.duration_ms, "at_ms": answer.at_ms}
        words = list(re.finditer(r"\S+", text))
        speech = await make_speech(text, settings, self._script, **timing)
        limit = settings.max_output_tokens
        if limit is None:
            response.n_tokens += len(words)
            return text, speech, None, True
        per_s = tokens.output_audio_per_s if settings.audio else 0.0
        left = limit - tokens.per_word * response.n_tokens - per_s * response.sent_ms / 1000
        if tokens.per_word * len(words) + per_s * speech.duration_ms / 1000 <= left:
            response.n_tokens += len(words)
            return text, speech, None, True
        n_kept, until_ms = 0, speech.duration_ms
        for n, word in enumerate(words, 1):
            begins_ms = next((u.at_ms for u in speech.units if u.end > word.start()), speech.duration_ms)
            if tokens.per_word * n + per_s * begins_ms / 1000 > left:
                break
            n_kept = n
        text = text[: words[n_kept - 1].end()] if n_kept else ""
        if not per_s:
            speech = await make_speech(text, settings, self._script)
            until_ms = speech.duration_ms
        else:
            until_ms = int(max(0.0, left - tokens.per_word * n_kept) * 1000 / per_s)
        response.n_tokens += n_kept
        return text, speech, until_ms, False

    async def _say_piece(self, response: Response, whole_text: str) -> bool:
        """Say a text, and return whether all of it was said."""
        settings, clock = response.settings, asyncio.get_running_loop().time
        text, speech, until_ms, is_whole = await self._prepare(response, whole_text)
        if not text:
            return is_whole
        spoken = response.spoken
        ids: dict[str, Any] = {"response_id": response.response_id, "item_id": response.item_id}
        base_ms = spoken.sent_ms
        wait_s = self._run.wait_s(self._script.delays.audio_ms) if settings.audio and not base_ms else 0.0
        began = clock() + wait_s
        for piece in spoken.schedule(speech, base_ms):
            response.check()
            for unit in piece.units:
                if unit.start >= len(text):
                    break
                delta = text[unit.start : unit.end]
                spoken.text += delta
                await self._tell(Said(**ids, delta=delta))
                if settings.audio:
                    at_ms, end_ms = base_ms + unit.at_ms, base_ms + unit.end_ms
                    await self._tell(WordSpoken(**ids, word=unit.word, at_ms=at_ms, end_ms=end_ms))
            if wait_s:
                await response.pause(wait_s)
                wait_s = 0.0
            to_ms = piece.to_ms if until_ms is None else min(piece.to_ms, until_ms)
            if settings.audio and to_ms > piece.from_ms:
                pcm = await speech.pcm(piece.from_ms, to_ms)
                await self._tell(Sounded(**ids, pcm=pcm))
                spoken.sent_ms = base_ms + to_ms
                response.sent_ms += to_ms - piece.from_ms
                self._account.n_output_ms += to_ms - piece.from_ms
            if not await self._goes_on(response, base_ms + to_ms):
                raise Cut("failed")
            await response.pause(began + to_ms / 1000 / self._script.pace - clock())
            if until_ms is not None and to_ms >= until_ms:
                break
        return is_whole

    async def _call(self, response: Response) -> None:
        response.check()
        settings = response.settings
        if settings.tool_choice == "none":
            return
        calls = [call for call in response.answer.calls if settings.tool(call.tool) is not None]
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
            with self._failing_with(response):
                goes_on = await self._points.reach("tool")
            if not goes_on:
                raise Cut("failed")
            await self._make_call(response, call_id, call, found)
        if found.is_complete and not found.is_over:
            found.is_over = True
            answer, names = found.follow_up()
            response.next_item(self._new_id("item_"))
            response.add(fill(answer.say, names)[:_SAID_CHARS], is_last=True)
            await self._say(response)

    async def _make_call(self, response: Response, call_id: str, call: Call, found: ToolRound) -> None:
        tool = response.settings.tool(call.tool)
        result: str | None = None
        if tool is not None and tool.is_remote and not tool.needs_approval:
            result = f"{call.tool} is done."
            found.results[call_id] = (result, False)
        await self._tell(
            Called(
                response_id=response.response_id,
                call_id=call_id,
                name=call.tool,
                arguments=arguments_for(call, response.names),
                result=result,
            )
        )

    def _usage_of(self, response: Response) -> dict[str, Any]:
        """Count what a response used: what its answer says, or what it was."""
        tokens = self._script.usage
        sent_s = response.sent_ms / 1000
        n_tokens = tokens.per_word * response.n_tokens + tokens.output_audio_per_s * sent_s
        counted = {"output_audio_s": sent_s, "output_tokens": plain_number(n_tokens)}
        given = response.answer.usage
        if given is not None:
            self._account.n_input_tokens += given.get("input_tokens", 0)
            n_tokens = given.get("output_tokens", n_tokens)
            counted = {**counted, **{key: plain_number(value) for key, value in given.items()}}
        self._account.n_output_tokens += n_tokens
        return counted
