"""The service's end of a synthesis: says texts in a synthetic voice, with the times of their words."""

from __future__ import annotations

import re
import zlib
from collections import deque
from collections.abc import Callable
from typing import Any, Final
from xml.etree import ElementTree

import attrs

from voxengine.audio.format import AudioFormat, Encoding
from voxengine.audio.g711 import encode
from voxengine.errors import ErrorCode
from voxengine.testing.emulator import EmulatorSession
from voxengine_azure.emulator.speech_end import ServiceEnd, find, is_true
from voxengine_azure.speech.codec import AudioFrame, SpeechMessage, ticks
from voxengine_azure.speech.settings import riff_header
from voxengine_mock.happenings import (
    Failed,
    Happening,
    ResponseEnded,
    ResponseStarted,
    Sounded,
    WordSpoken,
)
from voxengine_mock.settings import Settings
from voxengine_mock.voice import VOICES

__all__ = ["Synthesiser", "Utterance", "read_ssml"]

_FORMAT: Final = re.compile(r"(raw|riff)-(8|16|24|48)khz-(16bit-mono-pcm|8bit-mono-(mulaw|alaw))")
_LAWS: Final = {"mulaw": Encoding.G711_ULAW, "alaw": Encoding.G711_ALAW}
_VOICE: Final = re.compile(
    r"[a-z]{2,3}-[A-Za-z]{2,4}(-[A-Za-z]+)*-[A-Za-z]+([-:][A-Za-z0-9]+)*Neural[\w:]*", re.ASCII
)
_RATES: Final = {"x-slow": 0.5, "slow": 0.75, "medium": 1.0, "default": 1.0, "fast": 1.25, "x-fast": 1.5}
_EDGES: Final = re.compile(r"^(\W*)(.*?)(\W*)$", re.DOTALL)
_N_VISEMES: Final = 22
_STRENGTHS: Final = {"none": 0, "x-weak": 250, "weak": 500, "medium": 750, "strong": 1000, "x-strong": 1250}
_MOST_BREAK_MS: Final = 20_000
_SILENCE_MS: Final = 200
"""Of one message."""


class _Refused(Exception):
    """The request cannot be said; the text is what the connection is closed with."""


@attrs.frozen
class Utterance:
    """What a document asks to be said."""

    text: str = attrs.field(repr=False)
    voice: str
    language: str = "en-US"
    speed: float = 1.0
    bookmarks: tuple[tuple[int, str], ...] = ()
    """Each with the letter before which it stands."""
    breaks: tuple[tuple[int, int], ...] = ()
    """Milliseconds of silence, each after the letter before which it stands."""


@attrs.define
class _Request:
    """One turn of the protocol."""

    request_id: str
    law: Encoding | None = None
    header: bytes = b""
    """What goes before the samples."""
    rate: int = 16_000
    flags: frozenset[str] = frozenset()
    utterance: Utterance = Utterance("", "")
    stream_id: str = ""
    found_to: int = 0
    bookmarks: deque[tuple[int, str]] = attrs.field(factory=deque)
    breaks: deque[tuple[int, int]] = attrs.field(factory=deque)
    break_ms: int = 0
    """Silence so far, by which everything later is late."""
    n_bytes: int = 0


class Synthesiser(ServiceEnd):
    """One synthesis connection."""

    def __init__(self, session: EmulatorSession, new_id: Callable[[str], str]) -> None:
        super().__init__(session, new_id)
        self._contexts: dict[str, Any] = {}
        self._asked: deque[_Request] = deque()
        """In the order in which they will be said."""
        self._current: _Request | None = None
        self._streaming: _Request | None = None
        """Its text comes in pieces."""

    # -- what the client says -------------------------------------------------------------------

    async def take_audio(self, frame: AudioFrame) -> None:
        """Clients send none."""

    async def take(self, message: SpeechMessage) -> None:
        try:
            await self._take(message)
        except _Refused as refusal:
            await self.session.close(1007, str(refusal))

    async def _take(self, message: SpeechMessage) -> None:
        request_id = message.request_id
        if message.path == "synthesis.context":
            self._contexts = {request_id: message.body}
            given = find(message.body, "synthesis", "input")
            if is_true(find(given, "bidirectionalStreamingMode")):
                await self._begin_pieces(request_id, given)
        elif message.path == "ssml":
            await self._begin(request_id, read_ssml(message.body))
            await self.behaviour.speak(self._asked[-1].utterance.text)
        elif message.path == "text.piece" and self._streaming is not None:
            self._streaming.utterance = attrs.evolve(
                self._streaming.utterance, text=self._streaming.utterance.text + message.body
            )
            await self.behaviour.speak(message.body, is_last=False)
        elif message.path == "text.end" and self._streaming is not None:
            self._streaming = None
            await self.behaviour.speak("", is_last=True)
        elif message.path == "synthesis.control" and find(message.body, "action") == "stop":
            self.behaviour.cut(None)

    async def _begin_pieces(self, request_id: str, given: object) -> None:
        voice, language = find(given, "voiceName"), find(given, "language")
        utterance = Utterance("", str(voice or "en-US-JennyNeural"), str(language or "en-US"))
        await self._begin(request_id, _checked(utterance))
        self._streaming = self._asked[-1]
        await self.behaviour.speak("", is_last=False)

    async def _begin(self, request_id: str, utterance: Utterance) -> None:
        request = _request(request_id, self._contexts.get(request_id, {}), utterance)
        self._asked.append(request)
        names = sorted(VOICES)
        self.behaviour.configure(
            Settings(
                output_rate=request.rate,
                voice=""
                if self.session.script.voice
                else names[zlib.crc32(utterance.voice.encode()) % len(names)],
                speed=utterance.speed,
                language=utterance.language,
            )
        )
        await self.behaviour.first_input()
        await self.say("turn.start", {"context": {"serviceTag": self.new_id("tag")}}, request_id)

    # -- what the agent brings about ------------------------------------------------------------

    async def tell(self, happening: Happening) -> None:
        if isinstance(happening, ResponseStarted):
            self._current = self._asked.popleft()
            await self._respond(self._current)
        request = self._current
        if isinstance(happening, Failed):
            code = 1007 if happening.code is ErrorCode.INVALID_REQUEST else 1011
            await self.session.close(code, happening.message)
        elif request is None:
            return
        elif isinstance(happening, WordSpoken):
            await self._word(request, happening)
        elif isinstance(happening, Sounded):
            await self._say_pcm(request, happening.pcm)
        elif isinstance(happening, ResponseEnded):
            self._current = None
            if happening.status == "completed":
                await self._pause(request, len(request.utterance.text))
                await self._sound(request, b"")
            if "sessionend" in request.flags:
                ended = ticks(request.n_bytes / 2 / request.rate * 1000)
                await self._metadata(request, "SessionEnd", {"Offset": ended})
            await self.say("turn.end", {}, request.request_id)

    async def _respond(self, request: _Request) -> None:
        request.stream_id = self.new_id("stream").upper()
        request.bookmarks.extend(request.utterance.bookmarks)
        request.breaks.extend(request.utterance.breaks)
        audio = {"type": "inline", "streamId": request.stream_id}
        body = {"context": {"serviceTag": self.new_id("tag")}, "audio": audio}
        await self.say("response", body, request.request_id)

    async def _sound(self, request: _Request, data: bytes) -> None:
        await self.send(AudioFrame(data, request.request_id, request.stream_id, "audio/x-wav"))

    async def _say_pcm(self, request: _Request, pcm: bytes) -> None:
        request.n_bytes += len(pcm)
        await self._sound(
            request, request.header + (pcm if request.law is None else encode(pcm, request.law))
        )
        request.header = b""

    async def _pause(self, request: _Request, position: int) -> None:
        """Be silent for the breaks before a letter."""
        while request.breaks and request.breaks[0][0] <= position:
            _, left_ms = request.breaks.popleft()
            request.break_ms += left_ms
            while left_ms > 0:
                await self._say_pcm(request, bytes(2 * (min(left_ms, _SILENCE_MS) * request.rate // 1000)))
                left_ms -= _SILENCE_MS

    async def _word(self, request: _Request, spoken: WordSpoken) -> None:
        found = _EDGES.match(spoken.word)
        assert found is not None
        _, word, tail = found.groups()
        at = request.utterance.text.find(spoken.word, request.found_to)
        if at >= 0:
            request.found_to = at + len(spoken.word)
        await self._pause(request, at)
        late_ms = request.break_ms
        spoken = attrs.evolve(spoken, at_ms=spoken.at_ms + late_ms, end_ms=spoken.end_ms + late_ms)
        while request.bookmarks and request.bookmarks[0][0] <= max(at, 0):
            _, name = request.bookmarks.popleft()
            if "bookmark" in request.flags:
                await self._metadata(request, "Bookmark", {"Offset": ticks(spoken.at_ms), "Bookmark": name})
        if word and "wordboundary" in request.flags:
            await self._boundary(request, word, spoken.at_ms, spoken.end_ms, "WordBoundary")
        if tail and "punctuationboundary" in request.flags:
            await self._boundary(request, tail, spoken.end_ms, spoken.end_ms, "PunctuationBoundary")
        if word and "viseme" in request.flags:
            for n, at_ms in enumerate(range(spoken.at_ms, max(spoken.end_ms, spoken.at_ms + 1), 80)):
                number = 1 + zlib.crc32(f"{word}{n}".encode()) % (_N_VISEMES - 1)
                data = {"Offset": ticks(at_ms), "VisemeId": number, "IsLastAnimation": True}
                await self._metadata(request, "Viseme", data)

    async def _boundary(self, request: _Request, text: str, at_ms: int, end_ms: int, kind: str) -> None:
        shown = {"Text": text, "Length": len(text), "BoundaryType": kind}
        data = {"Offset": ticks(at_ms), "Duration": ticks(end_ms - at_ms), "text": shown}
        await self._metadata(request, "WordBoundary", data)

    async def _metadata(self, request: _Request, kind: str, data: dict[str, Any]) -> None:
        await self.say("audio.metadata", {"Metadata": [{"Type": kind, "Data": data}]}, request.request_id)


def _request(request_id: str, context: object, utterance: Utterance) -> _Request:
    audio = find(context, "synthesis", "audio")
    name = str(find(audio, "outputFormat") or "riff-24khz-16bit-mono-pcm").lower()
    found = _FORMAT.fullmatch(name)
    if found is None:
        raise _Refused(f"The emulator does not make the output format {name[:60]!r}.")
    rate, law = int(found[2]) * 1000, _LAWS.get(found[4] or "")
    options = find(audio, "metadataOptions")
    flags = (
        {str(key).lower().removesuffix("enabled") for key, value in options.items() if is_true(value)}
        if isinstance(options, dict)
        else set()
    )
    form = AudioFormat(rate, encoding=law or Encoding.PCM16)
    header = riff_header(form) if found[1] == "riff" else b""
    return _Request(request_id, law, header, rate, frozenset(flags), utterance)


def read_ssml(document: str) -> Utterance:
    """Return what a document asks to be said. Raises an error that says why it cannot be."""
    if "<!" in document:  # No entities, which could grow without bound.
        raise _Refused("Invalid SSML: declarations are not allowed.")
    try:
        root = ElementTree.fromstring(document)
    except ElementTree.ParseError as error:
        raise _Refused(f"Invalid SSML: it cannot be parsed at line {error.position[0]}.") from None
    voices = [node for node in root.iter() if _tag(node) == "voice"]
    if _tag(root) != "speak" or not voices or not voices[0].get("name"):
        raise _Refused("Invalid SSML: it has no voice element with a name.")
    speed = 1.0
    parts: list[str] = []
    bookmarks: list[tuple[int, str]] = []
    breaks: list[tuple[int, int]] = []

    def collect(node: ElementTree.Element) -> None:
        nonlocal speed
        if _tag(node) == "prosody" and node.get("rate"):
            speed = _speed(str(node.get("rate")))
        if _tag(node) == "bookmark":
            bookmarks.append((sum(map(len, parts)), str(node.get("mark") or "")))
        if _tag(node) == "break":
            breaks.append((sum(map(len, parts)), _break_ms(node)))
        parts.append(node.text or "")
        for child in node:
            collect(child)
            parts.append(child.tail or "")

    collect(root)
    language = root.get("{http://www.w3.org/XML/1998/namespace}lang") or "en-US"
    voice, marks = str(voices[0].get("name")), tuple(bookmarks)
    return _checked(Utterance("".join(parts), voice, language, speed, marks, tuple(breaks)))


def _tag(node: ElementTree.Element) -> str:
    return str(node.tag).rpartition("}")[2].lower()


def _checked(utterance: Utterance) -> Utterance:
    if not _VOICE.fullmatch(utterance.voice):
        raise _Refused(f"Unsupported voice {utterance.voice[:60]}.")
    return utterance


def _break_ms(node: ElementTree.Element) -> int:
    """Return how long a break is; one that says nothing of use is of medium strength."""
    found = re.fullmatch(r"\+?(\d{1,6}(?:\.\d+)?)(ms|s)", (node.get("time") or "").strip())
    if found is None:
        return _STRENGTHS.get(node.get("strength") or "medium", _STRENGTHS["medium"])
    return min(_MOST_BREAK_MS, int(float(found[1]) * (1000 if found[2] == "s" else 1)))


def _speed(rate: str) -> float:
    if rate in _RATES:
        return _RATES[rate]
    found = re.fullmatch(r"([+-]?)(\d+(?:\.\d+)?)(%?)", rate)
    if found is None:
        return 1.0
    amount = float(found[2])
    if found[3]:
        amount = 1 + (-amount if found[1] == "-" else amount) / 100
    return min(3.0, max(0.5, amount))
