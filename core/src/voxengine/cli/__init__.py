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
  voxengine talk --profile support < questions.txt
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Args:
        argv: The arguments without the program's name; None: those of the process.
    """
    _open_closed_streams()
    try:
        arguments = _parser().parse_args(argv)
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse: help, version or wrong use.
        return stop.code if isinstance(stop.code, int) else EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _abandon_stdout()
        return EXIT_BROKEN_PIPE
    except OSError as error:
        _abandon_stdout()
        print(f"voxengine: the output cannot be written: {error.strerror}.", file=sys.stderr)
        return EXIT_FAILED


def _run(arguments: argparse.Namespace) -> int:
    from voxengine.errors import AudioFormatError, ConfigError, ProviderNotFound, VoxEngineError

    try:
        if arguments.command == "providers":
            from voxengine.cli import providers

            return providers.run(arguments)
        from voxengine.cli import talk

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
    return parser


def _add_providers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "show the installed providers and what each can do"
    parser = commands.add_parser("providers", help=about, description=about.capitalize() + ".")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these, with every detail")
    parser.add_argument("--json", action="store_true", help="everything, as one JSON value")


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
        "--metadata",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the provider, the value as in TOML; may be repeated",
    )
