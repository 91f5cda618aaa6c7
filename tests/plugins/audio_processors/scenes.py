"""A room with a loudspeaker, and speech in noise: made here, the same on every run.

Speech comes from eSpeak NG where its library is installed (``voxengine-mock[espeak]``), else from harmonics in
syllables, which a detector of real speech is not asked to believe.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import itertools
from collections.abc import Callable

import attrs
import numpy as np
from numpy.typing import NDArray

from tests.core.audio.sounds import spoken
from voxengine.audio.format import AudioFormat
from voxengine.audio.pcm import convert
from voxengine.audio.processors import AudioProcessor, EchoReference, ProcessorChain
from voxengine.audio.vad import VoiceDetector
from voxengine.errors import ConfigError
from voxengine_audio_processors.silero import find_model
from voxengine_mock.espeak import EspeakSpeech, require
from voxengine_mock.voice import Voice

Sound = NDArray[np.float64]

SENTENCES = (
    "The train to Lisbon leaves at a quarter past nine from platform four, and it stops in every village.",
    "I would like to change my booking for the second of March, if there is still a seat by the window.",
    "Could you tell me how much it costs to send a parcel of three kilograms to my brother in Norway?",
    "Nobody had opened the old wooden box since the summer when the whole family moved to the coast.",
)


def has_webrtc() -> bool:
    return importlib.util.find_spec("livekit") is not None


def has_silero() -> bool:
    if importlib.util.find_spec("onnxruntime") is None:
        return False
    try:
        find_model()
    except ConfigError:
        return False
    return True


def has_espeak() -> bool:
    try:
        require()
    except ConfigError:
        return False
    return True


# --- Sound ------------------------------------------------------------------------------------------


def samples(data: bytes) -> Sound:
    return np.frombuffer(data, "<i2").astype(np.float64)


def pcm16(sound: Sound) -> bytes:
    data: bytes = np.clip(np.rint(sound), -32768, 32767).astype("<i2").tobytes()
    return data


def at_level(sound: Sound, level_db: float) -> Sound:
    """Bring the root mean square of what is not silent to a level relative to 32768."""
    loud = np.abs(sound) > 0.02 * np.abs(sound).max()
    now = float(np.sqrt(np.mean(sound[loud] ** 2)))
    made: Sound = sound * (32768.0 * 10.0 ** (level_db / 20.0) / now)
    return made


def level_db(sound: Sound) -> float:
    return float(10.0 * np.log10(np.mean(sound**2) + 1e-9) - 20.0 * np.log10(32768.0))


@functools.cache
def _said(n: int) -> bytes:
    """A sentence at 48 kHz, without the silence around it."""
    if not has_espeak():
        made = spoken(16_000, 5 * 16_000, pitch_hz=95.0 + 30.0 * n)
        return convert(made, AudioFormat(16_000), AudioFormat(48_000))
    data = asyncio.run(_spoken(SENTENCES[n], Voice("scene", 105.0 + 45.0 * n)))
    sound = samples(data)
    (loud,) = np.nonzero(np.abs(sound) > 0.02 * np.abs(sound).max())
    return data[2 * int(loud[0]) : 2 * int(loud[-1])]


async def _spoken(text: str, voice: Voice) -> bytes:
    speech = await EspeakSpeech.make(text, voice, 48_000, language="en", words_per_minute=165)
    return await speech.pcm(0, speech.duration_ms)


def sentence(n: int, sample_rate: int, level: float = -23.0) -> Sound:
    return at_level(samples(convert(_said(n), AudioFormat(48_000), AudioFormat(sample_rate))), level)


def white(n_samples: int, seed: int = 1) -> Sound:
    return np.random.default_rng(seed).standard_normal(n_samples)


def pink(n_samples: int, seed: int = 1) -> Sound:
    spectrum = np.fft.rfft(white(n_samples, seed))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    spectrum[0] = 0.0
    return np.fft.irfft(spectrum, n_samples)


def clicks(n_samples: int, sample_rate: int) -> Sound:
    """Keys: bursts of 6 ms, four to seven a second, on a faint hiss."""
    source = np.random.default_rng(2)
    made = 0.01 * white(n_samples)
    n_burst, at = sample_rate * 6 // 1000, 0
    while (at := at + int(sample_rate * source.uniform(0.14, 0.25))) < n_samples - n_burst:
        made[at : at + n_burst] += (
            4.0 * source.standard_normal(n_burst) * np.exp(-np.arange(n_burst) / n_burst * 4)
        )
    return made


# --- The room ---------------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class Room:
    """What the loudspeaker is given, and what of it comes back in the microphone."""

    sample_rate: int
    played: Sound
    echo: Sound


def room(
    sample_rate: int, *, seconds: int, delay_ms: int = 40, drift_ppm: float = 0.0, seed: int = 3
) -> Room:
    """A room with a tail of 120 ms, 10 dB quieter at the microphone than at the loudspeaker.

    Args:
        sample_rate: Of both.
        seconds: Of talk without a long pause.
        delay_ms: From the loudspeaker being given a sample until the microphone hears it first.
        drift_ppm: By how much the microphone's clock is faster.
        seed: Another one is another room.
    """
    n_samples = seconds * sample_rate
    parts: list[Sound] = []
    while sum(map(len, parts)) < n_samples:
        parts += [sentence(len(parts) // 2 % 4, sample_rate), np.zeros(sample_rate // 5)]
    played = np.concatenate(parts)[:n_samples]
    n_tail = sample_rate * 120 // 1000
    answer = white(n_tail, seed) * np.exp(-6.9 * np.arange(n_tail) / n_tail)
    answer *= 10.0 ** (-10.0 / 20.0) / np.sqrt(np.sum(answer**2))
    size = 1 << (n_samples + n_tail - 1).bit_length()
    echo = np.fft.irfft(np.fft.rfft(played, size) * np.fft.rfft(answer, size), size)[:n_samples]
    echo = np.concatenate((np.zeros(delay_ms * sample_rate // 1000), echo))[:n_samples]
    if drift_ppm:
        at = np.arange(n_samples) * (1.0 + drift_ppm / 1e6)
        echo = np.interp(at, np.arange(n_samples), echo)
    return Room(sample_rate, played, echo + 3.0 * white(n_samples, seed + 1))


def through(processor: AudioProcessor, scene: Room, near: Sound | None = None, *, told_ms: int = 0) -> Sound:
    """What is left of the microphone's audio, the loudspeaker 20 ms ahead of it at a time as devices are."""
    audio_format = AudioFormat(scene.sample_rate)
    reference = EchoReference(audio_format)
    reference.delay_ms = lambda: told_ms
    chain = ProcessorChain([processor], audio_format, reference)
    played = pcm16(scene.played)
    heard = pcm16(scene.echo if near is None else scene.echo + near)
    block, made = audio_format.n_bytes(20), []
    for at in range(0, len(heard), block):
        reference.push(played[at : at + block])
        made.append(chain.process(heard[at : at + block]))
    assert chain.failed == []
    return samples(b"".join(made))


def reduction_db(scene: Room, left: Sound, *, from_s: float) -> float:
    """How much quieter the echo became, where the loudspeaker had been heard that long: the ERLE."""
    start = int(from_s * scene.sample_rate)
    return level_db(scene.echo[start : len(left)]) - level_db(left[start:])


# --- Speech in noise --------------------------------------------------------------------------------

BLOCK_MS = 20


@attrs.frozen(eq=False)
class Talk:
    """Sentences of several voices with pauses, and which blocks of 20 ms are speech."""

    sample_rate: int
    sound: Sound
    truth: NDArray[np.bool_]

    def in_noise(self, make: Callable[[int], Sound], snr_db: float) -> bytes:
        """Return PCM16 with noise so far below the speech, both measured where there is speech."""
        noise = make(len(self.sound))
        n_block = self.sample_rate * BLOCK_MS // 1000
        voiced = np.repeat(self.truth, n_block)
        gain = np.sqrt(np.mean(self.sound[voiced] ** 2) / np.mean(noise**2) / 10.0 ** (snr_db / 10.0))
        return pcm16(self.sound + gain * noise)


def talk(sample_rate: int, *, level: float = -26.0) -> Talk:
    """Two seconds of pause, in which a floor can be found, then the sentences."""
    n_block = sample_rate * BLOCK_MS // 1000
    parts = [np.zeros(2 * sample_rate)]
    for n in range(len(SENTENCES)):
        parts += [sentence(n, sample_rate, level), np.zeros(int(1.2 * sample_rate))]
    sound = np.concatenate(parts)
    sound = sound[: len(sound) // n_block * n_block]
    power = np.mean(sound.reshape(-1, n_block) ** 2, axis=1)
    loud = power > np.mean(power[power > 0]) * 10.0 ** (-25.0 / 10.0)
    # Closures of a stop are part of the speech: gaps up to 120 ms.
    truth = loud.copy()
    (at,) = np.nonzero(loud)
    for first, second in itertools.pairwise(at):
        if second - first <= 6:
            truth[first:second] = True
    return Talk(sample_rate, sound, truth)


def scores(detector: VoiceDetector, data: bytes, score: Callable[[bool], float], n_blocks: int) -> Sound:
    """The score that a detector has at the end of each block of 20 ms.

    ``score`` is called after each frame with what the detector said of it.
    """
    size = 2 * detector.frame_samples
    made = []
    for at in range(0, len(data) - size + 1, size):
        (flag,) = detector.push(data[at : at + size])
        made.append(score(flag))
    ends = np.arange(1, n_blocks + 1) * (len(data) / n_blocks)
    frames = np.clip(np.ceil(ends / size).astype(int) - 1, 0, len(made) - 1)
    found: Sound = np.asarray(made, dtype=np.float64)[frames]
    return found


def area(values: Sound, truth: NDArray[np.bool_]) -> float:
    """The chance that a block of speech scores higher than one of pause; 0.5 is guessing."""
    pauses = np.sort(values[~truth])
    speech = values[truth]
    below = np.searchsorted(pauses, speech, "left") + np.searchsorted(pauses, speech, "right")
    return float(np.mean(below) / 2 / len(pauses))
