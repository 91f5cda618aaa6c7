"""The fault matrix: every fault at every moment, with every outcome, on the virtual clock.

Cells that make no sense are named, with the reason, in ``matrix_not_applicable.toml``.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import tomllib
from pathlib import Path
from typing import Final

import pytest

from tests.core.continuity.matrix import (
    FAULTS,
    OUTCOMES,
    PAIRINGS,
    STATES,
    Scene,
    make,
    problems,
    tone,
)
from tests.core.engine.fakes import RATE, silence
from voxengine.errors import ConnectionLost
from voxengine.events import EventType
from voxengine.testing import leak_check, run_virtual

Cell = tuple[str, str, str, str]
CELLS: Final[list[Cell]] = list(itertools.product(FAULTS, STATES, OUTCOMES, PAIRINGS))
EXCUSES: Final = tomllib.loads(
    Path(__file__).with_name("matrix_not_applicable.toml").read_text(encoding="utf-8")
)["not_applicable"]


def excuse_for(cell: Cell) -> str | None:
    """The reason why a cell does not apply."""
    words = dict(zip(("fault", "state", "outcome", "pairing"), cell, strict=True))
    for excuse in EXCUSES:
        if all(words[name] in excuse[name] for name in words if name in excuse):
            return str(excuse["why"])
    return None


APPLICABLE: Final = [cell for cell in CELLS if excuse_for(cell) is None]


def test_excuses_name_cells_and_say_why() -> None:
    known = {"fault": FAULTS, "state": tuple(STATES), "outcome": OUTCOMES, "pairing": PAIRINGS}
    for excuse in EXCUSES:
        assert len(excuse["why"]) > 20
        for name, values in excuse.items():
            assert name == "why" or set(values) <= set(known[name])


@pytest.mark.parametrize("excuse", EXCUSES, ids=lambda held: held["why"][:40])
def test_each_excuse_is_needed(excuse: dict[str, object]) -> None:
    others = [other for other in EXCUSES if other is not excuse]

    def is_excused(cell: Cell) -> bool:
        words = dict(zip(("fault", "state", "outcome", "pairing"), cell, strict=True))
        return any(all(words[name] in other[name] for name in words if name in other) for other in others)

    assert any(excuse_for(cell) is not None and not is_excused(cell) for cell in CELLS)


@pytest.mark.parametrize("cell", APPLICABLE, ids="-".join)
def test_conversation_survives(cell: Cell) -> None:
    run_virtual(converse(cell))


async def converse(cell: Cell) -> None:
    _, state, outcome, _ = cell
    async with leak_check():
        scene = make(*cell)
        engine = scene.engine
        await engine.connect()
        engine._recovery.failover.jitter.seed(0)  # One run is like the other.
        await engine.send_text("Hello")
        await engine.wait_idle()
        await STATES[state](scene)
        if outcome == "give up":
            await give_up(scene)
        await engine.wait_idle()
        await check_outcome(scene, cell)
        await follow_up(scene)
        found = problems(scene)
        await engine.disconnect()

    assert found == []


async def give_up(scene: Scene) -> None:
    """See that hope is given up and nothing is lost; then let the application choose another provider."""
    engine = scene.engine
    for _ in range(600):
        await asyncio.sleep(0.1)
        if scene.seen.of(EventType.CONNECTION_LOST) and is_over(scene):
            break
    with pytest.raises(ConnectionLost) as caught:
        await engine.send_text("Are you still there?")
    n_spoken = scene.n_accepted // 2
    assert caught.value.n_unanswered >= n_spoken
    assert caught.value.n_unanswered <= n_spoken + 3 * RATE
    held = json.loads(json.dumps(engine.snapshot()))["input"]
    kept, left = base64.b64decode(held["audio"]["base64"]), scene.n_accepted
    for turn in scene.turns:
        part, left = turn[:left], left - len(turn[:left])
        assert not part or kept.count(part) == 1
    assert left == 0
    assert scene.kinds["two"].made == []
    await engine.switch_provider("two", scene.other)
    if scene.refused:
        rest, scene.refused = scene.refused, b""
        await scene.say(rest)
        await scene.say(silence(900), counts=False)
        await engine.end_turn()


def is_over(scene: Scene) -> bool:
    lost = scene.seen.of(EventType.CONNECTION_LOST)[-1]
    failed = [event.will_retry for event in scene.seen.of(EventType.CONNECTION_FAILED)]
    return lost.will_reconnect is False or (bool(failed) and failed[-1] is False)


async def check_outcome(scene: Scene, cell: Cell) -> None:
    fault, _, outcome, _ = cell
    switched = [event.reason for event in scene.seen.of(EventType.PROVIDER_SWITCHED)]
    if fault == "garbage":
        assert switched == []
        return
    assert switched == [{"give up": "requested"}.get(outcome, outcome)]
    assert len(scene.seen.of(EventType.CONNECTION_LOST)) == 1


async def follow_up(scene: Scene) -> None:
    """One more spoken turn, which the session in force has to hear and answer."""
    turn = tone(600, 7)
    scene.turns.append(turn)
    n_before = len([item for item in scene.engine.history if item.role == "agent"])
    await scene.say(turn)
    await scene.say(silence(900), counts=False)
    await scene.engine.end_turn()
    await scene.engine.wait_idle()
    assert len([item for item in scene.engine.history if item.role == "agent"]) == n_before + 1
