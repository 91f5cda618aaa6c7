"""One response of the agent while it is being given."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final

import attrs

from voxengine_mock.script import Answer, Script
from voxengine_mock.settings import Settings
from voxengine_mock.voice import DEFAULT_VOICE, VOICES, Speech, ToneSpeech, Unit, Voice

__all__ = ["Cut", "Piece", "Response", "Spoken", "make_speech", "resolve_voice", "uses_espeak"]

_PIECE_MS: Final = 100


class Cut(Exception):
    """The response was asked to stop; ``status`` says as what it ends."""

    def __init__(self, status: str = "cancelled") -> None:
        super().__init__(status)
        self.status = status


@attrs.frozen
class Piece:
    """The next stretch of speech: its times, and the words that begin in it."""

    from_ms: int
    to_ms: int
    units: tuple[Unit, ...]


@attrs.define
class Spoken:
    """What was sent of one item, for cutting it at what was heard."""

    text: str = attrs.field(default="", repr=False)
    sent_ms: int = 0
    _ends: list[tuple[int, int]] = attrs.field(factory=list, repr=False)
    """For each word, when it has been spoken and where the text stands then."""

    def schedule(self, speech: Speech, base_ms: int) -> Iterator[Piece]:
        """Cut a speech that begins at ``base_ms`` of the item into pieces of 100 ms, and note its words."""
        waiting = deque(speech.units)
        base_text = len(self.text)
        for from_ms in range(0, speech.duration_ms, _PIECE_MS):
            to_ms = min(from_ms + _PIECE_MS, speech.duration_ms)
            units = []
            while waiting and waiting[0].at_ms < to_ms:
                unit = waiting.popleft()
                self._ends.append((base_ms + unit.end_ms, base_text + unit.end))
                units.append(unit)
            yield Piece(from_ms, to_ms, tuple(units))

    def heard(self, played_ms: int) -> tuple[int, str]:
        """Return how much was heard when so much was played: at most what was sent, in whole words."""
        heard_ms = max(0, min(played_ms, self.sent_ms))
        end = 0
        for end_ms, position in self._ends:
            if end_ms > heard_ms:
                break
            end = position
        return heard_ms, self.text[:end].rstrip()


@attrs.define(eq=False)
class Response:
    """A response from its request to its end."""

    response_id: str
    item_id: str
    """Of the words that are being said."""
    trigger: str
    answer: Answer
    names: dict[str, Any] = attrs.field(repr=False)
    """What the places in the answer stand for."""
    settings: Settings
    """What holds for this one."""
    is_beside: bool = False
    """Given beside the others, without waiting for its turn."""
    tag: Any = attrs.field(default=None, repr=False)
    number: int = 0
    """Which of the session's responses it is, from 1."""
    reason: str = ""
    """Why it was asked to stop."""
    delay_s: float = 0.0
    task: asyncio.Task[None] | None = None
    is_over: bool = False
    """Whether its ending was decided; from then on it cannot be cut."""
    n_tokens: int = 0
    """Words said."""
    sent_ms: int = 0
    """Audio sent."""
    n_chars: int = 0
    """Letters to be said, so far."""
    played_ms: int | None = None
    """How much of it the client had played when it asked for the cut."""
    spoken: Spoken = attrs.field(factory=Spoken)
    _pieces: deque[str] = attrs.field(factory=deque, repr=False)
    _is_complete: bool = False
    _changed: asyncio.Event = attrs.field(factory=asyncio.Event)
    _cut: asyncio.Event = attrs.field(factory=asyncio.Event)

    def add(self, text: str, *, is_last: bool) -> None:
        """Append text to be said."""
        self._pieces.append(text)
        self.n_chars += len(text)
        self._is_complete = is_last
        self._changed.set()

    async def next_piece(self) -> str | None:
        """Return the next text, waiting for it; None after the last. Raises Cut."""
        while True:
            self.check()
            if self._pieces:
                return self._pieces.popleft()
            if self._is_complete:
                return None
            self._changed.clear()
            await self._changed.wait()

    @property
    def is_cut(self) -> bool:
        """Whether it was asked to stop."""
        return self._cut.is_set()

    def next_item(self, item_id: str) -> None:
        """Say what follows as an item of its own."""
        self.item_id = item_id
        self.spoken = Spoken()

    def cut(self, played_ms: int | None, reason: str = "client") -> None:
        """Ask it to stop. The first request that says how much was played counts, and the first reason."""
        if self.played_ms is None:
            self.played_ms = played_ms
        self.reason = self.reason or reason
        self._cut.set()
        self._changed.set()

    def check(self) -> None:
        """Raise Cut when it was asked to stop."""
        if self._cut.is_set():
            raise Cut

    async def pause(self, delay_s: float) -> None:
        """Wait. Raises Cut as soon as it is asked to stop."""
        if delay_s <= 0:
            await asyncio.sleep(0)
            self.check()
            return
        try:
            async with asyncio.timeout(delay_s):
                await self._cut.wait()
        except TimeoutError:
            return
        raise Cut


def uses_espeak(settings: Settings, script: Script) -> bool:
    """Return whether speech is made by eSpeak NG."""
    return settings.audio and (script.synthesizer == "espeak" or settings.voice == "espeak")


def resolve_voice(settings: Settings, script: Script) -> Voice:
    """Return the voice that speaks: the session's, else the script's, else the default one."""
    for name in (settings.voice, script.voice or ""):
        if name in VOICES:
            return VOICES[name]
    return VOICES[DEFAULT_VOICE]


async def make_speech(
    text: str,
    settings: Settings,
    script: Script,
    *,
    duration_ms: float | None = None,
    at_ms: Sequence[float] = (),
) -> Speech:
    """Prepare a text for speaking in the session's voice.

    Args:
        duration_ms: How long it takes, in place of the script's speed. Real speech has its own time.
        at_ms: When each word begins. The same holds.
    """
    voice = resolve_voice(settings, script)
    words_per_minute = script.words_per_minute * settings.speed
    if uses_espeak(settings, script):
        from voxengine_mock.espeak import EspeakSpeech

        return await EspeakSpeech.make(
            text,
            voice,
            settings.output_rate,
            language=settings.language,
            words_per_minute=words_per_minute,
        )
    return ToneSpeech(
        text, voice, settings.output_rate, words_per_minute, duration_ms=duration_ms, at_ms=at_ms
    )
