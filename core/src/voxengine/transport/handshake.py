"""Before a WebSocket is open: what may be dialled, with what, and what a refusal means."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl as ssl_module
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidProxy,
    InvalidStatus,
    InvalidURI,
    ProxyError,
)
from websockets.http11 import Response

from voxengine.errors import ConfigError, ErrorCode, ProviderError, RemoteProtocolError
from voxengine.transport import outcomes

__all__ = [
    "GuardedConnection",
    "check_headers",
    "checked_url",
    "connect_error",
    "default_tls",
    "default_user_agent",
]

_tls_context: ssl_module.SSLContext | None = None


class GuardedConnection(ClientConnection):
    """Refuses redirects: the library would follow them with every custom header still on."""

    async def handshake(self, *args: Any, **kwargs: Any) -> None:
        try:
            await super().handshake(*args, **kwargs)
        except InvalidStatus as exc:
            raise _Rejected(exc.response) from None


class _Rejected(Exception):
    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


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
    for name, value in (headers or {}).items():
        if any(c in text for text in (name, value) for c in "\r\n\0"):
            raise ConfigError(
                f"The value of header {name.split()[0] if name.split() else ''!r} holds a line break. "
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
    """What an exception from the library's ``connect`` means."""
    if isinstance(exc, _Rejected):
        response = exc.response
        return outcomes.rejected(
            target, response.status_code, response.headers.raw_items(), bytes(response.body or b"")
        )
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
    if isinstance(exc, InvalidURI | ValueError):
        return ConfigError(f"The endpoint of host {host!r} is not a valid WebSocket URL.")
    if isinstance(exc, InvalidProxy | ImportError):
        return ConfigError(
            f"The proxy setting for {host} cannot be used"
            + (": a SOCKS proxy needs the package python-socks." if isinstance(exc, ImportError) else ".")
        )
    if isinstance(exc, ProxyError):
        return outcomes.refused_tcp(target, "the proxy did not connect")
    if isinstance(exc, ConnectionClosed | EOFError) or isinstance(exc.__cause__, EOFError):
        return outcomes.refused_tcp(target, "the connection was cut during the hand-shake")
    if isinstance(exc, InvalidHandshake):
        return RemoteProtocolError(
            f"{target.provider} gave no WebSocket hand-shake at {target.text} ({type(exc).__name__}). "
            "Check that the endpoint is a WebSocket service.",
            provider=target.provider,
        )
    return exc
