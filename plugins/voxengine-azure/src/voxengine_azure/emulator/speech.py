"""The emulator of the Speech service: its paths, its keys and tokens, and its other requests."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

from voxengine.testing.emulator import (
    Emulator,
    EmulatorSession,
    HttpRequest,
    HttpResponse,
    HttpRoute,
    SessionHandler,
)
from voxengine_azure.emulator.speech_recognition import Recogniser
from voxengine_azure.emulator.speech_synthesis import Synthesiser
from voxengine_mock.ids import id_factory

__all__ = ["AzureSpeechEmulator"]

TOKEN_LIFE_S: Final = 600.0
_RECOGNITION: Final = (
    "/speech/recognition/interactive/cognitiveservices/v1",
    "/speech/recognition/conversation/cognitiveservices/v1",
    "/speech/recognition/dictation/cognitiveservices/v1",
    "/speech/universal/v2",
)
_SYNTHESIS: Final = ("/cognitiveservices/websocket/v1", "/cognitiveservices/websocket/v2")
_REFUSALS: Final = {
    401: "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key "
    "for an active subscription and use a correct regional API endpoint for your resource.",
    429: "Quota exceeded or too many requests.",
}
_VOICES: Final = (
    ("en-US-JennyNeural", "Female"),
    ("en-US-AriaNeural", "Female"),
    ("en-US-GuyNeural", "Male"),
    ("en-GB-SoniaNeural", "Female"),
    ("de-DE-KatjaNeural", "Female"),
    ("fr-FR-DeniseNeural", "Female"),
)


class AzureSpeechEmulator(Emulator):
    """Serves recognition and synthesis at the paths that the official clients ask for, and issues tokens."""

    name: ClassVar[str] = "azure-speech"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._tokens: dict[str, float] = {}

    def websocket_routes(self) -> Mapping[str, SessionHandler]:
        # The official clients put a prefix before the path when they are given an address without one.
        found: dict[str, SessionHandler] = {}
        for paths, prefix, handler in (
            (_RECOGNITION, "/stt", self._recognise),
            (_SYNTHESIS, "/tts", self._synthesise),
        ):
            for path in paths:
                found[path] = found[prefix + path] = handler
        return found

    def http_routes(self) -> Mapping[tuple[str, str], HttpRoute]:
        voices = HttpRoute(self._list_voices)
        return {
            ("POST", "/sts/v1.0/issueToken"): HttpRoute(self._issue_token),
            ("POST", "/sts/v1.0/issuetoken"): HttpRoute(self._issue_token),
            ("GET", "/cognitiveservices/voices/list"): voices,
            ("GET", "/tts/cognitiveservices/voices/list"): voices,
        }

    def key_of(self, request: HttpRequest) -> str | None:
        """Return the key; for a token that was issued here and still holds, the emulator's own."""
        # The JavaScript client on Node repeats its headers in the query.
        sent = {**{name.lower(): value for name, value in request.query.items()}, **request.headers}
        key = sent.get("ocp-apim-subscription-key")
        scheme, _, token = sent.get("authorization", "").partition(" ")
        if key is None and scheme.lower() == "bearer":
            ends = self._tokens.get(token.strip())
            if ends is not None and asyncio.get_running_loop().time() < ends:
                return self.key
        return key

    def refuse(self, status: int, code: str, message: str) -> HttpResponse:
        body = {"error": {"code": str(status), "message": _REFUSALS.get(status, message)}}
        return HttpResponse(
            status=status, headers={"Content-Type": "application/json"}, body=json.dumps(body).encode()
        )

    async def _issue_token(self, _: HttpRequest) -> HttpResponse:
        now = asyncio.get_running_loop().time()
        self._tokens = {token: ends for token, ends in self._tokens.items() if ends > now}
        token = secrets.token_urlsafe(32)
        self._tokens[token] = now + TOKEN_LIFE_S
        return HttpResponse(headers={"Content-Type": "application/jwt"}, body=token.encode())

    async def _list_voices(self, _: HttpRequest) -> HttpResponse:
        found = [
            {"Name": name, "ShortName": name, "Gender": gender, "Locale": name[:5], "VoiceType": "Neural"}
            for name, gender in _VOICES
        ]
        return HttpResponse.of_json(found)

    async def _recognise(self, session: EmulatorSession) -> None:
        await Recogniser(session, _hex_ids(session)).run()

    async def _synthesise(self, session: EmulatorSession) -> None:
        await Synthesiser(session, _hex_ids(session)).run()


def _hex_ids(session: EmulatorSession) -> Callable[[str], str]:
    """Return a ``new_id`` that gives 32 hexadecimal digits."""
    new_id = id_factory(session.script.seed)
    return lambda prefix: hashlib.blake2s(new_id(prefix).encode(), digest_size=16).hexdigest()
