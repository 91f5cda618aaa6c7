"""A recorded conversation runs again with the same events; where it cannot, that is said."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.core.recording.talks import (
    Step,
    again,
    broken,
    clock,
    config,
    held,
    perform,
    registry,
    types,
    utterance,
)
from voxengine import VoiceEngine
from voxengine.errors import ConfigError, ConnectionLost, NotConnected
from voxengine.events import EventType
from voxengine.providers.registry import ProviderRegistry
from voxengine.recording_file import read_recording
from voxengine.replaying import replay
from voxengine.testing import run_virtual

TALK: list[Step] = [
    ("send_text", "Hello"),
    ("wait", 1.0),
    ("speak", "What time is it?"),
    ("rest", None),
    ("send_text", "call clock please"),
    ("rest", None),
    ("send_text", "Tell me a story"),
    ("wait", 0.8),
    ("interrupt", None),
    ("append", "Be brief."),
    ("configure", "Speak slowly."),
    ("say", "One moment."),
    ("rest", None),
    ("get_usage", None),
]
STEPS = st.one_of(
    st.tuples(
        st.just("send_text"),
        st.sampled_from(["Hello", "Tell me a story", "call clock please", "broken and clock"]),
    ),
    st.tuples(st.just("speak"), st.sampled_from(["What time is it?", "Tell me a story"])),
    st.tuples(st.just("recorded"), st.just("What time is it?")),
    st.tuples(st.just("noise"), st.sampled_from([0.1, 0.5])),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.05, 0.3, 1.1, 3.0])),
    st.tuples(st.just("interrupt_within"), st.sampled_from(["response_started", "audio_output_chunk"])),
    st.tuples(st.sampled_from(["interrupt", "end_turn", "rest", "get_usage"]), st.none()),
    st.tuples(st.just("append"), st.just("Be brief.")),
    st.tuples(st.just("configure"), st.just("Speak slowly.")),
    st.tuples(st.just("say"), st.just("One moment, please.")),
    st.tuples(st.just("switch"), st.sampled_from(["mock", "other"])),
)
FAULTS: list[dict[str, Any]] = [{"do": "reset"}, {"do": "close", "code": 1011}, {"do": "stall"}]
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "turn_detection": st.sampled_from(["client", "manual"]),
        "playback": st.just("external"),
        "interruption": st.sampled_from(["confirm", "off"]),
        "input_format": st.just(16_000),
        "output_format": st.just(8_000),
        "fallbacks": st.just((config(provider="other"),)),
        "faults": st.tuples(
            st.sampled_from(FAULTS),
            st.sampled_from(["turn:1", "turn:2", "response:1:after_audio_ms=300"]),
        ).map(lambda fault: [{**fault[0], "at": fault[1]}]),
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(STEPS, max_size=8), given_settings=SETTINGS)
def test_every_conversation_runs_again_with_the_same_events(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Step], given_settings: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("talk") / "talk.jsonl"

    outcome, seen = again(path, steps, **given_settings)

    assert outcome.differences == ()
    assert [event["type"] for event in outcome.events] == types(seen)


def test_all_that_an_application_does_is_in_it(tmp_path: Path) -> None:
    outcome, seen = again(tmp_path / "talk.jsonl", TALK)

    assert outcome.is_same
    happened = set(types(seen))
    assert {
        EventType.INTERRUPTED,
        EventType.FUNCTION_CALL_COMPLETED,
        EventType.INPUT_TRANSCRIPT,
        EventType.SPEECH_MARK,
        EventType.AUDIO_OUTPUT_STOPPED,
        EventType.SESSION_UPDATED,
    } <= happened
    assert outcome.tape.is_complete
    kinds = {line["k"] for line in outcome.tape.lines}
    assert {"call", "input", "ask", "reply", "said", "wire", "tool", "played", "heard", "event"} <= kinds


def test_hours_run_again_in_seconds(tmp_path: Path) -> None:
    steps: list[Step] = [
        ("send_text", "Hello"),
        ("rest", None),
        ("wait", 3600.0),
        ("send_text", "Hello"),
        ("rest", None),
    ]

    outcome, _ = again(tmp_path / "talk.jsonl", steps)

    assert outcome.is_same
    assert outcome.tape.duration_s > 3600


def test_loss_and_recovery_run_again_with_their_chance(tmp_path: Path) -> None:
    outcome, seen = again(
        tmp_path / "talk.jsonl",
        [("send_text", "Hello"), ("wait", 8.0), ("send_text", "Hello"), ("rest", None)],
        faults=[{"do": 503, "at": "handshake", "session": 2}, {"do": "reset", "at": "turn:1"}],
    )

    assert EventType.CONNECTION_LOST in types(seen)
    assert EventType.PROVIDER_SWITCHED in types(seen)
    assert EventType.CONNECTION_FAILED in types(seen)
    assert outcome.is_same
    assert len(outcome.tape.of("chance")) == 1


@pytest.mark.parametrize("name", ["mock", "other"])
def test_conversation_that_goes_on_from_a_snapshot_runs_again(tmp_path: Path, name: str) -> None:
    async def hold() -> None:
        async with VoiceEngine(config(), registry=registry()) as engine:
            await perform(engine, [("send_text", "Tell me a story"), ("wait", 1.2)])
            snapshot = engine.snapshot()
        resumed = VoiceEngine.resume(snapshot, config(provider=name), registry=registry())
        resumed.record(tmp_path / "rest.jsonl")
        async with resumed:
            await resumed.wait_idle()

    run_virtual(hold())

    assert replay(tmp_path / "rest.jsonl").is_same


@pytest.mark.parametrize(
    "options", [{}, {"audio": False}, {"transcripts": False}, {"audio": False, "transcripts": False}]
)
def test_conversation_that_goes_on_in_mid_question_runs_again(
    tmp_path: Path, options: dict[str, bool]
) -> None:
    async def hold() -> None:
        async with VoiceEngine(config(), registry=registry()) as engine:
            await engine.send_audio((await utterance())[:48_000])
            snapshot = engine.snapshot()
        assert snapshot["input"]["n_samples"] == 24_000
        resumed = VoiceEngine.resume(snapshot, config(), registry=registry())
        resumed.record(tmp_path / "rest.jsonl", **options)
        async with resumed:
            await perform(resumed, [("speak", "What time is it?"), ("rest", None)])

    run_virtual(hold())

    assert replay(tmp_path / "rest.jsonl").differences == ()


def test_tap_that_changes_the_answer_is_not_needed_again(tmp_path: Path) -> None:
    class Quiet:
        def on_output(self, chunk: bytes) -> bytes | None:
            return chunk[: len(chunk) // 4 * 2] or None

        def on_input(self, chunk: bytes) -> bytes:
            return bytes(len(chunk))

    async def hold() -> None:
        engine = VoiceEngine(config(), registry=registry(), taps=[Quiet()])
        engine.record(tmp_path / "tapped.jsonl")
        async with engine:
            await perform(engine, [("send_text", "Hello"), ("wait", 1.0), ("noise", 0.3), ("rest", None)])

    run_virtual(hold())

    assert replay(tmp_path / "tapped.jsonl").is_same


def test_handler_that_fails_or_is_slow_is_no_part_of_it(tmp_path: Path) -> None:
    def fails(_: object) -> None:
        raise ValueError("a fault of the application")

    async def hold() -> None:
        engine = VoiceEngine(config(), registry=registry())
        engine.events.on(EventType.RESPONSE_STARTED, fails)
        engine.record(tmp_path / "talk.jsonl")
        async with engine:
            await perform(engine, [("send_text", "Hello"), ("rest", None)])

    run_virtual(hold())

    assert replay(tmp_path / "talk.jsonl").is_same


def test_failed_connect_runs_again(tmp_path: Path) -> None:
    outcome, seen = again(tmp_path / "talk.jsonl", [], faults=[{"do": 401, "at": "handshake"}])

    assert EventType.CONNECTION_FAILED in types(seen)
    assert outcome.is_same


@pytest.mark.parametrize("after_s", [0.1, 0.3])
def test_connect_that_the_application_cancels_runs_again(tmp_path: Path, after_s: float) -> None:
    async def hurry() -> list[Any]:
        engine = VoiceEngine(config(faults=[{"do": "stall", "at": "ready"}]), registry=registry())
        seen: list[Any] = []
        engine.events.on("*", seen.append)
        engine.record(tmp_path / "talk.jsonl")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(after_s):
                await engine.connect()
        await engine.disconnect()
        return seen

    seen = run_virtual(hurry(), socket_grace_s=0.0)

    assert types(seen) == [EventType.CONNECTION_STARTING, EventType.CONNECTION_FAILED]
    assert replay(tmp_path / "talk.jsonl").differences == ()


@pytest.mark.parametrize("n_turns", range(1, 8))
@pytest.mark.parametrize("how", ["cancel", "disconnect"])
@pytest.mark.parametrize("is_at_hand", [True, False], ids=["at-hand", "to-be-imported"])
def test_connect_that_is_ended_in_its_first_turns_runs_again(
    tmp_path: Path, is_at_hand: bool, how: str, n_turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_at_hand:
        monkeypatch.setattr(ProviderRegistry, "loaded", lambda registry, name: None)

    async def change_mind() -> None:
        engine = VoiceEngine(config(), registry=registry())
        engine.record(tmp_path / "talk.jsonl")
        connecting = asyncio.create_task(engine.connect())
        for _ in range(n_turns):
            await asyncio.sleep(0)
        if how == "cancel":
            connecting.cancel()
        await engine.disconnect()
        await asyncio.wait([connecting])
        if not connecting.cancelled():
            assert isinstance(connecting.exception(), NotConnected)

    run_virtual(change_mind(), socket_grace_s=0.0)

    assert replay(tmp_path / "talk.jsonl").differences == ()


def test_sessions_that_are_lost_behind_a_silence_run_again(tmp_path: Path) -> None:
    async def lose_twice() -> None:
        engine = VoiceEngine(config(turn_detection="client"), registry=registry())
        engine.record(tmp_path / "talk.jsonl")
        async with engine:
            await perform(engine, [("recorded", "What time is it?"), ("rest", None)])
            for _ in range(2):
                error = ConnectionLost("gone", close_code=1006)
                assert engine._session is not None
                engine._session.provider.emit_event(EventType.CONNECTION_LOST, {"error": error})
                await asyncio.sleep(2.5)
            await engine.wait_idle()

    run_virtual(lose_twice(), socket_grace_s=0.0)

    assert replay(tmp_path / "talk.jsonl").differences == ()


@pytest.mark.parametrize("when", ["before record", "behind record"])
def test_history_before_connect_runs_again(tmp_path: Path, when: str) -> None:
    async def talk() -> None:
        engine = VoiceEngine(config(), registry=registry())
        if when == "before record":
            engine.history.add_system("Be brief.")
        engine.record(tmp_path / "talk.jsonl")
        if when == "behind record":
            engine.history.add_system("Be brief.")
        async with engine:
            await engine.send_text("Hello")
            await engine.wait_idle()

    run_virtual(talk(), socket_grace_s=0.0)

    assert replay(tmp_path / "talk.jsonl").differences == ()


def test_call_that_began_with_a_fallback_runs_again(tmp_path: Path) -> None:
    outcome, seen = again(
        tmp_path / "talk.jsonl",
        TALK,
        faults=[{"do": 503, "at": "handshake"}],
        fallbacks=(config(provider="other", api_key="sk-another-secret-key"),),
    )

    established = [event for event in seen if event.type is EventType.CONNECTION_ESTABLISHED]
    assert [event.provider for event in established] == ["other"]
    assert outcome.is_same


def test_unknown_provider_runs_again(tmp_path: Path) -> None:
    outcome, seen = again(tmp_path / "talk.jsonl", [], provider="nobody")

    assert types(seen) == [EventType.CONNECTION_STARTING, EventType.CONNECTION_FAILED]
    assert outcome.is_same


@pytest.mark.parametrize(
    "options", [{"audio": False}, {"transcripts": False}, {"audio": False, "transcripts": False}]
)
def test_recording_without_audio_or_words_runs_again(tmp_path: Path, options: dict[str, bool]) -> None:
    outcome, _ = again(tmp_path / "talk.jsonl", TALK, options=options)

    assert outcome.differences == ()


# -- where it is not the same -----------------------------------------------------------------------------


def changed(path: Path, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Path:
    """Return the recording with some of its lines changed, or left out where the function says None."""
    head, *rows = path.read_text("utf-8").splitlines()
    lines = [change(json.loads(row)) for row in rows]
    other = path.with_name("changed.jsonl")
    other.write_text(
        "\n".join([head, *(json.dumps(line) for line in lines if line is not None), ""]), "utf-8"
    )
    return other


def test_event_that_the_engine_would_not_emit_is_found(tmp_path: Path) -> None:
    held(tmp_path / "talk.jsonl", TALK)

    def forge(line: dict[str, Any]) -> dict[str, Any]:
        if line["k"] == "event" and line["type"] == "interrupted":
            line["data"]["heard_ms"] += 1
        return line

    outcome = replay(changed(tmp_path / "talk.jsonl", forge))

    assert len(outcome.differences) == 1
    assert "interrupted at" in outcome.differences[0]
    assert "data['heard_ms'] differ" in outcome.differences[0]


def test_call_that_the_engine_makes_otherwise_is_found(tmp_path: Path) -> None:
    held(tmp_path / "talk.jsonl", TALK)

    def forge(line: dict[str, Any]) -> dict[str, Any]:
        if line["k"] == "ask" and line["hook"] == "send_text":
            line["args"]["text"] += "?"
        return line

    outcome = replay(changed(tmp_path / "talk.jsonl", forge))

    assert any(sentence.startswith("send_text() at") for sentence in outcome.differences)


def test_event_that_does_not_come_is_found_and_the_run_ends(tmp_path: Path) -> None:
    held(tmp_path / "talk.jsonl", TALK)

    def forge(line: dict[str, Any]) -> dict[str, Any] | None:
        return None if line["k"] == "said" and line["type"] == "response_started" else line

    outcome = replay(changed(tmp_path / "talk.jsonl", forge))

    assert not outcome.is_same


def test_recording_with_a_gap_is_refused(tmp_path: Path) -> None:
    held(tmp_path / "talk.jsonl", [("send_text", "Hello")])
    n_seen = 0

    def forge(line: dict[str, Any]) -> dict[str, Any]:
        nonlocal n_seen
        n_seen += 1
        return {"k": "gap", "t": line["t"], "n_lines": 4} if n_seen == 5 else line

    with pytest.raises(ConfigError, match="4 lines were dropped"):
        replay(changed(tmp_path / "talk.jsonl", forge))


@pytest.mark.parametrize(
    ("kind", "name"),
    [("event", "epoch"), ("event", "data"), ("call", "l"), ("call", "i"), ("session", "provider")],
)
def test_line_without_what_it_needs_is_said_to_be_damaged(tmp_path: Path, kind: str, name: str) -> None:
    held(tmp_path / "talk.jsonl", [("send_text", "Hello")])

    def forge(line: dict[str, Any]) -> dict[str, Any]:
        if line["k"] == kind:
            line[name] = None
        return line

    with pytest.raises(ConfigError, match="is damaged"):
        replay(changed(tmp_path / "talk.jsonl", forge))


def test_recording_that_was_cut_anywhere_runs_as_far_as_it_goes(tmp_path: Path) -> None:
    held(
        tmp_path / "talk.jsonl",
        [("send_text", "Hello"), ("rest", None), ("send_text", "call clock please"), ("rest", None)],
    )
    whole = (tmp_path / "talk.jsonl").read_bytes()

    for part in (0.3, 0.6, 0.9):
        (tmp_path / "cut.jsonl").write_bytes(whole[: int(len(whole) * part)])
        outcome = replay(tmp_path / "cut.jsonl")

        assert outcome.tape.is_torn
        assert outcome.differences == ()
        n_events = len(read_recording(tmp_path / "cut.jsonl").of("event"))
        assert len(outcome.events) >= n_events > 0


def test_tools_are_not_called_again(tmp_path: Path) -> None:
    runs: list[str] = []

    async def count() -> str:
        """Count."""
        runs.append("count")
        return "one"

    outcome, _ = again(
        tmp_path / "talk.jsonl",
        [("send_text", "call count please"), ("rest", None)],
        tools=(count, clock, broken),
    )

    assert outcome.is_same
    assert runs == ["count"]
