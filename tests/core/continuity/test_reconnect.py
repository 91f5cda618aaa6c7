"""A lost session is replaced: when, by which provider, and what the application sees of it."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from tests.core.engine.fakes import (
    RATE,
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
from voxengine import VoiceEngineConfig
from voxengine.capabilities import FULL, UNSUPPORTED
from voxengine.errors import (
    AuthenticationFailed,
    ConnectionLost,
    ErrorCode,
    JournalFull,
    ProviderError,
    RateLimited,
)
from voxengine.events import EventType
from voxengine.notes import CONTINUE, RESTART, USE_RESULT
from voxengine.testing import leak_check, virtual

BUDGET = {"budget_s": 20}
GONE = ConnectionLost("gone", close_code=1006)


def lose(provider: Puppet, error: Exception = GONE) -> None:
    provider.emit_event(EventType.CONNECTION_LOST, {"error": error})


def failing(*errors: Any, then: Any = None) -> Any:
    """What connect does: the first instance succeeds, the next ones fail with these, then ``then``."""
    planned: list[Any] = [None, *errors]

    async def connect(*_: Any) -> None:
        what: Any = planned.pop(0) if planned else then
        if callable(what):
            await what()
        elif what is not None:
            raise what

    return connect


def connection_events(call: Any) -> list[str]:
    return [kind for kind in call.seen.types() if kind.startswith(("connection_", "provider_"))]


@virtual
async def test_lost_session_is_replaced_by_one_of_the_same_provider() -> None:
    async with leak_check():
        async with calling(reconnect=BUDGET) as call:
            await call.engine.send_text("My name is Ada.")
            call.provider().answers("Hello Ada.")
            lose(call.provider())
            assert call.seen.one(EventType.CONNECTION_LOST).will_reconnect is True
            was_connected = call.engine.is_connected
            await turns()

            assert (was_connected, call.engine.is_connected) == (False, True)
            assert len(call.kinds["one"].made) == 2
            assert call.kinds["one"].made[0].of("disconnect") == [()]
            loaded = [item.text for item in call.provider().of("load_history")[0]]
            assert loaded == ["My name is Ada.", "Hello Ada."]
            switched = call.seen.one(EventType.PROVIDER_SWITCHED)
            assert (switched.from_provider, switched.to_provider) == ("one", "one")
            assert (switched.reason, switched.gap_ms, switched.context) == ("reconnect", 0, "full")
            assert connection_events(call) == [
                "connection_starting",
                "connection_established",
                "connection_lost",
                "provider_switching",
                "connection_starting",
                "connection_established",
                "provider_switched",
            ]
            assert call.engine.session is not None
            assert call.engine.session.epoch == 2
    assert call.seen.session_endings() == {1: ["connection_lost"], 2: ["connection_closed"]}


@virtual
async def test_attempts_go_on_with_growing_pauses_and_each_is_told() -> None:
    refused = ProviderError("no", code=ErrorCode.UNAVAILABLE)
    one = kind(behaviour={"connect": failing(refused, refused, refused)})
    async with calling(one, reconnect=BUDGET) as call:
        lose(call.provider())
        await asyncio.sleep(10)

        assert call.engine.is_connected
        starts = call.seen.of(EventType.CONNECTION_STARTING)[1:]
        assert [event.attempt for event in starts] == [1, 2, 3, 4]
        assert [event.will_retry for event in call.seen.of(EventType.CONNECTION_FAILED)] == [True] * 3
        pauses = [b.timestamp - a.timestamp for a, b in itertools.pairwise(starts)]
        assert pauses == sorted(pauses)
        assert 0.2 < pauses[0] < 0.6
        assert call.seen.one(EventType.PROVIDER_SWITCHED).gap_ms == round(1000 * sum(pauses))


@virtual
async def test_hope_is_given_up_within_the_budget_and_nothing_is_lost() -> None:
    refused = ProviderError("no", code=ErrorCode.UNAVAILABLE)
    one = kind(behaviour={"connect": failing(then=refused)})
    async with leak_check():
        async with calling(one, reconnect={"budget_s": 5}, others={"two": kind()}) as call:
            await speak(call.engine, speech(300), paced=True)
            call.provider().hears(0)
            lose(call.provider())
            lost_at = asyncio.get_running_loop().time()
            await speak(call.engine, speech(200, first=7200))
            await call.engine.send_text("Are you there?")
            await asyncio.sleep(30)

            failures = call.seen.of(EventType.CONNECTION_FAILED)
            assert [event.will_retry for event in failures] == [True] * (len(failures) - 1) + [False]
            assert failures[-1].timestamp - lost_at <= 5
            with pytest.raises(ConnectionLost, match="switch_provider continues") as caught:
                await call.engine.send_audio(speech(20))
            assert caught.value.n_unanswered == 500 * RATE // 1000
            await call.engine.switch_provider("two")
            assert bytes(call.provider("two").audio)[: len(speech(500))] == speech(500)
            assert call.provider("two").of("send_text") == ["Are you there?"]


@virtual
async def test_what_cannot_be_tried_again_is_not() -> None:
    async with calling(reconnect=BUDGET) as call:
        lose(call.provider(), AuthenticationFailed("no", provider="one"))
        await asyncio.sleep(1)

        assert call.seen.one(EventType.CONNECTION_LOST).will_reconnect is False
        assert len(call.kinds["one"].made) == 1


@virtual
async def test_refusal_in_mid_recovery_ends_it() -> None:
    one = kind(behaviour={"connect": failing(AuthenticationFailed("no"))})
    async with calling(one, reconnect=BUDGET) as call:
        lose(call.provider())
        await asyncio.sleep(30)

        assert call.seen.one(EventType.CONNECTION_FAILED).will_retry is False
        with pytest.raises(ConnectionLost):
            await call.engine.send_text("Hello?")


@virtual
async def test_time_that_the_service_asks_for_is_waited() -> None:
    one = kind(behaviour={"connect": failing(RateLimited("slow down", retry_after_s=7))})
    async with calling(one, reconnect=BUDGET) as call:
        lose(call.provider())
        await asyncio.sleep(6.9)
        assert len(call.kinds["one"].made) == 2
        await asyncio.sleep(0.2)

        assert call.engine.is_connected


@virtual
async def test_time_beyond_the_budget_is_not_waited() -> None:
    one = kind(behaviour={"connect": failing(RateLimited("slow down", retry_after_s=60))})
    async with calling(one, reconnect=BUDGET) as call:
        lose(call.provider())
        await turns()

        assert call.seen.one(EventType.CONNECTION_FAILED).will_retry is False


@virtual
async def test_attempt_that_hangs_ends_with_the_budget() -> None:
    one = kind(behaviour={"connect": failing(then=hang)})
    async with leak_check():
        async with calling(one, reconnect={"budget_s": 4}) as call:
            lose(call.provider())
            await asyncio.sleep(5)

            failed = call.seen.one(EventType.CONNECTION_FAILED)
            assert failed.error.code == ErrorCode.TIMEOUT
            assert not failed.will_retry


@virtual
async def test_fallback_is_tried_at_once_when_the_provider_stays_away() -> None:
    refused = ProviderError("no", code=ErrorCode.UNAVAILABLE)
    one = kind(behaviour={"connect": failing(then=refused)})
    fallback = VoiceEngineConfig(provider="two")
    async with calling(one, reconnect=BUDGET, others={"two": kind()}, fallbacks=[fallback]) as call:
        engine = call.engine
        await engine.send_text("Hello")
        lose(call.provider())
        await turns()

        assert engine.config.provider == "two"
        assert engine.config.fallbacks == (fallback,)
        assert call.provider("two").of("send_text") == ["Hello"]
        reasons = [event.reason for event in call.seen.of(EventType.PROVIDER_SWITCHING)]
        assert reasons == ["reconnect", "failover"]
        switched = call.seen.one(EventType.PROVIDER_SWITCHED)
        assert (switched.from_provider, switched.to_provider, switched.reason) == ("one", "two", "failover")


@virtual
async def test_provider_that_refuses_for_good_is_left_for_the_fallback_at_once() -> None:
    fallback = VoiceEngineConfig(provider="two")
    async with calling(reconnect=BUDGET, others={"two": kind()}, fallbacks=[fallback]) as call:
        lose(call.provider(), ProviderError("spent", code=ErrorCode.QUOTA))
        await turns()

        assert call.seen.one(EventType.CONNECTION_LOST).will_reconnect is True
        assert call.engine.config.provider == "two"
        assert len(call.kinds["one"].made) == 1


@virtual
async def test_first_provider_is_probed_again_when_the_fallback_fails() -> None:
    refused = ProviderError("no", code=ErrorCode.UNAVAILABLE)
    one = kind(behaviour={"connect": failing(refused)})
    two = kind(behaviour={"connect": failing(then=refused)})
    fallback = VoiceEngineConfig(provider="two")
    async with calling(one, reconnect=BUDGET, others={"two": two}, fallbacks=[fallback]) as call:
        lose(call.provider())
        await turns()
        assert call.engine.config.provider == "two"
        await asyncio.sleep(60)
        lose(call.provider("two"))
        await turns()

        assert call.engine.config.provider == "one"
        assert call.engine.is_connected


@virtual
async def test_fallback_without_dialogue_is_passed_over() -> None:
    deaf = kind(capabilities=caps(dialogue=UNSUPPORTED))
    fallbacks = [VoiceEngineConfig(provider="two"), VoiceEngineConfig(provider="three")]
    others = {"two": deaf, "three": kind()}
    async with calling(reconnect=BUDGET, others=others, fallbacks=fallbacks) as call:
        lose(call.provider(), ProviderError("spent", code=ErrorCode.QUOTA))
        await turns()

        assert call.engine.config.provider == "three"
        assert deaf.made[0].of("connect") == []


@pytest.mark.parametrize(
    "moment", [EventType.PROVIDER_SWITCHING, EventType.CONNECTION_ESTABLISHED, EventType.PROVIDER_SWITCHED]
)
@virtual
async def test_text_that_is_said_at_any_moment_of_the_repair_is_asked_once(moment: EventType) -> None:
    async with calling(reconnect=BUDGET) as call:
        engine, tasks = call.engine, list[asyncio.Task[None]]()

        def go_on(_: object) -> None:
            tasks.append(asyncio.create_task(engine.send_text("We were cut off.")))

        engine.events.on(moment, go_on)
        await engine.send_text("Hello")
        lose(call.provider())
        await turns(60)
        await asyncio.gather(*tasks)

        assert len(tasks) == 1
        assert call.provider().of("send_text") == ["Hello", "We were cut off."]


@pytest.mark.parametrize("pause_s", [0.0, 0.3])
@virtual
async def test_recorded_turns_that_wait_are_given_again_whole(pause_s: float) -> None:
    first, second = speech(1200), speech(1200, first=7)
    async with calling(reconnect=BUDGET) as call:
        await call.engine.send_recorded_audio(first)
        call.provider().hears(0, 1200)
        await call.engine.send_recorded_audio(second)
        await asyncio.sleep(pause_s)
        lose(call.provider())
        await asyncio.sleep(5)

        heard = bytes(call.provider().audio)
        assert (heard.count(first), heard.count(second)) == (1, 1)
        assert heard.endswith(silence(600))


@virtual
async def test_loss_in_the_moment_in_which_an_item_ends_playing_is_a_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with calling(reconnect=BUDGET) as call:
        one, agent = call.provider(), call.engine._conversation.agent
        for n in range(3):
            one.answers("Yes.", f"r{n}", f"i{n}", ms=200)
        one.starts("open")
        one.sounds(100, "open", "i")
        forget, depth = agent._forget, list[int]()

        def forgetting() -> None:
            depth.append(1)
            forget()

        def played_ms(_: str) -> int:
            if len(depth) == 1:
                depth.append(2)
                forget()  # The clock's report of an end comes from within the question.
            return 200

        monkeypatch.setattr(agent, "_forget", forgetting)
        monkeypatch.setattr(agent.clock, "played_ms", played_ms)
        lose(one)
        await turns(60)

        assert call.seen.one(EventType.CONNECTION_LOST).will_reconnect is True
        assert call.engine.is_connected
        assert call.seen.of(EventType.ERROR_GENERAL) == []


@virtual
async def test_audio_of_the_gap_follows_without_a_hole() -> None:
    refused = ProviderError("no", code=ErrorCode.UNAVAILABLE)
    one = kind(behaviour={"connect": failing(refused, refused)})
    async with calling(one, reconnect=BUDGET) as call:
        talking = asyncio.create_task(speak(call.engine, speech(3000), paced=True))
        await asyncio.sleep(1)
        call.provider().hears(0)
        lose(call.provider())
        await talking

        assert call.engine.is_connected
        assert bytes(call.provider().audio) == speech(3000)


@virtual
async def test_journal_bounds_what_the_gap_takes_and_says_so() -> None:
    one = kind(behaviour={"connect": failing(then=hang)})
    async with calling(one, reconnect=BUDGET, journal_s=2) as call:
        lose(call.provider())
        with pytest.raises(JournalFull):
            await speak(call.engine, speech(3000))

        assert call.engine._conversation.user.n_unanswered == 2 * RATE


@virtual
async def test_turn_that_ends_in_the_gap_is_answered_after_it() -> None:
    refused = ProviderError("no", code=ErrorCode.UNAVAILABLE)
    one = kind(behaviour={"connect": failing(refused, refused, refused)})
    async with calling(one, reconnect=BUDGET, turn_detection="manual") as call:
        await speak(call.engine, speech(300), paced=True)
        lose(call.provider())
        await speak(call.engine, speech(300, first=7200))
        await call.engine.end_turn()
        await speak(call.engine, speech(100, first=14_400))
        await asyncio.sleep(10)

        provider = call.provider()
        assert bytes(provider.audio) == speech(700)
        hooks = [hook for hook, _ in provider.calls]
        sent = [len(args) for hook, args in provider.calls if hook == "send_audio"]
        before = sum(sent[: hooks[: hooks.index("end_turn")].count("send_audio")])
        assert before == len(speech(600))
        assert provider.of("end_turn") == [True]


BY_HAND = caps(client_turn_detection=FULL, live_configuration=FULL)


@virtual
async def test_pause_in_the_gap_ends_the_turn_for_a_vendor_that_could_not_hear_it() -> None:
    refused = ProviderError("no", code=ErrorCode.UNAVAILABLE)
    one = kind(behaviour={"connect": failing(refused, refused, refused, refused)}, capabilities=BY_HAND)
    async with calling(one, reconnect=BUDGET) as call:
        await speak(call.engine, speech(300), paced=True)
        call.provider().hears(0)
        lose(call.provider())
        await speak(call.engine, silence(800), paced=True)
        assert len(call.seen.of(EventType.SPEECH_ENDED)) == 1
        await speak(call.engine, speech(200, first=7200), paced=True)
        await asyncio.sleep(10)

        provider = call.provider()
        settings = [c["turn_detection"].kind for c in provider.of("configure_session")]
        assert settings == ["manual", "server"]
        assert provider.of("end_turn") == [True]
        order = [hook for hook, _ in provider.calls if hook in ("configure_session", "end_turn")]
        assert order == ["configure_session", "end_turn", "configure_session"]
        assert bytes(provider.audio) == speech(300) + silence(800) + speech(200, first=7200)


@virtual
async def test_two_turns_that_wait_are_given_again_and_one_answer_is_asked_for() -> None:
    async with calling(kind(capabilities=BY_HAND), reconnect=BUDGET) as call:
        await speak(call.engine, speech(300) + silence(700), paced=True)
        call.provider().hears(0, 300)
        await speak(call.engine, speech(300, first=7200) + silence(700), paced=True)
        call.provider().hears(1000, 1300)
        lose(call.provider())
        await turns(60)

        provider = call.provider()
        whole = speech(300) + silence(700) + speech(300, first=7200) + silence(700)
        assert bytes(provider.audio).startswith(whole[: len(speech(1300))])
        assert whole.startswith(bytes(provider.audio))
        assert provider.of("end_turn") == [True]


@pytest.mark.parametrize(("policy", "note"), [("continue", CONTINUE), ("restart", RESTART), ("leave", None)])
@virtual
async def test_answer_that_was_cut_goes_on_by_policy(policy: str, note: str | None) -> None:
    async with calling(reconnect={**BUDGET, "cut_reply": policy}) as call:
        await call.engine.send_text("Tell me")
        call.provider().starts()
        call.provider().writes("Once upon a time")
        call.provider().sounds(1000)
        lose(call.provider())
        await turns()

        provider = call.provider()
        loaded = [item.text for item in provider.of("load_history")[0]]
        assert loaded == ["Tell me", *(["Once upon a time"] if policy != "restart" else [])]
        assert provider.of("send_text") == ([note] if note else [])
        assert [item.text for item in call.engine.history] == ["Tell me", "Once upon a time"]
    assert set(call.seen.endings().values()) == {1}


@pytest.mark.parametrize("policy", ["continue", "restart", "leave"])
@virtual
async def test_answer_of_which_nothing_was_heard_is_given_again(policy: str) -> None:
    async with calling(reconnect={**BUDGET, "cut_reply": policy}) as call:
        await call.engine.send_text("Tell me")
        call.provider().starts()
        call.provider().writes("Once upon a time")
        lose(call.provider())
        await turns()

        assert [item.text for item in call.provider().of("load_history")[0]] == ["Tell me"]
        assert call.provider().of("send_text") == [RESTART]


@virtual
async def test_answer_that_is_text_alone_goes_on_where_its_text_stops() -> None:
    async with calling(reconnect=BUDGET, modalities=("text",)) as call:
        await call.engine.send_text("Tell me")
        call.provider().starts()
        call.provider().writes("Once upon a time")
        lose(call.provider())
        await turns()

        assert [item.text for item in call.provider().of("load_history")[0]] == [
            "Tell me",
            "Once upon a time",
        ]
        assert call.provider().of("send_text") == [CONTINUE]


@virtual
async def test_words_whose_sound_never_came_are_not_told_as_said() -> None:
    async with calling(reconnect={**BUDGET, "cut_reply": "leave"}) as call:
        await call.engine.send_text("Tell me")
        one = call.provider()
        one.starts()
        one.writes("one two three four five six seven eight nine ten")
        one.sounds(1000)
        lose(one)
        await turns()

        (_, said) = call.provider().of("load_history")[0]
        assert said.context_text
        assert "one two three four five six seven eight nine ten".startswith(said.context_text)
        assert "ten" not in said.context_text


@virtual
async def test_cut_answer_is_dropped_when_the_user_says_something_else() -> None:
    refused = ProviderError("no", code=ErrorCode.UNAVAILABLE)
    one = kind(behaviour={"connect": failing(refused)})
    async with calling(one, reconnect=BUDGET) as call:
        await call.engine.send_text("Tell me")
        call.provider().starts()
        call.provider().writes("Once")
        lose(call.provider())
        await call.engine.send_text("Something else")
        await asyncio.sleep(2)

        assert call.provider().of("send_text") == ["Something else"]


@virtual
async def test_tool_runs_once_and_its_result_is_used_by_the_next_session() -> None:
    runs: list[str] = []

    async def look_up(word: str) -> str:
        runs.append(word)
        await asyncio.sleep(2)
        return "a bird"

    async with calling(reconnect=BUDGET, tools=[look_up]) as call:
        await call.engine.send_text("What is a robin?")
        one = call.provider()
        one.starts()
        one.writes("Let me look.")
        one.asks_for("look_up", word="robin")
        one.completes()
        lose(one)
        await asyncio.sleep(3)

        assert runs == ["robin"]
        provider = call.provider()
        kinds = [str(item.kind) for item in provider.of("load_history")[0]]
        assert kinds == ["user_text", "agent", "tool_call", "tool_result"]
        assert provider.of("send_text") == [USE_RESULT]
        assert provider.of("send_tool_result") == []


class Resuming(Puppet):
    async def resume(self, handle: str) -> None:
        await self._do("resume", handle)

    async def discard_input(self) -> None:
        await self._do("discard_input")


@virtual
async def test_session_is_taken_up_again_by_its_handle() -> None:
    one = kind(Resuming, capabilities=caps(resume=FULL, discard_input=FULL))
    async with calling(one, reconnect=BUDGET) as call:
        await call.engine.send_text("Hello")
        call.provider().answers("Hi.")
        call.provider().emit_event(EventType.SESSION_UPDATED, {"settings": {"resume_handle": "h-7"}})
        lose(call.provider())
        await turns()

        provider = call.provider()
        assert provider.of("resume") == ["h-7"]
        assert provider.of("discard_input") == [()]
        assert provider.of("load_history") == []
        assert call.seen.one(EventType.PROVIDER_SWITCHED).data["resumed"] is True


@virtual
async def test_handle_that_is_refused_means_that_the_history_is_told() -> None:
    one = kind(Resuming, capabilities=caps(resume=FULL))
    one.behaviour["resume"] = ProviderError("too old", code=ErrorCode.NOT_FOUND)
    async with calling(one, reconnect=BUDGET) as call:
        await call.engine.send_text("Hello")
        call.provider().answers("Hi.")
        lose(call.provider())
        await turns()

        assert [item.text for item in call.provider().of("load_history")[0]] == ["Hello", "Hi."]


@virtual
async def test_calls_that_need_the_service_wait_for_the_next_session() -> None:
    refused = ProviderError("no", code=ErrorCode.UNAVAILABLE)
    one = kind(
        behaviour={"connect": failing(refused)}, capabilities=caps(speak=FULL, live_configuration=FULL)
    )
    async with calling(one, reconnect=BUDGET) as call:
        lose(call.provider())
        await asyncio.gather(
            call.engine.say("Hello"), call.engine.configure_session(instructions="Be brief.")
        )

        assert call.provider().of("speak") == ["Hello"]
        assert call.provider().of("configure_session") == [{"instructions": "Be brief."}]


@virtual
async def test_switch_in_the_gap_wins_over_the_attempts() -> None:
    one = kind(behaviour={"connect": failing(then=hang)})
    async with leak_check():
        async with calling(one, reconnect=BUDGET, others={"two": kind()}) as call:
            lose(call.provider())
            await asyncio.sleep(1)
            await call.engine.switch_provider("two")
            await asyncio.sleep(30)

            assert call.engine.config.provider == "two"
            assert call.engine.is_connected
            assert len(call.kinds["two"].made) == 1


@virtual
async def test_switch_that_fails_in_the_gap_leaves_the_attempts_going() -> None:
    refused = ProviderError("no", code=ErrorCode.UNAVAILABLE)
    one = kind(behaviour={"connect": failing(refused, refused)})
    two = kind(behaviour={"connect": refused})
    async with calling(one, reconnect=BUDGET, others={"two": two}) as call:
        lose(call.provider())
        await turns()
        with pytest.raises(ProviderError, match="no"):
            await call.engine.switch_provider("two")
        await asyncio.sleep(10)

        assert call.engine.is_connected
        assert call.engine.config.provider == "one"


@virtual
async def test_disconnect_in_the_gap_leaves_nothing_behind() -> None:
    one = kind(behaviour={"connect": failing(then=hang)})
    async with leak_check():
        async with calling(one, reconnect=BUDGET) as call:
            lose(call.provider())
            await asyncio.sleep(1)
    assert call.seen.session_endings() == {1: ["connection_lost"]}
    assert [len(provider.of("disconnect")) for provider in call.kinds["one"].made] == [1, 1]


@virtual
async def test_service_that_takes_sessions_and_drops_them_uses_up_the_budget() -> None:
    class Brittle(Puppet):
        async def send_text(self, text: str) -> None:
            await super().send_text(text)
            lose(self)

    async with calling(kind(Brittle), reconnect={"budget_s": 5}) as call:
        await call.engine.send_text("Hello")
        await asyncio.sleep(30)

        assert call.seen.of(EventType.CONNECTION_LOST)[-1].will_reconnect is False
        assert len(call.kinds["one"].made) < 12
        endings = call.seen.session_endings()
        assert set(map(len, endings.values())) == {1}


@virtual
async def test_loss_that_a_call_finds_first_is_no_error_of_that_call() -> None:
    class Brittle(Puppet):
        async def send_text(self, text: str) -> None:
            await super().send_text(text)
            if len(self.made) == 1:
                raise ConnectionLost("gone")

    async with calling(kind(Brittle), reconnect=BUDGET) as call:
        await call.engine.send_text("Hello")
        await turns()

        assert call.provider().of("send_text") == ["Hello"]
        assert [item.text for item in call.engine.history] == ["Hello"]


@virtual
async def test_session_that_is_replaced_while_it_is_given_the_turns_asks_for_nothing_more() -> None:
    one = kind(capabilities=BY_HAND.evolve(replay_speed=1.0))
    async with calling(one, reconnect=BUDGET, others={"two": kind(capabilities=BY_HAND)}) as call:
        await speak(call.engine, speech(2000), paced=True)
        call.provider().hears(0, 2000)
        lose(call.provider())
        await asyncio.sleep(0.5)
        await call.engine.switch_provider("two")
        call.provider("two").answers("Heard.")

        assert call.provider().of("end_turn") == []
        assert call.provider("two").of("end_turn") == [True]
        assert bytes(call.provider("two").audio) == speech(2000)
        await call.engine.wait_idle(timeout_s=5)


@virtual
async def test_end_of_a_turn_that_finds_the_loss_is_kept_for_the_next_session() -> None:
    lost: list[object] = []

    async def breaks(provider: Puppet, data: bytes) -> None:
        if not any(data) and not lost:  # The silence that ends the turn.
            lost.append(provider)
            raise GONE

    one = kind(behaviour={"send_audio": breaks})
    async with calling(one, reconnect=BUDGET) as call:
        await call.engine.send_audio(speech(600))

        await call.engine.end_turn()

        await asyncio.sleep(1)
        assert lost == [one.made[0]]
        assert call.seen.one(EventType.CONNECTION_LOST).will_reconnect is True
        assert speech(600) in bytes(one.made[1].audio)
        assert call.engine.is_connected
        assert not call.engine.session.sender.is_behind  # type: ignore[union-attr]
        one.made[1].answers("Yes.")
        await call.engine.wait_idle()


@virtual
async def test_turns_that_a_new_session_hears_again_keep_their_items() -> None:
    async with calling(reconnect=BUDGET) as call:
        await speak(call.engine, speech(1000) + silence(200) + speech(1000) + silence(200))
        first = call.provider()
        first.hears(0, 1000, "a")
        first.hears(1200, 2200, "b")
        lose(first)
        await turns()
        second = call.provider()
        for name, start, words in (("c", 0, "Good morning."), ("d", 1200, "It is late.")):
            second.hears(start, start + 1000, name)
            data = {"item_id": name, "text": words, "is_partial": False}
            second.emit_event(EventType.INPUT_TRANSCRIPT, data)
        said = [item.text for item in call.engine.history]

    assert said == ["Good morning.", "It is late."]


@virtual
async def test_name_of_an_item_without_words_gives_the_turn_its_place_and_reaches_nobody() -> None:
    async with calling(turn_detection="manual") as call:
        await speak(call.engine, speech(600))
        data = {"item_id": "a", "text": "", "delta": "", "is_partial": True}
        call.provider().emit_event(EventType.INPUT_TRANSCRIPT, data)
        call.provider().answers("Good morning to you.")
        words = {"item_id": "a", "text": "Good morning.", "is_partial": False}
        call.provider().emit_event(EventType.INPUT_TRANSCRIPT, words)

        assert [(item.role, item.text) for item in call.engine.history] == [
            ("user", "Good morning."),
            ("agent", "Good morning to you."),
        ]
        assert [event.text for event in call.seen.of(EventType.INPUT_TRANSCRIPT)] == ["Good morning."]
