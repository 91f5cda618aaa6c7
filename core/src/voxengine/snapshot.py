"""A conversation as a plain value: what another process needs to go on with it.

A snapshot is a dict of JSON values. It holds what was said, what waits for an answer (with its audio), where the
open turn stands, the settings without any secret, and what was used so far. It does not hold the session, which
belongs to one process and one service: whoever resumes opens a new one and is told the history.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from voxengine._checks import file_path
from voxengine._config_json import config_from_json, config_to_json, format_to_json
from voxengine.audio.format import AudioFormat
from voxengine.config import VoiceEngineConfig
from voxengine.conversation import Conversation
from voxengine.errors import AudioFormatError, ConfigError, VoxEngineError
from voxengine.history import History, ItemKind
from voxengine.metrics import Metrics, SessionMetrics
from voxengine.responses import Response
from voxengine.says import Say
from voxengine.user_turns import UserTurns

__all__ = ["SNAPSHOT_VERSION", "Kept", "read_snapshot", "restore", "turn_state", "write_snapshot"]

SNAPSHOT_VERSION: Final = 1
"""Version of the value that ``VoiceEngine.snapshot`` returns."""

_KIND: Final = "voxengine.snapshot"
LOST_CALL: Final = (
    "The call was under way when the conversation moved to another process. It is not made again, and its result "
    "is not known."
)
"""What the agent is told of a tool call that had no result when the snapshot was taken."""
_ROLES: Final = ("", "user", "agent")
_NOTHING_OPEN: Final[Mapping[str, Any]] = {
    "is_speaking": False,
    "speech_start": None,
    "waiting_from": None,
    "turn_end": None,
    "gave_up": False,
    "item": None,
    "earlier": [],
    "texts": {},
    "unanswered_texts": {},
}


@attrs.frozen(kw_only=True)
class Kept:
    """What a snapshot holds, beside the history."""

    config: VoiceEngineConfig
    """Without key and tools."""
    input_format: AudioFormat | None = None
    """None: the engine was never connected."""
    output_format: AudioFormat | None = None
    audio: bytes = attrs.field(default=b"", repr=False)
    """The user's audio that waits for an answer, in ``input_format``; PCM16 where that is G.711."""
    start: int = 0
    """Sample index of its first frame."""
    turn: Mapping[str, Any] = attrs.field(factory=lambda: dict(_NOTHING_OPEN), repr=False)
    cut_reply: tuple[str, ...] = ()
    says: tuple[Mapping[str, Any], ...] = attrs.field(default=(), repr=False)
    """What the agent was told to say and has not said; see :class:`voxengine.says.Say`."""
    role: str = ""
    owes_tool_answer: bool = False
    """The result of a tool reached the agent and was not made use of."""
    sessions: tuple[Mapping[str, Any], ...] = ()
    epoch: int = 0
    n_ids: int = 1
    provider: str = attrs.field()
    """Who held the conversation last; ``config`` can be for another one, who is to go on."""

    @provider.default
    def _provider_of_config(self) -> str:
        return self.config.provider


def turn_state(conversation: Conversation, history: History) -> tuple[dict[str, Any], History]:
    """Return where a running conversation stands, as fields of :class:`Kept`, and its history as of now.

    What the agent says at this moment counts as cut at what was heard of it; the conversation itself goes on.
    """
    user, responses = conversation.user, conversation.responses
    copy = History.load(history.export(), keep_audio_s=None, max_audio_s=float("inf"))
    journal = user.journal
    if journal is None:
        return {}, copy
    cut, audible = list(conversation.cut_reply), list[Response]()
    if conversation.clock is not None:
        audible = conversation.agent.audible(responses.current)
        cut += [item for item in conversation.agent.cut_in(copy, responses.current) if item not in cut]
    start, turn = user.open_turn_start(), user.to_json()
    called = _without_called(turn, user, copy)
    if called and turn["item"] is None:
        start = journal.end
    return {
        "input_format": journal.accepts,
        "output_format": conversation.output_format,
        "audio": journal.read(start, journal.end - start),
        "start": start,
        "turn": turn,
        "cut_reply": tuple(cut),
        "says": tuple(say.to_json() for say in conversation.says.cut_in(copy, audible)),
        "role": conversation.role,
        "owes_tool_answer": called or conversation.calls.is_unclaimed or responses.owes_tool,
    }, copy


def _without_called(turn: dict[str, Any], user: UserTurns, history: History) -> bool:
    """Take turns out that the agent has called a tool for: asked again, it would call again.

    Returns:
        Whether there were any; the answer is owed on the tool's result then.
    """
    taken_up = user.called_texts
    for item_id in taken_up:
        del turn["unanswered_texts"][item_id]
    spoken = turn["item"]
    is_known = spoken is not None and spoken in history
    # What has no transcript yet is known from its audio alone, which has to be given again.
    if not is_known or not user.is_called or turn["is_speaking"] or not history.get(spoken).is_transcribed:
        return bool(taken_up)
    turn.update({name: value for name, value in _NOTHING_OPEN.items() if name != "unanswered_texts"})
    return True


def restore(kept: Kept, conversation: Conversation, history: History, metrics: Metrics) -> None:
    """Put a conversation that has not begun where another one was."""
    if kept.input_format is not None and kept.output_format is not None:
        conversation.fix_formats(kept.input_format, kept.output_format)
        journal = conversation.user.journal
        assert journal is not None
        journal.begin_at(kept.start, kept.audio)
    conversation.user.restore(kept.turn)
    conversation.restore(kept.cut_reply, kept.role)
    conversation.says.restore([Say(**held) for held in kept.says])
    calls = [item.call_id for item in history if item.kind is ItemKind.TOOL_CALL]
    lost = history.open_calls()
    for call in lost:
        history.add_tool_result(call.call_id, LOST_CALL, is_error=True)
    conversation.calls.restore(calls, is_unclaimed=kept.owes_tool_answer or bool(lost))
    metrics.sessions.extend(SessionMetrics(**held) for held in kept.sessions)


# -- as JSON --------------------------------------------------------------------------------------------


def write_snapshot(
    kept: Kept, history: History, audio_file: str | os.PathLike[str] | None = None
) -> dict[str, Any]:
    """Return the snapshot as plain JSON values.

    Args:
        kept: All but the history.
        history: What was said.
        audio_file: A WAV file to write the unanswered audio to; None: it is part of the value, in base64.

    Raises:
        ConfigError: The file cannot be written.
    """
    spoken: dict[str, Any] | None = None
    if kept.input_format is not None and kept.output_format is not None:
        spoken = {
            "input_format": format_to_json(kept.input_format),
            "output_format": format_to_json(kept.output_format),
            "start": kept.start,
            "n_samples": kept.input_format.as_pcm16.n_frames(len(kept.audio)),
            "audio": _write_audio(kept.audio, kept.input_format.as_pcm16, audio_file),
        }
    return {
        "kind": _KIND,
        "version": SNAPSHOT_VERSION,
        "provider": kept.provider,
        "config": config_to_json(kept.config),
        "history": history.export(),
        "input": spoken,
        "turn": dict(kept.turn),
        "cut_reply": list(kept.cut_reply),
        "says": [dict(held) for held in kept.says],
        "floor": kept.role,
        "owes_tool_answer": kept.owes_tool_answer,
        "sessions": [dict(held) for held in kept.sessions],
        "epoch": kept.epoch,
        "n_ids": kept.n_ids,
    }


def read_snapshot(value: object) -> tuple[Kept, Mapping[str, Any]]:
    """Return what a snapshot holds, and its history as :meth:`History.load` takes it.

    Raises:
        ConfigError: It is no snapshot, of another version, or damaged.
    """
    if not isinstance(value, Mapping) or value.get("kind") != _KIND:
        raise ConfigError("This is no snapshot. Pass what VoiceEngine.snapshot() returned.")
    version = value.get("version")
    if version != SNAPSHOT_VERSION or not isinstance(version, int) or isinstance(version, bool):
        raise ConfigError(
            f"The snapshot has version {version!r}; this voxengine reads version {SNAPSHOT_VERSION}. "
            "Resume it with the voxengine that wrote it, or start a new conversation with its 'history'."
        )
    try:
        turn = {name: value["turn"][name] for name in _NOTHING_OPEN}
        fields: dict[str, Any] = {
            "config": config_from_json(value["config"]),
            "turn": turn,
            "cut_reply": tuple(_text(held, "cut_reply") for held in value["cut_reply"]),
            "says": tuple(_say(held) for held in value["says"]),
            "role": _text(value["floor"], "floor"),
            "owes_tool_answer": _flag(value["owes_tool_answer"], "owes_tool_answer"),
            "sessions": tuple(_session(held) for held in value["sessions"]),
            "epoch": _whole(value["epoch"], "epoch"),
            "n_ids": _whole(value["n_ids"], "n_ids"),
            "provider": _text(value["provider"], "provider"),
            **_read_input(value["input"]),
        }
        _check_turn(turn)
        if fields["role"] not in _ROLES:
            raise ValueError("floor is neither user nor agent")
        history = value["history"]
    except VoxEngineError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"The snapshot is damaged: {type(error).__name__} {str(error)[:80]}. Take it again."
        ) from None
    return Kept(**fields), history


def _session(value: Mapping[str, Any]) -> dict[str, Any]:
    return attrs.asdict(SessionMetrics(**value))


def _say(value: Mapping[str, Any]) -> dict[str, Any]:
    behind = value["behind"]
    return {
        "text": _text(value["text"], "says"),
        "behind": behind if behind is None else _text(behind, "says"),
        "is_cut": _flag(value["is_cut"], "says"),
        "rest": _text(value["rest"], "says"),
    }


def _whole(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} is no count")
    return value


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} holds what is no text")
    return value


def _flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name} is neither true nor false")
    return value


def _check_turn(turn: Mapping[str, Any]) -> None:
    for name in ("speech_start", "waiting_from", "turn_end"):
        if turn[name] is not None:
            _whole(turn[name], name)
    for name in ("is_speaking", "gave_up"):
        _flag(turn[name], name)
    for name in ("texts", "unanswered_texts"):
        for item_id, text in dict(turn[name]).items():
            _text(item_id, name)
            _text(text, name)
    if turn["item"] is not None:
        _text(turn["item"], "item")
    if not isinstance(turn["earlier"], list):
        raise ValueError("earlier is no list of ids")
    for item_id in turn["earlier"]:
        _text(item_id, "earlier")


def _read_input(value: Mapping[str, Any] | None) -> dict[str, Any]:
    if value is None:
        return {}
    try:
        source = AudioFormat(**value["input_format"])
        target = AudioFormat(**value["output_format"])
    except AudioFormatError as error:
        raise ConfigError(f"The snapshot is damaged: {error}") from None
    audio = _read_audio(value["audio"])
    start = _whole(value["start"], "start")
    if len(audio) != _whole(value["n_samples"], "n_samples") * source.as_pcm16.frame_bytes:
        raise ConfigError("The snapshot is damaged: its audio is not as long as it says. Take it again.")
    return {"input_format": source, "output_format": target, "audio": audio, "start": start}


def _write_audio(
    audio: bytes, audio_format: AudioFormat, path: str | os.PathLike[str] | None
) -> dict[str, Any]:
    if path is None:
        return {"base64": base64.b64encode(audio).decode("ascii")}
    file = file_path(path, "the audio of a snapshot")
    try:
        with file.open("wb") as raw, wave.open(raw, "wb") as out:
            out.setnchannels(audio_format.channels)
            out.setsampwidth(audio_format.width)
            out.setframerate(audio_format.sample_rate)
            out.writeframes(audio)
    except OSError as error:
        raise ConfigError(f"The audio cannot be written to {file.name!r}: {error.strerror}.") from None
    return {"file": str(file), "sha256": hashlib.sha256(audio).hexdigest()}


def _read_audio(value: Mapping[str, Any]) -> bytes:
    if "file" not in value:
        try:
            return base64.b64decode(value["base64"], validate=True)
        except binascii.Error:
            raise ConfigError("The snapshot is damaged: its audio is no base64 text.") from None
    file = Path(str(value["file"]))
    try:
        with file.open("rb") as raw, wave.open(raw, "rb") as source:
            audio = source.readframes(source.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise ConfigError(
            f"The audio of the snapshot, {file.name!r}, cannot be read ({type(error).__name__}). It has to lie "
            "where it was when the snapshot was taken."
        ) from None
    if hashlib.sha256(audio).hexdigest() != value.get("sha256"):
        raise ConfigError(f"{file.name!r} is not the audio that belongs to this snapshot.")
    return audio
