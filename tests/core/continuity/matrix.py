"""One cell of the fault matrix: a conversation, a fault at a certain moment, and what must hold afterwards."""

from __future__ import annotations

import array
import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Final, cast

import attrs
import numpy as np

from tests.core.engine.fakes import RATE, Seen, registry, silence
from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.audio.format import AudioFormat
from voxengine.audio.pcm import convert
from voxengine.capabilities import UNSUPPORTED, Capabilities
from voxengine.config import Deadlines
from voxengine.errors import ConnectionLost
from voxengine.events import EventType
from voxengine.history import Item
from voxengine.transport.faults import ClosedBy, Garbage, HalfOpen, Reset, Stall
from voxengine_mock import MockProvider

LOW_RATE: Final = 16_000
BUDGET_S: Final = 20.0
SHORT_BUDGET_S: Final = 4.0
DEADLINES: Final = Deadlines(handshake_s=2, ready_s=2, first_output_s=3, progress_s=3)
_MANY: Final = 30
"""More connections than any cell needs."""


class Watched(MockProvider):
    """The mock, with what each of its instances was given."""

    made: ClassVar[list[Any]]

    def __init__(self, config: dict[str, Any]) -> None:
        formats = {
            "input_format": self.capabilities.input_formats[0],
            "output_format": self.capabilities.output_formats[0],
        }
        super().__init__({**formats, **config})  # The mock's own default is not what a subclass declares.
        self.audio = bytearray()
        self.texts: list[str] = []
        self.loaded: list[Item] = []
        self.made.append(self)

    async def send_audio(self, audio_data: bytes) -> None:
        await super().send_audio(audio_data)
        self.audio += audio_data

    def try_send_audio(self, audio_data: bytes) -> bool:
        taken = super().try_send_audio(audio_data)
        if taken:
            self.audio += audio_data
        return taken

    async def send_text(self, text: str) -> None:
        self.texts.append(text)
        await super().send_text(text)

    async def load_history(self, items: Any) -> None:
        self.loaded += items
        await super().load_history(items)

    @property
    def rate(self) -> int:
        return self._input_format.sample_rate


UNLIKE: Final = MockProvider.capabilities.evolve(
    input_formats=(AudioFormat(LOW_RATE),),
    output_formats=(AudioFormat(LOW_RATE),),
    server_turn_detection=UNSUPPORTED,
    context_tools=UNSUPPORTED,
    items=UNSUPPORTED,
)


def watched(capabilities: Capabilities = MockProvider.capabilities) -> Any:
    return type("Watched", (Watched,), {"made": [], "capabilities": capabilities})


# -- faults ---------------------------------------------------------------------------------------

MID_SESSION: Final[dict[str, Any]] = {
    "close 1000": ClosedBy(code=1000),
    "close 1001": ClosedBy(code=1001),
    "close 1011": ClosedBy(code=1011),
    "close 3000": ClosedBy(code=3000),
    "reset": Reset(),
    "half-open": HalfOpen(),
    "garbage": Garbage(as_text=True),
    "stall before first output": Stall(),
    "stall in mid-answer": Stall(),
}
"""What happens to the connection in use."""
AT_CONNECT: Final[dict[str, dict[str, Any]]] = {
    "connect refused": {"do": "reset", "at": "handshake"},
    "401": {"do": 401, "at": "handshake"},
    "429 with retry-after": {"do": 429, "at": "handshake", "retry_after_s": 5},
    "quota": {"do": "quota", "at": "handshake"},
    "stall before ready": {"do": "stall", "at": "ready"},
}
"""What meets the connection that is to replace one that was reset."""
FAULTS: Final = ("connect refused", "401", "429 with retry-after", "quota", "close 1000", "close 1001", "close 1006",
                 "close 1011", "close 3000", "stall before ready", "stall before first output", "stall in mid-answer",
                 "reset", "garbage", "half-open")  # fmt: skip
OUTCOMES: Final = ("reconnect", "failover", "give up")
PAIRINGS: Final = ("like", "unlike")


def script(fault: str, outcome: str) -> dict[str, Any]:
    """The first provider's script: how its later connections fare."""
    sessions: range = range(2, 2)
    what = AT_CONNECT.get(fault, AT_CONNECT["connect refused"])
    if outcome == "reconnect" and fault in AT_CONNECT:
        sessions = range(2, 3)
    elif outcome != "reconnect":
        sessions = range(2, _MANY)
    return {**SCRIPT, "faults": [{**what, "session": number} for number in sessions]}


SCRIPT: Final[dict[str, Any]] = {
    "pace": 2,
    "delay_ms": 1500,
    "responses": {
        "*long answer*": {
            "say": "One two three four five six seven eight nine ten and so on to the end.",
            "duration_ms": 8000,
        },
        "*weather*": {"say": "Let me look.", "tool": "get_weather", "then": "It is {result}."},
    },
    "hears": ["first spoken words", "second spoken words", "third spoken words", "fourth spoken words"],
}

# -- the conversation -----------------------------------------------------------------------------


def tone(ms: int, number: int) -> bytes:
    """Speech for the machine: a sweep in which every place differs from every other."""
    n = ms * RATE // 1000
    low, high = 180 + 90 * number, 2400 + 130 * number
    phases = (
        2 * math.pi * (low * t + (high - low) * t * t / (2 * n / RATE)) for t in (i / RATE for i in range(n))
    )
    return array.array("h", (round(11_000 * math.sin(phase)) for phase in phases)).tobytes()


@attrs.define
class Scene:
    """A conversation under way."""

    engine: VoiceEngine
    seen: Seen
    kinds: dict[str, Any]
    fault: str
    outcome: str
    other: VoiceEngineConfig
    """The second provider's."""
    turns: list[bytes] = attrs.field(factory=list)
    """What the user said aloud since the fault was near, each to be answered."""
    n_runs: int = 0
    """Of the tool."""
    refused: bytes = b""
    """What send_audio did not accept."""
    n_accepted: int = 0
    """Bytes of ``turns`` that were accepted and have no answer yet."""

    def strike(self) -> None:
        """Let the fault happen."""
        (session,) = self.kinds["one"].made
        session.connection._pair.fault(MID_SESSION.get(self.fault, Reset()))

    async def say(self, audio: bytes, *, counts: bool = True) -> None:
        """Speak in real time; what is refused after a loss for good is kept for later."""
        size = RATE * 2 // 50
        for at in range(0, len(audio), size):
            chunk = audio[at : at + size]
            if not self.refused:
                try:
                    await self.engine.send_audio(chunk)
                    self.n_accepted += len(chunk) * counts
                except ConnectionLost:
                    self.refused += audio[at:]
                    return
            else:
                self.refused += audio[at:]
                return
            await asyncio.sleep(0.02)

    async def end_turn(self) -> None:
        """End the turn, unless there is nobody to tell."""
        if not self.refused:
            try:
                await self.engine.end_turn()
            except ConnectionLost:
                self.refused += silence(20)


async def idle(scene: Scene) -> None:
    scene.strike()
    await asyncio.sleep(0.5)
    try:
        await scene.engine.send_text("Are you there?")
    except ConnectionLost:
        scene.refused += silence(20)


async def user_speaking(scene: Scene) -> None:
    turn = tone(1400, 1)
    scene.turns.append(turn)
    await scene.say(turn[: len(turn) // 2])
    scene.strike()
    await scene.say(turn[len(turn) // 2 :])
    await scene.say(silence(900), counts=False)
    await scene.end_turn()


async def agent_speaking(scene: Scene) -> None:
    started = asyncio.Event()
    scene.engine.events.once(EventType.AUDIO_OUTPUT_STARTED, lambda _: started.set())
    await scene.engine.send_text("A long answer, please")
    await started.wait()
    await asyncio.sleep(1)
    scene.strike()


async def tool_call_open(scene: Scene) -> None:
    called = asyncio.Event()
    scene.engine.events.once(EventType.FUNCTION_CALL_INVOKED, lambda _: called.set())
    await scene.engine.send_text("How is the weather?")
    await called.wait()
    await asyncio.sleep(0.5)
    scene.strike()


async def two_utterances(scene: Scene) -> None:
    for number in (1, 2):
        scene.turns.append(tone(700, number))
        await scene.say(scene.turns[-1])
        await scene.end_turn()
    await asyncio.sleep(0.2)
    scene.strike()


STATES: Final[dict[str, Callable[[Scene], Awaitable[None]]]] = {
    "idle": idle,
    "user speaking": user_speaking,
    "agent speaking": agent_speaking,
    "tool call open": tool_call_open,
    "two utterances waiting": two_utterances,
}


def make(fault: str, state: str, outcome: str, pairing: str) -> Scene:
    """The scene of a cell, not connected yet."""
    detection = "manual" if state == "two utterances waiting" else "server"
    two = watched(UNLIKE if pairing == "unlike" else MockProvider.capabilities)
    kinds = {"one": watched(), "two": two}
    other = VoiceEngineConfig(provider="two", metadata=SCRIPT, turn_detection=cast("Any", detection))
    held: list[Scene] = []

    async def get_weather() -> str:
        """Tell the weather."""
        held[0].n_runs += 1
        await asyncio.sleep(2)
        return "sunny"

    config = VoiceEngineConfig(
        provider="one",
        metadata=script(fault, outcome),
        turn_detection=cast("Any", detection),
        deadlines=DEADLINES,
        reconnect=cast("Any", {"budget_s": SHORT_BUDGET_S if outcome == "give up" else BUDGET_S}),
        fallbacks=[other] if outcome == "failover" else [],
        tools=[get_weather],
    )
    engine = VoiceEngine(config, registry=registry(**kinds))
    held.append(Scene(engine, Seen(engine), kinds, fault, outcome, other))
    return held[0]


# -- what must hold -------------------------------------------------------------------------------


def contains_once(heard: bytes, rate: int, turn: bytes) -> bool:
    """Promise 2: bitwise at the same rate, else the same duration and shape."""
    if rate == RATE:
        return heard.count(turn) == 1
    if not heard:
        return False
    expected = np.frombuffer(convert(turn, AudioFormat(RATE), AudioFormat(rate)), np.int16).astype(np.float64)
    got = np.frombuffer(heard, np.int16).astype(np.float64)
    size = 1 << (len(got) + len(expected)).bit_length()
    spectrum = np.fft.rfft(got, size) * np.conj(np.fft.rfft(expected, size))
    at = int(np.argmax(np.fft.irfft(spectrum, size)[: len(got)]))
    part = got[at : at + len(expected)]
    if abs(len(part) - len(expected)) > 1:
        return False
    part, expected = part[: len(expected)], expected[: len(part)]
    norm = float(np.linalg.norm(part) * np.linalg.norm(expected))
    return norm > 0 and float(part @ expected) / norm > 0.99


def problems(scene: Scene) -> list[str]:
    """What is wrong with a conversation that is over."""
    found = []
    seen, history = scene.seen, scene.engine.history
    endings = {
        epoch: kinds
        for epoch, kinds in seen.session_endings().items()
        if kinds not in (["connection_lost"], ["connection_closed"])
    }
    if endings:
        found.append(f"sessions ended {endings}")
    if set(seen.endings().values()) - {1}:
        found.append(f"responses ended {seen.endings()}")
    if scene.n_runs > 1:
        found.append(f"the tool ran {scene.n_runs} times")
    said = [item.text for item in history if item.role == "agent"]
    if len(said) != len(set(said)):
        found.append(f"an agent's text is there twice: {said}")
    if not said or history.items[-1].role != "agent" or history.items[-1].status != "completed":
        found.append("the last turn has no whole answer")
    assert scene.engine.session is not None
    holds: Any = scene.engine.session.provider
    told = [item.context_text for item in holds.loaded if item.role == "agent"]
    known = [item.context_text for item in history if item.role == "agent"][: len(told)]
    if told != known:
        found.append("the context of the last session repeats or misses words of the agent")
    for number, turn in enumerate(scene.turns):
        if not contains_once(bytes(holds.audio), holds.rate, turn):
            found.append(f"turn {number} did not arrive whole")
    return found
