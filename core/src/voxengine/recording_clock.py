"""A playback clock whose answers are written down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from voxengine.recording import Recorder

__all__ = ["watched_clock"]


def watched_clock(cls: type[Any], recorder: Recorder) -> type[Any]:
    """Return a playback clock's class whose answers are written down."""

    class Watched(cls):  # type: ignore[misc]
        def played_ms(self, item: str) -> int:
            with recorder.in_clock():
                value: int = super().played_ms(item)
            recorder.write("heard", of="played_ms", item=item, value=value)
            return value

        def open_items(self) -> list[str]:
            with recorder.in_clock():
                value: list[str] = super().open_items()
            recorder.write("heard", of="open_items", item=None, value=list(value))
            return value

        def pause(self) -> None:
            with recorder.in_clock():
                super().pause()

        def resume(self) -> None:
            with recorder.in_clock():
                super().resume()

        def total_played_ms(self) -> int:
            with recorder.in_clock():
                value: int = super().total_played_ms()
            recorder.write("heard", of="total_played_ms", item=None, value=value)
            return value

        @property
        def name(self) -> str:
            value: str = super().name
            recorder.write("heard", of="name", item=None, value=value)
            return value

        @property
        def current(self) -> str | None:
            with recorder.in_clock():
                value: str | None = super().current
            recorder.write("heard", of="current", item=None, value=value)
            return value

        def finish(self, item: str) -> None:
            with recorder.in_clock():
                super().finish(item)

        def flush(self) -> None:
            with recorder.in_clock():
                super().flush()

    Watched.__name__, Watched.__qualname__ = cls.__name__, cls.__qualname__
    return Watched
