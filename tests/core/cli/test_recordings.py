"""``voxengine talk --record``, ``replay`` and ``inspect``."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.core.recording.talks import Step, held, hold
from voxengine.testing import run_virtual

Command = Callable[..., tuple[int, str, str]]
TALK: list[Step] = [
    ("send_text", "Hello"),
    ("rest", None),
    ("speak", "What time is it?"),
    ("rest", None),
    ("send_text", "call clock please"),
    ("rest", None),
    ("send_text", "Tell me a story"),
    ("wait", 0.9),
    ("interrupt", None),
    ("switch", "other"),
]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recorded") / "talk.jsonl"
    held(path, TALK)
    return path


def test_replay_says_that_every_event_is_the_same(voxengine: Command, recorded: Path) -> None:
    code, out, err = voxengine("replay", str(recorded))

    assert (code, err) == (0, "")
    assert "Every event is the same but for its time." in out


def test_replay_names_what_differs_and_fails(voxengine: Command, recorded: Path, tmp_path: Path) -> None:
    text = recorded.read_text("utf-8")
    (tmp_path / "forged.jsonl").write_text(text.replace('"reason":"requested"', '"reason":"forged"'), "utf-8")

    code, out, _ = voxengine("replay", str(tmp_path / "forged.jsonl"))
    json_code, json_out, _ = voxengine("replay", str(tmp_path / "forged.jsonl"), "--json")

    assert (code, json_code) == (1, 1)
    assert "data['reason'] differ" in out
    assert not json.loads(json_out)["is_same"]


@pytest.mark.parametrize("command", ["replay", "inspect"])
def test_what_is_no_recording_is_wrong_use(voxengine: Command, tmp_path: Path, command: str) -> None:
    (tmp_path / "a.jsonl").write_text("hello\n", "utf-8")

    code, _, err = voxengine(command, str(tmp_path / "a.jsonl"))

    assert code == 2
    assert "'a.jsonl' is no recording" in err


def test_inspect_prints_a_timeline(voxengine: Command, recorded: Path) -> None:
    code, out, err = voxengine("inspect", str(recorded))

    assert (code, err) == (0, "")
    lines = [re.sub(r" +", " ", line).strip() for line in out.splitlines()]
    assert "Sessions: mock (wire), other (wire). Kept: audio and words." in lines
    said = [line.partition(" ")[2] for line in lines]
    for entry in (
        "user “Hello” (text)",
        "agent “Hi there! How can I help you today?”",
        "user “What time is it?”",
        "tool clock() returned after 300 ms",
    ):
        assert entry in said
    assert any("interrupted asked for;" in line for line in said)
    assert any("mock → other (requested)" in line for line in said)
    times = [float(line.split()[0]) for line in lines if re.match(r"\d+\.\d{3} ", line)]
    assert times == sorted(times)


def test_inspect_as_json_holds_the_figures(voxengine: Command, recorded: Path) -> None:
    _, out, _ = voxengine("inspect", str(recorded), "--json")

    value = json.loads(out)
    assert value["n_interruptions"] == 1
    assert value["taps"] == ["wire", "wire"]
    assert value["is_complete"]
    assert all(0 <= latency < 2000 for latency in value["latencies_ms"])
    assert len(value["latencies_ms"]) == 4


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta",):
            self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_picture_needs_nothing_else_and_draws_what_happened(
    voxengine: Command, recorded: Path, tmp_path: Path
) -> None:
    page = tmp_path / "talk.html"

    code, _, _ = voxengine("inspect", str(recorded), "--html", str(page))

    text = page.read_text("utf-8")
    tags = _Tags()
    tags.feed(text)
    assert (code, tags.open, tags.links) == (0, [], [])
    assert "<script" not in text
    drawing = ElementTree.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])
    kinds = [element.get("class") for element in drawing.iter() if element.get("class")]
    assert {"user-span", "agent-span", "wait", "cut", "tool"} <= set(kinds)
    paths = [element.get("d") or "" for element in drawing.iter("path") if element.get("class") != "wait"]
    assert all(path.count("z") > 20 for path in paths)


def test_what_was_said_cannot_break_the_page(voxengine: Command, tmp_path: Path) -> None:
    held(tmp_path / "a.jsonl", [("send_text", "</svg><script>alert('x')</script>"), ("rest", None)])

    voxengine("inspect", str(tmp_path / "a.jsonl"), "--html", str(tmp_path / "a.html"))

    assert "<script" not in (tmp_path / "a.html").read_text("utf-8")


def test_recording_without_words_and_audio_is_shown_all_the_same(voxengine: Command, tmp_path: Path) -> None:
    options = {"audio": False, "transcripts": False}
    run_virtual(hold(tmp_path / "a.jsonl", TALK, options=options))

    code, out, _ = voxengine("inspect", str(tmp_path / "a.jsonl"), "--html", str(tmp_path / "a.html"))

    assert code == 0
    assert "neither audio nor words" in out
    assert "“xxxxx” (text)" in out


def test_recording_that_a_crash_cut_is_shown_and_said_to_be_cut(
    voxengine: Command, recorded: Path, tmp_path: Path
) -> None:
    whole = recorded.read_bytes()
    (tmp_path / "cut.jsonl").write_bytes(whole[: len(whole) // 2])

    code, out, _ = voxengine("inspect", str(tmp_path / "cut.jsonl"))

    assert code == 0
    assert "was not ended in order" in out


def test_talk_records_what_can_be_run_again(voxengine: Command, tmp_path: Path) -> None:
    file = tmp_path / "talk.jsonl"

    code, _, err = voxengine("talk", "--provider", "mock", "--text", "Hello", "--fast", "--record", str(file))
    replayed, out, _ = voxengine("replay", str(file))

    assert (code, replayed) == (0, 0), err
    assert "Every event is the same" in out


def test_talk_refuses_a_place_that_cannot_be_written(voxengine: Command, tmp_path: Path) -> None:
    code, _, err = voxengine("talk", "--provider", "mock", "--text", "Hello", "--record", str(tmp_path))

    assert code == 2
    assert "--record" in err
