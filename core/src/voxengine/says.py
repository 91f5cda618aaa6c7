"""What the agent was told to say word for word, until it has been given in full."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import attrs

from voxengine.history import History
from voxengine.responses import Response, ResponseTracker

__all__ = ["Say", "Says"]


@attrs.define(eq=False)
class Say:
    """Words that the application put into the agent's mouth."""

    text: str = attrs.field(repr=False)
    behind: str | None = None
    """The user's text turn that was asked before and had no answer yet: a session that takes over keeps the order."""
    is_cut: bool = False
    """Whether a session ended in the middle of it."""
    rest: str = attrs.field(default="", repr=False)
    """What was not given then."""
    origin: Say | None = attrs.field(default=None, repr=False)
    """What this is the rest of; it may still be heard."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields that a snapshot keeps."""
        return {"text": self.text, "behind": self.behind, "is_cut": self.is_cut, "rest": self.rest}

    def is_of(self, begun: Iterable[object]) -> bool:
        """Return whether it, or what it is the rest of, is among those."""
        return self in begun or (self.origin is not None and self.origin.is_of(begun))


class Says:
    """The words that are owed to the user. Loop thread only.

    Args:
        history: Says what was given of them.
        responses: Told that a response is asked for.
    """

    def __init__(self, history: History, responses: ResponseTracker) -> None:
        self._history = history
        self._responses = responses
        self._owed: list[Say] = []

    def ask(self, text: str, behind: str | None) -> Say:
        """Note what the agent is to say."""
        say = Say(text, behind)
        self._owed.append(say)
        return say

    def request(self, say: Say) -> None:
        """Note that a session is asked to say it."""
        self._responses.input("say", is_request=True, words=say)

    def take_back(self, say: Say) -> None:
        """Forget what no session was asked for: whoever wanted it was told so."""
        self.given(say)
        self._responses.request_failed()

    def given(self, words: object) -> None:
        """Note that the session is done with what it was asked to say, in full or not."""
        if isinstance(words, Say) and words in self._owed:
            self._owed.remove(words)

    def clear(self) -> None:
        """Forget everything: the user, or the application, wants silence."""
        self._owed.clear()

    def torn(self, response: Response) -> None:
        """Note that a session ended while it was saying something; the history shows how far it came."""
        say = response.words
        if not isinstance(say, Say) or say not in self._owed or not response.has_output:
            return
        shown = _shown(self._history, response)
        say.is_cut, say.rest = bool(shown), rest_of(say.text, shown)

    def settle(self, policy: Literal["continue", "restart", "leave"]) -> None:
        """Apply ``reconnect.cut_reply`` to what was cut; what nothing was given of is owed whatever it says."""
        left: list[Say] = []
        for say in self._owed:
            if not say.is_cut:
                left.append(say)
            elif policy == "restart":
                left.append(Say(say.text, say.behind, origin=say))
            elif policy == "continue" and say.rest:
                left.append(Say(say.rest, say.behind, origin=say))
        self._owed = left

    def in_order(self, texts: list[str]) -> list[str | Say]:
        """Return what a session that takes over is asked for: text turns, and what is to be said, as they came.

        Args:
            texts: The text turns without an answer.
        """
        order: list[str | Say] = [say for say in self._owed if say.behind not in texts]
        for item_id in texts:
            order += [item_id, *(say for say in self._owed if say.behind == item_id)]
        return order

    def is_owed(self, say: Say) -> bool:
        """Return whether it has yet to be said."""
        return say in self._owed

    def cut_in(self, copy: History, audible: list[Response]) -> list[Say]:
        """Return what is owed when the conversation is left as a copy of the history shows it.

        Args:
            copy: What can still be heard is cut in it.
            audible: The responses that can still be heard, oldest first.
        """
        open_ones, begun = list[Say](), [response.words for response in audible]
        for response in audible:
            say = response.words
            if isinstance(say, Say) and not (say.origin is not None and say.origin.is_of(begun)):
                shown = _shown(copy, response)
                open_ones.append(attrs.evolve(say, is_cut=bool(shown), rest=rest_of(say.text, shown)))
        return open_ones + [say for say in self._owed if not say.is_of(begun)]

    def restore(self, owed: list[Say]) -> None:
        """Go on where another engine was."""
        self._owed = list(owed)


def _shown(history: History, response: Response) -> str:
    """Return what the history shows of a response."""
    items = (history.get(item_id) for item_id in response.item_ids.values() if item_id in history)
    return " ".join(item.context_text for item in items)


def rest_of(text: str, shown: str) -> str:
    """Return what is left of a text behind the words that were given; all of it where they are others."""
    whole, given = " ".join(text.split()), " ".join(shown.split())
    return whole[len(given) :].lstrip(" ,.;:!?…") if whole.startswith(given) else text
