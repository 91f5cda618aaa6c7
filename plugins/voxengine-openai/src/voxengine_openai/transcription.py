"""The provider as a recogniser: a session that writes down what the user says and answers nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, NoReturn

from voxengine.errors import CapabilityMissing, ConfigError
from voxengine.events import EventType
from voxengine.history import Item
from voxengine_openai.asides import Aside
from voxengine_openai.endpoint import Endpoint, openai_endpoint
from voxengine_openai.models import DEFAULT_TRANSCRIPTION_MODEL, realtime_model
from voxengine_openai.provider import OpenAIProvider
from voxengine_openai.session_settings import SessionPlan, plan_transcription
from voxengine_openai.translate import Handlers, Translator

__all__ = ["TranscriptionProvider"]

_DIALOGUE: Final = "dialogue"


class _Writer(Translator):
    """Words that nobody else waits for: each turn ends with its final text, be it what was understood so far."""

    def _gave_up(self, fields: Mapping[str, Any]) -> None:
        item_id = fields.get("item_id")
        text = self._user_texts.get(str(item_id), "")
        self._user_failed(fields)
        data = {"text": text, "delta": "", "is_partial": False, "item_id": item_id}
        self._emit(EventType.INPUT_TRANSCRIPT, data)

    handlers: ClassVar[Handlers] = {
        **Translator.handlers,
        "conversation.item.input_audio_transcription.failed": _gave_up,
    }


class TranscriptionProvider(OpenAIProvider):
    """A transcription session (``metadata["service"] = "transcription"``): audio in, INPUT_TRANSCRIPT out.

    ``OpenAIProvider(config)`` makes one by itself. ``model`` names the model that transcribes.
    """

    translator_class: ClassVar[type[Translator]] = _Writer

    # -- what differs from a conversation -----------------------------------------------------------

    def _choose_model(self, asked: Mapping[str, Any]) -> tuple[str, str]:
        details = asked.get("transcription")
        given = {
            str(name)
            for name in (
                asked.get("model"),
                asked.get("transcription_model"),
                details.get("model") if isinstance(details, Mapping) else None,
            )
            if name
        }
        if len(given) > 1:
            raise ConfigError(
                f"A transcription session has one model, and the configuration names {' and '.join(sorted(given))}. "
                "Keep one of them."
            )
        if not given:
            return DEFAULT_TRANSCRIPTION_MODEL, ""
        (model,) = given
        if not realtime_model(model)[1]:
            return model, ""
        return DEFAULT_TRANSCRIPTION_MODEL, (
            f"The model {model!r} hears nothing and cannot transcribe; {DEFAULT_TRANSCRIPTION_MODEL!r} is used in its "
            "place. Set model to a transcription model to choose another."
        )

    def _endpoint(self, model: str, *, is_default_model: bool) -> Endpoint:
        return openai_endpoint(self.config, "", is_default_model=False, intent="transcription")

    def _plan_session(self, asked: Mapping[str, Any], own: Mapping[str, Any] | None) -> SessionPlan:
        return plan_transcription(asked, own, self._traits, self._model)

    def _begin(
        self, asked: dict[str, Any], own: Mapping[str, Any], plan: SessionPlan, endpoint: Endpoint
    ) -> None:
        super()._begin(asked, own, plan, endpoint)
        assert self._state is not None
        self._state.is_dialogue = False
        self._state.meter.add_transcription({}, self._state.transcription_model)  # It costs nothing yet.

    # -- the contract -------------------------------------------------------------------------------

    async def end_turn(self, respond: bool = True) -> None:
        if self._is_manual:
            await super().end_turn(respond=False)
        else:
            await self._wait_out_the_vendor(respond=True)

    async def send_text(self, text: str) -> NoReturn:
        self._refuse("text_turn", "takes no text")

    async def speak(self, text: str, is_last: bool = True) -> None:
        self._refuse("speak", "speaks nothing")

    async def send_tool_result(self, call_id: str, output: str, is_error: bool = False) -> None:
        self._refuse("session_tools", "calls no tools")

    async def load_history(self, items: Sequence[Item]) -> None:
        self._refuse("context_text", "has no conversation")

    async def send_item(self, item: Item) -> None:
        self._refuse("items", "has no conversation")

    async def ask_aside(self, *args: Any, **kwargs: Any) -> Aside:
        self._refuse(_DIALOGUE, "gives no answers")

    def _refuse(self, capability: str, why: str) -> NoReturn:
        raise CapabilityMissing(
            f"{self.name}: a transcription session {why}. Nothing was sent; leave metadata['service'] out for a dialogue.",
            capability=capability,
            provider=self.name,
        )
