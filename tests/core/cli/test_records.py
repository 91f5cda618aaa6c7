"""The files of a conversation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxengine.audio.format import AudioFormat
from voxengine.audio.wav import read_wav
from voxengine.cli.records import AnswerRecorder, TranscriptFile, check_target
from voxengine.errors import ConfigError

FORMAT = AudioFormat(16_000)
MS = b"\x01\x02" * 16


@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 60), max_size=4), st.integers(0, 300)),
        max_size=5,
    )
)
def test_recording_is_the_played_beginning_of_each_item(
    tmp_path_factory: pytest.TempPathFactory, items: list[tuple[list[int], int]]
) -> None:
    path = tmp_path_factory.mktemp("answers") / "answer.wav"
    recorder = AnswerRecorder(str(path), FORMAT)

    for number, (chunks_ms, played_ms) in enumerate(items):
        for chunk_ms in chunks_ms:
            recorder.take(str(number), MS * chunk_ms)
        recorder.stopped(str(number), min(played_ms, sum(chunks_ms)))
    recorder.close()

    kept_ms = sum(min(played_ms, sum(chunks_ms)) for chunks_ms, played_ms in items)
    assert read_wav(path).data == MS * kept_ms
    assert recorder.kept_s == pytest.approx(kept_ms / 1000)
    assert recorder.received_s == pytest.approx(sum(sum(chunks_ms) for chunks_ms, _ in items) / 1000)


def test_whole_item_is_kept_to_its_last_sample(tmp_path: Path) -> None:
    recorder = AnswerRecorder(str(tmp_path / "a.wav"), FORMAT)
    audio = MS * 10 + b"\x01\x02" * 7

    length_ms = recorder.take("item", audio)
    recorder.stopped("item", 10)
    recorder.close()

    assert length_ms == 11
    assert read_wav(tmp_path / "a.wav").data == audio


def test_file_is_complete_after_each_answer(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    recorder = AnswerRecorder(str(path), FORMAT)

    recorder.take("item", MS * 2000)
    recorder.stopped("item", 2000)

    assert len(read_wav(path).data) == len(MS) * 2000
    recorder.close()


def test_without_a_file_it_counts(tmp_path: Path) -> None:
    recorder = AnswerRecorder(None, FORMAT)

    recorder.take("item", MS * 100)
    recorder.stopped("item", 40)
    recorder.close()

    assert (recorder.received_s, recorder.kept_s) == (0.1, 0.04)


def test_transcript_line_is_on_the_disk_at_once(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    transcript = TranscriptFile(str(path))

    transcript.add(1.23456, "user", role="user", text="größer", item_id=None)

    assert json.loads(path.read_text("utf-8")) == {
        "at_s": 1.235,
        "kind": "user",
        "role": "user",
        "text": "größer",
    }
    assert "größer" in path.read_text("utf-8")
    transcript.close()


@pytest.mark.parametrize("path", ["new.wav", "old.wav", "/dev/null"])
def test_targets_that_can_be_written_pass(tmp_path: Path, path: str) -> None:
    (tmp_path / "old.wav").write_bytes(b"old")

    check_target("--output", str(tmp_path / path), ["question.wav", None])

    assert (tmp_path / "old.wav").read_bytes() == b"old"
    assert not (tmp_path / "new.wav").exists()


def test_target_that_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(ConfigError, match="is a directory"):
        check_target("--output", str(tmp_path), [])
    with pytest.raises(ConfigError, match="there is no directory"):
        check_target("--output", str(tmp_path / "file" / "a.wav"), [])


def test_half_a_surrogate_pair_is_written_as_a_question_mark(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    transcript = TranscriptFile(str(path))

    transcript.add(0.0, "agent", text="a\ud83d b")
    transcript.close()

    assert json.loads(path.read_text("utf-8"))["text"] == "a? b"
