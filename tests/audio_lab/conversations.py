"""Whole conversations through the engine on the virtual card, one process for each.

The agent is the mock; a tap of the engine puts noise in the place of its voice, so that each sample has one place.
Run as ``python -m tests.audio_lab.conversations NAME`` with a card's environment; prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.audio_lab.card import RATE, Card, ahead_of_others
from tests.audio_lab.sound import FADE_FRAMES, found_frames, hiss, loudest, place
from tests.meta.tree import ROOT
from voxengine import EventType, VoiceEngine, VoiceEngineConfig, hookimpl
from voxengine.audio.format import AudioFormat
from voxengine.audio.pcm import convert
from voxengine.audio.player import FlushMode
from voxengine.audio.wav import read_wav
from voxengine.events import Event
from voxengine.providers.registry import ProviderRegistry
from voxengine_mock import MockProvider

Result = dict[str, Any]
LONG = " ".join(["One two three four five six seven eight nine ten."] * 2)


class Heard(MockProvider):
    """The mock, with what it was sent."""

    sent = bytearray()

    def try_send_audio(self, audio_data: bytes) -> bool:
        is_taken = super().try_send_audio(audio_data)
        if is_taken:
            self.sent.extend(audio_data)
        return is_taken

    async def send_audio(self, audio_data: bytes) -> None:
        await super().send_audio(audio_data)
        self.sent.extend(audio_data)


class Noise:
    """Gives the agent a voice that can be found again."""

    def __init__(self) -> None:
        self.said = bytearray()
        self._n_chunks = 0

    @hookimpl
    def on_output(self, chunk: bytes) -> bytes:
        """Replace a chunk by noise."""
        self._n_chunks += 1
        noise = hiss(len(chunk) // 2, self._n_chunks)
        self.said += noise
        return noise


class Talk:
    """An engine that listens, what happens in it and what its agent says."""

    def __init__(self, **config: Any) -> None:
        registry = ProviderRegistry()
        registry.register("mock", Heard)
        self.noise = Noise()
        self.engine = VoiceEngine(
            VoiceEngineConfig(provider="mock", **config), taps=[self.noise], registry=registry
        )
        self.events: list[Event] = []
        self._changed = asyncio.Event()
        self.engine.events.on("*", self._note)

    def _note(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    def of(self, event_type: str) -> list[Event]:
        return [event for event in self.events if event.type == event_type]

    async def until(self, event_type: str, n: int = 1) -> list[Event]:
        async with asyncio.timeout(60):
            while len(self.of(event_type)) < n:
                self._changed.clear()
                await self._changed.wait()
        return self.of(event_type)

    async def rest(self) -> None:
        await self.engine.wait_idle()
        await self.engine.wait_played()
        await asyncio.sleep(0.2)


@asynccontextmanager
async def talking(**config: Any) -> AsyncIterator[Talk]:
    talk = Talk(**config)
    async with talk.engine:
        await talk.engine.start_listening()
        yield talk


def question() -> bytes:
    """Real speech from its first loud sample on, and the silence in which its end is noticed."""
    recorded = read_wav(ROOT / "examples" / "data" / "question.wav")
    data = convert(recorded.data, recorded.format, AudioFormat(RATE))
    first = next(n for n, value in enumerate(array("h", data)) if abs(value) > 2000)
    return data[2 * first :] + bytes(2 * RATE)


def n_loud_frames(data: bytes) -> int:
    return len(data.rstrip(b"\0")) // 2


async def conversation(card: Card) -> Result:
    """A spoken question is answered."""
    said = question()
    async with talking(metadata={"default": "It is sunny today."}) as talk:
        tap = card.tap()
        await asyncio.to_thread(card.speak, said)
        await talk.until(EventType.RESPONSE_COMPLETED)
        await talk.rest()
        recording = tap.stop()
        settings = dict(talk.engine.session.settings) if talk.engine.session is not None else {}
    answer = bytes(talk.noise.said)
    (stopped,) = talk.of(EventType.AUDIO_OUTPUT_STOPPED)
    return {
        "sent": [found_frames(bytes(Heard.sent), said), n_loud_frames(said)],
        "heard": [found_frames(recording, answer), len(answer) // 2],
        "played_ms": [stopped.played_ms, len(answer) // 2 * 1000 // RATE],
        "playback": settings["playback"],
        "dropped": len(talk.of(EventType.AUDIO_INPUT_DROPPED)),
        "order": [
            str(event.type)
            for event in talk.events
            if event.type
            in (
                EventType.SPEECH_STARTED,
                EventType.SPEECH_ENDED,
                EventType.RESPONSE_STARTED,
                "audio_output_started",
            )
        ],
    }


async def barge_in(card: Card, flush: FlushMode) -> Result:
    """The user speaks into a long answer."""
    async with talking(metadata={"default": LONG}, device_options={"flush": flush}) as talk:
        await talk.engine.send_text("Go on")
        await talk.until(EventType.AUDIO_OUTPUT_STARTED)
        tap = card.tap()
        await asyncio.sleep(1)
        speaking = asyncio.create_task(asyncio.to_thread(card.speak, question()))
        (cut, *_) = await talk.until(EventType.INTERRUPTED)
        said = bytes(talk.noise.said)
        await asyncio.sleep(0.5)
        recording = tap.read()
        await speaking
        tap.stop()
        item = talk.engine.history.items[1]
    n_before = said_before(recording, said)
    n_found = n_before + found_frames(recording, said[2 * n_before :])
    end = place(recording, said[2 * n_before :]) + n_found - n_before
    silence = recording[2 * (end + 2 * FADE_FRAMES) :]
    return {
        "heard_frames": (cut.heard_ms or 0) * RATE // 1000,
        "found_frames": n_found,
        "silence": [len(silence) // 2, loudest(silence)],
        "item_ms": [item.heard_ms, cut.heard_ms],
        "is_part": bool(item.heard_text) and LONG.startswith(item.heard_text or "?"),
    }


def said_before(recording: bytes, said: bytes) -> int:
    """How many frames of what was said had been played when the recording began."""
    step = RATE // 100
    return next(n for n in range(0, len(said) // 2, step) if place(recording, said[2 * n :]) >= 0)


async def loss(card: Card, lose: Callable[[], None], restore: Callable[[], None]) -> Result:
    """Both devices are lost in mid-answer; the conversation goes on, and so do they."""
    said = question()
    async with talking(metadata={"default": LONG, "responses": {"Short": "It is sunny."}}) as talk:
        await talk.engine.send_text("Go on")
        await talk.until(EventType.AUDIO_OUTPUT_STARTED)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(lose)
        lost = await talk.until(EventType.ERROR_AUDIO, 2)
        is_connected = talk.engine.is_connected
        await talk.until(EventType.AUDIO_OUTPUT_STOPPED)
        n_answer = len(talk.noise.said)
        await asyncio.to_thread(restore)
        await talk.until(EventType.WARNING, 2)
        tap = card.tap()
        await talk.engine.send_text("Short")
        await talk.until(EventType.RESPONSE_COMPLETED, 2)
        await talk.rest()
        recording = tap.stop()
        Heard.sent.clear()
        again = bytes(talk.noise.said[n_answer:])
        await asyncio.to_thread(card.speak, said)
        await talk.until(EventType.RESPONSE_STARTED, 3)
        talk.engine.interrupt()
    (stopped, *_) = talk.of(EventType.AUDIO_OUTPUT_STOPPED)
    return {
        "lost": sorted((event.data["direction"], event.data["reason"]) for event in lost[:2]),
        "is_recoverable": [event.recoverable for event in lost],
        "back": sorted(event.data["code"] for event in talk.of(EventType.WARNING)),
        "is_connected": is_connected,
        "played_ms": [stopped.played_ms, n_answer // 2 * 1000 // RATE],
        "again": [found_frames(recording, again), len(again) // 2],
        "sent": [found_frames(bytes(Heard.sent), said), n_loud_frames(said)],
        "cut": len(talk.of(EventType.CONNECTION_LOST)),
    }


async def leave_frozen(card: Card) -> Result:
    """The sound server hangs, and the engine and the program end."""
    async with talking(metadata={"default": LONG}) as talk:
        await talk.engine.send_text("Go on")
        await talk.until(EventType.AUDIO_OUTPUT_STARTED)
        await asyncio.sleep(0.5)
        card.freeze()
        await asyncio.sleep(0.1)
    (item,) = [item for item in talk.engine.history if item.kind == "agent"]
    return {
        "heard": item.heard_ms is not None and item.heard_ms > 0,
        "ended": len(talk.of("connection_closed")),
    }


CONVERSATIONS: dict[str, Callable[[Card], Awaitable[Result]]] = {
    "conversation": conversation,
    "soft": lambda card: barge_in(card, "soft"),
    "hard": lambda card: barge_in(card, "hard"),
    "unplug": lambda card: loss(card, card.unplug, card.replug),
    "freeze": lambda card: loss(card, card.freeze, card.thaw),
    "kill": lambda card: loss(card, card.kill, card.restart),
    "leave_frozen": leave_frozen,
}


async def main(name: str) -> None:
    ahead_of_others(0)
    print(json.dumps(await CONVERSATIONS[name](Card.attach())))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
