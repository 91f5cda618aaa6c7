"""The provider that is a recording: an application talks to what was recorded, without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.core.recording.talks import SCRIPT, Step, clock, held, perform
from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.errors import AuthenticationFailed, ConfigError, ConnectionLost
from voxengine.events import Event, EventType
from voxengine.providers.registry import available_providers, get_provider
from voxengine.replay_provider import ReplayProvider
from voxengine.testing import run_virtual

TALK: list[Step] = [
    ("send_text", "Hello"),
    ("rest", None),
    ("speak", "What time is it?"),
    ("rest", None),
    ("send_text", "call clock please"),
    ("rest", None),
    ("say", "One moment, please."),
    ("configure", "Speak slowly."),
    ("rest", None),
]


async def talking(path: Path, steps: list[Step], **metadata: Any) -> tuple[VoiceEngine, list[Event]]:
    config = VoiceEngineConfig(
        provider="replay",
        tools=(clock,),
        reconnect={"budget_s": 0},
        metadata={"path": str(path), **metadata},
    )
    engine, seen = VoiceEngine(config), list[Event]()
    engine.events.on("*", seen.append)
    async with engine:
        await perform(engine, steps)
    return engine, seen


def shown(events: list[Event]) -> list[tuple[str, object]]:
    return [(str(event.type), event.data.get("text")) for event in events]


def warnings(events: list[Event]) -> list[str]:
    return [event.data["message"] for event in events if event.type is EventType.WARNING]


def test_it_is_installed_with_the_package() -> None:
    (info,) = [info for info in available_providers() if info.name == "replay"]

    assert info.distribution == "voxengine"
    assert get_provider("replay") is ReplayProvider


def test_same_application_gets_the_same_answers(tmp_path: Path) -> None:
    seen = held(tmp_path / "talk.jsonl", TALK)

    engine, again = run_virtual(talking(tmp_path / "talk.jsonl", TALK))

    assert warnings(again) == []
    assert shown(again) == shown(seen)
    assert [(item.role, item.text) for item in engine.history][:2] == [
        ("user", "Hello"),
        ("agent", SCRIPT["responses"]["Hello"]),
    ]


def test_slower_application_gets_the_same_answers_after_its_own_calls(tmp_path: Path) -> None:
    seen = held(tmp_path / "talk.jsonl", TALK)

    _, again = run_virtual(talking(tmp_path / "talk.jsonl", [("wait", 30.0), *TALK], speed=4.0))

    assert warnings(again) == []
    texts = [event.data["text"] for event in seen if event.type is EventType.TEXT_OUTPUT]
    assert [event.data["text"] for event in again if event.type is EventType.TEXT_OUTPUT] == texts


def test_other_text_is_answered_as_recorded_and_said_to_differ(tmp_path: Path) -> None:
    held(tmp_path / "talk.jsonl", TALK)
    steps: list[Step] = [("send_text", "Good morning"), ("rest", None)]

    engine, seen = run_virtual(talking(tmp_path / "talk.jsonl", steps))

    assert engine.history.items[-1].text == SCRIPT["responses"]["Hello"]
    assert warnings(seen)[0].startswith("send_text() at 0.0 s of the recording had another text")
    assert "Good morning" not in "".join(warnings(seen))


def test_call_that_the_recording_has_not_is_said_and_does_not_hang(tmp_path: Path) -> None:
    held(tmp_path / "talk.jsonl", TALK)
    steps: list[Step] = [("say", "Something else."), ("wait", 1.0), ("send_text", "Hello"), ("rest", None)]

    engine, seen = run_virtual(talking(tmp_path / "talk.jsonl", steps))

    assert "speak() was called where the recording has send_text(). Nothing answers it." in warnings(seen)
    assert engine.history.items[-1].text == SCRIPT["responses"]["Hello"]


def test_calls_that_were_not_made_are_said_at_the_end(tmp_path: Path) -> None:
    held(tmp_path / "talk.jsonl", TALK)

    _, seen = run_virtual(talking(tmp_path / "talk.jsonl", TALK[:4]))

    assert warnings(seen) == ["The recording goes on with send_text() and 3 other calls that were not made."]


def test_call_behind_the_end_of_the_recording_is_said(tmp_path: Path) -> None:
    held(tmp_path / "talk.jsonl", TALK[:2])
    steps: list[Step] = [*TALK[:2], ("send_text", "And now?"), ("wait", 1.0)]

    _, seen = run_virtual(talking(tmp_path / "talk.jsonl", steps))

    assert warnings(seen) == ["send_text() was called where the recording ends. Nothing answers it."]


def test_recorded_failure_and_loss_come_again(tmp_path: Path) -> None:
    held(tmp_path / "refused.jsonl", [], faults=[{"do": 401, "at": "handshake"}])
    held(
        tmp_path / "lost.jsonl",
        [("send_text", "Hello"), ("wait", 1.0)],
        faults=[{"do": "reset", "at": "turn:1"}],
        reconnect={"budget_s": 0},
    )

    with pytest.raises(AuthenticationFailed):
        run_virtual(talking(tmp_path / "refused.jsonl", []))
    _, seen = run_virtual(talking(tmp_path / "lost.jsonl", [("send_text", "Hello"), ("wait", 1.0)]))

    (loss,) = [event for event in seen if event.type is EventType.CONNECTION_LOST]
    assert isinstance(loss.data["error"], ConnectionLost)


def test_each_session_of_a_recording_can_be_chosen(tmp_path: Path) -> None:
    held(tmp_path / "talk.jsonl", [("switch", "other"), ("send_text", "Hello"), ("rest", None)])

    engine, _ = run_virtual(
        talking(tmp_path / "talk.jsonl", [("send_text", "Hello"), ("rest", None)], number=2)
    )

    assert engine.history.items[-1].text == SCRIPT["responses"]["Hello"]


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ({}, "needs metadata\\['path'\\]"),
        ({"path": "none.jsonl"}, "'none.jsonl' cannot be read"),
        ({"path": "talk.jsonl", "number": 0}, "number of a session"),
        ({"path": "talk.jsonl", "number": 9}, "has no session 9; it has 1"),
        ({"path": "talk.jsonl", "speed": 0}, "a number above 0"),
        ({"path": "talk.jsonl", "pace": 2}, "no metadata\\['pace'\\]. It takes: path, number, speed"),
    ],
)
def test_wrong_option_is_said_by_connect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metadata: dict[str, Any], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    held(tmp_path / "talk.jsonl", [])
    engine = VoiceEngine(VoiceEngineConfig(provider="replay", metadata=metadata))

    with pytest.raises(ConfigError, match=sentence):
        run_virtual(engine.connect())


def test_it_can_do_what_the_recorded_provider_could(tmp_path: Path) -> None:
    held(tmp_path / "talk.jsonl", [])

    known = ReplayProvider.capabilities_for({"metadata": {"path": str(tmp_path / "talk.jsonl")}})

    assert known.word_timings
    assert not known.resume
    assert ReplayProvider.capabilities_for({"metadata": {}}) == ReplayProvider.capabilities
