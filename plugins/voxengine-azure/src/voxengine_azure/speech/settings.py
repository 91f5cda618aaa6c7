"""What the configuration means to the Speech service: neutral options, flat metadata, and the vendor's own."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final, cast

import attrs

from voxengine.audio.format import AudioFormat, Encoding
from voxengine.config import TurnDetection
from voxengine.errors import ConfigError
from voxengine_azure.speech.ssml import Delivery

__all__ = ["INPUT_FORMATS", "OUTPUT_FORMATS", "SpeechSettings", "riff_header", "vendor_format"]

INPUT_FORMATS: Final = (
    AudioFormat(16_000),
    AudioFormat(8_000),
    AudioFormat(24_000),
    AudioFormat(48_000),
    AudioFormat(8_000, encoding=Encoding.G711_ULAW),
    AudioFormat(8_000, encoding=Encoding.G711_ALAW),
)
OUTPUT_FORMATS: Final = (AudioFormat(24_000), AudioFormat(16_000), AudioFormat(48_000), AudioFormat(8_000))

_OUTPUT_NAMES: Final = {
    8_000: "raw-8khz-16bit-mono-pcm",
    16_000: "raw-16khz-16bit-mono-pcm",
    24_000: "raw-24khz-16bit-mono-pcm",
    48_000: "raw-48khz-16bit-mono-pcm",
}
_WAV_KINDS: Final = {Encoding.PCM16: 1, Encoding.G711_ALAW: 6, Encoding.G711_ULAW: 7}
_DELIVERY: Final = ("style", "style_degree", "role", "rate", "pitch", "volume")
"""Keys of ``metadata`` about how a text is said."""
_SEGMENTATION_MS: Final = (100, 5000)
"""What the service takes as silence that ends a phrase."""
_PROFANITY: Final = ("raw", "masked", "removed")
_MAX_LANGUAGES: Final = 10
_MAX_PHRASES: Final = 500


@attrs.frozen(kw_only=True)
class SpeechSettings:
    """Everything that one session asks of the service."""

    mode: str = "big"
    language: str = "en-US"
    """Of the recognition; where languages are identified, what is assumed before."""
    languages: tuple[str, ...] = ()
    """Those among which the service finds out the one that is spoken; empty: it is known."""
    language_mode: str = "continuous"
    """``continuous``: it may change; ``at_start``: it is found out once for each turn."""
    vocabulary: tuple[str, ...] = ()
    detection: TurnDetection = TurnDetection()
    input_format: AudioFormat = INPUT_FORMATS[0]
    output_format: AudioFormat = OUTPUT_FORMATS[0]
    delivery: Delivery = Delivery()
    profanity: str | None = None
    custom_model: str | None = None
    """Of custom speech; in place of the language's own."""
    custom_voice: str | None = None
    """The deployment of a custom voice."""
    session: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    """``metadata["session"]``: given to the service as it is, over everything else."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> SpeechSettings:
        """Read a configuration.

        Raises:
            ConfigError: A value is one that the service cannot take.
        """
        return cls().merged(config)

    def merged(self, config: Mapping[str, Any]) -> SpeechSettings:
        """Return a copy in which the options that are given replace those here. Raises ConfigError."""
        metadata = config.get("metadata") or {}
        given: dict[str, Any] = {
            name: config[name] for name in ("mode", "language") if config.get(name) is not None
        }
        if "language" not in given and metadata.get("language") is not None:
            given["language"] = metadata["language"]
        vocabulary = _first(config, metadata, "vocabulary")
        if vocabulary is not None:
            given["vocabulary"] = _texts("vocabulary", vocabulary, _MAX_PHRASES)
        if metadata.get("languages") is not None:
            given["languages"] = _texts("metadata['languages']", metadata["languages"], _MAX_LANGUAGES)
        for name, words in (("language_mode", ("continuous", "at_start")), ("profanity", _PROFANITY)):
            if metadata.get(name) is not None:
                given[name] = _one_of(f"metadata[{name!r}]", metadata[name], words)
        for name in ("custom_model", "custom_voice"):
            if metadata.get(name) is not None:
                (given[name],) = _texts(f"metadata[{name!r}]", [metadata[name]], 1)
        detection = config.get("turn_detection")
        if detection is not None:
            given["detection"] = (
                TurnDetection(cast("Any", detection)) if isinstance(detection, str) else detection
            )
        for name, offered in (("input_format", INPUT_FORMATS), ("output_format", OUTPUT_FORMATS)):
            if config.get(name) is not None:
                given[name] = _format(name, config[name], offered)
        given["delivery"] = self._delivery(config, metadata, given)
        session = metadata.get("session")
        if session is not None:
            if not isinstance(session, Mapping):
                raise ConfigError(
                    "metadata['session'] takes a mapping with 'context', 'query' or 'synthesis'."
                )
            given["session"] = session
        return attrs.evolve(self, **given)

    def _delivery(
        self, config: Mapping[str, Any], metadata: Mapping[str, Any], given: Mapping[str, Any]
    ) -> Delivery:
        changes = {name: metadata[name] for name in _DELIVERY if metadata.get(name) is not None}
        voice = _first(config, metadata, "voice")
        if voice is not None:
            changes["voice"] = voice
        if "language" in given:
            changes["language"] = given["language"]
        return attrs.evolve(self.delivery, **changes) if changes else self.delivery

    # -- recognition ----------------------------------------------------------------------------

    @property
    def is_detailed(self) -> bool:
        """Whether words, their times and other readings are asked for."""
        return self.mode == "big"

    def query(self) -> dict[str, str]:
        """Return what goes into the address of a recognition."""
        values: dict[str, str] = {}
        if not self.languages:
            values["cid" if self.custom_model else "language"] = self.custom_model or self.language
        values["format"] = "detailed" if self.is_detailed else "simple"
        if self.is_detailed:
            values |= {"wordLevelTimestamps": "true", "wordLevelConfidence": "true"}
        if self.profanity is not None:
            values["profanity"] = self.profanity
        more = self.session.get("query")
        return {**values, **({str(k): str(v) for k, v in more.items()} if isinstance(more, Mapping) else {})}

    def context(self) -> dict[str, Any]:
        """Return the body of ``speech.context``."""
        phrase: dict[str, Any] = {"mode": "Conversation", "language": self.language}
        segmentation = self._segmentation()
        if segmentation and self.mode != "provider":
            phrase["conversation"] = {"segmentation": segmentation}
        if self.profanity is not None:
            phrase["enrichment"] = {"profanity": self.profanity}
        output: dict[str, Any] = {"format": "Simple"}
        if self.is_detailed:
            output = {"format": "Detailed", "detailed": {"options": ["WordTimings", "WordConfidence"]}}
        output |= {"interimResults": {"resultType": "Auto"}, "phraseResults": {"resultType": "Always"}}
        body: dict[str, Any] = {"phraseDetection": phrase, "phraseOutput": output}
        if self.languages:
            del phrase["language"]
            phrase |= {"onInterim": {"action": "None"}, "onSuccess": {"action": "None"}}
            body["languageId"] = {
                "languages": list(self.languages),
                "mode": "DetectAtAudioStart" if self.language_mode == "at_start" else "DetectContinuous",
                "onSuccess": {"action": "Recognize"},
                "onUnknown": {"action": "None"},
                "priority": "PrioritizeLatency",
            }
        if self.vocabulary:
            items = [{"text": phrase_text} for phrase_text in self.vocabulary]
            body["dgi"] = {"groups": [{"type": "Generic", "items": items}], "bias": 1}
        more = self.session.get("context")
        return _over(body, more) if isinstance(more, Mapping) else body

    def _segmentation(self) -> dict[str, Any]:
        turns = self.detection
        if turns.kind == "semantic":
            return {"mode": "Semantic"}
        silence_ms = turns.silence_ms
        if turns.kind in ("client", "manual"):
            silence_ms = _SEGMENTATION_MS[1]  # Whoever ends the turn says so; pauses are to cut little.
        if silence_ms is None:
            return {}
        low, high = _SEGMENTATION_MS
        return {"mode": "Custom", "segmentationSilenceTimeoutMs": max(low, min(silence_ms, high))}

    # -- synthesis ------------------------------------------------------------------------------

    def synthesis(self) -> dict[str, Any]:
        """Return the body of ``synthesis.context``."""
        flags = {
            "bookmarkEnabled": True,
            "punctuationBoundaryEnabled": False,
            "sentenceBoundaryEnabled": False,
            "sessionEndEnabled": True,
            "visemeEnabled": self.mode == "big",
            "wordBoundaryEnabled": True,
        }
        audio = {"outputFormat": vendor_format(self.output_format), "metadataOptions": flags}
        body = {"synthesis": {"audio": audio, "language": {"autoDetection": False}}}
        more = self.session.get("synthesis")
        return _over(body, {"synthesis": more}) if isinstance(more, Mapping) else body

    def described(self) -> dict[str, Any]:
        """Return the settings in force in neutral words."""
        return {
            "service": "speech",
            "voice": self.delivery.speaks,
            "language": self.language,
            "languages": list(self.languages),
            "vocabulary": list(self.vocabulary),
            "turn_detection": self.detection.kind,
            "input_format": self.input_format.describe(),
            "output_format": self.output_format.describe(),
        }


def vendor_format(form: AudioFormat) -> str:
    """Return the service's name for an output format."""
    return _OUTPUT_NAMES[form.sample_rate]


def riff_header(form: AudioFormat) -> bytes:
    """Return the 44 bytes that open a stream of that format; its length is not known."""
    fmt = struct.pack(
        "<IHHIIHH",
        16,
        _WAV_KINDS[form.encoding],
        form.channels,
        form.sample_rate,
        form.bytes_per_s,
        form.frame_bytes,
        8 * form.width,
    )
    return b"RIFF\0\0\0\0WAVEfmt " + fmt + b"data\0\0\0\0"


def _first(config: Mapping[str, Any], metadata: Mapping[str, Any], name: str) -> Any:
    return config[name] if config.get(name) is not None else metadata.get(name)


def _texts(name: str, value: object, limit: int) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, list | tuple):
        raise ConfigError(f"{name} takes a list of texts.")
    if not all(isinstance(item, str) and item.strip() for item in value):
        raise ConfigError(f"{name} takes texts that are not empty.")
    if len(value) > limit:
        raise ConfigError(f"{name} has {len(value)} entries; azure takes at most {limit}.")
    return tuple(value)


def _one_of(name: str, value: object, words: tuple[str, ...]) -> str:
    if value not in words:
        raise ConfigError(f"{name} is {value!r}; it takes {', '.join(words)}.")
    return str(value)


def _format(name: str, value: object, offered: tuple[AudioFormat, ...]) -> AudioFormat:
    if not isinstance(value, AudioFormat) or value not in offered:
        shown = value.describe() if isinstance(value, AudioFormat) else type(value).__name__
        known = ", ".join(form.describe() for form in offered)
        raise ConfigError(f"{name} is {shown}; azure speech takes {known}.")
    return value


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping with another one laid over it, mappings within them likewise."""
    merged = dict(below)
    for key, value in above.items():
        held = merged.get(key)
        both = isinstance(held, Mapping) and isinstance(value, Mapping)
        merged[key] = _over(held, value) if both else value  # type: ignore[arg-type]
    return merged
