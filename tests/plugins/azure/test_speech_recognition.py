"""Recognition against the emulator: words, times, turns, and every sample heard whatever the connection does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.plugins.azure.support import Remembering, feed, serving, session, silence, speech
from voxengine import TurnDetection
from voxengine.audio.format import AudioFormat, Encoding
from voxengine.errors import AudioFormatError, ErrorCode, NotConnected
from voxengine.events import EventType
from voxengine.testing.emulator import EmulatorSession
from voxengine_azure.emulator.speech_recognition import Recogniser
from voxengine_azure.speech.codec import AudioFrame
from voxengine_azure.speech.kept import KeptAudio

HEARS = ["call VoxEngine now", "and then stop"]


def finals(seen: Any) -> list[str]:
    return [
        event.data["text"] for event in seen.of(EventType.INPUT_TRANSCRIPT) if not event.data["is_partial"]
    ]


async def final(seen: Any, n: int = 1) -> Any:
    await seen.until(lambda: len(finals(seen)) >= n, 20)
    return [e for e in seen.of(EventType.INPUT_TRANSCRIPT) if not e.data["is_partial"]][n - 1]


# --- Words ---------------------------------------------------------------------------------------------


async def test_speech_is_told_from_its_start_to_its_final_words() -> None:
    async with serving(hears=HEARS) as (_, url), session(url) as (provider, seen):
        await feed(provider, silence(500) + speech() + silence(1000))
        last = await final(seen)

    kinds = [event.type for event in seen.events if event.type.value.startswith(("speech", "input"))]
    partial = EventType.INPUT_TRANSCRIPT
    assert kinds == [EventType.SPEECH_STARTED, partial, partial, EventType.SPEECH_ENDED, partial]
    assert last.data["text"] == "Call VoxEngine now."
    assert last.data["language"] == "en-US"
    assert [word["word"] for word in last.data["words"]] == ["call", "voxengine", "now"]
    assert last.data["confidence"] == 0.93
    ids = {event.data["item_id"] for event in seen.events if "item_id" in event.data}
    assert len(ids) == 1


async def test_times_are_those_of_the_session_s_audio_also_in_a_later_turn() -> None:
    async with serving(hears=HEARS) as (_, url), session(url) as (provider, seen):
        await feed(provider, silence(500) + speech(1000))
        await provider.end_turn()
        await final(seen)
        await feed(provider, silence(500) + speech(1000) + silence(1000))
        second = await final(seen, 2)

    starts = [event.data["at_ms"] for event in seen.of(EventType.SPEECH_STARTED)]
    assert starts[0] == pytest.approx(500, abs=40)
    assert starts[1] == pytest.approx(2000, abs=40)
    assert second.data["words"][0]["at_ms"] == starts[1]
    assert second.data["words"][-1]["end_ms"] == pytest.approx(3000, abs=60)


async def test_vocabulary_gives_words_their_spelling() -> None:
    async with (
        serving(hears=["call voxengine now"]) as (_, url),
        session(url, {"vocabulary": ("VoxEngine",)}) as (provider, seen),
    ):
        await feed(provider, speech() + silence(1000))
        last = await final(seen)

    assert last.data["text"] == "Call VoxEngine now."


async def test_language_that_was_identified_comes_with_the_words() -> None:
    async with serving() as (emulator, url), session(url, languages=["de-DE", "en-US"]) as (provider, seen):
        await feed(provider, speech() + silence(1000))
        last = await final(seen)

    assert last.data["language"] == "de-DE"
    assert emulator.recognitions[0].request.path == "/stt/speech/universal/v2"


async def test_fast_mode_has_words_without_times() -> None:
    async with serving(hears=HEARS) as (_, url), session(url, {"mode": "fast"}) as (provider, seen):
        await feed(provider, speech() + silence(1000))
        last = await final(seen)

    assert (last.data["text"], last.data["words"]) == ("Call VoxEngine now.", None)


@pytest.mark.parametrize(
    "form",
    [AudioFormat(8_000), AudioFormat(48_000), AudioFormat(8_000, encoding=Encoding.G711_ULAW)],
)
async def test_other_formats_are_announced_as_what_they_are(form: AudioFormat) -> None:
    from voxengine.audio.g711 import encode
    from voxengine.testing.conformance.subject import speech_like

    pcm = speech_like(form.sample_rate, 1000) + bytes(2 * form.sample_rate)
    sound = pcm if form.encoding is Encoding.PCM16 else encode(pcm, form.encoding)
    async with serving(hears=HEARS) as (_, url), session(url, {"input_format": form}) as (provider, seen):
        for at in range(0, len(sound), form.n_bytes(100)):
            await provider.send_audio(sound[at : at + form.n_bytes(100)])
        last = await final(seen)

    assert last.data["text"] == "Call VoxEngine now."
    assert seen.of(EventType.SPEECH_ENDED)[0].data["at_ms"] == pytest.approx(1000, abs=60)


async def test_half_a_sample_is_refused_and_nothing_is_sent() -> None:
    async with serving() as (emulator, url), session(url) as (provider, seen):
        with pytest.raises(AudioFormatError):
            await provider.send_audio(b"\0\0\0")
        await feed(provider, speech() + silence(1000))
        await final(seen)

    assert emulator.recognitions[0].pcm == speech() + silence(1000)


async def test_chunks_that_are_written_at_once_and_others_keep_their_order() -> None:
    sound = speech() + silence(1000)
    async with serving() as (emulator, url), session(url) as (provider, seen):
        for n, at in enumerate(range(0, len(sound), 640)):
            chunk = sound[at : at + 640]
            if n % 3 or not provider.try_send_audio(chunk):
                await provider.send_audio(chunk)
        await final(seen)

    assert emulator.recognitions[0].pcm == sound


# --- Ends of turns ---------------------------------------------------------------------------------------


async def test_end_of_a_turn_makes_its_words_final_without_silence() -> None:
    manual = {"turn_detection": TurnDetection("manual")}
    async with serving(hears=HEARS) as (_, url), session(url, manual) as (provider, seen):
        await feed(provider, speech())
        await provider.end_turn()
        await feed(provider, speech())
        await provider.end_turn()
        await final(seen, 2)

    assert finals(seen) == ["Call VoxEngine now.", "And then stop."]


async def test_discarded_audio_gives_no_words_and_the_next_does() -> None:
    async with serving(hears=HEARS) as (emulator, url), session(url) as (provider, seen):
        await feed(provider, speech(600))
        await seen.wait(EventType.SPEECH_STARTED)
        await provider.discard_input()
        await provider.end_turn()
        await feed(provider, speech() + silence(1000))
        await final(seen, 2)

    assert finals(seen) == ["", "Call VoxEngine now."]
    assert len(seen.of(EventType.SPEECH_STARTED)) == len(seen.of(EventType.SPEECH_ENDED)) == 2
    assert emulator.recognitions[-1].pcm == speech() + silence(1000)


async def test_vocabulary_and_language_change_in_mid_session_without_losing_audio() -> None:
    async with serving(hears=["call voxengine now"] * 2) as (emulator, url), session(url) as (provider, seen):
        await feed(provider, speech(600))
        await seen.wait(EventType.SPEECH_STARTED)
        await provider.configure_session({"vocabulary": ("VoxEngine",), "language": "de-DE"})
        await feed(provider, speech()[len(speech(600)) :] + silence(1000))
        last = await final(seen)

    assert (last.data["text"], last.data["language"]) == ("Call VoxEngine now.", "de-DE")
    assert emulator.recognitions[1].pcm == speech() + silence(1000)
    assert emulator.recognitions[1].request.query["language"] == "de-DE"
    assert len(seen.of(EventType.SPEECH_STARTED)) == 1


async def test_setting_that_changes_nothing_for_recognition_leaves_its_connection() -> None:
    async with serving() as (emulator, url), session(url) as (provider, seen):
        await provider.configure_session({"voice": "de-DE-KatjaNeural"})
        await feed(provider, speech() + silence(1000))
        await final(seen)

    assert len(emulator.recognitions) == 1
    assert seen.of(EventType.SESSION_UPDATED)[-1].data["settings"]["voice"] == "de-DE-KatjaNeural"


# --- What connections do -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        {"do": "reset", "at": "input:after_audio_ms=800"},
        {"do": "close", "code": 1011, "at": "input:after_audio_ms=800"},
        {"do": "close", "code": 1000, "at": "input:after_audio_ms=800"},
    ],
)
async def test_connection_that_breaks_in_mid_utterance_costs_no_sample(fault: dict[str, Any]) -> None:
    sound = silence(300) + speech() + silence(1000)
    async with (
        serving(hears=HEARS, faults=[fault]) as (emulator, url),
        session(url) as (provider, seen),
    ):
        await feed(provider, sound)
        await final(seen)

    assert emulator.recognitions[1].pcm == sound
    assert finals(seen) == ["Call VoxEngine now."]
    assert len(seen.of(EventType.SPEECH_STARTED)) == 1
    assert not seen.of(EventType.CONNECTION_LOST, EventType.ERROR_GENERAL)


async def test_only_audio_behind_the_last_final_words_is_sent_again() -> None:
    first = speech() + silence(1000)
    fault = {"do": "reset", "at": "input:after_audio_ms=2700"}
    async with (
        serving(hears=HEARS, faults=[fault]) as (emulator, url),
        session(url) as (provider, seen),
    ):
        await feed(provider, first)
        await final(seen)
        await feed(provider, speech() + silence(1000))
        second = await final(seen, 2)

    again = emulator.recognitions[1].pcm
    assert (first + speech() + silence(1000)).endswith(again)
    assert len(again) == pytest.approx(2 * 16 * (1000 + 1200 + 1000), abs=2 * 16 * 60)
    assert second.data["words"][0]["at_ms"] == pytest.approx(2200, abs=60)
    assert len(finals(seen)) == 2


async def test_end_of_a_turn_goes_over_to_the_next_connection() -> None:
    fault = {"do": "reset", "at": "turn"}
    manual = {"turn_detection": TurnDetection("manual")}
    async with (
        serving(Withholding, hears=HEARS, faults=[fault]) as (emulator, url),
        session(url, manual) as (provider, seen),
    ):
        await feed(provider, speech())
        await provider.end_turn()
        await final(seen)

    assert finals(seen) == ["Call VoxEngine now."]
    assert [heard.pcm for heard in emulator.recognitions] == [speech(), speech()]


class Withholding(Remembering):
    """Breaks its first connection before a word of it is final."""

    async def _recognise(self, session: EmulatorSession) -> None:
        self.recognitions.append(self._remembered(session))
        kind = Abrupt if len(self.recognitions) == 1 else Recogniser
        await kind(session, lambda prefix: f"{len(self.recognitions):032x}").run()


class Abrupt(Recogniser):
    """Breaks the connection at the end of a turn."""

    async def take_audio(self, frame: AudioFrame) -> None:
        if not frame.data:
            self.session.abort()
        await super().take_audio(frame)


class ShortTurns(Remembering):
    """Ends its first turn by itself after 800 ms of audio."""

    async def _recognise(self, session: EmulatorSession) -> None:
        self.recognitions.append(self._remembered(session))
        await Impatient(session, lambda prefix: f"{id(session):032x}").run()


class Impatient(Recogniser):
    n_turns = 0

    async def take_audio(self, frame: AudioFrame) -> None:
        await super().take_audio(frame)
        turn = self._turn
        if turn is not None and not self.n_turns and self.behaviour.audio_ms >= 800:
            self.n_turns += 1
            await self._end(turn)


async def test_turn_that_the_service_ends_by_itself_is_followed_by_another_on_the_same_connection() -> None:
    sound = silence(300) + speech() + silence(1000)
    async with serving(ShortTurns, hears=HEARS) as (emulator, url), session(url) as (provider, seen):
        for at in range(0, len(sound), 3200):
            await provider.send_audio(sound[at : at + 3200])
            await asyncio.sleep(0)
        last = await final(seen)

    (heard,) = emulator.recognitions
    assert sound in heard.pcm[2 * 16 * 700 :]
    assert len(heard.of("speech.config")) == 1
    assert len(heard.of("speech.context")) == 2
    assert last.data["text"] == "And then stop."
    assert len(seen.of(EventType.SPEECH_STARTED)) == 1
    assert last.data["words"][-1]["end_ms"] == pytest.approx(1500, abs=60)


async def test_connection_that_is_closed_for_idleness_is_opened_again_when_somebody_speaks() -> None:
    fault = {"do": "close", "code": 1000, "at": "ready", "session": 1}
    async with serving(hears=HEARS, faults=[fault]) as (_, url), session(url) as (provider, seen):
        await feed(provider, speech() + silence(1000))
        await final(seen)

    assert finals(seen) == ["Call VoxEngine now."]
    assert not seen.of(EventType.CONNECTION_LOST)


async def test_service_that_breaks_every_connection_is_reported_as_lost_once() -> None:
    fault = {"do": "reset", "at": "first_input", "times": 100}
    async with serving(faults=[fault]) as (_, url), session(url) as (provider, seen):
        await provider.send_audio(speech(100))
        lost = await seen.wait(EventType.CONNECTION_LOST)

        assert not provider.is_connected
        with pytest.raises(NotConnected):
            await provider.send_audio(speech(100))
    assert lost.data["error"].recoverable
    assert len(seen.of(EventType.CONNECTION_LOST)) == 1


async def test_request_that_the_service_calls_wrong_is_not_repeated() -> None:
    fault = {"do": "close", "code": 1007, "reason": "bad", "at": "first_input", "times": 100}
    async with serving(faults=[fault]) as (emulator, url), session(url) as (provider, seen):
        await provider.send_audio(speech(100))
        lost = await seen.wait(EventType.CONNECTION_LOST)

    assert (lost.data["error"].code, lost.data["error"].close_code) == (ErrorCode.INVALID_REQUEST, 1007)
    assert len(emulator.recognitions) == 1


async def test_turn_that_is_never_ended_is_a_loss_that_names_what_did_not_come() -> None:
    from voxengine import Deadlines

    fault = {"do": "stall", "at": "input:after_audio_ms=500"}
    config = {"deadlines": Deadlines(progress_s=0.2)}
    async with serving(faults=[fault]) as (_, url), session(url, config) as (provider, seen):
        await feed(provider, speech(600))
        await provider.end_turn()
        lost = await seen.wait(EventType.CONNECTION_LOST)

    assert lost.data["error"].code == ErrorCode.TIMEOUT
    assert "the end of a turn" in str(lost.data["error"])


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("rate_limit", ErrorCode.RATE_LIMIT), ("authentication", ErrorCode.PERMISSION),
        ("invalid_request", ErrorCode.INVALID_REQUEST), ("unknown", ErrorCode.UNAVAILABLE),
    ],
)  # fmt: skip
async def test_status_that_is_no_result_is_an_error_and_the_session_goes_on(
    code: str, expected: ErrorCode
) -> None:
    fault = {"do": "error", "code": code, "at": "input:after_audio_ms=600"}
    async with serving(hears=HEARS, faults=[fault]) as (_, url), session(url) as (provider, seen):
        await feed(provider, speech(700))
        failed = await seen.wait(EventType.ERROR_GENERAL)
        await provider.end_turn()
        await feed(provider, silence(1000) + speech() + silence(1000))
        await seen.until(lambda: any(finals(seen)), 20)

    assert failed.data["error"].code == expected
    assert not seen.of(EventType.CONNECTION_LOST)


async def test_garbage_is_reported_and_passed_over() -> None:
    fault = {"do": "garbage", "at": "first_input"}
    async with serving(hears=HEARS, faults=[fault]) as (_, url), session(url) as (provider, seen):
        await feed(provider, speech() + silence(1000))
        await final(seen)

    (failed,) = seen.of(EventType.ERROR_GENERAL)
    assert failed.data["error"].code == ErrorCode.PROTOCOL
    assert finals(seen) == ["Call VoxEngine now."]


# --- What is kept ----------------------------------------------------------------------------------------------


def test_kept_audio_is_cut_at_the_frame() -> None:
    kept = KeptAudio(AudioFormat(16_000))
    for n in range(10):
        kept.add(bytes([n]) * 3200, is_speech=True)

    kept.release(250)

    assert (kept.start, kept.end, len(kept)) == (4000, 16_000, 24_000)
    assert b"".join(kept)[:1600] == bytes([2]) * 1600


def test_kept_silence_is_bounded_and_kept_speech_is_not_cut() -> None:
    kept, spoken = KeptAudio(AudioFormat(16_000)), KeptAudio(AudioFormat(16_000))
    for _ in range(300):
        kept.add(bytes(3200), is_speech=False)
        spoken.add(bytes(3200), is_speech=True)

    assert kept.ms(kept.end - kept.start) == 10_000
    assert spoken.start == 0
