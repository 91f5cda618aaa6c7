from __future__ import annotations

import pytest

from voxengine.audio.devices import DeviceInfo, choose_device, format_candidates
from voxengine.audio.format import AudioFormat
from voxengine.errors import AudioDeviceError


def device(
    index: int, name: str, n_in: int, n_out: int, rate: int = 48000, default: bool = False
) -> DeviceInfo:
    return DeviceInfo(index, name, "ALSA", n_in, n_out, rate, default and n_in > 0, default and n_out > 0)


DEVICES = [
    device(0, "HDA Intel: ALC1220", 2, 6),
    device(1, "USB Headset", 1, 2, 44100),
    device(2, "usb headset mono", 1, 0),
    device(3, "default", 2, 2, default=True),
]


@pytest.mark.parametrize(
    ("wanted", "direction", "index"),
    [
        (None, "input", 3),
        (None, "output", 3),
        (1, "output", 1),
        ("default", "input", 3),
        ("USB Headset", "input", 1),
        ("usb headset", "output", 1),
        ("headset mono", "input", 2),
        ("alc1220", "output", 0),
    ],
)
def test_a_device_is_found_by_index_name_or_part_of_it(
    wanted: str | int | None, direction: str, index: int
) -> None:
    assert choose_device(DEVICES, wanted, direction).index == index  # type: ignore[arg-type]


def test_without_a_default_the_first_usable_one_is_taken() -> None:
    assert choose_device(DEVICES[:2], None, "input").index == 0


@pytest.mark.parametrize(
    ("wanted", "direction", "words"),
    [
        (
            "Bluetooth",
            "input",
            r"No input device is called 'Bluetooth'\. There is: 0 'HDA Intel: ALC1220', 1",
        ),
        ("mono", "output", "No output device is called 'mono'"),
        (2, "output", "No output device has the index 2"),
        ("usb", "input", r"'usb' fits several input devices\. There is: 1 'USB Headset', 2"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(wanted: str | int, direction: str, words: str) -> None:
    with pytest.raises(AudioDeviceError, match=words) as caught:
        choose_device(DEVICES, wanted, direction)  # type: ignore[arg-type]

    assert (caught.value.reason, caught.value.device) == ("not_found", wanted)


def test_a_machine_without_devices_says_what_can_be_used_instead() -> None:
    with pytest.raises(AudioDeviceError, match="There is no output device.*null, file or pipe"):
        choose_device([], None, "output")


def test_many_devices_are_not_all_listed() -> None:
    many = [device(n, f"card {n}", 1, 1) for n in range(30)]

    with pytest.raises(AudioDeviceError, match="7 'card 7' and 22 more"):
        choose_device(many, "none", "input")


def test_the_wanted_format_comes_first_then_the_device_s_own_rate() -> None:
    tried = format_candidates(DEVICES[1], AudioFormat(24000), "output")

    assert tried[:4] == [AudioFormat(24000), AudioFormat(24000, 2), AudioFormat(44100), AudioFormat(44100, 2)]
    assert len(tried) == len(set(tried))


def test_no_more_channels_are_tried_than_there_are() -> None:
    tried = format_candidates(DEVICES[1], AudioFormat(16000, 2), "input")

    assert {audio_format.channels for audio_format in tried} == {1}
    assert {audio_format.sample_rate for audio_format in tried} >= {16000, 44100, 48000}


def test_a_rate_that_no_audio_has_is_not_tried() -> None:
    tried = format_candidates(device(0, "odd", 1, 1, rate=1), AudioFormat(8000), "input")

    assert 1 not in {audio_format.sample_rate for audio_format in tried}
