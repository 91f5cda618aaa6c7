"""How the engine uses microphone and loudspeaker."""

from __future__ import annotations

from typing import Any, Final, Literal

import attrs

from voxengine.errors import ConfigError

__all__ = ["DeviceOptions"]

_MAX_GAIN_DB: Final = 60


def _one_of(*words: str) -> Any:
    def check(_: object, field: attrs.Attribute[Any], value: object) -> None:
        if value not in words:
            raise _wrong(field, value, "one of " + ", ".join(map(repr, words)))

    return check


def _number(low: float, high: float, unit: str, *, whole: bool) -> Any:
    kinds, noun = (int, "an int") if whole else (int | float, "a number")

    def check(_: object, field: attrs.Attribute[Any], value: object) -> None:
        fits = not isinstance(value, bool) and isinstance(value, kinds)
        if not fits or not low <= value <= high:  # type: ignore[operator]
            raise _wrong(field, value, f"{noun} from {low:g} to {high:g} ({unit})")

    return check


def _truth(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, bool):
        raise _wrong(field, value, "True or False")


def _names(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, tuple) or not all(isinstance(name, str) and name for name in value):
        raise _wrong(field, value, "a sequence of names")


def _to_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list | tuple) else value


def _wrong(field: attrs.Attribute[Any], value: object, takes: str) -> ConfigError:
    return ConfigError(
        f"DeviceOptions.{field.name} got {value!r:.80} ({type(value).__name__}); it takes {takes}."
    )


@attrs.frozen(kw_only=True)
class DeviceOptions:
    """What ``start_listening`` does with the devices. Construction checks types and ranges."""

    half_duplex: bool = attrs.field(default=False, validator=_truth)
    """Whether the microphone is silenced while the agent is audible: for loudspeakers without echo cancelling.
    There is no barge-in by voice then."""
    processors: tuple[str, ...] = attrs.field(default=(), converter=_to_tuple, validator=_names)
    """Names of audio processors for the microphone, for example an echo canceller, in this order."""
    flush: Literal["hard", "soft"] = attrs.field(default="hard", validator=_one_of("hard", "soft"))
    """What an interruption does to the sound that the device holds: ``hard`` throws it away where the device can,
    ``soft`` lets it be played."""
    block_ms: int = attrs.field(default=20, validator=_number(5, 100, "ms", whole=True))
    """Length of the devices' blocks."""
    prebuffer_ms: int = attrs.field(default=40, validator=_number(0, 1000, "ms", whole=True))
    """What has to be there before an answer begins to play."""
    input_gain_db: float = attrs.field(
        default=0.0, validator=_number(-_MAX_GAIN_DB, _MAX_GAIN_DB, "dB", whole=False)
    )
    output_gain_db: float = attrs.field(
        default=0.0, validator=_number(-_MAX_GAIN_DB, _MAX_GAIN_DB, "dB", whole=False)
    )
    on_loss: Literal["silence", "pause"] = attrs.field(
        default="silence", validator=_one_of("silence", "pause")
    )
    """What is sent while the microphone is lost: ``silence``, so that a service's turn detection goes on, or
    nothing."""
