"""A conversation as a value: taken from one engine, gone on with in another."""

from __future__ import annotations

import asyncio
import copy
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.core.engine.fakes import Seen, silence
from tests.core.recording.talks import KEY, Step, clock, config, perform, registry, utterance
from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.audio.format import AudioFormat
from voxengine.errors import ConfigError, ProviderError, VoxEngineError, WrongThread
from voxengine.events import EventType
from voxengine.testing import run_virtual, virtual

STEPS = st.one_of(
    st.tuples(st.just("send_text"), st.sampled_from(["Hello", "Tell me a story", "call clock please"])),
    st.tuples(st.just("speak"), st.just("What time is it?")),
    st.tuples(st.just("noise"), st.sampled_from([0.1, 0.5])),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.15, 0.4, 2.0])),
    st.tuples(st.just("append"), st.just("Be brief.")),
    st.tuples(st.sampled_from(["interrupt", "end_turn", "rest"]), st.none()),
    st.tuples(st.just("say"), st.just("One moment, please.")),
    st.tuples(st.just("switch"), st.sampled_from(["mock", "other"])),
)


async def taken(steps: list[Step], **options: Any) -> dict[str, Any]:
    """Hold a conversation and take a snapshot in the middle of it."""
    async with VoiceEngine(config(**options), registry=registry()) as engine:
        await perform(engine, steps)
        return engine.snapshot()


def resumed(snapshot: object, given: VoiceEngineConfig | None = None, **options: Any) -> VoiceEngine:
    return VoiceEngine.resume(snapshot, given or config(**options), registry=registry())


def texts(engine: VoiceEngine) -> list[tuple[str, str]]:
    return [(item.role, item.context_text) for item in engine.history]


# -- the value ----------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(STEPS, max_size=6), turns=st.sampled_from(["server", "client", "manual"]))
def test_snapshot_of_a_resumed_engine_is_the_same_snapshot(steps: list[Step], turns: str) -> None:
    snapshot = run_virtual(taken(steps, turn_detection=turns), socket_grace_s=0.0)

    through_json = json.loads(json.dumps(snapshot))

    assert through_json == snapshot
    assert VoiceEngine.resume(through_json, registry=registry()).snapshot() == snapshot


@virtual
async def test_snapshot_changes_nothing_and_holds_no_secret() -> None:
    fallback = config(provider="other", api_key="sk-the-key-of-the-other")
    options = {
        "metadata": {"url": "wss://me:pw@host/x?token=abc", "auth_token": "tok-hidden"},
        "fallbacks": (fallback,),
    }
    engine = VoiceEngine(config(**options), registry=registry())

    first, second = engine.snapshot(), engine.snapshot()

    assert first == second
    text = json.dumps(first)
    for secret in (KEY, "sk-the-key-of-the-other", "tok-hidden", "token=abc", "me:pw"):
        assert secret not in text
    assert first["config"]["fallbacks"][0]["provider"] == "other"


@virtual
async def test_answer_that_is_playing_counts_as_cut_at_what_was_heard() -> None:
    async with VoiceEngine(config(), registry=registry()) as engine:
        await perform(engine, [("send_text", "Tell me a story"), ("wait", 1.2)])
        snapshot = engine.snapshot()
        still_said = engine.history.items[-1]

    (_, answer) = snapshot["history"]["items"]
    assert 0 < len(answer["heard_text"]) < len(answer["text"])
    assert answer["text"].startswith(answer["heard_text"])
    assert snapshot["cut_reply"] == [answer["id"]]
    assert still_said.heard_text is None


_NO_SUCH: dict[str, Any] = {
    "kind": "something else",
    "floor": "dog",
    "cut_reply": [1],
    "says": [{"text": "Hello", "behind": 1, "is_cut": False, "rest": ""}],
    "n_ids": -4,
    "epoch": 1.5,
    "owes_tool_answer": "no",
}
"""Values of fields that no snapshot has."""


def wrong(snapshot: dict[str, Any], change: str) -> object:
    value = copy.deepcopy(snapshot)
    if change == "version":
        value["version"] = 7
    elif change in _NO_SUCH:
        value[change] = _NO_SUCH[change]
    elif change == "flag":
        value["version"] = True
    elif change == "turn":
        del value["turn"]["item"]
    elif change == "index":
        value["turn"]["turn_end"] = "soon"
    elif change == "format":
        value["input"]["input_format"]["sample_rate"] = 7
    elif change == "length":
        value["input"]["n_samples"] += 1
    elif change == "base64":
        value["input"]["audio"]["base64"] = "?"
    elif change == "option":
        value["config"]["colour"] = "blue"
    elif change == "history":
        value["history"]["items"] = [{"id": "a"}]
    else:
        return [value]
    return value


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("version", r"version 7; this voxengine reads version 1"),
        ("flag", r"version True; this voxengine reads version 1"),
        ("kind", "no snapshot"),
        ("floor", "damaged: ValueError floor"),
        ("cut_reply", "damaged: ValueError cut_reply"),
        ("says", "damaged: ValueError says"),
        ("n_ids", "damaged: ValueError n_ids"),
        ("epoch", "damaged: ValueError epoch"),
        ("owes_tool_answer", "damaged: ValueError owes_tool_answer"),
        ("list", "no snapshot"),
        ("turn", "damaged: KeyError 'item'"),
        ("index", "damaged"),
        ("format", "damaged: sample_rate"),
        ("length", "not as long as it says"),
        ("base64", "no base64"),
        ("option", "unknown option 'colour'"),
        ("history", "Item 0"),
    ],
)
def test_what_is_no_snapshot_of_this_version_is_refused(change: str, sentence: str) -> None:
    snapshot = run_virtual(taken([("send_text", "Hello")]))

    with pytest.raises(ConfigError, match=sentence):
        resumed(wrong(snapshot, change))


def test_audio_may_lie_in_a_file_beside_the_snapshot(tmp_path: Path) -> None:
    async def take() -> tuple[dict[str, Any], dict[str, Any]]:
        async with VoiceEngine(config(), registry=registry()) as engine:
            await engine.send_audio((await utterance())[: 24_000 // 2 * 2])
            return engine.snapshot(audio_file=tmp_path / "open.wav"), engine.snapshot()

    by_reference, inline = run_virtual(take())

    assert by_reference["input"]["audio"]["file"] == str(tmp_path / "open.wav")
    assert resumed(by_reference).snapshot() == resumed(inline).snapshot()
    (tmp_path / "open.wav").write_bytes((tmp_path / "open.wav").read_bytes()[:-2] + b"\x01\x02")
    with pytest.raises(ConfigError, match=r"'open\.wav' is not the audio"):
        resumed(by_reference)
    (tmp_path / "open.wav").unlink()
    with pytest.raises(ConfigError, match=r"'open\.wav', cannot be read"):
        resumed(by_reference)


def test_audio_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    async def take() -> None:
        async with VoiceEngine(config(), registry=registry()) as engine:
            engine.snapshot(audio_file=tmp_path)

    with pytest.raises(ConfigError, match="cannot be written"):
        run_virtual(take())


@virtual
async def test_snapshot_from_another_thread_is_refused() -> None:
    async with VoiceEngine(config(), registry=registry()) as engine:
        raised: list[BaseException] = []

        def take() -> None:
            try:
                engine.snapshot()
            except WrongThread as error:
                raised.append(error)

        thread = threading.Thread(target=take)
        thread.start()
        await asyncio.get_running_loop().run_in_executor(None, thread.join)

    assert "call_threadsafe('snapshot'" in str(raised[0])


def test_engine_that_never_connected_can_be_kept_too() -> None:
    engine = VoiceEngine(config(), registry=registry())
    engine.history.add_system("Be kind.")

    again = resumed(engine.snapshot())

    assert texts(again) == [("system", "Be kind.")]
    assert again.snapshot() == engine.snapshot()


# -- going on -------------------------------------------------------------------------------------------


@virtual
async def test_open_utterance_goes_on_without_a_hole() -> None:
    question = await utterance("What time is it?", silence_ms=900)
    half = len(question) // 4 * 2
    async with VoiceEngine(config(), registry=registry()) as engine:
        for at in range(0, half, 960):
            await engine.send_audio(question[at : min(at + 960, half)])
            await asyncio.sleep(0.02)
        snapshot = engine.snapshot()

    again = resumed(snapshot)
    seen = Seen(again)
    async with again:
        for at in range(half, len(question), 960):
            await again.send_audio(question[at : at + 960])
            await asyncio.sleep(0.02)
        await again.wait_idle()

    assert seen.of(EventType.INPUT_TRANSCRIPT)[-1].text == "What time is it?"
    assert seen.one(EventType.PROVIDER_SWITCHED).replayed_ms * 48 == half
    assert [item.role for item in again.history] == ["user", "agent"]
    order = [event.type for event in seen.events]
    assert order.index(EventType.CONNECTION_ESTABLISHED) < order.index(EventType.PROVIDER_SWITCHED)


@pytest.mark.parametrize("is_interrupted", [False, True])
@virtual
async def test_turn_that_was_heard_to_begin_and_ended_by_hand_ends_there(is_interrupted: bool) -> None:
    async with VoiceEngine(config(), registry=registry()) as engine:
        question = await utterance("What time is it?", silence_ms=0)
        for at in range(0, len(question), 960):
            await engine.send_audio(question[at : at + 960])
            await asyncio.sleep(0.02)
        await engine.end_turn()
        snapshot = engine.snapshot()

    again = resumed(snapshot)
    seen = Seen(again)
    async with again:
        await again.send_text("Hello")
        if is_interrupted:
            again.interrupt()
        await again.wait_idle(timeout_s=30)

    assert seen.of(EventType.SPEECH_ENDED)
    assert [item.text for item in again.history if item.role == "user"] == ["What time is it?", "Hello"]


@virtual
async def test_question_that_waits_is_answered_there_and_one_that_was_answered_is_not_asked_again() -> None:
    async with VoiceEngine(config(), registry=registry()) as engine:
        await engine.send_text("Hello")
        await engine.wait_idle()
        await engine.send_text("Tell me a story")
        snapshot = engine.snapshot()

    again = resumed(snapshot)
    async with again:
        await again.wait_idle()

    assert [role for role, _ in texts(again)] == ["user", "agent", "user", "agent"]
    assert texts(again)[-1][1].startswith("Once upon a time")


@virtual
async def test_answer_that_was_cut_is_continued_if_the_configuration_says_so() -> None:
    snapshot = await taken([("send_text", "Tell me a story"), ("wait", 1.2)])

    async def goes_on(policy: str) -> int:
        again = resumed(snapshot, config(reconnect={"cut_reply": policy}))
        seen = Seen(again)
        async with again:
            await again.wait_idle()
        return len(seen.of(EventType.RESPONSE_STARTED))

    assert [await goes_on("continue"), await goes_on("leave")] == [1, 0]


@pytest.mark.parametrize("moment", ["asked", "half way", "given and still playing"])
@virtual
async def test_words_that_the_agent_was_to_say_are_said_there(moment: str) -> None:
    words = "This call is recorded, for training and for nothing else at all."
    steps: dict[str, list[Any]] = {"asked": [], "half way": [("wait", 1.5)]}
    async with VoiceEngine(config(), registry=registry()) as engine:
        await engine.say(words)
        await perform(engine, steps.get(moment, [("wait", 3.5)]))
        snapshot = json.loads(json.dumps(engine.snapshot()))

    again = resumed(snapshot)
    async with again:
        await again.wait_idle()

    shown = [item.context_text for item in again.history if item.context_text]
    assert len(shown) == (1 if moment == "asked" else 2)
    assert " ".join(" ".join(shown).replace(",", "").split()) == words.replace(",", "")


@virtual
async def test_tool_that_ran_does_not_run_again_and_one_under_way_is_told_to_be_lost() -> None:
    runs: list[str] = []

    async def slow() -> str:
        """Take a while."""
        runs.append("slow")
        await asyncio.sleep(60)
        return "late"

    async def quick() -> str:
        """Be quick."""
        runs.append("quick")
        return "done at once"

    options: dict[str, Any] = {"tools": (slow, quick)}
    async with VoiceEngine(config(**options), registry=registry()) as engine:
        await engine.send_text("call quick please")
        await engine.wait_idle()
        await engine.send_text("call slow please")
        await asyncio.sleep(1.0)
        snapshot = engine.snapshot()

    again = resumed(snapshot, **options)
    async with again:
        await again.wait_idle()
        results = [item for item in again.history if item.kind == "tool_result"]

    assert runs == ["quick", "slow"]
    assert [item.is_error for item in results] == [False, True]
    assert "another process" in results[1].text
    assert again.history.open_calls() == ()


@virtual
async def test_another_provider_may_go_on_and_epochs_and_usage_are_kept() -> None:
    snapshot = await taken([("send_text", "Hello"), ("rest", None)])

    again = resumed(snapshot, config(provider="other"))
    async with again:
        await again.send_text("Hello")
        await again.wait_idle()
        assert again.session is not None
        assert (again.session.name, again.session.epoch) == ("other", 2)

    assert [held.provider for held in again.metrics.sessions] == ["mock", "other"]
    assert again.metrics.sessions[0].usage is not None
    assert [role for role, _ in texts(again)] == ["user", "agent", "user", "agent"]
    assert len({item.id for item in again.history}) == 4


@virtual
async def test_formats_stay_those_of_the_conversation() -> None:
    snapshot = await taken([("noise", 0.1)], input_format=16_000, output_format=8_000)

    again = resumed(snapshot, config())
    async with again:
        assert again.input_format == AudioFormat(16_000)
        assert again.output_format == AudioFormat(8_000)

    with pytest.raises(ConfigError, match="input_format is 24000 Hz mono in the configuration"):
        resumed(snapshot, config(input_format=24_000))


@virtual
async def test_connect_that_failed_can_be_tried_again_with_nothing_lost() -> None:
    snapshot = await taken([("send_text", "Hello")])
    again = resumed(snapshot, faults=[{"do": 503, "at": "handshake"}])
    seen = Seen(again)

    with pytest.raises(ProviderError):
        await again.connect()
    kept = again.snapshot()
    await again.switch_provider("other", config(provider="other"))
    await again.wait_idle()
    await again.disconnect()

    assert kept["turn"]["unanswered_texts"] == snapshot["turn"]["unanswered_texts"]
    assert [event.will_retry for event in seen.of(EventType.CONNECTION_FAILED)] == [False]
    assert [role for role, _ in texts(again)] == ["user", "agent"]


@virtual
async def test_snapshot_after_the_end_keeps_what_was_heard() -> None:
    engine = VoiceEngine(config(), registry=registry())
    async with engine:
        await perform(engine, [("send_text", "Tell me a story"), ("wait", 1.0)])

    again = resumed(engine.snapshot())

    assert texts(again) == texts(engine)
    assert 0 < len(texts(again)[-1][1]) < len("Once upon a time there was an engine that listened")


@virtual
async def test_silence_of_the_gap_is_not_sent_again() -> None:
    snapshot = await taken([("noise", 0.0), ("wait", 0.1)])
    async with VoiceEngine(config(), registry=registry()) as engine:
        await engine.send_audio(silence(400))
        quiet = engine.snapshot()

    assert snapshot["input"]["n_samples"] == 0
    assert quiet["input"]["n_samples"] <= 24_000 * 3 // 10


def test_tools_of_the_snapshot_are_not_functions() -> None:
    snapshot = run_virtual(taken([("send_text", "Hello")]))
    again = VoiceEngine.resume(snapshot, registry=registry())

    again.tool(clock)

    assert "tools" not in snapshot["config"]
    with pytest.raises(VoxEngineError, match="already is a tool"):
        again.tool(clock_of_another_name)


async def clock_of_another_name() -> str:
    """Tell the time."""
    return "noon"


clock_of_another_name.__name__ = "clock"
