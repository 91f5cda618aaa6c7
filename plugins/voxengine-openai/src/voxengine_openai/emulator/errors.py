"""How the service words what is wrong: error events, failed responses and refused requests."""

from __future__ import annotations

from typing import Any, Final

from voxengine.errors import ErrorCode
from voxengine_mock.happenings import Failed
from voxengine_openai.messages import ProtocolFault

__all__ = ["Refused", "error_of", "vendor_code"]

INVALID_REQUEST: Final = "invalid_request_error"
SERVER: Final = "server_error"

_CODES: Final[dict[ErrorCode, tuple[str, str]]] = {
    ErrorCode.AUTHENTICATION: (INVALID_REQUEST, "invalid_api_key"),
    ErrorCode.PERMISSION: ("permission_error", "permission_denied"),
    ErrorCode.QUOTA: ("insufficient_quota", "insufficient_quota"),
    ErrorCode.RATE_LIMIT: ("rate_limit_error", "rate_limit_exceeded"),
    ErrorCode.INVALID_REQUEST: (INVALID_REQUEST, "invalid_value"),
    ErrorCode.UNAVAILABLE: (SERVER, "server_error"),
    ErrorCode.TIMEOUT: (SERVER, "timeout"),
    ErrorCode.CONNECTION_LOST: (SERVER, "server_error"),
    ErrorCode.SESSION_EXPIRED: (INVALID_REQUEST, "session_expired"),
    ErrorCode.PROTOCOL: (INVALID_REQUEST, "invalid_json"),
    ErrorCode.CAPABILITY_MISSING: (INVALID_REQUEST, "unsupported_operation"),
    ErrorCode.NOT_FOUND: (INVALID_REQUEST, "model_not_found"),
    ErrorCode.CONTENT_FILTER: (INVALID_REQUEST, "content_filter"),
    ErrorCode.UNKNOWN: (SERVER, "server_error"),
}


def vendor_code(code: str) -> tuple[str, str]:
    """Return the service's type and code for an ``ErrorCode``'s value."""
    return _CODES[ErrorCode(code)]


class Refused(Exception):
    """What the client asked for is answered with an ``error`` event; the session stays open.

    Args:
        message: In the service's words.
        code: The service's.
        param: Path of the field that is wrong.
    """

    def __init__(
        self, message: str, code: str | None, param: str | None = None, kind: str = INVALID_REQUEST
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param
        self.kind = kind

    @classmethod
    def of(cls, fault: ProtocolFault) -> Refused:
        """Make one of what the codec found."""
        return cls(fault.reason, fault.code, fault.param)

    def to_dict(self, event_id: str | None = None) -> dict[str, Any]:
        """Return the ``error`` object of the event; ``event_id`` is the client's."""
        return {
            "type": self.kind,
            "code": self.code,
            "message": self.message,
            "param": self.param,
            "event_id": event_id,
        }


def error_of(failed: Failed) -> Refused:
    """Return a failure that the script wants in the service's words."""
    kind, code = _CODES[failed.code]
    message = failed.message
    if failed.retry_after_s is not None:
        message = f"{message} Please try again in {failed.retry_after_s:g}s."
    return Refused(message, code, kind=kind)
