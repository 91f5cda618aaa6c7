"""The report of ``voxengine check`` as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Final

from voxengine.testing.conformance.law import GROUPS, Outcome, Result, Skip
from voxengine.testing.conformance.run import Report

__all__ = ["page"]

_WORDS: Final = {Outcome.PASSED: "Passed", Outcome.FAILED: "Failed", Outcome.SKIPPED: "Skipped"}
_MARKS: Final = {Outcome.PASSED: "✓", Outcome.FAILED: "✗", Outcome.SKIPPED: "–"}
_SKIPS: Final = {
    Skip.VENDOR: "Vendor cannot",
    Skip.PLANNED: "Not yet",
    Skip.UNDECLARED: "Not promised",
    Skip.UNEQUIPPED: "No such peer",
    Skip.UNJUDGED: "Not judged",
}
_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--paper:#fff;--card:#f6f8fa;--line:#d0d7de;
--pass:#116329;--pass-bg:#dafbe1;--fail:#a40e26;--fail-bg:#ffebe9;--skip:#4d5560;--skip-bg:#eaeef2;
--warn:#7a4b00;--warn-bg:#fff4d1}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#a2abb5;--paper:#0d1117;--card:#161b22;
--line:#30363d;--pass:#6fdd8b;--pass-bg:#12361f;--fail:#ff9e96;--fail-bg:#4a1a1d;--skip:#b1bac4;
--skip-bg:#262c34;--warn:#f0c462;--warn-bg:#3b2d0c}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:62rem;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:1.6rem;margin:0 0 .25rem}
h2{font-size:1.1rem;margin:2.25rem 0 .5rem}
p{margin:.25rem 0}
.soft{color:var(--soft)}
.head{display:flex;gap:1.25rem;align-items:center;background:var(--card);border:1px solid var(--line);
border-radius:.75rem;padding:1.25rem;margin:1.25rem 0}
.grade{font-size:3rem;font-weight:700;line-height:1;min-width:4.5rem;text-align:center;padding:.75rem;
border-radius:.5rem}
.A,.B{color:var(--pass);background:var(--pass-bg)}
.C{color:var(--warn);background:var(--warn-bg)}
.D{color:var(--fail);background:var(--fail-bg)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem;margin:1rem 0}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
table{width:100%;border-collapse:collapse;table-layout:fixed}
caption{text-align:left;position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
th,td{text-align:left;vertical-align:top;padding:.55rem .5rem;border-top:1px solid var(--line);font-weight:400}
thead th{font-size:.85rem;color:var(--soft);border-top:0}
.outcome{width:9.5rem}
.badge{display:inline-block;padding:.05rem .55rem;border-radius:1rem;font-size:.85rem;font-weight:600;white-space:nowrap}
.passed{color:var(--pass);background:var(--pass-bg)}
.failed{color:var(--fail);background:var(--fail-bg)}
.skipped{color:var(--skip);background:var(--skip-bg)}
code{font:.85em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;color:var(--soft);overflow-wrap:anywhere}
.reason{margin-top:.35rem;padding:.4rem .6rem;border-left:3px solid var(--line);background:var(--card);overflow-wrap:anywhere}
.reason.failed{border-color:var(--fail);color:var(--ink);background:var(--fail-bg)}
nav a{color:inherit}
@media (max-width:36rem){.head{flex-direction:column;align-items:flex-start}.outcome{width:7.5rem}.badge{white-space:normal}}
@media print{.head,.reason{break-inside:avoid}}
"""


def page(report: Report) -> str:
    """Return the page. It holds no link to anything outside of itself and runs no program."""
    name = escape(report.name)
    body = "\n".join(_body(report))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}: conformance, grade {report.grade}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _body(report: Report) -> Iterator[str]:
    grade = report.grade
    counts = ", ".join(f"{report.count(outcome)} {outcome}" for outcome in Outcome)
    yield f"<h1>{escape(report.name)}</h1>"
    yield '<p class="soft">Conformance with the VoxEngine provider contract</p>'
    yield (
        f'<div class="head"><div class="grade {grade}" role="img" aria-label="Grade {grade}">{grade}</div>'
        f"<div><p><strong>{escape(report.meaning)}</strong></p>"
        f"<p>{len(report.results)} laws: {counts}.</p></div></div>"
    )
    yield "<dl>"
    for key, value in report.details.items():
        if value:
            yield f"<dt>{escape(key.capitalize())}</dt><dd>{escape(str(value))}</dd>"
    yield "</dl>"
    if report.failed:
        yield '<nav aria-label="Broken laws"><p>Broken: '
        yield ", ".join(f'<a href="#{item.law.name}">{escape(item.law.title)}</a>' for item in report.failed)
        yield "</p></nav>"
    for group, title in GROUPS.items():
        results = [result for result in report.results if result.law.group == group]
        if results:
            yield from _table(title, results)


def _table(title: str, results: list[Result]) -> Iterator[str]:
    yield f"<section><h2>{escape(title)}</h2>"
    yield f"<table><caption>{escape(title)}</caption>"
    yield '<thead><tr><th scope="col" class="outcome">Outcome</th><th scope="col">Law</th></tr></thead><tbody>'
    for result in results:
        law = result.law
        essential = ' <span class="soft">(essential)</span>' if law.is_essential else ""
        reason = ""
        if result.reason:
            kind = " failed" if result.outcome is Outcome.FAILED else ""
            reason = f'<div class="reason{kind}">{escape(result.reason)}</div>'
        word = _WORDS[result.outcome] if result.skip is None else _SKIPS[result.skip]
        yield (
            f'<tr id="{law.name}"><td class="outcome"><span class="badge {result.outcome}">'
            f'<span aria-hidden="true">{_MARKS[result.outcome]}</span> {word}</span></td>'
            f'<th scope="row">{escape(law.sentence)}{essential}<br><code>{law.name}</code>{reason}</th></tr>'
        )
    yield "</tbody></table></section>"
