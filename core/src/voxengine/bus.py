"""Delivery of events to the application: in one order, isolated, bounded.

Delivery is synchronous: an emit during a dispatch queues behind it. A coroutine handler gets a
bounded queue of its own: audio drops the oldest chunk and is counted, control events are never
dropped; a subscription that falls too far behind ends with an error event.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
import types
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Literal, Self, TypeVar, overload

import attrs

from voxengine.errors import UsageError
from voxengine.events import Event, EventType, RawEvent, event_class, own_event

__all__ = ["AUDIO_EVENTS", "EventBus", "EventStream", "Subscription"]

_LOG: Final = logging.getLogger("voxengine")

AUDIO_EVENTS: Final = frozenset({EventType.AUDIO_INPUT_CHUNK, EventType.AUDIO_OUTPUT_CHUNK})
"""Events that carry audio: counted and not kept, and dropped oldest first from a full queue."""

HISTORY_LIMIT: Final = 256
"""Events that the history keeps."""
QUEUE_LIMIT: Final = 1024
"""Events that wait for one coroutine handler or stream."""
PENDING_LIMIT: Final = 10_000
"""Events that handlers may cause within one dispatch."""
SLOW_HANDLER_S: Final = 0.050
"""A handler that takes longer than this stops the audio; it is reported."""

Handler = Callable[[Any], Any]
Filter = Callable[[Event], bool]
H = TypeVar("H", bound=Handler)

_clock: Final = time.perf_counter


@attrs.define(eq=False)
class Subscription:
    """One handler's registration."""

    event_type: EventType | Literal["*"]
    handler: Handler
    priority: int
    filter: Filter | None
    once: bool
    _bus: EventBus = attrs.field(repr=False)
    queue: _Queue | None = attrs.field(default=None, repr=False)
    """For a coroutine handler."""
    is_plain: bool = False
    """Whether the handler is called with every event: a function, without a filter, and not once."""
    reported_error: bool = False
    reported_slow: bool = False
    is_active: bool = True

    @property
    def name(self) -> str:
        """The handler's name, for messages."""
        return getattr(self.handler, "__qualname__", None) or type(self.handler).__name__

    @property
    def dropped(self) -> int:
        """Audio events that were dropped because a coroutine handler was too slow."""
        return self.queue.dropped if self.queue is not None else 0

    def cancel(self) -> None:
        """End the registration; events already queued for a coroutine handler are still delivered."""
        self._bus.off(self)


class _Queue:
    """Events that wait for one consumer."""

    __slots__ = ("dropped", "items", "limit")

    def __init__(self, limit: int) -> None:
        self.items: deque[Event] = deque()
        self.limit = limit
        self.dropped = 0

    def put(self, event: Event) -> bool:
        """Append the event; False when it is a control event and there is no room."""
        if len(self.items) >= self.limit and not self._drop_audio():
            if event.type in AUDIO_EVENTS:
                self.dropped += 1
                return True
            return False
        self.items.append(event)
        return True

    def _drop_audio(self) -> bool:
        for index, held in enumerate(self.items):
            if held.type in AUDIO_EVENTS:
                del self.items[index]
                self.dropped += 1
                return True
        return False


class EventBus:
    """Where an application listens. Use from the engine's loop only, or from anywhere before it connects.

    Args:
        now: The engine's clock, for events of the bus itself.
        history_limit: How many events ``history`` keeps (audio is only counted).
        queue_limit: How many events may wait for one coroutine handler or stream.
        slow_handler_s: From when on a handler is reported as slow, in real seconds.
    """

    def __init__(
        self,
        now: Callable[[], float],
        *,
        history_limit: int = HISTORY_LIMIT,
        queue_limit: int = QUEUE_LIMIT,
        slow_handler_s: float = SLOW_HANDLER_S,
    ) -> None:
        self.counts: dict[EventType, int] = {}
        """How many events of each type were emitted."""
        self.tap: Callable[[Event], Event | None] | None = None
        """The engine's filter, before any delivery."""
        self.guard: Callable[[str], object] = lambda _: None
        """Called with ``"events.on"`` and the like before a registration changes; what it raises prevents it."""
        self._now = now
        self._history: deque[RawEvent | Event] = deque(maxlen=history_limit)
        self._queue_limit = queue_limit
        self._slow_s = slow_handler_s
        self._subscriptions: list[Subscription] = []
        self._routes: dict[EventType, tuple[Subscription, ...]] = {}
        self._wanted: dict[EventType, bool] = {}
        self._streams: list[
            weakref.ref[EventStream]
        ] = []  # A stream that nobody holds any more is forgotten.
        self._pending: deque[RawEvent] = deque()
        self._dispatching = False
        self._n_caused = 0
        self._workers: dict[Subscription, asyncio.Task[None]] = {}
        self._closed = False
        self.may_want_input = True
        """False only while nobody asks for AUDIO_INPUT_CHUNK by name; :meth:`wants` tells."""

    # -- listening --------------------------------------------------------------------------------

    @overload
    def on(
        self,
        event_type: EventType | str,
        handler: None = None,
        *,
        priority: int = 0,
        filter: Filter | None = None,
    ) -> Callable[[H], H]: ...

    @overload
    def on(
        self,
        event_type: EventType | str,
        handler: Handler,
        *,
        priority: int = 0,
        filter: Filter | None = None,
    ) -> Subscription: ...

    def on(
        self,
        event_type: EventType | str,
        handler: Handler | None = None,
        *,
        priority: int = 0,
        filter: Filter | None = None,
    ) -> Any:
        """Call ``handler(event)`` for each event of that type.

        Args:
            event_type: A type, or ``"*"`` for all.
            handler: A function or a coroutine function. Left out: use as a decorator.
            priority: Higher ones are called first; equal ones in the order of registration.
            filter: Only events for which it returns true are delivered.

        A function runs on the loop and must not block. A coroutine function gets its events one after
        the other from a bounded queue of its own.
        """
        return self._add(event_type, handler, priority, filter, once=False)

    @overload
    def once(
        self,
        event_type: EventType | str,
        handler: None = None,
        *,
        priority: int = 0,
        filter: Filter | None = None,
    ) -> Callable[[H], H]: ...

    @overload
    def once(
        self,
        event_type: EventType | str,
        handler: Handler,
        *,
        priority: int = 0,
        filter: Filter | None = None,
    ) -> Subscription: ...

    def once(
        self,
        event_type: EventType | str,
        handler: Handler | None = None,
        *,
        priority: int = 0,
        filter: Filter | None = None,
    ) -> Any:
        """Like :meth:`on`, for the next matching event only."""
        return self._add(event_type, handler, priority, filter, once=True)

    def off(self, registration: Subscription | Handler) -> None:
        """End a registration, given by its subscription or by its handler. Unknown ones are ignored."""
        self.guard("events.off")
        for held in [s for s in self._subscriptions if s is registration or s.handler == registration]:
            held.is_active = False
            self._subscriptions.remove(held)
        self._routes.clear()
        self._wanted.clear()
        self.may_want_input = True

    def stream(self, *event_types: EventType | str, limit: int | None = None) -> EventStream:
        """Return an asynchronous iterator over events of these types, or all, from now on.

        It ends when the engine is disconnected. When ``limit`` control events wait unread, it raises
        UsageError; audio drops the oldest chunk and is counted in ``dropped``.
        """
        self.guard("events.stream")
        given: object = limit
        if given is not None and (isinstance(given, bool) or not isinstance(given, int) or given < 1):
            raise UsageError(f"events.stream: limit is {limit!r}; it is an int from 1, or None.")
        types = frozenset(_type(item) for item in event_types) if "*" not in event_types else frozenset()
        stream = EventStream(types, limit or self._queue_limit)
        if self._closed:
            stream.end()
        else:
            self._streams.append(weakref.ref(stream, self._forget_stream))
            self.may_want_input = True
        return stream

    def wants(self, event_type: EventType) -> bool:
        """Return whether anybody asked for this type by name; ``"*"`` does not count."""
        named = self._wanted.get(event_type)
        if named is None:
            named = any(held.event_type == event_type for held in self._subscriptions)
            self._wanted[event_type] = named
        if event_type is EventType.AUDIO_INPUT_CHUNK:
            self.may_want_input = named or bool(self._streams)
        if named or not self._streams:
            return named
        return any(stream.names(event_type) for stream in self._open_streams())

    @property
    def history(self) -> list[Event]:
        """The latest events, oldest first, without audio."""
        return [item if isinstance(item, Event) else own_event(item) for item in self._history]

    # -- emitting, for the engine -----------------------------------------------------------------

    def emit(
        self,
        event_type: EventType,
        data: dict[str, Any],
        *,
        provider: str = "",
        session_epoch: int = 0,
        timestamp: float | None = None,
    ) -> None:
        """Deliver an event. ``data`` belongs to the bus from now on."""
        now = self._now() if timestamp is None else timestamp
        self.post((event_type, data, now, provider, session_epoch))

    def post(self, raw: RawEvent) -> None:
        """Deliver an event that is given as type, data, timestamp, provider and epoch."""
        if self._dispatching:
            self._n_caused += 1
            if self._n_caused > PENDING_LIMIT:
                raise UsageError(
                    f"Handlers caused {PENDING_LIMIT} events within one dispatch: one of them answers its own event."
                )
            self._pending.append(raw)
            return
        self._dispatching = True
        self._n_caused = 0
        try:
            self._deliver(raw)
            if self._pending:
                self._deliver_pending()
        finally:
            self._dispatching = False

    def _deliver_pending(self) -> None:
        while self._pending:
            self._deliver(self._pending.popleft())

    async def close(self, *, drain_s: float = 2.0) -> None:
        """End every stream, let coroutine handlers finish what they have within ``drain_s``, and stop them."""
        self._closed = True
        for stream in self._open_streams():
            stream.end()
        current = asyncio.current_task()
        workers = [task for task in self._workers.values() if task is not current]
        if workers:
            _, late = await asyncio.wait(workers, timeout=drain_s)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=drain_s)

    # -- inside -----------------------------------------------------------------------------------

    def _add(
        self,
        event_type: EventType | str,
        handler: Handler | None,
        priority: int,
        filter: Filter | None,
        *,
        once: bool,
    ) -> Any:
        method = "events.once" if once else "events.on"
        self.guard(method)
        given: object = priority
        if isinstance(given, bool) or not isinstance(given, int | float) or given != given:
            raise UsageError(f"{method}: priority is {priority!r}; it is a number, higher ones first.")
        if filter is not None and not callable(filter):
            raise UsageError(
                f"{method}: filter is a {type(filter).__name__}; it is a function that takes the event."
            )
        wanted: EventType | Literal["*"] = "*" if event_type == "*" else _type(event_type)
        if handler is None:

            def decorate(function: H) -> H:
                self._add(event_type, function, priority, filter, once=once)
                return function

            return decorate
        if not callable(handler):
            raise UsageError(f"A handler is a function that takes the event, not a {type(handler).__name__}.")
        is_coroutine = inspect.iscoroutinefunction(handler)
        if not is_coroutine and not isinstance(handler, types.FunctionType):
            call = getattr(handler, "__call__", None)  # noqa: B004 - an object with an async __call__
            is_coroutine = inspect.iscoroutinefunction(call)
        queue = _Queue(self._queue_limit) if is_coroutine else None
        subscription = Subscription(wanted, handler, priority, filter, once, self, queue)
        subscription.is_plain = filter is None and queue is None and not once
        self._subscriptions.append(subscription)
        self._subscriptions.sort(key=lambda held: -held.priority)
        self._routes.clear()
        self._wanted.clear()
        self.may_want_input = True
        return subscription

    def _route(self, event_type: EventType) -> tuple[Subscription, ...]:
        route = tuple(s for s in self._subscriptions if s.event_type in ("*", event_type))
        self._routes[event_type] = route
        return route

    def _forget_stream(self, held: weakref.ref[EventStream]) -> None:
        if held in self._streams:
            self._streams.remove(held)

    def _open_streams(self) -> list[EventStream]:
        return [stream for held in self._streams if (stream := held()) is not None]

    def _deliver(self, raw: RawEvent) -> None:
        event_type = raw[0]
        self.counts[event_type] = self.counts.get(event_type, 0) + 1
        route = self._routes.get(event_type)
        if route is None:
            route = self._route(event_type)
        event: Event | None = None
        if self.tap is not None:
            event = self.tap(own_event(raw))
            if event is None:
                return
        if event_type not in AUDIO_EVENTS:
            self._history.append(raw if event is None else event)
        if not route and not self._streams:
            return
        if event is None:
            event = own_event(raw)
        for subscription in route:
            if not subscription.is_plain:
                self._hand_over(subscription, event)
            elif subscription.is_active:
                started = _clock()
                try:
                    subscription.handler(event)
                except Exception as error:
                    self._raised(subscription, error)
                if _clock() - started > self._slow_s:
                    self._slow(subscription, _clock() - started)
        if not self._streams:
            return
        for stream in self._open_streams():
            if stream.takes(event_type) and not stream.put(event):
                self._streams[:] = [held for held in self._streams if held() is not stream]

    def _hand_over(self, subscription: Subscription, event: Event) -> None:
        if not subscription.is_active:
            return
        started = _clock()
        try:
            if subscription.filter is not None and not subscription.filter(event):
                return
            if subscription.once:
                subscription.cancel()
            if subscription.queue is not None:
                self._enqueue(subscription, event)
                return
            subscription.handler(event)
        except Exception as error:
            self._raised(subscription, error)
        took_s = _clock() - started
        if took_s > self._slow_s:
            self._slow(subscription, took_s)

    def _enqueue(self, subscription: Subscription, event: Event) -> None:
        queue = subscription.queue
        assert queue is not None
        if not queue.put(event):
            subscription.cancel()
            error = UsageError(
                f"The handler {subscription.name} is {queue.limit} events behind and was unsubscribed. "
                "Make it faster, or let it hand its work to a task of its own."
            )
            self._report(
                EventType.ERROR_GENERAL, {"error": error, "recoverable": False, "handler": subscription.name}
            )
            return
        if subscription not in self._workers:
            work = self._work(subscription, queue)
            self._workers[subscription] = asyncio.get_running_loop().create_task(
                work, name=f"handler {subscription.name}"
            )

    async def _work(self, subscription: Subscription, queue: _Queue) -> None:
        try:
            while queue.items:
                event = queue.items.popleft()
                try:
                    await subscription.handler(event)
                except Exception as error:
                    self._raised(subscription, error)
        finally:
            del self._workers[subscription]

    def _raised(self, subscription: Subscription, error: Exception) -> None:
        if subscription.reported_error:
            return
        subscription.reported_error = True
        # The exception's text may hold what was said; its type and place do not.
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = f" at {trace.tb_frame.f_code.co_name}:{trace.tb_lineno}" if trace is not None else ""
        _LOG.warning(
            "The handler %s raised %s%s. It stays subscribed; later exceptions of it are not reported.",
            subscription.name,
            type(error).__name__,
            place,
        )
        self._report(
            EventType.ERROR_GENERAL, {"error": error, "recoverable": True, "handler": subscription.name}
        )

    def _slow(self, subscription: Subscription, took_s: float) -> None:
        if subscription.reported_slow:
            return
        subscription.reported_slow = True
        message = (
            f"The handler {subscription.name} held the loop for {took_s * 1000:.0f} ms; audio stutters from "
            f"{self._slow_s * 1000:.0f} ms on. Make it a coroutine function, or hand the work to a thread."
        )
        self._report(EventType.WARNING, {"code": "slow_handler", "message": message})

    def _report(self, event_type: EventType, data: dict[str, Any]) -> None:
        if self._dispatching:  # Past the limit of emit: at most two reports for each subscription.
            self._pending.append((event_type, data, self._now(), "", 0))
        else:
            self.emit(event_type, data)


class EventStream(AsyncIterator[Event]):
    """Events as an asynchronous iterator; made by :meth:`EventBus.stream`. One consumer."""

    def __init__(self, types: frozenset[EventType], limit: int) -> None:
        self._types = types
        self._queue = _Queue(limit)
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False
        self._overrun = False

    @property
    def dropped(self) -> int:
        """Audio events that were dropped because the consumer was too slow."""
        return self._queue.dropped

    def takes(self, event_type: EventType) -> bool:
        """Return whether the stream was opened for this type."""
        return not self._types or event_type in self._types

    def names(self, event_type: EventType) -> bool:
        """Return whether the stream was opened for this type by name."""
        return event_type in self._types

    def put(self, event: Event) -> bool:
        """Append an event; False when the stream has ended."""
        if not self._ended and not self._queue.put(event):
            self._overrun = True
            self.end()
        self._wake()
        return not self._ended

    def end(self) -> None:
        """Let the iteration finish after what is queued."""
        self._ended = True
        self._wake()

    async def aclose(self) -> None:
        """Stop listening and forget what is queued."""
        self._queue.items.clear()
        self.end()

    async def __anext__(self) -> Event:
        while not self._queue.items:
            if self._overrun:
                raise UsageError(
                    f"This stream of events was {self._queue.limit} events behind and has ended. Read it faster, "
                    "or open it for fewer types."
                )
            if self._ended:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._queue.items.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _type(value: EventType | str) -> EventType:
    return event_class(value).type
