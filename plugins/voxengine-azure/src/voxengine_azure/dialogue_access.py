"""Where the dialogue services are, and with which credentials: Voice Live and Azure OpenAI."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import attrs

from voxengine.errors import AuthenticationFailed, ConfigError, ErrorCode, ProviderError
from voxengine_azure.tokens import new_token
from voxengine_openai.endpoint import Endpoint, is_loopback

__all__ = [
    "API_VERSION",
    "OPENAI_ENDPOINT_VARIABLE",
    "VOICE_LIVE_ENDPOINT_VARIABLE",
    "Access",
    "Credentials",
    "azure_openai_access",
    "voice_live_access",
    "without_tls",
]

API_VERSION: Final = "2026-07-15"
"""Version of Voice Live that is asked for unless ``metadata["api_version"]`` names another."""
VOICE_LIVE_ENDPOINT_VARIABLE: Final = "AZURE_VOICELIVE_ENDPOINT"
OPENAI_ENDPOINT_VARIABLE: Final = "AZURE_OPENAI_ENDPOINT"

_VOICE_LIVE: Final = "/voice-live/realtime"
_OPENAI: Final = "/openai/v1/realtime"
_OPENAI_PREVIEW: Final = "/openai/realtime"
_SCHEMES: Final = {"https": "wss", "wss": "wss", "http": "ws", "ws": "ws"}
_SECRETS: Final = ("api-key", "authorization", "subscription-key")
_AGENT: Final[Mapping[str, str]] = {
    "agent_name": "agent-name",
    "agent_project": "agent-project-name",
    "agent_version": "agent-version",
    "conversation_id": "conversation-id",
    "agent_identity": "agent-authentication-identity-client-id",
}
"""Metadata keys for a session with an agent, and what the address calls them."""


@attrs.frozen
class Credentials:
    """A key, or a token that can be renewed. ``repr`` shows neither."""

    key: str = attrs.field(default="", repr=False)
    token: str = attrs.field(default="", repr=False)
    renew: Callable[[], Any] | None = attrs.field(default=None, repr=False)

    @property
    def can_renew(self) -> bool:
        """Whether another token can be asked for."""
        return self.renew is not None

    async def headers(self, service: str, *, is_renewal: bool = False) -> dict[str, str]:
        """Return what identifies us.

        Args:
            service: For errors.
            is_renewal: The token that was given first has been refused.

        Raises:
            AuthenticationFailed: There is no token to be had.
        """
        if self.key:
            return {"api-key": self.key}
        token = self.token
        if self.renew is not None and (is_renewal or not token):
            token = await new_token(self.renew, service)
        return {"Authorization": f"Bearer {token}"}


@attrs.frozen
class Access:
    """The address of one session and what opens it."""

    endpoint: Endpoint
    credentials: Credentials
    replaced_path: str = ""
    """The path of the endpoint, when it was none of the service's."""


def voice_live_access(config: Mapping[str, Any], model: str) -> Access:
    """Return where a session of Voice Live is opened.

    Raises:
        ConfigError: The endpoint is no address.
        ProviderError: There is no endpoint, or no credential.
    """
    metadata = config.get("metadata") or {}
    base, path, given = _address(
        metadata, VOICE_LIVE_ENDPOINT_VARIABLE, "voice-live", "services.ai.azure.com"
    )
    agent = {name: str(metadata[key]) for key, name in _AGENT.items() if metadata.get(key) is not None}
    if ("agent-name" in agent) != ("agent-project-name" in agent):
        raise ConfigError("metadata['agent_name'] and metadata['agent_project'] go together.")
    version = str(metadata.get("api_version") or given.pop("api-version", "") or API_VERSION)
    query = {"api-version": version, **given, **agent}
    if not agent:
        query["model"] = model
    is_known = path.endswith(_VOICE_LIVE)
    url = f"{base}{path if is_known else _VOICE_LIVE}?{urlencode(query)}"
    replaced = "" if is_known or path in ("", "/voice-live") else path
    credentials = _credentials(config, metadata, "voice-live", "AZURE_VOICELIVE_API_KEY", base)
    return Access(Endpoint(url=url, headers={}, base=base, model=model), credentials, replaced)


def azure_openai_access(config: Mapping[str, Any], deployment: str, *, preview: str) -> Access:
    """Return where a session of Azure OpenAI is opened.

    Args:
        config: The provider's configuration.
        deployment: Its name.
        preview: The api-version of the preview's protocol; empty: the GA one.

    Raises:
        ConfigError: The endpoint is no address.
        ProviderError: There is no endpoint, or no credential.
    """
    metadata = config.get("metadata") or {}
    base, path, given = _address(metadata, OPENAI_ENDPOINT_VARIABLE, "openai", "openai.azure.com")
    wanted = _OPENAI_PREVIEW if preview else _OPENAI
    for name in ("api-version", "deployment", "model"):
        given.pop(name, None)
    query = {"api-version": preview, "deployment": deployment} if preview else {"model": deployment}
    is_known = path.endswith(wanted)
    url = f"{base}{path if is_known else wanted}?{urlencode({**query, **given})}"
    replaced = "" if is_known or path in ("", "/openai", "/openai/v1", "/openai/realtime") else path
    credentials = _credentials(config, metadata, "openai", "AZURE_OPENAI_API_KEY", base)
    return Access(Endpoint(url=url, headers={}, base=base, model=deployment), credentials, replaced)


def _address(
    metadata: Mapping[str, Any], variable: str, service: str, domain: str
) -> tuple[str, str, dict[str, str]]:
    """Return scheme with host, path, and query of the endpoint."""
    example = f"https://NAME.{domain}"
    endpoint = metadata.get("endpoint") or metadata.get("url") or os.environ.get(variable, "").strip()
    if not endpoint:
        raise ProviderError(
            f"azure {service} needs metadata['endpoint'] of the resource, such as {example}, or the variable "
            f"{variable}. A region alone does not say which resource it is.",
            provider="azure",
            code=ErrorCode.INVALID_REQUEST,
        )
    if not isinstance(endpoint, str):
        raise ConfigError(f"metadata['endpoint'] is {type(endpoint).__name__}; it takes an address.")
    try:
        parts = urlsplit(endpoint.strip())
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ConfigError(f"metadata['endpoint'] is no address. It looks like {example}.") from None
    if parts.scheme.lower() not in _SCHEMES or not host:
        raise ConfigError(
            f"metadata['endpoint'] has the scheme {parts.scheme!r}; it begins with https:// or wss:// and a host, "
            f"as in {example}."
        )
    if _SCHEMES[parts.scheme.lower()] == "ws" and not is_loopback(endpoint.strip()):
        raise ConfigError(without_tls(parts.scheme, host))
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.username or parts.password or any(name.lower() in _SECRETS for name in query):
        raise ConfigError("metadata['endpoint'] holds a key or a password; that goes into api_key.")
    shown = f"[{host}]" if ":" in host else host
    base = f"{_SCHEMES[parts.scheme.lower()]}://{shown}" + (f":{port}" if port is not None else "")
    return base, parts.path.rstrip("/"), query


def without_tls(scheme: str, host: str) -> str:
    """Return what is said of an endpoint elsewhere that is reached in the clear."""
    return (
        f"metadata['endpoint'] begins with {scheme}:// and {host} is not this machine: key and speech would travel "
        "in the clear. Write https:// or wss://."
    )


def _credentials(
    config: Mapping[str, Any], metadata: Mapping[str, Any], service: str, variable: str, base: str
) -> Credentials:
    token, renew = metadata.get("token"), metadata.get("token_provider")
    if renew is not None and not callable(renew):
        raise ConfigError("metadata['token_provider'] takes a function that returns a token.")
    if token is not None and (not isinstance(token, str) or not token.strip()):
        raise ConfigError("metadata['token'] takes a text that is not empty.")
    if token or renew:
        return Credentials(token=(token or "").strip(), renew=renew)
    key = str(config.get("api_key") or os.environ.get(variable) or "").strip()
    if not key and is_loopback(base):
        from voxengine.testing.emulator import DEFAULT_KEY

        key = DEFAULT_KEY
    if not key:
        raise AuthenticationFailed(
            f"azure {service} has no key. Set api_key or the variable {variable}, or give a token in "
            "metadata['token'] or metadata['token_provider'].",
            provider="azure",
        )
    return Credentials(key=key)
