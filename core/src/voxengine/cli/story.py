"""What happened in a recorded conversation: turns, levels, interruptions, latencies."""

from __future__ import annotations

import array
import base64
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from voxengine.audio.format import AudioFormat
from voxengine.errors import ConfigError, VoxEngineError
from voxengine.recording_file import Tape

__all__ = ["Entry", "Span", "Story", "tell"]

LEVEL_S: Final = 0.05
"""Length of one bar of a level."""
_FLOOR_DB: Final = -60.0


@attrs.define
class Span:
    """A stretch of time in which something was so."""

    start_s: float
    end_s: float
    text: str = ""
    note: str = ""
    """What is special about it: ``interrupted``, ``failed``."""


@attrs.frozen
class Entry:
    """One line of the timeline."""

    at_s: float
    kind: str
    """``connection``, ``user``, ``agent``, ``tool``, ``interrupted``, ``warning`` or ``error``."""
    text: str


@attrs.define
class Story:
    """A recording as people look at it. Times are seconds since its beginning."""

    tape: Tape
    providers: list[str] = attrs.field(factory=list)
    taps: list[str] = attrs.field(factory=list)
    """``wire`` or ``contract`` for each session: what was tapped."""
    entries: list[Entry] = attrs.field(factory=list)
    user_speech: list[Span] = attrs.field(factory=list)
    user_texts: list[Entry] = attrs.field(factory=list)
    agent_speech: list[Span] = attrs.field(factory=list)
    tools: list[Span] = attrs.field(factory=list)
    waits: list[Span] = attrs.field(factory=list)
    """From the end of a user's turn to the first sound (or word) of the answer."""
    user_levels: dict[int, float] = attrs.field(factory=dict)
    """From 0 to 1, by number of the bar."""
    agent_levels: dict[int, float] = attrs.field(factory=dict)
    n_interruptions: int = 0
    n_wire: int = 0

    @property
    def latencies_ms(self) -> list[int]:
        """How long each answer took to begin."""
        return [round((span.end_s - span.start_s) * 1000) for span in self.waits]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, without levels."""
        header = self.tape.header
        return {
            "file": self.tape.path.name,
            "version": header.get("voxengine"),
            "created_at": header.get("created_at"),
            "duration_s": self.tape.duration_s,
            "is_complete": self.tape.is_complete,
            "n_missing": self.tape.n_missing,
            "audio": self.tape.has_audio,
            "transcripts": self.tape.has_transcripts,
            "providers": self.providers,
            "taps": self.taps,
            "n_wire": self.n_wire,
            "latencies_ms": self.latencies_ms,
            "n_interruptions": self.n_interruptions,
            "timeline": [attrs.asdict(entry) for entry in self.entries],
        }

    def summary(self) -> str:
        """Return the figures in one sentence."""
        parts = [_n(len(self.waits), "answered turn")]
        if self.waits:
            times = self.latencies_ms
            parts.append(
                f"first output after {statistics.median(times):.0f} ms (median), {max(times)} ms at most"
            )
        parts.append(_n(self.n_interruptions, "interruption"))
        parts.append(_n(len(self.tools), "tool call"))
        return ", ".join(parts)


def _n(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def tell(tape: Tape) -> Story:
    """Return what happened in a recording.

    Raises:
        ConfigError: A line of it is damaged.
    """
    return _Teller(tape).story


class _Teller:
    def __init__(self, tape: Tape) -> None:
        self.story = Story(tape)
        self._latest: Mapping[str, Any] | None = None
        """The latest audio of a provider."""
        self._input_format = {"sample_rate": 24_000, "channels": 1}
        self._output = AudioFormat()
        self._texts: dict[str, str] = {}
        self._playing: dict[str, Span] = {}
        self._written: dict[str, list[tuple[float, float]]] = {}
        self._by_response: dict[str, list[str]] = {}
        self._open_tools: dict[str, Span] = {}
        self._ended_at: float | None = None
        handlers = {
            "session": self._session,
            "wire": self._wire,
            "formats": self._formats,
            "input": self._input,
            "call": self._call,
            "said": self._said,
            "event": self._event,
        }
        for number, line in enumerate(tape.lines, 2):
            handler = handlers.get(line["k"])
            if handler is None:
                continue
            try:
                handler(float(line["t"]), line)
            except (KeyError, TypeError, ValueError, AttributeError, VoxEngineError):
                raise ConfigError(f"Line {number} of the recording {tape.path.name!r} is damaged.") from None
        for span in (*self._playing.values(), *self.story.user_speech, *self._open_tools.values()):
            if span.end_s < span.start_s:
                span.end_s = tape.duration_s
        self.story.entries.sort(key=lambda entry: entry.at_s)

    # -- lines ------------------------------------------------------------------------------------

    def _session(self, at: float, line: Mapping[str, Any]) -> None:
        self.story.providers.append(str(line["provider"]))
        self.story.taps.append("contract")

    def _wire(self, at: float, line: Mapping[str, Any]) -> None:
        self.story.n_wire += 1
        if 0 < line["session"] <= len(self.story.taps):
            self.story.taps[line["session"] - 1] = "wire"

    def _input(self, at: float, line: Mapping[str, Any]) -> None:
        rate, channels = self._input_format["sample_rate"], self._input_format["channels"]
        pieces = _loudness(_pcm(line["audio"]), rate, channels, _n_bytes(line["audio"]))
        _add_levels(self.story.user_levels, at, pieces)

    def _formats(self, at: float, line: Mapping[str, Any]) -> None:
        self._input_format, self._output = line["input"], AudioFormat(**line["output"])

    def _call(self, at: float, line: Mapping[str, Any]) -> None:
        method, args = line["method"], line["args"]
        if method == "send_text":
            entry = Entry(at, "user", f"“{args.get('text', '')}” (text)")
            self.story.user_texts.append(entry)
            self.story.entries.append(entry)
            self._ended_at = at
        elif method == "end_turn":
            self._ended_at = at
        elif method == "say":
            self._entry(at, "agent", f"is asked to say “{args.get('text', '')}”")
        elif method == "switch_provider":
            self._entry(at, "connection", f"switch to {args.get('provider')} is asked for")

    def _said(self, at: float, line: Mapping[str, Any]) -> None:
        if line["type"] == "audio_output_chunk":
            _pcm(line["data"]["audio_data"])
            self._latest = line["data"]

    def _event(self, at: float, line: Mapping[str, Any]) -> None:
        handler = getattr(self, f"_on_{line['type']}", None)
        if handler is not None:
            handler(at, line["data"], line)

    # -- events -----------------------------------------------------------------------------------

    def _on_connection_established(self, at: float, data: Mapping[str, Any], line: Mapping[str, Any]) -> None:
        self._entry(at, "connection", f"{line['provider']} is connected after {data.get('latency_ms')} ms")

    def _on_connection_lost(self, at: float, data: Mapping[str, Any], line: Mapping[str, Any]) -> None:
        self._entry(at, "error", f"{line['provider']} is lost: {_error(data)}")

    def _on_connection_failed(self, at: float, data: Mapping[str, Any], line: Mapping[str, Any]) -> None:
        self._entry(at, "error", f"{line['provider']} cannot be connected: {_error(data)}")

    def _on_connection_closed(self, at: float, data: Mapping[str, Any], line: Mapping[str, Any]) -> None:
        self._entry(at, "connection", f"{line['provider']} is closed ({data.get('reason')})")

    def _on_provider_switched(self, at: float, data: Mapping[str, Any], line: Mapping[str, Any]) -> None:
        gap, replayed = data.get("gap_ms"), data.get("replayed_ms")
        what = f"{data.get('from_provider')} → {data.get('to_provider')} ({data.get('reason')})"
        self._entry(at, "connection", f"{what}, gap {gap} ms, {replayed} ms sent again")

    def _on_speech_started(self, at: float, data: Mapping[str, Any], line: Mapping[str, Any]) -> None:
        self.story.user_speech.append(Span(at, -1.0))
        self._ended_at = None

    def _on_speech_ended(self, at: float, data: Mapping[str, Any], line: Mapping[str, Any]) -> None:
        if self.story.user_speech:
            self.story.user_speech[-1].end_s = at
        self._ended_at = at

    def _on_input_transcript(self, at: float, data: Mapping[str, Any], line: Mapping[str, Any]) -> None:
        if data.get("is_partial"):
            return
        text = str(data.get("text") or "")
        started = at
        if self.story.user_speech:
            span = self.story.user_speech[-1]
            span.text, started = text, span.start_s
        self.story.entries.append(Entry(started, "user", f"“{text}”"))

    def _on_text_output(self, at: float, data: Mapping[str, Any], line: Mapping[str, Any]) -> None:
        self._answer_begins(at)
        item = self._item_of(data)
        self._texts[item] = str(data.get("text") or "")
        if item in self._playing:
            self._playing[item].text = self._texts[item]

    def _on_audio_output_started(self, at: float, data: Mapping[str, Any], line: Mapping[str, Any]) -> None:
        item = self._item_of(data)
        span = self._playing[item] = Span(at, -1.0, self._texts.get(item, ""))
        self.story.agent_speech.append(span)

    def _on_audio_output_chunk(self, at: float, data: Mapping[str, Any], line: Mapping[str, Any]) -> None:
        self._answer_begins(at)
        item, n_bytes = str(data.get("item_id")), int(data["audio_data"]["n_bytes"])
        rate, channels = int(data.get("sample_rate") or 24_000), int(data.get("channels") or 1)
        said, self._latest = self._latest, None
        pcm = _pcm(said["audio_data"]) if said is not None else b""
        own_rate = int(said.get("sample_rate") or rate) if said is not None else rate
        seconds = n_bytes / self._output.bytes_per_s
        levels = _loudness(pcm, own_rate, channels, 0) if pcm else [(seconds, 0.5)]
        self._written.setdefault(item, []).extend(levels)

    def _on_audio_output_stopped(self, at: float, data: Mapping[str, Any], line: Mapping[str, Any]) -> None:
        item, played_s = str(data.get("item_id")), int(data.get("played_ms") or 0) / 1000
        span = self._playing.get(item)
        if span is None:
            return
        span.end_s = at
        left: list[tuple[float, float]] = []
        for seconds, level in self._written.pop(item, []):
            if played_s <= 0:
                break
            left.append((min(seconds, played_s), level))
            played_s -= seconds
        _add_levels(self.story.agent_levels, span.start_s, left)

    def _on_response_completed(self, at: float, data: Mapping[str, Any], line: Mapping[str, Any]) -> None:
        self._agent_entry(at, data, "")

    def _on_response_cancelled(self, at: float, data: Mapping[str, Any], line: Mapping[str, Any]) -> None:
        heard = data.get("heard_text")
        why = f" ({data.get('reason')}" + (f"; heard: “{heard}”)" if heard else ")")
        self._agent_entry(at, data, why)

    def _on_interrupted(self, at: float, data: Mapping[str, Any], line: Mapping[str, Any]) -> None:
        self.story.n_interruptions += 1
        why = "the user speaks" if data.get("reason") == "barge_in" else "asked for"
        self._entry(at, "interrupted", f"{why}; {data.get('heard_ms')} ms had been heard")
        for span in self.story.agent_speech:
            if span.end_s < 0 or abs(span.end_s - at) < LEVEL_S:
                span.note = "interrupted"

    def _on_function_call_invoked(self, at: float, data: Mapping[str, Any], line: Mapping[str, Any]) -> None:
        span = Span(at, -1.0, str(data.get("name")))
        self._open_tools[str(data.get("call_id"))] = span
        self.story.tools.append(span)

    def _on_function_call_completed(
        self, at: float, data: Mapping[str, Any], line: Mapping[str, Any]
    ) -> None:
        self._tool_ended(at, data, "returned")

    def _on_function_call_failed(self, at: float, data: Mapping[str, Any], line: Mapping[str, Any]) -> None:
        self._tool_ended(at, data, "failed")

    def _on_warning(self, at: float, data: Mapping[str, Any], line: Mapping[str, Any]) -> None:
        self._entry(at, "warning", f"{data.get('code')}: {data.get('message')}")

    def _on_error_general(self, at: float, data: Mapping[str, Any], line: Mapping[str, Any]) -> None:
        self._entry(at, "error", _error(data))

    _on_error_network = _on_error_audio = _on_error_general

    # -- inside -----------------------------------------------------------------------------------

    def _entry(self, at: float, kind: str, text: str) -> None:
        self.story.entries.append(Entry(at, kind, text))

    def _agent_entry(self, at: float, data: Mapping[str, Any], end: str) -> None:
        items = self._by_response.get(str(data.get("response_id")), [])
        text = " ".join(self._texts.get(item, "") for item in items).strip()
        started = [self._playing[item].start_s for item in items if item in self._playing]
        if text or end:
            self.story.entries.append(Entry(min(started, default=at), "agent", f"“{text}”{end}"))

    def _item_of(self, data: Mapping[str, Any]) -> str:
        """Return the history item of an output, and note to which response it belongs."""
        item = str(data.get("item_id"))
        items = self._by_response.setdefault(str(data.get("response_id")), [])
        if item not in items:
            items.append(item)
        return item

    def _answer_begins(self, at: float) -> None:
        if self._ended_at is not None:
            self.story.waits.append(Span(self._ended_at, at))
            self._ended_at = None

    def _tool_ended(self, at: float, data: Mapping[str, Any], how: str) -> None:
        span = self._open_tools.pop(str(data.get("call_id")), None)
        if span is not None:
            span.end_s, span.note = at, how if how == "failed" else ""
            took = round((at - span.start_s) * 1000)
            self._entry(span.start_s, "tool", f"{span.text}() {how} after {took} ms")


def _error(data: Mapping[str, Any]) -> str:
    error = data.get("error")
    if isinstance(error, Mapping):
        return str(error.get("$error", {}).get("message", "unknown"))
    return str(error)


def _pcm(value: Any) -> bytes:
    return base64.b64decode(value["$b64"]) if isinstance(value, Mapping) and "$b64" in value else b""


def _n_bytes(value: Any) -> int:
    return int(value.get("$silence", 0)) if isinstance(value, Mapping) else 0


def _loudness(pcm: bytes, rate: int, channels: int, n_silent: int) -> list[tuple[float, float]]:
    """Return seconds and loudness, from 0 to 1, of each piece; audio that was not kept is half as loud as can be."""
    per_piece = max(int(rate * LEVEL_S), 1) * channels
    if not pcm:
        seconds = n_silent / 2 / channels / rate
        return [(seconds, 0.5)] if seconds else []
    samples = array.array("h", pcm[: len(pcm) // 2 * 2])
    if sys.byteorder == "big":
        samples.byteswap()
    return [
        (len(piece) / channels / rate, _level(piece))
        for piece in (samples[at : at + per_piece] for at in range(0, len(samples), per_piece))
    ]


def _level(samples: Sequence[int]) -> float:
    step = max(len(samples) // 200, 1)  # Enough to tell how loud it is.
    some = samples[::step]
    rms = math.sqrt(sum(sample * sample for sample in some) / len(some)) / 32768
    db = 20 * math.log10(rms) if rms > 0 else _FLOOR_DB
    return max(1 - db / _FLOOR_DB, 0.0)


def _add_levels(levels: dict[int, float], at: float, pieces: Sequence[tuple[float, float]]) -> None:
    for seconds, level in pieces:
        bar = int(at / LEVEL_S)
        levels[bar] = max(levels.get(bar, 0.0), level)
        at += seconds
