"""Voice Live as a dialect: the shape of the Realtime beta, and what only this service has.

Sources: ``azure-ai-voicelive`` 1.3.1 (api-version 2026-07-15); a test compares the tables with its models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from voxengine_openai.dialects import BETA, CONTENT_TYPES, ITEM_EVENTS, Dialect, EventName, Field

__all__ = ["CLIENT_EXTRAS", "SERVER_EXTRAS", "VOICE_LIVE"]

CLIENT_EXTRAS: Final = frozenset(
    {
        "input_audio.clear",
        "input_audio.turn.append",
        "input_audio.turn.cancel",
        "input_audio.turn.end",
        "input_audio.turn.start",
        "input_text.delta",
        "input_text.done",
        "session.avatar.connect",
    }
)
"""What only a client of this service sends."""

SERVER_EXTRAS: Final = frozenset(
    {
        "response.animation_blendshapes.delta",
        "response.animation_blendshapes.done",
        "response.animation_viseme.delta",
        "response.animation_viseme.done",
        "response.audio_timestamp.delta",
        "response.audio_timestamp.done",
        "response.audio_transcript.annotation.added",
        "response.file_search_call.completed",
        "response.file_search_call.in_progress",
        "response.file_search_call.searching",
        "response.invocation.delta",
        "response.video.delta",
        "response.web_search_call.completed",
        "response.web_search_call.in_progress",
        "response.web_search_call.searching",
        "session.avatar.connecting",
        "session.avatar.switch_to_idle",
        "session.avatar.switch_to_speaking",
        "warning",
    }
)
"""What only this service sends."""

_PCM24: Final = {"type": "audio/pcm", "rate": 24_000}
_G711: Final[tuple[tuple[Any, Any], ...]] = (
    ({"type": "audio/pcmu"}, "g711_ulaw"),
    ({"type": "audio/pcma"}, "g711_alaw"),
)
_OUTPUT_FORMATS: Final[tuple[tuple[Any, Any], ...]] = (
    (_PCM24, "pcm16"),
    ({"type": "audio/pcm"}, "pcm16"),
    ({"type": "audio/pcm", "rate": 16_000}, "pcm16_16000hz"),
    ({"type": "audio/pcm", "rate": 8_000}, "pcm16_8000hz"),
    # Names with a hyphen are those of older versions.
    ({"type": "audio/pcm", "rate": 16_000}, "pcm16-16000hz"),
    ({"type": "audio/pcm", "rate": 8_000}, "pcm16-8000hz"),
    *_G711,
)
# GA names what goes out besides the text that always does.
_MODALITIES: Final[tuple[tuple[Any, Any], ...]] = tuple(
    (ga, wire)
    for more in ([], ["animation"], ["avatar"], ["animation", "avatar"])
    for ga, wire in (
        (["audio", *more], ["text", "audio", *more]),
        (["audio", *more], ["audio", "text", *more]),
        (["audio", *more], ["audio", *more]),
    )
)
_SESSION: Final = (
    Field("session", "type", None, implied="realtime"),
    Field("session", "output_modalities", "modalities", _MODALITIES),
    # The rate of PCM stands beside the format here. The second row writes into what the first leaves.
    Field("session", "audio.input.format.rate", "input_audio_sampling_rate"),
    Field("session", "audio.input.format", "input_audio_format", (({"type": "audio/pcm"}, "pcm16"), *_G711)),
    Field("session", "audio.input.turn_detection", "turn_detection"),
    Field("session", "audio.input.transcription", "input_audio_transcription"),
    Field("session", "audio.input.noise_reduction", "input_audio_noise_reduction"),
    Field("session", "audio.output.format", "output_audio_format", _OUTPUT_FORMATS),
    Field("session", "audio.output.voice", "voice"),
    Field("session", "audio.output.speed", None),
    Field("session", "object", None),
    Field("session", "max_output_tokens", "max_response_output_tokens"),
    Field("session", "reasoning.effort", "reasoning_effort"),
)
_UPDATE: Final = tuple(row for row in _SESSION if row.ga not in ("audio.output.speed", "object"))
_RESPONSE: Final = (
    Field("response", "output_modalities", "modalities", _MODALITIES),
    Field("response", "audio.output.format", "output_audio_format", _OUTPUT_FORMATS),
    Field("response", "audio.output.voice", "voice"),
)
_MADE: Final = (*_RESPONSE, Field("response.output.*.content.*", "type", "type", CONTENT_TYPES))
_ITEM: Final = (Field("item.content.*", "type", "type", CONTENT_TYPES),)
_NOT_SENT: Final = ("rate_limits.updated", "input_audio_buffer.timeout_triggered")


def _schema() -> Mapping[str, type]:
    from voxengine_azure.voice_live.schema import EVENTS

    return EVENTS


VOICE_LIVE: Final = Dialect(
    "voice-live",
    events=(
        *(row for row in BETA.events if not row.wire.startswith("transcription_session.")),
        *(EventName(name, name, is_sent=False) for name in _NOT_SENT),
    ),
    fields={
        "session.update": _UPDATE,
        "session.created": _SESSION,
        "session.updated": _SESSION,
        "response.create": (
            *_RESPONSE,
            Field("response", "reasoning.effort", "reasoning_effort"),
            Field("response.input.*.content.*", "type", "type", CONTENT_TYPES),
            Field("response", "input", "input_items"),
            Field("response.append_input_items.*.content.*", "type", "type", CONTENT_TYPES),
            Field("response.pre_generated_assistant_message.content.*", "type", "type", CONTENT_TYPES),
        ),
        "response.created": _MADE,
        "response.done": _MADE,
        # There is no usage of transcriptions here, in no form.
        "conversation.item.input_audio_transcription.completed": (Field("", "usage", None),),
        "output_audio_buffer.cleared": (Field("", "response_id", None, implied=""),),
        **dict.fromkeys(ITEM_EVENTS, _ITEM),
    },
    client_extras=CLIENT_EXTRAS,
    server_extras=SERVER_EXTRAS,
    schema=_schema,
)
"""What Voice Live speaks, in every version of its API since 2025-10."""
