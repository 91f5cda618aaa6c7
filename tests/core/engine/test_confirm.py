"""``interruption="confirm"``: a cough pauses the answer, speech cuts it."""

from __future__ import annotations

import asyncio

import pytest

from tests.core.engine.fakes import Call, calling, caps, kind, silence, speak, speech
from voxengine.capabilities import UNSUPPORTED
from voxengine.events import EventType
from voxengine.history import ItemKind
from voxengine.testing import virtual

TWO_ENDS = pytest.mark.parametrize("detection", ["server", "client"])


async def answering(call: Call, ms: int = 4000) -> None:
    """Let the agent be a second into an answer, with the microphone open."""
    await speak(call.engine, silence(1000), paced=True)
    call.provider().answers("One two three four five six seven eight.", ms=ms)
    await speak(call.engine, silence(1000), paced=True)


async def makes_a_sound(call: Call, ms: int, detection: str, then_ms: int = 0) -> None:
    """Let the user be loud for so long; a service that listens itself notices it 60 ms later."""
    start_ms = call.engine.input_format.duration_ms(2 * call.engine._conversation.user.journal.end)  # type: ignore[union-attr]
    await speak(call.engine, speech(60), paced=True)
    if detection == "server":
        call.provider().hears(int(start_ms))
    await speak(call.engine, speech(max(ms - 60, 0), first=1440), paced=True)
    await speak(call.engine, silence(then_ms), paced=True)


def played_ms(call: Call) -> int:
    clock = call.engine._conversation.clock
    assert clock is not None
    return clock.total_played_ms()


@TWO_ENDS
@virtual
async def test_cough_pauses_the_answer_and_it_goes_on(detection: str) -> None:
    async with calling(interruption="confirm", turn_detection=detection) as call:
        await answering(call)
        await makes_a_sound(call, 200, detection)
        before = played_ms(call)
        await speak(call.engine, silence(400), paced=True)
        paused = played_ms(call)
        await speak(call.engine, silence(1000), paced=True)

        assert 1000 <= before == paused < 1200
        assert played_ms(call) - paused > 500
        assert call.seen.of(EventType.INTERRUPTED) == []
        assert call.provider().of("interrupt") == []
        assert call.engine.metrics.resumptions == 1
        await asyncio.sleep(5)
        assert call.seen.one(EventType.AUDIO_OUTPUT_STOPPED).played_ms == 4000


@TWO_ENDS
@virtual
async def test_speech_cuts_the_answer_at_where_it_paused(detection: str) -> None:
    async with calling(interruption="confirm", turn_detection=detection) as call:
        await answering(call)
        await makes_a_sound(call, 900, detection)

        cut = call.seen.one(EventType.INTERRUPTED)
        assert 1000 <= cut.heard_ms < 1200
        (heard,) = call.provider().of("interrupt")
        assert heard.item_played_ms == cut.heard_ms
        assert call.engine.history.items[0].heard_ms == cut.heard_ms
        assert call.engine.metrics.resumptions == 0


@virtual
async def test_cough_is_no_turn_where_the_client_listens() -> None:
    async with calling(interruption="confirm", turn_detection="client") as call:
        await answering(call)
        await makes_a_sound(call, 200, "client", then_ms=1500)

        assert call.provider().of("end_turn") == []
        assert [item.kind for item in call.engine.history] == [ItemKind.AGENT]
        assert [event.source for event in call.seen.of(EventType.SPEECH_ENDED)] == ["inferred"]
        await call.engine.wait_idle()


@virtual
async def test_turn_that_the_application_ends_while_the_answer_is_paused_is_answered() -> None:
    async with calling(interruption="confirm", turn_detection="client") as call:
        await answering(call)
        await makes_a_sound(call, 200, "client")

        await call.engine.end_turn()
        call.provider().answers("Yes.", "r2", "i2", ms=500)
        await call.engine.wait_idle()

        assert call.seen.one(EventType.INTERRUPTED).heard_ms < 1200
        assert [hook for hook, *_ in call.provider().calls if hook in ("interrupt", "end_turn")] == [
            "interrupt",
            "end_turn",
        ]
        assert call.engine.history.items[-1].text == "Yes."
        assert call.seen.of(EventType.AUDIO_OUTPUT_STOPPED)[-1].played_ms == 500


@virtual
async def test_answer_of_the_service_cuts_the_paused_one_and_is_not_cut_itself() -> None:
    async with calling(interruption="confirm") as call:
        await answering(call)
        start_ms = call.engine.input_format.duration_ms(2 * call.engine._conversation.user.journal.end)  # type: ignore[union-attr]
        await makes_a_sound(call, 200, "server")
        call.provider().hears(None, int(start_ms) + 200)
        call.provider().answers("Yes.", "r2", "i2", ms=500)
        await call.engine.wait_idle()

        assert call.seen.one(EventType.INTERRUPTED).heard_ms < 1200
        assert call.provider().of("interrupt") == []
        assert call.seen.of(EventType.RESPONSE_CANCELLED) == []
        assert call.seen.of(EventType.AUDIO_OUTPUT_STOPPED)[-1].played_ms == 500
        (note,) = call.provider().of("send_item")
        assert "was cut while it was being played" in note.text


@virtual
async def test_turn_that_follows_a_cough_is_answered() -> None:
    async with calling(interruption="confirm", turn_detection="client") as call:
        await answering(call)
        await makes_a_sound(call, 200, "client", then_ms=1500)
        await makes_a_sound(call, 900, "client", then_ms=1000)

        assert call.seen.one(EventType.INTERRUPTED).heard_ms > 1500
        assert call.provider().of("end_turn") == [True]
        call.provider().answers("Yes.", "r2", "i2")
        await call.engine.wait_idle()


@virtual
async def test_words_confirm_at_once_and_also_after_the_answer_went_on() -> None:
    async with calling(interruption="confirm") as call:
        await answering(call, ms=6000)
        await makes_a_sound(call, 100, "server")
        call.provider().emit_event(EventType.INPUT_TRANSCRIPT, {"text": "…", "is_partial": True})
        assert call.seen.of(EventType.INTERRUPTED) == []
        call.provider().emit_event(EventType.INPUT_TRANSCRIPT, {"text": "No", "is_partial": True})
        assert len(call.seen.of(EventType.INTERRUPTED)) == 1

        call.provider().hears(None, 2200)
        call.provider().answers("Nine ten eleven.", "r2", "i2", ms=6000)
        await speak(call.engine, silence(500), paced=True)
        await makes_a_sound(call, 100, "server", then_ms=1000)
        assert call.engine.metrics.resumptions == 1
        call.provider().emit_event(EventType.INPUT_TRANSCRIPT, {"text": "Stop", "is_partial": False})

        assert len(call.seen.of(EventType.INTERRUPTED)) == 2


@virtual
async def test_answer_of_the_service_ends_the_paused_one() -> None:
    async with calling(interruption="confirm") as call:
        await answering(call)
        await makes_a_sound(call, 300, "server")
        call.provider().hears(None, 2300)
        call.provider().answers("Sure.", "r2", "i2", ms=500)
        await asyncio.sleep(2)

        assert call.seen.one(EventType.INTERRUPTED).response_id == "r1"
        assert call.seen.of(EventType.AUDIO_OUTPUT_STOPPED)[-1].played_ms == 500
        assert call.seen.endings() == {"r1": 1, "r2": 1}


@virtual
async def test_answer_goes_on_when_the_microphone_brings_nothing_more() -> None:
    async with calling(interruption="confirm") as call:
        await answering(call)
        await makes_a_sound(call, 100, "server")
        await asyncio.sleep(10)

        assert call.seen.one(EventType.AUDIO_OUTPUT_STOPPED).played_ms == 4000


@virtual
async def test_second_sound_in_one_utterance_pauses_again_and_speech_cuts() -> None:
    async with calling(interruption="confirm") as call:
        await answering(call)
        await makes_a_sound(call, 200, "server", then_ms=800)
        assert call.engine.metrics.resumptions == 1
        await speak(call.engine, speech(800), paced=True)

        assert len(call.seen.of(EventType.INTERRUPTED)) == 1


@virtual
async def test_program_may_interrupt_or_hang_up_while_the_answer_is_paused() -> None:
    async with calling(interruption="confirm") as call:
        await answering(call)
        await makes_a_sound(call, 200, "server")
        heard = call.engine.interrupt().heard
        call.provider().answers("Next.", "r2", "i2", ms=300)
        await asyncio.sleep(1)

        assert heard is not None
        assert 1000 <= heard.item_played_ms < 1200
        assert call.seen.of(EventType.AUDIO_OUTPUT_STOPPED)[-1].played_ms == 300
        await makes_a_sound(call, 100, "server")


@virtual
async def test_noise_of_a_room_is_no_speech_that_cuts() -> None:
    room = bytes(caps().input_formats[0].n_bytes(20))
    hum = (b"\x40\x01\xc0\xfe" * (len(room) // 4))[: len(room)]  # -40 dB, as before the answer.
    async with calling(
        kind(capabilities=caps(server_turn_detection=UNSUPPORTED)), interruption="confirm"
    ) as call:
        for _ in range(100):
            await call.engine.send_audio(hum)
            await asyncio.sleep(0.02)
        call.provider().answers("One two three.", ms=3000)
        await speak(call.engine, speech(100), paced=True)
        for _ in range(100):
            await call.engine.send_audio(hum)
            await asyncio.sleep(0.02)

        assert call.engine.session is not None
        assert call.engine.session.settings["turn_detection"] == "client"
        assert call.seen.of(EventType.INTERRUPTED) == []
