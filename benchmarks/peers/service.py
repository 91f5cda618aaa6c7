"""The service that the clients are measured against: the Realtime protocol on loopback, in a process of its own.

It is made to cost little, so that the client is what is measured: frames are built once for each mode, and the
one thing done for each piece of audio is to write the time into it.

Two ports are printed as one line of JSON. The first speaks WebSocket: a session is opened, audio is counted, and
after ``turn`` bytes of it one answer is streamed. The second takes lines of JSON, ``{"set": {…}}`` to choose what
happens and ``{}`` to ask; each is answered with the CPU time used so far. It also reports, unasked: ``uplink`` once
``expect`` bytes of audio came, and ``barge`` after each interruption.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import importlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any, cast

now = time.monotonic_ns
MAGIC = b"VXBM"
"""Begins the stamp in a 20 ms frame: this and eight bytes of time, little-endian nanoseconds."""
FRAME_CHARS = 1280
"""Length of a 20 ms frame of 24 kHz PCM16 in base64."""
TEXT = " hello there"
DEFAULTS: dict[str, Any] = {
    "turn": 0, "expect": 0, "stamps": False, "deltas": 0, "delta_bytes": 4800, "pace": 0.0, "barge": False, "calm": 0.02,
}  # fmt: skip


def xor(data: bytes, key: bytes) -> bytes:
    """Return a client's payload without its mask."""
    size = len(data)
    keys = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(keys, "little")).to_bytes(size, "little")


unmasked: Callable[[bytes, bytes], bytes] = xor
with contextlib.suppress(ImportError):
    from websockets.speedups import apply_mask

    unmasked = apply_mask


def stamp() -> bytes:
    """Return the present time as the 16 characters that begin a piece of audio."""
    return base64.b64encode(MAGIC + now().to_bytes(8, "little"))


def framed(payload: bytes, first: int = 0x81) -> bytes:
    """Return a message as the server sends it."""
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65536:
        return bytes((first, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first, 127)) + size.to_bytes(8, "big") + payload


def event(name: str, **fields: Any) -> bytes:
    """Return an event as the server sends it."""
    return framed(json.dumps({"type": name, "event_id": "event_bench", **fields}).encode())


SESSION = {
    "type": "realtime",
    "object": "realtime.session",
    "id": "sess_bench",
    "model": "gpt-realtime",
    "output_modalities": ["audio"],
    "audio": {
        "input": {
            "format": {"type": "audio/pcm", "rate": 24000},
            "turn_detection": {"type": "server_vad", "create_response": True, "interrupt_response": True},
        },
        "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "alloy"},
    },
}
USAGE = {
    "total_tokens": 900,
    "input_tokens": 100,
    "output_tokens": 800,
    "input_token_details": {"text_tokens": 20, "audio_tokens": 80, "cached_tokens": 0},
    "output_token_details": {"text_tokens": 100, "audio_tokens": 700},
}


class Bench:
    """What happens in every session, and what came."""

    def __init__(self) -> None:
        self.mode = dict(DEFAULTS)
        self.n_bytes = 0
        self.first_at = 0
        self.latencies: list[int] = []
        self.controls: list[asyncio.StreamWriter] = []

    def set(self, mode: dict[str, Any]) -> None:
        """Choose what happens from now on."""
        self.mode = {**DEFAULTS, **mode}
        self.n_bytes, self.latencies = 0, []

    def report(self, **facts: Any) -> None:
        """Tell whoever listens on the second port."""
        for writer in self.controls:
            writer.write(json.dumps(facts).encode() + b"\n")


class Session(asyncio.Protocol):
    """One client."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.rest = b""
        self.is_open = False
        self.n_heard = 0
        self.n_responses = 0
        self.answer: asyncio.Task[None] | None = None
        self.may_write = asyncio.Event()
        self.may_write.set()
        self.is_cut = asyncio.Event()
        self.truncated_at = self.cancelled_at = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.answer is not None:
            self.answer.cancel()

    def pause_writing(self) -> None:
        self.may_write.clear()

    def resume_writing(self) -> None:
        self.may_write.set()

    def data_received(self, data: bytes) -> None:
        data = self.rest + data if self.rest else data
        start = 0 if self.is_open else self.upgrade(data)
        while start >= 0 and (end := self.take_frame(data, start)) > start:
            start = end
        self.rest = data[max(start, 0) :]

    def upgrade(self, data: bytes) -> int:
        """Answer the hand-shake and return where the frames begin; -1 while it is incomplete."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return -1
        fields = dict(line.split(b": ", 1) for line in data[:end].split(b"\r\n")[1:])
        key = next(value for name, value in fields.items() if name.lower() == b"sec-websocket-key")
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self.transport.write(head + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        self.transport.write(event("session.created", session=SESSION))
        self.is_open = True
        return end + 4

    def take_frame(self, data: bytes, start: int) -> int:
        """Handle the frame at ``start`` and return where the next one begins; ``start`` while it is incomplete."""
        if len(data) - start < 6:
            return start
        size, body = data[start + 1] & 127, start + 2
        if size >= 126:
            body += 2 if size == 126 else 8
            size = int.from_bytes(data[start + 2 : body], "big")
        end = body + 4 + size
        if end > len(data):  # Also when its length is not all there: that only makes it too small.
            return start
        payload = unmasked(data[body + 4 : end], data[body : body + 4])
        opcode = data[start] & 15
        if opcode == 1:
            self.take_message(payload)
        elif opcode == 8:
            self.transport.write(framed(payload, 0x88))
            self.transport.close()
        elif opcode == 9:
            self.transport.write(framed(payload, 0x8A))
        return end

    def take_message(self, message: bytes) -> None:
        at = message.find(b'"audio":')
        if at >= 0 and b"input_audio_buffer.append" in message[:120] + message[-120:]:
            start = message.index(b'"', at + 8) + 1
            self.take_audio(message, start, message.index(b'"', start))
            return
        content = json.loads(message)
        name, at_ns = content["type"], now()
        if name == "session.update":
            self.transport.write(event("session.updated", session=SESSION))
        elif name == "conversation.item.truncate":
            self.truncated_at = self.truncated_at or at_ns
            self.is_cut.set()
            fields = {key: content[key] for key in ("item_id", "content_index", "audio_end_ms")}
            self.transport.write(event("conversation.item.truncated", **fields))
        elif name == "response.cancel":
            self.cancelled_at = self.cancelled_at or at_ns
            self.is_cut.set()
        elif name == "response.create":
            self.respond()

    def take_audio(self, message: bytes, start: int, end: int) -> None:
        bench, at_ns = self.bench, now()
        n_bytes = (end - start) * 3 // 4 - message.count(b"=", end - 2, end)
        bench.first_at = bench.first_at if bench.n_bytes else at_ns
        bench.n_bytes += n_bytes
        if bench.mode["stamps"]:
            for at in range(start, end, FRAME_CHARS):
                stamped = base64.b64decode(message[at : at + 16])
                if stamped[:4] == MAGIC:
                    bench.latencies.append(at_ns - int.from_bytes(stamped[4:], "little"))
        if 0 < bench.mode["expect"] <= bench.n_bytes:
            bench.mode["expect"] = 0
            bench.report(uplink={"wall_ns": at_ns - bench.first_at, "latencies_ns": bench.latencies})
        self.n_heard += n_bytes
        if 0 < bench.mode["turn"] <= self.n_heard:
            self.respond()

    def respond(self) -> None:
        """Begin an answer, unless one is under way."""
        if self.answer is None:
            self.n_heard = 0
            self.n_responses += 1
            self.answer = asyncio.ensure_future(self.stream(self.n_responses))
            self.answer.add_done_callback(lambda _: setattr(self, "answer", None))

    def item(self, number: int, status: str) -> dict[str, Any]:
        """Return the answer's item."""
        return {
            "id": f"item_a{number}", "object": "realtime.item", "type": "message",
            "status": status, "role": "assistant", "content": [],
        }  # fmt: skip

    def response(self, number: int, status: str) -> dict[str, Any]:
        """Return the answer as such."""
        usage = None if status == "in_progress" else USAGE
        return {
            "id": f"resp_{number}", "object": "realtime.response", "status": status, "output": [],
            "conversation_id": "conv_1", "output_modalities": ["audio"], "usage": usage,
        }  # fmt: skip

    async def stream(self, number: int) -> None:
        """Hear the user's turn and answer it."""
        write, mode = self.transport.write, self.bench.mode
        user = {
            "id": f"item_u{number}",
            "object": "realtime.item",
            "type": "message",
            "role": "user",
            "content": [],
        }
        ids = {"response_id": f"resp_{number}", "item_id": f"item_a{number}", "output_index": 0}
        part = {"type": "audio", "transcript": ""}
        for frame in (
            event("input_audio_buffer.speech_started", audio_start_ms=0, item_id=user["id"]),
            event("input_audio_buffer.speech_stopped", audio_end_ms=100, item_id=user["id"]),
            event("input_audio_buffer.committed", previous_item_id=None, item_id=user["id"]),
            event("conversation.item.added", previous_item_id=None, item=user),
            event("conversation.item.done", previous_item_id=None, item=user),
            event("response.created", response=self.response(number, "in_progress")),
            event(
                "response.output_item.added", response_id=ids["response_id"], output_index=0,
                item=self.item(number, "in_progress"),
            ),
            event("conversation.item.added", previous_item_id=user["id"], item=self.item(number, "in_progress")),
            event("response.content_part.added", content_index=0, part=part, **ids),
        ):  # fmt: skip
            write(frame)
        await self.speak(ids, mode)
        barge = await self.interrupt(number) if mode["barge"] else None
        status = "incomplete" if barge else "completed"
        for frame in (
            event("response.output_audio.done", content_index=0, **ids),
            event("response.output_audio_transcript.done", content_index=0, transcript=TEXT, **ids),
            event("response.content_part.done", content_index=0, part=part, **ids),
            event(
                "response.output_item.done", response_id=ids["response_id"], output_index=0,
                item=self.item(number, status),
            ),
            event("conversation.item.done", previous_item_id=user["id"], item=self.item(number, status)),
            event("response.done", response=self.response(number, "cancelled" if barge else "completed")),
        ):  # fmt: skip
            write(frame)
        if barge:
            await asyncio.sleep(0.02)
            asyncio.get_running_loop().call_later(0.01, lambda: self.bench.report(barge=barge))

    async def speak(self, ids: dict[str, Any], mode: dict[str, Any]) -> None:
        """Stream the audio and a word for every second piece of it."""
        loop, write = asyncio.get_running_loop(), self.transport.write
        word = event(
            "response.output_audio_transcript.delta", content_index=0, delta=TEXT, obfuscation="k2Jx9", **ids
        )
        pcm = (b"\x10\x00\xf0\xff" * (mode["delta_bytes"] // 4 + 1))[: mode["delta_bytes"]]
        audio = bytearray(
            event("response.output_audio.delta", content_index=0, delta=base64.b64encode(pcm).decode(), **ids)
        )
        at, started = audio.index(b'"delta": "') + 10, loop.time()
        for i in range(mode["deltas"]):
            if mode["pace"]:
                await asyncio.sleep(max(started + i * mode["pace"] - loop.time(), 0))
            elif i % 16 == 15:
                await asyncio.sleep(0)
            await self.may_write.wait()
            if i % 2 == 0:
                write(word)
            audio[at : at + 16] = stamp()
            write(bytes(audio))

    async def interrupt(self, number: int) -> dict[str, int]:
        """Say that the user speaks, and note when the client told of its interruption."""
        if self.bench.mode["calm"]:
            await asyncio.sleep(self.bench.mode["calm"])
        self.is_cut.clear()
        self.truncated_at = self.cancelled_at = 0
        speech_at = now()
        self.transport.write(
            event("input_audio_buffer.speech_started", audio_start_ms=900, item_id=f"item_u{number}b")
        )
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.is_cut.wait(), 3)
        await asyncio.sleep(0.03)  # A second message may follow.
        return {"speech_at": speech_at, "truncated_at": self.truncated_at, "cancelled_at": self.cancelled_at}


async def control(bench: Bench, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take commands from one client of the second port."""
    bench.controls.append(writer)
    try:
        while line := await reader.readline():
            command = json.loads(line)
            if "set" in command:
                bench.set(command["set"])
            writer.write(json.dumps({"cpu_s": time.process_time()}).encode() + b"\n")
    finally:
        bench.controls.remove(writer)
        writer.close()


async def main() -> None:
    """Serve until standard input ends."""
    loop, bench = asyncio.get_running_loop(), Bench()
    sessions = await loop.create_server(lambda: Session(bench), "127.0.0.1", 0)
    controls = await asyncio.start_server(lambda r, w: control(bench, r, w), "127.0.0.1", 0)
    ports = {
        "port": sessions.sockets[0].getsockname()[1],
        "control": controls.sockets[0].getsockname()[1],
    }
    print(json.dumps(ports), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    # By name, because the environment that checks the types need not have it.
    try:
        run = importlib.import_module("uvloop").run
    except ImportError:
        run = asyncio.run
    run(main())
