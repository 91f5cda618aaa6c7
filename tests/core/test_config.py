"""Configuration: what is refused, with which words, and what reaches a provider."""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxengine.audio.format import AudioFormat, Encoding
from voxengine.audio.options import DeviceOptions
from voxengine.config import (
    Deadlines,
    ProviderConfig,
    Reconnect,
    TurnDetection,
    VoiceEngineConfig,
    config_path,
    hidden,
    reconfigured,
    thawed,
)
from voxengine.errors import ConfigError

SECRET = "sk-SENTINEL-0123456789"
Class = type[Any]


def made(values: dict[str, Any]) -> VoiceEngineConfig:
    return VoiceEngineConfig(**values)


# Every field must be here: a new one without wrong values fails test_every_field_is_tried.
WRONG: Mapping[Class, Mapping[str, tuple[object, ...]]] = {
    VoiceEngineConfig: {
        "provider": ("", "  ", None, 3, b"mock"),
        "api_key": ("", " ", 3, b"key"),
        "metadata": (None, [], "model", {1: 2}, {...}, [("model", "a")]),
        "mode": ("slow", "FAST", "", None, 1),
        "model": ("", 4, ["a"]),
        "voice": ("", 4, ["a"]),
        "language": ("", 4, b"en"),
        "instructions": (4, b"be kind", ["be kind"]),
        "temperature": (-0.1, 2.1, "0.7", True, math.nan, math.inf),
        "max_output_tokens": (0, -1, 1_000_001, 10.0, True, "10"),
        "modalities": ((), "audio", ("smell",), ("audio", 1), {"audio"}),
        "vocabulary": ("word", ("",), (1,), {"word"}),
        "turn_detection": (
            "never", None, 3, True, {"kind": "never"}, {"kind": "server", "speed": 1}, {"threshold": 2},
        ),
        "interruption": ("sometimes", None, True, False),
        "input_format": (
            100, 500_000, 24_000.0, "24000", True, AudioFormat(24_000, 3), {"rate": 8000}, {"channels": 0},
            {"encoding": "mp3"},
        ),
        "output_format": (100, 24_000.0, "24000", False, AudioFormat(24_000, 8), {"sample_rate": True}),
        "playback": ("loud", "", None, 1),
        "input_device": (True, 1.5, b"hw", ["hw"]),
        "output_device": (False, 1.5, b"hw", ["hw"]),
        "device_options": ("hard", None, 3, {"flush": "soon"}, {"block_ms": 4}, {"processors": "webrtc"}),
        "chunk_ms": (0, 9, 201, 20.0, "20", True, None),
        "group_ms": (0, 9, 1001, 20.0, "20", True, None),
        "deadlines": (None, 10, "10", {"handshake_s": 0}, {"handshake": 1}),
        "reconnect": (None, 10, False, {"budget_s": -1}, {"budget": 1}),
        "journal_s": (0, 0.9, 3601, "60", True, None, math.nan),
        "fallbacks": (None, "mock", ("mock",), ({"provider": "mock"},), VoiceEngineConfig()),
        "tools": (None, print, ("print",), (3,)),
        "tool_choice": ("", None, 3, {"name": "x"}),
        "tool_timeout_s": (0, -1, 3601, "30", True, None),
        "keep_audio_s": (-1, 86_401, "60", True, math.inf),
        "transport": ("pigeon", "", None, 1),
    },
    TurnDetection: {
        "kind": ("never", None, 1),
        "threshold": (-0.1, 1.1, "0.5", True, math.nan),
        "detector": ("", " ", 3, ["energy"]),
        "prefix_padding_ms": (-1, 10_001, 300.0, True, "300"),
        "silence_ms": (0, 19, 10_001, 500.0, True, "500"),
        "eagerness": ("keen", 1, ""),
        "idle_timeout_ms": (0, 999, 600_001, 5000.0, True),
    },
    Deadlines: dict.fromkeys(
        ("handshake_s", "ready_s", "first_output_s", "progress_s"), (0, -1, 601, "10", True, None, math.nan)
    ),
    Reconnect: {
        "budget_s": (-1, 3601, "20", True, None, math.nan),
        "ping_interval_s": (0, 601, "5", True, None),
        "ping_timeout_s": (0, 601, "5", True, None),
        "cut_reply": ("again", "", None, 1),
    },
}  # fmt: skip

# Values at the edge of what is taken, or that are converted.
RIGHT: Mapping[Class, Mapping[str, tuple[tuple[object, object], ...]]] = {
    VoiceEngineConfig: {
        "temperature": ((0, 0), (2, 2), (None, None)),
        "max_output_tokens": ((1, 1), (1_000_000, 1_000_000)),
        "instructions": (("", ""),),
        "modalities": ((["text", "audio"], ("text", "audio")), (("text",), ("text",))),
        "vocabulary": ((["Ardagh"], ("Ardagh",)), ([], ())),
        "turn_detection": (
            ("manual", TurnDetection("manual")),
            ({"kind": "client", "silence_ms": 400}, TurnDetection("client", silence_ms=400)),
        ),
        "input_format": (
            (16_000, AudioFormat(16_000)),
            ({"sample_rate": 8000, "encoding": "g711_ulaw"}, AudioFormat(8000, 1, Encoding.G711_ULAW)),
            (AudioFormat(48_000, 2), AudioFormat(48_000, 2)),
        ),
        "input_device": (("USB", "USB"), (0, 0)),
        "chunk_ms": ((10, 10), (200, 200)),
        "group_ms": ((10, 10), (1000, 1000)),
        "deadlines": (({"ready_s": 3}, Deadlines(ready_s=3)),),
        "reconnect": (({"budget_s": 0}, Reconnect(budget_s=0)),),
        "journal_s": ((1, 1), (3600.0, 3600.0)),
        "fallbacks": (([VoiceEngineConfig(provider="mock")], (VoiceEngineConfig(provider="mock"),)),),
        "tools": (([print], (print,)),),
        "keep_audio_s": ((0, 0), (None, None)),
    },
}

# What the documentation promises.
DEFAULTS: Mapping[str, object] = {
    "provider": "openai", "api_key": None, "metadata": {}, "mode": "big", "model": None, "voice": None,
    "language": None, "instructions": None, "temperature": None, "max_output_tokens": None,
    "modalities": None, "vocabulary": None, "turn_detection": TurnDetection("server"),
    "interruption": "immediate", "input_format": None, "output_format": None, "playback": "auto",
    "input_device": None, "output_device": None, "device_options": DeviceOptions(), "chunk_ms": 20, "group_ms": 20,
    "deadlines": Deadlines(handshake_s=10, ready_s=10, first_output_s=10, progress_s=10),
    "reconnect": Reconnect(budget_s=20, ping_interval_s=5, ping_timeout_s=5), "journal_s": 60,
    "fallbacks": (), "tools": (), "tool_choice": "auto", "tool_timeout_s": 30, "keep_audio_s": None,
    "transport": "auto",
}  # fmt: skip

wrong_values = [
    pytest.param(cls, name, value, id=f"{cls.__name__}.{name}-{value!r:.30}")
    for cls, fields in WRONG.items()
    for name, tried in fields.items()
    for value in tried
]
right_values = [
    pytest.param(cls, name, value, held, id=f"{cls.__name__}.{name}-{value!r:.30}")
    for cls, fields in RIGHT.items()
    for name, tried in fields.items()
    for value, held in tried
]


@pytest.mark.parametrize("cls", WRONG)
def test_every_field_is_tried(cls: Class) -> None:
    assert {field.name for field in attrs.fields(cls)} == set(WRONG[cls])
    assert all(len(values) >= 3 for values in WRONG[cls].values())


@pytest.mark.parametrize(("cls", "name", "value"), wrong_values)
def test_wrong_type_or_range_is_refused_by_name(cls: Class, name: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        cls(**{name: value})

    message = str(caught.value)
    assert any(word in message for word in (name, *NESTED.get(name, ()), *nested_names(value)))
    assert "takes" in message or "options" in message or "it is" in message


# A short form is named by what it is converted to.
NESTED = {
    "input_format": ("audio format",), "output_format": ("audio format",), "turn_detection": ("TurnDetection",),
}  # fmt: skip


def nested_names(value: object) -> list[str]:
    """What a message names instead, when the fault is inside a nested table."""
    return [str(key) for key in value] if isinstance(value, Mapping) else []


@pytest.mark.parametrize(("cls", "name", "value", "held"), right_values)
def test_values_at_the_edge_are_taken_and_short_forms_converted(
    cls: Class, name: str, value: object, held: object
) -> None:
    assert getattr(cls(**{name: value}), name) == held


def test_defaults_are_the_documented_ones() -> None:
    config = VoiceEngineConfig()

    assert {field.name: getattr(config, field.name) for field in attrs.fields(type(config))} == DEFAULTS


def test_unknown_argument_is_refused() -> None:
    with pytest.raises(TypeError, match="api_kee"):
        VoiceEngineConfig(api_kee="x")  # type: ignore[call-arg]


def test_construction_reads_neither_file_nor_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "voxengine.toml").write_text('[profiles.a]\nprovider = "from-file"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "from-environment")
    monkeypatch.setenv("VOXENGINE_CONFIG", str(tmp_path / "voxengine.toml"))

    config = VoiceEngineConfig()

    assert (config.provider, config.api_key) == ("openai", None)


def test_configuration_is_immutable() -> None:
    config = VoiceEngineConfig(metadata={"a": {"b": [1]}})

    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        config.mode = "fast"  # type: ignore[misc]
    with pytest.raises(TypeError):
        config.metadata["a"] = 1  # type: ignore[index]
    with pytest.raises(TypeError):
        config.metadata["a"]["b"] = 1


def test_later_change_of_the_callers_metadata_does_not_reach_it() -> None:
    metadata: dict[str, Any] = {"a": {"b": [1]}}
    config = VoiceEngineConfig(metadata=metadata)

    metadata["a"]["b"].append(2)
    metadata["c"] = 3

    assert thawed(config.metadata) == {"a": {"b": [1]}}


def test_what_a_provider_does_to_its_metadata_does_not_reach_the_configuration() -> None:
    config = VoiceEngineConfig(metadata={"a": {"b": [1]}})

    config.for_provider()["metadata"]["a"]["b"].append(2)

    assert config.for_provider()["metadata"] == {"a": {"b": [1]}}


def test_equal_configurations_are_equal_and_can_be_keys() -> None:
    one, two = (VoiceEngineConfig(provider="mock", metadata={"a": 1}) for _ in range(2))

    assert one == two
    assert len({one, two}) == 1
    assert one != VoiceEngineConfig(provider="mock", metadata={"a": 2})


def test_variant_is_made_with_attrs_evolve() -> None:
    config = VoiceEngineConfig(provider="mock", metadata={"a": {"b": 1}})

    assert attrs.evolve(config, mode="fast").metadata == config.metadata


@pytest.mark.parametrize(
    "again",
    [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))],  # noqa: S301
)
def test_configuration_is_copied_and_sent_to_another_process(again: Any) -> None:
    config = VoiceEngineConfig(
        provider="mock",
        api_key=SECRET,
        metadata={"a": {"b": [1]}},
        fallbacks=[VoiceEngineConfig(provider="other", metadata={"c": 1})],
    )

    assert again(config) == config
    assert again(config).api_key == SECRET


# --- Secrets --------------------------------------------------------------------------------------


def secretive() -> VoiceEngineConfig:
    return VoiceEngineConfig(
        provider="mock",
        api_key=SECRET,
        metadata={"endpoint": f"wss://x/?key={SECRET}", "headers": {"X-Key": SECRET}, "list": [SECRET]},
        fallbacks=(VoiceEngineConfig(provider="b", api_key=SECRET, metadata={"token": SECRET}),),
    )


def test_secrets_are_in_no_representation(caplog: pytest.LogCaptureFixture) -> None:
    config = secretive()
    given = config.for_provider()

    logging.getLogger("test").warning("%s %r %s %r", config, config, given, given)
    shown = f"{config} {config!r} {given} {given!r} {given.copy()} {[given]}"

    assert SECRET not in shown + caplog.text
    assert "endpoint" in repr(config)
    assert "headers" in repr(given)


@pytest.mark.parametrize("wrong", [{"api_key": [SECRET]}, {"metadata": [SECRET]}, {"metadata": {1: SECRET}}])
def test_secrets_are_in_no_refusal(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        VoiceEngineConfig(**wrong)

    assert SECRET not in str(caught.value)


def test_long_wrong_value_is_shortened_in_the_refusal() -> None:
    with pytest.raises(ConfigError) as caught:
        VoiceEngineConfig(mode="x" * 5000)  # type: ignore[arg-type]

    assert len(str(caught.value)) < 300


def test_hidden_keeps_the_shape_alone() -> None:
    assert hidden({"a": 1, "b": {"c": "x"}, "d": None}) == {"a": "…", "b": {"c": "…"}, "d": None}


# --- One option, several spellings -----------------------------------------------------------------

SPELLINGS = [
    ("model", "model", "m1", "m2"),
    ("temperature", "temperature", 0.7, 0.8),
    ("max_output_tokens", "max_tokens", 150, 151),
    ("voice", "voice", "ada", "bob"),
]


@pytest.mark.parametrize(("field", "key", "value", "other"), SPELLINGS)
def test_flat_metadata_key_stands_for_the_field(field: str, key: str, value: object, other: object) -> None:
    flat, typed = VoiceEngineConfig(metadata={key: value}), made({field: value})

    assert flat.option(field) == typed.option(field) == value
    assert flat.for_provider()[field] == typed.for_provider()[field] == value
    assert field not in VoiceEngineConfig().for_provider()


@pytest.mark.parametrize(
    ("key", "field", "wrong"),
    [(key, field, wrong) for field, key, *_ in SPELLINGS for wrong in WRONG[VoiceEngineConfig][field]],
)
def test_flat_metadata_key_is_checked_as_the_field_is(key: str, field: str, wrong: object) -> None:
    with pytest.raises(ConfigError) as typed:
        made({field: wrong})
    with pytest.raises(ConfigError) as flat:
        made({"metadata": {key: wrong}})

    takes = str(typed.value).partition("; it takes ")[2]
    assert str(flat.value).startswith(f"VoiceEngineConfig.metadata[{key!r}] got ")
    assert str(flat.value).endswith(f" ({type(wrong).__name__}); it takes {takes}")


def test_wrong_flat_value_that_could_be_a_secret_is_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        VoiceEngineConfig(metadata={"temperature": SECRET})

    assert str(caught.value) == (
        "VoiceEngineConfig.metadata['temperature'] got … (str); it takes a number from 0 to 2 (0 to 2) or None."
    )


@pytest.mark.parametrize(("field", "key", "value", "other"), SPELLINGS)
def test_two_values_for_one_option_are_refused(field: str, key: str, value: object, other: object) -> None:
    with pytest.raises(ConfigError) as caught:
        made({field: value, "metadata": {key: other}})

    assert field in str(caught.value)
    assert repr(key) in str(caught.value)
    assert made({field: value, "metadata": {key: value}}).option(field) == value


@pytest.mark.parametrize(("field", "key", "value", "other"), SPELLINGS)
def test_session_table_goes_to_the_vendor_untouched(
    field: str, key: str, value: object, other: object
) -> None:
    session = {key: other, field: other}

    config = made({field: value, "metadata": {"session": session}})

    assert config.for_provider()["metadata"]["session"] == session
    assert config.for_provider()[field] == value


# --- What a provider is given ----------------------------------------------------------------------


def test_unset_options_are_absent_and_the_two_constants_are_there() -> None:
    given = VoiceEngineConfig().for_provider()

    assert given["api_key"] is None
    assert given["metadata"] == {}
    assert not {"model", "voice", "language", "temperature", "input_format"} & set(given)
    assert None not in [value for key, value in given.items() if key != "api_key"]


def test_options_that_are_no_providers_business_stay_out() -> None:
    config = VoiceEngineConfig(
        fallbacks=(VoiceEngineConfig(api_key=SECRET),), tools=(print,), input_device="USB", journal_s=5
    )

    given = config.for_provider()

    assert not {"fallbacks", "tools", "input_device", "output_device", "journal_s", "provider"} & set(given)


def test_engine_decides_last() -> None:
    config = VoiceEngineConfig(turn_detection="server", voice="ada")

    given = config.for_provider(turn_detection=TurnDetection("client"), voice=None)

    assert given["turn_detection"] == TurnDetection("client")
    assert "voice" not in given


def test_provider_config_is_a_dictionary_that_json_takes() -> None:
    given = ProviderConfig({"voice": "ada"})

    assert isinstance(given, dict)
    assert json.loads(json.dumps(given)) == {"voice": "ada", "api_key": None, "metadata": {}}
    assert given == {"voice": "ada", "api_key": None, "metadata": {}}
    assert ProviderConfig()["metadata"] is not ProviderConfig()["metadata"]


# --- load ------------------------------------------------------------------------------------------

FILE = """
default_profile = "work"

[profiles.work]
provider = "acme"
api_key_env = "ACME_KEY"
mode = "fast"
input_format = 16000
turn_detection = { kind = "client", silence_ms = 400 }
fallbacks = ["spare", "last"]
deadlines = { ready_s = 3.0 }

[profiles.work.metadata]
region = "eu"

[profiles.spare]
provider = "mock"
fallbacks = ["last"]

[profiles.last]
provider = "mock"
voice = "ada"
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VOXENGINE_CONFIG", raising=False)
    monkeypatch.delenv("ACME_KEY", raising=False)
    path = tmp_path / "voxengine.toml"
    path.write_text(FILE)
    return path


def test_default_profile_is_loaded_from_the_working_directory(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACME_KEY", SECRET)
    last = VoiceEngineConfig(provider="mock", voice="ada")

    assert VoiceEngineConfig.load() == VoiceEngineConfig(
        provider="acme",
        api_key=SECRET,
        mode="fast",
        input_format=16_000,
        turn_detection=TurnDetection("client", silence_ms=400),
        deadlines=Deadlines(ready_s=3.0),
        metadata={"region": "eu"},
        fallbacks=(VoiceEngineConfig(provider="mock", fallbacks=(last,)), last),
    )


def test_named_profile_is_loaded(file: Path) -> None:
    assert VoiceEngineConfig.load(profile="last") == VoiceEngineConfig(provider="mock", voice="ada")


def test_only_profile_needs_no_name(file: Path) -> None:
    file.write_text('[profiles.one]\nprovider = "solo"\n')

    assert VoiceEngineConfig.load().provider == "solo"


def test_path_wins_over_variable_and_variable_over_working_directory(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("argument", "variable"):
        file.with_name(f"{name}.toml").write_text(f'[profiles.a]\nprovider = "{name}"\n')

    assert VoiceEngineConfig.load().provider == "acme"
    monkeypatch.setenv("VOXENGINE_CONFIG", str(file.with_name("variable.toml")))
    assert VoiceEngineConfig.load().provider == "variable"
    assert VoiceEngineConfig.load(path=file.with_name("argument.toml")).provider == "argument"
    assert config_path("argument.toml") == Path("argument.toml")
    assert config_path() == file.with_name("variable.toml")


@pytest.mark.parametrize("value", [None, ""])
def test_missing_key_variable_is_left_for_connect_to_name(
    file: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is not None:
        monkeypatch.setenv("ACME_KEY", value)

    assert VoiceEngineConfig.load().api_key is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["no table [profiles.NAME]"]),
        ("profiles = 3", ["no table [profiles.NAME]"]),
        ("[profiles]\na = 1", ["no table [profiles.NAME]"]),
        ("[profiles.a\n", ["not valid TOML", "line 1"]),
        ("[profile.a]\nprovider = 'x'", ["'profile'", "[profiles.NAME]"]),
        ("[profiles.a]\n[profiles.b]", ["several profiles", "a, b"]),
        ("default_profile = 'c'\n[profiles.a]", ["'c'", "Its profiles: a"]),
        ("default_profile = 3\n[profiles.a]", ["3", "Its profiles: a"]),
        ("[profiles.a]\nprovidr = 'x'", ["[profiles.a]", "'providr'", "provider, api_key"]),
        ("[profiles.a]\ntools = []", ["'tools'"]),
        ("[profiles.a]\nmode = 'slow'", ["[profiles.a]", "mode", "'slow'"]),
        ("[profiles.a]\nchunk_ms = '20'", ["chunk_ms"]),
        ("[profiles.a.deadlines]\nhandshake = 3", ["deadlines", "'handshake'", "handshake_s"]),
        ("[profiles.a]\napi_key_env = 3", ["api_key_env"]),
        ("[profiles.a]\napi_key_env = 'K'\napi_key = 'sk-SENTINEL-0123456789'", ["api_key_env", "not both"]),
        ("[profiles.a]\nfallbacks = 'b'", ["fallbacks"]),
        ("[profiles.a]\nfallbacks = [{provider = 'b'}]", ["fallbacks"]),
        ("[profiles.a]\nfallbacks = ['b']", ["no profile 'b'"]),
        ("[profiles.a]\nfallbacks = ['a']", ["'a'", "lead back"]),
        (
            "default_profile='a'\n[profiles.a]\nfallbacks = ['b']\n[profiles.b]\nfallbacks = ['a']",
            ["lead back"],
        ),
        (
            "default_profile='a'\n[profiles.a]\nfallbacks = ['b']\n[profiles.b]\nmode = 'x'",
            ["[profiles.b]", "mode"],
        ),
        ("[profiles.a]\napi_key = ['sk-SENTINEL-0123456789']", ["api_key"]),
    ],
)
def test_wrong_file_is_refused_with_the_place(file: Path, content: str, words: list[str]) -> None:
    file.write_text(content)

    with pytest.raises(ConfigError) as caught:
        VoiceEngineConfig.load()

    for word in ["voxengine.toml", *words]:
        assert word in str(caught.value)
    assert SECRET not in str(caught.value)


def test_unknown_profile_lists_the_ones_there_are(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"no profile 'home'.*last, spare, work"):
        VoiceEngineConfig.load(profile="home")


def test_missing_file_says_what_to_write(file: Path) -> None:
    file.unlink()

    with pytest.raises(ConfigError, match=r"'voxengine.toml'.*\[profiles.NAME\].*VOXENGINE_CONFIG"):
        VoiceEngineConfig.load()


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", None])
def test_unreadable_file_is_a_config_error(file: Path, content: bytes | None) -> None:
    file.unlink()
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)

    with pytest.raises(ConfigError, match="cannot be read"):
        VoiceEngineConfig.load()


@pytest.mark.parametrize("path", [3, b"voxengine.toml", "", ["voxengine.toml"]], ids=repr)
def test_path_of_another_type_is_refused(path: Any) -> None:
    with pytest.raises(ConfigError, match="is a str or a Path"):
        VoiceEngineConfig.load(path=path)


@pytest.mark.parametrize(("path", "why"), [(".", "'.' cannot be read: Is a directory"), ("a\0b", "no NUL")])
def test_path_that_names_no_file_is_refused_with_the_reason(path: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        VoiceEngineConfig.load(path=path)


def test_error_of_load_names_no_folder(file: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        VoiceEngineConfig.load(path=file.parent / "absent.toml")

    assert str(file.parent) not in str(caught.value)
    assert os.sep not in str(caught.value).partition("Write one")[0]


# --- Laws ------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.text(max_size=5).filter(lambda key: key not in {"model", "voice"}), json_values, max_size=3
    )
)
def test_metadata_comes_out_as_it_went_in(metadata: dict[str, Any]) -> None:
    config = VoiceEngineConfig(metadata=metadata)

    assert thawed(config.metadata) == metadata
    assert config.for_provider()["metadata"] == metadata
    assert VoiceEngineConfig(metadata=config.metadata) == config


@given(st.text(max_size=20))
def test_no_metadata_value_is_shown(value: str) -> None:
    config = VoiceEngineConfig(metadata={"k": {"deep": f"<<{value}>>"}})

    assert f"<<{value}>>" not in repr(config)
    assert f"<<{value}>>" not in repr(config.for_provider())


# --- Changes in a running session ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "asked"),
    [
        ({"metadata": {"voice": "old"}}, {"voice": "new"}),
        ({"voice": "old"}, {"metadata": {"voice": "new"}}),
        ({"voice": "old", "metadata": {"voice": "old"}}, {"voice": "new"}),
        ({"voice": "old", "metadata": {"voice": "old"}}, {"metadata": {"voice": "new"}}),
    ],
)
def test_newest_word_wins_whichever_way_it_is_spelt(before: dict[str, Any], asked: dict[str, Any]) -> None:
    changed, told = reconfigured(VoiceEngineConfig(**before), asked)

    assert changed.option("voice") == "new"
    assert told == {"voice": "new", **asked}
    assert changed.for_provider()["metadata"].get("voice", "new") == "new"


def test_two_words_in_one_change_have_to_agree() -> None:
    with pytest.raises(ConfigError, match="say different things"):
        reconfigured(VoiceEngineConfig(), {"voice": "one", "metadata": {"voice": "two"}})


def test_change_leaves_the_metadata_that_it_does_not_name() -> None:
    held = {"endpoint": "https://x", "language": "de-DE", "session": {"a": {"b": 1, "c": 2}}}
    asked = {"language": "en-US", "metadata": {"session": {"a": {"c": 3}}}}

    changed, told = reconfigured(VoiceEngineConfig(metadata=held), asked)

    assert thawed(changed.metadata) == {"endpoint": "https://x", "session": {"a": {"b": 1, "c": 3}}}
    assert told == {"language": "en-US", "metadata": {"session": {"a": {"b": 1, "c": 3}}}}


def test_change_of_metadata_to_what_is_no_mapping_is_refused() -> None:
    with pytest.raises(ConfigError, match="metadata"):
        reconfigured(VoiceEngineConfig(), {"metadata": 3})
