"""The voice detector that ``turn_detection`` names, in the place of the built-in one."""

from __future__ import annotations

import asyncio
import importlib.metadata
import threading

import pytest

from tests.core.engine.fakes import RATE, Call, calling, kind, registry, silence, speak, speech
from tests.core.engine.test_confirm import answering, makes_a_sound
from tests.core.engine.test_listening import FORMAT, hearing
from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.audio.backends.array import ArrayBackend
from voxengine.audio.detectors import GROUP
from voxengine.errors import ConfigError
from voxengine.events import EventType
from voxengine.testing import virtual


class Deaf:
    """Hears no speech in anything, in frames of 32 ms; notes where it was made."""

    made: list[tuple[int, float, bool]]

    def __init__(self, sample_rate: int, threshold: float) -> None:
        is_loop = threading.current_thread() is threading.main_thread()
        self.made.append((sample_rate, threshold, is_loop))
        self.frame_samples = sample_rate * 32 // 1000
        self._n_held = 0

    def push(self, data: bytes) -> list[bool]:
        n_frames, self._n_held = divmod(self._n_held + len(data) // 2, self.frame_samples)
        return [self.judges()] * n_frames

    def judges(self) -> bool:
        return False

    def drop_partial(self) -> None:
        self._n_held = 0

    reset = drop_partial


class Eager(Deaf):
    """Takes everything for speech."""

    def judges(self) -> bool:
        return True


def unwilling(sample_rate: int, threshold: float) -> Deaf:
    raise ConfigError("It needs a model. Try: pip install a-model")


@pytest.fixture(autouse=True)
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Deaf, "made", [], raising=False)
    entries = [
        importlib.metadata.EntryPoint(name, f"tests.core.engine.test_detectors:{value}", GROUP)
        for name, value in (("deaf", "Deaf"), ("eager", "Eager"), ("unwilling", "unwilling"))
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries if group == GROUP else [])


def n_starts(call: Call) -> int:
    return len(call.seen.of(EventType.SPEECH_STARTED))


@pytest.mark.parametrize(("detector", "n"), [(None, 1), ("energy", 1), ("deaf", 0)])
@virtual
async def test_named_detector_says_what_speech_is(detector: str | None, n: int) -> None:
    async with calling(turn_detection={"kind": "client", "detector": detector}) as call:
        await speak(call.engine, silence(500) + speech(1000) + silence(1500), paced=True)

        assert n_starts(call) == n
        assert call.provider().of("end_turn") == [True] * n


@virtual
async def test_detector_gets_rate_and_threshold_and_is_tried_outside_the_loop_before_the_session_opens() -> (
    None
):
    detection = {"kind": "client", "detector": "deaf", "threshold": 0.3}
    async with calling(turn_detection=detection):
        assert Deaf.made[0] == (RATE, 0.3, False)
        assert {each[:2] for each in Deaf.made} == {(RATE, 0.3)}


@pytest.mark.parametrize(("detector", "n"), [("energy", 1), ("deaf", 0)])
@virtual
async def test_microphone_is_gated_by_the_named_detector(detector: str, n: int) -> None:
    backend = ArrayBackend(FORMAT)
    async with hearing(backend, turn_detection={"kind": "client", "detector": detector}) as call:
        backend.feed(silence(500) + speech(1000) + silence(2000))
        await asyncio.sleep(5)

        assert (bytes(call.provider().audio) != b"", n_starts(call)) == (bool(n), n)


@virtual
async def test_what_no_named_detector_takes_for_speech_cuts_no_answer() -> None:
    detection = {"kind": "server", "detector": "deaf"}
    async with calling(interruption="confirm", turn_detection=detection) as call:
        await answering(call)
        await makes_a_sound(call, 1000, "server", then_ms=1000)

        assert call.seen.of(EventType.INTERRUPTED) == []
        assert call.engine.metrics.resumptions == 1


@virtual
async def test_detector_can_be_changed_in_a_conversation() -> None:
    async with calling(turn_detection="client") as call:
        await call.engine.configure_session(turn_detection={"kind": "client", "detector": "eager"})
        await speak(call.engine, silence(500), paced=True)
        n_eager = n_starts(call)
        with pytest.raises(ConfigError, match="'keen'"):
            await call.engine.configure_session(turn_detection={"kind": "client", "detector": "keen"})

        assert n_eager == 1
        assert call.engine.config.turn_detection.detector == "eager"


@pytest.mark.parametrize(
    ("detector", "reason"),
    [
        ("keen", r"No voice detector is called 'keen'\. Installed: energy, deaf, eager, unwilling\."),
        ("unwilling", r"^It needs a model\. Try: pip install a-model$"),
    ],
)
@virtual
async def test_detector_that_is_not_installed_is_told_before_a_connection_is_made(
    detector: str, reason: str
) -> None:
    kinds = {"one": kind()}
    config = VoiceEngineConfig(provider="one", turn_detection={"kind": "client", "detector": detector})
    engine = VoiceEngine(config, registry=registry(**kinds))

    with pytest.raises(ConfigError, match=reason):
        await engine.connect()

    assert [call for provider in kinds["one"].made for call, _ in provider.calls if call != "attach"] == []
    await engine.disconnect()
