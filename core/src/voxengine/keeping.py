"""What an engine keeps of a conversation: snapshots, and recordings."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import attrs

from voxengine.config import VoiceEngineConfig
from voxengine.continuity import Move
from voxengine.errors import ConfigError, UsageError
from voxengine.history import History
from voxengine.lifecycle import EngineState, Lifecycle
from voxengine.providers.registry import ProviderRegistry, default_registry
from voxengine.session import Session

if TYPE_CHECKING:
    from voxengine.audio.backends.base import StreamBackend
    from voxengine.recording import Recording
    from voxengine.snapshot import Kept

__all__ = ["Keeping"]


class Keeping(Lifecycle):
    """The part of :class:`~voxengine.engine.VoiceEngine` that outlives its process."""

    _kept: Kept | None = None
    """Where the conversation is to go on; None once it does, or when it begins here."""
    _recording: Recording | None = None
    _audio: StreamBackend | None = None

    # -- snapshots --------------------------------------------------------------------------------

    def snapshot(self, *, audio_file: str | os.PathLike[str] | None = None) -> dict[str, Any]:
        """Return the conversation as it stands, as plain JSON values without any secret. Nothing is changed.

        What the agent says at this moment counts as cut at what was heard of it. A tool call that has no result yet
        is not made again by whoever resumes; the agent is told that its result is not known.

        Args:
            audio_file: A WAV file for the user's audio that waits for an answer, which the snapshot then names; None:
                the audio is part of the value, in base64.

        Raises:
            ConfigError: The file cannot be written.
            WrongThread: The engine runs in another thread.
        """
        from voxengine.snapshot import Kept, turn_state, write_snapshot

        self._check_thread("snapshot")
        n_ids = next(self._counter)
        self._counter = itertools.count(n_ids)
        history = self.history
        if self._kept is not None:
            kept = attrs.evolve(self._kept, config=self._config, n_ids=n_ids)
        elif self._conversation_ is None:
            kept = Kept(config=self._config, n_ids=n_ids)
        else:
            state, history = turn_state(self._conversation_, history)
            kept = Kept(
                config=self._config,
                n_ids=n_ids,
                epoch=self._continuity.epoch,
                sessions=tuple(self._sessions_so_far()),
                **state,
            )
        return write_snapshot(kept, history, audio_file)

    @classmethod
    def resume(
        cls,
        snapshot: object,
        config: VoiceEngineConfig | None = None,
        *,
        taps: Sequence[object] = (),
        registry: ProviderRegistry = default_registry,
        audio: StreamBackend | None = None,
    ) -> Self:
        """Return an engine that goes on with a conversation, here or in another process; then ``connect`` it.

        ``connect`` opens a session, tells it the history, gives it the audio that waits for an answer and asks for what
        is owed. The conversation may go on with another provider.

        Args:
            snapshot: What :meth:`snapshot` returned, also after a way through JSON.
            config: The configuration; None: that of the snapshot, with the key from the provider's own environment
                variables. Tools are given here or registered before ``connect``.
            taps: As for the class.
            registry: As for the class.
            audio: As for the class.

        Raises:
            ConfigError: It is no snapshot, of another version, or damaged.
        """
        from voxengine.snapshot import read_snapshot

        kept, items = read_snapshot(snapshot)
        engine = cls(config or kept.config, taps=taps, registry=registry)
        engine._audio = audio
        for name in ("input_format", "output_format"):
            fixed, asked = getattr(kept, name), getattr(engine._config, name)
            if fixed is not None and asked not in (None, fixed):
                raise ConfigError(
                    f"resume(): {name} is {asked.describe()} in the configuration and was fixed at {fixed.describe()} by "
                    "the conversation. Leave it out."
                )
        history = History.load(items, new_id=engine._new_id, keep_audio_s=engine._config.keep_audio_s)
        history.guard = engine._check_part
        engine.history, engine._kept = history, kept
        engine._counter = itertools.count(kept.n_ids)
        return engine

    def _sessions_so_far(self) -> list[dict[str, Any]]:
        usage = self._conversation.usage
        found = [attrs.asdict(held) for held in self.metrics.sessions]
        for held in found:
            held["usage"] = usage.get(held["epoch"], held["usage"])
            if self._session is not None and held["epoch"] == self._session.epoch and self._session.is_ready:
                held["duration_s"] = self._session.age_s
        return found

    def _begin(self) -> None:
        is_new = self._conversation_ is None
        super()._begin()
        if is_new and self._kept is not None:
            from voxengine.snapshot import restore

            restore(self._kept, self._conversation, self.history, self.metrics)
            self._continuity.epoch = self._kept.epoch

    async def _first_session(self, config: VoiceEngineConfig) -> None:
        kept = self._kept
        if kept is None:
            await super()._first_session(config)
            return
        move = Move(
            from_provider=kept.provider,
            reason="resume",
            adopt=lambda session: self._go_on(session, config),
            degrade=True,
            cut_reply=config.reconnect.cut_reply,
        )
        await self._continuity.take_over(None, config, move)
        if self._session is not None:
            self._session.take_early_output()

    def _go_on(self, session: Session, config: VoiceEngineConfig) -> None:
        self._kept, self._config = None, config
        self._adopt(session)
        self._tell_established(session)

    # -- recordings -------------------------------------------------------------------------------

    def record(
        self,
        path: str | os.PathLike[str],
        *,
        audio: bool = True,
        transcripts: bool = True,
        wire: bool = True,
    ) -> Recording:
        """Record the whole conversation in a file that can be inspected and run again; before ``connect``.

        The file holds everything that came from outside, with its time, and no secret. It is written by a thread:
        the conversation never waits for the disk, and a crash of the process loses less than the last second. See
        :mod:`voxengine.recording`.

        Args:
            path: The file; one that is there is replaced.
            audio: Keep what was said as audio; else its durations alone.
            transcripts: Keep words; else each letter and digit becomes an ``x``.
            wire: Keep the provider's messages where its transport shows them; they hold audio and words and are only
                kept together with both.

        Raises:
            ConfigError: ``path`` is no path, or the file cannot be written.
            UsageError: The engine is connected, or is being recorded.
        """
        from voxengine.recording import begin_recording

        self._check_thread("record")
        if self._state is not EngineState.NEW or self._recording is not None:
            what = "is being recorded already" if self._recording is not None else f"is {self._state} already"
            raise UsageError(
                f"record(): this engine {what}. A recording begins with the conversation: call record() once, before "
                "connect(). snapshot() keeps what has been said so far."
            )
        self._recording = begin_recording(self, path, audio=audio, transcripts=transcripts, wire=wire)
        return self._recording
