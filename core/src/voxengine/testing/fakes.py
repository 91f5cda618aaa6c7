"""Providers without a service, for tests of applications.

:class:`FakeProvider` behaves: it answers every turn, keeps what it was given and fulfils every law of the
conformance kit. :func:`scripted_provider` does exactly what a test writes down, right or wrong.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

import attrs

from voxengine.audio.format import AudioFormat
from voxengine.capabilities import FULL, UNSUPPORTED, Capabilities
from voxengine.config import TurnDetection
from voxengine.errors import (
    AuthenticationFailed,
    CapabilityMissing,
    ErrorCode,
    LocalProtocolError,
    NotConnected,
    ProviderError,
)
from voxengine.events import EventType
from voxengine.history import Heard, Item
from voxengine.providers.base import BaseProvider

if TYPE_CHECKING:
    from typing import TypeAlias

__all__ = ["FakeProvider", "Step", "scripted_provider"]

Step: TypeAlias = "tuple[EventType | str, Mapping[str, Any]] | float | Exception"
"""What a scripted provider does: emit an event, wait so many seconds, or raise from the call."""

_LOUD: Final = 500
_ENDPOINT_MS: Final = 300
_LONG: Final = 400
"""Words of an answer to something that asks for a long story."""


@attrs.define
class _Answer:
    id: str
    item_id: str
    trigger: str
    text: str
    calls: tuple[str, ...] = ()
    is_closed: bool = True
    """Whether no more text follows."""


class FakeProvider(BaseProvider):
    """A voice service that exists in memory only.

    It answers a turn with :attr:`reply`, word by word, as text and as 20 ms of tone a word. Audio louder
    than a whisper is speech, and 300 ms of silence end the user's turn. A text that names a declared tool
    calls it; one with "long" in it is answered at length.

    ``metadata["fault"]``: ``"refuse"`` (the credentials), ``"unreachable"``, ``"stall"`` (audio is never
    taken), ``"drop"`` (the session is lost at the first text turn).

    What it was given is kept in the attributes below.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        streaming=FULL,
        dialogue=FULL,
        recognition=FULL,
        synthesis=FULL,
        text_turn=FULL,
        speak=FULL,
        server_turn_detection=FULL,
        semantic_turn_detection=UNSUPPORTED,
        client_turn_detection=FULL,
        discard_input=FULL,
        session_tools=FULL,
        live_configuration=FULL,
        cancel=FULL,
        heard_text=UNSUPPORTED,
        resume=FULL,
        items=FULL,
        context_text=FULL,
        context_audio=UNSUPPORTED,
        context_tools=FULL,
        replay=FULL,
        response_boundaries=FULL,
        multiple_voices=FULL,
        vocabulary_at_connect=FULL,
        vocabulary_live=UNSUPPORTED,
        word_timings=FULL,
        emotion=UNSUPPORTED,
        usage=FULL,
        cost=FULL,
        voices=("first", "second"),
        input_formats=(AudioFormat(24_000), AudioFormat(16_000)),
        output_formats=(AudioFormat(24_000),),
        endpointing_silence_ms=_ENDPOINT_MS,
        cost_per_minute_usd=0.0,
    )
    conformance_peers: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "refused": {"metadata": {"fault": "refuse"}},
        "unreachable": {"metadata": {"fault": "unreachable"}},
        "stalled": {"metadata": {"fault": "stall"}},
        "lossy": {"metadata": {"fault": "drop"}},
    }
    """For the conformance kit: the options with which bad peers are simulated."""
    reply: ClassVar[str] = "This is what the fake says."
    heard_words: ClassVar[str] = "what the user said"
    """Transcript of every spoken turn."""
    word_s: ClassVar[float] = 0.02
    """Time between two words of an answer."""
    _n_sessions: ClassVar[int] = 0

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.audio = bytearray()
        """All the audio that was sent."""
        self.texts: list[str] = []
        """Text turns."""
        self.spoken: list[str] = []
        """What ``speak`` was given."""
        self.interrupts: list[Heard | None] = []
        self.configured: list[dict[str, Any]] = []
        self.items: list[Item] = []
        """From ``load_history`` and ``send_item``."""
        self.tool_results: list[tuple[str, str, bool]] = []
        self._format = config.get("input_format") or AudioFormat(24_000)
        self._is_open = False
        self._current: _Answer | None = None
        self._saying: _Answer | None = None
        self._waiting: list[_Answer] = []
        self._calls: dict[str, str] = {}
        self._more = asyncio.Event()
        self._n_answers = 0
        self._n_words = 0
        self._turn = bytearray()
        self._is_loud = False
        self._silence_ms = 0.0

    # -- the contract -------------------------------------------------------------------------------

    async def connect(self) -> None:
        await asyncio.sleep(0)
        if self._fault == "refuse":
            raise AuthenticationFailed("The fake refuses these credentials.", provider="fake")
        if self._fault == "unreachable":
            raise ProviderError("The fake cannot be reached.", provider="fake", code=ErrorCode.UNAVAILABLE)
        await asyncio.sleep(0)
        FakeProvider._n_sessions += 1
        self.session_id = f"fake-{FakeProvider._n_sessions}"
        self._is_open = True
        self.emit_event(EventType.CONNECTION_ESTABLISHED, {"session_id": self.session_id})

    async def disconnect(self) -> None:
        self._is_open = False
        self._waiting.clear()
        self._current = None
        await asyncio.sleep(0)

    async def send_audio(self, audio_data: bytes) -> None:
        self._check_open()
        self._format.check_aligned(len(audio_data), "send_audio")
        if self._fault == "stall":
            await asyncio.Event().wait()
        self.audio += audio_data
        self._turn += audio_data
        self._listen(audio_data)

    async def send_text(self, text: str) -> None:
        self._check_open()
        await asyncio.sleep(0)
        if self._fault == "drop":
            self.emit_event(EventType.CONNECTION_LOST, {"error": self._dropped(), "will_reconnect": False})
            return
        self.texts.append(text)
        calls = [name for name in self._tools() if name in text or name.replace("_", " ") in text]
        self._answer("text", " ".join([self.reply] * (_LONG // 6)) if "long" in text else self.reply, *calls)

    async def interrupt(self, heard: Heard | None = None) -> None:
        self._check_open()
        self.interrupts.append(heard)
        if self._current is not None:
            self._cancel(self._current)

    async def configure_session(self, config: Mapping[str, Any]) -> None:
        self._check_open()
        self.configured.append(dict(config))
        self.config = {**self.config, **config}
        in_force = {name: value for name, value in config.items() if name != "vocabulary"}
        self.emit_event(EventType.SESSION_UPDATED, {"settings": in_force})

    async def end_turn(self, respond: bool = True) -> None:
        self._check_open()
        self._end_turn(respond)

    async def discard_input(self) -> None:
        self._check_open()
        self._turn.clear()
        self._is_loud = False

    async def send_tool_result(self, call_id: str, output: str, is_error: bool = False) -> None:
        self._check_open()
        if self._calls.pop(call_id, None) is None:
            raise LocalProtocolError(f"There is no open call {call_id!r}.", provider="fake", recoverable=True)
        self.tool_results.append((call_id, output, is_error))
        self._answer("tool", self.reply)

    async def load_history(self, items: Sequence[Item]) -> None:
        self._check_open()
        self.items += items

    async def send_item(self, item: Item) -> None:
        self._check_open()
        self.items.append(item)

    async def speak(self, text: str, is_last: bool = True) -> None:
        self._check_open()
        self.spoken.append(text)
        if self._saying is None:
            self._saying = self._answer("say", text)
        else:
            self._saying.text += f" {text}"
        self._saying.is_closed = is_last
        if is_last:
            self._saying = None
        self._more.set()

    async def resume(self, handle: str) -> None:
        self._check_open()

    async def get_usage(self) -> dict[str, Any] | None:
        return {"input_audio_s": len(self.audio) / self._format.bytes_per_s, "output_tokens": self._n_words}

    async def estimate_cost(self) -> float | None:
        return self._n_words * 0.001

    # -- listening ------------------------------------------------------------------------------------

    def _listen(self, chunk: bytes) -> None:
        turns = self.config.get("turn_detection")
        if isinstance(turns, TurnDetection) and turns.kind in ("manual", "client"):
            return
        samples = array("h", chunk)
        if samples and max(samples) > _LOUD:
            self._silence_ms = 0.0
            if not self._is_loud:
                self._is_loud = True
                self.emit_event(EventType.SPEECH_STARTED, {"source": "server"})
        elif self._is_loud:
            self._silence_ms += self._format.duration_ms(len(chunk))
            if self._silence_ms >= _ENDPOINT_MS:
                self.emit_event(EventType.SPEECH_ENDED, {"source": "server"})
                self._end_turn(True)

    def _end_turn(self, respond: bool) -> None:
        samples = array("h", bytes(self._turn))
        self._turn.clear()
        self._is_loud = False
        if samples and max(samples) > _LOUD:
            data = {"text": self.heard_words, "delta": self.heard_words, "is_partial": False}
            self.emit_event(EventType.INPUT_TRANSCRIPT, {**data, "item_id": f"user-{self._n_answers}"})
        if respond:
            self._answer("audio", self.reply)

    # -- answering ------------------------------------------------------------------------------------

    def _answer(self, trigger: str, text: str, *calls: str) -> _Answer:
        self._n_answers += 1
        answer = _Answer(f"response-{self._n_answers}", f"item-{self._n_answers}", trigger, text, calls)
        self._waiting.append(answer)
        self._next()
        return answer

    def _next(self) -> None:
        if self._current is None and self._waiting and self._is_open:
            self._current = self._waiting.pop(0)
            self.start_task(self._perform(self._current), name="fake answer")

    async def _perform(self, answer: _Answer) -> None:
        self._started(answer)
        said = 0
        while self._current is answer:
            words = answer.text.split()
            if said < len(words):
                self._word(answer, words, said)
                said += 1
                await asyncio.sleep(self.word_s)
            elif answer.is_closed:
                self._finished(answer)
            else:
                self._more.clear()
                await self._more.wait()

    def _started(self, answer: _Answer) -> None:
        data = {"response_id": answer.id, "trigger": answer.trigger}
        self.emit_event(EventType.RESPONSE_STARTED, data)

    def _word(self, answer: _Answer, words: Sequence[str], n: int) -> None:
        self._n_words += 1
        ids = {"response_id": answer.id, "item_id": answer.item_id}
        delta = words[n] if n == 0 else f" {words[n]}"
        text = " ".join(words[: n + 1])
        self.emit_event(EventType.TEXT_OUTPUT, {"text": text, "delta": delta, "is_partial": True, **ids})
        self.emit_event(EventType.SPEECH_MARK, {"kind": "word", "value": words[n], "at_ms": 20 * n, **ids})
        self._sound(ids)

    def _sound(self, ids: Mapping[str, str]) -> None:
        data = {"audio_data": b"\x00\x20" * 480, "sample_rate": 24_000, "channels": 1}
        self.emit_event(EventType.AUDIO_OUTPUT_CHUNK, {**data, **ids})

    def _finished(self, answer: _Answer) -> None:
        ids = {"response_id": answer.id, "item_id": answer.item_id}
        done = {"text": " ".join(answer.text.split()), "delta": "", "is_partial": False}
        self.emit_event(EventType.TEXT_OUTPUT, {**done, **ids})
        for n, name in enumerate(answer.calls):
            call_id = f"call-{answer.id}-{n}"
            self._calls[call_id] = name
            self._call(name, call_id, {"response_id": answer.id})
        self.emit_event(EventType.USAGE_UPDATED, {"usage": {"output_tokens": self._n_words}, "cost": 0.0})
        self._completed(answer)
        self._current = None
        self._next()

    def _completed(self, answer: _Answer) -> None:
        data = {"response_id": answer.id, "status": "completed"}
        self.emit_event(EventType.RESPONSE_COMPLETED, data)

    def _call(self, name: str, call_id: str, ids: Mapping[str, str]) -> None:
        required = self._tools()[name].get("parameters", {}).get("required", [])
        arguments = dict.fromkeys(required, "something")
        data = {"name": name, "call_id": call_id, "arguments": arguments, **ids}
        self.emit_event(EventType.FUNCTION_CALL_INVOKED, data)

    def _cancel(self, answer: _Answer) -> None:
        self._current = None
        self._saying = None if self._saying is answer else self._saying
        data = {"response_id": answer.id, "reason": "interrupted"}
        self.emit_event(EventType.RESPONSE_CANCELLED, data)
        self._more.set()
        self._next()

    # -- inside -----------------------------------------------------------------------------------------

    @property
    def _fault(self) -> object:
        return (self.config.get("metadata") or {}).get("fault")

    def _tools(self) -> dict[str, Mapping[str, Any]]:
        return {tool["name"]: tool for tool in self.config.get("tools") or ()}

    def _check_open(self) -> None:
        if not self._is_open:
            raise NotConnected("The fake has no session. Call connect() first.")

    def _dropped(self) -> ProviderError:
        return ProviderError("The fake dropped the session.", provider="fake", code=ErrorCode.CONNECTION_LOST)


def scripted_provider(
    *turns: Sequence[Step],
    capabilities: Capabilities | None = None,
    on_connect: Sequence[Step] = (),
) -> type[BaseProvider]:
    """Return a provider class that plays what a test writes down.

    Args:
        turns: The steps of each turn, in order; a turn begins with ``send_text``, ``end_turn``,
            ``send_tool_result`` or ``speak``. Events are emitted from a task, an exception is raised
            from the call and must come first. Past the last turn nothing happens.
        capabilities: What the class declares; nothing by default.
        on_connect: Steps of ``connect``, each done before it returns.

    The class keeps its instances in ``instances`` and each instance its calls in ``calls``, as tuples of
    the hook's name and its arguments; audio is left out of ``calls`` and added up in ``audio``.
    """
    declared = capabilities or Capabilities()
    steps_of_connect, steps_of_turns = tuple(on_connect), tuple(tuple(turn) for turn in turns)

    class ScriptedProvider(_Scripted):
        capabilities = declared
        script = steps_of_turns
        opening = steps_of_connect
        instances: ClassVar[list[BaseProvider]] = []

    return ScriptedProvider


class _Scripted(BaseProvider):
    script: ClassVar[tuple[tuple[Step, ...], ...]] = ()
    opening: ClassVar[tuple[Step, ...]] = ()
    instances: ClassVar[list[BaseProvider]]

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.calls: list[tuple[Any, ...]] = []
        self.audio = bytearray()
        self._turns = iter(self.script)
        self.instances.append(self)

    async def connect(self) -> None:
        await self._play(self.opening)

    async def disconnect(self) -> None:
        self.calls.append(("disconnect",))

    async def send_audio(self, audio_data: bytes) -> None:
        self.audio += audio_data

    async def send_text(self, text: str) -> None:
        self._turn("send_text", text)

    async def interrupt(self, heard: Heard | None = None) -> None:
        self.calls.append(("interrupt", heard))

    async def configure_session(self, config: Mapping[str, Any]) -> None:
        self.calls.append(("configure_session", dict(config)))

    async def end_turn(self, respond: bool = True) -> None:
        self._optional("end_turn")
        self._turn("end_turn", respond)

    async def send_tool_result(self, call_id: str, output: str, is_error: bool = False) -> None:
        self._optional("send_tool_result")
        self._turn("send_tool_result", call_id, output, is_error)

    async def speak(self, text: str, is_last: bool = True) -> None:
        self._optional("speak")
        self._turn("speak", text, is_last)

    def _optional(self, hook: str) -> None:
        """Refuse what the test declared as missing, as a provider has to."""
        from voxengine.capabilities import HOOK_CAPABILITIES

        row = HOOK_CAPABILITIES[hook]
        if self.capabilities.support(row).support in ("unsupported", "planned"):
            raise CapabilityMissing(
                f"The test declared {row!r} as missing.", capability=row, provider=type(self).__name__
            )

    def _turn(self, hook: str, *args: Any) -> None:
        self.calls.append((hook, *args))
        steps = next(self._turns, ())
        if steps and isinstance(steps[0], Exception):
            raise steps[0]
        self.start_task(self._play(steps), name=f"script after {hook}")

    async def _play(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if isinstance(step, Exception):
                raise step
            if isinstance(step, tuple):
                self.emit_event(*step)
            else:
                await asyncio.sleep(step)
