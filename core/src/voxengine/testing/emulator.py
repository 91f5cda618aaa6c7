"""What a vendor's emulator is: routes, the check of the key, and the handlers of its sessions.

A package offers one through the entry-point group ``voxengine.emulators``::

    [project.entry-points."voxengine.emulators"]
    acme = "voxengine_acme.emulator:AcmeEmulator"

The harness in ``voxengine-mock`` listens, speaks HTTP, WebSocket and TLS, checks keys, acts out faults at the
hand-shake and writes the reception log; ``voxengine emulate acme`` and :meth:`Emulator.running` start it.
"""

from __future__ import annotations

import asyncio
import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

import attrs

from voxengine.errors import ConfigError
from voxengine.providers.entry_points import find_entry_points, identity
from voxengine.providers.registry import FIRST_PARTY
from voxengine.transport import Transport

__all__ = [
    "DEFAULT_KEY",
    "EMULATOR_GROUP",
    "Emulator",
    "EmulatorSession",
    "HttpRequest",
    "HttpResponse",
    "HttpRoute",
    "ReceptionLog",
    "SessionHandler",
    "find_emulator",
    "load_harness",
]

DEFAULT_KEY: Final = "sk-drive"
"""The key that an emulator takes unless it is given another."""
EMULATOR_GROUP: Final = "voxengine.emulators"

_HARNESS: Final = "voxengine_mock.harness"


@attrs.frozen(kw_only=True)
class HttpRequest:
    """A request as it arrived: for a WebSocket or a plain one."""

    method: str
    target: str = attrs.field(repr=False)
    """The path and the query, as sent."""
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """Names in lower case; what came several times is joined with commas."""
    body: bytes = attrs.field(default=b"", repr=False)

    @property
    def path(self) -> str:
        """The path alone, decoded."""
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> Mapping[str, str]:
        """The query; of a name that comes several times, the last value."""
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def subprotocols(self) -> tuple[str, ...]:
        """What the client offers in ``Sec-WebSocket-Protocol``, in its order."""
        offered = self.headers.get("sec-websocket-protocol", "").split(",")
        return tuple(name.strip() for name in offered if name.strip())

    def json(self) -> Any:
        """The body as JSON, None when it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


@attrs.frozen(kw_only=True)
class HttpResponse:
    """What an emulator answers a plain request, or a refused one, with."""

    status: int = 200
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = attrs.field(default=b"", repr=False)

    @classmethod
    def of_json(cls, value: Any, status: int = 200, **headers: str) -> HttpResponse:
        """Make one with a JSON body. In the names of headers an underscore stands for a hyphen."""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return cls(
            status=status,
            headers={"Content-Type": "application/json", **named},
            body=json.dumps(value).encode(),
        )


class ReceptionLog(Protocol):
    """What a session handler reports about what it received. Never raises, never blocks for long."""

    def message(self, name: str, fields: Mapping[str, Any]) -> None:
        """One decoded message. ``fields`` are JSON values, without the audio."""

    def audio(self, pcm: bytes, sample_rate: int) -> None:
        """Input audio, PCM16 mono, in order and whole samples."""


class EmulatorSession(Transport, Protocol):
    """One connection as its handler gets it: the server's end of the WebSocket, and what belongs to it.

    ``recv`` and ``send`` raise ``ConnectionLost`` when the client ends it and ``NotConnected`` when the
    emulator stops; a handler may let both pass.
    """

    @property
    def request(self) -> HttpRequest:
        """The request that opened it."""
        ...

    @property
    def subprotocol(self) -> str | None:
        """What was agreed on."""
        ...

    @property
    def number(self) -> int:
        """Counts the service's connections from 1, refused ones included."""
        ...

    @property
    def script(self) -> Any:
        """The :class:`voxengine_mock.script.Script` that the emulator was started with."""
        ...

    @property
    def faults(self) -> Any:
        """The :class:`voxengine_mock.misbehaving.SessionFaults` of this session, for the agent's behaviour."""
        ...

    @property
    def log(self) -> ReceptionLog | None:
        """Where to report what arrives; None when nobody asked for it."""
        ...

    def abort(self) -> None:
        """Cut the connection without a close message."""


SessionHandler: TypeAlias = Callable[[EmulatorSession], Awaitable[None]]
"""Serves one session until its end. The harness closes the connection when it returns: 1000, or 1011 when it
raised."""


@attrs.frozen
class HttpRoute:
    """A plain HTTP request that an emulator answers."""

    handler: Callable[[HttpRequest], Awaitable[HttpResponse]]
    needs_key: bool = True


class Emulator(ABC):
    """Base of every emulator. One instance serves any number of sessions.

    Args:
        key: The only key that is accepted.
        script: What the agent hears and says: the path of a TOML file or a mapping with the same keys. They
            win over ``default_script``.
        speed: Output is sent at so many times real time; None: as the script says, five by default.
        faults: What goes wrong, after the script's own: lines as ``--fault`` takes them, or tables.
    """

    name: ClassVar[str]
    """As in ``voxengine emulate NAME``."""
    url_path: ClassVar[str] = ""
    """What follows host and port in the URL that is printed."""
    subprotocols: ClassVar[tuple[str, ...]] = ()
    """The first of these that a client offers is agreed on; a client that offers none of them is served too."""
    alpn: ClassVar[tuple[str, ...]] = ("http/1.1",)
    """What is offered over TLS, the best first. For any but ``http/1.1``, see :meth:`make_protocol`."""
    default_script: ClassVar[Mapping[str, Any]] = {}
    max_message_bytes: ClassVar[int] = 16 * 2**20
    """The longest message that it takes."""
    emulator_api: ClassVar[int] = 1

    def __init__(
        self,
        *,
        key: str = DEFAULT_KEY,
        script: str | Path | Mapping[str, Any] | None = None,
        speed: float | None = None,
        faults: Iterable[str | Mapping[str, Any]] = (),
    ) -> None:
        self.key = key
        self.script = script
        self.speed = speed
        self.faults = tuple(faults)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    @abstractmethod
    def websocket_routes(self) -> Mapping[str, SessionHandler]:
        """The handlers of WebSocket sessions by path; ``*`` at a path's end stands for anything."""

    def http_routes(self) -> Mapping[tuple[str, str], HttpRoute]:
        """The plain requests that are answered, by method and path, with ``*`` as above."""
        return {}

    def key_of(self, request: HttpRequest) -> str | None:
        """Return the key that a request brings; by default that of ``Authorization: Bearer``."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        return key.strip() if scheme.lower() == "bearer" else None

    def refuse(self, status: int, code: str, message: str) -> HttpResponse:
        """Return the vendor's answer to a request that is refused.

        Args:
            code: A :class:`~voxengine.errors.ErrorCode`'s value.

        The harness adds ``Retry-After`` where there is one.
        """
        return HttpResponse.of_json({"error": {"code": code, "message": message}}, status)

    def make_protocol(self, alpn: str) -> asyncio.Protocol:
        """Return what serves a connection whose TLS hand-shake agreed on another protocol than HTTP/1.1.

        An emulator that names one in ``alpn`` overrides this. The harness hands the connection over, keeps
        counting it and cuts it when it stops; keys and faults are then the protocol's own affair.
        """
        raise ConfigError(
            f"The emulator {self.name!r} offers {alpn!r} by ALPN and has nothing that speaks it."
        )

    def running(self, **options: Any) -> AbstractAsyncContextManager[str]:
        """Listen within the block and yield the URL.

        Args:
            options: As for ``voxengine_mock.harness.serve``: ``host``, ``port``, ``tls``, ``log`` and more.

        Raises:
            ConfigError: An option or the script is wrong, the port is taken, or the harness is not installed.
        """
        context: AbstractAsyncContextManager[str] = load_harness().running(self, **options)
        return context


def find_emulator(name: str) -> type[Emulator]:
    """Return an installed emulator's class. Raises ConfigError that says what is installed or wrong."""
    entries, unreadable = find_entry_points(EMULATOR_GROUP)
    found = [entry for entry in entries if entry.name == name]
    if not found:
        names = sorted({entry.name for entry in entries})
        message = f"No emulator named {name!r}. Installed: {', '.join(names) or 'none'}."
        if name in FIRST_PARTY:
            extra = "" if _HARNESS.startswith(FIRST_PARTY[name].replace("-", "_")) else "[emulator]"
            message += f" Try: pip install '{FIRST_PARTY[name]}{extra}'"
        for held in unreadable:
            message += f" {held}"
        raise ConfigError(message)
    owners = [" ".join(identity(entry.dist)) if entry.dist else entry.value for entry in found]
    if len(found) > 1:
        raise ConfigError(
            f"{len(found)} distributions offer an emulator named {name!r}: {' and '.join(owners)}. "
            "Uninstall one."
        )
    try:
        target = found[0].load()
    except ConfigError:
        raise  # A package that says in a sentence what it lacks.
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"The emulator {name!r} ({owners[0]}) could not be imported: {type(error).__name__}: {error}."
        ) from error
    if not isinstance(target, type) or not issubclass(target, Emulator):
        raise ConfigError(
            f"The emulator {name!r} ({owners[0]}) is no subclass of voxengine.testing.Emulator: "
            f"{found[0].value}."
        )
    return target


def load_harness() -> Any:
    """Return the module of the harness. Raises ConfigError when ``voxengine-mock`` is not installed."""
    try:
        return importlib.import_module(_HARNESS)
    except ModuleNotFoundError as error:
        if error.name is None or not _HARNESS.startswith(error.name):
            raise
        raise ConfigError(
            "Emulators need the package voxengine-mock. Try: pip install voxengine-mock"
        ) from None
