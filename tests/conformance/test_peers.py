"""Bad peers of a service with an address are made by the kit, whatever the class simulates and wherever its key is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
from typing import Any

import pytest
import websockets
from websockets.exceptions import ConnectionClosed, WebSocketException

from tests.conformance.test_guide_style import KEY, GuideProvider, check_key, serve
from voxengine.errors import ConnectionLost
from voxengine.events import EventType
from voxengine.providers.base import BaseProvider
from voxengine.testing import LAWS, FakeProvider, Outcome, Result, Settings, Skip, Subject, run_law, run_laws
from voxengine_mock import MockProvider
from voxengine_mock.emulator import MockEmulator

BY_NAME = {law.name: law for law in LAWS}
WITH_A_BAD_PEER = (
    "send_audio_waits_for_a_slow_service",
    "stalled_session_can_be_closed",
    "refused_credentials_are_named",
    "unreachable_service_is_named",
    "lost_session_ends_exactly_once",
    "failed_connect_leaves_nothing",
    "secrets_are_shown_nowhere",
)
QUICK = Settings(quiet_s=0.1)
QUICKER = Settings(quiet_s=0.1, answer_s=2.0)


@pytest.mark.parametrize("config", [{}, {"api_key": "sk-drive"}], ids=["no key", "a key"])
@pytest.mark.parametrize("law", WITH_A_BAD_PEER)
async def test_mock_over_a_socket_meets_bad_peers(law: str, config: dict[str, Any]) -> None:
    async with MockEmulator(speed=50).running() as url:
        provider = MockProvider({**config, "metadata": {"url": url}})

        result = await run_law(BY_NAME[law], Subject.of(provider, settings=QUICK))

    assert (result.outcome, result.reason) == (Outcome.PASSED, "")


class FromTheEnvironment(GuideProvider):
    """Finds its key in the environment."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__({"api_key": None, **config})
        self.api_key = self.config["api_key"] or os.environ.get("GUIDE_API_KEY")


class Open(FromTheEnvironment):
    """Shows no key, so that any will do."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.api_key = KEY


async def judged(kind: type[BaseProvider], law: str, settings: Settings = QUICK, **options: Any) -> Result:
    async with websockets.serve(serve, "127.0.0.1", 0, process_request=check_key) as server:
        url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        subject = Subject.of(kind({**options, "metadata": {"endpoint": url}}), settings=settings)
        return await run_law(BY_NAME[law], subject)


async def test_key_of_the_environment_can_be_replaced_by_a_wrong_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUIDE_API_KEY", KEY)

    result = await judged(FromTheEnvironment, "refused_credentials_are_named")

    assert (result.outcome, result.reason) == (Outcome.PASSED, "")


async def test_service_that_takes_any_key_refuses_nobody() -> None:
    result = await judged(Open, "refused_credentials_are_named")

    assert (result.outcome, result.skip) == (Outcome.SKIPPED, Skip.UNEQUIPPED)
    assert "a session opens with any" in result.reason


class Redialling(GuideProvider):
    """Opens another connection by itself, and says again there what was not answered."""

    _unanswered = ""

    async def send_text(self, text: str) -> None:
        self._unanswered = text
        with contextlib.suppress(ConnectionClosed):
            await super().send_text(text)

    async def _handle_responses(self) -> None:
        while True:
            with contextlib.suppress(ConnectionClosed):
                await super()._handle_responses()
            try:
                self.connection = await self._dial()
            except (OSError, WebSocketException):
                self.tell_loss()
                return
            if self._unanswered:
                await super().send_text(self._unanswered)

    async def _dial(self) -> websockets.ClientConnection:
        return await websockets.connect(self.endpoint, additional_headers={"Api-Key": self.api_key})

    def tell_loss(self) -> None:
        self.emit_event(EventType.CONNECTION_LOST, {"error": ConnectionLost("It is gone.", provider="guide")})

    def emit_event(self, event: Any, data: Any = None) -> None:
        super().emit_event(event, data)
        if event == EventType.TEXT_OUTPUT:
            self._unanswered = ""


class Patient(Redialling):
    """Says nothing of a service that has gone for good."""

    def tell_loss(self) -> None:
        pass


class Forgetful(Redialling):
    """Opens another connection when it is used, and forgets what for."""

    async def send_text(self, text: str) -> None:
        try:
            await GuideProvider.send_text(self, text)
        except ConnectionClosed:
            self.connection = await self._dial()
            self._is_back.set()

    async def _handle_responses(self) -> None:
        self._is_back = asyncio.Event()
        while True:
            with contextlib.suppress(ConnectionClosed):
                await GuideProvider._handle_responses(self)
            await self._is_back.wait()
            self._is_back.clear()


class Lamenting(Redialling):
    """Reports its one loss twice."""

    def tell_loss(self) -> None:
        super().tell_loss()
        super().tell_loss()


async def test_session_that_dials_again_and_loses_nothing_is_right() -> None:
    result = await judged(Redialling, "lost_session_ends_exactly_once", QUICKER, api_key=KEY)

    assert (result.outcome, result.reason) == (Outcome.PASSED, "")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Patient, "cut the connection for good, .* nobody was told"),
        (Forgetful, "a turn was lost, and nobody was told"),
        (Lamenting, "reported 2 times"),
    ],
)
async def test_session_that_dials_again_and_hides_a_loss_is_wrong(
    kind: type[BaseProvider], reason: str
) -> None:
    result = await judged(kind, "lost_session_ends_exactly_once", QUICKER, api_key=KEY)

    assert result.outcome is Outcome.FAILED
    assert re.search(reason, result.reason), result.reason


class Whispering(FakeProvider):
    """Logs the key that it found in the environment."""

    async def connect(self) -> None:
        if not self.config.get("api_key"):
            logging.getLogger("acme").info("key %s", os.environ["ACME_API_KEY"])
        await super().connect()


def test_key_of_the_environment_is_a_secret_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_API_KEY", "sk-of-the-environment")
    laws = [BY_NAME["secrets_are_shown_nowhere"]]

    report = run_laws(Subject.of(Whispering({})), laws=laws, clock="virtual")

    assert report.results[0].reason == "A credential is in a log record of acme."


class Printed(FakeProvider):
    def __repr__(self) -> str:
        return f"Printed({self.config})"


@pytest.mark.parametrize("before", ["", "new_instance_is_not_connected", "turn_is_answered"])
def test_verdict_on_secrets_does_not_depend_on_what_was_judged_before(before: str) -> None:
    laws = [BY_NAME[name] for name in (before, "secrets_are_shown_nowhere") if name]
    subject = Subject.of(Printed({"api_key": "sk-conformance-secret", "metadata": {}}))

    report = run_laws(subject, laws=laws, clock="virtual")

    assert report.results[-1].outcome is Outcome.FAILED
