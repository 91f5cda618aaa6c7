"""An emulator on a port and two clients of it: a bare socket, and OpenAI's own SDK. Both judge what arrives."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from openai import AsyncOpenAI
from websockets.asyncio.client import ClientConnection, connect

from tests.plugins.mock.support import silence, voice_saying
from tests.plugins.openai.sdk_types import check_server
from voxengine_mock.harness import Server, serve
from voxengine_openai.emulator import OpenAIEmulator

LIMIT_S = 20.0
"""For a whole exchange. It is reached only when the emulator owes an event."""
QUICK: dict[str, Any] = {"delay_ms": 0}
TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "Says what the weather is.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
TEXT = {"type": "realtime", "output_modalities": ["text"]}

Event = dict[str, Any]


@asynccontextmanager
async def emulating(
    script: dict[str, Any] | None = None, *, emulator: type[OpenAIEmulator] = OpenAIEmulator, **options: Any
) -> AsyncIterator[Server]:
    """An emulator that answers at once and sends much faster than real time."""
    own = {key: options.pop(key) for key in ("key", "faults", "session_limit_s") if key in options}
    made = emulator(script={**QUICK, **(script or {})}, speed=options.pop("speed", 500), **own)
    async with serve(made, **options) as server:
        yield server


class Wire:
    """A bare socket. Every message that arrives has to be what the SDK's types say."""

    def __init__(self, socket: ClientConnection, *, is_judged: bool = True) -> None:
        self.socket = socket
        self._is_judged = is_judged
        self.seen: list[Event] = []

    async def send(self, name: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": name, **fields}))

    async def next(self) -> Event:
        text = await self.socket.recv()
        event: Event = check_server(text) if self._is_judged else json.loads(text)
        self.seen.append(event)
        return event

    async def until(self, name: str) -> list[Event]:
        """Return the events up to the next one of a name, with it."""
        found: list[Event] = []
        while not found or found[-1]["type"] != name:
            found.append(await self.next())
        return found

    async def last(self, name: str) -> Event:
        return (await self.until(name))[-1]

    async def write(self, text: str, **fields: Any) -> Event:
        """Put a user's text into the conversation and return the item as it was announced."""
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        await self.send("conversation.item.create", item={**item, **fields})
        event = await self.last("conversation.item.done")
        found: Event = event["item"]
        return found

    async def ask(self, text: str, **response: Any) -> list[Event]:
        """Write and have it answered; return the events of the answer, up to the limits after it."""
        await self.write(text)
        await self.send("response.create", **({"response": response} if response else {}))
        return await self.until("rate_limits.updated")

    async def append(self, pcm: bytes, chunk: int = 960) -> None:
        for at in range(0, len(pcm), chunk):
            audio = base64.b64encode(pcm[at : at + chunk]).decode()
            await self.send("input_audio_buffer.append", audio=audio)

    async def error(self) -> Event:
        """The next event is an error; return what it says."""
        event = await self.next()
        assert event["type"] == "error", event["type"]
        found: Event = event["error"]
        return found


@asynccontextmanager
async def wired(
    server: Server,
    path: str = "/v1/realtime?model=gpt-realtime",
    *,
    headers: dict[str, str] | None = None,
    is_judged: bool = True,
    created: bool = True,
    **options: Any,
) -> AsyncIterator[Wire]:
    """A session on a bare socket, after its first event."""
    chosen = {"Authorization": "Bearer sk-drive"} if headers is None else headers
    url = f"ws://{server.address}{path}"
    async with asyncio.timeout(LIMIT_S):
        async with connect(
            url, additional_headers=chosen, compression=None, proxy=None, max_size=None, **options
        ) as socket:
            wire = Wire(socket, is_judged=is_judged)
            if created:
                await wire.next()
                assert wire.seen[0]["type"].endswith("session.created")
            yield wire


class Sdk:
    """A session of the SDK. Events are judged as they came, then read as the SDK reads them."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.raw: list[Event] = []

    async def next(self) -> Any:
        data = await self.connection.recv_bytes()
        self.raw.append(check_server(data))
        return self.connection.parse_event(data)

    async def until(self, name: str) -> list[Any]:
        found: list[Any] = []
        while not found or found[-1].type != name:
            found.append(await self.next())
        return found

    async def last(self, name: str) -> Any:
        return (await self.until(name))[-1]

    async def write(self, text: str) -> Any:
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        await self.connection.conversation.item.create(item=item)
        return (await self.last("conversation.item.done")).item

    async def ask(self, text: str, **response: Any) -> list[Any]:
        await self.write(text)
        await self.connection.response.create(**({"response": response} if response else {}))
        return await self.until("rate_limits.updated")

    async def append(self, pcm: bytes, chunk: int = 4800) -> None:
        for at in range(0, len(pcm), chunk):
            audio = base64.b64encode(pcm[at : at + chunk]).decode()
            await self.connection.input_audio_buffer.append(audio=audio)


def client_of(server: Server, **options: Any) -> AsyncOpenAI:
    return AsyncOpenAI(
        api_key=options.pop("api_key", "sk-drive"), base_url=f"{server.http_url}/v1", max_retries=0, **options
    )


@asynccontextmanager
async def sdk(server: Server, **options: Any) -> AsyncIterator[Sdk]:
    """A session of the SDK, after its first event."""
    options = {"model": "gpt-realtime", **options} if "extra_query" not in options else options
    async with asyncio.timeout(LIMIT_S), client_of(server) as client:
        async with client.realtime.connect(**options) as connection:
            talk = Sdk(connection)
            first = await talk.next()
            assert first.type == "session.created"
            yield talk


async def spoken(text: str = "how are you today", *, pause_ms: int = 700, rate: int = 24_000) -> bytes:
    """A voice, and the silence that ends its turn."""
    return await voice_saying(text, rate) + silence(pause_ms, rate)


def names(events: list[Any], *, without: Callable[[str], bool] | None = None) -> list[str]:
    """The names of events in order; what comes several times in a row is named once."""
    found: list[str] = []
    for event in events:
        name = event["type"] if isinstance(event, dict) else event.type
        if (not found or found[-1] != name) and not (without is not None and without(name)):
            found.append(name)
    return found


def short(events: list[Any]) -> list[str]:
    """The same, without the common part of the names and with the deltas that interleave named in order of name."""
    found = names(events)
    out: list[str] = []
    for name in found:
        if name.endswith(".delta") and out and out[-1].endswith(".delta"):
            continue
        out.append(name)
    return out


def text_of(events: list[Any]) -> str:
    """What was said, put together from the deltas."""
    kinds = ("response.output_text.delta", "response.output_audio_transcript.delta")
    raw = [event if isinstance(event, dict) else event.to_dict() for event in events]
    return "".join(str(event["delta"]) for event in raw if event["type"] in kinds)


def audio_of(events: list[Any]) -> bytes:
    raw = [event if isinstance(event, dict) else event.to_dict() for event in events]
    kind = "response.output_audio.delta"
    return b"".join(base64.b64decode(str(event["delta"])) for event in raw if event["type"] == kind)
