"""Who ends the user's turn, what the history keeps of it, and what the settings show."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.core.engine.fakes import (
    RATE,
    RECOGNISER,
    Document,
    Puppet,
    calling,
    caps,
    kind,
    silence,
    speak,
    speech,
)
from voxengine.audio.format import AudioFormat
from voxengine.capabilities import FULL, PLANNED, UNSUPPORTED
from voxengine.errors import ErrorCode, ProviderError
from voxengine.events import EventType
from voxengine.history import Item, ItemKind
from voxengine.testing import virtual


@virtual
async def test_vendor_ends_the_turn_and_its_positions_are_the_engines() -> None:
    async with calling() as call:
        await speak(call.engine, silence(200) + speech(400) + silence(200), paced=True)
        call.provider().hears(200, 600)

        assert call.seen.one(EventType.SPEECH_STARTED).at_ms == 200
        ended = call.seen.one(EventType.SPEECH_ENDED)
        assert (ended.at_ms, ended.source) == (600, "server")
        assert call.engine.metrics.turns[-1].trigger == "audio"


@virtual
async def test_client_ends_the_turn_once_silence_followed() -> None:
    async with calling(turn_detection="client") as call:
        await speak(call.engine, silence(400) + speech(400) + silence(700), paced=True)

        assert call.provider().of("end_turn") == [True]
        started, ended = call.seen.of(EventType.SPEECH_STARTED, EventType.SPEECH_ENDED)
        assert (started.source, ended.source) == ("client", "client")
        assert ended.at_ms == 800
        assert 100 <= started.at_ms <= 400
        call.provider().answers("Yes.")
        await call.engine.wait_idle(timeout_s=5)


@virtual
async def test_client_sends_everything_before_it_ends_the_turn() -> None:
    slow = kind(behaviour={"send_audio": lambda *_: asyncio.sleep(0.03)})
    async with calling(slow, turn_detection="client") as call:
        await speak(call.engine, speech(400) + silence(600), paced=True)
        await asyncio.sleep(5)

        calls = call.provider().calls
        before = calls[: [name for name, _ in calls].index("end_turn")]
        sent = b"".join(data for name, data in before if name == "send_audio")
        assert sent.startswith(speech(400))
        assert len(sent) >= len(silence(900))  # Up to where the end was noticed, at least.
        assert len(call.provider().audio) == len(silence(1000))


@virtual
async def test_turn_is_ended_by_hand_when_so_configured() -> None:
    async with calling(turn_detection="manual") as call:
        await speak(call.engine, speech(400) + silence(2000), paced=True)
        assert call.provider().of("end_turn") == []

        await call.engine.end_turn()
        await call.engine.end_turn(respond=False)

        assert call.provider().of("end_turn") == [True, False]
        assert len(call.engine.metrics.turns) == 1


@virtual
async def test_end_turn_flushes_the_group_first() -> None:
    async with calling(turn_detection="manual", group_ms=500) as call:
        await speak(call.engine, speech(650))
        await call.engine.end_turn()

        assert bytes(call.provider().audio) == speech(650)
        assert call.provider().calls[-1][0] == "end_turn"


@virtual
async def test_end_turn_that_fails_may_be_tried_again() -> None:
    behaviour: dict[str, Any] = {"end_turn": RuntimeError("no")}
    async with calling(kind(behaviour=behaviour), turn_detection="manual") as call:
        await speak(call.engine, speech(200))
        with pytest.raises(ProviderError):
            await call.engine.end_turn()
        await call.engine.wait_idle(timeout_s=2)
        behaviour.clear()

        await call.engine.end_turn()

        assert call.provider().of("end_turn") == [True, True]


@virtual
async def test_end_turn_fails_when_the_audio_did_not_get_there() -> None:
    behaviour: dict[str, Any] = {"send_audio": RuntimeError("no")}
    async with calling(kind(behaviour=behaviour), turn_detection="manual") as call:
        await speak(call.engine, speech(200))
        with pytest.raises(ProviderError):
            await call.engine.end_turn()
        assert call.provider().of("end_turn") == []
        behaviour.clear()

        await call.engine.end_turn()

        assert bytes(call.provider().audio) == speech(200)


@virtual
async def test_vendor_that_decides_gets_silence_that_is_not_the_users() -> None:
    async with calling() as call:
        await speak(call.engine, speech(400))
        await call.engine.end_turn()
        one, session = call.provider(), call.engine.session

        assert bytes(one.audio) == speech(400) + silence(800)
        assert session is not None
        assert session.sender is not None
        assert session.sender.injected_frames == RATE * 8 // 10
        await speak(call.engine, speech(400), paced=True)
        one.hears(1200, 1600)
        assert call.seen.one(EventType.SPEECH_STARTED).at_ms == 400
        assert call.seen.one(EventType.SPEECH_ENDED).at_ms == 800


@virtual
async def test_semantic_detection_moves_to_the_client_visibly_where_there_is_none() -> None:
    cls = kind(capabilities=caps(semantic_turn_detection=UNSUPPORTED))
    async with calling(cls, turn_detection="semantic") as call:
        assert call.seen.codes() == ["turn_detection_moved"]
        assert call.engine.session is not None
        assert call.engine.session.settings["turn_detection"] == "client"
        assert call.provider().config["turn_detection"].kind == "client"
        await speak(call.engine, speech(400) + silence(700), paced=True)
        assert call.provider().of("end_turn") == [True]


@virtual
async def test_semantic_detection_that_is_asked_for_later_moves_as_visibly() -> None:
    async with calling(kind(capabilities=caps(semantic_turn_detection=UNSUPPORTED))) as call:
        await call.engine.configure_session(turn_detection="semantic")

        assert call.seen.codes() == ["turn_detection_moved"]
        assert call.provider().of("configure_session")[0]["turn_detection"].kind == "client"


@pytest.mark.parametrize(("cell", "kind_in_force"), [(FULL, "semantic"), (PLANNED, "client")])
@virtual
async def test_semantic_detection_stays_where_there_is_one(cell: Any, kind_in_force: str) -> None:
    cls = kind(capabilities=caps(semantic_turn_detection=cell))
    async with calling(cls, turn_detection="semantic") as call:
        assert call.engine.session is not None
        assert call.engine.session.settings["turn_detection"] == kind_in_force


@virtual
async def test_turn_detection_can_be_changed_in_mid_session() -> None:
    async with calling() as call:
        await call.engine.configure_session(turn_detection="client")
        await speak(call.engine, speech(400) + silence(700), paced=True)

        assert call.provider().of("end_turn") == [True]
        assert call.engine.session is not None
        assert call.engine.session.settings["turn_detection"] == "client"


@pytest.mark.parametrize(("mode", "told"), [("big", True), ("fast", False), ("provider", "provider")])
@virtual
async def test_mode_is_visible_in_the_settings(mode: Any, told: Any) -> None:
    async with calling(mode=mode) as call:
        assert call.engine.session is not None
        assert call.engine.session.settings["mode"] == mode
        assert call.engine.session.settings["transcription"] == told
        assert call.provider().config.get("transcription", "provider") == told


@virtual
async def test_settings_say_what_is_in_force() -> None:
    async with calling(voice="ada", temperature=0.5, interruption="off") as call:
        assert call.engine.session is not None
        settings = call.engine.session.settings
        assert (settings["voice"], settings["temperature"], settings["interruption"]) == ("ada", 0.5, "off")
        assert (settings["input_format"], settings["playback"]) == ("24000 Hz mono", "null")
        call.provider().emit_event(EventType.SESSION_UPDATED, {"settings": {"voice": "bob", "extra": 1}})
        updated = call.seen.one(EventType.SESSION_UPDATED)
        assert updated.settings["voice"] == "bob"
        assert call.engine.session.settings["extra"] == 1


class Willful(Puppet):
    """Takes any voice and speaks with its own, and says so."""

    async def connect(self) -> None:
        self.emit_event(EventType.CONNECTION_ESTABLISHED, {"settings": {"voice": "bob"}})

    async def configure_session(self, config: dict[str, Any]) -> None:
        self.emit_event(EventType.SESSION_UPDATED, {"settings": {"voice": "bob"}})


@virtual
async def test_what_the_service_says_is_in_force_wins_over_what_was_asked_for() -> None:
    async with calling(kind(Willful), voice="ada", language="en-US") as call:
        assert call.engine.session is not None
        settings = call.engine.session.settings
        assert (settings["voice"], settings["language"]) == ("bob", "en-US")

        await call.engine.configure_session(voice="eve", language="pt-PT")

        assert (settings["voice"], settings["language"]) == ("bob", "pt-PT")
        assert call.seen.one(EventType.SESSION_UPDATED).settings["voice"] == "bob"


@virtual
@pytest.mark.parametrize(
    ("honoured", "detection", "codes"),
    [
        ({"interruption"}, "server", []),
        ({"voice"}, "server", ["option_unsupported"]),
        ({"voice"}, "client", []),
        (None, "server", []),
    ],
)
async def test_provider_is_told_that_the_users_voice_stops_nothing(
    honoured: set[str] | None, detection: str, codes: list[str]
) -> None:
    cls = kind(options=None if honoured is None else frozenset(honoured))

    async with calling(cls, interruption="off", turn_detection=detection) as call:
        assert call.provider().config["interruption"] == "off"
        assert call.seen.codes() == codes


@virtual
async def test_provider_hears_nothing_of_the_usual_interruption() -> None:
    async with calling() as call:
        assert "interruption" not in call.provider().config


@virtual
async def test_option_that_a_provider_lacks_is_a_warning() -> None:
    cls = kind(options=frozenset({"voice"}), capabilities=caps(session_tools=UNSUPPORTED))

    def tool() -> None:
        """Do nothing."""

    async with calling(cls, voice="ada", temperature=0.5, language="de-DE", tools=(tool,)) as call:
        messages = [event.message for event in call.seen.of(EventType.WARNING)]
        assert call.seen.codes() == ["option_unsupported"] * 3
        assert [word in " ".join(messages) for word in ("temperature", "language", "tools", "voice")] == [
            True,
            True,
            True,
            False,
        ]
        assert call.engine.session is not None
        settings = call.engine.session.settings
        assert (settings["voice"], settings["tools"]) == ("ada", [])
        assert settings.keys().isdisjoint({"temperature", "language"})


# -- the history of what was said -------------------------------------------------------------------


@virtual
async def test_transcript_after_the_answer_has_begun_belongs_to_the_turn_before_it() -> None:
    async with calling() as call:
        one = call.provider()
        await speak(call.engine, speech(400), paced=True)
        one.hears(0, 400)
        one.answers("Noon.")
        one.emit_event(
            EventType.INPUT_TRANSCRIPT, {"text": "What time is it?", "is_partial": False, "item_id": "u1"}
        )

        assert [(i.role, i.text) for i in call.engine.history] == [
            ("user", "What time is it?"),
            ("agent", "Noon."),
        ]
        assert call.seen.one(EventType.INPUT_TRANSCRIPT).item_id == call.engine.history.items[0].id


@virtual
async def test_two_utterances_keep_their_words_apart() -> None:
    async with calling() as call:
        one = call.provider()
        await speak(call.engine, speech(1000), paced=True)
        for n, text in enumerate(("First part", "second part")):
            one.hears(n * 500, n * 500 + 400, item_id=f"u{n}")
            data = {"text": text, "is_partial": False, "item_id": f"u{n}"}
            one.emit_event(EventType.INPUT_TRANSCRIPT, data)
        one.answers("Yes.")

        assert [item.text for item in call.engine.history] == ["First part", "second part", "Yes."]


@virtual
async def test_partial_transcripts_grow_one_item() -> None:
    async with calling() as call:
        one = call.provider()
        await speak(call.engine, speech(400), paced=True)
        one.hears(0, item_id="u1")
        for delta in ("What ", "time"):
            one.emit_event(EventType.INPUT_TRANSCRIPT, {"delta": delta, "is_partial": True, "item_id": "u1"})
        one.emit_event(
            EventType.INPUT_TRANSCRIPT, {"text": "What time?", "is_partial": False, "item_id": "u1"}
        )

        texts = [(event.text, event.is_partial) for event in call.seen.of(EventType.INPUT_TRANSCRIPT)]
        assert texts == [("What ", True), ("What time", True), ("What time?", False)]
        assert [item.text for item in call.engine.history] == ["What time?"]


@virtual
async def test_untranscribed_turn_keeps_its_audio() -> None:
    async with calling() as call:
        await speak(call.engine, silence(200) + speech(400), paced=True)
        call.provider().hears(200, 600)
        call.provider().answers("Yes.")

        assert call.engine.history.items[0].audio == speech(400)


@virtual
async def test_final_words_of_a_recogniser_cover_its_audio() -> None:
    async with calling(kind(capabilities=RECOGNISER), journal_s=3) as call:
        for n in range(4):
            await speak(call.engine, speech(2000), paced=True)
            data = {"text": f"part {n}", "is_partial": False}
            call.provider().emit_event(EventType.INPUT_TRANSCRIPT, data)

        assert [item.text for item in call.engine.history] == ["part 0", "part 1", "part 2", "part 3"]


@virtual
async def test_item_added_in_mid_call_reaches_the_provider() -> None:
    async with calling() as call:
        call.engine.history.add_system("The user is called Ada.")
        await asyncio.sleep(0.01)

        (item,) = call.provider().of("send_item")
        assert (item.kind, item.text) == (ItemKind.SYSTEM, "The user is called Ada.")
        assert call.seen.codes() == []


@virtual
async def test_text_behind_a_spoken_turn_does_not_take_its_answer() -> None:
    async with calling() as call:
        await speak(call.engine, speech(500), paced=True)
        call.provider().hears(0, 500)
        await call.engine.send_text("And this?")
        call.provider().answers("To what was spoken.", "r1", "i1")
        call.provider().answers("To the text.", "r2", "i2")
        await call.engine.wait_idle(timeout_s=5)

        triggers = [event.trigger for event in call.seen.of(EventType.RESPONSE_STARTED)]
        assert triggers == ["audio", "text"]
        assert call.engine._conversation.user.n_unanswered == 0


@virtual
async def test_speech_that_ends_behind_a_text_is_covered_by_the_answer_that_comes_first() -> None:
    async with calling() as call:
        engine, one = call.engine, call.provider()
        await speak(engine, speech(500), paced=True)
        one.hears(0, 500)
        await speak(engine, speech(500), paced=True)
        one.emit_event(EventType.SPEECH_STARTED, {"at_ms": 500})
        await engine.send_text("And this?")
        one.emit_event(EventType.SPEECH_ENDED, {"at_ms": 1000})
        one.answers("To all that was spoken.", "r1", "i1")
        one.answers("To the text.", "r2", "i2")
        await engine.wait_idle(timeout_s=5)

        assert engine._conversation.user.n_unanswered == 0


@virtual
async def test_text_that_is_cancelled_while_it_waits_for_a_note_is_nowhere() -> None:
    async def slowly(*_: Any) -> None:
        await asyncio.sleep(1)

    async with calling(kind(behaviour={"send_item": slowly})) as call:
        call.engine.history.add_system("Be brief.")
        sending = asyncio.create_task(call.engine.send_text("Never mind."))
        await asyncio.sleep(0.5)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await call.engine.wait_idle(timeout_s=5)

        assert call.provider().of("send_text") == []
        assert [item.text for item in call.engine.history] == ["Be brief."]


@pytest.mark.parametrize("change", ["append", "edit", "delete"])
@virtual
async def test_change_that_cannot_be_told_is_a_warning(change: str) -> None:
    cls: Any = kind(Document) if change == "append" else kind()
    async with calling(cls) as call:
        history = call.engine.history
        if change == "append":
            history.append(Item("", ItemKind.SYSTEM, "x"))
        else:
            await call.engine.send_text("Hello")
            item = history.items[0]
            history.edit(item.id, text="Goodbye") if change == "edit" else history.delete(item.id)

        assert call.seen.codes() == ["history_not_told"]


@virtual
async def test_item_that_the_provider_refuses_is_an_error_event() -> None:
    async with calling(kind(behaviour={"send_item": RuntimeError("no")})) as call:
        call.engine.history.add_system("x")
        await asyncio.sleep(0.01)

        assert len(call.seen.of(EventType.ERROR_GENERAL)) == 1


# -- rest, usage, metrics ---------------------------------------------------------------------------


@virtual
async def test_idle_is_when_the_answer_was_played_to_its_end() -> None:
    async with calling() as call:
        loop = asyncio.get_running_loop()
        await call.engine.send_text("Hi")
        loop.call_later(1, lambda: call.provider().answers("Hello.", ms=2000))

        await call.engine.wait_idle(settle_s=0.5)

        assert loop.time() == pytest.approx(3.5, abs=0.01)


@virtual
async def test_conversation_that_does_not_come_to_rest_says_why() -> None:
    async with calling() as call:
        await call.engine.send_text("Hi")
        with pytest.raises(ProviderError, match="an answer was asked for and did not come") as caught:
            await call.engine.wait_idle(timeout_s=3)
        assert caught.value.code == ErrorCode.TIMEOUT

        call.provider().starts()
        with pytest.raises(ProviderError, match="not complete"):
            await call.engine.wait_idle(timeout_s=3)


@virtual
async def test_empty_answer_is_an_end_all_the_same() -> None:
    async with calling() as call:
        await speak(call.engine, speech(400), paced=True)
        call.provider().hears(0, 400)
        call.provider().starts()
        call.provider().completes()

        await call.engine.wait_idle(timeout_s=3)


@virtual
async def test_usage_and_cost_are_those_of_the_session_and_known_after_its_end() -> None:
    async def usage(*_: Any) -> dict[str, Any]:
        return {"tokens": 7}

    async def cost(*_: Any) -> float:
        return 0.25

    cls = kind(behaviour={"get_usage": usage, "estimate_cost": cost})
    async with calling(cls, others={"two": kind()}) as call:
        assert (await call.engine.get_usage(), await call.engine.estimate_cost()) == ({"tokens": 7}, 0.25)
        await call.engine.switch_provider("two")
        assert await call.engine.get_usage() is None
        call.provider("two").emit_event(EventType.USAGE_UPDATED, {"usage": {"tokens": 9}, "cost": None})
        await call.engine.disconnect()

        assert await call.engine.get_usage() == {"tokens": 9}
        assert [held.usage for held in call.engine.metrics.sessions] == [{"tokens": 7}, {"tokens": 9}]
        assert call.engine.metrics.sessions[0].cost == 0.25


@virtual
async def test_latencies_are_measured_from_the_end_of_the_turn() -> None:
    async with calling() as call:
        one = call.provider()
        await asyncio.sleep(1)
        await call.engine.send_text("Hi")
        await asyncio.sleep(0.2)
        one.starts()
        one.writes("Hello")
        await asyncio.sleep(0.1)
        one.sounds(100)
        await asyncio.sleep(0.1)
        one.completes()
        await call.engine.say("Anything else?")
        await asyncio.sleep(9)
        one.answers("Anything else?", "r2", "i2")

        (turn,) = call.engine.metrics.turns
        assert (turn.first_text_ms, turn.first_audio_ms, turn.complete_ms) == (200, 300, 400)
        shown = call.engine.metrics.to_dict()
        assert shown["turns"][0]["trigger"] == "text"
        assert shown["sessions"][0]["provider"] == "one"


# -- formats ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ours", "theirs"), [(16_000, 24_000), (48_000, 16_000), (8000, 24_000)])
@virtual
async def test_both_directions_are_resampled_and_keep_their_duration(ours: int, theirs: int) -> None:
    formats = (AudioFormat(theirs),)
    cls = kind(capabilities=caps(input_formats=formats, output_formats=formats))
    async with calling(cls, input_format=ours, output_format=ours, turn_detection="manual") as call:
        await speak(call.engine, speech(503, ours), rate=ours, paced=True)
        await call.engine.end_turn()
        one = call.provider()
        one.starts()
        for _ in range(7):
            one.sounds(70, sample_rate=theirs)
        one.completes()

        assert one.config["input_format"] == one.config["output_format"] == AudioFormat(theirs)
        assert abs(len(one.audio) / 2 - 0.503 * theirs) <= 1
        assert abs(len(call.seen.audio()) / 2 - 0.490 * ours) <= 1
        chunk = call.seen.of(EventType.AUDIO_OUTPUT_CHUNK)[0]
        assert (chunk.sample_rate, chunk.channels) == (ours, 1)
        await asyncio.sleep(1)
        assert call.seen.one(EventType.AUDIO_OUTPUT_STOPPED).played_ms == 490


@virtual
async def test_stereo_input_is_mixed_for_a_provider_that_takes_mono() -> None:
    async with calling(input_format=AudioFormat(RATE, 2), turn_detection="client") as call:
        left = speech(400)
        both = b"".join(left[at : at + 2] * 2 for at in range(0, len(left), 2))
        for at in range(0, len(both), 1920):
            await call.engine.send_audio(both[at : at + 1920], sample_rate=RATE, channels=2)
        await asyncio.sleep(0)
        for _ in range(35):
            await call.engine.send_audio(bytes(1920))
            await asyncio.sleep(0.02)

        assert bytes(call.provider().audio[: len(left)]) == left
        assert call.provider().of("end_turn") == [True]


@virtual
async def test_odd_bytes_across_chunks_are_put_together() -> None:
    async with calling() as call:
        one, data = call.provider(), speech(50)
        one.starts()
        for at in range(0, len(data), 333):
            one.sounds(0, audio_data=data[at : at + 333])
        one.completes()

        assert call.seen.audio() == data
        assert all(len(event.audio_data) % 2 == 0 for event in call.seen.of(EventType.AUDIO_OUTPUT_CHUNK))
