"""A recorded conversation as one HTML page with its picture in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from html import escape
from typing import Final

from voxengine.cli.story import LEVEL_S, Span, Story

__all__ = ["page"]

_LEFT: Final = 84
_MIN_WIDTH: Final = 960
_PX_PER_S: Final = 48.0
_MAX_WIDTH: Final = 48_000
_USER_Y: Final = 106
_AGENT_Y: Final = 226
_HALF: Final = 34
_TOOL_Y: Final = 300
_HEIGHT: Final = 352
_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--paper:#fff;--card:#f6f8fa;--line:#d0d7de;
--user:#0b62c4;--agent:#116329;--cut:#b35900;--tool:#7a3fc2;--bad:#a40e26}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#a2abb5;--paper:#0d1117;--card:#161b22;
--line:#30363d;--user:#6cb6ff;--agent:#6fdd8b;--cut:#f0a45d;--tool:#c8a1ff;--bad:#ff9e96}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:78rem;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:1.5rem;margin:0;overflow-wrap:anywhere}h2{font-size:1.1rem;margin:2rem 0 .5rem}
p{margin:.25rem 0}.soft{color:var(--soft)}
.picture{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:.75rem;margin:1.25rem 0}
.picture:focus-visible{outline:2px solid var(--user);outline-offset:2px}
svg{display:block;font:12px system-ui,-apple-system,"Segoe UI",sans-serif;fill:var(--ink)}
.grid{stroke:var(--line);stroke-width:1}.soft-text{fill:var(--soft)}
.user{fill:var(--user)}.agent{fill:var(--agent)}.tool{fill:var(--tool)}
.user-span{fill:var(--user);opacity:.14}.agent-span{fill:var(--agent);opacity:.14}
.cut{stroke:var(--cut);stroke-width:2;stroke-dasharray:4 3}.cut-text{fill:var(--cut)}
.bad{stroke:var(--bad);stroke-width:2}.bad-text{fill:var(--bad)}
.wait{stroke:var(--soft);stroke-width:1.5;fill:none}.lane{font-weight:600}
table{width:100%;border-collapse:collapse}
th,td{text-align:left;vertical-align:top;padding:.4rem .6rem;border-top:1px solid var(--line);font-weight:400}
thead th{font-size:.85rem;color:var(--soft);border-top:0}td:first-child{white-space:nowrap;font-variant-numeric:tabular-nums}
td:last-child{overflow-wrap:anywhere}
.k-user{color:var(--user)}.k-agent{color:var(--agent)}.k-tool{color:var(--tool)}.k-interrupted,.k-warning{color:var(--cut)}
.k-error{color:var(--bad)}.k-connection{color:var(--soft)}
"""


def page(story: Story) -> str:
    """Return the page. It holds no link to anything outside of itself and runs no program."""
    name = escape(story.tape.path.name)
    body = "\n".join(_body(story))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}: a conversation</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _body(story: Story) -> Iterator[str]:
    tape, header = story.tape, story.tape.header
    yield f"<h1>{escape(tape.path.name)}</h1>"
    sessions = ", ".join(
        f"{escape(name)} ({tap})" for name, tap in zip(story.providers, story.taps, strict=True)
    )
    yield (
        f'<p class="soft">{tape.duration_s:.1f} s with {sessions or "nobody"}, recorded '
        f"{escape(str(header.get('created_at')))} with voxengine {escape(str(header.get('voxengine')))}</p>"
    )
    yield f"<p>{escape(story.summary())}.</p>"
    if not tape.is_complete:
        yield '<p class="k-warning">The recording was not ended in order, or lines of it are missing.</p>'
    yield '<div class="picture" tabindex="0" role="group" aria-label="The conversation over time">'
    yield from _picture(story)
    yield "</div>"
    yield "<h2>Timeline</h2><table><thead><tr>"
    yield '<th scope="col">Seconds</th><th scope="col">Who</th><th scope="col">What</th></tr></thead><tbody>'
    for entry in story.entries:
        yield (
            f'<tr><td>{entry.at_s:.3f}</td><td class="k-{entry.kind}">{entry.kind}</td>'
            f"<td>{escape(entry.text)}</td></tr>"
        )
    yield "</tbody></table>"


def _picture(story: Story) -> Iterator[str]:
    duration = max(story.tape.duration_s, 1.0)
    width = min(max(_MIN_WIDTH, duration * _PX_PER_S), _MAX_WIDTH)
    scale = width / duration
    total = round(_LEFT + width + 72)

    def x(at: float) -> float:
        return round(_LEFT + at * scale, 1)

    yield f'<svg width="{total}" height="{_HEIGHT}" viewBox="0 0 {total} {_HEIGHT}" role="img" aria-labelledby="t d">'
    yield '<title id="t">Turns, audio levels, interruptions and latencies</title>'
    yield f'<desc id="d">{escape(story.summary())}. The table below tells the same in words.</desc>'
    yield from _axis(duration, scale)
    yield f'<text class="lane user" x="12" y="{_USER_Y + 4}">User</text>'
    yield f'<text class="lane agent" x="12" y="{_AGENT_Y + 4}">Agent</text>'
    yield f'<text class="lane tool" x="12" y="{_TOOL_Y + 12}">Tools</text>'
    for spans, y, kind in ((story.user_speech, _USER_Y, "user"), (story.agent_speech, _AGENT_Y, "agent")):
        for span, following in zip(spans, [*spans[1:], None], strict=False):
            room = _MAX_WIDTH if following is None else x(following.start_s) - x(span.start_s)
            yield from _span(span, y, kind, x, room)
    yield _bars(story.user_levels, _USER_Y, "user", x, scale)
    yield _bars(story.agent_levels, _AGENT_Y, "agent", x, scale)
    for entry in story.user_texts:
        label = _fitting(entry.text, 220)
        yield f'<circle class="user" cx="{x(entry.at_s)}" cy="{_USER_Y}" r="5"><title>{escape(entry.text)}</title></circle>'
        yield f'<text class="user" x="{x(entry.at_s) + 9}" y="{_USER_Y - _HALF - 22}">{escape(label)}</text>'
    for span in story.waits:
        yield from _wait(span, x)
    for span in story.tools:
        yield (
            f'<rect class="tool" x="{x(span.start_s)}" y="{_TOOL_Y}" rx="3" height="16" '
            f'width="{max((span.end_s - span.start_s) * scale, 3):.1f}"><title>{escape(span.text)}</title></rect>'
            f'<text x="{x(span.start_s)}" y="{_TOOL_Y + 30}">{escape(_fitting(span.text, 160))}()</text>'
        )
    for entry in story.entries:
        if entry.kind in ("interrupted", "error"):
            style = "cut" if entry.kind == "interrupted" else "bad"
            bottom = _AGENT_Y + _HALF + 18
            yield (
                f'<line class="{style}" x1="{x(entry.at_s)}" x2="{x(entry.at_s)}" y1="{_USER_Y - _HALF}" y2="{bottom}">'
                f"<title>{escape(entry.text)}</title></line>"
                f'<text class="{style}-text" x="{x(entry.at_s) + 4}" y="{bottom - 2}">{entry.kind}</text>'
            )
    yield "</svg>"


def _axis(duration: float, scale: float) -> Iterator[str]:
    step = next((s for s in (0.5, 1, 2, 5, 10, 30, 60, 300) if s * scale >= 60), 600)
    at = 0.0
    while at <= duration:
        left = round(_LEFT + at * scale, 1)
        yield f'<line class="grid" x1="{left}" x2="{left}" y1="26" y2="{_HEIGHT - 14}"/>'
        yield f'<text class="soft-text" x="{left + 3}" y="20">{at:g} s</text>'
        at += step


def _span(span: Span, y: int, kind: str, x: Callable[[float], float], room: float) -> Iterator[str]:
    left, right = x(span.start_s), x(max(span.end_s, span.start_s))
    tail = f" ({span.note})" if span.note else ""
    yield (
        f'<rect class="{kind}-span" x="{left}" y="{y - _HALF}" rx="4" height="{2 * _HALF}" '
        f'width="{max(right - left, 2):.1f}"><title>{escape(span.text + tail)}</title></rect>'
    )
    label = _fitting(span.text, min(max(right - left, 60), room))
    if label:
        yield f'<text class="{kind}" x="{left}" y="{y - _HALF - 6}">{escape(label)}</text>'


def _bars(levels: dict[int, float], y: int, kind: str, x: Callable[[float], float], scale: float) -> str:
    width = max(LEVEL_S * scale - 0.4, 0.6)
    parts = []
    for bar, level in sorted(levels.items()):
        half = round(max(level * _HALF, 0.5), 1)
        parts.append(f"M{x(bar * LEVEL_S)} {y - half}h{width:.1f}v{2 * half}h-{width:.1f}z")
    return f'<path class="{kind}" d="{"".join(parts)}"/>' if parts else ""


def _wait(span: Span, x: Callable[[float], float]) -> Iterator[str]:
    left, right = x(span.start_s), x(span.end_s)
    middle = (_USER_Y + _AGENT_Y) // 2
    yield (
        f'<path class="wait" d="M{left} {_USER_Y + _HALF}V{middle}H{right}V{_AGENT_Y - _HALF - 16}"/>'
        f'<text class="soft-text" x="{left + 4}" y="{middle - 4}">{(span.end_s - span.start_s) * 1000:.0f} ms</text>'
    )


def _fitting(text: str, width: float) -> str:
    """Cut a text to about a width in pixels."""
    n_chars = int(width / 6.2)
    return text if len(text) <= n_chars else text[: max(n_chars - 1, 0)].rstrip() + "…" if n_chars > 3 else ""
