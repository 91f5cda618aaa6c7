"""Whatever happens in whatever order: no sample of a turn is lost, and everything ends exactly once."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Coroutine
from typing import Any, ClassVar, Final, TypeVar

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.core.continuity.matrix import DEADLINES, SCRIPT, UNLIKE, Watched, contains_once, tone
from tests.core.engine.fakes import Seen, registry, silence
from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.errors import ConnectionLost, ErrorCode, ProviderError
from voxengine.events import EventType
from voxengine.lifecycle import EngineState
from voxengine.testing import VirtualTimeLoop
from voxengine.transport.faults import ClosedBy, Garbage, HalfOpen, Reset, Stall, StreamFault
from voxengine_mock import MockProvider

T = TypeVar("T")
FAULTS: Final[tuple[StreamFault, ...]] = (
    ClosedBy(code=1000),
    ClosedBy(code=1011),
    ClosedBy(code=3000),
    Reset(),
    HalfOpen(),
    Stall(),
    Garbage(as_text=True),
)
_CHUNK_S: Final = 0.02


class Frail(Watched):
    """A mock that can be told to refuse connections."""

    n_refusals: ClassVar[int] = 0

    async def connect(self) -> None:
        if type(self).n_refusals:
            type(self).n_refusals -= 1
            raise ProviderError("not now", code=ErrorCode.UNAVAILABLE)
        await super().connect()


@attrs.define
class Turn:
    audio: bytes
    is_waived: bool = False


@attrs.define
class Words:
    """What the agent is told to say: words that nobody else says."""

    words: tuple[str, ...]
    is_waived: bool = False


class Conversations(RuleBasedStateMachine):
    """One engine, three providers that fail, and a user who does not care."""

    @initialize()
    def begin(self) -> None:
        self.loop = VirtualTimeLoop(max_real_s=60)
        self.kinds: dict[str, Any] = {
            name: type("Frail", (Frail,), {"made": [], "capabilities": capabilities, "n_refusals": 0})
            for name, capabilities in (
                ("one", MockProvider.capabilities),
                ("two", MockProvider.capabilities),
                ("three", UNLIKE),
            )
        }
        self.runs: list[int] = []
        self.turns: list[Turn] = []
        self.n_turns = 0
        self.says: list[Words] = []
        others = [VoiceEngineConfig(provider=name, metadata=SCRIPT) for name in ("two", "three")]
        self.past: list[Seen] = []

        async def get_weather() -> str:
            """Tell the weather."""
            self.runs.append(len(self.runs))
            await asyncio.sleep(1)
            return "sunny"

        self.config = VoiceEngineConfig(
            provider="one",
            metadata=SCRIPT,
            deadlines=DEADLINES,
            fallbacks=others,
            tools=[get_weather],
            journal_s=600,  # Who never lets the agent answer is never answered.
        )
        self.registry = registry(**self.kinds)
        self.engine = VoiceEngine(self.config, registry=self.registry)
        self.seen = Seen(self.engine)
        self.run(self.engine.connect())
        self.engine._recovery.failover.jitter.seed(0)  # One run is like the other.

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @property
    def is_lost(self) -> bool:
        return self.engine._state is EngineState.LOST

    # -- what happens -----------------------------------------------------------------------------

    @rule(seconds=st.sampled_from((0.01, 0.3, 1.0, 4.0)))
    def wait(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    @precondition(lambda self: not self.is_lost)
    @rule(
        ms=st.sampled_from((300, 900)),
        fault=st.none() | st.sampled_from(FAULTS),
        at=st.floats(0, 1),
        does_end=st.booleans(),
    )
    def speak(self, ms: int, fault: StreamFault | None, at: float, does_end: bool) -> None:
        self.n_turns += 1
        self._waive_says()  # Whoever speaks interrupts.
        turn = Turn(tone(ms + 20 * (self.n_turns // 12), self.n_turns % 12))
        self.turns.append(turn)
        self.run(self._speak(turn, fault, at, does_end))

    async def _speak(self, turn: Turn, fault: StreamFault | None, at: float, does_end: bool) -> None:
        audio = turn.audio + silence(900)
        size = 960
        strikes_at = int(at * len(turn.audio)) // size * size if fault is not None else -1
        try:
            for begin in range(0, len(audio), size):
                if begin == strikes_at:
                    self._strike(fault)
                await self.engine.send_audio(audio[begin : begin + size])
                await asyncio.sleep(_CHUNK_S)
            if does_end:
                await self.engine.end_turn()
        except ConnectionLost:
            turn.is_waived = True  # The end of it was refused, and the application was told.

    @precondition(lambda self: not self.is_lost)
    @rule(text=st.sampled_from(("Hello", "A long answer, please", "How is the weather?")))
    def write(self, text: str) -> None:
        with contextlib.suppress(ConnectionLost):
            self.run(self.engine.send_text(text))

    @precondition(lambda self: not self.is_lost)
    @rule()
    def say(self) -> None:
        n = len(self.says)
        said = Words((f"Alpha{n}", f"Bravo{n}", f"Charlie{n}", f"Delta{n}"))
        self.says.append(said)
        # What the user said and nobody has answered is heard again, and interrupts then.
        said.is_waived = self.engine._conversation.user.has_open_turn
        try:
            self.run(self.engine.say(" ".join(said.words)))
        except ConnectionLost:
            said.is_waived = True  # The application was told.

    def _waive_says(self) -> None:
        for said in self.says:
            said.is_waived = True

    @precondition(lambda self: not self.is_lost)
    @rule()
    def interrupt(self) -> None:
        self._waive_says()
        for turn in self.turns:
            turn.is_waived = True  # Whoever interrupts wants no answer to what was said so far.

        async def interrupt() -> None:
            with contextlib.suppress(ConnectionLost):
                self.engine.interrupt()

        self.run(interrupt())

    @rule(fault=st.sampled_from(FAULTS))
    def strike(self, fault: StreamFault) -> None:
        self._strike(fault)

    def _strike(self, fault: StreamFault | None) -> None:
        session = self.engine.session
        connection = session.provider.connection if session is not None else None
        if fault is not None and connection is not None:

            async def strike() -> None:
                connection._pair.fault(fault)

            if self.loop.is_running():
                connection._pair.fault(fault)
            else:
                self.run(strike())

    @rule(name=st.sampled_from(("one", "two", "three")), n=st.integers(1, 2))
    def refuse(self, name: str, n: int) -> None:
        self.kinds[name].n_refusals = n

    @rule(name=st.sampled_from(("one", "two", "three")))
    def switch(self, name: str) -> None:
        config = VoiceEngineConfig(provider=name, metadata=SCRIPT)
        with contextlib.suppress(ProviderError):  # The next could not be had, and the one before stays.
            self.run(self.engine.switch_provider(name, config))

    @precondition(lambda self: not self.is_lost)
    @rule()
    def configure(self) -> None:
        with contextlib.suppress(ProviderError):  # The session was lost meanwhile.
            self.run(self.engine.configure_session(instructions="Be brief."))

    @rule()
    def hand_over(self) -> None:
        """Take a snapshot, end the engine, and go on in another one."""
        self.run(self._hand_over())

    async def _hand_over(self) -> None:
        text = json.dumps(self.engine.snapshot())
        await self.engine.disconnect()
        self.past.append(self.seen)
        self.engine = VoiceEngine.resume(json.loads(text), self.config, registry=self.registry)
        self.seen = Seen(self.engine)
        for _ in range(5):
            with contextlib.suppress(ProviderError):  # Told to refuse; it may be tried again.
                await self.engine.connect()
                break
        self.engine._recovery.failover.jitter.seed(0)

    # -- what holds -------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        try:
            self.run(self._end())
            self._check()
        finally:
            self.run(self.engine.disconnect())
            self.loop.close()

    async def _end(self) -> None:
        """Let everything come to rest with a service that works; then hang up."""
        for kind in self.kinds.values():
            kind.n_refusals = 0
        for _ in range(200):
            if self.engine._state is not EngineState.RECONNECTING:
                break
            await asyncio.sleep(1)
        # A stall that nobody has noticed yet is noticed by asking; where nothing was asked, a switch clears it.
        await self.engine.switch_provider("one", VoiceEngineConfig(provider="one", metadata=SCRIPT))
        for _ in range(75):  # Of a turn whose end was refused, the end is still missing.
            await self.engine.send_audio(silence(20))
            await asyncio.sleep(_CHUNK_S)
        await self.engine.wait_idle(timeout_s=200)
        await self.engine.disconnect()
        for _ in range(5):
            await asyncio.sleep(1)

    def _check(self) -> None:
        current = asyncio.all_tasks(self.loop)
        assert current == set()
        for number, seen in enumerate([*self.past, self.seen]):
            ended = seen.session_endings()
            assert all(len(endings) == 1 for endings in ended.values())
            in_force = {event.session_epoch for event in seen.of(EventType.PROVIDER_SWITCHED)}
            assert set(ended) == in_force | ({1} if number == 0 else set())
            assert set(seen.endings().values()) <= {1}
        calls = [item for item in self.engine.history if str(item.kind) == "tool_call"]
        assert len(self.runs) <= len(calls)
        shown = " ".join(item.context_text for item in self.engine.history if item.role == "agent").split()
        for said in self.says:
            given = [word for word in shown if word in said.words]
            assert given == list(said.words) or (said.is_waived and given == list(said.words[: len(given)]))
        sessions = [provider for kind in self.kinds.values() for provider in kind.made]
        for turn in self.turns:
            if not turn.is_waived:
                assert any(contains_once(bytes(held.audio), held.rate, turn.audio) for held in sessions)


TestConversations = Conversations.TestCase
TestConversations.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
