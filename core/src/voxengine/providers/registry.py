"""Where providers come from: entry points of installed distributions, and ``register_provider``.

The entry points are scanned once; only the provider that is asked for is imported. A provider that
cannot be imported is listed with its reason and harms no other.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.metadata
import threading
from typing import Final

import attrs

from voxengine.errors import ConfigError, LocalProtocolError, ProviderError, ProviderNotFound
from voxengine.providers.base import BaseProvider
from voxengine.providers.contract import check_provider
from voxengine.providers.entry_points import Unreadable, find_entry_points, identity

__all__ = [
    "GROUP",
    "ProviderInfo",
    "ProviderRegistry",
    "available_providers",
    "check_provider",
    "default_registry",
    "get_provider",
    "register_provider",
    "unregister_provider",
]

GROUP: Final = "voxengine.providers"

FIRST_PARTY: Final = {
    "mock": "voxengine-mock",
    "openai": "voxengine-openai",
    "custom": "voxengine-openai",
    "azure": "voxengine-azure",
}
"""Names of our own providers and the distribution of each. Only these are ever turned into a pip line."""


@attrs.frozen
class ProviderInfo:
    """What is known about a provider without importing it, and how its last import went."""

    name: str
    distribution: str
    """The distribution, or an empty string for a registered class."""
    version: str
    target: str
    """``module:Class``."""
    cls: type[BaseProvider] | None = None
    """The class once it was loaded."""
    error: str = ""
    """Why it cannot be used; empty when nothing is wrong or nothing was tried."""

    @property
    def origin(self) -> str:
        """For messages: the distribution and its version, or that it was registered."""
        return f"{self.distribution} {self.version}" if self.distribution else "registered"


class ProviderRegistry:
    """Providers by name. Safe to use from several threads."""

    def __init__(self) -> None:
        self._registered: dict[str, type[BaseProvider]] = {}
        self._entries: dict[str, list[importlib.metadata.EntryPoint]] | None = None
        self._unreadable: tuple[Unreadable, ...] = ()
        self._loaded: dict[str, type[BaseProvider]] = {}
        self._broken: dict[str, str] = {}
        self._lock = threading.RLock()

    # -- registration -----------------------------------------------------------------------------

    def register(self, name: str, cls: type[BaseProvider], *, replace: bool = False) -> None:
        """Offer a class under a name; it wins over an installed provider of that name.

        Raises:
            ConfigError: The name is no identifier-like word, or another class has it and ``replace`` is False.
            LocalProtocolError: The class does not fulfil the contract.
        """
        asked: object = name
        if not isinstance(asked, str) or not name.strip() or name != name.strip():
            raise ConfigError(f"A provider's name is a word such as 'acme', not {name!r}.")
        check_provider(cls, name=name)
        with self._lock:
            held = self._registered.get(name)
            if held is not None and held is not cls and not replace:
                raise ConfigError(
                    f"{name!r} is registered as {held.__qualname__} already. Pass replace=True to put "
                    f"{cls.__qualname__} in its place, or unregister_provider({name!r}) first."
                )
            self._registered[name] = cls

    def unregister(self, name: str) -> None:
        """Take a registered class back. An installed provider of that name is in force again.

        Raises:
            ProviderNotFound: Nothing was registered under that name.
        """
        with self._lock:
            if self._registered.pop(name, None) is None:
                raise ProviderNotFound(
                    f"No provider was registered as {name!r}; installed ones are removed with pip.",
                    provider=name,
                )

    # -- look-up ----------------------------------------------------------------------------------

    def get(self, name: str) -> type[BaseProvider]:
        """Return the class of a provider, importing it when it is asked for the first time.

        Raises:
            ProviderNotFound: There is none, two distributions offer it, or it cannot be imported.
            LocalProtocolError: The class does not fulfil the contract.
        """
        with self._lock:
            registered = self._registered.get(name)
            if registered is not None:
                return registered
            loaded = self._loaded.get(name)
            if loaded is not None:
                return loaded
            entries = self._scan().get(name)
            if not entries:
                raise self._unknown(name)
            if len(entries) > 1:
                raise ProviderNotFound(self._two_owners(name, entries), provider=name)
            return self._load(name, entries[0])

    def loaded(self, name: str) -> type[BaseProvider] | None:
        """Return the class if it is at hand without an import."""
        with self._lock:
            return self._registered.get(name) or self._loaded.get(name)

    def infos(self, *, load: bool = False) -> list[ProviderInfo]:
        """Return every provider by name, registered ones first to count.

        At the end come distributions that cannot be read, each under its own name: whether they have providers
        is not known.

        Args:
            load: Import each one, so that ``cls`` or ``error`` says whether it can be used.
        """
        with self._lock:
            known = [self._info(name, load) for name in sorted({*self._registered, *self._scan()})]
            return known + [
                ProviderInfo(held.distribution, held.distribution, held.version, "", error=str(held))
                for held in self._unreadable
            ]

    def rescan(self) -> None:
        """Forget what was found, so that distributions installed since are seen."""
        with self._lock:
            self._entries = None
            self._loaded.clear()
            self._broken.clear()

    # -- inside -----------------------------------------------------------------------------------

    def _scan(self) -> dict[str, list[importlib.metadata.EntryPoint]]:
        if self._entries is None:
            found: dict[str, list[importlib.metadata.EntryPoint]] = {}
            entries, self._unreadable = find_entry_points(GROUP)
            for entry in entries:
                found.setdefault(entry.name, []).append(entry)
            self._entries = found
        return self._entries

    def _load(self, name: str, entry: importlib.metadata.EntryPoint) -> type[BaseProvider]:
        try:
            if entry.pattern.match(entry.value) is None:
                raise ImportError(
                    f"its entry point {entry.value!r} is not of the form 'package.module:Class'"
                )
            target = entry.load()
        except (Exception, SystemExit) as error:
            # Whatever an import can raise belongs to that package and must not reach the others.
            others = len({*self._registered, *self._scan()} - {name})
            unaffected = {0: "", 1: " The other provider is unaffected."}.get(
                others, f" The other {others} providers are unaffected."
            )
            reason = f"{type(error).__name__}: {error}" if not isinstance(error, ImportError) else str(error)
            message = f"Provider {name!r} ({_origin(entry)}) could not be imported: {reason}.{unaffected}"
            self._broken[name] = message
            raise ProviderNotFound(message, provider=name) from error
        try:
            cls = check_provider(target, name=name)
        except LocalProtocolError as error:
            message = f"{error} (from {_origin(entry)})"
            self._broken[name] = message
            raise LocalProtocolError(message, provider=name, recoverable=False) from None
        self._loaded[name] = cls
        self._broken.pop(name, None)
        return cls

    def _info(self, name: str, load: bool) -> ProviderInfo:
        registered = self._registered.get(name)
        if registered is not None:
            target = f"{registered.__module__}:{registered.__qualname__}"
            return ProviderInfo(name, "", "", target, registered)
        entries = self._scan()[name]
        entry = entries[0]
        distribution, version = _distribution(entry)
        if len(entries) > 1:
            return ProviderInfo(
                name, distribution, version, entry.value, error=self._two_owners(name, entries)
            )
        if load:
            with contextlib.suppress(ProviderError):  # Kept in _broken, and shown below.
                self.get(name)
        return ProviderInfo(
            name, distribution, version, entry.value, self._loaded.get(name), self._broken.get(name, "")
        )

    def _two_owners(self, name: str, entries: list[importlib.metadata.EntryPoint]) -> str:
        owners = " and ".join(f"{_origin(entry)} ({entry.value})" for entry in entries)
        return (
            f"{len(entries)} distributions offer a provider named {name!r}: {owners}. Uninstall one, or "
            f"choose with register_provider({name!r}, TheClass)."
        )

    def _unknown(self, name: str) -> ProviderNotFound:
        names = sorted({*self._registered, *self._scan()})
        message = f"No provider named {name!r}."
        if names:
            shown = ", ".join(f"{name} ({self._info(name, load=False).origin})" for name in names)
            message += f" Installed: {shown}."
        else:
            message += " No provider is installed."
        close = difflib.get_close_matches(name, names, n=2)
        if close:
            message += f" Did you mean {' or '.join(repr(item) for item in close)}?"
        if name in FIRST_PARTY:
            message += f" Try: pip install {FIRST_PARTY[name]}"
        for held in self._unreadable:
            message += f" {held}"
        return ProviderNotFound(message, provider=name)


def _distribution(entry: importlib.metadata.EntryPoint) -> tuple[str, str]:
    if entry.dist is None:
        return "", ""
    return identity(entry.dist)


def _origin(entry: importlib.metadata.EntryPoint) -> str:
    name, version = _distribution(entry)
    return f"{name} {version}".strip() or "unknown distribution"


default_registry: Final = ProviderRegistry()
"""The registry that engines use unless they are given another."""


def register_provider(name: str, cls: type[BaseProvider], *, replace: bool = False) -> None:
    """Offer a class under a name; see :meth:`ProviderRegistry.register`."""
    default_registry.register(name, cls, replace=replace)


def unregister_provider(name: str) -> None:
    """Take a registered class back; see :meth:`ProviderRegistry.unregister`."""
    default_registry.unregister(name)


def get_provider(name: str) -> type[BaseProvider]:
    """Return the class of a provider; see :meth:`ProviderRegistry.get`."""
    return default_registry.get(name)


def available_providers(*, load: bool = False) -> list[ProviderInfo]:
    """Return what is installed and registered; see :meth:`ProviderRegistry.infos`."""
    return default_registry.infos(load=load)
