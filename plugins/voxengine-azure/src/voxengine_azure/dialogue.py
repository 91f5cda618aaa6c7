"""What the two dialogue services have in common on the client's side: address, credentials, renewal."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from voxengine.capabilities import UNKNOWN, Capabilities
from voxengine.config import Deadlines
from voxengine.errors import AuthenticationFailed, CapabilityMissing, ErrorCode, ProviderError
from voxengine_azure.dialogue_access import Access
from voxengine_azure.tokens import refused_token
from voxengine_openai.endpoint import Endpoint, more_headers
from voxengine_openai.provider import OpenAIProvider

if TYPE_CHECKING:
    from voxengine.transport import Transport
    from voxengine_openai.client_secrets import ClientSecret

__all__ = ["AzureDialogue"]


class AzureDialogue(OpenAIProvider):
    """A dialogue service of Azure behind the contract. The base opens the connection; here is with what."""

    name: ClassVar[str] = "azure"
    service: ClassVar[str]
    """As ``metadata["service"]`` names it."""
    conformance_peers: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "refused": {"api_key": "a-key-that-no-resource-has"}
    }

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self._access: Access | None = None

    @classmethod
    def capabilities_for(cls, config: Mapping[str, Any]) -> Capabilities:
        return super().capabilities_for(config).evolve(cost=UNKNOWN)

    # -- what the base asks -------------------------------------------------------------------------

    @abstractmethod
    def _find(self, model: str) -> Access:
        """Return where a session is opened, and with what. Raises ConfigError and ProviderError."""

    def _endpoint(self, model: str, *, is_default_model: bool) -> Endpoint:
        self._access = self._find(model)
        return self._access.endpoint

    async def connect(self) -> None:
        await super().connect()
        if self._access is not None and self._access.replaced_path:
            self.warn(
                "endpoint_path_replaced",
                f"The path {self._access.replaced_path!r} of metadata['endpoint'] is none of the service "
                f"{self.service!r}; its own is used. Leave the path out.",
            )

    async def _dial(self, endpoint: Endpoint, deadlines: Deadlines) -> Transport:
        assert self._access is not None
        credentials = self._access.credentials
        service = f"azure {self.service}"
        for is_renewal in (False, True):
            found = await credentials.headers(service, is_renewal=is_renewal)
            try:
                return await self._dial_with(endpoint, deadlines, found)
            except AuthenticationFailed as error:
                if credentials.key:
                    raise
                # A token that was given ready-made may have expired since; one of the function's is new.
                if is_renewal or not (credentials.can_renew and credentials.token):
                    raise refused_token(error, service, is_provided=credentials.can_renew) from None
            except ProviderError as error:
                if error.code is ErrorCode.NOT_FOUND:
                    # An address does not show which of the services is behind it.
                    error.args = (
                        f"{error} The service asked for is {self.service!r}; metadata['service'] chooses another.",
                    )
                raise
        raise AssertionError("the second attempt returned or raised")

    async def _dial_with(
        self, endpoint: Endpoint, deadlines: Deadlines, found: Mapping[str, str]
    ) -> Transport:
        headers = {**found, **more_headers(self.config.get("metadata") or {})}
        self._hide(endpoint.url, headers)
        return await super()._dial(attrs.evolve(endpoint, headers=headers), deadlines)

    # -- beyond the contract ------------------------------------------------------------------------

    async def create_client_secret(self, *, life_s: int = 600) -> ClientSecret:
        """Raise CapabilityMissing: the service has keys and tokens, and nothing of this kind."""
        raise CapabilityMissing(
            f"azure {self.service} makes no client secrets here. Give a browser a token in its place.",
            capability="client_secrets",
            provider="azure",
        )
