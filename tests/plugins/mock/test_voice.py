from __future__ import annotations

import asyncio
import importlib.util
import itertools
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.plugins.mock.support import session
from voxengine.errors import ConfigError
from voxengine.testing.clock import run_virtual, virtual
from voxengine_mock import voice as voice_module
from voxengine_mock.replies import STORY
from voxengine_mock.voice import VOICES, ToneSpeech, plan

TEXT = "Hi there! How can I help? It is sunny today, and the weather in Lisbon is fine. Shall we begin?"
RATES = (8_000, 16_000, 22_050, 24_000, 48_000)


async def rendered(speech: ToneSpeech, step_ms: int = 100) -> bytes:
    return b"".join([await speech.pcm(at, at + step_ms) for at in range(0, speech.duration_ms, step_ms)])


def samples(text: str, name: str = "aria", rate: int = 24_000) -> NDArray[np.float64]:
    pcm = run_virtual(rendered(ToneSpeech(text, VOICES[name], rate)))
    return np.frombuffer(pcm, "<i2").astype(np.float64) / 32768


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", sorted(VOICES))
def test_voice_is_level_soft_at_its_ends_and_exactly_as_long_as_planned(name: str, rate: int) -> None:
    wave = samples(TEXT, name, rate)

    assert len(wave) == ToneSpeech(TEXT, VOICES[name], rate).duration_ms * rate // 1000
    assert -9.5 < 20 * np.log10(np.abs(wave).max()) < -6.0
    assert abs(wave.mean()) < 0.005
    assert np.abs(wave[: rate // 1000]).max() < 0.005
    assert np.abs(wave[-rate // 1000 :]).max() < 0.005


@pytest.mark.parametrize("name", sorted(VOICES))
def test_voice_has_no_clicks(name: str) -> None:
    wave = samples(TEXT, name)

    # The harmonics end below 4 kHz and the breath is faint, so a click would be most of what is above 7 kHz.
    window = 240
    blocks = wave[: len(wave) // window * window].reshape(-1, window) * np.hanning(window)
    spectrum = np.abs(np.fft.rfft(blocks, axis=1)) ** 2
    high = spectrum[:, np.fft.rfftfreq(window, 1 / 24_000) > 7_000].sum(axis=1)
    assert np.sqrt(high.max() / (spectrum.sum(axis=1).max())) < 0.02
    assert np.abs(np.diff(wave)).max() < 0.25


def test_the_click_test_sees_a_click() -> None:
    wave = samples(TEXT)
    loud = int(np.abs(wave).argmax())
    wave[loud] = -wave[loud]

    assert np.abs(np.diff(wave)).max() > 0.25


def test_voices_differ_in_pitch() -> None:
    def pitch(name: str) -> float:
        wave = samples("a", name)
        correlation = np.fft.irfft(np.abs(np.fft.rfft(wave, 2 * len(wave))) ** 2)[:300]
        # The first period is the one that counts: twice the period correlates nearly as well.
        high = np.flatnonzero(correlation[60:] > 0.75 * correlation[60:].max()) + 60
        first = high[: np.argmax(np.diff(high, append=10**6) > 1) + 1]
        return 24_000 / float(first[correlation[first].argmax()])

    assert pitch("bruno") < pitch("dante") < pitch("celia") < pitch("aria")


def test_speed_is_about_170_words_per_minute_and_can_be_set() -> None:
    n_words = len(STORY.split())

    def words_per_minute(speed: float) -> float:
        return n_words / (plan(STORY, speed)[-1].end_ms / 60_000)

    assert 150 < words_per_minute(170) < 190
    assert words_per_minute(340) == pytest.approx(2 * words_per_minute(170), rel=0.02)


def test_the_long_story_lasts_more_than_half_a_minute() -> None:
    assert plan(STORY)[-1].end_ms > 30_000


@given(st.text(max_size=200), st.floats(40, 600))
def test_units_cover_the_text_in_order(text: str, speed: float) -> None:
    units = plan(text, speed)

    assert "".join(text[unit.start : unit.end] for unit in units) == (text if text.strip() else "")
    assert all(unit.at_ms <= unit.end_ms for unit in units)
    assert all(a.end == b.start and a.end_ms <= b.at_ms for a, b in itertools.pairwise(units))


@pytest.mark.parametrize("text", ["", "  \n", "...", "!?", "a", "42", "你好世界", "x" * 500, "émigré naïve"])
def test_any_text_can_be_spoken(text: str) -> None:
    wave = samples(text)

    assert len(wave) == ToneSpeech(text, VOICES["aria"], 24_000).duration_ms * 24
    assert not any(char.isalnum() for char in text) or np.abs(wave).max() > 0.1


@given(st.integers(1, 700))
def test_cutting_the_stream_differently_gives_the_same_samples(step_ms: int) -> None:
    whole = run_virtual(rendered(ToneSpeech(TEXT, VOICES["celia"], 22_050), 60_000))

    assert run_virtual(rendered(ToneSpeech(TEXT, VOICES["celia"], 22_050), step_ms)) == whole


@virtual
async def test_word_times_are_where_the_sound_is() -> None:
    speech = ToneSpeech("one, two, three.", VOICES["aria"], 24_000)

    wave = np.abs(np.frombuffer(await rendered(speech), "<i2").astype(np.float64))

    for unit in speech.units:
        assert wave[unit.at_ms * 24 : unit.end_ms * 24].max() > 3000
    for a, b in itertools.pairwise(speech.units):
        assert wave[a.end_ms * 24 : b.at_ms * 24].max() == 0


@virtual
async def test_rendered_phrases_are_kept_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = voice_module._Cache(100_000)
    monkeypatch.setattr(voice_module, "_cache", cache)

    for n in range(10):
        await rendered(ToneSpeech(f"Sentence number {n} is here.", VOICES["aria"], 24_000))

    assert 0 < cache.n_bytes <= 100_000
    assert cache.n_bytes == sum(map(len, cache._held.values()))


@virtual
async def test_a_phrase_said_again_is_not_rendered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice_module, "_cache", voice_module._Cache(10**7))
    first = await rendered(ToneSpeech("Say it again.", VOICES["aria"], 24_000))
    monkeypatch.setattr(voice_module, "_render", None)

    assert await rendered(ToneSpeech("Say it again.", VOICES["aria"], 24_000)) == first


@virtual
async def test_a_long_speech_holds_little_audio_at_a_time() -> None:
    speech = ToneSpeech(STORY * 3, VOICES["aria"], 24_000)
    most = 0

    for at in range(0, speech.duration_ms, 100):
        await speech.pcm(at, at + 100)
        most = max(most, len(speech._held))

    assert most < 6 * 48_000


def test_numpy_is_loaded_when_the_first_word_is_spoken() -> None:
    program = (
        "import sys, asyncio\n"
        "from voxengine_mock import MockProvider\n"
        "async def main():\n"
        "    provider = MockProvider({})\n"
        "    await provider.connect()\n"
        "    early = 'numpy' in sys.modules\n"
        "    await provider.disconnect()\n"
        "    print(early, 'websockets' in sys.modules)\n"
        "asyncio.run(main())\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", "False"]


def test_without_the_library_espeak_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from voxengine_mock import espeak

    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    espeak._library.cache_clear()

    with pytest.raises(ConfigError, match=r"pip install 'voxengine-mock\[espeak\]'"):
        espeak.require()


@pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason="the extra [espeak] is not installed"
)
@virtual
async def test_espeak_speaks_words_at_the_times_it_gives() -> None:
    from voxengine_mock import espeak

    espeak._library.cache_clear()
    speech = await espeak.EspeakSpeech.make(
        "Hello, how are you?", VOICES["aria"], 24_000, language="en-US", words_per_minute=170
    )

    pcm = np.frombuffer(await speech.pcm(0, speech.duration_ms), "<i2").astype(np.float64)

    assert [unit.word for unit in speech.units] == ["Hello,", "how", "are", "you?"]
    assert "".join(speech.text[u.start : u.end] for u in speech.units) == speech.text
    assert 800 < speech.duration_ms < 4000
    assert np.abs(pcm).max() > 2000


@pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason="the extra [espeak] is not installed"
)
@pytest.mark.parametrize("config", [{"voice": "espeak"}, {"metadata": {"synthesizer": "espeak"}}])
@virtual
async def test_a_session_speaks_with_espeak_when_asked(config: dict[str, Any]) -> None:
    from voxengine_mock import espeak

    espeak._library.cache_clear()

    async with session(config, default="Real words, spoken.") as (provider, seen):
        await provider.send_text("speak")
        await seen.wait("response_completed")

    assert seen.final_texts() == ["Real words, spoken."]
    assert [e.data["value"] for e in seen.of("speech_mark")] == ["Real", "words,", "spoken."]
    assert seen.of("warning") == []
    assert np.abs(np.frombuffer(seen.audio(), "<i2").astype(np.int32)).max() > 2_000


def test_rendering_leaves_the_loop_free() -> None:
    async def main() -> int:
        n_ticks = 0
        speech = ToneSpeech(TEXT, VOICES["dante"], 44_100)
        work = asyncio.ensure_future(rendered(speech, 5_000))
        while not work.done():
            n_ticks += 1
            await asyncio.sleep(0)
        return n_ticks

    assert asyncio.run(main()) > 10


def test_half_a_surrogate_pair_is_spoken() -> None:
    assert len(samples("a\ud83d b")) > 0
