"""What a session that takes over is given of the unfinished conversation, and what it is asked for.

Complete utterances go in under manual control of the turn, one answer is asked for behind the last, and only
then what the user is still saying follows through the vendor's own turn detection.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Literal

import attrs

from voxengine.config import TurnDetection
from voxengine.conversation import Conversation
from voxengine.errors import VoxEngineError
from voxengine.events import EventType
from voxengine.history import ItemKind
from voxengine.notes import CONTINUE, RESTART, USE_RESULT
from voxengine.says import Say
from voxengine.session import Session
from voxengine.turns import endpointing_silence_ms

__all__ = ["Debt", "cut_note", "in_turn", "pay", "replay_from", "take_turn_control"]


@attrs.frozen
class Debt:
    """What the next session owes the user, besides what the history says."""

    complete_to: int | None
    """Journal index at which the spoken turns that wait for an answer end; None: none waits."""
    is_by_hand: bool
    """Whether the session is under manual control, so that it can be told where the turn ends."""
    unclaimed_tool: bool
    """A tool's result reached nobody who could use it."""
    cut_note: str
    """What is asked for because an answer was cut, and nothing was said since; "" when nothing is."""


async def take_turn_control(conversation: Conversation, session: Session) -> bool:
    """Put a session under manual control of the turn where complete utterances wait and it can be.

    Its own turn detection is told again by :func:`pay`.
    """
    user = conversation.user
    if session.config["turn_detection"].kind in ("client", "manual"):
        return session.can("client_turn_detection")
    cells = session.capabilities
    if user.turn_end is None or not (cells.client_turn_detection and cells.live_configuration):
        return False
    try:
        await session.call("configure_session", {"turn_detection": TurnDetection("manual")})
    except VoxEngineError:
        return False  # Then the vendor hears the silence in which the turn ends.
    return True


def replay_from(conversation: Conversation, old: Session | None, session: Session) -> int:
    """Return the journal index from which the next session hears the user."""
    user = conversation.user
    assert user.journal is not None
    if old is not None and old.sender is not None and old.is_ready:
        if old.input_format != session.input_format and not in_turn(conversation, old):
            return max(old.sender.cursor, user.journal.start)
        return user.open_turn_start()
    start = user.open_turn_start()
    is_known = user.is_speaking or user.turn_end is not None
    if is_known or session.config["turn_detection"].kind == "manual":
        return start
    return user.journal.first_sound(start)  # Nobody has to hear the silence of the gap.


def in_turn(conversation: Conversation, session: Session) -> bool:
    """Return whether the user is at a turn, or has ended one that is not answered."""
    user = conversation.user
    if session.config["turn_detection"].kind == "manual":
        return user.has_open_turn
    return user.is_speaking or user.turn_end is not None


def cut_note(conversation: Conversation, policy: Literal["continue", "restart", "leave"]) -> str:
    """Return what an agent that takes over is asked for because an answer was cut; "" when nothing is.

    One of which nothing was heard is given again, whatever the policy. The turn is not asked again where a tool was
    called for it.
    """
    cut, history = conversation.cut_reply, conversation.history
    is_heard = any(history.get(held).context_text for held in cut if held in history)
    if not cut or (is_heard and policy == "leave"):
        return ""
    if is_heard and policy == "continue":
        return CONTINUE
    said = [item.kind for item in history if item.id not in cut and item.kind is not ItemKind.SYSTEM]
    return USE_RESULT if said and said[-1] is ItemKind.TOOL_RESULT else RESTART


async def pay(conversation: Conversation, session: Session, debt: Debt) -> None:
    """Ask a session that has taken over for everything that is owed.

    What fails is reported as an event and keeps the rest from nothing; a text stays owed then.
    """
    user = conversation.user

    async def tried(work: Awaitable[bool]) -> bool:
        try:
            return await work
        except Exception as error:
            if user.owner is session:
                conversation.responses.request_failed()
            conversation.report(session, error)
            return False

    await tried(_end_spoken_turns(conversation, session, debt))
    has_texts = any(owed in user.unanswered_texts for owed in session.unpaid or () if isinstance(owed, str))
    if not (has_texts or debt.complete_to is not None or user.is_speaking or user.owner is not session):
        # What is to be said was asked for behind it.
        if debt.unclaimed_tool:
            await tried(_ask(conversation, session, USE_RESULT, "tool"))
        elif debt.cut_note:
            await tried(_ask(conversation, session, debt.cut_note, "server"))
    while session.unpaid:
        if user.owner is not session or not session.is_ready:
            return  # Another one takes over, and the debt with the rest.
        await tried(_ask_for(conversation, session, session.unpaid.popleft()))
    session.unpaid = None


async def _end_spoken_turns(conversation: Conversation, session: Session, debt: Debt) -> bool:
    sender = session.sender
    assert sender is not None
    complete_to = debt.complete_to

    async def end() -> None:
        if conversation.user.owner is not session:
            return
        if complete_to is not None:
            conversation.user.close_utterance()  # This session was not to listen for the end.
            conversation.responses.input("audio", is_request=True, covers=complete_to)
            await session.call("end_turn", True)
        detection: TurnDetection = session.config["turn_detection"]
        if detection.kind not in ("client", "manual"):
            await session.configure({"turn_detection": detection})

    if debt.is_by_hand:
        await sender.send_up_to(end)
    elif complete_to is not None and not conversation.user.speaks_on:
        # The silence in which the turn ended may not have been the user's, or not have come yet.
        await sender.inject_silence(endpointing_silence_ms(session))
    return complete_to is not None


async def _ask_for(conversation: Conversation, session: Session, owed: str | Say) -> bool:
    """Ask for one of the debts, a text turn or what is to be said; False when it is none any more."""
    if isinstance(owed, str):
        text = conversation.user.unanswered_texts.get(owed)
        if text is None:
            return False
        conversation.responses.input("text", is_request=True, text_id=owed)
        await conversation.telling.text(session, owed, text)
        return True
    if not conversation.says.is_owed(owed):
        return False
    if not session.can("speak"):
        conversation.says.given(owed)
        message = f"{session.name} cannot speak a given text: what say() was asked for is not said."
        conversation.emit(EventType.WARNING, {"code": "not_said", "message": message}, session)
        return False
    conversation.says.request(owed)
    await session.call("speak", owed.text, True)
    return True


async def _ask(conversation: Conversation, session: Session, note: str, trigger: str) -> bool:
    if not session.can("text_turn"):
        return False
    conversation.responses.input(trigger, is_request=True, is_note=True)
    await session.call("send_text", note)
    return True
