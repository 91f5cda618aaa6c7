"""Acme Voice: repeats what it is told, with a beep for each word, in its own process."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, ClassVar

from voxengine import AudioFormat, BaseProvider, Capabilities, EventType, NotConnected, partial
from voxengine.capabilities import FULL, UNSUPPORTED

FORMAT = AudioFormat(24_000)
WORD_S = 0.05
BEEP = (b"\x00\x10" * 30 + b"\x00\xf0" * 30) * 20  # 50 ms.
numbers = itertools.count(1)


class AcmeProvider(BaseProvider):
    provider_api = 1
    capabilities: ClassVar[Capabilities] = Capabilities(
        streaming=FULL,
        dialogue=FULL,
        recognition=UNSUPPORTED,
        synthesis=partial("a beep for each word"),
        text_turn=FULL,
        server_turn_detection=UNSUPPORTED,
        semantic_turn_detection=UNSUPPORTED,
        cancel=FULL,
        response_boundaries=FULL,
        emotion=UNSUPPORTED,
        input_formats=(FORMAT,),
        output_formats=(FORMAT,),
        cost_per_minute_usd=0.0,
    )

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.prefix = "You said:"
        self.answers: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.is_open = False
        self.response_id = ""
        self.heard_bytes = 0
        self.n_words = 0

    async def connect(self) -> None:
        self.prefix = self.config.get("instructions") or self.prefix
        self.session_id = f"acme-{next(numbers)}"
        self.is_open = True
        self.start_task(self._answer_all(), name="acme answers")
        self.emit_event(EventType.CONNECTION_ESTABLISHED, {"session_id": self.session_id})

    async def disconnect(self) -> None:
        self.is_open = False

    async def send_audio(self, audio_data: bytes) -> None:
        self._check_open()
        FORMAT.check_aligned(len(audio_data), "send_audio")
        self.heard_bytes += len(audio_data)

    async def send_text(self, text: str) -> None:
        self._check_open()
        n_times = 100 if "long" in text else 1
        self.answers.put_nowait(("text", f"{self.prefix} {' '.join([text] * n_times)}"))

    async def end_turn(self, respond: bool = True) -> None:
        self._check_open()
        heard_ms, self.heard_bytes = FORMAT.duration_ms(self.heard_bytes), 0
        if respond:
            self.answers.put_nowait(("audio", f"I heard {heard_ms:.0f} milliseconds."))

    async def interrupt(self) -> None:  # type: ignore[override]
        self._check_open()
        response_id, self.response_id = self.response_id, ""
        if response_id:
            data = {"response_id": response_id, "reason": "interrupted"}
            self.emit_event(EventType.RESPONSE_CANCELLED, data)

    async def configure_session(self, config: dict[str, Any]) -> None:
        self._check_open()
        self.prefix = config.get("instructions") or self.prefix
        self.emit_event(EventType.SESSION_UPDATED, {"settings": {"instructions": self.prefix}})

    async def get_usage(self) -> dict[str, Any]:
        return {"output_words": self.n_words}

    def _check_open(self) -> None:
        if not self.is_open:
            raise NotConnected("acme has no session. Call connect() first.")

    async def _answer_all(self) -> None:
        while True:
            trigger, text = await self.answers.get()
            self.response_id = response_id = f"answer-{next(numbers)}"
            ids = {"response_id": response_id, "item_id": f"item-of-{response_id}"}
            self.emit_event(EventType.RESPONSE_STARTED, {"response_id": response_id, "trigger": trigger})
            said = ""
            for word in text.split():
                said, delta = f"{said} {word}".strip(), f" {word}" if said else word
                words = {"text": said, "delta": delta, "is_partial": True}
                self.emit_event(EventType.TEXT_OUTPUT, {**words, **ids})
                sound = {"audio_data": BEEP, "sample_rate": FORMAT.sample_rate, "channels": 1}
                self.emit_event(EventType.AUDIO_OUTPUT_CHUNK, {**sound, **ids})
                self.n_words += 1
                await asyncio.sleep(WORD_S)
                if self.response_id != response_id:
                    break  # Interrupted, and said so.
            else:
                final = {"text": said, "delta": "", "is_partial": False}
                self.emit_event(EventType.TEXT_OUTPUT, {**final, **ids})
                self.response_id = ""
                self.emit_event(EventType.RESPONSE_COMPLETED, {"response_id": response_id})
