"""Options become the session that the service is asked for, and what it cannot have is said."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plugins.openai.peer import DialledCustom, Recorder, session
from voxengine.audio.format import AudioFormat, Encoding
from voxengine.config import TurnDetection, VoiceEngineConfig
from voxengine.errors import CapabilityMissing, ConfigError, ProviderError
from voxengine.testing import virtual
from voxengine_openai import OpenAIProvider
from voxengine_openai.options import asked_options
from voxengine_openai.session_settings import (
    SessionPlan,
    Traits,
    changes_between,
    deep_merged,
    format_of,
    plan_session,
    shown_settings,
)

TOOL = {"type": "function", "name": "look", "description": "Looks.", "parameters": {"type": "object"}}
FORMATS = {"format": {"type": "audio/pcm", "rate": 24_000}}


def plan(*, model: str = "gpt-realtime", traits: Traits | None = None, **config: Any) -> SessionPlan:
    own = config.get("metadata", {}).get("session")
    return plan_session(asked_options(config), own, traits or Traits(), model)


def planned(**config: Any) -> dict[str, Any]:
    return plan(**config).session


def at(values: Any, path: str) -> Any:
    for key in path.split("."):
        values = values[key]
    return values


def warnings(recorder: Recorder) -> list[tuple[str, str]]:
    return [(event.data["code"], event.data["message"]) for event in recorder.of("warning")]


def test_nothing_asked_for_leaves_everything_but_the_formats_to_the_service() -> None:
    assert planned() == {"type": "realtime", "audio": {"input": FORMATS, "output": FORMATS}}


@pytest.mark.parametrize(
    ("given", "path", "value"),
    [
        ({"instructions": "Be brief."}, "instructions", "Be brief."),
        ({"instructions": ""}, "instructions", ""),
        ({"modalities": ("text",)}, "output_modalities", ["text"]),
        ({"modalities": ("audio", "text")}, "output_modalities", ["audio"]),
        ({"voice": "cedar"}, "audio.output.voice", "cedar"),
        ({"voice": "Cedar"}, "audio.output.voice", "cedar"),
        ({"voice": "a-voice-of-next-year"}, "audio.output.voice", "a-voice-of-next-year"),
        ({"voice": "voice_123"}, "audio.output.voice", {"id": "voice_123"}),
        ({"max_output_tokens": 150}, "max_output_tokens", 150),
        ({"tools": [TOOL]}, "tools", [TOOL]),
        ({"tools": [TOOL], "tool_choice": "auto"}, "tool_choice", "auto"),
        ({"tool_choice": "required"}, "tool_choice", "required"),
        ({"tool_choice": "look"}, "tool_choice", {"type": "function", "name": "look"}),
        (
            {"input_format": AudioFormat(8_000, 1, Encoding.G711_ULAW)},
            "audio.input.format",
            {"type": "audio/pcmu"},
        ),
        (
            {"output_format": AudioFormat(8_000, 1, Encoding.G711_ALAW)},
            "audio.output.format",
            {"type": "audio/pcma"},
        ),
        ({"turn_detection": "manual"}, "audio.input.turn_detection", None),
        ({"turn_detection": "client"}, "audio.input.turn_detection", None),
        ({"turn_detection": "server"}, "audio.input.turn_detection", {"type": "server_vad"}),
        (
            {
                "turn_detection": TurnDetection(
                    threshold=0.7, prefix_padding_ms=200, silence_ms=400, idle_timeout_ms=6000
                )
            },
            "audio.input.turn_detection",
            {
                "type": "server_vad",
                "threshold": 0.7,
                "prefix_padding_ms": 200,
                "silence_duration_ms": 400,
                "idle_timeout_ms": 6000,
            },
        ),
        (
            {"turn_detection": TurnDetection("semantic", eagerness="high")},
            "audio.input.turn_detection",
            {"type": "semantic_vad", "eagerness": "high"},
        ),
    ],
)
def test_neutral_option_has_its_place(given: dict[str, Any], path: str, value: Any) -> None:
    assert at(planned(**given), path) == value


@pytest.mark.parametrize(
    ("key", "given", "path", "value"),
    [
        ("max_tokens", 150, "max_output_tokens", 150),
        ("instructions", "Be brief.", "instructions", "Be brief."),
        ("speed", 1.25, "audio.output.speed", 1.25),
        ("noise_reduction", "far_field", "audio.input.noise_reduction", {"type": "far_field"}),
        ("noise_reduction", "off", "audio.input.noise_reduction", None),
        ("truncation", "disabled", "truncation", "disabled"),
        ("truncation", 0.8, "truncation", {"type": "retention_ratio", "retention_ratio": 0.8}),
        (
            "transcription_model",
            "gpt-4o-transcribe",
            "audio.input.transcription",
            {"model": "gpt-4o-transcribe"},
        ),
        (
            "transcription",
            {"model": "whisper-1", "prompt": "x"},
            "audio.input.transcription",
            {"model": "whisper-1", "prompt": "x"},
        ),
        ("prompt", "pmpt_1", "prompt", {"id": "pmpt_1"}),
        ("prompt", {"id": "pmpt_1", "version": "2"}, "prompt", {"id": "pmpt_1", "version": "2"}),
        ("tracing", "auto", "tracing", "auto"),
        ("tracing", {"workflow_name": "w"}, "tracing", {"workflow_name": "w"}),
        ("reasoning", "low", "reasoning", {"effort": "low"}),
        ("parallel_tool_calls", False, "parallel_tool_calls", False),
        (
            "include",
            ["item.input_audio_transcription.logprobs"],
            "include",
            ["item.input_audio_transcription.logprobs"],
        ),
        (
            "create_response",
            False,
            "audio.input.turn_detection",
            {"type": "server_vad", "create_response": False},
        ),
        (
            "interrupt_response",
            False,
            "audio.input.turn_detection",
            {"type": "server_vad", "interrupt_response": False},
        ),
        (
            "mcp_servers",
            [{"server_label": "docs", "server_url": "https://example.com/mcp"}],
            "tools",
            [{"type": "mcp", "server_label": "docs", "server_url": "https://example.com/mcp"}],
        ),
    ],
)
def test_flat_metadata_key_has_its_place(key: str, given: Any, path: str, value: Any) -> None:
    assert at(planned(metadata={key: given}), path) == value


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("speed", 4),
        ("speed", "fast"),
        ("noise_reduction", 7),
        ("truncation", "sometimes"),
        ("truncation", 2),
        ("transcription", "yes"),
        ("transcription_model", ""),
        ("tracing", 3),
        ("parallel_tool_calls", 1),
        ("include", "logprobs"),
        ("session", "gpt"),
        ("modalities", ["smell"]),
    ],
)
def test_wrong_metadata_value_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=key):
        planned(metadata={key: value})


@pytest.mark.parametrize(
    ("config", "detection"),
    [
        (
            {"turn_detection": TurnDetection("semantic")},
            {"type": "semantic_vad", "interrupt_response": False},
        ),
        ({"mode": "provider"}, {"type": "server_vad", "interrupt_response": False}),
        ({"turn_detection": TurnDetection("manual")}, None),
    ],
)
def test_voice_that_is_to_stop_nothing_does_not_make_the_service_cancel(
    config: dict[str, Any], detection: Any
) -> None:
    assert at(planned(interruption="off", **config), "audio.input.turn_detection") == detection


def test_contradiction_about_the_users_voice_is_refused() -> None:
    with pytest.raises(ConfigError, match="interrupt_response"):
        planned(interruption="off", metadata={"interrupt_response": True})


@pytest.mark.parametrize(
    "config",
    [
        {"voice": "alloy", "metadata": {"voice": "echo"}},
        {"max_output_tokens": 10, "metadata": {"max_tokens": 20}},
        {"metadata": {"max_output_tokens": 10, "max_tokens": 20}},
    ],
)
def test_two_values_for_one_option_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="two values"):
        planned(**config)


def test_same_value_twice_is_one_value() -> None:
    assert at(planned(voice="ash", metadata={"voice": "ash"}), "audio.output.voice") == "ash"


def test_the_vendors_own_words_come_last_and_untouched() -> None:
    own = {
        "audio": {"output": {"voice": "verse", "speed": 0.9}, "input": {"turn_detection": None}},
        "a_field_of_next_year": {"x": [1]},
    }

    made = planned(voice="nova", turn_detection="server", metadata={"speed": 1.2, "session": own})

    assert made["audio"]["output"] == {**FORMATS, "voice": "verse", "speed": 0.9}
    assert made["audio"]["input"]["turn_detection"] is None
    assert made["a_field_of_next_year"] == {"x": [1]}


@pytest.mark.parametrize(
    ("mode", "model", "transcribes", "reasoning"),
    [
        ("big", "gpt-realtime-2.1", True, None),
        ("fast", "gpt-realtime-2.1", False, {"effort": "minimal"}),
        ("fast", "gpt-realtime", False, None),
        ("provider", "gpt-realtime-2.1", False, None),
    ],
)
def test_mode_decides_what_nobody_asked_for(mode: str, model: str, transcribes: bool, reasoning: Any) -> None:
    made = planned(mode=mode, model=model)

    assert ("transcription" in made["audio"]["input"]) is transcribes
    assert made.get("reasoning") == reasoning


def test_what_the_engine_says_of_transcription_wins_over_the_mode() -> None:
    assert "transcription" in planned(mode="fast", transcription=True)["audio"]["input"]
    assert "transcription" not in planned(mode="big", transcription=False)["audio"]["input"]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gpt-transcribe", {"keywords": ["Ada", "Rex"]}),
        ("whisper-1", {"prompt": "Ada, Rex"}),
        ("gpt-4o-mini-transcribe", {"prompt": "Expect these words: Ada, Rex."}),
    ],
)
def test_vocabulary_goes_the_way_that_the_transcription_model_takes(
    model: str, expected: dict[str, Any]
) -> None:
    made = planned(vocabulary=("Ada", "Rex"), language="de-AT", metadata={"transcription_model": model})

    assert made["audio"]["input"]["transcription"] == {"model": model, "language": "de", **expected}


@pytest.mark.parametrize(
    ("config", "option"),
    [
        ({"temperature": 0.7}, "temperature"),
        ({"max_output_tokens": 9000}, "max_output_tokens"),
        ({"language": "en"}, "language"),
        ({"vocabulary": ("Ada",), "metadata": {"transcription_model": "gpt-realtime-whisper"}}, "vocabulary"),
        ({"turn_detection": TurnDetection("server", eagerness="low")}, "turn_detection"),
        ({"turn_detection": TurnDetection("semantic", threshold=0.3)}, "turn_detection"),
    ],
)
def test_what_a_session_cannot_have_is_said_and_not_sent(config: dict[str, Any], option: str) -> None:
    made = plan(**config)

    assert [(name, code) for name, code, _ in made.warnings] == [(option, "option_unsupported")]
    assert "temperature" not in made.session
    assert made.session.get("max_output_tokens", 0) <= 4096


@pytest.mark.parametrize(("voice", "nearest"), [("fable", "ballad"), ("onyx", "ash"), ("nova", "coral")])
def test_voice_of_text_to_speech_is_mapped_and_said(voice: str, nearest: str) -> None:
    made = plan(voice=voice)

    assert at(made.session, "audio.output.voice") == nearest
    ((option, code, sentence),) = made.warnings
    assert (option, code) == ("voice", "voice_mapped")
    assert voice in sentence
    assert nearest in sentence


def test_format_that_a_session_has_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="16000 Hz"):
        planned(input_format=AudioFormat(16_000))


# -- a session in words ---------------------------------------------------------------------------


def test_effective_session_is_shown_in_neutral_words() -> None:
    effective = deep_merged(
        planned(voice="ash", metadata={"transcription_model": "whisper-1"}),
        {
            "model": "gpt-realtime",
            "output_modalities": ["audio"],
            "max_output_tokens": "inf",
            "audio": {"input": {"turn_detection": None}},
        },
    )

    shown = shown_settings(effective, TurnDetection("client"))

    assert shown == {
        "model": "gpt-realtime",
        "voice": "ash",
        "modalities": ("audio",),
        "transcription": True,
        "transcription_model": "whisper-1",
        "turn_detection": "client",
    }


@pytest.mark.parametrize("broken", [{}, {"audio": 7}, {"audio": {"input": None, "output": [1]}}])
def test_broken_session_object_shows_little_and_breaks_nothing(broken: dict[str, Any]) -> None:
    assert shown_settings(broken, None) == {}


@pytest.mark.parametrize("value", [None, {}, {"type": "audio/opus"}, 7])
def test_unknown_format_is_taken_for_the_default(value: Any) -> None:
    assert format_of(value) == AudioFormat(24_000)


SCALARS = st.integers(0, 3) | st.text("ab", min_size=1, max_size=2)
KEYS = st.sampled_from(["a", "b"])
TREES = st.dictionaries(KEYS, st.recursive(SCALARS, lambda inner: st.dictionaries(KEYS, inner), max_leaves=6))


def without_cleared(value: Any) -> Any:
    """A session as the service keeps it: cleared fields are as if they were not there."""
    if not isinstance(value, dict):
        return value
    kept = {key: without_cleared(inner) for key, inner in value.items() if inner not in (None, "", [])}
    return {key: inner for key, inner in kept.items() if inner != {}}


@given(old=TREES, new=TREES)
def test_changes_merged_into_the_old_give_the_new(old: dict[str, Any], new: dict[str, Any]) -> None:
    merged = deep_merged(old, changes_between(old, new))

    assert without_cleared(merged) == without_cleared(new)


@given(tree=TREES)
def test_nothing_changed_is_nothing_to_send(tree: dict[str, Any]) -> None:
    assert changes_between(tree, tree) == {}


# -- on the wire ----------------------------------------------------------------------------------


@virtual
async def test_connecting_sends_one_update_before_the_services_first_word() -> None:
    async with session(
        voice="marin", tools=[TOOL], metadata={"speed": 1.1, "session": {"tracing": "auto"}}
    ) as (
        provider,
        peer,
        recorder,
    ):
        (update,) = peer.of("session.update")

        assert update["session"]["audio"]["output"]["voice"] == "marin"
        assert update["session"]["tracing"] == "auto"
        assert provider.session_id == "sess_1"
        assert recorder.types() == ["session_updated", "connection_established"]
        assert recorder.events[0].data["settings"]["voice"] == "marin"


@virtual
async def test_the_users_document_connects_with_warnings_and_no_error() -> None:
    metadata = {"model": "gpt-4-turbo", "temperature": 0.7, "max_tokens": 150}

    async with session(voice="nova", metadata=metadata) as (provider, peer, recorder):
        assert "model=gpt-realtime-2.1" in provider.dialled.url
        assert peer.of("session.update")[0]["session"]["max_output_tokens"] == 150
        assert [code for code, _ in warnings(recorder)] == [
            "model_mapped",
            "voice_mapped",
            "option_unsupported",
        ]
        assert not recorder.of("error_general")


@virtual
async def test_misspelt_metadata_key_is_named() -> None:
    async with session(metadata={"noise_reductoin": "near_field"}) as (_, _, recorder):
        ((code, message),) = warnings(recorder)

        assert code == "option_unknown"
        assert "noise_reduction" in message


@virtual
async def test_provider_mode_leaves_turn_detection_and_transcription_alone() -> None:
    async with session(mode="provider", turn_detection=TurnDetection()) as (_, peer, _):
        assert peer.of("session.update")[0]["session"]["audio"]["input"] == FORMATS


@virtual
async def test_only_what_changed_is_sent_in_mid_session() -> None:
    async with session(instructions="Before.", vocabulary=("Ada",), turn_detection="server") as (
        provider,
        peer,
        recorder,
    ):
        await provider.configure_session(
            {"instructions": "After.", "vocabulary": ("Rex",), "turn_detection": TurnDetection("manual")}
        )

        assert peer.of("session.update")[1]["session"] == {
            "type": "realtime",
            "instructions": "After.",
            "audio": {"input": {"turn_detection": None, "transcription": {"keywords": ["Rex"]}}},
        }
        assert recorder.events[-1].data["settings"]["turn_detection"] == "manual"


@virtual
async def test_same_settings_again_send_nothing() -> None:
    async with session(instructions="Same.") as (provider, peer, _):
        await provider.configure_session({"instructions": "Same."})

        assert len(peer.of("session.update")) == 1


@virtual
async def test_vendors_own_words_change_in_mid_session_too() -> None:
    async with session(metadata={"session": {"tracing": "auto"}}) as (provider, peer, _):
        await provider.configure_session(
            {"metadata": {"speed": 1.3, "session": {"max_output_tokens": "inf"}}}
        )

        assert peer.of("session.update")[1]["session"] == {
            "type": "realtime",
            "max_output_tokens": "inf",
            "audio": {"output": {"speed": 1.3}},
        }


@virtual
async def test_refused_change_raises_and_leaves_what_was() -> None:
    async with session(instructions="Before.") as (provider, peer, recorder):
        peer.refuses = lambda message: {
            "type": "invalid_request_error",
            "code": "invalid_value",
            "message": "No.",
        }
        with pytest.raises(ProviderError, match="session.update") as caught:
            await provider.configure_session({"instructions": "After."})
        peer.refuses = lambda message: None
        await provider.configure_session({"metadata": {"speed": 1.2}})

        assert (caught.value.code, caught.value.vendor_code) == ("invalid_request", "invalid_value")
        assert "instructions" not in peer.of("session.update")[-1]["session"]
        assert not recorder.of("error_general")


@virtual
async def test_voice_is_free_until_the_session_has_spoken() -> None:
    async with session(voice="ash") as (provider, peer, recorder):
        await provider.configure_session({"voice": "sage"})
        await peer.begin()
        await peer.say_audio(100)
        await recorder.wait("audio_output_chunk")
        with pytest.raises(CapabilityMissing, match="voice is fixed") as caught:
            await provider.configure_session({"voice": "echo", "instructions": "New."})
        await provider.configure_session({"voice": "sage", "instructions": "New."})

        sent = [update["session"] for update in peer.of("session.update")[1:]]
        assert [update.get("audio") for update in sent] == [{"output": {"voice": "sage"}}, None]
        assert caught.value.capability == "live_configuration"


@virtual
async def test_change_that_nobody_confirms_ends_in_time() -> None:
    async with session() as (provider, peer, _):
        peer.session = {}
        peer.take = lambda message: peer.say("input_audio_buffer.cleared")  # type: ignore[method-assign]
        with pytest.raises(ProviderError, match="did not confirm") as caught:
            await provider.configure_session({"instructions": "After."})

        assert caught.value.code == "timeout"


# -- what is declared -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "silence_ms"),
    [
        ({}, 500),
        ({"turn_detection": TurnDetection("semantic")}, 4000),
        ({"turn_detection": TurnDetection("semantic", eagerness="high")}, 2000),
        ({"turn_detection": TurnDetection("manual")}, 500),
    ],
)
def test_silence_that_ends_a_turn_follows_the_detection(config: dict[str, Any], silence_ms: int) -> None:
    assert OpenAIProvider.capabilities_for(config).endpointing_silence_ms == silence_ms


def test_cost_is_unknown_for_a_model_without_a_price() -> None:
    assert bool(OpenAIProvider.capabilities_for({"model": "gpt-realtime"}).cost)
    assert not OpenAIProvider.capabilities_for({"metadata": {"model": "gpt-realtime-9"}}).cost


def test_every_neutral_option_of_the_configuration_is_honoured_or_declared_missing() -> None:
    given = VoiceEngineConfig(
        model="m", voice="v", language="en", instructions="i", temperature=1.0, max_output_tokens=1,
        modalities=("text",), vocabulary=("w",), transport="websockets",
    ).for_provider()  # fmt: skip

    assert set(given) - {"api_key", "metadata"} - (OpenAIProvider.options or frozenset()) == {"temperature"}


@virtual
async def test_beta_endpoint_still_has_a_temperature() -> None:
    from tests.plugins.openai.peer import Peer
    from voxengine_openai.codec import BETA

    metadata = {"endpoint": "ws://127.0.0.1:9/realtime", "dialect": "beta"}
    async with session(
        kind=DialledCustom,
        peer=Peer(BETA),
        is_checked=False,
        temperature=0.8,
        voice="nova",
        metadata=metadata,
    ) as (provider, peer, recorder):
        sent = peer.texts[0]

        assert '"temperature":0.8' in sent
        assert '"voice":"nova"' in sent
        assert "OpenAI-Beta" in provider.dialled.headers
        assert warnings(recorder) == []
