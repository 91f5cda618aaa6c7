"""Taps: filters and observers that an application puts into a session.

pluggy registers and validates them; the engine chains the implementations itself, in the order in
which the taps were given, each result into the next, because pluggy would give every one the original.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

import pluggy

from voxengine.errors import ConfigError
from voxengine.hookspecs import PROJECT, REQUIRED_HOOKS, TAP_HOOKS, ProviderSpec, TapSpec
from voxengine.providers.contract import CONTRACT, bind

if TYPE_CHECKING:
    from voxengine.events import Event
    from voxengine.history import Heard, Item
    from voxengine.providers.base import BaseProvider

__all__ = ["Mute", "SessionManager", "Taps"]

Report = Callable[[str, BaseException], None]
"""Called once per tap and hook with the tap's name and the exception that it raised."""
SlowReport = Callable[[str, float], None]
"""Called once per tap and hook with the tap's name and for how many seconds it held the loop."""

SLOW_TAP_S: Final = 0.050
"""As for a handler: what takes longer stops the audio; it is reported."""


class SessionManager(pluggy.PluginManager):
    """The plug-in manager of one session: its provider and its taps.

    Methods of the contract count as implementations without a decorator.
    """

    def __init__(self) -> None:
        super().__init__(PROJECT)
        self.add_hookspecs(ProviderSpec)
        self.add_hookspecs(TapSpec)

    def parse_hookimpl_opts(self, plugin: object, name: str) -> Any:
        """Accept undecorated methods that bear the name of a hook."""
        options = super().parse_hookimpl_opts(plugin, name)
        if options is not None:
            return options
        names = CONTRACT if isinstance(plugin, _ContractProxy) else TAP_HOOKS
        if name in names and inspect.isroutine(getattr(plugin, name, None)):
            return {
                "wrapper": False,
                "hookwrapper": False,
                "optionalhook": False,
                "tryfirst": False,
                "trylast": False,
                "specname": None,
            }
        return None

    def add_provider(self, name: str, provider: BaseProvider) -> None:
        """Register a provider through a proxy that shows the contract and nothing else."""
        self.register(_ContractProxy(provider), name=name)


class _ContractProxy:
    """Shows the contract names of a provider, each taking all of the hook's arguments.

    Written out, because pluggy reads the argument names from the code of a function.
    """

    def __init__(self, provider: BaseProvider) -> None:
        self._calls = {hook: bind(provider, hook) for hook in CONTRACT}

    def __dir__(self) -> list[str]:
        return list(CONTRACT)

    def connect(self) -> Awaitable[Any]:
        return self._calls["connect"]()

    def disconnect(self) -> Awaitable[Any]:
        return self._calls["disconnect"]()

    def send_audio(self, audio_data: bytes) -> Awaitable[Any]:
        return self._calls["send_audio"](audio_data)

    def send_text(self, text: str) -> Awaitable[Any]:
        return self._calls["send_text"](text)

    def interrupt(self, heard: Heard | None) -> Awaitable[Any]:
        return self._calls["interrupt"](heard)

    def configure_session(self, config: Mapping[str, Any]) -> Awaitable[Any]:
        return self._calls["configure_session"](config)

    def end_turn(self, respond: bool) -> Awaitable[Any]:
        return self._calls["end_turn"](respond)

    def discard_input(self) -> Awaitable[Any]:
        return self._calls["discard_input"]()

    def send_tool_result(self, call_id: str, output: str, is_error: bool) -> Awaitable[Any]:
        return self._calls["send_tool_result"](call_id, output, is_error)

    def load_history(self, items: Sequence[Item]) -> Awaitable[Any]:
        return self._calls["load_history"](items)

    def send_item(self, item: Item) -> Awaitable[Any]:
        return self._calls["send_item"](item)

    def speak(self, text: str, is_last: bool) -> Awaitable[Any]:
        return self._calls["speak"](text, is_last)

    def resume(self, handle: str) -> Awaitable[Any]:
        return self._calls["resume"](handle)

    def get_usage(self) -> Awaitable[Any]:
        return self._calls["get_usage"]()

    def estimate_cost(self) -> Awaitable[Any]:
        return self._calls["estimate_cost"]()


class Taps:
    """The taps of an engine, checked and chained.

    Args:
        taps: Objects (or modules) with any of ``on_input``, ``on_output``, ``on_event``, ``on_wire``.
        report: Told about an exception, once per tap and hook.
        slow: Told about a call that held the loop too long, once per tap and hook.

    Raises:
        ConfigError: A tap has none of the hooks, a coroutine function or a wrong signature.
    """

    def __init__(self, taps: Sequence[object], report: Report, slow: SlowReport | None = None) -> None:
        self._report = report
        self._slow = slow
        self._reported: set[tuple[str, str]] = set()
        self._reported_slow: set[tuple[str, str]] = set()
        given: object = taps
        if not isinstance(given, Sequence) or isinstance(given, str | bytes):
            raise ConfigError(f"taps is a {type(given).__name__}; it is a list of taps, [] for none.")
        self.names = _names(taps)
        self.discarded: dict[str, int] = dict.fromkeys(self.names, 0)
        """How many chunks and events each tap discarded."""
        self._taps = tuple(taps)
        self._chains: dict[str, list[tuple[str, Callable[..., Any]]]] = {hook: [] for hook in TAP_HOOKS}
        for name, tap in zip(self.names, taps, strict=True):
            found = _implementations(name, tap)
            for hook, call in found.items():
                self._chains[hook].append((name, call))
        if taps:
            self.register_with(SessionManager())

    def __bool__(self) -> bool:
        return bool(self._taps)

    def has(self, hook: str) -> bool:
        """Return whether any tap implements the hook."""
        return bool(self._chains[hook])

    def register_with(self, manager: SessionManager) -> None:
        """Register all taps with a session's manager; pluggy validates their signatures."""
        for name, tap in zip(self.names, self._taps, strict=True):
            try:
                manager.register(tap, name=name)
            except pluggy.PluginValidationError as error:
                raise ConfigError(f"Tap {name} does not match its hook: {error}") from None
            except ValueError:  # pluggy compares with ==.
                raise ConfigError(
                    f"Tap {name} was given twice, or equals another one. Give each once."
                ) from None

    def filter_input(self, chunk: bytes) -> bytes | None:
        """Pass user audio through the taps; None when one discarded it."""
        return self._filter_audio("on_input", chunk)

    def filter_output(self, chunk: bytes) -> bytes | None:
        """Pass the agent's audio through the taps; None when one discarded it."""
        return self._filter_audio("on_output", chunk)

    def filter_event(self, event: Event) -> Event | None:
        """Pass an event through the taps; None when one discarded it."""
        for name, call in self._chains["on_event"]:
            started = time.perf_counter()
            try:
                result = call(event)
                if result is not None and type(result) is not type(event):
                    raise TypeError(
                        f"on_event of {name} returned a {type(result).__name__} for a {type(event).__name__}"
                    )
            except Exception as error:
                self._raised(name, "on_event", error)
                continue
            finally:
                self._took(name, "on_event", time.perf_counter() - started)
            if result is None:
                self.discarded[name] += 1
                return None
            event = result
        return event

    def observe_wire(self, direction: Literal["in", "out"], wire: str | bytes, now: float) -> None:
        """Show one message of the provider's connection to the observers."""
        for name, call in self._chains["on_wire"]:
            started = time.perf_counter()
            try:
                call(direction, wire, now)
            except Exception as error:
                self._raised(name, "on_wire", error)
            self._took(name, "on_wire", time.perf_counter() - started)

    def _filter_audio(self, hook: str, chunk: bytes) -> bytes | None:
        for name, call in self._chains[hook]:
            started = time.perf_counter()
            try:
                result = call(chunk)
                if result is not None:
                    if not isinstance(result, bytes):
                        raise TypeError(
                            f"{hook} of {name} returned a {type(result).__name__}; it returns bytes or None"
                        )
                    if len(result) % 2:
                        raise ValueError(
                            f"{hook} of {name} returned {len(result)} bytes; PCM16 has an even number"
                        )
            except Exception as error:
                self._raised(name, hook, error)
                continue
            finally:
                self._took(name, hook, time.perf_counter() - started)
            if result is None:
                self.discarded[name] += 1
                return None
            chunk = result
        return chunk

    def _took(self, name: str, hook: str, seconds: float) -> None:
        if seconds > SLOW_TAP_S and self._slow is not None and (name, hook) not in self._reported_slow:
            self._reported_slow.add((name, hook))
            self._slow(f"{name}.{hook}", seconds)

    def _raised(self, name: str, hook: str, error: Exception) -> None:
        if (name, hook) not in self._reported:
            self._reported.add((name, hook))
            self._report(f"{name}.{hook}", error)


class Mute:
    """A tap that turns user audio into silence while ``muted`` is True, so that the vendor's clock runs on."""

    def __init__(self, *, muted: bool = False) -> None:
        self.muted = muted

    def on_input(self, chunk: bytes) -> bytes:
        """Return the chunk, or as much silence."""
        return bytes(len(chunk)) if self.muted else chunk


def _names(taps: Sequence[object]) -> list[str]:
    names: list[str] = []
    for tap in taps:
        base = getattr(tap, "__name__", None) or type(tap).__name__
        name, number = base, 2
        while name in names:
            name, number = f"{base}#{number}", number + 1
        names.append(name)
    return names


def _implementations(name: str, tap: object) -> dict[str, Callable[..., Any]]:
    if isinstance(tap, type):
        raise ConfigError(f"Tap {name} is a class. Give an instance of it.")
    found: dict[str, Callable[..., Any]] = {}
    for hook in TAP_HOOKS:
        call = getattr(tap, hook, None)
        if call is None:
            continue
        if not callable(call):
            raise ConfigError(f"Tap {name}.{hook} is a {type(call).__name__}; it is a function.")
        if (
            inspect.iscoroutinefunction(call)
            or inspect.isasyncgenfunction(call)
            or inspect.isgeneratorfunction(call)
        ):
            raise ConfigError(
                f"Tap {name}.{hook} is not a plain function. Taps run between two chunks and cannot wait: "
                "write def, and start a task for slow work."
            )
        wanted = list(inspect.signature(getattr(TapSpec, hook)).parameters)[1:]
        takes = inspect.signature(call)
        try:
            takes.bind(*wanted)
        except TypeError as error:
            raise ConfigError(
                f"Tap {name}.{hook}{takes} does not match {hook}({', '.join(wanted)}): {error}."
            ) from None
        for parameter in takes.parameters.values():  # pluggy passes arguments by their names.
            is_named = (
                parameter.kind is parameter.POSITIONAL_OR_KEYWORD and parameter.default is parameter.empty
            )
            if is_named and parameter.name not in wanted:
                raise ConfigError(
                    f"Tap {name}.{hook}{takes}: an argument of {hook} is named {' or '.join(wanted)}, "
                    f"not {parameter.name!r}."
                )
        found[hook] = call
    if not found:
        near = [hook for hook in (*REQUIRED_HOOKS,) if hasattr(tap, hook)]
        hint = f" It has {near[0]}(), which is a provider's." if near else ""
        raise ConfigError(f"Tap {name} has none of {', '.join(TAP_HOOKS)}.{hint}")
    return found
