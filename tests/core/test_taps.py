"""Taps: chained in their order, isolated, and refused with a sentence when they cannot work."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.providers_for_tests import Plain, Sink
from voxengine.errors import ConfigError
from voxengine.events import Event, make_event
from voxengine.hookspecs import TAP_HOOKS, hookimpl
from voxengine.taps import Mute, SessionManager, Taps

Reports = list[tuple[str, BaseException]]


def tap(name: str = "Tap", /, **hooks: Callable[..., Any]) -> Any:
    """Return an object of a class of that name with these hooks."""
    return type(name, (), {hook: staticmethod(call) for hook, call in hooks.items()})()


def chained(*taps: object) -> tuple[Taps, Reports]:
    reports: Reports = []
    return Taps(taps, lambda where, error: reports.append((where, error))), reports


def raising(error: Exception) -> Callable[..., Any]:
    def call(*_: Any) -> Any:
        raise error

    return call


TEXT = make_event("text_output", {"text": "a"})


# --- Chains ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [Taps.filter_input, Taps.filter_output])
def test_each_result_goes_into_the_next_in_list_order(run: Callable[[Taps, bytes], bytes | None]) -> None:
    taps, reports = chained(
        tap(on_input=lambda chunk: chunk + b"1.", on_output=lambda chunk: chunk + b"1."),
        tap(on_input=lambda chunk: chunk + b"2.", on_output=lambda chunk: chunk + b"2."),
    )

    assert run(taps, b"0.") == b"0.1.2."
    assert reports == []


def test_events_are_chained_too() -> None:
    taps, _ = chained(
        tap(on_event=lambda event: event.replace(text=event.text + "b")),
        tap(on_event=lambda event: event.replace(text=event.text + "c")),
    )

    result = taps.filter_event(TEXT)

    assert result is not None
    assert result.text == "abc"


def test_directions_do_not_mix() -> None:
    taps, _ = chained(tap(on_input=lambda chunk: b"in"), tap("Other", on_output=lambda chunk: b"ou"))

    assert (taps.filter_input(b"ab"), taps.filter_output(b"ab")) == (b"in", b"ou")


def test_none_discards_for_all_that_follow_and_is_counted_by_name() -> None:
    seen: list[object] = []

    def note(chunk: bytes) -> bytes:
        seen.append(chunk)
        return chunk

    taps, _ = chained(
        tap("First", on_input=lambda chunk: chunk),
        tap("Gate", on_input=lambda chunk: None, on_output=lambda chunk: None, on_event=lambda event: None),
        tap("Last", on_input=note),
    )

    results = [
        taps.filter_input(b"ab"),
        taps.filter_input(b"cd"),
        taps.filter_output(b"ab"),
        taps.filter_event(TEXT),
    ]

    assert results == [None] * 4
    assert seen == []
    assert taps.discarded == {"First": 0, "Gate": 4, "Last": 0}


def test_empty_chunk_is_no_discard() -> None:
    taps, reports = chained(tap("Gate", on_input=lambda chunk: b""))

    assert taps.filter_input(b"ab") == b""
    assert taps.discarded == {"Gate": 0}
    assert reports == []


@given(st.lists(st.sampled_from(["pass", "upper", "raise", "drop"]), max_size=5), st.binary(max_size=8))
def test_chain_equals_the_functions_applied_one_after_another(kinds: list[str], data: bytes) -> None:
    data = data * 2
    calls: dict[str, Callable[[bytes], bytes | None]] = {
        "pass": lambda chunk: chunk,
        "upper": lambda chunk: chunk.upper(),
        "raise": raising(ValueError("x")),
        "drop": lambda chunk: None,
    }
    taps, _ = chained(*[tap(on_input=calls[kind]) for kind in kinds])

    expected: bytes | None = data
    for kind in kinds:
        if expected is not None and kind != "raise":
            expected = calls[kind](expected)

    assert taps.filter_input(data) == expected


def test_wire_is_shown_to_every_observer_and_results_are_ignored() -> None:
    seen: list[tuple[object, ...]] = []
    taps, _ = chained(
        tap("One", on_wire=lambda direction, wire, now: seen.append((1, direction, wire, now))),
        tap("Two", on_wire=lambda direction, wire, now: seen.append((2, direction, wire, now))),
    )

    taps.observe_wire("out", b"x", 1.5)

    assert seen == [(1, "out", b"x", 1.5), (2, "out", b"x", 1.5)]


# --- Isolation -------------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", TAP_HOOKS)
def test_exception_means_pass_and_is_reported_once_per_hook(hook: str) -> None:
    error = ValueError("broken")
    taps, reports = chained(
        tap("Bad", **{hook: raising(error)}), tap("Good", on_input=lambda chunk: chunk + b"!!")
    )

    for _ in range(3):
        passed = taps.filter_input(b"ab"), taps.filter_output(b"ab"), taps.filter_event(TEXT)
        taps.observe_wire("in", "x", 0.0)

        assert passed == (b"ab!!", b"ab", TEXT)

    assert reports == [(f"Bad.{hook}", error)]
    assert taps.discarded == {"Bad": 0, "Good": 0}


def test_two_hooks_of_one_tap_are_reported_apart() -> None:
    taps, reports = chained(tap("Bad", on_input=raising(KeyError("a")), on_output=raising(KeyError("b"))))

    taps.filter_input(b"ab")
    taps.filter_output(b"ab")

    assert [where for where, _ in reports] == ["Bad.on_input", "Bad.on_output"]


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        (bytearray(b"ab"), TypeError),
        ("ab", TypeError),
        (True, TypeError),
        (0, TypeError),
        (b"abc", ValueError),
    ],
)
def test_result_that_is_no_pcm16_is_reported_and_passed_over(result: object, kind: type[Exception]) -> None:
    taps, reports = chained(tap("Bad", on_output=lambda chunk: result))

    assert taps.filter_output(b"cd") == b"cd"
    assert [(where, type(error)) for where, error in reports] == [("Bad.on_output", kind)]


@pytest.mark.parametrize("result", ["text", make_event("warning"), {"text": "a"}, False])
def test_result_that_is_another_type_of_event_is_reported_and_passed_over(result: object) -> None:
    taps, reports = chained(tap("Bad", on_event=lambda event: result))

    assert taps.filter_event(TEXT) is TEXT
    assert [where for where, _ in reports] == ["Bad.on_event"]
    assert "for a TextOutput" in str(reports[0][1])


# --- What may be a tap -----------------------------------------------------------------------------


def test_object_module_and_decorated_method_are_taps() -> None:
    class Decorated:
        @hookimpl
        def on_input(self, chunk: bytes) -> bytes:
            return chunk + b"d."

    module = types.ModuleType("loud")
    module.on_input = lambda chunk: chunk + b"m."  # type: ignore[attr-defined]
    taps, _ = chained(Decorated(), module, tap(on_input=lambda chunk: chunk + b"o."))

    assert taps.filter_input(b"") == b"d.m.o."
    assert taps.names == ["Decorated", "loud", "Tap"]


def test_taps_of_one_class_are_told_apart() -> None:
    taps, _ = chained(Mute(), Mute(muted=True), Mute())

    taps.filter_input(b"ab")

    assert taps.names == ["Mute", "Mute#2", "Mute#3"]
    assert set(taps.discarded) == {"Mute", "Mute#2", "Mute#3"}


def test_argument_of_another_name_is_refused_in_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"an argument of on_event is named event, not 'ev'\.$") as caught:
        chained(tap(on_event=lambda ev: ev))

    assert "\n" not in str(caught.value)


def test_empty_list_is_no_tap_at_all() -> None:
    taps, _ = chained()

    assert not taps
    assert not any(taps.has(hook) for hook in TAP_HOOKS)
    assert taps.filter_input(b"ab") == b"ab"


def test_has_says_which_hooks_somebody_implements() -> None:
    taps, _ = chained(tap(on_wire=lambda direction, wire, now: None))

    assert taps
    assert {hook for hook in TAP_HOOKS if taps.has(hook)} == {"on_wire"}


async def waits(chunk: bytes) -> bytes:
    return chunk


async def waits_and_yields(chunk: bytes) -> Any:
    yield chunk


def yields(chunk: bytes) -> Any:
    yield chunk


class Hearing:
    """Not a tap by any hook."""


@attrs.define
class Gain:
    db: int = 0

    def on_input(self, chunk: bytes) -> bytes:
        return chunk


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (tap("Slow", on_input=waits), ["Slow.on_input", "cannot wait", "write def"]),
        (tap("Slow", on_input=waits_and_yields), ["Slow.on_input", "not a plain function"]),
        (tap("Slow", on_input=yields), ["Slow.on_input", "not a plain function"]),
        (tap("Short", on_input=lambda: b""), ["Short.on_input()", "on_input(chunk)"]),
        (tap("Long", on_input=lambda chunk, gain: chunk), ["Long.on_input(chunk, gain)", "on_input(chunk)"]),
        (tap("Short", on_wire=lambda direction, wire: None), ["on_wire(direction, wire, now)"]),
        (tap("Renamed", on_input=lambda data: data), ["Renamed", "data"]),
        (Mute, ["Tap Mute is a class", "instance"]),
        (Hearing(), ["Hearing", "none of on_input, on_output, on_event, on_wire"]),
        (Plain({}), ["none of", "connect()", "a provider's"]),
        ("on_input", ["str", "none of"]),
        (types.SimpleNamespace(on_input="loud"), ["on_input is a str"]),
    ],
)
def test_what_cannot_be_a_tap_is_refused_with_the_reason(wrong: object, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        chained(wrong)

    for word in words:
        assert word in str(caught.value)


def test_tap_given_twice_is_refused_and_so_are_equal_ones() -> None:
    mute = Mute()

    with pytest.raises(ConfigError, match=r"Mute#2 was given twice"):
        chained(mute, mute)
    with pytest.raises(ConfigError, match=r"Gain#2.*equals another"):
        chained(Gain(), Gain())
    assert chained(Gain(1), Gain(2))[0].names == ["Gain", "Gain#2"]


# --- Mute ------------------------------------------------------------------------------------------


@given(st.binary(max_size=64))
def test_mute_gives_as_much_silence(data: bytes) -> None:
    data = data * 2
    mute = Mute()
    taps, _ = chained(mute)

    open_result = taps.filter_input(data)
    mute.muted = True
    muted_result = taps.filter_input(data)

    assert open_result == data
    assert muted_result == bytes(len(data))
    assert taps.filter_output(data) == data


# --- The session's manager -------------------------------------------------------------------------


async def test_provider_is_called_through_pluggy_with_the_arguments_that_it_takes() -> None:
    provider, sink, manager = Plain({}), Sink(), SessionManager()
    provider.attach(sink)
    manager.add_provider("acme", provider)

    await manager.hook.send_audio(audio_data=b"ab")
    await manager.hook.interrupt(heard="what was heard")

    assert [data["name"] for _, data in sink.events] == ["audio", "interrupt"]


async def test_listener_of_a_provider_is_not_taken_for_a_tap() -> None:
    heard: list[Event] = []
    provider, manager = Plain({}), SessionManager()
    provider.on_event = heard.append
    manager.add_provider("acme", provider)

    manager.hook.on_event(event=TEXT)

    assert heard == []


async def test_wrapper_around_a_hook_of_the_contract_is_run() -> None:
    order: list[str] = []

    class Timing:
        @hookimpl(wrapper=True)
        def send_text(self, text: str) -> Any:
            order.append(f"before {text}")
            result = yield
            order.append("after")
            return result

    provider, manager = Plain({}), SessionManager()
    provider.on_event = lambda event: order.append("provider")
    manager.add_provider("acme", provider)
    manager.register(Timing())

    await manager.hook.send_text(text="hi")

    # The hook returns the coroutine, which runs after the wrapper.
    assert order == ["before hi", "after", "provider"]


def test_taps_register_with_a_session_of_their_own_each_time() -> None:
    taps, _ = chained(Mute())
    managers = [SessionManager(), SessionManager()]

    for manager in managers:
        taps.register_with(manager)

    assert [manager.has_plugin("Mute") for manager in managers] == [True, True]
