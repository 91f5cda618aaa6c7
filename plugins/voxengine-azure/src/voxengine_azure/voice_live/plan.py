"""Options as a session of Voice Live, in the shape of GA with the keys that only this service has beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from voxengine.config import TurnDetection
from voxengine_azure.voice_live.dialect import VOICE_LIVE
from voxengine_azure.voices import PROSODY, is_azure_voice, speaks_natively, voice_live_voice
from voxengine_openai.session_settings import SessionPlan, Traits, deep_merged, plan_session, vendor_decides

__all__ = ["PHRASES", "plan_voice_live", "service_words", "shown_settings"]

PHRASES: Final = "item.input_audio_transcription.phrases"
"""What ``include`` asks for to get the times of the user's words."""

_TRANSCRIPTION_MODEL: Final = "azure-speech"
_PLANNED_HERE: Final = frozenset(
    {"turn_detection", "language", "vocabulary", "voice", "modalities", "include"}
)
_NO_END_OF_UTTERANCE: Final = ("gpt-realtime", "gpt-4o-mini-realtime", "phi4-mm")
"""Families of models that hear the user themselves; for them nothing is read from the words."""
_VAD_SWITCHES: Final = ("create_response", "interrupt_response", "auto_truncate")


def service_words(own: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``metadata["session"]``, which is in the service's own words, in the shape of GA."""
    ((_, fields),) = VOICE_LIVE.inwards("session.update", {"session": dict(own)})
    session: dict[str, Any] = fields["session"]
    return session


class _Plan:
    def __init__(self, asked: Mapping[str, Any], base: SessionPlan, traits: Traits, model: str) -> None:
        self.asked = asked
        self.session = base.session
        self.warnings = list(base.warnings)
        self.model = model
        self._name = traits.name
        self.heard: dict[str, Any] = self.session["audio"]["input"]
        self.said: dict[str, Any] = self.session["audio"]["output"]

    def lacks(self, option: str, sentence: str) -> None:
        self.warnings.append((option, "option_unsupported", f"{self._name}: {sentence}"))


def plan_voice_live(
    asked: Mapping[str, Any], own: Mapping[str, Any] | None, traits: Traits, model: str
) -> SessionPlan:
    """Return the session that options describe.

    Args:
        asked: By name; see :data:`voxengine_azure.voice_live.options.VENDOR`.
        own: ``metadata["session"]``: merged in last, untouched.
        traits: The service.
        model: The session's model.
    """
    rest = {
        name: value
        for name, value in asked.items()
        if name not in _PLANNED_HERE and not name.startswith("transcription")
    }
    plan = _Plan(asked, plan_session({**rest, "transcription": False}, None, traits, model), traits, model)
    _plan_voice(plan)
    _plan_detection(plan)
    _plan_transcription(plan)
    _plan_extras(plan)
    session = plan.session if not own else deep_merged(plan.session, service_words(own))
    return SessionPlan(session=session, warnings=tuple(plan.warnings))


def _plan_voice(plan: _Plan) -> None:
    asked = plan.asked
    manner = {PROSODY[name]: asked[name] for name in PROSODY if name in asked}
    custom, personal = asked.get("custom_voice"), asked.get("personal_voice")
    if "voice" in asked:
        voice, sentence = voice_live_voice(asked["voice"], plan.model, manner, custom, personal)
        plan.said["voice"] = voice
        if sentence:
            plan.warnings.append(("voice", "voice_mapped", sentence))
        return
    for name in (*PROSODY, "custom_voice", "personal_voice"):
        if name in asked:
            plan.lacks(name, f"{name} belongs to a voice, and none is named.")


def _plan_detection(plan: _Plan) -> None:
    asked = plan.asked
    detection: TurnDetection | None = asked.get("turn_detection")
    details = _vad_details(plan, detection)
    if detection is None and not details:
        return
    detection = detection or TurnDetection()
    if not vendor_decides(detection):
        plan.heard["turn_detection"] = None
        return
    values: dict[str, Any] = {"type": "server_vad"}
    if detection.kind == "semantic":
        values["type"] = asked.get("semantic_vad", "azure_semantic_vad")
    for name, key in (
        ("threshold", "threshold"),
        ("prefix_padding_ms", "prefix_padding_ms"),
        ("silence_ms", "silence_duration_ms"),
    ):
        if getattr(detection, name) is not None:
            values[key] = getattr(detection, name)
    for name in ("eagerness", "idle_timeout_ms"):
        if getattr(detection, name) is not None:
            plan.lacks("turn_detection", f"turn_detection.{name} is without effect; the service has none.")
    plan.heard["turn_detection"] = values | details


def _vad_details(plan: _Plan, detection: TurnDetection | None) -> dict[str, Any]:
    asked = plan.asked
    details = {name: asked[name] for name in _VAD_SWITCHES if name in asked}
    ending = asked.get("end_of_utterance")
    if ending is not None:
        if plan.model.startswith(_NO_END_OF_UTTERANCE):
            plan.lacks(
                "end_of_utterance",
                f"the model {plan.model!r} hears the user itself, so no words are there to read the end from; "
                "end_of_utterance is not sent.",
            )
        else:
            details["end_of_utterance_detection"] = ending
    is_semantic = detection is not None and detection.kind == "semantic"
    for name in ("speech_duration_ms", "remove_filler_words", "languages"):
        if name not in asked:
            continue
        if is_semantic and not (name == "languages" and asked.get("semantic_vad") == "azure_semantic_vad_en"):
            details[name] = asked[name]
        else:
            plan.lacks(name, f"{name} belongs to turn_detection 'semantic' (of more than one language).")
    return details


def _plan_transcription(plan: _Plan) -> None:
    asked = plan.asked
    wanted = asked.get("transcription")
    named = ("transcription_model", "transcription_prompt", "custom_speech", "custom_model")
    is_detailed = any(name in asked for name in named)
    if wanted is None and not is_detailed:
        # A model that does not hear gets the text in any case, and the hints with it.
        helps = not speaks_natively(plan.model) and ("language" in asked or "vocabulary" in asked)
        wanted = {"fast": helps, "big": True}.get(asked.get("mode", "provider"), helps)
    if isinstance(wanted, Mapping):
        plan.heard["transcription"] = dict(wanted)
        return
    if not wanted and not is_detailed:
        for name in ("language", "vocabulary"):
            if name in asked:
                plan.lacks(name, f"{name} helps the transcription of the user's speech, which is off.")
        return
    model = asked.get("transcription_model", _TRANSCRIPTION_MODEL)
    values: dict[str, Any] = {"model": model}
    if "language" in asked:
        values["language"] = str(asked["language"]).replace("_", "-")
    if "transcription_prompt" in asked:
        values["prompt"] = asked["transcription_prompt"]
    words = [str(word) for word in asked.get("vocabulary") or ()]
    if model == _TRANSCRIPTION_MODEL:
        if words:
            values["phrase_list"] = words
        if "custom_speech" in asked:
            values["custom_speech"] = asked["custom_speech"]
        elif "custom_model" in asked:
            values["custom_speech"] = {values.get("language", "en-US"): asked["custom_model"]}
    else:
        for name in ("vocabulary", "custom_speech", "custom_model"):
            if asked.get(name):
                plan.lacks(
                    name, f"{name} needs the transcription model 'azure-speech'; this one is {model!r}."
                )
    plan.heard["transcription"] = values


def _plan_extras(plan: _Plan) -> None:
    asked, session = plan.asked, plan.session
    is_big = asked.get("mode") == "big"
    modalities = asked.get("modalities")
    more = [name for name in ("animation", "avatar") if asked.get(name)]
    is_spoken = modalities is None or "audio" in modalities
    if modalities is not None or more:
        session["output_modalities"] = ["audio", *more] if is_spoken else ["text"]
    if "echo_cancellation" in asked:
        session["input_audio_echo_cancellation"] = asked["echo_cancellation"]
    for name in ("animation", "avatar", "interim_response"):
        if name in asked:
            session[name] = asked[name]
    voice = plan.said.get("voice")
    # The default voice is the service's to choose, so it is asked; voices of OpenAI have no times.
    has_times = is_spoken and (voice is None or is_azure_voice(voice))
    if asked.get("timestamps", is_big and has_times):
        session["output_audio_timestamp_types"] = ["word"]
    wanted = list(asked.get("include") or ())
    if is_big and plan.heard.get("transcription", {}).get("model") == _TRANSCRIPTION_MODEL:
        wanted += [PHRASES] if PHRASES not in wanted else []
    if wanted:
        session["include"] = wanted


def shown_settings(session: Mapping[str, Any]) -> dict[str, Any]:
    """Return in neutral words what only this service has in force, from the session object that it sent."""
    audio = session.get("audio")
    heard = audio.get("input") if isinstance(audio, Mapping) else None
    found: dict[str, Any] = {}
    if isinstance(heard, Mapping):
        detection, transcription = heard.get("turn_detection"), heard.get("transcription")
        if isinstance(detection, Mapping) and str(detection.get("type")).startswith("azure_semantic_vad"):
            found |= {"turn_detection": "semantic", "semantic_vad": detection["type"]}
        if isinstance(transcription, Mapping) and transcription.get("phrase_list"):
            found["vocabulary"] = tuple(transcription["phrase_list"])
    for name, key in (
        ("input_audio_echo_cancellation", "echo_cancellation"),
        ("output_audio_timestamp_types", "timestamps"),
        ("animation", "animation"),
        ("temperature", "temperature"),
    ):
        if session.get(name) is not None:
            found[key] = session[name]
    return found
