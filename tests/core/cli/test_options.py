"""Options of ``talk`` that become metadata."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxengine.cli.options import parse_metadata
from voxengine.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("seed=7", {"seed": 7}),
        ("delay_ms = 1.5", {"delay_ms": 1.5}),
        ("live=true", {"live": True}),
        ('say="a = b"', {"say": "a = b"}),
        ("voice=bruno", {"voice": "bruno"}),
        ("script=/tmp/a b.toml", {"script": "/tmp/a b.toml"}),
        ("address=ws://host/path?x=1", {"address": "ws://host/path?x=1"}),
        ('responses={"Hello" = "Hi"}', {"responses": {"Hello": "Hi"}}),
        ('responses."*how*"="Fine"', {"responses": {"*how*": "Fine"}}),
        ('hears=["one", "two"]', {"hears": ["one", "two"]}),
    ],
)
def test_value_is_toml_or_a_bare_word(text: str, value: dict[str, Any]) -> None:
    assert parse_metadata(text) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed", "takes KEY=VALUE"),
        ("=7", "takes KEY=VALUE"),
        ("hears=[1", "no valid TOML"),
        ('say="open', "no valid TOML"),
        ("empty=", "no valid TOML"),
        ("a=1\nb=2", "several keys"),
    ],
)
def test_what_is_neither_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_metadata(text)


def test_refusal_does_not_show_the_value() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_metadata('token="sk-secret')

    assert "sk-secret" not in str(caught.value)


@given(st.integers(-(2**40), 2**40) | st.booleans() | st.text("abcäöü \"'\\", max_size=20))
def test_what_toml_can_say_comes_back(value: object) -> None:
    if isinstance(value, str):
        written = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    else:
        written = str(value).lower()

    assert parse_metadata(f"key={written}") == {"key": value}
