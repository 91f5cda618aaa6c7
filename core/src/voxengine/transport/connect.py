"""Opening a WebSocket: what is checked for every client, and which client carries the session."""

from __future__ import annotations

import asyncio
import functools
import importlib.metadata
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from voxengine.errors import ConfigError
from voxengine.transport import WireObserver, outcomes
from voxengine.transport.framed import MAX_MESSAGE_BYTES, WRITE_LIMIT_BYTES, WebSocketTransport
from voxengine.transport.handshake import (
    Dial,
    check_headers,
    checked_url,
    default_tls,
    default_user_agent,
)

if TYPE_CHECKING:
    import ssl as ssl_module

__all__ = ["connect_websocket"]


async def connect_websocket(
    url: str,
    *,
    provider: str,
    headers: Mapping[str, str] | None = None,
    subprotocols: Sequence[str] = (),
    ssl: ssl_module.SSLContext | None = None,
    handshake_s: float = 10.0,
    ping_interval_s: float | None = 5.0,
    ping_timeout_s: float = 5.0,
    close_s: float = 2.0,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    write_limit_bytes: int = WRITE_LIMIT_BYTES,
    on_wire: WireObserver | None = None,
    user_agent: str | None = None,
    proxy: str | Literal["auto"] | None = "auto",
    allow_plain: bool = False,
    transport: Literal["auto", "websockets", "picows"] = "auto",
) -> WebSocketTransport:
    """Open a WebSocket and return it ready to use.

    Args:
        url: ``wss://…``, or ``ws://…`` to a loopback host (anywhere with ``allow_plain``).
        provider: The provider's name, for errors.
        headers: Sent with the hand-shake and never logged.
        ssl: None takes one default context, made once per process off the loop's thread.
        handshake_s: Deadline for everything up to the open connection: name look-up, TCP, TLS, HTTP.
        ping_interval_s: Silence after which a ping is sent; None for none. Any arriving data counts as life.
        ping_timeout_s: Silence after that ping which ends the connection. While our own reader is so slow
            that the network is not read, nothing is concluded.
        close_s: Deadline of ``close`` and of a peer that announced a close but does not hang up.
        max_message_bytes: A larger message ends the connection with RemoteProtocolError.
        write_limit_bytes: High-water mark of the write buffer; writing resumes at a quarter of it.
        user_agent: None for ``voxengine/VERSION``.
        proxy: ``"auto"`` takes the system's proxy settings (``HTTPS_PROXY``, ``NO_PROXY``, …) except for
            loopback hosts, where an emulator must not be looked for behind a company's proxy. None for
            none, or the proxy's URL. TLS goes through the proxy unbroken.
        transport: The client: ``"websockets"``; ``"picows"``, which costs less and comes with
            ``voxengine[fast]``; ``"auto"`` for picows where it is installed and tried (not on Windows). Both
            keep the same promises. A connection through a proxy is always made by ``websockets``.

    Raises:
        ConfigError: The URL, a header or the proxy setting cannot be used, or the client is not installed.
            Nothing was opened.
        AuthenticationFailed, RateLimited, ProviderError: The service refused or could not be reached;
            ``code``, ``recoverable`` and ``retry_after_s`` say what to do, and
            :func:`~voxengine.transport.handshake_response` returns its answer if it gave one.
        RemoteProtocolError: What answered is no WebSocket service.

    Compression is off: it triples the cost of audio. Redirects are refused, to any origin, since custom key
    headers would travel along. A cancelled call leaves neither a task nor a socket.
    """
    host, is_loopback = checked_url(url, allow_plain)
    check_headers(headers)
    dial = Dial(
        url=url,
        host=host,
        target=outcomes.Target(provider, url, headers),
        headers=dict(headers or {}),
        subprotocols=tuple(subprotocols),
        user_agent=user_agent or default_user_agent(),
        proxy=(None if is_loopback else True) if proxy == "auto" else proxy,
        handshake_s=handshake_s,
        close_s=close_s,
        limits=(ping_interval_s, ping_timeout_s),
        max_message_bytes=max_message_bytes,
        write_limit_bytes=write_limit_bytes,
        on_wire=on_wire,
    )
    is_fast = _is_fast(transport) and url.isascii() and not _is_proxied(dial)
    deadline = asyncio.get_running_loop().time() + handshake_s
    if url[:4].lower() == "wss:":
        dial.ssl = ssl or await default_tls()
    if is_fast:
        from voxengine.transport.fast import open_websocket
    else:
        from voxengine.transport.websocket import open_websocket
    return await open_websocket(dial, deadline)


def _is_fast(transport: str) -> bool:
    if transport == "websockets" or (transport == "auto" and sys.platform == "win32"):
        return False
    version = _picows_version()
    is_known = version.split(".")[:2] == ["2", "3"]  # Its inside is used: see voxengine.transport.fast.
    if transport == "picows" and not is_known:
        what = f"is {version} here" if version else "is not installed"
        raise ConfigError(
            f"transport='picows' needs picows 2.3, which {what}. "
            "Try: pip install 'voxengine[fast]', or leave transport at 'auto'."
        )
    return is_known


@functools.cache
def _picows_version() -> str:
    try:
        return importlib.metadata.version("picows")
    except importlib.metadata.PackageNotFoundError:
        return ""


def _is_proxied(dial: Dial) -> bool:
    """Whether a proxy may be meant; then ``websockets``, which can use one, decides."""
    if dial.proxy is not True:
        return dial.proxy is not None
    return bool(urllib.request.getproxies()) and not urllib.request.proxy_bypass(dial.host)
