"""Every example runs offline, as a user starts it, and shows what it promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from voxengine.audio.format import AudioFormat
from voxengine.audio.wav import read_wav

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DEMO = "demo_conversation.py"

SHOWN = {
    "hello_text.py": ["agent: Hi there! How can I help?"],
    "speak_file.py": [
        "you:   What is the weather like?",
        "agent: It is sunny, and it will stay so.",
        "wrote answer.wav: ",
    ],
    "tools.py": [
        "call:   book_table {'guests': 4, 'time': '19:30'}",
        "result: {'table': 7, 'time': '19:30', 'guests': 4}",
        "agent:  Done: table 7 at 19:30.",
    ],
    "interruption.py": ["heard ", "of 'Once upon a time"],
    "switch_provider.py": [
        "mock: Nice to meet you, Ada!",
        "-- now with second; context: full",
        "second: You said: Ada",
    ],
    "taps.py": ["agent: You said: How is the weather in [city]?", "loudest sample: 70%"],
    "openai_conversation.py": [
        "user_audio: Call get_weather for Lisbon.",
        'tool_call: {"city": "Lisbon"}',
        "tool_result: It is sunny in Lisbon.",
        "agent: Get weather says: It is sunny in Lisbon.",
        "used: {'n_responses': 2, ",
    ],
    "custom_provider.py": ["echo: I heard: Is anybody there?"],
    DEMO: [
        "      you  What is the weather like in Lisbon today?",
        "     tool  get_weather returned {'sky': 'sunny', 'celsius': 24}",
        "    agent  It is sunny in Lisbon, ",
        "      you  Thank you. Do I need an umbrella?",
        "    agent  No umbrella today. Enjoy the sun!",
        "demo/answer.wav: ",
    ],
}
"""How lines of the output begin, in this order."""


def run_example(name: str, folder: Path) -> str:
    """Run an example in a folder of its own with every warning an error; return what it printed."""
    environment = {**os.environ, "PYTHONWARNINGS": "error", "PYTHONUTF8": "1"}
    command = [sys.executable, str(EXAMPLES / name)]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What the demonstration prints, and where it ran; once, since it takes as long as it talks."""
    folder = tmp_path_factory.mktemp("demonstration")
    return run_example(DEMO, folder), folder


def test_every_example_is_run_here() -> None:
    assert set(SHOWN) == {path.name for path in EXAMPLES.glob("*.py")}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHOWN)
def test_example_shows_what_it_promises(name: str, tmp_path: Path, demo: tuple[str, Path]) -> None:
    printed = demo[0] if name == DEMO else run_example(name, tmp_path)
    lines = iter(printed.splitlines())

    missing = [start for start in SHOWN[name] if not any(line.startswith(start) for line in lines)]

    assert missing == []


def test_demo_writes_the_answer_and_the_transcript(tmp_path: Path) -> None:
    run_example("demo_conversation.py", tmp_path)

    answer = read_wav(tmp_path / "demo" / "answer.wav")
    lines = [
        json.loads(line) for line in (tmp_path / "demo" / "transcript.jsonl").read_text("utf-8").splitlines()
    ]
    assert answer.format == AudioFormat(24_000)
    assert answer.format.duration_ms(len(answer.data)) > 3000
    assert max(memoryview(answer.data).cast("h")) > 3000
    assert [line["who"] for line in lines] == ["you", "tool", "agent", "you", "agent"]
    assert [line["at_s"] for line in lines] == sorted(line["at_s"] for line in lines)


def test_conversation_with_openai_is_a_short_program() -> None:
    lines = (EXAMPLES / "openai_conversation.py").read_text("utf-8").splitlines()

    assert sum(bool(line.strip()) for line in lines) < 25


@pytest.mark.parametrize("name", ["question.wav", "interruption.wav"])
def test_recordings_are_loud_mono_speech(name: str) -> None:
    recording = read_wav(EXAMPLES / "data" / name)

    assert recording.format == AudioFormat(16_000)
    assert (EXAMPLES / "data" / name).stat().st_size < 300_000
    assert 20_000 < max(memoryview(recording.data).cast("h")) < 32_000
