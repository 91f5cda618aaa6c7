"""What a client of Voice Live may send, in the shape of GA: one struct per event and per object in it.

Source: ``azure-ai-voicelive`` 1.3.1. Sets of values that the service keeps open (its enumerations are strings with
known values) are closed here only where a wrong one has to be noticed: kinds of objects, of voices and of formats.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from voxengine_openai.schema import EVENTS as GA_EVENTS
from voxengine_openai.schema import FunctionChoice, FunctionTool, Item, McpChoice

__all__ = ["EVENTS", "VOICE_KINDS"]

Ratio = Annotated[float, Meta(ge=0.0, le=1.0)]
Milliseconds = Annotated[int, Meta(ge=0)]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]
Modality = Literal["text", "audio", "animation", "avatar"]
MaxTokens = Annotated[int, Meta(ge=1)] | Literal["inf"] | None


class _Object(Struct, forbid_unknown_fields=True):
    """Base of every object; a field without a default is required."""


# --- Voices --------------------------------------------------------------------------------------


class _Prosody(_Object, kw_only=True):
    temperature: Ratio | None = None
    rate: str | None = None
    pitch: str | None = None
    volume: str | None = None
    style: str | None = None
    locale: str | None = None
    prefer_locales: list[str] | None = None
    custom_lexicon_url: str | None = None
    custom_text_normalization_url: str | None = None


class OpenAIVoice(_Object, tag="openai"):
    name: str


class StandardVoice(_Prosody, tag="azure-standard", kw_only=True):
    name: str


class CustomVoice(_Prosody, tag="azure-custom", kw_only=True):
    name: str
    endpoint_id: str


class PersonalVoice(_Prosody, tag="azure-personal", kw_only=True):
    name: str
    model: str


class AvatarVoice(_Prosody, tag="avatar-voice-sync", kw_only=True):
    model: str


class NativeVoice(_Object, tag="azure-realtime-native"):
    name: str


Voice = str | OpenAIVoice | StandardVoice | CustomVoice | PersonalVoice | AvatarVoice | NativeVoice | None

VOICE_KINDS: Final = (
    "openai",
    "azure-standard",
    "azure-custom",
    "azure-personal",
    "avatar-voice-sync",
    "azure-realtime-native",
)
"""The kinds of voices, as ``type`` names them."""


# --- Input ---------------------------------------------------------------------------------------


class EndOfUtterance(_Object):
    model: Literal["semantic_detection_v1", "semantic_detection_v1_en", "semantic_detection_v1_multilingual"]
    threshold_level: Literal["low", "medium", "high", "default"] | None = None
    timeout_ms: Milliseconds | None = None
    threshold: float | None = None
    timeout: float | None = None


class _Vad(_Object, kw_only=True):
    threshold: Ratio | None = None
    prefix_padding_ms: Milliseconds | None = None
    silence_duration_ms: Milliseconds | None = None
    end_of_utterance_detection: EndOfUtterance | None = None
    auto_truncate: bool | None = None
    create_response: bool | None = None
    interrupt_response: bool | None = None


class ServerVad(_Vad, tag="server_vad", kw_only=True):
    pass


class SemanticVadEn(_Vad, tag="azure_semantic_vad_en", kw_only=True):
    speech_duration_ms: Annotated[int, Meta(ge=80)] | None = None
    remove_filler_words: bool | None = None


class SemanticVad(_Vad, tag="azure_semantic_vad", kw_only=True):
    speech_duration_ms: Annotated[int, Meta(ge=80)] | None = None
    remove_filler_words: bool | None = None
    languages: list[str] | None = None


class SemanticVadMultilingual(_Vad, tag="azure_semantic_vad_multilingual", kw_only=True):
    speech_duration_ms: Annotated[int, Meta(ge=80)] | None = None
    remove_filler_words: bool | None = None
    languages: list[str] | None = None


class Transcription(_Object):
    model: str
    language: str | None = None
    custom_speech: dict[str, str] | None = None
    phrase_list: list[str] | None = None
    prompt: str | None = None


class NoiseReduction(_Object):
    type: Literal["azure_deep_noise_suppression", "near_field", "far_field"]


class EchoCancellation(_Object):
    type: Literal["server_echo_cancellation"]
    reference_source: Literal["server", "client"] | None = None
    channels: Literal[1, 2] | None = None


class InputFormat(_Object):
    """The name of the format and the rate beside it, either of which may come alone."""

    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"] | None = None
    rate: Literal[8000, 16000, 24000] | None = None


class Input(_Object):
    format: InputFormat | None = None
    turn_detection: ServerVad | SemanticVad | SemanticVadEn | SemanticVadMultilingual | None = None
    transcription: Transcription | None = None
    noise_reduction: NoiseReduction | None = None


# --- Output --------------------------------------------------------------------------------------


class OutputFormat(_Object):
    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"]
    rate: Literal[8000, 16000, 24000] | None = None


class Output(_Object):
    format: OutputFormat | None = None
    voice: Voice = None


class Audio(_Object):
    input: Input | None = None
    output: Output | None = None


class ResponseAudio(_Object):
    output: Output | None = None


class Animation(_Object):
    model_name: str | None = None
    outputs: list[Literal["blendshapes", "viseme_id"]] | None = None


class Avatar(_Object):
    character: str
    customized: bool
    type: Literal["video-avatar", "photo-avatar"] | None = None
    style: str | None = None
    model: str | None = None
    ice_servers: list[dict[str, Any]] | None = None
    video: dict[str, Any] | None = None
    scene: dict[str, Any] | None = None
    output_protocol: Literal["webrtc", "websocket"] | None = None
    output_audit_audio: bool | None = None


class StaticInterim(_Object, tag="static_interim_response"):
    texts: list[str] | None = None
    triggers: list[Literal["latency", "tool"]] | None = None
    latency_threshold_ms: Milliseconds | None = None


class ModelInterim(_Object, tag="llm_interim_response"):
    model: str | None = None
    instructions: str | None = None
    max_completion_tokens: int | None = None
    triggers: list[Literal["latency", "tool"]] | None = None
    latency_threshold_ms: Milliseconds | None = None


class Reasoning(_Object):
    effort: Effort | None = None


class McpServer(_Object, tag="mcp"):
    server_label: str
    server_url: str
    authorization: str | None = None
    headers: dict[str, str] | None = None
    allowed_tools: list[str] | None = None
    require_approval: Literal["never", "always"] | dict[str, list[str]] | None = None


Tools = list[FunctionTool | McpServer] | None
ToolChoice = str | FunctionChoice | McpChoice | None


# --- Events --------------------------------------------------------------------------------------


class Session(_Object, tag="realtime"):
    model: str | None = None
    output_modalities: list[Modality] | None = None
    instructions: str | None = None
    audio: Audio | None = None
    input_audio_echo_cancellation: EchoCancellation | None = None
    output_audio_timestamp_types: list[Literal["word"]] | None = None
    animation: Animation | None = None
    avatar: Avatar | None = None
    tools: Tools = None
    tool_choice: ToolChoice = None
    parallel_tool_calls: bool | None = None
    temperature: Ratio | None = None
    max_output_tokens: MaxTokens = None
    reasoning: Reasoning | None = None
    interim_response: StaticInterim | ModelInterim | None = None
    include: list[str] | None = None
    metadata: dict[str, str] | None = None


class AssistantText(_Object, tag="output_text"):
    text: str


class AssistantMessage(_Object, tag="message", kw_only=True):
    role: Literal["assistant"]
    content: list[AssistantText]
    id: str | None = None
    status: Literal["completed", "incomplete"] | None = None


class Response(_Object):
    commit: bool | None = None
    cancel_previous: bool | None = None
    append_input_items: list[Item] | None = None
    input: list[Item] | None = None
    output_modalities: list[Modality] | None = None
    instructions: str | None = None
    audio: ResponseAudio | None = None
    tools: Tools = None
    tool_choice: ToolChoice = None
    temperature: Ratio | None = None
    max_output_tokens: MaxTokens = None
    pre_generated_assistant_message: AssistantMessage | None = None
    reasoning: Reasoning | None = None
    metadata: dict[str, str] | None = None
    interim_response: StaticInterim | ModelInterim | None = None
    invoke_input: dict[str, Any] | None = None


class _Event(_Object, kw_only=True):
    event_id: str | None = None


class SessionUpdate(_Event, tag="session.update", kw_only=True):
    session: Session


class ResponseCreate(_Event, tag="response.create", kw_only=True):
    response: Response | None = None
    additional_instructions: str | None = None


class TurnStart(_Event, tag="input_audio.turn.start", kw_only=True):
    turn_id: str


class TurnAppend(_Event, tag="input_audio.turn.append", kw_only=True):
    turn_id: str
    audio: str


class TurnEnd(_Event, tag="input_audio.turn.end", kw_only=True):
    turn_id: str


class TurnCancel(_Event, tag="input_audio.turn.cancel", kw_only=True):
    turn_id: str


class InputClear(_Event, tag="input_audio.clear", kw_only=True):
    pass


class TextDelta(_Event, tag="input_text.delta", kw_only=True):
    id: str
    delta: str
    content_index: int | None = None


class TextDone(_Event, tag="input_text.done", kw_only=True):
    id: str
    content_index: int | None = None


class AvatarConnect(_Event, tag="session.avatar.connect", kw_only=True):
    client_sdp: str


EVENTS: Final[dict[str, type[Struct]]] = {
    **GA_EVENTS,
    **{
        str(cls.__struct_config__.tag): cls
        for cls in (
            SessionUpdate,
            ResponseCreate,
            TurnStart,
            TurnAppend,
            TurnEnd,
            TurnCancel,
            InputClear,
            TextDelta,
            TextDone,
            AvatarConnect,
        )
    },
}
"""The struct of each event, by its name."""
