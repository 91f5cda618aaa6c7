"""Turns, audio and answers of a session: what goes to the service and what the application hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Literal
from unittest.mock import ANY

import pytest

from tests.plugins.openai.peer import session
from tests.plugins.openai.test_bad_input import SPEECH
from voxengine.audio.format import AudioFormat, Encoding
from voxengine.config import TurnDetection, VoiceEngineConfig
from voxengine.engine import VoiceEngine
from voxengine.errors import AudioFormatError, CapabilityMissing, NotConnected, UsageError
from voxengine.events import Event, EventType
from voxengine.history import Item
from voxengine.providers.registry import ProviderRegistry
from voxengine.testing import virtual
from voxengine.transport.faults import Bandwidth
from voxengine_openai import OpenAIProvider
from voxengine_openai.codec import Append
from voxengine_openai.emulator import OpenAIEmulator

MANUAL = TurnDetection("manual")
ULAW = AudioFormat(8_000, 1, Encoding.G711_ULAW)


def tone(ms: int) -> bytes:
    return b"\x00\x10" * (24 * ms)


# -- audio in -------------------------------------------------------------------------------------


@virtual
async def test_chunk_is_one_message_whichever_way_it_goes() -> None:
    async with session() as (provider, peer, _):
        assert provider.try_send_audio(tone(20))
        await provider.send_audio(tone(20))
        await peer.until(lambda: len(peer.audio) == 2 * 960)

        assert [len(m.audio) for m in peer.got if isinstance(m, Append)] == [960, 960]


@virtual
async def test_large_buffer_goes_as_several_messages_of_a_second() -> None:
    async with session() as (provider, peer, _):
        assert not provider.try_send_audio(tone(2500))
        await provider.send_audio(tone(2500))
        await peer.until(lambda: len(peer.audio) == 48 * 2500)

        assert [len(m.audio) // 48 for m in peer.got if isinstance(m, Append)] == [1000, 1000, 500]
        assert peer.audio == tone(2500)


@virtual
async def test_half_a_sample_is_refused_and_nothing_is_sent() -> None:
    async with session() as (provider, peer, _):
        with pytest.raises(AudioFormatError):
            provider.try_send_audio(b"\x00")
        with pytest.raises(AudioFormatError):
            await provider.send_audio(b"\x00" * 961)
        await provider.send_audio(b"")

        assert peer.audio == b""


@virtual
async def test_slow_service_is_felt_and_not_buffered_without_bound() -> None:
    async with session() as (provider, peer, _):
        n_bytes = 0
        peer.pair.fault(Bandwidth(bytes_per_s=1000, direction="up"))
        while provider.try_send_audio(tone(500)):
            n_bytes += len(tone(500))
        waiting = asyncio.ensure_future(provider.send_audio(tone(20)))
        done, _ = await asyncio.wait([waiting], timeout=1.0)

        assert n_bytes < 2**20
        assert not done
        waiting.cancel()
        await asyncio.wait([waiting])


@virtual
async def test_calls_before_a_session_say_what_to_do() -> None:
    provider = OpenAIProvider({"api_key": "sk-x"})

    for call in (
        provider.send_audio(tone(20)),
        provider.send_text("Hello"),
        provider.interrupt(None),
        provider.end_turn(),
        provider.discard_input(),
        provider.configure_session({"instructions": "x"}),
        provider.load_history([Item("1", "user_text", "x")]),
    ):
        with pytest.raises(NotConnected, match=r"connect\(\) first"):
            await call
    assert not provider.try_send_audio(tone(20))
    assert await provider.get_usage() is None
    assert await provider.estimate_cost() is None


# -- the end of a turn ----------------------------------------------------------------------------


@virtual
async def test_turn_ended_by_hand_is_committed_and_answered() -> None:
    async with session(turn_detection=MANUAL) as (provider, peer, _):
        await provider.send_audio(tone(200))
        await provider.end_turn()
        await peer.wait("response.create")

        assert peer.names() == ["input_audio_buffer.commit", "response.create"]


@virtual
async def test_turn_that_needs_no_answer_is_committed_alone() -> None:
    async with session(turn_detection=MANUAL) as (provider, peer, _):
        await provider.send_audio(tone(200))
        await provider.end_turn(False)
        await provider.discard_input()
        await peer.wait("input_audio_buffer.clear")

        assert peer.names() == ["input_audio_buffer.commit", "input_audio_buffer.clear"]


@virtual
async def test_turn_shorter_than_the_service_takes_is_filled_with_silence() -> None:
    async with session(turn_detection=MANUAL) as (provider, peer, _):
        await provider.send_audio(tone(30))
        await provider.end_turn()
        await peer.wait("response.create")

        assert peer.audio == tone(30) + bytes(48 * 70)


@virtual
async def test_turn_without_audio_is_answered_without_a_commit() -> None:
    async with session(turn_detection=MANUAL) as (provider, peer, _):
        await provider.send_item(Item("1", "image", "a cat", image_url="data:image/png;base64,AAAA"))
        await provider.end_turn()
        await peer.wait("response.create")

        assert peer.names() == ["conversation.item.create", "response.create"]


@virtual
async def test_discarded_audio_is_not_committed() -> None:
    async with session(turn_detection=MANUAL) as (provider, peer, _):
        await provider.send_audio(tone(200))
        await provider.discard_input()
        await provider.end_turn()
        await peer.wait("response.create")

        assert peer.names() == ["input_audio_buffer.clear", "response.create"]


@virtual
async def test_under_the_services_detection_the_end_of_a_turn_is_silence() -> None:
    async with session(turn_detection=TurnDetection("server", silence_ms=400)) as (provider, peer, _):
        await provider.send_audio(tone(100))
        await provider.end_turn()
        await peer.until(lambda: len(peer.audio) == 48 * 800)

        assert peer.audio == tone(100) + bytes(48 * 700)
        assert peer.names() == []
        with pytest.raises(CapabilityMissing, match="manual"):
            await provider.end_turn(False)


@virtual
async def test_groups_of_the_engine_reach_the_wire_as_messages() -> None:
    from tests.plugins.openai.peer import DialledProvider, Peer

    peer = Peer()

    class Dialled(DialledProvider):
        pass

    Dialled.peer = peer
    registry = ProviderRegistry()
    registry.register("openai", Dialled)
    config = VoiceEngineConfig(api_key="sk-x", group_ms=100, turn_detection="manual", playback="null")
    serving = asyncio.create_task(peer.serve())
    async with VoiceEngine(config, registry=registry) as engine:
        for _ in range(7):
            await engine.send_audio(tone(20))
        await engine.end_turn()
        await peer.wait("response.create")
    await serving

    assert [len(m.audio) // 48 for m in peer.got if isinstance(m, Append)] == [100, 40]
    peer.check()


# -- text and speaking ----------------------------------------------------------------------------


@virtual
async def test_text_turn_is_an_item_and_a_request() -> None:
    async with session() as (provider, peer, _):
        await provider.send_text("Hello")
        await peer.wait("response.create")

        assert peer.of("conversation.item.create")[0]["item"] == {
            "id": ANY,
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "Hello"}],
        }
        assert "response" not in peer.of("response.create")[0]


@virtual
async def test_text_waits_for_the_answer_that_the_service_owes_to_a_spoken_turn() -> None:
    async with session() as (provider, peer, recorder):
        await peer.say("input_audio_buffer.committed", item_id="item_u", previous_item_id=None)
        await recorder.wait(EventType.VENDOR_EVENT)

        await provider.send_text("And this?")
        await asyncio.sleep(1)
        assert peer.of("response.create") == []
        await peer.begin("resp_1")
        await peer.finish("resp_1")
        await peer.wait("response.create")
        await peer.begin("resp_2")
        await recorder.wait(EventType.RESPONSE_STARTED, 2)

        triggers = [event.trigger for event in recorder.of(EventType.RESPONSE_STARTED)]
        assert triggers == ["audio", "text"]


@virtual
async def test_answer_that_the_service_owes_comes_behind_a_long_one_that_is_under_way() -> None:
    async with session() as (provider, peer, recorder):
        await provider.send_text("Tell me a story")
        await peer.begin("resp_1")
        await recorder.wait(EventType.RESPONSE_STARTED)
        await provider.send_text("And this?")
        await peer.say("input_audio_buffer.committed", item_id="item_u", previous_item_id=None)
        await asyncio.sleep(20)
        await peer.finish("resp_1")
        await asyncio.sleep(1)
        n_asked = len(peer.of("response.create"))
        await peer.begin("resp_2")
        await peer.finish("resp_2")
        await peer.wait("response.create", 2)
        await peer.begin("resp_3")
        await recorder.wait(EventType.RESPONSE_STARTED, 3)

        assert n_asked == 1
        triggers = [event.trigger for event in recorder.of(EventType.RESPONSE_STARTED)]
        assert triggers == ["text", "audio", "text"]


@virtual
async def test_answer_that_was_owed_behind_a_long_one_and_does_not_come_is_not_waited_for() -> None:
    async with session() as (provider, peer, recorder):
        await provider.send_text("Tell me a story")
        await peer.begin("resp_1")
        await recorder.wait(EventType.RESPONSE_STARTED)
        await provider.send_text("And this?")
        await peer.say("input_audio_buffer.committed", item_id="item_u", previous_item_id=None)
        await asyncio.sleep(20)
        await peer.finish("resp_1")
        await peer.wait("response.create", 2)

        assert len(peer.of("conversation.item.create")) == 2


@virtual
async def test_text_does_not_wait_for_ever_for_an_answer_that_does_not_come() -> None:
    async with session() as (provider, peer, recorder):
        await peer.say("input_audio_buffer.committed", item_id="item_u", previous_item_id=None)
        await recorder.wait(EventType.VENDOR_EVENT)

        await provider.send_text("And this?")
        await peer.wait("response.create")

        assert len(peer.of("conversation.item.create")) == 1


@pytest.mark.parametrize("text", [7, None, "", "  "])
@virtual
async def test_text_that_is_none_is_refused(text: Any) -> None:
    async with session() as (provider, peer, _):
        with pytest.raises(UsageError):
            await provider.send_text(text)
        with pytest.raises(UsageError):
            await provider.speak(text)

        assert peer.names() == []


@virtual
async def test_given_text_is_said_by_a_response_that_sees_nothing_else() -> None:
    async with session() as (provider, peer, recorder):
        await provider.speak("Welcome", is_last=False)
        await provider.speak("aboard.")
        request = await peer.wait("response.create")
        await peer.begin()
        started = await recorder.wait("response_started")

        assert request["response"]["input"] == []
        assert "Welcome aboard." in request["response"]["instructions"]
        assert started.data["trigger"] == "say"
        assert len(peer.of("response.create")) == 1


# -- what the service says ------------------------------------------------------------------------


@virtual
async def test_spoken_answer_becomes_events_in_order() -> None:
    async with session() as (provider, peer, recorder):
        await provider.send_text("Hello")
        await peer.wait("response.create")
        await peer.begin()
        await peer.words("Hi ")
        await peer.say_audio(100)
        await peer.words("there.")
        place = {"response_id": "resp_1", "item_id": "item_1", "output_index": 0, "content_index": 0}
        await peer.say("response.output_audio_transcript.done", transcript="Hi there.", **place)
        await peer.finish()
        await recorder.wait("response_completed")

        neutral = [event for event in recorder.events[2:] if event.type is not EventType.VENDOR_EVENT]
        assert [str(event.type) for event in neutral] == [
            "response_started",
            "text_output",
            "audio_output_chunk",
            "text_output",
            "text_output",
            "response_completed",
        ]
        assert neutral[0].data["trigger"] == "text"
        texts = [event.data for event in recorder.of("text_output")]
        assert [(data["text"], data["delta"], data["is_partial"]) for data in texts] == [
            ("Hi ", "Hi ", True),
            ("Hi there.", "there.", True),
            ("Hi there.", "", False),
        ]
        chunk = recorder.of("audio_output_chunk")[0].data
        assert (len(chunk["audio_data"]), chunk["sample_rate"], chunk["channels"]) == (4800, 24_000, 1)
        assert {data["response_id"] for data in [*texts, chunk]} == {"resp_1"}


@virtual
async def test_finished_text_without_deltas_is_all_new() -> None:
    async with session() as (_, peer, recorder):
        await peer.begin()
        place = {"response_id": "resp_1", "item_id": "item_1", "output_index": 0, "content_index": 0}
        await peer.say("response.output_text.done", text="All at once.", **place)
        event = await recorder.wait("text_output")

        assert (event.data["text"], event.data["delta"], event.data["is_partial"]) == (
            "All at once.",
            "All at once.",
            False,
        )


@virtual
async def test_users_speech_and_words_become_events() -> None:
    async with session() as (_, peer, recorder):
        await peer.say("input_audio_buffer.speech_started", audio_start_ms=120, item_id="item_u")
        await peer.say("input_audio_buffer.speech_stopped", audio_end_ms=980, item_id="item_u")
        name = "conversation.item.input_audio_transcription"
        for delta in ("Good ", "day"):
            await peer.say(f"{name}.delta", item_id="item_u", content_index=0, delta=delta)
        usage = {"type": "duration", "seconds": 2.0}
        await peer.say(
            f"{name}.completed", item_id="item_u", content_index=0, transcript="Good day.", usage=usage
        )
        await recorder.wait("input_transcript", 3)

        start, end = recorder.of("speech_started")[0].data, recorder.of("speech_ended")[0].data
        assert (start["at_ms"], end["at_ms"], start["source"]) == (120, 980, "server")
        told = [
            (e.data["text"], e.data["delta"], e.data["is_partial"]) for e in recorder.of("input_transcript")
        ]
        assert told == [("Good ", "Good ", True), ("Good day", "day", True), ("Good day.", ".", False)]


@virtual
async def test_failed_transcription_is_a_warning() -> None:
    async with session() as (_, peer, recorder):
        await peer.say(
            "conversation.item.input_audio_transcription.failed",
            item_id="item_u",
            content_index=0,
            error={"type": "server_error", "message": "Lost."},
        )
        event = await recorder.wait("warning")

        assert event.data["code"] == "transcription_failed"


@virtual
async def test_what_has_no_neutral_form_is_passed_on_with_its_name() -> None:
    async with session() as (_, peer, recorder):
        await peer.say("input_audio_buffer.timeout_triggered", audio_start_ms=0, audio_end_ms=9, item_id="i")
        await peer.say("mcp_list_tools.in_progress", item_id="i")
        await peer.say("response.event_of_next_year", something=1)
        await recorder.wait("vendor_event", 3)

        names = [event.data["name"] for event in recorder.of("vendor_event")]
        assert names == [
            "input_audio_buffer.timeout_triggered",
            "mcp_list_tools.in_progress",
            "response.event_of_next_year",
        ]
        assert recorder.of("vendor_event")[2].data["payload"]["something"] == 1


@virtual
async def test_rate_limits_are_told() -> None:
    async with session() as (_, peer, recorder):
        limits = [{"name": "tokens", "limit": 40_000, "remaining": 38_490, "reset_seconds": 2.265}]
        await peer.say("rate_limits.updated", rate_limits=limits)
        event = await recorder.wait("rate_limits")

        assert event.data["limits"] == limits


@virtual
async def test_answer_in_g711_is_heard_as_samples() -> None:
    async with session(output_format=ULAW, input_format=ULAW) as (provider, peer, recorder):
        await provider.send_audio(b"\xff" * 160)
        await peer.begin()
        await peer.say("response.output_audio.delta", response_id="resp_1", item_id="item_1",
                       output_index=0, content_index=0, delta="gP8A")  # fmt: skip
        event = await recorder.wait("audio_output_chunk")

        assert event.data["audio_data"] == b"".join(
            value.to_bytes(2, "little", signed=True) for value in (32_124, 0, -32_124)
        )
        assert event.data["sample_rate"] == 8_000
        assert peer.audio == b"\xff" * 160


@virtual
async def test_response_that_nobody_announced_has_a_start_and_one_end() -> None:
    async with session() as (_, peer, recorder):
        await peer.say_audio(20, response="resp_9")
        await peer.finish("resp_9")
        await peer.finish("resp_9")
        await peer.say_audio(20, response="resp_9")
        await peer.begin("resp_10")
        await recorder.wait("response_started", 2)

        kinds = [kind for kind in recorder.types()[2:] if kind.startswith(("response", "audio"))]
        assert kinds == ["response_started", "audio_output_chunk", "response_completed", "response_started"]


# -- outside of the conversation ------------------------------------------------------------------


@virtual
async def test_aside_is_answered_to_its_caller_alone() -> None:
    async with session() as (provider, peer, recorder):
        await peer.begin("resp_1")
        asking = asyncio.ensure_future(
            provider.ask_aside("Classify.", items=[Item("1", "user_text", "I want my money back.")])
        )
        request = (await peer.wait("response.create"))["response"]
        await peer.begin("resp_2", conversation_id=None, metadata=request["metadata"])
        await peer.words("refund", response="resp_2", item="item_2")
        await peer.say_audio(20, response="resp_2", item="item_2")
        await peer.finish("resp_2", conversation_id=None, metadata=request["metadata"])
        aside = await asking

        assert (aside.text, aside.status, len(aside.audio)) == ("refund", "completed", 960)
        assert request["conversation"] == "none"
        assert request["output_modalities"] == ["text"]
        assert not recorder.of("text_output", "audio_output_chunk", "response_completed")
        assert len(recorder.of("response_started")) == 1
        assert "refund" not in repr(aside)


@virtual
async def test_two_asides_beside_an_answer_do_not_mix() -> None:
    async with session() as (provider, peer, _):
        asking = [asyncio.ensure_future(provider.ask_aside(f"Say {n}.")) for n in (1, 2)]
        await peer.wait("response.create", 2)
        requests = [fields["response"] for fields in peer.of("response.create")]
        for n in (1, 0):
            await peer.begin(f"resp_{n}", conversation_id=None, metadata=requests[n]["metadata"])
        for n in (0, 1):
            await peer.words(str(n + 1), response=f"resp_{n}", item=f"item_{n}")
            await peer.finish(f"resp_{n}", conversation_id=None)

        assert [(await one).text for one in asking] == ["1", "2"]


@virtual
async def test_event_of_the_application_goes_as_it_is() -> None:
    async with session() as (provider, peer, recorder):
        event_id = await provider.send_event({"type": "conversation.item.delete", "item_id": "item_7"})
        await peer.say("conversation.item.deleted", item_id="item_7")
        event = await recorder.wait("vendor_event")

        assert peer.of("conversation.item.delete") == [{"event_id": event_id, "item_id": "item_7"}]
        assert event.data["name"] == "conversation.item.deleted"


# -- turns that are ended by hand -------------------------------------------------------------------


@pytest.mark.parametrize("metadata", [{}, {"transcription": False}], ids=["words", "no words"])
@pytest.mark.parametrize("kind", ["manual", "client"])
@virtual
async def test_turn_has_its_place_before_its_answer_though_its_words_come_behind(
    kind: Literal["manual", "client"], metadata: dict[str, Any]
) -> None:
    script = {"hears": ["The first one", "The second one"], "delays": {"transcript_ms": 1500}, "delay_ms": 0}
    async with OpenAIEmulator(script=script, speed=20).running() as url:
        config = VoiceEngineConfig(
            provider="openai", turn_detection=kind, playback="null", metadata={"url": url, **metadata}
        )
        async with VoiceEngine(config) as engine:
            transcripts: list[Event] = []
            engine.events.on(EventType.INPUT_TRANSCRIPT, transcripts.append)
            for _ in range(2):
                await engine.send_audio(SPEECH)
                await engine.end_turn()
                await engine.wait_idle()
            await _until(
                lambda: bool(metadata) or [event.is_partial for event in transcripts].count(False) == 2
            )
            items = [(item.kind.value, item.text, item.audio_ms > 0) for item in engine.history]

    answers = [text for kind, text, _ in items if kind == "agent"]
    words = ["", ""] if metadata else ["The first one", "The second one"]
    assert items == [
        ("user_audio", words[0], True),
        ("agent", answers[0], ANY),
        ("user_audio", words[1], True),
        ("agent", answers[1], ANY),
    ]
    assert all(event.text for event in transcripts)


def _tell(answered: asyncio.Event, _: Event) -> None:
    answered.set()


def _spoken(engine: VoiceEngine) -> list[Item]:
    return [item for item in engine.history if item.kind == "user_audio"]


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_so():  # noqa: ASYNC110 - what is waited for is told by no event
            await asyncio.sleep(0.01)


@virtual
async def test_words_that_come_in_the_next_turn_are_those_of_their_own() -> None:
    script = {"hears": ["The first one", "The second one"], "delays": {"transcript_ms": 3000}, "delay_ms": 0}
    async with OpenAIEmulator(script=script, speed=20).running() as url:
        config = VoiceEngineConfig(
            provider="openai", turn_detection="manual", playback="null", metadata={"url": url}
        )
        async with VoiceEngine(config) as engine:
            for _ in range(2):
                answered = asyncio.Event()
                engine.events.once(EventType.RESPONSE_STARTED, partial(_tell, answered))
                await engine.send_audio(SPEECH)
                await engine.end_turn()
                await answered.wait()
            await _until(lambda: all(item.is_transcribed for item in _spoken(engine)))
            items = [item.text for item in _spoken(engine)]

    assert items == ["The first one", "The second one"]
