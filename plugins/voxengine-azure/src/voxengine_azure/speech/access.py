"""Where the Speech service is, and with which credentials it is reached."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import attrs

from voxengine.errors import AuthenticationFailed, ConfigError, ErrorCode, ProviderError
from voxengine_azure.dialogue_access import without_tls
from voxengine_azure.speech.settings import SpeechSettings
from voxengine_azure.tokens import new_token
from voxengine_openai.endpoint import is_loopback

__all__ = ["KEY_VARIABLES", "REGION_VARIABLES", "Access", "region_of"]

KEY_VARIABLES: Final = ("AZURE_SPEECH_KEY", "SPEECH_KEY")
"""Environment variables that hold a key, the first that is set wins."""
REGION_VARIABLES: Final = ("AZURE_SPEECH_REGION", "SPEECH_REGION")

_REGION: Final = re.compile(r"[a-z][a-z0-9]{2,40}")
_REGION_HOST: Final = re.compile(
    r"([a-z0-9]+)\.(?:stt\.speech|tts\.speech|voice\.speech|api\.cognitive)\.(?:microsoft\.com|azure\.cn|azure\.us)"
)
_SCHEMES: Final = {"wss": "wss", "https": "wss", "ws": "ws", "http": "ws"}
_RECOGNITION: Final = "/speech/recognition/conversation/cognitiveservices/v1"
_UNIVERSAL: Final = "/speech/universal/v2"
"""Where languages are identified."""
_SYNTHESIS: Final = "/cognitiveservices/websocket/v1"


def region_of(config: Mapping[str, Any]) -> Any:
    """Return the region that a configuration or the environment names, unchecked; None when neither does."""
    region = (config.get("metadata") or {}).get("region")
    return region if region is not None else _variable(REGION_VARIABLES)


def _variable(names: tuple[str, ...]) -> str | None:
    return next((value for name in names if (value := os.environ.get(name, "").strip())), None)


def _suffix(region: str) -> str:
    if region.startswith("china"):
        return "azure.cn"
    return "azure.us" if region.startswith("usgov") else "microsoft.com"


@attrs.frozen
class Access:
    """The addresses of a resource and what opens them. ``repr`` shows no secret."""

    region: str = ""
    """Empty where an endpoint was given."""
    host: str = ""
    """Scheme, host and port of an endpoint."""
    replaced_path: str = ""
    """The path of the endpoint, when it is none of the service's."""
    _key: str = attrs.field(default="", repr=False)
    _token: str = attrs.field(default="", repr=False)
    _renew: Callable[[], Any] | None = attrs.field(default=None, repr=False)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Access:
        """Read a configuration, and the environment for what it leaves out.

        Raises:
            ConfigError: A value is wrong.
            ProviderError: Region and endpoint are missing, or every credential is.
        """
        metadata = config.get("metadata") or {}
        place = _place(config, metadata)
        token, renew = metadata.get("token"), metadata.get("token_provider")
        if renew is not None and not callable(renew):
            raise ConfigError("metadata['token_provider'] takes a function that returns a token.")
        if token is not None and (not isinstance(token, str) or not token.strip()):
            raise ConfigError("metadata['token'] takes a text that is not empty.")
        if token or renew:
            return attrs.evolve(place, token=(token or "").strip(), renew=renew)
        key = config.get("api_key") or _variable(KEY_VARIABLES)
        if not key and is_loopback(place.host):
            from voxengine.testing.emulator import DEFAULT_KEY

            key = DEFAULT_KEY
        if not isinstance(key, str) or not key.strip():
            raise AuthenticationFailed(
                "azure speech has no key. Set api_key or the variable AZURE_SPEECH_KEY, or give a token in "
                "metadata['token'] or metadata['token_provider'].",
                provider="azure",
            )
        return attrs.evolve(place, key=key.strip())

    # -- addresses ------------------------------------------------------------------------------

    def recognition_url(self, settings: SpeechSettings) -> str:
        """Return the address for recognition with these settings; nothing in it is secret."""
        path = _UNIVERSAL if settings.languages else _RECOGNITION
        base = f"{self.host}/stt" if self.host else self._regional("stt")
        return f"{base}{path}?{urlencode(settings.query())}"

    def synthesis_url(self, settings: SpeechSettings) -> str:
        """Return the address for synthesis with these settings."""
        custom = settings.custom_voice
        base = f"{self.host}/tts" if self.host else self._regional("voice" if custom else "tts")
        return f"{base}{_SYNTHESIS}" + (f"?{urlencode({'deploymentId': custom})}" if custom else "")

    def _regional(self, kind: str) -> str:
        return f"wss://{self.region}.{kind}.speech.{_suffix(self.region)}"

    # -- credentials ----------------------------------------------------------------------------

    @property
    def can_renew(self) -> bool:
        """Whether another token can be asked for."""
        return self._renew is not None

    @property
    def has_token(self) -> bool:
        """Whether a token is used, and no key."""
        return not self._key

    async def headers(self, *, is_renewal: bool) -> dict[str, str]:
        """Return the headers that identify us.

        Args:
            is_renewal: The token that was given first has been refused.

        Raises:
            ProviderError: There is no token to be had.
        """
        if self._key:
            return {"Ocp-Apim-Subscription-Key": self._key}
        token = self._token
        if self._renew is not None and (is_renewal or not token):
            token = await new_token(self._renew, "azure speech")
        return {"Authorization": f"Bearer {token}"}


def _place(config: Mapping[str, Any], metadata: Mapping[str, Any]) -> Access:
    endpoint = metadata.get("endpoint", metadata.get("url"))
    if endpoint is not None:
        return _from_endpoint(endpoint)
    region = region_of(config)
    if region is None:
        raise ProviderError(
            "azure speech needs metadata['region'], such as 'eastus', or metadata['endpoint'] of the resource. "
            "The variable AZURE_SPEECH_REGION does as well.",
            provider="azure",
            code=ErrorCode.INVALID_REQUEST,
        )
    if not isinstance(region, str) or not _REGION.fullmatch(region):
        raise ConfigError(
            f"metadata['region'] is {region!r}; it is a region's name in small letters, such as 'westeurope'."
        )
    return Access(region=region)


def _from_endpoint(endpoint: object) -> Access:
    if not isinstance(endpoint, str):
        raise ConfigError(f"metadata['endpoint'] is {type(endpoint).__name__}; it takes an address.")
    try:
        parts = urlsplit(endpoint.strip())
        name, port = parts.hostname or "", parts.port
    except ValueError:
        raise ConfigError(
            "metadata['endpoint'] is no address. It looks like https://NAME.cognitiveservices.azure.com."
        ) from None
    if parts.scheme not in _SCHEMES or not name:
        raise ConfigError(
            f"metadata['endpoint'] has the scheme {parts.scheme!r}; it begins with https:// or wss:// and "
            "a host, as in https://NAME.cognitiveservices.azure.com."
        )
    if _SCHEMES[parts.scheme] == "ws" and not is_loopback(endpoint.strip()):
        raise ConfigError(without_tls(parts.scheme, name))
    if parts.query or parts.username or parts.password:
        raise ConfigError(
            "metadata['endpoint'] holds a query or a password; the key goes into api_key and the rest into "
            "options of their own."
        )
    path = parts.path.rstrip("/")
    replaced = (
        "" if path in ("", _RECOGNITION, _SYNTHESIS, f"/stt{_RECOGNITION}", f"/tts{_SYNTHESIS}") else path
    )
    regional = _REGION_HOST.fullmatch(name)
    if regional is not None:
        return Access(region=regional[1], replaced_path=replaced)
    host = f"[{name}]" if ":" in name else name
    shown = f"{_SCHEMES[parts.scheme]}://{host}" + (f":{port}" if port is not None else "")
    return Access(host=shown, replaced_path=replaced)
