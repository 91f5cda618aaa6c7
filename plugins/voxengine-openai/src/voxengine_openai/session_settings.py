"""Options in the words of a GA session, and what changed between two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from voxengine.audio.format import AudioFormat, Encoding
from voxengine.config import TurnDetection
from voxengine.errors import ConfigError
from voxengine_openai.models import (
    DEFAULT_TRANSCRIPTION_MODEL,
    MAX_OUTPUT_TOKENS,
    is_live_transcriber,
    is_reasoning,
)
from voxengine_openai.voices import realtime_voice

__all__ = [
    "FORMATS",
    "WHOLE",
    "SessionPlan",
    "Traits",
    "changes_between",
    "deep_merged",
    "format_of",
    "plan_session",
    "plan_transcription",
    "shown_settings",
    "vendor_decides",
]

FORMATS: Final = (
    AudioFormat(24_000),
    AudioFormat(8_000, 1, Encoding.G711_ULAW),
    AudioFormat(8_000, 1, Encoding.G711_ALAW),
)
"""What a session takes and gives; there is no other rate."""

_WIRE_TYPES: Final[Mapping[str, Encoding]] = {
    "audio/pcm": Encoding.PCM16,
    "audio/pcmu": Encoding.G711_ULAW,
    "audio/pcma": Encoding.G711_ALAW,
}
_KEYWORD_MODELS: Final = ("gpt-transcribe", "gpt-live-transcribe")
_PROMPT_MODELS: Final = ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe")


WHOLE: Final = frozenset(
    {"turn_detection", "format", "tool_choice", "truncation", "tracing", "prompt", "voice"}
)
"""Values that are sent whole, since their parts belong together."""


@attrs.frozen(kw_only=True)
class Traits:
    """In what a service differs from OpenAI's own."""

    name: str = "openai"
    transcription_model: str = DEFAULT_TRANSCRIPTION_MODEL
    maps_voices: bool = True
    has_temperature: bool = False
    has_prices: bool = True
    """Whether OpenAI's prices are those of the service."""
    input_formats: tuple[AudioFormat, ...] = FORMATS
    output_formats: tuple[AudioFormat, ...] = FORMATS
    whole: frozenset[str] = WHOLE


@attrs.frozen(kw_only=True)
class SessionPlan:
    """A session as the options want it."""

    session: dict[str, Any] = attrs.field(repr=False)
    warnings: tuple[tuple[str, str, str], ...] = ()
    """Option, code and sentence of what cannot be had as it was asked for."""


class _Planner:
    def __init__(self, asked: Mapping[str, Any], traits: Traits, model: str) -> None:
        self.asked = asked
        self.traits = traits
        self.model = model
        self.session: dict[str, Any] = {"type": "realtime"}
        self.warnings: list[tuple[str, str, str]] = []

    def put(self, path: str, value: Any) -> None:
        place = self.session
        *way, last = path.split(".")
        for key in way:
            place = place.setdefault(key, {})
        place[last] = value

    def copy(self, *names: str) -> None:
        for name in names:
            if name in self.asked:
                self.put(name, self.asked[name])

    def lacks(self, option: str, sentence: str) -> None:
        self.warnings.append((option, "option_unsupported", f"{self.traits.name}: {sentence}"))


def plan_session(
    asked: Mapping[str, Any], own: Mapping[str, Any] | None, traits: Traits, model: str
) -> SessionPlan:
    """Return the session that options describe.

    Args:
        asked: As :func:`voxengine_openai.options.asked_options` returns them.
        own: ``metadata["session"]``: merged in last, untouched.
        traits: The service.
        model: The session's model.
    """
    planner = _Planner(asked, traits, model)
    planner.copy("instructions", "truncation", "tracing", "prompt", "include")
    _plan_output(planner)
    for name, path, offered in (
        ("input_format", "input", traits.input_formats),
        ("output_format", "output", traits.output_formats),
    ):
        planner.put(f"audio.{path}.format", wire_format(name, asked.get(name, FORMATS[0]), offered))
    if "noise_reduction" in asked:
        planner.put("audio.input.noise_reduction", asked["noise_reduction"])
    _plan_detection(planner)
    _plan_transcription(planner)
    _plan_tools(planner)
    _plan_reasoning(planner)
    session = deep_merged(planner.session, own or {})
    audio = session["audio"]
    if not isinstance(audio, Mapping) or not all(
        isinstance(audio[side], Mapping) for side in ("input", "output")
    ):
        raise ConfigError(
            "metadata['session'] has something else where a session has the table audio.input or output."
        )
    return SessionPlan(session=session, warnings=tuple(planner.warnings))


_OF_DIALOGUE: Final = (
    "voice",
    "instructions",
    "temperature",
    "max_output_tokens",
    "modalities",
    "tools",
    "tool_choice",
    "speed",
    "truncation",
    "prompt",
    "tracing",
    "reasoning",
    "parallel_tool_calls",
    "mcp_servers",
    "create_response",
)


def plan_transcription(
    asked: Mapping[str, Any], own: Mapping[str, Any] | None, traits: Traits, model: str
) -> SessionPlan:
    """Return the session that writes down what the user says; arguments as for :func:`plan_session`.

    Args:
        model: The one that transcribes.
    """
    details = asked.get("transcription")
    kept = {
        name: value for name, value in asked.items() if name not in ("create_response", "interrupt_response")
    }
    if not isinstance(details, Mapping):
        kept |= {"transcription": True, "transcription_model": model}
    planner = _Planner(kept, traits, model)
    planner.session["type"] = "transcription"
    for name in _OF_DIALOGUE:
        if asked.get(name) not in (None, "auto", (), []):
            planner.lacks(
                name, f"{name} is without effect in a transcription session, which gives no answers."
            )
    planner.copy("include")
    planner.put("audio.input.format", wire_format("input_format", asked.get("input_format", FORMATS[0])))
    if "noise_reduction" in asked:
        planner.put("audio.input.noise_reduction", asked["noise_reduction"])
    if is_live_transcriber(model):
        planner.put("audio.input.turn_detection", None)
        if vendor_decides(asked.get("turn_detection", TurnDetection("manual"))):
            planner.lacks("turn_detection", f"{model} finds no turns; end_turn() ends one.")
    else:
        _plan_detection(planner)
    _plan_transcription(planner)
    session = deep_merged(planner.session, own or {})
    audio = session["audio"]
    if not isinstance(audio, Mapping) or not isinstance(audio["input"], Mapping):
        raise ConfigError("metadata['session'] has something else where a session has the table audio.input.")
    return SessionPlan(session=session, warnings=tuple(planner.warnings))


def wire_format(name: str, wanted: object, offered: tuple[AudioFormat, ...] = FORMATS) -> dict[str, Any]:
    """Return a format in the protocol's words. Raises ConfigError for one that sessions do not have."""
    if not isinstance(wanted, AudioFormat) or wanted not in offered:
        shown = wanted.describe() if isinstance(wanted, AudioFormat) else type(wanted).__name__
        takes = ", ".join(item.describe() for item in offered)
        raise ConfigError(f"{name} is {shown}; a session takes {takes}.")
    kind = next(kind for kind, encoding in _WIRE_TYPES.items() if encoding is wanted.encoding)
    return {"type": kind} | ({"rate": wanted.sample_rate} if kind == "audio/pcm" else {})


def format_of(value: object) -> AudioFormat:
    """Return the format that a session object names; PCM16 at 24 kHz for what is not known."""
    held = value if isinstance(value, Mapping) else {}
    encoding = _WIRE_TYPES.get(str(held.get("type")), Encoding.PCM16)
    if encoding is not Encoding.PCM16:
        return AudioFormat(8_000, 1, encoding)
    rate = held.get("rate")
    return AudioFormat(rate) if rate in (8_000, 16_000) else FORMATS[0]


def _plan_output(planner: _Planner) -> None:
    asked = planner.asked
    modalities = asked.get("modalities")
    if modalities is not None:
        # The service knows one or the other; audio always brings its transcript.
        planner.put("output_modalities", ["audio"] if "audio" in modalities else ["text"])
    if "voice" in asked:
        voice, sentence = (
            realtime_voice(asked["voice"]) if planner.traits.maps_voices else (asked["voice"], "")
        )
        planner.put("audio.output.voice", voice)
        if sentence:
            planner.warnings.append(("voice", "voice_mapped", sentence))
    if "speed" in asked:
        planner.put("audio.output.speed", asked["speed"])
    if "temperature" in asked:
        if planner.traits.has_temperature:
            planner.put("temperature", asked["temperature"])
        else:
            planner.lacks(
                "temperature",
                "sessions have no temperature any more; the setting is not sent and without effect.",
            )
    wanted = asked.get("max_output_tokens")
    if isinstance(wanted, int) and not isinstance(wanted, bool) and wanted > MAX_OUTPUT_TOKENS:
        planner.lacks(
            "max_output_tokens",
            f"max_output_tokens goes up to {MAX_OUTPUT_TOKENS}; that is sent. Leave it out for no limit.",
        )
        wanted = MAX_OUTPUT_TOKENS
    if wanted is not None:
        planner.put("max_output_tokens", wanted)


def vendor_decides(detection: TurnDetection | None) -> bool:
    """Return whether the service finds the end of the user's turn."""
    return detection is None or detection.kind in ("server", "semantic")


def _plan_detection(planner: _Planner) -> None:
    asked = planner.asked
    detection = asked.get("turn_detection")
    switches = {name: asked[name] for name in ("create_response", "interrupt_response") if name in asked}
    if detection is None and not switches:
        return
    detection = detection or TurnDetection()
    if not vendor_decides(detection):
        planner.put("audio.input.turn_detection", None)
        return
    names: dict[str, str] = {"eagerness": "eagerness"}
    if detection.kind == "server":
        names = {
            "threshold": "threshold",
            "prefix_padding_ms": "prefix_padding_ms",
            "silence_ms": "silence_duration_ms",
            "idle_timeout_ms": "idle_timeout_ms",
        }
    values: dict[str, Any] = {"type": f"{detection.kind}_vad"}
    for name in ("threshold", "prefix_padding_ms", "silence_ms", "eagerness", "idle_timeout_ms"):
        value = getattr(detection, name)
        if value is None:
            continue
        if name in names:
            values[names[name]] = value
        else:
            planner.lacks(
                "turn_detection", f"turn_detection.{name} is without effect under {detection.kind} detection."
            )
    planner.put("audio.input.turn_detection", values | switches)


def _plan_transcription(planner: _Planner) -> None:
    asked = planner.asked
    wanted = asked.get("transcription")
    detailed = any(name.startswith("transcription_") for name in asked)
    if wanted is None and not detailed:
        wanted = {"fast": False, "big": True}.get(asked.get("mode", "provider"))
    if isinstance(wanted, Mapping):
        planner.put("audio.input.transcription", dict(wanted))
        return
    if not wanted and not detailed:
        for name in ("language", "vocabulary"):
            if name in asked:
                planner.lacks(name, f"{name} helps the transcription of the user's speech, which is off.")
        return
    model = asked.get("transcription_model", planner.traits.transcription_model)
    values: dict[str, Any] = {"model": model}
    if "language" in asked:
        values["language"] = str(asked["language"]).replace("_", "-").split("-")[0].lower()
    for option, name in (("transcription_prompt", "prompt"), ("transcription_delay", "delay")):
        if option in asked:
            values[name] = asked[option]
    words = asked.get("vocabulary")
    if words:
        _add_vocabulary(planner, model, values, [str(word) for word in words])
    planner.put("audio.input.transcription", values)


def _add_vocabulary(planner: _Planner, model: str, values: dict[str, Any], words: Sequence[str]) -> None:
    if model in _KEYWORD_MODELS:
        values["keywords"] = list(words)
    elif model.startswith(_PROMPT_MODELS) and "diarize" not in model:
        listed = ", ".join(words)
        hint = listed if model == "whisper-1" else f"Expect these words: {listed}."
        values["prompt"] = f"{values['prompt']} {hint}" if "prompt" in values else hint
    else:
        planner.lacks("vocabulary", f"the transcription model {model!r} takes no vocabulary.")


def _plan_tools(planner: _Planner) -> None:
    asked = planner.asked
    tools = [_function(tool) for tool in asked.get("tools") or ()]
    tools += [{"type": "mcp", **server} for server in asked.get("mcp_servers") or ()]
    if tools or "tools" in asked:
        planner.put("tools", tools)
    choice = asked.get("tool_choice")
    if choice is None or (choice == "auto" and not tools):
        return
    if isinstance(choice, str) and choice not in ("auto", "none", "required"):
        choice = {"type": "function", "name": choice}
    planner.put("tool_choice", choice)


def _function(tool: Mapping[str, Any]) -> dict[str, Any]:
    known = ("name", "description", "parameters")
    return {"type": "function", **{name: tool[name] for name in known if tool.get(name) is not None}}


def _plan_reasoning(planner: _Planner) -> None:
    asked = planner.asked
    if "reasoning" in asked:
        planner.put("reasoning", asked["reasoning"])
    elif asked.get("mode") == "fast" and is_reasoning(planner.model):
        planner.put("reasoning", {"effort": "minimal"})
    planner.copy("parallel_tool_calls")


def deep_merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``over`` on top: mappings merge, everything else is replaced. Both stay as they are."""
    out = dict(base)
    for key, value in over.items():
        held = out.get(key)
        if isinstance(held, Mapping) and isinstance(value, Mapping):
            out[key] = deep_merged(held, value)
        else:
            out[key] = value
    return out


def changes_between(
    old: Mapping[str, Any], new: Mapping[str, Any], whole: frozenset[str] = WHOLE
) -> dict[str, Any]:
    """Return what turns one session into another when it is merged in: what is gone is cleared."""
    out: dict[str, Any] = {}
    for key in [*new, *(key for key in old if key not in new)]:
        if key not in new:
            # Null clears anything, and the types of the official SDK know it for few fields only.
            out[key] = type(old[key])() if isinstance(old[key], str | list) else None
            continue
        before, after = old.get(key), new[key]
        if key in old and before == after:
            continue
        if key not in whole and isinstance(before, Mapping) and isinstance(after, Mapping):
            out[key] = changes_between(before, after, whole)
        else:
            out[key] = after
    return out


def shown_settings(
    session: Mapping[str, Any], detection: TurnDetection | None, vocabulary: Sequence[str] = ()
) -> dict[str, Any]:
    """Return what is in force, in neutral words, from the session object that the service sent.

    Args:
        session: As it came, in the shape of GA.
        detection: What was asked for: with manual control the service does not say who controls.
        vocabulary: What was asked for: it travels as a hint, in which its words are looked for.
    """
    audio = _table(session, "audio")
    heard, spoken = _table(audio, "input"), _table(audio, "output")
    transcription = heard.get("transcription")
    shown: dict[str, Any] = {
        "model": session.get("model"),
        "voice": _voice_name(spoken.get("voice")),
        "speed": spoken.get("speed"),
        "modalities": tuple(session.get("output_modalities") or ()) or None,
        "noise_reduction": _table(heard, "noise_reduction").get("type"),
        "reasoning": _table(session, "reasoning").get("effort"),
        "truncation": session.get("truncation"),
    }
    shown = {name: value for name, value in shown.items() if value is not None}
    if "transcription" in heard:
        shown["transcription"] = bool(transcription)
        if isinstance(transcription, Mapping):
            shown["transcription_model"] = transcription.get("model")
            hints = f"{transcription.get('keywords') or ''} {transcription.get('prompt') or ''}"
            words = tuple(word for word in vocabulary if word in hints)
            if words:
                shown["vocabulary"] = words
    limit = session.get("max_output_tokens")
    if isinstance(limit, int):
        shown["max_output_tokens"] = limit
    kind = _table(heard, "turn_detection").get("type")
    if kind in ("server_vad", "semantic_vad"):
        shown["turn_detection"] = kind.removesuffix("_vad")
    elif "turn_detection" in heard and not vendor_decides(detection) and detection is not None:
        shown["turn_detection"] = detection.kind
    return shown


def _table(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


def _voice_name(voice: object) -> object:
    return voice.get("id") or voice.get("name") if isinstance(voice, Mapping) else voice
