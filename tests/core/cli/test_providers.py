"""``voxengine providers``: the table, its forms for many providers, and what cannot be used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.core.cli.conftest import Command
from voxengine import BaseProvider
from voxengine.audio.format import AudioFormat
from voxengine.capabilities import FULL, PLANNED, ROWS, UNSUPPORTED, Capabilities, partial
from voxengine.providers.entry_points import find_entry_points
from voxengine.providers.registry import FIRST_PARTY, ProviderRegistry
from voxengine_mock import MockProvider

ROOT = Path(__file__).resolve().parents[3]


class Short(BaseProvider):
    """As little as a provider can be."""

    async def connect(self) -> None:
        return None

    async def disconnect(self) -> None:
        return None

    async def send_audio(self, audio_data: bytes) -> None:
        return None

    async def send_text(self, text: str) -> None:
        return None

    async def interrupt(self, heard: Any = None) -> None:
        return None

    async def configure_session(self, config: dict[str, Any]) -> None:
        return None


class Various(Short):
    """One cell of each kind."""

    capabilities = Capabilities(
        streaming=FULL,
        resume=PLANNED,
        recognition=partial("short utterances"),
        emotion=UNSUPPORTED,
        voices=("anna", "bert", "cecilia", "dominique", "emanuel"),
        input_formats=(AudioFormat(16_000),),
        session_limit_s=3600.0,
    )


class Services(Short):
    """Two services with capabilities of their own."""

    services: ClassVar = {"speech": Capabilities(recognition=FULL), "voice": Capabilities(synthesis=FULL)}


class Faulty(Short):
    """Its own account of itself fails."""

    @classmethod
    def capabilities_for(cls, config: Any) -> Capabilities:
        raise RuntimeError("no \x1b[31mregion")


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> ProviderRegistry:
    """A registry that scans again and that the command uses; of ours it finds the mock alone."""

    def without_the_others(group: str) -> Any:
        entries, unreadable = find_entry_points(group)
        others = {"voxengine", *FIRST_PARTY.values()} - {FIRST_PARTY["mock"]}
        return tuple(e for e in entries if e.dist is None or e.dist.name not in others), unreadable

    monkeypatch.setattr("voxengine.providers.registry.find_entry_points", without_the_others)
    made = ProviderRegistry()
    monkeypatch.setattr("voxengine.cli.providers.default_registry", made)
    return made


def rows_of(out: str) -> dict[str, str]:
    """The text behind each label of the table."""
    return {line[:23].strip(): line[25:] for line in out.splitlines() if line[:23].strip()}


def test_table_shows_each_kind_of_cell_and_why(voxengine: Command, registry: ProviderRegistry) -> None:
    registry.register("various", Various)

    code, out, _ = voxengine("providers", "various")

    rows = rows_of(out)
    assert code == 0
    assert rows["streaming"] == "● yes"
    assert rows["resume"] == "○ planned"
    assert rows["recognition"] == "◐ partial [1]"
    assert rows["emotion"] == "– no"
    assert rows["word timings"] == "? unknown"
    assert rows["dialogue"] == "● yes"
    assert rows["input formats"] == "16000 Hz mono"
    assert rows["session limit s"] == "3600"
    assert rows["voices"] == "anna, bert, cecilia, dominique, emanuel"
    assert "[1] various, recognition: short utterances\n" in out
    assert {row.replace("_", " ") for row in ROWS} <= set(rows)


def test_installed_provider_is_shown_with_its_distribution(
    voxengine: Command, registry: ProviderRegistry
) -> None:
    _, out, _ = voxengine("providers")

    assert [line.split() for line in out.splitlines()[:3]] == [["mock"], ["voxengine-mock"], ["0.1.0"]]


def test_each_service_has_its_column(voxengine: Command, registry: ProviderRegistry) -> None:
    registry.register("cloud", Services)

    _, out, _ = voxengine("providers", "cloud")

    assert out.splitlines()[0].split() == ["cloud/speech", "cloud/voice"]
    assert rows_of(out)["recognition"].split() == ["●", "yes", "?", "unknown"]


def test_json_holds_everything(voxengine: Command, registry: ProviderRegistry) -> None:
    registry.register("various", Various)
    registry.register("cloud", Services)
    registry.register("faulty", Faulty)

    code, out, _ = voxengine("providers", "--json")

    told = json.loads(out)
    by_name = {provider["name"]: provider for provider in told["providers"]}
    various = by_name["various"]["services"][0]
    assert code == 0
    assert told["rows"] == list(ROWS)
    assert by_name["mock"]["distribution"] == "voxengine-mock"
    assert by_name["mock"]["error"] is None
    assert by_name["mock"]["services"][0]["capabilities"]["voices"] == list(MockProvider.capabilities.voices)
    assert various["service"] is None
    assert various["capabilities"]["recognition"] == {"support": "partial", "why": "short utterances"}
    assert various["capabilities"]["session_limit_s"] == 3600
    assert [service["service"] for service in by_name["cloud"]["services"]] == ["speech", "voice"]
    assert "RuntimeError" in by_name["faulty"]["error"]
    assert by_name["faulty"]["services"] == []


def install(folder: Path, name: str, target: str) -> None:
    """Put the metadata of a distribution with one provider into a folder."""
    info = folder / f"{name}-0.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.3\n")
    (info / "entry_points.txt").write_text(f"[voxengine.providers]\n{name} = {target}\n")


def test_broken_providers_are_listed_with_their_reason_and_harm_no_other(
    voxengine: Command, registry: ProviderRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "acme", "no_such_module_of_acme:Provider")
    install(tmp_path, "wrong", "json:dumps")
    monkeypatch.syspath_prepend(tmp_path)
    registry.register("faulty", Faulty)

    code, out, err = voxengine("providers")

    assert (code, err) == (0, "")
    assert "✗ acme (acme 0.3) cannot be used\n" in out
    assert "No module named 'no_such_module_of_acme'" in " ".join(out.split())
    assert "✗ wrong (wrong 0.3) cannot be used\n" in out
    assert "✗ faulty (registered) cannot be used\n" in out
    assert "\x1b" not in out
    assert rows_of(out)["session tools"] == "● yes"


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("no_such_module_of_acme:Provider", "No module named 'no_such_module_of_acme'"),
        ("json:dumps", "Give a class"),
        ("json", "json is a module"),
        ("json:JSONDecoder", "JSONDecoder"),
    ],
)
def test_talk_with_a_provider_that_cannot_be_used_is_wrong_use(
    voxengine: Command,
    registry: ProviderRegistry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    says: str,
) -> None:
    install(tmp_path, "acme", target)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("voxengine.cli.options.default_registry", registry)

    code, out, err = voxengine("talk", "--provider", "acme", "--text", "Hello")

    assert (code, out) == (2, "")
    assert says in err


def test_distribution_that_cannot_be_read_is_listed_and_harms_no_other(
    voxengine: Command, registry: ProviderRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "acme", "acme:Provider")
    (tmp_path / "acme-0.3.dist-info" / "entry_points.txt").write_bytes(b"[console_scripts]\n\xff\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry.register("acme", Short)  # A distribution and a provider may have one name.

    code, out, err = voxengine("providers")
    _, as_json, _ = voxengine("providers", "--json")

    assert (code, err) == (0, "")
    assert "✗ acme (acme 0.3) cannot be used\n  What the distribution acme 0.3 offers is not known:" in out
    found = [(entry["name"], entry["error"] is None) for entry in json.loads(as_json)["providers"]]
    assert ("mock", True) in found
    assert [(name, works) for name, works in found if name == "acme"] == [("acme", True), ("acme", False)]


LOUD = """
import os, sys
from tests.core.cli.test_providers import Short
from voxengine.testing.emulator import Emulator

print("through print")
sys.stdout.write("through sys.stdout\\n")
sys.__stdout__.write("through what sys.stdout was\\n")
os.system("echo by a child process")


class Provider(Short):
    @classmethod
    def capabilities_for(cls, config):
        if sys.argv[1] == "providers":
            print("when asked")
        return super().capabilities_for(config)
"""
SAID = {"through print", "through sys.stdout", "through what sys.stdout was", "by a child process"}


def loud(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command beside a provider that prints when it is imported."""
    install(folder, "loud", "loud_plugin:Provider\n[voxengine.emulators]\nloud = loud_plugin:Provider")
    (folder / "loud_plugin.py").write_text(LOUD)
    program = "import sys; from voxengine.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="latin-1",
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])},
    )


def test_what_a_plugin_prints_is_not_in_the_json(tmp_path: Path) -> None:
    done = loud(tmp_path, "providers", "loud", "--json")

    assert (done.returncode, set(done.stderr.splitlines())) == (0, {*SAID, "when asked"})
    assert [entry["name"] for entry in json.loads(done.stdout)["providers"]] == ["loud"]


def test_what_a_plugin_prints_is_not_in_the_sound(tmp_path: Path) -> None:
    done = loud(tmp_path, "talk", "--provider", "loud", "--output", "-")

    assert done.returncode == 0, done.stderr
    assert set(done.stderr.splitlines()) > SAID
    assert done.stdout.startswith("RIFF")
    assert not any(line in done.stdout for line in SAID)


@pytest.mark.parametrize("arguments", [("emulate", "loud"), ("check", "loud", "--law", "turn_is_answered")])
def test_what_a_plugin_prints_is_nowhere_else_either(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = loud(tmp_path, *arguments)

    assert set(done.stderr.splitlines()) >= SAID
    assert not any(line in done.stdout for line in SAID)


def test_only_broken_providers_are_no_failure(
    voxengine: Command, registry: ProviderRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "acme", "no_such_module_of_acme:Provider")
    monkeypatch.syspath_prepend(tmp_path)

    code, out, _ = voxengine("providers", "acme")

    assert code == 0
    assert "✗ acme (acme 0.3) cannot be used\n" in out


def test_unknown_name_is_wrong_use(voxengine: Command, registry: ProviderRegistry) -> None:
    code, out, err = voxengine("providers", "mokc")

    assert (code, out) == (2, "")
    assert "No provider named 'mokc'." in err
    assert "Did you mean 'mock'?" in err


def test_tables_are_cut_to_the_width(
    voxengine: Command, registry: ProviderRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        registry.register(f"vendor-{number}", Various)
    monkeypatch.setenv("COLUMNS", "80")

    _, out, _ = voxengine("providers")

    heads = [line.split() for line in out.splitlines() if "vendor-" in line and not line.startswith("[")]
    assert [name for head in heads for name in head] == ["mock", *(f"vendor-{number}" for number in range(4))]
    assert len(heads) > 1
    assert max(map(len, out.splitlines())) <= 80


def test_many_providers_take_a_line_each(
    voxengine: Command, registry: ProviderRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(100):
        registry.register(f"vendor-{number}", Various)
    monkeypatch.setenv("COLUMNS", "80")

    _, out, _ = voxengine("providers")

    lines = out.splitlines()
    line = next(line for line in lines if line.startswith("vendor-42 "))
    assert len(lines) < 130
    assert max(map(len, lines)) <= 80
    assert len(line.split()) == 1 + len(ROWS)
    assert line.split()[1] == "●"
    assert line.split()[1 + ROWS.index("recognition")] == "◐"
    assert f"{ROWS.index('recognition') + 1} recognition" in " ".join(lines)


def test_colour_only_where_it_is_wanted(
    voxengine: Command, registry: ProviderRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = voxengine("providers")[1]
    monkeypatch.setenv("FORCE_COLOR", "1")
    forced = voxengine("providers")[1]
    monkeypatch.setenv("NO_COLOR", "1")
    refused = voxengine("providers")[1]

    assert "\x1b" not in plain
    assert "\x1b[32m● yes\x1b[0m" in forced
    assert refused == plain


def test_nothing_installed_says_what_to_install(
    voxengine: Command, registry: ProviderRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [])

    code, out, _ = voxengine("providers")

    assert (code, out) == (0, "No provider is installed. Try: pip install voxengine-mock\n")


def test_terminal_without_unicode_gets_ascii(registry: ProviderRegistry) -> None:
    import io
    from types import SimpleNamespace
    from unittest.mock import patch

    from voxengine.cli import providers

    registry.register("various", Various)
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")

    with patch("sys.stdout", stream):
        providers.run(SimpleNamespace(names=["various"], json=False))  # type: ignore[arg-type]
    stream.flush()

    written = stream.buffer.getvalue().decode("ascii")
    assert rows_of(written)["streaming"] == "+ yes"
    assert rows_of(written)["recognition"] == "~ partial [1]"
