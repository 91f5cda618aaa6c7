"""Where a session is opened, and with which credentials."""

from __future__ import annotations

import functools
import ipaddress
import os
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import attrs

from voxengine.errors import AuthenticationFailed, ConfigError

__all__ = [
    "Endpoint",
    "custom_endpoint",
    "http_url",
    "is_loopback",
    "missing_key",
    "more_headers",
    "openai_endpoint",
]

_BASE: Final = "wss://api.openai.com/v1"
_REGIONS: Final = ("us", "eu", "ae", "au", "in", "jp")
_SCHEMES: Final = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
_TO_HTTP: Final = {"ws": "http", "wss": "https"}
_EPHEMERAL: Final = "ek_"
_N_KNOWN: Final = 64
"""Addresses that are not taken apart again; a process has few."""


@attrs.frozen(kw_only=True)
class Endpoint:
    """An address with its credentials. ``repr`` shows neither."""

    url: str = attrs.field(repr=False)
    headers: Mapping[str, str] = attrs.field(repr=False)
    base: str = attrs.field(repr=False)
    """The address without path of the service and query, for requests over HTTP."""
    model: str = ""
    """What the address names; empty when it leaves the choice to the service."""


def openai_endpoint(
    config: Mapping[str, Any], model: str, *, is_default_model: bool, intent: str = ""
) -> Endpoint:
    """Return where OpenAI's service, or its stand-in at ``metadata["url"]``, is reached.

    Args:
        config: The provider's configuration.
        model: The model to ask for.
        is_default_model: Whether nobody named a model. A session of an ephemeral key (``ek_…``) then has
            the model that the key was made for.
        intent: ``transcription`` for a session without a model that answers.

    Raises:
        ConfigError: The address cannot be used, or there is no such service.
        AuthenticationFailed: There is no key.
    """
    metadata = config.get("metadata") or {}
    service = metadata.get("service")
    if service not in (None, "realtime", "transcription"):
        raise ConfigError(f"metadata['service'] is {service!r}; openai has 'realtime' and 'transcription'.")
    base = _base_of(metadata)
    key = _key(config, "OPENAI_API_KEY") or _loopback_key(base)
    if not key:
        raise missing_key("openai", "OPENAI_API_KEY")
    headers = {"Authorization": f"Bearer {key}"}
    for name, header, variable in (
        ("organization", "OpenAI-Organization", "OPENAI_ORG_ID"),
        ("project", "OpenAI-Project", "OPENAI_PROJECT_ID"),
        ("safety_identifier", "OpenAI-Safety-Identifier", ""),
    ):
        value = metadata.get(name) or (os.environ.get(variable) if variable else None)
        if value:
            headers[header] = str(value)
    headers |= more_headers(metadata)
    chosen = "" if is_default_model and key.startswith(_EPHEMERAL) else model
    url = _realtime_url(base, chosen)
    if intent:
        url = _with_query(url, {"intent": intent})
    return Endpoint(url=url, headers=headers, base=base, model=chosen)


def _base_of(metadata: Mapping[str, Any]) -> str:
    region = metadata.get("region")
    url = metadata.get("url")
    if url is None and region is not None:
        if region not in _REGIONS:
            raise ConfigError(f"metadata['region'] takes one of {', '.join(_REGIONS)}, or leave it out.")
        return f"wss://{region}.api.openai.com/v1"
    return _ws_url("url", str(url or os.environ.get("OPENAI_BASE_URL") or _BASE))


def custom_endpoint(config: Mapping[str, Any], model: str, *, is_beta: bool) -> Endpoint:
    """Return where a compatible service is reached: ``metadata["endpoint"]``, as it stands.

    ``auth_type`` is ``bearer`` (the default), ``api-key`` (a header), ``query`` or ``none``; ``auth_name``
    names another header or parameter than ``api-key``.

    Raises:
        ConfigError: A value is missing or wrong.
        AuthenticationFailed: There is no key.
    """
    metadata = config.get("metadata") or {}
    if metadata.get("service") not in (None, "realtime"):
        raise ConfigError("metadata['service']: custom has conversations ('realtime') alone. Leave it out.")
    address = metadata.get("endpoint") or metadata.get("url")
    if not address:
        raise ConfigError("custom needs metadata['endpoint'], for example wss://host/v1/realtime.")
    url = _ws_url("endpoint", str(address))
    headers = {"OpenAI-Beta": "realtime=v1"} if is_beta else {}
    query = {"model": model} if model else {}
    kind = metadata.get("auth_type", "bearer")
    if kind not in ("bearer", "api-key", "query", "none"):
        raise ConfigError("metadata['auth_type'] takes 'bearer', 'api-key', 'query' or 'none'.")
    name = metadata.get("auth_name", "api-key")
    if not isinstance(name, str) or not name.strip():
        raise ConfigError("metadata['auth_name'] takes the name of a header or of a parameter.")
    if kind != "none":
        key = _key(config, "VOXENGINE_CUSTOM_API_KEY") or _loopback_key(url)
        if not key:
            raise missing_key("custom", "VOXENGINE_CUSTOM_API_KEY")
        if kind == "bearer":
            headers["Authorization"] = f"Bearer {key}"
        elif kind == "api-key":
            headers[name] = key
        else:
            query[name] = key
    headers |= more_headers(metadata)
    return Endpoint(url=_with_query(url, query), headers=headers, base=url, model=model)


def missing_key(provider: str, variable: str) -> AuthenticationFailed:
    """Return the error of a configuration without a key."""
    return AuthenticationFailed(
        f"{provider} has no API key. Set api_key in the configuration or {variable} in the environment.",
        provider=provider,
    )


@functools.lru_cache(_N_KNOWN)
def is_loopback(url: str) -> bool:
    """Return whether an address is on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # A name, which may well begin like an address.
        return host == "localhost" or host.endswith(".localhost")


def _key(config: Mapping[str, Any], variable: str) -> str:
    # A key read from a file ends with a line break, which no header takes.
    return str(config.get("api_key") or os.environ.get(variable) or "").strip()


def _loopback_key(url: str) -> str:
    """Return the key of the emulators for an address on this machine."""
    if not is_loopback(url):
        return ""
    from voxengine.testing.emulator import DEFAULT_KEY

    return DEFAULT_KEY


def more_headers(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return ``metadata["headers"]``. What a header may be is checked where it is sent. Raises ConfigError."""
    headers = metadata.get("headers") or {}
    if not isinstance(headers, Mapping):
        raise ConfigError("metadata['headers'] takes a table of names and values.")
    if not all(isinstance(value, str | int | float) for value in headers.values()):
        raise ConfigError("metadata['headers'] has a value that is neither a text nor a number.")
    return {str(name): str(value) for name, value in headers.items()}


@functools.lru_cache(_N_KNOWN)
def _ws_url(name: str, address: str) -> str:
    try:
        parts = urlsplit(address.strip())
        port, scheme = parts.port, _SCHEMES.get(parts.scheme.lower())
    except ValueError:
        port, scheme = None, None
        parts = urlsplit("")
    if scheme is None or not parts.hostname or port == 0:
        raise ConfigError(f"metadata[{name!r}] is no address. It looks like wss://host/v1.")
    if scheme == "ws" and not is_loopback(address.strip()):
        raise ConfigError(
            f"metadata[{name!r}] leads to {parts.hostname} without TLS, which would send key and speech in the clear. "
            "Use wss://; ws:// is for this machine alone."
        )
    return urlunsplit(parts._replace(scheme=scheme, fragment=""))


@functools.lru_cache(_N_KNOWN)
def _realtime_url(base: str, model: str) -> str:
    parts = urlsplit(base)
    path = parts.path.rstrip("/") or "/v1"
    if not path.endswith("/realtime"):
        path += "/realtime"
    url = urlunsplit(parts._replace(path=path))
    # An address that joins a call names no model.
    return _with_query(url, {"model": model} if model and "call_id=" not in parts.query else {})


def _with_query(url: str, values: Mapping[str, str]) -> str:
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    return urlunsplit(parts._replace(query=urlencode({**values, **query})))  # What the address says wins.


def http_url(base: str, path: str) -> str:
    """Return the address of a request over HTTP beside the sessions of ``base``."""
    parts = urlsplit(base)
    root = parts.path.rstrip("/").removesuffix("/realtime") or "/v1"
    return urlunsplit(parts._replace(scheme=_TO_HTTP[parts.scheme], path=root + path, query=""))
