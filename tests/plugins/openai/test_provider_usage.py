"""Usage by modality and cached part, and its price from a dated table."""

from __future__ import annotations

import datetime
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.realtime import RealtimeAudioConfigOutput

from tests.plugins.openai.peer import SESSION, Peer, session
from tests.plugins.openai.sdk_types import members
from voxengine.testing import virtual
from voxengine_openai.models import DEFAULT_MODEL, DEFAULT_TRANSCRIPTION_MODEL, base_name, realtime_model
from voxengine_openai.prices import is_priced, price_table, response_cost, transcription_cost
from voxengine_openai.usage import UsageMeter
from voxengine_openai.voices import NEAREST, REALTIME_VOICES, realtime_voice

USAGE: dict[str, Any] = {
    "total_tokens": 1_000_000,
    "input_tokens": 700_000,
    "output_tokens": 300_000,
    "input_token_details": {
        "text_tokens": 300_000,
        "audio_tokens": 400_000,
        "image_tokens": 0,
        "cached_tokens": 300_000,
        "cached_tokens_details": {"text_tokens": 200_000, "audio_tokens": 100_000, "image_tokens": 0},
    },
    "output_token_details": {"text_tokens": 100_000, "audio_tokens": 200_000},
}
NOTHING: dict[str, dict[str, int]] = {"input": {}, "cached": {}, "output": {}}
PRICE = 0.1 * 4 + 0.2 * 0.4 + 0.3 * 32 + 0.1 * 0.4 + 0.1 * 24 + 0.2 * 64
"""Of USAGE with gpt-realtime-2.1: fresh and cached input, then output; text before audio."""


@virtual
async def test_usage_and_cost_of_a_session_add_up() -> None:
    async with session() as (provider, peer, recorder):
        for n in (1, 2):
            await peer.begin(f"resp_{n}")
            await peer.finish(f"resp_{n}", usage=USAGE)
        event = await recorder.wait("usage_updated", 2)
        usage = await provider.get_usage()

        assert usage == event.data["usage"]
        assert (usage["n_responses"], usage["total_tokens"]) == (2, 2_000_000)
        assert [usage[f"input_{name}_tokens"] for name in ("text", "audio", "image")] == [600_000, 800_000, 0]
        assert [usage[f"cached_{name}_tokens"] for name in ("text", "audio", "image")] == [
            400_000,
            200_000,
            0,
        ]
        assert [usage[f"output_{name}_tokens"] for name in ("text", "audio")] == [200_000, 400_000]
        assert await provider.estimate_cost() == pytest.approx(2 * PRICE)
        assert event.data["cost"] == pytest.approx(2 * PRICE)
        assert recorder.of("response_completed")[0].data["usage"] == USAGE


@virtual
async def test_model_of_the_session_is_the_one_that_is_priced() -> None:
    peer = Peer()
    peer.session = {**SESSION, "model": "gpt-realtime-of-next-year"}
    async with session(peer=peer) as (provider, _, recorder):
        await peer.begin()
        await peer.finish(usage=USAGE)
        event = await recorder.wait("usage_updated")

        assert await provider.estimate_cost() is None
        assert "cost" not in event.data


@virtual
async def test_transcription_is_counted_and_priced() -> None:
    async with session() as (provider, peer, recorder):
        usage = {"type": "duration", "seconds": 120.0}
        await peer.say(
            "conversation.item.input_audio_transcription.completed",
            item_id="item_u",
            content_index=0,
            transcript="Good day.",
            usage=usage,
        )
        await recorder.wait("usage_updated")

        assert (await provider.get_usage())["transcription_s"] == 120.0
        assert await provider.estimate_cost() == pytest.approx(0.009)


def test_transcription_by_tokens_is_priced_by_modality() -> None:
    meter = UsageMeter()
    usage = {
        "type": "tokens",
        "total_tokens": 1_500,
        "input_tokens": 1_000,
        "input_token_details": {"text_tokens": 200, "audio_tokens": 800},
        "output_tokens": 500,
    }
    meter.add_transcription(usage, "gpt-4o-transcribe")

    assert meter.cost(DEFAULT_MODEL) == pytest.approx((200 * 2.5 + 800 * 6 + 500 * 10) / 1e6)
    assert transcription_cost("gpt-transcribe", {"audio": 600}) == pytest.approx(0.0045)


def test_part_without_a_price_makes_the_whole_unknown() -> None:
    meter = UsageMeter()
    meter.add_response(USAGE)
    assert meter.cost(DEFAULT_MODEL) is not None

    meter.add_transcription({"type": "duration", "seconds": 1}, "transcriber-of-next-year")

    assert meter.cost(DEFAULT_MODEL) is None


def test_unknown_model_is_unknown_and_never_free() -> None:
    assert response_cost("gpt-realtime-9", NOTHING) is None
    assert transcription_cost("whisper-9", {"seconds": 60}) is None


@given(
    st.recursive(
        st.none() | st.integers(-5, 5) | st.text(max_size=3) | st.booleans() | st.floats(),
        lambda inner: st.dictionaries(st.sampled_from([*USAGE, *USAGE["input_token_details"]]), inner),
        max_leaves=12,
    )
)
def test_nonsense_is_counted_as_nothing_below_zero(nonsense: Any) -> None:
    meter = UsageMeter()
    given_usage = nonsense if isinstance(nonsense, dict) else {"input_token_details": nonsense}

    meter.add_response(given_usage)
    meter.add_transcription(given_usage, "whisper-1")

    cost = meter.cost(DEFAULT_MODEL)
    assert cost is not None
    assert cost >= 0


def test_price_table_says_when_and_where_it_was_read() -> None:
    table = price_table()

    assert isinstance(table["as_of"], datetime.date)
    assert table["source"].startswith("https://developers.openai.com/")
    assert DEFAULT_MODEL in table["models"]
    assert DEFAULT_TRANSCRIPTION_MODEL in table["transcription"]
    assert all(set(entry) == {"text", "audio", "image"} for entry in table["models"].values())
    assert all(fresh >= cached for entry in table["models"].values() for fresh, cached, *_ in entry.values())


@pytest.mark.parametrize("model", ["gpt-realtime", "gpt-realtime-2025-08-28", "gpt-realtime-mini-2025-10-06"])
def test_snapshot_costs_what_its_model_costs(model: str) -> None:
    assert is_priced(model)
    assert response_cost(model, NOTHING) == 0.0


@pytest.mark.parametrize(
    "model",
    [
        "gpt-4-turbo",
        "gpt-4",
        "gpt-4-0613",
        "gpt-4o",
        "gpt-4o-mini-2024-07-18",
        "gpt-3.5-turbo",
        "gpt-5.1",
        "o3-mini",
    ],
)
def test_text_model_is_replaced_and_that_is_said(model: str) -> None:
    used, sentence = realtime_model(model)

    assert used == DEFAULT_MODEL
    assert model in sentence


@pytest.mark.parametrize(
    "model",
    ["gpt-realtime", "gpt-realtime-mini", "gpt-4o-realtime-preview", "gpt-audio-mini", "gpt-next", "ft:x"],
)
def test_other_model_goes_through(model: str) -> None:
    assert realtime_model(model) == (model, "")


def test_no_model_is_the_default() -> None:
    assert realtime_model(None) == (DEFAULT_MODEL, "")
    assert base_name("gpt-realtime-2025-08-28") == "gpt-realtime"


def test_voices_agree_with_the_official_types() -> None:
    voice = RealtimeAudioConfigOutput.model_fields["voice"].annotation
    names = {name for kind in members(voice) for name in get_args(kind)}

    assert set(REALTIME_VOICES) == names
    assert set(NEAREST.values()) <= names
    assert not set(NEAREST) & names
    assert realtime_voice({"id": "voice_1"}) == ({"id": "voice_1"}, "")
