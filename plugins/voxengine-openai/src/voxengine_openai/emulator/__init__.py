"""The emulator of OpenAI Realtime: ``voxengine emulate openai``.

It speaks the GA protocol on a port of this machine, so that clients in any language, OpenAI's own SDK and
VoxEngine work against it as against the service. It needs ``voxengine-mock``, which holds the harness and the
simulated agent.
"""

from __future__ import annotations

import importlib.util

from voxengine.errors import ConfigError

if importlib.util.find_spec("voxengine_mock") is None:
    raise ConfigError(
        'The emulator needs the package voxengine-mock. Try: pip install "voxengine-openai[emulator]"'
    )

from voxengine_openai.emulator.config import Profile
from voxengine_openai.emulator.server import OpenAIEmulator
from voxengine_openai.emulator.session import RealtimeSession

__all__ = ["OpenAIEmulator", "Profile", "RealtimeSession"]
