"""How a connection can fail or end, in the words of :mod:`voxengine.errors`. No I/O.

Every transport takes its errors from here, so that a fault in memory reads like the same fault on a network.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import attrs

from voxengine.errors import (
    AuthenticationFailed,
    ConnectionLost,
    ErrorCode,
    ProviderError,
    RateLimited,
    RemoteProtocolError,
)

__all__ = [
    "MAX_BODY_BYTES",
    "HandshakeResponse",
    "Target",
    "close_outcome",
    "handshake_response",
    "parse_retry_after",
    "recoded",
    "refused_tcp",
    "rejected",
    "stopped_answering",
    "timed_out",
    "was_closed",
    "was_violated",
]

MAX_BODY_BYTES = 4096
"""How much of a rejected hand-shake's body is kept."""

_MAX_RETRY_AFTER_S = 86_400.0

_CLOSE: dict[int, tuple[ErrorCode, bool]] = {
    1000: (ErrorCode.CONNECTION_LOST, True),  # Normal: the service had enough; a new session can follow.
    1001: (ErrorCode.CONNECTION_LOST, True),  # Going away.
    1002: (ErrorCode.PROTOCOL, False),
    1003: (ErrorCode.INVALID_REQUEST, False),  # A kind of data it does not take.
    1004: (ErrorCode.PROTOCOL, False),  # Reserved; nobody may send it.
    1005: (ErrorCode.CONNECTION_LOST, True),  # A close without a code.
    1006: (ErrorCode.CONNECTION_LOST, True),  # No close at all.
    1007: (ErrorCode.INVALID_REQUEST, False),  # Data that does not match its type.
    1008: (ErrorCode.PERMISSION, False),  # Against its policy.
    1009: (ErrorCode.INVALID_REQUEST, False),  # Our message was too big.
    1010: (ErrorCode.PROTOCOL, False),
    1011: (ErrorCode.UNAVAILABLE, True),
    1012: (ErrorCode.UNAVAILABLE, True),  # Restarting.
    1013: (ErrorCode.UNAVAILABLE, True),  # Overloaded.
    1014: (ErrorCode.UNAVAILABLE, True),  # A gateway got nonsense.
    1015: (ErrorCode.UNAVAILABLE, False),  # TLS.
    # Registered with IANA, the only ones above 2999 whose meaning is the same everywhere.
    3000: (ErrorCode.AUTHENTICATION, False),
    3003: (ErrorCode.PERMISSION, False),
    3008: (ErrorCode.TIMEOUT, True),
}

_STATUS: dict[int, ErrorCode] = {
    401: ErrorCode.AUTHENTICATION,
    402: ErrorCode.QUOTA,
    403: ErrorCode.PERMISSION,
    404: ErrorCode.NOT_FOUND,
    407: ErrorCode.PERMISSION,
    408: ErrorCode.TIMEOUT,
    410: ErrorCode.NOT_FOUND,
    425: ErrorCode.UNAVAILABLE,
    426: ErrorCode.PROTOCOL,
    429: ErrorCode.RATE_LIMIT,
    451: ErrorCode.PERMISSION,
}

# Words with which services say "no money left" under 429, where waiting does not help.
_QUOTA_WORDS = ("insufficient_quota", "quota_exceeded", "quotaexceeded", "billing_hard_limit_reached")

_NEXT: dict[ErrorCode, str] = {
    ErrorCode.AUTHENTICATION: "Check the API key and that it belongs to this endpoint.",
    ErrorCode.PERMISSION: "The key is known but may not do this: check its project, region and model access.",
    ErrorCode.QUOTA: "The account has no quota left; waiting does not help.",
    ErrorCode.NOT_FOUND: "Check the endpoint, the model and the deployment name.",
    ErrorCode.INVALID_REQUEST: "Sending the same again will fail again.",
    ErrorCode.PROTOCOL: "Sending the same again will fail again.",
}


_WAY_ON: Final = "recoverable="

_PLAIN_PARAMETERS: Final = frozenset({"model", "deployment", "api-version", "intent", "language"})
"""Parameters of addresses that hold no secret, and that a reader of an error has to see."""


class Target:
    """Where a connection goes, safe to print: scheme, host, port and path, never userinfo or query.

    ``scrub`` replaces the secrets that it was built with (query values, userinfo, header values) in a text
    that the other side sent, since services like to quote the key that they refuse. They are looked for then:
    most connections never come to it.
    """

    __slots__ = ("_headers", "_parts", "provider", "text")

    def __init__(self, provider: str, url: str = "", headers: Mapping[str, str] | None = None) -> None:
        parts = self._parts = urlsplit(url)
        self._headers = dict(headers or {})
        self.provider = provider
        self.text = "memory"
        if parts.scheme:
            self.text = f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}{parts.path}"

    def __repr__(self) -> str:
        return f"Target({self.provider!r}, {self.text!r})"

    def scrub(self, text: str) -> str:
        """``text`` on one line, printable, without our secrets."""
        for secret in self._secrets():
            text = text.replace(secret, "***")
        return "".join(c if c.isprintable() else " " for c in text)

    def _secrets(self) -> list[str]:
        parts = self._parts
        found = {value for name, value in parse_qsl(parts.query) if name not in _PLAIN_PARAMETERS}
        found.add(unquote(parts.password or ""))
        for value in self._headers.values():
            found |= {value, *value.split()}
        return sorted((s for s in found if len(s) >= 8), key=len, reverse=True)


@attrs.frozen(repr=False)
class HandshakeResponse:
    """The HTTP answer that refused a hand-shake, for a provider that knows its vendor's bodies."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    """The first 4096 bytes, as sent: it may quote secrets, so it belongs in no message or log."""

    def __repr__(self) -> str:
        return f"HandshakeResponse(status={self.status}, body=<{len(self.body)} bytes>)"

    def json(self) -> Any:
        """The body as JSON, None when it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


def handshake_response(error: BaseException) -> HandshakeResponse | None:
    """The HTTP answer behind an error that a hand-shake raised, None when there was none."""
    found = getattr(error, "_handshake_response", None)
    return found if isinstance(found, HandshakeResponse) else None


def close_outcome(close_code: int) -> tuple[ErrorCode, bool]:
    """What a close code from the peer means, and whether connecting again can help.

    Codes of 3000 and above are the service's own, so ``unknown`` and not recoverable, but for the three that
    are registered; a provider knows its vendor's better. Codes that nobody may send are a protocol error.
    """
    known = _CLOSE.get(close_code)
    if known is not None:
        return known
    return (ErrorCode.UNKNOWN, False) if 3000 <= close_code <= 4999 else (ErrorCode.PROTOCOL, False)


def parse_retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds to wait, from ``retry-after-ms`` or ``retry-after`` (seconds or an HTTP date), at most a day.

    Args:
        headers: Names in lower case.
        now: The wall clock that a date is compared with; the present by default.
    """
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if not value:
            continue
        try:
            wait_s = float(value) * unit_s
        except ValueError:
            try:
                when = parsedate_to_datetime(value)
            except ValueError:
                continue
            when = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
            wait_s = (when - (now or datetime.now(UTC))).total_seconds()
        if not math.isnan(wait_s):
            return min(max(wait_s, 0.0), _MAX_RETRY_AFTER_S)
    return None


def rejected(target: Target, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> ProviderError:
    """The error for a hand-shake that was answered with ``status`` instead of 101."""
    response = HandshakeResponse(
        status=status, headers={k.lower(): v for k, v in headers}, body=bytes(body[:MAX_BODY_BYTES])
    )
    vendor_code = _vendor_code(response.json())
    code, recoverable = _status_outcome(status, vendor_code)
    head = f"{target.provider} refused the hand-shake at {target.text}: HTTP {status}"
    if vendor_code is not None:
        vendor_code = target.scrub(vendor_code)
        head += f" ({vendor_code})"
    retry_after_s = parse_retry_after(response.headers)
    advice = _NEXT.get(code, "")
    if 300 <= status < 400:
        advice = "Redirects are not followed, since they would carry the key along. Set the final address."
    elif recoverable:
        wait = "" if retry_after_s is None else f" in {retry_after_s:g} s"
        advice = f"The service may take it again{wait}."
    facts: dict[str, Any] = {
        "provider": target.provider,
        "code": code,
        "recoverable": recoverable,
        "retry_after_s": retry_after_s,
        "vendor_code": vendor_code,
    }
    kind = {ErrorCode.AUTHENTICATION: AuthenticationFailed, ErrorCode.RATE_LIMIT: RateLimited}.get(
        code, RemoteProtocolError if code is ErrorCode.PROTOCOL else ProviderError
    )
    error = kind(f"{head}. {advice}".rstrip(), **facts)
    error._handshake_response = response  # type: ignore[attr-defined]
    return error


def _status_outcome(status: int, vendor_code: str | None) -> tuple[ErrorCode, bool]:
    if status == 429 and vendor_code is not None and vendor_code.lower() in _QUOTA_WORDS:
        return ErrorCode.QUOTA, False
    if status in _STATUS:
        code = _STATUS[status]
    elif status >= 500:
        code = ErrorCode.UNAVAILABLE
    elif status >= 300:
        code = ErrorCode.INVALID_REQUEST
    else:
        code = ErrorCode.PROTOCOL  # 2xx: a web server, not a WebSocket endpoint.
    return code, code in (ErrorCode.UNAVAILABLE, ErrorCode.RATE_LIMIT, ErrorCode.TIMEOUT)


def _vendor_code(body: Any) -> str | None:
    """The service's own code in the shapes that bodies commonly have."""
    if not isinstance(body, dict):
        return None
    inner = body.get("error")
    for place in (inner if isinstance(inner, dict) else {}, body):
        for key in ("code", "type"):
            value = place.get(key)
            if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
                return str(value)[:100]
    return None


def refused_tcp(target: Target, why: str) -> ProviderError:
    """No connection at all: refused, unreachable, unknown host, or cut before an answer."""
    return ProviderError(
        f"{target.provider} could not be reached at {target.text}: {target.scrub(why)}. "
        "Check the network and the endpoint; trying again can help.",
        provider=target.provider,
        code=ErrorCode.UNAVAILABLE,
    )


def timed_out(target: Target, handshake_s: float) -> ProviderError:
    return ProviderError(
        f"{target.provider} did not complete the hand-shake at {target.text} within {handshake_s:g} s. "
        "Trying again can help; deadlines.handshake_s sets the limit.",
        provider=target.provider,
        code=ErrorCode.TIMEOUT,
    )


def was_closed(target: Target, close_code: int, reason: str, elapsed_s: float) -> ConnectionLost:
    """The error for a session that the peer or the network ended after ``elapsed_s``."""
    code, recoverable = close_outcome(close_code)
    if close_code == 1006:
        what = "The connection to {} broke without a close message"
    else:
        quoted = f', "{target.scrub(reason)}"' if reason else ""
        what = f"{{}} closed the connection ({close_code}{quoted})"
    return ConnectionLost(
        f"{what.format(target.provider)} {elapsed_s:.1f} s into the session. {_way_on(code, recoverable)}",
        provider=target.provider,
        code=code,
        recoverable=recoverable,
        vendor_code=str(close_code) if close_code >= 3000 else None,
        close_code=close_code,
    )


def recoded(error: ConnectionLost, code: ErrorCode, vendor_code: str | None) -> ConnectionLost:
    """Return the error of an ended connection whose service says more than its close code does.

    Args:
        error: From :func:`was_closed`; it is changed, and its text with it.
        code: What the service's own word means.
        vendor_code: That word; None keeps what the error has.
    """
    error.code, error.vendor_code = code, vendor_code or error.vendor_code
    error.recoverable = ProviderError("", code=code).recoverable
    facts, mark, _ = str(error).rpartition(_WAY_ON)
    if mark:
        error.args = (f"{facts}{_way_on(code, error.recoverable)}",)
    return error


def _way_on(code: ErrorCode, recoverable: bool) -> str:
    """What the text of an ended connection closes with: the attribute, and what to do."""
    advice = "reconnect or switch_provider keeps the history." if recoverable else _NEXT.get(code, "")
    return f"{_WAY_ON}{recoverable}: {advice or 'see the close code.'}"


def stopped_answering(target: Target, silent_s: float, elapsed_s: float) -> ConnectionLost:
    """The error for a peer that answered no ping."""
    return ConnectionLost(
        f"{target.provider} stopped answering: nothing arrived for {silent_s:g} s and a ping went "
        f"unanswered, {elapsed_s:.1f} s into the session. {_way_on(ErrorCode.CONNECTION_LOST, True)}",
        provider=target.provider,
        close_code=1006,
    )


def was_violated(target: Target, close_code: int, why: str, elapsed_s: float) -> RemoteProtocolError:
    """The error for a peer whose data cannot be accepted; we closed with ``close_code``."""
    return RemoteProtocolError(
        f"{target.provider} sent what cannot be accepted ({close_code}, {target.scrub(why)}) "
        f"{elapsed_s:.1f} s into the session. The connection was closed.",
        provider=target.provider,
        close_code=close_code,
    )
