"""From events to lines on the screen and in the transcript, and the summary at the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs

from voxengine.cli.records import AnswerRecorder, TranscriptFile
from voxengine.cli.terminal import Screen
from voxengine.errors import ProviderError, VoxEngineError
from voxengine.events import Event, EventType

if TYPE_CHECKING:
    from voxengine.engine import VoiceEngine
    from voxengine.metrics import Metrics

__all__ = ["Report", "summarize"]

USER: Final = ("you", "green")
AGENT: Final = ("agent", "cyan")
PLAYING: Final = ("speaking", "…", "cyan")
_LONG: Final = 300


@attrs.define
class _Said:
    """What the agent said so far in one item, while it is not final."""

    response_id: str
    text: str = ""


class Report:
    """Shows events, writes the transcript, keeps the audio. Called in the order of the events.

    Args:
        engine: Whose events they are.
        screen: Where to show them.
        transcript: Where to write what was said.
        started: The loop's time that counts as zero.
        plays_at_once: Whether received audio counts as played; the engine's playback is then ``external``.
    """

    def __init__(
        self,
        engine: VoiceEngine,
        screen: Screen,
        transcript: TranscriptFile,
        started: float,
        *,
        plays_at_once: bool,
    ) -> None:
        self.busy_until = started
        """Until when something came, or what came is being played: on the loop's clock."""
        self.sign = asyncio.Event()
        """Set by an output, a final transcript or a failure since :meth:`begin_turn`."""
        self.n_turns = 0
        """What the user said, in speech and in text."""
        self.answer = asyncio.Event()
        """Set by an output or a failure alone."""
        self.is_answered = False
        """Whether a response was complete since :meth:`begin_turn`."""
        self.trouble: VoxEngineError | None = None
        """The latest error since :meth:`begin_turn` that was reported as recoverable; perhaps the answer comes all
        the same."""
        self.recorder: AnswerRecorder | None = None
        """Set when the output format is known."""
        self.failure: VoxEngineError | None = None
        """The first error that was reported as not recoverable; the conversation ends with it."""
        self._engine = engine
        self._screen = screen
        self._transcript = transcript
        self._started = started
        self._plays_at_once = plays_at_once
        self._is_reconnecting = False
        self._refusals: set[str] = set()
        self._said: dict[str, _Said] = {}
        self._with_output: set[str | None] = set()
        self._handlers: dict[EventType, Callable[[Event], None]] = {
            EventType.SPEECH_STARTED: lambda _: screen.partial(USER[0], "…", USER[1]),
            EventType.SPEECH_ENDED: self._speech_ended,
            EventType.INPUT_TRANSCRIPT: self._input_transcript,
            EventType.TEXT_OUTPUT: self._text_output,
            EventType.RESPONSE_COMPLETED: self._response_ended,
            EventType.RESPONSE_CANCELLED: self._response_ended,
            EventType.AUDIO_INPUT_STARTED: self._input_started,
            EventType.AUDIO_INPUT_DROPPED: self._input_dropped,
            EventType.AUDIO_OUTPUT_STARTED: self._audio_started,
            EventType.AUDIO_OUTPUT_CHUNK: self._audio_chunk,
            EventType.AUDIO_OUTPUT_STOPPED: self._audio_stopped,
            EventType.INTERRUPTED: self._interrupted,
            EventType.FUNCTION_CALL_INVOKED: self._call_invoked,
            EventType.FUNCTION_CALL_COMPLETED: self._call_completed,
            EventType.FUNCTION_CALL_FAILED: self._call_failed,
            EventType.PROVIDER_SWITCHED: self._switched,
            EventType.SESSION_EXPIRING: self._expiring,
            EventType.WARNING: self._warning,
            EventType.CONNECTION_LOST: self._lost,
            EventType.CONNECTION_FAILED: self._not_opened,
            EventType.ERROR_GENERAL: self._error,
            EventType.ERROR_AUDIO: self._error,
            EventType.ERROR_NETWORK: self._error,
        }

    def handle(self, event: Event) -> None:
        """Take one event."""
        self.busy_until = max(self.busy_until, event.timestamp)
        handler = self._handlers.get(event.type)
        if handler is not None:
            handler(event)

    def begin_turn(self) -> None:
        """Note that the user's next turn begins."""
        self.sign.clear()
        self.answer.clear()
        self.is_answered, self.trouble = False, None

    def text_turn(self, now: float, text: str, *, show: bool) -> None:
        """Note a user turn that was sent as text. It is in the history already."""
        self.n_turns += 1
        item = next((item for item in reversed(self._engine.history.items) if item.text == text), None)
        self._add(now, "user", role="user", text=text, item_id=item.id if item is not None else None)
        if show:
            self._screen.line(USER[0], text, USER[1])

    def finish(self, now: float) -> None:
        """Write what never became final, and take away what is not."""
        for item_id in list(self._said):
            self._agent_line(now, item_id, is_complete=False)
        self._screen.close()

    # -- speech -----------------------------------------------------------------------------------

    def _speech_ended(self, _: Event) -> None:
        self._screen.partial(USER[0], "")

    def _input_transcript(self, event: Event) -> None:
        text = event.text or ""
        if event.is_partial:
            self._screen.partial(USER[0], text, USER[1])
            return
        self._screen.partial(USER[0], "")
        if text:
            self.n_turns += 1
            self.sign.set()
            self._screen.line(USER[0], text, USER[1])
            self._add(event.timestamp, "user", role="user", text=text, item_id=event.item_id)

    def _text_output(self, event: Event) -> None:
        session, history, item_id = self._engine.session, self._engine.history, event.item_id or ""
        is_spoken = item_id in history and history.get(item_id).role == "agent"
        if session is not None and not session.can("dialogue") and not is_spoken:
            self._input_transcript(event)  # A recogniser's text is what the user said.
            return
        self._signed()
        self._with_output.add(event.response_id)
        text = event.text or ""
        said = self._said.setdefault(item_id, _Said(event.response_id or ""))
        said.text = text
        if event.is_partial:
            self._screen.partial(AGENT[0], text, AGENT[1])
        else:
            self._agent_line(event.timestamp, item_id, is_complete=True)

    def _response_ended(self, event: Event) -> None:
        is_complete = event.type is EventType.RESPONSE_COMPLETED and event.status != "incomplete"
        self.is_answered = self.is_answered or is_complete
        for item_id, said in list(self._said.items()):
            if said.response_id == event.response_id:
                self._agent_line(event.timestamp, item_id, is_complete=is_complete)
        if is_complete and event.response_id not in self._with_output:
            self._screen.line(AGENT[0], "(said nothing)", "dim")
        self._with_output.discard(event.response_id)

    def _agent_line(self, at: float, item_id: str, *, is_complete: bool) -> None:
        said = self._said.pop(item_id)
        self._screen.partial(AGENT[0], "")
        if not said.text:
            return
        self._screen.line(AGENT[0], said.text if is_complete else f"{said.text} …", AGENT[1])
        self._add(
            at,
            "agent",
            role="agent",
            text=said.text,
            item_id=item_id or None,
            response_id=said.response_id or None,
            is_complete=is_complete,
        )

    def _interrupted(self, event: Event) -> None:
        heard = " ".join(
            item.text if item.heard_text is None else item.heard_text
            for item in self._engine.history
            if item.kind == "agent" and item.response_id == event.response_id
        ).strip()
        heard_ms = event.heard_ms or 0
        text = f"after {heard_ms / 1000:.1f} s; heard: {heard}" if heard else "before a word was heard"
        self._screen.partial(AGENT[0], "")
        self._screen.line("cut", text, "yellow")
        self._add(
            event.timestamp,
            "interruption",
            role="user",
            text=heard,
            response_id=event.response_id,
            heard_ms=heard_ms,
        )

    # -- audio ------------------------------------------------------------------------------------

    def _input_started(self, event: Event) -> None:
        self._screen.line("mic", f"{event.device}, {event.sample_rate} Hz", "dim")

    def _input_dropped(self, event: Event) -> None:
        self._screen.line(
            "warning", f"{event.n_samples} samples of the microphone were dropped: {event.reason}", "yellow"
        )

    def _audio_started(self, _: Event) -> None:
        if not self._plays_at_once:
            self._screen.partial(*PLAYING)

    def _audio_chunk(self, event: Event) -> None:
        self._signed()
        self._with_output.add(event.response_id)
        if self.recorder is None:
            return
        item_id = event.item_id or ""
        audio = event.audio_data or b""
        length_ms = self.recorder.take(item_id, audio)
        if not self._plays_at_once:
            self.busy_until += self.recorder.format.duration_ms(len(audio)) / 1000
        if self._plays_at_once and self._engine.is_connected:
            with contextlib.suppress(VoxEngineError):  # It was cut while this event waited.
                self._engine.mark_played(item_id, length_ms)

    def _audio_stopped(self, event: Event) -> None:
        self.busy_until = event.timestamp
        self._screen.partial(PLAYING[0], "")
        if self.recorder is not None:
            self.recorder.stopped(event.item_id or "", event.played_ms or 0)

    # -- tools, switches, trouble -----------------------------------------------------------------

    def _call_invoked(self, event: Event) -> None:
        arguments, response_id = _decoded(event.arguments), event.data.get("response_id")
        self._with_output.add(response_id)
        self._screen.line("tool", _short(f"{event.name}({_arguments(arguments)})"), "magenta")
        self._add(
            event.timestamp,
            "tool_call",
            role="agent",
            name=event.name,
            arguments=arguments,
            call_id=event.call_id,
            response_id=response_id,
        )

    def _call_completed(self, event: Event) -> None:
        self._screen.line("", _short(f"{event.name} → {_value(event.result)}"))
        self._tool_result(event, result=event.result)

    def _call_failed(self, event: Event) -> None:
        self._screen.line("", _short(f"{event.name} failed: {event.error}"), "red")
        self._tool_result(event, error=str(event.error))

    def _tool_result(self, event: Event, **fields: Any) -> None:
        self._add(
            event.timestamp, "tool_result", role="tool", name=event.name, call_id=event.call_id, **fields
        )

    def _switched(self, event: Event) -> None:
        self._screen.line("switch", f"from {event.from_provider} to {event.to_provider}", "yellow")
        self._add(
            event.timestamp,
            "switch",
            from_provider=event.from_provider,
            to_provider=event.to_provider,
            reason=event.reason,
        )

    def _expiring(self, event: Event) -> None:
        self._screen.line("warning", f"the session ends in {event.deadline_s or 0:.0f} s", "yellow")

    def _warning(self, event: Event) -> None:
        self._screen.line("warning", event.message or event.code or "", "yellow")

    def _lost(self, event: Event) -> None:
        self._is_reconnecting = bool(event.will_reconnect)
        if self._is_reconnecting:
            self._screen.line("warning", "the connection was lost; reconnecting", "yellow")
        else:
            self._fail(event.error)

    def _not_opened(self, event: Event) -> None:
        if not event.will_retry:
            if self._is_reconnecting:  # The first connect raises what it says.
                self._fail(event.error)
        elif str(event.error) not in self._refusals:
            self._refusals.add(str(event.error))
            self._screen.line("warning", str(event.error), "yellow")

    def _error(self, event: Event) -> None:
        if event.recoverable:
            if "direction" not in event.data:  # A device that is lost is no answer to what was said.
                self.trouble = _failure(event.error)
            self._screen.line("error", str(event.error), "red")
        else:
            self._fail(event.error)

    def _fail(self, error: object) -> None:
        if self.failure is not None:
            self._screen.line("error", str(error), "red")
            return
        # The command ends with this one, and says it then.
        self.failure = _failure(error)
        self._signed()

    def _signed(self) -> None:
        self.sign.set()
        self.answer.set()

    def _add(self, at: float, kind: str, **fields: Any) -> None:
        self._transcript.add(at - self._started, kind, **fields)


def _failure(error: object) -> VoxEngineError:
    return error if isinstance(error, VoxEngineError) else ProviderError(str(error))


def _short(text: str) -> str:
    return text if len(text) <= _LONG else text[: _LONG - 1] + "…"


def _decoded(arguments: object) -> object:
    if isinstance(arguments, str):
        with contextlib.suppress(ValueError):
            return json.loads(arguments)
    return dict(arguments) if isinstance(arguments, Mapping) else arguments


def _arguments(arguments: object) -> str:
    if isinstance(arguments, Mapping):
        return ", ".join(f"{name}={_value(value)}" for name, value in arguments.items())
    return "" if arguments is None else str(arguments)


def _value(value: object) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


# -- the summary ----------------------------------------------------------------------------------


def summarize(
    screen: Screen,
    metrics: Metrics,
    *,
    ending: str,
    n_turns: int,
    elapsed_s: float,
    spoken_s: float,
    recorder: AnswerRecorder | None,
    usage: Mapping[str, Any] | None,
    cost: float | None,
    files: list[str],
) -> None:
    """Write the lines that say how the conversation went."""
    cuts = metrics.interruptions
    cut = f", {cuts} interruption{'s' * (cuts != 1)}" if cuts else ""
    screen.blank()
    screen.line(ending, f"{n_turns} turn{'s' * (n_turns != 1)} in {elapsed_s:.1f} s{cut}", "bold")
    screen.line("latency", _latencies(metrics), "dim")
    if recorder is not None:
        you = f"you {spoken_s:.1f} s · " if spoken_s else ""
        cut_s = recorder.received_s - recorder.kept_s
        cut = f", {cut_s:.1f} s of it not heard" if cut_s >= 0.05 else ""
        screen.line("audio", f"{you}agent {recorder.received_s:.1f} s{cut}", "dim")
    screen.line("usage", _used(usage) if usage else "unknown", "dim")
    screen.line("cost", "unknown" if cost is None else f"${cost:.4f}" if cost else "$0", "dim")
    for number, file in enumerate(files):
        screen.line("" if number else "files", file, "dim")


def _used(usage: Mapping[str, Any]) -> str:
    """Return ``2 responses · input audio 3.5 s · tokens: 73 total, 40 input``; what is 0 was not used."""
    parts: list[str] = []
    tokens: list[str] = []
    for name, value in usage.items():
        words, _, unit = name.replace("_", " ").rpartition(" ")
        if not value:
            continue
        if unit == "tokens" and words:
            tokens.append(f"{_value(value)} {words}")
        elif unit in ("s", "ms") and isinstance(value, int | float):
            parts.append(f"{words} {value:.{1 if unit == 's' else 0}f} {unit}")
        elif name.startswith("n_"):
            unit = unit.removesuffix("s") if value == 1 else unit
            parts.append(" ".join(filter(None, (_value(value), words.removeprefix("n").strip(), unit))))
        else:
            parts.append(f"{words} {unit} {_value(value)}".strip())
    if tokens:
        parts.append(f"tokens: {', '.join(tokens)}")
    return " · ".join(parts) or "nothing"


def _latencies(metrics: Metrics) -> str:
    parts = [f"connect {session.connect_ms} ms" for session in metrics.sessions[:1]]
    for name in ("first_text_ms", "first_audio_ms"):
        values = [getattr(turn, name) for turn in metrics.turns if getattr(turn, name) is not None]
        if values:
            part = f"{name.removesuffix('_ms').replace('_', ' ')} {statistics.median(values):.0f} ms"
            parts.append(part + (f" ({min(values)} to {max(values)})" if len(values) > 1 else ""))
    return " · ".join(parts) or "unknown"
