"""Bad peers of a service with an address are made by the kit, whatever the class simulates and wherever its key is."""

from __future__ import annotations

import logging
import os
from typing import Any

import pytest
import websockets

from tests.conformance.test_guide_style import KEY, GuideProvider, check_key, serve
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


async def judged(kind: type[BaseProvider], law: str) -> Result:
    async with websockets.serve(serve, "127.0.0.1", 0, process_request=check_key) as server:
        url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        subject = Subject.of(kind({"metadata": {"endpoint": url}}), settings=QUICK)
        return await run_law(BY_NAME[law], subject)


async def test_key_of_the_environment_can_be_replaced_by_a_wrong_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUIDE_API_KEY", KEY)

    result = await judged(FromTheEnvironment, "refused_credentials_are_named")

    assert (result.outcome, result.reason) == (Outcome.PASSED, "")


async def test_service_that_takes_any_key_refuses_nobody() -> None:
    result = await judged(Open, "refused_credentials_are_named")

    assert (result.outcome, result.skip) == (Outcome.SKIPPED, Skip.UNEQUIPPED)
    assert "a session opens with any" in result.reason


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
