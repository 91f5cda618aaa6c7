"""The emulator: its paths, keys and plain requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from voxengine.testing.emulator import (
    DEFAULT_KEY,
    Emulator,
    EmulatorSession,
    HttpRequest,
    HttpResponse,
    HttpRoute,
    SessionHandler,
)
from voxengine_mock.ids import id_factory
from voxengine_openai.dialects import BETA
from voxengine_openai.emulator.config import OPENAI, Profile
from voxengine_openai.emulator.errors import Refused, vendor_code
from voxengine_openai.emulator.secrets import ClientSecrets
from voxengine_openai.emulator.session import RealtimeSession

__all__ = ["OpenAIEmulator"]

_KEY_PROTOCOL: Final = "openai-insecure-api-key."
_BETA_PROTOCOL: Final = "openai-beta.realtime-v1"
_SESSION_LIMIT_S: Final = 3600.0
_COMPATIBLE: Final = "/realtime"
_COMPATIBLE_PROFILE: Final = Profile()
_BETA_PROFILE: Final = Profile(dialect=BETA, is_strict=False)
_REFUSED_CODE: Final = 4000


class OpenAIEmulator(Emulator):
    """OpenAI Realtime at ``/v1/realtime``, and a compatible service at ``/realtime``.

    The compatible one takes any model and voice, its key also in the header ``api-key`` or the query
    (``api-key``, ``api_key``, ``key``), and speaks the beta dialect to clients that ask for it with
    ``OpenAI-Beta: realtime=v1``; the service itself refuses those.

    Args:
        session_limit_s: How long a session may take.

    A package for another service that speaks the protocol makes a subclass: ``paths``, :meth:`profile_of`,
    :meth:`kind_of`, :meth:`model_of`, :meth:`given_key` and ``session_class`` are what differs.
    """

    name: ClassVar[str] = "openai"
    url_path: ClassVar[str] = "/v1"
    subprotocols: ClassVar[tuple[str, ...]] = ("realtime",)
    default_script: ClassVar[Mapping[str, Any]] = {
        "usage": {"per_word": 1, "input_audio_per_s": 10, "output_audio_per_s": 20}
    }
    max_message_bytes: ClassVar[int] = 21 * 2**20
    paths: ClassVar[tuple[str, ...]] = ("/v1/realtime", _COMPATIBLE)
    """Where sessions are opened; client secrets are made below."""
    session_class: ClassVar[type[RealtimeSession]] = RealtimeSession

    def __init__(
        self,
        *,
        key: str = DEFAULT_KEY,
        script: str | Path | Mapping[str, Any] | None = None,
        speed: float | None = None,
        faults: Iterable[str | Mapping[str, Any]] = (),
        session_limit_s: float = _SESSION_LIMIT_S,
    ) -> None:
        super().__init__(key=key, script=script, speed=speed, faults=faults)
        self.session_limit_s = session_limit_s
        self.secrets = ClientSecrets()

    # -- what differs from service to service ---------------------------------------------------

    def profile_of(self, request: HttpRequest) -> Profile:
        """Return what holds for a session. Raises Refused when there is to be none."""
        is_beta = self._asks_for_beta(request)
        if request.path.startswith(_COMPATIBLE):
            return _BETA_PROFILE if is_beta else _COMPATIBLE_PROFILE
        if is_beta:
            raise Refused(
                "The Realtime Beta API is no longer supported. Use the GA Realtime API, without the header "
                "OpenAI-Beta.",
                "beta_api_shape_disabled",
            )
        return OPENAI

    def kind_of(self, request: HttpRequest) -> str:
        """Return ``realtime`` or ``transcription``. A request with a model opens a conversation."""
        is_other = request.query.get("intent") == "transcription" and not request.query.get("model")
        return "transcription" if is_other else "realtime"

    def model_of(self, request: HttpRequest) -> str:
        """Return the model that a request names. Raises Refused when it has to name one."""
        model = request.query.get("model", "")
        if model or "call_id" in request.query or request.path == _COMPATIBLE:
            return model or "gpt-realtime"
        raise Refused("You must provide a model parameter.", "missing_model", "model")

    def given_key(self, request: HttpRequest) -> str | None:
        """Return the key as the client gave it."""
        found = super().key_of(request)
        for name in request.subprotocols:
            if found is None and name.startswith(_KEY_PROTOCOL):
                found = name.removeprefix(_KEY_PROTOCOL)
        if found is None and request.path == _COMPATIBLE:
            found = request.headers.get("api-key")
            for name in ("api-key", "api_key", "key"):
                found = found or request.query.get(name)
        return found

    # -- the harness's questions ----------------------------------------------------------------

    def websocket_routes(self) -> Mapping[str, SessionHandler]:
        return dict.fromkeys(self.paths, self._talk)

    def http_routes(self) -> Mapping[tuple[str, str], HttpRoute]:
        secrets = {("POST", f"{path}/client_secrets"): HttpRoute(self._make_secret) for path in self.paths}
        return {**secrets, ("GET", "/health"): HttpRoute(self._health, needs_key=False)}

    def key_of(self, request: HttpRequest) -> str | None:
        key = self.given_key(request)
        if key is None:
            return None if self.key else ""
        # A client secret opens a session and nothing else, in the name of the key that it was made with.
        return self.key if request.method == "GET" and self.secrets.find(key) else key

    def refuse(self, status: int, code: str, message: str) -> HttpResponse:
        kind, vendor = vendor_code(code)
        why = Refused(message, vendor, kind=kind).to_dict()
        del why["event_id"]
        return HttpResponse.of_json({"error": why}, status)

    async def _health(self, _: HttpRequest) -> HttpResponse:
        return HttpResponse.of_json({"emulator": self.name, "status": "ready"})

    async def _make_secret(self, request: HttpRequest) -> HttpResponse:
        try:
            return self.secrets.make(request, self.profile_of(request))
        except Refused as why:
            return HttpResponse.of_json({"error": why.to_dict()}, 400)

    async def _talk(self, connection: EmulatorSession) -> None:
        new_id = id_factory(connection.script.seed)
        request = connection.request
        secret = self.secrets.find(self.given_key(request))
        refused: Refused | None = None
        profile, kind, model = OPENAI, "realtime", ""
        try:
            profile = self.profile_of(request)
            if secret is not None:
                kind, model = secret.kind, secret.model
            else:
                kind = self.kind_of(request)
                model = self.model_of(request) if kind == "realtime" else ""
        except Refused as why:
            refused = why
        session = self.session_class(
            connection,
            new_id,
            profile=profile,
            kind=kind,
            model=model,
            start=None if secret is None else secret.session,
            limit_s=self.session_limit_s,
        )
        if refused is None:
            await session.run()
            return
        await session.outlet.refuse(refused)
        await connection.close(_REFUSED_CODE, f"{refused.kind}.{refused.code}")

    def _asks_for_beta(self, request: HttpRequest) -> bool:
        return "realtime" in request.headers.get("openai-beta", "") or _BETA_PROTOCOL in request.subprotocols
