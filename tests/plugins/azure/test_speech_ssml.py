"""SSML is safe: whatever the text holds is said, and what is set arrives."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxengine.errors import ConfigError
from voxengine_azure.emulator.speech_synthesis import read_ssml
from voxengine_azure.speech.ssml import Delivery, build_ssml, locale_of

PRINTABLE = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn", "Co"]))


@given(PRINTABLE)
def test_any_text_is_said_as_it_is(text: str) -> None:
    assert read_ssml(build_ssml(text, Delivery())).text == text


@given(st.text())
def test_any_text_at_all_gives_a_document_that_can_be_read(text: str) -> None:
    document = build_ssml(text, Delivery(rate="+10%", style="sad"))

    ElementTree.fromstring(document)
    assert "\r" not in document


@pytest.mark.parametrize(
    "text",
    ["</voice></speak>", "<break time='9s'/>", "<!DOCTYPE x>", "&lt; &amp;", "]]>", "R&D", '"quoted"'],
)
def test_markup_in_the_text_is_no_markup(text: str) -> None:
    found = read_ssml(build_ssml(text, Delivery(voice="de-DE-KatjaNeural")))

    assert (found.text, found.voice) == (text, "de-DE-KatjaNeural")


def test_delivery_is_in_the_document() -> None:
    delivery = Delivery(
        voice="en-US-AriaNeural", style="cheerful", style_degree=1.5, role="Girl", rate=1.25, pitch="-2st",
        volume="soft", language="de-DE",
    )  # fmt: skip
    root = ElementTree.fromstring(build_ssml("Hallo.", delivery))
    found: dict[str, Any] = {node.tag.rpartition("}")[2]: dict(node.attrib) for node in root.iter()}

    assert found["express-as"] == {"style": "cheerful", "styledegree": "1.5", "role": "Girl"}
    assert found["prosody"] == {"rate": "+25%", "pitch": "-2st", "volume": "soft"}
    assert list(found["lang"].values()) == ["de-DE"]
    assert found["voice"] == {"name": "en-US-AriaNeural"}


def test_plain_delivery_adds_no_elements() -> None:
    root = ElementTree.fromstring(build_ssml("Hello.", Delivery()))

    assert [node.tag.rpartition("}")[2] for node in root.iter()] == ["speak", "voice"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("voice", "x' onload='y"), ("voice", ""), ("voice", 7), ("language", "english please"),
        ("style", "very <sad>"), ("style_degree", 3), ("style_degree", True), ("role", ""),
        ("rate", "quickly!"), ("rate", 50), ("pitch", "'/><break"), ("volume", "loud enough"),
    ],
)  # fmt: skip
def test_value_that_ssml_cannot_hold_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name} is .*azure takes"):
        Delivery(**{name: value})


@pytest.mark.parametrize(
    ("voice", "locale"),
    [
        ("en-US-JennyNeural", "en-US"), ("zh-CN-liaoning-XiaobeiNeural", "zh-CN"),
        ("sr-Latn-RS-NicholasNeural", "sr-Latn-RS"), ("MyCustomVoice", "en-US"),
    ],
)  # fmt: skip
def test_language_follows_from_the_voice_s_name(voice: str, locale: str) -> None:
    assert locale_of(voice) == locale
