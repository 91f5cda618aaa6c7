"""What does not fit, and what cannot be transcribed: the rarer scenarios of the service, judged by OpenAI's SDK."""

from __future__ import annotations

from typing import Any

import pytest

from tests.plugins.openai.emulating import Sdk, emulating, names, sdk, spoken

_PREFIX = "conversation.item.input_audio_transcription"
TEN = "one two three four five six seven eight nine ten"


async def transcribing(talk: Sdk, model: str, **session: Any) -> None:
    heard = {"transcription": {"model": model}}
    await talk.connection.session.update(session={"type": "realtime", "audio": {"input": heard}, **session})
    await talk.until("session.updated")


# -- transcripts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["gpt-4o-transcribe", "gpt-live-transcribe"])
async def test_probabilities_come_with_every_piece_and_with_the_whole(model: str) -> None:
    async with emulating({"hears": ["what is the time"]}) as server, sdk(server) as talk:
        await transcribing(talk, model, include=["item.input_audio_transcription.logprobs"])
        await talk.append(await spoken())
        events = await talk.until(f"{_PREFIX}.completed")

    deltas = [event for event in events if event.type == f"{_PREFIX}.delta"]
    assert "".join(entry.token for event in deltas for entry in event.logprobs) == "what is the time"
    done = events[-1].logprobs
    assert [bytes(entry.bytes).decode() for entry in done] == ["what", " is", " the", " time"]
    assert all(entry.logprob <= 0 for entry in done)


@pytest.mark.parametrize(
    ("model", "include"),
    [("gpt-4o-transcribe", None), ("whisper-1", ["item.input_audio_transcription.logprobs"])],
)
async def test_probabilities_come_only_where_they_are_asked_for_and_known(model: str, include: Any) -> None:
    async with emulating({"hears": ["what is the time"]}) as server, sdk(server) as talk:
        await transcribing(talk, model, **({} if include is None else {"include": include}))
        await talk.append(await spoken())
        events = await talk.until(f"{_PREFIX}.completed")

    texts = [event for event in events if event.type.startswith(_PREFIX)]
    assert [event.logprobs for event in texts] == [None] * len(texts)


@pytest.mark.parametrize("delay_ms", [0, 300])
async def test_a_transcription_that_fails_names_its_item_and_the_turn_is_answered(delay_ms: int) -> None:
    script = {
        "hears": ["what is the time", "thank you"],
        "delays": {"transcript_ms": delay_ms},
        "faults": [{"do": "error", "at": "transcript:1", "code": "unavailable", "message": "No luck."}],
    }
    async with emulating(script, speed=20) as server, sdk(server) as talk:
        await transcribing(talk, "gpt-4o-transcribe")
        await talk.append(await spoken())
        first: list[Any] = []
        while not {f"{_PREFIX}.failed", "response.done"} <= {event.type for event in first}:
            first.append(await talk.next())
        await talk.append(await spoken())
        second = await talk.last(f"{_PREFIX}.completed")

    (failed,) = [event for event in first if event.type == f"{_PREFIX}.failed"]
    (committed,) = [event for event in first if event.type == "input_audio_buffer.committed"]
    assert failed.item_id == committed.item_id
    assert (failed.error.type, failed.error.code, failed.error.message) == (
        "server_error",
        "server_error",
        "No luck.",
    )
    assert "error" not in names(first)
    assert f"{_PREFIX}.completed" not in names(first)
    assert first[-1].type == f"{_PREFIX}.failed" or first[-1].response.status == "completed"
    assert second.transcript == "thank you"


# -- the context ----------------------------------------------------------------------------------


async def inputs(talk: Sdk, n: int) -> list[Any]:
    """Ask so many times with ten words each; return the responses."""
    return [(await talk.ask(TEN))[-2].response for _ in range(n)]


async def limited(talk: Sdk, truncation: Any) -> None:
    session: Any = {
        "type": "realtime",
        "output_modalities": ["text"],
        "instructions": "",
        "truncation": truncation,
    }
    await talk.connection.session.update(session=session)
    await talk.until("session.updated")


QUIET = {"default": [{"say": "Yes."}]}
"""Ten words of the user and one of the agent make eleven tokens in each turn."""


async def test_the_oldest_items_give_way_down_to_the_part_that_is_retained() -> None:
    limit = {"type": "retention_ratio", "retention_ratio": 0.5, "token_limits": {"post_instructions": 40}}
    async with emulating(QUIET) as server, sdk(server) as talk:
        await limited(talk, limit)
        done = await inputs(talk, 5)

    sizes = [response.usage.input_tokens for response in done]
    cached = [response.usage.input_token_details.cached_tokens for response in done]
    assert sizes == [10, 21, 32, 11, 22]  # 43 would be too many: what goes is everything but 20 at most.
    assert cached == [0, 10, 21, 0, 11]


async def test_the_model_s_own_limit_holds_without_another_one() -> None:
    script = {**QUIET, "usage": {"per_word": 1000, "input_audio_per_s": 10, "output_audio_per_s": 20}}
    async with emulating(script) as server, sdk(server) as talk:
        await limited(talk, "auto")
        small = await inputs(talk, 4)
    async with emulating(script) as server, sdk(server, model="gpt-realtime-2.1") as talk:
        await limited(talk, "auto")
        large = await inputs(talk, 4)

    assert [response.usage.input_tokens for response in small] == [10_000, 21_000, 22_000, 22_000]
    assert [response.usage.input_tokens for response in large] == [10_000, 21_000, 32_000, 43_000]


async def test_where_nothing_may_be_dropped_a_response_fails_and_the_session_goes_on() -> None:
    script = {**QUIET, "usage": {"per_word": 1000, "input_audio_per_s": 10, "output_audio_per_s": 20}}
    async with emulating(script) as server, sdk(server) as talk:
        await limited(talk, "disabled")
        await inputs(talk, 2)
        refused = await talk.ask(TEN)
        for item_id in [item["item"]["id"] for item in talk.raw if item["type"] == "conversation.item.done"][
            :2
        ]:
            await talk.connection.conversation.item.delete(item_id=item_id)
            await talk.until("conversation.item.deleted")
        again = await talk.ask("so")

    response = refused[-2].response
    assert names(refused) == ["response.created", "response.done", "rate_limits.updated"]
    assert (response.status, response.output) == ("failed", [])
    assert response.status_details.error.code == "context_length_exceeded"
    assert response.usage.total_tokens == 0
    assert again[-2].response.status == "completed"


async def test_a_spoken_turn_that_does_not_fit_fails_likewise() -> None:
    script = {**QUIET, "usage": {"per_word": 1, "input_audio_per_s": 10_000, "output_audio_per_s": 20}}
    async with emulating(script) as server, sdk(server) as talk:
        await limited(talk, "disabled")
        await talk.append(await spoken(f"{TEN} {TEN}"))
        events = await talk.until("rate_limits.updated")

    assert events[-2].response.status == "failed"
    assert "response.output_item.added" not in names(events)
