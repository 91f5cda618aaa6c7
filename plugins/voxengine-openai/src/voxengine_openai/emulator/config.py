"""The session object: its defaults, how an update merges into it, and what the agent makes of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from voxengine.audio import g711
from voxengine.audio.format import Encoding
from voxengine_mock.settings import Settings, Tool
from voxengine_openai import wording
from voxengine_openai.dialects import GA, Dialect
from voxengine_openai.emulator.errors import Refused
from voxengine_openai.session_settings import format_of

__all__ = [
    "INSTRUCTIONS",
    "OPENAI",
    "PCM",
    "Profile",
    "RemoteTools",
    "check_tool_choice",
    "format_rate",
    "from_pcm",
    "initial",
    "merged",
    "neutral",
    "overridden",
    "shown",
    "to_pcm",
]

INSTRUCTIONS: Final = "You are a helpful, friendly voice assistant. Keep your answers short."
"""What a session has that was given none."""
PCM: Final[Mapping[str, Any]] = {"type": "audio/pcm", "rate": 24000}

_VAD: Final[Mapping[str, Any]] = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 500,
    "idle_timeout_ms": None,
    "create_response": True,
    "interrupt_response": True,
}
_SEMANTIC_VAD: Final[Mapping[str, Any]] = {
    "type": "semantic_vad",
    "eagerness": "auto",
    "create_response": True,
    "interrupt_response": True,
}
_KINDS: Final = {
    "server_vad": _VAD,
    "semantic_vad": _SEMANTIC_VAD,
    "audio/pcm": PCM,
    "audio/pcmu": {"type": "audio/pcmu"},
    "audio/pcma": {"type": "audio/pcma"},
}
"""Objects that are told apart by ``type``: their other fields when the type is new."""

_PATIENCE_MS: Final = {"low": 8000, "medium": 4000, "auto": 4000, "high": 2000}
"""How long semantic detection waits where the words are unfinished."""
_SEMANTIC_PAUSE_MS: Final = 500
_IDLE_MS: Final = (5000, 30000)
_PREFIX_MS: Final = (0, 10_000)
_SILENCE_MS: Final = (20, 60_000)
"""The agent's ear has limits where the protocol has none."""

_REALTIME: Final[Mapping[str, Any]] = {
    "output_modalities": ["audio"],
    "instructions": INSTRUCTIONS,
    "tools": [],
    "tool_choice": "auto",
    "max_output_tokens": "inf",
    "tracing": None,
    "truncation": "auto",
    "prompt": None,
    "include": None,
    "audio": {
        "input": {
            "format": PCM,
            "transcription": None,
            "noise_reduction": None,
            "turn_detection": _VAD,
        },
        "output": {"format": PCM, "voice": "alloy", "speed": 1.0},
    },
}
_TRANSCRIPTION: Final[Mapping[str, Any]] = {
    "include": None,
    "audio": {"input": {**_REALTIME["audio"]["input"]}},
}
_WHOLE: Final = frozenset({"tool_choice", "tracing", "truncation", "prompt", "reasoning", "voice"})
"""Objects that an update replaces as they are."""
_VOICES: Final[Mapping[str, str]] = {
    "alloy": "",  # Whatever the script has, since this is what a session speaks with that names no voice.
    "ash": "dante",
    "ballad": "celia",
    "coral": "aria",
    "echo": "bruno",
    "sage": "celia",
    "shimmer": "aria",
    "verse": "dante",
    "marin": "celia",
    "cedar": "bruno",
}
"""Which of the synthetic voices stands for one of the service's."""
_UNSHOWN: Final = frozenset({"parallel_tool_calls"})
"""What a request has and the session object that answers it has not."""
_SHOWN_DETECTION: Final = frozenset({"type", "threshold", "prefix_padding_ms", "silence_duration_ms"})
"""What the session object of a transcription says of its turn detection, though a request may say more."""
_CUSTOM_VOICE: Final = "voice_"


@attrs.frozen(kw_only=True)
class Profile:
    """What one service has of its own where several speak the protocol."""

    dialect: Dialect = GA
    voices: Mapping[str, str] | None = attrs.field(default=None, repr=False)
    """The voices that it has, and the synthetic voice that speaks for each; None: it takes any."""
    models: Callable[[str], bool] = lambda _: True
    """Whether it has a model of that name."""
    is_strict: bool = True
    """Refuse combinations that OpenAI's service refuses beyond the schema."""
    defaults: Mapping[str, Any] = attrs.field(default=_REALTIME, repr=False)
    """What a new session has, in the shape of GA."""
    kinds: Mapping[str, Mapping[str, Any]] = attrs.field(default=_KINDS, repr=False)
    """Objects that are told apart by ``type``: their other fields when the type is new."""
    whole: frozenset[str] = attrs.field(default=_WHOLE, repr=False)
    """Objects that an update replaces as they are."""
    check_voice: Callable[[Any, str, str], None] | None = attrs.field(default=None, repr=False)
    """Called with a voice, the session's model and the path of the field; raises Refused. None: ``voices`` says it."""
    unshown: frozenset[str] = attrs.field(repr=False)
    """Settings that the session object does not show."""

    @unshown.default
    def _of_openai(self) -> frozenset[str]:
        return _UNSHOWN if self.dialect.schema is None else frozenset()


def _is_openai_model(name: str) -> bool:
    return "realtime" in name or name.startswith("gpt-audio")


OPENAI: Final = Profile(voices=_VOICES, models=_is_openai_model)
"""OpenAI's own service."""


def initial(
    kind: str, session_id: str, model: str, expires_at: int, profile: Profile = OPENAI
) -> dict[str, Any]:
    """Return the session object of a new session; ``kind`` is ``realtime`` or ``transcription``."""
    if kind == "transcription":
        head = {"type": kind, "object": "realtime.transcription_session"}
        values = copy.deepcopy(dict(_TRANSCRIPTION))
        return {**head, "id": session_id, "expires_at": expires_at, **values}
    head = {"type": kind, "object": "realtime.session", "id": session_id, "model": model}
    return {**head, "expires_at": expires_at, **copy.deepcopy(dict(profile.defaults))}


def merged(
    session: Mapping[str, Any], changes: Mapping[str, Any], profile: Profile, *, has_spoken: bool
) -> dict[str, Any]:
    """Return the session object with an update in it; what was there is left as it is.

    A field that is absent at any level keeps its value, and null brings its default back.

    Args:
        changes: Checked against the protocol's schema.
        has_spoken: Whether the session gave any audio, so that its voice is fixed.

    Raises:
        Refused: Something in it cannot be. Nothing was changed then.
    """
    kind = session["type"]
    if changes.get("type", kind) != kind:
        other = changes["type"]
        raise Refused(
            f"Passing a {other} session update event to a {kind} session is not allowed.",
            "invalid_value",
            "session.type",
        )
    out = copy.deepcopy(dict(session))
    defaults = _TRANSCRIPTION if kind == "transcription" else profile.defaults
    # The model is a matter of the connection; clients repeat it here.
    fields = {key: value for key, value in changes.items() if key not in ("type", "model")}
    _merge(out, fields, defaults, profile)
    if profile.is_strict:
        _check_input(out["audio"]["input"])
    if kind == "realtime":
        _check_output(session, out, profile, has_spoken=has_spoken)
    return out


def shown(session: Mapping[str, Any], profile: Profile = OPENAI) -> dict[str, Any]:
    """Return the session object as the service sends it: it takes more settings than it shows."""
    out = {key: value for key, value in session.items() if key not in profile.unshown}
    if session["type"] != "transcription":
        return out
    heard = dict(session["audio"]["input"])
    if heard["turn_detection"] is not None:
        heard["turn_detection"] = {
            key: value for key, value in heard["turn_detection"].items() if key in _SHOWN_DETECTION
        }
    return {**out, "audio": {"input": heard}}


def _merge(
    into: dict[str, Any], changes: Mapping[str, Any], defaults: Mapping[str, Any], profile: Profile
) -> None:
    kinds = profile.kinds
    for key, value in changes.items():
        default = defaults.get(key)
        if value is None:
            into[key] = copy.deepcopy(default) if key != "turn_detection" else None
        elif not isinstance(value, Mapping) or key in profile.whole:
            into[key] = copy.deepcopy(value)
        else:
            before = into.get(key)
            if not isinstance(before, dict) or _is_other(before, value, kinds):
                before = copy.deepcopy(dict(kinds.get(value.get("type", ""), {})))
            into[key] = before
            _merge(before, value, kinds.get(before.get("type", ""), default or {}), profile)


def _is_other(
    before: Mapping[str, Any], value: Mapping[str, Any], kinds: Mapping[str, Mapping[str, Any]]
) -> bool:
    """Whether an object is of another kind than the one before it, which then leaves nothing behind."""
    return value.get("type", before.get("type")) != before.get("type") and before.get("type") in kinds


def _check_input(heard: Mapping[str, Any]) -> None:
    detection = heard["turn_detection"] or {}
    timeout_ms = detection.get("idle_timeout_ms")
    if timeout_ms is not None and not _IDLE_MS[0] <= timeout_ms <= _IDLE_MS[1]:
        path = "session.audio.input.turn_detection.idle_timeout_ms"
        is_above = timeout_ms > _IDLE_MS[1]
        raise Refused.of(wording.out_of_range(path, timeout_ms, _IDLE_MS[is_above], is_above=is_above))
    transcription = heard["transcription"]
    if transcription is None or transcription.get("delay") is None:
        return
    if transcription.get("model") != "gpt-realtime-whisper" or detection:
        raise Refused(
            "delay is only supported by gpt-realtime-whisper, with turn_detection set to null.",
            "invalid_value",
            "session.audio.input.transcription.delay",
        )


def _check_output(
    before: Mapping[str, Any], session: Mapping[str, Any], profile: Profile, *, has_spoken: bool
) -> None:
    said = session["audio"]["output"]
    path = "session.audio.output.voice"
    voice = said["voice"] = checked_voice(said["voice"], profile, path, session["model"])
    if has_spoken and voice != before["audio"]["output"]["voice"]:
        raise Refused(
            "Cannot update a conversation's voice if assistant audio is present.",
            "cannot_update_voice",
            "session.audio.output.voice",
        )
    if before.get("tracing") is not None and session["tracing"] != before["tracing"]:
        raise Refused(
            "Tracing cannot be changed once it is enabled for a session.", "invalid_value", "session.tracing"
        )
    check_tool_choice(session["tool_choice"], session["tools"], "session.tool_choice")


def checked_voice(voice: Any, profile: Profile, param: str, model: str) -> Any:
    """Return a voice as the session object shows it. Raises Refused when there is none of that name."""
    if profile.check_voice is not None:
        profile.check_voice(voice, model, param)
        return voice
    if isinstance(voice, Mapping) and set(voice) == {"id"}:
        return voice["id"]
    known = profile.voices
    if known is None or not isinstance(voice, str) or voice in known or voice.startswith(_CUSTOM_VOICE):
        return voice
    raise Refused.of(wording.invalid_value(param, voice, tuple(known)))


def check_tool_choice(choice: Any, tools: Any, param: str) -> None:
    """Raise Refused when the choice names a tool that is not declared."""
    if not isinstance(choice, Mapping):
        return
    key = "name" if choice.get("type") == "function" else "server_label"
    if not any(tool.get("type") == choice.get("type") and tool.get(key) == choice.get(key) for tool in tools):
        raise Refused(
            f"Tool choice {choice.get(key)!r} not found in 'tools' parameter.", "invalid_value", param
        )


def format_rate(audio_format: Mapping[str, Any]) -> int:
    """Return samples per second of a format."""
    return int(audio_format.get("rate", 24000)) if audio_format["type"] == "audio/pcm" else 8000


def to_pcm(audio_format: Mapping[str, Any], audio: bytes) -> bytes:
    """Return audio of a format as PCM16."""
    encoding = format_of(audio_format).encoding
    return audio if encoding is Encoding.PCM16 else g711.decode(audio, encoding)


def from_pcm(audio_format: Mapping[str, Any], pcm: bytes) -> bytes:
    """Return PCM16 as audio of a format."""
    encoding = format_of(audio_format).encoding
    return pcm if encoding is Encoding.PCM16 else g711.encode(pcm, encoding)


# -- what the agent makes of it -----------------------------------------------------------------

RemoteTools = Callable[[Mapping[str, Any]], tuple[Tool, ...]]
"""Returns the tools of an MCP server, as the session declares it."""


def tools_of(declared: Any, remote: RemoteTools) -> tuple[Tool, ...]:
    """Return the tools that the agent may call."""
    out: list[Tool] = []
    for tool in declared or ():
        if tool.get("type") == "mcp":
            out += remote(tool)
        elif tool.get("name"):
            out.append(Tool(tool["name"], tool.get("parameters") or {}))
    return tuple(out)


def neutral(session: Mapping[str, Any], profile: Profile, remote: RemoteTools) -> Settings:
    """Return the settings by which the agent works."""
    heard = session["audio"]["input"]
    values: dict[str, Any] = {
        "input_rate": format_rate(heard["format"]),
        "transcription": heard["transcription"] is not None,
        **_detection(heard["turn_detection"]),
    }
    if session["type"] == "transcription":
        return Settings(create_response=False, **{k: v for k, v in values.items() if k != "create_response"})
    said = session["audio"]["output"]
    return Settings(
        output_rate=format_rate(said["format"]),
        voice=_speaker(said["voice"], profile),
        speed=said["speed"],
        instructions=session["instructions"],
        tools=tools_of(session["tools"], remote),
        **options(session),
        **values,
    )


def options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a session and a single response have alike, as far as they are given."""
    out: dict[str, Any] = {}
    if values.get("output_modalities") is not None:
        out["audio"] = "audio" in values["output_modalities"]
    if values.get("max_output_tokens") is not None:
        limit = values["max_output_tokens"]
        out["max_output_tokens"] = None if limit == "inf" else limit
    choice = values.get("tool_choice")
    if isinstance(choice, str):
        out["tool_choice"] = choice
    elif isinstance(choice, Mapping):
        out["tool_choice"] = choice.get("name") or "required"
    return out


def overridden(
    settings: Settings, response: Mapping[str, Any], profile: Profile, remote: RemoteTools
) -> Settings:
    """Return the settings of one response: the session's, and over them what the request says."""
    changes = options(response)
    if response.get("instructions") is not None:
        changes["instructions"] = response["instructions"]
    if response.get("tools") is not None:
        changes["tools"] = tools_of(response["tools"], remote)
    said = (response.get("audio") or {}).get("output") or {}
    if said.get("voice") is not None:
        changes["voice"] = _speaker(said["voice"], profile)
    if said.get("format") is not None:
        changes["output_rate"] = format_rate(said["format"])
    return attrs.evolve(settings, **changes)


def _speaker(voice: Any, profile: Profile) -> str:
    """Return the synthetic voice that speaks for one."""
    name = str(voice.get("name", voice.get("id", ""))) if isinstance(voice, Mapping) else str(voice)
    return (profile.voices or _VOICES).get(name, "")


def _detection(detection: Mapping[str, Any] | None) -> dict[str, Any]:
    if detection is None:
        return {"turn_detection": "manual", "interrupt_response": False, "create_response": False}
    out: dict[str, Any] = {
        "turn_detection": "server",
        "create_response": detection["create_response"],
        "interrupt_response": detection["interrupt_response"],
    }
    if detection["type"] == "semantic_vad":
        patience_ms = _PATIENCE_MS[detection["eagerness"]]
        return {**out, "silence_ms": _SEMANTIC_PAUSE_MS, "patience_ms": patience_ms}
    return {
        **out,
        "threshold": detection["threshold"],
        "prefix_padding_ms": _within(detection["prefix_padding_ms"], _PREFIX_MS),
        "silence_ms": _within(detection["silence_duration_ms"], _SILENCE_MS),
        "idle_timeout_ms": detection.get("idle_timeout_ms"),
    }


def _within(value: int, limits: tuple[int, int]) -> int:
    return max(limits[0], min(value, limits[1]))
