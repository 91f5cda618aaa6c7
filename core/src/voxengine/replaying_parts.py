"""What stands in the place of provider, clock and tools while a recording runs again, and what is compared."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

import attrs

from voxengine._config_json import config_from_json
from voxengine.capabilities import Capabilities
from voxengine.engine import VoiceEngine
from voxengine.errors import ConfigError
from voxengine.events import EventType
from voxengine.providers.base import BaseProvider
from voxengine.providers.contract import CONTRACT
from voxengine.providers.registry import ProviderRegistry
from voxengine.recording_file import Tape
from voxengine.recording_values import WORDS, capabilities_from_json, from_plain, json_default
from voxengine.replaying_score import Score
from voxengine.testing.clock import VirtualTimeLoop
from voxengine.tools import Tool

if TYPE_CHECKING:
    from voxengine.history import Item
    from voxengine.replaying import Replayer

__all__ = [
    "DrivenProvider",
    "DrivenRegistry",
    "Replay",
    "ReplayLoop",
    "TapeClock",
    "add_tools",
    "as_json",
    "comparable",
    "first_difference",
    "give_up",
    "is_same_json",
    "make_engine",
    "start_now",
]

_MEASURED: Final = frozenset({"latency_ms", "duration_s", "gap_ms"})
"""Fields that say how long something took, which is a time."""
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?")


def as_json(value: Any) -> Any:
    """Return a value as it comes back out of a file."""
    return json.loads(json.dumps(value, default=json_default))


def comparable(line: Mapping[str, Any], tape: Tape) -> dict[str, Any]:
    """Return what has to be the same of an event: all but times, and words where none were kept."""
    left_out = _MEASURED if tape.has_transcripts else _MEASURED | WORDS
    data = {name: _settled(value) for name, value in as_json(line["data"]).items() if name not in left_out}
    return {"type": line["type"], "provider": line["provider"], "epoch": line["epoch"], "data": data}


def _settled(value: Any) -> Any:
    """Errors tell times in their sentences."""
    if isinstance(value, dict) and "$error" in value:
        error = value["$error"]
        return {"type": error["type"], "message": _NUMBER.sub("#", error["message"])}
    return value


def make_engine(tape: Tape, registry: ProviderRegistry) -> VoiceEngine:
    """Return the engine that a recording begins with, not connected.

    Raises:
        ConfigError: The first line of the recording is damaged.
    """
    header = tape.header
    try:
        config = config_from_json(header["config"])
    except (KeyError, TypeError, AttributeError):
        raise ConfigError(f"The first line of the recording {tape.path.name!r} is damaged.") from None
    config = attrs.evolve(
        config,
        playback="external" if config.playback == "external" else "null",
        input_device=None,
        output_device=None,
    )
    if header.get("snapshot") is None:
        return VoiceEngine(config, registry=registry)
    engine = VoiceEngine.resume(header["snapshot"], config, registry=registry)
    if header.get("is_new"):
        engine._kept = None  # The application put something into the history; nobody had held it before.
    return engine


def add_tools(engine: Any, specs: list[dict[str, Any]]) -> None:
    """Offer tools of the same names; what they return comes out of the recording."""
    for spec in specs:
        engine._tools.register(Tool(spec["name"], spec["description"], spec["parameters"], _never_called))


def _never_called(**_: Any) -> None:
    raise RuntimeError("A tool of a recording was called.")


class DrivenProvider(BaseProvider):
    """Says what the recording says, when the replay says so."""

    name: ClassVar[str]
    replayer: ClassVar[Replayer]
    registry: ClassVar[DrivenRegistry]

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        line = self.replayer.next_session(self.name)
        self._number: int = line["session"]
        self.registry.taken.add(self._number)
        if "error" in line:
            self.replayer.came_out()
            raise from_plain(line["error"])

    @classmethod
    def capabilities_for(cls, config: Mapping[str, Any]) -> Capabilities:
        return capabilities_from_json(cls.replayer.next_session(cls.name).get("capabilities", {}))

    def attach(self, sink: Any, wire_observer: Any = None) -> None:
        if sink is not None:
            self.registry.made[self._number] = self
            self.replayer.came_out()
        super().attach(sink, wire_observer)

    def say(self, event_type: EventType, data: dict[str, Any]) -> None:
        """Emit an event."""
        self.emit_event(event_type, data)

    def lose(self) -> None:
        """Be lost without a word."""
        self._connected = False
        if self._sink is not None:
            self._sink.provider_lost()

    def try_send_audio(self, audio_data: bytes) -> bool:
        return self.replayer.asked_quickly(self._number, "send_audio", {"audio_data": audio_data})

    def try_interrupt(self, heard: Any) -> bool:
        return self.replayer.asked_quickly(self._number, "interrupt", {"heard": heard})

    async def connect(self) -> None:
        await self._ask("connect")

    async def disconnect(self) -> None:
        await self._ask("disconnect")

    async def send_audio(self, audio_data: bytes) -> None:
        await self._ask("send_audio", audio_data)

    async def send_text(self, text: str) -> str | None:
        name: str | None = await self._ask("send_text", text)
        return name

    async def interrupt(self, heard: Any = None) -> None:
        await self._ask("interrupt", heard)

    async def configure_session(self, config: Any) -> None:
        await self._ask("configure_session", config)

    async def end_turn(self, respond: bool = True) -> None:
        await self._ask("end_turn", respond)

    async def discard_input(self) -> None:
        await self._ask("discard_input")

    async def send_tool_result(self, call_id: str, output: str, is_error: bool = False) -> None:
        await self._ask("send_tool_result", call_id, output, is_error)

    async def load_history(self, items: Any) -> None:
        await self._ask("load_history", items)

    async def send_item(self, item: Any) -> None:
        await self._ask("send_item", item)

    async def speak(self, text: str, is_last: bool = True) -> None:
        await self._ask("speak", text, is_last)

    async def resume(self, handle: str) -> None:
        await self._ask("resume", handle)

    async def get_usage(self) -> Any:
        return await self._ask("get_usage")

    async def estimate_cost(self) -> Any:
        return await self._ask("estimate_cost")

    async def _ask(self, hook: str, *args: Any) -> Any:
        return await self.replayer.asked(self._number, hook, dict(zip(CONTRACT[hook], args, strict=False)))


class _ChangingProvider(DrivenProvider):
    """One whose service was told of changed items."""

    async def try_delete_item(self, item: Item, vendor_ids: Sequence[str]) -> bool:
        return await self._change("try_delete_item", item, vendor_ids)

    async def try_replace_item(self, item: Item, vendor_ids: Sequence[str]) -> bool:
        return await self._change("try_replace_item", item, vendor_ids)

    async def _change(self, method: str, item: Item, vendor_ids: Sequence[str]) -> bool:
        args = {"item": item, "vendor_ids": vendor_ids}
        return bool(await self.replayer.asked(self._number, method, args))


class DrivenRegistry(ProviderRegistry):
    """Hands out classes that stand for those of the recording."""

    def __init__(self, replayer: Replayer) -> None:
        super().__init__()
        self._replayer = replayer
        self._kinds: dict[tuple[str, str], type[BaseProvider]] = {}
        self.taken: set[int] = set()
        """Sessions of the recording that were made, or could not be."""
        self.made: dict[int, DrivenProvider] = {}

    def get(self, name: str) -> type[BaseProvider]:
        """Return the class of the session that comes next."""
        line = self._replayer.next_session(name)
        if line.get("is_unknown"):
            self.taken.add(line["session"])
            self._replayer.came_out()
            raise from_plain(line["error"])
        key = (name, line.get("kind", ""))
        cls = self._kinds.get(key)
        if cls is None:
            options = line.get("options")
            namespace = {
                "name": name,
                "replayer": self._replayer,
                "registry": self,
                "capabilities": capabilities_from_json(line.get("declared", {})),
                "options": None if options is None else frozenset(options),
            }
            base = _ChangingProvider if line.get("changes_items") else DrivenProvider
            cls = self._kinds[key] = type("DrivenProvider", (base,), namespace)
        return cls

    def loaded(self, name: str) -> type[BaseProvider] | None:
        """The same; None where the recording has no more of it: whatever ended it came during its import."""
        return self.get(name) if self._replayer.following_session(name) is not None else None


class TapeClock:
    """Answers how much was played as the clock of the recording did."""

    def __init__(self, replayer: Replayer) -> None:
        self._replayer = replayer

    @property
    def name(self) -> str:
        """As in ``session.settings["playback"]``."""
        name: str = self._replayer.heard("name", None, "null")
        return name

    def write(self, item: str, n_frames: int, audio: object = None) -> None:
        """Queue audio."""
        self._replayer.played_meanwhile(item)

    def finish(self, item: str) -> None:
        """No more audio of the item follows."""
        self._replayer.played_meanwhile()

    def flush(self) -> None:
        """Silence everything."""
        self._replayer.played_meanwhile()

    def pause(self) -> None:
        """Fall silent for a while."""
        self._replayer.played_meanwhile()

    def resume(self) -> None:
        """Go on after a pause."""
        self._replayer.played_meanwhile()

    def open_items(self) -> list[str]:
        """The items that have not ended."""
        value: list[str] = self._replayer.heard("open_items", None, [])
        return value

    def played_ms(self, item: str) -> int:
        """How much of the item was played."""
        value: int = self._replayer.heard("played_ms", item, 0)
        return value

    def total_played_ms(self) -> int:
        """How much was played in all."""
        value: int = self._replayer.heard("total_played_ms", None, 0)
        return value

    @property
    def current(self) -> str | None:
        """The item that is playing or will play next."""
        value: str | None = self._replayer.heard("current", None, None)
        return value

    def close(self) -> None:
        """Nothing to stop."""
        self.flush()


@attrs.frozen
class Replay:
    """How a recording ran."""

    tape: Tape
    events: tuple[dict[str, Any], ...] = attrs.field(repr=False)
    """What was emitted: ``t``, ``type``, ``provider``, ``epoch`` and ``data`` of each, as in the recording."""
    differences: tuple[str, ...]
    """What was not as recorded, in sentences, in the order of time; at most the first twenty."""

    @property
    def is_same(self) -> bool:
        """Whether every event was the same but for its time."""
        return not self.differences


class ReplayLoop(VirtualTimeLoop):
    """Virtual time that can be set, so that what is due waits for what the recording has first."""

    def __init__(self) -> None:
        super().__init__(max_real_s=None)

    def jump(self, when: float) -> None:
        """Let it be this late, without running what was due meanwhile."""
        if when > self.time():
            self._advance(when - self.time())


def _fields_that_differ(wanted: Mapping[str, Any], got: Mapping[str, Any]) -> Iterator[str]:
    for name in ("provider", "epoch"):
        if wanted[name] != got[name]:
            yield name
    for name in sorted({*wanted["data"], *got["data"]}):
        if wanted["data"].get(name) != got["data"].get(name):
            yield f"data[{name!r}]"
    if wanted["type"] != got["type"]:
        yield "the types"


def give_up(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_result(False)


def is_same_json(shown: Any, recorded: Any) -> bool:
    return bool(as_json(shown) == recorded)


def first_difference(score: Score, events: Sequence[dict[str, Any]]) -> list[str]:
    """Return a sentence about the first event that is not as recorded; nothing where all are."""
    for number, (expected, found) in enumerate(zip(score.expected, events, strict=False)):
        wanted, got = comparable(expected, score.tape), comparable(found, score.tape)
        if wanted != got:
            what = ", ".join(_fields_that_differ(wanted, got))
            return [
                f"Event {number + 1} ({expected['type']} at {expected['t']:.3f} s) was {found['type']}; {what} "
                "differ. Later differences follow from it."
            ]
    n_more = len(events) - len(score.expected)
    if n_more < 0 or (n_more and score.was_ended):
        return [f"The recording has {len(score.expected)} events, and there were {len(events)}."]
    return []


def start_now(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Run the first step of a task at once, as if it had been running already."""
    loop: Any = asyncio.get_running_loop()
    task: asyncio.Task[None] = asyncio.Task(work, loop=loop)
    current = asyncio.current_task(loop)
    first_step = loop._ready.pop()  # Just put there. Python 3.12 has eager tasks for this, and 3.11 has not.
    if current is not None:
        asyncio.tasks._leave_task(loop, current)
    try:
        first_step._run()
    finally:
        if current is not None:
            asyncio.tasks._enter_task(loop, current)
    return task
