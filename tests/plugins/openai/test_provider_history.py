"""Items of the history in the words of the protocol."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plugins.openai.peer import session
from voxengine.audio.format import AudioFormat, Encoding
from voxengine.errors import ProviderError
from voxengine.history import Item
from voxengine.testing import virtual
from voxengine_openai.items import MAX_ITEM_AUDIO_BYTES, short_id, wire_item

FORMAT = AudioFormat(24_000)
PICTURE = "data:image/png;base64,AAAA"
SPEECH = b"\x01\x00" * 2400


def speech(text: str = "", *, status: Any = "in_progress", audio: bytes = SPEECH, rate: int = 24_000) -> Item:
    return Item("1", "user_audio", text, audio=audio, audio_format=AudioFormat(rate), status=status)


@pytest.mark.parametrize(
    ("item", "wire"),
    [
        (
            Item("1", "user_text", "Hello."),
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello."}]},
        ),
        (
            Item("1", "agent", "Hello there.", heard_text="Hello"),
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello"}]},
        ),
        (
            Item("1", "system", "Be brief."),
            {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Be brief."}]},
        ),
        (
            Item("1", "tool_call", name="look", call_id="call_1", arguments='{"a": 1}'),
            {"type": "function_call", "name": "look", "call_id": "call_1", "arguments": '{"a": 1}'},
        ),
        (
            Item("1", "tool_result", "Rain.", call_id="call_1"),
            {"type": "function_call_output", "call_id": "call_1", "output": "Rain."},
        ),
        (
            Item("1", "image", "a cat", image_url=PICTURE),
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "a cat"},
                    {"type": "input_image", "image_url": PICTURE},
                ],
            },
        ),
        (
            speech(),
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_audio", "audio": base64.b64encode(SPEECH).decode()}],
            },
        ),
        (
            speech("Good day.", status="completed"),
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Good day."}]},
        ),
    ],
)
def test_item_has_its_form(item: Item, wire: dict[str, Any]) -> None:
    assert wire_item(item, FORMAT) == wire


def test_speech_of_another_rate_is_converted() -> None:
    wire = wire_item(speech(audio=bytes(2 * 1600), rate=16_000), FORMAT)

    assert len(base64.b64decode(wire["content"][0]["audio"])) == 4800


@pytest.mark.parametrize(
    ("item", "session_format"),
    [
        (speech(audio=bytes(MAX_ITEM_AUDIO_BYTES + 2)), FORMAT),
        (speech(), AudioFormat(8_000, 1, Encoding.G711_ULAW)),
        (Item("1", "user_audio", audio_ms=3200), FORMAT),
    ],
)
def test_speech_that_cannot_go_as_audio_goes_as_a_marked_gap(item: Item, session_format: AudioFormat) -> None:
    (content,) = wire_item(item, session_format)["content"]

    assert content["type"] == "input_text"
    assert "no transcript" in content["text"]


@given(st.text(min_size=1, max_size=80))
def test_ids_fit_and_stay_apart(name: str) -> None:
    made = short_id(name)

    assert len(made) <= 32
    assert short_id(name) == made
    assert (made == name) is (len(name) <= 32)
    assert short_id(name + "x" * 40) != short_id(name + "y" * 40)


@virtual
async def test_history_is_loaded_in_order_and_asks_for_nothing() -> None:
    items = [
        Item("item-1", "user_text", "My name is Ada."),
        Item("item-2", "agent", "Hello Ada."),
        Item("item-3", "tool_call", name="look", call_id="call-" + "1" * 40, arguments="{}"),
        Item("item-4", "tool_result", "Rain.", call_id="call-" + "1" * 40),
        speech(),
        Item("item-6", "image", image_url=PICTURE),
        Item("item-7", "system", "Be brief."),
    ]
    async with session() as (provider, peer, recorder):
        await provider.load_history(items)

        sent = [fields["item"] for fields in peer.of("conversation.item.create")]
        assert [item["type"] for item in sent] == [
            "message", "message", "function_call", "function_call_output", "message", "message", "message",
        ]  # fmt: skip
        assert sent[2]["call_id"] == sent[3]["call_id"]
        assert len({item["id"] for item in sent}) == len(sent)
        assert all(len(item["id"]) <= 32 for item in sent)
        assert not peer.of("response.create")
        assert not recorder.of("response_started", "error_general")


@virtual
async def test_empty_history_is_nothing() -> None:
    async with session() as (provider, peer, _):
        await provider.load_history([])

        assert peer.names() == []


@virtual
async def test_refused_item_of_the_history_raises() -> None:
    async with session() as (provider, peer, recorder):
        answers = [None, {"type": "invalid_request_error", "code": "invalid_value", "message": "No."}]
        peer.refuses = lambda message: answers.pop(0)
        with pytest.raises(ProviderError, match="invalid_value"):
            await provider.load_history([Item("1", "user_text", "a"), Item("2", "user_text", "b")])

        assert not recorder.of("error_general")


@virtual
async def test_item_that_nobody_confirms_ends_in_time() -> None:
    async with session() as (provider, peer, _):
        peer.takes_items = False
        with pytest.raises(ProviderError) as caught:
            await provider.send_item(Item("1", "user_text", "a"))

        assert caught.value.code == "timeout"
