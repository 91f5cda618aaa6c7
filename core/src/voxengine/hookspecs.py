"""The contract between the core and a provider, and the hooks that taps may implement.

A provider is a :class:`~voxengine.providers.base.BaseProvider` subclass; its methods count as
implementations without a decorator. An implementation may leave out trailing parameters.
The names are frozen until 1.0.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

import pluggy

if TYPE_CHECKING:
    from voxengine.events import Event
    from voxengine.history import Heard, Item

__all__ = [
    "OPTIONAL_HOOKS",
    "PROJECT",
    "PROVIDER_API",
    "REQUIRED_HOOKS",
    "TAP_HOOKS",
    "ProviderSpec",
    "TapSpec",
    "hookimpl",
    "hookspec",
]

PROJECT: Final = "voxengine"
PROVIDER_API: Final = 1
"""Version of this contract. A provider names the one it was written for in ``provider_api``."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class ProviderSpec:
    """The hooks of a session. Each is a coroutine function in a provider."""

    @hookspec(firstresult=True)
    def connect(self) -> Awaitable[None]:  # type: ignore[empty-body]
        """Open the session and return when it is ready for input."""

    @hookspec(firstresult=True)
    def disconnect(self) -> Awaitable[None]:  # type: ignore[empty-body]
        """Close the session and let go of everything; a second call does nothing."""

    @hookspec(firstresult=True)
    def send_audio(self, audio_data: bytes) -> Awaitable[None]:  # type: ignore[empty-body]
        """Send user audio (PCM16, whole frames, the session's input format); wait while the service is slow."""

    @hookspec(firstresult=True)
    def send_text(self, text: str) -> Awaitable[str | None]:  # type: ignore[empty-body]
        """Send a complete user turn as text and ask for an answer; a synthesiser speaks it."""

    @hookspec(firstresult=True)
    def interrupt(self, heard: Heard | None) -> Awaitable[None]:  # type: ignore[empty-body]
        """Stop the current response and cut it at what was heard; do nothing when none is under way."""

    @hookspec(firstresult=True)
    def configure_session(self, config: Mapping[str, Any]) -> Awaitable[None]:  # type: ignore[empty-body]
        """Change settings of the open session; options not named keep their values."""

    @hookspec(firstresult=True)
    def end_turn(self, respond: bool) -> Awaitable[None]:  # type: ignore[empty-body]
        """Close the user's turn as sent so far and, when ``respond``, ask for an answer."""

    @hookspec(firstresult=True)
    def discard_input(self) -> Awaitable[None]:  # type: ignore[empty-body]
        """Forget audio of the open turn that was sent and not yet answered."""

    @hookspec(firstresult=True)
    def send_tool_result(  # type: ignore[empty-body]
        self, call_id: str, output: str, is_error: bool
    ) -> Awaitable[None]:
        """Send the result of a tool call once, as text (JSON for structures), and let the answer go on."""

    @hookspec(firstresult=True)
    def load_history(self, items: Sequence[Item]) -> Awaitable[None]:  # type: ignore[empty-body]
        """Give an empty session the turns that came before, oldest first, without asking for an answer."""

    @hookspec(firstresult=True)
    def send_item(self, item: Item) -> Awaitable[None]:  # type: ignore[empty-body]
        """Add one history item to the open session without asking for an answer."""

    @hookspec(firstresult=True)
    def speak(self, text: str, is_last: bool) -> Awaitable[None]:  # type: ignore[empty-body]
        """Say this text as the agent; more of the same utterance follows unless ``is_last``."""

    @hookspec(firstresult=True)
    def resume(self, handle: str) -> Awaitable[None]:  # type: ignore[empty-body]
        """Take up an earlier session by the vendor's handle; called in place of ``load_history``."""

    @hookspec(firstresult=True)
    def get_usage(self) -> Awaitable[Mapping[str, Any] | None]:  # type: ignore[empty-body]
        """Return what the session used so far, None when the service does not say."""

    @hookspec(firstresult=True)
    def estimate_cost(self) -> Awaitable[float | None]:  # type: ignore[empty-body]
        """Return the price so far in US dollars, None when unknown."""


class TapSpec:
    """The hooks of a tap: three synchronous filters and one observer.

    The engine chains the implementations in the order in which the taps were given, each result
    into the next. None from a filter discards; an exception means pass and is reported once.
    """

    @hookspec
    def on_input(self, chunk: bytes) -> bytes | None:
        """Filter user audio (PCM16, input format) before it is accepted."""

    @hookspec
    def on_output(self, chunk: bytes) -> bytes | None:
        """Filter the agent's audio (PCM16, output format) before it is delivered and played."""

    @hookspec
    def on_event(self, event: Event) -> Event | None:
        """Filter an event before the application gets it."""

    @hookspec
    def on_wire(self, direction: Literal["in", "out"], wire: str | bytes, now: float) -> None:
        """Observe one message of the provider's connection."""


REQUIRED_HOOKS: Final = (
    "connect",
    "disconnect",
    "send_audio",
    "send_text",
    "interrupt",
    "configure_session",
)
OPTIONAL_HOOKS: Final = (
    "end_turn",
    "discard_input",
    "send_tool_result",
    "load_history",
    "send_item",
    "speak",
    "resume",
    "get_usage",
    "estimate_cost",
)
TAP_HOOKS: Final = ("on_input", "on_output", "on_event", "on_wire")
