"""The mock provider: the client's side of the mock's protocol.

By default both ends are joined in memory and a simulated agent sits at the other one; with
``metadata["url"]`` the same protocol goes over a WebSocket.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from voxengine.audio.format import AudioFormat, Encoding
from voxengine.capabilities import FULL, UNSUPPORTED, Capabilities, partial
from voxengine.codec import Role, VendorMessage
from voxengine.config import Deadlines, Reconnect, TurnDetection
from voxengine.errors import (
    AuthenticationFailed,
    ConfigError,
    ConnectionLost,
    ErrorCode,
    NotConnected,
    ProviderError,
    RateLimited,
    RemoteProtocolError,
)
from voxengine.events import EventType, LazyAudio
from voxengine.history import Heard, Item
from voxengine.providers.base import BaseProvider
from voxengine.transport import Transport
from voxengine_mock import codec
from voxengine_mock.codec import MockCodec, ProtocolFault
from voxengine_mock.ids import id_factory
from voxengine_mock.voice import VOICES

if TYPE_CHECKING:
    import ssl

    from voxengine_mock.script import Script

__all__ = ["MockProvider"]

_OTHER_METADATA: Final = ("url", "ca_file", "session", "model", "temperature", "max_tokens")
"""Keys of ``metadata`` that are not the script's."""
_NEUTRAL: Final = ("voice", "language", "turn_detection", "transcription", "tool_choice")
"""Settings of the protocol that mean what the neutral options of the same names do."""
_BYE_S: Final = 1.0
"""How long saying goodbye may take."""
_FORMATS: Final = tuple(AudioFormat(rate) for rate in (24_000, 16_000, 8_000, 48_000))


class MockProvider(BaseProvider):
    """A simulated voice agent: answers by a script, offline, with the same result for the same seed.

    Options are described in the package's README.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        streaming=FULL,
        dialogue=FULL,
        recognition=partial("the words of spoken input come from the script"),
        synthesis=partial("tones in the shape of speech; words with voxengine-mock[espeak]"),
        text_turn=FULL,
        speak=FULL,
        server_turn_detection=FULL,
        semantic_turn_detection=UNSUPPORTED,
        client_turn_detection=FULL,
        discard_input=FULL,
        session_tools=FULL,
        live_configuration=FULL,
        cancel=FULL,
        heard_text=FULL,
        resume=UNSUPPORTED,
        items=FULL,
        context_text=FULL,
        context_audio=UNSUPPORTED,
        context_tools=FULL,
        replay=FULL,
        response_boundaries=FULL,
        multiple_voices=FULL,
        vocabulary_at_connect=UNSUPPORTED,
        vocabulary_live=UNSUPPORTED,
        word_timings=FULL,
        emotion=UNSUPPORTED,
        usage=FULL,
        cost=FULL,
        voices=tuple(VOICES),
        input_formats=_FORMATS,
        output_formats=_FORMATS,
        preferred_chunk_ms=20,
        endpointing_silence_ms=500,
        cost_per_minute_usd=0.0,
    )
    conformance_peers: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "refused": {
            "api_key": "sk-that-no-emulator-takes",
            "metadata": {"faults": [{"do": 401, "at": "handshake", "times": 1000}]},
        },
        "unreachable": {"metadata": {"faults": [{"do": 503, "at": "handshake"}]}},
        "stalled": {"metadata": {"faults": [{"do": "slow_reader", "at": "first_input", "bytes_per_s": 1}]}},
        "lossy": {"metadata": {"faults": [{"do": "reset", "at": "turn"}]}},
    }
    """Options with which a session in memory meets bad peers, and one over a socket a refusal; for
    `voxengine check`."""
    options: ClassVar[frozenset[str] | None] = frozenset(
        {
            "mode",
            "voice",
            "language",
            "instructions",
            "max_output_tokens",
            "modalities",
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
        }
    )

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.connection: Transport | None = None
        self._codec: MockCodec | None = None
        self._ready: asyncio.Future[None] | None = None
        self._settings: dict[str, Any] = {}
        self._input_format = AudioFormat(24_000)
        self._texts: dict[str, str] = {}
        self._response_id = ""
        """The response that the service is giving; empty between two."""
        self._usage: dict[str, Any] = {}
        self._cost: float | None = None
        self._is_expiring = False

    # -- life -----------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Open the session. Raises ConfigError for a script or an option that is wrong."""
        from voxengine_mock.script import Script  # With its TOML reader only when a session opens.

        metadata = self.config.get("metadata") or {}
        script = Script.from_mapping(metadata, ignore=_OTHER_METADATA)
        settings = {"input_rate": 24_000, "output_rate": 24_000, **_settings(self.config)}
        deadlines = self.config.get("deadlines") or Deadlines()
        self._codec = MockCodec(Role.CLIENT, id_factory(script.seed))
        if "url" in metadata:
            self.connection = await self._dial(str(metadata["url"]), deadlines)
        else:
            self.connection = await self._simulate(script, deadlines)
        self._ready = asyncio.get_running_loop().create_future()
        try:
            await self._send(codec.Hello(settings=settings))
            self.start_task(self._read(self.connection, self._codec), name="mock reader")
            async with asyncio.timeout(deadlines.ready_s):
                await self._ready
        except TimeoutError:
            await self.connection.close()
            raise ProviderError(
                f"mock did not open the session within {deadlines.ready_s:g} s. "
                "Trying again can help; deadlines.ready_s sets the limit.",
                provider="mock",
                code=ErrorCode.TIMEOUT,
            ) from None
        except BaseException:
            await self.connection.close()
            raise
        in_force = {name: self._settings[name] for name in _NEUTRAL if name in self._settings}
        self.emit_event(
            EventType.CONNECTION_ESTABLISHED, {"session_id": self.session_id, "settings": in_force}
        )
        self._warn_detection(self.config)

    async def disconnect(self) -> None:
        if self.connection is None or self.connection.closed:
            return
        with contextlib.suppress(ProviderError, NotConnected, TimeoutError):
            async with asyncio.timeout(_BYE_S):
                await self._send(codec.Bye())
        await self.connection.close()

    async def _dial(self, url: str, deadlines: Deadlines) -> Transport:
        # Imported here because it loads the client library, which sessions in memory do without.
        from voxengine.testing.emulator import DEFAULT_KEY
        from voxengine.transport import connect_websocket

        # The emulator of the same package takes this key when it was given no other.
        key = self.config.get("api_key") or DEFAULT_KEY
        ca_file = (self.config.get("metadata") or {}).get("ca_file")
        keepalive = self.config.get("reconnect") or Reconnect()
        return await connect_websocket(
            url,
            provider="mock",
            headers={"Authorization": f"Bearer {key}"},
            ssl=None if ca_file is None else await asyncio.to_thread(_trusting, str(ca_file)),
            handshake_s=deadlines.handshake_s,
            ping_interval_s=keepalive.ping_interval_s,
            ping_timeout_s=keepalive.ping_timeout_s,
            on_wire=self.wire_observer,
            transport=self.config.get("transport") or "auto",
        )

    async def _simulate(self, script: Script, deadlines: Deadlines) -> Transport:
        # Imported here because a session over a socket needs neither the agent nor its voice.
        from voxengine_mock.in_memory import open_session

        connection, serving = await open_session(script, deadlines.handshake_s, self.wire_observer)
        self.start_task(serving, name="mock agent")
        return connection

    # -- the contract ---------------------------------------------------------------------------

    async def send_audio(self, audio_data: bytes) -> None:
        self._input_format.check_aligned(len(audio_data), "send_audio")
        await self._send(codec.InputAudio(audio=audio_data))

    def try_send_audio(self, audio_data: bytes) -> bool:
        if self._codec is None or self.connection is None or not self.connection.writable:
            return False  # send_audio says why.
        self._input_format.check_aligned(len(audio_data), "send_audio")
        (wire,) = self._codec.encode(codec.InputAudio(audio=audio_data))
        sent: bool = self.connection.send_nowait(wire)
        return sent

    async def send_text(self, text: str) -> None:
        await self._send(codec.InputText(text=text))

    async def interrupt(self, heard: Heard | None = None) -> None:
        await self._send(self._cancel(heard))

    def try_interrupt(self, heard: Heard | None) -> bool:
        if self._codec is None or self.connection is None or not self.connection.writable:
            return False  # interrupt says why.
        (wire,) = self._codec.encode(self._cancel(heard))
        sent: bool = self.connection.send_nowait(wire)
        return sent

    def _cancel(self, heard: Heard | None) -> codec.Cancel:
        """Name the response that is meant: when the message arrives, another may be under way."""
        if heard is None:
            return codec.Cancel(response_id=self._response_id)
        return codec.Cancel(
            response_id=self._response_id, item_id=heard.item_id, played_ms=heard.item_played_ms
        )

    async def configure_session(self, config: Mapping[str, Any]) -> None:
        if config.get("metadata"):
            raise ConfigError(
                "mock reads metadata, which holds its script, at connect(); configure_session cannot change it. "
                "Nothing was changed. Open another session with the other script."
            )
        await self._send(codec.Configure(settings=_settings(config)))
        self._warn_detection(config)

    async def end_turn(self, respond: bool = True) -> None:
        await self._send(codec.EndTurn(respond=respond))

    async def discard_input(self) -> None:
        await self._send(codec.Discard())

    async def send_tool_result(self, call_id: str, output: str, is_error: bool = False) -> None:
        await self._send(codec.ToolResult(call_id=call_id, output=output, is_error=is_error))

    async def load_history(self, items: Sequence[Item]) -> None:
        await self._send(codec.AddItems(items=[_wire_item(item) for item in items]))

    async def send_item(self, item: Item) -> None:
        await self._send(codec.AddItems(items=[_wire_item(item)]))

    async def speak(self, text: str, is_last: bool = True) -> None:
        await self._send(codec.Speak(text=text, is_last=is_last))

    async def get_usage(self) -> dict[str, Any] | None:
        return dict(self._usage)

    async def estimate_cost(self) -> float | None:
        return self._cost if self._cost is not None else 0.0

    def _warn_detection(self, config: Mapping[str, Any]) -> None:
        turns = config.get("turn_detection")
        for name in ("eagerness", "idle_timeout_ms"):
            if getattr(turns, name, None) is not None:
                self.warn("option_unsupported", f"mock has no turn_detection.{name}; it is without effect.")

    # -- the connection -------------------------------------------------------------------------

    async def _send(self, message: codec.Message) -> None:
        if self.connection is None or self._codec is None:
            raise NotConnected("mock has no session yet. Call connect() first.")
        for wire in self._codec.encode(message):
            await self.connection.send(wire)

    def _adopt(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._input_format = AudioFormat(settings.get("input_rate", 24_000))

    async def _read(self, connection: Transport, ends: MockCodec) -> None:
        clock = asyncio.get_running_loop().time
        try:
            async for wire in connection:
                for message in ends.decode(wire, clock()):
                    self._handle(message)
        except (ConnectionLost, RemoteProtocolError) as error:
            if self._is_expiring and error.close_code in (1000, 1001):
                error.code = ErrorCode.SESSION_EXPIRED
            if self._ready is not None and not self._ready.done():
                self._ready.set_exception(error)
            else:
                self.emit_event(EventType.CONNECTION_LOST, {"error": error, "will_reconnect": False})

    def _handle(self, message: codec.Message | VendorMessage | ProtocolFault) -> None:
        """Tell what one message means. Ready and errors before it concern ``connect``."""
        opening = self._ready is not None and not self._ready.done()
        match message:
            case codec.Ready():
                self.session_id = message.session_id
                self._adopt(message.settings)
                if opening and self._ready is not None:
                    self._ready.set_result(None)
            case codec.Error():
                error = _error(message)
                if opening and self._ready is not None:
                    self._ready.set_exception(error)
                else:
                    self.emit_event(
                        EventType.ERROR_GENERAL, {"error": error, "recoverable": error.recoverable}
                    )
            case ProtocolFault():
                fault = RemoteProtocolError(f"mock: {message.reason}.", provider="mock", recoverable=True)
                self.emit_event(EventType.ERROR_GENERAL, {"error": fault, "recoverable": True})
            case VendorMessage():
                self.emit_event(EventType.VENDOR_EVENT, {"name": message.name, "payload": message.payload})
            case _:
                event_type, data = self._translate(message)
                self.emit_event(event_type, {**message.extra, **data})

    def _response_over(self, response_id: str) -> None:
        self._texts.clear()
        if response_id == self._response_id:
            self._response_id = ""

    def _translate(self, message: codec.Message) -> tuple[EventType, dict[str, Any]]:
        """Return the event that a message of the session stands for."""
        match message:
            case codec.AudioDelta():  # The frequent one first.
                return EventType.AUDIO_OUTPUT_CHUNK, {
                    "audio_data": LazyAudio(message.audio, base64.b64decode),
                    "sample_rate": self._settings["output_rate"],
                    "channels": 1,
                    **_ids(message),
                }
            case codec.TextDelta():
                text = self._texts.get(message.item_id, "") + message.delta
                self._texts[message.item_id] = text
                data = {"text": text, "delta": message.delta, "is_partial": True}
                return EventType.TEXT_OUTPUT, {**data, **_ids(message)}
            case codec.TextDone():
                data = {"text": message.text, "delta": "", "is_partial": False}
                return EventType.TEXT_OUTPUT, {**data, **_ids(message)}
            case codec.WordMark():
                data = {"kind": "word", "value": message.word, "at_ms": message.at_ms}
                return EventType.SPEECH_MARK, {**data, **_ids(message)}
            case codec.ResponseStarted():
                self._response_id = message.response_id
                return EventType.RESPONSE_STARTED, _fields(message)
            case codec.ResponseDone():
                self._response_over(message.response_id)
                return EventType.RESPONSE_COMPLETED, _fields(message)
            case codec.ResponseCancelled():
                self._response_over(message.response_id)
                estimated = None if message.heard_text is None else False
                return EventType.RESPONSE_CANCELLED, {**_fields(message), "heard_is_estimated": estimated}
            case codec.SpeechStarted():
                return EventType.SPEECH_STARTED, {**_fields(message), "source": "server"}
            case codec.SpeechEnded():
                return EventType.SPEECH_ENDED, {**_fields(message), "source": "server"}
            case codec.Transcript():
                return EventType.INPUT_TRANSCRIPT, {
                    **_fields(message),
                    "words": message.words or None,
                    "language": self._settings["language"],
                }
            case codec.ToolCall():
                return EventType.FUNCTION_CALL_INVOKED, {
                    **_fields(message),
                    "arguments": _arguments(message.arguments),
                }
            case codec.Usage():
                self._usage, self._cost = message.usage, message.cost
                return EventType.USAGE_UPDATED, _fields(message)
            case codec.SettingsChanged():
                self._adopt(message.settings)
                return EventType.SESSION_UPDATED, _fields(message)
            case codec.SessionExpiring():
                self._is_expiring = True
                return EventType.SESSION_EXPIRING, _fields(message)
            case codec.RateLimits():
                return EventType.RATE_LIMITS, _fields(message)
            case codec.Warn():
                return EventType.WARNING, _fields(message)
        # What has no neutral form, such as the cut of an item whose response was over.
        return EventType.VENDOR_EVENT, {"name": type(message).__name__.lower(), "payload": _fields(message)}


def _trusting(ca_file: str) -> ssl.SSLContext:
    """Return a context that trusts one authority alone."""
    import ssl

    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # Also what is no certificate.
        raise ConfigError(
            f"metadata['ca_file'] names no readable certificate in PEM ({type(error).__name__})."
        ) from None


def _fields(message: codec.Message) -> dict[str, Any]:
    return {name: getattr(message, name) for name in codec.field_names(type(message))}


def _ids(message: codec.Message) -> dict[str, Any]:
    return {name: getattr(message, name) for name in ("response_id", "item_id")}


def _arguments(text: str) -> dict[str, Any]:
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return arguments if isinstance(arguments, dict) else {}


def _error(message: codec.Error) -> ProviderError:
    code = message.code if message.code in set(ErrorCode) else ErrorCode.UNKNOWN
    kind = {ErrorCode.AUTHENTICATION: AuthenticationFailed, ErrorCode.RATE_LIMIT: RateLimited}
    return kind.get(ErrorCode(code), ProviderError)(
        f"mock: {message.message}",
        provider="mock",
        code=code,
        recoverable=message.recoverable,
        retry_after_s=message.retry_after_s,
        vendor_code=message.code,
    )


def _wire_item(item: Item) -> dict[str, Any]:
    return {
        "id": item.id,
        "kind": item.kind.value,
        "text": item.context_text,
        "name": item.name,
        "call_id": item.call_id,
        "arguments": item.arguments,
    }


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the protocol's settings for the neutral options that are set."""
    out: dict[str, Any] = {
        name: config[name]
        for name in ("voice", "language", "instructions", "tool_choice", "max_output_tokens")
        if config.get(name) is not None
    }
    turns = config.get("turn_detection")
    if isinstance(turns, str):
        turns = TurnDetection(turns)  # type: ignore[arg-type]
    if isinstance(turns, TurnDetection):
        # The agent knows no meaning: asked for it, it listens for silence, as its capabilities say.
        out["turn_detection"] = "server" if turns.kind == "semantic" else turns.kind
        for name in ("threshold", "prefix_padding_ms", "silence_ms"):
            if getattr(turns, name) is not None:
                out[name] = getattr(turns, name)
    for name in ("input", "output"):
        if config.get(f"{name}_format") is not None:
            out[f"{name}_rate"] = _rate(f"{name}_format", config[f"{name}_format"])
    if config.get("modalities") is not None:
        out["audio"] = "audio" in config["modalities"]
    if config.get("tools") is not None:
        out["tools"] = [dict(tool) for tool in config["tools"]]
    if "transcription" in config:
        out["transcription"] = bool(config["transcription"])
    if "interruption" in config:
        out["interrupt_response"] = config["interruption"] == "immediate"
    if config.get("mode") == "fast":
        out.setdefault("transcription", False)
    return out


def _rate(name: str, value: object) -> int:
    if not isinstance(value, AudioFormat) or value.channels != 1 or value.encoding is not Encoding.PCM16:
        shown = value.describe() if isinstance(value, AudioFormat) else type(value).__name__
        raise ConfigError(f"{name} is {shown}; mock takes PCM16 mono at any rate, preferably 24000 Hz.")
    return value.sample_rate
