"""One session of Voice Live: the session of the Realtime emulator, and what this service has beside it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, Final

import attrs

from voxengine_azure.voice_live.plan import PHRASES
from voxengine_azure.voices import is_azure_voice
from voxengine_mock.happenings import Happening, Heard, WordSpoken
from voxengine_mock.settings import Settings
from voxengine_openai.emulator.errors import Refused
from voxengine_openai.emulator.items import Item
from voxengine_openai.emulator.responses import ResponseWriter
from voxengine_openai.emulator.session import RealtimeSession
from voxengine_openai.emulator.transcripts import Transcripts

__all__ = ["VoiceLiveSession"]

_UTTERANCE_MS: Final = 1000
_ICE_SERVERS: Final = (
    {"urls": ["turn:relay.invalid:3478"], "username": "emulator", "credential": "emulator"},
)
_SDP: Final = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=emulator\r\nt=0 0\r\n"
_VISEMES: Final = 22
_WORDS_KEPT: Final = 64
_SHAPES_PER_S: Final = 60
_N_SHAPES: Final = 55
_JAW_OPEN: Final = 17


class VoiceLiveWriter(ResponseWriter):
    """A response with the times of its words and the shapes of the mouth, when the session asks for them."""

    def __init__(self, response_id: str, request: Any, session: Mapping[str, Any], *more: Any) -> None:
        super().__init__(response_id, request, session, *more)
        voice = self._head["audio"]["output"]["voice"]
        is_timed = is_azure_voice(voice) and self.has_audio
        self._has_words = is_timed and "word" in (session.get("output_audio_timestamp_types") or ())
        outputs = (session.get("animation") or {}).get("outputs") or ()
        self._has_visemes = is_timed and "viseme_id" in outputs
        self._has_shapes = is_timed and "blendshapes" in outputs
        self._n_shapes = 0
        self._has_marks = False

    async def word(self, spoken: WordSpoken) -> None:
        """Say when a word is spoken."""
        if not (self._has_words or self._has_visemes or self._has_shapes):
            return
        item = await self._message(spoken.item_id)
        where = {**self._where(item), "content_index": 0, "audio_offset_ms": spoken.at_ms}
        self._has_marks = True
        if self._has_words:
            length_ms = max(0, spoken.end_ms - spoken.at_ms)
            await self._outlet.emit(
                "response.audio_timestamp.delta",
                **where,
                audio_duration_ms=length_ms,
                text=spoken.word,
                timestamp_type="word",
            )
        if self._has_visemes:
            viseme = sum(map(ord, spoken.word)) % _VISEMES
            await self._outlet.emit("response.animation_viseme.delta", **where, viseme_id=viseme)
        if self._has_shapes:
            await self._shapes({**self._where(item), "content_index": 0}, spoken)

    async def _shapes(self, where: Mapping[str, Any], spoken: WordSpoken) -> None:
        """Send the face from where it stands to the end of a word: the jaw is open while something is said."""
        first, self._n_shapes = self._n_shapes, max(self._n_shapes, spoken.end_ms * _SHAPES_PER_S // 1000)
        frames = [
            [
                0.5 if shape == _JAW_OPEN and n * 1000 >= spoken.at_ms * _SHAPES_PER_S else 0.0
                for shape in range(_N_SHAPES)
            ]
            for n in range(first, self._n_shapes)
        ]
        if frames:
            delta = {**where, "frames": frames, "frame_index": first}
            await self._outlet.emit("response.animation_blendshapes.delta", **delta)

    async def close_message(self, *, is_whole: bool) -> None:
        item = self._open
        if item is not None and self._has_marks:
            self._has_marks = False
            where = {**self._where(item), "content_index": 0}
            if self._has_words:
                await self._outlet.emit("response.audio_timestamp.done", **where)
            if self._has_visemes:
                await self._outlet.emit("response.animation_viseme.done", **where)
            if self._has_shapes:
                await self._outlet.emit("response.animation_blendshapes.done", **self._where(item))
        await super().close_message(is_whole=is_whole)


class VoiceLiveTranscripts(Transcripts):
    """Transcripts with phrases and their words, when the session includes them."""

    has_phrases = False

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._words: dict[str, tuple[Mapping[str, Any], ...]] = {}

    async def heard(self, heard: Heard) -> None:
        if not heard.is_partial and heard.words:
            self._words[heard.item_id] = heard.words
            while len(self._words) > _WORDS_KEPT:
                del self._words[next(iter(self._words))]
        await super().heard(heard)

    def details_of(self, item: Item) -> Mapping[str, Any]:
        words = self._words.pop(item.item_id, ())
        if not self.has_phrases or not words:
            return {}
        shown = [
            {
                "text": word["word"],
                "offset_milliseconds": word["at_ms"],
                "duration_milliseconds": word["end_ms"] - word["at_ms"],
            }
            for word in words
        ]
        start, end = words[0]["at_ms"], words[-1]["end_ms"]
        phrase = {"offset_milliseconds": start, "duration_milliseconds": end - start, "text": item.text}
        return {"phrases": [{**phrase, "words": shown, "locale": "en-US", "confidence": 0.9}]}


class VoiceLiveSession(RealtimeSession):
    """What differs from a Realtime session in what it takes and in what it tells."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._turn = ""
        self._texts: dict[str, str] = {}
        super().__init__(*arguments, **options)

    # -- settings -------------------------------------------------------------------------------

    def settings_of(self, session: Mapping[str, Any]) -> Settings:
        settings = super().settings_of(session)
        detection = session["audio"]["input"]["turn_detection"] or {}
        ending = detection.get("end_of_utterance_detection")
        if ending is None and detection.get("type", "server_vad") == "server_vad":
            return settings
        return attrs.evolve(settings, patience_ms=(ending or {}).get("timeout_ms") or _UTTERANCE_MS)

    def _use(self, session: dict[str, Any]) -> None:
        avatar = session.get("avatar")
        if avatar and not avatar.get("ice_servers"):
            avatar["ice_servers"] = [dict(server) for server in _ICE_SERVERS]
        super()._use(session)
        transcripts = self._transcripts
        assert isinstance(transcripts, VoiceLiveTranscripts)
        transcripts.has_phrases = PHRASES in (session.get("include") or ())

    async def _update(self, fields: Mapping[str, Any]) -> None:
        await super()._update(fields)
        session, asked = self.session, fields["session"]
        audio = asked.get("audio") or {}
        times = session.get("output_audio_timestamp_types")
        is_about_times = "output_audio_timestamp_types" in asked or "voice" in (audio.get("output") or {})
        if times and is_about_times and not is_azure_voice(session["audio"]["output"]["voice"]):
            await self._warn("Word timestamps are not available for this voice.", "timestamps_unavailable")
        if "transcription" not in (audio.get("input") or {}):
            return
        transcription = session["audio"]["input"]["transcription"] or {}
        for name in ("phrase_list", "custom_speech"):
            if transcription.get(name) and transcription.get("model") != "azure-speech":
                await self._warn(f"{name} is only used by azure-speech.", f"{name}_ignored")

    async def _warn(self, message: str, code: str) -> None:
        await self.outlet.emit("warning", warning={"message": message, "code": code})

    async def announce(self, item: Item, previous_id: str | None) -> None:
        if item.kind == "function_call_output":
            item.fields.pop("status", None)  # It has none here.
        await super().announce(item, previous_id)

    # -- responses ------------------------------------------------------------------------------

    async def _create_response(self, fields: Mapping[str, Any]) -> None:
        response = fields.get("response") or {}
        if response.get("cancel_previous") is not False:
            self.behaviour.cut(None)
        for item in response.get("append_input_items") or ():
            await self._requests.create_item({"item": item})
        said = response.get("pre_generated_assistant_message")
        if said is None:
            await super()._create_response(fields)
            return
        self._requests.read(response)
        await self.behaviour.speak(" ".join(part["text"] for part in said["content"]))

    async def _answer(self, happening: Happening) -> None:
        if isinstance(happening, WordSpoken):
            writer = self._writers.get(happening.response_id)
            if isinstance(writer, VoiceLiveWriter):
                await writer.word(happening)
            return
        await super()._answer(happening)

    # -- what only this service takes -----------------------------------------------------------

    async def _turn_start(self, fields: Mapping[str, Any]) -> None:
        self._turn = fields["turn_id"]
        self._buffer.clear()
        self.behaviour.discard()

    def _check_turn(self, fields: Mapping[str, Any]) -> None:
        if not self._turn or fields["turn_id"] != self._turn:
            raise Refused("There is no open turn of that id.", "invalid_value", "turn_id")

    async def _turn_append(self, fields: Mapping[str, Any]) -> None:
        self._check_turn(fields)
        try:
            audio = base64.b64decode(fields["audio"], validate=True)
        except (binascii.Error, ValueError):
            raise Refused(
                "Invalid 'audio'. Expected base64-encoded audio bytes.", "invalid_value", "audio"
            ) from None
        await self._append(audio)

    async def _turn_end(self, fields: Mapping[str, Any]) -> None:
        self._check_turn(fields)
        self._turn = ""
        await self._commit({})
        await self._create_response({})

    async def _turn_cancel(self, fields: Mapping[str, Any]) -> None:
        self._check_turn(fields)
        self._turn = ""
        self._buffer.clear()
        self.behaviour.discard()

    async def _text_delta(self, fields: Mapping[str, Any]) -> None:
        self._texts[fields["id"]] = self._texts.get(fields["id"], "") + fields["delta"]

    async def _text_done(self, fields: Mapping[str, Any]) -> None:
        text = self._texts.pop(fields["id"], None)
        if text is None:
            raise Refused("There is no open text of that id.", "invalid_value", "id")
        content = [{"type": "input_text", "text": text}]
        item = {"type": "message", "role": "user", "id": fields["id"], "content": content}
        await self._create_item({"item": item})

    async def _avatar_connect(self, _: Mapping[str, Any]) -> None:
        if not self.session.get("avatar"):
            raise Refused("The session has no avatar.", "invalid_value", "client_sdp")
        sdp = base64.b64encode(_SDP.encode()).decode("ascii")
        await self.outlet.emit("session.avatar.connecting", server_sdp=sdp)
        await self.outlet.emit("session.avatar.switch_to_idle")

    async def _output_clear(self, _: Mapping[str, Any]) -> None:
        await self.outlet.emit("output_audio_buffer.cleared", response_id="")

    writer_class: ClassVar[type[ResponseWriter]] = VoiceLiveWriter
    transcripts_class: ClassVar[type[Transcripts]] = VoiceLiveTranscripts
    handlers: ClassVar[Mapping[str, Callable[[Any, Mapping[str, Any]], Awaitable[None]]]] = {
        **RealtimeSession.handlers,
        "session.update": _update,
        "response.create": _create_response,
        "input_audio.clear": RealtimeSession._clear,
        "input_audio.turn.start": _turn_start,
        "input_audio.turn.append": _turn_append,
        "input_audio.turn.end": _turn_end,
        "input_audio.turn.cancel": _turn_cancel,
        "input_text.delta": _text_delta,
        "input_text.done": _text_done,
        "session.avatar.connect": _avatar_connect,
        "output_audio_buffer.clear": _output_clear,
    }
