"""What the user said, as text: it comes after the item that holds the audio."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from typing import Any, Final

from voxengine_mock.happenings import Failed, Heard
from voxengine_openai.emulator.errors import error_of
from voxengine_openai.emulator.items import Item
from voxengine_openai.emulator.outlet import Outlet
from voxengine_openai.emulator.usage import Meter

__all__ = ["Transcripts"]

_PREFIX: Final = "conversation.item.input_audio_transcription"
_LIVE: Final = ("gpt-live-transcribe", "gpt-realtime-whisper")
"""Models that give text while the user speaks."""
_WHOLE: Final = ("whisper-1",)
"""Models that give all of it at once."""
_ITEMS_KEPT: Final = 64
_LOGPROBS: Final = "item.input_audio_transcription.logprobs"


class Transcripts:
    """The transcriptions of one session."""

    def __init__(self, outlet: Outlet, meter: Meter) -> None:
        self._outlet = outlet
        self._meter = meter
        self._model: str | None = None
        self._has_logprobs = False
        self._items: dict[str, Item] = {}
        """Committed, and without their text."""
        self._early: dict[str, str | Failed] = {}
        """Texts and failures that are there before their item is."""
        self._shown: dict[str, str] = {}

    def configure(
        self, transcription: Mapping[str, Any] | None, include: Collection[str] | None = None
    ) -> None:
        """Transcribe from here on by this setting; None: not at all.

        Args:
            include: What the session wants told besides.
        """
        self._model = None if transcription is None else str(transcription.get("model") or "gpt-transcribe")
        # whisper-1 has none: https://platform.openai.com/docs/guides/speech-to-text#logprobs
        self._has_logprobs = _LOGPROBS in (include or ()) and self._model not in _WHOLE

    async def heard(self, heard: Heard) -> None:
        """Take what was understood so far, or all of it."""
        if self._model is None:
            return
        if heard.is_partial:
            if self._model in _LIVE:
                await self._show(heard.item_id, heard.text)
        elif heard.item_id in self._items:
            await self._complete(self._items.pop(heard.item_id), heard.text)
        else:
            self._early[heard.item_id] = heard.text

    async def failed(self, failed: Failed) -> None:
        """There will be no text of an utterance; its item stays as it is."""
        if self._model is None:
            return
        self._shown.pop(failed.item_id, None)
        if self._items.pop(failed.item_id, None) is None:
            self._early[failed.item_id] = failed
            return
        why = error_of(failed).to_dict()
        del why["event_id"]
        await self._outlet.emit(f"{_PREFIX}.failed", item_id=failed.item_id, content_index=0, error=why)

    async def committed(self, item: Item) -> None:
        """The item is in the conversation: its text may come."""
        if self._model is None:
            return
        early = self._early.pop(item.item_id, None)
        if not isinstance(early, Failed) and (early is not None or not item.text):
            await self._complete(item, early or "")
            return
        self._items[item.item_id] = item
        if isinstance(early, Failed):
            await self.failed(early)
        while len(self._items) > _ITEMS_KEPT:
            del self._items[next(iter(self._items))]

    async def _show(self, item_id: str, text: str) -> None:
        shown = self._shown.get(item_id, "")
        # A delta can only add: what takes back earlier words is left to the whole text.
        if text.startswith(shown) and text != shown:
            self._shown[item_id] = text
            await self._delta(item_id, text[len(shown) :])

    async def _delta(self, item_id: str, delta: str) -> None:
        more = {"logprobs": _logprobs(delta)} if self._has_logprobs else {}
        await self._outlet.emit(f"{_PREFIX}.delta", item_id=item_id, content_index=0, delta=delta, **more)

    async def _complete(self, item: Item, text: str) -> None:
        model = self._model or ""
        shown = self._shown.pop(item.item_id, "")
        rest = text[len(shown) :] if text.startswith(shown) else ""
        if rest and model in _WHOLE:
            await self._delta(item.item_id, rest)
        else:
            for n, word in enumerate(rest.split(" ") if rest else ()):
                if word or n:
                    await self._delta(item.item_id, f" {word}" if n else word)
        if "diarize" in model and text:
            await self._outlet.emit(
                f"{_PREFIX}.segment",
                item_id=item.item_id,
                content_index=0,
                id=self._outlet.new_id("seg_"),
                speaker="A",
                start=0.0,
                end=item.audio_ms / 1000,
                text=text,
            )
        item.fields["content"][0]["transcript"] = text
        await self._outlet.emit(
            f"{_PREFIX}.completed",
            item_id=item.item_id,
            content_index=0,
            transcript=text,
            **({"logprobs": _logprobs(text)} if self._has_logprobs else {}),
            usage=self._meter.transcription(model, text, item.audio_ms),
            **self.details_of(item),
        )

    def details_of(self, item: Item) -> Mapping[str, Any]:
        """Return what a service tells besides about a finished transcript."""
        return {}


def _logprobs(text: str) -> list[dict[str, Any]]:
    """Return one entry for each word with the space before it: the same word is always as likely."""
    tokens = [f" {word}" if n else word for n, word in enumerate(text.split(" "))] if text else []
    return [
        {
            "token": token,
            "bytes": list(token.encode(errors="replace")),
            "logprob": -round(zlib.crc32(token.strip().encode(errors="replace")) % 1000 / 2000, 4),
        }
        for token in tokens
    ]
