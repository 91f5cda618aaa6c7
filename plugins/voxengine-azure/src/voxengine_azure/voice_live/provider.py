"""Voice Live behind the contract: OpenAI's provider with another dialect, other options and more events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import attrs

from voxengine.audio.format import AudioFormat, Encoding
from voxengine.capabilities import FULL, UNKNOWN, UNSUPPORTED, Capabilities, partial
from voxengine.config import TurnDetection
from voxengine.errors import CapabilityMissing
from voxengine.history import Item
from voxengine_azure.dialogue import AzureDialogue
from voxengine_azure.dialogue_access import Access, voice_live_access
from voxengine_azure.voice_live.dialect import VOICE_LIVE
from voxengine_azure.voice_live.options import CONNECTION_KEYS, VENDOR, check_language
from voxengine_azure.voice_live.plan import plan_voice_live, shown_settings
from voxengine_azure.voice_live.translate import VoiceLiveTranslator
from voxengine_azure.voices import is_azure_voice
from voxengine_openai import options as openai_options
from voxengine_openai.asides import Aside
from voxengine_openai.codec import Dialect
from voxengine_openai.models import history_chars
from voxengine_openai.provider import OpenAIProvider
from voxengine_openai.requests import Request
from voxengine_openai.session_settings import WHOLE, SessionPlan, Traits
from voxengine_openai.translate import Translator

__all__ = ["DEFAULT_MODEL", "VOICE_LIVE_CAPABILITIES", "VoiceLiveProvider"]

DEFAULT_MODEL: Final = "gpt-realtime"
"""The model that a session has when none is named."""

_PCM: Final = (AudioFormat(24_000), AudioFormat(16_000), AudioFormat(8_000))
_FORMATS: Final = (
    *_PCM,
    AudioFormat(8_000, 1, Encoding.G711_ULAW),
    AudioFormat(8_000, 1, Encoding.G711_ALAW),
)
_NO_TIMES: Final = (
    "only with a voice of Azure's speech synthesis; those of OpenAI and of native models have none"
)
_SILENCE_MS: Final = 500
_END_OF_UTTERANCE_MS: Final = 1000
"""What the service usually waits for the end of an utterance."""

VOICE_LIVE_CAPABILITIES: Final = OpenAIProvider.capabilities.evolve(
    speak=FULL,
    semantic_turn_detection=partial("eagerness is not taken; metadata['end_of_utterance'] goes beyond it"),
    heard_text=partial("from word times with a voice of Azure's, else estimated from the played proportion"),
    word_timings=partial(_NO_TIMES),
    vocabulary_at_connect=FULL,
    vocabulary_live=FULL,
    emotion=UNSUPPORTED,
    cost=UNKNOWN,
    voices=(),
    input_formats=_FORMATS,
    output_formats=_FORMATS,
    cost_per_minute_usd=None,
)
"""What the service can do. Its voices are hundreds and differ by region, so none is listed."""


class VoiceLiveProvider(AzureDialogue):
    """A session of Voice Live."""

    service: ClassVar[str] = "voice-live"
    capabilities: ClassVar[Capabilities] = VOICE_LIVE_CAPABILITIES
    options: ClassVar[frozenset[str] | None] = (OpenAIProvider.options or frozenset()) | {"temperature"}
    traits: ClassVar[Traits] = Traits(
        name="azure voice-live",
        maps_voices=False,
        has_temperature=True,
        has_prices=False,
        input_formats=_FORMATS,
        output_formats=_FORMATS,
        whole=WHOLE
        | {
            "transcription",
            "noise_reduction",
            "input_audio_echo_cancellation",
            "animation",
            "avatar",
            "interim_response",
        },
    )
    translator_class: ClassVar[type[Translator]] = VoiceLiveTranslator

    @classmethod
    def capabilities_for(cls, config: Mapping[str, Any]) -> Capabilities:
        metadata = config.get("metadata") or {}
        voice = config.get("voice") or metadata.get("voice")
        has_times = voice is None or is_azure_voice(voice) or metadata.get("custom_voice") is not None
        turns = config.get("turn_detection")
        kind = turns.kind if isinstance(turns, TurnDetection) else turns
        is_patient = kind == "semantic" or metadata.get("end_of_utterance")
        model = config.get("model") or metadata.get("model") or DEFAULT_MODEL
        is_silent = config.get("mode", "big") != "big" and not metadata.get("timestamps")
        return VOICE_LIVE_CAPABILITIES.evolve(
            word_timings=VOICE_LIVE_CAPABILITIES.word_timings if has_times and not is_silent else UNSUPPORTED,
            endpointing_silence_ms=_END_OF_UTTERANCE_MS if is_patient else _SILENCE_MS,
            max_history_chars=history_chars(str(model)),
        )

    # -- what the base asks -------------------------------------------------------------------------

    def _dialect(self) -> Dialect:
        return VOICE_LIVE

    def _choose_model(self, asked: Mapping[str, Any]) -> tuple[str, str]:
        return str(asked.get("model") or DEFAULT_MODEL), ""

    def _find(self, model: str) -> Access:
        return voice_live_access(self.config, model)

    def _read_options(self, config: Mapping[str, Any]) -> dict[str, Any]:
        asked = openai_options.asked_options(config, VENDOR)
        check_language(asked.get("language"))
        return asked

    def _plan_session(self, asked: Mapping[str, Any], own: Mapping[str, Any] | None) -> SessionPlan:
        return plan_voice_live(asked, own, self._traits, self._model)

    def _unknown_keys(self, metadata: Mapping[str, Any]) -> list[str]:
        return openai_options.unknown_keys(metadata, CONNECTION_KEYS, VENDOR)

    def _shown_settings(self, session: Mapping[str, Any]) -> dict[str, Any]:
        return super()._shown_settings(session) | shown_settings(session)

    def _say_params(self, text: str) -> dict[str, Any]:
        message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
        return {"pre_generated_assistant_message": message}

    def _endpointing_ms(self) -> int:
        assert self._plan is not None
        detection = self._plan.session["audio"]["input"].get("turn_detection") or {}
        ending = detection.get("end_of_utterance_detection") or {}
        if not ending and detection.get("type", "server_vad") == "server_vad":
            return super()._endpointing_ms()
        # Where the words count too, a pause that is long enough may not be the end.
        return max(super()._endpointing_ms(), ending.get("timeout_ms") or _END_OF_UTTERANCE_MS)

    def _request(self, request: Request) -> str:
        # By default the service cancels an answer that is under way. One that its own turn detection began while
        # this request travelled is to be heard all the same: then ours is refused, and waits for that one's end.
        params = {"cancel_previous": False, **(request.params or {})}
        return super()._request(attrs.evolve(request, params=params))

    # -- beyond the contract ------------------------------------------------------------------------

    async def ask_aside(
        self,
        instructions: str | None = None,
        *,
        items: Sequence[Item] | None = None,
        modalities: str = "text",
        limit_s: float = 60.0,
        **params: Any,
    ) -> Aside:
        """Raise CapabilityMissing: every answer of this service belongs to the conversation."""
        raise CapabilityMissing(
            "azure voice-live gives no answers outside of the conversation. The service 'openai' does.",
            capability="asides",
            provider="azure",
        )
