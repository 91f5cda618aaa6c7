"""The command as a whole: what it loads, its exit codes, and how it ends when it is ended."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import voxengine as package
from voxengine.cli import EXIT_BROKEN_PIPE, EXIT_INTERRUPTED

ENVIRONMENT = {**os.environ, "PYTHONUTF8": "1"}
COMMAND = [sys.executable, "-m", "voxengine"]
UNFINISHED_WAV = b"RIFF\xff\xff\xff\xffWAVELIST" + (2**21).to_bytes(4, "little") + bytes(2**20)
"""The beginning of a chunk that goes before the sound."""


def interrupted_in(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command after a program that prepares at which point of it SIGINT comes."""
    source = f"import os, signal, sys, threading, asyncio\nfrom voxengine.cli import main\n{program}\nsys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", source, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=ENVIRONMENT,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["talk", "--help"], ["providers", "-h"], ["nonsense"]]
)
def test_help_and_version_load_no_dependency(arguments: list[str]) -> None:
    program = (
        "import json, sys; from voxengine.cli import main; main(sys.argv[1:]); "
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=ENVIRONMENT,
    )

    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert "argparse" in loaded
    assert loaded & {"attr", "attrs", "pluggy", "asyncio", "numpy", "websockets", "rich"} == set()


def test_version_is_that_of_the_package(voxengine) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = voxengine("--version")

    assert (code, out) == (0, f"voxengine {package.__version__}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["talk", "--mode", "slow", "--provider", "mock"],
        ["talk", "--provider"],
        ["providers", "--yaml"],
    ],
)
def test_wrong_options_are_wrong_use(voxengine, arguments: list[str]) -> None:  # type: ignore[no-untyped-def]
    code, out, err = voxengine(*arguments)

    assert (code, out) == (2, "")
    assert err.startswith("usage: voxengine")


def test_module_is_the_command() -> None:
    done = subprocess.run(
        [*COMMAND, "--version"], capture_output=True, text=True, check=True, env=ENVIRONMENT
    )

    assert done.stdout == f"voxengine {package.__version__}\n"


def test_reader_that_goes_away_ends_the_conversation_quietly() -> None:
    talk = subprocess.Popen(
        [*COMMAND, "talk", "--provider", "mock", "--text", "Hello", "--text", "again"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        text=True,
    )
    assert talk.stdout is not None
    assert talk.stderr is not None
    with talk.stdout, talk.stderr:
        first = talk.stdout.readline()
        talk.stdout.close()

        assert "mock" in first
        assert talk.stderr.read() == ""
        assert talk.wait(30) == EXIT_BROKEN_PIPE


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("arguments", [["--input", "-"], ["--text", "tell me a long story"], []])
def test_ctrl_c_ends_with_its_own_code_and_without_a_traceback(arguments: list[str]) -> None:
    talk = subprocess.Popen(
        [*COMMAND, "talk", "--provider", "mock", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        text=True,
    )
    assert talk.stdin is not None
    assert talk.stdout is not None
    assert talk.stderr is not None
    with talk.stdin, talk.stdout, talk.stderr:
        if "-" in arguments:
            # More than a pipe holds: when all of it is written, the command waits for the rest of the WAV.
            assert isinstance(talk.stdin, io.TextIOWrapper)
            talk.stdin.buffer.write(UNFINISHED_WAV)
            talk.stdin.flush()
        else:
            assert "connected" in talk.stdout.readline()
        talk.send_signal(signal.SIGINT)

        assert talk.wait(30) == EXIT_INTERRUPTED
        assert talk.stderr.read() == ""


AT_THE_SOCKET_PAIR_OF_THE_LOOP = """
import socket
original = socket.socketpair
def pressed(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGINT)
    return original(*args, **kwargs)
socket.socketpair = pressed
"""
AT_AN_IMPORT = """
class Presses:
    def find_spec(self, name, path, target=None):
        if name == "voxengine.cli.NAME":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Presses())
"""
AFTER_THE_COMMAND = """
import atexit
atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(
    "program", [AT_THE_SOCKET_PAIR_OF_THE_LOOP, AT_AN_IMPORT], ids=["making the loop", "importing"]
)
@pytest.mark.parametrize(
    "arguments", [["talk", "--provider", "mock", "--text", "Hello"], ["check", "mock"], ["emulate", "mock"]]
)
def test_ctrl_c_before_the_loop_runs_leaves_nothing_that_complains(
    program: str, arguments: list[str]
) -> None:
    done = interrupted_in(program.replace("voxengine.cli.NAME", f"voxengine.cli.{arguments[0]}"), *arguments)

    assert (done.returncode, done.stdout, done.stderr) == (EXIT_INTERRUPTED, "", "")


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_at_the_end_of_the_interpreter_is_no_traceback() -> None:
    done = interrupted_in(AFTER_THE_COMMAND, "--version")

    assert done.returncode == -signal.SIGINT
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["providers"], "voxengine: the output cannot be written: No space left on device.\n"),
        (
            ["talk", "--provider", "mock", "--fast", "--text", "hi", "--output", "-"],
            "voxengine: --output '-' cannot be written: No space left on device.\n",
        ),
    ],
)
def test_full_disk_is_one_sentence(arguments: list[str], says: str) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
            check=False,
        )

    assert done.returncode == 1
    assert done.stderr.endswith(says)
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX")
def test_closed_standard_streams_are_no_failure() -> None:
    line = f'"{sys.executable}" -m voxengine talk --provider mock <&- >&-'

    done = subprocess.run(["sh", "-c", line], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, check=False)

    assert (done.returncode, done.stderr) == (0, "")
