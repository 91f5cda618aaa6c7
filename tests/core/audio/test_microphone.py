"""From a device's blocks to what a reader gets."""

from __future__ import annotations

import asyncio
from array import array

import pytest

from tests.core.audio.devices_for_tests import Ear, HandBackend
from tests.core.audio.sounds import noise, tone
from voxengine.audio.backends.array import ArrayBackend
from voxengine.audio.capture import Microphone
from voxengine.audio.devices import DeviceLost, DeviceReturned, InputDropped
from voxengine.audio.format import AudioFormat
from voxengine.audio.pcm import FormatConverter
from voxengine.errors import AudioDeviceError, UsageError
from voxengine.testing import leak_check, virtual

RATE = 8000
FORMAT = AudioFormat(RATE)
BLOCK = 160


async def opened(backend: HandBackend | ArrayBackend, **options: object) -> tuple[Microphone, Ear]:
    ear = Ear()
    microphone = Microphone(backend, FORMAT, report=ear.report, **options)  # type: ignore[arg-type]
    await microphone.open()
    return microphone, ear


async def rest_of(microphone: Microphone) -> bytes:
    got = bytearray()
    while data := await microphone.read():
        got += data
    return bytes(got)


@virtual
async def test_every_block_is_read_once_and_in_order() -> None:
    async with leak_check():
        backend = HandBackend()
        microphone, _ = await opened(backend)
        said = noise(50 * BLOCK, -20.0)
        reading = asyncio.create_task(rest_of(microphone))

        for n in range(50):
            await backend.last.run(1, said[2 * BLOCK * n : 2 * BLOCK * (n + 1)])
        await microphone.aclose()

        assert await reading == said
        assert microphone.dropped_frames == 0


@virtual
async def test_a_reader_that_stops_loses_the_oldest_and_is_told_how_much() -> None:
    backend = HandBackend()
    microphone, ear = await opened(backend)
    said = noise(60 * BLOCK, -20.0)
    for n in range(60):
        await backend.last.run(1, said[2 * BLOCK * n : 2 * BLOCK * (n + 1)])

    got = await microphone.read()

    assert got == said[-2 * 25 * BLOCK :]
    (dropped,) = ear.outcomes
    assert isinstance(dropped, InputDropped)
    assert (dropped.n_frames, dropped.duration_ms) == (35 * BLOCK, 700)
    await microphone.aclose()


@virtual
async def test_another_rate_is_converted_in_full_blocks_from_the_first_on() -> None:
    device = AudioFormat(48000, 2)
    backend = HandBackend(card=device)
    microphone, _ = await opened(backend)
    stereo = array(
        "h", [value for value in array("h", tone(48000, 440, 960 * 10)) for _ in range(2)]
    ).tobytes()
    sizes = []
    got = bytearray()
    for n in range(10):
        backend.last.block(stereo[4 * 960 * n : 4 * 960 * (n + 1)])
        block = await microphone.read()
        sizes.append(len(block))
        got += block

    expected = FormatConverter(device, FORMAT, aligned=False).process(stereo)
    assert sizes == [2 * BLOCK] * 10
    assert bytes(got) == expected
    assert microphone.device_format == device
    await microphone.aclose()


@virtual
async def test_a_source_that_ends_is_read_to_its_last_frame() -> None:
    backend = ArrayBackend(AudioFormat(16000), pacing="fast")
    said = tone(16000, 300, 16000)
    backend.feed(said)
    backend.end()
    microphone, _ = await opened(backend)

    got = await rest_of(microphone)

    converter = FormatConverter(AudioFormat(16000), FORMAT, aligned=False)
    assert got == converter.process(said) + converter.flush()
    assert await microphone.read() == b""
    await microphone.aclose()


@virtual
async def test_a_source_waits_for_a_slow_reader_and_nothing_is_dropped() -> None:
    backend = ArrayBackend(FORMAT, pacing="fast")
    said = noise(RATE * 5, -20.0)
    backend.feed(said)
    backend.end()
    microphone, ear = await opened(backend)
    got = bytearray()

    while data := await microphone.read():
        got += data
        await asyncio.sleep(1.0)

    assert bytes(got) == said
    assert ear.outcomes == []
    await microphone.aclose()


@virtual
async def test_a_paced_source_takes_as_long_as_it_sounds() -> None:
    backend = ArrayBackend(FORMAT)
    backend.feed(noise(RATE * 3, -20.0))
    backend.end()
    microphone, _ = await opened(backend)

    await rest_of(microphone)

    assert asyncio.get_running_loop().time() == pytest.approx(3.0, abs=0.021)
    await microphone.aclose()


@pytest.mark.parametrize(("on_loss", "n_silent_ms"), [("silence", 3000), ("pause", 0)])
def test_a_lost_device_is_silence_or_nothing_by_choice(on_loss: str, n_silent_ms: int) -> None:
    @virtual
    async def run() -> None:
        backend = HandBackend()
        microphone, ear = await opened(backend, on_loss=on_loss)
        reading = asyncio.create_task(rest_of(microphone))
        await backend.last.run(10, b"\x01\x00" * BLOCK)
        backend.there.clear()
        backend.last.is_running = False
        await asyncio.sleep(0.05)
        assert microphone.is_lost

        await asyncio.sleep(3.0)
        await microphone.aclose()
        got = await reading

        assert isinstance(ear.outcomes[0], DeviceLost)
        assert len(got) // 2 * 1000 // RATE == pytest.approx(200 + n_silent_ms, abs=60)
        assert set(array("h", got[: 2 * 10 * BLOCK])) == {1}
        assert set(got[2 * 10 * BLOCK :]) <= {0}

    run()


@virtual
async def test_a_device_that_comes_back_at_another_rate_is_converted() -> None:
    backend = HandBackend()
    microphone, ear = await opened(backend)
    reading = asyncio.create_task(rest_of(microphone))
    await backend.last.run(10, tone(RATE, 200, BLOCK))
    backend.there = {"other": AudioFormat(16000)}
    backend.last.is_running = False
    async with asyncio.timeout(5):
        await ear.told_more(1)
    await backend.last.run(50, tone(16000, 200, 320))
    await microphone.aclose()

    got = await reading

    assert isinstance(ear.outcomes[1], DeviceReturned)
    assert microphone.device == "other"
    assert len(got) // 2 == pytest.approx((10 + 50) * BLOCK + RATE * 0.26, abs=2 * BLOCK)


@virtual
async def test_what_was_recorded_before_a_loss_is_read_before_what_comes_after_it() -> None:
    backend = HandBackend()
    microphone, ear = await opened(backend, on_loss="pause")
    before, after = tone(RATE, 200, 3 * BLOCK), tone(16000, 200, 3 * 320)
    for n in range(3):
        await backend.last.run(1, before[2 * BLOCK * n : 2 * BLOCK * (n + 1)])
    backend.there = {"other": AudioFormat(16000)}
    backend.last.is_running = False
    async with asyncio.timeout(5):
        await ear.told_more(1)
    for n in range(3):
        await backend.last.run(1, after[640 * n : 640 * (n + 1)])

    got = await microphone.read()

    assert got == before + FormatConverter(AudioFormat(16000), FORMAT, aligned=False).process(after)
    await microphone.aclose()


@virtual
async def test_gain_and_meter() -> None:
    backend = HandBackend()
    microphone, _ = await opened(backend, gain_db=12.0412)
    backend.last.block(tone(RATE, 400, BLOCK, -40.0))

    await microphone.read()

    assert microphone.meter.rms_db == pytest.approx(-28.0, abs=0.2)
    await microphone.aclose()


@virtual
async def test_processors_see_frames_of_ten_ms_in_a_thread_of_their_own() -> None:
    class Invert:
        def __init__(self) -> None:
            self.sizes: set[int] = set()

        def process(self, microphone: bytes, reference: bytes, delay_ms: int) -> bytes:
            self.sizes.add(len(microphone))
            return bytes(255 - value for value in microphone)

    invert = Invert()
    backend = ArrayBackend(FORMAT, pacing="fast")
    said = noise(BLOCK * 3 + 13, -20.0)
    backend.feed(said)
    backend.end()
    microphone, _ = await opened(backend, processors=[invert])

    got = await rest_of(microphone)

    whole = len(said) // BLOCK * BLOCK
    assert invert.sizes == {BLOCK}
    assert got == bytes(255 - value for value in said[:whole]) + said[whole:]
    assert microphone.failed_processors == []
    await microphone.aclose()


@virtual
async def test_two_readers_are_one_too_many() -> None:
    microphone, _ = await opened(HandBackend())
    waiting = asyncio.create_task(microphone.read())
    await asyncio.sleep(0)

    with pytest.raises(UsageError, match="another read is waiting"):
        await microphone.read()

    microphone.close()
    assert await waiting == b""
    await microphone.aclose()


@virtual
async def test_what_waits_can_be_read_after_close() -> None:
    backend = HandBackend()
    microphone, _ = await opened(backend)
    backend.last.block(b"\x01\x00" * BLOCK)

    microphone.close()

    assert await microphone.read() == b"\x01\x00" * BLOCK
    assert await microphone.read() == b""
    await microphone.aclose()


@virtual
async def test_a_device_that_is_not_there_says_so() -> None:
    microphone = Microphone(HandBackend(), FORMAT, device="absent")

    with pytest.raises(AudioDeviceError, match="not there"):
        await microphone.open()

    await microphone.aclose()
