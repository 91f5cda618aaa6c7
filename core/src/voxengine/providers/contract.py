"""Checking a provider class against the contract, and calling one by it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final
from weakref import WeakKeyDictionary

from voxengine.capabilities import Capabilities
from voxengine.errors import LocalProtocolError
from voxengine.hookspecs import OPTIONAL_HOOKS, PROVIDER_API, REQUIRED_HOOKS, ProviderSpec
from voxengine.providers.base import BaseProvider

__all__ = ["CONTRACT", "bind", "check_provider", "contract_arguments"]

ContractCall = Callable[..., Coroutine[Any, Any, Any]]

CONTRACT: Final[Mapping[str, tuple[str, ...]]] = {
    name: tuple(inspect.signature(getattr(ProviderSpec, name)).parameters)[1:]
    for name in (*REQUIRED_HOOKS, *OPTIONAL_HOOKS)
}
"""Parameter names of each hook, without ``self``."""

_checked: WeakKeyDictionary[type, bool] = WeakKeyDictionary()
_accepted: WeakKeyDictionary[type, dict[str, int]] = WeakKeyDictionary()


def contract_arguments(hook: str) -> tuple[str, ...]:
    """Return the parameter names of a hook."""
    return CONTRACT[hook]


def check_provider(cls: object, *, name: str = "") -> type[BaseProvider]:
    """Return the class if it fulfils the contract.

    Args:
        cls: What an entry point or an application offers as a provider.
        name: The name under which it is offered, for the message.

    Raises:
        LocalProtocolError: It does not; the message says what to change. The result is cached by class.
    """
    try:
        if isinstance(cls, type) and cls in _checked:
            return cls
    except TypeError:
        pass
    problem = _class_problem(cls) or _method_problem(cls)
    if problem:
        shown = f"Provider {name!r}: " if name else ""
        raise LocalProtocolError(shown + problem, provider=name, recoverable=False)
    assert isinstance(cls, type)
    _checked[cls] = True
    return cls


def _class_problem(cls: object) -> str:
    if inspect.ismodule(cls):
        return f"{cls.__name__} is a module. Point to the class in it: 'package.module:AcmeProvider'."
    if isinstance(cls, BaseProvider):
        kind = type(cls).__name__
        return f"an instance of {kind} was given. Give the class {kind}: each session makes its own instance."
    if not isinstance(cls, type):
        what = f"the function {cls.__name__}" if inspect.isroutine(cls) else f"a {type(cls).__name__}"
        return f"{what} was given. Give a class that extends voxengine.providers.base.BaseProvider."
    if not issubclass(cls, BaseProvider):
        return f"{cls.__name__} does not extend voxengine.providers.base.BaseProvider."
    if cls is BaseProvider:
        return "BaseProvider itself was given. Give a class that extends it."
    api: object = cls.provider_api
    if isinstance(api, bool) or not isinstance(api, int):
        return f"{cls.__name__}.provider_api is {api!r}; it is the int {PROVIDER_API}."
    if api != PROVIDER_API:
        newer = "Upgrade voxengine" if api > PROVIDER_API else "Upgrade the provider's package"
        return (
            f"{cls.__name__} is written for version {api} of the provider contract; this voxengine has "
            f"version {PROVIDER_API}. {newer}."
        )
    return _declaration_problem(cls)


def _declaration_problem(cls: type[BaseProvider]) -> str:
    declared: object = cls.capabilities
    if not isinstance(declared, Capabilities):
        return f"{cls.__name__}.capabilities is a {type(declared).__name__}; it is a voxengine.Capabilities."
    services: object = cls.services
    if not isinstance(services, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Capabilities) for key, value in services.items()
    ):
        return f"{cls.__name__}.services is a mapping of service names to voxengine.Capabilities."
    try:
        inspect.signature(cls).bind({})
    except TypeError as error:
        return (
            f"{cls.__name__}{_signature(cls.__init__)} cannot be built with the configuration mapping alone "
            f"({error}). Its constructor takes one mapping: __init__(self, config)."
        )
    except ValueError:  # A class without an inspectable signature.
        pass
    return ""


def _method_problem(cls: Any) -> str:
    missing = [name for name in REQUIRED_HOOKS if name in getattr(cls, "__abstractmethods__", ())]
    if missing:
        wanted = ", ".join(f"async def {name}{_wanted(name)}" for name in missing)
        return f"{cls.__name__} does not implement {wanted}."
    for name in CONTRACT:
        problem = _signature_problem(cls, name)
        if problem:
            return problem
    left = sorted(getattr(cls, "__abstractmethods__", ()))
    return f"{cls.__name__} leaves {', '.join(left)} abstract." if left else ""


def _signature_problem(cls: type[BaseProvider], name: str) -> str:
    static = inspect.getattr_static(cls, name)
    where = f"{cls.__name__}.{name}"
    if isinstance(static, staticmethod | classmethod):
        return f"{where} is a {type(static).__name__}; the contract wants a method of the instance."
    method = getattr(cls, name)
    if not callable(method):
        return f"{where} is a {type(method).__name__}; the contract wants a method: async def {name}{_wanted(name)}."
    inner = inspect.unwrap(method)
    if inspect.isasyncgenfunction(inner) or inspect.isgeneratorfunction(inner):
        return f"{where} is a generator; the contract wants async def {name}{_wanted(name)} without yield."
    if not (inspect.iscoroutinefunction(method) or inspect.iscoroutinefunction(inner)):
        return f"{where} is not a coroutine function. Write async def {name}{_wanted(name)}."
    try:
        accepted = _positional(method, name)
    except TypeError as error:
        return f"{where}{_signature(method)} does not match the contract {name}{_wanted(name)}. {error}"
    _accepted.setdefault(cls, {})[name] = accepted
    return ""


def _positional(method: Callable[..., Any], hook: str) -> int:
    """Return how many of the hook's arguments the method takes by position; TypeError says what to change."""
    wanted = CONTRACT[hook]
    parameters = list(inspect.signature(method).parameters.values())[1:]
    taken, extra = 0, False
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            return len(wanted)
        optional = parameter.default is not parameter.empty or parameter.kind is parameter.VAR_KEYWORD
        if parameter.kind is parameter.KEYWORD_ONLY and not optional:
            raise TypeError(f"{parameter.name} is keyword-only; make it positional.")
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD):
            continue
        if parameter.name in wanted:
            if extra or parameter.name != wanted[taken]:
                order = ", ".join(wanted)
                raise TypeError(
                    f"It takes {order} by position, in this order; only trailing ones may be left out."
                )
            taken += 1
        elif optional:
            extra = True
        else:
            if taken < len(wanted) and len(parameters) <= len(wanted):
                raise TypeError(f"Rename {parameter.name} to {wanted[taken]}.")
            raise TypeError(f"Give {parameter.name} a default or read it from config.")
    if hook in ("send_audio", "send_text", "configure_session") and not taken:
        raise TypeError(f"It takes no {wanted[0]}.")
    return taken


def _wanted(hook: str) -> str:
    return f"({', '.join(('self', *CONTRACT[hook]))})"


def _signature(method: Any) -> str:
    try:
        names = [
            str(p).split(":")[0].split("=")[0].strip() for p in inspect.signature(method).parameters.values()
        ]
    except (TypeError, ValueError):
        return "(...)"
    return f"({', '.join(names)})"


def bind(provider: BaseProvider, hook: str) -> ContractCall:
    """Return the call of a hook that takes all of its arguments by position.

    An implementation that leaves out trailing parameters gets only those that it takes. Where it takes
    all of them the bound method itself is returned, so that a chunk costs one call.
    """
    method: ContractCall = getattr(provider, hook)
    cls = type(provider)
    counts = _accepted.get(cls)
    if counts is None or hook not in counts:
        counts = _accepted.setdefault(cls, {})
        counts[hook] = _positional(getattr(cls, hook), hook)
    n_taken = counts[hook]
    if n_taken == len(CONTRACT[hook]):
        return method

    def call(*args: Any) -> Coroutine[Any, Any, Any]:
        return method(*args[:n_taken])

    return call
