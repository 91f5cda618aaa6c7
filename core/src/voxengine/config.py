"""Configuration: one frozen value, checked when it is made, that says everything about a session.

Construction checks types and ranges and reads nothing: no file, no environment. Only
:meth:`VoiceEngineConfig.load` and the command line read files. A missing key or an unknown
provider is found by ``connect``.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, cast

import attrs

from voxengine._checks import Check as _Check
from voxengine._checks import bad as _bad
from voxengine._checks import file_path, hidden
from voxengine._checks import kind_of as _kind_of
from voxengine._checks import number as _number
from voxengine._checks import one_of as _one_of
from voxengine._checks import text as _text
from voxengine.audio.format import AudioFormat
from voxengine.audio.options import DeviceOptions
from voxengine.errors import AudioFormatError, ConfigError

__all__ = [
    "Deadlines",
    "ProviderConfig",
    "Reconnect",
    "TurnDetection",
    "VoiceEngineConfig",
    "config_path",
    "hidden",
    "live_options",
    "profile_names",
    "reconfigured",
    "thawed",
]

_FLAT_METADATA: Final = {
    "model": "model",
    "temperature": "temperature",
    "max_tokens": "max_output_tokens",
    "voice": "voice",
}
"""Flat metadata keys that say the same as a typed field."""
_FLAT_KEYS: Final = {field: key for key, field in _FLAT_METADATA.items()}


def _frozen_copy(value: Any) -> Any:
    """Copy mappings and sequences so that a later change by the caller does not reach the configuration."""
    if isinstance(value, Mapping):
        return MappingProxyType({key: _frozen_copy(inner) for key, inner in value.items()})
    if isinstance(value, list):
        return [_frozen_copy(inner) for inner in value]
    return value


def thawed(value: Any) -> Any:
    """Return plain dicts and lists for what :class:`VoiceEngineConfig` holds frozen."""
    if isinstance(value, Mapping):
        return {key: thawed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [thawed(inner) for inner in value]
    return value


@attrs.frozen
class TurnDetection:
    """Who decides where the user's turn ends, and how."""

    kind: Literal["server", "semantic", "client", "manual"] = attrs.field(
        default="server", validator=_one_of("server", "semantic", "client", "manual")
    )
    """``server``: silence, at the vendor; ``semantic``: meaning, at the vendor; ``client``: silence, here;
    ``manual``: the application calls ``end_turn``."""
    threshold: float | None = attrs.field(default=None, validator=_number(0, 1, "0 to 1", optional=True))
    """How loud speech is; None: the default of whoever decides."""
    prefix_padding_ms: int | None = attrs.field(
        default=None, validator=_number(0, 10_000, "ms", whole=True, optional=True)
    )
    """Audio before the detected start that belongs to the utterance."""
    silence_ms: int | None = attrs.field(
        default=None, validator=_number(20, 10_000, "ms", whole=True, optional=True)
    )
    """Silence that ends the turn."""
    eagerness: str | None = attrs.field(
        default=None, validator=_one_of("low", "medium", "high", "auto", optional=True)
    )
    """For ``semantic``: how soon to answer."""
    idle_timeout_ms: int | None = attrs.field(
        default=None, validator=_number(1_000, 600_000, "ms", whole=True, optional=True)
    )
    """For ``server``: silence after which the vendor speaks up by itself."""
    detector: str | None = attrs.field(default=None, validator=_text())
    """Name of the voice detector, wherever the client listens; None: ``energy``. It has to be installed."""


@attrs.frozen(kw_only=True)
class Deadlines:
    """How long to wait for what, in seconds. Each failure names what did not come."""

    handshake_s: float = attrs.field(default=10.0, validator=_number(0.05, 600, "s"))
    """For the connection."""
    ready_s: float = attrs.field(default=10.0, validator=_number(0.05, 600, "s"))
    """From there until the session is ready."""
    first_output_s: float = attrs.field(default=10.0, validator=_number(0.05, 600, "s"))
    """From an explicit request until its first output."""
    progress_s: float = attrs.field(default=10.0, validator=_number(0.05, 600, "s"))
    """Between two outputs of one response."""


@attrs.frozen(kw_only=True)
class Reconnect:
    """How a lost session is replaced, and how loss is noticed."""

    budget_s: float = attrs.field(default=20.0, validator=_number(0, 3600, "s"))
    """For how long to try, with ``fallbacks`` or without; 0: a loss is final."""
    ping_interval_s: float = attrs.field(default=5.0, validator=_number(0.05, 600, "s"))
    """Time between two keep-alive pings."""
    ping_timeout_s: float = attrs.field(default=5.0, validator=_number(0.05, 600, "s"))
    """How long to wait for a ping's answer."""
    cut_reply: Literal["continue", "restart", "leave"] = attrs.field(
        default="continue", validator=_one_of("continue", "restart", "leave")
    )
    """What becomes of an answer that a loss or a switch cut: the agent is asked to go on with it, to give it
    again from the start, or nothing."""


def _to_turn_detection(value: object) -> object:
    if isinstance(value, str):
        return TurnDetection(cast("Any", value))
    if isinstance(value, Mapping):
        return _build(TurnDetection, value, "turn_detection")
    return value


def _to_format(value: object) -> object:
    if isinstance(value, bool):
        return value
    try:
        if isinstance(value, int):
            return AudioFormat(value)
        if isinstance(value, Mapping):
            return _build(AudioFormat, value, "format")
    except AudioFormatError as error:
        raise ConfigError(f"An audio format is wrong: {error}") from None
    return value


def _to_deadlines(value: object) -> object:
    return _build(Deadlines, value, "deadlines") if isinstance(value, Mapping) else value


def _to_reconnect(value: object) -> object:
    return _build(Reconnect, value, "reconnect") if isinstance(value, Mapping) else value


def _to_device_options(value: object) -> object:
    return _build(DeviceOptions, value, "device_options") if isinstance(value, Mapping) else value


def _to_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list | tuple) else value


def _build(kind: type, values: Mapping[str, Any], name: str) -> Any:
    known = [field.name for field in attrs.fields(kind)]
    for key in values:
        if key not in known:
            raise ConfigError(f"{name} has no option {key!r}. Its options: {', '.join(known)}.")
    return kind(**values)


def _words(takes: str) -> _Check:
    def check(owner: Any, field: attrs.Attribute[Any], value: Any) -> None:
        if value is None:
            return
        if not isinstance(value, tuple) or not all(isinstance(word, str) and word.strip() for word in value):
            raise _bad(owner, field.name, value, takes)

    return check


def _check_modalities(owner: Any, field: attrs.Attribute[Any], value: Any) -> None:
    takes = "None or a sequence out of 'audio' and 'text'"
    _words(takes)(owner, field, value)
    if value is not None and (not value or set(value) - {"audio", "text"}):
        raise _bad(owner, field.name, value, takes)


def _check_format(owner: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and not isinstance(value, AudioFormat):
        raise _bad(owner, field.name, value, "an AudioFormat, a sample rate in hertz or None")
    if value is not None and value.channels > 2:
        raise _bad(owner, field.name, value, "one or two channels")


def _check_device(owner: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if isinstance(value, bool) or not (value is None or isinstance(value, str | int)):
        raise _bad(owner, field.name, value, "a device's name, its index or None")


def _check_metadata(owner: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _bad(owner, field.name, value, "a mapping with str keys")


def _check_fallbacks(owner: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, tuple) or not all(isinstance(item, VoiceEngineConfig) for item in value):
        raise _bad(owner, field.name, value, "a sequence of VoiceEngineConfig")


def _check_tools(owner: Any, field: attrs.Attribute[Any], value: Any) -> None:
    # Functions and tool values; what a tool is, is checked by voxengine.tools when the engine is made.
    if not isinstance(value, tuple) or not all(
        callable(item) or hasattr(item, "parameters") for item in value
    ):
        raise _bad(owner, field.name, value, "a sequence of functions or tools")


@attrs.frozen(kw_only=True)
class VoiceEngineConfig:
    """Everything about an engine. Immutable; wrong types and ranges raise ConfigError here.

    A neutral option can be given as a field or as the flat ``metadata`` key of the same meaning
    (``max_tokens`` for ``max_output_tokens``); two different values are an error.
    ``metadata["session"]`` goes to the vendor untouched and wins over both.
    """

    provider: str = attrs.field(default="openai", validator=_text(optional=False))
    """Name of the provider."""
    api_key: str | None = attrs.field(default=None, validator=_text(), repr=False)
    """Credential; None: the provider's own environment variables. Never shown."""
    metadata: Mapping[str, Any] = attrs.field(
        factory=dict, validator=_check_metadata, hash=False, repr=lambda value: repr(hidden(value))
    )
    """Options of this provider. Values are never shown."""
    mode: Literal["fast", "big", "provider"] = attrs.field(
        default="big", validator=_one_of("fast", "big", "provider")
    )
    """``fast``: smallest latency; ``big``: everything the capabilities offer; ``provider``: vendor settings
    untouched. ``engine.session.settings`` says what it did."""
    model: str | None = attrs.field(default=None, validator=_text())
    voice: str | None = attrs.field(default=None, validator=_text())
    language: str | None = attrs.field(default=None, validator=_text())
    """BCP 47 tag, for example ``en-US``."""
    instructions: str | None = attrs.field(default=None, validator=_text(empty=True))
    temperature: float | None = attrs.field(default=None, validator=_number(0, 2, "0 to 2", optional=True))
    max_output_tokens: int | None = attrs.field(
        default=None, validator=_number(1, 1_000_000, "tokens", whole=True, optional=True)
    )
    modalities: tuple[str, ...] | None = attrs.field(
        default=None, converter=_to_tuple, validator=_check_modalities
    )
    vocabulary: tuple[str, ...] | None = attrs.field(
        default=None, converter=_to_tuple, validator=_words("None or a sequence of words")
    )
    """Words and names that the recogniser should expect."""
    turn_detection: TurnDetection = attrs.field(
        default=TurnDetection(),
        converter=_to_turn_detection,
        validator=_kind_of(TurnDetection, "'server', 'semantic', 'client', 'manual' or a TurnDetection"),
    )
    interruption: Literal["immediate", "confirm", "off"] = attrs.field(
        default="immediate", validator=_one_of("immediate", "confirm", "off")
    )
    """What the user's voice does to a playing answer."""
    input_format: AudioFormat | None = attrs.field(
        default=None, converter=_to_format, validator=_check_format
    )
    """What ``send_audio`` takes; None: what the first session takes. Fixed for the engine's life."""
    output_format: AudioFormat | None = attrs.field(
        default=None, converter=_to_format, validator=_check_format
    )
    """What AUDIO_OUTPUT_CHUNK carries; None: what the first session gives. Fixed for the engine's life."""
    playback: Literal["auto", "null", "external"] = attrs.field(
        default="auto", validator=_one_of("auto", "null", "external")
    )
    """Which clock says how much was played."""
    input_device: str | int | None = attrs.field(default=None, validator=_check_device)
    output_device: str | int | None = attrs.field(default=None, validator=_check_device)
    device_options: DeviceOptions = attrs.field(
        default=DeviceOptions(),
        converter=_to_device_options,
        validator=_kind_of(DeviceOptions, "a DeviceOptions"),
    )
    chunk_ms: int = attrs.field(default=20, validator=_number(10, 200, "ms", whole=True))
    """Length of an audio chunk."""
    group_ms: int = attrs.field(default=20, validator=_number(10, 1000, "ms", whole=True))
    """How much audio goes into one message."""
    deadlines: Deadlines = attrs.field(
        default=Deadlines(),
        converter=_to_deadlines,
        validator=_kind_of(Deadlines, "a Deadlines"),
    )
    reconnect: Reconnect = attrs.field(
        default=Reconnect(),
        converter=_to_reconnect,
        validator=_kind_of(Reconnect, "a Reconnect"),
    )
    journal_s: float = attrs.field(default=60.0, validator=_number(1, 3600, "s"))
    """Most unanswered user audio that is kept."""
    fallbacks: tuple[VoiceEngineConfig, ...] = attrs.field(
        default=(), converter=_to_tuple, validator=_check_fallbacks
    )
    """Configurations to move to, in this order."""
    tools: tuple[Any, ...] = attrs.field(default=(), converter=_to_tuple, validator=_check_tools)
    """Functions (or tools) that the agent may call."""
    tool_choice: str = attrs.field(default="auto", validator=_text(optional=False))
    """``auto``, ``none``, ``required`` or a tool's name."""
    tool_timeout_s: float = attrs.field(default=30.0, validator=_number(0.01, 3600, "s"))
    keep_audio_s: float | None = attrs.field(default=None, validator=_number(0, 86_400, "s", optional=True))
    """User audio that the history keeps; None: the unanswered turn."""
    transport: Literal["auto", "websockets", "picows"] = attrs.field(
        default="auto", validator=_one_of("auto", "websockets", "picows")
    )

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "metadata", _frozen_copy(self.metadata))
        for key, name in _FLAT_METADATA.items():
            field, flat = getattr(self, name), self.metadata.get(key)
            if flat is not None:
                typed = getattr(attrs.fields(VoiceEngineConfig), name)
                typed.validator(self, typed.evolve(name=f"metadata[{key!r}]"), flat)
            if field is not None and flat is not None and field != flat:
                raise ConfigError(
                    f"{name} and metadata[{key!r}] say different things. Keep one of the two; "
                    "metadata['session'] is for what must reach the vendor as it is."
                )

    def __reduce__(self) -> tuple[Any, ...]:
        # Copies and other processes: the read-only view of the metadata is no value that pickle takes.
        values = {field.name: getattr(self, field.name) for field in attrs.fields(type(self))}
        return functools.partial(type(self), **{**values, "metadata": thawed(self.metadata)}), ()

    def option(self, name: str) -> Any:
        """Return a neutral option: the field, else the flat metadata key of the same meaning, else None."""
        value = getattr(self, name)
        if value is None and name in _FLAT_KEYS:
            return self.metadata.get(_FLAT_KEYS[name])
        return value

    def for_provider(self, **changes: Any) -> ProviderConfig:
        """Return what the provider is given: its own options, unset ones absent, ``changes`` applied last."""
        values: dict[str, Any] = {"api_key": self.api_key, "metadata": thawed(self.metadata)}
        for name in _PROVIDER_OPTIONS:
            value = self.option(name)
            if value is not None:
                values[name] = value
        if self.interruption != "immediate":
            values["interruption"] = (
                self.interruption
            )  # The default is nobody's wish: a vendor keeps its own.
        values.update(changes)
        return ProviderConfig(
            {name: value for name, value in values.items() if value is not None or name == "api_key"}
        )

    @classmethod
    def load(
        cls, *, profile: str | None = None, path: str | os.PathLike[str] | None = None
    ) -> VoiceEngineConfig:
        """Read a configuration from a TOML file.

        Args:
            profile: The table ``[profiles.NAME]``; None: the file's ``default_profile``, else its only one.
            path: The file; None: ``$VOXENGINE_CONFIG``, else ``voxengine.toml`` in the working directory.

        Keys are the field names; ``api_key_env`` names an environment variable that holds the key;
        ``fallbacks`` lists names of other profiles.

        Raises:
            ConfigError: The file, the profile or a value is missing or wrong. Nothing is read half.
        """
        file = config_path(path)
        return _from_profile(cls, _read_profiles(file), profile, file, ())


_PROVIDER_OPTIONS: Final = (
    "mode",
    "model",
    "voice",
    "language",
    "instructions",
    "temperature",
    "max_output_tokens",
    "modalities",
    "vocabulary",
    "turn_detection",
    "input_format",
    "output_format",
    "chunk_ms",
    "group_ms",
    "deadlines",
    "reconnect",
    "tool_choice",
    "transport",
)


_LIVE_OPTIONS: Final = (
    "instructions",
    "voice",
    "language",
    "temperature",
    "max_output_tokens",
    "modalities",
    "vocabulary",
    "turn_detection",
    "tool_choice",
    "metadata",
)


def live_options(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that a running session is asked to change.

    Raises:
        ConfigError: One of them cannot be changed in a session.
    """
    for name in asked:
        if name not in _LIVE_OPTIONS:
            raise ConfigError(
                f"configure_session cannot change {name!r}. It changes: {', '.join(_LIVE_OPTIONS)}."
            )
    return dict(asked)


_PLACES: Final = {
    **{name: name for name in _LIVE_OPTIONS if name not in ("turn_detection", "tool_choice", "metadata")},
    "max_tokens": "max_output_tokens",
}
"""Keys of ``metadata`` in which options that can change stand at some provider, and the field of each."""


def reconfigured(
    config: VoiceEngineConfig, asked: Mapping[str, Any]
) -> tuple[VoiceEngineConfig, dict[str, Any]]:
    """Return the configuration of a running session after a change, and what its provider is told of it.

    The newest word wins: an option is taken out of the place, field or ``metadata``, in which it is not asked for
    now. Keys of ``metadata`` that are not asked for keep their values; ``session`` is merged.

    Raises:
        ConfigError: A value is wrong, or both places are asked for and differ.
    """
    given = asked.get("metadata", {})
    if not isinstance(given, Mapping):
        given = attrs.evolve(config, metadata=given).metadata  # Raises.
    fields = {name: value for name, value in asked.items() if name != "metadata"}
    flat = {name: None for key, name in _PLACES.items() if given.get(key) is not None}
    named = {*fields, *flat}
    kept = {key: value for key, value in config.metadata.items() if _PLACES.get(key) not in named}
    metadata = {**kept, **given}
    if isinstance(given.get("session"), Mapping):
        metadata["session"] = _merged(kept.get("session"), given["session"])
    changed = attrs.evolve(config, **{**flat, **fields, "metadata": metadata})
    told = changed.for_provider()
    values = {name: told[name] for name in told if name in named}
    if "metadata" in asked:
        values["metadata"] = {key: told["metadata"][key] for key in given}
    return changed, values


def _merged(below: object, above: object) -> object:
    if not isinstance(below, Mapping) or not isinstance(above, Mapping):
        return above
    return {**below, **{key: _merged(below.get(key), value) for key, value in above.items()}}


class ProviderConfig(dict[str, Any]):
    """What a provider's constructor gets: a dict in which unset options are absent.

    ``api_key`` (None when unset) and ``metadata`` (a dict) are always there. ``repr`` shows neither values
    of ``metadata`` nor the key.
    """

    def __init__(self, values: Mapping[str, Any] | Iterable[tuple[str, Any]] = ()) -> None:
        super().__init__(values)
        self.setdefault("api_key", None)
        self.setdefault("metadata", {})

    def copy(self) -> ProviderConfig:
        """Return a shallow copy that hides its secrets as well."""
        return ProviderConfig(self)

    def __repr__(self) -> str:
        shown = {
            key: hidden(value) if key in ("api_key", "metadata") else value for key, value in self.items()
        }
        return f"ProviderConfig({shown!r})"

    __str__ = __repr__


def config_path(path: str | os.PathLike[str] | None = None) -> Path:
    """Return the file that :meth:`VoiceEngineConfig.load` reads."""
    if path is None:
        return Path(os.environ.get("VOXENGINE_CONFIG") or "voxengine.toml")
    return file_path(path, "a configuration file")


def profile_names(path: str | os.PathLike[str] | None = None) -> list[str]:
    """Return the names of the profiles in the configuration file; none when there is no file.

    Raises:
        ConfigError: The file is there and cannot be read.
    """
    file = config_path(path)
    return list(_read_profiles(file)["profiles"]) if file.is_file() else []


def _read_profiles(file: Path) -> dict[str, Any]:
    import tomllib

    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"No configuration file {file.name!r} here. Write one with a table [profiles.NAME], "
            "or set VOXENGINE_CONFIG to its path."
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file.name} is not valid TOML: {error}.") from None
    except (OSError, ValueError) as error:  # A ValueError for a NUL in the path, and for what is no UTF-8.
        name, why = (
            file.name or str(file),
            error.strerror if isinstance(error, OSError) else "it is no UTF-8 text",
        )
        why = "a path holds no NUL" if "\0" in name else why
        raise ConfigError(f"The configuration file {name!r} cannot be read: {why}.") from None
    unknown = sorted(set(content) - {"profiles", "default_profile"})
    if unknown:
        raise ConfigError(
            f"{file.name} has no place for {unknown[0]!r} at the top. It takes default_profile and tables "
            "[profiles.NAME]."
        )
    profiles = content.get("profiles")
    if (
        not isinstance(profiles, dict)
        or not profiles
        or not all(isinstance(v, dict) for v in profiles.values())
    ):
        raise ConfigError(f"{file.name} holds no table [profiles.NAME].")
    return content


def _from_profile(
    cls: type[VoiceEngineConfig],
    content: Mapping[str, Any],
    profile: str | None,
    file: Path,
    path: tuple[str, ...],
) -> VoiceEngineConfig:
    profiles = content["profiles"]
    name = profile or content.get("default_profile") or (next(iter(profiles)) if len(profiles) == 1 else None)
    if name is None or name not in profiles:
        asked = f"no profile {name!r}" if name else "several profiles and no default_profile"
        raise ConfigError(f"{file.name} has {asked}. Its profiles: {', '.join(sorted(profiles))}.")
    if name in path:
        raise ConfigError(f"{file.name}: the fallbacks of {path[0]!r} lead back to {name!r}.")
    values = dict(profiles[name])
    variable = values.pop("api_key_env", None)
    if variable is not None:
        if not isinstance(variable, str) or "api_key" in values:
            raise ConfigError(
                f"{file.name} [profiles.{name}]: give api_key_env (a variable's name) or api_key, not both."
            )
        values["api_key"] = os.environ.get(variable) or None
    known = [field.name for field in attrs.fields(cls) if field.name != "tools"]
    for key in values:
        if key not in known:
            raise ConfigError(
                f"{file.name} [profiles.{name}] has no option {key!r}. The options: {', '.join(known)}, api_key_env."
            )
    names = values.pop("fallbacks", ())
    if not isinstance(names, list | tuple) or not all(isinstance(item, str) for item in names):
        raise ConfigError(f"{file.name} [profiles.{name}]: fallbacks is a list of profile names.")
    values["fallbacks"] = tuple(_from_profile(cls, content, item, file, (*path, name)) for item in names)
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{file.name} [profiles.{name}]: {error}") from None
