"""The one reader of the journal: moves accepted audio into a session, in order, once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from voxengine.audio.format import AudioFormat
from voxengine.journal import Journal
from voxengine.session import Session

if TYPE_CHECKING:
    from voxengine.audio.pcm import FormatConverter

__all__ = ["InputSender"]

_BACKLOG_S: Final = 0.5
"""Audio that may wait for a slow service before ``send_audio`` makes its caller wait too."""


class InputSender:
    """Feeds one session from the journal.

    A chunk is written at once while the provider takes it without waiting; otherwise one task carries
    the backlog. Loop thread only.

    Args:
        session: Ready.
        journal: Where accepted audio is.
        start: Index of the first frame that this session is to hear.
        chunk_ms: Longest audio that goes into one ``send_audio``.
        group_ms: Shortest; more than ``chunk_ms`` means that chunks wait for each other.
    """

    def __init__(
        self, session: Session, journal: Journal, *, start: int, chunk_ms: int, group_ms: int
    ) -> None:
        self.cursor = start
        """Index up to which the session has taken the audio."""
        self.base = start
        self.injected_frames = 0
        """Frames of silence that were not the user's, in the provider's format."""
        self._session = session
        self._journal = journal
        self._target = session.input_format
        self._send = session.audio_call()
        self._try_send = session.provider.try_send_audio
        self._convert = None if journal.format == self._target else _converter(journal.format, self._target)
        rate = journal.format.sample_rate
        least = session.capabilities.min_chunk_ms or 0
        self._max_frames = max(chunk_ms, group_ms, least) * rate // 1000
        self._min_frames = max(group_ms if group_ms > chunk_ms else 0, least) * rate // 1000
        self._backlog_frames = int(_BACKLOG_S * rate)
        self._injections: list[tuple[int, int]] = []
        self._sent_frames = 0
        self._task: asyncio.Task[None] | None = None
        self._progress: asyncio.Future[None] | None = None
        self._flush = False
        self._closed = False
        self._converted: tuple[bytes, bytes] | None = None
        """A chunk and its converted form that the provider refused; it is tried again, not converted again."""
        self._is_failing = False

    # -- feeding ----------------------------------------------------------------------------------

    def kick(self) -> None:
        """Send what the journal has; never waits."""
        if self._task is not None or self._closed:
            return
        while self._convert is None and self._ready():
            chunk = self._journal.read(self.cursor, self._max_frames)
            if not self._try_send(chunk):
                break
            self._took(chunk, len(chunk))
        if self._ready():
            work = self._carry()
            self._task = asyncio.get_running_loop().create_task(work, name=f"{self._session.name} input")

    @property
    def is_behind(self) -> bool:
        """Whether more than half a second of audio waits for the service."""
        return self._task is not None and self._journal.end - self.cursor > self._backlog_frames

    async def wait_for_room(self) -> None:
        """Wait until no more than half a second of audio waits for the service."""
        while self.is_behind and not self._closed:
            await self._next_progress()

    async def flush(self) -> None:
        """Send everything that was accepted, remainder of the group and tail of the resampler included."""
        self._flush = True
        try:
            self.kick()
            while not self._closed and self._task is not None:
                await self._next_progress()
            if self._convert is not None and not self._closed:
                tail = self._convert.flush()
                if tail:
                    await self._deliver(tail)
        finally:
            self._flush = False

    async def inject_silence(self, ms: int) -> None:
        """Send silence that is not the user's, after everything that was accepted."""
        await self.flush()
        chunk = bytes(self._target.n_bytes(20))
        n_frames = self._target.n_frames(len(chunk))
        self._injections.append((self._sent_frames, ms // 20 * n_frames))
        for _ in range(ms // 20):
            if self._closed:
                return
            self.injected_frames += n_frames
            await self._deliver(chunk)

    async def close(self) -> None:
        """Stop; what was not sent stays in the journal."""
        self._closed = True
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.wait([task])
        self._moved()

    # -- positions --------------------------------------------------------------------------------

    def index_at(self, session_ms: int) -> int:
        """Return the journal index of a position in the session's own audio, in milliseconds."""
        frames = session_ms * self._target.sample_rate // 1000
        silence = 0
        for at, n_frames in self._injections:
            if at < frames:
                silence += min(n_frames, frames - at)
        own = max(frames - silence, 0)
        return self.base + own * self._journal.format.sample_rate // self._target.sample_rate

    # -- inside -----------------------------------------------------------------------------------

    def _ready(self) -> bool:
        waiting = self._journal.end - self.cursor
        return waiting > 0 and (self._flush or waiting >= self._min_frames)

    async def _carry(self) -> None:
        try:
            while self._ready() and not self._closed:
                chunk, out = self._next_chunk()
                if out:
                    await self._send(out)
                self._converted = None
                self._is_failing = False
                self._took(chunk, len(out))
        except Exception as error:
            failure = self._session.failed("send_audio", error)
            if not self._is_failing:
                self._is_failing = True  # Said once until it works again; the chunk stays in the journal.
                self._session.report(failure)
        finally:
            self._task = None
            self._moved()

    def _next_chunk(self) -> tuple[bytes, bytes]:
        if self._converted is None:
            chunk = self._journal.read(self.cursor, self._max_frames)
            self._converted = (chunk, chunk if self._convert is None else self._convert.process(chunk))
        return self._converted

    async def _deliver(self, data: bytes) -> None:
        try:
            await self._send(data)
        except Exception as error:
            raise self._session.failed("send_audio", error) from error
        self._sent_frames += len(data) // self._target.frame_bytes

    def _took(self, chunk: bytes, n_sent: int) -> None:
        self.cursor += len(chunk) // self._journal.format.frame_bytes
        self._sent_frames += n_sent // self._target.frame_bytes
        if self._progress is not None:
            self._moved()

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
