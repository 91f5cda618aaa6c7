"""The provider ``azure``: one class, and behind it the service that ``metadata["service"]`` names."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

from voxengine.capabilities import Capabilities
from voxengine.errors import CapabilityMissing, ConfigError
from voxengine.events import EventType
from voxengine.history import Heard, Item
from voxengine.providers.base import BaseProvider
from voxengine_azure.azure_openai import AzureOpenAIProvider
from voxengine_azure.dialogue import AzureDialogue
from voxengine_azure.dialogue_access import VOICE_LIVE_ENDPOINT_VARIABLE
from voxengine_azure.speech.provider import SpeechProvider
from voxengine_azure.voice_live.provider import VoiceLiveProvider

__all__ = ["ENDPOINT_VARIABLE", "AzureProvider"]

ENDPOINT_VARIABLE: Final = VOICE_LIVE_ENDPOINT_VARIABLE
"""Environment variable that stands for ``metadata["endpoint"]`` of Voice Live."""

_SERVICES: Final[Mapping[str, type[BaseProvider]]] = {
    "voice-live": VoiceLiveProvider,
    "openai": AzureOpenAIProvider,
    "speech": SpeechProvider,
}
_OPENAI_HOST: Final = ".openai.azure.com"
_NOT_OF_SPEECH: Final = (
    "model",
    "instructions",
    "temperature",
    "max_output_tokens",
    "modalities",
    "tool_choice",
)
"""Options that the dialogue services have and the Speech service has not."""


def _service(config: Mapping[str, Any]) -> str:
    """Return the service of a configuration: the named one, else the one that the address is of."""
    metadata = config.get("metadata") or {}
    service = metadata.get("service")
    if service is not None:
        return str(service)
    endpoint = metadata.get("endpoint") or metadata.get("url")
    if metadata.get("deployment") is not None or (endpoint and _is_of_openai(str(endpoint))):
        return "openai"
    return "voice-live" if endpoint or os.environ.get(ENDPOINT_VARIABLE, "").strip() else "speech"


def _is_of_openai(endpoint: str) -> bool:
    try:
        parts = urlsplit(endpoint)
    except ValueError:
        return False
    return (parts.hostname or "").endswith(_OPENAI_HOST) or parts.path.startswith("/openai")


class AzureProvider(BaseProvider):
    """A session with one of Azure's services. The options are described in the package's README."""

    capabilities: ClassVar[Capabilities] = VoiceLiveProvider.capabilities
    services: ClassVar[Mapping[str, Capabilities]] = {
        name: service.capabilities for name, service in _SERVICES.items()
    }
    options: ClassVar[frozenset[str] | None] = (
        (VoiceLiveProvider.options or frozenset())
        | (AzureOpenAIProvider.options or frozenset())
        | {"voice", "language", "vocabulary"}
    )
    conformance_peers: ClassVar[Mapping[str, Mapping[str, Any]]] = AzureDialogue.conformance_peers
    """Options with which a session meets a bad peer; for `voxengine check`."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.service = _service(config)
        """The service that is used."""
        found = _SERVICES.get(self.service)
        self._inner: BaseProvider | None = None if found is None else found(config)

    @classmethod
    def capabilities_for(cls, config: Mapping[str, Any]) -> Capabilities:
        """Return what the service of a configuration can do."""
        service = _SERVICES.get(_service(config))
        return cls.capabilities if service is None else service.capabilities_for(config)

    # -- the contract ---------------------------------------------------------------------------

    async def connect(self) -> None:
        inner = self._chosen()
        inner.attach(self, self.wire_observer)
        await inner.connect()
        self.connection, self.session_id = inner.connection, inner.session_id
        if isinstance(inner, SpeechProvider):
            self._warn_of_speech()

    def _warn_of_speech(self) -> None:
        metadata = self.config.get("metadata") or {}
        for name in _NOT_OF_SPEECH:
            # The neutral default of a configuration is nobody's wish.
            value = self.config.get(name, metadata.get(name))
            if value is not None and value != "auto":
                message = f"azure speech has no {name}; the setting is without effect."
                self.warn("option_unsupported", message)

    async def disconnect(self) -> None:
        if self._inner is not None:
            await self._inner.disconnect()

    async def send_audio(self, audio_data: bytes) -> None:
        await self._chosen().send_audio(audio_data)

    def try_send_audio(self, audio_data: bytes) -> bool:
        return self._inner is not None and self._inner.try_send_audio(audio_data)

    async def send_text(self, text: str) -> str | None:
        """Take a user turn in a service with a dialogue; speak the text in the Speech service."""
        return await self._chosen().send_text(text)

    async def interrupt(self, heard: Heard | None = None) -> None:
        await self._chosen().interrupt(heard)

    def try_interrupt(self, heard: Heard | None) -> bool:
        return self._inner is not None and self._inner.try_interrupt(heard)

    async def configure_session(self, config: dict[str, Any]) -> None:
        await self._chosen().configure_session(config)

    async def end_turn(self, respond: bool = True) -> None:
        await self._chosen().end_turn(respond)

    async def discard_input(self) -> None:
        await self._chosen().discard_input()

    async def send_tool_result(self, call_id: str, output: str, is_error: bool = False) -> None:
        await self._chosen().send_tool_result(call_id, output, is_error)

    async def load_history(self, items: Sequence[Item]) -> None:
        await self._chosen().load_history(items)

    async def send_item(self, item: Item) -> None:
        await self._chosen().send_item(item)

    async def try_delete_item(self, item: Item, vendor_ids: Sequence[str]) -> bool:
        return await self._chosen().try_delete_item(item, vendor_ids)

    async def try_replace_item(self, item: Item, vendor_ids: Sequence[str]) -> bool:
        return await self._chosen().try_replace_item(item, vendor_ids)

    async def speak(self, text: str, is_last: bool = True) -> None:
        await self._chosen().speak(text, is_last)

    async def resume(self, handle: str) -> None:
        await self._chosen().resume(handle)

    async def get_usage(self) -> dict[str, Any] | None:
        return await self._chosen().get_usage()

    async def estimate_cost(self) -> float | None:
        return await self._chosen().estimate_cost()

    # -- beyond the contract ------------------------------------------------------------------------

    async def send_event(self, event: Mapping[str, Any]) -> str:
        """Send an event of a dialogue service's protocol (GA names), for what has no method; return its id.

        With Voice Live, ``session.avatar.connect`` and the events of client-delimited turns go this way.

        Raises:
            CapabilityMissing: The service is no dialogue.
            ConfigError: The event has no ``type``.
        """
        inner = self._chosen()
        if not isinstance(inner, AzureDialogue):
            raise CapabilityMissing(
                "azure speech has no events of a dialogue. metadata['service'] chooses another service.",
                capability="dialogue",
                provider="azure",
            )
        return await inner.send_event(event)

    # -- what the service says (see ``voxengine.providers.base.ProviderSink``) ----------------------

    def provider_event(self, event_type: EventType, data: Mapping[str, Any]) -> None:
        """Pass an event of the service on as our own."""
        self.emit_event(event_type, data)

    def provider_lost(self) -> None:
        """Pass on that the service lost its connection without an event."""
        self.is_connected = False

    def _chosen(self) -> BaseProvider:
        if self._inner is None:
            raise ConfigError(f"metadata['service'] is {self.service!r}; azure has {', '.join(_SERVICES)}.")
        return self._inner
