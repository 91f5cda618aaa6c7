"""Services that end or fall silent as processes of their own: nothing that was said is lost, and nothing is done twice."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.core.continuity.matrix import contains_once
from tests.core.engine.fakes import Seen, silence, speak
from tests.e2e.test_emulate_command import COMMAND, ENVIRONMENT, emulator
from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.audio.format import AudioFormat
from voxengine.audio.pcm import convert
from voxengine.audio.wav import read_wav
from voxengine.config import Deadlines
from voxengine.events import EventType
from voxengine.testing import leak_check

QUESTION = Path(__file__).resolve().parents[2] / "examples" / "data" / "question.wav"
RATE = 24_000
DEADLINES = Deadlines(handshake_s=5, ready_s=5, first_output_s=2, progress_s=2)
KEY = "sk-drive"
SCRIPT = """\
delay_ms = 10
pace = 50
hears = ["what is the weather like"]

[responses]
"*tool that you called*" = "Sunny."
"*first*" = "Yes."

[responses."*weather*"]
tool = "get_weather"
arguments = { city = "Lisbon" }
then = "Sunny."
"""


def question() -> bytes:
    """A question in speech, at the rate of the services."""
    held = read_wav(QUESTION)
    return convert(held.data, held.format, AudioFormat(RATE))


def config_of(service: str, url: str, **options: Any) -> VoiceEngineConfig:
    """How a client speaks with an emulated service."""
    metadata: dict[str, Any] = {"url": url}
    if service.startswith("azure"):
        metadata = {"endpoint": url}
    if service == "azure-openai":
        metadata["deployment"] = "talk"
    name = "azure" if service.startswith("azure") else service
    return VoiceEngineConfig(
        provider=name, api_key=KEY, metadata=metadata, deadlines=DEADLINES, input_format=AudioFormat(RATE), **options
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        "reset at=input:after_audio_ms=500",
        "stall at=input:after_audio_ms=500",
        "stall at=response:1",
        "reset at=response:2",
        "stall at=response:2",
        "close at=tool_result:1 code=1011",
    ],
)
async def test_question_is_answered_once_and_its_tool_runs_once(fault: str, tmp_path: Path) -> None:
    runs: list[str] = []

    def get_weather(city: str) -> str:
        """Tell the weather."""
        runs.append(city)
        return "sunny"

    (tmp_path / "script.toml").write_text(SCRIPT, "utf-8")
    options = ("--script", str(tmp_path / "script.toml"), "--fault", fault)
    with emulator(*options, name="openai") as (_, line):
        config = config_of("openai", line["url"], tools=[get_weather])
        async with leak_check(), VoiceEngine(config) as engine:
            seen = Seen(engine)
            await speak(engine, question())
            await engine.end_turn()
            await engine.wait_idle(timeout_s=20)
            is_speaking = engine._conversation.user.is_speaking

    assert not is_speaking
    assert runs == ["Lisbon"]
    kinds = [str(item.kind) for item in engine.history]
    assert kinds.count("user_audio") == kinds.count("tool_call") == kinds.count("tool_result") == 1
    assert kinds[-1] == "agent"
    assert seen.one(EventType.PROVIDER_SWITCHED).reason == "reconnect"
    assert set(seen.endings().values()) == {1}
    assert {len(endings) for endings in seen.session_endings().values()} == {1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("openai", "azure-openai"),
        ("openai", "azure-voice-live"),
        ("azure-openai", "openai"),
        ("openai", "mock"),
    ],
)
async def test_service_stopped_with_ctrl_c_in_mid_sentence_leaves_the_whole_question_to_the_other(
    first: str, second: str, tmp_path: Path
) -> None:
    spoken = question()
    hear = ("--log", str(tmp_path / "second.jsonl"))
    with emulator(name=first) as (process, one), emulator(*hear, name=second) as (other, two):
        config = config_of(first, one["url"], fallbacks=[config_of(second, two["url"])])
        async with leak_check(), VoiceEngine(config) as engine:
            seen = Seen(engine)
            engine.events.once(EventType.SPEECH_STARTED, lambda _: process.send_signal(signal.SIGINT))
            await speak(engine, spoken + silence(900, RATE), paced=True, rate=RATE)
            await engine.wait_idle(timeout_s=30)
        other.send_signal(signal.SIGINT)
        assert other.wait(timeout=30) == 0

    assert process.returncode == 0
    assert engine.config.provider == ("azure" if second.startswith("azure") else second)
    assert seen.one(EventType.PROVIDER_SWITCHED).reason == "failover"
    assert [item.role for item in engine.history] == ["user", "agent"]
    heard = read_wav(tmp_path / "second-1.wav")
    assert contains_once(heard.data, heard.format.sample_rate, spoken)
    assert {len(endings) for endings in seen.session_endings().values()} == {1}


@pytest.mark.slow
def test_command_goes_on_with_the_fallback(tmp_path: Path) -> None:
    logs = [tmp_path / "first.jsonl", tmp_path / "second.jsonl"]
    with (
        emulator("--log", str(logs[0]), name="openai") as (process, one),
        emulator("--log", str(logs[1]), name="azure-openai") as (other, two),
    ):
        (tmp_path / "voxengine.toml").write_text(
            f'[profiles.spare]\nprovider = "azure"\napi_key = "{KEY}"\n\n'
            f'[profiles.spare.metadata]\nendpoint = "{two["url"]}"\ndeployment = "talk"\n',
            "utf-8",
        )
        talk = subprocess.Popen(
            [*COMMAND, "talk", "--provider", "openai", "--url", one["url"], "--fallback", "spare",
             "--input", str(QUESTION)],
            cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert talk.stdout is not None
        begun = talk.stdout.readline() + talk.stdout.readline()
        in_mid_sentence = threading.Timer(1.2, process.send_signal, (signal.SIGINT,))
        in_mid_sentence.start()
        out, err = talk.communicate(timeout=60)
        in_mid_sentence.join()
        other.send_signal(signal.SIGINT)
        assert other.wait(timeout=30) == 0

    assert (talk.returncode, err) == (0, "")
    assert "input  question.wav" in begun
    assert "from openai to azure" in out
    assert "You said: hello there" in out
    sounds = [json.loads(line) for line in logs[1].read_text("utf-8").splitlines()]
    assert (
        sum(line["n_samples"] for line in sounds if line.get("kind") == "sound") > 0.99 * len(question()) // 2
    )


def talk_with_nobody_first(tmp_path: Path, spare: str) -> subprocess.CompletedProcess[str]:
    """Let the command begin with a service that is away, and a fallback."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # Bound and not listening: whoever comes is refused.
        away = f"ws://127.0.0.1:{held.getsockname()[1]}"
        return subprocess.run(
            [*COMMAND, "talk", "--provider", "mock", "--url", away, "--text", "Hello", "--fallback", f"mock={spare or away}"],
            cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip


def test_command_begins_with_the_fallback_when_the_first_is_away(tmp_path: Path) -> None:
    with emulator(name="mock") as (_, ready):
        done = talk_with_nobody_first(tmp_path, ready["url"])

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.index("could not be reached") < done.stdout.index("with  mock")
    assert "You said: Hello" in done.stdout


def test_command_names_everyone_who_is_away(tmp_path: Path) -> None:
    done = talk_with_nobody_first(tmp_path, "")

    assert done.returncode == 1
    said, note = done.stderr.splitlines()
    assert said.startswith("voxengine: mock could not be reached")
    assert note.strip().startswith("mock of the fallbacks could not be had either: mock could not be reached")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("=ws://127.0.0.1:9", "--fallback takes a profile"),
        ("mock=", "--fallback takes"),
        ("nobody", "No provider named"),
    ],
)
def test_fallback_that_is_none_is_one_sentence(value: str, words: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "talk", "--provider", "mock", "--text", "Hello", "--fallback", value],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
