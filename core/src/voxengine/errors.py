"""Every exception that VoxEngine raises.

The tree::

    VoxEngineError
    ├── ConfigError                    a configuration value is wrong; nothing was opened
    ├── UsageError                     a call that the current state does not allow
    │   ├── WrongThread                a call from a thread other than the engine's
    │   └── NotConnected               a call that needs a session, before connect or after disconnect
    ├── AudioError                     about audio data
    │   ├── AudioFormatError           data that does not match its declared format
    │   ├── AudioDeviceError           a microphone or loudspeaker cannot be used
    │   └── JournalFull                no room for more unanswered user audio
    └── ProviderError                  about a provider or its service
        ├── ProviderNotFound           no such provider, or one that cannot be loaded
        ├── AuthenticationFailed       the service refused the credentials
        ├── RateLimited                the service asks to slow down
        ├── ConnectionLost             the connection ended without being asked to
        ├── CapabilityMissing          the provider cannot do what was asked
        ├── LocalProtocolError         we are about to send, or sent, something wrong
        └── RemoteProtocolError        the service sent something that cannot be understood

Messages never hold credentials, audio, transcripts or a URL's query.
"""

from __future__ import annotations

import functools
from enum import StrEnum
from typing import Any

__all__ = [
    "AudioDeviceError",
    "AudioError",
    "AudioFormatError",
    "AuthenticationFailed",
    "CapabilityMissing",
    "ConfigError",
    "ConnectionLost",
    "ErrorCode",
    "JournalFull",
    "LocalProtocolError",
    "NotConnected",
    "ProviderError",
    "ProviderNotFound",
    "RateLimited",
    "RemoteProtocolError",
    "UsageError",
    "VoxEngineError",
    "WrongThread",
]


class ErrorCode(StrEnum):
    """What went wrong at a provider, in neutral words. The list is closed."""

    AUTHENTICATION = "authentication"
    PERMISSION = "permission"
    QUOTA = "quota"
    RATE_LIMIT = "rate_limit"
    INVALID_REQUEST = "invalid_request"
    UNAVAILABLE = "unavailable"
    TIMEOUT = "timeout"
    CONNECTION_LOST = "connection_lost"
    SESSION_EXPIRED = "session_expired"
    PROTOCOL = "protocol"
    CAPABILITY_MISSING = "capability_missing"
    NOT_FOUND = "not_found"
    CONTENT_FILTER = "content_filter"
    UNKNOWN = "unknown"


#: Codes for which trying the same thing again can help.
_RECOVERABLE = frozenset(
    {
        ErrorCode.RATE_LIMIT,
        ErrorCode.UNAVAILABLE,
        ErrorCode.TIMEOUT,
        ErrorCode.CONNECTION_LOST,
        ErrorCode.SESSION_EXPIRED,
    }
)


class VoxEngineError(Exception):
    """Base of every exception raised by VoxEngine."""


class ConfigError(VoxEngineError):
    """A configuration value has the wrong type, range or combination. Raised before anything is opened."""


class UsageError(VoxEngineError):
    """A call that makes no sense in the current state."""


class WrongThread(UsageError):
    """A call from a thread other than the one whose loop owns the engine. Use ``call_threadsafe``."""


class NotConnected(UsageError):
    """A call that needs a session, made before ``connect`` or after ``disconnect``."""


class AudioError(VoxEngineError):
    """Base of errors about audio data."""


class AudioFormatError(AudioError, ValueError):
    """Audio data that does not fit its declared format."""


class AudioDeviceError(AudioError):
    """A microphone or loudspeaker cannot be used.

    ``reason`` is one of ``not_installed`` (PyAudio is missing), ``not_found`` (no such device),
    ``unsupported`` (no rate or number of channels that it takes), ``unavailable`` (in use, unplugged, refused
    by the system), ``timeout`` (its driver or server did not return) and ``stuck`` (an earlier call to it has
    not returned yet). All but the first may pass.
    """

    def __init__(self, message: str, *, reason: str = "unavailable", device: str | int | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.device = device


class JournalFull(AudioError):
    """The journal holds ``journal_s`` seconds of unanswered audio. The data of this call was not accepted.

    ``held_s`` says how many seconds are held.
    """

    def __init__(self, message: str, *, held_s: float = 0.0) -> None:
        super().__init__(message)
        self.held_s = held_s


class ProviderError(VoxEngineError):
    """A provider or its service failed.

    Attributes:
        provider: The provider's name, as in the configuration.
        code: An :class:`ErrorCode`; compares equal to its string.
        recoverable: Whether the same call can succeed later.
        retry_after_s: Seconds that the service asked to wait, or None.
        vendor_code: The service's own code, verbatim, or None.
        close_code: The WebSocket close code, or None.
    """

    default_code = ErrorCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        provider: str = "",
        code: ErrorCode | str | None = None,
        recoverable: bool | None = None,
        retry_after_s: float | None = None,
        vendor_code: str | None = None,
        close_code: int | None = None,
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.code = self.default_code if code is None else ErrorCode(code)
        self.recoverable = self.code in _RECOVERABLE if recoverable is None else recoverable
        self.retry_after_s = retry_after_s
        self.vendor_code = vendor_code
        self.close_code = close_code


class ProviderNotFound(ProviderError):
    """No provider of that name is installed or registered, or the installed one cannot be used."""

    default_code = ErrorCode.NOT_FOUND


class AuthenticationFailed(ProviderError):
    """The service refused the credentials."""

    default_code = ErrorCode.AUTHENTICATION


class RateLimited(ProviderError):
    """The service asks to slow down; ``retry_after_s`` says for how long, when it said so."""

    default_code = ErrorCode.RATE_LIMIT


class ConnectionLost(ProviderError):
    """The connection ended without being asked to.

    ``n_unanswered`` counts the samples (per channel) of the user's audio that wait for an answer. They are
    kept: the session that takes over is given them.
    """

    default_code = ErrorCode.CONNECTION_LOST
    n_unanswered: int = 0


class CapabilityMissing(ProviderError):
    """The provider cannot do what was asked; ``capability`` names the row of the capability table."""

    default_code = ErrorCode.CAPABILITY_MISSING

    def __init__(self, message: str, *, capability: str, provider: str = "", planned: bool = False) -> None:
        super().__init__(message, provider=provider)
        self.capability = capability
        self.planned = planned

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception is remade from its positional arguments alone, and this one needs its row as well.
        return functools.partial(type(self), capability=self.capability), self.args, self.__dict__


class LocalProtocolError(ProviderError):
    """Our side broke the protocol: a bug here or in the provider's package."""

    default_code = ErrorCode.PROTOCOL


class RemoteProtocolError(ProviderError):
    """The service sent something that cannot be understood."""

    default_code = ErrorCode.PROTOCOL
