"""The provider of OpenAI's Realtime service: the client's side of the protocol."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, cast

from voxengine.audio.format import Encoding
from voxengine.capabilities import UNKNOWN, Capabilities
from voxengine.config import Deadlines, Reconnect, TurnDetection
from voxengine.errors import CapabilityMissing, ConfigError, NotConnected, UsageError, VoxEngineError
from voxengine.events import EventType
from voxengine.history import Heard, Item
from voxengine_openai import options, session_settings
from voxengine_openai.abilities import LIVE_TRANSCRIPTION, REALTIME, SILENCE_MS, TRANSCRIPTION
from voxengine_openai.asides import Aside, aside_input, aside_params
from voxengine_openai.codec import Append
from voxengine_openai.conversation import RealtimeConversation
from voxengine_openai.endpoint import Endpoint, openai_endpoint
from voxengine_openai.items import event_parts, tool_output, user_text
from voxengine_openai.link import new_id
from voxengine_openai.models import history_chars, is_live_transcriber, realtime_model
from voxengine_openai.prices import is_priced
from voxengine_openai.requests import RequestQueue
from voxengine_openai.session_settings import SessionPlan, Traits
from voxengine_openai.translate import SessionState, Translator

if TYPE_CHECKING:
    from voxengine.transport import Transport
    from voxengine_openai.client_secrets import ClientSecret

__all__ = ["OpenAIProvider"]

_OWED_S: Final = 3.0
"""How long a text waits for the response that the service gives to a spoken turn by itself."""
_MIN_COMMIT_MS: Final = 100
"""The service refuses to commit less."""
_MAX_MESSAGE_MS: Final = 1000
"""Most audio in one message, so that a large buffer feels a slow service too."""
_ENDPOINTING_MS: Final = {"low": 8000, "medium": 4000, "auto": 4000, "high": 2000}
"""How long semantic detection waits at most, by eagerness."""
_SAY: Final = (
    "Say exactly the text between the markers, word for word and in its language, and nothing else. Neither answer it "
    "nor comment on it.\n<<<\n{}\n>>>"
)


@functools.lru_cache(maxsize=64)
def _decided(
    base: Capabilities, silence_ms: int, max_history_chars: int | None, is_priced: bool
) -> Capabilities:
    """The same object for the same answers: a session is asked for it several times while it opens."""
    return base.evolve(
        endpointing_silence_ms=silence_ms,
        max_history_chars=max_history_chars,
        cost=base.cost if is_priced else UNKNOWN,
    )


class OpenAIProvider(RealtimeConversation):
    """OpenAI Realtime over a WebSocket.

    Options, metadata keys and what the modes do are described in the package's README.
    """

    capabilities: ClassVar[Capabilities] = REALTIME
    services: ClassVar[Mapping[str, Capabilities]] = {"realtime": REALTIME, "transcription": TRANSCRIPTION}
    options: ClassVar[frozenset[str] | None] = frozenset(
        {
            "mode",
            "model",
            "voice",
            "language",
            "instructions",
            "max_output_tokens",
            "modalities",
            "vocabulary",
            "turn_detection",
            "interruption",
            "input_format",
            "output_format",
            "chunk_ms",
            "group_ms",
            "deadlines",
            "reconnect",
            "tools",
            "tool_choice",
            "transport",
        }
    )
    conformance_peers: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "refused": {"api_key": "sk-that-no-service-knows"}
    }
    """Options with which a session meets a bad peer; for `voxengine check`."""
    traits: ClassVar[Traits] = Traits()
    translator_class: ClassVar[type[Translator]] = Translator
    trusts_interruption: ClassVar[bool] = True
    """Whether the service surely stops a response by itself when it hears the user."""

    def __new__(cls, config: dict[str, Any], *_: Any, **__: Any) -> Self:
        # The class of a service is an affair of this package: everybody else knows the provider by one name.
        if cls is OpenAIProvider and options.service_of(config) == "transcription":
            from voxengine_openai.transcription import TranscriptionProvider

            return cast("Self", super().__new__(TranscriptionProvider))
        return super().__new__(cls)

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self._traits = self.traits
        self._asked: dict[str, Any] = {}
        self._own: Mapping[str, Any] = {}
        self._plan: SessionPlan | None = None
        self._model = ""
        self._frame_bytes, self._max_bytes = 1, 0
        self._n_open_bytes = 0
        """Audio since the last end of a turn; of interest only where the turn is ended by hand."""
        self._is_manual = False
        self._answers_by_itself = False
        self._spoken: list[str] = []

    @classmethod
    def capabilities_for(cls, config: Mapping[str, Any]) -> Capabilities:
        base = super().capabilities_for(config)
        turns = config.get("turn_detection")
        silence_ms = SILENCE_MS
        if turns == "semantic" or (isinstance(turns, TurnDetection) and turns.kind == "semantic"):
            silence_ms = _ENDPOINTING_MS[getattr(turns, "eagerness", None) or "auto"]
        metadata = config.get("metadata") or {}
        if base is TRANSCRIPTION:
            named = config.get("model") or metadata.get("model") or metadata.get("transcription_model")
            base = LIVE_TRANSCRIPTION if is_live_transcriber(str(named)) else base
            return _decided(base, silence_ms, None, True)
        named = config.get("model") or (metadata.get("model") if isinstance(metadata, Mapping) else None)
        model = realtime_model(named if isinstance(named, str) else None)[0]
        return _decided(base, silence_ms, history_chars(model), is_priced(model))

    # -- what a variant of the service changes ------------------------------------------------------

    def _choose_model(self, asked: Mapping[str, Any]) -> tuple[str, str]:
        """Return the model to connect for, and a sentence when it is not the one that was asked for."""
        return realtime_model(asked.get("model"))

    def _endpoint(self, model: str, *, is_default_model: bool) -> Endpoint:
        return openai_endpoint(self.config, model, is_default_model=is_default_model)

    def _more_options(self) -> tuple[str, ...]:
        """Return further metadata keys that mean something."""
        return ()

    def _read_options(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options that a configuration gives, by name. Raises ConfigError."""
        return options.asked_options(config)

    def _plan_session(self, asked: Mapping[str, Any], own: Mapping[str, Any] | None) -> SessionPlan:
        """Return the session that options describe, ``metadata["session"]`` merged in."""
        return session_settings.plan_session(asked, own, self._traits, self._model)

    def _unknown_keys(self, metadata: Mapping[str, Any]) -> list[str]:
        """Return a sentence for each metadata key that means nothing."""
        return options.unknown_keys(metadata, self._more_options())

    def _shown_settings(self, session: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is in force, in neutral words, from the session object that the service sent."""
        asked = self._asked
        words = asked.get("vocabulary") or ()
        return session_settings.shown_settings(session, asked.get("turn_detection"), words)

    def _say_params(self, text: str) -> dict[str, Any]:
        """Return the ``response`` of a request to say a text."""
        return {"input": [], "instructions": _SAY.format(text), "tool_choice": "none"}

    # -- life -----------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Open the session.

        Raises:
            ConfigError: An option is wrong. Nothing was opened.
            ProviderError: The service refused, could not be reached or did not answer in time.
        """
        metadata = options.metadata_of(self.config)
        asked = self._read_options(self.config)
        if asked.get("mode", "big") == "provider" and asked.get("turn_detection") == TurnDetection():
            del asked["turn_detection"]  # The neutral default is nobody's wish.
        asked.setdefault("mode", "big")
        self._model, model_sentence = self._choose_model(asked)
        plan = self._plan_session(asked, metadata.get("session"))
        endpoint = self._endpoint(self._model, is_default_model="model" not in asked)
        self._begin(asked, metadata.get("session") or {}, plan, endpoint)
        deadlines = self.config.get("deadlines") or Deadlines()
        self.connection = await self._dial(endpoint, deadlines)
        try:
            await self._open(plan.session, deadlines)
        except BaseException:
            self._stop_waiting(NotConnected(f"The session of {self.name} was not opened."))
            await self.connection.close()
            raise
        self.emit_event(EventType.CONNECTION_ESTABLISHED, {"session_id": self.session_id})
        if model_sentence:
            self.warn("model_mapped", model_sentence)
        self._warn_of(plan, set(asked))
        for sentence in self._unknown_keys(metadata):
            self.warn("option_unknown", sentence)

    def _begin(
        self, asked: dict[str, Any], own: Mapping[str, Any], plan: SessionPlan, endpoint: Endpoint
    ) -> None:
        self._asked, self._own, self._plan = asked, own, plan
        audio = plan.session["audio"]
        self._input_format = session_settings.format_of(audio["input"].get("format"))
        self._frame_bytes = self._input_format.frame_bytes
        self._max_bytes = self._input_format.n_bytes(_MAX_MESSAGE_MS)
        self._hide(endpoint.url, endpoint.headers)
        self._state = SessionState(
            name=self.name,
            queue=RequestQueue(self._request),
            output_format=session_settings.format_of(audio.get("output", {}).get("format")),
            model=self._model,
            has_prices=self._traits.has_prices,
        )
        self._translator = self.translator_class(self, self._state)
        self._follow_detection()

    async def _dial(self, endpoint: Endpoint, deadlines: Deadlines) -> Transport:
        # Imported here because it loads the client library.
        from voxengine.transport import connect_websocket

        keepalive = self.config.get("reconnect") or Reconnect()
        return await connect_websocket(
            endpoint.url,
            provider=self.name,
            headers=endpoint.headers,
            ssl=await self._tls(),
            handshake_s=deadlines.handshake_s,
            ping_interval_s=keepalive.ping_interval_s,
            ping_timeout_s=keepalive.ping_timeout_s,
            on_wire=self.wire_observer,
            transport=self.config.get("transport") or "auto",
        )

    async def _tls(self) -> Any:
        ca_file = (self.config.get("metadata") or {}).get("ca_file")
        if ca_file is None:
            return None
        import ssl

        try:
            return await asyncio.to_thread(ssl.create_default_context, cafile=str(ca_file))
        except OSError as error:  # Also what is no certificate.
            raise ConfigError(
                f"metadata['ca_file'] names no readable certificate in PEM ({type(error).__name__})."
            ) from None

    async def disconnect(self) -> None:
        self._stop_timers()
        self._stop_waiting(NotConnected(f"The session of {self.name} was closed on this side."))
        if self.connection is not None:
            await self.connection.close()

    # -- audio ------------------------------------------------------------------------------------

    async def send_audio(self, audio_data: bytes) -> None:
        self._input_format.check_aligned(len(audio_data), "send_audio")
        connection = self._open_connection()
        for start in range(0, len(audio_data), self._max_bytes):
            piece = audio_data[start : start + self._max_bytes]
            await self._send_wires(connection, self._codec.encode(Append(piece)))
            self._n_open_bytes += len(piece)

    def try_send_audio(self, audio_data: bytes) -> bool:
        connection = self.connection
        if connection is None or not connection.writable or self._state is None:
            return False  # send_audio says why.
        n_bytes = len(audio_data)
        if n_bytes % self._frame_bytes:
            self._input_format.check_aligned(n_bytes, "send_audio")
        if not 0 < n_bytes <= self._max_bytes:
            return n_bytes == 0
        is_sent = connection.send_nowait(self._codec.encode_audio(audio_data))
        if is_sent:
            self._n_open_bytes += n_bytes
        return is_sent

    async def end_turn(self, respond: bool = True) -> None:
        if not self._is_manual:
            await self._wait_out_the_vendor(respond)
            return
        if self._n_open_bytes:
            missing = self._input_format.n_bytes(_MIN_COMMIT_MS) - self._n_open_bytes
            if missing > 0:  # The service takes no less; what was said must not be lost for that.
                await self.send_audio(self._silence(missing))
            self._n_open_bytes = 0
            await self._send("input_audio_buffer.commit")
        if respond:
            self._live().queue.ask("audio")

    async def _wait_out_the_vendor(self, respond: bool) -> None:
        """Send the silence in which the service finds the end of the turn by itself."""
        if not respond:
            raise CapabilityMissing(
                f"{self.name}: under turn detection by the service a turn is always answered. Set turn_detection to "
                "'manual' or 'client' for end_turn(respond=False).",
                capability="client_turn_detection",
                provider=self.name,
            )
        await self.send_audio(self._silence(self._input_format.n_bytes(self._endpointing_ms() + 300)))

    def _endpointing_ms(self) -> int:
        """Return the silence in which the service surely finds the end of the turn."""
        turns = self._asked.get("turn_detection") or TurnDetection()
        return turns.silence_ms or self.capabilities_for(self._asked).endpointing_silence_ms or SILENCE_MS

    def _silence(self, n_bytes: int) -> bytes:
        quiet = {Encoding.G711_ULAW: b"\xff", Encoding.G711_ALAW: b"\xd5"}
        return quiet.get(self._input_format.encoding, b"\0") * n_bytes

    async def discard_input(self) -> None:
        self._n_open_bytes = 0
        await self._send("input_audio_buffer.clear")

    # -- turns ------------------------------------------------------------------------------------

    async def send_text(self, text: str) -> str | None:
        _check_text("send_text", text)
        queue, item_id = self._live().queue, new_id("item_")
        item = {"id": item_id, **user_text(text)}
        if not queue.is_free:
            queue.ask("text", item=item)
            return item_id
        await self._send("conversation.item.create", item=item)
        self._live().queue.ask("text")
        return item_id

    async def speak(self, text: str, is_last: bool = True) -> None:
        """Say a text: a response of the conversation, made without what was said before.

        The model sees nothing but the order to say the text, so that it has nothing to answer; what it says
        becomes part of the conversation. Pieces wait for the last one, since a response cannot grow.
        """
        _check_text("speak", text)
        self._live()
        self._spoken.append(text)
        if not is_last:
            return
        words = " ".join(piece.strip() for piece in self._spoken)
        self._spoken.clear()
        self._live().queue.ask("say", self._say_params(words))

    async def send_tool_result(self, call_id: str, output: str, is_error: bool = False) -> None:
        state, item_id = self._live(), new_id("item_")
        rounds = state.rounds
        rounds.take(call_id)
        # The protocol has no mark for a failure; a sentence that says so is what models act on.
        text = f"The tool failed: {output}" if is_error else output
        try:
            await self._send("conversation.item.create", item={"id": item_id, **tool_output(call_id, text)})
        except BaseException:  # Also when cancelled: nothing was sent.
            rounds.give_back(call_id)
            raise
        state.results[call_id] = item_id
        if rounds.answered(call_id):
            self._live().queue.ask("tool")

    async def interrupt(self, heard: Heard | None = None) -> None:
        for name, fields in self._interruption(heard):
            await self._send(name, **fields)

    def try_interrupt(self, heard: Heard | None) -> bool:
        if self._state is None or self.connection is None or not self.connection.writable:
            return False  # interrupt says why, or waits.
        for name, fields in self._interruption(heard):
            self._send_soon(name, **fields)
        return True

    def _interruption(self, heard: Heard | None) -> list[tuple[str, dict[str, Any]]]:
        """Refuse what still comes of the active response, and return what the service has to be told."""
        state = self._live()
        self._spoken.clear()
        said = state.queue.drop()
        active = state.queue.active
        cuts = state.output.interrupt(heard, active.id if active is not None else None)
        messages: list[tuple[str, dict[str, Any]]] = []
        if active is not None and not active.is_ending:
            active.is_ending = True
            messages.append(("response.cancel", {"response_id": active.id}))
        for item, played_ms in cuts:
            place = {"item_id": item.id, "content_index": item.audio_index, "audio_end_ms": played_ms}
            messages.append(("conversation.item.truncate", place))
        messages += [("conversation.item.create", {"item": item}) for item in said]
        return messages

    # -- settings ---------------------------------------------------------------------------------

    async def configure_session(self, config: Mapping[str, Any]) -> None:
        """Change settings of the open session; what is not named keeps its value.

        Raises:
            ConfigError: A value is wrong. Nothing was sent.
            CapabilityMissing: The voice is to change after the session has spoken. Nothing was sent.
            ProviderError: The service refused; nothing has changed.
        """
        state = self._live()
        changed = self._read_options(config)
        own = options.metadata_of(config).get("session")
        asked = {**self._asked, **changed}
        merged = self._own if own is None else session_settings.deep_merged(self._own, own)
        plan = self._plan_session(asked, merged)
        assert self._plan is not None
        difference = session_settings.changes_between(self._plan.session, plan.session, self._traits.whole)
        if state.output.has_audio and "voice" in difference.get("audio", {}).get("output", {}):
            raise CapabilityMissing(
                f"{self.name}: the voice is fixed once the session has spoken. Nothing was changed; open a new session "
                "for another voice (switch_provider).",
                capability="live_configuration",
                provider=self.name,
            )
        before = self._asked, self._own, self._plan
        self._asked, self._own, self._plan = asked, merged, plan
        if difference:
            try:
                await self._wait(
                    await self._update({**difference, "type": plan.session["type"]}), "the settings"
                )
            except VoxEngineError:
                if self._plan is plan:
                    self._asked, self._own, self._plan = before
                raise
        self._follow_detection()
        self._warn_of(plan, set(changed))

    def _follow_detection(self) -> None:
        """Follow who decides where the user's turn ends."""
        assert self._plan is not None
        assert self._state is not None
        audio = self._plan.session["audio"]["input"]
        detection = audio.get("turn_detection", {})
        self._is_manual = detection is None
        creates = not isinstance(detection, Mapping) or detection.get("create_response") is not False
        self._answers_by_itself = not self._is_manual and creates and self._plan.session["type"] == "realtime"
        interrupts = isinstance(detection, Mapping) and detection.get("interrupt_response") is not False
        self._state.vendor_interrupts = interrupts and self.trusts_interruption
        transcription = audio.get("transcription")
        if isinstance(transcription, Mapping):
            self._state.transcription_model = str(transcription.get("model") or "")

    def _warn_of(self, plan: SessionPlan, asked: set[str]) -> None:
        for option, code, sentence in plan.warnings:
            # In an engine, it is the engine that says what the class does not declare at all.
            is_told = self._sink is not None and self.options is not None and option not in self.options
            if option in asked and not is_told:
                self.warn(code, sentence)

    # -- usage ------------------------------------------------------------------------------------

    async def get_usage(self) -> dict[str, Any] | None:
        return None if self._state is None else self._state.meter.to_dict()

    async def estimate_cost(self) -> float | None:
        return None if self._state is None else self._state.cost

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
        """Ask for a response outside of the conversation, which neither hears nor remembers it.

        Several may be under way, also while the agent speaks. No event but VENDOR_EVENT and USAGE_UPDATED
        tells of it; an interruption does not touch it.

        Args:
            instructions: In place of the session's.
            items: What the model is shown, texts and images too; None: the conversation so far.
            modalities: ``text`` or ``audio``.
            limit_s: How long it may take.
            params: Further fields of the protocol's ``response``, for example ``tools``.

        Raises:
            UsageError: ``items`` holds what is no item, or ``conversation`` is to be another one. Nothing was sent.
            ProviderError: The service refused, or nothing came in time.
        """
        state = self._live()
        key, event_id = new_id("aside_"), new_id("evt_")
        response = aside_params(key, {"output_modalities": [modalities], **params}, instructions)
        if items is not None:
            response["input"] = aside_input(items, self._input_format)
        wait = state.replies.expect_aside(event_id, key)
        try:
            await self._send("response.create", event_id, response=response)
            aside: Aside = await self._wait(wait, "an answer outside of the conversation", limit_s)
        finally:
            state.replies.forget_aside(key)
        return aside

    async def send_event(self, event: Mapping[str, Any]) -> str:
        """Send an event of the GA protocol as it is, for what has no method; return its ``event_id``.

        Raises:
            ConfigError: It is no mapping, has no ``type``, or holds what JSON does not have. Nothing was sent.
        """
        name, event_id, fields = event_parts(event)
        response = fields.get("response")
        is_aside = isinstance(response, Mapping) and response.get("conversation") == "none"
        state = self._live()
        state.raw_asides += is_aside
        try:
            return await self._send(name, event_id, **fields)
        except BaseException:  # Also when cancelled: nothing was sent.
            state.raw_asides -= is_aside
            raise

    async def create_client_secret(self, *, life_s: int = 600) -> ClientSecret:
        """Make an ephemeral key (``ek_…``) whose sessions start with this configuration. Needs no session.

        Args:
            life_s: For how long new sessions can be opened with it, 10 to 7200 seconds.

        Raises:
            ConfigError: An option is wrong.
            ProviderError: The service refused, could not be reached or did not answer in time.
        """
        from voxengine_openai.client_secrets import create_client_secret

        asked = self._read_options(self.config)
        asked.setdefault("mode", "big")
        model = self._model = self._choose_model(asked)[0]
        plan = self._plan_session(asked, options.metadata_of(self.config).get("session"))
        session = (
            plan.session if plan.session["type"] == "transcription" else {"model": model, **plan.session}
        )
        deadlines = self.config.get("deadlines") or Deadlines()
        return await create_client_secret(
            self._endpoint(model, is_default_model=False),
            session,
            life_s=life_s,
            deadline_s=deadlines.ready_s,
            provider=self.name,
        )

    # -- what the translator tells --------------------------------------------------------------------

    def session_updated(self, session: Mapping[str, Any]) -> None:
        """Take the settings that are in force."""
        shown = self._shown_settings(session)
        self.emit_event(EventType.SESSION_UPDATED, {"settings": shown})

    def input_committed(self) -> bool:
        """The service closed a turn, asked by us or by itself; then what it heard of the next is not known here."""
        if not self._is_manual:
            self._n_open_bytes = 0
        if self._answers_by_itself:
            self._live().queue.owe(_OWED_S)
            self.retry_request(_OWED_S)
        return self._is_manual


def _check_text(method: str, text: object) -> None:
    if not isinstance(text, str) or not text.strip():
        what = "an empty text" if isinstance(text, str) else f"a {type(text).__name__}"
        raise UsageError(f"{method} takes a text with something in it, not {what}. Nothing was sent.")
