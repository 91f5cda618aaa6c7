"""Moving a conversation from one provider to another."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.engine.fakes import (
    RATE,
    RECOGNISER,
    Call,
    Document,
    Puppet,
    at_rate,
    calling,
    caps,
    hang,
    kind,
    registry,
    silence,
    speak,
    speech,
    turns,
)
from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.audio.format import AudioFormat
from voxengine.audio.pcm import convert
from voxengine.capabilities import UNSUPPORTED
from voxengine.errors import (
    AuthenticationFailed,
    CapabilityMissing,
    ConfigError,
    ConnectionLost,
    NotConnected,
    ProviderError,
    ProviderNotFound,
)
from voxengine.events import EventType
from voxengine.notes import USE_RESULT
from voxengine.testing import leak_check, run_virtual, virtual


def texts(call: Call, name: str) -> list[Any]:
    """What a provider was told of the conversation before it."""
    return [(item.role, item.text) for items in call.provider(name).of("load_history") for item in items]


async def slowly(*_: Any) -> None:
    await asyncio.sleep(0.2)


@virtual
async def test_history_goes_over_and_the_session_is_replaced() -> None:
    async with calling(others={"two": kind()}) as call:
        handler_calls: list[Any] = []
        call.engine.events.on(EventType.TEXT_OUTPUT, handler_calls.append)
        engine = call.engine
        await engine.send_text("My name is Ada.")
        call.provider().answers("Hello Ada.")

        await engine.switch_provider("two")
        await engine.send_text("What is my name?")
        call.provider("two").answers("Ada.")

        assert texts(call, "two") == [("user", "My name is Ada."), ("agent", "Hello Ada.")]
        assert call.provider("two").of("send_text") == ["What is my name?"]
        assert [event.text for event in handler_calls] == ["Hello Ada.", "Ada."]
        assert engine.session is not None
        assert (engine.session.name, engine.session.epoch, engine.config.provider) == ("two", 2, "two")
        assert call.provider().of("disconnect") == [()]
    assert call.seen.session_endings() == {1: ["connection_closed"], 2: ["connection_closed"]}
    assert call.seen.of(EventType.CONNECTION_CLOSED)[0].reason == "switch"


@virtual
async def test_switch_is_told_with_what_it_did() -> None:
    async with calling(others={"two": kind(behaviour={"connect": slowly})}) as call:
        await call.engine.switch_provider("two")

        switching = call.seen.one(EventType.PROVIDER_SWITCHING)
        switched = call.seen.one(EventType.PROVIDER_SWITCHED)
        for event in (switching, switched):
            assert (event.from_provider, event.to_provider, event.reason) == ("one", "two", "requested")
        assert (switched.replayed_ms, switched.gap_ms, switched.context) == (0, 0, "full")
        assert (switched.provider, switched.session_epoch) == ("two", 2)


@virtual
async def test_context_that_the_next_cannot_take_is_said() -> None:
    deaf = kind(capabilities=caps(context_text=UNSUPPORTED))
    async with calling(others={"two": deaf}) as call:
        await call.engine.send_text("Hi")
        call.provider().answers()
        await call.engine.switch_provider("two")

        assert call.provider("two").of("load_history") == []
        assert call.seen.one(EventType.PROVIDER_SWITCHED).context.startswith("partial")


@given(
    st.integers(0, 60),
    st.integers(0, 40),
    st.integers(1, 60),
    st.sampled_from(["quick", "slow"]),
    st.sampled_from(["server", "client", "manual"]),
    st.booleans(),
)
def test_open_turn_is_heard_whole_by_the_session_that_answers_it(
    n_quiet: int, n_before: int, n_after: int, pace: str, turn_detection: str, is_known: bool
) -> None:
    """Promise: every sample of the turn once, in order, without a hole, wherever the switch falls."""

    async def play() -> None:
        one = kind(behaviour={"send_audio": slowly} if pace == "slow" else {})
        two = kind(behaviour={"connect": slowly, "send_audio": lambda *_: asyncio.sleep(0.001)})
        turn = speech((n_before + n_after) * 20)
        fallbacks = (VoiceEngineConfig(provider="two", turn_detection=turn_detection),)
        async with calling(
            one, others={"two": two}, turn_detection=turn_detection, fallbacks=fallbacks
        ) as call:
            await speak(call.engine, silence(n_quiet * 20), paced=True)
            talking = asyncio.create_task(speak(call.engine, turn, paced=True))
            if is_known and turn_detection == "server":
                await asyncio.sleep(0.001)
                call.provider().hears(n_quiet * 20)
            await asyncio.sleep(max(n_before * 0.02 - 0.19, 0.001))
            await call.engine.switch_provider("two")
            await talking
            await call.engine.end_turn()
            heard = bytes(call.provider("two").audio)

        assert heard.count(turn) == 1
        before, _, after = heard.partition(turn)
        assert not any(before)
        assert not any(after)

    run_virtual(play())


@virtual
async def test_silence_is_not_sent_again() -> None:
    async with calling(others={"two": kind()}) as call:
        await speak(call.engine, silence(3000), paced=True)
        await call.engine.switch_provider("two")
        await speak(call.engine, speech(100), paced=True)

        assert call.seen.one(EventType.PROVIDER_SWITCHED).replayed_ms == 0
        assert bytes(call.provider("two").audio) == speech(100)


@virtual
async def test_answered_turn_is_not_sent_again() -> None:
    async with calling(others={"two": kind()}) as call:
        await speak(call.engine, speech(1000), paced=True)
        call.provider().hears(0, 1000)
        call.provider().answers("Fine.")
        await call.engine.switch_provider("two")
        await turns()

        assert bytes(call.provider("two").audio) == b""


@pytest.mark.parametrize("turn_detection", ["server", "client", "manual"])
@virtual
async def test_turn_that_ended_without_an_answer_is_asked_again_with_its_end(turn_detection: Any) -> None:
    fallbacks = (VoiceEngineConfig(provider="two", turn_detection=turn_detection),)
    async with calling(others={"two": kind()}, turn_detection=turn_detection, fallbacks=fallbacks) as call:
        await speak(call.engine, speech(400), paced=True)
        if turn_detection == "server":
            call.provider().hears(0, 400)
        else:
            await call.engine.end_turn()

        await call.engine.switch_provider("two")

        two = call.provider("two")
        assert bytes(two.audio[: len(speech(400))]) == speech(400)
        if turn_detection == "server":
            assert not any(two.audio[len(speech(400)) :])
            assert len(two.audio) >= len(speech(400)) + len(silence(500))
        else:
            assert two.of("end_turn") == [True]
        two.answers("Yes.")
        await call.engine.wait_idle(timeout_s=5)


@virtual
async def test_unlike_rates_wait_for_the_end_of_the_turn() -> None:
    async with calling(others={"two": kind(capabilities=at_rate(16_000))}) as call:
        await speak(call.engine, speech(300), paced=True)
        call.provider().hears(0)
        switching = asyncio.create_task(call.engine.switch_provider("two"))
        await speak(call.engine, speech(300, first=7200), paced=True)
        assert not switching.done()
        call.provider().hears(None, 600)
        await asyncio.sleep(1)
        assert not switching.done()

        call.provider().answers("Heard.")
        await switching
        await speak(call.engine, silence(100), paced=True)

        assert bytes(call.provider().audio) == speech(600)
        heard = bytes(call.provider("two").audio)
        assert not any(heard)
        assert abs(len(heard) / 32 - 100) <= 2  # The filter holds the last two milliseconds.
        assert call.engine.input_format == AudioFormat(RATE)


@virtual
async def test_turn_that_never_ends_goes_over_resampled_and_whole() -> None:
    async with calling(others={"two": kind(capabilities=at_rate(16_000))}, turn_detection="manual") as call:
        await speak(call.engine, speech(2000), paced=True)
        await call.engine.switch_provider("two", VoiceEngineConfig(provider="two", turn_detection="manual"))
        await call.engine.end_turn()

        expected = convert(speech(2000), AudioFormat(RATE), AudioFormat(16_000))
        assert bytes(call.provider("two").audio) == expected


@virtual
async def test_next_provider_is_asked_for_the_engines_rate_where_it_has_it() -> None:
    both = caps(
        input_formats=(AudioFormat(16_000), AudioFormat(RATE)),
        output_formats=(AudioFormat(16_000), AudioFormat(RATE)),
    )
    async with calling(others={"two": kind(capabilities=both)}) as call:
        await call.engine.switch_provider("two")
        await speak(call.engine, speech(100), paced=True)

        assert bytes(call.provider("two").audio) == speech(100)
        assert call.provider("two").config["input_format"] == AudioFormat(RATE)


@virtual
async def test_unanswered_text_is_asked_again_once() -> None:
    async with calling(others={"two": kind()}) as call:
        await call.engine.send_text("First?")
        call.provider().answers("First.", "r1", "i1")
        await call.engine.send_text("Second?")
        await call.engine.send_text("Third?")

        await call.engine.switch_provider("two")

        two = call.provider("two")
        assert texts(call, "two") == [("user", "First?"), ("agent", "First.")]
        assert two.of("send_text") == ["Second?", "Third?"]
        two.answers("Second.", "r1", "i1")
        two.answers("Third.", "r2", "i2")
        await call.engine.wait_idle(timeout_s=5)
        assert [item.text for item in call.engine.history if item.role == "agent"] == [
            "First.",
            "Second.",
            "Third.",
        ]
        assert len(call.seen.endings()) == 3


@virtual
async def test_request_that_was_interrupted_is_not_asked_again() -> None:
    async with calling(others={"two": kind()}) as call:
        await call.engine.send_text("Never mind")
        call.engine.interrupt()
        await call.engine.switch_provider("two")

        assert call.provider("two").of("send_text") == []


@virtual
async def test_open_tool_call_runs_once_and_its_result_goes_over() -> None:
    runs: list[str] = []
    engine = VoiceEngine(
        VoiceEngineConfig(provider="one"), registry=registry(one=(one := kind()), two=(two := kind()))
    )

    @engine.tool
    async def look_up(word: str) -> str:
        runs.append(word)
        await asyncio.sleep(2)
        return "a bird"

    await engine.connect()
    await engine.send_text("What is a robin?")
    one.made[0].starts()
    one.made[0].asks_for("look_up", "c1", "r1", word="robin")

    await engine.switch_provider("two")

    assert runs == ["robin"]
    items = two.made[0].of("load_history")[0]
    assert [str(item.kind) for item in items] == ["user_text", "tool_call", "tool_result"]
    assert "a bird" in items[2].text
    assert two.made[0].of("send_text") == [USE_RESULT]  # Asked again, it would call again.
    two.made[0].answers("A bird.")
    await engine.wait_idle(timeout_s=5)
    await engine.disconnect()


@virtual
async def test_answer_that_is_playing_ends_once_and_plays_on() -> None:
    async with calling(others={"two": kind()}) as call:
        one = call.provider()
        one.starts("r1")
        one.sounds(1000)
        await call.engine.switch_provider("two")
        one.sounds(500)
        call.provider("two").answers("Next.", "r1", "i1", ms=100)
        await asyncio.sleep(3)

        assert call.seen.one(EventType.RESPONSE_CANCELLED).reason == "switch"
        assert len(call.seen.audio()) == len(silence(1100))
        ids = {event.response_id for event in call.seen.of(EventType.RESPONSE_STARTED)}
        assert len(ids) == 2
        assert set(call.seen.endings().values()) == {1}
        assert [e.played_ms for e in call.seen.of(EventType.AUDIO_OUTPUT_STOPPED)] == [1000, 100]


@virtual
async def test_next_provider_is_told_that_its_answer_behind_the_playing_one_was_not_heard() -> None:
    async with calling(others={"two": kind()}) as call:
        one = call.provider()
        one.starts("r1")
        one.sounds(1000)
        await call.engine.switch_provider("two")
        two = call.provider("two")
        two.answers("Next.", "r9", "i9", ms=400)
        await asyncio.sleep(0.3)

        await call.engine.interrupt()

        (heard,) = two.of("interrupt")
        assert (heard.response_id, heard.item_id, heard.item_played_ms) == ("r9", "i9", 0)
        assert call.seen.one(EventType.INTERRUPTED).heard_ms == 300


WORDS = "one two three four five six seven eight nine ten"


@pytest.mark.parametrize(
    ("after_s", "said"),
    [
        (1.0, 'What was heard of it: "one two three four five". Nothing else'),
        (0.0, "Nothing of it was heard."),
    ],
)
@virtual
async def test_next_provider_is_told_what_was_heard_of_an_answer_before_its_time(
    after_s: float, said: str
) -> None:
    async with calling(others={"two": kind()}) as call:
        one = call.provider()
        one.answers(WORDS, ms=2000)
        await call.engine.switch_provider("two")
        two = call.provider("two")
        assert [item.text for item in two.of("load_history")[0]] == [WORDS]
        assert two.of("send_item") == []
        await asyncio.sleep(after_s)

        call.engine.interrupt()
        await call.engine.send_text("What now?")

        (note,) = two.of("send_item")
        assert note.role == "system"
        assert f'your reply "{WORDS}" was cut' in note.text
        assert said in note.text
        assert [hook for hook, *_ in two.calls if hook in ("send_item", "send_text")] == [
            "send_item",
            "send_text",
        ]
        assert note.id not in call.engine.history


@virtual
async def test_answer_that_the_application_rewrote_is_not_told_as_cut() -> None:
    async with calling(others={"two": kind()}) as call:
        call.provider().answers(WORDS)
        await call.engine.switch_provider("two")
        two = call.provider("two")
        (item,) = (held for held in call.engine.history if held.role == "agent")
        call.engine.history.edit(item.id, text="[redacted]")
        two.answers("Next.", "r2", "i2", ms=500)

        call.engine.interrupt()
        await turns()

        assert two.of("send_item") == []


@pytest.mark.parametrize("after_turns", [0, 1, 5, 40])
@virtual
async def test_setting_that_is_changed_during_a_switch_is_in_force_behind_it(after_turns: int) -> None:
    async def slow(*_: Any) -> None:
        await asyncio.sleep(0.2)

    two = kind(behaviour={"connect": slow, "load_history": slow})
    async with calling(kind(behaviour={"configure_session": slow}), others={"two": two}) as call:
        switching = asyncio.create_task(call.engine.switch_provider("two"))
        await turns(after_turns)

        await call.engine.configure_session(instructions="Be brief.")
        await switching

        assert call.engine.config.instructions == "Be brief."
        given = two.made[0].config.get("instructions")
        told = [values.get("instructions") for values in two.made[0].of("configure_session")]
        assert "Be brief." in (given, *told)


@virtual
async def test_tool_may_change_settings_while_a_switch_waits_for_it() -> None:
    async def settle() -> str:
        """Settle."""
        switching.append(asyncio.create_task(call.engine.switch_provider("two")))
        await asyncio.sleep(0.1)
        await call.engine.configure_session(instructions="Be brief.")
        return "done"

    switching: list[asyncio.Task[None]] = []
    async with calling(others={"two": kind()}, tools=(settle,)) as call:
        await call.engine.send_text("Hello")
        call.provider().starts()
        call.provider().asks_for("settle", "c1", "r1")
        await asyncio.sleep(1)

        assert switching[0].done()
        assert call.engine.config.provider == "two"


@virtual
async def test_provider_that_takes_no_items_is_not_told_and_the_application_is() -> None:
    two = kind(capabilities=caps(items=UNSUPPORTED))
    async with calling(others={"two": two}) as call:
        call.provider().answers(WORDS, ms=2000)
        await call.engine.switch_provider("two")

        call.engine.interrupt()
        await turns()

        assert call.seen.codes() == ["history_not_told"]
        assert call.provider("two").of("send_item") == []


@virtual
async def test_answer_that_was_played_to_its_end_needs_no_word() -> None:
    async with calling(others={"two": kind()}) as call:
        call.provider().answers(WORDS, ms=500)
        await call.engine.switch_provider("two")
        two = call.provider("two")
        await asyncio.sleep(1)
        two.answers("Next.", "r2", "i2", ms=500)

        call.engine.interrupt()
        await turns()

        assert two.of("send_item") == []


@pytest.mark.parametrize("hook", ["connect", "load_history"])
@virtual
async def test_next_that_fails_changes_nothing(hook: str) -> None:
    two = kind(behaviour={hook: AuthenticationFailed("the key was refused")})
    async with leak_check():
        async with calling(others={"two": two}, instructions="Be kind.") as call:
            await call.engine.send_text("Hello")
            call.provider().answers("Hi.")
            config, session = call.engine.config, call.engine.session
            with pytest.raises(AuthenticationFailed, match="refused") as caught:
                await call.engine.switch_provider("two")

            assert caught.value.provider == "two"
            assert (call.engine.config, call.engine.session) == (config, session)
            assert two.made[0].of("disconnect") == [()]
            await call.engine.send_text("Still there?")
            await speak(call.engine, speech(100), paced=True)
            call.provider().answers("Yes.", "r2", "i2")
            assert call.provider().of("send_text") == ["Hello", "Still there?"]
            assert bytes(call.provider().audio) == speech(100)
            assert (await call.engine.get_usage(), len(call.engine.metrics.sessions)) == (None, 1)
    assert call.seen.session_endings() == {1: ["connection_closed"]}
    assert call.seen.of(EventType.PROVIDER_SWITCHED) == []


@virtual
async def test_name_is_enough_to_go_back_to_a_configuration_of_before() -> None:
    second = VoiceEngineConfig(provider="two", api_key="key of two", metadata={"at": "there"})
    async with calling(others={"two": kind()}, api_key="key of one", metadata={"at": "home"}) as call:
        await call.engine.switch_provider("two", second)
        await call.engine.switch_provider("one")
        await call.engine.switch_provider("two")
        await call.engine.switch_provider("two")

        for name, place in (("one", "home"), ("two", "there")):
            for made in call.kinds[name].made:
                assert made.config["api_key"] == f"key of {name}"
                assert made.config["metadata"] == {"at": place}
        assert [len(call.kinds[name].made) for name in ("one", "two")] == [2, 3]


@virtual
async def test_switch_that_fails_is_over_visibly() -> None:
    error = AuthenticationFailed("refused", provider="two")

    async def refuse(*_: Any) -> None:
        raise error

    async with calling(others={"two": kind(behaviour={"connect": refuse})}) as call:
        with pytest.raises(AuthenticationFailed):
            await call.engine.switch_provider("two")

        failed = call.seen.one(EventType.CONNECTION_FAILED)
        assert (failed.provider, failed.will_retry) == ("two", False)
        assert isinstance(failed.error, AuthenticationFailed)
        types = call.seen.types()
        assert types.index("provider_switching") < types.index("connection_failed")


@virtual
async def test_switch_that_repairs_a_loss_establishes_the_connection_once() -> None:
    async with calling(others={"two": kind()}) as call:
        assert len(call.seen.of(EventType.CONNECTION_ESTABLISHED)) == 1
        call.provider().emit_event(EventType.CONNECTION_LOST, {"error": ConnectionLost("gone")})
        await turns()

        await call.engine.switch_provider("two")
        assert [event.provider for event in call.seen.of(EventType.CONNECTION_ESTABLISHED)] == ["one", "two"]
        await call.engine.switch_provider("one")

        assert len(call.seen.of(EventType.CONNECTION_ESTABLISHED)) == 2


@virtual
async def test_next_that_dies_before_it_takes_over_changes_nothing() -> None:
    class Brittle(Puppet):
        async def connect(self) -> None:
            asyncio.get_running_loop().call_later(0.1, setattr, self, "is_connected", False)

    async with calling(others={"two": kind(Brittle)}, turn_detection="manual") as call:
        await speak(call.engine, speech(100))
        engine = call.engine
        engine.tool  # noqa: B018 - the engine's own; nothing is registered
        engine._conversation.calls._open.add("call")  # What keeps the switch waiting.
        switching = asyncio.create_task(engine.switch_provider("two"))
        await asyncio.sleep(1)
        engine._conversation.calls._open.clear()
        engine._conversation.activity.touch()

        with pytest.raises(ConnectionLost, match="before it took over"):
            await switching
        assert engine.is_connected
        assert call.seen.of(EventType.CONNECTION_LOST) == []
        assert call.provider("two").of("disconnect") == [()]


@virtual
async def test_unknown_next_and_wrong_configuration_are_refused() -> None:
    async with calling() as call:
        with pytest.raises(ProviderNotFound):
            await call.engine.switch_provider("nowhere")
        with pytest.raises(ConfigError, match="configuration for 'two'"):
            await call.engine.switch_provider("one", VoiceEngineConfig(provider="two"))

        assert call.engine.is_connected


@virtual
async def test_after_a_failed_first_connect_switching_is_the_first_connect() -> None:
    engine = VoiceEngine(
        VoiceEngineConfig(
            provider="one",
            instructions="Be kind.",
            input_format=AudioFormat(16_000),
            playback="external",
        ),
        registry=registry(
            one=kind(behaviour={"connect": ProviderError("no")}),
            bad=kind(behaviour={"connect": OSError("no")}),
            two=(two := kind()),
        ),
    )
    try:
        await engine.connect()
    except ProviderError:
        with pytest.raises(ProviderError):
            await engine.switch_provider("bad")
        assert engine.config.provider == "one"
        await engine.switch_provider("two", VoiceEngineConfig(provider="two", voice="ada"))

    assert engine.is_connected
    assert engine.input_format == AudioFormat(16_000)
    assert engine.session is not None
    assert engine.session.settings["playback"] == "external"
    assert (two.made[0].config["voice"], two.made[0].config["instructions"]) == ("ada", "Be kind.")
    await engine.disconnect()


@virtual
async def test_after_a_loss_the_conversation_goes_on() -> None:
    async with calling(others={"two": kind()}) as call:
        await call.engine.send_text("Hello")
        call.provider().answers("Hi.")
        await speak(call.engine, speech(300), paced=True)
        call.provider().hears(0)
        call.provider().is_connected = False
        await asyncio.sleep(4)

        await call.engine.switch_provider("two")

        assert call.engine.is_connected
        assert texts(call, "two") == [("user", "Hello"), ("agent", "Hi.")]
        await speak(call.engine, speech(100, first=7200), paced=True)
        assert bytes(call.provider("two").audio) == speech(400)
        assert call.seen.one(EventType.PROVIDER_SWITCHED).gap_ms == 4000
    assert call.seen.session_endings() == {1: ["connection_lost"], 2: ["connection_closed"]}


@virtual
async def test_onset_of_speech_at_the_moment_of_loss_is_not_lost() -> None:
    async with calling(kind(behaviour={"send_audio": hang}), others={"two": kind()}) as call:
        await speak(call.engine, silence(200))
        await call.engine.send_audio(speech(40))
        call.provider().is_connected = False
        await call.engine.switch_provider("two")
        await speak(call.engine, speech(200, first=960), paced=True)

        heard = bytes(call.provider("two").audio)
        assert heard.endswith(speech(240))
        assert not any(heard[: -len(speech(240))])


@pytest.mark.parametrize("degrade", [False, True])
@virtual
async def test_class_without_dialogue_is_accepted_only_when_that_is_said(degrade: bool) -> None:
    async with calling(others={"two": kind(capabilities=RECOGNISER)}) as call:
        if degrade:
            await call.engine.switch_provider("two", degrade=True)
            assert call.engine.config.provider == "two"
            return
        with pytest.raises(CapabilityMissing, match="degrade=True") as caught:
            await call.engine.switch_provider("two")

        assert caught.value.capability == "dialogue"
        assert call.engine.config.provider == "one"
        assert call.provider("two").of("connect") == []


@virtual
async def test_concurrent_switches_happen_one_after_the_other() -> None:
    others = {"two": kind(behaviour={"connect": slowly}), "three": kind(behaviour={"connect": slowly})}
    async with leak_check():
        async with calling(others=others) as call:
            await asyncio.gather(call.engine.switch_provider("two"), call.engine.switch_provider("three"))

            moves = [(e.from_provider, e.to_provider) for e in call.seen.of(EventType.PROVIDER_SWITCHED)]
            assert moves == [("one", "two"), ("two", "three")]
            assert call.engine.config.provider == "three"
    assert set(map(tuple, call.seen.session_endings().values())) == {("connection_closed",)}
    assert len(call.seen.session_endings()) == 3


class Slow(Puppet):
    async def connect(self) -> None:
        await asyncio.sleep(0.05)
        self.start_task(hang(), name="reader")
        await asyncio.sleep(0.05)

    async def disconnect(self) -> None:
        await asyncio.sleep(0.05)
        await super().disconnect()

    async def load_history(self, items: Any) -> None:
        await asyncio.sleep(0.05)
        await super().load_history(items)


@virtual
async def test_switch_can_be_cancelled_at_every_step() -> None:
    outcomes = []
    for n_steps in range(20):
        async with leak_check():
            async with calling(kind(Slow), others={"two": kind(Slow)}) as call:
                await call.engine.send_text("Hello")
                call.provider().answers("Hi.")
                switching = asyncio.create_task(call.engine.switch_provider("two"))
                for _ in range(n_steps):
                    await asyncio.sleep(0.02)
                switching.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await switching
                name = call.engine.config.provider
                await call.engine.send_text("And now?")
                assert call.provider(name).of("send_text")[-1] == "And now?"
                outcomes.append(name)
                await asyncio.sleep(1)
                assert len(call.seen.of(EventType.CONNECTION_CLOSED)) == (name == "two")
        assert all(ends == ["connection_closed"] for ends in call.seen.session_endings().values())
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {"one", "two"}


@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.07, 0.12, 0.16])
@virtual
async def test_disconnect_during_a_switch_ends_everything(after_s: float) -> None:
    async with leak_check():
        async with calling(kind(Slow), others={"two": kind(Slow)}) as call:
            await call.engine.send_text("Hello")
            call.provider().answers("Hi.")
            switching = asyncio.create_task(call.engine.switch_provider("two"))
            await asyncio.sleep(after_s)

            await call.engine.disconnect()

            with contextlib.suppress(NotConnected):
                await switching
            assert not call.engine.is_connected
            for made in (*call.kinds["one"].made, *call.kinds["two"].made):
                assert made.of("disconnect") == [()]
    assert all(len(ends) == 1 for ends in call.seen.session_endings().values())


@virtual
async def test_conversation_goes_on_while_the_old_session_is_being_closed() -> None:
    one = kind(
        behaviour={"disconnect": lambda *_: asyncio.sleep(3), "get_usage": lambda *_: asyncio.sleep(1)}
    )
    async with calling(one, others={"two": kind()}) as call:
        switching = asyncio.create_task(call.engine.switch_provider("two"))
        await asyncio.sleep(0.5)
        await call.engine.send_text("Hello")
        await speak(call.engine, speech(100), paced=True)
        await asyncio.sleep(1)
        await speak(call.engine, speech(100), paced=True)

        assert not switching.done()
        assert call.provider("two").of("send_text") == ["Hello"]
        assert bytes(call.provider("two").audio) == speech(100) * 2
        await switching


@virtual
async def test_what_is_said_while_the_next_opens_reaches_it() -> None:
    async with calling(others={"two": kind(behaviour={"load_history": slowly})}) as call:
        await call.engine.send_text("First?")
        call.provider().answers("First.", "r1", "i1")
        switching = asyncio.create_task(call.engine.switch_provider("two"))
        await asyncio.sleep(0.1)
        await call.engine.send_text("Second?")
        call.provider().answers("Second.", "r2", "i2")
        await switching

        told = texts(call, "two") + [(item.role, item.text) for item in call.provider("two").of("send_item")]
        assert told == [("user", "First?"), ("agent", "First."), ("user", "Second?"), ("agent", "Second.")]
        assert call.provider("two").of("send_text") == []


@virtual
async def test_nothing_of_one_providers_own_crosses_to_the_next() -> None:
    secret: dict[str, Any] = {
        "api_key": "sk-secret-1",
        "voice": "nova",
        "model": "m-1",
        "metadata": {"endpoint": "wss://one.example/?t=1", "token": "tok-1", "region": "north"},
    }
    async with calling(
        others={"two": kind()}, **secret, instructions="Be kind.", language="de-DE", temperature=0.5
    ) as call:
        await call.engine.send_text("Hello")
        call.provider().answers("Hi.")
        await call.engine.switch_provider("two")

        given = call.provider("two").config
        assert (given["api_key"], given["metadata"]) == (None, {})
        assert {"voice", "model", "temperature"} & set(given) == set()
        assert (given["instructions"], given["language"]) == ("Be kind.", "de-DE")
        assert (call.engine.config.api_key, call.engine.config.voice) == (None, None)


@virtual
async def test_next_provider_is_told_that_the_users_voice_stops_nothing() -> None:
    async with calling(others={"two": kind(options=frozenset({"interruption"}))}, interruption="off") as call:
        await call.engine.switch_provider("two")

        assert call.provider("two").config["interruption"] == "off"


@virtual
async def test_configuration_of_the_fallback_is_taken_by_name() -> None:
    fallback = VoiceEngineConfig(provider="two", api_key="k2", voice="ada", instructions="Be brief.")
    async with calling(others={"two": kind()}, fallbacks=(fallback,), instructions="Be kind.") as call:
        await call.engine.switch_provider("two")

        given = call.provider("two").config
        assert (given["api_key"], given["voice"], given["instructions"]) == ("k2", "ada", "Be brief.")
        assert call.engine.config.fallbacks == (fallback,)


@virtual
async def test_failed_repetition_is_an_event_and_the_next_stays_in_force() -> None:
    async with calling(others={"two": kind(behaviour={"send_text": RuntimeError("no")})}) as call:
        await call.engine.send_text("Hello?")
        await call.engine.switch_provider("two")

        assert call.engine.config.provider == "two"
        assert len(call.seen.of(EventType.ERROR_GENERAL)) == 1
        assert call.provider().of("disconnect") == [()]


@virtual
async def test_to_the_guides_provider_and_back() -> None:
    async with calling(others={"plain": kind(Document)}) as call:
        await call.engine.send_text("One")
        call.provider().answers("1", "r1", "i1")
        await call.engine.switch_provider("plain")
        await call.engine.send_text("Two")
        call.provider("plain").writes("2")
        await asyncio.sleep(1)
        await call.engine.switch_provider("one")

        assert texts(call, "one") == [("user", "One"), ("agent", "1"), ("user", "Two"), ("agent", "2")]
        contexts = [event.context for event in call.seen.of(EventType.PROVIDER_SWITCHED)]
        assert contexts[0].startswith("partial")
        assert contexts[1] == "full"
        assert set(call.seen.endings().values()) == {1}


@virtual
async def test_speech_that_one_session_heard_begin_is_ended_by_the_clients_ear_of_the_next() -> None:
    fallbacks = (VoiceEngineConfig(provider="two", turn_detection="client"),)
    async with calling(others={"two": kind()}, fallbacks=fallbacks) as call:
        await speak(call.engine, speech(400), paced=True)
        call.provider().hears(0)
        await speak(call.engine, silence(400), paced=True)
        await call.engine.switch_provider("two")
        await speak(call.engine, silence(400), paced=True)

        assert len(call.seen.of(EventType.SPEECH_STARTED)) == 1
        assert len(call.seen.of(EventType.SPEECH_ENDED)) == 1
        assert call.provider("two").of("end_turn") == [True]


@virtual
async def test_words_of_the_old_session_about_the_open_turn_are_not_taken() -> None:
    async with calling(others={"two": kind()}) as call:
        one = call.provider()
        await speak(call.engine, speech(400), paced=True)
        one.hears(0, item_id="u1")
        moved = asyncio.Event()
        call.engine.events.on(EventType.PROVIDER_SWITCHED, lambda event: moved.set())
        switching = asyncio.create_task(call.engine.switch_provider("two"))
        await moved.wait()
        one.emit_event(EventType.INPUT_TRANSCRIPT, {"text": "stale", "is_partial": False, "item_id": "u1"})
        one.emit_event(EventType.INPUT_TRANSCRIPT, {"text": "unknown", "is_partial": False, "item_id": "u7"})
        two = call.provider("two")
        two.hears(0, 400, item_id="u1")
        two.emit_event(EventType.INPUT_TRANSCRIPT, {"text": "fresh", "is_partial": False, "item_id": "u1"})
        await switching

        assert [item.text for item in call.engine.history if item.role == "user"] == ["fresh"]


@virtual
async def test_old_session_gets_no_more_audio_once_the_next_has_the_input() -> None:
    slow = kind(behaviour={"send_audio": slowly, "get_usage": lambda *_: asyncio.sleep(2)})
    async with calling(slow, others={"two": kind()}) as call:
        await speak(call.engine, speech(400), paced=True)
        moved: list[int] = []
        one = call.provider()
        call.engine.events.on(
            EventType.PROVIDER_SWITCHED, lambda event: moved.append(len(one.of("send_audio")))
        )
        await call.engine.switch_provider("two")
        await asyncio.sleep(5)

        assert moved == [len(one.of("send_audio"))]
        assert bytes(call.provider("two").audio) == speech(400)
