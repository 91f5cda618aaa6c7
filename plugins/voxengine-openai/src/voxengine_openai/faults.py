"""What goes wrong at the service, in the words of :mod:`voxengine.errors`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from voxengine.errors import (
    AuthenticationFailed,
    ConnectionLost,
    ErrorCode,
    ProviderError,
    RateLimited,
    RemoteProtocolError,
)

__all__ = ["RACES", "ending_error", "http_error", "is_expiry", "not_ready", "service_error"]

RACES: Final = frozenset({"response_cancel_not_active", "conversation_already_has_active_response"})
"""Answers to what crossed the end or the start of a response on the way; no faults."""

_CODES: Final[Mapping[str, ErrorCode]] = {
    "invalid_api_key": ErrorCode.AUTHENTICATION,
    "expired_api_key": ErrorCode.AUTHENTICATION,
    "authentication_error": ErrorCode.AUTHENTICATION,
    "mismatched_organization": ErrorCode.PERMISSION,
    "mismatched_project": ErrorCode.PERMISSION,
    "permission_error": ErrorCode.PERMISSION,
    "permission_denied": ErrorCode.PERMISSION,
    "unsupported_country_region_territory": ErrorCode.PERMISSION,
    "model_not_found": ErrorCode.NOT_FOUND,
    "insufficient_quota": ErrorCode.QUOTA,
    "billing_hard_limit_reached": ErrorCode.QUOTA,
    "rate_limit_exceeded": ErrorCode.RATE_LIMIT,
    "rate_limit_error": ErrorCode.RATE_LIMIT,
    "inference_rate_limit_exceeded": ErrorCode.RATE_LIMIT,
    "content_filter": ErrorCode.CONTENT_FILTER,
    "content_policy_violation": ErrorCode.CONTENT_FILTER,
    "moderation_blocked": ErrorCode.CONTENT_FILTER,
    "session_expired": ErrorCode.SESSION_EXPIRED,
    "timeout": ErrorCode.TIMEOUT,
    "server_error": ErrorCode.UNAVAILABLE,
    "internal_error": ErrorCode.UNAVAILABLE,
    "service_unavailable": ErrorCode.UNAVAILABLE,
    "overloaded": ErrorCode.UNAVAILABLE,
    "tokens": ErrorCode.RATE_LIMIT,
    "requests": ErrorCode.RATE_LIMIT,
    "invalid_request_error": ErrorCode.INVALID_REQUEST,
}
"""By the service's code, else by its type."""

_NEXT: Final[Mapping[ErrorCode, str]] = {
    ErrorCode.AUTHENTICATION: "Check the API key and that it belongs to this endpoint.",
    ErrorCode.PERMISSION: "The key is known but may not do this: check its project, region and model access.",
    ErrorCode.NOT_FOUND: "Check the model's name and that the project has access to it.",
    ErrorCode.QUOTA: "The account has no quota left; waiting does not help.",
    ErrorCode.RATE_LIMIT: "The service asks to slow down.",
    ErrorCode.CONTENT_FILTER: "The service's filter stopped it; other words can pass.",
    ErrorCode.UNAVAILABLE: "Trying again can help.",
}
_BETA: Final = "beta_api_shape_disabled"
_KINDS: Final = {
    ErrorCode.AUTHENTICATION: AuthenticationFailed,
    ErrorCode.RATE_LIMIT: RateLimited,
}
_WAIT: Final = re.compile(r"try again in (?:(\d+)m(?!s))?(\d+(?:\.\d+)?)(ms|s)\b", re.IGNORECASE)
_MAX_MESSAGE: Final = 300
_EXPIRED_REASON: Final = "maximum duration"


def _field(error: Mapping[str, Any], name: str) -> str:
    value = error.get(name)
    return value[:200] if isinstance(value, str) else ""


def _retry_after_s(message: str) -> float | None:
    found = _WAIT.search(message)
    if found is None:
        return None
    minutes, number, unit = found.groups()
    return int(minutes or 0) * 60 + float(number) * (0.001 if unit.lower() == "ms" else 1.0)


def service_error(
    error: Mapping[str, Any], *, provider: str, doing: str, scrub: Callable[[str], str]
) -> ProviderError:
    """Return the error for an ``error`` object of the service.

    Args:
        error: ``type``, ``code``, ``message``, ``param``; nothing about it is trusted.
        provider: The provider's name.
        doing: What was refused, for the sentence: ``session.update``, ``a response``.
        scrub: Takes secrets out of a text.
    """
    kind, vendor_code = _field(error, "type"), _field(error, "code")
    code = _CODES.get(vendor_code) or _CODES.get(kind, ErrorCode.UNKNOWN)
    raw = error.get("message")
    message = scrub(raw if isinstance(raw, str) else "")[:_MAX_MESSAGE].strip().rstrip(".")
    param = _field(error, "param")
    facts = ", ".join(scrub(word) for word in (vendor_code or kind, param) if word)
    advice = _NEXT.get(code, "")
    if vendor_code == _BETA:
        advice = "The service has no beta protocol any more: leave metadata['dialect'] at 'ga'."
    text = f"{provider} refused {doing}{f' ({facts})' if facts else ''}{f': {message}' if message else ''}."
    return _KINDS.get(code, ProviderError)(
        f"{text} {advice}".rstrip(),
        provider=provider,
        code=code,
        retry_after_s=_retry_after_s(raw) if isinstance(raw, str) else None,
        vendor_code=scrub(vendor_code or kind) or None,
    )


def is_expiry(error: ConnectionLost | RemoteProtocolError) -> bool:
    """Return whether a closed connection is the end of the session's time."""
    return error.close_code == 1001 and _EXPIRED_REASON in str(error)


def ending_error(
    error: ConnectionLost | RemoteProtocolError, reason: str, *, is_expired: bool
) -> ConnectionLost | RemoteProtocolError:
    """Return the error of an ended connection, told apart further than its close code does.

    Args:
        error: Of the transport.
        reason: The text of the close message; under a code of its own the service puts ``TYPE.CODE`` there.
        is_expired: Whether the service had said that the session's time is over.
    """
    if not isinstance(error, ConnectionLost):
        return error
    kind, _, vendor_code = reason.partition(".")
    code = _CODES.get(vendor_code) or _CODES.get(kind)
    if is_expired or is_expiry(error):
        code, vendor_code = ErrorCode.SESSION_EXPIRED, "session_expired"
    elif code is None or (error.close_code or 0) < 3000:
        return error
    from voxengine.transport import outcomes

    return outcomes.recoded(error, code, vendor_code)


def not_ready(error: ConnectionLost | RemoteProtocolError) -> ProviderError:
    """Return the error of a connection that ended before the session was ready.

    Some endpoints accept the connection and refuse the key by closing it (3000, ``invalid_api_key``).
    """
    kind = _KINDS.get(error.code)
    if kind is None:
        return error
    return kind(
        str(error),
        provider=error.provider,
        recoverable=error.recoverable,
        vendor_code=error.vendor_code,
        close_code=error.close_code,
    )


def http_error(
    status: int, headers: Mapping[str, str], body: bytes, *, url: str, key: str, provider: str
) -> ProviderError:
    """Return the error of a request over HTTP that was refused. ``headers`` have names in lower case."""
    from voxengine.transport import outcomes

    target = outcomes.Target(provider, url, {"Authorization": f"Bearer {key}"})
    error = outcomes.rejected(target, status, list(headers.items()), body)
    error.args = (str(error).replace("the hand-shake", "the request"),)
    return error
