"""Lines that stay, lines that are replaced, and text that cannot do harm."""

from __future__ import annotations

import io
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxengine.cli.terminal import (
    RichScreen,
    Screen,
    can_redraw,
    clean,
    make_screen,
    paint,
    tail_of,
    wants_color,
    width_of,
)

any_text = st.text(st.characters(codec="utf-8"))


class Terminal(io.StringIO):
    """Says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def shown(written: str) -> list[str]:
    """What stands on the lines of a terminal, as far as these screens use one."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", written).split("\n")
    return [line.rpartition("\r\x1b[K")[2] for line in lines]


@pytest.mark.parametrize(
    ("environ", "on_terminal", "in_pipe"),
    [
        ({}, True, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False, False),
        ({"TERM": "dumb"}, False, False),
    ],
)
def test_colour_follows_the_environment(environ: dict[str, str], on_terminal: bool, in_pipe: bool) -> None:
    assert wants_color(Terminal(), environ) is on_terminal
    assert wants_color(io.StringIO(), environ) is in_pipe


def test_only_a_real_terminal_is_redrawn() -> None:
    assert can_redraw(Terminal(), {"NO_COLOR": "1"})
    assert not can_redraw(Terminal(), {"TERM": "dumb"})
    assert not can_redraw(io.StringIO(), {"FORCE_COLOR": "1"})


@given(any_text)
def test_cleaned_text_is_one_line_without_control(text: str) -> None:
    cleaned = clean(text)

    assert {unicodedata.category(c) for c in cleaned} & {"Cc", "Zl", "Zp"} == set()
    assert not set(cleaned) & set("\u202a\u202b\u202d\u202e\u2066\u2067\u2068")
    assert clean(cleaned) == cleaned


@given(st.text("abc äß漢字"))
def test_cleaning_keeps_words(text: str) -> None:
    assert clean(text).split() == text.split()


@given(any_text, st.integers(2, 60))
def test_tail_fits_and_is_the_end(text: str, width: int) -> None:
    tail = tail_of(text, width)

    assert width_of(tail) <= width
    assert text.endswith(tail.removeprefix("…"))
    assert tail == text or tail.startswith("…")


def test_paint_without_colour_is_the_text() -> None:
    assert paint("text", "red", False) == "text"
    assert paint("text", "red", True) == "\x1b[31mtext\x1b[0m"


def test_pipe_gets_final_lines_only() -> None:
    stream = io.StringIO()
    screen = make_screen(stream, {})

    screen.partial("agent", "It is")
    screen.line("agent", "It is sunny. " * 20)
    screen.partial("agent", "")
    screen.close()

    assert stream.getvalue() == "    agent  " + ("It is sunny. " * 20).strip() + "\n"


@pytest.mark.parametrize("kind", [Screen, RichScreen])
def test_partial_text_is_replaced_and_leaves_nothing(
    kind: type[Screen], monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind is RichScreen:
        pytest.importorskip("rich")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("voxengine.cli.terminal._REDRAW_S", 0.0)
    stream = Terminal()
    screen = kind(stream, color=False, live=True)

    screen.partial("agent", "It is")
    screen.partial("agent", "It is sunny")
    before = stream.getvalue()
    screen.line("tool", "look()")
    screen.partial("agent", "")
    screen.line("agent", "It is sunny.")
    screen.close()

    assert "    agent  It is" in before
    assert before.count("It is sunny") == 1
    if kind is Screen:
        assert shown(stream.getvalue()) == ["     tool  look()", "    agent  It is sunny.", ""]


def test_long_lines_of_a_terminal_keep_their_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    stream = Terminal()

    Screen(stream, color=False, live=True).line("agent", "It is sunny in Lisbon today.")

    assert stream.getvalue() == "    agent  It is sunny in\n           Lisbon today.\n"


def test_long_partial_text_shows_its_end_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    stream = Terminal()

    Screen(stream, color=False, live=True).partial("agent", "It is sunny in Lisbon today.")

    assert stream.getvalue() == "    agent  … in Lisbon today."
    assert len(stream.getvalue()) <= 30


def test_rich_is_used_on_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")

    assert type(make_screen(io.StringIO(), {})) is Screen
    assert type(make_screen(io.StringIO(), {"FORCE_COLOR": "1"})) is Screen
    assert type(make_screen(Terminal(), {})) is RichScreen


def test_without_rich_a_terminal_is_live_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    screen = make_screen(Terminal(), {})

    assert type(screen) is Screen
    assert screen.live


@pytest.mark.parametrize("kind", [Screen, RichScreen])
def test_meter_is_shown_and_taken_away(kind: type[Screen]) -> None:
    terminal = Terminal()
    screen = kind(terminal, color=False, live=True)

    screen.meter("you |||...")
    while_loud = terminal.getvalue()
    screen.line("you", "Hello")
    screen.meter("")
    screen.close()

    assert "you |||..." in while_loud
    assert "Hello" in terminal.getvalue()


def test_last_change_of_the_meter_is_drawn_though_it_came_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    terminal = Terminal()
    screen = RichScreen(terminal, color=False, live=True)

    screen.meter("agent |||")
    screen.meter("agent ...")
    clock[0] += 1.0
    screen.meter("agent ...")

    assert terminal.getvalue().rindex("agent ...") > terminal.getvalue().rindex("agent |||")
    screen.close()


def test_meter_gives_way_to_words_where_there_is_one_line() -> None:
    terminal = Terminal()
    screen = Screen(terminal, color=False, live=True)

    screen.meter("you |||...")
    screen.partial("agent", "It is")
    screen.partial("agent", "")

    lines = shown(terminal.getvalue())
    assert lines[-1].strip() == "you |||..."
    assert "It is" in terminal.getvalue()


def test_pipe_is_shown_no_meter() -> None:
    pipe = io.StringIO()

    Screen(pipe, color=False, live=False).meter("you |||...")

    assert pipe.getvalue() == ""
