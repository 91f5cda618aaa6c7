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
from collections.abc import Callable, Sequence
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
Hold a conversation: through microphone and loudspeaker, with the speech of a WAV file, with texts, or line by
line from standard input. On a terminal the microphone is used when there is one and nothing else to say.

A file is sent at the speed of speech and is followed by the end of the user's turn; the command ends when
the answer has been given and played. Any sample rate, 8 to 32 bit integers and floats, mono or not, are
converted to what the provider takes.
"""

_TALK_EPILOG: Final = """\
examples:
  voxengine talk --provider mock
  voxengine talk --provider mock --text "Hello"
  voxengine talk --provider mock --input question.wav --output answer.wav --transcript talk.jsonl
  voxengine talk --provider mock --metadata 'responses={"*weather*" = "Sunny."}' --text "And the weather?"
  voxengine talk --provider openai --tool weather.py:get_weather --text "How is the weather in Lisbon?"
  voxengine talk --profile support < questions.txt
"""

_AUDIO_CHECK: Final = """\
Play a test sound and listen to it: how evenly the devices run, how long the way from the loudspeaker to the
microphone takes, and how fast an interruption is silent. Turn the loudspeaker to where it is when you talk.

The exit code is 1 when the microphone did not hear the loudspeaker, or something is amiss.
"""

_AUDIO_CHECK_EPILOG: Final = """\
examples:
  voxengine audio-check
  voxengine audio-check --input-device "USB Mic" --json check.json --picture check.svg
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
        if arguments.command == "devices":
            from voxengine.cli import devices

            check_ctrl_c()
            return devices.run(arguments)
        if arguments.command == "audio-check":
            from voxengine.cli import audio_check

            check_ctrl_c()
            return audio_check.run(arguments)
        if arguments.command == "check":
            from voxengine.cli import check

            check_ctrl_c()
            return check.run(arguments)
        if arguments.command == "replay":
            from voxengine.cli import replay

            check_ctrl_c()
            return replay.run(arguments)
        if arguments.command == "inspect":
            from voxengine.cli import inspect

            check_ctrl_c()
            return inspect.run(arguments)
        from voxengine.cli import talk

        check_ctrl_c()
        return talk.run(arguments)
    except VoxEngineError as error:
        from voxengine.cli.terminal import clean

        print(f"voxengine: {clean(str(error))}", file=sys.stderr)
        for note in getattr(error, "__notes__", ()):
            print(f"           {clean(note)}", file=sys.stderr)
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
    _add_devices(commands)
    _add_audio_check(commands)
    _add_check(commands)
    _add_emulate(commands)
    _add_new_provider(commands)
    _add_recordings(commands)
    return parser


def _add_providers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "show the installed providers and what each can do"
    parser = commands.add_parser("providers", help=about, description=about.capitalize() + ".")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these, with every detail")
    parser.add_argument("--json", action="store_true", help="everything, as one JSON value")


def _add_devices(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "show the microphones and loudspeakers"
    parser = commands.add_parser("devices", help=about, description=about.capitalize() + ".")
    parser.add_argument("--json", action="store_true", help="everything, as one JSON value")


def _add_audio_check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "audio-check",
        help="measure the microphone and the loudspeaker",
        description=_AUDIO_CHECK,
        epilog=_AUDIO_CHECK_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--input-device", metavar="DEVICE", help="its name, a part of it, or its index")
    parser.add_argument("--output-device", metavar="DEVICE", help="likewise")
    parser.add_argument("--block-ms", type=_whole(5, 100), default=20, metavar="N", help="default: 20")
    parser.add_argument(
        "--seconds",
        type=_whole(1, 600),
        default=5,
        metavar="N",
        help="how long to watch the pace (default: 5)",
    )
    parser.add_argument(
        "--trials",
        type=_whole(1, 100),
        default=5,
        metavar="N",
        help="interruptions of each kind (default: 5)",
    )
    parser.add_argument("--json", metavar="FILE", help="the report as JSON; - writes standard output")
    parser.add_argument("--picture", metavar="FILE", help="the report as an SVG picture")


def _whole(low: int, high: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdigit() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"it is a whole number from {low} to {high}, not {text!r}")
        return int(text)

    return number


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


def _add_recordings(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "run a recorded conversation again and compare every event"
    replay = commands.add_parser(
        "replay", help=about, description=f"{about.capitalize()}. No network is used."
    )
    replay.add_argument("file", metavar="FILE", help="what engine.record(FILE) or talk --record FILE wrote")
    replay.add_argument("--json", action="store_true", help="the outcome as one JSON value")
    about = "show a recorded conversation as a timeline"
    inspect = commands.add_parser(
        "inspect", help=about, description=f"{about.capitalize()}, and as a picture."
    )
    inspect.add_argument("file", metavar="FILE", help="what engine.record(FILE) or talk --record FILE wrote")
    inspect.add_argument("--json", action="store_true", help="the timeline as one JSON value")
    inspect.add_argument(
        "--html", metavar="FILE", help="one page with turns, levels, interruptions and latencies drawn"
    )


def _add_choice_of_devices(parser: argparse.ArgumentParser) -> None:
    with_what = parser.add_argument_group("with which devices; `voxengine devices` lists them")
    with_what.add_argument("--input-device", metavar="DEVICE", help="its name, a part of it, or its index")
    with_what.add_argument("--output-device", metavar="DEVICE", help="likewise")
    with_what.add_argument(
        "--half-duplex",
        action="store_true",
        help="do not hear anything while the agent speaks: for a loudspeaker beside the microphone",
    )
    with_what.add_argument(
        "--processor",
        action="append",
        default=[],
        metavar="NAME",
        help="an audio processor for the microphone, such as an echo canceller; several come one after the other",
    )
    with_what.add_argument(
        "--detector", metavar="NAME", help="find the turns here, with this voice detector; energy is built in"
    )


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
    who.add_argument(
        "--fallback",
        action="append",
        default=[],
        metavar="NAME[=URL]",
        help="who goes on when the first is lost or away: a profile of the file, or a provider with its address; may be repeated",
    )
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
    what.add_argument(
        "--microphone",
        action=argparse.BooleanOptionalAction,
        help="speak, whatever standard input is; or write, though there is a microphone",
    )
    what.add_argument("--fast", action="store_true", help="send and play as fast as the provider takes it")
    _add_choice_of_devices(parser)
    out = parser.add_argument_group("what to keep")
    out.add_argument(
        "--output",
        metavar="WAV",
        help="the answers one after the other, without what an interruption cut; - writes standard output",
    )
    out.add_argument("--transcript", metavar="FILE", help="what was said and done, one JSON value per line")
    out.add_argument(
        "--record", metavar="FILE", help="everything, for `voxengine inspect` and `voxengine replay`"
    )
    _add_options(parser.add_argument_group("how (wins over the profile)"))


def _add_options(how: argparse._ArgumentGroup) -> None:
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
