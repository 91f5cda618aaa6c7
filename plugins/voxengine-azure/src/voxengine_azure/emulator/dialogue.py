"""What the emulators of the dialogue services have in common: how a client shows its key, how one is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from voxengine.testing.emulator import HttpRequest, HttpResponse, HttpRoute
from voxengine_openai.emulator.server import OpenAIEmulator

__all__ = ["AzureDialogueEmulator"]

_REFUSALS: Final = {
    401: "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an "
    "active subscription and use a correct regional API endpoint for your resource.",
    429: "Requests have exceeded the rate limit of your resource.",
}


class AzureDialogueEmulator(OpenAIEmulator):
    """Takes the key in the header or the query ``api-key``, or as a token."""

    def given_key(self, request: HttpRequest) -> str | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return token.strip()
        return request.headers.get("api-key") or request.query.get("api-key")

    def http_routes(self) -> Mapping[tuple[str, str], HttpRoute]:
        return {("GET", "/health"): HttpRoute(self._health, needs_key=False)}

    def refuse(self, status: int, code: str, message: str) -> HttpResponse:
        error = {"code": str(status), "message": _REFUSALS.get(status, message)}
        return HttpResponse.of_json({"error": error}, status)
