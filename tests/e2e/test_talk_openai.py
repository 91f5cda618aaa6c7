"""The conversation as a user of OpenAI's service has it, from the command line, against the emulator."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.test_emulate_command import COMMAND, ENVIRONMENT, emulator
from voxengine.audio.format import AudioFormat
from voxengine.audio.wav import read_wav

QUESTION = Path(__file__).resolve().parents[2] / "examples" / "data" / "question.wav"
SCRIPT = """\
delay_ms = 20
pace = 50
hears = ["What is the weather like in Lisbon?"]

[responses."*weather*"]
tool = "get_weather"
arguments = { city = "Lisbon" }
then = "It is {result.sky} in {result.city}."
"""
TOOL = '''
def get_weather(city: str) -> dict[str, str]:
    """Say how the weather is."""
    return {"city": city, "sky": "sunny"}
'''
SHOWN = [
    r" +with  openai \(sess_\w+\), connected in \d+ ms",
    r" +input  question\.wav: 2\.7 s, 16000 Hz mono, converted to 24000 Hz mono",
    r" +you  What is the weather like in Lisbon\?",
    r" +tool  get_weather\(city=Lisbon\)",
    r" +get_weather → {\"city\": \"Lisbon\", \"sky\": \"sunny\"}",
    r" +agent  It is sunny in Lisbon\.",
    r" +done  1 turn in \d+\.\d s",
    r" +usage  2 responses · tokens: \d+ total, \d+ input, \d+ output, .*\d+ output audio, .*",
    r" +cost  \$0\.0\d+",
    r" +files  answer\.wav \(\d\.\d s of answers\)",
]


def talk(folder: Path, *arguments: str, key: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in ENVIRONMENT.items() if not name.startswith("OPENAI_")}
    if key is not None:
        environment["OPENAI_API_KEY"] = key
    return subprocess.run(
        [*COMMAND, "talk", "--provider", "openai", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.slow
def test_a_question_is_answered_with_a_tool_and_priced(tmp_path: Path) -> None:
    (tmp_path / "script.toml").write_text(SCRIPT, "utf-8")
    (tmp_path / "weather.py").write_text(TOOL, "utf-8")
    files = ("--input", str(QUESTION), "--output", "answer.wav", "--transcript", "talk.jsonl")

    with emulator("--script", str(tmp_path / "script.toml"), name="openai") as (_, line):
        done = talk(tmp_path, "--url", line["url"], *files, "--tool", "weather.py:get_weather")

    assert (done.returncode, done.stderr) == (0, "")
    lines = iter(done.stdout.splitlines())
    assert [pattern for pattern in SHOWN if not any(re.fullmatch(pattern, line) for line in lines)] == []
    answer = read_wav(tmp_path / "answer.wav")
    assert answer.format == AudioFormat(24_000)
    assert answer.format.duration_ms(len(answer.data)) > 500
    assert max(memoryview(answer.data).cast("h")) > 3000
    told = [json.loads(line) for line in (tmp_path / "talk.jsonl").read_text("utf-8").splitlines()]
    assert [entry["kind"] for entry in told] == ["user", "tool_call", "tool_result", "agent"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "key", "words"),
    [
        ((), "sk-somebody-elses", "Check the API key"),
        (("--model", "gpt-of-nobody"), None, "The model `gpt-of-nobody` does not exist"),
        (("--metadata", "speed=9"), None, "metadata['speed'] is 9; it takes a number from 0.25 to 1.5."),
    ],
)
def test_what_cannot_be_had_is_one_sentence(
    arguments: tuple[str, ...], key: str | None, words: str, tmp_path: Path
) -> None:
    with emulator(name="openai") as (_, line):
        done = talk(tmp_path, "--url", line["url"], "--text", "Hello", *arguments, key=key)

    assert done.returncode in (1, 2)
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert "sk-" not in done.stdout + done.stderr


@pytest.mark.slow
def test_service_without_a_key_is_one_sentence(tmp_path: Path) -> None:
    done = talk(tmp_path, "--text", "Hello")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "voxengine: openai has no API key. Set api_key in the configuration or OPENAI_API_KEY in the environment.\n"
    )
