"""What an emitted event costs, with no handler and with one, against a plain method call."""

from __future__ import annotations

import statistics
import sys
from typing import Any

from _measure import Row, main, per_call_ns

from voxengine.bus import EventBus
from voxengine.events import EventType

TITLE = "An event"
ROUNDS = 9
N_CALLS = 20_000


class Plain:
    """The yardstick: a method that is given the same and keeps it."""

    def __init__(self) -> None:
        self.last: Any = None

    def take(self, event_type: str, data: dict[str, Any], provider: str, epoch: int) -> None:
        """Keep the arguments."""
        self.last = (event_type, data, provider, epoch)


def run() -> list[Row]:
    """Measure."""
    plain, silent, heard = Plain(), EventBus(lambda: 0.0), EventBus(lambda: 0.0)
    seen: list[Any] = [None]
    heard.on(EventType.TEXT_OUTPUT, lambda event: seen.__setitem__(0, event))
    data = {"text": "a b c", "delta": "c", "is_partial": True, "response_id": "resp_1", "item_id": "item_1"}
    calls = {
        "plain": lambda: plain.take(EventType.TEXT_OUTPUT, dict(data), "mock", 1),
        "silent": lambda: silent.emit(EventType.TEXT_OUTPUT, dict(data), provider="mock", session_epoch=1),
        "heard": lambda: heard.emit(EventType.TEXT_OUTPUT, dict(data), provider="mock", session_epoch=1),
    }
    took: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS + 1):
        for name, call in calls.items():
            took[name].append(per_call_ns(call, n_calls=N_CALLS))
    ratios = {
        name: statistics.median(a / b for a, b in zip(took[name][1:], took["plain"][1:], strict=True))
        for name in ("silent", "heard")
    }
    rows = [
        Row("emitted, no handler / plain method call", ratios["silent"], "×", 6.0),
        Row("emitted, one handler / plain method call", ratios["heard"], "×", 20.0),
    ]
    labels = {"plain": "plain method call", "silent": "emitted, no handler", "heard": "emitted, one handler"}
    return rows + [Row(labels[name], statistics.median(values[1:]), "ns") for name, values in took.items()]


if __name__ == "__main__":
    sys.exit(main(TITLE, run))
