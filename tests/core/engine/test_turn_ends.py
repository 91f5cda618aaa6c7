"""A turn ends once, whoever notices it."""

from __future__ import annotations

import asyncio
import math
from array import array

from voxengine import BaseProvider, Capabilities, Event, EventType, VoiceEngine, VoiceEngineConfig
from voxengine.capabilities import FULL, UNSUPPORTED
from voxengine.providers.registry import ProviderRegistry
from voxengine.testing import virtual

SPEECH = array(
    "h", [int(9000 * math.sin(i / 17) * (0.6 + 0.4 * math.sin(i / 900))) for i in range(24_000)]
).tobytes()


class Recogniser(BaseProvider):
    """Says its final words as soon as a second of audio is there, before anybody notices the silence."""

    capabilities = Capabilities(dialogue=UNSUPPORTED, recognition=FULL, text_turn=UNSUPPORTED)
    n_heard = 0

    async def connect(self) -> None: ...

    async def disconnect(self) -> None: ...

    async def send_audio(self, audio_data: bytes) -> None:
        self.n_heard += len(audio_data)
        if self.n_heard == len(SPEECH):
            self.emit_event(EventType.TEXT_OUTPUT, {"text": "hello there", "is_partial": False})

    async def send_text(self, text: str) -> None: ...

    async def interrupt(self) -> None: ...  # type: ignore[override]

    async def configure_session(self, config: object) -> None: ...


@virtual
async def test_words_that_came_before_the_end_of_the_turn_leave_nothing_to_wait_for() -> None:
    registry = ProviderRegistry()
    registry.register("recogniser", Recogniser)

    async with VoiceEngine(VoiceEngineConfig(provider="recogniser"), registry=registry) as engine:
        await engine.send_audio(SPEECH)
        await engine.end_turn()
        await engine.wait_idle(timeout_s=5)

        assert [item.text for item in engine.history] == ["hello there"]


@virtual
async def test_turn_that_application_and_vendor_end_is_measured_once() -> None:
    async with VoiceEngine(VoiceEngineConfig(provider="mock")) as engine:
        await engine.send_audio(SPEECH)
        await engine.end_turn()
        await engine.wait_idle()

        (turn,) = engine.metrics.turns
        assert turn.first_audio_ms is not None


@virtual
async def test_option_that_a_running_session_lacks_is_said_to_be_without_effect() -> None:
    codes: list[str] = []
    async with VoiceEngine(VoiceEngineConfig(provider="mock")) as engine:
        engine.events.on("warning", lambda event: codes.append(event.code))

        await engine.configure_session(temperature=1.0, instructions="Be brief.")
        assert engine.session is not None
        settings = engine.session.settings

    assert codes == ["option_unsupported"]
    assert "temperature" not in settings


@virtual
async def test_external_player_that_has_played_all_it_got_tells_what_was_heard() -> None:
    config = VoiceEngineConfig(
        provider="mock",
        playback="external",
        metadata={"pace": 1, "responses": {"go": "one two three four five six seven eight nine ten"}},
    )
    items: dict[str, int] = {}
    async with VoiceEngine(config) as engine:
        engine.events.on(
            EventType.AUDIO_OUTPUT_CHUNK,
            lambda event: items.update(
                {event.item_id: items.get(event.item_id, 0) + len(event.audio_data) // 48}
            ),
        )
        await engine.send_text("go")
        await asyncio.sleep(1.5)
        ((item_id, received_ms),) = items.items()
        engine.mark_played(item_id, received_ms)

        heard = engine.interrupt().heard

        assert heard is not None
        assert heard.item_played_ms == received_ms


@virtual
async def test_request_that_is_refused_is_settled_and_later_answers_belong_to_their_own() -> None:
    faults = [{"at": "response:1", "do": "error", "message": "refused"}]
    answers: list[tuple[int, str]] = []
    async with VoiceEngine(VoiceEngineConfig(provider="mock", metadata={"faults": faults})) as engine:

        @engine.events.on(EventType.TEXT_OUTPUT)
        def note(event: Event) -> None:
            if not event.data["is_partial"]:
                answers.append((event.session_epoch, event.data["text"]))

        for text in ("one", "two", "three"):
            await engine.send_text(text)
            await engine.wait_idle(timeout_s=20)

        await engine.switch_provider("mock", VoiceEngineConfig(provider="mock"))
        await engine.wait_idle(timeout_s=20)

    assert answers == [(1, "You said: two"), (1, "You said: three")]


@virtual
async def test_turn_said_before_the_last_one_was_answered_is_ended_too() -> None:
    script = {"delay_ms": 700, "hears": ["the first turn", "the second turn"]}
    config = VoiceEngineConfig(provider="mock", turn_detection="client", metadata=script)
    async with VoiceEngine(config) as engine:
        for _ in range(2):
            for at in range(0, len(SPEECH), 960):
                await engine.send_audio(SPEECH[at : at + 960])
                await asyncio.sleep(0.02)
            await engine.end_turn()
            await asyncio.sleep(0.1)
        await engine.wait_idle(timeout_s=60)
        said = [item.text for item in engine.history if item.role == "user"]
        answer = engine.history.items[-1]

    assert said == ["the first turn", "the second turn"]
    assert (answer.role, answer.status) == ("agent", "completed")


@virtual
async def test_turn_that_waited_for_its_answer_when_the_user_interrupted_gets_none() -> None:
    config = VoiceEngineConfig(provider="mock", turn_detection="manual", metadata={"delay_ms": 100})
    async with VoiceEngine(config) as engine:
        for _ in range(2):
            await engine.send_audio(SPEECH)
            await engine.end_turn()
            await asyncio.sleep(0.15)
        interruption = engine.interrupt()
        await engine.wait_idle(timeout_s=30)
        roles = [item.role for item in engine.history]

        await engine.send_text("Hello")
        await engine.wait_idle(timeout_s=30)
        answer = engine.history.items[-1]

    assert interruption.heard is not None
    assert roles.count("agent") == 1
    assert (answer.role, answer.text) == ("agent", "You said: Hello")
