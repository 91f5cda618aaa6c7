"""Ephemeral keys for clients that must not hold the real one.

A request is made with the standard library in a thread, under one deadline: it honours the
system's proxy settings as sessions do, and asks for no further package. A caller that is cancelled returns at
once; the thread ends by the deadline. Redirects are refused: they would carry the key along.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any, Final

import attrs

from voxengine.errors import ConfigError, ErrorCode, ProviderError, RemoteProtocolError
from voxengine.transport import check_headers
from voxengine_openai.endpoint import Endpoint, http_url, is_loopback
from voxengine_openai.faults import http_error

__all__ = ["ClientSecret", "create_client_secret"]

_PATH: Final = "/realtime/client_secrets"
_LIFE_S: Final = (10, 7200)
_MAX_BODY_BYTES: Final = 2**20


@attrs.frozen(kw_only=True)
class ClientSecret:
    """An ephemeral key. It opens any number of sessions until it expires; those outlive it."""

    value: str = attrs.field(repr=False)
    """Use it as ``api_key``."""
    expires_at: int
    """Unix seconds."""
    session: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    """The configuration that its sessions start with, as the service tells it."""


async def create_client_secret(
    endpoint: Endpoint,
    session: Mapping[str, Any],
    *,
    life_s: int = 600,
    deadline_s: float = 10.0,
    provider: str = "openai",
) -> ClientSecret:
    """Make an ephemeral key.

    Args:
        endpoint: Of the service, with the real key.
        session: What sessions of the key start with.
        life_s: For how long new sessions can be opened, 10 to 7200 seconds.
        deadline_s: For the whole request.
        provider: For errors.

    Raises:
        ConfigError: ``life_s`` is out of range, or the address is not encrypted and not on this machine.
        ProviderError: The service refused, could not be reached or did not answer.
    """
    given: object = life_s
    if isinstance(given, bool) or not isinstance(given, int) or not _LIFE_S[0] <= given <= _LIFE_S[1]:
        raise ConfigError(f"life_s is {life_s!r}; it takes an int from {_LIFE_S[0]} to {_LIFE_S[1]} (s).")
    url = http_url(endpoint.base, _PATH)
    if url.startswith("http:") and not is_loopback(url):
        raise ConfigError(
            "Refusing to send a key without TLS. Use an address that begins with https:// or wss://."
        )
    expires = {"anchor": "created_at", "seconds": life_s}
    body = json.dumps({"expires_after": expires, "session": session}).encode()
    check_headers(endpoint.headers)
    headers = {**endpoint.headers, "Content-Type": "application/json", "Accept": "application/json"}
    try:
        async with asyncio.timeout(deadline_s):
            status, answer_headers, answer = await asyncio.to_thread(_post, url, headers, body, deadline_s)
    except TimeoutError:
        raise ProviderError(
            f"{provider} did not answer the request for a client secret within {deadline_s:g} s. "
            "Trying again can help.",
            provider=provider,
            code=ErrorCode.TIMEOUT,
        ) from None
    except OSError as error:
        why = getattr(error, "reason", error)
        shown = why.strerror if isinstance(why, OSError) and why.strerror else type(why).__name__
        raise ProviderError(
            f"{provider} could not be reached for a client secret: {shown}. "
            "Check the network and the endpoint; trying again can help.",
            provider=provider,
            code=ErrorCode.UNAVAILABLE,
        ) from None
    except HTTPException as error:
        raise RemoteProtocolError(
            f"{provider}: what answered the request for a client secret is no HTTP service ({type(error).__name__}).",
            provider=provider,
        ) from None
    if status != 200:
        key = endpoint.headers.get("Authorization", "").removeprefix("Bearer ")
        raise http_error(status, answer_headers, answer, url=url, key=key, provider=provider)
    return _read(answer, provider)


def _read(answer: bytes, provider: str) -> ClientSecret:
    try:
        content = json.loads(answer)
        value, expires_at = content["value"], content["expires_at"]
        if not isinstance(value, str) or not value or not isinstance(expires_at, int):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RemoteProtocolError(
            f"{provider} answered the request for a client secret with something else. Check the endpoint.",
            provider=provider,
        ) from None
    session = content.get("session")
    return ClientSecret(
        value=value, expires_at=expires_at, session=session if isinstance(session, dict) else {}
    )


def _post(
    url: str, headers: dict[str, str], body: bytes, limit_s: float
) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers (names in lower case) and body of an answer, whatever the status. Blocks."""
    from urllib.error import HTTPError
    from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

    class NoRedirects(HTTPRedirectHandler):
        def redirect_request(self, *args: Any, **kwargs: Any) -> None:
            return None

    handlers: list[Any] = [NoRedirects()]
    if is_loopback(url):
        handlers.append(ProxyHandler({}))  # An emulator must not be looked for behind a company's proxy.
    request = Request(url, data=body, headers=headers, method="POST")
    try:
        with build_opener(*handlers).open(request, timeout=limit_s) as answer:
            return answer.status, _lower(answer.headers), answer.read(_MAX_BODY_BYTES)
    except HTTPError as error:
        with error:
            return error.code, _lower(error.headers), error.read(_MAX_BODY_BYTES)


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
