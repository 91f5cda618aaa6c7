"""The emulator's ear: turns by server and semantic detection, on the time of the audio."""

from __future__ import annotations

from typing import Any

import pytest

from tests.plugins.mock.support import silence, voice_saying
from tests.plugins.openai.emulating import Event, Wire, emulating, names, spoken, text_of, wired

MS = 48
"""Bytes."""


async def listen(wire: Wire, transcription: dict[str, Any] | None = None, **detection: Any) -> None:
    found = {"type": "server_vad", **detection} if detection.get("type") is not False else None
    heard = {"turn_detection": found, "transcription": transcription}
    await wire.send("session.update", session={"type": "realtime", "audio": {"input": heard}})
    await wire.last("session.updated")


async def offsets(wire: Wire) -> tuple[int, int]:
    started = await wire.last("input_audio_buffer.speech_started")
    stopped = await wire.last("input_audio_buffer.speech_stopped")
    return started["audio_start_ms"], stopped["audio_end_ms"]


@pytest.mark.parametrize("chunk_ms", [7, 20, 100, 5000])
async def test_offsets_are_those_of_the_audio_however_it_was_cut(chunk_ms: int) -> None:
    speech = await voice_saying("one two three")
    async with emulating() as server, wired(server) as wire:
        await wire.append(silence(1000) + speech + silence(1000), chunk=chunk_ms * MS)
        start_ms, end_ms = await offsets(wire)

    # The padding reaches back from the first sound, and the silence that proves the end is part of the turn.
    said_ms = len(speech) // MS
    assert 1000 - 300 <= start_ms <= 1000 - 300 + 100
    assert 1000 + said_ms - 150 + 500 <= end_ms <= 1000 + said_ms + 500 + 10


async def test_padding_and_silence_are_settings() -> None:
    speech = await voice_saying("one two three")
    found = []
    detections: list[dict[str, Any]] = [{}, {"prefix_padding_ms": 100, "silence_duration_ms": 200}]
    for detection in detections:
        async with emulating() as server, wired(server) as wire:
            await listen(wire, **detection)
            await wire.append(silence(1000) + speech + silence(1000))
            found.append(await offsets(wire))

    (start_ms, end_ms), (later_start_ms, earlier_end_ms) = found
    assert later_start_ms - start_ms == 200
    assert end_ms - earlier_end_ms == 300


async def test_the_item_holds_the_turn_and_its_audio() -> None:
    speech = await voice_saying("one two three")
    async with emulating() as server, wired(server) as wire:
        await wire.append(silence(1000) + speech + silence(700))
        start_ms, end_ms = await offsets(wire)
        committed = await wire.last("input_audio_buffer.committed")
        await wire.send("conversation.item.retrieve", item_id=committed["item_id"])
        item = (await wire.last("conversation.item.retrieved"))["item"]

    n_bytes = len(item["content"][0]["audio"]) // 4 * 3 - item["content"][0]["audio"].count("=")
    assert n_bytes == (end_ms - start_ms) * MS


async def test_a_high_threshold_does_not_hear_a_low_voice() -> None:
    loud = await voice_saying("one two three")
    quiet = bytes(
        b
        for at in range(0, len(loud), 2)
        for b in (int.from_bytes(loud[at : at + 2], "little", signed=True) // 8).to_bytes(
            2, "little", signed=True
        )
    )
    async with emulating() as server, wired(server) as wire:
        await listen(wire, threshold=1.0)
        await wire.append(quiet + silence(700))
        await wire.send("input_audio_buffer.clear")
        first = await wire.next()
        await wire.append(loud + silence(700))
        second = await wire.next()

    assert first["type"] == "input_audio_buffer.cleared"
    assert second["type"] == "input_audio_buffer.speech_started"


async def test_a_turn_without_a_response_waits_for_the_request() -> None:
    async with emulating({"hears": ["good morning all"]}) as server, wired(server) as wire:
        await listen(wire, create_response=False)
        await wire.append(await spoken())
        turn = await wire.until("conversation.item.done")
        await wire.send("response.create")
        events = await wire.until("rate_limits.updated")

    assert names(turn)[-1] == "conversation.item.done"
    assert events[0]["type"] == "response.created"
    assert text_of(events) == "You said: good morning all"


async def test_a_voice_that_may_not_interrupt_does_not() -> None:
    script = {"hears": ["tell me a long story", "and something else"], "words_per_minute": 600}
    async with emulating(script, speed=100) as server, wired(server) as wire:
        await listen(wire, interrupt_response=False)
        await wire.append(await spoken())
        await wire.last("response.output_audio.delta")
        await wire.append(await spoken())
        await wire.last("input_audio_buffer.speech_started")
        first = await wire.last("response.done")
        second = await wire.last("response.done")

    assert [event["response"]["status"] for event in (first, second)] == ["completed", "completed"]


@pytest.mark.parametrize(("eagerness", "wait_ms"), [("low", 8000), ("auto", 4000), ("high", 2000)])
async def test_semantic_detection_waits_where_the_words_go_on(eagerness: str, wait_ms: int) -> None:
    script = {"hears": ["I would like to", "I am done."]}
    speech = await voice_saying("I would like")
    async with emulating(script) as server, wired(server) as wire:
        semantic = {"type": "semantic_vad", "eagerness": eagerness}
        await wire.send(
            "session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": semantic}}}
        )
        await wire.last("session.updated")
        await wire.append(speech + silence(9000) + speech + silence(9000), chunk=500 * MS)
        _, first_ms = await offsets(wire)
        _, second_ms = await offsets(wire)

    said_ms = len(speech) // MS
    assert said_ms - 150 + wait_ms <= first_ms <= said_ms + wait_ms + 10
    assert second_ms <= 9000 + 2 * said_ms + 510


async def test_detection_switched_off_leaves_the_turn_to_the_client() -> None:
    async with emulating() as server, wired(server) as wire:
        await listen(wire, type=False)
        await wire.append(await spoken())
        await wire.send("input_audio_buffer.commit")
        events = await wire.until("conversation.item.done")
        await listen(wire)
        await wire.append(await spoken())
        detected = await wire.next()

    assert events[0]["type"] == "input_audio_buffer.committed"
    assert detected["type"] == "input_audio_buffer.speech_started"


async def test_a_committed_silence_is_answered_as_one() -> None:
    async with emulating() as server, wired(server) as wire:
        await listen(wire, {"model": "whisper-1"}, type=False)
        await wire.append(silence(300))
        await wire.send("input_audio_buffer.commit")
        transcript = await wire.last("conversation.item.input_audio_transcription.completed")
        await wire.send("response.create")
        events = await wire.until("response.done")

    assert transcript["transcript"] == ""
    assert text_of(events) == "I did not hear anything."


async def transcribed(model: str, **script: Any) -> list[Event]:
    async with emulating({"hears": ["one two three four"], **script}) as server, wired(server) as wire:
        await listen(wire, {"model": model}, type=False)
        await wire.append(await spoken("one two three four"))
        await wire.send("input_audio_buffer.commit")
        return await wire.until("conversation.item.input_audio_transcription.completed")


async def test_models_give_their_text_in_their_own_way() -> None:
    whole = await transcribed("whisper-1")
    words = await transcribed("gpt-4o-transcribe")
    live = await transcribed("gpt-realtime-whisper")
    speakers = await transcribed("gpt-4o-transcribe-diarize")

    def deltas(events: list[Event]) -> list[str]:
        return [event["delta"] for event in events if event["type"].endswith(".delta")]

    assert deltas(whole) == ["one two three four"]
    assert deltas(words) == ["one", " two", " three", " four"]
    assert "".join(deltas(live)) == "one two three four"
    assert names(live)[0] == "conversation.item.input_audio_transcription.delta"
    assert [e["text"] for e in speakers if e["type"].endswith(".segment")] == ["one two three four"]


async def test_a_transcript_may_come_after_the_answer() -> None:
    script = {"hears": [{"text": "good morning all", "delay_ms": 300}], "default": "Hi."}
    async with emulating(script) as server, wired(server) as wire:
        await listen(wire, {"model": "gpt-transcribe"})
        await wire.append(await spoken())
        events = await wire.until("conversation.item.input_audio_transcription.completed")

    order = names(events)
    assert order.index("response.done") < order.index("conversation.item.input_audio_transcription.delta")
    assert events[-1]["transcript"] == "good morning all"


async def test_the_idle_timeout_also_runs_without_audio_and_stops_at_a_voice() -> None:
    async with emulating(speed=500) as server, wired(server) as wire:
        await listen(wire, idle_timeout_ms=5000)
        await wire.ask("Hello")
        await wire.append(await spoken())
        spoke = await wire.until("rate_limits.updated")
        await listen(wire, idle_timeout_ms=None)
        await wire.append(silence(20_000))
        await wire.send("input_audio_buffer.clear")
        after = await wire.next()

    assert names(spoke)[0] == "input_audio_buffer.speech_started"
    assert after["type"] == "input_audio_buffer.cleared"


async def test_audio_as_an_item_is_recognised() -> None:
    import base64

    audio = base64.b64encode(await voice_saying("good morning")).decode()
    async with emulating({"hears": ["good morning all"]}) as server, wired(server) as wire:
        item = {"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": audio}]}
        await wire.send("conversation.item.create", item=item)
        added = await wire.last("conversation.item.done")
        await wire.send("response.create")
        events = await wire.until("response.done")

    assert added["item"]["content"] == [{"type": "input_audio", "transcript": "good morning all"}]
    assert text_of(events) == "You said: good morning all"
    assert events[-1]["response"]["usage"]["input_token_details"]["audio_tokens"] > 0
