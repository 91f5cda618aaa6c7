"""No secret, and nothing that was said, is in a representation, a log or an error."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import websockets

from voxengine import BaseProvider, Event, EventType, VoiceEngine, VoiceEngineConfig
from voxengine.errors import VoxEngineError
from voxengine.providers.registry import ProviderRegistry
from voxengine.testing import run_virtual
from voxengine_mock import MockProvider

KEY = "sk-SENTINEL-7f3a9c"
TOKEN = "tok-SENTINEL-51be"
WORDS = "WORDS-SENTINEL were said"
METADATA = {
    "endpoint": f"wss://user:{TOKEN}@example.invalid/v1?token={TOKEN}&x=1",
    "headers": {"X-Api-Key": TOKEN},
    "session": {"client_secret": {"value": TOKEN}},
}
BLURT = (
    f"refused {KEY} with header X-Api-Key: {TOKEN} at wss://example.invalid/v1?token={TOKEN} after {WORDS}"
)


class Leaky(BaseProvider):
    """A provider whose every exception and message quotes what it should not."""

    fails_in = ""

    def fail(self, where: str) -> None:
        if self.fails_in == where:
            raise RuntimeError(BLURT)

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.fail("init")
        if self.fails_in == "missing key":
            config["metadata"][KEY]

    async def connect(self) -> None:
        self.fail("connect")
        if self.fails_in == "os error":
            raise OSError(111, BLURT)
        if self.fails_in == "lost":
            self.start_task(self.lose())

    async def lose(self) -> None:
        self.emit_event(EventType.CONNECTION_LOST, {"error": RuntimeError(BLURT)})

    async def disconnect(self) -> None:
        self.fail("disconnect")

    async def send_audio(self, audio_data: bytes) -> None:
        self.fail("send_audio")

    async def send_text(self, text: str) -> None:
        self.fail("send_text")
        self.emit_event(EventType.TEXT_OUTPUT, {"text": WORDS, "is_partial": False})

    async def interrupt(self) -> None:  # type: ignore[override]
        self.fail("interrupt")

    async def configure_session(self, config: dict[str, Any]) -> None:
        self.fail("configure_session")

    async def get_usage(self) -> dict[str, Any] | None:
        self.fail("get_usage")
        return None


class Shown:
    """Everything that a program could print or keep: representations, messages, the log."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.errors: list[BaseException] = []

    def add(self, *values: object) -> None:
        for value in values:
            self.texts += [repr(value), f"{value}"]
            if isinstance(value, BaseException):
                self.errors.append(value)
                self.texts += [repr(vars(value))]

    def take(self, event: Event) -> None:
        self.add(event)
        for name in ("error", "message", "reason", "context", "handler"):
            if name in event.data:
                self.add(event.data[name])

    def holding(self, *secrets: str) -> list[str]:
        return [text for text in self.texts if any(secret in text for secret in secrets)]


@pytest.fixture
def shown(caplog: pytest.LogCaptureFixture) -> Iterator[Shown]:
    collected = Shown()
    with caplog.at_level(logging.DEBUG):
        yield collected
        collected.texts += [record.getMessage() for record in caplog.records]


async def converse(shown: Shown, config: VoiceEngineConfig, registry: ProviderRegistry) -> None:
    """Do everything once, keep on after failures, and collect what can be seen."""
    engine = VoiceEngine(config, registry=registry)
    engine.events.on("*", shown.take)
    steps: list[Callable[[], Awaitable[Any]]] = [
        engine.connect,
        lambda: engine.send_text(WORDS),
        engine.interrupt,
        lambda: engine.send_audio(bytes(960)),
        lambda: asyncio.sleep(1),
        lambda: engine.configure_session(instructions="Be kind."),
        engine.get_usage,
        lambda: engine.wait_idle(timeout_s=5),
        engine.disconnect,
    ]
    for step in steps:
        try:
            await step()
        except VoxEngineError as error:
            shown.add(error)
        shown.add(engine, engine.session, engine.config, engine.metrics, engine.history, engine.events)
        if engine.session is not None:
            shown.add(engine.session.config, engine.session.provider, engine.session.settings)
        shown.add(*engine.history.items, engine.metrics.to_dict())


# Where it fails, and what is seen of that all the same.
SEEN = {
    "nothing": "TextOutput",
    "init": "RuntimeError: refused",
    "missing key": "misses",
    "connect": "connect() failed: RuntimeError",
    "os error": "connect() failed: ConnectionRefusedError",
    "lost": "ended the session",
    "send_text": "send_text() failed: RuntimeError",
    "send_audio": "send_audio() failed: RuntimeError",
    "interrupt": "interrupt() failed: RuntimeError",
    "configure_session": "configure_session() failed: RuntimeError",
    "get_usage": "get_usage() failed: RuntimeError",
    "disconnect": "disconnect() failed: RuntimeError",
}


@pytest.mark.parametrize("fails_in", SEEN)
def test_nothing_that_can_be_seen_of_a_failing_provider_holds_a_secret(
    fails_in: str, shown: Shown, caplog: pytest.LogCaptureFixture
) -> None:
    registry = ProviderRegistry()
    registry.register("leaky", type("Leaky", (Leaky,), {"fails_in": fails_in}))
    config = VoiceEngineConfig(
        provider="leaky",
        api_key=KEY,
        metadata=METADATA,
        fallbacks=(VoiceEngineConfig(provider="other", api_key=KEY, metadata=METADATA),),
    )

    run_virtual(converse(shown, config, registry))
    shown.texts.append(caplog.text)

    assert shown.holding(KEY, TOKEN) == []
    assert SEEN[fails_in] in "\n".join(shown.texts), "the provider was to fail, and nobody saw it"


def test_nothing_that_was_said_is_in_a_representation_or_in_the_log(
    shown: Shown, caplog: pytest.LogCaptureFixture
) -> None:
    config = VoiceEngineConfig(provider="mock", metadata={"hears": [WORDS], "default": WORDS})
    registry = ProviderRegistry()
    registry.register("mock", MockProvider)

    run_virtual(converse(shown, config, registry))
    shown.texts.append(caplog.text)

    assert shown.holding("WORDS-SENTINEL") == []


def test_handler_that_raises_with_what_was_said_does_not_log_it(caplog: pytest.LogCaptureFixture) -> None:
    async def talk() -> None:
        async with VoiceEngine(VoiceEngineConfig(provider="mock")) as engine:

            @engine.events.on(EventType.TEXT_OUTPUT)
            def quote(event: Event) -> None:
                raise ValueError(event.text)

            await engine.send_text(WORDS)
            await engine.wait_idle()

    with caplog.at_level(logging.DEBUG):
        run_virtual(talk())

    assert "quote" in caplog.text
    assert "WORDS-SENTINEL" not in caplog.text


@pytest.mark.parametrize("status", [401, 403, 429, 500])
def test_refusal_that_quotes_the_key_is_told_without_it(
    status: int, shown: Shown, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    async def talk() -> None:
        async with websockets.serve(
            lambda connection: connection.wait_closed(),
            "127.0.0.1",
            0,
            process_request=lambda connection, request: connection.respond(HTTPStatus(status), BLURT),
        ) as server:
            port = server.sockets[0].getsockname()[1]
            url = f"ws://127.0.0.1:{port}/v1?token={TOKEN}"
            config = VoiceEngineConfig(provider="mock", api_key=KEY, metadata={"url": url})
            registry = ProviderRegistry()
            registry.register("mock", MockProvider)
            await converse(shown, config, registry)

    run_virtual(talk())
    shown.texts += [record.getMessage() for record in caplog.records if record.name.startswith("voxengine")]

    assert shown.holding(KEY, TOKEN) == []
    assert shown.errors


@pytest.mark.parametrize(
    "arguments",
    [
        ("--url", f"ws://127.0.0.1:9/v1?token={TOKEN}", "--text", "Hello"),
        ("--metadata", f'headers={{X-Key="{TOKEN}"}}', "--text", "Hello"),
        ("--metadata", f"url={TOKEN}", "--text", "Hello"),
        ("--metadata", f"pace={TOKEN}", "--text", "Hello"),
    ],
)
def test_command_line_repeats_no_secret(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "voxengine", "talk", "--provider", "mock", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "no_proxy": "127.0.0.1"},
    )

    assert done.returncode != 0
    assert TOKEN not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
