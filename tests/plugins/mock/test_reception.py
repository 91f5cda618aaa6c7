"""The reception log: every sample, silence apart, and bounds."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxengine.audio.wav import read_wav
from voxengine.errors import ConfigError
from voxengine.testing.conformance.subject import speech_like
from voxengine.testing.emulator import HttpRequest
from voxengine.transport import connect_websocket
from voxengine_mock import reception
from voxengine_mock.emulator import MockEmulator
from voxengine_mock.harness import serve
from voxengine_mock.reception import ReceptionFile, Runs

KEY = {"Authorization": "Bearer sk-drive"}
N_LEAST = 5
REQUEST = HttpRequest(method="GET", target="/talk?key=hidden-from-the-log")


def runs_of(pcm: bytes, cuts: list[int]) -> list[dict[str, Any]]:
    runs = Runs(N_LEAST)
    out: list[dict[str, Any]] = []
    edges = sorted({0, len(pcm), *(2 * min(cut, len(pcm) // 2) for cut in cuts)})
    for start, end in itertools.pairwise(edges):
        out.extend(runs.push(pcm[start:end]))
    return [*out, *runs.end()]


def pcm_of(samples: list[int]) -> bytes:
    return b"".join(n.to_bytes(2, "little", signed=True) for n in samples)


pieces = st.lists(
    st.tuples(st.sampled_from([0, 0, 1, -300]), st.integers(1, 2 * N_LEAST)).map(lambda p: [p[0]] * p[1]),
    max_size=8,
)


@given(pieces, st.lists(st.integers(0, 80), max_size=6))
def test_runs_cover_the_audio_whatever_the_chunks(found: list[list[int]], cuts: list[int]) -> None:
    samples = [n for piece in found for n in piece]
    pcm = pcm_of(samples)

    runs = runs_of(pcm, cuts)

    assert runs == runs_of(pcm, [])
    at = 0
    for run in runs:
        part = samples[at : at + run["n_samples"]]
        assert run["from_sample"] == at
        assert run["sha256"] == hashlib.sha256(pcm_of(part)).hexdigest()
        assert (run["kind"] == "silence") is (not any(part) and len(part) >= N_LEAST)
        at += len(part)
    assert at == len(samples)
    kinds = [run["kind"] for run in runs]
    assert all(a != b for a, b in itertools.pairwise(kinds))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_a_session_is_written_with_its_audio_beside_it(tmp_path: Path) -> None:
    file = ReceptionFile(tmp_path / "talk.jsonl")
    session = file.session(7, REQUEST)
    sound = pcm_of([100, -100] * 1200)

    session.message("hello", {"voice": "aria", "token": "s3cret"})
    session.audio(sound[: 1001 * 2], 24_000)
    session.audio(sound[1001 * 2 :] + bytes(2 * 4800), 24_000)
    session.message("end_turn", {})
    session.audio(sound, 24_000)
    session.closed(1000, "")
    file.close()

    found = lines(tmp_path / "talk.jsonl")
    assert [(e["event"], e.get("kind")) for e in found] == [
        ("opened", None),
        ("message", None),
        ("audio", "sound"),
        ("audio", "silence"),
        ("message", None),
        ("audio", "sound"),
        ("closed", None),
    ]
    assert [(e["from_sample"], e["n_samples"]) for e in found if e["event"] == "audio"] == [
        (0, 2400),
        (2400, 4800),
        (7200, 2400),
    ]
    everything = sound + bytes(2 * 4800) + sound
    closed = found[-1]
    assert (closed["n_samples"], closed["n_silence_samples"]) == (9600, 4800)
    assert closed["sha256"] == hashlib.sha256(everything).hexdigest()
    assert closed["wav"] == ["talk-7.wav"]
    wav = read_wav(tmp_path / "talk-7.wav")
    assert (wav.data, wav.format.sample_rate) == (everything, 24_000)
    text = (tmp_path / "talk.jsonl").read_text("utf-8")
    assert "s3cret" not in text
    assert "hidden-from-the-log" not in text


async def test_every_sample_that_arrived_is_in_the_log_of_a_client_that_left_early(tmp_path: Path) -> None:
    log = tmp_path / "talk.jsonl"
    sound = speech_like(24_000, 500)
    settings = {"input_rate": 24_000, "output_rate": 24_000}
    async with serve(MockEmulator(), log=log) as server:
        connection = await connect_websocket(server.url, provider="mock", headers=KEY)
        await connection.send(json.dumps({"type": "hello", "settings": settings}))
        await connection.recv()
        # All at once, so that the client has left before the first of it is heard.
        for at in range(0, len(sound), 960):
            audio = base64.b64encode(sound[at : at + 960]).decode()
            assert connection.send_nowait(json.dumps({"type": "input_audio", "audio": audio}))
        await connection.close()

    (closed,) = (line for line in lines(log) if line["event"] == "closed")
    assert (closed["code"], closed["n_samples"]) == (1000, 12_000)
    assert closed["sha256"] == hashlib.sha256(sound).hexdigest()


def test_another_sample_rate_gets_another_file(tmp_path: Path) -> None:
    file = ReceptionFile(tmp_path / "talk.jsonl")
    session = file.session(1, REQUEST)

    session.audio(pcm_of([5] * 10), 8_000)
    session.audio(pcm_of([6] * 10), 16_000)
    session.closed(1000, "")
    file.close()

    assert lines(tmp_path / "talk.jsonl")[-1]["wav"] == ["talk-1.wav", "talk-1-2.wav"]
    assert read_wav(tmp_path / "talk-1-2.wav").format.sample_rate == 16_000


def test_a_long_message_is_cut_to_its_name_and_size(tmp_path: Path) -> None:
    file = ReceptionFile(tmp_path / "talk.jsonl")

    file.session(1, REQUEST).message("input_text", {"text": "x" * 300_000})
    file.close()

    entry = lines(tmp_path / "talk.jsonl")[-1]
    assert (entry["name"], entry["is_cut"]) == ("input_text", True)
    assert entry["n_chars"] > 300_000


def test_a_full_log_says_so_and_ends_no_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "MAX_BYTES", 2000)
    file = ReceptionFile(tmp_path / "talk.jsonl")
    session = file.session(1, REQUEST)

    for _ in range(10):
        session.audio(pcm_of([5] * 500), 8_000)
    session.closed(1000, "")

    found = lines(tmp_path / "talk.jsonl")
    assert found[-1] == {"event": "log_full"}
    assert len(read_wav(tmp_path / "talk-1.wav").data) <= 2000


def test_a_log_that_cannot_be_written_is_a_config_error(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "x.jsonl"

    with pytest.raises(ConfigError) as caught:
        ReceptionFile(path)

    assert str(caught.value) == f"The log {str(path)!r} cannot be written: No such file or directory."


def test_a_disk_that_is_full_ends_the_log_and_not_the_session(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = ReceptionFile(tmp_path / "talk.jsonl")
    session = file.session(1, REQUEST)

    file.fail(OSError(28, "No space left on device"))
    session.message("hello", {})
    session.audio(pcm_of([1] * 100), 8_000)
    session.closed(1000, "")

    assert caplog.messages == ["The reception log cannot be written any more: No space left on device."]
