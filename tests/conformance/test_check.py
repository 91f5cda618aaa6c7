"""``voxengine check``: what it prints, what it writes, how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.conformance.wrong_providers import Cryptic, Deaf
from voxengine.cli import main
from voxengine.errors import AuthenticationFailed
from voxengine.providers.base import BaseProvider
from voxengine.providers.registry import default_registry, register_provider
from voxengine.testing import LAWS, FakeProvider

Command = Callable[..., tuple[int, str, str]]
SECRET = "sk-check-5521-secret"


class Refused(FakeProvider):
    async def connect(self) -> None:
        raise AuthenticationFailed(f"The key {self.config['metadata'].get('api_key')} is not known.")


class Quoting(FakeProvider):
    async def interrupt(self, heard: object = None) -> None:
        raise RuntimeError(f"<b>refused</b> {self.config['metadata'].get('api_key')}")


class Unmakeable(FakeProvider):
    def __init__(self, config: dict[str, object]) -> None:
        raise KeyError("endpoint")


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "VOXENGINE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(default_registry, "_registered", dict(default_registry._registered))
    providers: dict[str, type[BaseProvider]] = {
        "fake": FakeProvider, "cryptic": Cryptic, "deaf": Deaf, "refused": Refused, "quoting": Quoting,
        "unmakeable": Unmakeable,
    }  # fmt: skip
    for name, cls in providers.items():
        register_provider(name, cls)


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["check", *arguments])
        written = capsys.readouterr()
        return code, written.out, written.err

    return run


def test_mock_breaks_no_law(check: Command) -> None:
    code, out, _ = check("mock")

    assert code == 0
    assert "✗" not in out
    assert "0 failed" in out


def test_complete_provider_gets_the_best_grade(check: Command) -> None:
    code, out, _ = check("fake")

    assert code == 0
    assert all(law.title in out for law in LAWS)
    assert "Grade A. Complete" in out


@pytest.mark.parametrize(
    ("name", "law", "grade"),
    [
        ("cryptic", "odd byte count is refused clearly", "C"),
        ("deaf", "interrupt stops the answer (essential)", "D"),
    ],
)
def test_broken_law_is_told_with_its_sentence_and_what_was_seen(
    check: Command, name: str, law: str, grade: str
) -> None:
    code, out, _ = check(name)

    assert code == 1
    assert f"  ✗ {law}\n" in out
    assert f"Grade {grade}." in out


def test_missing_key_says_how_to_do_without(check: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    code, _, err = check("openai")

    assert code != 0
    assert "Without a key: 'voxengine emulate openai' prints the URL" in err


def test_json_goes_to_standard_output_alone(check: Command) -> None:
    code, out, err = check("cryptic", "--json", "-")

    report = json.loads(out)
    assert code == 1
    assert "Grade C" in err
    assert (report["provider"], report["grade"], report["clock"]) == ("cryptic", "C", "virtual")
    assert report["counts"]["failed"] == 1
    assert [item["law"] for item in report["laws"]] == [law.name for law in LAWS]
    assert [item["law"] for item in report["laws"] if item["outcome"] == "failed"] == [
        "odd_byte_count_is_refused_clearly"
    ]


class Reader(HTMLParser):
    """Collects what a page names and whether its elements are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name in ("href", "src"):
                self.links.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_holds_every_law_and_needs_nothing_from_elsewhere(check: Command, tmp_path: Path) -> None:
    check("quoting", "--metadata", f'api_key="{SECRET}"', "--html", "report.html")
    text = (tmp_path / "report.html").read_text("utf-8")
    reader = Reader()

    reader.feed(text)

    assert reader.open == []
    assert reader.ids == [law.name for law in LAWS]
    assert all(link.startswith("#") and link[1:] in reader.ids for link in reader.links)
    assert not {"script", "link", "img", "iframe"} & reader.tags
    assert "url(" not in text
    assert "&lt;b&gt;refused&lt;/b&gt; …" in text
    assert SECRET not in text


def test_only_the_named_laws_are_applied(check: Command) -> None:
    code, out, _ = check("cryptic", "--law", "turn_is_answered", "--law", "disconnect_is_idempotent")

    assert code == 0
    assert "2 laws: 2 passed" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nobody",), "No provider named 'nobody'"),
        (("fake", "--law", "turn_is_answerd"), "Did you mean 'turn_is_answered'?"),
        (("fake", "--service", "x"), "has no service 'x'"),
        (("fake", "--html", "missing/report.html"), "no directory 'missing'"),
        (("fake", "--json", "r", "--html", "r"), "named for something else"),
        (("fake", "--metadata", "x"), "KEY=VALUE"),
        (("fake", "--profile", "x"), "No configuration file"),
        (("fake", "--clock", "lunar"), "lunar"),
        ((), "NAME"),
    ],
)
def test_wrong_use_ends_with_two_and_a_sentence(
    check: Command, arguments: tuple[str, ...], words: str
) -> None:
    code, _, err = check(*arguments)

    assert code == 2
    assert words in err


@pytest.mark.parametrize(
    ("name", "words"), [("refused", "The key … is not known"), ("unmakeable", "endpoint")]
)
def test_provider_that_cannot_open_a_session_is_told_once(check: Command, name: str, words: str) -> None:
    code, out, err = check(name, "--metadata", f'api_key="{SECRET}"')

    assert code == 1
    assert out == ""
    assert words in err
    assert SECRET not in err


def test_check_needs_no_test_runner() -> None:
    program = (
        "import sys\n"
        "for name in ('pytest', 'pytest_asyncio', 'hypothesis', '_pytest'):\n"
        "    sys.modules[name] = None\n"
        "from voxengine.cli import main\n"
        "from voxengine.providers.registry import register_provider\n"
        "from voxengine.testing import FakeProvider\n"
        "register_provider('fake', FakeProvider)\n"
        "sys.exit(main(['check', 'fake']))\n"
    )

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )

    assert done.returncode == 0, done.stderr
    assert "Grade A" in done.stdout


def test_output_without_unicode_is_readable(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "voxengine", "check", "mock", "--law", "turn_is_answered"],
        capture_output=True,
        check=False,
        timeout=100,
        cwd=tmp_path,
        env={"PYTHONIOENCODING": "ascii", "PATH": ""},
    )

    assert done.returncode == 0
    assert b"  + turn is answered" in done.stdout
