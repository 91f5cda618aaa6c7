"""The one reader of the journal: moves accepted audio into a session, in order, once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import attrs

from voxengine.audio.format import AudioFormat
from voxengine.errors import NotConnected, VoxEngineError
from voxengine.journal import Journal
from voxengine.session import CLOSE_DEADLINE_S, READY, Session

if TYPE_CHECKING:
    from voxengine.audio.pcm import FormatConverter

__all__ = ["InputSender"]

_BACKLOG_S: Final = 0.5
"""Audio that may wait for a slow service before ``send_audio`` makes its caller wait too."""
_LEAST_SPEED: Final = 1.1
"""Slower, and a session never catches up with the user: then silence is left out."""
_KEEP_AROUND_S: Final = 0.3
"""Silence that is kept beside an utterance, at least: in what is kept the vendor finds the end of a turn."""
_SILENCE_MS: Final = 20
"""Length of one message of injected silence."""


@attrs.frozen
class _Piece:
    """What goes into one ``send_audio`` of the provider. It is made once and kept until it was taken."""

    data: bytes
    n_frames: int
    """Frames of the journal that it stands for; 0 for the resampler's tail and for silence."""
    is_silence: bool = False


@attrs.define
class _Pace:
    """How fast a vendor takes audio of the past: ``speed`` times real time."""

    speed: float
    rate: int
    start: int
    started_at: float | None = None

    @classmethod
    def of(cls, session: Session, journal: Journal, start: int) -> _Pace | None:
        """Return the pace of a session that has audio to catch up with; None: as fast as it goes."""
        speed = session.capabilities.replay_speed
        if speed is None or journal.end - start <= _BACKLOG_S * journal.format.sample_rate:
            return None
        return cls(speed, journal.format.sample_rate, start)

    def due_at(self, index: int, now: float) -> float:
        """Return when the audio at an index may go out."""
        if self.started_at is None:
            self.started_at = now
        return self.started_at + (index - self.start) / self.rate / self.speed


class InputSender:
    """Feeds one session from the journal.

    A chunk is written at once while the provider takes it without waiting; otherwise one task carries
    the backlog. What a provider refused stays and is tried again with the next chunk. Loop thread only.

    Args:
        session: Ready.
        journal: Where accepted audio is.
        start: Index of the first frame that this session is to hear.
        chunk_ms: Longest audio that goes into one ``send_audio``.
        group_ms: Shortest; more than ``chunk_ms`` means that chunks wait for each other.
    """

    __slots__ = (
        "_backlog_frames",
        "_boundary",
        "_closed",
        "_convert",
        "_failure",
        "_frame_bytes",
        "_gate",
        "_injections",
        "_is_failing",
        "_is_held",
        "_lock",
        "_max_frames",
        "_min_frames",
        "_pace",
        "_piece",
        "_progress",
        "_send",
        "_sent_frames",
        "_session",
        "_silence_due",
        "_tail_due",
        "_target",
        "_task",
        "_try_send",
        "base",
        "cursor",
        "injected_frames",
        "journal",
        "left_out_frames",
    )

    def __init__(
        self, session: Session, journal: Journal, *, start: int, chunk_ms: int, group_ms: int
    ) -> None:
        self.cursor = start
        """Index up to which the session has taken the audio."""
        self.base = start
        self.injected_frames = 0
        """Frames of silence that were not the user's, in the provider's format."""
        self.left_out_frames = 0
        """Frames of the user's silence that were not sent, because the vendor is too slow to catch up."""
        self._session = session
        self.journal = journal
        """Where the accepted audio is."""
        self._target = session.input_format
        self._frame_bytes = self._target.frame_bytes
        self._send = session.audio_call()
        self._try_send = session.provider.try_send_audio
        self._convert = None if journal.format == self._target else _converter(journal.format, self._target)
        rate = journal.format.sample_rate
        least = session.capabilities.min_chunk_ms or 0
        self._max_frames = max(chunk_ms, group_ms, least) * rate // 1000
        self._min_frames = max(max(group_ms if group_ms > chunk_ms else 0, least) * rate // 1000, 1)
        self._backlog_frames = int(_BACKLOG_S * rate)
        self._injections: list[tuple[int, int]] = []
        self._sent_frames = 0
        self._task: asyncio.Task[None] | None = None
        self._progress: asyncio.Future[None] | None = None
        self._lock = asyncio.Lock()
        """Held by whoever waits for a boundary."""
        self._boundary: int | None = None
        """Index up to which everything goes out, short groups and the resampler's tail included."""
        self._tail_due = False
        self._silence_due = 0
        self._piece: _Piece | None = None
        self._failure: VoxEngineError | None = None
        self._is_failing = False
        self._closed = False
        self._gate: int | None = None
        """Index behind which nothing goes out for now."""
        self._pace = _Pace.of(session, journal, start)
        self._is_held = self._pace is not None
        """Whether something keeps the audio from going out as it comes."""
        self._backlog_frames += journal.end - start  # Nobody has to wait for what another session did not do.

    # -- feeding ----------------------------------------------------------------------------------

    def kick(self) -> None:
        """Send what the journal has; never waits and never raises."""
        if self._task is not None or self._closed or not self._session.is_ready:
            return
        if self._convert is None and self._boundary is None and self._piece is None and not self._is_held:
            journal, least = self.journal, self._min_frames
            while journal.end - self.cursor >= least:
                chunk = self._read(self._max_frames)
                try:
                    if not self._try_send(chunk):
                        break
                except Exception as error:
                    self._failed(error)
                    break
                self._took(chunk, len(chunk) // self._frame_bytes)
            else:
                return
        self._start()

    def offer(self, data: bytes) -> bool:
        """Send what was put into the journal just now, and what waits before it; never waits and never raises.

        Returns:
            Whether nothing waits any more. False is no more than a hint.
        """
        n_frames = len(data) // self.journal.frame_bytes
        if (
            self._task is not None
            or self._is_held
            or self._convert is not None
            or self._boundary is not None
            or self._piece is not None
            or self._closed
            or not self._min_frames <= n_frames <= self._max_frames
            or self.cursor + n_frames != self.journal.end
            or self._session.state is not READY
        ):
            self.kick()
            return False
        try:
            is_sent = self._try_send(data)
        except Exception as error:
            self._failed(error)
            is_sent = False
        if not is_sent:
            self._start()
            return False
        self._is_failing = False
        self.cursor += n_frames
        self._sent_frames += n_frames
        if self._progress is not None:
            self._moved()
        return True

    def _start(self) -> None:
        """Let a task carry what waits."""
        if self._has_work() and self._session.is_ready:
            work = self._carry()
            self._task = asyncio.get_running_loop().create_task(work, name=f"{self._session.name} input")

    @property
    def is_behind(self) -> bool:
        """Whether more than half a second of audio waits for the service."""
        return self._task is not None and self.journal.end - self.cursor > self._backlog_frames

    @property
    def given(self) -> int:
        """Index up to which the provider was given the audio, what it is taking just now included."""
        return self.cursor + (self._piece.n_frames if self._piece is not None else 0)

    @property
    def is_closed(self) -> bool:
        """Whether another session has the input, or none."""
        return self._closed

    async def wait_for_room(self) -> None:
        """Wait until no more than half a second of audio waits for the service."""
        while self.is_behind and not self._closed:
            await self._next_progress()

    async def flush(self) -> None:
        """Send everything accepted so far, remainder of the group and tail of the resampler included.

        Raises:
            VoxEngineError: The provider did not take it; it stays accepted. A sender that is closed
                meanwhile just returns.
        """
        await self._open_gate()
        async with self._lock:
            await self._reach_boundary(0)

    async def inject_silence(self, ms: int) -> None:
        """Send silence that is not the user's, after everything accepted so far and before what follows.

        Raises:
            VoxEngineError: As in :meth:`flush`.
        """
        await self._open_gate()
        async with self._lock:
            await self._reach_boundary(
                ms // _SILENCE_MS * self._target.n_frames(self._target.n_bytes(_SILENCE_MS))
            )

    def hold_behind(self, index: int) -> None:
        """Send nothing behind an index until :meth:`send_up_to` was called and has ended."""
        self._gate, self._is_held = index, True

    async def send_up_to(self, then: Callable[[], Awaitable[None]]) -> None:
        """Send everything before the gate, do ``then``, and open it for what follows.

        Raises:
            VoxEngineError: As in :meth:`flush`, or from ``then``. The gate is open all the same.
        """
        async with self._lock:
            try:
                await self._reach_boundary(0)
                await then()
            finally:
                self._gate, self._is_held = None, self._pace is not None
                self._moved()
                self.kick()

    def stop(self) -> None:
        """Send no more; what was not taken stays in the journal."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
        self._moved()

    async def close(self) -> None:
        """Stop, and wait until the provider has let go of what it was given."""
        task = self._task
        self.stop()
        if task is not None and task is not asyncio.current_task():
            await asyncio.wait([task], timeout=CLOSE_DEADLINE_S)

    # -- positions --------------------------------------------------------------------------------

    def index_at(self, session_ms: int) -> int:
        """Return the journal index of a position in the session's own audio, in milliseconds."""
        frames = session_ms * self._target.sample_rate // 1000
        silence = 0
        for at, n_frames in self._injections:
            if at < frames:
                silence += min(n_frames, frames - at)
        own = max(frames - silence, 0)
        index = self.base + own * self.journal.format.sample_rate // self._target.sample_rate
        return min(index, self.cursor)

    # -- inside -----------------------------------------------------------------------------------

    def _has_work(self) -> bool:
        if self._piece is not None:
            return True
        if self._boundary is not None:
            if self.cursor < self._boundary or self._tail_due or self._silence_due > 0:
                return True
            self._boundary = None
        return self._open_end - self.cursor >= self._min_frames

    @property
    def _open_end(self) -> int:
        return self.journal.end if self._gate is None else min(self._gate, self.journal.end)

    async def _open_gate(self) -> None:
        while self._gate is not None and not self._closed:
            await self._next_progress()

    def _leave_out_silence(self) -> None:
        """Pass over silence in what waits, for a vendor that is too slow to catch up otherwise."""
        rate = self.journal.format.sample_rate
        least_s = (self._session.capabilities.endpointing_silence_ms or 0) / 2000 + _KEEP_AROUND_S / 3
        window, around = rate // 10, int(max(_KEEP_AROUND_S, least_s) * rate)
        while (
            self._open_end - self.cursor > rate
            and self.cursor - around >= self.journal.start
            and self.journal.is_quiet(self.cursor - around, self.cursor + window + around)
        ):
            self.cursor += window
            self.base += window
            self.left_out_frames += window
            if self._pace is not None:
                self._pace.start += window

    def _read(self, max_frames: int) -> bytes:
        if self.cursor < self.journal.start:  # It was let go of; the index stays true all the same.
            self.base += self.journal.start - self.cursor
            self.cursor = self.journal.start
        return self.journal.read(self.cursor, max_frames)

    async def _carry(self) -> None:
        try:
            while not self._closed and self._session.is_ready:
                piece = self._piece = self._piece or self._next_piece()
                if piece is None:
                    break
                if self._pace is not None:
                    await self._keep_pace(piece)
                if piece.data:
                    await self._send(piece.data)
                self._piece = None
                self._took(piece.data, piece.n_frames, piece.is_silence)
        except asyncio.CancelledError:
            if self._closed:
                raise
            self._failed(RuntimeError("it was cancelled inside the provider"))
        except Exception as error:
            self._failed(error)
        finally:
            self._task = None
            self._moved()

    def _next_piece(self) -> _Piece | None:
        """Return what goes next, None when nothing has to."""
        if not self._has_work():
            return None
        if self._pace is not None and self._pace.speed < _LEAST_SPEED:
            self._leave_out_silence()
        most = min(self._max_frames, self._open_end - self.cursor)
        if self._boundary is not None:
            most = min(most, self._boundary - self.cursor)
        elif most < self._min_frames:
            return None
        if most > 0:
            chunk = self._read(most)
            data = chunk if self._convert is None else self._convert.process(chunk)
            return _Piece(data, len(chunk) // self.journal.format.frame_bytes)
        if self._tail_due:
            self._tail_due = False
            return _Piece(self._convert.flush() if self._convert is not None else b"", 0)
        n_frames = self._target.n_frames(self._target.n_bytes(_SILENCE_MS))
        return _Piece(self._target.silence(n_frames), 0, is_silence=True)

    async def _keep_pace(self, piece: _Piece) -> None:
        """Wait as long as the vendor wants between pieces of the past; past the last of it, no longer."""
        pace = self._pace
        assert pace is not None
        if piece.n_frames and self.cursor + piece.n_frames >= self.journal.end:
            self._pace, self._is_held = None, self._gate is not None
            return
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(max(pace.due_at(self.cursor, now) - now, 0.0))

    def _took(self, data: bytes, n_frames: int, is_silence: bool = False) -> None:
        self._is_failing = False
        n_sent = len(data) // self._frame_bytes
        if is_silence:
            at, n_before = self._injections[-1] if self._injections else (0, 0)
            if at + n_before == self._sent_frames and self._injections:
                self._injections[-1] = (at, n_before + n_sent)
            else:
                self._injections.append((self._sent_frames, n_sent))
            self.injected_frames += n_sent
            self._silence_due -= n_sent
        self.cursor += n_frames
        self._sent_frames += n_sent
        if self._progress is not None:
            self._moved()

    def _failed(self, error: Exception) -> None:
        """Keep what failed, and say it once until it works again; who waits for a boundary is told instead."""
        failure = self._failure = self._session.failed("send_audio", error)
        if not self._is_failing:
            self._is_failing = True
            if not self._lock.locked():
                self._session.report(failure)

    async def _reach_boundary(self, n_silence: int) -> None:
        self._boundary = self._open_end
        self._tail_due = self._convert is not None
        self._silence_due = n_silence
        self._failure = None
        try:
            while not self._closed:
                self.kick()
                if self._is_reached:
                    return
                if self._task is None:
                    raise NotConnected(f"The session of {self._session.name} is over; the audio is kept.")
                await self._next_progress()
                self._raise_failure()
        finally:
            self._silence_due = 0

    @property
    def _is_reached(self) -> bool:
        return self._boundary is None

    def _raise_failure(self) -> None:
        if self._failure is not None and self._task is None:
            raise self._failure

    def _moved(self) -> None:
        progress, self._progress = self._progress, None
        if progress is not None and not progress.done():
            progress.set_result(None)

    async def _next_progress(self) -> None:
        if self._progress is None:
            self._progress = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._progress)


def _converter(from_format: AudioFormat, to_format: AudioFormat) -> FormatConverter:
    from voxengine.audio.pcm import FormatConverter

    return FormatConverter(from_format, to_format)
