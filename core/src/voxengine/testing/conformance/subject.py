"""The provider that is judged, and what the laws say to it."""

from __future__ import annotations

import functools
import math
import os
from array import array
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import attrs

from voxengine.audio.format import AudioFormat, Encoding
from voxengine.config import ProviderConfig
from voxengine.providers.base import BaseProvider

__all__ = [
    "Factory",
    "Settings",
    "Subject",
    "secrets_in_environment",
    "secrets_of",
    "sound_in",
    "speech_like",
]

_SECRET_WORDS: Final = ("key", "token", "secret", "password")
TOOL: Final[Mapping[str, Any]] = {
    "type": "function",
    "name": "get_weather",
    "description": "Return the weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "Name of the city."}},
        "required": ["city"],
    },
}


class Factory(Protocol):
    """Makes unconnected providers."""

    def __call__(self, **changes: Any) -> BaseProvider:
        """Return a fresh one; ``changes`` are options that replace those of the configuration."""


@attrs.frozen(kw_only=True)
class Settings:
    """What the laws say, and how long they wait. Times are on the run's clock."""

    prompt_text: str = "Hello."
    """A turn that is answered shortly, without a tool."""
    long_prompt_text: str = "Tell me a long story."
    """A turn whose answer lasts several seconds, so that it can be interrupted."""
    tool: Mapping[str, Any] = TOOL
    """A function, as providers are given it."""
    tool_prompt_text: str = "Use get_weather for the city of Lisbon."
    """A turn that is answered with a call of it."""
    tool_output: str = '{"sky": "clear", "degrees": 21}'
    speech: bytes | None = None
    """Speech of one to five seconds, PCM16 mono; None: a sound with the rhythm of speech."""
    speech_format: AudioFormat = AudioFormat(24_000)
    """Format of ``speech``."""
    silence_ms: int = 700
    """Silence that ends a turn under the vendor's turn detection, where ``endpointing_silence_ms`` is unknown."""
    connect_s: float = 20.0
    call_s: float = 10.0
    """For a call of the contract."""
    close_s: float = 5.0
    """For ``disconnect``; the engine gives up after that."""
    stalled_close_s: float = 30.0
    """The same when the service has stopped reading; a library may need its next ping to notice."""
    answer_s: float = 20.0
    """From a request to the first sign of an answer, and for its end."""
    settle_s: float = 3.0
    """Without output for so long, an answer without boundaries counts as complete."""
    quiet_s: float = 0.5
    """How long to watch for what must not come."""
    law_s: float = 120.0
    """For one law."""
    stall_bytes: int = 64 * 2**20
    """``send_audio`` has to wait before a service that does not read was sent this much."""
    n_cancellations: int = 40
    """Awaits of one call that are tried, at most."""


@attrs.frozen(kw_only=True)
class Subject:
    """A provider and the peers that some laws need.

    The factories of bad peers may be None: then the kit makes them itself where it can (a wrong key, a
    closed port, a proxy before a ``ws://`` address), else the laws that need them are skipped.
    """

    name: str
    make: Factory
    settings: Settings = Settings()
    refused: Callable[[], BaseProvider] | None = None
    """The service refuses its credentials."""
    unreachable: Callable[[], BaseProvider] | None = None
    """Nobody is where the service should be."""
    stalled: Callable[[], BaseProvider] | None = None
    """The service stops reading once the session is open."""
    lossy: Callable[[], BaseProvider] | None = None
    """The service cuts the connection at the first text turn, or soon after the session is open."""
    is_in_memory: bool = False
    """Whether there is no network: then the kit makes up neither keys nor ports."""
    secrets: tuple[str, ...] = ()
    """Texts that are masked in a report."""

    @classmethod
    def of(cls, provider: BaseProvider, *, name: str = "", **values: Any) -> Subject:
        """Return the subject of an instance: the first is itself, the others are made like it."""
        config = provider.config if isinstance(provider.config, Mapping) else {}
        values.setdefault("secrets", tuple(secrets_of(config)))
        return cls(name=name or type(provider).__name__, make=remaking(provider), **values)


def secrets_of(config: Mapping[str, Any]) -> list[str]:
    """Return the key of a configuration and what is called one in its metadata."""
    values = {"api_key": config.get("api_key"), **dict(config.get("metadata") or {})}
    return [
        value
        for name, value in values.items()
        if isinstance(value, str) and len(value) >= 8 and any(word in name.lower() for word in _SECRET_WORDS)
    ]


def secrets_in_environment() -> list[str]:
    """Return what the variables of the environment hold whose names end like that of a key."""
    return [
        value
        for name, value in os.environ.items()
        if name.lower().endswith(tuple(f"_{word}" for word in _SECRET_WORDS)) and len(value) >= 12
    ]


def remaking(provider: BaseProvider) -> Factory:
    """Return a factory that gives the instance itself first, and then others of its class and configuration."""
    held = [provider]
    kind = type(provider)
    config = provider.config if isinstance(provider.config, Mapping) else {}
    # A plain dict stays one: it shows its key to whoever prints it, and every instance shall do the same.
    like: type[dict[str, Any]] = dict if type(config) is dict else ProviderConfig

    def make(**changes: Any) -> BaseProvider:
        if held and not changes:
            return held.pop()
        return kind(like({**config, **changes}))

    return make


@functools.lru_cache(maxsize=16)
def speech_like(sample_rate: int, duration_ms: int = 1200) -> bytes:
    """Return a sound that detectors of voice activity take for speech: harmonics of 120 Hz in syllables."""
    n_samples = duration_ms * sample_rate // 1000
    samples = array("h", bytes(2 * n_samples))
    partials = [(120 * n, 1 / n) for n in range(1, 9) if 120 * n < sample_rate / 2]
    for index in range(n_samples):
        at_s = index / sample_rate
        syllable = 0.35 + 0.65 * math.sin(math.pi * at_s * 4) ** 2
        pitch = at_s * (1 + 0.04 * math.sin(2 * math.pi * 0.7 * at_s))
        tone = sum(weight * math.sin(2 * math.pi * hertz * pitch) for hertz, weight in partials)
        samples[index] = int(5000 * syllable * tone)
    return samples.tobytes()


def sound_in(sound: bytes, source: AudioFormat, target: AudioFormat) -> bytes:
    """Return a sound in another format; in an encoding other than PCM16, silence of the same length."""
    if source == target:
        return sound
    n_frames = source.n_frames(len(sound)) * target.sample_rate // source.sample_rate
    if target.encoding is not Encoding.PCM16:
        quiet = b"\xff" if target.encoding is Encoding.G711_ULAW else b"\xd5"
        return quiet * (n_frames * target.frame_bytes)
    from voxengine.audio.pcm import convert

    return convert(sound, source, target)
