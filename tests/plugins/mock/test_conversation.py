from __future__ import annotations

import asyncio
from typing import Any

import attrs
import numpy as np
import pytest

from tests.plugins.mock.support import Recorder, feed, session, silence, tool, voice_saying
from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.audio.format import AudioFormat
from voxengine.config import TurnDetection
from voxengine.errors import ConfigError, NotConnected
from voxengine.history import Item, ItemKind
from voxengine.notes import CONTINUE, RESTART, USE_RESULT
from voxengine.testing.clock import leak_check, virtual
from voxengine_mock import MockProvider, codec

HELLO = {"Hello": "Hi there! How can I help?"}


@virtual
async def test_a_text_turn_is_answered_in_text_and_audio() -> None:
    async with session(responses=HELLO, delay_ms=100) as (provider, seen):
        await provider.send_text("hello!")
        done = await seen.wait("response_completed")

    assert seen.final_texts() == ["Hi there! How can I help?"]
    assert done.data["status"] == "completed"
    assert len(seen.audio()) == round(done.data["usage"]["output_audio_s"] * 24_000) * 2
    assert {e.data["sample_rate"] for e in seen.of("audio_output_chunk")} == {24_000}


@virtual
async def test_without_options_it_repeats_what_it_was_told() -> None:
    provider = MockProvider({})
    seen = Recorder()
    provider.on_event = seen

    await provider.connect()
    await provider.send_text("the sea is calm")
    await seen.wait("response_completed")
    await provider.disconnect()

    assert seen.final_texts() == ["You said: the sea is calm"]


@virtual
async def test_events_of_an_answer_come_in_order_and_name_it() -> None:
    async with session(responses=HELLO) as (provider, seen):
        await provider.send_text("Hello")
        await seen.wait("usage_updated")

    assert seen.types()[:2] == ["connection_established", "response_started"]
    assert seen.types()[-3:] == ["text_output", "response_completed", "usage_updated"]
    output = seen.of("text_output", "audio_output_chunk", "speech_mark")
    (started,) = seen.of("response_started")
    assert {e.data["response_id"] for e in output} == {started.data["response_id"]}
    assert len({e.data["item_id"] for e in output}) == 1
    assert started.data["trigger"] == "text"


@virtual
async def test_text_grows_by_its_deltas_and_is_final_once() -> None:
    async with session(responses=HELLO) as (provider, seen):
        await provider.send_text("Hello")
        await seen.wait("response_completed")

    text = ""
    *partial, final = seen.of("text_output")
    for event in partial:
        text += event.data["delta"]
        assert event.data["text"] == text
        assert event.data["is_partial"] is True
    assert (final.data["text"], final.data["delta"], final.data["is_partial"]) == (text, "", False)


@virtual
async def test_word_marks_stand_where_the_words_are_in_the_audio() -> None:
    async with session(responses={"go": "one, two, three."}) as (provider, seen):
        await provider.send_text("go")
        await seen.wait("response_completed")

    marks = seen.of("speech_mark")
    wave = np.abs(np.frombuffer(seen.audio(), "<i2").astype(np.int32))
    assert [m.data["value"] for m in marks] == ["one,", "two,", "three."]
    for mark in marks:
        at = mark.data["at_ms"] * 24
        assert wave[max(0, at - 960) : at].sum() == 0
        assert wave[at : at + 2_400].max() > 1_000


@virtual
async def test_a_word_is_told_before_its_audio() -> None:
    async with session(responses=HELLO) as (provider, seen):
        await provider.send_text("Hello")
        await seen.wait("response_completed")

    sent_ms = 0.0
    for event in seen.events:
        if event.type == "audio_output_chunk":
            sent_ms += len(event.data["audio_data"]) / 48
        elif event.type == "speech_mark":
            assert event.data["at_ms"] >= sent_ms


@virtual
async def test_output_comes_at_the_pace_that_was_set() -> None:
    async def took(pace: float) -> tuple[float, float]:
        async with session(responses={"go": "one two three four five six seven"}, pace=pace) as (
            provider,
            seen,
        ):
            await provider.send_text("go")
            done = await seen.wait("response_completed")
            first = seen.of("audio_output_chunk")[0].timestamp
            return done.timestamp - first, done.data["usage"]["output_audio_s"]

    for pace in (1.0, 5.0):
        elapsed_s, audio_s = await took(pace)
        assert elapsed_s == pytest.approx(audio_s / pace, abs=0.01)


@virtual
async def test_the_delay_stands_before_the_first_output() -> None:
    async with session(delay_ms=750) as (provider, seen):
        await provider.send_text("x y")
        started = await seen.wait("response_started")
        first = await seen.wait("text_output")

    assert first.timestamp - started.timestamp == pytest.approx(0.75)


@virtual
async def test_answers_are_given_one_at_a_time_in_order() -> None:
    async with session(default=["first", "second", "third"]) as (provider, seen):
        for text in ("a", "b", "c"):
            await provider.send_text(text)
        await seen.wait("response_completed", 3)

    assert seen.final_texts() == ["first", "second", "third"]
    boundaries = [str(e.type) for e in seen.of("response_started", "response_completed")]
    assert boundaries == ["response_started", "response_completed"] * 3


@virtual
async def test_a_long_story_lasts() -> None:
    async with session(pace=100) as (provider, seen):
        await provider.send_text("Please tell me a long story")
        done = await seen.wait("response_completed")

    assert done.data["usage"]["output_audio_s"] >= 15


@virtual
async def test_it_remembers_what_was_said_and_what_was_loaded() -> None:
    async with session() as (provider, seen):
        await provider.load_history(
            [
                Item(id="1", kind=ItemKind.USER_TEXT, text="my cat is grey"),
                Item(id="2", kind=ItemKind.AGENT, text="Nice."),
            ]
        )
        await provider.send_text("What did I say?")
        await seen.wait("response_completed")
        await provider.send_text("The dog is brown")
        await provider.send_text("what did I just say")
        await seen.wait("response_completed", 3)

    assert seen.final_texts()[0] == "You said: my cat is grey"
    assert seen.final_texts()[2] == "You said: The dog is brown"


@virtual
async def test_an_item_without_answer_is_answered_when_asked() -> None:
    async with session(responses={"open question": "Open answer."}) as (provider, seen):
        await provider.send_item(Item(id="1", kind=ItemKind.USER_TEXT, text="open question"))
        await asyncio.sleep(5)
        assert seen.of("response_started") == []
        await provider.end_turn()
        await seen.wait("response_completed")

    assert seen.final_texts() == ["Open answer."]


@virtual
async def test_speak_says_its_pieces_as_one_answer() -> None:
    async with session() as (provider, seen):
        await provider.speak("Good ", is_last=False)
        await asyncio.sleep(3)
        await provider.speak("morning.", is_last=True)
        await seen.wait("response_completed")

    assert [e.data["trigger"] for e in seen.of("response_started")] == ["say"]
    assert seen.final_texts() == ["Good morning."]
    marks = [(e.data["value"], e.data["at_ms"]) for e in seen.of("speech_mark")]
    assert marks[0] == ("Good", 0)
    assert marks[1][1] > 200


@virtual
async def test_text_alone_when_no_audio_is_wanted() -> None:
    async with session({"modalities": ("text",)}, responses=HELLO) as (provider, seen):
        await provider.send_text("Hello")
        await seen.wait("response_completed")

    assert seen.final_texts() == ["Hi there! How can I help?"]
    assert seen.of("audio_output_chunk", "speech_mark") == []


@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
@virtual
async def test_audio_comes_in_the_rate_that_was_asked_for(rate: int) -> None:
    async with session({"output_format": AudioFormat(rate)}, responses=HELLO) as (provider, seen):
        await provider.send_text("Hello")
        done = await seen.wait("response_completed")

    assert {e.data["sample_rate"] for e in seen.of("audio_output_chunk")} == {rate}
    assert len(seen.audio()) // 2 == int(done.data["usage"]["output_audio_s"] * 1000 + 0.5) * rate // 1000


@virtual
async def test_an_answer_is_cut_at_the_word_limit() -> None:
    async with session({"max_output_tokens": 3}, responses=HELLO) as (provider, seen):
        await provider.send_text("Hello")
        done = await seen.wait("response_completed")

    assert seen.final_texts() == ["Hi there! How"]
    assert done.data["status"] == "incomplete"


@virtual
async def test_places_are_filled_from_the_session() -> None:
    config = {"instructions": "be kind", "voice": "bruno", "language": "pt-PT"}
    async with session(config, default="{instructions}/{voice}/{language}/{text}") as (provider, seen):
        await provider.send_text("hi")
        await seen.wait("response_completed")

    assert seen.final_texts() == ["be kind/bruno/pt-PT/hi"]


@virtual
async def test_usage_and_cost_add_up() -> None:
    async with session(responses=HELLO, price_per_minute_usd=6.0) as (provider, seen):
        await feed(provider, silence(1_000))
        await provider.send_text("Hello")
        await seen.wait("usage_updated")
        usage, cost = await provider.get_usage(), await provider.estimate_cost()

    audio_s = len(seen.audio()) / 48_000
    assert usage == {
        "input_audio_s": 1.0,
        "output_audio_s": pytest.approx(audio_s, abs=0.001),
        "input_tokens": 1,
        "output_tokens": 6,
    }
    assert cost == pytest.approx((1.0 + audio_s) / 10, abs=0.001)


@virtual
async def test_the_mock_is_free_unless_told_otherwise() -> None:
    async with session() as (provider, seen):
        assert await provider.estimate_cost() == 0.0
        assert await provider.get_usage() == {}
        await provider.send_text("a b")
        await seen.wait("usage_updated")
        assert await provider.estimate_cost() == 0.0


# -- spoken turns -------------------------------------------------------------------------------


@virtual
async def test_a_spoken_turn_is_found_transcribed_and_answered() -> None:
    async with session(hears=["what is the weather"], responses={"*weather*": "Sunny."}) as (provider, seen):
        speech = await voice_saying("what is the weather")
        await feed(provider, silence(300) + speech + silence(700))
        await seen.wait("response_completed")

    (started,), (ended,) = seen.of("speech_started"), seen.of("speech_ended")
    assert started.data["source"] == ended.data["source"] == "server"
    assert 280 <= started.data["at_ms"] <= 360
    assert abs(ended.data["at_ms"] - 300 - len(speech) / 48) < 200
    assert seen.final_texts() == ["Sunny."]
    assert seen.of("response_started")[0].data["trigger"] == "audio"


@virtual
async def test_a_transcript_grows_and_then_is_final_once() -> None:
    async with session({"language": "en-GB"}, hears=["tell me about the sea please"]) as (provider, seen):
        await feed(provider, await voice_saying("tell me about the sea please") + silence(600))
        await seen.wait("response_completed")

    *partial, final = seen.of("input_transcript")
    assert len(partial) >= 3
    text = ""
    for event in (*partial, final):
        text += event.data["delta"]
        assert event.data["text"] == text
    assert all(event.data["is_partial"] for event in partial)
    assert final.data["is_partial"] is False
    assert text == "tell me about the sea please"
    assert {e.data["item_id"] for e in (*partial, final)} == {seen.of("speech_started")[0].data["item_id"]}
    assert final.data["language"] == "en-GB"


@virtual
async def test_silence_is_not_heard() -> None:
    async with session() as (provider, seen):
        await feed(provider, silence(5_000))
        await asyncio.sleep(5)

    assert seen.types() == ["connection_established"]


@virtual
async def test_the_turn_ends_on_audio_time_however_fast_and_in_whatever_chunks_it_comes() -> None:
    async def heard(chunk_ms: int, *, paced: bool) -> list[tuple[str, Any]]:
        async with session(hears=["one two three four"], seed=1) as (provider, seen):
            await feed(provider, pcm, chunk_ms=chunk_ms, paced=paced)
            await seen.wait("response_completed")
            types = ("speech_started", "speech_ended", "input_transcript")
            return [(str(e.type), e.data.get("at_ms") or e.data.get("text")) for e in seen.of(*types)]

    pcm = silence(170) + await voice_saying("one two three four") + silence(900)
    expected = await heard(20, paced=True)

    assert [kind for kind, _ in expected][-2:] == ["speech_ended", "input_transcript"]
    for chunk_ms in (5, 73, 400, 10_000):
        assert await heard(chunk_ms, paced=False) == expected


@virtual
async def test_audio_without_a_pause_never_ends_the_turn() -> None:
    async with session() as (provider, seen):
        await feed(provider, await voice_saying("still speaking and not yet done"))
        await asyncio.sleep(60)

    assert seen.of("speech_ended", "response_started") == []


@virtual
async def test_a_longer_pause_is_tolerated_when_asked_for() -> None:
    pcm = await voice_saying("first part") + silence(700) + await voice_saying("second part") + silence(1_500)

    async def n_turns(silence_ms: int) -> int:
        config = {"turn_detection": TurnDetection(silence_ms=silence_ms)}
        async with session(config) as (provider, seen):
            await feed(provider, pcm)
            await asyncio.sleep(10)
            return len(seen.of("speech_ended"))

    assert await n_turns(500) == 2
    assert await n_turns(1_000) == 1


@pytest.mark.parametrize("kind", ["manual", "client"])
@virtual
async def test_under_manual_control_the_turn_ends_when_told(kind: Any) -> None:
    config = {"turn_detection": TurnDetection(kind)}
    async with session(config, hears=["good morning to you"]) as (provider, seen):
        await feed(
            provider, await voice_saying("good morning") + silence(1_500) + await voice_saying("to you")
        )
        await asyncio.sleep(10)
        assert seen.of("speech_started", "speech_ended", "response_started") == []
        await provider.end_turn()
        await seen.wait("response_completed")

    finals = [e.data["text"] for e in seen.of("input_transcript") if not e.data["is_partial"]]
    assert finals == ["good morning to you"]
    assert seen.final_texts() == ["You said: good morning to you"]


@virtual
async def test_a_turn_can_be_closed_without_an_answer_and_answered_later() -> None:
    config = {"turn_detection": TurnDetection("manual")}
    async with session(config, hears=["hello friend"]) as (provider, seen):
        await feed(provider, await voice_saying("hello friend"))
        await provider.end_turn(False)
        await asyncio.sleep(10)
        assert seen.of("response_started") == []
        await provider.end_turn(True)
        await seen.wait("response_completed")

    assert seen.final_texts() == ["You said: hello friend"]


@virtual
async def test_end_of_input_within_speech_closes_the_turn_under_server_detection() -> None:
    async with session(hears=["cut off here"]) as (provider, seen):
        await feed(provider, await voice_saying("cut off here"))
        await provider.end_turn()
        await seen.wait("response_completed")
        await provider.end_turn()
        await asyncio.sleep(10)

    assert len(seen.of("speech_ended")) == 1
    assert seen.final_texts() == ["You said: cut off here"]


@pytest.mark.parametrize("kind", ["manual", "server"])
@virtual
async def test_asked_to_answer_silence_it_says_that_it_heard_nothing(kind: Any) -> None:
    async with session({"turn_detection": TurnDetection(kind)}) as (provider, seen):
        await feed(provider, silence(800))
        await provider.end_turn()
        await seen.wait("response_completed")

    assert seen.final_texts() == ["I did not hear anything."]
    assert seen.of("input_transcript") == []


@virtual
async def test_discarded_audio_is_not_answered() -> None:
    config = {"turn_detection": TurnDetection("manual")}
    async with session(config, hears=["thrown away", "kept words"]) as (provider, seen):
        await feed(provider, await voice_saying("thrown away"))
        await provider.discard_input()
        await feed(provider, await voice_saying("kept words"))
        await provider.end_turn()
        await seen.wait("response_completed")

    assert seen.final_texts() == ["You said: kept words"]


@virtual
async def test_times_count_from_the_start_of_the_session_also_after_a_discard() -> None:
    async with session() as (provider, seen):
        await feed(provider, silence(1_000))
        await provider.discard_input()
        await provider.configure_session({"turn_detection": TurnDetection(silence_ms=300)})
        await feed(provider, await voice_saying("some words") + silence(400))
        started = await seen.wait("speech_started")

    assert 980 <= started.data["at_ms"] <= 1_060


@pytest.mark.parametrize(
    ("config", "is_told"),
    [
        ({}, True),
        ({"mode": "big"}, True),
        ({"mode": "provider"}, True),
        ({"mode": "fast"}, False),
        ({"mode": "fast", "transcription": True}, True),
        ({"transcription": False}, False),
    ],
)
@virtual
async def test_transcripts_of_the_user_follow_the_mode(config: dict[str, Any], is_told: bool) -> None:
    async with session(config, hears=["some words"]) as (provider, seen):
        await feed(provider, await voice_saying("some words") + silence(600))
        await seen.wait("response_completed")

    assert bool(seen.of("input_transcript")) is is_told
    assert seen.final_texts() == ["You said: some words"]


@virtual
async def test_input_at_another_rate_is_heard_at_its_own_times() -> None:
    async with session({"input_format": AudioFormat(8_000)}) as (provider, seen):
        pcm = silence(500, 8_000) + await voice_saying("some words", 8_000) + silence(600, 8_000)
        await feed(provider, pcm, rate=8_000)
        started = await seen.wait("speech_started")

    assert 480 <= started.data["at_ms"] <= 560


# -- settings -----------------------------------------------------------------------------------


@virtual
async def test_settings_change_in_mid_session_and_others_stay() -> None:
    async with session({"instructions": "old", "voice": "bruno"}, default="{instructions} {voice}") as (
        provider,
        seen,
    ):
        await provider.configure_session({"instructions": "new"})
        updated = await seen.wait("session_updated")
        await provider.send_text("hi")
        await seen.wait("response_completed")

    assert updated.data["settings"]["instructions"] == "new"
    assert updated.data["settings"]["voice"] == "bruno"
    assert seen.final_texts() == ["new bruno"]


@virtual
async def test_script_of_a_running_session_cannot_be_changed_and_that_is_said() -> None:
    async with VoiceEngine(VoiceEngineConfig(provider="mock", metadata={"default": "old"})) as engine:
        with pytest.raises(ConfigError, match="reads metadata, which holds its script, at connect"):
            await engine.configure_session(metadata={"default": "new"}, voice="bruno")

        assert engine.config.metadata == {"default": "old"}
        assert engine.config.voice is None


@virtual
async def test_settings_of_the_session_name_the_voice_that_speaks() -> None:
    config = VoiceEngineConfig(provider="mock", voice="nobody", metadata={"default": "{voice}"})
    async with VoiceEngine(config) as engine:
        assert engine.session is not None
        at_first = engine.session.settings["voice"]
        await engine.configure_session(voice="bruno")
        await engine.wait_idle()
        changed = engine.session.settings["voice"]

        await engine.configure_session(voice="zzz")
        await engine.send_text("hi")
        await engine.wait_idle()

        updates = [event for event in engine.events.history if event.type == "session_updated"]
        assert (at_first, changed, engine.session.settings["voice"]) == ("aria", "bruno", "aria")
        assert [event.data["settings"]["voice"] for event in updates] == ["bruno", "aria"]
        assert engine.history.items[-1].text == "aria"


@virtual
async def test_turn_detection_can_be_changed_in_mid_session() -> None:
    async with session() as (provider, seen):
        await provider.configure_session({"turn_detection": TurnDetection("manual")})
        await feed(provider, await voice_saying("some words") + silence(1_000))
        await asyncio.sleep(5)

    assert seen.of("speech_ended", "response_started") == []


@virtual
async def test_an_unknown_voice_is_warned_about_and_replaced() -> None:
    async with session({"voice": "nobody"}, default="{voice}") as (provider, seen):
        warning = await seen.wait("warning")
        await provider.send_text("hi")
        await seen.wait("response_completed")

    assert warning.data["code"] == "voice_unknown"
    assert seen.final_texts() == ["aria"]


@virtual
async def test_another_voice_in_mid_session_is_heard_and_an_unknown_one_warned_about() -> None:
    async with session(default="{voice}") as (provider, seen):
        await provider.configure_session({"voice": "dante"})
        await provider.send_text("hi")
        await provider.configure_session({"voice": "nobody"})
        warning = await seen.wait("warning")
        await seen.wait("response_completed")

    assert seen.final_texts() == ["dante"]
    assert warning.data["code"] == "voice_unknown"


@virtual
async def test_a_wrong_setting_in_mid_session_changes_nothing_and_is_told() -> None:
    async with session(default="{instructions}") as (provider, seen):
        await provider.configure_session({"instructions": "x", "input_format": AudioFormat(8_000)})
        failed = await seen.wait("error_general")
        await provider.send_text("hi")
        await seen.wait("response_completed")

    assert failed.data["error"].code == "invalid_request"
    assert failed.data["recoverable"] is True
    assert seen.of("session_updated") == []


# -- tools --------------------------------------------------------------------------------------

WEATHER = {
    "*weather*": {
        "say": "Let me look.",
        "tool": "get_weather",
        "arguments": {"city": "{text}", "days": 2},
        "then": "It is {result.sky}.",
    }
}


@virtual
async def test_a_tool_is_called_and_its_result_is_used() -> None:
    async with session({"tools": [tool("get_weather")]}, responses=WEATHER) as (provider, seen):
        await provider.send_text("weather in Rome")
        call = await seen.wait("function_call_invoked")
        await asyncio.sleep(30)
        assert len(seen.of("response_started")) == 1
        await provider.send_tool_result(call.data["call_id"], '{"sky": "blue"}')
        await seen.wait("response_completed", 2)

    assert (call.data["name"], call.data["arguments"]) == (
        "get_weather",
        {"city": "weather in Rome", "days": 2},
    )
    assert [e.data["trigger"] for e in seen.of("response_started")] == ["text", "tool"]
    assert seen.final_texts() == ["Let me look.", "It is blue."]


@virtual
async def test_calls_made_together_are_answered_when_all_results_are_there() -> None:
    calls = [{"tool": "a", "arguments": {"n": 1}}, {"tool": "b"}]
    responses = {"both": {"calls": calls, "then": "{result_1} and {result_2}"}}
    async with session({"tools": [tool("a"), tool("b")]}, responses=responses) as (provider, seen):
        await provider.send_text("both")
        second = await seen.wait("function_call_invoked", 2)
        first = seen.of("function_call_invoked")[0]
        await provider.send_tool_result(second.data["call_id"], "two")
        await asyncio.sleep(5)
        assert len(seen.of("response_started")) == 1
        await provider.send_tool_result(first.data["call_id"], "one")
        await seen.wait("response_completed", 2)

    assert seen.final_texts() == ["one and two"]
    assert first.data["call_id"] != second.data["call_id"]


@virtual
async def test_a_failed_tool_is_said_to_have_failed() -> None:
    async with session({"tools": [tool("get_weather")]}, responses=WEATHER) as (provider, seen):
        await provider.send_text("weather")
        call = await seen.wait("function_call_invoked")
        await provider.send_tool_result(call.data["call_id"], "no network", True)
        await seen.wait("response_completed", 2)

    assert seen.final_texts()[1] == "get_weather did not work: no network"


@pytest.mark.parametrize("text", ["use get_weather in Porto", "Get weather in Porto, please!"])
@virtual
async def test_a_text_that_names_a_declared_tool_calls_it(text: str) -> None:
    declared = tool(
        "get_weather", city={"type": "string"}, days={"type": "integer"}, unit={"enum": ["C", "F"]}
    )
    async with session({"tools": [declared]}) as (provider, seen):
        await provider.send_text(text)
        call = await seen.wait("function_call_invoked")
        await provider.send_tool_result(call.data["call_id"], "rain")
        await seen.wait("response_completed", 2)

    assert call.data["arguments"] == {"city": "Porto", "days": 1, "unit": "C"}
    assert seen.final_texts() == ["Get weather says: rain"]


@pytest.mark.parametrize(
    ("choice", "called"), [("required", "first"), ("second", "second"), ("none", None), ("auto", None)]
)
@virtual
async def test_the_tool_choice_is_obeyed(choice: str, called: str | None) -> None:
    config = {"tools": [tool("first"), tool("second")], "tool_choice": choice}
    async with session(config) as (provider, seen):
        await provider.send_text("good day")
        await seen.wait("response_completed")

    assert [e.data["name"] for e in seen.of("function_call_invoked")] == ([called] if called else [])


@virtual
async def test_tools_may_be_forbidden_even_when_they_are_named() -> None:
    async with session({"tools": [tool("clock")], "tool_choice": "none"}) as (provider, seen):
        await provider.send_text("ask the clock")
        await seen.wait("response_completed")

    assert seen.of("function_call_invoked") == []


@virtual
async def test_a_scripted_call_of_an_undeclared_tool_is_warned_about() -> None:
    async with session(responses=WEATHER) as (provider, seen):
        await provider.send_text("weather")
        await seen.wait("response_completed")

    assert [e.data["code"] for e in seen.of("warning")] == ["tool_undeclared"]
    assert seen.of("function_call_invoked") == []


@virtual
async def test_a_result_of_no_open_call_is_an_error_and_the_session_goes_on() -> None:
    async with session() as (provider, seen):
        await provider.send_tool_result("call_x", "late")
        failed = await seen.wait("error_general")
        await provider.send_text("still there")
        await seen.wait("response_completed")

    assert failed.data["error"].code == "invalid_request"
    assert seen.final_texts() == ["You said: still there"]


# -- life ---------------------------------------------------------------------------------------


@virtual
async def test_a_session_leaves_nothing_behind() -> None:
    async with leak_check(), session() as (provider, seen):
        await provider.send_text("tell me a long story")
        await seen.wait("audio_output_chunk")

    assert provider.is_connected is False


@virtual
async def test_disconnecting_twice_or_before_connecting_does_nothing() -> None:
    provider = MockProvider({})
    await provider.disconnect()
    await provider.connect()
    assert provider.is_connected
    await provider.disconnect()
    await provider.disconnect()

    assert not provider.is_connected


@virtual
async def test_calls_without_a_session_say_so() -> None:
    provider = MockProvider({})
    with pytest.raises(NotConnected, match="connect"):
        await provider.send_text("hi")
    await provider.connect()
    await provider.disconnect()
    with pytest.raises(NotConnected):
        await provider.send_audio(b"\0\0")


@virtual
async def test_odd_audio_is_refused_and_nothing_is_sent() -> None:
    wires: list[Any] = []
    provider = MockProvider({})
    provider.attach(None, lambda direction, wire, now: wires.append(wire))
    await provider.connect()
    n_before = len(wires)
    with pytest.raises(ValueError, match="frames"):
        await provider.send_audio(b"\0\0\0")
    await provider.send_audio(b"")
    await provider.disconnect()

    assert n_before > 0
    assert '{"type": "input_audio", "audio": ""}' in wires


@virtual
async def test_the_wire_is_observed_in_both_directions() -> None:
    seen: list[tuple[str, str]] = []
    provider = MockProvider({})
    provider.attach(None, lambda direction, wire, now: seen.append((direction, str(wire)[:16])))
    await provider.connect()
    await provider.disconnect()

    assert seen[0] == ("out", '{"type": "hello"')
    assert seen[1] == ("in", '{"type": "ready"')


# -- the same again -----------------------------------------------------------------------------


@virtual
async def test_cancel_that_comes_late_leaves_the_next_response_alone() -> None:
    async with session(default="a long story about an engine") as (provider, seen):
        await provider.send_text("one")
        await seen.wait("response_completed")
        over = seen.of("response_started")[0].data["response_id"]
        await provider.send_text("two")
        await seen.wait("audio_output_chunk", len(seen.of("audio_output_chunk")) + 1)

        await provider._send(codec.Cancel(response_id=over))
        await seen.wait("response_completed", 2)

        assert seen.of("response_cancelled") == []
        await provider.send_text("three")
        await seen.wait("response_started", 3)
        assert provider.try_interrupt(None)
        await seen.wait("response_cancelled")


def transcript_of_a_session(seed: int) -> list[tuple[float, str, dict[str, Any]]]:
    @virtual
    async def run() -> list[tuple[float, str, dict[str, Any]]]:
        metadata: dict[str, Any] = {
            "seed": seed,
            "jitter_ms": 300,
            "hears": ["what now"],
            "responses": WEATHER,
        }
        async with session({"tools": [tool("get_weather")]}, **metadata) as (provider, seen):
            await provider.send_text("weather")
            call = await seen.wait("function_call_invoked")
            await provider.send_tool_result(call.data["call_id"], '{"sky": "grey"}')
            await seen.wait("response_completed", 2)
            await feed(provider, await voice_saying("what now") + silence(700))
            await seen.wait("response_completed", 3)
            await provider.send_text("a long story")
            await seen.wait("audio_output_chunk", len(seen.of("audio_output_chunk")) + 5)
            await provider.interrupt()
            await seen.wait("response_cancelled")
        return [(e.timestamp, str(e.type), dict(e.data)) for e in seen.events]

    return run()


def test_the_same_seed_gives_the_same_events_at_the_same_times() -> None:
    assert transcript_of_a_session(5) == transcript_of_a_session(5)


def test_another_seed_gives_other_times() -> None:
    times = [[t for t, _, _ in transcript_of_a_session(seed)] for seed in (5, 6)]

    assert times[0] != times[1]


@virtual
async def test_two_sessions_opened_at_once_share_no_identifier() -> None:
    async def ids() -> set[str]:
        async with session(seed=4) as (provider, seen):
            await provider.send_text("hi")
            await seen.wait("response_completed")
            return {e.data["response_id"] for e in seen.of("response_started")} | {provider.session_id}

    one, other = await asyncio.gather(ids(), ids())

    assert len(one) == 2
    assert one.isdisjoint(other)


@virtual(max_real_s=100)
async def test_many_sessions_talk_at_once() -> None:
    async def talk(n: int) -> str:
        async with session(default=f"Number {n % 7}.", seed=n, jitter_ms=500) as (provider, seen):
            await feed(provider, speech + silence(600), chunk_ms=200)
            await seen.wait("response_completed")
            return seen.final_texts()[0]

    speech = await voice_saying("hi")
    async with leak_check():
        said = await asyncio.gather(*(talk(n) for n in range(100)))

    assert said == [f"Number {n % 7}." for n in range(100)]


def test_capabilities_are_said_in_full() -> None:
    from voxengine.capabilities import ROWS, Support

    declared = MockProvider.capabilities

    assert [row for row in ROWS if declared.support(row).support is Support.UNKNOWN] == []
    assert attrs.asdict(declared, recurse=False)["voices"] == ("aria", "bruno", "celia", "dante")


@pytest.mark.parametrize(
    ("note", "items", "said"),
    [
        (CONTINUE, [("user_text", "a story"), ("agent", "Once upon")], "a time."),
        (CONTINUE, [("user_text", "a story"), ("agent", "Something else")], "Once upon a time."),
        (RESTART, [("user_text", "a story"), ("agent", "Once upon")], "Once upon a time."),
        (USE_RESULT, [("user_text", "the weather"), ("tool_result", "rain")], "It says: rain"),
        (CONTINUE, [("user_text", "the weather"), ("tool_result", "rain"), ("agent", "It")], "says: rain"),
        (USE_RESULT, [("user_text", "a story"), ("tool_result", "rain")], "rain"),
        (CONTINUE, [], "Who?"),
    ],
)
@virtual
async def test_note_to_whoever_takes_over_is_followed_and_not_answered(
    note: str, items: list[tuple[str, str]], said: str
) -> None:
    responses: dict[str, Any] = {
        "*story*": "Once upon a time.",
        "*weather*": {"tool": "look", "then": "It says: {result}"},
    }
    async with session({"tools": [tool("look")]}, responses=responses, default="Who?") as (provider, seen):
        await provider._send(codec.AddItems(items=[{"kind": kind, "text": text} for kind, text in items]))
        await provider.send_text(note)
        await seen.wait("response_completed")

        assert seen.final_texts() == [said]
        assert seen.of("function_call_invoked") == []
        await provider.send_text("What did I say?")
        await seen.wait("response_completed", 2)
        assert "[Note" not in seen.final_texts()[-1]
