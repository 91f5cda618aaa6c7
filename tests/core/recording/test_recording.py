"""What is in a recording, what is not, and what becomes of it when something goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.core.recording.talks import KEY, config, held, hold, perform, registry
from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.errors import ConfigError, UsageError, VoxEngineError
from voxengine.events import EventType, WarningEvent
from voxengine.recording_file import RecordingWriter, read_recording
from voxengine.testing import leak_check, run_virtual, virtual
from voxengine.testing.fakes import FakeProvider

WORDS = ("Hello", "Hi there", "help you", "five past noon", "What time", "Be brief", "slowly")
TALK: list[tuple[str, Any]] = [
    ("append", "Be brief."),
    ("send_text", "Hello"),
    ("rest", None),
    ("speak", "What time is it?"),
    ("rest", None),
    ("send_text", "call clock please"),
    ("configure", "Speak slowly."),
    ("rest", None),
]


def test_no_secret_is_in_it_wherever_it_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_API_KEY", "the-key-of-the-environment")

    async def talk() -> None:
        engine = VoiceEngine(
            config(fallbacks=(config(provider="other", api_key="sk-of-the-fallback"),)), registry=registry()
        )
        engine.record(tmp_path / "talk.jsonl")
        async with engine:
            await engine.send_text(
                f"My key is {KEY}, yours the-key-of-the-environment and sk-of-the-fallback"
            )
            await engine.wait_idle()

    run_virtual(talk())

    text = (tmp_path / "talk.jsonl").read_text("utf-8")
    assert "My key is …, yours …" in text
    for secret in (KEY, "the-key-of-the-environment", "sk-of-the-fallback"):
        assert secret not in text


def test_credentials_within_a_message_of_the_wire_are_masked(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "a.jsonl", {}, ['quoted"secret'], lambda _: None)
    message = json.dumps(
        {"client_secret": {"value": "ek_1"}, "authorization": "Bearer abc", "text": 'a quoted"secret'}
    )

    writer.put({"k": "wire", "t": 0.0, "data": message})
    writer.close()

    text = (tmp_path / "a.jsonl").read_text("utf-8")
    assert "ek_1" not in text
    assert "Bearer abc" not in text
    assert "quoted" not in text
    (line,) = read_recording(tmp_path / "a.jsonl").lines
    assert json.loads(line["data"])["client_secret"] == "…"


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    held(tmp_path / "talk.jsonl", [])

    assert stat.S_IMODE(os.stat(tmp_path / "talk.jsonl").st_mode) == 0o600


def test_words_are_left_out_on_request_and_their_shape_stays(tmp_path: Path) -> None:
    run_virtual(hold(tmp_path / "talk.jsonl", TALK, options={"transcripts": False}))

    text = (tmp_path / "talk.jsonl").read_text("utf-8")
    assert [word for word in WORDS if word in text] == []
    tape = read_recording(tmp_path / "talk.jsonl")
    assert not tape.has_transcripts
    (call,) = [
        line for line in tape.of("call") if line["method"] == "send_text" and line["args"]["text"] == "xxxxx"
    ]
    assert call["t"] == 0.0
    assert all("data" not in line and line["n_bytes"] > 0 for line in tape.of("wire"))


def test_audio_is_left_out_on_request_and_its_length_stays(tmp_path: Path) -> None:
    run_virtual(hold(tmp_path / "with.jsonl", TALK))
    run_virtual(hold(tmp_path / "without.jsonl", TALK, options={"audio": False}))

    bare = read_recording(tmp_path / "without.jsonl")
    assert "$b64" not in (tmp_path / "without.jsonl").read_text("utf-8")
    assert 960 in {line["audio"]["$silence"] for line in bare.of("input")}
    assert len(bare.of("input")) == len(read_recording(tmp_path / "with.jsonl").of("input"))
    assert (tmp_path / "without.jsonl").stat().st_size * 5 < (tmp_path / "with.jsonl").stat().st_size


def test_it_says_where_it_was_tapped(tmp_path: Path) -> None:
    async def talk(name: str) -> None:
        places = registry()
        places.register("fake", FakeProvider)
        engine = VoiceEngine(VoiceEngineConfig(provider=name), registry=places)
        engine.record(tmp_path / f"{name}.jsonl")
        async with engine:
            await engine.send_text("Hello")
            await engine.wait_idle()

    run_virtual(talk("mock"))
    run_virtual(talk("fake"))

    assert len(read_recording(tmp_path / "mock.jsonl").of("wire")) > 10
    contract = read_recording(tmp_path / "fake.jsonl")
    assert contract.of("wire") == []
    assert {line["type"] for line in contract.of("said")} >= {"response_started", "text_output"}


# -- its life ---------------------------------------------------------------------------------------------


@virtual
async def test_it_ends_with_the_engine_and_leaves_no_thread(tmp_path: Path) -> None:
    async with leak_check():
        engine = VoiceEngine(config(), registry=registry())
        recording = engine.record(tmp_path / "talk.jsonl")
        async with engine:
            states = [recording.is_closed]
    states.append(recording.is_closed)

    assert states == [False, True]
    assert recording.path == str(tmp_path / "talk.jsonl")
    assert read_recording(recording.path).is_complete


@virtual
async def test_it_can_be_ended_before_the_conversation(tmp_path: Path) -> None:
    engine = VoiceEngine(config(), registry=registry())
    recording = engine.record(tmp_path / "talk.jsonl")
    async with engine:
        await perform(engine, [("send_text", "Hello"), ("rest", None)])
        recording.close()
        recording.close()
        size = (tmp_path / "talk.jsonl").stat().st_size
        await perform(engine, [("send_text", "Hello"), ("rest", None)])

    assert (tmp_path / "talk.jsonl").stat().st_size == size
    assert read_recording(recording.path).is_complete


@virtual
async def test_it_begins_before_the_conversation_and_once(tmp_path: Path) -> None:
    engine = VoiceEngine(config(), registry=registry())
    engine.record(tmp_path / "one.jsonl")
    with pytest.raises(UsageError, match="is being recorded already"):
        engine.record(tmp_path / "two.jsonl")
    await engine.disconnect()

    async with VoiceEngine(config(), registry=registry()) as other:
        with pytest.raises(UsageError, match=r"before connect\(\)"):
            other.record(tmp_path / "three.jsonl")


def test_place_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    engine = VoiceEngine(config(), registry=registry())

    with pytest.raises(ConfigError, match="'missing.jsonl' cannot be written"):
        engine.record(tmp_path / "nowhere" / "missing.jsonl")


@pytest.mark.parametrize("path", [None, 7, b"talk.jsonl", ""])
def test_what_is_no_path_is_refused_and_nothing_is_recorded(path: Any, tmp_path: Path) -> None:
    engine = VoiceEngine(config(), registry=registry())

    with pytest.raises(ConfigError, match="The path of a recording is a str or a Path"):
        engine.record(path)
    with pytest.raises(ConfigError, match="The path of a recording is a str or a Path"):
        read_recording(path)
    engine.record(tmp_path / "talk.jsonl")


@virtual
async def test_secret_that_comes_in_mid_call_is_not_in_it(tmp_path: Path) -> None:
    tool = {"type": "mcp", "authorization": "secret of a tool", "headers": {"X-Any": "secret of a header"}}
    engine = VoiceEngine(config(), registry=registry())
    engine.record(tmp_path / "talk.jsonl")
    async with engine:
        with contextlib.suppress(VoxEngineError):
            await engine.configure_session(
                metadata={"token": "secret of the call", "session": {"tools": [tool]}}
            )
        with contextlib.suppress(VoxEngineError):
            await engine.configure_session({"metadata": {"password": "secret of a mapping"}})
        await engine.switch_provider(
            "other", config(provider="other", metadata={"session": {"password": "secret of a switch"}})
        )

    text = (tmp_path / "talk.jsonl").read_text("utf-8")
    assert "configure_session" in text
    assert "secret of" not in text


@virtual
async def test_disk_that_fails_ends_the_recording_and_not_the_conversation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warned = asyncio.Event()
    engine = VoiceEngine(config(), registry=registry())

    @engine.events.on(EventType.WARNING)
    def notice(event: WarningEvent) -> None:
        if event.code == "recording_failed":
            warned.set()

    recording = engine.record(tmp_path / "talk.jsonl")

    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    async with engine:
        monkeypatch.setattr(RecordingWriter, "_write", full)
        await warned.wait()
        await perform(engine, [("send_text", "Hello"), ("rest", None)])
        assert len(engine.history) == 2

    assert recording.n_dropped > 0


def test_slow_disk_costs_lines_and_the_file_says_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voxengine.recording_file._MOST_PENDING_BYTES", 1000)
    is_free = threading.Event()
    write = RecordingWriter._write
    monkeypatch.setattr(RecordingWriter, "_write", lambda self: is_free.is_set() and write(self))
    writer = RecordingWriter(tmp_path / "a.jsonl", {}, [], lambda _: None)

    for number in range(10):
        writer.put({"k": "event", "t": float(number)})
    is_free.set()
    write(writer)
    writer.put({"k": "end", "t": 10.0})
    writer.close()

    tape = read_recording(tmp_path / "a.jsonl")
    assert writer.n_dropped == 7
    assert tape.n_missing == 7
    assert not tape.is_complete
    assert [line["k"] for line in tape.lines] == ["event", "event", "event", "gap", "end"]


# -- the file ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "no recording"),
        (b"hello\n", "no recording"),
        (b'{"voxengine_recording":9}\n', "version 9; this voxengine reads version 1"),
        (b'{"voxengine_recording":1}\n{"k":"event"}\n', "Line 2 .* is damaged"),
        (b'{"voxengine_recording":1}\n[1]\n', "Line 2 .* is damaged"),
        (b"\xff\xfe\n", "it is no text"),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)

    with pytest.raises(ConfigError, match=sentence):
        read_recording(tmp_path / "a.jsonl")


def test_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'none.jsonl' cannot be read"):
        read_recording(tmp_path / "none.jsonl")


def test_line_that_a_crash_cut_is_passed_over(tmp_path: Path) -> None:
    whole = b'{"voxengine_recording":1}\n{"k":"event","t":0.5}\n'
    (tmp_path / "a.jsonl").write_bytes(whole + b'{"k":"event","t":0.6,"text":"caf\xc3')

    tape = read_recording(tmp_path / "a.jsonl")

    assert tape.is_torn
    assert [line["t"] for line in tape.lines] == [0.5]


@virtual
async def test_recorded_engine_costs_an_unrecorded_one_nothing(tmp_path: Path) -> None:
    engine, other = VoiceEngine(config(), registry=registry()), VoiceEngine(config(), registry=registry())

    engine.record(tmp_path / "talk.jsonl")

    assert "send_text" in vars(engine)
    assert "send_text" not in vars(other)
    assert type(other.events).__dict__.keys() == type(engine.events).__dict__.keys()
    await engine.disconnect()
