"""The short way of an answer's audio and words.

What begins an answer, or an item of it, goes through the whole of :class:`~voxengine.conversation.Conversation`,
which finds out whose it is and what it changes. What follows of the same item changes nothing but the item
itself, and there are dozens of such messages in a second. They go this way, which checks that nothing has
changed and otherwise leaves them to the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from voxengine.activity import Activity
from voxengine.agent_turns import AgentItem, AgentTurns
from voxengine.audio.format import Encoding
from voxengine.bus import EventBus
from voxengine.events import EventType, LazyAudio
from voxengine.history import History
from voxengine.metrics import Metrics
from voxengine.responses import Response, ResponseTracker
from voxengine.session import Session

__all__ = ["Lane", "LaneMaker"]

# Names of this module: Python 3.11 looks a member of an enum up four times as slowly.
_AUDIO: Final = EventType.AUDIO_OUTPUT_CHUNK
_TEXT: Final = EventType.TEXT_OUTPUT


class LaneMaker:
    """Opens lanes for one conversation."""

    def __init__(
        self,
        bus: EventBus,
        agent: AgentTurns,
        responses: ResponseTracker,
        history: History,
        metrics: Metrics,
        activity: Activity,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.bus = bus
        self.agent = agent
        self.responses = responses
        self.history = history
        self.metrics = metrics
        self.activity = activity
        self.now: Callable[[], float] = loop.time

    def open(self, session: Session, response: Response, item: AgentItem) -> None:
        """Let what follows of an item go the short way, where the provider tells its boundaries itself."""
        if response.is_inferred or not session.has_boundaries or response is not self.responses.current:
            return
        lane = session.lane
        if lane is None or lane.item is not item:
            session.lane = Lane(self, session, response, item)


class Lane:
    """What is open of one item. It holds until another response is current or the session's owner drops it."""

    __slots__ = (
        "_activity",
        "_channels",
        "_clock",
        "_epoch",
        "_frame_bytes",
        "_history",
        "_item_id",
        "_name",
        "_now",
        "_odd",
        "_post",
        "_rate",
        "_response_id",
        "_responses",
        "_takes_audio",
        "_turns",
        "_vendor_item",
        "_vendor_response",
        "item",
        "response",
    )

    def __init__(self, maker: LaneMaker, session: Session, response: Response, item: AgentItem) -> None:
        agent = maker.agent
        assert agent.clock is not None
        self.item, self.response = item, response
        self._item_id, self._vendor_item = item.id, item.vendor_id
        self._response_id, self._vendor_response = response.id, response.vendor_id
        self._responses, self._turns = maker.responses, maker.metrics.turns
        self._history, self._activity = maker.history, maker.activity
        self._clock, self._odd = agent.clock, agent.output.odd
        self._rate, self._channels = agent.output.format.sample_rate, agent.output.format.channels
        self._frame_bytes = agent.output.frame_bytes
        self._name, self._epoch = session.name, session.epoch
        self._takes_audio = (
            not agent.is_filtered
            and session.output_format == agent.output.format
            and agent.output.format.encoding is Encoding.PCM16  # A provider's chunks always are.
        )
        self._post, self._now = maker.bus.post, maker.now

    def take(self, event_type: EventType, data: dict[str, Any]) -> bool:
        """Take an event of the provider; False, and nothing happened, when it has to go the long way."""
        if (
            self.response is not self._responses.current
            or data.get("item_id") != self._vendor_item
            or data.get("response_id") != self._vendor_response
        ):
            return False
        if event_type is _AUDIO:
            return self._take_audio(data)
        return event_type is _TEXT and self._take_text(data)

    def _take_audio(self, data: dict[str, Any]) -> bool:
        audio = data.get("audio_data")
        if type(audio) is LazyAudio:
            n_bytes = audio.known_bytes
        elif type(audio) is bytes:
            n_bytes = len(audio)
        else:
            return False
        turns = self._turns
        if (
            not n_bytes
            or n_bytes % self._frame_bytes
            or not self._takes_audio
            or self._odd
            or data.get("sample_rate", self._rate) != self._rate
            or data.get("channels", self._channels) != self._channels
            or (turns and turns[-1].first_audio_ms is None)  # The first sound of an answer is measured.
            or not self.response.is_answer
        ):
            return False
        n_frames = n_bytes // self._frame_bytes
        self.item.received_ms += n_frames * 1000 / self._rate
        self._clock.write(self._item_id, n_frames, audio)
        data["sample_rate"], data["channels"] = self._rate, self._channels
        data["response_id"], data["item_id"] = self._response_id, self._item_id
        now = self._now()
        self._post((_AUDIO, data, now, self._name, self._epoch))
        self._activity.touch(now)
        return True

    def _take_text(self, data: dict[str, Any]) -> bool:
        item, turns = self.item, self._turns
        delta = data.get("delta")
        if (
            not item.text  # The first words of an item count as its answer.
            or type(delta) is not str
            or data.get("is_partial") is not True
            or (turns and turns[-1].first_text_ms is None)
            or not self.response.is_answer
        ):
            return False
        text = data.get("text")
        if text is None:
            text = item.text + delta
        elif type(text) is not str:
            return False
        item.text = data["text"] = text
        item.is_final = False
        if self._item_id in self._history:
            self._history.draft_agent_text(self._item_id, text)
        data["response_id"], data["item_id"] = self._response_id, self._item_id
        now = self._now()
        self._post((_TEXT, data, now, self._name, self._epoch))
        self._activity.touch(now)
        return True
