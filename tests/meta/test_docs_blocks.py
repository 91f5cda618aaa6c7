"""Every code block of the README files and of the documentation runs and does what the page shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.meta.docs_runner import DocsError, Page, fences, nox_sessions, workspace
from tests.meta.tree import DOCS, ROOT, headings
from voxengine.providers.registry import default_registry

PAGES = {
    str(path.relative_to(ROOT)): path
    for path in (
        ROOT / "README.md",
        ROOT / "core/README.md",
        *sorted(ROOT.glob("plugins/*/README.md")),
        *sorted(DOCS.rglob("*.md")),
    )
}


@pytest.fixture(autouse=True)
def registry_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a page registers is gone after it."""
    monkeypatch.setattr(default_registry, "_registered", dict(default_registry._registered))


@pytest.mark.parametrize("name", PAGES)
def test_every_block_of_the_page_runs(name: str, tmp_path: Path) -> None:
    blocks = fences(PAGES[name].read_text("utf-8"))

    with Page(name, tmp_path) as page:
        for block in blocks:
            page.run(block)

    assert page.n_run == len(blocks)


@pytest.mark.parametrize("name", PAGES)
def test_every_link_within_the_project_leads_somewhere(name: str) -> None:
    page = PAGES[name]
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(target)

    assert broken == []


def anchors(path: Path) -> set[str]:
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings(path)}


def test_every_page_is_reached_from_the_index() -> None:
    linked = {
        (DOCS / target.partition("#")[0]).resolve()
        for target in re.findall(r"\]\(([^)\s]+)\)", (DOCS / "index.md").read_text("utf-8"))
    }

    assert {page for page in DOCS.rglob("*.md") if page.resolve() not in linked} == {DOCS / "index.md"}


def test_readme_shows_both_commands_and_a_short_program() -> None:
    blocks = fences((ROOT / "README.md").read_text("utf-8"))
    commands = "".join(block.text for block in blocks if block.language in ("bash", "console"))
    programs = [block.text.strip().splitlines() for block in blocks if block.language == "python"]

    assert "python3 noxfile.py -s demo\n" in commands
    assert "python3 noxfile.py -s tests\n" in commands
    assert 0 < len(programs[0]) < 15


# --- The runner itself -----------------------------------------------------------------------------


def run_page(text: str, folder: Path) -> Page:
    with Page("page.md", folder) as page:
        for block in fences(text):
            page.run(block)
    return page


def fenced(info: str, *lines: str) -> str:
    return "\n".join([f"```{info}", *lines, "```", ""])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (fenced("ruby", "puts 1"), "the language 'ruby'"),
        (fenced("", "pip install voxengine"), "the language ''"),
        (fenced("mermaid", "graph TD"), "the language 'mermaid'"),
        (fenced("python", "assert 1 == 2"), "raised AssertionError"),
        (fenced("python", "x = ("), "raised SyntaxError"),
        (fenced("python", "await undefined()"), "raised NameError"),
        (fenced("python", "print(1)") + fenced("text output", "2"), "this was printed\n1"),
        (fenced("bash", "rm -rf x"), "not one that a page may show"),
        (fenced("bash", "python3 absent.py"), "not one that a page may show"),
        (fenced("bash", "python3 noxfile.py -s fly"), "no session 'fly'"),
        (fenced("bash", "pip install numpy"), "the workspace has no 'numpy'"),
        (fenced("bash", 'pip install "voxengine[telepathy]"'), "the workspace has no"),
        (fenced("bash", "voxengine fly"), "ended with 2, not 0"),
        (fenced("console", "no command"), "begins with a command"),
        (fenced("console", "$ voxengine --version", "voxengine 99"), "the page shows\nvoxengine 99"),
        (fenced("toml", "a = "), "no valid TOML"),
        (fenced("toml", "a = 1"), "neither profiles nor a script"),
    ],
)
def test_block_that_does_not_do_what_it_says_is_an_error(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(DocsError) as caught:
        run_page(text, tmp_path)

    assert "page.md, line " in str(caught.value)
    assert words in str(caught.value)


def test_wrong_profile_and_wrong_script_are_errors(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="mode"):
        run_page(fenced("toml", "[profiles.a]", "mode = 'x'"), tmp_path)
    with pytest.raises(Exception, match="seed"):
        run_page(fenced("toml", "seed = 'x'"), tmp_path)


def test_blocks_share_names_time_and_files(tmp_path: Path) -> None:
    text = (
        fenced("python", "import asyncio", "loop_time = asyncio.get_event_loop_policy")
        + fenced("python", "await asyncio.sleep(3600)", "later = asyncio.get_running_loop().time()")
        + fenced("python", "print(later >= 3600)")
        + fenced("text output", "T…e")
        + fenced("python", "async def main():", "    await asyncio.sleep(60)", "asyncio.run(main())")
        + fenced("python file=here/mine.py", "print('hello', 'world')")
        + fenced("console", "$ python3 here/mine.py", "hello …")
        + fenced("bash", "export NAME=value", "voxengine --version  # a comment")
        + fenced("bash exit=2", "voxengine fly")
    )

    assert run_page(text, tmp_path).n_run == 9


def test_what_a_page_may_name_is_read_from_the_project() -> None:
    assert {"demo", "tests", "docs"} <= nox_sessions()
    assert workspace()["voxengine"] >= {"cli", "testing"}
