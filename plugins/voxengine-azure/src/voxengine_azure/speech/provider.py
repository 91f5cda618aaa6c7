"""The Speech service behind the contract: it hears and it speaks, and it does not converse."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from voxengine.capabilities import FULL, UNSUPPORTED, Capabilities, Capability, Support, partial
from voxengine.config import Deadlines, Reconnect
from voxengine.errors import AuthenticationFailed, NotConnected, ProviderError
from voxengine.events import EventType
from voxengine.history import Heard
from voxengine.providers.base import BaseProvider
from voxengine.transport import Transport
from voxengine_azure.speech import outcomes
from voxengine_azure.speech.access import Access
from voxengine_azure.speech.host import new_hex_id
from voxengine_azure.speech.recognition import Recognition
from voxengine_azure.speech.settings import INPUT_FORMATS, OUTPUT_FORMATS, SpeechSettings
from voxengine_azure.speech.synthesis import Synthesis
from voxengine_azure.tokens import refused_token

__all__ = ["SPEECH_CAPABILITIES", "SpeechProvider"]

_NO_DIALOGUE: Final = (
    "the Speech service recognises and speaks; for a dialogue set metadata['endpoint'] of a resource with Voice Live, "
    "or the variable AZURE_VOICELIVE_ENDPOINT"
)
_NOT_ASKED_FOR: Final = (
    "metadata['service'] is 'speech', which recognises and speaks; for a dialogue make it 'voice-live' or 'openai', "
    "with metadata['endpoint'] of that resource"
)
_NO_PRICE: Final = "the price depends on tier and region, and the service does not say it"

SPEECH_CAPABILITIES: Final = Capabilities(
    streaming=FULL,
    dialogue=Capability(Support.UNSUPPORTED, _NO_DIALOGUE),
    recognition=FULL,
    synthesis=FULL,
    text_turn=partial("the text is spoken: nobody answers it"),
    speak=FULL,
    server_turn_detection=FULL,
    semantic_turn_detection=partial("phrases are cut by meaning; eagerness is not taken"),
    client_turn_detection=partial("a pause of five seconds ends a phrase all the same"),
    discard_input=FULL,
    session_tools=UNSUPPORTED,
    live_configuration=FULL,
    cancel=FULL,
    heard_text=FULL,
    resume=UNSUPPORTED,
    items=UNSUPPORTED,
    context_text=UNSUPPORTED,
    context_audio=UNSUPPORTED,
    context_tools=UNSUPPORTED,
    replay=FULL,
    response_boundaries=FULL,
    multiple_voices=FULL,
    vocabulary_at_connect=FULL,
    vocabulary_live=FULL,
    word_timings=FULL,
    emotion=Capability(Support.UNSUPPORTED, "styles of speaking are options; what is heard gets no label"),
    usage=FULL,
    cost=Capability(Support.UNSUPPORTED, _NO_PRICE),
    input_formats=INPUT_FORMATS,
    output_formats=OUTPUT_FORMATS,
    preferred_chunk_ms=100,
    replay_speed=2.0,
    endpointing_silence_ms=700,
)
"""What the service can do. Its voices are hundreds and differ by region, so none is listed."""


class SpeechProvider(BaseProvider):
    """A session with the Speech service: one connection for recognition and one for synthesis."""

    capabilities: ClassVar[Capabilities] = SPEECH_CAPABILITIES

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self._settings = SpeechSettings()
        self._access: Access | None = None
        self._recognition: Recognition | None = None
        self._synthesis: Synthesis | None = None
        self._is_lost = False

    @classmethod
    def capabilities_for(cls, config: Mapping[str, Any]) -> Capabilities:
        if (config.get("metadata") or {}).get("service") != "speech":
            return cls.capabilities
        return cls.capabilities.evolve(dialogue=Capability(Support.UNSUPPORTED, _NOT_ASKED_FOR))

    # -- life -----------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Open both connections. Raises ConfigError for an option that the service cannot take."""
        from voxengine import __version__

        self._settings = SpeechSettings.of(self.config)
        access = self._access = Access.of(self.config)
        deadlines = self.config.get("deadlines") or Deadlines()
        recognition = self._recognition = Recognition(
            self, access.recognition_url, self._settings, version=__version__, end_s=deadlines.progress_s
        )
        synthesis = self._synthesis = Synthesis(
            self,
            access.synthesis_url,
            self._settings,
            version=__version__,
            first_s=deadlines.first_output_s,
            progress_s=deadlines.progress_s,
        )
        try:
            async with asyncio.TaskGroup() as dialling:
                dialling.create_task(recognition.open())
                dialling.create_task(synthesis.open())
        except BaseExceptionGroup as failures:
            await self._close()
            raise failures.exceptions[0] from None
        except BaseException:
            await self._close()
            raise
        self.connection = recognition.connection
        self.session_id = self.session_id or new_hex_id()
        recognition.start()
        synthesis.start()
        self.emit_event(
            EventType.CONNECTION_ESTABLISHED,
            {"session_id": self.session_id, "service": "speech", "region": access.region or None},
        )
        self.emit_event(EventType.SESSION_UPDATED, {"settings": self._settings.described()})
        self._tell_what_is_without_effect(access)

    async def disconnect(self) -> None:
        await self._close()

    async def _close(self) -> None:
        halves = [half for half in (self._recognition, self._synthesis) if half is not None]
        await asyncio.gather(*(half.close() for half in halves))

    def _tell_what_is_without_effect(self, access: Access) -> None:
        if access.replaced_path:
            self.warn(
                "endpoint_path_replaced",
                f"metadata['endpoint'] names the path {access.replaced_path!r}, which the Speech service does not "
                "have; its own paths are used.",
            )
        turns = self._settings.detection
        for name in ("threshold", "prefix_padding_ms", "eagerness", "idle_timeout_ms"):
            if getattr(turns, name, None) is not None:
                self.warn(
                    "option_unsupported", f"azure speech has no turn_detection.{name}; it is without effect."
                )

    # -- the contract ---------------------------------------------------------------------------

    async def send_audio(self, audio_data: bytes) -> None:
        await self._hearing().send_audio(audio_data)

    def try_send_audio(self, audio_data: bytes) -> bool:
        return self._recognition is not None and self._recognition.try_send(audio_data)

    async def send_text(self, text: str) -> None:
        """Speak the text: nobody here could answer it."""
        self._speaking().speak(text, is_last=True, trigger="text")

    async def speak(self, text: str, is_last: bool = True) -> None:
        self._speaking().speak(text, is_last=is_last, trigger="say")

    async def interrupt(self, heard: Heard | None = None) -> None:
        self._speaking().interrupt(heard)

    async def end_turn(self, respond: bool = True) -> None:
        """Make the words so far final; there is nobody to respond."""
        await self._hearing().end_turn()

    async def discard_input(self) -> None:
        await self._hearing().discard()

    async def configure_session(self, config: Mapping[str, Any]) -> None:
        """Change voice, delivery, language, vocabulary or turn detection. Raises ConfigError."""
        hearing, speaking = self._hearing(), self._speaking()
        fixed = {"input_format", "output_format"} & set(config)
        settings = self._settings.merged({name: config[name] for name in config if name not in fixed})
        before, self._settings = self._settings, settings
        speaking.settings = settings
        await hearing.configure(settings)
        if settings != before:
            self.emit_event(EventType.SESSION_UPDATED, {"settings": settings.described()})

    async def get_usage(self) -> dict[str, Any] | None:
        return self._usage()

    # -- for the two halves (see ``host.Host``) ---------------------------------------------------

    async def dial(self, url: str) -> Transport:
        """Open a connection; with a token that was refused, once more with a new one."""
        from voxengine.transport import connect_websocket

        access = self._access
        assert access is not None
        deadlines = self.config.get("deadlines") or Deadlines()
        keepalive = self.config.get("reconnect") or Reconnect()
        for is_renewal in (False, True):
            connection_id = new_hex_id()
            headers = await access.headers(is_renewal=is_renewal)
            try:
                connection = await connect_websocket(
                    url,
                    provider="azure",
                    headers={**headers, "X-ConnectionId": connection_id},
                    handshake_s=deadlines.handshake_s,
                    ping_interval_s=keepalive.ping_interval_s,
                    ping_timeout_s=keepalive.ping_timeout_s,
                    on_wire=self.wire_observer,
                )
            except AuthenticationFailed as error:
                if not access.has_token:
                    raise
                if is_renewal or not access.can_renew:
                    raise refused_token(error, "azure speech", is_provided=access.can_renew) from None
            else:
                self.session_id = self.session_id or connection_id
                return connection
        raise AssertionError("the second attempt returned or raised")

    def lost(self, error: ProviderError) -> None:
        """Report the loss, once."""
        if not self._is_lost:
            self._is_lost = True
            told = {"error": outcomes.of_loss(error), "will_reconnect": False}
            self.emit_event(EventType.CONNECTION_LOST, told)

    def tell_usage(self) -> None:
        """Emit what was used so far."""
        self.emit_event(EventType.USAGE_UPDATED, {"usage": self._usage(), "cost": None})

    # -- inside ---------------------------------------------------------------------------------

    def _usage(self) -> dict[str, Any] | None:
        if self._recognition is None or self._synthesis is None:
            return None
        return {
            "input_audio_s": round(self._recognition.audio_s, 3),
            "output_audio_s": round(self._synthesis.audio_s, 3),
            "characters": self._synthesis.n_characters,
        }

    def _hearing(self) -> Recognition:
        self._check_open()
        assert self._recognition is not None
        return self._recognition

    def _speaking(self) -> Synthesis:
        self._check_open()
        assert self._synthesis is not None
        return self._synthesis

    def _check_open(self) -> None:
        if self._recognition is None or self._synthesis is None or not self.is_connected:
            raise NotConnected("azure speech has no open session. Call connect() first.")
