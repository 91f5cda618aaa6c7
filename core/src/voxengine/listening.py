"""Microphone and loudspeaker of an engine: opened, fed, lost, found again, let go."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import attrs

from voxengine.audio.devices import DeviceLost, DeviceOutcome, DeviceReturned
from voxengine.audio.format import AudioFormat, Encoding
from voxengine.audio.playback import NullClock
from voxengine.audio.switching import SwitchableClock
from voxengine.config import TurnDetection, VoiceEngineConfig
from voxengine.conversation import Conversation
from voxengine.ears import Ears
from voxengine.errors import AudioDeviceError, CapabilityMissing, JournalFull, NotConnected, ProviderError
from voxengine.events import EventType
from voxengine.journal import first_channel
from voxengine.session import Session
from voxengine.threads import in_thread

if TYPE_CHECKING:
    from voxengine.audio.backends.base import StreamBackend
    from voxengine.audio.capture import Microphone
    from voxengine.audio.player import DevicePlaybackClock
    from voxengine.audio.processors import AudioProcessor, EchoReference

__all__ = ["Levels", "Listening", "SpeechGate"]

_SILENT_DB: Final = -100.0
_SETTLE_S: Final = 1.0
"""Rest after which the loudspeaker of an engine that no longer listens is let go."""
_LONGEST_REST_S: Final = 600.0
_TELL_S: Final = 1.0
"""How often audio that nobody takes is reported."""
_PRE_ROLL_MS: Final = 300
_SILENCE_MS: Final = 500
_HANGOVER_MS: Final = 300
"""What the gate lets through beyond the silence that ends a turn, so that whoever decides hears all of it."""
_DECISION_MS: Final = 500
"""Audio that is kept beyond the pre-roll: a start is noticed a little late."""


@attrs.frozen
class Levels:
    """How loud it is now, in dB relative to full scale; -100 for silence and where there is no device."""

    microphone_db: float = _SILENT_DB
    loudspeaker_db: float = _SILENT_DB


class SpeechGate:
    """Lets speech through, with what came just before it and the silence that ends a turn; holds the rest back.

    For turn detection by the client: what the room sounds like between two turns need not be sent.

    Args:
        audio_format: PCM16.
        detection: Detector, threshold, padding and silence.
        ears: Makes the detector.
    """

    def __init__(self, audio_format: AudioFormat, detection: TurnDetection, ears: Ears) -> None:
        from voxengine.audio.buffers import RingBuffer

        pre_roll_ms = _PRE_ROLL_MS if detection.prefix_padding_ms is None else detection.prefix_padding_ms
        silence_ms = (detection.silence_ms or _SILENCE_MS) + _HANGOVER_MS
        self.detection = detection
        self._format = audio_format
        self._segmenter = ears.segmenter(
            detection, audio_format.sample_rate, prefix_padding_ms=pre_roll_ms, silence_ms=silence_ms
        )
        self._held = RingBuffer(audio_format.n_bytes(pre_roll_ms + _DECISION_MS), overwrite=True)

    @property
    def is_open(self) -> bool:
        """Whether somebody speaks."""
        return self._segmenter.in_speech

    def process(self, data: bytes) -> bytes:
        """Take audio and return what is to be sent of it, and of what was held back."""
        was_open = self._segmenter.in_speech
        events = self._segmenter.push(first_channel(data, self._format.channels))
        if was_open:
            return data
        self._held.write(data)
        if not events:
            return b""
        held = self._held.read()
        n_wanted = (self._segmenter.n_pushed - events[0].padded_index) * self._format.frame_bytes
        return held[-n_wanted:]


class Listening:
    """The devices of one engine. Loop thread only.

    Args:
        conversation: Whose clock the loudspeaker becomes, and who tells the application.
        config: Returns the configuration in force.
        session: Returns the session in force.
        send: Takes audio of the microphone; the engine's ``send_audio``.
        end_turn: Ends the user's turn; the engine's.
        backend: Opens devices; None: PyAudio, when it is needed.
    """

    def __init__(
        self,
        conversation: Conversation,
        config: Callable[[], VoiceEngineConfig],
        session: Callable[[], Session | None],
        send: Callable[[bytes], Awaitable[None]],
        end_turn: Callable[[bool], Awaitable[None]],
        backend: StreamBackend | None,
    ) -> None:
        self._conversation = conversation
        self._config = config
        self._session = session
        self._send = send
        self._end_turn = end_turn
        self._given = backend
        self._backend = backend
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()
        self._microphone: Microphone | None = None
        self._pump: asyncio.Task[None] | None = None
        self._speaker: DevicePlaybackClock | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._reference: EchoReference | None = None
        self._began_at = 0
        """Journal index at which the microphone was opened."""
        self._is_closed = False
        self._n_refused = 0
        """Frames that were not taken and not reported yet."""
        self._told_at = float("-inf")

    @property
    def is_listening(self) -> bool:
        """Whether the microphone is read."""
        return self._microphone is not None

    @property
    def levels(self) -> Levels:
        """How loud it is now."""
        microphone, speaker = self._microphone, None if self._is_closed else self._speaker
        return Levels(
            microphone.meter.rms_db if microphone is not None else _SILENT_DB,
            speaker.level_db() if speaker is not None else _SILENT_DB,
        )

    # -- beginning and ending -----------------------------------------------------------------------

    async def start(self) -> None:
        """Open the devices and begin to listen; nothing happens when that is so already.

        Raises:
            AudioDeviceError: There is no microphone, or one of the devices that were named cannot be used.
            ConfigError: There is no such audio processor.
        """
        async with self._lock:
            if self._microphone is not None:
                return
            if self._leaving is not None:
                self._leaving.cancel()
                self._leaving = None
            backend = await self._open_backend()
            had_speaker = self._speaker is not None
            try:
                processors = await self._load_processors()
                await self._open_speaker(backend)
                await self._open_microphone(backend, processors)
                journal = self._conversation.user.journal
                self._began_at = journal.end if journal is not None else 0
            except BaseException:
                if not had_speaker:
                    self._drop_speaker()
                raise

    async def stop(self, *, respond: bool) -> None:
        """Close the microphone, send what it has heard, and end the turn that is open.

        The loudspeaker stays until the conversation has come to rest.
        """
        async with self._lock:
            microphone, pump = self._microphone, self._pump
            if microphone is None or pump is None:
                return
            microphone.close()
            await asyncio.wait([pump])
            await microphone.aclose()
        if not self._is_closed and self._has_turn():
            # A vendor that answers each turn hears no end of one without an answer.
            with contextlib.suppress(CapabilityMissing):
                await self._end_turn(respond)

    def _has_turn(self) -> bool:
        """Whether the user said something; where turns end by hand, any sound counts, however quiet."""
        user, session = self._conversation.user, self._session()
        journal = user.journal
        if journal is None or session is None or session.config["turn_detection"].kind != "manual":
            return user.has_open_turn
        recorded = journal.read(self._began_at, journal.end - min(self._began_at, journal.end))
        return recorded.count(0) < len(recorded)

    def silence(self) -> None:
        """Stop at once because the engine ends; :meth:`close` waits for the devices."""
        self._is_closed = True
        if self._leaving is not None:
            self._leaving.cancel()
        if self._pump is not None:
            self._pump.cancel()
        self._microphone_ended()
        if self._speaker is not None:
            self._speaker.close()

    async def close(self) -> None:
        """Wait, with patience and never for ever, until the devices are closed or have been given up."""
        held = [device for device in (self._closing_microphone, self._speaker) if device is not None]
        await asyncio.gather(*(device.aclose() for device in held))
        if self._backend is not None and self._backend is not self._given:
            await self._backend.close()

    _closing_microphone: Microphone | None = None

    async def wait_played(self) -> None:
        """Wait until the device has played what it was handed."""
        if self._speaker is not None:
            await self._speaker.wait_played()

    # -- opening --------------------------------------------------------------------------------------

    async def _open_backend(self) -> StreamBackend:
        if self._backend is None:
            self._backend = (await in_thread(_pyaudio_backend))()
        return self._backend

    async def _load_processors(self) -> list[AudioProcessor]:
        names = self._config().device_options.processors
        if not names:
            return []
        from voxengine.audio.processors import EchoReference, load_processor

        heard = self._heard_format
        if self._reference is None:
            self._reference = EchoReference(heard)
            self._reference.delay_ms = self._echo_delay_ms
        return [await in_thread(load_processor, name, heard) for name in names]

    @property
    def _heard_format(self) -> AudioFormat:
        """What the microphone gives: what the engine takes, before it is encoded."""
        journal = self._conversation.user.journal
        assert journal is not None
        return journal.format

    def _echo_delay_ms(self) -> int:
        """Estimate how long a block takes from the loudspeaker's callback to the microphone's."""
        speaker = self._speaker.stream if self._speaker is not None else None
        held_ms = speaker.n_unplayed() * 1000 // speaker.format.sample_rate if speaker is not None else 0
        return held_ms + self._config().device_options.block_ms

    async def _open_speaker(self, backend: StreamBackend) -> None:
        clock, config = self._conversation.clock, self._config()
        if self._speaker is not None or not isinstance(clock, SwitchableClock):
            return
        from voxengine.audio.player import DevicePlaybackClock

        options = config.device_options
        await in_thread(_load_numpy)  # In case the device takes another rate: not while audio waits.
        speaker = DevicePlaybackClock(
            self._conversation.output_format,
            clock,
            backend,
            device=config.output_device,
            block_ms=options.block_ms,
            prebuffer_ms=options.prebuffer_ms,
            gain_db=options.output_gain_db,
            flush=options.flush,
            reference=self._reference,
            report=self._report,
        )
        try:
            await speaker.open()
            self._check_open()
        except AudioDeviceError as error:
            speaker.close()
            if config.output_device is not None:
                raise
            message = f"{error} The agent is not heard; what it says is counted in real time."
            self._emit(EventType.WARNING, {"code": "no_loudspeaker", "message": message})
            return
        except BaseException:
            speaker.close()
            raise
        self._speaker = speaker
        clock.switch_to(speaker)
        self._tell_playback(clock)

    async def _open_microphone(self, backend: StreamBackend, processors: list[AudioProcessor]) -> None:
        from voxengine.audio.capture import Microphone

        options = self._config().device_options
        microphone = Microphone(
            backend,
            self._heard_format,
            device=self._config().input_device,
            block_ms=options.block_ms,
            gain_db=options.input_gain_db,
            on_loss=options.on_loss,
            processors=processors,
            reference=self._reference,
            report=self._report,
        )
        try:
            await microphone.open()
            self._check_open()
        except BaseException:
            microphone.close()
            raise
        self._microphone = microphone
        self._emit(EventType.AUDIO_INPUT_STARTED, self._told_of(microphone))
        self._pump = self._conversation.activity.start(self._listen(microphone), "microphone")

    def _check_open(self) -> None:
        if self._is_closed:
            raise NotConnected("start_listening(): the engine was disconnected meanwhile.")

    # -- the microphone -------------------------------------------------------------------------------

    async def _listen(self, microphone: Microphone) -> None:
        """Hand on what the microphone hears, until it ends."""
        from voxengine.audio.processors import HalfDuplexGuard

        guard = None
        if self._config().device_options.half_duplex:
            guard = HalfDuplexGuard(microphone.format, lambda: self._conversation.agent.is_audible)
        gate: SpeechGate | None = None
        n_failed = 0
        try:
            while data := await microphone.read():
                for failure in microphone.failed_processors[n_failed:]:
                    n_failed += 1
                    message = f"An audio processor is left out from now on: {failure}."
                    self._emit(EventType.WARNING, {"code": "processor_failed", "message": message})
                if guard is not None:
                    data = guard.process(data)
                gate, data = await self._gated(gate, microphone.format, data)
                if data:
                    await self._hand_over(data)
        finally:
            self._tell_refused(at_once=True)
            self._microphone_ended()
        if not self._lock.locked() and not self._is_closed and self._has_turn():
            await self._end_turn(True)  # A file or a pipe came to its end.

    async def _gated(
        self, gate: SpeechGate | None, audio_format: AudioFormat, data: bytes
    ) -> tuple[SpeechGate | None, bytes]:
        """Return what is to be sent of the data, and the gate that decided, if the client finds the turns."""
        session = self._session()
        detection: TurnDetection | None = session.config["turn_detection"] if session is not None else None
        if detection is None or detection.kind != "client":
            return None, data
        if gate is None or gate.detection != detection:
            gate = SpeechGate(audio_format, detection, self._conversation.user.ears)
        was_open = gate.is_open
        passed = gate.process(data)
        if was_open and not gate.is_open and self._conversation.user.is_speaking:
            # Steady noise can hide the end from an ear that hears only what passes the gate.
            await self._hand_over(passed)
            with contextlib.suppress(NotConnected, ProviderError):
                await self._end_turn(True)
            return gate, b""
        return gate, passed

    async def _hand_over(self, data: bytes) -> None:
        journal = self._conversation.user.journal
        assert journal is not None
        n_frames = len(data) // journal.frame_bytes
        if journal.accepts.encoding is not Encoding.PCM16:
            from voxengine.audio import g711

            data = g711.encode(data, journal.accepts.encoding)
        try:
            await self._send(data)
        except JournalFull:
            self._refused(n_frames, "unanswered audio fills the journal")
        except (NotConnected, ProviderError):
            self._refused(n_frames, "there is no session")
        except Exception as error:
            if not self._n_refused:
                self._conversation.report(None, error)
            self._refused(n_frames, "it could not be sent")
        else:
            self._tell_refused(at_once=True)

    def _refused(self, n_frames: int, why: str) -> None:
        self._n_refused += n_frames
        self._why_refused = why
        self._tell_refused(at_once=False)

    _why_refused = ""

    def _tell_refused(self, *, at_once: bool) -> None:
        now = self._loop.time()
        if self._n_refused and (at_once or now >= self._told_at + _TELL_S):
            n_samples, self._n_refused, self._told_at = self._n_refused, 0, now
            data = {"n_samples": n_samples, "reason": self._why_refused}
            self._emit(EventType.AUDIO_INPUT_DROPPED, data)

    def _microphone_ended(self) -> None:
        microphone, self._microphone = self._microphone, None
        if microphone is None:
            return
        microphone.close()
        self._closing_microphone = microphone
        self._emit(EventType.AUDIO_INPUT_STOPPED, self._told_of(microphone))
        if self._speaker is not None and not self._is_closed:
            work = self._leave_when_at_rest(self._speaker)
            self._leaving = self._conversation.activity.start(work, "loudspeaker")

    @staticmethod
    def _told_of(microphone: Microphone) -> dict[str, Any]:
        return {"device": microphone.device, "sample_rate": microphone.format.sample_rate}

    # -- the loudspeaker ------------------------------------------------------------------------------

    async def _leave_when_at_rest(self, speaker: DevicePlaybackClock) -> None:
        """Let go of the loudspeaker once everything was said; after ten minutes at the latest."""
        conversation = self._conversation
        deadline = self._loop.time() + _LONGEST_REST_S
        while self._loop.time() < deadline:
            left_s = deadline - self._loop.time()
            await conversation.activity.wait_while(lambda: not conversation.is_idle, left_s, _SETTLE_S)
            await speaker.wait_played()
            if conversation.is_idle:
                break
        self._drop_speaker()
        await speaker.aclose()

    def _drop_speaker(self) -> None:
        """Go on with the clock that plays to nobody."""
        speaker, self._speaker = self._speaker, None
        clock = self._conversation.clock
        if speaker is None or not isinstance(clock, SwitchableClock):
            return
        speaker.flush()
        clock.switch_to(NullClock(self._conversation.output_format, clock, self._loop))
        self._tell_playback(clock)

    def _tell_playback(self, clock: SwitchableClock) -> None:
        session = self._session()
        if session is not None:
            session.settings["playback"] = clock.name

    # -- what becomes of the devices --------------------------------------------------------------------

    def _report(self, outcome: DeviceOutcome) -> None:
        """Tell the application."""
        if isinstance(outcome, DeviceLost):
            is_final = outcome.reason == "failed"
            then = (
                "It is not tried again." if is_final else "The conversation goes on, and it is tried again."
            )
            error = AudioDeviceError(
                f"The {outcome.direction} device {outcome.device!r} {_LOST[outcome.reason]}. {then}",
                device=outcome.device,
            )
            data = {
                "error": error,
                "recoverable": not is_final,
                "direction": outcome.direction,
                "device": outcome.device,
                "reason": outcome.reason,
                "silent_ms": outcome.silent_ms,
            }
            self._emit(EventType.ERROR_AUDIO, data)
        elif isinstance(outcome, DeviceReturned):
            took = "is back" if outcome.is_same else "has taken its place"
            message = f"The {outcome.direction} device {outcome.device!r} {took} after {outcome.lost_ms / 1000:.1f} s."
            data = {
                "code": "device_returned",
                "message": message,
                "direction": outcome.direction,
                "device": outcome.device,
                "is_same": outcome.is_same,
                "lost_ms": outcome.lost_ms,
            }
            self._emit(EventType.WARNING, data)
        else:
            data = {"n_samples": outcome.n_frames, "reason": "the microphone was not read in time"}
            self._emit(EventType.AUDIO_INPUT_DROPPED, data)

    def _emit(self, event_type: EventType, data: dict[str, Any]) -> None:
        self._conversation.emit(event_type, data, self._session())


_LOST: Final = {
    "stopped": "stopped: it was unplugged, or its sound server ended",
    "silent": "does not answer: its driver or sound server hangs",
    "failed": "failed: it cannot be read or written any more",
}


def _pyaudio_backend() -> Callable[[], StreamBackend]:
    """Import PyAudio, which takes a while: in a thread."""
    from voxengine.audio.backends.pyaudio import PyAudioBackend

    PyAudioBackend()  # Imports it, or says what is missing.
    return PyAudioBackend


def _load_numpy() -> None:
    import numpy  # noqa: F401
