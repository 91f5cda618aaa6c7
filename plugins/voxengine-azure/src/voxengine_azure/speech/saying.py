"""One text that is being said: its pieces, its words and how much of it was sent."""

from __future__ import annotations

import re
from typing import Final

import attrs

__all__ = ["Saying"]

_SENTENCE_END: Final = re.compile(r"[.!?…。！？][\"')\]}»”’]*(?:\s+|$)|\n+")
_AT_MOST: Final = 4000
"""Characters of one request: five minutes of speech, and the service makes at most ten."""


@attrs.define(eq=False)
class Saying:
    """A response from its first piece of text to its end."""

    response_id: str
    item_id: str
    trigger: str
    _text: str = attrs.field(default="", repr=False)
    """What was not yet asked for."""
    _is_complete: bool = False
    is_over: bool = False
    """Its ending was told."""
    sent_ms: int = 0
    """Audio received of it."""
    n_characters: int = 0
    """Those that were spoken, or begun."""
    base: int = 0
    """Characters before the present segment."""
    said: str = attrs.field(default="", repr=False)
    """Everything that was asked for."""
    n_told: int = 0
    """Characters of it that were told as text."""
    _ends: list[tuple[int, int]] = attrs.field(factory=list, repr=False)
    """For each word, when it has been spoken and where the text stands then."""
    _found_to: int = 0

    def add(self, text: str, *, is_last: bool) -> None:
        """Append text."""
        self._text += text
        self._is_complete = is_last

    @property
    def is_finished(self) -> bool:
        """Whether everything was asked for."""
        return self._is_complete and not self._text

    def next_segment(self) -> str:
        """Return what to ask for next; empty when more text has to come first.

        Whole sentences while more follows, so that speaking can begin before the text is complete.
        """
        text = self._text
        if not self._is_complete or len(text) > _AT_MOST:
            ends = [match.end() for match in _SENTENCE_END.finditer(text, 0, _AT_MOST)]
            if not self._is_complete:
                # What stands at the end may go on: "3." and then "5".
                ends = [end for end in ends if end < len(text) or text[end - 1].isspace()]
            cut = ends[-1] if ends else _AT_MOST if len(text) > _AT_MOST else 0
            if not ends and cut:
                cut = text.rfind(" ", 1, cut) + 1 or cut
            text = text[:cut]
        self._text = self._text[len(text) :]
        self.base = len(self.said)
        self.said += text
        return text

    def word(self, word: str, end_ms: int) -> None:
        """Note that a word has been spoken at a time of the item."""
        at = self.said.find(word, max(self._found_to, self.base))
        if at >= 0:
            self._found_to = at + len(word)
            self._ends.append((end_ms, self._found_to))

    def heard(self, played_ms: int) -> tuple[int, str]:
        """Return how much was heard when so much was played: at most what was sent, in whole words."""
        heard_ms = max(0, min(played_ms, self.sent_ms))
        position = 0
        for end_ms, end in self._ends:
            if end_ms > heard_ms:
                break
            position = end
        return heard_ms, self.said[:position]
