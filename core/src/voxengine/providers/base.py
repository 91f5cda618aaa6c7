"""The class that every provider extends."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, Protocol

from voxengine.capabilities import FULL, HOOK_CAPABILITIES, UNSUPPORTED, Capabilities, Support
from voxengine.errors import CapabilityMissing, UsageError
from voxengine.events import Event, EventType, make_event, raw_data

if TYPE_CHECKING:
    from voxengine.history import Heard, Item

__all__ = ["BaseProvider", "ProviderSink", "WireObserver", "effective_capabilities", "overrides"]

ITEM_CHANGES: Final = ("try_delete_item", "try_replace_item")
"""Methods beside the hooks by which a provider tells of changed items; each takes ``item`` and ``vendor_ids``."""

_LOST: Final = EventType.CONNECTION_LOST  # Compared with every event.

WireObserver = Callable[[str, "str | bytes", float], None]
"""Called as ``observer(direction, wire, now)`` for each message of a provider's connection."""


class ProviderSink(Protocol):
    """Where a session listens to its provider. All calls come on the loop's thread."""

    def provider_event(self, event_type: EventType, data: Mapping[str, Any]) -> None:
        """Take an event that the provider emitted."""

    def provider_lost(self) -> None:
        """Learn that the provider set ``is_connected`` to False outside ``disconnect``."""


class BaseProvider(ABC):
    """A voice service behind the contract of :mod:`voxengine.hookspecs`.

    A subclass implements the six required coroutine methods; the others are optional. One instance
    serves one session and is not used again. Every method runs on one event loop;
    :meth:`emit_event` may be called from any thread.
    """

    provider_api: ClassVar[int] = 1
    """Version of the contract that the class was written for."""
    capabilities: ClassVar[Capabilities] = Capabilities()
    """What the provider can do. Unknown cells follow from the methods that the class implements."""
    services: ClassVar[Mapping[str, Capabilities]] = {}
    """Capabilities by service, for a provider that offers several (``metadata["service"]``)."""
    options: ClassVar[frozenset[str] | None] = None
    """Neutral options of the configuration that the provider honours; None: not declared. Setting
    another one makes the engine emit a WARNING ``option_unsupported``."""

    # Class-level defaults: a subclass need not call super().__init__().
    config: Any = None
    connection: Any = None
    """Whatever the provider talks through."""
    session_id: str | None = None
    """The vendor's name for the session."""
    on_event: Callable[[Event], object] | None = None
    """The user's own listener; the engine does not touch it."""
    _connected: bool = False
    _closing: bool = False
    _depth: int = 0
    _lost: bool = False
    _sink: ProviderSink | None = None
    _wire_observer: WireObserver | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _thread_id: int | None = None
    _tasks: set[asyncio.Task[Any]] | None = None
    _effective: ClassVar[tuple[Capabilities, Capabilities] | None] = None
    """What the class declared last, and the same with every cell decided."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.connection = None
        self.session_id = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # The classes of the provider guide call no super().connect(), so the state around the two calls
        # is kept here.
        # A method may also come from a mix-in that is no provider, or be dressed by a decorator.
        for name, wrap in (("connect", _wrap_connect), ("disconnect", _wrap_disconnect)):
            method = inspect.getattr_static(cls, name)
            if getattr(method, "__isabstractmethod__", False) or hasattr(method, "_keeps_state"):
                continue
            if inspect.isfunction(method) and inspect.iscoroutinefunction(inspect.unwrap(method)):
                wrapped: Any = wrap(method)
                wrapped._keeps_state = True
                setattr(cls, name, wrapped)

    # -- the contract ---------------------------------------------------------------------------

    @abstractmethod
    async def connect(self) -> None:
        """Open the session and return when it is ready for input."""

    @abstractmethod
    async def disconnect(self) -> None:
        """Close the session and let go of everything. A second call does nothing."""

    @abstractmethod
    async def send_audio(self, audio_data: bytes) -> None:
        """Send user audio: PCM16, whole frames, in the session's input format.

        Waits while the service is slow, so that the caller feels it.
        """

    @abstractmethod
    async def send_text(self, text: str) -> str | None:
        """Send a complete user turn as text and ask for an answer.

        May return what the service calls the item; None where it says nothing.
        """

    @abstractmethod
    async def interrupt(self, heard: Heard | None = None) -> None:
        """Stop the current response and cut it at what was heard.

        Args:
            heard: What the user heard of the response; None when nothing was playing or when it is unknown.
        """

    @abstractmethod
    async def configure_session(self, config: dict[str, Any]) -> None:
        """Change settings of the open session; options not named keep their values."""

    async def end_turn(self, respond: bool = True) -> None:
        """Close the user's turn as sent so far and, when ``respond``, ask for an answer."""
        self._lacks("end_turn")

    async def discard_input(self) -> None:
        """Forget audio of the open turn that was sent and not yet answered."""
        self._lacks("discard_input")

    async def send_tool_result(self, call_id: str, output: str, is_error: bool = False) -> None:
        """Send the result of a tool call, as text, and let the answer go on."""
        self._lacks("send_tool_result")

    async def load_history(self, items: Sequence[Item]) -> None:
        """Give an empty session the turns that came before, oldest first, without asking for an answer."""
        self._lacks("load_history")

    async def send_item(self, item: Item) -> None:
        """Add one history item to the open session without asking for an answer."""
        self._lacks("send_item")

    async def speak(self, text: str, is_last: bool = True) -> None:
        """Say this text as the agent."""
        self._lacks("speak")

    async def resume(self, handle: str) -> None:
        """Take up an earlier session by the vendor's handle."""
        self._lacks("resume")

    async def get_usage(self) -> dict[str, Any] | None:
        """Return what the session used so far, None when the service does not say."""
        return None

    async def estimate_cost(self) -> float | None:
        """Return the price so far in US dollars, None when unknown."""
        return None

    # -- what the engine asks of the class ------------------------------------------------------

    @classmethod
    def capabilities_for(cls, config: Mapping[str, Any]) -> Capabilities:
        """Return what the provider can do under this configuration."""
        metadata = config.get("metadata")
        service = metadata.get("service") if isinstance(metadata, Mapping) else None
        return cls.services.get(service, cls.capabilities) if isinstance(service, str) else cls.capabilities

    # -- for the subclass -----------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """True from ``connect``'s return until ``disconnect`` or loss. Setting it False reports a loss."""
        return self._connected

    @is_connected.setter
    def is_connected(self, value: bool) -> None:
        lost = self._connected and not value and not self._closing
        self._connected = bool(value)
        if lost and self._sink is not None:
            self._on_loop(self._sink.provider_lost)

    @property
    def wire_observer(self) -> WireObserver | None:
        """What the provider's transport calls for each message; set before ``connect`` or None."""
        return self._wire_observer

    def emit_event(self, event: EventType | str | Event, data: Mapping[str, Any] | None = None) -> None:
        """Tell the engine, and ``on_event``, that something happened.

        Args:
            event: A type together with ``data``, or a finished event.
            data: The fields of the event and whatever else belongs to it; copied.

        May be called from any thread; from another one than the loop's it takes effect there soon after.

        Raises:
            UsageError: There is no such event type, or ``data`` is no mapping.
        """
        if isinstance(event, Event):
            event_type, values = event.type, dict(raw_data(event.data))
        else:
            event_type = event if type(event) is EventType else make_event(event).type
            given: object = data
            if given is not None and not isinstance(given, Mapping):
                raise UsageError(
                    f"emit_event({event_type}) takes the event's fields as a mapping, not a {type(given).__name__}."
                )
            values = dict(data or {})
        if self._thread_id is None or threading.get_ident() == self._thread_id:
            self.emit_now(event_type, values)
        else:
            self._on_loop(functools.partial(self.emit_now, event_type, values))

    def emit_now(self, event_type: EventType, data: dict[str, Any]) -> None:
        """Like :meth:`emit_event`, for a read loop: on the loop's thread, and ``data`` is not copied.

        Args:
            event_type: A member of EventType.
            data: Belongs to the engine from now on.
        """
        if event_type is _LOST:
            self._connected, self._lost = False, True
        if self._sink is not None:
            self._sink.provider_event(event_type, data)
        if self.on_event is not None:
            now = self._loop.time() if self._loop is not None else 0.0
            self.on_event(make_event(event_type, data, timestamp=now, provider=type(self).__name__))

    def warn(self, code: str, message: str) -> None:
        """Emit a WARNING: something the application should know that stops nothing."""
        self.emit_event(EventType.WARNING, {"code": code, "message": message})

    def start_task(self, work: Coroutine[Any, Any, Any], *, name: str | None = None) -> asyncio.Task[Any]:
        """Run ``work`` beside the session; it is cancelled and awaited when ``disconnect`` ends.

        An exception that ends it becomes an ERROR_GENERAL event.
        """
        task = asyncio.get_running_loop().create_task(work, name=name)
        if self._tasks is None:
            self._tasks = set()
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def try_send_audio(self, audio_data: bytes) -> bool:
        """Send user audio at once when that takes no waiting; False leaves it to :meth:`send_audio`.

        Not a hook: a provider whose transport can write without waiting saves a task switch per chunk.
        """
        return False

    def try_interrupt(self, heard: Heard | None) -> bool:
        """Interrupt at once when that takes no waiting; False leaves it to :meth:`interrupt`.

        Not a hook: a provider that can say it without waiting stops the service sooner, and cannot take an answer
        that begins meanwhile for the one that is meant.
        """
        return False

    async def try_delete_item(self, item: Item, vendor_ids: Sequence[str]) -> bool:
        """Take an item out of the open session's conversation; False where the service cannot be told.

        Not a hook: without it the application is told that only a session that takes over will know.

        Args:
            item: As it was. The provider was given it, or it came up in the session.
            vendor_ids: What the service calls it, as far as the provider's events and ``send_text`` said.

        Raises:
            ProviderError: The service refused.
        """
        return False

    async def try_replace_item(self, item: Item, vendor_ids: Sequence[str]) -> bool:
        """Put an item as it is now in the place of what the open session has for it.

        As :meth:`try_delete_item` in all else.
        """
        return False

    async def receive_message(self) -> Any:
        """Return the next message of ``connection``; for a provider's own read loop."""
        if self.connection is None:
            raise UsageError(f"{type(self).__name__} has no connection to receive from; set it in connect().")
        return await self.connection.recv()

    def translate_event(self, raw: Any) -> Event:
        """Return the event that a message stands for; here a VENDOR_EVENT that holds all of it."""
        payload = raw
        if isinstance(raw, str):
            try:
                payload = json.loads(raw)
            except ValueError:
                payload = raw
        name = payload.get("type") if isinstance(payload, Mapping) else None
        data = {"name": name if isinstance(name, str) else "message", "payload": payload}
        return make_event(EventType.VENDOR_EVENT, data, provider=type(self).__name__)

    # -- inside ---------------------------------------------------------------------------------

    def attach(self, sink: ProviderSink | None, wire_observer: WireObserver | None = None) -> None:
        """Let a session listen. Called by the engine before ``connect``, and with None at the end."""
        self._sink = sink
        self._wire_observer = wire_observer

    def _on_loop(self, call: Callable[[], object]) -> None:
        if self._loop is None or threading.get_ident() == self._thread_id:
            call()
            return
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:  # The loop is closed: nobody is left to tell.
            return

    def _lacks(self, hook: str) -> NoReturn:
        row = HOOK_CAPABILITIES[hook]
        name = type(self).__name__
        raise CapabilityMissing(
            f"{name} does not implement {hook}(), the hook behind the capability {row!r}. "
            "`voxengine providers` shows which provider does.",
            capability=row,
            provider=name,
        )

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        if self._tasks is not None:
            self._tasks.discard(task)
        if task.cancelled() or task.exception() is None:
            return
        self.emit_now(EventType.ERROR_GENERAL, {"error": task.exception(), "recoverable": False})

    async def _end_tasks(self) -> None:
        current = asyncio.current_task()
        tasks = [task for task in self._tasks or () if task is not current]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_TASK_END_S)


_TASK_END_S: Final = 5.0
"""How long a cancelled task of a provider may take to end."""
_Method = Callable[..., Coroutine[Any, Any, None]]


def _wrap_connect(method: _Method) -> _Method:
    @functools.wraps(method)
    async def connect(self: BaseProvider, *args: Any, **kwargs: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._depth += 1  # A subclass may call its parent's connect: only the outermost one counts.
        try:
            await method(self, *args, **kwargs)
        except BaseException:
            if self._depth == 1:
                await self._end_tasks()
            raise
        finally:
            self._depth -= 1
        if self._depth == 0 and not self._lost:
            self._connected = True

    return connect


def _wrap_disconnect(method: _Method) -> _Method:
    @functools.wraps(method)
    async def disconnect(self: BaseProvider, *args: Any, **kwargs: Any) -> None:
        # Only the outermost one counts; it may be called by a connect that failed and will try again.
        is_outermost, self._closing = not self._closing, True
        try:
            await method(self, *args, **kwargs)
        finally:
            if is_outermost:
                self._connected = self._closing = False
                await self._end_tasks()

    return disconnect


_BASE: Final = BaseProvider


def overrides(cls: type[BaseProvider], hook: str) -> bool:
    """Return whether the class implements an optional hook itself."""
    return getattr(cls, hook) is not getattr(_BASE, hook)


def effective_capabilities(cls: type[BaseProvider], config: Mapping[str, Any]) -> Capabilities:
    """Return the capabilities under a configuration with the unknown cells of hooks and dialogue decided."""
    declared = cls.capabilities_for(config)
    known = vars(cls).get("_effective")
    if known is not None and known[0] is declared:
        decided: Capabilities = known[1]
        return decided
    changes: dict[str, Any] = {}
    if declared.dialogue.support is Support.UNKNOWN:
        changes["dialogue"] = FULL
    for hook, row in HOOK_CAPABILITIES.items():
        if declared.support(row).support is Support.UNKNOWN:
            changes[row] = FULL if overrides(cls, hook) else UNSUPPORTED
    decided = declared.evolve(**changes) if changes else declared
    cls._effective = (declared, decided)
    return decided
