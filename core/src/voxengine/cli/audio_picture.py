"""The picture of an audio check: the pace of the callbacks, the level, and the times, as one SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from voxengine.cli.audio_check import Check

__all__ = ["draw"]

_WIDTH: Final = 720
_LEFT, _RIGHT = 130, 20
_PLOT_HEIGHT: Final = 110
_BAR_HEIGHT: Final = 22
_FLOOR_DB: Final = -90.0
_MOST_POINTS: Final = 600


def draw(check: Check) -> str:
    """Return an SVG document that needs nothing from elsewhere."""
    parts: list[str] = [_text(20, 30, f"{check.output_device} and {check.input_device}", size=18)]
    described = f"{check.output_format} out, {check.input_format} in, blocks of {check.block_ms} ms"
    parts.append(_text(20, 50, described, size=12, dim=True))
    limit_ms = max(2.0 * check.block_ms, max(check.output_gaps_ms, default=0.0))
    parts += _plot(75, "between blocks", check.output_gaps_ms, 0.0, limit_ms, "ms")
    parts += _plot(75 + _PLOT_HEIGHT + 40, "microphone", check.levels_db, _FLOOR_DB, 0.0, "dB")
    top = 75 + 2 * (_PLOT_HEIGHT + 40)
    bars = [
        ("round trip", check.round_trip_ms),
        ("soft interrupt", check.soft_interrupt_ms),
        ("hard interrupt", check.hard_interrupt_ms),
        ("jitter, p99", check.output_jitter_p99_ms),
    ]
    longest = max((value for _, value in bars if value is not None), default=1.0) or 1.0
    for number, (label, value) in enumerate(bars):
        parts += _bar(top + number * (_BAR_HEIGHT + 10), label, value, longest)
    height = top + len(bars) * (_BAR_HEIGHT + 10) + 10
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif">\n'
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def _text(x: float, y: float, text: str, *, size: int = 13, dim: bool = False, right: bool = False) -> str:
    anchor = ' text-anchor="end"' if right else ""
    color = "#667085" if dim else "#101828"
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{color}"{anchor}>{escape(text)}</text>'


def _plot(top: float, label: str, values: Sequence[float], low: float, high: float, unit: str) -> list[str]:
    width, bottom = _WIDTH - _LEFT - _RIGHT, top + _PLOT_HEIGHT
    parts = [
        _text(_LEFT - 10, top + _PLOT_HEIGHT / 2, label, right=True),
        _text(_LEFT - 10, top + 10, f"{high:.0f} {unit}", size=10, dim=True, right=True),
        _text(_LEFT - 10, bottom, f"{low:.0f} {unit}", size=10, dim=True, right=True),
        f'<rect x="{_LEFT}" y="{top:g}" width="{width}" height="{_PLOT_HEIGHT}" fill="#f2f4f7"/>',
    ]
    shown = _thinned(values)
    if len(shown) > 1:
        points = " ".join(
            f"{_LEFT + n * width / (len(shown) - 1):.1f},"
            f"{bottom - (min(max(value, low), high) - low) / (high - low) * _PLOT_HEIGHT:.1f}"
            for n, value in enumerate(shown)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="#2e6be6" stroke-width="1"/>')
    return parts


def _thinned(values: Sequence[float]) -> list[float]:
    """Return the largest of each stretch, where there are more values than the picture has room for."""
    step = -(-len(values) // _MOST_POINTS) or 1
    return [max(values[at : at + step]) for at in range(0, len(values), step)]


def _bar(top: float, label: str, value: float | None, longest: float) -> list[str]:
    width = 0.0 if value is None else value / longest * (_WIDTH - _LEFT - _RIGHT - 80)
    shown = "unknown" if value is None else f"{value:.1f} ms"
    return [
        _text(_LEFT - 10, top + 16, label, right=True),
        f'<rect x="{_LEFT}" y="{top:g}" width="{width:.1f}" height="{_BAR_HEIGHT}" fill="#2e6be6"/>',
        _text(_LEFT + width + 8, top + 16, shown, dim=True),
    ]
