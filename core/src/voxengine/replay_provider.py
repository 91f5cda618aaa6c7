"""A provider that is a recording: it says what the recorded provider said, without a network."""

from __future__ import annotations

import asyncio
import json
import os
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import attrs

from voxengine.capabilities import Capabilities
from voxengine.errors import ConfigError, NotConnected
from voxengine.events import EventType
from voxengine.history import Heard, Item
from voxengine.providers.base import ITEM_CHANGES, BaseProvider
from voxengine.providers.contract import CONTRACT
from voxengine.recording_file import Tape, read_recording
from voxengine.recording_shown import show_arguments
from voxengine.recording_values import Plain, capabilities_from_json, from_plain, json_default
from voxengine.threads import in_thread

__all__ = ["ReplayProvider"]

_PATIENCE_S: Final = 1.0
"""How long to wait for a call that the engine makes by itself, beyond the time that the recording has for it."""
_BY_THE_ENGINE: Final = frozenset(
    {"interrupt", "configure_session", "discard_input", "load_history", "send_item", "resume"}
)
_ANY_TIME: Final = frozenset({"get_usage", "estimate_cost"})
_KEYS: Final = ("path", "number", "speed")


@attrs.define(eq=False)
class _Call:
    """A call of the application that waits for its place in the recording."""

    hook: str
    args: Mapping[str, Any]
    answer: asyncio.Future[Any]


class ReplayProvider(BaseProvider):
    """Plays the provider's side of a recording.

    ``metadata["path"]`` names the file, ``["number"]`` the session in it (from 1, the default), ``["speed"]`` how many
    times as fast as recorded it goes on between two calls.

    What the provider says comes as long after the call that it followed as it did then. Where the application's calls
    differ from those of the recording, a WARNING ``replay_differs`` says how, and the recording goes on.
    """

    capabilities: ClassVar[Capabilities] = Capabilities()

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self._plain = Plain(audio=True, transcripts=True)
        self._script: deque[dict[str, Any]] = deque()
        self._calls: deque[_Call] = deque()
        self._changed = asyncio.Event()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._last: dict[str, Any] = {}
        self._n_received = self._n_awaited = 0
        """Bytes of user audio, by now and in the recording at this place."""
        self._speed = 1.0
        self._is_open = False

    @classmethod
    def capabilities_for(cls, config: Mapping[str, Any]) -> Capabilities:
        """Return what the recorded provider could do; unknown when the recording cannot be read."""
        try:
            path, number, _ = _settings(config)
            line = _session_line(path, number)
            return capabilities_from_json(line["capabilities"])
        except (ConfigError, KeyError):
            return cls.capabilities  # connect() says what is wrong.

    # -- life -------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Begin the recorded session.

        Raises:
            ConfigError: There is no such recording or session.
            ProviderError: The recorded session could not be opened either.
        """
        path, number, self._speed = _settings(self.config)
        tape = await in_thread(read_recording, path)
        self._script = deque(_script(tape, number))
        self._plain = Plain(audio=tape.has_audio, transcripts=tape.has_transcripts)
        self._is_open = True
        self.start_task(self._play(), name="replay")
        await self._call("connect")

    async def disconnect(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        left = [line["hook"] for line in self._script if line["k"] == "ask" and line["hook"] not in _ANY_TIME]
        left = [hook for hook in left if hook not in ("disconnect", "interrupt", "send_audio")]
        if left:
            self._differs(
                f"The recording goes on with {left[0]}() and {len(left) - 1} other calls that were not made."
            )
        for future in (*self._answers.values(), *(call.answer for call in self._calls)):
            if not future.done():
                future.set_exception(NotConnected("The replay was closed on this side."))
                future.exception()

    # -- the contract -----------------------------------------------------------------------------

    def try_send_audio(self, audio_data: bytes) -> bool:
        if self._is_open:
            self._n_received += len(audio_data)
            self._changed.set()
        return self._is_open

    async def send_audio(self, audio_data: bytes) -> None:
        if not self.try_send_audio(audio_data):
            raise NotConnected("The replay has no session yet. Call connect() first.")

    async def send_text(self, text: str) -> None:
        await self._call("send_text", text)

    async def interrupt(self, heard: Heard | None = None) -> None:
        await self._call("interrupt", heard)

    async def configure_session(self, config: Mapping[str, Any]) -> None:
        await self._call("configure_session", config)

    async def end_turn(self, respond: bool = True) -> None:
        await self._call("end_turn", respond)

    async def discard_input(self) -> None:
        await self._call("discard_input")

    async def send_tool_result(self, call_id: str, output: str, is_error: bool = False) -> None:
        await self._call("send_tool_result", call_id, output, is_error)

    async def load_history(self, items: Sequence[Item]) -> None:
        await self._call("load_history", items)

    async def send_item(self, item: Item) -> None:
        await self._call("send_item", item)

    async def speak(self, text: str, is_last: bool = True) -> None:
        await self._call("speak", text, is_last)

    async def resume(self, handle: str) -> None:
        await self._call("resume", handle)

    async def get_usage(self) -> dict[str, Any] | None:
        used: dict[str, Any] | None = self._last.get("get_usage")
        return used

    async def estimate_cost(self) -> float | None:
        cost: float | None = self._last.get("estimate_cost")
        return cost

    async def _call(self, hook: str, *args: Any) -> Any:
        if not self._is_open:
            raise NotConnected(f"{hook}(): the replay has no open session.")
        named = dict(zip(CONTRACT[hook], args, strict=False))
        call = _Call(hook, named, asyncio.get_running_loop().create_future())
        self._calls.append(call)
        self._changed.set()
        return await call.answer

    # -- the recording's side -----------------------------------------------------------------------

    async def _play(self) -> None:
        at = 0.0
        while self._script:
            line = self._script[0]
            wait_s = max(line["t"] - at, 0.0) / self._speed
            if line["k"] == "ask" and line["hook"] == "disconnect":
                await self._strangers()  # Nothing more is said; what is still called is not recorded.
            if line["k"] == "ask":
                await self._wait_for(line, wait_s)
            elif wait_s:
                await self._pass(wait_s)
            self._script.popleft()
            at = line["t"]
            self._apply(line)
        await self._strangers()

    async def _pass(self, wait_s: float) -> None:
        """Let time pass; calls that the recording does not have here are answered meanwhile."""
        loop = asyncio.get_running_loop()
        due = loop.time() + wait_s
        while loop.time() < due:
            expected = next((line for line in self._script if line["k"] == "ask"), None)
            while self._calls and (expected is None or self._calls[0].hook != expected["hook"]):
                self._refuse(self._calls.popleft(), expected)
            await self._wait_changed(due - loop.time())

    async def _strangers(self) -> None:
        while True:
            while self._calls:
                self._refuse(self._calls.popleft(), None)
            await self._wait_changed(None)

    async def _wait_changed(self, limit_s: float | None) -> bool:
        self._changed.clear()
        try:
            async with asyncio.timeout(limit_s):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def _wait_for(self, line: dict[str, Any], recorded_s: float) -> None:
        """Wait until the application makes a call of the recording."""
        hook = line["hook"]
        if hook in _ANY_TIME:
            return
        if hook == "send_audio":
            self._n_awaited += line["args"]["audio_data"]["n_bytes"]
            while self._n_received < self._n_awaited:
                if self._calls:
                    self._refuse(self._calls.popleft(), line)
                await self._wait_changed(None)
            return
        limit_s = recorded_s + _PATIENCE_S if hook in _BY_THE_ENGINE else None
        while True:
            while self._calls:
                call = self._calls.popleft()
                if call.hook == hook:
                    self._take(call, line)
                    return
                self._refuse(call, line)
            if not await self._wait_changed(limit_s):
                self._differs(f"The recording has {hook}() at {line['t']:.1f} s, and it was not called.")
                return

    def _take(self, call: _Call, line: dict[str, Any]) -> None:
        self._answers[line["n"]] = call.answer
        shown = json.loads(json.dumps(show_arguments(self._plain, call.args), default=json_default))
        for name, value in line["args"].items():
            if shown.get(name) != value and name != "heard":
                self._differs(f"{call.hook}() at {line['t']:.1f} s of the recording had another {name}.")

    def _refuse(self, call: _Call, line: Mapping[str, Any] | None) -> None:
        here = "ends" if line is None else f"has {line['hook']}()"
        if call.hook != "interrupt":  # That comes whenever the user does.
            self._differs(f"{call.hook}() was called where the recording {here}. Nothing answers it.")
        if not call.answer.done():
            call.answer.set_result(None)

    def _differs(self, sentence: str) -> None:
        self.warn("replay_differs", sentence)

    def _apply(self, line: dict[str, Any]) -> None:
        if line.get("session_id"):
            self.session_id = line["session_id"]
        if line["k"] == "said":
            self.emit_event(EventType(line["type"]), from_plain(line["data"]))
        elif line["k"] == "lost":
            self.is_connected = False
        elif line["k"] == "reply":
            if line["hook"] in _ANY_TIME and "result" in line:
                self._last[line["hook"]] = from_plain(line["result"])
            answer = self._answers.pop(line["n"], None)
            if answer is None or answer.done():
                return
            if "error" in line:
                answer.set_exception(from_plain(line["error"]))
            else:
                answer.set_result(from_plain(line.get("result")))


def _settings(config: Mapping[str, Any]) -> tuple[Path, int, float]:
    metadata = config.get("metadata") or {}
    for name in metadata:
        if name not in _KEYS:
            raise ConfigError(f"replay has no metadata[{name!r}]. It takes: {', '.join(_KEYS)}.")
    path, number, speed = metadata.get("path"), metadata.get("number", 1), metadata.get("speed", 1.0)
    if not isinstance(path, str | os.PathLike):
        raise ConfigError("replay needs metadata['path'], the file of a recording.")
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ConfigError("replay: metadata['number'] is the number of a session in the recording, from 1.")
    if isinstance(speed, bool) or not isinstance(speed, int | float) or not speed > 0:
        raise ConfigError("replay: metadata['speed'] is a number above 0.")
    return Path(path), number, float(speed)


def _session_line(path: Path, number: int) -> dict[str, Any]:
    """Return what a session declared, without reading all of a long recording."""
    try:
        with path.open(encoding="utf-8") as file:
            for row in file:
                if row.startswith('{"k":"session"'):
                    line: dict[str, Any] = json.loads(row)
                    if line.get("session") == number:
                        return line
    except (OSError, ValueError):
        pass
    raise ConfigError(f"The recording has no session {number}.")


def _script(tape: Tape, number: int) -> list[dict[str, Any]]:
    """Return the lines of a session; replies know their hook."""
    hooks: dict[int, str] = {}
    lines: list[dict[str, Any]] = []
    for line in tape.of("ask", "reply", "said", "lost"):
        if line["k"] == "ask" and line["hook"] in ITEM_CHANGES:
            continue  # What the application did to its history; another one need not.
        if line["k"] == "ask" and line["session"] == number:
            hooks[line["n"]] = line["hook"]
        elif line["k"] == "reply":
            if line["n"] not in hooks:
                continue
            line = {**line, "hook": hooks[line["n"]]}
        elif line["session"] != number:
            continue
        lines.append(line)
    if not lines:
        n_sessions = len(tape.of("session"))
        raise ConfigError(f"The recording {tape.path.name!r} has no session {number}; it has {n_sessions}.")
    return lines
