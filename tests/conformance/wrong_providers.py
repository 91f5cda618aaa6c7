"""Providers with one fault each: for every law one that breaks it, and as few others as can be."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from voxengine.capabilities import FULL, UNKNOWN, UNSUPPORTED, partial
from voxengine.config import ProviderConfig
from voxengine.errors import (
    AudioFormatError,
    AuthenticationFailed,
    ConfigError,
    ErrorCode,
    NotConnected,
    ProviderError,
)
from voxengine.events import EventType
from voxengine.history import Heard, Item
from voxengine.providers.base import BaseProvider
from voxengine.testing import FakeProvider, Subject


@attrs.frozen
class Wrong:
    """A provider, the law that it breaks and the others that cannot but fail with it."""

    cls: type[BaseProvider]
    law: str
    also: frozenset[str]
    is_unjudged: bool = False
    """Whether it promises what cannot be judged: then its law is skipped, and that lowers the grade."""


WRONG: list[Wrong] = []


def breaks(law: str, *, also: Sequence[str] = ()) -> Callable[[type[BaseProvider]], type[BaseProvider]]:
    def note(cls: type[BaseProvider]) -> type[BaseProvider]:
        WRONG.append(Wrong(cls, law, frozenset(also)))
        return cls

    return note


def promises(law: str) -> Callable[[type[BaseProvider]], type[BaseProvider]]:
    """Note a provider that says what nobody can see it keep."""

    def note(cls: type[BaseProvider]) -> type[BaseProvider]:
        WRONG.append(Wrong(cls, law, frozenset(), is_unjudged=True))
        return cls

    return note


class Gifted(FakeProvider):
    """Right, with everything that the fake cannot do."""

    capabilities = FakeProvider.capabilities.evolve(
        semantic_turn_detection=FULL,
        heard_text=FULL,
        context_audio=FULL,
        vocabulary_live=FULL,
        emotion=FULL,
    )

    async def connect(self) -> None:
        await super().connect()
        turns = self.config.get("turn_detection")
        self.emit_event(
            EventType.SESSION_UPDATED, {"settings": {"turn_detection": getattr(turns, "kind", None)}}
        )

    async def configure_session(self, config: Mapping[str, Any]) -> None:
        await super().configure_session(config)
        if "vocabulary" in config:
            in_force = {"vocabulary": list(config["vocabulary"])}
            self.emit_event(EventType.SESSION_UPDATED, {"settings": in_force})

    async def load_history(self, items: Sequence[Item]) -> None:
        await super().load_history(items)
        for item in items:
            if item.audio:
                data = {"text": self.heard_words, "is_partial": False, "item_id": item.id}
                self.emit_event(EventType.INPUT_TRANSCRIPT, data)

    def _end_turn(self, respond: bool) -> None:
        self.emit_event(EventType.EMOTION, {"label": "calm"})
        super()._end_turn(respond)


def subject_of(cls: type[BaseProvider], **config: Any) -> Subject:
    """A provider in the style of the fake as a subject, whose class simulates bad peers."""

    def make(**changes: Any) -> BaseProvider:
        return cls(ProviderConfig({**config, **changes}))

    return Subject(name=cls.__name__, make=make, is_in_memory=True)


# -- the class --------------------------------------------------------------------------------------


@breaks(
    "class_fulfils_the_contract",
    also=(
        "engine_sees_one_response_for_a_turn",
        "refused_credentials_are_named",
        "unreachable_service_is_named",
        "lost_session_ends_exactly_once",
    ),
)
class OfTomorrow(FakeProvider):
    provider_api = 2


@breaks("declared_hooks_are_implemented")
class Boasting(FakeProvider):
    capabilities = FakeProvider.capabilities.evolve(resume=partial("for an hour"))
    resume = BaseProvider.resume


@breaks("declared_values_make_sense")
class Contradictory(FakeProvider):
    capabilities = FakeProvider.capabilities.evolve(min_chunk_ms=40, preferred_chunk_ms=20)


@breaks("declared_options_are_accepted")
class Voiceless(FakeProvider):
    async def connect(self) -> None:
        if "voice" in self.config:
            raise ProviderError("No such voice.", code=ErrorCode.INVALID_REQUEST)
        await super().connect()


@breaks("missing_capability_is_named")
class Shrugging(FakeProvider):
    capabilities = FakeProvider.capabilities.evolve(discard_input=UNSUPPORTED)


# -- life -------------------------------------------------------------------------------------------


@breaks("new_instance_is_not_connected")
class Hasty(FakeProvider):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.eager = asyncio.get_running_loop().create_task(asyncio.sleep(0))


@breaks("connect_makes_it_connected")
class NeverConnected(FakeProvider):
    @property
    def is_connected(self) -> bool:
        return False

    @is_connected.setter
    def is_connected(self, value: bool) -> None:
        pass


@breaks("established_comes_first_and_once")
class TwiceEstablished(FakeProvider):
    async def connect(self) -> None:
        await super().connect()
        self.emit_event(EventType.CONNECTION_ESTABLISHED, {"session_id": self.session_id})


@breaks("disconnect_makes_it_unconnected")
class Clinging(FakeProvider):
    n_disconnects = 0

    @property
    def is_connected(self) -> bool:
        return self._connected or (self.n_disconnects == 1 and self._fault is None)

    @is_connected.setter
    def is_connected(self, value: bool) -> None:
        self._connected = value

    async def disconnect(self) -> None:
        self.n_disconnects += 1
        await super().disconnect()


@breaks("disconnect_is_idempotent")
class OnceOnly(FakeProvider):
    is_gone = False

    async def disconnect(self) -> None:
        if self.is_gone:
            raise NotConnected("It is closed already.")
        self.is_gone = True
        await super().disconnect()


@breaks("disconnect_before_connect_is_harmless")
class Presuming(FakeProvider):
    async def disconnect(self) -> None:
        if self.session_id is None:
            raise AttributeError("'NoneType' object has no attribute 'close'")
        await super().disconnect()


@breaks("session_can_be_closed_in_mid_answer")
class Unstoppable(FakeProvider):
    async def disconnect(self) -> None:
        was_speaking = self._current is not None
        await super().disconnect()
        if was_speaking:
            raise ProviderError("Not while it speaks.")


@breaks("no_event_after_disconnect")
class LastWord(FakeProvider):
    async def disconnect(self) -> None:
        if self._is_open:
            late = (EventType.VENDOR_EVENT, {"name": "bye"})
            asyncio.get_running_loop().call_later(0.1, self.emit_event, *late)
        await super().disconnect()


@breaks("own_disconnect_is_no_loss")
class Alarmed(FakeProvider):
    async def disconnect(self) -> None:
        if self._is_open and self._fault is None:
            self.emit_event(EventType.CONNECTION_LOST, {"error": self._dropped()})
        await super().disconnect()


@breaks("sessions_are_independent")
class Gossiping(FakeProvider):
    alive: list[FakeProvider] = []  # noqa: RUF012 - shared on purpose

    async def connect(self) -> None:
        await super().connect()
        self.alive.append(self)

    async def disconnect(self) -> None:
        if self in self.alive:
            self.alive.remove(self)
        await super().disconnect()

    async def send_text(self, text: str) -> None:
        await super().send_text(text)
        for other in self.alive:
            if other is not self:
                other.emit_event(EventType.TEXT_OUTPUT, {"text": "psst", "is_partial": False})


# -- responses --------------------------------------------------------------------------------------


@breaks("turn_is_answered", also=("engine_sees_one_response_for_a_turn", "answer_is_spoken"))
class Wordless(FakeProvider):
    capabilities = FakeProvider.capabilities.evolve(word_timings=UNKNOWN)

    def _word(self, answer: Any, words: Sequence[str], n: int) -> None:
        if answer.trigger != "text" or len(words) > 100:
            super()._word(answer, words, n)

    def _finished(self, answer: Any) -> None:
        if answer.trigger == "text":
            answer.text = ""
        super()._finished(answer)

    def emit_event(self, event: Any, data: Mapping[str, Any] | None = None) -> None:
        if event != EventType.TEXT_OUTPUT or (data or {}).get("text"):
            super().emit_event(event, data)


@breaks("answer_is_spoken")
class Silent(FakeProvider):
    def _sound(self, ids: Mapping[str, str]) -> None:
        pass


@breaks("event_fields_have_their_types")
class Mistyped(FakeProvider):
    def _completed(self, answer: Any) -> None:
        data = {"response_id": answer.id, "status": "completed", "usage": "seven tokens"}
        self.emit_event(EventType.RESPONSE_COMPLETED, data)


@breaks("output_audio_is_whole_frames")
class EmptyHanded(FakeProvider):
    def _sound(self, ids: Mapping[str, str]) -> None:
        data = {"audio_data": b"", "sample_rate": 24_000, "channels": 1}
        self.emit_event(EventType.AUDIO_OUTPUT_CHUNK, {**data, **ids})


@breaks("response_starts_before_its_output", also=("engine_sees_one_response_for_a_turn",))
class Premature(FakeProvider):
    def _started(self, answer: Any) -> None:
        ids = {"response_id": answer.id, "item_id": answer.item_id}
        self.emit_event(EventType.AUDIO_OUTPUT_STARTED, ids)
        super()._sound(ids)
        super()._started(answer)


@breaks("response_ends_exactly_once")
class Echoing(FakeProvider):
    def _completed(self, answer: Any) -> None:
        super()._completed(answer)
        super()._completed(answer)


@breaks("no_output_after_the_end")
class Trailing(FakeProvider):
    def _completed(self, answer: Any) -> None:
        super()._completed(answer)
        self._sound({"response_id": answer.id, "item_id": answer.item_id})


@breaks("output_names_its_response")
class Anonymous(FakeProvider):
    def _sound(self, ids: Mapping[str, str]) -> None:
        super()._sound({"item_id": ids["item_id"]})


@breaks("response_starts_before_its_output", also=("response_ends_exactly_once", "output_names_its_response"))
class UnannouncedAfterSpeech(FakeProvider):
    def _started(self, answer: Any) -> None:
        if answer.trigger != "audio":
            super()._started(answer)


@breaks("response_ends_exactly_once")
class EndlessAfterTool(FakeProvider):
    def _completed(self, answer: Any) -> None:
        if answer.trigger != "tool":
            super()._completed(answer)


@breaks("response_ends_exactly_once")
class EchoingAfterSpeech(FakeProvider):
    def _completed(self, answer: Any) -> None:
        super()._completed(answer)
        if answer.trigger == "audio":
            super()._completed(answer)


@breaks("no_output_after_the_end")
class TrailingAfterSay(FakeProvider):
    def _completed(self, answer: Any) -> None:
        super()._completed(answer)
        if answer.trigger == "say":
            self._sound({"response_id": answer.id, "item_id": answer.item_id})


@breaks("output_names_its_response")
class AnonymousAfterTool(FakeProvider):
    def _sound(self, ids: Mapping[str, str]) -> None:
        is_tool = self._current is not None and self._current.trigger == "tool"
        super()._sound({"item_id": ids["item_id"]} if is_tool else ids)


@breaks("responses_have_ids_of_their_own")
class Monotonous(FakeProvider):
    def _answer(self, trigger: str, text: str, *calls: str) -> Any:
        if trigger == "text" and not calls:
            self._n_answers = 0
        return super()._answer(trigger, text, *calls)


@breaks("text_deltas_add_up")
class Piecemeal(FakeProvider):
    def emit_event(self, event: Any, data: Mapping[str, Any] | None = None) -> None:
        if event == EventType.TEXT_OUTPUT and data is not None and data["is_partial"]:
            data = {**data, "text": data["delta"]}
        super().emit_event(event, data)


@breaks("text_deltas_add_up")
class NewestWordOnly(FakeProvider):
    def emit_event(self, event: Any, data: Mapping[str, Any] | None = None) -> None:
        if event == EventType.TEXT_OUTPUT and data is not None and data["is_partial"]:
            data = {**data, "text": data["delta"]}
            del data["delta"]
        super().emit_event(event, data)


@breaks("text_of_an_answer_ends_with_a_final_one")
class Unfinished(FakeProvider):
    def emit_event(self, event: Any, data: Mapping[str, Any] | None = None) -> None:
        if event != EventType.TEXT_OUTPUT or (data or {}).get("is_partial"):
            super().emit_event(event, data)


@breaks("text_of_an_answer_ends_with_a_final_one")
class Rambling(FakeProvider):
    def emit_event(self, event: Any, data: Mapping[str, Any] | None = None) -> None:
        super().emit_event(event, data)
        if event == EventType.TEXT_OUTPUT and data is not None and not data["is_partial"]:
            super().emit_event(event, data)


@breaks("word_timings_come_with_the_answer")
class Timeless(FakeProvider):
    def emit_event(self, event: Any, data: Mapping[str, Any] | None = None) -> None:
        if event != EventType.SPEECH_MARK:
            super().emit_event(event, data)


@breaks("engine_sees_one_response_for_a_turn")
class Halting(FakeProvider):
    """Says nothing of boundaries and pauses for so long that its answer falls apart."""

    capabilities = FakeProvider.capabilities.evolve(response_boundaries=UNKNOWN)
    word_s = 0.55

    def emit_event(self, event: Any, data: Mapping[str, Any] | None = None) -> None:
        if event not in (
            EventType.RESPONSE_STARTED,
            EventType.RESPONSE_COMPLETED,
            EventType.RESPONSE_CANCELLED,
        ):
            super().emit_event(event, data)


# -- audio ------------------------------------------------------------------------------------------


@breaks("audio_is_taken_in_every_declared_format")
class OneRate(FakeProvider):
    async def send_audio(self, audio_data: bytes) -> None:
        if self._format.sample_rate != 24_000:
            raise ProviderError("Only 24000 Hz.", code=ErrorCode.INVALID_REQUEST)
        await super().send_audio(audio_data)


@breaks("odd_byte_count_is_refused_clearly")
class Cryptic(FakeProvider):
    async def send_audio(self, audio_data: bytes) -> None:
        if len(audio_data) % 2:
            raise ValueError("bytes length not a multiple of item size")
        await super().send_audio(audio_data)


@breaks("empty_audio_is_harmless")
class Hungry(FakeProvider):
    async def send_audio(self, audio_data: bytes) -> None:
        if not audio_data:
            raise ZeroDivisionError("division by zero")
        await super().send_audio(audio_data)


@breaks("size_of_a_chunk_does_not_matter")
class SmallMouthed(FakeProvider):
    async def send_audio(self, audio_data: bytes) -> None:
        if len(audio_data) > 100_000:
            self.emit_event(EventType.ERROR_AUDIO, {"error": ProviderError("Too much."), "recoverable": True})
            return
        await super().send_audio(audio_data)


@breaks("speech_is_answered")
class Unmoved(FakeProvider):
    def _answer(self, trigger: str, text: str, *calls: str) -> Any:
        if trigger == "audio" and self.config.get("turn_detection") is None:
            return None
        return super()._answer(trigger, text, *calls)


@breaks("speech_is_answered_under_semantic_detection")
class Literal(Gifted):
    def _answer(self, trigger: str, text: str, *calls: str) -> Any:
        turns = self.config.get("turn_detection")
        if trigger == "audio" and getattr(turns, "kind", None) == "semantic":
            return None
        return super()._answer(trigger, text, *calls)


@promises("speech_is_answered_under_semantic_detection")
class Meaningless(FakeProvider):
    capabilities = FakeProvider.capabilities.evolve(semantic_turn_detection=FULL)


@breaks("emotion_is_told")
class Moody(Gifted):
    def emit_event(self, event: Any, data: Mapping[str, Any] | None = None) -> None:
        super().emit_event(event, {"score": 0.9} if event == EventType.EMOTION else data)


@promises("emotion_is_told")
class Unfeeling(FakeProvider):
    capabilities = FakeProvider.capabilities.evolve(emotion=FULL)


@breaks("speech_is_transcribed")
class Illiterate(FakeProvider):
    def emit_event(self, event: Any, data: Mapping[str, Any] | None = None) -> None:
        if event != EventType.INPUT_TRANSCRIPT:
            super().emit_event(event, data)


@breaks(
    "speech_is_answered",
    also=("speech_is_transcribed", "send_audio_waits_for_a_slow_service"),
)
class Dropping(FakeProvider):
    def try_send_audio(self, audio_data: bytes) -> bool:
        return True


@breaks("speech_is_transcribed")
class Repeating(FakeProvider):
    def emit_event(self, event: Any, data: Mapping[str, Any] | None = None) -> None:
        super().emit_event(event, data)
        if event == EventType.INPUT_TRANSCRIPT:
            super().emit_event(event, data)


@breaks("end_turn_asks_for_an_answer")
class Unasked(FakeProvider):
    async def end_turn(self, respond: bool = True) -> None:
        await super().end_turn(False)


@breaks("end_turn_without_respond_asks_for_nothing")
class Overeager(FakeProvider):
    async def end_turn(self, respond: bool = True) -> None:
        await super().end_turn(True)


@breaks("discarded_input_is_forgotten")
class Remembering(FakeProvider):
    async def discard_input(self) -> None:
        self._is_loud = False


@breaks("send_audio_waits_for_a_slow_service")
class Hoarding(FakeProvider):
    async def send_audio(self, audio_data: bytes) -> None:
        if self._fault == "stall":
            self.audio += audio_data
            return
        await super().send_audio(audio_data)


@breaks("stalled_session_can_be_closed")
class Patient(FakeProvider):
    async def disconnect(self) -> None:
        if self._fault == "stall" and self._is_open:
            await asyncio.Event().wait()
        await super().disconnect()


# -- interruption -----------------------------------------------------------------------------------


@breaks("interrupt_before_an_answer_is_harmless")
class Touchy(FakeProvider):
    async def interrupt(self, heard: Heard | None = None) -> None:
        if not self._n_answers:
            raise ProviderError("No response to cancel.", code=ErrorCode.INVALID_REQUEST)
        await super().interrupt(heard)


@breaks("interrupt_stops_the_answer")
class Deaf(FakeProvider):
    async def interrupt(self, heard: Heard | None = None) -> None:
        self.interrupts.append(heard)


@breaks("interrupt_stops_the_answer")
class Feigning(FakeProvider):
    def try_interrupt(self, heard: Heard | None) -> bool:
        return True


@breaks("interrupt_after_an_answer_is_harmless")
class Insistent(FakeProvider):
    async def interrupt(self, heard: Heard | None = None) -> None:
        if self._current is None and self._n_answers:
            data = {"response_id": f"response-{self._n_answers}", "reason": "interrupted"}
            self.emit_event(EventType.RESPONSE_CANCELLED, data)
        await super().interrupt(heard)


@breaks("heard_words_are_known")
class Unheard(Gifted):
    async def interrupt(self) -> None:  # type: ignore[override]
        await super().interrupt(None)


@breaks("heard_words_are_known")
class Guessing(Gifted):
    capabilities = Gifted.capabilities.evolve(word_timings=UNKNOWN)

    def emit_event(self, event: Any, data: Mapping[str, Any] | None = None) -> None:
        if event != EventType.SPEECH_MARK:
            super().emit_event(event, data)


@breaks("session_goes_on_after_an_interrupt")
class Sulking(FakeProvider):
    is_offended = False

    async def interrupt(self, heard: Heard | None = None) -> None:
        self.is_offended = self._current is not None
        await super().interrupt(heard)

    def _next(self) -> None:
        if not self.is_offended:
            super()._next()


# -- calls ------------------------------------------------------------------------------------------


@breaks("settings_change_in_mid_session", also=("configure_session_can_be_cancelled_at_every_await",))
class Stubborn(FakeProvider):
    async def configure_session(self, config: Mapping[str, Any]) -> None:
        raise ConfigError("Settings are fixed once the session is open.")


@breaks("vocabulary_changes_in_mid_session")
class Conservative(Gifted):
    async def configure_session(self, config: Mapping[str, Any]) -> None:
        if "vocabulary" in config:
            raise ConfigError("The vocabulary is fixed once the session is open.")
        await super().configure_session(config)


@promises("vocabulary_changes_in_mid_session")
class Speechless(FakeProvider):
    capabilities = FakeProvider.capabilities.evolve(vocabulary_live=FULL)


@breaks("tool_is_called_by_name")
class Careless(FakeProvider):
    def _call(self, name: str, call_id: str, ids: Mapping[str, str]) -> None:
        data = {"name": name, "call_id": call_id, "arguments": {}, **ids}
        self.emit_event(EventType.FUNCTION_CALL_INVOKED, data)


@breaks("tool_is_called_by_name")
class CallingTwice(FakeProvider):
    def _call(self, name: str, call_id: str, ids: Mapping[str, str]) -> None:
        super()._call(name, call_id, ids)
        super()._call(name, call_id, ids)


class Selective(FakeProvider):
    ignores: bool

    async def send_tool_result(self, call_id: str, output: str, is_error: bool = False) -> None:
        if is_error is self.ignores and call_id in self._calls:
            return
        await super().send_tool_result(call_id, output, is_error)


@breaks("tool_result_lets_the_answer_go_on")
class Uninterested(Selective):
    ignores = False


@breaks("failure_of_a_tool_lets_the_answer_go_on")
class Discouraged(Selective):
    ignores = True


@breaks("loaded_history_asks_for_nothing")
class Reminiscing(FakeProvider):
    async def load_history(self, items: Sequence[Item]) -> None:
        await super().load_history(items)
        self._answer("text", self.reply)


@breaks("loaded_speech_asks_for_nothing")
class Reading(Gifted):
    async def load_history(self, items: Sequence[Item]) -> None:
        if any(item.audio for item in items):
            raise ProviderError("Only text.", code=ErrorCode.INVALID_REQUEST)
        await super().load_history(items)


@promises("loaded_speech_asks_for_nothing")
class Inattentive(FakeProvider):
    capabilities = FakeProvider.capabilities.evolve(context_audio=FULL)


@breaks("item_in_mid_session_asks_for_nothing")
class Chatty(FakeProvider):
    async def send_item(self, item: Item) -> None:
        await super().send_item(item)
        self._answer("text", self.reply)


@breaks("session_is_taken_up_by_its_handle")
class Forgetful(FakeProvider):
    async def resume(self, handle: str) -> None:
        raise ProviderError("No such session.", code=ErrorCode.SESSION_EXPIRED)


@breaks("given_text_is_spoken")
class Mute(FakeProvider):
    async def speak(self, text: str, is_last: bool = True) -> None:
        if is_last and self._saying is None:
            return
        await super().speak(text, is_last)


@breaks("text_spoken_in_pieces_is_one_response")
class Stammering(FakeProvider):
    async def speak(self, text: str, is_last: bool = True) -> None:
        await super().speak(text, True)


@breaks("usage_is_a_mapping_or_none")
class Counting(FakeProvider):
    async def get_usage(self) -> Any:
        return {"tokens": {"output": -1}}


@breaks("cost_is_an_amount_or_none")
class Priceless(FakeProvider):
    async def estimate_cost(self) -> float | None:
        return float("nan")


# -- errors -----------------------------------------------------------------------------------------


class Failing(FakeProvider):
    """Calls a failure of ``connect`` by another name."""

    fault: str
    error: ProviderError

    async def connect(self) -> None:
        if self._fault == self.fault:
            raise self.error
        await super().connect()


@breaks("refused_credentials_are_named")
class Vague(Failing):
    fault = "refuse"
    error = ProviderError("It did not work.")


@breaks("unreachable_service_is_named")
class Hopeless(Failing):
    fault = "unreachable"
    error = ProviderError("It did not work.", code=ErrorCode.UNAVAILABLE, recoverable=False)


@breaks("lost_session_ends_exactly_once")
class Ghosting(FakeProvider):
    async def send_text(self, text: str) -> None:
        if self._fault != "drop":
            await super().send_text(text)


@breaks("lost_session_ends_exactly_once")
class Lamenting(FakeProvider):
    def emit_event(self, event: Any, data: Mapping[str, Any] | None = None) -> None:
        super().emit_event(event, data)
        if event == EventType.CONNECTION_LOST:
            super().emit_event(event, data)


@breaks("lost_session_ends_exactly_once")
class LosingInWords(FakeProvider):
    def emit_event(self, event: Any, data: Mapping[str, Any] | None = None) -> None:
        if event == EventType.CONNECTION_LOST and data is not None:
            data = {**data, "error": str(data["error"])}
        super().emit_event(event, data)


@breaks("error_events_hold_errors")
class Stringly(FakeProvider):
    async def send_tool_result(self, call_id: str, output: str, is_error: bool = False) -> None:
        if call_id not in self._calls:
            self.emit_event(EventType.ERROR_GENERAL, {"error": "no such call", "recoverable": True})
            return
        await super().send_tool_result(call_id, output, is_error)


@breaks("secrets_are_shown_nowhere")
class Blabbing(FakeProvider):
    async def connect(self) -> None:
        logging.getLogger("acme").debug("connecting with %s", self.config.get("api_key"))
        await super().connect()


class Keyed(FakeProvider):
    """Has a key, which it tells in one place."""

    @property
    def key(self) -> str:
        return str(self.config.get("api_key"))


@breaks("secrets_are_shown_nowhere")
class Introducing(Keyed):
    def __repr__(self) -> str:
        return f"Introducing({self.config})"


@breaks("secrets_are_shown_nowhere")
class ExplainingARefusal(Keyed):
    async def connect(self) -> None:
        try:
            await super().connect()
        except AuthenticationFailed as error:
            error.args = (*error.args, self.key)
            raise


@breaks("secrets_are_shown_nowhere")
class QuotingTheAddress(Keyed):
    async def connect(self) -> None:
        if self._fault == "unreachable":
            raise OSError(f"no route to the service?key={self.key}")
        await super().connect()


@breaks("secrets_are_shown_nowhere")
class QuotingALoss(Keyed):
    def _dropped(self) -> ProviderError:
        error = super()._dropped()
        error.__cause__ = OSError(f"reset by the peer of {self.key}")
        return error


@breaks("secrets_are_shown_nowhere")
class QuotingAFormat(Keyed):
    async def send_audio(self, audio_data: bytes) -> None:
        if len(audio_data) % 2:
            raise AudioFormatError(f"Half a sample from {self.key}.")
        await super().send_audio(audio_data)


# -- tidiness ---------------------------------------------------------------------------------------


@breaks("nothing_is_left_behind")
class Littering(FakeProvider):
    async def send_text(self, text: str) -> None:
        await super().send_text(text)
        if "long" in text:
            self.litter = asyncio.get_running_loop().create_task(asyncio.sleep(3600))


@breaks(
    "nothing_is_left_behind",
    also=("connect_can_be_cancelled_at_every_await", "disconnect_can_be_cancelled_at_every_await"),
)
class Listening(FakeProvider):
    """Has a socket that the event loop knows nothing of."""

    async def connect(self) -> None:
        await super().connect()
        self.spare = socket.create_server(("127.0.0.1", 0))

    def __del__(self) -> None:
        if hasattr(self, "spare"):
            self.spare.close()


@breaks("failed_connect_leaves_nothing")
class Abandoning(FakeProvider):
    async def connect(self) -> None:
        if self._fault == "unreachable":
            self.litter = asyncio.get_running_loop().create_task(asyncio.sleep(3600))
        await super().connect()


@breaks("connect_can_be_cancelled_at_every_await")
class Swallowing(FakeProvider):
    async def connect(self) -> None:
        try:
            await super().connect()
        except asyncio.CancelledError:
            return


@breaks("disconnect_can_be_cancelled_at_every_await")
class HalfClosed(FakeProvider):
    pulse: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        await super().connect()
        self.pulse = asyncio.get_running_loop().create_task(asyncio.sleep(3600))

    async def disconnect(self) -> None:
        pulse, self.pulse = self.pulse, None
        await super().disconnect()
        if pulse is not None:
            pulse.cancel()


@breaks("send_text_can_be_cancelled_at_every_await")
class Locked(FakeProvider):
    is_busy = False

    async def send_text(self, text: str) -> None:
        if self.is_busy:
            await asyncio.Event().wait()
        self.is_busy = True
        await super().send_text(text)
        self.is_busy = False


async def swallow() -> None:
    try:
        await asyncio.sleep(0.001)
    except asyncio.CancelledError:
        return


@breaks("send_audio_can_be_cancelled_at_every_await")
class SwallowingAudio(FakeProvider):
    async def send_audio(self, audio_data: bytes) -> None:
        await swallow()
        await super().send_audio(audio_data)


@breaks("interrupt_can_be_cancelled_at_every_await")
class SwallowingInterrupt(FakeProvider):
    async def interrupt(self, heard: Heard | None = None) -> None:
        await swallow()
        await super().interrupt(heard)


@breaks("configure_session_can_be_cancelled_at_every_await")
class SwallowingSettings(FakeProvider):
    async def configure_session(self, config: Mapping[str, Any]) -> None:
        await swallow()
        await super().configure_session(config)


@breaks("end_turn_can_be_cancelled_at_every_await")
class SwallowingTheEnd(FakeProvider):
    async def end_turn(self, respond: bool = True) -> None:
        await swallow()
        await super().end_turn(respond)


@breaks("send_tool_result_can_be_cancelled_at_every_await")
class SwallowingResults(FakeProvider):
    async def send_tool_result(self, call_id: str, output: str, is_error: bool = False) -> None:
        await swallow()
        await super().send_tool_result(call_id, output, is_error)


@breaks("other_calls_can_be_cancelled_at_every_await")
class SwallowingSpeech(FakeProvider):
    async def speak(self, text: str, is_last: bool = True) -> None:
        await swallow()
        await super().speak(text, is_last)


@breaks("other_calls_can_be_cancelled_at_every_await")
class SwallowingUsage(FakeProvider):
    async def get_usage(self) -> dict[str, Any] | None:
        await swallow()
        return await super().get_usage()
