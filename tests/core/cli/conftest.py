"""The command within this process, on virtual time where it talks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from voxengine.audio.format import AudioFormat
from voxengine.audio.wav import write_wav
from voxengine.cli import main
from voxengine.testing import run_virtual

EXAMPLE_DATA = Path(__file__).resolve().parents[3] / "examples" / "data"

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the developer's environment shows: colours, width, configuration, working directory."""
    for name in ("NO_COLOR", "FORCE_COLOR", "VOXENGINE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def voxengine(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run the command; returns its exit code and what it wrote to standard output and error."""
    monkeypatch.setattr("voxengine.cli.talk.run_loop", lambda talk: run_virtual(talk()))

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        written = capsys.readouterr()
        return code, written.out, written.err

    return run


@pytest.fixture
def question() -> Path:
    """Real speech: 2.7 s at 16000 Hz."""
    return EXAMPLE_DATA / "question.wav"


@pytest.fixture
def silence(tmp_path: Path) -> Path:
    """A second in which nobody speaks."""
    path = tmp_path / "silence.wav"
    write_wav(path, bytes(2 * 16_000), AudioFormat(16_000))
    return path
