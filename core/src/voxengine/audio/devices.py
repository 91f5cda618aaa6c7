"""Which microphone and which loudspeaker: what is there, which one is meant, what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import attrs

from voxengine.audio.format import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, AudioFormat
from voxengine.errors import AudioDeviceError

__all__ = [
    "DeviceInfo",
    "DeviceLost",
    "DeviceOutcome",
    "DeviceReturned",
    "Direction",
    "InputDropped",
    "choose_device",
    "format_candidates",
]

Direction = Literal["input", "output"]

_COMMON_RATES: Final = (48_000, 44_100, 24_000, 16_000, 32_000, 22_050, 8_000)
_SHOWN: Final = 8


@attrs.frozen
class DeviceInfo:
    """A device as its backend lists it. The index may mean another device after the list was read anew."""

    index: int
    name: str
    host_api: str
    """The system's interface to it, for example ``ALSA`` or ``Core Audio``."""
    max_input_channels: int
    max_output_channels: int
    default_sample_rate: int
    is_default_input: bool = False
    is_default_output: bool = False

    def channels(self, direction: Direction) -> int:
        """Channels that it has in a direction, 0 when it has none."""
        return self.max_input_channels if direction == "input" else self.max_output_channels

    def is_default(self, direction: Direction) -> bool:
        """Whether it is the one that is used when none is named."""
        return self.is_default_input if direction == "input" else self.is_default_output


@attrs.frozen
class DeviceLost:
    """A device ceased to work. Something paced by the clock stands in for it, and it is tried again."""

    direction: Direction
    device: str
    """Its name."""
    reason: Literal["stopped", "silent", "failed"]
    """``stopped``: its stream ended (unplugged, server gone). ``silent``: it claims to run but asks for
    nothing (a server or driver that hangs). ``failed``: a file or pipe could not be read or written."""
    silent_ms: int
    """How long before this nothing had come from it."""
    at: float
    """Monotonic seconds, by the loop's clock."""


@attrs.frozen
class DeviceReturned:
    """A device works again, or another one in its place."""

    direction: Direction
    device: str
    """Its name."""
    is_same: bool
    """Whether it is the one that was lost; otherwise the system's default was taken."""
    audio_format: AudioFormat
    """What it takes or gives now."""
    lost_ms: int
    """How long there was none."""
    n_attempts: int
    at: float
    """Monotonic seconds, by the loop's clock."""


@attrs.frozen
class InputDropped:
    """Recorded audio that nobody fetched in time was dropped, the oldest first."""

    n_frames: int
    """In the format that the microphone delivers."""
    duration_ms: int
    at: float
    """Monotonic seconds, by the loop's clock."""


DeviceOutcome = DeviceLost | DeviceReturned | InputDropped


def choose_device(
    devices: Sequence[DeviceInfo], wanted: str | int | None, direction: Direction
) -> DeviceInfo:
    """Return the device that is meant.

    Args:
        devices: What there is.
        wanted: Its index; its name, or a part of it that no other name has, whatever the case; None for the
            system's default.
        direction: It must have channels in this direction.

    Raises:
        AudioDeviceError: There is none, or a part of a name fits several.
    """
    usable = [device for device in devices if device.channels(direction) > 0]
    if wanted is None:
        found = [device for device in usable if device.is_default(direction)] or usable
        if not found:
            raise _not_found(f"There is no {direction} device.", wanted, usable)
        return found[0]
    if isinstance(wanted, int):
        found = [device for device in usable if device.index == wanted]
        if not found:
            raise _not_found(f"No {direction} device has the index {wanted}.", wanted, usable)
        return found[0]
    exact = [device for device in usable if device.name == wanted]
    if exact:
        return exact[0]
    part = wanted.casefold()
    found = [device for device in usable if device.name.casefold() == part] or [
        device for device in usable if part in device.name.casefold()
    ]
    names = {device.name for device in found}
    if not found:
        raise _not_found(f"No {direction} device is called {wanted!r}.", wanted, usable)
    if len(names) > 1:
        raise _not_found(f"{wanted!r} fits several {direction} devices.", wanted, found)
    return found[0]


def _not_found(what: str, wanted: str | int | None, devices: Sequence[DeviceInfo]) -> AudioDeviceError:
    shown = ", ".join(f"{device.index} {device.name!r}" for device in devices[:_SHOWN])
    more = f" and {len(devices) - _SHOWN} more" if len(devices) > _SHOWN else ""
    there = f" There is: {shown}{more}." if shown else " Plug one in, or use the null, file or pipe backend."
    return AudioDeviceError(what + there, reason="not_found", device=wanted)


def format_candidates(device: DeviceInfo, wanted: AudioFormat, direction: Direction) -> list[AudioFormat]:
    """Return the formats to try, the best first: the wanted rate, the device's own, common ones.

    Each with the wanted number of channels, then with one, then with two, as far as the device has them.
    """
    default = device.default_sample_rate
    rates = [wanted.sample_rate]
    if MIN_SAMPLE_RATE <= default <= MAX_SAMPLE_RATE:
        rates.append(default)
    rates += [rate for rate in _COMMON_RATES if rate >= wanted.sample_rate]
    rates += [rate for rate in _COMMON_RATES if rate < wanted.sample_rate]
    at_most = device.channels(direction)
    channels = [count for count in (wanted.channels, 1, 2) if count <= at_most]
    unique = dict.fromkeys((rate, count) for rate in rates for count in channels)
    return [AudioFormat(rate, count) for rate, count in unique]
