"""Pipecat: a pipeline from a source through its OpenAI realtime service to a player."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from loguru import logger
from pipecat.frames.frames import InputAudioRawFrame, InterruptionFrame, TTSAudioRawFrame, TTSTextFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.workers.runner import WorkerRunner

PIP = ["pipecat-ai[openai]"]
DISTS = ["pipecat-ai", "websockets", "pydantic"]
logger.remove()
logger.add(sys.stderr, level="ERROR")


class Source(FrameProcessor):
    """Where audio enters the pipeline."""

    async def process_frame(self, frame: Any, direction: Any) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)


class Player(FrameProcessor):
    """Where it leaves."""

    def __init__(self, sink: Any) -> None:
        super().__init__()
        self.sink = sink

    async def process_frame(self, frame: Any, direction: Any) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            self.sink.audio(frame.audio)
        elif isinstance(frame, InterruptionFrame):
            self.sink.stop()
        elif isinstance(frame, TTSTextFrame):
            self.sink.text(frame.text)
        await self.push_frame(frame, direction)


class Session:
    """One pipeline."""

    def __init__(self, sink: Any) -> None:
        self.sink = sink

    async def open(self, url: str) -> None:
        context = LLMContextAggregatorPair(LLMContext())
        service = OpenAIRealtimeLLMService(api_key="bench", base_url=url + "/v1/realtime")
        self.source = Source()
        steps = [self.source, context.user(), service, Player(self.sink), context.assistant()]
        params = PipelineParams(audio_in_sample_rate=24000, audio_out_sample_rate=24000)
        self.worker = PipelineWorker(Pipeline(steps), params=params)
        has_started = asyncio.Event()

        async def started(*_: object) -> None:
            has_started.set()

        self.worker.event_handler("on_pipeline_started")(started)
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(self.worker)
        self.task = asyncio.create_task(runner.run())
        await has_started.wait()

    async def send(self, pcm: bytes) -> None:
        await self.source.push_frame(InputAudioRawFrame(audio=pcm, sample_rate=24000, num_channels=1))

    async def close(self) -> None:
        await self.worker.cancel()
