"""The engine with a microphone and a loudspeaker, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.core.audio.devices_for_tests import HandBackend, HandStream
from tests.core.engine.fakes import (
    RATE,
    Call,
    Puppet,
    Seen,
    calling,
    kind,
    registry,
    silence,
    speech,
    turns,
)
from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.audio.backends.array import ArrayBackend
from voxengine.audio.backends.base import Stream
from voxengine.audio.devices import Direction
from voxengine.audio.format import AudioFormat
from voxengine.errors import (
    AudioDeviceError,
    AudioFormatError,
    CapabilityMissing,
    ConfigError,
    NotConnected,
    ProviderError,
)
from voxengine.events import EventType
from voxengine.testing import leak_check, virtual

FORMAT = AudioFormat(RATE)
LONG = "One two three four five six seven eight nine ten."


@asynccontextmanager
async def hearing(
    backend: Any, one: Any = None, /, *, start: bool = True, **config: Any
) -> AsyncIterator[Call]:
    """An engine with devices, listening."""
    config.setdefault("reconnect", {"budget_s": 0})
    kinds = {"one": one if one is not None else kind()}
    engine = VoiceEngine(
        VoiceEngineConfig(provider="one", **config), registry=registry(**kinds), audio=backend
    )
    call = Call(engine, Seen(engine), kinds)
    await engine.connect()
    try:
        if start:
            await engine.start_listening()
        yield call
    finally:
        await engine.disconnect()


def tone(ms: int, value: int = 1000) -> bytes:
    return value.to_bytes(2, "little", signed=True) * (RATE * ms // 1000)


def sound(call: Call, data: bytes, response_id: str = "r1", *, whole: bool = True) -> None:
    provider = call.provider()
    provider.starts(response_id)
    provider.writes(LONG, response_id, f"item of {response_id}", is_partial=False)
    provider.emit_event(
        EventType.AUDIO_OUTPUT_CHUNK,
        {"audio_data": data, "response_id": response_id, "item_id": f"item of {response_id}"},
    )
    if whole:
        provider.completes(response_id)


def without_silence(played: bytes | bytearray) -> bytes:
    """What was played, from its first to its last sound."""
    data = bytes(played)
    first = len(data) - len(data.lstrip(b"\0"))
    return data[first - first % 2 :].rstrip(b"\0")


# -- what is heard and said -------------------------------------------------------------------------


@virtual
async def test_microphone_reaches_the_provider_sample_for_sample() -> None:
    backend = ArrayBackend(FORMAT)
    said = speech(2000)
    async with hearing(backend) as call:
        backend.feed(said)
        await asyncio.sleep(3)

        assert bytes(call.provider().audio) == said
        started = call.seen.one(EventType.AUDIO_INPUT_STARTED)
        assert (started.device, started.sample_rate) == ("array", RATE)
        assert call.engine.is_listening


@virtual
async def test_answer_is_played_by_the_device_and_only_then_is_it_over() -> None:
    backend = ArrayBackend(FORMAT)
    async with hearing(backend) as call:
        assert call.engine.session is not None
        assert call.engine.session.settings["playback"] == "device"
        sound(call, speech(1000))
        await call.engine.wait_idle()

        assert call.seen.one(EventType.AUDIO_OUTPUT_STOPPED).played_ms == 1000
        heard = without_silence(backend.played)
        assert heard[240:].startswith(speech(1000)[240:])  # The first 5 ms are faded in.


@virtual
async def test_interruption_silences_the_device_and_tells_what_it_took() -> None:
    backend = ArrayBackend(FORMAT)
    async with hearing(backend) as call:
        sound(call, tone(4000))
        await asyncio.sleep(1)
        heard = call.engine.interrupt().heard
        taken = len(backend.played)
        await asyncio.sleep(1)

        assert heard is not None
        sounding = without_silence(backend.played[:taken])
        assert heard.item_played_ms == round(FORMAT.duration_ms(len(sounding)))
        assert max(without_silence(backend.played[taken:]), default=0) < 255  # The fade, and then nothing.
        assert call.seen.one(EventType.INTERRUPTED).heard_ms == heard.item_played_ms
        (item,) = call.engine.history
        assert item.heard_ms == heard.item_played_ms


@virtual
async def test_client_lets_through_speech_with_its_beginning_and_no_silence_between_turns() -> None:
    backend = ArrayBackend(FORMAT)
    async with hearing(backend, turn_detection="client") as call:
        backend.feed(silence(5000) + speech(800) + silence(5000))
        await asyncio.sleep(12)

        got = bytes(call.provider().audio)
        assert speech(800) in got
        before = got.index(speech(800)[:100])
        assert FORMAT.n_bytes(290) <= before <= FORMAT.n_bytes(320)
        assert len(got) < FORMAT.n_bytes(2500)
        assert call.provider().of("end_turn") == [True]


@virtual
async def test_client_ends_the_turn_also_where_the_room_is_loud() -> None:
    backend = ArrayBackend(FORMAT)
    room = tone(20, 300) + tone(20, -300)
    async with hearing(backend, turn_detection="client") as call:
        backend.feed(room * 100 + speech(900) + room * 200)
        await asyncio.sleep(15)

        assert call.provider().of("end_turn") == [True]
        assert speech(900) in bytes(call.provider().audio)


@virtual
async def test_barge_in_by_voice_through_the_devices() -> None:
    backend = ArrayBackend(FORMAT)
    async with hearing(backend, turn_detection="client") as call:
        backend.feed(silence(3000) + speech(600) + silence(5000))
        await asyncio.sleep(1)
        sound(call, tone(6000))
        await asyncio.sleep(5)

        cut = call.seen.one(EventType.INTERRUPTED)
        assert 1900 < cut.heard_ms < 2300
        assert call.provider().of("end_turn") == [True]


@virtual
async def test_half_duplex_hears_nothing_while_the_agent_is_heard() -> None:
    backend = ArrayBackend(FORMAT)
    async with hearing(backend, device_options={"half_duplex": True}) as call:
        sound(call, tone(1000))
        await asyncio.sleep(0.1)
        backend.feed(speech(500) + silence(1000) + speech(300, first=7))
        await asyncio.sleep(3)

        assert bytes(call.provider().audio) == silence(1500) + speech(300, first=7)


@virtual
async def test_stop_listening_sends_what_waits_and_ends_the_turn() -> None:
    backend = ArrayBackend(FORMAT)
    async with hearing(backend, turn_detection="manual") as call:
        backend.feed(speech(1000))
        await asyncio.sleep(2)
        assert call.provider().of("end_turn") == []
        await call.engine.stop_listening()

        assert bytes(call.provider().audio) == speech(1000)
        assert call.provider().of("end_turn") == [True]
        assert call.seen.one(EventType.AUDIO_INPUT_STOPPED).device == "array"
        assert not call.engine.is_listening


@virtual
async def test_stop_listening_asks_for_nothing_when_nobody_spoke() -> None:
    backend = ArrayBackend(FORMAT)
    async with hearing(backend, turn_detection="manual") as call:
        backend.feed(silence(1000))
        await asyncio.sleep(2)
        await call.engine.stop_listening()
        await call.engine.stop_listening()

        assert call.provider().of("end_turn") == []


@virtual
async def test_stop_listening_ends_a_turn_by_hand_however_quiet_it_was() -> None:
    backend = ArrayBackend(FORMAT)
    async with hearing(backend, turn_detection="manual") as call:
        backend.feed(b"\x05\x00\xfb\xff" * RATE)
        await asyncio.sleep(3)
        await call.engine.stop_listening()

        assert call.provider().of("end_turn") == [True]


@virtual
async def test_answer_to_push_to_talk_is_heard_and_then_the_device_is_let_go() -> None:
    backend = HandBackend(card=FORMAT)
    async with hearing(backend, turn_detection="manual") as call:
        speaker, microphone = backend.streams
        microphone.block(speech(20))
        for _ in range(20):
            microphone.block(speech(20))
        await turns()
        await call.engine.stop_listening()
        sound(call, tone(400))
        await speaker.run(40)

        assert microphone.is_closed
        assert len(without_silence(speaker.played)) >= FORMAT.n_bytes(400)
        await asyncio.sleep(3)
        assert speaker.is_closed
        assert call.engine.session is not None
        assert call.engine.session.settings["playback"] == "null"
        sound(call, tone(400), "r2")
        await call.engine.wait_idle()
        assert [event.played_ms for event in call.seen.of(EventType.AUDIO_OUTPUT_STOPPED)] == [400, 400]


@virtual
async def test_listening_again_goes_on_with_the_same_loudspeaker() -> None:
    backend = ArrayBackend(FORMAT)
    async with hearing(backend) as call:
        await call.engine.stop_listening()
        sound(call, tone(3000))
        await asyncio.sleep(1)
        await call.engine.start_listening()
        await asyncio.sleep(5)

        assert call.seen.one(EventType.AUDIO_OUTPUT_STOPPED).played_ms == 3000
        assert len(without_silence(backend.played)) >= FORMAT.n_bytes(3000)
        assert len(call.seen.of(EventType.AUDIO_INPUT_STARTED)) == 2


@virtual
async def test_answer_that_began_before_listening_ends_where_it_began() -> None:
    backend = ArrayBackend(FORMAT)
    async with hearing(backend, start=False) as call:
        sound(call, tone(2000), whole=False)
        await asyncio.sleep(0.5)
        await call.engine.start_listening()
        call.provider().sounds(1000, "r1", "item of r1")
        call.provider().completes("r1")
        sound(call, tone(500), "r2")
        await asyncio.sleep(5)

        stopped = call.seen.of(EventType.AUDIO_OUTPUT_STOPPED)
        assert sorted(event.played_ms for event in stopped) == [500, 3000]
        assert FORMAT.n_bytes(500) <= len(without_silence(backend.played)) < FORMAT.n_bytes(520)
        assert call.engine._conversation.clock is not None
        assert call.engine._conversation.clock.total_played_ms() == 3500


@virtual
async def test_playback_to_nobody_or_elsewhere_opens_no_loudspeaker() -> None:
    for playback in ("null", "external"):
        backend = HandBackend(card=FORMAT)
        async with hearing(backend, playback=playback) as call:
            assert [stream.direction for stream in backend.streams] == ["input"]
            assert call.engine.session is not None
            assert call.engine.session.settings["playback"] == playback


@virtual
async def test_confirmed_interruption_pauses_the_device() -> None:
    backend = ArrayBackend(FORMAT)
    async with hearing(backend, turn_detection="client", interruption="confirm") as call:
        backend.feed(silence(3000) + speech(200) + silence(6000))
        await asyncio.sleep(1)
        sound(call, tone(4000))
        await asyncio.sleep(8)

        assert call.seen.of(EventType.INTERRUPTED) == []
        assert call.engine.metrics.resumptions == 1
        assert call.seen.one(EventType.AUDIO_OUTPUT_STOPPED).played_ms == 4000
        pause = max(len(part) for part in bytes(backend.played).strip(b"\0").split(b"\xe8\x03"))
        assert FORMAT.n_bytes(400) < pause < FORMAT.n_bytes(1000)


@virtual
async def test_wait_played_returns_after_the_last_word_left_the_device() -> None:
    backend = HandBackend(card=FORMAT)
    async with hearing(backend) as call:
        speaker = backend.streams[0]
        sound(call, tone(200))
        waiting = asyncio.create_task(call.engine.wait_played())
        await speaker.run(9)
        assert not waiting.done()
        await speaker.run(3)
        assert not waiting.done()  # All of it was handed over, and the device still holds two blocks.
        await asyncio.sleep(0.05)

        assert await waiting is True
        call.provider().starts("r2")
        call.provider().sounds(500, "r2", "i2")
        assert await call.engine.wait_played(timeout_s=1) is False


@virtual
async def test_levels_show_what_is_heard_and_what_is_said() -> None:
    backend = ArrayBackend(FORMAT)
    async with hearing(backend) as call:
        assert call.engine.levels.loudspeaker_db == -100
        backend.feed(tone(100, 16384))
        sound(call, tone(1000, 8192))
        await asyncio.sleep(0.5)

        assert call.engine.levels.microphone_db == pytest.approx(-6.0, abs=0.1)
        assert call.engine.levels.loudspeaker_db == pytest.approx(-12.0, abs=0.1)
    assert call.engine.levels.loudspeaker_db == -100


# -- recorded turns ---------------------------------------------------------------------------------


@virtual
async def test_recorded_turn_is_one_turn_whatever_pauses_it_has() -> None:
    data = speech(600) + silence(1500) + speech(600, first=9)
    async with hearing(None, turn_detection="client", start=False) as call:
        await call.engine.send_recorded_audio(data)

        assert bytes(call.provider().audio) == data
        assert call.provider().of("end_turn") == [True]
        await call.engine.send_recorded_audio(bytearray(speech(300)), respond=False, sample_rate=RATE)
        await call.engine.send_recorded_audio(speech(700))
        assert call.provider().of("end_turn") == [True, False, True]


@virtual
async def test_turn_without_an_answer_is_refused_where_the_vendor_answers_each() -> None:
    async with hearing(None, start=False) as call:
        with pytest.raises(CapabilityMissing, match="send_recorded_audio"):
            await call.engine.send_recorded_audio(speech(300), respond=False)
        with pytest.raises(CapabilityMissing, match="end_turn"):
            await call.engine.end_turn(respond=False)

        assert call.provider().audio == b""


@pytest.mark.parametrize("value", [{"sample_rate": 16_000}, {"channels": 2}])
@virtual
async def test_recording_of_another_format_is_refused_by_its_own_name(value: dict[str, Any]) -> None:
    async with hearing(None, start=False) as call:
        with pytest.raises(AudioFormatError, match="^send_recorded_audio got"):
            await call.engine.send_recorded_audio(speech(300), **value)
        with pytest.raises(AudioFormatError, match="^send_recorded_audio got"):
            await call.engine.send_recorded_audio("speech")

        assert call.provider().audio == b""


@pytest.mark.parametrize("detection", ["server", "client", "manual"])
@virtual
async def test_recorded_turns_and_other_audio_come_one_after_the_other(detection: Any) -> None:
    async def slowly(*_: Any) -> None:
        await asyncio.sleep(0.05)

    one, two, other = speech(2000), speech(2000, first=5), speech(400, first=9)
    async with calling(kind(behaviour={"send_audio": slowly}), turn_detection=detection) as call:
        engine = call.engine
        turns_sent = [asyncio.create_task(engine.send_recorded_audio(data)) for data in (one, two)]
        await asyncio.sleep(0.2)
        await engine.send_audio(other)
        await asyncio.gather(*turns_sent)
        await asyncio.sleep(2)

        sent = bytes(call.provider().audio).rstrip(b"\0")
        heard = sent.replace(one, b"1").replace(two, b"2").replace(other, b"3").replace(b"\0", b"")
        assert heard == b"123"
        if detection != "server":
            assert call.provider().of("end_turn") == [True, True]


@virtual
async def test_recording_that_does_not_fit_is_refused_whole() -> None:
    async with hearing(None, start=False, journal_s=2) as call:
        with pytest.raises(Exception, match=r"lasts 2\.5 s and the limit is journal_s=2"):
            await call.engine.send_recorded_audio(speech(2500))
        with pytest.raises(Exception, match="whole number"):
            await call.engine.send_recorded_audio(b"abc")
        with pytest.raises(Exception, match="no audio"):
            await call.engine.send_recorded_audio(b"")

        assert call.provider().audio == b""


# -- G.711 ------------------------------------------------------------------------------------------


@virtual
async def test_g711_goes_in_and_out_of_the_engine() -> None:
    from voxengine.audio import g711, pcm

    law = AudioFormat(8000, 1, "g711_ulaw")
    said = g711.encode(speech(600, rate=8000), law.encoding)
    async with hearing(None, start=False, input_format=law, output_format=law) as call:
        await call.engine.send_audio(said)
        await call.engine.end_turn()
        sound(call, speech(500))

        wide = pcm.convert(said, law, FORMAT)
        assert bytes(call.provider().audio).startswith(wide)
        assert (call.engine.input_format, call.engine.output_format) == (law, law)
        heard = call.seen.audio()
        assert heard == pcm.convert(speech(500), FORMAT, law)
        assert call.seen.of(EventType.AUDIO_OUTPUT_CHUNK)[0].sample_rate == 8000
        await call.engine.wait_idle()
        assert call.seen.one(EventType.AUDIO_OUTPUT_STOPPED).played_ms == 500


@virtual
async def test_g711_of_the_service_passes_unchanged_and_its_silence_is_silent() -> None:
    from voxengine.audio import g711
    from voxengine.capabilities import FULL, Capabilities

    law = AudioFormat(8000, 1, "g711_alaw")
    telephone = Capabilities(
        dialogue=FULL,
        response_boundaries=FULL,
        server_turn_detection=FULL,
        input_formats=(AudioFormat(16000), law),
        output_formats=(AudioFormat(16000), law),
        endpointing_silence_ms=200,
    )
    said = bytes(range(1, 251)) * 16
    async with hearing(None, kind(Puppet, capabilities=telephone), start=False, input_format=law) as call:
        await call.engine.send_audio(said)
        await call.engine.end_turn()

        got = bytes(call.provider().audio)
        assert got.startswith(said)
        assert set(got[len(said) :]) == {0xD5}
        with pytest.raises(Exception, match="as bytes"):
            await call.engine.send_audio([1, 2, 3])
        assert g711.decode(said, law.encoding) == call.engine._conversation.user.journal.read(0, 4000)  # type: ignore[union-attr]


@virtual
async def test_g711_is_played_and_recorded_by_devices() -> None:
    law = AudioFormat(8000, 1, "g711_ulaw")
    backend = ArrayBackend(AudioFormat(8000))
    async with hearing(backend, input_format=law, output_format=law) as call:
        backend.feed(speech(200, rate=8000))
        sound(call, tone(1000))
        await asyncio.sleep(2)

        assert backend.output_format == AudioFormat(8000)
        assert 990 < AudioFormat(8000).duration_ms(len(without_silence(backend.played))) < 1030
        assert len(call.provider().audio) > FORMAT.n_bytes(150)


@virtual
async def test_taps_see_pcm16_where_the_engine_speaks_g711() -> None:
    from voxengine.hookspecs import hookimpl

    class Ear:
        def __init__(self) -> None:
            self.heard: list[bytes] = []
            self.said: list[bytes] = []

        @hookimpl
        def on_input(self, chunk: bytes) -> bytes:
            self.heard.append(chunk)
            return chunk

        @hookimpl
        def on_output(self, chunk: bytes) -> bytes:
            self.said.append(chunk)
            return chunk

    law = AudioFormat(8000, 1, "g711_ulaw")
    config = VoiceEngineConfig(provider="one", input_format=law, output_format=law)
    kinds = {"one": kind()}
    ear = Ear()
    engine = VoiceEngine(config, registry=registry(**kinds), taps=[ear])
    call = Call(engine, Seen(engine), kinds)
    async with engine:
        await engine.send_audio(b"\xff" * 160)
        sound(call, silence(20))
        await turns()

        assert ear.heard == [bytes(320)]
        assert b"".join(ear.said) == bytes(320)
        assert call.seen.audio() == b"\xff" * 160


# -- bad devices ------------------------------------------------------------------------------------


class Missing(ArrayBackend):
    """Has no device in one direction."""

    def __init__(self, direction: Direction) -> None:
        super().__init__(FORMAT)
        self.missing = direction

    async def open(self, direction: Direction, *rest: Any) -> Any:
        if direction == self.missing:
            raise AudioDeviceError("It is in use.", device=rest[0])
        return await super().open(direction, *rest)


@virtual
async def test_without_a_loudspeaker_the_conversation_goes_on_unheard() -> None:
    async with hearing(Missing("output")) as call:
        assert call.seen.codes() == ["no_loudspeaker"]
        assert call.engine.is_listening
        assert call.engine.session is not None
        assert call.engine.session.settings["playback"] == "null"


@pytest.mark.parametrize(("direction", "named"), [("input", {}), ("output", {"output_device": "nice one"})])
@virtual
async def test_device_that_cannot_be_opened_is_an_error_and_leaves_nothing_open(
    direction: Direction, named: dict[str, Any]
) -> None:
    async with hearing(Missing(direction), start=False, **named) as call:
        with pytest.raises(AudioDeviceError, match="in use"):
            await call.engine.start_listening()

        assert not call.engine.is_listening
        assert call.seen.of(EventType.AUDIO_INPUT_STARTED) == []
        assert call.engine.session is not None
        assert call.engine.session.settings["playback"] == "null"
        sound(call, tone(300))
        await call.engine.wait_idle()


@virtual
async def test_named_devices_are_asked_for_by_their_names() -> None:
    backend = HandBackend(left=FORMAT, right=FORMAT)
    async with hearing(backend, input_device="left", output_device="right"):
        assert [device for device, _ in backend.asked] == ["right", "left"]


@virtual
async def test_unknown_processor_is_named_before_a_device_is_opened() -> None:
    backend = HandBackend(card=FORMAT)
    async with hearing(backend, start=False, device_options={"processors": ["nobody"]}) as call:
        with pytest.raises(ConfigError, match="'nobody'"):
            await call.engine.start_listening()

        assert backend.streams == []


@virtual
async def test_processor_that_fails_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise RuntimeError("no more")

    monkeypatch.setattr("voxengine.audio.processors.NullProcessor.process", fail)
    backend = ArrayBackend(FORMAT)
    async with hearing(backend, device_options={"processors": ["null"]}) as call:
        backend.feed(speech(200))
        await asyncio.sleep(1)

        assert call.seen.codes() == ["processor_failed"]
        assert "NullProcessor raised RuntimeError" in call.seen.one(EventType.WARNING).message
        assert bytes(call.provider().audio) == speech(200)


@virtual
async def test_processors_are_put_before_the_provider() -> None:
    backend = ArrayBackend(FORMAT)
    async with hearing(backend, device_options={"processors": ["null"]}) as call:
        backend.feed(speech(500))
        await asyncio.sleep(1)

        assert bytes(call.provider().audio) == speech(500)


@virtual
async def test_listening_needs_a_session() -> None:
    engine = VoiceEngine(VoiceEngineConfig(provider="one"), registry=registry(one=kind()))

    with pytest.raises(NotConnected, match="start_listening"):
        await engine.start_listening()
    await engine.stop_listening()

    assert not engine.is_listening


# -- slow and lost services -------------------------------------------------------------------------


@virtual
async def test_device_waits_for_nobody_what_a_slow_service_does_not_take_is_dropped_and_told() -> None:
    backend = HandBackend(card=FORMAT)
    slow = kind(behaviour={"send_audio": lambda *_: asyncio.sleep(0.1)})
    async with hearing(backend, slow) as call:
        microphone = backend.streams[1]
        await microphone.run(200, speech(20))
        await call.engine.stop_listening()
        await asyncio.sleep(20)

        dropped = call.seen.of(EventType.AUDIO_INPUT_DROPPED)
        n_dropped = sum(event.n_samples for event in dropped)
        assert n_dropped > RATE
        assert n_dropped + len(call.provider().audio.rstrip(b"\0")) // 2 == 4 * RATE
        assert {event.reason for event in dropped} == {"the microphone was not read in time"}


@virtual
async def test_audio_without_a_session_is_counted_once_a_second() -> None:
    backend = HandBackend(card=FORMAT)
    async with hearing(backend) as call:
        microphone = backend.streams[1]
        call.provider().emit_event(EventType.CONNECTION_LOST, {"error": ProviderError("gone")})
        await microphone.run(150, speech(20))

        dropped = call.seen.of(EventType.AUDIO_INPUT_DROPPED)
        assert 3 <= len(dropped) <= 4
        assert {event.reason for event in dropped} == {"there is no session"}
        assert call.engine.is_listening
        await call.engine.switch_provider("one")
        before = sum(event.n_samples for event in call.seen.of(EventType.AUDIO_INPUT_DROPPED))
        await microphone.run(10, speech(20))
        assert bytes(call.provider().audio) == speech(20) * 10
        after = sum(event.n_samples for event in call.seen.of(EventType.AUDIO_INPUT_DROPPED))
        assert after - before < RATE


@virtual
async def test_unanswered_speech_that_fills_the_journal_is_dropped_before_it_is_accepted() -> None:
    backend = ArrayBackend(FORMAT)
    async with hearing(backend, journal_s=2, turn_detection="manual") as call:
        backend.feed(speech(5000))
        await asyncio.sleep(6)
        await call.engine.stop_listening()

        dropped = call.seen.of(EventType.AUDIO_INPUT_DROPPED)
        n_sent = len(call.provider().audio) // 2
        assert n_sent + sum(event.n_samples for event in dropped) == 5 * RATE
        assert {event.reason for event in dropped} == {"unanswered audio fills the journal"}


@virtual
async def test_microphone_that_ends_ends_the_turn() -> None:
    backend = ArrayBackend(FORMAT)
    async with hearing(backend, turn_detection="manual") as call:
        backend.feed(speech(500))
        backend.end()
        await asyncio.sleep(2)

        assert call.provider().of("end_turn") == [True]
        assert call.seen.one(EventType.AUDIO_INPUT_STOPPED).device == "array"
        assert not call.engine.is_listening


# -- lost devices -----------------------------------------------------------------------------------


@virtual
async def test_lost_devices_are_told_played_on_by_the_clock_and_used_again() -> None:
    backend = HandBackend(card=FORMAT)
    async with hearing(backend) as call:
        speaker, microphone = backend.streams
        sound(call, tone(4000))
        await asyncio.gather(speaker.run(50), microphone.run(50, speech(20)))
        there, backend.there = backend.there, {}
        speaker.is_running = microphone.is_running = False
        await asyncio.sleep(1)

        lost = call.seen.of(EventType.ERROR_AUDIO)
        assert sorted(event.data["direction"] for event in lost) == ["input", "output"]
        assert {event.data["reason"] for event in lost} == {"stopped"}
        assert all(event.recoverable and isinstance(event.error, AudioDeviceError) for event in lost)
        await asyncio.sleep(4)
        stopped = call.seen.one(EventType.AUDIO_OUTPUT_STOPPED)
        assert 3900 < stopped.played_ms <= 4000
        assert call.engine.is_connected
        running = []

        def run(stream: HandStream) -> None:
            recorded = speech(20) if stream.direction == "input" else None
            running.append(asyncio.create_task(stream.run(400, recorded)))

        backend.there, backend.prepare = there, run
        await asyncio.sleep(6)
        assert call.seen.codes() == ["device_returned", "device_returned"]
        sound(call, tone(200), "r2")
        await asyncio.wait(running)
        (played,) = [stream.played for stream in backend.streams[2:] if stream.direction == "output"]
        assert len(without_silence(played)) >= FORMAT.n_bytes(200)
        assert bytes(call.provider().audio).endswith(speech(20) * 100)


@virtual
async def test_device_that_hangs_is_left_and_the_engine_ends_in_time() -> None:
    class Stuck(HandBackend):
        async def open(self, *wanted: Any) -> Any:
            stream = await super().open(*wanted)
            close = stream.close

            async def patient() -> None:
                await asyncio.sleep(1)
                await close()

            stream.close = patient  # type: ignore[method-assign]
            return stream

    backend = Stuck(card=FORMAT)
    async with hearing(backend) as call:
        speaker, microphone = backend.streams
        await asyncio.gather(speaker.run(30), microphone.run(30, speech(20)))
        sound(call, tone(3000))
        backend.there = {}
        await asyncio.sleep(3)
        assert {event.data["reason"] for event in call.seen.of(EventType.ERROR_AUDIO)} == {"silent"}
        before = asyncio.get_running_loop().time()
        await call.engine.disconnect()

        assert asyncio.get_running_loop().time() - before < 2


# -- the end ----------------------------------------------------------------------------------------


@virtual
async def test_disconnect_while_listening_leaves_nothing_behind() -> None:
    backend = HandBackend(card=FORMAT)
    async with leak_check():
        async with hearing(backend) as call:
            sound(call, tone(3000))
            await asyncio.gather(*(stream.run(20, speech(20)) for stream in backend.streams))
        assert all(stream.is_closed for stream in backend.streams)
        assert not call.engine.is_listening
        types = call.seen.types()
        assert types.index(EventType.AUDIO_INPUT_STOPPED) < types.index(EventType.CONNECTION_CLOSED)
        assert call.seen.endings() == {"r1": 1}


@virtual
async def test_disconnect_while_the_devices_are_being_opened_ends_both() -> None:
    backend = HandBackend(card=FORMAT)
    backend.gate = asyncio.Event()
    async with leak_check(), hearing(backend, start=False) as call:
        starting = asyncio.create_task(call.engine.start_listening())
        await turns()
        closing = asyncio.create_task(call.engine.disconnect())
        await turns()
        backend.gate.set()

        with pytest.raises(NotConnected, match="meanwhile"):
            await starting
        await closing
        await turns()
        assert all(stream.is_closed for stream in backend.streams)


@virtual
async def test_cancelled_start_closes_what_it_opened() -> None:
    backend = HandBackend(card=FORMAT)

    def late(stream: Stream) -> None:
        if stream.direction == "input":
            stream.start_s = 10.0  # type: ignore[attr-defined]

    backend.prepare = late
    async with leak_check(), hearing(backend, start=False) as call:
        starting = asyncio.create_task(call.engine.start_listening())
        await asyncio.sleep(1)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        await asyncio.sleep(1)

        assert [stream.is_closed for stream in backend.streams] == [True, True]
        await call.engine.disconnect()


@virtual
async def test_devices_outlive_the_session() -> None:
    backend = ArrayBackend(FORMAT)
    async with hearing(backend) as call:
        sound(call, tone(2000))
        await asyncio.sleep(0.5)
        await call.engine.switch_provider("one")
        backend.feed(speech(400))
        await asyncio.sleep(3)

        assert call.engine.session is not None
        assert call.engine.session.settings["playback"] == "device"
        assert bytes(call.provider().audio) == speech(400)
        assert len(call.seen.of(EventType.AUDIO_INPUT_STARTED)) == 1
        assert call.seen.of(EventType.AUDIO_OUTPUT_STOPPED)[0].played_ms == 2000
