"""``voxengine check``: the laws of the contract, applied to an installed provider."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import platform
import shutil
import sys
import textwrap
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, TextIO

import attrs

import voxengine
from voxengine.capabilities import Support
from voxengine.cli import running
from voxengine.cli.options import build_config
from voxengine.cli.records import STDOUT, check_target
from voxengine.cli.terminal import clean, paint, wants_color
from voxengine.config import TurnDetection, VoiceEngineConfig
from voxengine.errors import ConfigError, ErrorCode, ProviderError, VoxEngineError
from voxengine.providers.base import BaseProvider, effective_capabilities
from voxengine.providers.entry_points import find_entry_points
from voxengine.providers.registry import default_registry
from voxengine.testing.clock import VirtualDeadlock, VirtualTimeExceeded, VirtualTimeLoop
from voxengine.testing.conformance.law import GROUPS, Law, Outcome, Result, Skip
from voxengine.testing.conformance.laws import LAWS
from voxengine.testing.conformance.laws_errors import engine_for
from voxengine.testing.conformance.run import Clock, Report, masked, run_laws
from voxengine.testing.conformance.subject import Factory, Subject, secrets_in_environment, secrets_of
from voxengine.testing.emulator import DEFAULT_KEY, EMULATOR_GROUP

__all__ = ["run"]

_MARKS: Final = {
    Outcome.PASSED: ("✓", "green"),
    Outcome.FAILED: ("✗", "red"),
    Outcome.SKIPPED: ("–", "dim"),
}
_ASCII: Final = str.maketrans({"✓": "+", "✗": "x", "–": "-", "…": "."})
_SKIPS: Final = {
    Skip.VENDOR: "the vendor cannot",
    Skip.PLANNED: "the package does not do it yet",
    Skip.UNDECLARED: "nothing is promised",
    Skip.UNEQUIPPED: "the run had no such peer",
    Skip.UNJUDGED: "it cannot be judged from outside",
}
_PIPE_WIDTH: Final = 100
_GRADE_STYLES: Final = {"A": "green", "B": "green", "C": "yellow", "D": "red"}


def run(arguments: argparse.Namespace) -> int:
    """Apply the laws and print the report; 0 when none is broken, else 1.

    Raises:
        ConfigError: The options are wrong.
        ProviderError: There is no such provider, or no session can be opened.
    """
    logging.getLogger("voxengine").addHandler(logging.NullHandler())
    for option, path in (("--json", arguments.json), ("--html", arguments.html)):
        if path is not None and not (option == "--json" and path == STDOUT):
            check_target(option, path, [arguments.json] if option == "--html" else [])
    laws = _chosen(arguments.law)
    config = _config(arguments)
    cls = default_registry.get(config.provider)
    if arguments.service is not None and arguments.service not in cls.services:
        known = ", ".join(cls.services) or "none"
        raise ConfigError(f"{config.provider!r} has no service {arguments.service!r}. Its services: {known}.")
    make = _factory(cls, config)
    values = config.for_provider()
    secrets = (*secrets_of(values), *secrets_in_environment())
    subject = Subject(name=config.provider, make=make, secrets=secrets)
    clock = _clock(arguments.clock, subject, values)
    printer = _Printer(sys.stderr if arguments.json == STDOUT else sys.stdout)
    details = _details(config.provider, cls, arguments.service)
    printer.head(details, clock)
    report = run_laws(subject, laws=laws, clock=clock, on_result=printer.result, runner=running.run)
    report = attrs.evolve(report, details={**details, "clock": clock})
    printer.foot(report)
    _write(report, arguments)
    return 1 if report.failed else 0


def _chosen(names: list[str]) -> tuple[Law, ...]:
    known = {law.name: law for law in LAWS}
    for name in names:
        if name not in known:
            import difflib

            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"There is no law {name!r}.{hint} docs/reference/conformance.md lists them.")
    return tuple(law for law in LAWS if law.name in names) if names else LAWS


def _config(arguments: argparse.Namespace) -> VoiceEngineConfig:
    """Return the configuration; the options are those of ``talk`` as far as they are shared."""
    values: dict[str, Any] = {
        "mode": None,
        "model": None,
        "voice": None,
        "language": None,
        "instructions": None,
    }
    values |= {"fast": False, "tool": [], **vars(arguments), "provider": arguments.name}
    config = build_config(argparse.Namespace(**values))
    if arguments.service is None:
        return config
    return attrs.evolve(config, metadata={**config.metadata, "service": arguments.service})


def _factory(cls: type[BaseProvider], config: VoiceEngineConfig) -> Factory:
    """Return what makes instances as an engine does: with transcripts, and turns ended by who can."""
    own = config.for_provider()
    capabilities = effective_capabilities(cls, own)
    no_server = capabilities.server_turn_detection.support in (Support.UNSUPPORTED, Support.PLANNED)

    def make(**changes: Any) -> BaseProvider:
        values = config.for_provider(**{"transcription": True, **changes})
        if no_server and capabilities.client_turn_detection and "turn_detection" not in changes:
            values["turn_detection"] = TurnDetection("client")
        return cls(values)

    return make


# -- the clock --------------------------------------------------------------------------------------


def _clock(asked: str, subject: Subject, values: Mapping[str, Any]) -> Clock:
    """Return the clock to judge on: virtual time for a provider in which no socket and no thread is seen.

    Raises:
        ProviderError: No session can be opened, so there is nothing to judge.
    """
    metadata = values.get("metadata") or {}
    has_service = bool(values.get("api_key") or metadata.get("url") or metadata.get("endpoint"))
    opens = partial(_opens_in_memory, subject)
    virtual = partial(VirtualTimeLoop, max_real_s=20.0)
    if asked == "virtual" or (asked == "auto" and not has_service):
        try:
            if running.run(opens, loop_factory=virtual) or asked == "virtual":
                return "virtual"
        except (VirtualDeadlock, VirtualTimeExceeded, VoxEngineError):
            if asked == "virtual":
                raise
    running.run(opens)
    return "real"


async def _opens_in_memory(subject: Subject) -> bool:
    """Open a session; return whether it went without a socket and without a thread."""
    loop = asyncio.get_running_loop()
    try:
        engine = engine_for(subject.make())
    except VoxEngineError:
        raise
    except Exception as error:
        raise ProviderError(
            masked(f"{subject.name} cannot be made: {type(error).__name__}: {error}.", subject),
            provider=subject.name,
        ) from error
    try:
        await engine.connect()
        return isinstance(loop, VirtualTimeLoop) and not loop.n_open_fds()
    except ProviderError as error:
        reason = masked(str(error), subject)
        raise ProviderError(
            f"No session could be opened, so there is nothing to judge. {reason}{_offline(subject, error)}",
            provider=subject.name,
            code=error.code,
        ) from error
    finally:
        await engine.disconnect()


def _offline(subject: Subject, error: ProviderError) -> str:
    """Say how the provider is judged without its service, where a key is what is missing and an emulator is not."""
    config = subject.make().config
    metadata = (config.get("metadata") if isinstance(config, Mapping) else None) or {}
    if error.code != ErrorCode.AUTHENTICATION or metadata.get("url") or metadata.get("endpoint"):
        return ""
    names = {entry.name for entry in find_entry_points(EMULATOR_GROUP)[0]}
    own = sorted(name for name in names if name == subject.name or name.startswith(f"{subject.name}-"))
    if not own:
        return ""
    commands = " or ".join(f"'voxengine emulate {name}'" for name in own)
    return f" Without a key: {commands} prints the URL of an emulator, for --url; it takes the key {DEFAULT_KEY}."


# -- the report -------------------------------------------------------------------------------------


def _details(name: str, cls: type[BaseProvider], service: str | None) -> dict[str, Any]:
    info = next(info for info in default_registry.infos() if info.name == name)
    return {
        "class": f"{cls.__module__}.{cls.__qualname__}",
        "distribution": info.distribution or None,
        "version": info.version or None,
        "service": service,
        "voxengine": voxengine.__version__,
        "python": platform.python_version(),
    }


def _write(report: Report, arguments: argparse.Namespace) -> None:
    if arguments.json is not None:
        text = json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n"
        if arguments.json == STDOUT:
            print(text, end="")
        else:
            Path(arguments.json).write_text(text, encoding="utf-8")
    if arguments.html is not None:
        from voxengine.cli.check_html import page

        Path(arguments.html).write_text(page(report), encoding="utf-8")


class _Printer:
    """Prints each result when it comes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._color = wants_color(stream)
        columns = shutil.get_terminal_size().columns if stream.isatty() else _PIPE_WIDTH
        self._width = max(40, min(columns, 120))
        self._group = ""
        try:
            "✓✗–…".encode(stream.encoding or "ascii")
            self._is_ascii = False
        except (UnicodeEncodeError, LookupError):
            self._is_ascii = True

    def head(self, details: Mapping[str, Any], clock: Clock) -> None:
        """Say who is judged."""
        origin = " ".join(str(details[key]) for key in ("distribution", "version") if details[key])
        service = f", service {details['service']}" if details["service"] else ""
        time = "on virtual time" if clock == "virtual" else "in real time"
        self._line(f"{details['class']} ({origin or 'registered'}{service}), {time}")

    def result(self, result: Result) -> None:
        """Print a law and what came of it."""
        if result.law.group != self._group:
            self._group = result.law.group
            self._line("")
            self._line(GROUPS[self._group], "bold")
        mark, style = _MARKS[result.outcome]
        title = result.law.title
        if result.outcome is Outcome.PASSED:
            self._line(f"  {mark} {title}", style)
        elif result.outcome is Outcome.SKIPPED:
            self._line(f"  {mark} {title}", style)
            self._wrapped(result.reason, style)
        else:
            essential = " (essential)" if result.law.is_essential else ""
            self._line(f"  {mark} {title}{essential}", style)
            self._wrapped(result.law.sentence, "")
            self._wrapped(result.reason, style)
        self._stream.flush()

    def foot(self, report: Report) -> None:
        """Print the counts and the grade."""
        self._line("")
        counts = ", ".join(f"{report.count(outcome)} {outcome}" for outcome in Outcome)
        self._line(f"{len(report.results)} laws: {counts}")
        for skip, words in _SKIPS.items():
            n_laws = sum(result.skip is skip for result in report.results)
            if n_laws:
                self._line(f"  {n_laws} skipped because {words}", "dim")
        grade = report.grade
        self._line(f"Grade {grade}. {report.meaning}", _GRADE_STYLES[grade])
        self._stream.flush()

    def _wrapped(self, text: str, style: str) -> None:
        for line in textwrap.wrap(clean(text), self._width - 4, break_on_hyphens=False):
            self._line(f"    {line}", style)

    def _line(self, text: str, style: str = "") -> None:
        if self._is_ascii:
            text = text.translate(_ASCII).encode("ascii", "replace").decode("ascii")
        self._stream.write(paint(text, style, self._color) + "\n")
