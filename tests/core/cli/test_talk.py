"""``voxengine talk`` against the mock provider, on virtual time."""

from __future__ import annotations

import io
import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core.cli.conftest import Command
from voxengine import (
    BaseProvider,
    ConnectionLost,
    EventType,
    ProviderError,
    register_provider,
    unregister_provider,
)
from voxengine.audio.format import AudioFormat
from voxengine.audio.wav import read_wav, write_wav
from voxengine.capabilities import FULL, UNSUPPORTED, Capabilities
from voxengine.cli import main
from voxengine.testing import run_virtual

MOCK = ("talk", "--provider", "mock")
HEARS = ("--metadata", 'hears=["What is the weather like?", "Do I need an umbrella?"]')
ANSWER = ("--metadata", 'default="It is sunny."')


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


# -- texts ----------------------------------------------------------------------------------------


def test_texts_are_turns_in_their_order(voxengine: Command, tmp_path: Path) -> None:
    transcript = tmp_path / "talk.jsonl"

    code, out, err = voxengine(*MOCK, "--text", "Hello", "--text", "and bye", "--transcript", transcript)

    said = [(line["kind"], line["role"], line["text"]) for line in lines_of(transcript)]
    assert (code, err) == (0, "")
    assert said == [
        ("user", "user", "Hello"),
        ("agent", "agent", "You said: Hello"),
        ("user", "user", "and bye"),
        ("agent", "agent", "You said: and bye"),
    ]
    assert "      you  Hello\n    agent  You said: Hello\n      you  and bye\n" in out
    assert "     done  2 turns in " in out


def test_transcript_names_items_and_responses_and_counts_from_the_start(
    voxengine: Command, tmp_path: Path
) -> None:
    transcript = tmp_path / "talk.jsonl"

    voxengine(*MOCK, "--text", "Hello", "--transcript", transcript, "--metadata", "delay_ms=1500")

    user, agent = lines_of(transcript)
    assert user["at_s"] == 0
    assert agent["at_s"] >= 1.5
    assert user["item_id"] != agent["item_id"]
    assert agent["response_id"]
    assert agent["is_complete"] is True


def test_answers_are_played_in_real_time_unless_fast(voxengine: Command, tmp_path: Path) -> None:
    question = ("--text", "Say something of some length that takes a while to say")

    _, slow, _ = voxengine(*MOCK, *question, "--output", tmp_path / "slow.wav")
    _, fast, _ = voxengine(*MOCK, *question, "--output", tmp_path / "fast.wav", "--fast")

    assert read_wav(tmp_path / "slow.wav") == read_wav(tmp_path / "fast.wav")
    length_s = len(read_wav(tmp_path / "slow.wav").data) / 48_000
    assert elapsed_s(slow) >= length_s
    assert elapsed_s(fast) < length_s


def elapsed_s(out: str) -> float:
    line = next(line for line in out.splitlines() if line.startswith("     done"))
    return float(line.split(" in ")[1].split()[0])


def test_cost_that_is_not_known_is_not_zero(voxengine: Command, plain_provider: type[BaseProvider]) -> None:
    _, out, _ = voxengine("talk", "--provider", "plain", "--text", "Hello")

    assert "     cost  unknown\n" in out
    assert "    usage  unknown\n" in out


def test_known_cost_and_usage_are_shown(voxengine: Command, question: Path) -> None:
    _, out, _ = voxengine(*MOCK, "--fast", "--input", question, "--metadata", "price_per_minute_usd=3")

    assert "     cost  $0." in out
    assert "     cost  $0\n" not in out
    assert re.search(
        r"    usage  input audio 3\.5 s · output audio \d\.\d s · tokens: \d+ input, \d+ output\n", out
    )


def test_lines_of_a_pipe_are_turns(
    voxengine: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "lines.txt").write_bytes("first\r\n\nzweite Zeile: größer\nlast without an end".encode())
    transcript = tmp_path / "talk.jsonl"

    with open(tmp_path / "lines.txt", encoding="utf-8") as lines:
        monkeypatch.setattr("sys.stdin", lines)
        code, _, _ = voxengine(*MOCK, "--fast", "--transcript", transcript)

    users = [line["text"] for line in lines_of(transcript) if line["kind"] == "user"]
    assert code == 0
    assert users == ["first", "zweite Zeile: größer", "last without an end"]


# -- files ----------------------------------------------------------------------------------------


def test_spoken_question_gets_a_spoken_answer(voxengine: Command, question: Path, tmp_path: Path) -> None:
    answer, transcript = tmp_path / "answer.wav", tmp_path / "talk.jsonl"

    code, out, err = voxengine(
        *MOCK, "--input", question, "--output", answer, "--transcript", transcript, *HEARS, *ANSWER
    )

    recorded = read_wav(answer)
    assert (code, err) == (0, "")
    assert [line["text"] for line in lines_of(transcript)] == ["What is the weather like?", "It is sunny."]
    assert "    input  question.wav: 2.7 s, 16000 Hz mono, converted to 24000 Hz mono\n" in out
    assert f"{answer} ({len(recorded.data) / 48_000:.1f} s of answers)" in out
    assert len(recorded.data) > 24_000
    assert np.abs(np.frombuffer(recorded.data, np.int16)).max() > 3000


def test_file_is_sent_at_the_speed_of_speech(voxengine: Command, question: Path, tmp_path: Path) -> None:
    transcript = tmp_path / "talk.jsonl"

    voxengine(*MOCK, "--input", question, "--transcript", transcript, *HEARS)

    spoken_s = len(read_wav(question).data) / 32_000
    assert lines_of(transcript)[0]["at_s"] == pytest.approx(spoken_s, abs=0.3)


def test_fast_file_is_not_paced(voxengine: Command, question: Path, tmp_path: Path) -> None:
    transcript = tmp_path / "talk.jsonl"

    voxengine(*MOCK, "--input", question, "--transcript", transcript, "--fast", *HEARS)

    assert lines_of(transcript)[0]["at_s"] < 0.1


@pytest.mark.parametrize(
    ("encoding", "rate", "channels"),
    [("<i2", 44_100, 2), ("u1", 8_000, 1), ("<f4", 48_000, 1), ("<i4", 11_025, 6), ("<f8", 24_000, 1)],
)
def test_any_wav_is_converted(
    voxengine: Command, question: Path, tmp_path: Path, encoding: str, rate: int, channels: int
) -> None:
    source = tmp_path / "other.wav"
    source.write_bytes(encode_wav(question, encoding, rate, channels))

    code, out, err = voxengine(*MOCK, "--fast", "--input", source, *HEARS)

    assert (code, err) == (0, "")
    assert f"{rate} Hz" in out
    assert "      you  What is the weather like?\n" in out


def encode_wav(question: Path, encoding: str, rate: int, channels: int) -> bytes:
    """The question, stretched to another rate by repeating samples, in another encoding."""
    wav = read_wav(question)
    samples = np.frombuffer(wav.data, np.int16) / 32768
    samples = samples[np.arange(len(samples) * rate // 16_000) * 16_000 // rate]
    frames = np.repeat(samples[:, None], channels, axis=1)
    scale = {"u1": 127, "<i2": 32767, "<i4": 2**31 - 1}.get(encoding, 1.0)
    values = (frames * scale + (128 if encoding == "u1" else 0)).astype(encoding)
    data, width = values.tobytes(), values.itemsize
    code = 3 if encoding.startswith("<f") else 1
    header = b"".join(
        [
            (16).to_bytes(4, "little"),
            code.to_bytes(2, "little"),
            channels.to_bytes(2, "little"),
            rate.to_bytes(4, "little"),
            (rate * channels * width).to_bytes(4, "little"),
            (channels * width).to_bytes(2, "little"),
            (8 * width).to_bytes(2, "little"),
        ]
    )
    body = b"WAVEfmt " + header + b"data" + len(data).to_bytes(4, "little") + data
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def test_truncated_wav_is_used_with_a_warning(voxengine: Command, question: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.wav"
    cut.write_bytes(question.read_bytes()[:50_001])

    code, out, _ = voxengine(*MOCK, "--fast", "--input", cut)

    assert code == 0
    assert "  warning  cut.wav ended early: it declares more sound.\n" in out


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes of POSIX")
def test_wav_from_a_pipe_is_heard(
    voxengine: Command, question: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(question.read_bytes(),))
    writer.start()

    with open(pipe, "rb") as stream:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(stream))
        code, out, err = voxengine(*MOCK, "--fast", "--input", "-", *HEARS)
        writer.join()

    assert (code, err) == (0, "")
    assert "    input  standard input: 2.7 s, 16000 Hz mono" in out
    assert "      you  What is the weather like?\n" in out


def test_file_longer_than_the_journal_is_taken_as_fast_as_it_is_answered(
    voxengine: Command, question: Path, tmp_path: Path
) -> None:
    wav = read_wav(question)
    long = tmp_path / "long.wav"
    write_wav(long, (wav.data + bytes(32_000)) * 25, wav.format)

    code, out, err = voxengine(*MOCK, "--fast", "--input", long, "--metadata", "delay_ms=0")

    assert (code, err) == (0, "")
    assert "25 turns" in out


def test_answer_goes_to_standard_output_and_words_to_standard_error(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr("voxengine.cli.talk.run_loop", lambda talk: run_virtual(talk()))

    code = main([*MOCK, "--fast", "--text", "Hello", "--output", "-"])

    out, err = capfdbinary.readouterr()
    assert code == 0
    assert read_wav(io.BytesIO(out)).format == AudioFormat(24_000)
    assert len(out) > 10_000
    assert "    agent  You said: Hello\n" in err.decode()


# -- what is not heard -----------------------------------------------------------------------------


def test_what_an_interruption_cuts_is_not_written(voxengine: Command, question: Path, tmp_path: Path) -> None:
    wav = read_wav(question)
    both = tmp_path / "both.wav"
    write_wav(both, wav.data + bytes(int(2.6 * 16_000) * 2) + wav.data, wav.format)
    answer, transcript = tmp_path / "answer.wav", tmp_path / "talk.jsonl"
    story = "Once upon a time there was a lighthouse at the edge of a quiet sea, and in it lived a cat."

    code, out, _ = voxengine(
        *MOCK, *HEARS, "--input", both, "--output", answer, "--transcript", transcript,
        "--metadata", f'default=["{story}", "Yes."]', "--metadata", "pace=50",
    )  # fmt: skip

    lines = lines_of(transcript)
    cut = next(line for line in lines if line["kind"] == "interruption")
    final = sum(line["kind"] == "agent" and line["text"] == "Yes." for line in lines)
    assert code == 0
    assert final == 1
    assert 0 < len(cut["text"]) < len(story)
    assert story.startswith(cut["text"])
    assert f"      cut  after {cut['heard_ms'] / 1000:.1f} s; heard: {cut['text']}\n" in out
    assert "1 interruption" in out
    seconds = len(read_wav(answer).data) / 48_000
    assert cut["heard_ms"] / 1000 < seconds < cut["heard_ms"] / 1000 + 1.5


# -- wrong use and failure -------------------------------------------------------------------------


def test_inputs_that_cannot_be_read_are_wrong_use(voxengine: Command, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("This is no sound at all.")
    (tmp_path / "empty.wav").write_bytes(b"")
    write_wav(tmp_path / "nothing.wav", b"", AudioFormat(16_000))
    says = {
        "missing.wav": "The input 'missing.wav' cannot be read: No such file or directory.",
        "microphone": "For the microphone leave --input out, or give --microphone.",
        ".": "The input '.' cannot be read: Is a directory.",
        "notes.txt": "notes.txt is no WAV file",
        "empty.wav": "empty.wav is empty",
        "nothing.wav": "nothing.wav holds no sound.",
    }

    results = {name: voxengine(*MOCK, "--input", name) for name in says}

    assert {name: code for name, (code, _, _) in results.items()} == dict.fromkeys(says, 2)
    for name, (_, _, err) in results.items():
        assert err.startswith("voxengine: ")
        assert err.count("\n") == 1
        assert says[name] in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["talk", "--provider", "nobody", "--text", "Hello"], "No provider named 'nobody'."),
        (["talk", "--text", "Hello"], "With whom? Give --provider NAME (installed: "),
        (["talk", "--profile", "x", "--text", "Hello"], "No configuration file 'voxengine.toml' here."),
        ([*MOCK, "--text", "Hello", "--text", " "], "--text is empty."),
        ([*MOCK, "--text", "caf\udce9"], "--text holds bytes that are no UTF-8."),
        ([*MOCK, "--text", "Hello", "--output", "."], "--output '.' is a directory."),
        ([*MOCK, "--text", "Hello", "--output", "none/a.wav"], "there is no directory 'none'."),
        ([*MOCK, "--text", "Hello", "--output", "a", "--transcript", "a"], "'a' is named for something else"),
        ([*MOCK, "--text", "Hello", "--metadata", "delay_ms=soon"], "delay_ms is str"),
        ([*MOCK, "--text", "Hello", "--metadata", "delay_ms"], "--metadata takes KEY=VALUE"),
    ],
)
def test_wrong_use_says_what_to_do(voxengine: Command, arguments: list[str], says: str) -> None:
    code, _, err = voxengine(*arguments)

    assert code == 2
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([*MOCK, "--input", "missing.wav"], 2),
        ([*MOCK, "--input", "notes.txt"], 2),
        ([*MOCK, "--text", ""], 2),
        ([*MOCK, "--text", "Hello", "--metadata", "faults=3"], 2),
        (["talk", "--provider", "nobody", "--text", "Hello"], 2),
        ([*MOCK, "--url", "ws://127.0.0.1:9", "--text", "Hello"], 1),
    ],
)
def test_call_that_cannot_begin_leaves_what_an_earlier_one_wrote(
    voxengine: Command, tmp_path: Path, arguments: list[str], code: int
) -> None:
    (tmp_path / "notes.txt").write_text("This is no sound at all.")
    kept = {tmp_path / "talk.jsonl": "earlier lines", tmp_path / "answer.wav": "earlier sound"}
    for path, text in kept.items():
        path.write_text(text)

    ended, out, _ = voxengine(*arguments, "--transcript", "talk.jsonl", "--output", "answer.wav")

    assert (ended, out) == (code, "")
    assert {path: path.read_text() for path in kept} == kept


def test_conversation_without_a_word_empties_the_transcript(
    voxengine: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transcript = tmp_path / "talk.jsonl"
    transcript.write_text("earlier lines")
    with open(os.devnull, encoding="utf-8") as nothing:
        monkeypatch.setattr("sys.stdin", nothing)

        code, _, _ = voxengine(*MOCK, "--transcript", transcript)

    assert (code, transcript.read_text()) == (0, "")


def test_input_is_never_overwritten(voxengine: Command, question: Path, tmp_path: Path) -> None:
    source = tmp_path / "question.wav"
    source.write_bytes(question.read_bytes())
    (tmp_path / "link.wav").hardlink_to(source)

    codes = [
        voxengine(*MOCK, "--input", source, "--output", target)[0]
        for target in (source, tmp_path / "link.wav")
    ]

    assert codes == [2, 2]
    assert source.read_bytes() == question.read_bytes()


def test_silence_that_nobody_answers_is_a_failure_after_a_while(
    voxengine: Command, silence: Path, plain_provider: type[BaseProvider]
) -> None:
    code, _, err = voxengine("talk", "--provider", "plain", "--input", silence)

    assert code == 1
    assert (
        err
        == "voxengine: plain: no answer and no transcript came to silence.wav within 10 s. Does it hold speech?\n"
    )


def test_answer_that_does_not_come_is_a_failure_that_names_it(
    voxengine: Command, plain_provider: type[BaseProvider]
) -> None:
    code, out, err = voxengine("talk", "--provider", "plain", "--text", "say nothing")

    assert code == 1
    assert "the answer that was asked for did not come within 10 s" in err
    assert "    ended  1 turn in " in out


def test_service_that_cannot_be_reached_is_a_failure(voxengine: Command) -> None:
    code, _, err = voxengine(*MOCK, "--url", "ws://127.0.0.1:9", "--text", "Hello")

    assert code == 1
    assert err.startswith("voxengine: mock could not be reached at ws://127.0.0.1:9")
    assert err.count("\n") == 1


def test_error_of_the_service_is_told_once_at_the_end(
    voxengine: Command, plain_provider: type[BaseProvider]
) -> None:
    code, out, err = voxengine("talk", "--provider", "plain", "--text", "fail", "--text", "never sent")

    assert code == 1
    assert err == "voxengine: plain: the quota is used up\n"
    assert "quota" not in out
    assert "never sent" not in out


def test_lost_connection_is_told_once_at_the_end(
    voxengine: Command, plain_provider: type[BaseProvider], tmp_path: Path
) -> None:
    transcript = tmp_path / "talk.jsonl"

    code, out, err = voxengine(
        "talk", "--provider", "plain", "--text", "Hello", "--text", "hang up", "--transcript", transcript
    )

    assert code == 1
    assert err == "voxengine: plain hung up\n"
    assert "hung up" not in out
    assert "    ended  2 turns in " in out
    assert [line["text"] for line in lines_of(transcript) if "text" in line] == ["Hello", "Hello", "hang up"]


FAULTS = [
    ('{do = 401, at = "handshake"}', "HTTP 401 (authentication)"),
    ('{do = 429, at = "handshake"}', "HTTP 429 (rate_limit)"),
    ('{do = "stall", at = "handshake"}', "did not complete the hand-shake"),
    ('{do = "close", at = "ready", code = 4001, reason = "nope"}', 'closed the connection (4001, "nope")'),
    ('{do = "stall", at = "ready"}', "did not open the session within 10 s"),
    ('{do = "quota", at = "ready"}', "The account has no quota left."),
    (
        '{do = "close", at = "first_input", code = 1011, reason = "restart", times = 1000}',
        '(1011, "restart")',
    ),
    (
        '{do = "stall", at = "first_input", times = 1000}',
        "the answer that was asked for did not come within 10 s",
    ),
    ('{do = "close", at = "turn", code = 1000, times = 1000}', "closed the connection (1000)"),
    ('{do = "reset", at = "turn", times = 1000}', "broke without a close message"),
    ('{do = "stall", at = "turn", times = 1000}', "the answer that was asked for did not come within 10 s"),
    ('{do = "quota", at = "turn"}', "The account has no quota left."),
    ('{do = 401, at = "turn"}', "The key is not known."),
    ('{do = 429, at = "turn"}', "Too many requests."),
    ('{do = 503, at = "turn"}', "The service is not available."),
    ('{do = "error", at = "turn", message = "overloaded"}', "overloaded"),
    ('{do = 429, at = "response"}', "Too many requests."),
    ('{do = "error", at = "response:1:after_audio_ms=300", message = "overloaded"}', "overloaded"),
    ('{do = "reset", at = "response:1:after_audio_ms=300", times = 1000}', "broke without a close message"),
    (
        '{do = "stall", at = "response:1:after_audio_ms=300", times = 1000}',
        "more of the answer, or its end, did not come within 10 s",
    ),
]


@pytest.mark.parametrize("how", ["--text", "--input"])
@pytest.mark.parametrize("speed", [(), ("--fast",)], ids=["played", "fast"])
@pytest.mark.parametrize(("fault", "says"), FAULTS)
def test_fault_of_the_service_is_a_failure_that_says_it_soon(
    voxengine: Command, question: Path, fault: str, says: str, speed: tuple[str, ...], how: str
) -> None:
    words = ("--text", "Tell me about the weather.") if how == "--text" else ("--input", str(question))

    code, out, err = voxengine(*MOCK, "--metadata", f"faults=[{fault}]", *speed, *words)

    assert (code, err.count("\n")) == (1, 1)
    # What the user says aloud is no request: a service that does not even hear it is not lost, but the wait ends.
    waited = "an answer was asked for and did not come; nothing has come for 30 s"
    assert says in err or ("stall" in fault and how == "--input" and waited in err)
    took = re.search(r" in (\d+\.\d) s", out.partition("    ended  ")[2])
    assert took is None or float(took[1]) < 60


@pytest.mark.parametrize("how", ["--text", "--input"])
def test_garbage_before_the_answer_is_told_and_survived(voxengine: Command, question: Path, how: str) -> None:
    faults = ("--metadata", 'faults=[{do = "garbage", at = "turn"}]')
    options = (*faults, "--metadata", "delay_ms=4000", "--metadata", 'hears_default="Hello, you"')

    code, out, err = voxengine(*MOCK, *options, how, "Hello, you" if how == "--text" else question)

    assert (code, err) == (0, "")
    assert "    error  mock: a message is not JSON.\n" in out
    assert "    agent  You said: Hello, you\n" in out


def test_long_answer_that_came_at_once_is_played_to_its_end(voxengine: Command, tmp_path: Path) -> None:
    answer = '{"*" = {say = "one two three four five", duration_ms = 45000}}'

    code, _, err = voxengine(
        *MOCK,
        *("--metadata", f"responses={answer}", "--metadata", "pace=1000"),
        *("--text", "Hello", "--output", tmp_path / "a.wav"),
    )

    assert (code, err) == (0, "")
    assert len(read_wav(tmp_path / "a.wav").data) == 45 * 2 * 24_000


def test_text_of_a_service_cannot_steer_the_terminal(
    voxengine: Command, plain_provider: type[BaseProvider]
) -> None:
    _, out, _ = voxengine("talk", "--provider", "plain", "--text", "red \x1b[31m\x07text\u202e\nsecond line")

    assert "    agent  red [31mtext second line\n" in out


def test_recogniser_writes_what_the_user_said(
    voxengine: Command, question: Path, recogniser: type[BaseProvider], tmp_path: Path
) -> None:
    transcript = tmp_path / "talk.jsonl"

    code, out, err = voxengine(
        "talk", "--provider", "scribe", "--fast", "--input", question, "--transcript", transcript
    )

    assert (code, err) == (0, "")
    assert "      you  What is the weather like?\n" in out
    assert [(line["kind"], line["text"]) for line in lines_of(transcript)] == [
        ("user", "What is the weather like?")
    ]


def test_synthesiser_writes_what_the_agent_said(
    voxengine: Command, synthesiser: type[BaseProvider], tmp_path: Path
) -> None:
    transcript = tmp_path / "talk.jsonl"

    code, out, err = voxengine(
        "talk", "--provider", "reader", "--text", "Hello there", "--transcript", transcript
    )

    assert (code, err) == (0, "")
    assert "    agent  Hello there\n" in out
    assert [(line["kind"], line["text"]) for line in lines_of(transcript)][1:] == [("agent", "Hello there")]


# -- configuration ---------------------------------------------------------------------------------


def test_options_win_over_the_profile(voxengine: Command, tmp_path: Path) -> None:
    (tmp_path / "voxengine.toml").write_text(
        '[profiles.support]\nprovider = "mock"\ninstructions = "Be brief."\n'
        '[profiles.support.metadata]\ndefault = "{voice}: {instructions}"\nvoice = "bruno"\n'
    )

    _, plain, _ = voxengine("talk", "--profile", "support", "--fast", "--text", "Hello")
    _, voiced, _ = voxengine(
        "talk", "--fast", "--text", "Hello", "--voice", "celia", "--instructions", "Be kind."
    )

    assert "    agent  bruno: Be brief.\n" in plain
    assert "    agent  celia: Be kind.\n" in voiced


def test_profile_of_another_provider_is_refused(voxengine: Command, tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text('[profiles.a]\nprovider = "azure"\napi_key = "secret-value"\n')

    code, _, err = voxengine(*MOCK, "--config", "other.toml", "--text", "Hello")

    assert code == 2
    assert "'azure'" in err
    assert "secret-value" not in err


# -- providers of these tests ------------------------------------------------------------------------


class Plain(BaseProvider):
    """Answers with the text itself, but for a few words that it reacts to."""

    capabilities = Capabilities(dialogue=FULL, text_turn=FULL, response_boundaries=FULL)

    async def connect(self) -> None:
        self.session_id = "plain"

    async def disconnect(self) -> None:
        return None

    async def send_audio(self, audio_data: bytes) -> None:
        return None

    async def interrupt(self, heard: Any = None) -> None:
        return None

    async def configure_session(self, config: dict[str, Any]) -> None:
        return None

    async def send_text(self, text: str) -> None:
        if text == "fail":
            error = ProviderError("plain: the quota is used up", provider="plain", code="quota")
            self.emit_event(EventType.ERROR_GENERAL, {"error": error, "recoverable": False})
        elif text == "hang up":
            self.emit_event(
                EventType.CONNECTION_LOST, {"error": ConnectionLost("plain hung up", provider="plain")}
            )
        elif text != "say nothing":
            self.emit_event(EventType.RESPONSE_STARTED, {"response_id": "r"})
            self.emit_event(EventType.TEXT_OUTPUT, {"text": text, "is_partial": False, "response_id": "r"})
            self.emit_event(EventType.RESPONSE_COMPLETED, {"response_id": "r", "status": "completed"})


class Scribe(Plain):
    """Hears any audio as one sentence."""

    capabilities = Capabilities(dialogue=UNSUPPORTED, recognition=FULL)
    heard = 0

    async def send_audio(self, audio_data: bytes) -> None:
        before, self.heard = self.heard, self.heard + len(audio_data)
        if before < 48_000 <= self.heard:
            self.emit_event(EventType.TEXT_OUTPUT, {"text": "What is", "is_partial": True})
        elif before < 96_000 <= self.heard:
            self.emit_event(EventType.TEXT_OUTPUT, {"text": "What is the weather like?", "is_partial": False})


class Reader(Plain):
    """Says what it is given."""

    capabilities = Capabilities(
        dialogue=UNSUPPORTED, synthesis=FULL, text_turn=FULL, speak=FULL, response_boundaries=FULL
    )

    async def speak(self, text: str, is_last: bool = True) -> None:
        await self.send_text(text)


@pytest.fixture
def plain_provider() -> Iterator[type[BaseProvider]]:
    register_provider("plain", Plain)
    yield Plain
    unregister_provider("plain")


@pytest.fixture
def recogniser() -> Iterator[type[BaseProvider]]:
    register_provider("scribe", Scribe)
    yield Scribe
    unregister_provider("scribe")


@pytest.fixture
def synthesiser() -> Iterator[type[BaseProvider]]:
    register_provider("reader", Reader)
    yield Reader
    unregister_provider("reader")
