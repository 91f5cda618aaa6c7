"""VoxEngine: realtime voice AI with interchangeable providers.

Importing this package loads none of its parts: each name is loaded when it is first used (PEP 562).
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = (
    False  # Type checkers take it as true; importing `typing` would be half the cost of this module.
)
if TYPE_CHECKING:
    from typing import Any

    from voxengine.audio.format import AudioFormat, Encoding
    from voxengine.audio.options import DeviceOptions
    from voxengine.capabilities import Capabilities, Capability, Support, partial
    from voxengine.config import Deadlines, ProviderConfig, Reconnect, TurnDetection, VoiceEngineConfig
    from voxengine.engine import VoiceEngine
    from voxengine.errors import (
        AudioDeviceError,
        AudioError,
        AudioFormatError,
        AuthenticationFailed,
        CapabilityMissing,
        ConfigError,
        ConnectionLost,
        ErrorCode,
        JournalFull,
        LocalProtocolError,
        NotConnected,
        ProviderError,
        ProviderNotFound,
        RateLimited,
        RemoteProtocolError,
        UsageError,
        VoxEngineError,
        WrongThread,
    )
    from voxengine.events import Event, EventType
    from voxengine.history import Heard, History, Item
    from voxengine.hookspecs import hookimpl, hookspec
    from voxengine.providers.base import BaseProvider
    from voxengine.providers.registry import (
        available_providers,
        check_provider,
        get_provider,
        register_provider,
        unregister_provider,
    )
    from voxengine.tools import Tool

__version__ = "0.1.0"

_MODULES = {
    "voxengine.audio.format": ("AudioFormat", "Encoding"),
    "voxengine.audio.options": ("DeviceOptions",),
    "voxengine.capabilities": ("Capabilities", "Capability", "Support", "partial"),
    "voxengine.config": ("Deadlines", "ProviderConfig", "Reconnect", "TurnDetection", "VoiceEngineConfig"),
    "voxengine.engine": ("VoiceEngine",),
    "voxengine.errors": (
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
    ),
    "voxengine.events": ("Event", "EventType"),
    "voxengine.history": ("Heard", "History", "Item"),
    "voxengine.hookspecs": ("hookimpl", "hookspec"),
    "voxengine.providers.base": ("BaseProvider",),
    "voxengine.providers.registry": (
        "available_providers",
        "check_provider",
        "get_provider",
        "register_provider",
        "unregister_provider",
    ),
    "voxengine.tools": ("Tool",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AudioDeviceError",
    "AudioError",
    "AudioFormat",
    "AudioFormatError",
    "AuthenticationFailed",
    "BaseProvider",
    "Capabilities",
    "Capability",
    "CapabilityMissing",
    "ConfigError",
    "ConnectionLost",
    "Deadlines",
    "DeviceOptions",
    "Encoding",
    "ErrorCode",
    "Event",
    "EventType",
    "Heard",
    "History",
    "Item",
    "JournalFull",
    "LocalProtocolError",
    "NotConnected",
    "ProviderConfig",
    "ProviderError",
    "ProviderNotFound",
    "RateLimited",
    "Reconnect",
    "RemoteProtocolError",
    "Support",
    "Tool",
    "TurnDetection",
    "UsageError",
    "VoiceEngine",
    "VoiceEngineConfig",
    "VoxEngineError",
    "WrongThread",
    "__version__",
    "available_providers",
    "check_provider",
    "get_provider",
    "hookimpl",
    "hookspec",
    "partial",
    "register_provider",
    "unregister_provider",
]


def __getattr__(name: str) -> Any:
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module 'voxengine' has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
