"""Client secrets: keys that a browser may have, made over HTTP on the port of the sessions."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from voxengine.codec import Role
from voxengine.testing.emulator import HttpRequest, HttpResponse
from voxengine_openai.codec import ProtocolFault, RealtimeCodec, RealtimeMessage
from voxengine_openai.emulator import config
from voxengine_openai.emulator.config import Profile
from voxengine_openai.emulator.errors import Refused

__all__ = ["ClientSecrets", "Secret"]

_LIFE_S: Final = (10, 7200)
_DEFAULT_LIFE_S: Final = 600
_KEPT: Final = 10_000
_DEFAULT_MODEL: Final = "gpt-realtime"


@attrs.frozen
class Secret:
    """A key that opens sessions with a configuration of its own until it expires."""

    value: str = attrs.field(repr=False)
    expires_at: float
    session: Mapping[str, Any] = attrs.field(repr=False)
    """As it came, without what was left out."""

    @property
    def kind(self) -> str:
        return str(self.session.get("type", "realtime"))

    @property
    def model(self) -> str:
        return str(self.session.get("model") or _DEFAULT_MODEL)


class ClientSecrets:
    """The secrets of one emulator.

    Args:
        wall_clock: Unix seconds.
    """

    def __init__(self, wall_clock: Callable[[], float] = time.time) -> None:
        self._clock = wall_clock
        self._secrets: dict[str, Secret] = {}

    def find(self, key: str | None) -> Secret | None:
        """Return the secret of a key; None when there is none or it has expired."""
        found = self._secrets.get(key or "")
        if found is None or found.expires_at <= self._clock():
            return None
        return found

    def make(self, request: HttpRequest, profile: Profile) -> HttpResponse:
        """Answer a request for a secret. Raises Refused."""
        life_s, session = _read(request, profile)
        effective = config.initial(
            session.get("type", "realtime"),
            f"sess_{secrets.token_hex(10)}",
            session.get("model") or _DEFAULT_MODEL,
            0,
        )
        effective = config.shown(config.merged(effective, session, profile, has_spoken=False), profile)
        if effective["type"] == "transcription":
            del effective["expires_at"]  # Of a session, and none is open. The other kind says 0 there.
        now = self._clock()
        secret = Secret(f"ek_{secrets.token_hex(16)}", int(now) + life_s, session)
        self._forget(now)
        self._secrets[secret.value] = secret
        return HttpResponse.of_json(
            {"value": secret.value, "expires_at": int(secret.expires_at), "session": effective}
        )

    def _forget(self, now: float) -> None:
        for key, secret in tuple(self._secrets.items()):
            if secret.expires_at <= now or len(self._secrets) >= _KEPT:
                del self._secrets[key]


def _read(request: HttpRequest, profile: Profile) -> tuple[int, dict[str, Any]]:
    """Return how long a secret is to live and with which session. Raises Refused."""
    body = request.json() if request.body else {}
    if not isinstance(body, dict):
        raise Refused("The body is not a JSON object.", "invalid_json")
    for key in body:
        if key not in ("expires_after", "session"):
            raise Refused(f"Unknown parameter: '{key}'.", "unknown_parameter", key)
    after = body.get("expires_after") or {}
    life_s = after.get("seconds", _DEFAULT_LIFE_S) if isinstance(after, dict) else None
    if after and (not isinstance(after, dict) or after.get("anchor", "created_at") != "created_at"):
        raise Refused("Invalid value for 'expires_after.anchor'.", "invalid_value", "expires_after.anchor")
    if isinstance(life_s, bool) or not isinstance(life_s, int) or not _LIFE_S[0] <= life_s <= _LIFE_S[1]:
        raise Refused(
            f"Invalid 'expires_after.seconds': expected a value between {_LIFE_S[0]} and {_LIFE_S[1]}.",
            "invalid_value",
            "expires_after.seconds",
        )
    session = body.get("session")
    if session is None:
        return life_s, {"type": "realtime"}
    # The same object travels in an event, whose schema is known.
    codec = RealtimeCodec(Role.SERVER, lambda prefix: prefix, profile.dialect)
    event = codec.decode(json.dumps({"type": "session.update", "session": session}), 0.0)[0]
    if isinstance(event, ProtocolFault):
        raise Refused.of(event)
    assert isinstance(event, RealtimeMessage)
    return life_s, dict(event.fields["session"])
