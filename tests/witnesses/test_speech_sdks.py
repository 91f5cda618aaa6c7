"""Azure's own Speech SDKs, for Python and JavaScript, cannot tell the emulator from the service.

Each scenario runs in a process of its own with a deadline: the SDK for Python is native code with threads.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.plugins.azure.support import serving
from tests.witnesses.conftest import SESSION, absent

HERE = Path(__file__).parent
MODULES = os.environ.get("VOXENGINE_TEST_NODE_MODULES", "")
"""The folder into which the session put what npm/package-lock.json names."""
DEADLINE_S = 60
HEARS = ["call voxengine now, please", "and the second one"]
WITNESSES = ("python", "javascript")

pytestmark = pytest.mark.slow


@functools.cache
def python_program() -> tuple[str, ...] | str:
    """How the SDK for Python is started, or why its library does not load on this machine."""
    probe = [sys.executable, "-W", "ignore", "-c", "import azure.cognitiveservices.speech"]
    done = subprocess.run(probe, capture_output=True, check=False, timeout=DEADLINE_S, text=True)
    if not done.returncode:
        return (sys.executable, "-W", "ignore", str(HERE / "speech_sdk_scenarios.py"))
    reason = done.stderr.strip().rpartition("\n")[2]
    if "ModuleNotFoundError" in reason:
        absent(f"there is no azure-cognitiveservices-speech ({reason})")
    return (
        "the library of azure-cognitiveservices-speech does not load on this machine. Its wheels are for Linux "
        f"with glibc, macOS and Windows, and on Linux it needs libssl3 and libasound2: {reason}"
    )


@functools.cache
def node_program() -> tuple[str, ...] | str:
    """How the SDK for Node is started, or why it cannot be."""
    node = shutil.which("node")
    if not (node and MODULES):
        return f"there is no node, or not the npm package microsoft-cognitiveservices-speech-sdk: {SESSION}"
    return (node, str(HERE / "npm" / "speech_sdk_scenarios.cjs"))


async def drive(witness: str, scenario: str, *, key: str = "sk-drive", **script: Any) -> Any:
    """What an SDK reports of a scenario."""
    program = python_program() if witness == "python" else node_program()
    if isinstance(program, str):
        pytest.skip(program)
    async with serving(hears=HEARS, **script) as (_, url):
        process = await asyncio.create_subprocess_exec(
            *program,
            url,
            key,
            scenario,
            env={**os.environ, "NODE_PATH": MODULES},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(DEADLINE_S):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode == 0, err.decode()
    return json.loads(out)


@pytest.mark.parametrize("witness", WITNESSES)
async def test_one_utterance_is_recognised(witness: str) -> None:
    found = await drive(witness, "single")

    assert (found["reason"], found["text"]) == ("RecognizedSpeech", "Call voxengine now, please.")
    assert found["duration_ms"] == pytest.approx(1200, abs=60)


@pytest.mark.parametrize("witness", WITNESSES)
async def test_two_utterances_come_detailed_with_the_times_of_their_words(witness: str) -> None:
    found = await drive(witness, "continuous")

    assert [entry["text"] for entry in found["final"]] == [
        "Call voxengine now, please.",
        "And the second one.",
    ]
    assert found["partial"][:2] == ["call", "call voxengine"]
    assert found["canceled"] == ["EndOfStream"]
    second = found["final"][1]
    best = second["json"]["NBest"][0]
    assert [word["Word"] for word in best["Words"]] == ["and", "the", "second", "one"]
    assert second["offset_ms"] == pytest.approx(2700, abs=60)
    assert best["Words"][0]["Offset"] // 10_000 == second["offset_ms"]


@pytest.mark.parametrize("witness", WITNESSES)
async def test_silence_is_no_match(witness: str) -> None:
    found = await drive(witness, "quiet")

    assert (found["reason"], found["detail"]) == ("NoMatch", "InitialSilenceTimeout")


@pytest.mark.parametrize("witness", WITNESSES)
async def test_phrase_list_gives_words_their_spelling(witness: str) -> None:
    found = await drive(witness, "phrase_list")

    assert found["text"] == "Call VoxEngine now, please."


@pytest.mark.parametrize(
    # The client for JavaScript cannot see the status of a refused hand-shake.
    ("witness", "detail"),
    [("python", "AuthenticationFailure"), ("javascript", "ConnectionFailure")],
)
async def test_wrong_key_is_an_authentication_failure(witness: str, detail: str) -> None:
    found = await drive(witness, "wrong_key")

    assert (found["reason"], found["detail"]) == ("Canceled", detail)


async def test_wrong_key_for_synthesis_is_an_authentication_failure() -> None:
    found = await drive("python", "wrong_key_speaking")

    assert (found["reason"], found["detail"]) == ("Canceled", "AuthenticationFailure")


async def test_token_opens_what_the_key_opens() -> None:
    found = await drive("python", "token")

    assert (found["reason"], found["text"]) == ("RecognizedSpeech", "Call voxengine now, please.")


async def test_language_is_identified_at_an_endpoint_without_a_path() -> None:
    found = await drive("python", "languages")

    assert (found["reason"], found["language"]) == ("RecognizedSpeech", "de-DE")


async def test_transcription_names_the_speaker() -> None:
    found = await drive("python", "transcriber")

    assert found["speakers"] == ["Guest-1"]


@pytest.mark.parametrize("witness", WITNESSES)
async def test_text_is_spoken_with_the_times_of_its_words(witness: str) -> None:
    found = await drive(witness, "text")

    words = [entry[0] for entry in found["words"]]
    assert found["reason"] == "SynthesizingAudioCompleted"
    assert words == ["Hello", "to", "all", "of", "you", ",", "my", "friends", "."]
    assert found["n_visemes"] > len(words)
    # By default 16 kHz with the header of a WAV file.
    assert found["n_bytes"] == pytest.approx(32 * found["duration_ms"], abs=100)


@pytest.mark.parametrize("witness", WITNESSES)
async def test_ssml_is_spoken_with_its_bookmarks(witness: str) -> None:
    found = await drive(witness, "ssml")

    assert found["reason"] == "SynthesizingAudioCompleted"
    assert found["bookmarks"] == ["b1"]


@pytest.mark.parametrize("witness", WITNESSES)
async def test_two_texts_are_spoken_one_after_the_other(witness: str) -> None:
    found = await drive(witness, "two_texts")

    assert [entry["reason"] for entry in found] == ["SynthesizingAudioCompleted"] * 2


@pytest.mark.parametrize("witness", WITNESSES)
async def test_voice_that_does_not_exist_is_a_bad_request(witness: str) -> None:
    found = await drive(witness, "bad_voice")

    assert found["reason"] == "Canceled"
    assert "Unsupported voice nobody" in found["message"]


async def test_long_text_is_cancelled_and_the_next_one_is_spoken() -> None:
    first, second = await drive("python", "cancel", pace=5)

    assert (first["reason"], second["reason"]) == ("Canceled", "SynthesizingAudioCompleted")
    assert first["n_bytes"] < 200_000
