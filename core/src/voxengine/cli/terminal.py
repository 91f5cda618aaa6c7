"""Lines on a terminal or in a pipe: colours, what is still being said, nothing that can do harm."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import sys
import textwrap
import time
import unicodedata
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Screen", "can_redraw", "clean", "make_screen", "paint", "prints_to_stderr", "wants_color"]

LABEL_WIDTH: Final = 9
_REDRAW_S: Final = 0.05
_SPACES: Final = re.compile(r"[ \t\r\n\f\v\u2028\u2029]+")
_STYLES: Final = {
    "": "",
    "dim": "2",
    "bold": "1",
    "green": "32",
    "yellow": "33",
    "red": "31",
    "cyan": "36",
    "magenta": "35",
}


def wants_color(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether to colour: NO_COLOR says no, else FORCE_COLOR says yes, else a terminal decides."""
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and environ.get("TERM") != "dumb"


def can_redraw(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether a line that was written can be replaced."""
    return stream.isatty() and environ.get("TERM") != "dumb"


def clean(text: str) -> str:
    """Return the text on one line and without control characters: it may come from a service."""
    if text.isascii() and text.isprintable():
        return text
    # Cc: escape sequences; Cf other than joiners: marks that reverse the direction of what follows.
    kept = (
        c
        for c in _SPACES.sub(" ", text).strip()
        if unicodedata.category(c) not in ("Cc", "Cf", "Cs") or c == "\u200d"
    )
    return "".join(kept)


def paint(text: str, style: str, color: bool) -> str:
    """Return the text in a style, unchanged without colour."""
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if color and style and text else text


def width_of(text: str) -> int:
    """Return how many columns a text takes."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def tail_of(text: str, width: int) -> str:
    """Return the end of a text that fits."""
    if width_of(text) <= width:
        return text
    used, first = 1, len(text)
    while first and used + width_of(text[first - 1]) <= width:
        first -= 1
        used += width_of(text[first])
    return "…" + text[first:]


@contextlib.contextmanager
def prints_to_stderr() -> Iterator[None]:
    """Send what a plug-in prints while it is imported to standard error: standard output is ours, and may be data.

    Also what does not go through ``sys.stdout``, such as the output of a child process.
    """
    descriptor, kept = -1, -1
    with contextlib.suppress(OSError, ValueError):  # Not every stream has a file.
        sys.stdout.flush()
        descriptor = sys.__stdout__.fileno() if sys.__stdout__ is not None else -1
        kept = os.dup(descriptor)
        os.dup2(sys.stderr.fileno(), descriptor)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if kept >= 0:
            with contextlib.suppress(OSError, ValueError):
                sys.__stdout__.flush()  # type: ignore[union-attr]
            os.dup2(kept, descriptor)
            os.close(kept)


class Screen:
    """Lines that stay and, below them on a terminal, what is still being said.

    Args:
        stream: Where to.
        color: Whether to use colours.
        live: Whether partial text is shown.
    """

    def __init__(self, stream: TextIO, *, color: bool, live: bool) -> None:
        self.stream = stream
        self.color = color
        self.live = live
        self._partials: dict[str, tuple[str, str]] = {}
        self._meter = ""
        self._is_stale = False
        """Whether something changed since it was drawn."""
        self._drawn = False

    def line(self, label: str, text: str, style: str = "") -> None:
        """Write a line that stays. ``style`` is for the label; a label in ``dim`` dims the text too."""
        self._erase()
        head = paint(label.rjust(LABEL_WIDTH), style, self.color)
        # A pipe gets one line, for whoever searches it; a terminal gets its words in their column.
        pieces = textwrap.wrap(clean(text), self._room()) if self.live else [clean(text)]
        body = ("\n" + " " * (LABEL_WIDTH + 2)).join(
            paint(piece, "dim" if style == "dim" else "", self.color) for piece in pieces
        )
        self._write(f"{head}  {body}".rstrip() + "\n")
        self._draw()

    def blank(self) -> None:
        """Write an empty line."""
        self._erase()
        self._write("\n")
        self._draw()

    def partial(self, label: str, text: str, style: str = "") -> None:
        """Show what is being said, in place of what was shown under that label; an empty text ends it."""
        if not self.live:
            return
        self._partials.pop(label, None)
        if text:
            self._partials[label] = (clean(text), style)
        self._redraw()

    def meter(self, text: str) -> None:
        """Show how loud it is, below what is being said, or in its place where there is one line; empty ends it."""
        if self.live and (text != self._meter or self._is_stale):
            self._meter = text
            self._redraw()

    def prompt(self, label: str, style: str = "") -> None:
        """Write a label and leave the cursor behind it."""
        self._erase()
        self._write(paint(label.rjust(LABEL_WIDTH), style, self.color) + "  ")

    def close(self) -> None:
        """Take away what is not final."""
        self._partials.clear()
        self._meter = ""
        self._erase()

    def _room(self) -> int:
        """How many columns a text has; one less than there are, so that the cursor stays on the line."""
        return max(shutil.get_terminal_size().columns - LABEL_WIDTH - 3, 10)

    def _redraw(self) -> None:
        self._erase()
        self._draw()

    def _draw(self) -> None:
        if not self._partials and not self._meter:
            return
        label, (text, style) = list(self._partials.items())[-1] if self._partials else ("", (self._meter, ""))
        head = paint(label.rjust(LABEL_WIDTH), style, self.color)
        self._write(f"{head}  {paint(tail_of(text, self._room()), 'dim', self.color)}")
        self._drawn = True

    def _erase(self) -> None:
        if self._drawn:
            self._write("\r\x1b[K")
            self._drawn = False

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


class RichScreen(Screen):
    """The same with rich: long texts keep their column, and both speakers are shown at once."""

    def __init__(self, stream: TextIO, *, color: bool, live: bool) -> None:
        super().__init__(stream, color=color, live=live)
        from rich.console import Console
        from rich.live import Live

        self._console = Console(
            file=stream, highlight=False, markup=False, emoji=False, no_color=not color, soft_wrap=False
        )
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._shown_at = 0.0

    def line(self, label: str, text: str, style: str = "") -> None:
        """Write a line that stays, wrapped within its column."""
        self._console.print(self._row(label, clean(text), style, "dim" if style == "dim" else ""))

    def blank(self) -> None:
        """Write an empty line."""
        self._console.print()

    def _redraw(self) -> None:
        if not self._partials and not self._meter:
            self._erase()
            return
        now = time.monotonic()
        self._is_stale = self._live.is_started and now - self._shown_at < _REDRAW_S
        if self._is_stale:
            return
        self._shown_at = now
        from rich.console import Group

        rows = [self._row(label, text, style, "dim") for label, (text, style) in self._partials.items()]
        if self._meter:
            rows.append(self._row("", self._meter, "", "dim"))
        if not self._live.is_started:
            self._live.start()
        self._live.update(Group(*rows), refresh=True)

    def _erase(self) -> None:
        if self._live.is_started:
            self._live.update("")
            self._live.stop()

    def _row(self, label: str, text: str, style: str, text_style: str) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(width=LABEL_WIDTH, justify="right", no_wrap=True)
        grid.add_column(overflow="fold")
        styles = (style, text_style) if self.color else ("", "")
        grid.add_row(Text(label, style=styles[0]), Text(text, style=styles[1]))
        return grid


def make_screen(stream: TextIO, environ: Mapping[str, str] = os.environ) -> Screen:
    """Return rich's screen where rich is installed and the stream is a terminal, else the plain one."""
    with contextlib.suppress(AttributeError, ValueError):
        stream.reconfigure(errors="replace")  # type: ignore[attr-defined]
    color, live = wants_color(stream, environ), can_redraw(stream, environ)
    kind = RichScreen if live and importlib.util.find_spec("rich") is not None else Screen
    return kind(stream, color=color, live=live)
