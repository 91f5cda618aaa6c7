"""The body with which the mock's service refuses a request."""

from __future__ import annotations

import json

__all__ = ["refusal_body"]

_VENDOR_CODES = {"quota": "insufficient_quota"}
"""The word that clients know for an account without money, since it travels under status 429."""


def refusal_body(code: str, message: str) -> bytes:
    """Return it as JSON."""
    return json.dumps({"error": {"code": _VENDOR_CODES.get(code, code), "message": message}}).encode()
