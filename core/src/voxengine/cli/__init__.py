"""The command ``voxengine``.

Exit codes: 0 done; 1 the conversation failed; 2 wrong use: an option, the configuration, a provider's name
or a file, found before or while it is read. Ended from outside as by the signal itself: 130 by Ctrl-C, 141
when the reader of the output went away.

Only argparse is imported here, so that ``--help`` and ``--version`` answer at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Final

import voxengine
from voxengine.cli.running import CtrlC, check_ctrl_c

__all__ = ["EXIT_BROKEN_PIPE", "EXIT_FAILED", "EXIT_INTERRUPTED", "EXIT_USAGE", "main"]

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
EXIT_BROKEN_PIPE: Final = 141

_EPILOG: Final = """\
exit codes: 0 done, 1 the conversation failed, 2 wrong use, 130 stopped with Ctrl-C
NO_COLOR, FORCE_COLOR and pipes are respected; VOXENGINE_CONFIG names a configuration file.
"""

_TALK: Final = """\
Hold a conversation: with the speech of a WAV file, with texts, or line by line from standard input.

A file is sent at the speed of speech and is followed by the end of the user's turn; the command ends when
the answer has been given and played. Any sample rate, 8 to 32 bit integers and floats, mono or not, are
converted to what the provider takes.
"""

_TALK_EPILOG: Final = """\
examples:
  voxengine talk --provider mock --text "Hello"
  voxengine talk --provider mock --input question.wav --output answer.wav --transcript talk.jsonl
  voxengine talk --provider mock --metadata 'responses={"*weather*" = "Sunny."}' --text "And the weather?"
  voxengine talk --provider openai --tool weather.py:get_weather --text "How is the weather in Lisbon?"
  voxengine talk --profile support < questions.txt
"""

_EMULATE: Final = """\
Run an emulator of a service: the same protocol on a port of this machine, without a key of the vendor's, a
network or a price. It prints one line of JSON with the URL when it listens, and ends cleanly with Ctrl-C or
SIGTERM.
"""

_EMULATE_EPILOG: Final = """\
examples:
  voxengine emulate mock --port 8765
  voxengine emulate mock --script talk.toml --speed 1 --log received.jsonl
  voxengine emulate mock --fault "429 at=handshake retry_after=2" --fault "close at=turn:2 code=1011"
  voxengine emulate mock --tls --tls-ca ca.pem
"""

_NEW_PROVIDER: Final = """\
Write a complete package for a provider: the protocol with both of its ends, the provider, an emulator of
the service, tests and the conformance kit. It works against its own emulator before a line is changed.
"""

_NEW_PROVIDER_EPILOG: Final = """\
examples:
  voxengine new-provider acme
  voxengine new-provider acme-voice --name "Acme Voice" --directory plugins/acme
"""

_CHECK: Final = """\
Judge an installed provider by the laws of the contract: life cycle, events, audio, interruption, tools,
errors, secrets, cancellation and what is left behind. It needs no test runner.

A provider that lives in memory is judged on virtual time; one that talks to a service in real time, with a
session for nearly every law, which a paid service will bill. The exit code is 1 when a law is broken.
"""

_CHECK_EPILOG: Final = """\
examples:
  voxengine check mock
  voxengine check acme --url ws://127.0.0.1:9000 --html report.html
  voxengine check acme --profile staging --law speech_is_answered --json -
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Args:
        argv: The arguments without the program's name; None: those of the process, which is to end with this
            call: from then on Ctrl-C ends it without a word.
    """
    try:
        with CtrlC(is_last=argv is None):
            code = _main(argv)
            check_ctrl_c()
            return code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _main(argv: Sequence[str] | None) -> int:
    _open_closed_streams()
    code = 0
    try:
        arguments = _parser().parse_args(argv)
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse: help, version or wrong use.
        return stop.code if isinstance(stop.code, int) else EXIT_USAGE
    except BrokenPipeError:
        _abandon_stdout()
        return EXIT_BROKEN_PIPE
    except OSError as error:
        _abandon_stdout()
        if code == EXIT_FAILED:  # What was left in the buffer fails as the rest did, and that has been said.
            return code
        print(f"voxengine: the output cannot be written: {error.strerror}.", file=sys.stderr)
        return EXIT_FAILED


def _run(arguments: argparse.Namespace) -> int:
    from voxengine.errors import AudioFormatError, ConfigError, ProviderNotFound, VoxEngineError

    try:
        if arguments.command == "providers":
            from voxengine.cli import providers

            check_ctrl_c()
            return providers.run(arguments)
        if arguments.command == "emulate":
            from voxengine.cli import emulate

            check_ctrl_c()
            return emulate.run(arguments)
        if arguments.command == "new-provider":
            from voxengine.cli import new_provider

            check_ctrl_c()
            return new_provider.run(arguments)
        if arguments.command == "check":
            from voxengine.cli import check

            check_ctrl_c()
            return check.run(arguments)
        from voxengine.cli import talk

        check_ctrl_c()
        return talk.run(arguments)
    except VoxEngineError as error:
        from voxengine.cli.terminal import clean

        print(f"voxengine: {clean(str(error))}", file=sys.stderr)
        is_usage = isinstance(error, (ConfigError, AudioFormatError, ProviderNotFound))
        return EXIT_USAGE if is_usage else EXIT_FAILED


def _open_closed_streams() -> None:
    """Put the null device where a standard stream was closed: Python has None there, and files would take
    the number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - for the process's life


def _abandon_stdout() -> None:
    """Let what is still buffered go nowhere, so that the interpreter's last flush does not complain."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="voxengine",
        description="Realtime voice AI with interchangeable providers.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"voxengine {voxengine.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_providers(commands)
    _add_talk(commands)
    _add_check(commands)
    _add_emulate(commands)
    _add_new_provider(commands)
    return parser


def _add_providers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "show the installed providers and what each can do"
    parser = commands.add_parser("providers", help=about, description=about.capitalize() + ".")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these, with every detail")
    parser.add_argument("--json", action="store_true", help="everything, as one JSON value")


def _add_emulate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "emulate",
        help="run an emulator of a service",
        description=_EMULATE,
        epilog=_EMULATE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("emulator", metavar="NAME", help="which one, for example mock")
    where = parser.add_argument_group("where it listens")
    where.add_argument("--port", type=int, default=0, metavar="N", help="default: any that is free")
    where.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1")
    where.add_argument("--allow-remote", action="store_true", help="take a host that others can reach")
    where.add_argument("--tls", action="store_true", help="speak TLS, with an authority made on the spot")
    where.add_argument(
        "--tls-ca", metavar="FILE", help="the same, and write the authority's certificate there"
    )
    how = parser.add_argument_group("how it behaves")
    how.add_argument("--key", default="sk-drive", metavar="K", help="the key it takes (default: sk-drive)")
    how.add_argument("--script", metavar="FILE", help="what it hears, says and does wrong (TOML)")
    how.add_argument(
        "--speed", type=float, metavar="X", help="output at so many times real time (default: the script's)"
    )
    how.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="FAULT",
        help="what goes wrong, as in the examples or as JSON; may be repeated",
    )
    how.add_argument(
        "--log", metavar="FILE", help="write what arrives, with the audio in WAV files beside it"
    )


def _add_new_provider(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "new-provider",
        help="write a package for a provider of your own",
        description=_NEW_PROVIDER,
        epilog=_NEW_PROVIDER_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("provider", metavar="NAME", help="as in --provider NAME, for example acme")
    parser.add_argument("--directory", metavar="DIR", help="the folder to make (default: voxengine-NAME)")
    parser.add_argument("--name", metavar="TITLE", help='the service as people write it, as in "Acme Voice"')


def _add_check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "check",
        help="judge a provider by the laws of the contract",
        description=_CHECK,
        epilog=_CHECK_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="the provider; `voxengine providers` lists them")
    parser.add_argument("--service", metavar="S", help="one of the provider's services")
    parser.add_argument("--url", help="the service's address, for providers that take metadata['url']")
    parser.add_argument("--profile", metavar="NAME", help="a profile of the configuration file")
    parser.add_argument("--config", metavar="FILE", help="that file (default: voxengine.toml)")
    parser.add_argument(
        "--metadata",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the provider, the value as in TOML; may be repeated",
    )
    parser.add_argument(
        "--law", action="append", default=[], metavar="LAW", help="only this one; may be repeated"
    )
    parser.add_argument(
        "--clock",
        choices=("auto", "virtual", "real"),
        default="auto",
        help="virtual: for a provider in memory; auto: found out (default)",
    )
    parser.add_argument("--json", metavar="FILE", help="the report as JSON; - writes standard output")
    parser.add_argument("--html", metavar="FILE", help="the report as one HTML page")


def _add_talk(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "talk",
        help="hold a conversation with a provider",
        description=_TALK,
        epilog=_TALK_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    who = parser.add_argument_group("with whom")
    who.add_argument("--provider", metavar="P", help="the provider's name; `voxengine providers` lists them")
    who.add_argument("--profile", metavar="NAME", help="a profile of the configuration file, instead")
    who.add_argument("--config", metavar="FILE", help="that file (default: voxengine.toml)")
    what = parser.add_argument_group("what to say")
    what.add_argument("--input", metavar="WAV", help="the user's speech; - reads standard input")
    what.add_argument(
        "--text",
        action="append",
        default=[],
        metavar="TEXT",
        help="a turn as text; may be repeated, each waits for the answer to the one before, "
        "and all come after --input",
    )
    what.add_argument("--fast", action="store_true", help="send and play as fast as the provider takes it")
    out = parser.add_argument_group("what to keep")
    out.add_argument(
        "--output",
        metavar="WAV",
        help="the answers one after the other, without what an interruption cut; - writes standard output",
    )
    out.add_argument("--transcript", metavar="FILE", help="what was said and done, one JSON value per line")
    how = parser.add_argument_group("how (wins over the profile)")
    how.add_argument("--url", help="the service's address, for providers that take metadata['url']")
    how.add_argument("--mode", choices=("fast", "big", "provider"), help="what matters most")
    how.add_argument("--model", metavar="NAME")
    how.add_argument("--voice", metavar="NAME")
    how.add_argument("--language", metavar="TAG", help="for example en-US")
    how.add_argument("--instructions", metavar="TEXT")
    how.add_argument(
        "--tool",
        action="append",
        default=[],
        metavar="FUNCTION",
        help="a function that the agent may call, FILE.py:NAME or MODULE:NAME; may be repeated",
    )
    how.add_argument(
        "--metadata",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the provider, the value as in TOML; may be repeated",
    )
