"""SSML from plain text and a way of saying it. Markup in the text is said, not obeyed."""

from __future__ import annotations

import re
from typing import Any, Final
from xml.sax.saxutils import escape, quoteattr

import attrs

from voxengine.errors import ConfigError

__all__ = ["DEFAULT_VOICE", "LANGUAGE", "Delivery", "build_ssml", "locale_of"]

DEFAULT_VOICE: Final = "en-US-JennyNeural"
"""The voice of the provider guide's example."""

LANGUAGE: Final = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}")
_VOICE: Final = re.compile(r"[\w .:()'-]{1,200}")
_WORD: Final = re.compile(r"[A-Za-z][\w-]{0,63}")
_RATE: Final = re.compile(r"x-slow|slow|medium|fast|x-fast|default|[+-]?\d{1,3}(\.\d+)?%|\d(\.\d+)?")
_PITCH: Final = re.compile(
    r"x-low|low|medium|high|x-high|default|[+-]?\d{1,3}(\.\d+)?%|[+-]?\d{1,3}(\.\d+)?(Hz|st)"
)
_VOLUME: Final = re.compile(
    r"silent|x-soft|soft|medium|loud|x-loud|default|[+-]?\d{1,3}(\.\d+)?%?|[+-]\d{1,2}dB"
)
# What XML 1.0 cannot hold, not even escaped.
_NO_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NAMESPACES: Final = "xmlns='http://www.w3.org/2001/10/synthesis' xmlns:mstts='https://www.w3.org/2001/mstts'"


def _matches(pattern: re.Pattern[str], takes: str) -> Any:
    def check(_: object, field: attrs.Attribute[Any], value: object) -> None:
        if value is not None and (not isinstance(value, str) or not pattern.fullmatch(value)):
            raise ConfigError(f"{field.name} is {value!r}; azure takes {takes}.")

    return check


def _as_change(value: str | float | None) -> str | None:
    """Return a number as a change in percent: it is a factor, so 1.2 is a fifth more."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 10:
        return f"{(value - 1) * 100:+.0f}%"
    return value  # type: ignore[return-value]  # Anything else is refused by its validator.


def _word(pattern: re.Pattern[str], takes: str) -> Any:
    return attrs.field(default=None, validator=_matches(pattern, takes))


def _check_degree(_: object, __: object, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.01 <= value <= 2:
        raise ConfigError(f"style_degree is {value!r}; azure takes a number from 0.01 to 2.")


@attrs.frozen(kw_only=True)
class Delivery:
    """How a text is said. What is None is left to the voice.

    Raises:
        ConfigError: A value cannot be put into SSML.
    """

    voice: str | None = _word(_VOICE, "a voice's name, such as 'en-US-JennyNeural'")
    language: str | None = _word(LANGUAGE, "a language, such as 'en-US'")
    style: str | None = _word(_WORD, "a style that the voice has, such as 'cheerful'")
    style_degree: float | None = attrs.field(default=None, validator=_check_degree)
    """From 0.01 to 2; 1 is the style as it is."""
    role: str | None = _word(_WORD, "a role that the voice can play, such as 'YoungAdultFemale'")
    rate: str | None = attrs.field(
        default=None,
        converter=_as_change,
        validator=_matches(_RATE, "a factor such as 1.2, a change such as '+20%', or a word such as 'slow'"),
    )
    pitch: str | None = attrs.field(
        default=None,
        converter=_as_change,
        validator=_matches(_PITCH, "a factor, a change such as '+5%' or '-2st', or a word such as 'high'"),
    )
    volume: str | None = attrs.field(
        default=None,
        converter=_as_change,
        validator=_matches(_VOLUME, "a factor, a change such as '+10%', or a word such as 'soft'"),
    )

    @property
    def speaks(self) -> str:
        """The voice that is asked for."""
        return self.voice or DEFAULT_VOICE


def locale_of(voice: str) -> str:
    """Return the language in a voice's name, ``en-US`` when there is none."""
    found = re.match(r"[a-z]{2,3}-(?:[A-Z][a-z]{3}-)?[A-Z]{2}(?=-)", voice)
    return found[0] if found else "en-US"


def build_ssml(text: str, delivery: Delivery) -> str:
    """Return a document that says the text. Whatever the text holds, it is said as text."""
    voice = delivery.speaks
    locale = delivery.language or locale_of(voice)
    # An empty line would end the message for one of the vendor's own clients.
    body = escape(_NO_XML.sub(" ", text).replace("\r\n", "\n").replace("\r", "\n"))
    prosody = {name: getattr(delivery, name) for name in ("rate", "pitch", "volume")}
    given = [f"{name}={quoteattr(value)}" for name, value in prosody.items() if value is not None]
    if given:
        body = f"<prosody {' '.join(given)}>{body}</prosody>"
    if delivery.language is not None and delivery.language != locale_of(voice):
        body = f"<lang xml:lang={quoteattr(delivery.language)}>{body}</lang>"
    if delivery.style is not None or delivery.role is not None:
        express = {"style": delivery.style, "role": delivery.role}
        if delivery.style_degree is not None:
            express["styledegree"] = f"{delivery.style_degree:g}"
        shown = " ".join(f"{k}={quoteattr(v)}" for k, v in express.items() if v is not None)
        body = f"<mstts:express-as {shown}>{body}</mstts:express-as>"
    return (
        f"<speak version='1.0' {_NAMESPACES} xml:lang={quoteattr(locale)}>"
        f"<voice name={quoteattr(voice)}>{body}</voice></speak>"
    )
