"""The emulator of the mock's own protocol: the simulated agent behind a real socket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from voxengine.testing.emulator import (
    Emulator,
    EmulatorSession,
    HttpResponse,
    SessionHandler,
)
from voxengine_mock.agent import SimulatedAgent
from voxengine_mock.ids import id_factory
from voxengine_mock.refusals import refusal_body

__all__ = ["MockEmulator"]


class MockEmulator(Emulator):
    """Serves the simulated agent at every path."""

    name: ClassVar[str] = "mock"

    def websocket_routes(self) -> Mapping[str, SessionHandler]:
        return {"/*": self._talk}

    def refuse(self, status: int, code: str, message: str) -> HttpResponse:
        body = refusal_body(code, message)
        return HttpResponse(status=status, headers={"Content-Type": "application/json"}, body=body)

    async def _talk(self, session: EmulatorSession) -> None:
        new_id = id_factory(session.script.seed)
        agent = SimulatedAgent(session, session.script, new_id, faults=session.faults, log=session.log)
        await agent.run()
