"""What the user's voice does to an answer that can be heard: cut it, pause it until that is sure, or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Literal

import attrs

from voxengine.agent_turns import AgentTurns
from voxengine.config import TurnDetection
from voxengine.history import Heard
from voxengine.journal import Journal, first_channel
from voxengine.metrics import Metrics
from voxengine.responses import Response, ResponseTracker
from voxengine.user_turns import UserTurns

if TYPE_CHECKING:
    from voxengine.audio.vad import VoiceDetector

__all__ = ["BargeIn", "Interruption"]

_CONFIRM_MS: Final = 400
"""Speech that is more than a cough."""
_RESUME_S: Final = 0.6
"""Quiet after which an answer goes on."""
_LOOK_S: Final = 0.05
_FLOOR_S: Final = 1.0
"""How much of what was before tells how loud the room is."""
_DOUBT_S: Final = 5.0
"""How long words may come for a sound that was taken for none."""


class Interruption:
    """What :meth:`VoiceEngine.interrupt` returns: the output is silent already.

    ``heard`` says what the user heard, None when nothing was playing. Awaiting it waits until the
    provider was told; that is not needed, and a failure is an ERROR event, never an exception here.
    """

    def __init__(self, heard: Heard | None, task: asyncio.Task[None] | None) -> None:
        self.heard = heard
        self._task = task

    def __await__(self) -> Any:
        return self._wait().__await__()

    async def _wait(self) -> Heard | None:
        if self._task is not None:
            await asyncio.wait([self._task])
        return self.heard


@attrs.define(eq=False)
class _Sound:
    """Something that was heard while an answer was audible, until it is known what it is."""

    response: Response | None
    """What was being received."""
    vad: VoiceDetector
    at: int
    """Journal index up to which it was looked at."""
    last_at: float
    """Loop time at which speech was heard last."""
    speech_ms: int = 0
    is_paused: bool = True


class BargeIn:
    """Decides about answers while the user makes himself heard. Loop thread only.

    Args:
        mode: As ``interruption`` of the configuration. ``confirm`` pauses the playback at the first sound. It cuts the
            answer once 0.4 s of speech were heard, words of it were recognised or the service answers it, and lets
            it go on after 0.6 s of quiet.
        user: Knows where the utterance began, holds the audio, and has the ears that tell speech from a cough.
        agent: Plays.
        responses: Knows what is being received.
        metrics: Counts answers that went on.
        is_audible: Whether an answer is being made or played.
        interrupt: Cuts it.
        give_way: Cuts it here alone, for another one that the service has begun.
    """

    def __init__(
        self,
        mode: Literal["immediate", "confirm", "off"],
        user: UserTurns,
        agent: AgentTurns,
        responses: ResponseTracker,
        metrics: Metrics,
        is_audible: Callable[[], bool],
        interrupt: Callable[[], Awaitable[None]],
        give_way: Callable[[], object],
    ) -> None:
        self._mode = mode
        self._user, self._agent, self._responses, self._metrics = user, agent, responses, metrics
        self._is_audible = is_audible
        self._interrupt = interrupt
        self._give_way = give_way
        self._loop = asyncio.get_running_loop()
        self._sound: _Sound | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._doubted: tuple[Response | None, float] | None = None
        """What was being received when a sound was taken for no speech, and until when that may prove wrong."""
        self._was_none = False
        """Whether the utterance that is under way, as far as it goes, is no speech."""

    # -- what happens -----------------------------------------------------------------------------

    def spoke(self) -> None:
        """Take note that the user begins to make himself heard."""
        if self._mode == "off" or not self._is_audible():
            return
        if self._mode == "immediate":
            self._interrupt()
        elif self._sound is None:
            self._doubt()

    def words(self, text: str) -> None:
        """Take note of words that were recognised: what was heard is speech."""
        if self._mode != "confirm" or not any(char.isalnum() for char in text):
            return
        held, self._doubted = self._doubted, None
        if self._sound is not None:
            self._cut()
        elif held is not None and self._loop.time() <= held[1] and self._is_audible():
            is_same = self._responses.current in (held[0], None) and not self._responses.awaiting
            if is_same:
                self._interrupt()

    async def turn_ended(self) -> None:
        """Take note that the application ends the turn: what was heard is speech, and the service is told before."""
        if self._sound is not None:
            await self._cut()

    def answered(self, trigger: object) -> None:
        """Take note that the service begins another answer; to what was said, the one before is over."""
        if self._sound is not None and trigger not in ("tool", "text", "say") and self._user.waits_for_answer:
            self._give_way()

    def utterance_ended(self) -> bool:
        """Return whether the utterance that ends, by the client's ear, was speech."""
        if self._sound is not None:
            self._look()  # What has come since the last look counts as well.
        if self._sound is not None and self._sound.is_paused:
            self._go_on(self._sound)
        was_none, self._was_none = self._was_none, False
        if was_none:
            self._forget()
        return not was_none

    def silenced(self) -> None:
        """Take note that the output was cut, whatever for."""
        self._was_none = False
        self._forget()

    def close(self) -> None:
        """Leave no timer behind."""
        self._forget()

    # -- doubt ------------------------------------------------------------------------------------

    def _doubt(self) -> None:
        clock, journal = self._agent.clock, self._user.journal
        assert clock is not None
        assert journal is not None
        clock.pause()
        begun = self._user.speech_start if self._user.is_speaking else None
        start = max(journal.end if begun is None else begun, journal.start)
        vad = self._user.ears.detector(self._detection(), journal.format.sample_rate)
        floor_from = max(start - int(_FLOOR_S * journal.format.sample_rate), journal.start)
        vad.push(first_channel(journal.read(floor_from, start - floor_from), journal.format.channels))
        self._sound = _Sound(self._responses.current, vad, start, self._loop.time())
        self._was_none = False
        self._timer = self._loop.call_later(_LOOK_S, self._tick)

    def _detection(self) -> TurnDetection:
        """Return what the session in force was told, where it names a detector; how loud speech is stays ours."""
        owner = self._user.owner
        detection: TurnDetection | None = owner.config["turn_detection"] if owner is not None else None
        return detection if detection is not None and detection.detector is not None else TurnDetection()

    def _tick(self) -> None:
        self._timer = None
        self._look()
        if self._sound is not None:
            self._timer = self._loop.call_later(_LOOK_S, self._tick)

    def _look(self) -> None:
        """Listen to what has come, and decide when it says enough."""
        sound, journal = self._sound, self._user.journal
        assert sound is not None
        assert journal is not None
        now = self._loop.time()
        if self._hear(sound, journal):
            sound.last_at = now
        if not self._is_audible():
            self._forget()
        elif sound.speech_ms >= _CONFIRM_MS:
            self._cut()
        elif now - sound.last_at >= _RESUME_S - 1e-6:
            if sound.is_paused:
                self._go_on(sound)
            if not self._user.is_speaking:
                self._forget()
        elif not sound.is_paused and sound.speech_ms > 0 and self._agent.clock is not None:
            sound.is_paused = True
            self._agent.clock.pause()

    @staticmethod
    def _hear(sound: _Sound, journal: Journal) -> bool:
        """Listen to what has come; return whether there was speech in it."""
        sound.at = max(sound.at, journal.start)
        data = journal.read(sound.at, journal.end - sound.at)
        sound.at = journal.end
        flags = sound.vad.push(first_channel(data, journal.format.channels))
        n_loud = sum(flags)
        sound.speech_ms += n_loud * sound.vad.frame_samples * 1000 // journal.format.sample_rate
        return n_loud > 0

    def _cut(self) -> Awaitable[None]:
        self._forget()
        self._was_none = False
        return self._interrupt()

    def _go_on(self, sound: _Sound) -> None:
        """Let the answer go on: that was nothing."""
        sound.is_paused, sound.speech_ms = False, 0
        self._was_none = True
        self._doubted = (sound.response, self._loop.time() + _DOUBT_S)
        self._metrics.resumptions += 1
        if self._agent.clock is not None:
            self._agent.clock.resume()

    def _forget(self) -> None:
        sound, self._sound = self._sound, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if sound is not None and sound.is_paused and self._agent.clock is not None:
            self._agent.clock.resume()
