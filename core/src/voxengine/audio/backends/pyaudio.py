"""Microphones and loudspeakers through PyAudio, the only module that imports it.

Two callback streams, one for each direction: a single one for both was fragile. PortAudio calls into a sound
server or driver, and any of these calls can hang for ever when that does; so each runs in a disposable
thread, and what does not come back in time is left to itself. The instance is then tainted: it is never shut
down, since that would wait for the same lock.

Facts about PyAudio 0.2.14 that this relies on: a callback must return exactly ``frame_count`` frames, else
the stream ends without a word; an exception in it is thrown into the main thread; a device that vanishes
just ceases to call, and a frozen one does so while ``is_active()`` stays True. ``stop_stream`` drains what is
queued; ``abort_stream``, which drops it, exists in the C module only.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, TypeVar

from voxengine.audio.backends.base import Feed, StreamStats
from voxengine.audio.backends.remarks import Remarks
from voxengine.audio.devices import DeviceInfo, Direction, choose_device, format_candidates
from voxengine.audio.disposable import Disposable
from voxengine.audio.format import AudioFormat
from voxengine.errors import AudioDeviceError

__all__ = ["PyAudioBackend", "PyAudioStream"]

T = TypeVar("T")

SWITCH_INTERVAL_S: Final = 0.0005
_OPEN_PATIENCE_S: Final = 3.0
_CLOSE_PATIENCE_S: Final = 1.0
_DISCARD_PATIENCE_S: Final = 0.05
_XRUN_FLAGS: Final = 0x2 | 0x4
"""Input overflow and output underflow. The other flags are priming, and what only full duplex has."""
_UNSUPPORTED: Final = {-9997, -9998}
"""PortAudio's codes for a rate and a number of channels that the device does not take."""

_calls = threading.Lock()
"""PortAudio is not thread-safe: initialise, open, close and terminate come one at a time."""
_CALLS_PATIENCE_S: Final = 2.0


@contextlib.contextmanager
def _one_call() -> Iterator[None]:
    """Wait for the calls of other threads, but not for ever: one of them may hang."""
    got = _calls.acquire(timeout=_CALLS_PATIENCE_S)
    try:
        yield
    finally:
        if got:
            _calls.release()


@functools.cache
def _silence_alsa() -> None:
    """Keep ALSA's remarks, such as on underruns, off standard error for as long as the process lives.

    They come from the stream's own threads at any time. What matters of them is in ``Stream.stats``.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        alsa = ctypes.CDLL("libasound.so.2")
        # A function of C that does nothing, whatever it is given: one of Python would want the interpreter's lock.
        nothing = ctypes.cast(ctypes.CDLL(None).getpid, ctypes.c_void_p)
        alsa.snd_lib_error_set_handler(nothing)


class _SwitchInterval:
    """The interpreter's switch interval, lowered while any stream is open. It belongs to the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_users = 0
        self._before = 0.0
        self._ours = 0.0

    def lower(self, interval_s: float) -> None:
        with self._lock:
            self._n_users += 1
            if self._n_users == 1:
                self._before = sys.getswitchinterval()
                sys.setswitchinterval(min(interval_s, self._before))
                self._ours = sys.getswitchinterval()

    def restore(self) -> None:
        with self._lock:
            self._n_users -= 1
            # Somebody who has set another one since means that.
            if self._n_users == 0 and sys.getswitchinterval() == self._ours:
                sys.setswitchinterval(self._before)


_switch_interval = _SwitchInterval()


class PyAudioStream:
    """One direction of a device. Made by :meth:`PyAudioBackend.open`."""

    is_watched = True

    def __init__(
        self,
        backend: PyAudioBackend,
        direction: Direction,
        device: DeviceInfo,
        audio_format: AudioFormat,
        block_frames: int,
    ) -> None:
        self.direction: Direction = direction
        self.device = device
        self.format = audio_format
        self.block_frames = block_frames
        self.stats = StreamStats()
        self.error: Exception | None = None
        self._backend = backend
        self._feed: Feed | None = None
        self._raw: Any = None
        self._closing: Disposable[None] | None = None
        self._discarding: Disposable[None] | None = None
        self._n_discards_failed = 0
        self._control = threading.Lock()
        """Start, abort and close of one stream come one at a time: PortAudio ends the process otherwise. Held
        in disposable threads alone."""
        self._dac_delay_s = 0.0
        """From the callback to the moment in which its block becomes audible, as the device says."""
        self.callback: Callable[..., tuple[bytes | None, int]] = (
            self._make_play() if direction == "output" else self._make_record()
        )

    # -- the device's thread ------------------------------------------------------------------------

    def _make_play(self) -> Callable[..., tuple[bytes | None, int]]:
        stats, frame_bytes, monotonic = self.stats, self.format.frame_bytes, time.monotonic

        def play(_: object, n_frames: int, times: dict[str, float], status: int) -> tuple[bytes, int]:
            try:
                stats.last_block_at = monotonic()
                stats.n_blocks += 1
                if status & _XRUN_FLAGS:
                    stats.n_xruns += 1
                self._dac_delay_s = times["output_buffer_dac_time"] - times["current_time"]
                feed = self._feed
                if feed is not None:
                    block = feed.pull(n_frames)
                    if len(block) == n_frames * frame_bytes:
                        return block, 0
            except BaseException:
                stats.n_errors += 1
            return bytes(n_frames * frame_bytes), 0

        return play

    def _make_record(self) -> Callable[..., tuple[None, int]]:
        stats, monotonic = self.stats, time.monotonic

        def record(data: bytes, _: int, __: object, status: int) -> tuple[None, int]:
            try:
                stats.last_block_at = monotonic()
                stats.n_blocks += 1
                if status & _XRUN_FLAGS:
                    stats.n_xruns += 1
                feed = self._feed
                if feed is not None:
                    feed.push(data)
            except BaseException:
                stats.n_errors += 1
            return None, 0

        return record

    # -- the loop -----------------------------------------------------------------------------------

    async def start(self, feed: Feed) -> None:
        """Begin.

        Raises:
            AudioDeviceError: The device refuses, or does not return in time.
        """
        self._feed = feed
        await self._backend.call(self._start, self.direction, self.device.name)

    def _start(self) -> None:
        with self._control:
            if self._closing is None:
                self._raw.start_stream()

    def is_active(self) -> bool:
        """What PortAudio says: False when the device is gone, but True when it hangs, or is about to go on."""
        going = self._discarding
        if going is not None and not going.is_done:
            return self._closing is None  # Aborted, and not started again yet.
        try:
            return self._closing is None and bool(self._raw.is_active())
        except (OSError, ValueError):
            return False

    def is_ended(self) -> bool:
        """Never: a device has no end."""
        return False

    def n_unplayed(self, at: float | None = None) -> int:
        """Estimate what the device holds: the last block, and what was in front of it, less the time since."""
        last_at = self.stats.last_block_at
        if self.direction == "input" or not last_at:
            return 0
        since_s = max(0.0, (time.monotonic() if at is None else at) - last_at)
        held_s = max(0.0, self._dac_delay_s) - since_s
        return max(0, self.block_frames + int(held_s * self.format.sample_rate) + 1)

    def discard(self, emptied: Callable[[], object] | None = None) -> bool:
        """Let PortAudio drop what is queued, by abort and start in a thread, with ``emptied`` between the two.

        After one that did not take effect within 50 ms this returns False, as when one is under way.
        """
        if self.direction == "input" or self._closing is not None:
            return False
        going = self._discarding
        if going is not None:
            if not going.is_done:
                return False
            with contextlib.suppress(Exception):
                going.result()
        if self._n_discards_failed:
            return False
        abort_stream, start_stream = self._backend.raw_calls()
        if abort_stream is None:
            return False
        raw = self._raw._stream

        def abort_and_start() -> None:
            began = time.monotonic()
            try:
                with self._control:
                    if self._closing is None:
                        abort_stream(raw)
                        if emptied is not None:
                            emptied()
                        start_stream(raw)
            except Exception:
                self._n_discards_failed += 1
                raise
            if time.monotonic() - began > _DISCARD_PATIENCE_S:
                self._n_discards_failed += 1

        self._discarding = Disposable(abort_and_start, "voxengine device flush")
        return True

    def wake(self) -> None:
        """A device needs no telling."""

    def detach(self) -> None:
        """Play silence, or let go of what is recorded, from the next block on."""
        self._feed = None

    async def close(self) -> None:
        """Close the stream, or give up on it after a second."""
        self.detach()
        closing = self.begin_close()
        try:
            await closing.wait(_CLOSE_PATIENCE_S)
        except TimeoutError:
            self._backend.taint(closing)
        except Exception as error:
            self.error = error

    @property
    def closing(self) -> Disposable[None] | None:
        """The call that closes it, once that has begun."""
        return self._closing

    def begin_close(self) -> Disposable[None]:
        """Start to close, without waiting for it."""
        if self._closing is None:
            self._feed = None
            self._closing = Disposable(self._close, "voxengine device close")
        return self._closing

    def _close(self) -> None:
        try:
            with self._control, _one_call():
                self._raw.close()
        finally:
            self._backend.closed(self)


class PyAudioBackend:
    """The system's devices.

    Args:
        switch_interval_s: The interpreter's switch interval while a stream is open, which keeps the audio
            threads fed while other threads compute; it holds for the whole process and is restored with the
            last stream. None leaves it alone.

    Raises:
        AudioDeviceError: PyAudio is not installed.

    Loop thread only; nothing here blocks. PortAudio is initialised at the first use.
    """

    name = "pyaudio"

    def __init__(self, *, switch_interval_s: float | None = SWITCH_INTERVAL_S) -> None:
        try:
            import pyaudio  # type: ignore[import-untyped,import-not-found,unused-ignore]
        except ImportError as error:
            raise AudioDeviceError(
                f"PyAudio cannot be imported: {error}. Try: pip install 'voxengine[audio]' "
                "(first, on Debian and Ubuntu: apt-get install portaudio19-dev gcc python3-dev; on macOS: brew install "
                "portaudio).",
                reason="not_installed",
            ) from error
        self._module: Any = pyaudio
        self._instance: Any = None
        self._streams: set[PyAudioStream] = set()
        self._stuck: list[Disposable[Any]] = []
        self._switch_interval_s = switch_interval_s

    # -- what there is ------------------------------------------------------------------------------

    async def devices(self) -> list[DeviceInfo]:
        """Return the devices that were there when PortAudio was initialised; see :meth:`refresh`."""
        return await self._call(self._list, "list of devices", None)

    async def refresh(self) -> None:
        """Initialise PortAudio anew, so that new devices are seen; not while a stream lives or a call hangs."""
        if self._streams or self.is_tainted or self._instance is None:
            return
        await self._call(self._terminate, "list of devices", None)

    @property
    def is_tainted(self) -> bool:
        """Whether a call into PortAudio has not come back yet."""
        self._stuck = [call for call in self._stuck if not call.is_done]
        return bool(self._stuck)

    def taint(self, call: Disposable[Any]) -> None:
        """Remember a call that hangs."""
        self._stuck.append(call)

    def closed(self, stream: PyAudioStream) -> None:
        """Forget a stream. From its closing thread."""
        if stream in self._streams:
            self._streams.discard(stream)
            if self._switch_interval_s is not None:
                _switch_interval.restore()

    def raw_calls(self) -> tuple[Callable[[Any], None] | None, Callable[[Any], None]]:
        """Return the C module's abort, None where it has none, and its start."""
        c_module = self._module.pa
        return getattr(c_module, "abort_stream", None), c_module.start_stream

    # -- opening and closing --------------------------------------------------------------------------

    async def open(
        self, direction: Direction, device: str | int | None, wanted: AudioFormat, block_ms: int
    ) -> PyAudioStream:
        """Open a device at the wanted format, else at the next best that it takes.

        Raises:
            AudioDeviceError: No such device, it takes no format that we know or cannot be opened now, or an
                earlier call to the system still hangs.
        """
        if self.is_tainted:
            raise AudioDeviceError(
                f"The {direction} device cannot be opened: an earlier call to the sound system has not "
                "returned. It will be possible once that does.",
                reason="stuck",
                device=device,
            )
        opened = partial(self._open, direction, device, wanted, block_ms)
        return await self._call(opened, f"{direction} device", device, self._close_late)

    async def call(self, function: Callable[[], T], direction: Direction, device: str) -> T:
        """Make a call about an open stream in a disposable thread."""
        return await self._call(function, f"{direction} device", device)

    async def close(self) -> None:
        """Close every stream and PortAudio, with patience. A stream that was given up is not waited for again."""
        for stream in list(self._streams):
            if stream.closing not in self._stuck:
                await stream.close()
        if self._instance is not None and not self.is_tainted and not self._streams:
            with contextlib.suppress(AudioDeviceError):
                await self._call(self._terminate, "sound system", None)

    async def _call(
        self,
        function: Callable[[], T],
        what: str,
        device: str | int | None,
        discard: Callable[[T], None] | None = None,
    ) -> T:
        def guarded() -> T:
            with _one_call(), Remarks():
                _silence_alsa()
                return function()

        made = Disposable(guarded, "voxengine device call")
        try:
            return await made.wait(_OPEN_PATIENCE_S)
        except TimeoutError:
            self.taint(made)
            if discard is not None:
                made.on_done(partial(self._discard_late, made, discard))
            raise AudioDeviceError(
                f"The {what} did not answer within {_OPEN_PATIENCE_S:g} s. Its driver or sound server hangs.",
                reason="timeout",
                device=device,
            ) from None
        except OSError as error:
            raise AudioDeviceError(f"The {what} cannot be used: {_words(error)}.", device=device) from error

    @staticmethod
    def _discard_late(made: Disposable[T], discard: Callable[[T], None]) -> None:
        with contextlib.suppress(Exception):
            discard(made.result())

    @staticmethod
    def _close_late(stream: PyAudioStream) -> None:
        stream.begin_close()

    # -- in disposable threads ------------------------------------------------------------------------

    def _portaudio(self) -> Any:
        if self._instance is None:
            # Asking for devices must not start a sound server that nobody wanted.
            before = os.environ.get("JACK_NO_START_SERVER")
            os.environ["JACK_NO_START_SERVER"] = "1"
            try:
                self._instance = self._module.PyAudio()
            finally:
                if before is None:
                    del os.environ["JACK_NO_START_SERVER"]
                else:
                    os.environ["JACK_NO_START_SERVER"] = before
        return self._instance

    def _terminate(self) -> None:
        instance, self._instance = self._instance, None
        if instance is not None:
            instance.terminate()

    def _list(self) -> list[DeviceInfo]:
        portaudio = self._portaudio()
        apis = [
            portaudio.get_host_api_info_by_index(n)["name"] for n in range(portaudio.get_host_api_count())
        ]
        defaults = {
            "input": _index(portaudio.get_default_input_device_info),
            "output": _index(portaudio.get_default_output_device_info),
        }
        found = []
        for index in range(portaudio.get_device_count()):
            info = portaudio.get_device_info_by_index(index)
            found.append(
                DeviceInfo(
                    index=index,
                    name=str(info["name"]),
                    host_api=apis[info["hostApi"]],
                    max_input_channels=int(info["maxInputChannels"]),
                    max_output_channels=int(info["maxOutputChannels"]),
                    default_sample_rate=int(info["defaultSampleRate"]),
                    is_default_input=index == defaults["input"],
                    is_default_output=index == defaults["output"],
                )
            )
        return found

    def _open(
        self, direction: Direction, device: str | int | None, wanted: AudioFormat, block_ms: int
    ) -> PyAudioStream:
        info = choose_device(self._list(), device, direction)
        refused: OSError | None = None
        for audio_format in format_candidates(info, wanted, direction):
            try:
                return self._open_as(direction, info, audio_format, block_ms)
            except OSError as error:
                if _code(error) not in _UNSUPPORTED:
                    raise
                refused = error
        raise AudioDeviceError(
            f"The {direction} device {info.name!r} takes {wanted.describe()} in no form that we know"
            f"{f' ({_words(refused)})' if refused else ''}. Choose another device.",
            reason="unsupported",
            device=device,
        )

    def _open_as(
        self, direction: Direction, info: DeviceInfo, audio_format: AudioFormat, block_ms: int
    ) -> PyAudioStream:
        block_frames = audio_format.sample_rate * block_ms // 1000
        stream = PyAudioStream(self, direction, info, audio_format, block_frames)
        is_input = direction == "input"
        stream._raw = self._portaudio().open(
            rate=audio_format.sample_rate,
            channels=audio_format.channels,
            format=self._module.paInt16,
            input=is_input,
            output=not is_input,
            input_device_index=info.index if is_input else None,
            output_device_index=None if is_input else info.index,
            frames_per_buffer=block_frames,
            start=False,
            stream_callback=stream.callback,
        )
        self._streams.add(stream)
        if self._switch_interval_s is not None:
            _switch_interval.lower(self._switch_interval_s)
        return stream


def _index(default: Callable[[], dict[str, Any]]) -> int:
    try:
        return int(default()["index"])
    except OSError:
        return -1


def _code(error: OSError) -> int:
    """PortAudio's code: PyAudio raises OSError with it and its text in either order."""
    return next((value for value in error.args if isinstance(value, int)), 0)


def _words(error: OSError) -> str:
    texts = [value for value in error.args if isinstance(value, str)]
    return f"{texts[0] if texts else 'unknown error'} ({_code(error)})"
