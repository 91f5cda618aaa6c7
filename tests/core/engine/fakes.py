"""Providers that do what a test tells them, and an engine around them."""

from __future__ import annotations

import array
import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import attrs

from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.audio.format import AudioFormat
from voxengine.capabilities import FULL, UNSUPPORTED, Capabilities
from voxengine.events import Event, EventType
from voxengine.history import Heard, Item
from voxengine.providers.base import BaseProvider
from voxengine.providers.registry import ProviderRegistry

RATE = 24_000
FULLY = Capabilities(
    dialogue=FULL,
    response_boundaries=FULL,
    server_turn_detection=FULL,
    context_text=FULL,
    context_tools=FULL,
    session_tools=FULL,
    items=FULL,
    input_formats=(AudioFormat(RATE),),
    output_formats=(AudioFormat(RATE),),
    endpointing_silence_ms=500,
)

Behaviour = BaseException | Callable[..., Awaitable[Any]]


class Puppet(BaseProvider):
    """Records its calls. A test says what it emits, and by ``behaviour`` what a call does."""

    capabilities: ClassVar[Capabilities] = FULLY
    behaviour: ClassVar[dict[str, Behaviour]] = {}
    made: ClassVar[list[Puppet]] = []

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.calls: list[tuple[str, Any]] = []
        self.audio = bytearray()
        self.made.append(self)

    async def _do(self, hook: str, *args: Any) -> Any:
        self.calls.append((hook, args[0] if len(args) == 1 else args))
        what = self.behaviour.get(hook)
        if isinstance(what, BaseException):
            raise what
        return None if what is None else await what(self, *args)

    def of(self, hook: str) -> list[Any]:
        """The arguments of each call of a hook."""
        return [args for name, args in self.calls if name == hook]

    async def connect(self) -> None:
        await self._do("connect")
        self.session_id = f"{type(self).__name__}-{len(self.made)}"

    async def disconnect(self) -> None:
        await self._do("disconnect")

    async def send_audio(self, audio_data: bytes) -> None:
        await self._do("send_audio", audio_data)
        self.audio += audio_data

    async def send_text(self, text: str) -> str | None:
        name: str | None = await self._do("send_text", text)
        return name

    async def interrupt(self, heard: Heard | None = None) -> None:
        await self._do("interrupt", heard)

    async def configure_session(self, config: dict[str, Any]) -> None:
        await self._do("configure_session", config)

    async def end_turn(self, respond: bool = True) -> None:
        await self._do("end_turn", respond)

    async def send_tool_result(self, call_id: str, output: str, is_error: bool = False) -> None:
        await self._do("send_tool_result", call_id, output, is_error)

    async def load_history(self, items: Sequence[Item]) -> None:
        await self._do("load_history", list(items))

    async def send_item(self, item: Item) -> None:
        await self._do("send_item", item)

    async def speak(self, text: str, is_last: bool = True) -> None:
        await self._do("speak", text)

    async def get_usage(self) -> dict[str, Any] | None:
        used: dict[str, Any] | None = await self._do("get_usage")
        return used

    async def estimate_cost(self) -> float | None:
        cost: float | None = await self._do("estimate_cost")
        return cost

    # -- what a test lets it say

    def starts(self, response_id: str | None = "r1", **data: Any) -> None:
        self.emit_event(EventType.RESPONSE_STARTED, {"response_id": response_id, **data})

    def writes(
        self, text: Any, response_id: str | None = "r1", item_id: str | None = "i1", **data: Any
    ) -> None:
        ids = {"response_id": response_id, "item_id": item_id}
        self.emit_event(EventType.TEXT_OUTPUT, {"text": text, "is_partial": True, **ids, **data})

    def sounds(
        self, ms: float, response_id: str | None = "r1", item_id: str | None = "i1", **data: Any
    ) -> None:
        ids = {"response_id": response_id, "item_id": item_id}
        audio = bytes(AudioFormat(data.get("sample_rate", RATE)).n_bytes(ms))
        self.emit_event(EventType.AUDIO_OUTPUT_CHUNK, {"audio_data": audio, **ids, **data})

    def completes(self, response_id: str | None = "r1", status: str = "completed") -> None:
        self.emit_event(EventType.RESPONSE_COMPLETED, {"response_id": response_id, "status": status})

    def answers(
        self, text: str = "Yes.", response_id: str = "r1", item_id: str = "i1", ms: float = 0
    ) -> None:
        """A whole answer at once."""
        self.starts(response_id)
        self.writes(text, response_id, item_id, is_partial=False)
        if ms:
            self.sounds(ms, response_id, item_id)
        self.completes(response_id)

    def hears(
        self, start_ms: int | None = None, end_ms: int | None = None, item_id: str | None = None
    ) -> None:
        """The vendor's turn detection."""
        extra = {"item_id": item_id} if item_id else {}
        if start_ms is not None:
            self.emit_event(EventType.SPEECH_STARTED, {"at_ms": start_ms, **extra})
        if end_ms is not None:
            self.emit_event(EventType.SPEECH_ENDED, {"at_ms": end_ms, **extra})

    def asks_for(self, name: str, call_id: str = "c1", response_id: str = "r1", **arguments: Any) -> None:
        data = {"name": name, "call_id": call_id, "arguments": arguments, "response_id": response_id}
        self.emit_event(EventType.FUNCTION_CALL_INVOKED, data)


class Document(BaseProvider):
    """As the provider guide writes one: six methods, no ids, no boundaries, no declarations."""

    behaviour: ClassVar[dict[str, Behaviour]] = {}
    made: ClassVar[list[Document]] = []

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.audio = bytearray()
        self.texts: list[str] = []
        self.interrupts = 0
        self.made.append(self)

    async def connect(self) -> None:
        self.session_id = "document"

    async def disconnect(self) -> None:
        self.session_id = None

    async def send_audio(self, audio_data: bytes) -> None:
        self.audio += audio_data

    async def send_text(self, text: str) -> None:
        self.texts.append(text)

    async def interrupt(self) -> None:  # type: ignore[override]  # `heard` may be left out
        self.interrupts += 1

    async def configure_session(self, config: dict[str, Any]) -> None:
        pass

    def writes(self, text: Any, **data: Any) -> None:
        self.emit_event(EventType.TEXT_OUTPUT, {"text": text, **data})

    def sounds(self, ms: float) -> None:
        audio = bytes(AudioFormat(RATE).n_bytes(ms))
        self.emit_event(EventType.AUDIO_OUTPUT_CHUNK, {"audio_data": audio, "sample_rate": RATE})


def kind(base: type[Any] = Puppet, name: str = "Kind", /, **members: Any) -> Any:
    """A subclass with instances and behaviour of its own."""
    return type(name, (base,), {"made": [], "behaviour": {}, **members})


def caps(**changes: Any) -> Capabilities:
    return FULLY.evolve(**changes)


def at_rate(rate: int) -> Capabilities:
    return caps(input_formats=(AudioFormat(rate),), output_formats=(AudioFormat(rate),))


RECOGNISER = caps(dialogue=UNSUPPORTED)


def registry(**classes: Any) -> ProviderRegistry:
    held = ProviderRegistry()
    for name, cls in classes.items():
        held.register(name, cls)
    return held


class Seen:
    """Every event of an engine, in order."""

    def __init__(self, engine: VoiceEngine) -> None:
        self.events: list[Event] = []
        engine.events.on("*", self.events.append)

    def of(self, *types: str) -> list[Event]:
        return [event for event in self.events if event.type in types]

    def one(self, event_type: str) -> Event:
        (event,) = self.of(event_type)
        return event

    def types(self) -> list[str]:
        return [str(event.type) for event in self.events]

    def codes(self) -> list[str]:
        return [event.data["code"] for event in self.of(EventType.WARNING)]

    def audio(self) -> bytes:
        return b"".join(event.data["audio_data"] for event in self.of(EventType.AUDIO_OUTPUT_CHUNK))

    def endings(self) -> dict[str, int]:
        """How often each response ended."""
        ends = self.of(EventType.RESPONSE_COMPLETED, EventType.RESPONSE_CANCELLED)
        return {
            event.data["response_id"]: sum(e.data["response_id"] == event.data["response_id"] for e in ends)
            for event in self.of(EventType.RESPONSE_STARTED)
        }

    def session_endings(self) -> dict[int, list[str]]:
        """How each session ended, by epoch."""
        ends = self.of(EventType.CONNECTION_LOST, EventType.CONNECTION_CLOSED)
        return {
            e.session_epoch: [str(o.type) for o in ends if o.session_epoch == e.session_epoch] for e in ends
        }


@attrs.define
class Call:
    """An engine in a conversation, with what it said and whom it speaks to."""

    engine: VoiceEngine
    seen: Seen
    kinds: Mapping[str, Any]

    def provider(self, name: str = "one") -> Any:
        """The latest instance of a provider."""
        return self.kinds[name].made[-1]


@asynccontextmanager
async def calling(
    one: Any = None, /, *, taps: Sequence[object] = (), others: Mapping[str, Any] | None = None, **config: Any
) -> AsyncIterator[Call]:
    """A connected engine; its provider is named ``one``. A loss stays one unless ``reconnect`` says otherwise."""
    config.setdefault("reconnect", {"budget_s": 0})
    kinds = {"one": one if one is not None else kind(), **(others or {})}
    engine = VoiceEngine(VoiceEngineConfig(provider="one", **config), taps=taps, registry=registry(**kinds))
    call = Call(engine, Seen(engine), kinds)
    await engine.connect()
    try:
        yield call
    finally:
        await engine.disconnect()


def speech(ms: float, rate: int = RATE, first: int = 0) -> bytes:
    """Loud PCM16 in which neighbouring samples all differ, so that a hole or a repetition shows."""
    n = int(ms * rate / 1000)
    return array.array("h", (((first + i) * 7919) % 60_000 - 30_000 for i in range(n))).tobytes()


def silence(ms: float, rate: int = RATE) -> bytes:
    return bytes(2 * int(ms * rate / 1000))


def chunks(data: bytes, ms: int = 20, rate: int = RATE) -> Iterator[bytes]:
    size = 2 * ms * rate // 1000
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def speak(
    engine: VoiceEngine, data: bytes, *, ms: int = 20, rate: int = RATE, paced: bool = False
) -> None:
    for chunk in chunks(data, ms, rate):
        await engine.send_audio(chunk)
        if paced:
            await asyncio.sleep(ms / 1000)


async def turns(n: int = 20) -> None:
    """Let the loop run what is ready, without time."""
    for _ in range(n):
        await asyncio.sleep(0)


async def hang(*_: Any) -> None:
    await asyncio.get_running_loop().create_future()
