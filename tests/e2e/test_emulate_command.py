"""``voxengine emulate`` as a process: one line, one URL, a clean end; and the conversation behind it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.plugins.mock.support import silence, voice_saying
from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.audio.format import AudioFormat
from voxengine.audio.wav import read_wav, write_wav

COMMAND = [sys.executable, "-m", "voxengine"]
ENVIRONMENT = {**os.environ, "PYTHONUTF8": "1", "NO_COLOR": "1"}
SCRIPT = """\
seed = 4
delay_ms = 20
pace = 50
hears = ["what is the weather in Lisbon"]

[responses]
"Hello" = "Hi there!"
"*weather*" = "Sunny, as always."
"""


@contextmanager
def emulator(*arguments: str, name: str = "mock") -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A running emulator and the line that it printed; killed when the block did not end it."""
    process = subprocess.Popen(
        [*COMMAND, "emulate", name, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise AssertionError(process.communicate()[1])
        yield process, json.loads(line)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def end(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> tuple[int, str, str]:
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_closes_the_sessions_with_1001_and_the_command_ends_well(number: int) -> None:
    with emulator() as (process, line):
        with connect(line["url"], additional_headers={"Authorization": "Bearer sk-drive"}, proxy=None) as ws:
            ws.send('{"type": "hello"}')
            ready = json.loads(ws.recv(timeout=20))
            ended = end(process, number)
            with pytest.raises(Exception, match="1001"):
                ws.recv(timeout=20)

    assert ready["type"] == "ready"
    assert ended == (0, "", "")
    assert line.keys() == {"name", "url", "http_url", "pid"}
    assert line["pid"] == process.pid
    assert re.fullmatch(r"ws://127\.0\.0\.1:\d+", line["url"])


def test_the_command_talks_with_it_over_tls(tmp_path: Path) -> None:
    (tmp_path / "talk.toml").write_text(SCRIPT)
    ca_file, log = tmp_path / "ca.pem", tmp_path / "received.jsonl"

    with emulator("--script", str(tmp_path / "talk.toml"), "--tls-ca", str(ca_file), "--log", str(log)) as (
        process,
        line,
    ):
        talked = run(
            "talk", "--provider", "mock", "--url", line["url"], "--metadata", f"ca_file={ca_file}",
            "--text", "Hello", "--fast", "--transcript", str(tmp_path / "talk.jsonl"),
        )  # fmt: skip
        ended = end(process)

    assert talked.returncode == 0, talked.stderr
    assert "Hi there!" in talked.stdout
    assert line["url"].startswith("wss://")
    assert line["ca_file"] == str(ca_file)
    assert ended == (0, "", "")
    received = [json.loads(text) for text in log.read_text().splitlines()]
    assert [e["fields"]["text"] for e in received if e.get("name") == "input_text"] == ["Hello"]


def test_the_log_holds_every_sample_that_was_sent_and_silence_apart(tmp_path: Path) -> None:
    (tmp_path / "talk.toml").write_text(SCRIPT)
    speech = asyncio.run(voice_saying("what is the weather in Lisbon"))
    sent = silence(100) + speech + silence(700)
    write_wav(tmp_path / "question.wav", sent, AudioFormat(24_000))

    with emulator("--script", str(tmp_path / "talk.toml"), "--log", str(tmp_path / "log.jsonl")) as (
        process,
        line,
    ):
        talked = run(
            "talk", "--provider", "mock", "--url", line["url"], "--input", str(tmp_path / "question.wav"),
            "--fast",
        )  # fmt: skip
        end(process)

    assert talked.returncode == 0, talked.stderr
    assert "Sunny, as always." in talked.stdout
    entries = [json.loads(text) for text in (tmp_path / "log.jsonl").read_text().splitlines()]
    closed = entries[-1]
    received = read_wav(tmp_path / closed["wav"][0]).data
    runs = [e for e in entries if e["event"] == "audio"]
    assert received[: len(sent)] == sent
    assert not any(received[len(sent) :])
    assert closed["sha256"] == hashlib.sha256(received).hexdigest()
    assert sum(e["n_samples"] for e in runs) * 2 == len(received)
    for e in runs:
        part = received[2 * e["from_sample"] : 2 * (e["from_sample"] + e["n_samples"])]
        assert hashlib.sha256(part).hexdigest() == e["sha256"]
        assert (e["kind"] == "silence") is not any(part)
    assert runs[0]["kind"] == "silence"
    assert runs[0]["n_samples"] >= 2400


def test_last_of_several_questions_is_answered_however_fast_they_come(tmp_path: Path) -> None:
    speech = asyncio.run(voice_saying("what now"))
    write_wav(tmp_path / "three.wav", (speech + silence(1500)) * 3, AudioFormat(24_000))

    with emulator() as (process, line):
        arguments = ("--url", line["url"], "--input", str(tmp_path / "three.wav"), "--fast")
        talked = run("talk", "--provider", "mock", *arguments)
        end(process)

    assert talked.returncode == 0, talked.stderr
    said = re.findall(r"^ +(you|agent)  ", talked.stdout, re.MULTILINE)
    assert said.count("you") == 3
    assert said[-1] == "agent"


async def conversation(url: str | None, script: Path, speech: bytes) -> list[tuple[str, str]]:
    """What is said on both sides of a spoken and a written turn."""
    metadata: dict[str, Any] = {"script": str(script)} if url is None else {"url": url}
    config = VoiceEngineConfig(provider="mock", metadata=metadata, playback="null")
    said: list[tuple[str, str]] = []
    async with VoiceEngine(config) as engine:
        engine.events.on(
            "input_transcript", lambda e: said.append(("user", e.text)) if not e.is_partial else None
        )
        engine.events.on(
            "text_output", lambda e: said.append(("agent", e.text)) if not e.is_partial else None
        )
        await engine.send_audio(speech)
        await engine.end_turn()
        await engine.wait_idle(timeout_s=30)
        await engine.send_text("Hello")
        await engine.wait_idle(timeout_s=30)
    return said


async def test_one_script_gives_one_conversation_in_memory_and_over_the_socket(tmp_path: Path) -> None:
    script = tmp_path / "talk.toml"
    script.write_text(SCRIPT)
    speech = await voice_saying("hello") + silence(600)

    with emulator("--script", str(script)) as (_, line):
        over_socket = await conversation(line["url"], script, speech)
    in_memory = await conversation(None, script, speech)

    assert over_socket == in_memory
    assert in_memory == [
        ("user", "what is the weather in Lisbon"),
        ("agent", "Sunny, as always."),
        ("agent", "Hi there!"),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope"], "No emulator named 'nope'. Installed:"),
        (["mock", "--host", "0.0.0.0"], "could be reached by other machines"),
        (["mock", "--port", "70000"], "70000 is no port."),
        (["mock", "--script", "nowhere.toml"], "The script 'nowhere.toml' cannot be read"),
        (["mock", "--speed", "0"], "speed is 0; it takes a number from 0.1 to 1000"),
        (["mock", "--fault", "429 at=never"], "names no point 'never'"),
        (["mock", "--key", ""], "An empty --key would refuse every client. Give one, or leave --key out."),
        (["mock", "--key", "  "], "An empty --key would refuse every client."),
        (["mock", "--tls-ca", "/"], "The certificate cannot be written to '/': Is a directory."),
        (["mock", "--log", "/nowhere/at/all.jsonl"], "The log '/nowhere/at/all.jsonl' cannot be written"),
        (
            ["mock", "--tls-ca", "/nowhere/at/all.pem"],
            "The certificate cannot be written to '/nowhere/at/all.pem'",
        ),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_code_2(arguments: list[str], message: str) -> None:
    done = run("emulate", *arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_script_with_an_error_names_file_line_and_key(tmp_path: Path) -> None:
    script = tmp_path / "talk.toml"
    script.write_text('seed = 1\n[[faults]]\ndo = "stall"\nat = "trun:2"\n')

    done = run("emulate", "mock", "--script", str(script))

    assert done.returncode == 2
    assert done.stderr.startswith(f"voxengine: {script}, line 4: faults[0].at names no point 'trun'.")


def test_a_port_in_use_is_one_sentence_and_exit_code_2() -> None:
    with emulator() as (_, line):
        port = line["url"].rpartition(":")[2]
        done = run("emulate", "mock", "--port", port)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"voxengine: Port {port} of 127.0.0.1 is in use. Give another one, or 0 for any that is free.\n"
    )


def test_another_key_is_taken_when_told_to() -> None:
    with emulator("--key", "sk-mine") as (_, line):
        with connect(line["url"], additional_headers={"Authorization": "Bearer sk-mine"}, proxy=None):
            pass
        with pytest.raises(Exception, match="401"):
            connect(line["url"], additional_headers={"Authorization": "Bearer sk-drive"}, proxy=None)


def test_help_of_the_command_loads_no_dependency() -> None:
    program = (
        "import json, sys; from voxengine.cli import main; main(['emulate', '--help']); "
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert loaded & {"attr", "attrs", "pluggy", "asyncio", "numpy", "websockets", "trustme"} == set()
