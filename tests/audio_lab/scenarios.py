"""What happens on the virtual card, one process for each: a device that hangs can then harm no other test.

Run as ``python -m tests.audio_lab.scenarios NAME`` with a card's environment; prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from tests.audio_lab.card import RATE, Card, ahead_of_others
from tests.audio_lab.sound import FADE_FRAMES, found_frames, hiss, loudest, place
from voxengine.audio.backends.pyaudio import PyAudioBackend
from voxengine.audio.capture import Microphone
from voxengine.audio.devices import DeviceLost, DeviceOutcome, DeviceReturned
from voxengine.audio.format import AudioFormat
from voxengine.audio.player import DevicePlaybackClock, FlushMode

FORMAT = AudioFormat(RATE)
Result = dict[str, Any]


class Ear:
    """Listens to the clock and to the fate of its device."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.stopped: dict[str, int] = {}
        self.outcomes: list[DeviceOutcome] = []
        self._changed = asyncio.Event()

    def playback_started(self, item: str) -> None:
        self.started.append(item)
        self._changed.set()

    def playback_stopped(self, item: str, played_ms: int) -> None:
        self.stopped[item] = played_ms
        self._changed.set()

    def report(self, outcome: DeviceOutcome) -> None:
        self.outcomes.append(outcome)
        self._changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(40):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    async def outcome(self, kind: type[DeviceOutcome], n_before: int = 0) -> DeviceOutcome:
        await self.until(lambda: any(isinstance(each, kind) for each in self.outcomes[n_before:]))
        return next(each for each in self.outcomes[n_before:] if isinstance(each, kind))


def clock(ear: Ear, flush: FlushMode = "hard") -> DevicePlaybackClock:
    return DevicePlaybackClock(FORMAT, ear, PyAudioBackend(), flush=flush, report=ear.report)


async def played(at_least_ms: int, of: DevicePlaybackClock, item: str) -> None:
    async with asyncio.timeout(20):
        while of.played_ms(item) < at_least_ms:  # noqa: ASYNC110 - the device's thread counts, and tells nobody.
            await asyncio.sleep(0.005)


async def sentence(card: Card) -> Result:
    """A sentence in chunks of odd sizes, then another one."""
    ear, tap = Ear(), card.tap()
    player = clock(ear)
    await player.open()
    first, second = hiss(RATE * 2, 1), hiss(RATE, 2)
    for start in range(0, len(first), 7402):
        part = first[start : start + 7402]
        player.write("first", len(part) // 2, part)
    player.finish("first")
    player.write("second", RATE, second)
    player.finish("second")
    await player.wait_played()
    await asyncio.sleep(0.2)
    await player.aclose()
    recording = tap.stop()
    return {
        "found": [found_frames(recording, first), found_frames(recording, second)],
        "played_ms": [player.played_ms("first"), player.played_ms("second")],
        "events": [ear.started, list(ear.stopped.items())],
        "outcomes": len(ear.outcomes),
    }


async def interruption(card: Card, flush: FlushMode) -> Result:
    """An answer of ten seconds is interrupted, then another one is heard."""
    ear, tap = Ear(), card.tap()
    player = clock(ear, flush)
    await player.open()
    cut, after = hiss(RATE * 10, 3), hiss(RATE // 2, 4)
    player.write("cut", RATE * 10, cut)
    await played(600, player, "cut")
    player.flush()
    heard_ms, is_silent = player.played_ms("cut"), player.current is None
    frames = player.played_frames("cut")
    await asyncio.sleep(0.4)
    player.write("after", RATE // 2, after)
    player.finish("after")
    await player.wait_played()
    await asyncio.sleep(0.2)
    await player.aclose()
    recording = tap.stop()
    start, then = place(recording, cut), place(recording, after)
    n_found = found_frames(recording, cut)
    silence = recording[2 * (start + n_found + 2 * FADE_FRAMES) : 2 * then]
    return {
        "heard_ms": heard_ms,
        "heard_frames": frames,
        "found_frames": n_found,
        "silence": [len(silence) // 2, loudest(silence)],
        "after": found_frames(recording, after),
        "is_silent": is_silent,
        "stopped": ear.stopped,
    }


async def microphone(card: Card) -> Result:
    """Something is said into the microphone."""
    ear = Ear()
    ears = Microphone(PyAudioBackend(), FORMAT, report=ear.report)
    await ears.open()
    await ears.read()
    said = hiss(RATE * 2, 5)
    speaking = asyncio.create_task(asyncio.to_thread(card.speak, said))
    got = bytearray()
    while not speaking.done() or found_frames(bytes(got), said) < len(said) // 2:
        got += await ears.read()
        if len(got) > 2 * RATE * 8:
            break
    await speaking
    await ears.aclose()
    return {"found": found_frames(bytes(got), said), "dropped": ears.dropped_frames}


async def loss(card: Card, lose: Callable[[], None], restore: Callable[[], None]) -> Result:
    """The device is lost in mid-answer, the answer goes on, the device comes back and is heard."""
    ear = Ear()
    backend = PyAudioBackend()
    player = DevicePlaybackClock(FORMAT, ear, backend, report=ear.report)
    ears = Microphone(backend, FORMAT, report=ear.report)
    await player.open()
    await ears.open()
    reading = asyncio.create_task(_count(ears))
    player.write("long", RATE * 2, hiss(RATE * 2, 6))
    player.finish("long")
    await played(300, player, "long")
    await asyncio.to_thread(lose)
    await ear.until(lambda: sum(isinstance(each, DeviceLost) for each in ear.outcomes) == 2)
    lost = [each for each in ear.outcomes if isinstance(each, DeviceLost)]
    await ear.until(lambda: "long" in ear.stopped)
    await asyncio.to_thread(restore)
    await ear.until(lambda: sum(isinstance(each, DeviceReturned) for each in ear.outcomes) == 2)
    tap = card.tap()
    again = hiss(RATE, 7)
    player.write("again", RATE, again)
    player.finish("again")
    await player.wait_played()
    await asyncio.sleep(0.2)
    recording = tap.stop()
    await player.aclose()
    await ears.aclose()
    back = [each for each in ear.outcomes if isinstance(each, DeviceReturned)]
    return {
        "lost": sorted((each.direction, each.reason) for each in lost),
        "silent_ms": [each.silent_ms for each in lost],
        "back": sorted((each.direction, each.is_same) for each in back),
        "played_ms": ear.stopped["long"],
        "again": found_frames(recording, again),
        "n_read": await reading,
        "stats": str(player.stream),
    }


async def _count(ears: Microphone) -> int:
    n_frames = 0
    while data := await ears.read():
        n_frames += len(data) // 2
    return n_frames


async def unplug(card: Card) -> Result:
    return await loss(card, card.unplug, card.replug)


async def freeze(card: Card) -> Result:
    return await loss(card, card.freeze, card.thaw)


async def kill(card: Card) -> Result:
    return await loss(card, card.kill, card.restart)


async def leave_frozen(card: Card) -> Result:
    """Both devices hang, and the program ends."""
    ear = Ear()
    backend = PyAudioBackend()
    player = DevicePlaybackClock(FORMAT, ear, backend, report=ear.report)
    ears = Microphone(backend, FORMAT, report=ear.report)
    await player.open()
    await ears.open()
    player.write("long", RATE * 9, hiss(RATE * 9, 6))
    await played(300, player, "long")
    card.freeze()
    player.flush()
    await player.aclose()
    await ears.aclose()
    await backend.close()
    return {"is_tainted": backend.is_tainted, "stopped": ear.stopped}


async def churn(card: Card) -> Result:
    """Open, interrupt and close in quick succession, waiting for the end or not."""
    before = sys.getswitchinterval()
    backend = PyAudioBackend()
    n_lost = 0
    for n in range(16):
        ear = Ear()
        player = DevicePlaybackClock(FORMAT, ear, backend, report=ear.report)
        ears = Microphone(backend, FORMAT, report=ear.report)
        await asyncio.gather(player.open(), ears.open())
        for m in range(n % 4 + 1):
            player.write(f"item {m}", RATE, hiss(RATE, m))
            await asyncio.sleep(0.013 * (n % 5))
            player.flush()
        n_lost += sum(isinstance(each, DeviceLost) for each in ear.outcomes)
        if n % 2:
            player.close()
            ears.close()
        else:
            await asyncio.gather(player.aclose(), ears.aclose())
    await backend.close()
    return {"n_lost": n_lost, "is_tainted": backend.is_tainted, "switch": [before, sys.getswitchinterval()]}


async def refused(card: Card) -> Result:
    """A device that is not there."""
    from voxengine.errors import AudioDeviceError

    try:
        await PyAudioBackend().open("output", "no such thing", FORMAT, 20)
    except AudioDeviceError as error:
        return {"reason": error.reason, "text": str(error)}
    return {}


async def negotiated(card: Card) -> Result:
    """Devices by name, part of a name and index; the switch interval; standard error."""
    before = sys.getswitchinterval()
    backend = PyAudioBackend()
    devices = await backend.devices()
    index = next(device.index for device in devices if device.name == "vox")
    by_index = await backend.open("output", index, AudioFormat(8000), 10)
    by_part = await backend.open("input", "Vo", AudioFormat(16000, 2), 20)
    during = sys.getswitchinterval()
    await by_index.close()
    await by_part.close()
    await backend.close()
    return {
        "names": [by_index.device.name, by_part.device.name],
        "formats": [by_index.format.describe(), by_part.format.describe()],
        "blocks": [by_index.block_frames, by_part.block_frames],
        "switch": [before, during, sys.getswitchinterval()],
    }


SCENARIOS: dict[str, Callable[[Card], Awaitable[Result]]] = {
    "sentence": sentence,
    "soft": lambda card: interruption(card, "soft"),
    "hard": lambda card: interruption(card, "hard"),
    "microphone": microphone,
    "unplug": unplug,
    "freeze": freeze,
    "kill": kill,
    "leave_frozen": leave_frozen,
    "churn": churn,
    "refused": refused,
    "negotiated": negotiated,
}


async def main(name: str) -> None:
    ahead_of_others(0)
    print(json.dumps(await SCENARIOS[name](Card.attach())))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
