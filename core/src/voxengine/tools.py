"""Functions of the application as tools of the agent: schema, arguments, execution, result.

A function runs at most once per call id, with a deadline, and every call ends in exactly one outcome.
What goes wrong is told to the agent as text; nothing is logged.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import functools
import inspect
import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import attrs

from voxengine._json_types import Mismatch, Parameter, check_keys, decode_fields, object_schema, to_plain
from voxengine._signature import first_paragraph, read_signature
from voxengine.errors import ConfigError, UsageError, VoxEngineError
from voxengine.events import EventType

__all__ = [
    "MAX_OUTPUT_BYTES",
    "Tool",
    "ToolError",
    "ToolOutcome",
    "ToolRunner",
    "encode_output",
    "tool_from_function",
]

MAX_OUTPUT_BYTES: Final = 100_000
"""Longest result, in UTF-8, that goes to the agent."""
_MAX_ERROR_CHARS: Final = 2_000
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KEPT_IDS: Final = 10_000
_KEPT_OUTPUT_BYTES: Final = 1_000_000
_CANCEL_S: Final = 1.0
"""How long a cancelled async tool may take to end before it is abandoned."""

EventCallback = Callable[[EventType, dict[str, Any]], object]


class ToolError(VoxEngineError):
    """A tool call that cannot be carried out or answered. The message is a sentence for the agent."""


# -- a tool -----------------------------------------------------------------------------------------


def _check_name(_: Any, __: Any, value: Any) -> None:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ConfigError(f"A tool cannot be named {value!r}: a name is 1 to 64 of A-Z, a-z, 0-9, _ and -.")


def _check_description(tool: Any, _: Any, value: Any) -> None:
    if not isinstance(value, str):
        raise ConfigError(f"Tool {tool.name}: description is a {type(value).__name__}; it is a str.")


def _check_parameters(tool: Any, _: Any, value: Any) -> None:
    if not isinstance(value, dict) or value.get("type") != "object":
        raise ConfigError(
            f"Tool {tool.name}: parameters is no JSON schema of an object. Pass "
            '{"type": "object", "properties": {…}}, or make the tool with tool_from_function.'
        )


def _check_function(tool: Any, _: Any, value: Any) -> None:
    if not callable(value):
        raise ConfigError(f"Tool {tool.name}: function is a {type(value).__name__}, which cannot be called.")


def _check_timeout(tool: Any, _: Any, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ConfigError(f"Tool {tool.name}: timeout_s is {value!r}; it is a number above 0, or None.")


@attrs.frozen(eq=False)
class Tool:
    """A function that the agent may call. Made by :func:`tool_from_function`, or by hand with a schema.

    Raises:
        ConfigError: A value is wrong; the sentence names the tool.
    """

    name: str = attrs.field(validator=_check_name)
    description: str = attrs.field(validator=_check_description)
    """For the agent: what the tool does and when to use it."""
    parameters: dict[str, Any] = attrs.field(validator=_check_parameters, repr=False)
    """JSON schema of the arguments, an object."""
    function: Callable[..., Any] = attrs.field(validator=_check_function, repr=False)
    """Called with keyword arguments. A coroutine function runs on the loop, any other in a thread."""
    timeout_s: float | None = attrs.field(default=None, validator=_check_timeout)
    """How long a call may take; None: the runner's."""
    signature: tuple[Parameter, ...] | None = attrs.field(default=None, repr=False, kw_only=True)
    """How arguments become what the function's annotations name; None: they stay as JSON gives them."""

    @property
    def is_async(self) -> bool:
        """Whether the function is awaited on the loop."""
        function = self.function
        return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(type(function), "__call__", None)  # noqa: B004 - the method itself is asked for
        )

    @property
    def spec(self) -> dict[str, Any]:
        """What a provider tells its service; a copy."""
        return {
            "type": "function",
            "name": self.name,
            "description": self.description,
            "parameters": copy.deepcopy(self.parameters),
        }

    def decode_arguments(self, arguments: str | Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the function's keyword arguments.

        Args:
            arguments: JSON text of an object, or the object; an empty text or None is an empty object.

        Raises:
            ToolError: No JSON, an unknown or missing argument, or a value that does not fit.
        """
        values = _read_object(arguments)
        try:
            if self.signature is not None:
                return decode_fields(self.signature, values, "")
            properties = self.parameters.get("properties", {})
            is_open = self.parameters.get("additionalProperties", True) is not False
            known = [*properties, *values] if is_open else list(properties)
            check_keys(values, known, self.parameters.get("required", []), "")
            return values
        except Mismatch as problem:
            raise ToolError(str(problem)) from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _read_object(arguments: str | Mapping[str, Any] | None) -> dict[str, Any]:
    if isinstance(arguments, Mapping):
        return dict(arguments)
    if arguments is None or not arguments.strip():
        return {}
    try:
        values = json.loads(arguments, parse_constant=_no_constant)
    except ValueError as error:
        raise ToolError(f"The arguments are not valid JSON: {error}.") from None
    except RecursionError:
        raise ToolError("The arguments are nested too deeply.") from None
    if not isinstance(values, dict):
        raise ToolError("The arguments are not a JSON object. Give an object with a key per argument.")
    return values


def tool_from_function(
    function: Callable[..., Any],
    *,
    name: str | None = None,
    description: str | None = None,
    timeout_s: float | None = None,
) -> Tool:
    """Return a tool whose schema follows from type hints and docstring.

    Args:
        function: A function, coroutine function, bound method, partial, or object with ``__call__``. What a
            partial fills in by name is hidden from the agent.
        name: None: the function's name.
        description: None: the first paragraph of the docstring. What the docstring (in Google's, NumPy's or
            Sphinx's way) or ``Annotated[T, "…"]`` says about a parameter goes into the schema.
        timeout_s: None: the runner's.

    Raises:
        ConfigError: It cannot be a tool; the sentence names the function and the parameter.
    """
    if not callable(function):
        raise ConfigError(f"A tool is a function; this is a {type(function).__name__}.")
    if isinstance(function, type):
        raise ConfigError(f"{function.__name__} is a class. Pass a function, or an instance with __call__.")
    inner: Any = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    known_as = getattr(inner, "__name__", None) or type(inner).__name__
    if known_as == "<lambda>":
        raise ConfigError("A lambda has neither a name nor annotations for the schema. Write a def.")
    name = known_as if name is None else name
    call = inner if inspect.isroutine(inner) else type(inner).__call__
    if inspect.isgeneratorfunction(call) or inspect.isasyncgenfunction(call):
        raise ConfigError(f"Tool {name} yields; a tool returns its result once. Collect it and return it.")
    signature = read_signature(function, name)
    return Tool(
        name,
        first_paragraph(function) if description is None else description,
        object_schema(signature),
        function,
        timeout_s,
        signature=signature,
    )


def encode_output(result: Any) -> str:
    """Return a tool's result as text for the agent.

    A str stays as it is, all else becomes JSON: None is ``null``, an enum its value, a dataclass or attrs
    object an object of its fields, a date ISO 8601, a set a sorted array.

    Raises:
        ToolError: JSON has no such value, or the text is longer than ``MAX_OUTPUT_BYTES``.
    """
    try:
        plain = to_plain(result)
        text = plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False, allow_nan=False)
        n_bytes = len(text.encode())
    except TypeError as error:
        raise ToolError(f"The tool's result cannot be given to you: it holds {error}.") from None
    except RecursionError:
        raise ToolError("The tool's result cannot be given to you: it is nested without end.") from None
    except UnicodeEncodeError:
        raise ToolError("The tool's result cannot be given to you: it is no valid text.") from None
    except ValueError:  # Of Python, whose limit has no name of its own.
        raise ToolError("The tool's result cannot be given to you: a number in it is too long.") from None
    if n_bytes > MAX_OUTPUT_BYTES:
        raise ToolError(
            f"The tool's result is too long: {n_bytes} bytes, at most {MAX_OUTPUT_BYTES} are possible. "
            "Ask for less."
        )
    return text


# -- running ----------------------------------------------------------------------------------------


@attrs.frozen
class ToolOutcome:
    """How a call ended: what the agent is told."""

    call_id: str
    output: str = attrs.field(repr=False)
    """The result as text, or a sentence about what went wrong."""
    is_error: bool = False


class ToolRunner:
    """Runs tools for one engine, on one loop.

    Every call emits FUNCTION_CALL_INVOKED and then exactly one of FUNCTION_CALL_COMPLETED and
    FUNCTION_CALL_FAILED through ``on_event``.

    A sync function runs in a daemon thread of its own with a copy of the context variables. Past its
    deadline such a thread cannot be stopped: it is abandoned and counted in ``n_abandoned``. While one
    runs, a loop of virtual time stands still (its ``hold()``), so there a sync tool has no deadline.

    Args:
        tools: Tools and functions.
        timeout_s: For tools without their own.
        on_event: Called with a type and its fields, on the loop.

    Raises:
        ConfigError: A function cannot be a tool, or two have one name.
    """

    def __init__(
        self,
        tools: Iterable[Tool | Callable[..., Any]] = (),
        *,
        timeout_s: float = 30.0,
        on_event: EventCallback | None = None,
    ) -> None:
        self.timeout_s = timeout_s
        self.n_abandoned = 0
        """Functions that were left running because they did not end in time."""
        self._on_event = on_event
        self._tools: dict[str, Tool] = {}
        self._running: dict[str, asyncio.Task[ToolOutcome]] = {}
        self._n_waiting: dict[str, int] = {}
        self._outcomes: OrderedDict[str, ToolOutcome | None] = OrderedDict()
        self._kept: OrderedDict[str, int] = OrderedDict()
        self._stray: set[asyncio.Future[Any]] = set()
        self._is_closed = False
        for tool in tools:
            self.register(tool)

    def register(self, tool: Tool | Callable[..., Any]) -> Tool:
        """Add a tool, or a function as one; the same again does nothing.

        Raises:
            ConfigError: It cannot be a tool, or another one has its name.
        """
        made = tool if isinstance(tool, Tool) else tool_from_function(tool)
        known = self._tools.get(made.name)
        if known is not None:
            if known is tool or (known.function == made.function and not isinstance(tool, Tool)):
                return known
            raise ConfigError(f"There already is a tool named {made.name!r}. Give one of them another name.")
        self._tools[made.name] = made
        return made

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tools, in the order in which they were given."""
        return tuple(self._tools)

    @property
    def n_running(self) -> int:
        """Calls that have not ended."""
        return len(self._running)

    def specs(self) -> list[dict[str, Any]]:
        """Return what a provider tells its service about the tools; copies."""
        return [tool.spec for tool in self._tools.values()]

    async def run(
        self, call_id: str, name: str, arguments: str | Mapping[str, Any] | None = None
    ) -> ToolOutcome:
        """Carry out a call and return how it ended; never raises for what the agent or the tool does wrong.

        A call id that was seen before gets the first outcome: the function does not run again. When every
        waiting caller is cancelled, so is the call.

        Raises:
            UsageError: The call id is empty, or the runner is closed.
        """
        if not call_id:
            raise UsageError("A tool call needs a call_id: the result is sent back under it.")
        if call_id in self._outcomes:
            known = self._outcomes[call_id]
            return known or ToolOutcome(call_id, "This call was answered before.", True)
        task = self._running.get(call_id)
        if task is None:
            if self._is_closed:
                raise UsageError("The tool runner is closed: its engine was disconnected.")
            task = asyncio.get_running_loop().create_task(
                self._perform(call_id, name, arguments), name=f"voxengine tool {name}"
            )
            self._running[call_id] = task
            task.add_done_callback(functools.partial(self._performed, call_id))
        self._n_waiting[call_id] = self._n_waiting.get(call_id, 0) + 1
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            current = asyncio.current_task()
            outcome = self._outcomes.get(call_id)
            if outcome is not None and current is not None and not current.cancelling():
                return outcome  # close() came before the call's first step; the caller goes on.
            if self._n_waiting[call_id] == 1 and not task.done():
                task.cancel()
                await asyncio.wait({task})
            raise
        finally:
            self._n_waiting[call_id] -= 1
            if not self._n_waiting[call_id]:
                del self._n_waiting[call_id]

    async def close(self) -> None:
        """Cancel what runs and wait until no task is left; a second call does nothing."""
        self._is_closed = True
        for task in self._running.values():
            task.cancel()
        if self._running:
            await asyncio.wait(set(self._running.values()))
        for stray in self._stray:
            stray.cancel()
        if self._stray:
            await asyncio.wait(set(self._stray), timeout=_CANCEL_S)

    # -- inside ---------------------------------------------------------------------------------

    def _emit(self, event_type: EventType, data: dict[str, Any]) -> None:
        if self._on_event is not None:
            self._on_event(event_type, data)

    async def _perform(
        self, call_id: str, name: str, arguments: str | Mapping[str, Any] | None
    ) -> ToolOutcome:
        header = {"name": name, "call_id": call_id}
        try:
            shown = _read_object(arguments)
        except ToolError:
            shown = {}
        self._emit(EventType.FUNCTION_CALL_INVOKED, {**header, "arguments": shown})
        error: BaseException
        try:
            result, output = await self._call(name, arguments)
        except asyncio.CancelledError:
            error = ToolError(f"The call of {name} was cancelled.")
        except Exception as problem:
            error = problem
        else:
            self._emit(EventType.FUNCTION_CALL_COMPLETED, {**header, "result": result})
            return ToolOutcome(call_id, output)
        self._emit(EventType.FUNCTION_CALL_FAILED, {**header, "error": error})
        return ToolOutcome(call_id, _describe(error), True)

    def _performed(self, call_id: str, task: asyncio.Task[ToolOutcome]) -> None:
        del self._running[call_id]
        if task.cancelled():  # Before its first step: the function never ran.
            outcome = ToolOutcome(call_id, "The call was cancelled.", True)
        elif task.exception() is not None:
            outcome = ToolOutcome(call_id, "The call could not be carried out.", True)
        else:
            outcome = task.result()
        self._outcomes[call_id] = outcome
        self._kept[call_id] = len(outcome.output)
        while len(self._outcomes) > _KEPT_IDS:
            self._kept.pop(self._outcomes.popitem(last=False)[0], None)
        while sum(self._kept.values()) > _KEPT_OUTPUT_BYTES and len(self._kept) > 1:
            self._outcomes[self._kept.popitem(last=False)[0]] = None

    async def _call(self, name: str, arguments: str | Mapping[str, Any] | None) -> tuple[Any, str]:
        tool = self._tools.get(name)
        if tool is None:
            known = f"The tools are: {', '.join(self._tools)}." if self._tools else "There are no tools."
            raise ToolError(f"There is no tool {name!r}. {known}")
        values = tool.decode_arguments(arguments)
        timeout_s = self.timeout_s if tool.timeout_s is None else tool.timeout_s
        deadline = asyncio.get_running_loop().time() + timeout_s
        late = ToolError(f"{name} did not return within {timeout_s:g} s.")
        if tool.is_async:
            result = await self._await(tool.function(**values), timeout_s, late)
        else:
            result = await self._in_thread(tool, values, timeout_s, late)
            if inspect.isawaitable(result):  # A plain function around a coroutine function.
                left_s = max(0.0, deadline - asyncio.get_running_loop().time())
                result = await self._await(result, left_s, late)
        return result, encode_output(result)

    async def _await(self, work: Any, timeout_s: float, late: ToolError) -> Any:
        """Await a tool's coroutine; at the deadline, or when cancelled, cancel it and see it end."""
        # A task of its own: asyncio.timeout would wait without bound for a tool that swallows cancellation.
        inner = asyncio.ensure_future(work)
        try:
            done, _ = await asyncio.wait({inner}, timeout=timeout_s)
            if done:
                return inner.result()
        finally:
            if not inner.done():
                inner.cancel()
                self._stray.add(inner)
                inner.add_done_callback(self._stray_ended)
                await asyncio.wait({inner}, timeout=_CANCEL_S)
                if not inner.done():
                    self.n_abandoned += 1
        raise late

    def _stray_ended(self, inner: asyncio.Future[Any]) -> None:
        self._stray.discard(inner)
        if not inner.cancelled():
            inner.exception()  # Looked at, so that the loop does not report it.

    async def _in_thread(self, tool: Tool, values: dict[str, Any], timeout_s: float, late: ToolError) -> Any:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
        context = contextvars.copy_context()

        def deliver(result: Any, error: BaseException | None) -> None:
            if not ended.done():
                ended.set_result((result, error))

        def work() -> None:
            result, error = None, None
            try:
                result = context.run(tool.function, **values)
            except BaseException as problem:  # A thread has nobody else to tell.
                error = problem
            try:
                loop.call_soon_threadsafe(deliver, result, error)
            except RuntimeError:  # The loop is closed: the call was abandoned.
                return

        # A virtual-time loop cannot see a plain thread; the loops of the standard library have no hold().
        hold: Callable[[], AbstractContextManager[Any]] = getattr(loop, "hold", nullcontext)
        threading.Thread(target=work, name=f"voxengine tool {tool.name}", daemon=True).start()
        try:
            with hold():
                await asyncio.wait({ended}, timeout=timeout_s)
            if not ended.done():
                raise late
        finally:
            if not ended.done():
                ended.cancel()
                self.n_abandoned += 1
        result, error = ended.result()
        if error is None:
            return result
        if isinstance(error, Exception) and not isinstance(error, StopIteration):
            raise error
        # What would end the loop, or what a coroutine cannot raise.
        raise ToolError(_describe(error)) from error


def _describe(error: BaseException) -> str:
    """Return what the agent is told about a failure."""
    if isinstance(error, ToolError):
        return str(error)
    try:
        message = str(error)
    except Exception:
        message = ""
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return text[:_MAX_ERROR_CHARS].encode(errors="replace").decode()
