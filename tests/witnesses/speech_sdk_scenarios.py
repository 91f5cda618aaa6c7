"""Drives a service with Azure's own Speech SDK and prints what it reports, as one line of JSON.

``speech_sdk_scenarios.py URL KEY SCENARIO``. A program of its own, since the SDK is native code with threads: it
may abort when the interpreter ends, and a call that never returns has to be ended from outside.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import struct
import sys
import threading
import urllib.request
from collections.abc import Callable
from typing import Any

sdk: Any = importlib.import_module("azure.cognitiveservices.speech")

RATE = 16_000
WAIT_S = 20.0


def sound(ms: int) -> bytes:
    """A loud tone in syllables."""
    count = ms * RATE // 1000
    values = [
        int(9000 * math.sin(2 * math.pi * 180 * n / RATE) * (0.4 + 0.6 * abs(math.sin(n / RATE * 12))))
        for n in range(count)
    ]
    return struct.pack(f"<{count}h", *values)


def silence(ms: int) -> bytes:
    return bytes(2 * (ms * RATE // 1000))


def stream(*parts: bytes) -> Any:
    source = sdk.audio.PushAudioInputStream()
    for part in parts:
        source.write(part)
    source.close()
    return sdk.audio.AudioConfig(stream=source)


def config(url: str, key: str, *, universal: bool = False) -> Any:
    """Settings for an address: as a host, or as an endpoint where everything is in messages."""
    if universal:
        found = sdk.SpeechConfig(endpoint=url, subscription=key)
    else:
        found = sdk.SpeechConfig(host=url, subscription=key)
    found.speech_recognition_language = "en-US"
    return found


def phrase(result: Any) -> dict[str, Any]:
    shown = {"reason": str(result.reason).rpartition(".")[2], "text": result.text}
    if result.reason == sdk.ResultReason.NoMatch:
        shown["detail"] = str(result.no_match_details.reason).rpartition(".")[2]
    if result.reason == sdk.ResultReason.Canceled:
        shown["detail"] = str(result.cancellation_details.code).rpartition(".")[2]
    return {**shown, "offset_ms": result.offset // 10_000, "duration_ms": result.duration // 10_000}


def once(settings: Any, *parts: bytes, **options: Any) -> dict[str, Any]:
    recognizer = sdk.SpeechRecognizer(settings, stream(*parts), **options)
    return phrase(recognizer.recognize_once_async().get())


def single(url: str, key: str) -> Any:
    return once(config(url, key), sound(1200), silence(1500))


def quiet(url: str, key: str) -> Any:
    return once(config(url, key), silence(6000))


def phrase_list(url: str, key: str) -> Any:
    recognizer = sdk.SpeechRecognizer(config(url, key), stream(sound(1200), silence(1500)))
    sdk.PhraseListGrammar.from_recognizer(recognizer).addPhrase("VoxEngine")
    return phrase(recognizer.recognize_once_async().get())


def wrong_key(url: str, key: str) -> Any:
    return once(config(url, f"not-{key}"), sound(1200), silence(1500))


def token(url: str, key: str) -> Any:
    """With a token that the service gives for the key."""
    where = f"{url.replace('ws', 'http', 1)}/sts/v1.0/issueToken"
    asked = urllib.request.Request(where, b"", {"Ocp-Apim-Subscription-Key": key}, method="POST")
    settings = sdk.SpeechConfig(host=url)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=WAIT_S) as answer:
        settings.authorization_token = answer.read().decode()
    return once(settings, sound(1200), silence(1500))


def languages(url: str, key: str) -> Any:
    detect = sdk.languageconfig.AutoDetectSourceLanguageConfig(languages=["de-DE", "en-US"])
    recognizer = sdk.SpeechRecognizer(
        config(url, key, universal=True),
        auto_detect_source_language_config=detect,
        audio_config=stream(sound(1200), silence(1500)),
    )
    result = recognizer.recognize_once_async().get()
    return {**phrase(result), "language": sdk.AutoDetectSourceLanguageResult(result).language}


def listen(recognizer: Any, start: Any, stop: Any, recognized: Any, partial: Any) -> dict[str, Any]:
    """Recognise to the end of the stream, and collect what is told."""
    seen: dict[str, Any] = {"partial": [], "final": [], "canceled": [], "speakers": []}
    is_over = threading.Event()
    partial.connect(lambda event: seen["partial"].append(event.result.text))

    def keep(event: Any) -> None:
        seen["final"].append({**phrase(event.result), "json": json.loads(event.result.json or "{}")})
        seen["speakers"].append(getattr(event.result, "speaker_id", ""))

    def canceled(event: Any) -> None:
        details = event.cancellation_details
        seen["canceled"].append(str(details.reason).rpartition(".")[2])

    recognized.connect(keep)
    recognizer.canceled.connect(canceled)
    recognizer.session_stopped.connect(lambda _: is_over.set())
    start().get()
    seen["stopped"] = is_over.wait(WAIT_S)
    stop().get()
    return seen


def continuous(url: str, key: str) -> Any:
    settings = config(url, key)
    settings.output_format = sdk.OutputFormat.Detailed
    settings.request_word_level_timestamps()
    recognizer = sdk.SpeechRecognizer(settings, stream(sound(1200), silence(1500), sound(900), silence(1500)))
    return listen(
        recognizer,
        recognizer.start_continuous_recognition_async,
        recognizer.stop_continuous_recognition_async,
        recognizer.recognized,
        recognizer.recognizing,
    )


def transcriber(url: str, key: str) -> Any:
    recognizer = sdk.transcription.ConversationTranscriber(
        config(url, key), stream(sound(1200), silence(1500))
    )
    return listen(
        recognizer,
        recognizer.start_transcribing_async,
        recognizer.stop_transcribing_async,
        recognizer.transcribed,
        recognizer.transcribing,
    )


def speaking(url: str, key: str) -> tuple[Any, dict[str, Any]]:
    synthesizer = sdk.SpeechSynthesizer(config(url, key), audio_config=None)
    seen: dict[str, Any] = {"words": [], "bookmarks": [], "n_visemes": 0}

    def word(event: Any) -> None:
        kind = str(event.boundary_type).rpartition(".")[2]
        seen["words"].append([event.text, kind, event.audio_offset // 10_000, event.text_offset])

    def viseme(_: Any) -> None:
        seen["n_visemes"] += 1

    synthesizer.synthesis_word_boundary.connect(word)
    synthesizer.bookmark_reached.connect(lambda event: seen["bookmarks"].append(event.text))
    synthesizer.viseme_received.connect(viseme)
    return synthesizer, seen


def spoken(result: Any) -> dict[str, Any]:
    shown = {"reason": str(result.reason).rpartition(".")[2], "n_bytes": len(result.audio_data)}
    shown["duration_ms"] = round(result.audio_duration.total_seconds() * 1000)
    if result.reason == sdk.ResultReason.Canceled:
        details = result.cancellation_details
        shown["detail"] = str(details.error_code).rpartition(".")[2]
        shown["message"] = details.error_details
    return shown


def told(synthesizer: Any, ask: Callable[[], Any]) -> Any:
    """The result, once every event of it was handed out: a thread of the SDK's own does that, one after the other."""
    is_over = threading.Event()
    synthesizer.synthesis_completed.connect(lambda _: is_over.set())
    result = ask().get()
    is_over.wait(WAIT_S)
    return result


def text(url: str, key: str) -> Any:
    synthesizer, seen = speaking(url, key)
    said = "Hello to all of you, my friends."
    return {**spoken(told(synthesizer, lambda: synthesizer.speak_text_async(said))), **seen}


def two_texts(url: str, key: str) -> Any:
    synthesizer, _ = speaking(url, key)
    return [spoken(synthesizer.speak_text_async(said).get()) for said in ("First.", "And second.")]


def ssml(url: str, key: str) -> Any:
    synthesizer, seen = speaking(url, key)
    document = (
        "<speak version='1.0' xmlns='http://www.w3.org/2001/10/synthesis' xml:lang='en-US'>"
        "<voice name='en-US-JennyNeural'><prosody rate='+50%'>Hello <bookmark mark='b1'/>world."
        "</prosody></voice></speak>"
    )
    return {**spoken(told(synthesizer, lambda: synthesizer.speak_ssml_async(document))), **seen}


def bad_voice(url: str, key: str) -> Any:
    settings = config(url, key)
    settings.speech_synthesis_voice_name = "nobody"
    return spoken(sdk.SpeechSynthesizer(settings, audio_config=None).speak_text_async("Hello.").get())


def wrong_key_speaking(url: str, key: str) -> Any:
    synthesizer, _ = speaking(url, f"not-{key}")
    return spoken(synthesizer.speak_text_async("Hello.").get())


def cancel(url: str, key: str) -> Any:
    """Stop a long text when its first audio has come, and speak again."""
    synthesizer, _ = speaking(url, key)
    has_begun = threading.Event()
    synthesizer.synthesizing.connect(lambda _: has_begun.set())
    under_way = synthesizer.speak_text_async("One after the other goes on and on and on. " * 20)
    has_begun.wait(WAIT_S)
    synthesizer.stop_speaking_async().get()
    first = under_way.get()
    return [spoken(first), spoken(synthesizer.speak_text_async("Again.").get())]


SCENARIOS: dict[str, Callable[[str, str], Any]] = {
    function.__name__: function
    for function in (
        single, quiet, phrase_list, wrong_key, token, languages, continuous, transcriber,
        text, two_texts, ssml, bad_voice, wrong_key_speaking, cancel,
    )
}  # fmt: skip

if __name__ == "__main__":
    answer = SCENARIOS[sys.argv[3]](sys.argv[1], sys.argv[2])
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
    os._exit(0)  # Without the native library's own ending, which can abort.
