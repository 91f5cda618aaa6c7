"""What stands between an engine that is recorded and its provider."""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from voxengine.errors import VoxEngineError
from voxengine.events import EventType
from voxengine.history import Heard
from voxengine.hookspecs import REQUIRED_HOOKS
from voxengine.providers.base import (
    ITEM_CHANGES,
    BaseProvider,
    ProviderSink,
    WireObserver,
    effective_capabilities,
    overrides,
)
from voxengine.providers.contract import CONTRACT
from voxengine.providers.registry import ProviderRegistry
from voxengine.recording_values import capabilities_to_json

if TYPE_CHECKING:
    from voxengine.recording import Recorder

__all__ = ["RecordingRegistry"]

_inside: contextvars.ContextVar[bool] = contextvars.ContextVar("voxengine_inside_provider", default=False)
"""Whether the provider itself is calling: what it calls of its own contract is no call of the engine's."""


class RecordingRegistry(ProviderRegistry):
    """Finds providers where another registry does, and hands out classes whose instances are recorded."""

    def __init__(self, registry: ProviderRegistry, recorder: Recorder) -> None:
        super().__init__()
        self._base = registry
        self._recorder = recorder
        self._classes: dict[tuple[str, type[BaseProvider]], type[BaseProvider]] = {}

    def get(self, name: str) -> type[BaseProvider]:
        """Return the class, importing it when it is asked for the first time."""
        try:
            cls = self._base.get(name)
        except VoxEngineError as error:
            self._recorder.new_session(name, error=error, is_unknown=True)
            raise
        return self._recorded(name, cls)

    def loaded(self, name: str) -> type[BaseProvider] | None:
        """Return the class if it is at hand without an import."""
        cls = self._base.loaded(name)
        return None if cls is None else self._recorded(name, cls)

    def _recorded(self, name: str, cls: type[BaseProvider]) -> type[BaseProvider]:
        made = self._classes.get((name, cls))
        if made is None:
            made = self._classes[name, cls] = recorded_class(name, cls, self._recorder)
        return made


class _Sink:
    """Listens to a provider in the place of a session."""

    def __init__(self, sink: ProviderSink, provider: Any, recorder: Recorder) -> None:
        self._sink = sink
        self._provider = provider
        self._recorder = recorder

    def provider_event(self, event_type: EventType, data: Mapping[str, Any]) -> None:
        """Take an event that the provider emitted."""
        recorder = self._recorder
        recorder.said(self._provider._session_number, self._provider, event_type, data)
        token, recorder.is_saying = _inside.set(False), True
        try:
            self._sink.provider_event(event_type, data)
        finally:
            recorder.is_saying = False
            _inside.reset(token)

    def provider_lost(self) -> None:
        """Learn that the provider set ``is_connected`` to False."""
        self._recorder.lost(self._provider._session_number)
        token = _inside.set(False)
        try:
            self._sink.provider_lost()
        finally:
            _inside.reset(token)


def recorded_class(name: str, cls: type[BaseProvider], recorder: Recorder) -> type[BaseProvider]:
    """Return a class that is ``cls`` to everybody and writes down what passes through the contract."""

    def init(self: Any, config: dict[str, Any]) -> None:
        self._session_number = 0
        try:
            cls.__init__(self, config)
        except Exception as error:
            recorder.new_session(name, error=error)
            raise

    def attach(self: Any, sink: ProviderSink | None, wire_observer: WireObserver | None = None) -> None:
        if sink is not None:
            self._session_number = recorder.new_session(
                name,
                kind=f"{cls.__module__}:{cls.__qualname__}",
                declared=capabilities_to_json(cls.capabilities),
                capabilities=capabilities_to_json(effective_capabilities(cls, self.config)),
                options=None if cls.options is None else sorted(cls.options),
                changes_items=all(overrides(cls, method) for method in ITEM_CHANGES),
            )
            sink, wire_observer = _Sink(sink, self, recorder), _observer(self, recorder, wire_observer)
        cls.attach(self, sink, wire_observer)

    namespace: dict[str, Any] = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "__init__": init,
        "attach": attach,
        "try_send_audio": _quick(cls.try_send_audio, "send_audio", recorder),
        "try_interrupt": _quick(cls.try_interrupt, "interrupt", recorder),
    }
    for hook in CONTRACT:
        if hook in REQUIRED_HOOKS or overrides(cls, hook):
            namespace[hook] = _hook(getattr(cls, hook), hook, CONTRACT[hook], recorder)
    for method in ITEM_CHANGES:
        if overrides(cls, method):
            namespace[method] = _hook(getattr(cls, method), method, ("item", "vendor_ids"), recorder)
    kind: Any = type(cls)
    made: type[BaseProvider] = kind(cls.__name__, (cls,), namespace)
    return made


def _observer(provider: Any, recorder: Recorder, observer: WireObserver | None) -> WireObserver:
    def observe(direction: str, wire: str | bytes, now: float) -> None:
        recorder.wire(provider._session_number, direction, wire)
        if observer is not None:
            observer(direction, wire, now)

    return observe


def _hook(
    method: Callable[..., Any], hook: str, names: tuple[str, ...], recorder: Recorder
) -> Callable[..., Any]:
    @functools.wraps(method)
    async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _inside.get():
            return await method(self, *args, **kwargs)
        n = recorder.asked(self._session_number, hook, {**dict(zip(names, args, strict=False)), **kwargs})
        token = _inside.set(True)
        result: Any = None
        error: BaseException | None = None
        try:
            result = await method(self, *args, **kwargs)
            return result
        except BaseException as raised:
            error = raised
            raise
        finally:
            _inside.reset(token)
            recorder.replied(n, self.session_id, result, error)

    return call


def _quick(method: Callable[..., Any], hook: str, recorder: Recorder) -> Callable[..., Any]:
    (name,) = CONTRACT[hook]

    @functools.wraps(method)
    def call(self: Any, value: bytes | Heard | None) -> bool:
        if _inside.get():
            return bool(method(self, value))
        token = _inside.set(True)
        try:
            done = bool(method(self, value))
        finally:
            _inside.reset(token)
        if done:
            recorder.asked(self._session_number, hook, {name: value}, is_quick=True)
        return done

    return call
