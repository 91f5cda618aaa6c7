"""The user's audio and text on their way in."""

from __future__ import annotations

import array
import asyncio
import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.engine.fakes import (
    RATE,
    Document,
    Puppet,
    calling,
    caps,
    hang,
    kind,
    silence,
    speak,
    speech,
    turns,
)
from voxengine.audio.format import AudioFormat
from voxengine.capabilities import PLANNED, UNSUPPORTED
from voxengine.errors import (
    AudioFormatError,
    CapabilityMissing,
    ConfigError,
    JournalFull,
    ProviderError,
    UsageError,
)
from voxengine.events import EventType
from voxengine.testing import leak_check, run_virtual, virtual


@pytest.mark.parametrize(
    "audio",
    [
        speech(20),
        bytearray(speech(20)),
        memoryview(speech(20)),
        array.array("h", speech(20)),
        np.frombuffer(speech(20), "<i2"),
        np.frombuffer(speech(20), "<i2").reshape(-1, 1),
        np.frombuffer(speech(20), "<i2").astype(np.float32) / 32768,
    ],
    ids=lambda held: type(held).__name__,
)
@virtual
async def test_audio_arrives_as_immutable_bytes_whatever_it_came_in(audio: Any) -> None:
    async with calling() as call:
        await call.engine.send_audio(audio)
        await turns()

        (sent,) = call.provider().of("send_audio")
        assert type(sent) is bytes
        assert sent == speech(20)


@pytest.mark.parametrize(
    ("audio", "told", "says"),
    [
        (b"\x00", {}, "1 bytes"),
        (bytearray(3), {}, "3 bytes"),
        (np.zeros(10, np.int32), {}, "int32"),
        (np.zeros((10, 2), np.int16), {}, "2 channels"),
        (np.zeros((1, 2, 3), np.int16), {}, "shape"),
        (np.array([np.nan]), {}, "NaN"),
        (None, {}, "NoneType"),
        ("text", {}, "str"),
        ([1, 2], {}, "list"),
        (
            silence(20),
            {"sample_rate": 44_100, "channels": 2},
            "44100 Hz stereo; this session takes 24000 Hz mono",
        ),
        (silence(20), {"channels": 2}, "stereo"),
        (silence(20), {"sample_rate": 16_000}, "16000 Hz"),
        (b"", {"sample_rate": 16_000}, "16000 Hz"),
        (silence(20), {"sample_rate": "fast"}, "fast"),
    ],
)
@virtual
async def test_wrong_audio_is_refused_whole(audio: Any, told: dict[str, Any], says: str) -> None:
    async with calling() as call:
        with pytest.raises(AudioFormatError, match=says):
            await call.engine.send_audio(audio, **told)

        await turns()
        assert call.provider().of("send_audio") == []


@virtual
async def test_empty_audio_is_nothing() -> None:
    async with calling() as call:
        await call.engine.send_audio(b"")
        await call.engine.send_audio(silence(20), sample_rate=RATE, channels=1)
        await turns()

        assert call.provider().of("send_audio") == [silence(20)]


@virtual
async def test_caller_may_reuse_its_buffer() -> None:
    buffer = bytearray(speech(20))

    async with calling(kind(behaviour={"send_audio": lambda *_: asyncio.sleep(0.1)})) as call:
        await call.engine.send_audio(buffer)
        buffer[:] = bytes(len(buffer))
        await asyncio.sleep(1)

        assert bytes(call.provider().audio) == speech(20)


class Moody(Puppet):
    """Takes audio quickly, slowly or not at all, as the test says."""

    mood: str = "quick"
    n_inside = 0

    def try_send_audio(self, audio_data: bytes) -> bool:
        if self.mood == "quick":
            self.audio += audio_data
            return True
        if self.mood == "rude":
            raise OSError("no")
        return False

    async def send_audio(self, audio_data: bytes) -> None:
        assert not self.n_inside
        self.n_inside += 1
        try:
            if self.mood != "quick":
                await asyncio.sleep(0.03)
            if self.mood in ("broken", "rude"):
                raise RuntimeError("broken")
            self.audio += audio_data
        finally:
            self.n_inside -= 1


MOODS = st.sampled_from(["quick", "slow", "broken", "rude"])


@given(
    st.lists(st.tuples(st.integers(1, 2000), MOODS, st.sampled_from([None, 0.0, 0.01, 0.2])), max_size=25),
    st.sampled_from([10, 20, 100]),
    st.sampled_from([20, 200]),
)
def test_every_accepted_sample_arrives_once_whatever_happens_to_caller_and_provider(
    sends: list[tuple[int, str, float | None]], chunk_ms: int, group_ms: int
) -> None:
    async def play() -> None:
        n_frames = 0
        async with calling(
            kind(Moody), chunk_ms=chunk_ms, group_ms=group_ms, turn_detection="manual"
        ) as call:
            for n, mood, cancel_after_s in sends:
                call.provider().mood = mood
                sending = asyncio.ensure_future(call.engine.send_audio(speech(n / 24, first=n_frames)))
                n_frames += n
                await asyncio.sleep(0)
                if cancel_after_s is None:
                    await sending
                else:
                    await asyncio.wait([sending], timeout=cancel_after_s)
                    sending.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await sending
            call.provider().mood = "quick"
            await call.engine.end_turn()
            assert bytes(call.provider().audio) == speech(n_frames / 24)
            assert len(call.seen.of(EventType.ERROR_GENERAL, EventType.ERROR_NETWORK)) <= len(sends)

    run_virtual(play())


@virtual
async def test_send_audio_waits_while_the_service_is_slow_and_only_then() -> None:
    loop = asyncio.get_running_loop()

    async with calling(kind(behaviour={"send_audio": lambda *_: asyncio.sleep(0.04)})) as call:
        for n, chunk in enumerate(range(100)):
            await call.engine.send_audio(speech(20, first=chunk * 480))
            if n < 25:
                assert loop.time() == 0
        assert loop.time() == pytest.approx(100 * 0.04 - 25 * 0.04, abs=0.1)


@pytest.mark.parametrize("ending", ["disconnect", "loss"])
@virtual
async def test_whoever_waits_for_a_stuck_service_is_freed_when_the_session_ends(ending: str) -> None:
    async with leak_check():
        async with calling(kind(behaviour={"send_audio": hang})) as call:
            waiting = asyncio.create_task(call.engine.send_audio(speech(2000)))
            await asyncio.sleep(100)
            assert not waiting.done()

            if ending == "disconnect":
                await call.engine.disconnect()
            else:
                call.provider().is_connected = False
            await asyncio.wait_for(waiting, 1)


@virtual
async def test_full_journal_refuses_the_whole_chunk() -> None:
    async with calling(journal_s=2, turn_detection="manual") as call:
        await speak(call.engine, speech(2000))

        with pytest.raises(JournalFull, match="journal_s=2"):
            await call.engine.send_audio(speech(20))

        await asyncio.sleep(0.1)
        assert len(call.provider().audio) == len(speech(2000))
        await call.engine.end_turn()
        call.provider().answers()
        await call.engine.send_audio(speech(20))


@virtual
async def test_silence_may_go_on_for_ever_and_answered_speech_makes_room() -> None:
    async with calling(journal_s=3) as call:
        await speak(call.engine, silence(20_000))
        for n in range(4):
            await speak(call.engine, speech(2000))
            await asyncio.sleep(0.1)
            call.provider().hears(20_000 + n * 2000, 22_000 + n * 2000)
            call.provider().answers(response_id=f"r{n}")

        assert len(call.provider().audio) == len(silence(28_000))


@virtual
async def test_input_chunks_are_shown_while_somebody_asks() -> None:
    async with calling() as call:
        await call.engine.send_audio(speech(20))
        shown: list[Any] = []
        subscription = call.engine.events.on(EventType.AUDIO_INPUT_CHUNK, shown.append)
        await call.engine.send_audio(speech(20))
        subscription.cancel()
        await call.engine.send_audio(speech(20))

        assert [(event.audio_data, event.sample_rate) for event in shown] == [(speech(20), RATE)]


@virtual
async def test_text_is_filed_and_asks_for_an_answer() -> None:
    async with calling() as call:
        await call.engine.send_text("What time is it?")
        call.provider().answers("Noon.")

        assert call.provider().of("send_text") == ["What time is it?"]
        assert call.seen.one(EventType.RESPONSE_STARTED).trigger == "text"
        assert [(item.role, item.text) for item in call.engine.history] == [
            ("user", "What time is it?"),
            ("agent", "Noon."),
        ]


@pytest.mark.parametrize("text", ["", "  ", None, 5, b"x"])
@pytest.mark.parametrize("method", ["send_text", "say"])
@virtual
async def test_text_that_is_none_is_refused(method: str, text: Any) -> None:
    async with calling() as call:
        with pytest.raises(UsageError, match=method):
            await getattr(call.engine, method)(text)

        assert len(call.engine.history) == 0


@virtual
async def test_text_that_could_not_be_sent_is_nowhere() -> None:
    async with calling(kind(behaviour={"send_text": OSError("no")})) as call:
        with pytest.raises(ProviderError):
            await call.engine.send_text("lost")

        assert len(call.engine.history) == 0
        assert call.seen.codes() == []
        await call.engine.wait_idle(timeout_s=5)


@virtual
async def test_say_is_the_agents_and_not_the_users() -> None:
    async with calling() as call:
        await call.engine.say("Good morning.")
        call.provider().answers("Good morning.")

        assert call.provider().of("speak") == ["Good morning."]
        assert call.seen.one(EventType.RESPONSE_STARTED).trigger == "say"
        assert [item.role for item in call.engine.history] == ["agent"]
        assert not call.engine.metrics.turns


@pytest.mark.parametrize(
    ("method", "row", "support"),
    [("send_text", "text_turn", UNSUPPORTED), ("say", "speak", UNSUPPORTED), ("say", "speak", PLANNED)],
)
@virtual
async def test_what_a_provider_cannot_is_said_before_it_is_tried(method: str, row: str, support: Any) -> None:
    async with calling(kind(capabilities=caps(**{row: support}))) as call:
        with pytest.raises(CapabilityMissing, match=method) as caught:
            await getattr(call.engine, method)("hello")

        assert caught.value.capability == row
        assert caught.value.planned == (support is PLANNED)


@virtual
async def test_guide_provider_cannot_speak_a_given_text() -> None:
    async with calling(kind(Document)) as call:
        with pytest.raises(CapabilityMissing):
            await call.engine.say("hello")


class Gate:
    """A tap that drops the quiet and halves the loud."""

    def on_input(self, chunk: bytes) -> bytes | None:
        return chunk[: len(chunk) // 4 * 2] if any(chunk) else None


@virtual
async def test_taps_come_before_the_journal() -> None:
    async with calling(taps=[Gate()]) as call:
        await call.engine.send_audio(silence(20))
        await call.engine.send_audio(speech(20))
        await turns()

        assert bytes(call.provider().audio) == speech(10)
        assert call.engine.metrics.tapped == {"Gate": 1}


@virtual
async def test_configured_options_reach_the_session_and_the_next_one() -> None:
    async with calling(instructions="Be kind.", others={"two": kind()}) as call:
        await call.engine.configure_session({"temperature": 0.3}, instructions="Be brief.")

        assert call.provider().of("configure_session") == [{"instructions": "Be brief.", "temperature": 0.3}]
        assert call.engine.config.instructions == "Be brief."
        await call.engine.switch_provider("two")
        assert call.provider("two").config["instructions"] == "Be brief."
        assert "temperature" not in call.provider("two").config


@pytest.mark.parametrize("options", [{"temperature": 9}, {"api_key": "x"}, {"nothing": 1}, {"voice": 3}])
@virtual
async def test_wrong_option_changes_nothing(options: dict[str, Any]) -> None:
    async with calling() as call:
        with pytest.raises(ConfigError):
            await call.engine.configure_session(options)
        with pytest.raises(ConfigError):
            await call.engine.configure_session(5)  # type: ignore[arg-type]

        assert call.provider().of("configure_session") == []
        assert call.engine.config.temperature is None


@virtual
async def test_failed_configuration_is_not_in_force() -> None:
    async with calling(kind(behaviour={"configure_session": OSError("no")})) as call:
        with pytest.raises(ProviderError):
            await call.engine.configure_session(voice="ada")

        assert call.engine.config.voice is None
        assert "voice" not in call.provider().config


@virtual
async def test_provider_format_decides_when_none_is_configured() -> None:
    cls = kind(capabilities=caps(input_formats=(AudioFormat(16_000),), output_formats=(AudioFormat(8000),)))

    async with calling(cls) as call:
        assert call.engine.input_format == AudioFormat(16_000)
        assert call.engine.output_format == AudioFormat(8000)


@virtual
async def test_answer_that_comes_early_takes_no_audio_away_that_was_not_sent() -> None:
    slow = kind(behaviour={"send_audio": lambda *_: asyncio.sleep(0.2)})
    async with calling(slow, turn_detection={"kind": "client", "silence_ms": 200}) as call:
        await speak(call.engine, speech(200) + silence(280))
        assert len(call.seen.of(EventType.SPEECH_ENDED)) == 1
        assert bytes(call.provider().audio) == b""

        call.provider().answers("I heard enough.")
        await asyncio.sleep(30)

        assert bytes(call.provider().audio) == speech(200) + silence(280)
