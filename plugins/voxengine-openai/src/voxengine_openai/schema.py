"""What a client may send, as strict as the service takes it: one struct per event and per object in it.

Source: the ``openai`` package 3.54.0, ``openai.types.realtime`` (fields and sets of values), and logs of the live
service for what it insists on beyond that: a ``type`` in every tool, format and content part, a ``name`` in every
function. Every optional field also takes null.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from voxengine_openai.models import MAX_OUTPUT_TOKENS

__all__ = ["EVENTS", "ITEMS", "ROLES", "Item", "ItemOrReference"]

Id = Annotated[str, Meta(max_length=32)]
"""An identifier that a client chose."""
EventId = Annotated[str, Meta(max_length=512)] | None
Milliseconds = Annotated[int, Meta(ge=0)]
Index = Annotated[int, Meta(ge=0)]
Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]
MaxOutputTokens = Annotated[int, Meta(ge=1, le=MAX_OUTPUT_TOKENS)] | Literal["inf"] | None
Modalities = list[Literal["text", "audio"]] | None
Status = Literal["completed", "incomplete", "in_progress"] | None
Object = Literal["realtime.item"] | None
Include = list[Literal["item.input_audio_transcription.logprobs"]] | None


class _Object(Struct, forbid_unknown_fields=True):
    """Base of every object; a field without a default is required."""


# --- Audio ---------------------------------------------------------------------------------------


class PCM(_Object, tag="audio/pcm"):
    rate: Literal[24000] | None = None


class PCMU(_Object, tag="audio/pcmu"):
    pass


class PCMA(_Object, tag="audio/pcma"):
    pass


Format = PCM | PCMU | PCMA | None


class NoiseReduction(_Object):
    type: Literal["near_field", "far_field"] | None = None
    strength: Annotated[float, Meta(ge=0.0)] | None = None


class Transcription(_Object):
    model: str | None = None
    language: str | None = None
    languages: list[str] | None = None
    keywords: list[str] | None = None
    prompt: str | None = None
    delay: Literal["minimal", "low", "medium", "high", "xhigh"] | None = None


class ServerVad(_Object, tag="server_vad"):
    threshold: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    prefix_padding_ms: Milliseconds | None = None
    silence_duration_ms: Milliseconds | None = None
    idle_timeout_ms: Milliseconds | None = None
    create_response: bool | None = None
    interrupt_response: bool | None = None


class SemanticVad(_Object, tag="semantic_vad"):
    eagerness: Literal["low", "medium", "high", "auto"] | None = None
    create_response: bool | None = None
    interrupt_response: bool | None = None


class InputAudioSettings(_Object):
    format: Format = None
    noise_reduction: NoiseReduction | None = None
    transcription: Transcription | None = None
    turn_detection: ServerVad | SemanticVad | None = None


class VoiceId(_Object):
    id: str


class OutputAudioSettings(_Object):
    format: Format = None
    voice: str | VoiceId | None = None
    speed: Annotated[float, Meta(ge=0.25, le=1.5)] | None = None


class AudioSettings(_Object):
    input: InputAudioSettings | None = None
    output: OutputAudioSettings | None = None


class ResponseOutputAudio(_Object):
    format: Format = None
    voice: str | VoiceId | None = None


class ResponseAudio(_Object):
    output: ResponseOutputAudio | None = None


class TranscriptionAudio(_Object):
    input: InputAudioSettings | None = None


# --- Tools ---------------------------------------------------------------------------------------


class FunctionTool(_Object, tag="function"):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ToolFilter(_Object):
    read_only: bool | None = None
    tool_names: list[str] | None = None


class ApprovalFilter(_Object):
    always: ToolFilter | None = None
    never: ToolFilter | None = None


class McpTool(_Object, tag="mcp"):
    server_label: str
    allowed_callers: list[Literal["direct", "programmatic"]] | None = None
    allowed_tools: list[str] | ToolFilter | None = None
    authorization: str | None = None
    connector_id: (
        Literal[
            "connector_dropbox",
            "connector_gmail",
            "connector_googlecalendar",
            "connector_googledrive",
            "connector_microsoftteams",
            "connector_outlookcalendar",
            "connector_outlookemail",
            "connector_sharepoint",
        ]
        | None
    ) = None
    defer_loading: bool | None = None
    headers: dict[str, str] | None = None
    require_approval: Literal["always", "never"] | ApprovalFilter | None = None
    server_description: str | None = None
    server_url: str | None = None
    tunnel_id: str | None = None


class FunctionChoice(_Object, tag="function"):
    name: str


class McpChoice(_Object, tag="mcp"):
    server_label: str
    name: str | None = None


Tools = list[FunctionTool | McpTool] | None
ToolChoice = Literal["none", "auto", "required"] | FunctionChoice | McpChoice | None


# --- Prompt, tracing, truncation, reasoning --------------------------------------------------------


class Breakpoint(_Object):
    mode: Literal["explicit"]
    ttl: Literal["30m", "12h"] | None = None


class PromptText(_Object, tag="input_text"):
    text: str
    prompt_cache_breakpoint: Breakpoint | None = None


class PromptImage(_Object, tag="input_image"):
    detail: Literal["low", "high", "auto", "original"]
    file_id: str | None = None
    image_url: str | None = None
    prompt_cache_breakpoint: Breakpoint | None = None


class PromptFile(_Object, tag="input_file"):
    detail: Literal["auto", "low", "high"] | None = None
    file_data: str | None = None
    file_id: str | None = None
    file_url: str | None = None
    filename: str | None = None
    prompt_cache_breakpoint: Breakpoint | None = None


class Prompt(_Object):
    id: str
    version: str | None = None
    variables: dict[str, str | PromptText | PromptImage | PromptFile] | None = None


class Tracing(_Object):
    group_id: str | None = None
    metadata: Any = None
    workflow_name: str | None = None


class TokenLimits(_Object):
    post_instructions: Annotated[int, Meta(ge=0)] | None = None


class RetentionRatio(_Object, tag="retention_ratio"):
    retention_ratio: Annotated[float, Meta(ge=0.0, le=1.0)]
    token_limits: TokenLimits | None = None


class Reasoning(_Object):
    effort: Literal["minimal", "low", "medium", "high", "xhigh"] | None = None


# --- Items ---------------------------------------------------------------------------------------


class Item:
    """Stands for one of :data:`ITEMS`, told apart by ``type``, and messages by ``role`` as well."""


class ItemOrReference(Item):
    """The same, or a reference to an item of the conversation."""


class InputText(_Object, tag="input_text"):
    text: str


class InputAudio(_Object, tag="input_audio"):
    audio: str
    transcript: str | None = None


class InputImage(_Object, tag="input_image"):
    image_url: str
    detail: Literal["auto", "low", "high"] | None = None


class OutputText(_Object, tag="output_text"):
    text: str


class _Item(_Object, kw_only=True):
    id: Id | None = None
    object: Object = None
    status: Status = None


class SystemMessage(_Item, tag="message", kw_only=True):
    role: Literal["system"]
    content: list[InputText]


class UserMessage(_Item, tag="message", kw_only=True):
    role: Literal["user"]
    content: list[InputText | InputAudio | InputImage]


class AssistantMessage(_Item, tag="message", kw_only=True):
    """A client makes text ones only: the service refuses audio that it did not speak."""

    role: Literal["assistant"]
    content: list[OutputText]


class FunctionCall(_Item, tag="function_call", kw_only=True):
    name: str
    arguments: str
    call_id: str | None = None


class FunctionCallOutput(_Item, tag="function_call_output", kw_only=True):
    call_id: str
    output: str


class McpApprovalResponse(_Object, tag="mcp_approval_response"):
    id: str
    approval_request_id: str
    approve: bool
    reason: str | None = None


class McpApprovalRequest(_Object, tag="mcp_approval_request"):
    id: str
    arguments: str
    name: str
    server_label: str


class McpToolDescription(_Object):
    name: str
    input_schema: Any
    annotations: Any = None
    description: str | None = None


class McpListTools(_Object, tag="mcp_list_tools"):
    server_label: str
    tools: list[McpToolDescription]
    id: str | None = None


class McpProtocolError(_Object, tag="protocol_error"):
    code: int
    message: str


class McpToolExecutionError(_Object, tag="tool_execution_error"):
    message: str


class McpHttpError(_Object, tag="http_error"):
    code: int
    message: str


class McpToolCall(_Object, tag="mcp_call"):
    id: str
    arguments: str
    name: str
    server_label: str
    approval_request_id: str | None = None
    error: McpProtocolError | McpToolExecutionError | McpHttpError | None = None
    output: str | None = None


class ItemReference(_Object, tag="item_reference"):
    id: str


ROLES: Final[dict[str, type[Struct]]] = {
    "system": SystemMessage,
    "user": UserMessage,
    "assistant": AssistantMessage,
}
"""The message of each role."""

ITEMS: Final[dict[str, type[Struct]]] = {
    "function_call": FunctionCall,
    "function_call_output": FunctionCallOutput,
    "mcp_approval_response": McpApprovalResponse,
    "mcp_list_tools": McpListTools,
    "mcp_call": McpToolCall,
    "mcp_approval_request": McpApprovalRequest,
    "item_reference": ItemReference,
}
"""The items that are no messages, by ``type``."""


# --- Sessions ------------------------------------------------------------------------------------


class RealtimeSession(_Object, tag="realtime"):
    audio: AudioSettings | None = None
    include: Include = None
    instructions: str | None = None
    max_output_tokens: MaxOutputTokens = None
    model: str | None = None
    output_modalities: Modalities = None
    parallel_tool_calls: bool | None = None
    prompt: Prompt | None = None
    reasoning: Reasoning | None = None
    tool_choice: ToolChoice = None
    tools: Tools = None
    tracing: Literal["auto"] | Tracing | None = None
    truncation: Literal["auto", "disabled"] | RetentionRatio | None = None


class TranscriptionSession(_Object, tag="transcription"):
    audio: TranscriptionAudio | None = None
    include: Include = None


class ResponseSettings(_Object):
    audio: ResponseAudio | None = None
    conversation: str | None = None
    input: list[ItemOrReference] | None = None
    instructions: str | None = None
    max_output_tokens: MaxOutputTokens = None
    metadata: Metadata | None = None
    output_modalities: Modalities = None
    parallel_tool_calls: bool | None = None
    prompt: Prompt | None = None
    reasoning: Reasoning | None = None
    tool_choice: ToolChoice = None
    tools: Tools = None


# --- Events --------------------------------------------------------------------------------------


class _Event(_Object, kw_only=True):
    event_id: EventId = None


class ItemCreate(_Event, tag="conversation.item.create", kw_only=True):
    item: Item
    previous_item_id: str | None = None


class ItemDelete(_Event, tag="conversation.item.delete", kw_only=True):
    item_id: str


class ItemRetrieve(_Event, tag="conversation.item.retrieve", kw_only=True):
    item_id: str


class ItemTruncate(_Event, tag="conversation.item.truncate", kw_only=True):
    item_id: str
    content_index: Index
    audio_end_ms: Milliseconds


class AudioAppend(_Event, tag="input_audio_buffer.append", kw_only=True):
    audio: str


class AudioClear(_Event, tag="input_audio_buffer.clear", kw_only=True):
    pass


class AudioCommit(_Event, tag="input_audio_buffer.commit", kw_only=True):
    pass


class OutputClear(_Event, tag="output_audio_buffer.clear", kw_only=True):
    pass


class ResponseCancel(_Event, tag="response.cancel", kw_only=True):
    response_id: str | None = None


class ResponseCreate(_Event, tag="response.create", kw_only=True):
    response: ResponseSettings | None = None


class SessionUpdate(_Event, tag="session.update", kw_only=True):
    session: RealtimeSession | TranscriptionSession


EVENTS: Final[dict[str, type[Struct]]] = {
    str(cls.__struct_config__.tag): cls
    for cls in (
        ItemCreate,
        ItemDelete,
        ItemRetrieve,
        ItemTruncate,
        AudioAppend,
        AudioClear,
        AudioCommit,
        OutputClear,
        ResponseCancel,
        ResponseCreate,
        SessionUpdate,
    )
}
"""The struct of each event, by its name."""
