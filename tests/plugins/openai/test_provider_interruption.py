"""Interruption: the response is stopped, and the service is told what was heard, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from tests.plugins.openai.peer import DialledCustom, session
from voxengine.history import Heard
from voxengine.testing import virtual
from voxengine_openai.output import Output

CANCELLED = {"type": "cancelled", "reason": "client_cancelled"}


def heard(ms: int, *, response: str = "resp_1", item: str = "item_1") -> Heard:
    return Heard(response, item, 0, ms, ms)


@virtual
async def test_active_response_is_cancelled_and_cut_at_what_was_played() -> None:
    async with session() as (provider, peer, recorder):
        await peer.begin()
        await peer.words("A very long story indeed")
        await peer.say_audio(1000)
        await recorder.wait("audio_output_chunk")

        await provider.interrupt(heard(400))
        await peer.wait("conversation.item.truncate")
        await peer.finish(status="cancelled", status_details=CANCELLED)
        event = await recorder.wait("response_cancelled")

        assert peer.names() == ["response.cancel", "conversation.item.truncate"]
        assert peer.of("response.cancel")[0]["response_id"] == "resp_1"
        cut = peer.of("conversation.item.truncate")[0]
        assert (cut["item_id"], cut["content_index"], cut["audio_end_ms"]) == ("item_1", 0, 400)
        assert event.data["reason"] == "client_cancelled"
        assert event.data["heard_ms"] == 400
        assert event.data["heard_text"] == "A very"
        assert event.data["heard_is_estimated"] is True


@virtual
async def test_played_time_is_never_beyond_what_was_received() -> None:
    async with session() as (provider, peer, recorder):
        await peer.begin()
        await peer.say_audio(300)
        await recorder.wait("audio_output_chunk")

        await provider.interrupt(heard(5000))
        cut = await peer.wait("conversation.item.truncate")

        assert cut["audio_end_ms"] == 300


@virtual
async def test_nothing_is_sent_when_nothing_plays() -> None:
    async with session() as (provider, peer, recorder):
        await provider.interrupt(None)
        await provider.interrupt(heard(100, item="item_unknown"))
        await peer.begin()
        await peer.say_audio(300)
        await peer.finish()
        await recorder.wait("response_completed")
        await provider.interrupt(heard(300))
        await provider.interrupt(None)
        await provider.discard_input()
        await peer.wait("input_audio_buffer.clear")

        assert peer.names() == ["input_audio_buffer.clear"]


@virtual
async def test_answer_that_is_complete_and_still_plays_is_cut_without_a_cancel() -> None:
    async with session() as (provider, peer, recorder):
        await peer.begin()
        await peer.say_audio(900)
        await peer.finish()
        await recorder.wait("response_completed")

        await provider.interrupt(heard(200))
        await provider.interrupt(heard(200))
        await provider.interrupt(heard(500))
        await provider.discard_input()
        await peer.wait("input_audio_buffer.clear")

        assert peer.names() == ["conversation.item.truncate", "input_audio_buffer.clear"]
        assert len(recorder.of("response_completed", "response_cancelled")) == 1


@virtual
async def test_late_output_of_a_cut_response_is_refused() -> None:
    async with session() as (provider, peer, recorder):
        await peer.begin()
        await peer.say_audio(100)
        await recorder.wait("audio_output_chunk")
        await provider.interrupt(heard(50))
        n_events = len(recorder.of("audio_output_chunk", "text_output"))

        await peer.say_audio(100)
        await peer.words("too late")
        await peer.call("call_1", "look", "{}")
        await peer.finish(status="cancelled", status_details=CANCELLED)
        await recorder.wait("response_cancelled")

        assert len(recorder.of("audio_output_chunk", "text_output")) == n_events
        assert not recorder.of("function_call_invoked")


@virtual
async def test_items_behind_the_playing_one_were_not_heard_at_all() -> None:
    async with session() as (provider, peer, recorder):
        await peer.begin()
        await peer.say_audio(500, item="item_1")
        await peer.say_audio(400, item="item_2")
        await recorder.wait("audio_output_chunk", 2)

        await provider.interrupt(heard(200))
        await peer.wait("conversation.item.truncate", 2)

        cuts = [(c["item_id"], c["audio_end_ms"]) for c in peer.of("conversation.item.truncate")]
        assert cuts == [("item_1", 200), ("item_2", 0)]


@virtual
async def test_users_voice_makes_the_service_cancel_and_only_the_cut_is_told() -> None:
    async with session() as (provider, peer, recorder):
        await peer.begin()
        await peer.say_audio(1000)
        await peer.say("input_audio_buffer.speech_started", audio_start_ms=10, item_id="item_u")
        await recorder.wait("speech_started")

        await provider.interrupt(heard(300))
        await peer.finish(status="cancelled", status_details={"type": "cancelled", "reason": "turn_detected"})
        event = await recorder.wait("response_cancelled")

        assert peer.names() == ["conversation.item.truncate"]
        assert event.data["reason"] == "turn_detected"


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (None, {"metadata": {"interrupt_response": False}}),
        (DialledCustom, {"metadata": {"endpoint": "ws://127.0.0.1:9/v1"}}),
    ],
)
@virtual
async def test_service_that_does_not_stop_by_itself_is_told_to(kind: Any, config: dict[str, Any]) -> None:
    options = {"kind": kind} if kind else {}
    async with session(**options, **config) as (provider, peer, recorder):
        await peer.begin()
        await peer.say_audio(1000)
        await peer.say("input_audio_buffer.speech_started", audio_start_ms=10, item_id="item_u")
        await recorder.wait("speech_started")

        await provider.interrupt(heard(300))
        await peer.wait("conversation.item.truncate")

        assert peer.names() == ["response.cancel", "conversation.item.truncate"]


@virtual
async def test_request_interrupted_before_its_response_is_cancelled_when_it_begins() -> None:
    async with session() as (provider, peer, recorder):
        await provider.send_text("Never mind")
        await peer.wait("response.create")

        await provider.interrupt(None)
        await peer.begin()
        await peer.wait("response.cancel")
        await provider.interrupt(None)
        await peer.say_audio(100)
        await peer.finish(status="cancelled", status_details=CANCELLED)
        await recorder.wait("response_cancelled")

        assert len(peer.of("response.cancel")) == 1
        assert not recorder.of("audio_output_chunk")


@virtual
async def test_what_waits_behind_a_cut_response_is_dropped() -> None:
    async with session() as (provider, peer, recorder):
        await peer.begin()
        await recorder.wait("response_started")
        await provider.send_text("And then?")
        await provider.speak("half", is_last=False)
        assert not peer.of("conversation.item.create")

        await provider.interrupt(None)
        item = await peer.wait("conversation.item.create")
        await peer.finish(status="cancelled", status_details=CANCELLED)
        await recorder.wait("response_cancelled")
        await provider.speak("Whole.")
        request = await peer.wait("response.create")

        assert item["item"]["content"] == [{"type": "input_text", "text": "And then?"}]
        assert len(peer.of("response.create")) == 1
        assert "half" not in request["response"]["instructions"]


@virtual
async def test_cancel_that_crossed_the_end_is_no_error() -> None:
    async with session() as (provider, peer, recorder):
        peer.refuses = lambda message: (
            {"type": "invalid_request_error", "code": "response_cancel_not_active", "message": "No active."}
            if message.name == "response.cancel"
            else None
        )
        await peer.begin()
        await recorder.wait("response_started")
        await provider.interrupt(None)
        await peer.wait("response.cancel")
        await peer.finish()
        await recorder.wait("response_completed")

        assert not recorder.of("error_general", "error_network", "warning")


@virtual
async def test_cut_that_the_service_refuses_is_a_warning() -> None:
    async with session() as (provider, peer, recorder):
        peer.refuses = lambda message: {
            "type": "invalid_request_error",
            "message": "Audio content of 90ms is already shorter than 100ms",
        }
        await peer.begin()
        await peer.say_audio(200)
        await peer.finish()
        await recorder.wait("response_completed")
        await provider.interrupt(heard(100))
        event = await recorder.wait("warning")

        assert event.data["code"] == "truncation_refused"
        assert not recorder.of("error_general")


def test_only_the_latest_items_and_responses_are_remembered() -> None:
    output = Output(48_000)
    for n in range(200):
        output.open(f"resp_{n}")
        output.item(f"item_{n}", f"resp_{n}")

    assert list(output.items) == [f"item_{n}" for n in range(136, 200)]
    assert list(output.responses) == [f"resp_{n}" for n in range(136, 200)]
