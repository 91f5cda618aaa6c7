"""The emulator of the Speech service beside its conversations: keys, tokens, formats, and bad requests."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.plugins.azure.support import silence, speech
from tests.plugins.mock.emulators import ask
from voxengine.audio.format import AudioFormat
from voxengine.codec import Role
from voxengine.errors import AuthenticationFailed, ConnectionLost, ProviderError
from voxengine.testing.emulator import find_emulator
from voxengine.transport import Transport, connect_websocket
from voxengine_azure.emulator import AzureSpeechEmulator
from voxengine_azure.speech.codec import AudioFrame, SpeechCodec, SpeechMessage, to_ms
from voxengine_azure.speech.settings import riff_header
from voxengine_mock.harness import serve

KEY = {"Ocp-Apim-Subscription-Key": "sk-drive"}
CONTINUOUS = "/speech/recognition/conversation/cognitiveservices/v1"
ONCE = "/speech/recognition/interactive/cognitiveservices/v1"
SPEAK = "/cognitiveservices/websocket/v1"
SSML = "<speak version='1.0' xml:lang='en-US'><voice name='en-US-JennyNeural'>{}</voice></speak>"


@asynccontextmanager
async def emulating(**script: Any) -> AsyncIterator[Any]:
    async with serve(AzureSpeechEmulator(script={"delay_ms": 0, "pace": 100, **script})) as server:
        yield server


class Client:
    """The client's end, by hand."""

    def __init__(self, connection: Transport) -> None:
        self.connection = connection
        self.codec = SpeechCodec(Role.CLIENT, lambda prefix: prefix)

    async def send(self, *items: Any) -> None:
        for item in items:
            for wire in self.codec.encode(item):
                await self.connection.send(wire)

    async def until_end(self, request_id: str) -> list[Any]:
        """What comes up to the end of a turn."""
        found: list[Any] = []
        while not found or getattr(found[-1], "path", "") != "turn.end":
            found += self.codec.decode(await self.connection.recv(), 0.0)
            assert found[-1].request_id == request_id
        return found


@asynccontextmanager
async def client(server: Any, path: str, **headers: str) -> AsyncIterator[Client]:
    connection = await connect_websocket(
        f"ws://127.0.0.1:{server.port}{path}", provider="azure", headers=headers or KEY
    )
    try:
        yield Client(connection)
    finally:
        await connection.close()


def request(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


def paths(found: list[Any]) -> list[str]:
    return [getattr(item, "path", "audio") for item in found]


# --- Keys and tokens -----------------------------------------------------------------------------------------


async def test_emulator_is_installed_under_its_name() -> None:
    assert find_emulator("azure-speech") is AzureSpeechEmulator


async def test_issued_token_opens_a_connection() -> None:
    async with emulating() as server:
        status, _, body = await ask(
            server, request("POST", "/sts/v1.0/issueToken", "Ocp-Apim-Subscription-Key: sk-drive")
        )
        assert status == 200
        async with client(server, SPEAK, Authorization=f"Bearer {body.decode()}"):
            pass


@pytest.mark.parametrize("headers", [{"Authorization": "Bearer sk-drive"}, {"X-Key": "sk-drive"}])
async def test_what_is_neither_key_nor_token_is_refused(headers: dict[str, str]) -> None:
    async with emulating() as server:
        with pytest.raises(AuthenticationFailed):
            async with client(server, SPEAK, **headers):
                pass


async def test_refusal_has_the_service_s_body() -> None:
    async with emulating() as server:
        status, _, body = await ask(server, request("POST", "/sts/v1.0/issueToken"))

    assert (status, json.loads(body)["error"]["code"]) == (401, "401")


async def test_key_in_the_query_counts_as_well() -> None:
    async with (
        emulating() as server,
        client(server, f"{SPEAK}?Ocp-Apim-Subscription-Key=sk-drive", Accept="*/*"),
    ):
        pass


async def test_voices_are_listed() -> None:
    async with emulating() as server:
        path = "/cognitiveservices/voices/list"
        _, _, body = await ask(server, request("GET", path, "Ocp-Apim-Subscription-Key: sk-drive"))

    assert "en-US-JennyNeural" in [voice["ShortName"] for voice in json.loads(body)]


async def test_unknown_path_is_not_found() -> None:
    async with emulating() as server:
        with pytest.raises(ProviderError, match="404"):
            async with client(server, "/realtime"):
                pass


# --- Recognition -----------------------------------------------------------------------------------------------


def audio(request_id: str, pcm: bytes) -> list[AudioFrame]:
    """A stream of one turn, with its header and its end."""
    parts = [pcm[at : at + 3200] for at in range(0, len(pcm), 3200)]
    return [AudioFrame(data, request_id) for data in (riff_header(AudioFormat(16_000)), *parts, b"")]


async def test_recognition_of_one_utterance_ends_by_itself_in_the_service_s_order() -> None:
    async with emulating(hears=["hello there"]) as server, client(server, ONCE) as end:
        await end.send(SpeechMessage("speech.context", {}, "A1"))
        await end.send(*audio("A1", speech() + silence(1500)))
        found = await end.until_end("A1")

    assert paths(found) == [
        "turn.start", "speech.startdetected", "speech.hypothesis", "speech.enddetected", "speech.phrase",
        "turn.end",
    ]  # fmt: skip
    assert found[-2].body["DisplayText"] == "Hello there."
    assert "NBest" not in found[-2].body


@pytest.mark.parametrize(("path", "n_phrases"), [(ONCE, 1), (CONTINUOUS, 1)])
async def test_long_silence_is_told_as_such(path: str, n_phrases: int) -> None:
    async with emulating() as server, client(server, path) as end:
        await end.send(SpeechMessage("speech.context", {}, "A1"))
        await end.send(*audio("A1", silence(16_000)))
        found = await end.until_end("A1")

    statuses = [item.body["RecognitionStatus"] for item in found if item.path == "speech.phrase"]
    assert statuses == ["InitialSilenceTimeout"] * n_phrases


async def test_dictation_has_fragments_and_each_turn_its_own_times() -> None:
    async with (
        emulating(hears=["hello there", "once more"]) as server,
        client(server, CONTINUOUS.replace("conversation", "dictation")) as end,
    ):
        offsets = []
        found: list[Any] = []
        for turn in ("A1", "B2"):
            await end.send(SpeechMessage("speech.context", {}, turn))
            await end.send(*audio(turn, silence(300) + speech() + silence(900)))
            found = await end.until_end(turn)
            offsets.append(to_ms(next(i for i in found if i.path == "speech.phrase").body["Offset"]))

    assert "speech.fragment" in paths(found)
    assert offsets[0] == offsets[1] == pytest.approx(300, abs=40)


async def test_segmentation_of_the_context_is_obeyed() -> None:
    body = {"phraseDetection": {"mode": "CONVERSATION", "CONVERSATION": {
        "Segmentation": {"segmentationSilenceTimeoutMs": "1500"}}}}  # fmt: skip
    async with emulating() as server, client(server, CONTINUOUS) as end:
        await end.send(SpeechMessage("speech.context", body, "A1"))
        await end.send(*audio("A1", speech() + silence(900) + speech() + silence(1600)))
        found = await end.until_end("A1")

    assert paths(found).count("speech.phrase") == 1


async def test_audio_that_is_no_wave_it_knows_ends_the_connection() -> None:
    mp3 = riff_header(AudioFormat(16_000)).replace(b"\1\0\1\0", b"\x55\0\1\0")
    async with emulating() as server, client(server, CONTINUOUS) as end:
        await end.send(SpeechMessage("speech.context", {}, "A1"), AudioFrame(mp3, "A1"))
        with pytest.raises(ConnectionLost) as caught:
            await end.until_end("A1")

    assert caught.value.close_code == 1007


async def test_stereo_is_heard_by_its_first_channel() -> None:
    mono = speech() + silence(900)
    stereo = b"".join(mono[at : at + 2] + b"\0\0" for at in range(0, len(mono), 2))
    header = riff_header(AudioFormat(16_000, 2))
    async with emulating() as server, client(server, CONTINUOUS) as end:
        await end.send(SpeechMessage("speech.context", {}, "A1"), AudioFrame(header + stereo, "A1"))
        await end.send(AudioFrame(b"", "A1"))
        found = await end.until_end("A1")

    assert "speech.phrase" in paths(found)


# --- Synthesis -------------------------------------------------------------------------------------------------


def context(request_id: str, form: str, **flags: Any) -> SpeechMessage:
    made = {"outputFormat": form, "metadataOptions": flags}
    return SpeechMessage("synthesis.context", {"synthesis": {"audio": made}}, request_id)


@pytest.mark.parametrize(
    ("form", "n_per_ms", "n_head"),
    [
        ("raw-24khz-16bit-mono-pcm", 48, 0), ("riff-16khz-16bit-mono-pcm", 32, 44),
        ("raw-8khz-8bit-mono-mulaw", 8, 0), ("riff-8khz-8bit-mono-alaw", 8, 44),
    ],
)  # fmt: skip
async def test_text_comes_in_the_format_that_was_asked_for(form: str, n_per_ms: int, n_head: int) -> None:
    async with emulating() as server, client(server, SPEAK) as end:
        await end.send(context("A1", form, sessionEndEnabled="true"))
        await end.send(SpeechMessage("ssml", SSML.format("Hello to all of you."), "A1"))
        found = await end.until_end("A1")

    streams = {item.stream_id for item in found if isinstance(item, AudioFrame)}
    response = next(item for item in found if getattr(item, "path", "") == "response")
    data = b"".join(item.data for item in found if isinstance(item, AudioFrame))
    ended = next(
        entry["Data"]["Offset"]
        for item in found
        if getattr(item, "path", "") == "audio.metadata"
        for entry in item.body["Metadata"]
        if entry["Type"] == "SessionEnd"
    )
    assert paths(found)[:2] == ["turn.start", "response"]
    assert streams == {response.body["audio"]["streamId"]}
    assert len(data) - n_head == pytest.approx(n_per_ms * to_ms(ended), abs=n_per_ms)


@pytest.mark.parametrize(
    ("form", "document", "words"),
    [
        ("audio-24khz-96kbitrate-mono-mp3", SSML.format("Hi."), "output format"),
        ("raw-24khz-16bit-mono-pcm", "<speak>no voice</speak>", "no voice element"),
        ("raw-24khz-16bit-mono-pcm", "<speak><voice", "parsed"),
        ("raw-24khz-16bit-mono-pcm", "<!DOCTYPE a [<!ENTITY b 'c'>]>" + SSML.format("&b;"), "declarations"),
        ("raw-24khz-16bit-mono-pcm", SSML.replace("en-US-Jenny", "Jen").format("Hi."), "Unsupported voice"),
    ],
)
async def test_request_that_cannot_be_said_closes_with_the_reason(
    form: str, document: str, words: str
) -> None:
    async with emulating() as server, client(server, SPEAK) as end:
        await end.send(context("A1", form), SpeechMessage("ssml", document, "A1"))
        with pytest.raises(ConnectionLost, match=words) as caught:
            await end.until_end("A1")

    assert caught.value.close_code == 1007


async def said(body: str) -> tuple[list[int], int]:
    """When each word of a document begins, and how long all of it is."""
    async with emulating() as server, client(server, SPEAK) as end:
        await end.send(context("A1", "raw-16khz-16bit-mono-pcm", wordBoundaryEnabled="true"))
        await end.send(SpeechMessage("ssml", SSML.format(body), "A1"))
        found = await end.until_end("A1")
    starts = [
        to_ms(entry["Data"]["Offset"])
        for item in found
        if getattr(item, "path", "") == "audio.metadata"
        for entry in item.body["Metadata"]
    ]
    return starts, sum(len(item.data) for item in found if isinstance(item, AudioFrame)) // 32


@pytest.mark.parametrize(
    ("element", "ms"),
    [
        ("<break time='500ms'/>", 500),
        ("<break time='1.5s'/>", 1500),
        ("<break time='90s'/>", 20_000),
        ("<break strength='weak'/>", 500),
        ("<break/>", 750),
        ("<break time='100ms'/><break time='100ms'/>", 200),
    ],
)
async def test_break_is_silence_before_what_follows_it(element: str, ms: int) -> None:
    plain, plain_ms = await said("One two three.")
    broken, broken_ms = await said(f"One {element}two three.")
    after, after_ms = await said(f"One two three.{element}")

    assert broken == [plain[0], plain[1] + ms, plain[2] + ms]
    assert after == plain
    assert (broken_ms, after_ms) == (plain_ms + ms, plain_ms + ms)


async def test_text_in_pieces_is_said_on_the_streaming_path() -> None:
    given = {"bidirectionalStreamingMode": True, "voiceName": "en-US-JennyNeural", "language": "en-US"}
    opening = context("A1", "raw-16khz-16bit-mono-pcm", wordBoundaryEnabled=True)
    opening.body["synthesis"]["input"] = given
    async with emulating() as server, client(server, SPEAK.replace("v1", "v2")) as end:
        await end.send(opening)
        for piece in ("Hello to ", "all of you."):
            await end.send(SpeechMessage("text.piece", piece, "A1"))
        await end.send(SpeechMessage("text.end", "", "A1"))
        found = await end.until_end("A1")

    words = [
        item.body["Metadata"][0]["Data"]["text"]["Text"]
        for item in found
        if getattr(item, "path", "") == "audio.metadata"
    ]
    assert words == ["Hello", "to", "all", "of", "you"]


async def test_stop_ends_the_turn_early() -> None:
    async with emulating(pace=1) as server, client(server, SPEAK) as end:
        await end.send(context("A1", "raw-16khz-16bit-mono-pcm"))
        await end.send(SpeechMessage("ssml", SSML.format("On and on. " * 50), "A1"))
        while not isinstance(end.codec.decode(await end.connection.recv(), 0.0)[0], AudioFrame):
            pass
        await end.send(SpeechMessage("synthesis.control", {"action": "stop"}, "A1"))
        found = await end.until_end("A1")

    assert sum(len(item.data) for item in found if isinstance(item, AudioFrame)) < 32_000
