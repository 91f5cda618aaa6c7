"""The service's end of a recognition: hears loud audio as speech, and understands what the script says."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from voxengine.audio.format import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE
from voxengine.errors import ErrorCode
from voxengine.testing.emulator import EmulatorSession
from voxengine_azure.emulator.speech_end import ServiceEnd, find
from voxengine_azure.emulator.wav import WavStream
from voxengine_azure.speech.codec import AudioFrame, SpeechMessage, ticks
from voxengine_mock.happenings import Failed, Happening, Heard, SpeechEnded, SpeechStarted
from voxengine_mock.settings import Settings

__all__ = ["Recogniser"]

_INITIAL_SILENCE_MS: Final = {"interactive": 5000, "conversation": 15_000, "dictation": 15_000}
_STATUS: Final = {
    ErrorCode.RATE_LIMIT: "TooManyRequests",
    ErrorCode.QUOTA: "TooManyRequests",
    ErrorCode.AUTHENTICATION: "Forbidden",
    ErrorCode.PERMISSION: "Forbidden",
    ErrorCode.INVALID_REQUEST: "BadRequest",
}
_PUNCTUATION: Final = re.compile(r"[.,!?;:…]+(?=\s|$)")
_CONFIDENCE: Final = 0.93


@attrs.define
class _Turn:
    """One turn of the protocol, and how its results are wanted."""

    request_id: str
    mode: str = "conversation"
    is_detailed: bool = False
    has_words: bool = False
    has_word_confidence: bool = False
    languages: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()
    is_diarized: bool = False
    silence_ms: int = 500
    initial_silence_ms: int = 15_000
    base_ms: int = 0
    """What the agent had heard before the turn."""
    has_speech: bool = False
    n_open: int = 0
    """Utterances whose final text has not been told."""
    n_phrases: int = 0
    is_closing: bool = False


class Recogniser(ServiceEnd):
    """One recognition connection."""

    def __init__(self, session: EmulatorSession, new_id: Callable[[str], str]) -> None:
        super().__init__(session, new_id)
        self._turn: _Turn | None = None
        self._audio = WavStream()
        self._ended: str = ""
        """The turn that ended last: what still comes of it is passed over."""
        self._spans: dict[str, list[int]] = {}
        """Begin and end of each utterance."""

    # -- what the client says -------------------------------------------------------------------

    async def take(self, message: SpeechMessage) -> None:
        if message.path == "speech.context":
            await self._begin(message.request_id, message.body)

    async def take_audio(self, frame: AudioFrame) -> None:
        if frame.request_id == self._ended or not frame.request_id:
            return
        if self._turn is None or self._turn.request_id != frame.request_id:
            await self._begin(frame.request_id, {})
        turn = self._turn
        assert turn is not None
        if not frame.data:
            turn.is_closing = True
            await self.behaviour.end_turn(respond=False)
            await self._settle(turn)
            return
        pcm = self._audio.push(frame.data)
        if pcm is None or not MIN_SAMPLE_RATE <= self._audio.sample_rate <= MAX_SAMPLE_RATE:
            await self.session.close(1007, "The audio format is not supported.")
            return
        self._listen(turn)
        if pcm:
            if self.session.log is not None:
                self.session.log.audio(pcm, self._audio.sample_rate)
            await self.behaviour.hear(pcm)
            await self._check_silence(turn)

    async def _begin(self, request_id: str, body: object) -> None:
        self.behaviour.discard()
        self._audio = WavStream()
        self._turn = turn = self._wanted(request_id, body)
        turn.base_ms = self.behaviour.audio_ms
        await self.say("turn.start", {"context": {"serviceTag": self.new_id("tag")}}, request_id)

    def _wanted(self, request_id: str, body: object) -> _Turn:
        query, path = self.session.request.query, self.session.request.path
        named = re.search(r"/recognition/(\w+)/", path)
        mode = named[1] if named else str(find(body, "phraseDetection", "mode") or "conversation").lower()
        options = find(body, "phraseOutput", "detailed", "options")
        options = [str(item).lower() for item in options] if isinstance(options, list) else []
        output = str(find(body, "phraseOutput", "format") or query.get("format", "simple")).lower()
        languages = find(body, "languageId", "languages")
        segmentation = find(body, "phraseDetection", mode, "segmentation")
        return _Turn(
            request_id,
            mode=mode,
            is_detailed=output == "detailed" or query.get("format") == "detailed",
            has_words="wordtimings" in options or query.get("wordLevelTimestamps") == "true",
            has_word_confidence="wordconfidence" in options or query.get("wordLevelConfidence") == "true",
            languages=tuple(map(str, languages)) if isinstance(languages, list) else (),
            phrases=_phrases(body),
            is_diarized=find(body, "phraseDetection", "speakerDiarization") is not None,
            silence_ms=_ms(
                500,
                find(segmentation, "segmentationSilenceTimeoutMs"),
                find(body, "phraseDetection", "trailingSilenceTimeout"),
                query.get("segmentationSilenceTimeoutMs"),
                query.get("endSilenceTimeoutMs"),
            ),
            initial_silence_ms=_ms(
                _INITIAL_SILENCE_MS.get(mode, 15_000),
                find(body, "phraseDetection", "initialSilenceTimeout"),
                query.get("initialSilenceTimeoutMs"),
            ),
        )

    def _listen(self, turn: _Turn) -> None:
        wanted = Settings(
            input_rate=self._audio.sample_rate,
            silence_ms=turn.silence_ms,
            create_response=False,
            interrupt_response=False,
        )
        if self.behaviour.settings != wanted:
            self.behaviour.configure(wanted)
            turn.base_ms = self.behaviour.audio_ms

    async def _check_silence(self, turn: _Turn) -> None:
        if turn is not self._turn or turn.has_speech or turn.n_phrases:
            return
        heard_ms = self.behaviour.audio_ms - turn.base_ms
        if heard_ms >= turn.initial_silence_ms:
            await self._no_speech(turn, heard_ms)

    async def _no_speech(self, turn: _Turn, heard_ms: int) -> None:
        turn.n_phrases += 1
        await self._no_words(turn, "InitialSilenceTimeout", heard_ms)
        if turn.mode == "interactive":
            await self._end(turn)

    async def _no_words(self, turn: _Turn, status: str, heard_ms: int) -> None:
        body: dict[str, Any] = {"Id": self.new_id("phrase"), "RecognitionStatus": status}
        body |= {"Offset": 0, "Duration": ticks(heard_ms)}
        await self.say("speech.phrase", body, turn.request_id)

    # -- what the agent brings about ------------------------------------------------------------

    async def tell(self, happening: Happening) -> None:
        turn = self._turn
        if turn is None:
            return
        if isinstance(happening, SpeechStarted):
            self._spans[happening.item_id] = [happening.at_ms, happening.at_ms]
            turn.n_open += 1
            if not turn.has_speech:
                turn.has_speech = True
                body = {"Offset": ticks(happening.at_ms - turn.base_ms)}
                await self.say("speech.startDetected", body, turn.request_id)
        elif isinstance(happening, SpeechEnded):
            self._spans.setdefault(happening.item_id, [happening.at_ms, 0])[1] = happening.at_ms
        elif isinstance(happening, Heard):
            await self._heard(turn, happening)
        elif isinstance(happening, Failed):
            await self._no_words(turn, _STATUS.get(happening.code, "Error"), 0)
            await self._end(turn)

    async def _heard(self, turn: _Turn, heard: Heard) -> None:
        begin_ms, end_ms = self._spans.get(heard.item_id, (turn.base_ms, turn.base_ms))
        if heard.is_partial:
            end_ms = max(begin_ms, self.behaviour.audio_ms)
        body: dict[str, Any] = {
            "Id": self.new_id("phrase"),
            "Offset": ticks(begin_ms - turn.base_ms),
            "Duration": ticks(max(0, end_ms - begin_ms)),
        }
        if turn.languages:
            body["PrimaryLanguage"] = {"Language": turn.languages[0], "Confidence": "High"}
        if turn.is_diarized:
            body["SpeakerId"] = "Guest-1"
        if heard.is_partial:
            path = "speech.fragment" if turn.mode == "dictation" else "speech.hypothesis"
            await self.say(path, {**body, "Text": _lexical(heard.text)}, turn.request_id)
            return
        self._spans.pop(heard.item_id, None)
        turn.n_open = max(0, turn.n_open - 1)
        turn.n_phrases += 1
        if turn.mode == "interactive":
            detected = {"Offset": ticks(end_ms - turn.base_ms)}
            await self.say("speech.endDetected", detected, turn.request_id)
        await self.say("speech.phrase", {**body, **self._phrase(turn, heard)}, turn.request_id)
        if turn.mode == "interactive":
            await self._end(turn)
        else:
            await self._settle(turn)

    def _phrase(self, turn: _Turn, heard: Heard) -> dict[str, Any]:
        display = _display(heard.text, turn.phrases)
        body: dict[str, Any] = {"RecognitionStatus": "Success", "DisplayText": display, "Channel": 0}
        if not turn.is_detailed:
            return body
        best: dict[str, Any] = {
            "Confidence": _CONFIDENCE,
            "Lexical": _lexical(heard.text),
            "ITN": _lexical(heard.text),
            "MaskedITN": _lexical(heard.text),
            "Display": display,
        }
        if turn.has_words:
            best["Words"] = [_word(turn, word) for word in heard.words]
        return {**body, "NBest": [best]}

    async def _settle(self, turn: _Turn) -> None:
        """End the turn when its audio is complete and every word of it was told."""
        if turn is not self._turn or not turn.is_closing or turn.n_open:
            return
        if not turn.n_phrases and turn.mode == "interactive":
            await self._no_speech(turn, self.behaviour.audio_ms - turn.base_ms)
            return
        if turn.has_speech:
            offset = ticks(self.behaviour.audio_ms - turn.base_ms)
            await self.say("speech.endDetected", {"Offset": offset}, turn.request_id)
        await self._end(turn)

    async def _end(self, turn: _Turn) -> None:
        if turn is self._turn:
            self._turn, self._ended = None, turn.request_id
            self._spans.clear()
            self.behaviour.discard()
            await self.say("turn.end", {}, turn.request_id)


def _phrases(body: object) -> tuple[str, ...]:
    groups = find(body, "dgi", "groups")
    found: list[str] = []
    for group in groups if isinstance(groups, list) else ():
        items = find(group, "items")
        for item in items if isinstance(items, list) else ():
            text = find(item, "text")
            if isinstance(text, str) and text.strip():
                found.append(text.strip())
    return tuple(found)


def _ms(default: int, *values: object) -> int:
    """Return the first value that is a sensible time."""
    for value in values:
        text = str(value)
        if text.isdecimal() and 20 <= int(text) <= 60_000:
            return int(text)
    return default


def _lexical(text: str) -> str:
    return _PUNCTUATION.sub("", text).lower() or "…"


def _display(text: str, phrases: tuple[str, ...]) -> str:
    """Return a text as it is shown: as a sentence, and with the phrase list's own spelling."""
    shown = text[:1].upper() + text[1:]
    for phrase in phrases:
        spelled = phrase.replace("\\", r"\\")
        shown = re.sub(rf"(?<!\w){re.escape(phrase)}(?!\w)", spelled, shown, flags=re.IGNORECASE)
    return shown if not shown or shown[-1] in ".!?…" else f"{shown}."


def _word(turn: _Turn, word: Mapping[str, Any]) -> dict[str, Any]:
    found = {
        "Word": _lexical(word["word"]),
        "Offset": ticks(word["at_ms"] - turn.base_ms),
        "Duration": ticks(word["end_ms"] - word["at_ms"]),
    }
    return {**found, "Confidence": _CONFIDENCE} if turn.has_word_confidence else found
