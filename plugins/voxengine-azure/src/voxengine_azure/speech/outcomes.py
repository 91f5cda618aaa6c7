"""What the service's refusals mean, in neutral words."""

from __future__ import annotations

from typing import Final

from voxengine.errors import (
    AuthenticationFailed,
    ConnectionLost,
    ErrorCode,
    ProviderError,
    RateLimited,
    RemoteProtocolError,
)

__all__ = [
    "can_redial",
    "is_unreachable",
    "of_fault",
    "of_loss",
    "of_silence",
    "of_status",
    "of_synthesis",
]

_FINAL_CLOSES: Final = (1002, 1003, 1007, 4000)
"""Close codes after which the vendor's own clients do not try again."""
_NO_VOICE: Final = "unsupported voice"


def can_redial(error: ProviderError) -> bool:
    """Return whether another connection may help after this one ended so."""
    return isinstance(error, ConnectionLost) and error.close_code not in _FINAL_CLOSES and error.recoverable


def is_unreachable(error: ProviderError) -> bool:
    """Return whether nobody was there to refuse."""
    return error.code in (ErrorCode.UNAVAILABLE, ErrorCode.TIMEOUT) and error.recoverable


def of_loss(error: ProviderError) -> ConnectionLost | RemoteProtocolError:
    """Return the error of a session that ends because its connections cannot be replaced."""
    if isinstance(error, ConnectionLost | RemoteProtocolError):
        return error
    return ConnectionLost(
        f"azure speech lost its connection and got no other one. Cause: {error}",
        provider="azure",
        code=error.code,
        recoverable=error.recoverable,
        retry_after_s=error.retry_after_s,
        vendor_code=error.vendor_code,
    )


def of_status(status: str) -> ProviderError:
    """Return the error for a ``RecognitionStatus`` that is none of recognition's results."""
    if status == "TooManyRequests":
        return RateLimited(
            "azure speech recognises as much at once as the resource may. Trying again later can help; the "
            "limit of concurrent requests can be raised.",
            provider="azure",
            vendor_code=status,
        )
    if status == "Forbidden":
        return AuthenticationFailed(
            "azure speech may not recognise with this key. Check the resource's tier, region and access.",
            provider="azure",
            code=ErrorCode.PERMISSION,
            vendor_code=status,
        )
    if status == "BadRequest":
        return ProviderError(
            "azure speech does not take this recognition. Check language, input_format and metadata['session'].",
            provider="azure",
            code=ErrorCode.INVALID_REQUEST,
            vendor_code=status,
        )
    return ProviderError(
        "azure speech failed to recognise. Trying again can help.",
        provider="azure",
        code=ErrorCode.UNAVAILABLE,
        vendor_code=status[:100],
    )


def of_synthesis(error: ProviderError, reason: str, voice: str) -> ProviderError:
    """Return the error for a synthesis that ended with its connection.

    Args:
        error: How the connection ended.
        reason: The text that the service closed it with.
        voice: The voice that was asked for.
    """
    if error.close_code != 1007:
        return error
    if _NO_VOICE in reason.lower():
        return ProviderError(
            f"azure speech has no voice {voice!r} here. Voices are named like 'en-US-JennyNeural'; the list of a "
            "region is at /cognitiveservices/voices/list, and a custom voice needs metadata['custom_voice'].",
            provider="azure",
            code=ErrorCode.NOT_FOUND,
            vendor_code="1007",
            close_code=1007,
        )
    return ProviderError(
        "azure speech refused the request to speak (1007). Check the voice, and whether it has the style, role, "
        "rate and pitch that are asked for.",
        provider="azure",
        code=ErrorCode.INVALID_REQUEST,
        vendor_code="1007",
        close_code=1007,
    )


def of_silence(what: str, after_s: float) -> ProviderError:
    """Return the error for something that did not come in time."""
    return ProviderError(
        f"azure speech did not send {what} within {after_s:g} s. Trying again can help.",
        provider="azure",
        code=ErrorCode.TIMEOUT,
    )


def of_fault(reason: str) -> RemoteProtocolError:
    """Return the error for a message that breaks the protocol."""
    return RemoteProtocolError(f"azure speech: {reason}.", provider="azure", recoverable=True)
