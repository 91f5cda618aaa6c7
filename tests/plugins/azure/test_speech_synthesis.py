"""Synthesis against the emulator: what is said, when its words are, and how it stops."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from tests.plugins.azure.support import Remembering, feed, serving, session, silence, speech
from voxengine.audio.format import AudioFormat
from voxengine.errors import AuthenticationFailed, ErrorCode
from voxengine.events import EventType
from voxengine.history import Heard
from voxengine.testing.clock import leak_check
from voxengine.testing.emulator import EmulatorSession, HttpRequest
from voxengine_azure.emulator.speech_synthesis import Synthesiser, read_ssml
from voxengine_azure.speech.codec import AudioFrame
from voxengine_azure.speech.saying import Saying

ENDED = EventType.RESPONSE_COMPLETED
LONG = "One after the other they went on and on, and nobody ever came to an end of it. " * 5


def words(seen: Any, kind: str = "word") -> list[str]:
    return [e.data["value"] for e in seen.of(EventType.SPEECH_MARK) if e.data["kind"] == kind]


async def ended(seen: Any, n: int = 1) -> Any:
    kinds = (ENDED, EventType.RESPONSE_CANCELLED)
    await seen.until(lambda: len(seen.of(*kinds)) >= n, 20)
    return seen.of(*kinds)[n - 1]


def said(emulator: Any) -> list[str]:
    """The texts that the service was asked for, over all connections."""
    return [read_ssml(body["text"]).text for heard in emulator.syntheses for body in heard.of("ssml")]


# --- What is said ------------------------------------------------------------------------------------------


async def test_text_turn_is_spoken_with_the_times_of_its_words() -> None:
    async with serving() as (_, url), session(url) as (provider, seen):
        await provider.send_text("Hello to all of you.")
        last = await ended(seen)

    assert words(seen) == ["Hello", "to", "all", "of", "you"]
    assert words(seen, "viseme")
    audio_ms = len(seen.audio()) / 48
    assert last.data["usage"]["output_audio_s"] * 1000 == pytest.approx(audio_ms, abs=1)
    times = [e.data["at_ms"] for e in seen.of(EventType.SPEECH_MARK) if e.data["kind"] == "word"]
    assert times == sorted(times)
    assert times[-1] < audio_ms
    assert seen.of(EventType.RESPONSE_STARTED)[0].data["trigger"] == "text"
    assert (last.type, last.data["status"]) == (ENDED, "completed")


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 48_000])
async def test_audio_comes_at_the_rate_that_was_asked_for(rate: int) -> None:
    config = {"output_format": AudioFormat(rate)}
    async with serving() as (_, url), session(url, config) as (provider, seen):
        await provider.speak("Hello to all of you.")
        last = await ended(seen)

    assert {e.data["sample_rate"] for e in seen.of(EventType.AUDIO_OUTPUT_CHUNK)} == {rate}
    assert last.data["usage"]["output_audio_s"] == pytest.approx(len(seen.audio()) / 2 / rate, abs=0.002)


@pytest.mark.parametrize(("status", "spoken"), [(429, 2), (400, 0)], ids=["tried-again", "refused"])
async def test_characters_are_counted_once_and_only_when_they_are_spoken(status: int, spoken: int) -> None:
    fault = {"do": status, "at": "response:1"}
    async with serving(faults=[fault]) as (_, url), session(url) as (provider, seen):
        await provider.speak("hi")
        first = await ended(seen)
        await provider.speak("Hello.")
        await ended(seen, 2)
        usage = await provider.get_usage()

    assert first.data["usage"]["characters"] == spoken
    assert usage["characters"] == spoken + len("Hello.")


async def test_pieces_of_a_text_are_one_response_and_begin_with_its_first_sentence() -> None:
    async with serving() as (emulator, url), session(url) as (provider, seen):
        await provider.speak("The first is said at once. And the sec", False)
        await seen.wait(EventType.AUDIO_OUTPUT_CHUNK)
        await provider.speak("ond when it is", False)
        await provider.speak(" complete.", True)
        last = await ended(seen)

    assert said(emulator) == ["The first is said at once. ", "And the second when it is complete."]
    assert len(seen.of(EventType.RESPONSE_STARTED)) == 1
    assert last.data["usage"]["characters"] == len("".join(said(emulator)))
    times = [e.data["at_ms"] for e in seen.of(EventType.SPEECH_MARK) if e.data["kind"] == "word"]
    assert times == sorted(times)


async def test_markup_in_a_text_is_spoken_and_not_obeyed() -> None:
    text = "</voice><break time='9s'/> R&D"
    async with serving() as (emulator, url), session(url) as (provider, seen):
        await provider.send_text(text)
        await ended(seen)

    assert said(emulator) == [text]


async def test_voice_and_way_of_speaking_reach_the_service_and_change_in_mid_session() -> None:
    async with serving() as (emulator, url):
        config = {"voice": "en-US-AriaNeural"}
        async with session(url, config, style="cheerful", rate=1.2) as (provider, seen):
            await provider.speak("One.")
            await ended(seen)
            await provider.configure_session({"voice": "de-DE-KatjaNeural", "metadata": {"style": "sad"}})
            await provider.speak("Two.")
            await ended(seen, 2)

    first, second = (body["text"] for body in emulator.syntheses[0].of("ssml"))
    assert 'name="en-US-AriaNeural"' in first
    assert 'style="cheerful"' in first
    assert 'rate="+20%"' in first
    assert 'name="de-DE-KatjaNeural"' in second
    assert 'style="sad"' in second


@pytest.mark.parametrize("text", ["", "   ", "\n"])
async def test_text_without_words_is_a_response_without_sound(text: str) -> None:
    async with serving() as (emulator, url), session(url) as (provider, seen):
        await provider.speak(text)
        last = await ended(seen)

    assert (last.data["status"], seen.audio(), said(emulator)) == ("completed", b"", [])


async def test_samples_that_the_service_cuts_in_two_are_put_together() -> None:
    async with serving(Splitting) as (_, url), session(url) as (provider, seen):
        await provider.speak("Hello to all of you.")
        last = await ended(seen)

    sizes = [len(e.data["audio_data"]) for e in seen.of(EventType.AUDIO_OUTPUT_CHUNK)]
    assert all(size and size % 2 == 0 for size in sizes)
    assert sum(sizes) == pytest.approx(48 * 1000 * last.data["usage"]["output_audio_s"], abs=48)


class Splitting(Remembering):
    async def _synthesise(self, session: EmulatorSession) -> None:
        await Uneven(session, lambda prefix: f"{id(session):032x}").run()


class Uneven(Synthesiser):
    """Sends audio in pieces of odd length."""

    async def _sound(self, request: Any, data: bytes) -> None:
        for part in (data[:333], data[333:]):
            await self.send(AudioFrame(part, request.request_id, request.stream_id))


# --- How it stops --------------------------------------------------------------------------------------------


async def test_interruption_ends_the_response_before_it_returns_and_nothing_of_it_follows() -> None:
    async with serving(pace=5) as (emulator, url), session(url) as (provider, seen):
        await provider.speak(LONG)
        await seen.until(lambda: len(seen.audio()) > 48_000, 20)
        started = seen.of(EventType.RESPONSE_STARTED)[0].data["response_id"]
        chunk = seen.of(EventType.AUDIO_OUTPUT_CHUNK)[0].data

        await provider.interrupt(Heard(started, chunk["item_id"], 0, 700, 700))
        (cancelled,) = seen.of(EventType.RESPONSE_CANCELLED)
        n_events = len(seen.events)
        await provider.speak("Now this.")
        await ended(seen, 2)

    later = seen.events[n_events:]
    assert cancelled.data["heard_ms"] == 700
    assert cancelled.data["heard_is_estimated"] is False
    assert LONG.startswith(cancelled.data["heard_text"])
    assert cancelled.data["heard_text"]
    assert all(e.data.get("response_id", "") != started for e in later)
    assert said(emulator)[-1] == "Now this."
    assert len(emulator.syntheses) == 2


async def test_interruption_also_ends_what_waits() -> None:
    async with serving(pace=5) as (emulator, url), session(url) as (provider, seen):
        await provider.speak(LONG)
        await provider.speak("This one waits.")
        await seen.wait(EventType.AUDIO_OUTPUT_CHUNK)
        await provider.interrupt()
        await provider.speak("Now this.")
        last = await ended(seen, 3)

    assert [e.data["reason"] for e in seen.of(EventType.RESPONSE_CANCELLED)] == ["interrupted"] * 2
    assert last.type is ENDED
    assert "This one waits." not in said(emulator)


async def test_interruption_before_the_first_sound_is_obeyed() -> None:
    async with serving() as (emulator, url), session(url) as (provider, seen):
        await provider.speak("Never heard.")
        await provider.interrupt()
        await provider.speak("Heard.")
        await ended(seen, 2)

    assert [e.type for e in seen.of(ENDED, EventType.RESPONSE_CANCELLED)] == [
        EventType.RESPONSE_CANCELLED,
        ENDED,
    ]
    assert said(emulator) == ["Heard."]


async def test_interruption_with_nothing_under_way_leaves_the_connection() -> None:
    async with serving() as (emulator, url), session(url) as (provider, seen):
        await provider.interrupt()
        await provider.speak("Heard.")
        await ended(seen)

    assert len(emulator.syntheses) == 1


async def test_user_is_heard_while_the_agent_speaks_and_after_it_was_stopped() -> None:
    async with serving(pace=5) as (_, url), session(url) as (provider, seen):
        await provider.speak(LONG)
        await seen.wait(EventType.AUDIO_OUTPUT_CHUNK)
        await feed(provider, speech())
        await seen.wait(EventType.SPEECH_STARTED)
        await provider.interrupt()
        await feed(provider, silence(1000))
        await seen.wait(EventType.SPEECH_ENDED)

    assert seen.of(EventType.INPUT_TRANSCRIPT)[-1].data["is_partial"] is False


# --- What goes wrong ---------------------------------------------------------------------------------------------


async def test_voice_that_does_not_exist_is_named_and_the_session_goes_on() -> None:
    async with serving() as (_, url), session(url, {"voice": "alloy"}) as (provider, seen):
        await provider.speak("Hello.")
        last = await ended(seen)
        await provider.configure_session({"voice": "en-US-AriaNeural"})
        await provider.speak("Hello.")
        again = await ended(seen, 2)

    (failed,) = seen.of(EventType.ERROR_GENERAL)
    assert failed.data["error"].code == ErrorCode.NOT_FOUND
    assert "'alloy'" in str(failed.data["error"])
    assert "en-US-JennyNeural" in str(failed.data["error"])
    assert (last.data["status"], again.data["status"]) == ("failed", "completed")
    assert not seen.of(EventType.CONNECTION_LOST)


async def test_connection_that_breaks_before_the_first_sound_is_replaced_without_a_word() -> None:
    fault = {"do": "reset", "at": "response"}
    async with serving(faults=[fault]) as (emulator, url), session(url) as (provider, seen):
        await provider.speak("Hello to all of you.")
        last = await ended(seen)

    assert last.data["status"] == "completed"
    assert words(seen) == ["Hello", "to", "all", "of", "you"]
    assert said(emulator) == ["Hello to all of you."] * 2
    assert not seen.of(EventType.ERROR_GENERAL, EventType.CONNECTION_LOST)


async def test_connection_that_breaks_in_mid_sound_costs_that_text_and_not_the_session() -> None:
    fault = {"do": "close", "code": 1011, "at": "response:1:after_audio_ms=300"}
    async with serving(faults=[fault]) as (emulator, url), session(url) as (provider, seen):
        await provider.speak(LONG)
        first = await ended(seen)
        await provider.speak("And again.")
        second = await ended(seen, 2)

    (failed,) = seen.of(EventType.ERROR_GENERAL)
    assert (first.data["status"], second.data["status"]) == ("incomplete", "completed")
    assert (failed.data["recoverable"], failed.data["error"].close_code) == (True, 1011)
    assert said(emulator) == [LONG, "And again."]


async def test_service_that_breaks_every_connection_is_lost_once() -> None:
    fault = {"do": "reset", "at": "response:*", "times": 100}
    async with serving(faults=[fault]) as (_, url), session(url) as (provider, seen):
        await provider.speak("Hello.")
        await seen.wait(EventType.CONNECTION_LOST)

        assert not provider.is_connected
    assert len(seen.of(EventType.CONNECTION_LOST)) == 1
    assert seen.of(ENDED)[0].data["status"] == "failed"


async def test_answer_that_stays_out_is_named_and_the_session_goes_on() -> None:
    from voxengine import Deadlines

    config = {"deadlines": Deadlines(first_output_s=0.2)}
    fault = {"do": "stall", "at": "response"}
    async with serving(faults=[fault]) as (_, url), session(url, config) as (provider, seen):
        await provider.speak("Hello.")
        first = await ended(seen)
        await provider.speak("Hello.")
        second = await ended(seen, 2)

    (failed,) = seen.of(EventType.ERROR_GENERAL)
    assert failed.data["error"].code == ErrorCode.TIMEOUT
    assert (first.data["status"], second.data["status"]) == ("failed", "completed")


# --- Credentials ---------------------------------------------------------------------------------------------------


class Tokens(Remembering):
    """Takes the tokens of one list alone."""

    accepted: tuple[str, ...] = ("fresh-token-2",)
    has_refused = False

    def key_of(self, request: HttpRequest) -> str | None:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token in self.accepted:
            return self.key
        self.has_refused = True
        return None


async def test_expired_token_is_renewed_through_the_callback() -> None:
    async with serving(Tokens) as (emulator, url):

        def current() -> str:
            return "fresh-token-2" if emulator.has_refused else "stale-token-1"

        options: dict[str, Any] = {"token_provider": current}
        async with session(url, {"api_key": None}, **options) as (provider, seen):
            await provider.speak("Hello.")
            last = await ended(seen)

    assert last.data["status"] == "completed"
    assert emulator.has_refused
    assert "ocp-apim-subscription-key" not in emulator.syntheses[0].request.headers


async def test_callback_may_be_a_coroutine_function_and_a_given_token_comes_first() -> None:
    n_calls = 0

    async def renew() -> str:
        nonlocal n_calls
        n_calls += 1
        return "fresh-token-2"

    async with (
        serving(Tokens) as (_, url),
        session(url, {"api_key": None}, token="fresh-token-2", token_provider=renew) as (provider, seen),
    ):
        await provider.speak("Hello.")
        await ended(seen)

    assert n_calls == 0


@pytest.mark.parametrize(
    ("metadata", "words_of_it"),
    [
        ({"token": "stale-token-1"}, "token_provider"),
        ({"token_provider": lambda: "stale-token-1"}, "refused too"),
        ({"token_provider": lambda: 1 / 0}, "ZeroDivisionError"),
        ({"token_provider": lambda: None}, "NoneType"),
    ],
)
async def test_token_that_cannot_be_used_is_told_without_showing_it(
    metadata: Mapping[str, Any], words_of_it: str
) -> None:
    async with serving(Tokens) as (_, url):
        with pytest.raises(AuthenticationFailed, match=words_of_it) as caught:
            async with session(url, {"api_key": None}, **metadata):
                pass

    assert "stale-token" not in str(caught.value)
    assert not caught.value.recoverable


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, ErrorCode.AUTHENTICATION), (403, ErrorCode.PERMISSION), (429, ErrorCode.RATE_LIMIT)],
)
async def test_refusal_at_the_hand_shake_is_named(status: int, code: ErrorCode) -> None:
    from voxengine.errors import ProviderError

    fault = {"do": status, "at": "handshake", "times": 10}
    async with serving(faults=[fault]) as (_, url):
        with pytest.raises(ProviderError) as caught:
            async with session(url):
                pass

    assert (caught.value.code, caught.value.vendor_code) == (code, str(status))


# --- A text on its way ---------------------------------------------------------------------------------------------


def test_sentences_are_asked_for_as_soon_as_they_are_complete() -> None:
    saying = Saying("r", "i", "say")

    found = []
    for piece in ("It costs 3", ".", "50. Really", "? Yes", "! No"):
        saying.add(piece, is_last=False)
        found.append(saying.next_segment())
    saying.add("", is_last=True)
    found.append(saying.next_segment())

    assert "".join(found) == "It costs 3.50. Really? Yes! No"
    assert found[:3] == ["", "", "It costs 3.50. "]
    assert saying.is_finished


def test_long_text_is_asked_for_in_parts_that_end_where_sentences_do() -> None:
    saying = Saying("r", "i", "say")
    text = "This is a sentence of some length, as they are. " * 200
    saying.add(text, is_last=True)

    parts = []
    while not saying.is_finished:
        parts.append(saying.next_segment())

    assert "".join(parts) == text
    assert all(len(part) <= 4000 and part.endswith(". ") for part in parts)


def test_text_without_any_end_is_cut_all_the_same() -> None:
    saying = Saying("r", "i", "say")
    saying.add("x" * 9000, is_last=True)

    parts = [saying.next_segment() for _ in range(3)]

    assert [len(part) for part in parts] == [4000, 4000, 1000]


# --- What is left behind ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_steps", [0, 1, 2, 3, 5, 8, 13, 40])
async def test_session_that_ends_while_it_replaces_its_connections_leaves_nothing(n_steps: int) -> None:
    async with serving(pace=5) as (_, url), leak_check():
        async with session(url) as (provider, seen):
            await feed(provider, speech(600))
            await provider.speak(LONG)
            await seen.wait(EventType.AUDIO_OUTPUT_CHUNK)
            await seen.wait(EventType.SPEECH_STARTED)
            await provider.interrupt()
            await provider.configure_session({"language": "de-DE"})
            for _ in range(n_steps):
                await asyncio.sleep(0)
