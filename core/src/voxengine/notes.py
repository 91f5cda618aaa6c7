"""What an agent that takes a conversation over is told of it, in words of ours. The user neither said nor hears it."""

from __future__ import annotations

from typing import Final

__all__ = ["CONTINUE", "NOTES", "RESTART", "USE_RESULT", "heard_of"]

CONTINUE: Final = (
    "[Note: your last reply was cut before its end. The user heard exactly what the conversation shows of it. Go on "
    "from there, without repeating it and without a word about the cut.]"
)
"""To go on with an answer that was cut, by a loss or by a switch."""
RESTART: Final = (
    "[Note: your last reply was cut before its end. Answer the user's last turn again, from the start and without a "
    "word about the cut.]"
)
"""To give an answer that was cut once more."""
USE_RESULT: Final = (
    "[Note: the tool that you called has returned; the conversation shows its result. Go on with it.]"
)
"""To answer with a result that came when the session that asked for it was gone."""
NOTES: Final = frozenset({CONTINUE, RESTART, USE_RESULT})
"""Those that ask for something, each a turn of its own."""


def heard_of(told: str, heard: str) -> str:
    """Return the note of what was heard of an answer, where the agent takes something else for said.

    Args:
        told: What it takes for said.
        heard: What was heard.
    """
    said = (
        f'What was heard of it: "{heard}". Nothing else of it was said.'
        if heard
        else "Nothing of it was heard."
    )
    return f'[Note: your reply "{told}" was cut while it was being played. {said}]'
