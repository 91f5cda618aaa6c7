"""Before a WebSocket is open: what may be dialled, with what, and what a refusal means."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import re
import ssl as ssl_module
from collections.abc import Mapping
from typing import Final, Literal
from urllib.parse import urlsplit

import attrs

from voxengine.errors import ConfigError, ErrorCode, ProviderError, RemoteProtocolError
from voxengine.transport import WireObserver, outcomes

__all__ = [
    "Dial",
    "check_headers",
    "checked_url",
    "connect_error",
    "default_tls",
    "default_user_agent",
    "not_websocket",
]

_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NO_VALUE: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

_tls_context: ssl_module.SSLContext | None = None


@attrs.define(kw_only=True, repr=False)
class Dial:
    """One connection to be opened, checked. Holds secrets: never printed."""

    url: str
    host: str
    target: outcomes.Target
    headers: Mapping[str, str]
    subprotocols: tuple[str, ...]
    user_agent: str
    proxy: str | Literal[True] | None
    """True: what the system's settings say."""
    handshake_s: float
    close_s: float
    limits: tuple[float | None, float]
    """Interval and timeout of pings."""
    max_message_bytes: int
    write_limit_bytes: int
    on_wire: WireObserver | None
    ssl: ssl_module.SSLContext | None = None


@functools.lru_cache(64)  # A process has few addresses.
def checked_url(url: str, allow_plain: bool) -> tuple[str, bool]:
    """The host and whether it is this machine. Errors name the host alone."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ConfigError("The endpoint is not a valid URL. It looks like wss://host/path.") from None
    if parts.scheme not in ("ws", "wss") or not host:
        raise ConfigError(
            f"The endpoint of host {host!r} has scheme {parts.scheme!r}. It must start with wss://."
        )
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost" or host.endswith(".localhost")
    if parts.scheme == "ws" and not is_loopback and not allow_plain:
        raise ConfigError(
            f"Refusing to send credentials and speech to {host} without TLS. "
            "Use wss://, or pass allow_plain=True inside a network that you trust."
        )
    return host, is_loopback


def check_headers(headers: Mapping[str, str] | None) -> None:
    """Refuse what is no header before anything is dialled: it would end the hand-shake, or begin another header.

    Raises:
        ConfigError: It names the header, as far as that can be one, and never shows a value.
    """
    for name, value in (headers or {}).items():
        start = _NAME.match(name)
        sound = start[0] if start is not None else ""
        if not name or sound != name:
            # Shown up to there: a whole line, with its value, may have been given for a name.
            what = f"holds {name[len(sound)]!r} behind {sound[:40]!r}" if name else "is empty"
            raise ConfigError(f"The name of a header {what}. It is made of letters, digits and hyphens.")
        if _NO_VALUE.search(value) is not None:
            raise ConfigError(
                f"The value of header {name!r} holds a line break or another control character. "
                "A key read from a file often ends with one: strip it."
            )


def default_user_agent() -> str:
    from voxengine import __version__

    return f"voxengine/{__version__}"


async def default_tls() -> ssl_module.SSLContext:
    global _tls_context
    if _tls_context is None:  # Reading the certificate store takes 10 to 30 ms.
        _tls_context = await asyncio.to_thread(ssl_module.create_default_context)
    return _tls_context


def connect_error(exc: Exception, target: outcomes.Target, host: str, handshake_s: float) -> Exception:
    """What an exception from a client's ``connect`` means."""
    if isinstance(exc, TimeoutError):
        return outcomes.timed_out(target, handshake_s)
    if isinstance(exc, ssl_module.SSLError) and not isinstance(
        exc, ssl_module.SSLEOFError | ssl_module.SSLZeroReturnError
    ):
        why = getattr(exc, "verify_message", "") or exc.reason or "no common protocol"
        return ProviderError(
            f"{target.provider} could not be reached safely at {target.text}: TLS failed ({why}). "
            "Check the endpoint's certificate, this machine's clock and its certificate store.",
            provider=target.provider,
            code=ErrorCode.UNAVAILABLE,
            recoverable=False,
        )
    if isinstance(exc, OSError):
        return outcomes.refused_tcp(target, exc.strerror or str(exc) or type(exc).__name__)
    if type(exc).__module__.partition(".")[0] == "websockets" or isinstance(exc, ImportError):
        return _library_error(exc, target, host)
    if isinstance(exc, ValueError):
        return ConfigError(f"The endpoint of host {host!r} is not a valid WebSocket URL.")
    if isinstance(exc, EOFError) or isinstance(exc.__cause__, EOFError):
        return outcomes.refused_tcp(target, "the connection was cut during the hand-shake")
    return exc


def _library_error(exc: Exception, target: outcomes.Target, host: str) -> Exception:
    """What an exception of the websockets package means."""
    from websockets.exceptions import (
        ConnectionClosed,
        InvalidHandshake,
        InvalidProxy,
        InvalidURI,
        ProxyError,
    )

    if isinstance(exc, InvalidURI):
        return ConfigError(f"The endpoint of host {host!r} is not a valid WebSocket URL.")
    if isinstance(exc, InvalidProxy | ImportError):
        return ConfigError(
            f"The proxy setting for {host} cannot be used"
            + (": a SOCKS proxy needs the package python-socks." if isinstance(exc, ImportError) else ".")
        )
    if isinstance(exc, ProxyError):
        return outcomes.refused_tcp(target, "the proxy did not connect")
    if isinstance(exc, ConnectionClosed) or isinstance(exc.__cause__, EOFError):
        return outcomes.refused_tcp(target, "the connection was cut during the hand-shake")
    if isinstance(exc, InvalidHandshake):
        return not_websocket(target, type(exc).__name__)
    return exc


def not_websocket(target: outcomes.Target, why: str) -> RemoteProtocolError:
    """The error for an answer that opens no WebSocket."""
    return RemoteProtocolError(
        f"{target.provider} gave no WebSocket hand-shake at {target.text} ({why}). "
        "Check that the endpoint is a WebSocket service.",
        provider=target.provider,
    )
